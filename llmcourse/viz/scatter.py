"""Predicted against actual length, a dot for each request; and beside it what the prediction buys.

On the diagonal a prediction is right. What a scheduler takes from it is the order, so Kendall's tau stands in the
heading beside the error: whoever says always twice too much has a large error and a tau of 1. With cuts both axes are
parted into buckets, and the share of dots in the right one is the accuracy. A ranker gives scores: then there is no
diagonal and no error, only order. Qiu et al., 2024; Fu et al., 2024. Week 9.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from llmcourse.errors import UserError
from llmcourse.predict.evaluate import accuracy, kendall_tau, mae
from llmcourse.viz.series import heading, log_axis, panel_axes, place_panel
from llmcourse.viz.theme import BLUE, GREY, INK, ORANGE, SKY, VERMILLION, canvas, finish, marker

DOTS = 500                                                 # as many are drawn; all are counted
ROWS = 60                                                  # of the table


def prediction_scatter(truth: ArrayLike, said: ArrayLike, latency: Mapping[str, float] | None = None,
                       cuts: Sequence[float] = (), scores: bool = False, title: str = "Predicted and actual length",
                       height: int = 470) -> go.Figure:
    """Dots at (actual, predicted) in tokens, or at (actual, score) when what was said are ``scores``.

    ``latency``: mean seconds of a request by policy, drawn as bars beside the dots. ``cuts``: rising edges between
    buckets, in tokens.

    Raises:
        UserError: lists of different lengths, no request, or a length that is not above 0.
    """
    actual, guessed = np.asarray(truth, dtype=float), np.asarray(said, dtype=float)
    tau = kendall_tau(actual, guessed)
    if actual.min() <= 0 or (not scores and guessed.min() <= 0):
        raise UserError(f"lengths from {min(actual.min(), guessed.min()):g} tokens; an answer has more than 0")
    if list(cuts) != sorted(cuts):
        raise UserError(f"cuts {list(cuts)}; they must rise")
    figure = canvas(title, height)
    place_panel(figure, 1, (0, 0.58 if latency else 1), (0, 0.93))
    _dots(figure, actual, guessed, scores)
    _axes(figure, actual, guessed, scores)
    facts = {"tau": f"{tau:.2f}"}
    if not scores:
        facts["mean error"] = f"{mae(actual, guessed):.3g} tokens"
        if len(cuts):
            facts["right bucket"] = f"{accuracy(actual, guessed, cuts):.0%}"
            _buckets(figure, cuts, actual, guessed)
    heading(figure, 1, "  ·  ".join(f"{name} {value}" for name, value in facts.items()))
    if latency:
        _bars(figure, latency)
    finding = f"{len(actual):,} requests: " + ", ".join(f"{name} {value}" for name, value in facts.items())
    if latency:
        finding += "; a request takes on average " + ", ".join(f"{took:.3g} s by {by}" for by, took in latency.items())
    rows = [("requests", len(actual)), *facts.items(), *((f"mean latency, {by}", f"{took:.3g} s")
                                                        for by, took in (latency or {}).items())]
    shown = list(zip(actual.tolist(), guessed.tolist(), strict=True))[:ROWS]
    rows += [(f"request {number}: actual {length:g}", f"{'score' if scores else 'said'} {what:.3g}")
             for number, (length, what) in enumerate(shown)]
    return finish(figure, finding + ".", ("", "value"), rows)


def _dots(figure: go.Figure, actual: np.ndarray, guessed: np.ndarray, scores: bool) -> None:
    x, y = actual[:DOTS].tolist(), guessed[:DOTS].tolist()
    figure.add_trace(go.Scatter(
        x=x, y=y, mode="markers", name="a request", showlegend=False, hoverinfo="text",
        hovertext=[f"actual {a:g}, {'score' if scores else 'said'} {b:.3g}" for a, b in zip(x, y, strict=True)],
        marker={"size": 7, "color": BLUE, "opacity": 0.45, "symbol": "circle"}, **panel_axes(1)))


def _axes(figure: go.Figure, actual: np.ndarray, guessed: np.ndarray, scores: bool) -> None:
    both = actual if scores else np.concatenate([actual, guessed])
    ends = [float(both.min()), float(both.max())]
    log_axis(figure, "x", ends, "tokens it had")
    if scores:
        figure.update_yaxes(title_text="score: smaller is shorter")
        return
    log_axis(figure, "y", ends, "tokens predicted")
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", name="right", showlegend=False, hoverinfo="skip",
                                line={"color": INK, "dash": "dash", "width": 2}, **panel_axes(1)))


def _buckets(figure: go.Figure, cuts: Sequence[float], actual: np.ndarray, guessed: np.ndarray) -> None:
    ends = [float(min(actual.min(), guessed.min())), float(max(actual.max(), guessed.max()))]
    for cut in cuts:
        for line in ({"x": [cut, cut], "y": ends}, {"x": ends, "y": [cut, cut]}):
            figure.add_trace(go.Scatter(**line, mode="lines", showlegend=False, hoverinfo="skip", name="cut",
                                        line={"color": VERMILLION, "dash": "dot", "width": 1.5}, **panel_axes(1)))


def _bars(figure: go.Figure, latency: Mapping[str, float]) -> None:
    names, paints = list(latency), [GREY, *[SKY] * max(len(latency) - 2, 0), ORANGE]
    place_panel(figure, 2, (0.72, 1), (0.08, 0.93))
    figure.add_trace(go.Bar(
        x=list(range(len(names))), y=list(latency.values()), width=0.7, name="mean latency", showlegend=False,
        text=[f"{took:.3g}" for took in latency.values()], textposition="outside",
        hovertext=[f"{by}: {took:.3g} s" for by, took in latency.items()], hoverinfo="text",
        marker=marker(SKY) | {"color": paints[:len(names)]}, **panel_axes(2)))
    figure.update_layout(
        xaxis2={"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.6, len(names) - 0.4]},
        yaxis2={"range": [0, 1.18 * max(latency.values())]})
    heading(figure, 2, "mean latency, s")
