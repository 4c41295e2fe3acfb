"""Who goes first, and who gives way: the question the whole course turns around, as a small class.

A policy owns no memory and does no input or output. The scheduler asks it for an order when it chooses whom to admit,
and for a victim when blocks run out; and it tells the policy what happens, so that it can keep accounts.
Weeks 2-6, 9-10.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from llmcourse.engine.request import Request
from llmcourse.kv.memory import Memory

FOREVER = sys.maxsize


class Policy:
    """First come, first served, by arrival. Override what you want to change.

    ``static``: a request's key never changes between its arrival and its end, so it is asked once; otherwise it is
    asked anew at every decision. ``preemptive``: the first of the waiting may push out decoding requests with larger
    keys, which lose their KV by it.
    """

    static = True
    preemptive = False

    def key(self, request: Request, now: float) -> float | tuple[float, ...]:
        """Smaller goes first; ties go by order of arrival. ``now`` is in seconds."""
        assert request.arrival is not None
        return request.arrival

    def victim(self, running: Sequence[Request], now: float) -> Request:
        """Whom to preempt, of requests in policy order (never empty): by default the last."""
        return running[-1]

    def evicted(self, parked: Sequence[Request], now: float) -> Request:
        """Who loses its KV first when memory is short, of parked requests in policy order (never empty): the last."""
        return parked[-1]

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """For how many steps its order stays as it is while every running request decodes and nobody comes or goes.

        A simulation may jump over so many steps at once. At least 0; the default is the safe answer.
        """
        return FOREVER if self.static else 0

    # ---- what it is told -----------------------------------------------------------------------------------------

    def on_attached(self, pool: Memory) -> None:
        """A scheduler will use it, and this is the memory: to be read, never changed."""

    def on_queued(self, request: Request, now: float) -> None:
        """The request has arrived; it is not in the queue yet."""

    def on_scheduled(self, request: Request, now: float) -> None:
        """The request was admitted, for the first time or again; the next to be admitted is asked for after this.

        Or it runs elsewhere, and has its seat here while its KV is computed in advance.
        """

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """``count`` of its tokens were computed up to ``now`` and ``delivered`` of its output tokens handed out.

        Of one step, or the sums of several that a simulation has jumped over.
        """

    def on_preempted(self, request: Request, now: float) -> None:
        """The request had to give way and waits again; its KV is lost, in host memory, or parked."""

    def on_done(self, request: Request, now: float) -> None:
        """The request has finished, or was aborted or shed."""
