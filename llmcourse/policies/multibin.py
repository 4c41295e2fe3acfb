"""Multi-bin batching: an engine that must finish its batch together should be given requests of like length.

Under ``batching="static"`` everybody waits for the longest of its batch. So each bin of expected lengths has a queue,
first in, first out; as soon as it holds ``size`` requests they become a batch, and batches are served in the order they
became one. Edges at equal shares of the requests make all bins equally busy. What it costs is the wait until
a bin is full. Engines that let requests leave one by one have nothing to gain: they do not wait for the longest.
Guldogan et al., 2024. Week 9.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

from llmcourse.engine.admission import Admission
from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.engine.scheduler import Scheduler
from llmcourse.errors import UserError
from llmcourse.policies.sjf import expected_output


def bin_edges(lengths: Sequence[float], bins: int) -> tuple[float, ...]:
    """Lengths between the bins, ``bins - 1`` of them, so that equally many of ``lengths`` (tokens) fall into each.

    Where many lengths are equal two edges may be, and a bin between them is empty.
    """
    if bins < 1 or not len(lengths):
        raise UserError(f"{bins} bins of {len(lengths)} lengths; give 1 bin or more, and some lengths")
    ordered = sorted(lengths)
    return tuple(float(ordered[len(ordered) * i // bins]) for i in range(1, bins))


def batch_time(least: float, most: float, bins: int, size: int) -> float:
    """The mean time of a batch of ``size`` when service times are uniform between ``least`` and ``most``.

    In a bin of width w = (most - least) / bins the longest of ``size`` is w / 2 (size - 1) / (size + 1) above the
    bin's middle, and the middles average to the middle of all. Endless bins leave the mean: nobody waits for anybody.
    """
    if bins < 1 or size < 1 or not 0 <= least <= most:
        raise UserError(f"{bins} bins, batches of {size}, times from {least} to {most}; bins and size are at least 1, "
                        "and 0 <= least <= most")
    return (least + most) / 2 + (most - least) / (2 * bins) * (size - 1) / (size + 1)


@dataclass
class _Group:
    """Requests of one bin that are to be served together; ``turn`` is its place in the central queue, once full."""

    number: int                                          # in order of their first requests
    turn: int | None = None
    members: set[str] = field(default_factory=set)


class MultiBin(Policy):
    """Order by batch; not preemptive. ``edges`` are expected output tokens between the bins, as from `bin_edges`.

    Give its `admission` to the engine too, and ``max_running=size``: then a batch holds nobody of another. When no
    batch is full and the machine would stand idle, the bin whose first request came first is served as it is.
    """

    static = False

    def __init__(self, edges: Sequence[float] = (), size: int = 8) -> None:
        if not size >= 1 or list(edges) != sorted(edges):
            raise UserError(f"batches of {size} and edges {tuple(edges)}; a batch holds at least 1, and edges rise")
        self.edges, self.size = tuple(edges), size
        self._open: dict[int, _Group] = {}               # the batch that is being filled, by bin
        self._group: dict[str, _Group] = {}              # by request
        self._numbers, self._turns = count(), count()

    def admission(self) -> Admission:
        """Keeps requests of other batches out of a batch that has begun."""
        return _Together(self)

    def bin(self, request: Request) -> int:
        """Its bin, from 0: how many edges are not above what is expected of it."""
        return bisect_right(self.edges, expected_output(request))

    def together(self, one: Request, other: Request) -> bool:
        """Whether two requests are of one batch."""
        return self._group[one.id] is self._group[other.id]

    def key(self, request: Request, now: float) -> tuple[bool, int]:
        """Full batches in the order they became full, then the others in the order they were begun."""
        group = self._group[request.id]
        return (True, group.number) if group.turn is None else (False, group.turn)

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Batches change only when somebody comes, starts or goes."""
        return FOREVER

    def on_queued(self, request: Request, now: float) -> None:
        """Into its bin; with ``size`` there, they become a batch."""
        place = self.bin(request)
        group = self._open.get(place)
        if group is None:
            group = self._open[place] = _Group(next(self._numbers))
        self._group[request.id] = group
        group.members.add(request.id)
        if len(group.members) == self.size:
            self._close(group)

    def on_scheduled(self, request: Request, now: float) -> None:
        """Whoever comes later is not of a batch that has begun."""
        self._close(self._group[request.id])

    def on_done(self, request: Request, now: float) -> None:
        """Forget it."""
        group = self._group.pop(request.id, None)
        if group is not None:
            group.members.discard(request.id)
            if not group.members:
                self._close(group)                       # whoever comes next begins another

    def _close(self, group: _Group) -> None:
        if group.turn is None:
            group.turn = next(self._turns)
            self._open = {place: other for place, other in self._open.items() if other is not group}


class _Together(Admission):
    def __init__(self, policy: MultiBin) -> None:
        self.policy = policy

    def hold(self, request: Request, scheduler: Scheduler, now: float) -> bool:
        """Whether a batch runs that is not its own."""
        return bool(scheduler.running) and not self.policy.together(request, scheduler.running[0])
