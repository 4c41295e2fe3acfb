"""Comparing plain data and saying, in words, what differs first and which misconception it fits."""

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.grading import CheckFailed, expect_close, expect_equal, expect_raises, expect_true
from llmcourse.grading.failure import NotWritten, StudentError
from tests.grading.toy import failure

NAN = float("nan")


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (2.0, 2),
        ((1, 2), [1, 2]),
        (numpy.int64(2), 2),
        (torch.tensor(2), 2),
        (torch.tensor([1.0, NAN]), torch.tensor([1.0, NAN], dtype=torch.float64)),
        (NAN, NAN),
        ({"a": [1]}, {"a": (1,)}),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2)),
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        ({1, 2}, {2, 1}),
    ],
)
def test_equal(got: Any, want: Any) -> None:
    expect_equal(got, want)


@pytest.mark.parametrize(
    ("got", "want", "words"),
    [
        (65536, 131072, "got 65536; expected 131072"),
        (True, 1, "got True, a bool; expected an int, 1"),
        (1, True, "got 1, an int; expected a bool, True"),
        ("1", 1, "got '1', a str; expected an int, 1"),
        (None, [1], "got None; expected a list, [1]"),
        ([1, 2], [1, 3], "got [1, 2]; expected [1, 3]"),
        ([(2, 3), (5, 2)], [(2, 8)], "got [(2, 3), (5, 2)]; expected [(2, 8)]"),
        ([1], [1, 2], "got [1]; expected [1, 2]"),
        ({"a": [(1,), None]}, {"a": [(1,), "None"]}, "got [(1,), None] at ['a']; expected [(1,), 'None']"),
        ([*range(99), [5, 6]], [*range(99), [5, 7]], "got [5, 6] at [99]; expected [5, 7]"),
        ([[0] * 99, 1], [[0] * 98 + [1], 1], "got 0 at [0][98]; expected 1"),
        ([0] * 99, [0] * 98, "got 99 items: [0, 0, 0, 0, 0, 0, 0, 0, …]; expected 98: [0"),
        ([torch.zeros(99)], [torch.ones(99)], "got 0.0 at 0 of [0]; expected 1.0 (99 of 99 values differ)"),
        ({"a": 1}, {"b": 1}, "lacks ['b']"),
        ({"a": 1, "b": 2}, {"a": 1}, "has ['b'] too many"),
        (torch.zeros(2, 3), torch.zeros(3, 2), "got shape (2, 3); expected shape (3, 2)"),
        (torch.zeros(2), [0.0, 0.0], "got a tensor of shape (2,); expected a list"),
        (numpy.zeros(2), torch.zeros(2), "got a numpy array of shape (2,); expected a tensor of shape (2,)"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2), "got dtype torch.int64; expected float"),
        (torch.tensor([[1.0, 2.0], [NAN, NAN]]), torch.ones(2, 2), "got 2.0 at [0, 1]; expected 1.0 (3 of 4"),
        (torch.tensor([NAN, 2.0]), torch.ones(2), "got NaN at 0 (1 of 2 values are NaN); expected 1"),
        (float("inf"), 1, "got inf; expected 1"),
        (object(), 1, "the answer is an object of class object, not plain data"),
    ],
)
def test_not_equal_in_words(got: Any, want: Any, words: str) -> None:
    assert words in failure(lambda: expect_equal(got, want))


def test_hints_name_the_misconception() -> None:
    hints = {65536: "did you count K but forget V?", 524288: "query heads"}
    assert failure(lambda: expect_equal(65536, 131072, hints=hints)).endswith("\ndid you count K but forget V?")
    assert "forget" not in failure(lambda: expect_equal(7, 131072, hints=hints))
    pairs = [(torch.zeros(2), "all zero")]
    assert failure(lambda: expect_close(torch.zeros(2), torch.ones(2), hints=pairs)).endswith("all zero")


def test_close_has_a_tolerance_and_names_what_was_compared() -> None:
    expect_close([1.0, 2.0], [1.0 + 1e-7, 2.0])
    expect_close(torch.tensor([100.0]), torch.tensor([101.0]), 0.0, rtol=0.02)
    text = failure(lambda: expect_close(1.01, 1.0, 1e-3, what="the mean"))
    assert text == "the mean: got 1.01; expected 1 within 0.001"
    assert "inf" in failure(lambda: expect_close(float("inf"), 1.0, 10.0))
    text = failure(lambda: expect_close([0.1 + 0.2, 1.01], [0.3, 1.0], 1e-3))
    assert text == "got [0.3, 1.01]; expected [0.3, 1] within 0.001"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1), st.data())
def test_one_changed_number_is_always_found(values: list[float], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(values) - 1))
    wrong = [*values[:index], abs(values[index]) * 2 + 1, *values[index + 1 :]]
    expect_equal(wrong, wrong)
    for make in (lambda numbers: [*numbers, *[0] * 99], numpy.array, torch.tensor):  # a short list is shown whole
        with pytest.raises(CheckFailed, match=rf"at \[?{index}\]?"):
            expect_close(make(wrong), make(values), 1e-3)


def test_true_takes_a_bool_and_a_message() -> None:
    expect_true(True, "never shown")
    assert failure(lambda: expect_true(False, "block 3 has two owners")) == "block 3 has two owners"
    with pytest.raises(TypeError):
        expect_true([1], "truthy is not true")


def raising(error: Exception) -> Callable[[], None]:
    def run() -> None:
        with expect_raises(ValueError, "0 must be refused", naming="size"):
            raise error

    return run


def test_raises() -> None:
    raising(StudentError("f raised BadSize: size 0", ("BadSize", "ValueError", "Exception")))()
    assert "KeyError" in failure(raising(StudentError("f raised KeyError: 0", ("KeyError", "Exception"))))
    assert "should name 'size'" in failure(raising(StudentError("f raised ValueError", ("ValueError",))))
    with pytest.raises(NotWritten):
        raising(NotWritten("f is not written yet", ("NotImplementedError",)))()
    with pytest.raises(CheckFailed, match="0 must be refused"), expect_raises(ValueError, "0 must be refused"):
        pass
