"""Shortest remaining time first: whoever has least left to say goes first, and pushes out who has more.

With one slot, exact lengths and free switching no order has a lower mean completion time (Schrage, 1968). Switching is
not free here: who is pushed out loses its KV and computes it a second time (``counters.recomputed_tokens``), and a
batch of many slots leaves less to win. The learned version, with new predictions every 50 tokens, is ELIS (Choi et
al., 2025). Weeks 3 and 9.
"""

from collections.abc import Collection, Sequence

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.policies.sjf import expected_output


class SRTF(Policy):
    """Order by expected output still to come, ties by arrival; preemptive.

    Whoever says more than was expected has a negative remainder: it may end any moment, and goes first.
    """

    static = False
    preemptive = True

    def key(self, request: Request, now: float) -> float:
        """Expected output tokens less those delivered."""
        return expected_output(request) - request.num_output

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """All who run come nearer to their end by the same step, all who wait stay: nobody overtakes."""
        return FOREVER
