"""Beam search: keep the few likeliest texts at once, and let them compete.

Greedy decoding cannot take back a token that leads nowhere good. A beam of width w extends its w texts by every token,
keeps the w likeliest results, and sets aside those that end. A longer text is a product of more probabilities and so
always less likely; texts are therefore compared by log probability / length ** length_penalty.

Lowerre, 1976 (in speech recognition); Wu et al., 2016 (length normalisation). Week 1.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from llmcourse.errors import UserError
from llmcourse.kv.contiguous import ContiguousCache
from llmcourse.model.limits import room_for
from llmcourse.model.transformer import Transformer


@dataclass(frozen=True)
class Beam:
    """One text: its new tokens (the end-of-text token included), their log probability (natural), whether it ended."""

    tokens: tuple[int, ...]
    log_probability: float
    finished: bool

    def score(self, length_penalty: float) -> float:
        """What texts of different length are compared by; 0 compares bare probabilities, 1 means per token."""
        return self.log_probability / len(self.tokens) ** length_penalty


@dataclass(frozen=True)
class BeamNode:
    """One candidate the search looked at, for the picture of its tree; the tree is the list of them in order.

    ``parent`` is the place of the parent in that list, None right after the prompt; ``depth`` counts new tokens;
    ``log_probability`` is that of the text up to here; ``fate`` says whether it lived on, ended the text, or was cut.
    """

    parent: int | None
    token: int
    depth: int
    log_probability: float
    fate: Literal["kept", "finished", "dropped"]


def beam_search(model: Transformer, tokens: Sequence[int], width: int, max_tokens: int,
                eos_ids: Collection[int] = frozenset(), length_penalty: float = 1.0,
                tree: list[BeamNode] | None = None) -> list[Beam]:
    """The best ``width`` continuations of ``tokens``, best first; those cut off at ``max_tokens`` are not ``finished``.

    A text that ends is set aside and goes on competing by its score; the search stops when no living text can still
    overtake the ``width`` best of them. Width 1 with ``length_penalty=0`` is greedy decoding. ``tree``, an empty list,
    is filled with every candidate looked at. Raises UserError for a width below 1, a negative length penalty, and
    whatever `generate` refuses.
    """
    search = Competition(width, frozenset(eos_ids), length_penalty, room_for(model.config, tokens, max_tokens), tree)
    rows = _Rows(model, tokens, width, search.room)
    logits = rows.start()
    while parents := search.step(logits):
        logits = rows.follow(parents, [beam.tokens[-1] for beam in search.live])
    return search.best()


class _Rows:
    """The texts of the beam inside the model: one row each of a batch that shares a cache."""

    def __init__(self, model: Transformer, tokens: Sequence[int], width: int, room: int) -> None:
        weights = model.embedding
        self._model, self._prompt, self._width = model, list(tokens), width
        self._cache = ContiguousCache(model.config, len(tokens) + room, width, weights.device, weights.dtype)

    def start(self) -> Tensor:
        """Run the prompt in every row; scores of the next token of the first, (1, V)."""
        return self._run([self._prompt] * self._width)[:1]

    def follow(self, parents: list[int], tokens: list[int]) -> Tensor:
        """Row i continues what was row ``parents[i]`` by ``tokens[i]``; scores (len(parents), V)."""
        idle = self._width - len(parents)                       # a batch keeps its size; idle rows repeat the first
        self._cache.reorder(torch.tensor(parents + parents[:1] * idle, device=self._cache.keys.device))
        return self._run([[token] for token in tokens + tokens[:1] * idle])[:len(parents)]

    @torch.inference_mode()
    def _run(self, tokens: list[list[int]]) -> Tensor:
        hidden = self._model.hidden(torch.tensor(tokens, device=self._cache.keys.device), self._cache)
        return self._model.logits(hidden[:, -1])


class Competition:
    """Which texts live on, which ended, and when nothing better can come; it never sees the model."""

    def __init__(self, width: int, eos_ids: frozenset[int], length_penalty: float, room: int,
                 tree: list[BeamNode] | None) -> None:
        if width < 1:
            raise UserError(f"width is {width}; a beam keeps at least 1 text")
        if not 0 <= length_penalty < float("inf"):
            raise UserError(f"length_penalty is {length_penalty}; it must be 0 (off) or a number above")
        self.width, self.eos_ids, self.length_penalty, self.room = width, eos_ids, length_penalty, room
        self.live = [Beam((), 0.0, False)]
        self.finished: list[Beam] = []
        self._tree = [] if tree is None else tree
        self._nodes: list[int | None] = [None]                  # where each live text stands in the tree

    def step(self, logits: Tensor) -> list[int]:
        """Extend every live text, logits (live, V); the rows that live on, [] when the search is over."""
        parents: list[int] = []
        live: list[Beam] = []
        nodes: list[int | None] = []
        for rank, (parent, beam) in enumerate(self._candidates(logits)):
            fate: Literal["kept", "finished", "dropped"] = "dropped"
            if beam.finished and rank < self.width:             # an ending must win its place like any other token
                self.finished.append(beam)
                fate = "finished"
            elif not beam.finished and len(live) < self.width:
                parents.append(parent)
                live.append(beam)
                nodes.append(len(self._tree))
                fate = "kept"
            self._tree.append(BeamNode(self._nodes[parent], beam.tokens[-1], len(beam.tokens), beam.log_probability,
                                       fate))
        self.live, self._nodes = live, nodes
        self.finished = self._ranked(self.finished)
        return [] if self._over() else parents

    def _candidates(self, logits: Tensor) -> list[tuple[int, Beam]]:
        """The likeliest extensions with their row, best first: enough that endings leave ``width`` others."""
        so_far = torch.tensor([beam.log_probability for beam in self.live], device=logits.device)
        totals = (logits.float().log_softmax(-1) + so_far[:, None]).flatten()
        values, places = totals.topk(min(self.width * (1 + len(self.eos_ids)), totals.numel()))
        extensions = []
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            parent, token = divmod(place, logits.shape[-1])
            beam = Beam((*self.live[parent].tokens, token), value, token in self.eos_ids)
            extensions.append((parent, beam))
        return extensions

    def _over(self) -> bool:
        if not self.live or len(self.live[0].tokens) == self.room:
            return True
        if len(self.finished) < self.width:
            return False
        # Log probabilities only fall, so no live text can end better than its present one spread over the most tokens.
        hope = max(beam.log_probability for beam in self.live) / self.room**self.length_penalty
        return hope <= self.finished[-1].score(self.length_penalty)

    def _ranked(self, beams: list[Beam]) -> list[Beam]:
        return sorted(beams, key=lambda beam: -beam.score(self.length_penalty))[:self.width]

    def best(self) -> list[Beam]:
        """Ended texts and those cut off by the limit, best first."""
        cut = [beam for beam in self.live if len(beam.tokens) == self.room]
        return self._ranked(self.finished + cut)
