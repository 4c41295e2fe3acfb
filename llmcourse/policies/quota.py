"""KV quotas that waste nothing: every tenant is sure of its share, and may use what the others leave idle.

Memory is what a noisy neighbour takes first and gives back last. A hard quota protects the others by leaving memory
empty; here a tenant may borrow all that is idle, and what it borrowed is taken back by preemption as soon as somebody
waits whose request fits into its own tenant's quota. So the price of isolation is paid in recomputed tokens, and only
when two really want the same memory. Waldspurger, 2002 (memory by shares, idle parts lent out). Week 5.

    0  runs, its tenant within its quota        nobody's victim while there are others
    1  waits, would fit into its quota          pushes out 2
    2  runs, its tenant above its quota         borrowed memory: gives way, the tenant furthest above first
    3  waits, would go above its quota          takes idle memory only, and never what 2 holds

The quota is asked of a request with all its blocks, before it is let in. Were it asked of its tenant alone, two
requests too large for their quotas would push each other out for ever.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.kv.memory import Memory


class TenantQuota(Policy):
    """Order by the table above, then by how much of its quota the tenant holds, then by arrival; preemptive.

    ``shares``: fractions of the KV blocks by tenant, together at most 1; others have no quota and live on idle memory.
    None: equal parts for all tenants seen so far.
    """

    static = False
    preemptive = True

    def __init__(self, shares: Mapping[str, float] | None = None) -> None:
        if shares is not None and (not all(share > 0 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9):
            raise UserError(f"shares are {dict(shares)}: each must be above 0, and together at most 1 "
                            f"(now {sum(shares.values()):g})")
        self.shares = None if shares is None else dict(shares)
        self._held: Counter[str] = Counter()         # blocks, by tenant
        self._blocks: dict[Request, int] = {}        # blocks, by running request
        self._tenants: set[str] = set()

    def on_attached(self, pool: Memory) -> None:
        """The memory that is shared out."""
        self._pool = pool

    def quota(self, tenant: str) -> float:
        """Blocks the tenant is sure of."""
        if self.shares is None:
            return self._pool.num_blocks / max(1, len(self._tenants))
        return self.shares.get(tenant, 0.0) * self._pool.num_blocks

    def key(self, request: Request, now: float) -> tuple[float, ...]:
        """Level of the table, and the tenant's use as a share of its quota."""
        held, quota = self._held[request.tenant], self.quota(request.tenant)
        if request in self._blocks:
            level = 0 if held <= quota else 2
        else:
            level = 1 if held + self._pool.blocks_for(len(request.tokens)) <= quota else 3
        return level, held / quota if quota else float("inf")

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Tables grow and quotas are crossed; but nobody minds while nobody waits."""
        return 0 if waiting else FOREVER

    def on_queued(self, request: Request, now: float) -> None:
        """A tenant seen for the first time has a part from now on."""
        self._tenants.add(request.tenant)

    def on_scheduled(self, request: Request, now: float) -> None:
        """It holds the blocks of its whole input."""
        self._count(request)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """It needs room for the token it was handed."""
        self._count(request)

    def on_preempted(self, request: Request, now: float) -> None:
        """Its blocks are gone."""
        self._forget(request)

    def on_done(self, request: Request, now: float) -> None:
        """Its blocks are gone."""
        self._forget(request)

    def _count(self, request: Request) -> None:
        blocks = self._pool.blocks_for(len(request.tokens))      # what it holds in the coming step, or gives way for
        self._held[request.tenant] += blocks - self._blocks.get(request, 0)
        self._blocks[request] = blocks

    def _forget(self, request: Request) -> None:
        self._held[request.tenant] -= self._blocks.pop(request, 0)
