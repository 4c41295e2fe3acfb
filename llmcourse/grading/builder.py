"""Builds notebooks from masters: a lecture as it is, a lab as its students get it.

The same master always gives the same bytes: cell ids come from keys, metadata is sorted, nothing is run. The
student version of a lab keeps setup, statements, help, stubs and visible checks; solutions, hidden checks and
mutants never leave the master. Answer cells can be edited, the others cannot, and nbgrader's metadata (schema
3) stands on each.

`python -m llmcourse.grading.builder` builds every notebook, with `--check` it only says which differ. Used by
every week.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from llmcourse.errors import UserError
from llmcourse.grading.manifest import Exercise, Lab, read_lab
from llmcourse.grading.percent import Cell, read_master
from llmcourse.grading.stub import stub
from llmcourse.paths import ROOT

LANG = "en"
EXPORTS = ("reference", "student")
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
Notebook = dict[str, Any]


def build_lecture(master: Path) -> Notebook:
    """The notebook (nbformat 4.5, as plain dictionaries) of the lecture, demo or page written in `master`."""
    cells = [cell for cell in read_master(master) if _spoken(cell)]
    for cell in cells:
        if cell.role:
            raise cell.error(f'role "{cell.role}" belongs to a lab; this master lies outside labs/source')
    return _notebook([_node(cell, cell.source) for cell in cells], {})


def build_lab(master: Path, version: str = "student", hidden: bool = False) -> Notebook:
    """The lab written in `master`: "student", "reference", or the key of a mutant (reference with that one
    answer wrong).

    With `hidden`, the hidden checks stand in it too, as the tests need it. UserError for an unknown version.
    """
    lab = read_lab(master)
    mutants = {mutant.cell.key: mutant for exercise in lab.exercises for mutant in exercise.mutants}
    if version not in (*EXPORTS, *mutants):
        raise UserError(f'{master}: no version "{version}"; there are {", ".join([*EXPORTS, *mutants])}')
    nodes = []
    for cell in lab.cells:
        if _spoken(cell) and cell.role != "mutant" and (hidden or cell.role != "hidden"):
            nodes.append(_lab_node(lab, cell, source(lab, cell, version)))
    first = next((i for i, node in enumerate(nodes) if node["cell_type"] == "markdown"), -1)
    nodes.insert(first + 1, _table(lab))
    checks = sum(len(exercise.checks) for exercise in lab.exercises)
    return _notebook(nodes, {"lab": lab.name, "version": version, "points": lab.points, "visible_checks": checks})


def write(notebook: Notebook) -> str:
    """The text of the notebook's file: the same notebook always gives the same text."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def targets(root: Path) -> dict[Path, Path]:
    """Every master under `root` and the notebook it is built into."""
    lectures = [*root.glob("week[0-9][0-9]/*.py"), root / "index.py"]
    built = {master: master.with_suffix(".ipynb") for master in sorted(lectures) if master.is_file()}
    labs = sorted(root.glob("labs/source/*.py"))
    return built | {master: root / "labs" / f"{master.stem}.ipynb" for master in labs}


def build(root: Path, master: Path) -> str:
    """Text of the notebook that belongs to `master`, a lab if it lies in labs/source."""
    return write(build_lab(master) if master.parent == root / "labs" / "source" else build_lecture(master))


def _spoken(cell: Cell) -> bool:
    return cell.kind == "code" or cell.option("lang") == LANG


