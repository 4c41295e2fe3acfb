"""The cluster map: what each instance holds at each moment is what the log says, and both films are drawn."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from llmcourse import viz
from llmcourse.engine.events import Event, EventKind
from llmcourse.errors import UserError
from llmcourse.viz.cluster_reader import Held, Move


def step(instance, end, blocks, number=0):
    data = {"step": number, "start": end - 1, "batch": [], "blocks": blocks, "waiting": 0, "running": 1,
            "used_blocks": 0, "num_blocks": 10, "block_size": 4}
    return Event(end, EventKind.STEP, None, data, instance)


def queued(instance, time, name, tokens, priority=0):
    data = {"prompt_tokens": tokens, "max_tokens": 9, "priority": priority}
    return Event(time, EventKind.QUEUED, name, data, instance)


def moving(instance, time, name, stage, **data):
    return Event(time, EventKind.MIGRATION, name, {"stage": stage, **data}, instance)


@pytest.fixture
def log():
    """Two instances: a moves from 0 to 1 between 3 and 5 s, b waits on 0 until then, c tries to move and does not."""
    way = {"source": 0, "destination": 1, "method": "live"}
    return [
        queued(0, 0.0, "a", 12), Event(0.0, EventKind.SCHEDULED, "a", {"computed": 0}, 0),
        step(0, 1.0, [("a", [0, 1, 2])]), Event(1.0, EventKind.NEW_TOKENS, "a", {"tokens": [5]}, 0),
        queued(0, 1.0, "b", 30, priority=1),
        step(0, 2.0, [("a", [3])], 1), Event(2.0, EventKind.NEW_TOKENS, "a", {"tokens": [5]}, 0),
        queued(1, 2.0, "c", 4), Event(2.0, EventKind.SCHEDULED, "c", {"computed": 0}, 1), step(1, 3.0, [("c", [9])]),
        moving(0, 3.0, "a", "begun", **way), moving(1, 3.0, "a", "reserved", blocks=[4, 5, 6, 7]),
        moving(0, 3.5, "a", "copy", first=0, last=3), moving(0, 4.5, "a", "stopped", blocks=[]),
        moving(0, 4.5, "a", "copy", first=3, last=4), moving(1, 5.0, "a", "adopted", blocks=[]),
        moving(0, 5.0, "a", "released", blocks=[0, 1, 2, 3]), moving(0, 5.0, "a", "moved", **way),
        Event(5.0, EventKind.SCHEDULED, "b", {"computed": 0}, 0), step(0, 6.0, [("b", list(range(8)))], 2),
        moving(1, 6.0, "c", "begun", source=1, destination=0), moving(0, 6.0, "c", "reserved", blocks=[8]),
        moving(0, 7.0, "c", "dropped", blocks=[8]), moving(1, 7.0, "c", "aborted", source=1, destination=0),
        Event(8.0, EventKind.PREEMPTED, "b", {"computed": 30, "freed": [], "saved": None}, 0),
        Event(9.0, EventKind.FINISHED, "c", {"reason": "length"}, 1), step(1, 10.0, [], 1),
    ]


@pytest.fixture
def film(log):
    return viz.cluster_film(log, frames=20)          # a frame each half second


def at(film, time):
    return film.moments[film.times.index(time)]


def test_a_request_that_moves_has_room_on_both_sides_and_then_on_one(film):
    before, during, after = at(film, 2.5), at(film, 4.0), at(film, 5.5)
    assert before[0].held == (Held("a", 4, "runs", 0), Held("b", 8, "waits", 0, 1))
    assert Held("a", 4, "coming", 0) in during[1].held and during[0].blocks("runs") == 4
    assert Held("a", 4, "runs", 0) in after[1].held and "a" not in [held.request for held in after[0].held]


def test_what_waits_counts_with_the_blocks_its_tokens_need(film):
    assert at(film, 2.5)[0].blocks("waits") == 8 and at(film, 6.0)[0].blocks("waits") == 0
    assert at(film, 8.5)[0].blocks("runs") == 0 and at(film, 8.5)[0].blocks("waits") == 8
    assert film.preemptions == ((8.0, 0),)


def test_a_move_that_was_given_up_leaves_nothing(film):
    assert at(film, 6.5)[0].blocks("coming") == 1 and at(film, 7.0)[0].blocks("coming") == 0
    assert at(film, 7.5)[1].blocks("runs") == 5 and at(film, 9.5)[1].blocks("runs") == 4
    moved, aborted = film.moves
    assert moved == Move("a", 0, 1, 3.0, 5.0, "moved", 4)
    assert aborted == Move("c", 1, 0, 6.0, 7.0, "aborted", 0)


def test_a_request_that_waits_can_move_too():
    log = [queued(0, 0.0, "a", 8), step(1, 1.0, []), moving(0, 1.0, "a", "begun", source=0, destination=1),
           moving(1, 1.0, "a", "adopted", blocks=[]), moving(0, 1.0, "a", "released", blocks=[]),
           moving(0, 1.0, "a", "moved", source=0, destination=1), step(1, 2.0, [])]
    last = viz.cluster_film(log, frames=2).moments[-1]
    assert not last[0].held and last[1].held == (Held("a", 2, "waits", 0),)


def test_two_films_side_by_side(film):
    figure = viz.cluster_map({"as it was": film, "again": film}, 8)
    table = viz.table(figure)
    assert [row[:3] for row in table.rows] == [
        (name, *numbers) for name in ("as it was", "again") for numbers in (("0", "4"), ("1", "1"))]
    assert "0 moved so far" in viz.summary(figure)
    picture = ET.fromstring(viz.to_svg(figure, viz.summary(figure)))
    tips = [one.text or "" for one in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert sum("a: 4 blocks, room kept" in tip for tip in tips) == 2
    assert sum("a: 0 → 1, 4 blocks" in tip for tip in tips) == 4       # on its way above, moved below, in both films
    after = viz.cluster_map(film, 12)
    assert "1 moved so far" in viz.summary(after)


def test_of_many_migrations_only_the_newest_have_a_curve(film):
    """An arrowhead for each, wherever one looks; a curve for those that have just ended (times end at 10 s here)."""
    moves = tuple(Move(f"m{k}", k % 2, 1 - k % 2, k / 5, k / 5 + 0.1, "moved", 1) for k in range(40))

    def drawn(count, frame):
        """Arrowheads and curves below."""
        figure = viz.cluster_map(replace(film, moves=moves[:count], preemptions=()), frame)
        below = [one for one in figure.data if one.xaxis == "x2" and one.type == "scatter"]
        return (sum(len(one.x) for one in below if one.mode == "markers"),
                sum(list(one.x).count(None) for one in below if one.mode == "lines"))

    assert drawn(40, 0) == (40, 0) and drawn(40, 10) == (40, 2)
    assert drawn(20, 0) == drawn(20, 10) == (20, 20), "of few all"


def test_films_of_different_length_can_end_together(log):
    film = viz.cluster_film(log, frames=4, until=20.0)
    assert film.times == (0.0, 5.0, 10.0, 15.0, 20.0)
    assert film.moments[1] == viz.cluster_film(log, frames=20).moments[10] and film.moments[4] == film.moments[2]


def test_a_stack_that_is_too_high_is_cut_off():
    log = [queued(0, 0.0, "a", 400), step(0, 1.0, [])]
    figure = viz.cluster_map(viz.cluster_film(log, frames=1))
    bars = [bar for bar in figure.data if bar.type == "bar"]
    assert max(base + y for bar in bars for base, y in zip(bar.base, bar.y, strict=True)) == 15
    assert viz.table(figure).rows[0][4] == "100", "the table has the whole number"


def test_the_explorer_answers(film):
    widget = viz.cluster_explorer(film, presets={"on its way": 8})
    assert "After 4.0 s" in widget.preset("on its way").summary
    assert "After 5.0 s" in widget.set(step=10).summary


@pytest.mark.parametrize("make", [lambda log: viz.cluster_film([]), lambda log: viz.cluster_film(log, frames=0),
                                  lambda log: viz.cluster_map({})])
def test_nothing_to_see(log, make):
    with pytest.raises(UserError):
        make(log)
