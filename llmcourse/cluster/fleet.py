"""The fleet: instances that come and go. Carries out what an autoscaler decides, and keeps the books.

An instance is asked for, and paid for from then on; it is ready after its cold start; it may be drained, which gives it
nothing new and lets its requests move away or come to their end; and when it is empty it is retired: not dead, for
nothing of it is missed. What no instance may have yet (a dispatcher can say so) waits here, by priority, then in order
of arrival. What must outlive a driver stands in the books (books.py); what was measured lately does not. Week 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmcourse.cluster.autoscale.base import Autoscaler
from llmcourse.cluster.autoscale.cold_start import ColdStart, WarmPool
from llmcourse.cluster.autoscale.observed import Held, Observed
from llmcourse.cluster.autoscale.watch import Watch
from llmcourse.cluster.books import Books
from llmcourse.cluster.decisions import Drain, ScaleUp
from llmcourse.cluster.link import NEVER
from llmcourse.cluster.roles import BATCH
from llmcourse.engine.engine import Engine
from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.metrics.rental import Lease

if TYPE_CHECKING:
    from llmcourse.cluster.driver import Driver
    from llmcourse.cluster.instance import Instance
    from llmcourse.cluster.report import LoadReport

GROUP = 64                               # requests that wait together, as an autoscaler sees them
DRAINS = ("migrate", "wait")


class Fleet:
    """Of a ``driver``; without an ``autoscaler`` nothing comes or goes by itself.

    ``build`` makes an engine, ``cold`` says how long that takes; ``drain_by`` "migrate" or "wait".
    """

    def __init__(self, driver: Driver, autoscaler: Autoscaler | None = None, build: Callable[[], Engine] | None = None,
                 cold: ColdStart | None = None, drain_by: str = "migrate", watch: Watch | None = None) -> None:
        if autoscaler is not None and build is None:
            raise UserError("an autoscaler starts instances, and nothing says how to make one; give build=, a function "
                            "that returns an engine")
        if drain_by not in DRAINS:
            raise UserError(f"no way to drain called {drain_by!r}; there are {', '.join(DRAINS)}")
        self.driver, self.autoscaler, self.build, self.drain_by = driver, autoscaler, build, drain_by
        self.pool = WarmPool(cold or ColdStart())
        self.watch = watch or Watch()
        self.books = Books({number: Lease(number, driver.now, driver.now, role=instance.role,
                                          drained=driver.now if instance.terminating else None)
                            for number, instance in driver.instances.items()}, booted=self.pool.booted)

    @property
    def leases(self) -> dict[int, Lease]:
        """Of every instance there ever was, by number."""
        return self.books.leases

    @property
    def held(self) -> list[Request]:
        """Requests that no instance may have yet, in order of arrival."""
        return self.books.held

    def take_over(self, books: Books, lives: Callable[[str], bool]) -> None:
        """Go on with what another's books say; ``lives`` says of a request whether an instance has it by now.

        Whoever is not there any more has died, and whoever was starting is ready when it would have been. UserError
        when somebody was starting and nothing says how to make an instance.
        """
        here, now = self.driver.instances, self.driver.now
        starting = [number for number, lease in books.leases.items() if lease.starting and number not in here]
        if starting and self.build is None:
            raise UserError(f"by the books instances {starting} are starting, and nothing says how to make one; give "
                            "build=, a function that returns an engine")
        books.leases = self.leases | books.leases
        for number, lease in books.leases.items():
            if number in here:
                lease.ready = now if lease.ready is None else lease.ready
                lease.drained = now if here[number].terminating and lease.drained is None else lease.drained
            elif lease.ready is not None and lease.ended is None:
                lease.ended, lease.how = now, "died"
        books.due = {number: due for number, due in books.due.items() if number in starting}
        books.held = [request for request in books.held if not lives(request.id)]
        self.books, self.pool = books, WarmPool(self.pool.cold, books.booted)
        for lease in self.starting:                           # written down, and not yet asked for
            if lease.number not in books.due:
                self.driver.launch(lease)

    # ---- what comes ------------------------------------------------------------------------------------------------

    def start(self, count: int = 1, tier: str = "", role: str = "") -> list[int]:
        """Start so many instances now; their numbers."""
        started = []
        for _ in range(count):
            number = max(self.leases, default=-1) + 1
            self.leases[number] = Lease(number, self.driver.now, tier=tier, role=role)
            self.driver.launch(self.leases[number])
            self.tell(number, "starting")
            started.append(number)
        return started

    def due(self, lease: Lease) -> None:
        """It will be ready after its cold start."""
        lease.tier = lease.tier or self.pool.cold.tier
        self.books.due[lease.number] = self.pool.ready(lease.started, lease.tier)

    def next_due(self) -> float:
        """When the next instance is ready (s); inf: none is starting, or somebody else will tell."""
        return min(self.books.due.values(), default=NEVER)

    def advance(self, now: float) -> None:
        """Let everybody join who is ready by now."""
        for _, number in sorted((due, number) for number, due in self.books.due.items() if due <= now):
            assert self.build is not None, "only a fleet that can make engines starts any"
            self.driver.join(number, self.build())
            del self.books.due[number]

    def joined(self, instance: Instance) -> None:
        """It takes requests from now on; those who were there before report before it does."""
        driver, lease = self.driver, self.leases[instance.number]
        driver.known()
        instance.role = lease.role
        if driver.batch_size:
            instance.feel(driver.batch_size)
        driver.instances[instance.number] = instance
        driver.board.sent(instance.report())
        lease.ready = driver.now
        self.tell(instance.number, "ready")

    @property
    def starting(self) -> list[Lease]:
        """Instances that were asked for and are not there yet."""
        return [lease for lease in self.leases.values() if lease.starting]

    # ---- what goes -------------------------------------------------------------------------------------------------

    def left(self, number: int, how: str) -> None:
        """It is not paid for any more: "retired", "died" or "failed"."""
        lease = self.leases[number]
        if lease.ended is None:
            lease.ended, lease.how = self.driver.now, how

    def movable(self, reports: Sequence[LoadReport]) -> list[LoadReport]:
        """Of those between whom requests may move: not of whoever is to come to an end by itself."""
        return [report for report in reports if self.drain_by == "migrate" or not report.terminating]

    def _retire_empty(self) -> None:
        for instance in self.driver.alive:
            if instance.terminating and self.driver.is_empty(instance):
                self.driver.retire(instance)
                lease = self.leases[instance.number]
                lease.drained = self.driver.now if lease.drained is None else lease.drained       # by somebody's hand
                self.left(instance.number, "retired")
                self.tell(instance.number, "retired")

    # ---- who waits here --------------------------------------------------------------------------------------------

    def asked(self, request: Request) -> None:
        """A request has come, wherever it is now."""
        self.books.num_requests += 1
        if self.autoscaler is not None:
            self.watch.asked(request, self.driver.now)

    def hold(self, request: Request) -> None:
        """Keep a request that no instance may have yet; UserError when none takes requests, and none will come."""
        self._check_hope()
        self.held.append(request)

    def _check_hope(self) -> None:
        alive = self.driver.alive
        if self.autoscaler is None and not self.starting and all(instance.terminating for instance in alive):
            raise UserError(f"none of the {len(alive)} instances that live takes requests"
                            + (": all are being drained" if alive else ""))

    def give_up(self, request_id: str) -> bool:
        """Its owner gives it up; whether it was here."""
        self.watch.gone(request_id)
        before = len(self.held)
        self.books.held = [request for request in self.held if request.id != request_id]
        return len(self.held) < before

    def _place_held(self) -> None:
        for request in sorted(self.held, key=lambda request: request.priority):       # of equals who came first
            try:
                if not self.driver.place(request):
                    self._check_hope()
                    return
            except UserError as error:                        # it fits nowhere, or nobody is left and none will come
                self.driver.failed[request.id] = str(error)
                self.driver.gateway.failed(request.id, str(error))
            self.held.remove(request)

    # ---- deciding --------------------------------------------------------------------------------------------------

    def observed(self) -> Observed:
        """What the autoscaler is told now."""
        self.watch.look(self.driver.instances.values())
        for request_id in self.driver.failed:
            self.watch.gone(request_id)
        return self.watch.observed(self.driver.now)._replace(
            starting=tuple(lease.role for lease in self.starting), held=tuple(_groups(self.held)),
            last_up=self.books.last_up, last_down=self.books.last_down)

    def tick(self, reports: Sequence[LoadReport]) -> None:
        """Who is empty leaves; then decide; then whoever waits here may find a place."""
        if self.autoscaler is not None:
            self._retire_empty()
            here = [report for report in reports if self.driver.instances[report.instance].alive]
            for decision in self.autoscaler.decide(here, self.observed(), self.driver.now):
                self._carry_out(decision)
        if self.held:
            self._place_held()

    def _carry_out(self, decision: ScaleUp | Drain) -> None:
        if isinstance(decision, ScaleUp):
            self.start(decision.count, decision.tier, decision.role)
            if decision.role != BATCH:
                self.books.last_up = self.driver.now
        else:
            self.driver.drain(decision.instance)
            lease = self.leases[decision.instance]
            lease.drained = self.driver.now
            if lease.role != BATCH:
                self.books.last_down = lease.drained
            self.tell(decision.instance, "draining")

    def tell(self, number: int, stage: str) -> None:
        """Write into the cluster's log what has become of an instance."""
        lease = self.leases[number]
        data: dict[str, Any] = {"stage": stage, "instance": number, "tier": lease.tier, "role": lease.role,
                                "alive": len(self.driver.alive), "starting": len(self.starting)}
        self.driver.log.append(Event(self.driver.now, EventKind.SCALED, None, data, number))


def _groups(held: Sequence[Request]) -> list[Held]:
    """Those who wait, in order, in groups of equal promises and at most `GROUP`."""
    groups: list[Held] = []
    promise: float | None = None
    for request in held:
        ttft = request.slo.ttft if request.slo and request.slo.ttft else NEVER
        if groups and ttft == promise and groups[-1].count < GROUP:
            groups[-1] = replace(groups[-1], count=groups[-1].count + 1)
        else:
            groups.append(Held(1, (request.arrival or 0.0) + ttft))
        promise = ttft
    return groups
