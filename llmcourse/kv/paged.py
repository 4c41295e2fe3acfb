"""Attention over blocks: a ragged batch of requests, each with its keys and values scattered over the pool.

All new tokens of a step form one row, whoever they belong to; only attention looks at borders between requests (Orca's
selective batching, Yu et al., 2022). New keys and values are first written to their slots, then each request reads its
own context back through its block table (PagedAttention, Kwon et al., 2023). Requests that add one
token are read together in one padded gather; longer segments go one by one. Weeks 2, 4 and 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcourse.kv.store import KVStore
from llmcourse.model.attention import causal_mask, fused_attention


@dataclass(frozen=True)
class Segment:
    """Tokens ``start .. start + count - 1`` of one request, whose KV lies in the blocks of ``block_table``."""

    start: int
    count: int
    block_table: Sequence[int]

    @property
    def end(self) -> int:
        """Length of the context once these tokens are in."""
        return self.start + self.count


class PagedAttention:
    """An `Attention` for one step: row 0 of the model's input is all segments, one behind the other."""

    def __init__(self, store: KVStore, segments: Sequence[Segment]) -> None:
        for segment in segments:
            if segment.end > len(segment.block_table) * store.block_size:
                raise ValueError(f"{len(segment.block_table)} blocks of {store.block_size} slots are too few "
                                 f"for a context of {segment.end} tokens")
        self.store = store
        self._positions = torch.cat([torch.arange(s.start, s.end) for s in segments]).to(store.device)
        self._new_slots = torch.cat([self._slots_of(s, s.start) for s in segments]).to(store.device)
        firsts = [0, *torch.tensor([s.count for s in segments]).cumsum(0).tolist()]
        self._singles = _Singles.of(store, [(row, s) for row, s in zip(firsts, segments, strict=False) if s.count == 1])
        self._longs = [(row, s, self._slots_of(s, 0).to(store.device))
                       for row, s in zip(firsts, segments, strict=False) if s.count > 1]

    def _slots_of(self, segment: Segment, first: int) -> Tensor:
        """Slot numbers of the segment's tokens from ``first`` to its end."""
        size = self.store.block_size
        table = torch.tensor(segment.block_table, dtype=torch.int64)
        positions = torch.arange(first, segment.end)
        return table[positions // size] * size + positions % size

    def positions(self, count: int) -> Tensor:
        """Position of each new token in its own request: (1, N)."""
        if count != len(self._positions):
            raise ValueError(f"the step holds {len(self._positions)} tokens, the model was given {count}")
        return self._positions[None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write the new k, v (1, N, KV, D) to their slots; each request of q (1, N, H, D) reads its own context."""
        keys, values = self.store.slots(layer)
        keys[self._new_slots] = k[0]
        values[self._new_slots] = v[0]
        out = torch.empty_like(q[0])
        if self._singles is not None:
            self._singles.attend(self.store.data[layer], q[0], out)
        for row, segment, slots in self._longs:
            mask = causal_mask(segment.count, segment.end, q.device)
            rows = slice(row, row + segment.count)
            out[rows] = fused_attention(q[:, rows], keys[slots][None], values[slots][None], mask)[0]
        return out[None]

    def advance(self, count: int) -> None:
        """The scheduler keeps the books, not the attention of a step."""


@dataclass(frozen=True)
class _Singles:
    """The requests that add one token: gathered as whole blocks, padded to the longest table."""

    rows: Tensor        # (R,)        where each stands in the step's row of tokens
    blocks: Tensor      # (R, W)      its block table, padded with block 0
    mask: Tensor        # (R, 1, 1, W * block_size)   True on its own context

    @staticmethod
    def of(store: KVStore, singles: Sequence[tuple[int, Segment]]) -> "_Singles | None":
        if not singles:
            return None
        width = max(-(-s.end // store.block_size) for _, s in singles)
        blocks = torch.zeros((len(singles), width), dtype=torch.int64)
        for i, (_, s) in enumerate(singles):
            table = list(s.block_table[:-(-s.end // store.block_size)])
            blocks[i, :len(table)] = torch.tensor(table)
        ends = torch.tensor([s.end for _, s in singles])
        mask = torch.arange(width * store.block_size)[None] < ends[:, None]
        rows = torch.tensor([row for row, _ in singles])
        return _Singles(rows.to(store.device), blocks.to(store.device), mask[:, None, None].to(store.device))

    def attend(self, layer_data: Tensor, q: Tensor, out: Tensor) -> None:
        """layer_data (2, blocks, block_size, KV, D), q and out (N, H, D): fill the rows of these requests."""
        keys, values = layer_data[:, self.blocks].flatten(2, 3)              # each (R, W * block_size, KV, D)
        out[self.rows] = fused_attention(q[self.rows, None], keys, values, self.mask)[:, 0]
