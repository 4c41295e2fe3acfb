"""Where the memory has gone: slots with tokens, and the three ways of having none of them.

In the words of Kwon et al., 2023 (PagedAttention, §3.1 and Figure 3): *reserved* slots wait for tokens that will come,
*internal fragmentation* was set aside and will never be filled, *external fragmentation* is free and of no use, since
it lies in holes too small for who is waiting. Only afterwards is it known what was never filled, so the final lengths
must be told; a simulation knows them. Week 6.

    used      A A A . . . . . . .      3 tokens so far
    reserved  . . . a a . . . . .      it will come to hold 5
    internal  . . . . . - - - - -      10 were set aside
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from llmcourse.kv.contiguous_pool import ContiguousPool
from llmcourse.kv.memory import Memory

Counts = Mapping[Hashable, int]


@dataclass(frozen=True)
class Waste:
    """Token slots of a pool at one moment, each counted once whoever names it; the five add up to its capacity."""

    used: int
    reserved: int
    internal: int
    external: int
    free: int

    @property
    def capacity(self) -> int:
        """All slots."""
        return self.used + self.reserved + self.internal + self.external + self.free

    @property
    def shares(self) -> dict[str, float]:
        """The same as shares of the capacity, by name."""
        return {name: slots / self.capacity for name, slots in vars(self).items()}


def waste(pool: Memory, final: Counts, stored: Counts | None = None, demand: int = 0) -> Waste:
    """Measure a pool at this moment; all lengths in tokens.

    ``final`` is how many tokens each owner will come to hold, ``stored`` how many it holds (default: what the pool has
    made room for), ``demand`` the room that somebody waits for: free slots in smaller holes are external
    fragmentation. Any block of a paged pool serves anybody: it has none, and can waste only the rest of last blocks.
    """
    if stored is None:
        stored = {owner: pool.length(owner) for owner in pool.tables}
    split = _by_block if pool.num_shared else _by_owner
    used, coming = split(pool, final, stored)
    held, external = pool.num_used * pool.block_size, external_waste(pool, demand)
    return Waste(used, coming, held - used - coming, external, pool.num_free * pool.block_size - external)


def external_waste(pool: Memory, demand: int) -> int:
    """Free slots in holes with room for fewer than ``demand`` tokens."""
    if not isinstance(pool, ContiguousPool):
        return 0
    needed = pool.blocks_for(demand)
    return sum(len(hole) for hole in pool.holes() if len(hole) < needed) * pool.block_size


def _held(pool: Memory) -> Counts:
    """Slots set aside for each owner."""
    blocks = pool.runs if isinstance(pool, ContiguousPool) else pool.tables
    return {owner: len(own) * pool.block_size for owner, own in blocks.items()}


def _by_owner(pool: Memory, final: Counts, stored: Counts) -> tuple[int, int]:
    """Slots with a token, and slots that will have one."""
    used = coming = 0
    for owner, slots in _held(pool).items():
        used += stored[owner]
        coming += max(0, min(final[owner], slots) - stored[owner])
    return used, coming


def _by_block(pool: Memory, final: Counts, stored: Counts) -> tuple[int, int]:
    """The same where blocks are shared: a slot counts once, filled if anybody's token is in it."""
    now: dict[int, int] = {}
    then: dict[int, int] = {}
    for owner, table in pool.tables.items():
        for place, block in enumerate(table):
            for filled, length in ((now, stored[owner]), (then, max(stored[owner], final[owner]))):
                slots = min(max(0, length - place * pool.block_size), pool.block_size)
                filled[block] = max(filled.get(block, 0), slots)
    return sum(now.values()), sum(then.values()) - sum(now.values())
