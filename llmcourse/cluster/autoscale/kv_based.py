"""Scale by freeness: how long the fleet has until it is full. Sun et al., 2024 (Llumnix). Weeks 8 and 10.

Freeness divides the free blocks by the running requests, so it is time, not space: a fleet half full of a few long
requests is not in a hurry, one half full of many is. Llumnix keeps the mean in a band of 10 to 60 blocks a request,
and empties whoever has the fewest requests by migration. It grows once the mean has been too low for a while; here one
look is enough, and the rests of base.py see to it that one need is not answered twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmcourse.cluster.autoscale.base import Autoscaler
from llmcourse.cluster.autoscale.observed import Observed
from llmcourse.cluster.report import LoadReport
from llmcourse.errors import UserError


@dataclass(frozen=True)
class KVBased(Autoscaler):
    """Keep the mean freeness (blocks per running request) between ``least`` and ``least + band``."""

    least: float = 10.0
    band: float = 50.0

    def __post_init__(self) -> None:
        """Refuse a band that is none."""
        super().__post_init__()
        if not self.band > 0:
            raise UserError(f"a band of {self.band} blocks; above 0, or the fleet grows and shrinks for ever")

    def wanted(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> int:
        """One more, one fewer, or as many as there are."""
        have = len(reports) + len(observed.starting)
        if not reports:
            return have
        mean = sum(report.freeness for report in reports) / len(reports)
        if mean < self.least and not observed.starting:       # who is starting will bring the mean up
            return have + 1
        return have - 1 if mean > self.least + self.band else have
