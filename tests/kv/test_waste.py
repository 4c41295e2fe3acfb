"""Waste in the paper's words: every slot is one of five things, and pools differ in which."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.kv import BlockPool, ContiguousPool
from llmcourse.kv.waste import Waste, waste


def tokens(count):
    return [0] * count


def test_three_ways_to_hold_the_same_two_requests():
    """3 and 2 tokens so far, 5 and 4 in the end, in 32 slots; somebody with 10 more is waiting."""
    final = {"A": 5, "B": 4}

    def opened(pool):
        pool.open("A", tokens(3), 5)
        pool.open("B", tokens(2), 4)
        return pool
    most = opened(ContiguousPool(32, 1, "max", max_length=12))
    assert waste(most, final, demand=12) == Waste(used=5, reserved=4, internal=15, external=8, free=0)
    exact = opened(ContiguousPool(32, 1, "exact"))
    assert waste(exact, final, demand=10) == Waste(used=5, reserved=4, internal=0, external=0, free=23)
    paged = opened(BlockPool(8, 4))
    assert waste(paged, final, demand=10) == Waste(used=5, reserved=3, internal=0, external=0, free=24)
    assert waste(paged, {"A": 3, "B": 2}).internal == 3                  # the rest of the last blocks
    assert waste(paged, final, stored={"A": 1, "B": 0}) == Waste(1, 7, 0, 0, 24)
    assert waste(most, final, demand=12).shares["internal"] == 15 / 32 and waste(most, final).external == 0


def test_a_shared_slot_counts_once():
    pool = BlockPool(8, 4)
    pool.open("A", tokens(6), 6)
    pool.share("B", "A", 5)                                # both name two blocks; the second holds A's 6 tokens, B's 5
    assert waste(pool, {"A": 7, "B": 6}) == Waste(used=6, reserved=1, internal=1, external=0, free=24)


@st.composite
def pools(draw):
    size = draw(st.integers(1, 5))
    pool = draw(st.sampled_from([BlockPool(40, size), ContiguousPool(40, size), ContiguousPool(40, size, "exact"),
                                 ContiguousPool(40, size, "max", max_length=16)]))
    final = {}
    for owner in range(draw(st.integers(0, 6))):
        length = draw(st.integers(1, 10))
        final[owner] = length + draw(st.integers(0, 6))
        if pool.can_open(tokens(length), final[owner]):
            pool.open(owner, tokens(length), final[owner])
    for owner in draw(st.sets(st.sampled_from(sorted(pool.tables)))) if pool.tables else ():
        pool.free(owner)
    return pool, final


@settings(max_examples=150, deadline=None)
@given(pools(), st.integers(0, 20))
def test_every_slot_is_one_of_five_things(drawn, demand):
    pool, final = drawn
    found = waste(pool, final, demand=demand)
    assert found.capacity == pool.capacity and min(vars(found).values()) >= 0
    assert found.used == sum(pool.length(owner) for owner in pool.tables)
    assert found.external + found.free == pool.num_free * pool.block_size
    if isinstance(pool, BlockPool):
        assert found.external == 0 and found.reserved + found.internal < max(1, len(pool.tables) * pool.block_size)
    elif pool.reservation == "exact":
        assert found.internal < max(1, len(pool.tables) * pool.block_size)           # rounding up to whole blocks
        assert found.used + found.reserved == sum(final[owner] for owner in pool.tables)
    if not isinstance(pool, BlockPool) and demand and pool.can_open(tokens(demand), demand):
        assert pool.reservation == "max" or found.free >= demand
