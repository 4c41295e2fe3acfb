"""The base of every widget: controls, a picture, a sentence, a table; alive in a notebook, whole without a browser.

Python computes, the browser shows strings: an SVG (`svg.to_svg`), one sentence for screen readers, the rows of the
table. A change costs one small message each way, a few kilobytes instead of the 5 MB of an interactive plotly widget
(measured: 10-60 ms in Python), so nothing is downloaded and nothing lags. Where no kernel runs (an exported page,
a printed one) the same picture and numbers stand in the output as plain HTML. Used from week 1 on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anywidget
import plotly.graph_objects as go
import traitlets

from llmcourse.errors import UserError
from llmcourse.viz.controls import Control
from llmcourse.viz.display import table_html
from llmcourse.viz.svg import to_svg
from llmcourse.viz.theme import Table, summary, table

HERE = Path(__file__).parent


def script(name: str) -> str:
    """One module of a widget: the shared helpers, then its own file."""
    return "".join((HERE / part).read_text(encoding="utf-8") for part in ("common.js", name))


@dataclass(frozen=True)
class Snapshot:
    """What a widget shows at one moment."""

    values: dict[str, Any]
    figure: go.Figure
    svg: str
    summary: str
    table: Table


class CourseWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """Controls and a view. Subclasses implement `draw(**values) -> Figure`; tests call `set` and `snapshot`.

    In the page every widget is a `.llmcourse-widget`; a control `name` is the input `.llmcourse-control-NAME`;
    `data-done` counts the changes that have been drawn.
    """

    _esm = script("widget.js")
    _css = (HERE / "widget.css").read_text(encoding="utf-8")

    spec = traitlets.Dict().tag(sync=True)
    raw = traitlets.Dict().tag(sync=True)  # what the controls show, and the number of the change
    view = traitlets.Dict().tag(
        sync=True
    )  # svg, summary, table, error, and the number of the change it answers

    def __init__(
        self,
        title: str,
        controls: Mapping[str, Control],
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        question: str = "",
        answer: str = "",
        lecture: bool = False,
    ) -> None:
        super().__init__()
        self._controls = dict(controls)
        self._presets = {name: dict(preset) for name, preset in (presets or {}).items()}
        self._values = {name: control.value for name, control in self._controls.items()}
        self.spec = {
            "title": title,
            "question": question,
            "answer": answer,
            "lecture": lecture,
            "controls": [{"name": name, **control.spec()} for name, control in self._controls.items()],
            "presets": {
                name: self._encode({**self._values, **preset}) for name, preset in self._presets.items()
            },
        }
        self._figure = self.draw(**self._values)
        self.raw = {**self._encode(self._values), "change": 0}
        self.view = self._shown(0)
        self.observe(self._changed, names="raw")

    def draw(self, **values: Any) -> go.Figure:
        """The figure for these values, with its summary and numbers (`theme.finish`)."""
        raise NotImplementedError

    @property
    def values(self) -> dict[str, Any]:
        """The current value of every control."""
        return dict(self._values)

    def set(self, **values: Any) -> Snapshot:
        """Move controls from Python, as a user would, and return what is then shown.

        Raises:
            UserError: an unknown control, or a value it cannot have, or one the view refuses.
        """
        for name in values:
            if name not in self._controls:
                raise UserError(f"no control {name!r}; this widget has: {', '.join(self._controls)}")
        encoded = self._encode({**self._values, **values})
        self.raw = {**encoded, "change": self.raw["change"] + 1}
        if self.view["error"]:
            raise UserError(self.view["error"])
        return self.snapshot()

    def preset(self, name: str) -> Snapshot:
        """Press a preset's button.

        Raises:
            UserError: no such preset.
        """
        if name not in self._presets:
            raise UserError(f"no preset {name!r}; this widget has: {', '.join(self._presets) or 'none'}")
        return self.set(**self._presets[name])

    def snapshot(self) -> Snapshot:
        """What is shown now."""
        return Snapshot(
            self.values, self._figure, self.view["svg"], self.view["summary"], table(self._figure)
        )

    def _encode(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._controls[name].encode(value) for name, value in values.items()}

    def _changed(self, change: Any) -> None:
        sent = change["new"]
        try:
            values = {name: control.decode(sent.get(name)) for name, control in self._controls.items()}
            figure = self.draw(**values)
        except ValueError as error:  # UserError and what a view's own arithmetic refuses: said in the widget
            self.view = {**self.view, "error": str(error), "change": sent.get("change", 0)}
            return
        self._values, self._figure = values, figure
        self.view = self._shown(sent.get("change", 0))

    def _shown(self, change: int) -> dict[str, Any]:
        said = summary(self._figure) or self.spec["title"]
        numbers = table_html(table(self._figure))
        return {
            "svg": to_svg(self._figure, said),
            "summary": said,
            "table": numbers,
            "error": "",
            "change": change,
        }

    def _repr_mimebundle_(self, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        live = super()._repr_mimebundle_(**arguments)
        data, meta = live if isinstance(live, tuple) else (live or {}, {})
        still = f"{self.view['svg']}<details><summary>Numbers</summary>{self.view['table']}</details>"
        return {**data, "text/html": still, "text/plain": repr(self)}, meta

    def __repr__(self) -> str:
        return f"{self.spec['title']}: {self.view['summary']}"
