"""How long must a step take? Count its operations, count its bytes, and see which ceiling it meets first.

A step computes some new tokens of some requests. Each new token meets every weight (2 operations: multiply and add) and
every token it looks at; the weights are read once for all of them, each request's cache for itself. So a batch of
decodes shares the weights and nothing else, and long contexts stay bound by memory whatever the batch.
Williams, Waterman and Patterson, "Roofline", 2009; Pope et al., 2022, for transformers. No torch. Week 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llmcourse.errors import UserError
from llmcourse.metrics.hardware import Hardware
from llmcourse.model.config import ModelConfig

# One step: for each request how many new tokens it computes, behind how many whose K and V are kept.
Batch = Iterable[tuple[int, int]]


@dataclass(frozen=True)
class Work:
    """Floating point operations and bytes moved between memory and processor."""

    flops: float
    bytes: float

    @property
    def arithmetic_intensity(self) -> float:
        """Operations for each byte moved."""
        return self.flops / self.bytes


def prefill(prompt_tokens: int, requests: int = 1) -> list[tuple[int, int]]:
    """A step that computes whole prompts."""
    return [(prompt_tokens, 0)] * requests


def decode(requests: int, context: int) -> list[tuple[int, int]]:
    """A step that computes one token for each request, behind ``context`` kept ones."""
    return [(1, context)] * requests


def flops(config: ModelConfig, batch: Batch) -> float:
    """Floating point operations of a step: 2 a weight and new token, and 4 a channel and token looked at.

    The last of ``new`` tokens looks at ``context + new``, the first at ``context + 1``, itself included.
    """
    tokens = seen = 0
    for new, context in _checked(batch):
        tokens += new
        seen += new * context + new * (new + 1) // 2
    return 2 * config.num_parameters * tokens + 4 * config.num_layers * config.num_heads * config.head_dim * seen


def bytes_moved(config: ModelConfig, batch: Batch, bytes_per_value: float = 2) -> float:
    """Bytes of a step: all weights once; of each request what is kept (read) and what is new (written).

    Activations are left out: a good kernel keeps them on the chip.
    """
    kept = sum(new + context for new, context in _checked(batch))
    return config.weight_bytes(bytes_per_value) + config.kv_bytes_per_token(bytes_per_value) * kept


def step_work(config: ModelConfig, batch: Batch, bytes_per_value: float = 2) -> Work:
    """Operations and bytes of one step, prefills and decodes mixed as you like."""
    batch = list(batch)
    return Work(flops(config, batch), bytes_moved(config, batch, bytes_per_value))


def arithmetic_intensity(config: ModelConfig, batch: Batch, bytes_per_value: float = 2) -> float:
    """Operations for each byte that a step moves."""
    return step_work(config, batch, bytes_per_value).arithmetic_intensity


def attainable_flops(machine: Hardware, intensity: float) -> float:
    """FLOP/s that work of this intensity (FLOP/byte) can reach: the roof over it."""
    return min(machine.flops, intensity * machine.bandwidth)


def bound(machine: Hardware, work: Work) -> Literal["compute", "memory"]:
    """Which of the two takes longer alone."""
    return "compute" if work.flops / machine.flops > work.bytes / machine.bandwidth else "memory"


def step_seconds(machine: Hardware, work: Work) -> float:
    """The least time a step can take: computing and moving overlap perfectly, nothing else costs anything."""
    return max(work.flops / machine.flops, work.bytes / machine.bandwidth)


def requests_that_fit(machine: Hardware, config: ModelConfig, context: int, bytes_per_value: float = 2) -> int:
    """How many requests of ``context`` tokens the memory holds beside the weights; 0 when not even those fit."""
    if context < 1:
        raise UserError(f"context is {context} tokens; a request has at least 1")
    free = machine.memory - config.weight_bytes(bytes_per_value)
    return max(0, int(free // (config.kv_bytes_per_token(bytes_per_value) * context)))


def _checked(batch: Batch) -> list[tuple[int, int]]:
    batch = list(batch)
    for new, context in batch:
        if new < 1 or context < 0:
            raise UserError(f"a request of {new} new tokens behind {context} kept ones is no work; "
                            "there must be at least 1 new and 0 kept")
    return batch
