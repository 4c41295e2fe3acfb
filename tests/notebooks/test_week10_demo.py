"""What the pages of week 10 show is there: shares that part and shares that do not, fleets that grow, lag and drain."""

import pytest

from llmcourse.metrics.fairness import max_service_gap, vtc_bound
from tests.notebooks.demos import demo_of


@pytest.fixture(scope="module")
def demo():
    """The names of the demo."""
    with demo_of(10) as names:
        yield names


def test_every_preset_answers_and_says_what_it_shows(demo):
    for widget, presets in ((demo["shares"], ["counters", "turns", "long turns"]),
                            (demo["autoscaling"], ["usual", "its wrong day"])):
        said = {name: widget.preset(name).summary for name in presets}
        assert len(set(said.values())) == len(presets) and all(text.endswith(".") for text in said.values())


def test_the_gap_grows_under_fcfs_and_is_bounded_under_the_others(demo):
    gaps = {policy: max_service_gap(demo["shared"](policy, 1000, 180)).units for policy in demo["POLICIES"]}
    assert gaps["VTC"] <= vtc_bound(256, 10_000) < gaps["FCFS"]
    assert gaps["VTC"] <= gaps["deficit round robin"] <= vtc_bound(256, 10_000) + 3 * 1000


def test_a_fleet_loses_nobody_and_migration_empties_it_sooner(demo):
    emptied = {}
    for drain in demo["DRAINS"]:
        driver, table = demo["served"]("reactive", 0.6, 60, 26, drain)
        assert table.finished.all()
        gone = [lease.ended - lease.drained for lease in driver.fleet.leases.values() if lease.how == "retired"]
        emptied[drain] = sum(gone) / len(gone)
    assert emptied["migration"] < emptied["waiting"]
