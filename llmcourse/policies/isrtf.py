"""Iterative shortest remaining time first: predict again as the answer grows, but not at every token.

A prediction made from the prompt alone goes stale. So after every window of tokens the predictor reads prompt and
answer so far and says how much is still to come; between two ends of windows a request keeps its key and its place, for
predicting costs time and pushing somebody out costs its KV. A window of one token is SRTF, an endless one SJF.
Choi et al., 2025 (ELIS, window 50). Week 9.
"""

from collections.abc import Callable, Collection, Sequence

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request, Status
from llmcourse.errors import UserError
from llmcourse.policies.sjf import expected_output

AT_LEAST = 1.0                           # tokens still to come of whoever has not ended, whatever was predicted
Remaining = Callable[[Request], float]


class ISRTF(Policy):
    """Order by predicted output still to come, ties by arrival; preemptive, but only at the ends of windows.

    ``window`` counts a request's own output tokens. ``remaining`` is asked when it arrives and after every window; by
    default it is what was predicted less what was delivered. No answer counts as less than one token.
    ``repredictions`` is how often it was asked again.
    """

    static = False
    preemptive = True

    def __init__(self, window: int = 50, remaining: Remaining | None = None) -> None:
        if not window >= 1:
            raise UserError(f"window is {window} tokens; predict again after at least 1")
        self.window, self.remaining = window, remaining
        self.repredictions = 0
        self._left: dict[str, float] = {}                # the last prediction, by request

    def key(self, request: Request, now: float) -> tuple[bool, float]:
        """The last prediction; whoever runs and is inside a window stands before all others."""
        inside = request.status is Status.RUNNING and request.num_output % self.window > 0
        return not inside, self._left[request.id]

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Until the first window ends of somebody who may then be pushed out, or must be predicted again."""
        ending: Collection[Request] = running
        if self.remaining is None:                       # then predictions only fall, by as much as was delivered
            if not waiting or self.window == 1:
                return FOREVER
            shortest = min([self._left[request.id] for request in waiting])
            ending = [r for r in running if max(AT_LEAST, self._left[r.id] - self.window) >= shortest]
        return min([self.window - request.num_output % self.window for request in ending], default=FOREVER)

    def on_queued(self, request: Request, now: float) -> None:
        """The first prediction, from what is there: the prompt."""
        self._predict(request)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """Predict again when a window has ended."""
        windows = request.num_output // self.window - (request.num_output - delivered) // self.window
        if windows:
            self.repredictions += windows
            self._predict(request)

    def on_done(self, request: Request, now: float) -> None:
        """Forget it."""
        self._left.pop(request.id, None)

    def _predict(self, request: Request) -> None:
        if self.remaining is None:
            left = expected_output(request) - request.num_output // self.window * self.window
        else:
            left = self.remaining(request)
        self._left[request.id] = max(AT_LEAST, left)
