"""What migrations say and when, without engines: each method word by word, and the state machine in its corners."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.cluster import METHODS, Migration, Terms
from llmcourse.cluster.methods import GiveUp
from llmcourse.cluster.orders import (
    Adopt,
    CaughtUp,
    Copy,
    Drop,
    Grow,
    Look,
    Order,
    Pause,
    Release,
    Reserve,
    Resume,
    Stop,
)
from llmcourse.engine import SamplingParams, Status
from llmcourse.engine.snapshot import Snapshot

BLOCK = 4


def at(tokens, computed=None, status=Status.RUNNING, preemptions=0):
    """A request of so many tokens, of which all but the last are computed."""
    return Snapshot("r", (1,), SamplingParams(), 0.0, output=tuple(range(tokens - 1)), status=status,
                    computed=tokens - 1 if computed is None else computed, preemptions=preemptions)


def said(method, snapshots, terms=None, there=0, caught=()):
    """All orders of a method, and `GiveUp` if it does; the source shows these snapshots, one each time it is asked.

    ``there``: blocks that the destination has already; ``caught``: its answers to whether it has caught up, then yes.
    """
    seen, ready, orders, answer = iter(snapshots), iter(caught), [], None
    script = METHODS[method](terms or Terms(BLOCK, last_blocks=1))
    while True:
        try:
            orders.append(script.send(answer))
        except StopIteration:
            return orders
        except GiveUp:
            return [*orders, GiveUp]
        answer = (next(seen) if isinstance(orders[-1], (Look, Stop)) else there if isinstance(orders[-1], Reserve)
                  else next(ready, True) if isinstance(orders[-1], CaughtUp) else None)


def test_what_a_cache_has_is_not_sent_and_nothing_is_sent_for_nothing():
    long, end = at(21), at(22)                                # five blocks and a bit more
    assert said("stop-and-copy", [long, end], there=3) == [
        Look(), Reserve(long), Stop(), Grow(end), Copy(3, 6), Adopt(end), Release()]
    whole = at(21, 20)
    for method in ("live", "stop-and-copy"):
        assert said(method, [whole, whole], there=5) == [
            Look(), Reserve(whole), Stop(), Grow(whole), Adopt(whole), Release()], "an order more while it stands still"


def test_live_sends_whole_blocks_until_few_enough_are_left():
    first, second, end = at(22), at(30), at(31)               # 21, 29 and 30 tokens computed
    assert said("live", [first, second, end], Terms(BLOCK, last_blocks=3)) == [
        Look(), Reserve(first), Copy(0, 5), Look(), Grow(second), Stop(), Grow(end), Copy(5, 8), Adopt(end), Release()]
    assert Copy(0, 2) in said("live", [at(10), at(11), at(12)], Terms(BLOCK, last_blocks=2)), "a part is a block too"
    assert said("live", [at(9), at(10)], Terms(BLOCK, last_blocks=2))[2] == Stop(), "two are few enough"


@given(st.integers(1, 6), st.integers(0, 3), st.lists(st.integers(0, 6), min_size=12, max_size=12))
def test_live_copies_no_block_twice_and_none_that_is_still_written(stages, last_blocks, growths):
    snapshots = [at(25)]
    for growth in growths:
        snapshots.append(at(snapshots[-1].num_tokens + growth * BLOCK // 2))
    orders = said("live", snapshots, Terms(BLOCK, stages, last_blocks))
    copies = [order for order in orders if isinstance(order, Copy)]
    assert copies[0].first == 0 and all(copy.last == after.first for copy, after in pairwise(copies))
    if orders[-1] is GiveUp:
        assert len(copies) == stages and Stop() not in orders, "it gives up after so many stages, not before"
    else:
        assert len(copies) <= stages + 1 and -(-orders[-2].snapshot.computed // BLOCK) == copies[-1].last
    seen = iter(snapshots)
    for order in orders[:-1]:
        if isinstance(order, (Look, Stop)):
            now = next(seen)
        elif isinstance(order, Copy) and Stop() not in orders[:orders.index(order)]:
            assert order.last * BLOCK <= now.computed, "a block is sent that is still being written"


def test_tokens_go_in_rounds_until_few_are_missing():
    first, second, end = at(30), at(36), at(38)
    terms = Terms(BLOCK, gap=6, poll=0.25)
    assert said("tokens", [first, second, end], terms, caught=(False, False)) == [
        Look(), Reserve(first, compute=True), CaughtUp(), Pause(0.25), CaughtUp(), Pause(0.25), CaughtUp(), Look(),
        Stop(), Adopt(end), Release()]
    third = at(43)
    orders = said("tokens", [first, at(37), third, third], terms)
    assert orders[3:] == [Look(), Grow(at(37)), CaughtUp(), Look(), Stop(), Adopt(third), Release()]


@pytest.mark.parametrize("rounds", (1, 2, 5))
def test_tokens_give_up_after_so_many_rounds(rounds):
    orders = said("tokens", [at(10 * n) for n in range(1, 9)], Terms(BLOCK, gap=9, rounds=rounds))
    assert orders.count(CaughtUp()) == rounds and orders[-1] is GiveUp
    last = [at(10 * n) for n in range(1, rounds + 1)] + [at(10 * rounds + 1)] * 2
    assert said("tokens", last, Terms(BLOCK, gap=9, rounds=rounds))[-1] == Release(), "the last round still counts"


@pytest.mark.parametrize("method", METHODS)
def test_who_has_no_kv_is_computed_there_and_asked_for_first(method):
    waiting = at(9, 0, Status.WAITING)
    runs = at(9)                                              # by the time of a second look it might
    assert said(method, [waiting, waiting, runs]) == [Look(), Stop(keep=False), Adopt(waiting), Release()]


def test_who_does_not_run_is_sent_without_stages():
    swapped = at(30, 29, Status.SWAPPED)
    assert said("live", [swapped, swapped]) == said("stop-and-copy", [swapped, swapped]) == [
        Look(), Reserve(swapped), Stop(), Grow(swapped), Copy(0, 8), Adopt(swapped), Release()], "nobody writes"
    assert said("tokens", [swapped, swapped])[1] == Stop(keep=False)


@pytest.mark.parametrize("after", (at(30, 0, Status.PREEMPTED, 1), at(33, preemptions=1), at(30, 29, Status.SWAPPED)))
@pytest.mark.parametrize("method", ("live", "tokens"))
def test_blocks_of_an_earlier_life_are_worth_nothing(method, after):
    """It was preempted since it was last seen, perhaps runs again: what was sent is not its KV any more."""
    before, terms = at(29), Terms(BLOCK, last_blocks=1, gap=6)
    for others in ([], [at(30)]):                             # found out by looking, or only when it had stopped
        orders = said(method, [before, *others, after], terms)
        assert orders[-1] is GiveUp and not any(isinstance(order, Adopt) for order in orders)
        assert (Stop() in orders) == bool(others)


def test_only_what_changes_a_batch_waits_for_the_end_of_a_step():
    assert {kind for kind in Order.__subclasses__() if kind.waits} == {Look, Stop, Adopt}
    assert Reserve(at(3), True).arguments("r") == (at(3), True) and Stop(False).arguments("r") == ("r", False)


# ---- the state machine -----------------------------------------------------------------------------------------------


def on_its_way(kind, method="stop-and-copy"):
    """A migration whose next order is of this kind; each order takes a second."""
    migration, now = Migration("r", 0, 1, Terms(BLOCK), method, now=5.0), 5.0
    while not isinstance(migration.order, kind):
        now += 1.0
        migration.answered(at(9) if isinstance(migration.order, (Look, Stop)) else 0, now)
    return migration, now


def undone(migration, now):
    """The orders that are still given, each answered."""
    kinds = []
    while migration.order is not None:
        kinds.append(type(migration.order))
        migration.answered(None, now)
    return kinds


def test_stages_follow_each_other_and_downtime_is_from_stop_to_adopt():
    migration, now = on_its_way(Release)
    migration.answered(None, now + 7.0)
    assert migration.begun == 5.0 and migration.stages[0].start == 5.0
    assert all(stage.end == after.start for stage, after in pairwise(migration.stages))
    assert [type(stage.order) for stage in migration.stages] == [Look, Reserve, Stop, Grow, Copy, Adopt, Release]
    assert migration.stopped_at == 8.0 and migration.downtime == 3.0 and migration.ended == now + 7.0


def test_who_goes_on_where_it_was_stood_still_until_it_was_resumed():
    migration, now = on_its_way(Copy)
    assert migration.downtime is None
    migration.refused("no", now + 1.0)
    assert isinstance(migration.order, Drop)
    migration.answered(None, now + 2.0)
    migration.answered(None, now + 4.0)
    assert migration.outcome == "aborted" and migration.downtime == now + 4.0 - migration.stopped_at


def test_who_is_cancelled_while_an_order_is_out_goes_no_further():
    migration, now = on_its_way(Stop)
    migration.cancel("first")
    migration.cancel("second")
    migration.answered(at(9), now)
    assert migration.reason == "first" and undone(migration, now) == [Drop, Resume]
    assert migration.outcome == "aborted"


@pytest.mark.parametrize("answer", (True, False))
def test_what_is_being_undone_is_undone_once_and_to_the_end(answer):
    """A side that has given the room up by itself refuses to drop it; the other must hear of it all the same."""
    migration, now = on_its_way(Adopt)
    migration.refused("full", now)
    assert isinstance(migration.order, Drop)
    migration.cancel("too late")
    assert not migration.withdrawn(now)
    migration.answered(None, now) if answer else migration.refused("nothing is reserved", now)
    assert isinstance(migration.order, Resume) and migration.reason == "full"
    migration.answered(None, now)
    assert migration.order is None and migration.outcome == "aborted"


@pytest.mark.parametrize(("side", "left"), (("source", [Drop]), ("destination", [Resume])))
def test_who_dies_while_it_is_undone_is_not_waited_for(side, left):
    migration, now = on_its_way(Adopt)
    migration.refused("full", now)
    migration.lost(side, now)
    assert undone(migration, now) == left and migration.reason == "full"
    migration.lost("source" if side == "destination" else "destination", now + 9.0)
    assert migration.order is None and migration.ended == now, "what is over stays as it was"


def test_a_destination_that_dies_after_the_adoption_does_not_keep_the_source():
    migration, now = on_its_way(Release)
    migration.lost("destination", now)
    assert isinstance(migration.order, Release), "the source must still let go"
    migration.refused("it has ended since", now)
    assert migration.order is None and migration.outcome == "moved"


def test_an_order_has_its_turn_once():
    migration, now = on_its_way(Adopt)
    assert migration.turn == len(migration.stages)
    migration.refused("no", now)
    assert migration.turn == len(migration.stages) + 1
