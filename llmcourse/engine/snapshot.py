"""Everything about a request but its KV: small enough to send anywhere, and enough to go on from.

A request that moves to another instance travels as a snapshot, its KV beside it or computed again. One that has lost
its instance is restored from the snapshot of what had been delivered. Week 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmcourse.engine.request import Request, SamplingParams, Status

if TYPE_CHECKING:
    from llmcourse.workload.slo import SLO


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A request at one moment: ``computed`` tokens have their KV, ``status`` says what it was doing.

    ``arrival`` is in seconds of the clock that all instances share.
    """

    id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    arrival: float
    priority: int = 0
    tenant: str = ""
    slo: SLO | None = None
    predicted: float | None = None
    output: tuple[int, ...] = ()
    computed: int = 0
    status: Status = Status.WAITING
    preemptions: int = 0

    @classmethod
    def of(cls, request: Request) -> Snapshot:
        """The request as it is now."""
        assert request.arrival is not None
        sampling = replace(request.sampling, n=1) if request.siblings else request.sampling     # it goes on alone
        return cls(request.id, tuple(request.prompt), sampling, request.arrival, request.priority,
                   request.tenant, request.slo, request.predicted, tuple(request.output), request.computed,
                   request.status, request.preemptions)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and output: all tokens that are known."""
        return self.prompt + self.output

    @property
    def num_tokens(self) -> int:
        """How many tokens are known."""
        return len(self.prompt) + len(self.output)

    @property
    def room(self) -> int:
        """Tokens its table must have room for: all of them while it fills, those computed once it decodes."""
        return self.computed if self.num_tokens == self.computed + 1 else self.num_tokens

    def without_kv(self) -> Snapshot:
        """The same request with nothing computed: it queues again, and goes on behind its last token."""
        return replace(self, computed=0, status=Status.PREEMPTED if self.output else Status.WAITING)

    def to_request(self) -> Request:
        """A request that goes on from here; nothing is computed yet wherever it is going."""
        request = Request(self.prompt, self.sampling, self.id, self.arrival, self.priority, self.tenant, self.slo,
                          self.predicted)
        request.tokens += self.output
        request.preemptions = self.preemptions
        return request
