"""This engine as one of the measured: a mixed workload, a decode step, the scheduler alone, the floor of its steps."""

import statistics
import time

import torch

from benchmarks._shapes import CONTEXT, Job
from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.engine.batch import Batch, Limits, ScheduledTokens, StepResult
from llmcourse.engine.events import EventKind
from llmcourse.executors import TorchExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.hardware import Hardware
from llmcourse.metrics.roofline import step_seconds, step_work
from llmcourse.model.transformer import Transformer

BLOCK = 16


class Ours:
    """The engine with mixed batching, every request running as soon as there is a token for it."""

    name = "llmcourse"

    def __init__(self, model: Transformer, jobs: list[Job], batches: tuple[int, ...], threads: int) -> None:
        room = sum(-(-(len(job.prompt) + job.output) // BLOCK) for job in jobs)
        self.blocks = max(room, max(batches) * (CONTEXT // BLOCK + 4))
        self.executor = TorchExecutor(model, self.blocks, BLOCK, threads=threads)
        self.engine: Engine | None = None

    def mixed(self, jobs: list[Job]) -> float:
        """Seconds from the first prompt to the last token."""
        engine = Engine(self.executor, BlockPool(self.blocks, BLOCK), token_budget=512, max_running=len(jobs))
        started = time.perf_counter()
        done = engine.generate([job.prompt for job in jobs],
                               [SamplingParams(max_tokens=job.output, ignore_eos=True) for job in jobs])
        seconds = time.perf_counter() - started
        assert [len(completion.tokens) for completion in done] == [job.output for job in jobs]
        self.engine = engine
        return seconds

    def step(self, batch: int, steps: int) -> float:
        """Median seconds of a decode step around `CONTEXT` tokens of context."""
        width = CONTEXT // BLOCK + 4
        deal = torch.randperm(self.blocks, generator=torch.Generator().manual_seed(0)).tolist()
        rows = [(Request([1 + r % 7] * CONTEXT, SamplingParams(max_tokens=60), id=str(r)),
                 deal[r * width:(r + 1) * width]) for r in range(batch)]
        for request, _ in rows:
            request.tokens.append(1)                     # the context is whatever lies in its blocks: it takes as long
        return statistics.median(self._execute(tuple(
            ScheduledTokens(request, len(request.tokens) - 1, 1, table) for request, table in rows))
            for _ in range(steps))

    def floor(self, machine: Hardware, bytes_per_value: int) -> float:
        """Seconds that the steps of the last mixed run would take if each met the roofline."""
        assert self.engine is not None
        config = self.executor.model.config
        return sum(step_seconds(machine, step_work(config, [(count, start) for _, start, count in event.data["batch"]],
                                                   bytes_per_value))
                   for event in self.engine.events if event.kind is EventKind.STEP)

    def _execute(self, items: tuple[ScheduledTokens, ...]) -> float:
        started = time.perf_counter()
        tokens = self.executor.execute(Batch(items)).tokens
        seconds = time.perf_counter() - started
        for item in items:
            item.request.tokens.append(tokens[item.request.id])
        return seconds


class _Instant:
    """Answers at once, so that what a step takes is what the engine takes."""

    limits = Limits(10, 10**6)

    def __init__(self) -> None:
        self.seconds = 0.0                               # its own, to be taken off

    def execute(self, batch: Batch) -> StepResult:
        started = time.perf_counter()
        result = StepResult({request.id: 1 for request, _, _, _ in batch.items}, 0.0)
        self.seconds += time.perf_counter() - started
        return result


def scheduler_seconds(running: int = 64, steps: int = 300) -> float:
    """Median seconds of a step of the engine without its executor: schedule, commit, events."""
    pool = BlockPool(running * (steps // BLOCK + 8), BLOCK)
    instant = _Instant()
    engine = Engine(instant, pool, token_budget=8192, max_running=running)
    for number in range(running):
        engine.add(Request([1] * (40 + number), SamplingParams(max_tokens=steps + 20, ignore_eos=True)))
    for _ in range(10):
        engine.step()
    times = []
    for _ in range(steps):
        before, started = instant.seconds, time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - started - (instant.seconds - before))
    assert len(engine.scheduler.running) == running
    return statistics.median(times)
