"""ISRTF and TRAIL: when they predict again, and whom they leave alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, Status
from llmcourse.engine.policy import FOREVER
from llmcourse.errors import UserError
from llmcourse.policies import FCFS, ISRTF, SJF, SRTF, LimitedPreemption
from tests.policies.bench import ask, mocked, serve

JOBS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9), st.integers(1, 12)), min_size=1, max_size=7)
Jobs = list[tuple[int, int, int]]


def requests(jobs: Jobs, oracle: bool = False) -> list[tuple[float, Request]]:
    """(arrival, output, prediction) as requests."""
    return [(float(at), ask(steps, id=f"j{n}", predicted=steps if oracle else guess))
            for n, (at, steps, guess) in enumerate(jobs)]


def test_a_running_request_is_pushed_out_only_where_its_window_ends() -> None:
    def end(window: int) -> float:
        engine = mocked(ISRTF(window))
        return serve(engine, [(0, ask(10, id="long")), (1, ask(2, id="short"))])["short"]
    assert [end(window) for window in (1, 2, 3, 4, 6, 50)] == [3, 4, 5, 6, 8, 12]


def test_it_predicts_at_arrival_and_after_every_window() -> None:
    asked: list[int] = []

    def remaining(request: Request) -> float:
        asked.append(request.num_output)
        return 10 - request.num_output
    policy = ISRTF(3, remaining)
    serve(mocked(policy), [(0, ask(10))])
    assert asked == [0, 3, 6, 9]
    assert policy.repredictions == 3


def under_way(policy: ISRTF, name: str, predicted: float, output: int) -> Request:
    """A request that runs, or waits if it has said nothing."""
    request = ask(99, id=name, predicted=predicted)
    policy.on_queued(request, 0.0)
    for _ in range(output):
        request.tokens.append(1)
        policy.on_tokens(request, 1, 1, 0.0)
    request.status = Status.RUNNING if output else Status.WAITING
    return request


def test_by_default_what_is_left_falls_by_whole_windows_and_to_no_less_than_a_token() -> None:
    policy = ISRTF(3)
    left = [policy.key(under_way(policy, f"r{n}", 20, n), 0.0)[1] for n in (0, 1, 2, 3, 5, 6, 8, 9, 30)]
    assert left == [20, 20, 20, 17, 17, 14, 14, 11, 1]


def test_order_is_steady_until_a_window_ends_in_which_somebody_may_be_pushed_out() -> None:
    policy = ISRTF(3)
    long, short, waiting = (under_way(policy, *each) for each in (("long", 20, 4), ("short", 6, 1), ("waiting", 8, 0)))
    assert policy.steady_steps([long, short], [waiting]) == 2            # "long" has 5 of 20 behind it then, 14 left
    assert policy.steady_steps([short], [waiting]) == policy.steady_steps([long], []) == FOREVER
    even = under_way(policy, "even", 14, 4)                              # 11 now, 8 at the window's end
    assert policy.steady_steps([even], [waiting]) == 2
    for window, output, steps in ((1, 4, FOREVER), (2, 5, 1), (50, 4, 46)):
        policy = ISRTF(window)
        running, waiting = under_way(policy, "running", 90, output), under_way(policy, "waiting", 8, 0)
        assert policy.steady_steps([running], [waiting]) == steps
    told = ISRTF(4, lambda request: 5.0)                                 # whatever it says next, it is asked
    assert told.steady_steps([under_way(told, "a", 1, 7), under_way(told, "b", 1, 2)], []) == 1


def test_a_better_second_prediction_changes_the_order() -> None:
    truth = {"a": 8, "b": 3}

    def remaining(request: Request) -> float:
        return 1 if request.num_output == 0 and request.id == "a" else truth[request.id] - request.num_output
    arrivals = [(0.0, ask(8, id="a")), (0.0, ask(3, id="b"))]
    assert serve(mocked(ISRTF(2, remaining)), arrivals) == {"b": 5, "a": 11}
    fixed = [(0.0, ask(8, id="a", predicted=1)), (0.0, ask(3, id="b", predicted=3))]
    assert serve(mocked(ISRTF(2)), fixed) == {"a": 8, "b": 11}            # without one, "a" counts as nearly done


@settings(max_examples=60, deadline=None)
@given(JOBS, st.integers(1, 3), st.integers(1, 5))
def test_whatever_is_predicted_nobody_has_less_than_a_token_left(jobs: Jobs, slots: int, window: int) -> None:
    policy = ISRTF(window, lambda request: -5.0)
    engine = mocked(policy, slots)

    def look() -> None:
        for request in (*engine.scheduler.waiting, *engine.scheduler.running):
            assert policy.key(request, 0)[1] >= 1
    serve(engine, requests(jobs), look)


@settings(max_examples=80, deadline=None)
@given(JOBS, st.integers(1, 3))
def test_a_window_of_one_token_is_srtf(jobs: Jobs, slots: int) -> None:
    ends = [serve(mocked(policy, slots), requests(jobs, oracle=True)) for policy in (ISRTF(1), SRTF())]
    assert ends[0] == ends[1]


@settings(max_examples=60, deadline=None)
@given(JOBS, st.integers(1, 3))
def test_an_endless_window_and_a_limit_of_nought_push_nobody_out(jobs: Jobs, slots: int) -> None:
    plain = serve(mocked(SJF(), slots, num_blocks=200), requests(jobs))
    for policy in (ISRTF(1000), LimitedPreemption(0)):
        engine = mocked(policy, slots, num_blocks=200)
        assert serve(engine, requests(jobs)) == plain and engine.counters.preemptions == 0


@settings(max_examples=60, deadline=None)
@given(JOBS, st.integers(1, 3), st.integers(1, 6))
def test_every_push_is_at_the_end_of_a_window(jobs: Jobs, slots: int, window: int) -> None:
    engine = mocked(ISRTF(window), slots, num_blocks=200)
    said = pushed_out(engine, requests(jobs))
    assert all(n % window == 0 and n > 0 for _, n in said)


def pushed_out(engine: Engine, arrivals: list[tuple[float, Request]]) -> list[tuple[str, int]]:
    """Who was pushed out, and how many tokens it had said by then."""
    serve(engine, arrivals)
    said: list[tuple[str, int]] = []
    count: dict[str, int] = {}
    for event in engine.events:
        if event.kind == "NEW_TOKENS" and event.request:
            count[event.request] = count.get(event.request, 0) + len(event.data["tokens"])
        if event.kind == "PREEMPTED" and event.request:
            said.append((event.request, count.get(event.request, 0)))
    return said


def test_trail_leaves_alone_who_has_said_its_share() -> None:
    def end(c: float) -> float:
        return serve(mocked(LimitedPreemption(c)), [(0, ask(10, id="long")), (5, ask(2, id="short"))])["short"]
    assert end(0.6) == 7 and end(0.5) == 12 and end(0.0) == 12


@settings(max_examples=80, deadline=None)
@given(JOBS, st.integers(1, 3), st.sampled_from([0.2, 0.5, 0.8]))
def test_trail_pushes_out_nobody_past_the_limit(jobs: Jobs, slots: int, c: float) -> None:
    engine = mocked(LimitedPreemption(c), slots, num_blocks=200)
    for name, said in pushed_out(engine, requests(jobs)):
        assert said < c * jobs[int(name[1:])][2]


@settings(max_examples=60, deadline=None)
@given(JOBS, st.integers(1, 3))
def test_trail_without_a_limit_is_srtf(jobs: Jobs, slots: int) -> None:
    arrivals = requests(jobs, oracle=True)
    assert serve(mocked(LimitedPreemption(1), slots), arrivals) == serve(mocked(SRTF(), slots),
                                                                         requests(jobs, oracle=True))


def test_trail_asks_the_probe_at_every_decision_and_the_status_is_the_engines() -> None:
    seen: set[tuple[Status, int]] = set()

    def probe(request: Request) -> float:
        seen.add((request.status, request.num_output))
        return 4 - request.num_output
    serve(mocked(LimitedPreemption(1, probe)), [(0, ask(4, id="a")), (0, ask(4, id="b"))])
    assert {n for status, n in seen if status is Status.RUNNING} >= {1, 2, 3}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="window is 0 tokens"):
        ISRTF(0)
    with pytest.raises(UserError, match="c is -1"):
        LimitedPreemption(-1)
    assert serve(mocked(FCFS()), [(0, ask(1, id="x"))]) == {"x": 1}
