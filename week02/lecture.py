"""Week 2 lecture: inference, the KV cache, the roofline, and the six parts of a service. Built into `week02/lecture.ipynb`."""

# %% [markdown] key="goals" lang="en"
# # Week 2 · Inference, the KV cache, and what a service is made of
#
# After this lecture you can
#
# 1. tell prefill from decode, and say what a KV cache saves and what it costs;
# 2. find out on paper whether a step waits for arithmetic or for memory, and what a batch changes;
# 3. compute, for any published model, the bytes of its weights and of each token in its cache;
# 4. name the six parts of a service, and follow one request through running ones;
# 5. argue, with measurements, why web servers and classic model servers do not fit.
#
# **Rooms of `llmcourse` that open today:** `kv/` (where state lives), `engine/` and `executors/` (one instance, and what
# runs a batch), `metrics/` (hardware and roofline), `serve/` (the front door).
#
# | part | minutes |
# |:--|--:|
# | 1 · One token at a time | 25 |
# | 2 · Waiting for memory | 25 |
# | 3 · The price of a token | 20 |
# | 4 · Six parts of a service | 30 |
# | 5 · Why not a web server? | 25 |
# | 6 · What this cannot do | 10 |
# | **all** | **135** |
#
# Everything runs offline on two CPU cores in under a minute. Each part opens with a question: **answer it before you run
# the next cell.**

# %% key="setup"
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go
import torch

from llmcourse import viz
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock, WallClock
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.kv import BlockPool, ContiguousCache, KVStore
from llmcourse.metrics.hardware import hardware, measure_this_machine
from llmcourse.metrics.roofline import bound, decode, prefill, step_seconds, step_work
from llmcourse.model import load_model
from llmcourse.model.attention import CausalAttention, fused_attention
from llmcourse.model.decoding import generate, generate_stream
from llmcourse.model.shapes import shape
from llmcourse.serve import ModelRegistry, Refused, Service, TokenBucket
from llmcourse.viz.gantt import idle_slot_steps
from llmcourse.viz.theme import LINES, canvas, finish

pd.set_option("display.max_colwidth", None)
torch.set_num_threads(1)
torch.set_grad_enabled(False)
model, tokenizer = load_model("course-tiny", device="cpu")
print(f"course-tiny: {model.config.num_parameters:,} parameters, {model.config.num_layers} layers")

# %% [markdown] key="one" lang="en"
# ## 1 · One token at a time
#
# *Question: a model has read 10 tokens and writes 150. How many tokens has it computed in the end?*
#
# A decoder writes by being asked again and again: what comes next? Its answer is appended and becomes part of the next
# question. That is **autoregression**, and nothing about it can be done in parallel: token 7 does not exist before
# token 6 does.
#
# The plain way runs the whole text for each new token. *Predict: for 150 new tokens, is the last one as quick as the
# first? How much would be saved if nothing were computed twice?*

# %% key="one-measure"
now = time.thread_time               # seconds of this thread on the processor: what others use of it does not count


@contextmanager
def counted(model):
    """Inside, the list given out grows by the number of tokens of every forward pass."""
    counts = []
    hook = model.blocks[0].register_forward_pre_hook(lambda block, inputs: counts.append(inputs[0].shape[1]))
    yield counts
    hook.remove()


def write(prompt, use_cache, new=150):
    """Greedy tokens behind a prompt: the tokens, how many were computed for each, and the seconds each took."""
    tokens, seconds = [], []
    with counted(model) as counts:
        before = now()
        for token in generate_stream(model, prompt, new, use_cache=use_cache):
            tokens.append(token)
            seconds.append(now() - before)
            before = now()
    return tokens, counts, seconds


prompt = tokenizer.encode_prompt("Count from 1 to 90.")
write(prompt, True, 5)                                               # warm up
plain, plain_counts, plain_seconds = write(prompt, use_cache=False)
cached, cached_counts, cached_seconds = write(prompt, use_cache=True)

assert cached == plain, "a cache must not change a single token"
print(tokenizer.decode(plain)[:76], "…")
print(f"prompt {len(prompt)} tokens, {len(plain)} new")
print(f"without a cache {sum(plain_counts):6,} tokens computed in {sum(plain_seconds):5.2f} s")
print(f"with a cache    {sum(cached_counts):6,} tokens computed in {sum(cached_seconds):5.2f} s")

# %% key="one-picture"
figure = canvas("Tokens computed for each new token", 360)
for index, (name, counts) in enumerate({"without a cache": plain_counts, "with a cache": cached_counts}.items()):
    figure.add_trace(go.Scatter(y=counts, x=list(range(1, len(counts) + 1)), name=name, mode="lines",
                                line={"color": LINES[index], "width": 3, "dash": ("solid", "dash")[index]}))
figure.update_xaxes(title_text="new token")
figure.update_yaxes(title_text="tokens computed", rangemode="tozero")
share = sum(cached_counts) / sum(plain_counts)
finding = f"With a cache every step but the first computes one token: {share:.1%} of the work, the same {len(plain)} tokens."
viz.show(finish(figure, finding, ("new token", "without a cache", "with a cache"),
                list(zip(range(1, 151), plain_counts, cached_counts, strict=True))), alt=finding)

