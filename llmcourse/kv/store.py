"""The tensors behind the block numbers: one big array, cut into blocks, made once.

`BlockPool` decides who owns which block; this file holds what is in them. Reading and writing whole blocks by number is
all that swapping, migration and copy-on-write need. Inside a block each head's tokens lie side by side, so that
a gathered context is one contiguous matrix per head and a matrix product can read it. Kwon et al., 2023. Weeks 2 and 6.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from llmcourse.model.config import ModelConfig

Numbers = npt.NDArray[np.int64]


class KVStore:
    """Keys and values of every block: ``data`` is (layers, 2, num_blocks, kv_heads, block_size, head_dim).

    Index 0 of the second axis is K, 1 is V. ``exact`` says that what is read is what was written.
    """

    exact = True

    def __init__(self, config: ModelConfig, num_blocks: int, block_size: int, device: str | torch.device = "cpu",
                 dtype: torch.dtype = torch.float32) -> None:
        self.num_blocks, self.block_size, self.dtype = num_blocks, block_size, dtype
        self.num_kv_heads, self.head_dim = config.num_kv_heads, config.head_dim
        self.group = config.num_heads // config.num_kv_heads                    # query heads that share a KV head
        self.data = self.like(config.num_layers, num_blocks, device)
        # The same memory seen as rows of one head and token, and as pieces of one head and block; made once, for speed.
        self.row_views = [[side.view(-1, side.shape[-1]) for side in layer] for layer in self.data]
        self.piece_views = [layer.view(-1, block_size * layer.shape[-1]) for layer in self.data]
        self._scratch = torch.empty(0, dtype=dtype, device=device)

    def like(self, layers: int, num_blocks: int, device: str | torch.device) -> Tensor:
        """A tensor of so many blocks; its memory is touched here once, not page by page while requests wait."""
        return torch.zeros((layers, 2, num_blocks, self.num_kv_heads, self.block_size, self.head_dim),
                           device=device, dtype=self.dtype)

    @property
    def device(self) -> torch.device:
        """Where the blocks live."""
        return self.data.device

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers, K and V."""
        return self.data[:, :, 0].numel() * self.data.element_size()

    # ---- tokens: what attention asks ------------------------------------------------------------------------------

    def rows(self, slots: Numbers) -> Tensor:
        """Where the heads of some token slots (N,) lie among all rows of one side of a layer: (N * kv_heads,)."""
        blocks, offsets = np.divmod(slots[:, None], self.block_size)
        heads = blocks * self.num_kv_heads + np.arange(self.num_kv_heads)
        return torch.from_numpy((heads * self.block_size + offsets).ravel()).to(self.device)

    def put(self, layer: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        """Write new keys and values (N, kv_heads, head_dim) to the `rows` of their slots."""
        for side, new in zip(self.row_views[layer], (k, v), strict=True):
            side.index_copy_(0, rows, new.reshape(-1, self.head_dim))

    def pieces(self, tables: Numbers) -> Tensor:
        """What `take` needs to read these block tables (R, W): the piece of every head in every block, flat."""
        heads = np.arange(self.num_kv_heads)[:, None]
        keys = (tables[:, None] * self.num_kv_heads + heads).ravel()            # of (R, kv_heads, W)
        return torch.from_numpy(np.concatenate((keys, keys + self.num_blocks * self.num_kv_heads))).to(self.device)

    def scratch(self, pieces: Tensor) -> Tensor:
        """A buffer that `take` may fill for such pieces. It is the store's own, and shared: use it, then forget it."""
        size = pieces.numel() * self.block_size * self.head_dim
        if self._scratch.numel() < size:
            self._scratch = torch.empty(size, dtype=self.dtype, device=self.device)
        return self._scratch[:size]

    def take(self, layer: int, pieces: Tensor, scratch: Tensor) -> Tensor:
        """Gather the `pieces` of tables (R, W) into ``scratch``: (2, R * kv_heads, W * block_size, head_dim), flat."""
        torch.index_select(self.piece_views[layer], 0, pieces, out=scratch.view(len(pieces), -1))
        return scratch

    def bags(self, keys: Tensor, width: int) -> Tensor:
        """Rows of the tokens that each query head sees, for the K half of the pieces of tables so wide: (R * H, S)."""
        offsets = torch.arange(self.block_size, device=keys.device)
        rows = (keys[:, None] * self.block_size + offsets).view(-1, 1, width * self.block_size)
        return rows.expand(-1, self.group, -1).reshape(-1, rows.shape[-1])

    def weigh(self, layer: int, bags: Tensor, weights: Tensor) -> Tensor:
        """Weighted sums of values, read where they lie: `bags` and weights (R * H, S) -> (R * H, head_dim)."""
        return embedding_bag(bags, self.row_views[layer][1], mode="sum", per_sample_weights=weights)

    # ---- whole blocks ------------------------------------------------------------------------------------------

    def copy(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, each ``(source, destination)``; all sources are read before anything is written."""
        if copies:
            sources, destinations = zip(*copies, strict=True)
            self.write_blocks(destinations, self.read_blocks(sources))

    def read_blocks(self, blocks: Sequence[int]) -> Tensor:
        """A copy of some blocks: as ``data``, with len(blocks) in the place of num_blocks."""
        return self.data[:, :, list(blocks)]

    def write_blocks(self, blocks: Sequence[int], payload: Tensor) -> None:
        """Put what `read_blocks` gave (here or in another store of the same shape) into these blocks."""
        self.data[:, :, list(blocks)] = payload.to(self.data)
