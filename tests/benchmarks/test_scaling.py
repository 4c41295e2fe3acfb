"""The benchmark of schedulers on few instances: central work grows with them, local work does not; old reports herd."""

import json

from benchmarks import scaling
from benchmarks.scaling import RUNNING, crowded, measure, scheduled, served
from llmcourse.cluster import LeastRequests, Reporting


def test_every_instance_is_really_scheduled():
    instances = [crowded(number) for number in range(3)]
    before = [instance.engine.counters.steps for instance in instances]
    spent, step = scheduled([instance.engine for instance in instances])
    assert [instance.engine.counters.steps for instance in instances] == [steps + 1 for steps in before]
    assert 0 < spent and 0.02 < step < 0.1                    # weights of 7B at an A10's bandwidth
    assert all(instance.report().running == RUNNING for instance in instances)


def test_central_work_grows_with_the_instances():
    instances = [crowded(number) for number in range(16)]
    one, all_ = measure(instances[:1], 5), measure(instances, 5)
    assert all_["stall"] > 4 * one["stall"]                   # 16 times, give or take the machine
    assert all_["dispatch"] < all_["stall"]


def test_who_does_not_count_herds_on_old_reports():
    fresh, old = (served(LeastRequests(), 300, Reporting(age, age), counts=False, seeds=1) for age in (0.1, 4.0))
    counted = served(LeastRequests(), 300, Reporting(4.0, 0.0), seeds=1)
    assert old["imbalance"] > 2 * fresh["imbalance"] and old["ttft_p99"] > fresh["ttft_p99"]
    assert counted["imbalance"] < old["imbalance"] / 2


def test_the_whole_command(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "AGES", ((1.0, 1.0),))
    monkeypatch.setattr(scaling, "SEEDS", 1)
    file = tmp_path / "found.json"
    assert scaling.main(["--instances", "1", "4", "--rounds", "3", "--requests", "60", "--json", str(file)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads(file.read_text()) == found and [row["instances"] for row in found["rows"]] == [1, 4]
    assert len(found["staleness"]["rows"]) == 1 + 2 * 3 and found["local"] > 0
