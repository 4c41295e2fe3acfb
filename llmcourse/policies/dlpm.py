"""Deficit longest prefix match: the locality of longest-prefix-first, with a bound on what it may cost the others.

VTC takes the clients in turn and so forgets each one's prefixes before it comes again; longest prefix first serves
whoever is in the cache and starves the rest. Here each client has a deficit: as long as it lasts, the order is longest
prefix first; who has spent it waits until all who wait have spent theirs, and then each gets a quantum. Only what has
to be computed is charged: a prompt found in the cache costs next to nothing, so who shares well is served more. A
large quantum keeps the locality, a small one the fairness: while two clients wait all the time, neither gets
2 (Q + max(w_p L, w_q M)) more than the other. Who is first and finds no room makes the others wait, as under every
policy here. Cao et al., 2025 (DLPM). Week 10.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.kv.memory import Memory
from llmcourse.policies.clients import Clients
from llmcourse.policies.deficits import Deficits
from llmcourse.policies.lpm import LongestPrefixFirst


class DLPM(Policy):
    """Order by refills that the client needs, then by tokens found in the cache, most first, then by arrival.

    ``quantum`` in weighted tokens. On a pool that remembers nothing, and while more than ``longest_queue`` wait, the
    order inside is first come, first served. Refills go to clients who wait; a client keeps at most a quantum.
    """

    static = False

    def __init__(self, quantum: float = 5000, input_weight: float = 1, output_weight: float = 2,
                 weights: Mapping[str, float] | None = None, longest_queue: int = 128) -> None:
        self.deficits = Deficits(quantum, input_weight, output_weight, weights)
        self._prefixes = LongestPrefixFirst(longest_queue)
        self._clients = Clients()

    def key(self, request: Request, now: float) -> tuple[float, ...]:
        """Refills, and where longest-prefix-first would put it."""
        return self.deficits.refills_needed(request.tenant), *self._prefixes.key(request, now)

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Until something is evicted, or the first client has spent what it had."""
        if len(waiting) < 2:
            return FOREVER
        needed = {tenant: self.deficits.refills_needed(tenant) for tenant in self._clients.waiting()}
        least = min(needed.values())                          # whoever comes first in the order is one of these clients
        decoding = Counter(request.tenant for request in running)
        spent = [self.deficits.steady_steps(tenant, decoding[tenant]) for tenant in needed if needed[tenant] == least]
        return min(self._prefixes.steady_steps(running, waiting), *spent)

    # ---- what it is told -------------------------------------------------------------------------------------------

    def on_attached(self, pool: Memory) -> None:
        """Look into this pool, if it remembers anything."""
        self._prefixes.on_attached(pool)

    def on_queued(self, request: Request, now: float) -> None:
        """It waits, and nothing is known of it."""
        self._prefixes.on_queued(request, now)
        self._clients.enter(request)

    def on_scheduled(self, request: Request, now: float) -> None:
        """Whoever waits gets the refills that were due; what was not found of its prompt is charged."""
        if self.deficits.refills_needed(request.tenant):
            tenants = self._clients.waiting()                 # its own is one of them, and the first unless it moved in
            due = min(self.deficits.refills_needed(tenant) for tenant in tenants)
            for tenant in tenants:
                self.deficits.refill(tenant, due)
        self._clients.leave(request)
        self._prefixes.on_scheduled(request, now)
        if self._clients.owes_prompt(request):
            self.deficits.charge(request.tenant, len(request.prompt) - min(request.computed, len(request.prompt)), 0)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """Output is charged as it comes."""
        if delivered:
            self.deficits.charge(request.tenant, 0, delivered)

    def on_preempted(self, request: Request, now: float) -> None:
        """It waits again; its prompt is paid."""
        self._prefixes.on_preempted(request, now)
        self._clients.enter(request)

    def on_done(self, request: Request, now: float) -> None:
        """Forget the request, keep the client's deficit."""
        self._prefixes.on_done(request, now)
        self._clients.leave(request)
        self._clients.forget(request)
