"""Hand features and ridge regression: the predictor that fits in ten lines and needs no training loop.

Least squares on the logarithm of the length, with a penalty on large weights (Hoerl and Kennard, 1970), solved at once.
The exponential of a mean of logarithms is near the median of skewed lengths, which is what a mean absolute error
asks for. Week 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from llmcourse.errors import UserError
from llmcourse.predict.data import LengthData, texts
from llmcourse.predict.features import Features
from llmcourse.predict.predictor import Predictor, Progress, Prompts

if TYPE_CHECKING:
    from llmcourse.predict.store import Found


class Ridge(Predictor):
    """Hand features, and with ``bag`` a bag of words; ``penalty`` counts in prompts."""

    name = "ridge"

    def __init__(self, penalty: float = 3.0, bag: bool = False) -> None:
        if not 0 < penalty < np.inf:
            raise UserError(f"a ridge penalty of {penalty}; it must be above 0, or words too rare decide")
        self.penalty, self.bag, self.features = penalty, bag, Features(bag)
        self.weights, self.offset = np.zeros(0), 0.0

    def fit(self, data: LengthData, progress: Progress | None = None) -> Self:
        """Solve for the mean log length of each training prompt."""
        self.learns_from(data)
        rows = self.features.fit(data.prompts).rows(data.prompts).astype(float)
        target = np.log(data.lengths).mean(axis=1)
        self.offset = float(target.mean())
        square = rows.T @ rows + self.penalty * np.eye(rows.shape[1])
        self.weights = np.linalg.solve(square, rows.T @ (target - self.offset))
        if progress:
            progress(1, 1)
        return self

    def predict(self, prompts: Prompts) -> np.ndarray:
        """Tokens, at least 1."""
        self.unless_fitted(len(self.weights) > 0)
        logs = self.features.rows(texts(prompts)).astype(float) @ self.weights + self.offset
        return np.exp(np.clip(logs, 0, 12))

    def learned(self) -> dict[str, Any]:
        """A weight a feature, and the mean log length."""
        self.unless_fitted(len(self.weights) > 0)
        return self.features.learned() | {"weights": self.weights, "offset": np.array(self.offset)}

    def restore(self, found: Found) -> None:
        """Take them from a file."""
        self.features.restore(found)
        self.weights, self.offset = found.array("weights", (self.features.width,)), float(found.array("offset", ()))
