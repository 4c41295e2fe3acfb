"""Errors made to measure: as large as asked, from the truth alone, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.predict import Confusion, LognormalNoise, accuracy, kendall_tau, realistic, with_predictions
from llmcourse.predict.noise import QUANTILES
from llmcourse.workload import Arrival, Lognormal, Poisson, open_loop, profile, read_trace, write_trace

LMSYS_LIKE = Lognormal(120, sigma=1.2)


def test_the_realistic_predictor_has_the_published_accuracy_and_tau() -> None:
    """By its own formula, and on lengths: of a lognormal, and of the Chatbot Arena trace, where whole tokens tie."""
    matrix = realistic()
    assert matrix.accuracy == pytest.approx(0.598, abs=1e-9) and matrix.tau == pytest.approx(0.636, abs=1e-6)
    for lengths in (LMSYS_LIKE, profile("arena").outputs):
        truth = lengths.sample(np.random.default_rng(0), 30_000).astype(float)
        said = matrix.guess(truth, np.random.default_rng(1))
        assert accuracy(truth, said, np.quantile(truth, QUANTILES)) == pytest.approx(0.598, abs=0.01)
        assert kendall_tau(truth, said) == pytest.approx(0.636, abs=0.01)
        assert len(set(said.tolist())) == 5


@pytest.mark.parametrize("sigma, tau", [(0.3, 0.83), (0.6, 0.71), (1.0, 0.56)])
def test_lognormal_noise_costs_tau_as_measured_on_lmsys_lengths(sigma: float, tau: float) -> None:
    for lengths in (LMSYS_LIKE, profile("arena").outputs):
        truth = lengths.sample(np.random.default_rng(0), 20_000)
        said = LognormalNoise(sigma).guess(truth, np.random.default_rng(1))
        assert kendall_tau(truth, said) == pytest.approx(tau, abs=0.025)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_tau_of_a_matrix_is_that_of_what_it_says(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(classes), size=classes)
    cuts = np.cumsum(rng.dirichlet(np.ones(classes) * 3))[:-1]
    matrix = Confusion(tuple(map(tuple, rows.tolist())), tuple(cuts.tolist()))
    truth = rng.random(6000) + 1
    assert kendall_tau(truth, matrix.guess(truth, rng)) == pytest.approx(matrix.tau, abs=0.05)


@pytest.mark.parametrize("source", [LognormalNoise(0.5), realistic()])
def test_arrivals_keep_everything_but_the_prediction(source, tmp_path) -> None:
    load = open_loop(Poisson(2), LMSYS_LIKE, LMSYS_LIKE, 200, seed=3)
    said = with_predictions(load, source, seed=4)
    assert [(a.time, a.prompt_tokens, a.output_tokens) for a in said] == [
        (a.time, a.prompt_tokens, a.output_tokens) for a in load]
    assert said == with_predictions(load, source, seed=4) != with_predictions(load, source, seed=5)
    assert all(a.predicted is not None and a.predicted >= 1 for a in said)
    write_trace(tmp_path / "trace.csv", said)
    assert read_trace(tmp_path / "trace.csv") == said, "a prediction that is no whole number survives a file"


def test_no_noise_is_an_oracle_and_nothing_has_no_predictions() -> None:
    load = [Arrival(0, 1, tokens) for tokens in (3, 1, 7)]
    assert [a.predicted for a in with_predictions(load, LognormalNoise(0), 0)] == [3, 1, 7]
    assert with_predictions([], realistic(), 0) == []
    assert with_predictions(load[:1], realistic(), 0)[0].predicted is not None


@pytest.mark.parametrize("build, message", [
    (lambda: LognormalNoise(-1), "0 or more"),
    (lambda: Confusion(((0.5, 0.5),), (0.5,)), "a row and a column"),
    (lambda: Confusion(((0.5, 0.4), (0, 1)), (0.5,)), "sum to 1"),
    (lambda: Confusion(((1, 0), (0, 1)), (1.0,)), "must rise"),
    (lambda: realistic(0.598, 0.99), "no matrix"),
])
def test_what_is_no_table_of_chances_is_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
