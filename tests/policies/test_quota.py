"""KV quotas: memory is lent while it is idle, and given back when its owner wants it."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request
from llmcourse.engine.room import has_room_for
from llmcourse.errors import UserError
from llmcourse.policies import FCFS, TenantQuota
from tests.policies.bench import ask, mocked, serve


def held(engine: Engine) -> Counter[str]:
    """Blocks by tenant, counted in the pool."""
    blocks: Counter[str] = Counter()
    for request in engine.scheduler.running:
        blocks[request.tenant] += len(engine.pool.table(request.id))
    return blocks


def flood(tenant: str, count: int, at: float = 0.0, output: int = 40) -> list[tuple[float, Request]]:
    """Requests of three blocks each that grow to at most twelve."""
    return [(at, ask(output, prompt=9, id=f"{tenant}{n}", tenant=tenant)) for n in range(count)]


def test_alone_a_tenant_uses_all_the_memory_just_as_under_fcfs() -> None:
    used, steps = [], []
    for policy in (TenantQuota({"noisy": 0.25, "quiet": 0.75}), FCFS()):
        engine = mocked(policy, slots=16, num_blocks=40)
        serve(engine, flood("noisy", 12))
        used.append([event.data["used_blocks"] for event in engine.events if event.kind == "STEP"])
        steps.append(engine.counters.steps)
    assert max(used[0]) == max(used[1]) == 40
    assert sum(used[0]) / steps[0] == pytest.approx(sum(used[1]) / steps[1], rel=0.05)
    assert steps[0] == pytest.approx(steps[1], rel=0.05)


def test_who_comes_back_has_its_quota_a_request_a_step() -> None:
    """The quiet tenant wants more than its 20 of 40 blocks; what it does not get of them is less than a request."""
    engine = mocked(TenantQuota({"noisy": 0.5, "quiet": 0.5}), slots=16, num_blocks=40)
    seen: dict[float, int] = {}
    serve(engine, flood("noisy", 12) + flood("quiet", 12, at=10.0),
          lambda: seen.update({engine.clock.now: held(engine)["quiet"]}))
    assert seen[10.0] == 0
    assert all(seen[10.0 + step] >= 3 * step for step in range(1, 6))
    assert seen[15.0] > 20 - 3
    assert engine.counters.preemptions > 0 and engine.counters.recomputed_tokens > 0


def test_under_fcfs_the_same_tenant_waits_for_the_noisy_one() -> None:
    first = {}
    for policy in (FCFS(), TenantQuota({"noisy": 0.5, "quiet": 0.5})):
        engine = mocked(policy, slots=16, num_blocks=40)
        serve(engine, flood("noisy", 12) + flood("quiet", 1, at=10.0, output=4))
        first[type(policy).__name__] = next(e.time for e in engine.events
                                            if e.kind == "NEW_TOKENS" and e.request == "quiet0")
    assert first["TenantQuota"] == 11
    assert first["FCFS"] > 60


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 16), st.integers(1, 12), st.sampled_from("abc")),
                min_size=2, max_size=14),
       st.sampled_from([None, {"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.25, "c": 0.25}]))
def test_no_memory_lies_idle_while_the_first_in_line_would_fit(
        jobs: list[tuple[int, int, int, str]], shares: dict[str, float] | None) -> None:
    policy = TenantQuota(shares)
    engine = mocked(policy, slots=8, num_blocks=10)
    scheduler = engine.scheduler
    schedule = scheduler.schedule

    def checked(now):  # type: ignore[no-untyped-def]
        before = engine.counters.preemptions
        batch = schedule(now)
        first = scheduler.waiting.first(now)
        if first is not None and engine.counters.preemptions == before:
            assert not has_room_for(scheduler, first)
        assert policy._held == held(engine)                   # its books are the pool's
        return batch

    scheduler.schedule = checked  # type: ignore[method-assign]
    serve(engine, [(float(at), ask(output, prompt, tenant=tenant)) for at, prompt, output, tenant in jobs])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), min_size=1, max_size=12))
def test_who_keeps_within_its_quota_is_never_pushed_out(jobs: list[tuple[int, int]]) -> None:
    """The tenant's requests never hold more than 6 of 10 blocks together, for they come one after the other."""
    engine = mocked(TenantQuota({"modest": 0.6, "noisy": 0.4}), slots=8, num_blocks=10)
    modest = [(40.0 * n, ask(12, 12, tenant="modest", id=f"m{n}")) for n in range(3)]
    serve(engine, [(float(at), ask(20, output, tenant="noisy")) for at, output in jobs] + modest)
    assert not [e for e in engine.events if e.kind == "PREEMPTED" and str(e.request).startswith("m")]


def test_shares_are_of_one_memory() -> None:
    with pytest.raises(UserError, match="together at most 1"):
        TenantQuota({"a": 0.7, "b": 0.7})
    with pytest.raises(UserError, match="each must be above 0"):
        TenantQuota({"a": 0.0})
