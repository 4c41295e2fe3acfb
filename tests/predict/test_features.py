"""What a prompt shows: which words, which numbers, and each column on one scale."""

import numpy as np
import pytest

from llmcourse.predict.features import NAMES, VERBS, Features, by_hand, words


def test_words_are_lower_case_numbers_are_digits_and_chinese_goes_by_the_character() -> None:
    assert words("Count from 3 to 1000, 数故事!") == ["count", "from", "0", "to", "0000", ",", "数", "故", "事", "!"]
    assert words("") == []


def test_the_hand_features_by_name() -> None:
    seen = dict(zip(NAMES, by_hand("List 12 items. Then count from 30 to 7, or 9, please?"), strict=True))
    counts = {name: round(float(np.expm1(seen[name])), 6) for name in NAMES[:8]}
    assert counts == {"words": 16, "numbers": 4, "first number": 12, "last number": 9, "largest number": 30,
                      "from first to last": 3, "commas": 2, "stops": 1}
    assert seen["question"] == 1 and seen["not English"] == 0
    assert {verb for verb in VERBS if seen[verb]} == {"list", "count"}
    chinese = dict(zip(NAMES, by_hand("讲一个故事"), strict=True))
    assert chinese["not English"] == chinese["故事"] == 1 and chinese["question"] == chinese["numbers"] == 0
    assert dict(zip(NAMES, by_hand("Is it 99999999999？"), strict=True))["largest number"] == np.log1p(10_000)


def test_columns_are_on_one_scale_and_a_word_of_one_prompt_is_not_known() -> None:
    prompts = ["tell me one", "tell me one one one", "Sing me 700", "once"]
    features = Features().fit(prompts)
    assert set(features.column) == {"tell", "me", "one"}
    rows = features.rows(prompts)
    assert rows.shape == (4, len(NAMES) + 3) == (4, features.width)
    moving = rows.std(axis=0) > 0
    assert rows.mean(axis=0) == pytest.approx(np.zeros(features.width), abs=1e-6)
    assert rows.std(axis=0)[moving] == pytest.approx(np.ones(moving.sum()), abs=1e-5)
    one = rows[:, len(NAMES) + features.column["one"]]
    assert (one[1] - one[3]) / (one[0] - one[3]) == pytest.approx(np.log(4) / np.log(2), rel=1e-5)
    assert Features(bag=False).fit(prompts).rows(prompts).shape == (4, len(NAMES))


def test_no_value_is_further_than_eight_spreads_from_the_mean() -> None:
    features = Features(bag=False).fit(["Add 1", "Add 2", "Add 3"])
    row = features.rows(["Add 9999" + ", 1" * 500])[0]
    assert row.max() == 8 and row.min() >= -8
