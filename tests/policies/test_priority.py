"""Static priority: the important first, and with ageing nobody later than a bounded time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine
from llmcourse.errors import UserError
from llmcourse.policies import StaticPriority
from tests.policies.bench import ask, mocked, serve


def started(engine: Engine) -> dict[str, float]:
    """When each request was first scheduled (s)."""
    return {str(event.request): event.time for event in reversed(engine.events) if event.kind == "SCHEDULED"}


def stream_and_one(policy: StaticPriority) -> dict[str, float]:
    """An important request every second for a minute, each a second of work, and an unimportant one at the start."""
    engine = mocked(policy)
    serve(engine, [(float(second), ask(1, id=f"urgent{second}", priority=0)) for second in range(60)]
          + [(0.5, ask(1, id="patient", priority=2))])
    return started(engine)


def test_without_ageing_the_unimportant_starves_and_with_it_waits_a_bounded_time() -> None:
    assert stream_and_one(StaticPriority())["patient"] == 60
    assert stream_and_one(StaticPriority(ageing=5))["patient"] == 11        # two levels of 5 s after 0.5 s
    assert stream_and_one(StaticPriority(ageing=1))["patient"] == 3


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=12),
       st.integers(1, 8), st.booleans())
def test_nobody_is_overtaken_by_those_who_come_later_than_its_level_is_worth(
        jobs: list[tuple[int, int, int]], ageing: int, preemptive: bool) -> None:
    engine = mocked(StaticPriority(ageing, preemptive))
    serve(engine, [(float(at), ask(output, id=f"j{n}", priority=level)) for n, (at, output, level) in enumerate(jobs)])
    start = started(engine)
    for n, (at, _, level) in enumerate(jobs):
        for m, (other_at, _, other_level) in enumerate(jobs):
            if other_at > at + ageing * (level - other_level) and start[f"j{m}"] >= at:
                assert start[f"j{n}"] < start[f"j{m}"]


def test_preemptive_priority_does_not_wait_for_the_running_one() -> None:
    arrivals = [(0.0, lambda: ask(5, id="low", priority=1)), (1.0, lambda: ask(1, id="high", priority=0))]
    assert serve(mocked(StaticPriority()), [(at, make()) for at, make in arrivals]) == {"low": 5, "high": 6}
    assert serve(mocked(StaticPriority(preemptive=True)), [(at, make()) for at, make in arrivals]) == {
        "high": 2, "low": 6}


def test_ageing_takes_time() -> None:
    with pytest.raises(UserError, match="ageing is 0 s a level"):
        StaticPriority(ageing=0)
