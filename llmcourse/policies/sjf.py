"""Shortest job first: whoever is expected to say least starts first; whoever runs is left alone.

One short answer let past a long one spares the short one the whole long wait and costs the long one little, so the mean
wait falls. What it changes is who waits, not how many tokens a second the engine makes: below saturation nobody waits
and nothing changes. It needs a guess of the output's length, and a long request may wait for ever.
Conway, Maxwell and Miller, 1967; for LLM requests Qiu et al., 2024 (SSJF). Weeks 3 and 9.
"""

from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request


def expected_output(request: Request) -> float:
    """Output tokens somebody predicted for the request; without a prediction, the most it may say."""
    return request.sampling.max_tokens if request.predicted is None else request.predicted


class SJF(Policy):
    """Order by expected output, ties by arrival; not preemptive.

    When blocks run out the longest job gives way: somebody has to, whatever the policy.
    """

    def key(self, request: Request, now: float) -> float:
        """Expected output tokens."""
        return expected_output(request)
