"""Week 5 lecture: interference among tenants, the fences against it, and what they cost. Built into `week05/lecture.ipynb`."""

# %% [markdown] key="goals" lang="en"
# # Week 5 · SLOs and isolation among tenants
#
# After this lecture you can
#
# 1. measure how much one tenant disturbs another, and say through which resource: arithmetic, bandwidth or memory;
# 2. bound the time between tokens with a token budget, choose the budget for a promise, and say what it costs;
# 3. tell four fences apart (door, step, memory, queue) and say against which trouble each of them helps, and against which not;
# 4. read a service curve, and say in what sense a virtual token counter is fair;
# 5. draw the frontier between isolation and utilisation, and explain how retries turn an overload into a breakdown.
#
# **Rooms of `llmcourse` that open today:** `policies/` (who goes next: `vtc.py`, `quota.py`, `admission.py`, `budget.py`), `workload/`
# (tenants and their SLOs), `metrics/` (`slo.py`, `fairness.py`), `engine/admission.py` (the door).
#
# | part | minutes |
# |:--|--:|
# | 1 · Promises to different people | 15 |
# | 2 · One long prompt, and everybody's tokens | 25 |
# | 3 · A step that no prompt can stretch | 25 |
# | 4 · The door, the memory, the queue | 35 |
# | 5 · What isolation costs | 15 |
# | 6 · When overload feeds itself | 15 |
# | 7 · What this cannot do | 10 |
# | **all** | **140** |
#
# Everything runs offline on two CPU cores in under a minute. Each part opens with a question: **answer it before you run
# the next cell.**

# %% key="setup"
import heapq
import time
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import pandas as pd

from llmcourse import viz
from llmcourse.engine import Engine, Policy, Request, SamplingParams
from llmcourse.engine.admission import Admission
from llmcourse.engine.replay import replay
from llmcourse.metrics.cost_model import RooflineCost, blocks_that_fit
from llmcourse.metrics.fairness import jain, max_service_gap, service, vtc_bound
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.summary import summary
from llmcourse.model.shapes import shape
from llmcourse.policies import FCFS, VTC, BacklogLimit, Shedding, SLOAdmission, TenantQuota, choose_budget
from llmcourse.policies.budget import step_seconds
from llmcourse.serve import TokenBucket
from llmcourse.viz.series import curve, guide, log_axis
from llmcourse.viz.theme import canvas, finish
from llmcourse.workload import SLO, Arrival, Constant, Lognormal, Poisson, merge, open_loop

pd.set_option("display.max_colwidth", None)
llama, a100 = shape("Llama 2 7B"), hardware("A100 80 GB")
cost = RooflineCost(a100, llama)
print(f"{llama.name} on one {a100.name}: a decode step of 16 requests takes {1000 * cost.seconds(16, 16, 16 * 300.0, 0):.1f} ms, "
      f"a prompt of 4,000 tokens {1000 * cost.seconds(4000, 1, 0.0, 4000 * 4001 / 2):.0f} ms")

# %% [markdown] key="one" lang="en"
# ## 1 · Promises to different people
#
# *Question: a chat and a job that summarises reports share one GPU. Whose latency do you promise, and to whom?*
#
# Week 3 defined an **SLO**: a bound on what a user feels, and the share of requests that must keep it. A service that is sold has
# several at once. Who pays for a faster tier was promised a faster tier; a batch job was promised that it will be done tonight. A
# **tenant** is whoever has a promise of its own: a customer, an application, a part of one.
#
# | tenant | sends | TTFT | TPOT |
# |:--|:--|--:|--:|
# | *chat* | short questions, about 2 a second | 1 s | 80 ms |
# | *reports* | some thousand tokens each, to be summarised | 15 s | 150 ms |
#
# Week 4 made one load heterogeneous. Here the **promises** differ too, and neither tenant knows of the other. Both run on the
# simulated A100 of week 3, first come, first served, prompts computed whole. *Predict: the chat sends the same requests
# all the time, while the rate of reports rises from none to two a second. At which rate does the chat notice?*

# %% key="one-load"
CHAT, REPORTS = SLO(ttft=1.0, tpot=0.08), SLO(ttft=15.0, tpot=0.15)
SECONDS = 40


def arrivals(reports_per_second):
    """Forty seconds of both tenants; the chat's requests are the same whatever the other does."""
    chat = open_loop(Poisson(2.0), Lognormal(200, p99=800), Lognormal(120, p99=400), 2 * SECONDS, 3, "chat", CHAT)
    number = round(reports_per_second * SECONDS)
    rate = Poisson(max(reports_per_second, 0.01))
    return merge(chat, open_loop(rate, Lognormal(5000, p99=9000), Lognormal(80, p99=300), number, 4, "reports", REPORTS))


def instance(policy=None, chunks=False, admission=None, **options):
    """A simulated A100 with Llama 2 7B: prompts whole and in steps of their own, or in chunks under a budget of 512 tokens."""
    filling = {"batching": "mixed", "token_budget": 512} if chunks else {"batching": "continuous", "token_budget": 16384}
    return Engine.simulated("Llama 2 7B", "A100 80 GB", policy=policy, admission=admission,
                            **({"max_running": 64} | filling | options))


@lru_cache
def plain(rate):
    """First come, first served, whole prompts."""
    return replay(instance(), arrivals(rate))


rates = (0, 0.5, 1.0, 1.5, 2.0)
rows = []
for rate in rates:
    chat, both = plain(rate).of_tenant("chat"), summary(plain(rate))
    seen = summary(chat)
    rows.append((rate, round(seen.ttft.p99, 2), round(1000 * seen.itl.p99), f"{attainment(chat).both:.0%}", round(both.prompt_rate + both.output_rate)))
columns = ["reports a second", "chat: P99 TTFT, s", "chat: P99 gap between tokens, ms", "chat: within its SLO", "tokens/s of the GPU"]
pd.DataFrame(rows, columns=columns).set_index(columns[0])

# %% key="one-check"
alone, crowded = plain(0).of_tenant("chat"), plain(2.0).of_tenant("chat")
assert list(alone["prompt_tokens"]) == list(crowded["prompt_tokens"]), "the chat sent exactly the same"
assert attainment(alone).both == 1 and attainment(crowded).both < 0.5
print(f"the chat did nothing else than before, and {1 - attainment(crowded).both:.0%} of its promises are broken")

# %% [markdown] key="one-names" lang="en"
# That is the **noisy neighbour**. Nobody broke a rule: reports are long, and they came first. The operator's average looks
# splendid, for the GPU has never computed so many tokens a second.
#
# **Performance isolation** would mean: what a tenant gets depends on what that tenant sends, not on the others. Three reasons to
# want it: without it no promise can be kept (or priced); it is fair; and it keeps one tenant's trouble from becoming everybody's
# (part 6). One reason it is hard: the GPU is shared *inside* a step.
#
# Move the two bounds of the chat's promise below. **Predict first:** can a laxer TTFT save the promise at 2 reports a second?

