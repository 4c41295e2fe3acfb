"""Deficit round robin: a quantum each in turn, debts are paid, and time not used is not saved up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.policies import FCFS, DeficitRoundRobin
from llmcourse.policies.deficits import Deficits
from tests.policies.bench import ask, mocked, serve
from tests.policies.test_vtc import Jobs, Meter, late_comer, overload, share_of


def test_a_deficit_is_charged_afterwards_and_paid_back_by_refills() -> None:
    deficits = Deficits(10, weights={"twice": 2.0})
    assert deficits.refills_needed("a") == 1
    deficits.refill("a", 1)
    assert (deficits["a"], deficits.refills_needed("a")) == (10, 0)
    deficits.charge("a", 5, 10)
    assert (deficits["a"], deficits.refills_needed("a")) == (-15, 2)
    assert deficits.share("twice") == 20
    deficits.forfeit("a")
    assert deficits["a"] == -15
    deficits.refill("a", 2)
    deficits.forfeit("a")
    assert deficits["a"] == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8), st.floats(0.3, 20), st.integers(1, 5))
def test_nothing_changes_before_the_steady_steps_are_over(charges: list[tuple[int, int]], quantum: float,
                                                          decoding: int) -> None:
    deficits = Deficits(quantum)
    for inputs, outputs in charges:
        deficits.charge("a", inputs, outputs)
        deficits.refill("a", 1)
    before, steps = deficits.refills_needed("a"), deficits.steady_steps("a", decoding)
    deficits.charge("a", 0, min(steps, 1000) * decoding)
    assert deficits.refills_needed("a") == before


def test_clients_take_turns_a_quantum_long() -> None:
    """Requests of 1 + 2 * 2 = 5 units, a quantum of 10: two each, then the next."""
    engine = mocked(DeficitRoundRobin(10))
    ends = serve(engine, [(0.0, ask(2, id=f"{tenant}{n}", tenant=tenant)) for tenant in "abc" for n in range(4)])
    turns = [f"{tenant}{n + m}" for n in (0, 2) for tenant in "abc" for m in (0, 1)]
    assert sorted(ends, key=ends.__getitem__) == turns


def test_whoever_has_overdrawn_is_passed_over_until_it_is_paid() -> None:
    """One request of 41 units of a quantum of 10: five rounds, then it may go on."""
    engine = mocked(DeficitRoundRobin(10))
    arrivals = [(0.0, ask(20, id=f"long{n}", tenant="a")) for n in range(2)]
    ends = serve(engine, arrivals + [(0.0, ask(2, id=f"b{n}", tenant="b")) for n in range(12)])
    order = sorted(ends, key=ends.__getitem__)
    assert order[0] == "long0" and order.index("long1") == 9


def test_overload_is_shared_at_no_cost_in_throughput() -> None:
    (fcfs, fcfs_rate, _), (drr, drr_rate, _) = overload(FCFS()), overload(DeficitRoundRobin(2000))
    assert fcfs["heavy"] / fcfs["light"] == pytest.approx(2, abs=0.15)
    assert drr["heavy"] / drr["light"] == pytest.approx(1, abs=0.05)
    assert drr_rate == pytest.approx(fcfs_rate, rel=0.01)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.integers(1, 20), st.sampled_from("ab")),
                min_size=6, max_size=24),
       st.integers(8, 20), st.integers(1, 6), st.sampled_from(["mixed", "continuous"]), st.sampled_from([1, 7, 40]))
def test_two_tenants_who_keep_waiting_never_differ_by_more_than_the_bound(
        jobs: Jobs, num_blocks: int, slots: int, batching: str, quantum: float) -> None:
    engine = mocked(DeficitRoundRobin(quantum), slots=slots, num_blocks=num_blocks, batching=batching)
    meter, held = Meter(engine), engine.pool.capacity
    since: list[int] = []                         # difference in service while both have waited all the time

    def check() -> None:
        nonlocal held
        held = max(held, sum(request.max_cached for request in engine.scheduler.running))
        if not (meter.waits("a") and meter.waits("b")):
            since.clear()
            return
        since.append(meter.service("a") - meter.service("b"))
        overdraft = max(max(prompt for _, prompt, _, _ in jobs), 2 * held)
        assert max(since) - min(since) <= 3 * quantum + 2 * overdraft

    serve(engine, [(float(at), ask(output, prompt, tenant=tenant)) for at, prompt, output, tenant in jobs], check)


def test_who_was_preempted_waits_and_keeps_what_its_tenant_has_not_spent() -> None:
    policy = DeficitRoundRobin(100)
    one, other = (ask(5, id=name, tenant="a") for name in ("one", "other"))
    for request in (one, other):
        policy.on_queued(request, 0.0)
    policy.on_scheduled(one, 0.0)
    policy.on_preempted(one, 1.0)
    policy.on_scheduled(other, 1.0)
    assert policy.deficits["a"] == 100 - 1 - 1
    policy.on_scheduled(one, 2.0)
    assert policy.deficits["a"] == 0                        # nobody waits: what is left is lost


def test_time_not_used_is_no_credit() -> None:
    share = share_of(DeficitRoundRobin(20), late_comer(), 100, 200)
    assert share["idle"] / share["busy"] == pytest.approx(1, abs=0.1)


def test_a_debt_from_better_days_is_paid_while_others_are_served() -> None:
    """One tenant had the engine for itself; it comes back after the others have had as much, and owes nothing."""
    policy = DeficitRoundRobin(10)
    alone = [(0.0, ask(100, id="alone", tenant="a"))]
    others = [(101.0, ask(2, id=f"{tenant}{n}", tenant=tenant)) for tenant in "bc" for n in range(100)]
    back = [(300.0, ask(2, id=f"back{n}", tenant="a")) for n in range(10)]
    ends = serve(mocked(policy), [*alone, *others, *back])
    assert sum(ends[f"{tenant}{n}"] > ends["back9"] for tenant in "bc" for n in range(100)) > 40
    assert policy.deficits["a"] <= 0


def test_a_weight_of_two_is_due_twice_the_service() -> None:
    both = [(0.0, ask(4, 2, tenant=tenant)) for _ in range(100) for tenant in ("busy", "idle")]
    share = share_of(DeficitRoundRobin(20, weights={"busy": 2.0}), both, 0, 100)
    assert share["busy"] / share["idle"] == pytest.approx(2, abs=0.2)


def test_a_quantum_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="quantum 0"):
        DeficitRoundRobin(0)
