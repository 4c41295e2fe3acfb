"""Contiguous KV memory as integers: every owner has one run of neighbouring blocks, as every server had before 2023.

A kernel that knows no block table needs a sequence's keys and values side by side. How long a sequence will be is not
known when it starts, and there are three answers: set aside the model's maximum, ask an oracle, or take what the tokens
need now and move when the neighbour is in the way. The first wastes what is reserved, and all of them leave holes that
together would hold a request and singly do not (runs.py). Kwon et al., 2023 (PagedAttention), §3. Week 6.

    A A A a a | . . | B B b | . . . .      capitals hold tokens, small letters are reserved, dots are free
    a request of 5 blocks finds no hole, though 6 blocks are free: external fragmentation
"""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence

from llmcourse.errors import UserError
from llmcourse.kv.memory import Copy, Memory, OutOfBlocks, check_size
from llmcourse.kv.runs import Runs

RESERVATIONS = ("max", "exact", "growing")


class ContiguousPool(Memory):
    """The face of `BlockPool` on contiguous memory. Blocks may be single token slots, ``block_size`` 1.

    ``reservation`` says how much room an owner gets when it opens: "max" is room for ``max_length`` tokens, "exact"
    for as many as it will come to hold, "growing" for its tokens. ``fit`` chooses the hole (see `Runs`). Whoever
    outgrows its run extends it into the hole behind, or else moves to a hole that is large enough, or else, with
    ``compaction``, everybody is slid together. Owners are any hashable ids.
    """

    shares, caches = False, False
    num_shared = 0                       # two owners cannot both have a block in the middle of their run

    def __init__(self, num_blocks: int, block_size: int = 1, reservation: str = "growing", fit: str = "first",
                 max_length: int | None = None, compaction: bool = False) -> None:
        check_size(num_blocks, block_size)
        if reservation not in RESERVATIONS:
            raise UserError(f"reservation {reservation!r} is not one of {', '.join(RESERVATIONS)}")
        if (reservation == "max") != (max_length is not None):
            raise UserError('reservation "max" needs max_length, the tokens every owner gets room for; '
                            "the others take none")
        if max_length is not None and max_length < 1:
            raise UserError(f"max_length is {max_length} tokens; every owner needs room for at least 1")
        self.num_blocks, self.block_size = num_blocks, block_size
        self.reservation, self.max_length, self.compaction = reservation, max_length, compaction
        self._runs = Runs(num_blocks, fit)               # all blocks of an owner, reserved ones included
        self._tables: dict[Hashable, range] = {}         # the first of them, as many as its tokens fill
        self._lengths: dict[Hashable, int] = {}

    # ---- looking -------------------------------------------------------------------------------------------------

    @property
    def num_free(self) -> int:
        """Blocks that nobody owns, wherever they lie."""
        return self.num_blocks - self._runs.num_used

    @property
    def num_used(self) -> int:
        """Blocks that somebody owns, reserved ones included."""
        return self._runs.num_used

    @property
    def tables(self) -> Mapping[Hashable, range]:
        """Every owner's blocks in token order, the reserved ones not included: a live view."""
        return self._tables

    @property
    def runs(self) -> Mapping[Hashable, range]:
        """Every owner's blocks, the reserved ones included: a live view."""
        return self._runs

    def table(self, owner: Hashable) -> range:
        """The owner's blocks in token order, without those reserved behind them; empty when it has none."""
        return self._tables.get(owner, range(0))

    def length(self, owner: Hashable) -> int:
        """Tokens the owner's table holds room for, by its own calls; 0 when it has none."""
        return self._lengths.get(owner, 0)

    def holes(self) -> Iterator[range]:
        """Free runs of blocks, from the lowest up."""
        return self._runs.holes()

    def room(self, num_tokens: int, longest: int) -> int:
        """Blocks set aside for an owner that opens with so many tokens and may come to hold ``longest``."""
        if self.max_length is not None:
            longest = self.max_length
        elif self.reservation == "growing":
            longest = num_tokens
        return self.blocks_for(max(1, num_tokens, longest))

    def must_copy(self, owner: Hashable) -> bool:
        """Never: nobody else reads an owner's blocks."""
        return False

    # ---- coming and going ----------------------------------------------------------------------------------------

    def could_ever_hold(self, longest: int) -> bool:
        """Whether a request that grows to ``longest`` tokens fits when it is alone."""
        within = self.max_length is None or longest <= self.max_length
        return within and self.room(longest, longest) <= self.num_blocks

    def can_open(self, tokens: Sequence[int], longest: int, without: Collection[Hashable] = ()) -> bool:
        """Whether one hole is large enough now, or would be if the owners ``without`` had been freed."""
        return self._runs.place_for(self.room(len(tokens), longest), without) is not None

    def open(self, owner: Hashable, tokens: Sequence[int], longest: int) -> int:
        """Open a run with room for all of ``tokens`` and what is reserved; none of them is known here: returns 0.

        Nobody is moved for it, even with compaction. Raises `OutOfBlocks`; ValueError when the owner has a table.
        """
        if owner in self._runs:
            raise ValueError(f"owner {owner!r} already has a run of {len(self._runs[owner])} blocks; use reserve")
        room = self.room(len(tokens), longest)
        run = self._runs.place_for(room)
        if run is None:
            raise OutOfBlocks(self._refusal(owner, room))
        self._runs.put(owner, run)
        self._lengths[owner], self._tables[owner] = len(tokens), run[:self.blocks_for(len(tokens))]
        return 0

    def share(self, owner: Hashable, source: Hashable, num_tokens: int | None = None) -> Sequence[int]:
        """UserError: contiguous memory cannot share."""
        raise UserError(f"{owner!r} cannot share the tokens of {source!r}: contiguous memory cannot share, as each run "
                        "goes on behind its first tokens in its own way; a BlockPool can")

    def free(self, owner: Hashable) -> list[int]:
        """Close the owner's table; returns all its blocks, reserved ones too, the last first. Raises KeyError."""
        run = self._runs.take(owner)
        del self._tables[owner], self._lengths[owner]
        return list(reversed(run))

    # ---- growing -------------------------------------------------------------------------------------------------

    def reserve(self, owner: Hashable, length: int) -> tuple[list[Copy], list[int]]:
        """Make room for ``length`` tokens of an owner in all; returns the copies to make and the blocks it has gained.

        Within its run that is free. Beyond it the owner may move, or with compaction everybody: the copies say from
        where to where, and the tables where all are now. Raises `OutOfBlocks`, KeyError.
        """
        if length <= self._lengths[owner]:
            return [], []
        blocks, before = self.blocks_for(length), len(self._tables[owner])
        copies = self._grow(owner, blocks) if blocks > len(self._runs[owner]) else []
        self._lengths[owner] = length
        if blocks == before:
            return copies, []
        self._tables[owner] = table = self._runs[owner][:blocks]
        return copies, list(table[before:])

    def rounds_that_fit(self, owners: Sequence[Hashable], rounds: int) -> int:
        """At most ``rounds``: how many rounds of `append_in_turn` succeed without any copy, each in its place.

        Nobody but the owner before it grows into a hole, so every owner can be asked by itself.
        """
        size = self.block_size
        for owner in owners:
            run, length = self._runs[owner], self._lengths[owner]
            if length + rounds > len(run) * size:
                rounds = min(rounds, (self._runs.limit(owner) - run.start) * size - length)
        return rounds

    def append_in_turn(self, owners: Sequence[Hashable], rounds: int) -> dict[int, list[tuple[Hashable, list[int]]]]:
        """The same as ``rounds`` rounds in which each owner in turn makes room for one token more, at once.

        Returns which owner took which block in which round. `OutOfBlocks`, and nothing is changed, when somebody would
        have to move for it.
        """
        if self.rounds_that_fit(owners, rounds) < rounds:
            raise OutOfBlocks(f"{rounds} more tokens of each of {len(owners)} owners do not fit where they are")
        gained: list[tuple[int, int, list[int]]] = []
        for place, owner in enumerate(owners):
            room = -self._lengths[owner] % self.block_size           # slots left in its last block
            _, blocks = self.reserve(owner, self._lengths[owner] + rounds)
            gained += [(room + number * self.block_size, place, [block]) for number, block in enumerate(blocks)]
        grown: dict[int, list[tuple[Hashable, list[int]]]] = {}
        for turn, place, block in sorted(gained):
            grown.setdefault(turn, []).append((owners[place], block))
        return grown

    def computed(self, owner: Hashable, tokens: Sequence[int], count: int) -> None:
        """Nothing is remembered of what is in the blocks."""

    def check_invariants(self) -> None:
        """Block conservation (invariant 1): raises AssertionError that names what is wrong."""
        self._runs.check()
        assert self._runs.keys() == self._tables.keys() == self._lengths.keys(), "an owner is lost"
        for owner, run in self._runs.items():
            table, needed = self._tables[owner], self.blocks_for(self._lengths[owner])
            assert table == run[:needed] and len(table) == needed, (
                f"{owner!r} holds {self._lengths[owner]} tokens in {table} of its {run}")

    # ---- keeping the books ---------------------------------------------------------------------------------------

    def _grow(self, owner: Hashable, blocks: int) -> list[Copy]:
        """Give the owner a run of so many blocks, where it is or elsewhere; returns the copies."""
        runs = self._runs
        if runs.limit(owner) - runs[owner].start >= blocks:
            runs.widen(owner, blocks)
            return []
        run = runs.place_for(blocks, without=(owner,))       # perhaps overlapping its own: sources are read first
        if run is not None:
            return self._settle({owner: run})
        if self.compaction and blocks - len(runs[owner]) <= self.num_free:
            return self._settle(runs.slid_together(owner, blocks))
        raise OutOfBlocks(self._refusal(owner, blocks))

    def _settle(self, places: Mapping[Hashable, range]) -> list[Copy]:
        """Move owners to new runs; returns the copies of what they hold, where its place has changed."""
        copies: list[Copy] = []
        for owner in places:
            self._runs.take(owner)
        for owner, run in places.items():
            self._runs.put(owner, run)
            table = self._tables[owner]
            self._tables[owner] = run[:len(table)]
            if table.start != run.start:
                copies += zip(table, run, strict=False)
        return copies

    def _refusal(self, owner: Hashable, blocks: int) -> str:
        largest = max(map(len, self.holes()), default=0)
        return (f"{owner!r} needs {blocks} neighbouring blocks; {self.num_free} of {self.num_blocks} are free, "
                f"the largest hole has {largest}")
