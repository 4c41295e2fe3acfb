"""Maps of fairness: VTC and deficit round robin, DLPM's price of locality, and its dispatcher on four instances."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks._maps import Cell, Maker, Map, Row
from llmcourse.cluster import D2LPM, Dispatcher, PrefixAware, Reporting, RoundRobin, VirtualDriver
from llmcourse.engine import Engine, Policy, replay
from llmcourse.metrics.fairness import max_service_gap, service_totals, vtc_bound
from llmcourse.metrics.summary import summary
from llmcourse.policies import DLPM, FCFS, VTC, DeficitRoundRobin, LongestPrefixFirst
from llmcourse.workload import Arrival, Constant, Poisson, merge, open_loop

MODEL = "Llama 2 7B"
Figures = dict[str, float]


def rows_of(options: Mapping[str, Any], seeds: Sequence[int], run: Callable[[Any, int], Figures],
            **fixed: object) -> list[Row]:
    """A row for each option: its name, what is fixed, and every figure of `run` over the seeds."""
    rows = []
    for name, option in options.items():
        runs = [run(option, seed) for seed in seeds]
        rows.append({"policy": name, **fixed, **{key: Cell.of([each[key] for each in runs]) for key in runs[0]}})
    return rows


# ---- two clients who ask for more than there is ------------------------------------------------------------------

HEAVY, LIGHT, EACH, ROOM = 180, 90, 256, 625          # requests a minute; tokens of prompt and output; blocks of KV


def overload(seed: int, seconds: float) -> list[Arrival]:
    """Sheng et al.'s first experiment, with Poisson arrivals so that seeds differ."""
    return merge(*(open_loop(Poisson(rate / 60), Constant(EACH), Constant(EACH), int(rate * seconds / 60),
                             seed=10 * seed + number, tenant=tenant)
                   for number, (tenant, rate) in enumerate((("light", LIGHT), ("heavy", HEAVY)))))


def vtc(seeds: Sequence[int], quick: bool) -> Map:
    """Service and waits of both clients under FCFS, VTC and DRR."""
    seconds = 120.0 if quick else 300.0
    made: dict[str, Callable[[], Policy]] = {"fcfs": FCFS, "vtc": VTC} | {
        f"drr Q={quantum:,}": lambda quantum=quantum: DeficitRoundRobin(quantum) for quantum in (1000, 5000, 20_000)}

    def run(make: Callable[[], Policy], seed: int) -> Figures:
        engine = Engine.simulated(MODEL, "A10", policy=make(), num_blocks=ROOM)
        table = replay(engine, overload(seed, seconds), stop=lambda: engine.clock.now > seconds)
        got, waits = service_totals(table), {tenant: table.of_tenant(tenant)["ttft"] for tenant in ("light", "heavy")}
        return {"heavy/light": got["heavy"] / got["light"], "max gap": max_service_gap(engine.events).units,
                "total service": got["heavy"] + got["light"], "tokens/s": summary(table).output_rate,
                **{f"TTFT {tenant} (s)": float(np.nanmean(wait)) for tenant, wait in waits.items()}}

    rows = rows_of(made, seeds, run)
    verdicts = {"bound of VTC": vtc_bound(EACH, ROOM * 16), "VTC's ratio is within 1 ± 0.05":
                abs(rows[1]["heavy/light"].mean - 1) <= 0.05, "total service, VTC to FCFS":
                rows[1]["total service"].mean / rows[0]["total service"].mean}
    return Map("VTC and deficit round robin: two clients, 90 and 180 requests a minute of 256 + 256 tokens, KV for "
               f"10,000 tokens, {seconds:.0f} s of overload, {MODEL} on an A10",
               "Fair is equal service while both have requests waiting. FCFS serves who asks more; the fair policies "
               "make the heavy client wait for what it asks above its share, at the same tokens/s. DRR's gap grows "
               "with its quantum. The ratio counts the start too, when nobody waits; TTFT those who got a token.",
               list(rows[0]), rows, verdicts)


# ---- locality and fairness ---------------------------------------------------------------------------------------

PREFIX, SUFFIX, OUTPUT, SHARED = 3, 100, 64, 3        # blocks of 512 tokens, tokens, tokens, prefixes of each client
CLIENTS = ("heavy", "a", "b", "c")


def sharing(seed: int, heavy: int, light: int, rate: float | None = None) -> list[Arrival]:
    """Requests of four clients, each on one of three prefixes of its own, in random order; all at once, or Poisson."""
    dice = random.Random(seed)
    owners = [client for client in range(len(CLIENTS)) for _ in range(light if client else heavy)]
    dice.shuffle(owners)
    arrivals, time = [], 0.0
    for client in owners:
        time += dice.expovariate(rate) if rate else 0.0
        first = PREFIX * (SHARED * client + dice.randrange(SHARED))
        arrivals.append(Arrival(time, PREFIX * 512 + SUFFIX, OUTPUT, CLIENTS[client],
                                prefix=tuple(range(first, first + PREFIX))))
    return arrivals


def _instance(policy: Policy) -> Engine:
    """Room for the KV of about six of the twelve prefixes beside 32 requests."""
    return Engine.simulated(MODEL, "A100 80 GB", policy=policy, num_blocks=920, prefix_cache="radix", max_running=32)


