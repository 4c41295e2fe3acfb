"""A Hugging Face `config.json` read into a `ModelConfig`, and written back.

Three families share one decoder here: Llama (SmolLM too), Qwen2 (biases on q, k, v) and Qwen3 (norms on q and k). A
config may also ask for things this decoder does not do: a sliding window, another RoPE, experts. Each of those would
load without a murmur and answer wrongly, so each is refused with the file and the field. Week 1.

Reference: Grattafiori et al., "The Llama 3 herd of models" (2024); Qwen team, technical reports (2024, 2025).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcourse.errors import UserError
from llmcourse.model.config import ModelConfig, RopeScaling

FAMILIES = ("llama", "qwen2", "qwen3")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class _Fields:
    """The fields of one JSON object, asked for by name and type; a wrong one is reported with its file."""

    values: dict[str, Any]
    file: str

    def fault(self, name: str, what: str) -> UserError:
        """An error about one field, ready to raise."""
        return UserError(f"{self.file}: {name} is {json.dumps(self.values.get(name))}; {what}")

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1; ``default`` when the field is absent or null."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise UserError(f"{self.file}: {name} is missing; a {'/'.join(FAMILIES)} config needs it")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.fault(name, "it must be a whole number of at least 1")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number above 0; ``default`` when the field is absent or null."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.fault(name, "it must be a number above 0")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.fault(name, "it must be true or false")
        return value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError, naming the file, when it is absent or not an object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a model folder holds config.json and *.safetensors") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); download the file again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}, not a JSON object; download the file again")
    return values


def read_config(path: Path) -> ModelConfig:
    """The shape in a `config.json`. Raises UserError naming file and field for what this decoder cannot do."""
    fields = _Fields(read_json(path), str(path))
    family = fields.values.get("model_type")
    if family not in FAMILIES:
        raise fields.fault("model_type", f"this decoder serves {', '.join(FAMILIES)} (SmolLM is llama)")
    _refuse_unsupported(fields)
    try:
        return _shape(fields, family)
    except UserError:
        raise
    except ValueError as error:                                 # ModelConfig's own checks do not know the file
        raise UserError(f"{path}: {error}") from error


def _shape(fields: _Fields, family: str) -> ModelConfig:
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    attention_bias = family != "qwen2" and fields.flag("attention_bias")
    theta, scaling = _rope(fields)
    return ModelConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", heads),
        head_dim=_head_dim(fields, family, hidden, heads),
        intermediate_size=fields.integer("intermediate_size"),
        max_length=fields.integer("max_position_embeddings"),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        tie_embeddings=fields.flag("tie_word_embeddings"),
        qkv_bias=family == "qwen2" or attention_bias,
        output_bias=attention_bias,
        mlp_bias=family == "llama" and fields.flag("mlp_bias"),
        qk_norm=family == "qwen3",
    )


def _head_dim(fields: _Fields, family: str, hidden: int, heads: int) -> int:
    if fields.values.get("head_dim") is not None:
        return fields.integer("head_dim")
    if family == "qwen3" and "head_dim" not in fields.values:
        return 128                                              # the family's default, whatever the width
    if hidden % heads:
        raise fields.fault("hidden_size", f"{heads} heads cannot share it evenly, and head_dim is not given")
    return hidden // heads


def _rope(fields: _Fields) -> tuple[float, RopeScaling | None]:
    """Theta and scaling, from ``rope_parameters`` or from the older ``rope_theta`` and ``rope_scaling``."""
    name = "rope_parameters" if fields.values.get("rope_parameters") else "rope_scaling"
    values = fields.values.get(name) or {}
    if not isinstance(values, dict) or any(isinstance(value, dict) for value in values.values()):
        raise fields.fault(name, "one set of RoPE parameters for all layers is served, and nothing else")
    rope = _Fields(values, f"{fields.file}: {name}")
    kind = values.get("rope_type", values.get("type", "default"))
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UserError(f"{rope.file}: rope_type is {json.dumps(kind)}; 'default' and 'llama3' are served")
    return theta, RopeScaling(rope.number("factor"), rope.number("low_freq_factor"), rope.number("high_freq_factor"),
                              rope.integer("original_max_position_embeddings"))


def _refuse_unsupported(fields: _Fields) -> None:
    """Raise for every setting that would load and then compute something else."""
    values = fields.values
    for name in EXPERTS:
        if values.get(name):
            raise fields.fault(name, "mixtures of experts are not served")
    if values.get("hidden_act", "silu") != "silu":
        raise fields.fault("hidden_act", "only 'silu' is served")
    if values.get("quantization_config"):
        raise UserError(f"{fields.file}: quantization_config is set; only float32, float16 and bfloat16 are served")
    if values.get("rope_interleaved"):
        raise fields.fault("rope_interleaved", "only pairs (i, i + head_dim/2) are served")
    for place in (values, values.get("rope_parameters") or {}):
        if isinstance(place, dict) and place.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise UserError(f"{fields.file}: partial_rotary_factor is {place['partial_rotary_factor']}; "
                            "only 1 is served")
    _refuse_windows(fields)


def _refuse_windows(fields: _Fields) -> None:
    """A window that is given but switched off, or that no layer uses, is harmless: Qwen2 ships like that."""
    values = fields.values
    kinds = values.get("layer_types")
    if kinds and any(kind != "full_attention" for kind in kinds):
        raise fields.fault("layer_types", "only 'full_attention' is served")
    llama = values.get("model_type") == "llama"
    on = values.get("use_sliding_window", llama)
    reached = llama or fields.integer("num_hidden_layers") > fields.integer("max_window_layers", 28)
    if not kinds and on and values.get("sliding_window") and reached:
        raise fields.fault("sliding_window", "attention over a sliding window is not served")


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """The fields of a `config.json` for this shape. Raises UserError for a mix of options that no family has."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        scaling = config.rope_scaling
        rope |= {"rope_type": "llama3", "factor": scaling.factor, "low_freq_factor": scaling.low_freq_factor,
                 "high_freq_factor": scaling.high_freq_factor,
                 "original_max_position_embeddings": scaling.original_length}
    family = _family(config)
    return {
        "architectures": [f"{family.capitalize()}ForCausalLM"], "model_type": family,
        "vocab_size": config.vocab_size, "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size, "max_position_embeddings": config.max_length,
        # Older readers look for rope_theta and rope_scaling beside rope_parameters.
        "rope_parameters": rope, "rope_theta": config.rope_theta,
        "rope_scaling": None if config.rope_scaling is None else rope,
        "rms_norm_eps": config.norm_eps, "hidden_act": "silu", "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": config.output_bias, "mlp_bias": config.mlp_bias,
    }


def _family(config: ModelConfig) -> str:
    family = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias and not config.output_bias else "llama"
    qkv_bias = family == "qwen2" or config.output_bias
    if config.qkv_bias != qkv_bias or (config.mlp_bias and family != "llama"):
        raise UserError(f"no Hugging Face family has qkv_bias={config.qkv_bias}, output_bias={config.output_bias}, "
                        f"mlp_bias={config.mlp_bias} and qk_norm={config.qk_norm} together; keep the model as a "
                        "state_dict, or choose the options of llama, qwen2 or qwen3")
    return family
