"""The memory benchmark on few requests: paging admits at least twice as many, and with memory to spare no more."""

import json

import pytest

from benchmarks import memory
from benchmarks.memory import AMPLE, AT_ONCE, LONGEST, MEMORIES, SCARCE, knee, serve, sweep, workload

COUNT = 150


@pytest.fixture(scope="module")
def crowded():
    """Every memory with all requests there at once."""
    return {name: serve(name, AT_ONCE, COUNT) for name in MEMORIES}


def test_the_same_requests_come_under_every_load():
    slow, fast, crowd = (workload(load, 50) for load in (0.5, 5.0, AT_ONCE))
    assert [(a.prompt_tokens, a.output_tokens) for a in slow] == [(a.prompt_tokens, a.output_tokens) for a in crowd]
    assert slow[-1].time == pytest.approx(10 * fast[-1].time) and {a.time for a in crowd} == {0.0}
    assert all(a.prompt_tokens + a.output_tokens <= LONGEST for a in slow)


def test_paged_admits_at_least_twice_the_requests_of_reserve_max_at_equal_memory(crowded):
    paged, most = crowded["paged"], crowded["reserve-max"]
    assert paged.usage.running >= 2 * most.usage.running
    assert most.running_peak == 13                            # 56,112 slots, 4,096 each
    assert paged.normalised_latency < most.normalised_latency and paged.throughput > most.throughput


def test_utilisation_lies_where_the_paper_saw_it(crowded):
    """Not to the percent, which other lengths would not give: far below a half, and above nine tenths."""
    assert 0.15 < crowded["reserve-max"].usage.of_taken < 0.45
    assert crowded["paged"].usage.of_taken > 0.9 and crowded["paged"].usage.used > 0.75
    for run in crowded.values():
        usage = run.usage
        assert usage.used + usage.reserved + usage.internal + usage.external + usage.free == pytest.approx(1)


def test_what_each_memory_pays_with(crowded):
    assert crowded["reserve-max"].usage.internal > 0.4                                  # the maximum is seldom reached
    assert crowded["oracle, first fit"].usage.external > 0.02                           # nobody is moved, holes remain
    assert crowded["growing"].preempted > crowded["growing+compaction"].preempted       # holes instead of room
    moved = {name: run.copied_tokens for name, run in crowded.items()}
    assert moved["growing+compaction"] > moved["growing"] > 0 == moved["paged"] == moved["oracle, best fit"]


def test_with_memory_to_spare_paging_gives_nothing():
    paged, most = (serve(name, 2.0, COUNT, AMPLE) for name in ("paged", "reserve-max"))
    assert paged.usage.running == pytest.approx(most.usage.running)
    assert paged.normalised_latency == pytest.approx(most.normalised_latency)
    assert paged.usage.of_taken > 2 * most.usage.of_taken                               # though it uses it better


def test_the_knee_of_paged_memory_comes_later():
    coarse = {"high": 8.0, "tolerance": 0.3}
    assert knee("paged", 100, 10, **coarse) > knee("reserve-max", 100, 10, **coarse) > knee("paged", 100, 1.2, **coarse)


def test_larger_blocks_shorten_tables_and_waste_more():
    one, small, large = sweep(COUNT, (1, 16, 128))
    assert abs(one["last_block_waste"]) < 1e-9
    assert small["last_block_waste"] < 0.02 < large["last_block_waste"]
    assert one["table_entries"] > 15 * small["table_entries"] > 15 * 7 * large["table_entries"]
    for row in (small, large):                                # half a block a request, give or take
        assert 0.3 * row["block_size"] < row["unfilled_slots"] < 0.7 * row["block_size"]


def test_a_run_prints_tables_and_one_line_of_json(capsys, monkeypatch):
    monkeypatch.setattr(memory, "LOADS", {SCARCE: (1.0, AT_ONCE), AMPLE: (AT_ONCE,)})
    monkeypatch.setattr(memory, "SIZES", (16, 64))
    assert memory.main(["--requests", "40", "--no-knee"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    rows = found["models"][SCARCE]["rows"]
    assert [row["memory"] for row in rows] == 2 * list(MEMORIES) and rows[-1]["load"] is None
    assert found["models"][SCARCE]["paged_over_reserve_max"] > 1 and "20.4-38.2 %" in "\n".join(lines)
