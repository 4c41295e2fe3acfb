"""The engine on the model that ships: text in, text out, and a crowd of real prompts says what each says alone."""

import json
import random
import re

import pytest

from llmcourse.engine import Engine, SamplingParams
from llmcourse.engine.invariants import check_delivery
from llmcourse.model.decoding import generate
from llmcourse.paths import DATA
from llmcourse.policies import FCFS


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    lines = (DATA / "prompts" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return random.Random(5).sample([json.loads(line)["prompt"] for line in lines], 64)


def engine(batching: str = "mixed", num_blocks: int = 256) -> Engine:
    return Engine.from_model("course-tiny", policy=FCFS(), batching=batching, num_blocks=num_blocks, block_size=16,
                             token_budget=256, device="cpu", threads=1, checked=True)


def test_it_counts() -> None:
    done = engine().generate(["Count from 3 to 9."], SamplingParams(max_tokens=64))[0]
    assert re.findall(r"\d+", done.text or "") == [str(n) for n in range(3, 10)]
    assert done.finish_reason == "stop"


def test_64_prompts_at_once_are_answered_as_each_alone(prompts: list[str]) -> None:
    """A pool too small for all of them: some are preempted on the way, and none says anything else."""
    e = engine(num_blocks=60)
    lengths = [random.Random(i).randint(8, 160) for i in range(64)]
    done = e.generate(prompts, [SamplingParams(max_tokens=n) for n in lengths])
    check_delivery(e)
    assert e.counters.preemptions > 0
    assert len({c.finish_reason for c in done}) == 2, "some should end by themselves and some be cut"
    for completion, length in zip(done, lengths, strict=True):
        alone = generate(e.executor.model, list(completion.prompt), length,  # type: ignore[attr-defined]
                         eos_ids=e.tokenizer.eos_ids)  # type: ignore[union-attr]
        assert list(completion.tokens) == alone
