"""Views of weeks 3 to 5: every one says its finding, holds its numbers, and draws a legible picture."""

import math
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import viz
from llmcourse.engine import Event
from llmcourse.errors import UserError
from llmcourse.metrics.fairness import Curve
from llmcourse.metrics.records import records
from llmcourse.metrics.slo import Attainment
from llmcourse.metrics.table import Table
from llmcourse.viz.attainment import Share, crossing
from llmcourse.viz.frontier import Setting, pareto
from llmcourse.viz.latency_curve import Load, knee
from llmcourse.workload.slo import SLO

from .conftest import step

RATES = [(1, [0.1] * 99 + [0.2]), (2, [0.1] * 99 + [0.3]), (4, [0.12] * 99 + [0.5]), (8, [2.0] * 99 + [9.0])]
LENGTHS = [5, 7, 9, 12, 20, 33, 60, 140]
SETTINGS = [("open", 4000, 0.2), ("chunked", 3900, 0.05), ("quota", 3000, 0.1), ("alone", 2000, 0.03)]
TENANTS = {"open": {"chat": {"ttft": 4.0, "itl": 0.2, "attainment": 0.3}, "crawl": {"ttft": 6.0, "itl": 0.2}},
           "fair": {"chat": {"ttft": 0.4, "itl": 0.05, "attainment": 0.97}, "crawl": {"ttft": 9.0, "itl": 0.06}}}


def arrivals(count=50, gap=1.0):
    return [SimpleNamespace(time=gap * k, prompt_tokens=10 + k, output_tokens=3 + k % 7) for k in range(count)]


def line(rate):
    return Curve(np.arange(10.0), rate * np.arange(10.0))


