"""The decoder that the whole course serves: Llama-style, in one sitting's reading.

Tokens become vectors; each block lets them look back (attention) and think (a gated feed-forward network), both
added to a residual stream behind a norm; the last vector is compared with every token's embedding to give the
next-token logits. Weights are stored [in, out] and applied as ``x @ W``, which is also the fast layout on a CPU.
Vaswani et al., 2017; RMSNorm: Zhang and Sennrich, 2019; SwiGLU: Shazeer, 2020; together:
Touvron et al., 2023. Week 1.
"""

import torch
from torch import Tensor, nn

from llmcourse.model.attention import Attention, CausalAttention
from llmcourse.model.config import ModelConfig
from llmcourse.model.rope import apply_rope, rope_angles, rope_frequencies


class Linear(nn.Module):
    """``x @ weight + bias`` with weight (in, out)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class RMSNorm(nn.Module):
    """Scale each vector to a root mean square of 1, then by a learned weight per channel."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size)."""
        return nn.functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class SelfAttention(nn.Module):
    """Project to queries, keys and values; rotate; let the ``Attention`` object look; project back."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, q_size, config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, kv_size, config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, kv_size, config.qkv_bias)
        self.o_proj = Linear(q_size, config.hidden_size, config.output_bias)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attention: Attention) -> Tensor:
        """(B, T, hidden) -> (B, T, hidden)."""
        heads = (*x.shape[:-1], -1, self.head_dim)
        q = apply_rope(self.q_norm(self.q_proj(x).view(heads)), cos, sin)    # (B, T, H, D)
        k = apply_rope(self.k_norm(self.k_proj(x).view(heads)), cos, sin)    # (B, T, KV, D)
        v = self.v_proj(x).view(heads)                                       # (B, T, KV, D)
        return self.o_proj(attention.attend(self.layer, q, k, v).flatten(-2))


class SwiGLU(nn.Module):
    """The feed-forward network: one projection gates another, a third leads back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., hidden) -> (..., hidden)."""
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer: look back, then think; each added to the residual stream behind a norm."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = SelfAttention(config, layer)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attention: Attention) -> Tensor:
        """(B, T, hidden) -> (B, T, hidden)."""
        x = x + self.attention(self.attention_norm(x), cos, sin, attention)
        return x + self.mlp(self.mlp_norm(x))


class Transformer(nn.Module):
    """A decoder-only language model of the given shape, randomly initialised; ``seed=None`` leaves that to a loader."""

    frequencies: Tensor

    def __init__(self, config: ModelConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.lm_head = None if config.tie_embeddings else Linear(config.hidden_size, config.vocab_size)
        self.register_buffer("frequencies", rope_frequencies(config), persistent=False)
        if seed is not None:
            self._initialise(seed)

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # Every block adds twice to the residual stream: its outputs start smaller the deeper the model is.
                adds = name.endswith(("o_proj.weight", "down_proj.weight"))
                parameter.normal_(0, 0.02 / (2 * self.config.num_layers) ** 0.5 if adds else 0.02, generator=generator)

    def hidden(self, tokens: Tensor, attention: Attention | None = None) -> Tensor:
        """Last hidden states: tokens (B, T) int64 -> (B, T, hidden). ``attention`` says where K and V live."""
        attention = attention or CausalAttention()
        positions = attention.positions(tokens.shape[1]).to(tokens.device)
        cos, sin = rope_angles(positions, self.frequencies)
        x = self.embedding[tokens]
        for block in self.blocks:
            x = block(x, cos, sin, attention)
        attention.advance(tokens.shape[1])
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every next token: (..., hidden) -> (..., vocab)."""
        return hidden @ self.embedding.T if self.lm_head is None else self.lm_head(hidden)

    def forward(self, tokens: Tensor, attention: Attention | None = None) -> Tensor:
        """Next-token logits at every position: tokens (B, T) int64 -> (B, T, vocab) float."""
        return self.logits(self.hidden(tokens, attention))
