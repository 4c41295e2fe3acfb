"""Carries out the orders of all migrations as remote calls; the driver goes on meanwhile.

Every order is a call to the actor of its side. A copy is two, and the answer of the first is the argument of the
second: the source puts KV into the object store of its machine, the destination fetches it from there, and the driver,
who only holds the reference, never sees it. What is fetched is shared memory and may be read, not written.

Orders that are under way are not atomic here: an instance may die while the other is just adopting. So a death is told
to a migration only when the order that was under way has its answer, and only a migration that is over says who owns
the request. Week 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmcourse.cluster.link import Link, Traffic
from llmcourse.cluster.migration import SIDES, Migration
from llmcourse.cluster.on_ray.mailbox import Mailbox
from llmcourse.cluster.on_ray.remote import Lost, RemoteInstance, answer_of
from llmcourse.cluster.orders import Copy, Order, Pause
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Refused


@dataclass(frozen=True)
class Flight:
    """A migration under way."""

    migration: Migration


class Couriers:
    """Runs migrations between ``instances``; ``link`` slows them down, None leaves them as fast as they are.

    ``said`` is given every snapshot that comes by, ``told`` every migration of which an order has been carried out.
    ``missed`` is given the number of an instance that did not answer, and why; no reason when it may have been the
    other side of a copy.
    """

    def __init__(self, instances: Mapping[int, RemoteInstance], link: Link | None, mailbox: Mailbox,
                 said: Callable[[Snapshot], None], told: Callable[[Migration], None],
                 missed: Callable[[int, str], None]) -> None:
        self.instances, self.link, self.mailbox = instances, link, mailbox
        self.traffic = Traffic(link) if link else None
        self.said, self.told, self.missed = said, told, missed
        self.flights: dict[str, Flight] = {}                  # by request id

    def begin(self, migration: Migration, now: float) -> None:
        """Take a new migration on; both its instances are busy until it is over."""
        self.flights[migration.request_id] = Flight(migration)
        self._make_busy(migration, True)
        self._next(migration)

    def lost(self, number: int, now: float) -> None:
        """An instance is dead. Migrations hear of it as soon as their order under way is answered: soon, or at once."""

    # ---- one order -------------------------------------------------------------------------------------------------

    def _next(self, migration: Migration) -> None:
        """Carry out the order that is due, after the link's latency."""
        order, now = migration.order, self.mailbox.clock()
        assert order is not None
        if isinstance(order, Pause):
            self.mailbox.alarm(now + order.seconds, lambda: self._settle(migration, lambda: None))
        elif self.link is None:
            self._send(migration, order)
        else:
            self.mailbox.alarm(now + self.link.latency, lambda: self._send(migration, order))

    def _send(self, migration: Migration, order: Order) -> None:
        if migration.withdrawn(self.mailbox.clock()):
            self._go_on(migration)
        elif isinstance(order, Copy):
            kv = self.instances[migration.source].send("read", migration.request_id, order.first, order.last)
            if self.traffic is None:
                self._write(migration, order, kv)
            else:
                self.mailbox.expect(kv, partial(self._carry, migration, order))
        else:
            number = migration.source if order.source else migration.destination
            answer = self.instances[number].send(order.name, *order.arguments(migration.request_id))
            self.mailbox.expect(answer, partial(self._answered, migration))

    def _carry(self, migration: Migration, order: Copy, kv: Any) -> None:
        """What was read goes on the link, where it gets its share."""
        assert self.traffic is not None
        self.traffic.start(migration.request_id, self._size(migration, order), self.mailbox.clock())
        self._watch(migration, order, kv)

    def _watch(self, migration: Migration, order: Copy, kv: Any) -> None:
        """Look again when the first of all transfers should have arrived: those that are left get faster then."""
        assert self.traffic is not None
        now, (arrives, first) = self.mailbox.clock(), self.traffic.next_end()
        if first != migration.request_id or arrives > now:
            self.mailbox.alarm(arrives, lambda: self._watch(migration, order, kv))
        else:
            self.traffic.end(migration.request_id, now)
            self._write(migration, order, kv)

    def _write(self, migration: Migration, order: Copy, kv: Any) -> None:
        answer = self.instances[migration.destination].send("write", migration.request_id, order.first, order.last, kv)
        self.mailbox.expect(answer, partial(self._answered, migration))

    # ---- and its answer --------------------------------------------------------------------------------------------

    def _answered(self, migration: Migration, reference: Any) -> None:
        self._settle(migration, lambda: answer_of(self.instances[migration.source].ray, reference))

    def _settle(self, migration: Migration, answer: Callable[[], Any]) -> None:
        """Tell the migration how its order went, then who has died; go on with what it says next."""
        order, now = migration.order, self.mailbox.clock()
        assert order is not None
        size = self._size(migration, order) if isinstance(order, Copy) else 0
        try:
            value = answer()
            if isinstance(value, Snapshot):
                self.said(value)
            migration.answered(value, now, size)
        except Refused as reason:
            migration.refused(str(reason), now)
        except Lost as error:
            self._missed(migration, order, str(error))
        for side in SIDES:
            if not self.instances[getattr(migration, side)].alive:
                migration.lost(side, now)
        self._go_on(migration)

    def _go_on(self, migration: Migration) -> None:
        """To its next order, or home."""
        if migration.order is not None:
            self._next(migration)
        else:
            del self.flights[migration.request_id]
            self._make_busy(migration, False)
        self.told(migration)

    def _missed(self, migration: Migration, order: Order, why: str) -> None:
        """Somebody did not answer. Of a copy it is not known who; the KV alone may be gone, which is a refusal."""
        sides = [getattr(migration, side) for side in SIDES if getattr(order, side)]
        for number in sides:
            self.missed(number, why if len(sides) == 1 else "")
        if all(self.instances[number].alive for number in sides):
            migration.refused(f"its KV was lost on the way: {why}", self.mailbox.clock())

    def _make_busy(self, migration: Migration, busy: bool) -> None:
        for side in SIDES:
            self.instances[getattr(migration, side)].busy = busy

    def _size(self, migration: Migration, order: Copy) -> int:
        return (order.last - order.first) * self.instances[migration.source].shadow.executor.block_bytes
