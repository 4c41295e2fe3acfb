"""Block map: every physical KV block of the pool at one step, coloured and lettered by its owner.

The grid is the memory, the table beside it the logical view: a request's blocks need not be neighbours, and only its
last one may have unused slots. That is all the waste paging leaves, less than one block a request (PagedAttention,
Kwon et al., 2023). Rebuilt from the event log alone. Weeks 2 and 6.
"""

import math
from collections.abc import Iterable

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.theme import INK, canvas, colour, finish
from llmcourse.viz.timeline import Step, Timeline, step_at


def columns_for(num_blocks: int) -> int:
    """Blocks per row of the grid: about twice as wide as high, at most 32."""
    return max(1, min(num_blocks, 32, 2 ** math.ceil(math.log2(math.sqrt(2 * num_blocks)))))


def block_map(events: Iterable[Event], step: int | None = None, title: str = "") -> go.Figure:
    """The pool at the end of a step's work (None: the last step), before finished requests return their blocks.

    Raises:
        UserError: no such step in the log.
    """
    timeline = read_timeline(events)
    chosen = step_at(timeline, step)
    across = columns_for(chosen.num_blocks)
    down = math.ceil(chosen.num_blocks / across)
    figure = canvas(
        title or f"KV blocks at step {chosen.number}", max(300, 120 + 34 * max(down, len(chosen.tables) + 2))
    )
    _grid(figure, timeline, chosen, across)
    _tables(figure, timeline, chosen)
    figure.update_layout(
        xaxis={
            "domain": [0, 0.6],
            "range": [-0.6, across - 0.4],
            "showgrid": False,
            "ticks": "",
            "linecolor": "white",
            "tickvals": [0, across - 1],
            "ticktext": ["+0", f"+{across - 1}"],
        },
        yaxis={
            "range": [down - 0.4, -0.6],
            "showgrid": False,
            "ticks": "",
            "tickvals": list(range(down)),
            "ticktext": [str(row * across) for row in range(down)],
            "title": {"text": "first block of the row"},
        },
        showlegend=False,
    )
    return finish(
        figure,
        _finding(timeline, chosen),
        ("owner", "request", "blocks", "tokens stored", "unused slots"),
        _rows(timeline, chosen),
    )


def _grid(figure: go.Figure, timeline: Timeline, step: Step, across: int) -> None:
    owners = _owners(step)
    order = {request: index for index, request in enumerate(timeline.lives)}
    who = [owners.get(block, []) for block in range(step.num_blocks)]
    figure.add_trace(
        go.Bar(
            x=[block % across for block in range(step.num_blocks)],
            y=[0.88] * step.num_blocks,
            width=0.9,
            base=[block // across - 0.44 for block in range(step.num_blocks)],
            textangle=0,
            constraintext="none",
            marker={
                "color": [colour(order[names[0]]) if names else "#ffffff" for names in who],
                "line": {
                    "color": [INK if names else "#999999" for names in who],
                    "width": [3 if len(names) > 1 else 1 for names in who],
                },
            },
            text=["".join(timeline.lives[name].letter for name in names) for names in who],
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"color": INK, "size": 14},
            hoverinfo="text",
            hovertext=[f"block {block}: {', '.join(names) or 'free'}" for block, names in enumerate(who)],
        )
    )


def _tables(figure: go.Figure, timeline: Timeline, step: Step) -> None:
    lines = ["<b>block tables, in order</b>"]
    for request, blocks in step.tables.items():
        shown = " ".join(map(str, blocks[:9])) + (f" … ({len(blocks)})" if len(blocks) > 9 else "")
        lines.append(f"{timeline.lives[request].letter}:  {shown}")
    figure.update_layout(
        annotations=[
            {
                "x": 0.64,
                "xref": "paper",
                "y": 1,
                "yref": "paper",
                "yshift": -24 * row,
                "xanchor": "left",
                "yanchor": "top",
                "text": text,
                "showarrow": False,
                "font": {"size": 14},
            }
            for row, text in enumerate(lines)
        ]
    )


def _owners(step: Step) -> dict[int, list[str]]:
    owners: dict[int, list[str]] = {}
    for request, blocks in step.tables.items():
        for block in blocks:
            owners.setdefault(block, []).append(request)
    return owners


def _rows(timeline: Timeline, step: Step) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for request, blocks in step.tables.items():
        unused = len(blocks) * step.block_size - step.stored[request] if request in step.stored else ""
        rows.append(
            (
                timeline.lives[request].letter,
                request,
                " ".join(map(str, blocks)),
                step.stored.get(request, ""),
                unused,
            )
        )
    return rows


def _finding(timeline: Timeline, step: Step) -> str:
    taken = len(_owners(step))
    return (
        f"Step {step.number}: {taken} of {step.num_blocks} blocks of {step.block_size} tokens hold K and V of "
        f"{len(step.tables)} requests; {step.num_blocks - taken} are free."
    )
