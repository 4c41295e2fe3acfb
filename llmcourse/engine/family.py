"""Several answers to one prompt: whoever comes first computes it, the others fork from its blocks.

A fork is a table that names a sibling's blocks, with the prompt's last token still to compute, so that each answer
samples from logits of its own. Nobody copies a prompt: only the block that two of them write into is copied, when
they do (copy on write). Until the prompt is there the others stand behind the first and do not queue. Kwon et al.,
2023, §4.4 (parallel sampling). Week 6.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from llmcourse.engine.request import Request, Status


def answers_to(request: Request) -> list[Request]:
    """The request and its siblings, one for each of the ``n`` answers it asks for; they know each other."""
    siblings, sampling = [request], request.sampling
    for i in range(1, sampling.n):
        siblings.append(Request(request.prompt, replace(sampling, seed=(sampling.seed or 0) + i), f"{request.id}/{i}",
                                request.arrival, request.priority, request.tenant, request.slo, request.predicted))
    if sampling.n > 1:
        for sibling in siblings:
            sibling.siblings = siblings
    return siblings


def shared_tokens(request: Request) -> int:
    """How many tokens it has in common with its siblings whose KV it can take over: its last must be computed."""
    return min(len(request.prompt), len(request.tokens) - 1)


def donor(request: Request, restored: Collection[Request]) -> Request | None:
    """A running sibling whose blocks hold the prompt now; not one that is only being ``restored`` in this step."""
    shared = shared_tokens(request)
    return next((sibling for sibling in request.siblings
                 if sibling.status is Status.RUNNING and sibling.computed >= shared > 0
                 and sibling is not request and sibling not in restored), None)


class Families:
    """Who stands behind whom."""

    def __init__(self) -> None:
        self._behind: dict[Request, list[Request]] = {}

    def __bool__(self) -> bool:
        return bool(self._behind)

    @property
    def members(self) -> list[Request]:
        """All who stand behind a sibling."""
        return [request for siblings in self._behind.values() for request in siblings]

    def stands_behind(self, request: Request) -> bool:
        """A new request: whether a sibling computes the prompt for it; then it is kept here until that is done."""
        first = next((sibling for sibling in request.siblings if not sibling.done), request)
        if first is not request:
            self._behind.setdefault(first, []).append(request)
        return first is not request

    def prompt_computed(self, request: Request) -> list[Request]:
        """Whoever stood behind it, and may queue now."""
        return self._behind.pop(request, [])

    def ended(self, request: Request) -> list[Request]:
        """It will not compute the prompt any more: the one (or none) who queues in its stead."""
        siblings = self._behind.pop(request, [])
        if siblings:
            self._behind[siblings[0]] = siblings[1:]
        return siblings[:1]

    def remove(self, request: Request) -> None:
        """Its owner gave it up while it stood behind another."""
        next(siblings for siblings in self._behind.values() if request in siblings).remove(request)
