"""Which instance gets a new request: from knowing nothing to knowing what each has room for.

A dispatcher sees the request and everybody's last report, and answers with a number; asking changes nothing, so the
same question has the same answer. Counting requests is blind to their length, counting tokens to memory; freeness asks
how long each has until it is full. Two random choices are nearly as good as looking at everybody (Mitzenmacher, 2001),
and better when reports are old, for then everybody sends to the same best. Weeks 3 and 8.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import blake2b

from llmcourse.cluster.report import LoadReport
from llmcourse.engine.request import Request
from llmcourse.errors import UserError

Load = Callable[[LoadReport], float]


class Dispatcher:
    """Chooses an instance for each new request. ``reads_load``: what it chooses depends on what reports say."""

    reads_load = True

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int | None:
        """The instance that gets the request, which is the ``number``-th (from 0); ``reports`` is never empty.

        None: nobody may have it yet. It waits in front of all, and is asked for again.
        """
        raise NotImplementedError

    # Notes, for a dispatcher that remembers what it has sent (`d2lpm.py`); `choose` itself changes nothing.

    def sent(self, request: Request, instance: int, reports: Sequence[LoadReport]) -> None:
        """The request has been sent there, on the ``reports`` that `choose` was given."""

    def done(self, request_id: str, output: int) -> None:
        """A request has ended, anywhere and for whatever reason, after so many output tokens."""


class RoundRobin(Dispatcher):
    """Each in turn."""

    reads_load = False

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        """The one after the last."""
        return reports[number % len(reports)].instance


class Random(Dispatcher):
    """Anyone, drawn by ``seed`` and the request's number."""

    reads_load = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        """A draw that anybody can repeat."""
        return random.Random(f"{self.seed} {number}").choice(reports).instance


class LeastRequests(Dispatcher):
    """Whoever has the fewest requests waiting and running; the first of several."""

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        """The least loaded, by count."""
        return min(reports, key=lambda report: report.requests).instance


class LeastTokens(Dispatcher):
    """Whoever holds and awaits the fewest tokens: what is in blocks, and what is still to be computed."""

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        """The least loaded, by tokens."""
        return min(reports, key=_tokens).instance


class PowerOfTwo(Dispatcher):
    """The better of two drawn at random, by requests or another ``load``. Mitzenmacher, 2001."""

    def __init__(self, seed: int = 0, load: Load | None = None) -> None:
        self.seed, self.load = seed, load or (lambda report: report.requests)

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        """Looks at two, whatever their number."""
        two = random.Random(f"{self.seed} {number}").sample(range(len(reports)), min(2, len(reports)))
        return min((reports[i] for i in two), key=self.load).instance


class Freeness(Dispatcher):
    """Whoever has most blocks to spare for each request it has, all who wait counted. Sun et al., 2024 (Llumnix)."""

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        """The freest."""
        return max(reports, key=lambda report: report.dispatch_freeness).instance


class PrefixAware(Dispatcher):
    """Requests that begin alike go to the same instance, where a prefix cache knows their beginning, unless it is full.

    Each beginning of ``prefix_tokens`` tokens ranks the instances in an order of its own (rendezvous hashing, Thaler
    and Ravishankar, 1998); the first whose requests are at most ``bound`` times the mean gets it (bounded loads,
    Mirrokni et al., 2018).
    """

    def __init__(self, prefix_tokens: int = 64, bound: float = 1.25) -> None:
        if not (prefix_tokens >= 1 and bound > 0):
            raise UserError(f"prefix_tokens {prefix_tokens}, bound {bound}: a beginning has at least 1 token, and a "
                            "bound is a multiple above 0 of the mean")
        self.prefix_tokens, self.bound = prefix_tokens, bound

    def choose(self, request: Request, number: int, reports: Sequence[LoadReport]) -> int:
        """Home, or the next that is not too busy."""
        key = repr(list(request.prompt[:self.prefix_tokens])).encode()
        # Not a checksum: CRC-32 is linear, so some instances would come first for most keys of a length.
        ranked = sorted(reports, key=lambda report: blake2b(b"%d " % report.instance + key, digest_size=8).digest())
        most = self.bound * (sum(report.requests for report in reports) + 1) / len(reports)
        return next((report for report in ranked if report.requests + 1 <= max(1.0, most)), ranked[0]).instance


def _tokens(report: LoadReport) -> int:
    return report.used_blocks * report.block_size + report.backlog_tokens


def _d2lpm(quantum: float = 5000, input_weight: float = 1, output_weight: float = 2, piece: int = 64) -> Dispatcher:
    from llmcourse.cluster.d2lpm import D2LPM
    return D2LPM(quantum, input_weight, output_weight, piece)


DISPATCHERS: dict[str, Callable[..., Dispatcher]] = {
    "random": Random, "round-robin": RoundRobin, "least-requests": LeastRequests, "least-tokens": LeastTokens,
    "power-of-two": PowerOfTwo, "freeness": Freeness, "prefix-aware": PrefixAware, "d2lpm": _d2lpm}
