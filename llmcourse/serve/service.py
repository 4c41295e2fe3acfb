"""The six parts of a service, put together: gateway, registry, scheduler, worker, KV manager, monitor.

The gateway knows its tenants and their limits; the registry finds or loads the model; inside the engine the scheduler
chooses, the KV manager gives blocks, the worker computes; the monitor watches the log. Gateway and registry forget a
request once it is passed on, the engine holds its KV until the end: that line between stateless and stateful parts is
what most of this course is about. `Service.journey` tells one request's way through all six, from the logs alone.
Week 2; HTTP comes in week 11.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from llmcourse.engine import Engine, Event, EventKind, Request, SamplingParams
from llmcourse.engine.tables import GONE
from llmcourse.errors import UserError
from llmcourse.metrics.records import records
from llmcourse.serve.monitor import Monitor
from llmcourse.serve.registry import ModelRegistry


class Part(StrEnum):
    """The parts, in the order a request meets them."""

    GATEWAY = "gateway"
    REGISTRY = "registry"
    SCHEDULER = "scheduler"
    KV_MANAGER = "KV manager"
    WORKER = "worker"
    MONITOR = "monitor"


@dataclass(frozen=True)
class Stop:
    """One stop on a request's way. ``time`` is in seconds of the service's clock."""

    time: float
    part: Part
    what: str


class Limiter(Protocol):
    """What the gateway asks of a tenant's limit, such as a `TokenBucket`; times are in seconds."""

    def allow(self, now: float) -> bool:
        """Whether one more request may come now; if so, it is counted."""
        ...

    def wait(self, now: float) -> float:
        """Seconds until one may come."""
        ...


