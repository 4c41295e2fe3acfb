"""A power law has the mean that was asked for, its cut, and its tail."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.workload import PowerLaw


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
