"""Service over time: what each tenant has got so far, and how far they have drifted apart.

Lines that rise side by side share the machine; lines that part do not. Under first come, first served the tenant who
asks more gets more. A virtual token counter lets whoever has got least go next, so that the gap between two tenants who
both have requests waiting stays under a bound that does not grow with time (VTC, Sheng et al., 2024). Week 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.metrics.fairness import Curve, ServiceGap, max_service_gap, service
from llmcourse.viz.series import curve, guide, heading, headroom, panel_axes, place_panel, split
from llmcourse.viz.theme import VERMILLION, canvas, finish

POINTS = 160
BAND = "#b9d4e6"


@dataclass(frozen=True)
class Shares:
    """One policy: service of each tenant (tenants, points) at `times` (s), and the gap while both waited."""

    tenants: list[str]
    times: np.ndarray
    units: np.ndarray
    gap: ServiceGap | None

    @property
    def apart(self) -> np.ndarray:
        """Most less least at each time (points,)."""
        return self.units.max(axis=0) - self.units.min(axis=0)

    @property
    def ratio(self) -> float:
        """Most over least in the end; infinite if somebody got nothing."""
        last = self.units[:, -1]
        return float(last.max() / last.min()) if last.min() > 0 else float("inf")


def service_curves(
    runs: Mapping[str, Any],
    bound: float | None = None,
    input_weight: float = 1,
    output_weight: float = 2,
    until: float | None = None,
    title: str = "Service each tenant has got",
) -> go.Figure:
    """Cumulated service (weighted tokens) by tenant, a column for each policy; below, how far apart they are.

    A run is an event log, or {tenant: curve} as `metrics.fairness.service` makes it. `bound` is drawn in the lower
    panel; `until` (s) cuts the picture before an end in which only one tenant is left.

    Raises:
        UserError: no run, or one without any service.
    """
    found = {name: _shares(name, run, input_weight, output_weight, until) for name, run in runs.items()}
    if not found:
        raise UserError("no run to draw: pass {policy: engine.events}")
    figure = canvas(title, 600)
    tenants = list(dict.fromkeys(tenant for shares in found.values() for tenant in shares.tenants))
    top = headroom(figure)
    most = max(float(shares.units.max()) for shares in found.values())
    for panel, ((name, shares), domain) in enumerate(zip(found.items(), split(len(found), 0.11), strict=True), 1):
        place_panel(figure, panel, domain, (0.48, top))
        _panel(figure, panel, shares, tenants, most)
        heading(figure, panel, f"{name}: most over least {shares.ratio:.3g}")
    _gaps(figure, found, bound, len(tenants))
    columns = ("policy", "tenant", "service", "most over least", "furthest apart", "largest gap while both waited")
    rows = [
        (name, tenant, float(units[-1]), shares.ratio, float(shares.apart.max()), _gap(shares))
        for name, shares in found.items()
        for tenant, units in zip(shares.tenants, shares.units, strict=True)
    ]
    return finish(figure, _finding(found, bound), columns, rows)


def _shares(name: str, run: Any, input_weight: float, output_weight: float, until: float | None) -> Shares:
    events = None if isinstance(run, Mapping) else list(run)
    curves: Mapping[str, Curve] = run if events is None else service(events, input_weight, output_weight)
    times = np.concatenate([one.times for one in curves.values()] or [np.empty(0)])
    if not len(times):
        raise UserError(f"{name}: no tenant got any service; run the engine first")
    grid = np.linspace(float(times.min()), float(times.max()) if until is None else until, POINTS)
    units = np.array([[one.at(float(time)) for time in grid] for one in curves.values()])
    gap = None if events is None else max_service_gap(events, input_weight, output_weight)
    return Shares([tenant or "(no name)" for tenant in curves], grid, units, gap)


def _panel(figure: go.Figure, panel: int, shares: Shares, tenants: list[str], most: float) -> None:
    low, high = shares.units.min(axis=0), shares.units.max(axis=0)
    figure.add_trace(go.Scatter(
        x=[*shares.times, *shares.times[::-1]], y=[*high, *low[::-1]], fill="toself", fillcolor=BAND, mode="lines",
        line={"width": 0, "color": BAND}, name="gap", showlegend=False, hoverinfo="skip", **panel_axes(panel),
    ))
    for tenant, units in zip(shares.tenants, shares.units, strict=True):
        index = tenants.index(tenant)
        figure.add_trace(_line(tenant, shares, units, index, panel, panel == 1))
    number = "" if panel == 1 else str(panel)
    figure.update_layout({
        f"xaxis{number}": {"title": {"text": "time (s)"}, "nticks": 5},
        f"yaxis{number}": {"range": [0, 1.05 * most], "title": {"text": "service (tokens)" if panel == 1 else ""}},
    })


def _line(name: str, shares: Shares, values: np.ndarray, index: int, panel: int, key: bool) -> go.Scatter:
    return curve(name, shares.times.tolist(), values.tolist(), index, False, showlegend=key, **panel_axes(panel))


def _gaps(figure: go.Figure, found: Mapping[str, Shares], bound: float | None, first: int) -> None:
    panel = len(found) + 1
    place_panel(figure, panel, (0, 1), (0, 0.27))
    for index, (name, shares) in enumerate(found.items(), first):  # looks that no tenant has
        figure.add_trace(_line(f"gap under {name}", shares, shares.apart, index, panel, True))
    tallest = max(float(shares.apart.max()) for shares in found.values())
    top = max(tallest, bound or 0.0) * 1.15 or 1.0
    figure.update_layout({
        f"xaxis{panel}": {"title": {"text": "time (s)"}},
        f"yaxis{panel}": {"range": [0, top], "nticks": 4, "title": {"text": "gap (tokens)"}},
    })
    if bound is not None:
        guide(figure, f"y{panel}", bound, f"bound {bound:,.0f}", VERMILLION)


def _gap(shares: Shares) -> object:
    return "" if shares.gap is None else shares.gap.units


def _finding(found: Mapping[str, Shares], bound: float | None) -> str:
    said = []
    for name, shares in found.items():
        last = shares.units[:, -1]
        most, least = (shares.tenants[int(place)] for place in (last.argmax(), last.argmin()))
        text = f"{name}: {most} gets {shares.ratio:.3g} times the service of {least}"
        if shares.gap is not None and shares.gap.units:
            text += (f", at most {shares.apart.max():,.0f} tokens apart; "
                     f"the gap that grew while both waited is {shares.gap.units:,.0f}")
            if bound is not None:
                text += f" ({'within' if shares.gap.units <= bound else 'beyond'} the bound of {bound:,.0f})"
        said.append(text)
    return ". ".join(said) + "."
