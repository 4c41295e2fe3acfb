"""The door to clusters: the same call makes a simulated one, one in this process, and one on Ray. Weeks 7 and 8."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from inspect import signature
from typing import Any

from llmcourse.cluster.autoscale import AUTOSCALERS, Autoscaler, BatchSize, ColdStart
from llmcourse.cluster.board import Reporting
from llmcourse.cluster.dispatch import DISPATCHERS, Dispatcher
from llmcourse.cluster.driver import Driver
from llmcourse.cluster.instance import Instance
from llmcourse.cluster.link import Link
from llmcourse.cluster.local import LocalDriver
from llmcourse.cluster.methods import METHODS, Terms
from llmcourse.cluster.on_ray.driver import RayDriver
from llmcourse.cluster.rebalance import Rebalance
from llmcourse.cluster.virtual import VirtualDriver
from llmcourse.engine.engine import Engine
from llmcourse.errors import UserError

DRIVERS = ("virtual", "local", "ray")
MOST = 10_000                            # instances: beyond, a slip is likelier than a cluster


def Cluster(instances: int | Sequence[Engine], dispatch: Dispatcher | str = "freeness",
            rebalance: Rebalance | bool | None = True, driver: str = "virtual",
            build: Callable[[], Engine] | None = None, autoscale: Autoscaler | str | None = None,
            **options: Any) -> VirtualDriver | LocalDriver | RayDriver:
    """A cluster of engines, or of so many that ``build`` makes; ``options`` as for the driver.

    ``dispatch`` is a dispatcher or its name, ``rebalance`` a rule, True for the usual one, or False. Without ``build``
    a "virtual" cluster simulates Llama 2 7B on A100s, "local" and "ray" run course-tiny. Ray makes its engines in its
    own processes, so it takes a number and a ``build`` that can be pickled. ``autoscale`` is an autoscaler or its name:
    then ``instances`` are the first, and in a simulation each new one takes the time of a cold start. UserError for
    what is not known.
    """
    _named("driver", driver, DRIVERS)
    _named("dispatcher", dispatch, DISPATCHERS, Dispatcher)
    _named("autoscaler", autoscale, AUTOSCALERS, Autoscaler, None)
    _named("rule to rebalance by", rebalance, (), Rebalance, True, False, None)
    for name, thing in (("link", Link), ("terms", Terms), ("reporting", Reporting), ("cold_start", ColdStart),
                        ("batch_size", BatchSize)):
        _named(name, options.get(name), (), thing, None)
    _named("way to move a request", options.get("method", "live"), METHODS)
    _check_instances(instances, build, autoscale)
    kind = RayDriver if driver == "ray" else VirtualDriver if driver == "virtual" else LocalDriver
    known = {name for each in (Driver, kind) for name, about in signature(each.__init__).parameters.items()
             if about.kind is about.KEYWORD_ONLY} - {"autoscaler", "build"}
    if not known.issuperset(options):
        raise UserError(f"a {driver} cluster has no option {min(set(options) - known)!r}; there are "
                        f"{', '.join(sorted(known))}")
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


def _named(kind: str, given: object, known: Collection[str], *others: object) -> None:
    """UserError for what is neither a known name nor one of the ``others``, which are classes or values."""
    if isinstance(given, str):
        if given in known:
            return
    elif any(isinstance(given, each) if isinstance(each, type) else given is each for each in others):
        return
    there = [*known, *(f"{each.__name__}(...)" if isinstance(each, type) else str(each) for each in others)]
    raise UserError(f"no {kind} {given!r}; there are {', '.join(there)}")


def _check_instances(instances: object, build: object, autoscale: object) -> None:
    if build is not None and not callable(build):
        raise UserError(f"build is {build!r}; give a function without arguments that makes an Engine, such as "
                        "partial(Engine.simulated, gpu='A10')")
    if isinstance(instances, int) and not isinstance(instances, bool):
        if not 1 <= instances <= MOST:
            raise UserError(f"a cluster of {instances} instances; give 1 to {MOST:,}")
        return
    engines = isinstance(instances, Sequence) and all(isinstance(each, Engine | Instance) for each in instances)
    if not engines or not instances:
        raise UserError(f"instances is {str(instances)[:60]!r}; give how many, from 1, or a list of Engines")
    if build is not None and autoscale is None:
        raise UserError("build makes engines, and they are there already; give one of the two")
