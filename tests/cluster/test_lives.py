"""A thousand random lives of small clusters, local and virtual: whatever dies when, nothing is lost or owned twice.

Invariants are checked after every moment; at the end every client has the tokens of a request that ran alone, and no
block is left over anywhere. Lives with prefix caches, swapping, every batching, slow links, old and lost reports.
"""

from collections import Counter

import pytest

from tests.cluster.worlds import DRIVERS, Life

LIVES = 500                              # of each driver


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
