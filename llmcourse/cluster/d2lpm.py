"""D2LPM: a client's requests go where their beginning is cached, until it has used up its share of that instance.

Sending by prefix alone crowds everybody who shares a popular prompt onto one instance; sending by load alone computes
each prompt everywhere. Here every client has a deficit on every instance. A request goes to the instance that has most
of its prompt, of those on which its client has something left to spend, and of equals to the one with the fewest
requests; when the client has spent all, it gets a quantum on each. On the instances DLPM does the same between clients.
Cao et al., 2025 (D2LPM). Week 10.

What has been sent where is the dispatcher's own note, not a report: `choose` only reads it, so the same question has
the same answer until the driver says that a request was sent, or has ended. It is a guess of what the caches hold, and
lost with its process: a new one starts empty and does no harm. Of an instance that is gone nothing is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence, Set

from llmcourse.cluster.dispatch import Dispatcher
from llmcourse.cluster.report import LoadReport
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.policies.deficits import Deficits


class D2LPM(Dispatcher):
    """``quantum`` of weighted tokens for each client and instance; prompts are compared by pieces of ``piece`` tokens.

    A prompt is charged when it is sent, but for what its instance should have of it; the output when it has ended.
    """

    def __init__(self, quantum: float = 5000, input_weight: float = 1, output_weight: float = 2,
                 piece: int = 64) -> None:
        if piece < 1:
            raise UserError(f"pieces of {piece} tokens; a prompt is compared by at least 1 token at a time")
        self.deficits, self.piece = Deficits(quantum, input_weight, output_weight), piece
        self._caches: dict[int, OrderedDict[int, None]] = {}          # pieces by instance, least recently sent first
        self._under_way: dict[str, tuple[str, int]] = {}              # client and instance, by request id

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        """The longest match where there is something left to spend, then the least loaded."""
        pieces = list(self._pieces(request))
        return min(reports, key=lambda report: (
            self.deficits.refills_needed((request.tenant, report.instance)), -self._matched(pieces, report.instance),
            report.requests)).instance

    def sent(self, request: Request, instance: int, reports: Sequence[LoadReport]) -> None:
        """The client gets the quanta that were due on every instance, and pays for what must be computed there."""
        self._look_who_is_there({report.instance for report in reports})
        needed = self.deficits.refills_needed((request.tenant, instance))
        for report in reports if needed else ():
            self.deficits.refill((request.tenant, report.instance), needed)
        pieces = list(self._pieces(request))
        found = self._matched(pieces, instance) * self.piece
        self.deficits.charge((request.tenant, instance), len(request.prompt) - found, 0)
        for answer in request.siblings or (request,):
            self._under_way[answer.id] = request.tenant, instance
        room = next(report.num_blocks * report.block_size for report in reports if report.instance == instance)
        self._remember(pieces, instance, room // self.piece)

    def done(self, request_id: str, output: int) -> None:
        """It is charged to whom it was sent for, wherever it ended, while the instance it was sent to is there."""
        pair = self._under_way.pop(request_id, None)
        if pair is not None and pair[1] in self._caches:
            self.deficits.charge(pair, 0, output)

    def matched(self, request: Request, instance: int) -> int:
        """Tokens of the prompt that the instance should have, by what has been sent there."""
        return self._matched(list(self._pieces(request)), instance) * self.piece

    def _pieces(self, request: Request) -> Iterator[int]:
        """A number for each whole piece of the prompt, which stands for all up to there."""
        so_far = 0
        for end in range(self.piece, len(request.prompt) + 1, self.piece):
            so_far = hash((so_far, *request.prompt[end - self.piece:end]))
            yield so_far

    def _look_who_is_there(self, here: Set[int]) -> None:
        """Begin a cache for who is new, and forget who is gone: its number is never given again."""
        gone = self._caches.keys() - here
        for instance in gone:
            del self._caches[instance]
        if gone:
            self.deficits.forget(lambda pair: isinstance(pair, tuple) and pair[1] in gone)
        for instance in here - self._caches.keys():
            self._caches[instance] = OrderedDict()

    def _matched(self, pieces: Sequence[int], instance: int) -> int:
        cache: Container[int] = self._caches.get(instance, ())
        return next((number for number, piece in enumerate(pieces) if piece not in cache), len(pieces))

    def _remember(self, pieces: Sequence[int], instance: int, room: int) -> None:
        cache = self._caches[instance]
        for piece in reversed(pieces):                        # the beginning is what others are likelier to share
            cache[piece] = None
            cache.move_to_end(piece)
        while len(cache) > room:
            cache.popitem(last=False)
