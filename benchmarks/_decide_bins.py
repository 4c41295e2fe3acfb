"""Maps of what a guess does for older engines: like with like in a closed batch, and memory reserved by prediction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from benchmarks._decide_size import LONGEST, Chat, cells, told
from benchmarks._maps import Maker, Map
from llmcourse.engine import Engine, Policy, Request, SamplingParams, replay
from llmcourse.engine.admission import Admission
from llmcourse.kv import BlockPool, ContiguousPool, Memory
from llmcourse.metrics.cost_model import blocks_that_fit
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.ledger import Ledger
from llmcourse.model.shapes import shape
from llmcourse.policies import FCFS, S3, MultiBin
from llmcourse.policies.multibin import batch_time, bin_edges
from llmcourse.workload import Arrival

Figures = dict[str, float]

# ---- bins --------------------------------------------------------------------------------------------------------

BATCH, BINS = 32, (1, 2, 4, 8)
SHORT, LONG = 10, 500                                    # uniform lengths lie between them
STEP = 0.0184                                            # s: 12 ms and 0.2 ms for each of 32, padded to the end


class PerStep:
    """Every step takes the same, whoever is in it: a closed batch is computed in full until its longest has ended."""

    def seconds(self, tokens, requests, context, pairs):  # type: ignore[no-untyped-def]
        """Seconds of a step."""
        return STEP + 0 * context


class _Ready(Policy):
    """The batches of `MultiBin`, formed before the doors open: full ones only, so keys never change."""

    def __init__(self, work: Sequence[Arrival], edges: Sequence[float]) -> None:
        bins = MultiBin(edges, BATCH)
        made = [Request([1], SamplingParams(LONGEST), f"r{n}", 0.0, predicted=a.predicted) for n, a in enumerate(work)]
        for request in made:
            bins.on_queued(request, 0.0)
        keys = [bins.key(request, 0.0) for request in made]
        self.work = [arrival for arrival, (begun, _) in zip(work, keys, strict=True) if not begun]
        self._turns = [turn for begun, turn in keys if not begun]
        self._turn: dict[str, int] = {}

    def on_queued(self, request: Request, now: float) -> None:
        self._turn[request.id] = self._turns[len(self._turn)]

    def key(self, request: Request, now: float) -> int:
        return self._turn[request.id]


def bins(seeds: Sequence[int], quick: bool) -> Map:
    """Tokens/s over one bin, by the number of bins, for lengths that are known better or worse."""
    count, rows = 1024 if quick else 2048, []
    cases = [("uniform", "oracle", "static"), ("chat", "oracle", "static"),
             *(("chat", source, "static") for source in ("sigma 0.3", "sigma 0.6", "sigma 1.0", "5 classes")),
             ("chat", "oracle", "continuous")]
    for lengths, source, batching in cases:
        runs: dict[int, list[Figures]] = {number: [] for number in BINS}
        for seed in seeds:
            work = told(source, _at_once(lengths, count, seed), seed)
            base = None
            for number in BINS:
                rate = _rate(work, number, batching)
                base = base or rate
                runs[number].append({"tokens/s": rate, "over 1 bin": rate / base})
        rows += [{"lengths": lengths, "told": source, "batching": batching, "bins": number, **cells(runs[number]),
                  "closed form": _gain(number) if lengths == "uniform" else None} for number in BINS]
    off = max(abs(row["over 1 bin"].mean / row["closed form"] - 1) for row in rows if row["closed form"])
    return Map(f"Bins for batches of {BATCH}: {count} requests there at once, every step {STEP * 1000:g} ms; uniform "
               f"lengths of {SHORT}-{LONG} tokens, or as in a chat", "A closed batch lasts as long as its longest "
               "answer, so one that is binned wrong spoils a batch. Where requests leave when they have ended there is "
               "nothing to win.", list(rows[0]), rows, {"closed form is off by at most (%)": 100 * off})


def _gain(number: int) -> float:
    return batch_time(SHORT, LONG, 1, BATCH) / batch_time(SHORT, LONG, number, BATCH)


@cache
def _at_once(lengths: str, count: int, seed: int) -> tuple[Arrival, ...]:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(SHORT, LONG + 1, count) if lengths == "uniform" else Chat().sample(rng, count)
    return tuple(Arrival(0.0, 60, int(tokens)) for tokens in drawn)


class _Together(Admission):
    def __init__(self, policy: _Ready) -> None:
        self.policy = policy

    def hold(self, request: Request, scheduler: Any, now: float) -> bool:
        return bool(scheduler.running) and self.policy.key(request, 0) != self.policy.key(scheduler.running[0], 0)


def _rate(work: Sequence[Arrival], number: int, batching: str) -> float:
    """Output tokens/s until nobody waits any more (the last closed batch runs to its end)."""
    policy = _Ready(work, bin_edges([a.predicted or 0 for a in work], number))
    closed = batching == "static"
    engine = Engine.simulated(cost=PerStep(), policy=policy, batching=batching, max_running=BATCH, num_blocks=10**5,
                              token_budget=BATCH * LONGEST, admission=_Together(policy) if closed else None,
                              ledger=Ledger())
    replay(engine, policy.work, declared=LONGEST,
           stop=lambda: not closed and bool(engine.requests) and not engine.scheduler.waiting)
    return float(engine.table()["output_tokens"].sum() / engine.clock.now)


# ---- reservations ------------------------------------------------------------------------------------------------

MODEL, GPU, BLOCK, MOST, FEW = "Llama 2 13B", "A100 80 GB", 16, 2048, 128


def reservation(seeds: Sequence[int], quick: bool) -> Map:
    """Tokens/s and what is thrown away, for memory reserved by the maximum, by a guess, by the truth, and paged."""
    count, rows = 800 if quick else 3000, []
    cases = {"maximum reserved": None, "S3, 5 classes": "5 classes", "S3, sigma 0.3": "sigma 0.3",
             "S3, sigma 0.6": "sigma 0.6", "S3, sigma 1.0": "sigma 1.0", "S3, oracle": "oracle", "paged": None,
             f"paged, {FEW} at once": None}
    runs: dict[str, list[Figures]] = {name: [] for name in cases}
    for seed in seeds:
        for name, source in cases.items():
            work = _at_once("chat", count, seed)
            runs[name].append(_reserved(name, told(source, work, seed) if source else list(work)))
        first = runs["maximum reserved"][-1]["tokens/s"]
        for name in cases:
            runs[name][-1]["over maximum"] = runs[name][-1]["tokens/s"] / first
    rows = [{"memory": name, **cells(runs[name])} for name in cases]
    return Map(f"KV memory reserved by prediction: {count} requests of a chat there at once, {MODEL} on an {GPU}, "
               f"at most {MOST} tokens each, buckets of 64, contiguous first fit beside paging",
               "A guess too small ends in an overrun, which computes everything again; a guess too large only wastes. "
               "Paging needs no guess, but lets in whoever's prompt fits and throws out when the answers grow: a limit "
               "to the batch does more for it than any prediction for a reservation.",
               list(rows[0]), rows)


def _reserved(name: str, work: Sequence[Arrival]) -> Figures:
    """Until nobody waits any more."""
    blocks = blocks_that_fit(hardware(GPU), shape(MODEL), BLOCK)
    policy: Policy = S3() if name.startswith("S3") else FCFS()
    pool: Memory = BlockPool(blocks, BLOCK)
    if isinstance(policy, S3):
        pool = policy.pool(blocks, BLOCK)
    elif name == "maximum reserved":
        pool = ContiguousPool(blocks, BLOCK, "max", max_length=MOST)
    engine = Engine.simulated(MODEL, GPU, policy=policy, block_pool=pool, token_budget=1024,
                              max_running=FEW if name.endswith("at once") else 512,
                              admission=policy.admission() if isinstance(policy, S3) else None, ledger=Ledger())
    seen = [0.0, 0.0, 0.0]                               # time, and running requests times it

    def watch(ended: int) -> None:
        now = engine.clock.now
        seen[2] += (now - seen[0]) * seen[1]
        seen[0], seen[1] = now, float(len(engine.scheduler.running))
    replay(engine, work, declared=MOST - 60, progress=watch,
           stop=lambda: bool(engine.requests) and not engine.scheduler.waiting)
    counters = engine.counters
    return {"tokens/s": float(engine.table()["output_tokens"].sum() / engine.clock.now),
            "running": seen[2] / engine.clock.now, "thrown out per 100": 100 * counters.preemptions / len(work),
            "recomputed %": 100 * counters.recomputed_tokens / counters.computed_tokens}


MAPS: dict[str, Maker] = {"bins": bins, "reservation": reservation}
