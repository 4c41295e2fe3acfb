"""The door to clusters refuses what no cluster can be made of, before anything is made."""

from functools import partial

import pytest

from llmcourse.cluster import DISPATCHERS, Cluster
from llmcourse.cluster.dispatch import Freeness, PrefixAware
from llmcourse.cluster.link import Link
from llmcourse.cluster.methods import Terms
from llmcourse.cluster.rebalance import Rebalance
from llmcourse.engine import Engine
from llmcourse.errors import UserError
from llmcourse.workload import Arrival

BUILD = partial(Engine.simulated, gpu="A10", num_blocks=100)


@pytest.mark.parametrize(("instances", "options", "said"), [
    (0, {}, "give 1 to 10,000"), (-1, {}, "give 1 to 10,000"), (10**9, {}, "give 1 to 10,000"),
    (True, {}, "how many, from 1"), (1.5, {}, "how many, from 1"), ("3", {}, "how many, from 1"),
    (None, {}, "how many, from 1"), ([], {}, "how many, from 1"), ([1, 2], {}, "how many, from 1"),
    (BUILD, {}, "how many, from 1"), (2, {"build": "engine"}, "a function without arguments"),
    (2, {"driver": "VIRTUAL"}, "no driver 'VIRTUAL'; there are virtual, local, ray"),
    (2, {"dispatch": "best"}, "no dispatcher 'best'; there are random"), (2, {"dispatch": 3}, "no dispatcher 3"),
    (2, {"dispatch": Freeness}, "no dispatcher"), (2, {"rebalance": "yes"}, "no rule to rebalance by 'yes'"),
    (2, {"autoscale": True}, "no autoscaler True"), (2, {"method": "teleport"}, "no way to move a request 'teleport'"),
    (2, {"link": 5}, "no link 5; there are Link"), (2, {"bogus": 1}, "a virtual cluster has no option 'bogus'"),
    (2, {"driver": "local", "address": "x:1"}, "a local cluster has no option 'address'")])
def test_what_is_no_cluster_is_refused_in_one_line(instances, options, said):
    with pytest.raises(UserError) as error:
        Cluster(instances, **({"build": BUILD} | options))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_engines_and_a_build_are_one_too_many_unless_the_fleet_grows():
    engines = [BUILD(), BUILD()]
    with pytest.raises(UserError, match="give one of the two"):
        Cluster(engines, build=BUILD)
    assert len(Cluster(engines, build=BUILD, autoscale="kv").run([Arrival(0.0, 10, 5)])) == 1


@pytest.mark.parametrize("name", DISPATCHERS)
def test_dispatchers_by_name(name):
    assert len(Cluster(2, dispatch=name, build=BUILD, rebalance=None).run([Arrival(0.0, 10, 5)] * 3)) == 3


@pytest.mark.parametrize(("workload", "said"), [
    (None, "this is NoneType"), (["a"], "number 1 is 'a'"), ([Arrival(float("nan"), 10, 5)], "comes at nan s"),
    ([Arrival(float("inf"), 10, 5)], "comes at inf s"), ([Arrival(-1.0, 10, 5)], "comes at -1.0 s"),
    ([Arrival(1.0, 10, 5), Arrival(0.5, 10, 5)], "sort the workload by time")])
def test_what_is_no_workload_is_refused(workload, said):
    with pytest.raises(UserError, match=said):
        Cluster(2, build=BUILD).run(workload)


def test_a_simulation_has_no_words():
    with pytest.raises(UserError, match="give run"):
        Cluster(1, build=BUILD).generate(["Count from 3 to 9."])


@pytest.mark.parametrize(("make", "said"), [
    (lambda: Rebalance(below=float("nan")), "below is nan"), (lambda: Rebalance(rest=-1), "a rest of -1 s"),
    (lambda: Link(latency=float("nan")), "latency is nan"), (lambda: Link("fast"), "bandwidth is 'fast'"),
    (lambda: Terms(0), "block_size, stages and rounds are at least 1"),
    (lambda: Terms(16, stages=1.5), "stages is 1.5"),
    (lambda: PrefixAware(prefix_tokens=0), "at least 1 token"), (lambda: PrefixAware(bound=float("nan")), "bound nan")])
def test_settings_that_mean_nothing_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
