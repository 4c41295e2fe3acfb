"""Noisy neighbour: what each tenant gets, with and without isolation, in three numbers.

Two tenants share an engine, and one of them sends long prompts or too many. The other's tail shows it: its first token
waits in a queue it did not fill, its next tokens wait behind prompts that are not its own. A group of bars is one
setting of the switches (chunked prefill, fair queueing, quotas), a bar is one tenant. Week 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.table import Table
from llmcourse.viz.samples import SHORT, as_table, samples
from llmcourse.viz.series import heading, headroom, panel_axes, place_panel, split
from llmcourse.viz.theme import canvas, colour, finish, marker, seconds

if TYPE_CHECKING:
    from llmcourse.workload.slo import SLO

PATTERNS = ("", "/", "x", ".", "-")
Cells = dict[str, dict[str, "Cell"]]  # configuration -> tenant -> what it got


@dataclass(frozen=True)
class Cell:
    """One tenant under one configuration: tails in seconds, share of requests within their SLO; NaN: not known."""

    ttft: float
    itl: float
    attainment: float
    requests: int


def noisy_neighbour(
    configurations: Mapping[str, Any],
    slo: SLO | None = None,
    quiet: str | None = None,
    q: float = 99,
    title: str = "What each tenant gets",
) -> go.Figure:
    """Tails of TTFT and ITL and SLO attainment, by tenant and configuration.

    A configuration is a run whose requests have tenants (Table, events, records), or {tenant: run}, or {tenant:
    {"ttft": s, "itl": s, "attainment": share}}. `slo` judges all requests alike (None: each by its own); `quiet` is the
    tenant the sentence is about (None: the one with the lowest tail under the last configuration).

    Raises:
        UserError: nothing to compare, or an unknown tenant.
    """
    cells = {name: _cells(run, slo, q) for name, run in configurations.items()}
    tenants = list(dict.fromkeys(tenant for found in cells.values() for tenant in found))
    if not tenants:
        raise UserError("no tenant to look at: pass {configuration: table}, with tenants in the table's requests")
    if quiet is not None and quiet not in tenants:
        raise UserError(f"no tenant {quiet!r}; there are {', '.join(tenants)}")
    figure = canvas(title, 170 + len(cells) * (26 * len(tenants) + 22), barmode="overlay")
    panels = (("ttft", f"P{q:g} TTFT"), ("itl", f"P{q:g} ITL"), ("attainment", "within the SLO"))
    shown = [(what, text) for what, text in panels if any(_real(cells, what))]
    for panel, ((what, text), domain) in enumerate(zip(shown, split(len(shown), 0.035), strict=True), 1):
        _panel(figure, panel, what, cells, tenants)
        place_panel(figure, panel, domain, (0, headroom(figure)))
        heading(figure, panel, text)
    columns = ("configuration", "tenant", "requests", f"P{q:g} TTFT (s)", f"P{q:g} ITL (s)", "within the SLO")
    rows = [
        (name, tenant, cell.requests or "", cell.ttft, cell.itl, _share(cell.attainment))
        for name, found in cells.items()
        for tenant, cell in found.items()
    ]
    return finish(figure, _finding(cells, quiet or _quietest(cells), q), columns, rows)


def _cells(run: Any, slo: SLO | None, q: float) -> dict[str, Cell]:
    if isinstance(run, Mapping):
        return {tenant: _cell(one, slo, q) for tenant, one in run.items()}
    table = as_table(run)
    return {tenant or "(no name)": _cell(table.of_tenant(tenant), slo, q) for tenant in table.tenants}


def _cell(run: Any, slo: SLO | None, q: float) -> Cell:
    if isinstance(run, Mapping):
        known = {what: float(run.get(what, math.nan)) for what in ("ttft", "itl", "attainment")}
        return Cell(**known, requests=int(run.get("requests", 0)))
    table = run if isinstance(run, Table) else as_table(run)
    gaps = samples(table, "itl" if len(table.gap_seconds) else "tpot")  # a ledger may not know whose a gap was
    return Cell(samples(table, "ttft").percentile(q), gaps.percentile(q), attainment(table, slo).both, len(table))


def _real(cells: Cells, what: str) -> list[bool]:
    return [math.isfinite(getattr(cell, what)) for found in cells.values() for cell in found.values()]


def _panel(figure: go.Figure, panel: int, what: str, cells: Cells, tenants: list[str]) -> None:
    height = 0.84 / len(tenants)
    every = [getattr(cell, what) for found in cells.values() for cell in found.values()]
    widest = max(value for value in every if math.isfinite(value))
    for index, tenant in enumerate(tenants):
        found = [(row, getattr(cells[name][tenant], what)) for row, name in enumerate(cells) if tenant in cells[name]]
        found = [(row, value) for row, value in found if math.isfinite(value)]
        texts = [f"{value:.0%}" if what == "attainment" else seconds(value) for _, value in found]
        figure.add_trace(go.Bar(
            orientation="h", x=[value for _, value in found], width=0.94 * height, name=tenant, showlegend=panel == 1,
            y=[row + (index - (len(tenants) - 1) / 2) * height for row, _ in found], text=texts, textposition="outside",
            marker=marker(colour(index), PATTERNS[index % len(PATTERNS)]), constraintext="none", textfont={"size": 14},
            hovertext=[f"{tenant}: {text}" for text in texts], hoverinfo="text", **panel_axes(panel),
        ))
    number = "" if panel == 1 else str(panel)
    top = 1.3 if what == "attainment" else 1.35 * widest or 1.0
    figure.update_layout({
        f"xaxis{number}": {"range": [0, top], "showticklabels": False, "ticks": "", "showgrid": False},
        f"yaxis{number}": {"range": [len(cells) - 0.4, -0.6], "tickvals": list(range(len(cells))), "showgrid": False,
                           "ticktext": list(cells) if panel == 1 else [""] * len(cells)},
    })


def _quietest(cells: Cells) -> str:
    last = list(cells.values())[-1]
    return min(last, key=lambda tenant: last[tenant].itl if math.isfinite(last[tenant].itl) else last[tenant].ttft)


def _finding(cells: Cells, quiet: str, q: float) -> str:
    """The quiet tenant's tails under each configuration, one after the other."""
    said = []
    for what in ("ttft", "itl", "attainment"):
        found = [(name, getattr(seen[quiet], what)) for name, seen in cells.items() if quiet in seen]
        found = [(name, value) for name, value in found if math.isfinite(value)]
        if found:
            label = "attainment" if what == "attainment" else f"P{q:g} {SHORT[what]}"
            write = _share if what == "attainment" else seconds
            said.append(f"{quiet}'s {label} is " + ", ".join(f"{write(value)} ({name})" for name, value in found))
    return "; ".join(said) + "."


def _share(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else ""
