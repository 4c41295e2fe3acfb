"""Fast-forward: jump over steps that are all alike, and be left exactly where stepping would have led.

Most steps of a service decide nothing: the same requests get one token each until somebody comes, ends, or needs the
last free block. How long such a stretch lasts can be told beforehand when the executor knows its step times. So a
simulation takes it at once: the times of all its steps come from one formula over arrays, added up in the same order
as one by one, and so equal to the last digit; blocks are handed out in the same order too. What is never jumped over: a
step in which a request starts, samples its first token, preempts or is preempted. Week 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from llmcourse.engine.batching import static
from llmcourse.engine.log import Stretch
from llmcourse.engine.parking import plans_ahead
from llmcourse.engine.policy import FOREVER
from llmcourse.engine.request import Request
from llmcourse.engine.room import has_room_for, outranked_by
from llmcourse.engine.scheduler import Scheduler

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine
    from llmcourse.metrics.cost_model import CostModel

FEW = 16                                 # steps worked out one by one before arrays pay
MANY = 512                               # steps worked out at once, so that few are in vain
Chunk = tuple[Request, int] | None       # a prompt under way, and how many of its tokens a step computes


@runtime_checkable
class Foresight(Protocol):
    """What an executor must know of the future for its steps to be jumped over.

    ``cost`` says how long a step takes, ``token`` is what it hands to everybody.
    """

    cost: CostModel
    token: int

    def tokens_left(self, requests: list[Request]) -> int:
        """For how many steps everyone of them will be handed `token`: until one ends, or gets another token."""
        ...


def fast_forward(engine: Engine, until: float) -> int:
    """Take the steps that start before ``until`` (seconds) and are equal to the first of them; returns how many.

    0 when the next step may be different, or when the executor has no foresight.
    """
    executor, scheduler, now = engine.foresight, engine.scheduler, engine.clock.now
    if executor is None or now >= until or scheduler.transit.has_work or plans_ahead(scheduler):
        return 0
    prompts = list(scheduler.filling)
    decoding = [r for r in scheduler.running if r not in scheduler.filling] if prompts else scheduler.running
    steps = _steady_steps(scheduler, executor, decoding, prompts, now) if scheduler.running else 0
    if steps < 1:
        return 0
    prompt = (prompts[0], scheduler.token_budget - len(decoding)) if prompts else None
    ends = _ends(executor.cost, decoding, prompt, now, until, min(steps, FEW + MANY))
    end = ends[-1]
    _take(scheduler, decoding, prompt, executor.token, now, ends, end)
    engine.clock.advance_to(end)
    if len(ends) == steps:
        scheduler.finish_due([r for r in decoding if len(r.tokens) >= r.longest], end)
    return len(ends)


def _steady_steps(scheduler: Scheduler, executor: Foresight, decoding: list[Request], prompts: list[Request],
                  now: float) -> int:
    """For how many steps the batch cannot change, whatever the clock says."""
    steps = FOREVER
    if prompts:
        chunk = scheduler.token_budget - len(decoding)
        if chunk < 1 or scheduler.pool.caches:             # what a chunk leaves in a cache, the next step may find
            return 0
        # The first of them takes all that the decodes leave, so there is nothing for a second.
        steps = (prompts[0].pending - 1) // chunk             # its last chunk samples a token: another kind of step
    if scheduler.waiting and _may_let_in(scheduler, prompts, now):
        return 0
    steps = min(steps, scheduler.policy.steady_steps(scheduler.running, scheduler.waiting))
    if decoding:
        steps = min(steps, executor.tokens_left(decoding))
    return scheduler.pool.rounds_that_fit([request.id for request in decoding], steps) if decoding else steps


def _may_let_in(scheduler: Scheduler, prompts: list[Request], now: float) -> bool:
    """Whether the next step could admit somebody or send somebody away, with the queue as it is.

    The last step found no room for the first of the waiting, and room only shrinks; or a prompt takes all the budget;
    or the batch is closed; or somebody is held who is let go only when somebody comes or goes.
    """
    if scheduler.drops:
        return True
    if scheduler.fill is static:
        return False
    policy = scheduler.policy
    if not policy.preemptive and (prompts or policy.static):
        return not (prompts or scheduler.full)
    first = scheduler.waiting.first(now)                      # perhaps not the one that found no room: keys change
    return (not scheduler.full or first is None
            or (has_room_for(scheduler, first) and not scheduler.admission.hold(first, scheduler, now))
            or (policy.preemptive and bool(outranked_by(scheduler, first, now))))


def _ends(cost: CostModel, decoding: list[Request], prompt: Chunk, now: float, until: float, steps: int) -> list[float]:
    """When each step ends, of those that start before ``until``."""
    tokens = requests = len(decoding)
    context, pairs, more = float(sum([request.computed for request in decoding])), 0.0, 0
    if prompt:
        start, count = prompt[0].computed, prompt[1]
        tokens, requests, context = tokens + count, requests + 1, context + start
        if count > 1:
            pairs, more = count * start + count * (count + 1) / 2, count * count
    ends: list[float] = []
    end, few = now, min(steps, FEW)
    while end < until and len(ends) < few:
        end += float(cost.seconds(tokens, requests, context, pairs))
        ends.append(end)
        context += tokens
        pairs += more
    if end < until and few < steps:
        import numpy as np
        i = np.arange(steps - few)
        rest = np.full(len(i) + 1, end)
        rest[1:] = cost.seconds(tokens, requests, context + i * tokens, pairs + i * more)
        rest = rest.cumsum()[1:]
        ends += rest[:1 + int(rest[:-1].searchsorted(until))].tolist()
    return ends


def _take(scheduler: Scheduler, decoding: list[Request], prompt: Chunk, token: int, now: float,
          ends: list[float], end: float) -> None:
    """Book all the steps at once."""
    pool, counters, steps, tells = scheduler.pool, scheduler.counters, len(ends), scheduler.tells_tokens
    used = pool.num_used
    grown = pool.append_in_turn([request.id for request in decoding], steps)
    scheduler.log.jumped(Stretch(counters.steps, now, ends, decoding, prompt, token, grown, len(scheduler.waiting),
                                 len(scheduler.running), used, pool.num_blocks, pool.block_size, pool.num_used > used))
    new = [token] * steps
    for request in decoding:
        request.computed += steps
        request.tokens += new
        if tells:
            scheduler.policy.on_tokens(request, steps, steps, end)
    counters.computed_tokens += steps * len(decoding)
    if prompt:
        request, count = prompt[0], prompt[1] * steps
        request.computed += count
        counters.computed_tokens += count
        counters.recomputed_tokens += scheduler.lost.between(request, request.computed - count, request.computed)
        if tells:
            scheduler.policy.on_tokens(request, count, 0, end)
    counters.steps += steps
    scheduler.last_step_filled = False
