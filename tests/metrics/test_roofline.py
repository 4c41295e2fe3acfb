"""The arithmetic of a step, counted by hand, by loops, and by torch on a real model."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import UserError
from llmcourse.metrics.hardware import Hardware, hardware
from llmcourse.metrics.roofline import (
    Work,
    arithmetic_intensity,
    attainable_flops,
    bound,
    bytes_moved,
    decode,
    flops,
    prefill,
    requests_that_fit,
    step_seconds,
    step_work,
)
from llmcourse.model.config import ModelConfig
from llmcourse.model.shapes import shape

LLAMA, A100 = shape("Llama 3 8B"), hardware("A100 80 GB")
SMALL = ModelConfig(vocab_size=50, hidden_size=16, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8,
                    intermediate_size=20, max_length=64)
batches = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 100)), min_size=1, max_size=8)


def test_a_reader_s_tour() -> None:
    one = step_work(LLAMA, decode(requests=1, context=1000))
    assert one.bytes == 2 * LLAMA.num_parameters + 131072 * 1001
    assert one.arithmetic_intensity == pytest.approx(1, rel=0.05)           # 2 operations for a weight of 2 bytes
    assert bound(A100, one) == "memory"
    assert step_seconds(A100, one) == pytest.approx(7.9e-3, rel=0.02)       # reading 16 GB at 2 TB/s
    prompt = step_work(LLAMA, prefill(1000))
    assert bound(A100, prompt) == "compute" and prompt.arithmetic_intensity > 900
    many = step_work(LLAMA, decode(requests=32, context=1000))
    assert step_seconds(A100, many) < 1.3 * step_seconds(A100, one)         # 32 tokens for little more than one


def test_batching_raises_the_intensity_until_the_caches_outweigh_the_weights() -> None:
    short = [bound(A100, step_work(LLAMA, decode(requests, 128))) for requests in (1, 181, 182)]
    assert short == ["memory", "memory", "compute"]
    assert bound(A100, step_work(LLAMA, decode(10**5, 4096))) == "memory"


@given(batches)
def test_flops_by_counting_every_pair(batch) -> None:
    pairs = sum(context + index for new, context in batch for index in range(1, new + 1))
    tokens = sum(new for new, _ in batch)
    assert flops(SMALL, batch) == 2 * SMALL.num_parameters * tokens + 2 * 2 * 3 * 4 * 8 * pairs


def test_flops_of_a_real_model_counted_as_it_runs(monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    from llmcourse.kv import contiguous
    from llmcourse.model.attention import scaled_dot_product_attention
    from llmcourse.model.transformer import Transformer

    class Counter(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if function in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
                self.total += 2 * out.numel() * args[0].shape[-1]
            return out

    # A fused kernel shows no products; by the definition attention is two.
    monkeypatch.setattr(contiguous, "fused_attention", scaled_dot_product_attention)
    config = replace(SMALL, num_kv_heads=4)
    model, cache = Transformer(config), contiguous.ContiguousCache(config, 64)
    with torch.no_grad():
        model(torch.zeros(1, 20, dtype=torch.int64), cache)
        with Counter() as counter:
            model(torch.zeros(1, 1, dtype=torch.int64), cache)
    looked_up = config.vocab_size * config.hidden_size          # the embedding is not multiplied with
    norms = 7 * config.hidden_size                              # and neither are norms
    assert counter.total == flops(config, [(1, 20)]) - 2 * (looked_up + norms)


@given(batches, batches)
def test_a_batch_shares_the_weights_and_nothing_else(first, second) -> None:
    together = step_work(SMALL, first + second)
    assert together.flops == flops(SMALL, first) + flops(SMALL, second)
    assert together.bytes == bytes_moved(SMALL, first) + bytes_moved(SMALL, second) - SMALL.weight_bytes()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 50))
def test_a_prompt_in_pieces_costs_the_same_operations(first, second, context) -> None:
    whole = flops(SMALL, [(first + second, context)])
    assert whole == flops(SMALL, [(first, context)]) + flops(SMALL, [(second, context + first)])


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_time_and_roof_agree(operations, moved) -> None:
    machine, work = Hardware("x", flops=500.0, bandwidth=20.0, memory=1.0), Work(operations, moved)
    seconds = step_seconds(machine, work)
    assert operations / seconds == pytest.approx(attainable_flops(machine, work.arithmetic_intensity))
    if abs(work.arithmetic_intensity / machine.ridge - 1) > 1e-6:
        assert bound(machine, work) == ("compute" if work.arithmetic_intensity > machine.ridge else "memory")


def test_fewer_bytes_a_value_mean_more_intensity() -> None:
    batch = decode(8, 500)
    assert arithmetic_intensity(LLAMA, batch, 1) == pytest.approx(2 * arithmetic_intensity(LLAMA, batch, 2))


def test_how_many_requests_fit() -> None:
    assert requests_that_fit(A100, LLAMA, 4096) == int((80e9 - 2 * LLAMA.num_parameters) // (131072 * 4096)) == 119
    assert requests_that_fit(hardware("L4"), shape("Llama 3 70B"), 4096) == 0
    with pytest.raises(UserError, match="context"):
        requests_that_fit(A100, LLAMA, 0)


def test_the_cost_model_meets_a_measured_prefill() -> None:
    """Llumnix's artifact shows 2.0 s for 8,192 tokens of LLaMA-7B on an A10."""
    seconds = step_seconds(hardware("A10").derated(0.5), step_work(shape("Llama 1 7B"), prefill(8192)))
    assert seconds == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize("batch", [[(0, 5)], [(3, -1)]])
def test_work_that_is_none_is_refused(batch) -> None:
    with pytest.raises(UserError, match="no work"):
        flops(SMALL, batch)
