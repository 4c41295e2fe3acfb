# %% [markdown] key="title" lang="en"
# # Week 2 · What holds a service back
#
# Four pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
from llmcourse import viz
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.executors.mock import MockExecutor
from llmcourse.kv.block_pool import BlockPool

LLAMA = viz.KVShape("Llama 3 8B", layers=32, heads=32, kv_heads=8, head_dim=128, parameters=8.03e9)
MODELS = [
    LLAMA,
    viz.KVShape("Llama 3 70B", layers=80, heads=64, kv_heads=8, head_dim=128, parameters=70.6e9),
    viz.KVShape("Llama 2 7B", layers=32, heads=32, kv_heads=32, head_dim=128, parameters=6.74e9),
    viz.KVShape("GPT-3 175B", layers=96, heads=96, kv_heads=96, head_dim=128, parameters=175e9),
]
GPUS = {"A100 80 GB": 80e9, "H100 80 GB": 80e9, "H200 141 GB": 141e9, "L4 24 GB": 24e9}
ROOFS = [viz.Roof("H100 SXM", 989e12, 3.35e12), viz.Roof("A100 80 GB", 312e12, 2.04e12), viz.Roof("L4", 121e12, 300e9)]
# %% [markdown] key="roofline" lang="en"
# ## 1 · Decode waits for memory, prefill for arithmetic
# %% key="roofline-widget"


def work(batch: int, context: int) -> list[viz.Point]:
    """A decode step of `batch` sequences and a prefill of one, Llama 3 8B in 16 bits."""
    weights, kv = 2 * LLAMA.parameters, LLAMA.bytes_per_token()
    pair = 4 * LLAMA.layers * LLAMA.heads * LLAMA.head_dim  # FLOPs of one query looking at one key
    decode = batch * (weights + pair * context)
    prefill = context * weights + pair * context * context / 2
    return [viz.Point(f"decode, {batch} together", decode, weights + batch * context * kv),
            viz.Point(f"prefill of {context:,}", prefill, weights + context * kv)]


roofline = viz.roofline_explorer(ROOFS, work)
roofline
# %% [markdown] key="memory" lang="en"
# ## 2 · The cache decides how many fit
# %% key="memory-widget"
memory = viz.kv_explorer(MODELS, GPUS)
memory
# %% [markdown] key="batching" lang="en"
# ## 3 · Who gets tokens in which step
# %% key="batching-widget"
WORK = [(24, 30), (40, 6), (12, 18), (64, 8), (20, 24), (16, 5), (30, 12), (50, 10)]  # (prompt, output) tokens


def run(batching: str, seats: int, blocks: int, budget: int = 32) -> list:
    """Serve eight requests, all here at once, with the course's scheduler; the event log."""
    engine = Engine(MockExecutor(8), BlockPool(blocks, 8), batching=batching, token_budget=budget, max_running=seats,
                    clock=VirtualClock(), checked=True)
    for number, (prompt, output) in enumerate(WORK):
        engine.add(Request([1 + (number + k) % 60 for k in range(prompt)],
                           SamplingParams(max_tokens=output, ignore_eos=True), id=f"r{number}"))
    return list(engine.stream()) and engine.events


def gantt(batching: str, seats: int, blocks: int, rows: str):
    """The Gantt of such a run."""
    return viz.iteration_gantt(run(batching, seats, blocks), rows=rows, title=f"{batching} batching, {seats} seats")


batching = viz.Explorer(
    "Batching", gantt,
    {"batching": viz.Choice("batching", ["static", "continuous", "mixed"], "static"),
     "seats": viz.Slider("seats", list(range(1, 9)), 4),
     "blocks": viz.Slider("KV blocks", [12, 16, 20, 24, 32, 48, 64], 64),
     "rows": viz.Choice("a row is a", ["slot", "request"], "slot")},
    presets={"break it": {"batching": "static", "blocks": 64}, "mend it": {"batching": "mixed", "blocks": 64},
             "too little memory": {"batching": "mixed", "blocks": 16, "seats": 8, "rows": "request"}},
    question="where do the white gaps come from, and who could fill them?",
    answer="A static batch stays closed until its longest request ends. "
           "Iteration-level batching fills a seat in the next step.")
batching
# %% [markdown] key="blocks" lang="en"
# ## 4 · Where the cache lies, step by step
# %% key="blocks-widget"
player = viz.EventPlayer(run("mixed", 8, 20), "Blocks of the KV cache, step by step")
player
