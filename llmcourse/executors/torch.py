"""Runs a step on a real model: one row of all new tokens, paged attention between them, one logit row per sampler.

Tokens of all requests stand in one row whoever they belong to; only attention knows the borders (selective batching,
Orca, Yu et al., 2022). Logits are computed only where a token is sampled. A sampled token depends on the request's
seed, its position and its logits, and on nothing that happened before: so preempting a request, or moving it to another
machine, does not change what it says. Weeks 2 and 4.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from llmcourse.engine.batch import Batch, Limits, ScheduledTokens, StepResult
from llmcourse.kv.paged import PagedAttention, Segment
from llmcourse.kv.store import KVStore
from llmcourse.model.sampling import sample_token
from llmcourse.model.transformer import Transformer


class TorchExecutor:
    """A model with its KV store of ``num_blocks`` blocks of ``block_size`` slots, on the model's device.

    ``threads`` is how many CPU threads a step uses; None keeps torch's own count.
    """

    def __init__(self, model: Transformer, num_blocks: int, block_size: int, threads: int | None = None) -> None:
        parameter = next(model.parameters())
        self.model = model.eval()
        self.limits = Limits(model.config.vocab_size, model.config.max_length)
        self.store = KVStore(model.config, num_blocks, block_size, parameter.device, parameter.dtype)
        self.threads = threads

    @torch.inference_mode()
    def execute(self, batch: Batch) -> StepResult:
        """Compute the batch and sample; ``seconds`` is measured wall time."""
        started = time.perf_counter()
        with _threads(self.threads):
            self.store.copy(batch.copies)
            logits = self._logits(batch)
            tokens = self._sample(logits, [item for item in batch.items if item.samples])
        return StepResult(tokens, time.perf_counter() - started)

    def _logits(self, batch: Batch) -> Tensor:
        """Logits of the last token of every request that samples: (samplers, vocab)."""
        device = self.store.device
        segments = [Segment(item.start, item.count, item.block_table) for item in batch.items]
        row = [token for item in batch.items for token in item.request.tokens[item.start:item.start + item.count]]
        hidden = self.model.hidden(torch.tensor([row], device=device), PagedAttention(self.store, segments))[0]
        ends = torch.tensor([item.count for item in batch.items]).cumsum(0) - 1
        samplers = [end for end, item in zip(ends.tolist(), batch.items, strict=True) if item.samples]
        return self.model.logits(hidden[samplers])

    def _sample(self, logits: Tensor, items: list[ScheduledTokens]) -> dict[str, int]:
        greedy = logits.argmax(dim=-1).tolist()
        return {item.request.id: greedy[row] if item.request.sampling.temperature == 0 else _draw(logits[row], item)
                for row, item in enumerate(items)}


def _draw(logits: Tensor, item: ScheduledTokens) -> int:
    sampling = item.request.sampling
    # The seed of each draw is made of the request's seed and the position: no state to lose on the way.
    generator = torch.Generator().manual_seed((sampling.seed or 0) * 1_000_003 + len(item.request.tokens))
    return sample_token(logits.cpu(), sampling.temperature, sampling.top_k, sampling.top_p, generator)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

