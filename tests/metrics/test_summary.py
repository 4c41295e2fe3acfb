"""Percentiles with what stands behind them, the summary of a run, slowdown, and Little's law."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.metrics.concurrency import concurrency, little
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.percentile import distribution, percentile, samples_beyond
from llmcourse.metrics.records import records
from llmcourse.metrics.slowdown import alone_seconds, slowdown
from llmcourse.metrics.summary import VLLM_NAMES, compare, summary
from llmcourse.metrics.table import Table
from llmcourse.model.shapes import shape
from tests.metrics.logs import aborted, engines, one_request, queued, scheduled, tokens

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def table(*logs):
    return Table.of(records(event for log in logs for event in log))


RUN = (one_request("a", arrival=1.0, prompt=10, scheduled_at=2.0, times=(4.0, 5.0, 7.0)),
       one_request("b", arrival=2.0, prompt=20, scheduled_at=2.0, times=(4.0,), reason="stop"),
       [queued(3.0, "c"), aborted(3.0, "c", reason="full")], [queued(3.0, "d"), aborted(4.0, "d")],
       [queued(4.0, "e", 30), scheduled(5.0, "e"), tokens(8.0, "e"), tokens(11.0, "e")], [queued(9.0, "f")])


@given(st.lists(numbers, min_size=1, max_size=40), st.floats(0, 100))
def test_a_percentile_is_numpys(values, q):
    assert percentile(values, q) == pytest.approx(np.percentile(values, q), rel=1e-9, abs=1e-6)


@given(st.lists(st.tuples(numbers, st.integers(0, 5)), min_size=1, max_size=20), st.floats(0, 100))
def test_weights_are_repetitions(pairs, q):
    values, weights = [value for value, _ in pairs], [weight for _, weight in pairs]
    repeated = np.repeat(values, weights)
    got = percentile(values, q, weights)
    assert math.isnan(got) if not len(repeated) else got == pytest.approx(np.percentile(repeated, q), abs=1e-6)
    found = distribution(values, weights)
    assert found.samples == len(repeated)
    assert not found.samples or found.mean == pytest.approx(repeated.mean(), abs=1e-6)


def test_what_did_not_come_about_is_no_sample():
    assert percentile([math.nan, 1.0, 3.0], 50) == 2.0
    assert math.isnan(percentile([], 99)) and math.isnan(percentile([math.nan], 99))
    assert percentile([1.0, math.inf, math.inf], 75) == math.inf


@pytest.mark.parametrize("values, q, weights", [([1], 101, None), ([1], -1, None), ([1, 2], 50, [1]),
                                                ([1], 50, [0.5]), ([1], 50, [-1])])
def test_percentiles_that_mean_nothing_are_refused(values, q, weights):
    with pytest.raises(UserError):
        percentile(values, q, weights)


@pytest.mark.parametrize("samples, beyond", [(0, 0), (1, 0), (50, 1), (100, 1), (1000, 10), (1001, 10)])
def test_a_p99_says_what_it_stands_on(samples, beyond):
    assert samples_beyond(samples, 99) == beyond
    found = distribution(np.arange(samples))
    assert found.beyond_p99 == beyond and found.shaky == (beyond < 10)
    assert sum(np.arange(samples) > found.p99) == beyond or samples == 0
    assert f"{samples} samples, {beyond} beyond the P99" in str(found)


def test_a_summary_counts_everybody_and_times_who_came_through():
    made = summary(table(*RUN))
    assert (made.requests, made.finished, made.shed, made.aborted, made.unfinished) == (6, 2, 1, 1, 2)
    assert made.duration == 10.0                                     # first arrival at 1, last token at 11
    assert made.request_rate == 0.2 and made.output_rate == 0.6 and made.prompt_rate == 6.0
    assert made.ttft.samples == 3 and made.ttft.mean == pytest.approx((3 + 2 + 4) / 3)
    assert made.tpot.samples == 1 and made.tpot.mean == 1.5           # one token has no time per token
    assert made.itl.samples == 3 and made.itl.maximum == 3.0
    assert made.e2e.samples == 2 and made.e2e.mean == 4.0
    assert made.normalised.mean == pytest.approx((6 / 3 + 2 / 1) / 2)
    assert made.queue.samples == 3


def test_a_summary_reads_well_and_goes_into_json():
    made = summary(table(*RUN))
    text = str(made)
    assert "2 of 6 requests finished in 10 s (1 shed, 1 aborted, 2 unfinished)" in text
    assert "0.6 output tokens/s" in text
    assert "vllm:e2e_request_latency_seconds" in made.text(VLLM_NAMES)
    assert "TTFT" in text and "(0: few)" in text
    assert json.loads(json.dumps(made.as_dict(), allow_nan=False))["ttft"]["samples"] == 3
    assert made.frame().loc["vllm:time_to_first_token_seconds", "samples"] == 3
    assert list(compare({"one": made, "two": table(*RUN)})["ttft_p50"]) == [3.0, 3.0]


def test_a_run_in_which_nothing_happened():
    for made in (summary(Table.of([])), summary(table([queued(1.0, "a")]))):
        assert made.duration == 0 and math.isnan(made.request_rate) and made.ttft.samples == 0
        json.dumps(made.as_dict(), allow_nan=False)
        assert "TTFT" in str(made)


def test_slowdown_is_measured_against_the_same_request_alone():
    crowded = table(*RUN)
    alone = table(*[one_request(name, times=(2.0,)) for name in "fedcba"])
    got = slowdown(crowded, alone)
    assert got[:2] == pytest.approx([3.0, 1.0]) and np.isnan(got[2:]).all()
    assert slowdown(crowded, np.full(6, 2.0))[0] == 3.0
    with pytest.raises(UserError, match="6 requests came with 2 times"):
        slowdown(crowded, [1.0, 2.0])
    with pytest.raises(UserError, match="above 0"):
        slowdown(crowded, np.zeros(6))
    with pytest.raises(UserError, match="5 requests were not served alone, 'b' first"):
        slowdown(crowded, table(one_request("a")))


@pytest.mark.parametrize("budget", [None, 512, 100])
def test_seconds_alone_are_those_of_the_steps(budget):
    cost = RooflineCost(hardware("A100 80 GB"), shape("Llama 2 7B"))
    prompts, outputs = [1, 100, 512, 1300], [1, 7, 1, 40]
    lengths = list(zip(prompts, outputs, strict=True))
    logs = [one_request(f"r{p}", prompt=p, times=tuple(np.arange(1.0, o + 1))) for p, o in lengths]
    for got, (prompt, output) in zip(alone_seconds(table(*logs), cost, budget), lengths, strict=True):
        want, kept = 0.0, 0
        while kept < prompt:
            count = min(budget or prompt, prompt - kept)
            want += cost.seconds(count, 1, kept, count * kept + count * (count + 1) / 2 if count > 1 else 0)
            kept += count
        want += sum(cost.seconds(1, 1, prompt + step, 0) for step in range(output - 1))
        assert got == pytest.approx(want)


def test_littles_law_by_hand():
    run = table(one_request("a", arrival=0.0, scheduled_at=0.0, times=(4.0,)),
                one_request("b", arrival=2.0, scheduled_at=2.0, times=(10.0,)),
                [queued(3.0, "c"), aborted(3.0, "c", reason="x")])
    measured = little(run)
    assert (measured.rate, measured.seconds, measured.concurrency) == (0.2, 6.0, 1.2)
    assert measured.product == pytest.approx(measured.concurrency)
    assert list(concurrency(run, np.array([-1, 1, 3, 5, 11]))) == [0, 1, 2, 1, 0]
    assert little(run, 4.0, 8.0).concurrency == 1.0
    with pytest.raises(UserError, match="no length"):
        little(run, 5.0, 5.0)
    with pytest.raises(UserError, match="nobody"):
        little(Table.of([]))


@settings(max_examples=50, deadline=None)
@given(engines())
def test_littles_law_holds_over_a_whole_run(engine):
    run = Table.of(engine.records())
    if np.isfinite(run["e2e"]).any():
        measured = little(run)
        assert measured.product == pytest.approx(measured.concurrency)


def test_who_still_lives_is_in_the_system_to_the_end():
    run = table(one_request("a", arrival=0.0, scheduled_at=0.0, times=(8.0,)), [queued(2.0, "b")])
    assert list(concurrency(run, np.array([1, 3, 7.9]))) == [1, 2, 2]
    assert little(run).concurrency == pytest.approx((8 + 6) / 8) == little(run).product
