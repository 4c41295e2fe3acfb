"""The torch executor: greedy output of any crowd equals each request alone, under every batching and a tight pool."""

import pytest
import torch

from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.engine.invariants import check_delivery
from llmcourse.executors import TorchExecutor
from llmcourse.kv import BlockPool
from llmcourse.model import ModelConfig, Transformer
from llmcourse.model.decoding import generate
from llmcourse.policies import FCFS

CONFIG = ModelConfig(vocab_size=300, hidden_size=48, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=8,
                     intermediate_size=96, max_length=512)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"))]


def model(device: str) -> Transformer:
    made = Transformer(CONFIG, seed=3)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)                     # sharp logits that depend on the context, no near ties
    return made.to(device).eval()


def crowd(count: int, seed: int = 0) -> list[Request]:
    """Mixed lengths: prompts of 1-120 tokens, outputs of 1-60."""
    generator = torch.Generator().manual_seed(seed)
    def draw(low: int, high: int, size: int = 1) -> list[int]:
        return torch.randint(low, high, (size,), generator=generator).tolist()
    return [Request(draw(0, CONFIG.vocab_size, draw(1, 121)[0]), SamplingParams(max_tokens=draw(1, 61)[0]), id=f"c{i}")
            for i in range(count)]


def engine(device: str, num_blocks: int, batching: str, block_size: int = 16) -> Engine:
    executor = TorchExecutor(model(device), num_blocks, block_size, threads=1)
    return Engine(executor, BlockPool(num_blocks, block_size), FCFS(), batching, token_budget=96, max_running=32,
                  checked=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("batching", "num_blocks", "block_size", "count"), [
    ("mixed", 400, 16, 64), ("mixed", 24, 16, 24), ("mixed", 90, 3, 16), ("continuous", 24, 16, 16),
    ("static", 30, 16, 16)])
def test_greedy_output_of_a_crowd_is_that_of_each_alone(device: str, batching: str, num_blocks: int, block_size: int,
                                                        count: int) -> None:
    e = engine(device, num_blocks, batching, block_size)
    requests = [e.add(request) for request in crowd(count)]
    for _ in e.stream():
        pass
    check_delivery(e)
    for request in requests:
        assert request.output == generate(e.executor.model, list(request.prompt), request.sampling.max_tokens)  # type: ignore[attr-defined]
    if num_blocks < 100 and batching != "static":
        assert e.counters.preemptions > 0 and e.counters.recomputed_tokens > 0, "the pool was not tight at all"


def test_sampled_output_depends_on_the_seed_and_not_on_the_company() -> None:
    """The same request alone, in a crowd, and preempted: the same draws; another seed: others."""
    asked = [1, 2, 3]
    def said(num_blocks: int, companions: int, seed: int) -> list[int]:
        e = engine("cpu", num_blocks, "mixed")
        others = [e.add(request) for request in crowd(companions)]
        mine = e.add(Request(asked, SamplingParams(max_tokens=40, temperature=1.0, top_p=0.95, top_k=50, seed=seed)))
        for _ in e.stream():
            pass
        assert all(other.done for other in others)
        return mine.output
    alone = said(200, 0, seed=7)
    assert said(200, 20, seed=7) == alone and said(20, 20, seed=7) == alone
    assert said(200, 0, seed=8) != alone


def test_unseeded_requests_differ_from_one_another_and_repeat_with_the_engine_s_seed() -> None:
    def outputs() -> list[tuple[int, ...]]:
        e = engine("cpu", 200, "mixed")
        return [c.tokens for c in e.generate([[1, 2, 3]] * 3, SamplingParams(max_tokens=20, temperature=1.0))]
    first = outputs()
    assert len(set(first)) == 3 and outputs() == first
