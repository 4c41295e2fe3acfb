"""What a prompt shows before anybody has answered it: a few numbers by hand, and which words are in it.

The hand features are what a person would look at: how long the prompt is, which numbers it names and how far they lie
apart, how many items it lists, which verb asks. A bag of words adds the vocabulary of the training prompts. Logarithms
throughout, for lengths differ by factors. Qiu et al. use BERT in this place (SSJF, 2024); this costs some 20
microseconds instead of some milliseconds. Week 9.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from llmcourse.predict.store import Found

VERBS = ("count", "list", "write", "repeat", "copy", "say", "sort", "reverse", "story", "tell", "explain", "describe",
         "times", "find", "is", "which", "what", "数", "故事", "列")
WORD = re.compile(r"\d+|[a-z]+|[\u4e00-\u9fff]|[^\s\w]")
NUMBER = re.compile(r"\d+")
RARE = 2                                                   # prompts a word must be in to be known


def words(text: str) -> list[str]:
    """Lower-case words, single Chinese characters, signs, and numbers by how many digits they have.

    Which number it is stands in the hand features: a bag that knew each number by itself would learn them by heart.
    """
    return ["0" * len(word) if word.isdigit() else word for word in WORD.findall(text.casefold())]


def by_hand(text: str) -> list[float]:
    """The hand features of one prompt; `NAMES` says what they are."""
    numbers = [min(int(digits[:6]), 10_000) for digits in NUMBER.findall(text)]
    found = words(text)
    known = set(found)
    first, last = (numbers[0], numbers[-1]) if numbers else (0, 0)
    return [
        *np.log1p([len(found), len(numbers), first, last, max(numbers, default=0), abs(last - first),
                   text.count(","), text.count(".")]).tolist(),
        float(not text.isascii()), float("?" in text or "？" in text),
        *(float(verb in known or (not verb.isascii() and verb in text)) for verb in VERBS),
    ]


NAMES = ("words", "numbers", "first number", "last number", "largest number", "from first to last", "commas", "stops",
         "not English", "question", *VERBS)


class Features:
    """Rows of numbers for prompts, each column with mean 0 and spread 1 over the training prompts.

    ``bag``: also a column for every word that at least two training prompts have, log(1 + how often).
    """

    def __init__(self, bag: bool = True) -> None:
        self.bag = bag
        self.column: dict[str, int] = {}
        self.mean = self.spread = np.zeros(0)

    def fit(self, prompts: Sequence[str]) -> Self:
        """Learn the vocabulary and the scale of every column."""
        counts = Counter(word for prompt in prompts for word in set(words(prompt))) if self.bag else Counter()
        self.column = {word: place for place, word in
                       enumerate(sorted(word for word, number in counts.items() if number >= RARE))}
        raw = self._raw(prompts)
        spread = raw.std(axis=0)
        self.mean, self.spread = raw.mean(axis=0), np.where(spread > 0, spread, 1.0)
        return self

    @property
    def width(self) -> int:
        """Columns of a row."""
        return len(NAMES) + len(self.column)

    def rows(self, prompts: Sequence[str]) -> np.ndarray:
        """(N, width) float32; no value further than 8 spreads from the mean, whatever is asked."""
        scaled = (self._raw(prompts) - self.mean) / self.spread
        return np.clip(scaled, -8, 8).astype(np.float32)

    def learned(self) -> dict[str, Any]:
        """Vocabulary and scale, and the names of the hand features, without which no column means anything."""
        return {"features.names": list(NAMES), "features.words": list(self.column),
                "features.mean": self.mean, "features.spread": self.spread}

    def restore(self, found: Found) -> None:
        """Take them from a file."""
        found.same("features.names", list(NAMES), "it was fitted on other hand features than this version of the "
                   "course has; fit again and save")
        self.column = {word: place for place, word in enumerate(found.words("features.words"))}
        self.mean = found.array("features.mean", (self.width,))
        self.spread = found.array("features.spread", (self.width,), above=0)

    def _raw(self, prompts: Sequence[str]) -> np.ndarray:
        raw = np.zeros((len(prompts), self.width))
        for row, prompt in enumerate(prompts):
            raw[row, :len(NAMES)] = by_hand(prompt)
            for word, number in Counter(words(prompt) if self.column else ()).items():
                if word in self.column:
                    raw[row, len(NAMES) + self.column[word]] = np.log1p(number)
        return raw
