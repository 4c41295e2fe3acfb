"""llama.cpp as a peer, without llama.cpp: the conversion, the comparison of weights, the batching of its worker."""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import _gguf, _llamacpp, engine
from benchmarks._shapes import Job
from llmcourse.model.config import ModelConfig
from llmcourse.model.loading import save_model
from llmcourse.model.rope import apply_rope, rope_angles, rope_frequencies
from llmcourse.model.transformer import Transformer

SMALL = ModelConfig(vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
                    intermediate_size=48, max_length=1024)


def small(seed: int = 0, **changes) -> Transformer:
    return Transformer(ModelConfig(**(vars(SMALL) | changes)), seed).eval().requires_grad_(False)


def neighbours(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE as llama.cpp's `llama` architecture does it: pairs (2i, 2i + 1)."""
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)


def test_neighbours_turned_on_permuted_rows_are_halves_turned_on_the_rows() -> None:
    draw = torch.Generator().manual_seed(0)
    x, q, k = (torch.randn(shape, generator=draw) for shape in ((5, 32), (32, 32), (16, 32)))
    cos, sin = rope_angles(torch.arange(5), rope_frequencies(SMALL))
    turned = {}
    for name, rows, heads in (("q", q, 4), ("k", k, 2)):
        dealt = torch.from_numpy(_gguf.interleaved(rows.numpy(), heads))
        halves, pairs = (apply_rope((x @ rows.T).view(5, heads, 8), cos, sin),
                         neighbours((x @ dealt.T).view(5, heads, 8), cos, sin))
        assert torch.allclose(pairs[..., 0::2], halves[..., :4], atol=1e-6)
        assert torch.allclose(pairs[..., 1::2], halves[..., 4:], atol=1e-6)
        assert not torch.allclose(neighbours((x @ rows.T).view(5, heads, 8), cos, sin), pairs, atol=0.1)
        turned[name] = halves, pairs
    scores = [torch.einsum("thd,shd->ths", turned["q"][way][:, ::2], turned["k"][way]) for way in (0, 1)]
    assert torch.allclose(*scores, atol=1e-4)


def test_every_tensor_arrives_under_llama_cpps_name(tmp_path: Path) -> None:
    model = small()
    save_model(model, tmp_path)
    found = dict(_gguf.tensors(tmp_path, {"num_attention_heads": 4, "num_key_value_heads": 2}))
    assert len(found) == len(list(model.parameters())) == 3 + 2 * 9
    block = model.blocks[1]
    for name, weight in (("token_embd", model.embedding), ("output_norm", model.norm.weight),
                         ("output", model.lm_head.weight.T), ("blk.1.attn_v", block.attention.v_proj.weight.T),
                         ("blk.1.attn_output", block.attention.o_proj.weight.T),
                         ("blk.1.ffn_norm", block.mlp_norm.weight), ("blk.1.ffn_down", block.mlp.down_proj.weight.T)):
        assert np.array_equal(found[f"{name}.weight"], weight.numpy()), name
    q, k = block.attention.q_proj.weight.T.numpy(), block.attention.k_proj.weight.T.numpy()
    assert np.array_equal(found["blk.1.attn_q.weight"][8:12], q[[8, 12, 9, 13]])         # the second head of four
    assert np.array_equal(found["blk.1.attn_k.weight"][8:12], k[[8, 12, 9, 13]])         # the second of two


def test_what_the_architecture_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"q_norm\.weight has no place"):
        _gguf.gguf_name("model.layers.0.self_attn.q_norm.weight")
    save_model(small(), tmp_path, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="only F32 is converted"):
        list(_gguf.read_safetensors(tmp_path / "model.safetensors"))


class Answers:
    """A worker that answers with a model of its own."""

    def __init__(self, model: Transformer) -> None:
        self.model = model

    def answers(self, jobs: list[Job]) -> tuple[list[list[int]], list[list[float]]]:
        everybody, last = [], []
        for job in jobs:
            tokens = list(job.prompt)
            for _ in range(job.output):
                logits = self.model(torch.tensor([tokens]))[0, -1]
                tokens.append(int(logits.argmax()))
            everybody.append(tokens)
            last.append(logits.tolist())
        return everybody, last


