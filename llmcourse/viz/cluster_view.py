"""The cluster map: every instance's memory as a bar, migrations as arcs, and the whole run as a lane for each instance.

Above, one moment: what runs where it was sent, what came from elsewhere (with the number of the instance it came
from), room kept for somebody who is coming, and on top what waits. Below, all moments: how full each instance was, how
much waited, who was preempted, and an arrow for each migration (of many only the newest have their curve, the others
an arrowhead where they ended). Two films of the same workload stand side by side: what
if another policy had chosen? After the load plots of Sun et al., 2024 (Llumnix). Week 8.
"""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.cluster_reader import ClusterFilm, Held, InstanceMoment, Move
from llmcourse.viz.controls import Slider
from llmcourse.viz.explorer import Explorer
from llmcourse.viz.series import guide, heading, panel_axes, place_panel, split
from llmcourse.viz.theme import GREY, INK, ORANGE, SKY, VERMILLION, canvas, finish, marker

TALL = 1.5  # the bars' axis in memories: what waits is cut off there
CROWDED, NEW = 30, 0.04  # from so many migrations on only those of the last share of the run have a curve
KINDS = {"runs where it was sent": marker(SKY), "came from another instance": marker(ORANGE),
         "room kept for one that is coming": marker("#ffffff", "x"), "waits": marker(GREY, ".")}
COLUMNS = ("run", "instance", "blocks used", "kept for one that comes", "needed by who waits", "requests running",
           "waiting")
Films = Mapping[str, ClusterFilm]
Point = tuple[float, float]
Way = tuple[Point, Point, Point]         # from, towards, to


def cluster_map(films: Films | ClusterFilm, step: int = 0, title: str = "") -> go.Figure:
    """Each film at its frame ``step`` (its last, if it is shorter), side by side.

    Raises:
        UserError: there is no film.
    """
    shown = {"": films} if isinstance(films, ClusterFilm) else dict(films)
    if not shown:
        raise UserError("a cluster map needs a film: cluster_film(driver.events)")
    end = max(film.times[-1] for film in shown.values())
    now = max(film.times[min(step, len(film.times) - 1)] for film in shown.values())
    figure = canvas(title or f"The cluster after {now:.1f} s", 640, barmode="overlay")
    columns = split(len(shown), 0.08)
    moving = next((index for index, film in enumerate(shown.values()) if _moved(film)), None)
    for index, (name, film) in enumerate(shown.items()):
        frame = min(step, len(film.times) - 1)
        bars, lanes = 2 * index + 1, 2 * index + 2
        _bars(figure, bars, film.moments[frame], first=index == 0)
        _arcs(figure, bars, film, film.times[frame])
        _lanes(figure, lanes, film, end, film.times[frame], index == moving)
        place_panel(figure, bars, columns[index], (0.56, 0.97))
        place_panel(figure, lanes, columns[index], (0.0, 0.42))
        guide(figure, f"x{lanes}", film.times[frame])
        if name:
            heading(figure, bars, name)
    rows = [_row(name, one) for name, film in shown.items() for one in film.moments[min(step, len(film.times) - 1)]]
    return finish(figure, _finding(shown, step), COLUMNS, rows)


def cluster_explorer(films: Films | ClusterFilm, question: str = "", answer: str = "", step: int | None = None,
                     presets: Mapping[str, int] | None = None) -> Explorer:
    """`cluster_map` with a slider over the frames; starts at ``step`` (None: the middle); presets by frame."""
    shown = [films] if isinstance(films, ClusterFilm) else list(films.values())
    longest = max(shown, key=lambda film: len(film.times))
    frames = range(len(longest.times))
    slider = Slider("time", list(frames), len(frames) // 2 if step is None else step,
                    labels=[f"{time:.1f} s" for time in longest.times])
    return Explorer("The cluster map", lambda step: cluster_map(films, step), {"step": slider},
                    presets={name: {"step": frame} for name, frame in (presets or {}).items()},
                    question=question, answer=answer)


