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

    Requests that never finished stay to the end; those shed at once were never inside.
    """
    inside = (table["finish_reason"] != "shed") & ((table["finish_reason"] != "abort") | ~np.isnan(table["e2e"]))
    came, went = table["arrival"][inside], (table["arrival"] + table["e2e"])[inside]
    if not len(came):
        raise UserError("nobody was in the system: there is no concurrency to measure")
    went[~table.finished[inside] & (table["finish_reason"][inside] == "")] = np.inf
    last = float(went[np.isfinite(went)].max(initial=came.max()))
    start, end = came.min() if start is None else start, last if end is None else end
    if not start < end:
        raise UserError(f"the stretch from {start:.4g} s to {end:.4g} s has no length; give start < end")
    during = (came >= start) & (came < end)
    there = np.clip(np.minimum(went, end) - np.maximum(came, start), 0, None).sum()
    stayed = (np.minimum(went, max(end, last)) - came)[during]
    return Little(float(during.sum() / (end - start)), float(stayed.mean()) if len(stayed) else float("nan"),
                  float(there / (end - start)))


def concurrency(table: Table, times: np.ndarray) -> np.ndarray:
    """How many requests were in the system (waiting or running) at each of the times (any shape)."""
    came = np.sort(table["arrival"][~np.isnan(table["e2e"])])
    went = np.sort((table["arrival"] + table["e2e"])[~np.isnan(table["e2e"])])
    return np.searchsorted(came, times, side="right") - np.searchsorted(went, times, side="right")