# %% key="one-widget"
def by_tenant(ttft, tpot, what):
    """Attainment of each tenant against the rate of reports, when the chat was promised these bounds (s, ms)."""
    bounds = {"chat": SLO(ttft, tpot / 1000), "reports": REPORTS}
    points = {name: [(rate, attainment(what_runs[what](rate).of_tenant(name), slo)) for rate in rates if rate or name == "chat"]
              for name, slo in bounds.items()}
    figure = viz.attainment_curve(points, title=f"Served within the SLO, by tenant: {what}")
    figure.update_xaxes(title_text="reports per second")
    return figure


@lru_cache
def fenced(rate):
    """Chunks of prompts and shares of the memory: where this lecture will lead."""
    return replay(instance(TenantQuota({"chat": 0.5, "reports": 0.5}), chunks=True), arrivals(rate))


what_runs = {"no isolation": plain, "with two fences (part 4)": fenced}
promises = viz.Explorer("SLO attainment by tenant", by_tenant, {
    "ttft": viz.Slider("chat: TTFT", [0.25, 0.5, 1.0, 2.0, 4.0, 8.0], 1.0, "s"),
    "tpot": viz.Slider("chat: TPOT", [20, 40, 60, 80, 120, 250], 80, "ms"),
    "what": viz.Choice("the engine has", list(what_runs), "no isolation")},
    presets={"strict": {"ttft": 0.5, "tpot": 40, "what": "no isolation"}, "lax": {"ttft": 8.0, "tpot": 250, "what": "no isolation"},
             "the first promise, fenced": {"ttft": 1.0, "tpot": 80, "what": "with two fences (part 4)"}},
    question="can the chat be saved by promising less?",
    answer="Only by promising so little that it is no chat any more. The same hardware keeps the first promise once the tenants are "
           "fenced off from each other.")
promises

# %% [markdown] key="two" lang="en"
# ## 2 · One long prompt, and everybody's tokens
#
# *Question: six users are reading along. A seventh sends a prompt of 800 tokens. What do the six see?*
#
# No simulation now: course-tiny, on this machine, timed in seconds of its processor. All six decode; then comes the prompt. Once it is computed whole, as soon as it is
# there; once in chunks of 64 tokens that ride along with the decodes. *Predict: how much longer is the longest pause than
# the usual one?*

# %% key="two-real"
class ProcessorClock:
    """Seconds that this thread has computed: what others use of the processor does not count."""

    @property
    def now(self):
        """Seconds of this thread on the processor."""
        return time.thread_time()

    def advance(self, seconds):
        """It has passed by itself."""


def six_readers(batching, token_budget, prompt):
    """Six requests of ana decode on the real model; after 12 steps bo sends a prompt. The engine afterwards."""
    engine = Engine.from_model("course-tiny", device="cpu", threads=1, num_blocks=160, batching=batching, token_budget=token_budget,
                               clock=ProcessorClock())
    for number in range(6):
        engine.add(Request([5 + number] * 12, SamplingParams(max_tokens=48, ignore_eos=True), tenant="ana"))
    while engine.counters.steps < 12:
        engine.step()
    if prompt:
        engine.add(Request([9] * prompt, SamplingParams(max_tokens=2, ignore_eos=True), id="bo", tenant="bo"))
    for _ in engine.stream():
        pass
    return engine


six_readers("mixed", 64, 0)                                            # warm up
undisturbed = six_readers("mixed", 64, 0)
whole, chunked = six_readers("continuous", 1024, 800), six_readers("mixed", 64, 800)
figure = viz.blocking_view({"whole prompt": whole.events, "chunks of 64": chunked.events}, watch="bo",
                           title="Real model: gaps between the tokens of six readers")
viz.show(figure, alt=viz.summary(figure))


def worst_gap(engine):
    """The longest pause of ana's readers after the twelfth step."""
    start = [event.time for event in engine.events if event.kind == "STEP"][11]
    times = {}
    for event in engine.events:
        if event.kind == "NEW_TOKENS" and event.request != "bo" and event.time >= start:
            times.setdefault(event.request, []).append(event.time)
    return max(b - a for each in times.values() for a, b in pairwise(each))


def same_tokens(one, other):
    """Whether ana's readers got the same tokens."""
    return all(one.requests[name].output == request.output for name, request in other.requests.items() if name != "bo")


assert same_tokens(whole, undisturbed) and same_tokens(chunked, undisturbed), "the neighbour changes when tokens come, never which"
sizes = [sum(count for _, _, count in event.data["batch"]) for event in whole.events if event.kind == "STEP"]
chunk_sizes = [sum(count for _, _, count in event.data["batch"]) for event in chunked.events if event.kind == "STEP"]
assert max(sizes) == 800 and max(chunk_sizes) <= 64
print(f"longest pause: {1000 * worst_gap(undisturbed):.0f} ms undisturbed, {1000 * worst_gap(whole):.0f} ms beside the whole prompt, "
      f"{1000 * worst_gap(chunked):.0f} ms beside chunks")

# %% [markdown] key="two-index" lang="en"
# The tokens are the same to the last one; only their **times** have changed. How much, in one number? The **interference index**:
# the P99 of a tenant's gaps beside the neighbour, as a multiple of the P99 alone. (Lab 5, exercise 1. Not the mean: one
# pause of half a second hides well among fifty gaps of ten milliseconds.)

# %% key="two-index-table"
def p99_gap(engine):
    """P99 of all gaps between ana's tokens, in seconds."""
    return percentile([gap for record in engine.records() if record.tenant == "ana" for gap in record.itl], 99)


ttft = {name: next(r.ttft for r in engine.records() if r.id == "bo") for name, engine in {"whole": whole, "chunks": chunked}.items()}
rows = [("alone", 1000 * p99_gap(undisturbed), 1.0, float("nan"))]
rows += [(name, 1000 * p99_gap(engine), p99_gap(engine) / p99_gap(undisturbed), ttft[short])
         for name, short, engine in (("beside a whole prompt", "whole", whole), ("beside chunks of 64", "chunks", chunked))]
pd.DataFrame(rows, columns=["ana's six readers", "P99 gap, ms", "interference index", "bo's TTFT, s"]).round(2).set_index("ana's six readers")

# %% key="two-index-check"
assert p99_gap(whole) > 2 * p99_gap(undisturbed), "one long prompt is felt by everybody"
print(f"index {p99_gap(whole) / p99_gap(undisturbed):.1f} beside the whole prompt, {p99_gap(chunked) / p99_gap(undisturbed):.1f} beside chunks")

# %% [markdown] key="two-resources" lang="en"
# ### Three things are shared
#
# A step lasts as long as everything in it (week 2). A neighbour can stretch yours, or push you out of it, through three resources:
#
# - **arithmetic**: its prompts are multiplications, and the step ends when all of them are done;
# - **bandwidth**: its long contexts are read from memory in every step, whether or not you need them;
# - **memory**: its cache takes blocks, and when there are none left somebody is preempted. Perhaps you.
#
# *Predict: 16 chats decode. Which neighbour lengthens their step most: a prompt of 2,000 tokens, or 16 neighbours who decode
# quietly, each with a context of 8,000 tokens?*

