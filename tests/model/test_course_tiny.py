"""The checkpoint that ships: what it weighs, what it knows, and that its card tells the measured truth."""

import json
import time
from dataclasses import asdict

import pytest

from llmcourse.model import corpus, load_model
from llmcourse.model.decoding import generate
from llmcourse.model.training.card import model_card
from llmcourse.model.training.command import PROMPTS, REPORT
from llmcourse.model.training.evaluation import (
    PROMPT_SEED,
    PROMPTS_PER_KIND,
    evaluate,
    explained_variance,
    read_prompts,
    write_prompts,
)
from llmcourse.model.training.trainer import COURSE_TINY
from llmcourse.paths import DATA

FOLDER = DATA / "course-tiny"
REPORTED = json.loads((FOLDER / REPORT).read_text(encoding="utf-8"))
MEASURED = REPORTED["evaluation"]


@pytest.fixture(scope="module")
def served():
    return load_model("course-tiny", device="cpu")


def answer(served, prompt: str) -> str:
    model, tokenizer = served
    return tokenizer.decode(generate(model, tokenizer.encode_prompt(prompt), 300, eos_ids=tokenizer.eos_ids))


def test_it_is_small_and_loads_at_once():
    assert (FOLDER / "model.safetensors").stat().st_size < 10_000_000
    load_model("course-tiny", device="cpu")  # the first load also imports
    start = time.perf_counter()
    model, tokenizer = load_model("course-tiny", device="cpu")
    assert time.perf_counter() - start < 3
    assert asdict(model.config) == asdict(COURSE_TINY) == REPORTED["config"]
    assert tokenizer.vocab_size == model.config.vocab_size


def test_the_card_is_what_the_report_says():
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == model_card(REPORTED)


def test_the_report_meets_what_the_course_needs():
    assert MEASURED["accuracy"] >= 0.95
    assert MEASURED["ended"] >= 0.99
    assert MEASURED["length_p99"] >= 8 * MEASURED["length_p50"]
    assert 1 / 3 <= MEASURED["explained_variance"] <= 0.9


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Count from 3 to 9.", "3, 4, 5, 6, 7, 8, 9"),
        ("count from 11 to 14", "11, 12, 13, 14"),
        ("Please count up from 95 to 103.", "95, 96, 97, 98, 99, 100, 101, 102, 103"),
        ("Write the numbers from 20 to 25.", "20, 21, 22, 23, 24, 25"),
        ("Count down from 8 to 4.", "8, 7, 6, 5, 4"),
        ("List 3 colours.", "1. red\n2. blue\n3. green"),
        ("从2数到6。", "2, 3, 4, 5, 6"),
    ],
)
def test_it_answers_what_a_student_asks_first(served, prompt, expected):
    assert answer(served, prompt) == expected


def test_a_part_of_the_prompt_set_is_still_answered_as_reported(served):
    exact = [sample for sample in read_prompts(PROMPTS) if sample.exact and len(sample.answer) < 60]
    again = evaluate(*served, exact[::4])
    assert again.accuracy >= 0.95
    assert again.ended >= 0.99


def test_one_prompt_has_answers_of_many_lengths(served):
    model, tokenizer = served
    prompt = tokenizer.encode_prompt("Tell me a story about a fox.")
    lengths = [
        len(generate(model, prompt, 512, temperature=1.0, seed=seed, eos_ids=tokenizer.eos_ids)) for seed in range(12)
    ]
    assert max(lengths) > 2 * min(lengths)


def test_the_prompt_set_is_held_out_and_drawn_from_its_seed(tmp_path):
    prompts = read_prompts(PROMPTS)
    assert all(corpus.is_held_out(sample.prompt) for sample in prompts)
    assert len(prompts) == len({sample.prompt for sample in prompts}) == MEASURED["prompts"]
    assert write_prompts(tmp_path / "again.jsonl") == len(prompts)
    assert (tmp_path / "again.jsonl").read_bytes() == PROMPTS.read_bytes()
    assert [s.prompt for s in corpus.held_out_prompts(PROMPT_SEED, PROMPTS_PER_KIND)] == [s.prompt for s in prompts]


def test_there_are_long_prompts_with_short_answers(served):
    _, tokenizer = served
    long = [s for s in read_prompts(PROMPTS) if len(tokenizer.encode_prompt(s.prompt)) > 200]
    assert len(long) >= 5
    assert any(len(s.answer) < 5 for s in long)


def test_a_broken_line_of_prompts_is_named(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"kind": "add", "argument": 0, "prompt": "1 + 1 = ?", "answer": "2"}\n{"kind": "add"}\n')
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 2: not a prompt"):
        read_prompts(path)


def test_an_empty_prompt_set_is_refused(served):
    with pytest.raises(ValueError, match="no prompts to evaluate"):
        evaluate(*served, [])


def test_explained_variance_knows_a_line_from_noise():
    kinds = ["count"] * 4 + ["story"] * 4
    arguments = [1, 2, 3, 4, 0, 0, 0, 0]
    assert explained_variance(kinds, arguments, [2, 4, 6, 8, 5, 5, 5, 5]) == pytest.approx(1)
    assert explained_variance(kinds, arguments, [5, 5, 5, 5, 1, 9, 1, 9]) == pytest.approx(0)
    assert explained_variance(kinds, arguments, [7] * 8) == 0
