"""Week 6 lecture: fragmentation of KV memory and what paging cures, sharing, priorities. Built into `week06/lecture.ipynb`."""

# %% [markdown] key="goals" lang="en"
# # Week 6 · Fragmentation and priorities
#
# After this lecture you can
#
# 1. tell reserved, internal and external waste of KV memory apart, measure each, and say what it costs in requests and tokens a second;
# 2. follow a token through a block table, choose a block size, and say what paging cures and what it does not;
# 3. share blocks safely: reference counts, copy on write, a prefix cache by hash chain or by tree;
# 4. choose between computing again and swapping, from the length and the link;
# 5. give priorities without starving anybody: preemption and its price, ageing and its bound, headroom.
#
# **Rooms of `llmcourse` that open today:** `kv/` (the whole of it: `block_pool.py`, `contiguous_pool.py`, `prefix_pool.py`, `radix.py`,
# `waste.py`), `engine/step.py` and `engine/preemption.py` (where tokens, blocks and giving way meet), `policies/priority.py`.
#
# | part | minutes |
# |:--|--:|
# | 1 · The dearest thing on the machine | 10 |
# | 2 · The car park | 30 |
# | 3 · Blocks instead of lengths | 25 |
# | 4 · One block, many readers | 25 |
# | 5 · When the memory is full | 10 |
# | 6 · Free in sum, nowhere singly | 15 |
# | 7 · Not everybody is equal | 25 |
# | 8 · What this cannot do | 10 |
# | **all** | **150** |
#
# Everything runs offline on two CPU cores in under a minute. Each part opens with a question: **answer it before you run
# the next cell.**

# %% key="setup"
import random
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import pandas as pd

from llmcourse import viz
from llmcourse.cluster import Dispatcher, Reporting, VirtualDriver
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.admission import Admission
from llmcourse.engine.preemption import Preemption
from llmcourse.engine.replay import replay
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.executors.beam import Sharing, paged_beam_search
from llmcourse.executors.roofline import link_prices
from llmcourse.kv import BlockPool, ContiguousPool, HashIndex, KVStore, OutOfBlocks, PrefixPool, make_pool
from llmcourse.kv.prefix import ROOT, chained
from llmcourse.metrics.cost_model import RooflineCost, blocks_that_fit
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.kv_meter import KVMeter
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.summary import summary
from llmcourse.model import load_model
from llmcourse.model.beam import beam_search
from llmcourse.model.shapes import shape
from llmcourse.policies import FCFS, LongestPrefixFirst, StaticPriority
from llmcourse.policies.headroom import Headroom
from llmcourse.policies.reuse import reuse
from llmcourse.viz.ageing import waits
from llmcourse.viz.series import curve, guide, log_axis
from llmcourse.viz.filming import moment
from llmcourse.viz.theme import canvas, finish, marker
from llmcourse.workload import Arrival, Gamma, Lognormal, Poisson, merge, open_loop
from llmcourse.workload.assistants import Assistants

pd.set_option("display.max_colwidth", None)
llama, a100 = shape("Llama 2 7B"), hardware("A100 80 GB")
cost = RooflineCost(a100, llama)
model, tokenizer = load_model("course-tiny", device="cpu")

# %% [markdown] key="one" lang="en"
# ## 1 · The dearest thing on the machine
#
# *Question: a GPU has 80 GB. The weights of a 7B model take 13.5 GB. What is the rest for, and how long does it last?*
#
# Week 2 counted the bytes that a token leaves behind: **2** (K and V) × layers × **KV heads** × head size × bytes per value. Two factors
# are easily lost. Without the 2 the memory seems to hold twice what it does. And with *query* heads instead of *KV* heads a
# model with grouped queries seems to need many times what it needs. The store of the real model says who is right.

# %% key="one-formula"
store = KVStore(model.config, num_blocks=4, block_size=16)
shapes = {name: shape(name) for name in ("Llama 2 7B", "Llama 3 8B", "Llama 2 13B")}
rows = []
for name, config in {"course-tiny": model.config, **shapes}.items():
    width = 4 if name == "course-tiny" else 2
    token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * width
    assert token == config.kv_bytes_per_token(width)
    room = blocks_that_fit(a100, config, 16) * 16 if width == 2 else 0
    rows.append((name, f"{token / 1024:,.0f} KiB", config.num_heads / config.num_kv_heads, f"{room:,}" if room else "", f"{room // 2048}" if room else ""))
assert round(llama.weight_bytes(2) / 1e9, 1) == 13.5
assert store.block_bytes == 16 * model.config.kv_bytes_per_token(4), "the real tensor agrees with the formula, factor 2 included"
pd.DataFrame(rows, columns=["model", "KV of one token", "query heads per KV head", "tokens beside the weights on an A100 80 GB",
                            "requests of 2,048 tokens"]).set_index("model")

# %% [markdown] key="one-why" lang="en"
# Why that is dear: a decode step costs about the same for one request and for fifty (week 2), so tokens per second rise with
# the number of requests in the step, and memory says how many there may be. A slot of memory that holds no token is a seat that
# is not sold. Kwon et al. (2023) measured the servers of their day: only **20.4 to 38.2 %** of the KV memory held
# tokens. *Predict: what is 30 % instead of 95 % worth, in tokens per second?*

# %% key="one-seats"
CONTEXT = 1000
room = blocks_that_fit(a100, llama) * 16


def rate_at(share):
    """Requests of CONTEXT tokens that fit when so much of the memory holds tokens, and tokens a second they get together."""
    seats = int(share * room / CONTEXT)
    return seats, seats / cost.seconds(seats, seats, float(seats * CONTEXT), 0.0)


seats = {share: rate_at(share) for share in (0.1, 0.2, 0.3, 0.382, 0.5, 0.75, 0.95)}
assert seats[0.95][1] > 1.4 * seats[0.3][1]
print(f"{seats[0.3][0]} requests and {seats[0.3][1]:,.0f} tokens/s at 30 % of the memory, {seats[0.95][0]} requests and "
      f"{seats[0.95][1]:,.0f} tokens/s at 95 %: {seats[0.95][1] / seats[0.3][1]:.1f} times the requests' tokens from the same GPU")
pd.DataFrame([(f"{share:.0%}", n, f"{rate:,.0f}") for share, (n, rate) in seats.items()],
             columns=["of the memory holds tokens", "requests in a step", "tokens/s"]).set_index("of the memory holds tokens")

# %% [markdown] key="two" lang="en"
# ## 2 · The car park
#
# *Question: a car park has twelve free places, and a bus that needs ten cannot park. How can that be?*
#
# A kernel that knows nothing of tables wants the keys and values of a request **side by side**. So a request needs one free
# stretch, and how long it will become nobody knows when it starts. There are three answers:
#
# - **reserve the maximum**: what the model could write at most, for everybody (FasterTransformer, and Orca as Kwon et al. rebuilt it);
# - **reserve exactly**: an oracle tells the length. Nobody has one; it shows the best that reservation could do;
# - **grow**: take what is needed now; who hits the neighbour moves to a larger hole, or all are pushed together.
#
# And the fourth, since 2023: **blocks**. Below, the same twenty requests come to four memories of 256 slots, each under the same
# engine. A step is a step everywhere. *Predict: who has a queue after 30 steps, and why is the paged one not simply full?*

# %% key="two-film"
PARK = random.Random(4)
guests = [Arrival(1.5 * k, PARK.choice((6, 10, 18, 40)), PARK.choice((8, 16, 30, 44))) for k in range(20)]
LONGEST = max(a.prompt_tokens + a.output_tokens for a in guests)
memories = {"reserve the maximum": lambda: ContiguousPool(256, reservation="max", max_length=LONGEST),
            "reserve exactly": lambda: ContiguousPool(256, reservation="exact"),
            "grow and move": lambda: ContiguousPool(256, reservation="growing"),
            "blocks of 8": lambda: BlockPool(32, 8)}


def filmed(pool, arrivals=guests):
    """The run of these arrivals on a mock model whose steps take one second each: a moment of memory for every step."""
    engine = Engine(MockExecutor(pool.block_size, step_seconds=1, token_seconds=0), pool, clock=VirtualClock(), checked=True)
    return viz.film(engine, arrivals)


films = {name: filmed(pool()) for name, pool in memories.items()}
worst = max(films["reserve exactly"], key=lambda m: m.waste.external)
park = viz.Explorer("The car park", lambda step: viz.car_park(films, step), {"step": viz.Slider("step", range(121), worst.step)},
                    presets={"filling": {"step": 6}, "a queue": {"step": 20}, "the bus cannot park": {"step": worst.step}, "late": {"step": 90}},
                    question="Places are free and nobody may park: in which memory, and why?",
                    answer="Where reservations are exact the free places lie between the cars: external waste (dotted). Where the "
                           "maximum is reserved they are not even free: most of what is set aside is never filled (crossed).")
park

# %% key="two-table"
KINDS = ("used", "reserved", "internal", "external", "free")


def mean_shares(moments):
    """Mean share of each kind of slot while somebody waits, every step alike."""
    parts = [m.waste.shares for m in moments if m.waiting]
    return {kind: sum(part[kind] for part in parts) / len(parts) for kind in KINDS}


rows = []
for name, moments in films.items():
    shares = mean_shares(moments)
    rows.append((name, *(f"{shares[kind]:.0%}" for kind in KINDS), max(len(m.places) for m in moments), moments[-1].step, moments[-1].copied))
