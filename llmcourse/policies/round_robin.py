"""Round robin: everybody in turn, a quantum of tokens each.

Whoever has been handed its quantum goes behind all who had fewer rounds, and they get its place. Nobody waits longer
than the others take for a round, whatever the lengths and without any prediction: operating systems live on it. A
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
    """Order by rounds had, then by who waits for its turn longest; preemptive.

    ``quantum`` counts delivered output tokens, not computed ones: a turn spent on getting lost KV back would never end.
    """

    static = False
    preemptive = True

    def __init__(self, quantum: int = 64) -> None:
        if not quantum >= 1:
            raise UserError(f"quantum is {quantum} tokens; a turn must hand out at least 1")
        self.quantum = quantum
        self._turns = count()
        self._turn: dict[str, tuple[int, int]] = {}      # round and place in the line, by request
        self._left: dict[str, int] = {}                  # output tokens left of its turn
        self._latest = 0                                 # the latest round anybody has got to

    def key(self, request: Request, now: float) -> tuple[int, int]:
        """Its round, and its place in it."""
        return self._turn[request.id]

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Until the first turn ends."""
        return min((self._left[request.id] for request in running), default=1) - 1

    def on_queued(self, request: Request, now: float) -> None:
        """A newcomer joins in the latest round: before it, everybody gets as far. So newcomers starve nobody."""
        self._line_up(request, self._latest)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """Whose turn is over lines up for the next round."""
        self._left[request.id] -= delivered
        if self._left[request.id] <= 0:
            self._line_up(request, self._turn[request.id][0] + 1)

    def on_done(self, request: Request, now: float) -> None:
        """Out of the line."""
        del self._turn[request.id], self._left[request.id]

    def _line_up(self, request: Request, turn: int) -> None:
        self._turn[request.id], self._left[request.id] = (turn, next(self._turns)), self.quantum
        self._latest = max(self._latest, turn)
