"""What all autoscalers share: how many instances there may be, how often that may change, and who leaves.

An autoscaler is a pure function, as the global scheduler is: `decide` sees reports and what was observed, and answers
with `ScaleUp` and `Drain`. A rule only says how many instances it wants (`wanted`); bounds and two rests stand here, so
no rule can flap: nobody is drained within ``down_after`` seconds of any change, and nobody is started within
``up_after`` seconds of the last start. Instances that are still starting count as if they were there, or the same need
would be answered twice. Those that are being emptied take up a machine until they are gone. Week 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmcourse.cluster.autoscale.observed import Observed
from llmcourse.cluster.decisions import Drain, ScaleUp
from llmcourse.cluster.report import LoadReport
from llmcourse.errors import UserError
from llmcourse.kinds import check_fields

Scaling = ScaleUp | Drain


@dataclass(frozen=True, kw_only=True)
class Autoscaler:
    """Between ``fewest`` and ``most`` instances, started from ``tier`` ("": the fleet's own)."""

    fewest: int = 1
    most: int = 16
    up_after: float = 15.0
    down_after: float = 60.0
    tier: str = ""

    def __post_init__(self) -> None:
        """Refuse what is of another kind, and bounds that no fleet keeps."""
        check_fields(self)
        if not 1 <= self.fewest <= self.most:
            raise UserError(f"a fleet of {self.fewest} to {self.most} instances; give at least 1, and no more as the "
                            "fewest than as the most")
        if self.up_after < 0 or self.down_after < 0:
            raise UserError(f"rests of {self.up_after} s and {self.down_after} s; give seconds from 0")

    @property
    def machines(self) -> int:
        """The most there may ever be at once."""
        return self.most

    def wanted(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> int:
        """How many instances there should be; ``reports`` of those that take requests. Bounds are not its business."""
        raise NotImplementedError

    def decide(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> list[Scaling]:
        """What to change now (s); mostly nothing."""
        takes = [report for report in reports if not report.terminating]
        have = len(takes) + len(observed.starting)
        free = self.most - len(reports) - len(observed.starting)
        if have < self.fewest and free > 0:                   # somebody has died: that waits for no rest
            return [ScaleUp(min(self.fewest - have, free), self.tier)]
        wanted = min(max(self.wanted(takes, observed, now), self.fewest), self.most)
        if wanted > have and free > 0 and now - observed.last_up >= self.up_after:
            return [ScaleUp(min(wanted - have, free), self.tier)]
        rested = now - max(observed.last_up, observed.last_down) >= self.down_after
        if wanted < have and rested and not observed.starting:
            return [Drain(report.instance) for report in emptiest(takes)[:have - wanted]]
        return []


def emptiest(reports: Sequence[LoadReport]) -> list[LoadReport]:
    """Who has fewest requests first; of equals, who came last."""
    return sorted(reports, key=lambda report: (report.requests, report.used_blocks, -report.instance))
