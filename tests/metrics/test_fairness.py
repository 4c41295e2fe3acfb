"""Service by tenant, the gap while both are backlogged, Jain's index; how full the machine was."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.fairness import jain, max_service_gap, service, service_totals, vtc_bound
from llmcourse.metrics.records import records
from llmcourse.metrics.table import Table
from llmcourse.metrics.utilisation import utilisation
from tests.metrics.logs import aborted, engines, finished, one_request, preempted, queued, scheduled, step, tokens


def test_jain():
    assert jain([3, 3, 3]) == pytest.approx(1.0) and jain([1, 0, 0, 0]) == 0.25
    with pytest.raises(UserError):
        jain([1, -1])
    assert jain([1, 2]) == pytest.approx(9 / 10) and math.isnan(jain([])) and math.isnan(jain([0, 0]))


@given(st.lists(st.just(0.0) | st.floats(1e-6, 1e3), min_size=1, max_size=20).filter(any), st.floats(0.1, 10))
def test_jain_lies_between_one_nth_and_one_and_knows_no_units(values, unit):
    assert 1 / len(values) - 1e-9 <= jain(values) <= 1 + 1e-9
    assert jain([unit * value for value in values]) == pytest.approx(jain(values))


LOG = [queued(0, "a", 10, tenant="x"), queued(0, "b", 4, tenant="y"), scheduled(1, "a"), tokens(2, "a"),
       preempted(2, "a"), scheduled(3, "b"), tokens(4, "b"), finished(4, "b"), scheduled(4, "a"), tokens(5, "a", 3),
       finished(5, "a")]


def test_service_counts_a_prompt_once_and_an_output_token_twice():
    curves = service(LOG)
    assert list(curves) == ["x", "y"]
    assert [curves["x"].at(t) for t in (0.5, 1, 2, 3, 4, 5, 9)] == [0, 10, 12, 12, 12, 18, 18]
    assert curves["y"].total == 6 and curves["x"].between(1, 5) == 8
    assert service(LOG, 0, 1)["x"].total == 4 and service(LOG, weights={"x": 2})["x"].total == 9
    assert service_totals(Table.of(records(LOG))) == {"x": 18, "y": 6}
    assert service([]) == {}


def test_the_gap_counts_only_while_both_have_requests_waiting():
    """Both wait from 0 to 1; x is admitted at 1 and y waits alone until x is preempted at 2; from 3 on nobody waits."""
    assert max_service_gap(LOG).units == 0
    more = [queued(0, "c", 1, tenant="x"), *LOG]
    gap = max_service_gap(more)
    assert (gap.units, gap.ahead, gap.behind, gap.start, gap.end) == (12, "x", "y", 0, 2)
    assert "'x' got 12 units of service more than 'y'" in str(gap)
    assert max_service_gap(more, weights={"x": 2}).units == 6


def test_a_tenant_that_leaves_the_queue_and_returns_starts_anew():
    log = [queued(0, "y1", 1, tenant="y"), queued(0, "y2", 1, tenant="y"),
           queued(0, "x1", 50, tenant="x"), scheduled(1, "x1"), tokens(2, "x1"), finished(2, "x1"),
           queued(3, "x2", 5, tenant="x"), queued(3, "x3", 5, tenant="x"), scheduled(4, "x2"), tokens(5, "x2"),
           scheduled(6, "x3"), scheduled(6, "y1")]
    assert max_service_gap(log).units == 5 + 2                         # x1's 52 came while x had nobody waiting


def test_an_aborted_request_waits_no_more():
    log = [queued(0, "a", 10, tenant="x"), queued(0, "b", 10, tenant="y"), queued(0, "c", 10, tenant="y"),
           aborted(1, "a"), scheduled(2, "b"), tokens(3, "b")]
    assert max_service_gap(log).units == 0
    assert str(max_service_gap([])) == "no two tenants were backlogged at the same time"


def test_the_larger_direction_wins_whoever_is_first_by_name():
    log = [*(queued(0, f"{t}{i}", 10, tenant=t) for t in "ab" for i in range(9)),
           scheduled(1, "a0"), *(scheduled(2 + i, f"b{i}") for i in range(4))]
    gap = max_service_gap(log)
    assert (gap.units, gap.ahead, gap.behind, gap.start, gap.end) == (40, "b", "a", 1, 5)


def brute_gap(log):
    """The same from the definition: at every pair of moments, between tenants who wait all the while."""
    curves, times = service(log), sorted({event.time for event in log if event.kind != "STEP"})
    waiting = {time: {} for time in times}
    for time in times:
        queue = {}
        for event in log:
            if event.time <= time and event.kind in ("QUEUED", "PREEMPTED"):
                queue[event.request] = next(e.data["tenant"] for e in log if e.request == event.request)
            elif event.time <= time and event.kind in ("SCHEDULED", "ABORTED"):
                queue.pop(event.request, None)
        waiting[time] = set(queue.values())
    best = 0.0
    for i, start in enumerate(times):
        both = waiting[start]
        for end in times[i:]:
            both = both & waiting[end]
            got = [curves[name].between(start, end) for name in both]
            best = max(best, max(got, default=0) - min(got, default=0))
    return best


@settings(max_examples=60, deadline=None)
@given(engines(), st.integers(0, 100))
def test_the_gap_is_that_of_the_definition(engine, shift):
    names = {name: "xyz"[(i + shift) % 3] for i, name in enumerate(engine.requests)}
    for event in engine.events:
        if event.kind == "QUEUED":
            event.data["tenant"] = names[event.request]
    assert max_service_gap(engine.events).units == pytest.approx(brute_gap(engine.events))


def test_what_vtc_promises():
    assert vtc_bound(256, 10_000) == 40_000 and vtc_bound(50_000, 100) == 100_000


def test_utilisation_by_hand():
    log = [queued(0, "a"), step(1, 3, [("a", 0, 10)], waiting=2, used=2),
           step(3, 4, [("a", 10, 1), ("b", 5, 1)], used=4), finished(5, "a")]
    found = utilisation(log, max_running=4, token_budget=16)
    assert (found.instances, found.steps, found.seconds, found.busy) == (1, 2, 5.0, 0.6)
    assert found.batch == pytest.approx((2 * 1 + 1 * 2) / 3) and found.batch_share == found.batch / 4
    assert found.tokens == pytest.approx((2 * 10 + 2) / 3) and found.budget_share == found.tokens / 16
    assert found.kv_usage == pytest.approx((2 * 0.5 + 1.0) / 3) and found.kv_peak == 1.0
    assert found.waiting == pytest.approx(4 / 3)
    assert "busy 60.0% of 5 s" in str(found) and math.isnan(utilisation(log).batch_share)


def test_utilisation_between_two_times():
    log = [queued(0, "a"), step(1, 3, [("a", 0, 10)]), step(3, 4, [("a", 10, 1)]), finished(4, "a")]
    found = utilisation(log, start=2, end=6)
    assert found.busy == 0.5 and found.steps == 2 and found.tokens == pytest.approx(11 / 2)
    assert utilisation(log, start=10, end=20).busy == 0


def test_a_log_without_steps_is_refused():
    with pytest.raises(UserError, match="no steps"):
        utilisation(one_request())


@settings(max_examples=50, deadline=None)
@given(engines())
def test_utilisation_of_a_run_is_made_of_shares(engine):
    if not engine.counters.steps:
        return
    found = utilisation(engine.events, engine.scheduler.max_running, engine.scheduler.token_budget)
    for share in (found.busy, found.kv_usage, found.kv_peak, found.batch_share):
        assert 0 <= share <= 1 + 1e-9
    assert found.kv_usage <= found.kv_peak + 1e-9


def test_a_tenant_that_asks_for_more_gets_more_under_fcfs():
    engine = Engine(MockExecutor(4, vocab_size=8), BlockPool(64, 4), token_budget=32, max_running=4,
                    clock=VirtualClock())
    for number in range(30):
        engine.add(Request([1] * 4, SamplingParams(4), id=f"q{number}"))
    for _ in engine.stream():
        pass
    for event in engine.events:
        if event.kind == "QUEUED":
            event.data["tenant"] = "heavy" if int(event.request[1:]) % 3 else "light"
    curves = service(engine.events)
    half = engine.clock.now / 2
    assert curves["heavy"].at(half) == pytest.approx(2 * curves["light"].at(half), rel=0.3)
    assert jain([curve.total for curve in curves.values()]) == pytest.approx(jain([2, 1]))
    assert isinstance(curves["heavy"].units, np.ndarray)


def test_what_was_found_in_a_cache_need_not_count():
    log = [queued(0, "a", 10, tenant="x"), queued(0, "b", 10, tenant="y"), queued(0, "c", 10, tenant="x"),
           queued(0, "d", 10, tenant="y"), scheduled(1, "a", computed=8), scheduled(1, "b"), tokens(2, "a")]
    assert service(log, found_is_free=True)["x"].total == 2 + 2 and service(log)["x"].total == 10 + 2
    assert max_service_gap(log, found_is_free=True).ahead == "y" and max_service_gap(log).ahead == "x"
