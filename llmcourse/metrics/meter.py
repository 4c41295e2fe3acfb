"""A ledger that also watches how full the machine is: utilisation without an event log.

It adds up what `utilisation` would read from the STEP events (requests, tokens, queue and KV blocks, times the seconds
of each step), and so a run of a million requests can say how busy, how full and how long its queue was. Week 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcourse.errors import UserError
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.utilisation import Utilisation, reckoned

if TYPE_CHECKING:
    from llmcourse.engine.log import StepReport, Stretch
    from llmcourse.engine.request import Request

NEVER = float("inf")


class Meter(Ledger):
    """A `Ledger` with four sums more: give one to each engine, read them with `metered`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = NEVER, -NEVER
        self.steps, self.kv_peak = 0, 0.0
        self.sums = [0.0, 0.0, 0.0, 0.0]            # requests, tokens, waiting, KV share: each times seconds

    def queued(self, request: Request) -> None:
        """The run begins with the first arrival."""
        super().queued(request)
        self.first = min(self.first, request.arrival or 0.0)
        self.last = max(self.last, request.arrival or 0.0)

    def stepped(self, step: StepReport) -> None:
        """Add one step."""
        super().stepped(step)
        batch = step.batch
        self._add(step.end - step.start, 1, len(batch.items), batch.num_tokens, step.waiting)
        self._add_memory(step.end - step.start, step.used_blocks / step.num_blocks)
        self.last = max(self.last, step.end)

    def jumped(self, stretch: Stretch) -> None:
        """Add many: only the memory in use changes from one to the next."""
        super().jumped(stretch)
        seconds, start, used = stretch.ends[-1] - stretch.start, stretch.start, stretch.used_blocks
        decodes, chunk = len(stretch.decoding), stretch.prompt[1] if stretch.prompt else 0
        self._add(seconds, len(stretch.ends), decodes + bool(chunk), decodes + chunk, stretch.waiting)
        for i in sorted(stretch.grown) if stretch.takes else ():       # between two growths the memory in use stays
            before = stretch.ends[i - 1] if i else stretch.start
            self._add_memory(before - start, used / stretch.num_blocks)
            start, used = before, used + sum(len(blocks) for _, blocks in stretch.grown[i])
        self._add_memory(stretch.ends[-1] - start, used / stretch.num_blocks)
        self.last = max(self.last, stretch.ends[-1])

    def aborted(self, request: Request, time: float, reason: str | None) -> None:
        """The run may end with somebody leaving."""
        super().aborted(request, time, reason)
        self.last = max(self.last, time)

    def _add(self, seconds: float, steps: int, requests: int, tokens: int, waiting: int) -> None:
        if seconds > 0:
            self.steps += steps
            for place, amount in enumerate((requests, tokens, waiting)):
                self.sums[place] += seconds * amount

    def _add_memory(self, seconds: float, share: float) -> None:
        if seconds > 0:
            self.sums[3] += seconds * share
            self.kv_peak = max(self.kv_peak, share)


def metered(meters: Sequence[Meter], max_running: int | None = None, token_budget: int | None = None) -> Utilisation:
    """Utilisation of the engines that kept these meters (the instances of a service), as of their event logs."""
    busy = sum(meter.busy for meter in meters)
    if not busy:
        raise UserError("no step was run; there is nothing that could have been full")
    seconds = max(meter.last for meter in meters) - min(meter.first for meter in meters)
    means = [sum(column) / busy for column in zip(*(meter.sums for meter in meters), strict=True)]
    return reckoned(len(meters), sum(meter.steps for meter in meters), seconds, busy, means,
                    max(meter.kv_peak for meter in meters), max_running, token_budget)
