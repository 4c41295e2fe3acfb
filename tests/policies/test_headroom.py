"""Virtual usage by the numbers, and what headroom does to those who have it and to those who pay for it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, SamplingParams, Status, VirtualClock, replay
from llmcourse.engine.preemption import Preemption
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.executors.roofline import RooflineExecutor
from llmcourse.kv import BlockPool, PrefixPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.table import Table
from llmcourse.policies import FCFS, Headroom, StaticPriority, freeness, virtual_usage
from llmcourse.workload import Arrival, Lognormal, Poisson, merge, open_loop
from tests.policies.bench import simulate_all

HIGH, NORMAL = 0, 1


def engine_with(headroom: float, num_blocks: int = 20, slots: int = 8) -> Engine:
    executor = MockExecutor(4, max_length=1000, step_seconds=1.0, token_seconds=0.0)
    return Engine(executor, BlockPool(num_blocks, 4), StaticPriority(), token_budget=64, max_running=slots,
                  clock=VirtualClock(), checked=True, admission=Headroom({HIGH: headroom}))


def ask(name: str, priority: int, prompt: int = 8, output: int = 3) -> Request:
    return Request([1] * prompt, SamplingParams(max_tokens=output, ignore_eos=True), name, priority=priority)


def running(engine: Engine) -> list[str]:
    return sorted(request.id for request in engine.scheduler.running)


def test_virtual_usage_by_hand() -> None:
    """Two important requests share ten blocks of headroom; of the waiting only the first counts."""
    engine = engine_with(0, num_blocks=20, slots=3)
    for name, prompt in (("h1", 8), ("h2", 5), ("n1", 12), ("n2", 9), ("n3", 9)):
        engine.add(ask(name, HIGH if name[0] == "h" else NORMAL, prompt, 10))
    engine.step()
    usage = {request.id: blocks for request, blocks in virtual_usage(engine.scheduler, {HIGH: 10}, 0.0).items()}
    assert usage == {"h1": 2 + 5, "h2": 2 + 5, "n1": 3, "n2": 3}
    assert freeness(engine.scheduler, {HIGH: 10}, 0.0) == (20 - 20) / 3
    assert freeness(engine.scheduler, {HIGH: 13}, 0.0) == -1          # more is promised than there is
    assert freeness(engine.scheduler, {}, 0.0) == (20 - 10) / 3
    assert freeness(engine_with(0).scheduler, {HIGH: 10}, 0.0) == 20  # nobody runs, nobody waits


def test_headroom_is_the_priority_s_however_many_share_it() -> None:
    for number in (1, 2, 5):
        engine = engine_with(0, num_blocks=64)
        for name in range(number):
            engine.add(ask(str(name), HIGH))
        engine.step()
        assert sum(virtual_usage(engine.scheduler, {HIGH: 12}, 0.0).values()) == pytest.approx(2 * number + 12)


def test_normal_requests_wait_while_an_important_one_runs_and_no_longer() -> None:
    engine = engine_with(headroom=14, num_blocks=20)
    for name in ("n1", "n2", "n3"):
        engine.add(ask(name, NORMAL, output=20))
    engine.step()
    assert running(engine) == ["n1", "n2", "n3"], "nobody is held while nothing important runs"
    engine.add(ask("h", HIGH, output=4))
    engine.add(ask("n4", NORMAL, prompt=4))
    engine.step()
    assert running(engine) == ["h", "n1", "n2", "n3"]
    assert engine.pool.num_free >= 1, "there is room for n4, but the headroom of h is in the way"
    while "h" in running(engine):
        assert "n4" not in running(engine)
        engine.step()
    engine.step()
    assert "n4" in running(engine)


def test_the_important_do_not_wait_for_their_own_headroom_and_the_least_may_use_what_is_left() -> None:
    engine = engine_with(headroom=14, num_blocks=20)
    for name in ("h1", "h2", "h3", "h4"):
        engine.add(ask(name, HIGH, output=9))
    engine.step()
    assert running(engine) == ["h1", "h2", "h3", "h4"]
    roomy = engine_with(headroom=14, num_blocks=20)
    roomy.add(ask("h", HIGH))
    roomy.add(ask("n1", NORMAL, prompt=16))                           # 2 + 4 + 14 = 20
    roomy.add(ask("n2", NORMAL, prompt=1))
    roomy.step()
    assert running(roomy) == ["h", "n1"]


def test_two_of_the_important_need_no_more_headroom_than_one() -> None:
    engine = engine_with(headroom=14, num_blocks=24)
    for name, priority in (("h1", HIGH), ("h2", HIGH), ("n", NORMAL)):
        engine.add(ask(name, priority))                               # 2 + 2 + 2 + 14 of 24
    engine.step()
    assert running(engine) == ["h1", "h2", "n"]


def test_who_is_parked_with_its_blocks_needs_only_more_of_them() -> None:
    """Its seven blocks, two of the important one and a headroom of nine are 18 of 20."""
    engine = engine_with(9, slots=2)
    engine.scheduler.policy = engine.scheduler.waiting._policy = StaticPriority(preemptive=True)
    engine.scheduler.preemption = Preemption(parking=True)
    engine.add(ask("normal", NORMAL, 26, 20))
    engine.step()
    engine.add(ask("long", HIGH, 3, 5)), engine.add(ask("short", HIGH, 3, 2))
    parked = []
    while not engine.requests["long"].done:
        engine.step()
        parked.append(engine.requests["normal"].status is Status.PARKED)
    assert parked == [False, True, True, False, False], "it waits for a seat, and not for room that it has"


def test_without_anybody_important_it_is_out_of_the_way_even_where_blocks_are_shared() -> None:
    executor = MockExecutor(4, max_length=1000, step_seconds=1.0, token_seconds=0.0)
    engine = Engine(executor, PrefixPool(6, 4), StaticPriority(), token_budget=64, clock=VirtualClock(), checked=True,
                    admission=Headroom({HIGH: 3}))
    engine.add(ask("n1", NORMAL, prompt=17))
    engine.step()
    engine.add(ask("n2", NORMAL, prompt=17))                          # 5 blocks, of which 4 are there
    engine.step()
    assert running(engine) == ["n1", "n2"]


def test_headroom_below_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="at least 0"):
        Headroom({HIGH: -1})


class Linear:
    """A cost that grows with everything, in numbers that add up exactly."""

    def seconds(self, tokens, requests, context, pairs):      # type: ignore[no-untyped-def]
        return 0.0078125 + 0.0009765625 * tokens + 0.00006103515625 * context


def simulate(seed: int, jump: bool) -> Engine:
    draw = random.Random(seed)
    blocks, slots = draw.randint(8, 30), draw.randint(1, 6)
    policy = draw.choice([FCFS(), StaticPriority(), StaticPriority(preemptive=True), StaticPriority(ageing=0.1)])
    engine = Engine(RooflineExecutor(Linear()), BlockPool(blocks, 4), policy, draw.choice(["mixed", "continuous"]),
                    draw.randint(8, 60), slots, VirtualClock(), checked=True,
                    admission=Headroom({HIGH: draw.randint(0, blocks), NORMAL: draw.randint(0, 3)}))
    later = [(draw.random() * 2, ask(f"j{number}", draw.randint(0, 2), draw.randint(1, 15), draw.randint(1, 16)))
             for number in range(draw.randint(2, 12))]
    return simulate_all(engine, later, jump)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_holding_back_never_stops_the_engine_and_is_the_same_when_steps_are_jumped_over(seed: int) -> None:
    jumped, stepped = simulate(seed, True), simulate(seed, False)
    assert list(jumped.events) == list(stepped.events)


# ---- the effect ------------------------------------------------------------------------------------------------------

NUM_BLOCKS = 6976                                             # an A100 80 GB beside Llama 2 7B


def mixture(important_output: int, seed: int) -> list[Arrival]:
    """12 requests a second, one in ten of them important, whose answers have so many tokens in the middle."""
    prompts = Lognormal(200, p99=1500)
    normal = open_loop(Poisson(10.8), prompts, Lognormal(150, p99=800), 1080, seed, "normal", priority=NORMAL)
    important = open_loop(Poisson(1.2), prompts, Lognormal(important_output, p99=4 * important_output), 120, seed + 1,
                          "important", priority=HIGH)
    return merge(normal, important)


def served(load: list[Arrival], full_at: int | None) -> Table:
    """With priorities only, or with an instance that counts as full from so many tokens on."""
    admission = None if full_at is None else Headroom({HIGH: NUM_BLOCKS - full_at // 16})
    engine = Engine.simulated(num_blocks=NUM_BLOCKS, policy=StaticPriority(), ledger=Ledger(), max_running=400,
                              token_budget=1024, admission=admission)
    return replay(engine, load)


def mean(table: Table, column: str, tenant: str) -> float:
    return float(table[column][table["tenant"] == tenant].mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_headroom_shortens_the_steps_of_the_important_and_normal_requests_pay_a_little(seed: int) -> None:
    """Full from 10,000 tokens on while something important runs: its tokens come 1.2 to 1.4 times as fast, in the tail
    more than 1.4 times; normal requests take 2 to 12 % longer. Llumnix (Sun et al., 2024), which can move them
    elsewhere, reports 1.2 to 1.5 times and 4.5 %.
    """
    load = mixture(important_output=15, seed=seed)
    plain, guarded = served(load, None), served(load, full_at=10_000)
    assert 1.2 < mean(plain, "tpot", "important") / mean(guarded, "tpot", "important") < 1.4
    tails = [percentile(table["tpot"][table["tenant"] == "important"], 99) for table in (plain, guarded)]
    assert tails[0] > 1.4 * tails[1]
    assert 1.02 < mean(guarded, "e2e", "normal") / mean(plain, "e2e", "normal") < 1.12
    assert mean(guarded, "ttft", "normal") > 2 * mean(plain, "ttft", "normal")     # it is in the waiting that they pay


def test_when_something_important_always_runs_headroom_is_a_smaller_machine_for_the_others() -> None:
    """Long important answers gain little more than short ones, and normal requests take more than twice as long."""
    load = mixture(important_output=100, seed=0)
    plain, guarded = served(load, None), served(load, full_at=10_000)
    assert 1.2 < mean(plain, "tpot", "important") / mean(guarded, "tpot", "important") < 1.6
    assert mean(guarded, "e2e", "normal") > 2 * mean(plain, "e2e", "normal")


def test_nobody_is_pushed_out_for_somebody_who_is_held() -> None:
    """Memory is full; under a preemptive policy the second could have the third's blocks, were there no headroom."""
    def preemptions(headroom: float) -> int:
        engine = Engine(MockExecutor(4), BlockPool(6, 4), StaticPriority(preemptive=True), token_budget=64,
                        clock=VirtualClock(), checked=True, admission=Headroom({HIGH: headroom}))
        engine.add(ask("important", HIGH, output=4))
        engine.add(ask("least", 2, prompt=12, output=4))
        engine.step()
        engine.add(ask("second", NORMAL, output=2))
        engine.step()
        return engine.counters.preemptions
    assert preemptions(headroom=0) == 1
    assert preemptions(headroom=4) == 0
