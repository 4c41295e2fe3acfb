"""Before `llmcourse sim` runs: options that contradict each other are refused, those that do nothing here are named.

A refusal costs the reader a line, a run that quietly did something else costs them a wrong conclusion. What is a fair
baseline, such as a fair policy over a single tenant, runs, and the report says what came of it. Weeks 3-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcourse.errors import UserError
from llmcourse.metrics.words import counted

if TYPE_CHECKING:
    from llmcourse.cli.sim_run import Setup
    from llmcourse.workload import Arrival

CACHES, CONTIGUOUS = ("hash", "radix"), ("max", "exact", "growing")
BY_SIZE = ("sjf", "srtf", "ssjf", "isrtf", "ltr", "trail")
BY_TENANT = ("vtc", "drr", "dlpm", "quota")
BY_PREFIX = ("lpm", "dlpm")


def word(text: str) -> str:
    """The name in a choice with options."""
    return text.partition(":")[0]


def check_choices(setup: Setup) -> None:
    """UserError for options that contradict each other, whatever the workload."""
    memory, alone = word(setup.memory), setup.instances == 1 and setup.autoscale is None
    if alone and setup.migrate is not None:
        raise UserError(f"--migrate {setup.migrate} needs somewhere to go, and there is one instance; give --instances "
                        "or --autoscale")
    if alone and setup.dispatch is not None:
        raise UserError(f"--dispatch {setup.dispatch} chooses among instances, and there is one; give --instances or "
                        "--autoscale")
    if setup.migrate is not None and memory in CONTIGUOUS:
        raise UserError(f"--memory {setup.memory} keeps KV in one run of neighbours, and only blocks can be sent; "
                        "--migrate takes --memory paged, hash or radix")
    given = {"--host-blocks": setup.host_blocks, "--link": setup.link}
    idle = [name for name, value in given.items() if value is not None]
    if idle and setup.preemption == "recompute":
        raise UserError(f"{' and '.join(idle)}: about swapping, and --preemption recompute never swaps; give "
                        "--preemption swap or cheaper")


def check_workload(setup: Setup, arrivals: Sequence[Arrival]) -> None:
    """UserError for what this workload leaves nothing to do."""
    if setup.instances > len(arrivals):
        raise UserError(f"{setup.instances} instances are more than there are requests ({len(arrivals)})")
    promised = any(arrival.slo and arrival.slo.ttft is not None for arrival in arrivals)
    if word(setup.admission) in ("slo", "shedding") and not promised:
        raise UserError(f"--admission {setup.admission} sends away who would get its first token too late, and no "
                        "request was promised one; give --slo-ttft")


def notes(setup: Setup, arrivals: Sequence[Arrival], rate: float | None = None) -> list[str]:
    """What the reader should know of this run: policies that have nothing to go by here, a rate that is not kept."""
    policy, said = word(setup.policy), []
    if policy in BY_SIZE and any(arrival.predicted is None for arrival in arrivals):
        said.append(f"{policy} goes by predicted lengths; where a request has none it reads the true one, as an "
                    "oracle would")
    if policy in BY_TENANT and len({arrival.tenant for arrival in arrivals}) == 1:
        said.append(f"{policy} shares between tenants, and all requests are of one; --workload arena has several")
    if policy in BY_PREFIX and word(setup.memory) not in CACHES:
        said.append(f"{policy} goes by what a prefix cache has, and --memory {setup.memory} keeps none; "
                    "give --memory hash or radix")
    if policy == "priority" and len({arrival.priority for arrival in arrivals}) == 1:
        said.append("all requests have the same priority, so priority goes by arrival")
    if policy == "edf" and len({arrival.slo for arrival in arrivals}) == 1:
        said.append("all requests are promised the same, so edf goes by arrival")
    if policy == "qlm" and len({arrival.slo for arrival in arrivals}) == 1:
        said.append("qlm lets the tighter promise go first, and all requests are promised the same")
    if rate is not None and len(arrivals) > 1 and (seconds := arrivals[-1].time - arrivals[0].time):
        offered = (len(arrivals) - 1) / seconds
        if not 0.8 < offered / rate < 1.25:
            said.append(f"{counted(len(arrivals), 'request')} are too few for the profile's ups and downs to level "
                        f"out at --rate {rate:g}; --poisson has no ups and downs")
    return said


def check_fleet(setup: Setup, fewest: int, most: int) -> None:
    """UserError when the fleet would begin outside of its own bounds."""
    if not fewest <= setup.instances <= most:
        raise UserError(f"--autoscale {setup.autoscale} keeps {fewest} to {most} instances, and "
                        f"--instances begins with {setup.instances}; begin within the bounds, or set fewest and most")
