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
    """Every step's batch and new blocks, and who was let in, preempted or sent away, in order: no times, no tokens."""
    found: list[Decision] = []
    for event in events:
        if event.kind is EventKind.STEP:
            data = event.data
            found.append(("step", tuple(map(tuple, data["batch"])),
                          tuple((owner, tuple(blocks)) for owner, blocks in data["blocks"])))
        elif event.kind is not EventKind.NEW_TOKENS:
            found.append((str(event.kind).lower(), event.request, event.data.get("reason")))
    return found


def first_difference(one: list[Decision], other: list[Decision]) -> str:
    """One line that names the first decision in which two runs differ; empty when they are equal."""
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"decision {number}: {a} against {b}"
    return "" if len(one) == len(other) else f"{len(one)} decisions against {len(other)}"
