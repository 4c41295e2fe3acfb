"""Block tables as an event log tells them: what figures, monitors and tests read when the pool itself has moved on.

A table grows by what a STEP says it gained, is told anew when blocks of it were copied or moved, and is gone when its
request is preempted or ends. Blocks may stand in several tables. Week 6.
"""

from __future__ import annotations

from llmcourse.engine.events import Event, EventKind

Tables = dict[str, tuple[int, ...]]
GONE = (EventKind.PREEMPTED, EventKind.FINISHED, EventKind.ABORTED)


def follow(tables: Tables, event: Event) -> None:
    """Change the tables (by request id) to what they are after the event."""
    if event.kind == EventKind.STEP:
        for owner, blocks in event.data["blocks"]:
            if blocks:
                tables[owner] = tables.get(owner, ()) + tuple(blocks)
        for owner, table in event.data.get("tables", ()):
            tables[owner] = tuple(table)
    elif event.kind in GONE:
        tables.pop(str(event.request), None)


def used_blocks(tables: Tables) -> int:
    """How many different blocks the tables name."""
    return len({block for table in tables.values() for block in table})
