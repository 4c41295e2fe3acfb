"""Prepared weights compute what the transformer computes, whatever the family of the model."""

from dataclasses import replace

import pytest
import torch

from llmcourse.executors.prepared import PreparedModel
from llmcourse.kv import ContiguousCache
from llmcourse.model import ModelConfig, Transformer
from llmcourse.model.attention import CausalAttention

LLAMA = ModelConfig(vocab_size=90, hidden_size=24, num_layers=2, num_heads=6, num_kv_heads=2, head_dim=4,
                    intermediate_size=40, max_length=64)
FAMILIES = {
    "llama": LLAMA,
    "tied": replace(LLAMA, tie_embeddings=True),
    "multi-head": replace(LLAMA, num_kv_heads=6),
    "qwen2: biases of q, k, v": replace(LLAMA, qkv_bias=True),
    "biases everywhere": replace(LLAMA, qkv_bias=True, output_bias=True, mlp_bias=True),
    "qwen3: norms of q and k": replace(LLAMA, qk_norm=True, head_dim=8),
}


def loud(config: ModelConfig) -> Transformer:
    """A model whose every weight matters: norms are not 1, biases not 0. In float64, where rounding hides nothing."""
    model = Transformer(config, seed=2)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8).add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.double().eval()


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
@torch.inference_mode()
def test_logits_are_the_transformer_s(config: ModelConfig) -> None:
    model = loud(config)
    prepared = PreparedModel(model)
    tokens = torch.randint(0, config.vocab_size, (3, 11), generator=torch.Generator().manual_seed(1))
    hidden = prepared.hidden(tokens, CausalAttention())
    torch.testing.assert_close(hidden, model.hidden(tokens), rtol=1e-8, atol=1e-8)
    expected = model(tokens)
    for rows in (1, 2, 33):                                     # the vocabulary matrix is applied in two forms
        torch.testing.assert_close(prepared.logits(hidden.view(33, -1)[:rows]), expected.view(33, -1)[:rows],
                                   rtol=1e-8, atol=1e-8)


@torch.inference_mode()
def test_it_keeps_any_cache_as_the_transformer_does() -> None:
    model = loud(LLAMA)
    prepared, tokens = PreparedModel(model), torch.arange(20)[None] * 3 % 90
    caches = [ContiguousCache(LLAMA, 20, dtype=torch.float64), ContiguousCache(LLAMA, 20, dtype=torch.float64)]
    for chunk in (tokens[:, :9], tokens[:, 9:10], tokens[:, 10:]):
        torch.testing.assert_close(prepared.hidden(chunk, caches[0]), model.hidden(chunk, caches[1]),
                                   rtol=1e-8, atol=1e-8)
    assert caches[0].length == caches[1].length == 20
    torch.testing.assert_close(caches[0].keys, caches[1].keys, rtol=1e-8, atol=1e-8)


@torch.inference_mode()
def test_a_changed_weight_changes_the_answer() -> None:
    """The comparison above would notice one wrong matrix."""
    config = FAMILIES["biases everywhere"]
    tokens = torch.arange(7)[None]
    before = PreparedModel(loud(config)).hidden(tokens, CausalAttention())
    for name, _ in loud(config).named_parameters():
        if name == "lm_head.weight":
            continue
        model = loud(config)
        dict(model.named_parameters())[name].mul_(1.5)
        after = PreparedModel(model).hidden(tokens, CausalAttention())
        if "k_proj.bias" not in name:                           # the same for every key: it cancels in the softmax
            assert not torch.allclose(before, after, rtol=1e-3, atol=1e-4), name