n, new = len(prompt), len(plain)
assert sum(plain_counts) == sum(n + k for k in range(new)), "n + (n + 1) + … : grows with the square of the length"
assert sum(cached_counts) == n + new - 1, "each token once, and the last one never: nobody asks what follows it"

# %% [markdown] key="one-why" lang="en"
# Without a cache the work grows with the **square** of the length. With one, every token is computed once.
#
# ### What is kept, and why it may be
#
# Attention compares the new token's **query** with the **key** of every earlier token, and mixes their **values**. Keys
# and values of earlier tokens are all that a new token needs of the past. And they never change: in a causal model a
# token looks only backwards, so what follows cannot alter what it has computed. So we keep them. That is the **KV cache**,
# and it is **append-only**.
#
# *Predict: take the bytes of the cache after the prompt, let the model write 20 more tokens, compare. And a model that
# may look forward as well, an encoder: could it keep its keys?*

# %% key="one-append"
cache = ContiguousCache(model.config, 64)
model(torch.tensor([prompt]), cache)
before = cache.keys[:, :, :n].clone(), cache.values[:, :, :n].clone()
for token in plain[:20]:
    model(torch.tensor([[token]]), cache)
same = torch.equal(before[0], cache.keys[:, :, :n]) and torch.equal(before[1], cache.values[:, :, :n])
print(f"{cache.length} tokens cached; the bytes of the first {n} are unchanged: {same}")
assert same


class LooksBothWays(CausalAttention):
    """Attention without a mask, as in an encoder; keeps the last layer's keys."""

    def attend(self, layer, q, k, v):
        self.last_keys = k
        return fused_attention(q, k, v)


short, longer = LooksBothWays(), LooksBothWays()
model(torch.tensor([prompt]), short)
model(torch.tensor([prompt + plain[:1]]), longer)
moved = (short.last_keys - longer.last_keys[:, :n]).abs().max().item()
print(f"without the mask one more token moves the keys of all others, by up to {moved:.2f}: nothing could be kept")
assert moved > 1e-3

# %% [markdown] key="one-phases" lang="en"
# ### Two phases, two prices
#
# - **Prefill**: the whole prompt in one pass. Many tokens at once, until the first new token is known. A user waits for
#   it: *time to first token*, **TTFT**.
# - **Decode**: one token a pass, as often as it takes. A user reads along: *time per output token*, **TPOT**.
#
# *Predict: 192 tokens in one pass, or in 192 passes of one token each. The same tokens, the same numbers come out. Which is
# faster, and how much?*

# %% key="one-two-phases"
text = (prompt + plain + plain)[:192]


def seconds_in_pieces(size):
    """Seconds to run 192 tokens through a cache, `size` tokens a pass."""
    cache, start = ContiguousCache(model.config, 192), now()
    for piece in torch.tensor([text]).split(size, dim=1):
        model(piece, cache)
    return now() - start


pieces = {size: min(seconds_in_pieces(size) for _ in range(2)) for size in (192, 48, 12, 3, 1)}
for size, seconds in pieces.items():
    print(f"{192 // size:4} passes of {size:3} tokens: {1000 * seconds:7.1f} ms, {1000 * seconds / 192:5.2f} ms a token")
assert pieces[192] < pieces[1], "one pass of many tokens beats many passes of one"
print(f"a token costs {pieces[1] / pieces[192]:.0f} times as much in decode as in prefill")

# %% [markdown] key="one-note" lang="en"
# <details><summary>Misconception: "with a cache every token costs the same"</summary>
#
# The cache removes the work of computing old tokens again. A new token must still **look** at all of them: its attention
# reads the whole cache. For short texts the weights dominate and it seems constant; for long ones the reading of the cache
# does. Part 2 puts numbers on it.
# </details>
#
# So the same token costs much more in decode than in prefill. Why? The arithmetic is the same!

# %% [markdown] key="two" lang="en"
# ## 2 · Waiting for memory
#
# *Question: a processor multiplies a matrix with one vector. Now with eight vectors. How much longer does it take?*
#
# Eight times the arithmetic, surely. Measure it on this machine: one matrix of 4096 × 4096 numbers, and a batch of vectors.

# %% key="two-measure"
weight = torch.ones(4096, 4096)
assert weight.numel() * weight.element_size() == 64 * 2**20, "64 MiB"


def best_seconds(call, runs=4):
    """The shortest of a few runs: disturbance only ever adds."""
    def once():
        start = now()
        call()
        return now() - start
    return min(once() for _ in range(runs))


batches = (1, 2, 4, 8, 16, 32, 64, 128)
taken = {b: best_seconds(lambda b=b: torch.ones(b, 4096) @ weight) for b in batches}
pd.DataFrame({"batch": batches, "ms": [round(1e3 * taken[b], 2) for b in batches],
              "ms a vector": [round(1e3 * taken[b] / b, 3) for b in batches],
              "times the first": [f"{taken[b] / taken[1]:.1f}" for b in batches]}).set_index("batch")

