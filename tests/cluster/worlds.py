"""Small clusters of mocked engines, where one wrong block changes the output, and random lives for them."""

import pickle
import random
from functools import partial

from llmcourse.cluster import METHODS, Link, LocalDriver, Rebalance, Reporting, Terms, VirtualDriver
from llmcourse.cluster.dispatch import Dispatcher, Freeness, LeastRequests, PowerOfTwo, Random, RoundRobin
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.preemption import Preemption
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, PrefixPool
from llmcourse.policies import SRTF

BLOCK = 4
DRIVERS = {"local": LocalDriver, "virtual": VirtualDriver}
DISPATCHERS = (RoundRobin, Random, LeastRequests, PowerOfTwo, Freeness)


def engine(num_blocks=24, batching="mixed", prefix=False, swap=False, parking=False, max_running=6,
           token_budget=16, ledger=None):
    """One mocked engine on a virtual clock of its own."""
    pool = PrefixPool(num_blocks, BLOCK) if prefix else BlockPool(num_blocks, BLOCK)
    return Engine(MockExecutor(BLOCK), pool, batching=batching, max_running=max_running, token_budget=token_budget,
                  clock=VirtualClock(), checked=True, policy=SRTF() if parking else None,
                  preemption=Preemption("swap" if swap else "recompute", 16, None, parking, 3 * (swap and parking)),
                  eos_ids=frozenset({0}), ledger=ledger)


def cluster(driver="local", instances=2, link=None, terms=None, rebalance=None, dispatch=None, reporting=None,
            method="live", scaling=None, **options):
    """A driver over equal mocked engines; a slow link, so that copies take several steps."""
    return DRIVERS[driver]([engine(**options) for _ in range(instances)], dispatch, rebalance, method=method,
                           link=link or Link(400_000, 0.001), terms=terms or Terms(BLOCK, last_blocks=1),
                           reporting=reporting or Reporting(0.05),
                           **({"build": partial(engine, **options)} | scaling if scaling else {}))


def ask(prompt=(1, 2, 3), max_tokens=12, **options):
    return Request(list(prompt), SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=1), **options)


def alone(request):
    """What the request must come out as."""
    return MockExecutor(BLOCK).continue_alone(request.prompt, request.sampling.max_tokens, request.sampling.ignore_eos)


def finish(driver, most=20_000):
    """Serve until nothing is left, checking every time; fails when it never ends."""
    for _ in range(most):
        if driver.idle:
            return
        driver.advance()
        driver.check_invariants()
    raise AssertionError("the cluster never comes to rest")


def check_all(driver, requests):
    """Every request has its tokens, or failed for a reason that is stated; no block is left over."""
    for request in requests:
        stream = driver.gateway.streams[request.id]
        assert stream.reason is not None, f"{request.id} has not ended"
        if request.id in driver.failed or stream.reason in ("abort", "shed"):
            assert stream.output == alone(request)[:len(stream.output)]
        else:
            assert stream.output == alone(request), f"{request.id} came out wrong"
    for instance in driver.alive:
        transit = instance.engine.scheduler.transit
        assert not (transit.leaving or transit.guests or transit.preparing)
        assert instance.engine.pool.num_used == 0, "blocks are left over"
        host = instance.engine.scheduler.host
        assert host is None or host.num_used == 0, "host blocks are left over"
    assert all(migration.outcome for migration in driver.migrations if migration.order is None)


class Noted(Dispatcher):
    """Writes down what a dispatcher is told."""

    def __init__(self, inner):
        self.inner, self.reads_load, self.notes = inner, inner.reads_load, []

    def choose(self, request, number, reports):
        return self.inner.choose(request, number, reports)

    def sent(self, request, instance, reports):
        self.notes.append(("sent", request.id, instance))

    def done(self, request_id, output):
        self.notes.append(("done", request_id, output))


