"""The student, as a check sees one: somebody on the other side of a border who answers questions.

A check never touches the student's objects. It asks: call this function, make that object, call its method;
and gets plain data or a handle back. Here the other side is a notebook's namespace in the same process; the
class grader puts a process in a sandbox there and sends the same questions as lines of JSON. What must stay
with the checker but be used by the student's code (a model that counts its tokens) is handed over as
`Served(object)`.

Used by every lab.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmcourse.grading.blame import blame, show_call
from llmcourse.grading.failure import StudentError
from llmcourse.grading.stand_in import StandIn
from llmcourse.grading.values import NotPlain, describe, plain

ITEMS = 100_000  # an iterator that yields more is taken for endless


@dataclass(frozen=True)
class Served:
    """An argument that stays with the checker: the student's code gets a stand-in that can be called and
    asked.

    The stand-in has the public methods and attributes of `object`; what goes in and out of them crosses the
    border too.
    """

    object: Any


@dataclass(frozen=True)
class Question:
    """What a check asks: call, new, get, iterate, next or has; `target` is 0 for the notebook, else a handle."""

    operation: str
    target: int
    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


class Student(ABC):
    """Answers a check's questions; each answer is plain data, a `Handle`, or a `StudentError` raised in words."""

    last = ""  # the last question as a line of code, for messages; a check that has a better word empties it

    @abstractmethod
    def ask(self, question: Question) -> Any:
        """Answer one question: plain data, for "new" and "iterate" the number of a handle, for "next" (more, value)."""

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Plain data that the student's function `name` returns for these arguments."""
        return self._ask(Question("call", 0, name, args, kwargs))

    def new(self, name: str, /, *args: Any, **kwargs: Any) -> "Handle":
        """A handle on what the student's class or function `name` returns; the object stays on the student's side."""
        return Handle(self, self._ask(Question("new", 0, name, args, kwargs)), name)

    def iterate(self, name: str, /, *args: Any, limit: int = ITEMS, **kwargs: Any) -> Iterator[Any]:
        """Plain items that the student's generator `name` yields, one at a time; StudentError after `limit` items."""
        return self._items(Question("iterate", 0, name, args, kwargs), limit)

    def has(self, name: str) -> bool:
        """Whether the student's notebook defines `name`."""
        return bool(self._ask(Question("has", 0, name)))

    def _items(self, question: Question, limit: int) -> Iterator[Any]:
        iterator, asked = self._ask(question), self.last
        for _ in range(limit):
            more, value = self._ask(Question("next", iterator, asked))
            if not more:
                return
            yield value
        raise StudentError(f"{asked} yielded more than {limit:,} items; does it ever stop?")

    def _ask(self, question: Question) -> Any:
        if question.operation != "next":
            self.last = show_call(question.name, question.args, question.kwargs)
        return self.ask(question)


@dataclass(frozen=True, eq=False)
class Handle:
    """An object that stays on the student's side; it may be passed back as an argument of a call."""

    student: Student
    number: int
    name: str

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Plain data that the object's `method` returns."""
        return self.student._ask(Question("call", self.number, f"{self.name}.{method}", args, kwargs))

    def new(self, method: str, /, *args: Any, **kwargs: Any) -> "Handle":
        """A handle on what the object's `method` returns."""
        name = f"{self.name}.{method}"
        return Handle(self.student, self.student._ask(Question("new", self.number, name, args, kwargs)), name)

    def iterate(self, method: str, /, *args: Any, limit: int = ITEMS, **kwargs: Any) -> Iterator[Any]:
        """Plain items that the object's `method` yields."""
        return self.student._items(Question("iterate", self.number, f"{self.name}.{method}", args, kwargs), limit)

    def get(self, attribute: str) -> Any:
        """Plain value of the object's `attribute`."""
        return self.student._ask(Question("get", self.number, f"{self.name}.{attribute}"))


class NamespaceStudent(Student):
    """The student whose functions live in a namespace of this process: a notebook's, or a test's.

    Numbers of handles count up from 1, so the same check asks the same questions in the same order every
    time.
    """

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.objects: list[Any] = []

    def ask(self, question: Question) -> Any:
        """Answer from the namespace; see Student."""
        if question.operation == "has":
            return question.name in self.namespace
        if question.operation == "next":
            return self._next(question)
        found = self._find(question)
        if question.operation == "get":
            return self._over(found, self.last)
        value = self._run(found, question)
        if question.operation == "call":
            return self._over(value, f"{self.last} returned")
        if question.operation == "iterate":
            value = self._iterator(value)
        self.objects.append(value)
        return len(self.objects)

    def _find(self, question: Question) -> Any:
        name = question.name.rpartition(".")[2]
        if question.target:
            owner = self.objects[question.target - 1]
            try:
                return getattr(owner, name)
            except AttributeError:
                raise StudentError(f"your {type(owner).__name__} has no `{name}`; the check needs it") from None
            except BaseException as error:
                raise blame(question.name, error) from None
        if name not in self.namespace:
            raise StudentError(f"there is no `{name}` in the notebook; has its cell been run, is the name spelled so?")
        return self.namespace[name]

    def _run(self, function: Any, question: Question) -> Any:
        if not callable(function):
            raise StudentError(f"`{question.name}` is {describe(function)}, not a function")
        args = [self._in(value) for value in question.args]
        kwargs = {name: self._in(value) for name, value in question.kwargs.items()}
        _fits(question.name, function, args, kwargs, self.last)
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise blame(self.last, error) from None

    def _iterator(self, value: Any) -> Any:
        try:
            return iter(value)
        except TypeError:
            raise StudentError(f"{self.last} returned {describe(value)}; it should yield items one by one") from None

    def _next(self, question: Question) -> tuple[bool, Any]:
        try:
            value = next(self.objects[question.target - 1])
        except StopIteration:
            return False, None
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise blame(question.name, error) from None
        return True, self._over(value, f"{question.name} yielded")

    def _over(self, value: Any, subject: str) -> Any:
        """The student's value on the checker's side."""
        try:
            return plain(value)
        except NotPlain as reason:
            raise StudentError(f"{subject} {reason}") from None

    def _in(self, value: Any) -> Any:
        """A checker's argument on the student's side: a copy, the object behind a handle, or a stand-in."""
        if isinstance(value, Handle):
            return self.objects[value.number - 1]
        if isinstance(value, Served):
            return StandIn(value.object)
        if type(value) in (list, tuple):
            return type(value)(self._in(each) for each in value)
        if type(value) is dict:
            return {key: self._in(each) for key, each in value.items()}
        return plain(value)


def _fits(name: str, function: Any, args: list[Any], kwargs: dict[str, Any], call: str) -> None:
    """StudentError, with both signatures, when `function` cannot be called so."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as reason:
        short = name.rpartition(".")[2]
        raise StudentError(
            f"your {short}{signature} cannot be called as the check calls it: {call} ({reason})"
        ) from None
