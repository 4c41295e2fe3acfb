"""`llmcourse sim`: serve a workload with any model on any GPU, in virtual time, and say how it went.

The scheduler, the policies and the block pool are those that serve the real model; only the time of a step comes from a
cost model. The report has vLLM's names, so it reads like the dashboard of a real service. Events, a Chrome trace and a
page of figures are written on request. Weeks 3-5.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmcourse.cli.parser import Parser
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.cli.sim_run import Machine, Outcome, Setup
    from llmcourse.workload.arrival import Arrival

PAGE_REQUESTS = 2000        # a page of more requests shows distributions only: its time lines would be unreadable
MOST_RARE, MOST_OFTEN = 1e-6, 1e9        # requests/s between which a double still tells steps apart
MODEL, GPU, WORKLOAD, REQUESTS = "Llama 2 7B", "A100 80 GB", "azure-conversation", 1000




def _count(text: str, most: int = 10**9) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text[:30]} is not a whole number from 1 to {most:,}")
    return int(text)


def _many(text: str) -> int:
    return _count(text, 10**7)           # each takes memory of its own


def _rate(text: str) -> float:
    if not MOST_RARE <= _positive(text) <= MOST_OFTEN:
        raise argparse.ArgumentTypeError(f"{text} requests/s; give {MOST_RARE:g} to {MOST_OFTEN:g}")
    return float(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 100):
        raise argparse.ArgumentTypeError(f"{text[:30]} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = Parser(prog="llmcourse sim", description="Serve a workload in virtual time and say how it went.",
                   epilog='Example: llmcourse sim --model "Llama 3 8B" --gpu L4 --rate 2 --policy sjf --slo-ttft 1')
    of = made.add_argument_group("the machine")
    of.add_argument("--model", default=MODEL, help=f"a shape of data/models.json (default {MODEL})")
    of.add_argument("--gpu", default=GPU, help=f"hardware of data/hardware.json (default {GPU})")
    of.add_argument("--gpus", type=_count, help="GPUs that are one instance (default 1; 8 with --cost table)")
    of.add_argument("--cost", choices=("roofline", "table"), default="roofline",
                    help="what a step takes: arithmetic (default), or measured times of Llama 2 70B and BLOOM 176B")
    of.add_argument("--num-blocks", type=_many, help="KV blocks of 16 tokens (default: what fits beside the weights)")
    of.add_argument("--instances", type=_many, default=1, help="how many of it (default 1)")
    of.add_argument("--dispatch", metavar="WHERE",
                    help="which instance gets a request, e.g. least-tokens or freeness (default round-robin)")
    of.add_argument("--migrate", nargs="?", const="live", metavar="METHOD",
                    help="move requests away from full instances: live (default), stop-and-copy, recompute or tokens")
    of.add_argument("--autoscale", metavar="NAME",
                    help="start and drain instances by reactive, queue, kv, predictive or slo-debt, e.g. "
                         "kv:least=10,most=8; a start takes as long as the weights need over 10 Gbit/s, and 15 s")
    of = made.add_argument_group("the scheduler")
    of.add_argument("--policy", default="fcfs", help="who goes next, e.g. sjf or round-robin:quantum=32 (default fcfs)")
    of.add_argument("--admission", default="all", metavar="RULE",
                    help="who is sent away: nobody (all, default), backlog:tokens=20000, shedding, slo:margin=1.2")
    of.add_argument("--batching", choices=("static", "continuous", "mixed"), default="mixed",
                    help="how a step is filled (default mixed)")
    of.add_argument("--token-budget", type=_count, default=512, help="tokens a step may compute (default 512)")
    of.add_argument("--max-running", type=_count, default=128, help="requests that run at once (default 128)")
    of.add_argument("--itl", type=_positive, metavar="SECONDS",
                    help="let each instance find how many it may run at once, so that the mean time between tokens "
                         "stays below this")
    of = made.add_argument_group("the memory")
    of.add_argument("--memory", default="paged", metavar="KIND",
                    help="paged (default); hash or radix: with a prefix cache; contiguous: max:max_length=4096, exact, "
                         "growing:compaction=True")
    of.add_argument("--preemption", choices=("recompute", "swap", "cheaper"), default="recompute",
                    help="what becomes of the KV of who must give way (default recompute)")
    of.add_argument("--parking", action="store_true",
                    help="who gives its seat to another keeps its KV while there is room (for a preemptive --policy, "
                         "such as mlfq)")
    of.add_argument("--host-blocks", type=_many, help="blocks of swap space (default: as many as the instance has)")
    of.add_argument("--link", type=_positive, metavar="GB/S", help="to host memory, in 10^9 bytes/s (default 20)")
    of = made.add_argument_group("the workload")
    which = of.add_mutually_exclusive_group()
    which.add_argument("--workload", metavar="PROFILE", default=WORKLOAD,
                       help=f"requests like those of a real trace (default {WORKLOAD})")
    which.add_argument("--trace", metavar="FILE", help="the requests of a trace file (Azure, Mooncake, arena, our own)")
    of.add_argument("--requests", type=_many, help=f"how many (default {REQUESTS}, or the whole trace)")
    of.add_argument("--rate", type=_rate, help="requests/s on average (default: the trace's own)")
    of.add_argument("--poisson", action="store_true",
                    help="random arrivals at a steady rate, not the ups and downs of the trace")
    of.add_argument("--max-prompt", type=_count, metavar="TOKENS", help="cut longer prompts")
    of.add_argument("--slo-ttft", type=_positive, metavar="SECONDS", help="first token promised after so long")
    of.add_argument("--slo-tpot", type=_positive, metavar="SECONDS", help="each further token promised after so long")
    of.add_argument("--seed", type=_seed, default=0, help="the same seed makes the same requests (default 0)")
    of = made.add_argument_group("what is written")
    of.add_argument("--json", action="store_true", help="print one JSON object instead of the report")
    of.add_argument("--events", metavar="FILE", type=Path, help="the event log, one JSON object a line")
    of.add_argument("--chrome-trace", metavar="FILE", type=Path, help="for ui.perfetto.dev or chrome://tracing")
    of.add_argument("--html", metavar="FILE", type=Path, help="a page of figures that needs no network")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code. Raises UserError for what cannot be done."""
    args = parser().parse_args(argv)
    _check_files([path for path in (args.events, args.chrome_trace, args.html) if path is not None])

    # The rest loads here, so that --help and slips answer at once.
    from tqdm import tqdm

    from llmcourse.cli.sim_checks import check_workload, notes
    from llmcourse.cli.sim_report import Load, as_dict, report
    from llmcourse.cli.sim_run import check_room, make_memory, serve

    setup = _setup(args, _machine(args))
    arrivals = _arrivals(args)
    check_workload(setup, arrivals)
    check_room(arrivals, make_memory(args.memory, setup.machine.num_blocks))
    if args.html and len(arrivals) <= PAGE_REQUESTS:
        setup = replace(setup, keep_events=True)
    with tqdm(total=len(arrivals), unit=" requests", file=sys.stderr, delay=1, leave=False,
              mininterval=0.5 if sys.stderr.isatty() else 10) as bar:
        outcome = serve(setup, arrivals, lambda count: bar.update(count - bar.n) and None)
    load = Load.of(args.trace or args.workload, args.seed, arrivals)
    about = notes(setup, arrivals, None if args.trace or args.poisson else args.rate)
    said = report(setup, load, outcome, about)
    print(json.dumps(as_dict(setup, load, outcome, about), allow_nan=False) if args.json else said)
    _write(args, f"{setup.machine.model} on {setup.machine.hardware.name}, {args.policy}", said, outcome)
    return 0


