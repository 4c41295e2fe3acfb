"""Measured step times as a cost model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.metrics.cost_model import blocks_that_fit
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.step_table import Curve, TableCost, derive
from llmcourse.model.shapes import shape
from llmcourse.paths import DATA, ROOT

TABLE = json.loads((DATA / "step_times.json").read_text(encoding="utf-8"))
RUNS = {f"{run['model']}, {run['tensor_parallel']} x {run['gpu']}": run for run in TABLE["runs"]}
CSV = ROOT.parent / "shared" / "traces" / "splitwise_perf_model.csv"
runs = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
points = st.dictionaries(st.integers(1, 10**4), st.floats(1e-3, 10), min_size=2, max_size=10)


def cost_of(run: dict) -> TableCost:
    return TableCost.of(run["model"], run["gpu"], run["tensor_parallel"])


def test_a_reader_s_tour() -> None:
    cost = TableCost.of("llama-2-70b", "a100-80gb", tensor_parallel=4)
    assert cost.seconds(1, 1, 512 + 64, 0) == pytest.approx(0.0450, rel=0.01)              # as measured
    assert cost.seconds(32, 32, 32 * 576, 0) == pytest.approx(0.0523, rel=0.03)
    assert cost.seconds(8192, 1, 0, 0) == pytest.approx((2.278 * 2.893) ** 0.5, rel=0.01)  # between one and sixteen
    mixed = cost.seconds(32 + 512, 33, 32 * 576, 512 * 513 // 2)
    alone = cost.seconds(32, 32, 32 * 576, 0), cost.seconds(512, 1, 0, 512 * 513 // 2)
    assert max(alone) < mixed < sum(alone)                                                 # the weights are read once


@runs
def test_decode_steps_come_out_as_measured(run) -> None:
    cost = cost_of(run)
    for size, ms in run["decode_ms"].items():
        requests = int(size)
        assert cost.seconds(requests, requests, 576 * requests, 0) == pytest.approx(ms / 1e3, rel=0.04), size
    for context, ms in run["decode_at_context_ms"].items():
        assert cost.seconds(1, 1, int(context), 0) == pytest.approx(ms / 1e3, rel=0.06), context


@runs
def test_prompts_come_out_between_the_two_ways_they_were_measured(run) -> None:
    cost = cost_of(run)
    for name, requests in (("prompt_ms", lambda _: 1), ("prompt_batch_ms", lambda tokens: tokens // 512)):
        for size, ms in run[name].items():
            got = cost.seconds(int(size), requests(int(size)), 0, 0)
            assert got == pytest.approx(ms / 1e3, rel=0.21), (name, size)


@runs
@given(tokens=st.integers(1, 10**5), requests=st.integers(1, 400), context=st.integers(0, 10**7))
def test_more_work_never_takes_less_time_within_the_table_and_beyond(run, tokens, requests, context) -> None:
    cost, tokens = cost_of(run), tokens + requests
    took = cost.seconds(tokens, requests, context, 0)
    assert 0.02 < cost.seconds(1, 1, 0, 0) <= took
    assert took <= cost.seconds(tokens + 1, requests, context, 0) + 1e-12
    assert took <= cost.seconds(tokens + 1, requests + 1, context, 0) + 1e-12
    assert took <= cost.seconds(tokens, requests, context + 1000, 0)


@given(st.integers(1, 10**5), st.integers(1, 400), st.lists(st.integers(0, 10**9), min_size=1))
def test_many_steps_at_once_are_bit_for_bit_the_steps_one_by_one(extra, requests, context) -> None:
    cost = TableCost.of("BLOOM 176B", "H100 SXM")
    at_once = cost.seconds(extra + requests, requests, np.array(context), np.array(context))
    assert at_once.tolist() == [cost.seconds(extra + requests, requests, c, c) for c in context]


@given(points, st.floats(1, 10**5))
def test_a_curve_rises_and_meets_points_that_rise(points, x) -> None:
    curve, rising = Curve.through(points.items()), Curve.through((x, x / 7) for x in points)
    assert curve.at(max(x, min(points))) <= curve.at(max(x, min(points)) + 1) + 1e-9
    assert all(rising.at(x) == pytest.approx(x / 7) for x in points)
    assert min(points.values()) <= curve.at(min(points)) <= curve.at(max(points)) <= max(points.values()) + 1e-9


def test_a_curve_by_hand() -> None:
    curve = Curve.through([(1, 10.0), (2, 8.0), (4, 11.0), (8, 15.0)])
    assert curve.points == ((1, 9.0), (2, 9.0), (4, 11.0), (8, 15.0))       # the fall is shared between both
    assert [curve.at(x) for x in (1, 1.5, 3, 8, 10)] == [9.0, 9.0, 10.0, 15.0, 17.0]


def test_what_nobody_measured_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"nobody measured Llama 3 8B on 8 x H100 SXM; there is BLOOM 176B on 8 x"):
        TableCost.of("Llama 3 8B", "H100 SXM")
    with pytest.raises(UserError, match=r"Llama 2 70B on 4 x A100 80 GB"):
        TableCost.of("Llama 2 70B", "A100 80 GB", tensor_parallel=1)


def test_the_gpus_of_a_table_hold_its_model_together() -> None:
    machine = TableCost.of("Llama 2 70B", "A100 80 GB", 4).hardware
    assert (machine.name, machine.memory, machine.watts) == ("4 x A100 80 GB", 320e9, 1600)
    assert blocks_that_fit(machine, shape("Llama 2 70B")) > 20_000
    assert replace(machine, name="A100 80 GB").derated(0.25, 0.25).flops == hardware("A100 80 GB").flops


@pytest.mark.skipif(not CSV.exists(), reason=f"the original, {CSV.name}, is not beside the checkout")
def test_the_table_is_what_its_source_says() -> None:
    assert derive(CSV) == TABLE


def test_deriving_takes_medians_and_leaves_out_what_cannot_be(tmp_path: Path) -> None:
    head = "model,hardware,prompt_size,batch_size,token_size,prompt_time,token_time,tensor_parallel"
    rows = [("llama2-70b,a100-80gb", 512, size, 128, prompt, token, 2)
            for size, prompt, token in ((1, 10, 5), (1, 11, 5), (1, 90, 6), (2, 20, 6), (4, 4, 5.5))]
    rows += [("llama2-70b,a100-80gb", 1024, 1, 128, 21, 5.1, 2), ("llama2-70b,a100-80gb", 512, 1, 256, 99, 99, 2),
             ("llama2-70b,h100-80gb-pcap", 512, 1, 128, 99, 99, 2)]
    path = tmp_path / "times.csv"
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]), encoding="utf-8")
    assert derive(path)["runs"] == [
        {"model": "Llama 2 70B", "gpu": "A100 80 GB", "tensor_parallel": 2, "prompt_ms": {"512": 11, "1024": 21},
         "prompt_batch_ms": {"1024": 20}, "decode_ms": {"1": 5, "2": 6},
         "decode_at_context_ms": {"512": 5, "1024": 5.1}}]


def test_the_table_names_its_source_and_licence() -> None:
    assert "splitwise-sim" in TABLE["source"] and TABLE["licence"].startswith("MIT") and len(RUNS) == 8
