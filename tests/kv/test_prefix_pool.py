"""A pool that remembers finds exactly what is still there, gives it up in the right order, and owes nobody a block."""

import random
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.kv import BlockPool, HashIndex, OutOfBlocks, PrefixPool, RadixIndex


def filled(pool: PrefixPool, owner: str, tokens: list[int]) -> int:
    """Open a table and compute all of it; returns how much was found."""
    found = pool.open(owner, tokens, len(tokens))
    pool.computed(owner, tokens, len(tokens))
    pool.check_invariants()
    return found


def test_a_reader_s_tour() -> None:
    """Two requests with the same system prompt, the second after the first has gone."""
    pool = PrefixPool(num_blocks=8, block_size=4)
    system = [1, 2, 3, 4, 5, 6, 7, 8]
    assert filled(pool, "A", [*system, 10, 11]) == 0
    assert pool.table("A") == [0, 1, 2]
    assert filled(pool, "B", [*system, 20]) == 8              # A is still there: both read blocks 0 and 1
    assert pool.table("B") == [0, 1, 3] and pool.num_shared == 2 and pool.num_used == 4
    pool.free("A")
    pool.free("B")
    assert pool.num_free == 8 and pool.num_cached == 2        # all is free, and two blocks can be found
    assert filled(pool, "C", system) == 4                     # never all of it: the last token must be computed
    assert (pool.lookups, pool.lookup_tokens, pool.hit_tokens) == (3, 10 + 9 + 8, 12)
    assert pool.hit_rate == 12 / 27


def test_what_holds_nothing_goes_first_then_the_oldest_and_of_one_request_the_last_block() -> None:
    pool = PrefixPool(6, 2)
    filled(pool, "old", [1, 2, 3, 4])                         # blocks 0 1
    filled(pool, "new", [5, 6, 7, 8, 9])                      # blocks 2 3 and 4, which is not full
    pool.free("old")
    pool.free("new")
    pool.allocate("X", 12)
    assert pool.table("X") == [5, 4, 1, 0, 3, 2]
    assert pool.evicted_blocks == 4 and pool.num_free == 0
    pool.free("X")
    assert filled(pool, "again", [1, 2, 3, 4]) == 0


def test_being_found_makes_a_block_young() -> None:
    pool = PrefixPool(4, 2)
    for name, tokens in (("A", [1, 1]), ("B", [2, 2])):
        filled(pool, name, tokens)
        pool.free(name)
    filled(pool, "A again", [1, 1, 9])
    pool.free("A again")
    pool.allocate("X", 2 * 3)                                 # two that hold nothing, then B's
    assert pool.hits([1, 1, 0]) and not pool.hits([2, 2, 0])


def test_of_equal_blocks_one_is_kept_and_counts_as_used() -> None:
    """Two compute the same at the same time: no block is wasted on the copy once it is free."""
    pool = PrefixPool(5, 2)
    for name in "AB":
        pool.open(name, [1, 2, 3], 3)
    for name in "AB":
        pool.computed(name, [1, 2, 3], 3)
    pool.free("A")
    filled(pool, "C", [7, 7])
    pool.free("C")
    assert pool.num_cached == 2
    pool.free("B")                                            # its block 2 is a copy: A's is the younger by that
    assert pool.num_cached == 2 and pool.hits([1, 2, 0]) == [0]
    pool.allocate("X", 2 * 4)
    assert pool.hits([1, 2, 0]) and not pool.hits([7, 7, 0])


def test_a_copy_takes_over_when_what_was_found_is_taken_for_something_else() -> None:
    pool = PrefixPool(3, 2)
    for name in "AB":
        pool.open(name, [1, 2], 2)
    for name in "AB":
        pool.computed(name, [1, 2], 2)
    pool.free("A")
    pool.allocate("X", 4)
    assert pool.hits([1, 2, 0]) == pool.table("B")
    pool.check_invariants()


