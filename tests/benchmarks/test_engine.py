"""`llmcourse bench engine` in its smallest setting, and its workload."""

import json
import statistics
from pathlib import Path

import pytest

from benchmarks import engine
from benchmarks._shapes import SHAPES, mixed_jobs
from benchmarks._worker import Worker


def test_the_smallest_run_ends_in_a_line_of_json(capsys) -> None:
    assert engine.main(["--quick", "--repeats", "1", "--no-peers", "--shape", "course-tiny", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    shape = found["shapes"][0]
    mine = shape["engines"]["llmcourse"]
    assert found["benchmark"] == "engine" and 0 < found["scheduler_us"] < 1e5
    assert shape["requests"] == 8 and 8 <= shape["tokens"] <= 96
    assert 0 < mine["tokens_per_s"] and mine["step_ms"].keys() == shape["floor"]["step_ms"].keys() == {"1", "8"}
    assert "floor (same steps)" in out and "scheduler at 64 running requests" in out


def test_the_workload_is_the_one_that_was_promised_and_always_the_same() -> None:
    jobs = mixed_jobs(SHAPES["12m"], 100)
    assert jobs == mixed_jobs(SHAPES["12m"], 100) and len(jobs) == 64
    assert 55 <= statistics.median(len(job.prompt) for job in jobs) <= 65
    outputs = [job.output for job in jobs]
    assert 30 <= statistics.median(outputs) <= 40 and max(outputs) == 400 and 45 <= statistics.mean(outputs) <= 60
    short = mixed_jobs(SHAPES["135m"], 100)
    assert len(short) == 16 and max(job.output for job in short) <= 64
    assert len(mixed_jobs(SHAPES["135m"].whole(), 100)) == 64


def test_targets_say_met_or_missed() -> None:
    rows = {"llmcourse": {"tokens_per_s": 100.0, "step_ms": {1: 4.4, 8: 9.5}},
            "transformers, static 16": {"tokens_per_s": 19.0}, "vLLM (CPU)": {"tokens_per_s": 101.0}}
    assert [t["met"] for t in engine._targets(SHAPES["12m"], rows)] == [True, False, True, False]


def test_a_peer_that_dies_says_why(tmp_path: Path, monkeypatch) -> None:
    import sys

    from benchmarks import _worker
    (tmp_path / "dies.py").write_text("import sys; sys.exit('no such thing as a model')")
    monkeypatch.setattr(_worker, "HERE", tmp_path)
    with pytest.raises(RuntimeError, match="the peer ended: no such thing as a model"):
        Worker("the peer", sys.executable, "dies.py", tmp_path, 1)
