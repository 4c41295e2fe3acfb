"""Attention over blocks: a ragged batch of requests, each with its keys and values scattered over the pool.

All new tokens of a step form one row, whoever they belong to; only attention looks at borders between requests (Orca's
selective batching, Yu et al., 2022). New keys and values are first written to their slots, then each request reads its
own context back through its block table (PagedAttention, Kwon et al., 2023). Requests that add one
token are read together in one padded gather; longer segments go one by one. Weeks 2, 4 and 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from llmcourse.kv.store import KVStore
from llmcourse.model.attention import causal_mask, fused_attention

WORTH_A_GATHER = 512        # padded tokens that cost about as much as one gather more


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
        size, device = store.block_size, store.device
        new = [(s, position) for s in segments for position in range(s.start, s.end)]
        self._positions = torch.tensor([position for _, position in new], device=device)
        self._new_slots = torch.tensor([s.block_table[position // size] * size + position % size
                                        for s, position in new], device=device)
        rows = list(accumulate((s.count for s in segments), initial=0))      # where each begins in the step's row
        placed = list(zip(rows, segments, strict=False))
        singles = sorted(((row, s) for row, s in placed if s.count == 1), key=lambda item: len(item[1].block_table))
        self._singles = [_Singles.of(store, group) for group in _alike(singles, size)]
        self._longs = [(row, s, _context_slots(s, size).to(device)) for row, s in placed if s.count > 1]

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
        for group in self._singles:
            group.attend(self.store.data[layer], q[0], out)
        for row, segment, slots in self._longs:
            mask = causal_mask(segment.count, segment.end, q.device)
            rows = slice(row, row + segment.count)
            out[rows] = fused_attention(q[:, rows], keys[slots][None], values[slots][None], mask)[0]
        return out[None]

    def advance(self, count: int) -> None:
        """The scheduler keeps the books, not the attention of a step."""


def _context_slots(segment: Segment, size: int) -> Tensor:
    """Slot of every token of the segment's context, the new ones included: (end,)."""
    blocks = torch.tensor(segment.block_table, dtype=torch.int64)
    return (blocks[:, None] * size + torch.arange(size)).flatten()[:segment.end]


def _alike(singles: Sequence[tuple[int, Segment]], size: int) -> list[Sequence[tuple[int, Segment]]]:
    """Cut requests in order of their tables' widths wherever that saves more padding than another gather costs."""
    if not singles:
        return []
    widths = [len(segment.block_table) for _, segment in singles]
    saved = [cut * (widths[-1] - widths[cut - 1]) * size for cut in range(1, len(singles))]
    if max(saved, default=0) < WORTH_A_GATHER:
        return [singles]
    cut = 1 + saved.index(max(saved))
    return _alike(singles[:cut], size) + _alike(singles[cut:], size)


@dataclass(frozen=True)
class _Singles:
    """Some requests that add one token: gathered as whole blocks, padded to the longest table."""

    rows: Tensor        # (R,)        where each stands in the step's row of tokens
    blocks: Tensor      # (R, W)      its block table, padded with block 0
    mask: Tensor        # (R, 1, 1, W * block_size)   True on its own context

    @staticmethod
    def of(store: KVStore, singles: Sequence[tuple[int, Segment]]) -> "_Singles":
        device = store.device
        width = max(len(s.block_table) for _, s in singles)
        padded = [[*s.block_table, *[0] * (width - len(s.block_table))] for _, s in singles]
        ends = torch.tensor([s.end for _, s in singles], device=device)
        mask = torch.arange(width * store.block_size, device=device)[None] < ends[:, None]
        return _Singles(rows=torch.tensor([row for row, _ in singles], device=device),
                        blocks=torch.tensor(padded, device=device), mask=mask[:, None, None])

    def attend(self, layer_data: Tensor, q: Tensor, out: Tensor) -> None:
        """layer_data (2, blocks, block_size, KV, D), q and out (N, H, D): fill the rows of these requests."""
        keys, values = layer_data[:, self.blocks].flatten(2, 3)              # each (R, W * block_size, KV, D)
        out[self.rows] = fused_attention(q[self.rows, None], keys, values, self.mask)[:, 0]
