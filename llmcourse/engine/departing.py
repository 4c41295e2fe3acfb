"""A request leaves: what its source does.

KV is only ever appended to, so whole blocks can be read and sent while the request goes on decoding: what is in them
will not change any more. Only for the last of it must it stop. Week 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcourse.engine.parking import evict
from llmcourse.engine.request import Request, Status
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Leaving, Refused, mover, seat

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine


def look(engine: Engine, request_id: str) -> Snapshot:
    """How far it is."""
    return Snapshot.of(_resident(engine, request_id))


def read(engine: Engine, request_id: str, first: int, last: int) -> Any:
    """What is in the blocks ``first .. last - 1`` of its table, wherever that is: opaque, for another's `write`."""
    request = _resident(engine, request_id)
    host = engine.scheduler.host
    swapped = host is not None and bool(host.table(request_id))
    table = host.table(request_id) if host is not None and swapped else engine.pool.table(request_id)
    if not 0 <= first <= last <= engine.pool.blocks_for(request.computed):
        raise Refused(f"blocks {first} to {last - 1} of request {request_id!r} are not all computed: it has "
                      f"{request.computed} tokens in blocks of {engine.pool.block_size}")
    engine.counters.sent_blocks += last - first
    return mover(engine).read_blocks(table[first:last], host=swapped)


def stop(engine: Engine, request_id: str, keep: bool = True) -> Snapshot:
    """Take it out of the batch or the queue; it keeps its blocks and its seat, so it can `resume` at any time.

    Who is parked has no seat, and while it has stopped nobody may evict its blocks. Without ``keep`` its KV is given up
    at once, as if it had been preempted.
    """
    request, scheduler, now = _resident(engine, request_id), engine.scheduler, engine.clock.now
    if request.status is Status.MIGRATING:
        raise Refused(f"request {request_id!r} has stopped already")
    if not keep and request.status is Status.RUNNING:
        scheduler.preempt(request, now)
    elif not keep and request.status is Status.PARKED:
        evict(scheduler, request, now)
    before = Snapshot.of(request)
    if request.status is Status.RUNNING:
        scheduler.running.remove(request)
        scheduler.filling.pop(request, None)
    else:
        scheduler.waiting.remove(request)
        scheduler.parked.pop(request, None)
    scheduler.transit.leaving[request_id] = Leaving(request, request.status)
    scheduler.full = False
    request.become(Status.MIGRATING)
    scheduler.log.migrating(request, now, "stopped", ())
    return before if keep else before.without_kv()


def resume(engine: Engine, request_id: str) -> None:
    """It stays after all, and goes on with what it was doing."""
    scheduler = engine.scheduler
    request, status = _stopped(engine, request_id)
    del scheduler.transit.leaving[request_id]
    request.become(status)
    if status is Status.RUNNING:
        seat(engine, request)
    else:
        if status is Status.PARKED:
            scheduler.parked[request] = None
        scheduler.queue([request])
    scheduler.log.migrating(request, engine.clock.now, "resumed", ())


def release(engine: Engine, request_id: str) -> None:
    """It lives elsewhere now: its blocks are free, and nothing is known of it here any more."""
    scheduler, now = engine.scheduler, engine.clock.now
    request, _ = _stopped(engine, request_id)
    del scheduler.transit.leaving[request_id], engine.requests[request_id]
    freed = engine.pool.free(request_id) if engine.pool.table(request_id) else []
    scheduler.forget(request)
    scheduler.full = False
    scheduler.policy.on_done(request, now)
    scheduler.log.migrating(request, now, "released", freed)


def _resident(engine: Engine, request_id: str) -> Request:
    request = engine.requests.get(request_id)
    if request is None or request.done:
        raise Refused(f"request {request_id!r} has ended or was never here")
    if request.siblings:
        raise Refused(f"request {request_id!r} shares its prompt with {len(request.siblings) - 1} others: they stay "
                      "together where they are")
    return request


def _stopped(engine: Engine, request_id: str) -> Leaving:
    leaving = engine.scheduler.transit.leaving.get(request_id)
    if leaving is None:
        raise Refused(f"request {request_id!r} has not stopped here, or has ended since")
    return leaving
