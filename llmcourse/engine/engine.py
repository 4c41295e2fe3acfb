"""One serving instance: `step` is schedule, execute, commit, and little else.

Requests come in by `add` or `submit`, steps are taken by `step`, `stream` or `generate`, and everything that happened
is in `events`. The executor decides which world it is: real, mocked or simulated. Weeks 2-4.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from llmcourse.engine.admission import Admission
from llmcourse.engine.batch import Executor
from llmcourse.engine.clock import Clock, VirtualClock, WallClock
from llmcourse.engine.codec import TextCodec
from llmcourse.engine.counters import Counters
from llmcourse.engine.door import refuse_impossible
from llmcourse.engine.events import Event
from llmcourse.engine.family import answers_to
from llmcourse.engine.forward import Foresight, fast_forward
from llmcourse.engine.invariants import check_engine
from llmcourse.engine.log import EventLog
from llmcourse.engine.policy import Policy
from llmcourse.engine.preemption import Preemption
from llmcourse.engine.request import Completion, Request, SamplingParams
from llmcourse.engine.scheduler import Scheduler
from llmcourse.errors import UserError
from llmcourse.kv import Memory, make_pool
from llmcourse.metrics.records import Record, records

if TYPE_CHECKING:
    from llmcourse.metrics.cost_model import CostModel
    from llmcourse.metrics.ledger import Ledger
    from llmcourse.metrics.table import Table


class Engine:
    """Scheduler x executor x clock. ``checked`` verifies the invariants after every step (tests, labs).

    With a ``ledger`` no events are kept and finished requests are forgotten: for simulations of any length.
    """

    def __init__(self, executor: Executor, block_pool: Memory, policy: Policy | None = None,
                 batching: str = "mixed", token_budget: int = 256, max_running: int = 64, clock: Clock | None = None,
                 tokenizer: TextCodec | None = None, eos_ids: frozenset[int] | None = None, seed: int = 0,
                 checked: bool = False, admission: Admission | None = None, ledger: Ledger | None = None,
                 preemption: Preemption | None = None) -> None:
        self.executor, self.pool, self.tokenizer = executor, block_pool, tokenizer
        self.clock: Clock = clock or WallClock()
        self.log, self.ledger = EventLog(), ledger
        eos_ids = (tokenizer.eos_ids if tokenizer else frozenset()) if eos_ids is None else eos_ids
        self.scheduler = Scheduler(block_pool, policy or Policy(), batching, token_budget,
                                   min(max_running, token_budget), eos_ids, self.log if ledger is None else ledger,
                                   admission, preemption)
        self.requests: dict[str, Request] = {}
        self.seed, self.checked, self._added = seed, checked, 0
        self.foresight = executor if isinstance(executor, Foresight) else None

    @classmethod
    def from_model(cls, name_or_folder: str = "course-tiny", *, num_blocks: int = 256, block_size: int = 16,
                   device: str = "auto", threads: int | None = None, block_pool: Memory | None = None,
                   prefix_cache: bool | str = False, preemption: str = "recompute", host_blocks: int | None = None,
                   parking: bool = False, link: float | None = None, kv: str = "full", **options: Any) -> Engine:
        """An engine on "course-tiny", a Hugging Face folder or a hub name; ``options`` as for `Engine`.

        ``prefix_cache`` as for `kv.make_pool`, or bring a ``block_pool``; ``kv`` as for `TorchExecutor`. With
        ``preemption`` "swap" or "cheaper", ``host_blocks`` (default: as many) are reached over a ``link`` of so many
        bytes/s (None: as fast as memory copies); for "cheaper" both prices are measured now.
        """
        from llmcourse.executors.torch import TorchExecutor
        from llmcourse.model.loading import load_model
        model, tokenizer = load_model(name_or_folder, device=device)
        pool = block_pool or make_pool(num_blocks, block_size, prefix_cache)
        host = 0 if preemption == "recompute" else pool.num_blocks if host_blocks is None else host_blocks
        executor = TorchExecutor(model, pool.num_blocks, pool.block_size, threads, host, link, kv)
        prices = executor.prices() if preemption == "cheaper" else None
        rules = Preemption(preemption, host, prices, parking)
        return cls(executor, pool, tokenizer=tokenizer, preemption=rules, **options)

    @classmethod
    def simulated(cls, model: str = "Llama 2 7B", gpu: str = "A100 80 GB", *, cost: CostModel | None = None,
                  num_blocks: int | None = None, block_size: int = 16, block_pool: Memory | None = None,
                  prefix_cache: bool | str = False, preemption: str = "recompute", host_blocks: int | None = None,
                  parking: bool = False, spare: int = 0, link: float | None = None, **options: Any) -> Engine:
        """The same engine on a model and a GPU that need not be here, in virtual time; names as in `data/`.

        ``cost`` replaces the roofline of that model on that GPU; ``num_blocks`` defaults to what the memory holds
        beside the weights; ``prefix_cache`` as for `kv.make_pool`, or bring a ``block_pool``. With ``preemption``
        "swap" or "cheaper", ``host_blocks`` (default: as many) are reached over a ``link`` of so many bytes/s (default:
        PCIe 4); ``parking``, ``spare`` as for `Preemption`. ``token_budget`` is 512, ``max_running`` 128.
        """
        from llmcourse.executors.roofline import EOS, RooflineExecutor, copy_seconds, link_prices
        from llmcourse.metrics.cost_model import RooflineCost, blocks_that_fit
        from llmcourse.metrics.hardware import hardware
        from llmcourse.model.shapes import shape
        config, machine = shape(model), hardware(gpu)
        seconds = cost or RooflineCost(machine, config)
        if block_pool is None:
            blocks = blocks_that_fit(machine, config, block_size) if num_blocks is None else num_blocks
            block_pool = make_pool(blocks, block_size, prefix_cache)
        prices = link_prices(seconds, config, size := block_pool.block_size, link)
        host = block_pool.num_blocks if host_blocks is None else host_blocks
        defaults: dict[str, Any] = {"token_budget": 512, "max_running": 128, "eos_ids": frozenset({EOS}),
                                    "clock": VirtualClock(),
                                    "preemption": Preemption(preemption, host, prices, parking, spare)}
        executor = RooflineExecutor(seconds, sys.maxsize, prices.block, copy_seconds(machine, config, size),
                                    int(size * config.kv_bytes_per_token(2)))
        return cls(executor, block_pool, **(defaults | options))

    # ---- requests in and out -------------------------------------------------------------------------------------

    def submit(self, prompt: str | Sequence[int], sampling: SamplingParams | None = None) -> Request:
        """Add a prompt, as text or token ids, arriving now."""
        return self.add(Request(self.tokens_of(prompt), sampling or SamplingParams()))

    def add(self, request: Request) -> Request:
        """Queue a request, or refuse it with a `UserError` that leaves the engine as it was."""
        refuse_impossible(self, request)
        request.id = request.id or self._free_name()
        request.arrival = self.clock.now if request.arrival is None else request.arrival
        if request.sampling.seed is None:
            request.sampling = replace(request.sampling, seed=self.seed + self._added)
        for answer in answers_to(request):
            self._added += 1
            self.requests[answer.id] = answer
            self.scheduler.add(answer, self.clock.now)
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
        """Nothing waits, runs, or is prepared for a request to come."""
        return not (self.scheduler.waiting or self.scheduler.running or self.scheduler.transit.has_work)

    def step(self) -> list[Event]:
        """One iteration; returns what happened in it (nothing when idle, or when a ledger is kept)."""
        mark, start = len(self.log), self.clock.now
        batch = self.scheduler.schedule(start)
        if batch.items or batch.swap_out or batch.swap_in:     # nobody may run while another is on its way out
            result = self.executor.execute(batch)
            self.clock.advance(result.seconds)
            self.scheduler.commit(batch, result, start, self.clock.now)
        if self.checked:
            self.check_invariants()
        return self.log[mark:]

    def forward(self, until: float = float("inf")) -> int:
        """In a simulation: take all the equal steps that come next and start before ``until``, at once.

        The result is the same as stepping one by one. Returns how many: of a real model always 0.
        """
        steps = fast_forward(self, until)
        if steps and self.checked:
            self.check_invariants()
        return steps

    def take_ended(self) -> list[Request]:
        """Requests that finished, were aborted or shed since the last call; with a ledger they are forgotten now."""
        ended, self.scheduler.ended = self.scheduler.ended, []
        for request in ended if self.ledger is not None else ():
            del self.requests[request.id]
        return ended

    def stream(self) -> Iterator[Event]:
        """Take steps until idle, yielding events as they happen; requests may be added meanwhile."""
        while not self.idle:
            yield from self.step()

    def generate(self, prompts: Sequence[str | Sequence[int]],
                 sampling: SamplingParams | Sequence[SamplingParams] | None = None) -> list[Completion]:
        """Serve all prompts together and return their completions in the order given.

        ``sampling`` is one for all or one each; a prompt that asks for ``n`` answers has ``n`` completions, one behind
        the other. If any prompt is refused, none is served.
        """
        each = zip(prompts, self._one_each(prompts, sampling), strict=True)
        requests = [Request(self.tokens_of(prompt), params) for prompt, params in each]
        for request in requests:
            refuse_impossible(self, request)
        for request in requests:
            self.add(request)
        answers = [answer for request in requests for answer in request.siblings or (request,)]
        while not all(answer.done for answer in answers):
            self.step()
        return [self.completion(answer) for answer in answers]

    def tokens_of(self, prompt: str | Sequence[int]) -> list[int]:
        """Token ids of a prompt given as text or as token ids."""
        if not isinstance(prompt, str):
            return list(prompt)
        if self.tokenizer is None:
            raise UserError("this engine has no tokenizer; give the prompt as token ids")
        return self.tokenizer.encode_prompt(prompt)

    def completion(self, request: Request) -> Completion:
        """What has come of a request so far."""
        output = tuple(request.output)
        text = self.tokenizer.decode(output) if self.tokenizer else None
        return Completion(request.id, tuple(request.prompt), output, text, request.finish_reason or str(request.status))

    @property
    def events(self) -> EventLog:
        """Everything that happened; UserError when a ledger is kept instead."""
        if self.ledger is not None:
            raise UserError("this engine keeps a ledger and no events; read table(), or make it without ledger=")
        return self.log

    @property
    def counters(self) -> Counters:
        """What the mechanisms really did."""
        return self.scheduler.counters

    def records(self) -> list[Record]:
        """One record of times and counts for every request that was queued."""
        return records(self.events)

    def table(self) -> Table:
        """The same as columns, from the events or from the ledger."""
        from llmcourse.metrics.table import Table
        return Table.of(self.records()) if self.ledger is None else self.ledger.table()

    def check_invariants(self) -> None:
        """AssertionError that names what is broken (see invariants.py)."""
        check_engine(self)

    def _free_name(self) -> str:
        return next(name for number in count(self._added) if (name := f"r{number}") not in self.requests)

    @staticmethod
    def _one_each(prompts: Sequence[object],
                  sampling: SamplingParams | Sequence[SamplingParams] | None) -> Sequence[SamplingParams]:
        if sampling is None or isinstance(sampling, SamplingParams):
            return [sampling or SamplingParams()] * len(prompts)
        if len(sampling) != len(prompts):
            raise UserError(f"{len(prompts)} prompts came with {len(sampling)} SamplingParams; give one, or one each")
        return sampling
