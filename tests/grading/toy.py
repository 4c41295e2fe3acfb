"""What the grading tests share: the toy master, edited versions of it, and submissions made from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

TOY = Path(__file__).parent / "lab99_toy.py"
Notebook = dict[str, Any]


def edited(folder: Path, *changes: tuple[str, str]) -> Path:
    """A copy of the toy master with each (old, new) text replaced once; the old text must be there."""
    text = TOY.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    path = folder / "lab99_toy.py"
    path.write_text(text)
    return path


def cell(notebook: Notebook, key: str) -> Notebook:
    """The notebook's cell with this id."""
    return next(each for each in notebook["cells"] if each["id"] == key)


def without(folder: Path, key: str) -> Path:
    """A copy of the toy master without the cell `key`."""
    text = TOY.read_text()
    start = next(i for i, line in enumerate(text.splitlines()) if line.startswith("# %%") and f'key="{key}"' in line)
    lines = text.splitlines(keepends=True)
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("# %%")), len(lines))
    path = folder / "lab99_toy.py"
    path.write_text("".join(lines[:start] + lines[end:]))
    return path


def failure(function: Callable[[], Any]) -> str:
    """Text of the exception that `function` raises."""
    try:
        function()
    except Exception as error:
        return str(error)
    raise AssertionError("nothing was raised")
