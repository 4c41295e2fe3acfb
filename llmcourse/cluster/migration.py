"""One migration: which order is due, and what to do when it cannot be carried out. No input or output.

Whoever runs it carries out `order` and tells how it went: `answered`, `refused`, `lost`. What was begun is undone in
one place, whatever the method and the stage: if something was reserved, the destination drops it; if the request had
stopped, the source resumes it. The rule behind it: until `Adopt` has been answered the request belongs to the source,
from then on to the destination, and never to both or nobody. Sun et al., 2024 (Llumnix). Week 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmcourse.cluster.methods import METHODS, GiveUp, Terms
from llmcourse.cluster.orders import Adopt, Copy, Drop, Order, Reserve, Resume, Stop
from llmcourse.errors import UserError

SIDES = ("source", "destination")


@dataclass(frozen=True)
class Stage:
    """An order that has been carried out between two moments (s), and the bytes it carried."""

    order: Order
    start: float
    end: float
    bytes: int = 0


class Migration:
    """A request on its way from instance ``source`` to instance ``destination`` by one of `METHODS`.

    ``order`` is what is to be carried out now (None: it is over), ``turn`` counts orders. ``outcome`` is "moved",
    "aborted" or None while it lasts; ``reason`` says why it was aborted. Times are in seconds.
    """

    def __init__(self, request_id: str, source: int, destination: int, terms: Terms, method: str = "live",
                 now: float = 0.0) -> None:
        if method not in METHODS:
            raise UserError(f"no way to move a request called {method!r}; there are {', '.join(METHODS)}")
        if source == destination:
            raise UserError(f"request {request_id!r} is on instance {source} already")
        self.request_id, self.source, self.destination, self.method = request_id, source, destination, method
        self.begun = self.since = now
        self.ended: float | None = None
        self.outcome: str | None = None
        self.reason = ""
        self.stages: list[Stage] = []
        self.committed = False                                # the destination has adopted it
        self._reserved = self._stopped = False
        self._alive = dict.fromkeys(SIDES, True)
        self._cancelled = ""
        self._script = METHODS[method](terms)
        self._undo: list[Order] | None = None                 # what is left to undo, once it is being aborted
        self.turn = 0
        self.order: Order | None = next(self._script)

    # ---- how it went ---------------------------------------------------------------------------------------------

    def answered(self, answer: Any, now: float, size: int = 0) -> None:
        """The order was carried out by ``now``, with this answer; ``size`` bytes were carried for it."""
        order = self.order
        assert order is not None, "a migration that is over gives no orders"
        self.stages.append(Stage(order, self.since, now, size))
        self._reserved = self._reserved or isinstance(order, Reserve)
        self._stopped = self._stopped or isinstance(order, Stop)
        self.committed = self.committed or isinstance(order, Adopt)
        if not self.withdrawn(now):
            self._go_on(answer, now)

    def refused(self, reason: str, now: float) -> None:
        """The side that was asked will not do it."""
        if self.committed or self._undo is not None:          # what was to be undone is undone already
            self._go_on(None, now)
        else:
            self._abort(reason, now)

    def lost(self, side: str, now: float) -> None:
        """The ``source`` or the ``destination`` is dead."""
        self._alive[side] = False
        if self.order is None:
            return
        if self.committed or self._undo is not None:
            if not self._possible(self.order):
                self._go_on(None, now)
        else:
            self._abort(f"the {side} is lost", now)

    def cancel(self, reason: str) -> None:
        """Abort before the next order is carried out; too late once it is committed."""
        self._cancelled = self._cancelled or reason

    def withdrawn(self, now: float) -> bool:
        """Abort it if it was cancelled and can still be; to be asked before an order is carried out."""
        due = bool(self._cancelled) and not self.committed and self._undo is None
        if due:
            self._abort(self._cancelled, now)
        return due

    # ---- what is said of it ----------------------------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        """Bytes of KV carried so far."""
        return sum(stage.bytes for stage in self.stages)

    @property
    def stopped_at(self) -> float | None:
        """When the request was taken out of the batch (s); None: not yet."""
        return next((stage.end for stage in self.stages if isinstance(stage.order, Stop)), None)

    @property
    def downtime(self) -> float | None:
        """Seconds for which the request lived nowhere: from being stopped until it could go on, here or there."""
        again = next((stage.end for stage in self.stages if isinstance(stage.order, (Adopt, Resume))), None)
        return None if again is None or self.stopped_at is None else again - self.stopped_at

    @property
    def copies(self) -> list[Stage]:
        """The stages in which KV was carried."""
        return [stage for stage in self.stages if isinstance(stage.order, Copy)]

    def __repr__(self) -> str:
        state = self.outcome or (self.order.name if self.order else "")
        return (f"<Migration of {self.request_id} from {self.source} to {self.destination}, {self.method}: {state}"
                + (f", {self.reason}>" if self.reason else ">"))

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _go_on(self, answer: Any, now: float) -> None:
        try:
            order = (self._script.send(answer) if self._undo is None
                     else self._undo.pop(0) if self._undo else None)
        except StopIteration:
            order = None
        except GiveUp as reason:
            self._abort(str(reason), now)
            return
        self._give(order, now)

    def _give(self, order: Order | None, now: float) -> None:
        if order is not None and not self._possible(order):   # the last, of a side that died when all but this was done
            order = None
        self.order, self.since, self.turn = order, now, self.turn + 1
        if order is None:
            self.ended = now
            self.outcome = "moved" if self.committed else "aborted"

    def _abort(self, reason: str, now: float) -> None:
        self.reason = reason
        undo: list[Order] = [Drop()] * self._reserved + [Resume()] * self._stopped
        self._undo = [order for order in undo if self._possible(order)]
        self._script.close()
        self._give(self._undo.pop(0) if self._undo else None, now)

    def _possible(self, order: Order) -> bool:
        return all(self._alive[side] for side in SIDES if getattr(order, side))
