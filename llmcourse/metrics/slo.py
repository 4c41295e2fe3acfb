"""Which requests got what they were promised.

An SLO is a limit on what a user feels: seconds to the first token (TTFT), mean seconds between tokens after it (TPOT).
Attainment is the share of requests within their limits, each kind alone and both together, and the two together are
never better than the worse of them. Who was shed, gave up or is still unserved at the end was not served in time,
otherwise a service could reach 100 % by refusing everybody it would be late for. DistServe (Zhong et al., 2024).
Week 3.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmcourse.metrics.percentile import none_for_nan
from llmcourse.metrics.table import Table
from llmcourse.metrics.words import counted

if TYPE_CHECKING:
    from llmcourse.workload.slo import SLO


@dataclass(frozen=True)
class Attainment:
    """Shares of requests (0 to 1) that kept to their limits; NaN where no request had such a limit.

    ``requests`` had a limit of at least one kind; ``both`` is the share of them that kept to all they had.
    """

    requests: int
    ttft: float
    tpot: float
    both: float

    def as_dict(self) -> dict[str, float | None]:
        """Plain numbers, None for NaN."""
        return {name: none_for_nan(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """One line."""
        if not self.requests:
            return "no request had an SLO"
        parts = [f"{name} {value:.1%}" for name, value in (("TTFT", self.ttft), ("TPOT", self.tpot)) if value == value]
        return f"{self.both:.1%} of {counted(self.requests, 'request')} within their SLO ({', '.join(parts)})"


def attainment(table: Table, slo: SLO | None = None) -> Attainment:
    """The shares of a run: under one SLO for all, or (None) under each request's own.

    Requests without an SLO do not count; those that did not finish miss.
    """
    ttft_limit, tpot_limit = _limits(table, slo)
    ttft_met, tpot_met = _kept(table, "ttft", ttft_limit), _kept(table, "tpot", tpot_limit)
    any_limit = ~np.isnan(ttft_limit) | ~np.isnan(tpot_limit)
    return Attainment(int(any_limit.sum()), _share(ttft_met, ~np.isnan(ttft_limit)),
                      _share(tpot_met, ~np.isnan(tpot_limit)), _share(ttft_met & tpot_met, any_limit))


def met(table: Table, slo: SLO | None = None) -> np.ndarray:
    """(rows,) bool: finished, and within every limit it had."""
    ttft_limit, tpot_limit = _limits(table, slo)
    return _kept(table, "ttft", ttft_limit) & _kept(table, "tpot", tpot_limit)


def _limits(table: Table, slo: SLO | None) -> tuple[np.ndarray, np.ndarray]:
    """TTFT and TPOT limit of each row; NaN: none."""
    if slo is None:
        return table["ttft_slo"], table["tpot_slo"]
    given = [np.nan if limit is None else limit for limit in (slo.ttft, slo.tpot)]
    return np.full(len(table), given[0]), np.full(len(table), given[1])


def _kept(table: Table, name: str, limits: np.ndarray) -> np.ndarray:
    """Finished, and not beyond the limit: without one nothing is, nor is a time that cannot be (TPOT of one token)."""
    return table.finished & ~(table[name] > limits)


def _share(kept: np.ndarray, counted: np.ndarray) -> float:
    return float(kept[counted].mean()) if counted.any() else float("nan")
