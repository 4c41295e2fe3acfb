"""One step's work: who gets how many tokens, and what an executor answers.

The scheduler makes a `Batch`, an `Executor` runs it, and neither knows the other. Real, mocked and simulated
executors are interchangeable; that is what lets one scheduler run in many worlds. Weeks 2-4.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from llmcourse.engine.request import Request
from llmcourse.kv.memory import Copy


class ScheduledTokens(NamedTuple):
    """Compute tokens ``start .. start + count - 1`` of a request, whose KV goes into ``block_table``.

    The table is the pool's own list: valid until the step is committed, never written here.
    """

    request: Request
    start: int
    count: int                          # type: ignore[assignment]  # a tuple has a method of that name
    block_table: Sequence[int]

    @property
    def samples(self) -> bool:
        """Whether the step reaches the last known token, so that the next one comes out of it."""
        return self.start + self.count == len(self.request.tokens)


@dataclass(frozen=True)
class Batch:
    """Everything an executor does in one step, in this order: swap out, copy, swap in, compute.

    ``swap_out`` pairs (block, host block), ``copies`` (block, block), ``swap_in`` (host block, block); of each list all
    sources are read before anything is written. ``new_blocks`` says which blocks each request's table has gained, and
    ``new_tables`` which tables are otherwise than they were (blocks copied on write, or moved), both for the log. So
    many as ``behind`` of the swapped blocks need not be there before the step computes: they may move meanwhile.
    """

    items: tuple[ScheduledTokens, ...]
    copies: tuple[Copy, ...] = ()
    new_blocks: tuple[tuple[str, tuple[int, ...]], ...] = ()
    swap_out: tuple[Copy, ...] = ()
    swap_in: tuple[Copy, ...] = ()
    new_tables: tuple[tuple[str, tuple[int, ...]], ...] = ()
    behind: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return sum(item.count for item in self.items)


@dataclass(frozen=True)
class StepResult:
    """One new token for every item that `samples`, by request id, and how long the step took in seconds."""

    tokens: dict[str, int]
    seconds: float


NO_VOCABULARY = sys.maxsize


@dataclass(frozen=True)
class Limits:
    """What a model can take: token ids below ``vocab_size``, sequences up to ``max_length`` tokens.

    A simulation reads no token: its ``vocab_size`` is `NO_VOCABULARY`.
    """

    vocab_size: int
    max_length: int


class Executor(Protocol):
    """Runs batches over KV memory that the block numbers of the batch address."""

    limits: Limits

    def execute(self, batch: Batch) -> StepResult:
        """Compute the batch; afterwards the KV of all its tokens is in their blocks."""
        ...
