"""Earliest deadline first: whoever must be answered soonest starts first.

The deadline is that of the first token: arrival + the TTFT of the request's SLO. If any order meets all deadlines of
equally long jobs, this one does; past saturation it fails badly, for it spends itself on those already late (shed them,
`admission.Shedding`). Liu and Layland, 1973; Jackson, 1955. Week 5.
"""

from llmcourse.engine.policy import Policy
from llmcourse.engine.request import Request
from llmcourse.errors import UserError


class EDF(Policy):
    """Order by TTFT deadline, ties by arrival; not preemptive.

    ``default_ttft`` in seconds stands for the SLO of requests without one: they go late, but not last for ever.
    """

    def __init__(self, default_ttft: float = 30.0) -> None:
        if not default_ttft > 0:
            raise UserError(f"default_ttft is {default_ttft} s; a deadline lies more than 0 s after the arrival")
        self.default_ttft = default_ttft

    def key(self, request: Request, now: float) -> float:
        """When its first token is due, in seconds of the engine's clock."""
        assert request.arrival is not None
        ttft = request.slo.ttft if request.slo else None
        return request.arrival + (self.default_ttft if ttft is None else ttft)
