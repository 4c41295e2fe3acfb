"""A model's folder in Hugging Face's format as one GGUF file, for llama.cpp's `llama` architecture.

The same float32 values under other names. One thing is not a renaming: RoPE there turns neighbours (2i, 2i + 1), here
and in Hugging Face's checkpoints the pairs (i, i + head_dim/2), so the rows of Q and K are dealt anew within each head.
Queries and keys are permuted alike, and their product stays what it was. Needs numpy, and `gguf` only to write.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PARTS = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor. ValueError for one that its `llama` architecture does not have."""
    if name in WHOLE:
        return WHOLE[name]
    part, _, kind = name.removeprefix("model.layers.").rpartition(".")
    layer, _, part = part.partition(".")
    if not layer.isdigit() or part not in PARTS:
        raise ValueError(f"tensor {name} has no place in llama.cpp's llama architecture")
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a Q or K projection (heads * head_dim, in): row i + head_dim/2 of a head comes right behind row i."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])                      # (heads, 2, head_dim / 2, in)
    return halves.swapaxes(1, 2).reshape(rows.shape)


def read_safetensors(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and float32 values: eight bytes of length, a header in JSON, the values. ValueError for other types."""
    with file.open("rb") as source:
        header = json.loads(source.read(int.from_bytes(source.read(8), "little")))
        start = source.tell()
        for name, about in header.items():
            if name == "__metadata__":
                continue
            if about["dtype"] != "F32":
                raise ValueError(f"tensor {name} is {about['dtype']}; only F32 is converted")
            first, end = about["data_offsets"]
            source.seek(start + first)
            yield name, np.frombuffer(source.read(end - first), np.float32).reshape(about["shape"])


def tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors of a folder in llama.cpp's names and order of rows."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for theirs, values in read_safetensors(folder / "model.safetensors"):
        name = gguf_name(theirs)
        part = name.split(".")[-2]
        yield name, interleaved(values, heads[part]) if part in heads else values


def write_gguf(folder: Path, file: Path) -> None:
    """Write the model of ``folder``. ValueError for what the `llama` architecture would compute in another way."""
    import gguf
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "llama" or config["rope_scaling"]:
        raise ValueError(f"a {config['model_type']} model with RoPE scaling {config['rope_scaling']} is not converted")
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    for name, values in tensors(folder, config):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
