"""What an instance tells of its load: a dozen numbers, and all that a global scheduler ever sees of it.

A cluster of a thousand instances cannot be run by somebody who looks at every request in every step. So each instance
schedules itself and reports now and then; the global scheduler decides on reports, which are a little old, and adds
what it has itself sent since. Sun et al., 2024 (Llumnix). Weeks 8 and 11.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine


class LoadReport(NamedTuple):
    """One instance at one moment (s). Sizes are in blocks where they are not in requests or tokens.

    ``used_blocks`` are owned or reserved; ``head_blocks`` is what the first of the waiting needs, ``waiting_blocks``
    what all of them need; ``virtual_blocks`` counts used, headroom and head; ``preempted`` requests wait after they had
    to give way, and are not parked; ``terminating``: it is to be emptied; ``busy``: it takes part in a migration.
    ``urgent`` requests of the first priority (0 or less) run; ``role`` is what it was started for, "" nothing special;
    ``seats``: how many may run at once now.
    """

    instance: int
    time: float
    num_blocks: int
    block_size: int
    running: int = 0
    waiting: int = 0
    used_blocks: int = 0
    waiting_blocks: int = 0
    head_blocks: int = 0
    virtual_blocks: float = 0.0
    backlog_tokens: int = 0
    preempted: int = 0
    terminating: bool = False
    busy: bool = False
    urgent: int = 0
    role: str = ""
    seats: int = 0

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody owns."""
        return self.num_blocks - self.used_blocks

    @property
    def requests(self) -> int:
        """Requests that run or wait."""
        return self.running + self.waiting

    @property
    def freeness(self) -> float:
        """Blocks that each running request may still take: about its time to full, in blocks; below 0: overloaded.

        Minus infinity for an instance that is to be emptied.
        """
        return float("-inf") if self.terminating else (self.num_blocks - self.virtual_blocks) / max(1, self.running)

    @property
    def dispatch_freeness(self) -> float:
        """The same for somebody who would queue: all who wait count, with all they need."""
        if self.terminating:
            return float("-inf")
        behind = self.waiting_blocks - self.head_blocks
        return (self.num_blocks - self.virtual_blocks - behind) / max(1, self.requests)

    def with_one_more(self, prompt_tokens: int) -> LoadReport:
        """What will be reported when a request has come that has just been sent there."""
        blocks = -(-prompt_tokens // self.block_size)
        head = self.head_blocks if self.waiting else blocks
        return self._replace(waiting=self.waiting + 1, waiting_blocks=self.waiting_blocks + blocks, head_blocks=head,
                             virtual_blocks=self.virtual_blocks + head - self.head_blocks,
                             backlog_tokens=self.backlog_tokens + prompt_tokens)


def report_of(engine: Engine, instance: int, headroom: Mapping[int, float], terminating: bool = False,
              busy: bool = False, role: str = "") -> LoadReport:
    """An instance's report now; ``headroom`` in blocks by priority, for instances that run a request of it.

    Blocks that several requests share count once, and those kept for requests on their way here count too.
    """
    scheduler, pool, now = engine.scheduler, engine.pool, engine.clock.now
    waiting = scheduler.waiting
    first = waiting.first(now)
    # Who is parked holds its blocks, and they are used; who is in host memory needs a block for each that it has there.
    head = 0 if first is None else max(0, pool.blocks_for(len(first.tokens)) - len(pool.table(first.id)))
    kept = 0 if scheduler.host is None else scheduler.host.num_used
    extra = sum(headroom.get(priority, 0.0) for priority in Counter(r.priority for r in scheduler.running)
                ) if headroom else 0.0
    return LoadReport(instance, now, pool.num_blocks, pool.block_size, len(scheduler.running),
                      len(waiting) + len(scheduler.families.members), pool.num_used,
                      max(head, pool.blocks_for(waiting.pending_tokens) + kept), head, pool.num_used + extra + head,
                      scheduler.backlog, waiting.num_preempted - len(scheduler.parked), terminating, busy,
                      sum(request.priority <= 0 for request in scheduler.running), role, scheduler.max_running)
