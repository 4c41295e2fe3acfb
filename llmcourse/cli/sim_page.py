"""The page of a simulation: its report, its distributions and its time lines in one HTML file that needs no network.

plotly's script is inside once (about 5 MB), every figure has its sentence and its numbers below it. Weeks 3-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.metrics.rental import Lease
from llmcourse.metrics.table import Table

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN_REQUESTS, SHOWN_STEPS = 40, 3000
STYLE = """body{font:16px system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#1a1a1a}
pre{background:#f5f5f5;padding:1em;overflow-x:auto;font-size:13px}table{border-collapse:collapse;font-size:14px}
td,th{border:1px solid #d9d9d9;padding:.2em .6em;text-align:right}summary{cursor:pointer}"""


def page(title: str, report: str, table: Table, events: Sequence[Event], slo_ttft: float | None = None,
         leases: Sequence[Lease] = ()) -> str:
    """The whole document; time lines only where events were kept (of the first requests, and the first steps).

    ``leases`` of a fleet that grew and shrank are drawn beside its load.
    """
    from plotly.offline import get_plotlyjs

    figures = [*_distributions(title, table, slo_ttft), *_fleet(leases, table)]
    figures += _time_lines(events) if events else []
    body = "\n".join(_section(figure) for figure in figures)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head>\n"
            f"<body><h1>{escape(title)}</h1>\n<pre>{escape(report)}</pre>\n{body}\n</body></html>\n")


def _distributions(title: str, table: Table, slo_ttft: float | None) -> list[go.Figure]:
    from llmcourse.viz import latency_cdf

    made = []
    for metric in ("ttft", "itl", "e2e"):
        try:
            made.append(latency_cdf({title: table}, metric, slo=slo_ttft if metric == "ttft" else None))
        except UserError:                            # nobody got that far: no sample, no figure
            continue
    return made


def _fleet(leases: Sequence[Lease], table: Table) -> list[go.Figure]:
    from llmcourse.viz import scaling_steps

    return [scaling_steps(leases, table["arrival"], table["ttft"])] if leases and len(table) else []


def _time_lines(events: Sequence[Event]) -> list[go.Figure]:
    from llmcourse.viz import kv_occupancy, request_waterfall

    names = [event.request for event in events if event.kind == "QUEUED"][:SHOWN_REQUESTS]
    waterfall = request_waterfall(_only(events, names),
                                  title=f"Where the time of the first {len(names)} requests went" if len(names) > 1
                                  else "Where the time of the first request went")
    first = [event for event in events if event.instance == 0]
    until = [event.time for event in first if event.kind == "STEP"][:SHOWN_STEPS][-1]
    return [waterfall, kv_occupancy([event for event in first if event.time <= until],
                                    title=f"KV blocks in use on instance 0, first {until:.4g} s")]


def _only(events: Sequence[Event], names: Sequence[str | None]) -> list[Event]:
    """The log of some requests, as if there had been no others."""
    chosen, kept = set(names), []
    for event in events:
        batch = [item for item in event.data.get("batch", ()) if item[0] in chosen]
        if event.kind == "STEP" and batch:
            told = {key: [item for item in event.data[key] if item[0] in chosen]
                    for key in ("blocks", "tables") if key in event.data}
            kept.append(event._replace(data=event.data | {"batch": batch} | told))
        elif event.request in chosen:
            kept.append(event)
    return kept


def _section(figure: go.Figure) -> str:
    from llmcourse.viz import summary
    from llmcourse.viz import table as numbers
    from llmcourse.viz.display import CONFIG, table_html

    drawn = figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG)
    return (f"<section>{drawn}<p>{escape(summary(figure))}</p><details><summary>Numbers</summary>"
            f"{table_html(numbers(figure))}</details></section>")
