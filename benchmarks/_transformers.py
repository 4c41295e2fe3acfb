"""transformers as two of the measured: `generate` on static padded batches, and its continuous batching."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks._shapes import CONTEXT, Job

STATIC = 16
PAGE, MOST = 32, 64


def load(folder: Path, device: str, dtype: torch.dtype) -> Any | None:
    """The weights of a folder as a transformers model; None where transformers is not installed."""
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError:
        return None
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


class Static:
    """Batches of 16 in the order of arrival, padded to their longest prompt, run to their longest answer."""

    name = "transformers, static 16"

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, model.device

    @torch.inference_mode()
    def mixed(self, jobs: list[Job]) -> float:
        """Seconds from the first prompt to the last token."""
        started = time.perf_counter()
        for first in range(0, len(jobs), STATIC):
            batch = jobs[first:first + STATIC]
            width, longest = max(len(job.prompt) for job in batch), max(job.output for job in batch)
            ids = torch.tensor([[0] * (width - len(job.prompt)) + job.prompt for job in batch], device=self.device)
            there = torch.tensor([[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in batch],
                                 device=self.device)
            out = self.model.generate(ids, attention_mask=there, max_new_tokens=longest, min_new_tokens=longest,
                                      do_sample=False, pad_token_id=0)
            assert out.shape == (len(batch), width + longest)
        return time.perf_counter() - started

    @torch.inference_mode()
    def step(self, batch: int, steps: int) -> float:
        """Median seconds of a decode step around `CONTEXT` tokens of context: the model alone, without `generate`."""
        from transformers import DynamicCache
        cache = DynamicCache(config=self.model.config)
        self.model(input_ids=torch.ones((1, CONTEXT), dtype=torch.int64, device=self.device), past_key_values=cache)
        cache.batch_repeat_interleave(batch)
        ids = torch.ones((batch, 1), dtype=torch.int64, device=self.device)
        times = []
        for _ in range(steps + 1):
            started = time.perf_counter()
            logits = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            ids = logits[:, -1].argmax(-1, keepdim=True)
            ids[0].item()                                                     # wait for a GPU
            times.append(time.perf_counter() - started)
        return statistics.median(times[1:])


class Continuous:
    """Its own continuous batching over a paged cache, up to 64 requests at once."""

    name = "transformers, continuous"

    def __init__(self, model: Any) -> None:
        self.model = model

    def mixed(self, jobs: list[Job]) -> float:
        """Seconds from the first prompt to the last token; making the cache is not counted."""
        from transformers import ContinuousBatchingConfig, GenerationConfig
        settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=4096)
        pages = MOST + sum(-(-(len(job.prompt) + job.output) // PAGE) for job in jobs)
        memory = ContinuousBatchingConfig(page_size=PAGE, num_blocks=pages, max_batch_tokens=512,
                                          max_requests_per_batch=MOST, use_async_batching=False)
        with self.model.continuous_batching_context_manager(
                generation_config=settings, continuous_batching_config=memory, warmup=False) as manager:
            started = time.perf_counter()
            wanted = {manager.add_request(job.prompt, max_new_tokens=job.output, eos_token_id=-1): job.output
                      for job in jobs}
            while wanted:
                result = manager.get_result(timeout=600)
                if result is None:
                    raise RuntimeError(f"continuous batching gave nothing for {len(wanted)} requests")
                assert len(result.generated_tokens) == wanted.pop(result.request_id)
            return time.perf_counter() - started

    def step(self, batch: int, steps: int) -> None:
        """Its steps cannot be called one by one."""
