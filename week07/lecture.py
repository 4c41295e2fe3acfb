"""Week 7 lecture: moving requests between instances while they run, and what their clients see of it. Built into `week07/lecture.ipynb`."""

# %% [markdown] key="goals" lang="en"
# # Week 7 · Rescheduling at run time: migration
#
# After this lecture you can
#
# 1. say why a request should leave the instance it was given to, in six cases, and what each demands of the move;
# 2. say what a request consists of, why its KV is the problem, and choose between computing again and copying, from length and link;
# 3. explain from one property of the cache why a request can be copied while it runs, and work out rounds, downtime and total time;
# 4. carry out the protocol by hand: look, reserve, copy, stop, adopt, release; and undo it from any point, whoever dies;
# 5. tell KV migration (Llumnix), token migration (ServerlessLLM) and eviction to host memory (QLM) apart, in bytes and in seconds.
#
# **Rooms of `llmcourse` that open today:** `engine/departing.py` and `engine/arriving.py` (what either side does), `cluster/methods.py` (four ways to move, each
# as long as its protocol), `cluster/migration.py` (the state machine that survives everything).
#
# | part | minutes |
# |:--|--:|
# | 1 · A decision that cannot be taken back | 15 |
# | 2 · What is a request made of? | 10 |
# | 3 · Stop, move, go on | 15 |
# | 4 · What is written stays written | 30 |
# | 5 · A migration, seen from four sides | 15 |
# | 6 · Everything that can go wrong | 25 |
# | 7 · Tokens instead of KV | 10 |
# | 8 · Downtime against length | 15 |
# | 9 · What it is good for | 10 |
# | 10 · What this cannot do | 5 |
# | **all** | **150** |
#
# Everything runs offline on two CPU cores in under a minute. Each part opens with a question: **answer it before you run
# the next cell.**

# %% key="setup"
import inspect
import json
import random
from bisect import bisect
from functools import lru_cache
from itertools import pairwise
from zlib import crc32

import pandas as pd

from llmcourse import viz
from llmcourse.cluster import METHODS, Freeness, Link, LocalDriver, Rebalance, Terms, VirtualDriver, methods
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.arriving import adopt, grow, reserve, write
from llmcourse.engine.departing import look, read, release, stop
from llmcourse.engine.snapshot import Snapshot
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.model import load_model
from llmcourse.model.shapes import shape
from llmcourse.viz.moving import read_moves
from llmcourse.viz.series import curve, guide, log_axis
from llmcourse.viz.theme import canvas, finish, marker, size
from llmcourse.workload import Lognormal, Poisson, open_loop

pd.set_option("display.max_colwidth", None)
llama, a100 = shape("Llama 2 7B"), hardware("A100 80 GB")
cost = RooflineCost(a100, llama)
model, tokenizer = load_model("course-tiny", device="cpu")

# %% [markdown] key="one" lang="en"
# ## 1 · A decision that cannot be taken back
#
# *Question: four instances; each new request goes to the one with most room for each request it has (freeness, week 6). Could anybody dispatch better? Is the load still
# even half a minute later?*
#
# Weeks 4 to 6 took the troubles of a service apart: lengths that nobody knows, SLOs, neighbours, memory in pieces, priorities. All of them have one thing in common: what was a good
# decision when the request came is a bad one later. **Static** scheduling decides once, with what is known then. **Dynamic** scheduling decides again while the request runs, from the
# load, the memory, the priorities and the promises *as they are now*. Until today our requests stayed where they were put, *from cradle to grave*. *Predict: of all preemptions in this
# cluster, how many happened while another instance had room for the one who had to go?*

# %% key="one-drift"
@lru_cache
def four_instances(rebalance=None):
    """Four simulated A10 with a 7B, long-tailed lengths, just above the knee; the driver afterwards, and the table."""
    engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=850) for _ in range(4)]
    driver = VirtualDriver(engines, Freeness(), rebalance)
    table = driver.run(open_loop(Poisson(5.4), Lognormal(250, p99=1500), Lognormal(300, p99=1500), 400, 3))
    return driver, table


driver, table = four_instances()
steps = {number: [(e.time, e.data["num_blocks"] - e.data["used_blocks"]) for e in driver.events if e.kind == "STEP" and e.instance == number] for number in range(4)}


def free_at(number, time):
    """Blocks that were free on an instance at a moment (s)."""
    k = bisect([t for t, _ in steps[number]], time)
    return steps[number][k - 1][1] if k else 850


pushed = [(e.time, e.instance, len(e.data["freed"]), max(free_at(other, e.time) for other in range(4) if other != e.instance)) for e in driver.events if e.kind == "PREEMPTED"]
elsewhere = sum(free > 2 * freed for *_, freed, free in pushed)
figure = canvas("Free blocks of four instances, dispatched to the freest", 430)
GRID = [0.5 * k for k in range(int(2 * max(s[-1][0] for s in steps.values())))]
for number in range(4):
    figure.add_trace(curve(f"instance {number}", GRID, [free_at(number, time) for time in GRID], number, markers=False))
