import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Event
from llmcourse.errors import UserError
from llmcourse.metrics.records import records
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.timeline import merge, step_at
from llmcourse.viz.waterfall import parts

from .conftest import served


def kinds(timeline, request):
    return [(s.kind, s.first, s.last) for s in timeline.spans if s.request == request]


def test_a_log_is_read_into_spans_that_tell_the_story(small):
    timeline = read_timeline(small)
    assert kinds(timeline, "a") == [("waiting", 0, -1), ("prefill", 0, 0), ("decode", 1, 1), ("preempted", 2, 2),
                                    ("recompute", 3, 3)]
    assert kinds(timeline, "b") == [("waiting", 0, 1), ("prefill", 2, 2)]
    assert [life.letter for life in timeline.lives.values()] == ["A", "B"]
    assert timeline.preemptions == ((3.0, 2, "a"),)


def test_blocks_are_those_owned_in_that_step_and_freed_ones_leave(small):
    timeline = read_timeline(small)
    assert step_at(timeline, 1).tables == {"a": (2, 0)}
    assert step_at(timeline, 2).tables == {"b": (1,)}
    assert step_at(timeline, None).tables == {"a": (3, 1)}
    assert step_at(timeline, None).stored == {"a": 7}


def test_an_unknown_step_and_a_log_without_its_beginning_are_refused(small):
    with pytest.raises(UserError, match="steps 0 to 3"):
        step_at(read_timeline(small), 9)
    with pytest.raises(UserError, match="QUEUED"):
        read_timeline([Event(0.0, "NEW_TOKENS", "ghost", {"tokens": [1]})])


work = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12)), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(work, st.sampled_from(["static", "continuous", "mixed"]), st.integers(10, 30), st.integers(1, 6))
def test_any_run_is_cut_without_gap_or_overlap_and_agrees_with_the_records(work, batching, blocks, seats):
    events = served(batching, blocks, seats, work)
    timeline = read_timeline(events)
    for step in timeline.steps:
        owned = [block for table in step.tables.values() for block in table]
        assert len(set(owned)) == len(owned) == step.used_blocks
    for record in records(events):
        life = timeline.lives[record.id]
        cut = parts(life, timeline.end)
        assert cut[0][1] == record.arrival
        assert sum(stop - start for _, start, stop in cut) == pytest.approx(record.e2e)
        queue = sum(stop - start for kind, start, stop in cut if kind == "waiting")
        assert queue == pytest.approx(record.queue_time, abs=1e-9)
        lost = sum(stop - start for kind, start, stop in cut if kind == "preempted")
        assert lost == pytest.approx(record.preempted_time, abs=1e-9)
    whole = merge(timeline.spans)
    assert sum(s.tokens for s in whole) == sum(count for step in timeline.steps for _, _, count in step.batch)


def test_the_log_of_a_cluster_is_read_whole_and_by_instance():
    from llmcourse.cluster import Freeness, Rebalance, VirtualDriver
    from llmcourse.engine import Engine
    from llmcourse.workload import Poisson, PowerLaw, open_loop

    lengths = PowerLaw.of_mean(256, longest=6000)
    engines = [Engine.simulated(gpu="A10", num_blocks=400) for _ in range(3)]
    driver = VirtualDriver(engines, Freeness(), Rebalance())
    driver.run(open_loop(Poisson(8), lengths, lengths, 120, seed=1))
    assert sum(migration.outcome == "moved" for migration in driver.migrations) > 3
    whole = read_timeline(driver.events)
    assert len(whole.lives) == 120 and all(life.finished for life in whole.lives.values())
    for number in range(3):
        here = read_timeline([event for event in driver.events if event.instance == number])
        for step in here.steps:
            assert len({block for table in step.tables.values() for block in table}) == step.used_blocks


def test_parked_requests_keep_their_blocks_until_they_are_evicted():
    from llmcourse.engine import Engine, replay
    from llmcourse.policies import FastServe
    from llmcourse.workload import Lognormal, Poisson, open_loop

    engine = Engine.simulated(gpu="A10", num_blocks=120, max_running=4, policy=FastServe(), parking=True)
    lengths = Lognormal.of_moments(150, 200)
    replay(engine, open_loop(Poisson(3), lengths, lengths, 40, seed=1))
    kinds = [event.kind for event in engine.events]
    assert engine.counters.parked > 10 and "EVICTED" in kinds
    for step in read_timeline(engine.events).steps:
        assert len({block for table in step.tables.values() for block in table}) == step.used_blocks
