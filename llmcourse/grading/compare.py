"""Says in words how two pieces of plain data differ, or that they do not.

Short lists are shown whole, both of them: that is what a reader sees a mistake in. Of longer data the first
difference is what they can act on: the kind, then the shape, then the first index and how many others. A NaN
equals only a NaN in the same place. Numbers of any width compare as numbers, bools only with bools.

Used by every lab.
"""

import math
from typing import Any

from llmcourse.grading.blame import show
from llmcourse.grading.values import describe

NUMBERS = (int, float, complex)
SHORT = 72  # characters of a list that is shown whole


def difference(got: Any, want: Any, atol: float = 0.0, rtol: float = 0.0) -> str | None:
    """How plain `got` differs from plain `want`, as "got …; expected …", or None where it does not."""
    return _difference(got, want, (atol, rtol), "")


def _difference(got: Any, want: Any, tolerance: tuple[float, float], where: str) -> str | None:
    got, want = _scalar(got), _scalar(want)
    if _is_array(want) or _is_array(got):
        return _arrays(got, want, tolerance, where)
    for kinds, compare in ((NUMBERS, _numbers), ((list, tuple), _sequences), ((dict,), _mappings)):
        if type(want) in kinds and type(got) in kinds:
            return compare(got, want, tolerance, where)
    if type(got) is not type(want):
        kind = "" if got is None else f", {describe(got)}"
        return f"got {show(got)}{_at(where)}{kind}; expected {_wanted(want)}"
    return None if got == want else f"got {show(got)}{_at(where)}; expected {show(want)}"


def _at(where: str) -> str:
    return f" at {where}" if where else ""


def _wanted(want: Any) -> str:
    return "None" if want is None else f"{describe(want)}, {show(want)}"


def _scalar(value: Any) -> Any:
    """An array or tensor without dimensions as the number it holds."""
    return value.item() if _is_array(value) and not value.shape else value


def _is_array(value: Any) -> bool:
    return hasattr(type(value), "dtype")


def _numbers(got: Any, want: Any, tolerance: tuple[float, float], where: str) -> str | None:
    if got == want or (got != got and want != want):
        return None
    atol, rtol = tolerance
    distance = abs(got - want) if math.isfinite(abs(want)) and math.isfinite(abs(got)) else math.inf
    if distance <= atol + rtol * abs(want):
        return None
    one, other = _digits(got, want, tolerance)
    return f"got {one}{_at(where)}; expected {other}{_near(want, tolerance)}"


def _near(want: Any, tolerance: tuple[float, float]) -> str:
    """How far a value may be from `want`, in words; of a list only where that is the same for all items."""
    atol, rtol = tolerance
    if type(want) in (list, tuple):
        return f" within {atol:g}" if atol and not rtol else ""
    return f" within {atol + rtol * abs(want):g}" if atol or rtol else ""


def _digits(got: Any, want: Any, tolerance: tuple[float, float]) -> tuple[str, str]:
    """Two numbers as text: six digits where they are compared roughly and these tell them apart, else all."""
    short = tuple(f"{value:.6g}" if type(value) is float else repr(value) for value in (got, want))
    return (short[0], short[1]) if any(tolerance) and short[0] != short[1] else (repr(got), repr(want))


def _sequences(got: Any, want: Any, tolerance: tuple[float, float], where: str) -> str | None:
    pairs = enumerate(zip(got, want, strict=False))
    reasons = (_difference(one, other, tolerance, f"{where}[{index}]") for index, (one, other) in pairs)
    reason = next((reason for reason in reasons if reason), None)
    if reason is None and len(got) == len(want):
        return None
    one, other = _whole(got, tolerance), _whole(want, tolerance)
    if one and other and one != other:
        return f"got {one}{_at(where)}; expected {other}{_near(want, tolerance)}"
    if reason:
        return reason
    return f"got {len(got)} items{_at(where)}: {show(got)}; expected {len(want)}: {show(want)}"


def _whole(value: Any, tolerance: tuple[float, float]) -> str:
    """A list of plain values with nothing left out, or "" where that would be long."""
    text = _text(value, any(tolerance)) if len(value) <= SHORT else ""
    return text if len(text) <= SHORT else ""


def _text(value: Any, roughly: bool) -> str:
    if type(value) in (list, tuple):
        items = ", ".join(_text(item, roughly) for item in value)
        return f"[{items}]" if type(value) is list else f"({items},)" if len(value) == 1 else f"({items})"
    if type(value) is float and roughly:
        return f"{value:.6g}"
    return show(value)


def _mappings(got: Any, want: Any, tolerance: tuple[float, float], where: str) -> str | None:
    missing, extra = [key for key in want if key not in got], [key for key in got if key not in want]
    if missing or extra:
        lacks = f"lacks {show(missing)}" if missing else f"has {show(extra)} too many"
        return f"got a dict{_at(where)} with keys {show(list(got))}, which {lacks}; expected {show(list(want))}"
    for key in want:
        reason = _difference(got[key], want[key], tolerance, f"{where}[{key!r}]")
        if reason:
            return reason
    return None


def _arrays(got: Any, want: Any, tolerance: tuple[float, float], where: str) -> str | None:
    if type(got) is not type(want):
        return f"got {describe(got)}{_at(where)}; expected {describe(want)}"
    if tuple(got.shape) != tuple(want.shape):
        return f"got shape {tuple(got.shape)}{_at(where)}; expected shape {tuple(want.shape)}"
    if _kind(got) != _kind(want):
        return f"got dtype {got.dtype}{_at(where)}; expected {_kind(want)} ({want.dtype})"
    return _elements(_numpy(got), _numpy(want), tolerance, where)


def _elements(got: Any, want: Any, tolerance: tuple[float, float], where: str) -> str | None:
    import numpy

    if got.dtype.kind in "US":
        wrong = got != want
    else:
        atol, rtol = tolerance
        wrong = ~numpy.isclose(got, want, rtol=rtol, atol=atol, equal_nan=True)
    if not wrong.any():
        return None
    first = tuple(int(i) for i in numpy.argwhere(wrong)[0])
    place = f"{list(first) if len(first) > 1 else first[0]}" + (f" of {where}" if where else "")
    bad = got[first].item()
    if bad != bad:
        count = int(numpy.isnan(got).sum())
        return f"got NaN at {place} ({count} of {got.size} values are NaN); expected {want[first].item():g}"
    one, other = _digits(bad, want[first].item(), tolerance)
    return f"got {one} at {place}; expected {other} ({int(wrong.sum())} of {wrong.size} values differ)"


def _kind(array: Any) -> str:
    names = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex", "U": "text", "S": "bytes"}
    return names[_numpy(array).dtype.kind]


def _numpy(array: Any) -> Any:
    if type(array).__name__ == "ndarray":
        return array
    # numpy has no bfloat16; widening a half-precision float to float32 loses nothing.
    return (array.float() if array.is_floating_point() and array.element_size() < 4 else array).numpy()
