"""QLM: queue management for several service levels: groups in order of what is left of their SLO, and eviction.

A service has requests that people wait for and others that have all night. One queue in order of arrival makes the
first late; one in order of deadlines lets them go first, but cannot help while the memory is full of the others. Here
groups of requests stand in order of their deadlines, the waiting time of each is estimated from the lengths learnt so
far (metrics/waiting_time.py: the sum of many lengths is known, though no single one is), and when anybody in the queue
would be late by this estimate, running requests of a looser class give their place up to its head. Patke et al., 2024
(QLM). Week 10.

The paper chooses among orders by an integer program, over several models whose weights are swapped; on one instance
with one model that is this order. A request past its own deadline is not evicted any more, so nobody starves.
"""

from collections.abc import Collection, Sequence

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.metrics.waiting_time import WaitingTime, waiting_time
from llmcourse.policies.groups import Groups, RequestGroup


class QLM(Policy):
    """Order by group: an urgent one before those who run in looser classes, then by deadline; preemptive.

    A group has at most ``group_size`` requests. ``default_ttft`` (s) stands for the SLO of those without one. The
    first group is urgent when one of its members, or of those behind it, would be late, but is not yet, with a
    probability above 1 - ``confidence``: whoever is late already must not make others late by standing before them.
    ``tokens_per_second`` is the service's output rate; None: as measured so far.
    """

    static = False
    preemptive = True

    def __init__(self, group_size: int = 64, default_ttft: float = 60.0, confidence: float = 0.95,
                 tokens_per_second: float | None = None) -> None:
        if not group_size >= 1 or not 0 < default_ttft < float("inf") or not 0 < confidence < 1:
            raise UserError(f"group_size {group_size}, default_ttft {default_ttft} s, confidence {confidence}: a group "
                            "has at least 1 request, an SLO more than 0 s, a confidence lies between 0 and 1")
        if tokens_per_second is not None and not tokens_per_second > 0:
            raise UserError(f"tokens_per_second is {tokens_per_second}; give more than 0, or None to measure it")
        self.confidence, self.tokens_per_second = confidence, tokens_per_second
        self.groups = Groups(group_size, default_ttft)
        self._live: set[Request] = set()
        self._runs: dict[Request, None] = {}         # in order of admission
        self._delivered = 0                          # output tokens, in the busy seconds before ``_since``, and since
        self._busy, self._since = 0.0, 0.0
        self._asked: tuple[float, RequestGroup | None, bool] | None = None    # when, the first group, whether urgent

    def key(self, request: Request, now: float) -> tuple[float, ...]:
        """Who runs by class, an urgent group behind its own class, all others by deadline."""
        assert request.arrival is not None
        allowed = self.groups.kind(request)[0]
        if request in self._runs:
            due = request.arrival + allowed
            return (1, allowed, 0, due) if now < due else (0, allowed, 0, due)
        group, urgent = self._first(now)
        mine = self.groups.of(request)
        return (1, allowed, 1, mine.due) if urgent and mine is group else (2, mine.due, mine.number)

    def wait(self, ahead: int, now: float) -> WaitingTime | None:
        """How long a request waits behind so many others; None before anything is known.

        Each of them, and itself, starts when one has ended: so it is as long as so many of those who run take.
        """
        rate = self.rate(now)
        if not (rate and self._runs):
            return None
        share = 1 / len(self._runs)
        return waiting_time([self.groups.outputs(request, share) for request in self._runs], rate).times(ahead + 1)

    def rate(self, now: float) -> float:
        """Output tokens a second; 0 before any has come."""
        if self.tokens_per_second is not None:
            return self.tokens_per_second
        busy = self._busy + (now - self._since if self._live else 0.0)
        return self._delivered / busy if busy > 0 else 0.0

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Deadlines come closer at every step; but nobody minds while nobody waits."""
        return 0 if waiting else FOREVER

    def _first(self, now: float) -> tuple[RequestGroup | None, bool]:
        """The group that is due first, and whether it is urgent: asked once a moment, for all keys."""
        if self._asked is None or self._asked[0] != now:
            self._asked = now, self.groups.first(), self._would_miss(now)
        return self._asked[1:]

    def _would_miss(self, now: float) -> bool:
        one, ahead = self.wait(0, now), 0
        for group in self.groups.in_order() if one else ():
            assert one is not None
            last = ahead + len(group.members)
            if one.times(last).quantile(self.confidence) > group.due - now:         # else all of it is in time
                for place, member in enumerate(group.members, ahead + 1):
                    assert member.arrival is not None
                    left = member.arrival + group.kind[0] - now
                    if left > 0 and not member.num_output and one.times(place).quantile(self.confidence) > left:
                        return True
            ahead = last
        return False

    # ---- what it is told -------------------------------------------------------------------------------------------

    def on_queued(self, request: Request, now: float) -> None:
        """It waits in a group; an idle service is busy from now on."""
        if not self._live:
            self._since = now
        self._live.add(request)
        self.groups.join(request)
        self._asked = None

    def on_scheduled(self, request: Request, now: float) -> None:
        """It runs."""
        self.groups.leave(request)
        self._runs[request] = None
        self._asked = None

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """What the service has handed out."""
        self._delivered += delivered
        self._asked = None

    def on_preempted(self, request: Request, now: float) -> None:
        """It was evicted, or lost its blocks: it waits in a group again."""
        self._runs.pop(request, None)
        self.groups.join(request)
        self._asked = None

    def on_done(self, request: Request, now: float) -> None:
        """Its length is known."""
        self.groups.leave(request)
        self.groups.learn(request)
        self._runs.pop(request, None)
        self._live.discard(request)
        if not self._live:
            self._busy += now - self._since
        self._asked = None
