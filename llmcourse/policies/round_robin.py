"""Round robin: everybody in turn, a quantum of tokens each.

Whoever has been handed its quantum goes to the end of the line, and those in front of it get its place. Nobody waits
longer than one round, whatever the lengths and without any prediction; that is why operating systems live on it. A
process switched out keeps its memory, but a request pushed out of a full GPU loses its KV and computes it again: with
memory for everybody round robin is what continuous batching does anyway, without it the quantum must be long enough to
pay for the way back (``counters.recomputed_tokens``). Kleinrock, 1964. Week 3.
"""

from collections.abc import Collection, Sequence
from itertools import count

from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError


class RoundRobin(Policy):
    """Order by place in the line; preemptive.

    ``quantum`` counts delivered output tokens, not computed ones: a turn spent on getting lost KV back would never end.
    """

    static = False
    preemptive = True

    def __init__(self, quantum: int = 64) -> None:
        if quantum < 1:
            raise UserError(f"quantum is {quantum} tokens; a turn must hand out at least 1")
        self.quantum = quantum
        self._next_place = count()
        self._place: dict[str, int] = {}             # in the line, by request
        self._left: dict[str, int] = {}              # output tokens left of its turn

    def key(self, request: Request, now: float) -> float:
        """Place in the line."""
        return self._place[request.id]

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Until the first turn ends."""
        return min((self._left[request.id] for request in running), default=1) - 1

    def on_queued(self, request: Request, now: float) -> None:
        """A newcomer joins at the end of the line."""
        self._to_the_end(request)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """Whose turn is over goes to the end of the line."""
        self._left[request.id] -= delivered
        if self._left[request.id] <= 0:
            self._to_the_end(request)

    def on_done(self, request: Request, now: float) -> None:
        """Out of the line."""
        del self._place[request.id], self._left[request.id]

    def _to_the_end(self, request: Request) -> None:
        self._place[request.id], self._left[request.id] = next(self._next_place), self.quantum
