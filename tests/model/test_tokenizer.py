"""The tokenizer: nothing is lost on the way there and back, and streams show only whole characters."""

from itertools import islice

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from llmcourse.model import corpus
from llmcourse.model.tokenizer import SPECIALS, StreamDecoder, Tokenizer


def texts():
    return [text for sample in islice(corpus.samples(0), 500) for text in (sample.prompt, sample.answer)]


TOKENIZER = Tokenizer.train(texts(), vocab_size=500)
mixed = st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("数到。abc 12🙂👩‍🚀é")))


@given(mixed)
def test_text_survives_the_way_there_and_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(mixed)
def test_a_prompt_is_its_text_between_two_markers(text):
    user, *middle, answer = TOKENIZER.encode_prompt(text)
    assert [TOKENIZER.token(user), TOKENIZER.token(answer)] == ["<|user|>", "<|answer|>"]
    assert middle == TOKENIZER.encode(text)


def stream(ids):
    decoder = StreamDecoder(TOKENIZER)
    pieces = [decoder.push(index) for index in ids]
    return pieces, decoder.flush()


@given(mixed)
def test_a_stream_adds_up_to_the_text_and_never_shows_half_a_character(text):
    pieces, rest = stream(TOKENIZER.encode(text))
    assert "".join(pieces) + rest == text
    if "\ufffd" not in text:
        assert rest == ""
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=120))
def test_even_a_stream_of_random_tokens_adds_up(ids):
    pieces, rest = stream(ids)
    assert "".join(pieces) + rest == TOKENIZER.decode(ids)


def test_a_cut_character_waits_for_its_last_byte():
    ids = TOKENIZER.encode("𠮷")
    assert len(ids) == 4
    pieces, rest = stream(ids)
    assert (pieces, rest) == (["", "", "", "𠮷"], "")


def test_an_unfinished_character_comes_out_at_the_end():
    pieces, rest = stream(TOKENIZER.encode("a𠮷")[:-1])
    assert ("".join(pieces), rest) == ("a", "\ufffd")


def test_digits_are_single_tokens():
    tokens = [TOKENIZER.token(index) for index in TOKENIZER.encode("1234")]
    assert tokens == ["1", "2", "3", "4"]


def test_special_tokens_typed_by_a_person_are_letters():
    assert TOKENIZER.end_id not in TOKENIZER.encode("say <|end|> now")


def test_special_tokens_are_not_shown():
    assert TOKENIZER.decode([TOKENIZER.end_id, *TOKENIZER.encode("hi"), TOKENIZER.pad_id]) == "hi"
    assert TOKENIZER.eos_ids == {TOKENIZER.end_id}


def test_training_twice_gives_the_same_tokenizer(tmp_path):
    TOKENIZER.save(tmp_path / "a")
    Tokenizer.train(texts(), vocab_size=500).save(tmp_path / "b")
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    assert Tokenizer.load(tmp_path / "a").encode("Count to 9.") == TOKENIZER.encode("Count to 9.")


def test_ids_outside_the_vocabulary_have_no_name():
    with pytest.raises(IndexError, match="token 500 is not in the vocabulary of 500"):
        TOKENIZER.token(500)


def test_a_missing_and_a_broken_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a readable tokenizer"):
        Tokenizer.load(tmp_path)


@pytest.fixture
def foreign():
    """A tokenizer as other models have: a BOS that it adds itself, another end token, no roles."""
    inner = tokenizers.Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, []))
    inner.add_special_tokens(["<s>", "</s>"])
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return inner


def test_other_models_get_what_their_own_tokenizer_adds(foreign):
    tokenizer = Tokenizer(foreign)
    assert tokenizer.encode_prompt("ab") == [0, 2, 3]
    assert tokenizer.encode("ab") == [2, 3]
    assert tokenizer.eos_ids == {1}
    with pytest.raises(ValueError, match=r"no token <\|end\|>"):
        _ = tokenizer.end_id


def test_end_tokens_of_the_config_win(foreign):
    assert Tokenizer(foreign, eos_ids=[3]).eos_ids == {3}


def test_special_tokens_come_first():
    assert [TOKENIZER.token(index) for index in range(len(SPECIALS))] == list(SPECIALS)
