"""Time, passed in: nobody in the engine asks the operating system what time it is.

With a `VirtualClock` a step lasts as long as the executor says, so a run can be repeated to the last digit and may be
far faster than real time. Weeks 2 and 3.
"""

from time import perf_counter, sleep, time
from typing import Protocol


class Clock(Protocol):
    """Seconds since some start."""

    @property
    def now(self) -> float:
        """Seconds since the start."""
        ...

    def advance(self, seconds: float) -> None:
        """A step of this length has just been executed."""
        ...

    def advance_to(self, time: float) -> None:
        """Nothing happens until ``time`` seconds: wait for it, or skip to it."""
        ...


class WallClock:
    """Real time, from 0 when it is made, or from an ``epoch`` (`time.time`) that several processes share.

    Executing a step has already taken its time.
    """

    def __init__(self, epoch: float | None = None) -> None:
        self._start = perf_counter() - (0.0 if epoch is None else time() - epoch)

    @property
    def now(self) -> float:
        """Seconds since this clock was made, or since the epoch."""
        return perf_counter() - self._start

    def advance(self, seconds: float) -> None:
        """Real time has passed by itself."""

    def advance_to(self, time: float) -> None:
        """Sleep until then."""
        sleep(max(0.0, time - self.now))


class VirtualClock:
    """Time that passes only when told."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; ValueError when negative."""
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} s")
        self.now += seconds

    def advance_to(self, time: float) -> None:
        """Skip to a later moment; ValueError for an earlier one."""
        if time < self.now:
            raise ValueError(f"time cannot go back from {self.now} s to {time} s")
        self.now = time
