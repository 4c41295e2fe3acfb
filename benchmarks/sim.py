"""Requests simulated per second of wall time, beside published simulators; a million requests with --million.

What is measured: one Llama-2-7B on an A100 80 GB, lengths of the Azure 2023 conversation trace (clipped to 4,096 tokens
in all), Poisson arrivals at 3 requests/s, token budget 512, at most 128 at once; the whole replay, with the arrivals
made beforehand, and the summary of all metrics. "ledger" keeps a row for each request and every gap between tokens,
"events" the full log, "stepping" is the ledger without jumping over equal steps. The peers' figures are theirs on two
cores of the same class with the same set-up: Vidur (Agrawal et al., 2024) and splitwise-sim (Patel et al., 2024).
--million serves 64 instances by round robin from a stream, a tenth of it before, to show that cost grows linearly.
--moving does so with everything on: 64 A10 near their knee, power-law lengths, dispatch by freeness, every instance
reports four times a second, and requests migrate. The last line is one line of JSON.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

from llmcourse.cli.parser import Parser
from llmcourse.cluster import Freeness, Link, Rebalance, VirtualDriver
from llmcourse.engine import Engine, replay
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.summary import summary
from llmcourse.workload import Arrival, Poisson, PowerLaw, open_loop, profile

LONGEST = 4096
PIECE = 20_000                           # requests made at a time
MOVING_RATE = 1.2                        # requests/s and instance: near the knee; at 1.4 queues grow without end
RATE = 3.0
PEERS = {"Vidur, metrics on": "213", "Vidur, metrics off": "347", "splitwise-sim": "426-727"}


def main(argv: list[str]) -> int:
    """Measure, print a table and the JSON line."""
    args = _parser().parse_args(argv)
    rows = _one_instance(args)
    about = {"benchmark": "sim", "date": str(date.today()), "machine": platform.processor() or platform.machine(),
             "python": platform.python_version(), "requests": args.requests, "rate": RATE, "rows": rows}
    if args.million:
        about["million"] = _million(args)
    if args.moving:
        about["moving"] = _moving(args)
    print(json.dumps(about))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="llmcourse bench sim", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=5000, help="requests on one instance")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument("--million", action="store_true", help="also --total requests on --instances")
    parser.add_argument("--moving", action="store_true", help="the same with load reports and migrations")
    parser.add_argument("--total", type=int, default=1_000_000, help="requests of the long run")
    parser.add_argument("--instances", type=int, default=64, help="instances of the long run")
    return parser


def clipped(arrivals: Iterator[Arrival] | list[Arrival]) -> Iterator[Arrival]:
    """The same with at most LONGEST tokens in all, as Vidur clips them: the prompt gives way."""
    for a in arrivals:
        output = min(a.output_tokens, LONGEST - 1)
        yield Arrival(a.time, min(a.prompt_tokens, LONGEST - output), output)


def _one_instance(args: argparse.Namespace) -> dict[str, Any]:
    workload = list(clipped(profile("azure-conversation").generate(args.requests, seed=0, process=Poisson(RATE))))
    print(f"{args.requests} requests at {RATE}/s, Llama 2 7B on one A100 80 GB, budget 512, at most 128 at once\n")
    print(f"{'':<22}{'requests/s':>12}{'steps/s':>12}{'seconds':>10}")
    rows = {}
    for name in ("ledger", "events", "stepping"):
        runs = [_run(name, workload) for _ in range(args.repeats)]
        seconds = statistics.median(run[0] for run in runs)
        steps = runs[0][1]
        rows[name] = {"requests_per_s": round(len(workload) / seconds), "steps_per_s": round(steps / seconds),
                      "seconds": round(seconds, 2), "steps": steps}
        print(f"llmcourse, {name:<11}{len(workload) / seconds:>12,.0f}{steps / seconds:>12,.0f}{seconds:>10.2f}")
    for name, figure in PEERS.items():
        print(f"{name:<22}{figure:>12}    (published set-up, measured on two cores of this class)")
    return rows


def _run(name: str, workload: list[Arrival]) -> tuple[float, int]:
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", ledger=None if name == "events" else Ledger())
    if name == "stepping":
        engine.foresight = None
    started = time.perf_counter()
    table = replay(engine, workload)
    told = summary(table)
    seconds = time.perf_counter() - started
    assert len(table) == len(workload) and table.finished.all() and str(told)
    return seconds, engine.counters.steps


def power_law(total: int, rate: float) -> Iterator[Arrival]:
    """A stream of requests whose lengths have a mean of 256 tokens and a heavy tail, made piece by piece."""
    lengths, start = PowerLaw.of_mean(256, 6000, 1.1), 0.0
    for first in range(0, total, PIECE):
        piece = open_loop(Poisson(rate), lengths, lengths, min(PIECE, total - first), first)
        yield from (replace(arrival, time=start + arrival.time) for arrival in piece)
        start += piece[-1].time


def _moving(args: argparse.Namespace) -> dict[str, Any]:
    rate, ledger = MOVING_RATE * args.instances, Ledger()
    print(f"\nfreeness and migration over {args.instances} A10, {rate:g} requests/s")
    engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=851, ledger=ledger) for _ in range(args.instances)]
    driver = VirtualDriver(engines, Freeness(), Rebalance(), link=Link(4e9))
    started = time.perf_counter()
    table = driver.run(power_law(args.total, rate), progress=_progress(args.total))
    seconds = time.perf_counter() - started
    assert len(table) == args.total and table.finished.all()
    moved = sum(migration.outcome == "moved" for migration in driver.migrations)
    peak, told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, summary(table)
    print(f"{args.total:,} requests in {seconds:,.0f} s ({args.total / seconds:,.0f}/s), {moved:,} moved, "
          f"{peak:.2f} GB at most; P99 TTFT {told.ttft.p99:.2f} s")
    return {"requests": args.total, "seconds": round(seconds, 1), "moved": moved, "peak_gb": round(peak, 2),
            "ttft_p99": round(float(told.ttft.p99), 3), "steps": sum(engine.counters.steps for engine in engines)}


def _million(args: argparse.Namespace) -> list[dict[str, Any]]:
    print(f"\nround robin over {args.instances} instances, {RATE * args.instances:g} requests/s from a stream")
    print(f"{'requests':>12}{'seconds':>10}{'requests/s':>12}{'steps':>14}{'peak GB':>9}")
    rows = []
    for total in (args.total // 10, args.total):
        engines = [Engine.simulated("Llama 2 7B", "A100 80 GB", ledger=Ledger()) for _ in range(args.instances)]
        started = time.perf_counter()
        arrivals = clipped(profile("azure-conversation").stream(total, seed=0, process=Poisson(RATE * args.instances)))
        table = VirtualDriver(engines).run(arrivals, progress=_progress(total))
        seconds = time.perf_counter() - started
        assert len(table) == total and table.finished.all()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        steps = sum(engine.counters.steps for engine in engines)
        rows.append({"requests": total, "seconds": round(seconds, 1), "requests_per_s": round(total / seconds),
                     "steps": steps, "peak_gb": round(peak, 2)})
        print(f"{total:>12,}{seconds:>10.1f}{total / seconds:>12,.0f}{steps:>14,}{peak:>9.2f}")
    return rows


def _progress(total: int) -> Any:
    def tell(number: int) -> None:
        if sys.stderr.isatty() and number % 10_000 == 0:
            print(f"\r{number:,} of {total:,}", end="\r", file=sys.stderr)
    return tell
