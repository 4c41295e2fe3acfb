"""Every policy on every instance of a cluster whose requests move all the time: nothing is lost, nobody remembered."""

import random
from collections import Counter

import pytest

from llmcourse.cluster import METHODS, Link, Rebalance, Reporting, Terms, VirtualDriver
from llmcourse.engine import Engine, VirtualClock
from llmcourse.engine.preemption import Preemption
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, PrefixPool
from llmcourse.workload import SLO
from tests.cluster.worlds import BLOCK, ask, check_all, finish
from tests.policies.makers import MAKERS
from tests.policies.test_forgetting import kept


def moving(make, seed):
    """Three instances under that policy, 20 requests of two tenants, and a migration or an abort every few moments."""
    dice = random.Random(seed)
    parking, prefix = dice.random() < 0.4, dice.random() < 0.4
    policies = [make() for _ in range(3)]
    pools = [(PrefixPool if prefix else BlockPool)(dice.choice((12, 24)), BLOCK) for _ in policies]
    driver = VirtualDriver(
        [Engine(MockExecutor(BLOCK), pool, policy, max_running=3, token_budget=16, clock=VirtualClock(), checked=True,
                preemption=Preemption("swap" if dice.random() < 0.5 else "recompute", 16, None, parking))
         for policy, pool in zip(policies, pools, strict=True)],
        None, Rebalance(3.0, rest=0.05), reporting=Reporting(0.03), link=Link(4e5, 0.001), terms=Terms(BLOCK, gap=2))
    requests, happened = [], Counter()
    for number in range(100):
        if len(requests) < 20 and dice.random() < 0.5:
            requests.append(driver.add(ask([dice.randrange(1, 4) for _ in range(dice.randint(1, 20))],
                                           dice.randint(1, 20), id=f"request {number}", tenant=dice.choice("ab"),
                                           priority=dice.randint(0, 1), slo=SLO(ttft=dice.choice((0.05, 5.0))))))
        lives = [name for name, stream in driver.gateway.streams.items() if stream.reason is None]
        if lives and dice.random() < 0.7:
            try:
                driver.migrate(dice.choice(lives), dice.randrange(3), dice.choice(list(METHODS)))
            except UserError:
                pass                                          # it is there, or somebody else is on the way
        if lives and dice.random() < 0.03:
            try:
                driver.abort(dice.choice(lives))
                happened["by its owner", "aborted"] += 1
            except UserError:
                pass                                          # it has ended by now
        driver.advance(driver.now + dice.choice((0.005, 0.02)))
    finish(driver)
    check_all(driver, requests)
    happened.update((move.method, move.outcome) for move in driver.migrations)
    return happened, [name for policy in policies for name in kept(policy) if name.startswith("request ")]


@pytest.mark.parametrize("number", range(len(MAKERS)))
def test_nothing_is_lost_and_nobody_is_remembered(number):
    happened = Counter()
    for seed in range(3):
        moves, remembered = moving(MAKERS[number], 100 * number + seed)
        happened += moves
        assert not remembered
    assert sum(count for (_, outcome), count in happened.items() if outcome == "moved") > 5, happened
    assert happened["by its owner", "aborted"] > 0
