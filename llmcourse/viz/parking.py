"""The car park: the same requests in contiguous and in paged memory, slot by slot, stepping in time.

A long place for every car, in case a bus comes: that is a reservation of the maximum. Places of the right length leave
gaps that no newcomer fits into. Paged memory takes a request apart and parks it wherever a block is free, so that only
the last block of each is partly empty (Kwon et al., 2023, Figure 3). Week 6.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.controls import Slider
from llmcourse.viz.explorer import Explorer
from llmcourse.viz.filming import Moment
from llmcourse.viz.theme import GREY, INK, Kind, canvas, colour, finish, letter, marker

ACROSS = 64                              # slots in a row
KINDS = {
    "used": Kind("holds a token", ""),
    "reserved": Kind("reserved: its token will come", "", "/"),
    "internal": Kind("set aside and never filled", "", "x"),
}
NAMES = ("used", "reserved", "internal", "external", "free")
Films = Mapping[str, Sequence[Moment]]


def car_park(films: Films, step: int = 0, across: int = ACROSS, title: str = "") -> go.Figure:
    """Every memory after so many steps (or at its end, if it ends earlier), a panel each; ``across`` slots in a row.

        car_park({"reserve the maximum": film(engine_a, arrivals), "paged": film(engine_b, arrivals)}, step=12)

    Letters go by the order of requests' ids, so that a request has the same letter everywhere.

    Raises:
        UserError: no film, or an empty one.
    """
    shown = {name: at_step(moments, step) for name, moments in check(films).items()}
    letters = letters_of(films)
    figure = canvas(title or f"KV memory after {step} steps", 130, barmode="overlay")
    row = 0.0
    ticks: dict[float, str] = {}
    holes: list[tuple[float, int, int]] = []
    bars: dict[str, list[tuple[float, int, int, str]]] = {kind: [] for kind in KINDS}
    for name, moment in shown.items():
        row += 1.1
        _heading(figure, row - 0.8, name, moment, letters)
        rows = -(-moment.num_blocks * moment.block_size // across)
        _ground(figure, row, rows, across, moment)
        for place in moment.places:
            for start, end, kind in place.stretches(moment.block_size):
                bars[kind] += [(row + part // across, part % across, length, place.owner)
                               for part, length in _rows_of(start, end, across)]
        for hole in moment.useless:
            start, end = hole.start * moment.block_size, hole.stop * moment.block_size
            holes += [(row + part // across, part % across, length) for part, length in _rows_of(start, end, across)]
        ticks |= {row + line: str(line * across) for line in range(rows)}
        row += rows
    for kind, found in bars.items():
        _bars(figure, kind, found, letters, across // 50)
    figure.add_trace(_holes(holes))
    figure.update_layout(
        height=150 + int(36 * row),
        xaxis={"range": [-0.3, across + 0.3], "showgrid": False, "title": {"text": "slot of the row"}},
        yaxis={"range": [row - 0.3, 0], "tickvals": list(ticks), "ticktext": list(ticks.values()), "showgrid": False,
               "title": {"text": "first slot"}, "ticks": ""})
    return finish(figure, _finding(shown, step), ("memory", "in memory", "waiting", *NAMES, "copied", "preemptions"),
                  [_row(name, moment) for name, moment in shown.items()])


def car_park_explorer(films: Films, question: str = "", answer: str = "", across: int = ACROSS,
                      step: int | None = None) -> Explorer:
    """`car_park` with a slider over the steps of the longest film; starts at ``step`` (None: the middle)."""
    last = max(moments[-1].step for moments in check(films).values())
    slider = Slider("step", range(last + 1), last // 2 if step is None else step)
    return Explorer("The car park", lambda step: car_park(films, step, across), {"step": slider}, question=question,
                    answer=answer)


def check(films: Films) -> Films:
    """The films themselves; UserError when there is nothing to see."""
    if not films or not all(films.values()):
        raise UserError("a car park needs films that are not empty: {name: film(engine, workload), ...}")
    return films


def at_step(moments: Sequence[Moment], step: int) -> Moment:
    """The last moment up to that step; the first when all are later."""
    return next((moment for moment in reversed(moments) if moment.step <= step), moments[0])


def letters_of(films: Films) -> dict[str, int]:
    """Place of every request in the order of ids that sorts r2 before r10."""
    names = {name for moments in films.values() for moment in moments
             for name in (*moment.waiting, *(place.owner for place in moment.places))}
    return {name: place for place, name in enumerate(sorted(names, key=lambda name: (len(name), name)))}


def _rows_of(start: int, end: int, across: int) -> list[tuple[int, int]]:
    """The slots cut at the ends of rows: (first slot, how many)."""
    cuts = [start, *range((start // across + 1) * across, end, across), end]
    return [(low, high - low) for low, high in pairwise(cuts)]


def _ground(figure: go.Figure, row: float, rows: int, across: int, moment: Moment) -> None:
    """The memory itself, white: a rectangle for every row."""
    capacity = moment.num_blocks * moment.block_size
    for line in range(rows):
        end = min(across, capacity - line * across)
        figure.add_shape(type="rect", layer="below", x0=0, x1=end, y0=row + line - 0.42, y1=row + line + 0.42,
                         line={"color": "#999999", "width": 1}, fillcolor="#ffffff")


def _bars(figure: go.Figure, kind: str, found: list[tuple[float, int, int, str]], letters: dict[str, int],
          narrow: int) -> None:
    """The stretches of one kind; what has up to ``narrow`` slots is too thin for a letter."""
    style = KINDS[kind]
    marks = [letter(letters[owner]) for _, _, _, owner in found]
    shown = [mark if length > narrow else "" for mark, (_, _, length, _) in zip(marks, found, strict=True)]
    paints = [colour(letters[owner]) for _, _, _, owner in found]
    look: dict[str, object] = {"color": paints, "line": {"color": INK, "width": 1}}
    if style.pattern:
        look["pattern"] = {"shape": style.pattern, "fillmode": "overlay", "fgcolor": INK, "fgopacity": 1, "size": 8,
                           "solidity": 0.18}
    figure.add_trace(go.Bar(
        orientation="h", y=[row for row, _, _, _ in found], base=[start for _, start, _, _ in found],
        x=[length for _, _, length, _ in found], width=0.84, name=style.name, marker=look, text=shown,
        textposition="inside", insidetextanchor="middle", insidetextfont={"color": INK, "size": 14}, textangle=0,
        constraintext="none", hoverinfo="text",
        hovertext=[f"{mark} ({owner}): {length} slots, {style.name}"
                   for mark, (_, _, length, owner) in zip(marks, found, strict=True)]))


def _holes(found: list[tuple[float, int, int]]) -> go.Bar:
    return go.Bar(
        orientation="h", y=[row for row, _, _ in found], base=[start for _, start, _ in found],
        x=[length for _, _, length in found], width=0.84, name="free, too small for the first in line",
        marker=marker(GREY, "."), hoverinfo="text", showlegend=bool(found),
        hovertext=[f"{length} free slots, too few side by side" for _, _, length in found])


def _heading(figure: go.Figure, y: float, name: str, moment: Moment, letters: dict[str, int]) -> None:
    queue = " ".join(letter(letters[owner]) for owner in moment.waiting[:12]) or "nobody"
    more = f" and {len(moment.waiting) - 12} more" if len(moment.waiting) > 12 else ""
    figure.add_annotation(
        x=0, y=y, xanchor="left", yanchor="middle", showarrow=False, font={"size": 15},
        text=f"<b>{name}</b>: {moment.waste.shares['used']:.0%} of the slots hold tokens; waiting: {queue}{more}")


def _row(name: str, moment: Moment) -> tuple[object, ...]:
    return (name, len(moment.places), len(moment.waiting), *(getattr(moment.waste, part) for part in NAMES),
            moment.copied, moment.preempted)


def _finding(shown: Mapping[str, Moment], step: int) -> str:
    parts = [f"{name} holds {len(moment.places)} requests with {moment.waste.used} tokens in {moment.waste.capacity} "
             f"slots, {len(moment.waiting)} wait" for name, moment in shown.items()]
    return f"After {step} steps: {'; '.join(parts)}."
