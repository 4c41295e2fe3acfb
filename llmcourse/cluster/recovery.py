"""A new driver takes over what a dead one has left in the middle of anything.

The instances have gone on serving; what nobody looked after is what was between two of them. No message of the dead
driver need be known: whoever has adopted a request owns it, and that can be asked. So who has stopped somewhere is
released if another instance has adopted it and resumed otherwise, and room that is kept for guests is given up. Week 7.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmcourse.cluster.gateway import Gateway, Stream
from llmcourse.cluster.instance import Instance


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
