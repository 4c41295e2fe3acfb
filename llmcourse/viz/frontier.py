"""Utilisation against isolation: what a quiet tenant's protection costs the machine.

Each point is one setting. Right is more work done, down is a better life for the quiet tenant; whoever is right of and
below another beats it. The settings that nothing beats form the Pareto front: along it more isolation is paid for with
throughput, and a setting off it is simply badly chosen. Week 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.series import log_axis
from llmcourse.viz.theme import BLUE, INK, canvas, finish, seconds

BEATEN = "#BDBDBD"


@dataclass(frozen=True)
class Setting:
    """A configuration: work done (more is better) and the quiet tenant's latency in seconds (less is better)."""

    name: str
    work: float
    latency: float

    def beats(self, other: "Setting") -> bool:
        """At least as good in both, and better in one."""
        same = (self.work, self.latency) == (other.work, other.latency)
        return self.work >= other.work and self.latency <= other.latency and not same


def isolation_frontier(
    settings: Sequence[tuple[str, float, float]] | Mapping[str, tuple[float, float]],
    work: str = "tokens per second",
    latency: str = "P99 time between tokens of the quiet tenant",
    title: str = "What isolation costs",
) -> go.Figure:
    """Settings as (name, work, latency in seconds), or {name: (work, latency)}, with their Pareto front.

    `work` and `latency` name the axes.

    Raises:
        UserError: no setting, or a latency that is not positive.
    """
    points = _settings(settings)
    front = pareto(points)
    figure = canvas(title, 480)
    figure.add_trace(go.Scatter(
        x=[point.work for point in front], y=[point.latency for point in front], mode="lines", showlegend=True,
        name="Pareto front", line={"color": BLUE, "width": 3, "dash": "dash"},
    ))
    figure.add_trace(_marks([point for point in points if point in front], "nothing beats it", "circle", BLUE))
    beaten = [point for point in points if point not in front]
    if beaten:
        figure.add_trace(_marks(beaten, "beaten", "square", BEATEN))
    log_axis(figure, "y", [point.latency for point in points], latency, seconds, room=1.4)
    spread = max(p.work for p in points) - min(p.work for p in points) or max(p.work for p in points) or 1.0
    bounds = [min(p.work for p in points) - 0.2 * spread, max(p.work for p in points) + 0.3 * spread]
    figure.update_xaxes(title_text=work, range=bounds)
    rows = [(p.name, p.work, p.latency, _beaten_by(p, points)) for p in points]
    return finish(figure, _finding(points, front, work), ("setting", work, f"{latency} (s)", "beaten by"), rows)


def pareto(points: Sequence[Setting]) -> list[Setting]:
    """The settings that no other beats, from the least work to the most."""
    kept = [point for point in points if not any(other.beats(point) for other in points)]
    return sorted(kept, key=lambda point: (point.work, point.latency))


def _settings(settings: Any) -> list[Setting]:
    rows = [(name, *pair) for name, pair in settings.items()] if isinstance(settings, Mapping) else list(settings)
    points = [Setting(str(name), float(work), float(latency)) for name, work, latency in rows]
    if not points:
        raise UserError("no setting to compare: pass (name, work, latency) for each")
    for point in points:
        if not point.latency > 0:
            raise UserError(f"{point.name}: a latency is a positive number of seconds, not {point.latency}")
    return points


def _marks(points: Sequence[Setting], name: str, symbol: str, paint: str) -> go.Scatter:
    return go.Scatter(
        x=[point.work for point in points], y=[point.latency for point in points], mode="markers+text", name=name,
        text=[point.name for point in points], textposition="bottom right", textfont={"size": 15}, showlegend=True,
        marker={"symbol": symbol, "size": 14, "color": paint, "line": {"color": INK, "width": 1}},
        hovertext=[f"{p.name}: {p.work:,.4g}, {seconds(p.latency)}" for p in points], hoverinfo="text",
    )


def _beaten_by(point: Setting, points: Sequence[Setting]) -> str:
    return ", ".join(other.name for other in points if other.beats(point))


def _finding(points: Sequence[Setting], front: Sequence[Setting], work: str) -> str:
    calm, busy = front[0], front[-1]
    said = f"{len(front)} of {len(points)} settings are not beaten"
    if calm is not busy:
        said += (
            f": from {calm.name} ({calm.work:,.4g} {work}, {seconds(calm.latency)}) to {busy.name} ({busy.work:,.4g}, "
            f"{seconds(busy.latency)}), {1 - calm.work / busy.work:.0%} of the work buys "
            f"{busy.latency / calm.latency:.2g} times less latency"
        )
    else:
        said += f": {calm.name} is best in both"
    return said + "."
