"""A step while it is being filled: the one place where tokens, blocks, preemption and swapping meet.

`batching.py` says who is to get how many tokens, in three ways; this file sees to it that there is memory for them. A
request gets blocks by growing, by being admitted, by forking from a sibling, or by coming back from host memory; it
loses them by preemption, which also takes back what the step had given it.

Nothing is copied here: the step collects orders, which the executor carries out as swap out, copy, swap in, compute.
Three rules make that order right whatever happened while the step was filled:

- ``copies`` maps each destination to where its content was before the step, so a block moved twice is copied once.
- What is swapped out is read first of all, through that map, so its blocks may be given away in the same step.
- Host blocks that are read in this step are free for others only in the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcourse.engine.batch import Batch, ScheduledTokens
from llmcourse.engine.family import shared_tokens
from llmcourse.engine.parking import evict, evict_one, leave_seat_to, make_room
from llmcourse.engine.request import Request, Status
from llmcourse.engine.room import donor_of, has_room_for, outranked_by
from llmcourse.engine.transit import give_up_guest
from llmcourse.kv.memory import Copy, OutOfBlocks

if TYPE_CHECKING:
    from llmcourse.engine.scheduler import Scheduler


class Step:
    """What each request has been given so far, what is left of the budget, and what must be moved beforehand."""

    def __init__(self, scheduler: Scheduler, now: float) -> None:
        self.scheduler, self.now, self.pool = scheduler, now, scheduler.pool
        self.budget = scheduler.token_budget
        self.counts: dict[Request, int] = {}
        self.preempted_any = False
        self.full = False                # the first of the waiting found no slot or no blocks
        self.began = False               # somebody was admitted
        self.copies: dict[int, int] = {}                      # block to be written -> where its content is now
        self.swap_out: list[Copy] = []
        self.restored: dict[Request, list[Copy]] = {}         # who comes back from host memory, by which copies
        self.new_blocks: dict[str, list[int]] = {}
        self.behind = 0                  # blocks swapped out or in while the step computes

    # ---- who is there --------------------------------------------------------------------------------------------

    def running(self) -> list[Request]:
        """Running requests in order of admission, a snapshot: some may be preempted while the step is filled."""
        return self.scheduler.running.copy()

    def first_waiting(self) -> Request | None:
        """Who is next in policy order; None when nobody waits."""
        return self.scheduler.waiting.first(self.now)

    # ---- those who run -------------------------------------------------------------------------------------------

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
                if give_up_guest(self.scheduler, self.now):           # whoever lives here goes before who may come
                    continue
                if evict_one(self):                                   # and whoever runs before whoever is parked
                    continue
                running = self.scheduler.ordered(self.scheduler.running, self.now)
                victim = self.scheduler.policy.victim(running, self.now)
                self.preempt(victim)
                if victim is request:
                    return
        if copies or blocks:
            self._copy(copies)
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

    def prepare_guests(self) -> None:
        """What is left of the budget computes KV for requests that will come from elsewhere, all but their last token.

        Their blocks are reserved, so nobody is preempted for them.
        """
        for guest in self.scheduler.transit.preparing:
            self.give(guest, min(guest.pending - 1, self.budget))

    # ---- those who wait ------------------------------------------------------------------------------------------

    def admit(self, request: Request, limit: int) -> bool:
        """Start a waiting request with at most ``limit`` tokens, if the blocks of its whole input are free.

        All its blocks are taken now, though only a chunk may be computed: a prompt once begun is never stuck half way.
        """
        if limit < 1:
            return False
        if (not has_room_for(self.scheduler, request, self.restored) or self._held(request)
                or not make_room(self, request)):
            self.full = True
            return False
        donor = donor_of(self.scheduler, request, self.restored)
        self.scheduler.waiting.remove(request)              # before its count of pending tokens changes
        if request in self.scheduler.parked:
            self._go_back(request)
        elif donor is None:
            self._open(request)
        else:
            self._fork(request, donor)
        self.began = True
        restored = len(self.restored.get(request, ()))
        self.scheduler.start(request, self.now, restored)
        self.counts[request] = min(request.pending, limit)
        self.budget -= self.counts[request]
        return True

    def make_way(self) -> Request | None:
        """Under a preemptive policy: push out running requests with larger keys until the first of the waiting fits.

        Returns that request, now sure of its place, or None when nothing was done: it fits anyway, or not even so.
        """
        request = self.first_waiting() if self.scheduler.policy.preemptive else None
        if request is None or has_room_for(self.scheduler, request) or self._held(request):
            return None
        losers = outranked_by(self.scheduler, request, self.now, self.counts)
        for loser in losers:
            leave_seat_to(self, loser)
        return request if losers else None

    def _held(self, request: Request) -> bool:
        return self.scheduler.admission.hold(request, self.scheduler, self.now)

    def _open(self, request: Request) -> None:
        """A table of its own; what a cache or host memory still has of its KV need not be computed."""
        found = self.pool.open(request.id, request.tokens, request.max_cached)
        self.scheduler.counters.hit_tokens += found
        host = self.scheduler.host
        if host is not None and host.table(request.id):
            saved = host.table(request.id)
            first, table = self.pool.blocks_for(found), self.pool.table(request.id)
            self.restored[request] = list(zip(saved[first:], table[first:], strict=False))
            found = max(found, host.length(request.id))
        request.computed = found
        self.new_blocks[request.id] = list(self.pool.table(request.id))

    def _go_back(self, request: Request) -> None:
        """From where it was parked: its table is there, and grows by the token it computes now."""
        del self.scheduler.parked[request]
        copies, blocks = self.pool.reserve(request.id, len(request.tokens))
        self._copy(copies)
        self.new_blocks[request.id] = self.new_blocks.get(request.id, []) + blocks

    def bring_back(self, request: Request) -> None:
        """From host memory to a place of its own, before it is its turn to run."""
        self.scheduler.waiting.remove(request)
        self._open(request)
        request.become(Status.PARKED)
        self.scheduler.parked[request] = None
        self.scheduler.waiting.add(request)

    def _fork(self, request: Request, donor: Request) -> None:
        """Share the prompt's blocks. Its last token is computed once more, so that each samples from its own logits."""
        shared = shared_tokens(request)
        self.pool.share(request.id, donor.id, shared)
        copies, _ = self.pool.reserve(request.id, len(request.tokens))
        self._copy(copies)
        request.computed = shared
        self.scheduler.counters.forked_tokens += shared
        self.new_blocks[request.id] = list(self.pool.table(request.id))

    # ---- giving way ----------------------------------------------------------------------------------------------

    def preempt(self, victim: Request) -> None:
        """Take a running request's blocks, and what this step had given it; its KV is swapped out or lost."""
        self.budget += self.counts.pop(victim, 0)
        self.new_blocks.pop(victim.id, None)
        saved = self._save(victim)
        for block in self.scheduler.preempt(victim, self.now, saved):
            self.copies.pop(block, None)
        self.preempted_any = True

    def evict(self, parked: Request) -> None:
        """Take a parked request's blocks; its KV is swapped out or lost."""
        self.new_blocks.pop(parked.id, None)
        for block in evict(self.scheduler, parked, self.now, self._save(parked)):
            self.copies.pop(block, None)

    def would_save(self, victim: Request) -> bool:
        """Whether its KV would be swapped out, and there is room for it in host memory."""
        host, preemption = self.scheduler.host, self.scheduler.preemption
        return (host is not None and victim.computed > 0 and host.blocks_for(victim.computed) <= host.num_free
                and preemption.would_swap(victim.computed, self.pool.block_size))

    def _save(self, victim: Request) -> int | None:
        """How many of the victim's tokens stay in host memory; None: its KV is lost."""
        host = self.scheduler.host
        if host is not None and self.restored.pop(victim, None) is not None:
            return host.length(victim.id)                     # it came back in this very step: nothing has moved yet
        if host is None or not self.would_save(victim):
            return None
        blocks = [self.copies.get(block, block) for block in self.pool.table(victim.id)]
        self.swap_out += zip(blocks, host.allocate(victim.id, victim.computed), strict=False)
        return victim.computed

    def _copy(self, copies: list[Copy]) -> None:
        """Order copies; what is itself still to be copied is fetched from where it is now.

        Whoever comes back from host memory in this step, and is moved already, comes back to where it is then.
        """
        self.copies.update({new: self.copies.get(old, old) for old, new in copies})
        if copies and self.restored:
            moved = dict(copies)
            for request, blocks in self.restored.items():
                self.restored[request] = [(saved, moved.get(block, block)) for saved, block in blocks]

    # ---- done ----------------------------------------------------------------------------------------------------

    def batch(self) -> Batch:
        """The orders of this step, for an executor."""
        tables = self.pool.tables
        items = tuple([ScheduledTokens(request, request.computed, count, tables[request.id])
                       for request, count in self.counts.items()])
        new_blocks = tuple([(owner, tuple(blocks)) for owner, blocks in self.new_blocks.items() if blocks])
        if not (self.copies or self.swap_out or self.restored):                    # nearly always
            return Batch(items, (), new_blocks)
        holders = (*self.scheduler.running, *self.scheduler.parked)
        changed = [(request.id, tuple(tables[request.id])) for request in holders
                   if not self.copies.keys().isdisjoint(tables[request.id])]
        return Batch(items, tuple([(old, new) for new, old in self.copies.items()]), new_blocks, tuple(self.swap_out),
                     tuple([copy for copies in self.restored.values() for copy in copies]), tuple(changed),
                     self.behind)
