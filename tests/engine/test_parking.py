"""Parking: a seat is taken and the KV stays; when room is short, parked KV goes, to host memory or for good."""

import pytest

from llmcourse.engine import Engine, Request, SamplingParams, Status, VirtualClock, replay
from llmcourse.engine.events import EventKind
from llmcourse.engine.invariants import check_delivery
from llmcourse.engine.preemption import Preemption
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, ContiguousPool
from llmcourse.policies import FCFS, SRTF, FastServe, RoundRobin
from llmcourse.workload import Lognormal, Poisson, open_loop


def engine(preemption: Preemption, num_blocks: int = 20, max_running: int = 1, policy=None) -> Engine:
    return Engine(MockExecutor(4), BlockPool(num_blocks, 4), policy or SRTF(), max_running=max_running,
                  clock=VirtualClock(), checked=True, preemption=preemption)


def two_jobs(preemption: Preemption, num_blocks: int = 20) -> Engine:
    """A long request decodes when a short one comes and takes the only seat."""
    served = engine(preemption, num_blocks)
    served.add(Request([1] * 8, SamplingParams(20, ignore_eos=True), "long", predicted=20))
    for _ in range(5):
        served.step()
    served.add(Request([2] * 8, SamplingParams(3, ignore_eos=True), "short", predicted=3))
    list(served.stream())
    check_delivery(served)
    for request in served.requests.values():
        length = request.sampling.max_tokens
        assert request.output == MockExecutor(4).continue_alone(request.prompt, length, ignore_eos=True)
    done = [event.request for event in served.events if event.kind is EventKind.FINISHED]
    assert done == ["short", "long"]
    return served


def test_with_room_for_both_nothing_is_computed_twice_and_nothing_moves() -> None:
    lost, parked = two_jobs(Preemption()).counters, two_jobs(Preemption(parking=True)).counters
    assert lost.recomputed_tokens == 12 and not lost.parked
    assert parked.preemptions == parked.parked == 1 and parked.recomputed_tokens == 0
    assert parked.computed_tokens == lost.computed_tokens - 12


def test_the_log_says_that_the_blocks_stayed() -> None:
    served = two_jobs(Preemption(parking=True))
    [gave_way] = [event for event in served.events if event.kind is EventKind.PREEMPTED]
    back = [event for event in served.events if event.kind is EventKind.SCHEDULED][-1]
    assert gave_way.data["parked"] and not gave_way.data["freed"]
    assert gave_way.data["saved"] == back.data["computed"] == 12
    assert not back.data["restored"] and not [event for event in served.events if event.kind is EventKind.EVICTED]


def test_without_room_the_parked_one_is_evicted_and_computed_again() -> None:
    served = two_jobs(Preemption(parking=True), num_blocks=7)     # 28 slots: 3 blocks stay taken, and 3 are needed
    assert not [event for event in served.events if event.kind is EventKind.EVICTED]
    tight = Engine(MockExecutor(4), BlockPool(7, 4), SRTF(), max_running=1, clock=VirtualClock(), checked=True,
                   preemption=Preemption("swap", 8, parking=True))
    tight.add(Request([1] * 8, SamplingParams(20, ignore_eos=True), "long", predicted=20))
    for _ in range(5):
        tight.step()
    tight.add(Request([2] * 15, SamplingParams(3, ignore_eos=True), "short", predicted=3))
    list(tight.stream())
    [evicted] = [event for event in tight.events if event.kind is EventKind.EVICTED]
    assert evicted.request == "long" and len(evicted.data["freed"]) == 3 and evicted.data["saved"] == 12
    assert tight.counters.recomputed_tokens == 0 and tight.counters.swapped_in_blocks == 3
    assert tight.records()[0].preemptions == 1, "parked and then evicted: it gave way once"


def test_a_parked_request_that_is_given_up_leaves_nothing() -> None:
    served = engine(Preemption(parking=True), policy=RoundRobin(2))
    for name in "ab":
        served.add(Request([ord(name) % 32] * 8, SamplingParams(9, ignore_eos=True), name))
    while served.requests["a"].status is not Status.PARKED:
        served.step()
    served.abort("a")
    served.check_invariants()
    assert not served.scheduler.parked and not served.pool.table("a")
    list(served.stream())
    assert served.pool.num_used == 0


@pytest.mark.parametrize("spare", (0, 40))
def test_spare_blocks_are_kept_free_while_steps_compute(spare: int) -> None:
    served = Engine.simulated("Llama 2 7B", "A10", num_blocks=160, max_running=8, policy=FastServe(starve_after=None),
                              preemption="swap", host_blocks=2000, parking=True, spare=spare)
    load = open_loop(Poisson(5), Lognormal.of_moments(200, 200), Lognormal.of_moments(150, 200), 60, seed=1)
    replay(served, load)
    counters, events = served.counters, served.events
    ahead = sum(event.kind is EventKind.EVICTED for event in events)
    assert counters.parked > 50 and ahead > 10 and counters.swapped_in_blocks > 0
    assert all(request.done for request in served.requests.values())
    if spare:
        assert counters.recomputed_tokens == 0


def test_in_contiguous_memory_nobody_is_brought_back_into_a_hole_that_is_too_small() -> None:
    memory = ContiguousPool(8, 3, reservation="growing", fit="best")
    served = Engine(MockExecutor(3), memory, FCFS(), "static", max_running=2, clock=VirtualClock(), checked=True,
                    preemption=Preemption("swap", 3, parking=True, spare=1))
    for prompt, length in (([1, 1], 7), ([1, 1, 1, 1, 2], 6)):
        served.add(Request(prompt, SamplingParams(length, ignore_eos=True)))
    list(served.stream())
    assert [request.num_output for request in served.requests.values()] == [7, 6]
    assert served.counters.swapped_out_blocks == served.counters.swapped_in_blocks > 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="40 spare blocks"):
        Preemption("recompute", parking=True, spare=40)
    with pytest.raises(UserError, match="40 spare blocks"):
        Preemption("swap", 10, spare=40)
