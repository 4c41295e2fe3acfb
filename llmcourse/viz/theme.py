"""The look of every figure: colours, letters, patterns, fonts; and the finding and the numbers each figure carries.

Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart, but colour is never alone: owners also
have letters, kinds of time also have patterns, and pale shapes a dark outline. A figure is a white card, so that it
reads the same in a light and a dark notebook. `finish` stores one computed sentence and a table of the numbers in the
figure itself, where `show`, widgets and tests find them. Used in every week.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import plotly.graph_objects as go

INK = "#1a1a1a"
GRID = "#d9d9d9"
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, GREY = "#E69F00", "#56B4E9", "#F0E442", "#E4E4E4"
PALETTE = (SKY, ORANGE, GREEN, YELLOW, PURPLE, VERMILLION, "#BDBDBD")  # ink is readable on each
LINES = (BLUE, VERMILLION, GREEN, PURPLE, INK)
FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', 'Noto Sans CJK SC', sans-serif"
FONT_SIZE = 16


@dataclass(frozen=True)
class Kind:
    """How one kind of time is drawn: legend name, fill colour, plotly pattern shape."""

    name: str
    colour: str
    pattern: str = ""


KINDS = {
    "waiting": Kind("waiting", GREY, "."),
    "prefill": Kind("prefill", ORANGE, "/"),
    "recompute": Kind("recompute", PURPLE, "/"),
    "decode": Kind("decode", SKY),
    "idle": Kind("idle", "#ffffff"),
    "preempted": Kind("preempted", VERMILLION, "x"),
}

AXIS = {
    "gridcolor": GRID,
    "linecolor": INK,
    "ticks": "outside",
    "zeroline": False,
    "automargin": True,
    "tickfont": {"size": 14},
    "title": {"font": {"size": 15}},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": FONT_SIZE, "color": INK},
        "title": {
            "x": 0.01,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 14},
            "font": {"size": 19, "weight": 600},
        },
        "colorway": list(LINES),
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "bargap": 0.2,
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 15},
        },
        "uniformtext": {"minsize": 12, "mode": "hide"},
        "margin": {"l": 70, "r": 30, "t": 96, "b": 64},
        "xaxis": AXIS,
        "yaxis": AXIS,
    }
)


@dataclass(frozen=True)
class Table:
    """The numbers of a figure: a caption, column names, and rows of text."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def letter(index: int) -> str:
    """A, B, … Z, AA, AB, … : the letter of the index-th owner (from 0)."""
    name = ""
    index += 1
    while index > 0:
        index, rest = divmod(index - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def colour(index: int) -> str:
    """Fill colour of the index-th owner; colours repeat, letters do not."""
    return PALETTE[index % len(PALETTE)]


def marker(paint: str, pattern: str = "", width: float = 1) -> dict[str, Any]:
    """A bar's look: fill colour, pattern drawn over it, dark outline of that width in pixels."""
    look: dict[str, Any] = {"color": paint, "line": {"color": INK, "width": width}}
    if pattern:
        look["pattern"] = {"shape": pattern, "bgcolor": paint, "fgcolor": INK, "size": 8, "solidity": 0.18}
    return look


def canvas(title: str, height: int = 420, **layout: Any) -> go.Figure:
    """An empty figure in the course's template; height in pixels at a width of 960."""
    return go.Figure(layout={"template": TEMPLATE, "title": {"text": title}, "height": height, **layout})


def finish(
    figure: go.Figure, summary: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> go.Figure:
    """Store the finding (one sentence) and the numbers in the figure; returns the figure."""
    text = [[_text(value) for value in row] for row in rows]
    figure.update_layout(meta={"summary": summary, "columns": list(columns), "rows": text})
    return figure


def summary(figure: go.Figure) -> str:
    """The one computed sentence a view says about what it shows; empty for other figures."""
    return str((cast(Any, figure.layout).meta or {}).get("summary", ""))


def table(figure: go.Figure) -> Table:
    """The numbers behind a view's figure; a table without columns for other figures."""
    layout = cast(Any, figure.layout)
    meta = layout.meta or {}
    rows = tuple(tuple(row) for row in meta.get("rows", ()))
    return Table(layout.title.text or "Numbers of the figure", tuple(meta.get("columns", ())), rows)


def seconds(value: float) -> str:
    """A duration a person can read: 12.3 s, 45 ms, 7 µs."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}"
    return "0 s" if value == 0 else f"{value:.2g} s"


def size(count: float) -> str:
    """A size a person can read, in binary units: 128 KiB, 15.6 GiB."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            value = count / (1 << power)
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return f"{count:.0f} B"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"  # not a number: not known
    return str(value)
