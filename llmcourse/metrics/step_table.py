"""A cost model out of measured times: Llama 2 70B and BLOOM 176B on real A100 and H100 machines.

Patel et al. (Splitwise, 2024) timed prompts and decode steps on DGX machines; `data/step_times.json` holds medians.
Single prompts, batches of prompts and batches of decodes were timed, never a mixture. So a mixed step is charged as a
decode step of all its requests (the weights are read once), plus what the tokens beyond one for each request add on the
prompt curve. That gives pure steps their measured times and never makes more work cheaper. Week 3.

What the measurements do not say, and what is done about it:

- Between points: straight lines. Below 128 tokens: a line down to the decode step of one request. Beyond the largest
  batch and the longest prompt: the last slope goes on.
- Medians that fall where work grows are pooled with their neighbours until they do not (isotonic regression).
- Attention pairs are not charged apart: on A100s one prompt of 8,192 tokens took as long as 16 of 512, or less.
"""

from __future__ import annotations

import csv
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import geometric_mean, linear_regression, median
from typing import TYPE_CHECKING, Any

from llmcourse.errors import UserError
from llmcourse.metrics.hardware import Hardware, hardware
from llmcourse.model.shapes import plain
from llmcourse.paths import DATA

if TYPE_CHECKING:
    from llmcourse.metrics.cost_model import Numbers

DECODED_PROMPT, DECODED_TOKENS = 512, 128       # the batches of decodes that were timed: prompt and output of each


@dataclass(frozen=True)
class Curve:
    """A rising line through measured points ``(x, seconds)``; beyond the last, the last slope goes on."""

    points: tuple[tuple[float, float], ...]

    @staticmethod
    def through(points: Iterable[tuple[float, float]]) -> Curve:
        """The curve through these points in order of x, pooled where they fall."""
        known = sorted(points)
        return Curve(tuple(zip((x for x, _ in known), _rising([y for _, y in known]), strict=True)))

    def at(self, x: float) -> float:
        """Seconds at x, which is not below the first point."""
        right = min(max(1, bisect_right(self.points, (x, float("inf")))), len(self.points) - 1)
        (x0, y0), (x1, y1) = self.points[right - 1:right + 1]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@dataclass(frozen=True)
class TableCost:
    """Measured step times of one model on ``tensor_parallel`` GPUs of one kind (a `CostModel`).

    ``decode``: seconds of a step of so many decodes with nothing in their caches; ``prompt``: seconds of a pass over so
    many prompt tokens; ``per_context``: seconds for each token that is kept and read.
    """

    model: str
    gpu: str
    tensor_parallel: int
    decode: Curve
    prompt: Curve
    per_context: float

    @classmethod
    def of(cls, model: str, gpu: str, tensor_parallel: int = 8) -> TableCost:
        """The table of a model on GPUs of a kind, or UserError naming what was measured."""
        for run in _table():
            asked = plain(model), plain(gpu), tensor_parallel
            if (plain(run["model"]), plain(run["gpu"]), run["tensor_parallel"]) == asked:
                return _cost(run)
        there = ", ".join(f"{run['model']} on {run['tensor_parallel']} x {run['gpu']}" for run in _table())
        raise UserError(f"nobody measured {model} on {tensor_parallel} x {gpu}; there is {there}")

    @property
    def hardware(self) -> Hardware:
        """All GPUs of the table together, to ask what fits into their memory."""
        return hardware(self.gpu).together(self.tensor_parallel)

    def seconds(self, tokens: int, requests: int, context: Numbers, pairs: Numbers) -> Numbers:
        """Seconds of one step (see `CostModel.seconds`); ``pairs`` changes nothing."""
        extra = self.prompt.at(1 + tokens - requests) - self.prompt.at(1)
        return (self.decode.at(requests) + extra) + self.per_context * context + 0.0 * pairs     # pairs give the shape


@cache
def _table() -> list[dict[str, Any]]:
    return json.loads((DATA / "step_times.json").read_text(encoding="utf-8"))["runs"]


