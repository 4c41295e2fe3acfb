"""Several engines in this process, on one clock: each in turn takes a step, and migrations go on in between.

With real models it serves as one machine would that runs several instances: a step of one delays the others, but a copy
over the link does not. With mocked ones and a virtual clock the same code is exact and takes milliseconds. Week 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmcourse.cluster.driver import Driver
from llmcourse.cluster.instance import Delivery, Instance
from llmcourse.cluster.link import NEVER
from llmcourse.engine.engine import Engine
from llmcourse.engine.replay import Requests, in_order
from llmcourse.engine.request import Request, SamplingParams

if TYPE_CHECKING:
    from llmcourse.metrics.table import Table
    from llmcourse.workload.arrival import Arrival


class LocalDriver(Driver):
    """Options as for `Driver`. All engines are put on the first one's clock."""

    def __init__(self, instances: Sequence[Engine | Instance], *args: Any, **options: Any) -> None:
        super().__init__(instances, *args, **options)
        engines = [instance.engine for instance in self.instances.values()]
        self.clock = engines[0].clock
        for engine in engines:
            engine.clock = self.clock
        self.news: list[Delivery] = []                        # what clients have been sent since anybody looked

    @property
    def now(self) -> float:
        """Seconds of the clock that all engines share."""
        return self.clock.now

    def reach(self, instance: Instance, time: float) -> float:
        """Instances are always in the present, between two steps."""
        return self.now

    @property
    def idle(self) -> bool:
        """Nobody has anything to do, and nothing is on its way."""
        return not self.coordinator.flights and all(instance.engine.idle for instance in self.alive)

    def advance(self, until: float = NEVER) -> bool:
        """A step of each instance, and the orders that are due; False when idle.

        When nobody can take a step, time passes until something is due, or until ``until``.
        """
        if self.now >= self.next_tick:
            self._tick(self.now)
            self.next_tick = self.now + self.board.reporting.every
        self.coordinator.advance(self.now)
        worked = False
        for instance in self.alive:
            if not instance.engine.idle:
                worked |= bool(instance.engine.step())
                self._hear(instance)
        if worked:
            return True
        due = min(self.coordinator.next_due(), until)
        if not self.idle:
            due = min(due, self.next_tick)
        if due < NEVER:
            self.clock.advance_to(max(due, self.now))
        return due < NEVER or not self.idle

    def run(self, workload: Iterable[Arrival], *, seed: int = 0,
            progress: Callable[[int], None] | None = None) -> Table:
        """Serve a workload, whose times count from now; arguments as for `engine.replay`."""
        requests, start = Requests(None, seed), self.now
        vocabulary = next(iter(self.instances.values())).engine.executor.limits.vocab_size
        for arrival in in_order(workload):
            time = start + arrival.time
            while self.now < time:
                self.advance(time)
            self.add(requests.make(arrival, time, vocabulary))
            if progress:
                progress(self.num_requests)
        self.finish()
        return self.table()

    def finish(self) -> None:
        """Serve until nothing is left to do."""
        while not self.idle:
            self.advance()

    def generate(self, prompts: Sequence[str | Sequence[int]],
                 sampling: SamplingParams | None = None) -> list[list[int]]:
        """Serve all prompts together; the new tokens of each, in the order given."""
        engine = next(iter(self.instances.values())).engine
        requests = [self.add(Request(engine.tokens_of(prompt), sampling or SamplingParams())) for prompt in prompts]
        self.finish()
        return [self.tokens(request.id) for request in requests]

    def stream(self) -> Iterator[Delivery]:
        """Serve until idle, yielding what clients are sent; requests may be added and moved meanwhile."""
        while not self.idle or self.news:
            self.advance()
            news, self.news = self.news, []
            yield from news

    def _hear(self, instance: Instance) -> None:
        if self._keeps_events:
            self.news += self.gateway.hear(instance.hear())
