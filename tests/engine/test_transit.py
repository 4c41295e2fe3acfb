"""The verbs of a move, on two engines by hand: what each side keeps, frees, counts and says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.engine import Engine, Policy, Request, SamplingParams, Status, VirtualClock, arriving, departing
from llmcourse.engine.events import EventKind
from llmcourse.engine.preemption import Preemption
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Refused, give_up_guest
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, ContiguousPool, PrefixPool
from llmcourse.policies import SRTF
from llmcourse.workload import SLO


class Told(Policy):
    """First come, first served; writes down whom it hears of."""

    def __init__(self):
        self.heard = []

    def on_queued(self, request, now):
        self.heard.append(("queued", request.id))

    def on_scheduled(self, request, now):
        self.heard.append(("scheduled", request.id))

    def on_done(self, request, now):
        self.heard.append(("done", request.id))


def engine(num_blocks=24, pool=BlockPool, policy=None, **options):
    options = {"max_running": 4, "token_budget": 16} | options
    return Engine(MockExecutor(4), pool(num_blocks, 4), policy or Told(), clock=VirtualClock(), checked=True, **options)


def running(name, prompt=6, steps=1, max_tokens=30, on=None, **options):
    """An engine and a request of its own that has had so many tokens."""
    here = on or engine(**options)
    request = here.add(Request(list(range(1, prompt + 1)), SamplingParams(max_tokens, ignore_eos=True), name))
    while request.num_output < steps:
        here.step()
    return here, request


def move(name, here, there, compute=False):
    """Stop-and-copy, or by its tokens; returns the last snapshot."""
    first = arriving.reserve(there, departing.look(here, name), compute)
    if compute:
        while not arriving.caught_up(there, name):
            there.step()
    snapshot = departing.stop(here, name)
    arriving.grow(there, snapshot)
    last = -(-snapshot.computed // 4)
    if not compute and first < last:
        arriving.write(there, name, first, last, departing.read(here, name, first, last))
    arriving.adopt(there, snapshot)
    departing.release(here, name)
    return snapshot


def served(*engines):
    """Serve all to the end; every request has the tokens it has when it runs alone."""
    for each in engines:
        list(each.stream())
        each.check_invariants()
        assert each.pool.num_used == 0
        for request in each.requests.values():
            assert request.output == MockExecutor(4).continue_alone(request.prompt, request.sampling.max_tokens, True)


# ---- room ------------------------------------------------------------------------------------------------------------


def test_a_guest_takes_a_seat_and_no_more_blocks_than_its_kv_fills():
    here, request = running("x", prompt=8)
    snapshot = departing.look(here, "x")
    assert (snapshot.computed, snapshot.num_tokens, snapshot.room) == (8, 9, 8) and snapshot.decoding
    there = engine(max_running=1)
    assert arriving.reserve(there, snapshot) == 0 and there.pool.num_used == 2
    with pytest.raises(Refused, match="all 1 seats"):
        arriving.reserve(there, departing.look(running("y")[0], "y"))
    with pytest.raises(Refused, match="already"):
        arriving.reserve(there, snapshot)
    waits = there.add(Request([1, 2], SamplingParams(2, ignore_eos=True), "w"))
    there.step()
    assert waits.num_output == 0, "the seat is kept"
    arriving.drop(there, "x")
    served(there)
    assert request.status is Status.RUNNING and waits.done


def test_a_table_grows_only_when_a_token_needs_it():
    here, _ = running("x", prompt=8)
    there = engine()
    move("x", here, there)
    assert len(there.pool.table("x")) == 2 and there.requests["x"].pending == 1, "8 of 9 tokens are computed"
    served(here, there)


def test_whose_kv_is_computed_here_gets_no_block_for_its_last_token():
    here, there = running("x", prompt=7)[0], engine()
    assert arriving.reserve(there, departing.look(here, "x"), compute=True) == 0 and len(there.pool.table("x")) == 2
    here.step()
    arriving.grow(there, departing.look(here, "x"))
    assert len(there.pool.table("x")) == 2, "9 tokens, and the last is computed when it has come"
    here.step()
    arriving.grow(there, departing.look(here, "x"))
    assert len(there.pool.table("x")) == 3


def test_who_has_nothing_computed_has_room_kept_all_the_same():
    here, there = engine(), engine()
    here.add(Request([1], SamplingParams(2, ignore_eos=True), "x"))
    arriving.reserve(there, departing.look(here, "x"))
    assert len(there.pool.table("x")) == 1
    arriving.drop(there, "x")
    assert there.pool.num_used == 0
    served(here, there)


def test_blocks_of_one_who_has_stopped_are_what_others_wait_for_if_it_ran_or_was_parked():
    def holds(before):
        here = engine(40, policy=SRTF(), max_running=1, preemption=Preemption(parking=True))
        for name, length in (("long", 20), ("short", 5)):
            here.add(Request([1, 2, 3], SamplingParams(length, ignore_eos=True), name, predicted=length))
            here.step(), here.step()
        here.add(Request([1, 2], SamplingParams(30, ignore_eos=True), "last", predicted=30))
        name = next(name for name, request in here.requests.items() if request.status is before)
        departing.stop(here, name)
        return here.scheduler.transit.holds_blocks

    assert [holds(status) for status in (Status.RUNNING, Status.PARKED, Status.WAITING)] == [True, True, False]


def test_one_who_has_stopped_keeps_its_seat_only_if_it_had_one():
    here, request = running("x", max_running=2)
    here.add(Request([1, 2], SamplingParams(9, ignore_eos=True), "a"))
    late = here.add(Request([1, 2, 3], SamplingParams(9, ignore_eos=True), "b"))
    here.step()
    assert late.status is Status.WAITING
    departing.stop(here, "b")
    assert here.scheduler.transit.num_seats == 0
    departing.stop(here, "x")
    assert here.scheduler.transit.num_seats == 1
    with pytest.raises(Refused, match="all 2 seats"):
        arriving.reserve(here, departing.look(running("z")[0], "z"))
    with pytest.raises(Refused, match="stopped already"):
        departing.stop(here, "x")
    for name in "xb":
        departing.resume(here, name)
    assert here.scheduler.running[0] is request, "it takes its place by arrival again"
    served(here)


def test_who_lives_here_takes_the_room_that_was_kept_last():
    there = engine(num_blocks=12)
    for name in "xy":
        arriving.reserve(there, departing.look(running(name)[0], name))
    assert give_up_guest(there.scheduler, 0.0) and list(there.scheduler.transit.guests) == ["x"]
    assert give_up_guest(there.scheduler, 0.0) and not give_up_guest(there.scheduler, 0.0)
    assert there.pool.num_used == 0


def test_contiguous_memory_takes_nobody():
    there = Engine(MockExecutor(4), ContiguousPool(16, 4), clock=VirtualClock(), max_running=4,
                   token_budget=16)
    with pytest.raises(Refused, match="block by block"):
        arriving.reserve(there, departing.look(running("x")[0], "x"))


def test_only_what_is_computed_is_read_and_only_what_is_reserved_is_written():
    here, _ = running("x", prompt=8)                          # two blocks; the next token opens a third
    here.pool.reserve("x", 9)
    with pytest.raises(Refused, match="not all computed"):
        departing.read(here, "x", 0, 3)
    assert here.counters.sent_blocks == 0
    payload, there = departing.read(here, "x", 0, 2), engine()
    arriving.reserve(there, departing.look(here, "x"))
    with pytest.raises(Refused, match="only 2 are reserved"):
        arriving.write(there, "x", 1, 3, payload)
    arriving.write(there, "x", 0, 2, payload)
    assert here.counters.sent_blocks == there.counters.received_blocks == 2
    arriving.write(there, "x", 1, 2, departing.read(here, "x", 1, 2))
    assert here.counters.sent_blocks == there.counters.received_blocks == 3


# ---- what a policy hears, and the counters tell ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ("copy", "tokens", "recompute"))
def test_each_policy_hears_of_a_request_once(how):
    here, there = running("x", steps=3)[0], engine()
    if how == "recompute":
        snapshot = departing.stop(here, "x", keep=False)
        assert snapshot.computed == 0 and snapshot.status is Status.PREEMPTED
        arriving.adopt(there, snapshot)
        assert there.requests["x"].status is Status.PREEMPTED, "it has begun before, though not here"
        departing.release(here, "x")
    else:
        snapshot = move("x", here, there, compute=how == "tokens")
    assert here.scheduler.policy.heard == [("queued", "x"), ("scheduled", "x"), ("done", "x")]
    computed = there.counters.computed_tokens
    served(here, there)
    assert there.scheduler.policy.heard == [("queued", "x"), ("scheduled", "x"), ("done", "x")]
    known = snapshot.num_tokens
    assert there.counters.recomputed_tokens == (known - 1 if how == "recompute" else 0)
    assert computed == (known - 1 if how == "tokens" else 0)


def test_a_policy_hears_that_a_guest_it_computes_for_does_not_come():
    there, told = engine(), [("queued", "x"), ("scheduled", "x"), ("done", "x")]
    arriving.reserve(there, departing.look(running("x")[0], "x"), compute=True)
    assert not there.idle
    arriving.drop(there, "x")
    assert there.scheduler.policy.heard == told and there.idle
    arriving.reserve(there, departing.look(running("y")[0], "y"))
    assert there.idle, "for a guest whose KV is sent there is nothing to do"
    arriving.drop(there, "y")
    assert there.scheduler.policy.heard == told and not there.scheduler.transit.preparing


def test_a_guest_has_caught_up_when_only_its_last_token_is_missing():
    here, there = running("x", prompt=20)[0], engine()
    arriving.reserve(there, departing.look(here, "x"), compute=True)
    seen = []
    while not arriving.caught_up(there, "x"):
        there.step()
        seen.append(there.scheduler.transit.guests["x"].computed)
    assert seen == [16, 20] and there.idle
    here.step()
    arriving.grow(there, departing.look(here, "x"))
    assert not arriving.caught_up(there, "x") and not there.idle
    there.step()
    assert arriving.caught_up(there, "x") and there.counters.computed_tokens == 21


def test_who_is_not_ready_when_it_comes_goes_on_from_what_was_computed():
    here, there = running("x", prompt=20, steps=4)[0], engine()
    arriving.reserve(there, departing.look(here, "x"), compute=True)
    there.step()
    snapshot = departing.stop(here, "x")
    arriving.adopt(there, snapshot)
    departing.release(here, "x")
    assert there.requests["x"].computed == 16 and there.scheduler.backlog == 24 - 16
    served(here, there)


def test_who_has_stopped_is_no_backlog_until_it_goes_on():
    here, request = running("x")
    half = here.add(Request([1] * 40, SamplingParams(4, ignore_eos=True), "h"))
    here.step()
    assert half.pending == 25 and here.scheduler.backlog == 26
    departing.stop(here, "h")
    assert here.scheduler.backlog == 1
    departing.resume(here, "h")
    assert here.scheduler.backlog == 26 and here.scheduler.running == [request, half]
    served(here)


# ---- caches ----------------------------------------------------------------------------------------------------------


def test_kv_that_has_come_can_be_found_here():
    here, there = running("x", prompt=12, pool=PrefixPool)[0], engine(pool=PrefixPool)
    move("x", here, there)
    running("other", prompt=12, on=there)
    assert there.counters.hit_tokens == 8, "the last token of a prompt is always computed"
    served(here, there)


def test_of_cache_and_source_the_one_that_has_more_counts():
    here, there = engine(pool=PrefixPool, token_budget=8), running("warm", prompt=21, pool=PrefixPool)[0]
    here.add(Request(list(range(1, 22)), SamplingParams(5, ignore_eos=True), "x"))
    here.step()
    snapshot = departing.look(here, "x")
    assert snapshot.computed == 8 and not snapshot.decoding and snapshot.room == 21
    assert move("x", here, there).computed == 8
    assert there.requests["x"].computed == 20, "the cache knew more than the source"
    served(here, there)


# ---- the log and the snapshot ----------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 9), st.booleans())
def test_the_log_alone_tells_who_has_which_blocks(prompt, steps, more, compute):
    here, there = running("x", prompt, steps)[0], engine()
    arriving.reserve(there, departing.look(here, "x"), compute)
    for _ in range(more):
        here.step()
    arriving.grow(there, departing.look(here, "x"))
    kept = [event.data["blocks"] for event in there.events if event.data.get("stage") == "reserved"]
    gained = [block for blocks in kept for block in blocks]
    assert gained == list(there.pool.table("x")) and len(set(gained)) == len(gained)
    assert all(kept), "no event says that nothing was gained"
    departing.stop(here, "x")
    departing.resume(here, "x")
    departing.stop(here, "x")
    arriving.drop(there, "x")
    table = list(here.pool.table("x"))
    departing.release(here, "x")

    def stages(engine):
        return [event.data["stage"] for event in engine.events if event.kind is EventKind.MIGRATION]

    assert stages(here) == ["stopped", "resumed", "stopped", "released"] and stages(there)[-1] == "dropped"
    assert sorted(here.events[-1].data["blocks"]) == sorted(table) and sorted(there.events[-1].data["blocks"]) == gained
    assert here.pool.num_used == there.pool.num_used == 0


def test_everything_about_a_request_travels_but_its_kv():
    request = Request([1, 2, 3], SamplingParams(9, temperature=0.5, seed=7), "x", 2.5, 3, "me", SLO(ttft=1.0), 40.0)
    request.tokens += [4, 5]
    request.preemptions, request.computed = 2, 4
    snapshot = Snapshot.of(request)
    assert snapshot.tokens == (1, 2, 3, 4, 5) and snapshot.output == (4, 5)
    again = snapshot.to_request()
    for name in ("prompt", "sampling", "id", "arrival", "priority", "tenant", "slo", "predicted", "tokens",
                 "preemptions", "longest"):
        mine, its = getattr(request, name), getattr(again, name)
        assert its == (tuple(mine) if name == "prompt" else mine), name
    assert again.computed == 0 and not again.siblings
    assert snapshot.without_kv().status is Status.PREEMPTED and snapshot.without_kv().computed == 0
    assert Snapshot.of(Request([1], arrival=0.0, id="new")).without_kv().status is Status.WAITING


def test_one_of_several_answers_goes_on_alone():
    here = engine()
    here.add(Request([1, 2, 3], SamplingParams(9, ignore_eos=True, n=3), "x"))
    assert {snapshot.sampling.n for snapshot in map(Snapshot.of, here.requests.values())} == {1}
    with pytest.raises(Refused, match="2 others"):
        departing.look(here, "x")


def test_who_has_been_preempted_says_so_wherever_it_goes():
    here, request = running("x")
    here.scheduler.preempt(request, here.clock.now)
    here.step()
    there = engine()
    move("x", here, there)
    assert there.requests["x"].preemptions == 1
    served(here, there)
