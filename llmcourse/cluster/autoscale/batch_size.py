"""How many requests an instance should run at once: backpressure from what its users feel. Patke et al., 2025 (Chiron).

A larger batch gives more tokens a second and slower ones to each. So each instance feels its way to the largest batch
that keeps the promised time between tokens (ITL): backpressure is the ITL over the promised one, or the throughput
before the last growth over the throughput after it, whichever is larger. Below 1 the batch may grow in proportion;
above 1 it is halved, for what is promised comes first. After a halving there are fewer tokens a second, as there must
be, so that is not held against it, or it would be halved down to 1; nor is a loss that may be chance. So the size goes
up slowly to what just keeps the promise, and down fast. Who measures and obeys stands in local_loop.py. Week 10.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmcourse.errors import UserError
from llmcourse.kinds import check_fields


@dataclass(frozen=True)
class BatchSize:
    """``size`` requests at most, in a range; ``itl`` is the promise in seconds.

    ``window``: seconds that a size is tried at least: a prompt that is computed meanwhile makes a few tokens late, and
    says little. ``smooth``: how much of a growth is taken at once. ``noise``: the share of its tokens/s that may be
    lost by chance. ``last``: tokens/s before the last growth, None at first and after a halving.
    """

    itl: float
    size: int = 8
    least: int = 1
    most: int = 256
    window: float = 2.0
    smooth: float = 0.5
    noise: float = 0.1
    last: float | None = None

    def __post_init__(self) -> None:
        """Refuse what has no size between its ends."""
        check_fields(self)
        if not (self.itl > 0 and 1 <= self.least <= self.size <= self.most and 0 < self.smooth <= 1
                and 0 <= self.noise < 1 and self.window >= 0):
            raise UserError(f"a batch of {self.size} between {self.least} and {self.most}, ITL {self.itl} s, a window "
                            f"of {self.window} s, growth smoothed by {self.smooth}, noise {self.noise}: give an ITL "
                            "above 0, sizes in order, a window from 0, 0 < smooth <= 1 and 0 <= noise < 1")

    def pressure(self, itl: float, throughput: float) -> float:
        """Backpressure of a time with this mean ITL (s) and so many tokens/s."""
        return max(itl / self.itl, (1 - self.noise) * self.last / throughput if self.last and throughput > 0 else 0.0)

    def next(self, itl: float, throughput: float) -> BatchSize:
        """What follows from a time that was spent at this size."""
        pressure = self.pressure(itl, throughput)
        if pressure > 1:
            return replace(self, size=max(self.least, self.size // 2), last=None)
        size = self.size + max(1, round(self.smooth * self.size * (1 / max(pressure, 0.5) - 1)))
        return replace(self, size=min(self.most, size), last=throughput if size <= self.most else None)
