"""Waiting times: mean and variance add up, and a queue of fifty is foretold."""

import random
from statistics import fmean, pvariance

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.metrics.waiting_time import Group, WaitingTime, r_squared, waiting_time
from llmcourse.policies import FCFS
from llmcourse.workload import Lognormal, Poisson, open_loop

OUTPUTS = Lognormal.of_moments(250, 150)


def test_mean_and_variance_of_a_queue() -> None:
    wait = waiting_time([Group(100, 200, 400), Group(10, 50)], tokens_per_second=1000, extra=5)
    assert wait.mean == 5 + 20.5 and wait.variance == pytest.approx(0.04) and wait.std == pytest.approx(0.2)
    assert wait.quantile(0.5) == pytest.approx(25.5) and wait.quantile(0.977249868) == pytest.approx(25.9)
    assert wait.within(25.5) == pytest.approx(0.5) and wait.within(26.1) > 0.99


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 8))
def test_groups_add_up_to_what_their_requests_do(outputs: list[int], parts: int) -> None:
    groups = [Group.of(outputs[n::parts]) for n in range(parts)]
    whole = waiting_time(groups, 10.0)
    assert whole.mean == pytest.approx(sum(outputs) / 10)
    assert Group.of(outputs) == Group(len(outputs), fmean(outputs), pvariance(outputs))
    twice = waiting_time([*groups, *groups], 10.0)
    assert twice.mean == pytest.approx(2 * whole.mean) and twice.variance == pytest.approx(2 * whole.variance)
    assert whole.times(2).mean == pytest.approx(twice.mean)


def test_the_spread_of_many_is_what_the_variance_says() -> None:
    dice = random.Random(1)
    outputs = [dice.choice((10, 300)) for _ in range(4000)]
    one = Group.of(outputs)
    waits = [sum(dice.choices(outputs, k=100)) / 50 for _ in range(400)]
    foretold = waiting_time([Group(100, one.mean, one.variance)], 50)
    assert sum(foretold.within(wait) for wait in waits) / 400 == pytest.approx(0.5, abs=0.05)
    assert sum(wait <= foretold.quantile(0.9) for wait in waits) / 400 == pytest.approx(0.9, abs=0.05)


def test_a_wait_for_sure() -> None:
    wait = WaitingTime(3.0, 0.0)
    assert wait.quantile(0.99) == 3.0 and wait.within(2.9) == 0.0 and wait.within(3.0) == 1.0


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserError, match="0 output tokens/s"):
        waiting_time([], 0)
    with pytest.raises(UserError, match=r"a quantile at 1.5"):
        WaitingTime(1, 1).quantile(1.5)
    with pytest.raises(UserError, match="1 predictions and 2 outcomes"):
        r_squared([1], [1, 2])


def test_the_share_of_variance_explained() -> None:
    assert r_squared([1, 2, 3], [1, 2, 3]) == 1
    assert r_squared([2, 2, 2], [1, 2, 3]) == 0
    assert r_squared([3, 2, 1], [1, 2, 3]) < 0


class Counting(FCFS):
    """Counts the requests ahead of each when it arrives, and output tokens while there is a queue."""

    def __init__(self) -> None:
        self.waiting = self.tokens = 0
        self.ahead: dict[str, int] = {}
        self.since = self.until = 0.0

    def on_queued(self, request: Request, now: float) -> None:
        self.ahead[request.id] = self.waiting
        self.waiting += 1

    def on_scheduled(self, request: Request, now: float) -> None:
        self.waiting -= request.preemptions == 0

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        if self.waiting:
            self.since = self.since or now
            self.until, self.tokens = now, self.tokens + delivered


def served(seed: int) -> tuple[dict[str, int], dict[str, float], float]:
    """Requests ahead and waits (s) by request, and output tokens/s, of an overloaded engine."""
    policy = Counting()
    engine = Engine.simulated("Llama 2 7B", "A10", policy=policy, num_blocks=900, max_running=64)
    table = replay(engine, open_loop(Poisson(8.0), Lognormal.of_moments(200, 150), OUTPUTS, 700, seed=seed))
    waits = dict(zip(table["id"].tolist(), table["queue_time"].tolist(), strict=True))
    return policy.ahead, waits, policy.tokens / (policy.until - policy.since)


def test_with_fifty_ahead_the_wait_is_foretold_and_with_a_handful_it_is_not() -> None:
    """The rate comes from another run of the same service, lengths from their distribution: no answer is looked at."""
    _, _, rate = served(seed=7)
    known = OUTPUTS.sample(np.random.default_rng(0), 5000).tolist()
    one = Group.of(known)
    ahead, waits, _ = served(seed=8)
    foretold = {name: waiting_time([Group(number + 1, one.mean, one.variance)], rate).mean
                for name, number in ahead.items()}
    many = [name for name, number in ahead.items() if number >= 50]
    few = [name for name, number in ahead.items() if 0 < number < 10]
    assert len(many) > 100 and len(few) > 5
    assert r_squared([foretold[name] for name in many], [waits[name] for name in many]) >= 0.95
    assert r_squared([foretold[name] for name in few], [waits[name] for name in few]) < 0.8
