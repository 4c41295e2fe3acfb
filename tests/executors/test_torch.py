"""The torch executor: greedy output of any crowd equals each request alone, under every batching and a tight pool."""

import pytest
import torch

from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.engine.batch import Batch, ScheduledTokens
from llmcourse.engine.invariants import check_delivery
from llmcourse.errors import UserError
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


def alone(prompt: list[int], count: int) -> list[int]:
    return generate(model("cpu"), prompt, count)


@torch.inference_mode()
def test_scores_are_the_logits_of_the_samplers_and_nothing_is_sampled() -> None:
    """Three requests: one samples, one is in the midst of its prompt, one decodes."""
    executor, m = TorchExecutor(model("cpu"), 20, 4, threads=1), model("cpu")
    a, b, c = (Request([7, 3, seed, 5, 1, 2], SamplingParams(max_tokens=4), id=str(seed)) for seed in (10, 20, 30))
    executor.scores(Batch((ScheduledTokens(c, 0, 5, [5, 9]),)))
    batch = Batch((ScheduledTokens(a, 0, 6, [3, 1]), ScheduledTokens(b, 0, 4, [8]), ScheduledTokens(c, 5, 1, [5, 9])))
    want = torch.stack([m(torch.tensor([list(r.prompt)]))[0, -1] for r in (a, c)])
    torch.testing.assert_close(executor.scores(batch), want, rtol=1e-3, atol=1e-3)
    assert executor.execute(batch).tokens == {"10": int(want[0].argmax()), "30": int(want[1].argmax())}
    assert len(a.tokens) == 6


@pytest.mark.parametrize("kv", ["full", "int8"])
def test_a_request_that_was_carried_out_goes_on_as_if_nothing_had_happened(kv) -> None:
    """Out to the host, its blocks given to another, back into other blocks: no token is computed twice."""
    executor = TorchExecutor(model("cpu"), 6, 8, threads=1, host_blocks=4, kv=kv)
    mine = Request([5, 9, 2, 40, 7, 7, 1, 3, 11], SamplingParams(max_tokens=9), id="mine")
    other = Request([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], SamplingParams(max_tokens=9), id="other")

    def step(request: Request, start: int, table: list[int], **moves: tuple[tuple[int, int], ...]) -> None:
        count = len(request.tokens) - start
        request.tokens.append(executor.execute(Batch((ScheduledTokens(request, start, count, table),), **moves))
                              .tokens[request.id])
    step(mine, 0, [0, 1])
    step(mine, 9, [0, 1])
    step(other, 0, [1, 0], swap_out=((0, 2), (1, 0)))               # carried out before the other writes there
    step(other, 10, [1, 0])
    step(mine, 10, [3, 2], swap_in=((2, 3), (0, 2)))
    step(mine, 11, [5, 2], copies=((3, 5),))                        # copied after the swaps out, before those in
    assert executor.swapped_bytes == (2 * executor.store.block_bytes, 2 * executor.store.block_bytes)
    for request, count in ((mine, 4), (other, 2)):
        stay = TorchExecutor(model("cpu"), 6, 8, threads=1, kv=kv)
        same = Request(list(request.prompt), SamplingParams(max_tokens=9), id="same")
        for start in (0, *range(len(same.prompt), len(same.prompt) + count - 1)):
            item = ScheduledTokens(same, start, len(same.tokens) - start, [2, 4])
            same.tokens.append(stay.execute(Batch((item,))).tokens["same"])
        assert request.output == same.output
        assert kv == "int8" or request.output == alone(list(request.prompt), count)


@pytest.mark.parametrize("batching", ["mixed", "continuous"])
def test_int8_kv_depends_on_the_request_alone(batching: str) -> None:
    """Rounded keys and values are rounded the same whatever the company: a crowd says what each says alone."""
    def said(requests: list[Request], num_blocks: int) -> list[list[int]]:
        executor = TorchExecutor(model("cpu"), num_blocks, 16, threads=1, kv="int8")
        e = Engine(executor, BlockPool(num_blocks, 16), FCFS(), batching, token_budget=64, checked=True)
        added = [e.add(request) for request in requests]
        for _ in e.stream():
            pass
        return [request.output for request in added]
    together = said(crowd(12), 400)
    same = sum(said([request], 400)[0] == output for request, output in zip(crowd(12), together, strict=True))
    assert same >= 11                                    # a tie may fall otherwise in a product of another shape
    full = [alone(list(request.prompt), request.sampling.max_tokens) for request in crowd(12)]
    assert together != full, "rounding changed nothing in this random model: was int8 in use?"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match="no KV precision 'int4'; there is full, int8"):
        TorchExecutor(model("cpu"), 4, 4, kv="int4")  # type: ignore[arg-type]
