"""Week 3 lecture: what to measure of a service, what to promise, and who goes next. Built into `week03/lecture.ipynb`."""

# %% [markdown] key="goals" lang="en"
# # Week 3 · Measuring a service
#
# After this lecture you can
#
# 1. read TTFT, TPOT, ITL and end-to-end time off an event log, and spot numbers that start their clock elsewhere;
# 2. check throughput, latency and concurrency against each other, and say what "100 % utilised" does not say;
# 3. load a service without flattering it: open loop and closed loop;
# 4. promise something that can be checked: percentiles with enough samples, SLI, SLO, SLA, attainment, goodput;
# 5. draw a latency-throughput curve, find its knee, and say what the tokens on it cost;
# 6. compare FCFS, round robin, SJF and SRTF on LLM requests, with the price of an interruption.
#
# **Rooms of `llmcourse` that open today:** `metrics/` (what we measure), `workload/` (what arrives), `policies/` (who goes
# next), and in `executors/` the simulator.
#
# | part | minutes |
# |:--|--:|
# | 1 · Four clocks for one request | 25 |
# | 2 · A whole service: rate, concurrency, load | 30 |
# | 3 · Promises | 25 |
# | 4 · How much can it take, and what does it cost? | 25 |
# | 5 · Who goes next? | 30 |
# | 6 · What this cannot do | 10 |
# | **all** | **145** |
#
# Everything runs offline on two CPU cores in under a minute. Each part opens with a question: **answer it before you run
# the next cell.**

# %% key="setup"
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from llmcourse import viz
from llmcourse.engine import Engine, Request, SamplingParams, VirtualClock
from llmcourse.engine.replay import replay
from llmcourse.executors import TorchExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.availability import error_budget, in_series, redundant
from llmcourse.metrics.concurrency import little
from llmcourse.metrics.cost import IDLE_SHARE, cost_per_million, energy_per_token
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.goodput import goodput
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.slo import attainment
from llmcourse.metrics.summary import summary
from llmcourse.metrics.table import Table
from llmcourse.metrics.utilisation import utilisation
from llmcourse.model import load_model
from llmcourse.model.shapes import shape
from llmcourse.policies import FCFS, SJF, SRTF, RoundRobin
from llmcourse.viz.theme import BLUE, LINES, VERMILLION, canvas, finish, seconds
from llmcourse.workload import SLO, Arrival, ClosedLoop, Lognormal, Poisson, open_loop, with_oracle

torch.set_num_threads(1)
torch.set_grad_enabled(False)
model, tokenizer = load_model("course-tiny", device="cpu")


class ProcessorClock:
    """Seconds this thread has computed: what others use of the processor does not count, and idle time is skipped."""

    def __init__(self):
        self.skipped, self.start = 0.0, time.thread_time()

    @property
    def now(self):
        return time.thread_time() - self.start + self.skipped

    def advance(self, seconds):
        """A step has taken its time by itself."""

    def advance_to(self, moment):
        self.skipped += max(0.0, moment - self.now)


def real_engine(**options):
    """A fresh engine around course-tiny: every token is computed, every step takes the time it takes."""
    return Engine(TorchExecutor(model, 256, 16), BlockPool(256, 16), tokenizer=tokenizer, clock=ProcessorClock(), **options)


def chats(rate, count=300, seed=3):
    """So many requests at `rate` a second: prompts of 500 tokens in the median, answers of 80, a few much longer."""
    return open_loop(Poisson(rate), Lognormal(500, sigma=0.7), Lognormal(80, sigma=0.7), count, seed)


@cache
def chat_run(rate, count=300):
    """The table of Llama 2 7B on one A100 serving `chats(rate, count)`, simulated, and the seconds in which a step was running."""
    ledger = Ledger()
    return replay(Engine.simulated(max_running=64, ledger=ledger), chats(rate, count)), ledger.busy


def chat_table(rate, count=300):
    """Only the table."""
    return chat_run(rate, count)[0]


print(f"course-tiny for real, {shape('Llama 2 7B').name} on an {hardware('A100 80 GB').name} in simulation")

# %% [markdown] key="one" lang="en"
# ## 1 · Four clocks for one request
#
# *Question: you press Enter, wait 2 seconds, and then 100 words run over the screen in 4 seconds. How fast was the service?*
#
# No single number says it. Let us look at real requests (in seconds of this thread on the processor, so that whatever else runs on this
# machine does not disturb). Six people ask course-tiny almost at once; three places in the batch.
# *Predict: who waits longest for the first word? Who for the last?*

# %% key="one-serve"
ASKS = [(0.00, "Count from 1 to 30."), (0.00, "Write a story about a dragon."), (0.00, "Count from 40 to 62."),
        (0.02, "What is the largest of 9, 14, 54?"), (0.04, "Count from 3 to 9."), (0.06, "Sort these numbers: 8 3 5")]


def serve(engine, asks, max_tokens=120):
    """Ask each (time, text) when it is due, and serve until all are answered."""
    asks, start = list(asks), engine.clock.now
    while asks or not engine.idle:
        while asks and engine.clock.now - start >= asks[0][0]:
            due, text = asks.pop(0)
            # Dated by when it was due, not by when this loop got round to it: part 2 says why.
            engine.add(Request(tokenizer.encode_prompt(text), SamplingParams(max_tokens=max_tokens), arrival=start + due))
        if engine.idle:
            engine.clock.advance_to(start + asks[0][0])
        engine.step()
    return engine


serve(real_engine(), ASKS[3:4])                                       # warm up
engine = serve(real_engine(max_running=3, checked=True), ASKS)
one = engine.records()[3]
for event in engine.events:
    if event.request == one.id:
        print(f"{1000 * (event.time - one.arrival):8.1f} ms  {event.kind:12} {event.data}")

