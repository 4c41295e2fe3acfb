"""The maps of fairness, quality of experience and preemption on small workloads: what each is there to show."""

import pytest

from benchmarks import _decide_fair, _decide_preempt, _decide_qoe
from benchmarks._maps import Map

ALL = _decide_fair.MAPS | _decide_qoe.MAPS | _decide_preempt.MAPS


@pytest.fixture(scope="module")
def maps() -> dict[str, Map]:
    """Every map, quickly, of one seed."""
    return {name: make([0], True) for name, make in ALL.items()}


def figure(made: Map, column: str, **where: object) -> float:
    """The mean in one column of the only row of that description."""
    found, = (row[column].mean for row in made.rows if all(row[key] == value for key, value in where.items()))
    return float(found)


def test_every_map_has_a_row_for_everything_and_tokens_a_second_in_each(maps: dict[str, Map]) -> None:
    for name, made in maps.items():
        assert made.rows and made.note and all(set(row) <= set(made.columns) for row in made.rows), name
        assert any("tokens/s" in column for column in made.columns), name


def test_fair_policies_level_the_two_clients_at_no_cost(maps: dict[str, Map]) -> None:
    made = maps["vtc"]
    assert figure(made, "heavy/light", policy="fcfs") > 1.8 > 1.2 > figure(made, "heavy/light", policy="vtc")
    assert figure(made, "max gap", policy="vtc") < made.verdicts["bound of VTC"]
    assert figure(made, "max gap", policy="fcfs") > made.verdicts["bound of VTC"]
    assert made.verdicts["total service, VTC to FCFS"] == pytest.approx(1, abs=0.03)
    gaps = [figure(made, "max gap", policy=f"drr Q={quantum}") for quantum in ("1,000", "5,000", "20,000")]
    assert gaps == sorted(gaps)


def test_dlpm_keeps_the_hits_and_the_quantum_bounds_the_gap(maps: dict[str, Map]) -> None:
    made = maps["dlpm"]
    small, large = "dlpm Q=1,000", "dlpm Q=80,000"
    assert made.verdicts["at least 1.5 times VTC's throughput at its fairness"]
    assert figure(made, "prefix hit", policy=small) > 0.95 * figure(made, "prefix hit", policy="lpm")
    gap = "max gap, found is free"
    assert figure(made, gap, policy=small) < figure(made, gap, policy=large) <= figure(made, gap, policy="lpm") * 1.01


def test_d2lpm_finds_more_than_round_robin_and_shares_better_than_affinity(maps: dict[str, Map]) -> None:
    made = maps["d2lpm"]
    assert figure(made, "prefix hit", policy="d2lpm Q=1,000") > 1.1 * figure(made, "prefix hit", policy="round robin")
    assert (figure(made, "busiest/mean", policy="d2lpm Q=1,000")
            < figure(made, "busiest/mean", policy="prefix affinity"))


def test_readers_and_promises_are_kept_better(maps: dict[str, Map]) -> None:
    andes, qlm = maps["andes"], maps["qlm"]
    for scarce, how in (("memory", "swap"), ("seats", "park")):
        ratio = {column: figure(andes, column, policy=f"andes, {how}", scarce=scarce)
                 / figure(andes, column, policy="fcfs, swap", scarce=scarce) for column in ("mean QoE", "tokens/s")}
        assert ratio["mean QoE"] >= 1 and ratio["tokens/s"] > 0.9
    assert (figure(qlm, "within SLO", policy="qlm") >= figure(qlm, "within SLO", policy="edf")
            > figure(qlm, "within SLO", policy="fcfs"))


def test_the_closest_to_finishing_wastes_more_than_the_cheapest(maps: dict[str, Map]) -> None:
    each = {row["policy"]: row["tokens each"].mean for row in maps["victims"].rows}
    assert each["closest-to-finishing"] > each["latest-arrival"] > each["cheapest-to-recompute"]


def test_slow_links_recompute_and_fast_ones_swap(maps: dict[str, Map]) -> None:
    rows = [row for row in maps["swap"].rows if row["model"] == "Llama 2 7B" and row["context"] == 1024]
    assert [(row["link (GB/s)"], row["when run"]) for row in rows] == [(12, "recompute"), (20, "swap")]
