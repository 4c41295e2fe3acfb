"""Swap space: blocks in the host's memory, and the link that leads there.

A preempted request's blocks can be carried out and brought back instead of computed again (Kwon et al., 2023, section
4.5). On a machine whose device is its CPU both sides are the same memory and the carrying is almost free; a link speed
makes transfers take as long as they would over PCIe, so that the trade can be seen. Week 6.
"""

import time
from collections.abc import Sequence

from llmcourse.errors import UserError
from llmcourse.kv.memory import Copy
from llmcourse.kv.store import KVStore


class HostBlocks:
    """``num_blocks`` host blocks of the same make as a store's; ``bytes_per_second`` slows the link."""

    def __init__(self, store: KVStore, num_blocks: int, bytes_per_second: float | None = None) -> None:
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise UserError(f"a link of {bytes_per_second} bytes a second carries nothing; give more, or None")
        self.store, self.num_blocks, self.bytes_per_second = store, num_blocks, bytes_per_second
        self.data = store.like(store.data.shape[0], num_blocks, "cpu")
        self.bytes_out = self.bytes_in = 0

    def swap_out(self, pairs: Sequence[Copy]) -> None:
        """Carry out ``(block, host block)``; all are read before any is written."""
        if pairs:
            started = time.perf_counter()
            blocks, hosts = zip(*pairs, strict=True)
            self.data[:, :, list(hosts)] = self.store.read_blocks(blocks).to(self.data.device)
            self.bytes_out += self._carried(len(pairs), started)

    def swap_in(self, pairs: Sequence[Copy]) -> None:
        """Bring back ``(host block, block)``; all are read before any is written."""
        if pairs:
            started = time.perf_counter()
            hosts, blocks = zip(*pairs, strict=True)
            self.store.write_blocks(blocks, self.data[:, :, list(hosts)])
            self.bytes_in += self._carried(len(pairs), started)

    def _carried(self, blocks: int, started: float) -> int:
        """Wait until the link would have carried so many blocks; returns their bytes."""
        size = blocks * self.store.block_bytes
        if self.bytes_per_second is not None:
            time.sleep(max(0.0, started + size / self.bytes_per_second - time.perf_counter()))
        return size
