"""The event log: what happened, when, to whom. Append-only, and the only source of metrics and figures.

Kinds carry vLLM's names where it has them (QUEUED, SCHEDULED, NEW_TOKENS, PREEMPTED); the table of what each carries in
``data`` stands in ARCHITECTURE.md. Week 2, and every week after.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class EventKind(StrEnum):
    """What can happen; equal to its name as a plain string."""

    QUEUED = "QUEUED"
    SCHEDULED = "SCHEDULED"
    NEW_TOKENS = "NEW_TOKENS"
    PREEMPTED = "PREEMPTED"
    EVICTED = "EVICTED"
    FINISHED = "FINISHED"
    ABORTED = "ABORTED"
    STEP = "STEP"
    MIGRATION = "MIGRATION"
    FAULT = "FAULT"
    SCALED = "SCALED"


NOTHING: Any = MappingProxyType({})


class Event(NamedTuple):
    """One thing that happened. ``time`` is in seconds of the engine's clock; ``request`` is None for a whole step.

    A tuple, because there may be millions.
    """

    time: float
    kind: EventKind
    request: str | None = None
    data: dict[str, Any] = NOTHING
    instance: int = 0
