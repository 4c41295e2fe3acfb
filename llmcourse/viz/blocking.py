"""Blocking: what one long request does to everybody who is already running.

Each dot is a gap between two tokens of a running request. When a long prompt is computed whole, all of them wait for it
and the dots jump: that is head-of-line blocking inside a batch, and a mean over the run does not show it. Computed in
chunks the same prompt costs every step a little, and its own first token comes later (Sarathi-Serve, 2024). Weeks 4, 5.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.viz.samples import Samples
from llmcourse.viz.series import SYMBOLS, guide, heading, paint, panel_axes, place_panel
from llmcourse.viz.theme import INK, VERMILLION, canvas, finish, seconds

DOTS = 700  # in all panels; more are thinned, the longest of their neighbours stay
Gap = tuple[float, float, str]  # when it ended (s), its length (s), whose


@dataclass(frozen=True)
class Stall:
    """One configuration: the gaps of everybody else, and the long request's milestones (s; None: never)."""

    name: str
    gaps: list[Gap]
    arrival: float
    first_token: float | None
    prompt_tokens: int

    @property
    def before(self) -> float:
        """Median gap of those who ran before the long request came; of all gaps if nobody did."""
        calm = [gap for time, gap, _ in self.gaps if time <= self.arrival] or [gap for _, gap, _ in self.gaps]
        return float(np.median(calm))

    @property
    def worst(self) -> Gap:
        """The longest gap that ended after the long request came."""
        late = [gap for gap in self.gaps if gap[0] > self.arrival] or self.gaps
        return max(late, key=lambda gap: gap[1])

    @property
    def ttft(self) -> float | None:
        """The long request's own time to first token."""
        return None if self.first_token is None else self.first_token - self.arrival


def blocking_view(
    runs: Iterable[Event] | Mapping[str, Iterable[Event]],
    watch: str | None = None,
    slo: float | None = None,
    title: str = "One long request, and the time between everybody else's tokens",
) -> go.Figure:
    """Gaps between tokens over time for an event log, or for several by name, one panel each.

    `watch` is the long request's id (None: the longest prompt); `slo` a limit of the gaps, in seconds.

    Raises:
        UserError: no such request, or nobody else who got two tokens.
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    stalls = [_stall(name, list(events), watch) for name, events in named.items()]
    if not stalls:
        raise UserError("no run to look at: pass engine.events, or {name: engine.events}")
    figure = canvas(title, 150 + 210 * len(stalls))
    share = 1 / len(stalls)
    for panel in range(1, len(stalls) + 1):
        bottom = 1 - panel * share + (0.13 * share if panel < len(stalls) else 0)
        place_panel(figure, panel, (0, 1), (bottom, 1 - (panel - 1 + 0.13) * share))
    _axes(figure, stalls)
    for panel, stall in enumerate(stalls, 1):
        figure.add_trace(_dots(stall, panel, DOTS // len(stalls)))
        _marks(figure, stall, panel, slo)
    columns = ("run", "gaps", "median before (s)", "P99 gap (s)", "longest after (s)", "whose", "its TTFT (s)")
    return finish(figure, _finding(stalls), columns, [_row(stall) for stall in stalls])


def _stall(name: str, events: list[Event], watch: str | None) -> Stall:
    prompts = {str(e.request): (e.data["prompt_tokens"], e.time) for e in events if e.kind == "QUEUED"}
    if watch is not None and watch not in prompts:
        raise UserError(f"request {watch!r} is not in the log {name}; it has {', '.join(list(prompts)[:12])}")
    if not prompts:
        raise UserError("the log holds no request: add one to the engine first")
    chosen = watch if watch is not None else max(prompts, key=lambda request: prompts[request][0])
    last: dict[str, float] = {}
    gaps: list[Gap] = []
    first_token = None
    for event in events:
        if event.kind == "NEW_TOKENS":
            request = str(event.request)
            if request == chosen:
                first_token = event.time if first_token is None else first_token
            elif request in last:
                gaps.append((event.time, event.time - last[request], request))
            last[request] = event.time
    if not gaps:
        raise UserError(f"nobody but {chosen} got two tokens: there are no gaps to look at; let others run beside it")
    return Stall(name, gaps, prompts[chosen][1], first_token, prompts[chosen][0])


def _axes(figure: go.Figure, stalls: list[Stall]) -> None:
    """The same scales in all panels: only then do they compare."""
    times = [gap[0] for stall in stalls for gap in stall.gaps]
    times += [time for s in stalls for time in (s.arrival, s.first_token) if time is not None]
    tallest = max(gap[1] for stall in stalls for gap in stall.gaps)
    room = 0.03 * (max(times) - min(times)) or 0.5
    for panel in range(1, len(stalls) + 1):
        number, last = "" if panel == 1 else str(panel), panel == len(stalls)
        figure.update_layout({
            f"xaxis{number}": {"range": [min(times) - room, max(times) + room], "showticklabels": last,
                               "title": {"text": "time (s)" if last else ""}},
            f"yaxis{number}": {"range": [0, 1150 * tallest], "nticks": 5, "title": {"text": "gap (ms)"}},
        })


def _dots(stall: Stall, panel: int, most: int) -> go.Scatter:
    shown = _thin(stall.gaps, most)
    return go.Scatter(
        x=[time for time, _, _ in shown], y=[1000 * gap for _, gap, _ in shown], mode="markers",
        name=stall.name or "gap between tokens", showlegend=False, **panel_axes(panel),
        marker={"symbol": SYMBOLS[(panel - 1) % len(SYMBOLS)], "size": 7, "color": paint(panel - 1)},
        hovertext=[f"{who}: {seconds(gap)}" for _, gap, who in shown], hoverinfo="text",
    )


def _thin(gaps: list[Gap], most: int) -> list[Gap]:
    every = -(-len(gaps) // most)
    return [max(gaps[k : k + every], key=lambda gap: gap[1]) for k in range(0, len(gaps), every)]


def _marks(figure: go.Figure, stall: Stall, panel: int, slo: float | None) -> None:
    number = "" if panel == 1 else str(panel)
    guide(figure, f"x{number}", stall.arrival, f"{stall.prompt_tokens:,} tokens arrive" if panel == 1 else "", INK)
    if stall.first_token is not None:
        guide(figure, f"x{number}", stall.first_token, "", VERMILLION)
    if slo is not None:
        guide(figure, f"y{number}", 1000 * slo, f"SLO {seconds(slo)}", VERMILLION)
    own = "no first token" if stall.ttft is None else f"its own first token after {seconds(stall.ttft)} (second line)"
    heading(figure, panel, f"{stall.name + ': ' if stall.name else ''}longest gap {seconds(stall.worst[1])}; {own}")


def _row(stall: Stall) -> tuple[object, ...]:
    spread = Samples(np.array([gap for _, gap, _ in stall.gaps]), np.ones(len(stall.gaps), dtype=int))
    _, longest, whose = stall.worst
    own = "" if stall.ttft is None else stall.ttft
    return (stall.name, spread.count, stall.before, spread.percentile(99), longest, whose, own)


def _finding(stalls: list[Stall]) -> str:
    said = []
    for stall in stalls:
        times = stall.worst[1] / stall.before if stall.before > 0 else float("inf")
        own = "" if stall.ttft is None else f", its own first token comes after {seconds(stall.ttft)}"
        said.append(
            f"{stall.name + ': ' if stall.name else ''}a prompt of {stall.prompt_tokens:,} tokens stretches the gap "
            f"between tokens from {seconds(stall.before)} to at most {seconds(stall.worst[1])} ({times:.1f} times){own}"
        )
    return ". ".join(said) + "."
