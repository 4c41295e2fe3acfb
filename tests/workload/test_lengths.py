"""Length distributions: whole tokens of at least one, with the quantiles they were given."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.workload import Constant, Empirical, Lognormal, Quantiles

distributions = st.one_of(
    st.builds(Constant, st.integers(1, 10**6)), st.builds(Lognormal, st.floats(0.1, 1e5), sigma=st.floats(0, 3)),
    st.lists(st.floats(0, 1e6), min_size=2).map(lambda grid: Quantiles(sorted(grid))),
    st.builds(Empirical, st.lists(st.integers(1, 10**6), min_size=1)))


@settings(deadline=None)
@given(distributions, st.integers(0, 200), st.integers(0, 2**32))
def test_lengths_are_whole_tokens_of_at_least_one(lengths, count, seed):
    sample = lengths.sample(np.random.default_rng(seed), count)
    assert sample.dtype == np.int64
    assert len(sample) == count
    assert (sample >= 1).all()
    assert (sample == lengths.sample(np.random.default_rng(seed), count)).all()


@settings(deadline=None)
@given(distributions, st.lists(st.floats(0, 1, exclude_max=True), min_size=2))
def test_a_quantile_function_does_not_fall(lengths, shares):
    assert (np.diff(lengths.quantile(np.sort(shares))) >= -1e-9).all()


def test_a_lognormal_by_median_and_p99():
    sample = Lognormal(1000, p99=8000).sample(np.random.default_rng(0), 200_000)
    assert np.quantile(sample, [0.5, 0.99]) == pytest.approx([1000, 8000], rel=0.02)
    assert sample.mean() == pytest.approx(1000 * np.exp(Lognormal(1000, p99=8000).sigma ** 2 / 2), rel=0.02)


def test_a_lognormal_by_moments():
    sample = Lognormal.of_moments(mean=300, deviation=200).sample(np.random.default_rng(0), 200_000)
    assert (sample.mean(), sample.std()) == pytest.approx((300, 200), rel=0.02)


def test_a_lognormal_fitted_is_the_one_sampled():
    made = Lognormal(700, sigma=0.8)
    fitted = Lognormal.fit(made.sample(np.random.default_rng(0), 50_000))
    assert (fitted.median, fitted.sigma) == pytest.approx((700, 0.8), rel=0.02)


def test_a_grid_gives_its_values_and_straight_lines_between():
    grid = Quantiles([10, 20, 100], levels=[0, 0.9, 1])
    assert grid.at(np.array([0, 0.45, 0.9, 0.95, 1])).tolist() == [10, 15, 20, 60, 100]


def test_a_sample_comes_only_from_what_was_measured():
    sample = Empirical([5, 7, 7, 1000]).sample(np.random.default_rng(0), 20_000)
    assert set(sample.tolist()) == {5, 7, 1000}
    assert (sample == 7).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("make", [
    lambda: Constant(0), lambda: Lognormal(100),
    lambda: Lognormal(100, p99=200, sigma=1), lambda: Lognormal(0, sigma=1),
    lambda: Lognormal(100, p99=50), lambda: Lognormal(100, sigma=-1), lambda: Lognormal.of_moments(0, 1),
    lambda: Quantiles([1]), lambda: Quantiles([2, 1]), lambda: Quantiles([1, 2], [0, 0.9]),
    lambda: Quantiles([1, 2, 3], [0, 1]), lambda: Empirical([]), lambda: Empirical([0, 3]), lambda: Lognormal.fit([])])
def test_what_cannot_be_is_refused(make):
    with pytest.raises(UserError):
        make()
