"""From samples to the rows that a training step sees: tokens, and how much each counts.

Whole documents are packed into rows, longest first, so that little padding is computed; a token attends only to its
own document, as it will when it is served. Each step draws its documents from the seed and the step's number alone: a
run that was stopped goes on as if it had not been. What can be learned weighs most in the loss: answers more than
prompts, right answers more than random ones, and a long count hardly more than a short sum.

Reference: Krell et al., "Efficient sequence packing without cross-contamination" (2021). Week 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from llmcourse.model import corpus
from llmcourse.model.attention import CausalAttention, causal_mask, fused_attention
from llmcourse.model.tokenizer import Tokenizer

PROMPT_WEIGHT = 0.02
OPEN_WEIGHT = 0.3  # of each token of an answer that is random; constant, or stories would learn a wrong length
FULL_TOKENS = 8  # an exact answer of more tokens weighs as the square root of its length
WIDTHS = (128, 256, 512)  # row lengths in tokens; a document that fits none is left out

Document = tuple[list[int], list[float]]  # tokens, and the weight of each in the loss


def answer_weight(exact: bool, length: int) -> float:
    """Weight in the loss of each token of an answer of so many tokens, the end token included."""
    return min(1.0, (FULL_TOKENS / length) ** 0.5) if exact else OPEN_WEIGHT


def document(tokenizer: Tokenizer, sample: corpus.Sample) -> Document:
    """Tokens of one sample, prompt, answer and end, with the weight of each token in the loss."""
    prompt = tokenizer.encode_prompt(sample.prompt)
    answer = [*tokenizer.encode(sample.answer), tokenizer.end_id]
    weight = answer_weight(sample.exact, len(answer))
    return prompt + answer, [PROMPT_WEIGHT] * len(prompt) + [weight] * len(answer)


@dataclass(frozen=True)
class Packed:
    """Rows of documents: tokens (B, T) int64, their weights in the loss, and which document of the row each is of.

    Padding has weight zero and document -1.
    """

    tokens: Tensor
    weights: Tensor
    documents: Tensor


class PackedAttention(CausalAttention):
    """Causal attention that stops at the borders of documents. Positions run on: RoPE sees only distances."""

    def __init__(self, documents: Tensor) -> None:
        same = documents[:, :, None] == documents[:, None, :]
        self.mask = (same & causal_mask(documents.shape[1], documents.shape[1]))[:, None]  # (B, 1, T, T)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the rows over themselves, each token over its own document: (B, T, H, D)."""
        return fused_attention(q, k, v, self.mask)


def pack(documents: list[Document], width: int, pad: int) -> Packed:
    """Put whole documents into rows of at most `width` tokens, longest first, each where it leaves the least room.

    No document may be longer than `width`.
    """
    rows: list[list[Document]] = []
    used: list[int] = []
    for item in sorted(documents, key=lambda item: -len(item[0])):
        size = len(item[0])
        fitting = [row for row in range(len(rows)) if used[row] + size <= width]
        if not fitting:
            rows.append([])
            used.append(0)
        row = max(fitting, key=used.__getitem__, default=len(rows) - 1)
        rows[row].append(item)
        used[row] += size
    shape = (len(rows), max(used))
    packed = Packed(torch.full(shape, pad), torch.zeros(shape), torch.full(shape, -1))
    for row, items in enumerate(rows):
        start = 0
        for number, (tokens, weights) in enumerate(items):
            span = slice(start, start + len(tokens))
            packed.tokens[row, span] = torch.tensor(tokens)
            packed.weights[row, span] = torch.tensor(weights)
            packed.documents[row, span] = number
            start = span.stop
    return packed


def batches(tokenizer: Tokenizer, tokens_per_step: int, seed: int, step: int, late: bool = False) -> list[Packed]:
    """About `tokens_per_step` tokens of whole documents, packed by width; a pure function of its arguments.

    `late` draws them with the late weights of the tasks. Short documents go into short rows because attention over a
    row costs the square of its length.
    """
    stream = corpus.samples(Random(f"{seed}/{step}").getrandbits(63), late=late)
    groups: dict[int, list[Document]] = {width: [] for width in WIDTHS}
    total = 0
    while total < tokens_per_step:
        tokens, weights = document(tokenizer, next(stream))
        width = next((width for width in WIDTHS if len(tokens) <= width), None)
        if width is not None:
            groups[width].append((tokens, weights))
            total += len(tokens)
    return [pack(group, width, tokenizer.pad_id) for width, group in groups.items() if group]
