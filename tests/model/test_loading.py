"""Loading equals `transformers` on random checkpoints of every family, and refuses everything it would get wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmcourse.errors import UserError
from llmcourse.model import ModelConfig, RopeScaling, Transformer, load_model, save_model
from llmcourse.model.decoding import generate
from llmcourse.model.tokenizer import Tokenizer
from llmcourse.paths import DATA

SHAPE = dict(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=48, max_position_embeddings=256)
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=32)
FAMILIES = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", dict(tie_word_embeddings=True)),
    "llama-mha": ("Llama", dict(num_key_value_heads=4)),
    "llama-mqa": ("Llama", dict(num_key_value_heads=1)),
    "llama-wide-heads": ("Llama", dict(head_dim=16)),
    "llama-biases": ("Llama", dict(attention_bias=True, mlp_bias=True)),
    "llama3-rope": ("Llama", dict(rope_parameters=LLAMA3_ROPE)),
    "smollm": ("Llama", dict(num_attention_heads=9, num_key_value_heads=3, hidden_size=36, tie_word_embeddings=True,
                             rope_parameters=dict(rope_type="default", rope_theta=100000.0))),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", dict(tie_word_embeddings=True, num_key_value_heads=4)),
    "qwen3": ("Qwen3", dict(head_dim=16)),
    "qwen3-tied-biases": ("Qwen3", dict(head_dim=8, tie_word_embeddings=True, attention_bias=True)),
}


def hugging_face(family: str, options: dict, seed: int = 0):
    """A tiny model of `transformers` whose norms and biases are random too: at 1 and 0 they would test nothing."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **options})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def largest_difference(model, ours: Transformer, length: int = 80) -> float:
    tokens = torch.randint(0, SHAPE["vocab_size"], (2, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float((model(tokens).logits - ours(tokens)).abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_transformers(name, tmp_path):
    model = hugging_face(*FAMILIES[name])
    model.save_pretrained(tmp_path)
    ours, tokenizer = load_model(tmp_path, device="cpu")
    assert tokenizer is None
    assert largest_difference(model, ours) < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_what_we_save_transformers_reads(name, tmp_path):
    model = hugging_face(*FAMILIES[name])
    model.save_pretrained(tmp_path / "theirs")
    ours, _ = load_model(tmp_path / "theirs", device="cpu")
    save_model(ours, tmp_path / "ours")
    again = type(model).from_pretrained(tmp_path / "ours").eval()
    assert largest_difference(again, ours) < 1e-4
    assert load_model(tmp_path / "ours", device="cpu")[0].config == ours.config


def test_the_older_rope_fields_read_alike(tmp_path):
    hugging_face("Llama", dict(rope_parameters=LLAMA3_ROPE)).save_pretrained(tmp_path)
    new = load_model(tmp_path, device="cpu")[0].config
    scaling = {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_theta"}
    edit_config(tmp_path, rope_parameters=None, rope_theta=500000.0, rope_scaling=scaling)
    assert load_model(tmp_path, device="cpu")[0].config == new
    assert new.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 32)


def test_shards_load_like_one_file(tmp_path):
    model = hugging_face("Qwen2", {})
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert largest_difference(model, load_model(tmp_path, device="cpu")[0]) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_become_float32(dtype, tmp_path):
    model = hugging_face("Llama", {}).to(dtype)
    model.save_pretrained(tmp_path)
    ours, _ = load_model(tmp_path, device="cpu")
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert largest_difference(type(model).from_pretrained(tmp_path, dtype=torch.float32), ours) < 1e-4


def test_half_precision_can_be_kept(folder):
    model, _ = load_model(folder, device="cpu", dtype=torch.bfloat16)
    assert model(torch.tensor([[1, 2, 3]])).dtype == torch.bfloat16
    assert len(generate(model, [1, 2, 3], 4)) == 4
    assert model.frequencies.dtype == torch.float32


# -- what a folder may lack, or have wrong ---------------------------------------------------------------------------

@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    config = ModelConfig(vocab_size=64, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8,
                         intermediate_size=24, max_length=64)
    folder = tmp_path_factory.mktemp("pristine")
    save_model(Transformer(config), folder)
    return folder


@pytest.fixture
def folder(pristine, tmp_path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


def edit_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refusal(folder: str | Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder, **{"device": "cpu", **options})
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("fields", "named"), [
    (dict(model_type="gpt2"), 'model_type is "gpt2"'),
    (dict(model_type="qwen3_moe"), "model_type"),
    (dict(model_type=None), "model_type is null"),
    (dict(model_type=["llama"]), "model_type"),
    (dict(num_local_experts=8), "num_local_experts is 8"),
    (dict(hidden_act="gelu"), "hidden_act"),
    (dict(quantization_config={"bits": 4}), "quantization_config"),
    (dict(rope_interleaved=True), "rope_interleaved"),
    (dict(partial_rotary_factor=0.5), "partial_rotary_factor"),
    (dict(rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
    (dict(rope_parameters={"rope_type": "yarn", "factor": 4.0}), 'rope_type is "yarn"'),
    (dict(rope_parameters=None, rope_scaling={"type": "linear", "factor": 2.0}), 'rope_type is "linear"'),
    (dict(rope_parameters={"full_attention": {"rope_type": "default"}}), "rope_parameters"),
    (dict(rope_parameters={"rope_type": "llama3", "factor": 8.0}), "low_freq_factor"),
    (dict(sliding_window=128), "sliding_window"),
    (dict(model_type="qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=1), "sliding_window"),
    (dict(model_type="qwen3", layer_types=["full_attention", "sliding_attention"]), "layer_types"),
    (dict(hidden_size=None), "hidden_size is missing"),
    (dict(hidden_size="16"), "hidden_size"),
    (dict(vocab_size=0), "vocab_size is 0"),
    (dict(num_attention_heads=3, num_key_value_heads=2), "multiple"),
    (dict(head_dim=7), "head_dim"),
    (dict(head_dim=None, num_attention_heads=3, num_key_value_heads=3), "hidden_size"),
    (dict(rms_norm_eps="small"), "rms_norm_eps"),
    (dict(tie_word_embeddings="no"), "tie_word_embeddings"),
    (dict(eos_token_id="</s>"), None),
])
def test_what_the_decoder_cannot_do_is_refused_with_file_and_field(folder, fields, named):
    edit_config(folder, **fields)
    if named is None:
        (folder / "tokenizer.json").write_text("{}")
        named = "eos_token_id"
    message = refusal(folder)
    assert "config.json" in message and named in message


@pytest.mark.parametrize("fields", [
    dict(use_sliding_window=False, sliding_window=128, model_type="llama"),
    dict(sliding_window=None, rope_scaling=None, pretraining_tp=1, num_experts=0),
    dict(layer_types=["full_attention", "full_attention"]),
    dict(rms_norm_eps=None),
])
def test_harmless_fields_are_accepted(folder, fields):
    edit_config(folder, **fields)
    load_model(folder, device="cpu")


def test_qwen2_with_its_window_switched_off_loads(tmp_path):
    model = hugging_face("Qwen2", {})
    model.save_pretrained(tmp_path)
    edit_config(tmp_path, use_sliding_window=False, sliding_window=131072, max_window_layers=1, layer_types=None)
    assert largest_difference(model, load_model(tmp_path, device="cpu")[0]) < 1e-4


def test_missing_and_broken_files_are_named(folder, tmp_path):
    assert "config.json" in refusal(tmp_path)                                   # a folder with nothing of a model
    assert "is a file" in refusal(folder / "config.json")
    (folder / "config.json").write_text('{"model_type": "lla')
    assert "config.json cannot be read as JSON" in refusal(folder)
    (folder / "config.json").write_text("[]")
    assert "not a JSON object" in refusal(folder)


def test_a_folder_without_weights_says_what_it_lacks(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert "pytorch_model.bin" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 5, 400, -1])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "model.safetensors" in refusal(folder) and "whole" in refusal(folder)


def test_a_pointer_instead_of_weights_is_recognised(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git-lfs" in refusal(folder)


def test_missing_extra_and_misshapen_tensors_are_named(folder):
    edit_weights(folder, lambda tensors: tensors.pop("model.norm.weight"))
    assert "model.norm.weight is missing" in refusal(folder)
    edit_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(17)}))
    message = refusal(folder)
    assert "model.norm.weight has shape [17]" in message and "[16]" in message and "model.safetensors" in message
    edit_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(16), "extra": torch.ones(1)}))
    assert "tensor extra" in refusal(folder)


def test_a_projection_stored_the_other_way_round_is_refused(folder):
    name = "model.layers.0.mlp.up_proj.weight"
    edit_weights(folder, lambda tensors: tensors.update({name: tensors[name].T.contiguous()}))
    assert f"{name} has shape [16, 24]" in refusal(folder)


def test_quantised_tensors_are_refused(folder):
    edit_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(16, dtype=torch.int8)}))
    assert "stored as I8" in refusal(folder)


