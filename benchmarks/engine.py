"""Tokens per second of the engine on a real model, beside its peers on the same weights in the same run.

What is measured: (a) mixed requests (prompts around 60 tokens, answers heavy-tailed around 38 up to 400, lengths
forced), all there at the start: useful tokens, those somebody asked for, divided by the time until the last one; (b)
one decode step of 1, 8 and 32 requests; (c) what the scheduler takes of a step. Runs take turns, so that a machine that
slows down slows all; the best of ``--repeats`` is quoted, the slowest beside it (steps of a peer in a process of its
own are timed once: it must compute their context first). The floor is what the same steps would take at this machine's
measured bandwidth and compute. Run it on an otherwise idle machine. The last line is one line of JSON.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks import _llamacpp, _transformers
from benchmarks._ours import Ours, scheduler_seconds
from benchmarks._report import device_name
from benchmarks._shapes import CONTEXT, SHAPES, Job, Shape, long_jobs, mixed_jobs
from benchmarks._worker import Worker
from llmcourse.cli.parser import Parser
from llmcourse.metrics.hardware import Hardware, measure_this_machine
from llmcourse.metrics.roofline import decode, step_seconds, step_work
from llmcourse.model.loading import load_model, save_model
from llmcourse.model.transformer import Transformer

VLLM = "vLLM (CPU)"
OVERHEAD_US = 150.0                                     # most that the scheduler may take of a step at 64 requests
STATIC_TIMES, CONTINUOUS_TIMES = 5.0, 3.0               # at least so many times the tokens/s of transformers


def main(argv: list[str]) -> int:
    """Measure the chosen shapes, print tables and the JSON line."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    machine = measure_this_machine(args.device)
    print(f"{device_name(args.device)}, {args.threads} threads: {machine.bandwidth / 1e9:.1f} GB/s, "
          f"{machine.flops / 1e9:.0f} GFLOP/s measured")
    overhead = min(scheduler_seconds() for _ in range(args.repeats)) * 1e6
    print(f"scheduler at 64 running requests: {overhead:.0f} µs a step, {_met(overhead <= OVERHEAD_US)} "
          f"(target {OVERHEAD_US:.0f})")
    shapes = [_measure(_sized(SHAPES[name], args), machine, args) for name in args.shape or _usual(args.device)]
    about = {"device": device_name(args.device), "threads": args.threads, "repeats": args.repeats,
             "torch": torch.__version__, "date": str(date.today()), "bandwidth_GB_s": round(machine.bandwidth / 1e9, 1),
             "compute_GFLOP_s": round(machine.flops / 1e9, 1), "scheduler_us": round(overhead, 1)}
    print(json.dumps({"benchmark": "engine", **about, "shapes": shapes}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="llmcourse bench engine", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), help="which models (default: all for the device)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--repeats", type=int, default=3, help="measured runs of each, in turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of everybody")
    parser.add_argument("--whole", action="store_true", help="135m: all 64 requests, answers uncut (half an hour)")
    parser.add_argument("--quick", action="store_true", help="8 short requests, few steps: to see that it works")
    parser.add_argument("--no-peers", action="store_true", help="this engine alone")
    parser.add_argument("--vllm-python", help="the Python of an environment with vLLM's CPU build")
    parser.add_argument("--llamacpp-python", help="the Python of an environment with llama-cpp-python and gguf")
    return parser


def _usual(device: str) -> list[str]:
    return ["course-tiny", "12m", "135m"] if device == "cpu" else ["qwen3-0.6b"]


def _sized(shape: Shape, args: argparse.Namespace) -> Shape:
    if args.quick:
        return replace(shape, requests=8, longest=12, batches=shape.batches[:2])
    return shape.whole() if args.whole and args.device == "cpu" else shape


def _measure(shape: Shape, machine: Hardware, args: argparse.Namespace) -> dict[str, Any]:
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    model = (load_model("course-tiny", args.device, dtype)[0] if shape.config is None else
             Transformer(shape.config).eval().requires_grad_(False).to(args.device, dtype))
    jobs = (mixed_jobs if args.device == "cpu" else long_jobs)(shape, model.config.vocab_size)
    steps = 4 if args.quick else 12 if model.config.num_parameters > 5e7 else 40
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder)
        ours = Ours(model, jobs, shape.batches, args.threads)
        peers, absent = ([], []) if args.no_peers else _peers(Path(folder), args, model)
        seconds, step = _take_turns([ours, *peers], jobs, shape, steps, args.repeats)
        for peer in peers:
            if isinstance(peer, Worker):
                peer.close()
    return _report(shape, model, jobs, seconds, step, ours, machine, absent)


