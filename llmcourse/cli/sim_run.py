"""What `llmcourse sim` puts together: a machine, a workload, and the engines that serve it in virtual time.

Several instances are dealt the requests by a dispatcher, and may give them to each other. Weeks 3-8.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from llmcourse.cli.sim_memory import Used, known
from llmcourse.cluster import DISPATCHERS, METHODS, Rebalance, VirtualDriver
from llmcourse.cluster.autoscale import AUTOSCALERS, Autoscaler, BatchSize, ColdStart
from llmcourse.engine import Engine
from llmcourse.engine.admission import Admission
from llmcourse.engine.events import Event
from llmcourse.engine.policy import Policy
from llmcourse.errors import UserError
from llmcourse.kv import Memory
from llmcourse.metrics.cost import HOUR
from llmcourse.metrics.cost_model import CostModel, RooflineCost, blocks_that_fit
from llmcourse.metrics.hardware import Hardware, hardware
from llmcourse.metrics.meter import Meter, metered
from llmcourse.metrics.rental import Rent, rent
from llmcourse.metrics.step_table import TableCost
from llmcourse.metrics.table import Table
from llmcourse.metrics.utilisation import Utilisation, utilisation
from llmcourse.model.shapes import shape
from llmcourse.policies import POLICIES, BacklogLimit, Shedding, SLOAdmission
from llmcourse.workload import SLO, Arrival, Poisson, cut_prompts, profile, read_trace, scale

BLOCK_SIZE = 16
Made = TypeVar("Made")


@dataclass(frozen=True)
class Machine:
    """One instance's hardware (all its GPUs together), what a step costs on it, and its KV blocks."""

    model: str
    hardware: Hardware
    cost_name: str
    cost: CostModel
    num_blocks: int


def machine(model: str, gpu: str, gpus: int, cost: str, num_blocks: int | None) -> Machine:
    """A model on so many GPUs of a kind; ``cost`` is "roofline" or "table" (measured steps).

    ``num_blocks`` None takes what fits beside the weights. Raises UserError for what is not known or does not fit.
    """
    config = shape(model)
    together = hardware(gpu).together(gpus) if gpus > 1 else hardware(gpu)
    seconds: CostModel = TableCost.of(model, gpu, gpus) if cost == "table" else RooflineCost(together, config)
    blocks = blocks_that_fit(together, config, BLOCK_SIZE) if num_blocks is None else num_blocks
    return Machine(model, together, cost, seconds, blocks)


def arrivals_of_trace(path: str, requests: int | None, rate: float | None, max_prompt: int | None) -> list[Arrival]:
    """The first ``requests`` of a trace file; ``rate`` (requests/s) squeezes or stretches its time."""
    arrivals = read_trace(path, max_prompt=max_prompt)
    arrivals = arrivals[:requests] if requests else arrivals
    if rate is None:
        return arrivals
    seconds = arrivals[-1].time
    if not seconds:
        raise UserError("all requests of the trace come at once: it has no rate to change; leave --rate out")
    return scale(arrivals, (len(arrivals) - 1) / rate / seconds)


def arrivals_of_profile(name: str, requests: int, rate: float | None, poisson: bool, seed: int,
                        max_prompt: int | None) -> list[Arrival]:
    """Requests like those of a trace; ``poisson``: at an even rate instead of its ups and downs."""
    found = profile(name)
    if poisson:
        arrivals = found.generate(requests, seed, process=Poisson(rate or found.rate))
    else:
        arrivals = found.generate(requests, seed, rate)
    return arrivals if max_prompt is None else cut_prompts(arrivals, max_prompt)


def promised(arrivals: list[Arrival], ttft: float | None, tpot: float | None) -> list[Arrival]:
    """The same with one SLO for all; without limits each keeps its own."""
    if ttft is None and tpot is None:
        return arrivals
    slo = SLO(ttft, tpot)
    return [replace(arrival, slo=slo) for arrival in arrivals]


def check_room(arrivals: Sequence[Arrival], memory: Memory) -> None:
    """UserError when a request can never fit, before anything runs."""
    needs = [arrival.prompt_tokens + arrival.output_tokens - 1 for arrival in arrivals]
    long = [tokens for tokens in needs if not memory.could_ever_hold(tokens)]
    if long:
        raise UserError(f"{len(long)} of {len(arrivals)} requests need more KV than an instance gives one of them: the "
                        f"largest {max(long)} tokens, of {memory.capacity} in all; cut prompts with --max-prompt, take "
                        "more --gpus, a larger --gpu or a smaller --model, or more max_length with --memory max")


def make_memory(text: str, num_blocks: int) -> Memory:
    """KV memory by name, options behind a colon: "paged", "radix", ``max:max_length=4096``."""
    name, options = _choice("--memory", text)
    return _made("--memory", text, partial(known(name), num_blocks, BLOCK_SIZE), options)


IN_MAPS = {"multibin": "bins", "s3": "reservation"}      # policies that are nothing by themselves, and their maps


def make_policy(text: str) -> Policy:
    """A policy by name, with options behind a colon: ``round-robin:quantum=32``."""
    name, options = _choice("--policy", text)
    if name in IN_MAPS:
        raise UserError(f"--policy {name} brings an admission rule or a memory of its own, and would be first come, "
                        f"first served here; llmcourse bench decide --only {IN_MAPS[name]} measures it")
    return _made("--policy", text, POLICIES[name], options)


