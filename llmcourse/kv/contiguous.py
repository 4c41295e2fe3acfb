"""The simplest KV cache: one tensor per side, room for every row's longest length set aside from the start.

A new token's keys and values are written behind those already there, and its query looks at all of them; nothing
earlier is computed again. It is append-only: what was written never changes, which later weeks use to copy it while it
grows. What it wastes (rows shorter than the longest, room never filled) is why week 6 cuts memory into blocks. Week 2.
"""

import torch
from torch import Tensor

from llmcourse.model.attention import causal_mask, fused_attention
from llmcourse.model.config import ModelConfig


class ContiguousCache:
    """Keys and values of B rows that grow together, as an `Attention` of the model.

    ``keys`` and ``values`` are (layers, B, max_length, kv_heads, head_dim); the first ``length`` tokens are filled.
    """

    def __init__(self, config: ModelConfig, max_length: int, batch: int = 1, device: str | torch.device = "cpu",
                 dtype: torch.dtype = torch.float32) -> None:
        shape = (config.num_layers, batch, max_length, config.num_kv_heads, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    @property
    def max_length(self) -> int:
        """Tokens a row can hold."""
        return self.keys.shape[2]

    @property
    def used_bytes(self) -> int:
        """Bytes of the keys and values of tokens really cached (the rest is reserved)."""
        return 2 * self.keys[:, :, :self.length].numel() * self.keys.element_size()

    def positions(self, count: int) -> Tensor:
        """The next ``count`` positions behind what is cached."""
        if self.length + count > self.max_length:
            raise ValueError(f"{count} more tokens do not fit: {self.length} of {self.max_length} are in use; "
                             "build the cache with a larger max_length")
        return torch.arange(self.length, self.length + count, device=self.keys.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v (B, T, KV, D) first, then let q (B, T, H, D) look at everything stored: a token sees itself."""
        end = self.length + q.shape[1]
        self.keys[layer, :, self.length:end] = k
        self.values[layer, :, self.length:end] = v
        mask = None if q.shape[1] == 1 else causal_mask(q.shape[1], end, q.device)
        return fused_attention(q, self.keys[layer, :, :end], self.values[layer, :, :end], mask)

    def advance(self, count: int) -> None:
        """All layers have stored: the tokens count as cached."""
        self.length += count

    def reorder(self, rows: Tensor) -> None:
        """Make row i continue from what was row ``rows[i]`` (B,) int64: a beam search keeps some rows, drops others."""
        self.keys[:, :, :self.length] = self.keys[:, rows, :self.length]
        self.values[:, :, :self.length] = self.values[:, rows, :self.length]
