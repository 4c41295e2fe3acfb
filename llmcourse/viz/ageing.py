"""Ageing: everybody starts at the level of its priority and rises while it waits; whoever stands highest goes next.

Without ageing the lines are flat: a request of a low level is passed by every important one, for ever under steady
load. With ageing they rise at one speed, so two lines never cross, and nobody who comes later than the difference in
levels is worth can pass. That is the bound (policies/priority.py). Week 6.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.viz.series import SYMBOLS, paint
from llmcourse.viz.theme import INK, canvas, finish

SHOWN = 60                               # requests of a level; more lines hide each other


@dataclass(frozen=True)
class Wait:
    """A request's first wait: its level, from when to when (s), and whether it has been served by then."""

    request: str
    level: int
    start: float
    end: float
    served: bool

    @property
    def seconds(self) -> float:
        """How long it waited, or has waited so far."""
        return self.end - self.start


def waits(events: Iterable[Event]) -> list[Wait]:
    """The wait of every request of a log, in order of arrival; who is still waiting has waited until the last event."""
    log = list(events)
    queued = {event.request: event for event in log if event.kind == "QUEUED"}
    started: dict[str | None, float] = {}
    for event in log:
        if event.kind == "SCHEDULED":
            started.setdefault(event.request, event.time)
    end = max((event.time for event in log), default=0.0)
    return [Wait(str(name), int(event.data.get("priority", 0)), event.time, started.get(name, end), name in started)
            for name, event in queued.items()]


def priority_ageing(events: Iterable[Event], ageing: float | None, until: float | None = None,
                    title: str = "") -> go.Figure:
    """Effective level over time of everybody who waits; ``ageing``: seconds worth one level (None: none).

    Levels count downwards on the axis, so that what is served next stands highest. ``until`` (s) cuts the picture.

    Raises:
        UserError: nobody in the log, or an ageing that is not positive.
    """
    found = waits(events)
    if not found or (ageing is not None and not ageing > 0):
        raise UserError("nothing to draw: pass the events of a run with requests, and an ageing above 0 s or None")
    end = max(wait.end for wait in found) if until is None else until
    levels = sorted({wait.level for wait in found})
    named = "Levels without ageing" if ageing is None else f"Levels that rise by one every {ageing:g} s"
    figure = canvas(title or named, 440)
    for index, level in enumerate(levels):
        these = [wait for wait in found if wait.level == level and wait.start <= end]
        _lines(figure, level, index, these[:: max(1, -(-len(these) // SHOWN))], ageing, end)
    lowest = max(levels)
    top = min((_level_at(wait, min(wait.end, end), ageing) for wait in found if wait.start <= end), default=0.0)
    figure.update_layout(
        xaxis={"range": [0, end], "title": {"text": "time (s)"}},
        yaxis={"range": [lowest + 0.5, min(0.0, top) - 0.5], "nticks": 8,
               "title": {"text": "level (highest goes next)"}})
    rows = [(level, sum(w.level == level for w in found), sum(w.level == level and w.served for w in found),
             max(w.seconds for w in found if w.level == level)) for level in levels]
    return finish(figure, _finding(found, levels, ageing), ("level", "requests", "served", "longest wait (s)"), rows)


def _level_at(wait: Wait, time: float, ageing: float | None) -> float:
    return wait.level - (0.0 if ageing is None else (time - wait.start) / ageing)


def _lines(figure: go.Figure, level: int, index: int, these: Sequence[Wait], ageing: float | None, end: float) -> None:
    x: list[float | None] = []
    y: list[float | None] = []
    for wait in these:
        stop = min(wait.end, end)
        x += [wait.start, stop, None]
        y += [float(wait.level), _level_at(wait, stop, ageing), None]
    figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line={"color": paint(index), "width": 2}, hoverinfo="skip",
                                name=f"level {level} waits", showlegend=True))
    served = [wait for wait in these if wait.served and wait.end <= end]
    figure.add_trace(go.Scatter(
        x=[wait.end for wait in served], y=[_level_at(wait, wait.end, ageing) for wait in served], mode="markers",
        name=f"level {level} is served", showlegend=True,
        marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 11, "color": paint(index),
                "line": {"color": INK, "width": 1}},
        hovertext=[f"{wait.request}: waited {wait.seconds:.1f} s" for wait in served], hoverinfo="text"))


def _finding(found: Sequence[Wait], levels: Sequence[int], ageing: float | None) -> str:
    parts = []
    for level in levels:
        these = [wait for wait in found if wait.level == level]
        left = sum(not wait.served for wait in these)
        parts.append(f"level {level} waits up to {max(wait.seconds for wait in these):.1f} s"
                     + (f" and {left} of {len(these)} still wait at the end" if left else ""))
    return ("Without ageing " if ageing is None else f"With one level every {ageing:g} s ") + "; ".join(parts) + "."
