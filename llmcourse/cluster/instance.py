"""An instance: an engine with a number, a load report, and the two halves of a migration.

Everything goes in and comes out as plain data, so an instance may live in this process, in a simulation or behind a
network, and nobody outside can tell. Sun et al., 2024 call it a llumlet. Weeks 7 and 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmcourse.cluster.autoscale.batch_size import BatchSize
from llmcourse.cluster.autoscale.local_loop import LocalLoop
from llmcourse.cluster.report import LoadReport, report_of
from llmcourse.engine import arriving, departing
from llmcourse.engine.engine import Engine
from llmcourse.engine.events import EventKind
from llmcourse.engine.request import Request
from llmcourse.engine.snapshot import Snapshot

ENDS = {EventKind.FINISHED: "", EventKind.ABORTED: "abort"}


class Delivery(NamedTuple):
    """Tokens of a request from output position ``position`` on; or, with a ``reason``, its end."""

    request_id: str
    position: int
    tokens: tuple[int, ...] = ()
    reason: str | None = None


class Instance:
    """``headroom`` in blocks by priority makes it look fuller while it runs requests of that priority."""

    def __init__(self, number: int, engine: Engine, headroom: Mapping[int, float] | None = None) -> None:
        self.number, self.engine, self.headroom = number, engine, dict(headroom or {})
        self.alive, self.terminating, self.busy, self.role = True, False, False, ""
        self.arrived: dict[str, float] = {}                   # when requests came from elsewhere (s)
        self.loop: LocalLoop | None = None                    # what adjusts its batch
        self._heard, self._outbox = 0, list[Delivery]()
        engine.log.instance = number

    def report(self) -> LoadReport:
        """Its load now."""
        return report_of(self.engine, self.number, self.headroom, self.terminating, self.busy, self.role)

    def feel(self, batch: BatchSize) -> None:
        """Find by itself from now on how many requests to run at once."""
        self.loop = LocalLoop(self.engine, batch)

    def adjust(self) -> None:
        """Let the local loop look, where there is one: before every report."""
        if self.loop is not None:
            self.loop.adjust()

    def owns(self, request_id: str) -> bool:
        """Whether the request lives here: not ended, and not a guest."""
        request = self.engine.requests.get(request_id)
        return request is not None and not request.done

    def has_adopted(self, request_id: str) -> bool:
        """Whether the request lives here and has not stopped, or has ended here."""
        return request_id in self.engine.requests and request_id not in self.engine.scheduler.transit.leaving

    def told(self, request_id: str) -> list[Delivery]:
        """All that the client should have of a request that lives or has ended here; nothing of another."""
        request = self.engine.requests.get(request_id)
        end = [Delivery(request_id, 0, (), request.finish_reason or "abort")] if request and request.done else []
        return [Delivery(request_id, 0, tuple(request.output)), *end] if request else []

    def residents(self) -> list[Snapshot]:
        """Every request that lives here, as it stands: what can be restored elsewhere."""
        return [Snapshot.of(request) for request in self.engine.requests.values() if not request.done]

    def hear(self) -> list[Delivery]:
        """What its clients have been sent since the last call, in order."""
        self._collect()
        heard, self._outbox = self._outbox, []
        return heard

    def _collect(self) -> None:
        events, requests = self.engine.log[self._heard:], self.engine.requests
        self._heard += len(events)
        tokens: dict[str, list[int]] = {}
        for event in events:
            if event.kind is EventKind.NEW_TOKENS:
                tokens.setdefault(str(event.request), []).extend(event.data["tokens"])
        for name, new in tokens.items():
            self._outbox.append(Delivery(name, requests[name].num_output - len(new), tuple(new)))
        for event in events:
            if event.kind in ENDS:
                self._outbox.append(Delivery(str(event.request), 0, (), event.data.get("reason") or ENDS[event.kind]))

    # ---- which request should go -----------------------------------------------------------------------------------

    def candidate(self, most_blocks: int, rest: float = 0.0, waiting: bool = True) -> str | None:
        """The request to move: of at most ``most_blocks``, here for ``rest`` seconds; None when there is none.

        Who waits has nothing to carry and goes first, then who matters least, then who decodes, then the shortest.
        """
        scheduler, now = self.engine.scheduler, self.engine.clock.now
        self.arrived = {name: time for name, time in self.arrived.items() if now - time < rest}
        if waiting or self.terminating:
            first = scheduler.waiting.first(now)
            if first is not None and self._may_go(first, most_blocks):
                return first.id
        movable = [request for request in scheduler.running if self._may_go(request, most_blocks)
                   and (request.pending == 1 or self.terminating)]
        best = min(movable, key=lambda r: (-r.priority, r.pending != 1, r.computed), default=None)
        return None if best is None else best.id

    def _may_go(self, request: Request, most_blocks: int) -> bool:
        # One block more than it has now: it grows while it is on its way.
        blocks = self.engine.pool.blocks_for(len(request.tokens) + self.engine.pool.block_size)
        return not request.siblings and blocks <= most_blocks and request.id not in self.arrived

    # ---- the verbs -------------------------------------------------------------------------------------------------

    def look(self, request_id: str) -> Snapshot:
        """See `engine.departing.look`."""
        return departing.look(self.engine, request_id)

    def read(self, request_id: str, first: int, last: int) -> Any:
        """See `engine.departing.read`."""
        return departing.read(self.engine, request_id, first, last)

    def stop(self, request_id: str, keep: bool = True) -> Snapshot:
        """See `engine.departing.stop`."""
        return departing.stop(self.engine, request_id, keep)

    def resume(self, request_id: str) -> None:
        """See `engine.departing.resume`."""
        departing.resume(self.engine, request_id)

    def release(self, request_id: str) -> None:
        """See `engine.departing.release`."""
        self._collect()                                       # while it is still known how far it was
        departing.release(self.engine, request_id)

    def reserve(self, snapshot: Snapshot, compute: bool = False) -> int:
        """See `engine.arriving.reserve`."""
        return arriving.reserve(self.engine, snapshot, compute)

    def grow(self, snapshot: Snapshot) -> None:
        """See `engine.arriving.grow`."""
        arriving.grow(self.engine, snapshot)

    def write(self, request_id: str, first: int, last: int, payload: Any) -> None:
        """See `engine.arriving.write`."""
        arriving.write(self.engine, request_id, first, last, payload)

    def caught_up(self, request_id: str) -> bool:
        """See `engine.arriving.caught_up`."""
        return arriving.caught_up(self.engine, request_id)

    def adopt(self, snapshot: Snapshot) -> None:
        """See `engine.arriving.adopt`."""
        arriving.adopt(self.engine, snapshot)
        self.arrived = {name: time for name, time in self.arrived.items() if self.owns(name)}
        self.arrived[snapshot.id] = self.engine.clock.now

    def drop(self, request_id: str) -> None:
        """See `engine.arriving.drop`."""
        arriving.drop(self.engine, request_id)

    # ---- when whoever ran the migrations is gone -------------------------------------------------------------------

    @property
    def stopped(self) -> list[str]:
        """Requests that have stopped here, and wait to be resumed or released."""
        return list(self.engine.scheduler.transit.leaving)

    @property
    def guests(self) -> list[str]:
        """Requests for which room is kept here."""
        return list(self.engine.scheduler.transit.guests)
