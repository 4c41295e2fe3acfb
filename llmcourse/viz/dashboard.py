"""A service's dashboard, from its event log: memory, queue, throughput, preemptions over time, under vLLM's names.

What an operator sees of a real server, in the same words: `kv_cache_usage_perc`, `num_requests_running`,
`num_requests_waiting`, `num_preemptions`, prompt and generation tokens per second. A queue that grows while memory is
full says more than either. With `until` it shows what was known at a moment, for a slider over time. Weeks 3 to 5.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.series import DASHES, heading, paint, panel_axes, place_panel
from llmcourse.viz.theme import INK, ORANGE, canvas, finish, seconds
from llmcourse.viz.timeline import Step

WINDOWS = 240
SMOOTH = 6  # windows over which a rate is averaged


@dataclass(frozen=True)
class Gauges:
    """The run in equal windows: their starts and width (s), and a row of numbers for each quantity (windows,)."""

    starts: np.ndarray
    width: float
    usage: np.ndarray  # share of KV blocks, the most in the window
    running: np.ndarray
    waiting: np.ndarray
    prompt: np.ndarray  # tokens per second
    generation: np.ndarray
    preemptions: list[float]  # times (s)


def dashboard(events: Iterable[Event], until: float | None = None, title: str = "Dashboard") -> go.Figure:
    """Four gauges over the run (s), up to `until`; the axes always span the whole run.

    Raises:
        UserError: no step in the log, or none before `until`.
    """
    gauges = _read(list(events))
    shown = np.ones(len(gauges.starts), bool) if until is None else gauges.starts <= until
    if not shown.any():
        raise UserError(f"nothing has happened until {until:g} s; the run starts at {gauges.starts[0]:.3g} s")
    figure = canvas(title, 660)
    panels = (
        ("memory", (("kv_cache_usage_perc", gauges.usage, 0),)),
        ("requests", (("num_requests_running", gauges.running, 2), ("num_requests_waiting", gauges.waiting, 1))),
        ("tokens per second", (("generation tokens", gauges.generation, 4), ("prompt tokens", gauges.prompt, 3))),
    )
    end = gauges.starts[-1] + gauges.width
    for panel, (name, lines) in enumerate(panels, 1):
        top = 1.0 - (panel - 1) * 0.345
        place_panel(figure, panel, (0, 1), (max(0.0, top - 0.31), top - 0.06))
        heading(figure, panel, name)
        for dash, (text, values, look) in enumerate(lines):
            figure.add_trace(_line(text, gauges.starts[shown], values[shown], look, dash, panel))
        most = max(float(values.max()) for _, values, _ in lines)
        _axes(figure, panel, 1.12 if panel == 1 else 1.12 * most or 1.0, (float(gauges.starts[0]), float(end)))
    _marks(figure, [time for time in gauges.preemptions if until is None or time <= until])
    columns = ("from (s)", "KV usage", "running", "waiting", "generation tokens/s", "prompt tokens/s")
    rows = [
        (float(start), f"{usage:.1%}", int(running), int(waiting), float(out), float(read))
        for start, usage, running, waiting, out, read in zip(
            gauges.starts[shown], gauges.usage[shown], gauges.running[shown], gauges.waiting[shown],
            gauges.generation[shown], gauges.prompt[shown], strict=True)
    ]
    return finish(figure, _finding(gauges, shown, until), columns, rows)


def _read(events: list[Event]) -> Gauges:
    timeline = read_timeline(events)
    if not timeline.steps:
        raise UserError("the log holds no step yet: run the engine first")
    first, last = timeline.steps[0].start, timeline.steps[-1].end
    width = (last - first) / WINDOWS or 1.0

    def per_second(counted: Iterable[tuple[float, int]]) -> np.ndarray:
        sums = np.zeros(WINDOWS // SMOOTH)
        for time, count in counted:
            sums[min(int((time - first) / (SMOOTH * width)), len(sums) - 1)] += count
        return np.repeat(sums / (SMOOTH * width), SMOOTH)

    usage, running, waiting = _levels(timeline.steps, first, width)
    return Gauges(
        first + width * np.arange(WINDOWS), width, usage, running, waiting,
        per_second((span.end, span.tokens) for span in timeline.spans if span.kind in ("prefill", "recompute")),
        per_second((event.time, len(event.data["tokens"])) for event in events if event.kind == "NEW_TOKENS"),
        [time for time, _, _ in timeline.preemptions],
    )


def _levels(steps: Sequence[Step], first: float, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most of KV share, running and waiting in each window; where no step ends, those of the step under way."""
    place = np.array([min(int((step.end - first) / width), WINDOWS - 1) for step in steps])
    made = np.array([(step.used_blocks / step.num_blocks, step.running, step.waiting) for step in steps], dtype=float)
    level = np.full((WINDOWS, 3), np.nan)
    for window, row in zip(place, made, strict=True):
        level[window] = np.fmax(level[window], row)
    under_way = made[np.minimum(np.searchsorted(place, np.arange(WINDOWS)), len(steps) - 1)]
    usage, running, waiting = np.where(np.isnan(level), under_way, level).T
    return usage, running, waiting


def _line(name: str, x: np.ndarray, y: np.ndarray, index: int, dash: int, panel: int) -> go.Scatter:
    line = {"color": paint(index), "width": 2.5, "shape": "hv", "dash": DASHES[dash]}
    return go.Scatter(x=x.tolist(), y=y.tolist(), mode="lines", name=name, line=line, showlegend=True,
                      **panel_axes(panel))


def _axes(figure: go.Figure, panel: int, top: float, span: tuple[float, float]) -> None:
    number, last = "" if panel == 1 else str(panel), panel == 3
    figure.update_layout({
        f"xaxis{number}": {"range": list(span), "showticklabels": last, "title": {"text": "time (s)" if last else ""}},
        f"yaxis{number}": {"range": [0, top], "nticks": 4, "tickformat": ".0%" if panel == 1 else None},
    })


def _marks(figure: go.Figure, times: list[float]) -> None:
    if times:
        figure.add_trace(go.Scatter(
            x=times, y=[1.06] * len(times), mode="markers", name="preemption", showlegend=True,
            marker={"symbol": "triangle-down", "size": 12, "color": ORANGE, "line": {"color": INK}},
        ))


def _finding(gauges: Gauges, shown: np.ndarray, until: float | None) -> str:
    usage, waiting = gauges.usage[shown], gauges.waiting[shown]
    lost = sum(until is None or time <= until for time in gauges.preemptions)
    now = int(shown.sum()) - 1
    return (
        f"In {seconds(gauges.width * (now + 1))} the KV cache was at most {usage.max():.0%} full, up to "
        f"{int(waiting.max())} requests waited and {lost} preemptions happened; "
        f"{gauges.generation[shown].mean():,.4g} tokens per second were written; at the end "
        f"{int(gauges.running[now])} requests run and {int(waiting[now])} wait."
    )
