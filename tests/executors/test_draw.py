"""Drawing for all rows at once: the right distribution, and each row's token its own business."""

import pytest
import torch

from llmcourse.engine import Request, SamplingParams
from llmcourse.executors.draw import draw, next_tokens, uniform
from llmcourse.model.sampling import next_token_distribution


def request(seed: int = 0, length: int = 1, **sampling: float) -> Request:
    return Request([0] * length, SamplingParams(seed=seed, **({"temperature": 1.0} | sampling)), id="r")  # type: ignore[arg-type]


def test_numbers_are_uniform_and_strangers_to_their_neighbours() -> None:
    """Means, and the correlations of neighbours in either argument, over 20,000 draws."""
    for step in ((1, 0), (0, 1), (1, 1)):
        found = torch.tensor([uniform(i * step[0], i * step[1]) for i in range(20000)])
        assert found.min() >= 0 and found.max() < 1
        assert abs(found.mean() - 0.5) < 0.01 and abs(found.std() - 12 ** -0.5) < 0.01
        assert abs(torch.corrcoef(torch.stack((found[1:], found[:-1])))[0, 1]) < 0.03
        assert torch.histc(found, 20, 0, 1).min() > 850


def test_a_place_falls_on_the_token_that_lies_there() -> None:
    rows = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).expand(5, -1)
    assert draw(rows, [0.0, 0.2499, 0.25, 0.9999, 1 - 2**-53]) == [1, 1, 3, 3, 3]


def test_draws_follow_the_distribution_of_each_way() -> None:
    """12,000 draws under temperature, top-k and top-p; the frequency of every token is its probability."""
    logits = torch.randn(9, generator=torch.Generator().manual_seed(3)) * 2
    for way in ({}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.7}, {"top_k": 5, "top_p": 0.8}):
        requests = [request(seed, **way) for seed in range(12000)]
        found = torch.bincount(torch.tensor(next_tokens(logits.expand(12000, -1), requests)), minlength=9) / 12000
        want = next_token_distribution(logits, **({"temperature": 1.0} | way))  # type: ignore[arg-type]
        assert ((found > 0) <= (want > 0)).all()
        assert (found - want).abs().max() < 0.02


def test_company_and_order_change_nothing() -> None:
    logits = torch.randn(30, 50, generator=torch.Generator().manual_seed(4))
    ways = [{"temperature": 0.0}, {"temperature": 0.8}, {"top_k": 3}, {"top_p": 0.6},
            {"temperature": 1.3, "top_p": 0.9}]
    requests = [request(i, 1 + i % 4, **ways[i % 5]) for i in range(30)]
    together = next_tokens(logits, requests)
    assert next_tokens(logits.flip(0), requests[::-1]) == together[::-1]
    assert [next_tokens(logits[i:i + 1], [requests[i]])[0] for i in range(30)] == together
    greedy = [token for token, r in zip(together, requests, strict=True) if r.sampling.temperature == 0]
    assert greedy == logits.argmax(-1)[::5].tolist()


@pytest.mark.parametrize(("seed", "length"), [(1, 1), (0, 2)])
def test_another_seed_or_position_draws_otherwise(seed: int, length: int) -> None:
    flat = torch.zeros(1, 10**6)
    assert next_tokens(flat, [request(seed, length)]) != next_tokens(flat, [request()])
