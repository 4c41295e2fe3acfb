"""The command behind the regime maps: every map is found by its name, and what is measured ends in a line of JSON."""

import json
from importlib import import_module

import pytest

from benchmarks import decide
from benchmarks._maps import Cell, Map
from llmcourse.errors import UserError


def test_every_map_has_a_name_of_its_own() -> None:
    names = [path.stem for path in decide.HERE.glob("_decide_*.py")]
    maps = [import_module(f"benchmarks.{name}").MAPS for name in names]
    assert len(decide.makers()) == sum(map(len, maps)) >= 20
    assert {"size", "bins", "predictors", "vtc", "qlm", "victims", "scale-day", "scale-drain"} <= set(decide.makers())


def test_a_map_is_printed_and_kept(capsys, monkeypatch, tmp_path) -> None:
    def tiny(seeds: range, quick: bool) -> Map:
        return Map("Tiny", "a note", ("policy", "s"), [{"policy": "fcfs", "s": Cell.of([float(s) for s in seeds])}])
    monkeypatch.setattr(decide, "makers", lambda: {"tiny": tiny})
    assert decide.main(["--seeds", "2", "--json", str(tmp_path / "found.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Tiny" and "fcfs    0.5 ±0.5" in lines and json.loads(lines[-1])["seeds"] == 2
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads(lines[-1]) and found["maps"]["tiny"]["rows"] == [{"policy": "fcfs", "s": [0.5, 0.5, 2]}]


@pytest.mark.parametrize(("argv", "says"), [(["--only", "luck"], "no map 'luck'; there are"),
                                            (["--seeds", "0"], "0 seeds")])
def test_what_cannot_be_measured_is_refused(argv, says) -> None:
    with pytest.raises(UserError, match=says):
        decide.main(argv)
