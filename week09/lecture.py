"""Week 9 lecture: guessing how long an answer will be, and what a guess is worth. Built into `week09/lecture.ipynb`."""

# %% [markdown] key="goals" lang="en"
# # Week 9 · Prediction
#
# After this lecture you can
#
# 1. make a data set of output lengths by running a model, split it by prompt, and say how good a prediction can be at best;
# 2. build a length predictor from features (regression, buckets, ranking), and judge it by error, accuracy and Kendall's tau;
# 3. say which of these foretells what a scheduler gains, and show it in an experiment;
# 4. use predictions in four places: shortest first, iterative re-prediction, batches of like lengths, reservations;
# 5. say where going by size helps, where it does nothing, whom it hurts, what the predictor itself costs, and what drift does to it.
#
# **Rooms of `llmcourse` that open today:** `predict/`, and in `policies/` the files `ssjf.py`, `isrtf.py`, `ltr.py`, `trail.py`, `multibin.py`, `reservation.py`.
#
# | part | minutes |
# |:--|--:|
# | 1 · What is to be predicted | 15 |
# | 2 · A data set, and how to fool oneself with it | 15 |
# | 3 · Features, a line, a network, buckets, an order | 25 |
# | 4 · Accuracy or order | 10 |
# | 5 · Shortest first, by a guess | 20 |
# | 6 · What an error costs | 15 |
# | 7 · Guess again | 20 |
# | 8 · Bins and reservations | 15 |
# | 9 · The bill, and drift | 10 |
# | 10 · What this cannot do | 5 |
# | **all** | **150** |
#
# Everything runs offline on two CPU cores in about a minute. Each part opens with a question: **answer it before you run
# the next cell.**

# %% key="setup"
import timeit
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pandas as pd
import torch

from llmcourse import viz
from llmcourse.engine import Engine, replay
from llmcourse.kv import ContiguousPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.summary import summary
from llmcourse.policies import FCFS, ISRTF, S3, SJF, SRTF, SSJF, LearningToRank, LimitedPreemption
from llmcourse.policies.multibin import batch_time
from llmcourse.predict import (MLP, BucketClassifier, Constant, LengthData, ListMLE, LognormalNoise, Predictor, Probe, Ridge, accuracy, chance_share, kendall_tau, list_mle, mae,
                               measure_lengths, noise_ceiling, realistic, score, timed, with_predictions)
from llmcourse.predict.accuracy_or_order import SecondsPerRequest, accuracy_or_order
from llmcourse.predict.features import NAMES, by_hand
from llmcourse.viz.bins import closed_batches, tokens_per_step
from llmcourse.viz.series import curve, log_axis
from llmcourse.viz.theme import canvas, finish
from llmcourse.workload import Arrival, Lognormal, Poisson, open_loop
from llmcourse.workload import Constant as Always

pd.set_option("display.max_colwidth", None)
data = LengthData.load()
print(f"{len(data)} prompts, {data.samples} answers of course-tiny to each: half of all answers have at most {np.median(data.lengths):.0f} tokens, one in a hundred more than {np.percentile(data.lengths, 99):.0f}")

# %% [markdown] key="one" lang="en"
# ## 1 · What is to be predicted
#
# *Question: a request has just arrived: a prompt and nothing else. What would a scheduler like to know, and from what could anybody know it?*
#
# It knows how long the prompt is. It would like to know how long the **answer** will be: that decides how long a seat is taken, how much memory will be needed, and whom to let go first. Since week 3 our
# policies SJF and SRTF have gone by `request.predicted`, and an oracle has filled it in. Today the oracle goes.
#
# | what is predicted | good for | who needs it |
# |:--|:--|:--|
# | a **number** of tokens | memory, waiting times, cost | reservations (S3), admission, week 10's QLM |
# | a **class** ("below 50 tokens") | bins, coarse order | SSJF, multi-bin batching |
# | an **order** (a before b) | who goes first | learning to rank |
# | what **remains**, again and again | who gives way | ISRTF, TRAIL |
#
# But can it be known? A model *samples*. Below, course-tiny answers four prompts 16 times each, at temperature 1. *Predict: for which of the four could the best predictor there is say the exact number?*

# %% key="one-samples"
ASKED = ["Count from 3 to 19.", "Explain why the sky is blue.", "Can you write a tale of a farmer and a dog?", "Count from 5 to 70 in steps of 5."]
tiny = Engine.from_model("course-tiny", num_blocks=1024, max_running=64, device="cpu")
again = measure_lengths(tiny, ASKED, 16, max_tokens=400)
figure = viz.length_distribution({prompt: lengths.tolist() for prompt, lengths in zip(ASKED, again.lengths, strict=True)}, "Four prompts, sixteen answers each")
viz.show(figure, alt=viz.summary(figure))
spread = {prompt: lengths.max() / lengths.min() for prompt, lengths in zip(ASKED, again.lengths, strict=True)}
assert spread[ASKED[0]] < 1.2 and spread[ASKED[2]] > 3, "counting has one length, a tale has many"
print(f"The longest tale has {spread[ASKED[2]]:.0f} times the tokens of the shortest, of the same prompt.")

# %% [markdown] key="one-ceiling-text" lang="en"
# Some prompts say everything about the length of their answer, some nothing, and *nobody* can know the rest on arrival: it has not been decided yet. That gives a ceiling. Guess each answer by the **other answers to the
# same prompt**: whoever knows only the prompt can hardly do better. If a predictor comes near the ceiling, a better one is not worth looking for. If it goes above, look for a leak.

# %% key="one-ceiling"
ceiling = noise_ceiling(data.lengths)
rows = []
for kind in sorted(set(data.kinds)):
    part = data.select([row for row, name in enumerate(data.kinds) if name == kind])
    rows.append((kind, len(part), float(np.median(part.lengths)), f"{chance_share(part.lengths):.0%}", round(noise_ceiling(part.lengths).mae, 1)))
kinds = pd.DataFrame(rows, columns=["task", "prompts", "median tokens", "of the variance of log length, chance", "mean error of the best guess"]).set_index("task")
print(f"All prompts together: {chance_share(data.lengths):.0%} of the variance is chance, tau at best about {ceiling.tau:.2f}, mean error {ceiling.mae:.1f} tokens")
assert 0.85 < ceiling.tau < 0.97 and chance_share(data.select([r for r, k in enumerate(data.kinds) if k == "story"]).lengths) > 0.9
kinds.sort_values("median tokens")

# %% [markdown] key="one-note" lang="en"
# Over all prompts chance is a small share of the variance: *which task it is* tells most of the length. But among stories the prompt tells nothing, and stories are the long ones: they make nearly all of the error in tokens. A real chat service is more like the stories than like the counting: SSJF's
# published predictions for Vicuna reach a tau of 0.64 (Qiu et al., 2024).
#
# <details><summary>Misconception: "with a better model the prediction becomes exact"</summary>
#
# The length of a sampled answer is a random variable. A predictor can know its distribution, at most. What remains can only be learnt later, from the answer itself: part 7.
# </details>

# %% [markdown] key="two" lang="en"
# ## 2 · A data set, and how to fool oneself with it
#
# *Question: six answers to each of 882 prompts are 5,292 examples. You put a quarter of them aside for testing. Which quarter?*
#
# Data come from running the model that will be served: `llmcourse data lengths` does it in a minute (`predict/measure.py`); a service has its own log. Another model, another temperature or another
# system prompt make another data set.
#
# Now a predictor that knows nothing of language. It **remembers**: for a prompt it has seen it says what came, for any other the median. *Predict its tau, when examples are put aside by answer, and when by prompt.*

