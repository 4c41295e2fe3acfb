"""WHERE state lives: contiguous cache, block pool, tensor store, paged attention (weeks 2 and 6).

`BlockPool` knows only integers; the tensor side loads torch when it is first asked for.
"""

from importlib import import_module
from typing import Any

from llmcourse.errors import UserError
from llmcourse.kv.block_pool import BlockPool
from llmcourse.kv.contiguous_pool import ContiguousPool
from llmcourse.kv.memory import Memory, OutOfBlocks
from llmcourse.kv.prefix import HashIndex, PrefixIndex
from llmcourse.kv.prefix_pool import PrefixPool
from llmcourse.kv.radix import RadixIndex

_HOMES = {
    "ContiguousCache": "contiguous",
    "KVStore": "store",
    "PagedAttention": "paged",
    "Segment": "paged",
}

__all__ = ["BlockPool", "ContiguousPool", "HashIndex", "Memory", "OutOfBlocks", "PrefixIndex", "PrefixPool",
           "RadixIndex", "make_pool", *_HOMES]


def make_pool(num_blocks: int, block_size: int, prefix_cache: bool | str = False) -> BlockPool:
    """A pool of blocks; ``prefix_cache`` True or "hash" remembers full blocks by chained hashes, "radix" by a tree."""
    if not prefix_cache:
        return BlockPool(num_blocks, block_size)
    indices: dict[bool | str, type[HashIndex] | type[RadixIndex]] = {True: HashIndex, "hash": HashIndex,
                                                                     "radix": RadixIndex}
    if prefix_cache not in indices:
        raise UserError(f"prefix_cache is {prefix_cache!r}; it may be False, True, 'hash' or 'radix'")
    return PrefixPool(num_blocks, block_size, indices[prefix_cache](block_size))


def __getattr__(name: str) -> Any:
    """Load a name's module on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"llmcourse.kv.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'llmcourse.kv' has no attribute {name!r}")
