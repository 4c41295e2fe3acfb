"""Every committed notebook is what its master says, cell for cell, without outputs."""

import json
import re
from pathlib import Path

import pytest

from llmcourse.grading.builder import build, targets
from llmcourse.paths import ROOT

TARGETS = targets(ROOT)
masters = pytest.mark.parametrize("master", TARGETS, ids=lambda path: str(path.relative_to(ROOT)))


def test_there_are_masters_and_no_notebook_without_one() -> None:
    assert TARGETS
    built = set(TARGETS.values())
    found = {*ROOT.glob("*.ipynb"), *ROOT.glob("week*/*.ipynb"), *ROOT.glob("labs/*.ipynb")}
    assert found <= built, f"no master for {sorted(map(str, found - built))}"


@masters
def test_the_committed_notebook_is_up_to_date(master: Path) -> None:
    notebook = TARGETS[master]
    assert notebook.is_file(), f"{notebook.name} was never built; run make notebooks"
    assert notebook.read_text(encoding="utf-8") == build(ROOT, master), "run make notebooks"


@masters
def test_no_cell_is_dropped_and_no_secret_is_kept(master: Path) -> None:
    # Counted here by their markers alone, so that a builder that loses a cell is found out.
    markers = [line for line in master.read_text(encoding="utf-8").splitlines() if line.startswith("# %%")]
    keys = [key for line in markers for key in re.findall(r' key="([^"]+)"', line)]
    secret = [re.search(r'role="(hidden|mutant)"', line) is not None for line in markers]
    assert len(keys) == len(markers)
    shown = [key for key, hidden in zip(keys, secret, strict=True) if not hidden]
    cells = json.loads(TARGETS[master].read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells if cell["id"] != "exercise-table"] == shown
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_jupytext_reads_the_masters_alike() -> None:
    jupytext = pytest.importorskip("jupytext")
    from llmcourse.grading.percent import read_master

    for master in TARGETS:
        theirs = [cell for cell in jupytext.read(master, fmt="py:percent").cells if cell.metadata.get("key")]
        ours = read_master(master)
        assert [(c.key, c.source.strip()) for c in ours] == [(c.metadata["key"], c.source.strip()) for c in theirs]
