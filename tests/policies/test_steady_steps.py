"""A policy says for how long its order stays: where seats are scarce and answers long, a word too many shows at once.

The random worlds of test_any_schedule.py are small, so that memory runs out; in them hardly any stretch is long enough
to be jumped over. Here there is room for all, few seats, and everybody has much to say.
"""

import random

import pytest

from llmcourse.engine import Engine, VirtualClock
from llmcourse.engine.preemption import Preemption
from llmcourse.executors.roofline import RooflineExecutor
from llmcourse.kv import BlockPool
from llmcourse.workload import SLO
from tests.policies.bench import ask, simulate_all
from tests.policies.makers import MAKERS
from tests.policies.test_any_schedule import Linear


def simulate(maker: int, seed: int, jump: bool) -> Engine:
    """A dozen requests for one to three seats, most of them there at the beginning."""
    dice = random.Random(seed)
    batching = dice.choice(["mixed", "mixed", "continuous", "static"])
    engine = Engine(RooflineExecutor(Linear()), BlockPool(400, 8), MAKERS[maker](), batching, 30, dice.randint(1, 3),
                    VirtualClock(), preemption=Preemption(parking=dice.random() < 0.5))
    arrivals = []
    for number in range(12):
        output = dice.randint(1, 50)
        request = ask(output, dice.choice([1, 3, 20]), id=f"j{number}", tenant=dice.choice("ab"),
                      priority=dice.randint(0, 2), slo=SLO(ttft=dice.choice([0.1, 1.0, 5.0])),
                      predicted=max(1, output + dice.randint(-9, 9)))
        arrivals.append((dice.choice([0.0, 0.0, 0.7]) * dice.random(), request))
    return simulate_all(engine, arrivals, jump)


@pytest.mark.parametrize("maker", range(len(MAKERS)))
def test_jumping_over_long_stretches_changes_no_decision(maker: int) -> None:
    for seed in range(6):
        jumped, stepped = simulate(maker, seed, True), simulate(maker, seed, False)
        assert list(jumped.events) == list(stepped.events)
        assert jumped.counters == stepped.counters
