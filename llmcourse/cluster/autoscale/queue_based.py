"""Scale by who waits: a queue is what users feel, and it is zero until it is too late.

Utilisation guesses at waiting, a queue is waiting. But an instance that is not yet late shows nothing, so this rule
starts machines when the first have already waited, and what starts takes a while. Week 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from llmcourse.cluster.autoscale.base import Autoscaler
from llmcourse.cluster.autoscale.observed import Observed
from llmcourse.cluster.autoscale.reactive import utilisation
from llmcourse.cluster.report import LoadReport
from llmcourse.errors import UserError


@dataclass(frozen=True)
class QueueBased(Autoscaler):
    """Grow when somebody has waited longer than ``wait`` seconds, by one for each ``queue`` who wait (at least one).

    Shrink by one when nobody waits and the rest would hold all there is in ``full`` of their memory.
    """

    wait: float = 1.0
    queue: int = 8
    full: float = 0.6

    def __post_init__(self) -> None:
        """Refuse a queue of nobody."""
        super().__post_init__()
        if self.wait < 0 or self.queue < 1 or not self.full > 0:
            raise UserError(f"wait {self.wait} s, queue {self.queue}, full {self.full}: give seconds from 0, at least "
                            "1 request, and a share above 0")

    def wanted(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> int:
        """More while it takes too long, fewer while nobody waits at all."""
        have = len(reports) + len(observed.starting)
        waiting = sum(report.waiting for report in reports)
        if observed.longest_wait > self.wait:
            return max(have, len(reports) + max(1, ceil(waiting / self.queue)))
        load = sum(utilisation(report) for report in reports)
        return have - 1 if not waiting and load < self.full * (have - 1) else have
