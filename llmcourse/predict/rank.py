"""Learning to rank: a scheduler uses only the order of predictions, so train for the order.

A ranker gives a score, smaller is shorter, and no number of tokens: it cannot say how much memory to keep. The pairwise
loss (RankNet, Burges et al., 2005) asks of two prompts which is shorter; ListMLE (Xia et al., 2008) asks how likely
the true order of a whole list is, if one prompt after the other is drawn with weight exp(-score). Labels are lengths in
tens of tokens, so that nobody learns the chance of a few tokens; where half of all answers are about that short, as
those of course-tiny, smaller groups order better. Fu et al., "Efficient LLM scheduling by learning to rank" (NeurIPS
2024), with lists of 32 and OPT-125M where here is a small network. Week 9.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llmcourse.errors import UserError
from llmcourse.kinds import check_kind
from llmcourse.predict.network import Network
from llmcourse.predict.predictor import Prompts

GROUP = 10                                                 # tokens that count as one length (Fu et al., 2024)
LIST = 32                                                  # prompts in a list


def list_mle(scores: Tensor, lengths: Tensor) -> Tensor:
    """Negative log likelihood of the order by length, shortest first: scores and lengths (lists, N) -> (lists,).

    In the i-th place the true i-th is drawn from all that are left. Equal lengths stand in the order they came in.
    """
    order = lengths.argsort(dim=-1, stable=True)
    logits = (-scores).gather(-1, order)
    left = logits.flip(-1).logcumsumexp(-1).flip(-1)       # log sum of exp over this place and all behind it
    return (left - logits).sum(-1)


class _Ranker(Network):
    """A score from lengths in groups of ``group`` tokens."""

    is_ranker = True

    def __init__(self, group: int = GROUP, hidden: int = 64, steps: int = 500, rate: float = 3e-3,
                 seed: int = 0) -> None:
        super().__init__(hidden, steps, rate, seed)
        check_kind("group", group, int)
        if not group >= 1:
            raise UserError(f"lengths in groups of {group} tokens; a group has at least 1")
        self.group = group

    def labels(self, lengths: Tensor) -> Tensor:
        """In which group a length lies, from 0."""
        return (lengths / self.group).floor()

    def predict(self, prompts: Prompts) -> np.ndarray:
        """Scores: smaller is shorter."""
        return self.outputs_of(prompts)[:, 0]


class ListMLE(_Ranker):
    """Trained on lists of 32 prompts, eight lists a step."""

    name = "listmle"

    def loss(self, said: Tensor, lengths: Tensor) -> Tensor:
        """Per place in a list, so that it does not grow with the list."""
        return list_mle(said[:, 0].view(-1, LIST), self.labels(lengths).view(-1, LIST)).mean() / LIST


class PairwiseRanker(_Ranker):
    """Trained on pairs: the logistic loss of the difference in score; pairs of one label say nothing."""

    name = "pairwise"

    def loss(self, said: Tensor, lengths: Tensor) -> Tensor:
        """Mean over all pairs of neighbours in the batch, which is in random order, that differ."""
        grouped, scores = self.labels(lengths), said[:, 0]
        gap, sign = scores - scores.roll(1), (grouped - grouped.roll(1)).sign()
        return (torch.nn.functional.softplus(-sign * gap) * sign.abs()).sum() / sign.abs().sum().clamp(min=1)
