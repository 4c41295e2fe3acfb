"""Decoding with a cache equals decoding without, and does less work; streams end where they should."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.model import ModelConfig, Transformer
from llmcourse.model.decoding import generate, generate_stream

CONFIG = ModelConfig(vocab_size=40, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4,
                     intermediate_size=32, max_length=48)


def lively(config: ModelConfig = CONFIG, seed: int = 0) -> Transformer:
    """A random model with large weights: its choices are far apart, so rounding cannot turn them."""
    model = Transformer(config, seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(20)
    return model


MODEL = lively()
prompts = st.lists(st.integers(0, 39), min_size=1, max_size=20)


class Counting(Transformer):
    """Counts the tokens that run through it."""

    computed = 0

    def hidden(self, tokens, attention=None):
        """As ever, and counted."""
        self.computed += tokens.numel()
        return super().hidden(tokens, attention)


@settings(max_examples=30, deadline=None)
@given(prompts, st.integers(1, 12), st.integers(0, 2**30))
def test_a_cache_changes_nothing(tokens, count, seed) -> None:
    for temperature in (0.0, 1.0):
        with_cache, without = (generate(MODEL, tokens, count, temperature=temperature, top_k=20, top_p=0.9, seed=seed,
                                        use_cache=use_cache) for use_cache in (True, False))
        assert with_cache == without and len(with_cache) == count


def test_a_cache_saves_work_and_is_really_used() -> None:
    model = Counting(CONFIG)
    generate(model, [1, 2, 3], 10)
    assert model.computed == 3 + 9                              # the last token drawn is never run
    model.computed = 0
    generate(model, [1, 2, 3], 10, use_cache=False)
    assert model.computed == sum(range(3, 13))


def test_greedy_is_the_argmax_of_the_whole_text() -> None:
    out = generate(MODEL, [5, 6, 7], 8)
    logits = MODEL(torch.tensor([[5, 6, 7, *out[:-1]]]))[0, 2:]
    assert out == logits.argmax(-1).tolist()


def test_it_ends_with_the_end_token_which_is_delivered() -> None:
    out = generate(MODEL, [5, 6, 7], 20)
    end = out[4]
    assert generate(MODEL, [5, 6, 7], 20, eos_ids={end}) == out[:out.index(end) + 1]


def test_a_stream_gives_each_token_as_soon_as_it_is_known() -> None:
    model = Counting(CONFIG)
    stream = generate_stream(model, [1, 2, 3], 5)
    assert model.computed == 0
    first = next(stream)
    assert model.computed == 3
    assert [first, *stream] == generate(model, [1, 2, 3], 5)


def test_a_text_never_grows_beyond_the_model() -> None:
    assert len(generate(MODEL, [1] * 40, 100)) == 8
    assert len(generate(MODEL, [1] * 47, 100)) == 1


def test_seeds() -> None:
    def draw(seed: int | None) -> list[int]:
        return generate(MODEL, [1], 30, temperature=3.0, seed=seed)

    assert draw(1) == draw(1) != draw(2)
    assert draw(None) != draw(None)


def test_the_caller_s_prompt_stays_as_it_was() -> None:
    tokens = [1, 2, 3]
    generate(MODEL, tokens, 4)
    assert tokens == [1, 2, 3]


@pytest.mark.parametrize(("arguments", "options", "named"), [
    (([], 4), {}, "no tokens"), (([1], 0), {}, "max_tokens"), (([1], -3), {}, "max_tokens"),
    (([40], 4), {}, "token 40"), (([-1], 4), {}, "token -1"), (([1] * 48, 4), {}, "48 tokens"),
    (([1], 4), dict(temperature=math.nan), "temperature"), (([1], 4), dict(top_p=0.0), "top_p"),
])
def test_bad_input_raises_before_the_first_token(arguments, options, named) -> None:
    with pytest.raises(UserError, match=named):
        generate_stream(MODEL, *arguments, **options)
