"""How often may somebody ask? A token bucket per tenant, the rate limit of a gateway.

A bucket fills at a steady rate and is full at its burst; a request takes out what it costs or is refused. So the
long-run rate is bounded, a short burst is welcome, and an hour of silence does not earn an hour's worth at once. Time
is passed in, so an hour can be tested in a microsecond. Turner, "New directions in communications" (1986). Week 2; week
5 limits by tokens instead of requests.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llmcourse.errors import UserError


@dataclass(frozen=True)
class RateLimit:
    """``rate`` units a second in the long run, at most ``burst`` units at once."""

    rate: float
    burst: float

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through."""
        if not (0 < self.rate < math.inf and 0 < self.burst < math.inf):
            raise UserError(f"a limit of {self.rate} per second with bursts of {self.burst} lets nothing through or "
                            "limits nothing; both must be positive and finite")


class TokenBucket:
    """One tenant's bucket, full at the start. Times are seconds of any clock that does not run backwards."""

    def __init__(self, rate: float, burst: float, now: float = 0.0) -> None:
        self.limit = RateLimit(rate, burst)
        self._level, self._at = self.limit.burst, now

    def level(self, now: float) -> float:
        """What is in the bucket at ``now``; never above the burst, however long nobody came."""
        elapsed = max(0.0, now - self._at)
        return min(self.limit.burst, self._level + self.limit.rate * elapsed)

    def allow(self, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` out if it is there; a refusal takes nothing. UserError for a cost that is not positive."""
        if not cost > 0:
            raise UserError(f"a request cannot cost {cost}; its cost must be positive")
        level = self.level(now)
        if level < cost:
            return False
        self._level, self._at = level - cost, max(now, self._at)
        return True

    def wait(self, now: float, cost: float = 1.0) -> float:
        """Seconds until ``cost`` will be there if nobody takes anything: 0 when it is, infinite above the burst."""
        if cost > self.limit.burst:
            return math.inf
        return max(0.0, cost - self.level(now)) / self.limit.rate


class RateLimiter:
    """A bucket for each tenant; one tenant's burst never uses up another's."""

    def __init__(self, limits: Mapping[str, RateLimit], now: float = 0.0) -> None:
        self._buckets = {tenant: TokenBucket(limit.rate, limit.burst, now) for tenant, limit in limits.items()}

    def bucket(self, tenant: str) -> TokenBucket:
        """The tenant's bucket; UserError for somebody unknown."""
        if tenant not in self._buckets:
            known = ", ".join(sorted(self._buckets)) or "none"
            raise UserError(f"tenant {tenant!r} is not known here; known: {known}")
        return self._buckets[tenant]
