"""The roofline as seconds of a step, and what fits into a machine's memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.metrics.cost_model import RooflineCost, blocks_that_fit
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.roofline import decode, prefill, step_seconds, step_work
from llmcourse.model.shapes import shape

A100, A10 = hardware("A100 80 GB"), hardware("A10")
LLAMA = shape("Llama 1 7B")
COST = RooflineCost(A100, LLAMA)
counts = st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**10)), min_size=1, max_size=20)


def pairs(count: int, start: int = 0) -> int:
    return count * start + count * (count + 1) // 2


def test_a_reader_s_tour() -> None:
    assert COST.seconds(1, 1, 0, 0) == pytest.approx(10.3e-3, rel=0.01)                 # reading 13.5 GB
    assert RooflineCost(A10, LLAMA).seconds(1, 1, 0, 0) == pytest.approx(30e-3, rel=0.01)
    batch = COST.seconds(32, 32, 32 * 500, 0)
    assert batch < 2 * COST.seconds(1, 1, 500, 0)                                       # 32 requests for less than two
    assert COST.seconds(1000, 1, 0, pairs(1000)) > 4 * batch                            # a prompt is another matter


def test_it_meets_a_measured_prefill() -> None:
    """Llumnix's artifact shows 2.0 s for 8,192 tokens of LLaMA-7B on an A10, half of whose peak is 62 TFLOP/s."""
    assert RooflineCost(A10, LLAMA, flops_share=0.5).seconds(8192, 1, 0, pairs(8192)) == pytest.approx(2.06, rel=0.01)


def test_tokens_are_free_until_the_weights_are_read() -> None:
    free = [tokens for tokens in range(1, 400) if COST.seconds(tokens, 1, 0, 0) == COST.seconds(1, 1, 0, 0)]
    assert free == list(range(1, 106))


@pytest.mark.parametrize("batch", [prefill(3000), decode(20, 700)])
def test_it_is_the_roofline_of_week_2_and_what_that_lets_overlap(batch) -> None:
    """Both count the same work; week 2's bound lets everything overlap, this one only the product with the weights."""
    bound = step_seconds(A100.derated(), step_work(LLAMA, batch))
    tokens, context = sum(new for new, _ in batch), sum(kept for _, kept in batch)
    took = COST.seconds(tokens, len(batch), context, sum(pairs(*item) for item in batch if item[0] > 1))
    assert bound < took < 1.3 * bound + COST.overhead


@given(st.integers(1, 10**5), st.integers(1, 1000), counts)
def test_many_steps_at_once_are_bit_for_bit_the_steps_one_by_one(tokens, requests, steps) -> None:
    context, seen = np.array(steps, dtype=np.int64).T
    at_once = COST.seconds(tokens, requests, context, seen)
    assert at_once.tolist() == [COST.seconds(tokens, requests, c, p) for c, p in steps]
    assert COST.seconds(tokens, requests, context, 7).tolist() == [COST.seconds(tokens, requests, c, 7)
                                                                   for c, _ in steps]


@given(st.integers(1, 10**5), st.integers(0, 10**7), st.integers(0, 10**10))
def test_more_work_never_takes_less_time(tokens, context, seen) -> None:
    took = COST.seconds(tokens, 1, context, seen)
    assert took <= COST.seconds(tokens + 1, 1, context, seen)
    assert took < COST.seconds(tokens, 1, context + 100, seen)
    assert took < COST.seconds(tokens, 1, context, seen + 10**6)


def test_blocks_that_fit_by_hand() -> None:
    llama = shape("Llama 2 7B")
    blocks = blocks_that_fit(A100, llama)
    assert blocks == int((0.9 * 80e9 - 2 * llama.num_parameters) // (16 * 524288)) == 6976
    assert blocks_that_fit(A100, llama, block_size=32) == blocks // 2
    assert blocks_that_fit(A100, llama, bytes_per_value=1) > 2 * blocks


def test_what_does_not_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(UserError) as refusal:
        blocks_that_fit(A100, shape("Llama 2 70B"))
    text = str(refusal.value)
    assert "68.98 B x 2 bytes = 138.0 GB" in text and "80 GB x 0.9 = 72.0 GB" in text and "66.0 GB too few" in text
    assert "it fits on MI300X; here with 1 or 0.5 bytes per value" in text and "\n" not in text
    blocks_that_fit(hardware("MI300X"), shape("Llama 2 70B"))
    blocks_that_fit(A100, shape("Llama 2 70B"), bytes_per_value=1)


def test_what_fits_nowhere_says_so() -> None:
    with pytest.raises(UserError, match=r"no single GPU of the table holds it$"):
        blocks_that_fit(A10, shape("GPT-3 175B"))


def test_room_for_the_weights_but_not_for_a_block() -> None:
    with pytest.raises(UserError, match=r"less than the 8\.6 GB of one block of 16384 tokens"):
        blocks_that_fit(hardware("A10"), shape("Llama 2 7B"), block_size=16384)
