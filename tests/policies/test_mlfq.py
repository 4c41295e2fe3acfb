"""FastServe: who joins where, who goes down, who starves, and what it buys and costs."""

from itertools import pairwise

import pytest

from llmcourse.engine import Engine, Request, replay
from llmcourse.engine.preemption import Preemption
from llmcourse.errors import UserError
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.summary import summary
from llmcourse.policies import FCFS, FastServe
from llmcourse.workload import Lognormal, Poisson, open_loop
from tests.policies.bench import ask, mocked, serve


@pytest.mark.parametrize(("prompt", "level"), [(1, 1), (128, 1), (129, 2), (256, 2), (257, 3), (512, 3), (513, 4)])
def test_a_prompt_joins_the_highest_queue_whose_quantum_it_fits_into(prompt: int, level: int) -> None:
    assert FastServe().join_level(ask(1, prompt)) == level
    assert FastServe(skip_join=False).join_level(ask(1, prompt)) == 1


def test_quanta_double_and_a_request_goes_down_when_one_is_used_up() -> None:
    policy = FastServe(starve_after=None)
    engine = mocked(policy, budget=256)
    request = engine.add(ask(20))
    levels = []
    while not engine.idle:
        engine.step()
        levels.append(policy._places[request.id].level if not request.done else None)
    assert levels[:15] == [2] * 2 + [3] * 4 + [4] * 8 + [5]       # 1 iteration in the first queue, then 2, 4, 8


def test_a_short_newcomer_goes_before_who_has_said_much() -> None:
    engine = mocked(FastServe(starve_after=None))
    ends = serve(engine, [(0.0, ask(40, id="long")), (10.0, ask(3, id="short"))])
    assert ends["short"] == 13.0 and ends["long"] == 43.0


def test_nobody_is_kept_from_running_for_longer_than_promised() -> None:
    """Many short newcomers, one long request: after starve_after seconds it gets a step, again and again."""
    policy = FastServe(starve_after=8.0)
    engine = mocked(policy, slots=2, num_blocks=400)
    engine.scheduler.preemption = Preemption(parking=True)
    arrivals = [(0.0, ask(30, id="long"))] + [(0.5 * i, ask(3, id=f"s{i}")) for i in range(1, 80)]
    ran = [0.0]

    def watch() -> None:
        batch = [event for event in engine.events if event.kind == "STEP"][-1]
        if "long" in [name for name, _, _ in batch.data["batch"]]:
            ran.append(batch.time)

    serve(engine, arrivals, watch)
    gaps = [b - a for a, b in pairwise(ran)]
    # Starving requests go by age: at most all others wait longer, two of them get a step at a time.
    starving = max(8.0, 0.0)
    assert policy.promotions > 3 and max(gaps) <= starving + 80 / 2 + 1
    never = FastServe(starve_after=None)
    engine = mocked(never, slots=2, num_blocks=400)
    engine.scheduler.preemption = Preemption(parking=True)
    ends = serve(engine, [(0.0, ask(30, id="long"))] + [(0.5 * i, ask(3, id=f"s{i}")) for i in range(1, 80)])
    assert never.promotions == 0 and max(ends, key=lambda name: ends[name]) == "long"


def begun(policy: FastServe, output: int, paused: float | None = None) -> Request:
    """A request that has said so much, and is parked since then (s) or runs."""
    request = ask(100, id=f"{output} at {paused} of {len(policy._places)}")
    request.arrival = 0.0
    policy.on_queued(request, 0.0)
    policy.on_scheduled(request, 0.0)
    for _ in range(output):
        request.tokens.append(1)
        policy.on_tokens(request, 1, 1, 0.0)
    if paused is not None:
        policy.on_preempted(request, paused)
    return request


@pytest.mark.parametrize(("first", "second", "last"), [(96.0, 94.5, True), (96.0, 93.5, False), (80.0, 80.0, True)])
def test_who_is_expected_to_run_last_loses_its_blocks(first: float, second: float, last: bool) -> None:
    """Two run, with 4 iterations left each: 4 s until the first who is parked, 5 s until the second, if none starves.

    One that is parked since 94.5 s starves at 104.5 s: in 4.5 s, after 4 s; since 93.5 s, in 3.5 s, before.
    """
    policy = FastServe(starve_after=10.0, iteration=1.0)
    begun(policy, 3)
    begun(policy, 3)
    parked = [begun(policy, 13, first), begun(policy, 7, second)]           # 2 and 8 iterations left
    assert [policy.level(request) for request in parked] == [4, 4]
    assert policy.evicted(parked, 100.0) is parked[last]


def test_where_nobody_starves_the_last_in_order_loses_its_blocks() -> None:
    policy = FastServe(starve_after=None)
    parked = [begun(policy, output, 5.0) for output in (1, 3, 7)]
    assert [policy.evicted(parked[:number], 1000.0) for number in (1, 2, 3)] == parked


def test_latency_per_token_falls_and_the_tail_pays() -> None:
    def run(policy):  # type: ignore[no-untyped-def]
        engine = Engine.simulated(max_running=16, policy=policy, preemption="swap", parking=True, ledger=Ledger())
        load = open_loop(Poisson(9), Lognormal.of_moments(160, 160), Lognormal.of_moments(180, 270), 1000, seed=3)
        return replay(engine, load)
    fcfs, mlfq = run(FCFS()), run(FastServe())
    per_token = [(table["e2e"] / table["output_tokens"]).mean() for table in (fcfs, mlfq)]
    assert per_token[1] < 0.7 * per_token[0]
    assert summary(mlfq).ttft.mean < 0.5 * summary(fcfs).ttft.mean
    assert summary(mlfq).e2e.p99 > summary(fcfs).e2e.p99


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="quantum 0"):
        FastServe(0)
    with pytest.raises(UserError, match="starve_after 0"):
        FastServe(starve_after=0)
    with pytest.raises(UserError, match="iteration 0 above 0 s"):
        FastServe(iteration=0)


def test_in_the_last_queue_nothing_changes_any_more_so_a_simulation_may_jump() -> None:
    """Quanta of 1 and 2 iterations and a last one without end: from the fourth token on one jump to the end."""
    engine = Engine.simulated(policy=FastServe(levels=3, starve_after=None), num_blocks=100)
    request = engine.add(ask(60))
    for _ in range(10):
        engine.step()
    assert engine.scheduler.policy.steady_steps([request], []) > 50
    assert engine.forward() == 50 and request.done
