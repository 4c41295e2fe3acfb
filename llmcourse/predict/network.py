"""A small network over prompt features, and the loop that trains it: what predictors share that differ in their loss.

Two layers are enough for prompts of one line; what separates the published predictors is not the network but what it
is asked for: a length, a class, an order. So each of them is one loss in a file of its own. Week 9.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from llmcourse.errors import UserError
from llmcourse.kinds import check_kind
from llmcourse.predict.data import LengthData, texts
from llmcourse.predict.features import Features
from llmcourse.predict.predictor import Predictor, Progress, Prompts

if TYPE_CHECKING:
    from llmcourse.predict.store import Found

Loss = Callable[[Tensor], Tensor]                          # of the training rows of this step (N,) int64


def mlp(inputs: int, hidden: int, outputs: int, seed: int) -> nn.Sequential:
    """Linear, ReLU, dropout, linear; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, outputs))


def train(net: nn.Module, loss: Loss, rows: int, steps: int, batch: int, rate: float, seed: int,
          progress: Progress | None = None) -> None:
    """AdamW with a rate that falls to zero, on random minibatches of ``batch`` of so many ``rows``; all from ``seed``.

    Gradients are switched on here, whatever the caller has set; the network is left in evaluation mode.
    """
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        net.train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
        for step in range(steps):
            optimizer.zero_grad()
            loss(torch.randint(rows, (batch,))).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if progress:
                progress(step + 1, steps)
        net.eval()


def arrays_of(net: nn.Module) -> dict[str, np.ndarray]:
    """The weights by name, for a file."""
    return {f"net.{name}": tensor.cpu().numpy() for name, tensor in net.state_dict().items()}


def restored(found: Found, inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """An `mlp` with the weights of a file, whose shapes are compared before anything of their size is made."""
    shapes = {"0.weight": (hidden, inputs), "0.bias": (hidden,), "3.weight": (outputs, hidden), "3.bias": (outputs,)}
    weights = {name: torch.from_numpy(found.array(f"net.{name}", shape, np.float32)) for name, shape in shapes.items()}
    net = mlp(inputs, hidden, outputs, seed=0)
    net.load_state_dict(weights)
    return net.eval()


def fingerprint(model: nn.Module) -> str:
    """A checksum of all weights: what was learnt from the states of one model is worth nothing on another."""
    digest = sha256()
    for name, weights in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(weights.shape)} {weights.dtype} ".encode())
        digest.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_training(hidden: int, steps: int, rate: float, seed: int) -> None:
    """UserError for a network without a middle, or a training that does not move."""
    for name, value in (("hidden", hidden), ("steps", steps), ("seed", seed)):
        check_kind(name, value, int)
    check_kind("rate", rate, float)
    if hidden < 1 or steps < 1 or not 0 < rate < 1:
        raise UserError(f"hidden {hidden}, steps {steps}, rate {rate}: give at least 1 unit, 1 step, and a rate "
                        "between 0 and 1")


class Network(Predictor):
    """Features and a network with ``outputs`` numbers a prompt; a subclass says what the loss is and how to read them.

    Training sees each prompt with one of its samples at a time, drawn anew at every step.
    """

    outputs = 1
    batch = 256

    def __init__(self, hidden: int = 64, steps: int = 500, rate: float = 3e-3, seed: int = 0) -> None:
        check_training(hidden, steps, rate, seed)
        self.hidden, self.steps, self.rate, self.seed = hidden, steps, rate, seed
        self.features = Features(bag=True)
        self.net: nn.Module = nn.Identity()

    def fit(self, data: LengthData, progress: Progress | None = None) -> Self:
        """Train on prompts and samples of their lengths."""
        self.learns_from(data)
        self.prepare(data)
        inputs = torch.from_numpy(self.features.fit(data.prompts).rows(data.prompts))
        lengths = torch.from_numpy(data.lengths).float()
        self.net = mlp(self.features.width, self.hidden, self.outputs, self.seed)

        def loss(rows: Tensor) -> Tensor:
            sample = torch.randint(data.samples, rows.shape)
            return self.loss(self.net(inputs[rows]), lengths[rows, sample])

        train(self.net, loss, len(data), self.steps, self.batch, self.rate, self.seed, progress)
        return self

    def prepare(self, data: LengthData) -> None:
        """What has to be known of the training lengths before the network is made."""

    def loss(self, said: Tensor, lengths: Tensor) -> Tensor:
        """The mean loss of the network's outputs (N, outputs) against true lengths (N,)."""
        raise NotImplementedError

    @torch.no_grad()
    def outputs_of(self, prompts: Prompts) -> np.ndarray:
        """The network's outputs for each prompt, (N, outputs) float64."""
        self.unless_fitted(not isinstance(self.net, nn.Identity))
        said: Tensor = self.net(torch.from_numpy(self.features.rows(texts(prompts))))
        return said.double().numpy()

    def learned(self) -> dict[str, Any]:
        """Vocabulary and scale of the features, and the weights."""
        self.unless_fitted(not isinstance(self.net, nn.Identity))
        return self.features.learned() | arrays_of(self.net)

    def restore(self, found: Found) -> None:
        """Take them from a file."""
        self.features.restore(found)
        self.net = restored(found, self.features.width, self.hidden, self.outputs)


class MLP(Network):
    """Regression: the median of log length, by absolute error."""

    name = "mlp"

    def loss(self, said: Tensor, lengths: Tensor) -> Tensor:
        """Mean absolute error of the logarithm."""
        return (said[:, 0] - lengths.log()).abs().mean()

    def predict(self, prompts: Prompts) -> np.ndarray:
        """Tokens, at least 1."""
        return np.exp(np.clip(self.outputs_of(prompts)[:, 0], 0, 12))
