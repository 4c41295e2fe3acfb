"""The door under overload: who is let in is served in time, and more are served in time than without a door."""

import numpy as np
import pytest

from llmcourse.engine import Engine
from llmcourse.engine.admission import Admission
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.model.shapes import shape
from llmcourse.policies import FCFS, BacklogLimit, Combined, Shedding, SLOAdmission
from llmcourse.workload import SLO, Arrival, Lognormal, Poisson, open_loop, with_oracle
from tests.policies.bench import ask, mocked, serve

A100 = RooflineCost(hardware("A100 80 GB"), shape("Llama 2 7B"))
PROMISE = SLO(ttft=3.0, tpot=0.2)


def run(workload: list[Arrival], rule: Admission | None) -> tuple[float, float, float]:
    """Attainment of those let in, requests/s served in time, and the share sent away."""
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", num_blocks=2000, policy=FCFS(), admission=rule)
    columns = replay(engine, workload).columns
    kept = columns["finish_reason"] != "shed"
    in_time = kept & (columns["ttft"] <= PROMISE.ttft) & (columns["tpot"] <= PROMISE.tpot)
    return float(in_time[kept].mean()), in_time.sum() / engine.clock.now, float(1 - np.mean(kept))


@pytest.fixture(scope="module")
def overload() -> list[Arrival]:
    """Twelve requests a second for 100 s, where about ten and a half can be served."""
    return with_oracle(open_loop(Poisson(12.0), Lognormal(300, p99=1500), Lognormal(150, p99=600), 1200, seed=3,
                                 slo=PROMISE))


@pytest.fixture(scope="module")
def unguarded(overload: list[Arrival]) -> tuple[float, float, float]:
    return run(overload, None)


def test_without_a_door_most_are_late(unguarded: tuple[float, float, float]) -> None:
    attained, _, shed = unguarded
    assert attained < 0.5 and shed == 0


def test_whom_slo_admission_lets_in_is_served_in_time(
        overload: list[Arrival], unguarded: tuple[float, float, float]) -> None:
    attained, goodput, shed = run(overload, SLOAdmission(A100))
    assert attained >= 0.95
    assert goodput > 2 * unguarded[1]
    assert 0.02 < shed < 0.25                                        # not by refusing everybody


def test_shedding_raises_goodput(overload: list[Arrival], unguarded: tuple[float, float, float]) -> None:
    attained, goodput, _ = run(overload, Shedding())
    assert goodput > 2 * unguarded[1]
    assert attained > unguarded[0]


def test_below_saturation_nobody_is_sent_away() -> None:
    calm = with_oracle(open_loop(Poisson(6.0), Lognormal(300, p99=1500), Lognormal(150, p99=600), 150, seed=4,
                                 slo=PROMISE))
    assert run(calm, Combined(SLOAdmission(A100), Shedding())) == run(calm, None)
    assert run(calm, None)[2] == 0


def reasons(engine: Engine) -> dict[str, str]:
    """Why each shed request was sent away."""
    return {str(event.request): event.data["reason"] for event in engine.events if event.kind == "ABORTED"}


def test_a_backlog_is_counted_in_tokens_not_in_requests() -> None:
    for prompts, sent_away in (([30, 30, 30, 30], ["r3"]), ([90, 30, 10], ["r1"]), ([2] * 40, [])):
        engine = mocked(FCFS(), budget=8, admission=BacklogLimit(100))
        serve(engine, [(0.0, ask(1, prompt=prompt, id=f"r{n}")) for n, prompt in enumerate(prompts)])
        assert list(reasons(engine)) == sent_away
    engine = mocked(FCFS(), admission=BacklogLimit(100))
    serve(engine, [(0.0, ask(1, prompt=90)), (0.0, ask(1, prompt=30, id="late"))])
    assert reasons(engine)["late"] == "backlog of 90 tokens + 30 of this request exceed the limit of 100"


def test_shedding_drops_who_is_late_and_spares_who_has_been_answered() -> None:
    engine = mocked(FCFS(), slots=1, num_blocks=8, admission=Shedding())
    serve(engine, [(0.0, ask(9, id="served", slo=SLO(ttft=2.0))), (0.0, ask(1, id="late", slo=SLO(ttft=4.0))),
                   (0.0, ask(1, id="patient", slo=SLO(ttft=20.0))), (0.0, ask(1, id="no promise"))])
    assert reasons(engine) == {"late": "has waited 5.00 s for a first token that was due after 4 s"}
    assert engine.requests["late"].finish_reason == "shed" and engine.counters.shed == 1
    assert engine.requests["served"].num_output == 9


def test_the_forecast_is_right_where_the_future_is_known() -> None:
    """One slot: the second request starts when the first has ended."""
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", max_running=1)
    for output in (100, 50):
        engine.add(ask(output, prompt=200))
    newcomer = ask(10, prompt=700)
    forecast = SLOAdmission(A100).expected_ttft(newcomer, engine.scheduler)
    engine.add(newcomer)
    while not newcomer.num_output:
        engine.step()
    assert forecast == pytest.approx(engine.clock.now, rel=0.35)


def test_rules_that_let_nobody_in_are_refused() -> None:
    with pytest.raises(UserError, match="lets nobody in"):
        BacklogLimit(0)
    with pytest.raises(UserError, match="margin is 0"):
        SLOAdmission(A100, margin=0)
