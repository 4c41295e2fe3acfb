"""Plays a run step by step: the Gantt with a moving line, the block map, and the block tables, in one widget.

All frames are computed once and sent once; the browser plays them (space: play or pause, arrows: one step), so a busy
kernel cannot freeze the film. It starts paused and stops at the end. Without a browser `set(step=...)` gives the block
map of that step. Weeks 2 to 6.
"""

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go
import traitlets

from llmcourse.engine.events import Event
from llmcourse.errors import UserError
from llmcourse.viz.blocks import block_map, columns_for
from llmcourse.viz.controls import Slider
from llmcourse.viz.gantt import iteration_gantt
from llmcourse.viz.reader import read_timeline
from llmcourse.viz.svg import measure, to_svg
from llmcourse.viz.theme import colour, summary
from llmcourse.viz.timeline import Step, Timeline
from llmcourse.viz.widget import CourseWidget, script

MOST_STEPS = 1500


class EventPlayer(CourseWidget):
    """A film of an event log; in the page a `.llmcourse-player`, its slider `.llmcourse-control-step`."""

    _esm = script("player.js")

    film = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        events: Iterable[Event],
        title: str = "One step at a time",
        step: int | None = None,
        lecture: bool = False,
    ) -> None:
        """Read the log and compute all frames; `step` is where the film stands at first (None: its first step).

        Raises:
            UserError: no step in the log, or too many to play.
        """
        self._events = list(events)
        timeline = read_timeline(self._events)
        if not timeline.steps:
            raise UserError("the log holds no step yet: run the engine first")
        if len(timeline.steps) > MOST_STEPS:
            raise UserError(
                f"the log holds {len(timeline.steps)} steps, the player takes {MOST_STEPS}: run fewer requests"
            )
        numbers = [one.number for one in timeline.steps]
        super().__init__(
            title, {"step": Slider("step", numbers, numbers[0] if step is None else step)}, lecture=lecture
        )
        self.film = _film(self._events, timeline)

    def draw(self, **values: Any) -> go.Figure:
        """The block map at that step."""
        return block_map(self._events, values["step"])


def _film(events: list[Event], timeline: Timeline) -> dict[str, Any]:
    gantt = iteration_gantt(events)
    axes, _, _ = measure(gantt)
    x, y = axes["x"], axes["y"]
    order = {request: index for index, request in enumerate(timeline.lives)}
    last = timeline.steps[-1]
    return {
        "gantt": to_svg(gantt, summary(gantt)),
        "x": [round(x.at(step.number), 1) for step in timeline.steps],
        "y": [min(y.first, y.last), max(y.first, y.last)],
        "owners": [
            {"letter": life.letter, "request": life.request, "colour": colour(index)}
            for index, life in enumerate(timeline.lives.values())
        ],
        "blocks": last.num_blocks,
        "block_size": last.block_size,
        "across": columns_for(last.num_blocks),
        "frames": [_frame(step, timeline, order) for step in timeline.steps],
    }


def _frame(step: Step, timeline: Timeline, order: dict[str, int]) -> dict[str, Any]:
    names = " ".join(f"{timeline.lives[request].letter}+{count}" for request, _, count in step.batch)
    return {
        "step": step.number,
        "tables": [
            [order[request], list(blocks), step.stored.get(request, 0)]
            for request, blocks in step.tables.items()
        ],
        "say": f"Step {step.number}: computes {names or 'nothing'}; {step.used_blocks} of {step.num_blocks} blocks "
        f"used, {step.running} running, {step.waiting} waiting.",
    }
