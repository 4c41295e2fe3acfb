"""A few assistants, each with a system prompt of its own, and many conversations with each of them.

So a prompt shares its first blocks with all conversations of its assistant, and the rest with its own earlier turns.
At any time a `window` of requests is with the service, new conversations and old ones in random order; when one is
answered the next comes. That is the case in which the order of a queue decides what a small prefix cache is worth.
After the settings of Zheng et al., 2024 (SGLang), in small. Week 6.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from llmcourse.errors import UserError
from llmcourse.workload.arrival import BLOCK_TOKENS, Arrival
from llmcourse.workload.generate import generator


@dataclass
class Assistants:
    """`sessions` conversations of `turns` turns with one of `assistants`; a closed loop, to be given to `replay`.

    A system prompt and what a turn adds to a prompt (the last answer, a message) are ``system`` and ``message`` blocks
    of 512 tokens; ``outputs`` are the tokens of an answer. The turns of one session come in order.
    """

    assistants: int = 6
    sessions: int = 60
    turns: int = 6
    window: int = 32
    system: int = 1
    message: int = 1
    outputs: int = 16
    seed: int = 0
    _left: Iterator[tuple[int, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise UserError when there is nothing to ask."""
        least = min(self.assistants, self.sessions, self.turns, self.window, self.system, self.message, self.outputs)
        if least < 1:
            raise UserError(f"{self} asks nothing: every number must be at least 1")
        self.start()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts together."""
        blocks = self.sessions * (self.turns * self.system + self.message * self.turns * (self.turns + 1) // 2)
        return blocks * BLOCK_TOKENS

    @property
    def different_tokens(self) -> int:
        """Tokens of prompt that nobody has said before: what even an infinite cache must compute, about."""
        blocks = min(self.assistants, self.sessions) * self.system + self.sessions * self.turns * self.message
        return blocks * BLOCK_TOKENS

    def start(self) -> list[Arrival]:
        """The first window of requests, all at once. Starts over: the same seed plays the same requests."""
        sessions = [session for session in range(self.sessions) for _ in range(self.turns)]
        generator(self.seed).shuffle(sessions)
        said = [0] * self.sessions
        order = []
        for session in sessions:
            said[session] += 1
            order.append((session, said[session]))
        self._left = iter(order)
        first = [self.after(0.0) for _ in range(self.window)]
        return [arrival for arrival in first if arrival]

    def after(self, now: float) -> Arrival | None:
        """The next request, because one was answered at `now` (s); None when all have been made."""
        for session, turn in self._left:
            own = self.assistants * self.system + session * self.turns * self.message
            assistant = session % self.assistants * self.system
            prefix = (*range(assistant, assistant + self.system), *range(own, own + turn * self.message))
            return Arrival(now, len(prefix) * BLOCK_TOKENS, self.outputs, session=str(session), prefix=prefix)
        return None
