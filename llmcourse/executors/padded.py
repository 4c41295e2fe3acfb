"""Decode steps in a few fixed shapes, so that a GPU can play a step back from a recording.

A decode step of a small model is hundreds of kernels of a few microseconds each, and starting them takes the CPU longer
than running them takes the GPU. A CUDA graph starts them all at once, but only for fixed shapes at fixed places
in memory. So a step is padded to the next of a few numbers of requests and of blocks, and its numbers are copied to
where the recording reads them. Padding rows repeat the first request: they write what it writes, and nobody reads them.
Without a GPU the same padded steps are computed directly, which is how they are tested. Week 6.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmcourse.executors.prepared import PreparedModel
from llmcourse.kv.paged import PagedAttention, Segment, blocks_read
from llmcourse.kv.store import KVStore


def bucket(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ...: a third of it at most is padding."""
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if count <= power * 3 // 4 and power > 2 else power


class PaddedDecode:
    """Logits of decode steps, recorded once for each padded shape when the model is on a GPU.

    ``store`` must be exact: an int8 store's buffers may move, and a recording would read where they were.
    """

    def __init__(self, model: PreparedModel, store: KVStore) -> None:
        if not store.exact:
            raise ValueError("recorded decode steps need a KV store in full precision")
        self.model, self.store = model, store
        self.steps: dict[tuple[int, int], _Step] = {}

    def logits(self, tokens: Sequence[int], segments: Sequence[Segment]) -> Tensor:
        """Scores of the tokens that follow, one of each request: (len(tokens), vocab)."""
        rows = bucket(len(tokens))
        width = bucket(max(blocks_read(segment, self.store.block_size) for segment in segments))
        spare = rows - len(tokens)
        row = torch.tensor([[*tokens, *[tokens[0]] * spare]], device=self.store.device)
        attention = PagedAttention(self.store, [*segments, *[segments[0]] * spare], width)
        step = self.steps.get((rows, width))
        if step is None:
            step = self.steps[rows, width] = _Step(self.model, row, attention)
        return step.run(row, attention)[:len(tokens)]


class _Step:
    """One shape: where its inputs lie, and on a GPU the recording that reads them."""

    def __init__(self, model: PreparedModel, row: Tensor, attention: PagedAttention) -> None:
        self.model, self.row, self.attention = model, row.clone(), attention
        attention.keep_scratch()
        self.graph: torch.cuda.CUDAGraph | None = None
        if row.device.type == "cuda":
            self._record()

    def run(self, row: Tensor, attention: PagedAttention) -> Tensor:
        self.row.copy_(row)
        self.attention.become(attention)
        if self.graph is None:
            return self._compute()
        self.graph.replay()
        return self.out.clone()                               # the next step writes there again

    def _compute(self) -> Tensor:
        return self.model.logits(self.model.hidden(self.row, self.attention)[0])

    def _record(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):                       # libraries set themselves up outside the recording
            for _ in range(2):
                self._compute()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.out = self._compute()
