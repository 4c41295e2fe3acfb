"""Recompute or swap, and a fleet over time: every number drawn is the engine's own price or a lease's own moment."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import viz
from llmcourse.engine.preemption import Preemption, Prices
from llmcourse.errors import UserError
from llmcourse.executors.roofline import link_prices
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.rental import Lease
from llmcourse.model.shapes import shape
from llmcourse.viz.scaling import _DRAINS, _SERVES, _STARTS, _at, counted
from llmcourse.viz.swap import BLOCK, CONTEXTS, GB, break_even


def drawn(figure):
    svg = viz.to_svg(figure, viz.summary(figure))
    root = ET.fromstring(svg)
    assert root.get("aria-label") == viz.summary(figure) and viz.summary(figure).endswith(".")
    assert min(float(node.get("font-size")) for node in root.iter() if node.get("font-size")) >= 13
    assert "nan" not in svg.lower() and len(svg) < 200_000
    return figure


def prices(model="Llama 2 7B", gpu="A100 80 GB", link=12.0):
    return link_prices(RooflineCost(hardware(gpu), shape(model)), shape(model), BLOCK, link * GB)


# -- recompute or swap -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [1.0, 12.0, 64.0])
def test_the_cheaper_way_is_the_engines_own_on_both_sides_of_the_crossing(link):
    found = prices(link=link)
    engine = Preemption("cheaper", 10, found)
    figure = drawn(viz.swap_or_recompute(found, 512))
    again, moved = figure.data
    for n, a, b, (_, _, _, chosen) in zip(again.x, again.y, moved.y, viz.table(figure).rows, strict=True):
        assert (a, b) == (pytest.approx(1000 * found.prompt(n)), pytest.approx(1000 * found.swap(n, BLOCK)))
        assert (chosen == "swap") == engine.would_swap(n, BLOCK)
    crossing = found.crossover(BLOCK, CONTEXTS[-1])
    if crossing is not None:
        assert engine.would_swap(crossing, BLOCK) and all(engine.would_swap(n, BLOCK) for n in CONTEXTS if n > crossing)
        assert crossing == 1 or not engine.would_swap(crossing - 1, BLOCK)
        assert f"{crossing:,}" in viz.summary(figure) or crossing == 1


def test_a_faster_link_moves_the_crossing_to_shorter_contexts():
    crossings = [prices(link=link).crossover(BLOCK, CONTEXTS[-1]) or math.inf for link in (4, 12, 20, 45)]
    assert crossings == sorted(crossings, reverse=True) and crossings[0] > crossings[-1]


@given(st.sampled_from(["Llama 2 7B", "Llama 3 8B"]), st.floats(0.5, 64), st.integers(1, 16_384))
@settings(max_examples=60, deadline=None)
def test_at_the_break_even_both_ways_cost_the_same(model, link, context):
    even = break_even(prices(model, link=link), link * GB, context)
    there = prices(model, link=even / GB)
    assert there.swap(context, BLOCK) == pytest.approx(there.prompt(context))


def test_break_even_curves_hold_their_numbers():
    models = {name: prices(name, link=20) for name in ("Llama 2 7B", "Llama 3 8B")}
    figure = drawn(viz.break_even_curves(models, 20 * GB, {"PCIe 4": 20 * GB}))
    for trace, (name, one) in zip(figure.data, models.items(), strict=True):
        assert trace.name == name
        assert list(trace.y) == pytest.approx([break_even(one, 20 * GB, n) / GB for n in trace.x])
    assert viz.table(figure).columns == ("tokens", "Llama 2 7B, GB/s", "Llama 3 8B, GB/s")
    with pytest.raises(UserError):
        viz.break_even_curves({}, 20 * GB)


def test_the_explorer_answers_every_control():
    widget = viz.swap_explorer()
    slow, fast = widget.set(link=1).summary, widget.set(link=45).summary
    assert "compute it again" in slow and "swap it" in fast
    few = widget.set(model="Llama 3 8B", link=4).summary
    assert "swap it" in few and "compute it again" in widget.preset("a slow link").summary


def test_a_context_that_is_none_is_refused():
    with pytest.raises(UserError, match="context of 0"):
        viz.swap_or_recompute(prices(), 0)
    flat = Prices(1.0, lambda n: 1e-3 * n)                    # a link that never wins
    assert "cheaper at no length up to" in viz.summary(drawn(viz.swap_or_recompute(flat, 64)))


def test_words_at_a_link_stand_where_the_curves_are_not():
    """A curve that ends at 10 GB/s would run through the words for a link of 10: they stand on the left."""
    short, long = (1.01 * break_even(prices(), 12 * GB, context) for context in (CONTEXTS[1], CONTEXTS[-1]))
    figure = viz.break_even_curves({"a": prices()}, 12 * GB, {"near the short end": short, "near the long end": long})
    side = {note.text: note.x for note in figure.layout.annotations}
    assert side["near the long end"] == 0 and side["near the short end"] == 1


def test_a_slow_link_that_wins_only_for_a_handful_of_tokens_says_so():
    """A step reads all weights once, however few tokens it computes: there swapping wins, and nowhere else."""
    said = viz.swap_explorer().set(link=4, context=1024).summary
    assert "cheaper only for short contexts, 32 tokens of those drawn" in said


# -- a fleet over time -------------------------------------------------------------------------------------------------


@st.composite
def fleets(draw):
    leases = []
    for number in range(draw(st.integers(1, 6))):
        moments = sorted(draw(st.lists(st.floats(0, 100), min_size=4, max_size=4)))
        known = draw(st.integers(1, 4))
        ready, drained, ended = (time if place < known else None for place, time in enumerate(moments[1:], 1))
        leases.append(Lease(number, moments[0], ready, drained, ended))
    return leases


@given(fleets(), st.lists(st.floats(0, 90), min_size=1, max_size=30), st.floats(0, 20))
@settings(max_examples=60, deadline=None)
def test_what_is_counted_is_what_the_leases_say(leases, arrivals, ttft):
    serving, starting, draining = (counted(leases, 100.0, *ends) for ends in (_SERVES, _STARTS, _DRAINS))
    for moment in (0.5, 13.3, 50.1, 99.9):
        paid = sum(lease.started <= moment and (lease.ended is None or moment < lease.ended) for lease in leases)
        assert _at(serving, moment) + _at(starting, moment) + _at(draining, moment) == paid
    figure = drawn(viz.scaling_steps(leases, sorted(arrivals), [ttft] * len(arrivals), 120.0))
    line = next(trace for trace in figure.data if trace.name == "take requests")
    told = {lease.ready for lease in leases} | {lease.drained for lease in leases} | {lease.ended for lease in leases}
    changes = [time for time, before, after in zip(line.x[1:], line.y, line.y[1:], strict=False) if before != after]
    assert set(changes) <= told, "the line moves only when somebody is ready or leaves"
    load = next(trace for trace in figure.data if trace.name == "arrivals")
    assert sum(np.array(load.y) * np.array(load.width)) == pytest.approx(len(arrivals))
    waiting = next(trace for trace in figure.data if trace.name.startswith("wait"))
    most = max(sum(came <= now < came + ttft for came in arrivals) for now in arrivals)
    assert waiting.y[-1] == 0 and min(waiting.y) >= 0 and max(waiting.y) == most
    assert len(viz.table(figure).rows) == len(leases)


def test_cold_starts_and_drains_are_shaded_for_as_long_as_they_last():
    leases = [Lease(0, 0.0, 0.0), Lease(1, 10.0, 36.0, 80.0, 90.0)]
    figure = drawn(viz.scaling_steps(leases, [1.0, 2.0, 50.0], [0.1, 0.1, 3.0], 100.0))
    shaded = {trace.name: sum(w * y for w, y in zip(trace.width, trace.y, strict=True)) for trace in figure.data[1:3]}
    assert list(shaded.values()) == [pytest.approx(26.0), pytest.approx(10.0)]
    assert all(trace.marker.pattern.shape for trace in figure.data[1:3]), "told apart without colour"
    assert "1 started (26 s each)" in viz.summary(figure) and "1 emptied (10 s each)" in viz.summary(figure)
    assert "1 to 2 instances" in viz.summary(figure)


def test_an_empty_fleet_is_refused():
    with pytest.raises(UserError, match="0 instances"):
        viz.scaling_steps([], [1.0], [0.1])
    with pytest.raises(UserError, match="2 times"):
        viz.scaling_steps([Lease(0)], [1.0], [0.1, 0.2])
