"""A request's journey: one lane per part of the service, one mark per stop, in order of time.

The line falls from the gateway to the worker, then swings between worker and gateway once for every token: that swing
is autoregression, and it is where nearly all of the time goes. Stops are equally wide, because a cold start is a
hundred times as long as a step; the table has the times. `at` shows where the request stands after so many. Week 2.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.theme import BLUE, GREY, INK, VERMILLION, canvas, finish, seconds

LANES = ("gateway", "registry", "scheduler", "KV manager", "worker", "monitor")


class JourneyStop(Protocol):
    """A stop of `llmcourse.serve`, or anything like it; `time` in seconds."""

    @property
    def time(self) -> float:
        """When."""

    @property
    def part(self) -> str:
        """Where."""

    @property
    def what(self) -> str:
        """What happened."""


def request_journey(
    stops: Iterable[JourneyStop], at: int | None = None, title: str = "One request's way through the service"
) -> go.Figure:
    """Lanes and stops, with the first `at` of them done (all by default).

    Raises:
        UserError: no stops, or `at` beyond them.
    """
    way = list(stops)
    at = len(way) if at is None else at
    if not 1 <= at <= len(way):
        raise UserError(
            f"at={at}: this journey has {len(way)} stops, so it can be shown after 1 to {len(way)}"
        )
    lanes = [*LANES, *sorted({str(stop.part) for stop in way} - set(LANES))]
    figure = canvas(title, 120 + 52 * len(lanes))
    for chosen, name, colour in ((way, "to come", GREY), (way[:at], "done", BLUE)):
        figure.add_trace(_line(chosen, lanes, name, colour, way[0].time))
    here = way[at - 1]
    figure.add_trace(
        go.Scatter(
            x=[at],
            y=[lanes.index(str(here.part))],
            mode="markers",
            name=f"now: {here.part}",
            showlegend=True,
            marker={"symbol": "diamond", "size": 18, "color": VERMILLION, "line": {"width": 2, "color": INK}},
        )
    )
    figure.update_yaxes(tickvals=list(range(len(lanes))), ticktext=lanes, range=[len(lanes) - 0.5, -0.5])
    figure.update_xaxes(title_text="stop", range=[0.3, len(way) + 0.7], showgrid=False)
    return finish(
        figure,
        _finding(way, at),
        ("stop", "since arrival (s)", "part", "what happened"),
        [(k, round(stop.time - way[0].time, 6), stop.part, stop.what) for k, stop in enumerate(way[:at], 1)],
    )


def _line(
    way: Sequence[JourneyStop], lanes: Sequence[str], name: str, colour: str, start: float
) -> go.Scatter:
    return go.Scatter(
        x=list(range(1, len(way) + 1)),
        y=[lanes.index(str(stop.part)) for stop in way],
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 3},
        marker={"size": 10, "color": colour, "line": {"width": 1, "color": INK}},
        hovertext=[f"{seconds(stop.time - start)}: {stop.part}: {stop.what}" for stop in way],
        hoverinfo="text",
    )


def _finding(way: Sequence[JourneyStop], at: int) -> str:
    here, last = way[at - 1], way[-1]
    passed = f"Stop {at} of {len(way)}, {seconds(here.time - way[0].time)} after arrival, {here.part}: {here.what}."
    turns = sum(str(stop.part) == "worker" for stop in way)
    return f"{passed} The whole way took {seconds(last.time - way[0].time)} and went through the worker {turns} times."
