"""Reads the event log once: steps, spans of time per request, and who owns which block when.

Every picture of a run starts here, so that all of them agree. A span is a stretch in which one request did one kind of
thing: waiting, prefill, recompute, decode, idle (running, but given no token in that step), preempted. Whether a step's
tokens are a prefill or a decode follows from the log alone: a request is filling from the moment it is queued or
preempted until its next token is delivered. Intervals follow vLLM's rules (metrics design notes, 2025). Weeks 2-6.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmcourse.errors import UserError
from llmcourse.viz.theme import letter


class LoggedEvent(Protocol):
    """What a view needs of an event; `llmcourse.engine.Event` has it."""

    @property
    def time(self) -> float: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def request(self) -> str | None: ...  # noqa: D102
    @property
    def data(self) -> dict[str, Any]: ...  # noqa: D102


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


class _Reader:
    """Walks the log in order; holds what is true at the current event."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.steps: list[Step] = []
        self.spans: list[Span] = []
        self.preemptions: list[tuple[float, int, str]] = []
        self.filling: set[str] = set()
        self.slots: dict[str, int] = {}
        self.tables: dict[str, list[int]] = {}
        self.stored: dict[str, int] = {}
        self.open: dict[str, tuple[str, float, int]] = {}  # not running: kind, since when, from which step

    def read(self, event: LoggedEvent) -> None:
        handler = getattr(self, "on_" + str(event.kind).lower(), None)
        if handler is not None:
            handler(event)

    def on_queued(self, event: LoggedEvent) -> None:
        name = _owner(event)
        life = Life(name, letter(len(self.lives)), event.data.get("prompt_tokens", 0), event.time)
        self.lives[name] = life
        self.filling.add(name)
        self.open[name] = ("waiting", event.time, self.step)

    def on_scheduled(self, event: LoggedEvent) -> None:
        life = self.life(event)
        if life.scheduled is None:
            life.scheduled = event.time
        self.close(life.request, event.time)
        taken = set(self.slots.values())
        self.slots[life.request] = next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def on_preempted(self, event: LoggedEvent) -> None:
        life = self.life(event)
        self.leave(life.request)
        self.filling.add(life.request)
        self.open[life.request] = ("preempted", event.time, self.step)
        self.preemptions.append((event.time, self.step, life.request))

    def on_step(self, event: LoggedEvent) -> None:
        data = event.data
        for name, blocks in data["blocks"]:
            self.tables.setdefault(name, []).extend(blocks)
        batch = tuple((name, start, count) for name, start, count in data["batch"])
        self.stored.update({name: start + count for name, start, count in batch})
        counters = {
            key: data[key] for key in ("waiting", "running", "used_blocks", "num_blocks", "block_size")
        }
        tables = {name: tuple(blocks) for name, blocks in self.tables.items() if blocks}
        step = Step(
            data["step"],
            data["start"],
            event.time,
            batch,
            tables=tables,
            stored=dict(self.stored),
            **counters,
        )
        self.steps.append(step)
        counts = {name: count for name, _, count in batch}
        for name, slot in self.slots.items():
            kind = self.kind(name) if name in counts else "idle"
            number = step.number
            self.spans.append(
                Span(name, kind, step.start, step.end, number, number, slot, counts.get(name, 0))
            )

    def on_new_tokens(self, event: LoggedEvent) -> None:
        life = self.life(event)
        life.delivered += len(event.data.get("tokens", ()))
        life.first_token = event.time if life.first_token is None else life.first_token
        life.last_token = event.time
        self.filling.discard(life.request)

    def on_finished(self, event: LoggedEvent) -> None:
        life = self.life(event)
        life.finished = event.time
        life.reason = str(event.data.get("reason", "aborted"))
        self.close(life.request, event.time)
        self.leave(life.request)

    on_aborted = on_finished

    @property
    def step(self) -> int:
        return self.steps[-1].number + 1 if self.steps else 0

    def kind(self, name: str) -> str:
        if name not in self.filling:
            return "decode"
        return "recompute" if self.lives[name].delivered else "prefill"

    def life(self, event: LoggedEvent) -> Life:
        name = _owner(event)
        if name not in self.lives:
            raise UserError(
                f"the log has {event.kind} of request {name!r} but no QUEUED before it: pass the whole log"
            )
        return self.lives[name]

    def close(self, name: str, time: float) -> None:
        if name not in self.open:
            return
        kind, since, first = self.open.pop(name)
        if kind == "preempted":
            self.lives[name].gaps.append((since, time))
        if time > since or self.step > first:
            self.spans.append(Span(name, kind, since, time, first, self.step - 1, -1))

    def leave(self, name: str) -> None:
        self.slots.pop(name, None)
        self.tables.pop(name, None)
        self.stored.pop(name, None)


def read_timeline(events: Iterable[LoggedEvent]) -> Timeline:
    """Read a whole event log; requests still waiting at its end get their span up to there.

    Raises:
        UserError: the log speaks of a request that it never queued.
    """
    reader = _Reader()
    for event in events:
        reader.read(event)
    end = max([step.end for step in reader.steps], default=0.0)
    for name in list(reader.open):
        reader.close(name, max(end, reader.open[name][1]))
    return Timeline(tuple(reader.steps), tuple(reader.spans), reader.lives, tuple(reader.preemptions))


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


def _owner(event: LoggedEvent) -> str:
    if event.request is None:
        raise UserError(f"a {event.kind} event names no request")
    return event.request
