"""Who gives way: each rule picks whom it says, and no rule loses a token."""

import pytest

from llmcourse.engine import Engine, Policy, Request
from llmcourse.errors import UserError
from llmcourse.policies import FCFS, VICTIMS, VTC, with_victim
from tests.policies.bench import ask, mocked, serve


def running() -> list[Request]:
    """Three requests as they might stand in an engine: prompt, output so far, output in all, priority."""
    made = []
    for place, (prompt, output, longest, priority) in enumerate([(40, 9, 10, 0), (5, 1, 90, 2), (20, 3, 50, 1)]):
        request = ask(longest, prompt, id="abc"[place], priority=priority)
        request.tokens += [1] * output
        request.computed = len(request.tokens) - 1
        request.rank = (0, place)
        made.append(request)
    return made


@pytest.mark.parametrize("rule, victim", [
    ("latest-arrival", "c"), ("lowest-priority", "b"), ("most-blocks", "a"), ("least-progress", "b"),
    ("closest-to-finishing", "a"), ("cheapest-to-recompute", "b")])
def test_each_rule_picks_whom_it_says(rule: str, victim: str) -> None:
    assert VICTIMS[rule](running(), 0.0).id == victim


def test_of_equals_the_latest_gives_way() -> None:
    same = [ask(10, 4, id=name) for name in "abc"]
    for place, request in enumerate(same):
        request.rank = (0, place)
    assert {name: rule(same, 0.0).id for name, rule in VICTIMS.items()} == dict.fromkeys(VICTIMS, "c")


def tight(policy: Policy) -> Engine:
    """Memory for about half of what the requests will hold."""
    engine = mocked(policy, slots=6, num_blocks=40)
    serve(engine, [(float(n), ask(5 + 13 * n % 37, 4 + 7 * n % 19, id=f"r{n}", tenant="ab"[n % 2])) for n in range(24)])
    return engine


def test_every_rule_serves_everybody_and_the_misconception_computes_most_again() -> None:
    again = {}
    for name in VICTIMS:
        engine = tight(with_victim(FCFS(), name))
        assert all(request.done for request in engine.requests.values()) and engine.counters.preemptions
        again[name] = engine.counters.recomputed_tokens / engine.counters.preemptions
    assert again["closest-to-finishing"] > 2 * again["cheapest-to-recompute"]
    assert again["most-blocks"] > again["least-progress"]


def test_it_goes_with_any_policy_and_leaves_the_class_as_it_was() -> None:
    assert tight(with_victim(VTC(), "least-progress")).counters.preemptions
    assert with_victim(FCFS(), lambda running, now: running[0]).victim(running(), 0.0).id == "a"
    assert FCFS().victim(running(), 0.0).id == "c"
    with pytest.raises(UserError, match="no rule 'oldest' for victims; there are latest-arrival"):
        with_victim(FCFS(), "oldest")
