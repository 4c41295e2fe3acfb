"""Learning to rank: a scheduler needs the order of lengths, not the lengths; and nobody is passed over for ever.

A small model gives each prompt a score, once, and everybody goes by score, whether it runs or waits. That starves the
long ones under load. So whoever has not been run for ``starve_after`` steps is promoted: it goes before all
who are not, and stays so until it has been run ``promoted_for`` steps. Idleness is counted in steps of the scheduler,
not in seconds. Fu et al., 2024, with the figures of their scripts. Week 9.

How long may anybody be idle? Say there are B slots and memory for B, batching is "mixed", what is to be computed for
whoever comes in fits whole into a step, and never more than m others live at once; T is ``starve_after`` and P is
``promoted_for``. A promoted request that waits is passed by promoted ones only. In each step that passes either one of
them takes a free slot or that of somebody not promoted, which happens once per promotion; or all B slots are run by
promoted ones, and a promotion is used up by P runs. So Q promotions hold it up for at most Q (1 + P/B) steps. Each
costs T idle steps, of which m others have at most m a step, and each has at most two in stock at the beginning: W steps
allow Q <= m (2 + W/T). Together, where a = m (1 + P/B) / T < 1,

    idle <= T + 2 a T / (1 - a)

With a of 1 or more there are too many to promise it to: promotions come faster than they are used up.
"""

from collections.abc import Collection, Sequence
from math import inf

from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.policies.sjf import expected_output


class LearningToRank(Policy):
    """Order by promotion, then by score (``request.predicted``: smaller is shorter), ties by arrival; preemptive."""

    static = False
    preemptive = True

    def __init__(self, starve_after: int = 200, promoted_for: int = 10) -> None:
        if not (starve_after >= 1 and promoted_for >= 1):
            raise UserError(f"starve_after is {starve_after} steps and promoted_for {promoted_for}; both are at least "
                            "1")
        self.starve_after, self.promoted_for = starve_after, promoted_for
        self.steps = 0                                   # of the scheduler, as far as it computed something
        self.promotions = 0
        self._score: dict[str, float] = {}
        self._last_run: dict[str, int] = {}              # the step it last ran in, or came before
        self._runs: dict[str, int] = {}                  # who is promoted, and for how many runs still
        self._filling: set[str] = set()                  # admitted, and no token since
        self._now, self._width = -1.0, 0                 # end of the latest step told of; how many ended then
        self._told: set[str] = set()                     # who ran in it

    def key(self, request: Request, now: float) -> tuple[bool, float]:
        """The promoted first, each kind by score; before them whoever is about to get its first token since it came in.

        A promotion that fills in several steps may be over before it has won anything.
        """
        name = request.id
        if self.idle(request) >= self.starve_after:
            self.promotions += name not in self._runs
            self._runs[name] = self.promoted_for
        if name in self._filling and request.pending == 1:
            return False, -inf
        return name not in self._runs, self._score[name]

    def idle(self, request: Request) -> int:
        """Steps since it was last run, or since it came."""
        return self.steps - self._last_run[request.id]

    def bound(self, slots: int, others: int) -> float | None:
        """The most steps anybody is idle, by the module's proof; None where it promises nothing."""
        share = others * (1 + self.promoted_for / slots) / self.starve_after
        return self.starve_after * (1 + 2 * share / (1 - share)) if share < 1 else None

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """Until somebody is promoted or has used up a promotion."""
        if all(request.id in self._filling for request in running):
            return 1                                     # nobody is handed a token, by which steps could be counted
        steps: int = FOREVER
        for request in (*running, *waiting):
            if request.id not in self._runs:
                steps = min(steps, self.starve_after - self.idle(request))
        return max(0, min([steps, *[self._runs[request.id] for request in running if request.id in self._runs]]))

    def on_queued(self, request: Request, now: float) -> None:
        """Its score, once and for all."""
        self._score[request.id] = expected_output(request)
        self._last_run[request.id] = self.steps

    def on_scheduled(self, request: Request, now: float) -> None:
        """It is being filled."""
        self._filling.add(request.id)

    def on_preempted(self, request: Request, now: float) -> None:
        """It waits, with its promotion."""
        self._filling.discard(request.id)

    def on_tokens(self, request: Request, count: int, delivered: int, now: float) -> None:
        """It has run; the first told of a step, or of a jump over several, counts them.

        In a jump whoever decodes is told of first, and has been handed a token in each step.
        """
        name = request.id
        if now != self._now or name in self._told:
            self._now, self._width = now, max(1, delivered)
            self.steps += self._width
            self._told.clear()
        self._told.add(name)
        self._last_run[name] = self.steps
        if delivered:
            self._filling.discard(name)
        if name in self._runs:
            self._runs[name] -= self._width
            if self._runs[name] <= 0:
                del self._runs[name]

    def on_done(self, request: Request, now: float) -> None:
        """Forget it."""
        for kept in (self._score, self._last_run, self._runs):
            kept.pop(request.id, None)
        self._filling.discard(request.id)
        self._told.discard(request.id)
