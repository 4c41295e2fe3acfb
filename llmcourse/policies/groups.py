"""Request groups: requests of one service class and about one length, so that a queue is a handful of entries.

Thousands of requests cannot be put in order one by one whenever something changes; groups can, and a group's wait can
be told far better than a single request's. A group has at most ``size`` members, so that none waits for a whole class.
Patke et al., 2024 (QLM), where the lengths are clustered by k-means: here by powers of two. Week 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from llmcourse.engine.request import Request, Status
from llmcourse.metrics.waiting_time import Group
from llmcourse.policies.sjf import expected_output

Kind = tuple[float, int]                 # seconds its class allows for the first token, power of two of its length


class RequestGroup:
    """Waiting requests of one ``kind``, first come first served; ``number`` says when it was formed."""

    def __init__(self, kind: Kind, number: int) -> None:
        self.kind, self.number = kind, number
        self.members: dict[Request, None] = {}

    @property
    def due(self) -> float:
        """When the first of those who wait must have its first token (s)."""
        return _arrival(next(iter(self.members))) + self.kind[0]


class Groups:
    """All groups with somebody waiting, and what has been learnt of the lengths of each kind."""

    def __init__(self, size: int, default_ttft: float) -> None:
        self.size, self.default_ttft = size, default_ttft
        self._groups: dict[int, RequestGroup] = {}            # by number
        self._of: dict[Request, RequestGroup] = {}
        self._open: dict[Kind, RequestGroup] = {}             # of each kind, the one that takes newcomers
        self._numbers = count()
        self._learnt: dict[Kind, tuple[int, int, int]] = {}   # finished requests, their output tokens, and squares

    def __iter__(self) -> Iterator[RequestGroup]:
        return iter(self._groups.values())

    def kind(self, request: Request) -> Kind:
        """Its class and its length, which it keeps for life."""
        promised = request.slo.ttft if request.slo else None
        return self.default_ttft if promised is None else promised, int(max(1.0, expected_output(request))).bit_length()

    def of(self, request: Request) -> RequestGroup:
        """The group in which it waits; KeyError when it does not wait."""
        return self._of[request]

    def first(self) -> RequestGroup | None:
        """The group that is due first; None when nobody waits."""
        return min(self._groups.values(), key=lambda group: (group.due, group.number), default=None)

    def in_order(self) -> list[RequestGroup]:
        """All groups, by when they are due."""
        return sorted(self._groups.values(), key=lambda group: (group.due, group.number))

    def join(self, request: Request) -> None:
        """It waits, in the open group of its kind if there is room."""
        kind = self.kind(request)
        group = self._open.get(kind)
        if group is None or len(group.members) >= self.size:
            group = self._open[kind] = RequestGroup(kind, next(self._numbers))
            self._groups[group.number] = group
        last = next(reversed(group.members), request)
        group.members[request] = None
        if _arrival(request) < _arrival(last):                # it has been evicted, and comes back
            group.members = dict.fromkeys(sorted(group.members, key=_arrival))
        self._of[request] = group

    def leave(self, request: Request) -> None:
        """It waits no longer; a group is gone with its last member. Nothing happens to who does not wait."""
        group = self._of.pop(request, None)
        if group is None:
            return
        del group.members[request]
        if not group.members:
            del self._groups[group.number]
            if self._open.get(group.kind) is group:
                del self._open[group.kind]

    def learn(self, request: Request) -> None:
        """One more output length of its kind is known, if it has finished."""
        if request.status is Status.FINISHED:
            number, total, squares = self._learnt.get(self.kind(request), (0, 0, 0))
            output = request.num_output
            self._learnt[self.kind(request)] = number + 1, total + output, squares + output * output

    def outputs(self, request: Request, number: float = 1) -> Group:
        """So many requests like this one: what was learnt of its kind, else what is expected of itself."""
        known, total, squares = self._learnt.get(self.kind(request), (0, 0, 0))
        if known < 2:
            return Group(number, expected_output(request))
        return Group(number, total / known, (squares - total * total / known) / (known - 1))


def _arrival(request: Request) -> float:
    assert request.arrival is not None
    return request.arrival
