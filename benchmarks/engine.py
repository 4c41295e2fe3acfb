"""Tokens per second of the engine on a real model, beside `transformers` on the same weights in the same run.

What is measured: ``--batch`` requests of ``--prompt`` random tokens, each forced to ``--output`` new tokens, all there
at the start; output tokens divided by the wall time of the whole run, prompt included. One warm-up, then ``--repeats``
runs, ours and the peer's in turn, so that a machine that slows down slows both; the median is quoted, minimum and
maximum beside it. The peer is `generate` with a dynamic cache on one unpadded batch of equal lengths: its best case.
Run it on an otherwise idle machine. The last line is one line of JSON.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import torch

from llmcourse.engine import Engine, SamplingParams
from llmcourse.kv import BlockPool
from llmcourse.model.loading import load_model, save_model
from llmcourse.model.transformer import Transformer

Run = Callable[[list[list[int]]], None]


def main(argv: list[str]) -> int:
    """Measure each batch size, print a table and the JSON line."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    model, _ = load_model(args.model, device=args.device)
    runs = {"llmcourse": _ours(model, args)}
    peer = None if args.no_peer else _transformers(model, args)
    if peer is not None:
        runs["transformers"] = peer
    rows = [_measure(batch, runs, model.config.vocab_size, args) for batch in args.batch]
    _print(rows, args)
    about = {"model": args.model, "device": _device_name(args.device), "threads": args.threads, "prompt": args.prompt,
             "output": args.output, "repeats": args.repeats, "torch": torch.__version__, "date": str(date.today())}
    print(json.dumps({"benchmark": "engine", **about, "rows": rows}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmcourse bench engine", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="course-tiny", help="name or folder (default: course-tiny)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], help="requests at once")
    parser.add_argument("--prompt", type=int, default=64, help="prompt tokens of each request")
    parser.add_argument("--output", type=int, default=128, help="new tokens of each request")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--no-peer", action="store_true", help="leave transformers out")
    return parser


def _ours(model: Transformer, args: argparse.Namespace) -> Run:
    from llmcourse.executors import TorchExecutor
    blocks = max(args.batch) * -(-(args.prompt + args.output) // 16)
    executor = TorchExecutor(model, blocks, 16)

    def run(prompts: list[list[int]]) -> None:
        engine = Engine(executor, BlockPool(blocks, 16), token_budget=max(2048, len(prompts)), max_running=len(prompts))
        done = engine.generate(prompts, SamplingParams(max_tokens=args.output, ignore_eos=True))
        assert all(len(completion.tokens) == args.output for completion in done)
    return run


def _transformers(model: Transformer, args: argparse.Namespace) -> Run | None:
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        print("transformers is not installed: no peer in this run (pip install transformers)")
        return None
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder)
        peer: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(args.device).eval()

    @torch.inference_mode()
    def run(prompts: list[list[int]]) -> None:
        ids = torch.tensor(prompts, device=args.device)
        out = peer.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=args.output,
                            min_new_tokens=args.output, do_sample=False, pad_token_id=0)
        assert out.shape[1] == args.prompt + args.output
    return run


def _measure(batch: int, runs: dict[str, Run], vocab: int, args: argparse.Namespace) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(batch)
    prompts = torch.randint(0, vocab, (batch, args.prompt), generator=generator).tolist()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(args.repeats + 1):                     # the first is the warm-up
        for name, run in runs.items():
            started = time.perf_counter()
            run(prompts)
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    tokens = batch * args.output
    return {"batch": batch} | {
        name: {"tokens_per_s": round(tokens / statistics.median(times), 1), "min": round(tokens / max(times), 1),
               "max": round(tokens / min(times), 1),
               "ms_per_step": round(1e3 * statistics.median(times) / args.output, 2)}
        for name, times in seconds.items()}


def _print(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    print(f"{args.model}, prompt {args.prompt}, output {args.output}, {args.threads} threads, "
          f"{_device_name(args.device)}")
    print(f"{'batch':>5}  {'engine':<14}{'tokens/s':>10}{'min':>10}{'max':>10}{'ms/step':>10}")
    for row in rows:
        for name, figures in row.items():
            if name != "batch":
                print(f"{row['batch']:>5}  {name:<14}{figures['tokens_per_s']:>10}{figures['min']:>10}"
                      f"{figures['max']:>10}{figures['ms_per_step']:>10}")


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    import sys
    sys.exit(main(sys.argv[1:]))