# %% [markdown] key="one-clocks" lang="en"
# That is the whole life of one request, as the engine wrote it down. From such a log:
#
# | | from | to | who feels it |
# |:--|:--|:--|:--|
# | **queue time** | arrival | first scheduled | nobody else would have had to wait |
# | **TTFT**, time to first token | arrival | first token | "is it there at all?" |
# | **ITL**, inter-token latency | a token | the next token | "it hangs" |
# | **TPOT**, time per output token | first token | last token, divided by the tokens after the first | reading along |
# | **end to end** | arrival | last token | whoever needs the whole answer |

# %% key="one-waterfall"
waterfall = viz.request_waterfall(engine.events, "Six requests, three places: where each one's time went")
viz.show(waterfall, alt=viz.summary(waterfall))

# %% key="one-table"
records = engine.records()
for r in records:
    parts = r.queue_time + r.prefill_time + r.decode_time + r.preempted_time
    assert abs(parts - r.e2e) < 1e-9, "queue + prefill + decode + preempted = end to end: nothing can hide"
assert max(r.queue_time for r in records) == max(r.queue_time for r in records[3:]), "the three who came late did the waiting"
rows = [(ASKS[k][1], *(f"{1000 * t:.0f}" for t in (r.queue_time, r.prefill_time, r.ttft)), r.output_tokens,
         "" if r.tpot is None else f"{1000 * r.tpot:.1f}", f"{1000 * max(r.itl, default=0):.0f}", f"{1000 * r.e2e:.0f}",
         f"{1000 * r.e2e / r.output_tokens:.0f}") for k, r in enumerate(records)]
worst = max(records, key=lambda r: r.e2e / r.output_tokens)
assert worst.output_tokens < max(r.output_tokens for r in records) / 2
columns = ["asked", "queue, ms", "prefill, ms", "TTFT, ms", "tokens", "TPOT, ms", "longest gap, ms", "end to end, ms",
           "normalised, ms a token"]
pd.DataFrame(rows, columns=columns).set_index("asked")

# %% [markdown] key="one-normalised" lang="en"
# The last column, end-to-end time divided by tokens, is the **normalised latency** of the Orca and vLLM papers. Look at who is worst
# in it: not the one with the longest answer, but one with a short answer who had to queue. One number for all is handy in a
# paper. As a promise to a user it means nothing.
#
# ### A number with the same name
#
# *Predict: a dashboard says "P99 of TTFT: 0.2 s". Users say that they wait for five seconds. Who lies?*
#
# Perhaps nobody. vLLM's histogram `vllm:time_to_first_token_seconds` starts at **arrival**. Its per-request field
# `time_to_first_token_ms` starts when the request is **scheduled**. Below both are taken from one and the same run, a
# service with too little room.

# %% key="one-trap"
crowded = replay(Engine.simulated(max_running=16, ledger=Ledger()), chats(11))
from_arrival, from_scheduled = crowded["ttft"], crowded["ttft"] - crowded["queue_time"]
p99 = {"from arrival": percentile(from_arrival, 99), "from scheduled": percentile(from_scheduled, 99)}
print("\n".join(f"P99 of TTFT {name:15} {value:6.2f} s" for name, value in p99.items()))
assert p99["from arrival"] > 10 * p99["from scheduled"], "the queue is what a clock that starts late leaves out"
figure = viz.latency_cdf({"from arrival": from_arrival, "from scheduled": from_scheduled}, "ttft",
                         title="One run, two clocks of the same name")
viz.show(figure, alt=viz.summary(figure))

# %% [markdown] key="one-tpot" lang="en"
# ### An average within a request
#
# TPOT is a mean too, of one request's gaps. *Predict: six people are reading along. Somebody sends a prompt of 20,000 tokens, computed in
# one step. By how much does the readers' TPOT rise? What do they see?*

# %% key="one-stall"
def readers(with_book):
    """Six answers of 300 tokens; perhaps somebody sends a book after two seconds."""
    requests = [Arrival(0.0, 500, 300) for _ in range(6)] + [Arrival(2.0, 20_000, 1)] * with_book
    return replay(Engine.simulated(batching="continuous"), requests).select(np.arange(6))


quiet, disturbed = readers(False), readers(True)
for name, table in (("alone", quiet), ("with the book", disturbed)):
    print(f"{name:14} TPOT {1000 * table['tpot'].mean():5.1f} ms   longest gap {table.gap_seconds.max():.2f} s")
assert disturbed["tpot"].mean() < 2 * quiet["tpot"].mean() and disturbed.gap_seconds.max() > 2 and disturbed.gap_seconds.max() > 30 * quiet.gap_seconds.max()

# %% [markdown] key="one-note" lang="en"
# The text stands still for more than two seconds, and TPOT does not even double. So look at both: TPOT for the flow, the tail of **ITL**
# over all gaps for the hiccups. (Sarathi-Serve promises a P99 of ITL, DistServe a TPOT. They are different promises.)
#
# <details><summary>Misconception: "TPOT = end to end / tokens"</summary>
#
# The first token belongs to prefill and queue. An answer of n tokens has n − 1 gaps, and an answer of one token has no
# TPOT at all: not 0, which would make every mean look better, but none.
# </details>

# %% [markdown] key="two" lang="en"
# ## 2 · A whole service: rate, concurrency, load
#
# *Question: a service answers 8 requests a second, each in 1.5 seconds. How many are inside at a time?*
#
# From now on we need many requests and a large model, so we simulate: the same scheduler, the same block pool, the same event
# log; only the steps are not computed but timed by the roofline of week 2. Llama 2 7B on one A100, 300 requests.

# %% key="two-summary"
table = chat_table(8)
made = summary(table)
print(made)
assert made.prompt_rate > 4 * made.output_rate and made.request_rate < 8 and made.ttft.beyond_p99 == 3

