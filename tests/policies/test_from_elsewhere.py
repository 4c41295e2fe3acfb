"""Requests that were begun on another instance: what a policy owes them, what they owe, and where they stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.engine import Engine, Policy, Request, Status
from llmcourse.engine.arriving import adopt, drop, reserve
from llmcourse.engine.snapshot import Snapshot
from llmcourse.policies import DLPM, QLM, SSJF, VTC, DeficitRoundRobin, FastServe, LimitedPreemption
from llmcourse.workload import SLO
from tests.policies.bench import ask, mocked


def begun(output: int, said: int, prompt: int = 1, **fields: object) -> Request:
    """A request that has said so much of its output, elsewhere."""
    request = ask(output, prompt, arrival=0.0, **fields)
    request.tokens += [1] * said
    return request


def coming(engine: Engine, request: Request, compute: bool = False, computed: int = 0) -> Snapshot:
    """Room is kept for it in an engine, with all its KV in advance or to be computed there."""
    request.id, request.computed, request.status = "guest", computed or len(request.tokens) - 1, Status.RUNNING
    snapshot = Snapshot.of(request)
    reserve(engine, snapshot, compute)
    return snapshot


@pytest.mark.parametrize("said, kept", [(0, False), (60, False), (79, False), (80, True)])
def test_the_limit_of_preemption_is_a_share_of_the_whole_answer(said: int, kept: bool) -> None:
    """The probe foretells 100 tokens in all, wherever it is asked."""
    policy = LimitedPreemption(0.8, lambda request: 100 - request.num_output)
    request = begun(200, said)
    policy.on_queued(request, 0.0)
    request.status = Status.RUNNING
    assert policy.key(request, 0.0) == (not kept, 100 - said)


@pytest.mark.parametrize("make", [VTC, lambda: DeficitRoundRobin(10), lambda: DLPM(10)])
def test_a_prompt_that_was_paid_elsewhere_is_not_paid_again(make) -> None:  # type: ignore[no-untyped-def]
    policy: Policy = make()
    engine = Engine.simulated(policy=policy, num_blocks=200)
    adopt(engine, coming(engine, begun(9, 3, 40, tenant="a")))
    adopt(engine, Snapshot("queues", (1,) * 40, ask(9).sampling, 0.0, tenant="a", output=(1, 1)))
    engine.step()
    assert len(engine.scheduler.running) == 2
    spent = policy.counters["a"] if isinstance(policy, VTC) else policy.deficits._inputs["a"]  # type: ignore[attr-defined]
    assert spent <= 2 * 2, "two output tokens"


@pytest.mark.parametrize("make", [DeficitRoundRobin, DLPM])
def test_nobody_is_refilled_beyond_a_quantum_because_a_debtor_moves_in(make) -> None:  # type: ignore[no-untyped-def]
    policy = make(10)
    policy.deficits.charge("debtor", 0, 50)                   # 100 units: 11 refills
    engine = mocked(policy, slots=1)
    engine.add(ask(30, tenant="debtor"))
    for tenant in "ab":
        engine.add(ask(4, tenant=tenant))
    engine.step()                                             # a or b runs
    engine.scheduler.max_running = 2
    adopt(engine, coming(engine, begun(9, 3, tenant="debtor")))
    assert max(policy.deficits[tenant] for tenant in ("a", "b", "debtor")) <= 10


@given(st.integers(1, 700), st.integers(1, 300), st.integers(1, 4), st.integers(1, 9), st.booleans())
def test_a_long_answer_goes_on_in_the_queue_it_had_come_to(prompt: int, said: int, quantum: int, levels: int,
                                                           skip_join: bool) -> None:
    here, there = (FastServe(quantum, levels=levels, skip_join=skip_join) for _ in range(2))
    request = ask(500, prompt, id="r")
    here.on_queued(request, 0.0)
    for _ in range(said):
        request.tokens.append(1)
        here.on_tokens(request, 1, 1, 0.0)
    there.on_queued(request, 0.0)
    mine, its = there._places["r"], here._places["r"]
    assert (mine.level, mine.left) == (its.level, its.left)


def test_who_is_computed_in_advance_does_not_wait() -> None:
    """It has room and a seat, so nobody has to be fair or patient to it."""
    impatient, fair, deadlines = SSJF(patience=1.0), VTC(), QLM(default_ttft=1.0)
    for policy in (impatient, fair, deadlines):
        engine = mocked(policy, slots=4)
        engine.clock.advance(10.0)                            # the request is as old as that
        coming(engine, begun(9, 3, 40, tenant="a"), compute=True)
        engine.step()
        assert engine.scheduler.transit.guests and not engine.scheduler.waiting
    assert not impatient.impatient(10.0)
    assert not fair._clients.waiting()
    assert deadlines.groups.first() is None


@pytest.mark.parametrize("comes", [True, False])
def test_who_is_computed_in_advance_is_announced_once_and_forgotten_once(comes: bool) -> None:
    told: list[str] = []

    class Told(Policy):
        def on_queued(self, request: Request, now: float) -> None:
            told.append("queued")

        def on_scheduled(self, request: Request, now: float) -> None:
            told.append("scheduled")

        def on_done(self, request: Request, now: float) -> None:
            told.append("done")

    engine = mocked(Told(), slots=4)
    snapshot = coming(engine, begun(6, 3, 10), compute=True)
    while engine.scheduler.transit.has_work:
        engine.step()
    if comes:
        adopt(engine, snapshot)
    else:
        drop(engine, "guest")
    while not engine.idle:
        engine.step()
    assert told == ["queued", "scheduled", "done"]


def test_a_group_whose_first_has_come_back_is_due_when_that_one_is() -> None:
    """Evicted after younger ones have formed a group, the older stands before them again."""
    policy = QLM()
    old, young = (ask(20, id=name, slo=SLO(ttft=100.0), arrival=at) for name, at in (("old", 0.0), ("young", 50.0)))
    policy.on_queued(old, 0.0)
    policy.on_scheduled(old, 0.0)
    policy.on_queued(young, 50.0)
    policy.on_preempted(old, 60.0)
    group = policy.groups.of(old)
    assert group is policy.groups.of(young) and list(group.members) == [old, young] and group.due == 100.0
