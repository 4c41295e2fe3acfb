"""What the client sees of a migration: the tokens of one answer over time, once for each way of moving it.

A client knows nothing of instances. It sees tokens come, and if it looks closely, the time between them. Each curve is
the number of tokens received so far; a migration is a flat piece of it, and nothing else: no token twice, none missing,
none out of order. The length of the flat piece is what the methods differ in. Week 7.
"""

from collections.abc import Iterable, Mapping

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.viz.moving import Move, read_moves
from llmcourse.viz.series import curve, guide
from llmcourse.viz.theme import canvas, finish, seconds

POINTS = 150                             # marks of a curve at most


def client_streams(runs: Mapping[str, Iterable[Event]], before: float = float("inf"), after: float = float("inf"),
                   title: str = "What the client sees") -> go.Figure:
    """Tokens received against milliseconds since the migration began, from ``before`` s before it to ``after`` s after.

    ``runs``: the log of each run by the name of its curve; the last migration of each is shown.

    Raises:
        UserError: no run, or one without a migration.
    """
    if not runs:
        raise UserError("no run to look at: pass {name: driver.events}")
    moves = {name: read_moves(events)[-1] for name, events in runs.items()}
    figure = canvas(title, 430)
    for index, (name, move) in enumerate(moves.items()):
        received = [(t - move.begun, n) for n, t in enumerate(move.tokens, 1) if -before <= t - move.begun <= after]
        received = received[:: max(1, -(-len(received) // POINTS))]
        figure.add_trace(curve(name, [1000 * t for t, _ in received], [n for _, n in received], index))
    figure.update_xaxes(title_text="ms since the migration began")
    figure.update_yaxes(title_text="tokens received")
    guide(figure, "x", 0.0, "the migration begins")
    columns = ("run", "tokens in all", "usual gap (ms)", "longest gap at the migration (ms)", "downtime (ms)",
               "whole migration (ms)")
    return finish(figure, _finding(moves), columns, [_row(name, move) for name, move in moves.items()])


def usual_gap(move: Move) -> float:
    """Median time between two tokens of the request, s."""
    gaps = sorted(b - a for a, b in zip(move.tokens, move.tokens[1:], strict=False))
    return gaps[len(gaps) // 2] if gaps else 0.0


def _row(name: str, move: Move) -> tuple[object, ...]:
    pause = move.pause[1] - move.pause[0]
    times = (usual_gap(move), pause, move.downtime, move.ended - move.begun)
    return (name, len(move.tokens), *(round(1000 * value, 2) for value in times))


def _finding(moves: Mapping[str, Move]) -> str:
    said = [f"{name}: {seconds(move.pause[1] - move.pause[0])}" for name, move in moves.items()]
    usual = seconds(min(usual_gap(move) for move in moves.values()))
    return f"A token usually comes every {usual}; the longest wait at the migration is, " + "; ".join(said) + "."