done = {name: moments[-1].step for name, moments in films.items()}
assert done["blocks of 8"] < done["reserve exactly"] < done["reserve the maximum"]
assert all(m.waste.external == 0 for m in films["blocks of 8"]) and worst.waste.external > 0
pd.DataFrame(rows, columns=["memory", *KINDS, "most at once", "steps in all", "slots moved"]).set_index("memory")

# %% [markdown] key="two-names" lang="en"
# Three names, and a precise meaning of each (Kwon et al., 2023):
#
# - **reserved**: set aside for tokens that *will* come. Not lost, but nobody else can use it in the meantime;
# - **internal waste** (internal fragmentation): set aside inside somebody's reservation, and never filled. Nobody knows how much until the answer ends;
# - **external waste** (external fragmentation): free, but in holes that are too small for the first who waits.
#
# The holes come from requests of **different lengths** that **come and go** at different times, and grow meanwhile: exactly what week
# 4 found in every trace, and what continuous batching does at every step. A picture over time shows how they are born.

# %% key="two-history"
for name in ("reserve exactly", "blocks of 8"):
    figure = viz.memory_history(films[name], f"{name}: who held which slots when")
    viz.show(figure, alt=viz.summary(figure))

# %% [markdown] key="two-fit" lang="en"
# ### A better parking attendant?
#
# Perhaps the attendant is to blame. **First fit** takes the first hole that is large enough, **best fit** the smallest such. And
# **compaction** pushes all cars together whenever it helps. *Predict: is best fit best? And what does compaction cost?*

# %% key="two-fit-run"
fits = {"exact, first fit": dict(reservation="exact"), "exact, best fit": dict(reservation="exact", fit="best"),
        "growing, first fit": dict(), "growing, best fit": dict(fit="best"), "growing, compaction": dict(compaction=True)}


@lru_cache
def crowds(name, seed):
    """Thirty requests drawn anew, in one of these memories of 256 slots: steps in all, slots moved, preemptions."""
    draw = random.Random(seed)
    arrivals = [Arrival(1.2 * k, draw.choice((6, 10, 18, 40)), draw.choice((8, 16, 30, 44))) for k in range(30)]
    engine = Engine(MockExecutor(1, step_seconds=1, token_seconds=0), ContiguousPool(256, **fits[name]), clock=VirtualClock(), ledger=Ledger())
    table = replay(engine, arrivals)
    assert table.finished.all()
    return engine.counters.steps, engine.counters.copied_blocks, engine.counters.preemptions


SEEDS = range(4)
rows = [(name, *(round(sum(crowds(name, seed)[k] for seed in SEEDS) / len(SEEDS)) for k in range(3))) for name in fits]
steps_of = {name: [crowds(name, seed)[0] for seed in SEEDS] for name in fits}
wins = sum(best < first for best, first in zip(steps_of["exact, best fit"], steps_of["exact, first fit"], strict=True))
assert min(crowds("growing, compaction", seed)[1] for seed in SEEDS) > 1000 and not any(crowds("exact, first fit", s)[1] for s in SEEDS)
print(f"with exact reservations best fit is done earlier than first fit in {wins} of {len(SEEDS)} draws")
pd.DataFrame(rows, columns=["mean of four draws", "steps in all", "slots moved", "preempted"]).set_index("mean of four draws")

# %% [markdown] key="two-fit-note" lang="en"
# Best fit leaves the smallest remainders, and remainders that small are of no use to anybody. Neither attendant wins always; both have
# the same trouble. Compaction cures the holes and moves memory around all the time: on a GPU that is bandwidth which the decodes
# need, while nobody may compute.
#
# ### At the real size
#
# Now 15,488 slots, what an A10 has beside Llama 2 7B, and a load of which only the requests' lengths matter: more than can be served.
# For every refusal the pool is asked: how many slots did the first in line need, and how many were free?

# %% key="two-real"
A10_SLOTS = blocks_that_fit(hardware("A10"), llama) * 16
crowd = [a for a in open_loop(Poisson(20.0), Lognormal(180, p99=1200), Lognormal(200, p99=1000), 90, 2) if a.prompt_tokens + a.output_tokens <= 2048]


def watched(pool):
    """Let a pool note every admission it refuses: (blocks needed, blocks free)."""
    asked, refusals = pool.can_open, []

    def can_open(tokens, longest, without=()):
        answer = asked(tokens, longest, without)
        if not answer and not without:
            needed = pool.room(len(tokens), longest) if isinstance(pool, ContiguousPool) else pool.blocks_for(len(tokens))
            refusals.append((needed, pool.num_free))
        return answer

    pool.can_open = can_open
    return refusals


def serve_crowd(pool):
    """The crowd on a simulated A10: shares of memory while somebody waits (by time), the table, engine and refusals."""
    refusals, meter = watched(pool), KVMeter(pool)
    engine = Engine.simulated("Llama 2 7B", "A10", block_pool=pool, max_running=256, ledger=meter)
    table = replay(engine, crowd)
    return vars(meter.usage(pressed=True)), table, engine, refusals


