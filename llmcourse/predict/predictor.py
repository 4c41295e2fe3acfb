"""What all predictors have in common, the two that learn nothing, and how a prediction reaches a request.

A predictor is fitted on `LengthData` and then sees prompts, nothing else. What it says is either a number of tokens or,
from a ranker, a score whose order alone means something: smaller is shorter. It costs time, which `timed` measures one
prompt at a time, as prompts arrive; who reports what a prediction buys should say beside it what it cost. Week 9.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.kinds import options_of
from llmcourse.predict.data import LengthData, texts

if TYPE_CHECKING:
    from llmcourse.predict.store import Found

Prompts = Sequence[str] | Sequence[Sequence[int]]          # texts, or token ids of course-tiny
Progress = Callable[[int, int], None]                      # done, of


class Predictor:
    """``fit`` learns, ``predict`` gives one number a prompt; `remaining` may look at a request's output so far.

    ``seconds_per_request`` is None until `timed` has measured it.
    """

    name = ""
    is_ranker = False
    seconds_per_request: float | None = None

    def fit(self, data: LengthData, progress: Progress | None = None) -> Self:
        """Learn from prompts and their lengths; ``progress(done, of)`` is told of steps."""
        raise NotImplementedError

    def predict(self, prompts: Prompts) -> np.ndarray:
        """Expected output tokens of each prompt, or its score: (N,) float."""
        raise NotImplementedError

    def learns_from(self, data: LengthData) -> None:
        """UserError for what is no length data, or has nobody in it."""
        if not isinstance(data, LengthData) or not len(data):
            raise UserError(f"{self.name} learns from LengthData with at least 1 prompt, and this is "
                            f"{'empty' if isinstance(data, LengthData) else type(data).__name__}; "
                            "LengthData.load() reads the shipped set")

    def unless_fitted(self, fitted: bool) -> None:
        """UserError before the first `fit`: a guess from nothing would look like a prediction."""
        if not fitted:
            raise UserError(f"{self.name} has not seen any lengths yet and cannot predict; call fit(data) first")

    def remaining(self, request: Request) -> float:
        """Output tokens still to come, from prompt and output so far: what was expected less what has come.

        Whoever has said more than was expected is expected to end with the next token.
        """
        if self.is_ranker:
            raise UserError(f"{self.name} gives an order and no number of tokens; what remains needs a number")
        expected = self.predict([request.prompt])[0] if request.predicted is None else request.predicted
        return max(float(expected) - request.num_output, 1.0)

    def settings(self) -> dict[str, Any]:
        """What it was made with, by the names of its constructor."""
        return {name: getattr(self, name) for name in options_of(type(self))}

    def learned(self) -> dict[str, Any]:
        """What `fit` has found, for a file (predict/store.py): arrays, and what JSON can hold; UserError before it."""
        raise NotImplementedError

    def restore(self, found: Found) -> None:
        """Take from a file what `learned` gave, each array in the shape that belongs here."""
        raise NotImplementedError


class Oracle(Predictor):
    """Always right, because it was told: for studies of what a perfect prediction would buy.

    It takes the answers from whoever knows them, as lengths by prompt, and can be fitted from no data. It is not kept
    in a file, where it would look like a predictor and be the answers: keep the `LengthData`.
    """

    name = "oracle"

    def __init__(self, lengths: Mapping[str, float]) -> None:
        self.lengths = dict(lengths)

    def fit(self, data: LengthData, progress: Progress | None = None) -> Self:
        """UserError: nobody learns to know the future."""
        raise UserError("an oracle cannot be fitted: give it the lengths, Oracle({prompt: tokens})")

    def predict(self, prompts: Prompts) -> np.ndarray:
        """The lengths it was told; UserError for a prompt it was told nothing of."""
        asked = texts(prompts)
        unknown = [prompt for prompt in asked if prompt not in self.lengths]
        if unknown:
            raise UserError(f"the oracle knows {len(self.lengths)} prompts and not {unknown[0]!r}")
        return np.array([self.lengths[prompt] for prompt in asked], dtype=float)


class Constant(Predictor):
    """The median of what it has seen, whatever the prompt: what a predictor must beat."""

    name = "constant"

    def __init__(self) -> None:
        self.tokens: float | None = None

    def fit(self, data: LengthData, progress: Progress | None = None) -> Self:
        """Take the median of all samples."""
        self.learns_from(data)
        self.tokens = float(np.median(data.lengths))
        return self

    def predict(self, prompts: Prompts) -> np.ndarray:
        """The median for each."""
        self.unless_fitted(self.tokens is not None)
        return np.full(len(texts(prompts)), self.tokens)

    def learned(self) -> dict[str, Any]:
        """The median."""
        self.unless_fitted(self.tokens is not None)
        return {"tokens": np.array(self.tokens)}

    def restore(self, found: Found) -> None:
        """The median."""
        self.tokens = float(found.array("tokens", (), above=0))


def timed(predictor: Predictor, prompts: Prompts, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds per request: the median over ``prompts``, predicted one at a time; kept on the predictor.

    On a machine that is busy with other things ``time.process_time`` counts only what this process computed.
    """
    if not len(prompts):
        raise UserError("0 prompts to time a predictor with; give at least 1")
    seconds = []
    for prompt in prompts:
        started = clock()
        predictor.predict([prompt])                        # type: ignore[arg-type,list-item]
        seconds.append(clock() - started)
    predictor.seconds_per_request = float(np.median(seconds))
    return predictor.seconds_per_request


def annotate(requests: Iterable[Request], predictor: Predictor) -> float:
    """Set ``predicted`` of requests that no engine has yet, from their prompts alone; returns the seconds it took."""
    waiting = list(requests)
    started = time.perf_counter()
    for request, expected in zip(waiting, predictor.predict([request.prompt for request in waiting]), strict=True):
        request.predicted = float(expected)
    return time.perf_counter() - started
