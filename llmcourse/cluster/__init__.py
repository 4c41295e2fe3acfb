"""MANY instances: who gets the next request, many engines in one virtual time (weeks 3, 7 and 8). No torch."""

from llmcourse.cluster.dispatch import Dispatch, LeastRequests, RoundRobin
from llmcourse.cluster.virtual import VirtualDriver

__all__ = ["Dispatch", "LeastRequests", "RoundRobin", "VirtualDriver"]
