"""The books of a run too big for an event log: one row of numbers a request, one number a step.

A million requests of two hundred tokens are two hundred million events; nobody reads them one by one. The ledger hears
what the scheduler says while it happens (it is an engine `Journal`) and keeps what the metrics need: it gives the same
table as the event log of the same run would have given, in about 200 bytes a request. Week 3.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from llmcourse.metrics.table import COLUMNS, COUNTS, Table

if TYPE_CHECKING:
    import numpy as np

    from llmcourse.engine.log import StepReport, Stretch
    from llmcourse.engine.request import Request

NAN = float("nan")
REASONS = ("", "stop", "length", "abort", "shed")
NUMBERS = ("row", "priority", "arrival", "queue_time", "prefill_time", "decode_time", "preempted_time", "ttft", "tpot",
           "e2e", "prompt_tokens", "output_tokens", "preemptions", "finish_reason", "ttft_slo", "tpot_slo")


class _Life:
    """What is known of a request that still lives; times in seconds, NaN before they come about."""

    __slots__ = ("before", "between", "first", "last", "late", "late_at", "lost_at", "preemptions", "request", "row",
                 "scheduled")

    def __init__(self, row: int, request: Request) -> None:
        self.row, self.request, self.preemptions = row, request, 0
        self.scheduled = self.first = self.last = self.lost_at = NAN
        self.before = self.between = 0.0            # seconds preempted before the first token, and between two
        self.late, self.late_at = 0.0, 0            # and since the last, which was the ``late_at``-th

    def settle(self) -> None:
        """A token has come since it was preempted: then that was before the first, or between two."""
        if self.late and self.request.num_output > self.late_at:
            if self.late_at:
                self.between += self.late
            else:
                self.before = self.late
            self.late = 0.0


class Ledger:
    """A `Journal` that keeps rows instead of events; `table` turns them into a `Table` at any time."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._tenants: list[str] = []
        self._lives: dict[str, _Life] = {}
        self._numbers = array("d")                  # NUMBERS of every request that has ended, one after the other
        self._gaps, self._gap_counts = array("d"), array("q")
        self.busy = 0.0                             # seconds in which a step was running
        self._firsts: list[tuple[str, float | None]] | None = None        # None: nobody asks for them

    # ---- what the scheduler says -----------------------------------------------------------------------------------

    def queued(self, request: Request) -> None:
        """Open a row."""
        self._lives[request.id] = _Life(len(self._ids), request)
        self._ids.append(request.id)
        self._tenants.append(request.tenant)

    def scheduled(self, request: Request, time: float, restored: int) -> None:
        """End of waiting, or of being preempted."""
        life = self._lives[request.id]
        if life.scheduled != life.scheduled:        # NaN: the first time
            life.scheduled = time
        else:
            life.settle()
            if life.lost_at == life.lost_at:        # NaN: it had not given way, its instance has died
                life.late += time - life.lost_at
                life.late_at = request.num_output
                life.lost_at = NAN

    def preempted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """Start of being preempted."""
        life = self._lives[request.id]
        life.lost_at = time
        life.preemptions += 1

    def parked(self, request: Request, time: float) -> None:
        """Start of being preempted, whatever becomes of its KV."""
        self.preempted(request, time, (), request.computed)

    def evicted(self, request: Request, time: float, freed: Sequence[int], saved: int | None) -> None:
        """Nothing: it waits as it did."""

    def stepped(self, step: StepReport) -> None:
        """Only how long it took."""
        self.busy += step.end - step.start

    def delivered(self, requests: Sequence[Request], time: float, last: float | None = None) -> None:
        """First tokens begin a life of gaps; equal gaps are written once, with their number.

        ``last`` is when each of them got the last of several tokens, of which the first came at ``time``.
        """
        last = time if last is None else last
        lives, before, count = self._lives, NAN, 0
        for request in requests:
            life = lives[request.id]
            if life.last == before:
                count += 1
            elif life.first == life.first:
                self._write_gap(time - before, count)
                before, count = life.last, 1
            else:
                life.first = time
                if self._firsts is not None:
                    self._firsts.append((request.id, time))
            life.last = last
        self._write_gap(time - before, count)

    def jumped(self, stretch: Stretch) -> None:
        """The first gap of each request, then one gap a step that all of them share."""
        ends, decoding = stretch.ends, stretch.decoding
        self.delivered(decoding, ends[0], ends[-1])
        if decoding:
            self._gaps.extend([after - before for before, after in pairwise(ends)])
            self._gap_counts.extend([len(decoding)] * (len(ends) - 1))
        self.busy += ends[-1] - stretch.start

    def finished(self, request: Request, time: float) -> None:
        """Close the row."""
        self._numbers.extend(_numbers(self._lives.pop(request.id), request.finish_reason or ""))

    def aborted(self, request: Request, time: float, reason: str | None) -> None:
        """Close the row."""
        self._numbers.extend(_numbers(self._lives.pop(request.id), "abort" if reason is None else "shed"))
        if self._firsts is not None:
            self._firsts.append((request.id, None))

    def migrating(self, request: Request, time: float, stage: str, blocks: Sequence[int]) -> None:
        """Its life goes on, in this ledger if both instances write into it: the newcomer is heard from now on."""
        if stage == "adopted" and request.id in self._lives:
            self._lives[request.id].request = request

    # ---- what it has to say ----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Requests that have been queued."""
        return len(self._ids)

    def ended(self, request_ids: Iterable[str]) -> set[str]:
        """Those of these requests that have ended, on whatever instance."""
        return ({*request_ids} - self._lives.keys()).intersection(self._ids)

    def take_firsts(self) -> list[tuple[str, float | None]]:
        """Who has had a first token since the last call, and when (s; None: sent away); kept from the first call on."""
        taken, self._firsts = self._firsts or [], []
        return taken

    def table(self) -> Table:
        """One row a request in order of arrival, those included that still live."""
        import numpy as np
        alive = array("d")
        for life in self._lives.values():
            alive.extend(_numbers(life, ""))
        numbers = np.concatenate([np.array(self._numbers), np.array(alive)]).reshape(-1, len(NUMBERS))
        numbers = numbers[np.argsort(numbers[:, 0])]
        return Table({name: self._column(name, numbers) for name in COLUMNS}, np.array(self._gaps),
                     np.array(self._gap_counts))

    def _column(self, name: str, numbers: np.ndarray) -> np.ndarray:
        import numpy as np
        if name in ("id", "tenant"):
            return np.array(self._ids if name == "id" else self._tenants, dtype=str)
        values = numbers[:, NUMBERS.index(name)]
        if name == "finish_reason":
            return np.array(REASONS)[values.astype(int)] if len(values) else np.array([], dtype=str)
        return values.astype(np.int64) if name in COUNTS else values.copy()

    def _write_gap(self, gap: float, count: int) -> None:
        if count:
            self._gaps.append(gap)
            self._gap_counts.append(count)


def _numbers(life: _Life, reason: str) -> tuple[float, ...]:
    """NUMBERS of one request, by the rules of `records`: NaN runs through whatever did not come about."""
    life.settle()
    request, first, last = life.request, life.first, life.last
    arrival, slo, output = request.arrival or 0.0, request.slo, request.num_output
    return (life.row, request.priority, arrival, life.scheduled - arrival, first - (life.scheduled + life.before),
            last - first - life.between, life.before + life.between + life.late, first - arrival,
            (last - first) / (output - 1) if output > 1 else NAN, last - arrival,
            len(request.prompt), output, life.preemptions, REASONS.index(reason),
            NAN if slo is None or slo.ttft is None else slo.ttft, NAN if slo is None or slo.tpot is None else slo.tpot)
