"""Virtual token counter: equal service to those who wait, no credit for those who did not."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Policy, Request
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.policies import FCFS, VTC
from llmcourse.workload import Arrival, Constant, Poisson, merge, open_loop
from tests.policies.bench import ask, mocked, serve


class NoLift(VTC):
    """Least counter first: the same without the lift."""

    def _lift(self, tenant: str) -> None:
        self.counters.setdefault(tenant, 0.0)


class Meter:
    """Service of each tenant, counted from the requests alone, whatever the policy believes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.started: set[str] = set()

    def service(self, tenant: str) -> int:
        """Prompt tokens of everybody once admitted, and twice the output tokens."""
        scheduler = self.engine.scheduler
        self.started |= {request.id for request in scheduler.running}
        return sum((len(r.prompt) if r.id in self.started or r.num_output else 0) + 2 * r.num_output
                   for r in self.engine.requests.values() if r.tenant == tenant)

    def waits(self, tenant: str) -> bool:
        """Whether a request of the tenant is in the queue."""
        return any(request.tenant == tenant for request in self.engine.scheduler.waiting)


# ---- two clients who send more than can be served, as in the paper's first experiment --------------------------------


def evenly(tenant: str, per_minute: float, seconds: float) -> list[Arrival]:
    """Prompts and outputs of 256 tokens at equal distances."""
    return [Arrival(n * 60 / per_minute, 256, 256, tenant) for n in range(int(seconds * per_minute / 60))]


def overload(policy: Policy, seconds: float = 300) -> tuple[dict[str, int], float, int]:
    """Service by tenant and output tokens/s after ``seconds``, and the tenants' largest difference on the way."""
    engine = Engine.simulated("Llama 2 7B", "A10", num_blocks=625, policy=policy)      # room for 10,000 tokens
    gap = 0

    def watch() -> bool:
        nonlocal gap
        if isinstance(policy, VTC) and len(policy.counters) == 2:
            gap = max(gap, round(abs(policy.counters["light"] - policy.counters["heavy"])))
        return engine.clock.now > seconds

    replay(engine, merge(evenly("light", 90, seconds), evenly("heavy", 180, seconds)), stop=watch)
    meter = Meter(engine)
    output = sum(request.num_output for request in engine.requests.values())
    return {tenant: meter.service(tenant) for tenant in ("light", "heavy")}, output / engine.clock.now, gap


def test_who_sends_twice_as_much_gets_twice_as_much_under_fcfs_and_as_much_under_vtc() -> None:
    (fcfs, fcfs_rate, _), (vtc, vtc_rate, gap) = overload(FCFS()), overload(VTC())
    assert fcfs["heavy"] / fcfs["light"] == pytest.approx(2, abs=0.15)
    assert vtc["heavy"] / vtc["light"] == pytest.approx(1, abs=0.05)
    assert vtc_rate == pytest.approx(fcfs_rate, rel=0.01)            # fairness costs no throughput
    assert 0 < gap <= 2 * max(256, 2 * 10_000)                       # the bound of the paper, 40,000


# ---- the bound, on random workloads ----------------------------------------------------------------------------------


Jobs = list[tuple[int, int, int, str]]            # arrival (steps), prompt, output, tenant


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.integers(1, 20), st.sampled_from("ab")),
                min_size=6, max_size=24),
       st.integers(8, 20), st.integers(1, 6), st.sampled_from(["mixed", "continuous"]))
def test_two_tenants_who_keep_waiting_never_differ_by_more_than_the_bound(
        jobs: Jobs, num_blocks: int, slots: int, batching: str) -> None:
    """The paper's M is the memory, for it admits whom it has room for to the end. Here only the input must fit."""
    engine = mocked(VTC(), slots=slots, num_blocks=num_blocks, batching=batching)
    meter, held = Meter(engine), engine.pool.capacity
    since: list[int] = []                         # difference in service while both have waited all the time

    def check() -> None:
        nonlocal held
        held = max(held, sum(request.max_cached for request in engine.scheduler.running))
        if not (meter.waits("a") and meter.waits("b")):
            since.clear()
            return
        since.append(meter.service("a") - meter.service("b"))
        assert max(since) - min(since) <= 2 * max(max(prompt for _, prompt, _, _ in jobs), 2 * held)

    serve(engine, [(float(at), ask(output, prompt, tenant=tenant)) for at, prompt, output, tenant in jobs], check)


