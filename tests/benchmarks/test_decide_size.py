"""The maps of going by size on few requests: what must hold at any size."""

import pytest

from benchmarks import _decide_bins as bins
from benchmarks import _decide_size as size
from llmcourse.policies import FCFS, SRTF


def test_the_lengths_are_those_the_map_speaks_of() -> None:
    outputs = [a.output_tokens for a in size.workload(1.0, 3000, 0)]
    assert 155 < sum(outputs) / len(outputs) < 180 and max(outputs) == size.LONGEST


def test_past_saturation_order_changes_who_waits_and_not_how_much_is_done() -> None:
    work = size.told("oracle", size.workload(1.2, 1000, 0), 0)
    figures = size.against(size.serve(FCFS(), work)[0], size.serve(SRTF(), work)[0])
    assert figures["JCT mean %"] < -30 and figures["p99 %"] > 0 and abs(figures["tokens/s %"]) < 2


def test_a_larger_error_is_a_smaller_tau() -> None:
    work = size.workload(1.0, 1000, 0)
    taus = [size.tau(size.told(source, work, 0)) for source in ("oracle", "sigma 0.3", "sigma 0.6", "sigma 1.0")]
    assert taus[0] == 1 and taus == sorted(taus, reverse=True)
    assert size.tau(size.told("5 classes", work, 0)) == pytest.approx(0.636, abs=0.04)


def test_bins_win_what_the_closed_form_says_and_nothing_where_requests_leave_one_by_one() -> None:
    work = size.told("oracle", bins._at_once("uniform", 1024, 0), 0)
    one, four = (bins._rate(work, number, "static") for number in (1, 4))
    assert four / one == pytest.approx(bins._gain(4), rel=0.02)
    loose = [bins._rate(work, number, "continuous") for number in (1, 4)]
    assert loose[1] / loose[0] == pytest.approx(1, abs=0.04)
    assert loose[0] > four


def test_a_guess_lets_in_more_than_the_maximum_and_an_overrun_is_paid_for() -> None:
    work = bins._at_once("chat", 400, 0)
    most, wrong = (bins._reserved(name, size.told(source, work, 0)) for name, source in
                   (("maximum reserved", "oracle"), ("S3, sigma 1.0", "sigma 1.0")))
    assert wrong["running"] > 2 * most["running"]
    assert wrong["thrown out per 100"] > 0 and wrong["recomputed %"] > 0 and most["recomputed %"] == 0
