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
from statistics import median
from zlib import crc32

import pandas as pd

from llmcourse import viz
from llmcourse.cluster import METHODS, Dispatcher, Freeness, Link, LocalDriver, Rebalance, Reporting, RoundRobin, Terms, VirtualDriver, methods
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.arriving import adopt, grow, reserve, write
from llmcourse.engine.departing import look, read, release, stop
from llmcourse.engine.preemption import Preemption
from llmcourse.engine.snapshot import Snapshot
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.records import records
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
    table = driver.run(open_loop(Poisson(4.4), Lognormal(250, p99=1500), Lognormal(300, p99=1500), 400, 3))
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
GRID = [0.5 * k for k in range(int(2 * min(s[-1][0] for s in steps.values())))]        # until the first of them has nothing left to do
for number in range(4):
    figure.add_trace(curve(f"instance {number}", GRID, [free_at(number, time) for time in GRID], number, markers=False))
figure.add_scatter(x=[time for time, *_ in pushed], y=[12] * len(pushed), mode="markers", name="somebody is preempted", marker={"symbol": "triangle-up", "size": 12, "color": "#1a1a1a"})
figure.update_xaxes(title_text="s")
figure.update_yaxes(title_text="free blocks", rangemode="tozero")
finding = f"{len(pushed)} preemptions; at {elsewhere} of them another instance had more than twice the blocks free that were taken from the victim."
viz.show(finish(figure, finding, ("time, s", "instance", "blocks taken", "most free elsewhere"), [(round(t, 1), i, freed, free) for t, i, freed, free in pushed]), alt=finding)
assert not driver.migrations and len(pushed) > 10 and elsewhere > 0.5 * len(pushed)
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
    return Engine(TorchExecutor(model, num_blocks, 16, threads=1), BlockPool(num_blocks, 16), tokenizer=tokenizer, token_budget=512, **options)


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
    """Milliseconds of standing still by the speed of the link: compute again, stop and copy, and the last two blocks alone."""
    config = shape(model_name)
    price = RooflineCost(hardware(gpu), config)
    again = 1000 * recompute_seconds(tokens, price)
    copied = [1000 * copy_seconds(tokens, speed * 1e9, config) for speed in SPEEDS]
    tail = [1000 * copy_seconds(32, speed * 1e9, config) for speed in SPEEDS]
    figure = canvas(f"{model_name} on {gpu}: {tokens:,} tokens change places", 460)
    for index, (name, values) in enumerate({"compute again": [again] * len(SPEEDS), "stop and copy": copied, "only the last 32 tokens": tail}.items()):
        figure.add_trace(curve(name, SPEEDS, values, index))
    log_axis(figure, "x", SPEEDS, "link, GB/s")
    log_axis(figure, "y", [again, *copied, *tail], "ms without a token")
    step = 1000 * price.seconds(16, 16, 16 * 1000.0, 0.0)
    guide(figure, "y", step, f"a decode step: {step:.0f} ms", end=False)
    even = copied[0] * SPEEDS[0] / again
    if SPEEDS[0] < even < SPEEDS[-1]:
        guide(figure, "x", even, f"as long at {even:.1f} GB/s")
    return finish(figure, f"{model_name} on {gpu}, {tokens:,} tokens: computing again takes {again:,.0f} ms, copying is shorter over links faster than {even:.1f} GB/s; "
                  f"the last 32 tokens alone take {tail[4]:.1f} ms at {SPEEDS[4]:g} GB/s.",
                  ("link, GB/s", "compute again, ms", "stop and copy, ms", "last 32 tokens, ms"), [(s, round(again, 1), round(b, 1), round(c, 1)) for s, b, c in zip(SPEEDS, copied, tail, strict=True)])


crossing = viz.Explorer("Compute again, or copy?", ways, {"tokens": viz.Slider("tokens", [256, 512, 1024, 2048, 4096, 8192], 1024), "model_name": viz.Choice("model", ["Llama 2 7B", "Llama 3 8B", "Llama 2 13B"], "Llama 2 7B"),
                                                          "gpu": viz.Choice("GPU", ["A10", "A100 80 GB", "H100 SXM"], "A100 80 GB")},
                        presets={"Llumnix's machines": {"gpu": "A10", "model_name": "Llama 2 7B"}, "a faster GPU": {"gpu": "H100 SXM"}, "grouped queries": {"model_name": "Llama 3 8B"}},
                        question="Where do the first two lines cross? And what is the third good for?",
                        answer="Near 6 GB/s for 1,024 tokens of a 7B on an A100; a faster GPU needs a faster link to compete with, fewer KV heads a slower one. The third does not depend "
                               "on the length: if only the last few tokens had to be sent while the request stands, nobody would notice more than a step.")
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
OURS, LLUMNIX = Terms(16).last_blocks, 16                # blocks: when so few are left, the request is stopped for them


