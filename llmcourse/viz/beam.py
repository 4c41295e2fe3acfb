"""Beam tree: the hypotheses a beam search kept at each step, those it dropped, and the winner.

Columns are steps, nodes are tokens with the summed log-probability up to them. Dropped branches end early and pale; the
best finished hypothesis is drawn thick. Greedy decoding is the tree of width one (Sutskever et al., 2014, section 3.2).
Week 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.attention import visible
from llmcourse.viz.theme import BLUE, INK, ORANGE, canvas, finish

DROPPED = "#8a8a8a"


@dataclass(frozen=True)
class Node:
    """One node: its token's text, its parent's index in the list (None for the root), the score up to here."""

    token: str
    parent: int | None
    score: float
    kept: bool = True


def beam_tree(
    nodes: Sequence[Node], best: int | None = None, title: str = "Beam search: what was kept"
) -> go.Figure:
    """Tree of the nodes, parents before children; `best` is the winner's last node (None: best kept leaf).

    Raises:
        UserError: no node, or a parent that does not come before its child.
    """
    for index, node in enumerate(nodes):
        if node.parent is not None and not 0 <= node.parent < index:
            raise UserError(
                f"node {index} names parent {node.parent}: parents come before their children, from 0"
            )
    if not nodes:
        raise UserError("a beam tree needs at least its root")
    depth = [0] * len(nodes)
    for index, node in enumerate(nodes):
        depth[index] = 0 if node.parent is None else depth[node.parent] + 1
    place = _places(nodes, depth)
    path = _path(nodes, _winner(nodes, depth) if best is None else best)
    figure = canvas(title, 170 + round(max(44 * (1 + max(place)), 130)))
    edges = [
        _edge(depth, place, index, node, index in path)
        for index, node in enumerate(nodes)
        if node.parent is not None
    ]
    figure.update_layout(shapes=edges)
    _dots(figure, nodes, depth, place, path)
    figure.update_xaxes(
        title_text="step",
        tickvals=list(range(max(depth) + 1)),
        range=[-0.4, max(depth) + 0.9],
        showgrid=False,
    )
    figure.update_yaxes(visible=False, range=[max(place) + 0.6, -0.7], showgrid=False)
    rows = [
        (
            depth[i],
            visible(n.token),
            f"{n.score:.3f}",
            "winner" if i in path else "kept" if n.kept else "dropped",
        )
        for i, n in enumerate(nodes)
    ]
    text = "".join(nodes[i].token for i in sorted(path))
    dropped = sum(not node.kept for node in nodes)
    score = nodes[max(path)].score
    finding = f"The winner is {text!r} with log-probability {score:.2f}; {dropped} branches were dropped."
    return finish(figure, finding, ("step", "token", "log-probability so far", "fate"), rows)


def _places(nodes: Sequence[Node], depth: Sequence[int]) -> list[float]:
    """Row of each node: leaves in order from the top, a parent at its first child."""
    children: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        if node.parent is not None:
            children.setdefault(node.parent, []).append(index)
    rows, free = [0.0] * len(nodes), 0

    def put(index: int) -> None:
        nonlocal free
        below = sorted(children.get(index, ()), key=lambda child: -nodes[child].score)
        for child in below:
            put(child)
        if not below:
            rows[index], free = float(free), free + 1
        else:
            rows[index] = rows[below[0]]

    for root in (i for i, d in enumerate(depth) if d == 0):
        put(root)
    return rows


def _winner(nodes: Sequence[Node], depth: Sequence[int]) -> int:
    last = max(d for d, node in zip(depth, nodes, strict=True) if node.kept)
    return max((i for i, d in enumerate(depth) if d == last and nodes[i].kept), key=lambda i: nodes[i].score)


def _path(nodes: Sequence[Node], index: int | None) -> set[int]:
    path: set[int] = set()
    while index is not None:
        path.add(index)
        index = nodes[index].parent
    return path


def _edge(
    depth: Sequence[int], place: Sequence[float], index: int, node: Node, wins: bool
) -> dict[str, object]:
    parent = node.parent or 0
    paint = BLUE if wins else INK if node.kept else DROPPED
    line = {"color": paint, "width": 5 if wins else 2, "dash": "solid" if node.kept else "dot"}
    return {
        "type": "line",
        "x0": depth[parent],
        "y0": place[parent],
        "x1": depth[index],
        "y1": place[index],
        "layer": "below",
        "line": line,
    }


def _dots(
    figure: go.Figure, nodes: Sequence[Node], depth: Sequence[int], place: Sequence[float], path: set[int]
) -> None:
    groups = (
        ("winner", path, BLUE, "square"),
        ("kept", {i for i, n in enumerate(nodes) if n.kept} - path, ORANGE, "circle"),
        ("dropped", {i for i, n in enumerate(nodes) if not n.kept} - path, "#ffffff", "x"),
    )
    for name, members, paint, symbol in groups:
        chosen = sorted(members)
        if chosen:
            figure.add_trace(
                go.Scatter(
                    x=[depth[i] for i in chosen],
                    y=[place[i] for i in chosen],
                    mode="markers+text",
                    name=name,
                    showlegend=True,
                    textposition="top right",
                    textfont={"size": 14},
                    text=[f"{visible(nodes[i].token)}  {nodes[i].score:.2f}" for i in chosen],
                    marker={
                        "symbol": symbol,
                        "size": 13,
                        "color": paint if symbol != "x" else DROPPED,
                        "line": {"color": INK, "width": 1},
                    },
                    hovertext=[f"{visible(nodes[i].token)}: {nodes[i].score:.3f}, {name}" for i in chosen],
                    hoverinfo="text",
                )
            )
