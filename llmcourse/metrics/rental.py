"""What a fleet costs that grows and shrinks: machines are paid from their start until they are given back.

The hour begins when a machine is asked for, not when it first serves: a cold start is paid for like any other time, and
so is the time in which an instance is emptied. Half-used fleets are compared by instance-hours, dollars and joules at
the same tail latency, for the cheapest fleet is always the one that lets everybody wait. Week 10.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llmcourse.errors import UserError
from llmcourse.metrics.cost import HOUR, IDLE_SHARE
from llmcourse.metrics.hardware import Hardware
from llmcourse.metrics.words import counted


@dataclass
class Lease:
    """One machine: asked for at ``started``, taking requests from ``ready``, emptied from ``drained``.

    Given back at ``ended`` (s; None: not yet); ``how``: "retired", "died" or "failed" to start.
    """

    number: int
    started: float = 0.0
    ready: float | None = None
    drained: float | None = None
    ended: float | None = None
    tier: str = ""
    role: str = ""
    how: str = ""

    @property
    def starting(self) -> bool:
        """It was asked for and is not there yet."""
        return self.ready is None and self.ended is None

    def seconds(self, until: float, since: float = 0.0) -> float:
        """Seconds paid for between two moments."""
        end = until if self.ended is None else min(self.ended, until)
        return max(0.0, end - max(self.started, since))


@dataclass(frozen=True)
class Rent:
    """Of a whole fleet; ``dollars`` and ``joules`` None: price or watts are not known."""

    instance_hours: float
    dollars: float | None
    joules: float | None
    most: int

    def __str__(self) -> str:
        """One line."""
        costs = [f"${self.dollars:.4g}" if self.dollars is not None else "",
                 f"{self.joules / 1e6:.4g} MJ at most" if self.joules is not None else ""]
        return (f"{self.instance_hours:.4g} instance-hours, cold starts counted, "
                f"{counted(self.most, 'instance')} at most"
                + "".join(f", {cost}" for cost in costs if cost))


def rent(leases: Iterable[Lease], until: float, hardware: Hardware | None = None, busy_seconds: float = 0.0,
         warm: int = 0, since: float = 0.0) -> Rent:
    """The bill of all machines up to a moment (s), and the most there were at once.

    ``busy_seconds``: how long steps ran, of all instances together; ``warm`` machines more waited all the time.
    """
    rented = list(leases)
    seconds = sum(lease.seconds(until, since) for lease in rented) + warm * (until - since)
    if not 0 <= busy_seconds <= seconds * (1 + 1e-9) + 1e-6:
        raise UserError(f"{busy_seconds:.6g} s of steps on machines that were there for {seconds:.6g} s: count both "
                        "over the same time")
    price, watts = (hardware.price_per_hour, hardware.watts) if hardware else (None, None)
    idle = max(0.0, seconds - busy_seconds)
    joules = None if watts is None else watts * (busy_seconds + IDLE_SHARE * idle)
    return Rent(seconds / HOUR, None if price is None else price * seconds / HOUR, joules,
                most_at_once(rented, until) + warm)


def most_at_once(leases: Iterable[Lease], until: float) -> int:
    """How many machines were paid for at the busiest moment."""
    return max((paid for time, paid, _ in replicas(leases) if time <= until), default=0)


def replicas(leases: Iterable[Lease]) -> list[tuple[float, int, int]]:
    """The fleet as a line of steps: from each moment (s) on, machines paid for, and instances that take requests."""
    rented = list(leases)
    moments = sorted({time for lease in rented for time in (lease.started, lease.ready, lease.drained, lease.ended)
                      if time is not None})
    return [(time, sum(each.started <= time < _or_never(each.ended) for each in rented),
             sum(_or_never(each.ready) <= time < min(_or_never(each.drained), _or_never(each.ended))
                 for each in rented)) for time in moments]


def _or_never(time: float | None) -> float:
    return float("inf") if time is None else time
