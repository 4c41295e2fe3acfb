"""Next-token distribution: what the model offers, and what temperature, top-k and top-p leave of it.

Bars in pairs: the model's own probabilities, and those after the sampling settings. Temperature reshapes (below 1 it
sharpens, above 1 it flattens), top-k keeps a number of tokens, top-p keeps the smallest set whose probability reaches
p, the crossing token included (Holtzman et al., 2020). Computed here in plain numbers, to be checked. Week 1.
"""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.attention import visible
from llmcourse.viz.theme import BLUE, GREY, canvas, finish, marker


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Probabilities of the logits at a temperature; at 0 the largest takes all."""
    if temperature <= 0:
        best = max(range(len(logits)), key=lambda i: logits[i])
        return [1.0 if i == best else 0.0 for i in range(len(logits))]
    top = max(logits)
    weights = [math.exp((value - top) / temperature) for value in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def reshape(
    logits: Sequence[float], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> list[float]:
    """Probabilities after temperature, then top-k (0: off), then top-p (1: off), renormalised."""
    shares = softmax(logits, temperature)
    order = sorted(range(len(shares)), key=lambda i: (-shares[i], i))
    if top_k > 0:
        order = order[:top_k]
    mass = sum(shares[i] for i in order)
    kept, reached = [], 0.0
    for i in order:
        kept.append(i)
        reached += shares[i] / mass
        if reached >= top_p - 1e-12:
            break
    mass = sum(shares[i] for i in kept)
    inside = set(kept)
    return [share / mass if i in inside else 0.0 for i, share in enumerate(shares)]


def next_token_distribution(
    tokens: Sequence[str],
    logits: Sequence[float],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    show: int = 12,
    title: str = "Next token: before and after the sampling settings",
) -> go.Figure:
    """Bars for the `show` likeliest of V tokens: `tokens` are V texts, `logits` V numbers.

    Raises:
        UserError: lengths differ, or a setting is out of range.
    """
    if len(tokens) != len(logits) or not tokens:
        raise UserError(
            f"{len(tokens)} token texts for {len(logits)} logits: pass one text for each, at least one"
        )
    if not (temperature >= 0 and top_k >= 0 and 0 < top_p <= 1):
        raise UserError(
            f"temperature={temperature}, top_k={top_k}, top_p={top_p}: "
            "temperature and top_k are at least 0, top_p is above 0 and at most 1"
        )
    before, after = softmax(logits), reshape(logits, temperature, top_k, top_p)
    best = sorted(range(len(tokens)), key=lambda i: (-before[i], i))[:show]
    figure = canvas(title, 420, barmode="overlay")
    for name, shares, paint, pattern, shift in (
        ("model (temperature 1)", before, GREY, ".", -0.2),
        ("after the settings", after, BLUE, "", 0.2),
    ):
        figure.add_trace(
            go.Bar(
                x=[place + shift for place in range(len(best))],
                y=[shares[i] for i in best],
                width=0.38,
                name=name,
                marker=marker(paint, pattern),
                constraintext="none",
                textangle=0,
                textfont={"size": 14},
                text=[f"{shares[i]:.0%}" if pattern == "" and shares[i] else "" for i in best],
                textposition="outside",
                hovertext=[f"{visible(tokens[i])}: {shares[i]:.3f}" for i in best],
                hoverinfo="text",
            )
        )
    figure.update_xaxes(
        tickvals=list(range(len(best))), ticktext=[visible(tokens[i]) for i in best], showgrid=False
    )
    figure.update_yaxes(range=[0, 1.08], tickformat=".0%", title_text="probability")
    rows = [(visible(tokens[i]), f"{logits[i]:.3f}", f"{before[i]:.4f}", f"{after[i]:.4f}") for i in best]
    return finish(figure, _finding(tokens, before, after), ("token", "logit", "probability", "after"), rows)


def entropy(shares: Sequence[float]) -> float:
    """Uncertainty of a distribution in bits."""
    return 0.0 - sum(share * math.log2(share) for share in shares if share > 0)


def _finding(tokens: Sequence[str], before: Sequence[float], after: Sequence[float]) -> str:
    best = max(range(len(after)), key=lambda i: after[i])
    kept = sum(share > 0 for share in after)
    return (
        f"{kept} of {len(tokens)} tokens can still be drawn; {visible(tokens[best])} goes from {before[best]:.1%} "
        f"to {after[best]:.1%}; the uncertainty goes from {entropy(before):.2f} to {entropy(after):.2f} bits."
    )
