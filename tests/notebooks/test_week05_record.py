"""The recorded run behind the Replay preset of week 5's panel is what the live run answers."""

import json

import pytest

from llmcourse.paths import week
from tests.notebooks.demos import demo_of

FOLDER = week(5)


@pytest.fixture(scope="module")
def demo():
    """The names of the demo's first panel."""
    with demo_of(5, ("setup", "neighbour-widget")) as names:
        yield names


@pytest.mark.parametrize("setting", [(1.0, True, "token counter", "open"), (2.0, True, "memory quota", "open")])
def test_recorded_is_what_runs_live(demo, setting):
    live = demo["live"](*setting)
    for tenant, numbers in demo["recorded"](*setting).items():
        assert numbers == pytest.approx(live[tenant], abs=2e-4), "the engine answers otherwise now: call record()"


def test_every_setting_of_the_panel_is_recorded(demo):
    settings = 1 + 4 * 2 * len(demo["ORDERS"]) * len(demo["DOORS"])
    assert len(json.loads((FOLDER / "recorded.json").read_text())) == settings


def test_replay_shows_the_record(demo):
    panel = demo["neighbour"]
    live = panel.preset("mend it").summary
    assert panel.preset("Replay").summary == live
    assert panel.values["source"] == "recorded"
