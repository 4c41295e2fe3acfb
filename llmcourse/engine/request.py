"""A request: what was asked, and two numbers that say how far it is.

    tokens    prompt + output                     what is known
    computed  tokens whose KV is in the cache     0 <= computed <= len(tokens)
    pending   len(tokens) - computed              1: decoding, more: (re)filling

There is no prefill phase and no decode phase. A fresh prompt, a chunk of one, and a request that lost its cache are the
same thing with other values of ``computed``. The idea is vLLM v1's (2025). Weeks 2 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from llmcourse.errors import UserError
from llmcourse.model.limits import check_sampling

if TYPE_CHECKING:
    from llmcourse.workload.slo import SLO


class Status(StrEnum):
    """Where a request stands. `TRANSITIONS` says what may follow what."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"              # its KV is gone: it waits, and is computed again
    SWAPPED = "swapped"                  # its KV waits with it, in host memory
    PARKED = "parked"                    # its KV waits with it, where it lies (engine/parking.py)
    MIGRATING = "migrating"              # stopped, because it is about to run on another instance
    FINISHED = "finished"
    ABORTED = "aborted"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.WAITING: frozenset({Status.RUNNING, Status.ABORTED, Status.MIGRATING}),
    Status.RUNNING: frozenset({Status.PREEMPTED, Status.SWAPPED, Status.PARKED, Status.FINISHED, Status.ABORTED,
                               Status.MIGRATING}),
    Status.PREEMPTED: frozenset({Status.RUNNING, Status.ABORTED, Status.MIGRATING}),
    Status.SWAPPED: frozenset({Status.RUNNING, Status.PARKED, Status.ABORTED, Status.MIGRATING}),
    Status.PARKED: frozenset({Status.RUNNING, Status.PREEMPTED, Status.SWAPPED, Status.ABORTED, Status.MIGRATING}),
    Status.MIGRATING: frozenset({Status.WAITING, Status.RUNNING, Status.PREEMPTED, Status.SWAPPED, Status.PARKED,
                                 Status.ABORTED}),
    Status.FINISHED: frozenset(),
    Status.ABORTED: frozenset(),
}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, and when to stop.

    ``temperature`` 0 is greedy; ``top_k`` 0 keeps every token; ``seed`` None lets the engine give one. ``n`` answers
    are sampled to one prompt, whose KV they share; the i-th (from 0) has seed ``seed + i``.
    """

    max_tokens: int = 16
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    n: int = 1

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not _is_int(self.max_tokens) or self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens!r}; a request needs room for at least 1 new token")
        if not _is_int(self.n) or self.n < 1:
            raise UserError(f"n is {self.n!r}; a prompt gets at least 1 answer")
        if not _is_int(self.top_k):
            raise UserError(f"top_k is {self.top_k!r}; it must be a whole number")
        check_sampling(self.temperature, self.top_k, self.top_p)


@dataclass(eq=False, slots=True)
class Request:
    """One request and its progress.

    An empty ``id`` lets the engine name it. ``arrival`` is in seconds of the engine's clock; None: when it is added.
    A smaller ``priority`` goes first (as in vLLM). ``predicted`` is how many output tokens somebody expects: a guess,
    or an oracle's word; the engine itself never looks at it.
    """

    prompt: Sequence[int]
    sampling: SamplingParams = SamplingParams()
    id: str = ""
    arrival: float | None = None
    priority: int = 0
    tenant: str = ""
    slo: SLO | None = None
    predicted: float | None = None
    tokens: list[int] = field(init=False)
    computed: int = field(init=False, default=0)
    status: Status = field(init=False, default=Status.WAITING)
    finish_reason: str | None = field(init=False, default=None)
    preemptions: int = field(init=False, default=0)               # how often it had to give way
    rank: tuple[Any, int] = field(init=False, default=(0, 0))     # policy key, place of arrival: the scheduler's
    longest: int = field(init=False)                              # tokens it may grow to, its prompt included
    siblings: Sequence[Request] = field(init=False, default=())   # all answers to its prompt, if there are several

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)
        self.longest = len(self.tokens) + self.sampling.max_tokens

    @property
    def pending(self) -> int:
        """Tokens whose KV is still to be computed."""
        return len(self.tokens) - self.computed

    @property
    def output(self) -> list[int]:
        """The tokens delivered so far."""
        return self.tokens[len(self.prompt):]

    @property
    def num_output(self) -> int:
        """How many tokens have been delivered."""
        return len(self.tokens) - len(self.prompt)

    @property
    def leads(self) -> bool:
        """Whether it computes the prompt that its siblings will share."""
        return bool(self.siblings) and self.siblings[0] is self

    @property
    def max_cached(self) -> int:
        """Most tokens whose KV it will ever hold: the last token is delivered and never computed."""
        return self.longest - 1

    @property
    def done(self) -> bool:
        """Finished or aborted: nothing will happen to it any more."""
        return not TRANSITIONS[self.status]

    def become(self, status: Status) -> None:
        """Change status along the table; RuntimeError for a change that cannot be."""
        if status not in TRANSITIONS[self.status]:
            raise RuntimeError(f"request {self.id} is {self.status} and cannot become {status}")
        self.status = status


@dataclass(frozen=True)
class Completion:
    """What came of a request: the new tokens, and their text when the engine has a tokenizer."""

    request_id: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str | None
    finish_reason: str
