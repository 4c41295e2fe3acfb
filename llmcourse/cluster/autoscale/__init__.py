"""How many instances there should be: one short file for each autoscaler, and what a start takes. Week 10. No torch.

`AUTOSCALERS` knows them by the names of the command line.
"""

from collections.abc import Callable

from llmcourse.cluster.autoscale.base import Autoscaler
from llmcourse.cluster.autoscale.batch_size import BatchSize
from llmcourse.cluster.autoscale.cold_start import TIERS, ColdStart
from llmcourse.cluster.autoscale.kv_based import KVBased
from llmcourse.cluster.autoscale.observed import Held, Observed
from llmcourse.cluster.autoscale.predictive import Predictive
from llmcourse.cluster.autoscale.queue_based import QueueBased
from llmcourse.cluster.autoscale.reactive import Reactive
from llmcourse.cluster.autoscale.slo_debt import SLODebt

AUTOSCALERS: dict[str, Callable[..., Autoscaler]] = {
    "reactive": Reactive, "queue": QueueBased, "kv": KVBased, "predictive": Predictive, "slo-debt": SLODebt}

__all__ = ["AUTOSCALERS", "TIERS", "Autoscaler", "BatchSize", "ColdStart", "Held", "KVBased", "Observed", "Predictive",
           "QueueBased", "Reactive", "SLODebt"]
