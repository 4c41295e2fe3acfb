"""Policy race: the same arrivals under several policies, a row a request, one panel a policy.

Whoever looks along a row sees what an order of service did to that request; the numbers above say what it did to all.
Short jobs first lowers the mean and may starve the long; taking turns is fair and slow for everybody.
Grey is waiting, and waiting is all that a policy can move around. Week 3.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.metrics.table import Table
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.samples import METRICS, SHORT, as_table, samples
from llmcourse.viz.series import heading, headroom, panel_axes, place_panel, split
from llmcourse.viz.theme import KINDS, canvas, finish, letter, marker, seconds
from llmcourse.viz.waterfall import parts

SHOWN = 28  # requests; more rows than that nobody reads
Bar = tuple[int, str, float, float]  # row, kind, start, seconds


@dataclass(frozen=True)
class Lane:
    """One policy: its requests in order of arrival, their bars, and the race's numbers over all requests."""

    table: Table
    bars: list[Bar]
    mean: float
    tail: float


def policy_race(
    runs: Mapping[str, Any],
    metric: str = "e2e",
    tail: float = 99,
    title: str = "The same requests under each policy",
    shown: int = SHOWN,
) -> go.Figure:
    """Waterfalls side by side with mean and tail percentile of a metric; a run is events, records or a Table.

    At most `shown` requests are drawn (the first to arrive); the numbers count all of them.

    Raises:
        UserError: no run, one without requests, or runs of different arrivals.
    """
    if not runs:
        raise UserError("a race needs at least one policy: pass {name: events, records or table}")
    lanes = {name: _lane(run, metric, tail, shown) for name, run in runs.items()}
    counts = {name: len(lane.table) for name, lane in lanes.items()}
    if len(set(counts.values())) > 1 or not all(counts.values()):
        raise UserError(f"a race needs the same requests under every policy; these served {counts}")
    rows = min(shown, next(iter(counts.values())))
    figure = canvas(title, 250 + max(20 * rows, 150), barmode="overlay")
    between = " · " if len(lanes) <= 3 else "<br>"
    end = max((start + length for lane in lanes.values() for _, _, start, length in lane.bars), default=1.0)
    for panel, ((name, lane), domain) in enumerate(zip(lanes.items(), split(len(lanes), 0.03), strict=True), 1):
        _panel(figure, panel, domain, lane, rows, end)
        heading(figure, panel, f"{name}<br>mean {seconds(lane.mean)}{between}P{tail:g} {seconds(lane.tail)}")
    for kind in ("waiting", "prefill", "decode", "preempted"):  # one key a kind, whichever panel has it first
        keys = [trace for trace in figure.data if trace.name == _name(kind)]
        for trace in keys[:1]:
            trace.showlegend = True
    columns = ("policy", "requests", "mean (s)", f"P{tail:g} (s)", "longest queue (s)", "preemptions", "metric")
    numbers = [
        (name, len(lane.table), lane.mean, lane.tail, _most(lane.table["queue_time"]),
         int(lane.table["preemptions"].sum()), METRICS[metric])
        for name, lane in lanes.items()
    ]
    return finish(figure, _finding(lanes, metric, tail), columns, numbers)


def _lane(run: Any, metric: str, tail: float, shown: int) -> Lane:
    run = run if isinstance(run, Table) else list(run)
    table = as_table(run)
    table = table.select(np.lexsort((table["id"], table["arrival"])))
    found = samples(table, metric)
    logged = not isinstance(run, Table) and isinstance(run[0], Event)
    bars = _from_events(run, list(table["id"][:shown])) if logged else _from_table(table, shown)
    return Lane(table, bars, found.mean, found.percentile(tail))


def _from_events(events: Iterable[Event], rows: list[str]) -> list[Bar]:
    """Every stretch of time where it was."""
    timeline = read_timeline(events)
    return [
        (row, kind, start, stop - start)
        for row, name in enumerate(rows)
        for kind, start, stop in parts(timeline.lives[name], timeline.end)
    ]


def _from_table(table: Table, shown: int) -> list[Bar]:
    """Lengths only: what a request lost to preemptions stands between its prefill and its decode."""
    bars: list[Bar] = []
    for row in range(min(shown, len(table))):
        start = float(table["arrival"][row])
        for kind in ("queue", "prefill", "preempted", "decode"):
            length = float(np.nan_to_num(table[f"{kind}_time"][row]))
            if length > 0:
                bars.append((row, "waiting" if kind == "queue" else kind, start, length))
            start += length
    return bars


def _panel(
    figure: go.Figure, panel: int, domain: tuple[float, float], lane: Lane, rows: int, end: float
) -> None:
    for kind in ("waiting", "prefill", "decode", "preempted"):
        chosen = [bar for bar in lane.bars if bar[1] == kind]
        if chosen:
            figure.add_trace(_bars(kind, chosen, panel))
    place_panel(figure, panel, domain, (0, headroom(figure, 2 if domain[1] - domain[0] > 0.3 else 3)))
    number = "" if panel == 1 else str(panel)
    names = [letter(row) for row in range(rows)]
    first = float(lane.table["arrival"].min())
    figure.update_layout({
        f"xaxis{number}": {"title": {"text": "time (s)"}, "range": [first, first + 1.02 * (end - first)], "nticks": 5},
        f"yaxis{number}": {"tickvals": list(range(rows)), "ticktext": names if panel == 1 else [""] * rows,
                           "range": [rows - 0.4, -0.6], "showgrid": False},
    })


def _bars(kind: str, bars: list[Bar], panel: int) -> go.Bar:
    style = KINDS[kind]
    return go.Bar(
        orientation="h", y=[bar[0] for bar in bars], base=[bar[2] for bar in bars], x=[bar[3] for bar in bars],
        width=0.75, name=_name(kind), marker=marker(style.colour, style.pattern, 0.5),
        hovertext=[f"{letter(bar[0])}: {kind} {seconds(bar[3])}" for bar in bars], hoverinfo="text",
        showlegend=False, **panel_axes(panel),
    )


def _name(kind: str) -> str:
    return "queue" if kind == "waiting" else kind


def _most(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else 0.0


def _finding(lanes: Mapping[str, Lane], metric: str, tail: float) -> str:
    best = min(lanes, key=lambda name: lanes[name].mean)
    calm = min(lanes, key=lambda name: lanes[name].tail)
    worst = max(lanes, key=lambda name: lanes[name].mean)
    if len(lanes) > 1 and len({(seconds(lane.mean), seconds(lane.tail)) for lane in lanes.values()}) == 1:
        return (f"{len(lanes[best].table)} requests; no policy differs: mean ({SHORT[metric]}) "
                f"{seconds(lanes[best].mean)}, P{tail:g} {seconds(lanes[best].tail)} under each.")
    said = f"{len(lanes[best].table)} requests; lowest mean ({SHORT[metric]}): {best}, {seconds(lanes[best].mean)}"
    if worst != best:
        said += f"; highest: {worst}, {seconds(lanes[worst].mean)}"
    return said + f"; lowest P{tail:g}: {calm}, {seconds(lanes[calm].tail)}."
