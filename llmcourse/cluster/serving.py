"""Serving on drivers whose engines are real: replay a workload, complete prompts, or stream what clients are sent.

All three let the driver advance until it is idle; which world that is, one process or a cluster, they cannot tell.
Weeks 7 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from llmcourse.cluster.instance import Delivery, Instance
from llmcourse.cluster.link import NEVER
from llmcourse.engine.replay import Requests, in_order
from llmcourse.engine.request import Request, SamplingParams

if TYPE_CHECKING:
    from llmcourse.metrics.table import Table
    from llmcourse.workload.arrival import Arrival


class Server(Protocol):
    """The driver that `Serving` is mixed into; ``news`` is what clients have been sent since anybody looked."""

    instances: dict[int, Instance]
    news: list[Delivery]

    @property
    def now(self) -> float:
        """Seconds of the cluster's clock."""
        ...

    @property
    def idle(self) -> bool:
        """Nothing is left to do."""
        ...

    @property
    def num_requests(self) -> int:
        """Requests that have ever come."""
        ...

    def add(self, request: Request) -> Request:
        """Take a request."""
        ...

    def advance(self, until: float = NEVER) -> bool:
        """Let something happen, at most until then."""
        ...

    def finish(self) -> None:
        """Serve until nothing is left to do."""
        ...

    def table(self) -> Table:
        """One row a request."""
        ...

    def tokens(self, request_id: str) -> list[int]:
        """What a client has been sent so far."""
        ...


class Serving:
    """Three ways to serve, for a driver of real engines."""

    def run(self: Server, workload: Iterable[Arrival], *, seed: int = 0,
            progress: Callable[[int], None] | None = None) -> Table:
        """Serve a workload, whose times count from now; arguments as for `engine.replay`."""
        requests, start = Requests(None, seed), self.now
        vocabulary = next(iter(self.instances.values())).engine.executor.limits.vocab_size
        for arrival in in_order(workload):
            time = start + arrival.time
            while self.now < time:
                self.advance(time)
            self.add(requests.make(arrival, time, vocabulary))
            if progress:
                progress(self.num_requests)
        self.finish()
        return self.table()

    def finish(self: Server) -> None:
        """Serve until nothing is left to do."""
        while not self.idle:
            self.advance()

    def generate(self: Server, prompts: Sequence[str | Sequence[int]],
                 sampling: SamplingParams | None = None) -> list[list[int]]:
        """Serve all prompts together; the new tokens of each, in the order given."""
        engine = next(iter(self.instances.values())).engine
        requests = [self.add(Request(engine.tokens_of(prompt), sampling or SamplingParams())) for prompt in prompts]
        self.finish()
        return [self.tokens(request.id) for request in requests]

    def stream(self: Server) -> Iterator[Delivery]:
        """Serve until idle, yielding what clients are sent; requests may be added and moved meanwhile."""
        while not self.idle or self.news:
            self.advance()
            news, self.news = self.news, list[Delivery]()
            yield from news
