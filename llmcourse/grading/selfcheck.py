"""The self-check: a student's answers, spliced into a clean copy of the lab, run under nbval, told exercise
by exercise.

It believes only what a clean copy says: the answers are taken out of the notebook, put into a fresh build of
the student version, and an exercise passes only when its check cell passed and every one of its checks said
so. An answer that kills the kernel is replaced by its stub and the rest runs again, so that one exercise
cannot hide another; where one may have changed what all share, each is judged by itself. It is no grade: the
hidden checks are not here, and the student's code shares a process with the visible ones.

Used by `llmcourse check`, every lab.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmcourse.errors import UserError
from llmcourse.grading.manners import defines, reaches_out
from llmcourse.grading.nbval_run import Outcome, run_nbval
from llmcourse.grading.splice import Notebook, clean_copy, given, protected, spliced
from llmcourse.grading.submission import Answer, course, find_answer, lab_of, read_notebook, strangers
from llmcourse.paths import LABS

WORDS = {"KernelDied": "the process ended (os._exit, a crash, out of memory)", "Timeout": "it did not end within {} s",
         "KeyboardInterrupt": "it raised KeyboardInterrupt, which stops a notebook; raise another exception"}


@dataclass(frozen=True)
class ExerciseResult:
    """One exercise's result: `status` is PASS, FAIL or NOT WRITTEN; `reasons` are one text for each failure or note."""

    exercise: str
    title: str
    points: int
    status: str
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hopeless: bool = False  # it ran out of time or ended the process, as it would by itself

    @property
    def earned(self) -> int:
        """The exercise's points if it passes, else 0."""
        return self.points if self.status == "PASS" else 0


