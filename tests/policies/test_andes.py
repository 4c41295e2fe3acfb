"""Andes: the reader who will miss the next token most goes first, and who is far ahead can wait."""

import pytest

from llmcourse.engine import Engine, Policy, Request
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.metrics.qoe import mean_qoe
from llmcourse.metrics.summary import summary
from llmcourse.policies import FCFS, Andes
from llmcourse.workload import Constant, Poisson, open_loop
from tests.policies.bench import ask, first_tokens, mocked, serve


def reading(policy: Andes, arrival: float = 0.0, prompt: int = 10) -> Request:
    request = ask(50, prompt)
    request.arrival = arrival
    policy.on_queued(request, arrival)
    return request


def test_the_gain_is_one_for_who_begins_to_wait_and_nothing_for_who_has_enough_to_read() -> None:
    policy = Andes(ttft=1.0, pace=5.0, horizon=10.0)
    new, served = reading(policy), reading(policy)
    assert policy.gain(new, 1.0) == 1.0
    served.tokens += [1] * 60
    policy.on_tokens(served, 60, 60, 1.0)
    assert policy.hungry_at(served) == 13.0                   # 12 s of text, read from 1 s on
    assert policy.gain(served, 3.0) == 0.0
    assert policy.gain(served, 8.0) == pytest.approx((5 / 17) ** 2)
    assert policy.gain(new, 11.0) == pytest.approx((10 / 20) ** 2)      # what is lost already is no gain


def test_a_reader_misses_nothing_before_its_first_token_is_due() -> None:
    policy = Andes(ttft=4.0, pace=5.0)
    request = reading(policy)
    assert policy.hungry_at(request) == 4.0
    request.tokens.append(1)
    policy.on_tokens(request, 10, 1, 0.5)
    assert policy.hungry_at(request) == 4.2


def test_of_equal_gains_the_smaller_context_goes_first() -> None:
    policy = Andes()
    small, large = reading(policy, prompt=10), reading(policy, prompt=100)
    assert policy.key(small, 2.0) < policy.key(large, 2.0)


def test_who_is_far_ahead_of_its_reader_is_paused_for_who_has_nothing() -> None:
    """One slot, ten tokens a second for readers of one: after some text for the first, the second gets its turn."""
    ends = {}
    for policy in (FCFS(), Andes(ttft=0.5, pace=1.0, horizon=5.0)):
        engine = mocked(policy, step=0.1)
        done = serve(engine, [(0.0, ask(60, id="a")), (1.0, ask(20, id="b"))])
        ends[type(policy)] = done, first_tokens(engine), engine
    _, fcfs_first, _ = ends[FCFS]
    andes_ends, andes_first, engine = ends[Andes]
    assert fcfs_first["b"] > 6 and andes_first["b"] < 1.5
    assert engine.counters.preemptions >= 1 and andes_ends["a"] < 9


@pytest.mark.parametrize("cap, most", [(0, 0), (0.5, 3), (1, 6)])
def test_at_the_cap_nobody_is_pushed_out_any_more(cap: float, most: int) -> None:
    engine = mocked(Andes(ttft=0.5, pace=1.0, horizon=5.0, cap=cap), slots=2, num_blocks=200, step=0.1)
    serve(engine, [(0.3 * n, ask(60, id=f"r{n}")) for n in range(6)])
    assert engine.counters.preemptions <= most and (most == 0 or engine.counters.preemptions)


def test_the_long_hungry_are_not_given_up() -> None:
    """Newcomers without end, each with a larger gain than who has waited long."""
    first = {}
    for patience in (None, 20.0):
        engine = mocked(Andes(ttft=0.5, pace=1.0, horizon=5.0, cap=0, patience=patience), step=0.1)
        crowd = [(0.45 * n, ask(5, id=f"r{n}")) for n in range(200)]
        serve(engine, [*crowd, (1.0, ask(5, 30, id="long"))])
        first[patience] = first_tokens(engine)["long"]
    assert first[20.0] < 30 and first[None] > 80


def burst(policy: Policy) -> tuple[float, float]:
    """Mean QoE and output tokens/s of a burst of about twice what fits into memory."""
    engine = Engine.simulated("Llama 2 7B", "A10", policy=policy, num_blocks=400, preemption="swap", host_blocks=4000,
                              max_running=64)
    table = replay(engine, open_loop(Poisson(6.0), Constant(200), Constant(250), 120, seed=1))
    assert table.finished.all()
    return mean_qoe(engine.events), summary(table).output_rate


def test_a_burst_reads_better_at_about_the_same_tokens_a_second() -> None:
    (fcfs, fcfs_rate), (andes, andes_rate) = burst(FCFS()), burst(Andes())
    assert andes > fcfs + 0.1
    assert andes_rate == pytest.approx(fcfs_rate, rel=0.1)


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserError, match="horizon 0 s"):
        Andes(horizon=0)
    with pytest.raises(UserError, match="reads -1 tokens/s"):
        Andes(pace=-1)


@pytest.mark.parametrize("cap", [0.0, 0.5])
def test_in_a_long_overload_the_cap_holds_though_many_are_long_hungry(cap: float) -> None:
    """Everybody in the queue has been hungry for longer than ``patience``: none of them may push anybody out."""
    engine = mocked(Andes(ttft=0.5, pace=1.0, horizon=5.0, cap=cap, patience=3.0), slots=2, num_blocks=400, step=0.1)
    ends = serve(engine, [(0.05 * n, ask(20, id=f"r{n}")) for n in range(40)])
    assert len(ends) == 40 and engine.counters.preemptions <= 40 * cap + 1
