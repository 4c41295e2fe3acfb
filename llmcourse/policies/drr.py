"""Deficit round robin: clients in a ring, each served for a quantum of tokens, whatever its requests cost.

A client whose turn comes gets a quantum; it is served until it has spent it, then the next client's turn comes. What a
request costs shows only while it runs, so whoever has overdrawn its quantum is passed over until its refills have paid
the debt. Who leaves the queue loses what it has not spent, and pays its debts as the rounds go on without it: time not
used is not saved up, and nothing is refunded. While two clients wait all the time, neither is served more than 3 Q + 2
max(w_p L, w_q M) of service ahead of the other (L, M as for VTC): coarser than VTC's counters by the quantum, and a
turn costs no comparison of counters. Shreedhar and Varghese, 1995. Week 10.
"""

from collections.abc import Collection, Mapping, Sequence

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.policies.clients import Clients
from llmcourse.policies.deficits import Deficits


class DeficitRoundRobin(Policy):
    """Order by refills that the tenant needs, then by its place in the ring, then by arrival; not preemptive.

    ``quantum`` in weighted tokens, the length of a turn; ``weights``: a tenant of weight 2 gets twice as much a turn.
    When blocks run out, whoever is deepest in debt gives way.
    """

    static = False

    def __init__(self, quantum: float = 2000, input_weight: float = 1, output_weight: float = 2,
                 weights: Mapping[str, float] | None = None) -> None:
        self.deficits = Deficits(quantum, input_weight, output_weight, weights)
        self._ring: list[str] = []                   # all tenants, who is visited next first, whose turn it is last
        self._places: dict[str, int] = {}
        self._clients = Clients()

    def key(self, request: Request, now: float) -> tuple[int, int]:
        """Refills until it is the tenant's turn, and its place in the ring."""
        return self._turn(request.tenant)

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Until the first of the waiting tenants has spent what it had: all others only fall back."""
        tenants = self._clients.waiting()
        if len(tenants) < 2:
            return FOREVER
        first = min(tenants, key=self._turn)
        return self.deficits.steady_steps(first, sum(r.tenant == first for r in running))

    # ---- what it is told -------------------------------------------------------------------------------------------

    def on_queued(self, request: Request, now: float) -> None:
        """A tenant seen for the first time takes the last place in the ring."""
        if request.tenant not in self._places:
            self._places[request.tenant] = len(self._ring)
            self._ring.append(request.tenant)
        self._clients.enter(request)

    def on_scheduled(self, request: Request, now: float) -> None:
        """The ring has turned to its tenant, who pays for the prompt."""
        needed = self.deficits.refills_needed(request.tenant)
        # Who comes from another instance may run before it is its tenant's turn; then the ring stands still.
        if needed and request.tenant == min(self._clients.waiting(), key=self._turn):
            self._turn_to(request.tenant, needed)
        self._clients.leave(request)
        if self._clients.owes_prompt(request):
            self.deficits.charge(request.tenant, len(request.prompt), 0)
        self._leave_if_empty(request.tenant)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """Output is charged as it comes."""
        if delivered:
            self.deficits.charge(request.tenant, 0, delivered)

    def on_preempted(self, request: Request, now: float) -> None:
        """It waits again; its prompt is paid."""
        self._clients.enter(request)

    def on_done(self, request: Request, now: float) -> None:
        """Forget the request, keep the tenant's deficit."""
        if self._clients.leave(request):
            self._leave_if_empty(request.tenant)
        self._clients.forget(request)

    # ---- the ring --------------------------------------------------------------------------------------------------

    def _turn(self, tenant: str) -> tuple[int, int]:
        return self.deficits.refills_needed(tenant), self._places[tenant]

    def _turn_to(self, tenant: str, rounds: int) -> None:
        """Refill everybody who is passed on the way; who does not wait may pay its debt, and keeps nothing."""
        place = self._places[tenant]
        for number, other in enumerate(self._ring):
            self.deficits.refill(other, rounds if number <= place else rounds - 1)
            if other != tenant and not self._clients.waits(other):
                self.deficits.forfeit(other)
        self._ring = self._ring[place + 1:] + self._ring[:place + 1]
        self._places = {other: number for number, other in enumerate(self._ring)}

    def _leave_if_empty(self, tenant: str) -> None:
        if not self._clients.waits(tenant):
            self.deficits.forfeit(tenant)
