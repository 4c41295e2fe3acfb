"""Is there room for the first of the waiting, whose leaving would make some, and how many seats are there?

A request needs a slot in the batch and memory for its whole input. How much that is depends on what it finds there: its
own KV in host memory, a sibling's blocks, or what a cache remembers. Weeks 4-6.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from llmcourse.engine.family import donor, shared_tokens
from llmcourse.engine.request import Request
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.engine.scheduler import Scheduler


def has_room_for(scheduler: Scheduler, request: Request, restored: Collection[Request] = (),
                 evicting: bool = True) -> bool:
    """Whether a slot and the memory for its whole input are free; ``restored`` as for `donor_of`.

    With ``evicting`` it may count on the blocks of all others who are parked; and on its own, when nobody runs.
    """
    if seated(scheduler) >= scheduler.max_running:
        return False
    pool = scheduler.pool
    parked = [other.id for other in scheduler.parked if other is not request] if evicting else []
    if request in scheduler.parked:
        alone = evicting and not scheduler.running
        return bool(parked) or alone or pool.rounds_that_fit([request.id], 1) > 0
    if donor_of(scheduler, request, restored) is None:
        return pool.can_open(request.tokens, request.max_cached, without=parked)
    shared = shared_tokens(request) // pool.block_size                       # whole blocks: a partial one is copied
    return bool(parked) or pool.blocks_for(len(request.tokens)) - shared <= pool.num_free


def seated(scheduler: Scheduler) -> int:
    """Seats of the batch that are taken: by those who run, and kept for those on their way."""
    return len(scheduler.running) + scheduler.transit.num_seats


def limit_seats(scheduler: Scheduler, most: int) -> None:
    """From now on at most so many run at once. Who has a seat keeps it: a limit that falls preempts nobody.

    UserError for more than a step can give a token each.
    """
    if not 1 <= most <= scheduler.token_budget:
        raise UserError(f"{most} seats in a batch of {scheduler.token_budget} tokens a step: whoever runs needs one; "
                        "give at least 1 and at most as many")
    scheduler.full = scheduler.full and most <= scheduler.max_running
    scheduler.max_running, scheduler.overhang = most, max(0, seated(scheduler) - most)


def donor_of(scheduler: Scheduler, request: Request, restored: Collection[Request] = ()) -> Request | None:
    """The sibling from whose blocks it forks, none of those just being ``restored``; None: it opens its own table."""
    host = scheduler.host
    if not request.siblings or not scheduler.pool.shares or (host is not None and host.table(request.id)):
        return None
    return donor(request, restored)


def outranked_by(scheduler: Scheduler, request: Request, now: float,
                 served: Collection[Request] = ()) -> list[Request]:
    """The fewest decoding requests, last in policy order first, whose leaving makes room for a waiting one.

    Only such as come after it in policy order, have had a token since they came in, and were not ``served`` in this
    step; none when all of those together would not make room. One is enough where only a slot is missing.
    """
    rank = scheduler.rank(request, now)
    losers: list[Request] = []
    if seated(scheduler) > scheduler.max_running:             # the limit has fallen: one seat more would not help it
        return losers
    for loser in reversed(scheduler.ordered(scheduler.running, now)):
        if scheduler.rank(loser, now) <= rank:
            break
        if loser.pending == 1 and loser not in served and loser not in scheduler.filling:
            losers.append(loser)
            owners = [each.id for each in (*losers, *scheduler.parked) if each is not request]
            if request in scheduler.parked or scheduler.pool.can_open(request.tokens, request.max_cached, owners):
                return losers
    return []
