"""What the pages name is there: files, folders, links, names of the package, commands with their options, examples."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from benchmarks import decide
from llmcourse import cli
from llmcourse.cli import bench
from llmcourse.paths import ROOT

FRONT = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted(ROOT.glob("week*/README.md"))]
PAGES = [*FRONT, ROOT / "index.py", *sorted(ROOT.glob("data/*/README.md")), ROOT / "benchmarks/engine_notes.md",
         *sorted(ROOT.glob("week*/lecture.py")), *sorted(ROOT.glob("labs/source/*.py"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
CODE = re.compile(r"`([^`]+)`")
FILE = re.compile(r"(?<![\w/.:*-])((?:[\w.*-]+/)*[\w*-][\w.*-]*\.(?:py|ipynb|md|json|jsonl|svg|txt|toml|yml))(?![\w/])")
FOLDER = re.compile(r"`([a-z_]\w*(?:/\w+)*/|[a-z_]\w*(?:/\w+)+)`|^ *([a-z_]\w*/)(?=\s)", re.M)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")
WRITTEN = re.compile(r"--(?:out|json|html|events|chrome-trace)\s+\S+")        # a file that a command would write
MODEL = ROOT / "data/course-tiny"                          # a folder in Hugging Face's format
WORD = re.compile(r"[A-Za-z_]\w*(?:-\w+)*")
Found = tuple[str, str, bool]                             # what kind of thing, its name, whether it is there


def text_of(page: Path) -> str:
    """A page as Markdown: all of it, or the text cells of a notebook's master."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return text
    cells = [cell for cell in re.split(r"^# %%", text, flags=re.M) if cell.startswith(" [markdown]")]
    return "\n\n".join(re.sub(r"^# ?", "", cell.partition("\n")[2], flags=re.M) for cell in cells)


def files(text: str, page: Path) -> Iterator[Found]:
    """Files and folders: from the root, a room, the page's own folder, or a folder that the same paragraph names."""
    for block in re.split(r"\n\s*\n|\n\s*- ", WRITTEN.sub("", text)):
        folders = [first or second for first, second in FOLDER.findall(block)]
        bases = [ROOT, ROOT / "llmcourse", MODEL, page.parent, *(ROOT.glob("week*") if page.parent == ROOT else ())]
        for name in folders:
            yield "folder", name, any((base / name).is_dir() for base in bases)
        bases += [base / name for base in bases for name in folders]
        for name in FILE.findall(block):
            pattern = name.replace("NN", "[0-9][0-9]").replace("_topic", "_*").replace("_name", "_*")
            yield "file", name, any(next(base.glob(pattern), None) for base in bases)


def links(text: str, page: Path) -> Iterator[Found]:
    """Where links lead, but for those to other sites."""
    for target in LINK.findall(text):
        yield "link", target, (page.parent / target).exists()


@cache
def known() -> frozenset[str]:
    """Every name and every one-word string that stands in the package's code; comments and docstrings do not count."""
    found = {"lint-imports", *WORD.findall((ROOT / "Makefile").read_text(encoding="utf-8"))}
    for path in [*(ROOT / "llmcourse").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        found |= {path.stem, path.parent.name}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for part in ("id", "attr", "arg", "name", "asname", "value"):
                name = getattr(node, part, None)
                if isinstance(name, str):
                    found.add(name)
    return frozenset(found)


def names(text: str) -> Iterator[Found]:
    """What stands in back-ticks and looks like a name, with dots or a call's keywords."""
    for code in CODE.findall(FENCE.sub("", text)):
        match = re.fullmatch(r"([A-Za-z_][\w.-]*)(?:\((.*)\).*)?", code, re.S)
        if match and "…" not in match[1] and not FILE.fullmatch(code):
            parts = match[1].removeprefix("llmcourse.").split(".") + re.findall(r"(\w+)=", match[2] or "")
            yield "name", code, all(part in known() for part in parts if part)


def commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """The `llmcourse` and `make` commands of a page, in back-ticks or on a line of a block, and where they stand."""
    for match in re.finditer(r"`(?:\.venv/bin/)?((?:llmcourse|make)\s[^`]+)`", text):
        yield match.start(), shlex.split(match[1])
    for fence in FENCE.finditer(text):
        if not fence[1]:
            for match in re.finditer(r"^ *((?:llmcourse|make) \S.*?)(?:  .*)?$", fence[2], re.M):
                yield fence.start(2) + match.start(), shlex.split(match[1])


def is_option(words: list[str], option: str, helps: dict[tuple[str, ...], str]) -> bool:
    """Whether the command knows the option: `bench NAME` by its source, every other one by its help."""
    if words[1] == "bench":
        return f'"{option}"' in (bench.FOLDER / f"{words[2]}.py").read_text(encoding="utf-8")
    return re.search(rf"{option}\b", helps[help_of(words)]) is not None


def help_of(words: list[str]) -> tuple[str, ...]:
    """The words that ask for a command's own help."""
    return (words[1], words[2]) if words[1] == "data" and len(words) > 2 else (words[1],)


def told(text: str, helps: dict[tuple[str, ...], str]) -> Iterator[Found]:
    """Commands and their options; an option that stands alone belongs to the command named last before it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = sorted(commands(text))
    alone = []
    for match in re.finditer(r"`(--[a-z][^`]*)`", text):
        if before := [words for start, words in named if start < match.start() and words[0] == "llmcourse"]:
            about = before[-1][:3] if before[-1][1] == "bench" else before[-1][:2]
            alone.append((match.start(), about + shlex.split(match[1])))
    for _, words in named + alone:
        if words[0] == "make":
            yield "command", " ".join(words), all(
                re.search(rf"^{word.partition('=')[0]}\s*[:?]", makefile, re.M) for word in words[1:])
            continue
        line, good = " ".join(words), words[1] in cli.COMMANDS and (
            words[1] != "bench" or len(words) < 3 or words[2] in bench.benchmarks())
        if good and words[1] in ("demo", "run"):
            kind = {"demo": "demo", "run": "lecture"}[words[1]]
            good = all((ROOT / f"week{int(word):02}/{kind}.ipynb").is_file() for word in words[2:] if word.isdigit())
        if good and "--only" in words and words[2] == "decide":
            good = words[words.index("--only") + 1] in decide.makers()
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        yield "command", line, bool(good) and all(is_option(words, option, helps) for option in options)


class Helps(dict[tuple[str, ...], str]):
    """The help of each command, read when it is asked for."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__()
        self.capsys = capsys

    def __missing__(self, words: tuple[str, ...]) -> str:
        try:
            cli.main([*words, "--help"])
        except SystemExit as ended:
            assert ended.code == 0, f"llmcourse {' '.join(words)} --help"
        self[words] = self.capsys.readouterr().out
        return self[words]


def examine(page: Path, text: str, helps: dict[tuple[str, ...], str]) -> list[Found]:
    """All that a page names; names of the package on the front pages only, for a lecture has names of its own."""
    found = [*files(text, page), *links(text, page), *told(text, helps)]
    return [*found, *names(text)] if page in FRONT else found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page, capsys):
    found = examine(page, text_of(page), Helps(capsys))
    assert found, "nothing was examined"
    assert [f"{kind} {name}" for kind, name, there in found if not there] == []


