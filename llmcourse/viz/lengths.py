"""How long will the answer be? The same prompt many times, and what a wrong guess costs.

A sampled model answers one prompt with few tokens or with many; nobody knows on arrival. Whoever reserves memory for a
guess pays twice: an answer that outgrows it must be evicted or refused, one that stays below it wastes the rest. The
second figure draws both against the reserved length; no reservation makes both small (PagedAttention, 2023). Week 4.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.series import curve, guide, heading, panel_axes, place_panel
from llmcourse.viz.theme import BLUE, INK, canvas, colour, finish, marker

QUANTILES = (10, 50, 90)
MOST_BINS = 40


def length_distribution(
    lengths: Sequence[int] | Mapping[str, Sequence[int]], title: str = "The same prompt, asked again and again"
) -> go.Figure:
    """Histogram of output lengths in tokens with their 10, 50 and 90 % quantiles; one panel for each named prompt.

    Raises:
        UserError: a prompt without samples.
    """
    named = lengths if isinstance(lengths, Mapping) else {"": lengths}
    found = {name: _checked(name, values) for name, values in named.items()}
    if not found:
        raise UserError("no lengths to draw: pass the output lengths of one prompt, or {prompt: lengths}")
    edges = _edges(np.concatenate(list(found.values())))
    share = 1 / len(found)
    figure = canvas(title, 150 + 230 * len(found) - 30 * (len(found) > 1))
    for panel, (name, values) in enumerate(found.items(), 1):
        top = 1 - (panel - 1) * share
        place_panel(figure, panel, (0, 1), (top - share * (1 if panel == len(found) else 0.86), top - 0.12 * share))
        _histogram(figure, panel, name, values, edges, last=panel == len(found))
    columns = ("prompt", "samples", "shortest", *(f"{q} %" for q in QUANTILES), "longest", "mean")
    rows = [
        (name, len(values), int(values.min()), *(float(np.percentile(values, q)) for q in QUANTILES),
         int(values.max()), float(values.mean()))
        for name, values in found.items()
    ]
    return finish(figure, _spread(found), columns, rows)


def reservation_curve(
    lengths: Sequence[int], reserved: Sequence[int] | None = None, title: str = "Reserve how much?"
) -> go.Figure:
    """Share of answers that outgrow a reserved length, and share of the reserved memory left unused, in tokens.

    `reserved` are the lengths to try (None: up to a little more than the longest answer).

    Raises:
        UserError: no lengths, or a reservation below one token.
    """
    values = _checked("", lengths)
    tried = np.array(sorted(reserved)) if reserved is not None else np.unique(
        np.linspace(1, 1.15 * values.max(), 80).round().astype(int))
    if not len(tried) or tried.min() < 1:
        raise UserError("reserve at least one token: pass positive lengths, or leave `reserved` out")
    outgrow = [float((values > size).mean()) for size in tried]
    waste = [float(np.clip(size - values, 0, None).mean() / size) for size in tried]
    figure = canvas(title, 430)
    figure.add_trace(curve("reserved memory never used", tried.tolist(), waste, 0, markers=False))
    figure.add_trace(curve("answers that outgrow it", tried.tolist(), outgrow, 1, markers=False))
    figure.update_xaxes(title_text="reserved tokens", range=[0, float(tried.max())])
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%", title_text="share")
    place = int(np.argmin(np.maximum(outgrow, waste)))
    guide(figure, "x", float(values.mean()), f"mean {values.mean():,.0f}")
    columns = ("reserved tokens", "outgrow it", "unused")
    rows = [(int(t), f"{o:.1%}", f"{w:.1%}") for t, o, w in zip(tried, outgrow, waste, strict=True)]
    mean = float((values > values.mean()).mean())
    safe = float(np.clip(values.max() - values, 0, None).mean() / values.max())
    finding = (
        f"Reserving the mean ({values.mean():,.0f} tokens) fails {mean:.0%} of the answers, reserving the longest "
        f"({values.max():,}) leaves {safe:.0%} of the memory unused; the least bad of both is {tried[place]:,} tokens "
        f"with {outgrow[place]:.0%} failing and {waste[place]:.0%} unused."
    )
    return finish(figure, finding, columns, rows)


def _checked(name: str, lengths: Any) -> np.ndarray:
    values = np.asarray(list(lengths))
    if not len(values):
        raise UserError(f"no lengths to draw{f' for {name}' if name else ''}: pass at least one number of tokens")
    return values


def _edges(values: np.ndarray) -> np.ndarray:
    """Borders of whole-token bins, at most 40 of them."""
    low, high = int(values.min()), int(values.max())
    width = max(1, -(-(high - low + 1) // MOST_BINS))
    return np.arange(low, high + width + 1, width)


def _histogram(figure: go.Figure, panel: int, name: str, values: np.ndarray, edges: np.ndarray, last: bool) -> None:
    counts, _ = np.histogram(values, edges - 0.5)
    width = float(edges[1] - edges[0])
    centres = (edges[:-1] + (width - 1) / 2)[counts > 0].tolist()
    counts = counts[counts > 0]
    figure.add_trace(go.Bar(
        x=centres, y=counts.tolist(), width=0.94 * width, name=name or "answers", showlegend=False,
        marker=marker(colour(panel - 1), "", 0.7), hoverinfo="text", **panel_axes(panel),
        hovertext=[f"about {centre:g} tokens: {count} answers" for centre, count in zip(centres, counts, strict=True)],
    ))
    number = "" if panel == 1 else str(panel)
    figure.update_layout({
        f"xaxis{number}": {"range": [float(edges[0]) - 1, float(edges[-1]) + 1], "showgrid": False,
                           "showticklabels": last, "title": {"text": "output tokens" if last else ""}},
        f"yaxis{number}": {"range": [0, 1.25 * float(counts.max())], "title": {"text": "answers"}, "nticks": 4},
    })
    for q in QUANTILES:
        guide(figure, f"x{number}", float(np.percentile(values, q)), colour=BLUE if q == 50 else INK)
    quantiles = " · ".join(f"{q} %: {np.percentile(values, q):,.0f}" for q in QUANTILES)
    heading(figure, panel, f"{name + '   ' if name else ''}{quantiles} tokens")


def _spread(found: Mapping[str, np.ndarray]) -> str:
    said = []
    for name, values in found.items():
        low, middle, high = (float(np.percentile(values, q)) for q in QUANTILES)
        said.append(
            f"{name + ': ' if name else ''}{len(values)} answers have {int(values.min()):,} to {int(values.max()):,} "
            f"tokens, half of them at most {middle:,.0f}; the middle 80 % lie between {low:,.0f} and {high:,.0f}"
        )
    return ". ".join(said) + "."
