"""llama.cpp as one of the measured, once it has shown that it computes what our model computes.

A GGUF file with the rows of Q and K in the wrong order loads without a murmur, and answers in other words at the same
speed. So before anything is timed, prompts long and short are answered side by side in llama.cpp's batches, and every
token and the last logits are compared with the model that was saved.
"""

import random
from pathlib import Path

import torch

from benchmarks._shapes import Job
from benchmarks._worker import Worker
from llmcourse.model.transformer import Transformer

NAME = "llama.cpp"
CHECKED = ((600, 2), (9, 5), (40, 9))                    # prompts and answers: more than a batch, and some beside it
# Of the largest logit. Rounding alone stays well below; another order of Q and K shows at 0.02 even on the random
# weights of the 12m shape, whose attention hardly prefers one token to another, and at 0.5 on course-tiny.
TOLERANCE = 2e-4


def start(python: str, folder: Path, threads: int, model: Transformer) -> Worker:
    """A worker on the model saved in ``folder``. RuntimeError when it does not start or does not compute the same."""
    worker = Worker(NAME, python, "_llamacpp_worker.py", folder, threads)
    try:
        compare(worker, model)
    except RuntimeError:
        worker.close()
        raise
    return worker


@torch.inference_mode()
def compare(worker: Worker, model: Transformer) -> None:
    """RuntimeError where the worker's tokens are not the model's likeliest ones, or its logits are not the model's."""
    random_ = random.Random(0)
    jobs = [Job(random_.choices(range(model.config.vocab_size), k=prompt), output) for prompt, output in CHECKED]
    for job, tokens, logits in zip(jobs, *worker.answers(jobs), strict=True):
        answer = tokens[len(job.prompt):]
        ours = model(torch.tensor([tokens[:-1]]))[0, -len(answer):]           # (answer, vocab)
        short = (ours.amax(1) - ours[torch.arange(len(answer)), answer]).max()
        apart = max(float(short), float((ours[-1] - torch.tensor(logits)).abs().max())) / float(ours.abs().max())
        if tokens[:len(job.prompt)] != job.prompt or len(answer) != job.output or not apart <= TOLERANCE:
            raise RuntimeError(f"{NAME} computes another model: behind {len(job.prompt)} tokens it is {apart:.1e} of "
                               f"the largest logit away, {TOLERANCE:g} is allowed")
