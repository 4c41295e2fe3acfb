"""The token budget for a TPOT: the largest that is in time, found as if all had been tried."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.model.shapes import shape
from llmcourse.policies.budget import choose_budget, step_seconds
from llmcourse.workload import Constant, Poisson, open_loop

A100 = RooflineCost(hardware("A100 80 GB"), shape("Llama 2 7B"))


@settings(max_examples=100, deadline=None)
@given(st.floats(0.005, 0.5), st.integers(0, 200), st.integers(0, 4000), st.integers(0, 8000),
       st.sampled_from([1, 16, 128]))
def test_it_is_the_largest_multiple_of_a_tile_in_time(tpot: float, running: int, context: int, prompt: int,
                                                      tile: int) -> None:
    in_time = [budget for budget in range(tile, 1025, tile)
               if budget > running and step_seconds(A100, budget, running, context, prompt) <= tpot]
    if in_time:
        assert choose_budget(A100, tpot, running, context, prompt, tile, most=1024) == in_time[-1]
    else:
        with pytest.raises(UserError, match="no token budget keeps steps within"):
            choose_budget(A100, tpot, running, context, prompt, tile, most=1024)


def test_more_running_requests_and_longer_contexts_leave_less() -> None:
    at = [choose_budget(A100, 0.05, running, context) for running, context in ((8, 500), (32, 500), (32, 2000))]
    assert at[0] >= at[1] > at[2]
    assert choose_budget(A100, 0.2, 32, 500) > at[1]


def test_steps_of_an_engine_with_this_budget_keep_to_the_tpot() -> None:
    tpot = 0.05
    budget = choose_budget(A100, tpot, running=32, context=1700)
    gaps = {}
    for name, tokens in (("chosen", budget), ("four times that", 4 * budget)):
        engine = Engine.simulated("Llama 2 7B", "A100 80 GB", token_budget=tokens, max_running=32)
        table = replay(engine, open_loop(Poisson(3.0), Constant(1500), Constant(180), 100, seed=2))
        gaps[name] = table.gap_seconds.max()
    assert gaps["chosen"] <= tpot < gaps["four times that"]


def test_what_cannot_be_kept_is_said_with_the_arithmetic() -> None:
    with pytest.raises(UserError, match=r"32 decodes alone take .* ms, a step of 128 tokens .*; run fewer requests"):
        choose_budget(A100, 0.01, 32, 2000)
    with pytest.raises(UserError, match="a multiple of tile must lie in"):
        choose_budget(A100, 0.1, 600, 100, most=512)
