"""The words a check is written in: `expect_equal`, `expect_close`, `expect_true`, `expect_raises`.

They compare plain data only (see values.py), say what differs first, and name the misconception when the
wrong value is one that a known mistake produces: `hints={65536: "did you count K but forget V?"}`. True is
not 1 and a float tensor is not an int tensor, but 2.0 equals 2 and a tuple equals a list of the same items.

Used by every lab.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llmcourse.grading.blame import show
from llmcourse.grading.compare import difference
from llmcourse.grading.failure import CheckFailed, NotWritten, StudentError
from llmcourse.grading.values import NotPlain, plain

Hints = Mapping[Any, str] | Iterable[tuple[Any, str]]


def expect_equal(got: Any, want: Any, *, hints: Hints = (), what: str = "") -> None:
    """Fail unless `got` equals `want`, item by item.

    `hints` maps wrong values (or lists pairs, where a value cannot be a key) to the misconception behind
    each; `what` names the value in the message.
    """
    _expect(got, want, 0.0, 0.0, hints, what)


def expect_close(
    got: Any, want: Any, atol: float = 1e-6, *, rtol: float = 0.0, hints: Hints = (), what: str = ""
) -> None:
    """Fail unless every number of `got` is within `atol + rtol·|want|` of `want`: floats, lists, arrays, tensors."""
    _expect(got, want, atol, rtol, hints, what)


def expect_true(condition: object, message: str) -> None:
    """Fail with `message`, which says what was wrong in words, unless `condition` is exactly true."""
    if type(condition) is not bool:
        raise TypeError(f"expect_true takes a bool, it was given {show(condition)}")
    if not condition:
        raise CheckFailed(message)


@contextmanager
def expect_raises(kind: type[BaseException] | str, message: str = "", *, naming: str = "") -> Iterator[None]:
    """Fail unless the student's code raises `kind` (a class or its name), with `naming` in its text if given.

    `message` says in words what should have been refused. Use: `with expect_raises(ValueError):
    student.call(...)`.
    """
    name = kind if isinstance(kind, str) else kind.__name__
    try:
        yield
    except NotWritten:
        raise
    except StudentError as error:
        if name not in error.kinds:
            raise CheckFailed(f"{error}\n{message or f'it should raise {name}'}") from None
        if naming.lower() not in str(error).lower():
            raise CheckFailed(f"{error}\nthe text of the {name} should name {naming!r}") from None
        return
    raise CheckFailed(message or f"nothing was raised; it should raise {name}")


def _expect(got: Any, want: Any, atol: float, rtol: float, hints: Hints, what: str) -> None:
    try:
        got = plain(got)
    except NotPlain as refusal:
        raise CheckFailed(f"{what or 'the answer'} is {refusal}") from None
    reason = difference(got, plain(want), atol, rtol)
    if reason is None:
        return
    pairs = hints.items() if isinstance(hints, Mapping) else hints
    hint = next((text for wrong, text in pairs if difference(got, plain(wrong), atol, rtol) is None), "")
    subject = f"{what}: " if what else ""
    raise CheckFailed(f"{subject}{reason}" + (f"\n{hint}" if hint else ""))
