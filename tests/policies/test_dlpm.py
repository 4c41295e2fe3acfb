"""Deficit longest prefix match: locality within a quantum, fairness between clients."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Policy, Request, SamplingParams, VirtualClock
from llmcourse.executors import MockExecutor
from llmcourse.kv import PrefixPool
from llmcourse.policies import DLPM, VTC, LongestPrefixFirst
from tests.policies.bench import ask, mocked, serve
from tests.policies.test_vtc import late_comer, share_of

BLOCK = 4


def engine_with(policy: Policy, num_blocks: int = 24, slots: int = 2) -> Engine:
    executor = MockExecutor(BLOCK, vocab_size=1000, max_length=100_000, step_seconds=1.0, token_seconds=0.0)
    return Engine(executor, PrefixPool(num_blocks, BLOCK), policy, "mixed", 64, slots, VirtualClock(), checked=True)


def sharing(tenant: str, group: int, number: int, output: int = 3) -> Request:
    """A prompt of three shared blocks and one token of its own."""
    prompt = [100 * (ord(tenant[0]) - 96) + group] * (3 * BLOCK) + [number % 50 + 1]
    return Request(prompt, SamplingParams(output, ignore_eos=True), f"{tenant}{group}-{number}", tenant=tenant)


class Meter:
    """What each client has made the engine compute, from the events alone."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.seen, self.cost = engine, 0, dict[str, int]()
        self.started: set[str] = set()

    def look(self) -> dict[str, int]:
        """Uncached prompt tokens of everybody admitted, and twice the output tokens."""
        for event in self.engine.events[self.seen:]:
            if event.request is None:
                continue
            request = self.engine.requests[event.request]
            if event.kind == "SCHEDULED" and event.request not in self.started:
                self.started.add(event.request)
                self._add(request.tenant, len(request.prompt) - event.data["computed"])
            elif event.kind == "NEW_TOKENS":
                self._add(request.tenant, 2 * len(event.data["tokens"]))
        self.seen = len(self.engine.events)
        return self.cost

    def _add(self, tenant: str, units: int) -> None:
        self.cost[tenant] = self.cost.get(tenant, 0) + units


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 15, 60]), st.integers(12, 30), st.integers(1, 4))
def test_two_clients_who_keep_waiting_never_differ_by_more_than_the_bound(seed: int, quantum: float, num_blocks: int,
                                                                          slots: int) -> None:
    dice = random.Random(seed)
    engine = engine_with(DLPM(quantum), num_blocks, slots)
    meter, since, held = Meter(engine), list[int](), engine.pool.capacity
    arrivals = [(float(dice.randint(0, 40)), sharing(dice.choice("aab"), dice.randint(0, 2), n, dice.randint(1, 12)))
                for n in range(30)]

    def check() -> None:
        nonlocal held
        held = max(held, sum(request.max_cached for request in engine.scheduler.running))
        cost, waiting = meter.look(), {request.tenant for request in engine.scheduler.waiting}
        if waiting != {"a", "b"}:
            since.clear()
            return
        since.append(cost.get("a", 0) - cost.get("b", 0))
        assert max(since) - min(since) <= 2 * (quantum + 2 * held)

    serve(engine, arrivals, check)


def backlog() -> list[tuple[float, Request]]:
    """One client with much that is shared, another with as many prompts that nobody shares."""
    one = [(0.0, sharing("a", n % 6, n)) for n in range(60)]
    return one + [(0.0, Request([n + 300] * 13, SamplingParams(3, ignore_eos=True), f"b{n}", tenant="b"))
                  for n in range(12)]


def wait_of_b(policy: Policy) -> tuple[float, int]:
    engine = engine_with(policy, num_blocks=20)
    ends = serve(engine, backlog())
    return ends["b0"], engine.counters.hit_tokens


def test_nobody_starves_for_others_prefixes() -> None:
    (lpm, lpm_hits), (dlpm, dlpm_hits), (_, vtc_hits) = (
        wait_of_b(LongestPrefixFirst()), wait_of_b(DLPM(30)), wait_of_b(VTC()))
    assert lpm > 60 and dlpm < lpm / 3
    assert dlpm_hits > 0.9 * lpm_hits and dlpm_hits > vtc_hits


def test_only_what_had_to_be_computed_is_charged() -> None:
    policy = DLPM(1000)
    engine = engine_with(policy)
    serve(engine, [(0.0, sharing("a", 0, 0)), (10.0, sharing("a", 0, 1))])
    assert engine.counters.hit_tokens == 3 * BLOCK
    assert policy.deficits["a"] == 1000 - (13 + 6) - (1 + 6)


def test_without_a_cache_clients_share_and_inside_it_is_first_come_first_served() -> None:
    engine = mocked(DLPM(10))
    ends = serve(engine, [(0.0, ask(2, id=f"{tenant}{n}", tenant=tenant)) for tenant in "ab" for n in range(4)])
    order = sorted(ends, key=ends.__getitem__)
    assert [name for name in order if name[0] == "a"] == ["a0", "a1", "a2", "a3"]
    assert {name[0] for name in order[:4]} == {"a", "b"}


def test_order_is_steady_until_the_first_client_has_spent_what_it_had() -> None:
    policy = DLPM(100)
    waiting = [ask(9, id=tenant, tenant=tenant, arrival=0.0) for tenant in "ab"]
    for request in waiting:
        policy.on_queued(request, 0.0)
    policy.deficits.refill("a", 1)                            # "a" has 100 to spend, and "b" needs a refill
    running = [ask(99, id="runs", tenant="a")]
    steady = policy.steady_steps(running, waiting)
    assert 40 < steady < 50                                   # two units a token
    policy.deficits.charge("a", 0, steady)
    assert policy.key(waiting[0], 0.0) < policy.key(waiting[1], 0.0)
    policy.deficits.charge("a", 0, 50 - steady)
    assert policy.key(waiting[0], 0.0)[0] == policy.key(waiting[1], 0.0)[0] == 1


def test_time_not_used_is_no_credit() -> None:
    share = share_of(DLPM(20), late_comer(), 100, 200)
    assert share["idle"] / share["busy"] == pytest.approx(1, abs=0.15)
