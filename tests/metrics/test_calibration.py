"""Prices of a step, learnt from logs: of engines whose true prices are known, because they are simulated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Event, EventKind
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.metrics.calibration import (
    FittedCost,
    busy_steps,
    calibrate,
    contents,
    join,
    non_negative_least_squares,
)
from llmcourse.workload import Constant, Lognormal, Poisson, open_loop

TRUE = FittedCost(overhead=3e-3, per_token=1e-4, per_request=5e-5, per_context=2e-6, per_pair=4e-8)
LENGTHS = {"prompts": Lognormal(50, sigma=1), "outputs": Lognormal(20, sigma=0.8)}


def served(cost, workload, **options) -> Engine:
    engine = Engine.simulated(cost=cost, num_blocks=4000, token_budget=256, max_running=32, **options)
    replay(engine, workload)
    return engine


def mixed(rate=10.0, count=60, seed=0):
    return open_loop(Poisson(rate), count=count, seed=seed, **LENGTHS)


def prices(cost) -> list[float]:
    return [cost.overhead, cost.per_token, cost.per_request, cost.per_context, cost.per_pair]


def test_a_reader_s_tour() -> None:
    cost = calibrate(served(TRUE, mixed()).events)
    assert prices(cost) == pytest.approx(prices(TRUE), rel=1e-6)
    assert cost.r2 == pytest.approx(1) and cost.p99_error < 1e-6 and cost.steps > 500
    assert "R² 1.000" in str(cost) and "a step 3.00 ms" in str(cost)
    again = served(cost, mixed(rate=15, seed=1)).table()["e2e"]
    assert again == pytest.approx(served(TRUE, mixed(rate=15, seed=1)).table()["e2e"], rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-3, 1e-2), st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=4, max_size=4))
def test_whatever_the_prices_they_are_found_also_when_some_are_zero(overhead, factors) -> None:
    true = FittedCost(overhead, *(factor * price for factor, price in zip(factors, prices(TRUE)[1:], strict=True)))
    assert prices(calibrate(served(true, mixed()).events)) == pytest.approx(prices(true), rel=1e-6, abs=1e-12)


def test_noise_goes_up_and_down_and_the_sum_stays() -> None:
    """Noise of 20 % on every step leaves the bill of a long run right within 2 %."""
    rng = np.random.default_rng(0)

    class Noisy:
        def seconds(self, tokens, requests, context, pairs):
            return TRUE.seconds(tokens, requests, context, pairs) * np.exp(rng.normal(0, 0.2, np.shape(context)) - 0.02)

    engine = served(Noisy(), mixed(count=200))
    cost, steps = calibrate(engine.events), busy_steps(engine.events)
    assert cost.median_error == pytest.approx(0.135, abs=0.02) and 0.3 < cost.p99_error < 0.8
    truth = steps.predicted(TRUE)
    assert steps.predicted(cost).sum() == pytest.approx(truth.sum(), rel=0.02)
    assert np.quantile(np.abs(steps.predicted(cost) / truth - 1), 0.9) < 0.05


def test_logs_of_several_runs_are_one() -> None:
    logs = [served(TRUE, mixed(seed=seed, count=20)).events for seed in range(3)]
    assert calibrate(*logs).steps == sum(len(busy_steps(log)) for log in logs) == len(join(map(busy_steps, logs)))


def event(time, kind, request=None, **data) -> Event:
    return Event(time, EventKind(kind), request, data)


def test_a_step_after_a_pause_has_no_length() -> None:
    log = [event(0.0, "QUEUED", "a"), event(1.0, "STEP", batch=[("a", 0, 3)]), event(1.5, "STEP", batch=[("a", 3, 1)]),
           event(1.5, "FINISHED", "a"), event(9.0, "QUEUED", "b"), event(9.7, "STEP", batch=[("b", 0, 2)]),
           event(9.9, "STEP", batch=[("b", 2, 1)]), event(9.9, "ABORTED", "b")]
    steps = busy_steps(log)
    assert steps.seconds == pytest.approx([0.5, 0.2])
    assert steps.tokens.tolist() == [1, 1] and steps.context.tolist() == [3, 2]


def test_contents_of_a_mixed_step_by_hand() -> None:
    assert contents([("a", 10, 1), ("b", 4, 3), ("c", 0, 2)]) == (6, 3, 14, 4 * 3 + 6 + 3)


@pytest.mark.parametrize(("workload", "message"), [
    (mixed(count=1), "30 are the least"),
    (open_loop(Poisson(1e6), Constant(1), Lognormal(40, sigma=1), 40, 0), "all are decodes, none computes a prompt"),
    (open_loop(Poisson(1e6), Constant(2000), Constant(1), 40, 0), "all compute prompts, none only decodes"),
    (open_loop(Poisson(0.01), Constant(30), Constant(100), 5, 0), "fewer than 3 different values of requests"),
])
def test_a_log_that_says_too_little_is_refused_in_a_line(workload, message) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        calibrate(served(TRUE, workload).events)
    assert "\n" not in str(refusal.value) and "serve prompts of many lengths" in str(refusal.value)


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_non_negative_least_squares_meets_the_conditions_of_an_optimum(columns, seed) -> None:
    """At the best x >= 0 no column with x = 0 would help, and the residual leans on no column with x > 0."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(12, columns)), rng.normal(size=12)
    x = non_negative_least_squares(a, b)
    pull = a.T @ (b - a @ x)
    assert (x >= 0).all() and (pull < 1e-9).all() and np.abs(pull[x > 0]).max(initial=0) < 1e-9


def test_many_steps_at_once_are_bit_for_bit_the_steps_one_by_one() -> None:
    context = np.arange(0, 10**6, 997)
    at_once = TRUE.seconds(40, 8, context, 3 * context)
    assert at_once.tolist() == [TRUE.seconds(40, 8, c, 3 * c) for c in context.tolist()]
