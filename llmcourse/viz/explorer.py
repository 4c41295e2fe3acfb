"""An explorer: any view with controls around it, in one line.

`Explorer("KV memory", view, {"context": Slider(...)})` draws `view(context=...)`, and draws it again at every change.
The view stays a pure function that tests call directly; the explorer only passes values. Presets, a question to
think about first and its folded answer make it a small experiment. Used from week 1 on.
"""

from collections.abc import Callable, Mapping
from typing import Any

import plotly.graph_objects as go

from llmcourse.viz.controls import Control
from llmcourse.viz.widget import CourseWidget


class Explorer(CourseWidget):
    """A widget around `view(**values) -> Figure`, one control for each of its arguments."""

    def __init__(
        self,
        title: str,
        view: Callable[..., go.Figure],
        controls: Mapping[str, Control],
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        question: str = "",
        answer: str = "",
        lecture: bool = False,
    ) -> None:
        self._draw = view
        super().__init__(title, controls, presets, question, answer, lecture)

    def draw(self, **values: Any) -> go.Figure:
        """The view's figure for these values."""
        return self._draw(**values)