def _peers(folder: Path, args: argparse.Namespace, model: Transformer) -> tuple[list[Any], list[str]]:
    peers: list[Any] = []
    absent = []
    theirs = _transformers.load(folder, args.device, model.embedding.dtype)
    if theirs is None:
        absent.append("transformers (not installed)")
    else:
        peers += [_transformers.Static(theirs), _transformers.Continuous(theirs)]
    for name, option, python, start in (
            (VLLM, "--vllm-python", args.vllm_python,
             lambda python: Worker(VLLM, python, "_vllm_worker.py", folder, args.threads)),
            (_llamacpp.NAME, "--llamacpp-python", args.llamacpp_python,
             lambda python: _llamacpp.start(python, folder, args.threads, model))):
        if python is None or args.device != "cpu":
            absent.append(f"{name} (no environment of its own given with {option})")
            continue
        try:
            peers.append(start(python))
        except (OSError, RuntimeError) as error:
            absent.append(f"{name} ({str(error).splitlines()[-1]})")
    return peers, absent


def _take_turns(engines: list[Any], jobs: list[Job], shape: Shape, steps: int,
                repeats: int) -> tuple[dict[str, list[float]], dict[str, dict[int, float]]]:
    """Seconds of every mixed run, and the best decode step by batch size, of each engine."""
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    best: dict[str, dict[int, float]] = {engine.name: {} for engine in engines}
    for engine in engines:
        engine.mixed([Job(job.prompt, 3) for job in jobs[:4]])              # to warm up
    for repeat in range(repeats):
        for engine in engines:
            seconds[engine.name].append(engine.mixed(jobs))
            for batch in () if repeat and isinstance(engine, Worker) else shape.batches:
                found = engine.step(batch, steps)
                if found is not None:
                    best[engine.name][batch] = min(found, best[engine.name].get(batch, found))
    return seconds, best


def _report(shape: Shape, model: Transformer, jobs: list[Job], seconds: dict[str, list[float]],
            step: dict[str, dict[int, float]], ours: Ours, machine: Hardware, absent: list[str]) -> dict[str, Any]:
    width, tokens = model.embedding.element_size(), sum(job.output for job in jobs)
    rows: dict[str, dict[str, Any]] = {
        name: {"tokens_per_s": round(tokens / min(times), 1), "slowest": round(tokens / max(times), 1),
               "step_ms": {batch: round(1e3 * found, 2) for batch, found in step[name].items()}}
        for name, times in seconds.items()}
    floor = {"tokens_per_s": round(tokens / ours.floor(machine, width), 1), "step_ms": {
        batch: round(1e3 * step_seconds(machine, step_work(model.config, decode(batch, CONTEXT), width)), 2)
        for batch in shape.batches}}
    targets = _targets(shape, rows)
    print(f"\n{shape.name}, {model.config.num_parameters / 1e6:.1f} M parameters: {len(jobs)} mixed requests, "
          f"{tokens} tokens asked for, at most {shape.longest} each")
    print(f"{'':<26}{'tokens/s':>10}{'slowest':>10}" + "".join(f"{f'step {b} ms':>13}" for b in shape.batches))
    for name, row in {**rows, "floor (same steps)": floor}.items():
        print(f"{name:<26}{row['tokens_per_s']:>10}{row.get('slowest', ''):>10}"
              + "".join(f"{row['step_ms'].get(batch, '-'):>13}" for batch in shape.batches))
    for target in targets:
        print(f"  {target['target']}: {target['measured']}, {_met(target['met'])}")
    if not all(target["met"] for target in targets):
        print("  what was tried, and what it gave: benchmarks/engine_notes.md")
    if absent:
        print("  not measured: " + "; ".join(absent))
    return {"shape": shape.name, "requests": len(jobs), "tokens": tokens, "longest": shape.longest, "engines": rows,
            "floor": floor, "targets": targets, "absent": absent}


def _targets(shape: Shape, rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What was promised for this shape beside what was measured."""
    mine, found = rows[Ours.name], []
    for name, times in ((_transformers.Static.name, STATIC_TIMES), (_transformers.Continuous.name, CONTINUOUS_TIMES),
                        (VLLM, 1.0)):
        if name in rows:
            ratio = mine["tokens_per_s"] / rows[name]["tokens_per_s"]
            found.append({"target": f"at least {times:g} x {name}", "measured": round(ratio, 2), "met": ratio >= times})
    for batch, most in shape.step_ms:
        if batch in mine["step_ms"]:
            took = mine["step_ms"][batch]
            found.append({"target": f"a step of {batch} within {most:g} ms", "measured": took, "met": took <= most})
    return found


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"
