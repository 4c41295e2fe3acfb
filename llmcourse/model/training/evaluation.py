"""What course-tiny can do, measured: right answers, ends of text, and how long its answers are.

Tasks with one right answer are decoded greedily and compared letter by letter. Lengths are those of answers sampled at
temperature 1, as a server would see them. How far the length can be known on arrival is the share of its variance that
a least-squares fit on kind of task and argument explains; what is left over no predictor of that kind can know.

Reference: Zheng et al., "Response length perception and sequence scheduling" (2023). Weeks 1 and 9.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmcourse.errors import UserError
from llmcourse.model import corpus
from llmcourse.model.decoding import generate
from llmcourse.model.tokenizer import Tokenizer
from llmcourse.model.transformer import Transformer

MAX_TOKENS = 512
PROMPT_SEED = 1
PROMPTS_PER_KIND = {kind: 8 for kind, task in corpus.TASKS.items() if not task.practice} | {
    "count": 30, "list": 20, "lines": 15, "add": 20, "subtract": 20, "sort": 20, "yes_no_number": 20, "extreme": 15,
    "find": 30, "story": 60, "story_chinese": 15, "explain": 15,
}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """One measurement over a prompt set. Shares lie in 0..1, lengths are in tokens with the end token counted."""

    prompts: int
    accuracy: float
    accuracy_by_kind: dict[str, float]
    ended: float
    length_mean: float
    length_p50: float
    length_p90: float
    length_p99: float
    length_max: int
    explained_variance: float
    wrong: list[dict[str, str]]


def write_prompts(path: str | Path) -> int:
    """Draw the held-out prompt set and write it, one JSON object a line; returns how many prompts it has."""
    chosen = corpus.held_out_prompts(PROMPT_SEED, PROMPTS_PER_KIND)
    rows = [
        {"kind": sample.kind, "argument": sample.argument, "prompt": sample.prompt,
         "answer": sample.answer if sample.exact else None}
        for sample in chosen
    ]  # fmt: skip
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def read_prompts(path: str | Path) -> list[corpus.Sample]:
    """The prompt set of a file that `write_prompts` wrote; the answer of an open task is the empty string.

    Raises UserError naming the line that cannot be read.
    """
    samples = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            answer = row["answer"]
            samples.append(corpus.Sample(row["kind"], row["argument"], row["prompt"], answer or "", answer is not None))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: not a prompt with kind, argument, prompt and answer") from error
    return samples


def explained_variance(kinds: Sequence[str], arguments: Sequence[float], lengths: Sequence[float]) -> float:
    """R squared of the least-squares fit of length on kind and, for each kind, a slope in its argument.

    Zero when all lengths are equal: there is nothing to explain.
    """
    names = sorted(set(kinds))
    features = np.zeros((len(kinds), 2 * len(names)))
    for row, (kind, argument) in enumerate(zip(kinds, arguments, strict=True)):
        column = 2 * names.index(kind)
        features[row, column : column + 2] = 1.0, argument
    target = np.asarray(lengths, dtype=float)
    residual = target - features @ np.linalg.lstsq(features, target, rcond=None)[0]
    return float(1 - residual.var() / target.var()) if target.var() else 0.0


def evaluate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[corpus.Sample],
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure accuracy (greedy) and lengths (temperature 1) over a prompt set.

    `progress(done, of)` is called after each prompt. Raises UserError for an empty prompt set.
    """
    if not prompts:
        raise UserError("there are no prompts to evaluate; give at least one")
    right: dict[str, list[bool]] = {}
    wrong: list[dict[str, str]] = []
    lengths: list[int] = []
    ended = 0
    for index, sample in enumerate(prompts):
        ids = tokenizer.encode_prompt(sample.prompt)
        if sample.exact:
            got = tokenizer.decode(generate(model, ids, MAX_TOKENS, eos_ids=tokenizer.eos_ids))
            right.setdefault(sample.kind, []).append(got == sample.answer)
            if got != sample.answer:
                wrong.append({"kind": sample.kind, "prompt": sample.prompt, "answer": sample.answer, "got": got})
        drawn = generate(model, ids, MAX_TOKENS, temperature=1.0, seed=seed + index, eos_ids=tokenizer.eos_ids)
        lengths.append(len(drawn))
        ended += drawn[-1] in tokenizer.eos_ids
        if progress:
            progress(index + 1, len(prompts))
    p50, p90, p99 = np.percentile(lengths, [50, 90, 99])
    marks = [mark for kind in right.values() for mark in kind]
    return Evaluation(
        prompts=len(prompts),
        accuracy=sum(marks) / max(1, len(marks)),
        accuracy_by_kind={kind: sum(kind_marks) / len(kind_marks) for kind, kind_marks in right.items()},
        ended=ended / len(prompts),
        length_mean=float(np.mean(lengths)),
        length_p50=float(p50),
        length_p90=float(p90),
        length_p99=float(p99),
        length_max=max(lengths),
        explained_variance=explained_variance(
            [sample.kind for sample in prompts], [sample.argument for sample in prompts], lengths
        ),
        wrong=wrong,
    )
