"""The benchmark of migration on few lengths: every method moves, live's pause stays, the others' grow."""

import json
from dataclasses import replace

import pytest

from benchmarks import migration
from benchmarks._moving import AFTER, OTHERS, WARM, overhead
from benchmarks._moving_worlds import Real, Simulated
from llmcourse.cluster import METHODS


@pytest.fixture(scope="module")
def simulated():
    """Two lengths, one eight times the other, in virtual time: the same on every machine."""
    return {length: Simulated().trials(length, tuple(METHODS)) for length in (256, 2048)}


def test_all_methods_move_and_the_client_gets_the_same_tokens(simulated):
    for by_method in simulated.values():
        for trials in by_method.values():
            assert all(trial.outcome == "moved" and trial.same for trial in trials)


def test_how_the_pause_grows_with_length(simulated):
    short, long = ({method: migration.row(length, method, trials, max) for method, trials in simulated[length].items()}
                   for length in (256, 2048))
    assert long["live"]["pause"] <= 2 * short["live"]["pause"]
    assert long["stop-and-copy"]["pause"] > 3 * short["stop-and-copy"]["pause"]
    assert long["recompute"]["pause"] > 5 * short["recompute"]["pause"]
    assert long["live"]["worst_of_bound"] < 1.05                     # orders take the link's latency each
    assert 0 < long["live"]["overhead"] < 0.05
    assert long["live"]["bytes"] >= long["stop-and-copy"]["bytes"] > 1e9 and long["tokens"]["bytes"] == 0


def test_the_pause_that_a_client_sees_is_more_than_the_time_in_nobodys_hands(simulated):
    trial = simulated[2048]["recompute"][0]                          # it is adopted at once, and then computed again
    assert trial.pause > 10 * trial.stopped


def test_overhead_counts_the_same_gaps_of_both_runs():
    world = Simulated()
    base, moved = world.run(256, None, until=3.0), world.run(2048, "live")
    assert len(base.times) == 2 * OTHERS + 1 and base.times == world.run(256, None, until=3.0).times
    assert overhead(base, [base], 3.0) == 0 and overhead(base, [base], base.begun) is None
    assert len(moved.tokens) >= WARM + AFTER and len(moved.times[f"r{OTHERS}"]) == len(moved.tokens)
    slow = {name: [2 * when for when in times] for name, times in base.times.items()}
    assert overhead(replace(base, times=slow), [base, base], 6.0) == pytest.approx(1)


def test_verdicts_come_from_the_rows():
    def entry(tokens, pause, overhead=0.01):
        return {"tokens": tokens, "method": "live", "moved": 1, "trials": 2, "same_tokens": 2, "pause": pause,
                "steps": 10 * pause, "of_bound": pause, "worst_of_bound": 2 * pause, "overhead": overhead, "busy": 0.0}
    said = migration.verdicts([entry(100, 0.1), entry(400, 0.3, None)])
    assert said["grows"] == {"live": pytest.approx(3)} and said["lengths_grow"] == 4 and said["unmoved"] == 2
    assert said["live_overhead"] == 0.01 and said["live_worst_of_bound"] == 0.6 and said["other_tokens"] == 0


def test_real_engines_and_the_whole_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Real, "undisturbed", 20)
    file = tmp_path / "found.json"
    assert migration.main(["--repeats", "1", "--simulated", "256", "--real", "128", "512", "--json", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert json.loads(file.read_text()) == found
    assert [row["method"] for row in found["simulated"]["rows"]] == list(METHODS)
    real = {(row["tokens"], row["method"]): row for row in found["real"]["rows"]}
    assert len(real) == 8 and all(row["moved"] == row["trials"] == 1 for row in real.values())
    assert real[512, "live"]["bytes"] >= real[512, "stop-and-copy"]["bytes"] > 0 == real[512, "recompute"]["bytes"]
    assert real[512, "stop-and-copy"]["last_copy"] > 0.03 > real[512, "live"]["last_copy"]      # 1.6 MB at 50 MB/s
    assert real[512, "live"]["copies"] > real[512, "stop-and-copy"]["copies"] == 1
    assert any("asked: under 5 %" in line for line in lines)
