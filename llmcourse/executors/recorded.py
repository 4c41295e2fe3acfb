"""Runs a recorded service again: the step times and tokens of a log, under a scheduler that decides anew.

What a scheduler decides depends on arrivals, on step times, and on which token ends a request, on nothing else. So a
run of the real engine can be followed in virtual time without its model, and its decisions must come out the same
(invariant 6); or another policy can be asked what it would have done. Week 3.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from llmcourse.engine.batch import NO_VOCABULARY, Batch, Limits, StepResult
from llmcourse.engine.clock import VirtualClock
from llmcourse.engine.engine import Engine
from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.request import Request, SamplingParams
from llmcourse.errors import UserError
from llmcourse.kv.block_pool import BlockPool

END = -2                                 # the token that ends whoever ended by itself, whatever its end token was


class RecordedExecutor:
    """Gives each step the length, and each request the tokens, that a log says it had."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.limits = Limits(NO_VOCABULARY, sys.maxsize)
        steps = [event for event in events if event.kind is EventKind.STEP]
        self._seconds = deque(event.time - event.data["start"] for event in steps)
        self._tokens: dict[str, deque[int]] = defaultdict(deque)
        for event in events:
            if event.kind is EventKind.NEW_TOKENS:
                self._tokens[str(event.request)] += event.data["tokens"]
            elif event.kind is EventKind.FINISHED and event.data["reason"] == "stop":
                self._tokens[str(event.request)][-1] = END

    def execute(self, batch: Batch) -> StepResult:
        """The next step's recorded seconds and tokens; UserError when the log has no more."""
        if not self._seconds:
            raise UserError("the recorded run has no more steps: the scheduler has decided otherwise than it did then")
        tokens = {item.request.id: self._token(item.request.id) for item in batch.items if item.samples}
        return StepResult(tokens, self._seconds.popleft())

    def _token(self, request_id: str) -> int:
        if not self._tokens[request_id]:
            raise UserError(f"the recorded run gave request {request_id} no further token")
        return self._tokens[request_id].popleft()


def rerun(events: Sequence[Event], **options: Any) -> Engine:
    """Follow a recorded run with a new scheduler in virtual time; ``options`` as for `Engine`, as they were then.

    Requests are queued between the same two steps as then, steps start and end at the same moments, owners abort at the
    same ones. Returns the engine, whose `decisions` are to be compared. The pool's size is read off the log.
    """
    first = next((event.data for event in events if event.kind is EventKind.STEP), None)
    if first is None:
        raise UserError("the log has no STEP in it; nothing was run that could be run again")
    clock = VirtualClock()
    pool = BlockPool(first["num_blocks"], first["block_size"])
    engine = Engine(RecordedExecutor(events), pool, clock=clock,
                    eos_ids=frozenset({END}), **options)
    for event in events:
        if event.kind is EventKind.QUEUED and "sibling_of" not in event.data:
            engine.add(_request(event))                       # and with it all answers to its prompt
        elif event.kind is EventKind.STEP:
            clock.now = event.data["start"]
            engine.step()
        elif event.kind is EventKind.ABORTED and "reason" not in event.data:
            clock.now = event.time
            engine.abort(str(event.request))
    return engine


def _request(event: Event) -> Request:
    from llmcourse.workload.slo import SLO
    data = event.data
    promised = data.get("ttft_slo") is not None or data.get("tpot_slo") is not None
    sampling = SamplingParams(max_tokens=data["max_tokens"], n=data.get("answers", 1))
    return Request(range(1, data["prompt_tokens"] + 1), sampling, str(event.request), event.time,
                   data.get("priority", 0), data.get("tenant", ""),
                   SLO(data["ttft_slo"], data["tpot_slo"]) if promised else None, data.get("predicted"))
