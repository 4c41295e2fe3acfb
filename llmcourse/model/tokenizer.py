"""Text to token ids and back, for course-tiny and for any Hugging Face `tokenizer.json`.

Byte-level BPE never meets an unknown character: it starts from the 256 bytes and merges frequent neighbours. A token
may therefore end in the middle of a Chinese character, so a stream of tokens can only be shown once its bytes are
whole: that is `StreamDecoder`. Digits are single tokens in course-tiny: sums and comparisons go digit by digit.

Reference: Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units" (2016). Week 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

USER, ANSWER, END, PAD = "<|user|>", "<|answer|>", "<|end|>", "<|pad|>"
SPECIALS = (PAD, USER, ANSWER, END)
# One digit, one comma (before a space too), a word with its space, other signs with their space, or blanks.
PIECES = r"\p{N}|, (?=\p{N})|,| ?\p{L}+| ?[^\s\p{L}\p{N},]+|\s+"
END_NAMES = (END, "</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>")


class Tokenizer:
    """A `tokenizers.Tokenizer` with the three things that serving needs: prompts, stops, and streams."""

    def __init__(self, inner: tokenizers.Tokenizer, eos_ids: Iterable[int] = ()) -> None:
        self._inner = inner
        known = (inner.token_to_id(name) for name in END_NAMES)
        self.eos_ids = frozenset(eos_ids) or frozenset(index for index in known if index is not None)
        self._has_roles = inner.token_to_id(USER) is not None and inner.token_to_id(ANSWER) is not None
        # A person who types "<|end|>" means the letters. Elsewhere chat templates spell special tokens out.
        inner.encode_special_tokens = self._has_roles

    @classmethod
    def load(cls, folder: str | Path, eos_ids: Iterable[int] = ()) -> Tokenizer:
        """Read `tokenizer.json` in a folder. `eos_ids` from the model's config take the place of known end names."""
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; a model folder needs a tokenizer.json")
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), eos_ids)
        except Exception as error:  # the library raises a bare Exception for every fault in the file
            raise ValueError(f"{path} is not a readable tokenizer: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 1024) -> Tokenizer:
        """Learn a byte-level BPE of `vocab_size` tokens from texts; the same texts give the same tokenizer."""
        inner = tokenizers.Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(PIECES), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` into a folder, made if need be."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._inner.save(str(Path(folder) / "tokenizer.json"))

    @property
    def vocab_size(self) -> int:
        """How many token ids there are, special ones included."""
        return int(self._inner.get_vocab_size())

    @property
    def end_id(self) -> int:
        """The id of `<|end|>` in course-tiny. Raises ValueError for a tokenizer without it."""
        return self._special(END)

    @property
    def pad_id(self) -> int:
        """The id of `<|pad|>` in course-tiny. Raises ValueError for a tokenizer without it."""
        return self._special(PAD)

    def _special(self, name: str) -> int:
        index = self._inner.token_to_id(name)
        if index is None:
            raise ValueError(f"this tokenizer has no token {name}; only course-tiny's has")
        return int(index)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text: nothing is added."""
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a question ready to be answered.

        For course-tiny `<|user|> text <|answer|>`; for others the text with what the tokenizer itself adds (BOS).
        """
        if not self._has_roles:
            return list(self._inner.encode(text).ids)
        return [self._special(USER), *self.encode(text), self._special(ANSWER)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out, a cut character becomes U+FFFD."""
        return str(self._inner.decode(list(ids), skip_special_tokens=True))

    def token(self, index: int) -> str:
        """One token by its own name, as people see it in figures: special tokens too, a cut character as U+FFFD.

        Raises IndexError for an id outside the vocabulary.
        """
        if self._inner.id_to_token(index) is None:
            raise IndexError(f"token {index} is not in the vocabulary of {self.vocab_size}")
        return str(self._inner.decode([index], skip_special_tokens=False))


class StreamDecoder:
    """Turns a growing stream of tokens into text, holding back a character until all its bytes are there.

    Only the tokens since the last safe point are decoded again, so the cost of a token does not grow with the answer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # since the last safe point
        self._given = 0  # characters of their text already given out

    def push(self, index: int) -> str:
        """Add one token; returns the text that became complete, often empty in the midst of a character."""
        self._ids.append(index)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd"):
            return ""
        new, self._given = text[self._given :], len(text)
        if len(self._ids) > 32:
            # One token of context is kept: some decoders treat the first token of a text in their own way.
            self._ids, self._given = self._ids[-1:], len(self._tokenizer.decode(self._ids[-1:]))
        return new

    def flush(self) -> str:
        """The rest at the end of the stream: an unfinished character comes out as U+FFFD."""
        text = self._tokenizer.decode(self._ids)
        new, self._given = text[self._given :], len(text)
        return new
