"""The search for the highest rate that still passes: it finds the knee, and says so when there is none."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.metrics.goodput import goodput
from llmcourse.metrics.records import Record
from llmcourse.metrics.table import Table
from llmcourse.workload import SLO


def served(share, ttft_slo=None):
    """A hundred requests of which a share has its first token within 1 s."""
    late = 100 - round(100 * share)
    return Table.of([Record(f"r{i}", 0.0, 10, 5, 0, "length", 0.0, 1.0, 1.0, 0.0, 9.0 if i < late else 0.5, 0.1, (),
                            1.0, ttft_slo=ttft_slo) for i in range(100)])


def knee(rate):
    """A service that keeps its promise up to just 3 requests/s."""
    return lambda asked: served(1.0 if asked <= rate else 0.5)


@settings(max_examples=30, deadline=None)
@given(st.floats(1.01, 7.9))
def test_the_answer_brackets_the_knee_within_the_tolerance(rate):
    found = goodput(knee(rate), 1.0, 8.0, slo=SLO(ttft=1.0), tolerance=0.01)
    assert found.converged and found.passed <= rate < found.failed
    assert found.failed - found.passed <= 0.01 * found.passed and found.rate == found.passed
    assert len(found.runs) <= 12


def test_the_target_is_a_share_of_requests_and_reaching_it_is_enough():
    sloping = goodput(lambda rate: served(1 - rate / 100), 1, 50, target=0.9, slo=SLO(ttft=1.0), tolerance=0.001)
    assert sloping.rate == pytest.approx(10.5, abs=0.1)            # 10.5 rounds to 90 of 100


def test_even_the_lowest_rate_misses():
    found = goodput(knee(0.1), 1.0, 8.0, slo=SLO(ttft=1.0))
    assert found.passed is None and found.failed == 1.0 and found.rate == 0.0 and len(found.runs) == 1
    assert "below 1 requests/s: even the lowest rate misses" in str(found)


def test_even_the_highest_rate_passes():
    found = goodput(knee(100), 1.0, 8.0, slo=SLO(ttft=1.0))
    assert found.failed is None and found.rate == 8.0 and not found.converged
    assert "at least 8 requests/s: even the highest rate passes" in str(found)


def test_a_search_that_runs_out_of_runs_says_so():
    found = goodput(knee(3.0), 1.0, 8.0, slo=SLO(ttft=1.0), tolerance=1e-6, max_runs=4)
    assert len(found.runs) == 4 and not found.converged and "stopped before the bracket was narrow" in str(found)
    assert found.passed <= 3.0 < found.failed


def test_each_requests_own_slo_and_none_at_all():
    assert goodput(lambda rate: served(rate < 2, ttft_slo=1.0), 1.0, 4.0).rate == pytest.approx(2.0, rel=0.02)
    with pytest.raises(UserError, match="no request with an SLO"):
        goodput(knee(3.0), 1.0, 8.0)


@pytest.mark.parametrize("options", [{"low": 0}, {"high": 1}, {"target": 90}, {"target": 0}, {"tolerance": 0},
                                     {"max_runs": 1}])
def test_searches_that_mean_nothing_are_refused(options):
    with pytest.raises(UserError):
        goodput(knee(3.0), **{"low": 1.0, "high": 8.0, "slo": SLO(ttft=1.0), **options})


def test_the_answer_goes_into_json_with_every_run():
    found = json.loads(json.dumps(goodput(knee(3.0), 1.0, 8.0, slo=SLO(ttft=1.0)).as_dict(), allow_nan=False))
    assert found["rate"] == found["passed"] and found["runs"][0]["rate"] == 1.0
