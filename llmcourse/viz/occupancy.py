"""KV occupancy over time: blocks in use against the pool's size, requests waiting below, preemptions marked.

A saw-tooth that climbs as requests decode and drops when one finishes. Where it touches the dashed line somebody is
preempted, and the queue below grows: memory, not arithmetic, decides how many requests run (PagedAttention, 2023).
Weeks 2 and 6.
"""

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.metrics.words import counted
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.theme import BLUE, GREEN, INK, ORANGE, VERMILLION, canvas, finish
from llmcourse.viz.timeline import Step, Timeline

SHOWN = 600  # steps; more cannot be told apart


def kv_occupancy(
    events: Iterable[Event], title: str = "KV blocks in use, and who waits for them"
) -> go.Figure:
    """Used blocks of the pool over seconds, with waiting and running counts in a panel below.

    Raises:
        UserError: no step in the log.
    """
    timeline = read_timeline(events)
    steps = _thin(timeline.steps)
    if not steps:
        raise UserError("the log holds no step yet: run the engine first")
    total = steps[0].num_blocks
    figure = canvas(title, 520)
    _line(figure, steps, "used blocks", [step.used_blocks for step in steps], BLUE, fill="tozeroy")
    figure.add_trace(
        go.Scatter(
            x=[steps[0].start, steps[-1].end],
            y=[total, total],
            mode="lines",
            name=f"all {total} blocks",
            line={"color": INK, "dash": "dash", "width": 2},
        )
    )
    _marks(figure, timeline, total)
    _line(figure, steps, "waiting requests", [step.waiting for step in steps], VERMILLION, below=True)
    _line(figure, steps, "running requests", [step.running for step in steps], GREEN, below=True, dash="dot")
    figure.update_layout(
        yaxis={"domain": [0.42, 1], "title": {"text": "blocks"}, "range": [0, total * 1.12]},
        xaxis={"showticklabels": False, "range": [steps[0].start, steps[-1].end]},
        yaxis2={
            "domain": [0, 0.3],
            "title": {"text": "requests"},
            "rangemode": "tozero",
            "range": [0, 1.1 * max(1, *(max(step.waiting, step.running) for step in steps))],
        },
        xaxis2={"anchor": "y2", "title": {"text": "time (s)"}, "range": [steps[0].start, steps[-1].end]},
    )
    return finish(
        figure,
        _finding(timeline, total),
        ("step", "end (s)", "used", "free", "running", "waiting"),
        [(s.number, s.end, s.used_blocks, s.num_blocks - s.used_blocks, s.running, s.waiting) for s in steps],
    )


def _thin(steps: Sequence[Step]) -> Sequence[Step]:
    """At most `SHOWN` of the steps, of neighbours the one with most blocks in use."""
    every = -(-len(steps) // SHOWN)
    return [max(steps[k : k + every], key=lambda step: step.used_blocks) for k in range(0, len(steps), every or 1)]


def _line(
    figure: go.Figure,
    steps: Sequence[Step],
    name: str,
    values: Sequence[int],
    colour: str,
    below: bool = False,
    dash: str = "solid",
    fill: str = "none",
) -> None:
    figure.add_trace(
        go.Scatter(
            x=[*(step.start for step in steps), steps[-1].end],
            y=[*values, values[-1]],
            mode="lines",
            name=name,
            fill=fill,
            line={"color": colour, "shape": "hv", "dash": dash, "width": 2.5},
            fillcolor="#a9d3ee",
            xaxis="x2" if below else "x",
            yaxis="y2" if below else "y",
        )
    )


def _marks(figure: go.Figure, timeline: Timeline, total: int) -> None:
    if not timeline.preemptions:
        return
    letters = [timeline.lives[request].letter for _, _, request in timeline.preemptions]
    figure.add_trace(
        go.Scatter(
            x=[time for time, _, _ in timeline.preemptions],
            y=[total * 1.05] * len(letters),
            mode="markers",
            name="preemption",
            marker={"symbol": "triangle-down", "size": 13, "color": ORANGE},
            hovertext=[f"{name} preempted" for name in letters],
            hoverinfo="text",
        )
    )


def _finding(timeline: Timeline, total: int) -> str:
    peak = max(timeline.steps, key=lambda step: step.used_blocks)
    queue = max(step.waiting for step in timeline.steps)
    return (
        f"At most {peak.used_blocks} of {total} blocks were in use ({peak.used_blocks / total:.0%}, step "
        f"{peak.number}); {counted(len(timeline.preemptions), 'preemption')}; "
        f"up to {counted(queue, 'request')} waited."
    )
