"""How many CPU threads a step should use: measured, because the number of cores does not say.

Small steps gain little from a second thread, and a thread that must wait for a busy core makes everybody wait: two
processes of two threads on two cores were seen at a seventeenth of two of one. So one thread and all of them are timed
on a piece of a step, when the first step is run. Weeks 2 and 6.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

WORTH_IT = 1.15             # more threads must be at least this much faster, for they take cores from others
BUDGET = 0.2                # seconds that measuring may take


def allowed_threads() -> int:
    """The most threads that may be used: torch's own count, and never above OMP_NUM_THREADS."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    most = torch.get_num_threads()
    return min(most, int(asked)) if asked.isdigit() and int(asked) else most


def measured_threads(work: Callable[[], None], most: int | None = None) -> int:
    """1, or ``most`` (default: all that are allowed) when ``work`` runs enough faster with them. Takes about 0.2 s.

    The best of several runs of each counts, in turn. Where one thread is allowed, nothing is measured.
    """
    most = allowed_threads() if most is None else most
    if most == 1:
        return 1
    best = {1: float("inf"), most: float("inf")}
    started = time.perf_counter()
    for run in range(40):
        for count in best:
            with using_threads(count):
                began = time.perf_counter()
                work()
                if run:                                       # the first wakes threads and fills caches
                    best[count] = min(best[count], time.perf_counter() - began)
        if run and time.perf_counter() - started > BUDGET:
            break
    return most if best[most] * WORTH_IT <= best[1] else 1


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Torch uses so many threads inside; None leaves its count alone."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
