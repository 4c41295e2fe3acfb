"""Little's law: requests in the system = rate at which they come x time they stay.

It holds for any system, any order of service and any distribution, over a stretch of time that starts and ends with as
many inside. So each of the three numbers checks the other two: when a load generator says 4 requests/s, the dashboard
8 s and the engine 20 requests at a time, one of them is wrong. Little, "A Proof for the Queuing Formula L = λW", 1961.
Week 3.
"""

from dataclasses import dataclass

import numpy as np

from llmcourse.errors import UserError
from llmcourse.metrics.table import Table


@dataclass(frozen=True)
class Little:
    """Arrivals a second, mean seconds in the system, and mean number in it, each measured for itself."""

    rate: float
    seconds: float
    concurrency: float

    @property
    def product(self) -> float:
        """What the law says the concurrency is."""
        return self.rate * self.seconds


def little(table: Table, start: float | None = None, end: float | None = None) -> Little:
    """Measure between two times (s; default: first arrival to last departure), from what arrived in between.

    Whoever still lives stays to the end. Left out: who left without a token, for nobody noted when.
    """
    came, went = _stays(table)
    if not len(came):
        raise UserError("nobody was in the system: there is no concurrency to measure")
    start, end = came.min() if start is None else start, went.max() if end is None else end
    if not start < end:
        raise UserError(f"the stretch from {start:.4g} s to {end:.4g} s has no length; give start < end")
    during = (came >= start) & (came < end)
    there = np.clip(np.minimum(went, end) - np.maximum(came, start), 0, None).sum()
    stayed = (went - came)[during]
    return Little(float(during.sum() / (end - start)), float(stayed.mean()) if len(stayed) else float("nan"),
                  float(there / (end - start)))


def concurrency(table: Table, times: np.ndarray) -> np.ndarray:
    """How many requests were in the system (waiting or running) at each of the times (any shape)."""
    came, went = _stays(table)
    return np.searchsorted(np.sort(came), times, side="right") - np.searchsorted(np.sort(went), times, side="right")


def _stays(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """When each request came and went (s): with its last token, or at the end of the run if it still lives."""
    living, tokens = table["finish_reason"] == "", ~np.isnan(table["e2e"])
    came, went = table["arrival"], table["arrival"] + table["e2e"]
    inside = living | tokens
    if inside.any():
        went = np.where(living, max(went[tokens].max(initial=-np.inf), came[inside].max()), went)
    return came[inside], went[inside]
