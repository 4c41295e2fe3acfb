"""What every driver does: carry decisions out, keep the clients' streams, and pick up what a dead instance has left.

A driver owns the instances and knows the time; the global scheduler only decides. `VirtualDriver` runs simulated
engines, `LocalDriver` engines in this process. Weeks 7 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING

from llmcourse.cluster import survey
from llmcourse.cluster.autoscale.base import Autoscaler
from llmcourse.cluster.autoscale.batch_size import BatchSize
from llmcourse.cluster.autoscale.cold_start import ColdStart
from llmcourse.cluster.board import Board, Reporting
from llmcourse.cluster.books import Books
from llmcourse.cluster.coordinator import Coordinator
from llmcourse.cluster.decisions import Dispatch, Migrate
from llmcourse.cluster.dispatch import Dispatcher
from llmcourse.cluster.fleet import Fleet
from llmcourse.cluster.gateway import NOWHERE, Gateway, Stream
from llmcourse.cluster.global_scheduler import GlobalScheduler
from llmcourse.cluster.instance import Delivery, Instance
from llmcourse.cluster.link import Link
from llmcourse.cluster.methods import Terms
from llmcourse.cluster.migration import Migration
from llmcourse.cluster.rebalance import Rebalance
from llmcourse.cluster.recovery import left_by, restore, take_over
from llmcourse.engine.engine import Engine
from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.request import Request
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.cluster.report import LoadReport
    from llmcourse.metrics.rental import Lease


class Driver(survey.Surveyed):
    """``instances`` are engines, or what another driver has left.

    ``method`` is how requests move (`METHODS`), over ``link``, on ``terms``; ``headroom`` in blocks by priority. An
    ``autoscaler`` starts engines that ``build`` makes after a ``cold_start``, and drains by "migrate" or "wait". With a
    ``batch_size`` each instance adjusts how many requests it runs at once, at every report.
    """

    def __init__(self, instances: Sequence[Engine | Instance], dispatch: Dispatcher | None = None,
                 rebalance: Rebalance | None = None, *, method: str = "live", link: Link | None = None,
                 terms: Terms | None = None, headroom: Mapping[int, float] | None = None,
                 reporting: Reporting | None = None, autoscaler: Autoscaler | None = None,
                 build: Callable[[], Engine] | None = None, cold_start: ColdStart | None = None,
                 drain_by: str = "migrate", batch_size: BatchSize | None = None) -> None:
        if not instances:
            raise UserError("a cluster of no instances serves nobody; give at least 1")
        each = [entry if isinstance(entry, Instance) else Instance(number, entry, headroom)
                for number, entry in enumerate(instances)]
        self.instances = {instance.number: instance for instance in each}
        self.scheduler, self.headroom, self.batch_size = GlobalScheduler(dispatch, rebalance), headroom, batch_size
        if batch_size:
            for instance in each:
                instance.feel(batch_size)
        self.method, self.link = method, link or Link()
        self.terms = terms or Terms(each[0].engine.pool.block_size)
        self.board = Board(reporting or Reporting())
        self.gateway = Gateway(lambda request_id, tokens: self.scheduler.dispatch.done(request_id, tokens))
        self.coordinator = Coordinator(self.instances, self.link, self.reach, self._told)
        self.migrations: list[Migration] = []                 # all that were begun
        self.log: list[Event] = []                            # what no instance can tell: migrations, faults, scaling
        self.next_tick = 0.0
        self.failed: dict[str, str] = {}                      # requests that nobody can serve any more, and why
        self.keeps_streams = all(instance.engine.ledger is None for instance in each)
        self.fleet = Fleet(self, autoscaler, build, cold_start, drain_by)
        survey.check_ledgers(each, bool(rebalance or (autoscaler and drain_by == "migrate")))

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

    def join(self, number: int, engine: Engine) -> None:
        """A new instance is ready."""
        instance = Instance(number, engine, self.headroom)
        survey.check_ledgers([*self.instances.values(), instance], True)
        self.fleet.joined(instance)

    def launch(self, lease: Lease) -> None:
        """Begin to start an instance, which joins when it is ready."""
        self.fleet.due(lease)

    def is_empty(self, instance: Instance) -> bool:
        """Whether nobody lives there, comes or goes."""
        return instance.engine.idle and not instance.busy

    def retire(self, instance: Instance) -> None:
        """Give an empty instance back."""
        instance.alive = False
        self.board.gone(instance.number)

    # ---- requests --------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> Request:
        """Take a request, name and date it, and send it where the dispatcher says; UserError when it is refused."""
        request.id = request.id or next(name for number in count(self.num_requests)
                                        if (name := f"r{number}") not in self.gateway.streams)
        if request.id in self.gateway.streams:
            raise UserError(f"a request with id {request.id!r} exists already; ids are used once")
        request.arrival = self.now if request.arrival is None else request.arrival
        if not self.place(request):
            self.fleet.hold(request)
            if self.keeps_streams:
                self.gateway.opened(request, NOWHERE)
        self.fleet.asked(request)
        return request

    def place(self, request: Request) -> bool:
        """Send a request to an instance, if one may have it."""
        reports = self.known()
        placed = [decision for decision in self.scheduler.decide(reports, [(self.num_requests, request)], self.now)
                  if isinstance(decision, Dispatch)]
        if not placed:
            return False
        instance = self.instances[placed[0].instance]
        self.reach(instance, max(request.arrival or 0.0, self.now))
        instance.engine.add(request)
        self.board.placed(instance.number, len(request.tokens))
        self.scheduler.dispatch.sent(request, instance.number, reports)
        if self.keeps_streams:
            self.gateway.opened(request, instance.number)
        return True

    def abort(self, request_id: str) -> None:
        """Its owner gives a request up, wherever it is; UserError when it does not live."""
        if self.fleet.give_up(request_id):
            self.gateway.failed(request_id, "abort")
            return
        owner = self._home(request_id)
        flight = self.coordinator.flights.get(request_id)
        if flight is not None:
            flight.migration.cancel("aborted by its owner")
        self.instances[owner].engine.abort(request_id)
        self._hear(self.instances[owner])

    # ---- instances -------------------------------------------------------------------------------------------------

    def migrate(self, request_id: str, destination: int, method: str | None = None) -> Migration:
        """Begin to move a request; UserError when it cannot even begin."""
        source = self._home(request_id)
        for number in (source, destination):
            if self._living(number).busy:
                raise UserError(f"instance {number} takes part in a migration already; one at a time")
        if request_id in self.coordinator.flights:
            raise UserError(f"request {request_id!r} is on its way already")
        survey.check_ledgers(self.alive, True)
        migration = Migration(request_id, source, destination, self.terms, method or self.method, self.now)
        self.migrations.append(migration)
        self.coordinator.begin(migration, self.now)
        return migration

    def drain(self, number: int) -> None:
        """Send an instance nothing new, and let everything on it move away."""
        instance = self._living(number)
        if not any(other is not instance and not other.terminating for other in self.alive):
            raise UserError(f"instance {number} is the only one that takes requests; nothing on it could go anywhere")
        survey.check_ledgers(self.alive, self.fleet.drain_by == "migrate")
        instance.terminating = True
        self.board.emptied(number)

    def kill(self, number: int) -> None:
        """An instance dies with all its memory; its requests go on elsewhere behind their last delivered token."""
        dead = self._living(number)
        survey.check_ledgers(self.alive, bool(dead.residents()))
        self._hear(dead)
        dead.alive = False
        self.fleet.left(number, "died")
        self.board.gone(number)
        self.log.append(Event(self.now, EventKind.FAULT, None, {"instance": number}, number))
        left = left_by(self, dead)
        self.coordinator.lost(number, self.now)
        for snapshot in left:
            restore(self, snapshot)

    def recover(self, books: Books | None = None, streams: Mapping[str, Stream] | None = None) -> list[Delivery]:
        """Take over instances whose driver has died in the middle of anything; what clients have missed meanwhile.

        With the dead driver's ``books`` and ``streams``, where they were kept, more of them go on: see `recovery.py`.
        """
        return take_over(self, books or Books(), streams or {})

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        """Everybody reports; what the global scheduler decides is begun."""
        for instance in self.alive:
            instance.adjust()
            self.board.sent(instance.report())
        # Who is busy or is being emptied is no news to whoever made it so, however old the reports are.
        reports = [report._replace(busy=self.instances[report.instance].busy) for report in self.known()]
        for decision in self.scheduler.decide(self.fleet.movable(reports), (), now):
            if isinstance(decision, Migrate):
                self._begin(decision)
        self.fleet.tick(reports)

    def _begin(self, decision: Migrate) -> None:
        rule, source = self.scheduler.rebalance or Rebalance(), self.instances[decision.source]
        size = getattr(source.engine.executor, "block_bytes", 0) or 1
        worth = int(min(rule.most_seconds * self.link.bandwidth / size, decision.most_blocks))
        chosen = source.candidate(worth, rule.rest, rule.waiting)
        if chosen is not None:
            self.migrate(chosen, decision.destination)

    def known(self) -> list[LoadReport]:
        """The last report of every instance, as far as it is known now."""
        known = self.board.read(self.now)
        if known:
            return known
        for instance in self.alive:                           # at the very start nobody has reported
            self.board.sent(instance.report())
        return self.board.read(self.now)

    def _told(self, migration: Migration) -> None:
        """An order of a migration has been carried out, or it is over."""
        if migration.committed:
            self.gateway.moved(migration.request_id, migration.destination)
        if migration.order is None:
            self.log += survey.story(migration)

    def _hear(self, instance: Instance) -> list[Delivery]:
        """What is new to clients; where no streams are kept, the dispatcher hears at least who has ended."""
        ended = instance.engine.take_ended()
        if self.keeps_streams:
            return self.gateway.hear(instance.hear())
        for request in ended:
            self.gateway.ended(request.id, request.num_output)
        return []
