"""Play a workload into an engine: the same loop in real time and in virtual time.

Arrivals become requests when their moment has come, not earlier: a service does not know its future. Output lengths are
forced to the arrival's, so that every policy and every world serves the same work. In virtual time nobody waits, and
stretches of equal steps are jumped over. Weeks 3-5.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from llmcourse.engine.engine import Engine
from llmcourse.engine.request import Request, SamplingParams
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.metrics.table import Table
    from llmcourse.workload.arrival import Arrival

NEVER = float("inf")
PREFIX_BLOCK = 512                       # tokens that one id of `Arrival.prefix` stands for (Mooncake's blocks)


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
    feed = _Feed(engine, workload, _Prompts(engine, seed), declared)
    ended = 0
    while not (stop and stop()):
        feed.add_due()
        if engine.idle:
            if feed.next_time == NEVER:
                break
            engine.clock.advance_to(feed.next_time)
            continue
        engine.step()
        engine.forward(feed.next_time)
        for request in engine.take_ended():
            ended += 1
            feed.ended(request)
        if progress:
            progress(ended)
    return engine.table()


class _Feed:
    """Arrivals in order of time, from a list, a generator or a closed loop, each added to the engine when it is due."""

    def __init__(self, engine: Engine, workload: Iterable[Arrival] | Closed, prompts: _Prompts,
                 declared: int | None) -> None:
        self.engine, self.prompts, self.declared = engine, prompts, declared
        self.start = engine.clock.now
        self.after = getattr(workload, "after", None)
        first: Iterable[Arrival] = workload.start() if hasattr(workload, "start") else workload   # type: ignore[assignment]
        self.source: Iterator[Arrival] = iter(first)
        self.later: list[Arrival] = []           # of a closed loop: known, not due, latest first
        self.next: Arrival | None = None
        self.next_time = NEVER
        self.number = 0
        self._advance(0.0)

    def add_due(self) -> None:
        """Add every arrival whose time has come."""
        while self.next is not None and self.next_time <= self.engine.clock.now:
            arrival = self.next
            request = self.engine.add(self._request(arrival))
            if self.declared is not None:
                self.engine.executor.lengths[request.id] = arrival.output_tokens     # type: ignore[attr-defined]
            self._advance(arrival.time)
            if request.done:                     # shed at the door: the engine says so like of any other
                for ended in self.engine.take_ended():
                    self.ended(ended)

    def ended(self, request: Request) -> None:
        """A closed loop answers the end of one request with the next."""
        if self.after is None:
            return
        arrival = self.after(self.engine.clock.now - self.start)
        if arrival is not None:
            if self.next is not None:
                self.later.append(self.next)
            self.later.append(arrival)
            self.later.sort(key=lambda known: -known.time)
            self._show(self.later.pop())

    def _advance(self, last: float) -> None:
        arrival = self.later.pop() if self.later else next(self.source, None)
        if arrival is not None and arrival.time < last:
            raise UserError(f"arrival {self.number + 1} comes at {arrival.time} s, after one at {last} s; "
                            "sort the workload by time")
        self._show(arrival)

    def _show(self, arrival: Arrival | None) -> None:
        self.next = arrival
        self.next_time = NEVER if arrival is None else self.start + arrival.time

    def _request(self, arrival: Arrival) -> Request:
        self.number += 1
        if self.declared is None:
            sampling = SamplingParams(max_tokens=arrival.output_tokens, seed=self.number, ignore_eos=True)
        elif not hasattr(self.engine.executor, "lengths"):
            raise UserError("declared= hides output lengths from the scheduler, which only a simulated engine can do")
        else:
            sampling = SamplingParams(max_tokens=max(self.declared, arrival.output_tokens), seed=self.number)
        return Request(self.prompts.of(arrival), sampling, "", self.start + arrival.time, arrival.priority,
                       arrival.tenant, arrival.slo, arrival.predicted)


class _Prompts:
    """Token ids for an arrival: random for a real model, any for a simulated one; equal where prefixes are shared."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.vocabulary = engine.executor.limits.vocab_size
        self.simulated = self.vocabulary > 2**31
        self.random = random.Random(seed)

    def of(self, arrival: Arrival) -> range | list[int]:
        """As many ids as the arrival's prompt has tokens."""
        if not arrival.prefix:
            count = arrival.prompt_tokens
            return range(1, count + 1) if self.simulated else self._draw(self.random, count)
        tokens: list[int] = []
        for block in arrival.prefix:
            tokens += (range(block * PREFIX_BLOCK + 1, (block + 1) * PREFIX_BLOCK + 1) if self.simulated
                       else self._draw(random.Random(block), PREFIX_BLOCK))
        tokens = tokens[:arrival.prompt_tokens]
        return tokens + self._draw(self.random, arrival.prompt_tokens - len(tokens))

    def _draw(self, source: random.Random, count: int) -> list[int]:
        return [source.randrange(1, self.vocabulary) for _ in range(count)]
