import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.serve import TokenBucket


def test_a_burst_passes_and_the_next_waits_for_the_rate():
    bucket = TokenBucket(rate=2, burst=3)
    assert [bucket.allow(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(0.0) == 0.5
    assert not bucket.allow(0.49)
    assert bucket.allow(0.5)


def test_silence_earns_no_more_than_the_burst():
    bucket = TokenBucket(rate=10, burst=4)
    assert bucket.level(3600.0) == 4
    assert sum(bucket.allow(3600.0) for _ in range(100)) == 4


def test_a_refusal_takes_nothing():
    bucket = TokenBucket(rate=1, burst=2)
    assert not bucket.allow(0.0, cost=5)
    assert bucket.level(0.0) == 2
    assert bucket.wait(0.0, cost=5) == math.inf


def test_a_clock_that_stumbles_back_gives_nothing_away():
    bucket = TokenBucket(rate=1, burst=1, now=10)
    assert bucket.allow(10)
    assert not bucket.allow(5)
    assert not bucket.allow(10.5)
    assert bucket.allow(11)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (1, 0), (-1, 1), (math.nan, 1), (1, math.inf)])
def test_limits_that_mean_nothing_are_refused(rate, burst):
    with pytest.raises(UserError, match="must be positive and finite"):
        TokenBucket(rate, burst)


@pytest.mark.parametrize("cost", [0, -1, math.nan])
def test_costs_that_mean_nothing_are_refused(cost):
    with pytest.raises(UserError, match="cost"):
        TokenBucket(1, 1).allow(0, cost)


@given(rate=st.integers(1, 50), burst=st.integers(1, 20), gaps=st.lists(st.integers(0, 40), max_size=60))
def test_no_window_holds_more_than_burst_plus_rate_times_its_length(rate, burst, gaps):
    bucket, now, allowed = TokenBucket(rate, burst), 0.0, []
    for gap in gaps:
        now += gap / 16                                   # sixteenths are exact in binary
        if bucket.allow(now):
            allowed.append(now)
    for i, start in enumerate(allowed):
        for j in range(i, len(allowed)):
            assert j - i + 1 <= burst + rate * (allowed[j] - start) + 1e-9
