"""Runs a lab in this process, student and checker apart, as a rehearsal for its checks.

Two namespaces stand for the two sides of the border: setup, plain and answer cells run on the student's side;
setup, check and hidden cells on the checker's. So a check that reaches for the student's function by its bare
name, past the border, fails here, before a class is graded with it. It is for masters that we trust; nothing
is sandboxed.

Used for every lab's kill table.
"""

import ast
import contextlib
import io
import linecache
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llmcourse.grading.builder import LANG, source
from llmcourse.grading.exercise import Verdict, listening
from llmcourse.grading.manifest import Exercise, Lab, defined, tree
from llmcourse.grading.percent import Cell
from llmcourse.grading.student import NamespaceStudent

CHECKS = ("check", "hidden")


@dataclass(frozen=True)
class Rehearsal:
    """What came of running one version of a lab: a verdict for each check, and what cells raised, by their key."""

    verdicts: tuple[Verdict, ...]
    errors: dict[str, BaseException]
    seconds: float

    def of(self, exercise: Exercise) -> list[Verdict]:
        """A verdict for every check of the exercise, "BROKEN" where a check was never reached."""
        found = {verdict.name: verdict for verdict in self.verdicts if verdict.exercise == exercise.id}
        return [
            found.get(name, Verdict(exercise.id, name, "", "BROKEN", self._silence(exercise)))
            for name in exercise.checks + exercise.hidden
        ]

    def passes(self, exercise: Exercise) -> bool:
        """Whether every check of the exercise passed, and so its points are given."""
        return all(verdict.status == "PASS" for verdict in self.of(exercise))

    def _silence(self, exercise: Exercise) -> str:
        error = self.errors.get(exercise.check.key)
        return f"the check never ran: {type(error).__name__}: {error}" if error else "the check never ran"


def rehearse(lab: Lab, version: str, limit: float = 60.0, only: frozenset[str] | None = None,
             settles: Callable[[Verdict], bool] = lambda verdict: False) -> Rehearsal:
    """Run `version` ("reference", "student" or a mutant's key), each cell stopped after `limit` seconds.

    With `only`, no checks but those of these exercises run; `settles` as for `listening`.
    """
    started = time.perf_counter()
    student: dict[str, Any] = {"__name__": "__main__"}
    checker: dict[str, Any] = {"__name__": "__main__"}
    errors: dict[str, BaseException] = {}
    with listening(NamespaceStudent(student), settles) as verdicts, contextlib.redirect_stdout(io.StringIO()):
        for cell in lab.cells:
            if cell.kind != "code" or cell.role == "mutant" or cell.option("lang") not in ("", LANG):
                continue
            if cell.role in CHECKS and only is not None and cell.option("exercise") not in only:
                continue
            sides = [checker] if cell.role in CHECKS else [student, checker] if cell.role == "setup" else [student]
            for side in sides:
                _run(cell, source(lab, cell, version), side, errors, limit)
    return Rehearsal(tuple(verdicts), errors, time.perf_counter() - started)


def affected(lab: Lab, exercise: Exercise) -> frozenset[str]:
    """Exercises whose checks can notice a change of this exercise's answer, itself among them.

    A cell can notice when it mentions one of the answer's names (a check does so in a string), or a name that
    a cell which can notice has set. Cells are read, not run, so a change that travels without any name is
    missed.
    """
    names, found = set(exercise.names), {exercise.id}
    for cell in lab.cells:
        if cell.kind != "code" or cell.role == "mutant" or cell.option("exercise") == exercise.id:
            continue
        mentioned, stored = _words(cell)
        if mentioned & names:
            found |= {cell.option("exercise")} - {""}
            names |= stored if cell.role not in CHECKS else set()
    return frozenset(found)


def _words(cell: Cell) -> tuple[set[str], set[str]]:
    """Names and strings that a cell mentions, and names that it sets."""
    mentioned: set[str] = set()
    stored = set(defined(tree(cell)))
    for node in ast.walk(tree(cell)):
        if isinstance(node, ast.Name):
            (stored if isinstance(node.ctx, ast.Store) else mentioned).add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            mentioned.add(node.value)
    return mentioned, stored


def _run(cell: Cell, text: str, namespace: dict[str, Any], errors: dict[str, BaseException], limit: float) -> None:
    name = f"<{cell.key}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    try:
        with _stopped_after(limit):
            exec(compile(text, name, "exec"), namespace)
    except KeyboardInterrupt as error:
        if not isinstance(error, OutOfTime):
            raise
        errors[cell.key] = error
    except BaseException as error:
        errors[cell.key] = error


class OutOfTime(KeyboardInterrupt):
    """A cell that ran past its limit; like Ctrl-C, it passes through whatever catches exceptions."""


@contextlib.contextmanager
def _stopped_after(limit: float) -> Iterator[None]:
    """OutOfTime in the block after `limit` seconds, where the system can do that (a main thread with SIGALRM)."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise OutOfTime(f"did not end within {limit:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
