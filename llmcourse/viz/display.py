"""Shows a figure with its alternative text: interactive where plotly is, a static picture everywhere else.

`show` hands JupyterLab the plotly figure (7 kB, zoom and hover, drawn by the extension that ships with plotly), and
exported pages the static SVG of the same figure. Below it a foldable line holds the alternative text and the table of
the numbers, for readers who do not see the picture and for all who want the values. Of 100,000 notebooks 99.8 % gave no
figure a text (Potluri et al., 2023); here a figure without one is refused. Used in every week.
"""

import json
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from llmcourse.errors import UserError
from llmcourse.viz.svg import to_svg
from llmcourse.viz.theme import TEMPLATE, Table, table

PLOTLY = "application/vnd.plotly.v1+json"
CONFIG = {"modeBarButtonsToRemove": ["sendChartToCloud"], "displaylogo": False, "responsive": True}
MAX_ROWS = 200


@dataclass(frozen=True)
class Picture:
    """A figure, its alternative text, and what a notebook needs to show both."""

    figure: go.Figure
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        figure = json.loads(self.figure.to_json() or "{}")
        return {
            PLOTLY: {"data": figure["data"], "layout": figure["layout"], "config": CONFIG},
            "text/html": self._still(),
            "text/plain": self.alt,
        }

    def _still(self) -> str:
        try:
            return to_svg(self.figure, self.alt)
        except UserError:  # a kind of chart that only plotly draws: pages without it have the words
            return f'<p role="img">{escape(self.alt)}</p>'

    def __repr__(self) -> str:
        return self.alt


@dataclass(frozen=True)
class Numbers:
    """The alternative text and the numbers of a picture, folded."""

    alt: str
    table: Table

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        body = f"<p>{escape(self.alt)}</p>" + (table_html(self.table) if self.table.columns else "")
        html = (
            f'<details class="llmcourse-numbers"><summary>Description and numbers</summary>{body}</details>'
        )
        return {"text/html": html, "text/plain": self.alt}


def table_html(numbers: Table) -> str:
    """An HTML table with a caption and column headers; at most 200 rows, and it says so."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in numbers.columns)
    rows = numbers.rows[:MAX_ROWS]
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows)
    left = f", first {MAX_ROWS} of {len(numbers.rows)} rows" if len(numbers.rows) > MAX_ROWS else ""
    caption = f"<caption>{escape(numbers.caption)}{left}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def picture(figure: go.Figure, *, alt: str) -> Picture:
    """The figure in the course's look, tied to its alternative text.

    Raises:
        UserError: `alt` is empty.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise UserError(
            "show(figure, alt=...) needs alternative text: one sentence that says what the figure shows"
        )
    if figure.layout.template.layout.colorway != TEMPLATE.layout.colorway:
        figure = go.Figure(figure).update_layout(template=TEMPLATE)
    return Picture(figure, alt.strip())


def show(figure: go.Figure, *, alt: str) -> None:
    """Display a figure in a notebook, with `alt` (one sentence: the finding) and a foldable table of its numbers.

    Raises:
        UserError: `alt` is empty.
    """
    from IPython.display import display

    chosen = picture(figure, alt=alt)
    display(chosen, Numbers(chosen.alt, table(figure)))
