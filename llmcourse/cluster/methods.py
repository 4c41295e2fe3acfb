"""Four ways to move a request, each written as what it says to both sides, one order after the other.

- ``recompute``: stop, queue at the destination, compute the whole context again. Needs no link; stands still for long.
- ``stop_and_copy``: stop, send all its KV, go on there. Stands still as long as the sending takes.
- ``live``: send what will not change any more while it goes on decoding, then what has come since, and so on; stop only
  for the last few blocks. How long it stands still does not depend on its length. Sun et al., 2024 (Llumnix).
- ``token_rounds``: send no KV at all but the tokens, a few bytes each; the destination computes them while the source
  goes on, again and again until few are missing. Fu et al., 2024 (ServerlessLLM).

Each is a generator: it yields an order and is sent the answer. What happens when a side refuses or dies stands in
`migration.py`, once for all of them; a method that gives up by itself raises `GiveUp`. Week 7.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from llmcourse.cluster.orders import Adopt, CaughtUp, Copy, Grow, Look, Order, Pause, Release, Reserve, Stop
from llmcourse.engine.request import Status
from llmcourse.engine.snapshot import Snapshot
from llmcourse.errors import UserError
from llmcourse.kinds import check_fields

Script = Generator[Order, Any, None]


class GiveUp(Exception):
    """The method sees no sense in going on, and why."""


@dataclass(frozen=True)
class Terms:
    """What the methods keep to, beside the ``block_size`` (tokens) of both sides.

    ``live`` stops when at most ``last_blocks`` are left to send, and gives up after ``stages``. (Llumnix stops at 16,
    which lets a request of 256 tokens stand still for all of its KV.) ``token_rounds`` stops when at most ``gap``
    tokens are missing, gives up after ``rounds``, and asks every ``poll`` seconds.
    """

    block_size: int
    stages: int = 8
    last_blocks: int = 2
    gap: int = 20
    rounds: int = 8
    poll: float = 0.005

    def __post_init__(self) -> None:
        """Refuse terms under which nothing would ever be sent."""
        check_fields(self)
        if min(self.block_size, self.stages, self.rounds) < 1 or min(self.last_blocks, self.gap) < 0 or self.poll <= 0:
            raise UserError(f"{self}: block_size, stages and rounds are at least 1, last_blocks and gap at least 0, "
                            "poll is above 0 s")

    def blocks(self, num_tokens: int) -> int:
        """Blocks that so many tokens fill, the last perhaps partly."""
        return -(-num_tokens // self.block_size)


def recompute(terms: Terms) -> Script:
    """Stop and give its KV up; it queues at the destination as if it had been preempted there."""
    yield Look()
    yield from _without_kv()


def stop_and_copy(terms: Terms) -> Script:
    """Stop, send everything, go on."""
    yield from _all_at_once(terms, (yield Look()))


def live(terms: Terms) -> Script:
    """Send whole blocks while it goes on, stop for the rest. A request that does not run is simply sent."""
    seen: Snapshot = yield Look()
    if seen.status is not Status.RUNNING:
        yield from _all_at_once(terms, seen)                  # not looked at again: it might run by then
        return
    sent = yield Reserve(seen)
    for _ in range(terms.stages):
        whole = seen.computed // terms.block_size             # the block behind them is still being written
        if terms.blocks(seen.computed) - sent <= terms.last_blocks:
            snapshot = yield Stop()
            _same_life(seen, snapshot)
            yield from _finish(terms, snapshot, sent)
            return
        yield Copy(sent, whole)
        sent, before = whole, seen
        seen = yield Look()
        _same_life(before, seen)
        yield Grow(seen)
    raise GiveUp(f"after {terms.stages} stages more than {terms.last_blocks} blocks are still to be sent: decoding "
                 "writes as fast as the link carries")


def token_rounds(terms: Terms) -> Script:
    """Let the destination compute what is known, while more becomes known; stop when little is missing."""
    seen: Snapshot = yield Look()
    if not seen.computed or seen.status is not Status.RUNNING:
        yield from _without_kv()
        return
    yield Reserve(seen, compute=True)
    for _ in range(terms.rounds):
        while not (yield CaughtUp()):
            yield Pause(terms.poll)
        before = seen
        seen = yield Look()
        _same_life(before, seen)
        if seen.num_tokens - before.num_tokens <= terms.gap:
            snapshot = yield Stop()
            _same_life(seen, snapshot)
            yield Adopt(snapshot)
            yield Release()
            return
        yield Grow(seen)
    raise GiveUp(f"after {terms.rounds} rounds more than {terms.gap} tokens are still missing: the destination "
                 "computes no faster than the source decodes")


def _without_kv() -> Script:
    """It gives up what it has, and queues at the destination."""
    snapshot = yield Stop(keep=False)
    yield Adopt(snapshot)
    yield Release()


def _all_at_once(terms: Terms, seen: Snapshot) -> Script:
    """It stops with the KV it has, if any, and that is sent."""
    if not seen.computed:
        yield from _without_kv()
        return
    there = yield Reserve(seen)
    snapshot = yield Stop()
    yield from _finish(terms, snapshot, there)


def _finish(terms: Terms, snapshot: Snapshot, sent: int) -> Script:
    """It has stopped: send the rest, and let it go on at the destination."""
    yield Grow(snapshot)
    if sent < terms.blocks(snapshot.computed):
        yield Copy(sent, terms.blocks(snapshot.computed))
    yield Adopt(snapshot)
    yield Release()


def _same_life(before: Snapshot, after: Snapshot) -> None:
    """Whether the blocks that were sent are still its blocks."""
    if after.preemptions != before.preemptions or after.status is not Status.RUNNING:
        raise GiveUp("it was preempted meanwhile")


METHODS: dict[str, Callable[[Terms], Script]] = {
    "live": live, "stop-and-copy": stop_and_copy, "recompute": recompute, "tokens": token_rounds}
