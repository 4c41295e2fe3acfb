"""One row of a trace file, read cell by cell: each cell is what it should be, or the error says where it is not.

A trace with one bad value poisons every percentile made from it, so nothing is guessed or skipped: the message names
file, row (the header is row 1), column, what stood there and what would have been right. Week 4.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from llmcourse.errors import UserError


@dataclass(frozen=True)
class Row:
    """The cells of row `number` of `file`, by column; text from a CSV, any JSON value from JSONL."""

    file: Path
    number: int
    cells: Mapping[str, Any]

    def refuse(self, column: str, wanted: str) -> NoReturn:
        """Raise UserError for the cell in `column`."""
        raise UserError(f"{self.file.name}, row {self.number}, column {column}: {_shown(self.cells[column])}; {wanted}")

    def tokens(self, column: str, least: int = 1) -> int:
        """A whole number of at least `least`."""
        value = self.whole(column)
        if value is None or value < least:
            self.refuse(column, f"a whole number of {least} or more is needed")
        return value

    def whole(self, column: str) -> int | None:
        """A whole number, with a sign if need be; None when there is none."""
        value = self.cells[column]
        if isinstance(value, str):
            digits = value.strip().removeprefix("-")
            return int(value) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def seconds(self, column: str, unit: float = 1.0) -> float:
        """A time of 0 or more, in units of `unit` seconds."""
        return self.amount(column, "a time of 0 or more is needed, as a number", unit)

    def amount(self, column: str, wanted: str = "a number of 0 or more is needed", unit: float = 1.0) -> float:
        """A number of 0 or more, in units of `unit`."""
        value = self.cells[column]
        try:
            number = math.nan if isinstance(value, bool) else float(value) * unit
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number < math.inf:
            self.refuse(column, wanted)
        return number

    def bound(self, column: str) -> float | None:
        """A number of seconds above 0, or nothing."""
        if not self.cells[column]:
            return None
        return self.seconds(column) or self.refuse(column, "a number of seconds above 0 is needed, or nothing")

    def moment(self, column: str) -> float:
        """A date and time of day, in seconds since 1970 (UTC unless it names another zone)."""
        try:
            when = datetime.fromisoformat(self.cells[column].strip())
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        except (TypeError, AttributeError, ValueError):
            self.refuse(column, "a date and time is needed, such as 2023-11-16 18:15:46.680590")

    def ids(self, column: str) -> tuple[int, ...]:
        """A list of whole numbers: a JSON list, or text with spaces between."""
        value = self.cells[column]
        parts = value.split() if isinstance(value, str) else value
        try:
            if all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts):
                return tuple(map(int, parts))
        except (TypeError, ValueError):
            pass
        self.refuse(column, "a list of whole numbers is needed")


def _shown(value: Any) -> str:
    text = repr(value)
    return "nothing" if value in ("", None) else text if len(text) <= 40 else text[:37] + "..."
