"""What goes on after a death: a new driver takes over what a dead one has left, an instance the requests of a dead one.

When a driver has died, the instances have gone on serving; what nobody looked after is what was between two of them. No
message of the dead driver need be known: whoever has adopted a request owns it, and that can be asked. So who has
stopped somewhere is released if another instance has adopted it and resumed otherwise, and room that is kept for guests
is given up. Two things no instance knows, and the next driver has them if they were kept outside of the dead one:

- the books of its fleet (books.py): without them requests that waited in front of all instances are gone (their clients
  must ask again), and so is whoever was starting;
- the streams of its gateway: without them every client begins a new stream of what its request has said so far, and
  requests whose instance died while there was no driver are gone.

With both nothing is lost. What was only measured or guessed (arrivals lately, what a dispatcher has noted) is not
handed over, nor the cluster's log. On Ray instances end with their driver (`begin_anew`). Weeks 7 and 10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmcourse.cluster.books import Books
from llmcourse.cluster.gateway import NOWHERE, Stream
from llmcourse.cluster.instance import Delivery, Instance
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Refused

if TYPE_CHECKING:
    from llmcourse.cluster.driver import Driver


# ---- when a driver has died ------------------------------------------------------------------------------------------


def take_over(driver: Driver, books: Books, streams: Mapping[str, Stream]) -> list[Delivery]:
    """Everything that another driver has left goes on under this one; returns what is new to clients with a stream."""
    driver.gateway.streams |= streams
    ended = _ended(driver, books)

    def lives(request_id: str) -> bool:
        return request_id in ended or any(instance.has_adopted(request_id) for instance in driver.alive)

    news = settle(driver, ended)
    driver.fleet.take_over(books, lives)
    reopen(driver, lives)
    names = {name for instance in driver.alive for name in instance.engine.requests}
    driver.fleet.books.num_requests = max(driver.num_requests, _next_number(names))
    return news


def begin_anew(driver: Driver, books: Books | None = None, streams: Mapping[str, Stream] | None = None
               ) -> list[Delivery]:
    """See `Driver.recover`, where instances end with their driver: nothing lives on those that are here.

    Every request of an open stream goes on behind its last token; of the books only who waits is taken over.
    """
    driver.gateway.streams |= streams or {}
    if books is not None:
        driver.fleet.books.held, driver.fleet.books.num_requests = books.held, books.num_requests
    reopen(driver, lambda request_id: False)
    return []


def settle(driver: Driver, ended: Collection[str]) -> list[Delivery]:
    """Settle everything between instances, and open a stream for each request that lives and has none.

    Who has stopped somewhere and ``ended`` elsewhere does not go on.
    """
    alive, gateway = driver.alive, driver.gateway
    for instance in alive:
        instance.busy = False
        for name in instance.guests:
            instance.drop(name)
        for snapshot in instance.residents() if driver.keeps_streams else ():
            if snapshot.id not in instance.stopped or not _adopted_beside(snapshot.id, instance, alive):
                stream = gateway.streams.setdefault(snapshot.id, Stream(snapshot, NOWHERE, list(snapshot.output)))
                stream.owner = instance.number
    for instance in alive:
        for name in instance.stopped:
            if name in ended or _adopted_beside(name, instance, alive):
                instance.release(name)
            else:
                instance.resume(name)
    return [new for instance in alive for name in gateway.streams for new in gateway.hear(instance.told(name))]


def reopen(driver: Driver, lives: Callable[[str], bool]) -> None:
    """Let every request go on that lives nowhere: held again in front of all, or restored, for its instance is dead."""
    streams, books = driver.gateway.streams, driver.fleet.books
    for request in books.held if driver.keeps_streams else ():
        if request.id not in streams:
            driver.gateway.opened(request, NOWHERE)
    held = {each.id: each for each in books.held if each.id not in streams or not streams[each.id].reason}
    for name, stream in streams.items():
        if stream.reason is None and name not in held and not lives(name):
            if stream.owner == NOWHERE:
                held[name] = stream.asked.to_request()
            else:
                restore(driver, stream.snapshot())
    books.held = sorted(held.values(), key=lambda request: request.arrival or 0.0)
    for stream in sorted(streams.values(), key=lambda stream: stream.asked.arrival):
        if stream.reason is None and not stream.output:
            driver.fleet.watch.waits(stream.asked.to_request(), driver.now)
    books.num_requests = max(books.num_requests, _next_number(streams), _next_number(held))


def _ended(driver: Driver, books: Books) -> set[str]:
    """Requests that are over, though perhaps no instance knows them any more: by their streams, or by the ledger.

    Of those that stand in the ``books`` or have stopped on an instance, which is all that might begin again.
    """
    ended = {name for name, stream in driver.gateway.streams.items() if stream.reason is not None}
    asked = {request.id for request in books.held}.union(*(instance.stopped for instance in driver.alive))
    for ledger in {instance.engine.ledger for instance in driver.alive}:
        ended |= ledger.ended(asked) if ledger is not None else set()
    return ended


def _adopted_beside(request_id: str, instance: Instance, alive: Sequence[Instance]) -> bool:
    return any(other is not instance and other.has_adopted(request_id) for other in alive)


def _next_number(names: Iterable[str]) -> int:
    """Requests are named by their number: the first that nobody of these has."""
    return max((int(name[1:]) + 1 for name in names if re.fullmatch(r"r\d+", name)), default=0)


# ---- when an instance has died ---------------------------------------------------------------------------------------


def left_by(driver: Driver, dead: Instance) -> list[Snapshot]:
    """What lived on an instance that has just died, each behind the last token its client has.

    Not who had stopped there and lives elsewhere already.
    """
    if driver.keeps_streams:
        return [stream.snapshot() for stream in driver.gateway.living_on(dead.number)]
    moved = {name for name, flight in driver.coordinator.flights.items() if flight.migration.committed}
    return [snapshot.without_kv() for snapshot in dead.residents() if snapshot.id not in moved & {*dead.stopped}]


def restore(driver: Driver, snapshot: Snapshot) -> None:
    """Let a request whose instance has died go on where there is most room; where there is none it has failed.

    An instance that is being drained is asked last, for it is better than none.
    """
    suspicion = driver.gateway.orphaned(snapshot.id) if snapshot.id in driver.gateway.streams else ""
    refusals = [suspicion] if suspicion else []
    by_load = sorted(() if suspicion else driver.known(), key=lambda report: -report.dispatch_freeness)
    for report in by_load:
        instance = driver.instances[report.instance]
        try:
            driver.reach(instance, driver.now)
            instance.adopt(snapshot)
        except Refused as reason:
            refusals.append(f"instance {instance.number}: {reason}")
            continue
        driver.board.placed(instance.number, snapshot.num_tokens)
        driver.gateway.moved(snapshot.id, instance.number)
        return
    driver.failed[snapshot.id] = "; ".join(refusals) or "no instance is left"
    driver.gateway.failed(snapshot.id, driver.failed[snapshot.id], len(snapshot.output))
