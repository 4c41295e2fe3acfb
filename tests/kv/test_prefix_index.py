"""Two indices, one answer: the longest beginning of a text that is known, as blocks."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.kv import HashIndex, PrefixIndex, RadixIndex
from llmcourse.kv.prefix import chained

KINDS: list[Callable[[int], PrefixIndex]] = [HashIndex, RadixIndex]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_s_tour(kind: Callable[[int], PrefixIndex]) -> None:
    index = kind(2)
    index.insert([1, 2, 3, 4, 5, 6], [10, 11, 12])
    index.insert([1, 2, 3, 9], [20, 21])                      # begins alike, parts in the second block
    assert index.match([1, 2, 3, 4, 5, 6, 7]) == [10, 11, 12]
    assert index.match([1, 2, 3, 9, 9, 9]) == [10, 21]        # the first block of equal ones answers
    assert index.match([1, 2, 3]) == [10]                     # full blocks only
    assert index.match([3, 4]) == []                          # the same words in another place are another thing
    assert index.holder(20) == 10 and index.holder(99) is None
    index.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_of_equal_blocks_takes_over(kind: Callable[[int], PrefixIndex]) -> None:
    index = kind(2)
    index.insert([1, 2, 3, 4], [10, 11])
    index.insert([1, 2, 5, 6], [20, 21])
    assert index.forget(10) == [10]
    assert index.match([1, 2, 3, 4]) == [20, 11] and index.holder(20) == 20
    index.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_goes_on_after_a_known_block(kind: Callable[[int], PrefixIndex]) -> None:
    index = kind(2)
    index.insert([1, 2], [0])
    index.insert([3, 4], [1], after=0)
    index.insert([5, 6, 7, 8], [2, 3], after=1)
    index.insert([9, 9], [4], after=0)                        # in the middle of what is one run by now
    index.insert([5, 6, 0, 0], [5, 6], after=1)
    assert index.match([1, 2, 3, 4, 5, 6, 7, 8]) == [0, 1, 2, 3]
    assert index.match([1, 2, 9, 9]) == [0, 4]
    assert index.match([1, 2, 3, 4, 5, 6, 0, 0]) == [0, 1, 2, 6]
    with pytest.raises(KeyError):
        index.insert([1, 1], [7], after=99)
    index.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_parent_a_block_is_not_found(kind: Callable[[int], PrefixIndex]) -> None:
    index = kind(1)
    index.insert([1, 2, 3], [10, 11, 12])
    index.insert([1, 2, 4], [10, 11, 13])
    assert index.forget(11)[0] == 11
    assert index.match([1, 2, 3]) == [10] and index.match([1, 2, 4]) == [10]
    index.check_invariants()


def test_a_tree_says_what_it_has_lost_with_a_node_and_splits_where_texts_part() -> None:
    index = RadixIndex(1)
    index.insert([1, 2, 3, 4], [10, 11, 12, 13])
    assert [child.tokens for child in index.root.children.values()] == [[1, 2, 3, 4]]
    index.insert([1, 2, 5], [10, 11, 14])
    (upper,) = index.root.children.values()
    assert upper.tokens == [1, 2] and sorted(child.tokens for child in upper.children.values()) == [[3, 4], [5]]
    assert sorted(index.forget(11)) == [11, 12, 13, 14]
    assert index.match([1, 2, 3, 4]) == [10]


def test_names_depend_on_everything_before_and_take_any_64_bit_id() -> None:
    assert chained(chained(b"", [1]), [2]) != chained(chained(b"", [3]), [2])
    assert len({chained(b"", [-1]), chained(b"", [2**41]), chained(b"", [1]), chained(b"", [1, 0])}) == 4
    assert len(chained(b"", range(16))) == 16


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.lists(st.lists(st.integers(0, 1), max_size=9), max_size=8),
       st.lists(st.integers(0, 1), max_size=10))
def test_both_find_the_longest_beginning(size: int, texts: list[list[int]], asked: list[int]) -> None:
    """Against a set of all beginnings, in whole blocks."""
    indices, known = [kind(size) for kind in KINDS], {()}
    for number, text in enumerate(texts):
        whole = len(text) // size
        for index in indices:
            index.insert(text[:whole * size], range(100 * number, 100 * number + whole))
        known |= {tuple(text[:place * size]) for place in range(whole + 1)}
    longest = max(place for place in range(len(asked) // size + 1) if tuple(asked[:place * size]) in known)
    found = [index.match(asked) for index in indices]
    assert found[0] == found[1] and len(found[0]) == longest
    for index in indices:
        index.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
def test_check_invariants_can_fail(kind: Callable[[int], PrefixIndex]) -> None:
    index = kind(1)
    index.insert([1, 2], [10, 11])
    next(iter(index._holders.values())).append(99)            # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        index.check_invariants()
