"""Virtual usage: memory is called used that nobody uses yet, so that what matters finds or keeps room.

Each request counts with the blocks it holds and, by its priority, a share of some headroom: an instance that serves an
important request looks fuller than it is, and whoever balances load leaves it alone. The first of the waiting counts
with what it needs, the others with nothing. Freeness divides what is left by the requests that grow: about how many
blocks each may still take before memory is full, below zero when it is promised twice. Inside one instance nobody can
be sent elsewhere: normal requests wait while an important one runs. Its decode steps then read less KV and stay short.
Sun et al., 2024 (Llumnix, Algorithm 1). Week 6; between instances, weeks 7 and 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from llmcourse.engine.admission import Admission
from llmcourse.engine.request import Request
from llmcourse.engine.scheduler import Scheduler
from llmcourse.errors import UserError


def virtual_usage(scheduler: Scheduler, headroom: Mapping[int, float], now: float) -> dict[Request, float]:
    """Blocks that each request counts with; ``headroom`` in blocks by priority, shared by those of it that run.

    A running request that shares blocks counts them in full, as each of its sharers does. Requests that wait without
    being the first count 0 and are left out.
    """
    pool = scheduler.pool
    number = Counter(request.priority for request in scheduler.running)
    usage = {request: len(pool.table(request.id)) + headroom.get(request.priority, 0) / number[request.priority]
             for request in scheduler.running}
    first = scheduler.waiting.first(now)
    if first is not None:
        usage[first] = float(pool.blocks_for(len(first.tokens)))
    return usage


def freeness(scheduler: Scheduler, headroom: Mapping[int, float], now: float) -> float:
    """(Blocks of the memory - virtual usage of all) / requests that run, at least 1: blocks each may still take."""
    left = scheduler.pool.num_blocks - sum(virtual_usage(scheduler, headroom, now).values())
    return left / max(1, len(scheduler.running))


class Headroom(Admission):
    """Holds back whoever would use the headroom of a more important request that runs; ``headroom`` as above.

    A smaller priority is more important. To call an instance full from so many tokens on, as in Llumnix's artifact,
    give the important ones ``pool.num_blocks - pool.blocks_for(tokens)``. Use it with a policy that puts them first
    (`StaticPriority`): who is held makes all behind it wait.
    """

    def __init__(self, headroom: Mapping[int, float]) -> None:
        bad = {priority: blocks for priority, blocks in headroom.items() if not blocks >= 0}
        if bad:
            raise UserError(f"headroom of {bad} blocks by priority: it must be at least 0")
        self.headroom = dict(headroom)

    def hold(self, request: Request, scheduler: Scheduler, now: float) -> bool:
        """Whether what is used, what it needs and the headroom of those above it exceed the memory."""
        above = {running.priority for running in scheduler.running if running.priority < request.priority}
        reserved = sum(self.headroom.get(priority, 0) for priority in above)
        pool = scheduler.pool
        needed = pool.blocks_for(len(request.tokens)) - len(pool.table(request.id))      # who is parked has its blocks
        return reserved > 0 and pool.num_used + needed + reserved > pool.num_blocks
