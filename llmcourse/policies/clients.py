"""Whose requests wait, and whose prompts are paid: what every policy of shares notes beside its accounts.

Shares are due only to clients who have somebody in the queue, so each arrival, admission, preemption and end must be
noted; and a prompt is charged once, however often lost KV is computed again, and to the account of the instance that
gave the first token, wherever the request goes on. Weeks 5 and 10.
"""

from collections import Counter

from llmcourse.engine.request import Request


class Clients:
    """Requests in the queue by client (``request.tenant``), and requests whose prompt has been charged."""

    def __init__(self) -> None:
        self._number: Counter[str] = Counter()       # requests in the queue
        self._queued: set[Request] = set()
        self._charged: set[Request] = set()

    def waiting(self) -> list[str]:
        """Clients with a request in the queue, in the order in which they were first seen."""
        return [client for client, number in self._number.items() if number]

    def waits(self, client: str) -> bool:
        """Whether the client has a request in the queue."""
        return self._number[client] > 0

    def enter(self, request: Request) -> None:
        """It waits, for the first time or again."""
        self._queued.add(request)
        self._number[request.tenant] += 1

    def leave(self, request: Request) -> bool:
        """It waits no longer; False, and nothing happens, when it did not."""
        if request not in self._queued:
            return False
        self._queued.remove(request)
        self._number[request.tenant] -= 1
        return True

    def owes_prompt(self, request: Request) -> bool:
        """Whether its prompt is still to be charged: True the first time it is asked, then False.

        Never of a request that has output by then: it was begun, and paid, elsewhere.
        """
        first = request not in self._charged and not request.num_output
        self._charged.add(request)
        return first

    def forget(self, request: Request) -> None:
        """It has ended."""
        self._charged.discard(request)
