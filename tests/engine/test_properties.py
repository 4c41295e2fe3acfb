"""Invariants 1-5 and 7 under random schedules: any arrivals, lengths, pool, budget, batching, policy and aborts."""

from hypothesis import given, settings

from llmcourse.engine import Status
from llmcourse.engine.events import EventKind
from llmcourse.engine.invariants import check_delivery
from llmcourse.policies import FCFS
from tests.engine.worlds import World, run, worlds


@settings(max_examples=500, deadline=None)
@given(worlds())
def test_nothing_is_lost_repeated_or_changed_under_any_schedule(world: World) -> None:
    engine = run(world)
    check_delivery(engine)
    assert engine.pool.num_free == world.num_blocks
    for number, job in enumerate(world.jobs):
        request = engine.requests[f"j{number}"]
        alone = world.alone(job)
        if request.status is Status.ABORTED:
            assert request.output == alone[:len(request.output)]
        else:
            assert request.output == alone
    counters = engine.counters
    useful = sum(len(r.tokens) - 1 for r in engine.requests.values() if r.status is Status.FINISHED)
    if not any(r.status is Status.ABORTED for r in engine.requests.values()):
        assert counters.computed_tokens == useful + counters.recomputed_tokens
    assert counters.preemptions == sum(e.kind is EventKind.PREEMPTED for e in engine.events)


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=150, deadline=None)
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
