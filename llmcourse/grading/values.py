"""The border between a student's code and a check: only plain data crosses it.

A check must never run the student's `__eq__`, and in the class grader the student's objects live in another
process. So every value is rebuilt here from exact built-in types, arrays and tensors, and everything else is
refused in words. What becomes what:

| crosses as itself (a copy)                        | becomes                             | is refused                 |
|---------------------------------------------------|-------------------------------------|----------------------------|
| None, bool, int, float, complex, str, bytes       | numpy scalar -> the Python number   | any subclass of these      |
| list, tuple, dict, set, frozenset, range          | Decimal, Fraction -> int or float   | other objects, functions   |
| numpy.ndarray of numbers, bools or text           | Counter, defaultdict, ... -> dict   | generators (use iterate)   |
| torch.Tensor (detached, on the CPU)               | deque -> list, torch.Size -> tuple  | object arrays, cycles      |
| dataclasses, named tuples, enums of this package  | Parameter -> Tensor                 | more than a million values |
|                                                   |                                     | numbers of over 300 digits |

Used by every lab.
"""

import collections
import dataclasses
import decimal
import enum
import fractions
import sys
import types
from typing import Any

ATOMS = (type(None), bool, int, float, complex, str, bytes)
DEPTH, VALUES = 50, 1_000_000
BITS, TEXT = 1_000, 10_000_000  # of a whole number (it still has a float, and fits into a message), and of a text


class NotPlain(TypeError):
    """A value that must not cross the border; the text says which and why."""


def plain(value: Any) -> Any:
    """A copy of `value` in which every type is exactly a built-in, array or tensor; NotPlain where that cannot be."""
    return _Border().cross(value, "")


def describe(value: Any) -> str:
    """What kind of thing `value` is, for a message: "an int", "a tensor of shape (2, 3)"."""
    kind = type(value)
    if _library(kind) in ("torch", "numpy") and hasattr(kind, "shape"):
        name = "tensor" if _library(kind) == "torch" else "numpy array"
        return f"a {name} of shape {tuple(value.shape)}"
    if value is None:
        return "None"
    return f"{'an' if kind.__name__[0] in 'aeiou' else 'a'} {kind.__name__}"


class _Border:
    """Carries one value over: counts what crosses and knows which containers it is inside of."""

    def __init__(self) -> None:
        self.count = 0
        self.inside: list[int] = []

    def cross(self, value: Any, where: str) -> Any:
        self.count += 1
        if self.count > VALUES:
            raise NotPlain(f"more than {VALUES:,} values")
        kind = type(value)
        if kind in ATOMS:
            return _atom(value, where)
        if kind in _CONTAINERS:
            return self.container(value, where)
        library = _library(kind)
        if library == "numpy":
            return _array(value, where)
        if library == "torch":
            return _tensor(value, where)
        if kind in (decimal.Decimal, fractions.Fraction):
            return _number(value, where)
        if _is_ours(kind):
            return self.ours(value, where)
        raise NotPlain(_refusal(kind) + where)

    def container(self, value: Any, where: str) -> Any:
        if id(value) in self.inside:
            raise NotPlain(f"a {type(value).__name__} that contains itself{where}")
        if len(self.inside) == DEPTH:
            raise NotPlain(f"containers nested more than {DEPTH} deep")
        self.inside.append(id(value))
        mapping = isinstance(value, dict | types.MappingProxyType)
        make, items = _CONTAINERS[type(value)], list(value.items() if mapping else value)
        if mapping:
            made = [(self.cross(k, " as a key" + where), self.cross(v, f" at [{_key(k)}]{where}")) for k, v in items]
        else:
            made = [self.cross(item, f" at [{index}]{where}") for index, item in enumerate(items)]
        self.inside.pop()
        return make(made)

    def ours(self, value: Any, where: str) -> Any:
        """A dataclass, named tuple or enum member of this package, made anew by its own class."""
        if isinstance(value, enum.Enum):
            return type(value)[value.name]
        named = getattr(type(value), "_fields", None)
        names = named or [field.name for field in dataclasses.fields(value) if field.init]
        fields = {name: getattr(value, name) for name in names}
        try:
            return type(value)(**{name: self.cross(each, f" in .{name}{where}") for name, each in fields.items()})
        except NotPlain:
            raise
        except Exception as error:
            raise NotPlain(f"a {type(value).__name__} that cannot be: {error}{where}") from None


