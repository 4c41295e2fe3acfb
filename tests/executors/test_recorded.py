"""One decision log in every world (invariant 6): a recorded run, followed without its model, decides the same."""

import random

import pytest

from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock, replay
from llmcourse.engine.decisions import decisions, first_difference
from llmcourse.errors import UserError
from llmcourse.executors.mock import MockExecutor
from llmcourse.executors.recorded import rerun
from llmcourse.kv import BlockPool
from llmcourse.policies import POLICIES
from llmcourse.workload import SLO, Arrival

NAMES = list(POLICIES)                                             # all of them, each on three workloads at least
BATCHINGS = ["static", "continuous", "mixed"]


def workload(seed, count=14):
    """Bursts and gaps of mixed lengths; some requests must preempt others in the pools below."""
    rng, time, arrivals = random.Random(seed), 0.0, []
    for _ in range(count):
        time += rng.choice([0, 0, 0.002, 0.01, 0.03])
        output = rng.choice([1, 3, 9, 30])
        arrivals.append(Arrival(time, rng.choice([2, 7, 20, 70]), output, tenant=rng.choice("abc"), predicted=output,
                                priority=rng.randrange(3), slo=SLO(ttft=rng.choice([0.05, 0.2, 1.0]))))
    return arrivals


@pytest.mark.parametrize("seed", range(24))
def test_a_real_engine_and_its_simulation_decide_the_same(seed):
    """A real model in wall-clock time on 24 workloads, each with its own policy, batching and pool."""
    policy = POLICIES[NAMES[seed % len(NAMES)]]
    options = {"batching": BATCHINGS[seed % 3], "token_budget": 32 + 8 * (seed % 5), "max_running": 3 + seed % 6}
    real = Engine.from_model("course-tiny", num_blocks=8 + seed % 3 * 8, threads=1, checked=True, policy=policy(),
                             **options)
    replay(real, workload(seed))
    again = rerun(real.events, policy=policy(), **options)
    assert first_difference(decisions(real.events), decisions(again.events)) == ""
    assert again.counters == real.counters and real.counters.steps > 10
    assert [e.time for e in again.events if e.kind == "STEP"] == pytest.approx(
        [e.time for e in real.events if e.kind == "STEP"])


def test_tokens_that_end_a_request_early_end_it_again():
    engine = Engine(MockExecutor(4, vocab_size=8), BlockPool(32, 4), clock=VirtualClock(), eos_ids=frozenset({0}))
    for number in range(6):
        engine.add(Request([1, 2, number], SamplingParams(max_tokens=40)))
    for _ in range(9):
        engine.step()
    engine.abort(next(r.id for r in engine.requests.values() if not r.done))
    list(engine.stream())
    reasons = {record.finish_reason for record in engine.records()}
    assert "stop" in reasons and "abort" in reasons
    again = rerun(engine.events)
    assert decisions(again.events) == decisions(engine.events)
    assert again.idle


def test_another_scheduler_decides_otherwise_and_the_first_difference_is_named():
    engine = Engine(MockExecutor(4), BlockPool(64, 4), clock=VirtualClock(), max_running=1)
    for prompt, expected in (([1] * 9, 9), ([2] * 3, 2), ([3] * 3, 1)):
        engine.add(Request(prompt, SamplingParams(max_tokens=expected, ignore_eos=True), predicted=expected))
    list(engine.stream())
    other = rerun(engine.events, max_running=1, policy=POLICIES["sjf"]())
    difference = first_difference(decisions(engine.events), decisions(other.events))
    assert difference.startswith("decision 3:") and "r2" in difference


def test_an_empty_log_is_refused():
    with pytest.raises(UserError, match="no STEP"):
        rerun([])
