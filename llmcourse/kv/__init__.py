"""WHERE state lives: contiguous cache, block pool, tensor store, paged attention (weeks 2 and 6).

`BlockPool` knows only integers; the tensor side loads torch when it is first asked for.
"""

from importlib import import_module
from typing import Any

from llmcourse.kv.block_pool import BlockPool
from llmcourse.kv.contiguous_pool import ContiguousPool
from llmcourse.kv.memory import Memory, OutOfBlocks

_HOMES = {
    "ContiguousCache": "contiguous",
    "KVStore": "store",
    "PagedAttention": "paged",
    "Segment": "paged",
}

__all__ = ["BlockPool", "ContiguousPool", "Memory", "OutOfBlocks", *_HOMES]


def __getattr__(name: str) -> Any:
    """Load a name's module on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"llmcourse.kv.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'llmcourse.kv' has no attribute {name!r}")
