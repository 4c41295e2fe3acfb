"""What ARRIVES: arrival processes, lengths, sessions, service levels, and profiles of real traces (weeks 3-5).

A workload is any iterable of `Arrival`s sorted by time: a list, or a generator when there are a million of them. Each
module here loads when one of its names is first used; none of them needs more than numpy.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "SLO": "slo",
    "INTERACTIVE": "slo",
    "CODE": "slo",
    "DOCUMENT": "slo",
    "BATCH": "slo",
    "slo_classes": "slo",
    "Arrival": "arrival",
    "Process": "processes",
    "Poisson": "processes",
    "Gamma": "processes",
    "Weibull": "processes",
    "Gaps": "processes",
    "OnOff": "processes",
    "Diurnal": "processes",
    "RateSeries": "processes",
    "Lengths": "lengths",
    "Constant": "lengths",
    "Lognormal": "lengths",
    "Quantiles": "lengths",
    "Empirical": "lengths",
    "PowerLaw": "power_law",
    "open_loop": "generate",
    "merge": "generate",
    "scale": "generate",
    "with_oracle": "generate",
    "ClosedLoop": "closed",
    "Sessions": "sessions",
    "Assistants": "assistants",
    "Profile": "profiles",
    "profile": "profiles",
    "profile_names": "profiles",
    "read_trace": "traces",
    "write_trace": "traces",
    "cut_prompts": "traces",
    "hit_rate": "sharing",
    "original_path": "originals",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a name's module on first use (PEP 562)."""
    if name in _HOMES:
        value = getattr(import_module(f"llmcourse.workload.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'llmcourse.workload' has no attribute {name!r}")
