"""What a global scheduler may decide; a driver carries it out. Weeks 8, 10 and 11."""

from __future__ import annotations

from dataclasses import dataclass

from llmcourse.engine.request import Request


@dataclass(frozen=True)
class Dispatch:
    """Send a new request to an instance."""

    request: Request
    instance: int


@dataclass(frozen=True)
class Migrate:
    """Let the source choose a request of at most ``most_blocks`` and move it to the destination."""

    source: int
    destination: int
    most_blocks: int
    reason: str = "balance"


@dataclass(frozen=True)
class Drain:
    """Give an instance nothing new, and let all it has move away."""

    instance: int


@dataclass(frozen=True)
class ScaleUp:
    """Start ``count`` more instances for ``role``, with weights from ``tier`` ("": where the fleet has them).

    They cost from now on, and take requests when they are ready.
    """

    count: int
    tier: str = ""
    role: str = ""


Decision = Dispatch | Migrate | Drain | ScaleUp
