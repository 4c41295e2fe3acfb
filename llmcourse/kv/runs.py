"""Runs and holes: memory in which everybody has one stretch of neighbouring blocks, and what is free lies between them.

Where a new run goes is the oldest question of memory management: into the first hole that is large enough, or into the
one that fits best (Knuth, The Art of Computer Programming 1, 1968, §2.5). Either way holes remain that together would
hold a run and singly do not: external fragmentation. Sliding everybody together makes one hole of them. Week 6.
"""

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterator

from llmcourse.errors import UserError

FITS = ("first", "best")


class Runs(dict[Hashable, range]):
    """Every owner's run of blocks in a memory of ``num_blocks``; read it as a dict, change it by `put` and `take`.

    ``fit`` chooses the hole for a new run: the "first" that is large enough, or the smallest such, which fits "best"
    (the lowest of equals).
    """

    def __init__(self, num_blocks: int, fit: str = "first") -> None:
        super().__init__()
        if fit not in FITS:
            raise UserError(f"fit {fit!r} is not one of {', '.join(FITS)}")
        self.num_blocks, self.fit = num_blocks, fit
        self.order: list[Hashable] = []                  # owners by place in memory
        self.num_used = 0

    def holes(self, without: Collection[Hashable] = ()) -> Iterator[range]:
        """Free runs of blocks from the lowest up, as they would be if the owners ``without`` were gone."""
        end = 0
        for owner in self.order:
            if owner not in without:
                run = self[owner]
                if run.start > end:
                    yield range(end, run.start)
                end = run.stop
        if end < self.num_blocks:
            yield range(end, self.num_blocks)

    def place_for(self, blocks: int, without: Collection[Hashable] = ()) -> range | None:
        """Where a run of so many blocks would go if the owners ``without`` were gone; None when it fits nowhere."""
        fitting = (hole for hole in self.holes(without) if len(hole) >= blocks)
        hole = next(fitting, None) if self.fit == "first" else min(fitting, key=len, default=None)
        return None if hole is None else hole[:blocks]

    def limit(self, owner: Hashable) -> int:
        """The block up to which the owner could grow without moving: where the next run begins, or memory ends."""
        after = self._index(owner) + 1
        return self[self.order[after]].start if after < len(self.order) else self.num_blocks

    def slid_together(self, grower: Hashable, blocks: int) -> dict[Hashable, range]:
        """Where everybody is when all holes are one at the end, and the grower has so many blocks."""
        runs: dict[Hashable, range] = {}
        end = 0
        for owner in self.order:
            start, end = end, end + (blocks if owner == grower else len(self[owner]))
            runs[owner] = range(start, end)
        return runs

    def put(self, owner: Hashable, run: range) -> None:
        """Set blocks aside that nobody owns."""
        self.order.insert(bisect_left(self.order, run.start, key=self._start), owner)
        self[owner] = run
        self.num_used += len(run)

    def take(self, owner: Hashable) -> range:
        """Give up an owner's run; returns it. Raises KeyError."""
        del self.order[self._index(owner)]
        run = self.pop(owner)
        self.num_used -= len(run)
        return run

    def widen(self, owner: Hashable, blocks: int) -> None:
        """Let an owner have so many blocks from where it begins; up to its `limit` they are free."""
        run = self[owner]
        self[owner] = range(run.start, run.start + blocks)
        self.num_used += blocks - len(run)

    def check(self) -> None:
        """AssertionError when runs overlap, leave memory, or are counted wrongly."""
        end = 0
        for owner in self.order:
            assert end <= self[owner].start, f"the run of {owner!r}, {self[owner]}, begins before block {end}"
            end = self[owner].stop
        assert end <= self.num_blocks, f"a run ends at {end}, behind the {self.num_blocks} blocks there are"
        assert len(self.order) == len(self), "an owner is lost"
        assert self.num_used == sum(map(len, self.values())), "the number of blocks in use is wrong"

    def _index(self, owner: Hashable) -> int:
        return bisect_left(self.order, self[owner].start, key=self._start)

    def _start(self, owner: Hashable) -> int:
        return self[owner].start
