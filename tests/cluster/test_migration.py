"""Migrations between two engines in one process and in virtual time, by every method and through every fault."""

import pytest

from llmcourse.cluster import METHODS, Instance, Link, Migration, RoundRobin, Terms
from llmcourse.cluster.orders import Adopt, Copy, Drop, Look, Release, Reserve, Resume, Stop
from llmcourse.engine import Status
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Refused
from llmcourse.errors import UserError
from tests.cluster import suite
from tests.cluster.worlds import DRIVERS, ask, check_all, cluster, engine, finish

LINK = Link(400_000, 0.0)                # a block of mocked KV takes 10 ms, a step about as long


@pytest.fixture(params=DRIVERS)
def pair(request):
    return cluster(request.param, link=LINK, num_blocks=80, terms=Terms(4, last_blocks=2))


@pytest.mark.parametrize("method", METHODS)
def test_a_request_moves_and_its_client_notices_nothing(pair, method):
    suite.moves_unseen(pair, method)


def test_a_live_copy_goes_on_while_it_decodes(pair):
    suite.copies_while_decoding(pair)


@pytest.mark.parametrize("side", ("source", "destination"))
@pytest.mark.parametrize("stage", (Look, Reserve, Copy, Stop, Adopt, Release))
def test_whoever_dies_at_whatever_stage_nothing_is_lost(pair, stage, side):
    suite.is_undone(pair, stage, side)


def test_a_request_given_up_in_mid_copy_leaves_nothing(pair):
    suite.given_up_in_mid_copy(pair)


def test_a_request_that_ends_in_mid_copy_leaves_nothing(pair):
    suite.ends_in_mid_copy(pair)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_waiting_request_moves_without_kv_and_keeps_its_place(driver, method):
    both = cluster(driver, max_running=1, num_blocks=80, dispatch=None)
    first, second, third, fourth = (both.add(ask([n, 2, 3], 60, arrival=n / 1000)) for n in range(1, 5))    # 0, 1, 0, 1
    both.advance(0.05)
    waiting = both.instances[0].look(third.id)
    assert waiting.status is Status.WAITING
    migration = both.migrate(third.id, 1, method)
    finish(both)
    assert migration.outcome == "moved" and not migration.bytes
    done = [event.request for event in both.events if event.kind == "FINISHED" and event.instance == 1]
    assert done == [second.id, third.id, fourth.id], "it takes its place by arrival"
    check_all(both, [first, second, third, fourth])


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_swapped_request_takes_its_kv_along(driver):
    both = cluster(driver, num_blocks=12, swap=True, dispatch=None)
    requests = [both.add(ask([n, 1], 2 if n % 2 else 30)) for n in range(4)]      # the short ones on instance 1
    for _ in range(400):
        swapped = [s.id for s in both.instances[0].residents() if s.status is Status.SWAPPED]
        room = both.instances[1].engine.pool.num_free
        if swapped and room > 6:
            break
        both.advance(both.now + 0.01)
    migration = both.migrate(swapped[0], 1, "live")
    finish(both)
    check_all(both, requests)
    assert migration.outcome == "moved" and migration.bytes, migration


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_parked_request_takes_its_kv_along(driver, method):
    both = cluster(driver, num_blocks=80, parking=True, max_running=1, dispatch=RoundRobin())
    long = both.add(ask([1, 2], 60, predicted=60.0))
    suite.until(both, lambda: len(both.tokens(long.id)) >= 20)
    done, short = both.add(ask([3, 4], 1, predicted=1.0)), both.add(ask([5, 6], 30, predicted=30.0))
    suite.until(both, lambda: both.instances[0].look(long.id).status is Status.PARKED and both.tokens(done.id))
    before = both.instances[0].look(long.id)
    assert both.instances[0].look(long.id) == before and before.computed >= 20, "looking changes nothing"
    migration = both.migrate(long.id, 1, method)
    finish(both)
    check_all(both, [long, done, short])
    assert migration.outcome == "moved"
    copied = method in ("live", "stop-and-copy")
    size = both.instances[0].engine.executor.block_bytes
    assert migration.bytes == copied * both.terms.blocks(before.computed) * size
    counters = [both.instances[number].engine.counters for number in (0, 1)]
    assert bool(counters[1].recomputed_tokens) != copied, "what was sent is not computed again"
    assert sum(each.computed_tokens - each.recomputed_tokens for each in counters) == 61 + 2 + 31


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_parked_request_that_is_refused_is_parked_again(driver):
    both = cluster(driver, num_blocks=80, parking=True, max_running=1, dispatch=RoundRobin())
    long = both.add(ask([1, 2], 60, predicted=60.0))
    suite.until(both, lambda: len(both.tokens(long.id)) >= 20)
    other, short = both.add(ask([3, 4], 200, predicted=200.0)), both.add(ask([5, 6], 20, predicted=20.0))
    suite.until(both, lambda: both.instances[0].look(long.id).status is Status.PARKED and both.tokens(other.id))
    migration = both.migrate(long.id, 1)
    suite.until(both, lambda: migration.outcome)
    assert migration.outcome == "aborted" and "seats" in migration.reason
    assert both.instances[0].look(long.id).status is Status.PARKED
    here = both.instances[0]
    computed = here.stop(long.id).computed
    here.engine.check_invariants()
    assert here.stopped == [long.id] and computed
    here.resume(long.id)
    here.engine.check_invariants()
    finish(both)
    check_all(both, [long, other, short])
    assert not here.engine.counters.recomputed_tokens


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_prompt_half_computed_moves_with_the_half(driver):
    both = cluster(driver, num_blocks=80, token_budget=8, max_running=4, terms=Terms(4, last_blocks=4))
    request = both.add(ask(range(1, 50), 10))
    while both.instances[0].look(request.id).computed < 16:
        both.advance(both.now + 0.005)
    migration = both.migrate(request.id, 1, "stop-and-copy")
    finish(both)
    assert migration.outcome == "moved" and migration.bytes
    computed = both.instances[1].engine.counters.computed_tokens
    assert computed < 49 + 10, "what was sent is not computed again"
    check_all(both, [request])


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_full_destination_refuses_and_the_request_stays(driver):
    both = cluster(driver, num_blocks=10, dispatch=None)
    requests = [both.add(ask([n, 1], 30)) for n in range(2)]
    for _ in range(20):
        both.advance(both.now + 0.01)
    migration = both.migrate(requests[0].id, 1, "live")
    finish(both)
    assert migration.outcome == "aborted" and "blocks" in migration.reason
    assert Stop not in suite.orders(migration), "it was refused before anything stopped"
    check_all(both, requests)


