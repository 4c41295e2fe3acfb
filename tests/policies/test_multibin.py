"""Multi-bin batching: edges, batches of one bin, and the closed form beside the simulation."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine, replay
from llmcourse.errors import UserError
from llmcourse.policies import MultiBin
from llmcourse.policies.multibin import batch_time, bin_edges
from llmcourse.workload import Arrival
from tests.policies.bench import ask, mocked, serve


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200, unique=True), st.integers(1, 9))
def test_edges_part_the_lengths_into_equal_shares(lengths: list[int], bins: int) -> None:
    edges = bin_edges(lengths, bins)
    assert len(edges) == bins - 1 and list(edges) == sorted(edges)
    policy = MultiBin(edges)
    counts = np.bincount([policy.bin(ask(1, predicted=n)) for n in lengths], minlength=bins)
    assert counts.sum() == len(lengths) and counts.max() - counts.min() <= 1


def test_an_edge_is_the_first_length_of_the_upper_bin() -> None:
    assert bin_edges([1, 2, 3, 4, 5, 6], 3) == (3, 5)
    policy = MultiBin((3, 5))
    assert [policy.bin(ask(1, predicted=n)) for n in (1, 2, 3, 4, 5, 99)] == [0, 0, 1, 1, 2, 2]


def batches(engine: Engine, arrivals: Sequence[tuple[float, object]]) -> list[list[str]]:
    """Who started together, in order."""
    serve(engine, arrivals)  # type: ignore[arg-type]
    together: dict[float, list[str]] = {}
    for event in engine.events:
        if event.kind == "SCHEDULED" and event.request:
            together.setdefault(event.time, []).append(event.request)
    return list(together.values())


def static(policy: MultiBin, slots: int) -> Engine:
    return mocked(policy, slots, num_blocks=400, batching="static", admission=policy.admission())


def test_batches_go_in_the_order_they_became_full_and_hold_one_bin() -> None:
    lengths = {"a": 9, "b": 1, "c": 8, "d": 9, "e": 2, "f": 7}               # a runs alone: nothing else was there
    engine = static(MultiBin((5,), 2), 2)
    assert batches(engine, [(0.1 * n, ask(tokens, id=name)) for n, (name, tokens) in enumerate(lengths.items())]) == [
        ["a"], ["c", "d"], ["b", "e"], ["f"]]


def test_the_machine_does_not_idle_for_a_batch_to_fill() -> None:
    assert batches(static(MultiBin((5,), 4), 4), [(0, ask(2, id="short")), (0, ask(9, id="long"))]) == [
        ["short"], ["long"]]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), min_size=1, max_size=20), st.integers(1, 4))
def test_no_batch_mixes_bins_or_is_too_large_and_a_bin_goes_in_order(jobs: list[tuple[int, int]], size: int) -> None:
    policy = MultiBin((4, 9, 15), size)
    formed = batches(static(policy, size), [(float(at), ask(n, id=f"j{i}")) for i, (at, n) in enumerate(jobs)])
    bins = [{policy.bin(ask(jobs[int(name[1:])][1])) for name in batch} for batch in formed]
    assert all(len(found) == 1 for found in bins) and max(map(len, formed)) <= size
    for which in range(4):
        served = [name for batch, found in zip(formed, bins, strict=True) if found == {which} for name in batch]
        arrival = [(jobs[int(name[1:])][0], int(name[1:])) for name in served]
        assert all(one < other for one, other in pairwise(arrival))


class PerStep:
    """Every step takes a second, whoever is in it: a batch lasts as many as its longest answer has tokens."""

    def seconds(self, tokens, requests, context, pairs):  # type: ignore[no-untyped-def]
        return 1.0 + 0 * context


@pytest.mark.parametrize("bins", [1, 2, 4, 8])
def test_the_closed_form_is_within_two_percent_of_the_simulation(bins: int) -> None:
    least, most, size = 10, 137, 8
    lengths = np.random.default_rng(0).permutation(np.repeat(np.arange(least, most + 1), 4))
    policy = MultiBin(bin_edges(lengths.tolist(), bins), size)
    engine = Engine.simulated(cost=PerStep(), policy=policy, admission=policy.admission(), batching="static",
                              max_running=size)
    replay(engine, [Arrival(0.0, 8, int(n), predicted=float(n)) for n in lengths])
    assert engine.clock.now / (len(lengths) / size) == pytest.approx(batch_time(least, most, bins, size), rel=0.02)


def test_the_closed_form_in_numbers() -> None:
    assert batch_time(10, 30, 1, 1) == 20                       # nobody waits for anybody
    assert batch_time(0, 1, 1, 3) == 0.75                       # the mean largest of three
    assert batch_time(10, 30, 10**9, 32) == pytest.approx(20)
    gain = [batch_time(0, 1, 1, 32) / batch_time(0, 1, bins, 32) for bins in (2, 4, 8)]
    assert gain == pytest.approx([1.32, 1.57, 1.74], abs=0.01)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="edges rise"):
        MultiBin((5, 3))
    with pytest.raises(UserError, match="0 bins of 2 lengths"):
        bin_edges([1, 2], 0)
    with pytest.raises(UserError, match="0 <= least <= most"):
        batch_time(5, 3, 1, 1)


def test_a_bin_whose_only_request_was_given_up_begins_anew() -> None:
    """Nobody inherits the place in line of a batch that was begun by somebody who has gone."""
    policy = MultiBin((10,), 3)
    gone, waits, newcomer = (ask(output, id=name) for name, output in (("gone", 5), ("waits", 20), ("newcomer", 5)))
    policy.on_queued(gone, 0.0)
    policy.on_queued(waits, 1.0)
    policy.on_done(gone, 2.0)
    policy.on_queued(newcomer, 3.0)
    assert policy.key(waits, 3.0) < policy.key(newcomer, 3.0)
