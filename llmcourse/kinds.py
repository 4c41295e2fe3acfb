"""Is this value of the kind that is asked for: options that people type, checked against annotations.

A wrong kind that is noticed late is an exception about something else; one that is never noticed, such as NaN, which is
neither below nor above any limit, is a wrong result. So what people configure is checked where it is made. All weeks.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import numbers
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from llmcourse.errors import UserError

WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "True or False", str: "a word",
                         type(None): "None"}
LARGEST = 2**1000                        # beyond it a whole number has no float


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the annotated kind: True is no number, and neither is NaN. Unknown kinds fit anything."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if kind is float:
        return (isinstance(value, numbers.Real) and type(value) is not bool and bool(value == value)
                and (not isinstance(value, numbers.Integral) or abs(int(value)) < LARGEST))
    if kind is int:
        return isinstance(value, numbers.Integral) and type(value) is not bool
    if kind is collections.abc.Mapping:
        return (isinstance(value, Mapping)
                and all(fits(key, inner[0]) and fits(each, inner[1]) for key, each in value.items()))
    if kind in (tuple, collections.abc.Sequence):
        return (isinstance(value, collections.abc.Sequence) and not isinstance(value, str)
                and all(fits(each, inner[0]) for each in value))
    return isinstance(value, kind) if kind in (bool, str, type(None)) else True


def words(hint: Any) -> str:
    """What an annotation takes, in words; "" for objects, which nobody can type."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        said = [words(each) for each in inner if words(each)]
        return "" if said == ["None"] else " or ".join(said)
    if kind is collections.abc.Mapping:
        return "numbers by name, such as {'a': 1}"
    if kind in (tuple, collections.abc.Sequence):
        return "a list of numbers, such as [1, 2]"
    return WORDS.get(kind, "")


def options_of(make: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The options of a maker by name; what is filled in already, or takes an object, is not among them."""
    if isinstance(make, type) and make.__init__ is object.__init__:    # type: ignore[misc]
        return {}
    parameters, filled = inspect.signature(make, eval_str=True).parameters, getattr(make, "keywords", {})
    return {name: about for name, about in parameters.items()
            if name not in filled and words(about.annotation)
            and about.kind in (about.POSITIONAL_OR_KEYWORD, about.KEYWORD_ONLY)}


def check_options(what: str, name: str, known: Mapping[str, inspect.Parameter], options: Mapping[str, Any]) -> None:
    """UserError, beginning with ``what``, for options that ``name`` does not have, lacks, or has of another kind."""
    for option, value in options.items():
        if option not in known:
            there = f"there are {', '.join(known)}" if known else "it has none"
            raise UserError(f"{what}: {name} has no option {option!r}; {there}")
        check_kind(f"{what}: {option}", value, known[option].annotation)
    lacking = [option for option, about in known.items() if about.default is about.empty and option not in options]
    if lacking:
        raise UserError(f"{what}: {name} needs {', '.join(lacking)}, {words(known[lacking[0]].annotation)}")


def check_fields(settings: Any) -> None:
    """UserError for a field of a dataclass that is not of its annotated kind."""
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        check_kind(field.name, getattr(settings, field.name), hints[field.name])


def check_kind(name: str, value: Any, hint: Any) -> None:
    """UserError for a value that is not of the annotated kind."""
    if not fits(value, hint):
        text = repr(value) if not isinstance(value, int) or abs(value) < LARGEST else "a huge number"
        raise UserError(f"{name} is {text[:60]}; it takes {words(hint)}")
