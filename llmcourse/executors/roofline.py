"""Runs a step on paper: a cost model says how long it would take, and the tokens are dummies.

The scheduler cannot tell. It sees the same batches, blocks and finished requests as with a real model, in virtual time,
for any model on any GPU. How long an answer is comes from the workload: a request ends at its ``max_tokens``, or
earlier where ``lengths`` says so, and nobody but the executor reads ``lengths``. Weeks 3-5, and every simulation after.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llmcourse.engine.batch import NO_VOCABULARY, Batch, Limits, StepResult
from llmcourse.engine.preemption import Prices
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.kinds import check_kind
from llmcourse.metrics.cost_model import CostModel
from llmcourse.metrics.hardware import Hardware
from llmcourse.model.config import ModelConfig

EOS = 0
LINK = 20e9                              # bytes/s between GPU and host memory: PCIe 4.0 x16, as copies reach it


class RooflineExecutor:
    """Takes ``cost.seconds`` of virtual time a step, and more for every block that is moved.

    ``block_seconds`` for one swapped out or in, ``copy_seconds`` for one copied inside the GPU's memory. ``max_length``
    is the longest sequence the model takes, ``block_bytes`` are what a block weighs when it is sent elsewhere.

    It has foresight (engine/forward.py), so that stretches of equal steps can be jumped over.
    """

    token = -1                               # in no vocabulary, so nothing stops at it

    def __init__(self, cost: CostModel, max_length: int = sys.maxsize, block_seconds: float = 0.0,
                 copy_seconds: float = 0.0, block_bytes: int = 0) -> None:
        self.cost, self.block_seconds, self.copy_seconds = cost, block_seconds, copy_seconds
        self.block_bytes = block_bytes
        self.carrying = 0.0                      # seconds that reading and writing blocks adds to the next step
        self.limits = Limits(NO_VOCABULARY, max_length)
        self.lengths: dict[str, int] = {}        # output tokens after which a request ends by itself, by request id

    def execute(self, batch: Batch) -> StepResult:
        """The cost model's seconds, and a token for everybody who is due one."""
        tokens = {}
        num_tokens = context = 0
        pairs = 0.0
        for request, start, count, _ in batch.items:
            num_tokens += count
            context += start
            if count > 1:
                pairs += count * start + count * (count + 1) / 2
            if start + count == len(request.tokens):
                tokens[request.id] = self._next(request) if self.lengths else self.token
        seconds = float(self.cost.seconds(num_tokens, len(batch.items), float(context), pairs))
        if batch.swap_out or batch.swap_in:
            moved = len(batch.swap_out) + len(batch.swap_in)
            seconds = max(seconds, self.block_seconds * batch.behind) + self.block_seconds * (moved - batch.behind)
        if batch.copies:
            seconds += self.copy_seconds * len(batch.copies)
        if self.carrying:
            seconds, self.carrying = seconds + self.carrying, 0.0
        return StepResult(tokens, seconds)

    def read_blocks(self, blocks: Sequence[int], host: bool = False) -> None:
        """Nothing is in them; reading takes memory bandwidth from the next step, half of what copying takes."""
        self.carrying += 0.0 if host else self.copy_seconds / 2 * len(blocks)

    def write_blocks(self, blocks: Sequence[int], payload: None) -> None:
        """As `read_blocks`."""
        self.carrying += self.copy_seconds / 2 * len(blocks)

    def tokens_left(self, requests: list[Request]) -> int:
        """For how many steps everyone of them will be handed `token`: until one reaches its end."""
        if self.carrying:
            return 0
        left = min([request.longest - len(request.tokens) for request in requests])
        if not self.lengths:
            return left
        return min(left, *[self.lengths.get(r.id, NO_VOCABULARY) - r.num_output - 1 for r in requests])

    def _next(self, request: Request) -> int:
        return EOS if request.num_output + 1 == self.lengths.get(request.id) else self.token


def link_prices(cost: CostModel, config: ModelConfig, block_size: int, link: float | None = None,
                bytes_per_value: float = 2) -> Prices:
    """What swapping and computing again cost, over a ``link`` of so many bytes/s (default: PCIe 4.0 x16).

    UserError for a link that carries nothing.
    """
    link = LINK if link is None else link
    check_kind("link", link, float)
    if link <= 0:
        raise UserError(f"a link of {link} bytes a second carries nothing; give more, or None for PCIe 4.0 x16")
    block = block_size * config.kv_bytes_per_token(bytes_per_value)
    return Prices(block / link, lambda n: float(cost.seconds(n, 1, 0.0, n * (n + 1) / 2)))


def copy_seconds(hardware: Hardware, config: ModelConfig, block_size: int, bytes_per_value: float = 2,
                 bandwidth_share: float = 0.8) -> float:
    """Seconds to copy a block inside the GPU's memory: it is read and written."""
    block = block_size * config.kv_bytes_per_token(bytes_per_value)
    return 2 * block / (hardware.bandwidth * bandwidth_share)