def _bars(figure: go.Figure, panel: int, moment: Sequence[InstanceMoment], first: bool) -> None:
    """A stack for each instance; one trace a kind, so that the legend names it once."""
    top, axes = TALL * max(one.num_blocks for one in moment), panel_axes(panel)
    found: dict[str, list[tuple[int, int, int, str, str]]] = {name: [] for name in KINDS}
    for one in moment:
        base = 0
        for held in sorted(one.held, key=lambda held: ("runs", "coming", "waits").index(held.kind)):
            height = min(held.blocks, int(top) - base)
            if height > 0:
                name = _kind_of(held, one.number)
                mark = str(held.home) if name == "came from another instance" else ""
                found[name].append((one.number, base, height, mark, f"{held.request}: {held.blocks} blocks, {name}"))
                base += height
        figure.add_shape(type="line", x0=one.number - 0.45, x1=one.number + 0.45, y0=one.num_blocks,
                         y1=one.num_blocks, xref=axes["xaxis"], yref=axes["yaxis"], line={"color": INK, "width": 3})
    for name, parts in found.items():
        figure.add_trace(go.Bar(
            name=name, x=[x for x, *_ in parts], base=[base for _, base, *_ in parts], y=[part[2] for part in parts],
            width=0.8, marker=KINDS[name], text=[part[3] for part in parts], textposition="inside", textangle=0,
            insidetextanchor="middle", hoverinfo="text", hovertext=[part[4] for part in parts], showlegend=first,
            legendgroup=name, **axes))
    number = "" if panel == 1 else str(panel)
    figure.update_layout({
        f"xaxis{number}": {"range": [-0.6, len(moment) - 0.4], "tickvals": list(range(len(moment))), "showgrid": False,
                           "title": {"text": "instance"}},
        f"yaxis{number}": {"range": [0, 1.02 * top], "title": {"text": "blocks" if first else ""}}})


def _kind_of(held: Held, instance: int) -> str:
    if held.kind == "runs":
        return "runs where it was sent" if held.home == instance else "came from another instance"
    return "room kept for one that is coming" if held.kind == "coming" else "waits"


def _arcs(figure: go.Figure, panel: int, film: ClusterFilm, now: float) -> None:
    """Migrations under way (solid), and those that ended since the frame before (dotted)."""
    top = TALL * max(one.num_blocks for one in film.moments[0])
    since = now - film.times[1]
    for dash in ("solid", "dot"):
        seen = [move for move in film.moves
                if move.start <= now and (now < move.end if dash == "solid" else since < move.end <= now)]
        ways = [((move.source, 0.72 * top), ((move.source + move.destination) / 2, 1.1 * top),
                 (move.destination, 0.72 * top)) for move in seen]
        _curves(figure, panel, ways, dash)
        _heads(figure, panel, seen, [way[2] for way in ways], ["triangle-down"] * len(seen))


def _moved(film: ClusterFilm) -> list[Move]:
    return [move for move in film.moves if move.outcome == "moved"]


def _curves(figure: go.Figure, panel: int, ways: Sequence[Way], dash: str) -> None:
    """A curve (Bézier's) for each way, from its first point to its last."""
    if not ways:
        return
    xs: list[float | None] = []
    ys: list[float | None] = []
    for (x0, y0), (x1, y1), (x2, y2) in ways:
        shares = [k / 12 for k in range(13)]
        xs += [*((1 - t) ** 2 * x0 + 2 * t * (1 - t) * x1 + t * t * x2 for t in shares), None]
        ys += [*((1 - t) ** 2 * y0 + 2 * t * (1 - t) * y1 + t * t * y2 for t in shares), None]
    line = {"color": VERMILLION, "width": 2, "dash": dash}
    figure.add_trace(go.Scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False,
                                **panel_axes(panel)))


def _heads(figure: go.Figure, panel: int, moves: Sequence[Move], ends: Sequence[Point], heads: Sequence[str],
           size: int = 10, named: bool = False) -> None:
    """Where migrations end, each with its arrowhead; ``named``: in the legend, too."""
    if not moves:
        return
    figure.add_trace(go.Scatter(
        x=[x for x, _ in ends], y=[y for _, y in ends], mode="markers", hoverinfo="text", showlegend=named,
        marker={"symbol": list(heads), "size": size, "color": VERMILLION}, hovertext=[_said(move) for move in moves],
        name="a request has moved here", **panel_axes(panel)))


