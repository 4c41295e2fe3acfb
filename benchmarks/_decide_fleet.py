"""Maps of fleets: what emptying an instance takes, Llumnix's claim, and two classes of requests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks._fleet_day import (
    COLUMNS,
    LENGTHS,
    MODEL,
    PROMISE,
    Day,
    System,
    full_throughput,
    hours_at,
    packed,
    points,
    row,
    serve,
)
from benchmarks._maps import Cell, Map
from llmcourse.cluster import LeastTokens
from llmcourse.cluster.autoscale import Autoscaler, ColdStart, KVBased, Reactive, SLODebt
from llmcourse.metrics.slo import attainment
from llmcourse.workload import SLO, Arrival, Gamma, Poisson, merge, open_loop

# -- drains ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Once(Autoscaler):
    """Three until ``at``, then two."""

    at: float = 120.0

    def wanted(self, reports: Sequence[object], observed: object, now: float) -> int:
        return 3 if now < self.at else 2


def drain_map(seeds: Sequence[int], quick: bool) -> Map:
    """How soon a drained instance is free, by waiting and by migration."""
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


# -- Llumnix's claim ---------------------------------------------------------------------------------------------------


def llumnix_map(seeds: Sequence[int], quick: bool) -> Map:
    """Instance-hours with and without migration, between points of unlike tails and at equal tails."""
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


# -- who cannot wait and who can ---------------------------------------------------------------------------------------


def with_batch(day: Day, seed: int) -> list[Arrival]:
    """A day of people, and a heap of requests dumped at a quarter of it, promised their first token by half of it."""
    count = round(day.seconds / 3600 * 1000)
    dumped = [replace(each, time=day.seconds / 4, tenant="batch") for each in
              open_loop(Poisson(1.0), LENGTHS, LENGTHS, count, seed + 7, slo=SLO(ttft=day.seconds / 4), priority=1)]
    return merge(day.arrivals(seed), dumped)


def classes_map(seeds: Sequence[int], quick: bool) -> Map:
    """Chiron's two loops against thresholds on memory."""
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


MAPS = {"scale-drain": drain_map, "scale-llumnix": llumnix_map, "scale-classes": classes_map}
