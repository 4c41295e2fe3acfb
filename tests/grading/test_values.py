"""The border: what crosses it becomes exactly a built-in, everything else is refused in words."""

import collections
import decimal
import fractions
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.engine import Event, EventKind
from llmcourse.grading.values import DEPTH, NotPlain, plain
from llmcourse.model.config import ModelConfig

ATOM = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
PLAIN = st.recursive(
    ATOM,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


class Liar:
    def __eq__(self, other: object) -> bool:
        raise AssertionError("a student's __eq__ was run")

    __hash__ = None  # type: ignore[assignment]


class Int(int):
    def __eq__(self, other: object) -> bool:
        raise AssertionError("a student's __eq__ was run")

    __hash__ = int.__hash__


class List(list[Any]):
    def __iter__(self) -> Any:
        raise AssertionError("a student's __iter__ was run")


class Disguised:
    @property  # type: ignore
    def __class__(self) -> type:
        return int


class Tensor(torch.Tensor):
    pass


@given(PLAIN)
def test_plain_data_crosses_as_itself(value: Any) -> None:
    crossed = plain(value)
    assert crossed == value and type(crossed) is type(value)


@given(st.lists(st.integers()))
def test_what_crosses_is_a_copy(value: list[int]) -> None:
    crossed = plain([value])[0]
    value.append(1)
    assert len(crossed) == len(value) - 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (numpy.int64(3), 3),
        (numpy.float32(0.5), 0.5),
        (numpy.bool_(True), True),
        (numpy.str_("a"), "a"),
        (decimal.Decimal("3"), 3),
        (decimal.Decimal("2.5"), 2.5),
        (fractions.Fraction(1, 4), 0.25),
        (decimal.Decimal("Infinity"), float("inf")),
        (range(3), [0, 1, 2]),
        (collections.deque([1, 2]), [1, 2]),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (torch.Size([2, 3]), (2, 3)),
        ([numpy.int64(1)], [1]),
    ],
)
def test_the_coercion_table(value: Any, expected: Any) -> None:
    crossed = plain(value)
    assert crossed == expected and type(crossed) is type(expected)


def test_arrays_and_tensors_cross_as_copies() -> None:
    array, tensor = numpy.arange(3), torch.nn.Parameter(torch.ones(2))
    one, two = plain(array), plain(tensor)
    array[0], tensor.data[0] = 9, 9.0
    assert one.tolist() == [0, 1, 2] and type(one) is numpy.ndarray
    assert two.tolist() == [1.0, 1.0] and type(two) is torch.Tensor and not two.requires_grad


def test_a_tensor_cannot_bring_methods_of_its_own() -> None:
    tensor = torch.ones(2)
    tensor.detach = tensor.clone = lambda: 7  # type: ignore
    assert type(plain(tensor)) is torch.Tensor and plain(tensor).tolist() == [1.0, 1.0]


def test_this_packages_own_dataclasses_cross() -> None:
    config = ModelConfig(100, 32, 2, 4, 2, 8, 64, 128)
    assert plain([config]) == [config] and plain(config) is not config


def test_this_packages_events_cross() -> None:
    queued, aborted = Event(0.5, EventKind.QUEUED, "A", {"prompt_tokens": 3}), Event(1.0, EventKind.ABORTED, "A")
    crossed = plain([queued, aborted])
    assert [type(event) for event in crossed] == [Event, Event] and crossed == [queued, aborted]
    assert crossed[0].data is not queued.data and type(crossed[1].data) is dict


def test_a_named_tuple_of_somebody_else_is_refused() -> None:
    stranger = collections.namedtuple("Event", "time kind")
    stranger.__module__ = "llmcourse.engine.events"
    with pytest.raises(NotPlain, match="class Event, built on tuple"):
        plain(stranger(1, 2))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Int(3), "class Int, built on int but not a plain int"),
        (List([1]), "class List, built on list but not a plain list"),
        (Liar(), "class Liar, not plain data"),
        (Disguised(), "class Disguised"),
        ([1, {"a": Liar()}], "at ['a'] at [1]"),
        (Tensor(), "class Tensor"),
        (numpy.array([Liar()], dtype=object), "dtype object"),
        (numpy.datetime64(1, "s"), "class datetime64"),
        ((i for i in range(3)), "a generator, not the values themselves"),
        (len, "was a call's () left out?"),
        (ModelConfig, "a type, not a value"),
        (decimal.Decimal("sNaN"), "no float"),
        (type("ModelConfig", (), {"__module__": "llmcourse.model.config"})(), "class ModelConfig"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_everything_else_is_refused_in_words(value: Any, words: str) -> None:
    with pytest.raises(NotPlain) as error:
        plain(value)
    assert words in str(error.value)


def test_cycles_depth_and_size_are_bounded() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(NotPlain, match="contains itself"):
        plain(cycle)
    deep: list[Any] = []
    for _ in range(DEPTH + 1):
        deep = [deep]
    with pytest.raises(NotPlain, match="nested"):
        plain(deep)
    with pytest.raises(NotPlain, match="more than 1,000,000 values"):
        plain([0] * 1_000_001)
    twice = [1]
    assert plain([twice, twice]) == [[1], [1]]


@pytest.mark.parametrize(("value", "said"), [
    (10**400, "a whole number of about 400 digits"), (-(10**5000), "a whole number of about 5,000 digits"),
    ({10**400: 1}, "digits as a key"), ([1, (10**400,)], r"digits at \[0\] at \[1\]"),
    (decimal.Decimal("1e999999999"), "a Decimal beyond all floats"), (fractions.Fraction(10**400), "a Fraction beyond"),
    ("x" * 10_000_001, "a str of 10,000,001 characters")], ids=range(7))
def test_what_no_check_can_reckon_with_or_show_is_refused(value: Any, said: str) -> None:
    with pytest.raises(NotPlain, match=said):
        plain(value)


def test_the_largest_numbers_that_cross_have_a_float() -> None:
    assert plain(2**1000 - 1) == 2**1000 - 1 and float(2**1000 - 1) > 0
    assert plain(decimal.Decimal("inf")) == float("inf") and plain(decimal.Decimal("1e300")) == 10**300
    assert str(plain(decimal.Decimal("nan"))) == "nan"
