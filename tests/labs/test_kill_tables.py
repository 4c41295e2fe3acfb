"""Every lab: the reference earns all points, the untouched lab none, every mutant is caught, and nbval agrees."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmcourse.grading.builder import build_lab, write
from llmcourse.grading.kill_table import kill_table
from llmcourse.grading.manifest import MUTANTS, read_lab
from llmcourse.paths import LABS, ROOT

PATIENCE = 900.0                         # seconds for what takes 10 on a quiet machine
MASTERS = sorted((LABS / "source").glob("lab*.py"))
labs = pytest.mark.parametrize("master", MASTERS, ids=lambda path: path.stem)


def test_there_are_labs() -> None:
    assert MASTERS, f"no lab masters in {LABS / 'source'}"


@labs
@pytest.mark.slow
def test_the_kill_table_has_no_gap(master: Path) -> None:
    lab = read_lab(master)
    rows = list(kill_table(lab, limit=PATIENCE))
    assert len(rows) >= 2 + MUTANTS * len(lab.exercises)
    assert rows[0].outcome == f"{lab.points} of {lab.points} points", rows[0].fault
    assert rows[1].outcome == f"0 of {lab.points} points", rows[1].fault
    gaps = [f"{row.exercise} · {row.version}: {row.fault}" for row in rows if row.fault]
    assert not gaps, "\n".join(gaps)


def nbval(notebook: Path, cells: Path) -> tuple[int, list[dict[str, object]]]:
    """Exit code of plain nbval on a notebook, and what became of each cell."""
    watcher = ["-p", "llmcourse.grading.nbval_plugin", "--course-json", str(cells)]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", "--nbval-lax"]
    ran = subprocess.run([*command, *watcher, str(notebook)], cwd=ROOT, capture_output=True, timeout=PATIENCE)
    return ran.returncode, json.loads(cells.read_text())


@labs
@pytest.mark.slow
def test_nbval_fails_the_untouched_lab_with_nothing_but_stubs(master: Path, tmp_path: Path) -> None:
    code, cells = nbval(LABS / f"{master.stem}.ipynb", tmp_path / "cells.json")
    assert code == 1
    assert {cell["kind"] for cell in cells if not cell["passed"]} == {"NotImplementedError"}
    checks = [cell for cell in cells if cell["course"].get("role") == "check"]  # type: ignore[attr-defined]
    assert len(checks) == len(read_lab(master).exercises) and not any(cell["passed"] for cell in checks)


@labs
@pytest.mark.slow
def test_nbval_passes_the_solved_lab(master: Path, tmp_path: Path) -> None:
    solved = tmp_path / f"{master.stem}.ipynb"
    solved.write_text(write(build_lab(master, "reference")), encoding="utf-8")
    code, cells = nbval(solved, tmp_path / "cells.json")
    assert [cell["message"] for cell in cells if not cell["passed"]] == []
    assert code == 0
