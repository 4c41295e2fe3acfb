"""Logs to look at: one written by hand, one made by the real scheduler on a mock model with too few blocks."""

import pytest

from llmcourse.engine import Engine, Event, Request, SamplingParams, VirtualClock
from llmcourse.executors.mock import MockExecutor
from llmcourse.kv.block_pool import BlockPool

WORK = [(24, 30), (40, 6), (12, 18), (64, 8), (20, 24), (16, 5), (30, 12), (50, 10)]


def step(number, start, end, batch, blocks, used, waiting=0, running=1):
    data = {"step": number, "start": start, "batch": batch, "blocks": blocks, "waiting": waiting, "running": running,
            "used_blocks": used, "num_blocks": 4, "block_size": 4}
    return Event(end, "STEP", None, data)


@pytest.fixture
def small():
    """A is served, B waits, A is preempted after two tokens, recomputed after B, and finishes."""
    return [
        Event(0.0, "QUEUED", "a", {"prompt_tokens": 5, "max_tokens": 3}),
        Event(0.5, "QUEUED", "b", {"prompt_tokens": 3, "max_tokens": 1}),
        Event(1.0, "SCHEDULED", "a", {"computed": 0}),
        step(0, 1.0, 2.0, [("a", 0, 5)], [("a", [2, 0])], 2, waiting=1),
        Event(2.0, "NEW_TOKENS", "a", {"tokens": [7]}),
        step(1, 2.0, 3.0, [("a", 5, 1)], [], 2, waiting=1),
        Event(3.0, "NEW_TOKENS", "a", {"tokens": [8]}),
        Event(3.0, "PREEMPTED", "a", {"computed": 6, "freed": 2}),
        Event(3.0, "SCHEDULED", "b", {"computed": 0}),
        step(2, 3.0, 4.0, [("b", 0, 3)], [("b", [1])], 1, waiting=1),
        Event(4.0, "NEW_TOKENS", "b", {"tokens": [9]}),
        Event(4.0, "FINISHED", "b", {"reason": "length"}),
        Event(4.0, "SCHEDULED", "a", {"computed": 0}),
        step(3, 4.0, 6.0, [("a", 0, 7)], [("a", [3, 1])], 2),
        Event(6.0, "NEW_TOKENS", "a", {"tokens": [5]}),
        Event(6.0, "FINISHED", "a", {"reason": "length"}),
    ]


def served(batching="mixed", blocks=20, seats=8, work=WORK):
    """Events of the course's own scheduler serving `work` (prompt, output) with a pool of `blocks` of 8 tokens."""
    engine = Engine(MockExecutor(8), BlockPool(blocks, 8), batching=batching, token_budget=32, max_running=seats,
                    clock=VirtualClock(), checked=True)
    for number, (prompt, output) in enumerate(work):
        params = SamplingParams(max_tokens=output, ignore_eos=True)
        engine.add(Request([1 + (number + k) % 60 for k in range(prompt)], params, id=f"r{number}"))
    list(engine.stream())
    return engine.events


@pytest.fixture(scope="session")
def tight():
    """A run with preemptions."""
    events = served(blocks=16)
    assert any(event.kind == "PREEMPTED" for event in events)
    return events
