"""Paged KV memory as integers: equal blocks, a table per owner, and nothing else.

Memory is cut into blocks of ``block_size`` token slots. An owner's tokens fill the blocks of its table in order; the
blocks need not be neighbours, so any free block serves anybody and only the last block of a table is ever partly empty.
Owners may share blocks (reference counts); whoever writes into a shared block gets a copy first. The tensors live in
`KVStore` and are addressed by the same numbers. Kwon et al., 2023 (PagedAttention). Weeks 2 and 6.

    table of A   [ 5 | 2 | 7 ]      35 tokens in blocks of 16: slots 0-15 in block 5, 16-31 in 2, 32-34 in 7
    table of B   [ 5 | 2 | 4 ]      B shares A's first two blocks (references: 5 and 2 twice, 7 and 4 once)
"""

from collections import Counter, deque
from collections.abc import Collection, Hashable, Mapping, Sequence

from llmcourse.kv.invariants import check_tables
from llmcourse.kv.memory import Copy, Memory, OutOfBlocks, check_size


class BlockPool(Memory):
    """``num_blocks`` blocks of ``block_size`` slots; a table of blocks for each owner.

    Every call either succeeds as a whole or raises and changes nothing. Owners are any hashable ids.
    """

    shares, caches = True, False

    def __init__(self, num_blocks: int, block_size: int) -> None:
        check_size(num_blocks, block_size)
        self.num_blocks, self.block_size = num_blocks, block_size
        self._free: deque[int] = deque(range(num_blocks))     # least recently freed first, so old content lives longest
        self._references = [0] * num_blocks
        self._tables: dict[Hashable, list[int]] = {}
        self._lengths: dict[Hashable, int] = {}
        self._num_shared = 0                                  # blocks that more than one table names

    # ---- looking -------------------------------------------------------------------------------------------------

    @property
    def num_free(self) -> int:
        """Blocks that nobody owns."""
        return len(self._free)

    @property
    def num_shared(self) -> int:
        """Blocks that more than one table names."""
        return self._num_shared

    @property
    def tables(self) -> Mapping[Hashable, Sequence[int]]:
        """Every owner's blocks in token order: a live view, to be read and not written."""
        return self._tables

    def table(self, owner: Hashable) -> list[int]:
        """The owner's blocks in token order: a live view, to be read and not written; empty when it has none."""
        return self._tables.get(owner, [])

    def length(self, owner: Hashable) -> int:
        """Tokens the owner's table holds room for, by its own calls; 0 when it has none."""
        return self._lengths.get(owner, 0)

    def references(self, block: int) -> int:
        """How many tables name the block."""
        return self._references[block]

    def blocks_needed(self, owner: Hashable, num_tokens: int) -> int:
        """Free blocks it takes to `append` ``num_tokens`` more tokens for this owner, a copy included."""
        grow = self.blocks_for(self.length(owner) + num_tokens) - len(self.table(owner))
        return grow + bool(num_tokens and self.must_copy(owner))

    def must_copy(self, owner: Hashable) -> bool:
        """Whether the owner's next slot lies in a block that others read too, so that writing takes a copy first."""
        return (self._num_shared > 0 and self.length(owner) % self.block_size != 0
                and self._references[self._tables[owner][-1]] > 1)

    def released_by(self, owners: Collection[Hashable]) -> int:
        """Blocks that would be free if these owners were freed: those that nobody else names."""
        if not self._num_shared:
            return sum([len(self._tables[owner]) for owner in owners])
        named = Counter(block for owner in owners for block in self._tables[owner])
        return sum(self._references[block] == count for block, count in named.items())

    def could_ever_hold(self, longest: int) -> bool:
        """Whether a request that grows to ``longest`` tokens fits when it is alone."""
        return self.blocks_for(longest) <= self.num_blocks

    def can_open(self, tokens: Sequence[int], longest: int, without: Collection[Hashable] = ()) -> bool:
        """Whether `open` would succeed now, or would if the owners ``without`` had been freed."""
        return self.blocks_for(len(tokens)) <= self.num_free + self.released_by(without)

    def rounds_that_fit(self, owners: Sequence[Hashable], rounds: int) -> int:
        """At most ``rounds``: how many rounds of `append_in_turn` are sure to succeed, without any copy."""
        if self._num_shared and any(self.must_copy(owner) for owner in owners):
            return 0
        free, size, tables, lengths = self.num_free, self.block_size, self._tables, self._lengths
        while rounds > 0 and (rounds // size + 1) * len(owners) > free:
            if sum([(lengths[owner] + rounds - 1) // size + 1 - len(tables[owner]) for owner in owners]) <= free:
                break
            rounds //= 2
        return rounds

    # ---- changing ------------------------------------------------------------------------------------------------

    def allocate(self, owner: Hashable, num_tokens: int) -> list[int]:
        """Open a table for a new owner with room for ``num_tokens`` tokens; returns its blocks.

        Raises `OutOfBlocks` when they are not free, ValueError when the owner has a table already.
        """
        if owner in self._tables:
            raise ValueError(f"owner {owner!r} already has a table of {len(self._tables[owner])} blocks; use append")
        needed = self.blocks_for(num_tokens)
        self._require(needed, f"{num_tokens} tokens of {owner!r}")
        take, references = self._free.popleft, self._references
        self._tables[owner] = table = [take() for _ in range(needed)]
        for block in table:
            references[block] = 1
        self._lengths[owner] = num_tokens
        return table.copy()

    def open(self, owner: Hashable, tokens: Sequence[int], longest: int) -> int:
        """`allocate` for a request: room for its tokens, nothing for what may come; none of them is known here."""
        self.allocate(owner, len(tokens))
        return 0

    def append(self, owner: Hashable, num_tokens: int = 1) -> list[Copy]:
        """Make room for ``num_tokens`` more tokens of an owner; returns the copies to make before writing.

        A copy is due when the next slot lies in a block that others read too. Raises `OutOfBlocks`, KeyError.
        """
        table, length = self._tables[owner], self._lengths[owner] + num_tokens
        if length <= len(table) * self.block_size and not (self._num_shared and self.must_copy(owner)):
            self._lengths[owner] = length                     # the usual case: there is room in the last block
            return []
        self._require(self.blocks_needed(owner, num_tokens), f"{num_tokens} more tokens of {owner!r}")
        copies = [self._split_last(table)] if num_tokens and self.must_copy(owner) else []
        self._lengths[owner] = length
        while len(table) < self.blocks_for(length):
            table.append(self._take())
        return copies

    def reserve(self, owner: Hashable, length: int) -> tuple[list[Copy], list[int]]:
        """Make room for ``length`` tokens of an owner in all; returns the copies to make and the blocks it has gained.

        The same as `append` of what is missing, and cheap when nothing is: what every decode of every step asks.
        """
        if length <= self._lengths[owner]:
            return [], []
        table = self._tables[owner]
        if length <= len(table) * self.block_size and not self._num_shared:
            self._lengths[owner] = length
            return [], []
        before = len(table)
        return self.append(owner, length - self._lengths[owner]), table[before:]

    def append_in_turn(self, owners: Sequence[Hashable], rounds: int) -> dict[int, list[tuple[Hashable, list[int]]]]:
        """The same as ``rounds`` rounds in which each owner in turn appends one token, at once.

        Returns which owner took which block in which round. The caller has made sure that the blocks are free and that
        no owner `must_copy`; otherwise `OutOfBlocks` or ValueError, and nothing is changed.
        """
        if self._num_shared and any(self.must_copy(owner) for owner in owners):
            raise ValueError("an owner writes into a shared block; append copies it, append_in_turn does not")
        size, tables, lengths, crossings = self.block_size, self._tables, self._lengths, []
        for place, owner in enumerate(owners):
            room = -lengths[owner] % size                     # slots left in its last block
            if room < rounds:
                crossings += [(turn, place) for turn in range(room, rounds, size)]
        self._require(len(crossings), f"{rounds} more tokens of each of {len(owners)} owners")
        for owner in owners:
            lengths[owner] += rounds
        grown: dict[int, list[tuple[Hashable, list[int]]]] = {}
        for turn, place in sorted(crossings):
            block = self._take()
            tables[owners[place]].append(block)
            grown.setdefault(turn, []).append((owners[place], [block]))
        return grown

    def share(self, owner: Hashable, source: Hashable, num_tokens: int | None = None) -> list[int]:
        """Open a table for a new owner on the first ``num_tokens`` tokens of ``source`` (default: all); copies nothing.

        Raises ValueError when the owner exists or the source holds fewer tokens, KeyError for an unknown source.
        """
        if owner in self._tables:
            raise ValueError(f"owner {owner!r} already has a table; share opens a new one")
        length = self._lengths[source]
        num_tokens = length if num_tokens is None else num_tokens
        if not 0 <= num_tokens <= length:
            raise ValueError(f"cannot share {num_tokens} tokens of {source!r}: it holds {length}")
        self._tables[owner] = self._tables[source][: self.blocks_for(num_tokens)]
        self._lengths[owner] = num_tokens
        for block in self._tables[owner]:
            self._references[block] += 1
            self._num_shared += self._references[block] == 2
        return list(self._tables[owner])

    def free(self, owner: Hashable) -> list[int]:
        """Close the owner's table; returns the blocks that nobody names any more, last block of the table first.

        The tail of a sequence is reused before its head, which others are likelier to share. Raises KeyError.
        """
        del self._lengths[owner]
        table = self._tables.pop(owner)
        table.reverse()
        if self._num_shared:
            table = [block for block in table if self._drop(block)]
        else:                                                 # the usual case: all of it is the owner's alone
            for block in table:
                self._references[block] = 0
        self._release(table)
        return table

    def computed(self, owner: Hashable, tokens: Sequence[int], count: int) -> None:
        """Nothing is remembered of what is in the blocks; `PrefixPool` does that."""

    # ---- keeping the books ---------------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Block conservation (invariant 1): raises AssertionError that names what is wrong."""
        check_tables(self, self._unowned())

    def _split_last(self, table: list[int]) -> Copy:
        old, new = table[-1], self._take()
        table[-1] = new
        self._drop(old)
        return old, new

    def _take(self) -> int:
        block = self._free.popleft()
        self._references[block] = 1
        return block

    def _drop(self, block: int) -> bool:
        self._references[block] -= 1
        self._num_shared -= self._references[block] == 1
        return self._references[block] == 0

    # ---- what a pool that remembers does differently -------------------------------------------------------------

    def _unowned(self) -> list[int]:
        return list(self._free)

    def _release(self, blocks: list[int]) -> None:
        """Nobody names these blocks any more."""
        self._free.extend(blocks)

    def _require(self, needed: int, what: str) -> None:
        """After this ``needed`` blocks can be taken; called once, before anything is changed."""
        if needed > len(self._free):
            raise OutOfBlocks(f"{what} need {needed} free blocks; {self.num_free} of {self.num_blocks} are free")
