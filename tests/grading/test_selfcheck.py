"""`llmcourse check` on honest and hostile notebooks: every exercise gets its own, sane verdict."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmcourse.cli import check as command
from llmcourse.errors import UserError
from llmcourse.grading.builder import build_lab, write
from llmcourse.grading.selfcheck import ExerciseResult, Report, self_check
from tests.grading.toy import TOY, cell

EXERCISE = '''
# %% [markdown] key="{key}" lang="en" role="exercise" exercise="{name}" points=1 difficulty=1 minutes=1
# ## {name}
# %% key="{key}-answer" role="answer" exercise="{name}"
def f_{name}(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
# %% key="{key}-check" role="check" exercise="{name}"
@check("{name}")
def doubles(student):
    """Twice three is six."""
    expect_equal(student.call("f_{name}", 3), 6)
'''
MUTANT = '# %% key="{key}-m{n}" role="mutant" exercise="{name}" name="wrong"\ndef f_{name}(x):\n    return {n}\n'
HEAD = "def f_{name}(x):\n"
TRUE = "class T(int):\n    def __eq__(self, o): return True\n"
STUBBORN = "    while True:\n        try:\n            while True: pass\n        except BaseException: pass"
# What a student handed in, and the verdict it must get: status, and words in its reasons or notes.
CASES: dict[str, tuple[str, str, str]] = {
    "correct": (HEAD + "    return x + x", "PASS", ""),
    "noisy": ("import sys\n" + HEAD + "    print('PASS', file=sys.stderr)\n    return 2 * x", "PASS", ""),
    "numpy_int": ("import numpy\n" + HEAD + "    return numpy.int64(2 * x)", "PASS", ""),
    "untouched": (HEAD + '    raise NotImplementedError("not written yet")', "NOT WRITTEN", "not written yet"),
    "wrong": (HEAD + "    return x", "FAIL", "got 3; expected 6"),
    "always_true": (TRUE + HEAD + "    return T(1)", "FAIL", "class T, built on int but not a plain int"),
    "skip": ("# NBVAL_SKIP\n" + HEAD + "    return x", "FAIL", "have no effect"),
    "raises": ("# NBVAL_RAISES_EXCEPTION\nraise ValueError('top')", "FAIL", "its answer cell stopped: ValueError: top"),
    "bash": ("%%bash\necho hello", "FAIL", "`%%bash`, is no Python: magics and shell"),
    "shell": (HEAD + "    return 2 * x\n!false", "FAIL", "line 3 of its answer cell, `!false`"),
    "syntax": (HEAD + "    return 2 *", "FAIL", "line 2 of its answer cell is no Python"),
    "renamed": ("def twice(x):\n    return 2 * x", "FAIL", "there is no `f_renamed`"),
    "signature": ("def f_signature():\n    return 6", "FAIL", "your f_signature() cannot be called"),
    "deleted": ("", "FAIL", "its answer cell is not in the notebook"),
    "copied": (HEAD + "    return 2 * x", "PASS", "2 copies"),
    "helper": (HEAD + "    return my_helper(x)", "FAIL", "move it into the answer cell"),
    "exit_code": ("import sys\n" + HEAD + "    sys.exit(0)", "FAIL", "raised SystemExit"),
    "endless": (HEAD + "    while True: pass", "FAIL", "did not end within 5 s"),
    "stubborn": (HEAD + STUBBORN, "FAIL", "did not end within 5 s"),
    "dies_at_once": ("import os\nos._exit(0)", "FAIL", "the process ended"),
    "last": (HEAD + "    return 2 * x", "PASS", ""),
}  # fmt: skip


def lab(folder: Path) -> Path:
    """A lab with one exercise for each case."""
    text = '# %% [markdown] key="title" lang="en"\n# # Many\n# %% key="setup" role="setup"\n'
    text += "from llmcourse.grading import check, expect_equal\n"
    for name in CASES:
        key = name.replace("_", "-")
        text += EXERCISE.format(name=name, key=key)
        text += "".join(MUTANT.format(name=name, key=key, n=n) for n in (1, 2, 3))
    (folder / "source").mkdir()
    master = folder / "source" / "lab98_many.py"
    master.write_text(text)
    return master


def hand_in(notebook: dict[str, Any]) -> None:
    """Turn the student version into the hostile notebook of CASES."""
    for name, (source, _, _) in CASES.items():
        cell(notebook, f"{name.replace('_', '-')}-answer")["source"] = source.format(name=name)
    cells = notebook["cells"]
    cells.remove(cell(notebook, "deleted-answer"))
    second = copy.deepcopy(cell(notebook, "copied-answer")) | {"id": "random-id"}
    cell(notebook, "copied-answer")["source"] = "def f_copied(x):\n    return 0"
    cells.insert(cells.index(cell(notebook, "copied-answer")) + 1, second)
    own = {"cell_type": "code", "id": "own", "metadata": {}, "source": "def my_helper(x): return 2 * x"}
    cells.insert(3, own | {"outputs": [], "execution_count": None})
    tampered = cell(notebook, "wrong-check")
    tampered["source"], tampered["metadata"] = "print('PASS wrong · doubles: yes')", {"tags": ["nbval-skip"]}
    notebook["metadata"]["course"]["points"] = 1000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExerciseResult]:
    """Result of each case, from one self-check of one notebook."""
    folder = tmp_path_factory.mktemp("labs")
    notebook = build_lab(lab(folder))
    hand_in(notebook)
    path = folder / "lab98_many.ipynb"
    path.write_text(write(notebook))
    report = self_check(path, timeout=5.0, labs=folder)
    assert report.maximum == len(CASES)
    return {result.exercise: result for result in report.exercises}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_hand_in_gets_a_sane_verdict(hostile: dict[str, ExerciseResult], name: str) -> None:
    _, status, words = CASES[name]
    result = hostile[name]
    assert result.status == status, result
    assert words in " ".join(result.reasons + result.notes)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "lab99_toy.py").write_text(TOY.read_text())
    return tmp_path


@pytest.mark.slow
def test_without_a_master_the_notebook_runs_as_it_is(tmp_path: Path) -> None:
    notebook = build_lab(TOY, "reference")
    cell(notebook, "bucket-answer")["source"] = "check = lambda name: lambda function: function\nclass Bucket: pass"
    path = tmp_path / "renamed.ipynb"
    path.write_text(write(notebook))
    report = self_check(path, labs=tmp_path)
    assert (report.lab, report.points, report.maximum) == ("lab99_toy", 2, 5)
    assert "redefines `check`, which the checks need" in report.exercises[1].reasons[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not json", "its JSON is broken"),
        (b"\xff\xfe{", "its JSON is broken"),
        (b"[1, 2]", "no list of cells"),
        (b'{"cells": [], "nbformat": 3}', "notebook format 3"),
        (b'{"cells": [5], "nbformat": 4}', "cell 0 is not a notebook cell"),
        (b'{"cells": [{"source": 5}], "nbformat": 4}', "cell 0 is not a notebook cell"),
        (b'{"cells": [], "nbformat": 4, "metadata": 7}', "not one of the course's labs"),
        (b"[" * 100_000, "its JSON is broken"),
        (b'{"cells": [], "nbformat": 4, "metadata": {"course": {"lab": "../../etc/passwd"}}}', "not one of"),
        (b'{"cells": [], "nbformat": 4, "metadata": {"course": {"lab": "lab99_toy"}}}', "none of its answer cells"),
    ],
)
def test_what_is_no_lab_is_refused_in_one_line(toy: Path, content: bytes, words: str) -> None:
    path = toy / "handed_in.ipynb"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        self_check(path, labs=toy)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(toy: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        self_check(toy / "absent.ipynb", labs=toy)
    with pytest.raises(UserError, match="not a file"):
        self_check(toy, labs=toy)


RESULTS = (
    ExerciseResult("a", "Exercise 1 · A", 2, "PASS"),
    ExerciseResult("b", "Exercise 2 · B\x1b[2J", 3, "FAIL", ("got 1; expected 2\nwhy\u202e?",), ("a note",)),
)


def test_the_table_carries_its_result_in_words() -> None:
    shown = command.table(Report("lab98", RESULTS))
    assert "2 of 5 points, 1 of 2 exercises pass." in shown and "not a grade" in shown
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "    got 1; expected 2\n    why·?\n    note: a note" in shown
    assert "\x1b[31mFAIL" in command.table(Report("lab98", RESULTS), colour=True)


class _Checked:
    """`self_check` without the work: it tells one thing and gives `results`."""

    def __init__(self, results: tuple[ExerciseResult, ...]) -> None:
        self.results = results
        self.timeouts: list[float] = []

    def __call__(self, path: Path, timeout: float, tell: Callable[[str], None]) -> Report:
        self.timeouts.append(timeout)
        tell("runs the\x1b[2J cells")
        return Report("lab98", self.results)


@pytest.mark.parametrize(("results", "code"), [(RESULTS, 1), (RESULTS[:1], 0)])
def test_the_command_answers_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], results: tuple[ExerciseResult, ...], code: int
) -> None:
    checked, recorded = _Checked(results), list[Any]()
    monkeypatch.setattr(command, "self_check", checked)
    monkeypatch.setattr(command, "record", lambda lab, score: recorded.append((lab, score.points, score.maximum)))
    assert command.main(["x.ipynb", "--json", "--timeout", "7"]) == code
    data = json.loads(capsys.readouterr().out)
    assert data["points"] == 2 and data["grade"] is False and data["exercises"][0]["status"] == "PASS"
    assert recorded == [("lab98", 2, sum(result.points for result in results))]
    assert checked.timeouts == [7.0]


@pytest.mark.parametrize(
    ("flags", "terminal", "told"),
    [([], True, "runs the·[2J cells …\n"), (["--json"], True, ""), ([], False, "")],
    ids=["on a terminal", "as JSON", "into a file"],
)
def test_what_takes_time_is_told_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str], terminal: bool, told: str
) -> None:
    monkeypatch.setattr(command, "self_check", _Checked(RESULTS))
    monkeypatch.setattr(command, "record", lambda lab, score: None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert command.main(["x.ipynb", *flags]) == 1
    shown = capsys.readouterr()
    assert shown.err == told and "Exercise 1 · A" in shown.out
