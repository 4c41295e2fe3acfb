"""How well the simulator foretells the real engine: calibrated on this machine, then both serve the same workload.

What is measured: the real engine on course-tiny, one thread, serves a calibration workload (closed loops of 1 to 32
users) from whose log a cost model is fitted. Then it serves a held-out workload with other lengths and open-loop
arrivals in real time: all there at once, and Poisson at 0.5 and 0.8 of the capacity that the simulator foretells. The
simulator gets the same arrivals and lengths, and nothing of those runs. Every real run is made twice, so that the
machine's own difference from run to run stands beside the error; a slice of calibration before each run lets a machine
that slows down slow both. "At its pace" is the error when the simulated machine is as fast on average as the real one
was during that very run: what is left is the simulator's own. At last each real run is followed in virtual time with
its recorded step times: the scheduler must take the same decisions. Garbage is collected between runs only. Run it on
an otherwise idle machine. The last line is one line of JSON.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np

from benchmarks._report import device_name, rounded
from llmcourse.cli.parser import Parser
from llmcourse.engine import Engine
from llmcourse.engine.decisions import decisions, first_difference
from llmcourse.engine.replay import replay
from llmcourse.executors.recorded import rerun
from llmcourse.metrics.calibration import FittedCost, busy_steps, calibrate
from llmcourse.metrics.table import Table
from llmcourse.workload import Arrival, ClosedLoop, Lognormal, Poisson, Quantiles, open_loop

USERS = (1, 2, 4, 8, 16, 32)
LOADS = {"all at once": None, "0.5 of capacity": 0.5, "0.8 of capacity": 0.8}
QUANTITIES = {"TTFT": "ttft", "TPOT": "tpot", "end to end": "e2e"}
PERCENTILES = {"median": 50, "P99": 99}
GOAL = 0.10
SETTINGS = {"num_blocks": 2048, "token_budget": 256, "max_running": 32}
Make = Callable[[], Engine]


@dataclass(frozen=True)
class Row:
    """One percentile of one quantity under one load: seconds in both real runs and as foretold."""

    load: str
    quantity: str
    first: float
    second: float
    predicted: float
    paced: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def paced_error(self) -> float:
        """Relative error, mean of both runs, of what is foretold for a machine as fast as it was during each run."""
        return (self.paced[0] / self.first + self.paced[1] / self.second) / 2 - 1

    @property
    def error(self) -> float:
        """Relative error against the mean of both real runs."""
        return self.predicted / ((self.first + self.second) / 2) - 1

    @property
    def spread(self) -> float:
        """How far the second real run was from the first."""
        return self.second / self.first - 1


@dataclass(frozen=True)
class Served:
    """A real run: what its requests lived through, and its event log."""

    table: Table
    events: list[Any]


# ---- workloads ---------------------------------------------------------------------------------------------------

def calibration_slice(make: Make, seed: int, per_user: float = 1.5) -> list[list[Any]]:
    """Serve closed loops of few and many users with prompts and outputs of all sizes; the logs."""
    lengths = {"prompts": _between(4, 500), "outputs": _between(2, 120)}
    logs = []
    for users in USERS:
        engine, count = make(), max(2, round(users * per_user))
        _undisturbed(engine, ClosedLoop(users, 0.0, seed=100 * seed + users, count=count, **lengths))
        logs.append(list(engine.events))
    return logs


def _between(low: float, high: float) -> Quantiles:
    """Every order of magnitude between low and high is as likely as the next."""
    return Quantiles(np.geomspace(low, high, 33).tolist())


def held_out(rate: float | None, count: int) -> list[Arrival]:
    """Requests with heavy tails: Poisson arrivals a second, or None: all there at the start."""
    arrivals = open_loop(Poisson(rate or 1.0), Lognormal(60, 400), Lognormal(40, 200), count, seed=2026)
    return arrivals if rate else [Arrival(0.0, a.prompt_tokens, a.output_tokens) for a in arrivals]


# ---- the experiment ----------------------------------------------------------------------------------------------

def experiment(make: Make, count: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Calibrate, run for real twice, foretell; rows and what explains them."""
    logs = calibration_slice(make, seed=0)
    capacity = _capacity(calibrate(*logs), count)
    say(f"capacity foretold after the first slice of calibration: {capacity:.2f} requests/s")
    workloads = {load: held_out(share and share * capacity, count) for load, share in LOADS.items()}
    runs: dict[str, list[Served]] = {load: [] for load in LOADS}
    for turn in (1, 2):
        for number, (load, workload) in enumerate(workloads.items()):
            logs += calibration_slice(make, seed=10 * turn + number)
            started = time.perf_counter()
            runs[load].append(_serve(make(), workload))
            say(f"real run {turn}, {load}: {count} requests in {time.perf_counter() - started:.1f} s")
    cost = calibrate(*logs)
    speed = {load: _speed(cost, both) for load, both in runs.items()}
    paced = {load: [predict(cost.slowed(1 + each), workloads[load]) for each in speed[load]] for load in LOADS}
    return {"cost": cost, "capacity": capacity, "speed": speed,
            "decisions": [followed(log) for log in [*logs, *(run.events for both in runs.values() for run in both)]],
            "rows": [row for load, (first, second) in runs.items()
                     for row in compare(load, first.table, second.table, predict(cost, workloads[load]), *paced[load])]}


def predict(cost: FittedCost, workload: list[Arrival]) -> Table:
    """What the same scheduler makes of the workload in virtual time."""
    return replay(Engine.simulated(cost=cost, **SETTINGS), workload)


def followed(log: list[Any]) -> tuple[int, str]:
    """How many decisions a recorded run took, and the first that comes out otherwise when it is run again."""
    limits = {name: SETTINGS[name] for name in ("token_budget", "max_running")}
    taken = decisions(log)
    return len(taken), first_difference(taken, decisions(rerun(log, **limits).events))


