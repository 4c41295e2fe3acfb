"""A kept predictor comes back with all its bits, and a file that is not whole and sound is refused in one line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import llmcourse.predict as predict
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
    Probe,
    Ridge,
    load_predictor,
    save_predictor,
    timed,
)
from llmcourse.predict.store import HEADER, KINDS, checksum
from tests.predict.data import made_up

ASKED = ["", "Count to 7", "Zyx? 12, 13 and 99999999999", "故事 8"]
SEEDS = st.integers(0, 2**31)
CUTS = st.none() | st.lists(st.integers(1, 300), min_size=1, max_size=5, unique=True).map(sorted)
NETWORK = dict(hidden=st.integers(1, 9), steps=st.integers(1, 3), rate=st.floats(1e-4, 0.1), seed=SEEDS)
ANY: dict[str, st.SearchStrategy[Predictor]] = {
    "Constant": st.builds(Constant),
    "Ridge": st.builds(Ridge, penalty=st.floats(0.01, 100) | st.integers(1, 9), bag=st.booleans()),
    "MLP": st.builds(MLP, **NETWORK),
    "BucketClassifier": st.builds(BucketClassifier, CUTS, **NETWORK),
    "Ordinal": st.builds(Ordinal, CUTS, **NETWORK),
    "PairwiseRanker": st.builds(PairwiseRanker, st.integers(1, 20), **NETWORK),
    "ListMLE": st.builds(ListMLE, st.integers(1, 20), **NETWORK),
}


def same(first: Predictor, second: Predictor, data: LengthData) -> None:
    """They say the same of anything, before an answer and while it grows."""
    prompts = [*data.prompts, *ASKED]
    assert type(second) is type(first)
    assert second.predict(prompts).tobytes() == first.predict(prompts).tobytes()
    assert second.predict(data.tokens[:3]).tobytes() == first.predict(data.tokens[:3]).tobytes()
    assert second.seconds_per_request == first.seconds_per_request
    if not first.is_ranker:
        request = Request(data.tokens[0], SamplingParams(max_tokens=99))
        for _ in range(3):
            assert second.remaining(request) == first.remaining(request)
            request.tokens += [5] * 9


@pytest.mark.parametrize("kind", ANY)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.data(), seed=st.integers(0, 999), measured=st.booleans())
def test_every_kind_comes_back_bit_for_bit(kind: str, tmp_path: Path, choices: st.DataObject, seed: int,
                                           measured: bool) -> None:
    """And it was made with the same settings: fitted on other data both learn the same again."""
    data, other = made_up(20, 2, seed), made_up(15, 1, seed + 1)
    predictor = choices.draw(ANY[kind]).fit(data)
    if measured:
        timed(predictor, data.prompts[:3])
    save_predictor(predictor, tmp_path / "first")
    again = load_predictor(tmp_path / "first")
    same(predictor, again, data)
    save_predictor(again, tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert again.fit(other).predict(ASKED).tobytes() == predictor.fit(other).predict(ASKED).tobytes()


@pytest.mark.parametrize("layer, smooth", [(None, True), (0, False)])
def test_a_probe_comes_back_too(tmp_path: Path, layer: int | None, smooth: bool) -> None:
    data = LengthData.load().select(range(12))
    probe = Probe(layer=layer, smooth=smooth, steps=4).fit(data)
    save_predictor(probe, tmp_path / "probe")
    again = load_predictor(tmp_path / "probe")
    same(probe, again, data)
    prompt, answer = data.tokens[0], data.answers[0]
    assert isinstance(again, Probe) and again.track(prompt, answer).tobytes() == probe.track(prompt, answer).tobytes()


def test_a_probe_knows_its_model_again_where_it_has_moved_and_no_other(tmp_path: Path) -> None:
    from llmcourse.model import load_model, save_model

    data = LengthData.load().select(range(6))
    model, tokenizer = load_model("course-tiny", device="cpu")
    save_model(model, tmp_path / "here", tokenizer)
    probe = Probe(str(tmp_path / "here"), steps=2).fit(data)
    save_predictor(probe, tmp_path / "probe")
    (tmp_path / "here").rename(tmp_path / "there")
    assert str(tmp_path / "here") in refusal(tmp_path / "probe")
    same(probe, load_predictor(tmp_path / "probe", model=tmp_path / "there"), data)
    same(probe, load_predictor(tmp_path / "probe", model="course-tiny"), data)
    with torch.no_grad():
        model.blocks[5].mlp.down_proj.weight[0, 0] += 1e-3
    save_model(model, tmp_path / "there", tokenizer)
    assert "another model" in refusal(tmp_path / "probe", model=tmp_path / "there")


def test_every_predictor_is_kept_or_says_that_it_is_not(tmp_path: Path) -> None:
    """A new one must be put among the kinds, or here."""
    classes = {name for name in predict.__all__ if isinstance(getattr(predict, name), type)
               and issubclass(getattr(predict, name), Predictor)}
    assert classes == {*KINDS, "Predictor", "Oracle", "Noisy"}

    class Ridge(predict.Ridge):                            # a student's, whose name is not enough
        pass

    data = made_up(10)
    for other in (Oracle({"Add 1": 3}), Noisy(predict.Ridge().fit(data), 0.3), Ridge().fit(data)):
        with pytest.raises(UserError, match="cannot be kept in a file; Constant, Ridge"):
            save_predictor(other, tmp_path / "it")
    with pytest.raises(UserError, match="kept in a file"):
        save_predictor("ridge", tmp_path / "it")           # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [Constant, Ridge, MLP, BucketClassifier, Ordinal, PairwiseRanker, ListMLE, Probe])
def test_nothing_learnt_is_nothing_to_keep(make: Callable[[], Predictor], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"call fit\(data\) first"):
        save_predictor(make(), tmp_path / "it")
    assert list(tmp_path.iterdir()) == []


# ---- writing ----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A ridge, kept."""
    save_predictor(Ridge(bag=True).fit(made_up(20)), tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_an_old_file_is_lost_to_nothing_that_fails(kept: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = kept.read_bytes()
    monkeypatch.setattr(call, full)
    with pytest.raises(UserError, match=r"cannot write .*kept: No space left"):
        save_predictor(Constant().fit(made_up(5)), kept)
    assert kept.read_bytes() == before and list(kept.parent.iterdir()) == [kept]


def test_a_predictor_that_has_learnt_nonsense_replaces_no_good_one(kept: Path) -> None:
    before, ridge = kept.read_bytes(), Ridge().fit(made_up(10))
    ridge.weights[3] = np.nan
    with pytest.raises(UserError, match="weights with NaN"):
        save_predictor(ridge, kept)
    vague = Ridge(bag="yes").fit(made_up(10))              # type: ignore[arg-type]
    with pytest.raises(UserError, match="bag is 'yes'; it takes True or False"):
        save_predictor(vague, kept)
    assert kept.read_bytes() == before


def test_folders_are_made_and_a_folder_is_no_file(tmp_path: Path) -> None:
    predictor = Constant().fit(made_up(5))
    save_predictor(predictor, str(tmp_path / "new" / "one"))
    assert isinstance(load_predictor(str(tmp_path / "new" / "one")), Constant)
    for place, said in ((tmp_path, "is a folder"), (tmp_path / "new" / "one" / "two", "cannot write")):
        with pytest.raises(UserError, match=said):
            save_predictor(predictor, place)


def test_a_ridge_is_loaded_without_torch(kept: Path) -> None:
    program = ("import sys; from llmcourse.predict import load_predictor\n"
               f"print(load_predictor({str(kept)!r}).predict(['Add 3']).tobytes().hex(), 'torch' in sys.modules)")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [load_predictor(kept).predict(["Add 3"]).tobytes().hex(), "False"]


# ---- files that are not sound -----------------------------------------------------------------------------------


def refusal(path: Path, **options: Any) -> str:
    """The one line of a refusal, which names the file."""
    with pytest.raises(UserError) as caught:
        load_predictor(path, **options)
    said = str(caught.value)
    assert str(path) in said and "\n" not in said
    return said


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], object]) -> None:
    """The file with another header or other arrays, and the checksum of those."""
    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()[HEADER].partition(" ")[2])
    arrays = load_file(path)
    change(header, arrays)
    save_file(arrays, path, {HEADER: f"{checksum(json.dumps(header), arrays)} {json.dumps(header)}"})


