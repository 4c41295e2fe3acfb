"""The KV meter says what a slow look at the pool after every step says, stepping or jumping."""

import random

import pytest

from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock, replay
from llmcourse.errors import UserError
from llmcourse.executors import RooflineExecutor
from llmcourse.kv import BlockPool, ContiguousPool
from llmcourse.metrics.kv_meter import KVMeter
from llmcourse.workload import Arrival

POOLS = {"reserve-max": lambda: ContiguousPool(60, 4, "max", max_length=60),
         "exact": lambda: ContiguousPool(60, 4, "exact"),
         "growing": lambda: ContiguousPool(60, 4, compaction=True),
         "paged": lambda: BlockPool(60, 4)}


class Cost:
    def seconds(self, tokens, requests, context, pairs):
        return 0.1 + 0.01 * tokens + 0.0007 * context + 0.0 * pairs


def arrivals():
    source, time, made = random.Random(5), 0.0, []
    for _ in range(40):
        time += source.expovariate(4.0)
        made.append(Arrival(time, source.randint(2, 30), source.randint(1, 30)))
    return made


def metered(name, jumps, look=None):
    pool = POOLS[name]()
    meter = KVMeter(pool)
    engine = Engine(RooflineExecutor(Cost()), pool, clock=VirtualClock(), ledger=meter, token_budget=32)
    if not jumps:
        engine.forward = lambda until=0.0: 0
    if look:
        execute = engine.executor.execute
        def watched(batch):
            result = execute(batch)
            look(engine, batch, result.seconds)
            return result
        engine.executor.execute = watched
    replay(engine, arrivals())
    return meter


@pytest.mark.parametrize("name", POOLS)
def test_a_slow_look_after_every_step_says_the_same(name):
    sums = dict.fromkeys(("seconds", "running", "used", "internal", "external", "taken"), 0.0)

    def look(engine, batch, seconds):
        pool, counts = engine.pool, {item.request.id: item.count for item in batch.items}
        runs = pool.runs if isinstance(pool, ContiguousPool) else pool.tables
        sums["seconds"] += seconds
        sums["running"] += seconds * len(engine.scheduler.running)
        sums["taken"] += seconds * sum(len(run) * 4 for run in runs.values())
        for request in engine.scheduler.running:
            stored = request.computed + counts.get(request.id, 0)
            sums["used"] += seconds * stored
            sums["internal"] += seconds * max(0, len(runs[request.id]) * 4 - max(stored, request.max_cached))
        if isinstance(pool, ContiguousPool) and engine.scheduler.waiting:
            first = engine.scheduler.waiting.first(0.0)
            need = pool.room(len(first.tokens), first.max_cached)
            sums["external"] += seconds * sum(4 * len(hole) for hole in pool.holes() if len(hole) < need)
    usage = metered(name, jumps=False, look=look).usage()
    assert usage.seconds == pytest.approx(sums["seconds"]) and usage.running == pytest.approx(
        sums["running"] / sums["seconds"])
    for part in ("used", "internal", "external"):
        assert getattr(usage, part) == pytest.approx(sums[part] / sums["seconds"] / 240), part
    assert usage.used + usage.reserved + usage.internal == pytest.approx(sums["taken"] / sums["seconds"] / 240)
    assert usage.used + usage.reserved + usage.internal + usage.external + usage.free == pytest.approx(1)
    assert usage.of_taken == pytest.approx(sums["used"] / (sums["taken"] + sums["external"]))


@pytest.mark.parametrize("name", POOLS)
def test_jumping_over_steps_changes_little_or_nothing(name):
    one, many = metered(name, jumps=False), metered(name, jumps=True)
    for pressed in (False, True):
        slow, fast = one.usage(pressed), many.usage(pressed)
        for part in ("seconds", "running", "used"):
            assert getattr(fast, part) == pytest.approx(getattr(slow, part)), part
        for part in ("reserved", "internal", "external", "free"):      # holes and roundings are those of the last step
            exact = name in ("reserve-max", "exact")
            assert getattr(fast, part) == pytest.approx(getattr(slow, part), abs=1e-9 if exact else 0.02), part


def test_what_each_memory_wastes():
    usage = {name: metered(name, jumps=True).usage(pressed=True) for name in POOLS}
    assert usage["reserve-max"].internal > 0.3 and usage["exact"].internal < 0.06
    assert usage["paged"].external == 0 and usage["paged"].reserved + usage["paged"].internal < 0.1
    assert usage["paged"].of_taken > usage["exact"].of_taken > usage["reserve-max"].of_taken
    assert usage["paged"].running >= 2 * usage["reserve-max"].running
    assert usage["paged"].as_dict()["of_taken"] == usage["paged"].of_taken


def test_a_run_without_steps_or_without_a_queue_says_so():
    pool = BlockPool(60, 4)
    meter = KVMeter(pool)
    with pytest.raises(UserError, match="no step was run"):
        meter.usage()
    engine = Engine(RooflineExecutor(Cost()), pool, clock=VirtualClock(), ledger=meter)
    engine.add(Request([1, 2], SamplingParams(max_tokens=3)))
    while not engine.idle:
        engine.step()
    with pytest.raises(UserError, match="nobody ever waited"):
        meter.usage(pressed=True)
    assert meter.usage().running == 1 == meter.running_peak
