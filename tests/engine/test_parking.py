"""Parking: a seat is taken and the KV stays; when room is short, parked KV goes, to host memory or for good."""

import pytest

from llmcourse.engine import Engine, Request, SamplingParams, Status, VirtualClock, departing, replay
from llmcourse.engine.batch import Batch, StepResult
from llmcourse.engine.events import EventKind
from llmcourse.engine.invariants import check_delivery
from llmcourse.engine.parking import evict
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


class Hears(SRTF):
    """Writes down who has given way."""

    def __init__(self) -> None:
        super().__init__()
        self.gave_way: list[str] = []

    def on_preempted(self, request: Request, now: float) -> None:
        self.gave_way.append(request.id)
        super().on_preempted(request, now)


def parked(preemption: Preemption, num_blocks: int = 20) -> Engine:
    """A long request of 13 tokens, 12 of them computed in 3 blocks, is parked for a short one of 8."""
    served = engine(preemption, num_blocks, policy=Hears())
    served.executor = Watched(4)
    served.add(Request([1] * 8, SamplingParams(20, ignore_eos=True), "long", predicted=20))
    for _ in range(5):
        served.step()
    served.add(Request([2] * 8, SamplingParams(7, ignore_eos=True), "short", predicted=7))
    served.step()
    return served


class Watched(MockExecutor):
    """Keeps the batches."""

    def __init__(self, block_size: int) -> None:
        super().__init__(block_size)
        self.batches: list[Batch] = []

    def execute(self, batch: Batch) -> StepResult:
        self.batches.append(batch)
        return super().execute(batch)


def test_who_is_parked_has_given_way_once() -> None:
    served = parked(Preemption(parking=True))
    assert served.requests["long"].status is Status.PARKED and served.requests["long"].preemptions == 1
    policy = served.scheduler.policy
    assert isinstance(policy, Hears) and policy.gave_way == ["long"] and served.counters.preemptions == 1
    backlog = served.scheduler.backlog
    assert backlog == 1 + 1, "a token of each is still to be computed"
    evict(served.scheduler, served.requests["long"], served.clock.now)
    assert policy.gave_way == ["long"] and served.scheduler.backlog == 13 + 1 and served.counters.preemptions == 1
    list(served.stream())
    assert served.counters.recomputed_tokens == 12


def test_who_is_looked_at_keeps_parked_kv_and_who_stops_without_it_gives_it_up() -> None:
    served = parked(Preemption(parking=True))
    before = departing.look(served, "long")
    assert before.computed > 0 and before.status is Status.PARKED and served.pool.table("long")
    after = departing.stop(served, "long", keep=False)
    assert after.computed == 0 and after.num_tokens == before.num_tokens
    assert not served.pool.table("long") and not served.scheduler.parked
    served.check_invariants()
    served = parked(Preemption(parking=True))
    stopped = departing.stop(served, "long")
    assert stopped.computed == 12 and len(served.pool.table("long")) == 3 and not served.scheduler.running[1:]
    departing.resume(served, "long")
    list(served.stream())
    check_delivery(served)


def test_of_two_parked_the_last_in_order_loses_its_blocks() -> None:
    served = engine(Preemption(parking=True), num_blocks=9)
    for name, length in (("c", 20), ("b", 12), ("a", 6)):         # each shorter than who runs: 3, 3 and 2 blocks
        served.add(Request([ord(name) % 32] * 8, SamplingParams(length, ignore_eos=True), name, predicted=length))
        for _ in range(3):
            served.step()
    assert [request.id for request in served.scheduler.parked] == ["c", "b"]
    served.add(Request([5] * 7, SamplingParams(2, ignore_eos=True), "d", predicted=2))
    served.step()
    lost = [event.request for event in served.events if event.kind is EventKind.EVICTED]
    assert lost == ["c"] and list(served.scheduler.parked) == [served.requests["b"], served.requests["a"]]
    list(served.stream())
    check_delivery(served)


def test_kv_goes_and_comes_ahead_of_time_and_spare_blocks_stay_free() -> None:
    served = parked(Preemption("swap", 16, parking=True, spare=6), num_blocks=12)
    batches, free = served.executor.batches, []               # type: ignore[attr-defined]
    while served.counters.swapped_out_blocks == 0:
        free.append(served.pool.num_free)
        served.step()
    assert free == [7, 6, 6, 6, 6], "3 blocks parked and 2 or 3 in use: 6 of 12 are free until a fourth is needed"
    assert batches[-1].behind == len(batches[-1].swap_out) == 3 and served.pool.num_free == 8
    assert served.requests["long"].status is Status.SWAPPED
    served.add(Request([3] * 8, SamplingParams(1, ignore_eos=True), "next", predicted=1))
    served.step()                                             # the last of the short one: 4 blocks and 6 are too many
    assert served.requests["short"].done and batches[-1].behind == 0 and not batches[-1].swap_in
    served.step()                                             # 2 blocks in use, 4 for the long one, and 6 are spare
    assert batches[-1].behind == len(batches[-1].swap_in) == 3 and served.requests["long"].status is Status.PARKED
    list(served.stream())
    check_delivery(served)
    assert served.counters.recomputed_tokens == 0 and served.counters.swapped_in_blocks == 3
    assert sum(batch.behind for batch in batches) == 6


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


def test_few_who_are_brought_back_ahead_of_their_turn_go_again_before_it() -> None:
    """It happens, as `look_ahead` says: about one block in seven goes again within two steps, without having run."""
    served = Engine.simulated("Llama 2 7B", "A10", num_blocks=160, max_running=8, policy=FastServe(),
                              preemption="swap", host_blocks=2000, parking=True, spare=10)
    executor, came_at, came, back = served.executor, dict[int, int](), 0, 0
    execute = executor.execute

    def watched(batch: Batch) -> StepResult:
        nonlocal came, back
        step = served.counters.steps
        back += sum(step - came_at.pop(block, -9) <= 2 for block, _ in batch.swap_out)
        running = {block for item in batch.items for block in item.block_table}
        for block in running:
            came_at.pop(block, None)
        ahead = [block for _, block in batch.swap_in if block not in running]
        came_at.update(dict.fromkeys(ahead, step))
        came += len(ahead)
        return execute(batch)

    executor.execute = watched                                # type: ignore[method-assign]
    replay(served, open_loop(Poisson(3), Lognormal.of_moments(200, 200), Lognormal.of_moments(150, 200), 150, seed=1))
    moved = served.counters.swapped_out_blocks + served.counters.swapped_in_blocks
    assert came > 300 and 0 < back < came / 3
    assert back < 0.02 * moved, "of all that is moved that is next to nothing"


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


@pytest.mark.parametrize("batching", ("continuous", "mixed"))
def test_alone_at_the_end_of_contiguous_memory_it_begins_elsewhere(batching: str) -> None:
    served = Engine(MockExecutor(5), ContiguousPool(6, 5, reservation="growing"), RoundRobin(1), batching,
                    max_running=1, clock=VirtualClock(), checked=True, preemption=Preemption(parking=True))
    for prompt, length in (([1] * 4, 13), ([1] * 2, 11), *[([1], 1)] * 5, ([1], 9)):
        served.add(Request(prompt, SamplingParams(length, ignore_eos=True)))
    for _ in range(400):
        served.step()
    assert [request.num_output for request in served.requests.values()] == [13, 11, 1, 1, 1, 1, 1, 9]
    check_delivery(served)