def rounds(tokens, link, step=DECODE, stop_at=OURS, most=20):
    """The stages of a live copy: (blocks, seconds, stopped) each. The request gets a token every ``step`` seconds until it stops."""
    sent, found = 0, []
    while len(found) < most:
        left = -(-tokens // 16) - sent
        if left <= stop_at:
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
assert OURS == 2 and max(len(rounds(4096, LINKS[name])) for name in LINKS) <= 3 and rounds(4096, LINKS["64 Gb/s"])[-1][1] < DECODE / 5
assert not rounds(4096, 12.5e6)[-1][2], "slower than decoding: it never catches up"
pd.DataFrame(rows, columns=["link", "blocks by round", "rounds", "whole migration, s", "stopped, ms", "stop-and-copy would stop it for, ms"]).set_index("link")

# %% [markdown] key="four-geometric" lang="en"
# Two or three rounds between machines of one data centre, and a stop shorter than a step. Why so few? While *b* bytes are on the link, the request writes *b* × **ρ** more, with
#
# ρ = (KV bytes of a token ÷ seconds of a step) ÷ (bytes a second of the link)
#
# so round *k* has about *n*·ρ^*k* bytes: a geometric series. A request of a 7B writes 0.5 MiB every 15 ms, some 35 MB/s. Over 8 GB/s that is ρ = 0.4 %. Llumnix allows several
# rounds, and in practice takes two. But for **ρ ≥ 1** there is no end: *decoding writes faster than the link reads.* Then a limit on rounds must give up, or fall
# back to stopping early.
#
# **When to stop is a choice.** Our `live` stops the request when two blocks are left, as in this table; Llumnix when 16 are. With 16 a request of up to 256 tokens has no round at all: it stands still for all of its KV, some 17 ms
# over 64 Gb/s (part 3). With two there is sometimes one round more, and a last copy of 2 ms. Compare them below.
#
# *Predict: which of these raise ρ: a longer request, a faster GPU, a smaller link share, fewer KV heads, a larger batch?*

# %% key="four-widget"
def rounds_view(tokens, link, step, stop_at):
    """The rounds of a live copy as bars on the link, and the wait of the client under it."""
    found = rounds(tokens, link * 1e6, step / 1000, stop_at, most=Terms(16).stages)
    rho = llama.kv_bytes_per_token(2) / (step / 1000) / (link * 1e6)
    figure, at = canvas(f"{tokens:,} tokens of a 7B over {link:,} MB/s, a token every {step} ms: ρ = {rho:.2g}", 320, barmode="overlay"), 0.0
    parts = {"blocks copied while it decodes": [], "blocks copied while it stands": []}
    for blocks, seconds, stopped in found:
        parts["blocks copied while it stands" if stopped else "blocks copied while it decodes"].append((at, seconds, blocks))
        at += seconds
    for name, bars in parts.items():
        look_of = marker("#F0E442", "x") if name.endswith("stands") else marker("#E69F00", "/")
        if bars:
            figure.add_bar(orientation="h", y=[0] * len(bars), base=[start for start, *_ in bars], x=[long for _, long, _ in bars], width=0.5, name=name, showlegend=True,
                           marker=look_of, text=[str(blocks) for *_, blocks in bars], textposition="inside", insidetextanchor="middle", constraintext="none")
    figure.add_bar(orientation="h", y=[1], base=[0], x=[copy_seconds(tokens, link * 1e6)], width=0.5, name="stop-and-copy stands all the time", marker=marker("#D55E00", "x"), showlegend=True)
    figure.update_yaxes(tickvals=[0, 1], ticktext=["live", "stop-and-copy"], range=[1.6, -0.6], showgrid=False)
    figure.update_xaxes(title_text="s", rangemode="tozero")
    stood = f"the request stands for {1000 * found[-1][1]:,.0f} ms" if found[-1][2] else "no end in sight: decoding writes faster than the link reads" if rho >= 1 else "and still too much is left: ours gives up here"
    return finish(figure, f"{len(found)} round{'s' * (len(found) > 1)} in {at:,.2f} s, {stood}; stop-and-copy: {1000 * copy_seconds(tokens, link * 1e6):,.0f} ms.",
                  ("round", "blocks", "ms", "stopped"), [(k, b, round(1000 * s, 1), str(st)) for k, (b, s, st) in enumerate(found, 1)])


live_rounds = viz.Explorer("Rounds of a live copy", rounds_view, {"tokens": viz.Slider("tokens", [256, 512, 1024, 2048, 4096, 8192], 4096), "link": viz.Slider("link", [20, 30, 40, 60, 100, 200, 1000, 8000], 100, "MB/s"),
                                                                  "step": viz.Slider("a token every", [5, 10, 15, 30, 60], 15, "ms"), "stop_at": viz.Slider("stop when left", [1, 2, 4, 8, LLUMNIX, 32], OURS, "blocks")},
                           presets={"a data centre": {"link": 8000}, "break it": {"link": 30, "step": 15}, "fix it without a faster link": {"link": 30, "step": 60},
                                    "a short request, Llumnix": {"tokens": 256, "link": 1000, "step": 15, "stop_at": LLUMNIX}, "the same, ours": {"tokens": 256, "link": 1000, "step": 15, "stop_at": OURS}},
                           question="Break it. Then mend it without touching the link: which knob helps, and what would it mean on a real machine? When is it worth stopping later?",
                           answer="A slower decode writes less per second. Throttling the request until the copy catches up is what some hypervisors do with virtual machines; for a "
                                  "request one would rather stop and copy, or send tokens (part 7). Stopping later pays as long as ρ is small: near ρ = 1 each round saves hardly anything. "
                                  "A faster GPU and a smaller share of the link raise ρ; fewer KV heads and a larger batch, whose steps are longer, lower it; the length of the request does nothing to it.")
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
for _ in range(12):
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
right = alone(traveller())
assert answer == right, "token for token what an undisturbed engine says"
assert last.num_tokens == first.num_tokens + 12, "twelve tokens were written while the first stage was under way"
assert source.counters.sent_blocks == destination.counters.received_blocks == end and destination.counters.recomputed_tokens == 0
for engine in (source, destination):
    engine.check_invariants()
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
    for _ in range(12):
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


streams = {"right": (answer, len(last.output)), "too eager": by_hand(eager=True), "too early": by_hand(early=True), "two masters": by_hand(masters=2)}
rows = []
for name, (stream, moved_after) in streams.items():
    wrong_at = next((k for k, (a, b) in enumerate(zip(stream, right, strict=False)) if a != b), None)
    rows.append((name, len(stream), "all" if wrong_at is None else f"the first {wrong_at}", moved_after, tokenizer.decode(stream[moved_after - 10:moved_after + 60])))
assert streams["right"][0] == right and all(stream != right for name, (stream, _) in streams.items() if name != "right")
assert len(streams["two masters"][0]) > len(right)
pd.DataFrame(rows, columns=["", "tokens received", "of them right", "stopped after", "the text around the move"]).set_index("")

# %% [markdown] key="four-rule" lang="en"
# The yardstick is always the same: **the answer of an engine that nobody disturbed, token for token.** A test that only asks whether an answer arrives passes all four. So may one that tries a single moment: move
# 24 steps later instead of 12, and this model counts on rightly after the first mistake, by luck.
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
# 1. **look** (source): how far is it?
# 2. **reserve** (destination): blocks, and a seat (a place in its batch), *before* a byte is sent; it may refuse.
# 3. **copy**: whole blocks, while the source goes on.
# 4. **look, grow, copy**, as often as it takes: what has come since, and room for it.
# 5. **stop** (source): out of the batch at the end of a step.
# 6. **grow, copy**: the rest.
# 7. **adopt** (destination): the **commit**.
# 8. **release** (source).
#
# Two engines with the real model in this process, two other requests beside the traveller, and a link throttled to 20 MB/s so that one can see it. (One process: the two take turns. Where they would
# run side by side, see the simulated pair: 7B, two A100, 64 Gb/s.) *Predict the timeline of each method: on which lane does the longest bar lie, and where is the client's gap?*

# %% key="five-run"
SLOW = Link(bandwidth=20e6, latency=0.0005)              # bytes/s, s
FILL = tokenizer.encode_prompt("Once upon a time there was a little dog. ") * 100


def real_pair(method="live", link=SLOW, **terms):
    """Two engines with the real model, and a driver that moves by this method."""
    engines = [Engine(TorchExecutor(model, 160, 16, threads=1), BlockPool(160, 16), tokenizer=tokenizer, token_budget=256) for _ in range(2)]
    return LocalDriver(engines, method=method, link=link, terms=Terms(16, **{"gap": 8, **terms}))


def others(driver, count, tokens):
    """More requests, one here, one there."""
    for k in range(count):
        driver.add(Request(FILL[k:k + 40], SamplingParams(max_tokens=tokens, ignore_eos=True), id=f"other {k}"))


def simulated_pair(method="live", gpu="A100 80 GB", dispatch=None):
    """The same with a simulated 7B on two GPUs."""
    return VirtualDriver([Engine.simulated("Llama 2 7B", gpu) for _ in range(2)], dispatch, method=method)


@lru_cache
def journey(world, method):
    """The traveller moves from instance 0 to 1 in the middle of its answer: the driver, when all is over."""
    if world == "real model":
        driver = real_pair(method)
        driver.add(traveller())
        others(driver, 2, 130)
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


def go_on(driver):
    """Let a moment pass."""
    if isinstance(driver, VirtualDriver):
        driver.go_to(driver.now + 0.01)
        for instance in driver.alive:
            driver.reach(instance, driver.now)
    else:
        driver.advance()


def so_far(driver, count):
    """Serve until the traveller has so many tokens."""
    while len(driver.tokens("traveller")) < count:
        go_on(driver)


def only_move(driver):
    """Move the traveller to instance 1, and serve until it has tokens from there: what comes after need not be waited for."""
    migration = driver.migrate("traveller", 1)
    while migration.order is not None:
        go_on(driver)
    so_far(driver, len(driver.tokens("traveller")) + 3)
    [move] = read_moves(driver.events)
    assert move.outcome == "moved"
    return move


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
    *running, last_copy = [copy.stopped for copy in by["live"].copies]
    assert running and not any(running) and last_copy and [copy.stopped for copy in by["stop-and-copy"].copies] == [True]
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
    until = begun + 0.5
    if method:                                           # until the traveller has a token again
        [move] = read_moves(driver.events)
        until = move.stopped[0][0] + move.downtime
    found = {}
    for number in (0, 1):
        at = [e.time for e in driver.events if e.kind == "NEW_TOKENS" and e.instance == number and e.request == f"other {1 + number}" and begun - 0.02 <= e.time <= until]
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

# %% [markdown] key="five-others-note" lang="en"
# Copying costs the others next to nothing. At the source they even gain: once the traveller has stopped, their steps no longer read its 4,000 tokens. Computing again is what hurts, at the destination: whoever decodes there waits for chunks of a foreign prompt, whether
# the traveller stands still meanwhile (recompute) or not (tokens).

# %% [markdown] key="six" lang="en"
# ## 6 · Everything that can go wrong
#
# *Question: while blocks are on the link, the destination burns. Who must notice, who must clean up what, and what does the client see? And if it is the source?*
#
# All depends on one agreement: **who owns the request**. There is one moment at which the owner changes, the commit (`adopt`). Before it the source owns, whatever has been sent; after it the
# destination does, whatever the source still holds. Never both, never nobody. From this everything follows:
#
# | what happens | before the stop | between stop and commit | after the commit |
# |:--|:--|:--|:--|
# | destination refuses: full, no seat | abort; nobody noticed anything | give back (`drop`), go on (`resume`): a pause | |
# | it ends, is preempted, is aborted at the source | abort, `drop` | it stands, so only its client can abort it: `drop` | that is the destination's affair |
# | the link is too slow | after so many stages: abort, `drop` | | |
# | **destination dies** | the source just goes on | `resume`: a pause | go on elsewhere **from the tokens delivered** |
# | **source dies** | go on elsewhere from the tokens delivered | the same: half a KV is no KV | nothing: it does not live there any more |
#
# *From the tokens delivered*: what the client has been sent is kept where the stream is kept (the gateway), not on the instance. So whoever loses an instance loses KV, but no token: somebody computes them again, and goes
# on behind the last one that was delivered. The client sees a longer pause, and the right tokens. **The kill switch:** choose an order of the protocol, and who dies while it is due. Real model, real tokens.
# *Predict for "copy, standing": after whose death is the pause longer?*

# %% key="six-kill"
ORDERS = ("nobody dies", "reserve", "copy, running", "stop", "copy, standing", "adopt", "release")
TURNS = dict(zip(ORDERS[1:], (1, 2, 5, 7, 8, 9), strict=True))          # look, RESERVE, COPY, look, grow, STOP, grow, COPY, ADOPT, RELEASE
VICTIMS = ("source", "destination")


@lru_cache
def killed(at, victim):
    """A live migration between two engines with the real model; the victim dies while that order is due. The driver, when all is over."""
    driver = real_pair(link=Link(20e6, latency=0.01))
    driver.add(traveller())
    others(driver, 1, 100)
    so_far(driver, 110)
    migration = driver.migrate("traveller", 1)
    while migration.order is not None and migration.turn < TURNS.get(at, 99):
        driver.advance()
    if at in TURNS:
        driver.kill(VICTIMS.index(victim))
    driver.finish()
    driver.check_invariants()
    assert driver.tokens("traveller") == right, "whoever dies, and whenever: the client receives the right tokens"
    return driver


kill = viz.Explorer("The kill switch", lambda at, victim: viz.migration_timeline(killed(at, victim).events), {"at": viz.Choice("when this order is due", ORDERS, "copy, standing"), "victim": viz.Choice("who dies", VICTIMS, "destination")},
                    presets={"the destination, early": {"at": "copy, running", "victim": "destination"}, "the destination, late": {"at": "adopt", "victim": "destination"}, "the source, early": {"at": "copy, running", "victim": "source"},
                             "the source, just in time": {"at": "release", "victim": "source"}},
                    question="When does the client notice nothing at all, although somebody dies?",
                    answer="When the destination dies before the stop: the source has never stopped. And when the source dies after the commit: nothing of the request lives there any more, only blocks nobody needs.")
kill

# %% key="six-client"
streams = {f"{victim} dies at {at!r}": killed(at, victim).events for at, victim in (("copy, standing", "destination"), ("copy, standing", "source"))}
figure = viz.client_streams({"nobody dies": killed("nobody dies", "source").events, **streams}, before=0.05, after=0.3)
viz.show(figure, alt=viz.summary(figure))
received = killed("copy, standing", "source").tokens("traveller")
print(viz.summary(figure), "All three clients read the same:", tokenizer.decode(received)[-30:])

# %% [markdown] key="six-all-text" lang="en"
# Pictures convince; a test must be complete. So now **every** order of **every** method, and either side. For speed on a mock model that is all cache: its next token is a hash of what it reads back, so
# one block in wrong hands changes the answer. *Predict: at how many of these moments does the migration succeed although somebody dies?*

# %% key="six-all"
MOCK_PROMPT = [1 + k % 50 for k in range(40)]
MOCK_RIGHT = MockExecutor(8).continue_alone(MOCK_PROMPT, 300, ignore_eos=True)


def mock_pair(method="live", blocks=64, count=2, link=None, **terms):
    """Mocked engines on one virtual clock: exact, and done in milliseconds."""
    engines = [Engine(MockExecutor(8, step_seconds=0.01, token_seconds=0.0001), BlockPool(blocks, 8), token_budget=64, max_running=16, clock=VirtualClock()) for _ in range(count)]
    return LocalDriver(engines, method=method, link=link or Link(2e6, 0.001), terms=Terms(8, **{"gap": 6, **terms}))


def mock_run(method, happens=lambda driver, migration: None, turn=99, answer=70, **options):
    """A migration on mocks to which something ``happens`` when an order is due: (driver, migration, order that was due)."""
    driver = mock_pair(method, **options)
    driver.add(Request(MOCK_PROMPT, SamplingParams(max_tokens=answer, ignore_eos=True), id="traveller"))
    for k in range(3):
        driver.add(Request(MOCK_PROMPT[k:30], SamplingParams(max_tokens=50, ignore_eos=True), id=f"other {k}"))
    so_far(driver, 40)
    migration = driver.migrate("traveller", 1)
    while migration.order is not None and migration.turn < turn:
        driver.advance()
    due = migration.order.name if migration.order else "over"
    happens(driver, migration)
    driver.finish()
    driver.check_invariants()
    assert sum(instance.engine.pool.num_used for instance in driver.alive) == 0, "not a block is left behind"
    return driver, migration, due


SLOWLY = dict(link=Link(2e6, latency=0.03), poll=0.1, gap=20, answer=120)      # every order takes longer than a step, so that none is passed over
rows = []
for method in METHODS:
    orders = len(mock_run(method, **SLOWLY)[1].stages)
    for victim, number in (("source", 0), ("destination", 1)):
        outcomes = {}
        for turn in range(orders + 1):
            driver, migration, due = mock_run(method, lambda driver, migration, number=number: driver.kill(number), turn, **SLOWLY)
            assert driver.tokens("traveller") == MOCK_RIGHT[:120] and not driver.failed, (method, victim, due)
            assert all(len(driver.tokens(f"other {k}")) == 50 for k in range(3)), "nor is anybody else harmed"
            outcomes.setdefault(migration.outcome, []).append(due)
        assert outcomes["moved"] == ["release", "over"]
        rows.append((method, victim, orders + 1, " ".join(outcomes["aborted"]), " ".join(outcomes["moved"]), "all right"))
pd.DataFrame(rows, columns=["method", "who dies", "moments", "aborted when due: …", "moved all the same", "tokens, everybody's"]).set_index(["method", "who dies"])

# %% [markdown] key="six-abort-text" lang="en"
# Death is the clean case. These are the daily ones. *Predict for each: at which order does the migration learn of it?*

# %% key="six-aborts"
def fill(driver, number, prompts, tokens=24):
    """Occupy an instance with so many requests of 60 tokens."""
    for k in range(prompts):
        driver.instances[number].engine.add(Request([3 + k] * 60, SamplingParams(max_tokens=tokens), id=f"guest {k}"))


CASES = {
    "it ends while it is being copied": dict(link=Link(4e4, 0.001), turn=2),
    "its client aborts it": dict(turn=2, happens=lambda driver, migration: driver.abort("traveller")),
    "it is preempted while it is copied": dict(turn=2, answer=200, link=Link(2e5, 0.001), happens=lambda driver, migration: driver.instances[0].engine.scheduler.preempt(driver.instances[0].engine.requests["traveller"], driver.now)),
    "the destination is full": dict(turn=0, blocks=40, happens=lambda driver, migration: (fill(driver, 1, 4), driver.instances[1].engine.step())),
    "the destination fills up meanwhile": dict(turn=2, blocks=40, link=Link(2e5, 0.001), happens=lambda driver, migration: fill(driver, 1, 4)),
    "decoding writes faster than the link reads": dict(answer=300, link=Link(1.05e5, 0.001), last_blocks=0, stages=2),
}
rows = []
for name, case in CASES.items():
    driver, migration, due = mock_run("live", **case)
    stood = migration.downtime or 0.0
    assert migration.outcome == "aborted"
    got = driver.tokens("traveller")
    assert got == MOCK_RIGHT[:len(got)] and (len(got) in (70, 200, 300) or "client" in name)
    rows.append((name, migration.reason, size(migration.bytes), f"{1000 * stood:.0f}", len(got)))
pd.DataFrame(rows, columns=["what happens", "why it was aborted", "KV sent in vain", "stood, ms", "tokens, all right"]).set_index("what happens")

# %% [markdown] key="six-random-text" lang="en"
# And what nobody has thought of? Let chance try: requests come, move, are aborted, instances die, all at random moments, by all methods. One rule is checked after every
# action and at the end: each client has received a beginning of the right answer, and each request that was not aborted has received all of it.

# %% key="six-random"
def chaos(seed):
    """Three mocked instances and fifteen random actions; (migrations that moved, that were aborted, instances that died)."""
    draw = random.Random(seed)
    driver, prompts, aborted, dead = mock_pair("live", blocks=40, count=3, link=Link(draw.choice((5e4, 5e5, 5e6)), 0.002)), {}, set(), 0
    for _ in range(15):
        for _ in range(draw.randrange(8)):
            driver.advance()
        living = [name for name in prompts if driver.owner(name) is not None]
        action = draw.choice(("add", "add", "add", "move", "move", "move", "move", "abort", "kill"))
        if action == "add":
            prompt = [draw.randrange(1, 60) for _ in range(draw.randrange(4, 60))]
            prompts[driver.add(Request(prompt, SamplingParams(max_tokens=draw.randrange(10, 60), ignore_eos=True))).id] = prompt
        elif action == "move" and living:
            name = draw.choice(living)
            free = [i.number for i in driver.alive if not i.busy]
            if driver.owner(name) in free and len(free) > 1:
                driver.migrate(name, draw.choice([n for n in free if n != driver.owner(name)]), draw.choice(list(METHODS)))
        elif action == "abort" and living:
            name = draw.choice(living)
            aborted.add(name)
            driver.abort(name)
        elif action == "kill" and len(driver.alive) > 1:
            dead += 1
            driver.kill(draw.choice(driver.alive).number)
        driver.check_invariants()
    driver.finish()
    driver.check_invariants()
    for name, prompt in prompts.items():
        length = driver.gateway.streams[name].snapshot().sampling.max_tokens
        got, whole = driver.tokens(name), MockExecutor(8).continue_alone(prompt, length, ignore_eos=True)
        assert got == whole[:len(got)] and (got == whole or name in aborted), (seed, name)
    assert not driver.failed and sum(i.engine.pool.num_used for i in driver.alive) == 0
    outcomes = [migration.outcome for migration in driver.migrations]
    return outcomes.count("moved"), outcomes.count("aborted"), dead


tried = [chaos(seed) for seed in range(60)]
moved, undone, died = (sum(column) for column in zip(*tried, strict=True))
assert moved > 50 and undone > 10 and died > 30
print(f"{len(tried)} random histories: {moved} migrations moved their request, {undone} were aborted, {died} instances died; no token was lost, repeated or out of order, no block leaked")

# %% [markdown] key="six-note" lang="en"
# <details><summary>Misconception: "copy first, and reserve when it has arrived"</summary>
#
# Then a gigabyte is on its way to a place that may be full, while the source has given it up, or both think the other has it. The reservation is the first thing, not the last. And it must end: if the source falls
# silent the destination would keep blocks for ever. Llumnix lets reservations time out after ten seconds; here the driver knows who is dead, and a destination gives up a guest when its own requests need the room.
# </details>
#
# <details><summary>What if the message "adopted" is lost?</summary>
#
# Then the source does not know whether the commit has happened: the two generals' problem. It must neither resume (two masters) nor release (nobody) on a guess. In a cluster somebody keeps the record: here the driver, who asks
# both when it comes back (`recover`): if the other owns it, release; if not, resume.
# </details>

# %% [markdown] key="seven" lang="en"
# ## 7 · Tokens instead of KV
#
# *Question: the KV of 1,000 tokens is 512 MiB, the tokens themselves 4 KB. Recompute sends the 4 KB and stands still for a prefill. Could one have the few bytes without the long stop?*
#
# **ServerlessLLM** (Fu et al., 2024) does with arithmetic what Llumnix does with bytes: rounds. The destination gets the tokens so far and computes their KV, *while the source goes on decoding*. Then
# it gets the tokens that have come since, and so on; when few are missing the source stops. Why does that converge? A prefill computes a token much faster than a decode writes one. *Predict the rounds for 4,000 tokens.*

# %% key="seven-rounds"
def token_rounds(tokens, step=DECODE, gap=20):
    """Tokens computed in each round, and the seconds of it; the last one while the request stands."""
    found, missing = [], tokens
    while missing > gap:
        found.append((missing, recompute_seconds(missing)))
        missing = int(found[-1][1] / step)
    return [*found, (missing, recompute_seconds(missing))]


rows = []
for tokens in (500, 1000, 4000, 8000):
    found = token_rounds(tokens)
    rows.append((f"{tokens:,}", " + ".join(str(n) for n, _ in found), f"{1000 * sum(s for _, s in found):,.0f}", f"{1000 * found[-1][1]:,.0f}", size(4 * sum(n for n, _ in found)), size(tokens * llama.kv_bytes_per_token(2))))
    assert len(found) <= 4 and found[-1][1] < 1.5 * DECODE
speed = DECODE / (recompute_seconds(1000) / 1000)
assert speed > 100, "each round is a hundred times shorter than the last"
print(f"while a token is decoded, a prefill computes {speed:.0f}")
pd.DataFrame(rows, columns=["tokens", "computed, by round", "all rounds, ms", "the last, ms", "bytes sent", "instead of"]).set_index("tokens")

# %% [markdown] key="seven-note" lang="en"
# A prefill computes far more tokens in a step than decoding writes, so the rounds shrink at once (Fu et al. count on ten times as many; any number well above one will do). The last round cannot be shorter than a step, which reads all weights even for no token at all; the traveller's
# next token needs that step anyway. So the downtime is flat here too, and bytes hardly matter: it works over any network. The price is **compute at the destination**: all tokens a second time, beside its own requests (part 5: their longest gap). And the motive is another: ServerlessLLM
# moves a request to free a server on whose disk *another* model lies ready, so that it can start in seconds.
#
# <details><summary>Misconception: "ServerlessLLM migrates the KV cache"</summary>
#
# It migrates the *inference*: tokens travel, KV is computed again. One often reads it otherwise. (And the 10 to 200 times lower latency of its abstract is mostly faster *loading*, not migration.)
# </details>
#
# ### Off the GPU: QLM
#
# A request need not go to another GPU. **QLM** (Patke et al., 2024) evicts running requests of low urgency to **host memory**, so that urgent ones find room at once, and hides the copy behind computation by copying asynchronously. That is
# week 6's swap, ordered by a queue manager that watches SLOs. It is the same state on the same kind of journey, with another goal: not to go on elsewhere, but to come back later. *And if there is room on another instance before there is room here?* Then a swapped request can travel from host memory:

# %% key="seven-swapped"
here = Engine(TorchExecutor(model, 24, 16, threads=1, host_blocks=64), BlockPool(24, 16), tokenizer=tokenizer, token_budget=512, preemption=Preemption("swap", host_blocks=64))
there = instance()
here.add(traveller("first in line"))
here.add(traveller())
while not here.counters.swapped_out_blocks:
    here.step()
evicted = look(here, "traveller")
assert evicted.status == "swapped" and not here.pool.table("traveller")
moved = stop(here, "traveller")
reserve(there, moved)
count = -(-moved.computed // 16)
write(there, "traveller", 0, count, read(here, "traveller", 0, count))
adopt(there, moved)
release(here, "traveller")
for engine in (here, there):
    list(engine.stream())
assert there.requests["traveller"].output == right and there.counters.recomputed_tokens == here.counters.recomputed_tokens == 0
print(f"evicted to host memory after {len(evicted.output)} tokens, moved from there to another instance ({count} blocks), and finished with the right {len(right)} tokens; nothing was computed twice")

# %% [markdown] key="seven-who" lang="en"
# <details><summary>Names that are easily confused</summary>
#
# QLM is by **Patke** et al. (SoCC 2024). Agrawal et al. (OSDI 2024) wrote Sarathi-Serve, Fu (Yao) et al. ServerlessLLM, and another Fu (Yichao) et al. learning to rank. Lists of references sometimes shift them by one line.
# </details>

# %% [markdown] key="eight" lang="en"
# ## 8 · Downtime against length
#
# *Question: draw four curves, downtime against the length of the request, before you look. Which are lines, which is none?*
#
# Downtime here is what the client pays: from the stop to its next token. First a simulated 7B, two A10 with eight requests each, 64 Gb/s: the machines of the Llumnix paper. Whoever arrives when a step of the destination has just begun waits for its end, so single moves
# differ by up to a step. Each point is the median of five moves, to a destination whose steps begin at five distances behind the source's.

# %% key="eight-simulated"
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


PHASES = (0.0, 0.2, 0.4, 0.6, 0.8)                       # how far the destination's steps lie behind the source's, in steps
a10_step = RooflineCost(hardware("A10"), llama).seconds(8, 8, 8 * 400.0, 0.0)


class Halves(Dispatcher):
    """The first eight requests go to instance 0, all others to instance 1."""

    reads_load = False

    def choose(self, request, number, reports):
        """By the number of the request."""
        return int(number >= 8)


def simulated_move(method, tokens, phase):
    """One migration of so many tokens between two simulated A10."""
    driver = simulated_pair(method, "A10", Halves())
    driver.add(Request([-1] * (tokens - 20), SamplingParams(max_tokens=200), id="traveller"))
    for k in range(15):
        if k == 7:
            driver.go_to(phase * a10_step)
        driver.add(Request([-1] * 250, SamplingParams(max_tokens=330), id=f"other {k}"))
    so_far(driver, 20)
    return only_move(driver)


simulated = {(method, n): [simulated_move(method, n, phase) for phase in PHASES] for method in METHODS for n in LENGTHS}
downtimes = {method: [median(move.downtime for move in simulated[method, n]) for n in LENGTHS] for method in METHODS}
figure = viz.downtime_curves(LENGTHS, downtimes, a10_step, "Downtime, simulated: 7B on two A10, 64 Gb/s")
viz.show(figure, alt=viz.summary(figure))
assert max(downtimes["live"]) < 1.5 * min(downtimes["live"]), "flat: 32 times the length, and about the same downtime"
assert all(downtimes[m][-1] > 5 * downtimes[m][0] for m in ("stop-and-copy", "recompute")) and downtimes["stop-and-copy"][-1] > 3 * downtimes["live"][-1]
single = [move.downtime for n in LENGTHS for move in simulated["live", n]]
print(viz.summary(figure), f"Single live moves: {1000 * min(single):.0f} to {1000 * max(single):.0f} ms.")

# %% [markdown] key="eight-real-text" lang="en"
# And measured: two engines with the real model, taking turns in this process, a link of 20 MB/s. (Wall time on whatever machine this is: look at the shapes.)

# %% key="eight-real"
REAL_LENGTHS = (128, 400, 880)


@lru_cache
def real_move(method, tokens):
    """One migration of so many tokens between two real engines, with one request each beside it."""
    driver = real_pair(method)
    driver.add(Request(FILL[:tokens - 10], SamplingParams(max_tokens=124, ignore_eos=True), id="traveller"))
    others(driver, 2, 150)
    so_far(driver, 10)
    return only_move(driver), driver.tokens("traveller")


for n in REAL_LENGTHS:
    answers = [real_move(method, n)[1] for method in METHODS]
    assert all(a[:len(b)] == b[:len(a)] for a, b in pairwise(answers)), "four methods, one answer"
measured = {method: [real_move(method, n)[0].downtime for n in REAL_LENGTHS] for method in METHODS}
figure = viz.downtime_curves(REAL_LENGTHS, measured, title="Downtime, measured: two real engines, 20 MB/s")
viz.show(figure, alt=viz.summary(figure))
standing = {method: [sum(copy.end - copy.start for copy in real_move(method, n)[0].copies if copy.stopped) for n in REAL_LENGTHS] for method in ("live", "stop-and-copy")}
assert standing["stop-and-copy"][-1] > 5 * standing["stop-and-copy"][0] > 5 * max(standing["live"]), "on the link while the client waits: all of it, or the last blocks"
print(viz.summary(figure))

# %% [markdown] key="eight-price" lang="en"
# Live is flat, and so is sending tokens; the two that stop first grow with the length. What live does *not* shorten is the **whole** migration: all bytes still have to go. *Predict: total time of live against stop-and-copy.*

# %% key="eight-total"
whole = {key: median(max(move.ended, move.pause[1]) - move.begun for move in each) for key, each in simulated.items()}
rows = [(f"{n:,}", *(f"{1000 * downtimes[method][k]:,.0f} / {1000 * whole[method, n]:,.0f}" for method in METHODS), *(size(simulated[method, n][0].bytes) for method in ("live", "stop-and-copy"))) for k, n in enumerate(LENGTHS)]
assert whole["live", 8192] > 2 * whole["live", 256] and all(simulated["live", n][0].bytes >= simulated["stop-and-copy", n][0].bytes for n in LENGTHS)
assert all(whole["live", n] > 0.95 * whole["stop-and-copy", n] for n in LENGTHS), "live saves no time in all"
pd.DataFrame(rows, columns=["tokens", *(f"{method}: downtime / whole, ms" for method in METHODS), "live sends", "stop-and-copy sends"]).set_index("tokens")

# %% [markdown] key="eight-paper" lang="en"
# Sun et al. report 20 to 30 ms of downtime, "nearly constant", less than a decode step; their curves rise about twofold from 256 to 8k tokens (7B: 13 to 26 ms), where the baselines are up to 111 times longer; 1 to 3 % overhead for others. Ours counts from the stop to
# the next *token*: so a step of the destination is in it, and the wait for the step that is under way there. On an A10 one step takes some 30 ms: a live migration costs its client one or two of them.
#
# One of them it would have waited for anyway. `llmcourse bench migration` counts the rest, the longest gap around the move beyond the usual one (README, "Many instances", 2026-11-28): on the two simulated A10, from 256 to 8,192 tokens, 17 to 23 ms live, 14 to 22 ms by tokens, 34 to 566 ms with
# stop-and-copy and 37 to 2,028 ms computing again; with course-tiny on two idle cores over 50 MB/s, from 128 to 2,048 tokens, 5 to 7, 9 to 46, 14 to 133 and 12 to 282 ms.
#
# <details><summary>Two misconceptions</summary>
#
# - *"Live migration is fast."* It is **unnoticeable**. It sends at least as many bytes as stop-and-copy, and the whole move takes about as long or longer.
# - *"Near-zero downtime, whatever the length."* True while copying outpaces decoding (ρ < 1, part 4), and while there is room at the destination for all of it.
# </details>
#
# ### Where it hurts
#
# The same live migration, over ever slower links, on mocks: a step of 10 ms, eight tokens a block. *Predict where it stops working, from ρ.*

# %% key="eight-hurts"
rows = []
writes = 1024 / 0.0104                                   # bytes/s that decoding adds: 1 KiB a token on a mock, a step of about 10.4 ms
for rate in (8.0, 4.0, 2.0, 1.0, 0.5):
    driver, migration, _ = mock_run("live", answer=400, link=Link(rate * writes, 0.001), last_blocks=3, stages=4)
    rows.append((f"{1 / rate:.2f}", f"{rate * writes / 1e3:,.0f}", migration.outcome, len(migration.copies), size(migration.bytes), "" if migration.outcome == "moved" else migration.reason or "it ended first"))
outcomes = [row[2] for row in rows]
assert outcomes[0] == "moved" and outcomes[-1] == "aborted"
pd.DataFrame(rows, columns=["ρ", "link, KB/s", "outcome", "copies", "KV sent", "why"]).set_index("ρ")

# %% [markdown] key="nine" lang="en"
# ## 9 · What it is good for
#
# *Question: a long prompt has waited for ten seconds; every instance has some free blocks and none has enough. Whom do you move, and how many milliseconds later is the prompt in?*
#
# **De-fragmentation.** Two simulated instances, 400 blocks each, eight small requests on either; then a prompt of 4,000 tokens (250 blocks) comes. There is no rule for it, only week 8's balance by freeness.

# %% key="nine-defragment"
@lru_cache
def long_prompt(rebalance):
    """A long prompt comes to a cluster that is half free everywhere: its TTFT (s), and the migrations."""
    engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=400) for _ in range(2)]
    driver = VirtualDriver(engines, RoundRobin(), rebalance, reporting=Reporting(every=0.1))
    for k in range(16):
        driver.add(Request([-1] * 300, SamplingParams(max_tokens=400), id=f"small {k}"))
    driver.go_to(2.0)
    driver.add(Request([-1] * 4000, SamplingParams(max_tokens=20), id="long"))
    for instance in driver.alive:
        driver.reach(instance, 2.0)
    free = [instance.report().free_blocks for instance in driver.alive]
    driver.finish()
    [record] = [record for record in records(driver.events) if record.id == "long"]
    return record.ttft, driver.migrations, free