# %% key="two-three"
quiet_step = cost.seconds(16, 16, 16 * 300.0, 0.0)
with_prompt = cost.seconds(16 + 2000, 17, 16 * 300.0, 2000 * 2001 / 2)
with_readers = cost.seconds(32, 32, 16 * 300.0 + 16 * 8000.0, 0.0)


def pushed_out(reports):
    """Chats preempted, of 24 on a small pool, beside so many reports of 3,000 tokens; and tokens computed twice."""
    engine = instance(FCFS(), chunks=True, num_blocks=600)
    load = [Arrival(0.0, 3000, 400, "reports")] * reports
    load += [Arrival(0.5 + 0.01 * k, 60, 200, "chat") for k in range(24)]
    table = replay(engine, load).of_tenant("chat")
    return int(table["preemptions"].sum()), engine.counters.recomputed_tokens


rows = [("arithmetic", "a prompt of 2,000 tokens in the step", f"{1000 * quiet_step:.1f} → {1000 * with_prompt:.1f} ms a step", "once"),
        ("bandwidth", "16 neighbours decode, contexts of 8,000", f"{1000 * quiet_step:.1f} → {1000 * with_readers:.1f} ms a step", "every step"),
        ("memory", "two reports of 3,000 tokens hold their cache", f"chats thrown out: {pushed_out(0)[0]} → {pushed_out(2)[0]}",
         f"{pushed_out(2)[1]:,} tokens computed twice")]
pd.DataFrame(rows, columns=["resource", "the neighbour", "what 16 to 24 chats see", "how often"]).set_index("resource")

# %% key="two-three-check"
assert with_prompt > 10 * quiet_step > 0 and with_readers > 2 * quiet_step
assert pushed_out(0)[0] == 0 < pushed_out(2)[0]
print(f"the prompt: {with_prompt / quiet_step:.0f} times the step, once. The readers: {with_readers / quiet_step:.1f} times, for as long as they read.")

# %% [markdown] key="two-hard" lang="en"
# Operating systems fence off processes: a core for you, a core for me, pages that are mine. On a GPU this is hard:
#
# - a **step** is one piece of work for the whole machine; nobody can be paused inside it;
# - **batching** is what makes serving cheap (week 2), and a batch is exactly what puts tenants into one step;
# - the **KV cache** grows while it is used, and nobody knows how far;
# - strict fences (a GPU each, turns of a second each) leave machines idle.
#
# So the fences must stand in the **scheduler**. The rest of the lecture builds four of them: one around the step, one at the door,
# one through the memory, one in the queue.

# %% [markdown] key="three" lang="en"
# ## 3 · A step that no prompt can stretch
#
# *Question: a prompt of 8,000 tokens must be computed. Somebody must wait. How do you see to it that nobody waits long?*
#
# **Chunked prefill** (Sarathi-Serve, Agrawal et al., 2024): a step computes at most so many tokens, its **token budget**. Every
# decode gets its token first; what is left of the budget goes to prompts, in pieces. The length of a step, and with it the time
# between two tokens of *anybody*, is bounded, however long the prompts are.

# %% key="three-mixer"
demo = instance(chunks=True)
replay(demo, [Arrival(0.0, 200, 60)] * 12 + [Arrival(0.3, 3000, 20), Arrival(0.35, 2000, 20)])
figure = viz.chunk_mixer(demo.events, budget=512, title="A budget of 512 tokens: decodes first, prompts take the rest")
viz.show(figure, alt=viz.summary(figure))

# %% [markdown] key="three-load" lang="en"
# Now a real load: Poisson arrivals, prompts with a median of 1,500 tokens. *Predict the P99 of the time between tokens at 2
# requests a second, for whole prompts and for a budget of 512. And at half a request a second?*

# %% key="three-curves"
@lru_cache
def at(rate, budget, count=160):
    """Summary of a run at so many requests a second; budget None computes prompts whole, in steps of their own."""
    load = open_loop(Poisson(rate), Lognormal(1500, p99=8000), Lognormal(150, p99=600), count, seed=1)
    filling = {"batching": "mixed", "token_budget": budget} if budget else {"batching": "continuous", "token_budget": 8192}
    return summary(replay(Engine.simulated("Llama 2 7B", "A100 80 GB", ledger=Ledger(), **filling), load))


loads, budgets = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (None, 2048, 512, 256)
name = {budget: f"budget {budget:,}" if budget else "whole prompts" for budget in (*budgets, 1024, 128)}
figure = canvas("Time between tokens against load (Llama 2 7B, A100, simulated)", 430)
for index, budget in enumerate(budgets):
    figure.add_trace(curve(name[budget], loads, [1000 * at(rate, budget).itl.p99 for rate in loads], index))
log_axis(figure, "y", [1000 * at(rate, budget).itl.p99 for rate in loads for budget in budgets], "P99 time between tokens, ms")
figure.update_xaxes(title_text="requests per second")
gain = at(2.0, None).itl.p99 / at(2.0, 512).itl.p99
finding = (f"At 2 requests/s the P99 time between tokens is {1000 * at(2.0, None).itl.p99:.0f} ms with whole prompts and "
           f"{1000 * at(2.0, 512).itl.p99:.0f} ms under a budget of 512 tokens, {gain:.1f} times lower; at 3 requests/s "
           f"{at(3.0, None).itl.p99 / at(3.0, 512).itl.p99:.1f} times.")
viz.show(finish(figure, finding, ("requests/s", *(name[b] for b in budgets)),
                [(rate, *(f"{1000 * at(rate, b).itl.p99:.1f} ms" for b in budgets)) for rate in loads]), alt=finding)
print(finding)
assert gain >= 3 and at(3.0, None).itl.p99 >= 3 * at(3.0, 512).itl.p99

# %% [markdown] key="three-low" lang="en"
# At the lowest load the curves cross, and the budget of 512 looks **worse**. Is it? Look at the longest pause too. A percentile
# forgives what is rare: when fewer than one gap in a hundred is a stall, the P99 does not see it. The user does.

# %% key="three-low-table"
pd.DataFrame([(name[b], 1000 * at(0.5, b).itl.p50, 1000 * at(0.5, b).itl.p99, 1000 * at(0.5, b).itl.maximum) for b in budgets],
             columns=["at 0.5 requests/s", "P50, ms", "P99, ms", "longest, ms"]).round(1).set_index("at 0.5 requests/s")

# %% [markdown] key="three-price" lang="en"
# ### The price
#
# A chunk reads all weights again, and all of the prompt's earlier cache. And a prompt that goes in by pieces comes out later.
# *Predict: how much TTFT does a budget of 512 cost? And does it cost the whole request, from end to end?*