class Refused(UserError):
    """The gateway said no; ``retry_after`` is in seconds, None when trying again will not help."""

    def __init__(self, message: str, request_id: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.request_id, self.retry_after = request_id, retry_after


class Service:
    """One front door for all models of a registry. ``tenants`` are who may ask, each with a limit of its own."""

    def __init__(self, registry: ModelRegistry, tenants: Mapping[str, Limiter]) -> None:
        self.registry, self.clock, self.tenants = registry, registry.clock, dict(tenants)
        self._stops: dict[str, list[Stop]] = {}           # what gateway and registry did, by request
        self._homes: dict[str, Engine] = {}               # the engine that holds a request's state

    # ---- requests in and out -------------------------------------------------------------------------------------

    def submit(self, tenant: str, prompt: str | Sequence[int], sampling: SamplingParams | None = None,
               model: str = "course-tiny", version: str | None = None) -> str:
        """Let a prompt in; returns its id. `Refused` at the gateway; UserError for what no model can serve."""
        request_id = f"q{len(self._stops)}"
        self._stops[request_id] = []
        self._admit(request_id, tenant)
        engine = self._engine(request_id, model, version)
        engine.add(Request(_tokens(engine, prompt), sampling or SamplingParams(), id=request_id))
        self._homes[request_id] = engine
        return request_id

    def step(self) -> list[Event]:
        """One iteration of every loaded model; returns what happened."""
        return [event for engine in self.registry.ready for event in engine.step()]

    def run(self) -> None:
        """Take steps until nobody waits or runs."""
        while not all(engine.idle for engine in self.registry.ready):
            self.step()

    def output(self, request_id: str) -> list[int]:
        """Tokens delivered so far."""
        return self._home(request_id).requests[request_id].output

    def text(self, request_id: str) -> str:
        """Their text; UserError for a model without a tokenizer."""
        engine = self._home(request_id)
        if engine.tokenizer is None:
            raise UserError(f"the model of request {request_id} has no tokenizer; read output() instead")
        return engine.tokenizer.decode(self.output(request_id))

    # ---- watching ------------------------------------------------------------------------------------------------

    def monitor(self, model: str = "course-tiny", version: str | None = None) -> Monitor:
        """A monitor on a loaded model's log."""
        found = self.registry.find(model, version)
        return Monitor(found.engine.events if found.engine else [], f"{found.name}:{found.version}")

    def journey(self, request_id: str) -> list[Stop]:
        """Every stop on a request's way so far, in order of time; UserError for an unknown id."""
        if request_id not in self._stops:
            raise UserError(f"no request {request_id!r} came to this service; it has seen {len(self._stops)}")
        engine = self._homes.get(request_id)
        return [*self._stops[request_id], *(_engine_stops(engine.events, request_id) if engine else [])]

    # ---- gateway and registry ------------------------------------------------------------------------------------

    def _admit(self, request_id: str, tenant: str) -> None:
        now, limiter = self.clock.now, self.tenants.get(tenant)
        if limiter is None:
            self._note(request_id, now, Part.GATEWAY, f"refused: {tenant!r} is not known here")
            known = ", ".join(sorted(self.tenants)) or "nobody"
            raise Refused(f"tenant {tenant!r} is not known here; known: {known}", request_id)
        if not limiter.allow(now):
            wait = limiter.wait(now)
            self._note(request_id, now, Part.GATEWAY, f"refused: {tenant} is over its limit for {wait:.3g} s more")
            raise Refused(f"{tenant} is over its rate limit; try again in {wait:.3g} s", request_id, wait)
        self._note(request_id, now, Part.GATEWAY, f"let in: {tenant} is known and within its limit")

    def _engine(self, request_id: str, name: str, version: str | None) -> Engine:
        model = self.registry.find(name, version)
        cold = model.engine is None
        engine = self.registry.load(name, version)
        found = f"{model.name} version {model.version}"
        what = f"{found} loaded in {model.load_seconds:.3g} s (cold start)" if cold else f"{found} is in memory"
        self._note(request_id, self.clock.now, Part.REGISTRY, what)
        return engine

    def _note(self, request_id: str, time: float, part: Part, what: str) -> None:
        self._stops[request_id].append(Stop(time, part, what))

    def _home(self, request_id: str) -> Engine:
        if request_id not in self._homes:
            raise UserError(f"request {request_id!r} is in no model: it never came, or was refused")
        return self._homes[request_id]


def _tokens(engine: Engine, prompt: str | Sequence[int]) -> list[int]:
    if not isinstance(prompt, str):
        return list(prompt)
    if engine.tokenizer is None:
        raise UserError("this model has no tokenizer; give the prompt as token ids")
    return engine.tokenizer.encode_prompt(prompt)


def _engine_stops(events: Sequence[Event], request_id: str) -> Iterable[Stop]:
    """The stops inside the engine: scheduler, KV manager, worker, and what the monitor read at the end."""
    held = 0
    for event in events:
        if event.kind is EventKind.STEP:
            held += sum(len(new) for owner, new in event.data["blocks"] if owner == request_id)
            yield from _step_stops(event, request_id)
        elif event.request == request_id:
            yield from _request_stops(event, held)
            held = 0 if event.kind in GONE and not event.data.get("parked") else held
            if event.kind is EventKind.FINISHED:
                yield Stop(event.time, Part.MONITOR, _record(events, request_id))


def _step_stops(event: Event, request_id: str) -> Iterable[Stop]:
    step, start = event.data["step"], event.data["start"]
    for owner, new in event.data["blocks"]:
        if owner == request_id:
            yield Stop(start, Part.KV_MANAGER, f"gave {_count(len(new), 'block')}: {', '.join(map(str, new))}")
    for owner, first, count in event.data["batch"]:
        if owner == request_id:
            others = len(event.data["batch"]) - 1
            company = f" in a batch with {others} more" if others else ""
            yield Stop(event.time, Part.WORKER, f"step {step}: computed {_count(count, 'token')} from {first}{company}")


def _request_stops(event: Event, held: int) -> Iterable[Stop]:
    data, time = event.data, event.time
    if event.kind is EventKind.QUEUED:
        prompt = _count(data["prompt_tokens"], "token")
        yield Stop(time, Part.SCHEDULER, f"queued: {prompt}, at most {data['max_tokens']} more")
    elif event.kind is EventKind.SCHEDULED:
        yield Stop(time, Part.SCHEDULER, "chosen to run")
    elif event.kind is EventKind.NEW_TOKENS:
        yield Stop(time, Part.GATEWAY, f"streamed {_count(len(data['tokens']), 'token')} to the client")
    elif event.kind in (EventKind.PREEMPTED, EventKind.EVICTED):
        fate = "to compute again" if data.get("saved") is None else "kept in host memory"
        fate = "kept where they are" if data.get("parked") else fate
        yield Stop(time, Part.SCHEDULER, f"{event.kind.lower()}: {_count(data['computed'], 'token')} {fate}")
        if not data.get("parked"):
            yield Stop(time, Part.KV_MANAGER, f"took back {_count(held, 'block')}")
    elif event.kind in (EventKind.FINISHED, EventKind.ABORTED):
        yield Stop(time, Part.SCHEDULER, f"finished: {data['reason']}" if data else "aborted")
        yield Stop(time, Part.KV_MANAGER, f"took back {_count(held, 'block')}")


def _record(events: Sequence[Event], request_id: str) -> str:
    record = next(r for r in records(events) if r.id == request_id)
    assert record.ttft is not None and record.e2e is not None, "a finished request has delivered a token"
    return f"noted: first token after {record.ttft:.3g} s, all {record.output_tokens} after {record.e2e:.3g} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
