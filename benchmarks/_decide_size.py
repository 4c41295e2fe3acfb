"""Maps of going by size: what shortest-first is worth over load, how right it must be told, and how often.

Lengths are like LMSYS-Chat-1M's, not taken from it: log-normal with a median of 100 tokens and sigma 1.1, cut at 1,024,
which gives a mean of about 170 (the reference has 177). Sigma is what makes log-normal errors of 0.3, 0.6 and 1.0 cost
about as much of Kendall's tau as they do there. Prompts have 60 tokens, 32 requests run at once, a step takes
12 ms + 0.2 ms for each of them + 0.06 ms for each token of a prompt, arrivals are Poisson. Lengths are hidden: every
request asks for 1,024 tokens. "tokens/s" counts up to the last arrival, before the machine runs empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from benchmarks._maps import Cell, Maker, Map, Row
from llmcourse.engine import Engine, Policy, replay
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.summary import summary
from llmcourse.policies import FCFS, ISRTF, SJF, SRTF, SSJF, LearningToRank, LimitedPreemption
from llmcourse.predict import LognormalNoise, kendall_tau, realistic, with_predictions
from llmcourse.workload import Arrival, Constant, Lengths, Lognormal, Poisson, open_loop

LONGEST, SLOTS = 1024, 32
BODY = Lognormal(100, sigma=1.1)
LOADS = (0.7, 0.9, 1.0, 1.2)
FREE: dict[str, Any] = {"parking": True, "num_blocks": 200_000}       # a displaced request keeps its KV: memory for all
Figures = dict[str, float]


@dataclass(frozen=True)
class Chat(Lengths):
    """Lengths of answers in a chat, in tokens."""

    def quantile(self, u: ArrayLike) -> np.ndarray:
        """The log-normal, cut."""
        return np.minimum(BODY.quantile(u), LONGEST)


class PerRequest:
    """A step costs something by itself, for everybody in it, and for every token of a prompt."""

    def seconds(self, tokens, requests, context, pairs):  # type: ignore[no-untyped-def]
        """Seconds of a step; the context costs nothing, so that order alone makes no step faster."""
        return 0.012 + 0.0002 * requests + 0.00006 * (tokens - requests) + 0 * context


@cache
def saturation() -> float:
    """Requests/s that first come, first served delivers while somebody always waits."""
    engine = Engine.simulated(cost=PerRequest(), policy=FCFS(), max_running=SLOTS, ledger=Ledger(), **FREE)
    work = [replace(a, time=0.0) for a in open_loop(Poisson(1.0), Constant(60), Chat(), 4000, seed=99)]
    replay(engine, work, declared=LONGEST, stop=lambda: bool(engine.requests) and not engine.scheduler.waiting)
    return float(engine.table()["output_tokens"].sum() / engine.clock.now / np.mean([a.output_tokens for a in work]))


@cache
def workload(load: float, count: int, seed: int) -> tuple[Arrival, ...]:
    """Arrivals at so much of the saturation."""
    return tuple(open_loop(Poisson(load * saturation()), Constant(60), Chat(), count, seed=seed))


def serve(policy: Policy, work: Sequence[Arrival], **options: Any) -> tuple[Figures, Engine]:
    """What everybody lived through, and the engine."""
    engine = Engine.simulated(cost=PerRequest(), policy=policy, max_running=SLOTS, ledger=Ledger(), **(FREE | options))
    rates: list[float] = []

    def at_the_last_arrival(ended: int) -> None:
        if not rates and engine.clock.now >= work[-1].time:
            rates.append(float(engine.table()["output_tokens"].sum() / engine.clock.now))
    lived = summary(replay(engine, work, declared=LONGEST, progress=at_the_last_arrival))
    assert lived.finished == len(work)
    return {"JCT mean": lived.e2e.mean, "p50": lived.e2e.p50, "p99": lived.e2e.p99, "TTFT mean": lived.ttft.mean,
            "s/token": lived.normalised.mean, "tokens/s": rates[0]}, engine


@cache
def baseline(load: float, count: int, seed: int) -> Figures:
    """First come, first served."""
    return serve(FCFS(), workload(load, count, seed))[0]


def told(source: str, work: Sequence[Arrival], seed: int) -> list[Arrival]:
    """The arrivals with predictions: "oracle", "5 classes", or a log-normal error, "sigma 0.6"."""
    guess = realistic() if source == "5 classes" else LognormalNoise(float(source.partition("sigma ")[2] or 0))
    return with_predictions(work, guess, seed + 1000)


def tau(work: Sequence[Arrival]) -> float:
    """Kendall's tau between what was predicted and what came."""
    return kendall_tau([a.output_tokens for a in work], [a.predicted for a in work])


def against(base: Figures, made: Figures) -> Figures:
    """Changes in per cent, and the mean s/token as so many times less."""
    change = {f"{name} %": 100 * (made[name] / base[name] - 1) for name in ("JCT mean", "p50", "p99", "TTFT mean",
                                                                           "tokens/s")}
    return {"JCT mean (s)": made["JCT mean"], **change, "s/token, times less": base["s/token"] / made["s/token"]}


def cells(runs: Sequence[Figures]) -> Row:
    """Mean and spread of each figure over the seeds."""
    return {name: Cell.of([run[name] for run in runs]) for name in runs[0]}


