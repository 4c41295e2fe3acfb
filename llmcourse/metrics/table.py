"""All requests of a run as columns: what every number of a service is computed from.

A list of records is easy to read and heavy to add up; a table holds the same facts as arrays, one row a request, and a
million rows fit into a hundred megabytes. It comes from records (`Table.of`) or from a simulation that kept no events.
Gaps between tokens stand beside the rows with a weight each, because a step that a hundred requests share makes a
hundred equal gaps. Week 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmcourse.metrics.records import Record

if TYPE_CHECKING:
    from pandas import DataFrame

TEXT = ("id", "tenant", "finish_reason")
COUNTS = ("priority", "prompt_tokens", "output_tokens", "preemptions")
SECONDS = ("arrival", "queue_time", "prefill_time", "decode_time", "preempted_time", "ttft", "tpot", "e2e",
           "ttft_slo", "tpot_slo")
COLUMNS = ("id", "tenant", "priority", "arrival", "queue_time", "prefill_time", "decode_time", "preempted_time", "ttft",
           "tpot", "e2e", "prompt_tokens", "output_tokens", "preemptions", "finish_reason", "ttft_slo", "tpot_slo")
DONE = ("stop", "length")


@dataclass(frozen=True, eq=False)
class Table:
    """Requests as columns, in order of the log; times in seconds.

    ``columns`` holds an array (rows,) for each name in `COLUMNS`: NaN is a time that did not come about or an SLO not
    given, ``finish_reason`` "" a request that still lives; its ``e2e`` runs to its last token so far. ``gap_seconds``
    (gaps,) are the times between tokens, ``gap_counts`` (gaps,) how many tokens saw each, ``gap_rows`` (gaps,) whose
    gap it is; None when that was not kept.
    """

    columns: dict[str, np.ndarray]
    gap_seconds: np.ndarray
    gap_counts: np.ndarray
    gap_rows: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse a table with a hole in it."""
        missing = [name for name in COLUMNS if name not in self.columns]
        if missing:
            raise ValueError(f"a table needs the column(s) {', '.join(missing)}")
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of a table are equally long, not {lengths}")
        if len(self.gap_seconds) != len(self.gap_counts):
            raise ValueError(f"{len(self.gap_seconds)} gaps came with {len(self.gap_counts)} counts")

    @classmethod
    def of(cls, records: Iterable[Record]) -> Table:
        """The table of some records, in their order."""
        rows = list(records)
        columns = {name: _column(name, [getattr(row, name) for row in rows]) for name in COLUMNS}
        gaps = np.array([gap for row in rows for gap in row.itl], dtype=float)
        owners = np.repeat(np.arange(len(rows)), [len(row.itl) for row in rows])
        return cls(columns, gaps, np.ones(len(gaps), dtype=np.int64), owners)

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.columns["id"])

    def __getitem__(self, name: str) -> np.ndarray:
        """One column."""
        return self.columns[name]

    @property
    def finished(self) -> np.ndarray:
        """(rows,) bool: got all its tokens, by stopping or by reaching its length."""
        return np.isin(self["finish_reason"], DONE)

    @property
    def tenants(self) -> list[str]:
        """Names of the tenants, sorted."""
        return [str(name) for name in np.unique(self["tenant"])]

    def select(self, rows: np.ndarray) -> Table:
        """The table of some rows: a mask (rows,) bool, or row numbers. Gaps whose owner is not known are left out."""
        chosen = np.arange(len(self))[rows]
        columns = {name: column[chosen] for name, column in self.columns.items()}
        if self.gap_rows is None:
            return Table(columns, np.empty(0), np.empty(0, dtype=np.int64))
        places = np.full(len(self), -1)
        places[chosen] = np.arange(len(chosen))
        owners = places[self.gap_rows]
        kept = owners >= 0
        return Table(columns, self.gap_seconds[kept], self.gap_counts[kept], owners[kept])

    def of_tenant(self, tenant: str) -> Table:
        """The requests of one tenant."""
        return self.select(self["tenant"] == tenant)

    @staticmethod
    def concat(tables: Sequence[Table]) -> Table:
        """One table of several (the instances of a service), one after the other."""
        tables = list(tables) or [Table.of([])]
        columns = {name: np.concatenate([table[name] for table in tables]) for name in COLUMNS}
        starts = np.cumsum([0, *(len(table) for table in tables)])
        owners = [table.gap_rows + start for table, start in zip(tables, starts, strict=False)
                  if table.gap_rows is not None]
        return Table(columns, np.concatenate([table.gap_seconds for table in tables]),
                     np.concatenate([table.gap_counts for table in tables]),
                     np.concatenate(owners) if len(owners) == len(tables) else None)

    def frame(self) -> DataFrame:
        """The rows as a pandas DataFrame."""
        from pandas import DataFrame

        return DataFrame({name: self[name] for name in COLUMNS})


def _column(name: str, values: list[str | float | None]) -> np.ndarray:
    if name in TEXT:
        return np.array([value or "" for value in values], dtype=str)
    kind = np.int64 if name in COUNTS else float
    return np.array([np.nan if value is None else value for value in values], dtype=kind)
