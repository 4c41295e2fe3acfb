"""What `llmcourse sim` puts together: a machine, a workload, and the engines that serve it in virtual time.

Several instances are dealt the requests by a dispatcher, and may give them to each other. Weeks 3-8.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from llmcourse.cli.options import chosen
from llmcourse.cli.sim_checks import check_choices, check_fleet, check_workload, word
from llmcourse.cli.sim_memory import MEMORIES, Used
from llmcourse.cluster import DISPATCHERS, METHODS, Dispatcher, Rebalance, VirtualDriver
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
from llmcourse.metrics.rental import Lease, Rent, rent
from llmcourse.metrics.step_table import TableCost
from llmcourse.metrics.table import Table
from llmcourse.metrics.utilisation import Utilisation, utilisation
from llmcourse.metrics.words import counted
from llmcourse.model.shapes import shape
from llmcourse.policies import POLICIES, BacklogLimit, Shedding, SLOAdmission
from llmcourse.workload import SLO, Arrival, Poisson, cut_prompts, profile, read_trace, scale

BLOCK_SIZE = 16


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


def arrivals_of_trace(path: str, requests: int | None, rate: float | None, max_prompt: int | None,
                      seed: int = 0) -> list[Arrival]:
    """The first ``requests`` of a trace file; ``rate`` (requests/s) squeezes or stretches its time.

    ``seed`` spreads requests that a coarse clock put on one tick.
    """
    if not path:
        raise UserError("--trace '' names no file; leave it out for the --workload")
    arrivals = read_trace(path, seed, max_prompt)
    if requests and requests > len(arrivals):
        raise UserError(f"{path} has {counted(len(arrivals), 'request')}, and --requests asks for {requests}; leave it "
                        "out for all of them")
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
    return chosen("--memory", text, {name: partial(make, num_blocks, BLOCK_SIZE) for name, make in MEMORIES.items()},
                  "memory")


IN_MAPS = {"multibin": "bins", "s3": "reservation"}      # policies that are nothing by themselves, and their maps


def make_policy(text: str) -> Policy:
    """A policy by name, with options behind a colon: ``round-robin:quantum=32``."""
    name = word(text)
    if name in IN_MAPS:
        raise UserError(f"--policy {name} brings an admission rule or a memory of its own, and would be first come, "
                        f"first served here; llmcourse bench decide --only {IN_MAPS[name]} measures it")
    return chosen("--policy", text, POLICIES, "policy")


def make_admission(text: str, cost: CostModel) -> Admission:
    """An admission rule by name, options as for a policy: "all", "backlog:tokens=20000", "shedding", "slo"."""
    return chosen("--admission", text, {"all": Admission, "backlog": BacklogLimit, "shedding": Shedding,
                                        "slo": partial(SLOAdmission, cost)}, "admission rule")


def make_dispatcher(text: str | None) -> Dispatcher:
    """A dispatcher by name, options as for a policy: "freeness", "random:seed=3"; None: in turn."""
    return chosen("--dispatch", "round-robin" if text is None else text, DISPATCHERS, "dispatcher")


def make_autoscaler(text: str) -> Autoscaler:
    """An autoscaler by name, options as for a policy: "reactive", "kv:least=10,most=8"."""
    return chosen("--autoscale", text, AUTOSCALERS, "autoscaler")


@dataclass(frozen=True)
class Setup:
    """How every instance is scheduled and where it keeps KV, how many there are, and whether they keep an event log.

    ``host_blocks`` None: as many as the instance has; ``link`` in bytes/s, None: PCIe 4. ``dispatch`` None: in turn;
    ``migrate`` names a method (None: requests stay where they are), ``autoscale`` an autoscaler (None: ``instances``
    all the time); both need the event log. ``itl``: seconds between tokens that each instance keeps by running fewer at
    once; None: it need not.
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
    dispatch: str | None = None
    migrate: str | None = None
    autoscale: str | None = None
    parking: bool = False
    itl: float | None = None

    def __post_init__(self) -> None:
        """Refuse names that nobody has, and options that contradict each other."""
        policy = make_policy(self.policy)
        make_admission(self.admission, self.machine.cost), make_dispatcher(self.dispatch)
        if self.migrate is not None and self.migrate not in METHODS:
            raise UserError(f"no way to move a request called {self.migrate!r}; there are {', '.join(METHODS)}")
        if self.parking and not policy.preemptive:
            raise UserError(f"--parking is for who must give its seat to another, and under {self.policy} nobody must; "
                            "take a preemptive --policy, such as mlfq or round-robin")
        check_choices(self)
        if self.autoscale is not None:
            rule = make_autoscaler(self.autoscale)
            check_fleet(self, rule.fewest, rule.most)


@dataclass(frozen=True)
class Outcome:
    """What came of it; ``events`` is empty when none were kept, ``wall_seconds`` what the simulation itself took."""

    table: Table
    utilisation: Utilisation
    events: list[Event]
    mechanisms: Used
    wall_seconds: float
    rent: Rent | None = None                         # of a fleet that grew and shrank, and what was paid for when
    leases: Sequence[Lease] = ()


def serve(setup: Setup, arrivals: Sequence[Arrival], progress: Callable[[int], None] | None = None) -> Outcome:
    """Play the workload to its end; ``progress`` is told how many requests have been handed in."""
    check_workload(setup, arrivals)
    begin, engines = time.perf_counter(), [_engine(setup) for _ in range(setup.instances)]
    driver = VirtualDriver(engines, make_dispatcher(setup.dispatch), Rebalance() if setup.migrate else None,
                           method=setup.migrate or "live", batch_size=_batch_size(setup), **_scaling(setup))
    table = driver.run(arrivals, progress=progress)
    events = driver.events if setup.keep_events else []
    limits = min(setup.max_running, setup.token_budget), setup.token_budget
    used = utilisation(events, *limits) if events else metered([_meter(engine) for engine in engines], *limits)
    engines = [instance.engine for instance in driver.instances.values()]
    paid, leases = None, list(driver.fleet.leases.values()) if setup.autoscale else []
    if leases:
        end, busy = driver.now, used.busy * used.seconds * used.instances
        paid = rent(leases, end, setup.machine.hardware, busy)
        used = replace(used, busy=busy / HOUR / paid.instance_hours)
    return Outcome(table, used, events, Used.of(engines, driver.migrations), time.perf_counter() - begin, paid,
                   leases)


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
                            parking=setup.parking,
                            policy=make_policy(setup.policy), batching=setup.batching,
                            admission=make_admission(setup.admission, setup.machine.cost),
                            token_budget=setup.token_budget, max_running=setup.max_running,
                            ledger=None if setup.keep_events else Meter())


def _meter(engine: Engine) -> Meter:
    assert isinstance(engine.ledger, Meter)
    return engine.ledger