def dlpm(seeds: Sequence[int], quick: bool) -> Map:
    """Throughput, hits and gap under FCFS, LPM, VTC and DLPM of several quanta."""
    heavy, light = (60, 24) if quick else (200, 75)
    every = 10 ** 6
    made: dict[str, Callable[[], Policy]] = {
        "fcfs": FCFS, "lpm": lambda: LongestPrefixFirst(every), "vtc": VTC} | {
        f"dlpm Q={quantum:,}": lambda quantum=quantum: DLPM(quantum, longest_queue=every)
        for quantum in (1000, 5000, 20_000, 80_000)}

    def run(make: Callable[[], Policy], seed: int) -> Figures:
        engine = _instance(make())
        table = replay(engine, sharing(seed, heavy, light))
        events = engine.events
        return {"req/s": len(table) / engine.clock.now, "tokens/s": summary(table).output_rate,
                "prefix hit": engine.counters.hit_tokens / table["prompt_tokens"].sum(),
                "max gap, found is free": _gap(events, True), "max gap": _gap(events, False),
                "TTFT light (s)": _light(table), "TTFT heavy (s)": _mean(table, "heavy")}

    rows = rows_of(made, seeds, run)
    rate = {row["policy"]: row["req/s"].mean for row in rows}
    gaps = {row["policy"]: row["max gap, found is free"].mean for row in rows}
    small = "dlpm Q=1,000"
    verdicts = {"DLPM (Q=1,000) to VTC, req/s": rate[small] / rate["vtc"],
                "DLPM (Q=1,000) to VTC, max gap (found is free)": gaps[small] / gaps["vtc"],
                "at least 1.5 times VTC's throughput at its fairness":
                rate[small] >= 1.5 * rate["vtc"] and gaps[small] <= gaps["vtc"]}
    return Map(f"DLPM: four clients with three prefixes of 1,536 tokens each, suffix {SUFFIX}, output {OUTPUT}; one "
               f"sends {heavy} requests, the others {light}, all at once; KV for about six prefixes, {MODEL}, A100",
               "VTC takes clients in turn and loses their prefixes; LPM keeps them and lets one client run ahead; DLPM "
               "keeps nearly all hits, and its quantum says how far a client may run ahead. The first gap counts what "
               "had to be computed (what DLPM is fair in), the second whole prompts (what VTC is fair in).",
               list(rows[0]), rows, verdicts)


def _gap(events: Any, found_is_free: bool) -> float:
    return max_service_gap(events, found_is_free=found_is_free).units


def _mean(table: Any, tenant: str) -> float:
    return float(table.of_tenant(tenant)["ttft"].mean())


def _light(table: Any) -> float:
    return sum(_mean(table, tenant) for tenant in CLIENTS[1:]) / (len(CLIENTS) - 1)


# ---- four instances ----------------------------------------------------------------------------------------------

def d2lpm(seeds: Sequence[int], quick: bool) -> Map:
    """Four instances with DLPM on each, under dispatchers that know nothing, prefixes, load, or both."""
    heavy, light, loads = (100, 40, (45.0,)) if quick else (300, 110, (25.0, 45.0, 65.0))
    made: dict[str, Callable[[], Dispatcher]] = {
        "round robin": RoundRobin, "prefix affinity": lambda: PrefixAware(1024, bound=float("inf")),
        "bounded affinity": lambda: PrefixAware(1024), "d2lpm Q=1,000": lambda: D2LPM(1000),
        "d2lpm Q=5,000": D2LPM, "d2lpm Q=20,000": lambda: D2LPM(20_000)}
    rows = []
    for load in loads:
        def run(make: Callable[[], Dispatcher], seed: int, load: float = load) -> Figures:
            engines = [_instance(DLPM(5000, longest_queue=10 ** 6)) for _ in range(4)]
            driver = VirtualDriver(engines, make(), reporting=Reporting(0.1))
            table = driver.run(sharing(seed, heavy, light, load))
            computed = [engine.counters.computed_tokens for engine in engines]
            hits = sum(engine.counters.hit_tokens for engine in engines)
            told = summary(table)
            return {"tokens/s": told.output_rate, "req/s": told.request_rate, "TTFT mean (s)": told.ttft.mean,
                    "TTFT p99 (s)": told.ttft.p99, "prefix hit": hits / (hits + sum(computed)),
                    "busiest/mean": max(computed) / (sum(computed) / 4),
                    "max gap, found is free": _gap(driver.events, True)}
        rows += rows_of(made, seeds, run, **{"offered req/s": load})
    return Map(f"D2LPM: the same clients on four instances with DLPM (Q=5,000) on each, Poisson arrivals, {heavy} + "
               f"3 x {light} requests, reports every 0.1 s",
               "Affinity alone keeps the hits and crowds who shares a prefix onto one instance; round robin spreads "
               "load and computes every prefix everywhere. The quantum of D2LPM says how long a client stays with its "
               "prefix before it must spread. Hits here are of all tokens computed or found.",
               list(rows[0]), rows)


MAPS: dict[str, Maker] = {"vtc": vtc, "dlpm": dlpm, "d2lpm": d2lpm}
