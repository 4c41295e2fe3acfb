"""A regime map: one table whose rows are points of load, and how it is printed. Used by `benchmarks/decide.py`.

A figure comes from several seeds: a cell is a `Cell`, mean and spread (half the range from least to most). What was not
measured is None, and is printed as a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

Row = dict[str, Any]


class Cell(NamedTuple):
    """Mean over the seeds, and half of what lies between the least and the most."""

    mean: float
    spread: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Cell:
        """Of one figure for each seed; ValueError for none."""
        return cls(sum(values) / len(values), (max(values) - min(values)) / 2, len(values))

    def __str__(self) -> str:
        """Three digits that count, and the spread behind them."""
        return f"{_digits(self.mean, 3)} ±{_digits(self.spread, 2)}" if self.seeds > 1 else _digits(self.mean, 3)


@dataclass
class Map:
    """``rows`` name a value for each column: text, a number, a `Cell` or None. ``note`` says what to look at."""

    title: str
    note: str
    columns: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    verdicts: dict[str, Any] = field(default_factory=dict)    # what was asked of it, and what came out

    def __str__(self) -> str:
        """A table for a terminal."""
        table = [list(self.columns), *([_text(row.get(column)) for column in self.columns] for row in self.rows)]
        wide = [max(len(line[i]) for line in table) for i in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(wide[i]) if i == 0 else cell.rjust(wide[i]) for i, cell in enumerate(line))
                 for line in table]
        asked = [f"  {name}: {_text(value)}" for name, value in self.verdicts.items()]
        return "\n".join([self.title, "", *(line.rstrip() for line in lines), *asked, "", self.note, ""])

    def as_json(self) -> dict[str, Any]:
        """The same, for a file: a `Cell` is ``[mean, spread, seeds]``."""
        return asdict(self)


Maker = Callable[[Sequence[int], bool], Map]                  # of seeds, and whether to be quick


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return _digits(value, 4) if isinstance(value, float) else str(value)


def _digits(value: float, many: int) -> str:
    """So many digits that count, and no exponent for what people write out."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.{many}g}"
