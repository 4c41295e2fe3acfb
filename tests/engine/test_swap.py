"""Swapping instead of computing again: what is moved, what is saved, and when it is not worth it."""

import pytest

from llmcourse.engine import Engine, Policy, Request, SamplingParams, Status, VirtualClock, departing
from llmcourse.engine.events import EventKind
from llmcourse.engine.preemption import Preemption, Prices
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, PrefixPool

TIGHT = 6                                # blocks of four: two requests of 8 + 8 tokens need eight


def serve(preemption: Preemption) -> Engine:
    engine = Engine(MockExecutor(4), BlockPool(TIGHT, 4), clock=VirtualClock(), checked=True, preemption=preemption)
    for name in "ab":
        engine.add(Request([ord(name) % 32] * 8, SamplingParams(9, ignore_eos=True), id=name))
    list(engine.stream())
    for request in engine.requests.values():
        assert request.output == MockExecutor(4).continue_alone(request.prompt, 9, ignore_eos=True)
    return engine


def test_what_was_computed_is_moved_out_and_in_and_not_computed_again() -> None:
    again, swapped = serve(Preemption()).counters, serve(Preemption("swap", host_blocks=TIGHT)).counters
    assert again.preemptions == swapped.preemptions == 1
    assert again.recomputed_tokens == 12 and again.swapped_out_blocks == 0
    assert swapped.recomputed_tokens == 0 and swapped.swapped_out_blocks == swapped.swapped_in_blocks == 3
    assert swapped.computed_tokens == again.computed_tokens - 12


def test_full_swap_space_falls_back_to_computing_again() -> None:
    counters = serve(Preemption("swap", host_blocks=2)).counters
    assert counters.swapped_out_blocks == 0 and counters.recomputed_tokens == 12


@pytest.mark.parametrize(("block_seconds", "swapped"), [(1.0, 0), (0.001, 3)])
def test_the_cheaper_of_the_two_is_chosen(block_seconds: float, swapped: int) -> None:
    prices = Prices(block_seconds, lambda n: 0.01 * n)        # 12 tokens: 0.12 s, against 6 s or 6 ms
    assert serve(Preemption("cheaper", TIGHT, prices)).counters.swapped_out_blocks == swapped


def test_events_say_what_was_saved_and_restored() -> None:
    engine = serve(Preemption("swap", host_blocks=TIGHT))
    [lost] = [event for event in engine.events if event.kind is EventKind.PREEMPTED]
    back = [event for event in engine.events if event.kind is EventKind.SCHEDULED][-1]
    assert lost.request == back.request == "b"
    assert lost.data["computed"] == lost.data["saved"] == back.data["computed"] == 12 and back.data["restored"] == 3


def test_a_swapped_request_that_is_given_up_leaves_host_memory() -> None:
    engine = Engine(MockExecutor(4), BlockPool(TIGHT, 4), clock=VirtualClock(), checked=True,
                    preemption=Preemption("swap", host_blocks=TIGHT))
    for name in "ab":
        engine.add(Request([ord(name) % 32] * 8, SamplingParams(9, ignore_eos=True), id=name))
    while engine.requests["b"].status is not Status.SWAPPED:
        engine.step()
    host = engine.scheduler.host
    assert host is not None and host.num_used == 3
    assert departing.look(engine, "b").computed == 12 and departing.stop(engine, "b", keep=False).computed == 0
    departing.resume(engine, "b")
    assert engine.requests["b"].status is Status.SWAPPED and host.num_used == 3
    engine.abort("b")
    assert host.num_used == 0


class Told(Policy):
    """Goes by what the test says, and changes its mind when the test does."""

    static, preemptive = False, True

    def __init__(self) -> None:
        self.order = ""

    def key(self, request: Request, now: float) -> float:
        return self.order.index(request.id)


