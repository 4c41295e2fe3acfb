"""Latency against load: flat, flat, flat, then a wall. Where the bend is, and where the promise breaks.

Requests that come a little faster wait a little longer, until the service is nearly full; then each of them waits for
all before it. The knee is where rate divided by median latency is largest (Kleinrock's "power" of a queue, 1979): more
load buys less than it costs. The tail breaks a promise (SLO) long before the median does. Week 3.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.metrics.table import Table
from llmcourse.viz.samples import METRICS, SHORT, as_table, samples
from llmcourse.viz.series import DASHES, curve, guide, log_axis, paint
from llmcourse.viz.theme import VERMILLION, canvas, finish, seconds

Points = Sequence[Any]  # (rate, run) pairs, or rows {"rate": .., "p50": .., "p99": .., "throughput": ..}


@dataclass(frozen=True)
class Load:
    """One measured rate: what was offered and done, in requests/s, and latency percentiles in seconds."""

    rate: float
    throughput: float
    latency: dict[float, float]
    count: int


def latency_throughput(
    points: Points | Mapping[str, Points],
    metric: str = "ttft",
    slo: float | None = None,
    quantiles: Sequence[float] = (50, 99),
    against: Literal["rate", "throughput"] = "rate",
    title: str = "",
    unit: str = "/s",
) -> go.Figure:
    """Percentiles of a latency against the request rate offered, or against the throughput reached.

    ``unit`` is what follows a rate: requests "/s", or " of capacity" where loads are given as shares of it.

    `points` are (rate, run) pairs, a run being a Table, records, events or plain seconds; or rows such as
    `{"rate": 2, "p50": 0.1, "p99": 0.4}` (seconds; "throughput" too, if known). A mapping of names compares systems.

    Raises:
        UserError: no points, an unknown metric, or a row without a percentile.
    """
    systems = points if isinstance(points, Mapping) else {"": points}
    loads = {name: _loads(rows, metric, quantiles) for name, rows in systems.items()}
    if not loads or not all(loads.values()):
        raise UserError("a latency curve needs at least one (rate, run) for every system: measure some rates first")
    if against not in ("rate", "throughput"):
        raise UserError(f"against={against!r}: latency is drawn against 'rate' (offered) or 'throughput' (reached)")
    figure = canvas(title or f"{SHORT[metric]} against {against}".replace("rate", "request rate"), 460)
    for index, (name, rows) in enumerate(loads.items()):
        for place, q in enumerate(sorted(quantiles, reverse=True)):
            look = index if len(loads) > 1 else place
            figure.add_trace(_line(name, rows, q, look, DASHES[place % len(DASHES)], against))
    every: list[float | None] = [load.latency[q] for rows in loads.values() for load in rows for q in quantiles]
    log_axis(figure, "y", [*every, slo], METRICS[metric], seconds)
    offered = "requests per second offered" if unit == "/s" else f"load offered, as a share{unit}"
    figure.update_xaxes(title_text=offered if against == "rate" else "requests per second done", rangemode="tozero")
    _guides(figure, loads, slo, against, sorted(quantiles)[0], unit)
    load_column = "offered (1/s)" if unit == "/s" else f"offered ({unit.strip()})"
    columns = ("system", load_column, "done (1/s)", *(f"P{q:g} (s)" for q in sorted(quantiles)), "samples")
    numbers = [
        (name, load.rate, load.throughput, *(load.latency[q] for q in sorted(quantiles)), load.count)
        for name, found in loads.items()
        for load in found
    ]
    return finish(figure, _finding(loads, metric, slo, sorted(quantiles), unit), columns, numbers)


def knee(loads: Sequence[Load], q: float = 50) -> Load:
    """The load of greatest power: rate over the q-th percentile of latency (Kleinrock, 1979)."""
    return max(loads, key=lambda load: load.rate / load.latency[q])


def _loads(points: Points, metric: str, quantiles: Sequence[float]) -> list[Load]:
    return sorted((_load(point, metric, quantiles) for point in points), key=lambda load: load.rate)


def _load(point: Any, metric: str, quantiles: Sequence[float]) -> Load:
    if isinstance(point, Mapping):
        missing = [f"p{q:g}" for q in quantiles if f"p{q:g}" not in point]
        if missing or "rate" not in point:
            raise UserError(f"a row needs 'rate' and {', '.join(missing) or 'percentiles'}; it has {', '.join(point)}")
        latency = {q: float(point[f"p{q:g}"]) for q in quantiles}
        return Load(point["rate"], point.get("throughput", math.nan), latency, point.get("samples", 0))
    rate, run = point
    found = samples(run, metric)
    if not found.count:
        raise UserError(f"at rate {rate:g} no request has a {metric}: let the run go on until some do")
    return Load(rate, _done(run), {q: found.percentile(q) for q in quantiles}, found.count)


def _done(run: Any) -> float:
    """Requests finished for each second from the first arrival to the last token; NaN for plain seconds."""
    if not isinstance(run, Table) and isinstance(next(iter(run)), (int, float)):
        return math.nan
    table = as_table(run)
    ends = (table["arrival"] + table["e2e"])[table.finished]
    return float(len(ends) / max(ends.max() - table["arrival"].min(), 1e-12)) if len(ends) else math.nan


def _line(name: str, rows: Sequence[Load], q: float, look: int, dash: str, against: str) -> go.Scatter:
    x = [load.rate if against == "rate" else load.throughput for load in rows]
    line = {"color": paint(look), "dash": dash, "width": 3}
    return curve(f"{name} P{q:g}".strip(), x, [load.latency[q] for load in rows], look, line=line)


def _guides(figure: go.Figure, loads: Mapping[str, Sequence[Load]], slo: float | None, against: str, q: float,
            unit: str) -> None:
    if slo is not None:
        guide(figure, "y", slo, f"SLO {seconds(slo)}", VERMILLION, end=False)
    for rows in loads.values():
        bend = knee(rows, q)
        where = bend.rate if against == "rate" else bend.throughput
        if len(loads) == 1 and bend is not rows[-1] and math.isfinite(where):
            guide(figure, "x", where, f"knee: {bend.rate:g}{unit} offered")


def _finding(loads: Mapping[str, Sequence[Load]], metric: str, slo: float | None, quantiles: Sequence[float],
             unit: str) -> str:
    low, high = quantiles[0], quantiles[-1]
    said = []
    for name, rows in loads.items():
        bend = knee(rows, low)
        text = (
            f"{name + ': ' if name else ''}P{high:g} {SHORT[metric]} goes from {seconds(rows[0].latency[high])} at "
            f"{rows[0].rate:g}{unit} to {seconds(rows[-1].latency[high])} at {rows[-1].rate:g}{unit}; "
        ) + (f"the knee is at {bend.rate:g}{unit}" if bend is not rows[-1] else f"no knee up to {bend.rate:g}{unit}")
        if slo is not None:
            kept = [load.rate for load in rows if load.latency[high] <= slo]
            text += f"; the SLO holds up to {max(kept):g}{unit}" if kept else "; the SLO holds at none of these rates"
        said.append(text)
    return ". ".join(said) + "."
