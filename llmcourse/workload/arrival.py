"""One request before anybody has served it: when it comes, how long it is, and whose it is.

Output length stands here because a workload is made by somebody who knows it; a scheduler may see only `predicted`.
Prompts are lengths, not texts: what to fill them with is the business of whoever plays the workload. Weeks 3-5.
"""

from dataclasses import dataclass

from llmcourse.workload.slo import SLO

BLOCK_TOKENS = 512  # tokens of prompt that one id of `Arrival.prefix` stands for (Mooncake, FAST'25)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of a workload.

    ``time`` is in seconds from the workload's start, lengths are in tokens. ``priority``: the smaller goes first.
    ``predicted`` is what a predictor says the output length will be, None without one. ``session`` is shared by
    the turns of one conversation. ``prefix`` names the prompt's 512-token blocks (the last may be shorter): two
    prompts with the same leading ids begin with the same text.
    """

    time: float
    prompt_tokens: int
    output_tokens: int
    tenant: str = ""
    priority: int = 0
    slo: SLO | None = None
    predicted: float | None = None
    session: str | None = None
    prefix: tuple[int, ...] = ()
