"""Makes any chart of bars, lines and heat maps ready for the static SVG: names become places, gaps are filled.

plotly lets a bar stand at "FCFS" and a line do without x values; an axis in pixels needs numbers. A copy of the figure
gets them, with the names as tick labels, so that a lecture's own quick figure has a static picture too. Used by
`svg.to_svg`.
"""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from llmcourse.errors import UserError

DRAWN = ("bar", "scatter", "heatmap")


def prepare(figure: go.Figure) -> go.Figure:
    """The figure itself if all its places are numbers, else a copy in which they are.

    Raises:
        UserError: a type of trace that cannot be drawn as SVG.
    """
    for trace in figure.data:
        if trace.type not in DRAWN:
            raise UserError(f"cannot draw a {trace.type!r} trace as SVG; {', '.join(DRAWN)} work")
    if not any(_unready(trace, side) for trace in figure.data for side in "xy"):
        return figure
    copy = go.Figure(figure)
    names: dict[str, list[str]] = {}
    for trace in copy.data:
        for side in "xy":
            _place(trace, side, names.setdefault((trace[f"{side}axis"] or side), []))
    for axis, found in names.items():
        if found:
            setting = {"tickvals": list(range(len(found))), "ticktext": found}
            copy.update_layout({f"{axis[0]}axis{axis[1:]}": setting})
    return copy


def _unready(trace: Any, side: str) -> bool:
    values = trace[side]
    if values is None:
        return trace.type != "heatmap"
    return any(isinstance(value, str) for value in values)


def _place(trace: Any, side: str, names: list[str]) -> None:
    values: Sequence[Any] | None = trace[side]
    if values is None and trace.type != "heatmap":
        trace[side] = list(range(len(trace["y" if side == "x" else "x"])))
    elif values is not None and any(isinstance(value, str) for value in values):
        for value in values:
            if str(value) not in names:
                names.append(str(value))
        trace[side] = [names.index(str(value)) for value in values]
