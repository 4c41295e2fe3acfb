"""What must hold between any two steps, whatever the policy, the batching and the load.

Each check is one sentence that names who broke it. Tests and labs run them after every step. Week 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcourse.engine.events import EventKind
from llmcourse.engine.request import Status

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine


def check_engine(engine: Engine) -> None:
    """Blocks, queues and progress of every live request; AssertionError names the first thing wrong."""
    scheduler, pool = engine.scheduler, engine.pool
    pool.check_invariants()
    queued = [*scheduler.waiting, *scheduler.running, *scheduler.families.members]
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
        if request.status is Status.RUNNING:
            assert pool.length(request.id) >= request.computed, f"{name} has KV in blocks it does not own"
            assert request in scheduler.running, f"{name} runs outside the running queue"
        else:
            assert not pool.table(request.id), f"{name} still owns blocks {pool.table(request.id)}"
        saved = host.length(request.id) if host is not None else 0
        assert saved == (request.computed if request.status is Status.SWAPPED else 0), (
            f"{name} has computed {request.computed} tokens, and host memory keeps {saved}")
    assert len(scheduler.running) <= scheduler.max_running, f"{len(scheduler.running)} requests run at once"


def check_delivery(engine: Engine) -> None:
    """Token conservation over the whole log: every token of every request was delivered once and in order."""
    delivered: dict[str, list[int]] = {request_id: [] for request_id in engine.requests}
    for event in engine.events:
        if event.kind is EventKind.NEW_TOKENS:
            assert event.request is not None
            delivered[event.request] += event.data["tokens"]
    for request_id, request in engine.requests.items():
        assert delivered[request_id] == request.output, f"request {request_id} holds other tokens than it was sent"
