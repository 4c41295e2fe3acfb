"""The engine on contiguous memory: nothing is lost under any schedule, and jumping is stepping there too."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, SamplingParams, Status, VirtualClock, replay
from llmcourse.engine.invariants import check_delivery
from llmcourse.engine.preemption import Preemption
from llmcourse.executors import MockExecutor, RooflineExecutor
from llmcourse.kv import BlockPool, ContiguousPool
from llmcourse.policies import StaticPriority
from tests.engine.test_forward import NEVER, Cost
from tests.engine.test_forward import worlds as workloads
from tests.engine.worlds import Job, World, run, worlds


@dataclass
class Setting:
    """How a pool of contiguous memory is made; a maximum is given as a share of the pool."""

    reservation: str
    fit: str
    compaction: bool
    share: float

    def pool(self, num_blocks, block_size):
        longest = max(1, int(num_blocks * block_size * self.share)) if self.reservation == "max" else None
        return ContiguousPool(num_blocks, block_size, self.reservation, self.fit, longest, self.compaction)


RESERVATIONS = ["max", "exact", "growing"]
pool_settings = st.builds(Setting, st.sampled_from(RESERVATIONS), st.sampled_from(["first", "best"]), st.booleans(),
                          st.floats(0.2, 1))


@settings(max_examples=150, deadline=None)
@given(worlds(), pool_settings)
def test_nothing_is_lost_repeated_or_changed_on_contiguous_memory(world, setting):
    pool = setting.pool(world.num_blocks, world.block_size)
    world.jobs = [job for job in world.jobs if pool.could_ever_hold(len(job.prompt) + job.max_tokens - 1)]
    world.memory = lambda: pool
    engine = run(world)
    check_delivery(engine)
    assert pool.num_free == world.num_blocks and list(pool.holes()) == [range(world.num_blocks)]
    for number, job in enumerate(world.jobs):
        request = engine.requests[f"j{number}"]
        alone = MockExecutor(world.block_size, vocab_size=8).continue_alone(job.prompt, job.max_tokens, job.ignore_eos)
        assert request.output == (alone[:len(request.output)] if request.status is Status.ABORTED else alone)
    if setting.reservation != "growing":
        assert engine.counters.preemptions == engine.counters.copied_blocks == 0, "whoever is admitted has its room"


JUMPED = {"steps": 0, "of": 0}


@settings(max_examples=100, deadline=None)
@given(workloads(), pool_settings)
def test_jumping_is_stepping_on_contiguous_memory(world, setting):
    def made():
        return Engine(RooflineExecutor(Cost()), setting.pool(world.num_blocks, world.block_size), world.policy(),
                      world.batching, world.token_budget, world.max_running, VirtualClock(), eos_ids=frozenset({0}),
                      checked=True, admission=world.admission())
    one, many = made(), made()
    arrivals = [a for a in world.arrivals if one.pool.could_ever_hold(a.prompt_tokens + a.output_tokens - 1)]
    one.forward = lambda until=NEVER: 0
    jump = many.forward

    def counted(until=NEVER):
        steps = jump(until)
        JUMPED["steps"] += steps
        return steps
    many.forward = counted
    for engine in (one, many):
        replay(engine, arrivals)
    assert list(many.events) == list(one.events)           # every time, token, block number and count of used blocks
    assert many.counters == one.counters and many.clock.now == one.clock.now
    JUMPED["of"] += many.counters.steps


def test_a_move_may_make_room_for_the_first_of_the_waiting():
    """Best fit moves A behind B and leaves a hole of five blocks, just after C had been refused in the same step."""
    admitted = []
    for jumps in (False, True):
        engine = Engine(RooflineExecutor(Cost()), ContiguousPool(10, 5, fit="best"), batching="continuous",
                        clock=VirtualClock(), checked=True)
        for name, prompt, max_tokens in (("X", 10, 1), ("A", 13, 7), ("B", 1, 9), ("C", 25, 1)):
            engine.add(Request([1] * prompt, SamplingParams(max_tokens=max_tokens, ignore_eos=True), id=name))
        while engine.requests["C"].status is Status.WAITING:
            if not (jumps and engine.forward()):
                engine.step()
        assert engine.counters.copied_blocks == 3
        admitted.append(engine.counters.steps)
    assert admitted == [5, 5]


def test_who_comes_back_from_the_host_and_is_moved_in_the_same_step_comes_back_to_its_new_place():
    """Priority 2 makes room for itself by pushing out 3; then 1 grows, and compaction slides everybody together."""
    world = World(10, 2, "mixed", 13, max_running=4, policy=StaticPriority(preemptive=True), pool="compacted",
                  preemption=Preemption("swap", host_blocks=12))
    world.jobs = [Job(step, prompt, 2, True, None, priority=priority) for step, prompt, priority in (
        (2, [6, 2, 6, 5], 1), (1, [3, 7, 3, 3, 2, 4, 5, 5, 7, 5], 2), (1, [3, 4, 2, 3, 4, 1, 2], 3))]
    engine = run(world)
    assert engine.counters.swapped_in_blocks and engine.counters.copied_blocks
    assert [engine.requests[f"j{number}"].output for number in range(3)] == [world.alone(job) for job in world.jobs]


def test_and_it_really_jumped():
    """Runs after the property: where nothing was jumped over nothing was tested."""
    assert JUMPED["steps"] > 0.2 * JUMPED["of"] > 0, JUMPED


def test_a_reservation_of_the_maximum_admits_what_its_share_allows():
    """Sixteen blocks: two reservations of the maximum, but eight requests that take what they use."""
    def most(pool):
        engine = Engine(MockExecutor(4), pool, clock=VirtualClock(), checked=True)
        for _ in range(8):
            engine.add(Request([1, 2, 3], SamplingParams(max_tokens=4, ignore_eos=True)))
        peak = 0
        while not engine.idle:
            engine.step()
            peak = max(peak, len(engine.scheduler.running))
        return peak
    assert most(ContiguousPool(16, 4, "max", max_length=32)) == 2
    assert most(ContiguousPool(16, 4, "exact")) == 8 == most(BlockPool(16, 4))
