"""One scheduler for every request of all instances, or one each and a global one: time taken; and what old reports do.

    llmcourse bench scaling [--instances 1 4 16 64 256 1024] [--requests 2000] [--skip-staleness] [--json FILE]

What is measured: CPU time of this package's own scheduling on one core, with 32 requests decoding on each simulated
instance. "central": one process schedules and commits one step of each of n instances in turn; an instance waits until
all have had theirs, so its step is longer by that "stall", also given as a share of a decode step of Llama 2 7B on an
A10. "local": each instance does it for itself, at the same time; its stall does not depend on n, and is measured with
one. What is left for the global scheduler is counted beside it: one dispatch by freeness on n reports, as a time and as
requests a second, one decision on migrations, and making the n reports. Sending them over a network is not in it.

Staleness, in virtual time: 16 A10, Poisson arrivals, power-law lengths of 256 tokens on average, and reports that come
every so many seconds and are so old when they are read. "counts" is one dispatcher that adds what it has sent since the
last report; "blind" one that does not, as each of many is that share a load and do not tell each other. "imbalance" is
the requests of the fullest instance against the mean, over moments. The last line is one line of JSON.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._report import device_name, rounded
from llmcourse.cli.parser import Parser
from llmcourse.cluster import (
    Dispatcher,
    Freeness,
    GlobalScheduler,
    Instance,
    LeastRequests,
    PowerOfTwo,
    Rebalance,
    Reporting,
    RoundRobin,
    VirtualDriver,
)
from llmcourse.cluster.board import Board
from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.summary import summary
from llmcourse.metrics.table import Table
from llmcourse.workload import Poisson, PowerLaw, open_loop

INSTANCES = (1, 4, 16, 64, 256, 1024)
RUNNING, PROMPT = 32, 64                          # requests of each instance, and their prompts (tokens)
MODEL, GPU, SLOTS, BLOCK = "Llama 2 7B", "A10", 13_616, 16
CLUSTER, RATE = 16, 10.0                          # instances and requests a second under which reports grow old
LENGTHS = PowerLaw.of_mean(256, longest=6000)
AGES = ((0.25, 0.0), (1.0, 1.0), (4.0, 4.0), (16.0, 16.0))                   # seconds between reports, and their delay
SEEDS = 3                                         # loads, pooled
DISPATCHERS: dict[str, Callable[[], Dispatcher]] = {
    "least requests": LeastRequests, "power of two": PowerOfTwo, "freeness": Freeness}
Row = dict[str, Any]


def main(argv: list[str]) -> int:
    """Measure, print the tables and the JSON line."""
    args = _parser().parse_args(argv)
    started = time.perf_counter()
    found: Row = {"benchmark": "scaling", "date": str(date.today()),
                  "device": device_name(), "cores": os.cpu_count(), "threads": 1,
                  "load_average": os.getloadavg()[0], "running": RUNNING}
    found |= _schedulers(args.instances, args.rounds)
    if not args.skip_staleness:
        found["staleness"] = {"instances": CLUSTER, "rate": RATE, "requests": args.requests, "seeds": SEEDS,
                              "rows": _staleness(args.requests)}
    found["seconds"] = time.perf_counter() - started
    line = json.dumps(rounded(found))
    print(f"\n{line}")
    if args.json:
        args.json.write_text(line + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="llmcourse bench scaling", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, nargs="+", default=list(INSTANCES), help="default: 1 to 1024")
    parser.add_argument("--rounds", type=int, default=7, help="steps of all instances; the median counts (default: 7)")
    parser.add_argument("--requests", type=int, default=2000, help="of each load on old reports (default: 2000)")
    parser.add_argument("--skip-staleness", action="store_true", help="leave that part out")
    parser.add_argument("--json", type=Path, help="also write the JSON line to a file")
    return parser


# ---- who schedules -----------------------------------------------------------------------------------------------

def crowded(number: int) -> Instance:
    """An instance on which so many requests decode."""
    engine = Engine.simulated(MODEL, GPU, num_blocks=SLOTS // BLOCK)
    for _ in range(RUNNING):
        engine.add(Request([1] * PROMPT, SamplingParams(max_tokens=4000)))
    while any(request.pending > 1 for request in engine.requests.values()):
        engine.step()
    assert len(engine.scheduler.running) == RUNNING
    return Instance(number, engine)


def scheduled(engines: Sequence[Engine]) -> tuple[float, float]:
    """Take a step of each: CPU seconds of scheduling and committing all, in turn, and seconds of the longest step.

    The step itself, which runs on paper, is not counted: on real instances the GPUs do it, all at once.
    """
    started = time.process_time()
    batches = [engine.scheduler.schedule(engine.clock.now) for engine in engines]
    spent = time.process_time() - started
    results = [engine.executor.execute(batch) for engine, batch in zip(engines, batches, strict=True)]
    assert all(len(batch.items) == RUNNING for batch in batches)
    begun = time.process_time()
    for engine, batch, result in zip(engines, batches, results, strict=True):
        start = engine.clock.now
        engine.clock.advance(result.seconds)
        engine.scheduler.commit(batch, result, start, engine.clock.now)
    return spent + time.process_time() - begun, max(result.seconds for result in results)


def timed(call: Callable[[], Any], rounds: int) -> float:
    """CPU seconds of a call: the median over rounds of at least a hundredth of a second."""
    times = 1
    while True:
        started = time.process_time()
        for _ in range(times):
            call()
        if time.process_time() - started > 0.01:
            break
        times *= 4
    found = []
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(times):
            call()
        found.append((time.process_time() - started) / times)
    return statistics.median(found)


def measure(instances: Sequence[Instance], rounds: int) -> Row:
    """What the two designs cost with these instances; seconds."""
    engines = [instance.engine for instance in instances]
    steps = [scheduled(engines) for _ in range(rounds + 1)][1:]              # the first is for warming up
    reports, dice = [instance.report() for instance in instances], random.Random(0)
    reports = [report._replace(used_blocks=(used := dice.randrange(report.num_blocks)), virtual_blocks=float(used),
                               running=dice.randrange(1, 64)) for report in reports]
    request = Request([1] * PROMPT)
    serving, moving = GlobalScheduler(Freeness()), GlobalScheduler(Freeness(), Rebalance())
    stall = statistics.median(spent for spent, _ in steps)
    dispatch = timed(lambda: serving.decide(reports, [(0, request)], 0.0), rounds)
    return {"instances": len(instances), "step": statistics.median(step for _, step in steps), "stall": stall,
            "decisions_per_s": len(instances) * RUNNING / stall, "dispatch": dispatch, "dispatches_per_s": 1 / dispatch,
            "decide": timed(lambda: moving.decide(reports, (), 0.0), rounds),
            "reports": timed(lambda: [instance.report() for instance in instances], rounds)}


def _schedulers(counts: Sequence[int], rounds: int) -> Row:
    everybody = [crowded(number) for number in range(max(counts))]
    local = statistics.median(scheduled([everybody[0].engine])[0] for _ in range(20 * rounds))
    rows = []
    print(f"\n{RUNNING} requests decode on each of n instances; CPU time of one core\n")
    heads = ("central", "of a step", "decisions", "local", "of a step", "dispatch", "dispatches", "migrations",
             "reports")
    units = ("stall, ms", "", "/s", "stall, ms", "", "ms", "/s", "ms", "ms for all")
    print(f"{'n':>6}" + "".join(f"{head:>12}" for head in heads))
    print(f"{'':>6}" + "".join(f"{unit:>12}" for unit in units))
    for count in counts:
        row = measure(everybody[:count], rounds) | {"local": local}
        rows.append(row)
        cells = (f"{1e3 * row['stall']:,.2f}", f"{row['stall'] / row['step']:.1%}", f"{row['decisions_per_s']:,.0f}",
                 f"{1e3 * local:.2f}", f"{local / row['step']:.1%}", f"{1e3 * row['dispatch']:.3f}",
                 f"{row['dispatches_per_s']:,.0f}", f"{1e3 * row['decide']:.3f}", f"{1e3 * row['reports']:.2f}")
        print(f"{count:>6}" + "".join(f"{cell:>12}" for cell in cells))
    last = rows[-1]
    full = last["step"] / last["stall"] * last["instances"]
    print(f"\na decode step takes {1e3 * last['step']:.1f} ms; central scheduling takes as long with {full:.0f} "
          f"instances (at the cost of {last['instances']})")
    return {"local": local, "step_full_at": full, "rows": rows}


# ---- old reports -------------------------------------------------------------------------------------------------

class Forgetful(Board):
    """Does not count what has been sent since the last report."""

    def placed(self, instance: int, prompt_tokens: int) -> None:
        pass


class Watched(VirtualDriver):
    """Looks at how evenly requests are spread, at every eighth arrival."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[float] = []

    def add(self, request: Request) -> Request:
        if self.num_requests % 8 == 0:
            for instance in self.alive:
                self.reach(instance, self.now)
            counts = [instance.report().requests for instance in self.alive]
            if sum(counts):
                self.seen.append(max(counts) * len(counts) / sum(counts))
        return super().add(request)


