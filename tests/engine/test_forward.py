"""Fast-forward leaves everything exactly where stepping one by one would have, and a ledger says what the log says."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Admission, Engine, Policy, Request, SamplingParams, VirtualClock, replay
from llmcourse.engine.policy import FOREVER
from llmcourse.engine.preemption import Preemption
from llmcourse.executors import RooflineExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.table import COLUMNS, Table
from llmcourse.workload import Arrival
from tests.engine.worlds import POOLS, preemptions

NEVER = math.inf


class Cost:
    """An awkward cost model: step times that no binary fraction holds, one branch on the token count."""

    def seconds(self, tokens, requests, context, pairs):
        return 0.1 + max(0.01 * tokens, 0.07) + 0.003 * pairs + 0.0007 * context + 0.001 * requests


class LastComeFirst(Policy):
    def key(self, request, now):
        return -(request.arrival or 0)


class LongestPrompt(Policy):
    preemptive = True

    def key(self, request, now):
        return -len(request.prompt)


class MostProgress(Policy):
    """Keys that change with every token, so it may not be jumped over while anybody waits."""

    static = False
    preemptive = True

    def key(self, request, now):
        return -(request.num_output // 3)


class Impatient(Admission):
    """Sends away whoever has waited for 2 s: a decision that the clock alone can bring about."""

    def drop(self, request, scheduler, now):
        return "too late" if now - request.arrival > 2.0 and not request.num_output else None


@dataclass
class World:
    num_blocks: int
    block_size: int
    batching: str
    token_budget: int
    max_running: int
    policy: type[Policy]
    arrivals: list[Arrival]
    declared: int | None
    admission: type[Admission] = Admission
    pool: str = "paged"
    preemption: Preemption = field(default_factory=Preemption)

    def engine(self, ledger=None):
        return Engine(RooflineExecutor(Cost(), block_seconds=0.013), POOLS[self.pool](self.num_blocks, self.block_size),
                      self.policy(), self.batching, self.token_budget, self.max_running, VirtualClock(),
                      eos_ids=frozenset({0}), checked=True, ledger=ledger, admission=self.admission(),
                      preemption=self.preemption)


@st.composite
def worlds(draw):
    block_size = draw(st.integers(1, 5))
    num_blocks = draw(st.integers(4, 24))
    room = num_blocks * block_size
    budget = draw(st.integers(1, 16))
    arrivals, time = [], 0.0
    for _ in range(draw(st.integers(1, 7))):
        time += draw(st.sampled_from([0.0, 0.0, 0.05, 0.4, 1.7, 30.0]))
        prompt = draw(st.integers(1, room - 1))
        arrivals.append(Arrival(time, prompt, draw(st.integers(1, min(60, room - prompt + 1))),
                                prefix=draw(st.sampled_from([(), (1,)]))))
    longest = max(a.output_tokens for a in arrivals)
    fits = all(a.prompt_tokens + longest - 1 <= room for a in arrivals)
    return World(num_blocks, block_size, draw(st.sampled_from(["static", "continuous", "mixed"])), budget,
                 draw(st.integers(1, min(6, budget))),
                 draw(st.sampled_from([Policy, LastComeFirst, LongestPrompt, MostProgress])), arrivals,
                 longest if fits and draw(st.booleans()) else None,
                 draw(st.sampled_from([Admission, Admission, Impatient])), draw(st.sampled_from(list(POOLS))),
                 draw(preemptions()))


def stepped(world):
    engine = world.engine()
    engine.forward = lambda until=NEVER: 0
    replay(engine, world.arrivals, declared=world.declared)
    return engine


JUMPED = {"steps": 0, "of": 0}


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_jumping_is_stepping(world):
    one, many = stepped(world), world.engine()
    jump, jumped = many.forward, 0

    def counted(until=NEVER):
        nonlocal jumped
        steps = jump(until)
        jumped += steps
        return steps
    many.forward = counted
    replay(many, world.arrivals, declared=world.declared)
    assert list(many.events) == list(one.events)                       # every time, token and block number, bit for bit
    assert many.counters == one.counters
    assert many.clock.now == one.clock.now
    assert many.scheduler.backlog == 0
    JUMPED["steps"] += jumped
    JUMPED["of"] += many.counters.steps


def test_and_it_really_jumped():
    """Runs after the property: where nothing was jumped over nothing was tested."""
    assert JUMPED["steps"] > 0.2 * JUMPED["of"] > 0, JUMPED


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_a_ledger_says_what_the_log_says(world):
    logged, kept = stepped(world), world.engine(Ledger())
    table = replay(kept, world.arrivals, declared=world.declared)
    expected = Table.of(logged.records())
    for name in COLUMNS:
        assert np.array_equal(table[name], expected[name], equal_nan=expected[name].dtype.kind == "f"), name
    assert sorted(np.repeat(table.gap_seconds, table.gap_counts)) == sorted(expected.gap_seconds)
    assert kept.requests == {} and kept.counters == logged.counters


def test_a_stretch_of_decodes_is_taken_at_once_and_only_that():
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB")
    engine.add(Request(range(1, 101), SamplingParams(max_tokens=500, ignore_eos=True)))
    assert engine.forward() == 0                                       # nobody runs yet
    engine.step()
    assert sum(iter(engine.forward, 0)) == 499                         # the first token came by a step
    assert engine.idle and engine.counters.steps == 500


@pytest.mark.parametrize("batching", ["static", "mixed"])
def test_a_closed_batch_is_jumped_over_though_others_wait_whose_keys_change(batching):
    """And so is any batch while the first of the waiting is held."""
    class Changing(Policy):
        static = False

        def steady_steps(self, running, waiting):
            return FOREVER

    class Closed(Admission):
        def hold(self, request, scheduler, now):
            return bool(scheduler.running)

    engine = Engine.simulated(policy=Changing(), batching=batching, max_running=2,
                              admission=Closed() if batching == "mixed" else None)
    for output in (100, 300, 50, 60):
        engine.add(Request([1] * 10, SamplingParams(output, ignore_eos=True)))
    turns = 0
    while not engine.idle:
        engine.step()
        engine.forward()
        turns += 1
    assert engine.counters.steps > 350 and turns < 12


def test_a_long_prompt_is_taken_chunk_by_chunk_at_once():
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", token_budget=512)
    engine.add(Request(range(1, 5001), SamplingParams(max_tokens=1, ignore_eos=True)))
    engine.step()
    assert engine.forward() == 8
    engine.step()
    assert engine.idle and engine.counters.steps == 10


def test_nothing_is_jumped_over_an_arrival():
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB")
    engine.add(Request(range(1, 101), SamplingParams(max_tokens=500, ignore_eos=True)))
    engine.step()
    until = engine.clock.now + 1.0
    engine.forward(until)
    last = [event for event in engine.events if event.kind == "STEP"][-1]
    assert last.data["start"] < until <= last.time


def test_a_mock_has_no_foresight():
    from llmcourse.executors import MockExecutor
    engine = Engine(MockExecutor(4), BlockPool(8, 4), clock=VirtualClock())
    engine.add(Request([1, 2], SamplingParams(max_tokens=9)))
    engine.step()
    assert engine.forward() == 0


@pytest.mark.parametrize("until", [0.5, 7.0, 13.37, NEVER])
def test_long_stretches_are_worked_out_as_arrays_and_come_out_the_same(until):
    """More steps than are taken singly, and more than are taken at once; two of the requests end on the way."""
    engines = [Engine(RooflineExecutor(Cost()), BlockPool(4000, 4), clock=VirtualClock()) for _ in range(2)]
    for engine in engines:
        for number in range(4):
            engine.add(Request([1] * (5 + number), SamplingParams(max_tokens=400 * number + 100, ignore_eos=True)))
    one, many = engines
    while not one.idle and one.clock.now < until:
        one.step()
    while not many.idle and many.clock.now < until:
        if not many.forward(until):
            many.step()
    assert list(many.events) == list(one.events) and many.clock.now == one.clock.now


@pytest.mark.parametrize("step", [3, 40])
def test_a_step_does_not_start_at_the_very_moment_of_an_arrival(step):
    """Neither of the first steps nor of those worked out as an array: whoever arrives then is in it."""
    def engine():
        made = Engine(RooflineExecutor(Cost()), BlockPool(400, 4), clock=VirtualClock())
        made.add(Request([1] * 5, SamplingParams(max_tokens=90, ignore_eos=True)))
        made.step()
        return made
    one, many = engine(), engine()
    for _ in range(step):
        one.step()
    assert many.forward(one.clock.now) == step and many.clock.now == one.clock.now
