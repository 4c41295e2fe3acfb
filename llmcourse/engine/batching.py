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
from llmcourse.kv.block_pool import Copy, OutOfBlocks

if TYPE_CHECKING:
    from llmcourse.engine.scheduler import Scheduler


class Step:
    """A step while it is being filled: what each request has been given, and what is left of the budget."""

    def __init__(self, scheduler: Scheduler, now: float) -> None:
        self.scheduler, self.now, self.pool = scheduler, now, scheduler.pool
        self.budget = scheduler.token_budget
        self.counts: dict[Request, int] = {}
        self.preempted_any = False
        self.full = False                # the first of the waiting found no slot or no blocks
        self.began = False               # somebody was admitted
        self.copies: list[tuple[Request, Copy]] = []
        self.new_blocks: dict[str, list[int]] = {}

    def running(self) -> list[Request]:
        """Running requests in order of admission, a snapshot: some may be preempted while the step is filled."""
        return self.scheduler.running.copy()

    def first_waiting(self) -> Request | None:
        """Who is next in policy order; None when nobody waits."""
        return self.scheduler.waiting.first(self.now)

    def give(self, request: Request, count: int) -> None:
        """Give a running request ``count`` tokens, preempting others until their blocks are free.

        It gets nothing when there is nothing to give, or when it was itself made to give way.
        """
        if count < 1 or request.status is not Status.RUNNING:
            return
        while True:
            try:
                copies, blocks = self.pool.reserve(request.id, request.computed + count)
                break
            except OutOfBlocks:
                victim = self.scheduler.victim(self.now)
                self.preempt(victim)
                if victim is request:
                    return
        if copies or blocks:
            self.copies += [(request, copy) for copy in copies]
            self.new_blocks[request.id] = blocks
        self.counts[request] = count
        self.budget -= count

    def give_each_one(self, requests: list[Request]) -> None:
        """Give every one of some decoding requests its next token; at once when there are blocks enough for all."""
        owners = [request.id for request in requests]
        if not self.pool.rounds_that_fit(owners, 1):
            for request in requests:
                self.give(request, 1)
            return
        grown = self.pool.append_in_turn(owners, 1)
        self.new_blocks.update(grown.get(0, []))          # type: ignore[arg-type]  # owners of this pool are request ids
        self.counts.update(dict.fromkeys(requests, 1))
        self.budget -= len(requests)

    def admit(self, request: Request, count: int) -> bool:
        """Start a waiting request with ``count`` tokens, if the blocks of its whole input are free.

        All its blocks are taken now, though only a chunk may be computed: a prompt once begun is never stuck half way.
        """
        if not self.scheduler.has_room_for(request):
            self.full = True
            return False
        if count < 1:
            return False
        request.computed = self.pool.open(request.id, request.tokens, request.max_cached)
        self.new_blocks[request.id] = list(self.pool.table(request.id))
        self.began = True
        self.scheduler.start(request, self.now)
        self.counts[request] = count
        self.budget -= count
        return True

    def make_way(self) -> Request | None:
        """Under a preemptive policy: push out running requests with larger keys until the first of the waiting fits.

        Returns that request, now sure of its place, or None when nothing was done: it fits anyway, or not even so.
        """
        request = self.first_waiting() if self.scheduler.policy.preemptive else None
        if request is None or self.scheduler.has_room_for(request):
            return None
        losers = self.scheduler.outranked_by(request, self.now)
        for loser in losers:
            self.preempt(loser)
        return request if losers else None

    def preempt(self, victim: Request) -> None:
        """Take a running request's KV, and what this step had given it."""
        self.budget += self.counts.pop(victim, 0)
        self.copies = [(request, copy) for request, copy in self.copies if request is not victim]
        self.new_blocks.pop(victim.id, None)
        self.scheduler.preempt(victim, self.now)
        self.preempted_any = True


def static(step: Step) -> None:
    """Go on with the batch until all of it has ended; only then form the next."""
    if step.scheduler.running:
        _decode(step)
        step.full = True                                  # whatever is free: nobody is let in before the last has ended
    else:
        while (request := step.first_waiting()) and step.admit(request, request.pending):
            pass


def continuous(step: Step) -> None:
    """Whole prompts first, in a step of their own, but never two such steps in a row while somebody is decoding."""
    if not (step.scheduler.last_step_filled and step.scheduler.running):
        step.make_way()
        while request := step.first_waiting():
            # A prompt above the budget must still be served: it gets a step to itself.
            if (request.pending > step.budget and step.counts) or not step.admit(request, request.pending):
                break
    if not step.counts:
        _decode(step)


def mixed(step: Step) -> None:
    """Decodes first, then prompts under way, then new ones: chunks fill what is left of the budget."""
    if favourite := step.make_way():                      # it gets its share first, but leaves every decode its token
        step.admit(favourite, min(favourite.pending, step.budget - len(step.scheduler.running)))
        step.preempted_any = False
    prompts = list(step.scheduler.filling)
    step.give_each_one([request for request in step.running() if request not in prompts])
    for request in prompts:
        if request is not favourite:
            step.give(request, min(request.pending, step.budget))
    if step.preempted_any:
        return                                            # no room for those who run, so none for newcomers
    while (newcomer := step.first_waiting()) and step.admit(newcomer, min(newcomer.pending, step.budget)):
        pass


def _decode(step: Step) -> None:
    step.give_each_one(step.running())


BATCHING: dict[str, Callable[[Step], None]] = {"static": static, "continuous": continuous, "mixed": mixed}
