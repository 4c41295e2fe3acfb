"""The recorded run behind the Replay preset of week 7's timeline: complete, right, and read back as it was written."""

import json

import pytest

from llmcourse import viz
from llmcourse.paths import week
from tests.notebooks.demos import demo_of

FOLDER = week(7)


@pytest.fixture(scope="module")
def demo():
    """The names of the demo's first panel."""
    with demo_of(7, ("setup", "timeline-widget")) as names:
        yield names


def test_every_setting_is_recorded_and_its_client_got_the_right_tokens(demo):
    rows = json.loads((FOLDER / "recorded.json").read_text())
    assert set(rows) == {f"{method} | {death}" for method in demo["METHODS"] for death in demo["DEATHS"]}
    assert all(correct for _, correct in rows.values())


def test_who_dies_decides_how_it_ends(demo):
    for method in demo["METHODS"]:
        for death in demo["DEATHS"]:
            move, _ = demo["recorded"](method, death)
            moved = death in ("nobody dies", "the source, after the commit")
            assert move.outcome == ("moved" if moved else "aborted"), (method, death)
            dead = [] if death == "nobody dies" else [int("destination" in death)]
            assert [number for _, number in move.faults] == dead
            assert viz.summary(viz.migration_timeline(move)).startswith(method)


def test_the_writing_loses_nothing_that_is_drawn(demo):
    move, correct = demo["live"]("live", "nobody dies")
    again = demo["read"](json.loads(json.dumps(demo["written"](move))))
    assert correct and again.outcome == "moved" and len(again.copies) == len(move.copies) >= 2
    assert again.downtime == pytest.approx(move.downtime, abs=1e-4) and len(again.work) == len(move.work)


def test_replay_shows_the_record(demo):
    assert "every token right" in demo["timeline"].preset("Replay").svg
    assert demo["timeline"].values["source"] == "recorded"
