"""Whose line was it: an exception in a student's code, told as the call that caused it and the line in their
cell.

A traceback through the checking machinery teaches nothing. What a student needs is the call, the error and
the last line of their own code that it passed through; if that line called into a library, the library's last
words stand in the error.

Used by every lab.
"""

import linecache
import math
import reprlib
import sys
import traceback
from pathlib import Path
from typing import Any

from llmcourse.grading.failure import NotWritten, StudentError

_OURS = str(Path(__file__).resolve().parents[1])
ITEMS, LONGEST = 8, 200  # items and characters of a container that are shown
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = 8
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def blame(call: str, error: BaseException) -> StudentError:
    """What `call` did, in words: the exception, and the student's line it came from."""
    kinds = tuple(kind.__name__ for kind in type(error).__mro__ if kind not in (BaseException, object))
    text = _text(error)
    lines = _own_lines(error)
    if type(error) is NotImplementedError:
        return NotWritten(text or f"{call} is not written yet", kinds)
    head = f"{call} raised {type(error).__name__}{': ' if text else ''}{text}"
    return StudentError("\n".join([head, *lines]), kinds)


def show_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A call as a line of code, its arguments shortened."""
    shown = [show(value) for value in args] + [f"{key}={show(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join(shown)})"


def show(value: Any) -> str:
    """A short text for a plain value or an argument of a check."""
    if hasattr(type(value), "dtype"):
        return _show_array(value)
    if type(value).__module__.startswith("llmcourse.grading"):
        return f"<{getattr(value, 'name', type(getattr(value, 'object', value)).__name__)}>"
    if hasattr(value, "__dataclass_fields__"):
        return f"{type(value).__name__}(…)"
    if type(value) in (list, tuple, set, frozenset, dict) and value:
        return _show_container(value)
    return _SHORT.repr(value)


def _show_container(value: Any) -> str:
    """A container's first items, each shortened; a long text is cut."""
    if isinstance(value, dict):
        shown = [f"{show(key)}: {show(value[key])}" for key in list(value)[:ITEMS]]
    else:
        shown = [show(item) for item in list(value)[:ITEMS]]
    more = ["…"] if len(value) > ITEMS else []
    text = ", ".join(shown + more)
    left, right = "[]" if type(value) is list else "()" if type(value) is tuple else "{}"
    return f"{left}{text if len(text) <= LONGEST else text[:LONGEST] + ' …'}{right}"


def _show_array(value: Any) -> str:
    """An array or tensor: its numbers where they are few, else its shape and kind."""
    if math.prod(value.shape) <= 8:
        return " ".join(repr(value).split())
    return f"<{type(value).__name__} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}>"


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        return "(an error that cannot be printed)"
    return text if len(text) <= 600 else text[:600] + " …"


def _own_lines(error: BaseException) -> list[str]:
    """The last two lines of the student's own code that the exception passed through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_students(frame.filename)]
    return [f"  in your {frame.name}, line {frame.lineno}: {_line(frame)}" for frame in frames[-2:]]


def _line(frame: traceback.FrameSummary) -> str:
    return (frame.line or linecache.getline(frame.filename, frame.lineno or 0)).strip()


def _is_students(filename: str) -> bool:
    return "site-packages" not in filename and not filename.startswith((_OURS, sys.base_prefix, "<frozen"))