class Life:
    """A random life of a cluster, drawn from one seed: requests, migrations of every kind, aborts and deaths."""

    def __init__(self, seed, driver):
        self.dice = dice = random.Random(f"{driver} {seed}")
        self.driver = cluster(
            driver, instances=dice.randint(2, 4), num_blocks=dice.choice((12, 20, 40)),
            batching=dice.choice(("mixed", "mixed", "continuous", "static")), prefix=dice.random() < 0.3,
            swap=dice.random() < 0.3, parking=dice.random() < 0.3, max_running=dice.choice((2, 4, 6)),
            dispatch=Noted(dice.choice(DISPATCHERS)()), ledger=self.ledger(),
            link=Link(dice.choice((5e4, 4e5, 1e8)), dice.choice((0.0, 0.001, 0.02)), dice.choice((None, 6e5))),
            terms=Terms(BLOCK, dice.randint(1, 4), dice.randint(0, 3), dice.randint(0, 6), dice.randint(1, 4)),
            rebalance=Rebalance(dice.choice((1.0, 3.0)), waiting=dice.random() < 0.5, rest=0.05)
            if dice.random() < 0.5 else None,
            reporting=Reporting(0.03, dice.choice((0.0, 0.1)), dice.choice((0.0, 0.5)), seed),
            scaling=self.scaling(dice))
        self.requests, self.past = [], []
        self.happened = dict.fromkeys(("kills", "aborts", "drains", "migrations", "recoveries"), 0)

    def ledger(self):
        """Where all engines write instead of keeping events; none here."""

    def scaling(self, dice):
        """Options of the driver for a fleet that grows and shrinks; none here."""

    def live(self, moments=120):
        """So many moments in which anything may happen, then peace until all is done."""
        driver, dice = self.driver, self.dice
        for _ in range(moments):
            if len(self.requests) < 14 and dice.random() < 0.4:
                self._arrive()
            if dice.random() < 0.3:
                self._migrate()
            if dice.random() < 0.02 and len(driver.alive) > 1:
                driver.kill(dice.choice(driver.alive).number)
                self.happened["kills"] += 1
            if dice.random() < 0.02:
                self._abort()
            if dice.random() < 0.01:
                self._drain()
            if dice.random() < 0.01:
                self._recover()
            driver = self.driver
            if isinstance(driver, VirtualDriver):
                driver.advance(driver.now + dice.choice((0.001, 0.01, 0.03)))
            else:
                driver.advance(driver.now + 0.01)
            driver.check_invariants()
        finish(driver)
        self.check()
        return self

    def check(self):
        """What must hold at the end."""
        check_all(self.driver, self.requests)
        ends = {name: len(stream.output) for name, stream in self.driver.gateway.streams.items()}
        told = [note[1:] for note in self.driver.scheduler.dispatch.notes if note[0] == "done"]
        assert sorted(told) == sorted(ends.items()), "a dispatcher hears every end once, with its tokens"

    def _arrive(self):
        dice = self.dice
        prompt = [dice.randrange(1, 4) for _ in range(dice.randint(1, 24))]
        longest = dice.randint(1, 20)
        try:
            self.requests.append(self.driver.add(Request(
                prompt, SamplingParams(max_tokens=longest, seed=1), priority=dice.randint(0, 1),
                predicted=float(longest))))
        except UserError:
            pass                                              # too long for this pool, or all are being drained

    def _living(self):
        return [name for name, stream in self.driver.gateway.streams.items() if stream.reason is None]

    def _migrate(self):
        names, dice = self._living(), self.dice
        if names and self.driver.alive:
            try:
                destination = dice.choice(self.driver.alive).number
                self.driver.migrate(dice.choice(names), destination, dice.choice(list(METHODS)))
                self.happened["migrations"] += 1
            except UserError:
                pass                                          # it is there already, or one of both is busy

    def _abort(self):
        names = self._living()
        if names:
            try:
                self.driver.abort(self.dice.choice(names))
                self.happened["aborts"] += 1
            except UserError:
                pass                                          # it has ended by now

    def _drain(self):
        try:
            self.driver.drain(self.dice.choice(self.driver.alive).number)
            self.happened["drains"] += 1
        except UserError:
            pass                                              # it is the last

    def _recover(self):
        """The driver dies; another takes over the instances, and whoever kept the streams is asked again."""
        old = self.driver
        alive = [instance for instance in old.instances.values() if instance.alive]
        if not alive:
            return                                            # all are gone, and others only starting
        new = type(old)(alive, old.scheduler.dispatch, old.scheduler.rebalance, link=old.link, terms=old.terms,
                        reporting=old.board.reporting, headroom=old.headroom, autoscaler=old.fleet.autoscaler,
                        build=old.fleet.build, cold_start=old.fleet.pool.cold, drain_by=old.fleet.drain_by)
        self.past.append(old)
        kept = self.dice.random() < 0.5                       # what the dead driver has written down elsewhere
        if kept:
            new.recover(*pickle.loads(pickle.dumps((old.fleet.books, old.gateway.streams))))
            assert {request.id for request in new.fleet.held} == {request.id for request in old.fleet.held}
            assert [lease.number for lease in new.fleet.starting] == [lease.number for lease in old.fleet.starting]
        else:
            new.recover()
            new.fleet.books.num_requests = old.num_requests   # else a name may be used again that nobody remembers
            new.gateway.streams |= {name: stream for name, stream in old.gateway.streams.items() if stream.reason}
            for request in old.fleet.held:                    # only the dead driver knew of them: they are asked again
                new.add(request)
        if isinstance(new, VirtualDriver):
            new.go_to(old.now)
        new.failed = old.failed
        self.driver = new
        self.happened["recoveries"] += 1