@pytest.mark.parametrize("driver", DRIVERS)
def test_who_lives_there_goes_before_who_may_come(driver):
    both = cluster(driver, num_blocks=14, dispatch=None, link=Link(20_000, 0.0))
    mover, resident = both.add(ask([1, 1], 24)), both.add(ask([2, 1, 3], 50))
    for _ in range(12):
        both.advance(both.now + 0.01)
    migration = both.migrate(mover.id, 1, "live")
    finish(both)
    assert migration.outcome == "aborted"
    assert both.instances[1].engine.counters.preemptions == 0, "nobody is preempted for a guest"
    check_all(both, [mover, resident])


@pytest.mark.parametrize("driver", DRIVERS)
def test_when_decoding_writes_faster_than_the_link_carries_it_gives_up(driver):
    both = cluster(driver, num_blocks=80, link=Link(100_000, 0.0), terms=Terms(4, stages=4, last_blocks=0))
    request, destination = suite.begun(both, max_tokens=300)
    migration = both.migrate(request.id, destination, "live")
    finish(both)
    assert migration.outcome == "aborted" and "as fast as the link" in migration.reason
    check_all(both, [request])


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_prefix_cache_at_the_destination_spares_the_copy(driver):
    both = cluster(driver, num_blocks=80, prefix=True, dispatch=None, terms=Terms(4, last_blocks=2))
    prompt = list(range(1, 50))
    warm = [both.add(ask(prompt, 2)) for _ in range(2)]
    finish(both)
    request = both.add(ask(prompt, 40))
    for _ in range(10):
        both.advance(both.now + 0.01)
    migration = both.migrate(request.id, 1, "live")
    finish(both)
    assert migration.outcome == "moved"
    assert min(stage.order.first for stage in migration.copies) >= 12, "the prompt's 12 whole blocks are there already"
    check_all(both, [*warm, request])


def test_answers_of_one_prompt_stay_together():
    both = cluster("local", num_blocks=80)
    request = ask([1, 2, 3], 20)
    object.__setattr__(request.sampling, "n", 2)
    both.add(request)
    both.advance()
    migration = both.migrate(request.id, 1)
    finish(both)
    assert migration.outcome == "aborted" and "stay together" in migration.reason


