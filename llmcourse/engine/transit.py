"""Requests between two instances, and what each side must know to move one.

Some have stopped here and not yet left, some have room here and not yet come. Both hold blocks and a seat in the
batch, neither is scheduled; one exception is a guest whose KV is computed here in advance. The verbs of the source
stand in `departing.py`, those of the destination in `arriving.py`:

    source        look … read … look … read … stop ─ read ─────── release      (or: resume)
    destination         reserve … write … grow … write ──── write ─ adopt      (or: drop)

From `adopt` on the request lives at the destination; until then it lives at the source, also while it is stopped. Each
verb is done at once, between two steps, or raises `Refused` and changes nothing. In which order they are called stands
in `cluster/methods.py`. Sun et al., 2024 (Llumnix). Week 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from llmcourse.engine.request import Request, Status
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcourse.engine.engine import Engine
    from llmcourse.engine.scheduler import Scheduler


class Refused(Exception):
    """The verb cannot be done, and why; nothing was changed."""


class BlockMover(Protocol):
    """An executor whose KV can be carried away: ``block_bytes`` in each block."""

    block_bytes: int

    def read_blocks(self, blocks: Sequence[int], host: bool = False) -> Any:
        """A copy of what is in these blocks, or in these blocks of host memory."""
        ...

    def write_blocks(self, blocks: Sequence[int], payload: Any) -> None:
        """Put what another's `read_blocks` gave into these blocks."""
        ...


class Leaving(NamedTuple):
    """A request that has stopped, and what it was doing before."""

    request: Request
    status: Status


class Transit:
    """``leaving`` have stopped here; ``guests`` have a table here and run elsewhere, both by request id.

    ``preparing`` are the guests whose KV is computed here.
    """

    def __init__(self) -> None:
        self.leaving: dict[str, Leaving] = {}
        self.guests: dict[str, Request] = {}
        self.preparing: list[Request] = []

    @property
    def num_seats(self) -> int:
        """Places in the batch that are kept: for those who may have to go on here, and those who will."""
        return sum(left.status is Status.RUNNING for left in self.leaving.values()) + len(self.guests)

    @property
    def holds_blocks(self) -> bool:
        """Whether anybody on the way keeps blocks here that a step may wait for."""
        keep = (Status.RUNNING, Status.PARKED)
        return bool(self.guests) or any(left.status in keep for left in self.leaving.values())

    @property
    def has_work(self) -> bool:
        """Whether KV is still to be computed for a guest."""
        return any(guest.pending > 1 for guest in self.preparing)

    def remove(self, guest: Request) -> bool:
        """It is no guest any more; returns whether its KV was computed here."""
        del self.guests[guest.id]
        prepared = guest in self.preparing
        if prepared:
            self.preparing.remove(guest)
        return prepared


def give_up(scheduler: Scheduler, guest: Request, now: float) -> None:
    """Nothing is kept for it any more. Its migration hears of it at its next order, and is aborted."""
    if scheduler.transit.remove(guest):
        scheduler.policy.on_done(guest, now)
    scheduler.full = False
    scheduler.log.migrating(guest, now, "dropped", scheduler.pool.free(guest.id))


def give_up_guest(scheduler: Scheduler, now: float) -> bool:
    """Give up what was reserved last for a request that has not come yet; False when nothing is reserved."""
    guests = scheduler.transit.guests
    if guests:
        give_up(scheduler, guests[next(reversed(guests))], now)
        return True
    return False


def mover(engine: Engine) -> BlockMover:
    """The engine's executor, if it can carry KV; UserError otherwise."""
    if not hasattr(engine.executor, "read_blocks"):
        raise UserError(f"a {type(engine.executor).__name__} cannot carry KV: it has no read_blocks and write_blocks")
    return cast(BlockMover, engine.executor)


def seat(engine: Engine, request: Request) -> None:
    """Among the running by arrival, not at their tail, or it would be the next to give way."""
    scheduler, place = engine.scheduler, len(engine.scheduler.running)
    while place and (scheduler.running[place - 1].arrival or 0.0) > (request.arrival or 0.0):
        place -= 1
    scheduler.running.insert(place, request)
    if engine.pool.length(request.id) > request.computed:     # the blocks of its whole input are there: it still fills
        scheduler.filling[request] = None
