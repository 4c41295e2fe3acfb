"""Downtime against the length of the request, a curve for each method, on logarithmic axes.

Whoever stops a request and then moves all of its state pays for its length. Whoever moves nearly all of it before
stopping pays for what came last, however long the request is: a flat curve (Sun et al., 2024, figure 10). The guide is
what a decode step takes, below which a client cannot tell a migration from an ordinary step. Week 7.
"""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.series import curve, guide, log_axis
from llmcourse.viz.theme import canvas, finish, seconds


def downtime_curves(lengths: Sequence[int], downtimes: Mapping[str, Sequence[float]], step: float | None = None,
                    title: str = "Downtime of a migration", height: int = 450) -> go.Figure:
    """Seconds of downtime at each of these lengths (tokens) by method; ``step``: seconds of a decode step.

    Raises:
        UserError: no method, or one that has not a positive downtime for every length.
    """
    wrong = [name for name, found in downtimes.items() if len(found) != len(lengths) or min(found, default=0) <= 0]
    if not downtimes or not lengths or wrong:
        raise UserError(f"each method needs a downtime above 0 for each of {len(lengths)} lengths; "
                        f"{', '.join(wrong) or 'there is no method or no length'}")
    figure = canvas(title, height)
    for index, (name, found) in enumerate(downtimes.items()):
        figure.add_trace(curve(name, lengths, [1000 * value for value in found], index))
    values = [1000 * value for found in downtimes.values() for value in found]
    log_axis(figure, "x", lengths, "tokens of the request when it moves", room=1.1)
    log_axis(figure, "y", [*values, *([1000 * step / 1.4] if step else [])], "downtime, ms")
    if step:
        ends = [found[-1] / step for found in downtimes.values()]
        guide(figure, "y", 1000 * step, f"a decode step: {seconds(step)}", below=any(1 <= end < 2 for end in ends))
    return finish(figure, _finding(lengths, downtimes), ("tokens", *(f"{name}, ms" for name in downtimes)),
                  [(n, *(round(1000 * found[k], 2) for found in downtimes.values())) for k, n in enumerate(lengths)])


def growth(found: Sequence[float]) -> float:
    """How many times as long the downtime is at the last length as at the first."""
    return found[-1] / found[0]


def _finding(lengths: Sequence[int], downtimes: Mapping[str, Sequence[float]]) -> str:
    said = [f"{name} {seconds(found[0])} to {seconds(found[-1])} ({growth(found):.1f} times)"
            for name, found in downtimes.items()]
    return f"Downtime from {lengths[0]:,} to {lengths[-1]:,} tokens: " + "; ".join(said) + "."
