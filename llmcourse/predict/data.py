"""How long answers turned out to be: prompts, and for each several answers of the same model.

Several samples of one prompt say what one sample cannot: how much of a length lies in the prompt, and how much is
chance that no predictor can know. The split is by prompt, never by sample: a predictor that has seen one answer to a
prompt has seen the prompt, and is no longer predicting. Two wordings that differ only in case, spaces or punctuation
are one prompt to the split. The shipped set is made by `measure_lengths` (predict/measure.py).
Zheng et al., "Response length perception and sequence scheduling" (2023). Week 9.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmcourse.errors import UserError
from llmcourse.kinds import check_kind
from llmcourse.paths import DATA

if TYPE_CHECKING:
    from llmcourse.engine.codec import TextCodec

FILE = DATA / "lengths" / "course-tiny.jsonl"


@dataclass(frozen=True)
class LengthData:
    """``lengths`` is (prompts, samples) in tokens, the end token counted, each at least 1.

    ``kinds`` names the task of each prompt for tables; no predictor reads it. ``answers`` are the token ids of each
    prompt's first sample, for predictors that look on while the answer is written; empty where nobody kept them.
    """

    prompts: tuple[str, ...]
    lengths: np.ndarray
    kinds: tuple[str, ...] = ()
    answers: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        count, shape = len(self.prompts), self.lengths.shape
        if len(shape) != 2 or shape[0] != count or not shape[1]:
            raise UserError(f"{count} prompts with lengths of shape {shape}; lengths are (prompts, samples)")
        if count and self.lengths.min() < 1:
            raise UserError(f"a length of {self.lengths.min()} tokens; an answer has at least 1")
        for name, given in (("kinds", self.kinds), ("answers", self.answers)):
            if given and len(given) != count:
                raise UserError(f"{count} prompts with {len(given)} {name}; give one for each prompt, or none")
        if len(set(self.prompts)) < count:
            raise UserError(f"{count - len(set(self.prompts))} prompts come twice; put their samples in one row")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def samples(self) -> int:
        """How many answers each prompt has."""
        return int(self.lengths.shape[1])

    @cached_property
    def tokens(self) -> list[list[int]]:
        """Token ids of the prompts as course-tiny is asked them."""
        codec = course_tokenizer()
        return [codec.encode_prompt(prompt) for prompt in self.prompts]

    @classmethod
    def load(cls, path: str | Path = FILE) -> LengthData:
        """Read a file that `save` wrote; without a path the shipped one, of course-tiny.

        Raises UserError that names the file and the line that cannot be read.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path} does not exist; make it with `llmcourse data lengths`")
        rows = []
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{path} cannot be read as text; give a file that LengthData.save wrote") from None
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                rows.append((row["prompt"], row["lengths"], row["kind"], tuple(row["answer"])))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}, line {number}: not a prompt with kind, lengths and answer") from error
        if not rows or len({len(row[1]) for row in rows}) > 1:
            raise UserError(f"{path}: needs prompts, each with as many lengths as the others")
        prompts, lengths, kinds, answers = zip(*rows, strict=True)
        return cls(prompts, np.array(lengths, dtype=np.int64), kinds if all(kinds) else (),
                   answers if all(answers) else ())

    def save(self, path: str | Path) -> None:
        """Write one JSON object a line: kind, prompt, lengths, and the token ids of the first answer."""
        kinds, answers = self.kinds or ("",) * len(self), self.answers or ((),) * len(self)
        rows = ({"kind": kind, "prompt": prompt, "lengths": lengths, "answer": answer} for kind, prompt, lengths, answer
                in zip(kinds, self.prompts, self.lengths.tolist(), answers, strict=True))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
                                      for row in rows), encoding="utf-8")

    def select(self, rows: Sequence[int] | np.ndarray) -> LengthData:
        """Only the prompts at these places, in this order."""
        return LengthData(tuple(self.prompts[row] for row in rows), self.lengths[np.asarray(rows, dtype=int)],
                          tuple(self.kinds[row] for row in rows) if self.kinds else (),
                          tuple(self.answers[row] for row in rows) if self.answers else ())

    def split(self, held_out: float = 0.25, seed: int = 0) -> tuple[LengthData, LengthData]:
        """(train, test): a share of the prompts is held out with all its samples, by a hash of text and seed.

        What the lengths are has no say in it. Raises UserError when one side would be empty.
        """
        check_kind("held_out", held_out, float)
        check_kind("seed", seed, int)
        if not 0 < held_out < 1:
            raise UserError(f"held_out is {held_out}; give the share of the prompts to test on, between 0 and 1")
        keys = [sha256(f"{seed}/{_letters(prompt)}".encode()).digest() for prompt in self.prompts]
        held = set(sorted(set(keys))[:round(held_out * len(set(keys)))])
        test = [row for row, key in enumerate(keys) if key in held]
        train = [row for row, key in enumerate(keys) if key not in held]
        if not train or not test:
            raise UserError(f"{held_out} of {len(set(keys))} prompts held out leaves {len(train)} to learn from and "
                            f"{len(test)} to test on; neither may be 0")
        return self.select(train), self.select(test)


def course_tokenizer() -> TextCodec:
    """The tokenizer of course-tiny, read once."""
    if not _TOKENIZERS:
        from llmcourse.model.tokenizer import Tokenizer
        _TOKENIZERS.append(Tokenizer.load(DATA / "course-tiny"))
    return _TOKENIZERS[0]


_TOKENIZERS: list[TextCodec] = []


def texts(prompts: Sequence[str] | Sequence[Sequence[int]]) -> list[str]:
    """Prompts as texts: token ids are course-tiny's, whose chat markers are left out.

    Raises UserError for a single text, which would be read letter by letter, and for what is neither text nor ids.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Collection):
        raise UserError(f"prompts is {prompts!r:.60}; give a list of texts or of token ids, also for one of them")
    return [prompt if isinstance(prompt, str) else _decoded(prompt) for prompt in prompts]


def _decoded(prompt: Sequence[int]) -> str:
    try:
        return course_tokenizer().decode(list(prompt))
    except (TypeError, OverflowError):
        raise UserError(f"a prompt is {prompt!r:.60}; give a text, or course-tiny's token ids, from 0") from None


def _letters(prompt: str) -> str:
    return "".join(letter for letter in prompt.casefold() if letter.isalnum())