def test_room_counts_hits_of_others_and_not_those_that_must_leave_the_free_list() -> None:
    pool = PrefixPool(4, 2)
    filled(pool, "A", [1, 2, 3, 4, 5])
    want = [1, 2, 3, 4, 9, 9]
    assert pool.num_free == 1 and pool.can_open(want, 6)      # two blocks of A's, one fresh
    assert not pool.can_open([*want, 9], 7)
    assert pool.can_open([*want, 9], 7, without=["A"])        # the hits stay, but somebody must own them
    assert not pool.can_open([*want, 9, 9, 9], 9, without=["A"])
    assert not pool.can_open([8, 8, 8], 3) and not pool.can_open([8] * 9, 9, without=["A"])
    pool.free("A")
    filled(pool, "C", [7])
    filled(pool, "A", [8, 8])
    assert not pool.can_open([8, 8, *[9] * 6], 8, without=["A"])     # found, and A's alone: it is one of the three free
    pool.free("A")
    pool.free("C")
    with pytest.raises(OutOfBlocks):
        pool.open("B", [*want, 9, 9, 9], 9)
    pool.check_invariants()
    assert pool.open("B", [*want, 9], 7) == 4
    with pytest.raises(ValueError, match="already has a table"):
        pool.open("B", [1], 1)


def test_dummy_tokens_are_not_remembered_nor_what_follows_them() -> None:
    pool = PrefixPool(8, 2)
    filled(pool, "A", [1, 2, 3, -1, 5, 6])
    assert pool.hits([1, 2, 3, -1, 5, 6, 7]) == pool.table("A")[:1]
    pool.computed("A", [1, 2, 3, -1, 5, 6, 7, 8], 6)
    assert len(pool.hits([1, 2, 3, -1, 5, 6, 7])) == 1


def test_output_is_remembered_as_it_is_computed_and_only_then() -> None:
    """The next turn of a conversation repeats the answer to the last one."""
    pool = PrefixPool(8, 2)
    said = [1, 2, 3]
    pool.open("A", said, 6)
    assert pool.hits([*said, 9]) == []                        # room, but nothing in it yet
    pool.computed("A", said, 2)
    assert len(pool.hits([*said, 9])) == 1
    for token in (4, 5, 6):
        said.append(token)
        pool.reserve("A", len(said))
        pool.computed("A", said, len(said) - 1)               # the last token is delivered, its KV is not there
    assert len(pool.hits([1, 2, 3, 4, 5, 6, 7])) == 2
    pool.free("A")
    assert pool.open("next turn", [*said, 7, 8], 8) == 4


def test_a_fork_inside_a_full_block_copies_it_or_makes_it_forgotten_before_it_writes() -> None:
    pool = PrefixPool(8, 2)
    filled(pool, "A", [1, 2, 3, 4])
    pool.share("B", "A", 3)
    pool.share("C", "A", 3)
    assert pool.reserve("C", 4) == ([(1, 2)], [])             # others read block 1: C writes into a copy
    pool.check_invariants()
    assert len(pool.hits([1, 2, 3, 4, 5])) == 2
    pool.free("A")
    pool.check_invariants()
    assert len(pool.hits([1, 2, 3, 4, 5])) == 1
    assert pool.reserve("B", 4) == ([], [])                   # alone in block 1 by now
    pool.computed("B", [1, 2, 3, 7], 4)
    assert pool.hits([1, 2, 3, 7, 5]) == pool.table("B")
    pool.share("D", "B")
    pool.free("D")
    assert pool.hits([1, 2, 3, 7, 5]) == pool.table("B")      # D ended where the block ends: nobody writes into it


def test_a_fork_remembers_what_its_source_left_before_it_was_full() -> None:
    pool = PrefixPool(8, 2)
    pool.open("A", [1, 2, 3, 4], 4)
    pool.share("B", "A")
    pool.free("A")
    pool.computed("B", [1, 2, 3, 4], 4)
    assert pool.hits([1, 2, 3, 4, 5]) == pool.table("B")


def test_the_index_must_have_the_block_size_of_the_pool() -> None:
    with pytest.raises(UserError, match="block"):
        PrefixPool(4, 2, HashIndex(4))
    assert PrefixPool(4, 2).caches and not BlockPool(4, 2).caches


