"""Predictors and length data refuse what they cannot learn from, or say anything about."""

import math

import pytest

from llmcourse.errors import UserError
from llmcourse.predict import MLP, BucketClassifier, Constant, LengthData, ListMLE, Ordinal, PairwiseRanker, Ridge

KINDS = (Constant, Ridge, MLP, BucketClassifier, Ordinal, PairwiseRanker, ListMLE)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_predicts_before_it_has_learnt(kind):
    with pytest.raises(UserError, match=r"cannot predict; call fit\(data\) first"):
        kind().predict(["Count from 3 to 9."])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [None, [], ["a prompt"]])
def test_nobody_learns_from_what_is_no_length_data(kind, data):
    with pytest.raises(UserError, match="learns from LengthData"):
        kind().fit(data)


@pytest.fixture(scope="module")
def learnt():
    data = LengthData.load().split(0.9, 0)[0]
    return [Constant().fit(data), Ridge().fit(data), MLP(steps=2).fit(data)]


@pytest.mark.parametrize(("prompts", "said"), [
    ("one text", "give a list"), (None, "give a list"), ([None], "a prompt is None"), ([1, 2], "a prompt is 1"),
    ([[-1]], r"a prompt is \[-1\]")])
def test_prompts_are_a_list_of_texts_or_ids(learnt, prompts, said):
    for predictor in learnt:
        with pytest.raises(UserError, match=said):
            predictor.predict(prompts)


@pytest.mark.parametrize("make", [
    lambda: MLP(hidden=0), lambda: MLP(steps=0), lambda: MLP(rate=math.nan), lambda: MLP(rate=-1),
    lambda: MLP(hidden=1.5), lambda: ListMLE(group=math.nan), lambda: Ridge(math.nan), lambda: Ridge(math.inf),
    lambda: MLP(seed="x"), lambda: BucketClassifier(cuts="abc"), lambda: Ordinal(cuts=[math.nan]),
    lambda: Ordinal(cuts=3), lambda: Ordinal(cuts=[])])
def test_settings_that_cannot_train_are_refused(make):
    with pytest.raises(UserError):
        make()


@pytest.mark.parametrize("held_out", [0, 1, -1, math.nan, math.inf, "x", None])
def test_a_share_lies_between_none_and_all(held_out):
    with pytest.raises(UserError, match="held_out"):
        LengthData.load().split(held_out)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "lengths.jsonl"
    path.write_bytes(b"\x88\xff\x00")
    with pytest.raises(UserError, match="cannot be read as text"):
        LengthData.load(path)
