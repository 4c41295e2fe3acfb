"""Arrival processes: sorted without end, at the promised rate, as bursty as promised, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.workload import Diurnal, Gamma, Gaps, OnOff, Poisson, RateSeries, Weibull
from llmcourse.workload.processes import CHUNK

rates = st.floats(0.01, 1000)
processes = st.one_of(
    st.builds(Poisson, rates), st.builds(Gamma, rates, st.floats(0.1, 5)), st.builds(Weibull, rates, st.floats(0.1, 5)),
    st.builds(OnOff, rates, st.floats(0.1, 100), st.floats(0.1, 100)),
    st.builds(lambda low, more, day, bursts: Diurnal(low, low + more, day, bursts), rates, rates, st.floats(10, 1000),
              st.floats(0, 5)),
    st.builds(RateSeries, st.lists(st.integers(0, 50), min_size=1).filter(any), st.floats(0.1, 100)),
    st.builds(lambda gaps: Gaps(sorted(gaps)), st.lists(st.floats(0.001, 100), min_size=2)))


def cv(times: np.ndarray) -> float:
    gaps = np.diff(times)
    return gaps.std() / gaps.mean()


@settings(max_examples=50, deadline=None)
@given(processes, st.integers(0, 500), st.integers(0, 2**32))
def test_times_are_sorted_and_the_seed_decides(process, count, seed):
    times = process.times(np.random.default_rng(seed), count)
    assert len(times) == count
    assert (np.diff(times) >= 0).all()
    assert (times >= 0).all()
    assert (times == process.times(np.random.default_rng(seed), count)).all()


@pytest.mark.parametrize(("process", "spread"), [
    (Poisson(3), 1), (Gamma(3, 0.25), 0.25), (Gamma(3, 4), 4), (Weibull(3, 0.25), 0.25), (Weibull(3, 3), 3)])
def test_a_renewal_process_has_its_rate_and_its_cv(process, spread):
    times = process.times(np.random.default_rng(0), 200_000)
    assert len(times) / times[-1] == pytest.approx(3, rel=0.04)
    assert cv(times) == pytest.approx(spread, rel=0.05)


def test_burstiness_is_not_rate():
    calm, rough = (process.times(np.random.default_rng(1), 50_000) for process in (Gamma(5, 0.5), Gamma(5, 4)))
    assert calm[-1] == pytest.approx(rough[-1], rel=0.1)
    per_second = [np.bincount(times.astype(int)) for times in (calm, rough)]
    assert per_second[1].var() > 20 * per_second[0].var()


def test_on_off_keeps_its_long_run_rate_and_falls_silent():
    times = OnOff(10, on=5, off=15).times(np.random.default_rng(0), 100_000)
    assert len(times) / times[-1] == pytest.approx(2.5, rel=0.05)
    pauses = (np.diff(times) > 5).sum()
    assert pauses == pytest.approx(times[-1] / 20 * np.exp(-5 / 15), rel=0.1), "off for 15 s on average, every 20 s"
    busy = np.diff(times)[np.diff(times) < 1]
    assert busy.mean() == pytest.approx(0.1, rel=0.05)


def test_a_day_has_its_rate_and_bursts_come_on_top():
    day = 1000.0
    calm = Diurnal(2, 10, day).times(np.random.default_rng(0), 60_000)
    counts, _ = np.histogram(calm % day, bins=20, range=(0, day))
    middles = (np.arange(20) + 0.5) * day / 20
    expected = Diurnal(2, 10, day).rate_at(middles) * (calm[-1] / day) * day / 20
    assert counts == pytest.approx(expected, rel=0.12)
    wild = Diurnal(5, 5, day, bursts=4, factor=3, burst=50).times(np.random.default_rng(1), 60_000)
    per_second, _ = np.histogram(wild, bins=np.arange(0, wild[-1], 10))
    rates = per_second / 10
    assert np.median(rates) == pytest.approx(5, rel=0.15)
    assert 0.1 < (rates > 10).mean() < 0.26     # 1 - exp(-0.2) = 0.18
    assert rates[rates > 10].mean() == pytest.approx(15, rel=0.1)



def test_a_rate_series_is_kept_exactly_and_starts_over():
    counts = [3, 0, 5]
    times = RateSeries(counts, width=10).times(np.random.default_rng(0), 16)
    assert np.bincount((times // 10).astype(int)).tolist() == [*counts, *counts]


def test_gaps_follow_their_grid():
    gaps = np.diff(Gaps([0.5, 1.0, 4.0]).times(np.random.default_rng(0), 50_000))
    assert np.quantile(gaps, [0.25, 0.5, 0.75]) == pytest.approx([0.75, 1.0, 2.5], rel=0.03)


def test_chunks_go_on_where_the_last_one_stopped():
    times = Poisson(100).times(np.random.default_rng(0), 3 * CHUNK)
    assert np.diff(times)[CHUNK - 5:CHUNK + 5].max() < 1


@pytest.mark.parametrize("make", [
    lambda: Poisson(0), lambda: Poisson(float("nan")), lambda: Gamma(1, -1), lambda: Weibull(1, 100),
    lambda: OnOff(1, 1, 0), lambda: RateSeries([]), lambda: Diurnal(2, 1), lambda: Diurnal(1, 2, 0),
    lambda: Diurnal(1, 2, bursts=1, factor=0.5), lambda: RateSeries([0, 0]), lambda: RateSeries([1, -1]),
    lambda: RateSeries([1], 0), lambda: Gaps([1]), lambda: Gaps([2, 1]), lambda: Gaps([0, 0])])
def test_what_cannot_be_is_refused(make):
    with pytest.raises(UserError):
        make()
