"""One served day of a fleet that grows and shrinks: the trial behind the maps of autoscaling.

Llama 2 7B on A10s with 13,616 token slots each, power-law lengths of 256 tokens on average (6,000 at most), as in week
8: one A10 serves some 0.7 of these requests a second. A "day" is compressed into an hour; a start takes 15 s to
boot and the weights over 10 Gbit/s, 26 s in all, unless a map says otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np

from benchmarks._maps import Cell, Row
from llmcourse.cluster import Dispatcher, Freeness, Rebalance, Reporting, VirtualDriver
from llmcourse.cluster.autoscale import Autoscaler, ColdStart
from llmcourse.cluster.roles import ByRole
from llmcourse.engine import Engine, replay
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.rental import rent
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.table import Table
from llmcourse.policies import StaticPriority
from llmcourse.workload import SLO, Arrival, Diurnal, Poisson, PowerLaw, open_loop

MODEL, GPU, SLOTS = "Llama 2 7B", "A10", 13_616
LENGTHS = PowerLaw.of_mean(256, longest=6000)
RATE = 0.7                               # requests/s that one A10 serves before P99 runs away (week 8's curve)
PROMISE = SLO(ttft=2.0)
COLUMNS = ("autoscaler", "knob", "hours", "$", "MJ", "most", "P50 s", "P99 s", "late %", "tokens/s", "scalings")
BIN = 60.0                               # seconds in which arrivals are counted for a forecast


@dataclass(frozen=True)
class Day:
    """A day of so many seconds whose rate goes from ``low`` to ``high`` requests/s, with bursts."""

    seconds: float = 3600.0
    low: float = 0.5
    high: float = 4.0
    bursts: float = 4.0
    factor: float = 2.0
    burst: float = 60.0

    @classmethod
    def of(cls, quick: bool) -> "Day":
        return cls(900.0, bursts=2.0) if quick else cls()

    def arrivals(self, seed: int, slo: SLO = PROMISE) -> list[Arrival]:
        process = Diurnal(self.low, self.high, self.seconds, self.bursts, self.factor, self.burst)
        count = int(self.seconds * (self.low + self.high) / 2 * 1.5)
        return [each for each in open_loop(process, LENGTHS, LENGTHS, count, seed, slo=slo) if each.time < self.seconds]

    def rates(self, seed: int) -> tuple[float, ...]:
        """Requests/s in each bin, as they were counted on the day of that seed."""
        times = [each.time for each in self.arrivals(seed)]
        counts, _ = np.histogram(times, bins=round(self.seconds / BIN), range=(0, self.seconds))
        return tuple(float(count) / BIN for count in counts)


@dataclass(frozen=True)
class System:
    """How a fleet is run; without a ``scaler`` it stays as it is."""

    scaler: Autoscaler | None
    dispatch: Callable[[], Dispatcher] = Freeness
    rebalance: Rebalance | None = field(default_factory=Rebalance)
    drain_by: str = "migrate"
    cold: ColdStart = field(default_factory=lambda: ColdStart.of(MODEL))
    first: int = 1
    priorities: bool = False


def packed(seats: int) -> Callable[[], Dispatcher]:
    """Interactive requests fill one instance after the other: then spare instances can be counted."""
    return partial(ByRole, seats=seats)


@dataclass(frozen=True)
class Run:
    """What came of it; seconds, shares, counts. ``late``: share of all with a promise that was not kept."""

    hours: float
    dollars: float
    megajoules: float
    most: int
    p50: float
    p99: float
    late: float
    tokens_per_second: float
    scalings: int
    moved: int
    table: Table
    driver: VirtualDriver


def engine(ledger: Ledger, priorities: bool = False) -> Engine:
    policy = StaticPriority(preemptive=True) if priorities else None
    return Engine.simulated(MODEL, GPU, num_blocks=SLOTS // 16, ledger=ledger, **({"policy": policy} if policy else {}))


def serve(system: System, workload: Sequence[Arrival]) -> Run:
    """All of it, from the first request to the last token."""
    ledger = Ledger()
    build = partial(engine, ledger, system.priorities)
    driver = VirtualDriver([build() for _ in range(system.first)], system.dispatch(), system.rebalance,
                           reporting=Reporting(1.0), autoscaler=system.scaler, build=build, cold_start=system.cold,
                           drain_by=system.drain_by)
    table = driver.run(workload)
    if not table.finished.all():
        raise AssertionError(f"{(~table.finished).sum()} of {len(table)} requests did not end")
    paid = rent(driver.fleet.leases.values(), driver.now, hardware(GPU), ledger.busy, system.cold.warm)
    ttft = table["ttft"]
    changes = sum(event.kind == "SCALED" and event.data["stage"] in ("starting", "draining") for event in driver.log)
    return Run(paid.instance_hours, paid.dollars or 0.0, (paid.joules or 0.0) / 1e6, paid.most, percentile(ttft, 50),
               percentile(ttft, 99), 1 - attainment(table).ttft, float(table["output_tokens"].sum() / driver.now),
               changes, sum(move.outcome == "moved" for move in driver.migrations), table, driver)


@cache
def full_throughput() -> float:
    """Output tokens/s of one instance that always has somebody waiting: what Chiron profiles beforehand."""
    alone = engine(Ledger())
    table = replay(alone, open_loop(Poisson(1000.0), LENGTHS, LENGTHS, 1000, 99),
                   stop=lambda: alone.clock.now > 10 and not alone.scheduler.waiting)
    return float(table["output_tokens"].sum() / alone.clock.now)


def hours_at(points: Sequence[tuple[float, float]], p99: float) -> float | None:
    """Instance-hours at a P99, on straight lines of log P99 between the points that no other beats in both.

    ``points`` are (P99, hours). Where even the cheapest has a shorter tail: its hours, which are then at most too many;
    None where none has so short a tail.
    """
    best: list[tuple[float, float]] = []
    for tail, hours in sorted(points):
        if not best or hours < best[-1][1]:
            best.append((tail, hours))
    if not best or p99 < best[0][0]:
        return None
    tails, hours_of = zip(*best, strict=True)
    return float(np.interp(np.log(p99), np.log(tails), hours_of))


def row(name: str, knob: object, runs: Sequence[Run]) -> Row:
    """A point: mean and spread over the seeds."""
    return {"autoscaler": name, "knob": knob, "hours": Cell.of([run.hours for run in runs]),
            "$": Cell.of([run.dollars for run in runs]), "MJ": Cell.of([run.megajoules for run in runs]),
            "most": Cell.of([run.most for run in runs]), "P50 s": Cell.of([run.p50 for run in runs]),
            "P99 s": Cell.of([run.p99 for run in runs]), "late %": Cell.of([100 * run.late for run in runs]),
            "tokens/s": Cell.of([run.tokens_per_second for run in runs]),
            "scalings": Cell.of([float(run.scalings) for run in runs])}


def points(runs: Sequence[Sequence[Run]]) -> list[list[tuple[float, float]]]:
    """(P99, hours) of every knob, for each seed."""
    return [[(run.p99, run.hours) for run in of_seed] for of_seed in zip(*runs, strict=True)]
