"""Sampling: what each knob keeps, and that what is drawn follows the distribution."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.model.sampling import next_token_distribution, sample, sample_token, seeded_generator

LOG_PROBABILITIES = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]).log()
scores = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40).map(torch.tensor)


def test_a_reader_s_tour() -> None:
    def close(got: torch.Tensor, expected: torch.Tensor) -> None:
        assert torch.allclose(got, expected)

    close(next_token_distribution(LOG_PROBABILITIES), LOG_PROBABILITIES.exp())
    close(next_token_distribution(LOG_PROBABILITIES, temperature=0), torch.tensor([1.0, 0, 0, 0, 0]))
    close(next_token_distribution(LOG_PROBABILITIES, top_k=2), torch.tensor([2 / 3, 1 / 3, 0, 0, 0]))
    # 0.5 is below 0.6: the token that crosses 0.6 stays.
    close(next_token_distribution(LOG_PROBABILITIES, top_p=0.6), torch.tensor([2 / 3, 1 / 3, 0, 0, 0]))
    # 0.5 alone already holds 0.5.
    close(next_token_distribution(LOG_PROBABILITIES, top_p=0.5), torch.tensor([1.0, 0, 0, 0, 0]))
    # The nucleus is taken of what top-k left: 2/3 and 1/3, so 0.6 needs only the first.
    close(next_token_distribution(LOG_PROBABILITIES, top_k=2, top_p=0.6), torch.tensor([1.0, 0, 0, 0, 0]))
    # Twice the temperature takes the square root of every ratio.
    hot = next_token_distribution(LOG_PROBABILITIES, temperature=2)
    assert math.isclose(hot[0] / hot[2], 2, rel_tol=1e-5)


@example(torch.tensor([0.0, 1e-14]), 1.0, 0, 0.5)
@given(scores, st.floats(0, 5), st.integers(0, 50), st.floats(0.01, 1))
def test_always_a_distribution_that_keeps_the_best(logits, temperature, top_k, top_p) -> None:
    p = next_token_distribution(logits, temperature, top_k, top_p)
    assert p.shape == logits.shape and bool((p >= 0).all())
    assert math.isclose(float(p.sum()), 1, abs_tol=1e-4)
    assert p[logits.argmax()] == p.max() > 0


@given(scores, st.integers(1, 50))
def test_top_k_keeps_exactly_k_and_the_order(logits, k) -> None:
    p = next_token_distribution(logits, top_k=k)
    full = logits.softmax(0)
    assert int((p > 0).sum()) <= min(k, len(logits))
    assert int((p > 0).sum()) == min(k, len(logits)) or bool((full < 1e-30).any())      # underflowed tokens aside
    if bool((p == 0).any()):
        assert full[p > 0].min() >= full[p == 0].max()


@given(scores, st.floats(0.01, 0.99))
def test_the_nucleus_is_the_smallest_that_holds_p(logits, top_p) -> None:
    full = logits.softmax(0)
    kept = full[next_token_distribution(logits, top_p=top_p) > 0]
    assert float(kept.sum()) >= top_p - 1e-5
    assert float(kept.sum() - kept.min()) < top_p + 1e-5


@given(scores, st.floats(0.05, 1), st.floats(1, 5))
def test_colder_is_never_less_sure(logits, cold, hot) -> None:
    assert next_token_distribution(logits, cold).max() >= next_token_distribution(logits, hot).max() - 1e-5


def test_rows_are_independent() -> None:
    rows = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0))
    together = next_token_distribution(rows, 0.7, 4, 0.8)
    alone = torch.stack([next_token_distribution(row, 0.7, 4, 0.8) for row in rows.flatten(0, 1)]).view(3, 2, 7)
    assert torch.allclose(together, alone)


@pytest.mark.parametrize("temperature", [1e-300, 1e-8, 1e8])
def test_extreme_temperatures_stay_finite(temperature) -> None:
    p = next_token_distribution(torch.tensor([1000.0, 999.0, -1000.0]), temperature)
    assert bool(p.isfinite().all()) and math.isclose(float(p.sum()), 1, abs_tol=1e-5)


def test_draws_follow_the_distribution() -> None:
    draws = sample(LOG_PROBABILITIES.expand(20000, 5), generator=seeded_generator(0))
    shares = torch.bincount(draws, minlength=5) / 20000
    assert float((shares - LOG_PROBABILITIES.exp()).abs().max()) < 0.02
    cut = sample(LOG_PROBABILITIES.expand(2000, 5), top_p=0.6, generator=seeded_generator(0))
    assert set(cut.tolist()) == {0, 1}


def test_the_same_seed_draws_the_same() -> None:
    first, second = ([sample_token(LOG_PROBABILITIES, generator=generator) for _ in range(30)]
                     for generator in (seeded_generator(7), seeded_generator(7)))
    assert first == second and len(set(first)) > 1
    assert isinstance(first[0], int)


def test_greedy_takes_the_best_and_draws_nothing() -> None:
    generator = seeded_generator(0)
    before = generator.get_state()
    assert sample_token(LOG_PROBABILITIES, temperature=0, generator=generator) == 0
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(("settings", "named"), [
    (dict(temperature=-1), "temperature"), (dict(temperature=math.nan), "temperature"),
    (dict(temperature=math.inf), "temperature"), (dict(top_k=-1), "top_k"), (dict(top_p=0), "top_p"),
    (dict(top_p=1.5), "top_p"), (dict(top_p=math.nan), "top_p"),
])
def test_settings_out_of_range_are_refused(settings, named) -> None:
    with pytest.raises(UserError, match=named):
        sample(LOG_PROBABILITIES[None], **settings)
