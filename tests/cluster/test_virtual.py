"""Several engines in one virtual time: each behaves as if it were alone with its share."""

import numpy as np
import pytest

from llmcourse.cluster import Freeness, LeastRequests, Rebalance, RoundRobin, VirtualDriver
from llmcourse.engine import Engine, EventKind, replay
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.table import COLUMNS
from llmcourse.workload import Lognormal, Poisson, open_loop
from tests.cluster.worlds import alone, ask, cluster, finish


def simulated():
    return Engine.simulated("Llama 2 7B", "A100 80 GB", ledger=Ledger())


def load(count, rate, seed=0):
    return open_loop(Poisson(rate), Lognormal(400, p99=3000), Lognormal(100, p99=800), count, seed)


def test_whoever_dies_or_is_given_up_has_been_served_until_then():
    both = cluster("virtual", 2, num_blocks=80, dispatch=RoundRobin())
    orphan, given_up, short = (both.add(ask(max_tokens=tokens)) for tokens in (60, 60, 2))
    both.go_to(0.3)
    both.kill(0)
    have = len(both.tokens(orphan.id))
    both.abort(given_up.id)
    assert have > 20 and len(both.tokens(given_up.id)) > 20 and both.tokens(short.id) == alone(short)
    with pytest.raises(UserError, match="has ended"):
        both.abort(short.id)
    finish(both)
    assert both.tokens(orphan.id) == alone(orphan)
    assert max(event.time for event in both.events if event.kind is EventKind.ABORTED) >= 0.3
    after = [event.time for event in both.events if event.request == orphan.id and event.instance == 1]
    assert min(after) >= 0.3, "it begins elsewhere when its instance has died, not before"


def test_under_round_robin_each_engine_serves_its_share_as_if_alone():
    workload = load(300, 12.0)
    together = VirtualDriver([simulated() for _ in range(3)]).run(workload)
    alone = [replay(simulated(), workload[i::3]) for i in range(3)]
    assert len(together) == 300
    for name in COLUMNS[3:]:                                       # names of requests apart
        expected = np.concatenate([table[name] for table in alone])
        assert np.array_equal(together[name], expected, equal_nan=expected.dtype.kind == "f"), name


def test_a_dispatcher_that_looks_balances_better_than_one_that_does_not():
    workload = load(400, 14.0, seed=3)
    blind = VirtualDriver([simulated() for _ in range(4)], RoundRobin()).run(workload)
    seeing = VirtualDriver([simulated() for _ in range(4)], LeastRequests()).run(workload)
    assert seeing["e2e"].mean() < blind["e2e"].mean()
    assert len(seeing) == len(blind) == 400 and seeing.finished.all()


def test_what_cannot_be_driven_is_refused():
    with pytest.raises(UserError, match="at least 1"):
        VirtualDriver([])
    with pytest.raises(UserError, match=r"Engine\.simulated"):
        VirtualDriver([Engine(MockExecutor(4), BlockPool(8, 4))])


def test_a_ledger_tells_of_requests_that_moved_what_the_events_tell():
    tables = []
    for ledger in (None, Ledger()):
        engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=420, ledger=ledger) for _ in range(3)]
        driver = VirtualDriver(engines, Freeness(), Rebalance(rest=0.5))
        tables.append(driver.run(load(200, 5.0)))
        assert sum(m.outcome == "moved" and m.bytes > 0 for m in driver.migrations) > 5
    events, rows = tables
    assert events["preemptions"].sum() > 0
    order = {name: place for place, name in enumerate(events["id"])}
    places = [order[name] for name in rows["id"]]
    for name in COLUMNS:
        if events[name].dtype.kind == "f":
            assert rows[name] == pytest.approx(events[name][places], nan_ok=True), name
        else:
            assert (rows[name] == events[name][places]).all(), name
