"""From scores to a token: greedy, temperature, top-k, top-p.

A model gives every token a score. Temperature sharpens or flattens the distribution they make; top-k keeps its k
likeliest tokens; top-p (the nucleus) keeps the fewest likeliest tokens that hold at least p of the mass. They apply
in that order, each on what the one before left. Week 1.

Reference: Holtzman et al., "The curious case of neural text degeneration" (2020).
"""

import torch
from torch import Tensor

from llmcourse.model.limits import check_sampling

COLDEST = 1e-5                                                  # colder than this is greedy in float32 anyway


def next_token_distribution(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Probabilities of the next token: logits (..., V) -> (..., V) float32, each row summing to 1.

    ``temperature=0`` puts everything on the best token; ``top_k=0`` and ``top_p=1`` are off. Equal tokens stand in the
    order of their ids. Raises UserError for settings out of range.
    """
    check_sampling(temperature, top_k, top_p)
    logits = logits.float()
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    shifted = logits - logits.amax(-1, keepdim=True)            # the best becomes 0: no temperature overflows it
    probabilities = (shifted / max(temperature, COLDEST)).softmax(-1)
    if top_k == 0 and top_p == 1:
        return probabilities
    order = logits.argsort(stable=True, dim=-1, descending=True)   # scores may differ where probabilities round to one
    ranked = probabilities.gather(-1, order)
    if top_k:
        ranked = keep_top_k(ranked, top_k)
    if top_p < 1:
        ranked = keep_nucleus(ranked, top_p)
    return torch.zeros_like(probabilities).scatter(-1, order, ranked)


def keep_top_k(ranked: Tensor, k: int) -> Tensor:
    """The first k of each row of probabilities sorted downwards (..., V), rescaled to sum to 1."""
    kept = ranked.clone()
    kept[..., k:] = 0
    return kept / kept.sum(-1, keepdim=True)


def keep_nucleus(ranked: Tensor, p: float) -> Tensor:
    """The shortest head of each row, sorted downwards (..., V), that holds at least p; rescaled to sum to 1.

    A token stays as long as the mass before it is below p, so the one that crosses p is kept.
    """
    before = ranked.cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    kept = ranked.masked_fill(before >= p, 0)
    return kept / kept.sum(-1, keepdim=True)


def sample(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
           generator: torch.Generator | None = None) -> Tensor:
    """Draw one token for each row: logits (N, V) -> (N,) int64 on the logits' device.

    The draw is made where the generator lives, so that one seed gives one answer on every device.
    """
    check_sampling(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = next_token_distribution(logits, temperature, top_k, top_p)
    place = probabilities.device if generator is None else generator.device
    return torch.multinomial(probabilities.to(place), 1, generator=generator)[:, 0].to(logits.device)


def sample_token(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
                 generator: torch.Generator | None = None) -> int:
    """Draw one token from one row of scores: logits (V,) -> token id."""
    return int(sample(logits[None], temperature, top_k, top_p, generator))


def seeded_generator(seed: int | None) -> torch.Generator:
    """A generator on the CPU that starts from ``seed``, or anywhere when it is None."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator
