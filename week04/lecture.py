"""Week 4 lecture: real traces, unknown lengths, batching, reservation, head-of-line blocking. Built into `week04/lecture.ipynb`."""

# %% [markdown] key="goals" lang="en"
# # Week 4 · Heterogeneous and unpredictable
#
# After this lecture you can
#
# 1. read a trace: its lengths, its bursts, what goes together and what does not; and make a load that behaves like it;
# 2. say how far an answer's length can be known before it is written, with measurements on a real model;
# 3. count what a batch wastes by padding and by waiting, and what deciding at every step gives back;
# 4. weigh a promise of memory that is too large against one that is too small;
# 5. recognise head-of-line blocking, measure it, and say which cure costs what.
#
# **Rooms of `llmcourse` that open today:** `workload/` (what arrives: profiles of four real traces), and once more `engine/`
# (three ways of batching) and `executors/` (one scheduler, a real model and a simulated GPU).
#
# | part | minutes |
# |:--|--:|
# | 1 · What arrives | 20 |
# | 2 · Fit and replay | 15 |
# | 3 · The same prompt, two hundred answers | 20 |
# | 4 · Who is in a hurry? | 10 |
# | 5 · Batches: static, dynamic, continuous | 30 |
# | 6 · Promising memory | 15 |
# | 7 · Head-of-line blocking | 25 |
# | 8 · What this cannot do | 10 |
# | **all** | **145** |
#
# Everything runs offline on two CPU cores in under a minute. Each part opens with a question: **answer it before you run
# the next cell.**

# %% key="setup"
from dataclasses import replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from llmcourse import viz
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.batch import StepResult
from llmcourse.engine.replay import replay
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.kv import BlockPool, ContiguousCache
from llmcourse.metrics.cost_model import RooflineCost, blocks_that_fit
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.slowdown import alone_seconds, slowdown
from llmcourse.model import load_model
from llmcourse.model.decoding import generate
from llmcourse.model.shapes import shape
from llmcourse.paths import DATA
from llmcourse.policies import FCFS, SJF, SRTF, RoundRobin
from llmcourse.viz.theme import LINES, canvas, finish
from llmcourse.workload import (
    CODE, DOCUMENT, INTERACTIVE, Constant, Lognormal, Poisson, merge, open_loop, profile, with_oracle,
)

pd.set_option("display.max_colwidth", None)
torch.set_num_threads(1)
torch.set_grad_enabled(False)
model, tokenizer = load_model("course-tiny", device="cpu")


def simulate(workload, **options):
    """Serve a workload on a simulated A100 with Llama 2 7B: the table of its requests, and the engine."""
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", ledger=Ledger(), **({"token_budget": 2048} | options))
    return replay(engine, workload), engine


def lines(title, x, curves, x_title, y_title, finding, height=380, **axes):
    """A figure of several curves over the same x, with its sentence and its numbers."""
    figure = canvas(title, height)
    for index, (name, y) in enumerate(curves.items()):
        look = {"color": LINES[index], "width": 3, "dash": ("solid", "dash", "dot", "dashdot")[index % 4]}
        figure.add_trace(go.Scatter(x=list(x), y=list(y), name=name, mode="lines", line=look))
    figure.update_xaxes(title_text=x_title, **axes.get("across", {}))
    figure.update_yaxes(title_text=y_title, **({"rangemode": "tozero"} | axes.get("up", {})))
    viz.show(finish(figure, finding, (x_title, *curves), list(zip(x, *curves.values(), strict=True))), alt=finding)


# %% [markdown] key="one" lang="en"
# ## 1 · What arrives
#
# *Question: a service answers prompts of 2,000 tokens with 28 tokens, on average. Is that a typical request?*
#
# Four traces of real services have been published, with times and lengths but without a word of text. What they say is kept
# here as **profiles**: the quantiles of both lengths, the number of arrivals in every few seconds, what goes together.

# %% key="one-table"
NAMES = ("azure-conversation", "azure-code", "mooncake-conversation", "arena")
traces = {name: profile(name) for name in NAMES}


def level(lengths, share):
    """The length below which this share of requests lies."""
    return float(lengths.quantile(np.array(share)))


rows = [(name, t.requests, round(t.seconds / 60), *(f"{level(t.prompts, s):,.0f}" for s in (0.5, 0.99)),
         *(f"{level(t.outputs, s):,.0f}" for s in (0.5, 0.99)), t.rank_correlation) for name, t in traces.items()]
pd.DataFrame(rows, columns=["trace", "requests", "minutes", "prompt: median", "99 % below", "output: median", "99 % below ",
                            "rank correlation of the two"]).set_index("trace")

# %% key="one-facts"
code, chat = traces["azure-code"], traces["azure-conversation"]
mean_output = np.trapezoid(code.outputs.grid, code.outputs.levels)
print(f"azure-code: the mean output is {mean_output:.0f} tokens; "
      f"{np.interp(mean_output, code.outputs.grid, code.outputs.levels):.0%} of the answers are shorter, the median is "
      f"{level(code.outputs, 0.5):.0f}, the longest {level(code.outputs, 1):,.0f}")
print(f"the longest prompt of mooncake-conversation is "
      f"{level(traces['mooncake-conversation'].prompts, 1) / level(traces['arena'].prompts, 0.5):,.0f} times the median of the arena")
assert mean_output > 2 * level(code.outputs, 0.5), "a mean that twice the median request"
assert all(level(t.outputs, 0.99) > 2.4 * level(t.outputs, 0.5) for t in traces.values())
assert all(abs(t.rank_correlation) < 0.3 for t in traces.values())

# %% [markdown] key="one-dimensions" lang="en"
# So the mean is nobody. Requests differ in **input length** (work of prefill, memory at once), in **output length** (steps,
# memory in the end), in how much **hurry** they are in (part 4) and, where a service offers several, in the **model** they want.
# This is *heterogeneity*. And the last column: a long prompt hardly says whether the answer will be long.
#
# Look for yourself. **Predict first:** the arrivals of *azure-conversation* and *azure-code*, side by side with a Poisson process
# of the same rate: for which of them is "requests come at random" a fair description?

# %% key="one-explorer"
def arrivals_of(name, against):
    """1,500 requests like the trace's, and the same requests at other times or of other lengths."""
    workload = traces[name].generate(1500, seed=1)
    rate = len(workload) / workload[-1].time
    if against == "Poisson arrivals":
        times = Poisson(rate).times(np.random.default_rng(2), len(workload)).tolist()
        return {name: workload, against: [replace(a, time=t) for a, t in zip(workload, times, strict=True)]}
    if against == "lognormal lengths":
        fits = [Lognormal.fit([getattr(a, kind) for a in workload]) for kind in ("prompt_tokens", "output_tokens")]
        return {name: workload, against: open_loop(Poisson(rate), *fits, len(workload), seed=3)}
    return {name: workload}


