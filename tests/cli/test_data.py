"""`llmcourse data`: lists, fetches by name, verifies; for people and for machines."""

import hashlib
import json
from dataclasses import replace

import pytest

from llmcourse import cli
from llmcourse.cli import data
from llmcourse.errors import UserError
from llmcourse.workload import fetch as fetching
from llmcourse.workload.originals import ORIGINALS


def rows(capsys, *argv):
    code = data.main([*argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_list_names_profiles_licences_and_where_originals_are(capsys, tmp_path):
    assert data.main(["list", "--folder", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for name, trace in ORIGINALS.items():
        assert name in text
        assert trace.licence in text
    assert "no file to fetch" in text


def test_the_list_for_a_machine(capsys, tmp_path):
    (tmp_path / ORIGINALS["azure-code"].file).write_text("")
    code, table = rows(capsys, "list", "--folder", str(tmp_path))
    assert code == 0
    assert {row["name"] for row in table if row["fetched"]} == {"azure-code"}
    code_row = next(row for row in table if row["name"] == "azure-code")
    assert code_row["prompt_tokens"] == [1469, 7436]
    assert code_row["url"].startswith("https://")


@pytest.fixture
def served(monkeypatch):
    """Downloads come from here instead of the network; the names that were asked for."""
    asked = []

    def download(original, url, part, progress):
        asked.append(url)
        part.write_bytes(url.encode())
        progress(original.size, original.size)

    monkeypatch.setattr(fetching, "_download", download)
    for name, trace in ORIGINALS.items():
        if trace.url:
            sha256 = hashlib.sha256(trace.url.encode()).hexdigest()
            monkeypatch.setitem(ORIGINALS, name, replace(trace, sha256=sha256))
    return asked


def test_fetch_brings_what_is_named(served, capsys, tmp_path):
    assert data.main(["fetch", "azure-code", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"azure-code: {tmp_path / ORIGINALS['azure-code'].file}\n"
    assert len(served) == 1


def test_fetch_all_brings_whatever_has_a_url(served, capsys, tmp_path):
    code, table = rows(capsys, "fetch", "all", "--folder", str(tmp_path))
    assert code == 0
    assert sorted(row["name"] for row in table) == ["azure-code", "azure-conversation", "mooncake-conversation"]
    assert rows(capsys, "verify", "--folder", str(tmp_path))[0] == 0


def test_an_unknown_name_is_refused_before_anything_is_fetched(served, capsys):
    assert cli.main(["data", "fetch", "azure-code", "azur"]) == 2
    assert capsys.readouterr().err.startswith("llmcourse data: no trace 'azur'; there is azure-code")
    assert served == []


def test_verify_tells_sound_from_damaged_and_absent(served, capsys, tmp_path):
    data.main(["fetch", "all", "--folder", str(tmp_path)])
    capsys.readouterr()
    (tmp_path / ORIGINALS["azure-code"].file).write_text("x")
    code, table = rows(capsys, "verify", "--folder", str(tmp_path))
    states = {(row["name"], row["what"]): row["state"] for row in table}
    assert code == 1
    assert states["mooncake-conversation", "original"] == "sound"
    assert states["arena", "original"] == "not fetched"
    assert states["azure-code", "original"].startswith("not the published file: 1 bytes")
    assert {state for (_, what), state in states.items() if what == "profile"} == {"sound"}
    assert data.main(["verify", "--folder", str(tmp_path)]) == 1
    assert "remove" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["fetch"], ["lst"], ["list", "--jso", "x"]])
def test_slips_end_in_one_line(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        data.main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_lengths_are_measured_with_a_bar_and_written(capsys, tmp_path, monkeypatch):
    from llmcourse.predict import LengthData, measure

    monkeypatch.setattr(measure, "course_prompts", lambda times: (["Count from 1 to 3.", "Add 1 and 2."], ["a", "b"]))
    assert data.main(["lengths", "--samples", "2", "--out", str(tmp_path / "lengths.jsonl"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)[0] | {"path": "", "mean": 0} == {"path": "", "prompts": 2, "samples": 2, "mean": 0}
    assert "4/4" in said.err
    assert LengthData.load(tmp_path / "lengths.jsonl").lengths.shape == (2, 2)
    with pytest.raises(UserError, match="at least 1"):
        data.main(["lengths", "--samples", "0"])


def test_help_needs_no_numpy():
    import subprocess
    import sys

    program = ("import sys, llmcourse.cli.data as data\ntry: data.main(['--help'])\nexcept SystemExit: pass\n"
               "assert 'numpy' not in sys.modules")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
