"""Percentiles, and how many samples each stands on.

A mean hides the user who waited; a percentile names him, if enough samples lie beyond it. The P99 of 50 samples is
drawn from the two largest: it is the worst case with a better name, so every percentile here travels with its count.
Values may carry a count each (a thousand equal gaps are one value). Linear interpolation between ranks, as numpy
(Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996, type 7). Week 3.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from llmcourse.errors import UserError

Values = Sequence[float] | np.ndarray
FEW = 10  # a percentile with fewer samples beyond it moves a lot from one run to the next


def percentile(values: Values, q: float, weights: Values | None = None) -> float:
    """The value below which ``q`` percent of the samples lie; NaN of no samples.

    ``weights`` (as many as values) are how often each value was seen, whole numbers; the answer is that of the values
    repeated so often. NaN values are times that did not come about, and no samples.
    """
    if not 0 <= q <= 100:
        raise UserError(f"a percentile lies between 0 and 100, not at {q!r}")
    ordered, below = _sorted(values, weights)
    return _at(ordered, below, q)


def samples_beyond(samples: int, q: float) -> int:
    """How many of so many samples rank higher than their ``q``-th percentile."""
    return samples - 1 - math.floor(_rank(samples, q)) if samples else 0


@dataclass(frozen=True)
class Distribution:
    """What matters of many values of one kind; NaN everywhere when there were none."""

    samples: int
    mean: float
    p50: float
    p90: float
    p99: float
    maximum: float

    @property
    def beyond_p99(self) -> int:
        """Samples above the P99: what it stands on."""
        return samples_beyond(self.samples, 99)

    @property
    def shaky(self) -> bool:
        """The P99 stands on fewer than `FEW` samples: another seed may move it a lot."""
        return self.beyond_p99 < FEW

    def as_dict(self) -> dict[str, float | None]:
        """Plain numbers, None for NaN."""
        return {**{name: none_for_nan(value) for name, value in asdict(self).items()}, "beyond_p99": self.beyond_p99}

    def __str__(self) -> str:
        """One line."""
        return (f"mean {self.mean:.4g}  P50 {self.p50:.4g}  P90 {self.p90:.4g}  P99 {self.p99:.4g}  "
                f"max {self.maximum:.4g}  ({self.samples} samples, {self.beyond_p99} beyond the P99)")


def distribution(values: Values, weights: Values | None = None) -> Distribution:
    """Mean and percentiles of the values, each seen as often as its weight says (default: once)."""
    ordered, seen = _sorted(values, weights)
    if not len(ordered):
        return Distribution(0, *[math.nan] * 5)
    counts = np.diff(seen, prepend=0)
    return Distribution(int(seen[-1]), float(np.average(ordered, weights=counts)),
                        _at(ordered, seen, 50), _at(ordered, seen, 90), _at(ordered, seen, 99), float(ordered[-1]))


def none_for_nan(value: float) -> float | None:
    """The number as JSON can hold it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sorted(values: Values, weights: Values | None) -> tuple[np.ndarray, np.ndarray]:
    """Values in order, and how many samples there are up to and with each."""
    found = np.asarray(values, dtype=float)
    counts = np.ones(len(found), dtype=np.int64) if weights is None else _counts(weights, len(found))
    kept = ~np.isnan(found) & (counts > 0)
    found, counts = found[kept], counts[kept]
    order = np.argsort(found, kind="stable")
    return found[order], np.cumsum(counts[order])


def _counts(weights: Values, values: int) -> np.ndarray:
    given = np.asarray(weights)
    if len(given) != values:
        raise UserError(f"{values} values came with {len(given)} weights; give one each")
    counts = given.astype(np.int64)
    if (counts != given).any() or (counts < 0).any():
        raise UserError("weights are how often a value was seen: whole numbers from 0")
    return counts


def _rank(samples: int, q: float) -> float:
    return (samples - 1) * q / 100


def _at(ordered: np.ndarray, seen: np.ndarray, q: float) -> float:
    """Between the samples of the two ranks beside (samples - 1) * q / 100, counted from 0."""
    if not len(ordered):
        return math.nan
    rank = _rank(int(seen[-1]), q)
    low, high = ordered[np.searchsorted(seen, [math.floor(rank), math.ceil(rank)], side="right")]
    return float(low if low == high else low + (high - low) * (rank - math.floor(rank)))
