"""Beam search in an engine's memory: beams are tables that share blocks, and part by copying one block.

All beams begin with the prompt, most of them with each other's words too, and at every token some are dropped and some
go on twice. On contiguous memory each such step copies whole rows; here a beam that goes on twice is a table copied,
and only the block that both will write into is copied itself. It runs beside whatever the engine serves, in blocks that
are free, with the engine's executor; the competition among the beams is the one of week 1. Kwon et al., 2023, §4.4,
who measured 38 to 55 % of the blocks saved. Week 6.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from torch import Tensor

from llmcourse.engine.batch import Batch, ScheduledTokens
from llmcourse.engine.door import refuse_impossible
from llmcourse.engine.engine import Engine
from llmcourse.engine.request import Request, SamplingParams
from llmcourse.errors import UserError
from llmcourse.kv.memory import OutOfBlocks
from llmcourse.model.beam import Beam, Competition


class Scores(Protocol):
    """An executor that shows its scores: `TorchExecutor`."""

    def scores(self, batch: Batch) -> Tensor:
        """Compute the batch, and return the logits of every item that samples, (samplers, vocab)."""
        ...


@dataclass
class Sharing:
    """What sharing saved: blocks held at each depth, blocks that tables of their own would have held, copies made."""

    held: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    copied: int = 0

    @property
    def saved(self) -> float:
        """Share of the blocks, over all depths, that sharing made unnecessary."""
        return 1 - sum(self.held) / sum(self.alone) if self.alone else 0.0


def paged_beam_search(engine: Engine, prompt: str | Sequence[int], width: int, max_tokens: int,
                      eos_ids: Collection[int] | None = None, length_penalty: float = 1.0,
                      sharing: Sharing | None = None) -> list[Beam]:
    """The same beams as `model.beam.beam_search`, from the engine's memory; ``sharing``, if given, is filled.

    ``eos_ids`` default to the engine's. Raises UserError for a width below 1, a negative penalty, an executor without
    scores, a prompt the engine would refuse, or when free blocks run out (they are all given back).
    """
    if not hasattr(engine.executor, "scores"):
        raise UserError(f"beam search compares scores, and {type(engine.executor).__name__} has none; "
                        "use an engine on a real model")
    tokens = engine.tokens_of(prompt)
    refuse_impossible(engine, Request(tokens, SamplingParams(max_tokens=max_tokens)))
    ends = engine.scheduler.eos_ids if eos_ids is None else frozenset(eos_ids)
    search = Competition(width, ends, length_penalty, max_tokens, None)
    rows = _Tables(engine, tokens, sharing or Sharing())
    try:
        logits = rows.start()
        while parents := search.step(logits):
            logits = rows.follow(parents, [beam.tokens[-1] for beam in search.live])
    except OutOfBlocks as error:
        raise UserError(f"a beam of width {width} ran out of memory: {error}; enlarge the pool, narrow the beam, or "
                        "wait until others have finished") from None
    finally:
        rows.free()
    return search.best()


class _Tables:
    """The beams inside the engine: a table of blocks each."""

    def __init__(self, engine: Engine, prompt: list[int], sharing: Sharing) -> None:
        self.engine, self.pool, self.sharing = engine, engine.pool, sharing
        self.executor = cast(Scores, engine.executor)
        self.prompt = prompt
        self.rows: list[Request] = []
        self.born = 0                                         # beams so far, for names

    def start(self) -> Tensor:
        """Compute the prompt once; scores of the next token, (1, V)."""
        row = self._row(self.prompt)
        row.computed = self.pool.open(row.id, row.tokens, len(row.tokens))
        self.rows = [row]
        return self._compute([])

    def follow(self, parents: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Row i goes on from what was row ``parents[i]`` with ``tokens[i]``; scores (rows, V)."""
        before = self.rows
        self.rows = [*before]                                 # whatever fails, `free` finds all of them
        after = []
        for parent, token in zip(parents, tokens, strict=True):
            row = self._row([*before[parent].tokens, token])
            row.computed = len(row.tokens) - 1
            self.pool.share(row.id, before[parent].id)
            self.rows.append(row)
            after.append(row)
        for row in before:
            self.rows.remove(row)
            self.pool.free(row.id)
        copies = [copy for row in after for copy in self.pool.reserve(row.id, len(row.tokens))[0]]
        return self._compute(copies)

    def free(self) -> None:
        """Give all blocks back."""
        for row in self.rows:
            self.pool.free(row.id)
        self.rows = []

    def _row(self, tokens: list[int]) -> Request:
        self.born += 1
        return Request(tokens, id=f"beam {id(self)} {self.born}")

    def _compute(self, copies: list[tuple[int, int]]) -> Tensor:
        """Compute what each row has not computed yet."""
        tables = [self.pool.table(row.id) for row in self.rows]
        items = tuple(ScheduledTokens(row, row.computed, row.pending, table)
                      for row, table in zip(self.rows, tables, strict=True))
        self.sharing.held.append(len({block for table in tables for block in table}))
        self.sharing.alone.append(sum(map(len, tables)))
        self.sharing.copied += len(copies)
        return self.executor.scores(Batch(items, tuple(copies)))
