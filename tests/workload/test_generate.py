"""Open loop, merging, scaling, the oracle; SLOs and arrivals themselves."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.workload import (
    INTERACTIVE,
    SLO,
    Arrival,
    Constant,
    Gamma,
    Lognormal,
    Poisson,
    merge,
    open_loop,
    scale,
    slo_classes,
    with_oracle,
)
from llmcourse.workload.derive import rank_correlation

workloads = st.lists(st.builds(Arrival, st.floats(0, 1e6), st.integers(1, 9), st.integers(1, 9), st.text(max_size=2))
                     ).map(lambda arrivals: sorted(arrivals, key=lambda arrival: arrival.time))


def test_an_open_loop_is_what_it_was_made_of():
    load = open_loop(Poisson(4), Lognormal(500, p99=3000), Constant(20), count=5000, seed=1, tenant="a",
                     slo=INTERACTIVE, priority=2)
    assert len(load) == 5000
    assert load[-1].time == pytest.approx(1250, rel=0.1)
    assert np.median([arrival.prompt_tokens for arrival in load]) == pytest.approx(500, rel=0.05)
    assert {(arrival.output_tokens, arrival.tenant, arrival.slo, arrival.priority) for arrival in load} == {
        (20, "a", INTERACTIVE, 2)}
    assert load == open_loop(Poisson(4), Lognormal(500, p99=3000), Constant(20), 5000, 1, "a", INTERACTIVE, 2)
    assert load != open_loop(Poisson(4), Lognormal(500, p99=3000), Constant(20), 5000, 2, "a", INTERACTIVE, 2)


@pytest.mark.parametrize("wanted", [-0.4, 0, 0.6])
def test_prompt_and_output_have_the_rank_correlation(wanted):
    load = open_loop(Poisson(1), Lognormal(500, sigma=1), Lognormal(100, sigma=1), 20_000, 0, rank_correlation=wanted)
    pairs = np.array([(arrival.prompt_tokens, arrival.output_tokens) for arrival in load])
    assert rank_correlation(*pairs.T) == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize(("seed", "count"), [(-1, 1), (1.5, 1), ("x", 1), (0, -1)])
def test_a_bad_seed_or_count_is_refused(seed, count):
    with pytest.raises(UserError):
        open_loop(Poisson(1), Constant(1), Constant(1), count, seed)


@settings(max_examples=50, deadline=None)
@given(st.lists(workloads, max_size=4))
def test_merging_keeps_everybody_in_order(parts):
    merged = merge(*parts)
    assert sorted(map(repr, merged)) == sorted(repr(arrival) for part in parts for arrival in part)
    assert all(first.time <= second.time for first, second in pairwise(merged))


@settings(max_examples=50, deadline=None)
@given(workloads, st.floats(0.01, 100))
def test_scaling_changes_nothing_but_time(load, factor):
    scaled = scale(load, factor)
    assert [arrival.time for arrival in scaled] == [arrival.time * factor for arrival in load]
    assert [dataclasses.replace(arrival, time=0) for arrival in scaled] == [
        dataclasses.replace(arrival, time=0) for arrival in load]


def test_scaling_doubles_the_rate_and_keeps_the_cv():
    def cv(arrivals):
        gaps = np.diff([arrival.time for arrival in arrivals])
        return gaps.std() / gaps.mean()

    load = open_loop(Gamma(2, 3), Constant(1), Constant(1), 2000, 0)
    assert scale(load, 0.5)[-1].time == load[-1].time / 2
    assert cv(scale(load, 0.5)) == pytest.approx(cv(load))


def test_no_factor_stops_time_or_turns_it_round():
    for factor in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="doubles the rate"):
            scale([], factor)


@settings(max_examples=50, deadline=None)
@given(workloads)
def test_the_oracle_is_right(load):
    assert all(arrival.predicted == arrival.output_tokens for arrival in with_oracle(load))


def test_an_slo_is_a_bound_that_can_be_kept():
    assert SLO() == SLO(None, None)
    assert set(slo_classes()) == {"code", "interactive", "document", "batch"}
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="tpot"):
            SLO(tpot=bad)


def test_an_arrival_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Arrival(0, 1, 1).time = 3
