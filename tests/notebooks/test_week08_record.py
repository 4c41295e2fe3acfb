"""The recorded runs of week 8, films and curve, are what the live runs answer."""

import json

import pytest

from benchmarks import balance
from llmcourse.paths import week
from tests.notebooks.demos import demo_of

FOLDER = week(8)
CURVE = json.loads((FOLDER / "recorded_curve.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demo():
    """The names of the demo."""
    with demo_of(8) as names:
        yield names


def plain(film):
    """A film without what the record leaves out."""
    moments = [[[(h.request, h.blocks, h.kind, h.home) for h in one.held] for one in moment] for moment in film.moments]
    return moments, film.moves, film.preemptions, film.times


def test_recorded_is_what_runs_live(demo):
    for policy in demo["POLICIES"]:
        assert plain(demo["recorded"](policy)) == plain(demo["live"](policy)), "answers otherwise now: call record()"


def test_replay_shows_the_record(demo):
    live = demo["cluster"].preset("moving").summary
    assert demo["cluster"].set(source="recorded").summary == live
    assert demo["cluster"].values["source"] == "recorded"


def test_the_films_show_what_they_are_for(demo):
    """Migration moves requests, and only where it is on; fewer wait at the worst moment under it than under none."""
    moved = {policy: len(demo["recorded"](policy).moves) for policy in demo["POLICIES"]}
    assert [policy for policy, count in moved.items() if count] == ["freeness + migration"]
    waits = {policy: sum(one.blocks("waits") for moment in demo["recorded"](policy).moments for one in moment)
             for policy in demo["POLICIES"]}
    assert waits["freeness + migration"] < waits["freeness"] < waits["round robin"]


def test_counting_what_one_sent_ends_the_herd(demo):
    times = {rule: demo["queues"](rule, 4)[1] for rule in demo["CHOICES"]}
    assert times["shortest, counting what I sent"] < times["two choices"] < times["shortest"]


def test_the_curve_has_every_point_and_one_of_them_comes_out_again():
    points = {(row["rate"], row["system"]): row for row in CURVE["rows"]}
    assert set(points) == {(rate, system) for rate in balance.RATES for system in balance.SYSTEMS}
    assert {row["requests"] for row in CURVE["rows"]} == {CURVE["requests"] * CURVE["seeds"]}
    job = (5.5, "freeness + migration")
    assert balance.point((*job, CURVE["requests"], CURVE["seeds"])) == points[job], "run benchmarks/balance.py again"
