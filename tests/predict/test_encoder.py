"""The encoder, on a tiny BERT made here with random weights: even its vectors tell prompts apart."""

from pathlib import Path

import pytest

from llmcourse.errors import UserError
from llmcourse.predict import LengthData, load_predictor, save_predictor, score
from llmcourse.predict.encoder import Encoder
from tests.predict.data import made_up

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the hub has them: config, weights, tokenizer."""
    place = tmp_path_factory.mktemp("tiny-bert")
    letters = [chr(code) for code in range(33, 127)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (place / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer(str(place / "vocab.txt")).save_pretrained(place)
    transformers.set_seed(0)
    config = transformers.BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=64, max_position_embeddings=512)
    transformers.BertModel(config).save_pretrained(place)
    return place


def test_it_learns_from_vectors_and_sees_no_answers(folder: Path) -> None:
    train, test = made_up(150, noise=0.1).split()
    told: list[tuple[int, int]] = []
    encoder = Encoder(folder, steps=300).fit(train, lambda *done: told.append(done))
    said = encoder.predict(test.prompts)
    assert told[-1] == (len(train) + 300, len(train) + 300)
    assert score(encoder, test).tau > 0.4
    turned = LengthData(test.prompts, test.lengths[::-1].copy())
    assert encoder.predict(turned.prompts).tobytes() == said.tobytes()
    assert Encoder(folder, steps=300).fit(train).predict(test.prompts).tobytes() == said.tobytes()


def test_a_prompt_alone_is_as_in_company_and_a_long_one_is_cut(folder: Path) -> None:
    encoder = Encoder(folder)
    together = encoder.vectors(["Add 1", "Count to 17 and tell a story"])
    assert encoder.vectors(["Add 1"])[0].tolist() == pytest.approx(together[0].tolist(), abs=1e-5)
    assert encoder.vectors(["word " * 2000]).shape == (1, 32)


def test_it_is_kept_with_the_name_of_its_encoder_and_knows_no_other(folder: Path, tmp_path: Path) -> None:
    data = made_up(20)
    encoder = Encoder(folder, steps=5).fit(data)
    save_predictor(encoder, tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_size < 50_000, "the encoder itself stays where it is"
    for again in (load_predictor(tmp_path / "kept"), load_predictor(tmp_path / "kept", model=folder)):
        assert again.settings() == encoder.settings()
        assert again.predict([*data.prompts, ""]).tobytes() == encoder.predict([*data.prompts, ""]).tobytes()
    for parameter in encoder.encoder.parameters():
        parameter += 0.01
    encoder.encoder.save_pretrained(tmp_path / "other")
    encoder.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="kept: it was fitted on another encoder"):
        load_predictor(tmp_path / "kept", model=tmp_path / "other")
    with pytest.raises(UserError, match="kept: no encoder"):
        load_predictor(tmp_path / "kept", model=tmp_path / "nowhere")


def test_no_such_encoder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no encoder"):
        Encoder(tmp_path)
