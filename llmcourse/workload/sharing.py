"""Prompts that begin alike: conversations whose every turn repeats what was said before.

In Mooncake's trace each prompt starts with the same block (the system prompt), and four of ten go on with an
earlier prompt: they repeat its leading blocks and add a few. Practically nobody branches off, so a conversation is a
chain. The model keeps the ends of the latest conversations and lets a following request take up one of them, of the age
and with the share of repeated blocks that the trace shows; an infinite prefix cache then hits as often. Weeks 4 and 6.

Qin et al., "Mooncake", FAST 2025.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np

from llmcourse.workload.arrival import BLOCK_TOKENS, Arrival
from llmcourse.workload.lengths import Quantiles
from llmcourse.workload.normal import partner, spread

WINDOW = 1 << 13  # ends of conversations that are remembered
TRIES = 256  # how many of them a request looks at before it takes the longest it saw


@dataclass(frozen=True)
class Sharing:
    """What a trace says about repeated prompt blocks.

    ``follow`` is the share of requests that go on with an earlier one; ``fresh`` and ``following`` are the prompt
    lengths (tokens) of those that do not and those that do; ``shared`` is the share of a following prompt's blocks that
    is repeated, with ``rank_correlation`` to its length; ``distance`` counts the requests back to the one repeated;
    ``common`` blocks start every prompt. ``hit_rate`` is what an infinite cache reaches on the trace.
    """

    follow: float
    fresh: Quantiles
    following: Quantiles
    shared: Quantiles
    rank_correlation: float
    distance: Quantiles
    common: int
    hit_rate: float

    def sample(self, rng: np.random.Generator, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each uniform number of `u`: prompt tokens, blocks repeated, and how many requests ago they came."""
        follows = spread(rng, rng.random(len(u))) < self.follow
        prompts = np.where(follows, self.following.at(u), self.fresh.at(u))
        share = self.shared.quantile(partner(rng, u, self.rank_correlation))
        repeated = np.rint(share * -(-prompts // BLOCK_TOKENS)).astype(int)
        return prompts, np.where(follows, repeated, 0), self.distance.sample(rng, len(u))


class Conversations:
    """Hands out block ids, so that prompts which repeat an earlier one carry its ids."""

    def __init__(self, common: int):
        self.common = tuple(range(common))
        self._next = common  # the first id never handed out
        self._ends: list[tuple[int, ...]] = [()] * WINDOW  # the latest prompts, in a ring; () has been continued
        self._count = 0

    def prefix(self, blocks: int, repeated: int, distance: int) -> tuple[int, ...]:
        """Ids of a prompt of `blocks`, of which about `repeated` come from a prompt about `distance` requests ago."""
        head = self._end(repeated, distance)[:repeated] if repeated > len(self.common) else ()
        head = head or self.common[:blocks]
        first, self._next = self._next, self._next + blocks - len(head)
        ids = head + tuple(range(first, self._next))
        self._ends[self._count % WINDOW] = ids
        self._count += 1
        return ids

    def _end(self, repeated: int, distance: int) -> tuple[int, ...]:
        """Take an open conversation of more than `repeated` blocks, the nearest to `distance` on its far side."""
        ends, start = self._ends, self._count - min(distance, self._count, WINDOW)
        longest = start
        for step in range(TRIES):
            at = (start - step) % WINDOW
            if len(ends[at]) > repeated:
                longest = at
                break
            if len(ends[at]) > len(ends[longest % WINDOW]):
                longest = at
        taken, ends[longest % WINDOW] = ends[longest % WINDOW], ()
        return taken


def hit_rate(workload: Iterable[Arrival]) -> float:
    """Share of all prompt blocks that an infinite prefix cache has already seen when they come."""
    seen: set[int] = set()
    hits = total = 0
    for arrival in workload:
        total += len(arrival.prefix)
        hits += leading(arrival.prefix, seen)
        seen.update(arrival.prefix)
    return hits / total if total else 0.0


def leading(prefix: tuple[int, ...], seen: Container[int]) -> int:
    """How many blocks at the front of `prefix` are in `seen`."""
    return next((index for index, block in enumerate(prefix) if block not in seen), len(prefix))
