"""Shortest remaining time first with limited preemption: whoever is nearly done is left alone.

Pushing out a request costs what it has in memory, and the longer it has run the more that is, while less and less is
to be won by it. So a running request may be pushed out only while it has said less than a share of what was first
predicted for it. With c = 1 that is SRTF on predictions, with c = 0 nobody is pushed out. In the paper a probe on the
served model's own hidden states predicts again at every token. Shahout et al., 2025 (TRAIL). Week 9.
"""

from collections.abc import Collection, Sequence

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request, Status
from llmcourse.errors import UserError
from llmcourse.policies.isrtf import AT_LEAST, Remaining
from llmcourse.policies.sjf import expected_output


class LimitedPreemption(Policy):
    """Order by predicted output still to come, at least one token, ties by arrival; preemptive within the limit ``c``.

    ``remaining`` is asked at every decision; by default it is what was predicted less what was delivered.
    """

    static = False
    preemptive = True

    def __init__(self, c: float = 0.8, remaining: Remaining | None = None) -> None:
        if not c >= 0:
            raise UserError(f"c is {c}; it is the share of its prediction up to which a request may be pushed out: "
                            "0 for never, 1 for until it has said all that was expected")
        self.c, self.remaining = c, remaining
        self._first: dict[str, float] = {}               # the whole output, as predicted at its arrival

    def key(self, request: Request, now: float) -> tuple[bool, float]:
        """What is still to come; whoever runs past the limit stands before all others."""
        left = self._first[request.id] - request.num_output if self.remaining is None else self.remaining(request)
        kept = request.status is Status.RUNNING and request.num_output >= self.c * self._first[request.id]
        return not kept, max(AT_LEAST, left)

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """For ever, when predictions only fall: who runs comes nearer to its end, and to the limit."""
        return FOREVER if self.remaining is None else 0

    def on_queued(self, request: Request, now: float) -> None:
        """Keep what is predicted now: what it has said already, elsewhere, and what is still to come."""
        self._first[request.id] = (expected_output(request) if self.remaining is None
                                   else request.num_output + self.remaining(request))

    def on_done(self, request: Request, now: float) -> None:
        """Forget it."""
        self._first.pop(request.id, None)
