"""What the tests of single policies share: a mocked engine, requests, and a simulated 7B model."""

from collections.abc import Callable, Sequence

from llmcourse.engine import Engine, Policy, Request, SamplingParams, VirtualClock
from llmcourse.engine.admission import Admission
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool


def mocked(policy: Policy, slots: int = 1, num_blocks: int = 64, block_size: int = 4, batching: str = "mixed",
           budget: int = 64, step: float = 1.0, admission: Admission | None = None) -> Engine:
    """An engine whose every step takes ``step`` seconds, so that a request of n output tokens runs n steps."""
    executor = MockExecutor(block_size, max_length=100_000, step_seconds=step, token_seconds=0.0)
    return Engine(executor, BlockPool(num_blocks, block_size), policy, batching, budget, slots, VirtualClock(),
                  checked=True, admission=admission)


def ask(output: int, prompt: int = 1, **fields: object) -> Request:
    """A request for exactly ``output`` tokens after a prompt of ``prompt``."""
    return Request([1] * prompt, SamplingParams(max_tokens=output, ignore_eos=True), **fields)  # type: ignore[arg-type]


def serve(engine: Engine, arrivals: Sequence[tuple[float, Request]],
          after_step: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Add each request at its time, run until idle; when each ended (s), by id."""
    later = sorted(arrivals, key=lambda arrival: arrival[0])
    while later or not engine.idle:
        while later and later[0][0] <= engine.clock.now:
            time, request = later.pop(0)
            request.arrival = time
            engine.add(request)
        if engine.idle:
            engine.clock.advance(later[0][0] - engine.clock.now)
            continue
        engine.step()
        after_step()
    return {event.request: event.time for event in engine.events if event.kind == "FINISHED" and event.request}


def first_tokens(engine: Engine) -> dict[str, float]:
    """When each request got its first token (s), by id."""
    first: dict[str, float] = {}
    for event in engine.events:
        if event.kind == "NEW_TOKENS" and event.request:
            first.setdefault(event.request, event.time)
    return first


def simulate_all(engine: Engine, arrivals: Sequence[tuple[float, Request]], jump: bool) -> Engine:
    """Add each request at its time (s), run until idle, jumping over equal steps or not; every step does something."""
    later = sorted(arrivals, key=lambda arrival: arrival[0])
    while later or not engine.idle:
        while later and later[0][0] <= engine.clock.now:
            engine.add(later.pop(0)[1])
        until = later[0][0] if later else float("inf")
        if engine.idle:
            engine.clock.advance_to(until)
            continue
        computed = engine.counters.computed_tokens
        engine.step()
        assert engine.counters.computed_tokens > computed, "somebody is queued and nothing is computed"
        if jump and not engine.idle:
            engine.forward(until)
    return engine