parks = {"reserve 2,048": lambda: ContiguousPool(A10_SLOTS, reservation="max", max_length=2048),
         "reserve exactly": lambda: ContiguousPool(A10_SLOTS, reservation="exact"),
         "grow and move": lambda: ContiguousPool(A10_SLOTS), "blocks of 16": lambda: BlockPool(A10_SLOTS // 16, 16)}
served = {name: serve_crowd(pool()) for name, pool in parks.items()}
figure = canvas("Where the KV memory of an A10 goes", 380, barmode="overlay")
LOOKS = {"used": ("#56B4E9", ""), "reserved": ("#E69F00", "/"), "internal": ("#CC79A7", "x"), "external": ("#E4E4E4", "."), "free": ("#ffffff", "")}
names, start = list(served)[::-1], dict.fromkeys(served, 0.0)
for kind, (paint, pattern) in LOOKS.items():
    look = marker(paint, pattern)
    figure.add_bar(orientation="h", y=names, x=[100 * served[name][0][kind] for name in names], base=[start[name] for name in names], name=kind, marker=look)
    start = {name: start[name] + 100 * served[name][0][kind] for name in names}
figure.update_xaxes(title_text="% of the slots", range=[0, 100])
share = {name: parts["used"] for name, (parts, *_) in served.items()}
finding = "Slots that hold a token: " + ", ".join(f"{part:.0%} ({name})" for name, part in share.items()) + "."
viz.show(finish(figure, finding, ("memory", *KINDS), [(name, *(f"{parts[kind]:.1%}" for kind in KINDS)) for name, (parts, *_) in served.items()]), alt=finding)
print(finding)

# %% key="two-real-table"
rows = []
for name, (_, table, engine, refusals) in served.items():
    seen = summary(table)
    held_back = sum(needed <= free for needed, free in refusals)
    rows.append((name, f"{seen.output_rate:,.0f}", f"{seen.ttft.p99:.0f}", f"{len(refusals)}", held_back, engine.counters.preemptions,
                 f"{engine.counters.copied_blocks * llama.kv_bytes_per_token(2) / 1e9:,.0f}"))
refused_though_free = {name: sum(n <= f for n, f in refusals) for name, (*_, refusals) in served.items()}
rate = {name: summary(table).output_rate for name, (_, table, *_) in served.items()}
assert share["reserve 2,048"] < 0.382 and share["blocks of 16"] > 0.85
assert rate["blocks of 16"] > 2 * rate["reserve 2,048"] and rate["blocks of 16"] > 1.1 * rate["reserve exactly"]
assert refused_though_free["blocks of 16"] == 0 and refused_though_free["reserve exactly"] > 0.7 * len(served["reserve exactly"][3]) > 0
assert A10_SLOTS == 15_488
print(f"blocks serve {rate['blocks of 16'] / rate['reserve 2,048']:.1f} times the tokens a second of the largest reservation, and "
      f"{rate['blocks of 16'] / rate['reserve exactly']:.2f} times those of the oracle")
pd.DataFrame(rows, columns=["memory", "output tokens/s", "P99 TTFT, s", "refusals", "of which although enough was free", "preempted",
                            "GB moved inside"]).set_index("memory")

# %% [markdown] key="two-cost" lang="en"
# All four consequences in one table: the **capacity** shrinks (what is free cannot be used), **throughput** falls, requests
# **queue** longer, and whoever sells the service buys more GPUs for the same tokens. Under blocks an admission was never
# refused while enough was free. With exact reservations that happened nearly every time. (The GB moved inside were
# not even charged to that memory.)
#
# <details><summary>Misconception: "the monitor says 20 % free, so there is room for 20 % more"</summary>
#
# In contiguous memory it says little: what counts is the largest hole, not the sum. In paged memory it is right, on this instance.
# Over several instances it is wrong again (part 6).
# </details>

# %% [markdown] key="three" lang="en"
# ## 3 · Blocks instead of lengths
#
# *Question: an operating system gives every program a gap-free address space, from memory that is full of gaps. How?*
#
# By a table. **PagedAttention** (Kwon et al., 2023; the system is vLLM) cuts memory into equal blocks, and a request has a **block table**: which
# block holds its tokens 0 to 15, which 16 to 31, and so on. Attention reads through the table. All blocks are alike, so *any* free block
# will do. *Predict before you run: A has 10 tokens, B 6, then A leaves and C comes with 14, in 8 blocks of 4. Where does C lie?*

# %% key="three-hand"
small = BlockPool(num_blocks=8, block_size=4)
small.allocate("A", 10)
small.allocate("B", 6)
small.free("A")
table = small.allocate("C", 14)
assert small.num_free + small.num_used == 8 and len(table) == 4
assert any(b - a != 1 for a, b in pairwise(table)), "C is not in one piece, and nobody minds"
print("tables:", dict(small.tables), "  free:", small.num_free)
token = 9
print(f"token {token} of C: entry {token // 4} of its table, block {table[token // 4]}, slot {table[token // 4] * 4 + token % 4}")
small.append("C", 2)
assert len(small.table("C")) == 4, "the last block had room for two more"
small.append("C", 1)
print("C after three more tokens:", small.table("C"), " (a new block only when the last is full)")
small.check_invariants()

# %% [markdown] key="three-engine" lang="en"
# And in the engine: the real model serves five requests of different lengths from 24 blocks. Step through it. Each token that
# is written finds its slot through the table on the right. *Watch what becomes of the blocks of the first who leaves.*

# %% key="three-player"
engine = Engine(TorchExecutor(model, 24, 16, threads=1), BlockPool(24, 16), tokenizer=tokenizer, token_budget=64, checked=True)
for number, (prompt, answer) in enumerate([(40, 12), (70, 30), (20, 45), (100, 20), (90, 40)]):
    engine.add(Request([7 + number] * prompt, SamplingParams(max_tokens=answer, ignore_eos=True)))
list(engine.stream())
player = viz.EventPlayer(engine.events, title="Blocks and their tables, step by step (real model)", step=20)
player

# %% [markdown] key="three-size" lang="en"
# ### How large a block?
#
# What is left of internal waste is the rest of each last block: less than one block a request, half a block on average. So why not
# blocks of one token? *Predict what grows when blocks get smaller.*

# %% key="three-sizes"
SIZES = (1, 4, 8, 16, 32, 64, 128, 256)
chats = open_loop(Poisson(20.0), Lognormal(60, p99=400), Lognormal(80, p99=400), 120, 3)


@lru_cache
def with_blocks(size):
    """Llama 2 7B with 7,680 slots in blocks of this size: waste in last blocks, entries a request, P99 TTFT, prefix tokens found."""
    pool = BlockPool(7680 // size, size)
    engine = Engine.simulated("Llama 2 7B", "A10", block_pool=pool, max_running=256, ledger=Ledger())
    rest, most = [], []

    def look(_):
        running = engine.scheduler.running
        if running and engine.scheduler.waiting:
            held = sum(len(pool.table(r.id)) for r in running)
            rest.append((held * size - sum(min(pool.length(r.id), held * size) for r in running)) / (held * size))
            most.append((len(running), held / len(running)))

    table = replay(engine, chats, progress=look)
    running, entries = (sum(part) / len(most) for part in zip(*most, strict=True))
    return sum(rest) / len(rest), running, entries, summary(table).output_rate


def found_with(size, shared=100, suffix=20):
    """Of a shared prefix of so many tokens, how many a cache with such blocks finds."""
    pool = make_pool(max(64, 4096 // size), size, prefix_cache=True)
    first, second = list(range(shared)) + [500 + k for k in range(suffix)], list(range(shared)) + [900 + k for k in range(suffix)]
    pool.open("first", first, len(first))
    pool.computed("first", first, len(first))
    return pool.open("second", second, len(second))


pieces = {size: shape("Llama 2 7B").kv_bytes_per_token(2) * size / (2 * llama.num_layers) / 1024 for size in SIZES}
rows = [(size, f"{with_blocks(size)[0]:.1%}", f"{with_blocks(size)[1]:.1f}", f"{with_blocks(size)[2]:.1f}", f"{with_blocks(size)[3]:,.0f}", found_with(size), f"{pieces[size]:,.0f}") for size in SIZES]
waste_of = [with_blocks(size)[0] for size in SIZES]
assert waste_of == sorted(waste_of) and waste_of[0] == 0 and waste_of[3] < 0.1 < waste_of[-1]
assert [found_with(size) for size in (1, 16, 64, 128)] == [100, 96, 64, 0]
assert sum(-n % 16 for n in range(1, 1601)) / 1600 == 7.5 and max(-n % 16 for n in range(1, 1601)) == 15, "half a block on average, never a whole one"
pd.DataFrame(rows, columns=["block size", "empty in last blocks", "requests at once", "table entries a request", "output tokens/s",
                            "found of a shared prefix of 100", "KiB in one piece (one layer, K or V)"]).set_index("block size")

# %% key="three-widget"
def sweep_view(size, mean):
    """Mean waste of the last block against block size, for lengths from a fifth to nine fifths of so many tokens."""
    figure = canvas(f"Block size, for requests of {mean} tokens", 400)
    lengths = range(mean // 5, 9 * mean // 5 + 1)

    def lost(b):
        return 100 * sum(-n % b for n in lengths) / sum(n + -n % b for n in lengths)

    figure.add_trace(curve("slots lost in last blocks, %", SIZES, [lost(b) for b in SIZES], 0))
    figure.add_trace(curve("table entries per 100 tokens", SIZES, [100 * sum(-(-n // b) for n in lengths) / sum(lengths) for b in SIZES], 1))
    log_axis(figure, "x", SIZES, "block size (tokens)", room=1.1)
    figure.update_yaxes(range=[0, 102])
    guide(figure, "x", size, f"{size}: {lost(size):.1f} % lost", end=True)
    entries = sum(-(-n // size) for n in lengths) / len(lengths)
    return finish(figure, f"Blocks of {size} lose {lost(size):.1f} % of their slots to empty ends with requests of about {mean} tokens; a table has {entries:.0f} entries.",
                  ("block size", "lost, %"), [(b, round(lost(b), 1)) for b in SIZES])


sizes = viz.Explorer("Block size", sweep_view, {"size": viz.Slider("block size", list(SIZES), 16, "tokens"),
                                                "mean": viz.Slider("requests of about", [50, 100, 200, 500, 2000], 200, "tokens")},
                     presets={"vLLM's 16": {"size": 16, "mean": 200}, "one token": {"size": 1, "mean": 200}, "short chats, huge blocks": {"size": 128, "mean": 50}},
                     question="Why not blocks of one token? And when is 128 no waste?",
                     answer="One token loses nothing, and needs an entry, a look-up and a scattered read for every token. 128 is fine when "
                            "requests have thousands of tokens. Kwon et al. found 16 to 128 best on long chats, 16 to 32 on short ones.")
sizes

# %% [markdown] key="three-size-note" lang="en"
# Smaller blocks: longer tables, more scattered reads, smaller pieces when blocks are copied to the host. Larger blocks: emptier ends, and a
# prefix is found only to the last full block. **16** is the usual compromise. It is not free either: Kwon et al. measured their attention
# kernel 20 to 26 % slower than one on contiguous memory, and it paid all the same, because more requests fitted.
#
# ### A long prompt needs no neighbours
#
# It is often said: *"PagedAttention helps while decoding, but at prefill the whole prompt must be stored at once, which takes contiguous
# memory; so external fragmentation remains a problem in prefill."* An experiment decides. Forty blocks on the real model, forty requests of one
# block each. Every second one leaves: twenty blocks are free and **no two of them are neighbours**. Now a prompt of 300 tokens comes: 19 blocks.
# *Predict: does it get in? What does it answer, compared with the same prompt on an empty machine? And in contiguous memory?*

# %% key="three-checkerboard"
WORDS = tokenizer.encode_prompt("Once upon a time there was a little dog who lived in a big house. ")
long_prompt = (WORDS * 40)[:300]


def checkerboard(pool):
    """Forty requests of one block each on the real model; every second one leaves; then the long prompt comes. Engine, request, events."""
    engine = Engine(TorchExecutor(model, 40, 16, threads=1), pool, tokenizer=tokenizer, token_budget=512, max_running=64, checked=True)
    for number in range(40):
        engine.add(Request([3 + number] * 6, SamplingParams(max_tokens=10, ignore_eos=True), id=f"car {number}"))
    engine.step()
    for number in range(0, 40, 2):
        engine.abort(f"car {number}")
    free = pool.num_free
    bus = engine.add(Request(long_prompt, SamplingParams(max_tokens=4, ignore_eos=True), id="bus"))
    engine.step()
    return engine, bus, free, list(pool.table("bus")), moment(engine)


paged, bus, free, table, in_blocks = checkerboard(BlockPool(40, 16))
contiguous, stuck, also_free, nothing, in_runs = checkerboard(ContiguousPool(40, 16, reservation="growing"))
figure = viz.car_park({"blocks of 16": [in_blocks], "one run for each request": [in_runs]}, step=2, across=160,
                      title="Twenty scattered free blocks, and a long prompt (A)")
viz.show(figure, alt=viz.summary(figure))
assert free == also_free == 20
assert len(table) == 19 and all(abs(a - b) > 1 for a, b in pairwise(table)), "no two blocks of the prompt are neighbours"
assert bus.num_output == 1 and paged.counters.preemptions == 0, "the whole prompt was computed in that very step"
assert stuck.num_output == 0 and nothing == [], "contiguous memory let it wait"
holes = [len(hole) for hole in contiguous.pool.holes()]
assert not contiguous.pool.can_open(long_prompt, 303) and max(holes) == 1
try:
    contiguous.pool.open("a try", long_prompt, 303)
except OutOfBlocks as refusal:
    print("contiguous:", refusal)
print("paged:      its table is", table)

# %% key="three-same-tokens"
alone = Engine(TorchExecutor(model, 40, 16, threads=1), BlockPool(40, 16), tokenizer=tokenizer, token_budget=512)
[reference] = alone.generate([long_prompt], SamplingParams(max_tokens=4, ignore_eos=True))
for each in (paged, contiguous):
    list(each.stream())
assert tuple(bus.output) == tuple(stuck.output) == reference.tokens, "scattered or in one piece, first or last: the same tokens"
record = {name: next(r for r in each.records() if r.id == "bus") for name, each in {"paged": paged, "contiguous": contiguous}.items()}
steps_until = {name: sum(e.kind == "STEP" and e.time <= r.arrival + r.ttft for e in each.events)
               for (name, r), each in zip(record.items(), (paged, contiguous), strict=True)}
assert steps_until["paged"] < steps_until["contiguous"]
print(f"first token of the long prompt in step {steps_until['paged']} (paged) and in step {steps_until['contiguous']} (contiguous, when its neighbours had left)")

# %% [markdown] key="three-claim" lang="en"
# So the sentence is wrong. A prompt needs **many** blocks, not *neighbouring* ones, and part 2's table said the same of a whole run: not
# one refusal with enough free. What is true in it: a prompt needs its blocks **all at once, on one instance**, while a decode needs one at a time. On
# a full machine it is the prompt that waits. And over a cluster, see part 6.
#
# <details><summary>Where the sentence comes from, and whose idea it was</summary>
#
# Two things are mixed up: contiguity, which paging has abolished, and quantity, which it has not. Some kernels *do* compute a prompt on a
# contiguous scratch copy; the cache they write it to is scattered all the same. And vLLM is by **Kwon et al., SOSP 2023**. Yu et al., OSDI 2022, is
# Orca: the step-by-step scheduling of weeks 2 and 4, with a contiguous reservation for each request.
# </details>
#
# **What paging cures**: external waste inside an instance (all of it), internal waste (all but the last block), reservation (nothing is
# set aside). **What it does not cure**: too little memory. It admits without knowing whether the answer will fit, so somebody must
# give way now and then (part 5). With memory to spare it brings nothing at all, and it saves no arithmetic.

# %% [markdown] key="four" lang="en"
# ## 4 · One block, many readers
#
# *Question: four answers to one prompt of 90 tokens, each of 24 tokens. How many blocks of 16 do they need?*
#
# A table may name a block that another table names too. A **reference count** says how many do, and a block is free when nobody names it
# any more. Reading is harmless. Writing is not: whoever wants to write into a shared block gets a copy of *that one block* first (**copy on
# write**). Four answers to one prompt (`n=4`: parallel sampling) thus share the prompt and part where they part. On the real model.
# *Predict: blocks with sharing, blocks without, and how many are copied? (In the picture a block with several letters is shared.)*

# %% key="four-n"
STORY = tokenizer.encode_prompt("Once upon a time there was a little girl who loved her garden. ")
prompt = (STORY * 10)[:90]
sampled = SamplingParams(max_tokens=24, temperature=1.0, seed=5, ignore_eos=True, n=4)


def answered(prompts, params):
    """Answers from the real model with 32 blocks of 16; the engine tells what it took."""
    engine = Engine(TorchExecutor(model, 32, 16, threads=1), BlockPool(32, 16), tokenizer=tokenizer, token_budget=512, checked=True)
    return [answer.tokens for answer in engine.generate(prompts, params)], engine


def most_blocks(engine):
    """The most blocks that were in use in any step."""
    return max(event.data["used_blocks"] for event in engine.events if event.kind == "STEP")


together, family = answered([prompt], sampled)
apart, crowd_of_four = answered([prompt] * 4, [replace(sampled, n=1, seed=5 + i) for i in range(4)])
assert together == apart and len(set(together)) > 1, "the same four answers as four requests, and they do differ"
assert family.counters.forked_tokens == 3 * (90 - 1), "all of the prompt but its last token, which each computes for logits of its own"
assert family.counters.copied_blocks == 3, "each sibling but one copies the prompt's last, partly filled block"
assert most_blocks(family) < 0.6 * most_blocks(crowd_of_four)
print(f"blocks: {most_blocks(family)} with sharing, {most_blocks(crowd_of_four)} without;  computed tokens: {family.counters.computed_tokens} and "
      f"{crowd_of_four.counters.computed_tokens};  forked {family.counters.forked_tokens} tokens, copied {family.counters.copied_blocks} blocks")
figure = viz.block_map(family.events, step=12, title="Four answers share a prompt")
viz.show(figure, alt=viz.summary(figure))

# %% [markdown] key="four-beam" lang="en"
# Why three copies, and not four? The last who still names the block writes in place: nobody else reads it any more. (Freeing a block
# while somebody still reads it would be the worse mistake: it comes back in lab 6.)
#
# A **beam search** shares much more, for its beams part late and die early: what they have in common is shared for as long as they have it in
# common. *Predict: which saves more, four samples or four beams?*

# %% key="four-beam-run"
beam_engine = Engine(TorchExecutor(model, 64, 16, threads=1), BlockPool(64, 16), tokenizer=tokenizer, token_budget=512)
sharing = Sharing()
beams = paged_beam_search(beam_engine, prompt[:24], width=4, max_tokens=32, eos_ids=(), sharing=sharing)
dense = beam_search(model, prompt[:24], width=4, max_tokens=32, eos_ids=())
assert [beam.tokens for beam in beams] == [beam.tokens for beam in dense], "the same beams as on contiguous rows"
four = SamplingParams(max_tokens=32, temperature=1.0, seed=5, ignore_eos=True, n=4)
_, sampling_together = answered([prompt[:24]], four)
_, sampling_apart = answered([prompt[:24]] * 4, [replace(four, n=1, seed=5 + i) for i in range(4)])
parallel = 1 - most_blocks(sampling_together) / most_blocks(sampling_apart)
assert sharing.saved > 1.5 * parallel and beam_engine.pool.num_used == 0
print(f"blocks saved with a prompt of 24 tokens and answers of 32: {parallel:.0%} by four samples (at the most crowded step), {sharing.saved:.0%} by four beams (all steps)")

# %% [markdown] key="four-prefix" lang="en"
# Kwon et al. measured 6 to 10 % saved by parallel sampling and 38 to 55 % by beam search, with short prompts (Alpaca).
#
# ### What others have computed already
#
# Requests of different users begin alike too: the same system prompt, the same document, the same conversation one turn later. A **prefix
# cache** keeps the blocks of those who have gone and finds them again. How does one look up a *text*? Name each full block by a hash of
# its tokens **and of the name of the block before it**. Equal names, equal beginnings. *Predict: why is the parent in the hash? Its
# tokens are the same either way.*

# %% key="four-chain"
class Orphans(HashIndex):
    """The mistake: a block is named by its own tokens, whatever stands before it."""

    def match(self, tokens):
        """Block after block, each by itself."""
        blocks = []
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            holders = self._holders.get(chained(ROOT, tokens[start:start + self.block_size]))
            if not holders:
                break
            blocks.append(holders[0])
        return blocks

    def insert(self, tokens, blocks, after=None):
        """Name each block by its tokens alone."""
        for place, block in enumerate(blocks):
            if block not in self._names:
                self._names[block] = chained(ROOT, tokens[place * self.block_size:(place + 1) * self.block_size])
                self._holders.setdefault(self._names[block], []).append(block)


a, b, c, d = ((tokenizer.encode_prompt(text) * 4)[:16] for text in (
    "Once there was a dog named Max. Max was a good dog. ", " went to the park to play. It was a nice day and the sun was up.",
    "Once there was a girl named Lily. Lily was sad. ", "The end. "))
last = tokenizer.encode_prompt(" Then")


def third_answer(pool):
    """a b and c d are served; then c b comes, whose second block holds what a b's second holds. Its answer, and what was found."""
    engine = Engine(TorchExecutor(model, 32, 16, threads=1), pool, tokenizer=tokenizer, token_budget=256)
    params = SamplingParams(max_tokens=16, ignore_eos=True)
    for first in (a + b + last, c + d + last):
        engine.generate([first], params)
    before = engine.counters.hit_tokens
    [answer] = engine.generate([c + b + last], params)
    return answer, engine.counters.hit_tokens - before


right, none = third_answer(BlockPool(32, 16))
cached, found = third_answer(PrefixPool(32, 16))
wrong, too_much = third_answer(PrefixPool(32, 16, Orphans(16)))
assert (none, found, too_much) == (0, 16, 32)
assert cached.tokens == right.tokens != wrong.tokens, "the same words in another context have another KV"
print(f"no cache:           {right.text!r}\nchained hashes:     {cached.text!r}  ({found} tokens found)\nparent left out:    {wrong.text!r}  ({too_much} found, and wrong)")

# %% [markdown] key="four-why" lang="en"
# The KV of a token depends on **all tokens before it**: it was computed from hidden states that had looked at them (week 1). The same words
# in another context are other keys and values. The wrong cache "finds" more and answers fluently, about something else. Nobody
# would notice without a test that compares.
#
# Three rules follow: only **full** blocks are shared (a partly filled one will still be written); the **last token** is always computed (without it there
# are no logits to sample from); and a block without a reader stays findable until its place is needed, **least recently used** first and of one
# request the tail before the head. So the cache takes no memory from anybody. *What is it worth?*

# %% key="four-ttft"
system = (STORY * 40)[:512]
questions = [tokenizer.encode_prompt(text) for text in ("Tom likes dogs. ", "Lily has a kite. ", "The sun is hot. ")]


def three_questions(prefix_cache):
    """Three questions behind the same 512 tokens, one after the other, on the real model: TTFT of each (s), answers, engine."""
    engine = Engine(TorchExecutor(model, 96, 16, threads=1), make_pool(96, 16, prefix_cache), tokenizer=tokenizer, token_budget=1024)
    answers = [engine.generate([system + question], SamplingParams(max_tokens=8, ignore_eos=True))[0].tokens for question in questions]
    return [record.ttft for record in engine.records()], answers, engine


three_questions(False)                                                             # warm up
cold, plain_answers, without = three_questions(False)
warm, cached_answers, with_cache = three_questions("radix")
assert cached_answers == plain_answers and with_cache.counters.hit_tokens == 2 * 512
assert with_cache.counters.computed_tokens == without.counters.computed_tokens - 2 * 512
print("TTFT, ms:   without", *(f"{1000 * t:.0f}" for t in cold), "  with a cache", *(f"{1000 * t:.0f}" for t in warm),
      f"   ({with_cache.counters.hit_tokens} tokens found, {with_cache.counters.computed_tokens} computed instead of {without.counters.computed_tokens})")

# %% [markdown] key="four-tree" lang="en"
# ### The same as a tree
#
# SGLang (Zheng et al., 2024) keeps the texts themselves, in a **radix tree**: runs of tokens that fork where texts part. Growing a text costs only its
# new tokens, and an eviction takes leaves. With equal blocks it finds what the hash chain finds. Six requests of two assistants:

# %% key="four-tree-view"
ASSISTANTS = ("You are a kind helper who tells short stories to little children in the evening. ", "You are a teacher who explains the weather and the sea. ")
ASKED = (("Tell me about a dog. ", "Tell me about a cat that swims. ", "Sing a song. "), ("Why does it rain? ", "Why is it dark at night? ", "What is a wave? "))
texts = [tokenizer.encode_prompt(who + what) for who, each in zip(ASSISTANTS, ASKED, strict=True) for what in each]
tree_pool, hash_pool = make_pool(64, 4, "radix"), make_pool(64, 4, "hash")
for number, text in enumerate(texts):
    for pool in (tree_pool, hash_pool):
        pool.open(number, text, len(text))
        pool.computed(number, text, len(text))
assert tree_pool.hit_tokens == hash_pool.hit_tokens > 0, "tree and hash chain find the same, to the block"
figure = viz.prefix_tree(tree_pool.index, tokenizer.decode, "Six prompts, as the cache keeps them")
viz.show(figure, alt=viz.summary(figure))

# %% [markdown] key="four-order" lang="en"
# ### Order decides what a small cache is worth
#
# Twenty conversations with six assistants, five turns each; 16 requests are always there, four are served at a time. *Predict: with a cache that
# holds everything, what does the order of the queue change? And with one that holds a tenth?*

# %% key="four-order-run"
talk = dict(sessions=20, turns=5, window=16)
CACHES = (200, 400, 1200, 4800)
orders = {"first come, first served": FCFS, "longest prefix first": LongestPrefixFirst}
reused = {name: [reuse(order(), blocks, Assistants(**talk)) for blocks in CACHES] for name, order in orders.items()}
figure = canvas("Share of prompt tokens found, by size of the cache and order of the queue", 400)
for index, (name, runs) in enumerate(reused.items()):
    figure.add_trace(curve(name, CACHES, [100 * run.hit_rate for run in runs], index))
log_axis(figure, "x", CACHES, "blocks of memory")
figure.update_yaxes(title_text="found, %", range=[0, 100])
fcfs, lpm = reused.values()
assert lpm[0].hit_rate > 1.3 * fcfs[0].hit_rate and abs(lpm[-1].hit_rate - fcfs[-1].hit_rate) < 0.05 and lpm[-1].worst_ttft > fcfs[-1].worst_ttft
finding = (f"With {CACHES[0]} blocks first come, first served finds {fcfs[0].hit_rate:.0%} of the prompt tokens and longest prefix first {lpm[0].hit_rate:.0%}; "
           f"with {CACHES[-1]:,} blocks {fcfs[-1].hit_rate:.0%} and {lpm[-1].hit_rate:.0%}.")
viz.show(finish(figure, finding, ("blocks", *orders), [(blocks, *(f"{runs[k].hit_rate:.0%}" for runs in reused.values())) for k, blocks in enumerate(CACHES)]), alt=finding)
print(finding)
print(f"mean TTFT with {CACHES[0]} blocks: {fcfs[0].mean_ttft:.1f} s and {lpm[0].mean_ttft:.1f} s; the longest TTFT with {CACHES[-1]:,} blocks: {fcfs[-1].worst_ttft:.1f} s and {lpm[-1].worst_ttft:.1f} s")

# %% [markdown] key="four-order-note" lang="en"
# Longest prefix first serves those together who begin alike, before the cache forgets. It is the first policy of this course that looks
# **into** the memory. And it is unfair: a prompt that nobody shares can wait for ever (so the course's policy can be given a `patience`).
#
# <details><summary>Two misconceptions</summary>
#
# - *"RadixAttention is a faster attention."* It is a way to find and keep blocks; the kernel is the same, and decode steps get no faster at all.
# - *"A prefix cache makes everything faster."* It saves prefill of what repeats. Long answers to fresh prompts gain nothing.
# </details>

# %% [markdown] key="five" lang="en"
# ## 5 · When the memory is full
#
# *Question: nothing is reserved, everybody grows, and one day there is no free block. What now?*
#
# Somebody gives way: the **last** to have come (so that the oldest always gets on). What becomes of its KV? It can be thrown away and
# **computed again**, all in one prefill; or **swapped** to host memory and back. The real model, 20 blocks for four requests that
# need more. *Predict: whose answers change?*

# %% key="five-real"
LONG = [((STORY * 10)[k:k + 60], 50) for k in range(4)]


def squeezed(num_blocks, mode):
    """Four requests on the real model with so few blocks; preempted ones are computed again or swapped. Answers and engine."""
    engine = Engine(TorchExecutor(model, num_blocks, 16, threads=1, host_blocks=64), BlockPool(num_blocks, 16), tokenizer=tokenizer, token_budget=256,
                    preemption=Preemption(mode, host_blocks=64), checked=True)
    params = [SamplingParams(max_tokens=count, ignore_eos=True) for _, count in LONG]
    return [answer.tokens for answer in engine.generate([text for text, _ in LONG], params)], engine


roomy, _ = squeezed(64, "recompute")
again, recomputing = squeezed(20, "recompute")
moved, swapping = squeezed(20, "swap")
assert again == roomy == moved, "preemption changes when, never what"
assert recomputing.counters.preemptions > 0 and recomputing.counters.recomputed_tokens > 0 == recomputing.counters.swapped_out_blocks
assert swapping.counters.swapped_out_blocks == swapping.counters.swapped_in_blocks > 0 == swapping.counters.recomputed_tokens
pd.DataFrame([(name, e.counters.preemptions, e.counters.recomputed_tokens, e.counters.swapped_out_blocks, f"{sum(e.executor.swapped_bytes) / 1e6:.1f}")
              for name, e in (("compute again", recomputing), ("swap", swapping))],
             columns=["real model", "preemptions", "tokens computed twice", "blocks swapped out", "MB over the link"]).set_index("real model")

# %% [markdown] key="five-price" lang="en"
# Which is cheaper? Swapping costs **bytes**, twice, over a link: it grows with the length. Computing again costs **arithmetic**: a step at least, then
# more than linearly, for attention is quadratic. *Predict: does a longer context speak for swapping or against it? And a slower link?*

# %% key="five-crossover"
LENGTHS = (100, 200, 500, 1000, 2000, 4000, 8000, 16000)
LINKS = {"PCIe 4, 20 GB/s": 20e9, "8 GB/s": 8e9, "network, 3 GB/s": 3e9}
price = {name: link_prices(cost, llama, 16, link) for name, link in LINKS.items()}
again_ms = [1000 * price["8 GB/s"].prompt(n) for n in LENGTHS]
figure = canvas("Bringing a context back: Llama 2 7B, A100", 430)
figure.add_trace(curve("compute again", LENGTHS, again_ms, 0))
swap_ms = {name: [1000 * each.swap(n, 16) for n in LENGTHS] for name, each in price.items()}
for index, (name, values) in enumerate(swap_ms.items(), 1):
    figure.add_trace(curve(f"swap, {name}", LENGTHS, values, index))
log_axis(figure, "x", LENGTHS, "tokens of context")
log_axis(figure, "y", [*again_ms, *(v for values in swap_ms.values() for v in values)], "ms")


def cheaper_ranges(each, longest=100_000):
    """From which context on swapping is cheaper (True) or dearer (False), up to so many tokens."""
    lengths = [*range(1, 400), *range(400, longest + 1, 50)]
    sides = [(n, each.swap(n, 16) <= each.prompt(n)) for n in lengths]
    return [sides[0], *(now for before, now in pairwise(sides) if now[1] != before[1])]


def in_words(ranges):
    """The same in words."""
    starts = [f"from {n:,} tokens {'swap' if swap else 'compute again'}" for n, swap in ranges[1:]]
    return "; ".join(["swap" if ranges[0][1] else "compute again", *starts])


ranges = {name: cheaper_ranges(each) for name, each in price.items()}
finding = "The cheaper way, by link: " + ". ".join(f"{name}: {in_words(found)}" for name, found in ranges.items()) + "."
viz.show(finish(figure, finding, ("tokens", "compute again, ms", *(f"swap, {n}, ms" for n in price)), [(n, round(again_ms[k], 1), *(round(v[k], 1) for v in swap_ms.values())) for k, n in enumerate(LENGTHS)]), alt=finding)
print(finding)
where = price["8 GB/s"].crossover(16, 100_000)
assert price["8 GB/s"].swap(where, 16) <= price["8 GB/s"].prompt(where) and price["8 GB/s"].swap(where - 1, 16) > price["8 GB/s"].prompt(where - 1)
assert [swap for _, swap in ranges["PCIe 4, 20 GB/s"]] == [True] and [swap for _, swap in ranges["8 GB/s"]] == [True, False, True]
even = {n: 2 * llama.kv_bytes_per_token(2) * n / price["8 GB/s"].prompt(n) / 1e9 for n in LENGTHS}
assert all(link_prices(cost, llama, 1, 1.05e9 * even[n]).swap(n, 1) < price["8 GB/s"].prompt(n) < link_prices(cost, llama, 1, 0.95e9 * even[n]).swap(n, 1) for n in LENGTHS)
print("break-even link, GB/s, by tokens of context:", ", ".join(f"{n:,}: {speed:.1f}" for n, speed in even.items()))

# %% [markdown] key="five-three" lang="en"
# Three ranges, where one might have expected one crossover. A **very short** context is cheap to move, while computing it takes a step at least, and a
# step reads all weights. In the **middle** arithmetic is the better deal on a slow link. A **very long** one is expensive to compute, quadratically. Over PCIe 4
# swapping wins everywhere on this machine, *if* the copy goes at full speed (and many small blocks do not).

# %% key="five-sweep"
pressed = open_loop(Poisson(6.0), Lognormal(600, p99=3000), Lognormal(300, p99=900), 120, 7)


@lru_cache
def under_pressure(mode, link):
    """The summary of a run with too little memory, and its engine; the link in GB/s."""
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", num_blocks=900, max_running=64, preemption=mode, link=link * 1e9, ledger=Ledger())
    return summary(replay(engine, pressed)), engine.counters


rows = []
for link in (2, 6, 20, 60):
    for mode in ("recompute", "swap", "cheaper"):
        seen, counters = under_pressure(mode, link)
        rows.append((link, mode, counters.preemptions, f"{counters.recomputed_tokens:,}", f"{counters.swapped_out_blocks:,}", round(seen.duration, 1), round(seen.normalised.mean, 3)))
slow, fast = ({mode: under_pressure(mode, link)[0].duration for mode in ("recompute", "swap", "cheaper")} for link in (2, 60))
assert slow["swap"] > slow["recompute"] and fast["swap"] < fast["recompute"]
pd.DataFrame(rows, columns=["link, GB/s", "mode", "preemptions", "computed twice", "blocks out", "seconds in all", "mean s per token"]).set_index(["link, GB/s", "mode"])

# %% [markdown] key="five-note" lang="en"
# Early vLLM could do both; today's only computes again, because its prefix cache usually finds most of what a preempted request has left
# behind. Models with grouped queries have fewer bytes per token, which speaks for swapping; so does a long context. More in week 10.

# %% [markdown] key="six" lang="en"
# ## 6 · Free in sum, nowhere singly
#
# *Question: inside one instance external waste is gone. Is it gone from the service?*
#
# Four instances, each with its own blocks. A prompt must lie on **one** of them: its attention reads all of its blocks in every step. So
# the car park comes back, one floor up: four car parks, each with a few free places. *Predict: a balancer that always chooses the emptiest instance is
# good for latency. What does it do to the largest hole?*

# %% key="six-cluster"
BLOCKS = 400


class Emptiest(Dispatcher):
    """Balance: where most blocks are free, counting those for prompts that wait there."""

    def choose(self, request, number, reports):
        """Spread."""
        return max(reports, key=left).instance


class Fullest(Dispatcher):
    """Pack: the fullest instance that still has room for it and a tenth to spare; else the emptiest."""

    def choose(self, request, number, reports):
        """Pack."""
        needed = -(-len(request.prompt) // 16) + BLOCKS // 10
        fitting = [report for report in reports if left(report) >= needed]
        return (min(fitting, key=left) if fitting else max(reports, key=left)).instance


def left(report):
    """Blocks that are free, less those that waiting prompts will take."""
    return report.free_blocks - report.waiting_blocks


class Noting(Dispatcher):
    """Passes the choice on, and notes for every long prompt what is free: in sum, and on the best instance."""

    def __init__(self, inner):
        self.inner, self.seen = inner, []

    def choose(self, request, number, reports):
        """As the other says."""
        if request.tenant == "long":
            free = [report.free_blocks for report in reports]
            self.seen.append((-(-len(request.prompt) // 16), sum(free), max(free)))
        return self.inner.choose(request, number, reports)


small_ones = open_loop(Poisson(9.0), Lognormal(150, p99=600), Lognormal(250, p99=700), 480, 5, "small")
long_ones = [Arrival(6.0 + 2.5 * k, 4000, 40, "long") for k in range(18)]


@lru_cache
def cluster(dispatch):
    """Four simulated A100 with 400 blocks each, small requests and a long prompt now and then."""
    engines = [Engine.simulated("Llama 2 7B", "A100 80 GB", num_blocks=BLOCKS, max_running=64, ledger=Ledger()) for _ in range(4)]
    noting = Noting(dispatch())
    return VirtualDriver(engines, noting, reporting=Reporting(0.05)).run(merge(small_ones, long_ones)), noting.seen, engines


rows, met = [], {}
for name, dispatch in (("spread: the emptiest", Emptiest), ("pack: the fullest with room", Fullest)):
    table, seen, engines = cluster(dispatch)
    in_sum = sum(total >= needed for needed, total, _ in seen)
    singly = sum(best >= needed for needed, _, best in seen)
    stuck_there = sum(best < needed <= total for needed, total, best in seen)
    long_ttft, small_table = table.of_tenant("long")["ttft"], table.of_tenant("small")
    met[name] = (stuck_there, float(percentile(long_ttft, 99)))
    rows.append((name, in_sum, singly, stuck_there, f"{sum(b for *_, b in seen) / len(seen):.0f}", f"{percentile(long_ttft, 50):.1f}", f"{percentile(long_ttft, 99):.1f}",
                 f"{1000 * summary(small_table).tpot.p99:.0f}", sum(e.counters.preemptions for e in engines)))
spread, pack = met.values()
assert sum(e.counters.preemptions for e in cluster(Emptiest)[2]) < sum(e.counters.preemptions for e in cluster(Fullest)[2]), "the price of packing"
assert spread[0] > pack[0] and spread[1] > pack[1] and all(total >= best for _, total, best in cluster(Emptiest)[1])
print(f"a long prompt found enough free blocks in sum and on no single instance {spread[0]} of {len(long_ones)} times when spreading, {pack[0]} times when packing")
pd.DataFrame(rows, columns=["dispatch", "enough in sum", "enough on one", "in sum only", "largest free, mean", "long: P50 TTFT, s", "P99", "small: P99 time per token, ms", "preempted"]).set_index("dispatch")

# %% [markdown] key="six-tension" lang="en"
# Spreading equalises the free blocks, so that no instance has many: balancing itself makes the cluster's fragmentation worse. Packing leaves
# one instance empty enough, and pays with fuller instances: more preemptions. **Balance against room** is a real tension, and week 8 measures it further.
# (And a moment later the balance is another one. What was placed well when it came is placed badly when others have left.)
#
# So one must be able to correct it: **Llumnix** (Sun et al., 2024) moves requests from one instance to another while they run. It is often said that
# it thereby *"merges free memory into larger contiguous regions"*. *Predict: after requests have been moved away, do the free blocks of that instance
# lie side by side? Must they? And how much free memory has the cluster gained?*

# %% key="six-move"
def crowded_cluster(seed, instances=4, blocks=30):
    """Pools that small requests have come to and gone from for a while, always to the emptiest: free blocks lie anywhere."""
    draw, pools, here = random.Random(seed), [BlockPool(blocks, 16) for _ in range(instances)], []
    for number in range(400):
        pool = max(pools, key=lambda pool: pool.num_free)
        if sum(p.num_free for p in pools) > 26:
            pool.allocate(number, draw.randrange(20, 64))
            here.append((number, pool))
        else:
            owner, pool = here.pop(draw.randrange(len(here)))
            pool.free(owner)
    return pools


def longest_run(blocks):
    """How many of these blocks are neighbours, at best."""
    best = length = 0
    before = None
    for block in sorted(blocks):
        length = length + 1 if before is not None and block == before + 1 else 1
        best, before = max(best, length), block
    return best


def make_room(pools, needed):
    """Move the smallest requests away from the emptiest instance until so many blocks are free there; (that pool, blocks moved)."""
    target, moved = max(pools, key=lambda pool: pool.num_free), 0
    while target.num_free < needed:
        owner = min(target.tables, key=target.length)
        other = max((pool for pool in pools if pool is not target), key=lambda pool: pool.num_free)
        other.allocate(owner, target.length(owner))
        moved += len(target.free(owner))
    return target, moved


pools, NEEDED = crowded_cluster(3), 14
before = [pool.num_free for pool in pools]
target, moved_blocks = make_room(pools, NEEDED)
after = [pool.num_free for pool in pools]
unused = set(range(target.num_blocks)) - {block for table in target.tables.values() for block in table}
side_by_side = longest_run(unused)
prompt_table = target.allocate("the long prompt", NEEDED * 16)
for pool in pools:
    pool.check_invariants()
assert max(before) < NEEDED <= sum(before), "enough in sum, nowhere singly"
assert sum(after) == sum(before), "the cluster has not gained a single block"
assert side_by_side < NEEDED and any(abs(a - b) > 1 for a, b in pairwise(prompt_table)), "nor are its blocks neighbours now"
figure = canvas(f"Free blocks of four instances; a prompt needs {NEEDED}", 380, barmode="overlay")
for label, free_blocks, look, shift in (("before", before, marker("#BDBDBD", "."), -0.2), ("after moving requests away", after, marker("#56B4E9"), 0.2)):
    figure.add_bar(x=[k + shift for k in range(4)], y=free_blocks, width=0.36, name=label, marker=look, text=free_blocks)
figure.update_xaxes(tickvals=list(range(4)), ticktext=[f"instance {k}" for k in range(4)])
guide(figure, "y", NEEDED, "the prompt")
figure.update_yaxes(title_text="free blocks", range=[0, max(after) + 3])
finding = (f"Before, {sum(before)} blocks were free, at most {max(before)} on one instance; after moving {moved_blocks} blocks of requests still {sum(after)} are free, {max(after)} "
           f"of them on one instance: the prompt of {NEEDED} blocks fits, although at most {side_by_side} of those are neighbours.")
viz.show(finish(figure, finding, ("instance", "before", "after"), [(k, before[k], after[k]) for k in range(4)]), alt=finding)
print(finding)

# %% [markdown] key="six-note" lang="en"
# What moving gathers is free blocks on **one instance**, not neighbours. "De-fragmentation" in a paged cluster has nothing to do with contiguity, and it creates no
# memory. *How* a running request is moved, in milliseconds and without losing a token, is week 7; *whom, when and where to*, week 8.

# %% [markdown] key="seven" lang="en"
# ## 7 · Not everybody is equal
#
# *Question: an assistant in an emergency room and a job that labels a million pictures overnight share a machine. First come, first served?*
#
# Requests differ in urgency by application (chat and code completion against analysis overnight), by user, by what was paid. Early Orca and vLLM
# served all alike, first come, first served, so that an urgent request stood behind whatever had come before. To do better a system needs four things: to **know**
# the priority (from the API, the key, a rule; in vLLM and here a number, smaller is more important), to **order** by it, perhaps to **preempt** for
# it, and to **isolate** it (week 5), since in a shared step everybody pays for everybody.
#
# Three levels on a machine with too little memory: *urgent* (a chat every second or so), *normal*, and *bulk*: long documents. *Predict the P99 TTFT
# of the urgent under each policy below (what headroom is comes further down). And who pays?*

# %% key="seven-run"
def three_levels():
    """Sixty seconds of urgent (0), normal (1) and bulk (2) requests."""
    urgent = open_loop(Poisson(1.0), Lognormal(150, p99=500), Lognormal(120, p99=300), 60, 11, "urgent")
    normal = open_loop(Poisson(1.5), Lognormal(300, p99=1200), Lognormal(150, p99=500), 90, 12, "normal")
    bulk = open_loop(Poisson(0.9), Lognormal(2500, p99=6000), Lognormal(250, p99=600), 54, 13, "bulk")
    levels = {"urgent": 0, "normal": 1, "bulk": 2}
    return [replace(a, priority=levels[a.tenant]) for a in merge(urgent, normal, bulk)]


POLICIES = {"first come, first served": lambda: {"policy": FCFS()}, "priority": lambda: {"policy": StaticPriority()},
            "priority, preemptive": lambda: {"policy": StaticPriority(preemptive=True)}, "priority, ageing 10 s a level": lambda: {"policy": StaticPriority(ageing=10.0)},
            "priority, headroom 300 blocks": lambda: {"policy": StaticPriority(), "admission": Headroom({0: 300})}}


@lru_cache
def by_level(policy, blocks=900):
    """The three levels on a simulated A100 with so many blocks."""
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", num_blocks=blocks, max_running=24, ledger=Ledger(), **POLICIES[policy]())
    return replay(engine, three_levels()), engine.counters


rows = []
for policy in POLICIES:
    table, counters = by_level(policy)
    rows.append((policy, *(f"{percentile(table.of_tenant(t)['ttft'], 99):.1f}" for t in ("urgent", "normal", "bulk")), *(f"{table.of_tenant(t)['e2e'].mean():.1f}" for t in ("urgent", "normal", "bulk")),
                 counters.preemptions, f"{counters.recomputed_tokens:,}", f"{summary(table).output_rate:.0f}"))
p99 = {policy: {t: float(percentile(by_level(policy)[0].of_tenant(t)["ttft"], 99)) for t in ("urgent", "normal", "bulk")} for policy in POLICIES}
redone = {policy: by_level(policy)[1].recomputed_tokens for policy in POLICIES}
assert p99["priority, preemptive"]["urgent"] < p99["priority"]["urgent"] < p99["first come, first served"]["urgent"] / 3
assert redone["priority, preemptive"] > redone["priority"] and p99["priority, preemptive"]["bulk"] > p99["first come, first served"]["bulk"]
pd.DataFrame(rows, columns=["policy", "P99 TTFT, s: urgent", "normal", "bulk", "mean end to end, s: urgent", "normal ", "bulk ", "preempted", "computed twice", "output tokens/s"]).set_index("policy")

# %% key="seven-price"
extra = redone["priority, preemptive"] - redone["priority"]
lost = 1 - summary(by_level("priority, preemptive")[0]).output_rate / summary(by_level("priority")[0]).output_rate
print(f"preemption brings the P99 TTFT of the urgent from {p99['priority']['urgent']:.2f} s to {p99['priority, preemptive']['urgent']:.2f} s, and costs {extra:,} tokens computed "
      f"again ({extra / by_level('priority, preemptive')[1].computed_tokens:.0%} of all that was computed) and {lost:.1%} of the throughput")

# %% [markdown] key="seven-starve" lang="en"
# Waiting in front is cheap: it changes who waits. **Pushing out** is not: the KV of whoever leaves is computed again or swapped (part 5). It pays when the
# urgent would otherwise wait for a place, and only then.
#
# ### Starvation
#
# Under a strict order the low level gets what the others leave. When those keep the machine full, that is nothing: **starvation**. The old cure is **ageing**: who
# waits rises, by one level every *a* seconds. Below, level 0 alone fills four seats for a minute; level 2 comes now and then. Lines start at a request's level
# and rise while it waits; a mark is where it is served. *Predict: with 4 s a level, how long does level 2 wait at most? What does level 0 pay?*

# %% key="seven-ageing"
AGEING = {"none": None, "15 s": 15.0, "8 s": 8.0, "4 s": 4.0, "1 s": 1.0}


@lru_cache
def aged(name):
    """A minute in which level 0 alone asks for all four seats; level 2 asks every four seconds. The engine afterwards."""
    important = [Arrival(0.42 * k, 60, 160, "important", 0) for k in range(150)]
    patient = [Arrival(2.0 + 4.0 * k, 60, 160, "patient", 2) for k in range(10)]
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", policy=StaticPriority(ageing=AGEING[name]), max_running=4)
    replay(engine, merge(important, patient), stop=lambda: engine.clock.now > 60)
    return engine


ages = viz.Explorer("Ageing", lambda ageing: viz.priority_ageing(aged(ageing).events, AGEING[ageing], until=60.0), {"ageing": viz.Choice("one level every", list(AGEING), "4 s")},
                    presets={"starve": {"ageing": "none"}, "gently": {"ageing": "8 s"}, "almost first come, first served": {"ageing": "1 s"}},
                    question="What becomes of level 2 without ageing? And why do two lines never cross?",
                    answer="It is passed by everybody who comes, and waits to the end. All rise at one speed, so whoever is ahead stays ahead: level p is overtaken "
                           "only by those who come within p levels' worth of seconds.")
ages

# %% key="seven-bound"
def overtaken(engine, seconds):
    """For each of level 2: how much later than it (s) the latest came who was nevertheless served before it."""
    queued = {e.request: e for e in engine.events if e.kind == "QUEUED"}
    started = {e.request: e.time for e in reversed(engine.events) if e.kind == "SCHEDULED"}
    late = []
    for name, event in queued.items():
        if event.data["priority"] == 2:
            mine = started.get(name, 60.0)
            late.append(max([queued[other].time - event.time for other, time in started.items() if other != name and time < mine], default=0.0))
    return late


rows = []
for name, seconds in AGEING.items():
    engine = aged(name)
    waited = {level: [wait for wait in waits(engine.events) if wait.level == level] for level in (0, 2)}
    latest = max(overtaken(engine, seconds))
    if seconds is not None:
        assert latest <= 2 * seconds + 1e-9, "the bound: nobody who comes more than two levels' worth later goes first"
    rows.append((name, sum(w.served for w in waited[2]), round(max(w.seconds for w in waited[2]), 1), round(percentile([w.seconds for w in waited[0]], 99), 1), round(latest, 1), "none" if seconds is None else 2 * seconds))
served_low = {row[0]: row[1] for row in rows}
assert served_low["none"] < served_low["8 s"] <= served_low["4 s"] and rows[0][4] > max(row[4] for row in rows[1:])
pd.DataFrame(rows, columns=["one level every", "level 2 served, of 10", "longest wait of level 2, s", "level 0: P99 wait, s", "latest who went before it, s later", "bound, s"]).set_index("one level every")

# %% [markdown] key="seven-bound-note" lang="en"
# The bound in words: with *a* seconds a level, a request of level *p* is passed only by those who come within *a·p* seconds after it. They are finitely many, so it
# is served. How many **seconds** that takes depends on how much they ask for; ageing orders, it creates no capacity. With too small an *a* the levels mean nothing
# any more, with too large a one the lowest starves for practical purposes: how far apart levels are is the decision, more than how many there are.
#
# <details><summary>Misconception: "ageing costs a sort at every step, because all priorities change all the time"</summary>
#
# All change at the same speed, so no two ever change places: ordering by *arrival + a·p*, which never changes, is the same. That is how `policies/priority.py` does it.
# </details>
#
# ### Priority and the batch
#
# Must an urgent request **break** the batch, or wait for a good moment to join one? When batches were formed once and served to their end, that was a dilemma. *Predict: how long
# does an urgent request wait for its first token beside sixteen long answers, when batches are static, and when everybody may join at every step?*

# %% key="seven-batch"
class SeatKept(Admission):
    """The last seat is for the urgent (level 0)."""

    def hold(self, request, scheduler, now):
        """Others wait on when only one seat is left."""
        return request.priority > 0 and len(scheduler.running) >= scheduler.max_running - 1


def joins(batching, policy, admission=None):
    """Sixty bulk requests of 100 to 500 tokens for sixteen seats, and five urgent ones. Longest urgent TTFT (s), tokens/s, mean batch."""
    bulk = [Arrival(0.0, 100, 100 + 61 * k % 400, "bulk", 2) for k in range(60)]
    urgent = [Arrival(1.3 + 1.7 * k, 100, 20, "urgent", 0) for k in range(5)]
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", policy=policy, batching=batching, max_running=16, token_budget=512, admission=admission)
    table = replay(engine, merge(bulk, urgent))
    steps = [e for e in engine.events if e.kind == "STEP"]
    return max(table.of_tenant("urgent")["ttft"]), summary(table).output_rate, sum(len(e.data["batch"]) for e in steps) / len(steps), engine.counters.preemptions


ways = {"static batches, priority": joins("static", StaticPriority()), "every step, first come": joins("mixed", FCFS()), "every step, priority": joins("mixed", StaticPriority()),
        "every step, priority, a seat kept free": joins("mixed", StaticPriority(), SeatKept()), "every step, preemptive": joins("mixed", StaticPriority(preemptive=True))}
assert ways["every step, priority"][0] < 0.5 * ways["static batches, priority"][0] and ways["every step, priority"][1] > 0.98 * ways["every step, first come"][1]
assert ways["every step, preemptive"][0] < 0.2 * ways["every step, priority"][0] and ways["every step, preemptive"][3] > 0
assert ways["every step, priority, a seat kept free"][0] < 0.2 * ways["every step, priority"][0]
pd.DataFrame([(name, round(ttft, 2), round(rate), round(batch, 1), preempted) for name, (ttft, rate, batch, preempted) in ways.items()],
             columns=["batches", "urgent: longest TTFT, s", "output tokens/s", "requests in a step", "preempted"]).set_index("batches")

# %% [markdown] key="seven-batch-note" lang="en"
# Deciding at every step dissolves most of the dilemma: nothing is broken off, the urgent one joins the **next step**, and the others get their tokens in that step too. What is
# left is whether there is a **place**: a seat and blocks. Preemption makes one, by throwing somebody's work away. Keeping one free all the time costs
# nobody's work, but capacity.
#
# ### Virtual usage
#
# Llumnix makes headroom by a trick of book-keeping. Its dispatcher compares the **freeness** of instances, (blocks − usage) ÷ requests running. To the *real* usage of an
# instance with urgent requests it adds **virtual** usage, a headroom shared by the urgent ones there. The instance looks full; new requests go elsewhere; and the urgent keep
# short steps and room to grow. No rule about priorities is needed anywhere else. *Predict: what do the urgent gain, and what do the others pay?*

# %% key="seven-virtual"
class Freest(Dispatcher):
    """To the instance with most freeness, of which each reports its own every 50 ms."""

    def choose(self, request, number, reports):
        """Freeness counts the first who waits; a dispatcher counts the others too."""
        def room_left(report):
            return report.freeness - (report.waiting_blocks - report.head_blocks) / max(1, report.running)

        return max(reports, key=room_left).instance


@lru_cache
def with_headroom(headroom):
    """Four simulated A10, nearly full, the others come in bursts: the table of two and a half minutes."""
    urgent = [replace(a, priority=0) for a in open_loop(Poisson(0.1), Lognormal(400, p99=1500), Lognormal(250, p99=700), 15, 21, "urgent")]
    others = [replace(a, priority=1) for a in open_loop(Gamma(3.7, 3.0), Lognormal(400, p99=1500), Lognormal(250, p99=700), 555, 22, "normal")]
    engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=850, policy=StaticPriority(), ledger=Ledger()) for _ in range(4)]
    # Headroom: blocks of virtual usage for the urgent (level 0) on each instance that runs any.
    return VirtualDriver(engines, Freest(), headroom={0: headroom}, reporting=Reporting(0.05)).run(merge(urgent, others))


rows, level_of = [], {}
for headroom in (0, 400, 750):
    for tenant in ("urgent", "normal"):
        table = with_headroom(headroom).of_tenant(tenant)
        level_of[headroom, tenant] = seen = summary(table)
        rows.append((headroom, tenant, round(1000 * seen.tpot.mean, 1), round(1000 * seen.tpot.p99, 1), round(seen.ttft.mean, 2), round(seen.e2e.mean, 2), int(table["preemptions"].sum())))
before, after = level_of[0, "urgent"], level_of[750, "urgent"]
assert after.tpot.mean < 0.97 * before.tpot.mean and after.e2e.mean < before.e2e.mean and level_of[750, "normal"].e2e.mean > level_of[0, "normal"].e2e.mean
print(f"a headroom of 750 of 850 blocks: a token of the urgent takes {after.tpot.mean / before.tpot.mean - 1:+.0%} of time on average and {after.tpot.p99 / before.tpot.p99 - 1:+.0%} at the "
      f"99th percentile; the others' mean end to end {level_of[750, 'normal'].e2e.mean / level_of[0, 'normal'].e2e.mean - 1:+.0%}")
pd.DataFrame(rows, columns=["headroom, blocks", "level", "mean time per token, ms", "P99", "mean TTFT, s", "mean end to end, s", "preempted"]).set_index(["headroom, blocks", "level"])

# %% [markdown] key="seven-virtual-note" lang="en"
# A gain for the few, a small loss for the many. Sun et al. report 1.2 to 1.5 times faster decoding for the urgent, and more before their first token; but their Llumnix also *moves* others away
# from where the urgent are, while ours only places newcomers.

# %% [markdown] key="seven-order" lang="en"
# Other systems reach the effect of priorities by **ordering**: shortest predicted job first (SSJF, Qiu et al., 2024), learning to rank lengths (Fu et al., 2024), an explicit
# priority inside the scheduler for the requests of search agents (SearchAgent-X, Yang et al., 2025). Shortest first is no priority in our sense: it favours the short, not the important.
#
# <details><summary>Names that are easily confused</summary>
#
# The scheduler that *learns to rank* is by Fu et al. (NeurIPS 2024). Patke et al. (SoCC 2024) wrote QLM, which manages queues by their SLOs. Lists of references
# sometimes swap them.
# </details>

# %% [markdown] key="end" lang="en"
# ## 8 · What this cannot do
#
# - Paging makes the most of a memory; it makes no memory. A pool that admits without knowing lengths will preempt. Who **predicts** lengths can do better (week 9).
# - Our simulated GPU reads scattered blocks as fast as neighbouring ones. Real kernels pay something for the table, and much work has gone into making that little.
# - The cluster's fragmentation was only shown. Cures need **migration**: how (week 7), and a policy for it (week 8).
# - Priorities say *who first*, not *how long*: a promise in seconds needs deadlines (week 4), a door (week 5), and capacity (week 10).
# - Whoever sets the priorities can lie. Between tenants a priority is a price, or a quota, or a fairness rule (weeks 5 and 10).
# - Prefixes were shared by everybody with everybody. A hit is faster, and so tells that somebody has asked before: between tenants that is a leak (vLLM can salt its hashes).
#
# ### Discussion
#
# 1. You design the memory of a service and its priorities. What do you take from this week, in what order, and what would you measure first?
# 2. Which part of the waste comes back when the block size is 256? When would you want that?
# 3. Your prefix cache finds half of all tokens. A colleague proposes to reserve a third of the memory for it. Argue both sides.
# 4. A user learns that her requests age by one level every 4 s, and sends each of them ten seconds early as a placeholder. What breaks, and how would you mend it?
# 5. The cluster has 30 % free blocks and a long prompt has waited for a minute. List three different actions, and what each costs whom.
#
# **Until now** the course took the troubles of a service apart: loads that vary, lengths nobody knows, neighbours, memory, priorities. They hang together: lengths that vary make the holes, ageing is of little use without
# isolation, isolation costs memory. Static rules are not enough. **From next week on**: what one can do about them while the service runs, first of all moving requests.
#
# **Next:** lab 6, where you build the first-fit allocator, the block pool with sharing and copy on write, paged attention, the prefix index, and a priority that starves nobody.
