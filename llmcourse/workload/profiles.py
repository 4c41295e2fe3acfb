"""Profiles: what a real trace says in a few kilobytes, and workloads that say the same.

A profile keeps the quantiles of prompt and output length, their rank correlation, the number of requests in every few
seconds, the share of each tenant, and how prompts repeat each other. What it generates has those quantiles and follows
that series of rates; it is as long as you like, and the same seed gives the same requests. Single requests of the trace
are not in it. The profiles stand in `data/workloads`; `derive.py` made them. Weeks 4 and 5.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from llmcourse.errors import UserError
from llmcourse.paths import DATA
from llmcourse.workload.arrival import BLOCK_TOKENS, Arrival
from llmcourse.workload.generate import generator
from llmcourse.workload.lengths import Quantiles
from llmcourse.workload.normal import partner, spread
from llmcourse.workload.processes import CHUNK, Gaps, Process, RateSeries
from llmcourse.workload.sharing import Conversations, Sharing
from llmcourse.workload.slo import SLO

FOLDER = DATA / "workloads"


@dataclass(frozen=True)
class Profile:
    """A trace in numbers. ``gap_cv`` and ``dispersion`` (variance / mean of counts per 10 s) measure burstiness."""

    name: str
    about: str
    source: str
    licence: str
    requests: int
    seconds: float
    gap_cv: float
    dispersion: float
    rank_correlation: float
    prompts: Quantiles
    outputs: Quantiles
    gaps: Gaps
    series: RateSeries
    tenants: Mapping[str, float] = field(default_factory=dict)
    sharing: Sharing | None = None

    @property
    def rate(self) -> float:
        """Requests per second over the whole series."""
        return sum(self.series.counts) / (len(self.series.counts) * self.series.width)

    def generate(self, count: int, seed: int, rate: float | None = None, process: Process | None = None,
                 slo: SLO | None = None) -> list[Arrival]:
        """The arrivals of `stream` as a list."""
        return list(self.stream(count, seed, rate, process, slo))

    def stream(self, count: int, seed: int, rate: float | None = None, process: Process | None = None,
               slo: SLO | None = None) -> Iterator[Arrival]:
        """`count` arrivals one by one, in memory that does not grow with `count`.

        Times follow the trace's series of rates from its beginning, over and over; `rate` (requests/s on average over
        the series) scales time. `process` replaces the series by another arrival process. Raises UserError for a
        negative count, a rate that is not positive, or both a rate and a process.
        """
        if count < 0 or (rate is not None and not 0 < rate < float("inf")):
            raise UserError(f"{count} arrivals at rate {rate}; need a count of 0 or more and a rate above 0")
        if rate is not None and process is not None:
            raise UserError("give a rate, which scales the trace's own times, or a process, which has its own rate")
        arrivals = process or RateSeries(self.series.counts, self.series.width * (self.rate / rate if rate else 1))
        return self._stream(count, generator(seed), arrivals, slo)

    def _stream(self, count: int, rng: np.random.Generator, process: Process, slo: SLO | None) -> Iterator[Arrival]:
        clock, draws = rng.spawn(2)
        names = list(self.tenants) or [""]
        ends = np.cumsum(list(self.tenants.values()) or [1.0])
        talks = Conversations(self.sharing.common) if self.sharing else None
        for times in _cut(process.chunks(clock), count):
            u = spread(draws, draws.random(len(times)))
            outputs = self.outputs.at(spread(draws, partner(draws, u, self.rank_correlation))).tolist()
            who = np.searchsorted(ends, draws.random(len(times)) * ends[-1], side="right").tolist()
            if self.sharing is None or talks is None:
                rows = zip(times.tolist(), self.prompts.at(u).tolist(), outputs, who, strict=True)
                yield from (Arrival(time, prompt, output, names[tenant], 0, slo)
                            for time, prompt, output, tenant in rows)
            else:
                prompts, repeated, distance = (column.tolist() for column in self.sharing.sample(draws, u))
                for row in zip(times.tolist(), prompts, outputs, who, repeated, distance, strict=True):
                    time, prompt, output, tenant, blocks, ago = row
                    prefix = talks.prefix(-(-prompt // BLOCK_TOKENS), blocks, ago)
                    yield Arrival(time, prompt, output, names[tenant], 0, slo, None, None, prefix)


def _cut(chunks: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The first `count` times, in pieces of `CHUNK` (the last one shorter), however they come."""
    waiting, have = [], 0
    while count > 0:
        want = min(count, CHUNK)
        while have < want:
            waiting.append(next(chunks))
            have += len(waiting[-1])
        times = np.concatenate(waiting)
        yield times[:want]
        waiting, have, count = [times[want:]], have - want, count - want


# ---- on disk ----------------------------------------------------------------------------------------------------


def profile_names() -> list[str]:
    """Names of the profiles that ship with the course."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@cache
def profile(name: str) -> Profile:
    """The profile of that name; raises UserError naming those there are."""
    if name not in profile_names():
        near = difflib.get_close_matches(name, profile_names(), cutoff=0.4) or profile_names()
        raise UserError(f"no workload profile {name!r}; there is {', '.join(near)}")
    return read_profile(FOLDER / f"{name}.json")


def read_profile(path: Path) -> Profile:
    """A profile from its file; raises UserError when it is not one."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        levels = table.pop("levels")
        for name in ("prompts", "outputs"):
            table[name] = Quantiles(table[name], levels)
        table["gaps"] = Gaps(table["gaps"], levels)
        table["series"] = RateSeries(table["series"]["counts"], table["series"]["width"])
        if table.get("sharing"):
            grids = {name: Quantiles(table["sharing"][name], levels) for name in
                     ("fresh", "following", "shared", "distance")}
            table["sharing"] = Sharing(**{**table["sharing"], **grids})
        return Profile(**table)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path.name} is not a workload profile ({error}); "
                        "`git checkout data/workloads` brings the shipped ones back") from None