def _lanes(figure: go.Figure, panel: int, film: ClusterFilm, end: float, now: float, named: bool) -> None:
    """How full each instance was all along, what waited above it, preemptions, migrations."""
    axes = panel_axes(panel)
    count = len(film.moments[0])
    for number in range(count):
        used = [min(1.0, m[number].blocks("runs", "coming") / m[number].num_blocks) for m in film.moments]
        waits = [min(1.0, m[number].blocks("waits") / m[number].num_blocks) for m in film.moments]
        low = [number + 0.6 * share for share in used]
        high = [y + 0.35 * share for y, share in zip(low, waits, strict=True)]
        _area(figure, film.times, [number] * len(low), low, SKY, axes)
        if max(waits) > 0:
            _area(figure, film.times, low, high, VERMILLION, axes)
    if film.preemptions:
        figure.add_trace(go.Scatter(
            x=[time for time, _ in film.preemptions], y=[number + 0.78 for _, number in film.preemptions],
            mode="markers", marker={"symbol": "x", "size": 7, "color": INK}, name="preempted",
            showlegend=panel == 2, **axes))
    moves = _moved(film)
    crowded = len(moves) > CROWDED
    ways = [((move.end, move.source + 0.45), (move.end + 0.02 * end, (move.source + move.destination) / 2 + 0.45),
             (move.end, move.destination + 0.45)) for move in moves if not crowded or now - NEW * end < move.end <= now]
    _curves(figure, panel, ways, "solid")
    heads = ["triangle-up" if move.destination > move.source else "triangle-down" for move in moves]
    _heads(figure, panel, moves, [(move.end, move.destination + 0.45) for move in moves], heads,
           6 if crowded else 10, named)
    figure.update_layout({
        f"xaxis{panel}": {"range": [0, end], "title": {"text": "time, s"}},
        f"yaxis{panel}": {"range": [-0.1, count], "tickvals": [number + 0.3 for number in range(count)],
                          "ticktext": [str(number) for number in range(count)], "showgrid": False,
                          "title": {"text": "instance" if panel == 2 else ""}}})


def _area(figure: go.Figure, times: Sequence[float], low: Sequence[float], high: Sequence[float], paint: str,
          axes: Mapping[str, str]) -> None:
    figure.add_trace(go.Scatter(x=[*times, *reversed(times)], y=[*high, *reversed(low)], mode="lines", fill="toself",
                                fillcolor=paint, line={"color": paint, "width": 0}, showlegend=False, hoverinfo="skip",
                                **axes))


def _said(move: Move) -> str:
    return (f"{move.request}: {move.source} → {move.destination}, {move.blocks} blocks, "
            f"{move.start:.2f} to {move.end:.2f} s, {move.outcome}")


def _row(name: str, one: InstanceMoment) -> tuple[object, ...]:
    waiting = sum(held.kind == "waits" for held in one.held)
    running = sum(held.kind == "runs" for held in one.held)
    return name, one.number, one.blocks("runs"), one.blocks("coming"), one.blocks("waits"), running, waiting


def _finding(films: Films, step: int) -> str:
    parts = []
    for name, film in films.items():
        moment = film.moments[min(step, len(film.times) - 1)]
        now = film.times[min(step, len(film.times) - 1)]
        shares = [one.blocks("runs", "coming") / one.num_blocks for one in moment]
        moved = sum(move.outcome == "moved" and move.end <= now for move in film.moves)
        waiting = sum(held.kind == "waits" for one in moment for held in one.held)
        start = f"{name}, after" if name else "After"
        parts.append(f"{start} {now:.1f} s the fullest instance holds {max(shares):.0%} and the emptiest "
                     f"{min(shares):.0%} of its memory, {waiting} waiting and {moved} moved so far")
    return "; ".join(parts) + "."
