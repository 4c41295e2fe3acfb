"""Draws a course figure as one static SVG: no JavaScript, no download, readable by a screen reader.

The same plotly `Figure` that is interactive in JupyterLab becomes a few kilobytes of SVG with a title, a description
and a tooltip per mark. That picture is the fallback in exported pages, and what widgets show: a slider then moves a
string and not the 5 MB of plotly.js. It covers what the views of this room use (bars, lines, markers, text, heat maps,
shapes, annotations, linear and logarithmic axes), not all of plotly. Reference: SVG Accessibility API Mappings (W3C).
"""

import math
from dataclasses import dataclass
from html import escape
from typing import Any
from zlib import crc32

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.svg_prepare import prepare
from llmcourse.viz.theme import FONT, FONT_SIZE, GRID, INK

WIDTH = 960
TITLE_SIZE = 19


def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Estimated width of a text in pixels; Chinese characters are as wide as high."""
    return sum(size if ord(char) > 0x2E80 else 0.58 * size for char in text)


@dataclass(frozen=True)
class Axis:
    """One axis of one subplot: a range of values on a range of pixels."""

    low: float
    high: float
    first: float  # pixel of low
    last: float  # pixel of high
    log: bool
    ticks: tuple[tuple[float, str], ...]
    title: str
    grid: bool
    shown: bool

    def at(self, value: float) -> float:
        """Pixel of a value, kept near the picture; logarithms are taken here."""
        position = math.log10(max(value, 1e-300)) if self.log else float(value)
        share = (position - self.low) / ((self.high - self.low) or 1.0)
        return self.first + min(max(share, -0.5), 1.5) * (self.last - self.first)


def per_mark(value: Any, index: int, default: Any = None) -> Any:
    """The index-th entry of a list-like setting, or the one setting for all."""
    if value is None:
        return default
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return value
    return value[index] if index < len(value) else default


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def label(x: float, y: float, text: str, size: float = FONT_SIZE, anchor: str = "start", **style: str) -> str:
    """A text element; `<br>` starts a new line; style: fill, weight."""
    lines = [line.replace("<b>", "").replace("</b>", "") for line in str(text).split("<br>")]
    weight = ' font-weight="600"' if style.get("weight") or "<b>" in str(text) else ""
    head = f'<text x="{number(x)}" y="{number(y)}" font-size="{number(size)}" text-anchor="{anchor}"{weight}'
    head += f' fill="{style.get("fill", INK)}">'
    if len(lines) == 1:
        return head + escape(lines[0], quote=False) + "</text>"
    spans = (
        f'<tspan x="{number(x)}" dy="{0 if not i else number(1.2 * size)}">{escape(line, quote=False)}</tspan>'
        for i, line in enumerate(lines)
    )
    return head + "".join(spans) + "</text>"


def line(
    x1: float, y1: float, x2: float, y2: float, colour: str = INK, width: float = 1, dash: str = ""
) -> str:
    """A straight line."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{dashed}/>'


def measure(figure: go.Figure, width: int = WIDTH) -> tuple[dict[str, Axis], str, int]:
    """Where things will stand: the axes with their pixels, the drawn legend, the picture's height in pixels."""
    from llmcourse.viz.svg_axes import layout_axes
    from llmcourse.viz.svg_notes import legend

    layout: Any = figure.layout
    keys, legend_height = legend(figure, 12, 58 if layout.title.text else 24, width)
    height = int(layout.height or 420)
    return layout_axes(figure, width, height, (44 if layout.title.text else 12) + legend_height), keys, height


def to_svg(figure: go.Figure, alt: str, width: int = WIDTH) -> str:
    """The figure as an SVG document with `alt` as its description; width in pixels, height from the figure.

    Raises:
        UserError: empty alternative text, or a trace type this drawing does not know.
    """
    from llmcourse.viz.svg_axes import draw_axes
    from llmcourse.viz.svg_marks import draw_trace
    from llmcourse.viz.svg_notes import draw_annotations, draw_shapes, patterns

    if not alt.strip():
        raise UserError("a figure needs alternative text: one sentence that says what it shows")
    figure = prepare(figure)
    layout: Any = figure.layout
    title = str(layout.title.text or "Figure")
    axes, keys, height = measure(figure, width)
    body = [draw_axes(axes), draw_shapes(figure, axes, "below")]
    body += [draw_trace(figure, index, axes) for index in range(len(figure.data))]
    body += [draw_shapes(figure, axes, "above"), draw_annotations(figure, axes), keys]
    heading = label(12, 30, title, TITLE_SIZE, weight="bold") if layout.title.text else ""
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}" '
        f'width="100%" style="max-width:{int(width * 1.5)}px;height:auto" font-family="{escape(FONT)}">'
        f"<title>{escape(title, quote=False)}</title><desc>{escape(alt, quote=False)}</desc>{patterns(figure)}"
        f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>{heading}{"".join(body)}</svg>'
    )
    # A page holds many pictures, and a pattern of the same name in a hidden one would be the one that is looked up.
    name = f"f{crc32(drawn.encode()):08x}"
    return drawn.replace('<pattern id="', f'<pattern id="{name}-').replace('"url(#', f'"url(#{name}-')


__all__ = [
    "GRID",
    "INK",
    "WIDTH",
    "Axis",
    "label",
    "line",
    "measure",
    "number",
    "per_mark",
    "text_width",
    "to_svg",
]
