"""Instances as Ray actors: requests move between processes, processes die, and clients notice nothing but a pause."""

import os
import signal
from functools import partial

import psutil
import pytest

from llmcourse.cluster import METHODS, Rebalance, RayDriver
from llmcourse.cluster.on_ray import start as starting
from llmcourse.cluster.orders import Adopt, Copy, Stop
from llmcourse.engine import EventKind, Request, SamplingParams
from llmcourse.errors import UserError
from tests.cluster.on_ray.actors import (
    BLOCK,
    LINK,
    BrokenExecutor,
    alone,
    ask,
    check_all,
    cluster,
    engine,
    no_engine,
    tokens_of,
    wait_for,
)


@pytest.fixture(scope="module")
def pair(ray_here):
    """Two instances that nobody kills."""
    with cluster() as driver:
        yield driver


def test_ray_listens_on_this_machine_only(pair):
    this = psutil.Process()
    listening = [(process.name(), connection.laddr.ip) for process in [this, *this.children(recursive=True)]
                 for connection in process.net_connections("inet") if connection.status == psutil.CONN_LISTEN]
    assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
    assert {address.removeprefix("::ffff:") for _, address in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("method", METHODS)
def test_a_request_moves_and_its_client_notices_nothing(pair, method):
    request, other = pair.add(ask()), pair.add(ask((5, 6)))
    tokens_of(pair, request, 10)
    source = pair.owner(request.id)
    migration = pair.migrate(request.id, 1 - source, method)
    wait_for(pair, lambda: migration.outcome)
    assert migration.outcome == "moved" and pair.owner(request.id) == 1 - source
    assert (migration.bytes > 0) == (method in ("live", "stop-and-copy")) and migration.downtime > 0
    pair.finish()
    check_all(pair, [request, other])
    steps = {event.instance for event in pair.events if event.kind is EventKind.NEW_TOKENS
             and event.request == request.id}
    assert steps == {0, 1}, "both have computed tokens of it"


def test_a_stream_is_in_order_and_whole_whatever_moves(pair):
    requests = [pair.add(ask((1, 2, 3 + i))) for i in range(4)]
    seen = {request.id: [] for request in requests}
    pair.news.clear()
    moves = 0
    for delivery in pair.stream():
        if delivery.tokens:
            assert delivery.position == len(seen[delivery.request_id]), "a token is missing, or comes twice"
            seen[delivery.request_id] += delivery.tokens
        free = not any(remote.busy for remote in pair.alive)
        if free and moves < 6 and (owner := pair.owner(requests[moves % 4].id)) is not None:
            pair.migrate(requests[moves % 4].id, 1 - owner)
            moves += 1
    assert moves == 6 and sum(migration.outcome == "moved" for migration in pair.migrations[-6:]) >= 3
    assert seen == {request.id: alone(request) for request in requests}


def test_a_waiting_request_moves_without_kv(ray_here):
    with cluster(options={"max_running": 1}) as driver:
        requests = [driver.add(ask((1, i), 60)) for i in range(1, 5)]       # round robin: two each, one of them waits
        tokens_of(driver, requests[0], 3)
        migration = driver.migrate(requests[2].id, 1)
        wait_for(driver, lambda: migration.outcome)
        assert migration.outcome == "moved" and migration.bytes == 0
        driver.finish()
        check_all(driver, requests)


def test_a_full_destination_refuses_and_the_request_stays(ray_here):
    with cluster(options={"num_blocks": 16}) as driver:
        mover = driver.add(ask((1,) * 8, 56))
        filler = driver.add(ask((2,) * 24, 36))                            # fills the other at once
        tokens_of(driver, mover, 12)
        migration = driver.migrate(mover.id, 1, "stop-and-copy")
        wait_for(driver, lambda: migration.outcome)
        assert migration.outcome == "aborted" and "blocks" in migration.reason and driver.owner(mover.id) == 0
        driver.finish()
        check_all(driver, [mover, filler])


def test_copies_take_the_time_of_the_link(ray_here):
    with cluster(link=LINK) as driver:
        request = driver.add(ask(range(1, 61)))
        tokens_of(driver, request, 2)
        migration = driver.migrate(request.id, 1)
        wait_for(driver, lambda: migration.outcome)
        assert migration.outcome == "moved" and migration.bytes >= 15 * BLOCK * 1024
        for copy in migration.copies:
            assert copy.end - copy.start >= LINK.seconds(copy.bytes)
        first = migration.copies[0]
        done = [event.time for event in driver.events if event.kind is EventKind.NEW_TOKENS
                and event.request == request.id and first.start < event.time < first.end]
        assert len(done) >= 3, "it goes on decoding while it is copied"
        driver.finish()
        check_all(driver, [request])


def test_a_request_given_up_in_mid_copy_leaves_nothing(ray_here):
    with cluster(link=LINK) as driver:
        request = driver.add(ask(range(1, 61)))
        tokens_of(driver, request, 2)
        migration = driver.migrate(request.id, 1)
        wait_for(driver, lambda: isinstance(migration.order, Copy))
        driver.abort(request.id)
        driver.finish()
        assert migration.outcome == "aborted" and driver.gateway.streams[request.id].reason == "abort"
        check_all(driver, [request])


def test_what_can_never_be_served_is_refused_in_one_line(pair):
    with pytest.raises(UserError, match="it could never finish") as error:
        pair.add(ask((1,) * 900, 200))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no instance 7"):
        pair.kill(7)


def test_answers_of_a_family_are_all_heard(pair):
    family = pair.add(Request([1, 2, 3, 4, 5], SamplingParams(max_tokens=20, ignore_eos=True, seed=1, n=3)))
    pair.finish()
    assert len(family.siblings) == 3
    assert [pair.tokens(answer.id) for answer in family.siblings] == [alone(ask(family.prompt, 20))] * 3


# -- deaths ------------------------------------------------------------------------------------------------------------


def die(remote):
    """Its process ends, and nobody says so."""
    os.kill(remote.process, signal.SIGKILL)


def test_whoever_dies_while_two_are_at_it_nothing_is_lost(ray_here):
    """One after the other: source and destination die at each stage of a live migration."""
    with cluster(3, link=LINK) as driver:
        for stage, side in ((Copy, "source"), (Copy, "destination"), (Stop, "source"), (Adopt, "destination")):
            requests = [driver.add(ask((*range(1, 61), i), 120)) for i in range(1, 4)]
            tokens_of(driver, requests[0], 3)
            source = driver.owner(requests[0].id)
            destination = next(remote.number for remote in driver.alive if remote.number != source)
            migration = driver.migrate(requests[0].id, destination)
            wait_for(driver, lambda m=migration, s=stage: isinstance(m.order, s) or m.outcome)
            assert migration.outcome is None
            died = getattr(migration, side)
            die(driver.remotes[died])
            driver.finish()
            assert not driver.remotes[died].alive and migration.outcome
            check_all(driver, requests)
            driver.start()
        assert sum(event.kind is EventKind.FAULT for event in driver.events) == 4 and not driver.failed


def test_an_instance_whose_engine_fails_is_dead(ray_here):
    with cluster(options={"executor": BrokenExecutor}) as driver:
        whole = driver.add(ask((1, 2), 8))
        broken = driver.add(ask((13, 2), 8))
        driver.finish()
        assert driver.tokens(whole.id) == alone(whole)
        assert "no instance is left" in driver.failed[broken.id], "it takes every instance with it, and then nobody is left"
        faults = [event.data["reason"] for event in driver.events if event.kind is EventKind.FAULT]
        assert len(faults) == 2 and all("fallen off the bus" in reason for reason in faults)


def test_an_instance_that_is_drained_ends_empty(ray_here):
    with cluster(rebalance=Rebalance(), link=LINK) as driver:
        requests = [driver.add(ask((1, i))) for i in range(1, 5)]
        tokens_of(driver, requests[3], 3)
        driver.drain(0)
        wait_for(driver, lambda: {driver.owner(request.id) for request in requests} <= {1, None})
        assert sum(migration.outcome == "moved" for migration in driver.migrations) >= 2
        driver.finish()
        check_all(driver, requests)


# -- start and end -----------------------------------------------------------------------------------------------------


def test_an_actor_that_dies_while_starting_says_why_in_one_line(ray_here):
    with pytest.raises(UserError, match="died while it was starting: ValueError: there is no such model") as error:
        RayDriver(no_engine, 2)
    assert "\n" not in str(error.value)


def test_a_cluster_that_is_too_small_says_so(ray_here, monkeypatch):
    monkeypatch.setattr(starting, "STARTS_WITHIN", 1.0)
    with pytest.raises(UserError, match="each asks for 1000 CPUs and 0 GPUs, the whole cluster has 8 and 0"):
        RayDriver(partial(engine), 1, cpus=1000)


def test_nothing_is_left_when_a_driver_is_closed(ray_here):
    with cluster(1) as driver:
        process = psutil.Process(driver.remotes[0].process)
        assert process.is_running()
    assert ray_here.is_initialized(), "Ray was there before, and goes on"
    psutil.wait_procs([process], timeout=10)
    assert not process.is_running()
