"""How often may somebody ask? A token bucket per tenant, the rate limit of a gateway.

A bucket fills at a steady rate and is full at its burst; a request takes out what it costs or is refused. So the
long-run rate is bounded, a short burst is welcome, and an hour of silence does not earn an hour's worth at once. Time
is passed in, so an hour can be tested in a microsecond. Turner, "New directions in communications" (1986). Week 2; week
5 limits by tokens instead of requests.
"""

import math

from llmcourse.errors import UserError


class TokenBucket:
    """``rate`` units a second in the long run, at most ``burst`` at once; full at ``now`` (seconds of any clock)."""

    def __init__(self, rate: float, burst: float, now: float = 0.0) -> None:
        if not (0 < rate < math.inf and 0 < burst < math.inf):
            raise UserError(f"a limit of {rate} per second with bursts of {burst} lets nothing through or limits "
                            "nothing; both must be positive and finite")
        self.rate, self.burst = rate, burst
        self._level, self._at = burst, now

    def level(self, now: float) -> float:
        """What is in the bucket at ``now``; never above the burst, however long nobody came."""
        return min(self.burst, self._level + self.rate * max(0.0, now - self._at))

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
        if cost > self.burst:
            return math.inf
        return max(0.0, cost - self.level(now)) / self.rate
