"""Counters of what the mechanisms really did: asserted wherever a notebook, a lab or a benchmark claims one. Week 2."""

from dataclasses import dataclass


@dataclass
class Counters:
    """What the mechanisms really did, so that nobody has to take it on trust."""

    steps: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0
    copied_blocks: int = 0
    shed: int = 0