explorer = viz.Explorer(
    "Trace explorer", lambda trace, against, window: viz.trace_explorer(arrivals_of(trace, against), width=window),
    {"trace": viz.Choice("trace", NAMES, "azure-code"),
     "against": viz.Choice("beside", ["nothing", "Poisson arrivals", "lognormal lengths"], "Poisson arrivals"),
     "window": viz.Slider("window", [2.0, 5.0, 10.0, 30.0], 10.0, "s")},
    presets={"bursts": {"trace": "azure-code", "against": "Poisson arrivals"},
             "no bursts": {"trace": "azure-conversation", "against": "Poisson arrivals"},
             "lengths": {"trace": "azure-code", "against": "lognormal lengths"}},
    question="whose arrivals look like Poisson's, and where does the lognormal curve leave the measured one?",
    answer="Conversations nearly look like Poisson's, code completion does not at all: it comes in bursts with silence between. The "
           "lognormal is fair in the middle and wrong at the ends, where long requests are.")
explorer

# %% [markdown] key="one-bursts" lang="en"
# ### Two kinds of burstiness
#
# The **coefficient of variation** (CV) of the gaps between arrivals is their standard deviation over their mean: 0 for a clock,
# 1 for a Poisson process. It forgets their order. So does a second number not: count arrivals in windows of ten seconds;
# the **dispersion** is the variance of the counts over their mean, again 1 for Poisson.
#
# *Predict: shuffle the gaps of a trace. What happens to the CV, what to the dispersion?*

# %% key="one-shuffle"
def gaps_cv(times):
    """CV of the gaps."""
    gaps = np.diff(times)
    return gaps.std() / gaps.mean()


