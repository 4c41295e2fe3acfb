"""The words that a migration says: each is an order for its source, its destination or both. Week 7.

An order is plain data. Whoever carries it out calls the verb of its name, with its arguments, on the instance of its
side (engine/departing.py, engine/arriving.py), in whatever world that lives, and answers with what the verb returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llmcourse.engine.snapshot import Snapshot


@dataclass(frozen=True)
class Order:
    """``source`` and ``destination`` say which side must be alive to carry it out.

    ``waits``: only between two steps; what changes no batch can be done while a step runs.
    """

    source: ClassVar[bool] = False
    destination: ClassVar[bool] = False
    waits: ClassVar[bool] = False
    name: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        """An order is called what its class is called: the name of the verb, too."""
        cls.name = "caught_up" if cls.__name__ == "CaughtUp" else cls.__name__.lower()

    def arguments(self, request_id: str) -> tuple[Any, ...]:
        """What the verb is called with."""
        return (request_id,)


@dataclass(frozen=True)
class Look(Order):
    """Source: how far is the request? Answer: a `Snapshot`."""

    source: ClassVar[bool] = True
    waits: ClassVar[bool] = True


@dataclass(frozen=True)
class Reserve(Order):
    """Destination: keep room and a seat. Answer: how many blocks it has already."""

    destination: ClassVar[bool] = True
    snapshot: Snapshot
    compute: bool = False

    def arguments(self, request_id: str) -> tuple[Any, ...]:
        """The snapshot says which request it is."""
        return self.snapshot, self.compute


@dataclass(frozen=True)
class Grow(Order):
    """Destination: there are more tokens by now."""

    destination: ClassVar[bool] = True
    snapshot: Snapshot

    def arguments(self, request_id: str) -> tuple[Any, ...]:
        """The snapshot says which request it is."""
        return (self.snapshot,)


@dataclass(frozen=True)
class Copy(Order):
    """Both: carry the blocks ``first .. last - 1`` of its table. This is the only order that takes long."""

    source: ClassVar[bool] = True
    destination: ClassVar[bool] = True
    first: int
    last: int


@dataclass(frozen=True)
class CaughtUp(Order):
    """Destination: is the KV of all it was told computed? Answer: yes or no."""

    destination: ClassVar[bool] = True


@dataclass(frozen=True)
class Pause(Order):
    """Nobody: let ``seconds`` pass."""

    seconds: float


@dataclass(frozen=True)
class Stop(Order):
    """Source: take it out of the batch; without ``keep`` its KV is given up. Answer: the last `Snapshot`."""

    source: ClassVar[bool] = True
    waits: ClassVar[bool] = True
    keep: bool = True

    def arguments(self, request_id: str) -> tuple[Any, ...]:
        """Which request, and whether its KV stays."""
        return request_id, self.keep


@dataclass(frozen=True)
class Adopt(Order):
    """Destination: it lives there from now on. The one moment in which a request changes its owner."""

    destination: ClassVar[bool] = True
    waits: ClassVar[bool] = True
    snapshot: Snapshot

    def arguments(self, request_id: str) -> tuple[Any, ...]:
        """The snapshot says which request it is."""
        return (self.snapshot,)


@dataclass(frozen=True)
class Release(Order):
    """Source: forget it."""

    source: ClassVar[bool] = True


@dataclass(frozen=True)
class Drop(Order):
    """Destination, when it does not come after all: give up what was kept for it."""

    destination: ClassVar[bool] = True


@dataclass(frozen=True)
class Resume(Order):
    """Source, when it stays after all: go on."""

    source: ClassVar[bool] = True
