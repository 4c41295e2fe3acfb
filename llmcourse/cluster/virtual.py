"""Many simulated engines in one virtual time.

Engines that do not talk to each other need not march in step: each is brought up to the moment at which somebody asks
it something, and no further, in as few jumps as its steps allow. Under round robin that is its next arrival. Where load
is read, everybody reports every so often, and an order of a migration concerns two. So the cost of a simulation grows
with the number of requests and reports, whether one engine serves them or a thousand. Weeks 3, 7 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from llmcourse.cluster.driver import Driver
from llmcourse.cluster.instance import Instance
from llmcourse.cluster.link import NEVER
from llmcourse.engine.clock import VirtualClock
from llmcourse.engine.engine import Engine
from llmcourse.engine.replay import Requests, in_order
from llmcourse.errors import UserError
from llmcourse.metrics.table import Table

if TYPE_CHECKING:
    from llmcourse.workload.arrival import Arrival

TOLD_EVERY = 1000                        # requests between two calls of progress


class VirtualDriver(Driver):
    """Options as for `Driver`. Each engine has a virtual clock of its own; new ones start at 0."""

    def __init__(self, instances: Sequence[Engine | Instance], *args: Any, **options: Any) -> None:
        engines = [each.engine if isinstance(each, Instance) else each for each in instances]
        self._time = max((engine.clock.now for engine in engines), default=0.0)
        super().__init__(instances, *args, **options)
        if len({id(engine.clock) for engine in engines if isinstance(engine.clock, VirtualClock)}) < len(engines):
            raise UserError("the virtual driver runs engines in virtual time, each on a VirtualClock of its own; make "
                            "them with Engine.simulated(...)")
        # How long an answer will be is the workload's secret, wherever the request lives.
        self._lengths: dict[str, int] = {}
        for engine in engines:
            self._lengths |= getattr(engine.executor, "lengths", {})
        for engine in engines:
            self._tell_lengths(engine)
        self.gateway.ended = self._ended

    def _ended(self, request_id: str, tokens: int) -> None:
        self.scheduler.dispatch.done(request_id, tokens)
        self._lengths.pop(request_id, None)

    def _tell_lengths(self, engine: Engine) -> None:
        if hasattr(engine.executor, "lengths"):
            engine.executor.lengths = self._lengths

    def join(self, number: int, engine: Engine) -> None:
        """See `Driver.join`: its time begins now."""
        others = [instance.engine for instance in self.instances.values()]
        if any(engine.clock is other.clock for other in others) or not isinstance(engine.clock, VirtualClock):
            raise UserError("build= must make each engine anew, on a VirtualClock of its own")
        self._tell_lengths(engine)
        engine.clock.advance_to(self.now)
        super().join(number, engine)

    def generate(self, *_: object, **__: object) -> NoReturn:
        """UserError: in a simulation answers have a length and no words."""
        raise UserError("a simulated cluster answers nobody; give run() a workload, or take driver='local' or 'ray'")

    def is_empty(self, instance: Instance) -> bool:
        """See `Driver.is_empty`; its last step is over too."""
        return super().is_empty(instance) and instance.engine.clock.now <= self.now

    @property
    def now(self) -> float:
        """The moment up to which everything has been decided."""
        return self._time

    @property
    def watches(self) -> bool:
        """Whether anybody must report."""
        return (self.scheduler.dispatch.reads_load or self.scheduler.rebalance is not None
                or self.fleet.autoscaler is not None or bool(self.fleet.held)
                or any(instance.terminating or instance.loop for instance in self.alive))

    @property
    def idle(self) -> bool:
        """Nobody has anything to do, and nothing is on its way."""
        return not (self.coordinator.flights or self.fleet.held) and all(each.engine.idle for each in self.alive)

    def reach(self, instance: Instance, time: float) -> float:
        """Take every step that starts before then."""
        run_until(instance.engine, time)
        self._hear(instance)
        return instance.engine.clock.now

    def advance(self, until: float = NEVER) -> bool:
        """Go to the next moment at which something is decided, or with everybody to ``until``; False when idle."""
        if self._next_due(until) <= until and self._decide(until):
            return True
        for instance in self.alive:
            self.reach(instance, until)
        self._time = until if until < NEVER else max(i.engine.clock.now for i in self.instances.values())
        return until < NEVER

    def _next_due(self, until: float) -> float:
        return min(self.coordinator.next_due(), self._ready_due(until), self._tick_due(until))

    def _ready_due(self, until: float) -> float:
        return self.fleet.next_due() if until < NEVER or not self.idle else NEVER

    def _tick_due(self, until: float) -> float:
        return self.next_tick if self.watches and (until < NEVER or not self.idle) else NEVER

    def _decide(self, until: float) -> bool:
        """Decide what is due next, if anything is up to ``until``."""
        due, ready = self.coordinator.next_due(), self._ready_due(until)
        time = max(self._time, self._next_due(until))
        if time == NEVER:
            return False
        self._time = time
        if due <= time:
            self.coordinator.advance(time)
            return True
        if ready <= time:
            self.fleet.advance(time)
            return True
        for instance in self.alive:
            self.reach(instance, time)
        self._tick(time)
        self.next_tick = time + self.board.reporting.every
        return True

    def run(self, workload: Iterable[Arrival], *, declared: int | None = None, seed: int = 0,
            progress: Callable[[int], None] | None = None) -> Table:
        """Serve a workload; one table of all requests. Arguments as for `engine.replay`."""
        requests = Requests(declared, seed)
        engine = next(iter(self.instances.values())).engine
        for number, arrival in enumerate(in_order(workload)):
            self.go_to(arrival.time)
            request = requests.make(arrival, arrival.time, engine.executor.limits.vocab_size, f"r{self.num_requests}")
            requests.hide(engine, arrival, request)
            self.add(request)
            if progress and number % TOLD_EVERY == 0:
                progress(number)
        self.finish()
        return self.table()

    def go_to(self, time: float) -> None:
        """Decide everything that is due up to a moment (s)."""
        while self._next_due(time) <= time:
            self._decide(time)
        self._time = max(self._time, time)

    def finish(self) -> None:
        """Serve until nothing is left to do."""
        while self.advance():
            pass


def run_until(engine: Engine, time: float) -> None:
    """Take every step that starts before ``time`` (s); an idle engine's clock is moved there.

    So is the clock of one that cannot take a step: what it waits for is on its way to or from another.
    """
    while engine.clock.now < time and not engine.idle:
        before = engine.clock.now
        if not engine.forward(time):
            engine.step()
        if engine.clock.now == before and engine.scheduler.transit.holds_blocks:
            break
    if engine.clock.now < time < NEVER:
        engine.clock.advance_to(time)
