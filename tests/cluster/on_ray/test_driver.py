"""Instances as Ray actors: requests move between processes, processes die, and clients notice nothing but a pause."""

import os
import signal
from collections import Counter
from functools import partial

import psutil
import pytest

from llmcourse.cluster import METHODS, RayDriver
from llmcourse.cluster.on_ray import start as starting
from llmcourse.cluster.orders import Adopt, Copy, Stop
from llmcourse.engine import EventKind, Request, SamplingParams
from llmcourse.errors import UserError
from tests.cluster.on_ray.actors import (
    BLOCK,
    LINK,
    alone,
    ask,
    at_least,
    check_all,
    cluster,
    engine,
    moving,
    no_engine,
    other,
    tokens_of,
    wait_for,
)


@pytest.fixture
def pair(mocked):
    """A driver of two living instances; who was killed in the last test is replaced."""
    mocked.finish()
    at_least(mocked, 2)
    mocked.news.clear()
    return mocked


def computed_on(driver, request):
    """Instances that have sent tokens of a request."""
    return {event.instance for event in driver.events if event.kind is EventKind.NEW_TOKENS
            and event.request == request.id}


def test_ray_listens_on_this_machine_only(pair):
    this = psutil.Process()
    listening = [(process.name(), connection.laddr.ip) for process in [this, *this.children(recursive=True)]
                 for connection in process.net_connections("inet") if connection.status == psutil.CONN_LISTEN]
    assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
    assert {address.removeprefix("::ffff:") for _, address in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("method", METHODS)
def test_a_request_moves_and_its_client_notices_nothing(pair, method):
    (request, beside), migration = moving(pair, lambda: [ask(), ask((5, 6))], lambda move: move.outcome, method, 10)
    source = migration.source
    assert migration.outcome == "moved", migration.reason
    assert pair.owner(request.id) in (migration.destination, None)
    assert (migration.bytes > 0) == (method in ("live", "stop-and-copy")) and migration.downtime > 0
    pair.finish()
    check_all(pair, [request, beside])
    assert computed_on(pair, request) == {source, migration.destination}


def test_a_stream_is_in_order_and_whole_whatever_moves(pair):
    """However slow the machine: another request comes when one ends, until three have moved."""
    requests, seen, moves = [], {}, []

    def another():
        requests.append(pair.add(ask((1, 2, 3 + len(requests) % 8), 240)))         # two fit on one instance, a third
        seen[requests[-1].id] = []                                                # could take the room kept for a guest

    another(), another()
    for delivery in pair.stream():
        if delivery.tokens:
            assert delivery.position == len(seen[delivery.request_id]), "a token is missing, or comes twice"
            seen[delivery.request_id] += delivery.tokens
        if delivery.reason and [move.outcome for move in moves].count("moved") < 3 and len(requests) < 20:
            another()
        living = [request for request in requests if pair.owner(request.id) is not None]
        if living and not any(remote.busy for remote in pair.alive):
            mover = living[len(moves) % len(living)]
            moves.append(pair.migrate(mover.id, other(pair, pair.owner(mover.id))))
    assert [move.outcome for move in moves].count("moved") >= 3, moves
    assert seen == {request.id: alone(request) for request in requests}


def test_a_waiting_request_moves_without_kv(pair):
    requests = [pair.add(ask((1, i))) for i in range(1, 15)]               # seven each, and six may run
    source = pair.owner(requests[-1].id)
    migration = pair.migrate(requests[-1].id, other(pair, source))
    wait_for(pair, lambda: migration.outcome)
    assert migration.outcome == "moved" and migration.bytes == 0
    pair.finish()
    check_all(pair, requests)


def test_a_full_destination_refuses_and_the_request_stays(pair):
    mover, filler = pair.add(ask((1,) * 160, 300)), pair.add(ask((2,) * 500, 138))   # takes 125 of 160 blocks
    tokens_of(pair, mover, 3)
    wait_for(pair, lambda: computed_on(pair, filler))
    source = pair.owner(mover.id)
    migration = pair.migrate(mover.id, other(pair, source), "stop-and-copy")
    wait_for(pair, lambda: migration.outcome)
    assert migration.outcome == "aborted" and "are free" in migration.reason and pair.owner(mover.id) == source
    pair.finish()
    check_all(pair, [mover, filler])


def test_copies_take_the_time_of_the_link_and_decoding_goes_on(pair):
    [request], migration = moving(pair, lambda: [ask((1,) * 200, 350)], lambda move: move.outcome)    # copied for 0.5 s
    assert migration.outcome == "moved" and migration.bytes >= 50 * BLOCK * 1024, migration.reason
    for copy in migration.copies:
        assert copy.end - copy.start >= LINK.seconds(copy.bytes)
    first = migration.copies[0]
    meanwhile = [event for event in pair.events if event.kind is EventKind.NEW_TOKENS and event.request == request.id
                 and first.start < event.time < first.end]
    assert len(meanwhile) >= 3
    pair.finish()
    check_all(pair, [request])


def test_a_request_given_up_in_mid_copy_leaves_nothing(pair):
    [request], migration = moving(pair, lambda: [ask((1,) * 120)], lambda move: isinstance(move.order, Copy))
    assert migration.outcome is None, migration
    pair.abort(request.id)
    pair.finish()
    assert migration.outcome == "aborted" and pair.gateway.streams[request.id].reason == "abort"
    check_all(pair, [request])


def test_what_can_never_be_served_is_refused_in_one_line(pair):
    with pytest.raises(UserError, match="it could never finish") as error:
        pair.add(ask((1,) * 900))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no instance 77"):
        pair.kill(77)


def test_answers_of_a_family_are_all_heard(pair):
    family = pair.add(Request([1, 2, 3, 4, 5], SamplingParams(max_tokens=20, ignore_eos=True, seed=1, n=3)))
    pair.finish()
    assert len(family.siblings) == 3
    assert [pair.tokens(answer.id) for answer in family.siblings] == [alone(ask(family.prompt, 20))] * 3


# -- deaths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "side"), [(Copy, "source"), (Copy, "destination"), (Stop, "source"),
                                             (Adopt, "destination")])
