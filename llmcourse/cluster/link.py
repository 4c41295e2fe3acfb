"""The network between instances: a speed, a delay, and everybody shares it.

A transfer gets ``bandwidth`` bytes a second as long as all of them together stay below ``total``; beyond, they share it
evenly. When one starts or ends, the others slow down or speed up. Weeks 7 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llmcourse.errors import UserError
from llmcourse.kinds import check_fields

NEVER = float("inf")
TENTH_BYTE = 0.1                         # a transfer with less to go is done: sums of floats are not exact


@dataclass(frozen=True)
class Link:
    """``bandwidth`` bytes/s of one transfer, ``latency`` seconds before anything arrives, ``total`` bytes/s of all.

    The default is a fast one: 64 Gb/s between machines, as in Llumnix's evaluation (Sun et al., 2024).
    """

    bandwidth: float = 8e9
    latency: float = 0.0002
    total: float | None = None

    def __post_init__(self) -> None:
        """Refuse a link that carries nothing."""
        check_fields(self)
        if not self.bandwidth > 0 or self.latency < 0 or (self.total is not None and not self.total > 0):
            raise UserError(f"a link of {self.bandwidth} bytes/s, {self.latency} s and {self.total} bytes/s in all "
                            "carries nothing; give bandwidths above 0 and a latency of at least 0")

    def seconds(self, size: int) -> float:
        """How long ``size`` bytes take when nobody else sends."""
        return self.latency + size / min(self.bandwidth, self.total or NEVER)


@dataclass
class _Transfer:
    left: float


@dataclass
class Traffic:
    """The transfers under way on a link, each known by a key; times (s) may only go forward."""

    link: Link
    _transfers: dict[object, _Transfer] = field(default_factory=dict)
    _now: float = 0.0

    @property
    def rate(self) -> float:
        """Bytes/s that each transfer gets now."""
        return min(self.link.bandwidth, (self.link.total or NEVER) / max(1, len(self._transfers)))

    def start(self, key: object, size: int, now: float) -> None:
        """Begin to send ``size`` bytes."""
        self._advance(now)
        self._transfers[key] = _Transfer(float(size))

    def end(self, key: object, now: float) -> None:
        """It has arrived, or is given up."""
        self._advance(now)
        self._transfers.pop(key, None)

    def next_end(self) -> tuple[float, object]:
        """When the first of them arrives, and its key; (inf, None) when nothing is under way."""
        if not self._transfers:
            return NEVER, None
        key = min(self._transfers, key=lambda k: self._transfers[k].left)
        left = self._transfers[key].left
        return self._now if left < TENTH_BYTE else self._now + left / self.rate, key

    def _advance(self, now: float) -> None:
        sent = self.rate * max(0.0, now - self._now)
        for transfer in self._transfers.values():
            transfer.left = max(0.0, transfer.left - sent)
        self._now = max(self._now, now)