def _check_files(paths: Sequence[Path]) -> None:
    for path in paths:
        folder = path.absolute().parent
        if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
            raise UserError(f"cannot write {path}: it must be a file in a folder that exists and may be written to")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"{', '.join(map(str, paths))}: each of --events, --chrome-trace and --html needs a file of "
                        "its own")


def _machine(args: argparse.Namespace) -> Machine:
    from llmcourse.cli.sim_run import machine

    return machine(args.model, args.gpu, args.gpus or (8 if args.cost == "table" else 1), args.cost, args.num_blocks)


def _setup(args: argparse.Namespace, served: Machine) -> Setup:
    """Events are kept only for who reads them: they take far more memory than the run."""
    from llmcourse.cli.sim_run import Setup

    keep = bool(args.events or args.chrome_trace or args.migrate or args.autoscale)
    return Setup(served, args.policy, args.admission, args.batching, args.token_budget, args.max_running,
                 args.instances, keep, args.memory, args.preemption, args.host_blocks,
                 args.link and args.link * 1e9, args.dispatch, args.migrate, args.autoscale,
                 args.parking, args.itl)


def _arrivals(args: argparse.Namespace) -> list[Arrival]:
    from llmcourse.cli.sim_run import arrivals_of_profile, arrivals_of_trace, promised

    if args.trace is not None and args.poisson:
        raise UserError("--poisson makes up arrival times, --trace has its own; give one of them")
    if args.trace is not None:
        arrivals = arrivals_of_trace(args.trace, args.requests, args.rate, args.max_prompt, args.seed)
    else:
        arrivals = arrivals_of_profile(args.workload, args.requests or REQUESTS, args.rate, args.poisson, args.seed,
                                       args.max_prompt)
    return promised(arrivals, args.slo_ttft, args.slo_tpot)


def _write(args: argparse.Namespace, title: str, report: str, outcome: Outcome) -> None:
    """The files that were asked for; each is named on stderr."""
    for path, write in ((args.events, _write_events), (args.chrome_trace, _write_chrome),
                        (args.html, partial(_write_page, title, report, args.slo_ttft))):
        if path is not None:
            try:
                write(outcome, path)
                print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)
            except OSError as error:
                raise UserError(f"cannot write {path}: {error.strerror}") from None


def _write_events(outcome: Outcome, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for event in outcome.events:
            file.write(json.dumps({"time": event.time, "kind": event.kind, "request": event.request,
                                   "instance": event.instance, "data": event.data}) + "\n")


def _write_chrome(outcome: Outcome, path: Path) -> None:
    from llmcourse.viz import write_chrome_trace

    write_chrome_trace(outcome.events, path)


def _write_page(title: str, report: str, slo_ttft: float | None, outcome: Outcome, path: Path) -> None:
    from llmcourse.cli.sim_page import page

    path.write_text(page(title, report, outcome.table, outcome.events, slo_ttft, outcome.leases), encoding="utf-8")
