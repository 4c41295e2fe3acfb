"""Every view: its figure, its finding, its numbers, its picture."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse import viz
from llmcourse.errors import UserError
from llmcourse.viz.beam import Node
from llmcourse.viz.distribution import reshape, softmax
from llmcourse.viz.gantt import idle_slot_steps
from llmcourse.viz.kv_memory import KVShape

from .conftest import served

LLAMA = KVShape("Llama 3 8B", layers=32, heads=32, kv_heads=8, head_dim=128, parameters=8.03e9)
TREE = [Node("The", None, 0), Node(" cat", 0, -0.4), Node(" dog", 0, -0.9), Node(" emu", 0, -3.2, False),
        Node(" sat", 1, -1.0)]
POINTS = [viz.Point("decode", 1e6, 2e6, 1e-3), viz.Point("prefill", 1e9, 1e6)]
LAPTOP = viz.Roof("laptop", 270e9, 28.7e9)

VIEWS = {
    "gantt by request": lambda log: viz.iteration_gantt(log),
    "gantt by slot, in time": lambda log: viz.iteration_gantt(log, rows="slot", axis="time"),
    "waterfall": lambda log: viz.request_waterfall(log),
    "occupancy": lambda log: viz.kv_occupancy(log),
    "block map": lambda log: viz.block_map(log, 3),
    "attention": lambda log: viz.attention_map(["The", " cat"], [[1, 0], [0.25, 0.75]]),
    "distribution": lambda log: viz.next_token_distribution([" a", "\n", "你好"], [2, 1, 0], 0.7, 2),
    "roofline": lambda log: viz.roofline_chart(LAPTOP, POINTS),
    "kv calculator": lambda log: viz.kv_calculator(LLAMA, 80e9, 8192),
    "beam": lambda log: viz.beam_tree(TREE),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_says_its_finding_holds_its_numbers_and_draws_a_legible_picture(name, tight):
    figure = VIEWS[name](tight)
    assert viz.summary(figure).endswith(".")
    table = viz.table(figure)
    assert table.rows and all(len(row) == len(table.columns) for row in table.rows)
    svg = viz.to_svg(figure, viz.summary(figure))
    root = ET.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label") == viz.summary(figure)
    sizes = [float(node.get("font-size")) for node in root.iter() if node.get("font-size")]
    assert sizes and min(sizes) >= 13
    assert "nan" not in svg.lower() and len(svg) < 200_000
    assert figure.to_json() and VIEWS[name](tight).to_json() == figure.to_json()


def test_the_gantt_draws_one_bar_per_request_and_step_with_the_prefill_counted(small):
    figure = viz.iteration_gantt(small)
    bars = {trace.name: trace for trace in figure.data}
    assert list(bars["prefill"].text) == ["5", "3"]
    assert list(bars["recompute"].base) == [2.5] and list(bars["preempted"].base) == [1.5]
    assert viz.table(figure).rows[0] == ("0", "1", "2", "A+5", "1", "1")


def test_continuous_batching_leaves_fewer_empty_seats_than_static():
    assert idle_slot_steps(served("continuous", 64, 4)) < idle_slot_steps(served("static", 64, 4))


def test_the_block_map_letters_every_block_with_its_owner(small):
    figure = viz.block_map(small, 1)
    assert list(figure.data[0].text) == ["A", "", "A", ""]
    assert viz.table(figure).rows == (("A", "a", "2 0", "6", "2"),)


def test_the_waterfall_adds_up_and_marks_the_first_token(small):
    rows = {row[0]: row for row in viz.table(viz.request_waterfall(small)).rows}
    assert rows["a"][1:] == ("0", "1", "1", "3", "1", "2", "6", "3")


def test_occupancy_never_exceeds_the_pool_and_marks_each_preemption(tight):
    figure = viz.kv_occupancy(tight)
    used = [int(row[2]) for row in viz.table(figure).rows]
    assert max(used) <= 16
    marks = next(trace for trace in figure.data if trace.name == "preemption")
    assert len(marks.x) == sum(event.kind == "PREEMPTED" for event in tight)


def test_llama_3_8b_leaves_128_kib_per_token():
    figure = viz.kv_calculator(LLAMA, 80e9, 8192, gpu_name="A100 80 GB")
    assert LLAMA.bytes_per_token() == 131072
    assert "52 such requests fit" in viz.summary(figure)
    by_kind = {row[0]: row for row in viz.table(figure).rows}
    assert by_kind["multi-head (MHA)"][2] == "512 KiB"
    assert "do not fit" in viz.summary(viz.kv_calculator(LLAMA, 8e9, 8192))


def test_the_roofline_names_the_limit_of_each_point():
    rows = viz.table(VIEWS["roofline"](None)).rows
    assert [row[4] for row in rows] == ["memory", "arithmetic"]
    assert LAPTOP.attainable(LAPTOP.ridge) == pytest.approx(LAPTOP.flops_per_second)


def test_the_beam_winner_is_traced_to_the_root():
    fates = [row[3] for row in viz.table(viz.beam_tree(TREE)).rows]
    assert fates == ["winner", "winner", "kept", "dropped", "winner"]


logits = st.lists(st.floats(-8, 8), min_size=1, max_size=30)


@given(logits, st.floats(0, 2), st.integers(0, 30), st.floats(0.01, 1))
def test_reshaping_keeps_a_distribution_its_order_and_the_crossing_token(values, temperature, top_k, top_p):
    after, scaled = reshape(values, temperature, top_k, top_p), softmax(values, temperature)
    assert math.isclose(sum(after), 1, abs_tol=1e-9)
    kept = [i for i, share in enumerate(after) if share > 0]
    assert not top_k or len(kept) <= top_k
    dropped = [scaled[i] for i in range(len(values)) if i not in kept]
    assert min(scaled[i] for i in kept) >= max(dropped, default=0) - 1e-12
    if not top_k:
        assert sum(scaled[i] for i in kept) >= top_p - 1e-9


@pytest.mark.parametrize("call", [
    lambda: viz.iteration_gantt([]), lambda: viz.kv_occupancy([]), lambda: viz.block_map([]),
    lambda: viz.request_waterfall([]), lambda: viz.attention_map(["a"], [[1, 0]]),
    lambda: viz.next_token_distribution(["a"], [1.0, 2.0]), lambda: viz.next_token_distribution(["a"], [1.0], top_p=0),
    lambda: viz.roofline_chart([]), lambda: viz.roofline_chart(viz.Roof("x", 0, 1)),
    lambda: viz.kv_calculator(LLAMA, 80e9, 0), lambda: viz.beam_tree([Node("a", 3, 0.0)]), lambda: viz.beam_tree([]),
    lambda: viz.iteration_gantt([], rows="column"),
])
def test_bad_input_is_refused_in_one_line(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
