"""The whole way of a lab, on a toy: built, solved, untouched, and with every wrong solution."""

from pathlib import Path

import pytest

from llmcourse.grading.builder import build_lab
from llmcourse.grading.exercise import listening
from llmcourse.grading.student import NamespaceStudent

MASTER = Path(__file__).parent / "lab99_toy.py"


def verdicts(version: str) -> dict[str, str]:
    namespace: dict[str, object] = {}
    with listening(NamespaceStudent(namespace)) as found:
        for cell in build_lab(MASTER, version, hidden=True)["cells"]:
            if cell["cell_type"] == "code" and cell["id"] != "demo":
                exec("".join(cell["source"]), namespace)
    return {verdict.name: verdict.status for verdict in found}


def test_the_reference_passes_every_check() -> None:
    assert verdicts("reference") == dict.fromkeys(
        ["grouped_queries", "other_widths", "no_layers", "empties", "refuses"], "PASS"
    )


def test_the_untouched_lab_is_not_written() -> None:
    assert set(verdicts("student").values()) == {"NOT WRITTEN"}


@pytest.mark.parametrize("mutant", ["kv-m1", "kv-m2", "kv-m3", "bucket-m1", "bucket-m2", "bucket-m3"])
def test_every_mutant_is_killed_by_a_wrong_answer(mutant: str) -> None:
    assert set(verdicts(mutant).values()) == {"PASS", "FAIL"}