# %% [markdown] key="two-throughput" lang="en"
# **Throughput** has three names: requests a second, output tokens a second (what is sold), and all tokens a second (what is computed).
# Always say which: prompts are most of the tokens here. Say over which time, too: eight a second were sent, and fewer were served, because the
# run counts from the first arrival to the last token and so includes filling and emptying. And look at the last column: of 300 requests three
# lie beyond the P99. We come back to that.
#
# ### Concurrency: Little's law
#
# Requests inside = rate × time each stays. It holds for **any** system, policy and distribution. Hence it is
# the best check of a dashboard there is: three numbers measured apart must agree.

# %% key="two-little"
law = little(table)
print(f"{law.rate:.2f} requests/s x {law.seconds:.2f} s = {law.product:.2f} inside; counted: {law.concurrency:.2f}")
assert abs(law.product - law.concurrency) < 0.01 * law.concurrency

# %% [markdown] key="two-users" lang="en"
# "How many users can it serve?" is concurrency too, with thinking: a user who reads for 20 seconds between questions is inside only a
# small part of the time.
#
# ### Utilisation: 100 % of what?
#
# *Predict: one user chats with an A100, without a pause. What does `nvidia-smi` say about the utilisation of the GPU? And with 64 users?*

# %% key="two-busy"
def sent_rate(table):
    """Requests a second that were sent, over the middle eight tenths of them: without the first and the last to ask."""
    return 0.8 * len(table) / (percentile(table["arrival"], 90) - percentile(table["arrival"], 10))


def closed_run(users, count, think=0.0, **options):
    """Users who ask, wait for the answer, think, ask again; the engine afterwards."""
    engine = Engine.simulated(max_running=64, **options)
    replay(engine, ClosedLoop(users, think, Lognormal(500, sigma=0.7), Lognormal(80, sigma=0.7), 1, count))
    return engine


a100, llama = hardware("A100 80 GB"), shape("Llama 2 7B")
rows = []
for users in (1, 8, 64):
    engine = closed_run(users, max(20, 2 * users))
    used, made = utilisation(engine.events, 64, 512), summary(engine.table())
    flops = 2 * llama.num_parameters * (made.output_rate + made.prompt_rate)
    rows.append((users, f"{used.busy:.0%}", round(used.batch, 1), f"{used.kv_usage:.1%}", f"{flops / a100.flops:.1%}",
                 round(made.output_rate)))
    assert used.busy > 0.99
assert rows[2][-1] > 10 * rows[0][-1]
columns = ["users", "time with a step running", "requests in a step", "KV blocks in use", "arithmetic of the data sheet", "output tokens/s"]
pd.DataFrame(rows, columns=columns).set_index("users")

# %% [markdown] key="two-busy-note" lang="en"
# The first column is what a "GPU utilisation" shows: some kernel was running. It says 100 % for one user and for 64, while the
# work done differs by more than a factor of ten. A busy machine is not a full one.
#
# ### Open and closed loop
#
# Two ways to load a service:
#
# - **closed loop**: so many users, each waits for the answer before asking again. Many load testers work like that.
# - **open loop**: requests come when they come, whether or not the earlier ones are answered. The public is like that.
#
# *Predict: a tester wants 5, 10, 20, 40 requests a second and uses 40 users who think 8, 4, 2, 1 seconds. Above its capacity, what will the
# tester measure? What will the public?*

# %% key="two-open-closed"
rows = []
for rate in (5, 10, 20, 40):
    closed = closed_run(40, 300, think=Poisson(rate / 40), ledger=Ledger()).table()
    rows.append((rate, round(sent_rate(closed), 1), *(round(percentile(table["ttft"], 99), 2) for table in (closed, chat_table(rate)))))
assert rows[-1][3] > 10 * rows[-1][2], "at four times the capacity the closed loop is still pleased"
columns = ["wanted, requests/s", "closed loop: sent, requests/s", "closed loop: P99 TTFT, s", "open loop: P99 TTFT, s"]
pd.DataFrame(rows, columns=columns).set_index(columns[0])

# %% [markdown] key="two-closed-note" lang="en"
# A slow service is asked less often by those who wait for it: the load gives way, and the queue never forms. Forty users can
# never make a queue of more than forty. The open loop's number, on the other hand, is not even a property of the service: at a load above
# capacity it grows with the length of the test.
#
# ### Coordinated omission
#
# The same mistake inside a measurement. The service stands still once, for ten seconds. *Predict: of the users of a closed loop
# and of an open loop of the same rate, how many notice?*

# %% key="two-stall"
class Hiccup:
    """Runs steps like another executor, but stands still once, for `pause` seconds at time `at`."""

    def __init__(self, inner, clock, at, pause):
        self.inner, self.clock, self.at, self.pause, self.limits = inner, clock, at, pause, inner.limits

    def execute(self, batch):
        result = self.inner.execute(batch)
        if self.clock.now < self.at:
            return result
        self.at = float("inf")
        return replace(result, seconds=result.seconds + self.pause)


def with_hiccup(workload):
    """The records of a run that stands still for 10 seconds after 20."""
    simulated = Engine.simulated(max_running=64)
    executor = Hiccup(simulated.executor, simulated.clock, 20.0, 10.0)
    engine = Engine(executor, simulated.pool, token_budget=512, clock=simulated.clock)
    replay(engine, workload)
    return engine.records()


users = ClosedLoop(8, Poisson(1.0), Lognormal(500, sigma=0.7), Lognormal(80, sigma=0.7), 1, 200)
runs = {"closed loop": with_hiccup(users)}
runs["open loop"] = with_hiccup(chats(sent_rate(Table.of(runs["closed loop"])), 200))
noticed = {name: sum(max(r.ttft, *r.itl, 0) > 1 for r in run) for name, run in runs.items()}
for name, run in runs.items():
    print(f"{name:12} {sent_rate(Table.of(run)):.1f} requests/s: {noticed[name]:3} of {len(run)} waited more than a second for some token")
assert noticed["closed loop"] <= 8 and noticed["open loop"] > 2 * noticed["closed loop"]

# %% [markdown] key="two-omission" lang="en"
# Eight users can notice a hiccup at most eight times, however long it lasts: they all wait, and do not send the requests that would
# have found it (Tene, 2013: *coordinated omission*). The cure is what our `serve` did above: fix beforehand when each request is **due**, and measure from there.
#
# ### Availability
#
# The share of requests answered, or of time up. A part that is up 99.9 % of the time sounds good. *Predict: six such parts in a row
# (week 2)? And two instances of which one is enough?*

# %% key="two-availability"
chain, pair = in_series([0.999] * 6), redundant(0.999, 2)
print(f"six parts of 99.9 % in a row: {chain:.2%};  two instances, one needed: {pair:.4%}")
for objective in (0.99, 0.999, 0.9999):
    print(f"{objective:.2%} leaves {error_budget(objective):6.1f} minutes a month to fail in")
assert 0.993 < chain < 0.9941 and round(error_budget(0.999)) == 43

# %% [markdown] key="three" lang="en"
# ## 3 · Promises
#
# *Question: "our mean time to first token is 0.3 seconds". What can a user do with that?*
#
# Nothing. Here is the same service a little fuller, 13 requests a second. *Predict: what share of the users waits less than the mean?*

# %% key="three-mean"
fuller = chat_table(13)
ttft = summary(fuller).ttft
below = float((fuller["ttft"] < ttft.mean).mean())
print(f"mean {ttft.mean:.2f} s, median {ttft.p50:.2f} s, P90 {ttft.p90:.2f} s, P99 {ttft.p99:.2f} s; {below:.0%} wait less than the mean")
figure = viz.latency_cdf({"8 requests/s": chat_table(8), "13 requests/s": fuller}, "ttft", slo=1.0)
viz.show(figure, alt=viz.summary(figure))
assert ttft.p99 > 3 * ttft.mean

# %% [markdown] key="three-percentile" lang="en"
# A **percentile** names a user: the P99 is what one in a hundred exceeds. Whoever sends a hundred requests a day meets it about daily.
#
# ### How many samples stand behind a P99?
#
# One in a hundred of 300 requests are three. To see what that is worth we take a queue whose P99 is known exactly: one
# clerk, random arrivals, 80 % busy, and measure it thirty times with so many customers each. *Predict: with 100 customers, how far apart
# are the thirty P99s?*

# %% key="three-samples"
def waits(count, rng, load=0.8):
    """Waiting times of `count` customers of one clerk (mean service 1 s), after 1,000 others."""
    idle = rng.exponential(1.0, count + 1000) - rng.exponential(1 / load, count + 1000)     # service minus the gap behind it
    level = np.cumsum(idle)
    return (level - np.minimum.accumulate(np.minimum(level, 0)))[1000:]                     # Lindley (1952)


exact = np.log(0.8 / 0.01) / (1 - 0.8)
sizes = (100, 1_000, 10_000, 100_000)
rng = np.random.default_rng(0)
measured = {size: sorted(percentile(waits(size, rng), 99) for _ in range(30)) for size in sizes}
figure = canvas("Thirty measurements of one and the same P99", 380)
figure.add_trace(go.Scatter(x=[f"{size:,}" for size in sizes for _ in range(30)], y=[p for size in sizes for p in measured[size]], mode="markers",
                            name="one measurement", marker={"size": 9, "color": BLUE, "symbol": "circle-open", "line": {"width": 2}}))
figure.add_hline(y=exact, line={"color": VERMILLION, "dash": "dash", "width": 2}, annotation_text=f"exact: {exact:.1f} s", annotation_position="top left")
figure.update_xaxes(title_text="customers in each measurement", type="category", range=[-0.5, 3.5])
figure.update_yaxes(title_text="P99 of waiting, s", rangemode="tozero")
spread = {size: (found[0], found[-1]) for size, found in measured.items()}
finding = "; ".join(f"{size:,} customers: {low:.0f} to {high:.0f} s" for size, (low, high) in spread.items()) + f"; exact {exact:.1f} s."
viz.show(finish(figure, finding, ("customers", "lowest P99, s", "highest P99, s"), [(s, *spread[s]) for s in sizes]), alt=finding)
assert spread[100][1] > 3 * spread[100][0] and spread[100_000][1] < 1.25 * spread[100_000][0]

# %% [markdown] key="three-samples-note" lang="en"
# A P99 of 100 samples is the worst of them with a better name. It takes tens of thousands, far more than for dice, because waits come in
# clumps: who waits long has neighbours who wait long. Our tables print how many samples lie beyond each P99. Ask every
# benchmark for that number.
#
# ### Percentiles cannot be averaged
#
# Three instances at 4, 8 and 13 requests a second. *Predict: the mean of their P99s, and the P99 of all requests: which is
# larger?*

# %% key="three-merge"
instances = {rate: chat_table(rate, 30 * rate) for rate in (4, 8, 13)}
each = {rate: percentile(one["ttft"], 99) for rate, one in instances.items()}
together = percentile(Table.concat(list(instances.values()))["ttft"], 99)
print("P99 of each:", ", ".join(f"{value:.2f} s" for value in each.values()))
print(f"mean of the three {sum(each.values()) / 3:.2f} s; P99 of all requests {together:.2f} s")
assert together > 1.2 * sum(each.values()) / 3, "the full instance has most of the requests and all of the tail"

# %% [markdown] key="three-slo" lang="en"
# Keep the samples (or histograms with the same buckets) and compute the percentile once, over all.
#
# ### SLI, SLO, SLA
#
# | | what it is | example |
# |:--|:--|:--|
# | **SLI**, indicator | a number that is measured | share of requests whose first token came within 1 s |
# | **SLO**, objective | a bound for it that we set ourselves | that share is at least 99 %, each month |
# | **SLA**, agreement | a contract with an SLO in it, and what happens if it is missed | below 98 % you get a tenth of your money back |
#
# So the SLO is stricter than the SLA, and the gap between an SLO and 100 % is an **error budget**: what may go wrong without
# anybody being wrong. Different uses want different promises.

# %% key="three-classes"
from llmcourse.workload.slo import slo_classes

rows = []
for name, slo in slo_classes().items():
    if slo.ttft is None:
        continue
    for rate in (8, 13):
        kept = attainment(chat_table(rate), slo)
        rows.append((name, f"{slo.ttft:g} s", f"{1000 * slo.tpot:g} ms", rate, f"{kept.ttft:.0%}", f"{kept.tpot:.0%}", f"{kept.both:.0%}"))
pd.DataFrame(rows, columns=["promise", "TTFT", "TPOT", "requests/s", "keep TTFT", "keep TPOT", "keep both"]).set_index(["promise", "requests/s"])

# %% [markdown] key="three-goodput" lang="en"
# ### Goodput
#
# *Question: the service is loaded more and more. Throughput rises, then stays level. What of the requests that are served **in time**?*
#
# **Goodput** is what counts of throughput: requests a second within their SLO. The word has two uses. In a run: good requests per second. Of
# a system: the highest rate at which, say, 90 % of requests are good (DistServe, Zhong et al., 2024). Our promise from here on: first token
# within 1 s and 50 ms for each further one.

# %% key="three-goodput-curve"
PROMISE = SLO(ttft=1.0, tpot=0.05)
RATES = (2, 5, 8, 10, 12, 14, 17, 20)
rows = []
for rate in RATES:
    made, kept = summary(chat_table(rate)), attainment(chat_table(rate), PROMISE).both
    rows.append((rate, made.request_rate, made.request_rate * kept, kept))
figure = canvas("Throughput rises and stays. Goodput falls off a cliff", 400)
for index, (name, column) in enumerate({"throughput": 1, "goodput": 2}.items()):
    figure.add_trace(go.Scatter(x=RATES, y=[row[column] for row in rows], name=name, mode="lines+markers",
                                line={"color": LINES[index], "width": 3, "dash": ("solid", "dash")[index]}))
figure.update_xaxes(title_text="requests/s offered")
figure.update_yaxes(title_text="requests/s", rangemode="tozero")
best = max(rows, key=lambda row: row[2])
finding = (f"Goodput is highest at {best[0]} requests/s offered, {best[2]:.1f} a second; at {RATES[-1]} offered the service does "
           f"{rows[-1][1]:.1f} a second and {rows[-1][2]:.1f} of them in time.")
viz.show(finish(figure, finding, ("offered/s", "done/s", "good/s", "attainment"), rows), alt=finding)
assert rows[-1][1] >= max(row[1] for row in rows) * 0.97 and rows[-1][2] < best[2] / 3

# %% key="three-search"
found = goodput(chat_table, 4, 20, slo=PROMISE, tolerance=0.05)
for run in found.runs:
    print(f"{run.rate:6.2f} requests/s: {run.attainment.both:6.1%} in time")
print(found)
assert found.converged and attainment(chat_table(found.rate), PROMISE).both >= 0.9

# %% [markdown] key="three-note" lang="en"
# Bisection: a rate that keeps the promise, one that breaks it, try the middle. Lab 3 has you write it. Each line is one run with one seed: near
# the knee another seed may decide otherwise, and the answer is no sharper than that.
#
# <details><summary>Misconception: "97 % keep TTFT, 95 % keep TPOT, so 92 % keep both"</summary>
#
# Multiplying holds for independent events. Late starts and slow flow have the same cause, a full machine, so they fall upon the same
# people, or on different ones, but never by dice. Ask each request for both. What is sure: both together are never better than the
# worse of the two.
# </details>

# %% [markdown] key="four" lang="en"
# ## 4 · How much can it take, and what does it cost?
#
# *Question: a service answers in a second when it is empty. At 50 % of its capacity? At 90 %? At 110 %?*
#
# Measure it, on the real engine. First a burst: everything at once shows roughly what it can do. Then five short runs at multiples of that
# rate, requests at random times. (Our clock jumps over idle time, so a run at a low rate is as short to wait for as its computing.)

# %% key="four-real"
def real_run(rate, count):
    """course-tiny, really computed, under `count` requests at `rate` a second; the engine afterwards."""
    engine = real_engine(max_running=16)
    replay(engine, small(rate, count))
    return engine


def small(rate, count):
    """Requests that suit a small model: prompts of 40 tokens in the median, answers of 24."""
    return open_loop(Poisson(rate), Lognormal(40, sigma=0.5), Lognormal(24, sigma=0.5), count, seed=1)


capacity = summary(real_run(1e4, 24).table()).request_rate
plan = [(share * capacity, max(14, round(0.7 * share * capacity))) for share in (0.2, 0.6, 1.0, 1.5, 3.0)]
engines = {rate: real_run(rate, count) for rate, count in plan}
print(f"a burst of 24: {capacity:.1f} requests/s; then {sum(count for _, count in plan)} requests at "
      f"{', '.join(f'{rate:.1f}' for rate, _ in plan)} a second")

# %% [markdown] key="four-simulate" lang="en"
# Beside it the simulator. It is told how long steps take by these very runs: `calibrate` fits five prices (a step, a token, a
# request, a kept token, a pair of tokens that look at each other) to the log. Then the same arrivals are played in virtual time.

# %% key="four-beside"
from llmcourse.executors import RooflineExecutor
from llmcourse.metrics.calibration import calibrate

fitted = calibrate(*(engine.events for engine in engines.values()))
print(fitted)


def simulated_run(rate, count):
    """The same requests, timed by the fitted prices."""
    engine = Engine(RooflineExecutor(fitted), BlockPool(256, 16), max_running=16, clock=VirtualClock(), ledger=Ledger())
    return replay(engine, small(rate, count))


started = time.perf_counter()
curves = {"simulated": [(rate, simulated_run(rate, count)) for rate, count in plan]}
played = time.perf_counter() - started
curves["measured"] = [(rate, engines[rate].table()) for rate, _ in plan]
figure = viz.latency_throughput(curves, "ttft", quantiles=(50,), title="course-tiny on this machine, and its simulation: median TTFT")
viz.show(figure, alt=viz.summary(figure))
medians = {name: [percentile(table["ttft"], 50) for _, table in points] for name, points in curves.items()}
errors = [s / m for s, m in zip(medians["simulated"], medians["measured"], strict=True)]
print("simulated / measured:", ", ".join(f"{error:.2f}" for error in errors) + f"; all five simulations took {played:.2f} s")
assert medians["measured"][-1] > 2 * medians["measured"][0], "beyond its capacity the engine keeps everybody waiting"
assert 0.5 < sorted(errors)[2] < 2

# %% [markdown] key="four-knee" lang="en"
# Flat, flat, and then a wall. Below the wall more load costs little; above it, everybody waits for everybody. The **knee** is where load per
# latency is best (Kleinrock, 1979).
#
# A short real run is noisy: run the cell again and see. The simulation gives the same answer each time, is far
# faster, and works for GPUs that are not here. Its step times come from somewhere, though; a simulator without a measurement
# beside it is a guess.
#
# ### The curve of Llama 2 7B on an A100
#
# Move the rate. Each move runs the simulator. **Predict first:** at 11 requests a second, is the promise of 1 s to the first token
# kept for the median? For the P99? And which breaks first, TTFT or TPOT?

# %% key="four-explorer"
from llmcourse.viz.series import guide


def operating_point(rate, metric, limit):
    """The latency curve of the simulated service, with the chosen rate run and marked."""
    table = chat_table(rate)
    figure = viz.latency_throughput([(r, chat_table(r)) for r in sorted({*RATES, rate})], metric, slo=limit,
                                    title="Llama 2 7B on one A100: P50 and P99")
    guide(figure, "x", rate, f"you: {rate}/s", BLUE, end=False)
    within = float((table[metric] <= limit).mean())
    finding = (f"At {rate} requests/s: P50 {seconds(percentile(table[metric], 50))}, P99 {seconds(percentile(table[metric], 99))}, "
               f"{within:.0%} within {seconds(limit)}.")
    return finish(figure, finding, viz.table(figure).columns, viz.table(figure).rows)


curve = viz.Explorer(
    "How much can it take?", operating_point,
    {"rate": viz.Slider("requests/s", [*range(2, 21), 24], 5), "metric": viz.Choice("latency", ["ttft", "tpot", "e2e"], "ttft"),
     "limit": viz.Slider("promise, s", [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0], 1.0)},
    presets={"half full": {"rate": 5, "metric": "ttft", "limit": 1.0}, "break it": {"rate": 17, "metric": "ttft", "limit": 1.0},
             "mend it": {"rate": 11, "metric": "ttft", "limit": 1.0}, "the other promise": {"rate": 13, "metric": "tpot", "limit": 0.05}},
    question="at which rate does the P99 of TTFT cross 1 s? And 90 % of the requests the 50 ms of TPOT?",
    answer="TTFT's P99 crosses 1 s between 12 and 13 a second. 90 % within 50 ms of TPOT ends at about the same rate: one full machine breaks both promises.")
curve

# %% key="four-explorer-check"
broken, mended = curve.preset("break it"), curve.preset("mend it")
print(broken.summary, mended.summary, sep="\n")
assert percentile(chat_table(12)["ttft"], 99) < 1.0 < percentile(chat_table(13)["ttft"], 99)
assert float((chat_table(12)["tpot"] <= 0.05).mean()) > 0.9 > float((chat_table(13)["tpot"] <= 0.05).mean())

# %% [markdown] key="four-limits" lang="en"
# ### What is it that is full?
#
# Two things run out in a large model, **compute** and **memory** (week 2). Which one, depends on what is asked. *Predict: questions about long
# documents with short answers; short questions with long answers. Which fills the token budget of each step, which the KV blocks?*

# %% key="four-limits-table"
def full(prompt, output, count):
    """All at once: what stops it? Steps' share of the token budget, of KV blocks, preemptions, tokens/s."""
    engine = Engine.simulated(gpu="A100 40 GB", max_running=512, token_budget=1024)
    replay(engine, open_loop(Poisson(1000), Lognormal(prompt, sigma=0.4), Lognormal(output, sigma=0.4), count, 5))
    used, made = utilisation(engine.events, 512, 1024), summary(engine.table())
    return used, made, engine.counters.preemptions


reads, writes = full(3000, 20, 40), full(200, 500, 110)
rows = [(name, f"{used.budget_share:.0%}", f"{used.kv_peak:.0%}", preemptions, round(made.prompt_rate), round(made.output_rate))
        for name, (used, made, preemptions) in (("reads much, says little", reads), ("reads little, says much", writes))]
columns = ["service", "token budget used", "KV blocks at most", "preemptions", "prompt tokens/s", "output tokens/s"]
assert llama.kv_bytes_per_token() == 512 * 1024, "half a megabyte"
assert reads[0].budget_share > 0.9 > 2 * writes[0].budget_share and writes[0].kv_peak > 0.97 and writes[2] > 0
pd.DataFrame(rows, columns=columns).set_index("service")

# %% [markdown] key="four-limits-note" lang="en"
# Every parameter of the model costs two operations for every token, and a model holds billions: that is the compute side, and prefill is
# full of it. Every token that is kept costs half a megabyte here: that is the memory side, and long answers are full of it. Buying a GPU with
# more of the wrong one changes nothing.
#
# ### The price of a token
#
# A GPU costs the same per hour whether it serves or waits. *Predict: at a fifth of the load, what happens to the price of a token?*

# %% key="four-cost"
rows = []
for rate in RATES:
    table, busy = chat_run(rate)
    made = summary(table)
    rows.append((rate, round(made.output_rate), f"{attainment(table, PROMISE).both:.0%}", round(cost_per_million(table, a100), 2),
                 round(energy_per_token(table, a100, min(1.0, busy / made.duration)), 2)))
