"""Deriving a profile: from a generated load back to the profile it came from."""

import numpy as np
import pytest

from llmcourse.errors import UserError
from llmcourse.workload import Arrival, Lognormal, Poisson, open_loop, profile
from llmcourse.workload.derive import counts, derive, dispersion, rank_correlation
from llmcourse.workload.originals import ORIGINALS


def test_there_and_back():
    made = profile("mooncake-conversation")
    found = derive("again", made.generate(30_000, 0), ORIGINALS["mooncake-conversation"])
    assert found.rate == pytest.approx(made.rate, rel=0.02)
    assert found.sharing.follow == pytest.approx(made.sharing.follow, abs=0.02)
    assert found.sharing.common == made.sharing.common == 1
    halves = [one.sharing.shared.quantile([0.25, 0.5]) for one in (found, made)]
    assert halves[0] == pytest.approx(halves[1], abs=0.1)


def test_a_poisson_trace_looks_poisson():
    load = open_loop(Poisson(5), Lognormal(100, sigma=1), Lognormal(50, sigma=1), 20_000, 0, tenant="x")
    found = derive("p", load, ORIGINALS["arena"])
    assert (found.gap_cv, found.dispersion) == pytest.approx((1, 1), abs=0.25)
    assert found.sharing is None
    assert found.tenants == {"x": 1.0}


def test_counts_put_the_very_last_into_the_last_full_width():
    assert counts(np.array([5.0, 6.0, 14.9, 25.0]), 10).tolist() == [3, 1]
    assert dispersion(np.arange(0, 1000, 0.5)) == pytest.approx(0, abs=0.01)


def test_ranks_share_their_mean():
    assert rank_correlation(np.array([1, 2, 2, 3]), np.array([10, 20, 20, 30])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(0.9486833)
    assert rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert rank_correlation(np.array([1, 2, 3]), np.array([7, 7, 7])) == 0


@pytest.mark.parametrize("times", [[], [1.0], [1.0, 1.0]])
def test_too_little_is_refused(times):
    with pytest.raises(UserError, match="two or more at different times"):
        derive("x", [Arrival(time, 1, 1) for time in times], ORIGINALS["arena"])
