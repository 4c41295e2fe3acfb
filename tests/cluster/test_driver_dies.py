"""A driver dies, and the next one goes on with what it is given: instances, books and streams, each copied as data."""

import pickle
from functools import partial

import pytest

from llmcourse.cluster import ByRole, Freeness, Link, Reporting, RoundRobin, VirtualDriver
from llmcourse.cluster.autoscale import ColdStart, QueueBased, Reactive
from llmcourse.cluster.dispatch import Dispatcher
from llmcourse.cluster.orders import Release
from llmcourse.cluster.recovery import begin_anew
from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.errors import UserError
from llmcourse.metrics.ledger import Ledger
from llmcourse.workload import Lognormal, Poisson, open_loop
from tests.cluster.worlds import DRIVERS, Noted, alone, ask, check_all, cluster, engine, finish

SCALING = {"autoscaler": Reactive(100.0, 0.0, most=3), "cold_start": ColdStart(boot=0.3)}


class Closed(Dispatcher):
    """Lets nobody in until it is opened."""

    open = False

    def choose(self, request, number, reports):
        return min(reports, key=lambda report: report.requests).instance if self.open else None


def left(driver):
    """A copy of what somebody else has kept of a driver."""
    return pickle.loads(pickle.dumps((driver.fleet.books, driver.gateway.streams)))


def successor(old, dispatch=None, **options):
    """Another driver of what lives."""
    return type(old)(old.alive, dispatch or old.scheduler.dispatch, link=old.link, terms=old.terms,
                     reporting=old.board.reporting, **options)


def after(driver, seconds):
    until = driver.now + seconds
    while driver.now < until:
        driver.advance(until)
        driver.check_invariants()


@pytest.mark.parametrize("driver", DRIVERS)
def test_who_waited_in_front_of_all_and_who_was_starting_are_handed_over(driver):
    old = cluster(driver, dispatch=Closed(), scaling=SCALING, reporting=Reporting(0.05))
    waiting = [old.add(ask((1, 2, n), tenant="a")) for n in range(3)]
    (number,) = old.fleet.start()
    due = old.fleet.next_due()
    after(old, 0.1)
    books, streams = left(old)
    new = successor(old, build=engine, **SCALING)
    new.recover(books, streams)
    new.check_invariants()
    assert [request.id for request in new.fleet.held] == [request.id for request in waiting]
    assert [(lease.number, lease.started) for lease in new.fleet.starting] == [(number, 0.0)]
    assert new.fleet.next_due() == due, "it has been starting all the time"
    assert new.fleet.leases[0].started == 0.0, "and the others were paid for all the time"
    assert new.add(ask()).id == "r3"
    new.scheduler.dispatch.open = True
    after(new, due - new.now + 0.1)
    assert new.instances[number].alive and new.fleet.leases[number].ready >= due
    finish(new)
    check_all(new, waiting)


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_streams_alone_say_who_waited(driver):
    old = cluster(driver, dispatch=Closed())
    waiting = [old.add(ask((1, 2, n))) for n in range(3)]
    new = successor(old)
    new.recover(streams=left(old)[1])
    assert [request.id for request in new.fleet.held] == [request.id for request in waiting]
    assert (another := new.add(ask())).id == "r3" and waiting.append(another) is None
    new.scheduler.dispatch.open = True
    finish(new)
    check_all(new, waiting)


@pytest.mark.parametrize("driver", DRIVERS)
def test_with_nothing_kept_who_waited_must_ask_again_and_who_lived_goes_on(driver):
    dispatch = Closed()
    old = cluster(driver, dispatch=dispatch)
    dispatch.open = True
    lives = old.add(ask((1, 2, 3), 30))
    after(old, 0.05)
    dispatch.open = False
    lost = old.add(ask((3, 2, 1)))
    new = successor(old)
    new.recover()
    assert not new.fleet.held and lost.id not in new.gateway.streams
    finish(new)
    check_all(new, [lives])


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("later", [0.05, 1.0], ids=["lives by now", "has ended by now"])
def test_an_old_copy_of_the_books_places_nobody_twice(driver, later):
    dispatch = Closed()
    old = cluster(driver, dispatch=dispatch, scaling=SCALING, reporting=Reporting(0.01))
    requests = [old.add(ask((1, 2, n))) for n in range(3)]
    (number,) = old.fleet.start()
    books, streams = left(old)
    dispatch.open = True
    after(old, later)
    assert not old.fleet.held
    new = successor(old, build=engine, **SCALING)
    new.recover(books, streams)
    new.check_invariants()
    assert not new.fleet.held
    assert len(new.fleet.starting) == (later < 0.3), "who is ready by now is not started again"
    finish(new)
    check_all(new, requests)
    after(new, 0.5)
    assert sorted(new.instances) == [0, 1, number] and not new.fleet.starting


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_name_is_not_given_again_though_nobody_but_an_instance_remembers_it(driver):
    old = cluster(driver)
    ended = old.add(ask((1, 2, 3), 2))
    finish(old)
    new = successor(old)
    new.recover()
    assert ended.id == "r0" and new.add(ask()).id == "r1"


