"""Quality of experience: what comes before the reader needs it adds nothing, what comes late takes away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.qoe import mean_qoe, qoe, qoe_of

TIMES = st.lists(st.floats(0, 30), min_size=1, max_size=40).map(sorted)


def test_a_token_whenever_it_is_read_is_perfect_and_faster_is_no_better() -> None:
    on_time = [1 + n / 5 for n in range(20)]
    assert qoe_of(on_time, 1, 5) == pytest.approx(1)
    assert qoe_of([0.1] * 20, 1, 5) == pytest.approx(1)
    assert qoe_of([0.5] * 10 + [2.4] * 10, 1, 5) == pytest.approx(1)    # a pause that the buffer covers


def test_by_hand() -> None:
    """Two tokens, expected after 1 s and 2 s, read after 2 s and 3 s: 2 late of an area of 3 + 2, up to 4 s."""
    assert qoe_of([2, 2], 1, 1) == pytest.approx(1 - 2 / 5)
    assert qoe_of([3], 1, 1) == pytest.approx(1 - 2 / 3)
    assert qoe_of([], 1, 1) == 0


@given(TIMES, st.floats(0, 5), st.floats(0.5, 20))
def test_it_lies_between_0_and_1_and_nothing_is_better_later(times: list[float], ttft: float, pace: float) -> None:
    value = qoe_of(times, ttft, pace)
    assert -1e-9 <= value <= 1 + 1e-9
    assert qoe_of([time + 1 for time in times], ttft, pace) <= value + 1e-9
    assert qoe_of(times, ttft + 1, pace) >= value - 1e-9


def test_a_pause_costs_less_the_later_it_comes() -> None:
    early, late = [0.0] + [9.0] * 29, [0.0] * 20 + [20.0] * 10
    assert qoe_of(early, 1, 5) < qoe_of(late, 1, 5) < 1


def test_of_a_run() -> None:
    engine = Engine(MockExecutor(4, step_seconds=2.0, token_seconds=0.0), BlockPool(40, 4), max_running=1,
                    clock=VirtualClock())
    for name in "ab":
        engine.add(Request([1, 2], SamplingParams(3, ignore_eos=True), name))
    for _ in engine.stream():
        pass
    found = qoe(engine.events, ttft=2.0, pace=0.5)
    assert found["a"] == pytest.approx(1)
    assert found["b"] == pytest.approx(qoe_of([8, 10, 12], 2, 0.5)) and found["b"] < 1
    assert mean_qoe(engine.events, 2.0, 0.5) == pytest.approx((1 + found["b"]) / 2)


def test_a_reader_who_never_reads_is_refused() -> None:
    with pytest.raises(UserError, match=r"reads 0 tokens/s"):
        qoe_of([1], 1, 0)
