"""Maps of autoscaling over a day: what each rule costs at which tail, what a start costs, and when a forecast is wrong.

Instance-hours alone say nothing: the cheapest fleet lets everybody wait. So every rule is swept over its own knob, and
rules are compared at equal P99 of the time to first token, read off between measured points (straight lines over the
logarithm of P99). Nothing is fitted to a paper's number.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from benchmarks._fleet_day import (
    BIN,
    COLUMNS,
    MODEL,
    PROMISE,
    RATE,
    Day,
    System,
    hours_at,
    packed,
    points,
    row,
    serve,
)
from benchmarks._maps import Cell, Map
from llmcourse.cluster.autoscale import ColdStart, KVBased, Predictive, QueueBased, Reactive, SLODebt

YESTERDAY = 1000                         # the day before a seed's day is another day of the same kind
LEVELS = (1.5, 3.0, 6.0)                 # P99 in seconds at which rules are compared


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


def forecasting(day: Day, seed: int, margin: float = 0.25, guard: float | None = 0.8) -> Predictive:
    """A forecast that knows the day before."""
    return Predictive(RATE, day.seconds, day.rates(seed + YESTERDAY), ColdStart.of(MODEL).seconds(), margin, guard)


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
    """Every rule at several values of its knob."""
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
    """A rule that waits to be hurt and one that looks ahead, by how long a start takes."""
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


# -- a day that was foretold wrong -------------------------------------------------------------------------------------


def forecast_map(seeds: Sequence[int], quick: bool) -> Map:
    """Days that are not like yesterday, with a guard and without."""
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


MAPS = {"scale-day": day_map, "scale-cold": cold_map, "scale-forecast": forecast_map}
