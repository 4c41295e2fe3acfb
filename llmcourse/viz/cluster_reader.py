"""A film of a cluster: what each instance's memory holds at regular moments, who waits there, and who moved where.

Built from the merged event log of a cluster's driver alone. A request holds blocks where it runs, room is kept for it
where it is going, and what waits counts with the blocks its tokens will need. `cluster_map` shows a film; two films of
one workload under two policies are a what-if. Week 8.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.tables import Tables, follow
from llmcourse.errors import UserError

OVERALL = ("begun", "copy", "moved", "aborted")  # stages that the cluster tells; the others an instance does


@dataclass(frozen=True)
class Held:
    """A request on one instance: its blocks, and whether it "runs" there, is "coming" or "waits".

    ``home`` is the instance it was first sent to; of who waits ``blocks`` are those its tokens will need.
    """

    request: str
    blocks: int
    kind: str
    home: int
    priority: int = 0


@dataclass(frozen=True)
class InstanceMoment:
    """One instance at one moment."""

    number: int
    num_blocks: int
    held: tuple[Held, ...]

    def blocks(self, *kinds: str) -> int:
        """Blocks of the requests of these kinds."""
        return sum(one.blocks for one in self.held if one.kind in kinds)


@dataclass(frozen=True)
class Move:
    """A migration from ``source`` to ``destination``: start and end in seconds, ``outcome`` "moved" or "aborted"."""

    request: str
    source: int
    destination: int
    start: float
    end: float
    outcome: str
    blocks: int = 0


@dataclass(frozen=True)
class ClusterFilm:
    """All instances at regular moments (``times``, s), the migrations, and (time, instance) of every preemption."""

    times: tuple[float, ...]
    moments: tuple[tuple[InstanceMoment, ...], ...]
    moves: tuple[Move, ...]
    preemptions: tuple[tuple[float, int], ...]


@dataclass
class _Instance:
    tables: Tables = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)


class _Reader:
    """Walks the merged log; holds what is true at the current event."""

    def __init__(self, instances: int) -> None:
        self.instances = [_Instance() for _ in range(instances)]
        self.tokens: dict[str, int] = {}
        self.homes: dict[str, int] = {}
        self.priorities: dict[str, int] = {}
        self.open: dict[str, Event] = {}
        self.copied: dict[str, int] = {}
        self.moves: list[Move] = []
        self.preemptions: list[tuple[float, int]] = []

    def read(self, event: Event) -> None:
        """What is true after the event."""
        if event.kind is EventKind.MIGRATION and event.data["stage"] in OVERALL:
            self._migration(event)
            return
        here = self.instances[event.instance]
        follow(here.tables, event)
        name = str(event.request)
        if event.kind is EventKind.QUEUED:
            self.tokens[name] = event.data["prompt_tokens"]
            self.homes.setdefault(name, event.instance)
            self.priorities[name] = event.data.get("priority", 0)
        elif event.kind is EventKind.NEW_TOKENS:
            self.tokens[name] += len(event.data["tokens"])
        elif event.kind is EventKind.PREEMPTED:
            self.preemptions.append((event.time, event.instance))
        kind = _kind(event, here)
        if kind == "gone":
            here.kinds.pop(name, None)
        elif kind is not None:
            here.kinds[name] = kind

    def moment(self, sizes: Sequence[int], block_size: int) -> tuple[InstanceMoment, ...]:
        """All instances as they are now."""
        return tuple(InstanceMoment(number, sizes[number], tuple(self._held(one, block_size)))
                     for number, one in enumerate(self.instances))

    def _held(self, one: _Instance, block_size: int) -> Iterator[Held]:
        for name, kind in one.kinds.items():
            blocks = -(-self.tokens[name] // block_size) if kind == "waits" else len(one.tables.get(name, ()))
            yield Held(name, blocks, kind, self.homes[name], self.priorities[name])

    def _migration(self, event: Event) -> None:
        name, data = str(event.request), event.data
        if data["stage"] == "begun":
            self.open[name], self.copied[name] = event, 0
        elif data["stage"] == "copy":
            self.copied[name] = self.copied.get(name, 0) + data["last"] - data["first"]
        elif name in self.open:
            begun = self.open.pop(name)
            self.moves.append(Move(name, begun.data["source"], begun.data["destination"], begun.time, event.time,
                                   data["stage"], self.copied.pop(name, 0)))


def _kind(event: Event, here: _Instance) -> str | None:
    """What the request does on this instance from now on; "gone": nothing; None: what it did."""
    if event.kind is EventKind.MIGRATION:
        stage = event.data["stage"]
        if stage == "adopted":
            return "runs" if here.tables.get(str(event.request)) else "waits"
        return {"reserved": "coming", "released": "gone", "dropped": "gone"}.get(stage)
    return {EventKind.QUEUED: "waits", EventKind.SCHEDULED: "runs", EventKind.PREEMPTED: "waits",
            EventKind.FINISHED: "gone", EventKind.ABORTED: "gone"}.get(event.kind)


def cluster_film(events: Iterable[Event], frames: int = 120, until: float | None = None) -> ClusterFilm:
    """Film a run at ``frames`` + 1 equally distant moments, from its log merged by time, to its end or ``until`` (s).

    Films that are to stand side by side should end at the same time.

    Raises:
        UserError: there is no step in the log, or no frame is asked for.
    """
    log = sorted(events, key=lambda event: event.time)  # stable: what one instance says keeps its order
    steps = [event for event in log if event.kind is EventKind.STEP]
    if not steps or frames < 1:
        raise UserError("a film needs a log with steps, and at least one frame: run the cluster first")
    instances = 1 + max(event.instance for event in log)
    sizes = {event.instance: event.data["num_blocks"] for event in steps}
    found = [sizes.get(number, max(sizes.values())) for number in range(instances)]
    reader, moments, place = _Reader(instances), [], 0
    end = log[-1].time if until is None else until
    times = tuple(end * frame / frames for frame in range(frames + 1))
    for time in times:
        while place < len(log) and log[place].time <= time:
            reader.read(log[place])
            place += 1
        moments.append(reader.moment(found, steps[0].data["block_size"]))
    return ClusterFilm(times, tuple(moments), tuple(reader.moves), tuple(reader.preemptions))
