"""Round robin: equal service within a quantum, and what changing over costs."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.policies import RoundRobin
from tests.policies.bench import ask, mocked, serve


def test_two_requests_take_turns_of_a_quantum_on_one_slot() -> None:
    engine = mocked(RoundRobin(quantum=2))
    ends = serve(engine, [(0, ask(5, id="a")), (0, ask(3, id="b"))])
    order = [event.request for event in engine.events if event.kind == "NEW_TOKENS"]
    assert order == ["a", "a", "b", "b", "a", "a", "b", "a"]
    assert ends == {"b": 7, "a": 8}


def test_changing_over_costs_the_lost_cache_and_a_longer_quantum_costs_less() -> None:
    lost = {}
    for quantum in (1, 4, 16):
        engine = mocked(RoundRobin(quantum))
        serve(engine, [(0, ask(16, prompt=8, id=name)) for name in "abc"])
        lost[quantum] = engine.counters.recomputed_tokens
    # a: 8 + 3, 8 + 7 and 8 + 11 tokens are lost at the ends of its turns of 4; b and c as many
    assert lost == {1: 3 * sum(8 + done - 1 for done in range(1, 16)), 4: 3 * (11 + 15 + 19), 16: 0}


def test_with_a_place_for_everybody_nobody_is_ever_pushed_out() -> None:
    engine = mocked(RoundRobin(quantum=1), slots=3)
    serve(engine, [(0, ask(16, id=name)) for name in "abc"])
    assert engine.counters.preemptions == engine.counters.recomputed_tokens == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), min_size=2, max_size=6), st.integers(1, 5),
       st.integers(1, 3))
def test_service_of_two_waiting_requests_never_differs_by_more_than_a_quantum(
        jobs: list[tuple[int, int]], quantum: int, slots: int) -> None:
    """By two quanta where turns run side by side, and by some steps more: one request changes over at a time."""
    engine = mocked(RoundRobin(quantum), slots=slots, num_blocks=200)
    at_meeting: dict[tuple[str, str], int] = {}          # difference in service when both had come, by pair

    def compare() -> None:
        live = [request for request in engine.requests.values() if not request.done]
        for a, b in combinations(live, 2):
            ahead = a.num_output - b.num_output
            assert abs(ahead - at_meeting.setdefault((a.id, b.id), ahead)) <= (quantum + slots - 1) * min(slots, 2)

    serve(engine, [(float(at), ask(output)) for at, output in jobs], compare)


def test_a_quantum_must_hand_out_something() -> None:
    with pytest.raises(UserError, match="quantum is 0 tokens"):
        RoundRobin(0)
