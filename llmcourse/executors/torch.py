"""Runs a step on a real model: one row of all new tokens, paged attention between them, one logit row per sampler.

Tokens of all requests stand in one row whoever they belong to; only attention knows the borders (selective batching,
Orca, Yu et al., 2022). Logits are computed only where a token is sampled. A sampled token depends on the request's
seed, its position and its logits, and on nothing that happened before. Blocks are carried to host memory and back, and
copied, before anything is computed. Weeks 2, 4 and 6.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from llmcourse.engine.batch import Batch, Limits, StepResult
from llmcourse.engine.preemption import Prices
from llmcourse.errors import UserError
from llmcourse.executors.draw import next_tokens
from llmcourse.executors.padded import PaddedDecode
from llmcourse.executors.prepared import PreparedModel
from llmcourse.executors.threads import measured_threads, using_threads
from llmcourse.kv.host import HostBlocks
from llmcourse.kv.paged import PagedAttention, Segment
from llmcourse.kv.quantised import QuantisedKVStore
from llmcourse.kv.store import KVStore
from llmcourse.model.transformer import Transformer

STORES: dict[str, type[KVStore]] = {"full": KVStore, "int8": QuantisedKVStore}


class TorchExecutor:
    """A model with its KV store of ``num_blocks`` blocks of ``block_size`` slots, on the model's device.

    ``threads`` is how many CPU threads a step uses; None measures once, at the first step, whether more than one pays.
    ``host_blocks`` is room for swapping, over a link of ``link_bytes_per_second`` (None: as fast as it goes).
    ``kv`` stores keys and values as the model computes them, or in int8. UserError for an unknown one.
    """

    def __init__(self, model: Transformer, num_blocks: int, block_size: int, threads: int | None = None,
                 host_blocks: int = 0, link_bytes_per_second: float | None = None, kv: str = "full") -> None:
        if kv not in STORES:
            raise UserError(f"no KV precision {kv!r}; there is {', '.join(STORES)}")
        weights = model.embedding
        self.model = model.eval()
        self.prepared = PreparedModel(model)
        self.limits = Limits(model.config.vocab_size, model.config.max_length)
        self.store = STORES[kv](model.config, num_blocks, block_size, weights.device, weights.dtype)
        self.host = HostBlocks(self.store, host_blocks, link_bytes_per_second)
        graphs = weights.device.type == "cuda" and self.store.exact
        self.padded = PaddedDecode(self.prepared, self.store) if graphs else None
        self.threads = threads if weights.device.type == "cpu" else torch.get_num_threads()

    @property
    def swapped_bytes(self) -> tuple[int, int]:
        """Bytes carried out to host memory so far, and bytes brought back."""
        return self.host.bytes_out, self.host.bytes_in

    def prices(self) -> Prices:
        """What swapping and computing again cost here: measured now, so nobody may be served meanwhile."""
        from llmcourse.executors.prices import measured_prices
        return measured_prices(self)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers, K and V."""
        return self.store.block_bytes

    def read_blocks(self, blocks: Sequence[int], host: bool = False) -> Tensor:
        """A copy of some blocks, or of some in host memory, (layers, 2, N, kv_heads, block_size, head_dim)."""
        return self.host.data[:, :, list(blocks)] if host else self.store.read_blocks(blocks)

    @torch.inference_mode()
    def write_blocks(self, blocks: Sequence[int], payload: Tensor) -> None:
        """Put what another's `read_blocks` gave into these blocks; ``payload`` is only read."""
        self.store.write_blocks(blocks, payload)

    def execute(self, batch: Batch) -> StepResult:
        """Compute the batch and sample; ``seconds`` is measured wall time, transfers included."""
        started = time.perf_counter()
        logits = self.scores(batch)
        samplers = [item.request for item in batch.items if item.samples]
        with torch.inference_mode(), using_threads(self.threads):
            tokens = next_tokens(logits, samplers) if samplers else []
        return StepResult({request.id: token for request, token in zip(samplers, tokens, strict=True)},
                          time.perf_counter() - started)

    @torch.inference_mode()
    def scores(self, batch: Batch) -> Tensor:
        """Carry out the batch without sampling: logits of its samplers, in its order, (samplers, vocab).

        For whoever chooses tokens otherwise, a beam search for one.
        """
        if self.threads is None:
            self.threads = measured_threads(self.prepared.rehearse)
        with using_threads(self.threads):
            self.host.swap_out(batch.swap_out)
            self.store.copy(batch.copies)
            self.host.swap_in(batch.swap_in)
            return self._logits(batch)

    def _logits(self, batch: Batch) -> Tensor:
        device = self.store.device
        segments = [Segment(item.start, item.count, item.block_table) for item in batch.items]
        row = [token for item in batch.items for token in item.request.tokens[item.start:item.start + item.count]]
        if not row:
            return torch.empty(0, self.limits.vocab_size, device=device)
        if self.padded is not None and len(row) == len(batch.items) and all(item.samples for item in batch.items):
            return self.padded.logits(row, segments)
        hidden = self.prepared.hidden(torch.tensor([row], device=device), PagedAttention(self.store, segments))[0]
        samplers, end = [], -1
        for item in batch.items:
            end += item.count
            if item.samples:
                samplers.append(end)
        return self.prepared.logits(hidden if len(samplers) == len(hidden) else hidden[samplers])
