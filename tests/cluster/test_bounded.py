"""Whoever serves for months must not grow with what it has served: of who has ended or gone nothing is kept.

Random lives of fleets that grow, shrink, die and change drivers, one after the other; then everything in the driver is
looked through for names of requests and numbers of instances. What is a record by design is named here.
"""

from collections import Counter, deque
from collections.abc import Iterator

import pytest

from llmcourse.cluster import D2LPM, DISPATCHERS, ByRole, Instance, LoadReport, VirtualDriver
from llmcourse.cluster.autoscale import BatchSize, QueueBased
from llmcourse.engine import Engine, Request
from llmcourse.engine.snapshot import Snapshot
from llmcourse.metrics.ledger import Ledger
from llmcourse.workload import Lognormal, Poisson, open_loop
from tests.cluster.test_scaling import Growing
from tests.cluster.worlds import DRIVERS, ask, engine, finish

RECORDS = {"migrations", "log", "failed", "leases", "ledger"}           # of a driver, for ever; a ledger is one
EVENTS = {"streams", "engine", "_read", "news"}                         # where events are kept, so are these
LATER = {"arrived"}                                                     # looked through when the next one comes

MAKERS = {name: make for name, make in DISPATCHERS.items() if name != "d2lpm"} | {
    "d2lpm": lambda: D2LPM(60, piece=4), "by role": lambda: ByRole(seats=2, spare=0.1, batch_seats=4)}


def kept(thing: object, but: set[str], path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, object]]:
    """Every name of a request anywhere in an object, and every number that something is kept under, with its path.

    Numbers below an engine are those of blocks.
    """
    seen = set() if seen is None else seen
    if isinstance(thing, str):
        yield path, thing
    elif isinstance(thing, dict | set | frozenset | list | tuple | deque):
        if isinstance(thing, dict | set | frozenset) and ".engine" not in path:
            for key in thing:
                for each in key if isinstance(key, tuple) else (key,):
                    yield from [(path, each)] if type(each) is int else ()
        for each in thing.items() if isinstance(thing, dict) else thing:
            yield from kept(each, but, path, seen)
    elif type(thing).__module__.startswith("llmcourse") and id(thing) not in seen:
        seen.add(id(thing))
        if isinstance(thing, Request):
            yield path, thing.id
            return
        for name, value in getattr(thing, "__dict__", {}).items():
            if name == "instances":
                value = [instance for instance in value.values() if instance.alive]
            if name not in but:
                yield from kept(value, but, f"{path}.{name}", seen)


class Long(Growing):
    """Lives of the same fleet, one after the other, with a dispatcher of its own and instances that adjust batches."""

    def __init__(self, seed, driver, make, kept):
        self.kept, self.names, self.numbers, self.checks = kept, set(), set(), 0
        super().__init__(seed, driver)
        self.driver.scheduler.dispatch = make()

    def ledger(self):
        return self.kept

    def scaling(self, dice):
        return super().scaling(dice) | {"batch_size": BatchSize(0.02, 3, most=6, window=0.05)}

    def _living(self):
        return [request.id for request in self.requests if self.driver.owner(request.id) is not None]

    def check(self):
        """Nobody lives any more: then nothing names anybody, once a watch has looked and another request was sent."""
        self.names |= {request.id for request in self.requests}
        self.requests = []
        self.driver.fleet.observed()
        self.driver.add(ask())
        self.checks += not self.driver.fleet.held
        if self.driver.fleet.held:                            # all are being drained, and nobody was sent anything
            finish(self.driver)
            return
        self.numbers |= set(self.driver.fleet.leases)
        gone = self.numbers - {each.number for each in (*self.driver.alive, *self.driver.fleet.starting)}
        but = RECORDS | LATER | (EVENTS if self.kept is None else set())
        left = Counter(path for path, name in kept(self.driver, but)
                       if (name in gone if type(name) is int else name in self.names))
        assert not left, f"of who has ended or gone is kept: {dict(left)}"
        finish(self.driver)


@pytest.mark.parametrize("record", [None, Ledger], ids=["events", "ledger"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nothing_is_kept_of_requests_that_have_ended_nor_of_instances_that_are_gone(driver, record):
    happened, ends = Counter(), Counter()
    for seed, make in enumerate(MAKERS.values()):
        life = Long(seed, driver, make, record and record())
        for _ in range(5):
            life.live(60)
        assert len(life.names) > 40 and life.checks >= 4
        happened.update(life.happened)
        ends.update(lease.how for lease in life.driver.fleet.leases.values())
    assert min(happened[what] for what in ("kills", "aborts", "migrations", "recoveries")) >= 10, happened
    assert ends["retired"] >= 10, ends


def test_the_length_of_an_answer_is_forgotten_when_it_has_been_given():
    ledger = Ledger()

    def build():
        return Engine.simulated("Llama 2 7B", "A10", num_blocks=420, ledger=ledger)

    driver = VirtualDriver([build()], build=build, autoscaler=QueueBased(most=3))
    table = driver.run(open_loop(Poisson(3.0), Lognormal(200, p99=800), Lognormal(60, p99=300), 60, 1), declared=400)
    assert table.finished.all() and len(set(table["output_tokens"])) > 20
    assert not driver.instances[0].engine.executor.lengths


def test_an_instance_forgets_who_came_to_it_and_has_ended():
    here = Instance(0, engine())
    for number in range(5):
        here.adopt(Snapshot.of(ask(id=f"x{number}", arrival=0.0)))
        if number % 2:
            list(here.engine.stream())
    assert list(here.arrived) == ["x4"]
    here.adopt(Snapshot.of(ask(id="x5", arrival=0.0)))
    assert list(here.arrived) == ["x4", "x5"]


def test_what_has_been_sent_to_an_instance_that_is_gone_is_forgotten_when_the_next_request_is_sent():
    dispatch, old = D2LPM(20, piece=4), [LoadReport(number, 0.0, 100, 4) for number in range(3)]
    for number in range(9):
        request = ask([number] * 12, id=f"r{number}", tenant="ab"[number % 2])
        dispatch.sent(request, number % 3, old)
    dispatch.done("r0", 4)
    dispatch.sent(ask([7] * 12, id="last", tenant="a"), 1, old[1:])
    dispatch.done("r3", 1000)                                 # was sent where nobody is any more
    accounts = dispatch.deficits
    assert {number for _, number in (*accounts._refills, *accounts._inputs, *accounts._outputs)} == {1, 2}
    assert sorted(dispatch._caches) == [1, 2] and dispatch.matched(ask([1] * 12), 1) == 12
