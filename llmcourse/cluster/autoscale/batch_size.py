"""How many requests an instance should run at once: backpressure from what its users feel. Patke et al., 2025 (Chiron).

A larger batch gives more tokens a second and slower ones to each. So each instance feels its way to the largest batch
that keeps the promised time between tokens (ITL): backpressure is the ITL over the promised one, or the throughput
before the last change over the throughput after it, whichever is larger. Below 1 the batch may grow in proportion;
above 1 it is halved, for what is promised comes first. Local to an instance, and beside the fleet's loop. Week 10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmcourse.errors import UserError


@dataclass(frozen=True)
class BatchSize:
    """``size`` requests at most, in a range; ``itl`` is the promise in seconds.

    ``smooth``: how much of a growth is taken at once. ``last``: tokens/s before the last change, None at first.
    """

    itl: float
    size: int = 8
    least: int = 1
    most: int = 256
    smooth: float = 0.5
    last: float | None = None

    def __post_init__(self) -> None:
        """Refuse what has no size between its ends."""
        if not (self.itl > 0 and 1 <= self.least <= self.size <= self.most and 0 < self.smooth <= 1):
            raise UserError(f"a batch of {self.size} between {self.least} and {self.most}, ITL {self.itl} s, growth "
                            f"smoothed by {self.smooth}: give an ITL above 0, sizes in order, and 0 < smooth <= 1")

    def pressure(self, itl: float, throughput: float) -> float:
        """Backpressure of a time with this mean ITL (s) and so many tokens/s."""
        return max(itl / self.itl, self.last / throughput if self.last and throughput > 0 else 0.0)

    def next(self, itl: float, throughput: float) -> BatchSize:
        """What follows from a time that was spent at this size."""
        pressure = self.pressure(itl, throughput)
        if pressure > 1:
            size = max(self.least, self.size // 2)
        else:
            size = min(self.most, self.size + max(1, round(self.smooth * self.size * (1 / max(pressure, 0.5) - 1))))
        return replace(self, size=size, last=throughput)