def put(place: str, name: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], object]:
    """Set something in the header (or in a part of it), or an array."""
    return lambda header, arrays: (arrays if place == "arrays" else header[place] if place else header).update(
        {name: value})


@pytest.mark.parametrize("change, said", [
    (put("", "version", 2), "version 2, and this course reads version 1"),
    (put("", "version", None), "version None"),
    (put("", "kind", "Oracle"), "its kind is 'Oracle', and there are Constant"),
    (put("", "kind", "LengthData"), "its kind is 'LengthData'"), (put("", "kind", ["x"]), "its kind is"),
    (put("", "kind", "MLP"), "MLP has no option 'penalty'"),
    (put("", "settings", []), "are no JSON object"), (put("", "facts", None), "are no JSON object"),
    (lambda header, _: header.pop("settings"), "its header lacks settings"),
    (put("", "kind", "a\n" * 9), "its kind is"),
    (put("settings", "penalty", "much"), "penalty is 'much'; it takes a number"),
    (put("settings", "penalty", -1), "penalty of -1"), (put("settings", "shell", "x"), "no option 'shell'"),
    (put("", "seconds_per_request", -1), "seconds_per_request is -1"),
    (put("", "seconds_per_request", "fast"), "seconds_per_request is 'fast'"),
    (put("", "seconds_per_request", float("nan")), "no JSON"), (put("", "seconds_per_request", 1e999), "no JSON"),
    (put("facts", "features.names", ["words"]), "other hand features"),
    (put("facts", "features.words", ["add", "add"]), "list of different words"),
    (put("facts", "features.words", ["add"]), "has shape [41] where its Ridge has [31]"),
    (put("facts", "colour", "red"), "colour has no place in a Ridge"),
    (put("arrays", "weights", np.zeros(3)), "weights has shape [3] where its Ridge has [41]"),
    (put("arrays", "weights", np.zeros((41, 1))), "has shape [41, 1]"),
    (put("arrays", "weights", np.zeros(41, np.float32)), "weights is float32 where its Ridge has float64"),
    (put("arrays", "weights", np.zeros(41, np.int64)), "stored as I64"),
    (put("arrays", "weights", np.full(41, np.nan)), "weights has NaN"),
    (put("arrays", "offset", np.array(np.inf)), "offset has NaN or infinity"),
    (put("arrays", "features.spread", np.zeros(41)), "has 0 in it, and must be above 0"),
    (put("arrays", "more\nof it", np.zeros(1)), "more of it has no place in a Ridge"),
    (lambda _, arrays: arrays.pop("offset"), "offset is missing"),
    (lambda header, _: header["facts"].pop("features.words"), "features.words is missing"),
])
def test_what_does_not_fit_is_refused(kept: Path, change: Callable[..., object], said: str) -> None:
    assert len(load_file(kept)["weights"]) == 41, "the examples count on it"
    rewrite(kept, change)
    assert said in refusal(kept)


