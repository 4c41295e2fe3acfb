"""vLLM's CPU build as a peer of `llmcourse bench engine`: run in its own environment, it needs nothing of this package.

Arguments: the model's folder and a number of threads. Every line of standard input is a question in JSON. A decode step
is what a long run takes more than a short one, divided by the steps between them.
"""

import json
import os
import sys
import time

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
               "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def main() -> None:
    """Load the weights, say so, and answer until standard input ends."""
    import vllm
    from vllm import LLM, SamplingParams
    llm = LLM(model=sys.argv[1], skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=1024,
              max_num_seqs=64, disable_log_stats=True, enable_prefix_caching=False)

    def run(jobs: list[tuple[list[int], int]]) -> float:
        started = time.perf_counter()
        done = llm.generate([{"prompt_token_ids": prompt} for prompt, _ in jobs],
                            [SamplingParams(max_tokens=output, ignore_eos=True, temperature=0, detokenize=False)
                             for _, output in jobs], use_tqdm=False)
        seconds = time.perf_counter() - started
        assert [len(request.outputs[0].token_ids) for request in done] == [output for _, output in jobs]
        return seconds

    run([([1, 2, 3], 4)])
    print(json.dumps({"version": vllm.__version__}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "jobs" in question:
            seconds = run(question["jobs"])
        else:
            batch, context, steps = question["batch"], question["context"], question["steps"]
            short, long = (run([([1] * context, output)] * batch) for output in (2, steps + 2))
            seconds = (long - short) / steps
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
