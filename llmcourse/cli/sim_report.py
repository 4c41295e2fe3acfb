"""What `llmcourse sim` says of a run: a table to read, with vLLM's names, and the same numbers for a machine.

The run may be of a stretch of a trace, so the rate that was offered is measured from the arrivals. Weeks 3-5.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from llmcourse.cli.sim_run import BLOCK_SIZE, Outcome, Setup
from llmcourse.metrics.cost import bill
from llmcourse.metrics.fairness import jain, max_service_gap, service_totals
from llmcourse.metrics.percentile import none_for_nan, percentile
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.summary import VLLM_NAMES, summary
from llmcourse.metrics.utilisation import Utilisation
from llmcourse.metrics.words import counted
from llmcourse.workload import Arrival

SHOWN_TENANTS = 10


@dataclass(frozen=True)
class Load:
    """What was asked of the service: where the requests come from, how many, and how many a second (inf: at once)."""

    workload: str
    seed: int
    requests: int
    offered_rate: float

    @classmethod
    def of(cls, workload: str, seed: int, arrivals: Sequence[Arrival]) -> Load:
        """Measure the arrivals themselves: a stretch of a real trace has its own rate."""
        seconds = arrivals[-1].time - arrivals[0].time
        return cls(workload, seed, len(arrivals), (len(arrivals) - 1) / seconds if seconds else math.inf)


def report(setup: Setup, load: Load, outcome: Outcome, notes: Sequence[str] = ()) -> str:
    """Everything, to read."""
    made, kept = summary(outcome.table), attainment(outcome.table)
    parts = [_head(setup, load), *(f"note: {note}" for note in notes), "", made.text(VLLM_NAMES), ""]
    parts += [*_gauges(outcome.utilisation), *outcome.mechanisms.lines()]
    if kept.requests:
        parts.append(str(kept))
    parts += _tenant_lines(outcome)
    if outcome.rent:
        parts += [str(outcome.rent), *_scalings(outcome)]
    elif made.output_tokens:
        parts.append(str(bill(made, setup.machine.hardware, outcome.utilisation.busy, setup.instances)))
    speed = made.requests / outcome.wall_seconds
    return "\n".join([*parts, "", f"simulated {made.duration:.4g} s in {outcome.wall_seconds:.2f} s of wall time, "
                                  f"{counted(round(speed), 'request')} per wall second"])


def as_dict(setup: Setup, load: Load, outcome: Outcome, notes: Sequence[str] = ()) -> dict[str, object]:
    """Everything, ready for JSON."""
    made, served = summary(outcome.table), setup.machine
    settings = {"model": served.model, "hardware": served.hardware.name, "cost": served.cost_name,
                "num_blocks": served.num_blocks, "instances": setup.instances, "policy": setup.policy,
                "admission": setup.admission, "batching": setup.batching, "token_budget": setup.token_budget,
                "max_running": setup.max_running, "itl": setup.itl, "memory": setup.memory,
                "preemption": setup.preemption}
    settings |= {"host_blocks": setup.host_blocks, "link": setup.link, "parking": setup.parking,
                 "dispatch": setup.dispatch or "round-robin", "migrate": setup.migrate, "autoscale": setup.autoscale}
    costs = (bill(made, served.hardware, outcome.utilisation.busy, setup.instances)
             if made.output_tokens and not outcome.rent else None)                # a fleet that grows has a rent
    return {"settings": settings, "load": {name: none_for_nan(value) for name, value in asdict(load).items()},
            "summary": made.as_dict(), "utilisation": outcome.utilisation.as_dict(),
            "recomputed_tokens": outcome.mechanisms.counters.recomputed_tokens,
            "mechanisms": outcome.mechanisms.as_dict(), "attainment": attainment(outcome.table).as_dict(),
            "tenants": [asdict(row) | {"ttft_p50": none_for_nan(row.ttft_p50), "ttft_p99": none_for_nan(row.ttft_p99)}
                        for row in _tenants(outcome)],
            "cost": costs.as_dict() if costs else None,
            "fleet": asdict(outcome.rent) | _stages(outcome) if outcome.rent else None, "notes": list(notes),
            "wall_seconds": outcome.wall_seconds}


def _head(setup: Setup, load: Load) -> str:
    served, among = setup.machine, ""
    if setup.instances > 1 or setup.autoscale:
        among = (f"{setup.dispatch or 'round-robin'} dispatch, "
                 f"{f'{setup.migrate} migration' if setup.migrate else 'no migration'}, "
                 f"{f'fleet by {setup.autoscale}' if setup.autoscale else 'a fixed fleet'}\n")
    return (f"{served.model} on {served.hardware.name}, {counted(setup.instances, 'instance')}"
            f"{' to begin with' if setup.autoscale else ''}, "
            f"{served.num_blocks} KV blocks of {BLOCK_SIZE} tokens, {served.cost_name} cost\n"
            f"{setup.policy}, admission {setup.admission}, {setup.batching} batching, "
            f"budget {setup.token_budget} tokens, at most {setup.max_running} running, "
            + (f"fewer where tokens come more than {setup.itl:g} s apart, " if setup.itl else "")
            + f"{setup.memory} memory, preemption {setup.preemption}{', parking' if setup.parking else ''}\n{among}"
            f"{load.workload}: {counted(load.requests, 'request')}, "
            f"{'all at once' if math.isinf(load.offered_rate) else f'{load.offered_rate:.4g} offered a second'}")


def _scalings(outcome: Outcome) -> list[str]:
    """How often instances came and went."""
    stages = _stages(outcome)
    return [f"{counted(stages['started'], 'instance')} started, {stages['drained']} drained, "
            f"{stages['retired']} retired"]


def _stages(outcome: Outcome) -> dict[str, int]:
    seen = Counter(event.data["stage"] for event in outcome.events if event.kind == "SCALED")
    return {"started": seen["starting"], "drained": seen["draining"], "retired": seen["retired"]}


def _gauges(used: Utilisation) -> list[str]:
    """What a dashboard shows as gauges, as means over the time with a step running."""
    rows = [("vllm:num_requests_running", f"{used.batch:.4g}", f"{used.batch_share:.1%} of the most allowed"),
            ("vllm:num_requests_waiting", f"{used.waiting:.4g}", ""),
            ("vllm:kv_cache_usage_perc", f"{used.kv_usage:.3f}", f"{used.kv_peak:.3f} at most"),
            ("vllm:iteration_tokens_total", f"{used.tokens:.4g}", f"{used.budget_share:.1%} of the budget")]
    width = max(len(name) for name in VLLM_NAMES.values()) + 2
    return [f"{counted(used.steps, 'step')}, busy {used.busy:.1%} of the time; while busy, on average",
            *(f"{name:<{width}}{value:>10}   {more}".rstrip() for name, value, more in rows)]


@dataclass(frozen=True)
class Tenant:
    """One tenant's part: ``service`` counts a prompt token once and an output token twice; times in seconds."""

    tenant: str
    requests: int
    service: float
    ttft_p50: float
    ttft_p99: float

    @classmethod
    def of(cls, name: str, units: float, outcome: Outcome) -> Tenant:
        """Read from the table."""
        ttft = outcome.table["ttft"][outcome.table["tenant"] == name]
        return cls(name, len(ttft), units, percentile(ttft, 50), percentile(ttft, 99))


def _tenants(outcome: Outcome) -> list[Tenant]:
    """Most service first; empty when there is only one."""
    totals = service_totals(outcome.table)
    rows = [Tenant.of(name, units, outcome) for name, units in totals.items()] if len(totals) > 1 else []
    return sorted(rows, key=lambda row: -row.service)


def _tenant_lines(outcome: Outcome) -> list[str]:
    rows = _tenants(outcome)
    if not rows:
        return []
    lines = ["", f"{'tenant':<16}{'requests':>10}{'service':>12}{'TTFT P50':>12}{'TTFT P99':>12}"]
    lines += [f"{row.tenant:<16}{row.requests:>10}{row.service:>12.6g}{row.ttft_p50:>10.4g} s{row.ttft_p99:>10.4g} s"
              for row in rows[:SHOWN_TENANTS]]
    if len(rows) > SHOWN_TENANTS:
        lines.append(f"and {len(rows) - SHOWN_TENANTS} more")
    lines.append(f"Jain's index of service {jain([row.service for row in rows]):.3f} over {len(rows)} tenants "
                 "(service: prompt tokens + 2 x output tokens)")
    return [*lines, *([str(max_service_gap(outcome.events))] if outcome.events else []), ""]
