"""`llmcourse check NOTEBOOK`: a student's self-check as a readable table.

It runs the lab's visible checks on the answers of a notebook and says, exercise by exercise, what passes and
why the rest does not. Words carry the result, colour only repeats it. Exit code 0 when every exercise passes,
1 when one does not, 2 for what is not a lab's notebook. Every lab.
"""

import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from llmcourse.cli.parser import Parser
from llmcourse.grading.selfcheck import ExerciseResult, Report, self_check
from llmcourse.progress import Score, record

COLOURS = {"PASS": "32", "FAIL": "31", "NOT WRITTEN": "33"}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FOOTER = "This is a self-check, not a grade: hidden checks run when your work is graded."


def main(argv: list[str] | None = None) -> int:
    """Check one notebook; see the module's docstring for the exit codes."""
    parser = Parser(prog="llmcourse check", description="Self-check of a lab's notebook.")
    parser.add_argument("notebook", type=Path, help="the lab's notebook, such as labs/lab02_….ipynb")
    parser.add_argument("--timeout", type=_seconds, default=60.0, help="seconds a cell may take (default 60)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(argv)
    watched = not options.json and sys.stderr.isatty()
    report = self_check(options.notebook, options.timeout, tell=_tell if watched else lambda doing: None)
    record(report.lab, Score(report.points, report.maximum, datetime.now(UTC).isoformat(timespec="seconds")))
    print(json.dumps(_data(report), indent=1, ensure_ascii=False) if options.json else table(report, _colour()))
    return 0 if report.points == report.maximum else 1


def _tell(doing: str) -> None:
    print(f"{clean(doing)} …", file=sys.stderr)


def table(report: Report, colour: bool = False) -> str:
    """The report as text: a line for each exercise, its reasons below it, the total last."""
    width = max([len(each.title) for each in report.exercises] + [8])
    lines = [f"{report.lab}", "", f"{'Exercise':<{width}}  {'Points':>7}  Result"]
    for each in report.exercises:
        lines += _rows(each, width, colour)
    passed = sum(each.status == "PASS" for each in report.exercises)
    total = f"{report.points} of {report.maximum} points, {passed} of {len(report.exercises)} exercises pass."
    notes = [f"note: {clean(note)}" for note in report.notes]
    return "\n".join([*lines, *notes, "", total, FOOTER])


def _rows(result: ExerciseResult, width: int, colour: bool) -> list[str]:
    shown = f"\x1b[{COLOURS[result.status]}m{result.status}\x1b[0m" if colour else result.status
    first = f"{clean(result.title):<{width}}  {f'{result.earned} of {result.points}':>7}  {shown}"
    reasons = [line for reason in result.reasons for line in clean(reason).splitlines()]
    return [first, *(f"    {line}" for line in reasons), *(f"    note: {clean(note)}" for note in result.notes)]


def clean(text: str) -> str:
    """The text without characters that move the cursor, hide or reorder what is printed."""
    return CONTROL.sub("·", text.replace("\t", "    "))


def _data(report: Report) -> dict[str, object]:
    score = {"lab": report.lab, "points": report.points, "maximum": report.maximum, "grade": False}
    exercises = [asdict(each) | {"earned": each.earned} for each in report.exercises]
    return score | {"exercises": exercises, "notes": report.notes}


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0 and up to 3600")
    return value
