"""A film of KV memory: who holds which slots between any two steps, who waits, and where the rest has gone.

The event log tells what a table names; what is reserved behind it, and which holes are free, only the pool knows. So
the film is taken while an engine runs, and any pool can be filmed under the same arrivals. `car_park` and
`memory_history` show it. Week 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmcourse.engine.replay import replay
from llmcourse.kv.contiguous_pool import ContiguousPool
from llmcourse.kv.waste import Waste, waste

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine
    from llmcourse.workload.arrival import Arrival

KINDS = ("used", "reserved", "internal")


class Stretch(NamedTuple):
    """Neighbouring slots ``start .. end - 1`` of one owner that are of one kind: used, reserved or internal."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Place:
    """What one request holds: its blocks in order, reserved ones included, and how many tokens now and in the end."""

    owner: str
    blocks: tuple[int, ...]
    stored: int
    final: int

    def stretches(self, block_size: int) -> list[Stretch]:
        """Its slots from the lowest up, cut where the kind changes, or a block (of more than one slot) ends."""
        found: list[Stretch] = []
        for slot, kind in sorted(self._slots(block_size)):
            last = found[-1] if found else None
            if last and last.end == slot and last.kind == kind and (block_size == 1 or slot % block_size):
                found[-1] = last._replace(end=slot + 1)
            else:
                found.append(Stretch(slot, slot + 1, kind))
        return found

    def _slots(self, size: int) -> Iterator[tuple[int, str]]:
        for position in range(len(self.blocks) * size):
            kind = "used" if position < self.stored else "reserved" if position < self.final else "internal"
            yield self.blocks[position // size] * size + position % size, kind


@dataclass(frozen=True)
class Moment:
    """Memory between two steps: ``step`` steps have been taken, ``waiting`` are the ids of those in the queue.

    ``useless`` are the holes too small for the first of them. ``copied`` blocks have been moved so far and
    ``preempted`` times somebody had to give way.
    """

    step: int
    time: float
    num_blocks: int
    block_size: int
    places: tuple[Place, ...]
    waiting: tuple[str, ...]
    useless: tuple[range, ...]
    waste: Waste
    copied: int
    preempted: int


def moment(engine: Engine) -> Moment:
    """How memory stands now; external waste is what is of no use to the first of the waiting."""
    pool, scheduler = engine.pool, engine.scheduler
    contiguous = pool if isinstance(pool, ContiguousPool) else None
    blocks = contiguous.runs if contiguous else pool.tables
    places = tuple(Place(request.id, tuple(blocks[request.id]), request.computed, request.max_cached)
                   for request in scheduler.running)
    queue = sorted(scheduler.waiting, key=lambda request: scheduler.rank(request, engine.clock.now))
    demand = contiguous.room(len(queue[0].tokens), queue[0].max_cached) if contiguous and queue else 0
    useless = tuple(hole for hole in contiguous.holes() if len(hole) < demand) if contiguous else ()
    measured = waste(pool, {place.owner: place.final for place in places},
                     {place.owner: place.stored for place in places}, demand * pool.block_size)
    waiting, counters = tuple(request.id for request in queue), engine.counters
    return Moment(counters.steps, engine.clock.now, pool.num_blocks, pool.block_size, places, waiting, useless,
                  measured, counters.copied_blocks, counters.preemptions)


def film(engine: Engine, workload: Iterable[Arrival]) -> list[Moment]:
    """Serve the workload to its end, with a moment before every step and one after the last.

    For moments that can be laid side by side, let every step take the same time:

        pools = {"contiguous": ContiguousPool(96, reservation="max", max_length=32), "paged": BlockPool(24, 4)}
        films = {name: film(Engine(MockExecutor(pool.block_size, step_seconds=1, token_seconds=0), pool,
                                   clock=VirtualClock()), arrivals) for name, pool in pools.items()}
    """
    moments: list[Moment] = []
    replay(engine, workload, progress=lambda _: moments.append(moment(engine)))
    return moments
