"""S3: reserve memory for what a predictor expects, throw out whoever overruns, and let it come back with twice as much.

Memory that must lie in one piece is reserved before the length is known. With the model's maximum few requests fit at
once; with the predicted bucket many do, and now and then one says more than was foreseen. It loses its KV, is queued
again, and computes it a second time under a doubled allowance. Paging (week 6) makes the question disappear: a block is
taken when it is needed, so a prediction has nothing to save. Here requests go in order of arrival; the paper also packs
the largest first, and trains its predictor on what it got wrong. Jin et al., 2023 (S3). Week 9.
"""

from collections.abc import Hashable, Sequence
from math import ceil

from llmcourse.engine.admission import Admission
from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request
from llmcourse.engine.scheduler import Scheduler
from llmcourse.errors import UserError
from llmcourse.kv.predicted_pool import PredictedPool
from llmcourse.policies.sjf import expected_output


class S3(Policy):
    """First come, first served, into memory reserved by prediction; whoever overruns is the victim.

    An engine needs three things of it: the policy, its `pool`, and its `admission`. ``bucket`` is what predictions are
    rounded up to, in tokens. ``overruns`` is how often somebody was thrown out for it. In any other memory it is FCFS.
    """

    def __init__(self, bucket: int = 64) -> None:
        if not bucket >= 1:
            raise UserError(f"bucket is {bucket} tokens; predictions are rounded up to a multiple of at least 1")
        self.bucket, self.overruns = bucket, 0
        self.allowed: dict[Hashable, int] = {}           # tokens a request may hold, its prompt included, by id

    def pool(self, num_blocks: int, block_size: int = 16, fit: str = "first") -> PredictedPool:
        """Memory in which everybody has room for what it is allowed."""
        return PredictedPool(num_blocks, block_size, self.allowed, fit)

    def admission(self) -> Admission:
        """Holds the first of the waiting until what it is allowed finds room."""
        return _Reserved()

    def overrun(self, request: Request) -> bool:
        """Whether it has said more than it is allowed to keep."""
        return len(request.tokens) > self.allowed[request.id]

    def victim(self, running: Sequence[Request], now: float) -> Request:
        """The last of those who overran, or else the last."""
        return next(filter(self.overrun, reversed(running)), running[-1])

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
