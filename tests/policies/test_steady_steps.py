"""A policy says for how long its order stays: where answers are long, a word too many shows at once.

The random worlds of test_any_schedule.py are small, so that memory runs out; in them hardly any stretch is long enough
to be jumped over. Here everybody has much to say. Either there is room for all and few seats: then only those who push
others out can change anything. Or there are seats for all and little memory: then it matters who is first of those who
wait, for a large prompt finds no room where a small one does.
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


def simulate(maker: int, seed: int, jump: bool, seats: bool) -> Engine:
    """A dozen requests, most of them there at the beginning, for few seats or for little memory."""
    dice = random.Random(seed)
    batching = dice.choice(["mixed", "mixed", "continuous", "static"]) if seats else "mixed"
    engine = Engine(RooflineExecutor(Linear()), BlockPool(400 if seats else dice.randint(50, 80), 2), MAKERS[maker](),
                    batching, 30, dice.randint(1, 3) if seats else 8, VirtualClock(),
                    preemption=Preemption(parking=dice.random() < 0.5))
    arrivals = []
    for number in range(12):
        output = dice.randint(1, 50)
        prompt = dice.choice([1, 3, 20] if seats else [1, 3, 30, 45])
        request = ask(output, prompt, id=f"j{number}", tenant=dice.choice("ab"),
                      priority=dice.randint(0, 2), slo=SLO(ttft=dice.choice([0.1, 1.0, 5.0])),
                      predicted=max(1, output + dice.randint(-9, 9)))
        arrivals.append((dice.choice([0.0, 0.0, 0.7]) * dice.random(), request))
    return simulate_all(engine, arrivals, jump)


@pytest.mark.parametrize("seats", [True, False])
@pytest.mark.parametrize("maker", range(len(MAKERS)))
def test_jumping_over_long_stretches_changes_no_decision(maker: int, seats: bool) -> None:
    for seed in range(3):
        jumped, stepped = simulate(maker, seed, True, seats), simulate(maker, seed, False, seats)
        assert list(jumped.events) == list(stepped.events)
        assert jumped.counters == stepped.counters
