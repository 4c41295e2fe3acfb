"""Prefix blocks: ids that say who repeats whom, and what an infinite cache makes of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.workload import Arrival, hit_rate
from llmcourse.workload.sharing import Conversations, leading


def test_a_hit_is_a_leading_block_seen_before():
    load = [Arrival(0, 1, 1, prefix=ids) for ids in ((0, 1), (0, 1, 2), (9, 1), (0, 1, 2))]
    assert hit_rate(load) == (2 + 0 + 3) / 10
    assert hit_rate([]) == 0
    assert leading((1, 2, 3), {1, 3}) == 1


def test_a_conversation_goes_on_with_the_one_of_its_length():
    talks = Conversations(common=1)
    long, short = talks.prefix(40, 0, 0), talks.prefix(5, 0, 0)
    assert talks.prefix(6, 4, 2)[:4] == short[:4]
    assert talks.prefix(50, 38, 1)[:38] == long[:38]


def test_a_conversation_is_taken_up_once():
    talks = Conversations(common=1)
    first = talks.prefix(10, 0, 0)
    assert talks.prefix(12, 9, 1)[:9] == first[:9]
    assert talks.prefix(9, 8, 1)[:3] == first[:3], "then only what followed it is left"
    assert talks.prefix(30, 20, 9)[:1] == (0,)


def test_the_one_of_the_right_age_is_taken():
    talks = Conversations(common=1)
    ends = [talks.prefix(10, 0, 0) for _ in range(5)]
    assert talks.prefix(20, 9, distance=3)[:9] == ends[2][:9]
    assert talks.prefix(20, 9, distance=4)[:9] == ends[3][:9], "its neighbour, now that it is gone"
    assert talks.prefix(20, 9, distance=7)[:9] == ends[0][:9]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 300), st.integers(0, 9999)), max_size=50),
       st.integers(0, 3))
def test_ids_are_as_many_as_blocks_and_new_ones_are_new(requests, common):
    talks, seen = Conversations(common), set()
    for blocks, repeated, distance in requests:
        ids = talks.prefix(blocks, min(repeated, blocks), distance)
        assert len(ids) == len(set(ids)) == blocks
        assert ids[:common] == tuple(range(common))[:blocks]
        hits = leading(ids, seen)
        assert not seen & set(ids[hits:])
        seen.update(ids)


def test_two_million_tokens_and_a_long_time_are_not_too_much():
    talks = Conversations(common=1)
    longest = talks.prefix(9000, 0, 0)
    assert talks.prefix(9000, 8000, 10**6)[:8000] == longest[:8000]
    for _ in range(1000):
        talks.prefix(4, 0, 0)
    assert sum(len(shelf.ids) for shelf in talks._shelves) < 300
