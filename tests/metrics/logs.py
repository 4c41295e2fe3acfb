"""Event logs by hand and by chance, for the tests of the metrics."""

from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.events import Event, EventKind
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.policies import FCFS


def queued(time, name, prompt=10, **data):
    return Event(time, EventKind.QUEUED, name, {"prompt_tokens": prompt, "max_tokens": 100, **data})


def scheduled(time, name, computed=0):
    return Event(time, EventKind.SCHEDULED, name, {"computed": computed})


def tokens(time, name, count=1):
    return Event(time, EventKind.NEW_TOKENS, name, {"tokens": [7] * count})


def preempted(time, name):
    return Event(time, EventKind.PREEMPTED, name, {"computed": 3, "freed": 1})


def finished(time, name, reason="length"):
    return Event(time, EventKind.FINISHED, name, {"reason": reason})


def aborted(time, name, **data):
    return Event(time, EventKind.ABORTED, name, data)


def step(start, end, batch, waiting=0, running=1, used=1, blocks=4):
    return Event(end, EventKind.STEP, None, {
        "step": 0, "start": start, "batch": batch, "blocks": [], "waiting": waiting, "running": running,
        "used_blocks": used, "num_blocks": blocks, "block_size": 4})


def one_request(name="a", arrival=0.0, prompt=10, scheduled_at=1.0, times=(3.0, 4.0, 5.0), reason="length", **data):
    """The log of a request that is never preempted."""
    return [queued(arrival, name, prompt, **data), scheduled(scheduled_at, name),
            *(tokens(time, name) for time in times), finished(times[-1], name, reason)]


@st.composite
def engines(draw):
    """A small engine that has served random requests, with preemptions, aborts and idle times."""
    block_size, blocks = draw(st.integers(1, 4)), draw(st.integers(2, 10))
    budget, room = draw(st.integers(1, 16)), block_size * blocks
    engine = Engine(MockExecutor(block_size, vocab_size=8, max_length=1000), BlockPool(blocks, block_size), FCFS(),
                    draw(st.sampled_from(["static", "continuous", "mixed"])), budget,
                    draw(st.integers(1, min(6, budget))), VirtualClock(), eos_ids=frozenset({0}), checked=True)
    for number in range(draw(st.integers(1, 6))):
        length = draw(st.integers(1, room))
        engine.add(Request(draw(st.lists(st.integers(1, 7), min_size=length, max_size=length)),
                           SamplingParams(draw(st.integers(1, room - length + 1)))))
        for _ in range(draw(st.integers(0, 4))):
            engine.step()
        if draw(st.integers(0, 5)) == 0 and not engine.requests[f"r{number}"].done:
            engine.abort(f"r{number}")
        engine.clock.advance(draw(st.sampled_from([0.0, 0.5])))
    for _ in engine.stream():
        pass
    return engine
