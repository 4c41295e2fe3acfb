"""Block conservation (invariant 1): what a pool says of itself, against what its tables name. Week 2."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcourse.kv.block_pool import BlockPool


def check_tables(pool: BlockPool, unowned: Collection[int]) -> None:
    """Every block is named by as many tables as it says, or stands in ``unowned`` once; AssertionError otherwise."""
    named = [0] * pool.num_blocks
    for owner, table in pool.tables.items():
        assert len(table) == pool.blocks_for(pool.length(owner)), (
            f"{owner!r} holds {pool.length(owner)} tokens in {len(table)} blocks of {pool.block_size}")
        assert len(set(table)) == len(table), f"the table of {owner!r} names a block twice: {table}"
        for block in table:
            named[block] += 1
    assert named == [pool.references(block) for block in range(pool.num_blocks)], (
        "reference counts differ from what the tables name")
    assert sum(count > 1 for count in named) == pool.num_shared, "the number of shared blocks is wrong"
    free = set(unowned)
    assert len(free) == len(unowned), "a block is free twice"
    for block, count in enumerate(named):
        assert (count == 0) == (block in free), f"block {block} is named {count} times and free: {block in free}"
