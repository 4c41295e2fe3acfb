"""The two worlds in which a request is moved: simulated, and real. Both give the same `Trial`s (_moving.py).

Simulated: Llama 2 7B on two A10 with eight other requests decoding on each. Real: course-tiny on two engines in this
process with eight others on the source, over a link that is held back.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks._moving import AFTER, BLOCK, OTHERS, WARM, Run, Trial, arrivals, crowd, trial, watch
from llmcourse.cluster import Dispatcher, Instance, Link, LoadReport, LocalDriver, Terms, VirtualDriver
from llmcourse.engine import Engine, Request, WallClock
from llmcourse.executors.torch import TorchExecutor
from llmcourse.kv import BlockPool
from llmcourse.model.loading import load_model

PHASES = (0.0, 0.2, 0.4, 0.6, 0.8)                # simulated: how far the destination's steps lie behind the source's
STEP, LOOK = 0.035, 0.004                         # about a step of virtual time, and when one looks again (s)


class Placed(Dispatcher):
    """Request ``number`` goes to ``places[number]``."""

    reads_load = False

    def __init__(self, places: list[int]) -> None:
        self.places = places

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        return self.places[number]


class ProcessorClock:
    """CPU seconds of this process, and what was waited for, which is skipped: what others run here does not count.

    For one thread on a quiet machine this is wall time, but that nobody really waits for the link.
    """

    def __init__(self) -> None:
        self._skipped = -time.process_time()

    @property
    def now(self) -> float:
        """Seconds since this clock was made."""
        return time.process_time() + self._skipped

    def advance(self, seconds: float) -> None:
        """Computing has taken its time by itself."""

    def advance_to(self, time: float) -> None:
        """Skip to then."""
        self._skipped += max(0.0, time - self.now)


class Timed(Instance):
    """An instance that counts the CPU seconds of what it does for migrations as their source."""

    spent = 0.0

    def _timed(self, verb: Any, *arguments: Any) -> Any:
        started = time.thread_time()
        try:
            return verb(*arguments)
        finally:
            self.spent += time.thread_time() - started

    def look(self, request_id: str) -> Any:
        return self._timed(super().look, request_id)

    def read(self, request_id: str, first: int, last: int) -> Any:
        return self._timed(super().read, request_id, first, last)

    def stop(self, request_id: str, keep: bool = True) -> Any:
        return self._timed(super().stop, request_id, keep)

    def release(self, request_id: str) -> None:
        self._timed(super().release, request_id)


# ---- simulated ---------------------------------------------------------------------------------------------------

@dataclass
class Simulated:
    """Llama 2 7B on two A10 with 13,616 token slots each, as in Sun et al., 2024; eight others on each of both."""

    link: Link = field(default_factory=Link)
    terms: Terms = field(default_factory=lambda: Terms(BLOCK))
    slots: int = 13_616
    others_prompt: int = 256
    others_most: int = 2000

    def run(self, length: int, method: str | None, phase: float = 0.0, until: float = 0.0) -> Run:
        """A request of that length, moved as soon as it has 16 tokens; without a method: undisturbed until then (s).

        ``phase`` is how much later the destination begins its steps than the source, in steps.
        """
        engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=self.slots // BLOCK) for _ in range(2)]
        driver = VirtualDriver(engines, Placed([0] * (OTHERS + 1) + [1] * OTHERS), link=self.link, terms=self.terms)
        sizes = [(self.others_prompt, self.others_most)] * OTHERS
        chosen = crowd(driver, [*sizes, (length - WARM, 400)], 100)
        self._go(driver, phase * STEP)
        crowd(driver, sizes, 100)
        while len(driver.tokens(chosen)) < WARM:
            self._go(driver, driver.now + LOOK)
        begun = driver.now
        migration = driver.migrate(chosen, 1, method) if method else None
        watch(driver, chosen, migration, lambda: self._go(driver, driver.now + LOOK), AFTER)
        while driver.now < until:
            self._go(driver, driver.now + LOOK)
        return Run(arrivals(driver), driver.tokens(chosen), begun, migration)

    def _go(self, driver: VirtualDriver, until: float) -> None:
        driver.go_to(until)
        for instance in driver.alive:
            driver.reach(instance, until)

    def trials(self, length: int, methods: tuple[str, ...]) -> dict[str, list[Trial]]:
        """Every method at every phase, against one undisturbed run: the source knows nothing of phases."""
        runs = {method: [self.run(length, method, phase) for phase in PHASES] for method in methods}
        last = max(max(run.times["r0"]) for each in runs.values() for run in each)
        base = self.run(length, None, until=last + 1.0)
        return {method: [trial(run, [base]) for run in each] for method, each in runs.items()}


# ---- real --------------------------------------------------------------------------------------------------------

@dataclass
class Real:
    """course-tiny on two engines of this process, its longest text raised so that 2,048 tokens fit.

    Its weights were trained on texts of 1,024 tokens: what it says behind them means nothing, what it costs does. The
    destination has no others: in one process its steps would delay the source's, and so hide what the move does.
    """

    link: Link = field(default_factory=lambda: Link(50e6))
    terms: Terms = field(default_factory=lambda: Terms(BLOCK))
    repeats: int = 5
    num_blocks: int = 512
    others_prompt: int = 64
    others_most: int = 600
    wall: bool = False                            # wall time instead of this process's
    undisturbed: int = 90                         # tokens behind the begin that an undisturbed run is watched

    def __post_init__(self) -> None:
        model, _ = load_model("course-tiny", device="cpu")
        model.config = replace(model.config, max_length=4096)
        self.executors = [TorchExecutor(model, self.num_blocks, BLOCK, threads=1) for _ in range(2)]

    def run(self, length: int, method: str | None) -> Run:
        """A request of that length, moved as soon as it has 16 tokens; without a method: undisturbed."""
        clock = WallClock() if self.wall else ProcessorClock()
        instances = [Timed(number, Engine(executor, BlockPool(self.num_blocks, BLOCK), clock=clock))
                     for number, executor in enumerate(self.executors)]
        driver = LocalDriver(instances, Placed([0] * (OTHERS + 1)), link=self.link, terms=self.terms)
        sizes = [(self.others_prompt, self.others_most)] * OTHERS + [(length - WARM, 400)]
        chosen = crowd(driver, sizes, self.executors[0].limits.vocab_size)
        while len(driver.tokens(chosen)) < WARM:
            driver.advance()
        begun = driver.now
        migration = driver.migrate(chosen, 1, method) if method else None
        watch(driver, chosen, migration, driver.advance, AFTER if migration else self.undisturbed)
        return Run(arrivals(driver), driver.tokens(chosen), begun, migration, instances[0].spent)

    def trials(self, length: int, methods: tuple[str, ...]) -> dict[str, list[Trial]]:
        """So many rounds, in each an undisturbed run and every method: what slows the machine slows all of them."""
        self.run(length, methods[0])              # the first is for warming up
        bases, runs = [], {method: list[Run]() for method in methods}
        for _ in range(self.repeats):
            bases.append(self.run(length, None))
            for method in methods:
                runs[method].append(self.run(length, method))
        return {method: [trial(run, bases) for run in each] for method, each in runs.items()}
