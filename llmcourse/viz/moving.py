"""A migration, read from the event log: who worked on the request when, what went over the link, what the client got.

Three parties write the log: source and destination (reserved, stopped, adopted, released, …), and the cluster between
them (begun, copy, moved, aborted). Here they are put together again, one `Move` for each migration, so that every
picture of one agrees with the log and with every other. Week 7.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from llmcourse.engine.events import Event
from llmcourse.errors import UserError

Spell = tuple[float, float]              # from, to, in seconds


@dataclass(frozen=True)
class Work:
    """A step of an instance, s: what it did for the request ("decode", "prefill"), or "others" when it had no part."""

    instance: int
    kind: str
    start: float
    end: float
    tokens: int = 0


@dataclass(frozen=True)
class Copy:
    """Blocks [first, last) of the request's table on the link, s; ``stopped``: the request stood still meanwhile."""

    first: int
    last: int
    bytes: int
    start: float
    end: float
    stopped: bool


@dataclass(frozen=True)
class Move:
    """One migration of one request. Times in seconds; ``outcome`` is "moved", "aborted" or "" while it runs.

    ``stopped`` holds the spells in which nobody could compute for it because of this migration, ``reserved`` those in
    which blocks were kept for it at the destination, ``tokens`` the times at which the client got a token of it.
    """

    request: str
    source: int
    destination: int
    method: str
    begun: float
    ended: float
    outcome: str
    reason: str
    copies: tuple[Copy, ...]
    stopped: tuple[Spell, ...]
    reserved: tuple[Spell, ...]
    work: tuple[Work, ...]
    tokens: tuple[float, ...]
    faults: tuple[tuple[float, int], ...]        # (time, instance) of those who died meanwhile

    @property
    def bytes(self) -> int:
        """All that went over the link."""
        return sum(copy.bytes for copy in self.copies)

    @property
    def downtime(self) -> float:
        """Seconds from the first stop until the client got a token again (or the log ends): nobody computed one."""
        if not self.stopped:
            return 0.0
        start = self.stopped[0][0]
        return next((time for time in self.tokens if time > start), self.stopped[-1][1]) - start

    @property
    def pause(self) -> Spell:
        """The longest gap between two tokens of the client that touches the migration (from, to); its begin if none."""
        late = [gap for gap in pairwise(self.tokens) if gap[1] > self.begun and gap[0] < self.ended]
        return max(late, key=lambda gap: gap[1] - gap[0], default=(self.begun, self.begun))


def read_moves(events: Iterable[Event]) -> list[Move]:
    """All migrations of a merged log, in the order in which they began.

    Raises:
        UserError: the log holds none.
    """
    log = sorted(events, key=lambda event: event.time)
    begun = [event for event in log if event.kind == "MIGRATION" and event.data["stage"] == "begun"]
    if not begun:
        raise UserError("no migration in this log: pass driver.events after driver.migrate(request, destination)")
    return [_move(log, event) for event in begun]


def _move(log: Sequence[Event], begun: Event) -> Move:
    request, start = str(begun.request), begun.time
    source, destination = begun.data["source"], begun.data["destination"]
    own = [e for e in log if e.kind == "MIGRATION" and e.request == begun.request and e.time >= start]
    last = next((e for e in own if e.data["stage"] in ("moved", "aborted")), None)
    end = max(e.time for e in log) if last is None else last.time
    own = [e for e in own if e.time <= end]              # the two sides and the cluster may have written at one moment
    faults = tuple((e.time, int(e.data["instance"])) for e in log if e.kind == "FAULT" and start <= e.time <= end)
    stages = [(e.time, str(e.data["stage"])) for e in own]
    stopped = _spells(stages, faults, "stopped", ("resumed", "adopted"), source, end)
    copies = tuple(_copy(e, stopped) for e in own if e.data["stage"] == "copy")
    # The destination writes at the end of the step under way, and nothing is sent before it has kept room.
    kept = [(min([since, *(copy.start for copy in copies)]), until)
            for since, until in _spells(stages, faults, "reserved", ("adopted", "dropped"), destination, end)]
    return Move(request, source, destination, begun.data["method"], start, end,
                last.data["stage"] if last else "", str(last.data.get("reason") or "") if last else "",
                copies, stopped, tuple(kept), _work(log, request),
                tuple(e.time for e in log if e.kind == "NEW_TOKENS" and e.request == request for _ in e.data["tokens"]),
                faults)


def _spells(stages: Sequence[tuple[float, str]], faults: Sequence[tuple[float, int]], opening: str,
            closing: Sequence[str], instance: int, end: float) -> tuple[Spell, ...]:
    """From the opening stage to a closing one, the instance's death, or the migration's end; as often as it happens."""
    marks = sorted([*stages, *((time, "died") for time, dead in faults if dead == instance)], key=lambda mark: mark[0])
    found: list[Spell] = []
    since: float | None = None
    for time, stage in marks:
        if stage == opening and since is None:
            since = time
        elif stage in (*closing, "died") and since is not None:
            found.append((since, time))
            since = None
    return tuple(found if since is None else [*found, (since, end)])


def _copy(event: Event, stopped: Sequence[Spell]) -> Copy:
    data = event.data
    still = any(start <= data["start"] <= end for start, end in stopped)
    return Copy(data["first"], data["last"], data["bytes"], data["start"], event.time, still)


def _work(log: Sequence[Event], request: str) -> tuple[Work, ...]:
    """Every step of every instance, by what it did for the request."""
    found = []
    for event in log:
        if event.kind == "STEP":
            counts = {name: count for name, _, count in event.data["batch"]}
            count = counts.get(request, 0)
            kind = "others" if not count else "decode" if count == 1 else "prefill"
            found.append(Work(event.instance, kind, event.data["start"], event.time, count))
    return tuple(found)
