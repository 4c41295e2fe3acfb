"""Maps of what readers feel and what they were promised: Andes, QLM, and the waiting times it goes by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from benchmarks._decide_fair import MODEL, Figures, rows_of
from benchmarks._maps import Cell, Maker, Map, Row
from llmcourse.engine import Engine, Policy, Request, replay
from llmcourse.metrics.qoe import READING, qoe
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.summary import summary
from llmcourse.metrics.table import Table
from llmcourse.metrics.waiting_time import Group, r_squared, waiting_time
from llmcourse.policies import EDF, FCFS, QLM, Andes, RoundRobin
from llmcourse.workload import SLO, Arrival, Gamma, Lognormal, Poisson, merge, open_loop

Make = Callable[[], Policy]


def _engine(policy: Policy, num_blocks: int, **options: Any) -> Engine:
    return Engine.simulated(MODEL, "A10", policy=policy, num_blocks=num_blocks, **({"max_running": 64} | options))


# ---- readers -----------------------------------------------------------------------------------------------------

PROMPTS, ANSWERS = Lognormal.of_moments(200, 100), Lognormal.of_moments(250, 120)


SCARCE = {"memory": (400, 64), "seats": (900, 16)}    # blocks of KV, requests at once
KEPT: dict[str, dict[str, Any]] = {"recompute": {}, "swap": {"preemption": "swap", "host_blocks": 4000},
                                   "park": {"preemption": "swap", "host_blocks": 4000, "parking": True}}
READERS: dict[str, tuple[Make, str]] = {
    "fcfs, swap": (FCFS, "swap"), "round robin, swap": (lambda: RoundRobin(64), "swap"),
    "round robin, park": (lambda: RoundRobin(64), "park"), "andes, recompute": (Andes, "recompute"),
    "andes, swap": (Andes, "swap"), "andes, park": (Andes, "park")}


def andes(seeds: Sequence[int], quick: bool) -> Map:
    """Mean QoE of a burst under FCFS, round robin and Andes, with memory or seats scarce."""
    count, loads = (60, (2.0,)) if quick else (160, (1.0, 2.0, 4.0))
    rows: list[Row] = []
    for scarce, (num_blocks, seats) in SCARCE.items():
        at_once = [replace(arrival, time=0.0) for arrival in _burst(0, count, 1.0)]
        capacity = summary(replay(_engine(FCFS(), num_blocks, max_running=seats), at_once)).request_rate
        for load in loads:
            def run(option: tuple[Make, str], seed: int, rate: float = load * capacity,
                    num_blocks: int = num_blocks, seats: int = seats) -> Figures:
                engine = _engine(option[0](), num_blocks, max_running=seats, **KEPT[option[1]])
                told = summary(replay(engine, _burst(seed, count, rate)))
                each = list(qoe(engine.events).values())
                return {"mean QoE": fmean(each), "least QoE": min(each), "tokens/s": told.output_rate,
                        "TTFT mean (s)": told.ttft.mean, "TTFT p99 (s)": told.ttft.p99,
                        "preemptions": told.preemptions, "of which parked": engine.counters.parked}
            rows += rows_of(READERS, seeds, run, scarce=scarce, load=load)
    return Map(f"Andes: bursts of {count} requests at 1 to 4 times capacity, readers who wait 1 s and read {READING} "
               f"tokens/s, {MODEL} on an A10; memory scarce: KV for 6,400 tokens, seats scarce: 16 at once",
               "Whoever is far ahead of its reader gives its place to who has nothing to read: more is read in time, "
               "at about the same tokens/s when KV is swapped or parked. Parking leaves the KV of who gives up a seat "
               "where it lies, so it helps where seats are scarce, and changes little where memory is.",
               list(rows[0]), rows)


def _burst(seed: int, count: int, rate: float) -> list[Arrival]:
    return open_loop(Poisson(rate), PROMPTS, ANSWERS, count, seed=seed)


# ---- two service classes -----------------------------------------------------------------------------------------

CHAT, BATCH = SLO(ttft=2.0), SLO(ttft=240.0)


def two_classes(seed: int, rate: float, count: int) -> list[Arrival]:
    """Chats in bursts that must begin within 2 s, and half as many long batch requests that have four minutes."""
    chats = open_loop(Gamma(rate, 3.0), Lognormal.of_moments(200, 150), Lognormal.of_moments(100, 60), count,
                      seed=seed, tenant="chat", slo=CHAT)
    batch = open_loop(Poisson(rate / 2), Lognormal.of_moments(400, 200), Lognormal.of_moments(500, 200), count // 2,
                      seed=seed + 1000, tenant="batch", slo=BATCH)
    return merge(chats, batch)


def qlm(seeds: Sequence[int], quick: bool) -> Map:
    """SLO attainment of two classes under FCFS, EDF and QLM."""
    count, loads = (80, (2.0,)) if quick else (300, (0.5, 1.0, 2.0, 3.0, 4.0))
    made: dict[str, Make] = {"fcfs": FCFS, "edf": lambda: EDF(60), "qlm": QLM}
    rows = []
    for load in loads:
        def run(make: Make, seed: int, load: float = load) -> Figures:
            engine = _engine(make(), 600, preemption="swap", host_blocks=6000)
            table = replay(engine, two_classes(seed, load, count))
            told, chat, batch = summary(table), table.of_tenant("chat"), table.of_tenant("batch")
            return {"within SLO": attainment(table).both, "chat": attainment(chat).both,
                    "batch": attainment(batch).both, "tokens/s": told.output_rate,
                    "TTFT p99 chat (s)": summary(chat).ttft.p99, "e2e mean batch (s)": summary(batch).e2e.mean,
                    "preemptions": told.preemptions}
        rows += rows_of(made, seeds, run, **{"chats/s": load})
    return Map(f"QLM: {count} chats due in 2 s (bursts, cv 3) and {count // 2} batch requests due in 240 s, KV for "
               f"9,600 tokens, swapping, {MODEL} on an A10",
               "EDF lets chats go first, but cannot help while batch requests hold the memory; QLM evicts them when a "
               "group of chats would be late by its estimate, and they end later for it. One model on one instance: "
               "what the paper gains by grouping requests of several models is not in this map.", list(rows[0]), rows)


# ---- waiting times -----------------------------------------------------------------------------------------------

class _Watch(FCFS):
    """What is known when a request arrives: how many wait, what has been learnt of lengths, and of the output rate."""

    def __init__(self) -> None:
        self.waiting, self.tokens, self.seconds, self.last = 0, 0, 0.0, 0.0
        self.ended: list[float] = []
        self.known: dict[str, tuple[int, Group, float]] = {}

    def on_queued(self, request: Request, now: float) -> None:
        """Write down what is known."""
        rate = self.tokens / self.seconds if self.seconds else 0.0
        self.known[request.id] = self.waiting, Group.of(self.ended), rate
        self.waiting += 1

    def on_scheduled(self, request: Request, now: float) -> None:
        """One less."""
        self.waiting -= request.preemptions == 0

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """The rate counts while anybody waits."""
        if self.waiting:
            self.tokens += delivered
            self.seconds += now - self.last
        self.last = now

    def on_done(self, request: Request, now: float) -> None:
        """A length is known."""
        self.ended.append(request.num_output)


BANDS = {"1-9": (1, 10), "10-49": (10, 50), "50 and more": (50, 10 ** 9)}


def rwt(seeds: Sequence[int], quick: bool) -> Map:
    """The waiting-time estimate against what happened, by the number of requests ahead."""
    count, loads = (300, (8.0,)) if quick else (700, (4.0, 8.0))
    rows: list[Row] = []
    for load in loads:
        history, _ = _watched(load, count, seed=1000)         # another day of the same service
        profile = Group.of(history.ended), history.tokens / history.seconds
        found: dict[tuple[str, str], list[Figures]] = {(source, band): [] for source in SOURCES for band in BANDS}
        for seed in seeds:
            watch, table = _watched(load, count, seed)
            waits = dict(zip(table["id"].tolist(), table["queue_time"].tolist(), strict=True))
            for (source, band), told in found.items():
                one = _foretold(watch, waits, *BANDS[band], profile if source == SOURCES[0] else None)
                if one:
                    told.append(one | {"tokens/s": summary(table).output_rate})
        rows += [{"ahead": band, "requests/s": load, "known from": source,
                  **{key: Cell.of([each[key] for each in told]) for key in told[0]}}
                 for (source, band), told in found.items() if told]
    many = {f"{row['known from']}, {row['requests/s']:g}/s": row["R2"] for row in rows if row["ahead"] == "50 and more"}
    return Map(f"Waiting times foretold as in QLM: {count} requests, FCFS, {MODEL} on an A10",
               "One request ahead may be short or long; of fifty the sum is known. R2 is the share of the variance of "
               "waits that was foretold; 'within 2 std' would be 0.95 if the rate were known and constant. Lengths and "
               "rate are known from another run of the service, or learnt in this one by the time each request came: "
               "then the first to have ended are the short ones, and waits look shorter than they are.",
               list(rows[0]), rows, {f"R2 with 50 and more ahead is at least 0.95, {source}": cell.mean >= 0.95
                                     for source, cell in many.items()})


SOURCES = ("another run", "this run so far")


def _watched(load: float, count: int, seed: int) -> tuple[_Watch, Table]:
    watch = _Watch()
    return watch, replay(_engine(watch, 900), open_loop(Poisson(load), PROMPTS, ANSWERS, count, seed=seed))


def _foretold(watch: _Watch, waits: dict[str, float], least: int, most: int,
              profile: tuple[Group, float] | None) -> Figures | None:
    foretold, actual, inside = [], [], 0
    for name, (ahead, learnt, rate) in watch.known.items():
        learnt, rate = profile or (learnt, rate)
        if least <= ahead < most and learnt.count >= 10 and rate:
            wait = waiting_time([Group(ahead + 1, learnt.mean, learnt.variance)], rate)
            foretold.append(wait.mean)
            actual.append(waits[name])
            inside += abs(wait.mean - waits[name]) <= 2 * wait.std
    if len(actual) < 5:
        return None
    wrong = fmean(abs(a - b) for a, b in zip(foretold, actual, strict=True))
    return {"R2": r_squared(foretold, actual), "mean wait (s)": fmean(actual), "mean error (s)": wrong,
            "within 2 std": inside / len(actual), "requests": float(len(actual))}


MAPS: dict[str, Maker] = {"andes": andes, "qlm": qlm, "rwt": rwt}
