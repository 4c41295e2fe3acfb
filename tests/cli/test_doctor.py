"""The doctor: what it finds, what it says about what is missing, and its exit code."""

import json

import pytest

from llmcourse.cli import doctor


@pytest.fixture
def machine(monkeypatch):
    """Replace the checks by given findings."""
    return lambda *findings: monkeypatch.setattr(doctor, "CHECKS", [lambda found=found: found for found in findings])


HERE = doctor.Finding("PyTorch", True, True, "2.13.0")
NO_RAY = doctor.Finding("Ray", False, False, "not installed", "pip install ray")
NO_MODEL = doctor.Finding("course-tiny", False, True, "not there", "llmcourse train")


def test_something_optional_may_be_missing(machine, capsys):
    machine(HERE, NO_RAY)
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert "missing  not installed" in text and "get it: pip install ray" in text
    assert "everything required is here" in text


def test_something_required_may_not(machine, capsys):
    machine(HERE, NO_MODEL)
    assert doctor.main([]) == 1
    assert "required and missing: course-tiny" in capsys.readouterr().out


def test_json_for_machines(machine, capsys):
    machine(HERE, NO_MODEL)
    assert doctor.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is False
    assert report["findings"][1] == {"name": "course-tiny", "found": False, "required": True, "detail": "not there",
                                     "get": "llmcourse train"}


def test_packages_and_programs_are_looked_for_without_starting_them(monkeypatch, tmp_path):
    assert doctor.package("pytest", "pytest", "").found
    assert not doctor.package("no-such-package-here", "?", "get it").found
    tool = tmp_path / "some-browser"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.program(("other", "some-browser"), "?", "", "").detail == str(tool)
    assert not doctor.program(("other",), "?", "why", "get it").found


def test_what_is_missing_always_says_how_to_get_it():
    for check in doctor.CHECKS:
        finding = check()
        assert finding.found or finding.get, finding.name