# %% key="two-leak"
class Memory(Predictor):
    """Says what it saw; of anything new it knows only what is usual."""

    name = "memory"

    def fit(self, data, progress=None):
        """Mean length by prompt."""
        self.seen, self.usual = dict(zip(data.prompts, data.lengths.mean(axis=1), strict=True)), float(np.median(data.lengths))
        return self

    def predict(self, prompts):
        """Look it up."""
        return np.array([self.seen.get(prompt, self.usual) for prompt in prompts])


by_answer = LengthData(data.prompts, data.lengths[:, :4]), LengthData(data.prompts, data.lengths[:, 4:])
train, test = data.split(held_out=0.25, seed=0)
leaked, honest = (score(Memory().fit(learn), examine) for learn, examine in (by_answer, (train, test)))
assert leaked.tau > 0.85 and honest.tau == 0.0
pd.DataFrame([("by answer: the prompt is on both sides", f"{leaked.tau:.2f}", f"{leaked.mae:.1f}"), ("by prompt", f"{honest.tau:.2f}", f"{honest.mae:.1f}")],
             columns=["put aside", "tau of a predictor that only remembers", "mean error, tokens"]).set_index("put aside")

# %% [markdown] key="two-note" lang="en"
# `LengthData.split` puts whole prompts aside, and takes two wordings that differ only in case, spaces or punctuation for one prompt. Three more ways to fool oneself:
#
# 1. **The answer in the features.** A log says how long the answer was, when it ended, what it cost. A feature that is not there at the arrival must not be in the training data either. Our predictors see prompts; a test permutes the
#    lengths of what they are asked and asks for the same predictions.
# 2. **Only those that ended.** Answers that were cut off, refused or still run are missing or too short in the log. Those are the long ones.
# 3. **Yesterday's users.** Part 9.

# %% [markdown] key="three" lang="en"
# ## 3 · Features, a line, a network, buckets, an order
#
# *Question: what would you look at, if you had to guess the length of an answer from the prompt in a tenth of a millisecond?*
#
# SSJF fine-tunes BERT, learning to rank an OPT with 125 million parameters, ELIS builds on a sentence encoder (`predict/encoder.py` does this, where `transformers` is installed). Ours look at what a person would look at (`predict/features.py`):
# how long the prompt is, which numbers it names and how far they lie apart, which verb asks, and a bag of words.

# %% key="three-features"
shown = [(prompt, *np.round([dict(zip(NAMES, by_hand(prompt), strict=True))[name] for name in ("words", "numbers", "from first to last", "count", "story", "explain")], 2)) for prompt in ASKED]
pd.DataFrame(shown, columns=["prompt", "log words", "log numbers", "log distance", "count", "story", "explain"]).set_index("prompt")

# %% [markdown] key="three-models" lang="en"
# Two of the four are misread: "tale" is not among the words that these features know, and the last number of "in steps of 5" is the step, so the distance is 0. That is why the bag of words stands beside them, and what a fine-tuned
# BERT gets right for some milliseconds more.
#
# <details><summary>"Why not ask the model itself how long its answer will be?"</summary>
#
# Zheng et al. (2023) do: tuned for it, Vicuna 7B says the length before it answers. By their own figures it is off by 62 tokens on average, within 50 tokens in 59 % of the cases and within 100 in 81 %. It costs a
# prompt of the large model, where a proxy costs one of a small one; and it does not know the dice of the sampler either.
# </details>
#
# Five ways to learn from the features. Lengths differ by factors, so the two that predict a number measure their error in **logarithms**.
#
# | predictor | asks | loss |
# |:--|:--|:--|
# | constant | nothing: the median for everybody | |
# | ridge | how long? | squares of log length, plus a penalty on large weights; solved at once |
# | network (MLP) | how long? | absolute error of log length |
# | buckets | which of five classes? (cuts at 25, 50, 75, 99 % of the answers) | cross entropy |
# | ListMLE | in which order? | below |
#
# **ListMLE** (Xia et al., 2008; for serving Fu et al., 2024) takes a list of prompts whose true order is known, $\pi$ = shortest first. The network gives each a score $s$. Draw one prompt after the other, each time from all that are left,
# with a weight of $e^{-s}$. The loss is the negative logarithm of the probability that this gives the true order:
# $$L = -\sum_i \log \frac{e^{-s_{\pi(i)}}}{\sum_{k \ge i} e^{-s_{\pi(k)}}}$$
# *Three answers with 5, 20 and 80 tokens. Predict which scores have the smallest loss: (0, 0, 0), (1, 2, 3), (3, 2, 1) or (10, 20, 30)?*

# %% key="three-listmle"
lengths = torch.tensor([[5.0, 20.0, 80.0]])
losses = {scores: float(list_mle(torch.tensor([scores], dtype=torch.float32), lengths)) for scores in ((0, 0, 0), (1, 2, 3), (3, 2, 1), (10, 20, 30))}
assert abs(losses[0, 0, 0] - np.log(6)) < 1e-5, "without scores all six orders are equally likely"
assert losses[10, 20, 30] < losses[1, 2, 3] < losses[0, 0, 0] < losses[3, 2, 1]
pd.DataFrame([(str(scores), round(loss, 4), f"{np.exp(-loss):.1%}") for scores, loss in losses.items()], columns=["scores", "loss", "chance of the true order"]).set_index("scores")

# %% [markdown] key="three-tau" lang="en"
# The numbers mean nothing, their order everything. So how is a ranker judged? **Kendall's tau**: of all pairs, the share put in the right order, less the share put in the wrong one. 1 is the true order, 0 a coin, -1 the reverse. Ties need
# care: whoever says "50" of everybody has no pair wrong. Tau-b divides by the pairs that *could* have been told apart, on either side (`predict/evaluate.py` counts it in O(*n* log *n*)).

# %% key="three-train"
PREDICTORS = {"constant": Constant(), "ridge": Ridge(bag=True), "network": MLP(steps=150), "five buckets": BucketClassifier(steps=150), "ten wide buckets": BucketClassifier(range(51, 510, 51), steps=150),
              "ListMLE": ListMLE(1, steps=150)}
CUTS = np.percentile(train.lengths, (25, 50, 75, 99))
rows, seen = [], {}
for name, predictor in PREDICTORS.items():
    seen[name] = score(predictor.fit(train), test, CUTS)
    timed(predictor, test.prompts[:40])
    rows.append((name, round(seen[name].tau, 2), *(("", "") if predictor.is_ranker else (round(seen[name].mae, 1), f"{seen[name].accuracy:.0%}")), f"{1e6 * predictor.seconds_per_request:.0f}"))
top = noise_ceiling(test.lengths)
rows.append(("the other answers to the prompt", round(top.tau, 2), round(top.mae, 1), "", ""))
assert 0.6 < seen["ridge"].tau < top.tau and seen["network"].mae < 0.75 * seen["constant"].mae and seen["ListMLE"].tau >= 0.6
assert seen["ten wide buckets"].tau < seen["five buckets"].tau - 0.2 and np.mean(data.lengths <= 102) > 0.8
pd.DataFrame(rows, columns=["predictor, on prompts it never saw", "tau", "mean error, tokens", "right of five classes", "µs a prompt, here"]).set_index("predictor, on prompts it never saw")

