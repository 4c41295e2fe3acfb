"""A cost model learnt from an engine's own log: how long its steps took, and what was in them.

Every step is a row: tokens, requests, kept context, attention pairs, seconds. Five prices (per step, token, request,
kept token and pair) that are never negative and whose bill comes nearest to all rows make a `FittedCost`, and a
simulation of that engine on that machine can begin. Vidur (Agrawal et al., 2024) learns kernels one by one; whole steps
are enough where one machine serves one model. Non-negative least squares: Lawson and Hanson, 1974. Week 3.

A step's length is the time between the ends of two steps while the engine was busy, so scheduling and book-keeping
count. A step that begins after a pause is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.engine.events import Event
    from llmcourse.metrics.cost_model import CostModel, Numbers

FEWEST = 30             # steps below which five prices say little
ROUNDS = 8              # of weighting; two usually change the third digit only
SAME = 1e-6             # share of the largest singular value below which two columns tell the same


@dataclass(frozen=True, eq=False)
class Steps:
    """What was in each of some steps and how long it took (seconds): arrays (steps,), as in `CostModel.seconds`."""

    seconds: np.ndarray
    tokens: np.ndarray
    requests: np.ndarray
    context: np.ndarray
    pairs: np.ndarray

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.seconds)

    def predicted(self, cost: CostModel) -> np.ndarray:
        """Seconds that a cost model gives each of the steps: (steps,)."""
        return np.array([cost.seconds(int(t), int(r), float(c), float(p)) for t, r, c, p in
                         zip(self.tokens, self.requests, self.context, self.pairs, strict=True)], dtype=float)


@dataclass(frozen=True)
class FittedCost:
    """Five prices in seconds, and how well they did on the steps they come from (a `CostModel`).

    ``r2`` is the share of the variance of step lengths that is explained; ``median_error`` and ``p99_error`` are
    relative errors of single steps, without sign.
    """

    overhead: float
    per_token: float
    per_request: float
    per_context: float
    per_pair: float
    steps: int = 0
    r2: float = float("nan")
    median_error: float = float("nan")
    p99_error: float = float("nan")

    def seconds(self, tokens: int, requests: int, context: Numbers, pairs: Numbers) -> Numbers:
        """Seconds of one step (see `CostModel.seconds`)."""
        base = self.overhead + self.per_token * tokens + self.per_request * requests
        return base + self.per_pair * pairs + self.per_context * context

    def slowed(self, factor: float) -> FittedCost:
        """The same on a machine on which everything takes ``factor`` times as long."""
        prices = ("overhead", "per_token", "per_request", "per_context", "per_pair")
        return replace(self, **{name: factor * getattr(self, name) for name in prices})

    def __str__(self) -> str:
        """Two lines to read."""
        return (f"a step {self.overhead * 1e3:.2f} ms, a token {self.per_token * 1e6:.1f} µs, a request "
                f"{self.per_request * 1e6:.1f} µs, a kept token {self.per_context * 1e6:.2f} µs, a pair "
                f"{self.per_pair * 1e9:.1f} ns\nfrom {self.steps} steps: R² {self.r2:.3f}, relative error of a step: "
                f"median {self.median_error:.1%}, P99 {self.p99_error:.0%}")


def calibrate(*logs: Iterable[Event]) -> FittedCost:
    """Fit prices to the steps of one or more logs of the same engine.

    Relative errors count, so that short steps are met as well as long ones. Raises UserError when the log says too
    little: few steps, only decodes, only prompts, or all of one size.
    """
    steps = join(map(busy_steps, logs))
    _refuse_uniform(steps)
    columns = _columns(steps)
    expected = np.full(len(steps), steps.seconds.mean())
    prices = np.zeros(columns.shape[1])
    for _ in range(ROUNDS):
        # Weighted by what is expected, not by what was measured: the latter would believe the short steps more.
        prices = non_negative_least_squares(columns / expected[:, None], steps.seconds / expected)
        expected = np.maximum(columns @ prices, 1e-3 * steps.seconds.mean())
    overhead, token, request, context, pair = prices.tolist()
    r2, middle, worst = _residuals(steps.seconds, columns @ prices)
    return FittedCost(overhead, token, request, context, pair, len(steps), r2, middle, worst)


def busy_steps(events: Iterable[Event]) -> Steps:
    """The steps of a log whose length is known: those before which the engine had work left from the step before."""
    rows: list[tuple[float, ...]] = []
    live: set[str | None] = set()
    end, busy = 0.0, False
    for event in events:
        if event.kind == "QUEUED":
            live.add(event.request)
        elif event.kind in ("FINISHED", "ABORTED"):
            live.discard(event.request)
            busy = bool(live)
        elif event.kind == "STEP":
            if busy:
                rows.append((event.time - end, *contents(event.data["batch"])))
            end, busy = event.time, bool(live)
    return Steps(*np.array(rows, dtype=float).reshape(-1, 5).T)


def contents(batch: Iterable[tuple[str, int, int]]) -> tuple[int, int, int, int]:
    """(tokens, requests, context, pairs) of a STEP event's batch of (id, start, count)."""
    tokens = requests = context = pairs = 0
    for _, start, count in batch:
        tokens, requests, context = tokens + count, requests + 1, context + start
        if count > 1:
            pairs += count * start + count * (count + 1) // 2
    return tokens, requests, context, pairs