figure.add_scatter(x=[time for time, *_ in pushed], y=[12] * len(pushed), mode="markers", name="somebody is preempted", marker={"symbol": "triangle-up", "size": 12, "color": "#1a1a1a"})
figure.update_xaxes(title_text="s")
figure.update_yaxes(title_text="free blocks", rangemode="tozero")
finding = f"{len(pushed)} preemptions; at {elsewhere} of them another instance had more than twice the blocks free that were taken from the victim."
viz.show(finish(figure, finding, ("time, s", "instance", "blocks taken", "most free elsewhere"), [(round(t, 1), i, freed, free) for t, i, freed, free in pushed]), alt=finding)
assert len(pushed) > 10 and elsewhere > 0.5 * len(pushed)
print(finding)

# %% [markdown] key="one-motives" lang="en"
# The dispatcher was not stupid; it decided on what could be known. To change one's basket on the way has a name: **rescheduling at run time**, and what carries it out is
# **migration**: of a request that waits, or of one that runs. Six reasons for it, and what each asks of the move:
#
# | why | who moves | where | what matters |
# |:--|:--|:--|:--|
# | **balance**: one is full, others are not | somebody who runs, unimportant and short | full → free | little disturbance: it happens all the time |
# | **de-fragmentation**: a long prompt finds no instance with enough blocks | others, out of its way | the emptiest → the rest | moving as few bytes as possible |
# | **SLO, isolation**: a noisy neighbour came (week 5) | the one who suffers, or the one who disturbs | → a quieter place | its own downtime must not break the SLO it is to save |
# | **priority**: an urgent request needs the room | the unimportant; *moved* instead of *preempted* | → wherever there is room | to be quick: somebody waits |
# | **scaling**: switch an instance off at night, or use a new one at once | everybody / a few | terminating → others; busy → new | that it ends at all: draining must not take as long as the longest answer |
# | **faults**: an instance is about to die | everybody | → others | bytes before the deadline |
#
# Waiting requests are easy to move, running ones are not, and they are the ones that hold the memory. So first: what is it that has to be moved?
#
# <details><summary>Misconception: "migration makes the cluster faster"</summary>
#
# It computes nothing and creates no memory: it costs bytes, and a little time. What it does is let somebody use what is free elsewhere. In a cluster that is empty, or full everywhere, it does nothing
# (week 8 measures the band between).
# </details>

# %% [markdown] key="two" lang="en"
# ## 2 · What is a request made of?
#
# *Question: you may take one suitcase to the other instance. What must be in it, so that the next token is the right one?*
#
# Everything the next token depends on: the **tokens** so far, the **sampling parameters** with their seed, and the **KV** of the tokens. Beside these a few
# things the scheduler wants: arrival, priority, tenant, SLO. In this course a sampled token depends on seed, position and logits and on nothing else (week 2), so
# the random generator has no state that would have to travel. All of it but the KV is a `Snapshot`. *Predict: how many bytes is that for 1,000 tokens? And the KV of a 7B?*

# %% key="two-suitcase"
def as_json(snapshot):
    """What would go over a wire: tokens, parameters, and the scheduler's few numbers."""
    plain = {"id": snapshot.id, "prompt": snapshot.prompt, "output": snapshot.output, "seed": snapshot.sampling.seed,
             "temperature": snapshot.sampling.temperature, "max_tokens": snapshot.sampling.max_tokens, "arrival": snapshot.arrival,
             "priority": snapshot.priority, "tenant": snapshot.tenant, "computed": snapshot.computed, "status": snapshot.status}
    return json.dumps(plain, separators=(",", ":")).encode()


SHAPES = {"course-tiny": (model.config, 4), "Llama 2 7B": (llama, 2), "Llama 3 8B": (shape("Llama 3 8B"), 2), "Llama 2 70B": (shape("Llama 2 70B"), 2)}
rows = []
for length in (256, 1024, 4096, 8192):
    suitcase = len(as_json(Snapshot("r1", tuple(range(30_000, 30_000 + length)), SamplingParams(seed=1), 12.5, computed=length - 1)))
    kv = {name: length * config.kv_bytes_per_token(width) for name, (config, width) in SHAPES.items()}
    rows.append((f"{length:,}", size(suitcase), *(size(kv[name]) for name in SHAPES), f"{kv['Llama 2 7B'] / suitcase:,.0f}"))
assert 1024 * llama.kv_bytes_per_token(2) == 512 * 2**20 and suitcase < 8 * 8192
pd.DataFrame(rows, columns=["tokens", "all but the KV", *(f"KV: {name}" for name in SHAPES), "7B: times as much"]).set_index("tokens")

# %% [markdown] key="two-waiting" lang="en"
# Half a gibibyte for a thousand tokens, against a few kilobytes for all the rest. So there are two very different journeys.
#
# - A **waiting** request has no KV. Moving it is sending a short message, done between two steps, and nobody notices. (The destination
#   queues it by its *arrival*: whoever has waited ten seconds does not start again at the end of a line.)
# - A **running** request has its KV, and gets more of it with every step. It is the hard case, and the valuable one: on a full machine those who
#   run hold all the memory.
#
# First the easy case, on two engines with the real model. *Predict: how many bytes of KV are sent?*

