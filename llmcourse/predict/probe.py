"""A probe: the served model's own hidden state says how much it still has to say, and says it anew at every token.

Who writes the answer knows more of it than any reader of the prompt: the hidden state has the whole context in it, and
it is there for nothing, since the forward pass computes it anyway. A small network reads from it in which bin the
number of remaining tokens lies. From token to token the bins are smoothed as a Bayesian filter would: what was believed
moves down by one token, and is multiplied by what the probe says now. Shahout et al., TRAIL (ICLR 2025), with ten
bins of equal width and a middle layer of Llama 3 8B; here bins grow with the length, as lengths do. Week 9.

This probe runs the model a second time instead of reaching into the engine's forward pass, and that is the cost that
`timed` measures: in an engine that hands out its hidden states only the small network would be left of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.model.loading import load_model
from llmcourse.model.transformer import Transformer
from llmcourse.predict.data import LengthData
from llmcourse.predict.network import arrays_of, check_training, fingerprint, mlp, restored, train
from llmcourse.predict.predictor import Predictor, Progress, Prompts

if TYPE_CHECKING:
    from llmcourse.predict.store import Found

STARTS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384])     # first length of each bin
WIDTHS = np.array([*np.diff(STARTS), 128])
TOGETHER = 16                                              # texts in one forward pass


class Probe(Predictor):
    """A network on the hidden state behind block ``layer`` (from 0; None: the middle one) of ``model``.

    ``smooth``: carry what was believed from token to token; else only the newest hidden state counts.
    """

    name = "probe"

    def __init__(self, model: str = "course-tiny", layer: int | None = None, smooth: bool = True, hidden: int = 64,
                 steps: int = 800, rate: float = 3e-3, seed: int = 0) -> None:
        check_training(hidden, steps, rate, seed)
        self.model, self.tokenizer = load_model(model, device="cpu")
        self.reads = str(model)
        depth = self.model.config.num_layers
        if layer is not None and not 0 <= layer < depth:
            raise UserError(f"there is no layer {layer} to probe; {model} has layers 0 to {depth - 1}")
        self.layer = depth // 2 if layer is None else layer
        self.smooth, self.hidden, self.steps = smooth, hidden, steps
        self.rate, self.seed = rate, seed
        self.mean = self.spread = torch.zeros(0)
        self.typical = (STARTS + WIDTHS / 2 - 0.5).astype(float)
        self.net: torch.nn.Module = torch.nn.Identity()
        self._left = lru_cache(4096)(lambda tokens, prompt: float(self.track(tokens[:prompt], tokens[prompt:])[-1]))

    def fit(self, data: LengthData, progress: Progress | None = None) -> Self:
        """Look on while the training answers are written; UserError for data that kept only their lengths."""
        self.learns_from(data)
        if not data.answers:
            raise UserError("this length data has no answers to look on at; measure_lengths keeps one for each prompt")
        self._left.cache_clear()
        tell = progress or (lambda done, of: None)
        pairs = [(self._ids(prompt), list(answer)) for prompt, answer in zip(data.prompts, data.answers, strict=True)]
        states = list(self._states([prompt + answer for prompt, answer in pairs],
                                   [(len(prompt) - 1, len(prompt) + len(answer) - 1) for prompt, answer in pairs],
                                   lambda done: tell(done, len(pairs) + self.steps)))
        first = torch.stack([rows[0] for rows in states])                          # at the end of each prompt
        later = torch.cat([rows[1:] for rows in states])
        left = torch.from_numpy(np.concatenate([np.arange(len(rows) - 1, 0, -1) for rows in states]))
        lengths = torch.from_numpy(data.lengths)
        everything = torch.cat([first, later])
        self.mean, self.spread = everything.mean(0), everything.std(0).clamp(min=1e-6)
        first, later = self._scaled(first), self._scaled(later)
        self.net = mlp(first.shape[1], self.hidden, len(STARTS), self.seed)

        def loss(rows: Tensor) -> Tensor:                  # half of each batch are prompts, with any of their samples
            at = torch.randint(max(len(later), 1), rows.shape) if len(later) else rows[:0]
            sample = torch.randint(data.samples, rows.shape)
            said = self.net(torch.cat([first[rows], later[at]]))
            return torch.nn.functional.cross_entropy(said, _bins(torch.cat([lengths[rows, sample], left[at]])))

        train(self.net, loss, len(first), self.steps, 128, self.rate, self.seed,
              lambda done, of: tell(len(pairs) + done, len(pairs) + of))
        return self

    def predict(self, prompts: Prompts) -> np.ndarray:
        """Expected tokens, at the end of the prompt."""
        ids = [self._ids(prompt) for prompt in prompts]
        rows = list(self._states(ids, [(len(prompt) - 1, len(prompt)) for prompt in ids]))
        return self.chances(torch.cat(rows)) @ self.typical if rows else np.zeros(0)

    def track(self, prompt: Sequence[int], output: Sequence[int]) -> np.ndarray:
        """Expected remaining tokens after 0, 1, ... all of ``output``: (1 + len(output),)."""
        span = (len(prompt) - 1, len(prompt) + len(output))
        return self.smoothed(self.chances(next(self._states([[*prompt, *output]], [span])))) @ self.typical

    def remaining(self, request: Request) -> float:
        """Expected tokens to come, from prompt and output; asked again before the next token, it has not forgotten."""
        return self._left(tuple(request.tokens), len(request.prompt))

    def settings(self) -> dict[str, Any]:
        """The model by its name."""
        return super().settings() | {"model": self.reads}

    def learned(self) -> dict[str, Any]:
        """Scale of the states and weights, and what they are good for: these bins, and this model."""
        self.unless_fitted(not isinstance(self.net, torch.nn.Identity))
        return {"bins": STARTS.tolist(), "model": fingerprint(self.model),
                "mean": self.mean.numpy(), "spread": self.spread.numpy()} | arrays_of(self.net)

    def restore(self, found: Found) -> None:
        """Take them from a file; UserError when it was fitted on the states of another model."""
        found.same("bins", STARTS.tolist(), "it was fitted for other bins than this version of the course has; fit "
                   "again and save")
        found.same("model", fingerprint(self.model), f"it was fitted on another model than {self.reads} is now; say "
                   "where that one is, load_predictor(path, model=...), or fit again")
        width = self.model.config.hidden_size
        self.mean = torch.from_numpy(found.array("mean", (width,), np.float32))
        self.spread = torch.from_numpy(found.array("spread", (width,), np.float32, above=0))
        self.net = restored(found, width, self.hidden, len(STARTS))

    @torch.no_grad()
    def chances(self, states: Tensor) -> np.ndarray:
        """Probability of each bin for hidden states (N, hidden): (N, bins)."""
        self.unless_fitted(not isinstance(self.net, torch.nn.Identity))
        said: Tensor = self.net(self._scaled(states)).double().softmax(-1)
        return said.numpy()

    def smoothed(self, chances: np.ndarray) -> np.ndarray:
        """The same for the tokens of one answer, each with what was believed before it."""
        if not self.smooth:
            return chances
        believed, out = chances[0], [chances[0]]
        for now in chances[1:]:
            believed = one_token_later(believed) * now
            believed = believed / believed.sum() if believed.sum() > 1e-12 else now
            out.append(believed)
        return np.array(out)

    def _ids(self, prompt: str | Sequence[int]) -> list[int]:
        if not isinstance(prompt, str):
            return list(prompt)
        if self.tokenizer is None:
            raise UserError("the probed model has no tokenizer; give prompts as token ids")
        return self.tokenizer.encode_prompt(prompt)

    def _scaled(self, states: Tensor) -> Tensor:
        return (states - self.mean) / self.spread

    def _states(self, texts: Sequence[Sequence[int]], spans: Sequence[tuple[int, int]],
                tell: Callable[[int], None] = lambda done: None) -> Iterator[Tensor]:
        """Hidden states of each text between two positions, in the order asked for."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        found: dict[int, Tensor] = {}
        for start in range(0, len(order), TOGETHER):
            group = order[start:start + TOGETHER]
            for row, states in zip(group, hidden_states(self.model, [texts[row] for row in group], self.layer),
                                   strict=True):
                found[row] = states[slice(*spans[row])].clone()
            tell(start + len(group))
        return (found[row] for row in range(len(texts)))


@torch.no_grad()
def hidden_states(model: Transformer, texts: Sequence[Sequence[int]], layer: int) -> Tensor:
    """States behind a block of texts side by side, (B, longest, hidden); behind a text's own end they mean nothing."""
    longest = max(len(text) for text in texts)
    tokens = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])       # nobody looks to the right
    kept: list[Tensor] = []
    hook = model.blocks[layer].register_forward_hook(lambda _block, _args, out: kept.append(out))
    try:
        model.hidden(tokens)
    finally:
        hook.remove()
    return kept[0]


def one_token_later(believed: np.ndarray) -> np.ndarray:
    """Chances of the bins after one more token, which was not the last: 1 / width of a bin moves to the one below."""
    moving = believed / WIDTHS
    after = believed - moving
    after[:-1] += moving[1:]
    return after / after.sum() if after.sum() > 0 else believed


def _bins(left: Tensor) -> Tensor:
    return torch.searchsorted(torch.from_numpy(STARTS), left, right=True) - 1
