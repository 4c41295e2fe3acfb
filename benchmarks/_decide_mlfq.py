"""Maps of FastServe: a feedback queue that knows no length, what its bound on starvation costs, and where KV waits.

Llama 2 7B on an A100, 16 requests at once as in the sheet of FastServe's own figures, prompts log-normal of mean 160,
answers of mean 180 with a heavy tail (deviation 270), Poisson arrivals at so much of what first come, first served
delivers while somebody always waits. The second map has an A10 with little memory. "tokens/s" counts to the last end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from benchmarks._maps import Cell, Maker, Map, Row
from llmcourse.engine import Engine, Policy, replay
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.summary import summary
from llmcourse.policies import FCFS, SRTF, FastServe, RoundRobin
from llmcourse.workload import Arrival, Lognormal, Poisson, open_loop, with_oracle

MEAN = 180                               # output tokens
PROMPTS, OUTPUTS = Lognormal.of_moments(160, 160), Lognormal.of_moments(MEAN, 270)
LOADS = (0.7, 0.9, 1.0, 1.2)
BIG: dict[str, Any] = {"max_running": 16, "preemption": "swap", "parking": True}
SMALL: dict[str, Any] = {"gpu": "A10", "num_blocks": 400, "max_running": 16}
QUEUES: dict[str, Callable[[], Policy]] = {
    "fcfs": FCFS, "mlfq, 3 s": FastServe, "mlfq, 10 s": lambda: FastServe(starve_after=10),
    "mlfq, no bound": lambda: FastServe(starve_after=None), "mlfq, no skip": lambda: FastServe(skip_join=False),
    "round robin 64": lambda: RoundRobin(64), "srtf, oracle": SRTF}
PLACES: dict[str, dict[str, Any]] = {
    "computed again": {}, "swapped": {"preemption": "swap", "host_blocks": 20_000},
    "parked": {"parking": True}, "parked, swapped late": {"preemption": "swap", "host_blocks": 20_000, "parking": True},
    "parked, swapped ahead": {"preemption": "swap", "host_blocks": 20_000, "parking": True, "spare": 60}}


def serve(policy: Policy, work: Sequence[Arrival], **options: Any) -> tuple[dict[str, float], Engine]:
    """What everybody lived through."""
    engine = Engine.simulated(policy=policy, ledger=Ledger(), **options)
    lived = summary(replay(engine, work))
    counters = engine.counters
    return {"s/token": lived.normalised.mean, "TTFT mean (s)": lived.ttft.mean, "JCT mean (s)": lived.e2e.mean,
            "JCT p99 (s)": lived.e2e.p99, "tokens/s": lived.output_rate, "preempted": counters.preemptions,
            "recomputed": counters.recomputed_tokens, "blocks moved": counters.swapped_out_blocks}, engine


@cache
def saturation(gpu: str = "A100 80 GB") -> float:
    """Requests/s of first come, first served while somebody always waits."""
    options = BIG if gpu == "A100 80 GB" else SMALL
    engine = Engine.simulated(policy=FCFS(), ledger=Ledger(), **options)
    at_once = [replace(arrival, time=0.0) for arrival in open_loop(Poisson(1), PROMPTS, OUTPUTS, 1500, seed=99)]
    replay(engine, at_once, stop=lambda: bool(engine.requests) and not engine.scheduler.waiting)
    return float(engine.table()["output_tokens"].sum() / engine.clock.now / MEAN)


def queues(seeds: Sequence[int], quick: bool) -> Map:
    """The policies over load."""
    count = 600 if quick else 2000
    found = Map("FastServe: 16 at once, Llama 2 7B on an A100, parked KV; answers of 180 tokens on average",
                "Below saturation nothing happens. Near it the mean time per token falls severalfold and so does TTFT, "
                "though nobody knows a length; the tail pays, and the bound on starvation gives part of the gain back. "
                "Skipping queues changes little where prompts are computed beside others' tokens.",
                ("load", "policy", "s/token", "TTFT mean (s)", "JCT mean (s)", "JCT p99 (s)", "tokens/s", "preempted"))
    for load in (1.0,) if quick else LOADS:
        rate = Poisson(load * saturation())
        work = {seed: with_oracle(open_loop(rate, PROMPTS, OUTPUTS, count, seed)) for seed in seeds}
        for name, make in QUEUES.items():
            runs = [serve(make(), work[seed], **BIG)[0] for seed in seeds]
            found.rows.append({"load": load, "policy": name} | _cells(found, runs))
    fcfs, mlfq = (next(row for row in found.rows if (row["load"], row["policy"]) == (1.0, name))
                  for name in ("fcfs", "mlfq, 3 s"))
    found.verdicts = {"s/token, fcfs to mlfq, load 1.0": fcfs["s/token"].mean / mlfq["s/token"].mean,
                      "JCT p99, mlfq to fcfs, load 1.0": mlfq["JCT p99 (s)"].mean / fcfs["JCT p99 (s)"].mean}
    return found


def places(seeds: Sequence[int], quick: bool) -> Map:
    """Where the KV of who gave way waits, with little memory."""
    count = 300 if quick else 600
    found = Map("Where KV waits under FastServe (no bound): 16 at once, 6,400 token slots, Llama 2 7B on an A10",
                "Seats change hands all the time. To compute again is to pay for each change; to swap, less; parking "
                "pays only when blocks are short. Swapping ahead of time moves more, behind the computing.",
                ("load", "KV of who gave way", "s/token", "TTFT mean (s)", "JCT mean (s)", "JCT p99 (s)", "tokens/s",
                 "preempted", "recomputed", "blocks moved"))
    for load in (1.0,) if quick else (0.8, 1.0, 1.2):
        work = {seed: open_loop(Poisson(load * saturation("A10")), PROMPTS, OUTPUTS, count, seed) for seed in seeds}
        for name, options in PLACES.items():
            runs = [serve(FastServe(starve_after=None), work[seed], **(SMALL | options))[0] for seed in seeds]
            found.rows.append({"load": load, "KV of who gave way": name} | _cells(found, runs))
    return found


def _cells(found: Map, runs: Sequence[dict[str, float]]) -> Row:
    return {column: Cell.of([run[column] for run in runs]) for column in found.columns[2:]}


MAPS: dict[str, Maker] = {"fastserve": queues, "parking": places}
