"""Iteration Gantt: who got tokens in which step, by request or by slot of the batch.

One row per request shows what happened to each; one row per slot shows how full the batch was. Under static batching
white gaps stay open until the longest request of the batch ends; continuous batching fills them in the next step (Orca,
2022). The horizontal axis is wall time or step number: in steps every iteration is equally wide, in time a step with
a long prefill is seen to be long. Weeks 2 and 4.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.metrics.words import counted
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.theme import INK, KINDS, canvas, finish, marker, seconds
from llmcourse.viz.timeline import Span, Timeline, merge

SINGLE_STEPS = 48  # up to here every step is a bar of its own


def iteration_gantt(
    events: Iterable[Event],
    rows: Literal["request", "slot"] = "request",
    axis: Literal["step", "time"] = "step",
    title: str = "Who got tokens in which step",
) -> go.Figure:
    """Gantt of a run: a row per request (in order of arrival) or per slot, against step number or seconds.

    Raises:
        UserError: an empty log, or other values of `rows` and `axis`.
    """
    if rows not in ("request", "slot") or axis not in ("step", "time"):
        raise UserError(
            f"rows={rows!r}, axis={axis!r}: rows is 'request' or 'slot', axis is 'step' or 'time'"
        )
    timeline = read_timeline(events)
    if not timeline.steps:
        raise UserError("the log holds no step yet: run the engine first")
    spans = [span for span in timeline.spans if rows == "request" or span.slot >= 0]
    spans = [span for span in spans if axis == "time" or span.last >= span.first]
    names = _row_names(timeline, rows, spans)
    height = 150 + max(len(names) * 30, 90)
    figure = canvas(title, height, barmode="overlay")
    single = len(timeline.steps) <= SINGLE_STEPS
    for kind, style in KINDS.items():
        chosen = [span for span in spans if span.kind == kind]
        chosen = chosen if single else merge(chosen)
        if chosen:
            figure.add_trace(_bars(timeline, chosen, kind, rows, axis, style.name))
    _axes(figure, timeline, names, axis)
    return finish(
        figure,
        _finding(timeline),
        ("step", "start (s)", "end (s)", "batch", "waiting", "running"),
        [
            (
                s.number,
                s.start,
                s.end,
                " ".join(f"{timeline.lives[r].letter}+{n}" for r, _, n in s.batch),
                s.waiting,
                s.running,
            )
            for s in timeline.steps
        ],
    )


def idle_slot_steps(events: Iterable[Event]) -> int:
    """Slot-steps in which the widest batch of the run had a seat without work."""
    return _idle(read_timeline(events))


def _idle(timeline: Timeline) -> int:
    seats = max((len(step.batch) for step in timeline.steps), default=0)
    return sum(seats - len(step.batch) for step in timeline.steps)


def _row_names(timeline: Timeline, rows: str, spans: Sequence[Span]) -> list[str]:
    if rows == "slot":
        return [f"slot {slot}" for slot in range(1 + max((span.slot for span in spans), default=0))]
    return [
        name if name == life.letter else f"{life.letter} · {name}" for name, life in timeline.lives.items()
    ]


def _bars(timeline: Timeline, spans: Sequence[Span], kind: str, rows: str, axis: str, name: str) -> go.Bar:
    order = {request: index for index, request in enumerate(timeline.lives)}
    style = KINDS[kind]
    base = [span.first - 0.5 if axis == "step" else span.start for span in spans]
    length = [span.last - span.first + 1 if axis == "step" else span.end - span.start for span in spans]
    texts = [_text(timeline, span, rows) for span in spans]
    tips = [_tip(timeline, span) for span in spans]
    return go.Bar(
        orientation="h",
        base=base,
        x=length,
        name=name,
        width=0.5 if kind == "waiting" else 0.8,
        y=[span.slot if rows == "slot" else order[span.request] for span in spans],
        marker=marker(style.colour, style.pattern, 0.7),
        insidetextfont={"color": INK, "size": 14, "weight": 600},
        text=texts,
        textposition="inside",
        insidetextanchor="middle",
        hovertext=tips,
        hoverinfo="text",
        constraintext="none",
        textangle=0,
        showlegend=True,
    )


def _text(timeline: Timeline, span: Span, rows: str) -> str:
    if rows == "slot":
        return timeline.lives[span.request].letter
    return str(span.tokens) if span.kind in ("prefill", "recompute") else ""


def _tip(timeline: Timeline, span: Span) -> str:
    life = timeline.lives[span.request]
    where = f"step {span.first}" if span.first == span.last else f"steps {span.first}-{span.last}"
    tokens = f", {span.tokens} tokens" if span.tokens else ""
    return f"{life.letter} · {span.request}: {span.kind}{tokens}<br>{where}, {seconds(span.end - span.start)}"


def _axes(figure: go.Figure, timeline: Timeline, names: Sequence[str], axis: str) -> None:
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=list(names), range=[len(names) - 0.4, -0.6], showgrid=False
    )
    if axis == "step":
        figure.update_xaxes(
            title_text="step", range=[timeline.steps[0].number - 0.5, timeline.steps[-1].number + 0.5]
        )
    else:
        figure.update_xaxes(title_text="time (s)", range=[min(s.start for s in timeline.spans), timeline.end])


def _finding(timeline: Timeline) -> str:
    tokens = sum(count for step in timeline.steps for _, _, count in step.batch)
    seats = max(len(step.batch) for step in timeline.steps)
    idle = _idle(timeline)
    return (
        f"{counted(len(timeline.lives), 'request')} ran in {counted(len(timeline.steps), 'step')} that computed "
        f"{tokens} tokens; "
        f"of {seats * len(timeline.steps)} places in the batch {idle} were empty "
        f"({idle / (seats * len(timeline.steps)):.0%}); {counted(len(timeline.preemptions), 'preemption')}."
    )