# %% key="two-move-waiting"
def instance(num_blocks=96, **options):
    """An engine with the real model and so many blocks of 16 tokens."""
    return Engine(TorchExecutor(model, num_blocks, 16, threads=1), BlockPool(num_blocks, 16), tokenizer=tokenizer, token_budget=512, checked=True, **options)


COUNT = tokenizer.encode_prompt("Count from 10 to 95.")    # course-tiny can count: whoever loses a token is found out


def traveller(name="traveller", **sampling):
    """The request that will travel: 258 tokens, if nothing goes wrong on the way."""
    return Request(COUNT, SamplingParams(**{"max_tokens": 300, **sampling}), id=name)


def alone(request):
    """What this request is answered by one undisturbed engine: the yardstick of this whole week."""
    [answer] = instance().generate([request.prompt], request.sampling)
    return list(answer.tokens)


busy, idle = instance(max_running=1), instance()
busy.add(traveller("at work", max_tokens=40))
busy.add(traveller(temperature=0.8, seed=7, max_tokens=60))
busy.step()
suitcase = stop(busy, "traveller")                       # out of the queue: it has no KV, so this is all of it
adopt(idle, suitcase)
release(busy, "traveller")
for engine in (busy, idle):
    list(engine.stream())
assert idle.requests["traveller"].output == alone(traveller(temperature=0.8, seed=7, max_tokens=60)), "sampled, moved, and the same answer: the seed travelled with it"
assert busy.counters.sent_blocks == idle.counters.received_blocks == 0 and "traveller" not in busy.requests
print(f"{len(as_json(suitcase)):,} bytes moved, none of them KV; the answer is the one that an undisturbed engine gives")

# %% [markdown] key="two-note" lang="en"
# <details><summary>Misconception: "the KV cache is tens of gigabytes, so no request can be moved"</summary>
#
# Tens of gigabytes is what an **instance** holds, all requests together. One request has 0.5 MiB a token (7B, no grouped queries) or a quarter of
# that (8B with eight KV heads): half a gibibyte to a few gibibytes. One moves a few requests, not the cache.
# </details>

# %% [markdown] key="three" lang="en"
# ## 3 · Stop, move, go on
#
# *Question: the request stops at the source. Two honest ways lead to the KV it needs at the destination. Which?*
#
# - **Recompute**: send the tokens, and let the destination compute their KV again, as after a preemption (week 6). Costs **arithmetic** there: a prefill of all
#   tokens, in front of which the destination's own requests wait.
# - **Stop and copy**: send the KV. Costs **bytes** on the link: all of them, while the request stands.
#
# Either way the client gets nothing from the stop to the end. *Predict for a 7B and 1,024 tokens: how long is that, over 10 Gb/s Ethernet? Over the 64 Gb/s of the
# cloud machines in the Llumnix paper? And what does an A100 need to compute them again?*

# %% key="three-table"
LINKS = {"10 Gb/s": 10e9 / 8, "64 Gb/s": 64e9 / 8, "200 Gb/s": 200e9 / 8}


def recompute_seconds(tokens, price=cost):
    """A prefill of so many tokens, alone on the machine."""
    return price.seconds(tokens, 1, 0.0, tokens * (tokens + 1) / 2)


def copy_seconds(tokens, link, config=llama):
    """Their KV over a link of so many bytes/s."""
    return tokens * config.kv_bytes_per_token(2) / link


DECODE = cost.seconds(16, 16, 16 * 1000.0, 0.0)          # a decode step of sixteen requests of 1,000 tokens
rows = [(f"{n:,}", size(n * llama.kv_bytes_per_token(2)), f"{1000 * recompute_seconds(n):,.0f}", *(f"{1000 * copy_seconds(n, link):,.0f}" for link in LINKS.values()),
         f"{recompute_seconds(n) / DECODE:,.0f}") for n in (256, 1024, 4096, 8192)]
assert round(1000 * copy_seconds(1024, LINKS["64 Gb/s"])) == 67 and 60 < 1000 * recompute_seconds(1024) < 110
assert recompute_seconds(8192) > 8 * recompute_seconds(1024), "attention is quadratic: computing again grows faster than the length"
pd.DataFrame(rows, columns=["tokens", "KV", "compute again, ms", *(f"copy over {name}, ms" for name in LINKS), "compute again, in decode steps"]).set_index("tokens")

# %% [markdown] key="three-cross" lang="en"
# Which is shorter depends on the machine, the model and the link; that both grow with the length does not. Sun et al. (2024) measured computing again for 8k tokens of
# a 30B: 3.5 s, or 54 decode steps. Move the sliders. *Predict: which way does a faster GPU push the crossing? A model with fewer KV heads?*

# %% key="three-widget"
SPEEDS = tuple(2.0**k for k in range(-1, 7))             # GB/s