def _cost(run: dict[str, Any]) -> TableCost:
    """Turn medians into curves. A timed decode had 512 prompt tokens and on average half of its 128 outputs kept."""
    single, batched, decode, reading = (
        {int(x): ms / 1e3 for x, ms in run[name].items()}
        for name in ("prompt_ms", "prompt_batch_ms", "decode_ms", "decode_at_context_ms"))
    per_context = max(0.0, linear_regression(list(reading), list(reading.values())).slope)
    kept = DECODED_PROMPT + DECODED_TOKENS / 2
    empty = Curve.through((requests, seconds - per_context * kept * requests) for requests, seconds in decode.items())
    both = {n: geometric_mean([times[n] for times in (single, batched) if n in times]) for n in single | batched}
    return TableCost(run["model"], run["gpu"], run["tensor_parallel"], empty,
                     Curve.through([(1, empty.at(1)), *both.items()]), per_context)


def _rising(values: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest in squares: whoever falls below a neighbour is averaged with it."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([value])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    return [_mean(pool) for pool in pools for _ in pool]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# ---- the table from its source -----------------------------------------------------------------------------------

MODELS = {"llama2-70b": "Llama 2 70B", "bloom-176b": "BLOOM 176B"}
GPUS = {"a100-80gb": "A100 80 GB", "h100-80gb": "H100 SXM"}
NOTE = ("Medians of measured times in milliseconds. prompt_ms: one prompt of so many tokens; prompt_batch_ms: prompts "
        "of 512 tokens, so many tokens in all; decode_ms: one step of so many decodes (512 prompt tokens and 128 "
        "outputs each); decode_at_context_ms: one decode behind a prompt of so many tokens. Left out: the batch of 64 "
        "on 2 GPUs, said to take a seventh of the batch of 32.")
SOURCE = "Mutinifni/splitwise-sim, data/perf_model.csv, of Patel et al., Splitwise (2024)"


def derive(path: Path) -> dict[str, Any]:
    """The contents of `data/step_times.json` from the original CSV file, without the power-capped runs."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["hardware"] in GPUS]
    kinds = sorted({(row["model"], row["hardware"], int(row["tensor_parallel"])) for row in rows})
    return {"note": NOTE, "source": SOURCE, "licence": "MIT, Copyright (c) 2024 Pratyush Patel", "runs": [
        {"model": MODELS[model], "gpu": GPUS[gpu], "tensor_parallel": degree,
         **_medians([row for row in rows
                     if (row["model"], row["hardware"], int(row["tensor_parallel"])) == (model, gpu, degree)])}
        for model, gpu, degree in kinds]}


def _medians(rows: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    rows = [row for row in rows if int(row["token_size"]) == DECODED_TOKENS]
    single = [row for row in rows if int(row["batch_size"]) == 1]
    batch = [row for row in rows if int(row["prompt_size"]) == DECODED_PROMPT]
    times = _by(batch, "batch_size", "prompt_time")
    # A batch said to take less than half of a smaller one was not computed as a whole.
    kept = [size for size in times if all(times[size] > times[less] / 2 for less in times if less < size)]
    decodes = _by(batch, "batch_size", "token_time")
    return {"prompt_ms": _named(_by(single, "prompt_size", "prompt_time")),
            "prompt_batch_ms": _named({DECODED_PROMPT * size: times[size] for size in kept if size > 1}),
            "decode_ms": _named({size: decodes[size] for size in kept}),
            "decode_at_context_ms": _named(_by(single, "prompt_size", "token_time"))}


def _by(rows: list[dict[str, str]], key: str, value: str) -> dict[int, float]:
    """Median of a column for each value of another, rounded to what five runs can say."""
    return {size: round(median(float(row[value]) for row in rows if int(row[key]) == size), 2)
            for size in sorted({int(row[key]) for row in rows})}


def _named(times: dict[int, float]) -> dict[str, float]:
    return {str(size): ms for size, ms in times.items()}


def write(path: Path) -> None:
    """Make `data/step_times.json` anew from the original CSV file."""
    table = derive(path)
    runs = ",\n".join(json.dumps(run) for run in table.pop("runs"))
    head = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
    (DATA / "step_times.json").write_text(f'{{\n{head},\n"runs": [\n{runs}\n]\n}}\n', encoding="utf-8")