stuck, none, free = long_prompt(None)
quick, some, _ = long_prompt(Rebalance())
assert not none and some and all(migration.outcome == "moved" for migration in some) and quick < 0.5 * stuck
assert max(free) < 250 <= sum(free), "enough in sum, nowhere singly"
print(f"free blocks when it comes: {free}, in sum {sum(free)}; it needs 250")
print(f"TTFT of the long prompt: {stuck:.1f} s when everybody stays, {quick:.1f} s when {len(some)} requests make room ({size(sum(m.bytes for m in some))} of KV moved)")

# %% [markdown] key="nine-contiguous" lang="en"
# Nothing was made contiguous, and no memory was gained: what is free lies on **one instance** now (week 6). Nor did anybody write a rule for it: the first who waits counts as if it were there already, so that instance *looks* overloaded, and others move away until it fits. Week 8 studies this rule.
#
# **Draining.** An instance is to be switched off at night. Without migration one waits for its longest answer.

# %% key="nine-drain"
@lru_cache
def emptied(migrating):
    """Seconds until instance 2 of three is empty, after it has been told to take nothing new; and the tokens all clients got."""
    driver = VirtualDriver([Engine.simulated("Llama 2 7B", "A10", num_blocks=800) for _ in range(3)], RoundRobin(), reporting=Reporting(every=0.1))
    for k in range(18):
        driver.add(Request([-1] * 200, SamplingParams(max_tokens=100 + 60 * (k % 7)), id=f"r{k}"))
    driver.go_to(1.0)
    if migrating:
        driver.drain(2)
    driver.finish()
    last = max(e.time for e in driver.events if e.kind == "STEP" and e.instance == 2)
    assert all(len(driver.tokens(f"r{k}")) == 100 + 60 * (k % 7) for k in range(18))
    return last - 1.0, len(driver.migrations)


