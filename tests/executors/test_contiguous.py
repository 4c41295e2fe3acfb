"""A real model on contiguous memory: blocks move while others decode, and nobody says anything else for it."""

import random

import pytest
import torch

from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.executors import TorchExecutor
from llmcourse.kv import BlockPool, ContiguousPool
from llmcourse.model.config import ModelConfig
from llmcourse.model.transformer import Transformer

CONFIG = ModelConfig(vocab_size=97, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
                     intermediate_size=64, max_length=64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return Transformer(CONFIG).eval()


def outputs(model, pool):
    engine = Engine(TorchExecutor(model, pool.num_blocks, pool.block_size, threads=1), pool, clock=VirtualClock(),
                    token_budget=48, checked=True)
    source = random.Random(4)
    for number in range(12):
        prompt = [source.randrange(97) for _ in range(source.randint(2, 14))]
        engine.add(Request(prompt, SamplingParams(source.randint(3, 25), ignore_eos=True), id=f"r{number}"))
    while not engine.idle:
        engine.step()
    return [engine.requests[f"r{number}"].output for number in range(12)], engine.counters


@pytest.mark.parametrize(("make", "moves"), [
    (lambda: ContiguousPool(96, 1, "max", max_length=40), False), (lambda: ContiguousPool(96, 1, "exact"), False),
    (lambda: ContiguousPool(96, 1, fit="best"), True), (lambda: ContiguousPool(48, 2, compaction=True), True)])
def test_contiguous_memory_gives_the_same_tokens_as_paged(model, make, moves):
    expected, _ = outputs(model, BlockPool(200, 4))
    found, counters = outputs(model, make())
    assert found == expected
    assert (counters.copied_blocks > 0) == moves
