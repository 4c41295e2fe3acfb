"""A closed loop: a fixed number of users, each of whom asks again only after having been answered.

The load then depends on the service: a slow one is asked less often, so its queue never grows and its latency looks
harmless. That is how many load testers work, and why their curves do not bend; an open loop shows the queue. Week 3.
"""

from dataclasses import dataclass, field

import numpy as np

from llmcourse.errors import UserError
from llmcourse.workload.arrival import Arrival
from llmcourse.workload.generate import generator
from llmcourse.workload.lengths import Lengths
from llmcourse.workload.processes import Renewal
from llmcourse.workload.slo import SLO


@dataclass
class ClosedLoop:
    """`users` users who think, ask, wait for the answer, and think again, until `count` requests have been made.

    ``think`` is a number of seconds, or a renewal process whose gaps are the times of thinking (``Poisson(1 / 20)``:
    20 seconds on average). Everybody thinks before the first request. Whoever plays it calls `start` once and `after`
    each time one of its requests has finished.
    """

    users: int
    think: float | Renewal
    prompts: Lengths
    outputs: Lengths
    seed: int
    count: int
    tenant: str = ""
    slo: SLO | None = None
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)
    _left: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise UserError for a loop that cannot turn."""
        if self.users < 1 or self.count < 0:
            raise UserError(f"a closed loop of {self.users} users and {self.count} requests; need 1 user, 0 requests")
        if not isinstance(self.think, Renewal) and not 0 <= self.think < float("inf"):
            raise UserError(f"a think time of {self.think} s; it must be 0 or more")
        self.start()

    def start(self) -> list[Arrival]:
        """The first request of each user, sorted by time. Starts over: the same seed plays the same requests."""
        self._rng, self._left = generator(self.seed), self.count
        first = [self.after(0.0) for _ in range(self.users)]
        return sorted((arrival for arrival in first if arrival), key=lambda arrival: arrival.time)

    def after(self, now: float) -> Arrival | None:
        """What the user asks next whose request finished at `now` (s); None when all `count` have been made."""
        if not self._left:
            return None
        self._left -= 1
        pause = float(self.think.gaps(self._rng, 1)[0]) if isinstance(self.think, Renewal) else float(self.think)
        prompt, output = self.prompts.sample(self._rng, 1), self.outputs.sample(self._rng, 1)
        return Arrival(now + pause, int(prompt[0]), int(output[0]), self.tenant, slo=self.slo)
