"""`llmcourse data`: what workload data ships, which originals can be fetched, and whether what is here is sound.

The profiles in `data/workloads` ship and suffice for every lecture and lab. `fetch` brings the traces they were made of
from their owners, `verify` compares what is here with the checksums. `lengths` measures again how long course-tiny's
answers are (`data/lengths`). Weeks 4 and 9.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmcourse.cli.parser import Parser
from llmcourse.errors import UserError


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = Parser(prog="llmcourse data", description="Workload data: what ships, what can be fetched, is it sound.")
    what = made.add_subparsers(dest="what", required=True, metavar="list|fetch|verify|lengths")
    what.add_parser("list", help="profiles that ship, and the traces they were made of")
    get = what.add_parser("fetch", help="bring original traces from their owners")
    get.add_argument("names", nargs="+", metavar="NAME", help="names from the list, or all")
    what.add_parser("verify", help="compare what is here with the checksums")
    for command in what.choices.values():
        command.add_argument("--json", action="store_true", help="for a machine to read")
        command.add_argument("--folder", type=Path, help="where originals lie (default: data/traces in the course)")
    measure = what.add_parser("lengths", help="answer the prompts of data/lengths again, in about a minute")
    measure.add_argument("--json", action="store_true", help="for a machine to read")
    measure.add_argument("--out", type=Path, help="file to write (default: the one that ships)")
    measure.add_argument("--times", type=int, default=3, help="how many times the prompts of data/prompts (default: 3)")
    measure.add_argument("--samples", type=int, default=6, help="answers to each prompt (default: 6)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 1 when `verify` finds something damaged."""
    args = parser().parse_args(argv)
    if args.what == "lengths":
        rows = [_lengths(args.out, args.times, args.samples)]
        _show(rows, args.json, "{path}: {prompts} prompts, {samples} answers each, {mean} tokens on average"
              .format(**rows[0]))
        return 0
    from llmcourse.workload.originals import FOLDER  # numpy loads with a profile, not for --help

    folder = args.folder or FOLDER
    if args.what == "list":
        rows = _list(folder)
        _show(rows, args.json, _listed(rows, folder))
    elif args.what == "fetch":
        rows = [_fetch(name, folder) for name in _named(args.names)]
        _show(rows, args.json, "\n".join(f"{row['name']}: {row['path']}" for row in rows))
    else:
        rows = _verify(folder)
        _show(rows, args.json, "\n".join(f"{row['name']:<24}{row['what']:<10}{row['state']}" for row in rows))
        return int(any(row["damaged"] for row in rows))
    return 0


def _show(rows: list[dict[str, Any]], as_json: bool, text: str) -> None:
    print(json.dumps(rows, indent=1) if as_json else text)


# ---- list -------------------------------------------------------------------------------------------------------


def _list(folder: Path) -> list[dict[str, Any]]:
    from llmcourse.workload.originals import ORIGINALS
    from llmcourse.workload.profiles import profile, profile_names

    rows = []
    for name in profile_names():
        known, trace = profile(name), ORIGINALS[name]
        tokens = {kind: grid.at([0.5, 0.99]).tolist() for kind, grid in
                  (("prompt_tokens", known.prompts), ("output_tokens", known.outputs))}
        rows.append({"name": name, "about": known.about, "requests": known.requests, "seconds": known.seconds,
                     "rate": round(known.rate, 2), "gap_cv": known.gap_cv, **tokens, "source": known.source,
                     "licence": known.licence, "url": trace.url, "sha256": trace.sha256, "bytes": trace.size,
                     "fetched": (folder / trace.file).is_file()})
    return rows


def _listed(rows: list[dict[str, Any]], folder: Path) -> str:
    lines = [f"{'profile':<24}{'requests':>8} {'req/s':>6} {'CV':>6} {'prompt p50, p99':>16} {'output p50, p99':>16}"
             f"  {'licence':<11}original"]
    for row in rows:
        prompt, output = (f"{row[kind][0]:,}, {row[kind][1]:,}" for kind in ("prompt_tokens", "output_tokens"))
        there = "here" if row["fetched"] else f"{row['bytes'] / 1e6:.1f} MB" if row["url"] else "no file to fetch"
        lines.append(f"{row['name']:<24}{row['requests']:>8,} {row['rate']:>6.2f} {row['gap_cv']:>6.2f} {prompt:>16} "
                     f"{output:>16}  {row['licence']:<11}{there}")
    about = [f"  {row['name']}: {row['about']} {row['source']}." for row in rows]
    how = f"Profiles ship. `llmcourse data fetch NAME` brings originals to {folder}."
    return "\n".join([*lines, "", *about, "", how])


def _lengths(out: Path | None, times: int, samples: int) -> dict[str, Any]:
    """Measure, with a progress bar; what was written."""
    if times < 1 or samples < 1:
        raise UserError(f"--times {times} --samples {samples}; both must be at least 1")
    from tqdm import tqdm

    from llmcourse.predict.data import FILE
    from llmcourse.predict.measure import measure_course_tiny

    path = out or FILE
    with tqdm(unit="answer", file=sys.stderr) as bar:
        def progress(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        data = measure_course_tiny(path, times, samples, progress)
    return {"path": str(path), "prompts": len(data), "samples": data.samples,
            "mean": round(float(data.lengths.mean()), 1)}


# ---- fetch and verify -------------------------------------------------------------------------------------------


def _named(names: list[str]) -> list[str]:
    """The traces that are meant; `all` is all that have a URL. Unknown names are refused before anything is fetched."""
    from llmcourse.workload.originals import ORIGINALS, original

    if "all" in names:
        return [name for name, trace in ORIGINALS.items() if trace.url]
    return [name for name in names if original(name)]


def _fetch(name: str, folder: Path) -> dict[str, Any]:
    from llmcourse.workload.fetch import fetch
    from llmcourse.workload.originals import original

    trace = original(name)
    live = sys.stderr.isatty()

    def progress(done: int, size: int) -> None:
        if live:
            print(f"\r{name}: {done / 1e6:.1f} of {size / 1e6:.1f} MB", end="" if done < size else "\n", flush=True,
                  file=sys.stderr)

    path = fetch(trace, folder, progress)
    return {"name": name, "path": str(path), "bytes": trace.size, "sha256": trace.sha256, "licence": trace.licence}


def _verify(folder: Path) -> list[dict[str, Any]]:
    """A row for each profile and each original: its state, and whether that is damage."""
    from llmcourse.workload.originals import ORIGINALS
    from llmcourse.workload.profiles import profile, profile_names

    def row(name: str, what: str, state: str) -> dict[str, Any]:
        return {"name": name, "what": what, "state": state, "damaged": state not in ("sound", "not fetched")}

    rows = []
    for name in profile_names():
        try:
            rows.append(row(name, "profile", "sound" if profile(name).requests else ""))
        except UserError as error:
            rows.append(row(name, "profile", str(error)))
    return rows + [row(name, "original", _state(name, folder)) for name in ORIGINALS]


def _state(name: str, folder: Path) -> str:
    """How the original of `name` is."""
    from llmcourse.workload.originals import checksum, original

    trace = original(name)
    path = folder / trace.file
    if not path.is_file():
        return "not fetched"
    found = checksum(path)
    if found != trace.sha256:
        return (f"not the published file: {path.stat().st_size:,} bytes with sha256 {found[:16]}..., expected "
                f"{trace.size:,} with {trace.sha256[:16]}...; remove {path} and fetch it again")
    return "sound"
