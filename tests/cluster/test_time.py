"""When things happen in a cluster, and who is told: pauses, transfers, reports, streams, and what a survey finds."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.cluster import METHODS, LeastRequests, Link, Rebalance, Reporting, RoundRobin, Terms, VirtualDriver
from llmcourse.cluster.autoscale import ColdStart, Reactive
from llmcourse.cluster.gateway import Gateway
from llmcourse.cluster.instance import Delivery
from llmcourse.cluster.link import NEVER, Traffic
from llmcourse.cluster.orders import Adopt, Copy, Grow, Look, Pause, Release, Reserve, Stop
from llmcourse.engine import Engine, EventKind, Request, SamplingParams, VirtualClock
from llmcourse.errors import UserError
from llmcourse.executors import RooflineExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.workload import Arrival
from tests.cluster import suite
from tests.cluster.worlds import DRIVERS, alone, ask, check_all, cluster, finish
from tests.engine.test_forward import Cost

LINK = Link(400_000, 0.003)


# ---- migrations ------------------------------------------------------------------------------------------------------


def test_kv_is_written_when_it_has_arrived_and_not_before():
    driver = cluster("virtual", link=LINK, num_blocks=80)
    driver.add(ask([4, 4], 300)), driver.add(ask([5, 5], 300))            # one on each: both are at work all the time
    request, destination = suite.begun(driver)
    there, clocks = driver.instances[destination], []
    write = there.write
    there.write = lambda *arguments: (clocks.append(there.engine.clock.now), write(*arguments))
    migration = driver.migrate(request.id, destination, "stop-and-copy")
    finish(driver)
    (copy,) = migration.copies
    assert migration.outcome == "moved" and clocks[0] >= copy.end, "who lives there has had all steps until then"


@pytest.mark.parametrize("method", METHODS)
def test_a_request_gets_no_token_between_its_stop_and_its_adoption(method):
    """And each order takes what it should: the link's latency, a copy its bytes, a pause its seconds."""
    driver = cluster("virtual", link=LINK, num_blocks=80, terms=Terms(4, last_blocks=2, gap=8, poll=0.02))
    others = [driver.add(ask([5, n], 150)) for n in range(2)]
    request, destination = suite.begun(driver)
    source = driver.owner(request.id)
    migration = driver.migrate(request.id, destination, method)
    assert [instance.busy for instance in driver.alive] == [True, True]
    finish(driver)
    check_all(driver, [request, *others])
    assert migration.outcome == "moved" and not any(instance.busy for instance in driver.alive)
    adopted = next(stage.end for stage in migration.stages if isinstance(stage.order, Adopt))
    times = {number: [event.time for event in driver.events if event.request == request.id
                      and event.kind is EventKind.NEW_TOKENS and event.instance == number] for number in (0, 1)}
    assert max(times[source]) <= migration.stopped_at < adopted < min(times[destination])
    assert migration.downtime == adopted - migration.stopped_at
    for stage in migration.stages:
        took, latency = stage.end - stage.start, pytest.approx(LINK.latency)
        if isinstance(stage.order, Copy):
            assert took == pytest.approx(LINK.seconds(stage.bytes))
            assert stage.bytes == (stage.order.last - stage.order.first) * 4096
        elif isinstance(stage.order, Pause):
            assert took == pytest.approx(0.02) and method == "tokens"
        elif isinstance(stage.order, (Look, Stop, Adopt)):
            assert took >= LINK.latency * (1 - 1e-9)
        else:
            assert isinstance(stage.order, (Reserve, Grow, Release)) or method == "tokens"
            assert took == latency, "what changes no batch waits for no step"


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_clusters_log_tells_the_whole_story(driver):
    both = cluster(driver, link=LINK, num_blocks=80)
    request, destination = suite.begun(both)
    source = both.owner(request.id)
    migration = both.migrate(request.id, destination)
    suite.ended(both, request)
    begun, *copies, over = [event for event in both.log if event.kind is EventKind.MIGRATION]
    assert begun.time == migration.begun and begun.data["stage"] == "begun" and begun.data["method"] == "live"
    assert [(event.data["first"], event.data["last"]) for event in copies] == [
        (stage.order.first, stage.order.last) for stage in migration.copies] and len(copies) >= 2
    for event, stage in zip(copies, migration.copies, strict=True):
        assert (event.data["start"], event.time, event.data["bytes"]) == (stage.start, stage.end, stage.bytes)
        assert event.data["start"] < event.time
    assert over.time == migration.ended and over.data["stage"] == "moved" and over.data["reason"] == ""
    assert over.data["downtime"] == migration.downtime > 0 and over.data["bytes"] == migration.bytes
    assert {(event.data["source"], event.data["destination"], event.request) for event in both.log} == {
        (source, destination, request.id)}
    assert [event.time for event in both.events] == sorted(event.time for event in both.events)
    refused = both.add(ask(max_tokens=60))
    move = both.migrate(refused.id, 1 - both.owner(refused.id))
    both.abort(refused.id)
    suite.until(both, lambda: move.outcome)
    assert both.log[-1].data["stage"] == "aborted" and both.log[-1].data["reason"] == move.reason != ""