def make_admission(text: str, cost: CostModel) -> Admission:
    """An admission rule by name, options as for a policy: "all", "backlog:tokens=20000", "shedding", "slo"."""
    name, options = _choice("--admission", text)
    rules = {"all": Admission, "backlog": BacklogLimit, "shedding": Shedding, "slo": partial(SLOAdmission, cost)}
    if name not in rules:
        raise UserError(f"no admission rule {name!r}; there are {', '.join(rules)}")
    return _made("--admission", text, rules[name], options)


def make_autoscaler(text: str) -> Autoscaler:
    """An autoscaler by name, options as for a policy: "reactive", "kv:least=10,most=8"."""
    name, options = _choice("--autoscale", text)
    if name not in AUTOSCALERS:
        raise UserError(f"no autoscaler {name!r}; there are {', '.join(AUTOSCALERS)}")
    return _made("--autoscale", text, AUTOSCALERS[name], options)


def _made(flag: str, text: str, make: Callable[..., Made], options: dict[str, Any]) -> Made:
    try:
        return make(**options)
    except TypeError as error:                       # an option that it does not have, or of the wrong kind
        raise UserError(f"{flag} {text}: {error}") from None


def _choice(flag: str, text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = text.partition(":")
    return name, dict(_option(flag, text, part) for part in rest.split(",") if part)


def _option(flag: str, text: str, part: str) -> tuple[str, Any]:
    name, equals, value = part.partition("=")
    if not equals:
        raise UserError(f"{flag} {text}: {part!r} is no option; write name:option=value,option=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


@dataclass(frozen=True)
class Setup:
    """How every instance is scheduled and where it keeps KV, how many there are, and whether they keep an event log.

    ``host_blocks`` None: as many as the instance has; ``link`` in bytes/s, None: PCIe 4. ``migrate`` names a method
    (None: requests stay where they are), ``autoscale`` an autoscaler (None: ``instances`` all the time); both need the
    event log. ``itl``: seconds between tokens that each instance keeps by running fewer at once; None: it need not.
    """

    machine: Machine
    policy: str = "fcfs"
    admission: str = "all"
    batching: str = "mixed"
    token_budget: int = 512
    max_running: int = 128
    instances: int = 1
    keep_events: bool = False
    memory: str = "paged"
    preemption: str = "recompute"
    host_blocks: int | None = None
    link: float | None = None
    dispatch: str = "round-robin"
    migrate: str | None = None
    autoscale: str | None = None
    itl: float | None = None

    def __post_init__(self) -> None:
        """Refuse names that nobody has."""
        if self.dispatch not in DISPATCHERS:
            raise UserError(f"no dispatcher {self.dispatch!r}; there are {', '.join(DISPATCHERS)}")
        if self.migrate is not None and self.migrate not in METHODS:
            raise UserError(f"no way to move a request called {self.migrate!r}; there are {', '.join(METHODS)}")


@dataclass(frozen=True)
class Outcome:
    """What came of it; ``events`` is empty when none were kept, ``wall_seconds`` what the simulation itself took."""

    table: Table
    utilisation: Utilisation
    events: list[Event]
    mechanisms: Used
    wall_seconds: float
    rent: Rent | None = None                         # of a fleet that grew and shrank


def serve(setup: Setup, arrivals: Sequence[Arrival], progress: Callable[[int], None] | None = None) -> Outcome:
    """Play the workload to its end; ``progress`` is told how many requests have been handed in."""
    if setup.instances > len(arrivals):
        raise UserError(f"{setup.instances} instances are more than there are requests ({len(arrivals)})")
    begin, engines = time.perf_counter(), [_engine(setup) for _ in range(setup.instances)]
    driver = VirtualDriver(engines, DISPATCHERS[setup.dispatch](), Rebalance() if setup.migrate else None,
                           method=setup.migrate or "live", batch_size=_batch_size(setup), **_scaling(setup))
    table = driver.run(arrivals, progress=progress)
    events = driver.events if setup.keep_events else []
    limits = min(setup.max_running, setup.token_budget), setup.token_budget
    used = utilisation(events, *limits) if events else metered([_meter(engine) for engine in engines], *limits)
    engines = [instance.engine for instance in driver.instances.values()]
    paid = None
    if setup.autoscale:
        end, busy = driver.now, used.busy * used.seconds * used.instances
        paid = rent(driver.fleet.leases.values(), end, setup.machine.hardware, busy)
        used = replace(used, busy=busy / HOUR / paid.instance_hours)
    return Outcome(table, used, events, Used.of(engines), time.perf_counter() - begin, paid)


def _batch_size(setup: Setup) -> BatchSize | None:
    most = min(setup.max_running, setup.token_budget)
    return None if setup.itl is None else BatchSize(setup.itl, min(8, most), most=most)


def _scaling(setup: Setup) -> dict[str, Any]:
    return {} if setup.autoscale is None else {
        "autoscaler": make_autoscaler(setup.autoscale), "build": partial(_engine, setup),
        "cold_start": ColdStart.of(setup.machine.model)}


def _engine(setup: Setup) -> Engine:
    return Engine.simulated(setup.machine.model, cost=setup.machine.cost,
                            block_pool=make_memory(setup.memory, setup.machine.num_blocks),
                            preemption=setup.preemption, host_blocks=setup.host_blocks, link=setup.link,
                            policy=make_policy(setup.policy), batching=setup.batching,
                            admission=make_admission(setup.admission, setup.machine.cost),
                            token_budget=setup.token_budget, max_running=setup.max_running,
                            ledger=None if setup.keep_events else Meter())


def _meter(engine: Engine) -> Meter:
    assert isinstance(engine.ledger, Meter)
    return engine.ledger