def dispersion(times, window=10.0):
    """Variance over mean of the arrivals in windows of so many seconds."""
    counts = np.bincount(((times - times[0]) // window).astype(int))[:-1]
    return counts.var() / counts.mean()


rng = np.random.default_rng(0)
burst_rows = []
for name, trace in traces.items():
    times = np.array([a.time for a in trace.generate(8000, seed=1)])
    shuffled = np.concatenate([[0.0], np.cumsum(rng.permutation(np.diff(times)))])
    poisson = Poisson(8000 / times[-1]).times(rng, 8000)
    burst_rows.append((name, *(round(float(f(t)), 2) for t in (times, shuffled, poisson) for f in (gaps_cv, dispersion))))
bursts = pd.DataFrame(burst_rows, columns=["trace", "CV", "dispersion", "shuffled: CV", "shuffled: dispersion",
                                           "Poisson: CV", "Poisson: dispersion"]).set_index("trace")
assert (abs(bursts["CV"] - bursts["shuffled: CV"]) < 0.02).all(), "shuffling cannot change the CV"
assert bursts.loc["azure-code", "CV"] > 5 and bursts.loc["azure-code", "dispersion"] > 1.5 * bursts.loc["azure-code", "shuffled: dispersion"]
assert bursts.loc["azure-conversation", "dispersion"] > 2 > bursts.loc["azure-conversation", "CV"]
bursts

# %% [markdown] key="one-note" lang="en"
# The conversation trace is the subtle one. Its gaps look like Poisson's (CV near 1), yet its counts vary more than they should:
# the **rate itself** drifts. Busy minutes follow busy minutes. No distribution of gaps alone can say that; it is a matter of their
# order.
#
# <details><summary>Misconception: "a high CV means a high load"</summary>
#
# The CV has no unit and knows no rate: play a trace twice as fast and it stays the same. And the other way round, the same rate
# can come as clockwork or in bursts. Part 2 shows how much that matters.
# </details>

# %% [markdown] key="two" lang="en"
# ## 2 · Fit and replay
#
# *Question: you must say whether one GPU is enough for this code service. You know its mean rate and mean lengths. Enough?*
#
# Five descriptions of the same nine hundred requests, all of the **same rate**, each one step further from the trace; on the same
# simulated A100 with Llama 2 7B. *Predict the median time to first token of the first and of the last.*

# %% key="two-replay"
trace = code.generate(900, seed=3, rate=3.0)
times = np.array([a.time for a in trace])
rate = len(trace) / times[-1]
poisson_times = Poisson(rate).times(np.random.default_rng(1), len(trace)).tolist()
shuffled_times = np.cumsum(rng.permutation(np.diff(times, prepend=0.0))).tolist()
means = [Constant(round(float(np.mean([getattr(a, kind) for a in trace])))) for kind in ("prompt_tokens", "output_tokens")]
fits = [Lognormal.fit([getattr(a, kind) for a in trace]) for kind in ("prompt_tokens", "output_tokens")]
models = {
    "as in the trace": trace,
    "gaps of the trace, shuffled": [replace(a, time=t) for a, t in zip(trace, shuffled_times, strict=True)],
    "Poisson, lengths of the trace": [replace(a, time=t) for a, t in zip(trace, poisson_times, strict=True)],
    "Poisson, lognormal lengths": open_loop(Poisson(rate), *fits, len(trace), seed=4),
    "Poisson, mean lengths": open_loop(Poisson(rate), *means, len(trace), seed=4),
}
replays, busy_share = {}, {}
for name, workload in models.items():
    replays[name], engine = simulate(workload)
    busy_share[name] = engine.ledger.busy / engine.clock.now
figure = viz.latency_cdf(replays, metric="ttft", slo=1.0, title=f"The same {rate:.1f} requests a second, described in five ways")
viz.show(figure, alt=viz.summary(figure))

# %% key="two-check"
median = {name: float(np.median(table["ttft"])) for name, table in replays.items()}
print("\n".join(f"{name:32} median TTFT {seconds:7.2f} s, GPU busy {busy_share[name]:.0%} of the time" for name, seconds in median.items()))
assert 50 * median["Poisson, mean lengths"] < median["as in the trace"] < 200 * median["Poisson, mean lengths"], "about a hundred times"
assert busy_share["as in the trace"] < 0.75 and median["Poisson, lognormal lengths"] > 2 * median["Poisson, lengths of the trace"]

# %% [markdown] key="two-lesson" lang="en"
# A plan made with means promises a fraction of a second. The trace's bursts queue a hundred times as long, on a GPU that is idle for
# much of the time. (And the lognormal curve, fair in the middle, invents prompts longer than any in the trace.) What was lost on the
# way:
#
# | description | keeps | loses |
# |:--|:--|:--|
# | replay of the trace | everything | needs the trace; one length, one rate |
# | quantiles and the series of rates (our profiles) | lengths, bursts, drift | single requests, sessions |
# | quantiles of the gaps, independent | lengths, short bursts | busy minutes |
# | Poisson and lengths | lengths | bursts |
# | means | the load | everything that makes people wait |
#
# **To load a service harder, scale time; do not repeat or drop requests.** And an exponential fitted to bursty gaps **by its
# median** even gets the rate wrong:

# %% key="two-median"
gaps = np.diff(times)
print(f"the trace brings {1 / gaps.mean():.2f} requests a second; an exponential with the same median gap brings "
      f"{np.log(2) / np.median(gaps):.1f}")
assert np.log(2) / np.median(gaps) > 2 / gaps.mean()

# %% [markdown] key="three" lang="en"
# ## 3 · The same prompt, two hundred answers
#
# *Question: the same prompt, the same model, two hundred times. The prompt is not merely as long as before: it is the same. How
# far apart are the lengths of the answers?*
#
# A model writes until it draws the end token, and each draw is a game of chance. Two hundred seats, one batch, our own model on
# the real engine: 讲一个老虎的故事, tell a story about a tiger.

# %% key="three-run"
crowd = Engine(TorchExecutor(model, 4000, 16), BlockPool(4000, 16), tokenizer=tokenizer, max_running=200, token_budget=4096, seed=1)
tales = crowd.generate(["讲一个老虎的故事。"] * 200, SamplingParams(max_tokens=300, temperature=0.9))
lengths = np.array(sorted(len(tale.tokens) for tale in tales))
cut = sum(tale.finish_reason == "length" for tale in tales)
print(f"{len(lengths)} answers in {crowd.counters.steps} steps; the first: {tales[0].text[:100]!r} …")

figure = canvas("Tokens in two hundred answers to one prompt", 360)
edges = np.arange(0, 301, 20)
counts, _ = np.histogram(lengths, edges)
figure.add_trace(go.Bar(x=(edges[:-1] + 10).tolist(), y=counts.tolist(), width=18, marker={"color": LINES[0]}, name="answers"))
figure.update_xaxes(title_text="tokens written")
figure.update_yaxes(title_text="answers")
finding = (f"One prompt, answers of {lengths[0]} to {lengths[-1]} tokens: half are below {np.median(lengths):.0f}, the mean is "
           f"{lengths.mean():.0f}, one in ten is above {np.quantile(lengths, 0.9):.0f}; {cut} were cut off at 300.")
viz.show(finish(figure, finding, ("tokens", "answers"), [(f"{a}-{b - 1}", int(n)) for (a, b), n in zip(pairwise(edges), counts, strict=True)]),
         alt=finding)
assert lengths[-1] >= 5 * lengths[0] and np.quantile(lengths, 0.9) > 1.8 * np.median(lengths)

# %% [markdown] key="three-left" lang="en"
# So even a perfect reader of prompts could not know. This is *unpredictability*, and it is not ignorance: the answer does not
# exist yet.
#
# *Predict: a request has already written 150 tokens. Compared with a fresh one, how much has it still to go, on average: less, as
# much, more?*

# %% key="three-remaining"
written = np.arange(0, 201, 10)
left = [float((lengths[lengths > k] - k).mean()) for k in written]
finding = (f"A fresh request has {left[0]:.0f} tokens to go on average; one that has already written 150, far more than that, still has "
           f"{left[15]:.0f} to go.")
lines("How much is still to come?", written, {"mean tokens left": left}, "tokens already written", "tokens left, mean", finding)
print(f"{(lengths > 150).sum()} of 200 answers reached 150 tokens")
assert left[15] > 0.4 * left[0], "age is no sign that the end is near"

# %% [markdown] key="three-known" lang="en"
# For most things age means that the end is near. Here a story that has gone on for long is probably one of the long ones: it may end
# after any sentence, and may not. (For lengths with a heavier tail the rest even grows.)
#
# ### And yet not nothing is known
#
# Across **different** prompts a good deal can be known: who asks for a yes or no will not get a novel. The course's held-out
# prompts carry their right answers, so that their lengths can be counted. *Predict: how much of the variation of (the logarithm of)
# answer length does the prompt's length explain? How much the kind of task?*

# %% key="three-explained"
prompts = pd.read_json(DATA / "prompts" / "prompts.jsonl", lines=True).dropna(subset=["answer"])
output = np.log([1 + len(tokenizer.encode(answer)) for answer in prompts["answer"]])
asked = np.log([len(tokenizer.encode(text)) for text in prompts["prompt"]])
by_kind = pd.Series(output).groupby(prompts["kind"].to_numpy()).transform("mean")
by_length = float(np.corrcoef(asked, output)[0, 1] ** 2)
by_task = float(1 - (output - by_kind).var() / output.var())
print(f"{len(prompts)} prompts of {prompts['kind'].nunique()} kinds: answers of {np.exp(output.min()):.0f} to {np.exp(output.max()):.0f} tokens")
print(f"the prompt's length explains {by_length:.0%} of the variance, the kind of task {by_task:.0%}")
assert by_task > 0.5 > by_length

# %% [markdown] key="three-note" lang="en"
# Part of the length is in the prompt's *meaning*, none in its size, and the rest is chance. Predictors (week 9) live on the first part
# and must survive the last.
#
# Everything that follows from length shares its fate: running time, number of steps, memory. A scheduler that needs to know these
# in advance, as shortest-job-first does, has nothing to read them from.

# %% [markdown] key="four" lang="en"
# ## 4 · Who is in a hurry?
#
# *Question: three users wait two seconds for the first token. For which of them is the service broken?*
#
# The same seconds mean different things. The editor that completes a line gives up after a quarter of a second; a person who chats
# after one or so; a summary of a long document may take its time; and a batch job at night does not care at all. We put
# three classes with their **SLOs** (week 3) into one queue, first come, first served, and turn up the load. *Predict: which
# class breaks first, and does the scheduler know?*

# %% key="four-classes"
CLASSES = {"code completion": ("azure-code", CODE, 0.4), "chat": ("arena", INTERACTIVE, 0.4), "documents": ("azure-conversation", DOCUMENT, 0.2)}


def mixture(rate, count=600):
    """Requests of all classes, each with its SLO, at so many a second together."""
    parts = []
    for index, (tenant, (name, slo, share)) in enumerate(CLASSES.items()):
        part = traces[name].generate(int(count * share), seed=index, process=Poisson(rate * share), slo=slo)
        parts.append([replace(arrival, tenant=tenant) for arrival in part])
    return merge(*parts)


loads = (1.0, 2.0, 4.0, 6.0, 8.0)
kept = {tenant: [] for tenant in CLASSES}
for rate_now in loads:
    table, _ = simulate(mixture(rate_now))
    for tenant in CLASSES:
        kept[tenant].append(attainment(table.of_tenant(tenant)).both)
finding = ("At " + ", ".join(f"{r:g}" for r in loads) + " requests a second, within their SLO: " + "; ".join(
    f"{tenant} " + ", ".join(f"{share:.0%}" for share in shares) for tenant, shares in kept.items()) + ".")
lines("One queue for all: who gets what was promised", loads, kept, "requests a second", "share within their SLO", finding,
      up={"tickformat": ".0%", "range": [0, 1.03]})
print(f"even alone on the machine, the longest prompt of the code trace needs about {RooflineCost(hardware('A100 80 GB'), shape('Llama 2 7B')).per_token * level(code.prompts, 1):.2f} s "
      f"before its first token; {CODE.ttft} s are promised")
assert kept["code completion"][2] < kept["chat"][2] <= kept["documents"][2] and kept["code completion"][0] < 0.9

# %% [markdown] key="four-note" lang="en"
# The strictest class breaks first, some of it even on an empty machine: for its longest prompts the promise was never possible. The patient
# one still has time to give away, and the scheduler treats all alike. That they could **trade** is the theme of week 5 (SLOs) and week 6 (priorities).

# %% [markdown] key="five" lang="en"
# ## 5 · Batches: static, dynamic, continuous
#
# *Question: a GPU computes 8 rows nearly as quickly as one (week 2). Eight requests come, with answers of 6 to 93 tokens. What
# share of the rows that it computes does anybody want?*
#
# ### A static batch, counted on the real model
#
# The plain way: stack the prompts to a rectangle, run the rectangle until the last row has ended, hand out the results. It is a
# rectangle, so rows that have ended are computed on: **padding**. And if prompts differ in length, they are filled up as well.

# %% key="five-padded"
UPTO = [12, 38, 14, 20, 17, 40, 11, 13]                                   # eight users let course-tiny count from 10
questions = [tokenizer.encode_prompt(f"Count from 10 to {end}.") for end in UPTO]
assert len({len(q) for q in questions}) == 1, "prompts of one length: here only the answers differ"


def padded_batch(prompts, limit=200):
    """Greedy answers of one rectangular batch, the steps it took, and the rows that were of use."""
    cache, tokens = ContiguousCache(model.config, len(prompts[0]) + limit, len(prompts)), torch.tensor(prompts)
    answers, steps, useful = [[] for _ in prompts], 0, 0
    while steps < limit and not all(answer and answer[-1] in tokenizer.eos_ids for answer in answers):
        newest = model(tokens, cache)[:, -1].argmax(-1)
        for answer, token in zip(answers, newest.tolist(), strict=True):
            if not (answer and answer[-1] in tokenizer.eos_ids):
                answer.append(token)
                useful += 1
        tokens, steps = newest[:, None], steps + 1
    return answers, steps, useful


answers, steps, useful = padded_batch(questions)
print(f"answers of {sorted(map(len, answers))} tokens: {steps} steps of {len(questions)} rows = {steps * len(questions)} rows computed, "
      f"{useful} of them useful: {useful / (steps * len(questions)):.0%}")
mean_over_max = np.mean([len(a) for a in answers]) / max(len(a) for a in answers)
assert abs(useful / (steps * len(questions)) - mean_over_max) < 1e-9, "mean over longest: nothing else matters"

# %% [markdown] key="five-share" lang="en"
# The useful share is **mean length over longest length** of the batch: one long answer ruins it for all. Larger batches are worse: the
# more draws, the longer the longest. For groups drawn from the two hundred stories of part 3:

# %% key="five-growth"
sizes = (1, 2, 4, 8, 16, 32, 64)
drawn = [np.random.default_rng(size).choice(lengths, (2000, size)) for size in sizes]
shares = [float((group.mean(1) / group.max(1)).mean()) for group in drawn]
finding = "Useful rows of a static batch of " + ", ".join(f"{n}: {s:.0%}" for n, s in zip(sizes, shares, strict=True)) + "."
lines("The larger the static batch, the more of it is padding", sizes, {"useful rows": shares}, "requests in the batch", "useful share",
      finding, height=340, across={"type": "log", "tickvals": list(sizes), "ticktext": [str(size) for size in sizes]},
      up={"tickformat": ".0%", "range": [0, 1.03]})
assert all(a > b for a, b in pairwise(shares)) and shares[-1] < 0.45

# %% [markdown] key="five-ways" lang="en"
# ### Three ways to batch
#
# - **Static**: wait for a full batch, run it to its end, next. Who comes a moment too late waits for a whole batch. Who comes first
#   waits for the batch to fill.
# - **Dynamic** (the classic model servers, for example Triton): start when the batch is full **or** the oldest has waited long enough. The
#   wait at the door is bounded; the batch is as closed as before.
# - **Continuous**, or iteration-level (Orca, Yu et al., OSDI 2022): decide before **every step**. Who has ended leaves at once, and who
#   waits takes the seat. To put rows of different length and age into one step, all tokens go through the matrices together and only
#   attention is computed request by request (*selective batching*): our engine does so from week 2 on. Its two variants: whole
#   prompts in steps of their own (*continuous*), or chunks of prompts beside the decodes (*mixed*).
#
# Now the eight counting users with four seats, on the real engine. *Predict: how many steps less?*

# %% key="five-engine"
def count_on_the_engine(batching, seats=4):
    """The eight questions on the real engine; the engine afterwards."""
    engine = Engine(TorchExecutor(model, 128, 16), BlockPool(128, 16), tokenizer=tokenizer, batching=batching, max_running=seats)
    got = engine.generate(questions, SamplingParams(max_tokens=200))
    assert [list(c.tokens) for c in got] == answers, "whatever the batching: the same tokens as in the rectangle"
    return engine


engines = {way: count_on_the_engine(way) for way in ("static", "mixed")}
rows = []
for way, engine in engines.items():
    decodes = sum(len(r.output) for r in engine.requests.values())
    rows.append((way, engine.counters.steps, 4 * engine.counters.steps, decodes, f"{decodes / (4 * engine.counters.steps):.0%}"))
padded_steps = sum(max(len(answer) for answer in four) for four in (answers[:4], answers[4:]))
rows.insert(0, ("padded rectangles of four", padded_steps, 4 * padded_steps, useful, f"{useful / (4 * padded_steps):.0%}"))
assert engines["mixed"].counters.steps < engines["static"].counters.steps == padded_steps
pd.DataFrame(rows, columns=["way", "steps", "places in them", "tokens delivered", "useful"]).set_index("way")

# %% [markdown] key="five-gantt" lang="en"
# Our engine's *static* closes the batch but does not compute rows that have ended: it leaves seats empty. A rectangle computes them. The
# steps are the same.
#
# In the picture a row is a seat. **Predict:** make all answers equally long (spread 0). What is left of the difference?

# %% key="five-explorer"
def uneven(spread, count=14, mean=16):
    """`count` lengths of the same mean, the more uneven the larger the spread, in a fixed shuffled order."""
    z = np.array([NormalDist().inv_cdf((k + 0.5) / count) for k in range(count)])[np.random.default_rng(3).permutation(count)]
    raw = np.exp(spread * z)
    return np.maximum(1, np.round(raw / raw.mean() * mean)).astype(int).tolist()


def in_seats(batching, seats, spread):
    """Fourteen requests, all here at once, through so many seats in virtual time; the events."""
    engine = Engine(MockExecutor(16), BlockPool(512, 16), batching=batching, max_running=seats, clock=VirtualClock(), checked=True)
    for length in uneven(spread):
        engine.add(Request([1] * 9, SamplingParams(max_tokens=length, ignore_eos=True)))
    return list(engine.stream()) and engine.events


gantt = viz.Explorer(
    "Static and continuous batching", lambda way, seats, spread: viz.batching_gantt(
        {name: in_seats(name, seats, spread) for name in dict.fromkeys(("static", way))}),
    {"way": viz.Choice("beside static", ["continuous", "mixed"], "mixed"), "seats": viz.Slider("seats", list(range(1, 9)), 4),
     "spread": viz.Slider("spread of lengths", [0.0, 0.3, 0.6, 0.9, 1.2], 0.9)},
    presets={"all alike": {"spread": 0.0}, "as in real traces": {"spread": 1.2}, "one seat": {"seats": 1}},
    question="where does the difference go when all answers are equally long? And with one seat?",
    answer="With equal lengths or a single seat a static batch has no gaps inside: what remains is only the last batch, which is not full. "
           "The whole gain of continuous batching comes from uneven lengths and from arrivals that do not wait for each other.")
gantt

# %% key="five-explorer-check"
def steps_taken(way, spread, seats=4):
    """Steps of a run."""
    return sum(event.kind == "STEP" for event in in_seats(way, seats, spread))


table = {spread: (steps_taken("static", spread), steps_taken("mixed", spread)) for spread in (0.0, 0.6, 1.2)}
print("\n".join(f"spread {spread}: static {a} steps, mixed {b}, {a / b:.2f} times" for spread, (a, b) in table.items()))
assert table[1.2][0] / table[1.2][1] > 1.3 > 1.1 > table[0.0][0] / table[0.0][1]

# %% [markdown] key="five-waiting" lang="en"
# ### Waiting waste: the batch that was not full
#
# Above all requests were there at once. Let them come one after the other, and a closed batch wastes twice: seats inside, and time at
# the door. *Predict: at one request a second and sixteen seats, how long does a full static batch let its first member wait? And what does
# a timeout of half a second change?*

# %% key="five-door"
def through_the_door(workload, size, timeout):
    """When each request is let in: in groups of `size`, or as soon as the group's first has waited `timeout` seconds."""
    released, group = [], []
    for arrival in workload:
        if group and arrival.time > group[0] + timeout:
            released += [group[0] + timeout] * len(group)
            group = []
        group.append(arrival.time)
        if len(group) == size:
            released += [arrival.time] * size
            group = []
    return released + [group[0] + timeout if np.isfinite(timeout) else workload[-1].time] * len(group)


def latency(workload, batching, timeout=0.0, seats=16):
    """Seconds per output token that each request's user sees, and its seconds to the first token; arrays."""
    doors = through_the_door(workload, seats, timeout) if batching == "static" else [a.time for a in workload]
    table, _ = simulate([replace(a, time=door) for a, door in zip(workload, doors, strict=True)], batching=batching, max_running=seats)
    door = np.array(doors) - np.array([a.time for a in workload])
    return (table["e2e"] + door) / table["output_tokens"], table["ttft"] + door


chat_load = {rate: traces["arena"].generate(280, seed=5, process=Poisson(rate)) for rate in (0.5, 1.0, 2.0, 4.0, 6.0)}
ways = {"static: full batches": ("static", float("inf")), "dynamic: full, or 0.5 s": ("static", 0.5),
        "continuous": ("continuous", 0.0), "mixed": ("mixed", 0.0)}
curves = {name: {rate: latency(workload, *way) for rate, workload in chat_load.items()} for name, way in ways.items()}
pd.DataFrame([(name, *(f"{np.median(found[rate][1]):.2f}" for rate in (0.5, 1.0, 2.0))) for name, found in curves.items()],
             columns=["median TTFT in s at", "0.5 / s", "1 / s", "2 / s"]).set_index("median TTFT in s at")

# %% [markdown] key="five-capacity" lang="en"
# ### Capacity
#
# The measure of the Orca and vLLM papers: **normalised latency**, a request's time over its output tokens, averaged. Sixteen seats, the
# arena's lengths, Llama 2 7B on an A100. *Predict: where does each curve leave the floor?*

# %% key="five-curves"
normalised = {name: [1000 * float(found[rate][0].mean()) for rate in chat_load] for name, found in curves.items()}
finding = ("Mean time per output token in ms at " + ", ".join(f"{r:g}" for r in chat_load) + " requests a second: " + "; ".join(
    f"{name} " + ", ".join(f"{v:.0f}" for v in values) for name, values in normalised.items()) + ".")
lines("Sixteen seats on an A100: capacity is where the curve leaves the floor", list(chat_load), normalised, "requests a second",
      "ms per output token", finding, height=440, up={"type": "log", "rangemode": "normal"})


def holds_until(values, limit=100.0):
    """The rate at which a curve crosses the limit (ms per token), on a straight line between the measured rates."""
    points = list(zip(chat_load, values, strict=True))
    for (r0, v0), (r1, v1) in pairwise(points):
        if v0 <= limit < v1:
            return r0 + (r1 - r0) * (limit - v0) / (v1 - v0)
    return points[-1][0] if values[0] <= limit else 0.0


holds = {name: holds_until(values) for name, values in normalised.items()}
print("\n".join(f"{name:26} " + (f"holds 100 ms per token up to {rate:.1f} requests a second" if rate else "never holds 100 ms per token")
                for name, rate in holds.items()))
at_one = normalised["dynamic: full, or 0.5 s"][1] / normalised["mixed"][1]
print(f"at 1 request a second dynamic batching takes {at_one:.1f} times as long per token as mixed")
assert holds["mixed"] > 2 * holds["dynamic: full, or 0.5 s"] and at_one > 4
assert holds["static: full batches"] <= holds["dynamic: full, or 0.5 s"], "a timeout never makes it worse here"

# %% [markdown] key="five-note" lang="en"
# Deciding at every step brings a multiple of the load at the same latency, and at low load a fraction of the latency. The size depends on
# how uneven lengths are; put `azure-conversation` for `arena` above and see. The famous 36.9 of the Orca paper is GPT-3 175B against the
# request-level batching of a 2022 system: it is no property of batching alone, and that baseline is gone.
#
# <details><summary>Misconception: "continuous batching is what PagedAttention does"</summary>
#
# Two ideas, two papers. Continuous batching decides **who is computed**, at every step (Orca, Yu et al., OSDI 2022; it still reserved
# memory for the longest possible answer). PagedAttention decides **where the cache lies**, in blocks (vLLM, Kwon et al., SOSP 2023).
# You may have either without the other. Part 6 is about memory.
# </details>

# %% [markdown] key="six" lang="en"
# ## 6 · Promising memory
#
# *Question: a request is to start. Its cache will need as many slots as it will have tokens, and nobody knows how many. How much do you
# set aside?*
#
# - Set aside the most it may need: it can never run **out of memory** (OOM). Nearly all of it stays empty: **over-reservation**.
# - Set aside the mean: for a good part of the requests it is too little: **under-reservation**; something must give.
#
# The stories of part 3, each given the same promise. *Predict: with a promise of the 99th percentile, what share of the memory is
# used?*

# %% key="six-promise"
promises = np.arange(20, 301, 10)
unused = [float(np.maximum(0, r - lengths).mean() / r) for r in promises]
outgrown = [float((lengths > r).mean()) for r in promises]
mean, p99 = round(float(lengths.mean())), round(float(np.quantile(lengths, 0.99)))
waste_at = {r: float(np.maximum(0, r - lengths).mean() / r) for r in (mean, p99)}
finding = (f"Promised the mean ({mean} tokens), {np.mean(lengths > mean):.0%} of the answers outgrow it and still {waste_at[mean]:.0%} of the "
           f"promised slots stay empty; promised the 99th percentile ({p99}), {waste_at[p99]:.0%} stay empty.")
lines("A promise is too large or too small, or both", promises, {"slots never used": unused, "requests that outgrow it": outgrown},
      "slots promised to each answer", "share", finding, up={"tickformat": ".0%", "range": [0, 1.03]})
print(finding)
assert np.mean(lengths > mean) > 0.25 and waste_at[mean] > 0.1 and waste_at[p99] > 0.5

# %% [markdown] key="six-both" lang="en"
# At the mean a promise is too large for most **and** too small for many. There is no good number.
#
# ### No promise at all
#
# PagedAttention hands out blocks as they are needed: nothing is reserved, nothing is empty, and when the pool is full somebody is **preempted**
# (weeks 2 and 6). Optimism has its own price: work done twice. An A100 with 40 GB, Llama 2 7B, the arena's lengths (at most
# 2,048 tokens together), in three ways. *Predict: which serves 7 requests a second?*

# %% key="six-memory"
blocks = blocks_that_fit(hardware("A100 40 GB"), shape("Llama 2 7B"))
slots = 16 * blocks
busy = traces["arena"].generate(600, seed=8, process=Poisson(7.0))
typical = round(float(np.quantile([a.prompt_tokens + a.output_tokens for a in busy], 0.9)))
plans = {"reserve the longest (2,048)": slots // 2048, f"reserve the 90th percentile ({typical})": slots // typical, "as needed (paged)": 256}
rows = []
for name, seats in plans.items():
    table, engine = simulate(busy, num_blocks=blocks, max_running=seats)
    rows.append((name, seats, f"{1000 * np.mean(table['e2e'] / table['output_tokens']):.0f}", f"{np.quantile(table['ttft'], 0.99):.1f}",
                 int((table["preemptions"] > 0).sum()), f"{engine.counters.recomputed_tokens / engine.counters.computed_tokens:.1%}"))
print(f"{slots:,} slots beside the weights")
plan = pd.DataFrame(rows, columns=["plan", "seats", "ms per token", "P99 TTFT, s", "requests preempted", "computed twice"]).set_index("plan")
assert float(plan["ms per token"].iloc[0]) > 1.5 * float(plan["ms per token"].iloc[2])
plan

# %% [markdown] key="six-note" lang="en"
# A reservation of the longest leaves the memory idle and the queue long. (A seat here stands for a promise: so many promises of that size fit.
# The middle plan is optimistic: who outgrows his promise finds room with the others, or is preempted.) What memory "as needed" risks
# shows when it is really scarce. *Predict: the same load, a pool that shrinks. When does it break, gently or at once?*

# %% key="six-scarce"
rows, pools = [], (1.0, 0.5, 0.35, 0.3, 0.25)
for share in pools:
    table, engine = simulate(busy, num_blocks=int(blocks * share), max_running=256)
    rows.append((f"{share:.0%}", f"{16 * int(blocks * share):,}", f"{(table['preemptions'] > 0).mean():.0%}",
                 f"{engine.counters.recomputed_tokens / engine.counters.computed_tokens:.0%}", f"{np.quantile(table['ttft'], 0.99):.0f}"))
scarce = pd.DataFrame(rows, columns=["pool", "slots", "requests preempted", "computed twice", "P99 TTFT, s"]).set_index("pool")
gone = [int(text.rstrip("%")) for text in scarce["requests preempted"]]
assert gone[0] == gone[1] == 0 and gone[-1] > 20, "nothing for a long time, then a cliff"
scarce

# %% [markdown] key="seven" lang="en"
# ## 7 · Head-of-line blocking
#
# *Question: somebody in front of you at the counter orders a novel. You want a yes or no. How long do you wait?*
#
# First come, first served is fair to arrivals and cruel to short requests: a long one holds what all need, and those behind it wait
# **although they are short**. In LLM serving the line has three heads: a **seat** in the batch, a **step** of the engine, and **memory**.
#
# ### The seat: measured on the real engine
#
# One user lets course-tiny count to 25; six short questions come just after. Real model, real tokens; the clock ticks 10 ms a step and
# 0.1 ms a token, so that a noisy machine cannot disturb the comparison. **Slowdown** is a request's time over its time alone. The
# **blocking index** is the share of all waiting that passed while a longer request held a seat. *Predict both for one seat.*

# %% key="seven-seats"
LONG = "Count from 1 to 25."
SHORT = [f"Count from {a} to {b}." for a, b in ((3, 6), (1, 9), (5, 7), (8, 9), (1, 5), (3, 4))]


class Paced(TorchExecutor):
    """The real model on a clock of its own."""

    def execute(self, batch):
        """Real tokens; 10 ms a step and 0.1 ms a token."""
        return StepResult(super().execute(batch).tokens, 0.01 + 0.0001 * batch.num_tokens)


sizes_of = {text: len(generate(model, tokenizer.encode_prompt(text), 300, eos_ids=tokenizer.eos_ids)) for text in (LONG, *SHORT)}


def behind_a_long_one(seats, policy, texts=(LONG, *SHORT)):
    """The first text, and two steps later the others, on the real model; the engine afterwards."""
    engine = Engine(Paced(model, 256, 16), BlockPool(256, 16), policy=policy, tokenizer=tokenizer, max_running=seats, clock=VirtualClock())
    for number, text in enumerate(texts):
        engine.add(Request(tokenizer.encode_prompt(text), SamplingParams(max_tokens=300), id=text.removesuffix("."), predicted=sizes_of[text]))
        if number == 0:
            engine.step(), engine.step()
    for _ in engine.stream():
        pass
    return engine


def blocking_index(arrival, start, end, alone):
    """Share of all seconds waited in which somebody longer held a seat (arrays of seconds)."""
    blocked = 0.0
    for a, s, size in zip(arrival, start, alone, strict=True):
        longer = (alone > size) & (start < s) & (end > a)
        cuts = np.unique(np.clip(np.concatenate([[a, s], start[longer], end[longer]]), a, s))
        blocked += sum(q - p for p, q in pairwise(cuts) if ((start[longer] <= p) & (end[longer] >= q)).any())
    waited = (start - arrival).sum()
    return blocked / waited if waited else 0.0


alone = np.array([0.01 * size + 0.0001 * (len(tokenizer.encode_prompt(text)) + size - 1) for text, size in sizes_of.items()])
assert np.isclose(alone[1], behind_a_long_one(1, FCFS(), SHORT[:1]).records()[0].e2e), "the arithmetic of one request alone"
trials = {"one seat, FCFS": (1, FCFS()), "one seat, shortest first": (1, SJF()), "one seat, shortest remaining first": (1, SRTF()),
          "one seat, round robin (16)": (1, RoundRobin(16)), "two seats, FCFS": (2, FCFS()), "seven seats, FCFS": (7, FCFS())}
blocked = {name: behind_a_long_one(*trial) for name, trial in trials.items()}
rows = []
for name, engine in blocked.items():
    table = engine.table()
    slow = slowdown(table, alone)
    arrival, index = table["arrival"], "-"
    if not engine.counters.preemptions:                              # who is pushed out holds no seat from start to end
        index = f"{blocking_index(arrival, arrival + table['queue_time'], arrival + table['e2e'], alone):.2f}"
    rows.append((name, f"{slow[1:].mean():.1f}", f"{slow[0]:.2f}", index, engine.counters.steps, engine.counters.recomputed_tokens))
seats_table = pd.DataFrame(rows, columns=["", "slowdown of the short ones, mean", "of the long one", "blocking index", "steps",
                                          "tokens computed twice"]).set_index("")
seats_table

# %% key="seven-race"
race = viz.policy_race({name: blocked[name].events for name in ("one seat, FCFS", "one seat, shortest remaining first")}, metric="e2e",
                       title="Six short questions behind one long one")
viz.show(race, alt=viz.summary(race))
fcfs_slow, srtf_slow, enough = (float(seats_table.iloc[k, 0]) for k in (0, 2, 5))
assert fcfs_slow > 3 * srtf_slow and enough < 1.5, "who may pass suffers little; with a seat for everybody nobody is blocked"
assert seats_table.iloc[2, 4] > 0, "to be pushed out costs recomputation"
assert blocked["one seat, FCFS"].requests.keys() == blocked["one seat, round robin (16)"].requests.keys()
assert all(r.output == blocked["one seat, FCFS"].requests[n].output for n, r in blocked["one seat, shortest remaining first"].requests.items())

# %% [markdown] key="seven-cures" lang="en"
# - **Shortest first** helps little here: the long one already holds the seat when the others come. It orders who *waits*.
# - **Shortest remaining first** takes the seat away: nearly perfect. But it was told the lengths, which part 3 says nobody knows, and the long one had
#   to compute some tokens twice.
# - **Round robin** needs no lengths and pays for it in recomputation: here every change of turns throws a cache away.
# - **More seats**: continuous batching is the cheapest cure of all. Iteration-level scheduling does not remove blocking, it removes it *as long as
#   there is a seat*: until memory is full.
#
# ### The step: one long prompt dropped into a running batch
#
# Six users read along while their answers are written. A seventh sends a long prompt. **Predict:** what do the six see in the gaps between their tokens
# if the prompt is computed whole? And in chunks of 64 tokens?

# %% key="seven-drop"
def dropped(prompt_tokens, batching, budget):
    """Six running answers, and after 15 steps a long prompt, on the real engine in real time; the events."""
    engine = Engine(TorchExecutor(model, 256, 16), BlockPool(256, 16), tokenizer=tokenizer, batching=batching, token_budget=budget)
    for user in range(6):
        engine.add(Request(tokenizer.encode_prompt("Count from 1 to 60."), SamplingParams(max_tokens=45, ignore_eos=True), id=f"user {user + 1}"))
    for _ in range(15):
        engine.step()
    engine.add(Request([5 + k % 200 for k in range(prompt_tokens)], SamplingParams(max_tokens=12, ignore_eos=True), id="long prompt"))
    return list(engine.stream()) and engine.events


def blocking(prompt, way):
    """The gaps of the six, with the prompt computed whole and in steps of so many tokens."""
    return viz.blocking_view({"computed whole": dropped(prompt, "continuous", 1024), f"computed in steps of {way}": dropped(prompt, "mixed", way)},
                             watch="long prompt", title="A long prompt, and the time between the tokens of six users")


drop = viz.Explorer(
    "A long prompt is dropped into a running batch", blocking,
    {"prompt": viz.Slider("prompt", [50, 100, 200, 400, 800], 800, "tokens"),
     "way": viz.Slider("beside whole: in steps of", [16, 32, 64, 128, 256], 64, "tokens")},
    presets={"drop it": {"prompt": 800, "way": 64}, "a short one": {"prompt": 50, "way": 64}, "too careful": {"prompt": 800, "way": 16}},
    question="what does the cure cost, and whom?",
    answer="The long prompt itself: its first token comes later the smaller the chunks are, and in very small steps its own gaps and "
           "everybody's total grow. Somebody waits in any case; chunks spread the wait thinly over all.")
drop

# %% key="seven-drop-check"
def stretch(events, step_tokens):
    """Most tokens that one step computed."""
    steps = [sum(count for _, _, count in event.data["batch"]) for event in events if event.kind == "STEP"]
    assert max(steps) <= step_tokens
    return max(steps)


chunks = stretch(dropped(800, "mixed", 64), 64)
print(f"whole, one step computes 800 tokens and nobody gets one of his own; in chunks no step computes more than {chunks}, and everybody gets "
      "a token in each")
assert chunks == 64

# %% [markdown] key="seven-head" lang="en"
# Milliseconds vary from machine to machine; the tokens that others have to wait for in one step are a count. To bound them is the idea of
# chunked prefill (Sarathi-Serve, Agrawal et al., OSDI 2024); week 5 uses it to isolate tenants.
#
# ### The memory: a large request at the head of the queue
#
# A request is let in when the blocks of its whole prompt are free. If they are not, it waits, and first come, first served lets nobody pass: also
# not those for whom there is room. *Predict: a prompt of 14 blocks stands before 13 free ones, and behind it three that need one each. Who
# waits for what?*

# %% key="seven-memory"
def before_a_full_pool(policy):
    """Two requests run in a pool of 24 blocks; then a long prompt comes, and three short questions: free blocks by then, and each queue time (s)."""
    engine = Engine(Paced(model, 24, 16), BlockPool(24, 16), policy=policy, tokenizer=tokenizer, clock=VirtualClock())
    engine.add(Request([7] * 150, SamplingParams(max_tokens=30, ignore_eos=True), id="runs 1", predicted=30))
    engine.add(Request([9] * 10, SamplingParams(max_tokens=30, ignore_eos=True), id="runs 2", predicted=30))
    engine.step()
    engine.add(Request([8] * 220, SamplingParams(max_tokens=20, ignore_eos=True), id="long prompt", predicted=20))
    for k in range(3):
        engine.add(Request([6] * 10, SamplingParams(max_tokens=5, ignore_eos=True), id=f"short {k + 1}", predicted=5))
    engine.step()
    free = engine.pool.num_free
    for _ in engine.stream():
        pass
    return free, {record.id: record.queue_time for record in engine.records()}


free, in_line = before_a_full_pool(FCFS())
queues = {"first come, first served": in_line, "shortest answer first": before_a_full_pool(SJF())[1]}
print(f"{free} blocks are free while the long prompt waits for 14, and three that need one each wait behind it")
assert free == 13 and in_line["short 1"] >= in_line["long prompt"] > 0.2
assert queues["shortest answer first"]["short 3"] < 0.02
pd.DataFrame({name: {who: f"{seconds:.2f} s" for who, seconds in found.items() if not who.startswith("runs")} for name, found in queues.items()})

# %% [markdown] key="seven-scale" lang="en"
# Real systems keep this line on purpose: Orca and vLLM stop at the first request that does not fit, because otherwise a stream of small ones could pass a large
# one for ever.
#
# ### At scale
#
# Azure's conversations, sixteen seats, three requests a second, on the simulated A100. Shortest (remaining) first is told the true lengths: an
# **oracle**. *Predict: who wins by ordering, who loses? And does taking seats away still pay?*

# %% key="seven-simulation"
crowded = with_oracle(traces["azure-conversation"].generate(700, seed=5, process=Poisson(3.0)))
cost = RooflineCost(hardware("A100 80 GB"), shape("Llama 2 7B"))
rows, slow_of = [], {}
for name, policy in {"FCFS": FCFS(), "shortest first (oracle)": SJF(), "shortest remaining first (oracle)": SRTF()}.items():
    table, engine = simulate(crowded, policy=policy, max_running=16)
    slow = slowdown(table, alone_seconds(table, cost, 2048))
    order = np.argsort(table["output_tokens"], kind="stable")
    slow_of[name] = [float(slow[part].mean()) for part in np.array_split(order, 4)]
    rows.append((name, f"{np.median(table['ttft']):.2f}", f"{np.quantile(table['ttft'], 0.99):.1f}", f"{table['e2e'].mean():.1f}",
                 *(f"{value:.1f}" for value in slow_of[name]), f"{engine.counters.recomputed_tokens:,}"))
scale = pd.DataFrame(rows, columns=["policy", "median TTFT, s", "P99 TTFT, s", "mean e2e, s", "slowdown: shortest quarter", "2nd", "3rd", "longest quarter",
                                    "tokens computed twice"]).set_index("policy")
scale

# %% key="seven-simulation-check"
fcfs, sjf, srtf = slow_of.values()
assert sjf[0] < 0.8 * fcfs[0] and sjf[3] > fcfs[3], "the short ones win what the long ones lose"
assert fcfs[0] > 1.5 * fcfs[3], "first come, first served: the shorter the request, the worse its slowdown"
print(f"the shortest quarter: slowdown {fcfs[0]:.1f} under FCFS, {sjf[0]:.1f} with shortest first; the longest: {fcfs[3]:.1f} and {sjf[3]:.1f}")
print(f"taking seats away cost {scale.iloc[2, -1]} tokens computed again, of {sum(a.prompt_tokens + a.output_tokens for a in crowded):,} in all")

# %% [markdown] key="seven-note" lang="en"
# Under first come, first served the **short** requests have the worst slowdown: that is head-of-line blocking in one line of a table. Ordering helps them, at
# the expense of the long ones' tail, and needs to know lengths. And look at the last column: on the real engine with its tiny prompts, pushing out was nearly free.
# With prompts of a thousand tokens every push throws a prefill away. The policy that is optimal on paper (with one server and free switching) floods the machine
# with work done twice. **Heterogeneity makes blocking possible, unpredictability makes it hard to avoid, and memory makes it expensive to undo.**
#
# <details><summary>Misconception: "continuous batching ends head-of-line blocking"</summary>
#
# It ends one kind: the batch that cannot be entered. As soon as seats or memory run out there is a line again, with a head; and a long prompt can block within a
# step.
# </details>

# %% [markdown] key="eight" lang="en"
# ## 8 · What this cannot do
#
# - Profiles forget single requests, sessions, and what people do after a slow answer (they leave, or ask again). Our traces are of four services, of 2023 to 2024.
# - The simulated seconds come from a roofline: direction and rough size, not the second digit. The real model is tiny: its prompts are short, its steps mostly overhead.
# - Our oracle knows lengths. What is left of shortest-first with **predictions**: week 9. How to preempt without throwing away: weeks 7 and 10.
# - Everybody was alike but in length. Tenants with different rights and promises: week 5. Where the blocks lie: week 6.
# - One instance. With several, a blocked request could go elsewhere: weeks 7 and 8.
#
# ### Discussion
#
# 1. A colleague benchmarks a server with 512 prompt and 128 output tokens for every request, all at once. Which of today's effects can this not show?
# 2. Your users' answers become twice as long, with the same spread. What happens to the useful share of a static batch, to the capacity of a continuous one?
# 3. A model's answers could be cut at 300 tokens. Whom would that help, and by how much? Who would pay?
# 4. Shortest-first is 10 % better on average, and one user in a thousand waits ten minutes. Do you ship it? What would you add?
# 5. The blocking index of a machine with 64 seats is near 1 under any policy. Why, and what would you measure instead?
#
# **Next:** lab 4, where you take a trace apart, build a load like it, and write the iteration-level loop, the blocking index and the reservation yourself.
