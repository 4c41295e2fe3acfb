"""Maps of autoscaling: what each rule costs at which tail, what a start and a drain cost, and when a forecast is wrong.

Instance-hours alone say nothing: the cheapest fleet lets everybody wait. So every rule is swept over its own knob, and
rules are compared at equal P99 of the time to first token, read off between measured points (straight lines over the
logarithm of P99). Nothing is fitted to a paper's number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks._maps import Cell, Map, Row
from benchmarks._scaling_runs import (
    BIN,
    LENGTHS,
    MODEL,
    PROMISE,
    RATE,
    Day,
    Run,
    System,
    full_throughput,
    hours_at,
    serve,
)
from llmcourse.cluster import Dispatcher, LeastTokens
from llmcourse.cluster.autoscale import Autoscaler, ColdStart, KVBased, Predictive, QueueBased, Reactive, SLODebt
from llmcourse.cluster.roles import ByRole
from llmcourse.metrics.slo import attainment
from llmcourse.workload import SLO, Arrival, Gamma, Poisson, merge, open_loop

YESTERDAY = 1000                         # the day before a seed's day is another day of the same kind
COLUMNS = ("autoscaler", "knob", "hours", "$", "MJ", "most", "P50 s", "P99 s", "late %", "tokens/s", "scalings")
LEVELS = (1.5, 3.0, 6.0)                 # P99 in seconds at which rules are compared


def row(name: str, knob: object, runs: Sequence[Run]) -> Row:
    """A point: mean and spread over the seeds."""
    return {"autoscaler": name, "knob": knob, "hours": Cell.of([run.hours for run in runs]),
            "$": Cell.of([run.dollars for run in runs]), "MJ": Cell.of([run.megajoules for run in runs]),
            "most": Cell.of([run.most for run in runs]), "P50 s": Cell.of([run.p50 for run in runs]),
            "P99 s": Cell.of([run.p99 for run in runs]), "late %": Cell.of([100 * run.late for run in runs]),
            "tokens/s": Cell.of([run.tokens_per_second for run in runs]),
            "scalings": Cell.of([float(run.scalings) for run in runs])}


def at_equal_tail(curves: dict[str, list[list[tuple[float, float]]]], against: str) -> dict[str, object]:
    """Instance-hours of each curve at each level, less those of ``against``, in percent: one curve for each seed."""
    said: dict[str, object] = {}
    for name, seeds in curves.items():
        for level in LEVELS if name != against else ():
            pairs = [(hours_at(mine, level), hours_at(theirs, level))
                     for mine, theirs in zip(seeds, curves[against], strict=True)]
            known = [100 * (mine / theirs - 1) for mine, theirs in pairs if mine is not None and theirs is not None]
            said[f"{name} at P99 {level:g} s, hours against {against} (%)"] = str(Cell.of(known)) if known else None
    return said


def points(runs: Sequence[Sequence[Run]]) -> list[list[tuple[float, float]]]:
    """(P99, hours) of every knob, for each seed."""
    return [[(run.p99, run.hours) for run in of_seed] for of_seed in zip(*runs, strict=True)]


# -- 1: a day ----------------------------------------------------------------------------------------------------------


def forecasting(day: Day, seed: int, margin: float = 0.25, guard: float | None = 0.8) -> Predictive:
    return Predictive(RATE, day.seconds, day.rates(seed + YESTERDAY), ColdStart.of(MODEL).seconds(), margin, guard)


def packed(seats: int) -> Callable[[], Dispatcher]:
    """Interactive requests fill one instance after the other: then spare instances can be counted."""
    return partial(ByRole, seats=seats)


def sweeps(day: Day, quick: bool) -> dict[str, list[tuple[object, Callable[[int], System]]]]:
    """Each rule with the values of its knob; a system may depend on the seed (what a forecast knows of yesterday)."""
    every = slice(None, None, 2) if quick else slice(None)
    return {
        "fixed": [(count, partial(lambda seed, count: System(None, first=count), count=count))
                  for count in (5, 6, 7, 8)[every]],
        "reactive": [(high, partial(lambda seed, high: System(Reactive(high, high / 2)), high=high))
                     for high in (0.3, 0.5, 0.7, 0.9)[every]],
        "queue": [(wait, partial(lambda seed, wait: System(QueueBased(wait)), wait=wait))
                  for wait in (0.05, 0.2, 0.5, 2.0)[every]],
        "kv": [(least, partial(lambda seed, least: System(KVBased(least)), least=least))
               for least in (10.0, 20.0, 40.0, 80.0)[every]],
        "predictive": [(margin, partial(lambda seed, margin: System(forecasting(day, seed, margin)), margin=margin))
                       for margin in (-0.2, 0.0, 0.25, 0.75)[every]],
        "slo-debt": [(theta, partial(lambda seed, theta: System(SLODebt(theta, 0.1), packed(4), None), theta=theta))
                     for theta in (0.4, 0.6, 0.75, 0.9)[every]]}


def day_map(seeds: Sequence[int], quick: bool) -> Map:
    day = Day.of(quick)
    rows, curves = [], {}
    for name, sweep in sweeps(day, quick).items():
        runs = [[serve(make(seed), day.arrivals(seed)) for seed in seeds] for _, make in sweep]
        rows += [row(name, knob, each) for (knob, _), each in zip(sweep, runs, strict=True)]
        curves[name] = points(runs)
    note = (f"A day of {day.seconds:.0f} s, {day.low:g} to {day.high:g} requests/s, {day.bursts:g} bursts that double "
            "it for a minute. Knobs: instances; the share of KV in use to grow at (half of it to shrink); seconds of "
            "wait; blocks of freeness; margin over yesterday's rate; IBP. Hours count cold starts of "
            f"{ColdStart.of(MODEL).seconds():.0f} s and drains; late: TTFT beyond {PROMISE.ttft:g} s. Equal-P99 "
            "figures are interpolated between the points of one seed, mean and spread over the seeds; where even the "
            "cheapest point has a shorter tail it counts as it is; None: no point had so short a tail.")
    return Map("A day with bursts: what each autoscaler costs at which tail", note, COLUMNS, rows,
               at_equal_tail(curves, "reactive"))


def cold_map(seeds: Sequence[int], quick: bool) -> Map:
    day, rows = Day.of(quick), []
    starts = {"dram, 1 s to boot": ColdStart.of(MODEL, "dram", 1.0), "ssd, 15 s": ColdStart.of(MODEL, "ssd", 15.0),
              "remote, 15 s": ColdStart.of(MODEL, "remote", 15.0), "remote, 60 s": ColdStart.of(MODEL, "remote", 60.0),
              "remote, 60 s, 1 warm": ColdStart.of(MODEL, "remote", 60.0, warm=1)}
    for name, cold in starts.items():
        for rule, make in (("reactive", lambda seed, cold: Reactive()),
                           ("predictive", lambda seed, cold: replace(forecasting(day, seed), lead=cold.seconds()))):
            runs = [serve(System(make(seed, cold), cold=cold), day.arrivals(seed)) for seed in seeds]
            rows.append(row(rule, name, runs) | {"start s": cold.seconds()})
    note = ("The same day; only how long a start takes is changed, and the forecast looks as far ahead. A warm machine "
            "is booted and waits, paid for all day; it skips the boot.")
    return Map("Cold starts", note, (*COLUMNS[:2], "start s", *COLUMNS[2:]), rows)


# -- 2: drains ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Once(Autoscaler):
    """Three until ``at``, then two."""

    at: float = 120.0

    def wanted(self, reports: Sequence[object], observed: object, now: float) -> int:
        return 3 if now < self.at else 2


def drain_map(seeds: Sequence[int], quick: bool) -> Map:
    rows = []
    for load in (0.2, 0.4, 0.6):
        for how in ("wait", "migrate"):
            runs = []
            for seed in seeds:
                workload = open_loop(Poisson(2 * load), LENGTHS, LENGTHS, 400 if quick else 900, seed, slo=PROMISE)
                runs.append(serve(System(Once(fewest=2, most=3), drain_by=how, first=3), workload))
            gone = [lease for run in runs for lease in run.driver.fleet.leases.values() if lease.how == "retired"]
            freed = [(lease.ended or 0.0) - (lease.drained or 0.0) for lease in gone]
            rows.append({"load per instance": load, "drain by": how, "freed after s": Cell.of(freed),
                         "moved": Cell.of([float(run.moved) for run in runs]),
                         "P99 s": Cell.of([run.p99 for run in runs]),
                         "tokens/s": Cell.of([run.tokens_per_second for run in runs])})
    day = Day.of(quick)
    for how in ("wait", "migrate"):
        runs = [serve(System(Reactive(), drain_by=how), day.arrivals(seed)) for seed in seeds]
        waits = [(lease.ended or 0.0) - (lease.drained or 0.0) for run in runs
                 for lease in run.driver.fleet.leases.values() if lease.how == "retired"]
        rows.append({"load per instance": "the day, reactive", "drain by": how,
                     "hours": Cell.of([r.hours for r in runs]),
                     "freed after s": sum(waits) / max(1, len(waits)), "P99 s": Cell.of([r.p99 for r in runs]),
                     "moved": Cell.of([float(r.moved) for r in runs]),
                     "tokens/s": Cell.of([r.tokens_per_second for r in runs])})
    note = ("One of three instances is drained after 120 s at a steady load (requests/s that each of the two left will "
            "have); then a whole day. Migration goes over a link of 8 GB/s; moved counts balancing too.")
    return Map("Emptying an instance: waiting against migration", note,
               ("load per instance", "drain by", "freed after s", "hours", "P99 s", "moved", "tokens/s"), rows)


# -- 3: Llumnix's claim ------------------------------------------------------------------------------------------------


def llumnix_map(seeds: Sequence[int], quick: bool) -> Map:
    seconds = 600 if quick else 1800
    rows, curves = [], {}
    systems = {"load dispatch, no migration": lambda least: System(KVBased(least), LeastTokens, None, "wait", first=4),
               "Llumnix": lambda least: System(KVBased(least), first=4)}
    for name, make in systems.items():
        runs = []
        for least in (2.0, 10.0, 20.0, 40.0, 80.0)[::2 if quick else 1]:
            runs.append([serve(make(least), open_loop(Gamma(3.0, 4.0), LENGTHS, LENGTHS, int(3 * seconds), seed,
                                                      slo=PROMISE)) for seed in seeds])
            rows.append(row(name, least, runs[-1]))
        curves[name] = points(runs)
    base, ours = curves.values()
    similar = [max((100 * (1 - h / hours) for tail, hours in theirs for t, h in mine if t <= 2 * tail), default=0.0)
               for theirs, mine in zip(base, ours, strict=True)]
    equal = []
    for theirs, mine in zip(base, ours, strict=True):
        pairs = [(hours, hours_at(mine, tail)) for tail, hours in theirs]
        equal.append([100 * (1 - h / hours) for hours, h in pairs if h is not None])
    known = [each for each in equal if each]
    verdicts = {"largest saving between points, with a P99 at most twice as long (%)": str(Cell.of(similar)),
                "largest saving at equal P99 (%)": str(Cell.of([max(e) for e in known])) if known else None,
                "mean saving at equal P99 (%)": str(Cell.of([sum(e) / len(e) for e in known])) if known else None}
    note = ("Gamma arrivals, 3 requests/s, CV 4; thresholds of mean freeness, a band of 50 blocks. Llumnix (Sun et "
            "al., 2024) claims up to 36 % fewer instances at similar tails; the points behind it pair different tails, "
            "and at equal P99 give about 21 %. Both readings are made here of our own points; equal P99 is "
            "interpolated, as in the map of the day.")
    return Map("Llumnix's saving, read twice", note, COLUMNS, rows, verdicts)


# -- 4: who cannot wait and who can ------------------------------------------------------------------------------------


def with_batch(day: Day, seed: int) -> list[Arrival]:
    """A day of people, and a heap of requests dumped at a quarter of it, promised their first token by half of it."""
    count = round(day.seconds / 3600 * 1000)
    dumped = [replace(each, time=day.seconds / 4, tenant="batch") for each in
              open_loop(Poisson(1.0), LENGTHS, LENGTHS, count, seed + 7, slo=SLO(ttft=day.seconds / 4), priority=1)]
    return merge(day.arrivals(seed), dumped)


def classes_map(seeds: Sequence[int], quick: bool) -> Map:
    day, rows = Day.of(quick), []
    day = replace(day, high=day.high / 2)
    outputs = LENGTHS.at((np.arange(10_000) + 0.5) / 10_000)
    debt = SLODebt(band=0.1, output=float(outputs.mean()), variance=float(outputs.var()), throughput=full_throughput(),
                   lead=ColdStart.of(MODEL).seconds())
    systems: dict[tuple[str, object], System] = {
        ("reactive", high): System(Reactive(high, high / 2, most=32), priorities=True)
        for high in (0.3, 0.6, 0.9)}
    systems |= {("slo-debt", f"{theta}, {seats} seats"): System(replace(debt, theta=theta), packed(seats), None,
                                                                priorities=True)
                for theta, seats in ((0.5, 4), (0.7, 4), (0.7, 6), (0.7, 10))}
    for (name, knob), system in systems.items():
        runs = [serve(system, with_batch(day, seed)) for seed in seeds]
        people = [run.table.select(run.table["priority"] <= 0) for run in runs]
        batch = [run.table.select(run.table["priority"] > 0) for run in runs]
        rows.append(row(name, knob, runs) | {
            "in time %": Cell.of([100 * attainment(table).ttft for table in people]),
            "batch in time %": Cell.of([100 * attainment(table).ttft for table in batch])})
    note = (f"People by day ({day.low:g} to {day.high:g} requests/s, promised {PROMISE.ttft:g} s) and a heap of "
            "requests dumped at a quarter of the day, promised by half of it. Priorities are kept in every instance of "
            "both; reactive grows with memory in use or waited for, slo-debt (Chiron) with interactive pressure, and "
            "for the heap only when it would be late. One instance hands out "
            f"{full_throughput():.0f} output tokens/s, profiled beforehand. P50, P99 and late are of everybody.")
    return Map("Who cannot wait and who can", note, (*COLUMNS[:5], "in time %", "batch in time %", *COLUMNS[5:]), rows)


# -- 5: a day that was foretold wrong ----------------------------------------------------------------------------------


def forecast_map(seeds: Sequence[int], quick: bool) -> Map:
    day, rows = Day.of(quick), []
    shift = round(day.seconds / BIN) // 4
    days: dict[str, Callable[[tuple[float, ...]], tuple[float, ...]]] = {
        "like yesterday": lambda rates: rates, "half was foretold": lambda rates: tuple(each / 2 for each in rates),
        "twice was foretold": lambda rates: tuple(2 * each for each in rates),
        "a quarter of a day off": lambda rates: rates[shift:] + rates[:shift]}
    rows.append(row("reactive", "-", [serve(System(Reactive()), day.arrivals(seed)) for seed in seeds]))
    for name, change in days.items():
        for guard in (0.8, None):
            scalers = [replace(forecasting(day, seed, guard=guard), before=change(day.rates(seed + YESTERDAY)))
                       for seed in seeds]
            runs = [serve(System(scaler), day.arrivals(seed)) for scaler, seed in zip(scalers, seeds, strict=True)]
            rows.append(row("predictive" if guard else "without guard", name, runs))
    note = ("Seasonal-naive forecast of the rate, 25 % margin; the guard adds one instance when memory is 80 % full. "
            "A forecast too low is the guard's to repair, and costs the tail; one too high costs hours, and nothing "
            "here repairs it.")
    return Map("A forecast that is wrong", note, COLUMNS, rows)


MAPS = {"scale-day": day_map, "scale-cold": cold_map, "scale-drain": drain_map, "scale-llumnix": llumnix_map,
        "scale-classes": classes_map, "scale-forecast": forecast_map}
