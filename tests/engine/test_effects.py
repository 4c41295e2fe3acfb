"""The effects that weeks 3 to 5 teach, in virtual time: their direction and their rough size, over load.

The sizes come from the papers' settings in small (Orca, Yu et al., 2022; Sarathi-Serve, Agrawal et al., 2024):
Llama-2-7B on an A100. Bounds are loose on purpose: these tests say that a mechanism works, benchmarks say how well.
"""

import numpy as np
import pytest

from llmcourse.engine import Engine, replay
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.percentile import percentile
from llmcourse.policies import FCFS
from llmcourse.policies.sjf import SJF
from llmcourse.policies.srtf import SRTF
from llmcourse.workload import Arrival, Lognormal, Poisson, open_loop, with_oracle


def run(workload, **options):
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", ledger=Ledger(), **options)
    return replay(engine, workload), engine


def p99_gap(table):
    return percentile(table.gap_seconds, 99, table.gap_counts)


@pytest.fixture(scope="module")
def long_prompts():
    return {rate: open_loop(Poisson(rate), Lognormal(1500, p99=6000), Lognormal(140, p99=800), 300, seed=0)
            for rate in (0.5, 2.0, 3.0)}


@pytest.mark.parametrize("rate", [0.5, 2.0, 3.0])
def test_chunked_prefill_cuts_the_tail_of_gaps_and_costs_some_ttft(long_prompts, rate):
    """Sarathi-Serve's generation stalls: decodes wait for whole prompts, or for one chunk."""
    whole, _ = run(long_prompts[rate], batching="continuous", token_budget=8192)
    gaps, first = {}, {}
    for budget in (2048, 512, 256):
        table, _ = run(long_prompts[rate], batching="mixed", token_budget=budget)
        gaps[budget], first[budget] = p99_gap(table), percentile(table["ttft"], 50)
    if rate < 1:
        # Prompts are rare: the 99th gap is none of theirs. Cut into chunks they lengthen three times as many.
        assert p99_gap(whole) < gaps[512] < whole.gap_seconds.max() / 8
    else:
        assert p99_gap(whole) >= gaps[2048] > gaps[512] > gaps[256]
        assert p99_gap(whole) > 3 * gaps[512]
    assert whole.gap_seconds.max() > 8 * 0.06                          # but the longest stall is there at any load
    assert percentile(whole["ttft"], 50) < first[512] < 2 * percentile(whole["ttft"], 50)
    assert first[2048] < first[512] < first[256]


def test_iteration_level_batching_carries_several_times_the_load_of_static_batches():
    """Orca: normalised latency (s/token) over load; static batches saturate first, and tokens are the same."""
    normalised = {}
    for rate in (0.5, 1.0, 4.0):
        load = open_loop(Poisson(rate), Lognormal(60, p99=600), Lognormal(130, p99=900), 250, seed=1)
        for batching in ("static", "continuous"):
            table, _ = run(load, batching=batching, token_budget=2048, max_running=16)
            normalised[batching, rate] = float(np.mean(table["e2e"] / table["output_tokens"]))
            assert table["output_tokens"].sum() == sum(arrival.output_tokens for arrival in load)
    knee = 2 * normalised["continuous", 0.5]
    assert normalised["continuous", 4.0] < knee < normalised["static", 0.5]
    assert normalised["static", 4.0] > 10 * normalised["continuous", 4.0]


def test_one_long_request_blocks_the_short_ones_behind_it_under_fcfs_only():
    """Head-of-line blocking with one slot: everybody behind the long one waits for all of it."""
    load = with_oracle([Arrival(0.0, 50, 10), Arrival(0.01, 50, 1500), *(Arrival(0.02, 50, 10) for _ in range(20))])
    fcfs, _ = run(load, policy=FCFS(), max_running=1)
    sjf, _ = run(load, policy=SJF(), max_running=1)
    assert fcfs["queue_time"][2:].min() > 15 and sjf["queue_time"][2:].max() < 4
    assert sjf["e2e"].mean() < fcfs["e2e"].mean() / 5
    assert sjf["e2e"][1] > fcfs["e2e"][1]                              # somebody pays


def test_preemption_costs_recomputation_and_pays_for_short_requests():
    load = with_oracle([Arrival(0.0, 2000, 1000), *(Arrival(1.0 + i, 50, 10) for i in range(5))])
    table, engine = run(load, policy=SRTF(), max_running=1)
    assert engine.counters.preemptions == 5
    assert engine.counters.recomputed_tokens > 5 * 2000
    assert table["e2e"][1:].max() < 1.0
    waited, _ = run(load, policy=SJF(), max_running=1)
    assert waited["e2e"][1:].min() > 5.0 and waited["e2e"][0] < table["e2e"][0]


def test_at_low_load_no_policy_helps():
    load = with_oracle(open_loop(Poisson(0.2), Lognormal(300, p99=2000), Lognormal(130, p99=900), 120, seed=5))
    means = [run(load, policy=policy)[0]["e2e"].mean() for policy in (FCFS(), SJF(), SRTF())]
    assert max(means) / min(means) < 1.01
