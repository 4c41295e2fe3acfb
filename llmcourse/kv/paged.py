"""Attention over blocks: a ragged batch of requests, each with its keys and values scattered over the pool.

All new tokens of a step form one row, whoever they belong to; only attention looks at borders between requests (Orca's
selective batching, Yu et al., 2022). New keys and values are first written to their slots, then each request reads its
own context back through its block table (PagedAttention, Kwon et al., 2023). Requests that add one token are read
together in padded gathers of like lengths; longer segments go one by one. Weeks 2, 4 and 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from llmcourse.kv.store import KVStore, Numbers
from llmcourse.model.attention import causal_mask

WORTH_A_GATHER = 512        # padded tokens that cost about as much as one gather more
IN_PLACE = 1024             # tokens from which on values are read where they lie (CPU): finding them has its cost too


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
    """An `Attention` for one step: row 0 of the model's input is all segments, one behind the other.

    With a ``width``, all who add one token are read in one gather, padded to so many blocks.
    """

    def __init__(self, store: KVStore, segments: Sequence[Segment], width: int = 0) -> None:
        for segment in segments:
            if segment.end > len(segment.block_table) * store.block_size:
                raise ValueError(f"{len(segment.block_table)} blocks of {store.block_size} slots are too few "
                                 f"for a context of {segment.end} tokens")
        self.store = store
        positions = [np.arange(segment.start, segment.end) for segment in segments]
        self._positions = torch.from_numpy(np.concatenate(positions)).to(store.device)
        self._new_rows = store.rows(np.concatenate([_slots(segment, store.block_size) for segment in segments]))
        rows = list(accumulate((s.count for s in segments), initial=0))      # where each begins in the step's row
        placed = list(zip(rows, segments, strict=False))
        singles = sorted((item for item in placed if item[1].count == 1), key=lambda item: item[1].end)
        groups = [singles] if width else _alike(singles, store.block_size)
        self._singles = [_Singles.of(store, group, len(group) == len(segments), width) for group in groups]
        self._longs = [_Long.of(store, row, segment) for row, segment in placed if segment.count > 1]

    def positions(self, count: int) -> Tensor:
        """Position of each new token in its own request: (1, N)."""
        if count != len(self._positions):
            raise ValueError(f"the step holds {len(self._positions)} tokens, the model was given {count}")
        return self._positions[None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write the new k, v (1, N, KV, D) to their slots; each request of q (1, N, H, D) reads its own context."""
        self.store.put(layer, self._new_rows, k[0], v[0])
        out = torch.empty_like(q[0])
        for group in self._singles:
            if group.rows is None:
                return group.attend(self.store, layer, q[0])[None]
            out.index_copy_(0, group.rows, group.attend(self.store, layer, q[0, group.rows]))
        for long in self._longs:
            out[long.rows] = long.attend(self.store, layer, q[0, long.rows], k[0, long.rows], v[0, long.rows])
        return out[None]

    def advance(self, count: int) -> None:
        """The scheduler keeps the books, not the attention of a step."""

    def keep_scratch(self) -> None:
        """Gather into buffers of its own from now on: the store may replace the shared one."""
        self._singles = [replace(group, scratch=torch.empty_like(group.scratch)) for group in self._singles]

    def become(self, other: "PagedAttention") -> None:
        """Take over another step of the same shape, one gather of all its rows, without moving in memory."""
        (mine,), (theirs,) = self._singles, other._singles
        pairs = ((self._positions, other._positions), (self._new_rows, other._new_rows), (mine.pieces, theirs.pieces),
                 (mine.mask, theirs.mask))
        for here, there in pairs:
            here.copy_(there)
        if mine.bags is not None and theirs.bags is not None:
            mine.bags.copy_(theirs.bags)


