"""From a trace to its profile: the script behind `data/workloads`.

`derive` measures what a `Profile` keeps, `write_profile` writes it down. Quantiles are taken at each per cent, and
closer together above the 99th, where a straight line between two points would invent most of the tail. Week 4.

    python -m llmcourse.workload.derive FOLDER      makes data/workloads from the original files in FOLDER
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from llmcourse.errors import UserError
from llmcourse.workload.arrival import Arrival
from llmcourse.workload.lengths import Quantiles
from llmcourse.workload.originals import ORIGINALS, Original
from llmcourse.workload.processes import Gaps, RateSeries
from llmcourse.workload.profiles import FOLDER, Profile
from llmcourse.workload.sharing import Sharing, hit_rate, leading
from llmcourse.workload.traces import read_trace

LEVELS = tuple(round(percent / 100, 4) for percent in (*range(100), 99.25, 99.5, 99.75, 99.9, 100))


def derive(name: str, arrivals: Sequence[Arrival], original: Original) -> Profile:
    """The profile of a trace of two or more requests, not all at one time, rounded as it is written to disk."""
    times = np.array([arrival.time for arrival in arrivals])
    if len(times) < 2 or times[-1] <= times[0]:
        raise UserError(f"{len(times)} requests within {np.ptp(times) if len(times) else 0} s; a profile needs two or "
                        "more at different times")
    gaps = np.diff(times)
    prompts = np.array([arrival.prompt_tokens for arrival in arrivals])
    outputs = np.array([arrival.output_tokens for arrival in arrivals])
    return Profile(
        name, original.about, original.source, original.licence, len(arrivals), round(float(np.ptp(times)), 3),
        gap_cv=round(float(gaps.std() / gaps.mean()), 3), dispersion=round(dispersion(times), 2),
        rank_correlation=round(rank_correlation(prompts, outputs), 3),
        prompts=quantiles(prompts), outputs=quantiles(outputs), gaps=Gaps(quantiles(gaps, 6).grid, LEVELS),
        series=RateSeries(counts(times, original.width).tolist(), original.width), tenants=_tenants(arrivals),
        sharing=_sharing(arrivals))


def quantiles(values: np.ndarray, digits: int = 0) -> Quantiles:
    """The values' quantiles at `LEVELS`, rounded."""
    return Quantiles([round(value, digits) for value in np.quantile(values, LEVELS).tolist()], LEVELS)


def counts(times: np.ndarray, width: float = 10.0) -> np.ndarray:
    """How many of `times` (s) lie in each `width` seconds; one at the very end counts to the last full width."""
    since = times - times[0]
    bins = max(1, int(np.ceil(since[-1] / width)))
    return np.bincount(np.minimum((since // width).astype(int), bins - 1), minlength=bins)


def dispersion(times: np.ndarray) -> float:
    """Variance / mean of the counts per 10 s: 1 for a Poisson process, more where busy seconds come together."""
    per_bin = counts(times)
    return float(per_bin.var() / per_bin.mean())


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's: the Pearson correlation of the ranks, equal values sharing their mean rank; 0 if one is constant."""
    ranks = [_ranks(first), _ranks(second)]
    return float(np.corrcoef(ranks)[0, 1]) if all(np.ptp(rank) for rank in ranks) else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, where, many = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(many) - (many - 1) / 2)[where]


def _tenants(arrivals: Sequence[Arrival]) -> dict[str, float]:
    """Share of requests of each tenant, the largest first; none when nobody is named."""
    names, many = np.unique([arrival.tenant for arrival in arrivals], return_counts=True)
    shares = {str(names[i]): round(float(many[i] / len(arrivals)), 5) for i in np.argsort(-many, kind="stable")}
    return shares if any(shares) else {}


def _sharing(arrivals: Sequence[Arrival]) -> Sharing | None:
    """How prompts repeat earlier ones: a request follows if it shares more than what all share; None if none do."""
    common = min(leading(arrival.prefix, set(arrivals[0].prefix)) for arrival in arrivals)
    last: dict[int, int] = {}  # block to the latest request that has it
    fresh, following = [], []
    for now, arrival in enumerate(arrivals):
        repeated = leading(arrival.prefix, last.keys())
        if repeated > common:
            ago = now - last[arrival.prefix[repeated - 1]]
            following.append((arrival.prompt_tokens, repeated / len(arrival.prefix), ago))
        else:
            fresh.append(arrival.prompt_tokens)
        last.update(dict.fromkeys(arrival.prefix, now))
    if not following:
        return None
    prompts, shared, ago = np.array(following).T
    return Sharing(round(len(following) / len(arrivals), 4), quantiles(np.array(fresh)), quantiles(prompts),
                   quantiles(shared, 4), round(rank_correlation(shared, prompts), 3), quantiles(ago), common,
                   round(hit_rate(arrivals), 4))


# ---- on disk ----------------------------------------------------------------------------------------------------


def as_table(profile: Profile) -> dict:
    """What the profile's JSON file says; all its grids share one list of levels."""
    table = {**asdict(profile), "levels": LEVELS, "tenants": dict(profile.tenants)}
    for grids, names in ((table, ("prompts", "outputs", "gaps")),
                         (table["sharing"] or {}, ("fresh", "following", "shared", "distance"))):
        grids.update({name: [_short(value) for value in grids[name]["grid"]] for name in names if name in grids})
    return table


def _short(value: float) -> float:
    return int(value) if value == int(value) else value


def write_profile(profile: Profile, path: Path) -> None:
    """Write `profile` as JSON, one line a field."""
    rows = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in as_table(profile).items()]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def main(folder: str) -> None:
    """Derive every profile from the original files in `folder`."""
    for name, original in ORIGINALS.items():
        write_profile(derive(name, read_trace(Path(folder) / original.file), original), FOLDER / f"{name}.json")


if __name__ == "__main__":
    main(sys.argv[1])
