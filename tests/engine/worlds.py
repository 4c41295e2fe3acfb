"""Random engines with random workloads: what the property tests of the engine run, and how they run it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from hypothesis import strategies as st

from llmcourse.engine import Engine, Policy, Request, SamplingParams, VirtualClock
from llmcourse.engine.preemption import Preemption, Prices
from llmcourse.executors import MockExecutor
from llmcourse.kv import BlockPool, ContiguousPool, Memory, make_pool
from llmcourse.policies import FCFS, SRTF, LongestPrefixFirst, RoundRobin, StaticPriority

VOCABULARY = 8
COMMON = [3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 2, 7, 1, 3, 2, 3]     # what prompts may begin with


class LatestFirst(Policy):
    """Unfair on purpose: newcomers go before everybody."""

    def key(self, request: Request, now: float) -> float:
        return -(request.arrival or 0)


class ShortestPrompt(Policy):
    """Reorders all the time, and preempts its own favourite."""

    def key(self, request: Request, now: float) -> float:
        return len(request.prompt)

    def victim(self, running: Sequence[Request], now: float) -> Request:
        return running[0]


POOLS: dict[str, Callable[[int, int], Memory]] = {
    "paged": BlockPool,
    "hash": partial(make_pool, prefix_cache="hash"),
    "radix": partial(make_pool, prefix_cache="radix"),
    "exact": partial(ContiguousPool, reservation="exact"),
    "growing": partial(ContiguousPool, reservation="growing", fit="best"),
    "compacted": partial(ContiguousPool, reservation="growing", compaction=True),
}


@dataclass
class Job:
    """One request of a random workload: when it comes (in steps), what it asks, and when its owner gives up."""

    step: int
    prompt: list[int]
    max_tokens: int
    ignore_eos: bool
    abort_after: int | None
    n: int = 1
    priority: int = 0


@dataclass
class World:
    """A random engine and its workload."""

    num_blocks: int
    block_size: int
    batching: str
    token_budget: int
    max_running: int
    policy: Policy
    pool: str = "paged"
    preemption: Preemption = field(default_factory=Preemption)
    jobs: list[Job] = field(default_factory=list)

    def memory(self) -> Memory:
        return POOLS[self.pool](self.num_blocks, self.block_size)

    def engine(self) -> Engine:
        return Engine(MockExecutor(self.block_size, vocab_size=VOCABULARY, max_length=1000), self.memory(), self.policy,
                      self.batching, self.token_budget, self.max_running, VirtualClock(), eos_ids=frozenset({0}),
                      checked=True, preemption=self.preemption)

    def alone(self, job: Job) -> list[int]:
        """What each answer to the job must be, whatever happens on the way."""
        return MockExecutor(self.block_size, vocab_size=VOCABULARY).continue_alone(job.prompt, job.max_tokens,
                                                                                   job.ignore_eos)


def preemptions() -> st.SearchStrategy[Preemption]:
    prices = st.sampled_from([Prices(0.01, lambda n: 0.001 * n * n), Prices(1.0, lambda n: 0.5 * n)])
    parking = {"parking": st.booleans()}
    ahead = {"host_blocks": st.integers(1, 12), "parking": st.just(True), "spare": st.integers(1, 6)}
    return st.one_of(st.builds(Preemption, **parking),
                     st.builds(Preemption, mode=st.just("swap"), host_blocks=st.integers(1, 12), **parking),
                     st.builds(Preemption, mode=st.just("swap"), **ahead),
                     st.builds(Preemption, mode=st.just("cheaper"), prices=prices, **ahead),
                     st.builds(Preemption, mode=st.just("cheaper"), host_blocks=st.integers(1, 12), prices=prices))


@st.composite
def worlds(draw: st.DrawFn, pools: Sequence[str] = ("paged",), rich: bool = False) -> World:
    """``rich``: prompts that begin alike, several answers to a prompt, swapping, and preemptive priorities too."""
    block_size = draw(st.integers(1, 5))
    num_blocks = draw(st.integers(2, 14))
    budget = draw(st.integers(1, 24))
    policies: list[Policy] = [FCFS(), LatestFirst(), ShortestPrompt()]
    policies += [StaticPriority(preemptive=True), RoundRobin(2), SRTF(), LongestPrefixFirst()] if rich else []
    world = World(num_blocks, block_size, draw(st.sampled_from(["static", "continuous", "mixed"])), budget,
                  max_running=draw(st.integers(1, min(8, budget))), policy=draw(st.sampled_from(policies)),
                  pool=draw(st.sampled_from(list(pools))),
                  preemption=draw(preemptions()) if rich else Preemption())
    room = num_blocks * block_size
    for _ in range(draw(st.integers(1, 8))):
        length = draw(st.integers(1, room))
        prompt = draw(st.lists(st.integers(1, 7), min_size=length, max_size=length))
        if rich:
            alike = draw(st.integers(0, len(COMMON)))
            prompt = (COMMON[:alike] + prompt)[:length]
        world.jobs.append(Job(
            step=draw(st.integers(0, 12)), prompt=prompt,
            max_tokens=draw(st.integers(1, room - length + 1)), ignore_eos=draw(st.booleans()),
            abort_after=draw(st.one_of(st.none(), st.none(), st.integers(0, 10))),
            n=draw(st.sampled_from([1, 1, 2, 4])) if rich else 1, priority=draw(st.integers(0, 2)) if rich else 0))
    return world


def run(world: World, after_step: Callable[[Engine], None] = lambda engine: None) -> Engine:
    """Play the workload; every step is checked, must do something, and keeps to the budget."""
    engine = world.engine()
    pending = sorted(enumerate(world.jobs), key=lambda item: item[1].step)
    aborts: list[tuple[int, str]] = []
    step = 0
    while pending or not engine.idle:
        while pending and pending[0][1].step <= step:
            number, job = pending.pop(0)
            engine.add(Request(job.prompt, SamplingParams(job.max_tokens, ignore_eos=job.ignore_eos, n=job.n),
                               id=f"j{number}", priority=job.priority))
            if job.abort_after is not None:
                aborts.append((step + job.abort_after, f"j{number}"))
        for _, name in [a for a in aborts if a[0] == step]:
            if not engine.requests[name].done:
                engine.abort(name)
        busy = not engine.idle
        tokens_before = engine.counters.computed_tokens
        engine.step()
        computed = engine.counters.computed_tokens - tokens_before
        assert computed > 0 or not busy, "requests were queued and the step did nothing"
        if world.batching == "mixed":
            assert computed <= world.token_budget
        after_step(engine)
        step += 1
        assert step < 3000, "the queue never empties"
    return engine


def answers(engine: Engine, number: int, job: Job) -> list[Request]:
    """All requests that came of a job."""
    return [engine.requests[name] for name in [f"j{number}", *(f"j{number}/{i}" for i in range(1, job.n))]]
