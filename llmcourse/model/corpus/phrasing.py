"""How a request is worded: templates, politeness, and the numbers in it.

Students will not type the sentence the model was trained on, so every task has many templates, and each is varied
again: "please", "can you", lower case, a missing full stop. A `Draft` is what a task hands over: what is asked, what
must come out, and the number in the prompt that decides how long the answer is.

Reference: Wang et al., "Self-Instruct" (2023), for instruction data made from templates. Week 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from random import Random


@dataclass(frozen=True)
class Draft:
    """One question and its answer. `argument` is the number that drives the answer's length (0: there is none)."""

    prompt: str
    answer: str
    argument: int = 0


def polite(rng: Random, text: str) -> str:
    """Vary an English request as people do: "Please ...", "Can you ...?", lower case, no full stop."""
    draw = rng.random()
    if draw < 0.10 and not text.endswith("?"):
        text = "Please " + text[0].lower() + text[1:]
    elif draw < 0.16 and text.endswith("."):
        text = "Can you " + text[0].lower() + text[1:-1] + "?"
    elif draw < 0.22:
        text = text[0].lower() + text[1:]
    return text[:-1] if rng.random() < 0.08 and text.endswith(".") else text


def ask(rng: Random, templates: Sequence[str], **fields: object) -> str:
    """Fill one of the templates, politely varied when it is English."""
    text = rng.choice(templates).format(**fields)
    if text[0].isascii():
        return polite(rng, text)
    return "请" + text if rng.random() < 0.2 else text


def is_chinese(text: str) -> bool:
    """True if the text holds a Chinese character."""
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


def few_or_many(rng: Random, most: int) -> int:
    """A whole number in 1..most, log-uniform: often small, sometimes the largest."""
    return int(2.0 ** rng.uniform(0.0, log2(most + 1)))
