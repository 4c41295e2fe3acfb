"""Carries out the orders of all migrations between instances of this process, each when its time has come.

An order takes the link's latency, a copy as long as the link needs. Until then everybody goes on serving, which is the
whole point of a live migration. What is read is read when the copy begins, what is written is written when it has
arrived. The time may be real or virtual: the coordinator is told it. Week 7.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from llmcourse.cluster.instance import Instance
from llmcourse.cluster.link import NEVER, Link, Traffic
from llmcourse.cluster.migration import SIDES, Migration
from llmcourse.cluster.orders import Copy, Order, Pause
from llmcourse.engine.transit import Refused


@dataclass
class _Flight:
    """A migration, and the KV that is on its way."""

    migration: Migration
    payload: Any = None


class Coordinator:
    """Runs migrations between ``instances`` over a link.

    ``reach(instance, time)`` brings an instance to a moment before it is asked anything, and returns its own time, that
    of its last step; ``told`` hears of every order that has been carried out or refused.
    """

    def __init__(self, instances: Mapping[int, Instance], link: Link, reach: Callable[[Instance, float], float],
                 told: Callable[[Migration], None] = lambda migration: None) -> None:
        self.instances, self.traffic, self.reach, self.told = instances, Traffic(link), reach, told
        self.flights: dict[str, _Flight] = {}                 # by request id
        self._agenda: list[tuple[float, int, _Flight]] = []   # when its order is due (s), number, and whose
        self._numbers = count()

    # ---- from outside ----------------------------------------------------------------------------------------------

    def begin(self, migration: Migration, now: float) -> None:
        """Take a new migration on; both its instances are busy until it is over."""
        self.flights[migration.request_id] = flight = _Flight(migration)
        for number in (migration.source, migration.destination):
            self.instances[number].busy = True
        self._plan(flight, now)

    def next_due(self) -> float:
        """When the next order is to be carried out (s); inf: nothing is under way."""
        while self._agenda and not self._is_under_way(self._agenda[0][2]):
            heapq.heappop(self._agenda)
        return min(self._agenda[0][0] if self._agenda else NEVER, self.traffic.next_end()[0])

    def advance(self, now: float) -> None:
        """Carry out all that is due by ``now``."""
        while self.next_due() <= now:
            arrives, key = self.traffic.next_end()
            if self._agenda and self._agenda[0][0] <= arrives:
                due, _, flight = heapq.heappop(self._agenda)
                self._carry_out(flight, due)
            else:
                self.traffic.end(key, arrives)
                self._arrived(self.flights[cast(str, key)], arrives)

    def lost(self, number: int, now: float) -> None:
        """An instance is dead: every migration it took part in is aborted, or over."""
        for flight in list(self.flights.values()):
            migration = flight.migration
            for side in SIDES:
                if getattr(migration, side) == number:
                    self.traffic.end(migration.request_id, now)
                    migration.lost(side, now)
                    while migration.order is not None:        # what is to be undone, at once: it may have to come back
                        self._carry_out(flight, now)
                    self._over(migration)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _is_under_way(self, flight: _Flight) -> bool:
        """Not lost; if it is, the same request may be on its way by another."""
        return self.flights.get(flight.migration.request_id) is flight

    def _plan(self, flight: _Flight, now: float) -> None:
        order = flight.migration.order
        wait = order.seconds if isinstance(order, Pause) else self.traffic.link.latency
        heapq.heappush(self._agenda, (now + wait, next(self._numbers), flight))

    def _carry_out(self, flight: _Flight, due: float) -> None:
        migration, now = flight.migration, due
        if migration.withdrawn(now):
            self._planned(flight, now)
            return
        order = migration.order
        assert order is not None
        for side in SIDES:
            if getattr(order, side):
                there = self.reach(self.instances[getattr(migration, side)], due)
                now = max(now, there) if order.waits else now
        source, destination = self.instances[migration.source], self.instances[migration.destination]
        try:
            if isinstance(order, Copy):
                flight.payload = source.read(migration.request_id, order.first, order.last)
                self.traffic.start(migration.request_id, self._size(source, order), now)
                return
            migration.answered(perform(order, migration.request_id, source, destination), now)
        except Refused as reason:
            migration.refused(str(reason), now)
        self._planned(flight, now)

    def _arrived(self, flight: _Flight, time: float) -> None:
        migration, order = flight.migration, cast(Copy, flight.migration.order)
        destination = self.instances[migration.destination]
        self.reach(destination, time)
        try:
            destination.write(migration.request_id, order.first, order.last, flight.payload)
            migration.answered(None, time, self._size(self.instances[migration.source], order))
        except Refused as reason:
            migration.refused(str(reason), time)
        flight.payload = None
        self._planned(flight, time)

    def _planned(self, flight: _Flight, now: float) -> None:
        """The next order, or the end."""
        if flight.migration.order is not None:
            self._plan(flight, now)
            self.told(flight.migration)
        else:
            self._over(flight.migration)

    def _over(self, migration: Migration) -> None:
        if self.flights.pop(migration.request_id, None):
            for number in (migration.source, migration.destination):
                self.instances[number].busy = False
            self.told(migration)

    def _size(self, source: Instance, order: Copy) -> int:
        return (order.last - order.first) * cast(Any, source.engine.executor).block_bytes


def perform(order: Order, request_id: str, source: Instance, destination: Instance) -> Any:
    """Carry out any order but a `Copy`, which takes time."""
    side = source if order.source else destination if order.destination else None
    return None if side is None else getattr(side, order.name)(*order.arguments(request_id))
