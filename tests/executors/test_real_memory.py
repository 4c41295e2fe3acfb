"""A real model on every kind of memory: each request says what it says alone, and the mechanism was really used."""

from functools import partial

import pytest
import torch

from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.engine.preemption import Preemption
from llmcourse.errors import UserError
from llmcourse.executors import TorchExecutor
from llmcourse.executors.beam import Sharing, paged_beam_search
from llmcourse.executors.mock import MockExecutor
from llmcourse.executors.prices import measured_prices
from llmcourse.kv import BlockPool, ContiguousPool, Memory, make_pool
from llmcourse.model.beam import beam_search
from llmcourse.model.decoding import generate
from tests.executors.test_torch import CONFIG, DEVICES, model

SIZE = 8
POOLS = {"paged": BlockPool, "hash": partial(make_pool, prefix_cache="hash"),
         "radix": partial(make_pool, prefix_cache="radix"), "growing": partial(ContiguousPool, compaction=True)}


def engine(device: str, pool: Memory, preemption: Preemption | None = None) -> Engine:
    executor = TorchExecutor(model(device), pool.num_blocks, pool.block_size, threads=1,
                             host_blocks=preemption.host_blocks if preemption else 0)
    return Engine(executor, pool, token_budget=96, max_running=8, checked=True, preemption=preemption)


def alike(count: int) -> list[Request]:
    """Requests of three families, each with 40 tokens in common, then 0 to 20 tokens of their own."""
    generator = torch.Generator().manual_seed(5)
    commons = torch.randint(0, CONFIG.vocab_size, (3, 40), generator=generator).tolist()
    return [Request(commons[i % 3] + torch.randint(0, CONFIG.vocab_size, (i % 21,), generator=generator).tolist(),
                    SamplingParams(10 + i, n=2 if i % 5 == 0 else 1)) for i in range(count)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["recompute", "swap"])
@pytest.mark.parametrize("kind", POOLS)
def test_whatever_its_memory_does_a_request_says_what_it_says_alone(kind: str, mode: str, device: str) -> None:
    served = engine(device, POOLS[kind](32, SIZE), Preemption(mode, 0 if mode == "recompute" else 40))
    requests = [served.add(request) for request in alike(16)]
    list(served.stream())
    executor = served.executor
    assert isinstance(executor, TorchExecutor)
    for request in requests:
        alone = generate(executor.model, list(request.prompt), request.sampling.max_tokens)
        for answer in request.siblings or [request]:
            assert answer.output == alone
    counters = served.counters
    assert counters.preemptions > 0
    assert (counters.swapped_out_blocks > 0) == (mode == "swap") == (executor.swapped_bytes[0] > 0)
    assert executor.swapped_bytes[1] == counters.swapped_in_blocks * executor.store.block_bytes
    assert (counters.hit_tokens > 200) == (kind in ("hash", "radix"))
    assert (counters.forked_tokens > 0) == (kind != "growing")
    assert counters.copied_blocks > 0


@pytest.mark.parametrize("device", DEVICES)
def test_sampled_answers_are_those_of_requests_with_the_same_seeds(device: str) -> None:
    def sampling(seed: int, n: int = 1) -> SamplingParams:
        return SamplingParams(20, temperature=0.9, top_p=0.95, seed=seed, n=n)
    prompt = list(range(30))
    together = engine(device, BlockPool(64, SIZE)).generate([prompt], sampling(7, n=3))
    alone = [engine(device, BlockPool(64, SIZE)).generate([prompt], sampling(seed))[0] for seed in (7, 8, 9)]
    assert [c.tokens for c in together] == [c.tokens for c in alone]
    assert len({c.tokens for c in together}) == 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["paged", "hash"])
def test_beams_in_the_engine_are_the_beams_of_the_model_and_share_their_blocks(kind: str, device: str) -> None:
    served, prompt = engine(device, POOLS[kind](64, SIZE)), list(range(45))
    executor = served.executor
    assert isinstance(executor, TorchExecutor)
    for answer in served.generate([list(range(200, 240))], SamplingParams(6)):      # the engine has work of its own
        assert len(answer.tokens) == 6
    sharing = Sharing()
    found = paged_beam_search(served, prompt, 4, 24, {9}, sharing=sharing)
    wanted = beam_search(executor.model, prompt, 4, 24, {9})
    assert [beam.tokens for beam in found] == [beam.tokens for beam in wanted]
    assert [b.log_probability for b in found] == pytest.approx([b.log_probability for b in wanted], abs=1e-3)
    assert served.pool.num_used == 0 and sharing.copied > 0 and 0.3 < sharing.saved < 0.75
    served.check_invariants()


def test_a_beam_gives_everything_back_when_memory_runs_out() -> None:
    served = engine("cpu", BlockPool(8, SIZE))
    with pytest.raises(UserError, match=r"a beam of width 8 ran out of memory.*8 are free"):
        paged_beam_search(served, list(range(40)), 8, 24)
    assert served.pool.num_used == 0
    with pytest.raises(UserError, match="width is 0"):
        paged_beam_search(served, [1, 2], 0, 4)
    with pytest.raises(UserError, match="length_penalty is -1"):
        paged_beam_search(served, [1, 2], 2, 4, length_penalty=-1)
    with pytest.raises(UserError, match="MockExecutor has none"):
        paged_beam_search(Engine(MockExecutor(4), BlockPool(8, 4)), [1, 2], 2, 4)


def test_prices_are_measured_and_a_slow_link_makes_swapping_dear() -> None:
    def prices(link: float | None):
        return measured_prices(TorchExecutor(model("cpu"), 64, SIZE, threads=1, host_blocks=64,
                                             link_bytes_per_second=link))
    block = 2 * CONFIG.num_layers * SIZE * CONFIG.num_kv_heads * CONFIG.head_dim * 4
    slow = prices(20 * block)                                 # twenty blocks a second
    assert 0.05 <= slow.block < 0.2 and slow.crossover(SIZE, 400) is None
    assert 0 < slow.prompt(50) < slow.prompt(400)
    assert prices(None).block < 0.05


def test_the_door_to_a_real_model_has_all_of_it() -> None:
    served = Engine.from_model("course-tiny", num_blocks=20, prefix_cache="radix", preemption="cheaper", host_blocks=30,
                               link=1e9, kv="int8", threads=1, checked=True)
    prompts = [f"Count from {start} to {start + 9}." for start in range(3, 11)]
    texts = [answer.text for answer in served.generate(prompts, SamplingParams(max_tokens=48))]
    assert texts[0] == "3, 4, 5, 6, 7, 8, 9, 10, 11, 12"
    executor = served.executor
    assert isinstance(executor, TorchExecutor) and not executor.store.exact and executor.host.num_blocks == 30
    assert executor.store.block_bytes < 0.3 * 16 * executor.model.config.kv_bytes_per_token(4)
    assert served.scheduler.preemption.prices is not None and served.counters.preemptions > 0
    assert served.generate(prompts[:1], SamplingParams(max_tokens=48))[0].text == texts[0]
    assert served.counters.hit_tokens > 0
    with pytest.raises(UserError, match="prefix_cache is 'tree'"):
        Engine.from_model("course-tiny", prefix_cache="tree")
    with pytest.raises(UserError, match="a link of 0 bytes a second"):
        Engine.from_model("course-tiny", preemption="swap", link=0)
