"""The door to clusters: the same call makes a simulated one, one in this process, and one on Ray. Weeks 7 and 8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmcourse.cluster.autoscale import AUTOSCALERS, Autoscaler, ColdStart
from llmcourse.cluster.dispatch import DISPATCHERS, Dispatcher
from llmcourse.cluster.local import LocalDriver
from llmcourse.cluster.on_ray.driver import RayDriver
from llmcourse.cluster.rebalance import Rebalance
from llmcourse.cluster.virtual import VirtualDriver
from llmcourse.engine.engine import Engine
from llmcourse.errors import UserError

DRIVERS = ("virtual", "local", "ray")


def Cluster(instances: int | Sequence[Engine], dispatch: Dispatcher | str = "freeness",
            rebalance: Rebalance | bool = True, driver: str = "virtual",
            build: Callable[[], Engine] | None = None, autoscale: Autoscaler | str | None = None,
            **options: Any) -> VirtualDriver | LocalDriver | RayDriver:
    """A cluster of engines, or of so many that ``build`` makes; ``options`` as for the driver.

    ``dispatch`` is a dispatcher or its name, ``rebalance`` a rule, True for the usual one, or False. Without ``build``
    a "virtual" cluster simulates Llama 2 7B on A100s, "local" and "ray" run course-tiny. Ray makes its engines in its
    own processes, so it takes a number and a ``build`` that can be pickled. ``autoscale`` is an autoscaler or its name:
    then ``instances`` are the first, and in a simulation each new one takes the time of a cold start. UserError for
    what is not known.
    """
    if driver not in DRIVERS:
        raise UserError(f"no driver {driver!r}; there are {', '.join(DRIVERS)}")
    if isinstance(dispatch, str) and dispatch not in DISPATCHERS:
        raise UserError(f"no dispatcher {dispatch!r}; there are {', '.join(DISPATCHERS)}")
    if isinstance(autoscale, str) and autoscale not in AUTOSCALERS:
        raise UserError(f"no autoscaler {autoscale!r}; there are {', '.join(AUTOSCALERS)}")
    make = build or (Engine.simulated if driver == "virtual" else Engine.from_model)
    chosen = DISPATCHERS[dispatch]() if isinstance(dispatch, str) else dispatch
    rule = Rebalance() if rebalance is True else rebalance or None
    if autoscale is not None:
        options["autoscaler"] = AUTOSCALERS[autoscale]() if isinstance(autoscale, str) else autoscale
    if driver == "ray":
        if not isinstance(instances, int):
            raise UserError(f"Ray makes its engines in its own processes and was given {len(instances)}; give their "
                            "number, and a build that makes one")
        return RayDriver(make, instances, chosen, rule, **options)
    engines = [make() for _ in range(instances)] if isinstance(instances, int) else instances
    if autoscale is not None:
        cold = ColdStart.of() if driver == "virtual" and build is None else ColdStart()
        options = {"build": make, "cold_start": cold} | options
    return (VirtualDriver if driver == "virtual" else LocalDriver)(engines, chosen, rule, **options)
