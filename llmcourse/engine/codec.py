"""What the engine asks of a tokenizer: it schedules numbers, and turns text into them only at its doors. Week 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TextCodec(Protocol):
    """What the engine asks of a tokenizer."""

    eos_ids: frozenset[int]

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""
        ...
