"""Earliest deadline first: what can be met is met; what cannot is where it fails."""

from itertools import accumulate, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.policies import EDF, FCFS
from llmcourse.workload import SLO
from tests.policies.bench import ask, first_tokens, mocked, serve

Job = tuple[int, int]            # tokens of the prompt, a step each; seconds to the first token


def feasible(jobs: list[Job]) -> bool:
    """Whether some order on one slot meets every deadline."""
    return any(all(end <= due for end, (_, due) in zip(accumulate(work for work, _ in order), order, strict=True))
               for order in permutations(jobs))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 16)), min_size=1, max_size=5))
def test_it_meets_all_deadlines_whenever_some_order_does(jobs: list[Job]) -> None:
    engine = mocked(EDF(), budget=1)
    serve(engine, [(0.0, ask(1, prompt=work, id=f"j{n}", slo=SLO(ttft=due))) for n, (work, due) in enumerate(jobs)])
    first = first_tokens(engine)
    assert all(first[f"j{n}"] <= due for n, (_, due) in enumerate(jobs)) == feasible(jobs)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 8)), min_size=1, max_size=8))
def test_jobs_of_one_step_that_come_one_after_another_are_as_well_served(jobs: list[tuple[int, int]]) -> None:
    """(arrival, seconds to the deadline): EDF on unit jobs is optimal; Hall's condition says what can be met."""
    possible = all(sum(a <= at and at + due <= b for at, due in jobs) <= b - a
                   for a in range(9) for b in range(a + 1, 17))
    engine = mocked(EDF())
    serve(engine, [(float(at), ask(1, id=f"j{n}", slo=SLO(ttft=due))) for n, (at, due) in enumerate(jobs)])
    first = first_tokens(engine)
    assert all(first[f"j{n}"] <= at + due for n, (at, due) in enumerate(jobs)) == possible


def test_who_has_no_deadline_gets_the_default_and_is_served_in_the_end() -> None:
    engine = mocked(EDF(default_ttft=6))
    ends = serve(engine, [(0, ask(1, id="batch"))] + [(float(t), ask(1, id=f"chat{t}", slo=SLO(ttft=2)))
                                                      for t in range(20)])
    assert 4 <= ends["batch"] <= 6
    assert ends["chat0"] == 1


def test_past_saturation_it_serves_those_already_late_and_fcfs_does_better() -> None:
    """Everybody is late by the same, so the earliest deadline is always one that is lost; a tight one pushes in."""
    arrivals = [(n / 2, 2.0 if n % 2 else 9.0) for n in range(40)]
    met = {}
    for policy in (EDF(), FCFS()):
        engine = mocked(policy)
        serve(engine, [(at, ask(1, id=f"j{n}", slo=SLO(ttft=due))) for n, (at, due) in enumerate(arrivals)])
        first = first_tokens(engine)
        met[type(policy).__name__] = sum(first[f"j{n}"] <= at + due for n, (at, due) in enumerate(arrivals))
    assert met["EDF"] < met["FCFS"] or met["EDF"] < len(arrivals) / 2


def test_a_deadline_lies_in_the_future() -> None:
    with pytest.raises(UserError, match="default_ttft is 0"):
        EDF(0)
