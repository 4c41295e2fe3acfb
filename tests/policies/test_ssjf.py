"""SSJF: by estimated seconds, until somebody has waited too long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, VirtualClock
from llmcourse.engine.policy import FOREVER
from llmcourse.errors import UserError
from llmcourse.executors.roofline import RooflineExecutor
from llmcourse.kv import BlockPool
from llmcourse.policies import SSJF
from tests.policies.bench import ask, mocked, serve, simulate_all
from tests.policies.test_any_schedule import Linear


def test_the_estimate_is_const_and_so_many_seconds_a_token() -> None:
    assert SSJF(const=0.5, per_token=0.02).estimate(ask(9, predicted=100)) == pytest.approx(2.5)
    assert SSJF(const=0.5, per_token=0.02).estimate(ask(50)) == pytest.approx(1.5)      # without a prediction


def test_the_shortest_estimate_starts_next_and_the_running_one_is_left_alone() -> None:
    engine = mocked(SSJF(patience=1000, times=1000))
    ends = serve(engine, [(0, ask(6, id="runs")), (1, ask(3, id="a", predicted=9)), (2, ask(4, id="b", predicted=2))])
    assert ends == {"runs": 6, "b": 10, "a": 13}
    assert engine.counters.preemptions == 0


def crowd(policy: SSJF) -> dict[str, float]:
    """One long request behind an endless stream of short ones, on one slot."""
    short = [(2.0 * n, ask(2, id=f"short{n}")) for n in range(30)]
    return serve(mocked(policy), [*short, (1.0, ask(10, id="long"))])


def test_who_has_waited_longer_than_patience_goes_next() -> None:
    assert crowd(SSJF(patience=1000, times=1000))["long"] == 70           # after all the others
    assert crowd(SSJF(patience=7, times=1000))["long"] == 20              # 8 s is the first moment above 7; runs 10 s


def test_who_has_waited_longer_than_ten_times_its_estimate_goes_next() -> None:
    ends = crowd(SSJF(const=0, per_token=0.1, patience=1000, times=10))   # 10 tokens: 1 s, so after 10 s
    assert ends["long"] == 22
    assert crowd(SSJF(const=0, per_token=0.1, patience=1000, times=5))["long"] == 18


def test_in_an_impatient_round_everybody_goes_by_arrival() -> None:
    ends = serve(mocked(SSJF(patience=3, times=1000)), [(0, ask(5, id="runs")), (0.5, ask(9, id="first")),
                                                        (1, ask(7, id="second")), (2, ask(1, id="third"))])
    assert ends == {"runs": 5, "first": 14, "second": 21, "third": 22}


def squeezed(jump: bool) -> Engine:
    """The shortest finds no room; a small prompt with much to say would, and has waited too long after 0.2 s."""
    policy = SSJF(0, 0.01, patience=0.2, times=float("inf"))
    engine = Engine(RooflineExecutor(Linear()), BlockPool(120, 1), policy, "mixed", 64, 4, VirtualClock(), checked=True)
    return simulate_all(engine, [(0.0, ask(60, 50, id="runs")), (0.01, ask(100, 3, id="oldest")),
                                 (0.02, ask(2, 80, id="shortest"))], jump)


def test_impatience_ends_a_stretch_where_it_lets_somebody_in() -> None:
    jumped, stepped = squeezed(True), squeezed(False)
    assert list(jumped.events) == list(stepped.events)
    start = {event.request: event.time for event in reversed(stepped.events) if event.kind == "SCHEDULED"}
    assert 0.2 < start["oldest"] < 0.3 < start["shortest"]


def test_order_is_steady_where_the_longest_waiting_needs_no_less_room() -> None:
    def steady(oldest: Request, first: Request) -> int:
        policy = SSJF()
        for arrival, request in enumerate((oldest, first)):
            request.arrival = float(arrival)
            policy.on_queued(request, request.arrival)
            policy.key(request, 1.0)
        return policy.steady_steps([], [oldest, first])
    assert steady(ask(9, 5, id="a", predicted=9), ask(9, 5, id="b", predicted=1)) == FOREVER
    assert steady(ask(9, 4, id="a", predicted=9), ask(8, 5, id="b", predicted=1)) == 0
    assert steady(ask(8, 5, id="a", predicted=9), ask(9, 5, id="b", predicted=1)) == 0
    assert steady(ask(8, 5, id="a", predicted=1), ask(9, 5, id="b", predicted=9)) == FOREVER   # itself the first


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), min_size=1, max_size=25), st.integers(0, 20),
       st.integers(1, 3))
def test_nobody_is_overtaken_after_patience_by_who_comes_later(jobs: list[tuple[int, int]], patience: int,
                                                               slots: int) -> None:
    engine = mocked(SSJF(patience=patience, times=float("inf")), slots=slots, num_blocks=400)
    serve(engine, [(float(at), ask(n, id=f"j{i}")) for i, (at, n) in enumerate(jobs)])
    start = {event.request: event.time for event in engine.events if event.kind == "SCHEDULED"}
    for i, (at, _) in enumerate(jobs):
        for j, (later, _) in enumerate(jobs):
            if later > at and start[f"j{j}"] > at + patience:             # somebody was chosen when it was overdue
                assert start[f"j{i}"] <= start[f"j{j}"]


def test_bad_settings_are_refused() -> None:
    for bad in ({"per_token": 0}, {"const": -1}, {"patience": float("nan")}, {"times": -2}):
        with pytest.raises(UserError, match="a token takes more than 0 s"):
            SSJF(**bad)
    ends = serve(mocked(SSJF(const=0, per_token=0.001, patience=0, times=0)), [
        (0, ask(3, id="runs")), (1, ask(9, id="long")), (2, ask(1, id="short"))])
    assert ends == {"runs": 3, "long": 12, "short": 13}      # with no patience at all it is first come, first served
