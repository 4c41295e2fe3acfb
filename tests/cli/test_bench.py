"""`llmcourse bench`: the list comes from the files, a run gets its arguments."""

import sys
from types import ModuleType

import pytest

from llmcourse.cli import bench
from llmcourse.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of benchmarks of which none can be imported."""
    (tmp_path / "_shared.py").write_text("raise SystemExit")
    (tmp_path / "probe.py").write_text('"""Measures nothing.\n\nMore."""\nraise SystemExit\n')
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    return tmp_path


def test_the_list_is_read_not_imported(folder, capsys):
    assert bench.benchmarks() == {"probe": "Measures nothing."}
    assert bench.main([]) == 0
    assert "Measures nothing." in capsys.readouterr().out


def test_an_unknown_one_names_what_there_is(folder):
    with pytest.raises(UserError, match="no benchmark 'prob'; there is probe"):
        bench.main(["prob"])


def test_a_benchmark_gets_the_arguments_after_its_name(folder, monkeypatch):
    module = ModuleType("benchmarks.probe")
    module.main = lambda argv: 3 if argv == ["--rows", "2"] else 4
    monkeypatch.setitem(sys.modules, "benchmarks.probe", module)
    assert bench.main(["probe", "--rows", "2"]) == 3
