"""The course map: sixteen weeks, their titles, rooms and labs, read from `data/course.json`.

One table serves the home page, the README and the tests, so that a title is written once. What a week already holds
is asked of the disk, not of the table: a week is there when its lecture is. Every week.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from llmcourse.errors import UserError
from llmcourse.paths import DATA, LABS, week


@dataclass(frozen=True)
class Week:
    """One week of the course.

    `rooms` are the folders of `llmcourse` that the week opens; `lab` is the topic of its lab in a few words.
    """

    number: int
    module: str
    title: str
    rooms: tuple[str, ...]
    lab: str

    @property
    def lecture(self) -> Path | None:
        """The lecture notebook, or None while it is planned."""
        path = week(self.number) / "lecture.ipynb"
        return path if path.is_file() else None

    @property
    def demo(self) -> Path | None:
        """The notebook behind the projector's page, or None."""
        path = week(self.number) / "demo.ipynb"
        return path if path.is_file() else None

    @property
    def lab_notebook(self) -> Path | None:
        """The student's lab notebook, or None while it is planned."""
        return next(iter(sorted(LABS.glob(f"lab{self.number:02d}_*.ipynb"))), None)


def weeks() -> tuple[Week, ...]:
    """All weeks, in order."""
    table = json.loads((DATA / "course.json").read_text(encoding="utf-8"))
    return tuple(
        Week(entry["week"], module["title"], entry["title"], tuple(entry["rooms"]), entry["lab"])
        for module in table["modules"]
        for entry in module["weeks"]
    )


def find_week(text: str) -> Week:
    """The week that a person named, as "2" or "02".

    Raises:
        UserError: there is no such week.
    """
    for candidate in weeks():
        if text.isdecimal() and int(text) == candidate.number:
            return candidate
    raise UserError(f"no week {text!r}; weeks are 1 to {len(weeks())}")
