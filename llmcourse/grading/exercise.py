"""`@check("exercise")`: a check runs where it is written, and says PASS or why not.

In a notebook the decorator runs the check at once against the notebook's own functions, prints one line when
it passes and raises when it does not. A grader that opens `listening(student)` first gets every verdict as
data instead, with whatever student it brought; the check is the same code in both.

Used by every lab.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from llmcourse.errors import UserError
from llmcourse.grading.failure import CheckFailed, NotWritten, StudentError, Unwritten
from llmcourse.grading.student import NamespaceStudent, Student

__all__ = ["CheckFailed", "Verdict", "check", "listening", "run_check"]

CheckFunction = Callable[[Student], None]


@dataclass(frozen=True)
class Verdict:
    """What one check found.

    `status` is one of PASS; FAIL (the answer is wrong); ERROR (the student's code raised, is missing, or
    answered no plain data); NOT WRITTEN (a stub); BROKEN (the check itself raised: its author's mistake, or
    an answer of an unforeseen form). `kinds` are the names of the classes of what was raised, if anything
    was.
    """

    exercise: str
    name: str
    title: str
    status: str
    message: str = ""
    kinds: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The check in one line: `kv_bytes · grouped_queries: Llama 3 8B keeps 8 KV heads`."""
        return f"{self.exercise} · {self.name}: {self.title}"


@dataclass(frozen=True)
class _Listener:
    student: Student
    settles: Callable[[Verdict], bool]
    verdicts: list[Verdict] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)

    def hear(self, exercise: str, function: CheckFunction) -> None:
        if exercise in self.settled:
            return
        verdict = run_check(exercise, function, self.student)
        self.verdicts.append(verdict)
        if self.settles(verdict):
            self.settled.add(exercise)


_listener: ContextVar[_Listener | None] = ContextVar("listener", default=None)


def check(exercise: str) -> Callable[[CheckFunction], CheckFunction]:
    """Run the decorated function as a check of `exercise`: it passes, or CheckFailed or NotImplementedError."""

    def run(function: CheckFunction) -> CheckFunction:
        listener = _listener.get()
        if listener is not None:
            listener.hear(exercise, function)
            return function
        verdict = run_check(exercise, function, NamespaceStudent(function.__globals__))
        if verdict.status == "NOT WRITTEN":
            raise Unwritten(f"{exercise} · {verdict.name}: {verdict.message}") from None
        if verdict.status != "PASS":
            raise CheckFailed(f"FAIL {verdict.label}\n{verdict.message}") from None
        print(f"PASS {verdict.label}")
        return function

    return run


@contextmanager
def listening(student: Student, settles: Callable[[Verdict], bool] = lambda verdict: False) -> Iterator[list[Verdict]]:
    """Inside, every `@check` asks `student` and adds its verdict to the list, and none raises.

    After a verdict that ``settles`` its exercise, no more checks of that exercise run.
    """
    listener = _Listener(student, settles)
    token = _listener.set(listener)
    try:
        yield listener.verdicts
    finally:
        _listener.reset(token)


def run_check(exercise: str, function: CheckFunction, student: Student) -> Verdict:
    """The verdict of one check on one student."""
    title = (function.__doc__ or function.__name__.replace("_", " ")).strip().splitlines()[0]

    def verdict(status: str, message: str = "", kinds: tuple[str, ...] = ()) -> Verdict:
        return Verdict(exercise, function.__name__, title, status, message, kinds)

    try:
        function(student)
    except NotWritten as reason:
        return verdict("NOT WRITTEN", str(reason))
    except StudentError as reason:
        return verdict("ERROR", str(reason), reason.kinds)
    except CheckFailed as reason:
        return verdict("FAIL", _with_call(str(reason), student))
    except UserError as error:
        return verdict("BROKEN", str(error), ("UserError",))
    except Exception as error:
        text = f"the check stopped with {type(error).__name__}: {error}; has your answer the form that is asked for?"
        return verdict("BROKEN", _with_call(text, student), (type(error).__name__,))
    return verdict("PASS")


def _with_call(message: str, student: Student) -> str:
    return f"{message}\n  asked: {student.last}" if student.last and student.last not in message else message
