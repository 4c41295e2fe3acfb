"""Every dispatcher hears of every request that ends, once, on every driver, with streams or a ledger only."""

from collections import Counter

import numpy as np
import pytest

from llmcourse.cluster import D2LPM, Link, RoundRobin
from llmcourse.cluster.dispatch import LeastRequests
from llmcourse.cluster.orders import Release
from llmcourse.errors import UserError
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.table import COLUMNS
from tests.cluster.worlds import DRIVERS, Life, Noted, alone, ask, check_all, cluster, engine, finish

LIVES = 100                              # of each driver


class Booked(Life):
    """A life of engines that keep one ledger and no events: nobody keeps streams, so clients are asked nothing."""

    def ledger(self):
        self.kept = Ledger()
        return self.kept

    def _living(self):
        return [request.id for request in self.requests if self.driver.owner(request.id) is not None]

    def check(self):
        table, told = self.kept.table(), self.driver.scheduler.dispatch.notes
        assert Counter(table["id"]) == Counter(request.id for request in self.requests)
        ends = {}
        for request in self.requests:
            row = list(table["id"]).index(request.id)
            ends[request.id] = int(table["output_tokens"][row])
            if table["finish_reason"][row] in ("stop", "length"):
                assert ends[request.id] == len(alone(request))
            else:
                assert table["finish_reason"][row] == "abort" or request.id in self.driver.failed
        assert sorted(note[1:] for note in told if note[0] == "done") == sorted(ends.items())
        for instance in self.driver.alive:
            assert instance.engine.pool.num_used == 0 and not instance.engine.requests, "forgotten when it has ended"


@pytest.mark.parametrize("driver", DRIVERS)
def test_random_lives_in_a_ledger(driver):
    happened = Counter()
    for seed in range(LIVES):
        happened.update(Booked(seed, driver).live().happened)
    assert min(happened.values()) > LIVES / 3, happened


@pytest.mark.parametrize("kept", [None, Ledger], ids=["events", "ledger"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_client_pays_for_its_output_on_every_driver(driver, kept):
    dispatch = D2LPM(1000, piece=8)
    both = cluster(driver, dispatch=dispatch, num_blocks=40, ledger=kept and kept())
    both.add(ask((1, 2, 3), 12, tenant="a"))
    given_up = both.add(ask((4, 5), 30, tenant="b"))
    both.advance(both.now + 0.02)
    both.abort(given_up.id)
    finish(both)
    assert not dispatch._under_way, "they have ended"
    assert dispatch.deficits["a", 0] == 1000 - 3 - 2 * 12


@pytest.mark.parametrize("kept", [None, Ledger], ids=["events", "ledger"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_who_is_adopted_and_not_yet_released_is_not_restored_when_its_source_dies(driver, kept):
    told = Noted(RoundRobin())
    three = cluster(driver, 3, dispatch=told, num_blocks=80, link=Link(4e6, 0.02), ledger=kept and kept())
    request = three.add(ask(max_tokens=60))
    three.advance(0.02)
    migration = three.migrate(request.id, 1, "stop-and-copy")
    while not isinstance(migration.order, Release):
        three.advance(three.now + 0.002)
    three.kill(0)
    assert [each.number for each in three.alive if each.owns(request.id)] == [1]
    finish(three)
    assert [note for note in told.notes if note[0] == "done"] == [("done", request.id, 60)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_who_has_lost_an_instance_goes_where_most_room_is_one_after_the_other(driver):
    three = cluster(driver, 3, dispatch=LeastRequests(), num_blocks=80)
    requests = [three.add(ask((1, 2, n), 40)) for n in range(12)]
    three.advance(three.now + 0.02)
    for n in (1, 4, 7):
        three.abort(f"r{n}")                                  # of the two that are left, 1 has more room
    while three.now < 0.2:
        three.advance(three.now + 0.01)
    three.kill(0)
    assert [three.owner(f"r{n}") for n in (0, 3, 6, 9)] == [1, 1, 1, 2]
    finish(three)
    check_all(three, requests)


@pytest.mark.parametrize("kept", [None, Ledger], ids=["events", "ledger"])
def test_who_can_be_restored_nowhere_has_ended_too(kept):
    told = Noted(RoundRobin())
    one = cluster("local", 1, dispatch=told, num_blocks=40, ledger=kept and kept())
    request = one.add(ask(max_tokens=30))
    one.advance(0.05), one.advance(0.05)
    one.kill(0)
    (note,) = [note for note in told.notes if note[0] == "done"]
    assert note[1] == request.id in one.failed and 0 < note[2] < 30


@pytest.mark.parametrize("num_blocks", [80, 14], ids=["room for all", "preempting"])
def test_a_ledger_tells_of_a_death_what_the_events_tell(num_blocks):
    tables = []
    for kept in (None, Ledger()):
        both = cluster("virtual", 2, num_blocks=num_blocks, ledger=kept, dispatch=RoundRobin())
        for n in range(6):
            both.add(ask((1, 2, n), 24))
        both.advance(0.12)
        both.kill(0)
        finish(both)
        table = both.table()
        rows = np.argsort(table["id"])
        tables.append({name: table[name][rows] for name in COLUMNS})
    assert (tables[0]["preemptions"].sum() > 0) == (num_blocks < 80)
    for name in COLUMNS:
        told, kept = (list(table[name]) for table in tables)
        assert told == (pytest.approx(kept, nan_ok=True) if tables[0][name].dtype.kind == "f" else kept), name


def test_a_request_has_a_name_of_its_own_in_the_whole_cluster():
    both = cluster("local")
    both.add(ask(id="r1"))
    assert both.add(ask()).id == "r2", "the next that is free"
    with pytest.raises(UserError, match="'r1' exists already"):
        both.add(ask(id="r1"))


@pytest.mark.parametrize("driver", DRIVERS)
def test_between_ledgers_nobody_moves_and_that_is_said_before_anything_is_done(driver):
    both = DRIVERS[driver]([engine(ledger=Ledger()) for _ in range(2)], RoundRobin())
    requests = [both.add(ask((1, 2, n), 30)) for n in range(2)]
    both.advance(both.now + 0.02)
    for move in (lambda: both.migrate(requests[0].id, 1), lambda: both.drain(0), lambda: both.kill(0)):
        with pytest.raises(UserError, match="one ledger for all engines, and there are 2"):
            move()
    assert not both.migrations and len(both.alive) == 2 and not both.instances[0].terminating
    finish(both)
    both.kill(0)
    assert list(both.table()["output_tokens"]) == [30, 30], "an instance that nobody lives on may die"
