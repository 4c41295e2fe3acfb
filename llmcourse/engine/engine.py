"""One serving instance: `step` is schedule, execute, commit, and little else.

Requests come in by `add` or `submit`, steps are taken by `step`, `stream` or `generate`, and everything that happened
is in `events`. The executor decides which world it is: real, mocked or simulated. Weeks 2-4.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from llmcourse.engine.batch import Executor
from llmcourse.engine.clock import Clock, WallClock
from llmcourse.engine.events import Event
from llmcourse.engine.invariants import check_engine
from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Completion, Request, SamplingParams
from llmcourse.engine.scheduler import Counters, Scheduler
from llmcourse.errors import UserError
from llmcourse.kv.block_pool import BlockPool
from llmcourse.metrics.records import Record, records


class TextCodec(Protocol):
    """What the engine asks of a tokenizer."""

    eos_ids: frozenset[int]

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""
        ...


class Engine:
    """Scheduler x executor x clock. ``checked`` verifies the invariants after every step (tests, labs)."""

    def __init__(self, executor: Executor, block_pool: BlockPool, policy: Policy | None = None,
                 batching: str = "mixed", token_budget: int = 256, max_running: int = 64, clock: Clock | None = None,
                 tokenizer: TextCodec | None = None, eos_ids: frozenset[int] | None = None, seed: int = 0,
                 checked: bool = False) -> None:
        self.executor, self.pool, self.tokenizer = executor, block_pool, tokenizer
        self.clock: Clock = clock or WallClock()
        self.events: list[Event] = []
        if eos_ids is None:
            eos_ids = tokenizer.eos_ids if tokenizer else frozenset()
        self.scheduler = Scheduler(block_pool, policy or Policy(), batching, token_budget,
                                   min(max_running, token_budget), eos_ids, self.events)
        self.requests: dict[str, Request] = {}
        self.seed, self.checked = seed, checked

    @classmethod
    def from_model(cls, name_or_folder: str = "course-tiny", *, num_blocks: int = 256, block_size: int = 16,
                   device: str = "auto", threads: int | None = None, **options: Any) -> "Engine":
        """An engine on "course-tiny", a Hugging Face folder or a hub name; ``options`` as for `Engine`."""
        from llmcourse.executors.torch import TorchExecutor
        from llmcourse.model.loading import load_model
        model, tokenizer = load_model(name_or_folder, device=device)
        executor = TorchExecutor(model, num_blocks, block_size, threads=threads)
        return cls(executor, BlockPool(num_blocks, block_size), tokenizer=tokenizer, **options)

    # ---- requests in and out -------------------------------------------------------------------------------------

    def submit(self, prompt: str | Sequence[int], sampling: SamplingParams | None = None) -> Request:
        """Add a prompt, as text or token ids, arriving now."""
        return self.add(Request(self._tokens(prompt), sampling or SamplingParams()))

    def add(self, request: Request) -> Request:
        """Queue a request, or refuse it with a `UserError` that leaves the engine as it was."""
        self._refuse_impossible(request)
        request.id = request.id or self._free_name()
        request.arrival = self.clock.now if request.arrival is None else request.arrival
        if request.sampling.seed is None:
            request.sampling = replace(request.sampling, seed=self.seed + len(self.requests))
        self.requests[request.id] = request
        self.scheduler.add(request)
        return request

    def abort(self, request_id: str) -> None:
        """Drop a queued or running request; an unknown or finished one is a `UserError`."""
        request = self.requests.get(request_id)
        if request is None:
            raise UserError(f"no request {request_id!r} to abort; the engine knows {len(self.requests)} requests")
        if request.done:
            raise UserError(f"request {request_id!r} is {request.status} already; only a live request can be aborted")
        self.scheduler.abort(request, self.clock.now)

    # ---- running -------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not (self.scheduler.waiting or self.scheduler.running)

    def step(self) -> list[Event]:
        """One iteration; returns what happened in it (nothing when idle)."""
        mark, start = len(self.events), self.clock.now
        batch = self.scheduler.schedule(start)
        if batch.items:
            result = self.executor.execute(batch)
            self.clock.advance(result.seconds)
            self.scheduler.commit(batch, result, start, self.clock.now)
        if self.checked:
            self.check_invariants()
        return self.events[mark:]

    def stream(self) -> Iterator[Event]:
        """Take steps until idle, yielding events as they happen; requests may be added meanwhile."""
        while not self.idle:
            yield from self.step()

    def generate(self, prompts: Sequence[str | Sequence[int]],
                 sampling: SamplingParams | Sequence[SamplingParams] | None = None) -> list[Completion]:
        """Serve all prompts together and return their completions in the order given.

        ``sampling`` is one for all or one each. If any prompt is refused, none is served.
        """
        each = self._one_each(prompts, sampling)
        requests = [Request(self._tokens(prompt), params) for prompt, params in zip(prompts, each, strict=True)]
        for request in requests:
            self._refuse_impossible(request)
        for request in requests:
            self.add(request)
        while not all(request.done for request in requests):
            self.step()
        return [self.completion(request) for request in requests]

    def completion(self, request: Request) -> Completion:
        """What has come of a request so far."""
        output = tuple(request.output)
        text = self.tokenizer.decode(output) if self.tokenizer else None
        return Completion(request.id, tuple(request.prompt), output, text, request.finish_reason or str(request.status))

    # ---- looking -------------------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """What the mechanisms really did."""
        return self.scheduler.counters

    def records(self) -> list[Record]:
        """One record of times and counts for every request that was queued."""
        return records(self.events)

    def check_invariants(self) -> None:
        """AssertionError that names what is broken (see invariants.py)."""
        check_engine(self)

    # ---- the door ------------------------------------------------------------------------------------------------

    def _refuse_impossible(self, request: Request) -> None:
        limits, prompt = self.executor.limits, request.prompt
        if request.id in self.requests:
            raise UserError(f"a request with id {request.id!r} exists already; ids are used once")
        if not len(prompt):
            raise UserError("the prompt is empty; a request needs at least 1 token to start from")
        for position, token in enumerate(prompt):
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < limits.vocab_size:
                raise UserError(f"token {token!r} at position {position} of the prompt is not an id "
                                f"of this model's {limits.vocab_size}-token vocabulary")
        self._refuse_too_long(len(prompt), request.sampling.max_tokens, request.max_cached)

    def _refuse_too_long(self, prompt: int, max_tokens: int, cached: int) -> None:
        longest = self.executor.limits.max_length
        if prompt + max_tokens > longest:
            raise UserError(f"{prompt} prompt tokens + max_tokens {max_tokens} exceed the model's {longest} positions"
                            f"; ask for at most {max(0, longest - prompt)} new tokens")
        if self.pool.blocks_for(cached) > self.pool.num_blocks:
            raise UserError(
                f"{prompt} prompt tokens + max_tokens {max_tokens} fill {self.pool.blocks_for(cached)} blocks of "
                f"{self.pool.block_size} tokens, the pool has {self.pool.num_blocks}: it could never finish; "
                f"ask for at most {max(0, self.pool.capacity - prompt + 1)} new tokens or enlarge the pool")

    def _tokens(self, prompt: str | Sequence[int]) -> list[int]:
        if not isinstance(prompt, str):
            return list(prompt)
        if self.tokenizer is None:
            raise UserError("this engine has no tokenizer; give the prompt as token ids")
        return self.tokenizer.encode_prompt(prompt)

    def _free_name(self) -> str:
        number = len(self.requests)
        while f"r{number}" in self.requests:
            number += 1
        return f"r{number}"

    @staticmethod
    def _one_each(prompts: Sequence[Any],
                  sampling: SamplingParams | Sequence[SamplingParams] | None) -> Sequence[SamplingParams]:
        if sampling is None or isinstance(sampling, SamplingParams):
            return [sampling or SamplingParams()] * len(prompts)
        if len(sampling) != len(prompts):
            raise UserError(f"{len(prompts)} prompts came with {len(sampling)} SamplingParams; give one, or one each")
        return sampling
