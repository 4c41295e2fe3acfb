"""llama.cpp as a peer of `llmcourse bench engine`: run in its own environment, it needs nothing of this package.

Arguments: the model's folder and a number of threads. Every line of standard input is a question in JSON. The batching
is what llama.cpp's own functions allow: every step one token of each running sequence, and prompts, in pieces if
need be, in what is left of the batch. Weights and KV are float32.

Of its settings the fastest in float32 is taken. Each sequence has a KV buffer of its own: one buffer for all
(`kv_unified`) makes every token look at everybody's tokens, and took twice the processor time on the 12m shape (36 s
against 15). Flash attention is off: it rounds float32 keys and values to float16, which moves logits by 0.002 of the
largest, and is slower for it.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import llama_cpp
import numpy as np
from _gguf import write_gguf

BATCH, SEQUENCES, LONGEST = 512, 64, 768                # tokens a step, sequences at once, tokens of each


@dataclass
class Sequence:
    """A prompt and its answer so far; it ends at ``end`` tokens. ``cached`` of them are in the KV buffer."""

    tokens: list[int]
    end: int
    slot: int
    cached: int = 0
    logits: np.ndarray | None = None                    # that its last token was taken from


class LlamaCpp:
    """A model and its one context."""

    def __init__(self, file: Path, threads: int) -> None:
        llama_cpp.llama_backend_init()
        about = llama_cpp.llama_model_default_params()
        about.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), about)
        self.context = llama_cpp.llama_init_from_model(self.model, _context_params(threads)) if self.model else None
        if not self.context:
            raise RuntimeError("llama.cpp did not load the model")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def run(self, jobs: list[tuple[list[int], int]]) -> tuple[float, list[Sequence]]:
        """Seconds from the first prompt to the last token, and the sequences in the order in which they came."""
        started = time.perf_counter()
        waiting = [Sequence(list(prompt), len(prompt) + output, -1) for prompt, output in jobs]
        everybody, running, free = list(waiting), [], list(range(SEQUENCES))[::-1]
        while waiting or running:
            while waiting and free:
                running.append(waiting.pop(0))
                running[-1].slot = free.pop()
            self.step(running)
            for done in [sequence for sequence in running if len(sequence.tokens) == sequence.end]:
                llama_cpp.llama_memory_seq_rm(self.memory, done.slot, -1, -1)
                running.remove(done)
                free.append(done.slot)
        return time.perf_counter() - started, everybody

    def step(self, running: list[Sequence]) -> None:
        """One decode: what each sequence has that is not in the KV buffer, first come first served, up to a full batch.

        Only the youngest can be in the middle of a prompt, so no answer waits for one. llama.cpp computes neighbours
        together as long as their slots follow each other, so slots are given out in order.
        """
        size, ready = 0, []
        for sequence in running:
            piece = sequence.tokens[sequence.cached:sequence.cached + BATCH - size]
            last = sequence.cached + len(piece) == len(sequence.tokens)
            for place, token in enumerate(piece):
                self._put(size + place, token, sequence.cached + place, sequence.slot, last and place == len(piece) - 1)
            size += len(piece)
            sequence.cached += len(piece)
            if piece and last:
                ready.append(sequence)
        self._decode(size)
        if ready:
            self._answer(ready)

    def decode_seconds(self, batch: int, context: int, steps: int) -> float:
        """Median seconds of a step that gives each of ``batch`` sequences a token."""
        running = [Sequence([1 + slot % 7] * context, 0, slot) for slot in range(batch)]
        for sequence in running:
            self.step([sequence])                       # its whole prompt
        times = []
        for _ in range(steps):
            started = time.perf_counter()
            self.step(running)
            times.append(time.perf_counter() - started)
        llama_cpp.llama_memory_clear(self.memory, False)
        return median(times)

    def _put(self, place: int, token: int, position: int, slot: int, wanted: bool) -> None:
        batch = self.batch
        batch.token[place], batch.pos[place], batch.logits[place] = token, position, wanted
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, slot

    def _decode(self, size: int) -> None:
        self.batch.n_tokens = size
        status = llama_cpp.llama_decode(self.context, self.batch)
        if status:
            raise RuntimeError(f"llama_decode of {size} tokens gave {status}")

    def _answer(self, ready: list[Sequence]) -> None:
        """The likeliest token for each, from its row of logits."""
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), (len(ready), self.vocab))
        for sequence, row, token in zip(ready, logits, logits.argmax(1).tolist(), strict=True):
            sequence.tokens.append(token)
            if len(sequence.tokens) == sequence.end:
                sequence.logits = row.copy()


def _context_params(threads: int) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.n_batch, params.n_ubatch = SEQUENCES * LONGEST, SEQUENCES, BATCH, BATCH
    params.n_threads = params.n_threads_batch = threads
    params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
    params.kv_unified, params.flash_attn_type = False, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params


def main() -> None:
    """Convert and load the weights, say so, and answer until standard input ends."""
    folder = Path(sys.argv[1])
    write_gguf(folder, folder / "model.gguf")
    peer = LlamaCpp(folder / "model.gguf", int(sys.argv[2]))
    print(json.dumps({"version": llama_cpp.__version__}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "jobs" in question:
            seconds, done = peer.run(question["jobs"])
            answer = {"seconds": seconds}
        elif "answer" in question:
            _, done = peer.run(question["answer"])
            answer = {"tokens": [sequence.tokens for sequence in done],
                      "logits": [sequence.logits.tolist() for sequence in done]}
        else:
            answer = {"seconds": peer.decode_seconds(question["batch"], question["context"], question["steps"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
