"""A fleet of actors under load: one is started when somebody waits, and ended when it is empty; nothing is lost."""

from dataclasses import replace

import psutil

from llmcourse.cluster import Rebalance
from llmcourse.cluster.autoscale import BatchSize, QueueBased
from llmcourse.engine import EventKind
from tests.cluster.on_ray.actors import ask, at_least, check_all, cluster, tokens_of, wait_for


def stages(driver):
    return [(event.data["stage"], event.instance) for event in driver.log if event.kind is EventKind.SCALED]


def test_an_actor_starts_under_load_and_is_ended_when_it_is_empty(ray_here):
    scaler = QueueBased(wait=0.05, most=2, down_after=0.2)
    with cluster(1, autoscaler=scaler, rebalance=Rebalance(below=float("-inf"))) as driver:
        requests = [driver.add(ask((1, 2, i), 120)) for i in range(1, 13)]          # six run, six wait
        wait_for(driver, lambda: driver.fleet.starting)
        assert len(driver.alive) == 1 and stages(driver) == [("starting", 1)]
        while len(driver.alive) < 2:                                                # load goes on while it loads
            if len([each for each in requests if driver.owner(each.id) is not None]) < 10:
                requests.append(driver.add(ask((1, 3, len(requests)), 120)))
            driver.advance()
        new = driver.remotes[1]
        late = [driver.add(ask((2, i), 300)) for i in range(1, 5)]
        assert {driver.owner(request.id) for request in late} == {0, 1}, "it takes requests as soon as it is ready"
        tokens_of(driver, next(request for request in late if driver.owner(request.id) == 1), 2)
        wait_for(driver, lambda: not new.alive or not driver.remotes[0].alive)      # the rest fits on one: one leaves
        driver.finish()
        wait_for(driver, lambda: len(driver.alive) == 1)
        gone = next(lease for lease in driver.fleet.leases.values() if lease.how == "retired")
        assert [stage for stage, number in stages(driver) if number == gone.number][-2:] == ["draining", "retired"]
        assert not driver.failed and not any(event.kind is EventKind.FAULT for event in driver.log)
        check_all(driver, requests + late)
        assert driver.fleet.leases[1].ready > driver.fleet.leases[1].started
        psutil.wait_procs([psutil.Process(driver.remotes[gone.number].process)]
                          if psutil.pid_exists(driver.remotes[gone.number].process) else [], timeout=120)
        assert not psutil.pid_exists(driver.remotes[gone.number].process)
        request = driver.add(ask())                                                 # and who stays serves on
        driver.finish()
        check_all(driver, [request])


def test_an_actor_that_never_gets_ready_is_not_counted_as_starting(ray_here):
    scaler = QueueBased(wait=0.05, most=2, up_after=0.0)
    with cluster(1, autoscaler=scaler) as driver:
        driver.recipe = replace(driver.recipe, build=None)                          # what is started from now on fails
        request = driver.add(ask())
        number = driver.fleet.start()[0]
        wait_for(driver, lambda: driver.fleet.leases[number].how == "failed", 60.0)
        driver.finish()
        check_all(driver, [request])
        assert number not in [lease.number for lease in driver.fleet.starting]


def test_actors_find_their_batch_size_by_themselves(mocked):
    at_least(mocked, 2)
    for remote in mocked.alive:
        remote.feel(BatchSize(1000.0, 1, most=3, window=0.0))
    requests = [mocked.add(ask((1, 2, i), 150)) for i in range(1, 17)]
    wait_for(mocked, lambda: {remote.report().seats for remote in mocked.alive} == {3})
    assert all(remote.report().running <= 3 for remote in mocked.alive)
    for remote in mocked.alive:
        remote.feel(BatchSize(1000.0, 6, most=6, window=0.0))
    mocked.finish()
    check_all(mocked, requests)
