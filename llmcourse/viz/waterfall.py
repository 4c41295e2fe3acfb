"""Request waterfall: where each request's seconds went, from arrival to its last token.

A bar per request, cut into queue, prefill, decode and preempted by vLLM's interval rules, with a tick at the first
token (TTFT). The parts add up to the end-to-end time, so nothing can hide: head-of-line blocking is a long grey bar
behind somebody's long orange one. Weeks 2 and 3.
"""

from collections.abc import Iterable

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.metrics.words import counted
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.theme import INK, KINDS, canvas, finish, marker, seconds
from llmcourse.viz.timeline import Life

Part = tuple[str, float, float]  # kind, start, end


def parts(life: Life, end: float) -> list[Part]:
    """The stretches of one request in order, up to `end` seconds if it has not finished; they leave no gap."""
    last = life.finished if life.finished is not None else end
    marks = [("waiting", life.queued)]
    if life.scheduled is not None:
        marks.append(("prefill", life.scheduled))
    if life.first_token is not None:
        marks.append(("decode", life.first_token))
    for start, stop in life.gaps:
        marks += [
            ("preempted", start),
            ("decode" if life.first_token is not None and life.first_token <= start else "prefill", stop),
        ]
    marks.sort(key=lambda mark: mark[1])
    ends = [mark[1] for mark in marks[1:]] + [last]
    return [(kind, start, stop) for (kind, start), stop in zip(marks, ends, strict=True) if stop > start]


def request_waterfall(
    events: Iterable[Event], title: str = "Where each request's time went"
) -> go.Figure:
    """Waterfall of all requests in order of arrival; times in seconds on the engine's clock.

    Raises:
        UserError: an empty log.
    """
    timeline = read_timeline(events)
    if not timeline.lives:
        raise UserError("the log holds no request: add one to the engine first")
    lives = list(timeline.lives.values())
    cut = [(row, part) for row, life in enumerate(lives) for part in parts(life, timeline.end)]
    figure = canvas(title, 160 + max(30 * len(lives), 90), barmode="overlay")
    for kind in ("waiting", "prefill", "decode", "preempted"):
        chosen = [(row, part) for row, part in cut if part[0] == kind]
        if chosen:
            figure.add_trace(_bars(kind, chosen))
    first = [(life.first_token, row) for row, life in enumerate(lives) if life.first_token is not None]
    figure.add_trace(
        go.Scatter(
            x=[time for time, _ in first],
            y=[row for _, row in first],
            mode="markers",
            name="first token (TTFT)",
            marker={"symbol": "line-ns", "size": 16, "color": INK, "line": {"width": 3, "color": INK}},
            hovertext=[f"TTFT {seconds(time - lives[row].queued)}" for time, row in first],
            hoverinfo="text",
        )
    )
    names = [
        life.letter if life.letter == life.request else f"{life.letter} · {life.request}" for life in lives
    ]
    figure.update_yaxes(
        tickvals=list(range(len(lives))), ticktext=names, range=[len(lives) - 0.4, -0.6], showgrid=False
    )
    figure.update_xaxes(title_text="time (s)", range=[min(life.queued for life in lives), timeline.end])
    rows = [_row(life, timeline.end) for life in lives]
    return finish(
        figure,
        _finding(lives, timeline.end),
        (
            "request",
            "arrival (s)",
            "queue (s)",
            "prefill (s)",
            "decode (s)",
            "preempted (s)",
            "TTFT (s)",
            "end to end (s)",
            "tokens",
        ),
        rows,
    )


def _bars(kind: str, chosen: list[tuple[int, Part]]) -> go.Bar:
    style = KINDS[kind]
    return go.Bar(
        orientation="h",
        y=[row for row, _ in chosen],
        base=[part[1] for _, part in chosen],
        x=[part[2] - part[1] for _, part in chosen],
        width=0.7,
        name="queue" if kind == "waiting" else style.name,
        marker=marker(style.colour, style.pattern, 0.7),
        hovertext=[f"{kind} {seconds(part[2] - part[1])}" for _, part in chosen],
        hoverinfo="text",
        showlegend=True,
    )


def _row(life: Life, end: float) -> tuple[object, ...]:
    spent = dict.fromkeys(("waiting", "prefill", "decode", "preempted"), 0.0)
    for kind, start, stop in parts(life, end):
        spent[kind] += stop - start
    ttft = "" if life.first_token is None else life.first_token - life.queued
    whole = "" if life.finished is None else life.finished - life.queued
    return (life.request, life.queued, *spent.values(), ttft, whole, life.delivered)


def _finding(lives: list[Life], end: float) -> str:
    waits = [(life.scheduled if life.scheduled is not None else end) - life.queued for life in lives]
    longest = max(range(len(lives)), key=lambda row: waits[row])
    ttfts = sorted(life.first_token - life.queued for life in lives if life.first_token is not None)
    typical = (
        f"the median time to first token is {seconds(ttfts[len(ttfts) // 2])}" if ttfts else "no token yet"
    )
    return (
        f"{counted(len(lives), 'request')}: {typical}; {lives[longest].letter} waited longest in the queue, "
        f"{seconds(waits[longest])}; {counted(sum(len(life.gaps) for life in lives), 'preemption')}."
    )
