"""What the global scheduler believes: everybody's last report, corrected by what it has itself sent since that came.

Reports come every so often, take a while to arrive, and may be lost; then decisions are made on what was true some
time ago. What was sent while a report was on its way is in the next one only. Weeks 8 and 11.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from llmcourse.cluster.report import LoadReport
from llmcourse.errors import UserError
from llmcourse.kinds import check_fields


@dataclass(frozen=True)
class Reporting:
    """A report ``every`` so many seconds, ``delay`` seconds old when it is read; a share ``loss`` of them is lost."""

    every: float = 0.25
    delay: float = 0.0
    loss: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what never reports."""
        check_fields(self)
        if not self.every > 0 or self.delay < 0 or not 0 <= self.loss <= 1:
            raise UserError(f"reports every {self.every} s, {self.delay} s old and {self.loss:.0%} of them lost: give "
                            "a period above 0, a delay of at least 0, and a loss between 0 and 1")


class Board:
    """The last known report of each instance."""

    def __init__(self, reporting: Reporting) -> None:
        self.reporting, self._random = reporting, random.Random(reporting.seed)
        self._emptied: set[int] = set()
        self._known: dict[int, LoadReport] = {}
        self._coming: list[tuple[float, LoadReport]] = []     # sent, and not yet arrived

    def sent(self, report: LoadReport) -> None:
        """An instance reports: known at once, after the delay, or never. The first of each always arrives at once."""
        if report.instance not in self._known:
            self._known[report.instance] = report
        elif self._random.random() >= self.reporting.loss:
            self._coming.append((report.time + self.reporting.delay, report))

    def read(self, now: float) -> list[LoadReport]:
        """All instances, as far as is known by ``now`` (s), by number."""
        if self._coming:
            arrived = [report for time, report in self._coming if time <= now]
            self._coming = [(time, report) for time, report in self._coming if time > now]
            for report in arrived:
                if report.instance in self._known:
                    self._known[report.instance] = report._replace(
                        terminating=report.terminating or report.instance in self._emptied) if self._emptied else report
        return list(self._known.values())

    def placed(self, instance: int, prompt_tokens: int) -> None:
        """A request has been sent there, which no report tells yet."""
        self._known[instance] = self._known[instance].with_one_more(prompt_tokens)

    def emptied(self, instance: int) -> None:
        """It takes nothing new from now on."""
        self._emptied.add(instance)
        if instance in self._known:
            self._known[instance] = self._known[instance]._replace(terminating=True)

    def gone(self, instance: int) -> None:
        """It is dead: nothing is expected of it any more."""
        self._known.pop(instance, None)
        self._emptied.discard(instance)
