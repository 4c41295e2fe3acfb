"""The same decoder with its weights laid out for serving: fewer and larger matrix products, fewer small operations.

`Transformer` is the definition; this computes the same numbers (to rounding) for the same `Attention`. Q, K and V come
out of one product, gate and up out of another; a norm's weight is a diagonal matrix, so it is multiplied into the
matrix behind it once and for all; angles are made once a step. On a CPU every matrix is kept both ways round: one row,
or very many, multiply fastest as ``x @ W``, a batch of decodes as ``W.T @ x.T`` (up to 4 times,
benchmarks/engine_notes.md). It costs two more copies of the weights. Weeks 2 and 6.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from llmcourse.model.attention import Attention
from llmcourse.model.rope import rope_angles
from llmcourse.model.transformer import Block, Linear, RMSNorm, Transformer

FEW = range(2, 65)          # rows that multiply faster as W.T @ x.T
REHEARSED = 8               # rows of the step that thread counts are compared on


class PreparedModel:
    """`hidden` and `logits` of a `Transformer`, faster. Made anew when the model's weights have changed."""

    def __init__(self, model: Transformer) -> None:
        self.config = model.config
        self.embedding = model.embedding.detach()
        self._frequencies = model.frequencies
        self._layers = [_Layer.of(block) for block in model.blocks]          # type: ignore[arg-type]
        self._norm = model.norm.weight.detach()
        self._mean = torch.full_like(self.embedding[:1].T, 1 / self.config.hidden_size)     # (hidden, 1)
        self._eps = torch.full_like(self._mean[:1], self.config.norm_eps)
        head = self.embedding.T if model.lm_head is None else model.lm_head.weight.detach()
        self._head = _Product(head.contiguous(), _turned(head), None)

    def hidden(self, tokens: Tensor, attention: Attention) -> Tensor:
        """Last hidden states: tokens (B, T) int64 -> (B, T, hidden)."""
        rows, length = tokens.shape
        angles = self._angles(attention.positions(length).to(tokens.device).expand(rows, length).flatten())
        x = self.embedding[tokens.flatten()]
        for number, layer in enumerate(self._layers):
            x = self._run(number, layer, x, angles, attention, rows)
        attention.advance(length)
        return rms_norm(x, x.shape[-1:], self._norm, self.config.norm_eps).view(rows, length, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every next token: (N, hidden) -> (N, vocab)."""
        return self._head(hidden)

    def rehearse(self) -> None:
        """The first layer on a few rows: a small piece of a decode step, to compare thread counts on."""
        x = self.embedding[:1].expand(REHEARSED, -1).contiguous()
        angles = self._angles(torch.zeros(REHEARSED, device=x.device))
        self._run(0, self._layers[0], x, angles, _Itself(), REHEARSED)

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """For x, and for x with the halves of its heads swapped: two (N, 1, head_dim)."""
        cos, sin = rope_angles(positions, self._frequencies)
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    def _unit(self, x: Tensor) -> Tensor:
        """An RMSNorm without its weight, which is in the matrix that follows: (N, hidden)."""
        return x * torch.addmm(self._eps, x * x, self._mean).rsqrt_()

    def _run(self, number: int, layer: _Layer, x: Tensor, angles: tuple[Tensor, Tensor], attention: Attention,
             rows: int) -> Tensor:
        """One block on rows (N, hidden)."""
        config = self.config
        size, heads, kv_heads = config.head_dim, config.num_heads, config.num_kv_heads
        qkv = layer.qkv(self._unit(x)).view(len(x), -1, size)                       # (N, H + KV + KV, D)
        qk = qkv[:, :heads + kv_heads]
        if layer.qk_norm is not None:
            qk = rms_norm(qk, (size,), eps=config.norm_eps) * layer.qk_norm
        qk = _rotate(qk, angles).view(rows, -1, heads + kv_heads, size)
        v = qkv[:, heads + kv_heads:].view(rows, -1, kv_heads, size)
        seen = attention.attend(number, qk[:, :, :heads], qk[:, :, heads:], v).reshape(len(x), -1)
        x = layer.o.add_to(x, seen)
        gate, up = layer.gate_up(self._unit(x)).chunk(2, -1)
        return layer.down.add_to(x, silu(gate).mul_(up))


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """What `apply_rope` does, in three operations: x (N, heads, D)."""
    first, second = x.chunk(2, -1)
    return torch.addcmul(x * angles[0], torch.cat((second, first), -1), angles[1]).to(x.dtype)


class _Product(NamedTuple):
    weight: Tensor              # (in, out)
    turned: Tensor | None       # (out, in); None on a GPU
    bias: Tensor | None

    @classmethod
    def of(cls, *parts: Linear, norm: Tensor | None = None) -> _Product:
        """Several layers with the same input as one, the weight of the norm before them multiplied in."""
        weight = torch.cat([part.weight.detach() for part in parts], 1) if len(parts) > 1 else parts[0].weight.detach()
        if norm is not None:
            weight *= norm.detach()[:, None]                  # of a fresh copy: there are several parts before a norm
        biases = [part.bias.detach() for part in parts if part.bias is not None]
        return cls(weight, _turned(weight), torch.cat(biases) if biases else None)

    def __call__(self, x: Tensor) -> Tensor:
        if self.turned is None or len(x) not in FEW:
            return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)
        y = torch.mm(self.turned, x.T).T
        return y.contiguous() if self.bias is None else self.bias + y

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual + self(x)``; the product itself adds where it can."""
        if self.turned is None or len(x) not in FEW:
            y = torch.addmm(residual, x, self.weight)
        else:
            y = residual + torch.mm(self.turned, x.T).T
        return y if self.bias is None else y + self.bias


def _turned(weight: Tensor) -> Tensor | None:
    return weight.T.contiguous() if weight.device.type == "cpu" else None


class _Layer(NamedTuple):
    qkv: _Product
    qk_norm: Tensor | None      # (H + KV, D)
    o: _Product
    gate_up: _Product
    down: _Product

    @classmethod
    def of(cls, block: Block) -> _Layer:
        attention, mlp = block.attention, block.mlp
        qkv = _Product.of(attention.q_proj, attention.k_proj, attention.v_proj, norm=block.attention_norm.weight)
        gate_up = _Product.of(mlp.gate_proj, mlp.up_proj, norm=block.mlp_norm.weight)
        return cls(qkv, _qk_norm(block), _Product.of(attention.o_proj), gate_up, _Product.of(mlp.down_proj))


def _qk_norm(block: Block) -> Tensor | None:
    attention = block.attention
    if not (isinstance(attention.q_norm, RMSNorm) and isinstance(attention.k_norm, RMSNorm)):
        return None
    size = attention.head_dim
    q_heads, k_heads = (part.weight.shape[1] // size for part in (attention.q_proj, attention.k_proj))
    return torch.cat((attention.q_norm.weight.detach().expand(q_heads, size),
                      attention.k_norm.weight.detach().expand(k_heads, size)))


class _Itself:
    """Attention of a token that stands alone: what it sees is itself."""

    def positions(self, count: int) -> Tensor:
        return torch.zeros(count)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v.repeat_interleave(q.shape[2] // v.shape[2], 2)

    def advance(self, count: int) -> None:
        """Nothing is kept."""
