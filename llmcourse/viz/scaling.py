"""A fleet that grows and shrinks: load, instances and who waits, one above the other over the same time.

The line is the number of instances that take requests, and changes only when one is ready or one is drained. Hatched
above it stands what is paid for and serves nobody new: instances that still start (a cold start) and those that are
being emptied. So what a rule's lag costs is seen twice: as a hill of people who wait, and as hatching. Week 10.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.rental import Lease, most_at_once, rent
from llmcourse.viz.series import curve, heading, headroom, panel_axes, place_panel
from llmcourse.viz.theme import BLUE, ORANGE, PURPLE, SKY, VERMILLION, canvas, finish, marker, seconds

BINS = 60
Steps = list[tuple[float, int]]          # (from when on, how many)


def scaling_steps(leases: Iterable[Lease], arrivals: Sequence[float], ttfts: Sequence[float],
                  until: float | None = None, title: str = "A fleet over time") -> go.Figure:
    """Load (requests/s), instances as steps, and requests that wait for their first token.

        scaling_steps(driver.fleet.leases.values(), table["arrival"], table["ttft"], until=driver.now)

    ``arrivals`` in seconds, ``ttfts`` in seconds after them (NaN: it never came). ``until``: the end of the picture.

    Raises:
        UserError: no instance, no request, or not as many times to a first token as arrivals.
    """
    rented, came, first = list(leases), np.asarray(arrivals, float), np.asarray(ttfts, float)
    if not rented or not len(came) or len(came) != len(first):
        raise UserError(f"{len(rented)} instances, {len(came)} arrivals and {len(first)} times to a first token: give "
                        "at least one of each, and as many times as arrivals")
    end = float(until if until is not None else np.nanmax(came + first))
    figure = canvas(title, 760, barmode="overlay")
    top = headroom(figure)
    for panel, domain in enumerate(((0.8, top), (0.35, 0.71), (0, 0.26)), 1):
        place_panel(figure, panel, (0, 1), domain)
    load = _load(figure, came, end)
    serving, starting, draining = (counted(rented, end, *ends) for ends in (_SERVES, _STARTS, _DRAINS))
    _instances(figure, serving, starting, draining, end)
    waiting = _steps([(time, 1) for time in came] +
                     [(time, -1) for time in came + np.where(np.isnan(first), np.inf, first) if time <= end])
    _line(figure, 3, "wait for their first token", _coarse(waiting, end), end, VERMILLION)
    headings = ("load: requests a second", "instances", "requests that wait for their first token, at most")
    for panel, text in enumerate(headings, 1):
        heading(figure, panel, text)
        number = "" if panel == 1 else str(panel)
        axis = {"range": [0, end], "title": {"text": "time (s)" if panel == 3 else ""}}
        figure.update_layout({f"xaxis{number}": axis, f"yaxis{number}": {"rangemode": "tozero", "nticks": 5}})
    return finish(figure, _finding(rented, load, serving, waiting, first, end),
                  ("instance", "started (s)", "ready (s)", "drained (s)", "ended (s)"),
                  [(lease.number, *(_shown(time) for time in (lease.started, lease.ready, lease.drained, lease.ended)))
                   for lease in rented])


Moment = Callable[[Lease], float | None]
_SERVES: tuple[Moment, Moment] = (lambda lease: lease.ready,
                                  lambda lease: lease.drained if lease.drained is not None else lease.ended)
_STARTS: tuple[Moment, Moment] = (lambda lease: lease.started,
                                  lambda lease: lease.ready if lease.ready is not None else lease.ended)
_DRAINS: tuple[Moment, Moment] = (lambda lease: lease.drained, lambda lease: lease.ended)


def counted(leases: Sequence[Lease], end: float, start: Moment, stop: Moment) -> Steps:
    """How many leases are between two of their moments (None: not yet), as steps up to ``end`` (s)."""
    changes: list[tuple[float, int]] = []
    for lease in leases:
        begun, over = start(lease), stop(lease)
        if begun is not None and begun <= end:
            changes.append((begun, 1))
            if over is not None and over <= end:
                changes.append((over, -1))
    return _steps(changes)


def _steps(changes: Iterable[tuple[float, int]]) -> Steps:
    """The running sum of changes, one step for each moment; 0 before."""
    found: Steps = [(0.0, 0)]
    for time, change in sorted((max(0.0, float(time)), change) for time, change in changes):
        if time == found[-1][0]:
            found[-1] = (time, found[-1][1] + change)
        else:
            found.append((time, found[-1][1] + change))
    return found


def _coarse(steps: Steps, end: float, parts: int = 3 * BINS) -> Steps:
    """The most in each of so many parts of the time: a picture has no room for a thousand steps."""
    times, counts = np.array([time for time, _ in steps]), np.array([count for _, count in steps])
    edges = np.linspace(0, end, parts + 1)
    first = np.maximum(np.searchsorted(times, edges, side="right") - 1, 0)
    return [(float(a), int(counts[low:max(low, high) + 1].max())) for a, low, high in
            zip(edges[:-1], first[:-1], np.searchsorted(times, edges[1:], side="left") - 1, strict=True)]


def _at(steps: Steps, time: float) -> int:
    place = int(np.searchsorted([when for when, _ in steps], time, side="right"))
    return steps[place - 1][1] if place else 0


def _load(figure: go.Figure, came: np.ndarray, end: float) -> np.ndarray:
    counts, edges = np.histogram(came, bins=BINS, range=(0, end))
    rates = counts * BINS / end
    figure.add_trace(go.Bar(
        x=((edges[:-1] + edges[1:]) / 2).tolist(), y=rates.tolist(), width=[end / BINS] * BINS, name="arrivals",
        marker=marker(SKY, "", 0.6), showlegend=False, hoverinfo="text",
        hovertext=[f"{rate:.2f} requests/s from {a:.0f} to {b:.0f} s"
                   for rate, (a, b) in zip(rates, pairwise(edges), strict=True)], **panel_axes(1)))
    return rates


def _instances(figure: go.Figure, serving: Steps, starting: Steps, draining: Steps, end: float) -> None:
    """The line of those that take requests; above it those that start, above these those that are emptied."""
    moments = sorted({time for steps in (serving, starting, draining) for time, _ in steps} | {end})
    cells = [(a, b, *(_at(steps, a) for steps in (serving, starting, draining))) for a, b in pairwise(moments)]
    looks = (("start: paid, and serve nobody yet", ORANGE, "/"), ("are being emptied: nothing new", PURPLE, "x"))
    for kind, (name, paint, pattern) in enumerate(looks):
        shown = [(a, b, base + (coming if kind else 0), gone if kind else coming)
                 for a, b, base, coming, gone in cells if (gone if kind else coming)]
        figure.add_trace(go.Bar(
            x=[(a + b) / 2 for a, b, _, _ in shown], width=[b - a for a, b, _, _ in shown],
            base=[base for _, _, base, _ in shown], y=[count for *_, count in shown], name=name, showlegend=True,
            marker=marker(paint, pattern, 0.6), hoverinfo="text",
            hovertext=[f"{count} {name}, {a:.0f} to {b:.0f} s" for a, b, _, count in shown], **panel_axes(2)))
    _line(figure, 2, "take requests", serving, end, BLUE)


def _line(figure: go.Figure, panel: int, name: str, steps: Steps, end: float, paint: str) -> None:
    times, counts = [time for time, _ in steps] + [end], [count for _, count in steps] + [steps[-1][1]]
    figure.add_trace(curve(name, times, counts, 0, False, line_shape="hv", showlegend=panel == 2,
                           line={"color": paint, "width": 3 if panel == 2 else 2}, **panel_axes(panel)))


def _finding(leases: Sequence[Lease], load: np.ndarray, serving: Steps, waiting: Steps, first: np.ndarray,
             end: float) -> str:
    starts = [lease.ready - lease.started for lease in leases if lease.ready and lease.ready > lease.started]
    gone = [lease.ended - lease.drained for lease in leases if lease.ended is not None and lease.drained is not None]
    counts = [count for _, count in serving]
    said = [f"Load up to {load.max():.2g} requests/s",
            f"{min(counts)} to {max(counts)} instances take requests",
            f"{len(starts)} started ({seconds(float(np.mean(starts)))} each)" if starts else "none started",
            f"{len(gone)} emptied ({seconds(float(np.mean(gone)))} each)" if gone else "none emptied",
            f"at most {max(count for _, count in waiting)} wait for their first token",
            f"P99 TTFT {seconds(float(percentile(first[~np.isnan(first)], 99)))}"]
    return "; ".join(said) + (f"; {rent(leases, end).instance_hours:.2f} instance-hours, at most "
                              f"{most_at_once(leases, end)} machines at once.")


def _shown(time: float | None) -> object:
    return "" if time is None else round(time, 1)
