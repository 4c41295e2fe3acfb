"""The global scheduler: a pure function from reports and new requests to decisions.

It keeps no state, asks nobody and does nothing: what it says depends on what it is given. So it can be tested without
a cluster, replayed on a log of reports, and replaced by a fresh one when it dies. Sun et al., 2024 (Llumnix). Week 8.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmcourse.cluster.decisions import Decision, Dispatch
from llmcourse.cluster.dispatch import Dispatcher, RoundRobin
from llmcourse.cluster.rebalance import Rebalance
from llmcourse.cluster.report import LoadReport
from llmcourse.engine.request import Request

ONLY_DRAIN = Rebalance(below=float("-inf"))


class GlobalScheduler:
    """A dispatcher for what comes and, if there is one, a rule for what should move."""

    def __init__(self, dispatch: Dispatcher | None = None, rebalance: Rebalance | None = None) -> None:
        self.dispatch, self.rebalance = dispatch or RoundRobin(), rebalance

    def decide(self, reports: Sequence[LoadReport], pending: Sequence[tuple[int, Request]] = (),
               now: float = 0.0) -> list[Decision]:
        """A place for each of the pending ``(number, request)``, or, when none is pending, the migrations that are due.

        Requests placed before count for those placed after. Without an instance that takes requests nothing is placed.
        """
        open_to_all = [report for report in reports if not report.terminating]
        decisions: list[Decision] = []
        for number, request in pending if open_to_all else ():
            chosen = self.dispatch.choose(request, number, open_to_all)
            if chosen is None:
                continue
            decisions.append(Dispatch(request, chosen))
            open_to_all = [report.with_one_more(len(request.tokens)) if report.instance == chosen else report
                           for report in open_to_all] if len(pending) > 1 else open_to_all
        return decisions if pending else [*(self.rebalance or ONLY_DRAIN).pairs(reports)]
