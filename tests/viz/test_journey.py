from dataclasses import dataclass

import pytest

from llmcourse.errors import UserError
from llmcourse.viz import summary, table, to_svg
from llmcourse.viz.journey import LANES, request_journey


@dataclass(frozen=True)
class Stop:
    time: float
    part: str
    what: str


WAY = [Stop(1.0, "gateway", "let in"), Stop(1.5, "scheduler", "queued"), Stop(1.7, "worker", "computed"),
       Stop(1.7, "gateway", "streamed"), Stop(1.9, "worker", "computed")]


def test_each_stop_stands_in_its_lane():
    figure = request_journey(WAY)
    assert [LANES[y] for y in figure.data[1].y] == [stop.part for stop in WAY]
    assert table(figure).rows[2] == ("3", "0.7", "worker", "computed")
    assert summary(figure).endswith("took 900 ms and went through the worker 2 times.")


def test_half_way_shows_what_is_done_and_what_is_to_come():
    figure = request_journey(WAY, at=2)
    assert len(figure.data[0].x) == 5 and len(figure.data[1].x) == 2
    assert figure.data[2].x == (2,) and "scheduler" in figure.data[2].name
    assert summary(figure).startswith("Stop 2 of 5, 500 ms after arrival, scheduler: queued.")
    assert len(table(figure).rows) == 2


def test_an_unknown_part_gets_a_lane_of_its_own():
    figure = request_journey([*WAY, Stop(2.0, "dentist", "why")])
    assert "dentist" in figure.layout.yaxis.ticktext


def test_it_draws_without_a_browser():
    assert to_svg(request_journey(WAY, at=3), "a journey").startswith("<svg")


@pytest.mark.parametrize("at", [0, 6])
def test_stops_that_are_not_there(at):
    with pytest.raises(UserError, match="has 5 stops"):
        request_journey(WAY, at=at)