# %% [markdown] key="three-note" lang="en"
# No GPU, and some seconds of training: that goes most of the way from 0 to the ceiling; the rest is lab 9. (`save_predictor` and `load_predictor` of `predict/store.py` keep what was trained in a file; it says the same to the last bit.) Notice that ten wide buckets have a worse tau than the same network with five classes of like numbers: nearly all answers fall into the first two, and are tied.
#
# <details><summary>Misconception: "a ranker is a regression that is worse at numbers"</summary>
#
# It is trained for another question. It cannot say how much memory to keep, and needs no idea of tokens: a ranker for two models at once would not have to know their speeds. Whether it *orders* better than a regression depends on the data;
# here they are close, and one seed is not a proof.
# </details>

# %% [markdown] key="four" lang="en"
# ## 4 · Accuracy or order
#
# *Question: one classifier is right 97 times in 100, the other once in eight. Which do you give to the scheduler?*
#
# Chat lengths are skewed: with buckets a tenth of the longest length wide, nearly all answers are in the first. Below are classifiers that all have the **same knowledge**, a noisy signal of the length, and differ only in their buckets. Then the
# shortest go first by what each says, on 32 slots at 1.2 times the load they can carry (`predict/accuracy_or_order.py`). *Predict the order by latency.*

# %% key="four-order"
outcomes = accuracy_or_order(SJF, count=400, load=1.2, widths=(10, 200, 819))
names = {None: "first come, first served", 0: "oracle", **{width: f"buckets of {width}" for width in (10, 200, 819)}}
found = {names[one.width]: one for one in outcomes}
narrow, wide = found["buckets of 10"], found["buckets of 819"]
assert wide.accuracy > 0.9 > 0.3 > narrow.accuracy and narrow.tau > 2 * wide.tau and narrow.mean_jct < found["buckets of 200"].mean_jct < wide.mean_jct
assert 0.5 < found["buckets of 200"].tau < narrow.tau and found["buckets of 200"].mean_jct < 1.1 * narrow.mean_jct
print(f"Accuracy {wide.accuracy:.0%} with tau {wide.tau:.2f} leaves a request {wide.mean_jct:.1f} s; accuracy {narrow.accuracy:.0%} with tau {narrow.tau:.2f} leaves it {narrow.mean_jct:.1f} s; the oracle {found['oracle'].mean_jct:.1f} s")
pd.DataFrame([(name, "" if one.accuracy is None else f"{one.accuracy:.0%}", "" if one.tau is None else f"{one.tau:.2f}", round(one.mean_jct, 2), round(one.tokens_per_second)) for name, one in found.items()],
             columns=["", "accuracy", "tau", "mean time of a request, s", "tokens/s"]).set_index("")

# %% [markdown] key="four-note" lang="en"
# Accuracy foretells nothing: it depends on how the buckets were cut. Tau foretells the benefit, roughly: the three classifiers stand in the same order by tau and by latency, but from a tau of 0.56 to 0.71 there is little left to win. (Fu et al. report the same contrast: an accuracy of 0.97 with a tau of 0.21 for buckets of
# 820 tokens, 0.62 for their ranker. The lengths here are not theirs.) What tau does not see: *which* pairs are wrong. A mistake between 1,000 and 20 tokens costs more than one between 30 and 20, and both count as one pair.

# %% [markdown] key="five" lang="en"
# ## 5 · Shortest first, by a guess
#
# *Question: at what load does it matter who goes first?*
#
# A world for the rest of the lecture: 32 slots, steps of 12 ms plus 0.2 ms per request, chat-like lengths (log-normal, median 100, cut at 1,024 tokens), Poisson arrivals. Load 1.0 is what the slots can serve. Output lengths are hidden from the
# scheduler, every request asks for 1,024 tokens. A *log-normal error with sigma 0.6* multiplies the truth by a random factor: one guess in three is wrong by more than 1.8 times, either way.
#
# | policy | goes by | pushes others out |
# |:--|:--|:--|
# | SJF, oracle | the truth | no |
# | **SSJF** | five classes with the accuracy and tau that SSJF published (0.60, 0.64); ageing when somebody waits too long | no |
# | **ISRTF-50** | what remains of a guess with a log-normal error (sigma 0.6): the guess less what has come, looked at every 50 tokens (a *new* guess: part 7) | yes |
# | **LTR** | a score with the same error, given once; who idled 200 steps is promoted for 10 | yes |
# | **SRTF, oracle** | the true remainder, at every token | yes |
#
# Who is pushed out keeps its KV (week 10 charges for that). *Predict the change in mean latency, in P99 and in tokens/s, at 0.7, 0.9, 1.0 and 1.2.*

# %% key="five-map"
WORLD, LENGTHS, LONGEST = SecondsPerRequest(), Lognormal(100, sigma=1.1), 1024
MEAN = float(np.minimum(LENGTHS.at((np.arange(10_000) + 0.5) / 10_000), LONGEST).mean())
CAPACITY = 1 / (MEAN * (WORLD.step / 32 + WORLD.request) + 60 * WORLD.token)
LOADS = (0.7, 0.9, 1.0, 1.2)


@lru_cache
def chat(load, count=1000, seed=1):
    """Requests of a chat at so much of the capacity."""
    return [replace(arrival, output_tokens=min(arrival.output_tokens, LONGEST)) for arrival in open_loop(Poisson(load * CAPACITY), Always(60), LENGTHS, count, seed)]


def serve(policy, work, **options):
    """Serve it on 32 simulated slots: summary, tokens/s up to the last arrival, the engine, the table."""
    engine, rates = Engine.simulated(policy=policy, max_running=32, ledger=Ledger(), **({"cost": WORLD, "parking": True, "num_blocks": 200_000} | options)), []

    def watch(ended):
        if not rates and engine.clock.now > work[-1].time:
            rates.append(float(engine.table()["output_tokens"].sum() / engine.clock.now))
    table = replay(engine, work, declared=LONGEST, progress=watch)
    return summary(table), rates[0], engine, table


def signed(share):
    """A change in per cent; one that rounds to nothing has no sign."""
    return f"{share:+.0%}" if abs(share) >= 0.005 else "0%"


TOLD = {"oracle": LognormalNoise(0.0), "five classes": realistic(), "sigma 0.6": LognormalNoise(0.6)}
FAMILY = {"SSJF": (SSJF, "five classes"), "SJF, oracle": (SJF, "oracle"), "LTR": (LearningToRank, "sigma 0.6"), "ISRTF-50": (ISRTF, "sigma 0.6"), "SRTF, oracle": (SRTF, "oracle")}
rows, change, plain, seen_map = [], {}, {}, {}
for load in LOADS:
    plain[load] = base, base_rate, *_ = serve(FCFS(), chat(load))
    rows.append((load, "FCFS", "", f"{base.e2e.mean:.2f} s", f"{base.e2e.p50:.2f} s", f"{base.e2e.p99:.1f} s", f"{base.ttft.mean:.2f} s", f"{base_rate:.0f}"))
    for name, (policy, source) in FAMILY.items():
        work = with_predictions(chat(load), TOLD[source], 7)
        lived, rate, *_ = seen_map[load, name] = serve(policy(), work)
        change[load, name] = [lived.e2e.mean / base.e2e.mean - 1, lived.e2e.p50 / base.e2e.p50 - 1, lived.e2e.p99 / base.e2e.p99 - 1, lived.ttft.mean / base.ttft.mean - 1, rate / base_rate - 1]
        rows.append((load, name, f"{kendall_tau([a.output_tokens for a in work], [a.predicted for a in work]):.2f}", *(signed(value) for value in change[load, name])))
