"""Several engines in this process, on one clock: each in turn takes a step, and migrations go on in between.

With real models it serves as one machine would that runs several instances: a step of one delays the others, but a copy
over the link does not. With mocked ones and a virtual clock the same code is exact and takes milliseconds. Week 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmcourse.cluster.books import Books
from llmcourse.cluster.driver import Driver
from llmcourse.cluster.gateway import Stream
from llmcourse.cluster.instance import Delivery, Instance
from llmcourse.cluster.link import NEVER
from llmcourse.cluster.serving import Serving
from llmcourse.engine.clock import VirtualClock
from llmcourse.engine.engine import Engine


class LocalDriver(Serving, Driver):
    """Options as for `Driver`. All engines are put on the first one's clock."""

    def __init__(self, instances: Sequence[Engine | Instance], *args: Any, **options: Any) -> None:
        engines = [each.engine if isinstance(each, Instance) else each for each in instances]
        self.clock = engines[0].clock if engines else VirtualClock()
        for engine in engines:
            engine.clock = self.clock
        super().__init__(instances, *args, **options)
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
        return not (self.coordinator.flights or self.fleet.held) and all(each.engine.idle for each in self.alive)

    def join(self, number: int, engine: Engine) -> None:
        """See `Driver.join`: it is put on the clock of all."""
        engine.clock = self.clock
        super().join(number, engine)

    def advance(self, until: float = NEVER) -> bool:
        """A step of each instance, and the orders that are due; False when idle.

        When nobody can take a step, time passes until something is due, or until ``until``.
        """
        self.fleet.advance(self.now)
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
        if not self.idle or (self.fleet.autoscaler is not None and until < NEVER):
            due = min(due, self.next_tick, self.fleet.next_due())
        if due < NEVER:
            self.clock.advance_to(max(due, self.now))
        return due < NEVER or not self.idle

    def recover(self, books: Books | None = None, streams: Mapping[str, Stream] | None = None) -> list[Delivery]:
        """See `Driver.recover`."""
        self.news += (news := super().recover(books, streams))
        return news

    def _hear(self, instance: Instance) -> list[Delivery]:
        self.news += (news := super()._hear(instance))
        return news
