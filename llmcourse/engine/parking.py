"""Parking: who must give up its seat keeps its KV where it lies, until somebody needs the room.

A preemptive policy changes its mind often: a shorter request has come, a quantum is used up. What it wants is the seat
in the batch, not the memory, so the request that gives way is parked: it waits, its table stays, and when it is its
turn again it goes on as if nothing had happened. Only when blocks are short do parked requests lose theirs, the last
in policy order first, to host memory or for good. The schedulers of FastServe (Wu et al., 2023) and of learning to
rank (Fu et al., 2024) count on it.

With ``spare`` blocks that must stay free, parked KV goes to host memory before anybody waits for it, and comes back
before its turn, while the step computes: a transfer that nobody has to wait for (FastServe's proactive swapping). Week
10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcourse.engine.request import Request, Status
from llmcourse.engine.room import has_room_for

if TYPE_CHECKING:
    from llmcourse.engine.scheduler import Scheduler
    from llmcourse.engine.step import Step


def park(scheduler: Scheduler, request: Request, now: float) -> None:
    """Take a decoding request's seat; it waits with its KV."""
    scheduler.log.parked(request, now)
    scheduler.counters.preemptions += 1
    scheduler.counters.parked += 1
    request.preemptions += 1
    scheduler.running.remove(request)
    request.become(Status.PARKED)
    scheduler.parked[request] = None
    scheduler.waiting.add(request)
    scheduler.policy.on_preempted(request, now)


def leave_seat_to(step: Step, request: Request) -> None:
    """What a preemptive policy does to a running request: park it, or preempt it where nobody is ever parked."""
    if step.scheduler.preemption.parking:
        park(step.scheduler, request, step.now)
    else:
        step.preempt(request)


def evict(scheduler: Scheduler, request: Request, now: float, saved: int | None = None) -> list[int]:
    """A parked request loses its blocks; ``saved`` tokens of its KV stay in host memory, None: it is computed again.

    Returns the blocks that are free by it.
    """
    freed = scheduler.pool.free(request.id)
    scheduler.log.evicted(request, now, freed, saved)
    if saved is None:
        scheduler.lost.note(request)
    del scheduler.parked[request]
    scheduler.waiting.remove(request)                         # before its count of pending tokens changes
    request.become(Status.PREEMPTED if saved is None else Status.SWAPPED)
    request.computed = saved or 0
    scheduler.waiting.add(request)
    return freed


def forget_parked(scheduler: Scheduler, request: Request) -> None:
    """It has ended or been sent away, perhaps while it was parked: its blocks are free."""
    if request in scheduler.parked:
        del scheduler.parked[request]
        if scheduler.pool.table(request.id):
            scheduler.pool.free(request.id)


def evict_one(step: Step, keep: Request | None = None) -> bool:
    """Free the blocks of a parked request, of any but ``keep``; False when there is none."""
    others = [request for request in step.scheduler.parked if request is not keep]
    if not others:
        return False
    step.evict(step.scheduler.policy.evicted(step.scheduler.ordered(others, step.now), step.now))
    return True


def make_room(step: Step, request: Request) -> bool:
    """Evict parked requests until the blocks for a waiting one are free; False when even that is not enough.

    Whoever is parked where contiguous memory ends cannot grow there: with nobody left to wait for it begins elsewhere.
    """
    scheduler = step.scheduler
    while not has_room_for(scheduler, request, step.restored, evicting=False):
        if evict_one(step, keep=request):
            continue
        if request not in scheduler.parked or scheduler.running:
            return False
        evict(scheduler, request, step.now)
    return True


def look_ahead(step: Step) -> None:
    """Keep the spare blocks free by swapping parked KV out; where more are free, bring back who is next in order.

    Never both in one step. Within a few steps it happens: who has ended leaves room to bring somebody back, and whoever
    is admitted next takes it. About one block in seven goes again like that without having been used, which is next to
    nothing of all that is moved, and moves while a step computes. More free blocks asked for before anybody is brought
    back would make it rare, and would bring fewer back in time.
    """
    scheduler, pool, host = step.scheduler, step.pool, step.scheduler.host
    spare = scheduler.preemption.spare
    if not spare or host is None:
        return
    before = len(step.swap_out)
    while pool.num_free < spare:
        parked = scheduler.ordered(list(scheduler.parked), step.now)
        last = scheduler.policy.evicted(parked, step.now) if parked else None
        if last is None or last in step.restored or not step.would_save(last):
            break
        step.evict(last)
    if len(step.swap_out) == before and step.counts and not step.preempted_any:
        swapped = [request for request in scheduler.waiting if request.status is Status.SWAPPED]
        first = min(swapped, key=lambda request: scheduler.rank(request, step.now), default=None)
        if (first is not None and pool.blocks_for(len(first.tokens)) + spare <= pool.num_free
                and pool.can_open(first.tokens, first.max_cached)):           # free blocks need not be neighbours
            step.bring_back(first)
            step.behind += len(step.restored.get(first, ()))
    step.behind += len(step.swap_out) - before


def plans_ahead(scheduler: Scheduler) -> bool:
    """Whether any coming step may move KV that nobody has asked for yet."""
    return bool(scheduler.preemption.spare and scheduler.host is not None
                and (scheduler.parked or scheduler.host.num_used))
