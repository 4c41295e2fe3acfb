"""Scale by utilisation: what every cloud offers, here on KV memory.

A GPU that decodes for one request is as busy as one that decodes for a hundred, so its utilisation says nothing; the
share of KV blocks in use does. Above ``high`` the fleet grows in proportion (instances x utilisation / target, the rule
of Kubernetes' pod autoscaler); below ``low`` it shrinks by one, if the rest would stay below ``high`` with what that
one had. Blind to what was promised to whom: Chiron and SageServe (2025) are measured against it. Week 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from llmcourse.cluster.autoscale.base import Autoscaler
from llmcourse.cluster.autoscale.observed import Observed
from llmcourse.cluster.report import LoadReport
from llmcourse.errors import UserError


@dataclass(frozen=True)
class Reactive(Autoscaler):
    """Keep the mean share of blocks in use or waited for between ``low`` and ``high``."""

    high: float = 0.7
    low: float = 0.3

    def __post_init__(self) -> None:
        """Refuse a band that is none."""
        super().__post_init__()
        if not 0 <= self.low < self.high:
            raise UserError(f"utilisation between {self.low} and {self.high}: give shares, the lower one first")

    def wanted(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> int:
        """As many as bring the mean back to the middle of the band."""
        have = len(reports) + len(observed.starting)
        load = sum(utilisation(report) for report in reports)
        mean = load / max(1, have)
        if mean > self.high:
            return ceil(load / ((self.low + self.high) / 2))
        if mean < self.low and load / max(1, have - 1) < self.high:
            return have - 1
        return have


def utilisation(report: LoadReport) -> float:
    """Share of the blocks that are in use or waited for; above 1 when not everybody fits."""
    return (report.used_blocks + report.waiting_blocks) / report.num_blocks
