"""`llmcourse bench`: the list comes from the files, a run gets its arguments."""

import pytest

from llmcourse.cli import bench
from llmcourse.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "_shared.py").write_text("raise SystemExit")
    (folder / "probe.py").write_text('"""Measures nothing.\n\nMore."""\ndef main(argv):\n    return 3 if argv == ["--x"] else 4\n')
    monkeypatch.setattr(bench, "FOLDER", folder)
    monkeypatch.setattr(bench, "benchmarks", lambda: listed(folder))
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


listed = bench.benchmarks


def test_the_list_is_read_not_imported(folder, capsys):
    assert listed(folder) == {"probe": "Measures nothing."}
    assert bench.main([]) == 0
    assert "Measures nothing." in capsys.readouterr().out


def test_an_unknown_one_names_what_there_is(folder):
    with pytest.raises(UserError, match="no benchmark 'prob'; there is probe"):
        bench.main(["prob"])
