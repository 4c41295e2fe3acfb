"""Slowdown: how many times longer than alone on the machine a request took.

Seconds punish long answers: a story takes longer than a yes whatever the scheduler does. Divided by the time the same
request needs on an empty machine, what is left is what sharing cost it, so short and long requests can be compared
(and short ones stuck behind long ones stand out). A slowdown below 1 cannot be. Week 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmcourse.errors import UserError
from llmcourse.metrics.table import Table

if TYPE_CHECKING:
    from llmcourse.metrics.cost_model import CostModel


def slowdown(table: Table, alone: Table | Sequence[float] | np.ndarray) -> np.ndarray:
    """End-to-end over end-to-end alone (rows,); NaN for a request that did not finish.

    ``alone`` are seconds (rows,), or a table that holds each of the requests (by id) served on an empty machine.
    """
    seconds = _by_id(table, alone) if isinstance(alone, Table) else np.asarray(alone, dtype=float)
    if seconds.shape != (len(table),):
        raise UserError(f"{len(table)} requests came with {seconds.size} times alone; give one each")
    if (seconds <= 0).any():
        raise UserError("a time alone must be above 0 s; a request of one step takes that step")
    return np.where(table.finished, table["e2e"], np.nan) / seconds


def alone_seconds(table: Table, cost: CostModel, token_budget: int | None = None) -> np.ndarray:
    """Seconds (rows,) that each request's prompt and output take by a cost model on an empty machine.

    The prompt is computed at once, or in chunks of ``token_budget``; then one token a step.
    """
    prompts, outputs = table["prompt_tokens"], np.maximum(table["output_tokens"], 1)
    lengths, which = np.unique(prompts, return_inverse=True)
    prefill = np.array([_prefill(int(length), cost, token_budget) for length in lengths])
    longest = int((prompts + outputs).max(initial=1))
    steps = np.asarray(cost.seconds(1, 1, np.arange(longest, dtype=float), 0.0)) * np.ones(longest)
    until = np.concatenate([[0.0], np.cumsum(steps)])       # until[c]: decode steps behind 0 … c-1 kept tokens
    return prefill[which] + until[prompts + outputs - 1] - until[prompts]


def _prefill(prompt: int, cost: CostModel, token_budget: int | None) -> float:
    """Seconds of the steps that compute a prompt."""
    seconds, start = 0.0, 0
    while start < prompt:
        count = min(prompt - start, token_budget or prompt)
        pairs = count * start + count * (count + 1) / 2 if count > 1 else 0.0
        seconds += float(cost.seconds(count, 1, float(start), pairs))
        start += count
    return seconds


def _by_id(table: Table, alone: Table) -> np.ndarray:
    found = dict(zip(alone["id"], alone["e2e"], strict=True))
    missing = [str(name) for name in table["id"] if name not in found]
    if missing:
        raise UserError(f"{len(missing)} requests were not served alone, {missing[0]!r} first; "
                        "serve the same workload with the same ids")
    return np.array([found[name] for name in table["id"]], dtype=float)