@pytest.mark.parametrize("change, said", [
    (put("settings", "hidden", 10**12), "where its BucketClassifier has [1000000000000, "),
    (put("settings", "hidden", 0), "hidden 0"), (put("settings", "cuts", [5.0]), "where its BucketClassifier has [1]"),
    (put("arrays", "cuts", np.array([9.0, 4.0, 11.0, 12.0])), "must rise"),
    (put("arrays", "typical", np.ones(3)), "typical has shape [3]"),
    (put("arrays", "net.3.bias", np.full(5, np.inf, np.float32)), "net.3.bias has NaN or infinity"),
])
def test_what_does_not_fit_a_network_is_refused(tmp_path: Path, change: Callable[..., object], said: str) -> None:
    """By its shapes, before anything of that size is made."""
    save_predictor(BucketClassifier(hidden=3, steps=2).fit(made_up(20)), tmp_path / "it")
    rewrite(tmp_path / "it", change)
    assert said in refusal(tmp_path / "it")


def test_what_is_no_kept_predictor_is_refused(tmp_path: Path, kept: Path) -> None:
    from llmcourse.paths import DATA

    assert "is not there; give a file that save_predictor" in refusal(tmp_path / "nothing")
    assert "is a folder" in refusal(tmp_path)
    assert "tensors and no predictor" in refusal(DATA / "course-tiny" / "model.safetensors")
    assert "leave out model='x'" in refusal(kept, model="x")
    for name, text in (("not json", "{"), ("a list", "[]"), ("deep", "[" * 100_000)):
        save_file({}, tmp_path / name, {HEADER: f"{checksum(text, {})} {text}"})
        assert "no JSON object" in refusal(tmp_path / name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_is_refused(kept: Path, share: float) -> None:
    whole = kept.read_bytes()
    cut = kept.with_name("cut")
    cut.write_bytes(whole[:int(share * len(whole))])
    assert "not a whole safetensors file" in refusal(cut)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_one_wrong_byte_is_refused_or_means_nothing(kept: Path, at: float, value: int) -> None:
    """It means nothing only as white space behind the JSON of safetensors."""
    data = bytearray(kept.read_bytes())
    data[int(at * len(data))] ^= value
    hurt = kept.with_name("hurt")
    hurt.write_bytes(data)
    try:
        again = load_predictor(hurt)
    except UserError as error:
        assert str(hurt) in str(error) and "\n" not in str(error)
    else:
        assert again.predict(ASKED).tobytes() == load_predictor(kept).predict(ASKED).tobytes()


def test_a_file_of_one_process_is_not_touched_by_another(kept: Path) -> None:
    """What is left of somebody else's writing, that has died, stands aside."""
    other = kept.with_name(f"kept.{os.getpid() + 1}.partial")
    other.write_bytes(b"half")
    save_predictor(Constant().fit(made_up(5)), kept)
    assert isinstance(load_predictor(kept), Constant) and other.read_bytes() == b"half"
