"""What an autoscaler is told beside the reports: plain numbers that the driver has measured lately. Week 10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

NEVER_YET = float("-inf")


@dataclass(frozen=True)
class Held:
    """``count`` requests in order of arrival that wait outside all instances.

    The first of them is promised its token by ``deadline`` (s; inf: nothing is promised).
    """

    count: int
    deadline: float = float("inf")


class Observed(NamedTuple):
    """The last ``window`` seconds of a fleet, at a moment; times in seconds.

    ``arrivals`` are requests/s over the window, ``history`` requests/s in each whole ``bin`` since the start. ``ttfts``
    of all who had their first token in the window; ``late``: the share that missed its promise, of them and of those
    who still wait beyond it. ``longest_wait``: how long whoever waits longest has waited for a first token.
    ``starting``: the roles of instances that are not ready yet. ``held`` waits in front of the fleet. ``last_up`` and
    ``last_down``: when instances were last started and drained, but for batch instances (`SLODebt`: its two loops rest
    each by itself).
    """

    window: float = 60.0
    arrivals: float = 0.0
    bin: float = 60.0
    history: tuple[float, ...] = ()
    ttfts: tuple[float, ...] = ()
    late: float = 0.0
    longest_wait: float = 0.0
    starting: tuple[str, ...] = ()
    held: tuple[Held, ...] = ()
    last_up: float = NEVER_YET
    last_down: float = NEVER_YET
