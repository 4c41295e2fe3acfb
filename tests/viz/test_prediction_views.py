"""Views of week 9: the prediction scatter and the bins say what their numbers are."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse import viz
from llmcourse.errors import UserError
from llmcourse.predict import kendall_tau
from llmcourse.viz.bins import closed_batches, tokens_per_step

TRUTH = np.array([3, 8, 20, 41, 90, 90, 300, 12])
SAID = np.array([4.0, 7.0, 30.0, 20.0, 100.0, 60.0, 200.0, 12.0])


def drawn(figure):
    svg = viz.to_svg(figure, viz.summary(figure))
    root = ET.fromstring(svg)
    assert root.get("aria-label") == viz.summary(figure) and viz.summary(figure).endswith(".")
    assert min(float(node.get("font-size")) for node in root.iter() if node.get("font-size")) >= 13
    assert "nan" not in svg.lower()
    return figure


def test_the_scatter_has_a_dot_for_each_request_and_says_order_and_error():
    figure = drawn(viz.prediction_scatter(TRUTH, SAID, {"FCFS": 2.0, "predicted": 1.2, "oracle": 1.1}, cuts=(10, 50)))
    dots = next(trace for trace in figure.data if trace.name == "a request")
    assert list(dots.x) == TRUTH.tolist() and list(dots.y) == SAID.tolist()
    said = dict(viz.table(figure).rows[:4])
    assert said["tau"] == f"{kendall_tau(TRUTH, SAID):.2f}" and said["mean error"] == "21.6 tokens"
    assert said["right bucket"] == "100%", "3, 8 | 12, 20, 41 | the others: none is in a wrong one"
    assert "1.2 s by predicted" in viz.summary(figure)
    assert list(next(trace for trace in figure.data if trace.type == "bar").y) == [2.0, 1.2, 1.1]


def test_twice_too_much_costs_error_and_no_order():
    right, twice = (viz.table(viz.prediction_scatter(TRUTH, k * TRUTH)).rows for k in (1, 2))
    assert dict(right[:3])["tau"] == dict(twice[:3])["tau"] == "1.00"
    assert (dict(right[:3])["mean error"], dict(twice[:3])["mean error"]) == ("0 tokens", "70.5 tokens")


def test_scores_have_no_error_and_no_diagonal():
    figure = drawn(viz.prediction_scatter(TRUTH, SAID - 50, scores=True))
    assert [trace.name for trace in figure.data] == ["a request"] and "mean error" not in viz.summary(figure)
    assert figure.layout.yaxis.type != "log"


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="one list"):
        viz.prediction_scatter(TRUTH, SAID[:3])
    with pytest.raises(UserError, match="more than 0"):
        viz.prediction_scatter(TRUTH, SAID - 50)
    with pytest.raises(UserError, match="rise"):
        viz.prediction_scatter(TRUTH, SAID, cuts=(50, 10))
    with pytest.raises(UserError, match="prediction"):
        viz.batch_bins([1, 2], [1.0], 1, 2)
    with pytest.raises(UserError, match="no batch"):
        viz.batch_bins([1, 2], [1.0, 2.0], 2, 2)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(1, 500)), min_size=40, max_size=120), st.integers(1, 4),
       st.integers(1, 8))
def test_batches_are_full_and_nobody_is_in_two(pairs, bins, size):
    lengths, said = zip(*pairs, strict=True)
    batches = closed_batches(lengths, said, bins, size)
    assert all(len(batch.lengths) == size for batch in batches)
    assert [batch.bin for batch in batches] == sorted(batch.bin for batch in batches)
    left = list(lengths)
    for batch in batches:
        for length in batch.lengths:
            left.remove(length)
    assert len(left) <= bins * (size - 1)
    assert 1 <= tokens_per_step(batches) <= size


def test_the_bins_draw_what_a_batch_lasts():
    lengths = [1, 9, 2, 8, 1, 10, 2, 9]
    figure = drawn(viz.batch_bins(lengths, lengths, 2, 2))
    useful, waiting = figure.data
    assert [a + b for a, b in zip(useful.y, waiting.y, strict=True)] == [2, 2, 9, 10]
    assert "1.57 times" in viz.summary(figure), "36 steps become 23"
    assert len(viz.table(figure).rows) == 4
