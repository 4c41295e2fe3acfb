"""Which instance should give a request to which: one rule that balances, makes room, keeps headroom and empties.

Everything is freeness (week 6): who has little is a source, who has much a destination, and the poorest is paired with
the richest. The first of the waiting counts as if it were there already, so an instance with a long prompt that does
not fit looks overloaded, and others move away until it fits; an instance that is to be emptied looks infinitely full.
Sun et al., 2024 (Llumnix). Week 8.

What keeps it from going round in circles: a pair is formed only while what moves leaves the destination better off than
the source was, an instance takes part in one migration at a time, and who has just arrived stays for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmcourse.cluster.decisions import Migrate
from llmcourse.cluster.report import LoadReport
from llmcourse.errors import UserError
from llmcourse.kinds import check_fields


@dataclass(frozen=True)
class Rebalance:
    """Sources have a freeness ``below``, destinations ``above`` (blocks per running request; None: the same).

    ``waiting``: requests without KV may move too. Who has come stays at least ``rest`` seconds. What would take more
    than ``most_seconds`` to carry is not worth it.
    """

    below: float = 3.0
    above: float | None = None
    waiting: bool = True
    rest: float = 1.0
    most_seconds: float = float("inf")

    def __post_init__(self) -> None:
        """Refuse thresholds under which an instance is a source and a destination at once, and time below 0."""
        check_fields(self)
        if self.rest < 0 or self.most_seconds < 0:
            raise UserError(f"a rest of {self.rest} s, and at most {self.most_seconds} s to carry; neither may be "
                            "below 0")
        if self.above is not None and self.above < self.below:
            raise UserError(f"destinations above {self.above} and sources below {self.below} overlap: requests would "
                            "go round in circles; let above be at least below")

    def pairs(self, reports: Sequence[LoadReport]) -> list[Migrate]:
        """Poorest with richest, next with next; each instance at most once."""
        floor = self.below if self.above is None else self.above
        idle = sorted((report for report in reports if not report.busy), key=lambda report: report.freeness)
        sources = [report for report in idle if self._is_source(report)]
        richest = [report for report in reversed(idle) if not report.preempted and report.freeness > floor]
        made = (self._pair(source, destination) for source, destination in zip(sources, richest, strict=False))
        return [pair for pair in made if pair.most_blocks > 0]

    def _is_source(self, report: LoadReport) -> bool:
        """Too full, or so full that somebody had to give way; nobody is, where no freeness is too little.

        Or to be emptied, while anybody is there: who is empty would keep the richest from others.
        """
        if report.terminating:
            return report.requests > 0
        return self.below > float("-inf") and (report.preempted > 0 or report.freeness < self.below)

    def _pair(self, source: LoadReport, destination: LoadReport) -> Migrate:
        left = destination.num_blocks - destination.virtual_blocks
        if source.terminating:
            return Migrate(source.instance, destination.instance, int(left), "drain")
        needs_room = source.head_blocks > source.free_blocks
        # The destination must stay above the threshold, with one request more to divide by.
        most = left - max(self.below, source.freeness) * (destination.running + 1)
        return Migrate(source.instance, destination.instance, int(most), "make room" if needs_room else "balance")
