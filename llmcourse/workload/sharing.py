"""Prompts that begin alike: conversations whose every turn repeats what was said before.

In Mooncake's trace each prompt starts with the same block (the system prompt), and four of ten go on with an
earlier prompt: they repeat its leading blocks and add a few. Practically nobody branches off, so a conversation is a
chain. The model keeps the ends of the latest conversations and lets a following request take up one of them, of the age
and with the share of repeated blocks that the trace shows; an infinite prefix cache then hits as often. Weeks 4 and 6.

Qin et al., "Mooncake", FAST 2025.
"""

from bisect import bisect_left
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import chain
from math import log2

import numpy as np

from llmcourse.workload.arrival import BLOCK_TOKENS, Arrival
from llmcourse.workload.lengths import Quantiles
from llmcourse.workload.normal import partner, spread

_SHELVES = 96  # up to 2^12 blocks, two million tokens
_DEPTH = 256  # conversations kept on a shelf


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
        blocks = -(-prompts // BLOCK_TOKENS)
        repeated = np.minimum(np.maximum(np.rint(share * blocks).astype(int), self.common + 1), blocks)
        return prompts, np.where(follows, repeated, 0), self.distance.sample(rng, len(u))


class Conversations:
    """Hands out block ids, so that prompts which repeat an earlier one carry its ids.

    Open conversations lie on shelves by length (eight shelves to a doubling), the oldest first. Who repeats k blocks
    takes up one a little longer than k: a much longer one would be lost to those who repeat more.
    """

    def __init__(self, common: int):
        self.common = tuple(range(common))
        self._next = common  # the first id never handed out
        self._now = 0
        self._shelves = [_Shelf() for _ in range(_SHELVES)]

    def prefix(self, blocks: int, repeated: int, distance: int) -> tuple[int, ...]:
        """Ids of a prompt of `blocks`, of which about `repeated` come from a prompt about `distance` requests ago."""
        head = self.common[:blocks]
        if repeated > len(head):
            taken = self._take(repeated, self._now - distance)[:repeated]
            head = taken if len(taken) > len(head) else head
        first, self._next = self._next, self._next + blocks - len(head)
        ids = head + tuple(range(first, self._next))
        self._shelves[_shelf(blocks)].put(self._now, ids)
        self._now += 1
        return ids

    def _take(self, repeated: int, when: int) -> tuple[int, ...]:
        """Take up an open conversation of more than `repeated` blocks, or the longest, left at about `when`."""
        least = min(_shelf(repeated) + 1, _SHELVES - 1)
        for shelf in chain(self._shelves[least:], reversed(self._shelves[:least])):
            if shelf.when:
                return shelf.take(when)
        return ()


class _Shelf:
    """Conversations of about one length, by the time they were left; the oldest falls off when there are too many."""

    def __init__(self) -> None:
        self.when: list[int] = []
        self.ids: list[tuple[int, ...]] = []

    def put(self, when: int, ids: tuple[int, ...]) -> None:
        self.when.append(when)
        self.ids.append(ids)
        if len(self.when) > _DEPTH:
            del self.when[0], self.ids[0]

    def take(self, when: int) -> tuple[int, ...]:
        at = min(bisect_left(self.when, when), len(self.when) - 1)
        del self.when[at]
        return self.ids.pop(at)


def _shelf(blocks: int) -> int:
    return min(int(8 * log2(blocks)), _SHELVES - 1)


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