def test_check_invariants_can_fail() -> None:
    def spoiled(spoil) -> PrefixPool:                         # type: ignore[no-untyped-def]
        pool = PrefixPool(6, 2)
        filled(pool, "A", [1, 2, 3, 4, 5])
        pool.free("A")
        filled(pool, "B", [1, 2, 8])
        spoil(pool)
        return pool
    for spoil in (lambda p: p._cached.popitem(), lambda p: p.index.forget(next(iter(p._cached))),
                  lambda p: p._free.append(p._cached.popitem()[0]),
                  lambda p: p.index.insert([9, 9], p.table("B")[1:], None),
                  lambda p: p.index.insert([9, 9], [p._free[0]], None),
                  lambda p: p._cached.update({p.table("B")[0]: None})):
        with pytest.raises(AssertionError):
            spoiled(spoil).check_invariants()


def test_what_is_shared_before_it_is_full_is_remembered_while_its_writer_is_there() -> None:
    pool = PrefixPool(8, 4)
    text = [1, 2, 3, 4, 5, 6, 7, 8]
    pool.open("A", text, 8)
    pool.computed("A", text, 5)
    pool.share("B", "A", 5)
    pool.computed("A", text, 8)
    pool.check_invariants()
    assert pool.hits([*text, 9]) == pool.table("A")
    pool.free("A")                                            # B may go on another way after slot 5
    pool.check_invariants()
    assert pool.hits([*text, 9]) == pool.table("B")[:1]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), min_size=1, max_size=5),
       st.integers(0, 5), st.lists(st.integers(0, 1), min_size=1, max_size=12), st.integers(5, 14))
def test_room_without_some_owners_is_the_room_when_they_have_gone(size: int, texts: list[list[int]], leave: int,
                                                                  asked: list[int], num_blocks: int) -> None:
    pool = PrefixPool(num_blocks, size)
    for name, text in enumerate(texts):
        if pool.can_open(text, len(text)):
            filled(pool, str(name), text)
    leaving = list(pool.tables)[:leave]
    said = pool.can_open(asked, len(asked), without=leaving)
    for name in leaving:
        pool.free(name)
    if said:
        pool.open("asked", asked, len(asked))
    else:
        with pytest.raises(OutOfBlocks):
            pool.open("asked", asked, len(asked))
    pool.check_invariants()


# ---- jumps ---------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=5),
       st.integers(1, 3), st.integers(0, 9), st.integers(8, 24))
def test_growing_in_turn_evicts_what_growing_one_by_one_evicts(size: int, texts: list[list[int]], stay: int,
                                                               rounds: int, num_blocks: int) -> None:
    one = PrefixPool(num_blocks, size)
    for name, text in enumerate(texts):
        if one.can_open(text, len(text)):
            filled(one, str(name), text)
    owners = list(one.tables)[:stay]
    for name in list(one.tables)[stay:]:
        one.free(name)
    other = deepcopy(one)
    rounds = one.rounds_that_fit(owners, rounds)
    expected: dict[int, list[tuple[str, list[int]]]] = {}
    for turn in range(rounds):
        for owner in owners:
            copies, blocks = one.reserve(owner, one.length(owner) + 1)
            assert copies == []
            if blocks:
                expected.setdefault(turn, []).append((owner, blocks))
    assert other.append_in_turn(owners, rounds) == expected
    assert one.tables == other.tables and one.evicted_blocks == other.evicted_blocks
    assert list(one._free) == list(other._free) and list(one._cached) == list(other._cached)
    other.check_invariants()


# ---- against a naive model -----------------------------------------------------------------------------------------

Slot = tuple[int, int]


