"""Who gets how many tokens in the next step, and what becomes of the result.

`schedule` fills a `Batch` under a token budget and the block pool; `commit` takes the executor's answer, hands tokens
out and frees what is finished. The three ways to fill a step stand in `batching.py`, what a step may do with memory in
`step.py`, who fits in `room.py`. Mock, real model and simulator are all driven by this file, which knows only integers.
Orca (Yu et al., 2022), vLLM v1 (2025), Sarathi-Serve (Agrawal et al., 2024). Weeks 2-6.

What it promises, whatever the policy, the pool and the arrivals:

- A request that could never fit was refused at the door: one that runs alone always finds its blocks, and any step with
  something queued computes something. Under FCFS the oldest request is never preempted by a younger.
- A request preempted in the middle of filling a step gives back what the step had given it.
- A preemptive policy pushes out only requests that decode: whoever is admitted gets at least one token further.
"""

from __future__ import annotations

from llmcourse.engine.admission import Admission
from llmcourse.engine.batch import Batch, StepResult
from llmcourse.engine.batching import BATCHING
from llmcourse.engine.counters import Counters, Losses
from llmcourse.engine.family import Families
from llmcourse.engine.log import EventLog, Journal, StepReport
from llmcourse.engine.parking import forget_parked, look_ahead
from llmcourse.engine.policy import Policy
from llmcourse.engine.preemption import Preemption
from llmcourse.engine.queue import WaitingQueue
from llmcourse.engine.request import Request, Status
from llmcourse.engine.step import Step
from llmcourse.engine.transit import Transit
from llmcourse.errors import UserError
from llmcourse.kv.block_pool import BlockPool
from llmcourse.kv.memory import Memory


