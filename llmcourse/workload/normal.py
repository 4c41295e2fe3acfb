"""The standard normal distribution for arrays: its CDF and the inverse, which numpy does not have.

The CDF uses formula 7.1.26 of Abramowitz and Stegun (1964), off by at most 1.5e-7; the inverse is Acklam's rational
approximation (2003), off by a relative 1.2e-9. That is far below what any sample of lengths can show. Week 4.
"""

import numpy as np
from numpy.typing import ArrayLike

from llmcourse.errors import UserError

_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0)
_MIDDLE = ((-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.3577518672690, -30.66479806614716,
            2.506628277459239),
           (-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972, -13.28068155288572, 1.0))
_TAIL = ((-0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734, 4.374664141464968,
          2.938163982698783),
         (0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416, 1.0))
_SPLIT = 0.02425  # where the formula for the tails takes over


def cdf(z: np.ndarray) -> np.ndarray:
    """Share of a standard normal below each of `z`."""
    size = np.abs(z) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * size)
    upper = 0.5 * np.polyval(_ERF, t) * np.exp(-size * size)
    return np.where(z < 0, upper, 1 - upper)


def inverse(u: ArrayLike) -> np.ndarray:
    """The z below which a share of `u` lies, for each of `u` in [0, 1]; infinite at the two ends."""
    u = np.asarray(u, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = u - 0.5
        square = centre * centre
        middle = centre * np.polyval(_MIDDLE[0], square) / np.polyval(_MIDDLE[1], square)
        near = np.minimum(u, 1 - u)  # the tails mirror each other
        q = np.sqrt(-2 * np.log(near))
        tail = np.where(near > 0, np.polyval(_TAIL[0], q) / np.polyval(_TAIL[1], q), -np.inf)
    return np.where(near < _SPLIT, np.where(u < 0.5, tail, -tail), middle)


def inside(u: ArrayLike) -> np.ndarray:
    """`u` kept off 0 and 1 by a millionth of a millionth, for there the inverse is infinite."""
    return np.clip(u, 1e-12, 1 - 1e-12)


def partner(rng: np.random.Generator, u: np.ndarray, rank_correlation: float) -> np.ndarray:
    """For each of `u` (uniform in [0, 1)) another uniform number, with the given Spearman rank correlation to it.

    A Gaussian copula: two correlated normals, seen through their CDF. A Pearson correlation of 2 sin(pi s / 6) between
    the normals gives a rank correlation of s. Raises UserError unless it lies between -1 and 1.
    """
    if not -1 <= rank_correlation <= 1:
        raise UserError(f"a rank correlation of {rank_correlation}; it must lie between -1 and 1")
    if rank_correlation == 0:
        return rng.random(len(u))
    pearson = 2 * np.sin(np.pi * rank_correlation / 6)
    own = np.sqrt(max(0.0, 1 - pearson**2)) * rng.standard_normal(len(u))
    return inside(cdf(pearson * inverse(inside(u)) + own))


def spread(rng: np.random.Generator, u: np.ndarray) -> np.ndarray:
    """The same order of values, spread evenly over [0, 1): one number in each of len(u) equal slots.

    Quantiles of what is sampled with them are then right to one part in len(u), without the noise of a sample.
    """
    slots = np.empty(len(u))
    slots[np.argsort(u, kind="stable")] = np.arange(len(u))
    return (slots + rng.random(len(u))) / max(len(u), 1)
