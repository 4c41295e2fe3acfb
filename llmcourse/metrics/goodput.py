"""Goodput: the highest rate of requests that a service carries and still keeps its promises.

Throughput rises with load until the machine is full, and by then everybody has long been late. So the rate is searched
for at which attainment just reaches a target (90 %): one run that passes below it, one that fails above it, and the
bracket is halved until it is narrow. A run is a sample: near the knee another seed may pass where this one failed, and
the answer is no sharper than that. DistServe (Zhong et al., 2024). Week 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llmcourse.errors import UserError
from llmcourse.metrics.percentile import none_for_nan
from llmcourse.metrics.slo import Attainment, attainment
from llmcourse.metrics.table import Table

if TYPE_CHECKING:
    from llmcourse.workload.slo import SLO


@dataclass(frozen=True)
class Run:
    """One rate that was tried (requests/s), and how many requests were served in time."""

    rate: float
    attainment: Attainment


@dataclass(frozen=True)
class Goodput:
    """The answer of a search: the highest rate that passed and the lowest that failed (requests/s; None: none did).

    ``converged`` is False when the runs were used up before the bracket was narrow, or when there is no bracket.
    """

    target: float
    passed: float | None
    failed: float | None
    converged: bool
    runs: tuple[Run, ...]

    @property
    def rate(self) -> float:
        """Requests/s that surely pass; 0 when even the lowest rate failed."""
        return self.passed or 0.0

    def as_dict(self) -> dict[str, object]:
        """Plain numbers, ready for JSON."""
        runs = [{"rate": run.rate, **run.attainment.as_dict()} for run in self.runs]
        return {**asdict(self), "rate": none_for_nan(self.rate), "runs": runs}

    def __str__(self) -> str:
        """One line."""
        tried = f"{len(self.runs)} runs, target {self.target:.0%}"
        if self.passed is None:
            return f"goodput below {self.failed:.4g} requests/s: even the lowest rate misses ({tried})"
        if self.failed is None:
            return f"goodput at least {self.passed:.4g} requests/s: even the highest rate passes ({tried})"
        open_end = "" if self.converged else "; stopped before the bracket was narrow"
        return f"goodput {self.passed:.4g} requests/s ({self.failed:.4g} already misses; {tried}{open_end})"


def goodput(run: Callable[[float], Table], low: float, high: float, target: float = 0.9, *, slo: SLO | None = None,
            tolerance: float = 0.02, max_runs: int = 20) -> Goodput:
    """Search between two rates (requests/s) for the highest whose run reaches ``target`` (0 to 1) of attainment.

    ``run(rate)`` serves a workload of that rate and returns its table; ``slo`` holds for all requests, None for each
    its own. Stops when the bracket is narrower than ``tolerance`` times its lower end, or after ``max_runs`` runs.
    """
    _check(low, high, target, tolerance, max_runs)
    tried: list[Run] = []

    def passes(rate: float) -> bool:
        tried.append(Run(rate, attainment(run(rate), slo)))
        if not tried[-1].attainment.requests:
            raise UserError(f"the run at {rate:.4g} requests/s has no request with an SLO; "
                            "give slo=SLO(ttft=..., tpot=...)")
        return tried[-1].attainment.both >= target

    if not passes(low):
        return Goodput(target, None, low, False, tuple(tried))
    if passes(high):
        return Goodput(target, high, None, False, tuple(tried))
    while high - low > tolerance * low and len(tried) < max_runs:
        middle = (low + high) / 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return Goodput(target, low, high, high - low <= tolerance * low, tuple(tried))


def _check(low: float, high: float, target: float, tolerance: float, max_runs: int) -> None:
    if not 0 < low < high:
        raise UserError(f"the search goes from low={low} to high={high} requests/s; it needs 0 < low < high")
    if not 0 < target <= 1:
        raise UserError(f"the target is {target}; it is a share of requests, above 0 and at most 1")
    if tolerance <= 0 or max_runs < 2:
        raise UserError(f"tolerance={tolerance} must be above 0 and max_runs={max_runs} at least 2 (both ends)")
