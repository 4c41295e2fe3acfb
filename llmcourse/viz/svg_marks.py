"""Marks of the static SVG: bars, lines, markers, texts, heat-map cells.

Each function turns one plotly object into SVG elements at the pixels the axes give it. What a mouse shows as a hover
text in plotly stands here in the mark's own `<title>`. Every filled shape has a dark outline and, where its kind has
one, a pattern: a black-and-white print still tells the kinds apart. Used by `svg.to_svg`.
"""

from collections.abc import Callable
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.colors import get_colorscale, sample_colorscale

from llmcourse.errors import UserError
from llmcourse.viz.svg import INK, Axis, label, number, per_mark, text_width
from llmcourse.viz.svg_axes import Axes

DASHES = {"dash": "9 6", "dot": "2 5", "dashdot": "9 5 2 5"}


def draw_trace(figure: go.Figure, index: int, axes: Axes) -> str:
    """One trace as SVG.

    Raises:
        UserError: a type of trace that no view of the course uses.
    """
    trace: Any = figure.data[index]
    drawers: dict[str, Callable[[Any, Axis, Axis], str]] = {
        "bar": _bars,
        "scatter": _scatter,
        "heatmap": _heatmap,
    }
    if trace.type not in drawers:
        raise UserError(f"cannot draw a {trace.type!r} trace as SVG; bar, scatter and heatmap work")
    if trace.visible is False:
        return ""
    return "<g>" + drawers[trace.type](trace, axes[trace.xaxis or "x"], axes[trace.yaxis or "y"]) + "</g>"


def _bars(trace: Any, xs: Axis, ys: Axis) -> str:
    flat = trace.orientation == "h"
    values, places = (trace.x, trace.y) if flat else (trace.y, trace.x)
    parts = []
    for i, (value, place) in enumerate(zip(values, places, strict=True)):
        base, half = per_mark(trace.base, i, 0), per_mark(trace.width, i, 0.8) / 2
        box = (
            (base, place - half, base + value, place + half)
            if flat
            else (place - half, base, place + half, base + value)
        )
        left, top, right, bottom = xs.at(box[0]), ys.at(box[1]), xs.at(box[2]), ys.at(box[3])
        shape, paint = shape_of(trace, i), paint_of(trace, i)
        fill = f"url(#{pattern_id(paint, shape)})" if shape else paint
        outline = per_mark(trace.marker.line.color, i, INK), per_mark(trace.marker.line.width, i, 1)
        parts.append(rect(left, top, right, bottom, fill, *outline, per_mark(trace.hovertext, i, "")))
        text = str(per_mark(trace.text, i, "") or "")
        outside = trace.textposition == "outside"
        if text and outside:
            x, y = (
                (max(left, right) + 6, (top + bottom) / 2 + 5)
                if flat
                else ((left + right) / 2, min(top, bottom) - 6)
            )
            parts.append(label(x, y, text, 14, "start" if flat else "middle"))
        elif text and abs(right - left) >= text_width(text, 14) + 2 and abs(bottom - top) >= 14:
            halo = label((left + right) / 2, (top + bottom) / 2 + 5, text, 14, "middle", weight="bold")
            parts.append(
                halo.replace("<text ", '<text stroke="#fff" stroke-width="3" paint-order="stroke" ', 1)
                if shape
                else halo
            )
    return "".join(parts)


def _scatter(trace: Any, xs: Axis, ys: Axis) -> str:
    mode = trace.mode or "lines"
    points = [
        (xs.at(x), ys.at(y)) if x is not None and y is not None else None
        for x, y in zip(trace.x, trace.y, strict=True)
    ]
    parts = []
    if "lines" in mode:
        parts.append(_path(trace, points, ys))
    for i, point in enumerate(points):
        if point is not None and "markers" in mode:
            symbol = per_mark(trace.marker.symbol, i, "circle")
            size = per_mark(trace.marker.size, i, 9)
            paint = per_mark(trace.marker.color, i, None) or trace.line.color or INK
            parts.append(marker(*point, symbol, size, paint, per_mark(trace.hovertext, i, "")))
        text = per_mark(trace.text, i, "")
        if point is not None and "text" in mode and text:
            parts.append(
                _beside(
                    *point,
                    str(text),
                    per_mark(trace.textposition, i, "middle center"),
                    per_mark(trace.textfont.size, i, 14),
                )
            )
    return "".join(parts)


def _path(trace: Any, points: list[tuple[float, float] | None], ys: Axis) -> str:
    commands, before = [], None
    for point in points:
        if point is not None and before is None:
            commands.append(f"M{number(point[0])} {number(point[1])}")
        elif point is not None:
            corner = f"H{number(point[0])}V{number(point[1])}" if trace.line.shape == "hv" else ""
            commands.append(corner or f"L{number(point[0])} {number(point[1])}")
        before = point
    whole = "".join(commands)
    dash = DASHES.get(trace.line.dash or "", "")
    stroke = f'stroke="{trace.line.color or INK}" stroke-width="{trace.line.width or 2.5}"'
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    drawn = f'<path d="{whole}" fill="none" {stroke}{dashed} stroke-linejoin="round"/>'
    ends = [point for point in points if point is not None]
    if trace.fill == "toself" and ends:
        area = f'<path d="{whole}Z" fill="{trace.fillcolor or trace.line.color}" fill-opacity="0.35"/>'
        return area if trace.line.width == 0 else area + drawn
    if trace.fill == "tozeroy" and ends:
        zero = number(ys.at(0))
        area = f"{whole}V{zero}H{number(ends[0][0])}Z"
        drawn = f'<path d="{area}" fill="{trace.fillcolor or trace.line.color}" fill-opacity="0.35"/>' + drawn
    return drawn


