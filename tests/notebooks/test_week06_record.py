"""The recorded run behind the Replay preset of week 6's car park is what the live run answers."""

import json

import pytest

from llmcourse.paths import week
from tests.notebooks.demos import demo_of

FOLDER = week(6)


@pytest.fixture(scope="module")
def demo():
    """The names of the demo's first panel."""
    with demo_of(6, ("setup", "park-widget")) as names:
        yield names


def test_recorded_is_what_runs_live(demo):
    for memory in demo["MEMORIES"]:
        for mix in demo["MIXES"]:
            same = demo["recorded"](memory, mix) == demo["live"](memory, mix)
            assert same, "the engine answers otherwise now: call record()"


def test_every_setting_of_the_panel_is_recorded(demo):
    names = json.loads((FOLDER / "recorded.json").read_text())
    assert set(names) == {f"{memory} | {mix}" for memory in demo["MEMORIES"] for mix in demo["MIXES"]}


def test_the_writing_loses_nothing(demo):
    for moment in demo["live"]("blocks of 8", "cars and buses"):
        assert demo["read"]("blocks of 8", json.loads(json.dumps(demo["written"](moment)))) == moment


def test_replay_shows_the_record(demo):
    park = demo["park"]
    live = park.preset("the bus cannot park").summary
    assert park.preset("Replay").summary == live
    assert park.values["source"] == "recorded"


def test_the_pictures_show_what_they_are_for(demo):
    """Free slots that the first in line may not use in contiguous memory, and none in blocks."""
    table = demo["viz"].table(demo["panel"]("reserve exactly, first fit", "cars and buses", 43, "live"))
    external = {row[0]: int(row[table.columns.index("external")]) for row in table.rows}
    assert external["reserve exactly, first fit"] > 50 and external["blocks of 8"] == 0
