"""How long prompts and outputs are: distributions of whole tokens, each given by its quantile function.

`quantile(u)` is the length below which a share u of requests lies; feeding it uniform random numbers samples the
distribution (inverse-CDF sampling), and feeding two of them correlated numbers makes prompt and output hang together.
Real lengths have humps and cliffs that no textbook curve has: a grid of measured quantiles keeps them. Week 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from llmcourse.errors import UserError
from llmcourse.workload.normal import inside, inverse


class Lengths:
    """A distribution of token counts of at least 1."""

    def quantile(self, u: ArrayLike) -> np.ndarray:
        """Length, as a float, below which a share `u` (values in [0, 1)) of all lengths lies."""
        raise NotImplementedError

    def at(self, u: ArrayLike) -> np.ndarray:
        """`quantile(u)` in whole tokens, at least 1."""
        return np.maximum(np.floor(self.quantile(u) + 0.5), 1).astype(np.int64)

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` independent lengths in tokens, int64."""
        return self.at(rng.random(count))


@dataclass(frozen=True)
class Constant(Lengths):
    """Always `tokens`."""

    tokens: int

    def __post_init__(self) -> None:
        """Raise UserError below one token."""
        if self.tokens < 1:
            raise UserError(f"a constant length of {self.tokens} tokens; a length is at least 1")

    def quantile(self, u: ArrayLike) -> np.ndarray:
        """The constant, once for each of `u`."""
        return np.full(np.shape(u), float(self.tokens))


@dataclass(frozen=True)
class Lognormal(Lengths):
    """Lengths whose logarithm is normal: half of them below `median`, one in a hundred above `p99`.

    Give either `p99` (tokens) or `sigma` (the spread of the logarithm). The mean is median x exp(sigma^2 / 2), above
    the median: that is why an average length promises too little memory for some and too much for most.
    """

    median: float
    p99: float | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        """Fill in the one of `p99` and `sigma` that was left out; raise UserError for what no lognormal has."""
        if self.median <= 0 or (self.p99 is None) == (self.sigma is None):
            raise UserError(f"Lognormal(median={self.median}, p99={self.p99}, sigma={self.sigma}): give a median above "
                            "0 and one of p99 and sigma")
        if (self.p99 or self.median) < self.median or (self.sigma or 0) < 0:
            raise UserError(f"Lognormal(median={self.median}, p99={self.p99}, sigma={self.sigma}): p99 must not lie "
                            "below the median, nor sigma below 0")
        if self.p99 is None:
            object.__setattr__(self, "p99", float(self.quantile(0.99)))
        else:
            object.__setattr__(self, "sigma", float(np.log(self.p99 / self.median) / inverse(0.99)))

    @classmethod
    def of_moments(cls, mean: float, deviation: float) -> Self:
        """The lognormal with this mean and standard deviation, in tokens."""
        if mean <= 0 or deviation < 0:
            raise UserError(f"a mean of {mean} and a deviation of {deviation} tokens; need mean > 0, deviation >= 0")
        variance = np.log1p((deviation / mean) ** 2)  # of the logarithm
        return cls(median=float(mean * np.exp(-variance / 2)), sigma=float(np.sqrt(variance)))

    @classmethod
    def fit(cls, values: Sequence[int] | np.ndarray) -> Self:
        """The likeliest lognormal for measured lengths: mean and deviation of their logarithms."""
        logs = np.log(_measured(values))
        return cls(median=float(np.exp(logs.mean())), sigma=float(logs.std()))

    def quantile(self, u: ArrayLike) -> np.ndarray:
        """Lengths at the shares `u`."""
        return self.median * np.exp((self.sigma or 0.0) * inverse(inside(u)))


@dataclass(frozen=True)
class Quantiles(Lengths):
    """A measured distribution as a grid: `grid[i]` is the quantile at `levels[i]` (0 to 1), straight lines between.

    Without `levels` the grid's points are equally spaced from the minimum to the maximum (101 of them: percentiles).
    """

    grid: Sequence[float]
    levels: Sequence[float] = ()

    def __post_init__(self) -> None:
        """Raise UserError when the grid is no quantile function."""
        levels = self.levels if len(self.levels) else np.linspace(0, 1, len(self.grid))
        object.__setattr__(self, "levels", tuple(map(float, levels)))
        object.__setattr__(self, "grid", tuple(map(float, self.grid)))
        if len(self.grid) < 2 or len(self.grid) != len(self.levels):
            raise UserError(f"a quantile grid of {len(self.grid)} values at {len(self.levels)} levels; need two or "
                            "more, and as many levels as values")
        if min(np.diff(self.grid)) < 0 or min(np.diff(self.levels)) <= 0 or self.levels[0] or self.levels[-1] != 1:
            raise UserError("a quantile grid must not fall, and its levels must rise from 0 to 1")

    def quantile(self, u: ArrayLike) -> np.ndarray:
        """Lengths at the shares `u`."""
        return np.interp(np.asarray(u, dtype=float), self.levels, self.grid)


@dataclass(frozen=True)
class Empirical(Lengths):
    """Exactly the measured lengths, each as likely as the next."""

    values: Sequence[int] | np.ndarray
    _sorted: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort once; raise UserError when there is nothing to draw from."""
        object.__setattr__(self, "_sorted", np.sort(_measured(self.values)))

    def quantile(self, u: ArrayLike) -> np.ndarray:
        """Lengths at the shares `u`."""
        return self._sorted[(np.asarray(u) * len(self._sorted)).astype(int)].astype(float)


def _measured(values: Sequence[int] | np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if not array.size or array.min() < 1:
        raise UserError(f"{array.size} measured lengths"
                        + (f", the smallest {array.min()}" if array.size else "") + "; need some, of at least 1 token")
    return array
