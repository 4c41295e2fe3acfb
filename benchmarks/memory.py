"""How many requests the same KV memory admits, reserved, grown or paged, and where its slots go.

What is measured, in the simulator: one model on one A100 80 GB with the KV memory that fits beside the weights,
lengths of the Azure 2023 conversation trace (clipped to 4,096 tokens in all, the model's maximum), Poisson arrivals or
all there at once, batching "mixed" with 512 tokens a step. Memories of equal size under the same scheduler: contiguous
with the maximum reserved, with the true length reserved (an oracle, first fit and best fit), growing with and without
compaction, and paged. Blocks moved inside the GPU are charged with reading and writing them at the roofline's speed.

"running" is the mean over busy time, or, for all at once, over the time in which somebody waits; "used" is the share of
slots that hold a token, "of taken" the same without the free slots, and the rest of what is taken is reserved, internal
or external waste (kv/waste.py; what is reserved includes prompts under way). Normalised latency is end-to-end seconds
per output token, the mean over requests (Yu et al., 2022). The knee is the Poisson rate up to which it stays within
twice, or ten times, its value at a load of next to nothing: twice is reached by sharing the machine, ten times only by
standing in the queue. "req/s" is what comes out from the first arrival to the last token.

Beside it stands what Kwon et al. (2023) say of KV memory in §1 and Figure 2: 20.4 % to 38.2 % of it held tokens in
systems before paging, 96.3 % in vLLM, as a mean over their experiment of §6.2 (OPT models, ShareGPT and Alpaca lengths,
2,048 tokens at most). Other lengths, another maximum and another load: their numbers are no target. --sweep adds block
sizes; a model that leaves memory to spare shows where paging gives nothing. The last line is one line of JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from benchmarks._report import rounded
from benchmarks.sim import LONGEST, clipped
from llmcourse.cli.parser import Parser
from llmcourse.engine import Engine, VirtualClock, replay
from llmcourse.executors.roofline import RooflineExecutor, copy_seconds
from llmcourse.kv import BlockPool, ContiguousPool, Memory
from llmcourse.metrics.cost_model import RooflineCost, blocks_that_fit
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.kv_meter import KVMeter, KVUsage
from llmcourse.metrics.table import Table
from llmcourse.model.shapes import shape
from llmcourse.workload import Arrival, Poisson, profile

GPU = "A100 80 GB"
SCARCE, AMPLE = "Llama 2 13B", "Llama 3 8B"      # 56 thousand slots beside the weights, and 431 thousand
BLOCK = 16
BUDGET = 512
AT_ONCE = float("inf")
LOADS = {SCARCE: (0.5, 1.0, 1.5, 2.0, 3.0, AT_ONCE), AMPLE: (3.0, 6.0, AT_ONCE)}     # requests a second
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TIMES = (2, 10)
LIGHT = 0.1                                      # requests a second: hardly ever two at a time
PAPER = "Kwon et al. (2023), Figure 2: 20.4-38.2 % of KV memory held tokens in systems before paging, 96.3 % in vLLM"
Make = Callable[[int, int], Memory]

MEMORIES: dict[str, Make] = {
    "reserve-max": lambda blocks, size: ContiguousPool(blocks, size, "max", max_length=LONGEST),
    "oracle, first fit": partial(ContiguousPool, reservation="exact"),
    "oracle, best fit": partial(ContiguousPool, reservation="exact", fit="best"),
    "growing": partial(ContiguousPool, fit="best"),
    "growing+compaction": partial(ContiguousPool, fit="best", compaction=True),
    "paged": BlockPool,
}


@dataclass(frozen=True)
class Run:
    """One memory under one load: what its requests lived through, and where the slots went."""

    memory: str
    load: float
    table: Table
    usage: KVUsage
    running_peak: int
    copied_tokens: int

    @property
    def throughput(self) -> float:
        """Requests a second, from the first arrival to the last token."""
        ends = self.table["arrival"] + self.table["e2e"]
        return len(self.table) / float(ends.max() - self.table["arrival"].min())

    @property
    def normalised_latency(self) -> float:
        """Mean over requests of end-to-end seconds per output token."""
        return float((self.table["e2e"] / self.table["output_tokens"]).mean())

    @property
    def preempted(self) -> float:
        """Share of requests that were preempted at least once."""
        return float((self.table["preemptions"] > 0).mean())

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers; load None: all at once."""
        return {"memory": self.memory, "load": None if self.load == AT_ONCE else self.load,
                **self.usage.as_dict(), "running_peak": self.running_peak,
                "throughput": self.throughput, "normalised_latency": self.normalised_latency,
                "preempted": self.preempted,
                "copied_tokens_per_s": self.copied_tokens / self.usage.seconds}


# ---- the experiment ----------------------------------------------------------------------------------------------

def workload(load: float, count: int) -> list[Arrival]:
    """The same lengths under every load, in the same order."""
    rate = 1.0 if load == AT_ONCE else load
    arrivals = clipped(profile("azure-conversation").generate(count, seed=0, process=Poisson(rate)))
    return [a if load < AT_ONCE else Arrival(0.0, a.prompt_tokens, a.output_tokens) for a in arrivals]