def ways(tokens, model_name, gpu):
    """Milliseconds of standing still by the speed of the link: compute again, stop and copy, and the last 16 blocks alone."""
    config = shape(model_name)
    price = RooflineCost(hardware(gpu), config)
    again = 1000 * recompute_seconds(tokens, price)
    copied = [1000 * copy_seconds(tokens, speed * 1e9, config) for speed in SPEEDS]
    tail = [1000 * copy_seconds(min(tokens, 256), speed * 1e9, config) for speed in SPEEDS]
    figure = canvas(f"{model_name} on {gpu}: {tokens:,} tokens change places", 460)
    for index, (name, values) in enumerate({"compute again": [again] * len(SPEEDS), "stop and copy": copied, "only the last 256 tokens": tail}.items()):
        figure.add_trace(curve(name, SPEEDS, values, index))
    log_axis(figure, "x", SPEEDS, "link, GB/s")
    log_axis(figure, "y", [again, *copied, *tail], "ms without a token")
    step = 1000 * price.seconds(16, 16, 16 * 1000.0, 0.0)
    guide(figure, "y", step, f"a decode step: {step:.0f} ms")
    even = copied[0] * SPEEDS[0] / again
    if SPEEDS[0] < even < SPEEDS[-1]:
        guide(figure, "x", even, f"as long at {even:.1f} GB/s")
    return finish(figure, f"{model_name} on {gpu}, {tokens:,} tokens: computing again takes {again:,.0f} ms, copying is shorter over links faster than {even:.1f} GB/s; "
                  f"the last 256 tokens alone take {tail[4]:.0f} ms at {SPEEDS[4]:g} GB/s.",
                  ("link, GB/s", "compute again, ms", "stop and copy, ms", "last 256 tokens, ms"), [(s, round(again, 1), round(b, 1), round(c, 1)) for s, b, c in zip(SPEEDS, copied, tail, strict=True)])


crossing = viz.Explorer("Compute again, or copy?", ways, {"tokens": viz.Slider("tokens", [256, 512, 1024, 2048, 4096, 8192], 1024), "model_name": viz.Choice("model", ["Llama 2 7B", "Llama 3 8B", "Llama 2 13B"], "Llama 2 7B"),
                                                          "gpu": viz.Choice("GPU", ["A10", "A100 80 GB", "H100 SXM"], "A100 80 GB")},
                        presets={"Llumnix's machines": {"gpu": "A10", "model_name": "Llama 2 7B"}, "a faster GPU": {"gpu": "H100 SXM"}, "grouped queries": {"model_name": "Llama 3 8B"}},
                        question="Where do the first two lines cross? And what is the third good for?",
                        answer="Near 6 GB/s for 1,024 tokens of a 7B on an A100; a faster GPU needs a faster link to compete with, fewer KV heads a slower one. The third does not depend "
                               "on the length: if only the last few tokens had to be sent while the request stands, a migration would take no longer than a step or two.")
crossing

# %% [markdown] key="four" lang="en"
# ## 4 · What is written stays written
#
# *Question: the request decodes while you copy it, so what you copy is out of date when it arrives. What exactly is out of date?*
#
# Look at the memory itself. The real model decodes 60 tokens; after every step each block of the request's table is hashed. A mark is
# a block that **changed** in that step. *Predict the picture.*

# %% key="four-hashes"
def hashes(engine, name):
    """A number for the content of each block of a request's table."""
    return [crc32(read(engine, name, k, k + 1).numpy().tobytes()) for k in range(engine.pool.blocks_for(engine.requests[name].computed))]


engine = instance()
watched = engine.add(traveller("watched", max_tokens=60))
history = []
while not engine.idle:
    engine.step()
    if not watched.done:
        history.append((watched.computed, hashes(engine, "watched")))
