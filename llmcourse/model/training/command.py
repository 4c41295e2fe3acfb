"""`llmcourse train`: from nothing to the checkpoint that the course serves.

Learn the tokenizer, train on generated text, save in Hugging Face's format, measure on held-out prompts, and write the
report and the model card from the measurements. Everything follows from the seed; a run that is stopped (Ctrl-C too)
goes on with --resume.

Reference: Mitchell et al., "Model cards for model reporting" (2019). Week 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from llmcourse.errors import UserError
from llmcourse.model import corpus
from llmcourse.model.loading import save_model
from llmcourse.model.tokenizer import Tokenizer
from llmcourse.model.training.card import model_card
from llmcourse.model.training.evaluation import PROMPT_SEED, evaluate, read_prompts
from llmcourse.model.training.packing import PROMPT_WEIGHT, WIDTHS, document, pack
from llmcourse.model.training.trainer import COURSE_TINY, Trainer, TrainSettings, summed_loss, train_tokenizer
from llmcourse.paths import DATA, ROOT

STATE = "state.pt"
REPORT = "training_report.json"
PROMPTS = DATA / "prompts" / "prompts.jsonl"
HELD_OUT_DOCUMENTS = 400
SAVE_EVERY = 100  # steps
PRACTICE_PROMPTS = 20  # of each kind
CURVE_POINT = 50  # steps averaged into one point of the loss curve


def train(argv: list[str]) -> int:
    """Run `llmcourse train` with these arguments and return its exit code. Raises UserError for bad input."""
    options = _parse(argv)
    torch.set_num_threads(options.threads)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(steps=options.steps, seed=options.seed)
    if options.resume:
        trainer = Trainer(settings, Tokenizer.load(folder), COURSE_TINY)
        trainer.resume(folder / STATE)
    else:
        trainer = Trainer(settings, train_tokenizer(settings.seed), COURSE_TINY)
        trainer.tokenizer.save(folder)
    _run(trainer, folder / STATE)
    save_model(trainer.model, folder, trainer.tokenizer)
    report = _report(trainer)
    (folder / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(report), encoding="utf-8")
    print(json.dumps(report, ensure_ascii=False) if options.json else _summary(report, folder))
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    defaults = TrainSettings()
    parser = argparse.ArgumentParser(prog="llmcourse train", description="Train course-tiny from generated text.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "course-tiny", help="folder to write")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="training steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of data and weights")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(),
                        help="CPU threads (default %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the last state saved in --out")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(argv)
    for name in ("steps", "threads"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}; it must be at least 1")
    return options


def _run(trainer: Trainer, state: Path) -> None:
    """Train to the end under a progress bar, saving now and then, and when interrupted."""
    steps = trainer.settings.steps
    try:
        with tqdm(total=steps, initial=trainer.step, unit="step", file=sys.stderr) as bar:
            for loss in trainer.run():
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()
                if trainer.step % SAVE_EVERY == 0:
                    trainer.save(state)
    finally:
        trainer.save(state)


def held_out_loss(trainer: Trainer, documents: int) -> float:
    """Mean cross entropy in nats per answer token, each held-out document in a row of its own."""
    total = count = 0.0
    for sample in islice(corpus.samples(trainer.settings.seed, held_out=True, late=True), documents):
        tokens, weights = document(trainer.tokenizer, sample)
        if len(tokens) <= WIDTHS[-1]:
            answer_only = [float(weight > PROMPT_WEIGHT) for weight in weights]
            with torch.inference_mode():
                packed = pack([(tokens, answer_only)], WIDTHS[-1], trainer.tokenizer.pad_id)
                total += float(summed_loss(trainer.model, packed))
            count += sum(answer_only)
    return total / count


def _report(trainer: Trainer) -> dict[str, Any]:
    """All that was set and measured, ready for JSON."""
    prompts = read_prompts(PROMPTS)
    with tqdm(total=len(prompts), unit="prompt", file=sys.stderr) as bar:
        measured = evaluate(trainer.model, trainer.tokenizer, prompts, progress=lambda done, _: bar.update())
    losses = trainer.losses
    curve = [losses[start : start + CURVE_POINT] for start in range(0, len(losses), CURVE_POINT)]
    return {
        "settings": asdict(trainer.settings),
        "config": asdict(trainer.config),
        "parameters": trainer.config.num_parameters,
        "tokens": trainer.tokens,
        "seconds": round(trainer.seconds),
        "torch": torch.__version__,
        "loss_curve": [
            [min((index + 1) * CURVE_POINT, len(losses)), round(sum(part) / len(part), 4)]
            for index, part in enumerate(curve)
        ],
        "history": "one run with these settings",
        "tasks": len(corpus.TASKS),
        "steps": len(losses),
        "practice_accuracy": _practice_accuracy(trainer),
        "held_out_documents": HELD_OUT_DOCUMENTS,
        "held_out_loss": round(held_out_loss(trainer, HELD_OUT_DOCUMENTS), 4),
        "evaluation": asdict(measured),
    }


def _practice_accuracy(trainer: Trainer) -> dict[str, float]:
    """Share of right answers to each kind that was only practised, on held-out prompts of its own."""
    kinds = {kind: PRACTICE_PROMPTS for kind, task in corpus.TASKS.items() if task.practice}
    return evaluate(trainer.model, trainer.tokenizer, corpus.held_out_prompts(PROMPT_SEED, kinds)).accuracy_by_kind


def _summary(report: dict[str, Any], folder: Path) -> str:
    measured = report["evaluation"]
    size = f"{report['settings']['steps']} steps, {report['tokens'] / 1e6:.1f} M tokens"
    return (
        f"{size}, {report['seconds'] / 60:.0f} min; held-out loss {report['held_out_loss']:.3f}, "
        f"accuracy {measured['accuracy']:.1%}, {measured['ended']:.1%} of answers end; saved in {folder}"
    )
