"""Static priorities, with ageing so that nobody waits for ever.

The important go first: a smaller number is more important, as in vLLM and Unix. Under steady load of important requests
the others starve; ageing raises whoever waits by one level every so many seconds. All age alike, so two requests never
change places: level p minus (now - arrival) / a orders them exactly as arrival + a * p does, and that never changes. In
these words the bound is plain: nobody who comes more than a * p seconds later goes first. Week 6.
"""

from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError


class StaticPriority(Policy):
    """Order by ``request.priority`` (smaller first), ties by arrival.

    ``ageing``: seconds that are worth one level; None: priorities never yield. ``preemptive``: push out the less
    important too, instead of only waiting in front of them.
    """

    def __init__(self, ageing: float | None = None, preemptive: bool = False) -> None:
        if ageing is not None and not 0 < ageing < float("inf"):
            raise UserError(f"ageing is {ageing} s a level; give more than 0 seconds, or None for no ageing")
        self.ageing, self.preemptive = ageing, preemptive

    def key(self, request: Request, now: float) -> float:
        """The level; with ageing, the arrival set back or forward by the level's worth of seconds."""
        assert request.arrival is not None
        return request.priority if self.ageing is None else request.arrival + self.ageing * request.priority
