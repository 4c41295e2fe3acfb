"""The corpus: the same seed gives the same text, answers are right, held-out prompts stay out."""

import hashlib
import re
from itertools import islice, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.model import corpus
from llmcourse.model.corpus import stories
from llmcourse.model.corpus.phrasing import few_or_many, is_chinese

seeds = st.integers(0, 2**32)
KINDS = sorted(corpus.TASKS)


def numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


@pytest.mark.parametrize(("late", "digest"), [
    (False, "95ba67ba7c05b2d35176b1f36f5b143a03e91b813310148c7da337ed7aa62fa1"),
    (True, "5b379404778589475d0022d907882397e892e35af5c6f6474dc9744ac251fa96")])
def test_the_stream_of_seed_0_is_always_the_same(late, digest):
    drawn = [(s.kind, s.argument, s.prompt, s.answer) for s in islice(corpus.samples(0, late=late), 2000)]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest() == digest


def test_practice_tasks_are_not_asked_late():
    practice = {kind for kind, task in corpus.TASKS.items() if task.practice}
    assert practice and not practice & {s.kind for s in islice(corpus.samples(0, late=True), 2000)}


def test_another_seed_gives_another_stream():
    assert next(corpus.samples(0)) != next(corpus.samples(1))


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds)
def test_every_kind_draws_a_question_with_an_answer(kind, seed):
    sample = corpus.draw(kind, Random(seed))
    assert sample == corpus.draw(kind, Random(seed))
    assert sample.prompt.strip() == sample.prompt != ""
    assert sample.answer.strip() == sample.answer != ""
    assert "{" not in sample.prompt + sample.answer
    assert sample.argument >= 0


def test_an_unknown_kind_is_a_key_error():
    with pytest.raises(KeyError, match="poem"):
        corpus.draw("poem", Random(0))


@given(seeds)
def test_counts_run_from_a_to_b_without_a_gap(seed):
    for kind, step in (("count", 1), ("countdown", -1)):
        sample = corpus.draw(kind, Random(seed))
        counted = numbers(sample.answer)
        assert [b - a for a, b in pairwise(counted)] == [step] * (len(counted) - 1)
        assert len(counted) == sample.argument
        ends = numbers(sample.prompt)
        if len(ends) == 2:
            assert {counted[0], counted[-1]} == set(ends)


@given(seeds)
def test_arithmetic_is_right(seed):
    for kind, operation in (("add", int.__add__), ("multiply", int.__mul__)):
        sample = corpus.draw(kind, Random(seed))
        assert int(sample.answer) == operation(*numbers(sample.prompt))
    sample = corpus.draw("subtract", Random(seed))
    assert int(sample.answer) == max(numbers(sample.prompt)) - min(numbers(sample.prompt))


@given(seeds)
def test_sorting_keeps_the_items_and_orders_them(seed):
    sample = corpus.draw("sort", Random(seed))
    items = sample.answer.split(", ")
    keys = [int(item) for item in items] if items[0].isdigit() else items
    assert keys in (sorted(keys), sorted(keys, reverse=True))
    assert all(re.search(rf"\b{item}\b", sample.prompt) for item in items)
    assert len(items) == sample.argument


@given(seeds)
def test_what_is_to_be_found_or_copied_stands_in_the_prompt(seed):
    for kind in ("find", "quote", "echo"):
        sample = corpus.draw(kind, Random(seed))
        assert sample.answer in sample.prompt


@given(seeds, st.integers(1, 200))
def test_few_or_many_stays_in_range(seed, most):
    assert 1 <= few_or_many(Random(seed), most) <= most


def test_few_or_many_reaches_both_ends():
    drawn = {few_or_many(Random(seed), 10) for seed in range(300)}
    assert drawn == set(range(1, 11))


def test_training_and_held_out_prompts_never_meet():
    assert not any(corpus.is_held_out(s.prompt) for s in islice(corpus.samples(3), 2000))
    assert all(corpus.is_held_out(s.prompt) for s in islice(corpus.samples(3, held_out=True), 100))


@given(st.text())
def test_case_spaces_and_stops_do_not_move_a_prompt_out_of_the_held_out_set(text):
    held_out = corpus.is_held_out(text)
    assert corpus.is_held_out(f" {text}.") == held_out
    assert corpus.is_held_out(text.replace(" ", "  ")) == held_out


def test_about_three_percent_are_held_out():
    share = sum(corpus.is_held_out(f"prompt {i}") for i in range(20000)) / 20000
    assert share == pytest.approx(corpus.HELD_OUT_SHARE, abs=0.005)


def test_held_out_prompts_are_unique_and_as_many_as_asked():
    chosen = corpus.held_out_prompts(0, {"add": 12, "story": 5})
    assert [s.kind for s in chosen] == ["add"] * 12 + ["story"] * 5
    assert len({s.prompt for s in chosen}) == 17


def test_a_story_does_not_tell_its_length():
    lengths = [len(stories.story(Random(seed)).answer) for seed in range(400)]
    lengths.sort()
    assert lengths[-20] > 4 * lengths[20]


def test_some_of_it_is_chinese():
    share = sum(is_chinese(s.prompt) for s in islice(corpus.samples(0), 2000)) / 2000
    assert 0.05 < share < 0.3
