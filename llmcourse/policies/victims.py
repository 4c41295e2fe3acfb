"""Who gives way when blocks run out: one line each, to be used with any policy.

Whoever is preempted loses its KV and computes it again, or moves it out and in, so the choice has a price. Giving up
the latest arrival spares those who have waited longest; giving up who holds most frees most at once and costs most to
get back; giving up who has done least wastes least work. Giving up who is closest to finishing is the misconception:
it would have freed all its blocks by itself in a moment, and it is the dearest to bring back. Kwon et al., 2023, for
the latest arrival. Week 10.
"""

from collections.abc import Callable, Sequence

from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.policies.sjf import expected_output

Rule = Callable[[Sequence[Request], float], Request]


def latest_arrival(running: Sequence[Request], now: float) -> Request:
    """Who came last, whatever the policy's order."""
    return max(running, key=lambda request: request.rank[1])


def lowest_priority(running: Sequence[Request], now: float) -> Request:
    """The least important; of several who came last."""
    return max(running, key=lambda request: (request.priority, request.rank[1]))


def most_blocks(running: Sequence[Request], now: float) -> Request:
    """Who holds most KV: one victim is enough for long."""
    return max(running, key=lambda request: (len(request.tokens), request.rank[1]))


def least_progress(running: Sequence[Request], now: float) -> Request:
    """Who has been handed the fewest tokens."""
    return min(running, key=lambda request: (request.num_output, -request.rank[1]))


def closest_to_finishing(running: Sequence[Request], now: float) -> Request:
    """Who is expected to have least left: the misconception, kept to be measured."""
    return min(running, key=lambda request: (expected_output(request) - request.num_output, -request.rank[1]))


def cheapest_to_recompute(running: Sequence[Request], now: float) -> Request:
    """Whose KV is shortest, prompt and output together: computed again in the least time."""
    return min(running, key=lambda request: (request.computed, -request.rank[1]))


VICTIMS: dict[str, Rule] = {
    "latest-arrival": latest_arrival, "lowest-priority": lowest_priority, "most-blocks": most_blocks,
    "least-progress": least_progress, "closest-to-finishing": closest_to_finishing,
    "cheapest-to-recompute": cheapest_to_recompute}


def with_victim(policy: Policy, rule: str | Rule) -> Policy:
    """The same policy, which from now on gives way by a rule or its name; UserError for a name that is not known."""
    if isinstance(rule, str):
        if rule not in VICTIMS:
            raise UserError(f"no rule {rule!r} for victims; there are {', '.join(VICTIMS)}")
        rule = VICTIMS[rule]
    policy.victim = rule  # type: ignore[method-assign, assignment]
    return policy
