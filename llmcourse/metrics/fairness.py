"""Who got how much: service by tenant, Jain's index, and the gap between two who both want more.

Service counts tokens, an output token twice an input token, because that is about what they cost. Equal service is not
owed to everybody: who asks for little gets little. It is owed to tenants while both are backlogged, that is while both
have requests in the queue; so the gap is taken over stretches of time in which both are. Sheng et al., "Fairness in
Serving Large Language Models" (VTC), 2024; Jain, Chiu and Hawe, 1984. Weeks 3 and 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from llmcourse.errors import UserError
from llmcourse.metrics.table import Table

if TYPE_CHECKING:
    from llmcourse.engine.events import Event


def jain(values: Sequence[float] | np.ndarray) -> float:
    """From 1 (all alike) down to 1/n (one has everything); NaN of nothing to share."""
    found = np.asarray(values, dtype=float)
    if (found < 0).any():
        raise UserError(f"{found.min():g} is no share of anything; Jain's index is of values from 0 up")
    if not found.any():
        return float("nan")
    found = found / found.max()                      # units cancel; squares of tiny ones would vanish
    return float(found.sum() ** 2 / (len(found) * (found**2).sum()))


@dataclass(frozen=True, eq=False)
class Curve:
    """What one tenant has got, as a step function: ``units`` (points,) from each of ``times`` (points,) s on."""

    times: np.ndarray
    units: np.ndarray

    @property
    def total(self) -> float:
        """Service in the end."""
        return float(self.units[-1]) if len(self.units) else 0.0

    def at(self, time: float) -> float:
        """Service up to and with that moment."""
        place = int(np.searchsorted(self.times, time, side="right"))
        return float(self.units[place - 1]) if place else 0.0

    def between(self, start: float, end: float) -> float:
        """Service after ``start``, up to and with ``end``."""
        return self.at(end) - self.at(start)


@dataclass(frozen=True)
class ServiceGap:
    """The largest difference in service between two tenants while both were backlogged.

    ``ahead`` got ``units`` more than ``behind`` from ``start`` to ``end`` (s). 0 units and empty names: never were two
    backlogged together.
    """

    units: float
    ahead: str = ""
    behind: str = ""
    start: float = 0.0
    end: float = 0.0

    def as_dict(self) -> dict[str, float | str]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """One line."""
        if self.ahead == self.behind:
            return "no two tenants were backlogged at the same time"
        return (f"{self.ahead!r} got {self.units:.6g} units of service more than {self.behind!r} "
                f"between {self.start:.4g} s and {self.end:.4g} s, while both had requests waiting")


def service(events: Iterable[Event], input_weight: float = 1, output_weight: float = 2,
            weights: Mapping[str, float] | None = None, found_is_free: bool = False) -> dict[str, Curve]:
    """Each tenant's service over time, sorted by name.

    A prompt is counted whole when its request is first admitted, an output token when it is delivered; what is computed
    again after a preemption is nobody's service. ``weights`` say what a tenant has paid for (default 1): its service
    is divided by it. ``found_is_free``: prompt tokens found in a cache do not count (DLPM's cost).
    """
    charges, _ = _charges(events, input_weight, output_weight, found_is_free)
    return {tenant: _curve(made, (weights or {}).get(tenant, 1.0)) for tenant, made in sorted(charges.items())}


def service_totals(table: Table, input_weight: float = 1, output_weight: float = 2) -> dict[str, float]:
    """Each tenant's service at the end of a run, from its table."""
    served = ~np.isnan(table["queue_time"])
    units = np.where(served, input_weight * table["prompt_tokens"], 0) + output_weight * table["output_tokens"]
    return {tenant: float(units[table["tenant"] == tenant].sum()) for tenant in table.tenants}


def max_service_gap(events: Iterable[Event], input_weight: float = 1, output_weight: float = 2,
                    weights: Mapping[str, float] | None = None, found_is_free: bool = False) -> ServiceGap:
    """The largest gap between any two tenants while both are backlogged; options as `service`."""
    charges, waiting = _charges(events, input_weight, output_weight, found_is_free)
    tenants = sorted(charges)
    times = np.unique([time for made in (*charges.values(), *waiting.values()) for time, _ in made])
    units = [_running_sum(times, charges[name]) / (weights or {}).get(name, 1.0) for name in tenants]
    backlogged = [_running_sum(times, waiting.get(name, [])) > 0 for name in tenants]
    worst = ServiceGap(0.0)
    for i, j in combinations(range(len(tenants)), 2):
        for first, last in _stretches(backlogged[i] & backlogged[j]):
            found = _gap(times[first:last], units[i][first:last] - units[j][first:last], tenants[i], tenants[j])
            worst = max(worst, found, key=lambda gap: gap.units)
    return worst


def vtc_bound(longest_prompt: int, kv_tokens: int, input_weight: float = 1, output_weight: float = 2) -> float:
    """What VTC promises the gap never exceeds: twice the largest step a counter can take ahead of the others.

    ``longest_prompt`` in tokens; ``kv_tokens`` is how many the cache holds.
    """
    return 2 * max(input_weight * longest_prompt, output_weight * kv_tokens)


Changes = list[tuple[float, float]]      # (time, by how much)


def _charges(events: Iterable[Event], input_weight: float, output_weight: float, found_is_free: bool,
             ) -> tuple[dict[str, Changes], dict[str, Changes]]:
    """By tenant: service as it is given, and requests that join (+1) and leave (-1) the queue."""
    owners: dict[str, tuple[str, int]] = {}
    charges: dict[str, Changes] = {}
    waiting: dict[str, Changes] = {}
    admitted: set[str] = set()
    queue: set[str] = set()
    for event in events:
        name, kind = event.request, event.kind
        if name is None or (kind != "QUEUED" and name not in owners):
            continue
        if kind == "QUEUED":
            owners[name] = event.data.get("tenant", ""), event.data["prompt_tokens"]
            charges.setdefault(owners[name][0], [])
        tenant, prompt = owners[name]
        if kind == "NEW_TOKENS":
            charges[tenant].append((event.time, output_weight * len(event.data["tokens"])))
        elif kind in ("QUEUED", "PREEMPTED"):
            queue.add(name)
            waiting.setdefault(tenant, []).append((event.time, 1.0))
        elif name in queue:                          # SCHEDULED, or ABORTED before it ran
            queue.remove(name)
            waiting[tenant].append((event.time, -1.0))
        if kind == "SCHEDULED" and name not in admitted:
            admitted.add(name)
            found = min(event.data["computed"], prompt) if found_is_free else 0
            charges[tenant].append((event.time, input_weight * (prompt - found)))
    return charges, waiting


def _curve(changes: Changes, weight: float) -> Curve:
    times = np.unique([time for time, _ in changes])
    return Curve(times, _running_sum(times, changes) / weight)


def _running_sum(times: np.ndarray, changes: Changes) -> np.ndarray:
    """The sum of all changes up to and with each time (times,)."""
    if not changes:
        return np.zeros(len(times))
    when, amounts = np.array(changes).T
    return np.cumsum(np.bincount(np.searchsorted(times, when), weights=amounts, minlength=len(times)))


def _stretches(mask: np.ndarray) -> Iterable[tuple[int, int]]:
    """First and behind-last place of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _gap(times: np.ndarray, lead: np.ndarray, one: str, other: str) -> ServiceGap:
    """The largest change of ``lead`` (points,), one's service less the other's, from any moment to a later one."""
    low, high = int(lead.argmin()), int(lead.argmax())
    ahead, behind = (one, other) if low <= high else (other, one)
    return ServiceGap(float(lead[high] - lead[low]), ahead, behind, float(times[min(low, high)]),
                      float(times[max(low, high)]))
