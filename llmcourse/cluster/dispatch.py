"""Which instance gets the next request: the oldest answer, and the first that looks.

Round robin knows nothing of the instances, so a simulation need not even bring them to the same moment. Counting
requests needs a look at each, and is blind to how long they are. Weeks 7 and 8 have better ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcourse.engine.engine import Engine

if TYPE_CHECKING:
    from llmcourse.workload.arrival import Arrival


class Dispatch:
    """Chooses an instance for each arrival. ``reads_load``: it looks at the engines, which must then be up to date."""

    reads_load = False

    def choose(self, arrival: Arrival, engines: Sequence[Engine]) -> int:
        """Index of the engine that gets it."""
        raise NotImplementedError


class RoundRobin(Dispatch):
    """Each in turn."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, arrival: Arrival, engines: Sequence[Engine]) -> int:
        """The one after the last."""
        index, self._next = self._next, (self._next + 1) % len(engines)
        return index


class LeastRequests(Dispatch):
    """Whoever has the fewest requests waiting and running; the first of several."""

    reads_load = True

    def choose(self, arrival: Arrival, engines: Sequence[Engine]) -> int:
        """The least loaded, by count."""
        return min(range(len(engines)), key=lambda i: _requests(engines[i]))


def _requests(engine: Engine) -> int:
    return len(engine.scheduler.waiting) + len(engine.scheduler.running)
