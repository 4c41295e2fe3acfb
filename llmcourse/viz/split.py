"""Where KV memory goes, one bar a memory: tokens, reserved, internal waste, external waste, free.

The picture of Figure 2 in Kwon et al., 2023, with one part more: what is free is shown as well, for at a low load most
of it is. Week 6.
"""

from collections.abc import Mapping

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.metrics.kv_meter import KVUsage
from llmcourse.viz.theme import GREEN, GREY, ORANGE, PURPLE, Kind, canvas, finish, marker

PARTS = {
    "used": Kind("holds a token", GREEN),
    "reserved": Kind("reserved: its token will come", ORANGE, "/"),
    "internal": Kind("set aside and never filled", PURPLE, "x"),
    "external": Kind("free, too small for the first in line", GREY, "."),
    "free": Kind("free", "#ffffff"),
}


def memory_split(usages: Mapping[str, KVUsage], title: str = "Where the KV memory goes") -> go.Figure:
    """A stacked bar for each run, from what its `KVMeter` says.

        memory_split({"reserve-max": meter_a.usage(pressed=True), "paged": meter_b.usage(pressed=True)})

    Raises:
        UserError: nothing to show.
    """
    if not usages:
        raise UserError("a split needs at least one run: {name: meter.usage(), ...}")
    figure = canvas(title, 190 + 52 * len(usages), barmode="overlay")
    base = [0.0] * len(usages)
    for part, style in PARTS.items():
        shares = [max(0.0, getattr(usage, part)) for usage in usages.values()]
        figure.add_trace(go.Bar(
            orientation="h", y=list(range(len(usages))), base=list(base), x=shares, width=0.7, name=style.name,
            marker=marker(style.colour, style.pattern), textposition="inside", insidetextanchor="middle", textangle=0,
            constraintext="none", text=[f"{share:.0%}" if share >= 0.04 else "" for share in shares], hoverinfo="text",
            hovertext=[f"{name}: {share:.1%} {style.name}" for name, share in zip(usages, shares, strict=True)]))
        base = [start + share for start, share in zip(base, shares, strict=True)]
    figure.update_layout(
        xaxis={"range": [0, 1], "tickformat": ".0%", "title": {"text": "share of all slots, mean over time"}},
        yaxis={"tickvals": list(range(len(usages))), "ticktext": list(usages), "range": [len(usages) - 0.4, -0.6],
               "showgrid": False})
    rows = [(name, usage.running, *(getattr(usage, part) for part in PARTS), usage.of_taken)
            for name, usage in usages.items()]
    return finish(figure, _finding(usages), ("memory", "running", *PARTS, "used of taken"), rows)


def _finding(usages: Mapping[str, KVUsage]) -> str:
    parts = [f"{name} {usage.used:.0%} with {usage.running:.3g} requests" for name, usage in usages.items()]
    return f"Share of slots that hold a token: {', '.join(parts)}."
