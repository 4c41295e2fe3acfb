"""The actor: an instance in a process of its own, somewhere on the cluster.

It is a shell around `EngineLoop` and knows nothing of serving. Its methods run in threads of the actor and wait for the
loop, so a long step delays an answer and nothing else. KV that it returns stays in the object store of its machine;
only the instance that is to write it fetches it. Week 7.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmcourse.cluster.instance import Instance
from llmcourse.cluster.on_ray.loop import EngineLoop, News
from llmcourse.cluster.report import LoadReport
from llmcourse.engine.batch import Limits
from llmcourse.engine.clock import WallClock
from llmcourse.engine.engine import Engine
from llmcourse.engine.request import Request

Build = Callable[[], Engine]


@dataclass(frozen=True)
class Card:
    """What does not change about an instance, and its first report."""

    block_size: int
    num_blocks: int
    block_bytes: int
    limits: Limits
    process: int
    report: LoadReport


@dataclass(frozen=True)
class Audit:
    """Ids of those who live on an instance, have stopped there and are expected there; ``blocks`` that are owned."""

    lives: set[str]
    stopped: set[str]
    guests: set[str]
    blocks: int


class RayInstance:
    """Instance ``number``: the engine that ``build`` makes, on a clock whose 0 is ``epoch`` (s of `time.time`)."""

    def __init__(self, number: int, build: Build, epoch: float, headroom: Mapping[int, float]) -> None:
        if "torch" in sys.modules:                            # as Ray does to a worker that will carry tensors
            sys.modules["torch"].set_num_threads(1)           # processes of two threads fight for cores
        engine = build()
        engine.clock = WallClock(epoch)
        self.engine = engine
        self.loop = EngineLoop(Instance(number, engine, headroom))

    def card(self) -> Card:
        """Who it is."""
        pool, executor = self.engine.pool, self.engine.executor
        report = self.loop.do(self.loop.instance.report)
        return Card(pool.block_size, pool.num_blocks, getattr(executor, "block_bytes", 0), executor.limits, os.getpid(),
                    report)

    def call(self, verb: str, *arguments: Any) -> Any:
        """Call a method of the `Instance` between two steps. KV on a GPU is brought to host memory: others read it."""
        answer = self.loop.do(lambda: getattr(self.loop.instance, verb)(*arguments))
        return answer.cpu() if verb == "read" and hasattr(answer, "cpu") else answer

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.loop.do(lambda: self.engine.add(request))

    def abort(self, request_id: str) -> None:
        """Drop a request."""
        self.loop.do(lambda: self.engine.abort(request_id))

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt."""
        return self.engine.tokens_of(text)

    def take(self, patience: float) -> News:
        """What is new, as soon as anything is."""
        return self.loop.take(patience)

    def set_terminating(self) -> None:
        """It is being drained: its reports say so from now on."""
        self.loop.do(lambda: setattr(self.loop.instance, "terminating", True))

    def audit(self) -> Audit:
        """Who is here; AssertionError for a broken invariant."""
        return self.loop.do(self._audit)

    def _audit(self) -> Audit:
        self.engine.check_invariants()
        instance, pool = self.loop.instance, self.engine.pool
        return Audit({each.id for each in instance.residents()}, set(instance.stopped), set(instance.guests),
                     pool.num_used)

    def ping(self) -> None:
        """That it lives, without waiting for the step that is being taken; `Ended` when its engine has failed."""
        self.loop.check()
