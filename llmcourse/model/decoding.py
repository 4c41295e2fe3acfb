"""One token after another: a model is asked, its answer is appended, and it is asked again.

The probability of a text is the product of the probabilities of its tokens, each given those before it. Without a cache
every step runs the whole text again; with one it runs only the newest token, and the answer is the same. Beam search,
which keeps several texts at once, stands in `beam.py`. Sutskever et al., 2014. Weeks 1 (decoding) and 2 (the cache).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcourse.kv.contiguous import ContiguousCache
from llmcourse.model.beam import Beam, BeamNode, beam_search
from llmcourse.model.limits import check_sampling, room_for
from llmcourse.model.sampling import sample_token, seeded_generator
from llmcourse.model.transformer import Transformer

__all__ = ["Beam", "BeamNode", "beam_search", "generate", "generate_stream"]


@dataclass(frozen=True)
class _Sampler:
    """How to draw a token, with the generator that remembers how many were drawn."""

    temperature: float
    top_k: int
    top_p: float
    generator: torch.Generator

    def __call__(self, logits: Tensor) -> int:
        return sample_token(logits, self.temperature, self.top_k, self.top_p, self.generator)


def generate(model: Transformer, tokens: Sequence[int], max_tokens: int, *, temperature: float = 0.0, top_k: int = 0,
             top_p: float = 1.0, seed: int | None = None, eos_ids: Collection[int] = frozenset(),
             use_cache: bool = True) -> list[int]:
    """The new tokens that follow ``tokens``: at most ``max_tokens``, the end-of-text token included if one was drawn.

    Also ends where the text reaches the model's ``max_length``. Greedy unless a temperature is given. Raises UserError
    for an empty or too long prompt, unknown token ids, ``max_tokens`` below 1 and settings out of range.
    """
    return list(generate_stream(model, tokens, max_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
                                seed=seed, eos_ids=eos_ids, use_cache=use_cache))


def generate_stream(model: Transformer, tokens: Sequence[int], max_tokens: int, *, temperature: float = 0.0,
                    top_k: int = 0, top_p: float = 1.0, seed: int | None = None,
                    eos_ids: Collection[int] = frozenset(), use_cache: bool = True) -> Iterator[int]:
    """The same tokens, each as soon as it is known. Bad input raises at once, not at the first token."""
    check_sampling(temperature, top_k, top_p)
    room = room_for(model.config, tokens, max_tokens)
    weights = model.embedding
    cache = ContiguousCache(model.config, len(tokens) + room, 1, weights.device, weights.dtype) if use_cache else None
    sampler = _Sampler(temperature, top_k, top_p, seeded_generator(seed))
    return _stream(model, list(tokens), room, sampler, eos_ids, cache)


def _stream(model: Transformer, tokens: list[int], room: int, sampler: _Sampler, eos_ids: Collection[int],
            cache: ContiguousCache | None) -> Iterator[int]:
    for _ in range(room):
        token = sampler(_last_logits(model, tokens, cache))
        tokens.append(token)
        yield token
        if token in eos_ids:
            return


@torch.inference_mode()
def _last_logits(model: Transformer, tokens: list[int], cache: ContiguousCache | None) -> Tensor:
    """Scores (V,) of the token that follows; with a cache only the tokens it does not hold are run."""
    new = tokens if cache is None else tokens[cache.length:]
    hidden = model.hidden(torch.tensor([new], device=model.embedding.device), cache)
    return model.logits(hidden[0, -1])
