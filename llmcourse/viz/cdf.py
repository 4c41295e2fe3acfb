"""Distributions side by side: which share of requests (or of gaps between tokens) was at most this slow.

A mean hides who suffered. A curve of shares shows the median, the tail and where two policies or tenants trade places:
whatever lies left is better. The axis is logarithmic, since latencies of one service span factors of a hundred. Week 3.
"""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.samples import METRICS, SHORT, Samples, samples
from llmcourse.viz.series import curve, guide, log_axis
from llmcourse.viz.theme import VERMILLION, canvas, finish, seconds

QUANTILES = (50, 90, 99)


def latency_cdf(
    runs: Mapping[str, Any], metric: str = "ttft", slo: float | None = None, title: str = ""
) -> go.Figure:
    """Cumulative distribution of a metric for each run: a Table, events, records, or plain seconds.

    Raises:
        UserError: no run, or one without a sample of that metric.
    """
    found = {name: samples(run, metric) for name, run in runs.items()}
    if not found or not all(one.count for one in found.values()):
        empty = ", ".join(name for name, one in found.items() if not one.count) or "any run"
        raise UserError(f"no {SHORT.get(metric, metric)} was measured in {empty}: nothing to draw")
    figure = canvas(title or f"{SHORT[metric]}: who waits how long", 440)
    every: list[float | None] = [slo]
    for index, (name, one) in enumerate(found.items()):
        values, shares = one.grid()
        floor = max(values[-1] / 1e4, 1e-9)  # a logarithmic axis has no zero
        values = [max(value, floor) for value in [values[0], *values]]
        every += values
        figure.add_trace(curve(name, values, [0.0, *shares], index, markers=False, line_shape="hv"))
    log_axis(figure, "x", every, METRICS[metric], seconds, room=1.1)
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%", title_text="share at most this slow")
    if slo is not None:
        guide(figure, "x", slo, f"SLO {seconds(slo)}", VERMILLION, end=False)
    columns = ("run", "samples", "mean (s)", *(f"P{q} (s)" for q in QUANTILES), "within the SLO")
    rows = [
        (name, one.count, one.mean, *(one.percentile(q) for q in QUANTILES), _within(one, slo))
        for name, one in found.items()
    ]
    return finish(figure, _finding(found, metric, slo), columns, rows)


def _within(one: Samples, slo: float | None) -> str:
    if slo is None:
        return ""
    return f"{float(one.weights[one.values <= slo].sum()) / one.count:.1%}"


def _finding(found: Mapping[str, Samples], metric: str, slo: float | None) -> str:
    said = [
        f"{name} has a median {SHORT[metric]} of {seconds(one.percentile(50))} and a P99 of "
        f"{seconds(one.percentile(99))}" + (f", {_within(one, slo)} within the SLO" if slo is not None else "")
        for name, one in found.items()
    ]
    return "; ".join(said) + "."
