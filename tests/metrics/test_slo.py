"""Attainment: who counts, who misses, and that both together are never better than either."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.metrics.records import Record
from llmcourse.metrics.slo import attainment, met
from llmcourse.metrics.table import Table
from llmcourse.workload import SLO


def row(ttft, tpot, reason="length", ttft_slo=None, tpot_slo=None):
    return Record("r", 0.0, 10, 5, 0, reason, 0.0, ttft, 1.0, 0.0, ttft, tpot, (), 1.0, "", 0, ttft_slo, tpot_slo)


def test_each_limit_alone_and_both_together():
    table = Table.of([row(0.1, 0.05), row(0.9, 0.05), row(0.1, 0.5), row(0.9, 0.5)])
    found = attainment(table, SLO(ttft=0.5, tpot=0.1))
    assert (found.requests, found.ttft, found.tpot, found.both) == (4, 0.5, 0.5, 0.25)
    assert attainment(table, SLO(ttft=0.5)).both == 0.5 and np.isnan(attainment(table, SLO(ttft=0.5)).tpot)


def test_just_in_time_is_in_time():
    assert attainment(Table.of([row(0.5, 0.1)]), SLO(0.5, 0.1)).both == 1.0


def test_each_request_has_its_own_promise_and_who_has_none_does_not_count():
    table = Table.of([row(0.9, 0.1, ttft_slo=1.0), row(0.9, 0.1, ttft_slo=0.5, tpot_slo=1.0), row(9.0, 9.0)])
    found = attainment(table)
    assert (found.requests, found.ttft, found.tpot, found.both) == (2, 0.5, 1.0, 0.5)
    assert list(met(table)) == [True, False, True]


@pytest.mark.parametrize("reason", ["shed", "abort", None])
def test_who_was_not_served_to_the_end_misses(reason):
    found = attainment(Table.of([row(0.1, 0.05, reason), row(0.1, 0.05)]), SLO(1.0, 1.0))
    assert (found.requests, found.ttft, found.tpot, found.both) == (2, 0.5, 0.5, 0.5)


def test_a_single_token_cannot_come_too_slowly():
    assert attainment(Table.of([row(0.1, None)]), SLO(1.0, 0.001)).both == 1.0


def test_without_any_promise_there_is_nothing_to_attain():
    found = attainment(Table.of([row(0.1, 0.1)]))
    assert found.requests == 0 and np.isnan(found.both) and str(found) == "no request had an SLO"
    assert found.as_dict() == {"requests": 0, "ttft": None, "tpot": None, "both": None}
    assert "50.0% of 2 requests" in str(attainment(Table.of([row(0.1, 0.1), row(9.0, 0.1)]), SLO(1.0)))


rows_of_a_run = st.tuples(st.floats(0, 2), st.floats(0, 2), st.sampled_from(["stop", "shed"]))


@given(st.lists(rows_of_a_run, min_size=1, max_size=20))
def test_both_together_lie_between_what_is_left_and_the_worse(rows):
    found = attainment(Table.of([row(*r) for r in rows]), SLO(1.0, 1.0))
    assert max(0.0, found.ttft + found.tpot - 1) - 1e-9 <= found.both <= min(found.ttft, found.tpot)
