"""Profiles: what a real trace says in a few kilobytes, and workloads that say the same.

A profile keeps the quantiles of prompt and output length, their rank correlation, the number of requests in every few
seconds, the share of each tenant, and how prompts repeat each other. What it generates has those quantiles and follows
that series of rates; it is as long as you like, and the same seed gives the same requests. Single requests of the trace
are not in it. The profiles stand in `data/workloads`; `derive.py` made them. Weeks 4 and 5.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import repeat
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
        talks = Conversations(self.sharing.common if self.sharing else 0)
        for times in _cut(process.chunks(clock), count):
            u = spread(draws, draws.random(len(times)))
            outputs = self.outputs.at(spread(draws, partner(draws, u, self.rank_correlation)))
            prompts, prefixes = self._prompts(draws, u, talks)
            # Columns zipped by map: a generator expression would cost a third of the speed.
            yield from map(Arrival, times.tolist(), prompts.tolist(), outputs.tolist(), self._owners(draws, len(times)),
                           repeat(0), repeat(slo), repeat(None), repeat(None), prefixes)

    def _prompts(self, rng: np.random.Generator, u: np.ndarray,
                 talks: Conversations) -> tuple[np.ndarray, Iterable[tuple[int, ...]]]:
        """Prompt lengths (tokens) at the shares `u`, and each prompt's blocks, if the trace has any."""
        if self.sharing is None:
            return self.prompts.at(u), repeat(())
        prompts, repeated, distance = self.sharing.sample(rng, u)
        blocks = -(-prompts // BLOCK_TOKENS)
        return prompts, map(talks.prefix, blocks.tolist(), repeated.tolist(), distance.tolist())

    def _owners(self, rng: np.random.Generator, count: int) -> Iterable[str]:
        """Who sends each of `count` requests, in the tenants' shares."""
        if not self.tenants:
            return repeat("")
        ends = np.cumsum(list(self.tenants.values()))
        return map(list(self.tenants).__getitem__, np.searchsorted(ends, rng.random(count) * ends[-1]).tolist())


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
