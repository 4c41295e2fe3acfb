"""Who goes first, and who gives way: the question the whole course turns around, as a small class.

A policy owns no memory and does no input or output. The scheduler asks it for an order when it fills a step, and for a
victim when blocks run out. Weeks 2-6, 9-10.
"""

from collections.abc import Sequence

from llmcourse.engine.request import Request


class Policy:
    """First come, first served, by arrival. Override what you want to change."""

    def key(self, request: Request, now: float) -> float | tuple[float, ...]:
        """Smaller goes first; ties go by order of arrival. ``now`` is in seconds."""
        assert request.arrival is not None
        return request.arrival

    def victim(self, running: Sequence[Request], now: float) -> Request:
        """Whom to preempt, of requests in policy order (never empty): by default the last."""
        return running[-1]

    def on_tokens(self, request: Request, count: int, now: float) -> None:
        """``count`` tokens of the request were computed in the step that ended at ``now`` seconds."""
