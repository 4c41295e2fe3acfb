"""The FRONT DOOR: rate limits, model registry, monitoring, and the service of all six parts (weeks 2 and 11).

No torch here: a model comes in through a loader that the registry calls.
"""

from llmcourse.serve.limiter import TokenBucket
from llmcourse.serve.monitor import Histogram, Monitor
from llmcourse.serve.registry import ModelRegistry, ModelState
from llmcourse.serve.service import Limiter, Part, Refused, Service, Stop

__all__ = ["Histogram", "Limiter", "ModelRegistry", "ModelState", "Monitor", "Part", "Refused", "Service", "Stop",
           "TokenBucket"]
