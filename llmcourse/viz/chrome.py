"""Chrome trace of a run, for Perfetto or chrome://tracing: steps, requests, memory, preemptions.

Steps of one engine never overlap, so they are complete events ("X") on one track; requests do overlap, so each is an
asynchronous pair ("b"/"e") with its own id and marks ("n") for scheduling, first token and preemption, never an "X":
Perfetto does not draw overlapping "X" on one track. Counters ("C") carry blocks in use, running and waiting. Times
are microseconds. Reference: Trace Event Format (Google, 2016). Weeks 2-4.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmcourse.engine.events import Event

MARKS = ("SCHEDULED", "PREEMPTED")
STEPS_TRACK = 0


def chrome_trace(events: Iterable[Event]) -> dict[str, Any]:
    """The log as a Trace Event object: `pid` is the instance, `ts` and `dur` are microseconds."""
    entries: list[dict[str, Any]] = []
    instances: list[int] = []
    seen_token: set[str] = set()
    open_requests: dict[str, int] = {}
    last = 0.0
    for event in events:
        instance = getattr(event, "instance", 0)
        if instance not in instances:
            instances.append(instance)
        last = max(last, event.time)
        if str(event.kind) == "STEP":
            entries += _step(event, instance)
        elif event.request is not None:
            entries += _request(event, instance, seen_token, open_requests)
    entries += [
        _life("e", name, last, pid) for name, pid in open_requests.items()
    ]  # still running at the end
    entries.sort(key=lambda entry: entry["ts"])
    return {"displayTimeUnit": "ms", "traceEvents": [*_names(instances), *entries]}


def write_chrome_trace(events: Iterable[Event], path: str | Path) -> Path:
    """Write the trace as JSON; returns the path. Open it at ui.perfetto.dev or chrome://tracing."""
    path = Path(path)
    path.write_text(json.dumps(chrome_trace(events)), encoding="utf-8")
    return path


def _micro(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _step(event: Event, pid: int) -> list[dict[str, Any]]:
    data = event.data
    start, end = _micro(data["start"]), _micro(event.time)
    tokens = sum(count for _, _, count in data["batch"])
    shown = {"tokens": tokens, "batch": {name: count for name, _, count in data["batch"]}}
    counters = {
        "kv_blocks": {"used": data["used_blocks"]},
        "requests": {"running": data["running"], "waiting": data["waiting"]},
    }
    step = {
        "ph": "X",
        "name": f"step {data['step']}",
        "cat": "step",
        "pid": pid,
        "tid": STEPS_TRACK,
        "ts": start,
        "dur": round(end - start, 3),
        "args": shown,
    }
    return [
        step,
        *(
            {"ph": "C", "name": name, "pid": pid, "ts": start, "args": args}
            for name, args in counters.items()
        ),
    ]


def _request(
    event: Event, pid: int, seen_token: set[str], open_requests: dict[str, int]
) -> list[dict[str, Any]]:
    name, kind = str(event.request), str(event.kind)
    if kind == "QUEUED":
        open_requests[name] = pid
        return [{**_life("b", name, event.time, pid), "args": dict(event.data)}]
    if name not in open_requests:
        return []
    if kind in ("FINISHED", "ABORTED"):
        del open_requests[name]
        return [
            {**_life("e", name, event.time, pid), "args": {"reason": event.data.get("reason", "aborted")}}
        ]
    marks = []
    if kind in MARKS or (kind == "NEW_TOKENS" and name not in seen_token):
        marks.append({**_life("n", name, event.time, pid), "args": {"event": kind.lower()}})
    if kind == "NEW_TOKENS":
        seen_token.add(name)
    if kind == "PREEMPTED":
        marks.append(
            {
                "ph": "i",
                "name": f"preempted {name}",
                "cat": "preemption",
                "s": "p",
                "pid": pid,
                "tid": STEPS_TRACK,
                "ts": _micro(event.time),
                "args": dict(event.data),
            }
        )
    return marks


def _life(phase: str, name: str, seconds: float, pid: int) -> dict[str, Any]:
    return {
        "ph": phase,
        "name": f"request {name}",
        "cat": "request",
        "id": f"{pid}:{name}",
        "pid": pid,
        "tid": STEPS_TRACK,
        "ts": _micro(seconds),
    }


def _names(instances: list[int]) -> list[dict[str, Any]]:
    named = []
    for pid in instances:
        named.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": f"instance {pid}"}})
        named.append(
            {"ph": "M", "name": "thread_name", "pid": pid, "tid": STEPS_TRACK, "args": {"name": "steps"}}
        )
    return named
