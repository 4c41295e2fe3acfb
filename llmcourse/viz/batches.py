"""Ways of batching side by side: a row a slot of the batch, and the slots that nobody used are counted.

A static batch keeps its slots until its longest request ends; continuous batching gives a free slot to the next request
in the next step; mixed batching also lets a long prompt share its steps with those who decode. The pale cells are
memory and bandwidth paid for and not used (Orca, Yu et al., 2022). Week 4.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.series import heading, panel_axes, place_panel
from llmcourse.viz.theme import INK, KINDS, canvas, finish, marker, seconds
from llmcourse.viz.timeline import Span, Timeline, merge

EMPTY = "#f1f1f1"
ROW, HEAD = 26, 62  # pixels of a slot, and between two panels
MOST = 40_000  # places; a picture of more cannot be read, and takes long


@dataclass(frozen=True)
class Run:
    """One way of batching: what each slot did, the stretches it was empty, and the shares of slot-steps by use."""

    timeline: Timeline
    spans: list[Span]
    empty: list[Span]
    slots: int

    @property
    def slot_steps(self) -> int:
        """All places there were: slots times steps."""
        return self.slots * len(self.timeline.steps)

    @property
    def used(self) -> int:
        """Places in which a token was computed."""
        return sum(len(step.batch) for step in self.timeline.steps)

    @property
    def waste(self) -> float:
        """Share of places without work: empty, or held by a request that got no token."""
        return 1 - self.used / self.slot_steps

    @property
    def seconds(self) -> float:
        """From the first step's start to the last one's end."""
        return self.timeline.steps[-1].end - self.timeline.steps[0].start


def batching_gantt(
    runs: Mapping[str, Iterable[Event]],
    axis: Literal["step", "time"] = "step",
    title: str = "What each slot of the batch did",
) -> go.Figure:
    """Gantt by slot for the event log of each run, one panel below the other on one axis.

    Raises:
        UserError: no run, a log without steps, or too many slots and steps to draw.
    """
    logs = {name: read_timeline(events) for name, events in runs.items()}
    if not logs or not all(timeline.steps for timeline in logs.values()):
        raise UserError("batching is compared on runs that made steps: pass {name: engine.events} after running them")
    slots = max(len(step.batch) for timeline in logs.values() for step in timeline.steps)
    slots = max(slots, *(span.slot + 1 for timeline in logs.values() for span in timeline.spans))
    found = {name: _read(timeline, slots) for name, timeline in logs.items()}
    height = 130 + len(found) * (ROW * slots + HEAD)
    figure = canvas(title, height, barmode="overlay")
    share = (ROW * slots) / (height - 130)
    for panel, (name, run) in enumerate(found.items(), 1):
        top = 1 - (panel - 1) * (1 / len(found)) - 26 / (height - 130)
        place_panel(figure, panel, (0, 1), (max(0.0, top - share), top))
        _panel(figure, panel, run, axis)
        heading(figure, panel, f"{name}: {run.waste:.0%} of {run.slot_steps} slot-steps wasted, {_length(run, axis)}")
    _ranges(figure, found, axis)
    _legend(figure)
    columns = ("batching", "steps", "seconds", "slot-steps", "computed", "held, no token", "empty", "wasted")
    return finish(figure, _finding(found, axis), columns, [_row(name, run) for name, run in found.items()])


def _read(timeline: Timeline, slots: int) -> Run:
    if slots * len(timeline.steps) > MOST:
        raise UserError(f"{slots} slots in {len(timeline.steps)} steps are too many to see (at most {MOST:,} places): "
                        "run fewer requests, or look at the dashboard")
    spans = [span for span in timeline.spans if span.slot >= 0]
    taken = {(span.first, span.slot) for span in spans}
    empty = [
        Span(f"slot {slot}", "empty", step.start, step.end, step.number, step.number, slot)
        for slot in range(slots)
        for step in timeline.steps
        if (step.number, slot) not in taken
    ]
    return Run(timeline, merge(spans), merge(empty), slots)


def _panel(figure: go.Figure, panel: int, run: Run, axis: str) -> None:
    if run.empty:
        figure.add_trace(_bars(run, "empty", run.empty, panel, axis))
    for kind in ("prefill", "decode", "recompute", "idle"):
        chosen = [span for span in run.spans if span.kind == kind]
        if chosen:
            figure.add_trace(_bars(run, kind, chosen, panel, axis))


def _bars(run: Run, kind: str, spans: list[Span], panel: int, axis: str) -> go.Bar:
    look = marker(EMPTY, "", 0) if kind == "empty" else marker(KINDS[kind].colour, KINDS[kind].pattern, 0.7)
    letters = ["" if kind == "empty" else run.timeline.lives[span.request].letter for span in spans]
    steps = axis == "step"
    return go.Bar(
        orientation="h", y=[span.slot for span in spans], width=0.86, name=_name(kind), marker=look,
        base=[span.first - 0.5 if steps else span.start for span in spans],
        x=[span.last - span.first + 1 if steps else span.end - span.start for span in spans],
        text=letters, textposition="inside", insidetextanchor="middle", textangle=0, constraintext="none",
        insidetextfont={"color": INK, "size": 14, "weight": 600}, hoverinfo="text", showlegend=False,
        hovertext=[f"{name or 'slot empty'}: {kind}, {seconds(span.end - span.start)}"
                   for name, span in zip(letters, spans, strict=True)],
        **panel_axes(panel),
    )


def _name(kind: str) -> str:
    return {"empty": "empty slot", "idle": "held, no token"}.get(kind, kind)


def _ranges(figure: go.Figure, found: Mapping[str, Run], axis: str) -> None:
    """One axis for all: the longest run's."""
    if axis == "step":
        bounds = [-0.5, max(run.timeline.steps[-1].number for run in found.values()) + 0.5]
    else:
        starts = [run.timeline.steps[0].start for run in found.values()]
        bounds = [min(starts), max(run.timeline.end for run in found.values())]
    for panel, run in enumerate(found.values(), 1):
        number, last = "" if panel == 1 else str(panel), panel == len(found)
        title = {"text": ("step" if axis == "step" else "time (s)") if last else ""}
        figure.update_layout({
            f"xaxis{number}": {"range": bounds, "showticklabels": last, "title": title},
            f"yaxis{number}": {"range": [run.slots - 0.4, -0.6], "showgrid": False, "tickvals": list(range(run.slots)),
                               "ticktext": [f"slot {k}" for k in range(run.slots)]},
        })


def _legend(figure: go.Figure) -> None:
    for name in dict.fromkeys(trace.name for trace in figure.data):
        next(trace for trace in figure.data if trace.name == name).showlegend = True


def _length(run: Run, axis: str) -> str:
    return f"{len(run.timeline.steps)} steps" if axis == "step" else f"{seconds(run.seconds)}"


def _row(name: str, run: Run) -> tuple[object, ...]:
    held = sum(span.last - span.first + 1 for span in run.spans if span.kind == "idle")
    empty = run.slot_steps - run.used - held
    steps = len(run.timeline.steps)
    return (name, steps, run.seconds, run.slot_steps, run.used, held, empty, f"{run.waste:.1%}")


def _finding(found: Mapping[str, Run], axis: str) -> str:
    said = [f"{name} wastes {run.waste:.0%} of its slots and needs {_length(run, axis)}" for name, run in found.items()]
    return f"{len(next(iter(found.values())).timeline.lives)} requests: " + "; ".join(said) + "."
