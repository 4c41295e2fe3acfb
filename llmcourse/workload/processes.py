"""When requests come: arrival processes, each an endless stream of times that somebody cuts at `count`.

A renewal process (Poisson, Gamma, Weibull, measured gaps) draws the time to the next arrival anew each time; its CV
(standard deviation / mean of the gaps) says how bursty it is at a given rate: 1 is Poisson, 0 a clock, 4 is rough. No
renewal process remembers that it is noon: slow drift and on/off phases need a rate that changes, which `OnOff` and
`Diurnal` draw and `RateSeries` copies from a trace. Weeks 3, 4 and 10.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmcourse.errors import UserError

CHUNK = 1 << 14  # arrivals drawn at once; part of what a seed means, so never an option


class Process:
    """An arrival process; `chunks` is what a subclass gives, the rest follows."""

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Arrival times in seconds, without end: sorted arrays, each going on where the last one stopped."""
        raise NotImplementedError

    def times(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """The first `count` arrival times in seconds, sorted."""
        parts, have = [np.empty(0)], 0
        chunks = self.chunks(rng)
        while have < count:
            parts.append(next(chunks))
            have += len(parts[-1])
        return np.concatenate(parts)[:count]


class Renewal(Process):
    """Gaps between arrivals that know nothing of each other; `gaps` is what a subclass gives."""

    def gaps(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`count` times between arrivals in seconds."""
        raise NotImplementedError

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Running sums of gaps."""
        now = 0.0
        while True:
            times = now + np.cumsum(self.gaps(rng, CHUNK))
            now = float(times[-1])
            yield times


@dataclass(frozen=True)
class Poisson(Renewal):
    """Independent arrivals at `rate` requests/s: exponential gaps, CV 1."""

    rate: float

    def __post_init__(self) -> None:
        """Raise UserError unless the rate is positive."""
        _positive("rate", self.rate)

    def gaps(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Exponential gaps."""
        return rng.exponential(1 / self.rate, count)


@dataclass(frozen=True)
class Gamma(Renewal):
    """Gamma gaps with mean 1/`rate` seconds and the given CV: above 1 bursty, below 1 regular."""

    rate: float
    cv: float = 1.0

    def __post_init__(self) -> None:
        """Raise UserError unless rate and CV are positive."""
        _positive("rate", self.rate)
        _positive("cv", self.cv)

    def gaps(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Gamma gaps of shape 1/CV^2."""
        shape = self.cv**-2
        return rng.gamma(shape, 1 / (self.rate * shape), count)


@dataclass(frozen=True)
class Weibull(Renewal):
    """Weibull gaps with mean 1/`rate` seconds and the given CV (0.05 to 20)."""

    rate: float
    cv: float = 1.0

    def __post_init__(self) -> None:
        """Raise UserError unless the rate is positive and the CV one that a Weibull shape is found for."""
        _positive("rate", self.rate)
        if not 0.05 <= self.cv <= 20:
            raise UserError(f"a Weibull process with CV {self.cv}; it must lie between 0.05 and 20")

    @property
    def shape(self) -> float:
        """The Weibull shape with this CV, by bisection: the CV falls as the shape rises."""
        low, high = 0.1, 30.0
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if _weibull_cv(middle) > self.cv else (low, middle)
        return low

    def gaps(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Weibull gaps."""
        shape = self.shape
        return rng.weibull(shape, count) / (self.rate * math.gamma(1 + 1 / shape))


@dataclass(frozen=True)
class Gaps(Renewal):
    """Measured gaps as a grid of quantiles in seconds, at `levels` (0 to 1; without them equally spaced).

    Right gap by gap, and yet not the trace: the memory of long busy and idle phases is lost.
    """

    grid: Sequence[float]
    levels: Sequence[float] = ()

    def __post_init__(self) -> None:
        """Raise UserError unless the gaps rise from 0 or above."""
        if len(self.grid) < 2 or min(self.grid) < 0 or min(np.diff(self.grid)) < 0 or not self.grid[-1]:
            raise UserError("a grid of gaps needs two or more times in seconds that do not fall, the last above 0")

    def gaps(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Gaps between the grid's points on straight lines."""
        levels = self.levels if len(self.levels) else np.linspace(0, 1, len(self.grid))
        return np.interp(rng.random(count), levels, self.grid)


@dataclass(frozen=True)
class OnOff(Process):
    """Poisson at `rate` while on, nothing while off; phases are exponential with means `on` and `off` seconds.

    The long-run rate is rate x on / (on + off).
    """

    rate: float
    on: float
    off: float

    def __post_init__(self) -> None:
        """Raise UserError unless all three are positive."""
        for name in ("rate", "on", "off"):
            _positive(name, getattr(self, name))

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Many on phases at once: arrivals on a clock that stands still while off, then the pauses put back in."""
        now = 0.0
        phases = min(max(1, int(CHUNK / (self.rate * self.on))), CHUNK)
        while True:
            lengths, pauses = rng.exponential(self.on, phases), rng.exponential(self.off, phases)
            ends, waits = np.cumsum(lengths), np.cumsum(pauses)
            count = rng.poisson(self.rate * ends[-1])
            clock = np.sort(rng.random(count)) * ends[-1]
            before = np.concatenate([[0.0], waits])[np.searchsorted(ends, clock, side="right")]
            yield now + clock + before
            now += float(ends[-1] + waits[-1])


@dataclass(frozen=True)
class Diurnal(Process):
    """A day: Poisson at a rate that goes from `low` to `high` and back in `day` seconds, a cosine that begins low.

    Besides, bursts come at random, `bursts` a day on average, and multiply the rate by `factor` for `burst` seconds
    each (of two at once only one counts).
    """

    low: float
    high: float
    day: float = 86_400.0
    bursts: float = 0.0
    factor: float = 2.0
    burst: float = 60.0

    def __post_init__(self) -> None:
        """Raise UserError unless the rates rise from above 0 and bursts make it more."""
        for name in ("low", "high", "day", "burst"):
            _positive(name, getattr(self, name))
        if self.low > self.high or self.bursts < 0 or self.factor < 1:
            raise UserError(f"a day from {self.low} to {self.high} requests/s, {self.bursts} bursts of {self.factor} "
                            "times as much: low is at most high, bursts at least 0, the factor at least 1")

    def rate_at(self, times: np.ndarray) -> np.ndarray:
        """Requests/s at some times (s), bursts apart."""
        return self.low + (self.high - self.low) * (1 - np.cos(2 * np.pi * times / self.day)) / 2

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """A day after the other: arrivals at the highest rate, of which each is kept as its moment's rate allows."""
        top = self.high * (self.factor if self.bursts else 1)
        start, going_on = 0.0, np.empty(0)
        while True:
            begins = np.concatenate([going_on, np.sort(start + rng.random(rng.poisson(self.bursts)) * self.day)])
            times = np.sort(start + rng.random(rng.poisson(top * self.day)) * self.day)
            last = np.searchsorted(begins, times, side="right") - 1
            burst = (last >= 0) & (times - np.append(begins, -np.inf)[last] < self.burst)
            rate = self.rate_at(times) * np.where(burst, self.factor, 1.0)
            yield times[rng.random(len(times)) * top < rate]
            start, going_on = start + self.day, begins[-1:]


@dataclass(frozen=True)
class RateSeries(Process):
    """Exactly `counts[i]` arrivals in the i-th `width` seconds, anywhere inside; after the last it starts over."""

    counts: Sequence[int]
    width: float = 10.0

    def __post_init__(self) -> None:
        """Raise UserError for a series that never brings a request."""
        _positive("width", self.width)
        if not len(self.counts) or min(self.counts) < 0 or not sum(self.counts):
            raise UserError("a rate series needs counts of 0 or more, and at least one request in all")

    def chunks(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """One pass through the series after the other."""
        bins = np.repeat(np.arange(len(self.counts)), self.counts)
        start = 0.0
        while True:
            yield np.sort(start + (bins + rng.random(len(bins))) * self.width)
            start += len(self.counts) * self.width


def _weibull_cv(shape: float) -> float:
    first, second = math.lgamma(1 + 1 / shape), math.lgamma(1 + 2 / shape)
    return math.sqrt(math.expm1(second - 2 * first))


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"an arrival process with {name} {value}; it must be a number above 0")
