"""Whether everything is where it belongs on instances that nobody can stop all at once. Week 7.

What is asked of an instance is true when it answers, and the driver knows less: its clients' tokens may still be on
their way. So what must hold is put in the order of time. Nobody may live where the gateway does not have it; and
whoever is missing where the gateway has it must have ended, of which word must come soon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmcourse.cluster.gateway import Gateway
from llmcourse.cluster.on_ray.actor import Audit
from llmcourse.cluster.on_ray.remote import Lost, RemoteInstance, answer_of


def check(ray: Any, remotes: Mapping[int, RemoteInstance], gateway: Gateway,
          wait_until: Callable[[Callable[[], bool]], None]) -> None:
    """AssertionError that says who lives in two places, or nowhere; to be asked while no migration is under way.

    ``wait_until`` lets the driver go on until a condition holds, or its patience ends.
    """
    audits = {number: audit for number, remote in remotes.items() if (audit := _audit(ray, remote)) is not None}
    for number, audit in audits.items():
        assert not audit.stopped and not audit.guests, (
            f"instance {number} keeps {audit.stopped} and room for {audit.guests}, and no migration is under way")
        strangers = {name for name in audit.lives if not _belongs(gateway, name, number)}
        assert not strangers, f"instance {number} runs {strangers}, which live elsewhere or have ended"
    unknown = {(stream.asked.id, number) for number, audit in audits.items() for stream in gateway.living_on(number)
               if stream.asked.id not in audit.lives}
    still = lambda: {(name, number) for name, number in unknown if _belongs(gateway, name, number)}    # noqa: E731
    wait_until(lambda: not still())
    assert not still(), f"(request, instance): {still()} should live there and are not known there"


def _audit(ray: Any, remote: RemoteInstance) -> Audit | None:
    try:
        return answer_of(ray, remote.handle.audit.remote()) if remote.alive else None
    except Lost:
        return None


def _belongs(gateway: Gateway, name: str, number: int) -> bool:
    stream = gateway.streams.get(name)
    return stream is not None and stream.reason is None and stream.owner == number
