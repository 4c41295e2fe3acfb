"""Where the course lies on disk: the package is used from a checkout, beside its weeks, labs and data."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
LABS = ROOT / "labs"


def week(number: int) -> Path:
    """Folder of a week's lecture."""
    return ROOT / f"week{number:02d}"
