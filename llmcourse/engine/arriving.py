"""A request comes: what its destination does.

Room is kept before anything is sent, and given up again if it does not come, or if somebody who lives here needs it:
nobody is preempted for a guest. Week 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcourse.engine.door import refuse_impossible
from llmcourse.engine.request import Request, Status
from llmcourse.engine.room import seated
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Refused, give_up, mover, seat
from llmcourse.errors import UserError
from llmcourse.kv.memory import OutOfBlocks

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine


def reserve(engine: Engine, snapshot: Snapshot, compute: bool = False) -> int:
    """Keep room and a seat for it; returns how many of its blocks a prefix cache has here already.

    With ``compute`` the KV of all tokens but the last is computed here, from what the steps leave of their budget.
    """
    scheduler, pool, name = engine.scheduler, engine.pool, snapshot.id
    guest = _fits_here(engine, snapshot)
    if seated(scheduler) >= scheduler.max_running:
        raise Refused(f"all {scheduler.max_running} seats of the batch are taken")
    tokens = snapshot.tokens[:max(1, snapshot.room)]
    if not pool.can_open(tokens, guest.max_cached):
        raise Refused(f"{len(tokens)} tokens need {pool.blocks_for(len(tokens))} blocks; {pool.num_free} are free")
    guest.computed = pool.open(name, tokens, guest.max_cached)
    scheduler.transit.guests[name] = guest
    if compute:
        guest.become(Status.RUNNING)
        scheduler.introduce(guest, engine.clock.now)
        scheduler.policy.on_scheduled(guest, engine.clock.now)          # it has its seat, and waits for nobody
        scheduler.transit.preparing.append(guest)
    scheduler.log.migrating(guest, engine.clock.now, "reserved", pool.table(name))
    return guest.computed // pool.block_size


def grow(engine: Engine, snapshot: Snapshot) -> None:
    """It has more tokens by now: make room for them too."""
    guest = _guest(engine, snapshot.id)
    preparing = guest in engine.scheduler.transit.preparing
    _make_room(engine, guest, snapshot.num_tokens - 1 if preparing else snapshot.room)
    guest.tokens = list(snapshot.tokens)


def write(engine: Engine, request_id: str, first: int, last: int, payload: Any) -> None:
    """Put what was read at the source into blocks ``first .. last - 1`` of its table here."""
    _guest(engine, request_id)
    table = engine.pool.table(request_id)
    if last > len(table):
        raise Refused(f"blocks {first} to {last - 1} of request {request_id!r}: only {len(table)} are reserved")
    engine.counters.received_blocks += last - first
    mover(engine).write_blocks(table[first:last], payload)


def caught_up(engine: Engine, request_id: str) -> bool:
    """Whether the KV of all it was told is computed, but for the last token."""
    return _guest(engine, request_id).pending <= 1


def adopt(engine: Engine, snapshot: Snapshot) -> None:
    """It lives here from now on: with a seat it runs at once, on the KV that was written or computed; else queues."""
    scheduler, now, name = engine.scheduler, engine.clock.now, snapshot.id
    guest = scheduler.transit.guests.get(name)
    if guest is None and snapshot.computed:
        raise Refused(f"the room for request {name!r} has been given up")
    request = _fits_here(engine, snapshot) if guest is None else guest
    if guest is None:
        if snapshot.output:
            scheduler.lost.note(request, snapshot.num_tokens - 1)
        request.status = snapshot.status
        scheduler.introduce(request, now)
        scheduler.queue([request])
    else:
        _take_over(engine, guest, snapshot)
        if request.status is not Status.RUNNING:
            scheduler.introduce(request, now)
            request.become(Status.RUNNING)
            scheduler.policy.on_scheduled(request, now)
        seat(engine, request)
    engine.requests[name] = request
    scheduler.log.migrating(request, now, "adopted", ())


def drop(engine: Engine, request_id: str) -> None:
    """It does not come: give up what was kept for it."""
    give_up(engine.scheduler, _guest(engine, request_id), engine.clock.now)


def _guest(engine: Engine, request_id: str) -> Request:
    guest = engine.scheduler.transit.guests.get(request_id)
    if guest is None:
        raise Refused(f"nothing is reserved for request {request_id!r}, or it was given up")
    return guest


def _fits_here(engine: Engine, snapshot: Snapshot) -> Request:
    request = snapshot.to_request()
    if snapshot.id in engine.scheduler.transit.guests:
        raise Refused(f"room is reserved for request {snapshot.id!r} already")
    if not engine.pool.shares:
        raise Refused("KV moves block by block, which contiguous memory has not")
    try:
        refuse_impossible(engine, request)
    except UserError as error:
        raise Refused(str(error)) from None
    return request


def _make_room(engine: Engine, guest: Request, num_tokens: int) -> None:
    before = len(engine.pool.table(guest.id))
    try:
        copies, _ = engine.pool.reserve(guest.id, num_tokens)
    except OutOfBlocks as error:
        raise Refused(str(error)) from None
    assert not copies, "a guest shares only whole blocks"
    gained = engine.pool.table(guest.id)[before:]
    if gained:
        engine.scheduler.log.migrating(guest, engine.clock.now, "reserved", gained)


def _take_over(engine: Engine, guest: Request, snapshot: Snapshot) -> None:
    """The guest gets its last tokens, and is no guest any more."""
    computed = guest.computed if guest in engine.scheduler.transit.preparing else max(guest.computed, snapshot.computed)
    if computed + 1 < snapshot.num_tokens:
        _make_room(engine, guest, snapshot.num_tokens)
    guest.tokens, guest.computed, guest.preemptions = list(snapshot.tokens), computed, snapshot.preemptions
    if engine.pool.caches:
        engine.pool.computed(guest.id, guest.tokens, computed)
    engine.scheduler.transit.remove(guest)
