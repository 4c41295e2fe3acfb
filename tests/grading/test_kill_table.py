"""The gate is tested with faults of its own: a lab whose checks are too weak, too wild or past the border must fail."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from llmcourse.grading.kill_table import Row, kill_table, main
from llmcourse.grading.manifest import read_lab
from llmcourse.grading.rehearsal import affected
from tests.grading.toy import TOY, edited


def rows(master: Path, limit: float = 60.0) -> dict[str, Row]:
    return {row.version: row for row in kill_table(read_lab(master), limit)}


def test_the_toy_lab_has_no_gap(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(TOY.parent), "lab99"]) == 0
    shown = capsys.readouterr().out
    assert "5 of 5 points" in shown and "0 of 5 points" in shown
    assert "grouped_queries: got 65536; expected 131072 | did you count K but forget V?" in shown
    assert "6 mutants, 0 of them killed by a crash, 0 gaps" in shown


def test_a_check_that_always_passes_lets_its_mutants_survive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = edited(tmp_path, ("    expect_equal(student.call", "    (student.call"), ('"did you', '"'))
    survivors = [row.version for row in rows(blind).values() if row.outcome == "SURVIVES"]
    assert survivors == ["always two bytes a value"]
    assert main(["--source", str(tmp_path)]) == 1
    assert "GAP: no check notices it" in capsys.readouterr().out


def test_a_reference_that_fails_is_a_gap(tmp_path: Path) -> None:
    wrong = edited(tmp_path, ("    return 2 * layers", "    return 3 * layers"))
    row = rows(wrong)["reference"]
    assert row.outcome == "3 of 5 points" and "grouped_queries says FAIL" in row.fault


def test_a_lab_that_gives_points_for_nothing_is_a_gap(tmp_path: Path) -> None:
    generous = edited(
        tmp_path,
        ('    got = student.call("kv_bytes", 32, 8, 128)\n    expect_equal(got, 131072', "    expect_equal(1, 1"),
        ('    expect_equal(student.call("kv_bytes", 3, 5, 7, width=1), 210)', "    pass"),
        ('    expect_equal(student.call("kv_bytes", 0, 5, 7), 0)', "    pass"),
    )
    assert "kv_bytes earns its points untouched" in rows(generous)["untouched"].fault


def test_a_check_that_reaches_past_the_border_is_a_gap(tmp_path: Path) -> None:
    bare = edited(tmp_path, ('student.call("kv_bytes", 32, 8, 128)', "kv_bytes(32, 8, 128)"))
    assert "grouped_queries says BROKEN" in rows(bare)["reference"].fault


@pytest.mark.parametrize(
    "accident", ["layer", "__import__('absent')", "(lambda: (_ for _ in ()).throw(NotImplementedError))()"]
)
def test_a_mutant_that_dies_by_accident_is_a_gap(tmp_path: Path, accident: str) -> None:
    path = edited(tmp_path, ("    return layers * heads * dim * width", f"    return {accident}"))
    row = rows(path)["counts K but forgets V"]
    if "NotImplemented" not in accident:
        assert row.outcome == "crash" and "it dies by accident" in row.fault


def test_a_crash_is_flagged_but_may_be_a_misconception(tmp_path: Path) -> None:
    path = edited(tmp_path, ("    return layers * heads * dim * width", "    return [layers][heads]"))
    row = rows(path)["counts K but forgets V"]
    assert row.outcome == "crash" and not row.fault and "IndexError" in row.message


def test_a_mutant_that_costs_another_exercise_its_points_is_a_gap(tmp_path: Path) -> None:
    entangled = edited(
        tmp_path,
        ("        return True\n        ### END", "        return kv_bytes(32, 8, 128) == 131072\n        ### END"),
    )
    assert affected(read_lab(entangled), read_lab(entangled).exercises[0]) == {"kv_bytes", "bucket"}
    assert rows(entangled)["counts K but forgets V"].fault == "it costs bucket its points too"


def test_a_mutant_that_never_ends_is_a_gap_after_the_limit(tmp_path: Path) -> None:
    path = edited(tmp_path, ("    return layers * heads * dim * width", "    while True: pass"))
    row = rows(path, limit=0.2)["counts K but forgets V"]
    assert "did not end within 0.2 s" in row.fault


def test_one_wrong_answer_kills_a_mutant_and_more_checks_would_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module, asked = import_module("llmcourse.grading.kill_table"), []
    rehearse = module.rehearse

    def counted(*arguments: object, **options: object) -> object:
        run = rehearse(*arguments, **options)
        asked.append(len(run.verdicts))
        return run

    def table() -> dict[str, Row]:
        return {version: replace(row, seconds=0.0) for version, row in rows(TOY).items()}

    monkeypatch.setattr(module, "rehearse", counted)
    short, few = table(), sum(asked)
    monkeypatch.setattr(module, "_kills", lambda exercise, verdict: False)
    assert table() == short and sum(asked) > 2 * few


def test_no_lab_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(tmp_path)]) == 2
    assert "no lab at all" in capsys.readouterr().err
    assert main(["--source", str(TOY.parent), "lab42"]) == 2
    assert "no lab lab42" in capsys.readouterr().err
