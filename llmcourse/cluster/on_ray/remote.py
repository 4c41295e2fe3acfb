"""An instance that lives elsewhere, as it looks from here: the same verbs, each a call to its actor.

The driver works with it as with any `Instance`. Its engine is a shadow: the log as far as it has been heard, the few
facts that never change, and the way in for new requests. Week 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmcourse.cluster.autoscale.batch_size import BatchSize
from llmcourse.cluster.instance import Instance
from llmcourse.cluster.on_ray.actor import Card
from llmcourse.cluster.on_ray.loop import Ended, News
from llmcourse.cluster.report import LoadReport
from llmcourse.engine.batch import Limits
from llmcourse.engine.family import answers_to
from llmcourse.engine.log import EventLog
from llmcourse.engine.request import Request
from llmcourse.engine.snapshot import Snapshot
from llmcourse.engine.transit import Refused

PING_WITHIN = 5.0                        # seconds after which an instance that does not answer is taken for dead


class Lost(Exception):
    """The instance that was asked is dead, cannot be reached, or its engine has failed."""


def answer_of(ray: Any, reference: Any) -> Any:
    """The answer of a call that has been made: what it returned, or raised; `Lost` when its actor is gone."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        while isinstance(cause, ray.exceptions.RayTaskError):     # the call failed because another's answer had failed
            cause = cause.cause
        if isinstance(cause, (ray.exceptions.RayError, Ended)):
            raise Lost(_first_line(cause)) from None
        raise cause from None
    except ray.exceptions.RayError as error:
        raise Lost(_first_line(error)) from None


@dataclass(frozen=True)
class _Facts:
    """The part of an executor or a pool that can be seen from elsewhere."""

    block_size: int
    num_blocks: int
    block_bytes: int
    limits: Limits


class Shadow:
    """An engine elsewhere: its ``log`` so far, its facts, and a way in."""

    ledger = None

    def __init__(self, ray: Any, handle: Any, card: Card) -> None:
        self.ray, self.handle, self.log = ray, handle, EventLog()
        self.pool = self.executor = _Facts(card.block_size, card.num_blocks, card.block_bytes, card.limits)

    @property
    def events(self) -> EventLog:
        """What has been heard of what happened there."""
        return self.log

    def add(self, request: Request) -> None:
        """Queue a request there; UserError when it is refused, `Lost` when nobody answers."""
        answer_of(self.ray, self.handle.add.remote(request))
        answers_to(request)                                   # so do its siblings know each other here

    def abort(self, request_id: str) -> None:
        """Drop a request there."""
        answer_of(self.ray, self.handle.abort.remote(request_id))

    def tokens_of(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt given as text or as token ids."""
        return answer_of(self.ray, self.handle.encode.remote(prompt)) if isinstance(prompt, str) else list(prompt)


class RemoteInstance(Instance):
    """Instance ``number`` behind an actor's ``handle``."""

    def __init__(self, ray: Any, number: int, handle: Any, card: Card) -> None:
        self.shadow = Shadow(ray, handle, card)
        super().__init__(number, self.shadow)                 # type: ignore[arg-type]
        self.ray, self.handle, self.process = ray, handle, card.process
        self._last_report, self.felt = card.report, False

    def send(self, verb: str, *arguments: Any) -> Any:
        """Call a verb and do not wait; returns the reference of its answer. Arguments may be such references."""
        return self.handle.call.remote(verb, *arguments)

    def hears(self, news: News) -> None:
        """Keep what was heard of it."""
        self.shadow.log += news.events
        self._last_report = news.report

    def report(self) -> LoadReport:
        """Its load when it was last heard."""
        return self._last_report._replace(role=self.role) if self.role else self._last_report

    def feel(self, batch: BatchSize) -> None:
        """See `Instance.feel`; nobody waits for it."""
        self.send("feel", batch)
        self.felt = True

    def adjust(self) -> None:
        """See `Instance.adjust`; nobody waits for it."""
        if self.felt:
            self.send("adjust")

    def candidate(self, most_blocks: int, rest: float = 0.0, waiting: bool = True) -> str | None:
        """See `Instance.candidate`; None when it is dead."""
        try:
            return answer_of(self.ray, self.send("candidate", most_blocks, rest, waiting))
        except Lost:
            return None

    def adopt(self, snapshot: Snapshot) -> None:
        """See `Instance.adopt`; `Refused` when it is dead."""
        try:
            answer_of(self.ray, self.send("adopt", snapshot))
        except Lost as error:
            raise Refused(f"it is dead: {error}") from None

    def trouble(self) -> str:
        """Why it must be taken for dead; empty when it lives."""
        reference = self.handle.ping.remote()
        ready, _ = self.ray.wait([reference], timeout=PING_WITHIN)
        if not ready:
            return f"it has not answered for {PING_WITHIN:g} s"
        try:
            answer_of(self.ray, reference)
        except Lost as error:
            return str(error)
        return ""

    def end(self) -> None:
        """Make sure that it is dead: who cannot be reached must not go on either."""
        self.ray.kill(self.handle)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
