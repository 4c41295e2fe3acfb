"""What a run looks like: steps, spans of time per request, and who owns which block when.

Every picture of a run is drawn from this, so that all of them agree. A span is a stretch in which one request did one
kind of thing: waiting, prefill, recompute, decode, idle (running, but given no token in that step), preempted.
`reader.py` builds it from the event log. Weeks 2-6.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmcourse.errors import UserError


@dataclass(frozen=True)
class Step:
    """One iteration of the engine, as logged: times in seconds, the batch, and the counters at its end."""

    number: int
    start: float
    end: float
    batch: tuple[tuple[str, int, int], ...]  # (request, first position, tokens)
    waiting: int
    running: int
    used_blocks: int
    num_blocks: int
    block_size: int
    tables: dict[str, tuple[int, ...]]  # block table of every request that owned blocks in this step
    stored: dict[str, int]  # tokens of each whose K and V lie in those blocks


@dataclass(frozen=True)
class Span:
    """One kind of time of one request: [start, end) in seconds, [first, last] in step numbers."""

    request: str
    kind: str
    start: float
    end: float
    first: int
    last: int
    slot: int
    tokens: int = 0


@dataclass
class Life:
    """One request's milestones, in seconds of the engine's clock; None for what did not happen."""

    request: str
    letter: str
    prompt_tokens: int
    queued: float
    scheduled: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    finished: float | None = None
    reason: str = ""
    delivered: int = 0
    gaps: list[tuple[float, float]] = field(default_factory=list)  # preempted: from, to


@dataclass(frozen=True)
class Timeline:
    """A run, read: steps in order, spans of every request, lives by request id in order of arrival."""

    steps: tuple[Step, ...]
    spans: tuple[Span, ...]
    lives: dict[str, Life]
    preemptions: tuple[tuple[float, int, str], ...]  # (time, step about to run, request)

    @property
    def end(self) -> float:
        """Time of the last thing that happened, in seconds."""
        ends = [step.end for step in self.steps] + [life.queued for life in self.lives.values()]
        return max(ends, default=0.0)


def merge(spans: Sequence[Span]) -> list[Span]:
    """Join neighbours of the same request, kind and slot that touch in step number: fewer, longer bars."""
    joined: list[Span] = []
    latest: dict[str, int] = {}
    for span in sorted(spans, key=lambda span: (span.request, span.start)):
        before = joined[latest[span.request]] if span.request in latest else None
        same = before is not None and (before.kind, before.slot) == (span.kind, span.slot)
        if (
            before is not None
            and same
            and before.last + 1 == span.first
            and abs(before.end - span.start) < 1e-9
        ):
            whole = Span(
                span.request,
                span.kind,
                before.start,
                span.end,
                before.first,
                span.last,
                span.slot,
                before.tokens + span.tokens,
            )
            joined[latest[span.request]] = whole
        else:
            latest[span.request] = len(joined)
            joined.append(span)
    return joined


def step_at(timeline: Timeline, number: int | None) -> Step:
    """The step of that number (None: the last).

    Raises:
        UserError: no such step in the log.
    """
    if not timeline.steps:
        raise UserError("the log holds no step yet: run the engine first")
    if number is None:
        return timeline.steps[-1]
    for step in timeline.steps:
        if step.number == number:
            return step
    known = f"{timeline.steps[0].number} to {timeline.steps[-1].number}"
    raise UserError(f"step {number} is not in the log; it holds steps {known}")
