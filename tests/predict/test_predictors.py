"""What every predictor keeps: it never sees the answers, its seed decides, and it beats what knows nothing."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from llmcourse.engine import Request, SamplingParams
from llmcourse.errors import UserError
from llmcourse.predict import (
    MLP,
    BucketClassifier,
    Constant,
    LengthData,
    ListMLE,
    Noisy,
    Oracle,
    Ordinal,
    PairwiseRanker,
    Predictor,
    Ridge,
    annotate,
    kendall_tau,
    list_mle,
    score,
    timed,
)
from tests.predict.data import made_up

LEARNING: dict[str, Callable[[], Predictor]] = {
    "ridge": Ridge, "ridge with a bag": lambda: Ridge(bag=True), "mlp": lambda: MLP(steps=60),
    "buckets": lambda: BucketClassifier(steps=60), "narrow": lambda: BucketClassifier(range(10, 500, 10), steps=150),
    "ordinal": lambda: Ordinal(steps=60), "pairwise": lambda: PairwiseRanker(steps=150),
    "listmle": lambda: ListMLE(steps=60), "listmle, group 1": lambda: ListMLE(1, steps=150),
    "noisy": lambda: Noisy(Ridge(), 0.3),
}


@pytest.fixture(scope="module")
def shipped() -> LengthData:
    return LengthData.load()


@pytest.fixture(params=LEARNING)
def make(request: pytest.FixtureRequest) -> Callable[[], Predictor]:
    return LEARNING[request.param]


def test_nobody_sees_the_answers_to_held_out_prompts(make: Callable[[], Predictor]) -> None:
    """Permute the lengths of the held-out prompts before anything is split or fitted: not one bit changes."""
    data = made_up()
    held = set(data.split()[1].prompts)
    rows = [row for row, prompt in enumerate(data.prompts) if prompt in held]
    lengths = data.lengths.copy()
    lengths[rows] = np.random.default_rng(1).permutation(lengths[rows])
    assert (lengths != data.lengths).any()
    said = []
    for both in (data, LengthData(data.prompts, lengths)):
        train, test = both.split()
        said.append(make().fit(train).predict(test.prompts))
    assert said[0].tobytes() == said[1].tobytes()


def test_what_is_learned_is_in_the_labels(make: Callable[[], Predictor], shipped: LengthData) -> None:
    """Permute the training lengths over the prompts: what is left of the order is chance, right or wrong."""
    train, test = shipped.split()
    taus = [score(make().fit(LengthData(train.prompts, np.random.default_rng(seed).permutation(train.lengths))),
                  test).tau for seed in range(2)]
    assert score(make().fit(train), test).tau > 0.5
    assert abs(np.mean(taus)) < 0.15


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(make: Callable[[], Predictor]) -> None:
    train, test = made_up(60).split()
    first = make().fit(train).predict(test.prompts)
    torch.manual_seed(99)
    np.random.seed(99)
    state = torch.random.get_rng_state()
    assert make().fit(train).predict(test.prompts).tobytes() == first.tobytes()
    assert (torch.random.get_rng_state() == state).all(), "it has drawn from the generator that belongs to everybody"


def test_a_prompt_is_a_prompt_as_text_or_tokens_alone_or_in_company(make: Callable[[], Predictor]) -> None:
    data = made_up(60)
    predictor = make().fit(data)
    together = predictor.predict(data.prompts)
    assert together.tobytes() == predictor.predict(data.tokens).tobytes()
    alone = [predictor.predict([prompt])[0] for prompt in data.prompts]
    assert alone == pytest.approx(together.tolist(), rel=1e-4, abs=1e-5)


def test_progress_is_told_and_unknown_words_are_no_trouble(make: Callable[[], Predictor]) -> None:
    told: list[tuple[int, int]] = []
    predictor = make().fit(made_up(40), lambda *done: told.append(done))
    assert told and all(of == told[-1][0] for _, of in told)
    said = predictor.predict(["", "Zyx?" * 50, "故事 99999999999999"])
    assert said.shape == (3,) and np.isfinite(said).all()
    assert predictor.is_ranker or (said >= 1).all()


@pytest.mark.parametrize("name", ["ridge", "mlp", "buckets", "ordinal"])
def test_on_course_tiny_it_beats_the_median_and_keeps_below_the_ceiling(name: str, shipped: LengthData) -> None:
    made: dict[str, Callable[[], Predictor]] = {"ridge": Ridge, "mlp": lambda: MLP(steps=200),
                                                "buckets": BucketClassifier, "ordinal": Ordinal}
    train, test = shipped.split()
    mine, nothing = score(made[name]().fit(train), test), score(Constant().fit(train), test)
    assert mine.mae is not None and nothing.mae is not None
    assert mine.mae < 0.8 * nothing.mae
    assert 0.6 < mine.tau < 0.92
    assert nothing.tau == 0


def test_rankers_on_course_tiny(shipped: LengthData) -> None:
    train, test = shipped.split()
    for ranker in (ListMLE(steps=200), PairwiseRanker(steps=200)):
        found = score(ranker.fit(train), test)
        assert found.tau > 0.6
        assert found.mae is None and found.accuracy is None


def test_list_mle_is_the_likelihood_of_drawing_the_list_in_order() -> None:
    """Against the definition, place by place; the right order costs less than the reversed one."""
    lengths, scores = torch.tensor([[30.0, 10.0, 20.0]]), torch.tensor([[2.0, -1.0, 0.5]])
    ordered = (-scores[0, [1, 2, 0]]).double()
    chance = 1.0
    for place in range(3):
        chance *= float(ordered[place].exp() / ordered[place:].exp().sum())
    assert float(list_mle(scores, lengths)[0]) == pytest.approx(-np.log(chance), rel=1e-5)
    assert float(list_mle(-scores, lengths)[0]) > float(list_mle(scores, lengths)[0])


def test_an_oracle_is_told_and_never_learns() -> None:
    data = made_up(5, 1)
    oracle = Oracle(dict(zip(data.prompts, data.lengths[:, 0].tolist(), strict=True)))
    assert kendall_tau(oracle.predict(data.tokens), data.lengths[:, 0]) == 1
    with pytest.raises(UserError, match="cannot be fitted"):
        oracle.fit(data)
    with pytest.raises(UserError, match="not 'Sing'"):
        oracle.predict(["Sing"])


def test_annotate_reads_prompts_and_sets_predictions() -> None:
    data = made_up(20)
    predictor = Ridge().fit(data)
    requests = [Request(tokens, SamplingParams(max_tokens=9)) for tokens in data.tokens]
    assert annotate(requests, predictor) > 0
    assert [request.predicted for request in requests] == predictor.predict(data.prompts).tolist()
    longer = [Request(tokens, SamplingParams(max_tokens=90 + place)) for place, tokens in enumerate(data.tokens)]
    annotate(longer, predictor)                                # in a simulation max_tokens may be the answer's length
    assert [request.predicted for request in longer] == [request.predicted for request in requests]


def test_what_remains_shrinks_with_the_output_and_buckets_that_are_passed_are_out() -> None:
    data = made_up(60, noise=1.0)
    for predictor in (Ridge().fit(data), BucketClassifier(steps=50).fit(data), Ordinal(steps=50).fit(data)):
        request = Request(data.tokens[0], SamplingParams(max_tokens=4096))
        start = predictor.remaining(request)
        assert start >= 1
        request.tokens += [5] * 4000
        assert predictor.remaining(request) == 1
    classes = BucketClassifier(steps=50).fit(data)
    request = Request(data.tokens[0], SamplingParams(max_tokens=4096))
    request.tokens += [5] * int(classes.typical[1])
    whole = classes.remaining(request) + request.num_output
    assert whole > classes.typical[1], "it has passed what is typical of the lower buckets"
    with pytest.raises(UserError, match="an order and no number"):
        ListMLE(steps=1).fit(data).remaining(request)


def test_time_is_measured_a_prompt_at_a_time() -> None:
    predictor = Ridge().fit(made_up(10))
    assert predictor.seconds_per_request is None
    assert timed(predictor, ["Count to 5"] * 5) == predictor.seconds_per_request > 0
    with pytest.raises(UserError, match="0 prompts"):
        timed(predictor, [])


@pytest.mark.parametrize("build, message", [
    (lambda: Ridge(penalty=0), "above 0"), (lambda: BucketClassifier([5, 3]), "must rise"),
    (lambda: ListMLE(group=0), "at least 1"), (lambda: Noisy(ListMLE(), 0.3), "needs tokens"),
])
def test_settings_that_mean_nothing_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