regime = pd.DataFrame(rows, columns=["load", "policy", "tau", "mean latency", "P50", "P99 (of 1,000)", "mean TTFT", "tokens/s"]).set_index(["load", "policy"])
assert all(abs(values[4]) < 0.05 for values in change.values()), "nobody makes more tokens a second"
assert all(abs(change[0.7, name][0]) < 0.02 for name in FAMILY) and all(change[1.2, name][0] < -0.25 for name in FAMILY)
assert all(change[1.2, name][2] > 0 for name in FAMILY) and change[1.2, "SJF, oracle"][2] > 0.5, "the longest pay"
regime

# %% [markdown] key="five-note" lang="en"
# Read the table by **regime**:
#
# - **0.7**: nobody waits, so there is nothing to reorder. Every policy is FCFS.
# - **0.9**: the first token comes earlier, the whole answer hardly.
# - **1.0**: a queue, and now who goes first matters.
# - **1.2**: the queue grows as long as the load lasts. The mean falls to a fraction, because the long ones are put off until the rush is over. Look at **P99**: they are still there.
# - **tokens/s**: within a few per cent everywhere. Going by size decides **who waits**, not how much is done.
#
# A paper's ratio is a point in this table. `llmcourse bench decide --only size` makes it with 3,000 requests and three seeds, with the spread.

# %% key="five-hurts"
_, _, _, first_come = plain[1.2]
_, _, _, shortest = seen_map[1.2, "SJF, oracle"]
edges = (0, 50, 100, 200, 400, 1025)
rows = []
for low, high in pairwise(edges):
    inside = [(table["output_tokens"] >= low) & (table["output_tokens"] < high) for table in (first_come, shortest)]
    times = [float(table["e2e"][rows_in].mean()) for table, rows_in in zip((first_come, shortest), inside, strict=True)]
    rows.append((f"{low} to {high - 1}", int(inside[0].sum()), round(times[0], 1), round(times[1], 1), f"{times[1] / times[0] - 1:+.0%}"))
assert rows[0][3] < rows[0][2] and rows[-1][3] > rows[-1][2], "the short gain, the long lose"
pd.DataFrame(rows, columns=["output tokens", "requests", "FCFS, mean s", "SJF (oracle), mean s", "change"]).set_index("output tokens")

# %% [markdown] key="five-papers" lang="en"
# Three figures that are often quoted:
#
# <details><summary>SSJF: "throughput 2.2 to 3.6 times higher"</summary>
#
# Quoted rightly, from the abstract. *Throughput* there is a quarter of the jobs, divided by the time at which that quarter has ended; 50 jobs, batches of 1 or 2, simulated. The shortest quarter ends earlier when the shortest go first: that is the
# definition of the policy. Over the whole run throughput does not change. The next cell computes both for our run.
# </details>
#
# <details><summary>ELIS: "job completion time 19.6 % lower"</summary>
#
# *Up to* 19.6 %, the largest cell of the table. The gain is modest because continuous batching has removed most of the blocking at the head of the line already.
# </details>
#
# <details><summary>Learning to rank: "2.8 times lower latency, 6.5 times the throughput"</summary>
#
# The 2.8 is the mean of latency **per token**, which weights short answers heavily: ten seconds of waiting are 2 s/token for an answer of five tokens, and nothing for one of a thousand. The 6.5 is the time to get the first 1,000 completions out
# of 10,000 prompts: again the short ones, first.
# </details>