def test_what_cannot_begin_is_refused_in_one_line():
    both = cluster("local", num_blocks=80)
    request, destination = suite.begun(both)
    for arguments, words in (((request.id, 0), "already"), ((request.id, 7), "no instance 7"), (("x", 1), "no request"),
                             ((request.id, 1, "teleport"), "live, stop-and-copy")):
        with pytest.raises(UserError, match=words):
            both.migrate(*arguments)
    both.migrate(request.id, destination)
    with pytest.raises(UserError, match="one at a time"):
        both.migrate(request.id, destination)
    finish(both)
    check_all(both, [request])


# ---- the state machine, alone ----------------------------------------------------------------------------------------


def snapshot(computed=40, tokens=41):
    return Snapshot("r", tuple(range(tokens)), ask([1]).sampling, 0.0, computed=computed, status=Status.RUNNING)


def to(migration, *kinds):
    """Answer orders until one of these kinds is due."""
    while not isinstance(migration.order, kinds):
        migration.answered({Look: snapshot(), Stop: snapshot(), Reserve: 0}.get(type(migration.order)), 0.0)
    return migration


@pytest.mark.parametrize("kind", (Look, Reserve, Copy, Stop, Adopt))
@pytest.mark.parametrize("side", ("source", "destination", None))
def test_what_was_begun_is_undone_and_nothing_else(kind, side):
    migration = to(Migration("r", 0, 1, Terms(4, last_blocks=1)), kind)
    said = suite.orders(migration)
    migration.lost(side, 1.0) if side else migration.refused("no", 1.0)
    undone = []
    while migration.order:
        undone.append(type(migration.order))
        migration.answered(None, 1.0)
    wanted = [Drop] * (Reserve in said and side != "destination") + [Resume] * (Stop in said and side != "source")
    assert undone == wanted and migration.outcome == "aborted" and not migration.committed


@pytest.mark.parametrize("side", ("source", "destination"))
def test_once_it_is_adopted_there_is_no_way_back(side):
    migration = to(Migration("r", 0, 1, Terms(4)), Release)
    migration.cancel("too late")
    migration.lost(side, 1.0)
    if side == "destination":
        assert isinstance(migration.order, Release)
        migration.answered(None, 1.0)
    assert migration.order is None and migration.outcome == "moved"


def test_a_verb_that_cannot_be_done_changes_nothing():
    here = Instance(0, engine(num_blocks=8))
    for verb, arguments in (("look", ("x",)), ("stop", ("x",)), ("resume", ("x",)), ("release", ("x",)),
                            ("drop", ("x",)), ("caught_up", ("x",)), ("adopt", (snapshot(),)), ("grow", (snapshot(),)),
                            ("reserve", (snapshot(),)), ("read", ("x", 0, 1)), ("write", ("x", 0, 1, None))):
        with pytest.raises(Refused):
            getattr(here, verb)(*arguments)
        here.engine.check_invariants()
        assert here.engine.pool.num_used == 0 and not here.guests and not here.stopped


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_order_of_a_migration_that_was_lost_is_not_taken_for_one_of_the_next(driver):
    """Its destination dies while an order is on its way; the next migration of the request has orders of its own."""
    three = cluster(driver, 3, num_blocks=80, link=Link(4e6, 0.3))
    request = three.add(ask(max_tokens=200))
    three.advance(0.02)
    three.migrate(request.id, 1)                              # its first order is due 0.3 s from now
    suite.until(three, lambda: three.now >= 0.2)
    three.kill(1)
    second = three.migrate(request.id, 2, "stop-and-copy")
    finish(three)
    assert second.outcome == "moved"
    for stage in second.stages:
        assert stage.end - stage.start >= 0.3 - 1e-9, f"{stage.order.name} took less than the link's latency"
    check_all(three, [request])


@pytest.mark.parametrize("progress", (False, True))
def test_a_request_under_which_one_instance_after_the_other_dies_is_given_up(progress):
    both = cluster("local", instances=5, num_blocks=80, dispatch=None)
    poison, other = both.add(ask([1, 2, 3], 60)), both.add(ask([2, 2, 3], 60))
    for _ in range(3):
        if progress:
            have = len(both.tokens(poison.id))
            suite.until(both, lambda have=have: len(both.tokens(poison.id)) > have)
        both.kill(both.owner(poison.id))
    finish(both)
    assert len(both.alive) == 2 and len(both.tokens(other.id)) == 60
    if progress:
        check_all(both, [poison, other])
        assert not both.failed, "whoever gives tokens kills nobody"
    else:
        assert "3 instances have died under it" in both.failed[poison.id]
        assert both.gateway.streams[poison.id].reason == both.failed[poison.id]
