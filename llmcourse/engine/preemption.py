"""What becomes of the KV of a request that must give way: thrown away and computed again, or kept in host memory.

Computing again costs arithmetic that grows faster than the length; swapping costs bytes over a link, twice. Which is
cheaper depends on the model, the link and the length, so there is a crossover, and ``cheaper`` decides by it request by
request. Host memory is bounded: when it is full, even a swapper computes again. Kwon et al., 2023, section 4.5 (early
vLLM; today's vLLM only computes again, and finds much of it in its prefix cache). Whoever gives way because a policy
wants its seat, not its memory, may also be parked, its KV left where it is (parking.py). Weeks 6 and 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmcourse.errors import UserError

MODES = ("recompute", "swap", "cheaper")


@dataclass(frozen=True)
class Prices:
    """Seconds: ``block`` for moving one block one way, ``prompt(n)`` for computing a context of n tokens anew."""

    block: float
    prompt: Callable[[int], float]

    def swap(self, num_tokens: int, block_size: int) -> float:
        """Seconds to move a context of so many tokens out and in again."""
        return 2 * self.block * -(-num_tokens // block_size)

    def crossover(self, block_size: int, longest: int) -> int | None:
        """The shortest context from which on, up to ``longest`` tokens, swapping is cheaper; None: not even there."""
        dearer = (n for n in range(longest, 0, -1) if self.swap(n, block_size) > self.prompt(n))
        last = next(dearer, 0)
        return last + 1 if last < longest else None


@dataclass(frozen=True)
class Preemption:
    """``mode`` is "recompute", "swap" or "cheaper"; ``host_blocks`` of KV fit into host memory.

    ``prices`` are what ``cheaper`` compares. With ``parking`` a preemptive policy takes seats and leaves KV; then, if
    there is host memory, ``spare`` blocks are kept free by swapping parked KV ahead of time.
    """

    mode: str = "recompute"
    host_blocks: int = 0
    prices: Prices | None = None
    parking: bool = False
    spare: int = 0

    def __post_init__(self) -> None:
        """Refuse what could not be carried out."""
        if self.mode not in MODES:
            raise UserError(f"preemption {self.mode!r} is not one of {', '.join(MODES)}")
        if self.mode != "recompute" and self.host_blocks < 1:
            raise UserError(f"preemption {self.mode!r} with {self.host_blocks} host blocks has nowhere to swap to; "
                            "give host_blocks")
        if self.mode == "cheaper" and self.prices is None:
            raise UserError("preemption 'cheaper' compares prices and was given none; Engine.simulated and "
                            "Engine.from_model work them out, Preemption(prices=...) takes yours")
        if self.spare < 0 or (self.spare and not (self.parking and self.mode != "recompute")):
            raise UserError(f"{self.spare} spare blocks: they are kept free by swapping parked KV, which takes "
                            "parking=True, preemption 'swap' or 'cheaper', and a number of 0 or more")

    def would_swap(self, num_tokens: int, block_size: int) -> bool:
        """Whether KV of so many tokens is worth keeping."""
        if self.mode != "cheaper":
            return self.mode == "swap"
        assert self.prices is not None
        return self.prices.swap(num_tokens, block_size) <= self.prices.prompt(num_tokens)
