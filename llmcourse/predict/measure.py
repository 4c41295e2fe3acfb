"""Length data from a running model: every prompt is answered several times, and the answers are counted.

A real engine serves all of it at once, at temperature 1, each answer with a seed of its own; the same seed gives the
same lengths on any machine that rounds alike. `course_prompts` draws the prompts of the shipped set, none of which
course-tiny was trained on. `llmcourse data lengths` does both, in about a minute. Week 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.errors import UserError
from llmcourse.predict.data import LengthData
from llmcourse.predict.predictor import Progress

MAX_TOKENS = 512
SAMPLES = 6


def measure_lengths(engine: Engine, prompts: Sequence[str], samples: int = SAMPLES, progress: Progress | None = None,
                    seed: int = 0, max_tokens: int = MAX_TOKENS, kinds: Sequence[str] = ()) -> LengthData:
    """Answer each prompt ``samples`` times at temperature 1 and count; an answer cut at ``max_tokens`` counts as that.

    ``progress(done, of)`` is told of answers. Raises UserError for no samples, or a prompt the engine refuses.
    """
    if samples < 1:
        raise UserError(f"{samples} samples; measure at least 1 answer to each prompt")
    sampling = SamplingParams(max_tokens=max_tokens, temperature=1.0, n=samples)
    leaders = [engine.add(Request(engine.tokens_of(prompt), replace(sampling, seed=seed + row * samples)))
               for row, prompt in enumerate(prompts)]
    families = [leader.siblings or (leader,) for leader in leaders]
    done = 0
    while not engine.idle:
        engine.step()
        done += len(engine.take_ended())
        if progress:
            progress(done, samples * len(prompts))
    lengths = np.array([[answer.num_output for answer in family] for family in families], dtype=np.int64)
    return LengthData(tuple(prompts), lengths.reshape(len(prompts), samples), tuple(kinds),
                      tuple(tuple(family[0].output) for family in families))


def course_prompts(times: int = 3) -> tuple[list[str], list[str]]:
    """(prompts, kinds) that course-tiny never saw: those of `data/prompts`, and ``times`` as many of each kind."""
    from llmcourse.model.corpus import held_out_prompts
    from llmcourse.model.training.evaluation import PROMPT_SEED, PROMPTS_PER_KIND
    drawn = held_out_prompts(PROMPT_SEED, {kind: times * count for kind, count in PROMPTS_PER_KIND.items()})
    return [sample.prompt for sample in drawn], [sample.kind for sample in drawn]


def measure_course_tiny(path: Path, times: int = 3, samples: int = SAMPLES, progress: Progress | None = None,
                        ) -> LengthData:
    """Make the shipped data set again and write it to ``path``."""
    prompts, kinds = course_prompts(times)
    engine = Engine.from_model("course-tiny", num_blocks=4096, token_budget=512, max_running=128, device="cpu")
    data = measure_lengths(engine, prompts, samples, progress, kinds=kinds)
    data.save(path)
    return data
