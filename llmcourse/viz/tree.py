"""The prefix tree: which texts a cache knows, where they agree, and where they part.

A bar is a run of tokens without a branch, as long as it is and as far from the left as what stands before it; what
hangs on its end goes on from it. Everything above a fork is computed and stored once for all below. Drawn from a
`RadixIndex` (Zheng et al., 2024, RadixAttention). Week 6.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.kv.radix import Node, RadixIndex
from llmcourse.viz.theme import INK, canvas, colour, finish, marker

Text = Callable[[Sequence[int]], str]
FITTING = 92                             # letters that fit across the picture


@dataclass(frozen=True)
class Run:
    """A node, placed: tokens from ``start`` to ``end`` of the text, in this row, ``depth`` forks from the root."""

    node: Node
    start: int
    end: int
    row: float
    depth: int


def prefix_tree(index: RadixIndex, text: Text | None = None, title: str = "What the cache knows") -> go.Figure:
    """The tree of an index; ``text`` turns token ids into what a bar says (None: how many tokens it holds).

    Raises:
        UserError: the index is empty.
    """
    runs = _placed(index.root)
    if not runs:
        raise UserError("the tree is empty: let the pool compute a prompt of at least one full block first")
    leaves = sum(not run.node.children for run in runs)
    length = max(run.end for run in runs)
    figure = canvas(title, max(280, 170 + 46 * leaves), showlegend=False)
    figure.add_trace(go.Bar(
        orientation="h", base=[run.start for run in runs], x=[run.end - run.start for run in runs],
        y=[run.row for run in runs], width=0.62, marker=marker([colour(run.depth) for run in runs]),     # type: ignore[arg-type]
        text=[_said(run, text, length) for run in runs], textposition="inside", insidetextanchor="start",
        insidetextfont={"color": INK, "size": 14}, textangle=0, constraintext="none", hoverinfo="text",
        hovertext=[f"{len(run.node.holders)} blocks: {text(run.node.tokens) if text else ''}" for run in runs]))
    for run in runs:
        rows = [below.row for below in runs if below.node.parent is run.node]
        if len(rows) > 1:
            figure.add_shape(type="line", x0=run.end, x1=run.end, y0=min(rows), y1=max(rows),
                             line={"color": INK, "width": 3})
    figure.update_layout(
        xaxis={"range": [0, length * 1.01], "title": {"text": "tokens from the beginning"}},
        yaxis={"range": [max(run.row for run in runs) + 0.7, -0.7], "showticklabels": False, "ticks": "",
               "showgrid": False})
    return finish(figure, _finding(runs, index.block_size), ("from token", "to", "blocks", "branches", "text"),
                  [(run.start, run.end, len(run.node.holders), len(run.node.children),
                    text(run.node.tokens) if text else "") for run in runs])


def _placed(root: Node) -> list[Run]:
    """All nodes, leaves in rows of their own, a parent in the middle of its children."""
    runs: list[Run] = []
    rows = iter(range(1 << 30))

    def place(node: Node, start: int, depth: int) -> float:
        end = start + len(node.tokens)
        below = [place(child, end, depth + 1) for child in node.children.values()]
        row = sum(below) / len(below) if below else float(next(rows))
        if node is not root:
            runs.append(Run(node, start, end, row, depth))
        return row

    if root.children:
        place(root, 0, -1)
    return sorted(runs, key=lambda run: (run.start, run.row))


def _said(run: Run, text: Text | None, length: int) -> str:
    room = int(FITTING * (run.end - run.start) / length)
    said = text(run.node.tokens).replace("\n", " ") if text else f"{run.end - run.start} tokens"
    return said if len(said) <= room else said[:max(0, room - 2)] + "…" if room > 4 else ""


def _finding(runs: Sequence[Run], block_size: int) -> str:
    texts = [run for run in runs if not run.node.children]
    held = sum(run.end - run.start for run in runs)
    alone = sum(run.end for run in texts)
    return (f"{len(texts)} texts of {alone} tokens in all are kept in {held // block_size} blocks of {block_size} "
            f"({held} tokens), because what they have in common is kept once.")