# %% key="two-check"
print(f"8 vectors take {taken[8] / taken[1]:.1f} times as long as one, 128 vectors {taken[128] / taken[1]:.1f} times")
assert taken[64] / 64 < taken[1] / 2, "in a batch of 64 a vector costs less than half of what it costs alone"

# %% [markdown] key="two-why" lang="en"
# To multiply one vector, all of the matrix must come out of memory: 64 MiB. Each number is used for one multiplication
# and one addition, and is never needed again. The arithmetic units idle. Eight vectors use each number eight times for
# the same reading.
#
# <details><summary>Why are two vectors not as cheap as one?</summary>
#
# From two vectors on the library takes another routine, made for matrices: it first copies the matrix into an order that
# suits it. That is a fixed cost, hence the flat stretch behind the first step. Only from some batch on does the time grow
# with the arithmetic.
# </details>
#
# The measure of this is **arithmetic intensity**: operations per byte moved. A machine has two ceilings: operations per
# second and bytes per second. Their quotient is its **ridge point**. Work below it waits for memory, work above it for
# arithmetic. Drawn with logarithmic axes this is the **roofline** (Williams, Waterman and Patterson, 2009).

# %% key="two-roofline"
machine = measure_this_machine()
roof = viz.Roof("this machine, one thread", machine.flops, machine.bandwidth)
points = [viz.Point(f"batch {b}", 2 * b * 4096**2, 4 * (4096**2 + 2 * b * 4096), taken[b]) for b in (1, 8, 32, 128)]
figure = viz.roofline_chart(roof, points, "One matrix, more and more vectors: measured")
viz.show(figure, alt=f"Measured: {viz.summary(figure)}")
print(f"this machine: {machine.flops / 1e9:.0f} GFLOP/s, {machine.bandwidth / 1e9:.1f} GB/s, "
      f"ridge at {machine.ridge:.1f} FLOP/byte: a batch of about {2 * machine.ridge:.0f} float32 vectors")

# %% [markdown] key="two-model" lang="en"
# ### A whole model on a real GPU
#
# A step of a server computes some new tokens of some requests. Count (the file is `metrics/roofline.py`, and you will write
# it in the lab):
#
# - **operations**: 2 per parameter and new token, plus 4 per layer, channel and token looked at;
# - **bytes**: all weights **once** per step, plus the KV cache of every request, its own.
#
# Prefill shares the weights among all tokens of a prompt. Decode shares them only among the requests of a batch.
# *Predict for Llama 3 8B on an H100: how long can the fastest possible decode step for a single user be, and what share of the
# arithmetic does it use?*

# %% key="two-table"
llama = shape("Llama 3 8B")
steps = {"prefill, 1,000 tokens": prefill(1000), "decode, 1 request": decode(1, 1000),
         "decode, 64 requests": decode(64, 1000), "decode, 512 requests": decode(512, 1000)}
rows = []
for gpu in (hardware("L4"), hardware("A100 80 GB"), hardware("H100 SXM")):
    for name, step in steps.items():
        work = step_work(llama, step)
        seconds = step_seconds(gpu, work)
        rows.append((gpu.name, name, round(work.arithmetic_intensity, 1), bound(gpu, work), round(1000 * seconds, 2),
                     f"{work.flops / seconds / gpu.flops:.1%}"))
columns = ["GPU", "step of Llama 3 8B", "FLOP/byte", "waits for", "least ms", "arithmetic used"]
pd.DataFrame(rows, columns=columns).set_index(columns[:2])

# %% key="two-table-check"
h100 = hardware("H100 SXM")
alone, crowd = step_work(llama, decode(1, 1000)), step_work(llama, decode(64, 1000))
print(f"One user of an H100: {step_seconds(h100, alone) * 1000:.1f} ms a token at best, so {1 / step_seconds(h100, alone):.0f} "
      f"tokens/s, using {alone.flops / step_seconds(h100, alone) / h100.flops:.2%} of its arithmetic.")
print(f"64 users: {64 / step_seconds(h100, crowd):,.0f} tokens/s, and each step takes "
      f"{step_seconds(h100, crowd) / step_seconds(h100, alone):.2f} times as long.")
a100 = hardware("A100 80 GB")
faster = step_seconds(a100, alone) / step_seconds(h100, alone)
print(f"The H100 has {h100.flops / a100.flops:.1f} times the arithmetic of the A100, {h100.bandwidth / a100.bandwidth:.1f} "
      f"times its bandwidth, and decodes for one user {faster:.1f} times as fast.")
assert bound(h100, step_work(llama, prefill(1000))) == "compute" and bound(h100, crowd) == "memory"
assert round(h100.flops / a100.flops) == 3 and abs(faster - h100.bandwidth / a100.bandwidth) < 1e-9

