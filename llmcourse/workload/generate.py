"""Workloads from an arrival process and two length distributions, and what may be done to a workload.

Open loop: requests come when they come, whether or not the service keeps up; a queue then shows in every latency.
To load a service harder, scale time: dropping or repeating requests would change how bursty they are. Weeks 3 and 4.
"""

import heapq
import operator
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from llmcourse.errors import UserError
from llmcourse.workload.arrival import Arrival
from llmcourse.workload.lengths import Lengths
from llmcourse.workload.normal import partner
from llmcourse.workload.processes import Process
from llmcourse.workload.slo import SLO


def open_loop(process: Process, prompts: Lengths, outputs: Lengths, count: int, seed: int, tenant: str = "",
              slo: SLO | None = None, priority: int = 0, rank_correlation: float = 0.0) -> list[Arrival]:
    """`count` arrivals, sorted by time; the same seed gives the same ones.

    `rank_correlation` (Spearman, -1 to 1) makes long prompts have long or short outputs. Raises UserError when there
    is no such correlation, or a negative count.
    """
    rng = generator(seed)
    if count < 0:
        raise UserError(f"{count} arrivals; ask for 0 or more")
    times = process.times(rng, count).tolist()
    u = rng.random(count)
    long = outputs.at(partner(rng, u, rank_correlation))
    lengths = zip(times, prompts.at(u).tolist(), long.tolist(), strict=True)
    return [Arrival(time, prompt, output, tenant, priority, slo) for time, prompt, output in lengths]


def generator(seed: int) -> np.random.Generator:
    """A generator from a seed; raises UserError unless it is a whole number of 0 or more."""
    try:
        return np.random.default_rng(operator.index(seed))
    except (TypeError, ValueError):
        raise UserError(f"seed {seed!r}; a seed is a whole number of 0 or more") from None


def merge(*workloads: Iterable[Arrival]) -> list[Arrival]:
    """All arrivals of several workloads in order of time; of two at the same time, the earlier workload's first."""
    return list(heapq.merge(*workloads, key=operator.attrgetter("time")))


def scale(workload: Iterable[Arrival], factor: float) -> list[Arrival]:
    """The same arrivals with every time multiplied by `factor`: 0.5 doubles the rate and keeps the CV."""
    if not 0 < factor < float("inf"):
        raise UserError(f"time scaled by {factor}; the factor must be above 0 (0.5 doubles the rate)")
    return [replace(arrival, time=arrival.time * factor) for arrival in workload]


def with_oracle(workload: Iterable[Arrival]) -> list[Arrival]:
    """The same arrivals, each with a predictor that is always right: `predicted` is `output_tokens`."""
    return [replace(arrival, predicted=arrival.output_tokens) for arrival in workload]
