"""WHO goes next: one short file per policy (weeks 3-6, 9-10). No torch.

`POLICIES` knows them by the names of the command line: ``POLICIES["sjf"]()``, ``POLICIES["round-robin"](quantum=32)``.
"""

from collections.abc import Callable
from importlib import import_module
from inspect import Signature, signature
from typing import Any, NoReturn

from llmcourse.engine.policy import Policy
from llmcourse.errors import UserError
from llmcourse.kinds import check_options
from llmcourse.policies.fcfs import FCFS

_HOMES = {
    "RoundRobin": "round_robin",
    "SJF": "sjf",
    "SRTF": "srtf",
    "SSJF": "ssjf",
    "ISRTF": "isrtf",
    "LearningToRank": "ltr",
    "LimitedPreemption": "trail",
    "MultiBin": "multibin",
    "S3": "reservation",
    "FastServe": "mlfq",
    "StaticPriority": "priority",
    "EDF": "edf",
    "VTC": "vtc",
    "DeficitRoundRobin": "drr",
    "DLPM": "dlpm",
    "Andes": "andes",
    "QLM": "qlm",
    "VICTIMS": "victims",
    "with_victim": "victims",
    "TenantQuota": "quota",
    "LongestPrefixFirst": "lpm",
    "Headroom": "headroom",
    "freeness": "headroom",
    "virtual_usage": "headroom",
    "SLOAdmission": "admission",
    "BacklogLimit": "admission",
    "Shedding": "admission",
    "Combined": "admission",
    "choose_budget": "budget",
}

__all__ = ["FCFS", "POLICIES", *_HOMES]


class _Registry(dict[str, Callable[..., Policy]]):
    def __missing__(self, name: str) -> NoReturn:
        raise UserError(f"no policy {name!r}; there are {', '.join(self)}")


class _Later:
    """Makes the policy, loading its file when called, or asked which options it takes."""

    def __init__(self, word: str, name: str) -> None:
        self.word, self.name = word, name

    @property
    def __signature__(self) -> Signature:
        return signature(__getattr__(self.name), eval_str=True)

    def __call__(self, **options: Any) -> Policy:
        make = __getattr__(self.name)
        known = signature(make, eval_str=True).parameters if make.__init__ is not object.__init__ else {}
        check_options(f"policy {self.word}", self.word, known, options)
        policy: Policy = make(**options)
        return policy


POLICIES: dict[str, Callable[..., Policy]] = _Registry({"fcfs": FCFS} | {
    word: _Later(word, name) for word, name in {
        "round-robin": "RoundRobin", "sjf": "SJF", "srtf": "SRTF", "ssjf": "SSJF", "isrtf": "ISRTF",
        "ltr": "LearningToRank", "trail": "LimitedPreemption", "multibin": "MultiBin", "s3": "S3", "mlfq": "FastServe",
        "priority": "StaticPriority", "edf": "EDF", "vtc": "VTC", "drr": "DeficitRoundRobin", "dlpm": "DLPM",
        "andes": "Andes", "qlm": "QLM", "quota": "TenantQuota", "lpm": "LongestPrefixFirst"}.items()})


def __getattr__(name: str) -> Any:
    """Load a name's module on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"llmcourse.policies.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'llmcourse.policies' has no attribute {name!r}")
