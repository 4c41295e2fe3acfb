"""Roofline: what a machine can do at most, and where a piece of work stands under it.

Work with few operations per byte moved is held by the memory's bandwidth (the slope), work with many by the arithmetic
(the flat part); the bend between them is the ridge point. Decoding one sequence sits far left; a batch shares each
weight it reads and moves right; a prefill stands under the flat roof (Williams et al., 2009). Plain numbers in, so any
source of them will do. Week 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.theme import LINES, canvas, finish, seconds

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class Roof:
    """A machine: peak arithmetic in FLOP/s, memory bandwidth in bytes/s."""

    name: str
    flops_per_second: float
    bytes_per_second: float

    @property
    def ridge(self) -> float:
        """Intensity (FLOP/byte) above which arithmetic is the limit."""
        return self.flops_per_second / self.bytes_per_second

    def attainable(self, intensity: float) -> float:
        """FLOP/s this machine can reach at most at an intensity in FLOP/byte."""
        return min(self.flops_per_second, intensity * self.bytes_per_second)


@dataclass(frozen=True)
class Point:
    """A piece of work: its floating point operations, the bytes it moves, and the seconds it took if measured."""

    name: str
    flops: float
    bytes: float
    seconds: float | None = None

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.bytes


def roofline_chart(
    roofs: Roof | Sequence[Roof], points: Sequence[Point] = (), title: str = "Roofline: which limit holds"
) -> go.Figure:
    """Roofs and operating points on logarithmic axes; a point without `seconds` stands on the first roof.

    Raises:
        UserError: no roof, or numbers that are not positive.
    """
    roofs = [roofs] if isinstance(roofs, Roof) else list(roofs)
    _require(roofs, points)
    spread = [roof.ridge for roof in roofs] + [point.intensity for point in points]
    low, high = min(0.25, *spread) / 2, max(1000.0, *spread) * 2
    figure = canvas(title, 480)
    for index, roof in enumerate(roofs):
        xs = [low, roof.ridge, high]
        figure.add_trace(
            go.Scatter(
                x=xs,
                y=[roof.attainable(x) / 1e9 for x in xs],
                mode="lines",
                showlegend=True,
                name=f"{roof.name}: ridge {roof.ridge:.3g} FLOP/byte",
                line={"color": LINES[index % len(LINES)], "dash": DASHES[index % len(DASHES)], "width": 3},
            )
        )
    for index, point in enumerate(points):
        figure.add_trace(_mark(point, roofs[0], index))
    figure.update_xaxes(
        type="log",
        range=[math.log10(low), math.log10(high)],
        title_text="arithmetic intensity (FLOP per byte)",
        dtick=1,
        exponentformat="power",
    )
    speeds = [_speed(point, roofs[0]) / 1e9 for point in points] + [
        roof.attainable(low) / 1e9 for roof in roofs
    ]
    top = max(roof.flops_per_second for roof in roofs) / 1e9
    figure.update_yaxes(
        type="log",
        range=[math.log10(min(speeds)) - 0.2, math.log10(top) + 0.4],
        title_text="GFLOP per second",
        dtick=1,
        exponentformat="power",
    )
    rows = [_row(point, roofs[0]) for point in points]
    columns = ("work", "FLOP", "bytes", "FLOP/byte", "limit", "least time", "measured", "share of the roof")
    return finish(figure, _finding(roofs[0], points), columns, rows)


def _require(roofs: Sequence[Roof], points: Sequence[Point]) -> None:
    if not roofs:
        raise UserError(
            "a roofline needs a machine: pass at least one Roof(name, flops_per_second, bytes_per_second)"
        )
    for roof in roofs:
        if not (roof.flops_per_second > 0 and roof.bytes_per_second > 0):
            raise UserError(
                f"{roof.name}: FLOP/s and bytes/s must be positive, got "
                f"{roof.flops_per_second} and {roof.bytes_per_second}"
            )
    for point in points:
        if not (point.flops > 0 and point.bytes > 0 and (point.seconds is None or point.seconds > 0)):
            raise UserError(f"{point.name}: FLOPs, bytes and seconds must be positive, got {point}")


def _speed(point: Point, roof: Roof) -> float:
    return roof.attainable(point.intensity) if point.seconds is None else point.flops / point.seconds


def _bound(point: Point, roof: Roof) -> str:
    return "memory" if point.intensity < roof.ridge else "arithmetic"


def _mark(point: Point, roof: Roof, index: int) -> go.Scatter:
    speed = _speed(point, roof)
    return go.Scatter(
        x=[point.intensity],
        y=[speed / 1e9],
        mode="markers+text",
        name=point.name,
        text=[point.name],
        showlegend=False,
        # Every other label on the other side of the roof: points that meet on it stay legible.
        textposition="bottom right" if point.intensity < roof.ridge and index % 2 == 0 else "top left",
        marker={
            "symbol": SYMBOLS[index % len(SYMBOLS)],
            "size": 14,
            "color": LINES[(index + 1) % len(LINES)],
            "line": {"width": 1},
        },
        hovertext=[
            f"{point.name}: {point.intensity:.3g} FLOP/byte, {speed / 1e9:.3g} GFLOP/s, {_bound(point, roof)}"
        ],
        hoverinfo="text",
    )


def _row(point: Point, roof: Roof) -> tuple[str, ...]:
    least = max(point.flops / roof.flops_per_second, point.bytes / roof.bytes_per_second)
    measured = "" if point.seconds is None else seconds(point.seconds)
    share = "" if point.seconds is None else f"{least / point.seconds:.0%}"
    return (
        point.name,
        f"{point.flops:.3g}",
        f"{point.bytes:.3g}",
        f"{point.intensity:.3g}",
        _bound(point, roof),
        seconds(least),
        measured,
        share,
    )


def _finding(roof: Roof, points: Sequence[Point]) -> str:
    said = [f"{p.name} ({p.intensity:.3g} FLOP/byte) is held by {_bound(p, roof)}" for p in points]
    return f"{roof.name} bends at {roof.ridge:.3g} FLOP/byte" + ("; " if said else "") + "; ".join(said) + "."