def test_another_model_is_noticed_and_the_same_passes() -> None:
    model, other = small(), small()
    _llamacpp.compare(Answers(other), model)                                             # type: ignore[arg-type]
    for block in other.blocks:                           # what a file with Q and K in the wrong order computes
        for rows, heads in ((block.attention.q_proj, 4), (block.attention.k_proj, 2)):
            rows.weight.data = torch.from_numpy(_gguf.interleaved(rows.weight.T.numpy(), heads)).T
    with pytest.raises(RuntimeError, match="computes another model"):
        _llamacpp.compare(Answers(other), model)                                         # type: ignore[arg-type]


def test_a_missing_environment_is_said(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine._transformers, "load", lambda *_: None)
    args = argparse.Namespace(device="cpu", threads=1, vllm_python=None, llamacpp_python=str(tmp_path / "python"))
    peers, absent = engine._peers(tmp_path, args, small())
    assert peers == [] and absent[1] == "vLLM (CPU) (no environment of its own given with --vllm-python)"
    assert absent[2].startswith("llama.cpp ([Errno 2] No such file")


class Fake(ModuleType):
    """A llama_cpp whose next token is the sum of a sequence's tokens; it checks positions and slots."""

    GGML_TYPE_F32, LLAMA_FLASH_ATTN_TYPE_DISABLED, vocab = 0, 0, 50

    def __init__(self) -> None:
        super().__init__("llama_cpp")
        self.slots: dict[int, list[int]] = {}
        self.sizes: list[int] = []
        for name in ("backend_init", "model_default_params", "model_load_from_file", "context_default_params",
                     "init_from_model", "get_memory", "model_get_vocab"):
            setattr(self, f"llama_{name}", lambda *_: SimpleNamespace())
        self.llama_vocab_n_tokens = lambda _: self.vocab
        self.llama_memory_seq_rm = lambda _, slot, *__: self.slots.pop(slot)
        self.llama_memory_clear = lambda *_: self.slots.clear()
        self.llama_get_logits = lambda _: np.array(self.rows)

    def llama_batch_init(self, size: int, *_: int) -> SimpleNamespace:
        return SimpleNamespace(seq_id=[[0] for _ in range(size)],
                               **{name: [0] * size for name in ("token", "pos", "logits", "n_seq_id")})

    def llama_decode(self, _: object, batch: SimpleNamespace) -> int:
        self.rows = []
        self.sizes.append(batch.n_tokens)
        for place in range(batch.n_tokens):
            tokens = self.slots.setdefault(batch.seq_id[place][0], [])
            assert batch.pos[place] == len(tokens) and batch.n_seq_id[place] == 1
            tokens.append(batch.token[place])
            if batch.logits[place]:
                self.rows.append(np.eye(self.vocab)[sum(tokens) % self.vocab])
        return 0


def worker_on_fake(monkeypatch) -> tuple[ModuleType, Fake]:
    fake = Fake()
    monkeypatch.setitem(sys.modules, "llama_cpp", fake)
    monkeypatch.setitem(sys.modules, "_gguf", _gguf)
    found = importlib.util.spec_from_file_location("_llamacpp_worker", Path(_gguf.__file__).parent /
                                                   "_llamacpp_worker.py")
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "_llamacpp_worker", module)
    found.loader.exec_module(module)
    return module, fake


def test_the_worker_answers_every_sequence_as_if_it_were_alone(monkeypatch) -> None:
    module, fake = worker_on_fake(monkeypatch)
    jobs = [([number % 7 + 1] * (20 * number % 130 + 1), number % 9 + 1) for number in range(80)]
    _, done = module.LlamaCpp(Path("model.gguf"), 1).run(jobs)
    for (prompt, output), sequence in zip(jobs, done, strict=True):
        tokens = list(prompt)
        for _ in range(output):
            tokens.append(sum(tokens) % fake.vocab)
        assert sequence.tokens == tokens and sequence.logits.argmax() == tokens[-1]
    assert max(fake.sizes) == 512 and fake.slots == {}                     # prompts fill a batch, none is beyond it


def test_the_worker_times_steps_of_one_token_each(monkeypatch) -> None:
    module, fake = worker_on_fake(monkeypatch)
    assert module.LlamaCpp(Path("model.gguf"), 1).decode_seconds(8, 192, 3) > 0
    assert fake.sizes == [192] * 8 + [8] * 3 and fake.slots == {}
