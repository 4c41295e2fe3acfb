"""The fleet's books: what only a driver knows, as plain data, so that it can outlive the driver.

Who lives on an instance can be asked there when the driver has died (recovery.py). Three things stand nowhere else:
requests that wait in front of all instances, instances that were asked for and are not there yet, and since when all
the others are paid for. They are written here before anything is done about them, and can be pickled after every
change: a service keeps a copy where it survives (a replicated store, as etcd is one), and gives it to the next driver.

A copy may be older than the last things that were done: that a request has found its instance, or that an instance is
ready, the instances say. What was never written to the copy is lost, and its client has to ask again. Week 10.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llmcourse.cluster.autoscale.observed import NEVER_YET
from llmcourse.engine.request import Request
from llmcourse.metrics.rental import Lease


@dataclass
class Books:
    """``leases`` by number of the instance, ``held`` requests in order of arrival, ``num_requests`` that ever came.

    ``due``: when who is starting will be ready (s), where that can be told. ``booted``: when each machine of the warm
    pool may be taken. ``last_up`` and ``last_down``: when instances were last started and drained, but for those of the
    role "batch", after whose changes nobody rests.
    """

    leases: dict[int, Lease] = field(default_factory=dict)
    held: list[Request] = field(default_factory=list)
    due: dict[int, float] = field(default_factory=dict)
    booted: list[float] = field(default_factory=list)
    last_up: float = NEVER_YET
    last_down: float = NEVER_YET
    num_requests: int = 0
