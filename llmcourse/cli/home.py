"""The home page's own parts: the map of the weeks, and a student's progress.

The map is one table, made from `data/course.json` and from what lies on disk, so that a week that is not written yet
says so. It stands in README.md and in index.py; `make notebooks` rewrites both. Progress is what the last self-checks
said, and nothing else. Every week.
"""

import html
import re
import sys
from itertools import groupby
from pathlib import Path

from llmcourse import progress
from llmcourse.course import Week, weeks
from llmcourse.errors import UserError
from llmcourse.paths import ROOT

PLANNED = "planned"


def link(text: str, path: Path | None) -> str:
    """A Markdown link from the repository's root, or the word for what is not there yet."""
    return f"[{text}]({path.relative_to(ROOT).as_posix()})" if path else PLANNED


def row(week: Week) -> str:
    """One week as a row of the Markdown table."""
    lecture, lab = link("open", week.lecture), link("open", week.lab_notebook)
    if week.demo:
        lecture += f" · {link('demo', week.demo)}"
    rooms = ", ".join(f"`{room}`" for room in week.rooms)
    return f"| {week.number} | {week.title} | {lecture} | {rooms} | {lab} | {week.lab} |"


def week_map() -> str:
    """All weeks as Markdown: one table a module."""
    parts = []
    for number, (module, group) in enumerate(groupby(weeks(), lambda week: week.module), start=1):
        head = "| Week | Title | Lecture | Rooms | Lab | What the lab is about |\n|---:|---|---|---|---|---|"
        parts.append("\n".join([f"**Module {number} · {module}**", "", head, *map(row, group)]))
    return "\n\n".join(parts)


def replace_map(text: str, comment: str = "") -> str:
    """Put the map between the `weeks` markers of `text`; `comment` stands before each line in a Python master.

    Raises:
        UserError: the markers are not there.
    """
    lines = [f"{comment} {line}".rstrip() if comment else line for line in week_map().splitlines()]
    pattern = re.compile(r"(<!-- weeks -->\n).*?(^[# ]*<!-- end of weeks -->)", re.DOTALL | re.MULTILINE)
    blank = f"{comment}\n"
    new, count = pattern.subn(lambda found: found[1] + blank + "\n".join(lines) + "\n" + blank + found[2], text)
    if count != 1:
        raise UserError("the file must hold <!-- weeks --> and <!-- end of weeks --> once, in this order")
    return new


def pages() -> dict[Path, str]:
    """The two files that hold the map, with the text that they should have."""
    comments = {ROOT / "README.md": "", ROOT / "index.py": "#"}
    return {path: replace_map(path.read_text(encoding="utf-8"), comment) for path, comment in comments.items()}


class Progress:
    """The student's labs, with the points of the last self-check; shows itself as a table."""

    def __init__(self, file: Path = progress.FILE) -> None:
        self.scores = progress.read(file)
        self.labs = [(week, week.lab_notebook) for week in weeks() if week.lab_notebook]

    def rows(self) -> list[tuple[str, str, str]]:
        """(lab, points, when) of each lab that is there, as text."""
        found = []
        for week, notebook in self.labs:
            score = self.scores.get(notebook.stem) if notebook else None
            points = f"{score.points:g} of {score.maximum:g} points" if score else "not checked yet"
            when = score.checked[:16].replace("T", " ") if score else ""
            found.append((f"Lab {week.number} · {week.title}", points, when))
        return found

    def __repr__(self) -> str:
        return "\n".join("  ".join(filter(None, row)) for row in self.rows()) or "no labs yet"

    def _repr_html_(self) -> str:
        head = "<tr>" + "".join(f'<th scope="col">{name}</th>' for name in ("Lab", "Points", "Last check")) + "</tr>"
        rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows())
        body = "".join(f"<tr>{cells}</tr>" for cells in rows)
        return f"<table><caption>Your labs (a self-check, not a grade)</caption>{head}{body}</table>"


def main() -> int:
    """Write the map into README.md and index.py where it differs, and say which changed."""
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"week map written into {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
