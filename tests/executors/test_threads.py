"""Thread counts: only what is allowed, only when it pays, and the caller's count is left as it was."""

import time

import pytest
import torch

from llmcourse.executors import threads
from llmcourse.executors.threads import allowed_threads, measured_threads, using_threads


@pytest.mark.parametrize(("alone", "together", "chosen"), [(0.004, 0.002, 4), (0.002, 0.004, 1), (0.004, 0.0038, 1)])
def test_more_threads_are_taken_when_they_are_faster_by_enough(alone, together, chosen, monkeypatch) -> None:
    """On a clock of its own: work takes what the test says for the count that is set."""
    now, count = [0.0], [1]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: count.__setitem__(0, n))
    monkeypatch.setattr(torch, "get_num_threads", lambda: count[0])

    def work() -> None:
        now[0] += alone if count[0] == 1 else together
    assert measured_threads(work, most=4) == chosen
    assert now[0] < 2 * threads.BUDGET and count[0] == 1


def test_where_one_is_allowed_nothing_is_measured(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert allowed_threads() == 1
    assert measured_threads(lambda: pytest.fail("measured")) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    for value, allowed in (("3", 3), ("16", 8), ("2,1", 2), ("", 8), ("all", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert allowed_threads() == allowed


def test_the_count_is_restored_whatever_happens() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), using_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
