"""Instances that find their own batch size: a seat limit changes at any time, and the loop ends near the best one."""

import random

import numpy as np
import pytest

from llmcourse.cluster import Cluster, Freeness, Rebalance, Reporting, VirtualDriver
from llmcourse.cluster.autoscale import BatchSize, ColdStart, QueueBased
from llmcourse.cluster.autoscale.local_loop import Pace
from llmcourse.engine import Engine, EventKind
from llmcourse.engine.room import limit_seats, seated
from llmcourse.errors import UserError
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.table import COLUMNS
from llmcourse.workload import Lognormal, Poisson, open_loop
from tests.cluster.worlds import DRIVERS, Life, alone, ask, check_all, cluster, engine, finish


def simulated(**options):
    return Engine.simulated("Llama 2 7B", "A10", **({"num_blocks": 4000, "token_budget": 128} | options))


def crowd(count, rate=50.0, seed=1):
    return open_loop(Poisson(rate), Lognormal(100, p99=400), Lognormal(100, p99=400), count, seed)


# -- a limit that changes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batching", ["mixed", "continuous", "static"])
def test_a_limit_that_falls_preempts_nobody_and_lets_nobody_in(batching):
    for seed in range(25):
        dice = random.Random(seed)
        one = engine(200, batching, max_running=16, parking=dice.random() < 0.5, prefix=dice.random() < 0.3)
        requests = [one.add(ask((1, n), longest := dice.randint(1, 30), predicted=float(longest))) for n in range(24)]
        while not one.idle:
            if dice.random() < 0.2:
                before, parked = seated(one.scheduler), one.counters.preemptions
                limit_seats(one.scheduler, most := dice.randint(1, 16))
                one.check_invariants()
                while seated(one.scheduler) > most and not one.idle:
                    one.step()
                    assert seated(one.scheduler) <= before and one.counters.preemptions == parked
                    before = seated(one.scheduler)
            one.step()
        assert [request.output for request in requests] == [alone(request) for request in requests]


def test_no_more_than_a_token_each_fits_into_a_step():
    for most in (0, 17):
        with pytest.raises(UserError, match="give at least 1"):
            limit_seats(engine(token_budget=16).scheduler, most)


@pytest.mark.parametrize("wrong", [{"itl": "fast"}, {"itl": 0.0}, {"itl": 0.1, "size": 300}, {"itl": 0.1, "noise": 1.0},
                                   {"itl": 0.1, "window": -1.0}, {"itl": 0.1, "smooth": 0.0}])
def test_a_size_without_sense_is_refused_in_one_line(wrong):
    with pytest.raises(UserError) as error:
        BatchSize(**wrong)
    assert "\n" not in str(error.value)


class Felt(Life):
    """A life in which every instance adjusts its batch all the time, to a promise that is now and then broken."""

    def __init__(self, seed, driver):
        super().__init__(seed, driver)
        self.driver.batch_size = BatchSize(0.0125, 2, most=8, window=0.02)
        for instance in self.driver.alive:
            instance.feel(self.driver.batch_size)
        self.sizes = []

    def check(self):
        super().check()
        self.sizes = [size for instance in self.driver.instances.values() for _, size in instance.loop.sizes]


@pytest.mark.parametrize("driver", DRIVERS)
def test_random_lives_of_instances_that_feel(driver):
    sizes = [size for seed in range(40) for size in Felt(seed, driver).live(90).sizes]
    assert len(sizes) > 200 and min(sizes) == 1 and max(sizes) > 4, "they go up and down"


# -- what is measured --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [None, Ledger], ids=["events", "ledger"])
def test_the_pace_is_what_the_table_says(kept):
    one = simulated(num_blocks=100, preemption="swap", ledger=kept and kept())
    pace = one.scheduler.log = Pace(one.scheduler.log)
    table = VirtualDriver([one]).run(crowd(60))
    assert table["preemptions"].sum() > 0
    tokens, gaps, waited = pace.take()
    assert tokens == table["output_tokens"].sum() and gaps == table.gap_counts.sum() == tokens - 60
    assert waited == pytest.approx(table.gap_seconds @ table.gap_counts)
    assert pace.take() == (0, 0, 0.0) and not pace._last, "nobody is kept who has ended"


