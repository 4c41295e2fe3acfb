"""The encoder-decoder: who may look at what, and that it learns to turn a sequence round."""

import pytest
import torch

from llmcourse.model.positions import sinusoidal_positions
from llmcourse.model.seq2seq import Seq2Seq

START = 10


@pytest.fixture(scope="module")
def model() -> Seq2Seq:
    return Seq2Seq(vocab_size=11, size=32, heads=4, layers=2).eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 10, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_shapes(model) -> None:
    assert model(tokens(3, 7), tokens(3, 5)).shape == (3, 5, 11)
    assert model.encode(tokens(3, 7)).shape == (3, 7, 32)
    assert model.generate(tokens(3, 7), START, 4).shape == (3, 4)
    assert model.decoder[0].cross.weights.shape == (3, 4, 4, 7)


@torch.no_grad()
def test_the_decoder_does_not_see_the_future(model) -> None:
    source, target = tokens(1, 6), tokens(1, 8)
    changed = target.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 10
    before, after = model(source, target)[0], model(source, changed)[0]
    assert torch.allclose(before[:5], after[:5], atol=1e-6)
    assert not torch.allclose(before[5:], after[5:], atol=1e-3)


@torch.no_grad()
def test_the_encoder_sees_both_ways_and_the_decoder_sees_all_of_it(model) -> None:
    source, target = tokens(1, 6), tokens(1, 3)
    changed = source.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 10
    assert not torch.allclose(model.encode(source)[0, 0], model.encode(changed)[0, 0], atol=1e-4)
    assert not torch.allclose(model(source, target)[0, 0], model(changed, target)[0, 0], atol=1e-4)


def test_it_learns_to_reverse() -> None:
    model, generator = Seq2Seq(vocab_size=11, size=32, heads=2, layers=1), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        source = torch.randint(0, 10, (32, 4), generator=generator)
        answer = source.flip(1)
        shown = torch.cat((torch.full((32, 1), START), answer[:, :-1]), dim=1)
        loss = torch.nn.functional.cross_entropy(model(source, shown).flatten(0, 1), answer.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fresh = tokens(200, 4, seed=9)
    right = (model.generate(fresh, START, 4) == fresh.flip(1)).float().mean()
    assert right > 0.9
    looked_at = model.decoder[0].cross.weights.mean((0, 1)).argmax(-1)      # the picture: an anti-diagonal
    assert looked_at.tolist() == [3, 2, 1, 0]


def test_a_size_that_heads_cannot_share() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        Seq2Seq(vocab_size=5, size=30, heads=4)


def test_sinusoidal_positions() -> None:
    waves = sinusoidal_positions(50, 8)
    assert waves.shape == (50, 8)
    assert torch.allclose(waves[0], torch.tensor([0.0, 1] * 4))             # sin 0 and cos 0
    assert torch.allclose(waves[3, :2], torch.tensor([3.0]).sin().item() * torch.tensor([1.0, 0])
                          + torch.tensor([3.0]).cos().item() * torch.tensor([0, 1.0]))
    # How alike two positions are depends only on how far apart they stand.
    alike = waves @ waves.T
    assert torch.allclose(alike.diagonal(7), alike.diagonal(7)[0].expand(43), atol=1e-4)
    with pytest.raises(ValueError, match="even"):
        sinusoidal_positions(4, 3)
