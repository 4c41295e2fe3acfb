"""Tokens for all samplers of a step at once: one argmax for the greedy, one distribution for each way of sampling.

Where a token falls is decided by one number in [0, 1): a hash of the request's seed and the token's position, laid
along the cumulated probabilities (inverse transform sampling). There is no generator with a state to lose, so
preempting a request, or moving it to another machine, does not change what it says; and no row waits for the one before
it. The hash is the mixing of SplitMix64 (Steele, Lea and Flood, 2014). Weeks 1, 2 and 7.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmcourse.engine.request import Request
from llmcourse.model.sampling import next_token_distribution

_WORD = (1 << 64) - 1


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that looks random and is always the same for the same seed and position."""
    mixed = (seed * 0x9E3779B97F4A7C15 + position) & _WORD
    for _ in range(2):                                    # twice: neighbours in both arguments must be strangers
        mixed = (mixed + 0x9E3779B97F4A7C15) & _WORD
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _WORD
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _WORD
        mixed ^= mixed >> 31
    return (mixed >> 11) / (1 << 53)


def next_tokens(logits: Tensor, requests: Sequence[Request]) -> list[int]:
    """The next token of each request from its row of logits (N, V)."""
    tokens: list[int] = logits.argmax(-1).tolist()
    ways: dict[tuple[float, int, float], list[int]] = {}
    for row, request in enumerate(requests):
        sampling = request.sampling
        if sampling.temperature:
            ways.setdefault((sampling.temperature, sampling.top_k, sampling.top_p), []).append(row)
    for (temperature, top_k, top_p), rows in ways.items():
        places = [uniform(requests[row].sampling.seed or 0, len(requests[row].tokens)) for row in rows]
        chosen = logits if len(rows) == len(logits) else logits[rows]
        drawn = draw(next_token_distribution(chosen, temperature, top_k, top_p), places)
        for row, token in zip(rows, drawn, strict=True):
            tokens[row] = token
    return tokens


def draw(probabilities: Tensor, places: Sequence[float]) -> list[int]:
    """The token that lies at each place in [0, 1) when a row's probabilities (N, V) are laid end to end."""
    ends = probabilities.double().cumsum(-1)
    # Rounding makes rows end a little off 1: places are shares of what is there. A token without mass has no place.
    at = torch.tensor(places, dtype=torch.float64, device=ends.device)[:, None] * ends[:, -1:]
    found: list[int] = torch.searchsorted(ends, at, right=True)[:, 0].clamp_(max=probabilities.shape[-1] - 1).tolist()
    return found
