"""Error, buckets, order: Kendall's tau against its definition, and what leaves it as it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.predict import accuracy, calibration, chance_share, kendall_tau, mae, noise_ceiling


def by_definition(a: list[float], b: list[float]) -> float:
    """Tau-b, pair by pair."""
    concordant = discordant = tied_a = tied_b = 0
    for i in range(len(a)):
        for j in range(i):
            x, y = (a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])
            concordant += x * y > 0
            discordant += x * y < 0
            tied_a += not x
            tied_b += not y
    pairs = len(a) * (len(a) - 1) // 2
    below = ((pairs - tied_a) * (pairs - tied_b)) ** 0.5
    return (concordant - discordant) / below if below else 0.0


pairs_with_ties = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=200)


@settings(max_examples=150, deadline=None)
@given(pairs_with_ties)
def test_tau_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    assert kendall_tau(a, b) == pytest.approx(by_definition(a, b), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(65, 400), st.integers(2, 500))
def test_tau_of_long_lists(seed: int, count: int, values: int) -> None:
    """Long enough for the merges, with few or many ties."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(values, size=count), rng.integers(values, size=count) + rng.random() * rng.integers(9)
    assert kendall_tau(a, b) == pytest.approx(by_definition(a.tolist(), b.tolist()), abs=1e-12)
    assert kendall_tau(a, b) == kendall_tau(b, a)
    order = rng.permutation(count)
    assert kendall_tau(a[order], b[order]) == kendall_tau(a, b)


@given(pairs_with_ties, st.integers(-1000, 1000))
def test_adding_a_constant_leaves_tau_and_turning_round_turns_it(pairs: list[tuple[int, int]], constant: int) -> None:
    a, b = map(np.array, zip(*pairs, strict=True))
    assert kendall_tau(a, b + constant) == kendall_tau(a, b) == pytest.approx(-kendall_tau(a, -b), abs=1e-12)
    assert kendall_tau(a, np.exp(b)) == kendall_tau(a, b)


def test_tau_of_what_orders_nothing_is_0_and_ties_are_not_counted_as_right() -> None:
    assert kendall_tau([1, 2, 3], [7, 7, 7]) == 0
    assert kendall_tau([5], [5]) == 0
    assert kendall_tau([1, 2, 3, 4], [0, 0, 1, 1]) == pytest.approx(4 / (6 * 4) ** 0.5)   # 2 of 6 pairs tie in one list


def test_a_hundred_thousand_pairs_are_no_ten_thousand_million() -> None:
    rng = np.random.default_rng(0)
    a, noise = rng.standard_normal((2, 100_000))
    assert kendall_tau(a, 0.8 * a + 0.6 * noise) == pytest.approx(2 / np.pi * np.arcsin(0.8), abs=0.005)   # normal


def test_errors_and_buckets() -> None:
    assert mae([10, 20], [13, 20]) == 1.5
    assert accuracy([10, 20, 30], [10, 11, 99], [10, 25]) == 1         # a cut belongs below itself
    assert accuracy([10, 20, 30], [11, 11, 99], [10, 25]) == pytest.approx(2 / 3)


def test_calibration_covers_all_and_rises() -> None:
    rng = np.random.default_rng(1)
    said = rng.random(103) * 100
    table = calibration(said * 2, said, groups=10)
    assert sum(row.requests for row in table) == 103
    assert [row.predicted for row in table] == sorted(row.predicted for row in table)
    assert all(row.actual == pytest.approx(2 * row.predicted) for row in table)


def test_the_ceiling_is_one_without_chance_and_falls_with_it() -> None:
    rng = np.random.default_rng(2)
    prompts = rng.integers(1, 1000, size=(300, 1))
    taus, shares = [], []
    for noise in (0.0, 0.3, 1.0, 3.0):
        lengths = np.maximum(prompts * np.exp(noise * rng.standard_normal((300, 5))), 1).astype(int)
        taus.append(noise_ceiling(lengths).tau)
        shares.append(chance_share(lengths))
    assert taus[0] == 1 and shares[0] == pytest.approx(0)
    assert taus == sorted(taus, reverse=True) and shares == sorted(shares)
    with pytest.raises(UserError, match="2 or more"):
        noise_ceiling(prompts)


@pytest.mark.parametrize("a, b", [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_lists_that_do_not_belong_together_are_refused(a: list, b: list) -> None:
    for measure in (mae, kendall_tau):
        with pytest.raises(UserError, match="shape"):
            measure(a, b)
