"""One metric of one run, whatever the run is kept as: plain seconds, records, an event log, or a table.

A view of latencies asks for `samples(run, "ttft")` and gets values with their weights: a gap between tokens that a
hundred requests saw counts a hundred times. Times that did not come about (no first token yet) are left out, and the
view says how many samples stand behind a number. Week 3.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.records import Record, records
from llmcourse.metrics.table import Table

METRICS = {
    "ttft": "time to first token (TTFT)",
    "itl": "time between tokens (ITL)",
    "tpot": "time per output token (TPOT)",
    "e2e": "end-to-end time",
    "queue_time": "time in the queue",
}
SHORT = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "end to end", "queue_time": "queue"}
Run = Table | Sequence[Event] | Sequence[Record] | Sequence[float]


@dataclass(frozen=True)
class Samples:
    """Values (seconds) and how many samples stand behind each."""

    values: np.ndarray
    weights: np.ndarray

    @property
    def count(self) -> int:
        """How many samples there are."""
        return int(self.weights.sum())

    @property
    def mean(self) -> float:
        """Their mean; NaN without samples."""
        return float((self.values * self.weights).sum() / self.weights.sum()) if self.count else float("nan")

    def percentile(self, q: float) -> float:
        """The q-th percentile (0 to 100); NaN without samples."""
        return percentile(self.values, q, self.weights)

    def grid(self, points: int = 160) -> tuple[list[float], list[float]]:
        """The distribution as a curve: values, and the share of samples at or below each."""
        order = np.argsort(self.values, kind="stable")
        values, shares = self.values[order], np.cumsum(self.weights[order]) / self.weights.sum()
        middle = np.linspace(0, len(values) - 1, points)
        tail = len(values) - 1 - np.geomspace(1, len(values), points // 2)  # the tail is what people look at
        kept = np.unique(np.clip(np.concatenate([middle, tail, [len(values) - 1]]), 0, None).astype(int))
        return values[kept].tolist(), shares[kept].tolist()


def as_table(run: Any) -> Table:
    """The run as a table of requests.

    Raises:
        UserError: neither a table, nor records, nor an event log.
    """
    if isinstance(run, Table):
        return run
    items = list(run)
    if items and all(isinstance(item, Event) for item in items):
        return Table.of(records(items))
    if items and all(isinstance(item, Record) for item in items):
        return Table.of(items)
    kinds = ", ".join(sorted({type(item).__name__ for item in items})) or "nothing"
    raise UserError(f"a run is a metrics Table, a list of Records or an engine's events; got {kinds}")


def samples(run: Run | Iterable[float], metric: str) -> Samples:
    """The samples of one metric of `METRICS`; plain numbers stand for themselves.

    Raises:
        UserError: an unknown metric, or not a run.
    """
    if metric not in METRICS:
        raise UserError(f"no metric {metric!r}; these are drawn: {', '.join(METRICS)}")
    items = [] if isinstance(run, Table) else list(run)
    if items and all(isinstance(item, (int, float, np.integer, np.floating)) for item in items):
        return _known(np.array(items, dtype=float), np.ones(len(items), dtype=np.int64))
    table = as_table(run if isinstance(run, Table) else items)
    if metric == "itl":
        return _known(table.gap_seconds, table.gap_counts)
    return _known(table[metric], np.ones(len(table), dtype=np.int64))


def _known(values: np.ndarray, weights: np.ndarray) -> Samples:
    kept = np.isfinite(values)
    return Samples(values[kept], weights[kept])