costs = {row[0]: row[3] for row in rows}
assert IDLE_SHARE == 0.15 and costs[2] > 3 * costs[12], "an empty GPU is an expensive one"
print(f"The promise costs: at {found.rate:g} requests/s a million tokens cost {cost_per_million(chat_table(found.rate), a100):.2f} dollars, "
      f"at full load {costs[20]:.2f}.")
pd.DataFrame(rows, columns=["requests/s", "output tokens/s", "in time", "$ per million output tokens", "J per output token, at most"]).set_index("requests/s")

# %% [markdown] key="four-cost-note" lang="en"
# (Rented by the hour at the table's list price; 15 % of the board's power while idle. No host, network, cooling or people, which together can
# cost as much again: what counts in the end is the **total cost of ownership**.)
#
# So the operator wants to stand far to the right on the curve and the user far to the left. The promise says where they meet, and everything
# in this course that moves the wall to the right is money.

# %% [markdown] key="five" lang="en"
# ## 5 · Who goes next?
#
# *Question: twenty people queue at one till. In which order should they be served?*
#
# Operating systems have known the answers for sixty years:
#
# | | goes first | interrupts | needs to know |
# |:--|:--|:--|:--|
# | **FCFS** | who came first | no | nothing |
# | **round robin** | who is next in turn, a quantum each | yes | nothing |
# | **SJF** | who has the shortest job | no | lengths |
# | **SRTF** | who has the least left | yes | lengths |
#
# The same 24 requests, four places in the batch, lengths known exactly (an oracle). *Predict: which has the lowest mean? Which the lowest P99?*

# %% key="five-race"
POLICIES = {"FCFS": FCFS, "round robin": lambda: RoundRobin(32), "SJF": SJF, "SRTF": SRTF}


def mixed_lengths(rate, count, seed=8):
    """Prompts of 300 tokens in the median, answers of 60 and some of a thousand; lengths foretold."""
    return with_oracle(open_loop(Poisson(rate), Lognormal(300, sigma=0.7), Lognormal(60, sigma=1.2), count, seed))


def served(policy, workload, seats=4, **options):
    """The engine after serving the workload under a policy."""
    engine = Engine.simulated(policy=policy, max_running=seats, **options)
    replay(engine, workload, declared=4096)                           # all a request says of itself: at most 4,096 tokens
    return engine


race = {name: served(make(), mixed_lengths(6, 24)).events for name, make in POLICIES.items()}
figure = viz.policy_race(race)
viz.show(figure, alt=viz.summary(figure))

# %% key="five-numbers"
work = mixed_lengths(4, 240)
rows = []
for name, make in POLICIES.items():
    engine = served(make(), work, ledger=Ledger())
    table, counters = engine.table(), engine.counters
    made = summary(table)
    rows.append((name, *(round(x, 2) for x in (made.e2e.mean, made.e2e.p50, made.e2e.p99, made.queue.maximum)), round(made.output_rate),
                 counters.preemptions, counters.recomputed_tokens))
columns = ["policy", "mean end to end, s", "median, s", "P99, s", "longest queue, s", "output tokens/s", "interruptions", "tokens computed twice"]
numbers = pd.DataFrame(rows, columns=columns).set_index("policy")
mean, rate = numbers["mean end to end, s"], numbers["output tokens/s"]
assert mean["SJF"] < 0.7 * mean["FCFS"] and mean["SRTF"] < mean["FCFS"] and rate["round robin"] < rate["FCFS"]
assert rate["SJF"] < 1.15 * rate["FCFS"], "who waits changes, not how many tokens a second there are"
numbers

# %% [markdown] key="five-reading" lang="en"
# Read it slowly.
#
# - **FCFS**: one long answer holds a place, and all who stand behind it wait: *head-of-line blocking*. Mean and median suffer.
# - **SJF** and **SRTF**: one short request let past a long one saves the short one all the long one's time and costs the long one little. The mean
#   falls by a lot, the median by more. Somebody pays: look at the longest queue.
# - **Round robin** gives everybody a little soon, and everybody the rest late.
# - **Tokens per second** hardly change for the better. A policy decides **who** waits. The interrupting ones even lose some: they compute tokens
#   twice.
#
# ### The price of an interruption
#
# In an operating system a context switch costs microseconds: registers are saved, memory stays where it is. Here the context **is** the memory: the
# KV cache. Whoever is pushed out of a full GPU loses it, and prompt and answer are computed again. On the real engine: four people count, two
# places. *Predict: with a quantum of 4 tokens, how many tokens are computed for each one that is delivered?*

# %% key="five-real"
COUNTS = ["Count from 1 to 20.", "Count from 20 to 39.", "Count from 41 to 60.", "Count from 61 to 80."]
ask = SamplingParams(max_tokens=32, ignore_eos=True)
rows, said = [], {}
for name, policy in {"FCFS": FCFS(), **{f"round robin, {quantum}": RoundRobin(quantum) for quantum in (16, 4)}}.items():
    engine = real_engine(policy=policy, max_running=2, checked=True)
    said[name] = [completion.tokens for completion in engine.generate(COUNTS, ask)]
    delivered, counters = sum(map(len, said[name])), engine.counters
    rows.append((name, counters.preemptions, counters.recomputed_tokens, round(counters.computed_tokens / delivered, 1), round(engine.clock.now, 2)))
assert all(tokens == said["FCFS"] for tokens in said.values()), "a policy changes when, never what"
assert rows[0][2] == 0 and rows[2][2] > rows[1][2] > 0
pd.DataFrame(rows, columns=["policy", "interruptions", "tokens computed twice", "tokens computed for one delivered", "seconds"]).set_index("policy")

# %% [markdown] key="five-switch" lang="en"
# The answers are the same, token for token (asserted). The work is not. And on a real GPU: what does it cost to take one request out and in again, by its
# length?

