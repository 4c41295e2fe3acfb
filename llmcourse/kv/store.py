"""The tensors behind the block numbers: one big array, cut into blocks, made once.

`BlockPool` decides who owns which block; this file holds what is in them. Reading and writing whole blocks by number is
all that swapping, migration and copy-on-write need. Kwon et al., 2023. Weeks 2 and 6.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmcourse.model.config import ModelConfig


class KVStore:
    """Keys and values of every block: ``data`` is (layers, 2, num_blocks, block_size, kv_heads, head_dim).

    Index 0 of the second axis is K, 1 is V.
    """

    def __init__(self, config: ModelConfig, num_blocks: int, block_size: int, device: str | torch.device = "cpu",
                 dtype: torch.dtype = torch.float32) -> None:
        # zeros, not empty: the memory is touched here once, not page by page while requests wait.
        self.data = torch.zeros((config.num_layers, 2, num_blocks, block_size, config.num_kv_heads, config.head_dim),
                                device=device, dtype=dtype)
        self.num_blocks = num_blocks
        self.block_size = block_size

    @property
    def device(self) -> torch.device:
        """Where the blocks live."""
        return self.data.device

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers, K and V."""
        return self.data[:, :, 0].numel() * self.data.element_size()

    def slots(self, layer: int) -> tuple[Tensor, Tensor]:
        """K and V of a layer by token slot, each a view (num_blocks * block_size, kv_heads, head_dim)."""
        keys, values = self.data[layer].flatten(1, 2)
        return keys, values

    def copy(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, each ``(source, destination)``; all sources are read before anything is written."""
        if copies:
            sources, destinations = zip(*copies, strict=True)
            self.data[:, :, list(destinations)] = self.data[:, :, list(sources)]

    def read_blocks(self, blocks: Sequence[int]) -> Tensor:
        """A copy of some blocks: (layers, 2, len(blocks), block_size, kv_heads, head_dim)."""
        return self.data[:, :, list(blocks)]

    def write_blocks(self, blocks: Sequence[int], payload: Tensor) -> None:
        """Put what `read_blocks` gave (here or in another store of the same shape) into these blocks."""
        self.data[:, :, list(blocks)] = payload.to(self.data)
