"""A meter says of a run what its event log would have said."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.metrics.meter import Meter, metered
from llmcourse.metrics.utilisation import utilisation
from llmcourse.workload import Arrival

arrivals = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 300), st.integers(1, 120)), min_size=1, max_size=12)


def run(jobs, ledger=None, **options):
    """Simulate the jobs (time, prompt, output)."""
    engine = Engine.simulated(num_blocks=60, token_budget=64, max_running=6, ledger=ledger, **options)
    replay(engine, [Arrival(*job) for job in sorted(jobs)])
    return engine


@settings(max_examples=60, deadline=None)
@given(arrivals, st.sampled_from(["static", "continuous", "mixed"]))
def test_a_meter_agrees_with_the_log(jobs, batching):
    logged, meter = run(jobs, batching=batching), Meter()
    run(jobs, meter, batching=batching)
    want = dataclasses.asdict(utilisation(logged.events, 6, 64))
    assert dataclasses.asdict(metered([meter], 6, 64)) == pytest.approx(want)


def test_instances_are_added_up():
    """Two equal machines are twice as many and just as full; one that stands idle halves what is busy."""
    meters = [Meter(), Meter()]
    for meter in meters:
        run([(0.0, 100, 20)], meter)
    one, two = metered(meters[:1]), metered(meters)
    assert two.instances == 2 and two.steps == 2 * one.steps and two.busy == one.busy == pytest.approx(1.0)
    idle = metered([meters[0], Meter()])
    assert idle.busy == pytest.approx(0.5) and idle.batch == pytest.approx(one.batch)


def test_without_a_step_there_is_nothing_to_say():
    with pytest.raises(UserError, match="no step"):
        metered([Meter()])
