"""A ledger gives the table that the event log of the same run gives, at any moment, whoever gives up meanwhile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.table import COLUMNS

# prompt, output, steps until the next arrival, and how many places before it somebody gives up (3 and more: nobody)
jobs = st.tuples(st.integers(1, 40), st.integers(1, 30), st.integers(0, 4), st.integers(0, 9))


def play(ledger, workload, batching, steps):
    """A pool of 80 tokens, so that requests are preempted all the time; stops wherever it is."""
    engine = Engine.simulated(num_blocks=20, block_size=4, token_budget=16, max_running=5, ledger=ledger,
                              batching=batching)
    for number, (prompt, output, pause, back) in enumerate(workload):
        engine.add(Request(range(1, prompt + 1), SamplingParams(output), id=f"q{number}", tenant="xy"[number % 2]))
        for _ in range(pause):
            engine.step()
        name = f"q{number - back}"
        if back < 3 and name in engine.requests and not engine.requests[name].done:
            engine.abort(name)
    for _ in range(steps):
        engine.step()
    return engine.table()


@settings(max_examples=80, deadline=None)
@given(st.lists(jobs, min_size=1, max_size=8), st.sampled_from(["static", "continuous", "mixed"]), st.integers(0, 60))
def test_the_ledger_says_what_the_log_says(workload, batching, steps):
    logged, kept = (play(ledger, workload, batching, steps) for ledger in (None, Ledger()))
    for name in COLUMNS:
        if logged[name].dtype.kind == "f":
            np.testing.assert_allclose(kept[name], logged[name], atol=1e-9, err_msg=name)
        else:
            assert list(kept[name]) == list(logged[name]), name
    gaps = np.repeat(kept.gap_seconds, kept.gap_counts)
    assert sorted(gaps) == pytest.approx(sorted(logged.gap_seconds))


def test_preempted_after_the_last_token_is_no_decoding():
    """By hand what chance found: two tokens, preempted, running again, and cut off before a third."""
    workload = [(34, 8, 3, 1), (1, 1, 0, 0), (33, 5, 0, 1)]
    logged, kept = (play(ledger, workload, "mixed", 8) for ledger in (None, Ledger()))
    assert kept["decode_time"][2] == pytest.approx(logged["decode_time"][2])
    assert (kept["decode_time"][~np.isnan(kept["decode_time"])] >= 0).all()
