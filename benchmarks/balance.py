"""Week 8's curve over load: eight simulated A10, five ways to spread and correct. Writes `week08/recorded_curve.json`.

    llmcourse bench balance [--requests 10000] [--seeds 3] [--processes 2]

Each point is one load served by one system: Poisson arrivals, power-law prompts and outputs of 256 tokens on average,
6,000 at most, Llama 2 7B on an A10 with 13,616 token slots (as in Sun et al., 2024). The seeds' requests are pooled
before any percentile is taken, and every percentile says of how many; `p99s` has that of each seed's requests singly.
Nothing here is fitted to the paper's numbers.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np

from llmcourse.cli.parser import Parser
from llmcourse.cluster import Dispatcher, Freeness, LeastTokens, Rebalance, RoundRobin, VirtualDriver
from llmcourse.engine import Engine
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.summary import summary
from llmcourse.metrics.table import Table
from llmcourse.paths import week
from llmcourse.workload import Arrival, Poisson, PowerLaw, open_loop

RATES = (2.0, 4.0, 5.0, 5.5, 5.75, 6.0, 6.25, 6.5, 7.0, 9.0)
LENGTHS = PowerLaw.of_mean(256, longest=6000)
SLOTS = 13_616
System = tuple[Callable[[], Dispatcher], Rebalance | None]
SYSTEMS: dict[str, System] = {
    "round robin": (RoundRobin, None),
    "fewest tokens": (LeastTokens, None),
    "freeness": (Freeness, None),
    "freeness + migration": (Freeness, Rebalance()),
    "freeness + migration of who runs": (Freeness, Rebalance(waiting=False)),
}


def load(rate: float, count: int, seed: int) -> list[Arrival]:
    """The workload of a point."""
    return open_loop(Poisson(rate), LENGTHS, LENGTHS, count, seed)


def serve(system: str, workload: list[Arrival]) -> tuple[Table, VirtualDriver]:
    """All of it on eight A10."""
    dispatch, rebalance = SYSTEMS[system]
    ledger = Ledger()
    engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=SLOTS // 16, ledger=ledger) for _ in range(8)]
    driver = VirtualDriver(engines, dispatch(), rebalance)
    return driver.run(workload), driver


def row(rate: float, system: str, tables: list[Table], moved: int) -> dict[str, Any]:
    """What is kept of a point, one table a seed: seconds, shares, counts."""
    table = Table.concat(tables)
    seen, preempted = summary(table), table["preemptions"]
    return {"rate": rate, "system": system, "requests": len(table),
            "ttft": {"mean": round(seen.ttft.mean, 4), "p50": round(seen.ttft.p50, 4), "p99": round(seen.ttft.p99, 4)},
            "p99s": [round(summary(one).ttft.p99, 4) for one in tables],
            "tpot": {"p50": round(seen.tpot.p50, 5), "p99": round(seen.tpot.p99, 5)},
            "e2e": round(seen.e2e.mean, 3), "preempted": round(float(np.mean(preempted > 0)), 5),
            "preempted_time": round(float(np.mean(table["preempted_time"])), 4), "moved": moved}


def point(job: tuple[float, str, int, int]) -> dict[str, Any]:
    """One rate under one system."""
    rate, system, count, seeds = job
    tables, moved = [], 0
    for seed in range(seeds):
        table, driver = serve(system, load(rate, count, seed))
        tables.append(table)
        moved += sum(migration.outcome == "moved" for migration in driver.migrations)
    return row(rate, system, tables, moved)


def main(argv: list[str]) -> int:
    """Serve every point and write the file."""
    parser = Parser("llmcourse bench balance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000, help="of each run (default: 10,000)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each point (default: 3)")
    parser.add_argument("--processes", type=int, default=2, help="to run side by side (default: 2)")
    parser.add_argument("--out", type=Path, default=week(8) / "recorded_curve.json")
    options = parser.parse_args(argv)
    jobs = [(rate, system, options.requests, options.seeds) for rate in RATES for system in SYSTEMS]
    rows = []
    with Pool(options.processes) as pool:
        for found in pool.imap(point, jobs):
            rows.append(found)
            print(json.dumps(found), flush=True)
    head = {"what": "eight simulated A10 with Llama 2 7B, power-law lengths; made by benchmarks/balance.py",
            "date": datetime.now(UTC).date().isoformat(), "requests": options.requests, "seeds": options.seeds}
    body = ",\n  ".join(json.dumps(entry) for entry in rows)
    options.out.write_text(json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n  {body}\n ]\n}}\n', encoding="utf-8")
    return 0
