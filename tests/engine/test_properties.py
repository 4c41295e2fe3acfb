"""Invariants 1-5 and 7 under random schedules: any arrivals, lengths, pool, budget, batching, policy and aborts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Policy, Request, SamplingParams, Status, VirtualClock
from llmcourse.engine.events import EventKind
from llmcourse.engine.invariants import check_delivery
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, Memory
from llmcourse.policies import FCFS


class LatestFirst(Policy):
    """Unfair on purpose: newcomers go before everybody."""

    def key(self, request: Request, now: float) -> float:
        return -(request.arrival or 0)


class ShortestPrompt(Policy):
    """Reorders all the time, and preempts its own favourite."""

    def key(self, request: Request, now: float) -> float:
        return len(request.prompt)

    def victim(self, running: Sequence[Request], now: float) -> Request:
        return running[0]


@dataclass
class Job:
    """One request of a random workload: when it comes (in steps), what it asks, and when its owner gives up."""

    step: int
    prompt: list[int]
    max_tokens: int
    ignore_eos: bool
    abort_after: int | None


@dataclass
class World:
    """A random engine and its workload."""

    num_blocks: int
    block_size: int
    batching: str
    token_budget: int
    max_running: int
    policy: Policy
    jobs: list[Job] = field(default_factory=list)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    block_size = draw(st.integers(1, 5))
    num_blocks = draw(st.integers(2, 14))
    budget = draw(st.integers(1, 24))
    world = World(num_blocks, block_size, draw(st.sampled_from(["static", "continuous", "mixed"])), budget,
                  max_running=draw(st.integers(1, min(8, budget))),
                  policy=draw(st.sampled_from([FCFS(), LatestFirst(), ShortestPrompt()])))
    room = num_blocks * block_size
    for _ in range(draw(st.integers(1, 8))):
        length = draw(st.integers(1, room))
        world.jobs.append(Job(
            step=draw(st.integers(0, 12)), prompt=draw(st.lists(st.integers(1, 7), min_size=length, max_size=length)),
            max_tokens=draw(st.integers(1, room - length + 1)), ignore_eos=draw(st.booleans()),
            abort_after=draw(st.one_of(st.none(), st.none(), st.integers(0, 10)))))
    return world


def run(world: World, pool: Memory | None = None) -> Engine:
    """Play the workload; every step is checked, must do something, and keeps to the budget."""
    engine = Engine(MockExecutor(world.block_size, vocab_size=8, max_length=1000),
                    pool or BlockPool(world.num_blocks, world.block_size), world.policy, world.batching,
                    world.token_budget, world.max_running, VirtualClock(), eos_ids=frozenset({0}), checked=True)
    pending = sorted(enumerate(world.jobs), key=lambda item: item[1].step)
    aborts: list[tuple[int, str]] = []
    step = 0
    while pending or not engine.idle:
        while pending and pending[0][1].step <= step:
            number, job = pending.pop(0)
            engine.add(Request(job.prompt, SamplingParams(job.max_tokens, ignore_eos=job.ignore_eos), id=f"j{number}"))
            if job.abort_after is not None:
                aborts.append((step + job.abort_after, f"j{number}"))
        for _, name in [a for a in aborts if a[0] == step]:
            if not engine.requests[name].done:
                engine.abort(name)
        busy = not engine.idle
        tokens_before = engine.counters.computed_tokens
        engine.step()
        computed = engine.counters.computed_tokens - tokens_before
        assert computed > 0 or not busy, "requests were queued and the step did nothing"
        if world.batching == "mixed":
            assert computed <= world.token_budget
        step += 1
        assert step < 3000, "the queue never empties"
    return engine


@settings(max_examples=1000, deadline=None)
@given(worlds())
def test_nothing_is_lost_repeated_or_changed_under_any_schedule(world: World) -> None:
    engine = run(world)
    check_delivery(engine)
    assert engine.pool.num_free == world.num_blocks
    for number, job in enumerate(world.jobs):
        request = engine.requests[f"j{number}"]
        alone = MockExecutor(world.block_size, vocab_size=8).continue_alone(job.prompt, job.max_tokens, job.ignore_eos)
        if request.status is Status.ABORTED:
            assert request.output == alone[:len(request.output)]
        else:
            assert request.output == alone
    counters = engine.counters
    useful = sum(len(r.tokens) - 1 for r in engine.requests.values() if r.status is Status.FINISHED)
    if not any(r.status is Status.ABORTED for r in engine.requests.values()):
        assert counters.computed_tokens == useful + counters.recomputed_tokens
    assert counters.preemptions == sum(e.kind is EventKind.PREEMPTED for e in engine.events)


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_under_fcfs_the_oldest_request_is_never_preempted_for_a_younger(world: World) -> None:
    world.policy = FCFS()
    engine = run(world)
    live: list[str] = []
    for event in engine.events:
        if event.kind is EventKind.QUEUED:
            live.append(str(event.request))
        elif event.kind is EventKind.PREEMPTED:
            assert event.request != live[0] or len(live) == 1
        elif event.kind in (EventKind.FINISHED, EventKind.ABORTED):
            live.remove(str(event.request))


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_the_log_rebuilds_the_block_map(world: World) -> None:
    """From STEP, PREEMPTED, FINISHED and ABORTED events alone: no block with two owners, counts as stated."""
    owned: dict[str, list[int]] = {}
    for event in run(world).events:
        if event.kind is EventKind.STEP:
            for owner, blocks in event.data["blocks"]:
                owned.setdefault(owner, []).extend(blocks)
            flat = [block for blocks in owned.values() for block in blocks]
            assert len(flat) == len(set(flat)) == event.data["used_blocks"]
            needed = {name: -(-(start + count) // world.block_size) for name, start, count in event.data["batch"]}
            assert all(len(owned[name]) >= blocks for name, blocks in needed.items())
        elif event.kind in (EventKind.PREEMPTED, EventKind.FINISHED, EventKind.ABORTED):
            owned.pop(str(event.request), None)
    assert not owned


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_intervals_add_up_to_end_to_end(world: World) -> None:
    engine = run(world)
    for record in engine.records():
        request = engine.requests[record.id]
        assert record.output_tokens == len(request.output)
        if record.finish_reason in ("stop", "length"):
            parts = [record.queue_time, record.prefill_time, record.decode_time, record.preempted_time]
            assert all(part is not None and part >= -1e-9 for part in parts)
            assert abs(sum(parts) - record.e2e) < 1e-9  # type: ignore[arg-type]
            assert abs(record.ttft + sum(record.itl) - record.e2e) < 1e-9  # type: ignore[operator]
