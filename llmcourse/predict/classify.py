"""Length as a class: which bucket an answer falls into, with or without knowing that buckets have an order.

A classifier is easy to train and its accuracy easy to read, and both mislead: what a scheduler needs is order, and two
answers in one bucket have none (predict/accuracy_or_order.py). An ordinal model asks for each cut whether the answer
is longer, so that a miss by one bucket costs less than a miss by four. SSJF (Qiu et al., 2024) has both, with cuts at
the 25th, 50th, 75th and 99th percentile. Week 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.kinds import check_kind
from llmcourse.predict.data import LengthData
from llmcourse.predict.network import Network
from llmcourse.predict.predictor import Prompts

if TYPE_CHECKING:
    from llmcourse.predict.store import Found

PERCENTILES = (25.0, 50.0, 75.0, 99.0)


def quantile_cuts(lengths: np.ndarray, percentiles: Sequence[float] = PERCENTILES) -> np.ndarray:
    """Cuts between buckets, rising; a length equal to a cut belongs below it. Equal percentiles give one cut."""
    return np.unique(np.percentile(lengths, percentiles))


def buckets(lengths: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The bucket of each length, from 0."""
    return np.searchsorted(cuts, lengths, side="left")


class _Buckets(Network):
    """Cuts from the training lengths, unless they are given, and what is typical inside each bucket."""

    def __init__(self, cuts: Sequence[float] | None = None, hidden: int = 64, steps: int = 500, rate: float = 3e-3,
                 seed: int = 0) -> None:
        super().__init__(hidden, steps, rate, seed)
        if cuts is not None:
            check_kind("cuts", cuts if isinstance(cuts, str) else list(cuts) if hasattr(cuts, "__iter__") else cuts,
                       Sequence[float])
            if not len(cuts) or min(np.diff([0, *cuts])) <= 0:
                raise UserError(f"cuts {list(cuts)}; they must rise, from above 0")
        self.given = cuts
        self.cuts = self.typical = np.zeros(0)

    def prepare(self, data: LengthData) -> None:
        """Cut the training lengths; a bucket that nobody falls into stands at its middle."""
        self.cuts = quantile_cuts(data.lengths) if self.given is None else np.array(self.given, dtype=float)
        inside, flat = buckets(data.lengths, self.cuts), data.lengths
        edges = [0.0, *self.cuts, 2 * self.cuts[-1]]
        self.typical = np.array([np.median(flat[inside == place]) if (inside == place).any() else (low + high) / 2
                                 for place, (low, high) in enumerate(pairwise(edges))])
        self.outputs = self.wanted()

    def wanted(self) -> int:
        """How many numbers the network gives."""
        return len(self.typical)

    def _classes(self, lengths: Tensor) -> Tensor:
        return torch.searchsorted(torch.from_numpy(self.cuts).float(), lengths)

    def probabilities(self, prompts: Prompts) -> np.ndarray:
        """Probability of each bucket, (N, buckets), rows that sum to 1."""
        raise NotImplementedError

    def remaining(self, request: Request) -> float:
        """What is expected of an answer that is already longer than what has come: buckets it has passed are out."""
        chances = self.probabilities([request.prompt])[0]
        left = self.typical - request.num_output
        chances = np.where(left > 0, chances, 0.0)
        return float(chances @ left / chances.sum()) if chances.sum() > 1e-9 else 1.0

    def settings(self) -> dict[str, Any]:
        """The cuts that were given, not those that were found."""
        return super().settings() | {"cuts": None if self.given is None else [float(cut) for cut in self.given]}

    def learned(self) -> dict[str, Any]:
        """Also the cuts, and what is typical between them."""
        return super().learned() | {"cuts": self.cuts, "typical": self.typical}

    def restore(self, found: Found) -> None:
        """Take them from a file."""
        self.cuts = found.array("cuts", (None if self.given is None else len(self.given),), above=0)
        if not len(self.cuts) or min(np.diff([0.0, *self.cuts])) <= 0:
            raise found.wrong(f"cuts {self.cuts.tolist()}; they must rise")
        self.typical = found.array("typical", (len(self.cuts) + 1,), above=0)
        self.outputs = self.wanted()
        super().restore(found)


class BucketClassifier(_Buckets):
    """Softmax over buckets; the prediction is what is typical of the likeliest one, so predictions tie."""

    name = "buckets"

    def loss(self, said: Tensor, lengths: Tensor) -> Tensor:
        """Cross entropy of the right bucket."""
        return torch.nn.functional.cross_entropy(said, self._classes(lengths))

    def probabilities(self, prompts: Prompts) -> np.ndarray:
        """Softmax of the outputs."""
        said = self.outputs_of(prompts)
        chances = np.exp(said - said.max(axis=1, keepdims=True))
        return np.asarray(chances / chances.sum(axis=1, keepdims=True))

    def predict(self, prompts: Prompts) -> np.ndarray:
        """Median length of the likeliest bucket."""
        return self.typical[self.outputs_of(prompts).argmax(axis=1)]


class Ordinal(_Buckets):
    """One yes-or-no question a cut, "is it longer?" (Frank and Hall, 2001); the prediction is the expected length."""

    name = "ordinal"

    def wanted(self) -> int:
        """One output a cut."""
        return len(self.cuts)

    def loss(self, said: Tensor, lengths: Tensor) -> Tensor:
        """Cross entropy of all questions."""
        longer = (self._classes(lengths)[:, None] > torch.arange(len(self.cuts))).float()
        return torch.nn.functional.binary_cross_entropy_with_logits(said, longer)

    def probabilities(self, prompts: Prompts) -> np.ndarray:
        """Differences of the answers, once they are made to fall from cut to cut."""
        longer = np.minimum.accumulate(1 / (1 + np.exp(-np.clip(self.outputs_of(prompts), -50, 50))), axis=1)
        ends = np.ones((len(longer), 1))
        return np.asarray(-np.diff(np.hstack([ends, longer, 0 * ends]), axis=1))

    def predict(self, prompts: Prompts) -> np.ndarray:
        """Expected tokens."""
        return np.asarray(self.probabilities(prompts) @ self.typical)
