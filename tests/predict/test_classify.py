"""Buckets, by hand: where lengths are cut, what is typical, and what chances say of an answer under way."""

import numpy as np
import pytest
import torch

from llmcourse.engine import Request, SamplingParams
from llmcourse.predict import BucketClassifier, LengthData, Ordinal, PairwiseRanker
from llmcourse.predict.classify import buckets, quantile_cuts

DATA = LengthData(("a", "b"), np.array([[5, 7, 10], [9, 30, 40]]))
LOGITS = np.array([[0.0, 2.0, 1.0]])


def test_cuts_are_percentiles_and_belong_below_themselves() -> None:
    lengths = np.arange(1, 102)
    assert quantile_cuts(lengths).tolist() == [26, 51, 76, 100]
    assert buckets(np.array([1, 26, 27, 51, 100, 101]), quantile_cuts(lengths)).tolist() == [0, 0, 1, 1, 3, 4]
    assert quantile_cuts(np.array([4, 4, 4, 4, 9])).tolist() == pytest.approx([4, 8.8])


def made(kind: type[BucketClassifier] | type[Ordinal], said: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    """A classifier with buckets up to 10, up to 20 and above, whose network says what it is told to."""
    classifier = kind([10, 20])
    classifier.prepare(DATA)
    monkeypatch.setattr(classifier, "outputs_of", lambda prompts: said)
    return classifier


def test_what_is_typical_is_the_median_or_the_middle_of_an_empty_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(BucketClassifier, LOGITS, monkeypatch).typical.tolist() == [8, 15, 35]
    empty_top = BucketClassifier([10, 50])
    empty_top.prepare(DATA)
    assert empty_top.typical.tolist() == [8, 35, 75]          # above 50 as far as to twice that
    assert made(Ordinal, LOGITS, monkeypatch).outputs == 2 and made(BucketClassifier, LOGITS, monkeypatch).outputs == 3


def test_the_likeliest_bucket_is_said_and_what_is_left_leaves_out_those_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = made(BucketClassifier, LOGITS, monkeypatch)
    chances = np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum()
    assert classifier.probabilities(["x"])[0] == pytest.approx(chances) and classifier.predict(["x"]).tolist() == [15]
    request = Request([1], SamplingParams(max_tokens=99))
    assert classifier.remaining(request) == pytest.approx(chances @ [8, 15, 35])
    request.tokens += [1] * 8
    assert classifier.remaining(request) == pytest.approx((chances[1] * 7 + chances[2] * 27) / chances[1:].sum())
    request.tokens += [1] * 6
    assert classifier.remaining(request) == pytest.approx((chances[1] * 1 + chances[2] * 21) / chances[1:].sum())
    request.tokens += [1] * 21
    assert classifier.remaining(request) == 1


def test_ordinal_answers_are_made_to_fall_and_their_differences_are_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = made(Ordinal, np.array([[np.log(3), np.log(1 / 3)], [0.0, 50.0]]), monkeypatch)
    assert classifier.probabilities(["x", "y"]) == pytest.approx(np.array([[0.25, 0.5, 0.25], [0.5, 0, 0.5]]))
    assert classifier.predict(["x", "y"]) == pytest.approx([0.25 * 8 + 0.5 * 15 + 0.25 * 35, 0.5 * 8 + 0.5 * 35])


def test_the_losses_are_those_of_their_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = torch.tensor([10.0, 11.0, 21.0])                # buckets 0, 1, 2
    said = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [2.0, 2.0, 2.0]])
    cross = -said.log_softmax(1)[[0, 1, 2], [0, 1, 2]].mean()
    assert float(made(BucketClassifier, LOGITS, monkeypatch).loss(said, lengths)) == pytest.approx(float(cross))
    two, longer = said[:, :2], torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    chance = two.sigmoid()
    binary = -(longer * chance.log() + (1 - longer) * (1 - chance).log()).mean()
    assert float(made(Ordinal, LOGITS, monkeypatch).loss(two, lengths)) == pytest.approx(float(binary))


def test_a_pair_of_one_label_says_nothing_and_the_others_cost_their_gap() -> None:
    ranker = PairwiseRanker(group=10)
    scores, lengths = torch.tensor([[0.3], [1.0], [-0.5], [2.0]]), torch.tensor([12.0, 19.0, 45.0, 5.0])
    assert ranker.labels(lengths).tolist() == [1, 1, 4, 0]
    cost = 0.0
    pairs = [(2, 1), (2, 3), (0, 3)]                          # longer, shorter: of the four neighbours in a ring
    for longer, shorter in pairs:
        cost += float(torch.log1p(torch.exp(-(scores[longer] - scores[shorter]))))
    assert float(ranker.loss(scores, lengths)) == pytest.approx(cost / len(pairs))
    assert float(ranker.loss(scores, torch.ones(4))) == 0
