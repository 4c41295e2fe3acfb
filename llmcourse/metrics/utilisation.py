"""How full the machine was: time, batch, memory and token budget, from the STEP events.

"The GPU is at 100 %" only says that some step was running. A decode step for one request keeps a machine busy and
nearly empty, so four shares are told apart: time with a step in it, places in the batch that were taken, KV blocks in
use, and tokens computed of those a step may compute. Each is a mean over the busy time, weighted by how long a step
took. Week 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmcourse.errors import UserError
from llmcourse.metrics.percentile import none_for_nan

if TYPE_CHECKING:
    from llmcourse.engine.events import Event


@dataclass(frozen=True)
class Utilisation:
    """Of one run, all instances together; shares from 0 to 1, means over busy seconds.

    ``busy`` is the share of time with a step running; ``batch`` requests in a step, ``tokens`` tokens in a step,
    ``waiting`` requests in the queue; ``kv_usage`` and ``kv_peak`` shares of the blocks. ``batch_share`` and
    ``budget_share`` are NaN when the limits were not told.
    """

    instances: int
    steps: int
    seconds: float
    busy: float
    batch: float
    tokens: float
    waiting: float
    kv_usage: float
    kv_peak: float
    batch_share: float
    budget_share: float

    def as_dict(self) -> dict[str, float | None]:
        """Plain numbers, None for NaN."""
        return {name: none_for_nan(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """Readable lines."""
        batch, tokens = (f" ({share:.1%} of the limit)" if share == share else ""
                         for share in (self.batch_share, self.budget_share))
        return (f"busy {self.busy:.1%} of {self.seconds:.4g} s on {self.instances} instance(s), {self.steps} steps\n"
                f"while busy: {self.batch:.4g} requests a step{batch}, {self.tokens:.4g} tokens a step{tokens}, "
                f"{self.waiting:.4g} waiting\n"
                f"KV blocks: {self.kv_usage:.1%} in use while busy, {self.kv_peak:.1%} at most")


def utilisation(events: Iterable[Event], max_running: int | None = None, token_budget: int | None = None, *,
                start: float | None = None, end: float | None = None) -> Utilisation:
    """Read from an event log (any number of instances), between two times or over all of it (s).

    ``max_running`` and ``token_budget`` are the limits of one engine: with them the shares of them are told. A step
    that crosses a border counts with the part inside.
    """
    log = list(events)
    steps = [event for event in log if event.kind == "STEP"]
    if not steps:
        raise UserError("the log holds no steps; where no log is kept, a Meter (metrics/meter.py) can say as much")
    first = min(event.data.get("start", event.time) for event in log) if start is None else start
    last = max(event.time for event in log) if end is None else end
    instances = len({event.instance for event in log})
    seconds, rows = _rows(steps, first, last)
    mean = _means(seconds, rows)
    inside = seconds > 0
    return reckoned(instances, int(inside.sum()), last - first, float(seconds.sum()), mean,
                    float(rows[inside, 3].max(initial=0)), max_running, token_budget)


def reckoned(instances: int, steps: int, seconds: float, busy: float, means: Sequence[float], kv_peak: float,
             max_running: int | None, token_budget: int | None) -> Utilisation:
    """The answer from sums: ``busy`` seconds of all instances, ``means`` of requests, tokens, queue and KV share."""
    batch, tokens, waiting, kv_usage = means
    nan = float("nan")
    share = min(1.0, busy / (seconds * instances)) if seconds > 0 else nan       # sums of many steps may round up
    return Utilisation(
        instances, steps, seconds, share, batch, tokens, waiting, kv_usage, kv_peak,
        batch / max_running if max_running else nan, tokens / token_budget if token_budget else nan)


def _rows(steps: list[Event], first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each step between two times, (steps,), and its requests, tokens, queue and KV share, (steps, 4)."""
    seconds = [max(0.0, min(event.time, last) - max(event.data["start"], first)) for event in steps]
    rows = [(len(event.data["batch"]), sum(count for _, _, count in event.data["batch"]), event.data["waiting"],
             event.data["used_blocks"] / event.data["num_blocks"]) for event in steps]
    return np.array(seconds), np.array(rows, dtype=float)


def _means(seconds: np.ndarray, rows: np.ndarray) -> list[float]:
    if not seconds.sum():
        return [float("nan")] * 4
    return [float(value) for value in np.average(rows, axis=0, weights=seconds)]