class Cache:
    """Random requests over an alphabet of two, with memory that says what every slot really holds.

    The model is a list of what has been remembered: (block, all tokens up to its end), oldest first. What is found must
    be there, to the token; and what the model still has must be found.
    """

    def __init__(self, seed: int, tree: bool) -> None:
        self.random = random.Random(seed)
        self.tree, self.size = tree, self.random.randint(1, 4)
        num_blocks = self.random.randint(2, 24)
        self.pool = PrefixPool(num_blocks, self.size, RadixIndex(self.size) if tree else HashIndex(self.size))
        self.memory: dict[Slot, Slot] = {}                    # (block, offset) -> (position, token)
        self.tokens: dict[str, list[int]] = {}
        self.done: dict[str, int] = {}                        # tokens computed
        self.told: dict[str, int] = {}                        # blocks looked at for remembering
        self.known: list[tuple[int, tuple[int, ...]]] = []
        self.texts: list[list[int]] = [[]]                    # what has been said, to begin alike
        self.cut = False
        self.names = 0

    # ---- the model -------------------------------------------------------------------------------------------

    def holders(self, text: tuple[int, ...]) -> list[int]:
        return [block for block, known in self.known if known == text]

    def longest(self, tokens: list[int]) -> int:
        place = 0
        while (place + 1) * self.size < len(tokens) and self.holders(tuple(tokens[:(place + 1) * self.size])):
            place += 1
        return place

    def taken(self, blocks: list[int]) -> None:
        self.known = [(block, text) for block, text in self.known if block not in blocks]

    def remember(self, name: str) -> None:
        table, size = self.pool.table(name), self.size
        full, place = self.done[name] // size, self.told[name]
        while place < full:
            text = tuple(self.tokens[name][:(place + 1) * size])
            known = [block for block, _ in self.known]
            if min(text) < 0 or (place and table[place - 1] not in known):
                place = 10**9
                break
            if table[place] not in known:
                self.known.append((table[place], text))
            place += 1
        self.told[name] = max(self.told[name], place)

    def compute(self, name: str, count: int) -> None:
        table = self.pool.table(name)
        for position in range(self.done[name], self.done[name] + count):
            slot = table[position // self.size], position % self.size
            self.memory[slot] = position, self.tokens[name][position]
        self.done[name] += count
        self.remember(name)
        self.pool.computed(name, self.tokens[name], self.done[name])

    # ---- what may happen -------------------------------------------------------------------------------------

    def pick(self) -> str | None:
        return self.random.choice(list(self.tokens)) if self.tokens else None

    def new_name(self) -> str:
        self.names += 1
        return f"r{self.names}"

    def open(self) -> None:
        like = self.random.choice(self.texts)
        tokens = like[:self.random.randint(0, len(like))] + self.random.choices((0, 1), k=self.random.randint(1, 6))
        name, expected = self.new_name(), self.longest(tokens)
        self.texts.append(tokens)
        if not self.pool.can_open(tokens, len(tokens)):
            before = deepcopy((self.pool.tables, list(self.pool._cached), self.pool.num_free))
            with pytest.raises(OutOfBlocks):
                self.pool.open(name, tokens, len(tokens))
            assert before == (self.pool.tables, list(self.pool._cached), self.pool.num_free)
            self.free()
            return
        found = self.pool.open(name, tokens, len(tokens))
        assert found == expected * self.size < len(tokens), "something that is there was not found, or too much"
        self.taken(self.pool.table(name)[expected:])
        self.tokens[name], self.done[name], self.told[name] = list(tokens), found, expected

    def fill(self) -> None:
        if name := self.pick():
            self.compute(name, self.random.randint(0, len(self.tokens[name]) - self.done[name]))

    def decode(self) -> None:
        """As the engine does: the token before is computed, this one is delivered."""
        if name := self.pick():
            self.compute(name, len(self.tokens[name]) - self.done[name])
            for _ in range(self.random.randint(1, 6)):
                self.decode_one(name, self.random.choice((0, 1)) if self.random.random() < 0.95 else -1)
            self.texts.append(list(self.tokens[name]))

    def decode_one(self, name: str, token: int) -> None:
        try:
            copies, blocks = self.pool.reserve(name, len(self.tokens[name]) + 1)
        except OutOfBlocks:
            assert self.pool.num_free == 0
            return
        for source, destination in copies:
            self.taken([destination])
            for offset in range(self.size):
                if (source, offset) in self.memory:
                    self.memory[destination, offset] = self.memory[source, offset]
        self.taken(blocks)
        self.forget_cut()
        self.tokens[name].append(token)
        self.compute(name, 1)

    def fork(self) -> None:
        if not (source := self.pick()):
            return
        name, count = self.new_name(), self.random.randint(0, self.done[source])
        self.pool.share(name, source, count)
        self.tokens[name], self.done[name] = self.tokens[source][:count], count
        self.told[name] = min(self.told[source], count // self.size)

    def forget_cut(self) -> None:
        """A known block with one owner, who ends inside it, may be written: it must not be found any more."""
        for name, table in self.pool.tables.items():
            text = next((text for block, text in self.known if table[-1:] == [block]), None)
            if text and self.pool.length(name) % self.size and self.pool.references(table[-1]) == 1:
                self.cut = True
                self.taken([table[-1]])
                if self.tree and not self.holders(text):
                    self.known = [(b, longer) for b, longer in self.known if longer[:len(text)] != text]

    def free(self) -> None:
        if not (name := self.pick()):
            return
        table = list(self.pool.table(name))
        freed = self.pool.free(name)
        assert freed == [block for block in reversed(table) if self.pool.references(block) == 0]
        self.forget_cut()
        for block in freed:
            text = next((text for known, text in self.known if known == block), None)
            if text is not None and self.holders(text)[0] != block:
                self.taken([block])
        del self.tokens[name], self.done[name], self.told[name]

    # ---- what must hold --------------------------------------------------------------------------------------

    def check_books(self) -> None:
        pool = self.pool
        pool.check_invariants()
        owned = {block for table in pool.tables.values() for block in table}
        assert len(pool._free) + len(pool._cached) + len(owned) == pool.num_blocks
        for name, tokens in self.tokens.items():
            table = pool.table(name)
            assert 0 <= len(table) * self.size - pool.length(name) < self.size, "more than one partial block of waste"
            read = [self.memory[table[i // self.size], i % self.size] for i in range(self.done[name])]
            assert read == list(enumerate(tokens[:self.done[name]])), f"{name} reads what is not its own"

    def check_what_is_remembered(self) -> None:
        for block, text in self.known:
            start = len(text) - self.size
            assert [self.memory[block, offset] for offset in range(self.size)] == list(
                enumerate(text))[start:], "a remembered block holds something else"
        if not self.cut:
            known = {text for _, text in self.known}
            assert all(text[:-self.size] in known or len(text) == self.size for text in known), "a parent went first"


@pytest.mark.parametrize("tree", [False, True])
@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), forks=st.booleans())
def test_what_is_there_is_found_and_what_is_found_is_there(tree: bool, seed: int, forks: bool) -> None:
    cache = Cache(seed, tree)
    rules = [cache.open] * 4 + [cache.fill] * 2 + [cache.decode] * 2 + [cache.free] + [cache.fork] * forks
    for _ in range(60):
        cache.random.choice(rules)()
        cache.check_books()
        cache.check_what_is_remembered()


# ---- both indices ----------------------------------------------------------------------------------------------------

History = list[tuple[int, int, list[int], bool]]
HISTORIES = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 20), st.lists(st.integers(0, 1), max_size=9),
                               st.booleans()), max_size=16)


