"""The trial behind the maps of autoscaling, in small, and how equal tails are read off."""

import pytest

from benchmarks._decide_fleet import drain_map
from benchmarks._fleet_day import Day, System, full_throughput, hours_at, serve
from llmcourse.cluster.autoscale import Reactive


def test_hours_at_a_tail_lie_between_points_that_none_beats():
    points = [(1.0, 9.0), (4.0, 5.0), (2.0, 8.0), (3.0, 20.0), (16.0, 5.5)]          # two are beaten in both
    assert hours_at(points, 1.0) == 9.0 and hours_at(points, 4.0) == 5.0
    assert hours_at(points, 8**0.5) == pytest.approx(6.5), "half way in the logarithm"
    assert hours_at(points, 5.0) == 5.0, "the cheapest has a shorter tail"
    assert hours_at(points, 0.9) is None and hours_at([], 1.0) is None


def test_a_small_day_is_served_whole_and_paid_for():
    day = Day(200.0, low=0.5, high=2.0, bursts=1.0, burst=20.0)
    workload = day.arrivals(0)
    assert workload == day.arrivals(0) != day.arrivals(1) and workload[-1].time < 200
    assert sum(day.rates(0)) * 60 == pytest.approx(len([each for each in workload if each.time < 180]), rel=0.2)
    fixed, grown = serve(System(None, first=3), workload), serve(System(Reactive(most=3)), workload)
    assert len(fixed.table) == len(grown.table) == len(workload)
    assert fixed.hours == pytest.approx(3 * fixed.driver.now / 3600) and fixed.scalings == 0
    assert grown.hours < fixed.hours and grown.scalings > 0 and grown.most <= 3
    assert 100 < full_throughput() < 1000


def test_the_map_of_drains_shows_that_migration_frees_sooner():
    made = drain_map([0], quick=True)
    freed = {(row["load per instance"], row["drain by"]): row["freed after s"] for row in made.rows}
    assert freed[0.4, "migrate"].mean < freed[0.4, "wait"].mean
