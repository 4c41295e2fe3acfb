"""Invariants 1-3, 5 and 7 with everything that can happen to KV: forks, copies on write, prefix hits, swaps, moves."""

from collections import Counter, defaultdict

from hypothesis import given, settings

from llmcourse.engine import Engine, Status
from llmcourse.engine.events import EventKind
from llmcourse.engine.invariants import check_delivery
from llmcourse.engine.tables import Tables, follow
from tests.engine.worlds import POOLS, World, answers, run, worlds

seen: Counter[str] = Counter()           # how often each mechanism was really used, over all schedules


@settings(max_examples=2000, deadline=None)
@given(worlds(pools=tuple(POOLS), rich=True))
def test_whatever_happens_to_its_blocks_an_answer_stays_the_same(world: World) -> None:
    engine = run(world)
    check_delivery(engine)
    assert engine.pool.num_free == world.num_blocks and engine.pool.num_shared == 0
    assert engine.scheduler.host is None or engine.scheduler.host.num_used == 0
    for number, job in enumerate(world.jobs):
        alone = world.alone(job)
        for request in answers(engine, number, job):
            if request.status is Status.ABORTED:
                assert request.output == alone[:len(request.output)]
            else:
                assert request.status is Status.FINISHED and request.output == alone
    check_books(engine)
    for name in ("preemptions", "parked", "copied_blocks", "forked_tokens", "hit_tokens", "swapped_out_blocks",
                 "swapped_in_blocks"):
        seen[name] += getattr(engine.counters, name) > 0


def test_the_schedules_really_did_all_of_it() -> None:
    """Runs after the property: a mechanism that hardly ever happened would not have been tested."""
    print(dict(seen))
    assert min(seen[name] for name in ("preemptions", "parked", "copied_blocks", "forked_tokens", "hit_tokens",
                                       "swapped_out_blocks", "swapped_in_blocks")) >= 40, seen


def check_books(engine: Engine) -> None:
    """Every computed token is new, or was had before and lost; what was taken over, found or kept was not computed."""
    had: dict[str, int] = defaultdict(int)                    # the most KV a request ever had, computed or found
    found = 0
    for event in engine.events:
        if event.kind is EventKind.SCHEDULED:
            found += max(0, event.data["computed"] - had[str(event.request)])
            had[str(event.request)] = max(had[str(event.request)], event.data["computed"])
        elif event.kind is EventKind.STEP:
            for name, start, count in event.data["batch"]:
                had[name] = max(had[name], start + count)
    counters = engine.counters
    assert counters.computed_tokens == sum(had.values()) - found + counters.recomputed_tokens
    assert counters.hit_tokens + counters.forked_tokens >= found
    assert counters.preemptions == sum(event.kind is EventKind.PREEMPTED for event in engine.events)


@settings(max_examples=200, deadline=None)
@given(worlds(pools=tuple(POOLS), rich=True))
def test_the_log_rebuilds_every_table(world: World) -> None:
    tables: Tables = {}
    read = 0

    def compare(engine: Engine) -> None:
        nonlocal read
        for event in engine.events[read:]:
            follow(tables, event)
        read = len(engine.events)
        assert tables == {owner: tuple(table) for owner, table in engine.pool.tables.items()}

    run(world, compare)


@settings(max_examples=200, deadline=None)
@given(worlds(rich=True))
def test_at_most_one_partial_block_is_wasted_per_sequence(world: World) -> None:
    def measure(engine: Engine) -> None:
        for request in engine.scheduler.running:
            slots = len(engine.pool.table(request.id)) * world.block_size
            assert slots - len(request.tokens) < world.block_size

    run(world, measure)
