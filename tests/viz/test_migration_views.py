"""Pictures of a migration: what is drawn and said is what the log holds, for moves that end well and badly."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from llmcourse import viz
from llmcourse.cluster import RoundRobin, VirtualDriver
from llmcourse.engine import Engine, Event, Request, SamplingParams
from llmcourse.errors import UserError
from llmcourse.viz.downtime import growth
from llmcourse.viz.moving import read_moves
from llmcourse.viz.stream import usual_gap


def step(instance, start, end, *batch):
    """A step in which each (request, position, count) of the batch took part; decodes get a token."""
    data = {"step": 0, "start": start, "batch": list(batch)}
    return [Event(end, "STEP", None, data, instance),
            *(Event(end, "NEW_TOKENS", name, {"tokens": [7]}, instance) for name, _, count in batch)]


def stage(time, name, instance=0, request="a", **data):
    return Event(time, "MIGRATION", request, {"stage": name, **data}, instance)


def live(end="moved", reason=""):
    """Instance 0 decodes a and b, a token a second; a is copied from 10 on, stops at 14.0 and is adopted at 14.5."""
    log = [event for t in range(14) for event in step(0, t, t + 1.0, ("a", t, 1), ("b", t, 1))]
    log += [stage(10.0, "begun", method="live", source=0, destination=1), stage(10.0, "reserved", 1, blocks=[3, 4]),
            stage(13.5, "copy", destination=1, first=0, last=4, bytes=4096, start=10.0),
            stage(14.0, "stopped", 0, blocks=[])]
    if end == "moved":
        log += [stage(14.5, "copy", destination=1, first=4, last=5, bytes=1024, start=14.0),
                stage(14.5, "adopted", 1, blocks=[]), stage(14.5, "released", 0, blocks=[0, 1, 2, 3, 4])]
        log += step(1, 14.5, 15.5, ("a", 14, 1)) + step(0, 14.0, 15.0, ("b", 14, 1))
    else:
        log += [Event(14.2, "FAULT", None, {"instance": 1}), stage(14.3, "resumed", 0, blocks=[])]
        log += step(0, 14.3, 15.3, ("a", 14, 1), ("b", 14, 1))
    return [*log, stage(14.5, end, method="live", source=0, destination=1, reason=reason)]


def test_a_move_is_put_together_from_three_logs():
    [move] = read_moves(sorted(live(), key=lambda event: -event.instance))     # one log behind the other
    assert (move.request, move.source, move.destination, move.method, move.outcome) == ("a", 0, 1, "live", "moved")
    assert [(copy.first, copy.last, copy.stopped) for copy in move.copies] == [(0, 4, False), (4, 5, True)]
    assert move.bytes == 5120 and move.stopped == ((14.0, 14.5),) and move.reserved == ((10.0, 14.5),)
    assert move.downtime == 1.5 and move.pause == (14.0, 15.5)
    assert len(move.tokens) == 15 and list(move.tokens) == sorted(move.tokens)
    kinds = [(work.instance, work.kind) for work in move.work]
    assert kinds.count((0, "decode")) == 14 and kinds.count((0, "others")) == 1 and kinds.count((1, "decode")) == 1


def test_room_is_kept_before_anything_is_sent_whenever_the_destination_wrote_it_down():
    """A destination dates what it is asked by the end of the step under way, which may be behind the first copy."""
    late = [event._replace(time=10.6) if event.kind == "MIGRATION" and event.data["stage"] == "reserved" else event
            for event in live()]
    assert read_moves(late)[0].reserved == ((10.0, 14.5),)
    engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=400) for _ in range(2)]
    driver = VirtualDriver(engines, RoundRobin())
    for number, prompt in enumerate((600, 320, 100)):
        driver.add(Request([-1] * prompt, SamplingParams(max_tokens=60), id=f"r{number}"))
    driver.go_to(0.9)
    driver.migrate("r0", 1)
    driver.finish()
    [move] = read_moves(driver.events)
    assert move.outcome == "moved" and move.begun < move.reserved[0][0] <= move.copies[0].start


def test_an_abort_is_said_and_the_request_stands_until_it_resumes():
    [move] = read_moves(live("aborted", "the destination died"))
    assert move.outcome == "aborted" and move.stopped == ((14.0, 14.3),) and move.faults == ((14.2, 1),)
    figure = viz.migration_timeline(live("aborted", "the destination died"))
    assert move.reserved == ((10.0, 14.2),), "what was kept for it died with the instance"
    assert "aborted (the destination died)" in viz.summary(figure)
    assert [note.text for note in figure.layout.annotations] == ["waits 1.3 s", "instance 1 dies"]


def test_the_timeline_draws_every_stage_where_it_was():
    figure = viz.migration_timeline(live())
    drawn = {trace.name: trace for trace in figure.data}
    assert [*zip(drawn["copied while it runs"].base, drawn["copied while it runs"].x, strict=True)] == [(0.0, 3500.0)]
    assert list(drawn["copied while it stands"].base) == [4000.0] and drawn["copied while it stands"].text == ("1",)
    assert list(drawn["stopped for the migration"].x) == [500.0] and list(drawn["blocks reserved"].base) == [0.0]
    marks = drawn["a token reaches the client"].x
    assert set(marks) >= {0.0, 1000.0, 4000.0, 5500.0} and max(marks) == 5500.0
    said = viz.summary(figure)
    assert "next token 1.5 s passed" in said and "waited at most 1.5 s" in said and said.endswith(".")
    root = ET.fromstring(viz.to_svg(figure, said))
    assert min(float(node.get("font-size")) for node in root.iter() if node.get("font-size")) >= 13
    assert viz.table(figure).rows[0][:3] == ("migration: moved", "0", "4500")


def test_of_several_migrations_one_is_shown_and_a_log_without_any_is_refused():
    later = [event._replace(time=event.time + 100, request=event.request and event.request + "2") for event in live()
             if event.kind != "STEP"]
    assert [move.request for move in read_moves(live() + later)] == ["a", "a2"]
    assert "request a from" in viz.migration_timeline(live() + later, 0).layout.title.text
    assert viz.migration_timeline(read_moves(live())[0]) == viz.migration_timeline(live())
    with pytest.raises(UserError, match="holds 2"):
        viz.migration_timeline(live() + later, 2)
    with pytest.raises(UserError, match="no migration"):
        viz.migration_timeline(step(0, 0.0, 1.0, ("a", 0, 1)))


def test_what_the_picture_says_in_words_lies_beside_its_lines():
    move = read_moves(live())[0]
    start, end = (1000 * (time - move.begun) for time in move.pause)
    for death in (0.3, 0.7):
        died = replace(move, faults=((move.pause[0] + death * (move.pause[1] - move.pause[0]), 0),))
        [waits] = [note for note in viz.migration_timeline(died).layout.annotations if note.text.startswith("waits")]
        assert waits.x == pytest.approx(start + (0.65 if death < 0.5 else 0.35) * (end - start))
    for last, anchor in ((0.03, "top"), (0.015, "bottom")):
        figure = viz.downtime_curves([256, 512], {"live": [0.02, last]}, 0.02)
        assert [note.yanchor for note in figure.layout.annotations if "decode step" in note.text] == [anchor]


def test_the_client_counts_tokens():
    runs = {"live": live(), "aborted": live("aborted", "full")}
    figure = viz.client_streams(runs)
    assert list(figure.data[0].y) == list(range(1, 16)) and figure.data[0].x[-1] == 5500.0
    assert "live: 1.5 s; aborted: 1.3 s" in viz.summary(figure)
    assert usual_gap(read_moves(live())[0]) == 1.0
    assert len(viz.client_streams(runs, before=2.5, after=3.0).data[0].x) == 6
    with pytest.raises(UserError):
        viz.client_streams({})


def test_downtime_curves_say_how_they_grow():
    found = {"live": [0.01, 0.011, 0.012], "stop-and-copy": [0.1, 0.2, 0.4]}
    figure = viz.downtime_curves([256, 512, 1024], found, 0.02)
    assert "live 10 ms to 12 ms (1.2 times); stop-and-copy 100 ms to 400 ms (4.0 times)" in viz.summary(figure)
    assert growth([0.1, 0.2, 0.4]) == pytest.approx(4) and viz.to_svg(figure, viz.summary(figure))
    for wrong in ({}, {"live": [0.1]}, {"live": [0.0, 0.1, 0.2]}):
        with pytest.raises(UserError, match="above 0"):
            viz.downtime_curves([256, 512, 1024], wrong)
