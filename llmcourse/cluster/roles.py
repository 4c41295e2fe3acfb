"""Dispatch by role: who cannot wait first fills one instance after the other, who can takes what is left, or waits.

Spreading evenly leaves every instance a little busy, and nobody can tell how many are needed. So interactive requests
(priority 0 or less) go to the first instance with a seat, interactive ones before mixed, and instances beyond stay free
of them. Others go to batch instances, to mixed ones while memory is to spare, or to whoever is idle; else they wait in
front of the fleet, where an autoscaler sees them. Patke et al., 2025 (Chiron). Weeks 10 and 14.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmcourse.cluster.dispatch import Dispatcher
from llmcourse.cluster.report import LoadReport
from llmcourse.engine.request import Request

INTERACTIVE, MIXED, BATCH = "interactive", "mixed", "batch"


class ByRole(Dispatcher):
    """``seats`` interactive requests fill an instance; who can wait leaves a share ``spare`` of its blocks free.

    ``batch_seats``: requests of every kind beside which another who can wait is still let in.
    """

    def __init__(self, seats: int = 32, spare: float = 0.2, batch_seats: int = 128) -> None:
        self.seats, self.spare, self.batch_seats = seats, spare, batch_seats

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int | None:
        """The first that is not full, or the least full, for who cannot wait; who can may have to."""
        if request.priority <= 0:
            serving = sorted((report for report in reports if report.role != BATCH),
                             key=lambda report: (report.role == MIXED, report.instance)) or list(reports)
            seat = next((report for report in serving if _urgent(report) < self.seats), None)
            return (seat or min(serving, key=_urgent)).instance
        blocks = -(-len(request.tokens) // reports[0].block_size)
        for report in sorted(reports, key=lambda report: (report.role != BATCH, report.role != MIXED)):
            left = report.free_blocks - report.waiting_blocks - blocks
            room = (report.role in (BATCH, MIXED) and not report.preempted and report.requests < self.batch_seats
                    and left >= self.spare * report.num_blocks)
            if room or not report.requests:                   # whoever is idle takes anything: nobody waits for ever
                return report.instance
        return None


def _urgent(report: LoadReport) -> int:
    return report.urgent + report.waiting