def join(parts: Iterable[Steps]) -> Steps:
    """The steps of several logs as one."""
    parts = list(parts)
    return Steps(*(np.concatenate([getattr(part, name) for part in parts]) for name in Steps.__dataclass_fields__))


def non_negative_least_squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The x >= 0 (n,) that makes ``a @ x`` come nearest to b; a (m, n), b (m,). Lawson and Hanson's active set.

    Columns join the solution while that helps; whoever would turn negative leaves it at zero.
    """
    scale = np.linalg.norm(a, axis=0)
    scale[scale == 0] = 1.0
    a, x, free = a / scale, np.zeros(a.shape[1]), np.zeros(a.shape[1], dtype=bool)
    tolerance = 1e-12 * max(1.0, float(np.abs(a.T @ b).max()))
    for _ in range(10 * a.shape[1]):
        pull = np.where(free, -np.inf, a.T @ (b - a @ x))
        if pull.max() <= tolerance:
            break
        free[pull.argmax()] = True
        x = _settle(a, b, x, free)
    return x / scale


def _settle(a: np.ndarray, b: np.ndarray, x: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Least squares over the free columns; goes back to the first zero it crosses and fixes that column there."""
    while True:
        target = np.zeros_like(x)
        target[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
        falling = free & (target <= 0)
        if not falling.any():
            return target
        x = x + (x[falling] / (x[falling] - target[falling])).min() * (target - x)
        free &= x > 1e-15
        x[~free] = 0.0


def _columns(steps: Steps) -> np.ndarray:
    return np.stack([np.ones(len(steps)), steps.tokens, steps.requests, steps.context, steps.pairs], axis=1)


def _refuse_uniform(steps: Steps) -> None:
    """UserError unless the steps differ in every way that has a price."""
    lack = _what_is_missing(steps)
    if lack:
        raise UserError(f"a cost model cannot be fitted to these {len(steps)} steps: {lack}; serve prompts of many "
                        "lengths, by one user and by many at once, and calibrate on that log")


def _what_is_missing(steps: Steps) -> str:
    if len(steps) < FEWEST:
        return f"{FEWEST} are the least, taken while the engine was busy"
    if not (steps.pairs > 0).any():
        return "all are decodes, none computes a prompt"
    if not (steps.tokens == steps.requests).any():
        return "all compute prompts, none only decodes"
    for name in ("requests", "context", "pairs"):
        values = getattr(steps, name)
        if len(np.unique(values[values > 0])) < 3:
            return f"fewer than 3 different values of {name}"
    columns = _columns(steps)
    sizes = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), compute_uv=False)
    return "what is in them rises and falls together" if sizes[-1] < SAME * sizes[0] else ""


def _residuals(seconds: np.ndarray, predicted: np.ndarray) -> tuple[float, float, float]:
    """R², and median and P99 of the relative errors."""
    errors = np.abs(predicted - seconds) / seconds
    unexplained = ((seconds - predicted) ** 2).sum() / ((seconds - seconds.mean()) ** 2).sum()
    return 1 - float(unexplained), float(np.median(errors)), float(np.quantile(errors, 0.99))
