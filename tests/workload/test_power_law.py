<<<<<<< HEAD
"""Power-law lengths: bounds, quantiles and mean are those of the bounded Pareto distribution."""

import numpy as np
import pytest
=======
"""A power law has the mean that was asked for, its cut, and its tail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
>>>>>>> main

from llmcourse.errors import UserError
from llmcourse.workload import PowerLaw


<<<<<<< HEAD
@pytest.mark.parametrize("tail", [0.5, 1.0, 1.7])
def test_the_mean_is_what_samples_say(tail):
    law = PowerLaw(20, 4000, tail)
    lengths = law.quantile((np.arange(200_000) + 0.5) / 200_000)
    assert lengths.mean() == pytest.approx(law.mean, rel=1e-3)
    assert lengths.min() == pytest.approx(20, rel=1e-3) and 3500 < lengths.max() < 4000


def test_half_are_short_and_a_few_hold_half_of_the_tokens():
    law = PowerLaw.of_mean(256, 6000)
    assert law.mean == pytest.approx(256)
    assert law.quantile(0.5) < 50 < 3000 < law.quantile(0.99)
    lengths = np.sort(law.sample(np.random.default_rng(1), 50_000))
    assert lengths[int(0.9 * len(lengths)):].sum() > 0.6 * lengths.sum()


@pytest.mark.parametrize("make", [lambda: PowerLaw(0, 10), lambda: PowerLaw(10, 10), lambda: PowerLaw(1, 10, 0),
                                  lambda: PowerLaw.of_mean(10, 6000), lambda: PowerLaw.of_mean(7000, 6000)])
def test_what_is_no_distribution_is_refused(make):
    with pytest.raises(UserError):
        make()
=======
@given(st.floats(100, 600), st.integers(3000, 8000), st.sampled_from((1.0, 1.1, 1.5, 2.5)))
def test_mean_and_range(mean, longest, exponent):
    law = PowerLaw(mean, longest, exponent)
    lengths = law.quantile(np.linspace(0, 1, 200_001))
    assert lengths[0] == pytest.approx(law.shortest) and lengths[-1] == pytest.approx(longest)
    assert np.trapezoid(lengths, dx=1 / 200_000) == pytest.approx(mean, rel=0.01)


def test_the_tail_falls_by_the_exponent():
    law = PowerLaw(256, 10**7, 1.5)
    lengths = law.quantile(np.linspace(0, 1, 1_000_001))
    assert (lengths > 1000).mean() / (lengths > 4000).mean() == pytest.approx(4 ** 1.5, rel=0.02)


def test_a_mean_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="mean of 900"):
        PowerLaw(900, 800)
    with pytest.raises(UserError, match="mean of 2"):
        PowerLaw(2, 100_000, 0.5)
>>>>>>> main
