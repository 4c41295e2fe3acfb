"""What deciding buys and costs: regime maps of prediction, preemption, fairness and autoscaling over load.

    llmcourse bench decide [--only NAME ...] [--seeds 3] [--quick] [--json FILE]

Each map serves the same workload under several policies at several loads, once for each seed, and says mean and spread,
with tokens per second beside every latency: where a policy helps, where it does nothing, and what it costs. Nothing is
fitted to a paper's number. The maps stand in `_decide_*.py`; the last line is one line of JSON.
"""

import importlib
import json
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks._maps import Maker
from llmcourse.cli.parser import Parser
from llmcourse.errors import UserError

HERE = Path(__file__).parent


def makers() -> dict[str, Maker]:
    """Every map by its name, in order of the files and of their tables."""
    found: dict[str, Maker] = {}
    for path in sorted(HERE.glob("_decide_*.py")):
        found |= importlib.import_module(f"benchmarks.{path.stem}").MAPS
    return found


def main(argv: list[str]) -> int:
    """Make the maps that were asked for, print each as soon as it stands, then the JSON line."""
    known = makers()
    parser = Parser("llmcourse bench decide", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each point (default: 3)")
    parser.add_argument("--quick", action="store_true", help="small workloads, to see that it works")
    parser.add_argument("--json", type=Path, help="also write the JSON to this file")
    args = parser.parse_args(argv)
    for name in args.only or ():
        if name not in known:
            raise UserError(f"no map {name!r}; there are {', '.join(known)}")
    if args.seeds < 1:
        raise UserError(f"{args.seeds} seeds; a point needs at least 1")
    maps = {}
    for name in args.only or known:
        start = time.perf_counter()
        made = known[name](range(args.seeds), args.quick)
        if not made.rows:
            raise UserError(f"the map {name!r} has no rows: nothing was measured")
        print(made, flush=True)
        maps[name] = made.as_json() | {"seconds": round(time.perf_counter() - start, 1)}
    about = {"benchmark": "decide", "date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(),
             "machine": platform.machine(), "seeds": args.seeds, "quick": args.quick, "maps": maps}
    text = json.dumps(about)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0
