"""A sentence encoder: BERT or one of its kind turns the prompt into a vector, and a small network reads the length.

This is what the published predictors do: SSJF (Qiu et al., 2024) fine-tunes BERT-base, ELIS (Choi et al., 2025) puts
layers on the vector of bge-base. It needs no features by hand and understands wordings it has never seen, and it costs
milliseconds on a GPU and tens of them on a CPU for every prompt. Here the encoder stays as it is, so that a prompt is
encoded once and the training takes seconds. Needs `transformers` (`pip install 'llmcourse[encoder]'`). Week 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from llmcourse.errors import UserError
from llmcourse.predict.data import LengthData, texts
from llmcourse.predict.network import arrays_of, check_training, fingerprint, mlp, restored, train
from llmcourse.predict.predictor import Predictor, Progress, Prompts

if TYPE_CHECKING:
    from llmcourse.predict.store import Found

LONGEST = 512                                              # tokens of a prompt that are read
TOGETHER = 32                                              # prompts in one forward pass


class Encoder(Predictor):
    """The mean of an encoder's last states over the prompt, and a network trained on log length (absolute error).

    ``name_or_folder`` is a model of Hugging Face's hub, as "BAAI/bge-small-en-v1.5", or a folder. Raises UserError
    when `transformers` is missing or has no such model.
    """

    name = "encoder"

    def __init__(self, name_or_folder: str | Path, hidden: int = 64, steps: int = 500, rate: float = 3e-3,
                 seed: int = 0) -> None:
        check_training(hidden, steps, rate, seed)
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise UserError("an encoder needs transformers, which is not installed: pip install 'llmcourse[encoder]'"
                            ) from None
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(name_or_folder))
            self.encoder: Any = AutoModel.from_pretrained(str(name_or_folder)).eval().requires_grad_(False)
        except (OSError, ValueError) as error:
            raise UserError(f"no encoder {str(name_or_folder)!r}: {str(error).splitlines()[0]}") from error
        self.name_or_folder = str(name_or_folder)
        self.hidden, self.steps, self.rate, self.seed = hidden, steps, rate, seed
        self.mean = self.spread = torch.zeros(0)
        self.net: torch.nn.Module = torch.nn.Identity()

    def fit(self, data: LengthData, progress: Progress | None = None) -> Self:
        """Encode every prompt once, then train the network; progress counts prompts, then steps."""
        self.learns_from(data)
        tell, count = progress or (lambda done, of: None), len(data)
        parts = []
        for start in range(0, count, TOGETHER):
            parts.append(self.vectors(data.prompts[start:start + TOGETHER]))
            tell(min(start + TOGETHER, count), count + self.steps)
        inputs = torch.cat(parts)
        self.mean, self.spread = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
        inputs, logs = (inputs - self.mean) / self.spread, torch.from_numpy(data.lengths).float().log()
        self.net = mlp(inputs.shape[1], self.hidden, 1, self.seed)

        def loss(rows: Tensor) -> Tensor:
            return (self.net(inputs[rows])[:, 0] - logs[rows, torch.randint(data.samples, rows.shape)]).abs().mean()

        train(self.net, loss, count, self.steps, 256, self.rate, self.seed,
              lambda done, of: tell(count + done, count + of))
        return self

    @torch.no_grad()
    def predict(self, prompts: Prompts) -> np.ndarray:
        """Tokens, at least 1."""
        self.unless_fitted(not isinstance(self.net, torch.nn.Identity))
        asked = texts(prompts)
        groups = [self.vectors(asked[start:start + TOGETHER]) for start in range(0, len(asked), TOGETHER)]
        if not groups:
            return np.zeros(0)
        said: Tensor = self.net((torch.cat(groups) - self.mean) / self.spread)[:, 0].double()
        return np.exp(np.clip(said.numpy(), 0, 12))

    @torch.no_grad()
    def vectors(self, prompts: Sequence[str]) -> Tensor:
        """Mean of the last hidden states over each prompt's own tokens, (N, hidden)."""
        read = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        states: Tensor = self.encoder(**read).last_hidden_state
        mask = read["attention_mask"][..., None].float()
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1)

    def learned(self) -> dict[str, Any]:
        """Scale of the vectors, weights, and a checksum of the encoder they are good for."""
        self.unless_fitted(not isinstance(self.net, torch.nn.Identity))
        return {"encoder": fingerprint(self.encoder),
                "mean": self.mean.numpy(), "spread": self.spread.numpy()} | arrays_of(self.net)

    def restore(self, found: Found) -> None:
        """Take them from a file; UserError when it was fitted on the vectors of another encoder."""
        found.same("encoder", fingerprint(self.encoder), f"it was fitted on another encoder than {self.name_or_folder} "
                   "is now; say where that one is, load_predictor(path, model=...), or fit again")
        width = self.vectors(["a"]).shape[1]
        self.mean = torch.from_numpy(found.array("mean", (width,), np.float32))
        self.spread = torch.from_numpy(found.array("spread", (width,), np.float32, above=0))
        self.net = restored(found, width, self.hidden, 1)
