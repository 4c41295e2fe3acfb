"""KV in int8: each token's vector of each head is stored as 8-bit numbers and the one scale they share.

``x`` becomes ``round(x / scale)`` with ``scale = max|x| / 127``, so nothing is off by more than half a scale: 0.4 % of
the vector's largest value. A scale per token and head means that a token written later never changes one written
before, as a scale for the whole block would. The scale (float32) lies in the four bytes behind its vector, so whole
blocks are still one piece of memory: copying, swapping and moving them is what it was. Dettmers et al., 2022; for KV
caches: KIVI (Liu et al., 2024). Week 6.

Bytes per vector: head_dim + 4, against 4 * head_dim in float32: 28 % at head_dim 32, 26 % at 128. Against float16 it is
56 % and 52 %. What it costs is time: each step turns the whole context back into floats.
"""

import torch
from torch import Tensor

from llmcourse.errors import UserError
from llmcourse.kv.store import KVStore
from llmcourse.model.config import ModelConfig

SCALE_BYTES = 4


class QuantisedKVStore(KVStore):
    """A `KVStore` whose ``data`` is int8, (layers, 2, num_blocks, kv_heads, block_size, head_dim + 4).

    Reads give ``dtype``. UserError when head_dim is no multiple of 4 (the scales would not be aligned).
    """

    exact = False

    def __init__(self, config: ModelConfig, num_blocks: int, block_size: int, device: str | torch.device = "cpu",
                 dtype: torch.dtype = torch.float32) -> None:
        if config.head_dim % SCALE_BYTES:
            raise UserError(f"an int8 KV cache needs a head_dim that is a multiple of 4, not {config.head_dim}; "
                            "use the full precision")
        super().__init__(config, num_blocks, block_size, device, dtype)
        self._packed = torch.empty(0, dtype=torch.int8, device=device)

    def like(self, layers: int, num_blocks: int, device: str | torch.device) -> Tensor:
        """A tensor of so many blocks, of zeros."""
        shape = (layers, 2, num_blocks, self.num_kv_heads, self.block_size, self.head_dim + SCALE_BYTES)
        return torch.zeros(shape, device=device, dtype=torch.int8)

    def put(self, layer: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        """Quantise new keys and values (N, kv_heads, head_dim) and write them to the `rows` of their slots."""
        for side, new in zip(self.row_views[layer], (k, v), strict=True):
            side.index_copy_(0, rows, quantise(new.reshape(-1, self.head_dim)))

    def take(self, layer: int, pieces: Tensor, scratch: Tensor) -> Tensor:
        """Gather whole blocks, and turn them into floats in ``scratch``."""
        width = self.piece_views[layer].shape[1]
        if self._packed.numel() < pieces.numel() * width:
            self._packed = torch.empty(pieces.numel() * width, dtype=torch.int8, device=self.device)
        packed = self._packed[:pieces.numel() * width].view(-1, width)
        torch.index_select(self.piece_views[layer], 0, pieces, out=packed)
        restore(packed.view(-1, self.head_dim + SCALE_BYTES), scratch.view(-1, self.head_dim))
        return scratch


def quantise(x: Tensor) -> Tensor:
    """Vectors (N, D) -> (N, D + 4) int8: the rounded values, and behind them the bytes of the scale."""
    scale = x.float().abs().amax(-1, keepdim=True) / 127
    values = (x.float() / scale.clamp(min=torch.finfo(torch.float32).tiny)).round().to(torch.int8)
    return torch.cat((values, scale.view(torch.int8)), -1)


def restore(packed: Tensor, out: Tensor) -> Tensor:
    """What `quantise` was given, up to half a scale: (N, D + 4) int8 -> ``out`` (N, D)."""
    return torch.mul(packed[:, :-SCALE_BYTES], packed[:, -SCALE_BYTES:].view(torch.float32), out=out)