def _serve(engine: Engine, workload: list[Arrival]) -> Served:
    return Served(_undisturbed(engine, workload), list(engine.events))


def _undisturbed(engine: Engine, workload: Any) -> Table:
    """Replay without Python's garbage collector, whose pauses no cost model knows; servers freeze it likewise."""
    gc.collect()
    gc.disable()
    try:
        return replay(engine, workload)
    finally:
        gc.enable()


def _capacity(cost: FittedCost, count: int) -> float:
    """Requests a second of a machine that is never without work."""
    return count / float(predict(cost, held_out(None, count))["e2e"].max())


def _speed(cost: FittedCost, runs: list[Served]) -> list[float]:
    """How much longer the steps that were really taken took than the cost model says, in each run."""
    found = [busy_steps(run.events) for run in runs]
    return [float(steps.seconds.sum() / steps.predicted(cost).sum() - 1) for steps in found]


def compare(load: str, *tables: Table) -> list[Row]:
    """A row for each percentile of each quantity, of both real runs, foretold, and foretold at each one's pace."""
    rows = []
    for quantity, column in QUANTITIES.items():
        for name, q in PERCENTILES.items():
            first, second, predicted, *paced = (float(np.nanpercentile(table[column], q)) for table in tables)
            rows.append(Row(load, f"{quantity} {name}", first, second, predicted, (paced[0], paced[1])))
    return rows


def verdict(row: Row, speed: list[float]) -> str:
    """Within the goal, or what missed."""
    if abs(row.error) <= GOAL:
        return "yes"
    slower = float(np.mean(speed))
    if abs(row.paced_error) <= GOAL:
        return f"no: steps took {slower:+.0%}, and at that pace it is right"
    if abs(row.spread) >= abs(row.error):
        return "no: real runs differ as much"
    if abs(slower) >= 0.03 and slower * row.error < 0:
        return f"no: steps took {slower:+.0%}, and queues multiply it"
    return "no: the steps are right, their order in time is not"


# ---- what is printed ---------------------------------------------------------------------------------------------

def main(argv: list[str]) -> int:
    """Measure, print the table and the JSON line."""
    args = _parser().parse_args(argv)
    started = time.perf_counter()
    make, about = _real(args)
    calibration_slice(make, seed=99, per_user=0.2)                               # warm-up
    found = experiment(make, args.requests)
    _print(found)
    within = sum(abs(row.error) <= GOAL for row in found["rows"])
    paced = sum(abs(row.paced_error) <= GOAL for row in found["rows"])
    print(f"{within} of {len(found['rows'])} within {GOAL:.0%} of the mean of both real runs, "
          f"{paced} at each run's pace")
    taken, differences = sum(count for count, _ in found["decisions"]), [d for _, d in found["decisions"] if d]
    print(f"decisions of the scheduler, real and followed in virtual time: equal in "
          f"{len(found['decisions']) - len(differences)} of {len(found['decisions'])} runs ({taken:,} decisions)",
          *differences[:1])
    rows = [{**asdict(row), "error": row.error, "spread": row.spread, "paced_error": row.paced_error}
            for row in found["rows"]]
    print(json.dumps(rounded({"benchmark": "fidelity", **about, "requests": args.requests, "date": str(date.today()),
                              "seconds": time.perf_counter() - started, "fit": asdict(found["cost"]),
                              "capacity": found["capacity"], "steps_longer_by": found["speed"],
                              "within": within, "within_at_pace": paced,
                              "runs_followed": len(found["decisions"]), "decisions": taken,
                              "runs_that_differ": len(differences), "rows": rows})))
    return 1 if differences else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="llmcourse bench fidelity", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="course-tiny", help="name or folder (default: course-tiny)")
    parser.add_argument("--requests", type=int, default=200, help="held-out requests under each load (default: 200)")
    parser.add_argument("--quick", action="store_const", dest="requests", const=20, help="20 requests: about 40 s")
    return parser


def _real(args: argparse.Namespace) -> tuple[Make, dict[str, Any]]:
    """Makes engines that share one model, on one thread; and what to say of them."""
    import torch

    from llmcourse.executors import TorchExecutor
    from llmcourse.kv import BlockPool
    from llmcourse.model.loading import load_model
    torch.set_num_threads(1)
    model, _ = load_model(args.model, device="cpu")
    executor = TorchExecutor(model, SETTINGS["num_blocks"], 16)
    options = {name: value for name, value in SETTINGS.items() if name != "num_blocks"}
    return (lambda: Engine(executor, BlockPool(SETTINGS["num_blocks"], 16), **options),
            {"model": args.model, "device": device_name(), "threads": 1, "torch": torch.__version__, **SETTINGS})


def _print(found: dict[str, Any]) -> None:
    print(f"\nthe cost model: {found['cost']}\n")
    heads = f"{'real 1':>10}{'real 2':>10}{'differ':>8}{'foretold':>10}{'error':>8}{'at its pace':>13}"
    print(f"{'load':<17}{'':<19}{heads}  within {GOAL:.0%}")
    for row in found["rows"]:
        first, second, predicted = (f"{1e3 * seconds:.1f} ms" for seconds in (row.first, row.second, row.predicted))
        print(f"{row.load:<17}{row.quantity:<19}{first:>10}{second:>10}{row.spread:>+8.1%}{predicted:>10}"
              f"{row.error:>+8.1%}{row.paced_error:>+13.1%}  {verdict(row, found['speed'][row.load])}")
    print("\nsteps of the real runs against the cost model: " + "; ".join(
        f"{load} {first:+.1%}, {second:+.1%}" for load, (first, second) in found["speed"].items()))
