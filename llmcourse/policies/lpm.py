"""Longest prefix first: whoever finds most of its prompt in the cache goes first, while it is still there.

A prefix cache forgets what has not been used for long, so requests that begin alike should come one after another. When
memory holds everything that is asked again, order changes nothing; when it is small, this order saves much of the
prefill. It is not fair: somebody whose prompt nobody shares may wait for ever while others hit; ``patience`` bounds
that. Searching the cache for everybody who waits costs time, so behind a long queue it is first come, first served, as
in SGLang (Zheng et al., 2024). Week 6.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.kv.memory import Memory
from llmcourse.kv.prefix_pool import PrefixPool


class LongestPrefixFirst(Policy):
    """Order by tokens found in the cache, most first, ties by arrival. Of those who run the latest arrival gives way.

    First come, first served on a pool that remembers nothing, and while more than ``longest_queue`` wait.
    ``patience``: whoever has waited so many seconds since it arrived goes before all who have not; None: no bound.
    """

    static = False

    def __init__(self, longest_queue: int = 128, patience: float | None = None) -> None:
        if not longest_queue >= 0 or (patience is not None and not patience >= 0):
            raise UserError(f"longest_queue {longest_queue}, patience {patience}: neither may be below 0")
        self.longest_queue, self.patience = longest_queue, patience
        self._pool: PrefixPool | None = None
        self._found: dict[Request, tuple[int, int]] = {}      # of those who wait: when asked (`changes`), tokens found

    def on_attached(self, pool: Memory) -> None:
        """Look into this pool, if it remembers anything."""
        self._pool = pool if isinstance(pool, PrefixPool) else None

    def key(self, request: Request, now: float) -> tuple[float, ...]:
        """Tokens found, negative, then the arrival; the arrival alone where hits do not count."""
        assert request.arrival is not None
        patient = self.patience is None or now - request.arrival < self.patience
        return (-self.found(request) if patient else -FOREVER, request.arrival)

    def found(self, request: Request) -> int:
        """Tokens of a waiting request that count: what the cache has of it, 0 behind a long queue or for others."""
        if self._pool is None or request not in self._found or len(self._found) > self.longest_queue:
            return 0
        when, found = self._found[request]
        if when != self._pool.changes:
            found = len(self._pool.hits(request.tokens)) * self._pool.block_size
            self._found[request] = self._pool.changes, found
        return found

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """While at most one waits; else until growth evicts something, or somebody's patience may end."""
        if len(waiting) < 2:
            return FOREVER
        if self.patience is not None:
            return 0
        if self._pool is None or len(self._found) > self.longest_queue:
            return FOREVER
        untouched = self._pool.num_free - self._pool.num_cached
        rounds = untouched // max(1, len(running))            # in which everybody may take one block that holds nothing
        return max(0, rounds - 1) * self._pool.block_size

    # ---- who waits -----------------------------------------------------------------------------------------------

    def on_queued(self, request: Request, now: float) -> None:
        """It waits, and nothing is known of it."""
        self._found[request] = -1, 0

    def on_preempted(self, request: Request, now: float) -> None:
        """It waits again: some of what it has lost may be found."""
        self._found[request] = -1, 0

    def on_scheduled(self, request: Request, now: float) -> None:
        """It waits no longer."""
        self._found.pop(request, None)

    def on_done(self, request: Request, now: float) -> None:
        """It waits no longer."""
        self._found.pop(request, None)
