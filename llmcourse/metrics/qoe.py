"""Quality of experience: an answer is read, so what counts is whether the next word is there when the reader needs it.

A reader expects the first token after ``ttft`` seconds and then reads ``pace`` tokens a second. What comes sooner waits
in a buffer and helps nobody but the next pause; what comes late delays everything behind it. Each token has a moment at
which it was expected and one at which it could be read; QoE is 1 less the area between these two curves over the area
under the expected one, up to the end of reading. So it lies between 0 and 1, tokens faster than the reader add
nothing, and a late start weighs more in a short answer. Liu et al., 2024 (Andes). Week 10.

    read[i] = max(came[i], read[i-1] + 1/pace)        expected[i] = ttft + i/pace        end = read[last] + 1/pace
    QoE     = 1 - sum max(0, read[i] - expected[i]) / sum (end - expected[i])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.engine.events import Event

READING = 4.8                            # tokens a second that a person reads, about (Liu et al., 2024)


def check_reader(ttft: float, pace: float) -> None:
    """Refuse a reader who expects nothing or never reads."""
    if not (0 <= ttft < float("inf") and 0 < pace < float("inf")):
        raise UserError(f"a reader who waits {ttft} s and reads {pace} tokens/s; give a wait of at least 0 s and a "
                        "pace above 0")


def qoe_of(came: Sequence[float], ttft: float = 1.0, pace: float = READING) -> float:
    """QoE of one answer whose tokens came so many seconds after its arrival; 0 when none came."""
    check_reader(ttft, pace)
    if not came:
        return 0.0
    read, delay, expected = float("-inf"), 0.0, 0.0
    for number, time in enumerate(came):
        read = max(time, read + 1 / pace)
        due = ttft + number / pace
        delay += max(0.0, read - due)
        expected += due
    end = max(read, ttft + (len(came) - 1) / pace) + 1 / pace
    return 1 - delay / (len(came) * end - expected)


def qoe(events: Iterable[Event], ttft: float = 1.0, pace: float = READING) -> dict[str, float]:
    """QoE of every request that was queued, by id; of one that has not ended, of what has come so far."""
    arrivals: dict[str, float] = {}
    came: dict[str, list[float]] = {}
    for event in events:
        if event.request is None:
            continue
        if event.kind == "QUEUED":
            arrivals[event.request], came[event.request] = event.time, []
        elif event.kind == "NEW_TOKENS" and event.request in came:
            came[event.request] += [event.time - arrivals[event.request]] * len(event.data["tokens"])
    return {name: qoe_of(times, ttft, pace) for name, times in came.items()}


def mean_qoe(events: Iterable[Event], ttft: float = 1.0, pace: float = READING) -> float:
    """The mean over all requests; NaN without any."""
    found = qoe(events, ttft, pace)
    return fmean(found.values()) if found else float("nan")
