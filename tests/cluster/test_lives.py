"""A thousand random lives of small clusters, local and virtual: whatever dies when, nothing is lost or owned twice.

Invariants are checked after every moment; at the end every client has the tokens of a request that ran alone, and no
block is left over anywhere. Lives with prefix caches, swapping, every batching, slow links, old and lost reports.
"""

import random
from collections import Counter

import pytest

from llmcourse.cluster import METHODS, Dispatcher, Link
from tests.cluster.worlds import DRIVERS, Life, ask, check_all, cluster, finish

LIVES = 500                              # of each driver
FEW = 40


@pytest.mark.parametrize("driver", DRIVERS)
def test_random_lives(driver):
    happened, methods, reasons = Counter(), Counter(), Counter()
    for seed in range(LIVES):
        life = Life(seed, driver).live()
        happened.update(life.happened)
        methods.update((migration.method, migration.outcome) for migration in life.driver.migrations)
        reasons.update(migration.reason.partition(":")[0][:24] for migration in life.driver.migrations)
    print(f"{LIVES} lives: {dict(happened)}; {dict(methods)}")
    assert min(happened.values()) > 200, happened
    for method in ("live", "stop-and-copy", "recompute", "tokens"):
        for outcome in ("moved", "aborted"):
            assert methods[method, outcome] > 20, (method, outcome, methods)
    assert reasons["the source is lost"] > 20 and reasons["the destination is lost"] > 20


class First(Dispatcher):
    """Everybody to the first instance that takes anybody."""

    def choose(self, request, number, reports):
        return reports[0].instance


@pytest.mark.parametrize("driver", DRIVERS)
def test_random_lives_of_parked_requests(driver):
    """Parked KV moves, is evicted on the way, is refused and comes back: whatever happens, every token is right."""
    moved = Counter()
    for seed in range(FEW):
        dice = random.Random(seed)
        both = cluster(driver, num_blocks=dice.choice((16, 30, 80)), parking=True, swap=dice.random() < 0.3,
                       prefix=dice.random() < 0.3, max_running=dice.randint(1, 3), dispatch=First(),
                       link=Link(dice.choice((5e4, 4e5)), 0.001))
        requests, migrations = [], []
        for _ in range(80):
            if len(requests) < 16 and dice.random() < 0.4:
                longest = dice.randint(1, 50)
                requests.append(both.add(ask((1, 2, len(requests)), longest, predicted=float(longest))))
            parked = [request.id for request in both.instances[0].engine.scheduler.parked]
            if parked and len(both.alive) == 2 and not both.instances[0].busy:
                migrations.append(both.migrate(dice.choice(parked), 1, dice.choice(list(METHODS))))
            if dice.random() < 0.003 and len(both.alive) > 1:
                both.kill(dice.randint(0, 1))
            both.advance(both.now + 0.01)
            both.check_invariants()
        finish(both)
        check_all(both, requests)
        moved.update((migration.outcome, migration.bytes > 0) for migration in migrations)
    assert min(moved["moved", True], moved["moved", False], moved["aborted", False]) > FEW / 4, moved
