"""Scale by a forecast: be there before they come, and keep a guard for the day that is not like yesterday.

An instance that takes a minute to start is a minute late under any rule that waits to be hurt. The load of a service
repeats daily, so the plainest forecast (seasonal naive) is good: at this time tomorrow it will be as it is now. It
decides how many should be ready when one started now would be; a reactive guard goes above that when memory fills.
SageServe (2025) forecasts with ARIMA and plans with an integer program, and has the same guard. A forecast that is too
high is paid for and nothing corrects it here: that day is in the week's map. Week 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from llmcourse.cluster.autoscale.base import Autoscaler
from llmcourse.cluster.autoscale.observed import Observed
from llmcourse.cluster.autoscale.reactive import utilisation
from llmcourse.cluster.report import LoadReport
from llmcourse.errors import UserError


@dataclass(frozen=True)
class Predictive(Autoscaler):
    """``rate``: requests/s that one instance serves well; ``season``: seconds after which the load repeats.

    ``before``: requests/s in each bin of the time before the start, the last one just before it. ``lead``: seconds
    that an instance takes to start. ``margin``: how many more than the forecast needs, as a share. Above ``guard`` of
    the memory in use one is added whatever was foretold; None: no guard.
    """

    rate: float = 4.0
    season: float = 86_400.0
    before: tuple[float, ...] = ()
    lead: float = 60.0
    margin: float = 0.1
    guard: float | None = 0.8

    def __post_init__(self) -> None:
        """Refuse what cannot be reckoned with."""
        super().__post_init__()
        if not (self.rate > 0 and self.season > 0 and self.lead >= 0):
            raise UserError(f"{self.rate} requests/s an instance, a season of {self.season} s, {self.lead} s ahead: "
                            "rate and season are above 0, lead is at least 0")
        if not (-1 < self.margin < inf and all(0 <= rate < inf for rate in self.before)):
            raise UserError(f"a margin of {self.margin}, and {len(self.before)} rates before the start: the margin is "
                            "a share above -1, and no rate below 0")
        if self.guard is not None and not self.guard > 0:
            raise UserError(f"guard is {self.guard} of the memory; give a share above 0, or None for no guard")

    def forecast(self, observed: Observed, now: float) -> float | None:
        """Requests/s expected from now until one that is started now has been there for a bin; None: nothing is known.

        The most of the bins that lie one season before.
        """
        series = (*self.before, *observed.history)
        first = len(self.before) + int((now - self.season) // observed.bin)
        last = len(self.before) + int((now + self.lead + observed.bin - self.season) // observed.bin)
        seen = series[max(0, first):max(0, last + 1)]
        return max(seen) if seen else None

    def wanted(self, reports: Sequence[LoadReport], observed: Observed, now: float) -> int:
        """What the forecast needs, and one more where memory fills."""
        have = len(reports) + len(observed.starting)
        expected = self.forecast(observed, now)
        planned = have if expected is None else ceil(expected * (1 + self.margin) / self.rate)
        load = sum(utilisation(report) for report in reports)
        if self.guard is not None and load > self.guard * have:
            return max(planned, have + 1)
        # Nobody leaves whom the guard would call back at once.
        holds = self.guard is None or load < 0.75 * self.guard * max(planned, 1)
        return planned if planned >= have or holds else have
