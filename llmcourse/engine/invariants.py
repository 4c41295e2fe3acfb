"""What must hold between any two steps, whatever the policy, the batching and the load.

Each check is one sentence that names who broke it. Tests and labs run them after every step. Week 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcourse.engine.events import EventKind
from llmcourse.engine.request import Status
from llmcourse.engine.room import seated

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine


def check_engine(engine: Engine) -> None:
    """Blocks, queues and progress of every live request; AssertionError names the first thing wrong."""
    scheduler, pool = engine.scheduler, engine.pool
    pool.check_invariants()
    transit = scheduler.transit
    queued = [*scheduler.waiting, *scheduler.running, *scheduler.families.members,
              *(left.request for left in transit.leaving.values())]
    live = {id(request) for request in queued}
    assert len(live) == len(queued), "a request stands in the queues twice"
    host = scheduler.host
    if host is not None:
        host.check_invariants()
    for request in engine.requests.values():
        name = f"request {request.id} ({request.status})"
        assert (id(request) in live) != request.done, f"{name} is lost: neither queued nor done"
        assert 0 <= request.computed <= len(request.tokens), f"{name} computed {request.computed} of its tokens"
        assert list(request.prompt) == request.tokens[:len(request.prompt)], f"{name} lost its prompt"
        left = transit.leaving.get(request.id)
        assert (left is not None) == (request.status is Status.MIGRATING), f"{name} is on its way, or is not"
        status = request.status if left is None else left.status
        assert (request in scheduler.parked) == (request.status is Status.PARKED), f"{name} is parked, or is not"
        if status in (Status.RUNNING, Status.PARKED):
            assert pool.length(request.id) >= request.computed, f"{name} has KV in blocks it does not own"
            runs = status is Status.RUNNING and left is None
            assert (request in scheduler.running) == runs, f"{name} runs outside the running queue"
        else:
            assert not pool.table(request.id), f"{name} still owns blocks {pool.table(request.id)}"
        saved = host.length(request.id) if host is not None else 0
        assert saved == (request.computed if status is Status.SWAPPED else 0), (
            f"{name} has computed {request.computed} tokens, and host memory keeps {saved}")
    taken, most = seated(scheduler), scheduler.max_running + scheduler.overhang
    assert taken <= most, f"{taken} requests run at once, or may have to, and there are seats for {most}"
    for name in transit.guests:
        assert name in pool.tables and name not in engine.requests, f"guest {name} has no room here, or lives here"


def check_delivery(engine: Engine) -> None:
    """Token conservation over the whole log: every token of every request was delivered once and in order."""
    delivered: dict[str, list[int]] = {request_id: [] for request_id in engine.requests}
    for event in engine.events:
        if event.kind is EventKind.NEW_TOKENS:
            assert event.request is not None
            delivered[event.request] += event.data["tokens"]
    for request_id, request in engine.requests.items():
        assert delivered[request_id] == request.output, f"request {request_id} holds other tokens than it was sent"
