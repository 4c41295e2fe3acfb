"""How course-tiny learns: one step at a time, and as if never stopped.

Matrices learn by Muon (orthogonalised momentum), embeddings and norms by AdamW. The learning rate warms up, stays high
while the model finds out how to look things up in its prompt, then drops and falls to zero while it learns to be exact.
What a step sees depends on the seed and the step's number alone, so a run that was stopped and resumed ends with the
same weights as one that ran through.

Reference: Jordan et al., "Muon: an optimizer for hidden layers" (2024); Loshchilov and Hutter, AdamW (2019). Week 1.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from llmcourse.errors import UserError
from llmcourse.model import corpus
from llmcourse.model.config import ModelConfig
from llmcourse.model.tokenizer import Tokenizer
from llmcourse.model.training.muon import Muon
from llmcourse.model.training.packing import Packed, PackedAttention, batches
from llmcourse.model.transformer import Transformer

COURSE_TINY = ModelConfig(
    vocab_size=1024,
    hidden_size=192,
    num_layers=6,
    num_heads=6,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=448,
    max_length=1024,
    tie_embeddings=True,
)


@dataclass(frozen=True)
class TrainSettings:
    """How to train. `steps` fixes the learning rate as well, so a resumed run must ask for as many."""

    steps: int = 4600
    tokens_per_step: int = 2000
    muon_rate: float = 0.003
    adam_rate: float = 0.003
    warmup: int = 100
    steady: float = 0.54
    late_rate: float = 0.5
    seed: int = 0

    def is_late(self, step: int) -> bool:
        """Whether the rate falls: the part after `steady` of all steps."""
        return step >= self.steady * self.steps

    def rate(self, step: int) -> float:
        """Factor on both learning rates: up over `warmup` steps, one; the late part falls from `late_rate` to zero."""
        if not self.is_late(step):
            return min(1.0, (step + 1) / self.warmup)
        return self.late_rate * (self.steps - step) / ((1 - self.steady) * self.steps)


def train_tokenizer(seed: int, samples: int = 20000) -> Tokenizer:
    """The tokenizer of course-tiny, learned from the first samples of the training stream."""
    stream = islice(corpus.samples(seed), samples)
    return Tokenizer.train(text for sample in stream for text in (sample.prompt, sample.answer))


def summed_loss(model: Transformer, packed: Packed) -> Tensor:
    """Weighted sum of the cross entropy of each next token, in nats."""
    logits = model(packed.tokens[:, :-1], PackedAttention(packed.documents[:, :-1]))
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), packed.tokens[:, 1:].flatten(), reduction="none")
    return (losses * packed.weights[:, 1:].flatten()).sum()


class Trainer:
    """A model, its optimizers and how far they are. `run` yields after each step; `save` and `resume` use one file."""

    def __init__(self, settings: TrainSettings, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self.settings, self.tokenizer, self.config = settings, tokenizer, config
        self.model = Transformer(config, settings.seed)
        named = dict(self.model.named_parameters())
        matrices = {name: p for name, p in named.items() if p.dim() == 2 and name.startswith("blocks.")}
        self.muon = Muon(matrices.values())
        others = [p for name, p in named.items() if name not in matrices]
        self.adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
        self.losses: list[float] = []
        self.tokens = 0
        self.seconds = 0.0

    @property
    def step(self) -> int:
        """How many steps are done."""
        return len(self.losses)

    def run(self) -> Iterator[float]:
        """Train up to the last step of the settings; yields each step's mean loss in nats per answer token."""
        while self.step < self.settings.steps:
            start = time.perf_counter()
            self.losses.append(self._one_step())
            self.seconds += time.perf_counter() - start
            yield self.losses[-1]

    def _one_step(self) -> float:
        late = self.settings.is_late(self.step)
        parts = batches(self.tokenizer, self.settings.tokens_per_step, self.settings.seed, self.step, late)
        total = sum(packed.weights[:, 1:].sum() for packed in parts)
        loss = 0.0
        for packed in parts:
            part = summed_loss(self.model, packed) / total
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
            self.tokens += int((packed.weights > 0).sum())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = self.settings.rate(self.step)
        for group in self.adam.param_groups:
            group["lr"] = factor * self.settings.adam_rate
        self.adam.step()
        self.muon.step(factor * self.settings.muon_rate)
        self.model.zero_grad()
        return loss

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs, at once or not at all."""
        state = {
            "settings": asdict(self.settings), "model": self.model.state_dict(), "muon": self.muon.state_dict(),
            "adam": self.adam.state_dict(), "losses": self.losses, "tokens": self.tokens, "seconds": self.seconds,
        }  # fmt: skip
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a saved state. Raises UserError if it is missing or was made with other settings."""
        if not path.is_file():
            raise UserError(f"{path} does not exist, so there is nothing to resume; start without --resume")
        state = torch.load(path, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise UserError(f"{path} was trained with {state['settings']}, asked for {asdict(self.settings)}; "
                            "resume with the same steps and seed, or start without --resume")
        self.model.load_state_dict(state["model"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.losses, self.tokens, self.seconds = state["losses"], state["tokens"], state["seconds"]
