"""`llmcourse generate`: text streams to stdout, one line goes to stderr, bad input is one line and exit code 2."""

import pytest

from llmcourse import cli
from llmcourse.paths import DATA


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model with a tokenizer of its own."""
    from llmcourse.model import ModelConfig, Transformer, save_model
    from llmcourse.model.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["one two three four " * 50], vocab_size=300)
    config = ModelConfig(tokenizer.vocab_size, 16, 1, 2, 1, 8, 32, 64)
    place = tmp_path_factory.mktemp("model")
    save_model(Transformer(config), place, tokenizer)
    return place


def ask(folder, *options, prompt="one two"):
    return cli.main(["generate", prompt, "--model", str(folder), "--device", "cpu", *options])


def test_it_prints_the_text_of_the_tokens(folder, capsys):
    from llmcourse.model import generate, load_model

    assert ask(folder, "--max-tokens", "9") == 0
    model, tokenizer = load_model(folder, device="cpu")
    tokens = generate(model, tokenizer.encode_prompt("one two"), 9, eos_ids=tokenizer.eos_ids)
    out, err = capsys.readouterr()
    assert out == tokenizer.decode(tokens) + "\n"
    assert err.startswith(f"{len(tokens)} tokens in ") and err.count("\n") == 1


def test_the_same_seed_gives_the_same_answer(folder, capsys):
    texts = []
    for seed in ("5", "5", "6"):
        ask(folder, "--temperature", "2", "--top-k", "100", "--top-p", "0.95", "--max-tokens", "20", "--seed", seed)
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(("options", "named"), [
    (["--temperature", "-1"], "temperature"), (["--temperature", "nan"], "temperature"),
    (["--temperature", "warm"], "warm"), (["--top-p", "0"], "top_p"), (["--top-k", "-2"], "top_k"),
    (["--max-tokens", "0"], "max_tokens"), (["--device", "abacus"], "abacus"), (["--seed", "-1"], "--seed"),
    (["--model", "no-such-model"], "no-such-model"), (["--colour"], "--colour"),
])
def test_bad_input_is_one_line_and_exit_code_2(folder, options, named, capsys):
    try:
        code = ask(folder, *options)
    except SystemExit as leaving:                               # argparse leaves by itself
        code = leaving.code
    out, err = capsys.readouterr()
    assert code == 2 and out == ""
    assert err.startswith("llmcourse generate: ") and err.count("\n") == 1 and named in err


@pytest.mark.parametrize("prompt", ["", "  \n", "caf\udce9"])
def test_a_prompt_without_text_is_refused(folder, prompt, capsys):
    assert ask(folder, prompt=prompt) == 2
    assert "prompt" in capsys.readouterr().err


def test_a_prompt_too_long_for_the_model_is_refused(folder, capsys):
    assert ask(folder, prompt="x" * 500) == 2
    assert "64" in capsys.readouterr().err


def test_a_model_without_a_tokenizer_is_refused(folder, tmp_path, capsys):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert ask(tmp_path) == 2
    assert "tokenizer.json" in capsys.readouterr().err


@pytest.mark.skipif(not (DATA / "course-tiny" / "config.json").is_file(), reason="course-tiny is not trained yet")
def test_course_tiny_counts(capsys):
    assert cli.main(["generate", "Count from 3 to 9.", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert out == "3, 4, 5, 6, 7, 8, 9\n"
    assert "ended by itself" in err


def test_a_kept_predictor_says_first_how_long_it_will_be(folder, tmp_path, capsys):
    from llmcourse.predict import Constant, ListMLE, save_predictor
    from tests.predict.data import made_up

    constant, ranker = Constant().fit(made_up(9)), ListMLE(steps=1).fit(made_up(9))
    for predictor, said in ((constant, f"constant expects {constant.tokens:.0f} tokens"),
                            (ranker, f"listmle gives it a score of {ranker.predict(['one two'])[0]:.2f} (")):
        save_predictor(predictor, tmp_path / "kept")
        assert ask(folder, "--max-tokens", "3", "--predictor", str(tmp_path / "kept")) == 0
        first, second = capsys.readouterr().err.splitlines()
        assert first.startswith(said) and " tokens in " in second


def test_a_predictor_that_is_not_there_is_refused_before_anything_is_said(folder, tmp_path, capsys):
    assert ask(folder, "--predictor", str(tmp_path / "nothing")) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("llmcourse generate: ") and "nothing is not there" in err
