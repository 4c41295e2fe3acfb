"""What the scheduler tells of itself, and who listens.

An `EventLog` writes everything down, one `Event` each: figures, labs and explanations read it. A simulation of a
million requests cannot keep a billion events: there a `Ledger` (metrics/ledger.py) hears the same calls and keeps one
row a request. Both are Journals, and what the ledger says of a run is what the event log would have said (tested).
Weeks 2 and 3.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

from llmcourse.engine.batch import Batch
from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.request import Request


class StepReport(NamedTuple):
    """One step that has been run: its number, its time (seconds), its batch, and the state when it was scheduled."""

    number: int
    start: float
    end: float
    batch: Batch
    waiting: int
    running: int
    used_blocks: int
    num_blocks: int
    block_size: int


class Stretch(NamedTuple):
    """Equal steps that a simulation has jumped over: as many `StepReport`s as there are ``ends``, told at once.

    In step ``i`` each of ``decoding`` is handed ``token``, and ``prompt`` (request, tokens a step), if there is one,
    gets a chunk further; they are told as they stand before the first step. ``grown[i]`` says which blocks which table
    gained in step ``i``; ``used_blocks`` is the number in use before the first, and ``takes`` says whether the gained
    ones were free until then (else they had been set aside for their owners, and are in use all along).
    """

    number: int
    start: float
    ends: Sequence[float]
    decoding: Sequence[Request]
    prompt: tuple[Request, int] | None
    token: int
    grown: dict[int, list[tuple[Hashable, list[int]]]]
    waiting: int
    running: int
    used_blocks: int
    num_blocks: int
    block_size: int
    takes: bool


class Journal(Protocol):
    """Hears everything in the order in which it happens; times are seconds of the engine's clock."""

    def queued(self, request: Request) -> None:
        """The request has arrived, at its ``arrival``."""

    def scheduled(self, request: Request, time: float, restored: int) -> None:
        """It starts running, for the first time or again, so many of its blocks ``restored`` from host memory."""

    def preempted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """It has lost its blocks; ``freed`` are those nobody names any more.

        ``saved`` tokens of KV go to host memory; None: it will be computed again.
        """

    def parked(self, request: Request, time: float) -> None:
        """It has lost its seat and waits with its KV."""

    def evicted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """It was parked and has lost its blocks now; ``freed`` and ``saved`` as for `preempted`."""

    def stepped(self, step: StepReport) -> None:
        """A step has been run."""

    def delivered(self, requests: Sequence[Request], time: float) -> None:
        """Each of them has been handed its last token."""

    def jumped(self, stretch: Stretch) -> None:
        """Many equal steps have been run, in none of which anybody came, began, left or ended."""

    def finished(self, request: Request, time: float) -> None:
        """It has ended by itself."""

    def aborted(self, request: Request, time: float, reason: str | None) -> None:
        """Its owner gave it up, or (with a reason) it was sent away."""

    def migrating(self, request: Request, time: float, stage: str, blocks: Sequence[int]) -> None:
        """A stage of its way from or to another instance; ``blocks`` it has gained or lost here."""


class EventLog(list[Event]):
    """A list of events that writes itself; the table of what each carries stands in ARCHITECTURE.md.

    ``instance`` is the number that its events carry.
    """

    instance = 0

    def queued(self, request: Request) -> None:
        """QUEUED, with everything that is known of a request on arrival."""
        slo = request.slo
        family: dict[str, object] = {}
        if request.siblings:
            family = {"answers": request.sampling.n} if request.leads else {"sibling_of": request.siblings[0].id}
        self._note(request.arrival or 0.0, EventKind.QUEUED, request, prompt_tokens=len(request.prompt),
                   max_tokens=request.sampling.max_tokens, tenant=request.tenant, priority=request.priority,
                   predicted=request.predicted, ttft_slo=slo.ttft if slo else None,
                   tpot_slo=slo.tpot if slo else None, **family)

    def scheduled(self, request: Request, time: float, restored: int) -> None:
        """SCHEDULED, with what need not be computed."""
        self._note(time, EventKind.SCHEDULED, request, computed=request.computed, restored=restored)

    def preempted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """PREEMPTED, with what was lost or saved."""
        self._note(time, EventKind.PREEMPTED, request, computed=request.computed, freed=freed, saved=saved)

    def parked(self, request: Request, time: float) -> None:
        """PREEMPTED, with the KV it keeps."""
        self._note(time, EventKind.PREEMPTED, request, computed=request.computed, freed=[], saved=request.computed,
                   parked=True)

    def evicted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """EVICTED, with what was lost or saved."""
        self._note(time, EventKind.EVICTED, request, computed=request.computed, freed=freed, saved=saved)

    def stepped(self, step: StepReport) -> None:
        """STEP."""
        batch = step.batch
        data = self._step(step.number, step.start, step.end, [(i.request.id, i.start, i.count) for i in batch.items],
                          [(owner, list(blocks)) for owner, blocks in batch.new_blocks], step.used_blocks, step)
        if batch.new_tables:
            data["tables"] = [(owner, list(table)) for owner, table in batch.new_tables]

    def delivered(self, requests: Sequence[Request], time: float) -> None:
        """NEW_TOKENS for each: most events of a log, so made without detour."""
        kind, here = EventKind.NEW_TOKENS, self.instance
        self += [Event(time, kind, request.id, {"tokens": [request.tokens[-1]]}, here) for request in requests]

    def jumped(self, stretch: Stretch) -> None:
        """The STEP and NEW_TOKENS events of every step, as if they had been taken one by one."""
        start, used = stretch.start, stretch.used_blocks
        for i, end in enumerate(stretch.ends):
            grown = stretch.grown.get(i, [])
            used += sum(len(blocks) for _, blocks in grown) if stretch.takes else 0
            batch = [(request.id, request.computed + i, 1) for request in stretch.decoding]
            if stretch.prompt:
                request, chunk = stretch.prompt
                batch.append((request.id, request.computed + i * chunk, chunk))
            self._step(stretch.number + i, start, end, batch, grown, used, stretch)
            for request in stretch.decoding:
                self._note(end, EventKind.NEW_TOKENS, request, tokens=[stretch.token])
            start = end

    def finished(self, request: Request, time: float) -> None:
        """FINISHED."""
        self._note(time, EventKind.FINISHED, request, reason=request.finish_reason)

    def aborted(self, request: Request, time: float, reason: str | None) -> None:
        """ABORTED."""
        self._note(time, EventKind.ABORTED, request, **({} if reason is None else {"reason": reason}))

    def migrating(self, request: Request, time: float, stage: str, blocks: Sequence[int]) -> None:
        """MIGRATION."""
        self._note(time, EventKind.MIGRATION, request, stage=stage, blocks=list(blocks))

    def _note(self, time: float, kind: EventKind, request: Request, **data: object) -> None:
        self.append(Event(time, kind, request.id, data, self.instance))

    def _step(self, number: int, start: float, end: float, batch: list[tuple[str, int, int]],
              blocks: Sequence[tuple[Hashable, list[int]]], used: int,
              state: StepReport | Stretch) -> dict[str, Any]:
        data: dict[str, Any] = {
            "step": number, "start": start, "batch": batch, "blocks": blocks, "waiting": state.waiting,
            "running": state.running, "used_blocks": used, "num_blocks": state.num_blocks,
            "block_size": state.block_size}
        self.append(Event(end, EventKind.STEP, None, data, self.instance))
        return data
