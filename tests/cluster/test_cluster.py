"""One door to the drivers."""

import pytest

from llmcourse.cluster import Cluster, Freeness, LocalDriver, Rebalance, Reporting, VirtualDriver
from llmcourse.cluster.autoscale import KVBased, QueueBased
from llmcourse.engine import Request, SamplingParams
from llmcourse.errors import UserError
from tests.cluster.worlds import engine


def test_the_usual_cluster_dispatches_by_freeness_and_moves_requests():
    cluster = Cluster(2)
    assert isinstance(cluster, VirtualDriver) and len(cluster.instances) == 2
    assert isinstance(cluster.scheduler.dispatch, Freeness) and cluster.scheduler.rebalance == Rebalance()
    assert Cluster([engine()], "random", rebalance=False).scheduler.rebalance is None


def test_a_local_cluster_serves():
    cluster = Cluster(2, driver="local", build=lambda: engine(num_blocks=40))
    assert isinstance(cluster, LocalDriver)
    outputs = cluster.generate([[1, 2], [3, 4], [5]], SamplingParams(max_tokens=6, ignore_eos=True))
    assert [len(output) for output in outputs] == [6, 6, 6]


@pytest.mark.parametrize("driver", ["virtual", "local"])
def test_every_cluster_can_be_opened_by_with(driver):
    """As one on Ray must be, so that only the driver's name has to be changed."""
    with Cluster(2, driver=driver, build=lambda: engine(num_blocks=40)) as cluster:
        request = cluster.add(Request([1, 2], SamplingParams(max_tokens=6, ignore_eos=True)))
        while cluster.advance():
            pass
    assert len(cluster.tokens(request.id)) == 6


def test_a_cluster_that_grows_by_name():
    cluster = Cluster(1, autoscale="kv")
    assert isinstance(cluster.fleet.autoscaler, KVBased) and cluster.fleet.pool.cold.seconds() > 20
    local = Cluster(1, driver="local", build=lambda: engine(num_blocks=40), reporting=Reporting(0.01),
                    autoscale=QueueBased(wait=0.05, most=3, up_after=0.0))
    outputs = local.generate([[1, i] for i in range(1, 30)], SamplingParams(max_tokens=30, ignore_eos=True))
    assert [len(output) for output in outputs] == [30] * 29 and len(local.instances) == 3
    local.check_invariants()


def test_what_is_not_known_is_refused_in_one_line():
    for arguments, words in ((dict(driver="cloud"), "virtual, local, ray"), (dict(dispatch="best"), "power-of-two"),
                             (dict(autoscale="magic"), "slo-debt")):
        with pytest.raises(UserError, match=words):
            Cluster(2, **arguments)
    with pytest.raises(UserError, match="give their number"):
        Cluster([engine()], driver="ray")