def _notebook(nodes: list[Notebook], course: dict[str, Any]) -> Notebook:
    metadata = METADATA | ({"course": course} if course else {})
    return {"cells": nodes, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _node(cell: Cell, source: str, **metadata: Any) -> Notebook:
    course = {"key": cell.key} | ({"role": cell.role} if cell.role else {})
    metadata = {"course": course | metadata.pop("course", {})} | metadata
    if cell.option("tags"):
        metadata["tags"] = cell.option("tags").split()
    if cell.option("folded") == "true":
        metadata["jupyter"] = {"source_hidden": True}
    return _raw(cell.kind, cell.key, source, metadata)


def _raw(kind: str, key: str, source: str, metadata: dict[str, Any]) -> Notebook:
    node = {"cell_type": kind, "id": key, "metadata": metadata, "source": source.splitlines(keepends=True)}
    return node | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _lab_node(lab: Lab, cell: Cell, source: str) -> Notebook:
    course: dict[str, Any] = {}
    if cell.option("exercise"):
        exercise = lab.exercise(cell.option("exercise"))
        course["exercise"] = exercise.id
        if cell.role in ("check", "hidden"):
            course["checks"] = list(exercise.checks if cell.role == "check" else exercise.hidden)
            course["points"] = exercise.points if cell.role == "check" else 0
        if cell.role == "answer":
            course["names"] = list(exercise.names)
    nbgrader = {
        "grade": cell.role == "check",
        "grade_id": cell.key,
        "locked": cell.role != "answer",
        "schema_version": 3,
        "solution": cell.role == "answer",
        "task": False,
    }
    if cell.role == "check":
        nbgrader["points"] = course["points"]
    locks = {"deletable": False} | ({} if cell.role == "answer" else {"editable": False})
    return _node(cell, source, course=course, nbgrader=nbgrader, **locks)


def source(lab: Lab, cell: Cell, version: str) -> str:
    """The text of a lab's cell in a version: "student", "reference" or the key of a mutant."""
    if cell.role == "answer" and version == "student":
        return stub(cell)
    if cell.role == "answer":
        wrong = [m.cell.source for m in lab.exercise(cell.option("exercise")).mutants if m.cell.key == version]
        return "\n\n\n".join([cell.source, *wrong])
    if cell.role == "exercise":
        return _header(lab.exercise(cell.option("exercise")))
    if cell.role == "help":
        return f"<details>\n<summary>{cell.option('title') or 'Help'}</summary>\n\n{cell.source}\n\n</details>"
    return cell.source


def _header(exercise: Exercise) -> str:
    heading, _, text = exercise.statement.source.partition("\n")
    facts = [
        f"**{_points(exercise.points)}**",
        f"difficulty {'●' * exercise.difficulty}{'○' * (5 - exercise.difficulty)} ({exercise.difficulty} of 5)",
        f"about {exercise.minutes} minutes",
        *([f"needs {exercise.needs}"] if exercise.needs else []),
        exercise.visible,
    ]
    return f"{heading}\n\n{' · '.join(facts)}\n\n{text.lstrip()}".rstrip()


def _points(number: int) -> str:
    return f"{number} {'point' if number == 1 else 'points'}"


def _table(lab: Lab) -> Notebook:
    rows = [f"| {e.title} | {e.points} | {e.difficulty} of 5 | {e.minutes} | {e.visible} |" for e in lab.exercises]
    minutes, visible = sum(e.minutes for e in lab.exercises), sum(len(e.checks) for e in lab.exercises)
    total = visible + sum(len(e.hidden) for e in lab.exercises)
    source = "\n".join(
        [
            "| Exercise | Points | Difficulty | Minutes | Checks |",
            "|:--|--:|:-:|--:|:--|",
            *rows,
            f"| **Total** | **{lab.points}** | | **{minutes}** | **{visible} of {total} checks visible** |",
            "",
            "Points are given per exercise, when all its checks pass. Run a check cell to see at once where you stand.",
        ]
    )
    locked = {"deletable": False, "editable": False, "course": {"key": "exercise-table", "role": "table"}}
    return _raw("markdown", "exercise-table", source, locked)


def main(argv: list[str] | None = None) -> int:
    """Build every notebook, or with --check only say which are not up to date."""
    parser = argparse.ArgumentParser(prog="make notebooks", description="Build the notebooks from their masters.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when a built notebook is not up to date"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    try:
        return _run(options.root, options.check)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _run(root: Path, check: bool) -> int:
    built = targets(root)
    if not built:
        raise UserError(f"{root}: no masters found in week*/ or labs/source/")
    states = [_settle(root, master, notebook, check) for master, notebook in built.items()]
    orphans = sorted(set(root.glob("labs/*.ipynb")) - set(built.values()))
    for orphan in orphans:
        print(f"no master   {orphan.relative_to(root)}")
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{len(built)} notebooks examined: {counts}; {len(orphans)} without a master")
    if "broken" in states:
        return 2
    return int(bool(orphans) or "differs" in states)


def _settle(root: Path, master: Path, notebook: Path, check: bool) -> str:
    """Say, and bring about unless checking, that the notebook is what its master says."""
    try:
        text = build(root, master)
    except UserError as error:
        print(error, file=sys.stderr)
        return "broken"
    if notebook.is_file() and notebook.read_text(encoding="utf-8") == text:
        state = "up to date"
    elif check:
        state = "differs"
    else:
        notebook.write_text(text, encoding="utf-8")
        state = "written"
    print(f"{state:<11} {notebook.relative_to(root)}", flush=True)
    return state


if __name__ == "__main__":
    raise SystemExit(main())
