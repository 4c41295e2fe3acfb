"""Packing: every document whole, none sees another, nothing depends on what came before."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.model import ModelConfig, Transformer
from llmcourse.model.tokenizer import Tokenizer
from llmcourse.model.training.packing import FULL_TOKENS, OPEN_WEIGHT, PackedAttention, answer_weight, batches, pack
from llmcourse.model.training.trainer import train_tokenizer

PAD = 0


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(seed=0, samples=300)


@st.composite
def documents(draw):
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=30))
    return [([number + 1] * length, [0.5] * length) for number, length in enumerate(lengths)]


@given(documents())
def test_every_document_is_in_one_row_whole_and_once(docs):
    packed = pack(docs, 20, PAD)
    found = []
    for tokens, weights, owners in zip(packed.tokens, packed.weights, packed.documents, strict=True):
        for owner in range(int(owners.max()) + 1):
            (places,) = torch.nonzero(owners == owner, as_tuple=True)
            assert places.tolist() == list(range(int(places[0]), int(places[-1]) + 1))
            found.append(tokens[places].tolist())
            assert set(weights[places].tolist()) == {0.5}
        assert (tokens[owners == -1] == PAD).all()
        assert (weights[owners == -1] == 0).all()
    assert sorted(found) == sorted(tokens for tokens, _ in docs)
    assert packed.tokens.shape[1] <= 20


def test_packing_fills_rows_before_it_opens_new_ones():
    docs = [([1] * length, [1.0] * length) for length in (10, 6, 4, 7, 3)]
    assert pack(docs, 10, PAD).tokens.shape == (3, 10)


def test_a_packed_document_is_answered_as_if_it_were_alone():
    config = ModelConfig(vocab_size=30, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
                         intermediate_size=32, max_length=64)
    model = Transformer(config, seed=3).eval()
    docs = [([7, 8, 9, 10, 11], [1.0] * 5), ([3, 4, 5], [1.0] * 3)]
    packed = pack(docs, 12, PAD)
    with torch.inference_mode():
        together = model(packed.tokens, PackedAttention(packed.documents))[0]
        for start, (tokens, _) in ((0, docs[0]), (5, docs[1])):
            alone = model(torch.tensor([tokens]))[0]
            torch.testing.assert_close(together[start : start + len(tokens)], alone, rtol=1e-4, atol=1e-5)


def test_a_step_is_a_function_of_seed_and_number_alone(tokenizer):
    first, again = batches(tokenizer, 800, 0, 5), batches(tokenizer, 800, 0, 5)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, again, strict=True))
    for other in (batches(tokenizer, 800, 0, 6), batches(tokenizer, 800, 1, 5)):
        assert [part.tokens.tolist() for part in other] != [part.tokens.tolist() for part in first]


def test_a_step_holds_about_as_many_tokens_as_asked(tokenizer):
    tokens = sum(int((part.documents >= 0).sum()) for part in batches(tokenizer, 2000, 0, 0))
    assert 2000 <= tokens < 2512


@given(st.integers(1, 500))
def test_long_right_answers_weigh_more_in_all_but_less_per_token(length):
    assert answer_weight(True, length + 1) <= answer_weight(True, length) <= 1.0
    assert (length + 1) * answer_weight(True, length + 1) > length * answer_weight(True, length)
    assert answer_weight(True, FULL_TOKENS) == 1.0
    assert answer_weight(False, length) == OPEN_WEIGHT
