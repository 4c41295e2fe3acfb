"""One record per request, read off the event log with vLLM's definitions of its intervals.

    QUEUED ── queue ──► SCHEDULED ── prefill ──► first NEW_TOKENS ── decode ──► last NEW_TOKENS
           (time between PREEMPTED and the next SCHEDULED is "preempted" and belongs to neither neighbour)

TTFT runs from arrival to the first token; TPOT is the mean gap between tokens after the first; ITL is every single gap;
queue, prefill, decode and preempted time add up to end-to-end. All times are in seconds. Weeks 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcourse.engine.events import Event


@dataclass(frozen=True)
class Record:
    """What one request lived through. Times that did not come about are None (no token yet: no TTFT)."""

    id: str
    arrival: float
    prompt_tokens: int
    output_tokens: int
    preemptions: int
    finish_reason: str | None
    queue_time: float | None
    prefill_time: float | None
    decode_time: float | None
    preempted_time: float
    ttft: float | None
    tpot: float | None
    itl: tuple[float, ...]
    e2e: float | None


def records(events: Iterable[Event]) -> list[Record]:
    """A record for every QUEUED request, in order of the log."""
    histories: dict[str, list[Event]] = {}
    for event in events:
        if event.request is not None:
            histories.setdefault(event.request, []).append(event)
    return [_record(history) for history in histories.values()]


def _record(history: list[Event]) -> Record:
    queued = history[0]
    scheduled = [e.time for e in history if e.kind == "SCHEDULED"]
    tokens = [(e.time, len(e.data["tokens"])) for e in history if e.kind == "NEW_TOKENS"]
    times = [time for time, _ in tokens]
    count = sum(n for _, n in tokens)
    first, last = (times[0], times[-1]) if times else (None, None)
    before, after = _preempted(history, first)
    return Record(
        id=str(queued.request), arrival=queued.time, prompt_tokens=queued.data["prompt_tokens"], output_tokens=count,
        preemptions=sum(e.kind == "PREEMPTED" for e in history), finish_reason=_reason(history[-1]),
        queue_time=_less(scheduled[0] if scheduled else None, queued.time),
        prefill_time=_less(first, scheduled[0] + before) if scheduled else None,
        decode_time=None if last is None or first is None else last - first - after,
        preempted_time=before + after,
        ttft=_less(first, queued.time),
        tpot=None if last is None or first is None or count < 2 else (last - first) / (count - 1),
        itl=tuple(b - a for a, b in pairwise(times)),
        e2e=_less(last, queued.time))


def _preempted(history: list[Event], first_token: float | None) -> tuple[float, float]:
    """Seconds spent preempted before the first token, and after it."""
    before, after, since = 0.0, 0.0, None
    for event in history:
        if event.kind == "PREEMPTED":
            since = event.time
        elif event.kind == "SCHEDULED" and since is not None:
            if first_token is None or event.time < first_token:
                before += event.time - since
            else:
                after += event.time - since
            since = None
    return before, after


def _reason(last: Event) -> str | None:
    return last.data["reason"] if last.kind == "FINISHED" else "abort" if last.kind == "ABORTED" else None


def _less(time: float | None, start: float) -> float | None:
    return None if time is None else time - start
