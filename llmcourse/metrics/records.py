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
    """What one request lived through. Times that did not come about are None (no token yet: no TTFT).

    ``e2e`` runs to the last token so far, so ``finish_reason`` (None: it still lives) says whether it is the whole.
    ``ttft_slo`` and ``tpot_slo`` are what it was promised, in seconds; None: nothing.
    """

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
    tenant: str = ""
    priority: int = 0
    ttft_slo: float | None = None
    tpot_slo: float | None = None


def records(events: Iterable[Event]) -> list[Record]:
    """A record for every QUEUED request, in order of the log."""
    histories: dict[str, list[Event]] = {}
    for event in events:
        if event.request is None or event.kind == "MIGRATION":     # where it lives is not asked
            continue
        if event.kind == "QUEUED":
            histories.setdefault(event.request, []).append(event)
        elif event.request in histories:             # a cut log may know a request that never queued in it
            histories[event.request].append(event)
    return [_record(history) for history in histories.values()]


def _record(history: list[Event]) -> Record:
    queued, data = history[0], history[0].data
    scheduled = next((event.time for event in history if event.kind == "SCHEDULED"), None)
    tokens = [(event.time, len(event.data["tokens"])) for event in history if event.kind == "NEW_TOKENS"]
    times, count = [time for time, _ in tokens], sum(n for _, n in tokens)
    first, last = (times[0], times[-1]) if times else (None, None)
    before, between, after = _preempted(history)
    return Record(
        id=str(queued.request), arrival=queued.time, prompt_tokens=data["prompt_tokens"], output_tokens=count,
        preemptions=sum(e.kind == "PREEMPTED" for e in history), finish_reason=_reason(history[-1]),
        queue_time=_less(scheduled, queued.time),
        prefill_time=None if scheduled is None else _less(first, scheduled + before),
        decode_time=None if last is None or first is None else last - first - between,
        preempted_time=before + between + after,
        ttft=_less(first, queued.time),
        tpot=None if last is None or first is None or count < 2 else (last - first) / (count - 1),
        itl=tuple(b - a for a, b in pairwise(times)),
        e2e=_less(last, queued.time),
        tenant=data.get("tenant", ""), priority=data.get("priority", 0),
        ttft_slo=data.get("ttft_slo"), tpot_slo=data.get("tpot_slo"))


def _preempted(history: list[Event]) -> tuple[float, float, float]:
    """Seconds spent preempted before the first token, between first and last, and after the last (it ended without).

    The order of the log decides, not the clock: a step may take no time at all.
    """
    before, between, since_token, since = 0.0, 0.0, 0.0, None
    tokens = False
    for event in history:
        if event.kind == "PREEMPTED":
            since = event.time
        elif event.kind == "SCHEDULED" and since is not None:
            since_token, since = since_token + (event.time - since), None
        elif event.kind == "NEW_TOKENS":
            before, between = (before, between + since_token) if tokens else (since_token, 0.0)
            tokens, since_token = True, 0.0
    return (before, between, since_token) if tokens else (since_token, 0.0, 0.0)


def _reason(last: Event) -> str | None:
    """"stop" or "length"; "shed" when the service gave up on it, "abort" when its owner did; None: it still lives."""
    if last.kind == "ABORTED":
        return "shed" if "reason" in last.data else "abort"
    return last.data["reason"] if last.kind == "FINISHED" else None


def _less(time: float | None, start: float) -> float | None:
    return None if time is None else time - start
