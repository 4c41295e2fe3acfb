"""How often a service is there: as counted from requests, and as reckoned from failures.

Users count requests that were answered; operators count hours between failures and hours to repair. A service of
several parts in a row is down when any is down; one with spare instances only when too few are left, if they fail
independently (they share power, network and the last release, so they do not quite). An SLO of 99.9 % leaves 43
minutes a month to fail in: the error budget. Beyer et al., "Site Reliability Engineering", 2016. Week 3.
"""

from collections.abc import Iterable
from math import comb, prod

from llmcourse.errors import UserError
from llmcourse.metrics.table import Table

MINUTES_A_DAY = 24 * 60


def served_share(table: Table) -> float:
    """Share of the requests that were answered, of all that their owners did not give up; NaN of none.

    Those still unfinished count as not answered.
    """
    asked = table["finish_reason"] != "abort"
    return float(table.finished[asked].mean()) if asked.any() else float("nan")


def availability(mean_time_between_failures: float, mean_time_to_repair: float) -> float:
    """Share of time up, of a part that runs so long and is then repaired so long (any unit of time)."""
    if mean_time_between_failures <= 0 or mean_time_to_repair < 0:
        raise UserError(f"{mean_time_between_failures} between failures and {mean_time_to_repair} to repair are no "
                        "times; the first must be above 0, the second at least 0")
    return mean_time_between_failures / (mean_time_between_failures + mean_time_to_repair)


def in_series(parts: Iterable[float]) -> float:
    """Availability of parts that are all needed."""
    return prod(_share(part) for part in parts)


def redundant(part: float, instances: int, needed: int = 1) -> float:
    """Availability of equal, independent instances of which ``needed`` must be up."""
    _share(part)
    if not 1 <= needed <= instances:
        raise UserError(f"{needed} of {instances} instances cannot be needed; at least 1, at most all")
    return sum(comb(instances, up) * part**up * (1 - part) ** (instances - up) for up in range(needed, instances + 1))


def error_budget(objective: float, days: float = 30) -> float:
    """Minutes that a service may be down in so many days and still keep its objective (0 to 1)."""
    return (1 - _share(objective)) * days * MINUTES_A_DAY


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"an availability is a share of time from 0 to 1, not {value}")
    return value
