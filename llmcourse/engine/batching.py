"""Three ways to fill a step, from the oldest to today's.

- ``static``: a batch is formed, computed and closed until the last of it ends; then the next. Prompts are computed at
  once whatever the token budget says. What every server did before 2022.
- ``continuous``: requests join and leave between any two steps (iteration-level scheduling, Orca, Yu et al., 2022).
  Prompts go first and whole, in steps of their own, as in early vLLM; but two such steps never follow one another while
  somebody is decoding, so that a stream of new prompts cannot starve running requests.
- ``mixed``: whoever decodes gets its token, then started prompts get a chunk, then new ones, all in one step and under
  one token budget (chunked prefill, Sarathi-Serve, Agrawal et al., 2024; vLLM v1, 2025).

Each is a function that hands out tokens through a `Step`, which looks after budget, blocks and preemption. Week 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmcourse.engine.request import Request, Status
from llmcourse.kv.block_pool import Copy

if TYPE_CHECKING:
    from llmcourse.engine.scheduler import Scheduler


class Step:
    """A step while it is being filled: what each request has been given, and what is left of the budget."""

    def __init__(self, scheduler: Scheduler, now: float) -> None:
        self.scheduler, self.now = scheduler, now
        self.budget = scheduler.token_budget
        self.counts: dict[Request, int] = {}
        self.preempted_any = False
        self._copies: dict[Request, list[Copy]] = {}
        self._new_blocks: dict[Request, list[int]] = {}

    def running(self) -> list[Request]:
        """Running requests in policy order, a snapshot: some may be preempted while the step is filled."""
        return self.scheduler.ordered(self.scheduler.running, self.now)

    def waiting(self) -> list[Request]:
        """Waiting and preempted requests in policy order, a snapshot."""
        return self.scheduler.ordered(self.scheduler.waiting, self.now)

    def give(self, request: Request, count: int) -> None:
        """Give a running request ``count`` tokens, preempting others until their blocks are free.

        It gets nothing when there is nothing to give, or when it was itself made to give way.
        """
        if count < 1 or request.status is not Status.RUNNING:
            return
        pool = self.scheduler.pool
        missing = max(0, request.computed + count - pool.length(request.id))
        while not pool.can_append(request.id, missing):
            victim = self.scheduler.policy.victim(self.running(), self.now)
            self._preempt(victim)
            if victim is request:
                return
        before = len(pool.table(request.id))
        self._copies[request] = pool.append(request.id, missing)
        self._record(request, count, pool.table(request.id)[before:])

    def admit(self, request: Request, count: int) -> bool:
        """Start a waiting request with ``count`` tokens, if the blocks of its whole input are free.

        All its blocks are taken now, though only a chunk may be computed: a prompt once begun is never stuck half way.
        """
        scheduler = self.scheduler
        if count < 1 or len(scheduler.running) >= scheduler.max_running:
            return False
        if scheduler.pool.blocks_for(len(request.tokens)) > scheduler.pool.num_free:
            return False
        blocks = scheduler.pool.allocate(request.id, len(request.tokens))
        scheduler.start(request, self.now)
        self._record(request, count, blocks)
        return True

    def all_copies(self) -> tuple[Copy, ...]:
        """Block copies to make before the step."""
        return tuple(copy for copies in self._copies.values() for copy in copies)

    def all_new_blocks(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Blocks each request's table has gained."""
        return tuple((request.id, tuple(blocks)) for request, blocks in self._new_blocks.items() if blocks)

    def _record(self, request: Request, count: int, new_blocks: list[int]) -> None:
        self.counts[request] = count
        self._new_blocks[request] = list(new_blocks)
        self.budget -= count

    def _preempt(self, victim: Request) -> None:
        self.budget += self.counts.pop(victim, 0)         # what this step had given it goes back
        self._copies.pop(victim, None)
        self._new_blocks.pop(victim, None)
        self.scheduler.preempt(victim, self.now)
        self.preempted_any = True


def static(step: Step) -> None:
    """Go on with the batch until all of it has ended; only then form the next."""
    if step.scheduler.running:
        _decode(step)
    else:
        for request in step.waiting():
            if not step.admit(request, request.pending):
                break


def continuous(step: Step) -> None:
    """Whole prompts first, in a step of their own, but never two such steps in a row while somebody is decoding."""
    if not (step.scheduler.last_step_filled and step.scheduler.running):
        for request in step.waiting():
            # A prompt above the budget must still be served: it gets a step to itself.
            if (request.pending > step.budget and step.counts) or not step.admit(request, request.pending):
                break
    if not step.counts:
        _decode(step)


def mixed(step: Step) -> None:
    """Decodes first, then prompts under way, then new ones: chunks fill what is left of the budget."""
    running = step.running()
    for request in [r for r in running if r.pending == 1] + [r for r in running if r.pending > 1]:
        step.give(request, min(request.pending, step.budget))
    if step.preempted_any:
        return                                            # no room for those who run, so none for newcomers
    for request in step.waiting():
        if not step.admit(request, min(request.pending, step.budget)):
            break


def _decode(step: Step) -> None:
    for request in step.running():
        step.give(request, request.pending)


BATCHING: dict[str, Callable[[Step], None]] = {"static": static, "continuous": continuous, "mixed": mixed}
