"""What a user was promised: a service level objective (SLO), and four classes of it.

TTFT bounds the wait before the first token, TPOT the mean time of each further one; a request that keeps both has met
its SLO. Which bounds make sense depends on what the answer is for, so requests come in classes. The named ones
here are of the size that DistServe (OSDI'24, table 1) uses for a chatbot, code completion and summarisation. Week 3.
"""

import math
from dataclasses import dataclass

from llmcourse.errors import UserError


@dataclass(frozen=True)
class SLO:
    """Bounds in seconds on the time to first token and on the mean time per further token; None promises nothing."""

    ttft: float | None = None
    tpot: float | None = None

    def __post_init__(self) -> None:
        """Raise UserError for a bound nobody can keep."""
        for name in ("ttft", "tpot"):
            bound = getattr(self, name)
            if bound is not None and not (math.isfinite(bound) and bound > 0):
                raise UserError(f"an SLO's {name} is {bound}; it must be a number of seconds above 0, or None")


INTERACTIVE = SLO(ttft=1.0, tpot=0.1)  # a person reads along: ten tokens a second is faster than reading
CODE = SLO(ttft=0.25, tpot=0.2)  # an editor waits for a line: few tokens, but at once
DOCUMENT = SLO(ttft=15.0, tpot=0.15)  # a summary of something long: the prompt may take its time
BATCH = SLO()  # nobody waits


def slo_classes() -> dict[str, SLO]:
    """The named classes, strictest first token first."""
    return {"code": CODE, "interactive": INTERACTIVE, "document": DOCUMENT, "batch": BATCH}
