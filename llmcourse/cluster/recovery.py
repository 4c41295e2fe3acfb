"""What goes on after a death: a new driver takes over what a dead one has left, an instance the requests of a dead one.

When a driver has died, the instances have gone on serving; what nobody looked after is what was between two of them. No
message of the dead driver need be known: whoever has adopted a request owns it, and that can be asked. So who has
stopped somewhere is released if another instance has adopted it and resumed otherwise, and room that is kept for guests
is given up. Week 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcourse.cluster.gateway import Gateway, Stream
from llmcourse.cluster.instance import Instance
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Refused

if TYPE_CHECKING:
    from llmcourse.cluster.driver import Driver


def settle(alive: Sequence[Instance], gateway: Gateway) -> None:
    """Settle everything between instances, and open a stream for each request that lives and has none."""
    for instance in alive:
        instance.busy = False
        for name in instance.guests:
            instance.drop(name)
        for snapshot in instance.residents():
            if snapshot.id not in instance.stopped or not _adopted_beside(snapshot.id, instance, alive):
                stream = gateway.streams.setdefault(snapshot.id, Stream(snapshot, instance.number))
                stream.output = list(snapshot.output)
    for instance in alive:
        for name in instance.stopped:
            if _adopted_beside(name, instance, alive):
                instance.release(name)
            else:
                instance.resume(name)


def _adopted_beside(request_id: str, instance: Instance, alive: Sequence[Instance]) -> bool:
    return any(other is not instance and other.has_adopted(request_id) for other in alive)


def restore(driver: Driver, snapshot: Snapshot) -> None:
    """Let a request whose instance has died go on where there is most room; where there is none it has failed.

    An instance that is being drained is asked last, for it is better than none.
    """
    keeps_streams = snapshot.id in driver.gateway.streams
    suspicion = driver.gateway.orphaned(snapshot.id) if keeps_streams else ""
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
    if keeps_streams:
        driver.gateway.failed(snapshot.id, driver.failed[snapshot.id])
