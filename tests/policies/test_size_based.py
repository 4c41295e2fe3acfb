"""SJF and SRTF: what they promise, and what they do not change."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, Policy
from llmcourse.engine.replay import replay
from llmcourse.policies import FCFS, SJF, SRTF
from llmcourse.workload import Constant, Lognormal, Poisson, open_loop, with_oracle
from tests.policies.bench import ask, mocked, serve

CAPACITY = 10.0          # requests/s that 32 slots of the simulated engine below serve


def test_the_shortest_waiting_job_starts_next_and_the_running_one_is_left_alone() -> None:
    engine = mocked(SJF())
    ends = serve(engine, [(0, ask(6, id="long")), (1, ask(4, id="medium")), (2, ask(1, id="short"))])
    assert ends == {"long": 6, "short": 7, "medium": 11}
    assert engine.counters.preemptions == 0


def test_it_goes_by_the_prediction_right_or_wrong_and_by_max_tokens_without_one() -> None:
    ends = serve(mocked(SJF()), [(0, ask(3, id="first")), (0.5, ask(2, id="underrated", predicted=9)),
                                 (0.5, ask(8, id="overrated", predicted=1)), (0.5, ask(5, id="silent"))])
    assert sorted(ends, key=ends.__getitem__) == ["first", "overrated", "silent", "underrated"]


def test_srtf_pushes_out_whoever_has_more_left_and_pays_in_recomputed_tokens() -> None:
    engine = mocked(SRTF())
    ends = serve(engine, [(0, ask(6, prompt=3, id="long")), (2, ask(2, id="short"))])
    assert ends == {"short": 4, "long": 8}
    assert engine.counters.preemptions == 1
    assert engine.counters.recomputed_tokens == 3 + 1            # the prompt and the token behind it


def test_srtf_lets_the_running_request_end_when_less_is_left_of_it() -> None:
    engine = mocked(SRTF())
    assert serve(engine, [(0, ask(6, id="long")), (4, ask(3, id="short"))]) == {"long": 6, "short": 9}
    assert engine.counters.preemptions == 0


def best_mean_completion(jobs: tuple[tuple[int, int], ...]) -> float:
    """The least mean completion time of any preemptive schedule of (arrival, steps) on one slot, by trying them all.

    Some optimal schedule runs, at every step, the first unfinished arrived job of a fixed order.
    """
    best = float("inf")
    for order in permutations(range(len(jobs))):
        left, ends, now = [steps for _, steps in jobs], [0] * len(jobs), 0
        while any(left):
            ready = [job for job in order if left[job] and jobs[job][0] <= now]
            now += 1
            if ready:
                left[ready[0]] -= 1
                ends[ready[0]] = now
        best = min(best, sum(ends) - sum(arrival for arrival, _ in jobs))
    return best / len(jobs)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 6)), min_size=1, max_size=5))
def test_no_order_beats_srtf_on_one_slot_with_free_switching(jobs: list[tuple[int, int]]) -> None:
    """Refilling a lost cache fits into the step that goes on, so that switching costs no step here."""
    arrivals = [(float(at), ask(steps, id=f"j{n}")) for n, (at, steps) in enumerate(jobs)]
    ends = serve(mocked(SRTF()), arrivals)
    mean = sum(ends[f"j{n}"] - at for n, (at, _) in enumerate(jobs)) / len(jobs)
    assert mean == pytest.approx(best_mean_completion(tuple(jobs)))


class PerRequest:
    """Steps that know no context: shorter jobs first also means shorter contexts, which makes steps faster."""

    def seconds(self, tokens, requests, context, pairs):  # type: ignore[no-untyped-def]
        return 0.012 + 0.0002 * requests + 0.00006 * (tokens - requests) + 0 * context


def served(policy: Policy, load: float, count: int, parking: bool = False) -> tuple[float, np.ndarray]:
    """A simulated engine with 32 slots and room for all: output tokens/s until the last has come, end-to-end times.

    After that SJF is left with the longest jobs, fewer than slots; no service lives through the end of its workload.
    """
    engine = Engine.simulated(cost=PerRequest(), policy=policy, max_running=32, parking=parking)
    workload = with_oracle(open_loop(Poisson(load * CAPACITY), Constant(60), Lognormal(120, p99=700), count, seed=5))
    replay(engine, workload, stop=lambda: engine.clock.now >= workload[-1].time)
    rate = sum(request.num_output for request in engine.requests.values()) / engine.clock.now
    while not engine.idle:
        engine.step()
        engine.forward()
    return rate, engine.table().columns["e2e"]


def test_past_saturation_sjf_halves_the_mean_and_makes_no_more_tokens_a_second() -> None:
    (fcfs, fcfs_e2e), (sjf, sjf_e2e) = served(FCFS(), 1.2, 1500), served(SJF(), 1.2, 1500)
    assert sjf == pytest.approx(fcfs, rel=0.01)
    assert sjf_e2e.mean() < 0.7 * fcfs_e2e.mean()
    assert sjf_e2e.max() > fcfs_e2e.max()                        # somebody pays: the longest


def test_at_load_seventy_percent_sjf_changes_nothing() -> None:
    (fcfs, fcfs_e2e), (sjf, sjf_e2e) = served(FCFS(), 0.7, 600), served(SJF(), 0.7, 600)
    assert sjf == pytest.approx(fcfs, rel=0.01)
    assert sjf_e2e.mean() == pytest.approx(fcfs_e2e.mean(), rel=0.02)


def test_srtf_beats_sjf_where_changing_seats_costs_nothing_and_loses_where_it_costs_the_cache() -> None:
    sjf_rate, sjf = served(SJF(), 1.2, 600)
    parked_rate, parked = served(SRTF(), 1.2, 600, parking=True)
    assert parked.mean() <= sjf.mean() and parked_rate == pytest.approx(sjf_rate, rel=0.01)
    recomputed_rate, recomputed = served(SRTF(), 1.2, 600)
    assert recomputed.mean() > sjf.mean() and recomputed_rate < 0.98 * sjf_rate