# %% key="five-switch-table"
cost = RooflineCost(a100, llama)
step = cost.seconds(16, 16, 16 * 1000.0, 0.0)
rows = []
for context in (500, 2000, 8000, 32000):
    again = cost.seconds(context, 1, 0.0, context * (context + 1) / 2)
    rows.append((f"{context:,}", f"{context * llama.kv_bytes_per_token() / 1e9:.2f}", f"{1000 * again:,.0f}", round(again / step)))
assert rows[1][3] > 5, "thousands of tokens cost many decode steps"
pd.DataFrame(rows, columns=["tokens so far", "KV cache, GB", "computing it again, ms", "decode steps of 16 requests in that time"]).set_index("tokens so far")

# %% [markdown] key="five-switch-note" lang="en"
# So turns must be long or memory large: with room for everybody, continuous batching **is** round robin with a quantum of one token and no
# switches at all. Weeks 7 and 10 look at cheaper ways to make room: moving a cache, or swapping it out.
#
# ### Nobody knows the length
#
# SJF had an oracle. At arrival nobody knows how long the answer will be (week 2). *Predict: predictions that are off by a factor of two, or of
# ten; pure guesses; the length of the prompt instead. Where does SJF's advantage end?*

# %% key="five-guess"
def guessed(noise):
    """The same requests with predictions off by a random factor, e^noise typically."""
    rng = np.random.default_rng(4)
    return [replace(a, predicted=max(1, round(a.output_tokens * float(np.exp(noise * rng.standard_normal()))))) for a in work]


def pure_guess():
    """Predictions of the right kind, dealt to the wrong requests."""
    dealt = np.random.default_rng(5).permutation([a.output_tokens for a in work])
    return [replace(a, predicted=int(guess)) for a, guess in zip(work, dealt, strict=True)]


guesses = {"exact": work, "off by a factor of 2": guessed(np.log(2)), "off by a factor of 10": guessed(np.log(10)), "dealt at random": pure_guess(),
           "the prompt's length": [replace(a, predicted=a.prompt_tokens) for a in work]}
means = {name: summary(served(SJF(), arrivals, ledger=Ledger()).table()).e2e.mean for name, arrivals in guesses.items()}
print(f"{'FCFS':24} {mean['FCFS']:5.2f} s")
for name, value in means.items():
    print(f"SJF, {name:19} {value:5.2f} s")
assert means["exact"] < means["off by a factor of 2"] < means["off by a factor of 10"] < means["dealt at random"]
assert means["off by a factor of 10"] < mean["FCFS"] < min(means["dealt at random"], means["the prompt's length"])

# %% [markdown] key="five-guess-note" lang="en"
# Rough predictions help nearly as much as exact ones: only the **order** counts. Worthless ones are worse than none: the queue is shuffled, and FCFS does
# better. The length of the prompt is such a one here: it has nothing to do with the length of the answer. Week 9 builds predictors.
#
# ### The race, for you to run
#
# Fewer places, more load, longer quanta. **Predict first:** with places for everybody (32), which policy wins?

# %% key="five-explorer"
def race_of(rate, seats, quantum, known):
    """The four policies on the same 16 requests."""
    arrivals = mixed_lengths(rate, 16)
    arrivals = arrivals if known == "exactly" else [replace(a, predicted=None if known == "not at all" else a.prompt_tokens) for a in arrivals]
    makers = POLICIES | {"round robin": lambda: RoundRobin(quantum)}
    return viz.policy_race({name: served(make(), arrivals, seats).events for name, make in makers.items()})


USUAL = {"rate": 6, "seats": 4, "quantum": 32, "known": "exactly"}
racing = viz.Explorer(
    "Policy race", race_of,
    {"rate": viz.Slider("requests/s", [1, 2, 4, 6, 8, 12], 6), "seats": viz.Slider("places", [1, 2, 4, 8, 16, 32], 4),
     "quantum": viz.Slider("quantum of round robin, tokens", [8, 16, 32, 64, 128, 256], 32),
     "known": viz.Choice("lengths are known", ["exactly", "by the prompt", "not at all"], "exactly")},
    presets={"one place": USUAL | {"rate": 2, "seats": 1}, "room for everybody": USUAL | {"seats": 32}, "blind": USUAL | {"known": "not at all"},
             "short turns": USUAL | {"quantum": 8}},
    question="with room for everybody, which policy wins?",
    answer="None: nobody waits, so there is nothing to order. Policies matter where something is scarce.")
racing

# %% key="five-explorer-check"
roomy = racing.preset("room for everybody")
spread_of_means = [float(row[2]) for row in roomy.table.rows]
assert max(spread_of_means) < 1.02 * min(spread_of_means), "with room for all there is nothing to order"
print(roomy.summary)

# %% [markdown] key="end" lang="en"
# ## 6 · What this cannot do
#
# - Our loads came from dice with one face: Poisson arrivals, lognormal lengths, nothing that depends on anything. Real traces are burstier, and the
#   next request often continues the last: **week 4**.
# - All requests were equal, and one promise held for all. Tenants who pay differently, and disturb each other: **week 5**.
# - We let the queue grow. A service can also say no, or later: **week 5**.
# - SJF and SRTF starve the long under steady load. Ageing bounds the wait: **week 6**.
# - An interruption threw the cache away. Moving it: **week 7**; swapping it out: **week 10**.
# - The oracle does not exist: **week 9**.
#
# ### Discussion
#
# 1. A vendor says: "up to 2,000 tokens a second, TTFT below 100 ms." Which five questions do you ask?
# 2. Your P99 of TTFT is met every minute, and the P99 of the day is missed. Can that be? And the other way round?
# 3. Which promise would you make for (a) code completion, (b) a nightly summary of documents, (c) a voice assistant? In which metric, which
#    percentile, over which time?
# 4. The GPU is 100 % busy, the token budget half used, the KV full. What would you buy? What would you change first?
# 5. Round robin is fair. To whom? Name two meanings of fair under which it is not.
#
# **Next:** lab 3, where you write the metrics, the percentiles, the load generators, the policies, the bill and the search yourself.
