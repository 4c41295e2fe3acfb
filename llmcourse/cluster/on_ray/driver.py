"""Every instance an actor of its own on Ray: on this machine alone, or anywhere on a cluster.

Instances run by themselves; the driver hears what they have sent, decides, and carries decisions out by remote calls.
It is the same driver as in one process, but for three things: it learns late, asks without waiting, and anything may
die at any time. When an instance dies its requests go on elsewhere behind the last token that their client has, as soon
as nothing that was under way can still change who owns them. Week 7.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from llmcourse.cluster.autoscale.base import Autoscaler
from llmcourse.cluster.dispatch import Dispatcher
from llmcourse.cluster.driver import Driver
from llmcourse.cluster.instance import Delivery, Instance
from llmcourse.cluster.link import NEVER, Link
from llmcourse.cluster.migration import Migration
from llmcourse.cluster.on_ray import audit, scaling
from llmcourse.cluster.on_ray.actor import Build
from llmcourse.cluster.on_ray.couriers import Couriers
from llmcourse.cluster.on_ray.mailbox import Mailbox
from llmcourse.cluster.on_ray.remote import Lost, RemoteInstance, answer_of
from llmcourse.cluster.on_ray.setup import connect
from llmcourse.cluster.on_ray.start import Recipe, start_instances
from llmcourse.cluster.rebalance import Rebalance
from llmcourse.cluster.recovery import begin_anew, restore
from llmcourse.cluster.serving import Serving
from llmcourse.engine.engine import Engine
from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.request import Request
from llmcourse.engine.snapshot import Snapshot
from llmcourse.errors import UserError

PATIENCE = 0.05                          # seconds that `advance` waits for anything to happen
NEWS_WITHIN = 1.0                        # seconds after which an instance reports though nothing was sent
AT_REST_WITHIN = 120.0                   # seconds for what is on its way to be heard; only checks wait for it


class RayDriver(Serving, Driver):
    """``instances`` actors, each with the engine that ``build()`` makes there; ``close`` it, or use it in a ``with``.

    ``address`` joins a cluster ("host:port"); without one Ray runs on this machine alone. Each instance asks for
    ``cpus`` and ``gpus``; half a GPU lets two share one. ``link`` slows copies down, so that they can be watched.
    Other options as for `Driver`.
    """

    def __init__(self, build: Build, instances: int = 2, dispatch: Dispatcher | None = None,
                 rebalance: Rebalance | None = None, *, address: str | None = None, cpus: float = 1.0,
                 gpus: float = 0.0, link: Link | None = None, autoscaler: Autoscaler | None = None,
                 **options: Any) -> None:
        if instances < 1:
            raise UserError(f"a cluster of {instances} instances serves nobody; give at least 1")
        most = max(instances, autoscaler.machines if autoscaler else 0)
        self.connection = connect(address, cpus=max(1, round(most * cpus + 0.5)))
        self.ray = self.connection.ray
        self.recipe = Recipe(build, time.time(), options.get("headroom") or {}, cpus, gpus,
                             self.connection.environment)
        self.news: list[Delivery] = []
        try:
            remotes = start_instances(self.ray, self.recipe, range(instances))
            super().__init__(remotes, dispatch, rebalance, link=link, autoscaler=autoscaler, build=build, **options)
        except BaseException:
            self.connection.close()
            raise
        self.remotes = {remote.number: remote for remote in remotes}
        self.starting: dict[int, Any] = {}                    # handles of instances that are not there yet
        self.mailbox = Mailbox(self.ray, lambda: self.now)
        self.coordinator = Couriers(self.remotes, link, self.mailbox, self._said,        # type: ignore[assignment]
                                    self._told, self._missed)
        for remote in remotes:
            self.listen(remote)

    @classmethod
    def from_model(cls, name_or_folder: str = "course-tiny", instances: int = 2, *,
                   engine: dict[str, Any] | None = None, **options: Any) -> RayDriver:
        """Instances of one model; ``engine`` are options of `Engine.from_model`, the others are the driver's."""
        return cls(partial(Engine.from_model, name_or_folder, **(engine or {})), instances, **options)

    # ---- as every driver -------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the cluster was started, on every machine of it."""
        return time.time() - self.recipe.epoch

    def reach(self, instance: Instance, time: float) -> float:
        """Instances are always in the present."""
        return self.now

    @property
    def idle(self) -> bool:
        """Every client has everything, and nothing is on its way."""
        return not self.coordinator.flights and not self.gateway.open_streams

    def advance(self, until: float = NEVER) -> bool:
        """Deal with what has happened, or wait a little for something to happen, until ``until``; False: idle."""
        if self.now >= self.next_tick:
            self._tick(self.now)
            self.next_tick = self.now + self.board.reporting.every
        self.mailbox.advance(max(0.0, min(PATIENCE, until - self.now)))
        return until < NEVER or not self.idle

    def add(self, request: Request) -> Request:
        """See `Driver.add`. Seeds are given here, so it does not matter where a request goes."""
        if request.sampling.seed is None:
            request.sampling = replace(request.sampling, seed=self.num_requests)
        return super().add(request)

    def place(self, request: Request) -> bool:
        """See `Driver.place`."""
        while True:
            try:
                return super().place(request)
            except Lost:
                self._ask_all()

    def abort(self, request_id: str) -> None:
        """See `Driver.abort`. A migration under way is ended first: only then is it certain who owns the request."""
        while request_id in self.coordinator.flights:
            self.coordinator.flights[request_id].migration.cancel("aborted by its owner")
            self.advance()
        try:
            super().abort(request_id)
        except Lost:
            self._ask_all()
            self.abort(request_id)

    def owner(self, request_id: str) -> int | None:
        """The instance on which the request lives, as far as is known here; None when it has ended or failed."""
        stream = self.gateway.streams.get(request_id)
        return None if stream is None or stream.reason is not None else stream.owner

    def drain(self, number: int) -> None:
        """See `Driver.drain`."""
        super().drain(number)
        self.remotes[number].handle.set_terminating.remote()

    launch = scaling.launch                                   # these three are methods: an instance is an actor
    is_empty = scaling.is_empty
    retire = scaling.retire
    recover = begin_anew                                      # it ends with its driver

    def start(self) -> int:
        """One more instance, made like the others; returns its number. Who has died stays dead, and its number too."""
        return self.fleet.start()[0]

    def kill(self, number: int) -> None:
        """An instance's process is ended with all its memory; its requests go on elsewhere."""
        self._living(number)
        self._died(number, "killed")

    def check_invariants(self) -> None:
        """Every instance, and that who has not ended lives on exactly one; waits for what is under way."""
        self._rest(lambda: not self.coordinator.flights)
        audit.check(self.ray, self.remotes, self.gateway, self._rest)

    def close(self) -> None:
        """End all instances, and Ray if it was started here."""
        for handle in [*(remote.handle for remote in self.remotes.values() if remote.alive), *self.starting.values()]:
            self.ray.kill(handle)
        self.starting.clear()
        for remote in self.remotes.values():
            remote.alive = False
        self.connection.close()

    # ---- what comes from the instances -----------------------------------------------------------------------------

    def listen(self, remote: RemoteInstance) -> None:
        """Ask for its news; it answers when it has some."""
        self.mailbox.expect(remote.handle.take.remote(NEWS_WITHIN), partial(self._heard, remote))

    def _heard(self, remote: RemoteInstance, reference: Any) -> None:
        if not remote.alive:
            return                                            # what it had still to say is computed again elsewhere
        try:
            news = answer_of(self.ray, reference)
        except Lost as error:
            self._died(remote.number, str(error))
            return
        remote.hears(news)
        self.news += self.gateway.hear(news.deliveries)
        self.listen(remote)

    def _said(self, snapshot: Snapshot) -> None:
        """A snapshot has passed by: it holds tokens that the source's own news may bring only later."""
        have = len(self.tokens(snapshot.id))
        self.news += self.gateway.hear([Delivery(snapshot.id, have, snapshot.output[have:])])

    def _hear(self, instance: Instance) -> list[Delivery]:
        """News come by themselves."""
        return []

    # ---- deaths ----------------------------------------------------------------------------------------------------

    def _missed(self, number: int, why: str) -> None:
        """It did not answer, for a reason that is known, or when it was one of two: then it is asked."""
        remote = self.remotes[number]
        why = why or (remote.trouble() if remote.alive else "")
        if remote.alive and why:
            self._died(number, why)

    def _ask_all(self) -> None:
        for number in self.remotes:
            self._missed(number, "")

    def _died(self, number: int, why: str) -> None:
        """It is dead, or made so: nobody hears of it again, and its requests go on elsewhere."""
        remote = self.remotes[number]
        remote.alive = False
        self.fleet.left(number, "died")
        remote.end()
        self.board.gone(number)
        self.fault(number, why)
        self._rescue()

    def fault(self, number: int, why: str) -> None:
        """Write down that an instance has died."""
        self.log.append(Event(self.now, EventKind.FAULT, None, {"instance": number, "reason": why}, number))

    def _rescue(self) -> None:
        """Restore what the dead owned, but for requests on their way: who owns those is not certain yet."""
        for remote in self.remotes.values():
            if not remote.alive:
                for stream in self.gateway.living_on(remote.number):
                    if stream.asked.id not in self.coordinator.flights:
                        restore(self, stream.snapshot())

    def _told(self, migration: Migration) -> None:
        super()._told(migration)
        if migration.order is None:
            self._rescue()

    def _rest(self, reached: Callable[[], bool]) -> None:
        """Go on until something has come true, or must be given up."""
        until = self.now + AT_REST_WITHIN
        while not reached() and self.now < until:
            self.advance()
