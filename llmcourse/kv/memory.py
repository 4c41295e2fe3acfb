"""What a scheduler asks of KV memory: integers, and the same face whether memory is paged or contiguous.

Memory is ``num_blocks`` blocks of ``block_size`` token slots. Every owner has a table: the blocks that hold its tokens,
in token order. `BlockPool` takes any free block for it, `PrefixPool` also finds what others have left behind, and
`ContiguousPool` gives each owner one run of neighbours, as every server did before 2023. Engine, simulator and the
tensor side only ever see tables, so they run on all three. Weeks 2 and 6.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Protocol

from llmcourse.errors import UserError

Copy = tuple[int, int]
"""Copy the contents of block ``[0]`` into block ``[1]`` before anything is written; all sources are read first."""


MOST_BLOCKS = 2**24                      # more than any machine's memory holds of any model


class OutOfBlocks(RuntimeError):
    """Not enough free blocks; the pool is as it was before the call."""


def check_size(num_blocks: int, block_size: int) -> None:
    """UserError for a pool that is empty, or whose lists alone would fill the memory of this process."""
    if num_blocks < 1 or block_size < 1:
        raise UserError(f"a pool of {num_blocks} blocks of {block_size} slots is empty; both must be at least 1")
    if num_blocks > MOST_BLOCKS:
        raise UserError(f"a pool of {num_blocks:,} blocks; at most {MOST_BLOCKS:,}, each has an entry in a list")


class Memory(Protocol):
    """The part of a pool that the engine uses. Every call succeeds as a whole, or raises and changes nothing.

    Pools inherit what is the same for all of them.
    """

    num_blocks: int
    block_size: int
    shares: bool
    """Whether `share` is possible."""
    caches: bool
    """Whether it remembers what is `computed`, so that who is served when changes what is found."""

    @property
    def num_free(self) -> int:
        """Blocks that nobody owns (what a cache remembers in them may be forgotten at any time)."""
        ...

    @property
    def num_used(self) -> int:
        """Blocks that somebody owns."""
        return self.num_blocks - self.num_free

    @property
    def num_shared(self) -> int:
        """Blocks that more than one table names."""
        ...

    @property
    def capacity(self) -> int:
        """Token slots in all."""
        return self.num_blocks * self.block_size

    @property
    def tables(self) -> Mapping[Hashable, Sequence[int]]:
        """Every owner's blocks in token order, the reserved ones not included: a live view."""
        ...

    def table(self, owner: Hashable) -> Sequence[int]:
        """The owner's blocks in token order; empty when it has none."""
        ...

    def length(self, owner: Hashable) -> int:
        """Tokens the owner's table holds room for, by its own calls; 0 when it has none."""
        ...

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that ``num_tokens`` tokens fill, the last perhaps partly."""
        return -(-num_tokens // self.block_size)

    # ---- coming and going ----------------------------------------------------------------------------------------

    def could_ever_hold(self, longest: int) -> bool:
        """Whether a request that grows to ``longest`` tokens fits when it is alone: what the door asks."""
        ...

    def can_open(self, tokens: Sequence[int], longest: int, without: Collection[Hashable] = ()) -> bool:
        """Whether `open` would succeed now, or would if the owners ``without`` had been freed."""
        ...

    def open(self, owner: Hashable, tokens: Sequence[int], longest: int) -> int:
        """Open a table with room for all of ``tokens``; returns how many of them already have their KV there.

        Always fewer than ``len(tokens)``: somebody must compute the last. ``longest`` is how many tokens the owner may
        come to hold, for memory that reserves. Raises `OutOfBlocks`; ValueError when the owner has a table already.
        """
        ...

    def share(self, owner: Hashable, source: Hashable, num_tokens: int | None = None) -> Sequence[int]:
        """Open a table for a new owner on the first ``num_tokens`` tokens of ``source``; copies nothing."""
        ...

    def free(self, owner: Hashable) -> list[int]:
        """Close the owner's table; returns the blocks that nobody names any more. Raises KeyError."""
        ...

    # ---- growing -------------------------------------------------------------------------------------------------

    def must_copy(self, owner: Hashable) -> bool:
        """Whether the owner's next slot lies in a block that others read too, so that writing takes a copy first."""
        ...

    def reserve(self, owner: Hashable, length: int) -> tuple[list[Copy], list[int]]:
        """Make room for ``length`` tokens of an owner in all; returns the copies to make and the blocks it has gained.

        Copies may also be of other owners' blocks, when memory moves them out of the way: their tables then say where
        they are now. Raises `OutOfBlocks`, KeyError.
        """
        ...

    def append_in_turn(self, owners: Sequence[Hashable], rounds: int) -> dict[int, list[tuple[Hashable, list[int]]]]:
        """The same as ``rounds`` rounds in which each owner in turn makes room for one token more, at once.

        Returns which owner took which blocks in which round. The caller has made sure by `rounds_that_fit`.
        """
        ...

    def rounds_that_fit(self, owners: Sequence[Hashable], rounds: int) -> int:
        """At most ``rounds``: how many rounds of `append_in_turn` are sure to succeed, without any copy."""
        ...

    # ---- what is in the blocks -----------------------------------------------------------------------------------

    def computed(self, owner: Hashable, tokens: Sequence[int], count: int) -> None:
        """The KV of the first ``count`` of the owner's ``tokens`` is in its blocks now: a cache may remember it."""
        ...

    def check_invariants(self) -> None:
        """Block conservation (invariant 1): raises AssertionError that names what is wrong."""
        ...
