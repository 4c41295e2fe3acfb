"""Andes: give the next token to the reader who will miss it most, not to who has waited longest.

A reader takes a few tokens a second, a GPU makes many more for each; so whoever is far ahead of its reader can be
paused, and nobody notices while others begin to read. For everybody the gain in quality of experience (metrics/qoe.py)
from being served in the next ``horizon`` seconds, over not being served, is known without knowing how long the answer
will be: it is 0 for a reader whose text lasts so long, and 1 for one who has just begun to wait. Gain for each token of
memory is the order, a knapsack filled greedily. Pausing costs KV, so there is a cap on how often. Tokens a second do
not rise. The paper also tries several sizes of the batch and keeps the best; here it is what seats and memory allow.
Liu et al., 2024 (Andes). Week 10.

    hungry at  when the reader has read all it has, and no earlier than its next token was expected
    gain       (horizon - time until hungry)^2 / (horizon + time since the first token was expected)^2
"""

from collections.abc import Collection, Sequence

from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.metrics.qoe import READING, check_reader


class Andes(Policy):
    """Order by QoE gained for each token of context, most first, ties by arrival; preemptive.

    A request's own SLO says when its first token is expected, else ``ttft`` (s); readers take ``pace`` tokens/s. At
    most ``cap`` preemptions for each request that has come, on average; at the cap only lack of blocks makes anybody
    give way. Else whoever has been hungry for ``patience`` seconds goes first, the longest hungry before others (None:
    the lost are given up).
    """

    static = False
    preemptive = True

    def __init__(self, ttft: float = 1.0, pace: float = READING, horizon: float = 20.0, cap: float = 1.0,
                 patience: float | None = 60.0) -> None:
        check_reader(ttft, pace)
        if not horizon > 0 or not cap >= 0 or (patience is not None and not patience > 0):
            raise UserError(f"horizon {horizon} s, cap {cap}, patience {patience}: look ahead more than 0 s, preempt "
                            "at least 0 times, and be patient for more than 0 s or for ever (None)")
        self.ttft, self.pace, self.horizon, self.cap, self.patience = ttft, pace, horizon, cap, patience
        self._read: dict[Request, float] = {}        # when the reader will have read all it has (s)
        self._runs: set[Request] = set()
        self._arrived = self._preempted = 0

    def key(self, request: Request, now: float) -> tuple[float, float]:
        """Level (at the cap who runs, the long hungry, the rest), and gain a token or hunger, negative."""
        hungry = now - self.hungry_at(request)
        held = self._preempted >= self.cap * self._arrived and request in self._runs
        if not held and self.patience is not None and hungry >= self.patience:
            return 1, -hungry
        return 0 if held else 2, -self.gain(request, now) / len(request.tokens)

    def gain(self, request: Request, now: float) -> float:
        """QoE (0 to 1) lost by the end of the horizon if it is not served until then."""
        unread = max(0.0, self.hungry_at(request) - now)
        if unread >= self.horizon:
            return 0.0
        start = self._expected_start(request)
        return float(min(1.0, (self.horizon - unread) / (now + self.horizon - start)) ** 2)

    def hungry_at(self, request: Request) -> float:
        """When its reader begins to miss something, in seconds of the engine's clock."""
        return max(self._read[request], self._expected_start(request) + request.num_output / self.pace)

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Readers read on at every step."""
        return 0

    def _expected_start(self, request: Request) -> float:
        assert request.arrival is not None
        promised = request.slo.ttft if request.slo else None
        return request.arrival + (self.ttft if promised is None else promised)

    # ---- what it is told -------------------------------------------------------------------------------------------

    def on_queued(self, request: Request, now: float) -> None:
        """A reader with nothing to read."""
        self._read[request] = now
        self._arrived += 1

    def on_scheduled(self, request: Request, now: float) -> None:
        """It is served."""
        self._runs.add(request)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """More to read, from now on or behind what is still unread."""
        if delivered:
            self._read[request] = max(now, self._read[request]) + delivered / self.pace

    def on_preempted(self, request: Request, now: float) -> None:
        """Paused: its reader goes on for a while."""
        self._runs.discard(request)
        self._preempted += 1

    def on_done(self, request: Request, now: float) -> None:
        """It has all it will get."""
        self._runs.discard(request)
        del self._read[request]