def test_the_front_pages_name_things_of_every_kind(capsys):
    found = [each for page in FRONT for each in examine(page, text_of(page), Helps(capsys))]
    assert {kind for kind, *_ in found} == {"file", "folder", "link", "name", "command"} and len(found) > 500


WRONG = """
See `cluster/nowhere.py` and `policies/sjf.py`, in `engine/`: `step.py`, `stepp.py`;
`cluster/off_ray`; [open](week99/x.ipynb).
`Engine.simulated(gpus_of_it=2, num_blocks=3)`, `Engine.imagined`, `LongLostPolicy`, `SJF`,
`metrics.records.records(events)`.
`llmcourse sim --policy sjf`, `llmcourse sim --polcy sjf`, `llmcourse bench decid`, `llmcourse bench decide --only vtx`,
`llmcourse dotcor`, `llmcourse demo 99`; `llmcourse bench sim` (`--moving`, `--sitting`).

```
make lab
make tea
llmcourse run 7 98      two lectures
```
"""


def test_what_is_not_there_is_found(capsys):
    found = examine(ROOT / "README.md", WRONG, Helps(capsys))
    assert {name for _, name, there in found if not there} == {
        "cluster/off_ray", "cluster/nowhere.py", "stepp.py", "week99/x.ipynb", "llmcourse sim --polcy sjf",
        "llmcourse bench decid", "llmcourse bench decide --only vtx", "llmcourse dotcor", "llmcourse demo 99",
        "make tea", "llmcourse run 7 98", "llmcourse bench sim --sitting",
        "Engine.simulated(gpus_of_it=2, num_blocks=3)", "Engine.imagined", "LongLostPolicy"}
    assert {"policies/sjf.py", "step.py", "engine/", "SJF", "metrics.records.records(events)", "make lab",
            "llmcourse sim --policy sjf", "llmcourse bench sim --moving"} <= {name for _, name, there in found if there}
    with pytest.raises(AssertionError, match="data lenghts"):
        examine(ROOT / "README.md", WRONG + "`llmcourse data lenghts --json`", Helps(capsys))


SIMULATED = [words[1:] for page in PAGES for _, words in commands(text_of(page))
             if words[:2] == ["llmcourse", "sim"] and "--help" not in words]


@pytest.mark.parametrize("words", SIMULATED, ids=" ".join)
def test_the_simulations_that_pages_quote_run(words, capsys):
    """With fewer requests than the page would have."""
    assert cli.main([*words, "--requests", "40"]) == 0
    assert "time_to_first_token" in capsys.readouterr().out


EXAMPLES = [code for language, code in FENCE.findall(text_of(ROOT / "README.md")) if language == "python"]


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_examples_of_the_readme_run(code, capsys):
    """What is said of Ray is run in one process."""
    exec(compile(code.replace('driver="ray"', 'driver="local"'), "README.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.strip()


def test_there_are_examples_and_simulations():
    assert len(EXAMPLES) == 3 and len(SIMULATED) >= 3
