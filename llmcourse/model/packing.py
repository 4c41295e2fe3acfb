"""From samples to the rows that a training step sees: tokens, and how much each counts.

Whole documents are packed into rows, longest first, so that little padding is computed. Each step draws its documents
from the seed and the step's number alone: a run that was stopped goes on as if it had not been. Prompts are easy to
foresee and not ours to write, so their tokens count little in the loss.

Reference: Krell et al., "Efficient sequence packing without cross-contamination" (2021), for the packing; here the
documents of a row do see each other, and the model learns to look back no further than its own prompt. Week 1.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

from llmcourse.model import corpus
from llmcourse.model.tokenizer import Tokenizer

PROMPT_WEIGHT = 0.1
WIDTHS = (128, 256, 512)  # row lengths in tokens; a document that fits none is left out

Document = tuple[list[int], list[float]]  # tokens, and the weight of each in the loss


def document(tokenizer: Tokenizer, sample: corpus.Sample) -> Document:
    """Tokens of one sample, prompt, answer and end, with the weight of each token in the loss."""
    prompt = tokenizer.encode_prompt(sample.prompt)
    answer = [*tokenizer.encode(sample.answer), tokenizer.end_id]
    return prompt + answer, [PROMPT_WEIGHT] * len(prompt) + [1.0] * len(answer)


def pack(documents: list[Document], width: int, pad: int) -> tuple[Tensor, Tensor]:
    """Put whole documents into rows of at most `width` tokens, longest first, each where it leaves the least room.

    Returns tokens (rows, T) int64 and weights (rows, T), T <= width; padding has weight zero. No document may be
    longer than `width`.
    """
    ids: list[list[int]] = []
    weights: list[list[float]] = []
    for tokens, weight in sorted(documents, key=lambda item: -len(item[0])):
        fitting = [row for row in range(len(ids)) if len(ids[row]) + len(tokens) <= width]
        if not fitting:
            ids.append([])
            weights.append([])
        row = max(fitting, key=lambda row: len(ids[row]), default=len(ids) - 1)
        ids[row] += tokens
        weights[row] += weight
    longest = max(map(len, ids))
    padded = [row + [pad] * (longest - len(row)) for row in ids]
    return torch.tensor(padded), torch.tensor([row + [0.0] * (longest - len(row)) for row in weights])


def batches(tokenizer: Tokenizer, tokens_per_step: int, seed: int, step: int) -> list[tuple[Tensor, Tensor]]:
    """About `tokens_per_step` tokens of whole documents, packed by width; a pure function of the seed and the step.

    Short documents go into short rows because attention over a row costs the square of its length.
    """
    stream = corpus.samples(Random(f"{seed}/{step}").getrandbits(63))
    groups: dict[int, list[Document]] = {width: [] for width in WIDTHS}
    total = 0
    while total < tokens_per_step:
        tokens, weights = document(tokenizer, next(stream))
        width = next((width for width in WIDTHS if len(tokens) <= width), None)
        if width is not None:
            groups[width].append((tokens, weights))
            total += len(tokens)
    return [pack(group, width, tokenizer.pad_id) for width, group in groups.items() if group]