# %% key="three-sweep"
sizes = (None, 2048, 1024, 512, 256, 128)
rows = [(name[b], f"{1000 * at(2.0, b).itl.p99:.0f}", f"{1000 * at(2.0, b).itl.maximum:.0f}", f"{1000 * at(2.0, b).ttft.p50:.0f}",
         f"{at(2.0, b).ttft.p99:.2f}", f"{at(2.0, b).e2e.mean:.2f}") for b in sizes]
figure = canvas("What a budget buys and what it costs, at 2 requests a second", 430)
figure.add_trace(curve("P99 time between tokens", [str(b or "whole") for b in sizes], [1000 * at(2.0, b).itl.p99 for b in sizes], 0))
figure.add_trace(curve("median TTFT", [str(b or "whole") for b in sizes], [1000 * at(2.0, b).ttft.p50 for b in sizes], 1))
log_axis(figure, "y", [1000 * value for b in sizes for value in (at(2.0, b).itl.p99, at(2.0, b).ttft.p50)], "ms")
figure.update_xaxes(title_text="token budget", type="category")
dearer = at(2.0, 512).ttft.p50 / at(2.0, None).ttft.p50 - 1
finding = (f"From whole prompts to a budget of 512 the P99 time between tokens falls {gain:.1f} times and the median TTFT rises by "
           f"{dearer:.0%}; at 128 tokens TTFT is {at(2.0, 128).ttft.p50 / at(2.0, None).ttft.p50:.1f} times what it was.")
viz.show(finish(figure, finding, ["budget", "P99 gap, ms", "longest gap, ms", "median TTFT, ms", "P99 TTFT, s", "mean end to end, s"], rows), alt=finding)
print(finding)
print(f"mean end to end: {at(2.0, None).e2e.mean:.2f} s with whole prompts, {at(2.0, 512).e2e.mean:.2f} s with a budget of 512")
assert 0 < dearer < 1.0

# %% [markdown] key="three-note" lang="en"
# <details><summary>Three misconceptions about chunked prefill</summary>
#
# - *"It separates prefill from decode."* The opposite: it puts both into **one** step. Separating them, on different GPUs, is
#   disaggregation (DistServe, week 13).
# - *"The budget is for prompts."* Decodes count too. Else a step with many decodes is longer than promised.
# - *"It removes interference."* It **bounds** it. Beside a neighbour's prompt your step still lasts as long as a full budget does.
# </details>
#
# ### Choosing the budget
#
# So turn it round. Somebody was promised a time per output token: what is the **largest** budget whose full step keeps it?
# The cost model says how long a step lasts. *Predict: does doubling the promise double the budget?*

# %% key="three-choose"
tpots = (0.03, 0.05, 0.08, 0.15, 0.25)
chosen = {tpot: choose_budget(cost, tpot, running=32, context=800, prompt=1500, tile=32) for tpot in tpots}
figure = canvas("How long a full step lasts: 32 decodes and a chunk", 400)
steps = [64 * k for k in range(1, 45)]
figure.add_trace(curve("full step", steps, [1000 * step_seconds(cost, b, 32, 800, 1500) for b in steps], 0, markers=False))
for tpot in tpots[1:4]:
    guide(figure, "y", 1000 * tpot, f"TPOT {1000 * tpot:.0f} ms: budget {chosen[tpot]:,}")
figure.update_xaxes(title_text="token budget")
figure.update_yaxes(title_text="ms", rangemode="tozero")
finding = "; ".join(f"a TPOT of {1000 * tpot:.0f} ms allows a budget of {budget:,} tokens" for tpot, budget in chosen.items())
viz.show(finish(figure, finding, ("TPOT, ms", "budget, tokens", "full step, ms"), [(1000 * tpot, budget, round(1000 * step_seconds(
    cost, budget, 32, 800, 1500), 1)) for tpot, budget in chosen.items()]), alt=finding)

kept = at(2.0, chosen[0.05])
print(f"promised 50 ms, chosen {chosen[0.05]} tokens; in the run at 2 requests/s: P99 time between tokens {1000 * kept.itl.p99:.1f} ms, "
      f"P99 TPOT {1000 * kept.tpot.p99:.1f} ms")
assert kept.itl.p99 <= 0.05 and kept.tpot.p99 <= 0.05
assert list(chosen.values()) == sorted(chosen.values())
assert cost.seconds(1, 1, 0.0, 0.0) == cost.seconds(100, 1, 0.0, 0.0) < cost.seconds(128, 1, 0.0, 0.0)

# %% [markdown] key="three-end" lang="en"
# Below about a hundred tokens a step costs the same however few are in it, because the weights must be read anyway (week 2): a
# budget there buys nothing more. That flat piece is also why the first few tokens of a chunk ride along for nothing.

# %% [markdown] key="four" lang="en"
# ## 4 · The door, the memory, the queue
#
# *Question: chunks bound the time between tokens. Two reports a second still come in. What about the first token?*
#
# ### The door
#
# When more comes than can be served, no order of service helps: every queue grows, and soon **everybody** is late. Then the
# only question is who is told so, and when. **Admission control** answers at the door. *Predict: one tenant, twice as many prompts
# as can be read, 2 s promised. What share is served in time with an open door? With at most 16 requests? With at most 8,000
# tokens? With a door that computes each request's TTFT?*

# %% key="four-door"
class RequestLimit(Admission):
    """At most so many requests in the house."""

    def __init__(self, requests):
        self.requests = requests

    def refuse(self, request, scheduler, now):
        """Counts heads, whatever they carry."""
        inside = len(scheduler.running) + len(scheduler.waiting)
        return None if inside < self.requests else f"{inside} requests are here already"


def overload(admission):
    """200 prompts of 1,500 to 6,000 tokens at 20 a second."""
    load = [Arrival(0.05 * k, 6000 if k % 4 == 0 else 1500, 4, "ana", slo=SLO(ttft=2.0)) for k in range(200)]
    return replay(Engine.simulated("Llama 2 7B", "A100 80 GB", ledger=Ledger(), admission=admission), load)


doors = {"open": None, "16 requests": RequestLimit(16), "4 requests": RequestLimit(4), "backlog of 8,000 tokens": BacklogLimit(8000),
         "backlog of 24,000 tokens": BacklogLimit(24000), "by predicted TTFT": SLOAdmission(cost)}
door_runs = {label: overload(admission) for label, admission in doors.items()}
rows = []
for label, table in door_runs.items():
    served = int(table.finished.sum())
    good = round(attainment(table).both * len(table))
    rows.append((label, served, good, served - good, f"{good / max(1, served):.0%}"))
columns = ["door", "let in", "in time", "late", "of those let in, in time"]
pd.DataFrame(rows, columns=columns).set_index("door")

# %% key="four-door-check"
good = {label: attainment(table).both for label, table in door_runs.items()}
assert good["by predicted TTFT"] > 3 * good["open"] and good["by predicted TTFT"] >= max(good["16 requests"], good["4 requests"])
print(f"served in time: {good['open']:.0%} with an open door, {good['by predicted TTFT']:.0%} with a door that computes")

