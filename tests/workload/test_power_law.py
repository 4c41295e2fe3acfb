"""Power-law lengths: bounds, quantiles and mean are those of the bounded Pareto distribution."""

import numpy as np
import pytest

from llmcourse.errors import UserError
from llmcourse.workload import PowerLaw


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
