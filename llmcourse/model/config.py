"""The shape of a decoder-only model, without its weights.

A shape alone answers most questions of serving: how many bytes the weights take, how many bytes each token leaves in
the KV cache, how many operations a token costs. So this file knows no torch; the simulator and the calculators of
week 2 read it as readily as the real model does. Week 1 names the fields, week 2 does the arithmetic.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3 stretches RoPE to longer contexts (Grattafiori et al., 2024).

    Wavelengths shorter than ``original_length / high_freq_factor`` stay, those longer than
    ``original_length / low_freq_factor`` are slowed by ``factor``, those between are blended.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a Llama-style decoder: grouped-query attention, RoPE, SwiGLU, RMSNorm.

    ``num_kv_heads == num_heads`` is multi-head attention, ``1`` is multi-query, anything between is grouped-query
    (Ainslie et al., 2023). Lengths are in tokens, sizes in values (not bytes).
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    max_length: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that no decoder can have."""
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim",
                     "intermediate_size", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads} query heads cannot share {self.num_kv_heads} KV heads evenly; "
                             "num_heads must be a multiple of num_kv_heads")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; RoPE rotates pairs, so it must be even")

    @property
    def num_parameters(self) -> int:
        """How many values the weights hold (embeddings counted once when tied)."""
        d, q, kv, ffn = (self.hidden_size, self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim,
                         self.intermediate_size)
        attention = 2 * d * q + 2 * d * kv + self.qkv_bias * (q + 2 * kv) + self.output_bias * d
        mlp = 3 * d * ffn + self.mlp_bias * (2 * ffn + d)
        norms = 2 * d + self.qk_norm * 2 * self.head_dim
        embeddings = self.vocab_size * d * (1 if self.tie_embeddings else 2)
        return embeddings + self.num_layers * (attention + mlp + norms) + d

    def weight_bytes(self, bytes_per_value: float = 2) -> float:
        """Bytes of all weights; 2 bytes a value is fp16 or bf16."""
        return self.num_parameters * bytes_per_value

    def kv_bytes_per_token(self, bytes_per_value: float = 2) -> float:
        """Bytes that one token leaves in the KV cache: K **and** V, every layer, KV heads (not query heads)."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes_per_value
