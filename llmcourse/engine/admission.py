"""The door and the waiting room: who is let in at all, and who is sent away because waiting has become pointless.

A server that takes everything serves nobody in time once it is overloaded. Shedding a request is an answer too, at
once and with a reason: its status is ABORTED, its finish reason "shed". The rules stand in `policies/admission.py`.
Week 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcourse.engine.request import Request

if TYPE_CHECKING:
    from llmcourse.engine.scheduler import Scheduler


class Admission:
    """Lets everybody in and keeps everybody. Override what you want to change.

    It may read ``scheduler.waiting``, ``running``, ``pool`` and ``backlog`` (tokens still to be computed for them all).
    """

    def refuse(self, request: Request, scheduler: Scheduler, now: float) -> str | None:
        """Why the request is sent away on arrival; None lets it in."""
        return None

    def drop(self, request: Request, scheduler: Scheduler, now: float) -> str | None:
        """Asked of everybody waiting before each step: why it is sent away now; None lets it wait on."""
        return None

    def hold(self, request: Request, scheduler: Scheduler, now: float) -> bool:
        """Asked of the first of the waiting when there is room for it: True lets it wait on, and all behind it.

        What is held must not be let go merely because time passes: only because somebody ends, leaves or arrives.
        """
        return False
