"""A block pool that remembers: the KV of requests that have gone stays findable until its blocks are needed.

A new request takes over the full blocks that hold the beginning of its prompt and computes only the rest. Blocks
without an owner count as free, those that hold nothing findable are used first, and a remembered block is forgotten
only when it is taken for something else: least recently used first, and of one request the last first, since its
beginning is what others are likelier to share. So the cache takes no memory from anybody. Kwon et al., 2023; vLLM v1,
2025. Week 6.

    taken next  >  [ holds nothing ...] [ least recently used  ...  tail, head of the request that ended last ]
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Hashable, Sequence

from llmcourse.errors import UserError
from llmcourse.kv.block_pool import BlockPool
from llmcourse.kv.memory import OutOfBlocks
from llmcourse.kv.prefix import HashIndex, PrefixIndex


class PrefixPool(BlockPool):
    """A `BlockPool` that finds the beginning of a prompt in what others computed. ``index``: hashes by default.

    Only full blocks are found, and never all of a prompt: somebody must compute its last token. A block with a token id
    below 0 is not remembered, nor what follows it: these are a simulation's dummy outputs, for which nobody can ask.
    """

    caches = True

    def __init__(self, num_blocks: int, block_size: int, index: PrefixIndex | None = None) -> None:
        super().__init__(num_blocks, block_size)
        self.index = HashIndex(block_size) if index is None else index
        if self.index.block_size != block_size:
            raise UserError(f"the index is cut into blocks of {self.index.block_size} tokens, the pool into blocks of "
                            f"{block_size}; give both the same block_size")
        self._cached: OrderedDict[int, None] = OrderedDict()  # findable and without an owner, least recently used first
        self._known: dict[Hashable, int] = {}                 # blocks of the table that the index has been told of
        self._cut: set[int] = set()                           # shared blocks inside which some owner ends
        self.lookups = 0                                      # tables opened by `open`
        self.lookup_tokens = 0                                # their tokens (vLLM: prefix_cache_queries)
        self.hit_tokens = 0                                   # of which found (vLLM: prefix_cache_hits)
        self.evicted_blocks = 0                               # remembered blocks that were taken for something else
        self.changes = 0                                      # while it stays, `hits` of the same tokens stay the same

    # ---- looking -------------------------------------------------------------------------------------------------

    @property
    def num_free(self) -> int:
        """Blocks that nobody owns, the remembered ones too."""
        return len(self._free) + len(self._cached)

    @property
    def num_cached(self) -> int:
        """Blocks that nobody owns and that can be found."""
        return len(self._cached)

    @property
    def hit_rate(self) -> float:
        """Share of all the tokens of opened tables that were found; 0 before the first."""
        return self.hit_tokens / self.lookup_tokens if self.lookup_tokens else 0.0

    def hits(self, tokens: Sequence[int]) -> list[int]:
        """The blocks that `open` would share for these tokens now: full, and at least one token short of all."""
        return self.index.match(tokens)[:max(0, len(tokens) - 1) // self.block_size]

    def can_open(self, tokens: Sequence[int], longest: int, without: Collection[Hashable] = ()) -> bool:
        """Whether `open` would succeed now, or would if the owners ``without`` had been freed.

        A hit that somebody else owns costs nothing; one that nobody owns is taken from the free blocks like any other.
        """
        needed, released = self.blocks_for(len(tokens)), self.released_by(without)
        room = self.num_free + released
        if needed <= room or needed - (self.num_used - released) > room:
            return needed <= room                             # whatever is found
        leaving = Counter(block for owner in without for block in self._tables[owner])
        held = sum(self._references[block] > leaving[block] for block in self.hits(tokens))
        return needed - held <= room

    # ---- changing ------------------------------------------------------------------------------------------------

    def open(self, owner: Hashable, tokens: Sequence[int], longest: int) -> int:
        """Open a table on the blocks that hold the beginning of ``tokens``, and fresh ones; how many were found."""
        if owner in self._tables:
            raise ValueError(f"owner {owner!r} already has a table of {len(self._tables[owner])} blocks; use append")
        hits = self.hits(tokens)
        missing = self.blocks_for(len(tokens)) - len(hits)
        idle = sum(block in self._cached for block in hits)
        if missing + idle > self.num_free:
            raise OutOfBlocks(f"{len(tokens)} tokens of {owner!r} need {missing + idle} free blocks beside what others "
                              f"share with it; {self.num_free} of {self.num_blocks} are free")
        for block in hits:
            self._touch(block)
        self._require(missing, f"{len(tokens)} tokens of {owner!r}")
        self._tables[owner] = hits + [self._take() for _ in range(missing)]
        self._lengths[owner], self._known[owner] = len(tokens), len(hits)
        found = len(hits) * self.block_size
        self.lookups += 1
        self.lookup_tokens += len(tokens)
        self.hit_tokens += found
        return found

    def computed(self, owner: Hashable, tokens: Sequence[int], count: int) -> None:
        """The KV of the first ``count`` of the owner's ``tokens`` is there: its full blocks can now be found."""
        known, full, size = self._known.get(owner, 0), count // self.block_size, self.block_size
        if full <= known:
            return
        table, fresh = self._tables[owner], tokens[known * size:full * size]
        self._known[owner] = full
        until = known + self._can_be_found(fresh, table[known:full], table[known - 1] if known else None)
        if until > known:
            self.changes += 1
            self.index.insert(fresh[:(until - known) * size], table[known:until], table[known - 1] if known else None)

    def share(self, owner: Hashable, source: Hashable, num_tokens: int | None = None) -> list[int]:
        """As in `BlockPool`. A block inside which it ends can be found as long as others read it too."""
        table = super().share(owner, source, num_tokens)
        whole = self._lengths[owner] // self.block_size
        self._known[owner] = min(self._known.get(source, 0), whole)
        self._cut.update(table[whole:])
        return table

    def free(self, owner: Hashable) -> list[int]:
        """Close the owner's table; what can be found of it stays so until its blocks are needed."""
        self._known.pop(owner, None)
        return super().free(owner)

    # ---- keeping the books ---------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Free + owned + cached = total, and the index knows only blocks that nobody will write."""
        super().check_invariants()
        self.index.check_invariants()
        for block in self._free:
            assert self.index.holder(block) is None, f"block {block} is free for anything, and can still be found"
        for block in self._cached:
            assert self.index.holder(block) == block, f"block {block} is kept, and not found"
        for owner, length in self._lengths.items():
            if length % self.block_size:
                last = self._tables[owner][-1]
                assert self._references[last] > 1 or self.index.holder(last) is None, (
                    f"{owner!r} may write block {last}, which others can find")

    def _drop(self, block: int) -> bool:
        """Who is left alone with a block that goes on after its own end may write into it: it is forgotten before."""
        gone = super()._drop(block)
        if block in self._cut and self._references[block] < 2:
            self._cut.discard(block)
            alone = any(table[-1:] == [block] and self._lengths[owner] % self.block_size
                        for owner, table in self._tables.items())
            if alone and self.index.holder(block) is not None:
                self._forget(block)
        return gone

    def _touch(self, block: int) -> None:
        """One owner more for a block that can be found."""
        self._cached.pop(block, None)
        self._references[block] += 1
        self._num_shared += self._references[block] == 2

    def _forget(self, block: int) -> None:
        self.changes += 1
        for lost in self.index.forget(block):
            if lost in self._cached:
                del self._cached[lost]
                self._free.append(lost)

    def _can_be_found(self, tokens: Sequence[int], blocks: Sequence[int], after: int | None) -> int:
        """How many of the blocks the index may be told of, from the first on."""
        if after is not None and self.index.holder(after) is None:
            return 0
        for place in range(len(blocks)):
            if min(tokens[place * self.block_size:(place + 1) * self.block_size]) < 0:
                return place
        return len(blocks)

    def _unowned(self) -> list[int]:
        return [*self._free, *self._cached]

    def _release(self, blocks: list[int]) -> None:
        """Most recently used now, in this order. Of equal blocks only the one that is found is kept."""
        for block in blocks:
            holder = self.index.holder(block)
            if holder is None:
                self._free.append(block)
            elif holder == block:
                self._cached[block] = None
            else:
                self.index.forget(block)
                self._free.append(block)
                if holder in self._cached:
                    self._cached.move_to_end(holder)

    def _require(self, needed: int, what: str) -> None:
        """Forget as many remembered blocks as are needed beside those that hold nothing."""
        if len(self._free) < needed <= self.num_free:
            while len(self._free) < needed:
                block, _ = self._cached.popitem(last=False)
                self._free.append(block)
                self._forget(block)
                self.evicted_blocks += 1
            return
        super()._require(needed, what)
