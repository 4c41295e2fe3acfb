"""Virtual token counter: fair shares among tenants, at no cost in throughput.

A counter for each tenant adds up the service it got: its prompt when it is scheduled, each output token as it is
delivered, weighted by what they cost. Whoever is admitted next belongs to the tenant with the smallest counter. A
tenant that comes back after a pause is lifted to the level of those who are waiting: time not used is not saved up.
Then two tenants who both keep waiting never differ by more than 2 max(w_p L, w_q M) of service, L the longest prompt
and M the tokens that those admitted together may come to hold, whatever they send. Sheng et al., 2024 (VTC). Week 5.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import ceil

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.policies.clients import Clients


class VTC(Policy):
    """Order by the tenant's counter, ties by arrival; not preemptive.

    ``weights``: a tenant of weight 2 is due twice the service (default 1). Recomputing lost KV is not charged: it is no
    service to the tenant.
    """

    static = False

    def __init__(self, input_weight: float = 1, output_weight: float = 2,
                 weights: Mapping[str, float] | None = None) -> None:
        self.weights = dict(weights or {})
        bad = [tenant for tenant, weight in self.weights.items() if not weight > 0]
        if not (input_weight >= 0 and output_weight > 0) or bad:
            raise UserError(f"input_weight {input_weight}, output_weight {output_weight}, weights {self.weights}: an "
                            "output token and a tenant must weigh more than 0, an input token at least 0")
        self.input_weight, self.output_weight = input_weight, output_weight
        self.counters: dict[str, float] = {}         # weighted service by tenant, lifts included
        self._level: dict[str, float] = {}           # counter at the last lift
        self._inputs: Counter[str] = Counter()       # tokens since then: whole numbers, so that many small charges
        self._outputs: Counter[str] = Counter()      # and one large one come to the same counter, bit for bit
        self._clients = Clients()
        self._last_to_leave: str | None = None       # the tenant whose request left the queue last

    def key(self, request: Request, now: float) -> float:
        """The tenant's counter."""
        return self.counters[request.tenant]

    def on_queued(self, request: Request, now: float) -> None:
        """Lift a tenant who had nobody waiting."""
        self._enter(request)

    def on_scheduled(self, request: Request, now: float) -> None:
        """The prompt is charged as soon as it is let in, before the next is chosen."""
        self._exit(request)
        if self._clients.owes_prompt(request):
            self._charge(request.tenant, len(request.prompt), 0)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """Output is charged as it is delivered: nobody needs to know how long it will be."""
        if delivered:
            self._charge(request.tenant, 0, delivered)

    def on_preempted(self, request: Request, now: float) -> None:
        """It waits again: where nobody of its tenant has waited so far, the tenant asked for no more than it got."""
        self._enter(request)

    def on_done(self, request: Request, now: float) -> None:
        """Forget the request, keep the counter."""
        self._exit(request)
        self._clients.forget(request)

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Until the counter of another waiting tenant may fall below the first one's."""
        tenants = self._clients.waiting()
        if len(tenants) < 2:
            return FOREVER
        decoding = Counter(request.tenant for request in running if request.pending == 1)
        pace = {tenant: self.output_weight * decoding[tenant] / self.weights.get(tenant, 1) for tenant in tenants}
        first = min(tenants, key=self.counters.__getitem__)
        steps: float = FOREVER
        for other in tenants:
            if pace[other] < pace[first]:
                ahead = self.counters[other] - self.counters[first]
                steps = min(steps, ceil(ahead / (pace[first] - pace[other])) - 2)
            elif pace[other] > pace[first] and self.counters[other] <= self.counters[first]:
                return 0
        return max(0, int(steps))

    def _lift(self, tenant: str) -> None:
        others = [self.counters[other] for other in self._clients.waiting()]
        if not others and self._last_to_leave is not None:
            others = [self.counters[self._last_to_leave]]
        counter = self.counters.setdefault(tenant, 0.0)
        if others and min(others) > counter:
            self.counters[tenant] = self._level[tenant] = min(others)
            self._inputs[tenant] = self._outputs[tenant] = 0

    def _charge(self, tenant: str, inputs: int, outputs: int) -> None:
        self._inputs[tenant] += inputs
        self._outputs[tenant] += outputs
        service = self.input_weight * self._inputs[tenant] + self.output_weight * self._outputs[tenant]
        self.counters[tenant] = self._level.get(tenant, 0.0) + service / self.weights.get(tenant, 1)

    def _enter(self, request: Request) -> None:
        if not self._clients.waits(request.tenant):
            self._lift(request.tenant)
        self._clients.enter(request)

    def _exit(self, request: Request) -> None:
        if self._clients.leave(request):
            self._last_to_leave = request.tenant