def share_of(policy: Policy, arrivals: Iterable[tuple[float, Request]], start: float, end: float) -> dict[str, int]:
    """Service by tenant between two times (s), of an engine with two slots."""
    engine = mocked(policy, slots=2)
    meter = Meter(engine)
    before = {"busy": 0, "idle": 0}
    after: dict[str, int] = {}

    def look() -> None:
        now = {tenant: meter.service(tenant) for tenant in ("busy", "idle")}
        if engine.clock.now <= start:
            before.update(now)
        if engine.clock.now <= end:
            after.update(now)

    serve(engine, list(arrivals), look)
    return {tenant: after[tenant] - before[tenant] for tenant in after}


def late_comer() -> list[tuple[float, Request]]:
    """One tenant keeps the engine busy from the start, the other comes after 100 s with as much work."""
    return ([(0.0, ask(4, 2, tenant="busy")) for _ in range(120)]
            + [(100.0, ask(4, 2, tenant="idle")) for _ in range(60)])


def test_time_not_used_is_no_credit() -> None:
    lifted, unlifted = share_of(VTC(), late_comer(), 100, 200), share_of(NoLift(), late_comer(), 100, 200)
    assert lifted["idle"] / lifted["busy"] == pytest.approx(1, abs=0.1)
    assert unlifted["busy"] <= 0.05 * unlifted["idle"]               # whoever was there all the time gets nothing


def test_a_weight_of_two_is_due_twice_the_service() -> None:
    both = [(0.0, ask(4, 2, tenant=tenant)) for _ in range(100) for tenant in ("busy", "idle")]
    share = share_of(VTC(weights={"busy": 2.0}), both, 0, 100)
    assert share["busy"] / share["idle"] == pytest.approx(2, abs=0.15)


def test_an_engine_left_empty_lifts_to_whoever_left_last() -> None:
    policy = VTC()
    serve(mocked(policy), [(0.0, ask(10, 4, tenant="a")), (50.0, ask(1, 1, tenant="b"))])
    assert policy.counters == {"a": 4 + 20, "b": 24 + 1 + 2}


def test_a_prompt_is_charged_once_however_often_it_is_computed() -> None:
    policy = VTC()
    engine = mocked(policy, slots=4, num_blocks=8)                   # 32 tokens: three of these requests do not fit
    serve(engine, [(0.0, ask(12, 8, id=name, tenant=name)) for name in "abc"])
    assert engine.counters.preemptions > 0
    assert policy.counters == dict.fromkeys("abc", 8 + 24.0)


def test_order_is_steady_until_the_first_tenant_has_caught_up() -> None:
    policy = VTC()
    requests = {name: ask(99, id=name, tenant=name[0]) for name in ("a", "a runs", "b", "b runs")}
    for request in requests.values():
        policy.on_queued(request, 0.0)
    for name in ("a runs", "b runs"):
        policy.on_scheduled(requests[name], 0.0)
        requests[name].computed = 1
        requests[name].tokens.append(1)
    policy.on_tokens(requests["b runs"], 50, 50, 0.0)         # "b" is 100 units ahead
    waiting = [requests["a"], requests["b"]]
    assert 40 < policy.steady_steps([requests["a runs"]], waiting) < 50
    assert policy.steady_steps([requests["b runs"]], waiting) > 10**9
    assert policy.steady_steps([requests["a runs"], requests["b runs"]], waiting) > 10**9


def test_only_positive_weights_make_sense() -> None:
    with pytest.raises(UserError, match=r"weights \{'a': 0\}"):
        VTC(weights={"a": 0})


def test_with_one_tenant_it_is_first_come_first_served() -> None:
    workload = open_loop(Poisson(8.0), Constant(100), Constant(60), 200, seed=1)
    tables = [replay(Engine.simulated(policy=policy, max_running=8), workload) for policy in (FCFS(), VTC())]
    assert (tables[0].columns["e2e"] == tables[1].columns["e2e"]).all()
