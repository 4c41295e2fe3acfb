"""Every policy there is, also with odd parameters: what the properties of all policies are tested on."""

from collections.abc import Callable
from functools import partial

from llmcourse.engine import Policy, Request
from llmcourse.policies import (
    DLPM,
    EDF,
    FCFS,
    ISRTF,
    QLM,
    S3,
    SJF,
    SRTF,
    SSJF,
    VICTIMS,
    VTC,
    Andes,
    DeficitRoundRobin,
    FastServe,
    LearningToRank,
    LimitedPreemption,
    LongestPrefixFirst,
    MultiBin,
    RoundRobin,
    StaticPriority,
    TenantQuota,
    with_victim,
)


def _giving_way(rule: str) -> Policy:
    return with_victim(StaticPriority(ageing=0.05), rule)


def of_another_mind(request: Request) -> float:
    """A prediction that jumps up and down as the answer grows."""
    return request.num_output * 7 % 5 + len(request.prompt)


MAKERS: list[Callable[[], Policy]] = [
    FCFS, SJF, SRTF, lambda: RoundRobin(1), lambda: RoundRobin(4), lambda: EDF(0.3), VTC,
    lambda: VTC(1, 2, {"a": 3.0, "b": 0.7}), StaticPriority, lambda: StaticPriority(ageing=0.05),
    lambda: StaticPriority(preemptive=True), lambda: StaticPriority(ageing=0.02, preemptive=True), TenantQuota,
    lambda: TenantQuota({"a": 0.5, "b": 0.5}), lambda: TenantQuota({"a": 0.2, "b": 0.3}), LongestPrefixFirst,
    # week 9: by size
    SSJF, lambda: SSJF(0.001, 0.001), lambda: SSJF(0, 0.02, patience=0.1, times=3), ISRTF,
    lambda: ISRTF(1), lambda: ISRTF(2), lambda: ISRTF(3), lambda: ISRTF(2, of_another_mind),
    LearningToRank, lambda: LearningToRank(1, 1), lambda: LearningToRank(3, 2), lambda: LearningToRank(7, 1),
    LimitedPreemption, lambda: LimitedPreemption(0),
    lambda: LimitedPreemption(1.5), lambda: LimitedPreemption(0.5, of_another_mind), lambda: MultiBin((4, 9), 2),
    lambda: MultiBin((), 1), S3, lambda: S3(1), lambda: S3(2, packing=True),
    # week 10: preemption, fairness, quality of experience
    FastServe, lambda: FastServe(2, 3, 0.04, 3), lambda: FastServe(1, 2, None, 4, skip_join=False),
    DeficitRoundRobin, lambda: DeficitRoundRobin(0.7, 0, 3, {"a": 3.0, "b": 0.7}), lambda: DeficitRoundRobin(9.5),
    DLPM, lambda: DLPM(3.3, 0.3, 1.1, {"a": 0.5}), lambda: DLPM(17, longest_queue=2),
    lambda: Andes(0.02, 7.3, 0.15), lambda: Andes(0.3, 40, 0.7, cap=2.5, patience=0.2),
    lambda: Andes(0.0, 11, cap=0, patience=None),
    QLM, lambda: QLM(1, 0.07, 0.6), lambda: QLM(3, 0.4, 0.99, tokens_per_second=70.0),
    *[partial(_giving_way, rule) for rule in VICTIMS]]
