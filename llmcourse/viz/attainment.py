"""Attainment against load: the share of requests served in time, and the highest rate at which it reaches a target.

Throughput alone cannot tell two policies apart that are both busy; the rate at which one in ten requests starts to miss
its promise can. That rate is the goodput (DistServe, Zhong et al., 2024), marked where a curve crosses the target. When
the shares of each limit are known, the sentence says which one binds: the first token, or the tokens after it. Weeks
3 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.metrics.goodput import Goodput
from llmcourse.metrics.slo import Attainment, attainment
from llmcourse.viz.samples import as_table
from llmcourse.viz.series import SYMBOLS, curve, guide, paint
from llmcourse.viz.theme import INK, VERMILLION, canvas, finish

if TYPE_CHECKING:
    from llmcourse.workload.slo import SLO


@dataclass(frozen=True)
class Share:
    """At one rate (requests/s): the share of requests in time, and within each limit alone (NaN: not known)."""

    rate: float
    both: float
    ttft: float = math.nan
    tpot: float = math.nan

    @property
    def binding(self) -> str:
        """The limit that more requests miss; "" where the two are not known or alike."""
        if not math.isfinite(self.ttft + self.tpot) or self.ttft == self.tpot:
            return ""
        return "TTFT" if self.ttft < self.tpot else "TPOT"


def attainment_curve(
    systems: Mapping[str, Any],
    target: float = 0.9,
    slo: SLO | None = None,
    title: str = "Requests served in time, against load",
) -> go.Figure:
    """SLO attainment against request rate for each system, its goodput marked.

    A system is a list of (rate, share), (rate, Attainment) or (rate, run), judged by `slo` or each request's own; or
    the result of `metrics.goodput.goodput`. One system alone is drawn with its two limits apart, where they are known.

    Raises:
        UserError: no points, or a share outside 0 to 1.
    """
    found = {name: _shares(name, points, slo) for name, points in systems.items()}
    if not found:
        raise UserError("no system to draw: pass {name: [(rate, attainment), …]}")
    best = {name: crossing(shares, target) for name, shares in found.items()}
    figure = canvas(title, 440)
    for index, (name, shares) in enumerate(found.items()):
        said = f"{name}: goodput {_number(best[name])}/s" if best[name] is not None else f"{name}: below target"
        figure.add_trace(curve(said, [s.rate for s in shares], [s.both for s in shares], index))
    if len(found) == 1:
        _limits(figure, next(iter(found.values())))
    figure.update_yaxes(range=[0, 1.04], tickformat=".0%", title_text="served in time")
    rates = [share.rate for shares in found.values() for share in shares]
    figure.update_xaxes(title_text="requests per second", range=[0, 1.04 * max(rates)])
    guide(figure, "y", target, f"target {target:.0%}", VERMILLION, end=False)
    for index, name in enumerate(found):
        _mark(figure, name, best[name], target, index)
    columns = ("system", "rate (1/s)", "in time", "TTFT kept", "TPOT kept", "binds", "goodput (1/s)")
    rows = [
        (name, s.rate, _percent(s.both), _percent(s.ttft), _percent(s.tpot), s.binding, _number(best[name]))
        for name, shares in found.items()
        for s in shares
    ]
    return finish(figure, _finding(found, best, target), columns, rows)


def crossing(shares: Sequence[Share], target: float) -> float | None:
    """The rate at which attainment falls to the target, between the last point that reaches it and the next (linear).

    The highest rate measured if none misses; None if the lowest already does.
    """
    if shares[0].both < target:
        return None
    for before, after in pairwise(shares):
        if after.both < target:
            part = (before.both - target) / (before.both - after.both)
            return before.rate + part * (after.rate - before.rate)
    return shares[-1].rate


def _shares(name: str, points: Any, slo: SLO | None) -> list[Share]:
    pairs = [(run.rate, run.attainment) for run in points.runs] if isinstance(points, Goodput) else list(points)
    if not pairs:
        raise UserError(f"{name} has no point: pass (rate, attainment) pairs")
    return sorted((_share(rate, value, slo) for rate, value in pairs), key=lambda share: share.rate)


def _share(rate: float, value: Any, slo: SLO | None) -> Share:
    if isinstance(value, (int, float)):
        if not 0 <= value <= 1:
            raise UserError(f"attainment at rate {rate:g} is {value:g}; it is a share from 0 to 1")
        return Share(rate, float(value))
    kept = value if isinstance(value, Attainment) else attainment(as_table(value), slo)
    if not kept.requests:
        raise UserError(f"no request of the run at rate {rate:g} has an SLO: pass slo=SLO(ttft=..., tpot=...)")
    return Share(rate, kept.both, kept.ttft, kept.tpot)


def _limits(figure: go.Figure, shares: Sequence[Share]) -> None:
    for index, (name, what) in enumerate((("TTFT alone", "ttft"), ("TPOT alone", "tpot")), 1):
        values = [getattr(share, what) for share in shares]
        if all(map(math.isfinite, values)):
            figure.add_trace(curve(name, [share.rate for share in shares], values, index))


def _mark(figure: go.Figure, name: str, rate: float | None, target: float, index: int) -> None:
    if rate is None:
        return
    figure.add_trace(go.Scatter(
        x=[rate], y=[target], mode="markers", showlegend=False,
        marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 15, "color": paint(index), "line": {"color": INK}},
        hovertext=[f"goodput of {name}: {rate:.3g} requests/s"], hoverinfo="text",
    ))


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _finding(found: Mapping[str, Sequence[Share]], best: Mapping[str, float | None], target: float) -> str:
    said = []
    for name, shares in found.items():
        rate, worst = best[name], next((share for share in shares if share.both < target), None)
        if rate is None:
            text = f"{name} misses {target:.0%} even at {shares[0].rate:g}/s"
        elif worst is None:
            text = f"{name} keeps {target:.0%} at all rates up to {rate:.3g}/s"
        else:
            text = f"{name} keeps {target:.0%} up to {rate:.3g}/s"
        said.append(text + (f"; beyond, {worst.binding} binds" if worst is not None and worst.binding else ""))
    return ". ".join(said) + "."
