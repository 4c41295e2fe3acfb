"""Learning to rank: order by score, promotion by idle steps, and the bound it proves."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request
from llmcourse.errors import UserError
from llmcourse.policies import LearningToRank
from tests.policies.bench import ask, mocked, serve

JOBS = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 40), st.integers(0, 5)), min_size=2, max_size=14)
Jobs = list[tuple[int, int, int]]


def test_the_best_score_goes_first_and_pushes_out_who_has_a_worse_one() -> None:
    engine = mocked(LearningToRank())
    ends = serve(engine, [(0, ask(4, id="a", predicted=7)), (1, ask(5, id="b", predicted=-2.5)),
                          (1, ask(1, id="c", predicted=3))])
    assert ends == {"b": 6, "c": 7, "a": 10}               # a score is no length: it stays while the answer grows
    assert engine.counters.preemptions == 1


def test_who_is_idle_for_t_steps_is_promoted_for_p_runs() -> None:
    policy = LearningToRank(starve_after=5, promoted_for=2)
    engine = mocked(policy)
    serve(engine, [(0, ask(14, id="good", predicted=1)), (0, ask(4, id="bad", predicted=9))])
    ran = [event.request for event in engine.events if event.kind == "NEW_TOKENS"]
    assert ran == ["good"] * 5 + ["bad"] * 2 + ["good"] * 5 + ["bad"] * 2 + ["good"] * 4
    assert policy.promotions == 2


def idle_steps(engine: Engine, jobs: Jobs) -> tuple[int, int]:
    """Serve; the most steps anybody was idle, and the most who lived at once, seen from outside."""
    idle: dict[str, int] = {}
    worst = most = 0
    mark = 0

    def look() -> None:
        nonlocal worst, most, mark
        ran = {event.request for event in engine.events[mark:] if event.kind == "NEW_TOKENS"}
        mark = len(engine.events)
        live = [r for r in engine.requests.values() if r.id in ran or not r.done]
        most = max(most, len(live))
        for request in live:
            idle[request.id] = 0 if request.id in ran else idle.get(request.id, 0) + 1
            worst = max(worst, idle[request.id])
    serve(engine, requests(jobs), look)
    return worst, most


def requests(jobs: Jobs) -> list[tuple[float, Request]]:
    return [(float(at), ask(steps, id=f"j{n}", predicted=score)) for n, (at, steps, score) in enumerate(jobs)]


@settings(max_examples=120, deadline=None)
@given(JOBS, st.integers(1, 3), st.integers(30, 100), st.integers(1, 4))
def test_nobody_is_idle_longer_than_the_bound(jobs: Jobs, slots: int, after: int, runs: int) -> None:
    policy = LearningToRank(after, runs)
    engine = mocked(policy, slots, num_blocks=400, budget=200)
    worst, most = idle_steps(engine, jobs)
    bound = policy.bound(slots, most - 1)
    assume(bound is not None)
    assert bound is not None and worst <= bound


def test_without_promotion_the_bound_is_broken() -> None:
    jobs: Jobs = [(0, 10, 9), *[(2 * n, 2, 1) for n in range(200)]]      # the slot is always wanted by better ones
    policy = LearningToRank(60, 1)
    worst, most = idle_steps(mocked(policy, num_blocks=400), jobs)
    bound = policy.bound(1, most - 1)
    assert bound is not None and 60 <= worst <= bound
    assert idle_steps(mocked(LearningToRank(10_000, 1), num_blocks=400), jobs)[0] > bound


def test_the_bound_in_numbers() -> None:
    assert LearningToRank(200, 10).bound(32, 0) == 200
    assert LearningToRank(200, 10).bound(10, 50) == pytest.approx(200 * (1 + 2 * 0.5 / 0.5))
    assert LearningToRank(200, 10).bound(10, 100) is None                # as many promotions as can be used up


def test_who_must_be_filled_in_several_steps_gets_further_however_short_the_promotion() -> None:
    engine = mocked(LearningToRank(1, 1), budget=4)
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        assert steps < 500, "they take the slot from each other for ever"
    serve(engine, [(0, ask(9, 5, id="a")), (0, ask(9, 5, id="b"))], count)


@settings(max_examples=60, deadline=None)
@given(JOBS, st.integers(1, 3), st.integers(1, 9), st.integers(1, 4))
def test_it_counts_the_steps_of_the_scheduler(jobs: Jobs, slots: int, after: int, runs: int) -> None:
    policy = LearningToRank(after, runs)
    engine = mocked(policy, slots, num_blocks=400, budget=200)
    serve(engine, requests(jobs))
    assert policy.steps == engine.counters.steps


def test_a_promotion_is_counted_once_however_long_it_waits() -> None:
    """Two starve at the same time; the second waits until the first has used its promotion up."""
    policy = LearningToRank(starve_after=5, promoted_for=4)
    engine = mocked(policy, num_blocks=200)
    serve(engine, [(0, ask(5, id="good", predicted=1)), *[(0, ask(4, id=f"bad{n}", predicted=9)) for n in range(2)]])
    ran = [event.request for event in engine.events if event.kind == "NEW_TOKENS"]
    assert ran == ["good"] * 5 + ["bad0"] * 4 + ["bad1"] * 4 and policy.promotions == 2


def test_it_counts_steps_that_are_jumped_over_too() -> None:
    """Prompts of many chunks, alone and beside decodes: all that a simulation jumps over are steps."""
    policy = LearningToRank()
    engine = Engine.simulated(policy=policy, max_running=2, token_budget=64)
    turns = 0
    for number, prompt in enumerate((1000, 20, 700, 700)):
        engine.add(ask(50, prompt, predicted=number))
    while not engine.idle:
        engine.step()
        engine.forward()
        turns += 1
        assert policy.steps == engine.counters.steps
    assert turns < engine.counters.steps / 2


def test_order_is_steady_until_a_promotion_begins_or_ends() -> None:
    policy = LearningToRank(starve_after=9, promoted_for=4)
    requests = {name: ask(30, id=name, predicted=1) for name in ("runs", "waits", "late")}
    for name in ("runs", "waits"):
        policy.on_queued(requests[name], 0.0)
    running, waiting = [requests["runs"]], [requests["waits"]]
    steady = []
    for step in range(1, 10):
        policy.on_tokens(requests["runs"], 1, 1, float(step))
        steady.append(policy.steady_steps(running, waiting))
    assert steady == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert policy.key(requests["waits"], 9.0) < policy.key(requests["runs"], 9.0)
    policy.on_scheduled(requests["waits"], 9.0)
    assert policy.steady_steps(waiting, running) == 1        # nobody is handed a token, so steps cannot be counted
    steady = []
    for step in range(10, 13):
        policy.on_tokens(requests["waits"], 1, 1, float(step))
        steady.append(policy.steady_steps(waiting, running))
    assert steady == [3, 2, 1]                               # of its promotion
    policy.on_queued(requests["late"], 12.0)
    assert policy.idle(requests["late"]) == 0 and policy.idle(requests["runs"]) == 3


def test_bad_settings_are_refused() -> None:
    for bad in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match="both are at least 1"):
            LearningToRank(*bad)
    assert LearningToRank(1, 1).bound(1, 1) is None
