"""One request that moves between two instances, watched by its client and by its neighbours: a single trial.

The worlds in which it moves stand in `_moving_worlds.py`.
"""

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from llmcourse.cluster import Migration
from llmcourse.cluster.driver import Driver
from llmcourse.engine import EventKind, Request, SamplingParams

BLOCK = 16
OTHERS = 8                                        # requests that decode beside it on the source
WARM, AFTER = 16, 8                               # tokens it has when its move begins, and that are watched after
MOVED = "moved"
Times = dict[str, list[float]]


@dataclass(frozen=True)
class Run:
    """When each request's tokens came (s), and the move, if there was one; ``busy``: CPU seconds of its source."""

    times: Times
    tokens: list[int]
    begun: float
    migration: Migration | None = None
    busy: float = 0.0


@dataclass(frozen=True)
class Trial:
    """What one move cost; seconds, bytes and shares.

    ``step``: the client's usual gap before it, ``pause``: its longest gap around the move less the usual one.
    ``stopped`` is `Migration.downtime`, ``total`` runs until the source has forgotten it. ``last_copy`` is how long the
    last copy took, 0 without one. ``overhead``: how much longer the gaps of the
    source's others were than the same gaps without a move, from its begin until the request stopped (None when it was
    stopped at once); ``net`` the same until the end, where they gain by its absence. ``busy``: CPU seconds of the
    source for the move against its length. ``same``: the client got the tokens that it gets without a move.
    """

    outcome: str
    reason: str
    step: float
    pause: float
    stopped: float
    total: float
    bytes: int
    copies: int
    last_copy: float
    overhead: float | None
    net: float | None
    busy: float
    same: bool

    @property
    def steps(self) -> float:
        """The pause in decode steps."""
        return self.pause / self.step

    @property
    def of_bound(self) -> float:
        """The pause against one decode step plus the last-stage copy."""
        return self.pause / (self.step + self.last_copy)


def crowd(driver: Driver, sizes: Sequence[tuple[int, int]], vocabulary: int) -> str:
    """Add requests of so many prompt tokens and at most so many of answer; returns the name of the last."""
    dice = random.Random(0)
    for prompt, tokens in sizes:
        request = driver.add(Request([dice.randrange(10, vocabulary) for _ in range(prompt)],
                                     SamplingParams(max_tokens=tokens, ignore_eos=True)))
    return request.id


def watch(driver: Driver, chosen: str, migration: Migration | None, go_on: Callable[[], Any], after: int) -> None:
    """Serve until the move is over, if there is one, and until so many tokens have come since."""
    while migration is not None and migration.outcome is None:
        go_on()
    enough = len(driver.tokens(chosen)) + after
    while len(driver.tokens(chosen)) < enough:
        go_on()


def arrivals(driver: Driver) -> Times:
    """When each token of each request came, by the clock."""
    times: Times = {}
    for event in driver.events:
        if event.kind is EventKind.NEW_TOKENS:
            times.setdefault(str(event.request), []).extend([event.time] * len(event.data["tokens"]))
    return times


def usual(times: list[float], now: float) -> float:
    """Median of the last ten gaps before a moment (s)."""
    before = [when for when in times if when <= now][-11:]
    return statistics.median(b - a for a, b in pairwise(before))


def trial(run: Run, bases: Sequence[Run]) -> Trial:
    """What is kept of a run, beside the same without a move, of which the quickest counts."""
    migration = run.migration
    assert migration is not None and migration.ended is not None
    chosen = migration.request_id
    times, total = run.times[chosen], migration.ended - migration.begun
    step = usual(times, run.begun)
    longest = max(b - a for a, b in pairwise(times) if b > run.begun)
    copies = migration.copies
    same = min(len(run.tokens), len(bases[0].tokens))
    return Trial(migration.outcome or "", migration.reason, step, longest - step, migration.downtime or 0.0, total,
                 migration.bytes, len(copies), copies[-1].end - copies[-1].start if copies else 0.0,
                 overhead(run, bases, migration.stopped_at or migration.ended),
                 overhead(run, bases, migration.ended + step), run.busy / max(total, step),
                 run.tokens[:same] == bases[0].tokens[:same])


def overhead(run: Run, bases: Sequence[Run], last: float) -> float | None:
    """How much longer the gaps of the source's others were that ended after the begin and by then (s), as a share.

    Gap by gap against the same tokens of the quickest undisturbed run, so that contexts are equally long; None without.
    """
    gaps = [(name, place) for name in (f"r{number}" for number in range(OTHERS))
            for place, when in enumerate(run.times[name]) if run.begun < when <= last]
    gaps = [(name, place) for name, place in gaps if all(place < len(base.times[name]) for base in bases)]
    if not gaps:
        return None
    with_it, *without = [sum(each.times[name][place] - each.times[name][place - 1] for name, place in gaps)
                         for each in (run, *bases)]
    return with_it / min(without) - 1
