"""A migration as a picture: one lane each for the source, the link, the destination and the client.

What a live migration does is seen at a glance: bars on the link lie under bars of the source, which goes on computing,
and only the last one stands where nobody computes. Stop-and-copy and recomputing show their long gap the same way. The
client's lane says what a migration is to whoever reads the answer: a pause, or nothing. Sun et al., 2024. Week 7.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.viz.moving import Move, read_moves
from llmcourse.viz.series import guide, write
from llmcourse.viz.theme import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    canvas,
    finish,
    marker,
    seconds,
    size,
)

LOOKS = {
    "decode": ("computes its next token", SKY, ""),
    "prefill": ("computes many of its tokens", PURPLE, "/"),
    "others": ("a step for others", "#ffffff", ""),
    "stopped": ("stopped for the migration", VERMILLION, "x"),
    "reserved": ("blocks reserved", GREY, "."),
    "copy": ("copied while it runs", ORANGE, "/"),
    "last": ("copied while it stands", YELLOW, "x"),
}
TOKENS = 400                             # marks in the client's lane at most
Bar = tuple[str, float, float, str, str]         # lane, from, to (s), words inside, tooltip


def migration_timeline(run: Iterable[Event] | Move, number: int = -1, title: str = "",
                       span: float | None = None) -> go.Figure:
    """The number-th migration of a log (-1: the last), in milliseconds since it began; ``span`` (s): how much to show.

    ``run`` is a merged log (`driver.events`), or one migration that was read from it.

    Raises:
        UserError: no such migration in the log.
    """
    move = run if isinstance(run, Move) else _chosen(read_moves(run), number)
    lanes = _lanes(move)
    left, right = _window(move, span)
    figure = canvas(title or f"{move.method}: request {move.request} from instance {move.source} to {move.destination}",
                    190 + 62 * len(lanes), barmode="overlay")
    for kind, bars in _bars(move, lanes).items():
        shown = [(lane, max(start, left), min(end, right), text, tip) for lane, start, end, text, tip in bars
                 if start < right and end > left]
        if shown:
            figure.add_trace(_trace(move, lanes, kind, shown))
    figure.add_trace(_client(move, lanes, left, right))
    _mark_pause(figure, move, len(lanes) - 1)
    figure.update_xaxes(title_text="ms since the migration began",
                        range=[1000 * (left - move.begun), 1000 * (right - move.begun)])
    figure.update_yaxes(tickvals=list(range(len(lanes))), ticktext=list(lanes), showgrid=False,
                        range=[len(lanes) - 0.4, -0.75])
    for time, instance in move.faults:
        guide(figure, "x", 1000 * (time - move.begun), f"instance {instance} dies", VERMILLION)
    return finish(figure, describe(move), ("what", "from (ms)", "to (ms)", "blocks", "bytes"), _rows(move))


def _chosen(moves: Sequence[Move], number: int) -> Move:
    if not -len(moves) <= number < len(moves):
        raise UserError(f"migration {number} is not in this log: it holds {len(moves)}")
    return moves[number]


def describe(move: Move) -> str:
    """The migration in one sentence."""
    start, end = move.pause
    ended = {"moved": "moved", "aborted": f"aborted ({move.reason})", "": "still under way"}[move.outcome]
    live = [copy for copy in move.copies if not copy.stopped]
    sent = (f"{size(move.bytes)} in {len(move.copies)} {'copy' if len(move.copies) == 1 else 'copies'}, "
            f"{len(live)} of them while it ran" if move.copies else "no KV was sent")
    stood = f"from its stop to its next token {seconds(move.downtime)} passed" if move.stopped else "it never stopped"
    return (f"{move.method}: {ended} after {seconds(move.ended - move.begun)}; {sent}; {stood}, and its client waited "
            f"at most {seconds(end - start)}.")


def _lanes(move: Move) -> dict[str, int | None]:
    """Names of the lanes, from the top, and the instance that each shows."""
    lanes: dict[str, int | None] = {f"source: {move.source}": move.source, "link": None,
                                    f"destination: {move.destination}": move.destination}
    late = {w.instance for w in move.work if w.kind != "others" and w.start >= move.begun}
    for other in sorted(late - {move.source, move.destination}):
        lanes[f"instance {other}"] = other
    return {**lanes, "client": None}


def _window(move: Move, span: float | None) -> tuple[float, float]:
    """What to show: the migration, the pause it made, and a little before and after."""
    end = max(move.ended, move.pause[1])
    length = (end - move.begun) or 1e-3
    return move.begun - 0.12 * length, (end + 0.2 * length if span is None else move.begun + span)


def _bars(move: Move, lanes: dict[str, int | None]) -> dict[str, list[Bar]]:
    """Bars by kind, in the order in which they are drawn."""
    bars: dict[str, list[Bar]] = {kind: [] for kind in LOOKS}
    source, link, destination = list(lanes)[:3]
    named = {instance: lane for lane, instance in lanes.items() if instance is not None}
    for work in move.work:
        if work.instance in named:
            text = str(work.tokens) if work.kind == "prefill" else ""
            tip = f"{LOOKS[work.kind][0]}: {seconds(work.end - work.start)}"
            bars[work.kind].append((named[work.instance], work.start, work.end, text, tip))
    bars["stopped"] += [(source, *spell, "", f"stopped: {seconds(spell[1] - spell[0])}") for spell in move.stopped]
    bars["reserved"] += [(destination, *spell, "", "blocks reserved") for spell in move.reserved]
    for copy in move.copies:
        tip = f"blocks {copy.first} to {copy.last - 1}: {size(copy.bytes)} in {seconds(copy.end - copy.start)}"
        bars["last" if copy.stopped else "copy"].append((link, copy.start, copy.end, str(copy.last - copy.first), tip))
    return bars


def _trace(move: Move, lanes: dict[str, int | None], kind: str, bars: Sequence[Bar]) -> go.Bar:
    name, paint, pattern = LOOKS[kind]
    order = list(lanes)
    # What an instance keeps for the request lies above its steps, so that both are seen.
    shift, width = {"stopped": (-0.32, 0.24), "reserved": (-0.32, 0.24)}.get(kind, (0.08, 0.5))
    return go.Bar(
        orientation="h", y=[order.index(bar[0]) + shift for bar in bars], width=width, name=name, showlegend=True,
        base=[1000 * (bar[1] - move.begun) for bar in bars], x=[1000 * (bar[2] - bar[1]) for bar in bars],
        marker=marker(paint, pattern, 0.6), text=[bar[3] for bar in bars], textposition="inside", textangle=0,
        insidetextanchor="middle", insidetextfont={"color": INK, "size": 14, "weight": 600}, constraintext="none",
        hovertext=[bar[4] for bar in bars], hoverinfo="text")


def _client(move: Move, lanes: dict[str, int | None], left: float, right: float) -> go.Scatter:
    times = [time for time in move.tokens if left <= time <= right]
    times = times[:: max(1, -(-len(times) // TOKENS))]
    return go.Scatter(x=[1000 * (time - move.begun) for time in times], y=[len(lanes) - 1] * len(times), mode="markers",
                      name="a token reaches the client", showlegend=True, hoverinfo="x",
                      marker={"symbol": "circle", "size": 9, "color": BLUE, "line": {"color": INK, "width": 1}})


def _mark_pause(figure: go.Figure, move: Move, lane: int) -> None:
    """A line over the longest wait of the client, with its length beside whatever death cuts it."""
    start, end = (1000 * (time - move.begun) for time in move.pause)
    if end > start:
        deaths = (1000 * (time - move.begun) for time, _ in move.faults)
        cuts = [start, *sorted(death for death in deaths if start < death < end), end]
        _, middle = max((later - sooner, (sooner + later) / 2) for sooner, later in pairwise(cuts))
        level = {"y0": lane - 0.22, "y1": lane - 0.22}
        figure.add_shape(type="line", x0=start, x1=end, line={"color": VERMILLION, "width": 3}, **level)
        write(figure, f"waits {seconds((end - start) / 1000)}", VERMILLION, x=middle, y=lane - 0.3,
              yanchor="bottom")


def _rows(move: Move) -> list[tuple[str, float, float, str, object]]:
    def ms(time: float) -> float:
        return round(1000 * (time - move.begun), 2)

    rows: list[tuple[str, float, float, str, object]] = [
        ("migration: " + (move.outcome or "under way"), 0.0, ms(move.ended), "", move.bytes)]
    rows += [("blocks reserved", ms(a), ms(b), "", "") for a, b in move.reserved]
    rows += [("copied while it " + ("stands" if c.stopped else "runs"), ms(c.start), ms(c.end),
              f"{c.first} to {c.last - 1}", c.bytes) for c in move.copies]
    rows += [("stopped", ms(a), ms(b), "", "") for a, b in move.stopped]
    return [*rows, ("longest wait of the client", ms(move.pause[0]), ms(move.pause[1]), "", "")]