@dataclass(frozen=True)
class Report:
    """The self-check of one notebook."""

    lab: str
    exercises: tuple[ExerciseResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """Points of the exercises whose visible checks pass."""
        return sum(exercise.earned for exercise in self.exercises)

    @property
    def maximum(self) -> int:
        """Points of the whole lab."""
        return sum(exercise.points for exercise in self.exercises)


def self_check(path: Path, timeout: float = 60.0, labs: Path = LABS,
               tell: Callable[[str], None] = lambda doing: None) -> Report:
    """Check the notebook at `path`, `timeout` seconds for a cell; UserError for what is no lab's notebook.

    With the lab's master in `labs`/source the answers go into a clean build; without one (a student's
    distribution) the notebook runs as it is. ``tell`` hears what is being done.
    """
    submitted = read_notebook(path)
    name = lab_of(submitted, path)
    clean = clean_copy(submitted, path, name, labs)
    keys = [cell["id"] for cell in clean["cells"] if course(cell).get("role") == "answer"]
    needed = protected(clean)
    answers = {key: find_answer(submitted, key, needed) for key in keys}
    if not any(answer.found for answer in answers.values()):
        raise UserError(f"{path}: this is not {name}; it holds none of its answer cells")
    tell("running the checks")
    outcomes, ended = _outcomes(clean, answers, name, timeout)
    results = [_result(clean, cell, answers, outcomes, ended, timeout) for cell in _check_cells(clean)]
    results = [_alone(clean, cell, answers, result, name, timeout, tell)
               for cell, result in zip(_check_cells(clean), results, strict=True)]
    notes = [
        f"the cell {key} was left out: {_words(outcome, timeout)}"
        for key, outcome in ended.items()
        if not outcome.course.get("exercise")
    ]
    return Report(name, tuple(_explain(result, strangers(submitted)) for result in results), tuple(notes))


def _check_cells(notebook: Notebook) -> list[Notebook]:
    """The check cell of each exercise; of a copied one the last."""
    checks = [cell for cell in notebook["cells"] if course(cell).get("role") == "check"]
    return list({str(course(cell).get("exercise")): cell for cell in checks}.values())


def _outcomes(
    clean: Notebook, answers: dict[str, Answer], name: str, timeout: float
) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
    """Outcome of each cell by its id, and of those that ended the process: these are left out, the rest runs again."""
    outcomes: dict[str, Outcome] = {}
    ended: dict[str, Outcome] = {}
    while True:
        ran = run_nbval(spliced(clean, answers, ended), name, timeout)
        fresh = {outcome.id: outcome for outcome in ran}
        killer = next((outcome for outcome in ran if not outcome.lives), None)
        if killer is None:
            return outcomes | fresh, ended
        if killer.id in ended or _role(clean, killer.id) == "setup":
            raise UserError(f"{name}: the process ended in its cell {killer.id}; restart, and try again")
        outcomes |= fresh
        ended[killer.id] = killer


def _alone(
    clean: Notebook, check: Notebook, answers: dict[str, Answer], result: ExerciseResult, name: str, timeout: float,
    tell: Callable[[str], None]
) -> ExerciseResult:
    """The result of the exercise by itself, where another answer may have changed what all of them share."""
    mine = {cell["id"] for cell in clean["cells"] if course(cell).get("exercise") == result.exercise}
    others = {key: answer for key, answer in answers.items() if key not in mine and answer.source}
    shared = given(clean).union(*(defines(answer.source) for key, answer in answers.items() if key in mine))
    settled = result.status == "NOT WRITTEN" or any(answers[key].trouble for key in mine if key in answers)
    if settled or result.hopeless or not any(reaches_out(other.source, shared) for other in others.values()):
        return result
    tell(f"judging {result.title!r} by itself: another answer may change what all share")
    only = {key: answer if key in mine else Answer() for key, answer in answers.items()}
    outcomes, ended = _outcomes(clean, only, name, timeout)
    again = _result(clean, check, only, outcomes, ended, timeout)
    if again.status == result.status:
        return again
    note = ("it was judged by itself: beside your other answers it comes out otherwise, so one of them changes what "
            "all share (a module, a setting, or a name that it sets outside of its functions)")
    return replace(again, notes=(*again.notes, note))


def _role(notebook: Notebook, key: str) -> str:
    return next((str(course(cell).get("role", "")) for cell in notebook["cells"] if cell["id"] == key), "")


def _result(
    clean: Notebook,
    cell: Notebook,
    answers: dict[str, Answer],
    outcomes: dict[str, Outcome],
    ended: dict[str, Outcome],
    timeout: float,
) -> ExerciseResult:
    about = course(cell)
    exercise = str(about.get("exercise"))
    mine = [each["id"] for each in clean["cells"] if course(each).get("exercise") == exercise]
    result = ExerciseResult(exercise, _title(clean, exercise), _points(about), "FAIL")
    for key in mine:
        if key in answers and answers[key].notes:
            result = replace(result, notes=answers[key].notes)
        if key in answers and answers[key].trouble:
            return replace(result, reasons=(answers[key].trouble,))
    for key in mine:
        if key in ended:
            return replace(result, reasons=(f"running it, {_words(ended[key], timeout)}",), hopeless=True)
        outcome = outcomes.get(key)
        if key in answers and outcome is not None and not outcome.passed:
            return replace(result, reasons=(f"its answer cell stopped: {_words(outcome, timeout)}",))
    return _judged(result, about, outcomes.get(cell["id"]), timeout)


def _judged(result: ExerciseResult, about: dict[str, Any], outcome: Outcome | None, timeout: float) -> ExerciseResult:
    """PASS only on evidence: the check cell ran, passed, and every one of its checks said PASS."""
    if outcome is None:
        return replace(result, reasons=("its checks did not run",))
    if not outcome.passed:
        result = replace(result, hopeless=outcome.kind == "Timeout")
        if outcome.kind == "NotImplementedError":
            return replace(result, status="NOT WRITTEN", reasons=(_message(outcome, timeout),))
        return replace(result, reasons=(_message(outcome, timeout),))
    silent = [name for name in about.get("checks", []) if f"PASS {result.exercise} · {name}:" not in outcome.stdout]
    if silent or not about.get("checks"):
        return replace(
            result, reasons=(f"its checks did not report: {', '.join(map(str, silent)) or 'there are none'}",)
        )
    return replace(result, status="PASS")


def _message(outcome: Outcome, timeout: float) -> str:
    if outcome.kind == "CheckFailed":
        return outcome.message.removeprefix("FAIL ")
    if outcome.kind == "NotImplementedError":
        return outcome.message
    return _words(outcome, timeout)


def _words(outcome: Outcome, timeout: float) -> str:
    known = WORDS.get(outcome.kind, "").format(f"{timeout:g}")
    return known or f"{outcome.kind}: {outcome.message}"


def _explain(result: ExerciseResult, names: set[str]) -> ExerciseResult:
    """The result, with a note where an answer leans on a name from a cell that the student added."""
    missing = re.search(r"name '(\w+)' is not defined", " ".join(result.reasons))
    if missing is None or missing[1] not in names:
        return result
    note = f"`{missing[1]}` is defined in a cell of your own; only answer cells count: move it into the answer cell"
    return replace(result, notes=(*result.notes, note))


def _title(notebook: Notebook, exercise: str) -> str:
    for cell in notebook["cells"]:
        if course(cell).get("role") == "exercise" and course(cell).get("exercise") == exercise:
            return "".join(cell["source"]).split("\n", 1)[0].lstrip("# ")
    return exercise


def _points(about: dict[str, Any]) -> int:
    points = about.get("points")
    return points if type(points) is int and 0 < points <= 100 else 0
