"""Counters of what the mechanisms really did: asserted wherever a notebook, a lab or a benchmark claims one. Week 2."""

from dataclasses import dataclass


@dataclass
class Counters:
    """What the mechanisms really did, so that nobody has to take it on trust."""

    steps: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0
    copied_blocks: int = 0               # copied on write, or moved out of the way
    forked_tokens: int = 0               # KV taken over from a sibling instead of computed
    hit_tokens: int = 0                  # KV found in the prefix cache instead of computed
    swapped_out_blocks: int = 0
    swapped_in_blocks: int = 0
    shed: int = 0