@pytest.mark.parametrize("driver", DRIVERS)
def test_who_must_wait_again_takes_its_place_by_arrival(driver):
    dispatch = Closed()
    old = cluster(driver, dispatch=dispatch, reporting=Reporting(0.01))
    first = old.add(ask((1, 2, 3), 60))
    _, streams = left(old)                                    # a copy that is older than that of the books
    dispatch.open = True
    after(old, 0.05)
    dispatch.open = False
    second = old.add(ask((3, 2, 1)))
    books, _ = left(old)
    old.instances[old.owner(first.id)].alive = False
    new = successor(old)
    new.recover(books, streams)
    assert [request.id for request in new.fleet.held] == [first.id, second.id]


def test_who_has_had_a_token_does_not_wait_for_it_under_the_next_driver():
    old = cluster("virtual", scaling=SCALING)
    old.add(ask((1, 2, 3), 60))
    after(old, 0.1)
    new = successor(old, build=engine, **SCALING)
    new.recover(*left(old))
    seen = new.fleet.observed()
    assert seen.ttfts == () and seen.longest_wait == 0


def test_where_instances_end_with_their_driver_the_books_say_who_waits_and_how_many_came():
    old = cluster("local", dispatch=Closed())
    ended, waits = old.add(ask((1, 2, 3))), old.add(ask((1, 2, 3)))
    books, _ = left(old)
    old.abort(ended.id)
    _, streams = left(old)
    new = cluster("local")
    begin_anew(new, books, streams)
    assert [request.id for request in new.fleet.held] == [waits.id]
    finish(new)
    check_all(new, [ended, waits])
    books.held = []
    third = cluster("local")
    begin_anew(third, books)
    assert third.add(ask()).id == "r2"


@pytest.mark.parametrize("driver", DRIVERS)
def test_who_took_part_in_a_migration_of_the_dead_driver_may_take_part_in_another(driver):
    old = cluster(driver, num_blocks=80)
    request = old.add(ask((1, 2, 3), 60))
    after(old, 0.1)
    old.migrate(request.id, 1)
    while not old.instances[1].guests:
        after(old, 0.002)
    assert old.instances[0].busy and old.instances[1].busy
    new = successor(old)
    new.recover(*left(old))
    assert not (new.instances[0].busy or new.instances[1].busy or new.instances[1].guests)
    migration = new.migrate(request.id, 1)
    finish(new)
    assert migration.outcome == "moved"
    check_all(new, [request])


def between_adopt_and_release(driver, kept, how):
    """A driver, and a request that instance 1 has adopted and that has ended there, while instance 0 still keeps it."""
    old = cluster(driver, dispatch=Noted(RoundRobin()), max_running=1, num_blocks=40, link=Link(4e6, 0.2), ledger=kept)
    old.add(ask((1, 2, 3), 100)), old.add(ask((1, 2), 2))
    request = old.add(ask((3, 2, 1), 3))                      # waits behind the first on instance 0
    migration = old.migrate(request.id, 1, "recompute")
    while not isinstance(migration.order, Release):
        after(old, 0.005)
    if how == "abort":
        old.abort(request.id)
    while old.instances[1].engine.requests.get(request.id) and not old.instances[1].engine.requests[request.id].done:
        after(old, 0.005)
    assert isinstance(migration.order, Release) and old.instances[0].stopped == [request.id]
    return old, request


