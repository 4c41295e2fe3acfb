"""Whatever the policy: nothing is lost, repeated or changed, every step gets on, and everybody ends."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Policy, Request, SamplingParams, Status, VirtualClock
from llmcourse.engine.invariants import check_delivery
from llmcourse.engine.preemption import Preemption
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.executors.roofline import RooflineExecutor
from llmcourse.kv import BlockPool
from llmcourse.policies import POLICIES
from llmcourse.workload import SLO
from tests.engine.worlds import preemptions
from tests.policies.bench import simulate_all
from tests.policies.makers import MAKERS


@dataclass
class Job:
    """One request of a random workload: when it comes (in steps), what it asks, who sends it."""

    step: int
    prompt: list[int]
    max_tokens: int
    ignore_eos: bool
    tenant: str
    priority: int
    predicted: float | None
    ttft: float | None
    abort_after: int | None

    def request(self, name: str) -> Request:
        slo = SLO(ttft=self.ttft) if self.ttft else None
        return Request(self.prompt, SamplingParams(self.max_tokens, ignore_eos=self.ignore_eos), name, None,
                       self.priority, self.tenant, slo, self.predicted)


@dataclass
class World:
    """A random engine and its workload."""

    num_blocks: int
    block_size: int
    batching: str
    token_budget: int
    max_running: int
    maker: int
    preemption: Preemption = field(default_factory=Preemption)
    jobs: list[Job] = field(default_factory=list)


@st.composite
def worlds(draw: st.DrawFn, maker: int | None = None) -> World:
    block_size = draw(st.integers(1, 4))
    num_blocks = draw(st.integers(2, 14))
    budget = draw(st.integers(1, 24))
    world = World(num_blocks, block_size, draw(st.sampled_from(["static", "continuous", "mixed"])), budget,
                  draw(st.integers(1, min(8, budget))),
                  draw(st.integers(0, len(MAKERS) - 1)) if maker is None else maker, draw(preemptions()))
    room = num_blocks * block_size
    for _ in range(draw(st.integers(1, 8))):
        length = draw(st.integers(1, room))
        most = draw(st.integers(1, room - length + 1))
        world.jobs.append(Job(
            draw(st.integers(0, 12)), draw(st.lists(st.integers(1, 7), min_size=length, max_size=length)), most,
            draw(st.booleans()), draw(st.sampled_from(["", "a", "b"])), draw(st.integers(-1, 2)),
            draw(st.one_of(st.none(), st.just(float(most)), st.floats(0, 30))),
            draw(st.one_of(st.none(), st.sampled_from([0.01, 0.1, 1.0]))),
            draw(st.one_of(st.none(), st.none(), st.none(), st.integers(0, 10)))))
    return world


def play(world: World, engine: Engine) -> None:
    """All jobs at their steps; every step of a busy engine must compute something."""
    pending = sorted(enumerate(world.jobs), key=lambda item: item[1].step)
    aborts: list[tuple[int, str]] = []
    step = 0
    while pending or not engine.idle:
        while pending and pending[0][1].step <= step:
            number, job = pending.pop(0)
            engine.add(job.request(f"j{number}"))
            if job.abort_after is not None:
                aborts.append((step + job.abort_after, f"j{number}"))
        for _, name in [abort for abort in aborts if abort[0] == step]:
            if not engine.requests[name].done:
                engine.abort(name)
        busy, before = not engine.idle, engine.counters.computed_tokens
        engine.step()
        assert engine.counters.computed_tokens > before or not busy, "requests were queued and the step did nothing"
        step += 1
        assert step < 4000, "the queue never empties"


@settings(max_examples=1000, deadline=None)
@given(worlds())
def test_nothing_is_lost_repeated_or_changed(world: World) -> None:
    keeps_everything(world)


@pytest.mark.nightly
@pytest.mark.parametrize("maker", range(len(MAKERS)))
def test_each_policy_in_a_thousand_random_worlds(maker: int) -> None:
    """By hand: a thousand for each of them, where the test above draws a thousand for all."""
    @settings(max_examples=1000, deadline=None, database=None)
    @given(worlds(maker))
    def property_of_one(world: World) -> None:
        keeps_everything(world)
        assert list(simulate(world, True).events) == list(simulate(world, False).events)
    property_of_one()


def keeps_everything(world: World) -> None:
    """Invariants 1 to 5 over a whole life of the world."""
    engine = Engine(MockExecutor(world.block_size, vocab_size=8, max_length=1000),
                    BlockPool(world.num_blocks, world.block_size), MAKERS[world.maker](), world.batching,
                    world.token_budget, world.max_running, VirtualClock(), eos_ids=frozenset({0}), checked=True,
                    preemption=world.preemption)
    play(world, engine)
    check_delivery(engine)
    assert engine.pool.num_free == world.num_blocks
    for number, job in enumerate(world.jobs):
        request = engine.requests[f"j{number}"]
        alone = MockExecutor(world.block_size, vocab_size=8).continue_alone(job.prompt, job.max_tokens, job.ignore_eos)
        assert request.output == (alone[:request.num_output] if request.status is Status.ABORTED else alone)


class Linear:
    """A cost that grows with everything, in numbers that add up exactly."""

    def seconds(self, tokens, requests, context, pairs):  # type: ignore[no-untyped-def]
        return 0.0078125 + 0.0009765625 * tokens + 0.00006103515625 * context


def simulate(world: World, jump: bool) -> Engine:
    """The workload in virtual time: job ``n`` arrives at its step times 20 ms, whether the engine jumps or not."""
    engine = Engine(RooflineExecutor(Linear()), BlockPool(world.num_blocks, world.block_size), MAKERS[world.maker](),
                    world.batching, world.token_budget, world.max_running, VirtualClock(), checked=True,
                    preemption=world.preemption)
    later = [(job.step * 0.02, job.request(f"j{number}")) for number, job in enumerate(world.jobs)]
    return simulate_all(engine, later, jump)


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_jumping_over_equal_steps_changes_no_decision(world: World) -> None:
    jumped, stepped = simulate(world, True), simulate(world, False)
    assert list(jumped.events) == list(stepped.events)
    assert jumped.counters == stepped.counters


def test_the_registry_makes_every_policy_and_says_what_there_is() -> None:
    for name, make in POLICIES.items():
        assert isinstance(make(), Policy), name
    assert POLICIES["round-robin"](quantum=3).quantum == 3  # type: ignore[attr-defined]
    assert "lottery" not in POLICIES
    with pytest.raises(UserError, match=r"no policy 'lottery'; there are fcfs, round-robin"):
        POLICIES["lottery"]
