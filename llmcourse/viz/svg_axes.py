"""Axes of the static SVG: ranges from the data, round ticks, margins that fit the longest label, subplots.

A reader trusts round numbers, so linear ticks are multiples of 1, 2 or 5 (Heckbert, "Nice numbers for graph labels",
1990) and logarithmic ones are powers of ten. The left margin is as wide as the longest tick label, so that request
names are never clipped. Used by `svg.to_svg`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from llmcourse.viz.svg import GRID, INK, Axis, label, line, number, text_width

Axes = dict[str, Axis]  # "x", "y", "x2", "y2", … and the whole plot: "paper x", "paper y"
TICK_SIZE = 14


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round values between low and high, about `count` of them."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * count >= span)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def layout_axes(figure: go.Figure, width: int, height: int, top: int) -> Axes:
    """All axes of a figure, with their pixels: `top` is where the plot may begin."""
    layout: Any = figure.layout
    names = sorted({"x", "y"} | {t.xaxis or "x" for t in figure.data} | {t.yaxis or "y" for t in figure.data})
    settings = {name: layout[f"{name[0]}axis{name[1:]}"] for name in names}
    ranges = {name: _range(figure, name, settings[name]) for name in names}
    ticks = {name: _ticks(settings[name], *ranges[name]) for name in names}
    bottoms = [text for name in names if name[0] == "x" for _, text in ticks[name]]
    lefts = [text for name in names if name[0] == "y" for _, text in ticks[name]]
    titled = any(settings[name].title.text for name in names if name[0] == "y")
    right = width - (100 if any(getattr(t, "showscale", False) for t in figure.data) else 28)
    box = (
        18 + max((text_width(t, TICK_SIZE) for t in lefts), default=0) + (26 if titled else 0),
        right,
        top + 10,
        height
        - 30
        - 17 * max((t.count("<br>") for t in bottoms), default=0)
        - (24 if any(settings[n].title.text for n in names if n[0] == "x") else 0),
    )
    axes = {name: _axis(name, settings[name], ranges[name], ticks[name], box) for name in names}
    axes["paper x"] = Axis(0, 1, box[0], box[1], False, (), "", False, False)
    axes["paper y"] = Axis(0, 1, box[3], box[2], False, (), "", False, False)
    return axes


def draw_axes(axes: Axes) -> str:
    """Grid lines, axis lines, tick labels and titles of all subplots."""
    parts = []
    for name, axis in axes.items():
        if name[0] == "x" and axis.shown:
            parts.append(_draw_x(axis, axes.get("y" + name[1:], axes["y"])))
        elif name[0] == "y" and axis.shown:
            parts.append(_draw_y(axis, axes.get("x" + name[1:], axes["x"])))
    return "".join(parts)


def _axis(
    name: str,
    setting: Any,
    bounds: tuple[float, float],
    ticks: list[tuple[float, str]],
    box: tuple[float, float, float, float],
) -> Axis:
    left, right, top, bottom = box
    start, stop = setting.domain or (0, 1)
    if name[0] == "x":
        first, last = left + start * (right - left), left + stop * (right - left)
    else:
        first, last = bottom - start * (bottom - top), bottom - stop * (bottom - top)
    low, high = bounds
    if setting.autorange == "reversed":
        low, high = high, low
    shown = setting.visible is not False and setting.showticklabels is not False
    title = str(setting.title.text or "")
    return Axis(
        low,
        high,
        first,
        last,
        setting.type == "log",
        tuple(ticks),
        title,
        setting.showgrid is not False,
        shown,
    )


def _range(figure: go.Figure, name: str, setting: Any) -> tuple[float, float]:
    if setting.range is not None:
        low, high = setting.range
        return float(low), float(high)
    values = [
        v
        for trace in figure.data
        if (trace[name[0] + "axis"] or name[0]) == name
        for v in _values(trace, name[0])
    ]
    values = [float(v) for v in values if v is not None and math.isfinite(v)]
    if setting.type == "log":
        values = [math.log10(v) for v in values if v > 0]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if setting.rangemode == "tozero" and setting.type != "log":
        low, high = min(low, 0.0), max(high, 0.0)
    pad = 0.04 * (high - low) or 0.5
    return (low if low == 0 else low - pad), high + pad


def _values(trace: Any, side: str) -> Iterable[Any]:
    own = trace[side]
    own = [] if own is None else list(own)
    if trace.type == "heatmap":
        count = len(trace.z) if side == "y" else len(trace.z[0])
        own = own or list(range(count))
        return [min(own) - 0.5, max(own) + 0.5]
    if trace.type != "bar":
        return own
    along = "x" if trace.orientation == "h" else "y"
    if side != along:
        return [v + d for v in own for d in (-0.5, 0.5)]
    base: Sequence[float] = trace.base if trace.base is not None else [0] * len(own)
    return [*base, *(b + v for b, v in zip(base, own, strict=True))]


def _ticks(setting: Any, low: float, high: float) -> list[tuple[float, str]]:
    if setting.tickvals is not None:
        texts = setting.ticktext if setting.ticktext is not None else [f"{v:g}" for v in setting.tickvals]
        return list(zip(setting.tickvals, texts, strict=True))
    if setting.type == "log":
        powers = range(math.ceil(min(low, high) - 1e-9), math.floor(max(low, high) + 1e-9) + 1)
        every = max(1, math.ceil(len(powers) / 8))
        return [(10.0**p, _power(p)) for p in powers if p % every == 0]
    percent = "%" in str(setting.tickformat or "")
    return [(v, f"{v:.0%}" if percent else f"{v:,.10g}") for v in nice_ticks(min(low, high), max(low, high))]


def _power(exponent: int) -> str:
    if -3 <= exponent <= 3:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _draw_x(axis: Axis, other: Axis) -> str:
    bottom, top = max(other.first, other.last), min(other.first, other.last)
    parts = [line(axis.first, bottom, axis.last, bottom)]
    free = -1e9
    for value, text in axis.ticks:
        x = axis.at(value)
        if not axis.first - 1 <= x <= axis.last + 1:
            continue
        if axis.grid:
            parts.append(line(x, bottom, x, top, GRID))
        half = max(text_width(row, TICK_SIZE) for row in text.split("<br>")) / 2
        if x - half >= free:  # labels that would overlap are left out
            parts += [line(x, bottom, x, bottom + 5), label(x, bottom + 20, text, TICK_SIZE, "middle")]
            free = x + half + 6
    rows = 17 * max((text.count("<br>") for _, text in axis.ticks), default=0)
    parts.append(
        label((axis.first + axis.last) / 2, bottom + 44 + rows, axis.title, 15, "middle")
        if axis.title
        else ""
    )
    return "".join(parts)


def _draw_y(axis: Axis, other: Axis) -> str:
    left, right = min(other.first, other.last), max(other.first, other.last)
    parts = [line(left, axis.first, left, axis.last)]
    free = 1e9
    for value, text in sorted(axis.ticks, key=lambda tick: -axis.at(tick[0])):
        y = axis.at(value)
        if not min(axis.first, axis.last) - 1 <= y <= max(axis.first, axis.last) + 1 or y > free:
            continue
        free = y - TICK_SIZE
        if axis.grid:
            parts.append(line(left, y, right, y, GRID))
        parts += [line(left - 5, y, left, y), label(left - 9, y + 5, text, TICK_SIZE, "end")]
    if axis.title:
        middle = (axis.first + axis.last) / 2
        turned = f'transform="rotate(-90 18 {number(middle)})"'
        parts.append(label(18, middle, axis.title, 15, "middle").replace("<text ", f"<text {turned} ", 1))
    return "".join(parts)


__all__ = ["INK", "Axes", "draw_axes", "layout_axes", "nice_ticks"]
