"""Closed loop: never more requests under way than users, each user again after thinking, `count` in all."""

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.workload import ClosedLoop, Constant, Lognormal, Poisson


def play(loop: ClosedLoop, service: float) -> list:
    """Serve everybody at once, in `service` seconds each; arrivals in the order they came."""
    waiting = [(arrival.time, number, arrival) for number, arrival in enumerate(loop.start())]
    heapq.heapify(waiting)
    came = []
    while waiting:
        time, number, arrival = heapq.heappop(waiting)
        came.append(arrival)
        following = loop.after(time + service)
        if following:
            heapq.heappush(waiting, (following.time, number + len(came) * 1000, following))
    return came


def test_two_users_take_turns():
    loop = ClosedLoop(users=2, think=1.0, prompts=Constant(10), outputs=Constant(5), seed=0, count=5)
    assert [arrival.time for arrival in play(loop, service=3.0)] == [1, 1, 5, 5, 9]
    assert loop.after(100.0) is None


def test_a_slower_service_is_asked_less_often():
    loop = ClosedLoop(10, Poisson(1), Lognormal(100, sigma=1), Lognormal(50, sigma=1), 0, 500)
    fast, slow = play(loop, 1.0), play(loop, 9.0)
    assert slow[-1].time == pytest.approx(5 * fast[-1].time, rel=0.15)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(0, 50), st.floats(0, 10), st.floats(0, 10), st.integers(0, 1000))
def test_never_more_under_way_than_users(users, count, think, service, seed):
    loop = ClosedLoop(users, think, Constant(1), Constant(1), seed, count)
    came = play(loop, service)
    assert len(came) == count
    assert came == play(loop, service), "start begins anew"
    assert len(loop.start()) == min(users, count)
    edges = sorted([(arrival.time, 1) for arrival in came] + [(arrival.time + service, -1) for arrival in came])
    under_way = 0
    for _, step in edges:
        under_way += step
        assert under_way <= users


@pytest.mark.parametrize("change", [{"users": 0}, {"count": -1}, {"think": -1}, {"think": float("nan")}, {"seed": -1}])
def test_a_loop_that_cannot_turn_is_refused(change):
    with pytest.raises(UserError):
        ClosedLoop(**{"users": 1, "think": 1, "prompts": Constant(1), "outputs": Constant(1), "seed": 0, "count": 1,
                      **change})
