"""Skip-join multi-level feedback queue: short answers first, though nobody knows which those are. FastServe.

Queues with quanta that double from one to the next. Whoever has used up its quantum goes down one queue, and the
highest queue goes first: so a request that has said little goes before one that has said much, and if lengths are
heavy-tailed, who has said little will also end soonest. An ordinary such queue puts every newcomer on top, where a long
prompt uses up its first quanta before its first token. Here the prompt's length is known, so it joins at once the
highest queue whose quantum its prompt fits into: it skips those above. Whoever has not run for long goes to the front
for a turn.

What it buys is mean latency per token under load. It pays with the tail, and with the memory of all who have begun and
wait: it needs parking or swapping, or every change of mind computes a context again. The authors' scheduler looks for
the starving every thousand iterations and lets no prompt in while host memory is nearly full; here the starving are
found at every decision, and KV that finds no place in host memory is lost. Wu et al., 2023 (FastServe). Week 10.
"""

from collections.abc import Collection, Sequence
from itertools import count
from math import ceil, inf
from typing import NamedTuple

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError


class _Place(NamedTuple):
    """In which queue, where in it, iterations left of the quantum, and since when (s) it has not run."""

    level: int
    turn: int
    left: int
    since: float


class FastServe(Policy):
    """Order by queue, then by who joined it first; preemptive.

    ``quantum`` of the first queue counts iterations: a prompt is worth one for every ``prompt_tokens`` of it, an output
    token one. After ``starve_after`` seconds without running a request goes before everybody (None: never), and begins
    in the first queue. ``iteration`` (s) is about what a step takes; it only weighs whose parked KV is needed last.
    Without ``skip_join`` everybody joins on top.
    """

    static = False
    preemptive = True

    def __init__(self, quantum: int = 1, prompt_tokens: int = 128, starve_after: float | None = 3.0, levels: int = 12,
                 iteration: float = 0.02, skip_join: bool = True) -> None:
        patience = inf if starve_after is None else starve_after
        if not (quantum >= 1 and prompt_tokens >= 1 and levels >= 1 and patience > 0 and iteration > 0):
            raise UserError(f"quantum {quantum}, prompt_tokens {prompt_tokens}, levels {levels}: each must be at least "
                            f"1; starve_after {starve_after} and iteration {iteration} above 0 s")
        self.quantum, self.prompt_tokens, self.starve_after = quantum, prompt_tokens, starve_after
        self.levels, self.iteration, self.skip_join = levels, iteration, skip_join
        self.promotions = self.demotions = 0
        self._turns = count()
        self._places: dict[str, _Place] = {}

    def quantum_of(self, level: int) -> int:
        """Iterations in a queue, 1 being the first."""
        return int(self.quantum * 2 ** (level - 1))

    def join_level(self, request: Request) -> int:
        """The highest queue whose quantum the prompt fits into; the last if none does."""
        if not self.skip_join:
            return 1
        fits = (level for level in range(1, self.levels) if self.quantum_of(level) >= self._prompt(request))
        return next(fits, self.levels)

    def level(self, request: Request) -> int:
        """Where it stands now."""
        return self._places[request.id].level

    def key(self, request: Request, now: float) -> tuple[float, ...]:
        """Its queue and its place there; whoever starves goes before, who starves longest first."""
        return self._order(self._places[request.id], now)

    def evicted(self, parked: Sequence[Request], now: float) -> Request:
        """Whose turn is expected last, of equals the last in order: FastServe's estimated next scheduled time.

        That is when all who stand before it have used up their quanta, as many of them at a time as run now, or when
        it would starve, whichever is sooner.
        """
        at_once = max(1, sum(place.since == inf for place in self._places.values()))
        turns: dict[int, float] = {}                         # seconds until its turn, by place
        ahead = 0
        for place in sorted(self._places.values(), key=lambda place: self._order(place, now)):
            turns[place.turn] = ahead / at_once * self.iteration
            ahead += max(0, place.left)

        def next_scheduled(request: Request) -> float:
            place = self._places[request.id]
            patience = inf if self.starve_after is None else max(0.0, place.since + self.starve_after - now)
            return min(turns[place.turn], patience)

        return max(reversed(parked), key=next_scheduled)

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Until the first quantum ends; while somebody waits who may starve, no step is sure to be like the last."""
        if waiting and self.starve_after is not None:
            return 0
        places = (self._places[request.id] for request in running)
        return min((place.left - 1 for place in places if place.level < self.levels), default=FOREVER)

    # ---- what it is told -----------------------------------------------------------------------------------------

    def on_queued(self, request: Request, now: float) -> None:
        """Join a queue, at its tail; what it has said on another instance has taken it down as it would have here."""
        level, said = self.join_level(request), request.num_output
        left = self.quantum_of(level)
        if said:
            left, said = left - self._prompt(request), said - 1
            while left <= said and level < self.levels:
                level, said, left = level + 1, said - max(0, left), self.quantum_of(level + 1)
        self._places[request.id] = _Place(level, next(self._turns), left - said, now)

    def on_scheduled(self, request: Request, now: float) -> None:
        """Whoever starved begins anew at the top."""
        if self._starves(self._places[request.id], now):
            self.promotions += 1
            self._join(request, 1, now)
        self._places[request.id] = self._places[request.id]._replace(since=inf)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """The quantum pays for what was delivered, and with the first token for the prompt; then down one queue."""
        if not delivered:
            return
        first = request.num_output == delivered
        place = self._places[request.id]
        left = place.left - delivered - (self._prompt(request) - 1 if first else 0)
        if left > 0 or place.level == self.levels:
            self._places[request.id] = place._replace(left=left)
        else:
            self.demotions += 1
            self._join(request, place.level + 1, place.since)

    def on_preempted(self, request: Request, now: float) -> None:
        """It stays where it stands in its queue, and its patience is counted from now."""
        self._places[request.id] = self._places[request.id]._replace(since=now)

    def on_done(self, request: Request, now: float) -> None:
        """Out of all queues."""
        self._places.pop(request.id, None)

    def _prompt(self, request: Request) -> int:
        return max(1, ceil(len(request.prompt) / self.prompt_tokens))

    def _order(self, place: _Place, now: float) -> tuple[float, ...]:
        return (0, place.since) if self._starves(place, now) else (place.level, place.turn)

    def _starves(self, place: _Place, now: float) -> bool:
        return self.starve_after is not None and now - place.since >= self.starve_after

    def _join(self, request: Request, level: int, since: float) -> None:
        self._places[request.id] = _Place(level, next(self._turns), self.quantum_of(level), since)