def _slots(segment: Segment, size: int) -> Numbers:
    """Where the new tokens go: (count,)."""
    if segment.count == 1:
        return np.array([segment.block_table[segment.start // size] * size + segment.start % size])
    positions = np.arange(segment.start, segment.end)
    return np.asarray(segment.block_table)[positions // size] * size + positions % size


def blocks_read(segment: Segment, size: int) -> int:
    """Blocks that hold the segment's context; its table may have room for more."""
    return -(-segment.end // size)


def _alike(singles: Sequence[tuple[int, Segment]], size: int) -> list[Sequence[tuple[int, Segment]]]:
    """Cut requests in order of their lengths wherever that saves more padding than another gather costs."""
    if not singles:
        return []
    widths = [blocks_read(segment, size) for _, segment in singles]
    saved = [cut * (widths[-1] - widths[cut - 1]) * size for cut in range(1, len(singles))]
    if max(saved, default=0) < WORTH_A_GATHER:
        return [singles]
    cut = 1 + saved.index(max(saved))
    return _alike(singles[:cut], size) + _alike(singles[cut:], size)


@dataclass(frozen=True)
class _Singles:
    """Some requests that add one token: gathered as whole blocks, padded to the longest context."""

    rows: Tensor | None # (R,)        where each stands in the step's row of tokens; None when they are all of it
    pieces: Tensor      # (2 * R * KV * W,)   what the store gathers
    scratch: Tensor     # where it gathers to
    bags: Tensor | None # (R * H, W * block_size)   where values lie, if they are read in place and only K is gathered
    mask: Tensor        # (R * KV, 1, W * block_size)   0 on its own context, -inf behind it

    @staticmethod
    def of(store: KVStore, singles: Sequence[tuple[int, Segment]], alone: bool, width: int) -> "_Singles":
        singles = sorted(singles, key=lambda item: item[0])
        width = max(width, *(blocks_read(s, store.block_size) for _, s in singles))
        tables = np.zeros((len(singles), width), dtype=np.int64)             # padded with block 0, which the mask hides
        for table, (_, segment) in zip(tables, singles, strict=True):
            known = segment.block_table[:width]
            table[:len(known)] = known
        rows = None if alone else torch.tensor([row for row, _ in singles], device=store.device)
        pieces = store.pieces(tables)
        bags = None
        if store.exact and store.device.type == "cpu" and tables.size * store.block_size >= IN_PLACE:
            pieces = pieces[:len(pieces) // 2]
            bags = store.bags(pieces, width)
        mask = length_mask(np.array([segment.end for _, segment in singles]), width * store.block_size, store)
        return _Singles(rows, pieces, store.scratch(pieces), bags, mask)

    def attend(self, store: KVStore, layer: int, q: Tensor) -> Tensor:
        """Attention of these requests' queries (R, H, D) over their contexts: (R, H, D)."""
        context = store.take(layer, self.pieces, self.scratch)
        if self.bags is not None:
            weights = group_weights(q, context.view(len(self.mask), -1, store.head_dim), self.mask)
            return store.weigh(layer, self.bags, weights.flatten(0, 1)).view_as(q)
        keys, values = context.view(2, len(self.mask), -1, store.head_dim)   # each (R * KV, S, D)
        return grouped_attention(q, keys, values, self.mask)


def length_mask(ends: Numbers, length: int, store: KVStore) -> Tensor:
    """What is added to scores so that request r sees its first ``ends[r]`` keys: (R * KV, 1, length), 0 or -inf."""
    mask = np.where(np.arange(length) < ends[:, None], np.float32(0), np.float32("-inf"))
    return torch.from_numpy(mask.repeat(store.num_kv_heads, 0)[:, None]).to(store.device, store.dtype)


def group_weights(q: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """What each query looks at: q (R, H, D), keys (R * KV, S, D), mask (R * KV, 1, S) -> (R * KV, H / KV, S).

    The query heads that share a KV head are the rows of one small matrix, so K is read once for all of them.
    """
    group = q.reshape(keys.shape[0], -1, q.shape[-1])                        # (R * KV, H / KV, D)
    return torch.baddbmm(mask, group, keys.transpose(1, 2), alpha=q.shape[-1] ** -0.5).softmax(-1)


def grouped_attention(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """One query token each: q (R, H, D), keys and values (R * KV, S, D), mask (R * KV, 1, S) -> (R, H, D).

    On a CPU two batched products beat the fused kernel (benchmarks/engine_notes.md).
    """
    if q.device.type != "cpu":
        return fused_groups(q.reshape(keys.shape[0], -1, q.shape[-1]), keys, values, mask).view_as(q)
    return torch.bmm(group_weights(q, keys, mask), values).view_as(q)


def fused_groups(group: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """The same by torch's fused kernel, which wants four dimensions: group (R * KV, H / KV, D), and so the result."""
    return scaled_dot_product_attention(group[:, None], keys[:, None], values[:, None], attn_mask=mask[:, None])[:, 0]


@dataclass(frozen=True)
class _Long:
    """A request that adds several tokens: a prompt, or a chunk of one."""

    rows: slice             # where its tokens stand in the step's row
    pieces: Tensor | None   # what the store gathers; None when the context is these tokens alone
    mask: Tensor | None     # (count, end)

    @staticmethod
    def of(store: KVStore, row: int, segment: Segment) -> "_Long":
        rows = slice(row, row + segment.count)
        if segment.start == 0 and store.exact:        # else a whole prompt would see other values than a chunked one
            return _Long(rows, None, None)
        table = segment.block_table[:blocks_read(segment, store.block_size)]
        return _Long(rows, store.pieces(np.array([table])),
                     causal_mask(segment.count, segment.end, store.device))

    def attend(self, store: KVStore, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (T, H, D) over the context, whose last part is k and v (T, KV, D): (T, H, D)."""
        if self.pieces is None or self.mask is None:
            keys, values = k.transpose(0, 1), v.transpose(0, 1)              # (KV, T, D)
        else:
            context = store.take(layer, self.pieces, store.scratch(self.pieces))
            keys, values = context.view(2, store.num_kv_heads, -1, store.head_dim)[:, :, :self.mask.shape[1]]
        heads = q.view(len(q), len(keys), -1, q.shape[-1]).permute(1, 2, 0, 3)   # (KV, H / KV, T, D)
        out = scaled_dot_product_attention(heads, keys[:, None].expand(-1, heads.shape[1], -1, -1),
                                           values[:, None].expand(-1, heads.shape[1], -1, -1),
                                           attn_mask=self.mask, is_causal=self.mask is None)
        return out.permute(2, 0, 1, 3).reshape(q.shape)
