"""Counters of what the mechanisms really did: asserted wherever a notebook, a lab or a benchmark claims one. Week 2."""

from __future__ import annotations

from dataclasses import dataclass

from llmcourse.engine.batch import Batch
from llmcourse.engine.request import Request


@dataclass
class Counters:
    """What the mechanisms really did, so that nobody has to take it on trust."""

    steps: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0
    parked: int = 0                      # preemptions that took the seat and left the KV where it was
    copied_blocks: int = 0               # copied on write, or moved out of the way
    forked_tokens: int = 0               # KV taken over from a sibling instead of computed
    hit_tokens: int = 0                  # KV found in the prefix cache instead of computed
    swapped_out_blocks: int = 0
    swapped_in_blocks: int = 0
    shed: int = 0
    sent_blocks: int = 0                 # KV that went to other instances
    received_blocks: int = 0

    def count(self, batch: Batch, lost: Losses) -> None:
        """A step has been run; tokens whose KV was ``lost`` are computed again."""
        if lost:
            self.recomputed_tokens += sum([lost.between(request, start, start + count)
                                           for request, start, count, _ in batch.items])
        self.steps += 1
        self.computed_tokens += batch.num_tokens
        self.copied_blocks += len(batch.copies)
        self.swapped_out_blocks += len(batch.swap_out)
        self.swapped_in_blocks += len(batch.swap_in)


class Losses:
    """How many tokens of a request had KV once and have lost it since: what is computed of them is done again."""

    def __init__(self) -> None:
        self._lost: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._lost)

    def note(self, request: Request, computed: int | None = None) -> None:
        """It loses the KV of all it has computed, or of the first ``computed`` tokens it had elsewhere."""
        self._lost[request.id] = max(self._lost.get(request.id, 0), request.computed if computed is None else computed)

    def between(self, request: Request, start: int, end: int) -> int:
        """How many of its tokens ``start .. end - 1`` are computed again."""
        return max(0, min(self._lost.get(request.id, 0), end) - start)

    def forget(self, request: Request) -> None:
        """It has ended."""
        self._lost.pop(request.id, None)