def served(dispatch: Dispatcher, count: int, reporting: Reporting, counts: bool = True, seeds: int = SEEDS) -> Row:
    """So many loads, pooled: times to the first token (s), and how uneven it was."""
    tables, seen = [], list[float]()
    for seed in range(seeds):
        ledger = Ledger()
        engines = [Engine.simulated(MODEL, GPU, num_blocks=SLOTS // BLOCK, ledger=ledger) for _ in range(CLUSTER)]
        driver = Watched(engines, dispatch, reporting=reporting)
        driver.board = driver.board if counts else Forgetful(reporting)
        tables.append(driver.run(open_loop(Poisson(RATE), LENGTHS, LENGTHS, count, seed)))
        assert len(tables[-1]) == count and tables[-1].finished.all()
        seen += driver.seen
    told = summary(Table.concat(tables))
    return {"every": reporting.every, "delay": reporting.delay, "counts": counts, "ttft_mean": told.ttft.mean,
            "ttft_p99": told.ttft.p99, "e2e_mean": told.e2e.mean, "imbalance": statistics.fmean(seen)}


def _staleness(count: int) -> list[Row]:
    print(f"\n{SEEDS} times {count} requests at {RATE:g}/s on {CLUSTER} simulated {GPU} with {MODEL}; "
          "reports every .. s, .. s old\n")
    print(f"{'':<8}{'dispatch':<17}{'every':>7}{'delay':>7}" + "".join(
        f"{head:>14}" for head in ("mean TTFT, s", "P99 TTFT, s", "mean E2E, s", "imbalance")))
    rows = []
    blind = served(RoundRobin(), count, Reporting()) | {"dispatch": "round robin"}
    _print("", blind)
    for counts in (True, False):
        for name, make in DISPATCHERS.items():
            for every, delay in AGES:
                row = served(make(), count, Reporting(every, delay), counts) | {"dispatch": name}
                rows.append(row)
                _print("counts" if counts else "blind", row)
    return [blind, *rows]


def _print(kind: str, row: Row) -> None:
    reads = f"{row['every']:>7g}{row['delay']:>7g}" if kind else f"{'-':>7}{'-':>7}"
    print(f"{kind:<8}{row['dispatch']:<17}{reads}"
          f"{row['ttft_mean']:>14.3f}{row['ttft_p99']:>14.2f}{row['e2e_mean']:>14.2f}{row['imbalance']:>14.2f}")
