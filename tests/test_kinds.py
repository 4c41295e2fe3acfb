"""Values of the wrong kind are refused where they are given, in a line that says what would do."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.kinds import check_fields, check_options, fits, options_of, words


@pytest.mark.parametrize(("value", "hint", "does"), [
    (3, int, True), (np.int64(3), int, True), (True, int, False), (3.0, int, False), ("3", int, False),
    (3, float, True), (np.float32(3), float, True), (math.inf, float, True), (math.nan, float, False),
    (np.float64("nan"), float, False), (True, float, False), (10**400, float, False), ("x", str, True),
    (True, bool, True), (1, bool, False), (None, float | None, True), (math.nan, float | None, False),
    ({"a": 1}, Mapping[str, float], True), ({"a": "b"}, Mapping[str, float], False), ([1], Mapping[str, float], False),
    ((1, 2.5), tuple[float, ...], True), ([1], Sequence[float], True), ("12", Sequence[float], False),
    (3, Sequence[float], False), (len, Callable[[str], int], True)])
def test_what_fits_an_annotation(value, hint, does):
    assert fits(value, hint) is does


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.none(), st.lists(st.integers())))
def test_what_fits_a_number_is_one_and_can_be_compared(value):
    if fits(value, float):
        assert float(value) == value or value > 2**53
    if fits(value, int):
        assert type(value) is int


def test_annotations_in_words():
    assert words(float | None) == "a number or None" and words(Callable[[int], int] | None) == ""


@dataclass(frozen=True)
class Settings:
    rate: float = 1.0
    most: int = 2

    def __post_init__(self):
        check_fields(self)


def test_fields_are_checked_by_their_annotations():
    Settings(2, np.int64(3))
    with pytest.raises(UserError, match=r"^rate is nan; it takes a number$"):
        Settings(math.nan)
    with pytest.raises(UserError, match=r"^most is True; it takes a whole number$"):
        Settings(most=True)
    with pytest.raises(UserError, match="rate is a huge number"):
        Settings(10**400)


def test_options_are_checked_by_the_signature():
    known = options_of(Settings)
    check_options("here", "settings", known, {"most": 3})
    with pytest.raises(UserError, match=r"here: settings has no option 'least'; there are rate, most"):
        check_options("here", "settings", known, {"least": 3})
    with pytest.raises(UserError, match=r"here: Settings needs x, a whole number"):
        check_options("here", "Settings", options_of(lambda x: x) or {"x": _required()}, {})
    assert options_of(object) == {}


def _required():
    import inspect

    def make(x: int):
        return x
    return inspect.signature(make).parameters["x"]
