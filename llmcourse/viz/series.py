"""Several series in one picture: looks that differ without colour, guide lines, logarithmic axes, panels, headings.

The index-th series has a colour, a dash and a marker of its own, so a black-and-white print tells them apart. A guide
is a dashed line with words: an SLO, a knee, a budget. Ticks of a logarithmic axis stand at 1, 2, 5 when it spans
little, for nobody reads 0.03 off an axis that says 0.01 and 0.1. Used by the views of weeks 3 to 5.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from llmcourse.viz.theme import INK, LINES

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down")


def paint(index: int) -> str:
    """Line colour of the index-th series."""
    return LINES[index % len(LINES)]


def curve(
    name: str, x: Sequence[float], y: Sequence[float | None], index: int, markers: bool = True, **more: Any
) -> go.Scatter:
    """A line in the look of the index-th series; `more` goes to the trace."""
    look = {
        "mode": "lines+markers" if markers else "lines",
        "line": {"color": paint(index), "dash": DASHES[index % len(DASHES)], "width": 3},
        "marker": {"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 10, "color": paint(index)},
        "showlegend": True,
    }
    return go.Scatter(name=name, x=list(x), y=list(y), **{**look, **more})


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks from low to high (both positive): 1, 2 and 5 of each power of ten, or fewer when it spans much."""
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades <= 2.5 else (1, 3) if decades <= 4 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p * (1 + 1e-9) <= high * (1 + 2e-9)]


def log_axis(
    figure: go.Figure,
    axis: str,
    values: Iterable[float | None],
    title: str = "",
    text: Callable[[float], str] = "{:,.10g}".format,
    room: float = 1.25,
) -> None:
    """Make `axis` ("x", "y2", …) logarithmic over the positive values, `room` times wider at both ends."""
    found = [value for value in values if value is not None and math.isfinite(value) and value > 0] or [1.0]
    low, high = min(found) / room, max(found) * room
    if high / low < 4:  # a nearly flat curve must not look steep
        low, high = low / 2, high * 2
    ticks = log_ticks(low, high)
    setting = {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [text(tick) for tick in ticks],
        "title": {"text": title},
    }
    figure.update_layout({f"{axis[0]}axis{axis[1:]}": setting})


def guide(
    figure: go.Figure, axis: str, value: float, text: str = "", colour: str = INK, end: bool = True, below: bool = False
) -> None:
    """A dashed line across the panel of `axis` at a value, with words at its end (or its start), above or below it.

    Call it when the axis has its type: a logarithmic one places words by exponents.
    """
    flat, number = axis[0] == "y", axis[1:]
    other = f"{'x' if flat else 'y'}{number}"
    along = {f"{other[0]}0": 0, f"{other[0]}1": 1, f"{other[0]}ref": f"{other} domain"}
    across = {f"{axis[0]}0": value, f"{axis[0]}1": value, f"{axis[0]}ref": axis}
    figure.add_shape(type="line", line={"color": colour, "dash": "dash", "width": 2}, **along, **across)
    log = figure.layout[f"{axis[0]}axis{number}"].type == "log"
    place = math.log10(value) if log else value
    if text and flat:
        side = {"x": 1, "xanchor": "right", "xshift": -4} if end else {"x": 0, "xanchor": "left", "xshift": 6}
        level = {"y": place, "yanchor": "top" if below else "bottom", "yref": axis}
        write(figure, text, colour, **side, **level, xref=f"{other} domain")
    elif text:
        top = {"y": 1, "yanchor": "top"} if end else {"y": 0, "yanchor": "bottom"}
        span = figure.layout[f"{axis[0]}axis{number}"].range
        right = span is not None and place > span[0] + 0.75 * (span[1] - span[0])  # words would leave the picture
        side = {"xanchor": "right", "xshift": -5} if right else {"xanchor": "left", "xshift": 5}
        write(figure, text, colour, **top, **side, x=place, xref=axis, yref=f"{other} domain")


def write(figure: go.Figure, text: str, colour: str = INK, **where: Any) -> None:
    """Words in the picture, without an arrow."""
    figure.add_annotation(text=text, showarrow=False, font={"size": 15, "color": colour}, **where)


def heading(figure: go.Figure, panel: int, text: str) -> None:
    """A line of words above the panel-th subplot (from 1)."""
    number = "" if panel == 1 else str(panel)
    refs = {"xref": f"x{number} domain", "yref": f"y{number} domain"}
    write(figure, f"<b>{text}</b>", INK, x=0, y=1, yshift=4, yanchor="bottom", xanchor="left", align="left", **refs)


def panel_axes(panel: int) -> dict[str, str]:
    """The axes of the panel-th subplot (from 1), as a trace names them."""
    number = "" if panel == 1 else str(panel)
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def headroom(figure: go.Figure, lines: int = 1) -> float:
    """The share of the picture's height at which a panel ends that has so many lines of heading above it."""
    return 1 - (8 + 20 * lines) / (figure.layout.height - 150)


def split(count: int, gap: float) -> list[tuple[float, float]]:
    """`count` equal domains between 0 and 1, `gap` apart."""
    width = (1 - gap * (count - 1)) / count
    return [(k * (width + gap), k * (width + gap) + width) for k in range(count)]


def place_panel(figure: go.Figure, panel: int, x: Sequence[float], y: Sequence[float]) -> None:
    """Put the panel-th subplot (from 1) on these shares of the width and height."""
    number = "" if panel == 1 else str(panel)
    axes = {f"xaxis{number}": {"domain": list(x), "anchor": f"y{number}"}}
    axes |= {f"yaxis{number}": {"domain": list(y), "anchor": f"x{number}"}}
    figure.update_layout(axes)
