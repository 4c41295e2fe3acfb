"""Builds a run's timeline from its event log, in one walk.

Whether a step's tokens are a prefill or a decode follows from the log alone: a request is filling from the moment it is
queued or preempted until its next token is delivered. Intervals follow vLLM's rules (metrics design notes, 2025).
Weeks 2-6.
"""

from collections.abc import Iterable

from llmcourse.engine.events import Event
from llmcourse.engine.tables import Tables, follow
from llmcourse.errors import UserError
from llmcourse.viz.theme import letter
from llmcourse.viz.timeline import Life, Span, Step, Timeline


class _Reader:
    """Walks the log in order; holds what is true at the current event."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.steps: list[Step] = []
        self.spans: list[Span] = []
        self.preemptions: list[tuple[float, int, str]] = []
        self.filling: set[str] = set()
        self.slots: dict[str, int] = {}
        self.tables: Tables = {}  # of tuples: all steps until it grows share one
        self.stored: dict[str, int] = {}
        self.open: dict[str, tuple[str, float, int]] = {}  # not running: kind, since when, from which step
        self.moved: set[str] = set()  # adopted by another instance of this log, and not released yet by the one before

    def read(self, event: Event) -> None:
        handler = getattr(self, "on_" + str(event.kind).lower(), None)
        if handler is not None:
            handler(event)

    def on_queued(self, event: Event) -> None:
        name = _owner(event)
        life = Life(name, letter(len(self.lives)), event.data.get("prompt_tokens", 0), event.time)
        self.lives[name] = life
        self.filling.add(name)
        self.open[name] = ("waiting", event.time, self.step)

    def on_scheduled(self, event: Event) -> None:
        life = self.life(event)
        if life.scheduled is None:
            life.scheduled = event.time
        self.close(life.request, event.time)
        self.seat(life.request)

    def on_migration(self, event: Event) -> None:
        """In the log of one instance a request may come from elsewhere, or leave; in that of all it only moves on."""
        name, stage = _owner(event), event.data["stage"]
        if stage == "adopted" and name in self.lives:
            self.moved.add(name)
            return
        if stage == "released" and name in self.moved:
            self.moved.discard(name)
            return
        follow(self.tables, event)
        if stage == "adopted":
            self.lives[name] = Life(name, letter(len(self.lives)), 0, event.time)
            if self.tables.get(name):
                self.seat(name)
            else:
                self.open[name] = ("waiting", event.time, self.step)
        elif stage == "released":
            self.close(name, event.time)
            self.leave(name)

    def seat(self, name: str) -> None:
        taken = set(self.slots.values())
        self.slots[name] = next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def on_preempted(self, event: Event) -> None:
        life = self.life(event)
        if event.data.get("parked"):
            self.slots.pop(life.request, None)
        else:
            self.leave(life.request)
        if event.data.get("saved") is None:
            self.filling.add(life.request)
        self.open[life.request] = ("preempted", event.time, self.step)
        self.preemptions.append((event.time, self.step, life.request))

    def on_evicted(self, event: Event) -> None:
        name = _owner(event)
        self.leave(name)
        if event.data.get("saved") is None:
            self.filling.add(name)

    def on_step(self, event: Event) -> None:
        data = event.data
        follow(self.tables, event)
        batch = tuple((name, start, count) for name, start, count in data["batch"])
        self.stored.update({name: start + count for name, start, count in batch})
        counters = {
            key: data[key] for key in ("waiting", "running", "used_blocks", "num_blocks", "block_size")
        }
        step = Step(
            data["step"],
            data["start"],
            event.time,
            batch,
            tables=dict(self.tables),
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

    def on_new_tokens(self, event: Event) -> None:
        life = self.life(event)
        life.delivered += len(event.data.get("tokens", ()))
        life.first_token = event.time if life.first_token is None else life.first_token
        life.last_token = event.time
        self.filling.discard(life.request)

    def on_finished(self, event: Event) -> None:
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

    def life(self, event: Event) -> Life:
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


def read_timeline(events: Iterable[Event]) -> Timeline:
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


def _owner(event: Event) -> str:
    if event.request is None:
        raise UserError(f"a {event.kind} event names no request")
    return event.request