# %% [markdown] key="four-door-note" lang="en"
# A refusal is an answer too, at once, and the client can go elsewhere. What must be counted is **tokens**: a limit on requests that
# is right for long prompts is wrong for short ones. And a limit in tokens is right for one promise: 8,000 happens to fit 2 s, 24,000
# does not, and somebody had to find that out. The door that computes needs no tuning, as long as its cost model is right.
#
# ### A door for each tenant
#
# Back to chat and reports, at two reports a second. *Predict: put the clever door in front of both. Whom does it send away?*

# %% key="four-whom"
class TokenRate(Admission):
    """So many prompt tokens a second for each tenant in `rates`: week 2's token bucket, fed with tokens."""

    def __init__(self, rates, seconds=4.0):
        self.buckets = {tenant: TokenBucket(rate, rate * seconds) for tenant, rate in rates.items()}

    def refuse(self, request, scheduler, now):
        """Takes the whole prompt out of the tenant's bucket, or sends it away."""
        bucket = self.buckets.get(request.tenant)
        return None if bucket is None or bucket.allow(now, len(request.prompt)) else "over the tenant's token rate"


def tenants_table(runs):
    """What each tenant got in each run."""
    rows = []
    for label, table in runs.items():
        for tenant in table.tenants:
            mine = table.of_tenant(tenant)
            seen = summary(mine)
            rows.append((label, tenant, f"{attainment(mine).both:.0%}", seen.shed, round(seen.ttft.p99, 2), round(1000 * seen.itl.p99)))
    columns = ["", "tenant", "within its SLO", "sent away", "P99 TTFT, s", "P99 gap, ms"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[:2])


by_door = {"open": replay(instance(chunks=True), arrivals(2.0)),
           "by predicted TTFT": replay(instance(chunks=True, admission=SLOAdmission(cost)), arrivals(2.0)),
           "reports: 5,000 tokens/s": replay(instance(chunks=True, admission=TokenRate({"reports": 5000})), arrivals(2.0))}
tenants_table(by_door)

# %% key="four-whom-check"
shed = {label: int((table.of_tenant("chat")["finish_reason"] == "shed").sum()) for label, table in by_door.items()}
assert shed["by predicted TTFT"] > 10 and shed["reports: 5,000 tokens/s"] == 0
print(f"the clever door sends {shed['by predicted TTFT']} of {2 * SECONDS} chats away, and not one of them was the cause")

# %% [markdown] key="four-whom-note" lang="en"
# The clever door knows every promise and isolates **nobody**. Reports were promised 15 s, so they fill the queue up to 15 s. After that
# every chat, promised 1 s, is predicted to be late: refused, quite rightly. Those with the laxest promise drive out those with
# the strictest. A door isolates only if it knows **whose** tokens they are.
#
# But a fixed rate is a blunt fence: it also refuses reports at night, when the chat sleeps. Better fences lend what is idle.
#
# ### The memory
#
# A **quota** is a share of the KV blocks that a tenant is *entitled* to. Enforced as a limit, it leaves memory empty. Instead it may
# be **lent**: who finds idle memory uses it, and gives it back, by preemption, as soon as its owner wants it. Such a rule is
# **work-conserving**: nothing idles while somebody could use it. *Predict: reports alone, then both. How much memory do
# reports hold in each case?*

# %% key="four-memory"
def held_over_time(engine, step=0.5):
    """Blocks that each tenant holds, every half second, from the event log."""
    owner, blocks, seen, next_time = {}, {}, [], 0.0
    for event in engine.events:
        if event.kind == "QUEUED":
            owner[event.request] = event.data["tenant"]
        elif event.kind == "STEP":
            for request, new in event.data["blocks"]:
                blocks[request] = blocks.get(request, 0) + len(new)
            while event.time >= next_time:
                seen.append((next_time, *(sum(n for r, n in blocks.items() if owner[r] == name) for name in ("chat", "reports"))))
                next_time += step
        elif event.kind in ("PREEMPTED", "FINISHED", "ABORTED"):
            blocks.pop(event.request, None)
    return seen


late_chat = [replace(a, time=a.time + 15) for a in arrivals(0) if a.time < 20]
flood = [Arrival(0.4 * k, 5000, 100, "reports", slo=REPORTS) for k in range(60)]
quota_engine = instance(TenantQuota({"chat": 0.5, "reports": 0.5}), chunks=True, num_blocks=1200)
quota_table = replay(quota_engine, merge(flood, late_chat))
fcfs_table = replay(instance(chunks=True, num_blocks=1200), merge(flood, late_chat))
seen = [row for row in held_over_time(quota_engine) if row[0] <= 40]
figure = canvas("Memory by tenant under a quota of one half each: 1,200 blocks", 400)
for index, tenant in enumerate(("reports", "chat")):
    figure.add_trace(curve(tenant, [row[0] for row in seen], [row[2 - index] for row in seen], index, markers=False))
guide(figure, "y", 600, "share of each")
guide(figure, "x", 15.0, "chat arrives")
figure.update_xaxes(title_text="time (s)", range=[0, 40])
figure.update_yaxes(title_text="blocks", range=[0, 1250])
most = max(row[2] for row in seen if row[0] < 15)
calm, late = (float(percentile(t.of_tenant("chat")["ttft"], 99)) for t in (quota_table, fcfs_table))
finding = (f"Alone, reports hold up to {most:,} of 1,200 blocks, twice their share. When the chat comes, its requests start at once: "
           f"P99 TTFT {calm:.2f} s, {late:.1f} s without a quota.")
viz.show(finish(figure, finding, ("time (s)", "chat, blocks", "reports, blocks"), seen[::4]), alt=finding)
print(finding)
print(f"the price: {quota_engine.counters.preemptions} reports thrown out, {quota_engine.counters.recomputed_tokens:,} tokens computed twice")
assert most > 700 and calm < late / 3

# %% [markdown] key="four-fair" lang="en"
# ### The queue
#
# Two clients, both want far more than they can get; one sends 90 requests a minute, the other 180. First come, first served is fair
# to *requests*: who sends twice as many gets twice as much. So it pays to shout.
#
# Fair to **tenants** is: whoever has been served least goes next. The **virtual token counter** (VTC, Sheng et al., 2024) counts, for
# each tenant, what it was given: 1 for a token of a prompt, 2 for a new one. The next request is taken from the tenant with the
# smallest counter. *Predict the ratio of service under both rules. And what does fairness cost in tokens per second?*

# %% key="four-vtc"
def two_clients(policy, away=(0.0, 0.0), until=60.0):
    """Llama 2 7B on an A10: 90 and 180 requests a minute of 256 + 256 tokens. While `away` (s) the small client sends nothing."""
    engine = Engine.simulated("Llama 2 7B", "A10", num_blocks=640, max_running=64, policy=policy)
    small = [Arrival(k / 1.5, 256, 256, "small") for k in range(int(until * 1.5)) if not away[0] <= k / 1.5 < away[1]]
    large = [Arrival(k / 3.0, 256, 256, "large") for k in range(int(until * 3))]
    replay(engine, merge(small, large), stop=lambda: engine.clock.now > until)
    return engine


