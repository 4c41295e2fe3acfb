"""Length data: what fits together, split by prompt, and made again by the engine as it was."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse.engine import Engine
from llmcourse.errors import UserError
from llmcourse.model.corpus import is_held_out
from llmcourse.model.training.command import PROMPTS
from llmcourse.model.training.evaluation import read_prompts
from llmcourse.predict import LengthData, measure_lengths
from llmcourse.predict.data import texts
from tests.predict.data import made_up


@pytest.fixture(scope="module")
def shipped() -> LengthData:
    return LengthData.load()


def test_what_ships(shipped: LengthData) -> None:
    """Hundreds of prompts whose lengths differ, most within reach of a predictor, and the first answers as counted."""
    assert len(shipped) > 800 and shipped.samples == 6
    assert np.percentile(shipped.lengths, 99) > 20 * np.median(shipped.lengths)
    assert [len(answer) for answer in shipped.answers] == shipped.lengths[:, 0].tolist()
    known = {sample.prompt: sample.kind for sample in read_prompts(PROMPTS)}
    kinds = dict(zip(shipped.prompts, shipped.kinds, strict=True))
    assert {prompt: kinds[prompt] for prompt in known} == known
    assert all(map(is_held_out, shipped.prompts)), "course-tiny was trained on one of them"


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 0.9), st.integers(0, 1000))
def test_a_split_parts_prompts_and_never_samples(held_out: float, seed: int) -> None:
    data = made_up(40)
    train, test = data.split(held_out, seed)
    assert not set(train.prompts) & set(test.prompts)
    assert set(train.prompts) | set(test.prompts) == set(data.prompts)
    assert len(test) == round(held_out * 40)
    rows = {prompt: row.tolist() for prompt, row in zip(data.prompts, data.lengths, strict=True)}
    for side in (train, test):
        assert [rows[prompt] for prompt in side.prompts] == side.lengths.tolist()


def test_the_split_knows_neither_lengths_nor_order_and_keeps_wordings_together(shipped: LengthData) -> None:
    train, test = shipped.split()
    back = shipped.select(range(len(shipped))[::-1])
    other = LengthData(back.prompts, back.lengths[::-1], back.kinds)
    assert set(other.split()[1].prompts) == set(test.prompts) != set(shipped.split(seed=1)[1].prompts)
    letters = [{"".join(filter(str.isalnum, prompt.casefold())) for prompt in side.prompts} for side in (train, test)]
    assert not letters[0] & letters[1]


def test_saved_and_loaded(tmp_path: Path, shipped: LengthData) -> None:
    for data in (shipped.select(range(0, 800, 50)), made_up(7)):
        data.save(tmp_path / "data.jsonl")
        again = LengthData.load(tmp_path / "data.jsonl")
        assert (again.prompts, again.kinds, again.answers) == (data.prompts, data.kinds, data.answers)
        assert (again.lengths == data.lengths).all()


def test_texts_and_their_tokens_are_one_prompt(shipped: LengthData) -> None:
    assert texts(shipped.tokens) == list(shipped.prompts)


def test_measuring_again_gives_the_same_lengths(shipped: LengthData) -> None:
    """Of what ships: the same seeds in another company of requests, and seeds of its own for each answer."""
    engine = Engine.from_model("course-tiny", device="cpu", threads=1)
    told: list[tuple[int, int]] = []
    few = measure_lengths(engine, shipped.prompts[:3], 6, lambda *done: told.append(done))
    assert (few.lengths != shipped.lengths[:3]).mean() <= 1 / 3, "more than rounding on another machine explains"
    assert few.answers[0] == shipped.answers[0]
    assert told[-1] == (18, 18) and [done for done, _ in told] == sorted(done for done, _ in told)
    stories = [prompt for prompt, kind in zip(shipped.prompts, shipped.kinds, strict=True) if kind == "story"][:2]
    assert len(set(measure_lengths(engine, stories, 4).lengths[0].tolist())) > 1


@pytest.mark.parametrize("build, message", [
    (lambda: LengthData(("a",), np.ones((2, 1), int)), "1 prompts with lengths of shape"),
    (lambda: LengthData(("a", "a"), np.ones((2, 1), int)), "come twice"),
    (lambda: LengthData(("a",), np.zeros((1, 1), int)), "at least 1"),
    (lambda: LengthData(("a",), np.ones((1, 1), int), kinds=("x", "y")), "2 kinds"),
    (lambda: LengthData(("a",), np.ones((1, 1), int)).split(), "neither may be 0"),
    (lambda: LengthData.load("nowhere.jsonl"), "does not exist"),
])
def test_what_does_not_fit_is_refused(build, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


def test_a_line_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"kind": "", "prompt": "a", "lengths": [1], "answer": []}\n{}\n')
    with pytest.raises(UserError, match="line 2"):
        LengthData.load(tmp_path / "x.jsonl")
