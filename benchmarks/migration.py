"""What moving a request costs: pause, time, bytes and the others' patience, by four methods, simulated and real.

    llmcourse bench migration [--repeats 5] [--bandwidth 50] [--last-blocks 2] [--wall] [--only real] [--json FILE]

What is measured: a request of each length that decodes beside eight others is moved to another instance. Simulated:
Llama 2 7B on two A10 over 8 GB/s with eight others on both, whose steps begin at five distances. Real: course-tiny on
two engines of one process over a link held back to so many MB/s, in so many rounds, each an undisturbed run and every
method in turn. Figures are the median over those, "worst" is the largest.

"pause" is what the client sees: the longest gap between two of its tokens around the move less its usual gap, in ms and
in decode steps; "stopped" is `Migration.downtime`, which ends when the destination has it, not when it goes on. "last
copy" is the last one sent. "overhead" is how much longer the gaps of the source's others are than the same gaps without
a move, as long as the request still decodes there; "net" until the move is over, where they gain by its absence; of the
real rounds the quickest against the quickest without a move, for the machine is never quiet.

The real part's time is the CPU time of its one thread plus what the link takes: wall time on a quiet machine, and less
spoilt by what else runs on a busy one; --wall takes wall time. In one process the destination's steps delay the
source's: what "tokens" costs there is no overhead of the source's own, which "busy" shows: the source's CPU time for
the move against its length. And an order waits there until both have taken their step, so a pause of few steps is
counted in whole ones. The verdicts answer what was asked beforehand; nothing is tuned.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks._moving import BLOCK, MOVED, OTHERS, Trial
from benchmarks._moving_worlds import PHASES, Real, Simulated
from benchmarks._report import device_name, rounded
from llmcourse.cli.parser import Parser
from llmcourse.cluster import METHODS, Link, Terms

SIMULATED, REAL = (256, 512, 1024, 2048, 4096, 8192), (128, 256, 512, 1024, 2048)
Row = dict[str, Any]


def main(argv: list[str]) -> int:
    """Measure, print tables, verdicts and the JSON line."""
    args = _parser().parse_args(argv)
    terms = replace(Terms(BLOCK), last_blocks=args.last_blocks)
    started = time.perf_counter()
    found: Row = {"benchmark": "migration", "date": str(date.today()),
                  "device": device_name(), "cores": os.cpu_count(), "threads": 1,
                  "load_average": os.getloadavg()[0], "last_blocks": args.last_blocks, "others": OTHERS}
    if args.only != "real":
        print(f"\nsimulated: Llama 2 7B on two A10, link of 8 GB/s, {OTHERS} others on both, median of {len(PHASES)}\n")
        found["simulated"] = measure(Simulated(terms=terms), args.simulated or SIMULATED)
    if args.only != "simulated":
        print(f"\nreal: course-tiny on two engines of one process, one thread, link of {args.bandwidth:g} MB/s, "
              f"{OTHERS} others on the source, median of {args.repeats}\n")
        world = Real(Link(args.bandwidth * 1e6), terms, args.repeats, wall=args.wall)
        found["real"] = measure(world, args.real or REAL) | {"bandwidth": args.bandwidth * 1e6, "wall": args.wall,
                                                             "repeats": args.repeats}
    found["seconds"] = time.perf_counter() - started
    line = json.dumps(rounded(found))
    print(f"\n{line}")
    if args.json:
        args.json.write_text(line + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="llmcourse bench migration", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds of the real part (default: 5)")
    parser.add_argument("--bandwidth", type=float, default=50.0, help="MB/s of the real part's link (default: 50)")
    parser.add_argument("--last-blocks", type=int, default=Terms(BLOCK).last_blocks,
                        help="live stops when so many blocks are left (default: as everywhere, %(default)s)")
    parser.add_argument("--wall", action="store_true", help="real part: wall time, whatever else runs here")
    parser.add_argument("--only", choices=("simulated", "real"), help="leave the other part out")
    parser.add_argument("--simulated", type=int, nargs="+", help=f"lengths in tokens (default: {SIMULATED})")
    parser.add_argument("--real", type=int, nargs="+", help=f"the same of the real part (default: {REAL})")
    parser.add_argument("--json", type=Path, help="also write the JSON line to a file")
    return parser


def measure(world: Simulated | Real, lengths: Sequence[int]) -> Row:
    """All methods at all lengths in one world: prints a table and the verdicts."""
    heads = ("pause", "worst", "steps", "stopped", "total", "step", "last copy", "MB", "overhead", "net", "busy")
    print(f"{'tokens':<8}{'method':<15}" + "".join(f"{head:>10}" for head in heads))
    print(f"{'':<23}" + "".join(f"{unit:>10}" for unit in ("ms", "ms", "", "ms", "ms", "ms", "ms", "", "", "", "")))
    rows = []
    for length in lengths:
        for method, trials in world.trials(length, tuple(METHODS)).items():
            rows.append(row(length, method, trials, min if isinstance(world, Real) else statistics.median))
            _print(rows[-1])
        print()
    said = verdicts(rows)
    _tell(said)
    return {"rows": rows, "verdicts": said}


def row(length: int, method: str, trials: Sequence[Trial], of_overheads: Callable[[list[float]], float]) -> Row:
    """Medians over those that moved, in seconds, bytes and shares; why the others did not."""
    moved = [trial for trial in trials if trial.outcome == MOVED]
    found: Row = {"tokens": length, "method": method, "moved": len(moved), "trials": len(trials),
                  "same_tokens": sum(trial.same for trial in trials),
                  "reasons": sorted({trial.reason for trial in trials if trial.reason})}
    for name in ("pause", "steps", "of_bound", "stopped", "total", "step", "last_copy", "bytes", "copies", "busy"):
        found[name] = statistics.median([getattr(trial, name) for trial in moved]) if moved else None
    for name in ("overhead", "net"):
        values = [value for trial in moved if (value := getattr(trial, name)) is not None]
        found[name] = of_overheads(values) if values else None
    return found | {"worst": max((trial.pause for trial in moved), default=None),
                    "worst_of_bound": max((trial.of_bound for trial in moved), default=None)}


def _print(found: Row) -> None:
    cells = [_number(found[name], 1000) for name in ("pause", "worst")] + [_number(found["steps"])]
    cells += [_number(found[name], 1000) for name in ("stopped", "total", "step", "last_copy")]
    cells += [_number(found["bytes"], 1e-6)] + [_share(found[name]) for name in ("overhead", "net", "busy")]
    missing = found["trials"] - found["moved"]
    print(f"{found['tokens']:<8}{found['method']:<15}" + "".join(f"{cell:>10}" for cell in cells)
          + (f"   {missing} of {found['trials']} did not move: {'; '.join(found['reasons'])}" if missing else ""))


def _number(value: float | None, times: float = 1.0) -> str:
    return "-" if value is None else f"{times * value:,.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1%}"


# ---- what the issue asks -----------------------------------------------------------------------------------------

def verdicts(rows: Sequence[Row]) -> Row:
    """How pauses grow from the shortest to the longest request, what bounds live's, and what it costs the others."""
    by_method = {method: [entry for entry in rows if entry["method"] == method and entry["moved"]]
                 for method in METHODS}
    live = by_method["live"]
    costs = [entry["overhead"] for entry in live if entry["overhead"] is not None]
    return {"grows": {method: _growth(each) for method, each in by_method.items() if each},
            "lengths_grow": max(r["tokens"] for r in rows) / min(r["tokens"] for r in rows),
            "live_largest_over_smallest": (max(r["pause"] for r in live) / min(r["pause"] for r in live)
                                           if live else None),
            "live_steps": max((r["steps"] for r in live), default=None),
            "live_of_bound": max((r["of_bound"] for r in live), default=None),
            "live_worst_of_bound": max((r["worst_of_bound"] for r in live), default=None),
            "live_overhead": max(costs, default=None),
            "live_busy": max((r["busy"] for r in live), default=None),
            "unmoved": sum(r["trials"] - r["moved"] for r in rows),
            "other_tokens": sum(r["trials"] - r["same_tokens"] for r in rows)}


def _growth(entries: Sequence[Row]) -> float:
    """Pause of the longest over that of the shortest."""
    ordered = sorted(entries, key=lambda entry: entry["tokens"])
    return ordered[-1]["pause"] / ordered[0]["pause"]


def _tell(said: Row) -> None:
    grows = ", ".join(f"{method} {times:.2f}" for method, times in said["grows"].items())
    print(f"pause of the longest over the shortest, {said['lengths_grow']:.0f} times as long: {grows}")
    if said["live_steps"] is not None:
        print(f"live, largest over smallest pause of all lengths: {said['live_largest_over_smallest']:.2f}"
              " (asked: at most 2)")
        print(f"live, longest pause: {said['live_steps']:.2f} decode steps, {said['live_of_bound']:.0%} of one step "
              f"plus the last copy (asked: at most 100 %; the worst of all trials: {said['live_worst_of_bound']:.0%})")
        print(f"live, largest overhead of a length on the source's others: {_share(said['live_overhead'])} "
              f"(asked: under 5 %); the source was busy with it for at most {_share(said['live_busy'])} of the time")
    print(f"not moved: {said['unmoved']}; moved with other tokens than undisturbed: {said['other_tokens']}")
