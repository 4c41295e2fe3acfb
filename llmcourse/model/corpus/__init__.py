"""The training text of course-tiny, generated: an endless stream of questions and answers from one seed.

Nothing is downloaded. Each sample is one task (drawn by weight) with its arguments and wording; the same seed gives
the same stream, on any machine. A prompt belongs to the held-out set or to the training set by the hash of its own
text, so no wording a test asks was ever trained on, however long the training.

Reference: Eldan and Li, "TinyStories" (2023), for generated text that a tiny model can learn. Weeks 1 and 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from random import Random

from llmcourse.model.corpus import stories, tasks, texts
from llmcourse.model.corpus.phrasing import Draft

HELD_OUT_SHARE = 0.03


@dataclass(frozen=True)
class Task:
    """One kind of question: who draws it, how often (relative weights), and whether it has one right answer.

    `weight` holds in the first part of training, `late_weight` in the second, when what a model learns last (answers of
    one bit, sums) is asked more often. Late weight 0: only practice in looking things up in a prompt, not asked again
    later and not measured.
    """

    draw: Callable[[Random], Draft]
    weight: float
    late_weight: float
    exact: bool = True

    @property
    def practice(self) -> bool:
        """Whether the task is only for the first part of training."""
        return self.late_weight == 0


TASKS: dict[str, Task] = {
    "count": Task(tasks.count, 8, 8),
    "countdown": Task(tasks.countdown, 4, 5),
    "count_by": Task(tasks.count_by, 3, 4),
    "repeat": Task(tasks.repeat, 5, 9),
    "lines": Task(tasks.lines, 2, 5),
    "list": Task(tasks.list_items, 4.5, 7),
    "add": Task(tasks.add, 15, 15),
    "subtract": Task(tasks.subtract, 13, 18),
    "multiply": Task(tasks.multiply, 5, 4),
    "table": Task(tasks.table, 1.5, 0),
    "sort": Task(tasks.sort, 14, 22),
    "reverse": Task(tasks.reverse, 5, 8),
    "yes_no_number": Task(texts.yes_no_number, 7, 30),
    "yes_no_fact": Task(texts.yes_no_fact, 5, 0),
    "extreme": Task(texts.extreme, 10, 10),
    "neighbour": Task(texts.neighbour, 4, 0),
    "series": Task(texts.series, 3, 4),
    "translate": Task(texts.translate, 7, 0),
    "echo": Task(texts.echo, 5, 5),
    "find": Task(texts.find, 2.5, 1.5),
    "quote": Task(texts.quote, 1.5, 0),
    "story": Task(stories.story, 4.5, 4, exact=False),
    "story_chinese": Task(stories.story_chinese, 1.5, 1.5, exact=False),
    "explain": Task(stories.explain, 2.5, 2.5, exact=False),
    "chat": Task(stories.chat, 1.5, 1.5, exact=False),
}


@dataclass(frozen=True)
class Sample:
    """One question with its answer. `exact`: the answer is the only right one; else it is one of many."""

    kind: str
    argument: int
    prompt: str
    answer: str
    exact: bool


def is_held_out(prompt: str) -> bool:
    """Whether this prompt is kept from training. Case, spaces and punctuation do not count as a difference."""
    key = "".join(letter for letter in prompt.casefold() if letter.isalnum())
    return int.from_bytes(sha256(key.encode()).digest()[:4], "big") < HELD_OUT_SHARE * 2**32


def draw(kind: str, rng: Random) -> Sample:
    """One sample of the given kind. Raises KeyError for a kind that is not in `TASKS`."""
    draft = TASKS[kind].draw(rng)
    return Sample(kind, draft.argument, draft.prompt, draft.answer, TASKS[kind].exact)


def samples(seed: int, held_out: bool = False, late: bool = False) -> Iterator[Sample]:
    """The endless stream of training samples of this seed, or of held-out ones; `late`: with the late weights."""
    rng = Random(seed)
    kinds, weights = list(TASKS), [task.late_weight if late else task.weight for task in TASKS.values()]
    while True:
        sample = draw(rng.choices(kinds, weights)[0], rng)
        if is_held_out(sample.prompt) == held_out:
            yield sample


def held_out_prompts(seed: int, per_kind: dict[str, int]) -> list[Sample]:
    """Held-out samples without repeated prompts: for each kind as many as asked (fewer if it has fewer prompts)."""
    chosen: list[Sample] = []
    for kind, number in per_kind.items():
        rng = Random(f"{seed}/{kind}")
        drawn = (draw(kind, rng) for _ in range(200 * number + 2000))
        unique = {sample.prompt: sample for sample in drawn if is_held_out(sample.prompt)}
        chosen.extend(islice(unique.values(), number))
    return chosen
