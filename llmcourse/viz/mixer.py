"""Chunked-prefill mixer: how each step's token budget was shared, and how long the step took.

Decodes come first, one token each; what the budget leaves goes to prompts, cut into chunks. A whole long prompt in one
step makes one tall bar and one long step; a budget cuts both to the same height. The lower panel is what users feel: a
step's length is the gap between their tokens (Sarathi-Serve, 2024). Weeks 4 and 5.
"""

from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.series import guide, panel_axes, place_panel
from llmcourse.viz.theme import BLUE, INK, KINDS, VERMILLION, canvas, finish, marker, seconds
from llmcourse.viz.timeline import Span, Step, Timeline

SHOWN = 60  # steps; more bars than that cannot be read


def chunk_mixer(
    events: Iterable[Event],
    budget: int | None = None,
    first: int | None = None,
    title: str = "What each step's tokens were spent on",
) -> go.Figure:
    """Stacked bars of decode and prefill tokens in up to 60 steps, from step `first` on, and the steps' lengths.

    `first` is by default a little before the step with the most prefill tokens; `budget` (tokens) is drawn as a line.
    The sentence covers all steps of the run, the picture and the table those that fit.

    Raises:
        UserError: no steps in the log, or none from `first` on.
    """
    timeline = read_timeline(events)
    steps = timeline.steps
    if not steps:
        raise UserError("the log holds no step yet: run the engine first")
    spent = _spent(timeline)
    start = _start(steps, spent) if first is None else first
    shown = [step for step in steps if step.number >= start][:SHOWN]
    if not shown:
        raise UserError(f"no step from {start} on; the log holds steps {steps[0].number} to {steps[-1].number}")
    figure = canvas(title, 560, barmode="overlay")
    place_panel(figure, 1, (0, 1), (0.45, 1))
    place_panel(figure, 2, (0, 1), (0, 0.32))
    _stacks(figure, timeline, shown, spent)
    _lengths(figure, shown)
    _axes(figure, shown, budget)
    columns = ("step", "decode tokens", "prefill tokens", "prompts", "duration (s)")
    rows = [(s.number, *_counts(spent[s.number]), _prompts(timeline, spent[s.number]), s.end - s.start) for s in shown]
    return finish(figure, _finding(steps, spent, budget), columns, rows)


def _spent(timeline: Timeline) -> dict[int, list[Span]]:
    """By step: the spans that got tokens in it, decodes before prefills, each in order of arrival."""
    order = {request: place for place, request in enumerate(timeline.lives)}
    spent: dict[int, list[Span]] = {step.number: [] for step in timeline.steps}
    for span in timeline.spans:
        if span.tokens:
            spent[span.first].append(span)
    return {n: sorted(found, key=lambda s: (s.kind != "decode", order[s.request])) for n, found in spent.items()}


def _counts(spans: Sequence[Span]) -> tuple[int, int]:
    """Decode tokens, and all others."""
    decodes = sum(span.tokens for span in spans if span.kind == "decode")
    return decodes, sum(span.tokens for span in spans) - decodes


def _start(steps: Sequence[Step], spent: dict[int, list[Span]]) -> int:
    if len(steps) <= SHOWN:
        return steps[0].number
    busiest = max(steps, key=lambda step: _counts(spent[step.number])[1]).number
    return min(max(steps[0].number, busiest - SHOWN // 3), steps[-1].number - SHOWN + 1)


def _stacks(figure: go.Figure, timeline: Timeline, shown: Sequence[Step], spent: dict[int, list[Span]]) -> None:
    bars: dict[str, list[tuple[int, int, int, str]]] = {"decode": [], "prefill": [], "recompute": []}
    for step in shown:
        decodes, _ = _counts(spent[step.number])
        height = decodes
        if decodes:
            bars["decode"].append((step.number, 0, decodes, f"{decodes} decodes"))
        for span in spent[step.number]:
            if span.kind != "decode":
                bars[span.kind].append((step.number, height, span.tokens, timeline.lives[span.request].letter))
                height += span.tokens
    for kind, found in bars.items():
        if found:
            figure.add_trace(_bars(kind, found))


def _bars(kind: str, found: Sequence[tuple[int, int, int, str]]) -> go.Bar:
    style = KINDS[kind]
    return go.Bar(
        x=[number for number, *_ in found], base=[base for _, base, _, _ in found], y=[n for _, _, n, _ in found],
        width=0.84, name=f"{kind} tokens", marker=marker(style.colour, style.pattern, 0.7), showlegend=True,
        text=["" if kind == "decode" else text for *_, text in found], textposition="inside", textangle=0,
        insidetextanchor="middle", constraintext="none", insidetextfont={"color": INK, "size": 14, "weight": 600},
        hovertext=[f"step {number}: {text}, {n} {kind} tokens" for number, _, n, text in found], hoverinfo="text",
    )


def _lengths(figure: go.Figure, shown: Sequence[Step]) -> None:
    long = [1000 * (step.end - step.start) for step in shown]
    figure.add_trace(go.Bar(
        x=[step.number for step in shown], y=long, width=0.84, name="length of the step", showlegend=False,
        marker=marker(BLUE, "", 0.7), hovertext=[f"{value:.3g} ms" for value in long], hoverinfo="text",
        **panel_axes(2),
    ))


def _axes(figure: go.Figure, shown: Sequence[Step], budget: int | None) -> None:
    bounds = [shown[0].number - 0.6, shown[-1].number + 0.6]
    most = max(sum(count for _, _, count in step.batch) for step in shown)
    longest = max(1000 * (step.end - step.start) for step in shown)
    figure.update_layout(
        xaxis={"range": bounds, "showticklabels": False, "showgrid": False},
        yaxis={"range": [0, 1.14 * max(most, budget or 0)], "title": {"text": "tokens"}},
        xaxis2={"range": bounds, "title": {"text": "step"}, "showgrid": False},
        yaxis2={"range": [0, 1.1 * longest or 1.0], "title": {"text": "step (ms)"}, "nticks": 4},
    )
    if budget is not None:
        guide(figure, "y", budget, f"budget {budget:,} tokens", VERMILLION)


def _prompts(timeline: Timeline, spans: Sequence[Span]) -> str:
    return " ".join(f"{timeline.lives[span.request].letter}+{span.tokens}" for span in spans if span.kind != "decode")


def _finding(steps: Sequence[Step], spent: dict[int, list[Span]], budget: int | None) -> str:
    totals = {step.number: sum(_counts(spent[step.number])) for step in steps}
    mixed = sum(all(_counts(spent[step.number])) for step in steps)
    longest = max(steps, key=lambda step: step.end - step.start)
    lengths = sorted(step.end - step.start for step in steps)
    decodes, prefills = _counts(spent[longest.number])
    over = "" if budget is None else f"; at most {max(totals.values()):,} of a budget of {budget:,} tokens are used"
    return (
        f"{mixed} of {len(steps)} steps compute prompts and decodes together; the longest, step {longest.number}, "
        f"takes {seconds(longest.end - longest.start)} for {decodes} decode and {prefills:,} prefill tokens, the "
        f"median step {seconds(lengths[len(lengths) // 2])}{over}."
    )