fair = {"FCFS": two_clients(FCFS(), until=100.0), "VTC": two_clients(VTC(), until=100.0)}
bound = vtc_bound(256, 640 * 16)
figure = viz.service_curves({label: engine.events for label, engine in fair.items()}, bound=bound, until=100.0)
viz.show(figure, alt=viz.summary(figure))


def served(engine, start=20.0, end=100.0):
    """Service of each client between two moments (s)."""
    return {tenant: line.between(start, end) for tenant, line in service(engine.events).items()}


shares = {label: served(engine) for label, engine in fair.items()}
ratios = {label: each["large"] / each["small"] for label, each in shares.items()}
gap, drift = (max_service_gap(fair[label].events).units for label in ("VTC", "FCFS"))
total = {label: sum(each.values()) for label, each in shares.items()}
print(f"service, large : small    FCFS {ratios['FCFS']:.2f}    VTC {ratios['VTC']:.3f}    (Jain's index "
      f"{jain(list(shares['FCFS'].values())):.3f} and {jain(list(shares['VTC'].values())):.3f})")
print(f"largest gap while both wait: {gap:,.0f} under VTC, where the theorem allows {bound:,.0f}; {drift:,.0f} under FCFS, and growing")
print(f"total service under VTC: {total['VTC'] / total['FCFS']:.1%} of FCFS")
assert abs(ratios["VTC"] - 1) <= 0.05 and 1.8 < ratios["FCFS"] < 2.2
assert gap <= bound < drift and 0.95 < total["VTC"] / total["FCFS"] < 1.05

# %% [markdown] key="four-real" lang="en"
# The policy does not know in which world it runs. The same object, before the real model: course-tiny with three seats, eight requests
# of the small client and sixteen of the large one, all here at once, in turn one small and two large.

# %% key="four-real-run"
def on_course_tiny(policy):
    """Service of both clients at the moment when the small one has nobody waiting any more, on the real model."""
    engine = Engine.from_model("course-tiny", device="cpu", threads=1, num_blocks=64, max_running=3, policy=policy)
    for number in range(24):
        tenant = ("small", "large", "large")[number % 3]
        engine.add(Request([7 + number] * 20, SamplingParams(max_tokens=12, ignore_eos=True), tenant=tenant))
    while any(request.tenant == "small" for request in engine.scheduler.waiting):
        engine.step()
    return {tenant: line.total for tenant, line in service(engine.events).items()}


tiny = {label: on_course_tiny(policy) for label, policy in (("FCFS", FCFS()), ("VTC", VTC()))}
print(*(f"{label:5} small {each['small']:4.0f}   large {each['large']:4.0f}" for label, each in tiny.items()), sep="\n")
assert tiny["FCFS"]["large"] > 1.5 * tiny["FCFS"]["small"] and 0.7 < tiny["VTC"]["large"] / tiny["VTC"]["small"] < 1.4

# %% [markdown] key="four-lift" lang="en"
# Fairness decides **who** waits; it costs almost no tokens. The bound (twice the larger of the longest prompt and the tokens the
# memory holds, weighted) does not grow with time.
#
# One line of the algorithm carries it. A tenant that was away comes back with a low counter. *Predict: if nothing is done about
# it, what happens to the other?*

# %% key="four-lift-run"
class LeastServed(Policy):
    """The tenant with the least service goes next: VTC without the lift, and a policy in ten lines."""

    static = False                                                     # keys change: ask anew at every decision

    def __init__(self):
        self.given = Counter()

    def key(self, request, now):
        """Service so far; smaller goes first."""
        return self.given[request.tenant]

    def on_scheduled(self, request, now):
        """Its prompt is served."""
        self.given[request.tenant] += len(request.prompt)

    def on_tokens(self, request, count, delivered, now):
        """So are its new tokens."""
        self.given[request.tenant] += 2 * delivered


back = {"with the lift": two_clients(VTC(), away=(10.0, 40.0)), "without": two_clients(LeastServed(), away=(10.0, 40.0))}
after = {label: served(engine, 50.0, 60.0) for label, engine in back.items()}
share = {label: each["small"] / sum(each.values()) for label, each in after.items()}
print(*(f"{label:14} the small client gets {part:.0%} of the service after its pause" for label, part in share.items()), sep="\n")
assert 0.35 < share["with the lift"] < 0.65 < share["without"]

# %% [markdown] key="four-fair-note" lang="en"
# With the **lift** a tenant that returns starts at the level of those who wait: time not used is not saved up. Without it, it
# takes the machine for itself until it has caught up, and a pause becomes a weapon.
#
# <details><summary>Misconception: "fair means equal latency" (or: equal requests, equal tokens)</summary>
#
# VTC promises equal **service while both are backlogged**. Who asks for little gets all of it, and quickly. Who asks for too
# much waits long, at a fair rate. It is not preemptive, it does not know promises, and it does not know that a shared
# prefix is cheap (week 10).
# </details>
#
# ### All switches on one panel
#
# The chat beside the reports again. Each switch is one fence: chunks (the step), the order (the queue or the memory), the door.
# **Predict before each click:** at 2 reports a second, which *single* switch saves the chat? Which pair?

# %% key="four-panel"
ORDERS = {"first come": FCFS, "token counter": VTC, "memory quota": lambda: TenantQuota({"chat": 0.5, "reports": 0.5})}
DOORS = {"open": lambda: None, "predicted TTFT": lambda: SLOAdmission(cost), "reports 5,000 tokens/s": lambda: TokenRate({"reports": 5000})}


@lru_cache
def shared(rate, chunks, order, door):
    """The table of one setting of the switches."""
    return replay(instance(ORDERS[order](), chunks=chunks, admission=DOORS[door]()), arrivals(rate))


def panel(reports, chunks, order, door):
    """What both tenants get: chat alone, shared without fences, shared with these switches."""
    runs = {"chat alone": plain(0), "no fences": plain(reports), "your switches": shared(reports, chunks, order, door)}
    return viz.noisy_neighbour(runs, quiet="chat", title=f"Chat beside {reports:g} reports a second")


neighbour = viz.Explorer("Noisy neighbour", panel, {
    "reports": viz.Slider("reports", [0.5, 1.0, 1.5, 2.0], 2.0, "a second"),
    "chunks": viz.Switch("prompts in chunks of 512"), "order": viz.Choice("order", list(ORDERS), "first come"),
    "door": viz.Choice("door", list(DOORS), "open")},
    presets={"break it": {"reports": 2.0, "chunks": False, "order": "first come", "door": "open"},
             "only chunks": {"reports": 2.0, "chunks": True, "order": "first come", "door": "open"},
             "only the counter": {"reports": 2.0, "chunks": False, "order": "token counter", "door": "open"},
             "mend it": {"reports": 2.0, "chunks": True, "order": "memory quota", "door": "open"}},
    question="which single switch saves the chat, and which pair?",
    answer="None alone. Chunks bound the gaps but not the queue; the counter and the quota mend the queue but not the gaps. "
           "Chunks and a fair order together keep both promises.")