VIEWS = {
    "latency": lambda log: viz.latency_throughput(RATES, slo=0.25),
    "latency of systems": lambda log: viz.latency_throughput({"a": RATES, "b": RATES[:3]}, metric="e2e"),
    "attainment": lambda log: viz.attainment_curve({"FCFS": [(1, 1.0), (2, 0.7)], "SJF": [(1, 0.99), (2, 0.95)]}),
    "race": lambda log: viz.policy_race({"one": log, "two": records(log)}),
    "cdf": lambda log: viz.latency_cdf({"one": log, "two": [0.5, 1.0, 7.0]}, slo=2.0),
    "trace": lambda log: viz.trace_explorer({"trace": arrivals(), "generated": arrivals(30, 2.0)}),
    "batching": lambda log: viz.batching_gantt({"one": log, "two": log}, axis="time"),
    "blocking": lambda log: viz.blocking_view({"one": log, "two": log}, slo=1.5),
    "mixer": lambda log: viz.chunk_mixer(log, budget=32),
    "neighbours": lambda log: viz.noisy_neighbour(TENANTS),
    "service": lambda log: viz.service_curves({"FCFS": {"a": line(2), "b": line(4)}, "VTC": log}, bound=12),
    "frontier": lambda log: viz.isolation_frontier(SETTINGS),
    "lengths": lambda log: viz.length_distribution({"story": LENGTHS, "birds": [8, 8, 9]}),
    "reservation": lambda log: viz.reservation_curve(LENGTHS),
    "dashboard": lambda log: viz.dashboard(log),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_says_its_finding_holds_its_numbers_and_draws_a_legible_picture(name, tight):
    figure = VIEWS[name](tight)
    said = viz.summary(figure)
    assert said.endswith(".") and not re.search(r"\bnan\b", said)
    table = viz.table(figure)
    assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    svg = viz.to_svg(figure, said)
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label") == said
    sizes = [float(node.get("font-size")) for node in root.iter() if node.get("font-size")]
    assert sizes and min(sizes) >= 13
    assert not re.search(r"\bnan\b", svg.lower()) and len(svg) < 200_000
    assert figure.to_json() and VIEWS[name](tight).to_json() == figure.to_json()


@pytest.mark.parametrize("call", [
    lambda: viz.latency_throughput([]), lambda: viz.latency_throughput({}), lambda: viz.latency_throughput([(1, [])]),
    lambda: viz.latency_throughput(RATES, metric="speed"), lambda: viz.latency_throughput([{"rate": 1, "p50": 2}]),
    lambda: viz.latency_throughput(RATES, against="time"), lambda: viz.latency_throughput([(1, ["fast"])]),
    lambda: viz.attainment_curve({}), lambda: viz.attainment_curve({"a": []}),
    lambda: viz.attainment_curve({"a": [(1, 7)]}),
    lambda: viz.policy_race({}), lambda: viz.policy_race({"a": []}), lambda: viz.latency_cdf({}),
    lambda: viz.trace_explorer([]), lambda: viz.trace_explorer({}), lambda: viz.batching_gantt({}),
    lambda: viz.batching_gantt({"a": []}), lambda: viz.blocking_view([]), lambda: viz.blocking_view({}),
    lambda: viz.chunk_mixer([]), lambda: viz.noisy_neighbour({}), lambda: viz.noisy_neighbour(TENANTS, quiet="who"),
    lambda: viz.service_curves({}), lambda: viz.service_curves({"a": []}), lambda: viz.isolation_frontier([]),
    lambda: viz.isolation_frontier([("a", 1, 0)]), lambda: viz.length_distribution([]),
    lambda: viz.length_distribution({}), lambda: viz.reservation_curve([]), lambda: viz.reservation_curve([3], [0]),
    lambda: viz.dashboard([]),
])
def test_bad_input_is_refused_in_one_line(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_knee_is_where_more_load_costs_more_than_it_brings():
    loads = [Load(rate, rate, {50: latency}, 9) for rate, latency in ((1, 0.1), (2, 0.11), (4, 0.15), (5, 0.6))]
    assert knee(loads).rate == 4
    said = viz.summary(viz.latency_throughput(RATES, slo=0.25, quantiles=(50, 100)))
    assert "the knee is at 4/s" in said and "the SLO holds up to 1/s" in said


def test_throughput_counts_what_was_finished_between_the_first_arrival_and_the_last_token(small):
    row = viz.table(viz.latency_throughput([(0.5, small)])).rows[0]
    assert (row[1], float(row[2]), row[-1]) == ("0.5", pytest.approx(2 / 6, rel=1e-4), "2")


def test_goodput_lies_where_attainment_crosses_the_target_and_names_the_limit_that_binds():
    points = [(1, Attainment(10, 1.0, 1.0, 1.0)), (2, Attainment(10, 0.8, 0.95, 0.8))]
    said = viz.summary(viz.attainment_curve({"FCFS": points}))
    assert said == "FCFS keeps 90% up to 1.5/s; beyond, TTFT binds."
    assert "misses 90% even at 1/s" in viz.summary(viz.attainment_curve({"a": [(1, 0.5)]}))
    assert "at all rates up to 3/s" in viz.summary(viz.attainment_curve({"a": [(1, 0.99), (3, 0.91)]}))


shares = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(shares, st.floats(0.01, 1))
def test_goodput_is_a_rate_that_was_measured_or_lies_between_two(values, target):
    rates = [float(k + 1) for k in range(len(values))]
    found = crossing([Share(rate, value) for rate, value in zip(rates, values, strict=True)], target)
    assert (found is None) == (values[0] < target)
    assert found is None or rates[0] <= found <= rates[-1]


def test_one_slo_judges_all_requests_of_a_run(small):
    rows = viz.table(viz.attainment_curve({"run": [(1, small)]}, slo=SLO(ttft=3.0))).rows
    assert rows[0][2] == "50.0%"


def test_a_race_shows_the_same_requests_and_refuses_others(small):
    figure = viz.policy_race({"one": small, "two": small})
    assert "no policy differs" in viz.summary(figure)
    assert sum(trace.name == "queue" and bool(trace.showlegend) for trace in figure.data) == 1
    assert [row[:2] for row in viz.table(figure).rows] == [("one", "2"), ("two", "2")]
    with pytest.raises(UserError, match="same requests"):
        viz.policy_race({"one": small, "two": [event for event in small if event.request != "b"]})


def test_a_race_of_records_has_bars_as_long_as_the_intervals(small):
    figure = viz.policy_race({"run": Table.of(records(small))})
    total = {trace.name: sum(trace.x) for trace in figure.data}
    assert total == {"queue": 3.5, "prefill": 2.0, "decode": 3.0, "preempted": 1.0}


def test_a_cdf_ends_at_one_and_counts_who_kept_the_slo():
    figure = viz.latency_cdf({"a": [1.0, 2.0, 3.0, 4.0]}, slo=2.0)
    assert figure.data[0].y[-1] == 1.0 and max(figure.data[0].x) == 4.0
    assert viz.table(figure).rows[0][-1] == "50.0%"


def test_the_trace_explorer_tells_steady_arrivals_from_bursts():
    bursts = [SimpleNamespace(time=t + 0.01 * k, prompt_tokens=5, output_tokens=5) for t in (0, 100) for k in range(10)]
    steady, bursty = viz.table(viz.trace_explorer({"steady": arrivals(), "bursty": bursts})).rows
    assert float(steady[3]) == 0 and float(bursty[3]) > 3
    per_window = [trace for trace in viz.trace_explorer(arrivals(50)).data if trace.xaxis == "x3"]
    assert sum(per_window[0].y) == 50


def test_wasted_slots_are_those_without_a_token(small):
    row = viz.table(viz.batching_gantt({"run": small})).rows[0]
    assert row == ("run", "4", "5", "4", "4", "0", "0", "0.0%")
    alone = [event for event in small if event.request != "b"]
    wide = [step(0, 0.0, 1.0, [("a", 0, 4), ("b", 0, 4)], [], 2)]
    queued = [Event(0.0, "QUEUED", name, {"prompt_tokens": 4}) for name in "ab"]
    scheduled = [Event(0.0, "SCHEDULED", name) for name in "ab"]
    both = [*queued, *scheduled, *wide, Event(1.0, "NEW_TOKENS", "a", {"tokens": [1]}),
            Event(1.0, "FINISHED", "a", {"reason": "stop"}), step(1, 1.0, 2.0, [("b", 4, 1)], [], 1)]
    figure = viz.batching_gantt({"both": both})
    assert alone and viz.table(figure).rows[0][3:] == ("4", "3", "0", "1", "25.0%")
    assert next(trace for trace in figure.data if trace.name == "empty slot").y == (0,)


def test_a_run_too_long_to_be_read_slot_by_slot_is_refused_with_the_numbers(small, monkeypatch):
    monkeypatch.setattr("llmcourse.viz.batches.MOST", 3)
    with pytest.raises(UserError, match="1 slots in 4 steps"):
        viz.batching_gantt({"run": small})


def test_a_long_run_keeps_its_peak_when_its_occupancy_is_thinned(tight, monkeypatch):
    whole = viz.table(viz.kv_occupancy(tight)).rows
    monkeypatch.setattr("llmcourse.viz.occupancy.SHOWN", 20)
    thin = viz.kv_occupancy(tight)
    assert len(viz.table(thin).rows) <= 20 < len(whole)
    assert max(int(row[2]) for row in viz.table(thin).rows) == max(int(row[2]) for row in whole)


def blocked():
    """B decodes a token a second; A's prompt of 90 arrives at 2.5 and holds the step from 3 to 9."""
    log = [Event(0.0, "QUEUED", "b", {"prompt_tokens": 3}), Event(0.0, "SCHEDULED", "b")]
    for number, (start, end) in enumerate(((0, 1), (1, 2), (2, 3), (3, 9), (9, 10))):
        batch = [("b", number, 1)] + ([("a", 0, 90)] if end == 9 else [("a", 90, 1)] if end == 10 else [])
        if end == 3:
            log.append(Event(2.5, "QUEUED", "a", {"prompt_tokens": 90}))
        if end == 9:
            log.append(Event(3.0, "SCHEDULED", "a"))
        log.append(step(number, float(start), float(end), batch, [], 1))
        log += [Event(float(end), "NEW_TOKENS", name, {"tokens": [1]}) for name, _, _ in batch]
    return log


def test_blocking_compares_the_gaps_before_and_after_the_long_request():
    figure = viz.blocking_view(blocked(), slo=2.0)
    assert viz.table(figure).rows[0] == ("", "4", "1", str(round(1 + 5 * 0.97, 6)), "6", "b", "6.5")
    assert "from 1 s to at most 6 s (6.0 times), its own first token comes after 6.5 s" in viz.summary(figure)
    assert list(figure.data[0].y) == [1000, 1000, 6000, 1000]
    with pytest.raises(UserError, match="not in the log"):
        viz.blocking_view(blocked(), watch="z")


def test_the_mixer_stacks_decodes_under_prompts_and_finds_the_longest_step():
    figure = viz.chunk_mixer(blocked(), budget=100)
    bars = {trace.name: trace for trace in figure.data}
    assert list(bars["prefill tokens"].base) == [0, 1] and list(bars["prefill tokens"].y) == [1, 90]
    assert list(bars["decode tokens"].y) == [1, 1, 1, 2]
    assert "step 3, takes 6 s for 1 decode and 90 prefill tokens" in viz.summary(figure)
    assert "at most 91 of a budget of 100" in viz.summary(figure)
    assert [row[0] for row in viz.table(figure).rows] == ["0", "1", "2", "3", "4"]
    with pytest.raises(UserError, match="steps 0 to 4"):
        viz.chunk_mixer(blocked(), first=9)


def test_a_tenant_is_followed_through_the_configurations():
    figure = viz.noisy_neighbour(TENANTS)
    assert viz.summary(figure).startswith("chat's P99 TTFT is 4 s (open), 400 ms (fair)")
    assert len({trace.xaxis for trace in figure.data}) == 3
    assert "crawl's P99 ITL is 200 ms (open), 60 ms (fair)" in viz.summary(viz.noisy_neighbour(TENANTS, quiet="crawl"))


def test_a_run_is_split_by_the_tenants_of_its_requests(small):
    owned = [Event(e.time, e.kind, e.request, {**e.data, "tenant": f"tenant {e.request}"}) if e.kind == "QUEUED" else e
             for e in small]
    rows = viz.table(viz.noisy_neighbour({"run": owned}, slo=SLO(ttft=3.0))).rows
    assert [(row[1], row[2], row[5]) for row in rows] == [("tenant a", "1", "100.0%"), ("tenant b", "1", "0.0%")]


def test_service_curves_tell_the_ratio_and_judge_the_gap_by_the_bound(small):
    figure = viz.service_curves({"FCFS": {"a": line(2), "b": line(4)}})
    assert viz.summary(figure) == "FCFS: b gets 2 times the service of a."
    owned = [Event(e.time, e.kind, e.request, {**e.data, "tenant": e.request}) if e.kind == "QUEUED" else e
             for e in small]
    row = viz.table(viz.service_curves({"FCFS": owned})).rows[0]
    assert row[:3] == ("FCFS", "a", "11")


points = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(points)
def test_nothing_beats_the_front_and_something_on_it_beats_the_rest(pairs):
    settings = [Setting(str(k), float(work), float(latency)) for k, (work, latency) in enumerate(pairs)]
    front = pareto(settings)
    assert front and not any(other.beats(one) for one in front for other in settings)
    assert all(any(one.beats(other) for one in front) for other in settings if other not in front)


def test_the_frontier_names_what_beats_a_bad_setting():
    table = viz.table(viz.isolation_frontier(SETTINGS))
    assert {row[0]: row[3] for row in table.rows} == {"open": "", "chunked": "", "quota": "chunked", "alone": ""}


def test_reserving_the_mean_fails_some_and_the_longest_wastes_much():
    figure = viz.reservation_curve([10] * 9 + [110], reserved=[10, 20, 110])
    assert viz.table(figure).rows == (("10", "10.0%", "0.0%"), ("20", "10.0%", "45.0%"), ("110", "0.0%", "81.8%"))
    assert "Reserving the mean (20 tokens) fails 10%" in viz.summary(figure)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_every_answer_is_in_the_histogram(lengths):
    assert sum(viz.length_distribution(lengths).data[0].y) == len(lengths)


def test_the_dashboard_can_stop_at_a_moment_and_keeps_its_axes(tight):
    whole = viz.dashboard(tight)
    part = viz.dashboard(tight, until=(tight[-1].time) / 3)
    assert len(part.data[0].x) < len(whole.data[0].x)
    assert part.layout.xaxis.range == whole.layout.xaxis.range and part.layout.yaxis2.range == whole.layout.yaxis2.range
    assert f"{sum(event.kind == 'PREEMPTED' for event in tight)} preemptions" in viz.summary(whole)
    with pytest.raises(UserError, match="nothing has happened"):
        viz.dashboard(tight, until=-1.0)


def test_generation_tokens_per_second_add_up(tight):
    figure = viz.dashboard(tight)
    rate = next(trace for trace in figure.data if trace.name == "generation tokens")
    width = rate.x[1] - rate.x[0]
    assert math.isclose(sum(rate.y) * width, sum(len(e.data["tokens"]) for e in tight if e.kind == "NEW_TOKENS"))


def test_loads_given_as_shares_are_not_called_requests_a_second():
    rows = [{"rate": share, "p50": wait} for share, wait in ((0.2, 0.01), (0.6, 0.012), (1.0, 0.02), (2.5, 0.4))]
    figure = viz.latency_throughput(rows, "ttft", quantiles=(50,), unit=" of capacity")
    assert "/s" not in viz.summary(figure) + figure.layout.xaxis.title.text
    assert [note.text for note in figure.layout.annotations] == ["knee: 0.6 of capacity offered"]
    assert viz.table(figure).columns[1] == "offered (of capacity)"
