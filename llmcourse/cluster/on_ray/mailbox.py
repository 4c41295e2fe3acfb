"""Answers that are still to come, and what to do with each: the driver never waits for one of them alone.

A call to an actor returns a reference at once. The mailbox keeps references with what to do when they are answered, and
alarms with what to do when it is time; whoever advances it runs what is due, one after the other, in his own thread.
So the driver needs no locks, and its own state never changes behind its back. Week 7.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from llmcourse.cluster.link import NEVER


class Mailbox:
    """``expect`` answers and set alarms, then ``advance``. Times are what ``clock()`` says (s)."""

    def __init__(self, ray: Any, clock: Callable[[], float]) -> None:
        self.ray, self.clock = ray, clock
        self._expected: dict[Any, Callable[[Any], None]] = {}
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def expect(self, reference: Any, then: Callable[[Any], None]) -> None:
        """Call ``then(reference)`` when the reference has its answer, which may be an error."""
        self._expected[reference] = then

    def alarm(self, time: float, then: Callable[[], None]) -> None:
        """Call ``then()`` when it is ``time``."""
        heapq.heappush(self._alarms, (time, next(self._numbers), then))

    def advance(self, patience: float) -> bool:
        """Run all that is due; wait at most ``patience`` seconds for the first. Returns whether anything was."""
        until = self._alarms[0][0] - self.clock() if self._alarms else NEVER
        ready = self._ready(max(0.0, min(patience, until)))
        for reference in ready:
            self._expected.pop(reference)(reference)
        rang = False
        while self._alarms and self._alarms[0][0] <= self.clock():
            rang = True
            heapq.heappop(self._alarms)[2]()
        return bool(ready) or rang

    def _ready(self, patience: float) -> list[Any]:
        expected = list(self._expected)
        if not expected:
            return []
        # The answer of a copy is KV: it is seen to be there, and not fetched.
        some, _ = self.ray.wait(expected, num_returns=1, timeout=patience, fetch_local=False)
        return some and self.ray.wait(expected, num_returns=len(expected), timeout=0, fetch_local=False)[0]
