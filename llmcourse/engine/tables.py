"""Block tables as an event log tells them: what figures, monitors and tests read when the pool itself has moved on.

A table grows by what a STEP says it gained, or by what is reserved for a request that comes from another instance. It
is told anew when blocks of it were copied or moved, and is gone when its request is preempted (and not only parked),
evicted, leaves or ends. Blocks may stand in several tables. Week 6.
"""

from __future__ import annotations

from llmcourse.engine.events import Event, EventKind

Tables = dict[str, tuple[int, ...]]
GONE = (EventKind.PREEMPTED, EventKind.EVICTED, EventKind.FINISHED, EventKind.ABORTED)
LEFT = ("released", "dropped")           # stages of a migration after which an instance keeps nothing of it


def follow(tables: Tables, event: Event) -> None:
    """Change the tables (by request id) to what they are after the event."""
    if event.kind == EventKind.STEP:
        for owner, blocks in event.data["blocks"]:
            if blocks:
                tables[owner] = tables.get(owner, ()) + tuple(blocks)
        for owner, table in event.data.get("tables", ()):
            tables[owner] = tuple(table)
    elif (event.kind in GONE and not event.data.get("parked")) or (
            event.kind == EventKind.MIGRATION and event.data["stage"] in LEFT):
        tables.pop(str(event.request), None)
    elif event.kind == EventKind.MIGRATION and event.data.get("blocks"):
        tables[str(event.request)] = tables.get(str(event.request), ()) + tuple(event.data["blocks"])


def used_blocks(tables: Tables) -> int:
    """How many different blocks the tables name."""
    return len({block for table in tables.values() for block in table})