neighbour

# %% key="four-panel-table"
settings = {"no fences": (False, "first come"), "chunks": (True, "first come"), "counter": (False, "token counter"),
            "quota": (False, "memory quota"), "chunks + counter": (True, "token counter"), "chunks + quota": (True, "memory quota")}
settled = {label: shared(2.0, chunks, order, "open") for label, (chunks, order) in settings.items()}
kept = {label: attainment(table.of_tenant("chat")).both for label, table in settled.items()}
assert max(kept[label] for label in ("no fences", "chunks", "counter", "quota")) < min(kept["chunks + counter"], kept["chunks + quota"])
tenants_table(settled)

# %% [markdown] key="four-matrix" lang="en"
# | trouble | whole step | queue | memory | too much in all |
# |:--|:-:|:-:|:-:|:-:|
# | **chunked prefill** | bounds it | | | |
# | **fair order** (VTC) | | shares it out | | |
# | **memory quota** | | helps | shares it out | |
# | **door** | | shortens it | | the only cure |

# %% [markdown] key="five" lang="en"
# ## 5 · What isolation costs
#
# *Question: the surest fence is a wall. Give each tenant half a GPU of its own. What is wrong with that?*
#
# GPUs can be cut (NVIDIA calls it MIG): a part of the arithmetic, of the bandwidth, of the memory each. We compare cuts of several
# sizes, rate limits of several heights, and the fences that lend. Across: how much the machine serves in the 40 s in which
# requests come. Up: how many of the chat's promises are kept. *Predict: where do the walls lie, where the fences?*

# %% key="five-runs"
OVERLOAD = 2.0


def served_by(table, end=float(SECONDS)):
    """Tokens a second of the requests that had finished by `end` seconds."""
    done = table.finished & (table["arrival"] + table["e2e"] <= end)
    return float((table["prompt_tokens"] + table["output_tokens"])[done].sum()) / end


def wall(part):
    """Two machines: `part` of the GPU for the chat, the rest for reports, each with a copy of the weights."""
    tables = {}
    for tenant, size in {"chat": part, "reports": 1 - part}.items():
        slice_ = replace(a100, flops=a100.flops * size, bandwidth=a100.bandwidth * size, memory=a100.memory * size)
        engine = Engine.simulated("Llama 2 7B", "A100 80 GB", cost=RooflineCost(slice_, llama), batching="mixed", token_budget=512,
                                  num_blocks=blocks_that_fit(slice_, llama), max_running=64)
        tables[tenant] = replay(engine, [a for a in arrivals(OVERLOAD) if a.tenant == tenant])
    return tables["chat"], served_by(tables["chat"]) + served_by(tables["reports"])


def fence(rate=None, order="first come", chunks=True):
    """One machine, with chunks; perhaps a token rate for reports, perhaps another order."""
    table = shared(OVERLOAD, chunks, order, "open") if rate is None else replay(
        instance(chunks=chunks, admission=TokenRate({"reports": rate})), arrivals(OVERLOAD))
    return table.of_tenant("chat"), served_by(table)


parts, limits = (0.25, 0.375, 0.5), (2000, 4000, 7000, 10000)
frontier = {"walls (chat's part)": {f"{part:.3g}": wall(part) for part in parts},
            "rate limit on reports": {f"{rate:,}/s": fence(rate) for rate in limits},
            "shared": {"no fences": fence(chunks=False), "chunks": fence(), "chunks + counter": fence(order="token counter"),
                       "chunks + quota": fence(order="memory quota")}}
WALLS = "walls (chat's part)"
best = max(rate for each in frontier.values() for _, rate in each.values())

# %% key="five-widget"
def frontier_view(ttft, show):
    """Attainment of the chat for this bound (s) on its TTFT, against tokens a second; one family's points are named."""
    slo = SLO(ttft, CHAT.tpot)
    figure = canvas("Isolation against utilisation: each point is a way to share the GPU", 480)
    rows = []
    for index, (family, points) in enumerate(frontier.items()):
        x, y = [rate for _, rate in points.values()], [100 * attainment(chat, slo).both for chat, _ in points.values()]
        mode = "markers" if family == "shared" else "lines+markers"
        figure.add_trace(curve(family, x, y, index, mode=mode))
        rows += [(family, label, round(a), f"{b:.0f} %") for label, a, b in zip(points, x, y, strict=True)]
        for number, (label, a, b) in enumerate(zip(points, x, y, strict=True)):
            if family == show:
                side = {"xanchor": "right", "xshift": -12, "yshift": (0, 0, -12, 12)[number]} if family == "shared" else {"yshift": (18, -18)[number % 2]}
                figure.add_annotation(x=a, y=b, text=label, showarrow=False, font={"size": 14}, **side)
    figure.update_xaxes(title_text="tokens a second served while requests come", range=[0, 1.12 * best])
    figure.update_yaxes(title_text="chat within its SLO, %", range=[-4, 114])
    chat, rate = frontier["shared"]["chunks + quota"]
    finding = (f"With chunks and a quota the shared GPU keeps {attainment(chat, slo).both:.0%} of the chat's promises at {rate:,.0f} tokens/s; "
               f"half a GPU each keeps {attainment(frontier[WALLS]['0.5'][0], slo).both:.0%} at "
               f"{frontier[WALLS]['0.5'][1]:,.0f} tokens/s.")
    return finish(figure, finding, ("family", "setting", "tokens/s", "chat within its SLO"), rows)


price = viz.Explorer("The price of isolation", frontier_view, {
    "ttft": viz.Slider("chat: TTFT", [0.25, 0.5, 1.0, 2.0, 4.0], 1.0, "s"), "show": viz.Choice("name the points of", list(frontier), "shared")},
    presets={"walls": {"show": WALLS}, "limits": {"show": "rate limit on reports"}, "a strict chat": {"ttft": 0.25, "show": "shared"}},
    question="which points does nobody choose, whatever they want?",
    answer="All that lie below and to the left of another. Walls pay for isolation with machines that idle; fences that lend are nearer to "
           "the corner.")
price

# %% key="five-check"
chat_wall, rate_wall = frontier[WALLS]["0.5"]
good_walls = {part: rate for part, (chat, rate) in frontier[WALLS].items() if attainment(chat).both > 0.9}
part, rate_best = max(good_walls.items(), key=lambda item: item[1])
chat_fence, rate_fence = frontier["shared"]["chunks + quota"]
assert rate_fence > 1.2 * rate_wall and attainment(chat_fence).both > 0.9
print(f"half a GPU each: {rate_wall:,.0f} tokens/s, {attainment(chat_wall).both:.0%} of the chat in time; chunks and a quota: {rate_fence:,.0f} "
      f"tokens/s, {attainment(chat_fence).both:.0%}. The wall costs {1 - rate_wall / rate_fence:.0%} of the work. The best of the walls gives "
      f"the chat {part} of the GPU and still costs {1 - rate_best / rate_fence:.0%}; and who knew beforehand that it is {part}?")