class Scheduler:
    """Policy x batching x memory x preemption x limits, for one instance.

    ``token_budget`` is the most tokens a step computes (what ``continuous`` and ``static`` make of it stands in
    batching.py); ``max_running`` the most requests at once. What happens is told to ``log``.
    """

    def __init__(self, pool: Memory, policy: Policy, batching: str = "mixed", token_budget: int = 256,
                 max_running: int = 64, eos_ids: frozenset[int] = frozenset(), log: Journal | None = None,
                 admission: Admission | None = None, preemption: Preemption | None = None) -> None:
        if batching not in BATCHING:
            raise UserError(f"batching {batching!r} is not one of {', '.join(BATCHING)}")
        if not 1 <= max_running <= token_budget:
            raise UserError(f"max_running is {max_running} and token_budget {token_budget}: every running request "
                            "needs a token in a step, so 1 <= max_running <= token_budget")
        self.pool, self.policy, self.eos_ids = pool, policy, eos_ids
        self.token_budget, self.max_running, self.overhang = token_budget, max_running, 0      # see `limit_seats`
        self.admission = admission or Admission()
        self.preemption = preemption or Preemption()
        host_blocks = 0 if self.preemption.mode == "recompute" else self.preemption.host_blocks
        self.host = BlockPool(host_blocks, pool.block_size) if host_blocks else None   # where swapped KV waits
        self.drops = type(self.admission).drop is not Admission.drop
        self.tells_tokens = type(policy).on_tokens is not Policy.on_tokens
        self.fill = BATCHING[batching]
        self.log: Journal = EventLog() if log is None else log
        self.waiting = WaitingQueue(policy)
        self.running: list[Request] = []             # in order of admission
        self.filling: dict[Request, None] = {}       # those of them that have not had a token since they were admitted
        self.parked: dict[Request, None] = {}        # those who wait with their KV where it lies
        self.ended: list[Request] = []               # finished, aborted and shed, for whoever empties it
        self.counters = Counters()
        self.last_step_filled = False                # whether the last step began a request (see batching.py)
        self.full = False                            # whether the last step found no room for the first of the waiting
        self._arrived = 0
        policy.on_attached(pool)
        self.families, self.lost = Families(), Losses()
        self.transit = Transit()                     # who is on the way to or from another instance

    # ---- the queue -----------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Tokens whose KV is still to be computed, of all who wait or run."""
        filling = sum([request.pending - 1 for request in self.filling])      # everybody else has one to compute
        return self.waiting.pending_tokens + len(self.running) + filling

    def add(self, request: Request, now: float | None = None) -> None:
        """Let a checked request wait its turn, unless admission sends it away. ``now`` defaults to its arrival."""
        assert request.id and request.arrival is not None, "the engine names and dates a request before it queues"
        now = request.arrival if now is None else now
        self.log.queued(request)
        reason = self.admission.refuse(request, self, now)
        if reason is not None:
            self._send_away(request, reason, now)
            return
        self.introduce(request, now)
        if not self.families.stands_behind(request):
            self.queue([request])

    def introduce(self, request: Request, now: float) -> None:
        """Tell the policy of a request that is here from now on, and give it a rank."""
        self.policy.on_queued(request, now)
        request.rank = (self.policy.key(request, now) if self.policy.static else 0, self._arrived)
        self._arrived += 1

    def abort(self, request: Request, now: float) -> None:
        """Take a request out, wherever it stands; its blocks are free at once."""
        request.become(Status.ABORTED)
        self._leave(request, now)
        self.log.aborted(request, now, None)

    def rank(self, request: Request, now: float) -> tuple[object, int]:
        """Its place in policy order, ties by order of arrival: smaller goes first."""
        return request.rank if self.policy.static else (self.policy.key(request, now), request.rank[1])

    def ordered(self, requests: list[Request], now: float) -> list[Request]:
        """A new list in policy order."""
        return sorted(requests, key=lambda request: self.rank(request, now))

    # ---- one step ------------------------------------------------------------------------------------------------

    def schedule(self, now: float) -> Batch:
        """Choose the next step's tokens; empty only when nobody is queued."""
        if self.drops:
            self._drop(now)
        step = Step(self, now)
        self.fill(step)
        step.prepare_guests()
        look_ahead(step)
        self.full = step.full and not (step.preempted_any or step.copies)     # moves may have made room
        self.last_step_filled = step.began
        if self.host is not None:
            for request in step.restored:
                self.host.free(request.id)
        return step.batch()

    def commit(self, batch: Batch, result: StepResult, start: float, now: float) -> None:
        """Book a step that ran from ``start`` to ``now`` (seconds): advance, deliver, free what is finished."""
        pool, caches = self.pool, self.pool.caches
        self.log.stepped(StepReport(self.counters.steps, start, now, batch, len(self.waiting), len(self.running),
                                    pool.num_used, pool.num_blocks, pool.block_size))
        self.counters.count(batch, self.lost)
        tokens, on_tokens, tells = result.tokens, self.policy.on_tokens, self.tells_tokens
        delivered, ending = [], []
        for request, _, count, _ in batch.items:
            request.computed += count
            known = request.tokens
            if caches:
                pool.computed(request.id, known, request.computed)
            samples = request.computed == len(known)
            if samples:
                token = tokens[request.id]
                known.append(token)
                delivered.append(request)
                if len(known) >= request.longest or token in self.eos_ids or request.sampling.stop_ids:
                    ending.append(request)
            if tells:
                on_tokens(request, count, int(samples), now)
        if self.filling:
            self.full = self.full and not caches     # what a prompt leaves in a cache may be what another waits for
            for request in delivered:
                self.filling.pop(request, None)
        self.log.delivered(delivered, now)
        self.finish_due(ending, now)
        if self.families:
            for request in delivered:
                self.queue(self.families.prompt_computed(request))

    def finish_due(self, delivered: list[Request], now: float) -> None:
        """Of those who have been handed a token that may be their last: finish whom it ends."""
        for request in delivered:
            sampling, token = request.sampling, request.tokens[-1]
            if token in sampling.stop_ids or (token in self.eos_ids and not sampling.ignore_eos):
                request.finish_reason = "stop"
            elif len(request.tokens) >= request.longest:
                request.finish_reason = "length"
            else:
                continue
            request.become(Status.FINISHED)
            self._leave(request, now)
            self.log.finished(request, now)

    def _leave(self, request: Request, now: float) -> None:
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            self.running.remove(request)
        elif self.transit.leaving.pop(request.id, None) is None:
            self.families.remove(request)
        if self.pool.table(request.id):
            self.pool.free(request.id)
        self.forget(request)
        self.filling.pop(request, None)
        self.full = False
        self.ended.append(request)
        self.policy.on_done(request, now)

    def _drop(self, now: float) -> None:
        for request in self.waiting:
            reason = self.admission.drop(request, self, now)
            if reason is not None:
                self.waiting.remove(request)
                self.policy.on_done(request, now)
                self._send_away(request, reason, now)

    def _send_away(self, request: Request, reason: str, now: float) -> None:
        request.become(Status.ABORTED)
        request.finish_reason = "shed"
        self.counters.shed += 1
        self.ended.append(request)
        self.forget(request)
        self.log.aborted(request, now, reason)

    def forget(self, request: Request) -> None:
        """It has ended or left: nobody keeps anything for it, and of those behind it the first goes in its place."""
        if self.host is not None and self.host.table(request.id):
            self.host.free(request.id)
        self.lost.forget(request)
        forget_parked(self, request)
        self.queue(self.families.ended(request))

    def queue(self, requests: list[Request]) -> None:
        """Let requests that have a rank wait."""
        for request in requests:
            self.waiting.add(request)
            self.full = False

    # ---- what a step may do with a request (step.py) ---------------------------------------------------------------

    def preempt(self, request: Request, now: float, saved: int | None = None) -> list[int]:
        """Take the request's blocks; it waits and keeps its tokens. Returns the blocks that are free by it.

        ``saved``: so many tokens of KV stay in host memory; None: it is computed again from the first.
        """
        freed = self.pool.free(request.id)
        self.log.preempted(request, now, freed, saved)
        if saved is None:
            self.lost.note(request)
        self.counters.preemptions += 1
        request.preemptions += 1
        self.running.remove(request)
        self.filling.pop(request, None)
        request.become(Status.PREEMPTED if saved is None else Status.SWAPPED)
        request.computed = saved or 0
        self.waiting.add(request)
        self.policy.on_preempted(request, now)
        return freed

    def start(self, request: Request, now: float, restored: int) -> None:
        """Let a request run that has just been given its blocks, so many of them brought back from host memory."""
        self.running.append(request)
        self.filling[request] = None
        request.become(Status.RUNNING)
        self.log.scheduled(request, now, restored)
        self.policy.on_scheduled(request, now)
