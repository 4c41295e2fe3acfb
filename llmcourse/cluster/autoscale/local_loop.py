"""The local loop: an instance that finds by itself how many requests it should run at once.

`BatchSize` (Patke et al., 2025: Chiron) says what follows from what was felt; here it is felt, and done. At reports of
its instance the loop reads how long requests have waited from token to token since the last change, and how many tokens
they got. Two things it does not learn from: a time in which more ran than now may, for a limit that falls takes no seat
away; and a time in which nobody waited for a seat, for more seats would have been empty. It stands beside the fleet's
loop, in every world: on Ray it runs inside the actor. Week 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from llmcourse.cluster.autoscale.batch_size import BatchSize
from llmcourse.engine.room import limit_seats, seated

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine
    from llmcourse.engine.log import Journal, StepReport, Stretch
    from llmcourse.engine.request import Request


class Pace:
    """A `Journal` that passes everything on to ``log``, and adds up the ``waited`` seconds of all ``gaps``.

    A gap is what lies between two tokens of a request that it got here, so a pause in which it was preempted counts.
    """

    def __init__(self, log: Journal) -> None:
        self.log = log
        self.tokens = self.gaps = 0
        self.waited = 0.0
        self._last: dict[str, float] = {}                     # when each request got its last token here

    def delivered(self, requests: Sequence[Request], time: float) -> None:
        """Tokens; equal gaps are added at once, as a stretch adds them."""
        self.log.delivered(requests, time)
        self._give(requests, time)

    def jumped(self, stretch: Stretch) -> None:
        """The tokens of all its steps."""
        self.log.jumped(stretch)
        self._give(stretch.decoding, stretch.ends[0])
        count = len(stretch.decoding)
        for before, after in pairwise(stretch.ends):
            self.waited += (after - before) * count
        self.gaps += count * (len(stretch.ends) - 1)
        self.tokens += count * (len(stretch.ends) - 1)
        self._last.update(dict.fromkeys([request.id for request in stretch.decoding], stretch.ends[-1]))

    def _give(self, requests: Sequence[Request], time: float) -> None:
        for last, group in groupby([self._last.get(request.id) for request in requests]):
            count = len(list(group))
            self.tokens += count
            if last is not None:
                self.gaps += count
                self.waited += (time - last) * count
        self._last.update(dict.fromkeys([request.id for request in requests], time))

    def take(self) -> tuple[int, int, float]:
        """Tokens, gaps and seconds waited since the last call."""
        taken = self.tokens, self.gaps, self.waited
        self.tokens, self.gaps, self.waited = 0, 0, 0.0
        return taken

    # ---- passed on ---------------------------------------------------------------------------------------------------

    def finished(self, request: Request, time: float) -> None:
        """No more tokens."""
        self.log.finished(request, time)
        self._last.pop(request.id, None)

    def aborted(self, request: Request, time: float, reason: str | None) -> None:
        """No more tokens."""
        self.log.aborted(request, time, reason)
        self._last.pop(request.id, None)

    def migrating(self, request: Request, time: float, stage: str, blocks: Sequence[int]) -> None:
        """No more tokens here, once it has left."""
        self.log.migrating(request, time, stage, blocks)
        if stage == "released":
            self._last.pop(request.id, None)

    def queued(self, request: Request) -> None:
        """Passed on."""
        self.log.queued(request)

    def scheduled(self, request: Request, time: float, restored: int) -> None:
        """Passed on."""
        self.log.scheduled(request, time, restored)

    def preempted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """Passed on."""
        self.log.preempted(request, time, freed, saved)

    def parked(self, request: Request, time: float) -> None:
        """Passed on."""
        self.log.parked(request, time)

    def evicted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """Passed on."""
        self.log.evicted(request, time, freed, saved)

    def stepped(self, step: StepReport) -> None:
        """Passed on."""
        self.log.stepped(step)


class LocalLoop:
    """Of one ``engine``, from the size of ``batch`` on; never above what a step of the engine can give a token each.

    ``sizes``: since when (s) how many might run.
    """

    def __init__(self, engine: Engine, batch: BatchSize) -> None:
        most = min(batch.most, engine.scheduler.token_budget)
        self.engine = engine
        self.batch = replace(batch, most=most, size=min(batch.size, most), least=min(batch.least, most))
        log = engine.scheduler.log
        self.pace = engine.scheduler.log = log if isinstance(log, Pace) else Pace(log)
        self.sizes: list[tuple[float, int]] = []
        self._since = engine.clock.now
        self._limit()

    def adjust(self) -> None:
        """Set how many may run from now on, if enough was felt since the last change."""
        scheduler, now = self.engine.scheduler, self.engine.clock.now
        taken, seconds = seated(scheduler), now - self._since
        if taken <= self.batch.size and seconds < self.batch.window:
            return
        tokens, gaps, waited = self.pace.take()
        self._since = now
        short = taken == self.batch.size and len(scheduler.waiting) > 0
        if gaps and seconds > 0 and taken <= self.batch.size and (short or waited > self.batch.itl * gaps):
            self.batch = self.batch.next(waited / gaps, tokens / seconds)
            self._limit()

    def _limit(self) -> None:
        limit_seats(self.engine.scheduler, self.batch.size)
        if not self.sizes or self.sizes[-1][1] != self.batch.size:
            self.sizes.append((self.engine.clock.now, self.batch.size))
