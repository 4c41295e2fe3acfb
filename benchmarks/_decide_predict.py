"""Maps of prediction: what every predictor knows of course-tiny's lengths and costs, and what that buys in a burst."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks._maps import Cell, Maker, Map, Row
from llmcourse.engine import Engine, Policy, Request, SamplingParams
from llmcourse.policies import FCFS, SJF, LearningToRank
from llmcourse.predict import (
    MLP,
    BucketClassifier,
    Constant,
    LengthData,
    ListMLE,
    Noisy,
    Oracle,
    Ordinal,
    PairwiseRanker,
    Predictor,
    Probe,
    Ridge,
    annotate,
    kendall_tau,
    noise_ceiling,
    score,
    timed,
)
from llmcourse.predict.accuracy_or_order import accuracy_or_order
from llmcourse.predict.classify import quantile_cuts

# ---- what they know, and what it costs ---------------------------------------------------------------------------


def made(seed: int, quick: bool) -> dict[str, Predictor]:
    """Every predictor that needs nothing beside the course, by the name it has in the table."""
    steps = {"steps": 60} if quick else {}
    tens = range(10, 520, 10)
    return {
        "constant": Constant(), "ridge": Ridge(), "ridge, bag of words": Ridge(bag=True),
        "mlp": MLP(seed=seed, **steps), "mlp, noise 0.6": Noisy(MLP(seed=seed, **steps), 0.6, seed),
        "5 classes": BucketClassifier(seed=seed, **steps),
        "classes of 10 tokens": BucketClassifier(tens, seed=seed, **steps), "ordinal": Ordinal(seed=seed, **steps),
        "pairwise": PairwiseRanker(seed=seed, **steps), "listmle": ListMLE(seed=seed, **steps),
        "listmle, group 1": ListMLE(1, seed=seed, **steps),
    } | ({} if quick else {"probe": Probe(seed=seed)})


def left_error(predictor: Predictor, test: LengthData) -> float:
    """Mean error in what remains, over all tokens of the first answers: from the first guess, or looking on."""
    errors: list[float] = []
    first = predictor.predict(test.prompts)
    for guess, prompt, answer in zip(first, test.tokens, test.answers, strict=True):
        so_far = np.arange(len(answer))
        said = predictor.track(prompt, answer[:-1]) if isinstance(predictor, Probe) else np.maximum(guess - so_far, 1)
        errors += np.abs(said - (len(answer) - so_far)).tolist()
    return float(np.mean(errors))


def predictors(seeds: Sequence[int], quick: bool) -> Map:
    """Error, order and cost of each, on prompts held out by the seed."""
    data = LengthData.load()
    found: dict[str, list[dict[str, float | None]]] = {}
    for seed in seeds:
        train, test = data.split(seed=seed)
        cuts, ceiling = quantile_cuts(train.lengths), noise_ceiling(test.lengths)
        for name, predictor in made(seed, quick).items():
            started = time.process_time()
            predictor.fit(train)
            seconds = time.process_time() - started
            got = score(predictor, test, cuts)
            found.setdefault(name, []).append({
                "tau": got.tau, "MAE (tokens)": got.mae, "5-class accuracy": got.accuracy,
                "MAE of what is left": None if predictor.is_ranker else left_error(predictor, test),
                "CPU ms a request": 1e3 * timed(predictor, test.prompts[:50], time.process_time),
                "training (CPU s)": seconds})
        found.setdefault("the other answers", []).append(
            {"tau": ceiling.tau, "MAE (tokens)": ceiling.mae, "5-class accuracy": None, "MAE of what is left": None,
             "CPU ms a request": None, "training (CPU s)": None})
    rows: list[Row] = [{"predictor": name, **{key: _cell([run[key] for run in runs]) for key in runs[0]}}
                       for name, runs in found.items()]
    best = {row["predictor"]: row["tau"].mean for row in rows}
    return Map(f"Predictors of length on course-tiny: {len(data)} prompts, {data.samples} answers each at temperature "
               "1, a quarter of the prompts held out",
               "The last row guesses each answer from the others to the same prompt: about the best that can be had. "
               "A ranker gives only an order. What is left: over all tokens of answers, from the first guess, by the "
               "probe from the newest hidden state; its cost is a forward pass an engine has anyway. Times are CPU "
               "time of this machine.",
               list(rows[0]), rows, {"tau of the ListMLE ranker is at least 0.6": best["listmle"] >= 0.6,
                                     "slowest training (CPU s)": max(row["training (CPU s)"].mean for row in rows
                                                                     if row["training (CPU s)"])})


def _cell(values: Sequence[float | None]) -> Cell | None:
    numbers = [value for value in values if value is not None]
    return Cell.of(numbers) if len(numbers) == len(values) else None


# ---- a burst on the real model -----------------------------------------------------------------------------------

SLOTS = 6
SAMPLING = SamplingParams(max_tokens=512, temperature=1.0)


def served(requests: Sequence[Request], policy: Policy) -> tuple[Engine, dict[str, int]]:
    """All of them at once on course-tiny; in which step each ended, from 1."""
    engine = Engine.from_model("course-tiny", policy=policy, num_blocks=512, max_running=SLOTS, device="cpu",
                               threads=1)
    for request in requests:
        engine.add(request)
    ends: dict[str, int] = {}
    steps = 0
    while not engine.idle:
        engine.step()
        steps += 1
        ends |= {request.id: steps for request in engine.take_ended()}
    return engine, ends


def burst(seeds: Sequence[int], quick: bool) -> Map:
    """Mean completion of held-out prompts that come at once: policies that know nothing, something, everything."""
    count, changed = (24 if quick else 160), 0
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        train, test = LengthData.load().split(seed=seed)
        rows = random.Random(seed).sample(range(len(test)), count)
        prompts = [test.prompts[row] for row in rows]
        ranker, mlp = ListMLE(seed=seed).fit(train), MLP(seed=seed).fit(train)

        def ask(chosen: list[int] = rows, tokens: list[list[int]] = test.tokens, seed: int = seed) -> list[Request]:
            return [Request(tokens[row], replace(SAMPLING, seed=10**6 * (seed + 1) + place), f"q{place}")
                    for place, row in enumerate(chosen)]

        first = ask()
        engine, ends = served(first, FCFS())
        truth = [request.num_output for request in first]
        oracle = Oracle(dict(zip(prompts, truth, strict=True)))
        worlds: dict[str, tuple[Predictor, Callable[[], Policy]]] = {
            "sjf, mlp": (mlp, SJF), "sjf, ranker": (ranker, SJF), "ltr, ranker": (ranker, LearningToRank),
            "sjf, oracle": (oracle, SJF)}
        found.setdefault("fcfs", []).append(_seen(engine, ends, 0.0, 0.0))
        for name, (predictor, policy) in worlds.items():
            requests = ask()
            cost = annotate(requests, predictor)
            tau = kendall_tau(truth, [request.predicted for request in requests])
            found.setdefault(name, []).append(_seen(*served(requests, policy()), tau, cost))
            changed += sum(one.num_output != tokens for one, tokens in zip(requests, truth, strict=True))
    table: list[Row] = []
    for name, runs in found.items():
        against = [run["JCT (steps)"] / base["JCT (steps)"] - 1 for run, base in zip(runs, found["fcfs"], strict=True)]
        table.append({"policy": name, "JCT to FCFS": Cell.of(against),
                      **{key: Cell.of([run[key] for run in runs]) for key in runs[0]}})
    change = {row["policy"]: row["JCT to FCFS"].mean for row in table}
    return Map(f"A burst of {count} held-out prompts on course-tiny itself, {SLOTS} at a time, temperature 1, CPU",
               "Time in steps of the engine does not depend on the machine; seconds stand beside it and contain what "
               "else the machine was doing. Every policy serves the same requests with the same seeds. Predicting, of "
               "all prompts at once, has its own column. In the last steps there are fewer requests than slots, so "
               "tokens a step differ by who is left for the end.",
               list(table[0]), table,
               {"share of the oracle's gain that the ranker has": change["sjf, ranker"] / change["sjf, oracle"],
                "answers of another length than under FCFS": changed})


def _seen(engine: Engine, ends: dict[str, int], tau: float, cost: float) -> dict[str, float]:
    seconds, tokens = engine.table()["e2e"], engine.table()["output_tokens"].sum()
    steps = np.array(list(ends.values()))
    return {"JCT (steps)": float(steps.mean()), "p99 (steps)": float(np.percentile(steps, 99)), "tau": tau,
            "JCT (s)": float(seconds.mean()), "predicting (ms)": 1e3 * cost, "tokens/step": tokens / steps.max(),
            "tokens/s": tokens / float(seconds.max()), "preemptions": float(engine.counters.preemptions)}


# ---- accuracy or order -------------------------------------------------------------------------------------------

def order(seeds: Sequence[int], quick: bool) -> Map:
    """Classifiers of several bucket widths: accuracy, tau, and mean time of a request when the shortest go first."""
    rows: list[Row] = []
    loads, count = ((1.2,), 300) if quick else ((0.9, 1.0, 1.2), 1000)
    better = []
    for load in loads:
        runs = [accuracy_or_order(SJF, count=count, load=load, seed=seed) for seed in seeds]
        for same in zip(*runs, strict=True):
            gains = [one.mean_jct / run[0].mean_jct - 1 for one, run in zip(same, runs, strict=True)]
            width = same[0].width
            name = "fcfs" if width is None else f"sjf, buckets of {width}" if width else "sjf, oracle"
            rows.append({"policy": name, "load": load, "accuracy": _cell([one.accuracy for one in same]),
                         "tau": _cell([one.tau for one in same]), "JCT (s)": Cell.of([one.mean_jct for one in same]),
                         "JCT to FCFS": Cell.of(gains),
                         "tokens/s": Cell.of([one.tokens_per_second for one in same])})
        narrow, wide = rows[-len(runs[0]) + 1], rows[-2]
        better.append(narrow["JCT to FCFS"].mean <= wide["JCT to FCFS"].mean)
    return Map("Accuracy or order: classifiers with buckets of several widths, lengths lognormal (median 120, "
               "sigma 1, at most 8,192), 32 slots, simulated",
               "All have the same knowledge of a length and learn which bucket is likeliest. The wider the buckets the "
               "higher the accuracy; tau falls with wide ones. Tokens/s are counted up to the last arrival.",
               list(rows[0]), rows, {"narrow buckets buy at least as much as wide ones, at each load": all(better)})


MAPS: dict[str, Maker] = {"predictors": predictors, "burst": burst, "accuracy-or-order": order}
