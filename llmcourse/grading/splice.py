"""A clean copy of a lab, and a student's answers put into it.

Nothing of a handed-in notebook runs but the answers: everything else comes from a fresh build of the student version,
or, where the lab's master is not at hand, from the notebook's own course cells without their metadata and outputs.

Used by `llmcourse check`, every lab.
"""

import ast
import copy
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llmcourse.errors import UserError
from llmcourse.grading.builder import build_lab
from llmcourse.grading.manners import defines
from llmcourse.grading.submission import Answer, course, syntax_trouble

Notebook = dict[str, Any]


def clean_copy(submitted: Notebook, path: Path, name: str, labs: Path) -> Notebook:
    """The lab as its students get it, from its master; without one, the handed-in notebook's own course cells."""
    master = labs / "source" / f"{name}.py"
    if re.fullmatch(r"\w+", name) and master.is_file():
        return build_lab(master)
    if not any(course(cell).get("role") == "check" for cell in submitted["cells"]):
        known = ", ".join(sorted(each.stem for each in labs.glob("lab*.ipynb"))) or "none here"
        raise UserError(f"{path}: not one of the course's labs ({known})")
    cells = []
    for cell in submitted["cells"]:
        if cell.get("cell_type") in ("code", "markdown") and isinstance(cell.get("id"), str):
            kept = {"cell_type": cell["cell_type"], "id": cell["id"], "source": cell["source"]}
            unrun: Notebook = {"execution_count": None, "outputs": []}
            code = unrun if cell["cell_type"] == "code" else {}
            cells.append(kept | code | {"metadata": {"course": course(cell)}})
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def spliced(clean: Notebook, answers: Mapping[str, Answer], ended: Collection[str]) -> Notebook:
    """The clean notebook with the answers that can run, without the cells ``ended``, and what belongs to them."""
    notebook = copy.deepcopy(clean)
    dead = {course(cell).get("exercise") for cell in clean["cells"] if cell["id"] in ended} - {None}
    kept = []
    for cell in notebook["cells"]:
        about = course(cell)
        if cell["cell_type"] == "code" and (cell["id"] in ended or about.get("exercise") in dead):
            if about.get("role") != "answer" or cell["id"] in ended:
                continue
        elif cell["id"] in answers and answers[cell["id"]].source:
            cell["source"] = answers[cell["id"]].source
        elif cell["id"] in answers and answers[cell["id"]].trouble:
            cell["source"] = _without_syntax_error(cell["source"])
        kept.append(cell)
    return notebook | {"cells": kept}


def protected(clean: Notebook) -> set[str]:
    """Names that the setup takes from the checking machinery; an answer must leave them alone."""
    return {alias.asname or alias.name for cell in _shared(clean) for node in ast.walk(ast.parse(_text(cell)))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmcourse.grading")
            for alias in node.names}


def given(clean: Notebook) -> set[str]:
    """Names that the lab's own cells set for all exercises."""
    return set().union(*(defines(_text(cell)) for cell in _shared(clean)))


def _shared(clean: Notebook) -> list[Notebook]:
    """Code cells that belong to no exercise."""
    return [cell for cell in clean["cells"] if cell["cell_type"] == "code" and not course(cell).get("exercise")
            and not syntax_trouble(_text(cell))]


def _text(cell: Notebook) -> str:
    return "".join(cell["source"])


def _without_syntax_error(source: Any) -> str:
    text = "".join(source)
    return "" if syntax_trouble(text) else text
