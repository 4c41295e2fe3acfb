"""The normal distribution against the standard library's; correlated and evenly spread uniform numbers."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.workload.derive import rank_correlation
from llmcourse.workload.normal import cdf, inverse, partner, spread

NORMAL = NormalDist()


@settings(deadline=None)
@given(st.floats(-8, 8))
def test_the_cdf_is_the_librarys(z):
    assert cdf(np.array(z)) == pytest.approx(NORMAL.cdf(z), abs=2e-7)


@settings(deadline=None)
@given(st.floats(1e-9, 1 - 1e-9))
def test_the_inverse_is_the_librarys(u):
    assert inverse(np.array(u)) == pytest.approx(NORMAL.inv_cdf(u), rel=1e-7, abs=1e-8)


def test_the_ends_are_infinitely_far_out():
    assert inverse(np.array([0.0, 1.0])).tolist() == [-np.inf, np.inf]


@pytest.mark.parametrize("wanted", [-1, -0.5, -0.02, 0, 0.07, 0.26, 0.8, 1])
def test_a_partner_is_uniform_and_has_the_rank_correlation(wanted):
    rng = np.random.default_rng(0)
    u = rng.random(50_000)
    v = partner(rng, u, wanted)
    assert rank_correlation(u, v) == pytest.approx(wanted, abs=0.02)
    assert np.quantile(v, [0.01, 0.25, 0.5, 0.75, 0.99]) == pytest.approx([0.01, 0.25, 0.5, 0.75, 0.99], abs=0.01)


def test_a_correlation_above_one_is_refused():
    with pytest.raises(UserError, match="between -1 and 1"):
        partner(np.random.default_rng(0), np.zeros(3), 1.5)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=200), st.integers(0, 2**32))
def test_spreading_keeps_the_order_and_fills_every_slot_once(u, seed):
    values = spread(np.random.default_rng(seed), np.array(u))
    assert sorted((values * len(u)).astype(int)) == list(range(len(u)))
    assert np.argsort(values).tolist() == np.argsort(u, kind="stable").tolist()
