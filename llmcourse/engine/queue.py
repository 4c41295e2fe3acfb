"""The waiting queue: in policy order, without sorting it at every step.

Under a static policy it is a heap, and the first of a hundred thousand costs about what the first of ten costs. Under a
policy whose keys change nobody can keep order, so the first is looked for each time. Week 3.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Any

from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request


class WaitingQueue:
    """Requests that wait, new or preempted. Iteration is in no special order; `in_order` is."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._requests: dict[int, Request] = {}               # by place of arrival
        self._heap: list[tuple[tuple[Any, int], int, Request]] = []
        self._entries = count()                               # so that no two entries of the heap are equal
        self.pending_tokens = 0                               # tokens to compute for all of them
        self.num_preempted = 0                                # those who have had to give way

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))

    def __contains__(self, request: object) -> bool:
        return isinstance(request, Request) and self._requests.get(request.rank[1]) is request

    def add(self, request: Request) -> None:
        """Let a ranked request wait."""
        self._requests[request.rank[1]] = request
        self.pending_tokens += request.pending
        self.num_preempted += request.preemptions > 0
        if self._policy.static:
            heapq.heappush(self._heap, (request.rank, next(self._entries), request))

    def remove(self, request: Request) -> None:
        """Take a request out; KeyError when it does not wait."""
        del self._requests[request.rank[1]]
        self.num_preempted -= request.preemptions > 0
        self.pending_tokens -= request.pending                # what is left in the heap is thrown away when it comes up
        if not self._requests:
            self._heap.clear()

    def first(self, now: float) -> Request | None:
        """Who is next in policy order; None when nobody waits."""
        if not self._requests:
            return None
        if not self._policy.static:
            return min(self._requests.values(), key=lambda r: (self._policy.key(r, now), r.rank[1]))
        while self._heap[0][2] not in self:
            heapq.heappop(self._heap)
        return self._heap[0][2]

    def in_order(self, now: float) -> list[Request]:
        """All of them in policy order, a new list."""
        return sorted(self._requests.values(), key=lambda r: (self._policy.key(r, now), r.rank[1]))
