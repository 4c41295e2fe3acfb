"""How long a request will wait, from what stands before it: no prediction of single answers is needed.

One answer's length is anybody's guess; the sum of a hundred is not. With q requests ahead whose outputs have mean m and
variance v, and a service that hands out R tokens a second, the wait is about normal with mean q m / R and variance
q v / R^2 (central limit theorem): its relative spread falls with the square root of q. So the estimate is poor for a
handful, and good from some fifty on. Patke et al., 2024 (QLM's request waiting time estimator). Weeks 10 and 14.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, pvariance

from llmcourse.errors import UserError


@dataclass(frozen=True)
class Group:
    """``count`` requests that are alike: mean and variance of their output tokens."""

    count: float
    mean: float
    variance: float = 0.0

    @classmethod
    def of(cls, outputs: Sequence[float]) -> Group:
        """From the outputs of the very requests, or a sample of such."""
        return cls(len(outputs), fmean(outputs), pvariance(outputs)) if outputs else cls(0, 0.0)


@dataclass(frozen=True)
class WaitingTime:
    """A normal distribution of seconds."""

    mean: float
    variance: float

    @property
    def std(self) -> float:
        """Standard deviation, in seconds."""
        return float(self.variance ** 0.5)

    def times(self, number: float) -> WaitingTime:
        """So many independent waits like this, one after the other."""
        return WaitingTime(number * self.mean, number * self.variance)

    def quantile(self, share: float) -> float:
        """Seconds within which the wait is over with this probability (between 0 and 1), at least 0."""
        if not 0 < share < 1:
            raise UserError(f"a quantile at {share}; give a share between 0 and 1, such as 0.95")
        return max(0.0, NormalDist(self.mean, self.std).inv_cdf(share) if self.variance > 0 else self.mean)

    def within(self, seconds: float) -> float:
        """Probability that the wait is at most so long."""
        if self.variance > 0:
            return NormalDist(self.mean, self.std).cdf(seconds)
        return float(self.mean <= seconds)


def waiting_time(ahead: Iterable[Group], tokens_per_second: float, extra: float = 0.0) -> WaitingTime:
    """The wait behind all these groups, on a service of that output rate; ``extra`` seconds for sure (a model swap).

    UserError for a service that hands out nothing.
    """
    if not tokens_per_second > 0:
        raise UserError(f"{tokens_per_second} output tokens/s: whoever waits for such a service waits for ever; give a "
                        "rate above 0")
    mean = variance = 0.0
    for group in ahead:
        mean += group.count * group.mean
        variance += group.count * group.variance
    return WaitingTime(extra + mean / tokens_per_second, variance / tokens_per_second ** 2)


def r_squared(predicted: Sequence[float], actual: Sequence[float]) -> float:
    """Share of the variance of what happened that was foretold: 1 perfect, 0 no better than the mean, below 0 worse."""
    if len(predicted) != len(actual) or len(actual) < 2:
        raise UserError(f"{len(predicted)} predictions and {len(actual)} outcomes; give as many of both, at least 2")
    middle = fmean(actual)
    total = sum((value - middle) ** 2 for value in actual)
    wrong = sum((a - b) ** 2 for a, b in zip(actual, predicted, strict=True))
    return 1 - wrong / total if total else float(not wrong)
