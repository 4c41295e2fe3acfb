"""The stand-in: what one side of the border holds in place of an object that stays on the other.

A student's code that is handed a model to call gets a stand-in: it can be called, asked for its public
attributes, indexed and iterated, and every value that goes in or comes out crosses the border as plain data,
or as a stand-in again. The object itself, its private attributes and its class stay where they are.

Used by every lab whose checks serve an object to the student's code.
"""

from collections.abc import Iterator
from typing import Any

from llmcourse.grading.values import NotPlain, plain


class StandIn:
    """What the student's code holds in place of a `Served` object: public attributes and calls, nothing else."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "_target", target)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object."""
        return _serve(self._target(*map(_receive, args), **{name: _receive(each) for name, each in kwargs.items()}))

    def __getattr__(self, name: str) -> Any:
        """A public attribute of the object."""
        if name.startswith("_"):
            raise AttributeError(f"{name} is private to the checker")
        return _serve(getattr(self._target, name))

    def __setattr__(self, name: str, value: Any) -> None:
        """Refused: what is served can be used, not changed."""
        raise AttributeError(f"{name} belongs to the checker and cannot be set")

    def __bool__(self) -> bool:
        """Whether the object counts as true: `if progress:` is asked of things that have no length, too."""
        return bool(self._target)

    def __len__(self) -> int:
        """Length of the object."""
        return len(self._target)

    def __getitem__(self, key: Any) -> Any:
        """An item of the object."""
        return _serve(self._target[_receive(key)])

    def __iter__(self) -> Iterator[Any]:
        """Items of the object."""
        return map(_serve, iter(self._target))


def _serve(value: Any) -> Any:
    """A value of the checker on its way to the student: plain data as a copy, anything else as a stand-in."""
    try:
        return plain(value)
    except NotPlain:
        return StandIn(value)


def _receive(value: Any) -> Any:
    """A value of the student on its way to a served object: plain data, a stand-in's object, or the object itself."""
    if type(value) is StandIn:
        return object.__getattribute__(value, "_target")
    try:
        return plain(value)
    except NotPlain:
        return StandIn(value)
