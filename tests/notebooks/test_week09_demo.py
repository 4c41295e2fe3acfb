"""The demo of week 9 shows what it is for, without a browser: order counts, a factor does not, bins help by guesses."""

import pytest

from tests.notebooks.demos import demo_of


@pytest.fixture(scope="module")
def demo():
    """The names of the demo."""
    with demo_of(9) as names:
        yield names


def test_a_factor_costs_error_and_no_latency(demo):
    widget, seconds = demo["prediction"], demo["seconds"]
    assert widget.set(predictor="network", times=4).summary != widget.set(times=1).summary
    assert seconds("network", 0, 4) == seconds("network", 0, 1)
    assert seconds("oracle", 0, 1) < seconds("network", 0, 1) < seconds("", 0, 1)


def test_a_ranker_and_wide_buckets_are_worth_what_their_order_is(demo):
    seconds = demo["seconds"]
    assert seconds("ListMLE", 0, 1) < seconds("ten wide buckets", 0, 1)
    assert seconds("constant", 0, 1) == pytest.approx(seconds("", 0, 1)), "who says the same of all changes nothing"
    assert "mean error" not in demo["prediction"].preset("only an order").summary


def test_error_costs_only_where_somebody_waits(demo):
    calm, rush = demo["over_sigma"](0.7), demo["over_sigma"](1.2)
    assert max(calm[1]) == pytest.approx(calm[0], rel=0.02)
    assert rush[1][0] < rush[1][-1] < rush[0]


def test_bins_say_their_gain(demo):
    widget = demo["multibin"]
    assert "1.00 times" in widget.preset("one queue").summary
    widget.preset("four bins")
    gains = [float(widget.set(sigma=sigma).summary.split(", ")[1].split(" times")[0]) for sigma in (0.0, 0.6, 1.0)]
    assert gains == sorted(gains, reverse=True) and gains[0] > 1.4
