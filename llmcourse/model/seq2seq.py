"""The encoder-decoder, as the transformer was born: one stack reads a text, another writes an answer looking at it.

The encoder sees its whole text at once, both ways. The decoder writes from left to right (causal mask), and in every
layer its queries also look at the encoder's output: cross-attention, whose keys and values are computed once for each
source. Today's language models kept the decoder and dropped the rest: the prompt became part of the text.
Vaswani et al., "Attention is all you need", 2017 (here with norms in front, which trains without warm-up). Week 1.
"""

import torch
from torch import Tensor, nn

from llmcourse.model.attention import attention_weights, causal_mask
from llmcourse.model.positions import sinusoidal_positions
from llmcourse.model.transformer import Linear


class MultiHead(nn.Module):
    """Multi-head attention from one text to another; to itself when both are the same."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = Linear(size, size), Linear(size, size)
        self.v_proj, self.o_proj = Linear(size, size), Linear(size, size)
        self.weights: Tensor | None = None                      # (B, H, T, S) of the last call, for pictures

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let x (B, T, size) look at source (B, S, size) where mask (T, S) is True -> (B, T, size)."""
        q, k, v = (project(text).unflatten(-1, (self.heads, -1))
                   for project, text in ((self.q_proj, x), (self.k_proj, source), (self.v_proj, source)))
        weights = attention_weights(q, k, mask)                 # (B, H, T, S)
        self.weights = weights.detach()
        return self.o_proj(torch.einsum("bhts,bshd->bthd", weights, v).flatten(-2))


class FeedForward(nn.Module):
    """The two-layer network of the paper: widen, ReLU, narrow."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.up, self.down = Linear(size, 4 * size, bias=True), Linear(4 * size, size, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return self.down(self.up(x).relu())


class EncoderBlock(nn.Module):
    """Look around, then think."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(2))
        self.attention, self.feed_forward = MultiHead(size, heads), FeedForward(size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, size) -> (B, S, size)."""
        seen = self.norms[0](x)
        x = x + self.attention(seen, seen)
        return x + self.feed_forward(self.norms[1](x))


class DecoderBlock(nn.Module):
    """Look back, look across to the source, then think."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(3))
        self.attention, self.cross = MultiHead(size, heads), MultiHead(size, heads)
        self.feed_forward = FeedForward(size)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Texts x (B, T, size) beside the encoded source (B, S, size) -> (B, T, size)."""
        seen = self.norms[0](x)
        x = x + self.attention(seen, seen, causal_mask(x.shape[1], x.shape[1], x.device))
        x = x + self.cross(self.norms[1](x), source)
        return x + self.feed_forward(self.norms[2](x))


class Seq2Seq(nn.Module):
    """An encoder and a decoder that share their embedding; ``size`` channels, randomly initialised from ``seed``."""

    def __init__(self, vocab_size: int, size: int = 64, heads: int = 4, layers: int = 2, max_length: int = 256,
                 seed: int = 0) -> None:
        super().__init__()
        if size % (2 * heads):
            raise ValueError(f"size is {size}; {heads} heads share it in pairs of channels, so it must be a multiple "
                             f"of {2 * heads}")
        self.embedding = nn.Parameter(torch.empty(vocab_size, size))
        self.encoder = nn.ModuleList(EncoderBlock(size, heads) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderBlock(size, heads) for _ in range(layers))
        self.source_norm, self.target_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.register_buffer("positions", sinusoidal_positions(max_length, size), persistent=False)
        self._initialise(seed)

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)

    def _embed(self, tokens: Tensor) -> Tensor:
        size = self.embedding.shape[1]
        # The root brings the embedding to the size of the positions it is added to.
        return self.embedding[tokens] * size**0.5 + self.get_buffer("positions")[:tokens.shape[1]]

    def encode(self, source: Tensor) -> Tensor:
        """Read the source once: (B, S) int64 -> (B, S, size)."""
        x = self._embed(source)
        for block in self.encoder:
            x = block(x)
        return self.source_norm(x)

    def decode(self, target: Tensor, encoded: Tensor) -> Tensor:
        """Next-token logits behind every target token: (B, T) int64, (B, S, size) -> (B, T, vocab)."""
        x = self._embed(target)
        for block in self.decoder:
            x = block(x, encoded)
        return self.target_norm(x) @ self.embedding.T

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """(B, S) and (B, T) int64 -> (B, T, vocab)."""
        return self.decode(target, self.encode(source))

    @torch.no_grad()
    def generate(self, source: Tensor, start: int, count: int) -> Tensor:
        """Write ``count`` tokens greedily behind the token ``start``: (B, S) int64 -> (B, count) int64."""
        encoded = self.encode(source)
        target = torch.full((len(source), 1), start, device=source.device)
        for _ in range(count):
            best = self.decode(target, encoded)[:, -1:].argmax(-1)
            target = torch.cat((target, best), dim=1)
        return target[:, 1:]
