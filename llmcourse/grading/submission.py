"""Reads a handed-in notebook and takes from it the one thing that counts: the source of its answer cells.

Everything else a notebook carries (checks, points, tags, outputs, who may edit what) can have been changed
and is not believed. An answer is found by the key in its cell's id or metadata; of several copies the last
one counts; an answer that is no Python is told by its line and left out, so that it hides no other exercise.

Used by `llmcourse check`, every lab.
"""

import ast
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcourse.errors import UserError
from llmcourse.grading.manners import refused

LARGEST = 50_000_000  # bytes of a notebook file
MARKER = re.compile(r"^(\s*#+\s*)((?:NBVAL|PYTEST_VALIDATE)_[A-Z_]+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """One answer: its source, "" where it cannot run; `trouble` says why, `notes` what was noticed besides.

    `found` says whether the notebook has its cell at all.
    """

    source: str = ""
    trouble: str = ""
    notes: tuple[str, ...] = ()
    found: bool = True


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook at `path` as plain dictionaries; UserError in one line for anything that is not one."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: not a file; name the lab's notebook, such as labs/lab02_….ipynb")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes; clear the outputs, {LARGEST:,} are the most")
    try:
        notebook = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a notebook, its JSON is broken ({str(error)[:80]})") from None
    return _shaped(path, notebook)


def _shaped(path: Path, notebook: Any) -> dict[str, Any]:
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise UserError(f"{path}: not a notebook; it has no list of cells")
    if notebook.get("nbformat") != 4:
        raise UserError(f"{path}: notebook format {notebook.get('nbformat')!r}; save it again with JupyterLab (4)")
    for number, cell in enumerate(notebook["cells"]):
        source = cell.get("source") if isinstance(cell, dict) else None
        text = "".join(map(str, source)) if isinstance(source, list) else source
        if not isinstance(text, str) or not isinstance(cell.get("metadata", {}), dict):
            raise UserError(f"{path}: cell {number} is not a notebook cell")
        cell["source"] = text
        cell.setdefault("metadata", {})
    return notebook


def course(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell's course metadata, {} where it has none."""
    found = cell["metadata"].get("course")
    return found if isinstance(found, dict) else {}


def lab_of(notebook: dict[str, Any], path: Path) -> str:
    """Name of the lab that the notebook says it is, or that its file is named after."""
    metadata = notebook.get("metadata")
    told = metadata.get("course") if isinstance(metadata, dict) else None
    name = told.get("lab") if isinstance(told, dict) else None
    return name if isinstance(name, str) and name else path.stem


def find_answer(notebook: dict[str, Any], key: str, protected: Collection[str] = ()) -> Answer:
    """The answer whose cell has `key`; `protected` are names that it must not set, for the checks need them."""
    found = [cell for cell in notebook["cells"] if cell.get("cell_type") == "code" and key in _names(cell)]
    if not found:
        return Answer(trouble="its answer cell is not in the notebook; copy it back from the original lab", found=False)
    notes = [f"there are {len(found)} copies of its answer cell; the last one counts"] if len(found) > 1 else []
    source = found[-1]["source"]
    if MARKER.search(source):
        notes.append("nbval's markers (# NBVAL_…) have no effect in an answer")
        source = MARKER.sub(r"\1\2 (no effect)", source)
    trouble = syntax_trouble(source) or refused(source, protected)
    return Answer("" if trouble else source, trouble, tuple(notes))


def syntax_trouble(source: str) -> str:
    """Why `source` is no plain Python, with its line; "" if it is."""
    try:
        ast.parse(source)
        return ""
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        number = getattr(error, "lineno", 0) or 0
        lines = source.splitlines()
        text = lines[number - 1].strip() if 0 < number <= len(lines) else ""
        if text.startswith(("%", "!")):
            return f"line {number} of its answer cell, `{text}`, is no Python: magics and shell commands are not run"
        return f"line {number} of its answer cell is no Python ({getattr(error, 'msg', error)}): {text}"


def strangers(notebook: dict[str, Any]) -> set[str]:
    """Names defined in cells that the student added; they are not part of an answer."""
    names: set[str] = set()
    for cell in notebook["cells"]:
        if cell.get("cell_type") == "code" and not course(cell) and not syntax_trouble(cell["source"]):
            for node in ast.walk(ast.parse(cell["source"])):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    names.add(node.name)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
    return names


def _names(cell: dict[str, Any]) -> set[str]:
    graded = cell["metadata"].get("nbgrader")
    told = [cell.get("id"), course(cell).get("key"), graded.get("grade_id") if isinstance(graded, dict) else None]
    return {name for name in told if isinstance(name, str)}
