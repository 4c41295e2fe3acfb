"""Many simulated engines in one virtual time.

Engines that do not talk to each other need not march in step: each is brought up to the moment of its next arrival and
no further, in as few jumps as its steps allow. So the cost of a simulation grows with the number of requests, whether
one engine serves them or a thousand. Weeks 3, 7 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from llmcourse.cluster.dispatch import Dispatch, RoundRobin
from llmcourse.engine.engine import Engine
from llmcourse.engine.replay import Requests, in_order
from llmcourse.errors import UserError
from llmcourse.metrics.table import Table

if TYPE_CHECKING:
    from llmcourse.workload.arrival import Arrival

NEVER = float("inf")
TOLD_EVERY = 1000                        # requests between two calls of progress


class VirtualDriver:
    """Serves a workload on several simulated engines; every arrival goes where ``dispatch`` says, and stays there."""

    def __init__(self, engines: Sequence[Engine], dispatch: Dispatch | None = None) -> None:
        if not engines:
            raise UserError("a cluster of no engines serves nobody; give at least 1")
        if any(engine.foresight is None for engine in engines):
            raise UserError("the virtual driver runs simulated engines; make them with Engine.simulated(...)")
        self.engines, self.dispatch = list(engines), dispatch or RoundRobin()

    def run(self, workload: Iterable[Arrival], *, declared: int | None = None, seed: int = 0,
            progress: Callable[[int], None] | None = None) -> Table:
        """Serve it all; one table of all requests, engine after engine. Arguments as for `engine.replay`."""
        requests = Requests(declared, seed)
        for number, arrival in enumerate(in_order(workload)):
            if self.dispatch.reads_load:
                for engine in self.engines:
                    run_until(engine, arrival.time)
            engine = self.engines[self.dispatch.choose(arrival, self.engines)]
            run_until(engine, arrival.time)
            requests.add(engine, arrival, arrival.time)
            if progress and number % TOLD_EVERY == 0:
                progress(number)
        for engine in self.engines:
            run_until(engine, NEVER)
        return Table.concat([engine.table() for engine in self.engines])


def run_until(engine: Engine, time: float) -> None:
    """Take every step that starts before ``time`` (s); an idle engine's clock is moved there."""
    while engine.clock.now < time and not engine.idle:
        if not engine.forward(time):
            engine.step()
    engine.take_ended()
    if engine.idle and engine.clock.now < time < NEVER:
        engine.clock.advance_to(time)
