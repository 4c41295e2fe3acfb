"""The gateway: keeps what each client asked and has been sent, and lets nothing through twice or out of order.

Instances come and go, and a request moves between them; its client holds one stream. The gateway knows of each request
its prompt, the tokens delivered so far and where it lives. Tokens come with their position: one that was there
already is dropped, a gap is a fault. What it keeps is enough to begin anywhere again. A request under which one
instance after the other dies is suspected of killing them, and given up. Weeks 7 and 11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from llmcourse.cluster.instance import Delivery
from llmcourse.engine.request import Request
from llmcourse.engine.snapshot import Snapshot

NOWHERE = -1                                                  # the owner of a request that waits for an instance
MOST_DEATHS = 3                                               # of instances, one after the other, without a new token


@dataclass
class Stream:
    """One client's request: what it asked, what it has been sent, where it lives, and how it ended."""

    asked: Snapshot
    owner: int
    output: list[int] = field(default_factory=list)
    reason: str | None = None                                 # "stop", "length", or why it failed
    repeated: int = 0                                         # tokens that came twice and were dropped
    deaths: int = 0                                           # of instances it lived on, since its last token

    def snapshot(self) -> Snapshot:
        """What is needed to go on behind the last token delivered, with no KV."""
        return replace(self.asked, output=tuple(self.output)).without_kv()


class Gateway:
    """All streams, by request id. ``ended`` is told of each that ends, and with how many tokens."""

    def __init__(self, ended: Callable[[str, int], None] | None = None) -> None:
        self.streams: dict[str, Stream] = {}
        self.ended = ended or (lambda request_id, tokens: None)

    def opened(self, request: Request, instance: int) -> None:
        """A request has been sent to an instance; so have its siblings."""
        for answer in request.siblings or (request,):
            asked = replace(Snapshot.of(answer), output=(), computed=0)
            self.streams[answer.id] = Stream(asked, instance)

    def moved(self, request_id: str, instance: int) -> None:
        """It lives elsewhere now."""
        if request_id in self.streams:
            self.streams[request_id].owner = instance

    def hear(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Take what an instance has sent; returns what is new to the clients."""
        news = []
        for delivery in deliveries:
            stream = self.streams.get(delivery.request_id)
            if stream is None or stream.reason is not None:
                continue
            if delivery.reason is not None:
                stream.reason = delivery.reason
                self.ended(delivery.request_id, len(stream.output))
                news.append(delivery)
                continue
            have = len(stream.output)
            if delivery.position > have:
                raise RuntimeError(f"request {delivery.request_id}: token {delivery.position} came after {have} tokens")
            new = delivery.tokens[have - delivery.position:]
            stream.repeated += len(delivery.tokens) - len(new)
            stream.output += new
            if new:
                stream.deaths = 0
                news.append(Delivery(delivery.request_id, have, new))
        return news

    def orphaned(self, request_id: str) -> str:
        """The instance it lived on has died; returns why it should not be tried again, or nothing."""
        stream = self.streams[request_id]
        stream.deaths += 1
        if stream.deaths < MOST_DEATHS:
            return ""
        return f"{stream.deaths} instances have died under it without giving a token: it may be what kills them"

    def failed(self, request_id: str, reason: str, tokens: int = 0) -> None:
        """It ends here, and why; after so many ``tokens`` where no streams are kept."""
        stream = self.streams.get(request_id)
        if stream is not None:
            stream.reason, tokens = reason, len(stream.output)
        self.ended(request_id, tokens)

    def living_on(self, instance: int) -> list[Stream]:
        """Streams whose request lives on an instance and has not ended."""
        return [stream for stream in self.streams.values() if stream.owner == instance and stream.reason is None]

    @property
    def open_streams(self) -> int:
        """How many have not ended."""
        return sum(stream.reason is None for stream in self.streams.values())
