"""How good is a prediction? Error in tokens, share of right buckets, and order: Kendall's tau.

Tau counts pairs: the share put in the right order less the share put in the wrong one. Tau-b (Kendall, 1945) corrects
for ties, which matters here: lengths repeat, and a classifier's predictions are almost all ties. It is counted in
O(n log n) by sorting (Knight, 1966). Anything that keeps the order keeps tau: a predictor that says twice too much is
as good for a scheduler as one that is right, and worse for whoever must reserve memory. Week 9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from llmcourse.errors import UserError
from llmcourse.predict.data import LengthData
from llmcourse.predict.predictor import Predictor


def mae(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute error in tokens."""
    first, second = _pair(truth, predicted)
    return float(np.abs(first - second).mean())


def accuracy(truth: ArrayLike, predicted: ArrayLike, cuts: Sequence[float] | np.ndarray) -> float:
    """Share of predictions in the right one of the buckets that rising ``cuts`` make; a cut belongs below itself."""
    first, second = _pair(truth, predicted)
    return float((np.searchsorted(cuts, first) == np.searchsorted(cuts, second)).mean())


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Tau-b of two lists of numbers, -1 to 1; 0 when one of them is constant, for it orders nothing."""
    a, b = (np.unique(values, return_inverse=True)[1].astype(np.int64) for values in _pair(first, second))
    order = np.lexsort((b, a))
    a, b = a[order], b[order]
    pairs = len(a) * (len(a) - 1) // 2
    tied_a, tied_b = _tied(np.bincount(a)), _tied(np.bincount(b))
    tied_both = _tied(np.unique(a * (b.max() + 1) + b, return_counts=True)[1])
    if pairs in (tied_a, tied_b):
        return 0.0
    discordant = _inversions(b)[0]                         # of equal a, b rises: no inversion among them
    concordant = pairs - tied_a - tied_b + tied_both - discordant
    return (concordant - discordant) / math.sqrt((pairs - tied_a) * (pairs - tied_b))


class Calibration(NamedTuple):
    """Requests with similar predictions: how many, what was predicted and what came, on average."""

    requests: int
    predicted: float
    actual: float


def calibration(truth: ArrayLike, predicted: ArrayLike, groups: int = 10) -> list[Calibration]:
    """Requests in ``groups`` of equal size by prediction, the smallest first; who predicts alike may be parted."""
    first, second = _pair(truth, predicted)
    if groups < 1:
        raise UserError(f"{groups} groups; a calibration table needs at least 1")
    parts = np.array_split(np.argsort(second, kind="stable"), min(groups, len(first)))
    return [Calibration(len(part), float(second[part].mean()), float(first[part].mean())) for part in parts]


@dataclass(frozen=True)
class Score:
    """A predictor on prompts it was not trained on: tokens, share, tau; None where it gives only an order."""

    mae: float | None
    accuracy: float | None
    tau: float


def score(predictor: Predictor, test: LengthData, cuts: Sequence[float] | np.ndarray = ()) -> Score:
    """Predict each prompt once and compare with every sample of it; tau is the mean of one tau for each sample."""
    said = predictor.predict(test.prompts)
    columns = test.lengths.T
    tau = float(np.mean([kendall_tau(column, said) for column in columns]))
    if predictor.is_ranker:
        return Score(None, None, tau)
    right = float(np.mean([accuracy(column, said, cuts) for column in columns])) if len(cuts) else None
    return Score(float(np.mean([mae(column, said) for column in columns])), right, tau)


def noise_ceiling(lengths: np.ndarray) -> Score:
    """About the best that can be had from the prompt: each sample guessed by the other samples of the same prompt.

    ``lengths`` is (prompts, samples), two samples or more. Tau of the others' mean, error of their median. With few
    samples both are a little worse than a perfect knowledge of the prompt would be.
    """
    if lengths.shape[1] < 2:
        raise UserError("1 sample of each prompt; what is chance shows only in 2 or more")
    taus, errors = [], []
    for sample in range(lengths.shape[1]):
        others = np.delete(lengths, sample, axis=1)
        taus.append(kendall_tau(lengths[:, sample], others.mean(axis=1)))
        errors.append(mae(lengths[:, sample], np.median(others, axis=1)))
    return Score(float(np.mean(errors)), None, float(np.mean(taus)))


def chance_share(lengths: np.ndarray) -> float:
    """Share of the variance of log length that lies between samples of one prompt: what no prompt can tell."""
    logs = np.log(lengths)
    inside = logs.var(axis=1, ddof=1).mean()               # unbiased, so few samples do not hide it
    between = max(logs.mean(axis=1).var(ddof=1) - inside / lengths.shape[1], 0.0)
    return float(inside / (inside + between)) if inside + between else 0.0


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise UserError(f"truth of shape {a.shape} beside predictions of shape {b.shape}; both are one list, as long "
                        "as each other and not empty")
    return a, b


def _tied(counts: np.ndarray) -> int:
    """Pairs inside groups of equal values."""
    return int((counts.astype(np.int64) * (counts - 1) // 2).sum())


def _inversions(values: np.ndarray) -> tuple[int, np.ndarray]:
    """Pairs of which the first is larger, and the values sorted: merge sort, with short lists compared outright."""
    if len(values) <= 64:
        return int(np.triu(values[:, None] > values[None, :], 1).sum()), np.sort(values)
    left, low = _inversions(values[:len(values) // 2])
    right, high = _inversions(values[len(values) // 2:])
    across = len(low) * len(high) - int(np.searchsorted(low, high, side="right").sum())
    return left + right + across, np.sort(np.concatenate([low, high]), kind="stable")    # two runs: one merge