# %% key="five-definitions"
def quarter_rate(table):
    """A quarter of the jobs, divided by the time at which a quarter has ended: SSJF's throughput."""
    ends = np.sort(np.asarray(table["arrival"] + table["e2e"], dtype=float))
    return len(ends) / 4 / ends[len(ends) // 4 - 1]


burst = [replace(arrival, time=0.0) for arrival in chat(1.2, 400)]
runs = {"FCFS": serve(FCFS(), burst), "SJF, oracle": serve(SJF(), with_predictions(burst, TOLD["oracle"], 7))}
quarter, whole, per_token = ({name: value(run) for name, run in runs.items()} for value in
                             (lambda run: quarter_rate(run[3]), lambda run: run[0].output_rate, lambda run: run[0].normalised.mean))
assert quarter["SJF, oracle"] > 2 * quarter["FCFS"] and whole["SJF, oracle"] < 1.15 * whole["FCFS"]
print(f"400 requests at once, SJF against FCFS: 'throughput' by the first quarter {quarter['SJF, oracle'] / quarter['FCFS']:.1f} times, tokens/s of the whole run {whole['SJF, oracle'] / whole['FCFS']:.2f} times; "
      f"mean latency {runs['FCFS'][0].e2e.mean / runs['SJF, oracle'][0].e2e.mean:.1f} times lower, latency per token {per_token['FCFS'] / per_token['SJF, oracle']:.1f} times lower")

# %% [markdown] key="six" lang="en"
# ## 6 · What an error costs
#
# *Question: every prediction is wrong by a factor: one in three by more than 1.8 (sigma 0.6 in log length). How much of the oracle's gain is left?*
#
# Log-normal errors of growing sigma, at load 1.2. Then two errors of another kind: everything **twice too long**, and the five classes. *Predict the curve, and where "twice too long" lies.*

# %% key="six-error"
class Twice:
    """Always twice the truth."""

    def guess(self, lengths, rng):
        """No chance in it."""
        return 2 * lengths


SOURCES = {"oracle": LognormalNoise(0.0), "sigma 0.3": LognormalNoise(0.3), "sigma 0.6": LognormalNoise(0.6), "sigma 1": LognormalNoise(1.0), "sigma 2": LognormalNoise(2.0), "sigma 4": LognormalNoise(4.0),
           "twice too long": Twice(), "five classes": realistic()}
base = plain[1.2][0].e2e.mean
errors = {}
for name, source in SOURCES.items():
    work = with_predictions(chat(1.2), source, 7)
    truth, said = [a.output_tokens for a in work], [a.predicted for a in work]
    errors[name] = kendall_tau(truth, said), mae(truth, said), serve(SJF(), work)[0].e2e.mean
best = errors["oracle"][2]
line = [name for name in SOURCES if name == "oracle" or name.startswith("sigma")]
figure = canvas("Mean latency against Kendall's tau, load 1.2", 420)
figure.add_trace(curve("log-normal errors", [errors[name][0] for name in line], [errors[name][2] for name in line], 0))
for index, name in enumerate(("twice too long", "five classes"), 1):
    figure.add_trace(curve(name, [errors[name][0]], [errors[name][2]], index))
figure.add_trace(curve("first come, first served", [0, 1.02], [base, base], 3, markers=False))
figure.update_xaxes(title_text="Kendall's tau", range=[0, 1.04])
figure.update_yaxes(title_text="mean latency, s", range=[0, 1.2 * base])
kept = {name: (base - seconds) / (base - best) for name, (_, _, seconds) in errors.items()}
finding = (f"FCFS {base:.1f} s, oracle {best:.1f} s. Of this gain sigma 0.6 (tau {errors['sigma 0.6'][0]:.2f}) keeps {kept['sigma 0.6']:.0%}, sigma 1 (tau {errors['sigma 1'][0]:.2f}) {kept['sigma 1']:.0%}, "
           f"sigma 2 (tau {errors['sigma 2'][0]:.2f}) {kept['sigma 2']:.0%}; everything twice too long keeps {kept['twice too long']:.0%} with a mean error of {errors['twice too long'][1]:.0f} tokens.")
viz.show(finish(figure, finding, ("error", "tau", "mean error, tokens", "mean latency, s", "of the gain"), [(name, round(tau, 2), round(error), round(seconds, 2), f"{kept[name]:.0%}") for name, (tau, error, seconds) in errors.items()]), alt=finding)
assert errors["twice too long"][0] == 1.0 and errors["twice too long"][2] == best and errors["twice too long"][1] > errors["sigma 0.6"][1]
assert errors["sigma 1"][0] < errors["five classes"][0] < errors["sigma 0.6"][0] and kept["five classes"] < kept["sigma 1"]
assert kept["sigma 0.3"] > kept["sigma 1"] > kept["sigma 2"] > kept["sigma 4"] - 0.05
print(finding)

# %% [markdown] key="six-scatter-text" lang="en"
# A scheduler is a good-natured customer: a wrong factor costs it nothing, and moderate noise little. The five classes lie above the curve: about the same tau as sigma 0.6 to 1, and a longer wait. Tau counts pairs and not tokens, and who is in
# a wrong class here may be wrong by far. Whoever **reserves memory** pays for every factor (part 8).
#
# Now the predictors of part 3, on prompts of course-tiny that they never saw. Each dot is a request; the bars are the mean latency when 500 of them come at 1.3 times the capacity. Choose a predictor, add noise, multiply all by a factor, round to buckets.
# *Predict before you move: which of the controls changes the error and not the bars? Which leaves the error nearly alone and changes the bars?*

# %% key="six-scatter"
TEST_MEAN = float(test.lengths.mean())
TEST_RATE = 1.3 / (TEST_MEAN * (WORLD.step / 32 + WORLD.request) + 60 * WORLD.token)
draw = np.random.default_rng(3)
ROWS, COLUMNS = draw.integers(len(test), size=500), draw.integers(test.samples, size=500)
TRUTH, NORMAL = test.lengths[ROWS, COLUMNS], draw.standard_normal(500)
COMING = [Arrival(arrival.time, 60, int(length)) for arrival, length in zip(open_loop(Poisson(TEST_RATE), Always(60), Always(10), 500, 4), TRUTH, strict=True)]
CHOSEN = {"oracle": None, **PREDICTORS}


@lru_cache
def spoken(predictor, noise, times, buckets):
    """What the predictor says of the 500 requests, spoilt as asked; and the cuts, if it was rounded to buckets."""
    model = CHOSEN[predictor]
    if model is not None and model.is_ranker:
        return model.predict(test.prompts)[ROWS] + noise * NORMAL, ()
    said = np.maximum((TRUTH if model is None else model.predict(test.prompts)[ROWS]) * np.exp(noise * NORMAL) * times, 1.0)
    if not buckets:
        return said, ()
    cuts = np.unique(np.quantile(TRUTH, np.arange(1, buckets) / buckets))
    place = np.searchsorted(cuts, said)
    middle = [np.median(TRUTH[np.searchsorted(cuts, TRUTH) == k]) if (np.searchsorted(cuts, TRUTH) == k).any() else 1 for k in range(len(cuts) + 1)]
    return np.array(middle)[place], tuple(cuts)


@lru_cache
def latency(predictor, noise, times, buckets):
    """Mean seconds of a request when the shortest go first by these predictions; by arrival for "" ."""
    said = spoken(predictor, noise, times, buckets)[0] if predictor else TRUTH
    return serve(SJF() if predictor else FCFS(), [replace(one, predicted=float(tokens)) for one, tokens in zip(COMING, said, strict=True)])[0].e2e.mean


def scatter(predictor, noise, times, buckets):
    """Predicted against actual, and the mean latency that comes of it."""
    said, cuts = spoken(predictor, noise, times, buckets)
    bars = {"FCFS": latency("", 0, 1, 0), "this": latency(predictor, noise, times, buckets), "oracle": latency("oracle", 0, 1, 0)}
    return viz.prediction_scatter(TRUTH, said, bars, cuts, predictor == "ListMLE", f"{predictor}: predicted and actual length")


start = {"predictor": "network", "noise": 0, "times": 1, "buckets": 0}
prediction = viz.Explorer(
    "Prediction scatter", scatter,
    {"predictor": viz.Choice("predictor", list(CHOSEN), "network"), "noise": viz.Slider("noise, sigma", [0, 0.3, 0.6, 1.0, 2.0], 0), "times": viz.Slider("times", [0.25, 0.5, 1, 2, 4], 1),
     "buckets": viz.Slider("buckets", [0, 2, 3, 5, 10], 0, labels=["none", "2", "3", "5", "10"])},
    presets={"network": start, "four times too much": start | {"times": 4}, "noisy": start | {"noise": 2.0}, "two buckets": start | {"predictor": "oracle", "buckets": 2}, "only an order": start | {"predictor": "ListMLE"},
             "wide buckets": start | {"predictor": "ten wide buckets"}},
    question="Which change moves the error and not the bars? Which moves the bars most?",
    answer="A factor changes the error and neither tau nor the latency. Noise changes both. A ranker has no error in tokens at all. Wide buckets tie most requests: tau falls, and the latency goes back towards FCFS.")
assert prediction.set(times=4).summary != prediction.preset("network").summary
assert latency("network", 0, 4, 0) == latency("network", 0, 1, 0) and latency("oracle", 0, 1, 0) < latency("network", 0, 1, 0) < latency("", 0, 1, 0)
prediction

# %% [markdown] key="six-foretells-text" lang="en"
# So which number, known before anything is served, foretells the latency? Fifteen settings of the widget, each judged by three numbers; then Kendall's tau *of the judgement*: how well does the order by error, by accuracy (of five classes), by tau agree with the
# order by latency? *Predict the three.* A fourth is tau in which a pair counts by how many tokens its two lengths differ.

# %% key="six-foretells"
SETTINGS = [(name, noise, times, 0) for name in ("oracle", "ridge", "network", "five buckets", "ten wide buckets") for noise, times in ((0, 1), (1.0, 1), (0, 4))]
FIVE = np.unique(np.quantile(TRUTH, (0.25, 0.5, 0.75, 0.99)))


def by_tokens(truth, said):
    """Kendall's tau, each pair with the weight of its difference in tokens."""
    apart = np.subtract.outer(truth, truth).astype(float)
    return float((apart * np.sign(np.subtract.outer(said, said))).sum() / np.abs(apart).sum())


judged = []
for setting in SETTINGS:
    said = spoken(*setting)[0]
    judged.append((mae(TRUTH, said), -accuracy(TRUTH, said, FIVE), -kendall_tau(TRUTH, said), -by_tokens(TRUTH, said), latency(*setting)))
*measures, took = np.array(judged).T
foretells = dict(zip(("error in tokens", "accuracy of five classes", "tau", "tau by tokens"), (kendall_tau(measure, took) for measure in measures), strict=True))
assert foretells["tau by tokens"] > foretells["tau"] > max(foretells["error in tokens"], foretells["accuracy of five classes"]) + 0.2
pd.DataFrame([(name, round(agreement, 2)) for name, agreement in foretells.items()], columns=["judged by", "agreement with the order by latency (1: the same)"]).set_index("judged by")

# %% [markdown] key="six-foretells-note" lang="en"
# Of the three usual numbers tau is the best and the others foretell next to nothing; but it is no oracle either. The ten wide buckets have a low tau, because they tie all the short ones, and a latency like that of the five classes: the pairs they
# leave open differ by few tokens, so it hardly matters who goes first. Weighted by tokens the order agrees better. One workload and fifteen settings: a hint, not a law.

# %% [markdown] key="seven" lang="en"
# ## 7 · Guess again
#
# *Question: a story was expected to have 100 tokens. 150 have come. What do you expect now, and from what?*
#
# A guess made at the arrival goes stale. **ISRTF** (ELIS, Choi et al., 2025) asks the predictor again after every window of *K* tokens, with the prompt and the answer so far, and lets go first whoever has least left. **TRAIL** (Shahout et al., 2025)
# asks at every token, and asks the *served model itself*: a small network (a **probe**) reads from a hidden state, which is there anyway, how much is still to come. From token to token its answers are smoothed as in a
# Bayesian filter. It learns by looking on while the training answers are written.
#
# Three guesses of what is left, after so many tokens: the **first guess** less what has come; the **clock** (the median of what answers of this kind that got so far had left in training); the **probe**. For tasks that list or count, and for
# stories. *Predict which of the three errs least; and of which of the two tasks the probe can tell who has more left than another.*

# %% key="seven-probe"
probe = Probe(steps=600).fit(train)
LISTING = ("list", "lines", "count", "count_by", "countdown")
POINTS = (0, 20, 40, 80)
rows, wrong, order = [], {}, {}
for family, tasks in {"lists, counting": LISTING, "stories": ("story",)}.items():
    told = train.lengths[[row for row, kind in enumerate(train.kinds) if kind in tasks]].ravel()
    left = {point: [] for point in POINTS}
    for row in (row for row, kind in enumerate(test.kinds) if kind in tasks):
        answer, first = test.answers[row], float(PREDICTORS["network"].predict([test.prompts[row]])[0])
        tracked = probe.track(test.tokens[row], answer[:-1])
        for point in (point for point in POINTS if point < len(answer)):
            left[point].append((len(answer) - point, max(first - point, 1.0), np.median(told[told > point] - point), tracked[point]))
    for point, found in left.items():
        true, *guesses = np.array(found).T
        wrong[family, point], order[family, point] = [float(np.abs(guess - true).mean()) for guess in guesses], kendall_tau(true, guesses[-1])
        rows.append((family, point, len(found), round(true.mean()), *(round(error) for error in wrong[family, point]), round(order[family, point], 2)))
assert all(wrong[family, 80][2] < 0.8 * wrong[family, 80][0] for family in ("lists, counting", "stories")), "who looks on knows more than who guessed once"
assert abs(wrong["stories", 80][2] / wrong["stories", 80][1] - 1) < 0.2, "of a story the probe knows about what the clock tells"
told_apart = {family: float(np.mean([order[family, point] for point in POINTS[1:]])) for family in ("lists, counting", "stories")}
assert told_apart["lists, counting"] > told_apart["stories"] + 0.05, "a list tells how much of it is still to come"
states = torch.randn(32, len(probe.mean))
alone = min(timeit.repeat(lambda: probe.chances(states), number=20, repeat=5)) / 20 / 32
print(f"Who has more left? Mean tau of the probe after 20, 40 and 80 tokens: {told_apart['lists, counting']:.2f} for lists, {told_apart['stories']:.2f} for stories.")
print(f"Its small network takes {1e6 * alone:.0f} µs a request here, for 32 at once; the hidden states are there anyway.")
pd.DataFrame(rows, columns=["task", "after tokens", "answers still growing", "left on average", "mean error: first guess", "clock", "probe", "tau of the probe"]).set_index(["task", "after tokens"])

# %% [markdown] key="seven-window-text" lang="en"
# How often should one ask? Each request's guess has a log-normal error of sigma 0.6 *in what remains*, drawn anew at every window: the nearer the end, the smaller the error in tokens. *Predict the best window: when displacing and
# predicting are free; when each prediction costs the engine 0.02 ms (a small network and what it takes to call it), or 0.2 ms; and when whoever is displaced must compute its KV again.*

# %% key="seven-window"
class Charged:
    """The same step times, and a prediction for each request in every window."""

    def __init__(self, each):
        self.each = each

    def seconds(self, tokens, requests, context, pairs):
        """Of a step."""
        return WORLD.seconds(tokens, requests, context, pairs) + self.each * requests


def foresight(work, sigma=0.6):
    """A re-predictor for a simulation: what truly remains, times an error that is new in every window."""
    lengths, factors = {}, np.exp(sigma * np.random.default_rng(2).standard_normal(65_536)).tolist()

    def remaining(request):
        number = lengths.setdefault(request.id, len(lengths))
        return (work[number].output_tokens - request.num_output) * factors[(7919 * number + request.num_output) % 65_536]
    return remaining


WINDOWS = (1, 10, 50, 1024)
work = chat(1.0, 600)
first_served = serve(FCFS(), work)[0].e2e.mean
windows = {"all free": [], "a prediction costs 0.02 ms": [], "it costs 0.2 ms": [], "0.02 ms, and KV computed again": []}
rows = []
for window in WINDOWS:
    free = serve(ISRTF(window, foresight(work)), work)
    cheap, dear = (serve(ISRTF(window, foresight(work)), work, cost=Charged(each / window)) for each in (2e-5, 2e-4))
    again = serve(ISRTF(window, foresight(work)), work, parking=False, cost=Charged(2e-5 / window))
    for name, run in zip(windows, (free, cheap, dear, again), strict=True):
        windows[name].append(run[0].e2e.mean)
    rows.append((window, *(round(found[-1], 2) for found in windows.values()), round(again[2].counters.preemptions / len(work), 2), f"{again[2].counters.recomputed_tokens / again[2].counters.computed_tokens:.0%}"))
best_window = {name: WINDOWS[int(np.argmin(found))] for name, found in windows.items()}
figure = canvas("ISRTF: mean latency by the window, load 1.0", 420)
for index, (name, found) in enumerate(windows.items()):
    figure.add_trace(curve(name, WINDOWS, found, index))
log_axis(figure, "x", WINDOWS, "tokens between two predictions (1,024: never again)")
figure.update_yaxes(title_text="mean latency, s", rangemode="tozero")
told_best = "; ".join(f"{name}: best window {best_window[name]} with {min(found):.2f} s (1: {found[0]:.2f}, never again: {found[-1]:.2f})" for name, found in windows.items())
finding = f"First come, first served {first_served:.2f} s. {told_best}."
viz.show(finish(figure, finding, ("window", *windows, "displaced per request", "tokens computed twice"), rows), alt=finding)
assert best_window["all free"] == 1 and best_window["0.02 ms, and KV computed again"] == WINDOWS[-1] and 1 < best_window["a prediction costs 0.02 ms"] < WINDOWS[-1]
assert max(windows["all free"]) < 1.1 * min(windows["all free"]), "between asking always and never lies less than a tenth"
print(finding)

# %% [markdown] key="seven-note" lang="en"
# Look at the scale first. Between *asking at every token* and *never again* lie a few per cent of the mean: going by size at all has brought the gain (the line above shows FCFS), and asking again adds a little. So the price decides. When asking costs nothing, always ask. With a small
# price there is an **interior optimum**, a window of some tokens. With a price ten times as high, or when KV must be computed again, the best window is *never*: ISRTF has become SJF. ELIS takes 50 tokens; which window is right is a question of prices.
#
# Look back at the probe. It never makes the mistake of the first guess, to expect the end *now* because the guess has run out; and its error is about that of the clock, which needs no model at all. What the clock cannot do is tell two answers apart that have come equally far. The probe can,
# a little, where the answer itself says what is to come (a list of 7 items, of which 3 are written); of stories, which end at random, it cannot. TRAIL's authors measure on Llama 3 8B an error 2.66 times smaller than that of BERT on the prompt; a small model and a few hundred prompts are far from that.
#
# ### Leave alone who is nearly done
#
# TRAIL displaces a request only until it has said a share *c* of what was first expected: later it holds more KV, and less is to be won. Here KV is computed again. *Predict mean latency and tokens computed twice over c.*
#
# <details><summary>Misconception: "ISRTF is FastServe's multi-level queue"</summary>
#
# FastServe's MLFQ (week 10) predicts nothing: who has run long sinks. ISRTF ranks by what is to come.
# </details>

# %% key="seven-trail"
rows, limited = [], {}
work = with_predictions(chat(1.0, 600), LognormalNoise(0.6), 7)
for c in (0.0, 0.2, 0.5, 0.8, 1.0):
    lived, _, engine, _ = serve(LimitedPreemption(c), work, parking=False)
    limited[c] = engine.counters.preemptions, engine.counters.recomputed_tokens, lived.e2e.mean
    rows.append((c, round(lived.e2e.mean, 2), round(lived.ttft.mean, 2), engine.counters.preemptions, f"{engine.counters.recomputed_tokens:,}"))
assert limited[0.0][:2] == (0, 0) and limited[0.2][1] < limited[0.8][1] <= limited[1.0][1] and limited[0.2][2] < limited[0.8][2]
pd.DataFrame(rows, columns=["c", "mean latency, s", "mean TTFT, s", "displaced", "tokens computed twice"]).set_index("c")

# %% [markdown] key="seven-trail-note" lang="en"
# The number of displaced hardly changes from 0.2 on; what they had in memory does. The paper's 0.8 is nearly no limit here. And where KV is lost, the mean is lowest when nobody is displaced at all, while the first token comes earlier when somebody is: **which latency** do you promise?

# %% [markdown] key="eight" lang="en"
# ## 8 · Bins and reservations
#
# *Question: an accelerator with fixed shapes computes a batch until its longest answer has ended. Lengths are uniform between 10 and 500. How much is lost, and what do two queues, short and long, win back?*
#
# With continuous batching (week 4) a request leaves when it has ended, and nobody waits for anybody. Where batches are **closed**, sort requests by predicted length into *k* bins with as many requests each, and close a batch when a bin has *B*
# (**multi-bin batching**, Guldogan et al., 2024). In a bin of width $w = (b-a)/k$ the longest of $B$ uniform lengths lies on average $\frac{w}{2}\cdot\frac{B-1}{B+1}$ above the middle of the bin, and the middles average to $\frac{a+b}{2}$:
# $$E[\text{batch}] = \frac{a+b}{2} + \frac{b-a}{2k}\cdot\frac{B-1}{B+1}$$
# Throughput is $B$ over that. *Predict the gain of 2, 4 and 8 bins for B = 32.*

# %% key="eight-form"
uniform = np.random.default_rng(5).integers(10, 501, 32 * 400)
skewed = np.minimum(LENGTHS.sample(np.random.default_rng(6), 32 * 400), LONGEST).astype(int)
noise = np.exp(0.6 * np.random.default_rng(7).standard_normal(len(skewed)))
classes = realistic().guess(skewed.astype(float), np.random.default_rng(8))


def gain(lengths, said, bins, size=32):
    """Tokens a step over those of one bin."""
    return tokens_per_step(closed_batches(lengths.tolist(), said.tolist(), bins, size)) / tokens_per_step(closed_batches(lengths.tolist(), said.tolist(), 1, size))


rows, off = [], []
for bins in (2, 4, 8):
    formula = batch_time(10, 500, 1, 32) / batch_time(10, 500, bins, 32)
    made = gain(uniform, uniform.astype(float), bins)
    off.append(abs(made / formula - 1))
    rows.append((bins, f"{formula:.2f}", f"{made:.2f}", f"{gain(skewed, skewed.astype(float), bins):.2f}", f"{gain(skewed, skewed * noise, bins):.2f}", f"{gain(skewed, classes, bins):.2f}"))
assert max(off) < 0.02, "the closed form holds"
assert float(rows[1][4]) < float(rows[1][3]), "a wrong guess spoils a batch"
pd.DataFrame(rows, columns=["bins", "uniform: closed form", "uniform: made", "chat lengths, known", "chat, sigma 0.6", "chat, five classes"]).set_index("bins")

# %% key="eight-bins"
few_lengths = {"uniform": uniform[:1536], "chat": skewed[:1536]}


def bins_view(lengths, bins, size, sigma):
    """Closed batches of these lengths, sorted by a guess with that error."""
    true = few_lengths[lengths]
    said = true * np.exp(sigma * np.random.default_rng(9).standard_normal(len(true)))
    return viz.batch_bins(true.tolist(), said.tolist(), bins, size)


multibin = viz.Explorer(
    "Bins", bins_view,
    {"lengths": viz.Choice("lengths", list(few_lengths), "uniform"), "bins": viz.Slider("bins", [1, 2, 3, 4, 6, 8], 1), "size": viz.Slider("batch of", [8, 16, 32, 64], 32), "sigma": viz.Slider("error, sigma", [0.0, 0.3, 0.6, 1.0], 0.0)},
    presets={"one queue": {"lengths": "uniform", "bins": 1, "size": 32, "sigma": 0.0}, "four bins": {"lengths": "uniform", "bins": 4, "size": 32, "sigma": 0.0},
             "a chat": {"lengths": "chat", "bins": 4, "size": 32, "sigma": 0.0}, "guessed badly": {"lengths": "chat", "bins": 4, "size": 32, "sigma": 1.0}},
    question="What is the hatched part with one bin, with four? And what does one long answer do in a bin of short ones?",
    answer="With more bins the longest is near the mean of its batch. One request guessed too short makes its whole batch wait: the bars of the short bins shoot up.")
multibin

# %% [markdown] key="eight-note" lang="en"
# The price is the wait until a bin is full: with arrival rate λ about $k(B-1)/(2λ)$ on average. And on top of continuous batching bins win nothing: leaving early already is what endless bins would give.
#
# ### Reserving by prediction
#
# **S3** (Jin et al., 2023) uses the prediction for **memory** that must lie in one piece: room for the predicted bucket instead of the maximum. Whoever outgrows it is thrown out, and comes back with twice as much. *Predict for a guess that is always right, off by sigma 0.6, and always
# twice too long: who fits most requests into the same memory? And what does paging (week 6) leave of the problem?*

# %% key="eight-reserve"
BLOCKS_IN_ALL = 768                                   # of 16 tokens
work = [replace(arrival, time=0.0) for arrival in chat(1.0, 300)]
rows, reserved, thrown = [], {}, {}
for name, source in {"maximum": None, "S3, oracle": "oracle", "S3, sigma 0.6": "sigma 0.6", "S3, twice too long": "twice too long", "paged": None, "paged, 48 at most": None}.items():
    policy = S3() if source else FCFS()
    options = {"block_pool": policy.pool(BLOCKS_IN_ALL), "admission": policy.admission()} if source else {"block_pool": ContiguousPool(BLOCKS_IN_ALL, 16, "max", max_length=LONGEST + 60)} if name == "maximum" else {"num_blocks": BLOCKS_IN_ALL}
    engine = Engine.simulated(cost=WORLD, policy=policy, max_running=48 if name.endswith("at most") else 64, ledger=Ledger(), **options)
    table = replay(engine, with_predictions(work, SOURCES[source], 7) if source else work, declared=LONGEST)
    reserved[name], thrown[name] = float(table["output_tokens"].sum() / engine.clock.now), 100 * engine.counters.preemptions / len(work)
    rows.append((name, round(reserved[name]), f"{reserved[name] / reserved['maximum']:.2f}", round(thrown[name]), f"{engine.counters.recomputed_tokens / engine.counters.computed_tokens:.0%}"))
assert reserved["S3, oracle"] > 1.5 * reserved["maximum"] and reserved["S3, oracle"] > reserved["S3, twice too long"]
assert thrown["paged, 48 at most"] < thrown["paged"] / 3 and reserved["paged, 48 at most"] > 0.97 * reserved["paged"]
pd.DataFrame(rows, columns=["memory", "tokens/s", "to maximum", "thrown out per 100 requests", "computed twice"]).set_index("memory")

# %% [markdown] key="eight-reserve-note" lang="en"
# Here the factor of two that cost the scheduler nothing costs memory. A reservation asks for **magnitude**, a queue for **order**: two customers, two losses. With paging a block is taken when it is needed: no guess, and nothing to reserve. It
# lets in whoever's prompt fits, and throws out when the answers grow (the column shows it). A limit on how many run (week 5, the last row) takes most of that away at about the same tokens/s, and guesses nothing either.

# %% [markdown] key="nine" lang="en"
# ## 9 · The bill, and drift
#
# *Question: BERT takes 8 ms a prompt on a GPU, and on a CPU, say, 100 ms. At which load is that worth it?*
#
# One predictor serves everybody in order of arrival, and a request joins the queue when its guess is ready. We charge that: our own network's time as measured above, 8 ms (SSJF's published predictions took that long), and 100 ms.

# %% key="nine-bill"
def after_predicting(work, seconds):
    """The same requests, each when a single predictor has read it; and how long that took on average."""
    free, ready = 0.0, []
    for arrival in work:
        free = max(free, arrival.time) + seconds
        ready.append(replace(arrival, time=free))
    return ready, float(np.mean([late.time - one.time for one, late in zip(work, ready, strict=True)]))


COSTS = {"nothing": 0.0, f"{1e6 * PREDICTORS['network'].seconds_per_request:.0f} µs (our network)": PREDICTORS["network"].seconds_per_request, "8 ms": 0.008, "100 ms": 0.1}
rows, bill = [], {}
for load in (0.7, 1.2):
    short = chat(load, 600)
    lived = serve(FCFS(), short)[0]
    bill[load, "FCFS"] = lived.e2e.mean
    rows.append((load, "FCFS, no prediction", "", round(lived.ttft.mean, 3), round(lived.e2e.mean, 2)))
    for name, seconds in COSTS.items():
        ready, late = after_predicting(with_predictions(short, TOLD["sigma 0.6"], 7), seconds)
        lived = serve(SJF(), ready)[0]
        bill[load, name] = lived.e2e.mean + late
        rows.append((load, f"SJF, sigma 0.6, a guess costs {name}", f"{load * CAPACITY * seconds:.1%}", round(lived.ttft.mean + late, 3), round(bill[load, name], 2)))
assert bill[0.7, "100 ms"] > bill[0.7, "FCFS"] and bill[1.2, "8 ms"] < 0.7 * bill[1.2, "FCFS"]
assert 1.2 * CAPACITY * 0.1 > 1 and bill[1.2, "100 ms"] > 1.4 * bill[1.2, "8 ms"]
pd.DataFrame(rows, columns=["load", "", "predictor busy", "mean TTFT, s", "mean latency, s"]).set_index(["load", ""])

# %% [markdown] key="nine-drift-text" lang="en"
# Below saturation a guess is pure loss, though a small one. In the rush it is worth a lot, as long as the predictor keeps up: at 100 ms it is itself overloaded (more than 100 % busy), and everybody waits for a guess instead of for a slot.
#
# ### Drift
#
# The predictor has learnt from yesterday's requests. Yesterday nobody asked for stories. *Predict its tau today: on the old tasks, on everything; and what that costs the 500 requests of part 6. How many new examples does it take?*

# %% key="nine-drift"
NEW = ("story", "story_chinese", "explain")


def only(part, new):
    """The prompts of the new tasks, or of the old ones."""
    return part.select([row for row, kind in enumerate(part.kinds) if (kind in NEW) == new])


old_train, new_train = only(train, False), only(train, True)
versions = {"yesterday's": old_train, "and 20 new prompts": LengthData(old_train.prompts + new_train.prompts[:20], np.vstack([old_train.lengths, new_train.lengths[:20]])), "trained on both": train}
rows, drifted, slower = [], {}, {}
for name, learn in versions.items():
    model = Ridge(bag=True).fit(learn)
    drifted[name] = score(model, test).tau
    slower[name] = serve(SJF(), [replace(one, predicted=float(said)) for one, said in zip(COMING, model.predict(test.prompts)[ROWS], strict=True)])[0].e2e.mean
    mean_said, mean_true = model.predict(only(test, True).prompts).mean(), only(test, True).lengths.mean()
    rows.append((name, round(score(model, only(test, False)).tau, 2), round(drifted[name], 2), round(score(model, test).mae, 1), f"{mean_said:.0f} ({mean_true:.0f})", round(slower[name], 2)))
assert latency("oracle", 0, 1, 0) < slower["trained on both"] < slower["yesterday's"] < 1.1 * slower["trained on both"], "the queue hardly notices"
assert drifted["yesterday's"] < drifted["and 20 new prompts"] - 0.05 and drifted["and 20 new prompts"] <= drifted["trained on both"] + 0.05
pd.DataFrame(rows, columns=["ridge", "tau, old tasks", "tau, all of today", "mean error, all, tokens", "mean prediction of a new task (mean length)", f"mean latency, s (FCFS {latency('', 0, 1, 0):.2f}, oracle {latency('oracle', 0, 1, 0):.2f})"]).set_index("ridge")

# %% [markdown] key="nine-note" lang="en"
# Nothing crashes when a predictor drifts, and the queue hardly shows it: a quarter of the tau is gone, and latency has risen by a few per cent. A reservation would show it at once (it would keep 9 tokens where 106 come). Either way the reason stands in no log. So **log predictions beside lengths**, watch tau and the mean
# error by day, and train again from the log. A scheduler that ages (SSJF, LTR) bounds what a bad guess can do to anybody.

# %% [markdown] key="ten" lang="en"
# ## 10 · What this cannot do
#
# - **Starvation.** Under lasting overload whoever asks for a long answer waits as long as the load lasts. SSJF's ageing and LTR's promotions bound that (LTR counts *steps*, and its docstring proves how many), and both give some of the gain back.
# - **Displacing is not free.** ISRTF, TRAIL and LTR push out, and this week their KV was kept somewhere for nothing, or computed again. *Whom* to push out, and swap or recompute: week 10.
# - **Fairness.** Going by size serves requests, not users. Whoever cuts a long question into ten short ones overtakes everybody else. Whoever is a novelist pays.
# - **Capacity.** Tokens/s did not change anywhere. When there are too few machines, prediction says only who suffers.
#
# **Week 10** takes these up: preemption and its price, fair shares with deficits, and machines that come and go.
#
# ### Discussion
#
# 1. You may have either a tau of 0.9 and no idea of magnitude, or a mean error of 10 tokens and a tau of 0.5. For which of the four uses of part 1 do you take which?
# 2. Your service has an average load of 0.5 and a rush of ten minutes at 1.3 every morning. Is a predictor worth it? For whom?
# 3. A user learns that prompts with "briefly" go first. What happens to the predictor, and what to the service?
# 4. A paper reports 6.5 times the throughput. Which three questions do you ask?
# 5. The probe reads the hidden states of what users write. What would you have to tell them? Where is it kept?
# 6. A ranker is trained on lists of requests of the same minute. Why might that be better than random lists, and why worse?