@pytest.mark.parametrize("given", [True, False], ids=["books and streams", "nothing kept"])
@pytest.mark.parametrize("how", ["length", "abort"])
@pytest.mark.parametrize("kept", [None, Ledger], ids=["events", "ledger"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_who_has_ended_where_it_was_adopted_does_not_begin_again_where_it_had_stopped(driver, kept, how, given):
    old, request = between_adopt_and_release(driver, ledger := kept and kept(), how)
    new = successor(old)
    new.recover(*(left(old) if given else ()))
    assert not new.instances[0].stopped and new.owner(request.id) is None
    finish(new)
    assert all(instance.engine.pool.num_used == 0 for instance in new.alive)
    ends = [note for note in new.scheduler.dispatch.notes if note[0] == "done"]
    assert sorted(name for _, name, _ in ends) == ["r0", "r1", "r2"]
    assert how == "abort" or ("done", request.id, len(alone(request))) in ends
    if ledger is not None:
        table = ledger.table()
        assert sorted(zip(table["id"], table["finish_reason"], strict=True)) == [
            ("r0", "length"), ("r1", "length"), ("r2", how)]


@pytest.mark.parametrize("kept", [None, Ledger], ids=["events", "ledger"])
@pytest.mark.parametrize("driver", DRIVERS)
def test_nor_when_the_instance_where_it_ended_has_died_with_the_driver(driver, kept):
    old, request = between_adopt_and_release(driver, kept and kept(), "length")
    books, streams = left(old)
    old.instances[1].alive = False
    new = successor(old)
    new.recover(books, streams)
    assert not new.instances[0].stopped and new.owner(request.id) is None
    finish(new)


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_old_copy_of_the_books_begins_nobody_again_whom_only_a_ledger_remembers(driver):
    dispatch, ledger = Closed(), Ledger()
    old = cluster(driver, dispatch=dispatch, reporting=Reporting(0.01), ledger=ledger)
    requests = [old.add(ask((1, 2, n))) for n in range(3)]
    books, _ = left(old)
    dispatch.open = True
    after(old, 1.0)
    assert not old.fleet.held and old.idle
    new = successor(old)
    new.recover(books)
    assert not new.fleet.held
    finish(new)
    assert list(ledger.table()["id"]) == [request.id for request in requests]


@pytest.mark.parametrize("driver", DRIVERS)
def test_whose_instance_dies_while_there_is_no_driver_goes_on_if_its_stream_was_kept(driver):
    old = cluster(driver, dispatch=None, num_blocks=80)
    requests = [old.add(ask((1, 2, n), 40)) for n in range(4)]
    after(old, 0.1)
    books, streams = left(old)
    old.instances[0].alive = False
    new = successor(old)
    new.recover(books, streams)
    assert new.fleet.leases[0].how == "died" and new.fleet.leases[0].ended == new.now
    finish(new)
    check_all(new, requests)


def test_a_client_that_reads_on_sees_no_gap():
    old = cluster("local", num_blocks=80)
    request, seen = old.add(ask((1, 2, 3), 40)), []
    while len(seen) < 10:
        old.advance()
        seen += [token for delivery in old.news for token in delivery.tokens]
        old.news.clear()
    _, streams = left(old)
    streams[request.id].output = streams[request.id].output[:7]           # a copy that is a little old
    new = successor(old)
    missed = new.recover(streams=streams)
    assert [token for delivery in missed for token in delivery.tokens] == seen[7:]
    for delivery in new.stream():
        assert not delivery.tokens or delivery.position in (7, len(seen))
        seen = seen[:delivery.position] + list(delivery.tokens) if delivery.tokens else seen
    check_all(new, [request])
    assert seen == new.tokens(request.id)


def test_a_fleet_rests_under_the_next_driver_too():
    old = cluster("virtual", scaling=SCALING | {"autoscaler": QueueBased(wait=0.0, most=4, up_after=100.0)},
                  reporting=Reporting(0.01), max_running=1)
    for n in range(8):
        old.add(ask((1, n), 40))
    after(old, 0.1)
    assert [lease.number for lease in old.fleet.starting] == [2]
    new = successor(old, build=engine, **SCALING | {"autoscaler": old.fleet.autoscaler})
    new.recover(*left(old))
    after(new, 1.0)
    assert sorted(new.fleet.leases) == [0, 1, 2], "nobody is started again within the rest"
    assert new.fleet.watch.observed(new.now).longest_wait == new.now, "who waits has waited under the last driver too"


def test_how_long_an_answer_will_be_stays_the_secret_of_its_workload():
    workload = open_loop(Poisson(4.0), Lognormal(200, p99=800), Lognormal(60, p99=300), 40, 1)
    made = partial(Engine.simulated, "Llama 2 7B", "A10", num_blocks=420)
    old = VirtualDriver([made(), made()], Freeness())
    old.run(workload[:30], declared=400)
    expected = {f"r{n}": arrival.output_tokens for n, arrival in enumerate(workload[:30])}
    assert {name: len(stream.output) for name, stream in old.gateway.streams.items()} == expected
    half = VirtualDriver([made(), made()], Freeness())
    for n, arrival in enumerate(workload[:30]):
        half.go_to(arrival.time)
        half.add(request := Request([1] * arrival.prompt_tokens, SamplingParams(400), arrival=arrival.time))
        half.instances[0].engine.executor.lengths[request.id] = arrival.output_tokens
        if n == 15:
            before, half = half, VirtualDriver(half.alive, Freeness())
            assert half.now == max(each.engine.clock.now for each in before.alive), "clocks go on where they stand"
            half.recover(*left(before))
    half.finish()
    assert {name: len(stream.output) for name, stream in half.gateway.streams.items()} == expected


@pytest.mark.parametrize("driver", DRIVERS)
def test_who_waits_in_front_of_nobody_has_failed_and_does_not_wait_for_ever(driver):
    one = cluster(driver, 1, dispatch=Closed())
    waits = one.add(ask())
    after(one, 0.1)
    one.kill(0)
    finish(one, 100)
    assert "none of the 0 instances" in one.failed[waits.id]
    assert one.gateway.streams[waits.id].reason == one.failed[waits.id] and not one.fleet.held


def test_what_nobody_can_go_on_with_is_said():
    old = cluster("local", dispatch=ByRole(), scaling=SCALING)
    old.fleet.start()
    with pytest.raises(UserError, match="give build=") as error:
        successor(old).recover(left(old)[0])
    assert "\n" not in str(error.value) and "[2]" in str(error.value)
