"""The maps of FastServe on few requests: what must hold at any size."""

from benchmarks import _decide_mlfq as mlfq
from llmcourse.policies import FCFS, FastServe
from llmcourse.workload import Poisson, open_loop


def test_the_saturation_is_what_a_full_queue_is_served_at() -> None:
    rate = mlfq.saturation()
    assert 1000 < rate * mlfq.MEAN < 1300                     # 16 decode at once in about 13 ms
    work = open_loop(Poisson(2 * rate), mlfq.PROMPTS, mlfq.OUTPUTS, 600, seed=1)
    figures, _ = mlfq.serve(FCFS(), work, **mlfq.BIG)
    assert figures["tokens/s"] < 1.05 * rate * mlfq.MEAN


def test_under_load_the_mean_time_per_token_falls_and_the_tail_pays() -> None:
    work = open_loop(Poisson(1.4 * mlfq.saturation()), mlfq.PROMPTS, mlfq.OUTPUTS, 500, seed=1)
    fcfs, queue = (mlfq.serve(policy, work, **mlfq.BIG)[0] for policy in (FCFS(), FastServe()))
    assert queue["s/token"] < 0.7 * fcfs["s/token"] and queue["JCT p99 (s)"] > fcfs["JCT p99 (s)"]
    assert abs(queue["tokens/s"] / fcfs["tokens/s"] - 1) < 0.1 and queue["recomputed"] == 0


def test_each_place_for_kv_does_what_it_is_called() -> None:
    work = open_loop(Poisson(1.4 * mlfq.saturation("A10")), mlfq.PROMPTS, mlfq.OUTPUTS, 200, seed=1)
    found = {name: mlfq.serve(FastServe(starve_after=None), work, **(mlfq.SMALL | options))[0]
             for name, options in mlfq.PLACES.items()}
    again, swapped, parked, late, ahead = found.values()
    assert again["recomputed"] > parked["recomputed"] and again["blocks moved"] == parked["blocks moved"] == 0
    assert swapped["recomputed"] == 0 and swapped["blocks moved"] > late["blocks moved"] > 0
    assert ahead["blocks moved"] > 0 and ahead["recomputed"] == 0