def _heatmap(trace: Any, xs: Axis, ys: Axis) -> str:
    cells = [value for row in trace.z for value in row if value is not None]
    low = trace.zmin if trace.zmin is not None else min(cells)
    high = trace.zmax if trace.zmax is not None else max(cells)
    scale = [list(stop) for stop in trace.colorscale or get_colorscale("Cividis")]
    paints = sample_colorscale(scale, [k / 100 for k in range(101)])
    parts = []
    for j, row in enumerate(trace.z):
        for i, value in enumerate(row):
            if value is not None:
                share = min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)
                parts.append(_cell(trace, i, j, paints[round(100 * share)], xs, ys))
    return "".join(parts) + (_scale_bar(scale, low, high, xs, ys) if trace.showscale else "")


def _cell(trace: Any, i: int, j: int, paint: str, xs: Axis, ys: Axis) -> str:
    x, y = per_mark(trace.x, i, i), per_mark(trace.y, j, j)
    box = xs.at(x - 0.5), ys.at(y - 0.5), xs.at(x + 0.5), ys.at(y + 0.5)
    tip = trace.hovertext[j][i] if trace.hovertext is not None else f"{trace.z[j][i]:.3g}"
    text = trace.text[j][i] if trace.text is not None else ""
    cell = rect(*box, paint, "#ffffff", 0.5, tip)
    if text and abs(box[2] - box[0]) >= text_width(text, 13):
        cell += label((box[0] + box[2]) / 2, (box[1] + box[3]) / 2 + 5, text, 13, "middle", fill=_on(paint))
    return cell


def _scale_bar(scale: Any, low: float, high: float, xs: Axis, ys: Axis) -> str:
    left, top, bottom = xs.last + 16, min(ys.first, ys.last), max(ys.first, ys.last)
    paints = sample_colorscale(scale, [k / 39 for k in range(40)])
    height = (bottom - top) / 40
    parts = [
        f'<rect x="{number(left)}" y="{number(bottom - (k + 1) * height)}" width="16" height="{number(height + 0.6)}" '
        f'fill="{paint}"/>'
        for k, paint in enumerate(paints)
    ]
    ends = [label(left + 22, y + 5, f"{v:.2g}", 14) for v, y in ((low, bottom - 5), (high, top + 5))]
    return "".join(parts + ends)


def _on(paint: str) -> str:
    red, green, blue = (float(part) for part in paint.removeprefix("rgb(").removesuffix(")").split(","))
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 115 else INK


def rect(
    x0: float, y0: float, x1: float, y1: float, fill: str, stroke: str, width: float | None, tip: str = ""
) -> str:
    """A rectangle between two corners, with a tooltip if there is one."""
    box = f'x="{number(min(x0, x1))}" y="{number(min(y0, y1))}" '
    box += f'width="{number(abs(x1 - x0))}" height="{number(abs(y1 - y0))}"'
    outline = f' stroke="{stroke}" stroke-width="{1 if width is None else width}"'
    return f'<rect {box} fill="{fill}"{outline}' + (f"><title>{_tip(tip)}</title></rect>" if tip else "/>")


def marker(x: float, y: float, symbol: str, size: float, paint: str, tip: str) -> str:
    """A marker centred at a point; `size` in pixels."""
    r = size / 2
    paths = {
        "square": f"M{-r} {-r}H{r}V{r}H{-r}Z",
        "diamond": f"M0 {-1.3 * r}L{1.3 * r} 0L0 {1.3 * r}L{-1.3 * r} 0Z",
        "x": f"M{-r} {-r}L{r} {r}M{-r} {r}L{r} {-r}",
        "triangle-up": f"M0 {-r}L{r} {r}H{-r}Z",
        "triangle-down": f"M0 {r}L{r} {-r}H{-r}Z",
        "line-ns": f"M0 {-1.6 * r}V{1.6 * r}",
        "circle": f"M{-r} 0A{r} {r} 0 1 0 {r} 0A{r} {r} 0 1 0 {-r} 0Z",
    }
    open_ended = symbol in ("x", "line-ns")
    look = (
        f'stroke="{paint}" stroke-width="3" fill="none"' if open_ended else f'fill="{paint}" stroke="{INK}"'
    )
    shape = paths.get(symbol, paths["circle"])
    drawn = f'<path transform="translate({number(x)} {number(y)})" d="{shape}" {look}'
    return drawn + (f"><title>{_tip(tip)}</title></path>" if tip else "/>")


def _beside(x: float, y: float, text: str, position: str, size: float) -> str:
    vertical, _, side = position.partition(" ")
    y += {"top": -0.75 * size, "bottom": 1.5 * size}.get(vertical, 0.35 * size)
    x += {"right": 9, "left": -9}.get(side, 0)
    return label(x, y, text, size, {"right": "start", "left": "end"}.get(side, "middle"))


def paint_of(trace: Any, index: int) -> str:
    """Fill colour of the index-th bar."""
    return str(per_mark(trace.marker.color, index, "#56B4E9"))


def shape_of(trace: Any, index: int) -> str:
    """Pattern of the index-th bar, or ""."""
    return str(per_mark(trace.marker.pattern.shape, index, "") or "")


def pattern_id(paint: str, shape: str) -> str:
    """Name of the SVG pattern that lays a pattern over a colour."""
    return f"p{ord(shape)}{paint.lstrip('#')}" if shape else ""


def _tip(text: str) -> str:
    return escape(str(text).replace("<br>", "\n"), quote=False)