changed = [(step, block) for step, ((_, before), (_, now)) in enumerate(pairwise(history), 1) for block in range(len(now)) if block >= len(before) or before[block] != now[block]]
figure = canvas("Blocks that changed, step by step (real model, blocks of 16 tokens)", 360, barmode="overlay")
full = [(step, block) for step, (computed, _) in enumerate(history) for block in range(computed // 16)]
for name, cells, look_of in (("full: never changed again", full, marker("#56B4E9", "", 0.3)), ("written to in this step", changed, marker("#D55E00", "x", 0.3))):
    figure.add_bar(orientation="h", y=[block for _, block in cells], base=[step - 0.5 for step, _ in cells], x=[1] * len(cells), width=0.8, name=name, marker=look_of)
figure.update_xaxes(title_text="decode step", range=[-0.5, len(history) - 0.5])
figure.update_yaxes(title_text="block of the table", range=[-0.6, max(block for _, block in changed) + 0.6])
assert all(block == (history[step][0] - 1) // 16 for step, block in changed), "each step changed the block of its newest token, and no other"
assert len(changed) == len(history) - 1
finding = f"In each of {len(changed)} decode steps exactly one block changed: the one that holds the newest token. {history[-1][0] // 16} full blocks never changed after they were full."
viz.show(finish(figure, finding, ("decode step", "block that changed"), changed), alt=finding)
print(finding)

# %% [markdown] key="four-why" lang="en"
# The KV cache is **append-only**. The key and value of a token depend on the tokens before it, which are given, and on nothing that comes
# later: that is what *causal* attention means (week 1). So a full block is final. One can read it at leisure, while the request
# goes on, and it will not be out of date, ever. Only what is appended meanwhile is missing, and that is little:
#
# 1. copy all full blocks, **while the request decodes**;
# 2. copy the blocks that have filled up meanwhile; again; each time fewer;
# 3. when hardly anything is left, **stop** the request, copy the rest (the block that is being written too), and let it go on over there.
#
# Operating systems have moved virtual machines this way for twenty years (*pre-copy*, Clark et al., 2005). There it is harder: programs write anywhere, so a page copied
# early may have to be copied again and again. Sun et al. (Llumnix, 2024) saw that a KV cache only grows. *Predict: how many rounds for 4,096 tokens of a 7B over 64 Gb/s, when a step takes 15 ms?*

# %% key="four-rounds"
BLOCK = 16 * llama.kv_bytes_per_token(2)                 # bytes
LAST_STAGE = 16                                          # blocks: as few as this are sent in one go, with the request stopped


def rounds(tokens, link, step=DECODE, most=12):
    """The stages of a live copy: (blocks, seconds, stopped) each. The request gets a token every ``step`` seconds until it stops."""
    sent, found = 0, []
    while len(found) < most:
        left = -(-tokens // 16) - sent
        if left <= LAST_STAGE:
            return [*found, (left, left * BLOCK / link, True)]
        blocks = tokens // 16 - sent                     # full ones: the last is still being written
        found.append((blocks, blocks * BLOCK / link, False))
        sent, tokens = sent + blocks, tokens + int(found[-1][1] / step)
    return found                                         # it never came to the last stage


rows = []
for name, link in {**LINKS, "100 Mb/s": 12.5e6, "50 MB/s": 50e6}.items():
    found = rounds(4096, link)
    done = found[-1][2]
    rows.append((name, " + ".join(str(blocks) for blocks, *_ in found[:4]) + (" + …" if len(found) > 4 else ""), len(found) if done else "no end",
                 f"{sum(s for _, s, _ in found):,.2f}" if done else "", f"{1000 * found[-1][1]:,.0f}" if done else "never", f"{1000 * copy_seconds(4096, link):,.0f}"))
assert [len(rounds(4096, LINKS[name])) for name in LINKS] == [2, 2, 2] and rounds(4096, LINKS["64 Gb/s"])[-1][1] < DECODE
assert not rounds(4096, 12.5e6)[-1][2], "slower than decoding: it never catches up"
pd.DataFrame(rows, columns=["link", "blocks by round", "rounds", "whole migration, s", "stopped, ms", "stop-and-copy would stop it for, ms"]).set_index("link")

# %% [markdown] key="four-geometric" lang="en"
# Two rounds, and the stop is shorter than a step. Why so few? While *b* bytes are on the link, the request writes *b* × **ρ** more, with
#
# ρ = (KV bytes of a token ÷ seconds of a step) ÷ (bytes a second of the link)
#
# so round *k* has about *n*·ρ^*k* bytes: a geometric series. A request of a 7B writes 0.5 MiB every 15 ms, some 35 MB/s. Over 8 GB/s that is ρ = 0.4 %. Llumnix allows several
# rounds, and in practice takes two. But for **ρ ≥ 1** there is no end: *decoding writes faster than the link reads.* Then a limit on rounds must give up, or fall
# back to stopping early. *Predict: which of these raise ρ: a longer request, a faster GPU, a smaller link share, fewer KV heads, a larger batch?*

# %% key="four-widget"
def rounds_view(tokens, link, step):
    """The rounds of a live copy as bars on the link, and the wait of the client under it."""
    found = rounds(tokens, link * 1e6, step / 1000, most=8)
    rho = llama.kv_bytes_per_token(2) / (step / 1000) / (link * 1e6)
    figure, at = canvas(f"{tokens:,} tokens of a 7B over {link:,} MB/s, a token every {step} ms: ρ = {rho:.2g}", 320, barmode="overlay"), 0.0
    parts = {"copied while it decodes": [], "copied while it stands": []}
    for blocks, seconds, stopped in found:
        parts["copied while it stands" if stopped else "copied while it decodes"].append((at, seconds, blocks))
        at += seconds
    for name, bars in parts.items():
        look_of = marker("#F0E442", "x") if name.endswith("stands") else marker("#E69F00", "/")
        if bars:
            figure.add_bar(orientation="h", y=[0] * len(bars), base=[start for start, *_ in bars], x=[long for _, long, _ in bars], width=0.5, name=name, showlegend=True,
                           marker=look_of, text=[f"{blocks} blocks" for *_, blocks in bars], textposition="inside", insidetextanchor="middle", constraintext="none")
    figure.add_bar(orientation="h", y=[1], base=[0], x=[copy_seconds(tokens, link * 1e6)], width=0.5, name="stop-and-copy stands all the time", marker=marker("#D55E00", "x"), showlegend=True)
    figure.update_yaxes(tickvals=[0, 1], ticktext=["live", "stop-and-copy"], range=[1.6, -0.6], showgrid=False)
    figure.update_xaxes(title_text="s", rangemode="tozero")
    stood = f"the request stands for {1000 * found[-1][1]:,.0f} ms" if found[-1][2] else "no end in sight: decoding writes faster than the link reads"
    return finish(figure, f"{len(found)} rounds in {at:,.2f} s, {stood}; stop-and-copy: {1000 * copy_seconds(tokens, link * 1e6):,.0f} ms.",
                  ("round", "blocks", "ms", "stopped"), [(k, b, round(1000 * s, 1), str(st)) for k, (b, s, st) in enumerate(found, 1)])


live_rounds = viz.Explorer("Rounds of a live copy", rounds_view, {"tokens": viz.Slider("tokens", [256, 512, 1024, 2048, 4096, 8192], 4096), "link": viz.Slider("link", [20, 30, 40, 60, 100, 200, 1000, 8000], 200, "MB/s"),
                                                                  "step": viz.Slider("a token every", [5, 10, 15, 30, 60], 15, "ms")},
                           presets={"a data centre": {"link": 8000}, "break it": {"link": 30, "step": 15}, "fix it without a faster link": {"link": 30, "step": 30}},
                           question="Break it. Then mend it without touching the link: which knob helps, and what would it mean on a real machine?",
                           answer="A slower decode writes less per second. Throttling the request until the copy catches up is what some hypervisors do with virtual machines; for a "
                                  "request one would rather stop and copy, or send tokens (part 7).")
live_rounds

# %% [markdown] key="four-hand" lang="en"
# ### By hand
#
# Now for real: two engines with the real model, and a request that has written 150 tokens. Every line below is an order of the protocol. The source takes steps in
# between, and the request with it. *Predict: after which line does the client get no token? After which does it again?*

# %% key="four-by-hand"
source, destination = instance(), instance()
source.add(traveller())
source.add(traveller("another"))
for _ in range(150):
    source.step()

first = look(source, "traveller")                                            # how far is it?
reserve(destination, first)                                                  # room over there, before anything is sent
full = first.computed // 16
write(destination, "traveller", 0, full, read(source, "traveller", 0, full))  # stage 1: full blocks, while …
for _ in range(20):
    source.step()                                                            # … the request goes on
last = stop(source, "traveller")                                             # out of the batch; downtime begins
grow(destination, last)                                                      # it has more tokens by now
end = -(-last.computed // 16)
write(destination, "traveller", full, end, read(source, "traveller", full, end))   # the rest, the unfinished block too
adopt(destination, last)                                                     # COMMIT: from here on it lives there
release(source, "traveller")                                                 # and its old blocks are free
for engine in (source, destination):
    list(engine.stream())

answer = destination.requests["traveller"].output
assert answer == alone(traveller()), "token for token what an undisturbed engine says"
assert last.num_tokens == first.num_tokens + 20, "twenty tokens were written while the first stage was under way"
assert source.counters.sent_blocks == destination.counters.received_blocks == end and destination.counters.recomputed_tokens == 0
assert source.pool.num_used == destination.pool.num_used == 0, "no block is left behind on either side"
print(f"{full} blocks while it ran, {end - full} while it stood; {len(last.output)} tokens from the source, {len(answer) - len(last.output)} from the destination, all {len(answer)} right")
print("…", tokenizer.decode(answer[len(last.output) - 20:len(last.output)]), "| moved |", tokenizer.decode(answer[len(last.output):])[:40], "…")

# %% [markdown] key="four-wrong" lang="en"
# ### Three ways to get it wrong
#
# All three "work": nothing raises, an answer arrives. *Predict for each: which tokens of the answer are wrong, and from where on?*
#
# - **too eager**: the first stage also takes the block that is *still being written*, and nobody sends it again;
# - **too early**: the commit comes before the last blocks have arrived;
# - **two masters**: the destination goes on, and the source was never stopped.

# %% key="four-wrong-run"
def by_hand(eager=False, early=False, masters=1):
    """The protocol with a mistake in it: what the client receives, and after how many tokens it was stopped."""
    source, destination = instance(), instance()
    source.add(traveller())
    for _ in range(150):
        source.step()
    first = look(source, "traveller")
    reserve(destination, first)
    sent = -(-first.computed // 16) if eager else first.computed // 16
    write(destination, "traveller", 0, sent, read(source, "traveller", 0, sent))
    for _ in range(20):
        source.step()
    last = stop(source, "traveller") if masters == 1 else look(source, "traveller")
    grow(destination, last)
    end = -(-last.computed // 16)
    if not early and end > sent:
        write(destination, "traveller", sent, end, read(source, "traveller", sent, end))
    adopt(destination, last)
    stream = list(last.output)
    while not destination.idle:
        for engine in (source, destination):
            stream += [token for event in engine.step() if event.kind == "NEW_TOKENS" and event.request == "traveller" for token in event.data["tokens"]]
    return stream, len(last.output)


right = alone(traveller())
streams = {"right": by_hand(), "too eager": by_hand(eager=True), "too early": by_hand(early=True), "two masters": by_hand(masters=2)}
rows = []
for name, (stream, moved_after) in streams.items():
    wrong_at = next((k for k, (a, b) in enumerate(zip(stream, right, strict=False)) if a != b), None)
    rows.append((name, len(stream), "all" if wrong_at is None else f"the first {wrong_at}", moved_after, tokenizer.decode(stream[moved_after - 10:moved_after + 60])))
assert streams["right"][0] == right and all(stream != right for name, (stream, _) in streams.items() if name != "right")
assert len(streams["two masters"][0]) > len(right)
pd.DataFrame(rows, columns=["", "tokens received", "of them right", "stopped after", "the text around the move"]).set_index("")

# %% [markdown] key="four-rule" lang="en"
# The yardstick is always the same: **the answer of an engine that nobody disturbed, token for token.** A test that only asks whether an answer arrives passes all four.
#
# <details><summary>Misconception: "append-only is a matter of course"</summary>
#
# It is a property of *this* cache. Three things break it: a cache that **evicts or merges** old tokens (sliding windows, H2O, StreamingLLM); one that **re-quantises** old blocks with
# a new scale; and **speculative decoding**, whose rejected tokens are overwritten (there, what is accepted is append-only). And beam search forks: its tables change. In all of these one
# can still migrate, but must ask again what is final.
# </details>

# %% [markdown] key="five" lang="en"
# ## 5 · A migration, seen from four sides
#
# *Question: which of the lines you wrote by hand may fail, and who has to be told?*
#
# Let a driver do it. A **method** is a generator: it yields an order, and is sent the answer. This is the whole live migration of this course:

# %% key="five-source"
print(inspect.getsource(methods.live))
assert list(METHODS) == ["live", "stop-and-copy", "recompute", "tokens"]

# %% [markdown] key="five-driver" lang="en"
# Who carries the orders out knows nothing of methods, and a method knows nothing of engines, links or failures. The order of things is the protocol:
#
# 1. **look** (source): how far is it? 2. **reserve** (destination): room and a seat, *before* a byte is sent; it may refuse. 3. **copy**: whole blocks, while the source goes on.
# 4. **look, grow, copy**, as often as it takes. 5. **stop** (source): out of the batch at the end of a step. 6. **grow, copy**: the rest. 7. **adopt** (destination): the **commit**.
# 8. **release** (source).
#
# Two engines with the real model in this process, five other requests beside the traveller, and a link throttled to 20 MB/s so that one can see it. (One process: the two take turns. Where they would
# run side by side, see the simulated pair: 7B, two A100, 64 Gb/s.) *Predict the timeline of each method: on which lane does the longest bar lie, and where is the client's gap?*

# %% key="five-run"
SLOW = Link(bandwidth=20e6, latency=0.0005)              # bytes/s, s
FILL = tokenizer.encode_prompt("Once upon a time there was a little dog. ") * 100


def real_pair(method="live", link=SLOW, **terms):
    """Two engines with the real model, and a driver that moves by this method."""
    engines = [Engine(TorchExecutor(model, 160, 16, threads=1), BlockPool(160, 16), tokenizer=tokenizer, token_budget=256) for _ in range(2)]
    return LocalDriver(engines, method=method, link=link, terms=Terms(16, **{"last_blocks": 2, "gap": 8, **terms}))


def others(driver, count, tokens):
    """More requests, one here, one there."""
    for k in range(count):
        driver.add(Request(FILL[k:k + 40], SamplingParams(max_tokens=tokens, ignore_eos=True), id=f"other {k}"))


def simulated_pair(method="live", gpu="A100 80 GB"):
    """The same with a simulated 7B on two GPUs."""
    return VirtualDriver([Engine.simulated("Llama 2 7B", gpu) for _ in range(2)], method=method)


@lru_cache
def journey(world, method):
    """The traveller moves from instance 0 to 1 in the middle of its answer: the driver, when all is over."""
    if world == "real model":
        driver = real_pair(method)
        driver.add(traveller())
        others(driver, 4, 160)
        ready = 110
    else:
        driver = simulated_pair(method)
        driver.add(Request([-1] * 1000, SamplingParams(max_tokens=220), id="traveller"))
        for k in range(15):
            driver.add(Request([-1] * 1000, SamplingParams(max_tokens=300), id=f"other {k}"))
        ready = 60
    so_far(driver, ready)
    driver.migrate("traveller", 1)
    driver.finish()
    driver.check_invariants()
    return driver


def so_far(driver, count):
    """Serve until the traveller has so many tokens."""
    while len(driver.tokens("traveller")) < count:
        if isinstance(driver, VirtualDriver):
            driver.go_to(driver.now + 0.01)
            for instance in driver.alive:
                driver.reach(instance, driver.now)
        else:
            driver.advance()


WORLDS = ("real model", "simulated 7B")
for method in METHODS:
    driver = journey("real model", method)
    assert driver.migrations[0].outcome == "moved" and driver.tokens("traveller") == right, "whatever the method: the same tokens"
    journey("simulated 7B", method)
moves = {(world, method): read_moves(journey(world, method).events)[0] for world in WORLDS for method in METHODS}
timeline = viz.Explorer("A migration, seen from four sides", lambda world, method: viz.migration_timeline(moves[world, method]),
                        {"world": viz.Choice("world", WORLDS, "real model"), "method": viz.Choice("method", list(METHODS), "live")},
                        presets={"live": {"method": "live"}, "stop and copy": {"method": "stop-and-copy"}, "compute again": {"method": "recompute"}, "tokens, not KV": {"method": "tokens"},
                                 "side by side": {"world": "simulated 7B"}},
                        question="Which lanes are busy while the client waits? Which method sends no KV at all, and what does it do instead?",
                        answer="Live: the long bar on the link lies under the source's steps; only the last copy stands in the client's gap. Stop-and-copy: the whole bar. Recompute and tokens send a "
                               "few bytes and compute at the destination: recompute inside the gap, tokens before it.")
timeline

# %% key="five-table"
rows = []
for (world, method), move in moves.items():
    rows.append((world, method, len(move.copies), size(move.bytes), f"{1000 * sum(c.end - c.start for c in move.copies if not c.stopped):.0f}", f"{1000 * sum(c.end - c.start for c in move.copies if c.stopped):.0f}",
                 f"{1000 * move.downtime:.0f}", f"{1000 * (move.ended - move.begun):.0f}"))
for world in WORLDS:
    by = {method: moves[world, method] for method in METHODS}
    assert by["live"].bytes >= by["stop-and-copy"].bytes > 0 == by["recompute"].bytes == by["tokens"].bytes
    assert [copy.stopped for copy in by["live"].copies] == [False, True] and [copy.stopped for copy in by["stop-and-copy"].copies] == [True]
assert moves["simulated 7B", "live"].downtime < 0.6 * moves["simulated 7B", "stop-and-copy"].downtime
pd.DataFrame(rows, columns=["world", "method", "copies", "KV sent", "on the link while it ran, ms", "while it stood, ms", "from stop to next token, ms", "whole migration, ms"]).set_index(["world", "method"])

# %% [markdown] key="five-client" lang="en"
# A client knows nothing of all this. It sees tokens, and the time between them. In the simulated pair:

# %% key="five-stream"
figure = viz.client_streams({method: journey("simulated 7B", method).events for method in METHODS}, before=0.15, after=0.45)
viz.show(figure, alt=viz.summary(figure))
print(viz.summary(figure))

# %% [markdown] key="five-price" lang="en"
# ### And the others?
#
# Whoever moves uses what belongs to all: memory bandwidth at both ends (blocks are read and written), compute at the destination if KV is computed again. *Predict: by how much are the
# other requests slowed down while a live migration lasts? While tokens are computed again?*

# %% key="five-others"
@lru_cache
def gaps_of_others(method, tokens=4000):
    """Mean and longest gap between tokens of the others, by instance, during a migration of so many tokens (s)."""
    driver = simulated_pair(method or "live")
    driver.add(Request([-1] * tokens, SamplingParams(max_tokens=300), id="traveller"))
    for k in range(15):
        driver.add(Request([-1] * 1000, SamplingParams(max_tokens=400), id=f"other {k}"))
    so_far(driver, 60)
    begun = driver.now
    if method:
        driver.migrate("traveller", 1)
    driver.finish()
    ended = driver.migrations[0].ended if method else begun + 0.5
    found = {}
    for number in (0, 1):
        at = [e.time for e in driver.events if e.kind == "NEW_TOKENS" and e.instance == number and e.request == f"other {2 - number}" and begun <= e.time <= ended + 0.5]
        gaps = [b - a for a, b in pairwise(at)]
        found[number] = (sum(gaps) / len(gaps), max(gaps))
    return found


base = gaps_of_others(None)
rows = [("no migration", *(f"{1000 * value:.1f}" for number in (0, 1) for value in base[number]), "")]
for method in METHODS:
    found = gaps_of_others(method)
    rows.append((method, *(f"{1000 * value:.1f}" for number in (0, 1) for value in found[number]), f"{found[0][0] / base[0][0] - 1:+.1%} / {found[1][0] / base[1][0] - 1:+.1%}"))
overhead = {method: max(gaps_of_others(method)[number][0] / base[number][0] - 1 for number in (0, 1)) for method in METHODS}
assert overhead["live"] < 0.05, "a live migration costs the others a few per cent at most"
assert gaps_of_others("recompute")[1][1] > 3 * gaps_of_others("live")[1][1], "who computes again makes the destination's requests wait for a prefill"
pd.DataFrame(rows, columns=["method (4,000 tokens of a 7B)", "others at the source: mean gap, ms", "longest", "others at the destination: mean gap, ms", "longest ", "change of the mean"]).set_index("method (4,000 tokens of a 7B)")
