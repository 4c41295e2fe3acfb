"""Attention map: how much each token looks at each earlier one, for one head of one layer.

A row is the token that asks (query), a column the token that answers (key); a row sums to one, and the upper right
stays empty because nobody may look ahead (the causal mask; Vaswani et al., 2017). Week 1.
"""

from collections.abc import Sequence

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.theme import canvas, finish

VALUES_UP_TO = 14  # tokens; above, the numbers no longer fit into the cells


def attention_map(
    tokens: Sequence[str], weights: Sequence[Sequence[float]], title: str = "Who looks at whom"
) -> go.Figure:
    """Heat map of `weights[query][key]` (T x T, rows sum to 1) over the T token texts.

    Raises:
        UserError: the weights are not T x T.
    """
    rows = [[float(value) for value in row] for row in weights]
    count = len(tokens)
    if len(rows) != count or any(len(row) != count for row in rows):
        shape = f"{len(rows)} x {len(rows[0]) if rows else 0}"
        raise UserError(
            f"the weights are {shape} for {count} tokens; they must be {count} x {count}: one head's"
        )
    names = [visible(token) for token in tokens]
    seen = [
        [value if key <= query else None for key, value in enumerate(row)] for query, row in enumerate(rows)
    ]
    texts = [
        [f"{value:.2f}" if value is not None and count <= VALUES_UP_TO else "" for value in row]
        for row in seen
    ]
    tips = [
        [f"{names[q]} → {names[k]}: {v:.3f}" if v is not None else "" for k, v in enumerate(row)]
        for q, row in enumerate(seen)
    ]
    figure = canvas(title, 190 + max(26 * count, 160))
    figure.add_trace(
        go.Heatmap(
            z=seen,
            text=texts,
            texttemplate="%{text}",
            hovertext=tips,
            hoverinfo="text",
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            showscale=True,
            xgap=1,
            ygap=1,
        )
    )
    ticks = {"tickvals": list(range(count)), "showgrid": False}
    figure.update_xaxes(
        **ticks, ticktext=_wrapped(names), range=[-0.5, count - 0.5], title_text="looks at (key)"
    )
    figure.update_yaxes(**ticks, ticktext=names, range=[count - 0.5, -0.5], title_text="token (query)")
    return finish(
        figure,
        _finding(names, rows),
        ("query", *(f"{i}: {name}" for i, name in enumerate(names))),
        [(name, *(f"{v:.3f}" for v in row)) for name, row in zip(names, rows, strict=True)],
    )


def visible(token: str) -> str:
    """A token's text with its white space made visible."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def _wrapped(names: Sequence[str]) -> list[str]:
    """Alternate labels one line lower when they would run into each other."""
    if len(names) * max(map(len, names)) < 80:
        return list(names)
    return [name if index % 2 == 0 else f"<br>{name}" for index, name in enumerate(names)]


def _finding(names: Sequence[str], rows: Sequence[Sequence[float]]) -> str:
    if len(rows) < 2:
        return "One token can only look at itself."
    weight, query, key = max((row[k], q, k) for q, row in enumerate(rows) for k in range(q) if q)
    return (
        f"The strongest look back is from token {query} ({names[query]}) to token {key} ({names[key]}): "
        f"{weight:.0%} of its attention. The last token spends {rows[-1][-1]:.0%} on itself."
    )
