"""Who gets how many tokens in the next step, and what becomes of the result.

`schedule` fills a `Batch` under a token budget and the block pool; `commit` takes the executor's answer, hands tokens
out and frees what is finished. The three ways to fill a step stand in `batching.py`. Only integers are known here: a
mock, a real model and a simulator are all driven by this file. Orca (Yu et al., 2022), vLLM v1 (2025), Sarathi-Serve
(Agrawal et al., 2024). Weeks 2, 4 and 6.

What it promises, whatever the policy, the pool and the arrivals:

- A request that could never fit was refused at the door, so one that runs alone always finds its blocks.
- A step with anything queued computes something, and under FCFS the oldest request is never preempted by a younger.
- A request preempted in the middle of filling a step gives back what the step had given it.
"""

from dataclasses import dataclass

from llmcourse.engine.batch import Batch, ScheduledTokens, StepResult
from llmcourse.engine.batching import BATCHING, Step
from llmcourse.engine.events import Event, EventKind
from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request, Status
from llmcourse.errors import UserError
from llmcourse.kv.block_pool import BlockPool


@dataclass
class Counters:
    """What the mechanisms really did, so that nobody has to take it on trust."""

    steps: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0
    copied_blocks: int = 0


class Scheduler:
    """Policy x batching x block pool x limits, for one instance.

    ``token_budget`` is the most tokens a step computes (what ``continuous`` and ``static`` make of it stands in
    batching.py); ``max_running`` the most requests at once. Events go to ``log``.
    """

    def __init__(self, pool: BlockPool, policy: Policy, batching: str = "mixed", token_budget: int = 256,
                 max_running: int = 64, eos_ids: frozenset[int] = frozenset(), log: list[Event] | None = None) -> None:
        if batching not in BATCHING:
            raise UserError(f"batching {batching!r} is not one of {', '.join(BATCHING)}")
        if not 1 <= max_running <= token_budget:
            raise UserError(f"max_running is {max_running} and token_budget {token_budget}: every running request "
                            "needs a token in a step, so 1 <= max_running <= token_budget")
        self.pool, self.policy, self.eos_ids = pool, policy, eos_ids
        self.token_budget, self.max_running = token_budget, max_running
        self.fill = BATCHING[batching]
        self.log: list[Event] = [] if log is None else log
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.counters = Counters()
        self._lost: dict[str, int] = {}              # tokens to compute a second time, by request
        self._places: dict[str, int] = {}            # order of arrival at this scheduler, to break ties
        self.last_step_filled = False                # whether the last step began a request (see batching.py)

    # ---- the queue -----------------------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Let a checked request wait its turn."""
        assert request.id and request.arrival is not None, "the engine names and dates a request before it queues"
        self._places[request.id] = len(self._places)
        self.waiting.append(request)
        self.emit(request.arrival, EventKind.QUEUED, request, prompt_tokens=len(request.prompt),
                  max_tokens=request.sampling.max_tokens)

    def abort(self, request: Request, now: float) -> None:
        """Take a request out, wherever it stands; its blocks are free at once."""
        request.become(Status.ABORTED)
        self._leave(request)
        self.emit(now, EventKind.ABORTED, request)

    def ordered(self, requests: list[Request], now: float) -> list[Request]:
        """A new list in policy order, ties by order of arrival."""
        return sorted(requests, key=lambda r: (self.policy.key(r, now), self._places[r.id]))

    # ---- one step ------------------------------------------------------------------------------------------------

    def schedule(self, now: float) -> Batch:
        """Choose the next step's tokens; empty only when nobody is queued."""
        step = Step(self, now)
        self.fill(step)
        items = tuple(ScheduledTokens(request, request.computed, count, self.pool.table(request.id))
                      for request, count in step.counts.items())
        self.last_step_filled = any(item.start == 0 for item in items)
        return Batch(items, step.all_copies(), step.all_new_blocks())

    def commit(self, batch: Batch, result: StepResult, start: float, now: float) -> None:
        """Book a step that ran from ``start`` to ``now`` (seconds): advance, deliver, free what is finished."""
        self._book(batch, start, now)
        for item in batch.items:
            request, samples = item.request, item.samples
            request.computed += item.count
            self.policy.on_tokens(request, item.count, now)
            if samples:
                self._deliver(request, result.tokens[request.id], now)

    def _deliver(self, request: Request, token: int, now: float) -> None:
        request.tokens.append(token)
        self.emit(now, EventKind.NEW_TOKENS, request, tokens=[token])
        request.finish_reason = self._finish_reason(request, token)
        if request.finish_reason:
            request.become(Status.FINISHED)
            self._leave(request)
            self.emit(now, EventKind.FINISHED, request, reason=request.finish_reason)

    def _finish_reason(self, request: Request, token: int) -> str | None:
        sampling = request.sampling
        if token in sampling.stop_ids or (token in self.eos_ids and not sampling.ignore_eos):
            return "stop"
        return "length" if len(request.output) >= sampling.max_tokens else None

    def _leave(self, request: Request) -> None:
        (self.running if request in self.running else self.waiting).remove(request)
        if self.pool.table(request.id):
            self.pool.free(request.id)
        self._lost.pop(request.id, None)

    # ---- what a step may do with a request (used by batching.py through Step) --------------------------------------

    def preempt(self, request: Request, now: float) -> None:
        """Throw the request's KV away; it waits, keeps its tokens, and is computed again from the first."""
        freed = self.pool.free(request.id)
        self.emit(now, EventKind.PREEMPTED, request, computed=request.computed, freed=freed)
        self._lost[request.id] = request.computed
        self.counters.preemptions += 1
        self.running.remove(request)
        self.waiting.append(request)
        request.become(Status.PREEMPTED)
        request.computed = 0

    def start(self, request: Request, now: float) -> None:
        """Let a waiting request run that has just been given its blocks."""
        self.waiting.remove(request)
        self.running.append(request)
        request.become(Status.RUNNING)
        self.emit(now, EventKind.SCHEDULED, request, computed=request.computed)

    # ---- books ---------------------------------------------------------------------------------------------------

    def emit(self, time: float, kind: EventKind, request: Request | None, **data: object) -> None:
        """Append to the log."""
        self.log.append(Event(time, kind, request.id if request else None, data))

    def _book(self, batch: Batch, start: float, now: float) -> None:
        counters = self.counters
        for item in batch.items:
            lost = self._lost.get(item.request.id, 0)
            counters.recomputed_tokens += max(0, min(lost, item.start + item.count) - item.start)
        self.emit(now, EventKind.STEP, None, step=counters.steps, start=start,
                  batch=[(item.request.id, item.start, item.count) for item in batch.items],
                  blocks=[(owner, list(blocks)) for owner, blocks in batch.new_blocks],
                  waiting=len(self.waiting), running=len(self.running), used_blocks=self.pool.num_used,
                  num_blocks=self.pool.num_blocks, block_size=self.pool.block_size)
        counters.steps += 1
        counters.computed_tokens += batch.num_tokens
        counters.copied_blocks += len(batch.copies)
