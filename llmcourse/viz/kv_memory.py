"""KV calculator: what one token leaves behind in the cache, and how many requests a GPU's memory holds.

bytes per token = 2 (K and V) x layers x KV heads x head size x bytes per value. What the weights leave free, divided
by that times the context, is the number of requests: the limit that decides throughput long before arithmetic does.
Grouped-query attention (Ainslie et al., 2023) divides it by the query heads that share one KV head. Week 2.
"""

from dataclasses import dataclass

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.theme import BLUE, GREY, INK, ORANGE, SKY, canvas, finish, marker, size

GIB = float(1 << 30)


@dataclass(frozen=True)
class KVShape:
    """What of a model decides its memory: layers, heads, head size, parameters."""

    name: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    parameters: float

    def bytes_per_token(self, bytes_per_value: float = 2, kv_heads: int | None = None) -> float:
        """K and V of one token in all layers, in bytes."""
        return 2 * self.layers * (kv_heads or self.kv_heads) * self.head_dim * bytes_per_value


def kv_calculator(
    shape: KVShape,
    gpu_memory: float,
    context: int,
    kv_bytes: float = 2,
    weight_bytes: float = 2,
    usable: float = 0.9,
    gpu_name: str = "GPU",
    title: str = "",
) -> go.Figure:
    """Memory of one GPU (bytes), divided: weights, KV of the requests that fit at `context` tokens each, the rest.

    `usable` is the share of memory the server may take; `kv_bytes` and `weight_bytes` are bytes per value.

    Raises:
        UserError: sizes that are not positive.
    """
    if min(gpu_memory, context, kv_bytes, weight_bytes, usable) <= 0:
        raise UserError(
            f"memory {gpu_memory}, context {context}, bytes {kv_bytes} and {weight_bytes}, "
            f"usable {usable}: all must be positive"
        )
    weights = shape.parameters * weight_bytes
    one = shape.bytes_per_token(kv_bytes) * context
    room = max(0.0, gpu_memory * usable - weights)
    fits = int(room // one)
    figure = canvas(
        title or f"{shape.name} on {gpu_name}: {context:,} tokens a request", 330, barmode="overlay"
    )
    _memory(figure, weights, one, fits, gpu_memory, usable)
    figure.update_yaxes(tickvals=[0], ticktext=[gpu_name], range=[-0.7, 0.9], showgrid=False)
    figure.update_xaxes(title_text="GiB", range=[0, 1.04 * max(gpu_memory, weights) / GIB])
    kinds = [(kind, heads, shape.bytes_per_token(kv_bytes, heads)) for kind, heads in _variants(shape)]
    rows = [
        (kind, heads, size(each), size(each * context), int(room // (each * context)))
        for kind, heads, each in kinds
    ]
    return finish(
        figure,
        _finding(shape, kv_bytes, context, weights, room, fits, gpu_name),
        ("attention", "KV heads", "KV per token", "KV per request", "requests that fit"),
        rows,
    )


def _memory(figure: go.Figure, weights: float, one: float, fits: int, memory: float, usable: float) -> None:
    kv = fits * one
    limit = max(memory * usable, weights)
    parts = (
        ("weights", 0.0, weights, ORANGE, "/"),
        (f"KV of {fits:,} requests", weights, kv, SKY, ""),
        ("free, but too little for one more", weights + kv, limit - weights - kv, "#ffffff", ""),
        ("kept for activations", limit, max(0.0, memory - limit), GREY, "."),
    )
    for name, base, length, paint, pattern in parts:
        figure.add_trace(
            go.Bar(
                orientation="h",
                y=[0],
                base=[base / GIB],
                x=[length / GIB],
                width=0.9,
                name=f"{name}: {size(length)}",
                marker=marker(paint, pattern),
                hovertext=[f"{name}: {size(length)}"],
                hoverinfo="text",
            )
        )
    borders = [(weights + k * one) / GIB for k in range(1, fits)] if fits <= 64 else []
    end = memory / GIB
    lines = [_upright(x, 0.45, INK, 1, "solid") for x in borders] + [_upright(end, 0.6, BLUE, 3, "dash")]
    figure.update_layout(shapes=lines)
    figure.add_annotation(
        x=end,
        y=0.62,
        text=f"all memory: {size(memory)}",
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
        font={"size": 14, "color": BLUE},
    )


def _upright(x: float, half: float, paint: str, width: float, dash: str) -> dict[str, object]:
    line = {"color": paint, "width": width, "dash": dash}
    return {"type": "line", "x0": x, "x1": x, "y0": -half, "y1": half, "line": line}


def _variants(shape: KVShape) -> list[tuple[str, int]]:
    names = {shape.heads: "multi-head (MHA)", 1: "multi-query (MQA)"}
    own = names.get(shape.kv_heads, f"grouped ({shape.kv_heads})")
    found = {shape.heads: "multi-head (MHA)", shape.kv_heads: own, 1: "multi-query (MQA)"}
    return [
        (name + (", this model" if heads == shape.kv_heads else ""), heads) for heads, name in found.items()
    ]


def _finding(
    shape: KVShape, kv_bytes: float, context: int, weights: float, room: float, fits: int, gpu: str
) -> str:
    per_token = shape.bytes_per_token(kv_bytes)
    start = (
        f"{shape.name} leaves {size(per_token)} of KV per token, {size(per_token * context)} per request "
        f"of {context:,} tokens"
    )
    if room <= 0:
        return f"{start}; its weights ({size(weights)}) do not fit on one {gpu}."
    return f"{start}; beside {size(weights)} of weights {fits:,} such requests fit on one {gpu}."
