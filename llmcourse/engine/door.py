"""The door: a request that can never be served is refused at once, with the numbers.

Whoever is let in will be served, however long the queue: the scheduler's promises rest on it. Week 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcourse.engine.batch import NO_VOCABULARY
from llmcourse.engine.batching import BATCHING
from llmcourse.engine.request import Request
from llmcourse.errors import UserError
from llmcourse.kinds import check_kind

if TYPE_CHECKING:
    from llmcourse.engine.engine import Engine


def refuse_impossible(engine: Engine, request: Request) -> None:
    """UserError for a request that repeats an id, names unknown tokens, or can never fit; nothing is changed."""
    limits, prompt = engine.executor.limits, request.prompt
    for name in [request.id, *(f"{request.id}/{i}" for i in range(1, request.sampling.n))]:
        if name in engine.requests:
            raise UserError(f"a request with id {name!r} exists already; ids are used once")
    if not len(prompt):
        raise UserError("the prompt is empty; a request needs at least 1 token to start from")
    _check_tokens(prompt, limits.vocab_size)
    _check_numbers(request)
    longest, max_tokens = limits.max_length, request.sampling.max_tokens
    if len(prompt) + max_tokens > longest:
        raise UserError(f"{len(prompt)} prompt tokens + max_tokens {max_tokens} exceed the model's {longest} positions"
                        f"; ask for at most {max(0, longest - len(prompt))} new tokens")
    pool = engine.pool
    if not pool.could_ever_hold(request.max_cached):
        raise UserError(
            f"{len(prompt)} prompt tokens + max_tokens {max_tokens} fill {pool.blocks_for(request.max_cached)} "
            f"blocks of {pool.block_size} tokens, the pool has {pool.num_blocks}: it could never finish; "
            f"ask for at most {max(0, pool.capacity - len(prompt) + 1)} new tokens or enlarge the pool")


def check_settings(policy: object, admission: object, batching: object, token_budget: int, max_running: int) -> None:
    """UserError for what nobody could schedule by."""
    if isinstance(policy, type) or not hasattr(policy, "on_tokens"):
        raise UserError(f"policy is {policy!r:.60}; give one that is made, such as POLICIES['sjf']() of "
                        "llmcourse.policies")
    if admission is not None and (isinstance(admission, type) or not hasattr(admission, "refuse")):
        raise UserError(f"admission is {admission!r:.60}; give a rule that is made, such as BacklogLimit(20_000) of "
                        "llmcourse.policies, or None to let everybody in")
    if batching not in BATCHING:
        raise UserError(f"batching {batching!r} is not one of {', '.join(BATCHING)}")
    seats(max_running, token_budget)
    if not 1 <= max_running <= token_budget:
        raise UserError(f"max_running is {max_running} and token_budget {token_budget}: every running request "
                        "needs a token in a step, so 1 <= max_running <= token_budget")


def seats(max_running: int, token_budget: int) -> int:
    """The most requests that can run at once: each needs a token in a step. UserError for what is no whole number."""
    check_kind("token_budget", token_budget, int)
    check_kind("max_running", max_running, int)
    return min(max_running, token_budget)


def _check_numbers(request: Request) -> None:
    """What policies compare must be comparable: NaN has no place in any order."""
    for name in ("arrival", "priority", "predicted"):
        value = getattr(request, name)
        if value is not None and (type(value) not in (int, float) or value != value):
            check_kind(f"{name} of request {request.id!r}", value, float)


def _check_tokens(prompt: Sequence[int], vocab_size: int) -> None:
    if vocab_size == NO_VOCABULARY:
        return                                            # a simulation: nobody reads the ids
    for position, token in enumerate(prompt):
        if type(token) is not int or not 0 <= token < vocab_size:
            raise UserError(f"token {token!r} at position {position} of the prompt is not an id "
                            f"of this model's {vocab_size}-token vocabulary")
