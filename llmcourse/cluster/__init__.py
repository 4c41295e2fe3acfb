"""MANY instances: dispatch, live migration, rebalancing, autoscaling; simulated, in one process, or on Ray.

No torch here, but in what Ray's actors carry; and no ray before a `RayDriver` is made. Weeks 3, 7, 8 and 10.
"""

from llmcourse.cluster.board import Reporting
from llmcourse.cluster.cluster import Cluster
from llmcourse.cluster.d2lpm import D2LPM
from llmcourse.cluster.decisions import Dispatch, Drain, Migrate, ScaleUp
from llmcourse.cluster.dispatch import (
    DISPATCHERS,
    Dispatcher,
    Freeness,
    LeastRequests,
    LeastTokens,
    PowerOfTwo,
    PrefixAware,
    Random,
    RoundRobin,
)
from llmcourse.cluster.global_scheduler import GlobalScheduler
from llmcourse.cluster.instance import Instance
from llmcourse.cluster.link import Link
from llmcourse.cluster.local import LocalDriver
from llmcourse.cluster.methods import METHODS, Terms
from llmcourse.cluster.migration import Migration
from llmcourse.cluster.on_ray.driver import RayDriver
from llmcourse.cluster.rebalance import Rebalance
from llmcourse.cluster.report import LoadReport
from llmcourse.cluster.roles import ByRole
from llmcourse.cluster.virtual import VirtualDriver

__all__ = ["D2LPM", "DISPATCHERS", "METHODS", "ByRole", "Cluster", "Dispatch", "Dispatcher", "Drain", "Freeness",
           "GlobalScheduler", "Instance", "LeastRequests", "LeastTokens", "Link", "LoadReport", "LocalDriver",
           "Migrate", "Migration", "PowerOfTwo", "PrefixAware", "Random", "RayDriver", "Rebalance", "Reporting",
           "RoundRobin", "ScaleUp", "Terms", "VirtualDriver"]