# ---- the family over load ----------------------------------------------------------------------------------------

FAMILY: dict[str, tuple[Callable[[], Policy], str]] = {
    "fcfs": (FCFS, "oracle"), "sjf": (SJF, "oracle"), "ssjf": (SSJF, "5 classes"),
    "isrtf 50": (ISRTF, "oracle"), "srtf": (SRTF, "oracle"), "trail 0.8": (LimitedPreemption, "5 classes"),
    "ltr": (LearningToRank, "sigma 0.8")}


def family(seeds: Sequence[int], quick: bool) -> Map:
    """What each policy of the family changes against first come, first served."""
    count, rows = 400 if quick else 3000, []
    for load in LOADS[1:3] if quick else LOADS:
        for name, (make, source) in FAMILY.items():
            runs = []
            for seed in seeds:
                work = told(source, workload(load, count, seed), seed)
                base = baseline(load, count, seed)
                made = base if name == "fcfs" else serve(make(), work)[0]
                runs.append(({} if name == "fcfs" else {"tau": tau(work)}) | against(base, made))
            rows.append({"load": load, "policy": name, "told": None if name == "fcfs" else source, **cells(runs)})
    worst = max(abs(row["tokens/s %"].mean) for row in rows)
    columns = ["load", "policy", "told", "tau", *against(baseline(LOADS[1], count, seeds[0]),
                                                       baseline(LOADS[1], count, seeds[0]))]
    return Map(f"Going by size over load: {count} requests, changes against FCFS; load 1.0 is {saturation():.3g} "
               "requests/s, what FCFS delivers with a queue", "Who is pushed out keeps its KV. Below saturation nobody "
               "waits, so there is nothing to reorder; past it the mean falls, p99 pays, and tokens/s stay: order "
               "decides who waits, not how much is done. s/token weights short answers heavily.",
               columns, rows, {"tokens/s differ from FCFS by at most (%)": worst})


# ---- how right ---------------------------------------------------------------------------------------------------

def error(seeds: Sequence[int], quick: bool) -> Map:
    """What an error of the prediction costs, by its sigma and by Kendall's tau."""
    count, load, rows = 400 if quick else 1500, 1.0, []
    sources = ["oracle", *(f"sigma {s}" for s in ((0.6,) if quick else (0.3, 0.6, 1.0, 2.0))), "5 classes"]
    policies: dict[str, Callable[[], Policy]] = {"SJF": SJF, "ISRTF-50": ISRTF}
    for source in sources:
        runs = []
        for seed in seeds:
            base, work = baseline(load, count, seed), told(source, workload(load, count, seed), seed)
            made = {name: against(base, serve(make(), work)[0]) for name, make in policies.items()}
            runs.append({"tau": tau(work)} | {f"{name}, {what}": figures[what] for what in ("JCT mean %", "tokens/s %")
                                              for name, figures in made.items()})
        rows.append({"told": source, **cells(runs)})
    return Map(f"Errors at load 1.0: {count} requests, changes against FCFS",
               "A factor of two (sigma 0.6) costs little: the order is what counts. But tau does not say it all: five "
               "classes, which know no order inside a class, win less than numbers of the same tau.",
               list(rows[0]), rows)


# ---- how often ---------------------------------------------------------------------------------------------------

KV = {"recompute": {"preemption": "recompute"}, "swap": {"preemption": "swap"}, "parking": {"parking": True}}
WINDOWS = (1, 10, 50, 200)


def window(seeds: Sequence[int], quick: bool) -> Map:
    """How often to predict again, by what becomes of the KV of whoever is pushed out."""
    count, load, rows = 400 if quick else 1500, 1.0, []
    for kv, options in KV.items():
        for size in WINDOWS[1:3] if quick else WINDOWS:
            runs = []
            for seed in seeds:
                work, policy = told("oracle", workload(load, count, seed), seed), ISRTF(size)
                made, engine = serve(policy, work, **({"parking": False, "num_blocks": None} | options))
                counters = engine.counters
                figures = against(baseline(load, count, seed), made)
                runs.append({name: figures[name] for name in ("JCT mean (s)", "JCT mean %", "p99 %", "TTFT mean %",
                                                              "tokens/s %")} | {
                    "pushed out per request": counters.preemptions / count,
                    "recomputed %": 100 * counters.recomputed_tokens / counters.computed_tokens,
                    "predictions per request": 1 + policy.repredictions / count})
            rows.append({"KV": kv, "window": size, **cells(runs)})
    best = {kv: min((row for row in rows if row["KV"] == kv), key=lambda row: row["JCT mean (s)"].mean)["window"]
            for kv in KV}
    return Map(f"ISRTF's window at load 1.0: {count} requests, exact predictions, changes against FCFS; memory and "
               "link of Llama 2 7B on an A100 80 GB over PCIe 4",
               "A short window reacts sooner. Inside a window nobody is pushed out, so whoever stands at its end gives "
               "way, not whoever has most left: windows of a few tokens push out more often than SRTF does. Where that "
               "costs KV, the longest window is best; where KV stays, any will do. Predicting is not charged: multiply "
               "by what yours takes.",
               list(rows[0]), rows, {f"best window, {kv}": found for kv, found in best.items()})


MAPS: dict[str, Maker] = {"size": family, "error": error, "window": window}
