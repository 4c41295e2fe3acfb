"""S3: reserve memory for what a predictor expects, throw out whoever overruns, and let it come back with twice as much.

Memory that must lie in one piece is reserved before the length is known. With the model's maximum few requests fit at
once; with the predicted bucket many do, and now and then one says more than was foreseen. It loses its KV, is queued
again, and computes it a second time under a doubled allowance. Paging (week 6) makes the question disappear: a block is
taken when it is needed, so a prediction has nothing to save.

In order of arrival, a request too large for the holes that are left keeps all behind it waiting, though a smaller one
would fit. ``packing`` fills memory as the paper does, by decreasing first fit: the largest that finds room goes first,
then the largest that finds room in what is left. Nobody is sure of a turn then: small ones wait while larger ones come,
and a large one while no hole is large enough. What is left out here: the paper also trains its predictor on what it got
wrong. Jin et al., 2023 (S3). Week 9.
"""

from collections.abc import Collection, Hashable, Sequence
from math import ceil

from llmcourse.engine.admission import Admission
from llmcourse.engine.policy import FOREVER, Policy
from llmcourse.engine.request import Request
from llmcourse.engine.scheduler import Scheduler
from llmcourse.errors import UserError
from llmcourse.kv.memory import Memory
from llmcourse.kv.predicted_pool import PredictedPool
from llmcourse.policies.sjf import expected_output


class S3(Policy):
    """First come, first served, into memory reserved by prediction; whoever overruns is the victim.

    An engine needs three things of it: the policy, its `pool`, and its `admission`. ``bucket`` is what predictions are
    rounded up to, in tokens; with ``packing`` the largest that fits goes first. ``overruns`` is how often somebody was
    thrown out for it. In any other memory it is FCFS.
    """

    def __init__(self, bucket: int = 64, packing: bool = False) -> None:
        if not bucket >= 1:
            raise UserError(f"bucket is {bucket} tokens; predictions are rounded up to a multiple of at least 1")
        self.bucket, self.packing, self.overruns = bucket, packing, 0
        self.static = not packing                        # who fits changes with every admission
        self.allowed: dict[Hashable, int] = {}           # tokens a request may hold, its prompt included, by id
        self._pool: PredictedPool | None = None

    def pool(self, num_blocks: int, block_size: int = 16, fit: str = "first") -> PredictedPool:
        """Memory in which everybody has room for what it is allowed."""
        return PredictedPool(num_blocks, block_size, self.allowed, fit)

    def admission(self) -> Admission:
        """Holds the first of the waiting until what it is allowed finds room."""
        return _Reserved()

    def overrun(self, request: Request) -> bool:
        """Whether it has said more than it is allowed to keep."""
        return len(request.tokens) > self.allowed[request.id]

    def key(self, request: Request, now: float) -> tuple[float, ...]:
        """The arrival; with packing, of those who wait first who finds room, and of these who is allowed most."""
        assert request.arrival is not None
        if not self.packing or self._pool is None or self._pool.table(request.id):
            return (request.arrival,)
        fits = self._pool.fits(request.id, len(request.tokens), request.max_cached)
        return not fits, -self.allowed[request.id]

    def steady_steps(self, running: Sequence[Request], waiting: Collection[Request]) -> int:
        """For ever: while nobody comes or goes room only shrinks, and of those who find none nobody is let in."""
        return FOREVER

    def victim(self, running: Sequence[Request], now: float) -> Request:
        """The last of those who overran, or else the last."""
        return next(filter(self.overrun, reversed(running)), running[-1])

    def on_attached(self, pool: Memory) -> None:
        """The memory to be packed, if it is one that is reserved by prediction."""
        self._pool = pool if isinstance(pool, PredictedPool) else None

    def on_queued(self, request: Request, now: float) -> None:
        """Prompt and predicted output, rounded up to buckets."""
        output = max(1, ceil(expected_output(request) / self.bucket)) * self.bucket
        self._allow(request, output)

    def on_preempted(self, request: Request, now: float) -> None:
        """Who overran may keep twice as much output, and so on until it has room for what it has said."""
        if not self.overrun(request):
            return
        self.overruns += 1
        output = max(self.bucket, self.allowed[request.id] - len(request.prompt))
        while output < request.num_output:
            output *= 2
        self._allow(request, output)

    def on_done(self, request: Request, now: float) -> None:
        """Forget it."""
        self.allowed.pop(request.id, None)

    def _allow(self, request: Request, output: int) -> None:
        self.allowed[request.id] = min(len(request.prompt) + output, request.max_cached)


class _Reserved(Admission):
    def hold(self, request: Request, scheduler: Scheduler, now: float) -> bool:
        """Whether there is no room yet for all it is allowed."""
        pool = scheduler.pool
        return isinstance(pool, PredictedPool) and not pool.fits(request.id, len(request.tokens), request.max_cached)
