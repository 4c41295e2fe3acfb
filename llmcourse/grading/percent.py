"""Masters in percent format: one readable Python file, cut into cells by `# %%` markers.

A notebook is written once, as a file that people can read, lint and compare line by line. A marker carries
the options of its cell (`key="goals" lang="en"`), and every cell remembers its line, so that an error can say
where to look. The grammar is the strict core of jupytext's percent format (jupytext opens the same files);
here the cells need no notebook library.

Used by every week's lecture and lab.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmcourse.errors import UserError

MARKER = re.compile(r"^# %%(?P<rest>.*)$")
OPTION = re.compile(r'\s*([a-z_]+)=(?:"([^"]*)"|(\d+)(?![\w.]))')
KEY = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")


@dataclass(frozen=True)
class Cell:
    """One cell of a master: `kind` is "code" or "markdown", `line` is the line of its marker, from 1."""

    kind: str
    key: str
    options: dict[str, str | int]
    source: str
    path: Path
    line: int

    def option(self, name: str) -> str:
        """Text of an option, or "" where the cell has none."""
        return str(self.options.get(name, ""))

    @property
    def role(self) -> str:
        """What the cell is for in a lab: setup, exercise, help, answer, check, hidden, mutant, or "" for none."""
        return self.option("role")

    def error(self, message: str) -> UserError:
        """An error that says where in the master it is."""
        return UserError(f"{self.path}:{self.line}: {message}")


def read_master(path: Path) -> list[Cell]:
    """Cells of the master at `path`, in order; UserError with file and line where the format is broken."""
    if not path.is_file():
        raise UserError(f"{path}: no such master")
    cells = [_cell(path, line, rest, body) for line, rest, body in _pieces(path)]
    if not cells:
        raise UserError(f'{path}: no cells; a cell starts with a line such as # %% key="first"')
    seen: dict[str, int] = {}
    for cell in cells:
        if cell.key in seen:
            raise cell.error(f'key "{cell.key}" was already used on line {seen[cell.key]}; keys are unique')
        seen[cell.key] = cell.line
    return cells


def _pieces(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line of the marker, what follows it, lines of the body) of each cell; a module docstring may come first."""
    start, rest, body = 0, "", list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        marker = MARKER.match(line)
        if not marker:
            body.append(line)
            continue
        if start:
            yield start, rest, body
        start, rest, body = number, marker["rest"], []
    if start:
        yield start, rest, body


def _cell(path: Path, line: int, rest: str, body: list[str]) -> Cell:
    kind = "markdown" if rest.strip().startswith("[markdown]") else "code"
    options = _options(path, line, rest.replace("[markdown]", "", 1))
    key = str(options.pop("key", ""))
    source = _markdown(path, line, body) if kind == "markdown" else "\n".join(body).strip("\n")
    cell = Cell(kind, key, options, source.rstrip(), path, line)
    _check(cell)
    return cell


def _options(path: Path, line: int, text: str) -> dict[str, str | int]:
    options: dict[str, str | int] = {}
    position = 0
    while text[position:].strip():
        found = OPTION.match(text, position)
        if not found:
            raise UserError(
                f'{path}:{line}: cannot read {text[position:].strip()!r}; options are name="text" or name=3'
            )
        name, quoted, number = found.groups()
        options[name] = quoted if quoted is not None else int(number)
        position = found.end()
    return options


def _markdown(path: Path, line: int, body: list[str]) -> str:
    for number, text in enumerate(body, line + 1):
        if text.strip() and text != "#" and not text.startswith("# "):
            raise UserError(f'{path}:{number}: a line of a markdown cell starts with "# ", this one with {text[:12]!r}')
    return "\n".join(text[2:] for text in body).strip("\n")


def _check(cell: Cell) -> None:
    if not cell.key:
        raise cell.error('the cell has no key; write # %% key="short-name"')
    if not KEY.match(cell.key) or len(cell.key) > 64:
        raise cell.error(f'key "{cell.key}" will not do; use at most 64 of a-z, 0-9 and single hyphens')
    if cell.kind == "markdown" and not cell.option("lang"):
        raise cell.error(f'the markdown cell "{cell.key}" has no language; write lang="en"')
    magic = next((text for text in cell.source.splitlines() if text.startswith(("%", "!"))), "")
    if cell.kind == "code" and magic:
        raise cell.error(f'"{magic}" is no Python; masters hold plain Python, no magics')
    if not cell.source:
        raise cell.error(f'the cell "{cell.key}" is empty')
