"""S3: memory reserved by prediction, packed or in order of arrival; overruns come back with twice as much."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, VirtualClock
from llmcourse.engine.invariants import check_delivery
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor
from llmcourse.executors.roofline import RooflineExecutor
from llmcourse.kv.memory import OutOfBlocks
from llmcourse.kv.predicted_pool import PredictedPool
from llmcourse.policies import S3
from tests.policies.bench import ask, mocked, serve, simulate_all
from tests.policies.test_any_schedule import Linear


def engine_for(policy: S3, num_blocks: int, block_size: int = 4, slots: int = 4, batching: str = "mixed") -> Engine:
    return Engine(MockExecutor(block_size, max_length=100_000, step_seconds=1.0, token_seconds=0.0),
                  policy.pool(num_blocks, block_size), policy, batching, 64, slots, VirtualClock(), checked=True,
                  admission=policy.admission())


def test_a_run_is_as_long_as_allowed_and_never_grows() -> None:
    pool = PredictedPool(10, 4, {"a": 14, "b": 1})
    pool.open("a", range(5), longest=40)
    pool.open("b", range(1), longest=40)
    assert len(pool.runs["a"]) == 4 and len(pool.table("a")) == 2 and pool.num_free == 5
    assert pool.reserve("a", 14) == ([], [2, 3])
    with pytest.raises(OutOfBlocks, match="'a' needs room for 15 tokens and is allowed 14"):
        pool.reserve("a", 15)
    assert pool.length("a") == 14 and pool.rounds_that_fit(["a"], 5) == 0
    pool.check_invariants()
    pool.free("b")
    assert pool.rounds_that_fit(["a"], 5) == 2 and pool.reserve("a", 17) == ([], [4])   # alone, it may go on
    assert pool.rounds_that_fit(["a"], 5) == 3


def test_whether_a_request_fits_goes_by_what_it_is_allowed() -> None:
    pool = PredictedPool(4, 4, {"small": 8, "large": 17})
    assert pool.fits("small", 5, 40) and not pool.fits("large", 5, 40)
    assert pool.can_open(range(5), 40)                           # the tokens alone would
    assert not pool.fits("stranger", 5, 17) and pool.fits("stranger", 5, 16)


def test_predictions_are_rounded_up_to_buckets_and_cut_where_the_answer_must_end() -> None:
    policy = S3(bucket=8)
    for request in (ask(40, 3, id="a", predicted=9), ask(40, 3, id="b", predicted=0), ask(10, 3, id="c")):
        policy.on_queued(request, 0)
    assert policy.allowed == {"a": 3 + 16, "b": 3 + 8, "c": 3 + 9}


def test_who_overruns_comes_back_with_twice_the_allowance() -> None:
    policy = S3(bucket=4)
    engine = engine_for(policy, 40)          # the neighbour is told all it needs
    allowed: list[int] = []
    serve(engine, [(0, ask(99, 2, id="neighbour")), (0, ask(20, 2, id="a", predicted=3))],
          lambda: allowed.append(policy.allowed.get("a", 0)))
    assert sorted(set(allowed)) == [0, 2 + 4, 2 + 8, 2 + 16, 2 + 19]          # at last all it may ever hold
    assert policy.overruns == engine.counters.preemptions == 3
    assert engine.counters.recomputed_tokens == 6 + 10 + 18


def test_the_last_of_those_who_overran_gives_way_and_without_any_the_last() -> None:
    policy = S3(bucket=1)
    running = [ask(9, id=name, predicted=2) for name in "abc"]
    for request in running:
        policy.on_queued(request, 0.0)
    assert policy.victim(running, 0.0) is running[2]
    for request in running[:2]:
        request.tokens += [1] * 3
    assert policy.victim(running, 0.0) is running[1]


def test_more_run_at_once_than_with_the_maximum_reserved() -> None:
    def peak(predicted: float | None) -> int:
        engine = engine_for(S3(bucket=4), 16)
        most = 0

        def look() -> None:
            nonlocal most
            most = max(most, len(engine.scheduler.running))
        serve(engine, [(0, ask(30, 2, predicted=predicted, id=f"r{n}")) for n in range(4)], look)
        return most
    assert peak(None) == 2 and peak(8) == 4


def test_packing_needs_two_batches_where_arrival_needs_three() -> None:
    """Ten blocks, and requests that are allowed 6, 7, 4 and 3 of them: 6 | 7 | 4 3, or 7 3 | 6 4."""
    started = {}
    for packing in (False, True):
        engine = engine_for(S3(bucket=1, packing=packing), 10, batching="static")
        serve(engine, [(0.0, ask(4 * blocks, id=str(blocks))) for blocks in (6, 7, 4, 3)])
        batches: dict[float, list[str]] = {}
        for event in engine.events:
            if event.kind == "SCHEDULED" and event.request:
                batches.setdefault(event.time, []).append(event.request)
        started[packing] = list(batches.values())
    assert started == {False: [["6"], ["7"], ["4", "3"]], True: [["7", "3"], ["6", "4"]]}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=8),
       st.lists(st.integers(1, 12), max_size=5), st.data())
def test_packing_asks_for_the_largest_that_fits(waiting: list[tuple[int, int]], held: list[int],
                                                data: st.DataObject) -> None:
    policy = S3(bucket=1, packing=True)
    pool = policy.pool(16, 2)
    policy.on_attached(pool)
    for owner, tokens in enumerate(held):                     # leave holes here and there
        if pool.can_open(range(tokens), tokens):
            pool.open(owner, range(tokens), tokens)
    for owner in list(pool.runs):
        if data.draw(st.booleans()):
            pool.free(owner)
    requests = [ask(output, prompt, id=f"j{n}") for n, (prompt, output) in enumerate(waiting)]
    for request in requests:
        request.arrival = 0.0
        policy.on_queued(request, 0.0)
    first = min(requests, key=lambda request: policy.key(request, 0.0))
    hole = max(map(len, pool.holes()), default=0)
    fitting = [n for n in policy.allowed.values() if -(-n // 2) <= hole]
    assert policy.allowed[first.id] == max(fitting or policy.allowed.values())


def test_a_burst_that_is_packed_ends_sooner() -> None:
    """Random lengths, foretold rightly, all there at once: fuller memory, and the longest do not begin last."""
    dice = random.Random(0)
    lengths = [dice.randint(1, 100) for _ in range(40)]
    last = {}
    for packing in (False, True):
        engine = engine_for(S3(bucket=4, packing=packing), 60, slots=40)
        last[packing] = max(serve(engine, [(0.0, ask(tokens)) for tokens in lengths]).values())
        assert engine.counters.preemptions == 0
    assert last[True] < 0.9 * last[False]


def test_in_other_memory_packing_is_first_come_first_served() -> None:
    arrivals = [(0.1 * n, ask(tokens, id=str(tokens))) for n, tokens in enumerate((3, 9, 1))]
    ends = serve(mocked(S3(packing=True)), arrivals)
    assert sorted(ends, key=ends.__getitem__) == ["3", "9", "1"]


def world(jobs: list[tuple[int, int, int, float | None]]) -> list[tuple[float, Request]]:
    return [(at * 0.02, ask(n, prompt, id=f"j{i}", predicted=guess)) for i, (at, prompt, n, guess) in enumerate(jobs)]


JOBS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 8), st.integers(1, 17),
                          st.one_of(st.none(), st.floats(0, 30))), min_size=1, max_size=8)


@settings(max_examples=120, deadline=None)
@given(JOBS, st.integers(24, 40), st.integers(1, 3), st.integers(1, 9), st.booleans())
def test_everybody_is_served_and_only_overruns_are_thrown_out(jobs: list[tuple[int, int, int, float | None]],
                                                             room: int, size: int, bucket: int, packing: bool) -> None:
    policy = S3(bucket, packing)
    engine = engine_for(policy, -(-room // size), size)
    serve(engine, world(jobs))
    check_delivery(engine)
    assert [engine.requests[f"j{i}"].num_output for i in range(len(jobs))] == [job[2] for job in jobs]
    assert policy.overruns == engine.counters.preemptions and not policy.allowed
    assert engine.pool.num_free == engine.pool.num_blocks


@settings(max_examples=120, deadline=None)
@given(JOBS, st.integers(24, 40), st.integers(1, 3), st.integers(1, 9),
       st.sampled_from(["mixed", "continuous", "static"]), st.booleans())
def test_jumping_over_equal_steps_changes_no_decision(jobs: list[tuple[int, int, int, float | None]], room: int,
                                                      size: int, bucket: int, batching: str, packing: bool) -> None:
    def run(jump: bool) -> Engine:
        policy = S3(bucket, packing)
        engine = Engine(RooflineExecutor(Linear()), policy.pool(-(-room // size), size), policy, batching, 16, 3,
                        VirtualClock(), checked=True, admission=policy.admission())
        return simulate_all(engine, world(jobs), jump)
    jumped, stepped = run(True), run(False)
    assert list(jumped.events) == list(stepped.events) and jumped.counters == stepped.counters


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="bucket is 0 tokens"):
        S3(0)
