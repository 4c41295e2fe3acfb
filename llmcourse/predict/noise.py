"""Predictions that are wrong in a known way: for simulations whose prompts are only lengths.

A study of what an error costs needs errors of a size it chooses. `LognormalNoise` multiplies the truth by a random
factor. `Confusion` says how often an answer of one class is taken for another, and predicts what is typical of the
class. `realistic()` is a synthetic matrix: five classes with cuts at the 25th, 50th, 75th and 99th percentile, solved
for the class accuracy (0.598) and Kendall's tau (0.636) that SSJF's published predictions have on 85,482 prompts of
LMSYS-Chat-1M for Vicuna-13B (Qiu et al., 2024). Which wrong class is said how often is not published: here nearer
and larger classes are likelier. `Noisy` spoils a predictor instead of the truth. Week 9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import Protocol, Self

import numpy as np

from llmcourse.errors import UserError
from llmcourse.predict.data import LengthData, texts
from llmcourse.predict.predictor import Predictor, Progress, Prompts
from llmcourse.workload.arrival import Arrival
from llmcourse.workload.generate import generator
from llmcourse.workload.normal import inside, inverse

ACCURACY, TAU = 0.598, 0.636                               # SSJF's five classes, LMSYS-Chat-1M
QUANTILES = (0.25, 0.5, 0.75, 0.99)


class Guess(Protocol):
    """Makes predictions from the truth, each only from its own length and chance."""

    def guess(self, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Predicted tokens for true lengths (N,)."""
        ...


@dataclass(frozen=True)
class LognormalNoise:
    """The truth times exp(sigma z), z standard normal: with sigma 0.6 one in three is wrong by a factor of 1.8."""

    sigma: float

    def __post_init__(self) -> None:
        """Refuse a negative spread."""
        if not 0 <= self.sigma < np.inf:
            raise UserError(f"log-normal noise of sigma {self.sigma}; it must be 0 or more")

    def guess(self, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Each length times a factor of its own."""
        return lengths * np.exp(self.sigma * rng.standard_normal(len(lengths)))


@dataclass(frozen=True)
class Confusion:
    """``matrix[i][j]``: how often class i is taken for j; classes part the lengths at these ``quantiles``.

    What is typical of a class is the median of its lengths: cuts and medians are taken from the lengths at hand.
    """

    matrix: tuple[tuple[float, ...], ...]
    quantiles: tuple[float, ...] = QUANTILES

    def __post_init__(self) -> None:
        """Refuse what is no table of chances."""
        rows, ends = np.array(self.matrix, dtype=float), (0.0, *self.quantiles, 1.0)
        if rows.shape != (len(ends) - 1,) * 2 or rows.min() < 0 or np.abs(rows.sum(axis=1) - 1).max() > 1e-6:
            raise UserError(f"a confusion matrix of shape {rows.shape} for {len(ends) - 1} classes; it needs a row and "
                            "a column for each class, and rows of chances that sum to 1")
        if min(np.diff(ends)) <= 0:
            raise UserError(f"quantiles {self.quantiles}; they must rise between 0 and 1")

    @property
    def masses(self) -> np.ndarray:
        """Share of requests in each class."""
        return np.diff([0.0, *self.quantiles, 1.0])

    @property
    def accuracy(self) -> float:
        """Share of requests whose class is said right."""
        return float(self.masses @ np.diag(np.array(self.matrix)))

    @property
    def tau(self) -> float:
        """Kendall's tau-b between what is said and lengths of which no two are equal."""
        joint = np.array(self.matrix) * self.masses[:, None]             # truth down, said across
        above = np.flip(np.cumsum(np.cumsum(np.flip(joint), axis=0), axis=1))
        later = np.cumsum(np.flip(np.cumsum(np.flip(joint, 0), axis=0), 0), axis=1)
        concordant = (joint[:-1, :-1] * above[1:, 1:]).sum()
        discordant = (joint[:-1, 1:] * later[1:, :-1]).sum()
        said = joint.sum(axis=0)
        return float(2 * (concordant - discordant) / np.sqrt(1 - (said ** 2).sum()))

    def guess(self, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What is typical of the class that is said."""
        if not len(lengths):
            return np.zeros(0)
        classes = np.searchsorted(cuts := np.quantile(lengths, self.quantiles), lengths)
        edges = [min(lengths), *cuts, max(lengths)]
        typical = np.array([np.median(lengths[classes == place]) if (classes == place).any()
                            else (edges[place] + edges[place + 1]) / 2 for place in range(len(self.matrix))])
        ends = np.cumsum(self.matrix, axis=1)[classes]
        said = (rng.random(len(lengths))[:, None] * ends[:, -1:] >= ends).sum(axis=1)
        return typical[np.minimum(said, len(typical) - 1)]


@cache
def realistic(accuracy: float = ACCURACY, tau: float = TAU) -> Confusion:
    """The synthetic matrix with this accuracy in every class and this tau, by bisection.

    A class that is d away is mistaken for the right one with a chance in proportion to its size times r to the d; r is
    solved for. UserError when no r in (0, 1] gives that tau.
    """
    masses, away = np.diff([0.0, *QUANTILES, 1.0]), np.abs(np.subtract.outer(range(5), range(5)))

    def matrix(r: float) -> Confusion:
        wrong = np.where(away > 0, masses * r ** (away - 1.0), 0.0)
        rows = (1 - accuracy) * wrong / wrong.sum(axis=1, keepdims=True) + accuracy * np.eye(5)
        return Confusion(tuple(map(tuple, rows.tolist())))

    low, high = 1e-6, 1.0
    if not 0 < accuracy < 1 or not matrix(high).tau <= tau <= matrix(low).tau:
        raise UserError(f"no matrix of this kind has an accuracy of {accuracy} and a tau of {tau}")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if matrix(middle).tau > tau else (low, middle)
    return matrix(low)


def with_predictions(workload: Iterable[Arrival], source: Guess, seed: int) -> list[Arrival]:
    """The same arrivals, each with a prediction (tokens, at least 1) made from its own output length and chance."""
    arrivals = list(workload)
    lengths = np.array([arrival.output_tokens for arrival in arrivals], dtype=float)
    said = np.maximum(source.guess(lengths, generator(seed)), 1.0).tolist()
    return [replace(arrival, predicted=tokens) for arrival, tokens in zip(arrivals, said, strict=True)]


class Noisy(Predictor):
    """Another predictor's numbers times log-normal noise, always the same for the same prompt and seed.

    For studies, and not kept in a file: keep the other one, Noisy(load_predictor(path), sigma, seed) spoils it alike.
    """

    def __init__(self, predictor: Predictor, sigma: float, seed: int = 0) -> None:
        if predictor.is_ranker:
            raise UserError(f"{predictor.name} gives scores; noise by a factor needs tokens")
        self.inner, self.noise, self.seed = predictor, LognormalNoise(sigma), seed
        self.name = f"{predictor.name}, noise {sigma:g}"

    def fit(self, data: LengthData, progress: Progress | None = None) -> Self:
        """Fit the predictor inside."""
        self.inner.fit(data, progress)
        return self

    def predict(self, prompts: Prompts) -> np.ndarray:
        """Tokens, at least 1; which prompts are asked beside it changes nothing."""
        z = inverse(inside([_uniform(f"{self.seed}/{prompt}") for prompt in texts(prompts)]))
        return np.maximum(self.inner.predict(prompts) * np.exp(self.noise.sigma * z), 1.0)


def _uniform(text: str) -> float:
    return int.from_bytes(sha256(text.encode()).digest()[:6], "big") / 2**48