def _atom(value: Any, where: str) -> Any:
    """A single value as it is, unless no check could do arithmetic with it or show it."""
    if type(value) is int and value.bit_length() > BITS:
        raise NotPlain(f"a whole number of about {round(value.bit_length() * 0.30103):,} digits{where}")
    if type(value) in (str, bytes) and len(value) > TEXT:
        raise NotPlain(f"a {type(value).__name__} of {len(value):,} characters{where}")
    return value


_CONTAINERS: dict[type, Any] = {
    list: list, tuple: tuple, set: set, frozenset: frozenset, range: list, collections.deque: list,
    dict: dict, collections.OrderedDict: dict, collections.defaultdict: dict, collections.Counter: dict,
    types.MappingProxyType: dict,
}  # fmt: skip


def _library(kind: type) -> str:
    """Which library the exact type belongs to ("numpy", "torch" or ""), by identity and not by its name."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and (kind is numpy.ndarray or any(kind is each for each in numpy.sctypeDict.values())):
        return "numpy"
    if torch is not None and kind in (torch.Tensor, torch.nn.Parameter, torch.Size):
        return "torch"
    return ""


def _number(value: decimal.Decimal | fractions.Fraction, where: str) -> int | float:
    """An exact number as an int if it is whole, else as the nearest float."""
    if isinstance(value, fractions.Fraction) or value.is_finite():
        if not -(2**BITS) < value < 2**BITS:
            raise NotPlain(f"a {type(value).__name__} beyond all floats{where}")
        return int(value) if int(value) == value else float(value)
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise NotPlain(f"a {type(value).__name__} that is no float: {value}{where}") from None


def _array(value: Any, where: str) -> Any:
    import numpy

    if isinstance(value, numpy.generic):
        if type(value.item()) not in ATOMS:
            raise NotPlain(_refusal(type(value)) + where)
        return value.item()
    if value.dtype.kind not in "biufcUS":
        raise NotPlain(f"a numpy array of dtype {value.dtype}, not of numbers{where}")
    return numpy.array(value, copy=True)


def _tensor(value: Any, where: str) -> Any:
    import torch

    if isinstance(value, torch.Size):
        return tuple(int(length) for length in value)
    try:
        # The class's own methods: an instance can carry attributes of the same names.
        return torch.Tensor.clone(torch.Tensor.cpu(torch.Tensor.detach(value)))
    except Exception as error:
        raise NotPlain(f"a tensor that cannot be read: {error}{where}") from None


def _is_ours(kind: type) -> bool:
    """Whether `kind` really is a dataclass, named tuple or enum of this package, whatever it calls itself."""
    module = sys.modules.get(str(getattr(kind, "__module__", "")))
    known = getattr(module, "__name__", "").startswith("llmcourse.") and getattr(module, kind.__name__, None) is kind
    named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return known and (dataclasses.is_dataclass(kind) or named_tuple or issubclass(kind, enum.Enum))


def _refusal(kind: type) -> str:
    base = next((each.__name__ for each in (*ATOMS[1:], *_CONTAINERS) if issubclass(kind, each)), "")
    if base:
        return f"an object of class {kind.__name__}, built on {base} but not a plain {base}"
    if kind.__name__ in ("generator", "map", "filter", "zip") or hasattr(kind, "__next__"):
        return f"a {kind.__name__}, not the values themselves; put them in a list"
    if kind.__name__ in ("function", "method", "builtin_function_or_method", "type"):
        return f"a {kind.__name__}, not a value; was a call's () left out?"
    return f"an object of class {kind.__name__}, not plain data (numbers, text, lists, dicts, arrays, tensors)"


def _key(key: Any) -> str:
    return repr(key)[:60] if type(key) in ATOMS else type(key).__name__
