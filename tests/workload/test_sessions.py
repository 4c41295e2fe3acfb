"""Conversations: a prompt holds all that was said before it, and begins with the same blocks."""

from itertools import groupby, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.workload import SLO, Constant, Lognormal, Poisson, Sessions, hit_rate


def by_session(load):
    key = lambda arrival: arrival.session  # noqa: E731
    return [list(turns) for _, turns in groupby(sorted(load, key=key), key)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3000), st.integers(1, 5), st.integers(0, 100))
def test_a_prompt_is_all_that_was_said_and_a_new_message(system, turns, seed):
    load = Sessions(Poisson(1), Constant(turns), Poisson(0.1), Lognormal(200, sigma=1), Lognormal(300, sigma=1),
                    system=system).generate(20, seed)
    assert [arrival.time for arrival in load] == sorted(arrival.time for arrival in load)
    assert len(load) == 20 * turns
    for talk in by_session(load):
        assert talk[0].prompt_tokens > system
        for before, after in pairwise(talk):
            assert after.time > before.time
            assert after.prompt_tokens > before.prompt_tokens + before.output_tokens
            full = before.prompt_tokens // 512
            assert after.prefix[:full] == before.prefix[:full]
            assert after.prefix[full] not in before.prefix, "a block still to be filled is nobody's"
    assert all(len(arrival.prefix) == -(-arrival.prompt_tokens // 512) for arrival in load)


def test_only_the_system_prompt_is_common_to_conversations():
    load = Sessions(Poisson(1), Constant(3), Poisson(1), Constant(600), Constant(100), system=1100).generate(9, 0)
    first = [talk[0].prefix for talk in by_session(load)]
    assert {prefix[:2] for prefix in first} == {(0, 1)}
    assert len({block for prefix in first for block in prefix[2:]}) == sum(len(prefix) - 2 for prefix in first)


def test_a_prefix_cache_lives_on_turns():
    rates = [hit_rate(Sessions(Poisson(1), Constant(turns), Poisson(1), Constant(512), Constant(512)).generate(50, 0))
             for turns in (1, 2, 8)]
    assert rates[0] == 0
    assert rates[0] < rates[1] < rates[2]


def test_a_full_context_ends_the_conversation():
    for context, fit in ((799, [400]), (800, [400, 800])):
        load = Sessions(Poisson(1), Constant(10), Poisson(1), Constant(300), Constant(100), context=context,
                        tenant="t", slo=SLO(1)).generate(2, 0)
        assert [arrival.prompt_tokens + arrival.output_tokens for arrival in by_session(load)[0]] == fit
    assert {(arrival.tenant, arrival.slo) for arrival in load} == {("t", SLO(1))}


def test_nonsense_is_refused():
    with pytest.raises(UserError, match="neither may be below 0"):
        Sessions(Poisson(1), Constant(1), Poisson(1), Constant(1), Constant(1), system=-1).generate(1, 0)