def test_old_rope_constants_are_ignored(folder):
    edit_weights(folder, lambda tensors: tensors.update(
        {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    load_model(folder, device="cpu")


def test_a_tied_model_may_repeat_its_embedding_but_not_contradict_it(folder):
    edit_config(folder, tie_word_embeddings=True)
    assert "tie_word_embeddings" in refusal(folder)
    edit_weights(folder, lambda tensors: tensors.update(
        {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    load_model(folder, device="cpu")


def test_incomplete_shards_are_named(tmp_path):
    hugging_face("Llama", {}).save_pretrained(tmp_path, max_shard_size="20KB")
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    kept = second.read_bytes()
    second.unlink()
    assert second.name in refusal(tmp_path) and "not complete" in refusal(tmp_path)
    second.write_bytes(first.read_bytes())                                      # the wrong file under a right name
    assert second.name in refusal(tmp_path)
    second.write_bytes(kept)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}}))
    assert "weight_map" in refusal(tmp_path)


def test_a_config_of_another_model_is_refused(folder):
    edit_config(folder, num_hidden_layers=3)
    assert "model.layers.2" in refusal(folder)
    edit_config(folder, num_hidden_layers=1)
    assert "model.layers.1" in refusal(folder)


def test_unknown_names_and_devices_say_what_would_work(folder, monkeypatch):
    assert "course-tiny" in refusal("no-such-model")
    assert "cpu" in refusal(folder, device="abacus")
    assert "'auto'" in refusal(folder, device="cuda:77")
    assert refusal("./models/none") and refusal("/no/such/folder")


def test_a_hub_name_is_fetched_and_failures_are_one_line(folder, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def deliver(name, allow_patterns):
        asked.append(name)
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", deliver)
    load_model("someone/some-model", device="cpu")
    assert asked == ["someone/some-model"]

    def fail(name, allow_patterns):
        raise OSError("no network\nsecond line")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    assert "no network" in refusal("someone/some-model")


def test_without_huggingface_hub_a_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert "pip install" in refusal("someone/some-model")


# -- tokenizers, saving ----------------------------------------------------------------------------------------------

def test_tokenizer_and_end_tokens_travel_with_the_model(folder):
    tokenizer = Tokenizer.train(["one two three " * 20], vocab_size=300)
    model, _ = load_model(folder, device="cpu")
    save_model(model, folder, tokenizer)
    _, loaded = load_model(folder, device="cpu")
    assert loaded.eos_ids == tokenizer.eos_ids and loaded.encode("one two") == tokenizer.encode("one two")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert load_model(folder, device="cpu")[1].eos_ids == {7, 9}


def test_a_broken_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in refusal(folder)


def test_saving_in_half_precision_halves_the_file(folder, tmp_path):
    model, _ = load_model(folder, device="cpu")
    save_model(model, tmp_path / "half", dtype=torch.float16)
    half, full = ((place / "model.safetensors").stat().st_size for place in (tmp_path / "half", folder))
    assert half < 0.75 * full
    again, _ = load_model(tmp_path / "half", device="cpu")
    assert torch.allclose(again.embedding, model.embedding, atol=1e-3)


def test_a_mix_of_options_without_a_family_is_not_saved(tmp_path):
    config = ModelConfig(8, 8, 1, 1, 1, 8, 8, 8, mlp_bias=True, qk_norm=True)
    with pytest.raises(UserError, match="mlp_bias"):
        save_model(Transformer(config), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_loaded_weights_ask_for_no_gradients(folder):
    model, _ = load_model(folder, device="cpu")
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.skipif(not (DATA / "course-tiny" / "config.json").is_file(), reason="course-tiny is not trained yet")
def test_course_tiny_loads_quickly_and_ends_its_answers():
    import time

    load_model("course-tiny", device="cpu")
    start = time.perf_counter()
    _, tokenizer = load_model("course-tiny", device="cpu")
    assert time.perf_counter() - start < 2                      # half a second at most when the machine is quiet
    assert tokenizer.eos_ids
