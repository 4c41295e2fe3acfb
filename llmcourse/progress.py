"""A student's progress: the last self-check of each lab, kept in `labs/.progress.json`.

`llmcourse check` records, the home page reads. The file belongs to the student: it is not committed, it is no grade,
and deleting it loses nothing but the memory of past checks. Every week.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from llmcourse.paths import LABS

FILE = LABS / ".progress.json"


@dataclass(frozen=True)
class Score:
    """The outcome of one self-check: points reached of `maximum`, and when (ISO date and time)."""

    points: float
    maximum: float
    checked: str


def read(file: Path = FILE) -> dict[str, Score]:
    """Lab name (`lab02_inference`) to its last score; empty when nothing was checked or the file is damaged."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        return {str(lab): Score(**entry) for lab, entry in table.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def record(lab: str, score: Score, file: Path = FILE) -> None:
    """Keep `score` as the last one of `lab`; a folder that cannot be written is left alone."""
    table = {name: asdict(entry) for name, entry in (read(file) | {lab: score}).items()}
    fresh = file.with_suffix(".new")
    try:
        fresh.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)
