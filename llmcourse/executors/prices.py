"""What preemption costs on this machine: seconds to move a block, and seconds to compute a context again. Measured.

A few blocks are swapped out and in, and contexts of several lengths are computed; a line through the first and a
parabola through the second tell all other lengths. Nobody may be served meanwhile: blocks are written. Week 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmcourse.engine.batch import Batch, ScheduledTokens
from llmcourse.engine.preemption import Prices
from llmcourse.engine.request import Request

if TYPE_CHECKING:
    from llmcourse.executors.torch import TorchExecutor

REPEATS = 3                 # of which the fastest counts


def measured_prices(executor: TorchExecutor) -> Prices:
    """Prices of swapping and of computing again on an executor that serves nobody yet, in about a second."""
    lengths = _lengths(executor)
    seconds = [_seconds(executor, _prompt(executor, length)) for length in lengths]
    # Seconds are fitted relative to themselves, so that short contexts count as much as long ones.
    terms = np.array([[1.0, n, n * n] for n in lengths]) / np.array(seconds)[:, None]
    constant, linear, square = (max(0.0, float(term)) for term in np.linalg.lstsq(terms, np.ones(len(lengths)))[0])
    return Prices(_block_seconds(executor), lambda n: constant + linear * n + square * n * n)


def _block_seconds(executor: TorchExecutor) -> float:
    """Of one block one way, from as many as are quick to move."""
    count = min(16, executor.store.num_blocks, executor.host.num_blocks)
    if not count:
        return float("inf")
    pairs = tuple((block, block) for block in range(count))
    there_and_back = _seconds(executor, Batch((), swap_out=pairs)) + _seconds(executor, Batch((), swap_in=pairs))
    return there_and_back / (2 * count)


def _lengths(executor: TorchExecutor) -> list[int]:
    """Four context lengths up to what the pool and the model hold, 512 at most."""
    longest = min(512, executor.limits.max_length - 1, executor.store.num_blocks * executor.store.block_size)
    return sorted({max(1, longest // part) for part in (8, 4, 2, 1)})


def _prompt(executor: TorchExecutor, length: int) -> Batch:
    table = range(-(-length // executor.store.block_size))
    return Batch((ScheduledTokens(Request([0] * length), 0, length, table),))


def _seconds(executor: TorchExecutor, batch: Batch) -> float:
    return min(executor.execute(batch).seconds for _ in range(REPEATS))
