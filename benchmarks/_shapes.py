"""The models and the work that `llmcourse bench engine` measures, and the targets that were set for each."""

import math
import random
from dataclasses import dataclass, replace

from llmcourse.model.config import ModelConfig

CONTEXT = 192                        # tokens behind each request when a single decode step is timed
TWELVE = ModelConfig(vocab_size=8192, hidden_size=256, num_layers=8, num_heads=8, num_kv_heads=4, head_dim=32,
                     intermediate_size=1024, max_length=2048)
SMOLLM2 = ModelConfig(vocab_size=49152, hidden_size=576, num_layers=30, num_heads=9, num_kv_heads=3, head_dim=64,
                      intermediate_size=1536, max_length=2048, tie_embeddings=True, rope_theta=100000.0)
QWEN3 = ModelConfig(vocab_size=151936, hidden_size=1024, num_layers=28, num_heads=16, num_kv_heads=8, head_dim=128,
                    intermediate_size=3072, max_length=4096, tie_embeddings=True, qk_norm=True, rope_theta=1e6,
                    norm_eps=1e-6)


@dataclass(frozen=True)
class Job:
    """A prompt, and how many tokens it is made to be answered with."""

    prompt: list[int]
    output: int


@dataclass(frozen=True)
class Shape:
    """A model to measure. ``config`` None is course-tiny itself; ``step_ms`` are the targets by batch size."""

    name: str
    config: ModelConfig | None
    requests: int = 64
    longest: int = 400                                   # no answer is longer
    step_ms: tuple[tuple[int, float], ...] = ()
    batches: tuple[int, ...] = (1, 8, 32)

    def whole(self) -> "Shape":
        """All 64 requests with their whole answers, however long it takes."""
        return replace(self, requests=64, longest=400)


SHAPES = {shape.name: shape for shape in (
    Shape("course-tiny", None),
    Shape("12m", TWELVE, step_ms=((1, 4.5), (8, 9.0), (32, 17.0))),
    # Static batches take minutes here: a quarter of the requests, and the longest answers cut. `--whole` lifts both.
    Shape("135m", SMOLLM2, requests=16, longest=64, step_ms=((1, 34.0), (8, 70.0), (32, 130.0))),
    Shape("qwen3-0.6b", QWEN3, requests=256, longest=1024, batches=(1, 32, 256)),
)}


def mixed_jobs(shape: Shape, vocab_size: int) -> list[Job]:
    """Prompts lognormal around 60 tokens, answers heavy-tailed around 38, all there at the start; always the same."""
    random_ = random.Random(5)
    draw = [(min(213, max(4, round(random_.lognormvariate(math.log(60), 0.45))))) for _ in range(64)]
    outputs = [min(400, max(4, round(random_.lognormvariate(math.log(35), 0.95)))) for _ in range(64)]
    return [Job(random_.choices(range(vocab_size), k=prompt), min(output, shape.longest))
            for prompt, output in list(zip(draw, outputs, strict=True))[:shape.requests]]


def long_jobs(shape: Shape, vocab_size: int) -> list[Job]:
    """Prompts and answers of 100 to 1,024 tokens, evenly spread: the work for a GPU."""
    random_ = random.Random(5)
    return [Job(random_.choices(range(vocab_size), k=random_.randint(100, 1024)), random_.randint(100, 1024))
            for _ in range(shape.requests)]