# %% [markdown] key="five-note" lang="en"
# Why are walls so dear? What one tenant leaves idle the other cannot use. A small machine is also slow for each single request. And the
# weights lie in memory twice. What walls have and fences have not: they hold against what nobody thought of.
#
# Three questions to ask of any isolation mechanism: **What idles?** (walls, hard quotas) **What is done twice?** (loans called back
# by preemption) **Who is refused although there was room?** (rate limits)

# %% [markdown] key="six" lang="en"
# ## 6 · When overload feeds itself
#
# *Question: for ten seconds three times the usual number of requests come in. When is the service well again?*
#
# Clients are not patient. A client of this service gives up when no first token has come after 3 s, and tries again a second
# later, up to eight times. The server does not learn of it: the abandoned request stays in its queue, and will be
# computed for nobody. *Predict: after the ten seconds the load is what it was before, which the server could carry. Does it recover?*

# %% key="six-retries"
PATIENCE, END = 3.0, 80.0


def crowd(rate=2.5):
    """Requests of 3,000 + 40 tokens at a rate that can be carried; three times as many from 20 s to 30 s."""
    usual = open_loop(Poisson(rate), Constant(3000), Constant(40), int(rate * END), 5)
    extra = open_loop(Poisson(2 * rate), Constant(3000), Constant(40), int(20 * rate), 6)
    return merge(usual, [replace(a, time=a.time + 20) for a in extra])


def with_clients(tries, admission=None):
    """Times at which a client got its first token in time; requests sent; the engine. Clients send up to `tries` times."""
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", max_running=64, admission=admission)
    asking, happy, hoping, sent = [(a.time, number, 1) for number, a in enumerate(crowd())], [], [], []
    while engine.clock.now < END:
        while asking and asking[0][0] <= engine.clock.now:
            moment, number, attempt = heapq.heappop(asking)
            request = Request(range(1, 3001), SamplingParams(max_tokens=40, ignore_eos=True), arrival=moment, slo=SLO(ttft=PATIENCE))
            hoping.append((engine.add(request), number, attempt))
            sent.append(moment)
        if engine.idle:
            engine.clock.advance_to(min(asking[0][0], END) if asking else END)
        engine.step()
        now, still = engine.clock.now, []
        for request, number, attempt in hoping:
            if request.num_output:
                happy.append(now)
            elif request.done or now - request.arrival > PATIENCE:
                if attempt < tries:
                    heapq.heappush(asking, (now + 1.0, number, attempt + 1))
            else:
                still.append((request, number, attempt))
        hoping = still
    return happy, sent, engine


worlds = {"no retries": with_clients(1), "retries": with_clients(9), "retries, late ones dropped": with_clients(9, Shedding()),
          "retries, a door": with_clients(9, SLOAdmission(cost))}
centres = [5 + 10 * k for k in range(int(END // 10))]


def per_second(times):
    """Events a second, in bins of ten seconds."""
    return [sum(c - 5 <= t < c + 5 for t in times) / 10 for c in centres]


figure = canvas("First tokens in time, per second: three times the load from 20 s to 30 s", 430)
figure.add_vrect(x0=20, x1=30, fillcolor="#f3e3c2", line_width=0, layer="below")
for index, (label, (happy, _, _)) in enumerate(worlds.items()):
    figure.add_trace(curve(label, centres, per_second(happy), index))
figure.update_xaxes(title_text="time (s)", range=[0, END])
figure.update_yaxes(title_text="requests/s in time", rangemode="tozero")
last = {label: per_second(happy)[-1] for label, (happy, _, _) in worlds.items()}
finding = (f"Ten seconds of triple load, and with retries nobody is served in time any more ({last['retries']:.1f} requests/s at the end); "
           f"without retries the service recovers ({last['no retries']:.1f}); with a door that refuses at once it goes on "
           f"serving what it can ({last['retries, a door']:.1f}).")
viz.show(finish(figure, finding, ("time (s)", *worlds), list(zip(centres, *(per_second(h) for h, _, _ in worlds.values()), strict=True))), alt=finding)
print(finding)

# %% key="six-table"
rows = [(label, len(sent), len(happy), engine.counters.shed, len(engine.scheduler.waiting),
         f"{max(0.0, 1 - len(happy) * 3040 / engine.counters.computed_tokens):.0%}") for label, (happy, sent, engine) in worlds.items()]
assert last["retries"] < 0.2 * last["retries, a door"] and last["no retries"] > 1.5 and last["retries, a door"] > 1.5
pd.DataFrame(rows, columns=["", "requests sent", "in time", "shed", "waiting at the end", "tokens computed for nobody"]).set_index("")

# %% [markdown] key="six-note" lang="en"
# The GPU is busy all the time, at full speed, for people who have left. The trigger is long over; what keeps the system down is its
# **own** load, the retries, a state that feeds itself: a *metastable failure* (Bronson et al., 2021). Monitoring shows 100 %
# utilisation and no error.
#
# Dropping whoever is overdue is **too late**: the head of the queue has always just not expired, is served, and misses by a hair. The
# door looks ahead and refuses those who *will* be late, so that the ones it takes are served in time.
#
# What helps, from the client to the engine: back off exponentially and with jitter; give retries a budget; cancel on the server when
# the client has gone; refuse early, and cheaply; keep queues short (a queue longer than the patience of its clients holds only
# ghosts); and isolate tenants, so that one tenant's storm is not everybody's.

# %% [markdown] key="end" lang="en"
# ## 7 · What this cannot do
#
# - All fences stood on **one** instance. When its tenants' needs do not fit, no order helps: move a request to another (weeks 7 and
#   8). Llumnix (Sun et al., 2024) migrates running requests, to isolate them among other things.
# - Our door predicts with a cost model and **knows the output lengths**; nobody does (week 9). QLM (Patke et al., 2024) estimates waiting
#   times for queues of requests with SLOs and decides whom to start, swap or evict (week 13).
# - Memory was shared in blocks, as if blocks were all alike. Where fragmentation comes from, and priorities: week 6.
# - Preemption threw the cache away. Swapping, and when it pays: week 10.
# - Chunked prefill bounds interference; giving prefill and decode machines of their own removes it, at the price of moving the cache
#   (DistServe, week 13).
# - Fairness ignored that a shared prefix is cheap to serve (week 10).
#
# ### Discussion
#
# 1. You may share everything for utilisation, or wall everything off for the SLOs. Where would you stand for a hospital, a game, and
#    a free tier, and what would you measure to defend it?
# 2. A tenant cuts its long prompts into many short requests. Which of the four fences still hold?
# 3. VTC weighs an output token twice. On a GPU where decoding is ten times as dear as prefill, what goes wrong, and for whom?
# 4. Your quota calls loans back by preemption. Construct two tenants for whom this is worse than a hard limit.
# 5. A client library retries three times at once on any error. How would you find out from the server's side, and what
#    would you do tonight?
#
# **Next:** lab 5, where you build the index, the door, the step, the quota and the counter yourself.
