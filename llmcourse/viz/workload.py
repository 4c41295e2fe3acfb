"""Trace explorer: what arrives. Lengths of prompts and outputs, arrivals over time, burstiness; two workloads compared.

Lengths spread over factors of a thousand, so they are drawn as cumulative shares on a logarithmic axis: where two
curves lie on each other, a generated load has its trace's lengths. Arrivals are counted in windows of ten seconds; the
coefficient of variation of the times between them is 1 for a Poisson process and more for bursts. Week 4.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.samples import Samples
from llmcourse.viz.series import curve, heading, headroom, log_axis, panel_axes, place_panel
from llmcourse.viz.theme import canvas, finish

MOST_WINDOWS = 400
LENGTHS = {"prompt": "prompt tokens", "output": "output tokens"}


class Arriving(Protocol):
    """A request of a workload: when it comes (seconds), how long its prompt and its output are (tokens)."""

    @property
    def time(self) -> float:
        """When."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def output_tokens(self) -> int:
        """Length of the output."""


@dataclass(frozen=True)
class Facts:
    """A workload in numbers: times (s, sorted), lengths (tokens)."""

    times: np.ndarray
    prompt: np.ndarray
    output: np.ndarray

    @property
    def rate(self) -> float:
        """Requests per second between the first and the last."""
        span = self.times[-1] - self.times[0]
        return float((len(self.times) - 1) / span) if span > 0 else float("nan")

    @property
    def cv(self) -> float:
        """Coefficient of variation of the times between arrivals: their standard deviation over their mean."""
        gaps = np.diff(self.times)
        return float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else float("nan")

    def percentile(self, kind: str, q: float) -> float:
        """The q-th percentile of the prompt's or the output's length."""
        return float(np.percentile(getattr(self, kind), q))

    def rates(self, width: float) -> tuple[list[float], list[float]]:
        """Starts of windows (s from the first arrival) and requests per `width` seconds in each; wide if many."""
        since = self.times - self.times[0]
        wide = width * max(1, int(np.ceil(since[-1] / width / MOST_WINDOWS)))
        counts = np.bincount((since / wide).astype(int))
        return (np.arange(len(counts)) * wide).tolist(), (counts * (width / wide)).tolist()


def trace_explorer(
    workloads: Iterable[Arriving] | Mapping[str, Iterable[Arriving]], width: float = 10.0, title: str = "What arrives"
) -> go.Figure:
    """Lengths and arrivals of one workload, or of several by name; `width` is the counting window in seconds.

    Raises:
        UserError: an empty workload.
    """
    named = workloads if isinstance(workloads, Mapping) else {"workload": workloads}
    found = {name: facts(arrivals, name) for name, arrivals in named.items()}
    if not found:
        raise UserError("no workload to explore: pass arrivals, or {name: arrivals}")
    figure = canvas(title, 640)
    _layout(figure, width, " · ".join(f"CV {one.cv:.2f} ({name})" for name, one in found.items()))
    for index, (name, one) in enumerate(found.items()):
        for panel, kind in enumerate(LENGTHS, 1):
            tokens, shares = Samples(getattr(one, kind), np.ones(len(one.times), dtype=int)).grid(80)
            tokens = [max(value, 1) for value in tokens]
            look = {"showlegend": panel == 1, **panel_axes(panel)}
            figure.add_trace(curve(name, [tokens[0], *tokens], [0, *shares], index, False, line_shape="hv", **look))
        starts, counts = one.rates(width)
        look = {"showlegend": False, "line_width": 2, "line_shape": "hv", **panel_axes(3)}
        figure.add_trace(curve(name, starts, counts, index, False, **look))
    for panel, (kind, text) in enumerate(LENGTHS.items(), 1):
        every = np.concatenate([getattr(one, kind) for one in found.values()])
        lengths = [max(float(value), 1) for value in (every.min(), every.max())]
        log_axis(figure, "x" if panel == 1 else "x2", lengths, text, room=1.1)
    columns = ("workload", "requests", "rate (1/s)", "inter-arrival CV", "P50 prompt", "P99 prompt", "P50 output",
               "P99 output", "rank correlation of lengths")
    rows = [
        (name, len(one.times), one.rate, one.cv, one.percentile("prompt", 50), one.percentile("prompt", 99),
         one.percentile("output", 50), one.percentile("output", 99), _rank_correlation(one.prompt, one.output))
        for name, one in found.items()
    ]
    return finish(figure, _finding(found), columns, rows)


def facts(arrivals: Iterable[Arriving], name: str = "workload") -> Facts:
    """The workload's numbers as arrays.

    Raises:
        UserError: no arrival.
    """
    rows = list(arrivals)
    if not rows:
        raise UserError(f"{name} holds no arrival: there is nothing to draw")
    times = np.array([row.time for row in rows], dtype=float)
    order = np.argsort(times, kind="stable")
    prompts = np.array([row.prompt_tokens for row in rows])
    outputs = np.array([row.output_tokens for row in rows])
    return Facts(times[order], prompts[order], outputs[order])


def _layout(figure: go.Figure, width: float, bursts: str) -> None:
    top = headroom(figure)
    place_panel(figure, 1, (0, 0.47), (0.54, top))
    place_panel(figure, 2, (0.55, 1), (0.54, top))
    place_panel(figure, 3, (0, 1), (0, 0.32))
    texts = ("prompt lengths: share at most", "output lengths: share at most", f"arrivals; between them {bursts}")
    for panel, text in enumerate(texts, 1):
        heading(figure, panel, text)
    shares = {"range": [0, 1.02], "tickformat": ".0%"}
    figure.update_layout(
        yaxis=shares, yaxis2=shares, xaxis3={"title": {"text": "time (s)"}},
        yaxis3={"title": {"text": f"per {width:g} s"}, "rangemode": "tozero"},
    )


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's: the correlation of ranks, ties at their mean rank."""
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return float("nan")
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _finding(found: Mapping[str, Facts]) -> str:
    said = [
        f"{name}: {len(one.times):,} requests at {one.rate:.3g}/s with an inter-arrival CV of {one.cv:.2f}; the median "
        f"prompt has {one.percentile('prompt', 50):,.0f} tokens (P99 {one.percentile('prompt', 99):,.0f}), the median "
        f"output {one.percentile('output', 50):,.0f} (P99 {one.percentile('output', 99):,.0f})"
        for name, one in found.items()
    ]
    return ". ".join(said) + "."
