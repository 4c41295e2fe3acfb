"""What stands around the marks of the static SVG: legend, shapes, annotations, fill patterns.

The legend wraps into as many rows as the names need, and shows each kind's colour together with its pattern, dash or
marker, so that it reads in black and white. Used by `svg.to_svg`.
"""

from typing import Any

import plotly.graph_objects as go

from llmcourse.viz.svg import FONT_SIZE, INK, label, line, per_mark, text_width
from llmcourse.viz.svg_axes import Axes
from llmcourse.viz.svg_marks import DASHES, marker, paint_of, pattern_id, rect, shape_of

PATTERN_LINES = {
    "/": '<path d="M0 8L8 0M-2 2L2 -2M6 10L10 6" stroke="#1a1a1a" stroke-width="1.2"/>',
    "x": '<path d="M0 0L8 8M0 8L8 0" stroke="#1a1a1a" stroke-width="1.2"/>',
    ".": '<circle cx="4" cy="4" r="1.1" fill="#555"/>',
    "-": '<path d="M0 4H8" stroke="#1a1a1a" stroke-width="1.2"/>',
}


def patterns(figure: go.Figure) -> str:
    """Definitions of the fill patterns that the figure's bars use."""
    found = {
        (paint_of(t, i), shape_of(t, i)) for t in figure.data if t.type == "bar" for i in range(max(1, len(t.x)))
    }
    drawn = (
        f'<pattern id="{pattern_id(paint, shape)}" width="8" height="8" patternUnits="userSpaceOnUse">'
        f'<rect width="8" height="8" fill="{paint}"/>{PATTERN_LINES[shape]}</pattern>'
        for paint, shape in sorted(found)
        if shape
    )
    return f"<defs>{''.join(drawn)}</defs>"


def legend(figure: go.Figure, x: float, y: float, width: float) -> tuple[str, int]:
    """The keys of all named traces, wrapped into rows, and the height they take in pixels."""
    layout: Any = figure.layout
    named = [t for t in figure.data if t.name and t.showlegend is not False]
    if layout.showlegend is False or not named or (len(named) == 1 and named[0].showlegend is not True):
        return "", 0
    parts, left, rows = [], x, 1
    for trace in named:
        needed = 34 + text_width(trace.name, 15) + 18
        if left + needed > width and left > x:
            left, rows = x, rows + 1
        parts.append(_key(trace, left, y + 24 * (rows - 1)))
        left += needed
    return "".join(parts), 24 * rows + 4


def draw_shapes(figure: go.Figure, axes: Axes, layer: str) -> str:
    """Rectangles and lines of the layout on that layer."""
    parts = []
    for shape in _layout(figure).shapes:
        if (shape.layer or "above") != layer:
            continue
        x0, x1 = (_place(axes, shape.xref, value, "x") for value in (shape.x0, shape.x1))
        y0, y1 = (_place(axes, shape.yref, value, "y") for value in (shape.y0, shape.y1))
        stroke, dash = shape.line.color or INK, DASHES.get(shape.line.dash or "", "")
        if shape.type == "line":
            drawn = line(x0, y0, x1, y1, stroke, shape.line.width or 2, dash)
        else:
            drawn = rect(x0, y0, x1, y1, shape.fillcolor or "none", stroke, shape.line.width)
        parts.append(drawn if shape.opacity is None else f'<g opacity="{shape.opacity:g}">{drawn}</g>')
    return "".join(parts)


def draw_annotations(figure: go.Figure, axes: Axes) -> str:
    """Texts placed on the figure; arrows are not drawn."""
    anchors = {"left": "start", "right": "end"}
    parts = []
    for note in _layout(figure).annotations:
        x = _place(axes, note.xref, note.x, "x", exponent=True) + (note.xshift or 0)
        size = note.font.size or FONT_SIZE
        y = _place(axes, note.yref, note.y, "y", exponent=True) - (note.yshift or 0)
        more = 1.2 * size * str(note.text).count("<br>")  # pixels of the lines below the first
        y += {"top": size, "bottom": -5 - more}.get(note.yanchor or "", 0.35 * size - more / 2)
        anchor = anchors.get(note.xanchor or "", "middle")
        parts.append(label(x, y, note.text, size, anchor, fill=note.font.color or INK))
    return "".join(parts)


def _layout(figure: go.Figure) -> Any:
    return figure.layout


def _place(axes: Axes, ref: str | None, value: Any, side: str, exponent: bool = False) -> float:
    """Pixel of a shape's or a note's coordinate; plotly gives the latter as an exponent on a logarithmic axis."""
    name = ref or side
    if name == "paper":
        return axes[f"paper {side}"].at(value)
    if name.endswith(" domain"):  # a share of the subplot, as in add_hline
        axis = axes[name.removesuffix(" domain")]
        return axis.first + float(value) * (axis.last - axis.first)
    return axes[name].at(10.0 ** float(value) if exponent and axes[name].log else value)


def _key(trace: Any, x: float, y: float) -> str:
    name = label(x + 32, y, trace.name, 15)
    if trace.type == "bar":
        shape, paint = shape_of(trace, 0), paint_of(trace, 0)
        fill = f"url(#{pattern_id(paint, shape)})" if shape else paint
        return rect(x, y - 14, x + 26, y + 2, fill, INK, 1) + name
    mode, mark = trace.mode or "lines", ""
    if "lines" in mode:
        mark = line(
            x,
            y - 5,
            x + 26,
            y - 5,
            trace.line.color or INK,
            trace.line.width or 2.5,
            DASHES.get(trace.line.dash or "", ""),
        )
    if "markers" in mode:
        paint = per_mark(trace.marker.color, 0, None) or trace.line.color or INK
        mark += marker(x + 13, y - 5, per_mark(trace.marker.symbol, 0, "circle"), 10, paint, "")
    return mark + name