def run(kept=None, jumping=True, promise=0.045, **options):
    """A small fleet whose requests move and whose instances feel; the table, and the sizes of each instance."""
    def build():
        made = simulated(num_blocks=150, ledger=kept)
        made.foresight = made.foresight if jumping else None
        return made
    driver = VirtualDriver([build() for _ in range(2)], Freeness(), Rebalance(12.0, rest=0.5), reporting=Reporting(0.4),
                           batch_size=BatchSize(promise, 4, most=64, window=0.5), build=build, **options)
    table = driver.run(crowd(80, 12.0))
    assert table.finished.all()
    return table, {number: instance.loop.sizes for number, instance in driver.instances.items()}, driver


def test_jumping_is_stepping_in_events_and_in_a_ledger():
    (jumped, sizes, driver), stepped, booked = run(), run(jumping=False), run(Ledger())
    assert sizes == stepped[1] == booked[1] and min(len(each) for each in sizes.values()) > 5
    assert any(migration.outcome == "moved" for migration in driver.migrations)
    for name in COLUMNS:
        assert np.array_equal(jumped[name], stepped[0][name], equal_nan=jumped[name].dtype.kind == "f"), name


def test_instances_that_join_feel_too():
    _, sizes, driver = run(autoscaler=QueueBased(most=4, down_after=1e3), cold_start=ColdStart(boot=1.0))
    assert sum(len(each) > 1 for each in sizes.values()) > 2, sizes
    assert [each.report().seats for each in driver.alive] == [each.loop.sizes[-1][1] for each in driver.alive]


# -- where it ends -----------------------------------------------------------------------------------------------------


def itl_at(size, count=300):
    """Mean time between tokens when always so many run."""
    table = VirtualDriver([simulated(max_running=size)]).run(crowd(count))
    return float(np.average(table.gap_seconds, weights=table.gap_counts))


def test_it_ends_near_the_largest_batch_that_keeps_the_promise():
    """Up to it slowly, half of it, and up again: it never dwindles, and its users get what they were promised."""
    best, promise = 32, itl_at(32)
    assert itl_at(35) > promise
    driver = Cluster([simulated()], batch_size=BatchSize(promise, 4), reporting=Reporting(0.5))
    table = driver.run(crowd(1000))
    sizes = [size for _, size in driver.instances[0].loop.sizes]
    peak = next(place for place, size in enumerate(sizes) if place and size < sizes[place - 1])
    after = sizes[peak - 1:]
    assert 0.8 * best <= max(after) <= 1.3 * best and min(after) >= 0.35 * best, sizes
    assert np.mean(after) >= 0.6 * best and len(after) > 10, sizes
    assert np.average(table.gap_seconds, weights=table.gap_counts) <= promise


def test_who_has_seats_to_spare_learns_nothing_from_it():
    driver = VirtualDriver([simulated()], batch_size=BatchSize(0.045, 8, window=0.5))
    driver.run(crowd(30, 0.2))
    assert [size for _, size in driver.instances[0].loop.sizes] == [8]


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_next_driver_finds_instances_that_feel(driver):
    old = cluster(driver, max_running=6, num_blocks=80, reporting=Reporting(0.02))
    for instance in old.alive:
        instance.feel(BatchSize(1.0, 1, most=6, window=0.0))
    requests = [old.add(ask((1, 2, n), 30)) for n in range(16)]
    old.advance(0.02)
    new = type(old)(old.alive, reporting=Reporting(0.02))
    new.recover(streams=old.gateway.streams)
    finish(new)
    check_all(new, requests)
    assert {instance.loop.sizes[-1][1] for instance in new.alive} == {6}, "nobody else told them to grow"
    assert not any(event.kind is EventKind.PREEMPTED for event in new.events)
