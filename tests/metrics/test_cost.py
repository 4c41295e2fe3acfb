"""Dollars and joules of a token, and how often a service is there."""

import json
from dataclasses import replace

import pytest

from llmcourse.errors import UserError
from llmcourse.metrics.availability import availability, error_budget, in_series, redundant, served_share
from llmcourse.metrics.cost import bill, cost_per_million, energy_per_token
from llmcourse.metrics.hardware import Hardware
from llmcourse.metrics.records import records
from llmcourse.metrics.summary import summary
from llmcourse.metrics.table import Table
from tests.metrics.logs import aborted, one_request, queued

GPU = Hardware("test", 1e12, 1e12, 1e9, watts=400, price_per_hour=3.6)


def run(*logs):
    return Table.of(records(event for log in logs for event in log))


TEN_SECONDS = run(one_request("a", prompt=6, times=(2.0, 10.0)), one_request("b", prompt=4, times=(3.0, 4.0)))


def test_a_token_costs_the_hours_over_the_tokens():
    """10 s at $3.6 an hour is one cent, for 4 tokens."""
    assert cost_per_million(TEN_SECONDS, GPU) == pytest.approx(0.01 / 4 * 1e6)
    assert cost_per_million(TEN_SECONDS, GPU, gpus=8) == pytest.approx(0.08 / 4 * 1e6)
    assert cost_per_million(summary(TEN_SECONDS), GPU) == cost_per_million(TEN_SECONDS, GPU)


def test_energy_is_watts_times_seconds_and_idling_is_not_free():
    assert energy_per_token(TEN_SECONDS, GPU) == pytest.approx(400 * 10 / 4)
    assert energy_per_token(TEN_SECONDS, GPU, busy=0.5, idle=0.2) == pytest.approx(400 * 10 * 0.6 / 4)
    assert energy_per_token(TEN_SECONDS, GPU, busy=0.0, idle=0.0) == 0


def test_a_bill_says_what_it_assumes():
    made = bill(TEN_SECONDS, GPU, busy=0.5)
    assert made.dollars == pytest.approx(0.01) and made.dollars_per_million_tokens == pytest.approx(0.01 / 14 * 1e6)
    assert made.gpu_hours == pytest.approx(10 / 3600)
    assert "per million output tokens" in str(made) and "$3.6 an hour" in str(made) and "400 W" in str(made)
    json.dumps(made.as_dict(), allow_nan=False)


def test_what_the_table_does_not_know_is_left_out_or_asked_for():
    unknown = replace(GPU, watts=None, price_per_hour=None)
    made = bill(TEN_SECONDS, unknown)
    assert made.dollars is None and made.joules is None and made.assumptions == () and str(made) == ""
    with pytest.raises(UserError, match="no price"):
        cost_per_million(TEN_SECONDS, unknown)
    with pytest.raises(UserError, match="no power"):
        energy_per_token(TEN_SECONDS, unknown)


def test_nonsense_is_refused():
    with pytest.raises(UserError, match="shares"):
        energy_per_token(TEN_SECONDS, GPU, busy=50)
    with pytest.raises(UserError, match="no token"):
        cost_per_million(run([queued(0, "a")]), GPU)


def test_served_share_leaves_out_who_gave_up():
    table = run(one_request("a"), [queued(0, "b"), aborted(1, "b", reason="full")], [queued(0, "c"), aborted(1, "c")],
                [queued(0, "d")])
    assert served_share(table) == pytest.approx(1 / 3)
    assert served_share(Table.of([])) != served_share(Table.of([]))


def test_availability_of_parts():
    assert availability(99, 1) == 0.99
    assert in_series([0.99, 0.9]) == pytest.approx(0.891)
    assert redundant(0.9, 3) == pytest.approx(0.999) and redundant(0.9, 3, 3) == pytest.approx(0.729)
    assert redundant(0.9, 3, 2) == pytest.approx(0.972)
    assert error_budget(0.999) == pytest.approx(43.2)


@pytest.mark.parametrize("call", [lambda: availability(0, 1), lambda: in_series([2]), lambda: redundant(0.9, 2, 3),
                                  lambda: error_budget(99.9)])
def test_impossible_availabilities_are_refused(call):
    with pytest.raises(UserError):
        call()
