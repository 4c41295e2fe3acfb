"""The whole cluster seen at once: one log, one table, and whether everything is where it belongs. Weeks 7 and 8."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from llmcourse.cluster.gateway import Gateway
from llmcourse.cluster.instance import Instance
from llmcourse.cluster.migration import Migration
from llmcourse.cluster.orders import Copy
from llmcourse.engine.events import Event, EventKind
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.cluster.fleet import Fleet
    from llmcourse.engine.engine import Engine
    from llmcourse.metrics.table import Table


def merged(logs: Iterable[Iterable[Event]]) -> list[Event]:
    """The events of several logs in order of time; at one moment, in order of the logs."""
    return sorted((event for log in logs for event in log), key=lambda event: event.time)


def table(engines: Sequence[Engine], log: Iterable[Event] = ()) -> Table:
    """One row a request: from all events, or from the ledger that the engines share, or from one of each."""
    from llmcourse.metrics.records import records
    from llmcourse.metrics.table import Table
    if all(engine.ledger is None for engine in engines):
        return Table.of(records(merged([*(engine.events for engine in engines), log])))
    shared = len({id(engine.ledger) for engine in engines}) == 1
    return engines[0].table() if shared else Table.concat([engine.table() for engine in engines])


def story(migration: Migration) -> list[Event]:
    """What the cluster's log says of a migration that is over: begun, every copy, and how it ended."""
    assert migration.ended is not None, "only when it is over"
    common: dict[str, Any] = {"source": migration.source, "destination": migration.destination}
    told: list[tuple[float, dict[str, Any]]] = [(migration.begun, {"stage": "begun", "method": migration.method})]
    for stage in migration.copies:
        order = cast(Copy, stage.order)
        told.append((stage.end, {"stage": "copy", "first": order.first, "last": order.last, "bytes": stage.bytes,
                                 "start": stage.start}))
    told.append((migration.ended, {"stage": migration.outcome, "method": migration.method, "reason": migration.reason,
                                   "downtime": migration.downtime, "bytes": migration.bytes}))
    return [Event(time, EventKind.MIGRATION, migration.request_id, data | common, migration.source)
            for time, data in told]


def check_cluster(alive: Iterable[Instance], gateway: Gateway, held: Collection[str] = ()) -> None:
    """Every instance, and that each request which has not ended lives on exactly one, or is ``held`` in front of them.

    AssertionError says which not.
    """
    owners: dict[str, list[int]] = {name: [] for name in gateway.streams}
    for instance in alive:
        instance.engine.check_invariants()
        stopped = set(instance.stopped)
        for name, request in instance.engine.requests.items():
            if not request.done and name in owners:
                owners[name].append(instance.number if name not in stopped else ~instance.number)
    for name, stream in gateway.streams.items():
        lives = [number for number in owners[name] if number >= 0]
        stops = [~number for number in owners[name] if number < 0]
        if name in held:
            assert stream.reason is None and not lives and not stops, f"request {name} waits and lives on {lives}"
        elif stream.reason is None:
            assert len(lives) == 1 or (not lives and len(stops) == 1), (
                f"request {name} lives on instances {lives} and has stopped on {stops}")
        else:
            assert not lives, f"request {name} has ended ({stream.reason}) and lives on {lives}"


def check_ledgers(instances: Iterable[Instance], moving: bool) -> None:
    """UserError when requests move between engines that write into different ledgers, or not all into any."""
    ledgers = {id(instance.engine.ledger) for instance in instances}
    if moving and len(ledgers) > 1:
        raise UserError(f"requests that move need one ledger for all engines, and there are {len(ledgers)}; give each "
                        "engine the same ledger=, those of build= too")


class Seen(Protocol):
    """The driver that `Surveyed` is mixed into."""

    instances: dict[int, Instance]
    gateway: Gateway
    log: list[Event]
    fleet: Fleet

    @property
    def alive(self) -> list[Instance]:
        """Instances that are there."""
        ...

    def owner(self, request_id: str) -> int | None:
        """Where a request lives."""
        ...


class Surveyed:
    """What a driver can be asked of all its instances together."""

    @property
    def alive(self: Seen) -> list[Instance]:
        """Instances that have neither died nor been retired."""
        return [instance for instance in self.instances.values() if instance.alive]

    @property
    def num_requests(self: Seen) -> int:
        """Requests that have ever come, and the number of the next."""
        return self.fleet.books.num_requests

    def owner(self: Seen, request_id: str) -> int | None:
        """The instance on which the request lives, perhaps stopped; None when it has ended or failed."""
        owners = [instance for instance in self.alive if instance.owns(request_id)]
        return min(owners, key=lambda owner: request_id in owner.stopped).number if owners else None

    def _home(self: Seen, request_id: str) -> int:
        owner = self.owner(request_id)
        if owner is None:
            raise UserError(f"no request {request_id!r} lives in this cluster: it has ended, or was never here")
        return owner

    def _living(self: Seen, number: int) -> Instance:
        instance = self.instances.get(number)
        if instance is None or not instance.alive:
            raise UserError(f"no instance {number} lives; there are {[each.number for each in self.alive]}")
        return instance

    @property
    def events(self: Seen) -> list[Event]:
        """Everything that happened anywhere, in order of time."""
        return merged([*(instance.engine.events for instance in self.instances.values()), self.log])

    def table(self: Seen) -> Table:
        """One row a request, from the events or from the ledger that all instances share."""
        return table([instance.engine for instance in self.instances.values()], self.log)

    def tokens(self: Seen, request_id: str) -> list[int]:
        """What a client has been sent so far; KeyError for a request that never was."""
        return self.gateway.streams[request_id].output

    def check_invariants(self: Seen) -> None:
        """Every instance, and that each request which has not ended lives on exactly one of them."""
        check_cluster(self.alive, self.gateway, {request.id for request in self.fleet.held})

    # ---- with Cluster(...) as cluster: -------------------------------------------------------------------------------

    def close(self) -> None:
        """End what would not end by itself: in one process nothing, on Ray all instances."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
