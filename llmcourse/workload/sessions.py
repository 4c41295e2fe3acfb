"""Conversations: each turn's prompt is all that was said before, and a new message.

So prompts grow from turn to turn and begin alike, which is what a prefix cache lives on, and the next turn comes a
while after the last one: the user reads and thinks. The loop is open: that while is counted from the moment the last
turn was sent, so it must leave room for the answer. Weeks 3 and 6.
"""

from dataclasses import dataclass

import numpy as np

from llmcourse.errors import UserError
from llmcourse.workload.arrival import BLOCK_TOKENS, Arrival
from llmcourse.workload.generate import generator
from llmcourse.workload.lengths import Lengths
from llmcourse.workload.processes import Process, Renewal
from llmcourse.workload.slo import SLO


@dataclass(frozen=True)
class Sessions:
    """Conversations that begin with `process`; each has a number of `turns`, `think` seconds apart.

    ``messages`` and ``outputs`` are the tokens a user adds and a model answers per turn; ``system`` tokens of a common
    prompt stand before every conversation. A prompt that would outgrow ``context`` tokens (with its output) ends its
    conversation early.
    """

    process: Process
    turns: Lengths
    think: Renewal
    messages: Lengths
    outputs: Lengths
    system: int = 0
    context: int = 1 << 17
    tenant: str = ""
    slo: SLO | None = None

    def generate(self, count: int, seed: int) -> list[Arrival]:
        """All turns of `count` conversations, sorted by time; their ids are the numbers of their beginning.

        Raises UserError for a negative count or system prompt.
        """
        if count < 0 or self.system < 0:
            raise UserError(f"{count} sessions with a system prompt of {self.system} tokens; neither may be below 0")
        rng = generator(seed)
        starts = self.process.times(rng, count).tolist()
        blocks = _Blocks(self.system // BLOCK_TOKENS)
        turns = [turn for number, (start, length) in enumerate(zip(starts, self.turns.sample(rng, count), strict=True))
                 for turn in self._one(rng, str(number), start, int(length), blocks)]
        return sorted(turns, key=lambda turn: turn.time)

    def _one(self, rng: np.random.Generator, name: str, time: float, turns: int, blocks: "_Blocks") -> list[Arrival]:
        """The turns of one conversation."""
        messages, outputs = self.messages.sample(rng, turns).tolist(), self.outputs.sample(rng, turns).tolist()
        times = (time + np.cumsum(np.append(0.0, self.think.gaps(rng, turns - 1)))).tolist()
        said, prompt, whole = [], self.system, blocks.common
        for now, message, output in zip(times, messages, outputs, strict=True):
            prompt += message
            if prompt + output > self.context:
                break
            whole = blocks.extend(whole, prompt // BLOCK_TOKENS)
            rest = blocks.extend(whole, -(-prompt // BLOCK_TOKENS))  # the last block is still to be filled: nobody's
            said.append(Arrival(now, prompt, output, self.tenant, slo=self.slo, session=name, prefix=rest))
            prompt += output
        return said


class _Blocks:
    """Ids for blocks of prompt, each handed out once; the first `common` begin every conversation."""

    def __init__(self, common: int):
        self.common = tuple(range(common))
        self._next = common

    def extend(self, ids: tuple[int, ...], blocks: int) -> tuple[int, ...]:
        """`ids` with as many new ones as make `blocks`."""
        first, self._next = self._next, self._next + blocks - len(ids)
        return ids + tuple(range(first, self._next))
