"""Lengths that follow a power law: most are short, and there is always one far longer.

What many evaluations of serving systems use where no trace is to be had, Llumnix's among them (Sun et al., 2024: means
of 128, 256 and 512 tokens, none above 6,000). Week 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmcourse.errors import UserError
from llmcourse.workload.lengths import Lengths


@dataclass(frozen=True)
class PowerLaw(Lengths):
    """A Pareto distribution cut off at ``longest`` tokens, whose ``mean`` is given: few are as long as ten means.

    ``exponent`` is how fast the share of requests longer than x falls with x; 1 to 2 is heavy. Where it begins follows
    from the mean.
    """

    mean: float
    longest: int
    exponent: float = 1.1

    def __post_init__(self) -> None:
        """Raise UserError for a mean that lengths from 1 to ``longest`` cannot have."""
        possible = 1 < self.mean < self.longest and self.exponent > 0
        if not possible or _mean(1.0, self.longest, self.exponent) > self.mean:
            raise UserError(f"no power law of exponent {self.exponent} up to {self.longest} tokens has a mean of "
                            f"{self.mean}; give a mean well below the longest, or a larger exponent")

    @property
    def shortest(self) -> float:
        """Where it begins, in tokens: found by halving, as the mean grows with it."""
        low, high = 1.0, self.mean
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _mean(middle, self.longest, self.exponent) < self.mean else (low, middle)
        return low

    def quantile(self, u: ArrayLike) -> np.ndarray:
        """Length below which a share ``u`` of requests lies."""
        a, first = self.exponent, self.shortest ** -self.exponent
        return (first - np.asarray(u, dtype=float) * (first - self.longest ** -a)) ** (-1 / a)


def _mean(shortest: float, longest: float, exponent: float) -> float:
    """Mean of the cut-off Pareto distribution between two lengths."""
    if abs(exponent - 1) < 1e-9:
        return float(np.log(longest / shortest) / (1 / shortest - 1 / longest))
    total = (shortest ** -exponent - longest ** -exponent) / exponent
    return float((longest ** (1 - exponent) - shortest ** (1 - exponent)) / (1 - exponent) / total)