# %% [markdown] key="two-widget" lang="en"
# Move the batch and the context below. **Predict first:** at a context of 128 tokens decode crosses the ridge at some batch. At
# 8,192 tokens, does it too?

# %% key="two-explorer"
def points_of(batch, context):
    """A decode step of `batch` requests and a prefill of one, Llama 3 8B in 16 bits."""
    named = {f"decode, {batch} together": decode(batch, context), f"prefill of {context:,}": prefill(context)}
    works = {name: step_work(llama, step) for name, step in named.items()}
    return [viz.Point(name, work.flops, work.bytes) for name, work in works.items()]


roofs = [viz.Roof(gpu.name, gpu.flops, gpu.bandwidth) for gpu in map(hardware, ("H100 SXM", "A100 80 GB", "L4"))]
roofline = viz.roofline_explorer(roofs, points_of, batches=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024))
roofline

# %% key="two-limit"
for context in (128, 1024, 8192):
    most = step_work(llama, decode(10**5, context)).arithmetic_intensity
    print(f"context {context:5,}: however large the batch, at most {most:6.1f} FLOP/byte "
          f"(the H100's ridge is at {h100.ridge:.0f})")
assert step_work(llama, decode(10**5, 8192)).arithmetic_intensity < h100.ridge
assert step_work(llama, decode(10**5, 128)).arithmetic_intensity > h100.ridge

# %% [markdown] key="two-note" lang="en"
# Long contexts never cross: a batch shares the weights, but every request reads a cache of its own.
#
# <details><summary>Misconception: "a bigger GPU fixes slow decoding"</summary>
#
# For one user only its **bandwidth** counts. In the table the H100 has three times the arithmetic of the A100, and decodes
# one request only as much faster as its memory is.
# </details>
#
# *And our own model?* Measured steps of course-tiny stand well below both ceilings: it is so small that starting each of
# its many little operations costs more than the work in them. A third limit, **overhead**, which real engines fight too.

# %% key="two-tiny"
def measured_step(requests, context, new=1):
    """A real step of course-tiny as a point: `requests` rows of `new` tokens behind `context` cached ones."""
    cache = ContiguousCache(model.config, context + new, requests)
    cache.length = context
    tokens = torch.ones(requests, new, dtype=torch.int64)

    def step():
        model.hidden(tokens, cache)
        cache.length = context
    work = step_work(model.config, [(new, context)] * requests, bytes_per_value=4)
    name = f"prefill of {new}" if new > 1 else f"decode, {requests} together"
    return viz.Point(name, work.flops, work.bytes, best_seconds(step, 3))


tiny = [measured_step(1, 128), measured_step(32, 128), measured_step(1, 0, 512)]
figure = viz.roofline_chart(roof, tiny, "Steps of course-tiny on this machine: measured")
viz.show(figure, alt=f"Measured steps lie below the roof: {viz.summary(figure)}")
pd.DataFrame(viz.table(figure).rows, columns=viz.table(figure).columns).set_index("work")

# %% [markdown] key="three" lang="en"
# ## 3 · The price of a token
#
# *Question: a GPU of 80 GB holds Llama 3 8B, 16 GB of weights. How many users can talk to it at once?*
#
# Not "as many as it is fast enough for". Each user's cache must lie in memory, all the time. One token leaves
#
# $$2 \times \text{layers} \times \text{KV heads} \times \text{head size} \times \text{bytes per value}$$
#
# bytes behind: a key **and** a value, in each layer, for each head that has keys of its own.

# %% key="three-check"
config = model.config
cache = ContiguousCache(config, 64)
model(torch.tensor([prompt]), cache)
print(f"course-tiny keeps {config.num_kv_heads} KV heads for its {config.num_heads} query heads, in {config.num_layers} layers, "
      f"{config.head_dim} numbers each, 4 bytes a number")
print(f"by the formula {config.kv_bytes_per_token(4):,.0f} bytes a token; in the real cache "
      f"{cache.used_bytes:,} bytes for {cache.length} tokens")
assert cache.used_bytes == cache.length * config.kv_bytes_per_token(4)
assert KVStore(config, 8, 16).block_bytes == 16 * config.kv_bytes_per_token(4), "a block of 16 tokens, in the paged store"

# %% [markdown] key="three-heads" lang="en"
# Here model builders found their lever. **Multi-head** attention (MHA, Vaswani et al., 2017) has a key and a value for each
# query head. **Multi-query** (MQA, Shazeer, 2019) has one for all. **Grouped-query** (GQA, Ainslie et al., 2023) one per group.
# *Predict: by what factor does Llama 3 8B shrink its cache with 8 KV heads for 32 query heads?*

# %% key="three-table"
def kind(config):
    """MHA, GQA or MQA."""
    return "MHA" if config.num_kv_heads == config.num_heads else "MQA" if config.num_kv_heads == 1 else "GQA"


