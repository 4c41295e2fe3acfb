"""Longest prefix first: hits go first, others may starve, and order matters where memory is small."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.policy import FOREVER
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.executors.roofline import RooflineExecutor
from llmcourse.kv import BlockPool, PrefixPool, RadixIndex
from llmcourse.policies import FCFS, LongestPrefixFirst
from llmcourse.policies.reuse import Reuse, reuse
from llmcourse.workload import Assistants
from tests.policies.bench import simulate_all


def engine_with(policy: LongestPrefixFirst, pool: BlockPool | None = None, slots: int = 1) -> Engine:
    executor = MockExecutor(4, max_length=1000, step_seconds=1.0, token_seconds=0.0)
    return Engine(executor, pool or PrefixPool(64, 4), policy, token_budget=64, max_running=slots,
                  clock=VirtualClock(), checked=True)


def ask(name: str, prompt: list[int], output: int = 2) -> Request:
    return Request(prompt, SamplingParams(max_tokens=output, ignore_eos=True), name)


def served(engine: Engine) -> list[str]:
    """Ids in the order in which they were first scheduled."""
    while not engine.idle:
        engine.step()
    return [event.request for event in engine.events if event.kind == "SCHEDULED" and event.request]


KNOWN, OTHER = [1, 2, 3, 4, 5, 6, 7, 8], [9] * 8


def test_whoever_finds_most_goes_first() -> None:
    engine = engine_with(LongestPrefixFirst())
    engine.add(ask("first", [*KNOWN, 1]))
    engine.step()
    engine.add(ask("nothing", [*OTHER, 1]))
    engine.add(ask("half", [*KNOWN[:4], *OTHER]))
    engine.add(ask("all", [*KNOWN, 2]))
    engine.add(ask("all, later", [*KNOWN, 3]))
    assert served(engine) == ["first", "all", "all, later", "half", "nothing"]
    assert engine.counters.hit_tokens == 8 + 8 + 4


def test_what_was_asked_before_is_asked_again_when_the_cache_has_changed() -> None:
    engine = engine_with(LongestPrefixFirst())
    for name, prompt in (("first", [*KNOWN, 1]), ("nothing", OTHER), ("all", [*KNOWN, 2])):
        engine.add(ask(name, prompt))
    assert served(engine) == ["first", "all", "nothing"]


def test_only_those_who_wait_are_looked_for() -> None:
    policy = LongestPrefixFirst(longest_queue=1)
    engine = engine_with(policy)
    first = engine.add(ask("first", [*KNOWN, 1], output=3))
    engine.step()
    waiting = engine.add(ask("all", [*KNOWN, 2]))
    assert policy.found(first) == 0 and policy.found(waiting) == 8
    engine.abort("all")
    assert policy.found(waiting) == 0
    engine.scheduler.preempt(first, engine.clock.now, None)
    assert policy.found(first) == 8


def test_order_is_steady_until_growth_takes_what_is_remembered() -> None:
    """Told too short costs time, too long changes what a simulation decides."""
    policy, pool = LongestPrefixFirst(), PrefixPool(32, 4)
    engine = engine_with(policy, pool, slots=2)
    engine.add(ask("gone", [*KNOWN, 1]))
    while not engine.idle:
        engine.step()
    for name in "abcd":
        engine.add(ask(name, [ord(name) - 80] * 9, output=40))
    engine.step()
    running, waiting = engine.scheduler.running, list(engine.scheduler.waiting)
    assert [request.id for request in running] == ["a", "b"] and pool.num_cached == 2
    steps = policy.steady_steps(running, waiting)
    owners = [request.id for request in running]
    pool.append_in_turn(owners, steps)
    assert steps >= 4 and pool.evicted_blocks == 0
    pool.append_in_turn(owners, 9)                            # it is less than three blocks each on the safe side
    assert pool.evicted_blocks > 0
    assert policy.steady_steps(running, waiting) == 0 and policy.steady_steps(running, waiting[:1]) == FOREVER
    policy.patience = 1.0
    assert policy.steady_steps(running, waiting) == 0
    policy.patience, policy.longest_queue = None, 1
    assert policy.steady_steps(running, waiting) == FOREVER


def test_with_patience_order_may_change_at_any_time() -> None:
    policy = LongestPrefixFirst(patience=3.0)
    engine = engine_with(policy)
    for name in "abc":
        engine.add(ask(name, OTHER))
    engine.step()
    assert policy.steady_steps(engine.scheduler.running, list(engine.scheduler.waiting)) == 0


def test_on_memory_that_remembers_nothing_it_is_first_come_first_served() -> None:
    engine = engine_with(LongestPrefixFirst(), BlockPool(64, 4))
    for name, prompt in (("a", KNOWN), ("b", OTHER), ("c", KNOWN)):
        engine.add(ask(name, prompt))
    assert served(engine) == ["a", "b", "c"]


def test_behind_a_long_queue_it_is_first_come_first_served() -> None:
    engine = engine_with(LongestPrefixFirst(longest_queue=2))
    engine.add(ask("first", [*KNOWN, 1]))
    engine.step()
    for name, prompt in (("a", OTHER), ("b", OTHER[1:]), ("c", [*KNOWN, 1])):
        engine.add(ask(name, prompt))
    assert served(engine) == ["first", "a", "c", "b"]         # with two left, hits count again


def stream(policy: LongestPrefixFirst) -> list[str]:
    """One request that nobody is like, under a stream of requests that are all alike."""
    engine = engine_with(policy)
    engine.add(ask("0", [*KNOWN, 1]))
    engine.step()
    engine.add(ask("alone", OTHER))
    for number in range(1, 20):
        engine.add(ask(str(number), [*KNOWN, number]))
        engine.step()
        engine.step()
    return served(engine)


def test_nobody_is_waited_for_who_hits_nothing_unless_patience_ends() -> None:
    assert stream(LongestPrefixFirst())[-1] == "alone"
    patient = stream(LongestPrefixFirst(patience=6.0))
    assert 2 <= patient.index("alone") <= 5
    assert stream(LongestPrefixFirst(patience=0.0)) == ["0", "alone", *map(str, range(1, 20))]


def test_a_preempted_request_finds_what_it_lost_and_the_oldest_gets_on() -> None:
    engine = engine_with(LongestPrefixFirst(), PrefixPool(13, 4), slots=3)
    for number in range(3):
        engine.add(ask(str(number), [number] * 9, 12))
    served(engine)
    assert engine.counters.preemptions and engine.counters.hit_tokens
    lost = [event.request for event in engine.events if event.kind == "PREEMPTED"]
    assert "0" not in lost


@pytest.mark.parametrize("options", [{"longest_queue": -1}, {"patience": -0.1}, {"patience": float("nan")}])
def test_settings_that_mean_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="below 0"):
        LongestPrefixFirst(**options)  # type: ignore[arg-type]


class Linear:
    """A cost that grows with everything, in numbers that add up exactly."""

    def seconds(self, tokens, requests, context, pairs):      # type: ignore[no-untyped-def]
        return 0.0078125 + 0.0009765625 * tokens + 0.00006103515625 * context


def simulate(seed: int, jump: bool) -> Engine:
    """Random requests that begin alike, in memory that is too small for them."""
    draw = random.Random(seed)
    size, patience = draw.randint(1, 4), draw.choice([None, None, 0.1, 1.0])
    index = RadixIndex(size) if draw.random() < 0.5 else None
    pool = PrefixPool(draw.randint(60, 200) // size, size, index)
    engine = Engine(RooflineExecutor(Linear()), pool, LongestPrefixFirst(draw.choice([3, 128]), patience),
                    draw.choice(["mixed", "mixed", "continuous", "static"]), draw.randint(8, 60), draw.randint(1, 6),
                    VirtualClock(), checked=True)
    later = []
    texts = [[draw.randint(0, 1) for _ in range(24)] for _ in range(3)]
    for number in range(draw.randint(3, 14)):
        prompt = draw.choice(texts)[:draw.randint(0, 24)] + [draw.randint(0, 1) for _ in range(draw.randint(1, 8))]
        later.append((draw.random() * 2, ask(f"j{number}", prompt, draw.randint(1, 25))))
    return simulate_all(engine, later, jump)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_jumping_over_equal_steps_changes_nothing(seed: int) -> None:
    jumped, stepped = simulate(seed, True), simulate(seed, False)
    assert list(jumped.events) == list(stepped.events)
    assert jumped.counters == stepped.counters
    one, other = jumped.pool, stepped.pool
    assert isinstance(one, PrefixPool) and isinstance(other, PrefixPool)
    assert list(one._cached) == list(other._cached) and list(one._free) == list(other._free)
    assert (one.evicted_blocks, one.hit_tokens) == (other.evicted_blocks, other.hit_tokens)


# ---- the effect ------------------------------------------------------------------------------------------------------


LOAD = Assistants(assistants=6, sessions=36, turns=5, window=32)
SIZES = (1000, 2000, 4000, 8000)


@pytest.fixture(scope="module")
def swept() -> dict[tuple[str, int], Reuse]:
    return {(name, blocks): reuse(policy, blocks, LOAD) for blocks in SIZES
            for name, policy in (("fcfs", FCFS()), ("lpm", LongestPrefixFirst()))}


def test_order_matters_only_where_the_cache_is_small(swept: dict[tuple[str, int], Reuse]) -> None:
    """SGLang's cache-aware order in small: twice the hits in a small cache, the same in one that holds everything."""
    best = 1 - LOAD.different_tokens / LOAD.prompt_tokens
    gain = {blocks: swept["lpm", blocks].hit_rate - swept["fcfs", blocks].hit_rate for blocks in SIZES}
    assert swept["lpm", 1000].hit_rate > 1.5 * swept["fcfs", 1000].hit_rate
    assert gain[1000] > gain[4000] > -0.01 and abs(gain[8000]) < 0.02
    assert swept["fcfs", 8000].hit_rate == pytest.approx(best, abs=0.03)
    for name in ("fcfs", "lpm"):
        rates = [swept[name, blocks].hit_rate for blocks in SIZES]
        assert rates == sorted(rates)


def test_what_is_found_need_not_be_computed_and_somebody_waits_longer(swept: dict[tuple[str, int], Reuse]) -> None:
    for blocks in (1000, 2000):
        fcfs, lpm = swept["fcfs", blocks], swept["lpm", blocks]
        assert lpm.seconds < fcfs.seconds and lpm.mean_ttft < fcfs.mean_ttft
        assert lpm.worst_ttft > fcfs.worst_ttft


def test_patience_keeps_most_of_the_hits_and_ends_the_long_waits(swept: dict[tuple[str, int], Reuse]) -> None:
    patient = reuse(LongestPrefixFirst(patience=5.0), 1000, LOAD)
    fcfs, lpm = swept["fcfs", 1000], swept["lpm", 1000]
    assert lpm.hit_rate - patient.hit_rate < (lpm.hit_rate - fcfs.hit_rate) / 3
    assert patient.worst_ttft < 0.8 * lpm.worst_ttft