def played(pool: PrefixPool, history: History) -> list[int]:
    """Requests that begin like earlier ones, some staying; what was found for each, -1 without room."""
    texts: list[list[int]] = [[]]
    found = []
    for number, (of, keep, more, stays) in enumerate(history):
        tokens = texts[of % len(texts)][:keep] + more or [1]
        texts.append(tokens)
        if not pool.can_open(tokens, len(tokens)):
            found.append(-1)
            continue
        found.append(filled(pool, str(number), tokens))
        if not stays:
            pool.free(str(number))
    return found


@settings(max_examples=150, deadline=None)
@given(HISTORIES, st.integers(1, 4), st.integers(4, 40))
def test_a_tree_of_pages_finds_what_chained_hashes_find(history: History, size: int, num_blocks: int) -> None:
    """Block by block, also when both forget: they are told of the same evictions."""
    pools = [PrefixPool(num_blocks, size, kind(size)) for kind in (HashIndex, RadixIndex)]
    assert played(pools[0], history) == played(pools[1], history)
    assert pools[0].tables == pools[1].tables and list(pools[0]._cached) == list(pools[1]._cached)


@settings(max_examples=150, deadline=None)
@given(HISTORIES, st.integers(2, 5))
def test_a_tree_of_tokens_finds_the_same_up_to_block_rounding(history: History, size: int) -> None:
    hashed, tree = PrefixPool(500, size), PrefixPool(500, 1, RadixIndex(1))
    for one, other in zip(played(hashed, history), played(tree, history), strict=True):
        assert one == other // size * size
