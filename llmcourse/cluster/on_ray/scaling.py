"""How instances come and go on Ray: an actor is started and joins when its model is loaded; an empty one is ended.

What a start takes is what it takes here: nothing is reckoned, and a tier of weights means nothing. Week 10.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llmcourse.cluster.instance import Instance
from llmcourse.cluster.on_ray.remote import RemoteInstance
from llmcourse.cluster.on_ray.start import card_of, start_actor
from llmcourse.errors import UserError

if TYPE_CHECKING:
    from llmcourse.cluster.on_ray.driver import RayDriver
    from llmcourse.metrics.rental import Lease


def launch(driver: RayDriver, lease: Lease) -> None:
    """Start its actor; it serves as soon as it can say who it is."""
    driver.starting[lease.number] = handle = start_actor(driver.ray, driver.recipe, lease.number)
    driver.mailbox.expect(handle.card.remote(), partial(_answered, driver, lease))


def _answered(driver: RayDriver, lease: Lease, reference: Any) -> None:
    """A new instance is there; or has died before it was."""
    number, handle = lease.number, driver.starting.pop(lease.number)
    try:
        remote = RemoteInstance(driver.ray, number, handle, card_of(driver.ray, reference))
    except UserError as error:
        driver.fleet.left(number, "failed")
        driver.fault(number, str(error))
        return
    driver.remotes[number] = remote
    driver.fleet.joined(remote)
    driver.listen(remote)


def is_empty(driver: RayDriver, instance: Instance) -> bool:
    """Whether every client that it served has everything, and it has said so itself: then nothing of it is unheard."""
    report = instance.report()
    return not (instance.busy or report.requests or report.used_blocks or driver.gateway.living_on(instance.number))


def retire(driver: RayDriver, instance: Instance) -> None:
    """End its process."""
    instance.alive = False
    driver.board.gone(instance.number)
    driver.remotes[instance.number].end()