def memory_row(name, config, gpu_bytes=80e9, context=2048):
    """One line of the table, 16 bits a number."""
    per_token, weights = config.kv_bytes_per_token(), config.weight_bytes()
    fit = max(0, int((gpu_bytes - weights) // (per_token * context)))
    return (name, kind(config), round(weights / 1e9, 1), round(per_token / 1024), f"{weights / per_token:,.0f}", fit)


names = ("Llama 2 7B", "Llama 3 8B", "OPT 13B", "Llama 2 70B", "GPT-3 175B")
rows = [memory_row(name, shape(name)) for name in names]
rows += [memory_row(f"Llama 3 8B as {kind(c)}", c) for c in (replace(llama, num_kv_heads=heads) for heads in (32, 1))]
columns = ["model", "attention", "weights, GB", "KV a token, KiB", "tokens until the KV weighs as much as the weights",
           "requests of 2,048 tokens beside the weights in 80 GB"]
pd.DataFrame(rows, columns=columns).set_index("model")

# %% key="three-assert"
gpt3 = shape("GPT-3 175B")
assert gpt3.weight_bytes() == 350e9, "GPT-3 in 16 bits: 350 GB of weights, five GPUs of 80 GB before the first token"
assert round(llama.weight_bytes() / 1e9) == 16 and llama.kv_bytes_per_token() == 128 * 1024 and shape("Llama 2 7B").kv_bytes_per_token() == 512 * 1024
print(f"GPT-3: {gpt3.weight_bytes() / 1e9:.0f} GB of weights, and {gpt3.kv_bytes_per_token() * 2048 / 1e9:.1f} GB for each "
      "conversation of 2,048 tokens")
print(f"Llama 3 8B with as many KV heads as query heads would keep "
      f"{replace(llama, num_kv_heads=32).kv_bytes_per_token() / llama.kv_bytes_per_token():.0f} times as much")

# %% [markdown] key="three-note" lang="en"
# <details><summary>Two misconceptions in one formula: "layers × length × heads × head size × bytes"</summary>
#
# You will find it in slides and blogs. It forgets that a token leaves a key **and** a value (a factor 2), and it counts query
# heads, where only **KV heads** are stored. For a model with two query heads per KV head the two mistakes cancel, and
# nobody notices. For Llama 3 8B it is twice too large.
# </details>
#
# The widget divides a GPU's memory. **Predict first:** which saves more at long contexts, weights of 4 bits or a cache of 8 bits?

# %% key="three-explorer"
wrong = llama.num_layers * llama.num_heads * llama.head_dim * 2
assert wrong == 2 * llama.kv_bytes_per_token()

shapes = [viz.KVShape(c.name, c.num_layers, c.num_heads, c.num_kv_heads, c.head_dim, c.num_parameters)
          for c in map(shape, ("Llama 3 8B", "Llama 3 70B", "Llama 2 7B", "Qwen3 32B", "GPT-3 175B"))]
memory = viz.kv_explorer(shapes, {gpu.name: gpu.memory for gpu in map(hardware, ("H100 SXM", "H200", "L4"))})
memory

# %% [markdown] key="three-end" lang="en"
# So memory, not speed, decides how many can be served at once, and with it how large a batch can be, and with it (part 2)
# how well the arithmetic is used. And nobody knows at the start how long an answer, and so its cache, will become. Reserve too
# much and memory lies idle; too little and somebody must be stopped half way. Weeks 4 and 6 are about that.

# %% [markdown] key="four" lang="en"
# ## 4 · Six parts of a service
#
# *Question: which of these must know that you exist, which must remember what you said, and which may forget you?*
#
# | part | what it does | here |
# |:--|:--|:--|
# | **gateway** | who are you, may you, how often? streams the answer back | `serve.Service`, `serve.TokenBucket` |
# | **model registry** | which models and versions exist, which are loaded | `serve.ModelRegistry` |
# | **scheduler** | who is computed in the next step: the brain, and this course's theme | `engine.Scheduler` + `engine.Policy` |
# | **KV manager** | who owns which block of memory | `kv.BlockPool` |
# | **worker** | computes the batch | `executors.TorchExecutor` |
# | **monitor** | what is going on? | `serve.Monitor`, which reads the event log |
#
# What is asked of them together: low latency, high throughput, busy hardware, low cost, and promises that are kept (SLOs).
# These pull in different directions; week 3 makes them measurable.
#
# Let us run all six. The registry knows course-tiny but has not loaded it. Tenant *ana* may send 10 requests a second, *bo*
# one every 100 seconds.

# %% key="four-service"
clock = WallClock()
registry = ModelRegistry(clock)
registry.register("course-tiny", "1", lambda clock: Engine.from_model(
    "course-tiny", device="cpu", clock=clock, num_blocks=64, token_budget=64, checked=True))
service = Service(registry, {"ana": TokenBucket(rate=10, burst=10), "bo": TokenBucket(rate=0.01, burst=1)})

ask = SamplingParams(max_tokens=120)
first = service.submit("ana", "Count from 3 to 9.", ask)
others = [service.submit("ana", text, ask) for text in ("Count from 1 to 30.", "Write a story about a dragon.")]
for _ in range(8):
    service.step()                                                   # the three are being served when bo comes
others.append(service.submit("bo", "What is the largest of 9, 14, 54?", ask))
for tenant in ("bo", "eve"):
    try:
        service.submit(tenant, "Count from 1 to 4.", ask)
    except Refused as refusal:
        print(f"{tenant} was refused: {refusal}")
service.run()
for request in (first, *others):
    print(f"{request}: {service.text(request)[:90]!r}")
assert service.text(first).strip() == "3, 4, 5, 6, 7, 8, 9"

# %% [markdown] key="four-journey" lang="en"
# ### The journey of one request
#
# Nothing below was drawn by hand: `service.journey(id)` reads it off the logs. Move the slider from stop to stop. **Predict:** how
# often does the request pass through the worker? And of all its time, how much does it spend there?

# %% key="four-journey-widget"
way = service.journey(first)


def journey_at(stop):
    """The request after so many stops."""
    return viz.request_journey(way, at=stop, title="“Count from 3 to 9.” on its way")


journey = viz.Explorer("Journey of a request", journey_at, {"stop": viz.Slider("stop", range(1, len(way) + 1), 4)},
                       presets={"arrived": {"stop": 1}, "first token": {"stop": 1 + next(
                           k for k, stop in enumerate(way) if stop.what.startswith("streamed"))}, "done": {"stop": len(way)}},
                       question="how many times does it go back to the worker?",
                       answer="Once for the prompt and once for every further token: the loop of autoregression.")
journey

# %% key="four-journey-table"
start = way[0].time
visits = sum(stop.part == "worker" for stop in way)
assert visits == len(service.output(first)), "one visit for the prompt, which gives the first token, and one for each further token"
spent = {}
for earlier, later in pairwise(way):                                  # the time up to a stop belongs to its part
    spent[later.part] = spent.get(later.part, 0) + later.time - earlier.time
print("\n".join(f"{part:12} {1000 * seconds:8.1f} ms" for part, seconds in sorted(spent.items(), key=lambda item: -item[1])))
table = [(f"{1000 * (stop.time - start):8.1f}", stop.part, stop.what) for stop in [*way[:9], *way[-6:]]]
pd.DataFrame(table, columns=["ms since arrival", "part", "what happened"]).set_index("ms since arrival")

# %% [markdown] key="four-gantt" lang="en"
# The request was not alone. Each column below is one step of the worker, each row one request: who got tokens in which
# step? bo's prompt (hatched) rides along with the decodes of the others: nobody had to stop. When a request ends, its place is
# free in the next step.

# %% key="four-gantt-picture"
engine = registry.load("course-tiny")
gantt = viz.iteration_gantt(engine.events, title="Steps of the engine, first to last")
viz.show(gantt, alt=viz.summary(gantt))
waterfall = viz.request_waterfall(engine.events)
viz.show(waterfall, alt=viz.summary(waterfall))
served = engine.counters
late = next(event.data["batch"] for event in engine.events if event.kind == "STEP" and others[-1] in str(event.data["batch"]))
assert len(late) > 1 and sorted(count for _, _, count in late)[-2] == 1, "a prompt and others' single tokens in one step"
print(f"{served.steps} steps computed {served.computed_tokens} tokens for {len(engine.requests)} requests; "
      f"one after another it would have been {sum(len(r.output) for r in engine.requests.values())} steps")
assert served.steps < sum(len(r.output) for r in engine.requests.values())

# %% [markdown] key="four-monitor" lang="en"
# ### What the operator sees
#
# The monitor only reads the event log, so that watching cannot disturb. Its page has the format that Prometheus collects,
# and vLLM's names.

# %% key="four-monitor-page"
monitor = service.monitor()
page = monitor.render_prometheus().splitlines()
print(*[line for line in page if not line.startswith("#") and "_bucket" not in line], sep="\n")
assert monitor.counters()["generation_tokens"] == sum(len(service.output(r)) for r in (first, *others))
assert monitor.gauges()["kv_cache_usage_perc"] == 0, "everybody has left, and every block is free again"

# %% [markdown] key="four-state" lang="en"
# ### Stateless and stateful
#
# *Question: the machine dies in the midst of an answer. What is lost?*
#
# Gateway and registry have forgotten the request as soon as it is passed on: any copy of them could take over; run ten. The
# engine holds the request's cache. Its state cannot be looked up anywhere else: it must be **computed again** from the
# tokens, or **moved**. *Predict: after 40 tokens the instance fails. Another one gets the prompt and the 40 tokens. Does it
# go on with the same words? What must it compute?*

# %% key="four-failover"
def instance():
    """A fresh engine around the model in memory."""
    return Engine(TorchExecutor(model, 64, 16), BlockPool(64, 16), tokenizer=tokenizer, checked=True)


one, two = instance(), instance()
request = one.submit("Count from 1 to 60.", SamplingParams(max_tokens=100))
while len(request.output) < 40:
    one.step()
said = list(request.output)
one.abort(request.id)                                                # the instance is gone, and with it the cache

lost = request.computed * model.config.kv_bytes_per_token(4)
heir = two.submit([*request.prompt, *said], SamplingParams(max_tokens=60))
two.step()
print(f"lost: {lost / 1e6:.2f} MB of cache. The heir computed {heir.computed} tokens before its first word.")
for _ in two.stream():
    pass
undisturbed = generate(model, request.prompt, 100, eos_ids=tokenizer.eos_ids)
print("it went on as if nothing had happened:", said + heir.output == undisturbed)
assert said + heir.output == undisturbed and heir.prompt[:5] == request.prompt[:5]
assert two.events[1].kind == "SCHEDULED" and heir.computed >= len(request.prompt) + 40

# %% [markdown] key="four-patterns" lang="en"
# For a model of real size the same choice (compute again, or move gigabytes) decides how quickly a service can shift load,
# survive a failure or empty a machine. Weeks 7 and 8 live from it.
#
# **Two patterns** that follow from where the state is:
#
# - *Stateless in front, stateful behind.* Many equal gateways; few expensive workers, each with the caches of its requests. A
#   request must come back to **its** worker for every token.
# - *One brain, or several.* A central scheduler sees everything and becomes the bottleneck; schedulers on each instance are
#   quick and see only themselves. Llumnix (week 12) has both: one global, one in each instance.

# %% [markdown] key="five" lang="en"
# ## 5 · Why not a web server?
#
# *Question: we have served requests for thirty years, and neural networks for ten. What is new?*
#
# Web servers and classic model servers (TensorFlow Serving, Olston et al., 2017; Clipper, Crankshaw et al., 2017) rely on
# four assumptions. We test each on the running model.
#
# ### Assumption 1: requests of one size take about the same time
#
# An image classifier is one pass of fixed size. *Predict: the same prompt, 20 times, with sampling on. How far apart are
# the shortest and the longest answer?*

# %% key="five-same"
stories = Engine(TorchExecutor(model, 48, 16), BlockPool(48, 16), tokenizer=tokenizer, max_running=20, checked=True, seed=1)
tale = SamplingParams(max_tokens=300, temperature=1.0)
stories.generate(["Write a story about a dragon."] * 20, tale)
lengths = sorted(len(request.output) for request in stories.requests.values())

fixed = torch.ones(1, 64, dtype=torch.int64)
passes = sorted(best_seconds(lambda: model(fixed), 1) for _ in range(20))

figure = canvas("Twenty times the same prompt: tokens in each answer, sorted", 340)
figure.add_trace(go.Bar(x=list(range(1, 21)), y=lengths, marker={"color": LINES[0]}, name="tokens"))
figure.update_xaxes(title_text="request, sorted")
figure.update_yaxes(title_text="tokens written")
finding = (f"The same prompt gave answers of {lengths[0]} to {lengths[-1]} tokens, a factor of {lengths[-1] / lengths[0]:.0f}; "
           f"half of them were shorter than {lengths[10]}.")
viz.show(finish(figure, finding, ("request", "tokens"), list(enumerate(lengths, 1))), alt=finding)
print(finding)
print(f"a pass of fixed size, 20 times: median {1000 * passes[10]:.1f} ms, slowest but two {1000 * passes[17]:.1f} ms")
assert lengths[-1] >= 3 * lengths[0]

# %% [markdown] key="five-batch" lang="en"
# No property of the request told us. Time limits, load balancing by number of requests, capacity planning by requests per
# second: all of them lean on this assumption.
#
# ### Assumption 2: stack the inputs, run them together, hand out the results
#
# A classic server collects a batch, runs it, and answers. Here a batch must run as often as its **longest** answer needs. We
# give the lengths just measured to the course's scheduler twice: a batch that stays closed until all of it has ended
# (*static*), and one that requests join and leave at every step (iteration-level scheduling: Orca, Yu et al., 2022; *mixed*
# in our engine). Same worker, six seats, virtual time. *Predict: what share of the seats stays empty?*

# %% key="five-static"
arrivals = [len(request.output) for request in stories.requests.values()]


def serve(batching):
    """The twenty answers through six seats; the engine afterwards."""
    engine = Engine(MockExecutor(16), BlockPool(512, 16), batching=batching, max_running=6, clock=VirtualClock(), checked=True)
    for length in arrivals:
        engine.add(Request([1] * 9, SamplingParams(max_tokens=length, ignore_eos=True)))
    for _ in engine.stream():
        pass
    return engine


runs = {batching: serve(batching) for batching in ("static", "mixed")}
rows = []
for batching, engine in runs.items():
    figure = viz.iteration_gantt(engine.events, rows="slot", title=f"{batching} batching: six seats")
    viz.show(figure, alt=viz.summary(figure))
    empty = idle_slot_steps(engine.events) / (6 * engine.counters.steps)
    mean = sum(record.e2e for record in engine.records()) / 20
    rows.append((batching, engine.counters.steps, f"{empty:.0%}", round(mean, 2), round(engine.clock.now, 2)))
pd.DataFrame(rows, columns=["batching", "steps", "seats empty", "mean end to end, s", "all done, s"]).set_index("batching")

# %% key="five-static-check"
static, mixed = runs["static"], runs["mixed"]
assert idle_slot_steps(mixed.events) < idle_slot_steps(static.events)
assert mixed.clock.now < static.clock.now and mixed.counters.computed_tokens == static.counters.computed_tokens
print(f"static batching took {static.clock.now / mixed.clock.now:.2f} times as long for the same tokens")

# %% [markdown] key="five-state" lang="en"
# ### Assumption 3: a request needs little memory, and how much is known
#
# A web server's request holds a few kilobytes until it is answered. Here is the memory of the twenty stories, which ran together in a
# pool of 48 blocks. *Predict: does it stay level?*

# %% key="five-growth"
figure = viz.kv_occupancy(stories.events)
viz.show(figure, alt=viz.summary(figure))
print(f"{stories.counters.preemptions} times a running request was thrown out because memory had run out, "
      f"and {stories.counters.recomputed_tokens} of {stories.counters.computed_tokens} tokens were computed twice")
assert stories.counters.preemptions > 0 and stories.counters.recomputed_tokens > 0

# %% [markdown] key="five-phases" lang="en"
# Every step made every request larger, until not all of them fitted: some were **preempted**, lost their cache, and were
# computed again later. The answers are the same; the time is lost.
#
# ### Assumption 4: one kind of work
#
# A classifier does the same for everybody. Here each request is two kinds of work, one held by arithmetic and one by memory
# (part 2), and they meet in one machine. *Predict: six requests are writing. Somebody sends a prompt of 400 tokens. What do the
# six notice?*

# %% key="five-mixture"
crowd = Engine(TorchExecutor(model, 128, 16), BlockPool(128, 16), tokenizer=tokenizer, token_budget=512, checked=True)
for _ in range(6):
    crowd.submit("Count from 1 to 60.", SamplingParams(max_tokens=40, ignore_eos=True))
for _ in range(20):
    crowd.step()
crowd.submit((prompt + plain + plain + plain)[:400], SamplingParams(max_tokens=1))
for _ in crowd.stream():
    pass

log = [event for event in crowd.events if event.kind == "STEP"]
sizes = [sum(count for _, _, count in event.data["batch"]) for event in log]
lasts = [event.time - event.data["start"] for event in log]
usual = sorted(lasts[5:20])[7]
print(f"a step computed {sizes[19]} tokens in {1000 * usual:.1f} ms; the step with the prompt {sizes[20]} tokens in "
      f"{1000 * lasts[20]:.1f} ms, {lasts[20] / usual:.0f} times as long, and all six waited for it")
assert sizes[19] == 6 and sizes[20] == 406

# %% [markdown] key="five-table" lang="en"
# One stranger's prompt is everybody's pause. Some systems mix it in by small pieces (Sarathi-Serve), some send prefill and decode
# to different GPUs (DistServe): weeks 5 and 13.
#
# | | web server | classic model server | LLM service |
# |:--|:--|:--|:--|
# | a request is | a few milliseconds, mostly waiting for I/O | one pass of fixed size | hundreds of passes, number unknown |
# | its state | none, or in a database | none | a cache of megabytes to gigabytes that grows with every token |
# | a batch is | not needed | equal inputs, stacked | unequal, and changes at every step |
# | limited by | network, disk | arithmetic | arithmetic (prefill), bandwidth (decode), memory |
# | scale out by | one more copy | one more copy | one more copy, and a decision whose state goes there |
# | load is counted in | requests | requests | tokens and blocks |
#
# What fits instead is the list of the coming weeks: scheduling at every step, memory in blocks, prefill and decode treated
# according to their nature, requests that can move, and decisions taken at run time.

# %% [markdown] key="end" lang="en"
# ## 6 · What this cannot do
#
# - We said "faster" and "waits longer". Which latency, of whom, and what was promised? We have no **measures** yet: week 3.
# - Requests came all at once, from a short list. Real arrivals come in bursts, and long prompts among short ones: week 4.
# - First come, first served: one long request holds up everybody behind it: weeks 3 to 5.
# - Preempted requests lose everything. Swapping, sharing, moving: weeks 6, 7 and 10.
# - One instance. When it is full, the service is full: weeks 8 and 11.
# - The roofline is a **ceiling**. It says what cannot be beaten, not what will happen.
#
# ### Discussion
#
# 1. A prompt of 100,000 tokens and an answer of one token; a prompt of one token and an answer of 100,000. Which costs more
#    operations, which more time, on one GPU, and why?
# 2. If the cache is append-only, when may one copy it while the request goes on decoding?
# 3. Your users' prompts all begin with the same 2,000 tokens. Which of today's numbers change if their cache could be shared?
# 4. You may double a GPU's arithmetic, its bandwidth or its memory. For a chat service, which? And for one that
#    classifies documents with one-word answers?
# 5. Which of the six parts would you run three copies of, and what would go wrong with three copies of the others?
#
# **Next:** lab 2, where you write the cache, the loop, the arithmetic, the limit and the stream yourself.
