"""A meter that asks KV memory, in every step, where its slots have gone: utilisation in the sense of the paging paper.

Kwon et al., 2023 (§1 and Figure 2) weigh what share of the KV memory holds tokens against what is reserved, and lost to
internal and external fragmentation: 20.4 % to 38.2 % in systems before paging, 96.3 % with it. A `KVMeter` keeps the
same books for any pool, in time-weighted sums, so that a run of any length can say them. Weeks 6 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from llmcourse.errors import UserError
from llmcourse.kv.contiguous_pool import ContiguousPool
from llmcourse.kv.waste import waste
from llmcourse.metrics.meter import Meter

if TYPE_CHECKING:
    from llmcourse.engine.log import StepReport, Stretch
    from llmcourse.engine.request import Request
    from llmcourse.kv.memory import Memory


@dataclass(frozen=True)
class KVUsage:
    """Means over some ``seconds`` of a run: requests ``running``, and five shares of all slots that add up to 1."""

    seconds: float
    running: float
    used: float
    reserved: float
    internal: float
    external: float
    free: float

    @property
    def of_taken(self) -> float:
        """Share of slots with a token among those that are not free: the paper's measure, whatever the load."""
        return self.used / (1 - self.free) if self.free < 1 else float("nan")

    def as_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return {**asdict(self), "of_taken": self.of_taken}


class KVMeter(Meter):
    """A `Meter` that watches ``pool``: give both to one engine and read `usage`.

    Who has come first is taken to be the first of the waiting.
    """

    def __init__(self, pool: Memory) -> None:
        super().__init__()
        self.pool = pool
        self.running_peak = 0
        # Seconds, and times seconds: requests running, share taken, slots used, internal, external; by anybody waiting.
        self.states = {False: [0.0] * 6, True: [0.0] * 6}
        self._alive: dict[str, Request] = {}
        self._queue: list[tuple[int, str]] = []     # by arrival; some of them run already
        self._waiting: dict[str, int] = {}          # id -> place of arrival
        self._places: dict[str, int] = {}

    # ---- what the scheduler says -----------------------------------------------------------------------------------

    def queued(self, request: Request) -> None:
        """One more waits."""
        super().queued(request)
        self._alive[request.id] = request
        self._places[request.id] = len(self)
        self._wait(request.id)

    def scheduled(self, request: Request, time: float, restored: int) -> None:
        """It waits no longer."""
        super().scheduled(request, time, restored)
        self._waiting.pop(request.id, None)

    def preempted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """It waits again, where it stood."""
        super().preempted(request, time, freed, saved)
        self._wait(request.id)

    def finished(self, request: Request, time: float) -> None:
        """Forget it."""
        super().finished(request, time)
        self._forget(request)

    def aborted(self, request: Request, time: float, reason: str | None) -> None:
        """Forget it."""
        super().aborted(request, time, reason)
        self._forget(request)

    def stepped(self, step: StepReport) -> None:
        """Measure memory as it is when the step has computed its tokens."""
        before = self.sums[3]
        super().stepped(step)
        self._measure(step, step.end - step.start, self.sums[3] - before, 0.0,
                      {item.request.id: item.count for item in step.batch.items})

    def jumped(self, stretch: Stretch) -> None:
        """Many steps: tokens are added up step by step, holes and rounding as they are at the end."""
        before = self.sums[3]
        super().jumped(stretch)
        each = len(stretch.decoding) + (stretch.prompt[1] if stretch.prompt else 0)
        start, gained = stretch.start, 0.0
        for number, end in enumerate(stretch.ends, 1):
            gained += (end - start) * number * each
            start = end
        self._measure(stretch, stretch.ends[-1] - stretch.start, self.sums[3] - before, gained, {})

    # ---- what it has to say ----------------------------------------------------------------------------------------

    def usage(self, pressed: bool = False) -> KVUsage:
        """The means over the busy seconds, or (``pressed``) over those in which somebody waited.

        UserError when there were none.
        """
        columns = zip(*(self.states[waiting] for waiting in ((True,) if pressed else (False, True))), strict=True)
        seconds, running, taken, *slots = (sum(column) for column in columns)
        if not seconds:
            raise UserError("nobody ever waited" if pressed and self.busy else "no step was run; there is no usage")
        used, internal, external = (share / seconds / self.pool.capacity for share in slots)
        taken /= seconds
        return KVUsage(seconds, running / seconds, used, taken - used - internal, internal, external,
                       1 - taken - external)

    # ---- books -----------------------------------------------------------------------------------------------------

    def _measure(self, state: StepReport | Stretch, seconds: float, taken: float, gained: float,
                 computed: dict[str, int]) -> None:
        """Add a state: ``gained`` token seconds beyond it, ``computed`` tokens of each owner beyond what it had."""
        owners = {str(owner): self._alive[str(owner)] for owner in self.pool.tables}
        stored = {name: request.computed + computed.get(name, 0) for name, request in owners.items()}
        found = waste(self.pool, {name: request.max_cached for name, request in owners.items()}, stored, self._demand())
        added = (seconds, seconds * state.running, taken, seconds * found.used + gained, seconds * found.internal,
                 seconds * found.external)
        sums = self.states[state.waiting > 0]
        for place, amount in enumerate(added):
            sums[place] += amount
        self.running_peak = max(self.running_peak, state.running)

    def _demand(self) -> int:
        """Slots that the first of the waiting needs side by side; 0 when nobody waits, or any blocks would do."""
        while self._queue and self._waiting.get(self._queue[0][1]) != self._queue[0][0]:
            heappop(self._queue)
        if not self._queue or not isinstance(self.pool, ContiguousPool):
            return 0
        request = self._alive[self._queue[0][1]]
        return self.pool.room(len(request.tokens), request.max_cached) * self.pool.block_size

    def _wait(self, name: str) -> None:
        self._waiting[name] = self._places[name]
        heappush(self._queue, (self._places[name], name))

    def _forget(self, request: Request) -> None:
        for known in (self._alive, self._waiting, self._places):
            known.pop(request.id, None)
