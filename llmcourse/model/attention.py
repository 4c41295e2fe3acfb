"""Scaled dot-product attention, and the one seam through which a model meets its KV cache.

A token asks a question (query); every token up to it offers a key to compare with and a value to return. Where the keys
and values of earlier tokens are kept is nobody's business but an ``Attention`` object's: recomputed each time
(`CausalAttention`), in one contiguous tensor, or in blocks scattered over a pool (both in `llmcourse.kv`). The
transformer does not know which it was given. Vaswani et al., 2017; grouped queries: Ainslie et al., 2023. Weeks 1-2.
"""

from typing import Protocol

import torch
from torch import Tensor


class Attention(Protocol):
    """What a transformer asks of whoever keeps the keys and values. T new tokens in each of B rows."""

    def positions(self, count: int) -> Tensor:
        """Positions of the ``count`` new tokens: (T,), or (B, T) when rows differ."""
        ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Let q (B, T, heads, head_dim) look at what is kept plus k, v (B, T, kv_heads, head_dim)."""
        ...

    def advance(self, count: int) -> None:
        """Every layer has attended: ``count`` more tokens are now kept."""
        ...


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """True where query i may look at key j, when the last query stands at the last key: (queries, keys) bool."""
    q = torch.arange(keys - queries, keys, device=device)[:, None]
    return torch.arange(keys, device=device)[None, :] <= q


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of scaled scores: q (B, T, H, D), k (B, S, KV, D) -> (B, H, T, S), each row summing to 1."""
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)                 # each KV head serves a group of queries
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1)


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as the paper writes it: q (B, T, H, D), k and v (B, S, KV, D), mask (T, S) bool -> (B, T, H, D).

    This is the definition that tests and lectures hold on to; `fused_attention` computes the same faster.
    """
    v = v.repeat_interleave(q.shape[2] // v.shape[2], dim=2)
    return torch.einsum("bhts,bshd->bthd", attention_weights(q, k, mask), v)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """The same through torch's fused kernel, same shapes; ``causal`` needs as many queries as keys."""
    out = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=causal,
        enable_gqa=q.shape[2] != k.shape[2])
    return out.transpose(1, 2)


class CausalAttention:
    """No cache: every token of the row is there, each looks at itself and those before it."""

    def positions(self, count: int) -> Tensor:
        """Tokens are numbered from 0."""
        return torch.arange(count)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of the rows over themselves, (B, T, H, D)."""
        return fused_attention(q, k, v, causal=True)

    def advance(self, count: int) -> None:
        """Nothing is kept."""


class RecordedAttention(CausalAttention):
    """The same, but each layer's weights stay behind to be looked at: ``weights[layer]`` (B, H, T, T)."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend by the definition, and keep the weights."""
        mask = causal_mask(q.shape[1], k.shape[1], q.device)
        self.weights.append(attention_weights(q, k, mask).detach())
        return scaled_dot_product_attention(q, k, v, mask)
