"""Play a workload into an engine: the same loop in real time and in virtual time.

Arrivals become requests when their moment has come, not earlier: a service does not know its future. Output lengths are
forced to the arrival's, so that every policy and every world serves the same work. In virtual time nobody waits, and
stretches of equal steps are jumped over. Weeks 3-5.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from llmcourse.engine.batch import NO_VOCABULARY
from llmcourse.engine.engine import Engine
from llmcourse.engine.request import Request, SamplingParams
from llmcourse.errors import UserError
from llmcourse.workload.arrival import BLOCK_TOKENS

if TYPE_CHECKING:
    from llmcourse.metrics.table import Table
    from llmcourse.workload.arrival import Arrival

NEVER = float("inf")
OWN = 2**40                              # in a simulation, an id from here on belongs to one request only


class Closed(Protocol):
    """A workload whose next request waits for the last one's answer (`workload.ClosedLoop`)."""

    def start(self) -> list[Arrival]:
        """The first requests, sorted by time."""
        ...

    def after(self, now: float) -> Arrival | None:
        """What comes next because a request ended at ``now`` seconds; None when that user has had enough."""
        ...


def replay(engine: Engine, workload: Iterable[Arrival] | Closed, *, declared: int | None = None, seed: int = 0,
           progress: Callable[[int], None] | None = None, stop: Callable[[], bool] | None = None) -> Table:
    """Serve the whole workload and return the table of what each request lived through.

    Times of arrivals count from now. ``declared`` is the ``max_tokens`` each request asks for in a simulation, where
    the arrival's output length then stays hidden from the scheduler; None: it asks for what it will get. ``seed`` draws
    prompts (random token ids). ``progress`` is told how many requests have ended, ``stop`` may end it early.
    """
    feed = _Feed(engine, workload, Requests(declared, seed))
    while not (stop and stop()):
        feed.add_due()
        if progress:
            progress(feed.num_ended)
        if not engine.idle:
            if not engine.forward(feed.next_time):
                engine.step()
            feed.take_ended()
        elif feed.next_time < NEVER:
            engine.clock.advance_to(max(feed.next_time, engine.clock.now))
        else:
            break
    return engine.table()


class _Feed:
    """Arrivals in order of time, from a list, a generator or a closed loop, each added to the engine when it is due."""

    def __init__(self, engine: Engine, workload: Iterable[Arrival] | Closed, requests: Requests) -> None:
        self.engine, self.requests, self.start = engine, requests, engine.clock.now
        self.num_ended = 0
        self.loop: Closed | None = workload if hasattr(workload, "after") else None      # type: ignore[assignment]
        self.known = sorted(self.loop.start(), key=_time, reverse=True) if self.loop else []     # latest first
        self.source = iter(()) if self.loop else in_order(workload)                      # type: ignore[arg-type]
        self._show(self._pop())

    def add_due(self) -> None:
        """Add every arrival whose time has come."""
        while self.next is not None and self.next_time <= self.engine.clock.now:
            arrival, time = self.next, self.next_time
            self._show(self._pop())
            self.requests.add(self.engine, arrival, time)
            self.take_ended()                    # it may have been sent away at the door

    def take_ended(self) -> None:
        """Count who has ended; a closed loop answers the end of one request with the next."""
        for _ in self.engine.take_ended():
            self.num_ended += 1
            arrival = self.loop.after(self.engine.clock.now - self.start) if self.loop else None
            if arrival is not None:
                self.known += [arrival] if self.next is None else [arrival, self.next]
                self.known.sort(key=_time, reverse=True)
                self._show(self._pop())

    def _pop(self) -> Arrival | None:
        return self.known.pop() if self.known else next(self.source, None)

    def _show(self, arrival: Arrival | None) -> None:
        self.next = arrival
        self.next_time = NEVER if arrival is None else self.start + arrival.time


def _time(arrival: Arrival) -> float:
    return arrival.time


def in_order(workload: Iterable[Arrival]) -> Iterator[Arrival]:
    """The arrivals one by one; UserError at the first that comes before its predecessor, or never."""
    last = 0.0
    if not isinstance(workload, Iterable):
        raise UserError(f"a workload is Arrivals, sorted by time, and this is {type(workload).__name__}")
    for number, arrival in enumerate(workload, 1):
        if not hasattr(arrival, "time"):
            raise UserError(f"a workload is Arrivals, sorted by time, and number {number} is {arrival!r}")
        if not last <= arrival.time < NEVER:
            raise UserError(f"arrival {number} comes at {arrival.time} s, after one at {last} s; "
                            "sort the workload by time, and let everybody come")
        last = arrival.time
        yield arrival


class Requests:
    """Makes requests of arrivals: random token ids, equal where prefixes are shared; lengths forced or hidden."""

    def __init__(self, declared: int | None = None, seed: int = 0) -> None:
        self.declared, self.random, self.number = declared, random.Random(seed), 0

    def add(self, engine: Engine, arrival: Arrival, time: float) -> Request:
        """Add an arrival to an engine as a request that comes at ``time`` seconds of the engine's clock."""
        request = engine.add(self.make(arrival, time, engine.executor.limits.vocab_size))
        self.hide(engine, arrival, request)
        return request

    def make(self, arrival: Arrival, time: float, vocabulary: int, name: str = "") -> Request:
        """A request of that ``name`` (without one the engine gives it one) that comes at ``time`` seconds."""
        self.number += 1
        asked = max(self.declared or 0, arrival.output_tokens)
        sampling = SamplingParams(max_tokens=asked, seed=self.number, ignore_eos=self.declared is None)
        return Request(self._prompt(arrival, vocabulary), sampling, name, time, arrival.priority, arrival.tenant,
                       arrival.slo, arrival.predicted)

    def hide(self, engine: Engine, arrival: Arrival, request: Request) -> None:
        """Where lengths are declared, only the executor is told how long the answer will be."""
        if self.declared is None:
            return
        if not hasattr(engine.executor, "lengths"):
            raise UserError("declared= hides output lengths from the scheduler, which only a simulated engine can do")
        engine.executor.lengths[request.id] = arrival.output_tokens

    def _prompt(self, arrival: Arrival, vocabulary: int) -> list[int]:
        """Equal ids for equal prefix blocks, ids of its own for the rest."""
        simulated = vocabulary == NO_VOCABULARY
        tokens: list[int] = []
        for block in arrival.prefix:
            tokens += (range(block * BLOCK_TOKENS, (block + 1) * BLOCK_TOKENS) if simulated
                       else _draw(random.Random(block), BLOCK_TOKENS, vocabulary))
        rest = arrival.prompt_tokens - len(tokens)
        if rest <= 0:
            return tokens[:arrival.prompt_tokens]
        return tokens + ([OWN + self.number] * rest if simulated else _draw(self.random, rest, vocabulary))


def _draw(source: random.Random, count: int, vocabulary: int) -> list[int]:
    return [source.randrange(1, vocabulary) for _ in range(count)]
