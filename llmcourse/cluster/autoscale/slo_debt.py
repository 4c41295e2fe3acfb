"""Scale by what is owed: few spare instances for who cannot wait, more only when those who can would be late.

A long queue is no reason to grow if nobody in it is promised anything soon, and an idle instance no reason to shrink if
the next second brings people. Chiron (Patke et al., 2025) tells both apart. Instances are ``interactive``, ``mixed`` or
``batch``. Interactive backpressure (IBP) is the share of the first two that run interactive requests: kept near
``theta``, there is always room for a burst while others start, and batch requests use it meanwhile. Batch backpressure
(BBP) is the number of waiting groups whose estimated wait (QLM's estimator) would pass their promise: as few batch
instances are added as bring it to 0, all at once, and all leave when nothing waits. Weeks 10 and 14.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from llmcourse.cluster.autoscale.base import Autoscaler, Scaling
from llmcourse.cluster.autoscale.observed import Observed
from llmcourse.cluster.decisions import Drain, ScaleUp
from llmcourse.cluster.report import LoadReport
from llmcourse.cluster.roles import BATCH, MIXED
from llmcourse.errors import UserError
from llmcourse.metrics.waiting_time import Group, waiting_time


@dataclass(frozen=True)
class SLODebt(Autoscaler):
    """Bounds and rests hold for interactive and mixed instances together; ``most_batch`` for the others.

    ``theta`` and ``band``: IBP is kept between theta - band and theta + band. ``output`` and ``variance`` of the output
    tokens of a request that waits, ``throughput`` output tokens/s of a full batch instance: profiled beforehand, as in
    QLM. ``sure``: the probability with which a group is to be in time. ``lead``: seconds an instance takes to start.
    """

    theta: float = 0.6
    band: float = 0.15
    output: float = 200.0
    variance: float = 0.0
    throughput: float = 1000.0
    most_batch: int = 16
    sure: float = 0.95
    lead: float = 60.0

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        super().__post_init__()
        if not (0 < self.theta <= 1 and 0 <= self.band < self.theta and self.throughput > 0):
            raise UserError(f"theta {self.theta} with a band of {self.band}, {self.throughput} tokens/s: give 0 < "
                            "theta <= 1, a narrower band, and a throughput above 0")
        if not (0 < self.output < inf and 0 <= self.variance < inf and 0 < self.sure < 1 and self.lead >= 0
                and self.most_batch >= 0):
            raise UserError(f"output {self.output}, variance {self.variance}, sure {self.sure}, lead {self.lead} s, "
                            f"most_batch {self.most_batch}: give tokens above 0, a probability between 0 and 1, and "
                            "for the others 0 or more")

    @property
    def machines(self) -> int:
        """See `Autoscaler`: of all kinds together."""
        return self.most + self.most_batch

    def decide(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> list[Scaling]:
        """Both loops; neither waits for the other."""
        serving = [report for report in reports if report.role != BATCH]
        coming = tuple(role for role in observed.starting if role != BATCH)
        changes = super().decide(serving, observed._replace(starting=coming), now)
        return [ScaleUp(change.count, change.tier, MIXED) if isinstance(change, ScaleUp) else change
                for change in changes] + self._batch(reports, observed, now)

    def interactive_pressure(self, reports: Sequence[LoadReport], coming: int = 0) -> float:
        """IBP: share of interactive and mixed instances, those ``coming`` included, with interactive requests."""
        return sum(report.urgent > 0 for report in reports) / max(1, len(reports) + coming)

    def wanted(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> int:
        """As many as bring IBP back to theta."""
        have, busy = len(reports) + len(observed.starting), sum(report.urgent > 0 for report in reports)
        pressure = self.interactive_pressure(reports, len(observed.starting))
        if self.theta - self.band <= pressure <= self.theta + self.band:
            return have
        needed = ceil(busy / self.theta)
        return max(have + 1, needed) if pressure > self.theta else min(have, max(needed, have - 1))

    # ---- who can wait ----------------------------------------------------------------------------------------------

    def batch_pressure(self, observed: Observed, rate: float, start: float) -> int:
        """BBP: groups that would get their first token too late if ``rate`` tokens/s served them from ``start`` (s)."""
        if not rate > 0:
            return len(observed.held)                         # who is served by nobody is late, whatever was promised
        late, ahead = 0, list[Group]()
        for held in observed.held:
            ahead.append(Group(held.count, self.output, self.variance))
            late += start + waiting_time(ahead, rate).quantile(self.sure) > held.deadline
        return late

    def _batch(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> list[Scaling]:
        batch = [report for report in reports if report.role == BATCH and not report.terminating]
        coming = sum(role == BATCH for role in observed.starting)
        if not observed.held:
            others = any(report.role != BATCH and not report.terminating for report in reports)
            done = others and not coming and not any(report.waiting for report in batch)
            return [Drain(report.instance) for report in batch] if done else []
        spare = self.throughput * sum(report.free_blocks / report.num_blocks for report in reports
                                      if report.role == MIXED and not report.terminating)
        have = len(batch) + coming
        if not self.batch_pressure(observed, spare + self.throughput * have, now):
            return []
        room = self.most_batch - sum(report.role == BATCH for report in reports) - coming
        for more in range(1, room + 1):                       # the fewest that help, or all there may be
            if more == room or not self.batch_pressure(observed, spare + self.throughput * (have + more),
                                                       now + self.lead):
                return [ScaleUp(more, self.tier, BATCH)]
        return []
