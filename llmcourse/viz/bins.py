"""Closed batches, a bar for each: what its requests say on average, and what they wait for their longest.

A batch that must end together lasts as long as its longest answer. The lower part of a bar is the mean length in the
batch, the work that was wanted; the upper part is padding. More bins of like lengths make the upper part small, as far
as the predictions that sort requests into bins are right: one long answer in a bin of short ones spoils its batch.
Guldogan et al., 2024 (multi-bin batching). Week 9.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.policies.multibin import bin_edges
from llmcourse.viz.series import guide
from llmcourse.viz.theme import GREY, INK, SKY, canvas, finish, marker


@dataclass(frozen=True)
class Batch:
    """Requests of one bin (from 0) that are served together; ``lengths`` in tokens."""

    bin: int
    lengths: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Steps it takes."""
        return max(self.lengths)

    @property
    def mean(self) -> float:
        """Steps a request of it wants."""
        return sum(self.lengths) / len(self.lengths)


def closed_batches(lengths: Sequence[int], said: Sequence[float], bins: int, size: int) -> list[Batch]:
    """Full batches, bin by bin, each bin in order of arrival; who is left over in a bin is left out.

    Edges part what was ``said`` into bins of equal shares.

    Raises:
        UserError: lists of different lengths, or no bin with a full batch.
    """
    if len(lengths) != len(said) or size < 1:
        raise UserError(f"{len(lengths)} lengths, {len(said)} predictions, batches of {size}; every length needs a "
                        "prediction, and a batch at least 1 request")
    edges = bin_edges(said, bins)
    members: list[list[int]] = [[] for _ in range(bins)]
    for length, expected in zip(lengths, said, strict=True):
        members[bisect_right(edges, expected)].append(int(length))
    made = [Batch(place, tuple(queue[start:start + size])) for place, queue in enumerate(members)
            for start in range(0, len(queue) - size + 1, size)]
    if not made:
        raise UserError(f"{len(lengths)} requests in {bins} bins fill no batch of {size}; bring more, or fewer bins")
    return made


def tokens_per_step(batches: Sequence[Batch]) -> float:
    """Tokens that were wanted, for each step that was computed."""
    return sum(sum(batch.lengths) for batch in batches) / sum(batch.longest for batch in batches)


def batch_bins(lengths: Sequence[int], said: Sequence[float], bins: int, size: int,
               title: str = "", height: int = 440) -> go.Figure:
    """The closed batches of these requests: bars as high as they last, filled as far as they are of use.

    The finding names tokens a step, beside those of a single bin. Raises UserError as `closed_batches`.
    """
    batches, one = closed_batches(lengths, said, bins, size), closed_batches(lengths, said, 1, size)
    rate, base = tokens_per_step(batches), tokens_per_step(one)
    figure = canvas(title or f"Closed batches of {size}, {bins} bin{'s' * (bins > 1)}", height)
    places = list(range(len(batches)))
    tips = [f"bin {b.bin + 1}: {b.mean:.0f} tokens on average, the longest {b.longest}" for b in batches]
    for name, base_y, values, paint, pattern in (
            ("mean length in the batch", [0.0] * len(batches), [b.mean for b in batches], SKY, ""),
            ("waiting for the longest", [b.mean for b in batches], [b.longest - b.mean for b in batches], GREY, "/")):
        figure.add_trace(go.Bar(x=places, y=values, base=base_y, width=0.9, name=name, hoverinfo="text",
                                hovertext=tips, marker=marker(paint, pattern, 0.6)))
    top = 1.12 * max(batch.longest for batch in batches)
    figure.update_layout(barmode="overlay", yaxis={"range": [0, top], "title": {"text": "tokens = steps"}},
                         xaxis={"range": [-0.7, len(batches) - 0.3], "tickvals": [], "showgrid": False,
                                "title": {"text": "batches, bin by bin"}})
    for place, batch in enumerate(batches):
        if place == 0 or batches[place - 1].bin != batch.bin:
            guide(figure, "x", place - 0.5, f"bin {batch.bin + 1}", INK)
    share = 1 - sum(b.mean for b in batches) / sum(b.longest for b in batches)
    finding = (f"{bins} bin{'s' * (bins > 1)}: {rate:.1f} tokens a step in batches of {size}, {rate / base:.2f} times "
               f"those of one bin; {share:.0%} of a request's steps are spent waiting for the longest.")
    return finish(figure, finding, ("bin", "mean length", "longest"),
                  [(b.bin + 1, round(b.mean, 1), b.longest) for b in batches])