def test_whoever_dies_while_two_are_at_it_nothing_is_lost(pair, stage, side):
    """The process is killed and nobody says so, just when an order is under way."""
    requests, migration = moving(pair, lambda: [ask((*(1,) * 60, i)) for i in range(1, 4)],
                                 lambda move: isinstance(move.order, stage))
    assert migration.outcome is None, migration
    victim = pair.remotes[getattr(migration, side)]
    os.kill(victim.process, signal.SIGKILL)
    pair.finish()
    assert not victim.alive and migration.outcome
    check_all(pair, requests)
    assert not pair.failed
    assert [event.data["instance"] for event in pair.events if event.kind is EventKind.FAULT][-1] == victim.number


def test_an_instance_that_is_drained_ends_empty(pair):
    requests = [pair.add(ask((1, i), 200)) for i in range(1, 4)]                  # all three fit on one instance
    for request in requests:
        tokens_of(pair, request, 3)
    leaves = Counter(pair.owner(request.id) for request in requests).most_common(1)[0][0]
    stays = other(pair, leaves)
    pair.drain(leaves)
    before = len(pair.migrations)
    wait_for(pair, lambda: {pair.owner(request.id) for request in requests} <= {stays, None})
    pair.finish()
    assert [move.outcome for move in pair.migrations[before:]].count("moved") >= 2
    check_all(pair, requests)
    pair.kill(leaves)


# -- start and end -----------------------------------------------------------------------------------------------------


def test_an_actor_that_dies_while_starting_says_why_in_one_line(ray_here):
    with pytest.raises(UserError, match="died while it was starting: ValueError: there is no such model") as error:
        RayDriver(no_engine, 1)
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
    psutil.wait_procs([process], timeout=120)
    assert not process.is_running()
