"""An experiment: how much of the prompts a prefix cache of some size finds, by the order of the queue.

The same requests (`workload.Assistants`) are served by a simulated Llama 2 7B on an A100 with as many blocks of KV as
asked for, few at a time, under one policy. Where everything fits, order changes nothing; where memory is small, first
come first served forgets a conversation before its next turn comes, and longest prefix first does not. Week 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmcourse.engine.clock import VirtualClock
from llmcourse.engine.engine import Engine
from llmcourse.engine.policy import Policy
from llmcourse.engine.replay import replay
from llmcourse.executors.roofline import RooflineExecutor
from llmcourse.kv.prefix_pool import PrefixPool
from llmcourse.kv.radix import RadixIndex
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.ledger import Ledger
from llmcourse.model.shapes import shape
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
    pool = PrefixPool(num_blocks, 16, RadixIndex(16))         # hashes find the same and take longer to ask so often
    executor = RooflineExecutor(RooflineCost(hardware("A100 80 GB"), shape("Llama 2 7B")))
    engine = Engine(executor, pool, policy, token_budget=512, max_running=max_running, clock=VirtualClock(),
                    ledger=Ledger())
    ttft = replay(engine, workload or Assistants())["ttft"]
    return Reuse(pool.hit_rate, float(ttft.mean()), float(ttft.max()), engine.clock.now, pool.evicted_blocks)