def test_who_has_died_is_still_in_the_log_and_in_the_table():
    both = cluster("local", num_blocks=80)
    first, second = both.add(ask([1], 3)), both.add(ask([2], 40))
    suite.until(both, lambda: both.gateway.streams[first.id].reason)
    both.kill(0)
    finish(both)
    assert sorted(both.table()["id"]) == sorted([first.id, second.id])
    assert {event.instance for event in both.events if event.kind is EventKind.FINISHED} == {0, 1}
    assert [event.data["instance"] for event in both.events if event.kind is EventKind.FAULT] == [0]


def test_a_ledger_that_all_share_is_one_table_and_ledgers_of_their_own_are_put_together():
    for ledgers in ([Ledger()] * 2, [Ledger(), Ledger()]):
        engines = [Engine(RooflineExecutor(Cost()), BlockPool(16, 4), clock=VirtualClock(), ledger=ledger)
                   for ledger in ledgers]
        table = VirtualDriver(engines).run([Arrival(float(n), 5, 3) for n in range(6)])
        assert sorted(table["id"]) == [f"r{n}" for n in range(6)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_two_migrations_lose_a_side_in_the_same_moment(driver):
    five = cluster(driver, 5, link=LINK, num_blocks=80)
    requests = [five.add(ask([n + 1, 2], 60)) for n in range(5)]
    suite.until(five, lambda: all(len(five.tokens(request.id)) > 8 for request in requests))
    first, second = (five.migrate(requests[source].id, destination) for source, destination in ((0, 1), (3, 2)))
    five.kill(0)
    five.kill(2)
    five.coordinator.advance(five.now + 1.0)                  # nothing is due any more, whatever was planned
    assert first.reason == "the source is lost" and second.reason == "the destination is lost"
    assert not any(instance.busy for instance in five.instances.values())
    finish(five)
    check_all(five, requests)


def life(seed, jumps):
    """Requests of simulated engines come, move and are given up; the same in every world for the same seed."""
    dice = random.Random(seed)
    engines = [Engine(RooflineExecutor(Cost(), block_bytes=4000), BlockPool(dice.choice((10, 16)), 4), token_budget=8,
                      batching=dice.choice(("mixed", "continuous")), max_running=2, clock=VirtualClock())
               for _ in range(2)]
    driver = VirtualDriver(engines, LeastRequests(), Rebalance(2.0, rest=0.5) if dice.random() < 0.5 else None,
                           link=Link(20_000, 0.01), terms=Terms(4, last_blocks=1), reporting=Reporting(1.0))
    for each in () if jumps else engines:
        each.forward = lambda until=0.0: 0
    for number in range(40):
        if dice.random() < 0.4:
            driver.add(Request([1] * dice.randint(1, 12), SamplingParams(dice.randint(1, 25)), f"r{number}"))
        names = [name for name in driver.gateway.streams if driver.owner(name) is not None]
        what, name = dice.random(), dice.choice(names) if names else ""
        try:
            if names and what < 0.5:
                driver.migrate(name, 1 - driver.owner(name), dice.choice(list(METHODS)))
            elif names and what < 0.55:
                driver.abort(name)
        except UserError:
            pass                                              # one of both is busy
        driver.advance(driver.now + dice.choice((0.03, 0.4, 3.0)))
    finish(driver)
    return driver


@pytest.mark.parametrize("seed", range(12))
def test_jumping_is_stepping_whoever_comes_and_goes(seed):
    """Nothing that comes, stops, leaves or is given up goes unnoticed in a jump: every event is the same."""
    one, many = life(seed, False), life(seed, True)
    assert many.events == one.events and sum(move.outcome == "moved" for move in many.migrations) > 0


# ---- the link --------------------------------------------------------------------------------------------------------


def test_a_transfer_that_is_given_up_leaves_its_share_to_the_others():
    traffic = Traffic(Link(100.0, 0.0, total=100.0))
    traffic.start("a", 100, 0.0)
    traffic.start("b", 100, 0.0)
    traffic.end("a", 1.0)                                     # 50 bytes of each have gone
    assert traffic.next_end() == (pytest.approx(1.5), "b")
    traffic.start("c", 10, 0.5)                               # news from the past changes nothing that is known
    assert traffic.next_end() == (pytest.approx(1.2), "c")
    assert Link(100.0, 0.5).seconds(100) == 1.5 and Link(100.0, 0.5, total=50.0).seconds(100) == 2.5
    for wrong in (dict(latency=-0.1), dict(total=0.0), dict(bandwidth=-1.0)):
        with pytest.raises(UserError, match="carries nothing"):
            Link(**wrong)


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_clients_are_sent_each_token_once_and_told_of_the_end():
    told = []
    gateway, request = Gateway(lambda name, tokens: told.append((name, tokens))), ask([1, 2], id="r", arrival=0.0)
    gateway.opened(request, 3)
    assert gateway.hear([Delivery("r", 0, (7, 8)), Delivery("x", 0, (1,))]) == [Delivery("r", 0, (7, 8))]
    assert gateway.hear([Delivery("r", 1, (8, 9)), Delivery("r", 0, (7,))]) == [Delivery("r", 2, (9,))]
    stream = gateway.streams["r"]
    assert stream.repeated == 2 and gateway.open_streams == 1 and gateway.living_on(3) == [stream]
    again = stream.snapshot()
    assert again.tokens == (1, 2, 7, 8, 9) and again.computed == 0 and again.status == "preempted"
    end = Delivery("r", 0, (), "length")
    assert gateway.hear([end, end, Delivery("r", 3, (10,))]) == [end] and told == [("r", 3)]
    assert stream.output == [7, 8, 9] and gateway.open_streams == 0 and gateway.living_on(3) == []
    gateway.failed("nobody", "why")
    gateway.moved("nobody", 4)


def test_only_a_new_token_clears_a_request_of_suspicion():
    gateway = Gateway()
    gateway.opened(ask([1], id="r", arrival=0.0), 0)
    gateway.hear([Delivery("r", 0, (7,))])
    assert gateway.orphaned("r") == gateway.orphaned("r") == ""
    gateway.hear([Delivery("r", 0, (7,))])                    # what its client had before
    assert "3 instances" in gateway.orphaned("r")


def test_every_answer_has_a_stream():
    one = cluster("local", 1, num_blocks=40)
    request = ask([1, 2, 3], 5)
    object.__setattr__(request.sampling, "n", 3)
    one.add(request)
    news = list(one.stream())
    assert {delivery.request_id for delivery in news} == {"r0", "r0/1", "r0/2"} and one.gateway.open_streams == 0
    for name in one.gateway.streams:
        sent = [delivery for delivery in news if delivery.request_id == name]
        assert sent[-1].reason == "length" and one.tokens(name) == alone(request)
        assert [token for delivery in sent for token in delivery.tokens] == alone(request)
        assert all(after.position == before.position + len(before.tokens) for before, after in pairwise(sent[:-1]))


# ---- reports and the clock -------------------------------------------------------------------------------------------


def ticks(driver):
    """Notes when everybody reports."""
    times, tick = [], driver._tick
    driver._tick = lambda now: (times.append(now), tick(now))
    return times


def test_everybody_reports_every_so_often_where_somebody_reads():
    for options, reads in (({}, False), ({"dispatch": LeastRequests()}, True), ({"rebalance": Rebalance()}, True)):
        driver = cluster("virtual", num_blocks=40, reporting=Reporting(0.25), **{"dispatch": RoundRobin()} | options)
        times = ticks(driver)
        while driver.now < 1.1:
            driver.advance(1.1)
        assert times == ([0.0, 0.25, 0.5, 0.75, 1.0] if reads else []), options
        assert not driver.advance() and driver.now >= 1.1
    driver.drain(0)
    driver.scheduler.rebalance = None
    driver.advance(driver.now + 1.0)
    assert len(times) > 5, "somebody is to be emptied"


def test_the_present_of_one_process_comes_when_it_is_due():
    driver = cluster("local", num_blocks=40, reporting=Reporting(0.25))
    times = ticks(driver)
    assert driver.advance(3.0) and driver.now == 3.0, "nobody has anything to do"
    driver.add(ask(max_tokens=30))
    finish(driver)
    assert times[:2] == [0.0, 3.0] and all(after - before >= 0.25 for before, after in pairwise(times))
    assert all(after - before < 0.3 for before, after in pairwise(times[1:])), "and not much later"
    assert not driver.advance()


def test_who_is_started_lives_from_then_on_and_who_is_retired_has_done_with_all():
    for kind in DRIVERS:
        driver = cluster(kind, 1, num_blocks=20, reporting=Reporting(0.01), dispatch=LeastRequests(), scaling={
            "autoscaler": Reactive(most=3, up_after=0.0, down_after=0.05), "cold_start": ColdStart(boot=0.1)})
        requests = [driver.add(ask([n + 1, 2], 12)) for n in range(8)]
        driver.advance(0.15)
        while len(driver.instances) < 2:
            driver.advance(driver.now + 0.01)
        requests += [driver.add(ask([n + 1, 3], 40)) for n in range(6)]
        finish(driver)
        check_all(driver, requests)
        retired = [lease for lease in driver.fleet.leases.values() if lease.how == "retired"]
        assert retired and len(driver.fleet.leases) > 1
        for lease in driver.fleet.leases.values():
            assert lease.number == 0 or lease.ready == pytest.approx(lease.started + 0.1, abs=0.02)
            events = [event.time for event in driver.instances[lease.number].engine.events]
            assert all(lease.ready <= time <= (lease.ended or NEVER) for time in events)


def test_a_driver_that_runs_simulations_refuses_what_it_could_not_follow():
    shared = VirtualClock()

    def made(clock=None, ledger=None):
        return Engine(RooflineExecutor(Cost()), BlockPool(16, 4), clock=clock or VirtualClock(), ledger=ledger)

    with pytest.raises(UserError, match="each on a VirtualClock of its own"):
        VirtualDriver([made(shared), made(shared)])
    driver = VirtualDriver([made(shared)], build=made, autoscaler=Reactive())
    driver.fleet.start()
    with pytest.raises(UserError, match="make each engine anew"):
        driver.join(1, made(shared))
    driver.join(1, made())
    assert driver.instances[1].engine.executor.lengths is driver.instances[0].engine.executor.lengths


# ---- what a survey finds ---------------------------------------------------------------------------------------------


@given(st.integers(0, 3))
@settings(max_examples=4)
def test_whoever_lives_twice_or_nowhere_is_found(case):
    both = cluster("local", num_blocks=40)
    request = both.add(ask(max_tokens=20))
    both.advance()
    both.check_invariants()
    here, there = both.instances[0], both.instances[1]
    if case == 0:
        there.engine.add(ask(max_tokens=20, id=request.id, arrival=0.0))
    elif case == 1:
        here.stop(request.id)
        both.check_invariants()
        here.release(request.id)
    elif case == 2:
        both.gateway.streams[request.id].reason = "length"
    else:
        both.fleet.held.append(request)
    with pytest.raises(AssertionError, match=request.id):
        both.check_invariants()
