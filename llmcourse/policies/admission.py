"""Whom to let in when there is more than can be served: refuse early, and in tokens.

Past saturation a queue without a door grows without end, everybody's first token comes too late, and the machine works
at full speed for nothing. `BacklogLimit` bounds the queue by the tokens in it, for ten long prompts are not ten short
ones; `SLOAdmission` plays the queue forward with a cost model and refuses who would be late; `Shedding` drops who waits
and is late already. A refusal at once is worth more to a client than a late answer. Beyer et al., 2016 (load shedding);
Patke et al., 2024 (QLM), for waiting times estimated from the queue. Week 5.
"""

from heapq import heapify, heappop, heappush

from llmcourse.engine.admission import Admission
from llmcourse.engine.request import Request
from llmcourse.engine.scheduler import Scheduler
from llmcourse.errors import UserError
from llmcourse.metrics.cost_model import CostModel
from llmcourse.policies.sjf import expected_output


class BacklogLimit(Admission):
    """Refuse whoever would raise the backlog above ``tokens`` still to be computed."""

    def __init__(self, tokens: int) -> None:
        if not tokens >= 1:
            raise UserError(f"a backlog limit of {tokens} tokens lets nobody in; give at least 1")
        self.tokens = tokens

    def refuse(self, request: Request, scheduler: Scheduler, now: float) -> str | None:
        """The backlog in tokens, when the request would take it over the limit."""
        backlog = scheduler.backlog
        if backlog + request.pending <= self.tokens:
            return None
        return f"backlog of {backlog} tokens + {request.pending} of this request exceed the limit of {self.tokens}"


class Shedding(Admission):
    """Drop whoever waits for a first token that is overdue by its own SLO: it can only make others late."""

    def drop(self, request: Request, scheduler: Scheduler, now: float) -> str | None:
        """How late it is; None for those who have time left, have no SLO, or have begun to be answered."""
        assert request.arrival is not None
        ttft, waited = request.slo.ttft if request.slo else None, now - request.arrival
        if ttft is None or request.num_output or waited <= ttft:
            return None
        return f"has waited {waited:.2f} s for a first token that was due after {ttft:g} s"


class SLOAdmission(Admission):
    """Refuse whoever, by a cost model, would get its first token later than its SLO allows.

    The forecast holds for first come, first served under mixed batching; under a policy that lets others jump the queue
    it is too hopeful for some. It knows output lengths as well as ``predicted`` does. ``margin`` 1.2 refuses
    whoever would have less than a fifth of the forecast in reserve.
    """

    def __init__(self, cost: CostModel, margin: float = 1.0) -> None:
        if not margin > 0:
            raise UserError(f"margin is {margin}; the forecast is multiplied by it, so it must be above 0")
        self.cost, self.margin = cost, margin

    def refuse(self, request: Request, scheduler: Scheduler, now: float) -> str | None:
        """The forecast, when it misses the SLO; None for requests without one."""
        assert request.arrival is not None
        ttft = request.slo.ttft if request.slo else None
        if ttft is None:
            return None
        expected = now - request.arrival + self.margin * self.expected_ttft(request, scheduler)
        return None if expected <= ttft else f"the first token would come after {expected:.2f} s, due are {ttft:g} s"

    def expected_ttft(self, request: Request, scheduler: Scheduler) -> float:
        """Seconds until the first token of a request that queues now, behind everybody who waits."""
        steps, prompts, at_once = _until_it_runs(request, scheduler)
        running = scheduler.running
        prompts += [r.pending for r in running if r.pending > 1]
        decoding = at_once - sum(r.pending > 1 for r in running)
        ahead = [len(r.tokens) for r in (*running, *scheduler.waiting)]
        context = decoding * sum(ahead) / max(1, len(ahead))
        decode_step = self.cost.seconds(decoding, decoding, context, 0) if decoding else 0.0
        chunk = max(1, scheduler.token_budget - decoding)
        return float(steps * decode_step + sum(self._prefill(tokens, chunk, decoding, context) for tokens in prompts))

    def _prefill(self, tokens: int, chunk: int, decoding: int, context: float) -> float:
        """Seconds to compute a prompt in chunks beside the decodes."""
        steps = -(-tokens // chunk)
        pairs = tokens * (tokens + 1) / 2
        share = tokens / steps
        step = self.cost.seconds(round(decoding + share), decoding + 1, context + (tokens - share) / 2, pairs / steps)
        return float(steps * step)


def _until_it_runs(request: Request, scheduler: Scheduler) -> tuple[int, list[int], int]:
    """Play the queue forward, each request keeping the memory of its whole input and output from admission to end.

    Returns the decode steps until the request is let in, the prompts computed by then, its own too, and how many ran
    at once at most.
    """
    running = scheduler.running
    ends = [(expected_output(r) - r.num_output, _footprint(r)) for r in running]
    heapify(ends)
    free = scheduler.pool.capacity - sum(size for _, size in ends)
    slots, step, prompts, at_once = scheduler.max_running - len(running), 0.0, [], 0
    for queued in [*scheduler.waiting.in_order(0), request]:
        size, at_once = _footprint(queued), max(at_once, len(ends))
        while ends and (size > free or slots < 1):
            end, freed = heappop(ends)
            step, free, slots = max(step, end), free + freed, slots + 1
        heappush(ends, (step + expected_output(queued) - queued.num_output, size))
        free, slots = free - size, slots - 1
        prompts.append(queued.pending)
    return int(step), prompts, at_once


def _footprint(request: Request) -> float:
    return len(request.prompt) + max(expected_output(request), request.num_output)


class Combined(Admission):
    """Several rules at once: the first that objects sends the request away."""

    def __init__(self, *rules: Admission) -> None:
        self.rules = rules

    def refuse(self, request: Request, scheduler: Scheduler, now: float) -> str | None:
        """The first objection at the door."""
        return next((reason for rule in self.rules if (reason := rule.refuse(request, scheduler, now))), None)

    def drop(self, request: Request, scheduler: Scheduler, now: float) -> str | None:
        """The first objection in the queue."""
        return next((reason for rule in self.rules if (reason := rule.drop(request, scheduler, now))), None)
