"""The block pool keeps its books whatever is asked of it: invariant 1, by property."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from llmcourse.errors import UserError
from llmcourse.kv import BlockPool, OutOfBlocks


def test_a_reader_s_tour() -> None:
    """Allocate, share, write into the shared block, free: what the module docstring draws."""
    pool = BlockPool(num_blocks=8, block_size=16)
    assert pool.allocate("A", 35) == [0, 1, 2]
    assert pool.share("B", "A", 34) == [0, 1, 2]            # nothing is copied yet
    assert pool.references(2) == 2 and pool.num_free == 5
    assert pool.append("B") == [(2, 3)]                     # B writes slot 34: it gets its own copy of block 2 first
    assert pool.table("A") == [0, 1, 2] and pool.table("B") == [0, 1, 3]
    assert pool.append("A", 13) == []                       # A is alone in block 2 by now: 35 + 13 fill it
    assert pool.free("A") == [2]                            # 0 and 1 are still B's
    assert pool.free("B") == [3, 1, 0]
    assert pool.num_free == 8


def test_all_or_nothing() -> None:
    pool = BlockPool(4, 2)
    pool.allocate("A", 5)
    with pytest.raises(OutOfBlocks, match="5 tokens of 'B' need 3 free blocks; 1 of 4 are free"):
        pool.allocate("B", 5)
    with pytest.raises(OutOfBlocks):
        pool.append("A", 4)
    assert list(pool.tables) == ["A"] and pool.length("A") == 5 and pool.num_free == 1
    assert pool.blocks_needed("A", 3) <= pool.num_free < pool.blocks_needed("A", 4)


@pytest.mark.parametrize("call", [
    lambda pool: pool.allocate("A", 1), lambda pool: pool.share("A", "A"), lambda pool: pool.share("B", "A", 99),
    lambda pool: pool.share("B", "nobody"), lambda pool: pool.free("nobody"), lambda pool: pool.append("nobody"),
])
def test_wrong_calls_raise_and_change_nothing(call) -> None:
    pool = BlockPool(4, 2)
    pool.allocate("A", 3)
    with pytest.raises((ValueError, KeyError)):
        call(pool)
    pool.check_invariants()
    assert list(pool.tables) == ["A"] and pool.num_free == 2


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(UserError):
        BlockPool(0, 16)


def test_check_invariants_can_fail() -> None:
    """A gate that cannot close is no gate: spoil the books in each way it promises to notice."""
    def spoiled(spoil) -> BlockPool:
        pool = BlockPool(4, 2)
        pool.allocate("A", 3)
        spoil(pool)
        return pool
    for spoil in (lambda p: p.table("A").append(3), lambda p: p._free.append(p.table("A")[0]),
                  lambda p: p._free.append(p._free[0]), lambda p: p._free.pop(),
                  lambda p: p.table("A").__setitem__(0, p.table("A")[1])):
        with pytest.raises(AssertionError):
            spoiled(spoil).check_invariants()


@st.composite
def tables(draw: st.DrawFn) -> tuple[BlockPool, BlockPool, list[str]]:
    """Two equal pools with a few owners of some length each."""
    size = draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    pools = (BlockPool(40, size), BlockPool(40, size))
    for pool in pools:
        for place, length in enumerate(lengths):
            pool.allocate(f"o{place}", length)
    return (*pools, [f"o{place}" for place in range(len(lengths))])


@settings(max_examples=200, deadline=None)
@given(tables(), st.integers(0, 30))
def test_appending_in_turn_is_appending_one_by_one(pools: tuple[BlockPool, BlockPool, list[str]], rounds: int) -> None:
    """Block for block: a simulation that jumps hands out what stepping would have handed out, in its order."""
    one, other, owners = pools
    expected: dict[int, list[tuple[str, list[int]]]] = {}
    needed = sum(one.blocks_for(one.length(o) + rounds) - len(one.table(o)) for o in owners)
    if needed > one.num_free:
        with pytest.raises(OutOfBlocks):
            other.append_in_turn(owners, rounds)
        assert [other.length(o) for o in owners] == [one.length(o) for o in owners]
        return
    for turn in range(rounds):
        for owner in owners:
            before = len(one.table(owner))
            one.append(owner)
            if one.table(owner)[before:]:
                expected.setdefault(turn, []).append((owner, one.table(owner)[before:]))
    assert other.append_in_turn(owners, rounds) == expected
    other.check_invariants()
    assert [one.table(o) for o in owners] == [other.table(o) for o in owners]
    assert [one.length(o) for o in owners] == [other.length(o) for o in owners]
    assert one.allocate("next", one.num_free) == other.allocate("next", other.num_free)


@settings(max_examples=200, deadline=None)
@given(tables(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=12))
def test_reserving_is_appending_what_is_missing(pools: tuple[BlockPool, BlockPool, list[str]],
                                                asked: list[tuple[int, int]]) -> None:
    one, other, owners = pools
    for place, length in asked:
        owner = owners[place % len(owners)]
        before = len(one.table(owner))
        missing = max(0, length - one.length(owner))
        if one.blocks_needed(owner, missing) > one.num_free:
            with pytest.raises(OutOfBlocks):
                other.reserve(owner, length)
            continue
        copies = one.append(owner, missing)
        assert other.reserve(owner, length) == (copies, one.table(owner)[before:])
        assert other.length(owner) == one.length(owner)
        other.check_invariants()


def test_a_shared_block_is_copied_by_reserve_and_refused_in_turn() -> None:
    pool = BlockPool(8, 4)
    pool.allocate("a", 6)
    pool.share("b", "a")
    assert pool.num_shared == 2
    with pytest.raises(ValueError, match="shared"):
        pool.append_in_turn(["a", "b"], 1)
    last = pool.table("a")[-1]
    copies, blocks = pool.reserve("b", 7)
    assert copies == [(last, pool.table("b")[-1])] and blocks == [] and pool.num_shared == 1
    pool.check_invariants()


class Books(RuleBasedStateMachine):
    """Random calls against a model that keeps, for every owner, what each of its slots holds."""

    owners = Bundle("owners")

    @initialize(num_blocks=st.integers(1, 12), block_size=st.integers(1, 5))
    def start(self, num_blocks: int, block_size: int) -> None:
        self.pool = BlockPool(num_blocks, block_size)
        self.slots: dict[tuple[int, int], object] = {}
        self.written: dict[str, list[object]] = {}
        self.clock = 0
        self.names = 0

    def new_owner(self) -> str:
        self.names += 1
        return f"owner {self.names}"

    def write(self, owner: str, count: int) -> None:
        for _ in range(count):
            self.clock += 1
            position = len(self.written[owner])
            block = self.pool.table(owner)[position // self.pool.block_size]
            self.slots[block, position % self.pool.block_size] = self.clock
            self.written[owner].append(self.clock)

    @rule(target=owners, count=st.integers(0, 20))
    def allocate(self, count: int) -> str:
        owner = self.new_owner()
        if self.pool.blocks_for(count) <= self.pool.num_free:
            self.pool.allocate(owner, count)
            self.written[owner] = []
            self.write(owner, count)
        else:
            with pytest.raises(OutOfBlocks):
                self.pool.allocate(owner, count)
        return owner

    @rule(owner=owners, count=st.integers(0, 9))
    def append(self, owner: str, count: int) -> None:
        if owner not in self.written:
            return
        if self.pool.blocks_needed(owner, count) > self.pool.num_free:
            with pytest.raises(OutOfBlocks):
                self.pool.append(owner, count)
            return
        for source, destination in self.pool.append(owner, count):
            for offset in range(self.pool.block_size):
                self.slots[destination, offset] = self.slots.get((source, offset))
        self.write(owner, count)

    @rule(target=owners, source=owners, share=st.floats(0, 1))
    def share(self, source: str, share: float) -> str:
        owner = self.new_owner()
        if source in self.written:
            count = int(share * len(self.written[source]))
            self.pool.share(owner, source, count)
            self.written[owner] = self.written[source][:count]
        return owner

    @rule(owner=owners)
    def free(self, owner: str) -> None:
        if owner in self.written:
            self.pool.free(owner)
            del self.written[owner]

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check_invariants()
        for owner, values in self.written.items():
            size = self.pool.block_size
            read = [self.slots[self.pool.table(owner)[i // size], i % size] for i in range(len(values))]
            assert read == values, f"{owner} reads back what somebody else wrote"


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