def serve(memory: str, load: float, count: int, model: str = SCARCE, block_size: int = BLOCK,
          batching: str = "mixed") -> Run:
    """Serve the workload from one kind of memory; all kinds have the same number of slots."""
    machine, config = hardware(GPU), shape(model)
    slots = blocks_that_fit(machine, config, BLOCK) * BLOCK
    pool = MEMORIES[memory](slots // block_size, block_size)
    cost, meter = RooflineCost(machine, config), KVMeter(pool)
    executor = RooflineExecutor(cost, copy_seconds=copy_seconds(machine, config, block_size))
    engine = Engine(executor, pool, batching=batching, clock=VirtualClock(), ledger=meter, token_budget=BUDGET,
                    max_running=BUDGET)
    table = replay(engine, workload(load, count))
    assert table.finished.all() and len(table) == count
    return Run(memory, load, table, meter.usage(pressed=load == AT_ONCE), meter.running_peak,
               engine.counters.copied_blocks * block_size)


def knee(memory: str, count: int, times: float, model: str = SCARCE, high: float = 16.0,
         tolerance: float = 0.05) -> float:
    """Requests a second up to which normalised latency is at most so many ``times`` that of next to no load."""
    limit = times * serve(memory, LIGHT, min(count, 200), model).normalised_latency
    low = LIGHT
    while high > low * (1 + tolerance):
        middle = (low * high) ** 0.5
        if serve(memory, middle, count, model).normalised_latency <= limit:
            low = middle
        else:
            high = middle
    return low


def sweep(count: int, sizes: Iterable[int] = SIZES) -> list[dict[str, Any]]:
    """Paged memory with blocks of every size, all requests there at once: waste against the length of tables.

    Prompts are computed whole ("continuous"), so that only the rest of last blocks is without a token.
    """
    rows = []
    for size in sizes:
        run = serve("paged", AT_ONCE, count, block_size=size, batching="continuous")
        usage, slots = run.usage, blocks_that_fit(hardware(GPU), shape(SCARCE), BLOCK) * BLOCK
        taken = usage.used + usage.reserved + usage.internal
        unfilled = max(0.0, taken - usage.used)               # with blocks of one token 0, give or take a rounding
        rows.append({"block_size": size, "running": usage.running, "used": usage.used,
                     "last_block_waste": unfilled / taken,
                     "unfilled_slots": unfilled * slots / usage.running,
                     "table_entries": taken * slots / size / usage.running, "preempted": run.preempted})
    return rows


# ---- what is printed ---------------------------------------------------------------------------------------------

def main(argv: list[str]) -> int:
    """Measure, print the tables and the JSON line."""
    args = _parser().parse_args(argv)
    started = time.perf_counter()
    found: dict[str, Any] = {"benchmark": "memory", "date": str(date.today()), "gpu": GPU, "requests": args.requests,
                             "block_size": BLOCK, "token_budget": BUDGET, "models": {}}
    for model in (SCARCE, AMPLE):
        found["models"][model] = _model(model, args)
    print(f"\n{PAPER}")
    if args.sweep:
        found["block_sizes"] = _sweep(args.requests)
    found["seconds"] = time.perf_counter() - started
    print(json.dumps(rounded(found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="llmcourse bench memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1000, help="requests of each run (default: 1000)")
    parser.add_argument("--sweep", action="store_true", help="also block sizes of 1 to 256 tokens")
    parser.add_argument("--no-knee", action="store_false", dest="knee", help="leave out the search for the knee")
    return parser


def _model(model: str, args: argparse.Namespace) -> dict[str, Any]:
    """All memories under all loads, and the knee of each."""
    slots = blocks_that_fit(hardware(GPU), shape(model), BLOCK) * BLOCK
    print(f"\n{model} on one {GPU}: {slots:,} slots of KV memory, {slots // LONGEST} reservations of {LONGEST:,}\n")
    heads = ("running", "peak", "used", "of taken", "reserved", "internal", "external", "free", "req/s", "s/token",
             "preempted", "moved/s")
    print(f"{'load':<9}{'memory':<20}" + "".join(f"{head:>10}" for head in heads))
    runs = []
    for load in LOADS[model]:
        for memory in MEMORIES:
            runs.append(serve(memory, load, args.requests, model))
            _print(runs[-1])
        print()
    gain = _running(runs, "paged") / _running(runs, "reserve-max")
    print(f"all at once, paged admits {gain:.2f} times as many requests as reserve-max")
    knees = {times: {memory: knee(memory, args.requests, times, model) for memory in MEMORIES}
             for times in (TIMES if args.knee else ())}
    for times, found in knees.items():
        print(f"knee at {times} times the normalised latency of next to no load, requests/s: "
              + ", ".join(f"{memory} {rate:.2f}" for memory, rate in found.items()))
    return {"slots": slots, "rows": [run.as_dict() for run in runs], "paged_over_reserve_max": gain, "knees": knees}


def _running(runs: list[Run], memory: str) -> float:
    return next(run.usage.running for run in runs if run.memory == memory and run.load == AT_ONCE)


def _print(run: Run) -> None:
    usage = run.usage
    shares = (usage.used, usage.of_taken, usage.reserved, usage.internal, usage.external, usage.free)
    load = "at once" if run.load == AT_ONCE else f"{run.load:g}/s"
    print(f"{load:<9}{run.memory:<20}{usage.running:>10.1f}{run.running_peak:>10}"
          + "".join(f"{share:>10.1%}" for share in shares)
          + f"{run.throughput:>10.2f}{run.normalised_latency:>10.3f}{run.preempted:>10.1%}"
          + f"{run.copied_tokens / usage.seconds:>10,.0f}")


def _sweep(count: int) -> list[dict[str, Any]]:
    print(f"\npaged, {SCARCE}, all at once: the rest of the last block against the length of the table")
    print("".join(f"{head:>16}" for head in ("block size", "running", "used", "waste of taken", "slots a request",
                                             "table entries")))
    rows = sweep(count)
    for row in rows:
        print(f"{row['block_size']:>16}{row['running']:>16.1f}{row['used']:>16.1%}{row['last_block_waste']:>16.2%}"
              f"{row['unfilled_slots']:>16.1f}{row['table_entries']:>16.1f}")
    return rows
