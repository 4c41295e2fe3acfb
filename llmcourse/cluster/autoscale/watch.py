"""Measures what an autoscaler is told: who comes, who waits, and how long the first tokens took.

It hears of every request when it arrives and finds its first token in the logs of the instances, or in their ledger
where no events are kept. So it knows what a monitor in front of a real fleet knows, and nothing of the future. Week 10.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from llmcourse.cluster.autoscale.observed import Observed
from llmcourse.engine.events import EventKind

if TYPE_CHECKING:
    from llmcourse.cluster.instance import Instance
    from llmcourse.engine.request import Request

OVER = (EventKind.NEW_TOKENS, EventKind.FINISHED, EventKind.ABORTED)


class _Asked(NamedTuple):
    arrival: float
    promised: float | None                                    # seconds to the first token


class Watch:
    """Over a ``window`` of seconds; arrivals are kept in ``bin``s of seconds for ever."""

    def __init__(self, window: float = 60.0, bin: float = 60.0) -> None:
        self.window, self.bin = window, bin
        self._open: dict[str, _Asked] = {}                    # no first token yet, in order of arrival
        self._answered: deque[tuple[float, float, bool | None]] = deque()    # time, TTFT, late (None: no promise)
        self._arrivals: deque[float] = deque()
        self._bins: list[int] = []
        self._read: dict[int, int] = {}                       # events read of each instance's log

    def asked(self, request: Request, now: float) -> None:
        """A request has come."""
        self.waits(request, now)
        self._arrivals.append(now)
        self._bins += [0] * (int(now // self.bin) + 1 - len(self._bins))
        self._bins[int(now // self.bin)] += 1

    def waits(self, request: Request, now: float) -> None:
        """It has no token yet, whenever it has come."""
        arrival = now if request.arrival is None else request.arrival
        for answer in request.siblings or (request,):
            self._open[answer.id] = _Asked(arrival, request.slo.ttft if request.slo else None)

    def gone(self, request_id: str) -> None:
        """It was given up, or failed."""
        self._open.pop(request_id, None)

    def look(self, instances: Iterable[Instance]) -> None:
        """Read what has happened since the last time."""
        for request_id, time in self._firsts(instances):
            asked = self._open.pop(request_id, None)
            if asked is not None and time is not None:
                late = None if asked.promised is None else time - asked.arrival > asked.promised
                self._answered.append((time, time - asked.arrival, late))

    def _firsts(self, instances: Iterable[Instance]) -> Iterator[tuple[str, float | None]]:
        for instance in instances:
            engine = instance.engine
            if engine.ledger is not None:
                yield from engine.ledger.take_firsts()
                continue
            log, read = engine.log, self._read.get(instance.number, 0)
            self._read[instance.number] = len(log)
            for event in log[read:] if self._open else ():
                if event.kind in OVER and event.request in self._open:
                    yield str(event.request), event.time if event.kind is EventKind.NEW_TOKENS else None

    def observed(self, now: float) -> Observed:
        """The window that ends now; what is starting, held and was last done is for whoever keeps the fleet to add."""
        start = now - self.window
        while self._arrivals and self._arrivals[0] <= start:
            self._arrivals.popleft()
        while self._answered and self._answered[0][0] <= start:
            self._answered.popleft()
        whole = int(now // self.bin)
        bins = [*self._bins, *[0] * (whole - len(self._bins))][:whole]
        oldest = next(iter(self._open.values()), None)
        promised = [late for _, _, late in self._answered if late is not None]
        overdue = sum(asked.promised is not None and now - asked.arrival > asked.promised
                      for asked in self._open.values())
        return Observed(self.window, len(self._arrivals) / min(self.window, max(now, 1.0)), self.bin,
                        tuple(count / self.bin for count in bins), tuple(ttft for _, ttft, _ in self._answered),
                        (sum(promised) + overdue) / max(1, len(promised) + overdue),
                        now - oldest.arrival if oldest else 0.0)
