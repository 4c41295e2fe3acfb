"""Contiguous memory keeps its books, keeps everybody's content wherever it moves, and chooses holes as it says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from llmcourse.errors import UserError
from llmcourse.kv import ContiguousPool, Memory, OutOfBlocks
from llmcourse.kv.runs import Runs


def tokens(count):
    return [0] * count


def test_a_reader_s_tour():
    """What the module docstring draws: six blocks are free and five find no place."""
    pool: Memory = ContiguousPool(14, reservation="exact")
    pool.open("A", tokens(3), longest=5)
    pool.open("C", tokens(2), longest=2)
    pool.open("B", tokens(2), longest=3)
    pool.free("C")
    assert list(pool.table("A")) == [0, 1, 2] and list(pool.table("B")) == [7, 8]       # 3 and 4 are A's, 9 is B's
    assert pool.num_free == 6 and pool.num_used == 8
    assert not pool.can_open(tokens(1), longest=5)
    with pytest.raises(OutOfBlocks, match="'D' needs 5 neighbouring blocks; 6 of 14 are free, the largest hole has 4"):
        pool.open("D", tokens(1), longest=5)
    assert pool.can_open(tokens(1), 5, without=["A"])                                   # where A was there are 7
    assert pool.reserve("A", 5) == ([], [3, 4])                                         # it has been waiting for this
    assert pool.free("A") == [4, 3, 2, 1, 0]


def test_first_fit_takes_the_lowest_hole_and_best_fit_the_smallest():
    def pool(fit):
        made = ContiguousPool(20, fit=fit)
        for owner, count in zip("abcdef", (5, 1, 3, 1, 4, 6), strict=True):
            made.open(owner, tokens(count), count)
        for owner in "ace":                                # holes of 5, 3 and 4
            made.free(owner)
        return made
    first, best = pool("first"), pool("best")
    assert [len(hole) for hole in first.holes()] == [5, 3, 4]
    for made, start in ((first, 0), (best, 6)):
        made.open("g", tokens(3), 3)
        assert made.table("g")[0] == start
    for made, start in ((first, 10), (best, 10)):
        made.open("h", tokens(4), 4)
        assert made.table("h")[0] == start


def test_growing_extends_then_moves_then_slides_everybody_together():
    pool = ContiguousPool(10, compaction=True)
    pool.open("A", tokens(2), 9)
    pool.open("B", tokens(3), 9)
    assert pool.reserve("B", 4) == ([], [5])                                            # the hole behind it
    assert pool.reserve("A", 3) == ([(0, 6), (1, 7)], [8])                              # B is in the way
    assert pool.table("A") == range(6, 9)
    pool.free("B")
    pool.open("C", tokens(3), 3)
    pool.open("D", tokens(2), 2)                                                        # CCCDD.AAA.
    assert pool.reserve("C", 4) == ([(3, 4), (4, 5)], [3])                              # only holes of 1: D makes way
    assert pool.runs == {"C": range(0, 4), "D": range(4, 6), "A": range(6, 9)}
    assert list(pool.holes()) == [range(9, 10)]


def test_without_compaction_holes_that_are_too_small_are_of_no_use():
    pool = ContiguousPool(9)
    for owner in "ABC":
        pool.open(owner, tokens(3), 9)
    pool.free("A")
    pool.open("D", tokens(1), 1)
    pool.free("C")                                         # D..BBB...
    with pytest.raises(OutOfBlocks):
        pool.reserve("D", 7)
    assert pool.reserve("D", 3) == ([], [1, 2])
    with pytest.raises(OutOfBlocks):
        pool.reserve("D", 4)
    pool.check_invariants()
    assert pool.length("D") == 3 and pool.table("D") == range(0, 3)


def test_a_mover_may_land_on_its_own_old_place():
    pool = ContiguousPool(6)
    pool.open("A", tokens(2), 9)
    pool.open("B", tokens(3), 9)
    pool.free("A")
    assert pool.reserve("B", 5) == ([(2, 0), (3, 1), (4, 2)], [3, 4])                   # all sources are read first
    pool.check_invariants()


def test_alone_everybody_fits_whom_the_door_let_in():
    for pool in (ContiguousPool(7, 3), ContiguousPool(7, 3, "exact"), ContiguousPool(7, 3, "max", max_length=19)):
        fits = [longest for longest in range(1, 40) if pool.could_ever_hold(longest)]
        assert fits == list(range(1, 20 if pool.max_length else 22))
        pool.open("x", tokens(4), fits[-1])
        pool.reserve("x", fits[-1])
        pool.check_invariants()
        pool.free("x")


def test_a_reservation_of_the_maximum_is_the_same_for_everybody():
    pool = ContiguousPool(100, 4, "max", max_length=100)
    opened = 0
    while pool.can_open(tokens(1), 1):
        pool.open(opened, tokens(1), 1)
        opened += 1
    assert opened == 4 and pool.num_free == 0 and sum(map(len, pool.tables.values())) == 4


@pytest.mark.parametrize("make", [
    lambda: ContiguousPool(0), lambda: ContiguousPool(4, reservation="most"), lambda: ContiguousPool(4, fit="worst"),
    lambda: ContiguousPool(4, reservation="max"), lambda: ContiguousPool(4, reservation="exact", max_length=3),
])
def test_settings_that_mean_nothing_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_wrong_calls_raise_and_change_nothing():
    pool = ContiguousPool(8, 2)
    pool.open("A", tokens(3), 9)
    for call in (lambda: pool.open("A", [1], 1), lambda: pool.free("B"), lambda: pool.reserve("B", 1)):
        with pytest.raises((ValueError, KeyError)):
            call()
    with pytest.raises(UserError, match="contiguous memory cannot share"):
        pool.share("B", "A")
    with pytest.raises(OutOfBlocks):
        pool.append_in_turn(["A"], 99)
    pool.check_invariants()
    assert dict(pool.runs) == {"A": range(0, 2)} and pool.length("A") == 3


def test_check_invariants_can_fail():
    for spoil in (lambda p: p._runs.put("x", range(1, 2)), lambda p: p._tables.update(A=range(0, 1)),
                  lambda p: p._lengths.update(A=5), lambda p: p._lengths.pop("A"),
                  lambda p: setattr(p._runs, "num_used", 1), lambda p: p._runs.order.reverse(),
                  lambda p: p._runs.widen("B", 7)):
        pool = ContiguousPool(6, 2)
        pool.open("A", tokens(3), 9)
        pool.open("B", tokens(3), 9)
        pool.check_invariants()
        spoil(pool)
        with pytest.raises(AssertionError):
            pool.check_invariants()


@st.composite
def layouts(draw):
    """Runs with holes between them, and the size of a newcomer."""
    runs, place = Runs(60), 0
    for owner in range(draw(st.integers(0, 7))):
        start = place + draw(st.integers(0, 6))
        place = start + draw(st.integers(1, 6))
        if place > 60:
            break
        runs.put(owner, range(start, place))
    return runs, draw(st.integers(1, 30)), draw(st.sets(st.integers(0, 7), max_size=3))


@settings(max_examples=150, deadline=None)
@given(layouts())
def test_fits_are_what_a_slow_search_finds(layout):
    runs, size, without = layout
    taken = {block for owner, run in runs.items() if owner not in without for block in run}
    places = [start for start in range(60 - size + 1) if not taken & set(range(start, start + size))]
    runs.fit = "first"
    found = runs.place_for(size, without)
    assert found == (range(places[0], places[0] + size) if places else None)

    def width(start):                                      # of the hole that this block lies in
        low = next((b for b in range(start, -1, -1) if b in taken), -1)
        return next((b for b in range(start, 60) if b in taken), 60) - low - 1
    runs.fit = "best"
    found = runs.place_for(size, without)
    assert (found is None) == (not places)
    assert not places or found.start == min(places, key=lambda start: (width(start), start))


@st.composite
def pools(draw):
    """Two equal pools with a few owners, some of whom have gone."""
    size, reservation = draw(st.integers(1, 4)), draw(st.sampled_from(["max", "exact", "growing"]))
    setting = (60, size, reservation, draw(st.sampled_from(["first", "best"])), 12 if reservation == "max" else None)
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    gone = draw(st.sets(st.integers(0, 4), max_size=3))
    made = ContiguousPool(*setting), ContiguousPool(*setting)
    for pool in made:
        for owner, length in enumerate(lengths):
            pool.open(owner, tokens(length), 12)
        for owner in gone & set(range(len(lengths))):
            pool.free(owner)
    return (*made, [owner for owner in range(len(lengths)) if owner not in gone])


@settings(max_examples=200, deadline=None)
@given(pools(), st.integers(0, 30))
def test_appending_in_turn_is_reserving_one_by_one(made, rounds):
    one, other, owners = made
    fit = other.rounds_that_fit(owners, rounds)
    expected, turns = {}, 0
    while turns < rounds:                                  # how far it goes without a copy
        before = [one.length(owner) for owner in owners]
        try:
            steps = [(owner, *one.reserve(owner, one.length(owner) + 1)) for owner in owners]
        except OutOfBlocks:
            break
        if any(copies for _, copies, _ in steps):
            break
        if gained := [(owner, blocks) for owner, _, blocks in steps if blocks]:
            expected[turns] = gained
        turns += 1
        assert [one.length(owner) for owner in owners] == [length + 1 for length in before]
    assert fit == (turns if owners else rounds)            # no less than possible, and no more
    grown = other.append_in_turn(owners, fit)
    assert grown == {turn: gained for turn, gained in expected.items() if turn < fit}
    assert list(grown) == sorted(grown)
    other.check_invariants()
    if turns == rounds:
        assert one.runs == other.runs and one.tables == other.tables


class Books(RuleBasedStateMachine):
    """Random calls against an array that keeps what every slot holds, and a map that says whose each block is."""

    owners = Bundle("owners")

    @initialize(num_blocks=st.integers(1, 24), size=st.integers(1, 4), fit=st.sampled_from(["first", "best"]),
                reservation=st.sampled_from(["max", "exact", "growing", "growing"]), compaction=st.booleans())
    def start(self, num_blocks, size, fit, reservation, compaction):
        longest = max(1, num_blocks * size // 3) if reservation == "max" else None
        self.pool = ContiguousPool(num_blocks, size, reservation, fit, longest, compaction)
        self.slots = [None] * self.pool.capacity
        self.written, self.longest = {}, {}
        self.clock = self.names = 0

    def write(self, owner, upto):
        for position in range(len(self.written[owner]), upto):
            self.clock += 1
            self.slots[self.slot(owner, position)] = self.clock
            self.written[owner].append(self.clock)

    def slot(self, owner, position):
        block, offset = divmod(position, self.pool.block_size)
        return self.pool.table(owner)[block] * self.pool.block_size + offset

    @rule(target=owners, count=st.integers(1, 20), more=st.integers(0, 9))
    def open(self, count, more):
        self.names += 1
        pool, owner, longest = self.pool, f"owner {self.names}", count + more
        if not pool.could_ever_hold(longest):
            return owner
        if pool.can_open(tokens(count), longest):
            assert pool.open(owner, tokens(count), longest) == 0
            self.written[owner], self.longest[owner] = [], longest
            self.write(owner, count)
        else:
            with pytest.raises(OutOfBlocks):
                pool.open(owner, tokens(count), longest)
        return owner

    @rule(owner=owners, more=st.integers(0, 9))
    def reserve(self, owner, more):
        if owner not in self.written:
            return
        pool, length = self.pool, min(self.longest[owner], self.pool.length(owner) + more)
        old, before = list(pool.table(owner)), (dict(pool.runs), dict(pool.tables), pool.num_free)
        try:
            copies, gained = pool.reserve(owner, length)
        except OutOfBlocks:
            assert before == (pool.runs, pool.tables, pool.num_free) and pool.reservation == "growing"
            assert not pool.compaction or pool.blocks_for(length) - len(old) > pool.num_free
            assert len(pool.tables) > 1, "whoever is alone finds room"
            return
        size = pool.block_size
        content = [self.slots[source * size:(source + 1) * size] for source, _ in copies]
        for (_, target), held in zip(copies, content, strict=True):
            self.slots[target * size:(target + 1) * size] = held
        assert list(pool.table(owner)[len(old):]) == gained
        moved = {name for name, run in pool.runs.items() if run.start != before[0][name].start}
        assert len({target for _, target in copies}) == len(copies) and bool(copies) == bool(moved)
        assert pool.compaction or moved <= {owner}
        if len(moved) > 1:
            assert len(list(pool.holes())) <= 1, "compaction leaves one hole"
        self.write(owner, length)

    @rule(owner=owners)
    def free(self, owner):
        if owner in self.written:
            free = self.pool.num_free
            freed = self.pool.free(owner)
            assert self.pool.num_free == free + len(freed)
            del self.written[owner]

    @rule(gone=st.sets(st.integers(1, 8), max_size=3), count=st.integers(1, 20))
    def ask(self, gone, count):
        """What `can_open` says of a world without some owners is so in that world."""
        without = [f"owner {number}" for number in gone if f"owner {number}" in self.written]
        twin = ContiguousPool(self.pool.num_blocks, self.pool.block_size, self.pool.reservation, self.pool._runs.fit,
                              self.pool.max_length, self.pool.compaction)
        for owner, run in self.pool.runs.items():
            if owner not in without:
                twin._runs.put(owner, run)
        assert self.pool.can_open(tokens(count), count, without) == twin.can_open(tokens(count), count)

    @invariant()
    def books_balance(self):
        if not hasattr(self, "pool"):
            return
        pool = self.pool
        pool.check_invariants()
        blocks = [block for run in pool.runs.values() for block in run]
        assert len(blocks) == len(set(blocks)) == pool.num_used and set(blocks) <= set(range(pool.num_blocks))
        assert pool.num_free == sum(len(hole) for hole in pool.holes()) == pool.num_blocks - pool.num_used
        assert not set(blocks) & {block for hole in pool.holes() for block in hole}
        for owner, values in self.written.items():
            assert [self.slots[self.slot(owner, i)] for i in range(len(values))] == values, f"{owner} lost its content"


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
