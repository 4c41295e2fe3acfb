"""Speculative shortest job first: SJF on a predictor's word, in seconds, with a rule against waiting for ever.

A proxy model reads the prompt and says how many tokens the answer will have; ``const + tokens * per_token`` makes
seconds of it. The shortest of the waiting starts next and whoever runs is left alone. Once the one who has waited
longest has waited too long, the next to start is chosen by waiting time instead, until the queue is young again. What
changes is who waits, not how many tokens a second come out. Qiu et al., 2024 (SSJF). Week 9.
"""

from collections.abc import Collection, Sequence
from heapq import heappop, heappush
from itertools import count

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.kv.memory import Memory
from llmcourse.policies.sjf import expected_output


class SSJF(Policy):
    """Order by estimated seconds of service, ties by arrival; not preemptive.

    When the longest waiting has waited more than ``patience`` seconds, or more than ``times`` its own estimate, the
    order is by arrival. Waiting counts from arrival, also for a request that has lost its place to memory since.
    """

    static = False

    def __init__(self, const: float = 0.1, per_token: float = 0.02, patience: float = 100.0,
                 times: float = 10.0) -> None:
        if not (const >= 0 and per_token > 0 and patience >= 0 and times >= 0):
            raise UserError(f"const {const} s, per_token {per_token} s, patience {patience} s, times {times}: a token "
                            "takes more than 0 s, and the others are at least 0 (infinity: that rule never applies)")
        self.const, self.per_token, self.patience, self.times = const, per_token, patience, times
        self._waiting: dict[Request, None] = {}
        self._oldest: list[tuple[float, int, Request]] = []       # heap; who has left is thrown away when it comes up
        self._entries = count()
        self._seen = 0.0                                          # the last moment it was asked
        self._caches = False

    def estimate(self, request: Request) -> float:
        """Seconds of service it is expected to need."""
        return self.const + self.per_token * expected_output(request)

    def key(self, request: Request, now: float) -> float:
        """The estimate; its arrival while somebody has waited too long."""
        self._seen = now
        assert request.arrival is not None
        return request.arrival if self.impatient(now) else self.estimate(request)

    def impatient(self, now: float) -> bool:
        """Whether the longest waiting has waited too long by now (s)."""
        oldest = self._longest_waiting()
        if oldest is None:
            return False
        assert oldest.arrival is not None
        return now - oldest.arrival > min(self.patience, self.times * self.estimate(oldest))

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """For ever, once impatient; before that, if impatience would ask for one who needs no less room.

        Nobody is let in while the first finds no room, and then neither is the longest waiting when its turn comes.
        """
        oldest = self._longest_waiting()
        if oldest is None or not waiting or self.impatient(self._seen):
            return FOREVER
        first = min(waiting, key=lambda request: (self.estimate(request), request.rank[1]))
        needs_no_less = len(oldest.tokens) >= len(first.tokens) and oldest.max_cached >= first.max_cached
        return FOREVER if needs_no_less and not (self._caches or first.siblings or oldest.siblings) else 0

    def on_attached(self, pool: Memory) -> None:
        """What a cache remembers decides how much room somebody needs."""
        self._caches = pool.caches

    def on_queued(self, request: Request, now: float) -> None:
        """It begins to wait."""
        assert request.arrival is not None
        self._waiting[request] = None
        heappush(self._oldest, (request.arrival, next(self._entries), request))

    def on_preempted(self, request: Request, now: float) -> None:
        """It waits again."""
        self.on_queued(request, now)

    def on_scheduled(self, request: Request, now: float) -> None:
        """It waits no longer."""
        self._leave(request)

    def on_done(self, request: Request, now: float) -> None:
        """It is gone."""
        self._leave(request)

    def _leave(self, request: Request) -> None:
        self._waiting.pop(request, None)
        if not self._waiting:
            self._oldest.clear()

    def _longest_waiting(self) -> Request | None:
        while self._oldest and self._oldest[0][2] not in self._waiting:
            heappop(self._oldest)
        return self._oldest[0][2] if self._oldest else None
