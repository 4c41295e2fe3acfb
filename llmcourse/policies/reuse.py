"""An experiment: how much of the prompts a prefix cache of some size finds, by the order of the queue.

The same requests (`workload.Assistants`) are served by a simulated Llama 2 7B on an A100 with as many blocks of KV as
asked for, few at a time, under one policy. Where everything fits, order changes nothing; where memory is small, first
come first served forgets a conversation before its next turn comes, and longest prefix first does not. Week 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmcourse.engine.engine import Engine
from llmcourse.engine.policy import Policy
from llmcourse.engine.replay import replay
from llmcourse.kv.prefix_pool import PrefixPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.workload.assistants import Assistants


@dataclass(frozen=True)
class Reuse:
    """What came out: the share of prompt tokens found, the mean and worst time to first token and the end (s)."""

    hit_rate: float
    mean_ttft: float
    worst_ttft: float
    seconds: float
    evicted_blocks: int


def reuse(policy: Policy, num_blocks: int, workload: Assistants | None = None, max_running: int = 4) -> Reuse:
    """Serve the workload (by default `Assistants()`) with ``num_blocks`` blocks of 16 tokens under the policy.

    Raises UserError when the longest request does not fit.
    """
    # The tree finds what chained hashes find, and is asked faster so often.
    engine = Engine.simulated(num_blocks=num_blocks, prefix_cache="radix", policy=policy, max_running=max_running,
                              ledger=Ledger())
    pool = engine.pool
    assert isinstance(pool, PrefixPool)
    ttft = replay(engine, workload or Assistants())["ttft"]
    return Reuse(pool.hit_rate, float(ttft.mean()), float(ttft.max()), engine.clock.now, pool.evicted_blocks)