def test_who_comes_back_and_must_give_way_in_the_same_step_is_where_it_was() -> None:
    """F is brought back in B's place, and then A, which goes before F, needs the last block."""
    policy = Told()
    engine = Engine(MockExecutor(4), BlockPool(4, 4), policy, clock=VirtualClock(), checked=True,
                    preemption=Preemption("swap", host_blocks=8))

    def step(order: str, *prompts: int) -> None:
        policy.order = order
        for length in prompts:
            engine.add(Request([3] * length, SamplingParams(9, ignore_eos=True), id=order[0]))
        engine.step()

    step("F", 4)
    step("F")
    step("AF", 6)                                             # two blocks each: memory is full
    policy.order = "ABF"
    engine.add(Request([3] * 3, SamplingParams(9, ignore_eos=True), id="B"))
    engine.step()
    assert engine.requests["F"].status is Status.SWAPPED and engine.counters.swapped_out_blocks == 2
    step("ABF")
    step("AFB")
    names = [(event.kind, event.request) for event in engine.events if event.kind in ("SCHEDULED", "PREEMPTED")]
    assert names[-3:] == [("PREEMPTED", "B"), ("SCHEDULED", "F"), ("PREEMPTED", "F")]
    assert engine.counters.swapped_in_blocks == 0 and engine.counters.swapped_out_blocks == 3
    list(engine.stream())
    assert engine.counters.recomputed_tokens == 0
    for request in engine.requests.values():
        assert request.output == MockExecutor(4).continue_alone(request.prompt, 9, ignore_eos=True)


def test_what_the_cache_has_need_not_come_back_from_the_host() -> None:
    """F is swapped out in the middle of its prompt; then G computes the same prompt and leaves it in the cache."""
    policy = Told()
    policy.order = "AFG"
    engine = Engine(MockExecutor(4), PrefixPool(6, 4), policy, token_budget=3, max_running=3, clock=VirtualClock(),
                    checked=True, preemption=Preemption("swap", host_blocks=8))
    engine.add(Request([3] * 5, SamplingParams(5, ignore_eos=True), id="A"))
    engine.step()
    engine.step()
    engine.add(Request([7] * 14, SamplingParams(2, ignore_eos=True), id="F"))          # four blocks: memory is full
    while engine.requests["F"].status is not Status.SWAPPED:                           # until A needs a third
        engine.step()
    assert engine.requests["F"].computed == 6
    policy.order = "GAF"
    engine.add(Request([7] * 14, SamplingParams(2, ignore_eos=True), id="G"))
    list(engine.stream())
    back = [event for event in engine.events if event.kind == "SCHEDULED" and event.request == "F"][-1]
    assert back.data["computed"] == 12 and back.data["restored"] == 0
    for request in engine.requests.values():
        assert request.output == MockExecutor(4).continue_alone(request.prompt, request.sampling.max_tokens, True)


def test_the_crossover_is_where_the_curves_cross_for_good() -> None:
    dear = Prices(0.1, lambda n: 0.0001 * n * n)              # 0.0125 s a token there and back, against 0.0001 n
    assert dear.crossover(16, 1000) == 135                    # 9 blocks cost 1.8 s; 134 tokens 1.796 s, 135 1.82 s
    assert dear.crossover(16, 134) is None
    assert Prices(1e-6, lambda n: 0.001 + 0.0001 * n).crossover(16, 1000) == 1
    assert Prices(0.1, lambda n: 0.15 if n == 1 else 1.0).crossover(16, 16) == 2, "one token is dearer, and no more"
    equal = Prices(0.5, lambda n: 1.0)
    assert equal.crossover(16, 16) == 1 and equal.crossover(16, 17) is None and equal.swap(17, 16) == 2.0
    assert Preemption("cheaper", 1, equal).would_swap(16, 16) and not Preemption("cheaper", 1, equal).would_swap(17, 16)
    assert Preemption("swap", 1, equal).would_swap(17, 16) and not Preemption("recompute", 1).would_swap(1, 16)


@pytest.mark.parametrize(("mode", "host_blocks", "message"), [
    ("swap", 0, "nowhere to swap to"), ("cheaper", 4, "compares prices"), ("wait", 4, "not one of recompute, swap")])
def test_what_cannot_be_carried_out_is_refused(mode: str, host_blocks: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preemption(mode, host_blocks)


@pytest.mark.parametrize("link", [0.0, -1.0])
def test_a_link_that_carries_nothing_is_refused(link: float) -> None:
    with pytest.raises(UserError, match="bytes a second carries nothing"):
        Engine.simulated("Llama 2 7B", num_blocks=100, preemption="swap", link=link)


def test_a_simulated_link_takes_its_time() -> None:
    def seconds(link: float) -> float:
        engine = Engine.simulated("Llama 2 7B", num_blocks=100, preemption="swap", link=link, checked=True)
        for _ in range(2):
            engine.add(Request([1] * 700, SamplingParams(200, ignore_eos=True)))
        list(engine.stream())
        moved = engine.counters.swapped_out_blocks + engine.counters.swapped_in_blocks
        assert moved > 80
        return engine.clock.now - moved * 16 * 512 * 1024 / link
    assert seconds(1e9) == pytest.approx(seconds(20e9))       # 512 KiB a token, and nothing else differs
