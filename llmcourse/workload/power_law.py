"""Lengths by a power law: most are short, and a few are so long that they hold most of the tokens.

The density falls as length to the power -(``tail`` + 1), from the shortest to the longest. With a tail below 1 the mean
says little: it lies far above what most requests have. Sun et al., 2024 (Llumnix) generate loads of this kind. Week 8.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from llmcourse.errors import UserError
from llmcourse.workload.lengths import Lengths


@dataclass(frozen=True)
class PowerLaw(Lengths):
    """A bounded Pareto distribution from ``shortest`` to ``longest`` tokens."""

    shortest: float
    longest: float
    tail: float = 0.5

    def __post_init__(self) -> None:
        """Raise UserError for bounds that are none."""
        if not 1 <= self.shortest < self.longest or not self.tail > 0:
            raise UserError(f"lengths from {self.shortest} to {self.longest} tokens with a tail of {self.tail}: need "
                            "1 <= shortest < longest, and a tail above 0")

    @classmethod
    def of_mean(cls, mean: float, longest: float, tail: float = 0.5) -> Self:
        """The one with this mean (tokens): its shortest length is found by halving."""
        low, high = 1.0, float(longest)
        if not cls(low, longest, tail).mean < mean < longest:
            raise UserError(f"no power law up to {longest} tokens with a tail of {tail} has a mean of {mean}: need one "
                            f"between {cls(low, longest, tail).mean:.0f} and {longest}")
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if cls(middle, longest, tail).mean < mean else (low, middle)
        return cls(low, longest, tail)

    @property
    def mean(self) -> float:
        """Of the distribution, in tokens, before lengths are rounded to whole ones."""
        a, low, high = self.tail, self.shortest, self.longest
        area = np.log(high / low) if a == 1 else (high ** (1 - a) - low ** (1 - a)) / (1 - a)
        return float(a * low**a * area / (1 - (low / high) ** a))

    def quantile(self, u: ArrayLike) -> np.ndarray:
        """Lengths at the shares `u`."""
        kept = 1 - np.asarray(u, dtype=float) * (1 - (self.shortest / self.longest) ** self.tail)
        return np.asarray(self.shortest / kept ** (1 / self.tail))
