"""What each client may still spend: the accounts of all deficit policies, for work whose cost is known only afterwards.

A packet's length is known when it is sent; an answer's is not. So a deficit is charged as the work is done and may
fall below 0: a debt, which refills of a quantum each must pay back before it is that client's turn again. Shreedhar and
Varghese, 1995, with the debts of surplus round robin (Adiseshu et al., 1996). Week 10.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from math import ceil, floor

from llmcourse.engine.policy import FOREVER
from llmcourse.errors import UserError


class Deficits:
    """A deficit for each client, 0 at first; whoever has more than 0 may go on.

    ``quantum`` is the service of one refill, times the client's weight in ``weights`` (default 1). Service is
    ``input_weight`` for a token of prompt and ``output_weight`` for one of output.
    """

    def __init__(self, quantum: float, input_weight: float = 1, output_weight: float = 2,
                 weights: Mapping[str, float] | None = None) -> None:
        self.weights: dict[Hashable, float] = {client: weight for client, weight in (weights or {}).items()}
        bad = [client for client, weight in self.weights.items() if not weight > 0]
        if not (0 < quantum < float("inf") and input_weight >= 0 and output_weight > 0) or bad:
            raise UserError(f"quantum {quantum}, input_weight {input_weight}, output_weight {output_weight}, weights "
                            f"{self.weights}: a quantum, an output token and a client must weigh more than 0, an input "
                            "token at least 0")
        self.quantum, self.input_weight, self.output_weight = quantum, input_weight, output_weight
        self._refills: Counter[Hashable] = Counter()          # whole numbers, so that many small charges and one
        self._inputs: Counter[Hashable] = Counter()           # large one come to the same deficit, bit for bit
        self._outputs: Counter[Hashable] = Counter()

    def __getitem__(self, client: Hashable) -> float:
        """What the client may still spend; at most 0: it must be refilled first."""
        spent = self.input_weight * self._inputs[client] + self.output_weight * self._outputs[client]
        return self._refills[client] * self.share(client) - spent

    def share(self, client: Hashable) -> float:
        """Service that one refill gives the client."""
        return self.quantum * self.weights.get(client, 1)

    def charge(self, client: Hashable, inputs: int, outputs: int) -> None:
        """So many tokens have been spent."""
        self._inputs[client] += inputs
        self._outputs[client] += outputs

    def refill(self, client: Hashable, times: int) -> None:
        """So many quanta."""
        self._refills[client] += times

    def forget(self, gone: Callable[[Hashable], bool]) -> None:
        """Close the accounts of clients who are ``gone`` for good."""
        for account in (self._refills, self._inputs, self._outputs):
            for client in [client for client in account if gone(client)]:
                del account[client]

    def forfeit(self, client: Hashable) -> None:
        """What it has not spent is lost; a debt stays."""
        if self[client] > 0:
            self._refills[client] = self._inputs[client] = self._outputs[client] = 0

    def refills_needed(self, client: Hashable) -> int:
        """How many refills until it may go on; 0: it may now."""
        deficit = self[client]
        return 0 if deficit > 0 else floor(-deficit / self.share(client)) + 1

    def steady_steps(self, client: Hashable, decoding: int) -> int:
        """Steps for which `refills_needed` stays as it is while so many of the client's requests decode."""
        slack = self[client] + self.refills_needed(client) * self.share(client)
        if not decoding:
            return FOREVER
        return max(0, ceil(slack / (self.output_weight * decoding)) - 2)
