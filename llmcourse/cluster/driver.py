"""What every driver does: carry decisions out, keep the clients' streams, and pick up what a dead instance has left.

A driver owns the instances and knows the time; the global scheduler only decides. `VirtualDriver` runs simulated
engines, `LocalDriver` engines in this process. Weeks 7 and 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmcourse.cluster import survey
from llmcourse.cluster.board import Board, Reporting
from llmcourse.cluster.coordinator import Coordinator
from llmcourse.cluster.decisions import Dispatch, Migrate
from llmcourse.cluster.dispatch import Dispatcher
from llmcourse.cluster.gateway import Gateway
from llmcourse.cluster.global_scheduler import GlobalScheduler
from llmcourse.cluster.instance import Instance
from llmcourse.cluster.link import Link
from llmcourse.cluster.methods import Terms
from llmcourse.cluster.migration import Migration
from llmcourse.cluster.rebalance import Rebalance
from llmcourse.cluster.recovery import settle
from llmcourse.engine.engine import Engine
from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.request import Request
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Refused
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.cluster.report import LoadReport
    from llmcourse.metrics.table import Table


class Driver:
    """``instances`` are engines, or what another driver has left.

    ``method`` is how requests move (`METHODS`), over ``link``, on ``terms``; ``headroom`` in blocks by priority.
    """

    def __init__(self, instances: Sequence[Engine | Instance], dispatch: Dispatcher | None = None,
                 rebalance: Rebalance | None = None, *, method: str = "live", link: Link | None = None,
                 terms: Terms | None = None, headroom: Mapping[int, float] | None = None,
                 reporting: Reporting | None = None) -> None:
        if not instances:
            raise UserError("a cluster of no instances serves nobody; give at least 1")
        each = [entry if isinstance(entry, Instance) else Instance(number, entry, headroom)
                for number, entry in enumerate(instances)]
        self.instances = {instance.number: instance for instance in each}
        self.scheduler = GlobalScheduler(dispatch, rebalance)
        self.method, self.link = method, link or Link()
        self.terms = terms or Terms(each[0].engine.pool.block_size)
        self.board, self.gateway = Board(reporting or Reporting()), Gateway(self.scheduler.dispatch.done)
        self.coordinator = Coordinator(self.instances, self.link, self.reach, self._told)
        self.migrations: list[Migration] = []                 # all that were begun
        self.log: list[Event] = []                            # what no instance can tell: migrations, faults
        self.next_tick, self.num_requests = 0.0, 0
        self.failed: dict[str, str] = {}                      # requests that nobody can serve any more, and why
        self._keeps_events = all(instance.engine.ledger is None for instance in each)

    # ---- what each world does in its own way -----------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds of the cluster's clock."""
        raise NotImplementedError

    def reach(self, instance: Instance, time: float) -> float:
        """Bring an instance to a moment, if it is behind; returns where it is."""
        raise NotImplementedError

    def advance(self) -> bool:
        """Let something happen; False when there is nothing left to do."""
        raise NotImplementedError

    # ---- requests --------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> Request:
        """Take a request, name and date it, and send it where the dispatcher says; UserError when it is refused."""
        request.id = request.id or f"r{self.num_requests}"
        request.arrival = self.now if request.arrival is None else request.arrival
        reports = self._known()
        placed = [d for d in self.scheduler.decide(reports, [(self.num_requests, request)], self.now)
                  if isinstance(d, Dispatch)]
        if not placed:
            raise UserError(f"none of the {len(self.alive)} instances that live takes requests: all are being drained")
        instance = self.instances[placed[0].instance]
        self.reach(instance, request.arrival)
        instance.engine.add(request)
        self.num_requests += 1
        self.board.placed(instance.number, len(request.tokens))
        self.scheduler.dispatch.sent(request, instance.number, reports)
        if self._keeps_events:
            self.gateway.opened(request, instance.number)
        return request

    def abort(self, request_id: str) -> None:
        """Its owner gives a request up, wherever it is; UserError when it does not live."""
        owner = self.owner(request_id)
        if owner is None:
            raise UserError(f"no request {request_id!r} lives in this cluster: it has ended, or was never here")
        flight = self.coordinator.flights.get(request_id)
        if flight is not None:
            flight.migration.cancel("aborted by its owner")
        self.instances[owner].engine.abort(request_id)
        self._hear(self.instances[owner])

    def owner(self, request_id: str) -> int | None:
        """The instance on which the request lives, perhaps stopped; None when it has ended or failed."""
        owners = [instance for instance in self.alive if instance.owns(request_id)]
        return min(owners, key=lambda owner: request_id in owner.stopped).number if owners else None

    # ---- instances -------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[Instance]:
        """Instances that have not died."""
        return [instance for instance in self.instances.values() if instance.alive]

    def migrate(self, request_id: str, destination: int, method: str | None = None) -> Migration:
        """Begin to move a request; UserError when it cannot even begin."""
        source = self.owner(request_id)
        if source is None:
            raise UserError(f"no request {request_id!r} lives in this cluster: it has ended, or was never here")
        for number in (source, destination):
            instance = self._living(number)
            if instance.busy:
                raise UserError(f"instance {number} takes part in a migration already; one at a time")
        if request_id in self.coordinator.flights:
            raise UserError(f"request {request_id!r} is on its way already")
        migration = Migration(request_id, source, destination, self.terms, method or self.method, self.now)
        self.migrations.append(migration)
        self.coordinator.begin(migration, self.now)
        return migration

    def drain(self, number: int) -> None:
        """Send an instance nothing new, and let everything on it move away."""
        instance = self._living(number)
        if not any(other is not instance and not other.terminating for other in self.alive):
            raise UserError(f"instance {number} is the only one that takes requests; nothing on it could go anywhere")
        instance.terminating = True
        self.board.emptied(number)

    def kill(self, number: int) -> None:
        """An instance dies with all its memory; its requests go on elsewhere behind their last delivered token."""
        dead = self._living(number)
        self._hear(dead)
        dead.alive = False
        self.board.gone(number)
        self.log.append(Event(self.now, EventKind.FAULT, None, {"instance": number}, number))
        self.coordinator.lost(number, self.now)
        left = ([stream.snapshot() for stream in self.gateway.living_on(number)] if self._keeps_events
                else [snapshot.without_kv() for snapshot in dead.residents()])
        for snapshot in left:
            self._restore(snapshot)

    def recover(self) -> None:
        """Take over instances whose driver has died in the middle of anything: settle what is between two of them.

        Whoever has stopped somewhere is released if another instance has adopted it, and resumed otherwise.
        """
        settle(self.alive, self.gateway)
        self.num_requests = len(self.gateway.streams)

    # ---- what has happened -----------------------------------------------------------------------------------------

    @property
    def events(self) -> list[Event]:
        """Everything that happened anywhere, in order of time."""
        return survey.merged([*(instance.engine.events for instance in self.instances.values()), self.log])

    def table(self) -> Table:
        """One row a request, from the events or from the ledger that all instances share."""
        return survey.table([instance.engine for instance in self.instances.values()], self.log)

    def tokens(self, request_id: str) -> list[int]:
        """What a client has been sent so far; KeyError for a request that never was."""
        return self.gateway.streams[request_id].output

    def check_invariants(self) -> None:
        """Every instance, and that each request which has not ended lives on exactly one of them."""
        survey.check_cluster(self.alive, self.gateway)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        """Everybody reports; what the global scheduler decides is begun."""
        for instance in self.alive:
            self.board.sent(instance.report())
        # Who is busy or is being emptied is no news to whoever made it so, however old the reports are.
        reports = [report._replace(busy=self.instances[report.instance].busy) for report in self._known()]
        for decision in self.scheduler.decide(reports, (), now):
            if isinstance(decision, Migrate):
                self._begin(decision)

    def _begin(self, decision: Migrate) -> None:
        rule, source = self.scheduler.rebalance or Rebalance(), self.instances[decision.source]
        size = getattr(source.engine.executor, "block_bytes", 0) or 1
        worth = int(min(rule.most_seconds * self.link.bandwidth / size, decision.most_blocks))
        chosen = source.candidate(worth, rule.rest, rule.waiting)
        if chosen is not None:
            self.migrate(chosen, decision.destination)

    def _known(self) -> list[LoadReport]:
        known = self.board.read(self.now)
        if known:
            return known
        for instance in self.alive:                           # at the very start nobody has reported
            self.board.sent(instance.report())
        return self.board.read(self.now)

    def _restore(self, snapshot: Snapshot) -> None:
        suspicion = self.gateway.orphaned(snapshot.id) if self._keeps_events else ""
        refusals = [suspicion] if suspicion else []
        by_load = sorted((report for report in self._known() if not (report.terminating or suspicion)),
                         key=lambda report: -report.dispatch_freeness)
        for report in by_load:
            instance = self.instances[report.instance]
            try:
                self.reach(instance, self.now)
                instance.adopt(snapshot)
            except Refused as reason:
                refusals.append(f"instance {instance.number}: {reason}")
                continue
            self.board.placed(instance.number, snapshot.num_tokens)
            self.gateway.moved(snapshot.id, instance.number)
            return
        self.failed[snapshot.id] = "; ".join(refusals) or "no instance is left that takes requests"
        if self._keeps_events:
            self.gateway.failed(snapshot.id, self.failed[snapshot.id])

    def _told(self, migration: Migration) -> None:
        """An order of a migration has been carried out, or it is over."""
        if migration.committed:
            self.gateway.moved(migration.request_id, migration.destination)
        if migration.order is None:
            self.log += survey.story(migration)

    def _hear(self, instance: Instance) -> None:
        if self._keeps_events:
            self.gateway.hear(instance.hear())

    def _living(self, number: int) -> Instance:
        instance = self.instances.get(number)
        if instance is None or not instance.alive:
            raise UserError(f"no instance {number} lives; there are {[each.number for each in self.alive]}")
        return instance
