"""What a scheduler decided, apart from when: the log that must be the same in every world (invariant 6).

The same scheduler, told of the same arrivals and step times, must take the same decisions whether a real model, a mock
or a simulation runs its steps. `decisions` strips an event log down to them; two runs are compared with ``==``. Week 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmcourse.engine.events import Event, EventKind

Decision = tuple[Any, ...]


def decisions(events: Iterable[Event]) -> list[Decision]:
    """Every step's batch and new blocks, and who was let in, preempted or sent away, in order: no times, no tokens.

    With how much of a request's KV was saved or restored.
    """
    found: list[Decision] = []
    for event in events:
        if event.kind is EventKind.STEP:
            data = event.data
            found.append(("step", tuple(map(tuple, data["batch"])), _tables(data["blocks"]),
                          _tables(data.get("tables", ()))))
        elif event.kind is not EventKind.NEW_TOKENS:
            found.append((str(event.kind).lower(), event.request, event.data.get("reason"), event.data.get("saved"),
                          event.data.get("restored")))
    return found


def _tables(told: Iterable[tuple[str, Iterable[int]]]) -> tuple[Decision, ...]:
    return tuple((owner, tuple(blocks)) for owner, blocks in told)


def first_difference(one: list[Decision], other: list[Decision]) -> str:
    """One line that names the first decision in which two runs differ; empty when they are equal."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"decision {number}: {a} against {b}"
    return "" if len(one) == len(other) else f"{len(one)} decisions against {len(other)}"