waited, drained = emptied(False), emptied(True)
assert drained[0] < 0.5 * waited[0] and drained[1] >= 5 and waited[1] == 0
print(f"empty after {waited[0]:.1f} s when it may finish what it has, after {drained[0]:.1f} s when its {drained[1]} requests move away; every client got all its tokens")

# %% [markdown] key="nine-others" lang="en"
# **Balance**: when an instance is so full that requests queue or are preempted, some of them (the unimportant, the short) move to where it is emptier. How much that helps, when, and when not, is week 8.
#
# Others reach for the same goals by other means. **Sarathi-Serve** (Agrawal et al., 2024) balances *inside* a batch: chunks of prefill and decodes mixed on the same GPU, so that no step is long. **DistServe** (Zhong et al., 2024) gives prefill and decode machines of their own; every
# request there is moved once, from one to the other, with its KV: a migration that is part of the plan.
#
# <details><summary>Misconception: "Sarathi-Serve separates prefill from decode, like DistServe"</summary>
#
# It does the opposite: it mixes them in one batch, in chunks. DistServe separates them.
# </details>

# %% [markdown] key="end" lang="en"
# ## 10 · What this cannot do
#
# - Migration moves load; it makes no capacity. Where all are full there is nowhere to go, and where all are free no reason to.
# - A request must fit at the destination **whole**. Families of answers that share a prompt (`n` > 1) stay together where they are; so does anything in contiguous memory.
# - Both sides run the same model with the same layout of KV. Another precision, another number of GPUs, another block size, and the bytes mean nothing there.
# - We killed whoever we liked, and were told at once. In a real cluster one *suspects* that somebody is dead, and may be wrong: who owns a request is then a question for a log that survives (week 11).
# - Nothing here decides *when* to move *whom* *where*. A bad policy moves requests to and fro and pays for each journey: week 8.
#
# ### Discussion
#
# 1. A provider bills by tokens and promises nothing about gaps. Is a migration of 2 s acceptable? To whom must she explain it?
# 2. Your cluster has two zones with 1 Gb/s between them. Which requests would you move across, and how?
# 3. Which of the four methods would you want for a machine that will be switched off in 30 seconds? In 2 seconds?
# 4. The destination has acknowledged nothing for five seconds. What may the source do, and what must it never do?
# 5. A colleague proposes to keep a second copy of every running request's KV on a neighbour, updated block by block. What does it cost, what does it save, and what does it have to do with this week?
#
# **Next:** lab 7, where you write the staged copy and let it carry a running request between two real engines: which blocks may go now, when to stop, and an abort that leaves nothing behind. Then week 8: balance and consolidation across instances.
