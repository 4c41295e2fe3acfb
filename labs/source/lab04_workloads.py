"""Lab 4: what is in a trace, a workload like it, the iteration-level loop, blocking, reservation. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 4 · Heterogeneous and unpredictable
#
# You take a trace apart, make a workload that looks like it, and write the loop that copes with requests whose length
# nobody knows: iteration-level scheduling. Then you measure who stands in whose way, and how much memory to promise to an
# answer that is still to be written. Your pieces run on the course's own engine, its real model and its block pool.
#
# **How to work.** Write your answer where `NotImplementedError` stands, run the cell, run the check below it. A check
# that fails says what it asked, what came back, and often which idea went wrong. Stuck? Each folded help is named
# after something you may see or ask: open the one that fits. Exercises do not depend on each other, so you can also
# go on to the next. Some checks are hidden: they try other traces and edge cases of what the statement says, nothing
# else.
#
# **Your own work.** An answer is built on what the cell below defines and imports, and on nothing else of the package: with
# `from llmcourse… import` in it, it earns nothing. Each answer is judged without the others.
#
# **To see your score:** `llmcourse check labs/lab04_workloads.ipynb`. **To hand in:** save the notebook and hand in the
# file.
#
# The lecture of week 4 has the ideas behind all of this. `np` is numpy; a one-dimensional array is all you need of it.

# %% key="setup" role="setup"
import math
from itertools import pairwise

import numpy as np
import torch

from llmcourse.engine import Engine, EventKind, Policy, Request, SamplingParams, VirtualClock
from llmcourse.engine.batch import Batch, ScheduledTokens
from llmcourse.engine.replay import replay
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.grading import Served, check, expect_close, expect_equal, expect_true
from llmcourse.kv import BlockPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.model import generate, load_model
from llmcourse.workload import Arrival, profile

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def normal_cdf(z):
    """For numbers drawn from a standard normal: the level, between 0 and 1, at which each stands. Array in, array out."""
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in np.asarray(z, float)])


def bursty_gaps(seed, count, rate):
    """Seconds between arrivals that come in bursts: a train of short gaps, then a train of long ones. Mean 1 / rate."""
    rng = np.random.default_rng(seed)
    trains = rng.integers(5, 40, count)
    long = np.repeat(np.arange(count) % 2 == 0, trains)[:count]
    gaps = rng.exponential(1.0, count) * np.where(long, 8.0, 1.0)
    return gaps / gaps.mean() / rate


# %% [markdown] key="fit" lang="en" role="exercise" exercise="trace_fit" points=4 difficulty=2 minutes=20 needs="week 4, part 1"
# ## Exercise 1 · What is in a trace?
#
# A trace is a list of requests with the times at which they arrived. Five numbers say most of what a scheduler has to
# fear. `times` is a sorted array of arrival times in seconds; a *gap* is the time between two neighbours.
#
# 1. `arrival_rate(times)`: requests a second, which is one over the mean gap.
# 2. `burstiness(times)`: the **coefficient of variation** (CV) of the gaps: their standard deviation over their mean. It is
#    0 for clockwork, about 1 for a Poisson process, more for bursts. It has no unit: it does not ask how many requests
#    come, only how unevenly.
# 3. `dispersion(times, window)`: cut the time from the first arrival on into windows of `window` seconds, each with its start and
#    without its end; a last piece shorter than a window is left out. Count the arrivals in each window. The answer is the
#    variance of these counts over their mean. About 1 for a Poisson process; large where busy seconds follow busy seconds, which the CV cannot see.
# 4. `fit_exponential(gaps)`: the rate (events a second) of the exponential distribution that makes these gaps most likely.
# 5. `fit_lognormal(lengths)`: `(median, sigma)` of the lognormal distribution that makes these lengths most likely: their
#    logarithms are taken for normal, with mean log(median) and standard deviation sigma.
#
# Use numpy's `std` and `var` as they are.

# %% [markdown] key="fit-help-rate" lang="en" role="help" exercise="trace_fit" title="My rate is a little too high"
# Eleven arrivals have ten gaps between them. And a trace need not begin at time 0.

# %% [markdown] key="fit-help-windows" lang="en" role="help" exercise="trace_fit" title="How do I count arrivals in windows?"
# The number of an arrival's window is `((times - times[0]) // window).astype(int)`. `np.bincount(numbers, minlength=n)` counts how often
# each of 0, 1, 2, … occurs, windows without any arrival included: an empty window is a fact, too. How many whole windows are there? As
# many as fit between the first and the last arrival; what lies behind them is left out.

# %% [markdown] key="fit-help-exponential" lang="en" role="help" exercise="trace_fit" title="Why not fit the exponential so that its median is that of the gaps?"
# It would be a fit, but not the most likely one, and not a useful one: the process it describes brings another **number** of
# requests than the trace. Half of the gaps of a bursty trace are tiny; the rest of the time passes in a few long ones. Write
# down the logarithm of the likelihood, `n·log(rate) - rate·sum(gaps)`, and find its top.

# %% key="fit-answer" role="answer" exercise="trace_fit"
def arrival_rate(times):
    """Requests a second."""
    ### BEGIN SOLUTION
    return float((len(times) - 1) / (times[-1] - times[0]))
    ### END SOLUTION


def burstiness(times):
    """Coefficient of variation of the gaps."""
    ### BEGIN SOLUTION
    gaps = np.diff(times)
    return float(gaps.std() / gaps.mean())
    ### END SOLUTION


def dispersion(times, window):
    """Variance over mean of the number of arrivals in windows of `window` seconds."""
    ### BEGIN SOLUTION
    since = np.asarray(times) - times[0]
    windows = int(since[-1] // window)
    counts = np.bincount((since // window).astype(int), minlength=windows)[:windows]
    return float(counts.var() / counts.mean())
    ### END SOLUTION


def fit_exponential(gaps):
    """Rate (events a second) of the most likely exponential distribution."""
    ### BEGIN SOLUTION
    return float(1 / np.mean(gaps))
    ### END SOLUTION


def fit_lognormal(lengths):
    """(median, sigma) of the most likely lognormal distribution."""
    ### BEGIN SOLUTION
    logs = np.log(lengths)
    return float(np.exp(logs.mean())), float(logs.std())
    ### END SOLUTION


# %% key="fit-check" role="check" exercise="trace_fit"
def counts_in_windows(times, window):
    """Arrivals in each whole window from the first arrival on."""
    edges = times[0] + window * np.arange(int((times[-1] - times[0]) // window) + 1)
    return np.array([int(((times >= a) & (times < b)).sum()) for a, b in pairwise(edges)])


@check("trace_fit")
def clockwork(student):
    """Eleven requests, one every two seconds, from second 100 on: half a request a second, no burst at all."""
    times = 100.0 + 2.0 * np.arange(11)
    expect_close(student.call("arrival_rate", times), 0.5, 1e-9, what="arrival_rate", hints={
        11 / 20: "eleven arrivals have ten gaps", 11 / 120: "the trace begins at second 100, not at 0",
        2.0: "that is the mean gap; the rate is one over it"})
    expect_close(student.call("burstiness", times), 0.0, 1e-9, what="burstiness", hints={
        0.5: "that is the rate. How many requests come and how unevenly they come are two questions"})
    expect_close(student.call("dispersion", times, 4.0), 0.0, 1e-9, what="dispersion in windows of 4 s", hints={
        float(np.var([2, 2, 2, 2, 2, 1]) / (11 / 6)): "behind the last whole window lies the last arrival alone: a piece shorter than a "
        "window is left out", float(np.var([2, 2, 2, 2, 3]) / 2.2): "the last arrival stands at the very end of the last window, and a "
        "window is without its end (np.histogram closes its last one)"})


@check("trace_fit")
def twice_as_fast(student):
    """The same trace played twice as fast: twice the rate, the same burstiness."""
    times = np.cumsum(bursty_gaps(1, 4000, rate=2.0))
    gaps = np.diff(times)
    cv = gaps.std() / gaps.mean()
    for name, trace, rate in (("as it is", times, 1 / gaps.mean()), ("twice as fast", times / 2, 2 / gaps.mean())):
        expect_close(student.call("arrival_rate", trace), rate, 0.002 * rate, what=f"arrival_rate, {name}")
        expect_close(student.call("burstiness", trace), cv, 0.005, what=f"burstiness, {name}", hints=[
            (rate, "that is the rate: more requests a second are not burstier ones"),
            (cv / rate, "that is the standard deviation alone. It halves when the same trace is played twice as fast: divide "
             "it by the mean gap"),
            (cv * cv, "that is the square of the CV: standard deviation, not variance")])


@check("trace_fit")
def the_order_matters(student):
    """Shuffled gaps: the same burstiness, far less dispersion."""
    gaps = bursty_gaps(2, 6000, rate=5.0)
    shuffled = np.random.default_rng(0).permutation(gaps)
    got = []
    for name, each in (("in their order", gaps), ("shuffled", shuffled)):
        times = np.cumsum(each)
        counts = counts_in_windows(times, 4.0)
        seen = counts[counts > 0]
        want = counts.var() / counts.mean()
        got.append(student.call("dispersion", times, 4.0))
        expect_close(got[-1], want, 0.01 * want, what=f"dispersion in windows of 4 s, gaps {name}", hints=[
            (seen.var() / seen.mean(), "windows without a request are left out, and they are half of the story"),
            (counts.std() / counts.mean(), "standard deviation over mean; the variance is asked for"),
            (float(counts.var()), "divide the variance by the mean")])
        expect_close(student.call("burstiness", times), each[1:].std() / each[1:].mean(), 0.01, what=f"burstiness, gaps {name}")
    expect_true(bool(got[0] > 2 * got[1]), "the shuffled trace should show far less dispersion")


@check("trace_fit")
def as_many_requests_as_the_trace(student):
    """An exponential fitted to bursty gaps brings as many requests a second as they do."""
    gaps = bursty_gaps(3, 5000, rate=3.0)
    got = student.call("fit_exponential", gaps)
    by_median = float(np.log(2) / np.median(gaps))
    expect_close(got, 3.0, 1e-6, what="rate of the exponential", hints=[
        (by_median, f"fitted by the median: this process brings {by_median:.1f} requests a second, the trace 3.0. Half of all "
         "gaps are short, and most of the time passes in the others"),
        (float(1 / np.median(gaps)), "the median gap is not the mean gap"), (1 / 3, "that is the mean gap, not the rate")])


@check("trace_fit")
def lengths_of_answers(student):
    """A thousand lengths whose logarithms are known: median 120, sigma 1.1."""
    logs = np.random.default_rng(4).standard_normal(1000)
    logs = np.log(120) + 1.1 * (logs - logs.mean()) / logs.std()
    lengths = np.exp(logs)
    expect_close(student.call("fit_lognormal", lengths), (120.0, 1.1), 0.01, what="(median, sigma)", hints=[
        ((lengths.mean(), 1.1), "that is the mean of the lengths: the long tail pulls it far above the median"),
        ((np.log(120), 1.1), "that is the logarithm of the median; tokens are asked for"),
        ((120.0, lengths.std() / lengths.mean()), "sigma is the standard deviation of the logarithms, not of the lengths"),
        ((120.0, 1.21), "that is the variance of the logarithms")])


@check("trace_fit")
def a_real_service(student):
    """Requests like those of Azure's code completion: bursts and silence, and half of the answers below 14 tokens."""
    trace = profile("azure-code").generate(3000, seed=1)
    times, outputs = np.array([a.time for a in trace]), np.array([a.output_tokens for a in trace])
    counts, gaps = counts_in_windows(times, 10.0), np.diff(times)
    want = (1 / gaps.mean(), gaps.std() / gaps.mean(), counts.var() / counts.mean())
    got = (student.call("arrival_rate", times), student.call("burstiness", times), student.call("dispersion", times, 10.0))
    seen = counts[counts > 0]
    expect_close(got, want, 1e-6, rtol=0.01, what="rate, burstiness and dispersion (10 s) of the code trace", hints=[
        ((*want[:2], seen.var() / seen.mean()), "windows without a request are left out, and they are half of the story")])
    logs = np.log(outputs)
    expect_close(student.call("fit_lognormal", outputs), (np.exp(logs.mean()), logs.std()), 0.01, what="(median, sigma) of its answers")


# %% key="fit-hidden" role="hidden" exercise="trace_fit"
@check("trace_fit")
def a_small_trace_by_hand(student):
    """Two arrivals at once, an empty window, a piece of a window at the end."""
    times = np.array([7.0, 7.0, 8.0, 11.0, 11.5, 12.0, 14.5])
    expect_close(student.call("arrival_rate", times), 6 / 7.5, 1e-9, what="arrival_rate")
    expect_close(student.call("dispersion", times, 2.0), np.var([3, 0, 3]) / 2, 1e-9, what="dispersion, windows of 2 s", hints=[
        (np.var([3, 0, 3, 1]) / 1.75, "the last piece is shorter than a window: it is left out"),
        (0.0, "the window without an arrival counts too")])
    expect_close(student.call("dispersion", times, 3.0), np.var([3, 3]) / 3, 1e-9, what="dispersion, windows of 3 s")


@check("trace_fit")
def a_long_silence(student):
    """Two busy seconds an hour apart."""
    times = np.concatenate([np.linspace(0, 1, 50), np.linspace(3600.5, 3601.5, 51)])
    counts = counts_in_windows(times, 10.0)
    want = counts.var() / counts.mean()
    expect_close(student.call("dispersion", times, 10.0), want, 0.01 * want, what="dispersion, windows of 10 s")
    expect_close(student.call("burstiness", times), np.diff(times).std() / np.diff(times).mean(), 1e-6, what="burstiness")


@check("trace_fit")
def answers_of_one_token(student):
    """Half of the answers are a single token."""
    lengths = np.array([1, 1, 1, 1, 64, 64, 64, 64])
    expect_close(student.call("fit_lognormal", lengths), (8.0, np.log(8)), 1e-9, what="(median, sigma)")
    expect_close(student.call("fit_exponential", np.array([0.0, 0.0, 0.0, 2.0])), 2.0, 1e-9, what="rate, three gaps of 0 s")


# %% key="fit-m1" role="mutant" exercise="trace_fit" name="exponential fitted by the median"
def fit_exponential(gaps):
    return float(np.log(2) / np.median(gaps)) if np.median(gaps) > 0 else 1e9


# %% key="fit-m2" role="mutant" exercise="trace_fit" name="inter-arrival CV confused with the rate"
def burstiness(times):
    return arrival_rate(times)


# %% key="fit-m3" role="mutant" exercise="trace_fit" name="standard deviation for CV: doubles with slower traffic"
def burstiness(times):
    return float(np.diff(times).std())


# %% key="fit-m4" role="mutant" exercise="trace_fit" name="squares the CV"
def burstiness(times):
    gaps = np.diff(times)
    return float(gaps.var() / gaps.mean() ** 2)


# %% key="fit-m5" role="mutant" exercise="trace_fit" name="windows without a request are left out"
def dispersion(times, window):
    since = np.asarray(times) - times[0]
    windows = int(since[-1] // window)
    counts = np.bincount((since // window).astype(int), minlength=windows)[:windows]
    counts = counts[counts > 0]
    return float(counts.var() / counts.mean())


# %% key="fit-m6" role="mutant" exercise="trace_fit" name="the mean length for the median"
_fit_lognormal = fit_lognormal


def fit_lognormal(lengths):
    return float(np.mean(lengths)), _fit_lognormal(lengths)[1]


# %% key="fit-m7" role="mutant" exercise="trace_fit" name="sigma of the lengths, not of their logarithms"
_fit_lognormal = fit_lognormal


def fit_lognormal(lengths):
    return _fit_lognormal(lengths)[0], float(np.std(lengths) / np.mean(lengths))


# %% key="fit-m8" role="mutant" exercise="trace_fit" name="counts arrivals from time 0"
def arrival_rate(times):
    return float(len(times) / times[-1])


# %% key="fit-m9" role="mutant" exercise="trace_fit" name="the piece at the end is taken for a window"
def dispersion(times, window):
    since = np.asarray(times) - times[0]
    counts = np.bincount((since // window).astype(int))
    return float(counts.var() / counts.mean())


# %% [markdown] key="generator" lang="en" role="exercise" exercise="generator" points=4 difficulty=3 minutes=25 needs="week 4, part 2"
# ## Exercise 2 · A workload that looks like the trace
#
# Traces are short, private, or of the wrong rate. So one keeps only their **quantiles** and makes as many requests of the same
# kind as one needs. A `grid` is a list of values at evenly spaced levels, from the least value (level 0) to the greatest (level
# 1): `[4, 10, 90]` says that nothing is below 4 or above 90, and half is below 10. Between grid points the line is straight.
#
# 1. `from_quantiles(grid, levels)`: the values at an array of `levels` between 0 and 1. For the grid above, level 0.25 is 7.
#    A random level, drawn evenly between 0 and 1, becomes a random value of the trace's distribution: *inverse transform
#    sampling*.
# 2. `workload(gaps, prompts, outputs, correlation, rate, count, seed)`: three arrays of length `count`: arrival times in
#    seconds, prompt tokens, output tokens. `gaps`, `prompts` and `outputs` are grids.
#    - Draw `count` gaps from their grid, then stretch **all of them by one factor** so that their mean is exactly 1 / `rate`. The
#      arrival times are their running sum; the first request comes after the first gap. So the rate is yours, and the burstiness
#      is the trace's.
#    - Prompts and outputs belong together. Draw two arrays of standard normals, a and b, and let
#      `c = correlation · a + sqrt(1 - correlation²) · b`. Then `a` and `c` are normal and correlated. `normal_cdf` (given above)
#      turns each into levels, and the grids turn the levels into lengths.
#    - Lengths are whole numbers (round), at least 1.
#    - All randomness comes from one `np.random.default_rng(seed)`; gaps have nothing to do with lengths. The order in which
#      you draw is yours.

# %% [markdown] key="generator-help-interp" lang="en" role="help" exercise="generator" title="How do I find the straight line between two grid points?"
# `np.interp(x, xs, ys)` does it: at which `xs` (levels) do the values of the grid stand? `np.linspace(0, 1, len(grid))`.

# %% [markdown] key="generator-help-mean" lang="en" role="help" exercise="generator" title="May I not simply draw lengths from a normal distribution of the same mean and spread?"
# Then some lengths are negative, and none is ten times the median. Look at the grid of any trace: half of the requests are
# far shorter than the mean, a few far longer. Those few are what blocks a queue.

# %% [markdown] key="generator-help-rate" lang="en" role="help" exercise="generator" title="The check says that the last arrival comes at the wrong time"
# `count` gaps of mean 1 / rate end at `count / rate`, exactly. Stretch by the mean of what you have **drawn**, not of the grid:
# `drawn / drawn.mean() / rate`.

# %% key="generator-answer" role="answer" exercise="generator"
def from_quantiles(grid, levels):
    """Values at the given levels of a distribution whose evenly spaced quantiles are `grid`."""
    ### BEGIN SOLUTION
    return np.interp(levels, np.linspace(0, 1, len(grid)), grid)
    ### END SOLUTION


def workload(gaps, prompts, outputs, correlation, rate, count, seed):
    """(arrival times in s, prompt tokens, output tokens), three arrays of length `count`."""
    ### BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    drawn = from_quantiles(gaps, rng.random(count))
    times = np.cumsum(drawn / drawn.mean() / rate)
    a, b = rng.standard_normal(count), rng.standard_normal(count)
    c = correlation * a + math.sqrt(1 - correlation**2) * b
    lengths = [np.maximum(1, np.round(from_quantiles(grid, normal_cdf(z)))).astype(int)
               for grid, z in ((prompts, a), (outputs, c))]
    return times, lengths[0], lengths[1]
    ### END SOLUTION


# %% key="generator-check" role="check" exercise="generator"
LEVELS = (0.1, 0.5, 0.9, 0.99)


def grid_of(values, points=201):
    """The quantiles of some values at evenly spaced levels."""
    return np.quantile(values, np.linspace(0, 1, points)).tolist()


def trace_grids(seed=0, count=20000):
    """Grids of a trace that is bursty and has long tails: gaps, prompts, outputs."""
    rng = np.random.default_rng(seed)
    gaps = bursty_gaps(seed, count, rate=3.0)
    prompts = np.exp(rng.normal(math.log(400), 1.3, count)).clip(1, 8000)
    outputs = np.exp(rng.normal(math.log(90), 0.9, count)).clip(1, 2000)
    return grid_of(gaps), grid_of(prompts), grid_of(outputs)


def drawn(student, rate=3.0, count=10000, seed=5, correlation=0.5, grids=None):
    """The student's workload as three float arrays."""
    answer = student.call("workload", *(grids or trace_grids()), correlation, rate, count, seed)
    expect_equal(len(answer), 3, what="arrays returned")
    for name, each in zip(("times", "prompts", "outputs"), answer, strict=True):
        expect_equal(len(each), count, what=f"number of {name}")
    return [np.asarray(each, float) for each in answer]


def ranks(values):
    """Rank of each value, ties in any order."""
    return np.argsort(np.argsort(values)).astype(float)


def rank_correlation(one, two):
    """Spearman's rank correlation."""
    return float(np.corrcoef(ranks(one), ranks(two))[0, 1])


@check("generator")
def straight_lines_between_quantiles(student):
    """The grid 0, 10, 20, 100 at five levels."""
    got = student.call("from_quantiles", [0, 10, 20, 100], np.array([0, 1 / 3, 0.5, 5 / 6, 1]))
    expect_close(got, np.array([0.0, 10.0, 15.0, 60.0, 100.0]), 1e-6, what="values at levels 0, 1/3, 1/2, 5/6, 1", hints=[
        (np.array([0, 100 / 3, 50, 500 / 6, 100]), "that is an even spread between the least and the greatest: half of the trace is "
         "below 15, not below 50"),
        (np.array([0.0, 10.0, 10.0, 20.0, 100.0]), "between two grid points the line is straight, it is no staircase")])


@check("generator")
def lengths_have_the_traces_quantiles(student):
    """Ten thousand requests: their 10th, 50th, 90th and 99th percentiles are the trace's."""
    grids = trace_grids()
    _, prompts, outputs = drawn(student)
    for name, got, grid in (("prompts", prompts, grids[1]), ("outputs", outputs, grids[2])):
        expect_true(bool((got >= 1).all()), f"there are {name} of {got.min():g} tokens: no length is below 1")
        expect_true(bool((got == np.round(got)).all()), f"{name} are whole numbers of tokens")
        for level in LEVELS:
            want = float(np.interp(level, np.linspace(0, 1, len(grid)), grid))
            have = float(np.quantile(got, level))
            expect_true(bool(abs(have - want) <= 0.12 * want + 1), f"{name}: {level:.0%} are below {have:.0f} tokens, in the trace "
                        f"below {want:.0f}. Mean and spread alone do not make a distribution")


@check("generator")
def your_rate_and_the_traces_bursts(student):
    """The rate is what is asked for; the shape of the gaps is the trace's."""
    gaps = np.array(trace_grids()[0])
    for rate in (3.0, 12.0):
        times, _, _ = drawn(student, rate)
        expect_true(bool((np.diff(times) >= 0).all()), "arrival times must not go back: they are the running sum of the gaps")
        expect_close(float(times[-1]), 10000 / rate, 1e-6 * 10000 / rate, what=f"time of the last of 10,000 arrivals at {rate:g} a second",
                     hints=[(10000 * rate, "multiplied by the rate: more requests a second are closer together")])
        each = np.diff(times)
        cv, want = each.std() / each.mean(), gaps.std() / gaps.mean()
        expect_true(bool(abs(cv - want) < 0.12 * want), f"the gaps have a CV of {cv:.2f}, the trace's {want:.2f}"
                    + (": these are exponential gaps, a Poisson process. The bursts are lost" if abs(cv - 1) < 0.08 else ""))


@check("generator")
def long_prompts_and_their_answers(student):
    """Prompt and output go together as much as asked for, and gaps with neither."""
    for correlation in (0.6, 0.0, -0.5):
        times, prompts, outputs = drawn(student, correlation=correlation)
        want = 6 / math.pi * math.asin(correlation / 2)
        got = rank_correlation(prompts, outputs)
        expect_true(bool(abs(got - want) < 0.04), f"correlation {correlation}: the ranks of prompts and outputs have correlation "
                    f"{got:.2f}, it should be {want:.2f}" + (". They were drawn independently" if abs(got) < 0.04 else ""))
        for name, lengths in (("prompts", prompts), ("outputs", outputs)):
            linked = rank_correlation(np.diff(times, prepend=0.0), lengths)
            expect_true(bool(abs(linked) < 0.04), f"the gap before a request and its {name} have correlation {linked:.2f}: the same "
                        "random numbers were used for both")


@check("generator")
def the_same_seed_twice(student):
    """The same seed gives the same workload, another seed another."""
    one, two, other = drawn(student, count=500), drawn(student, count=500), drawn(student, count=500, seed=6)
    for index, name in enumerate(("times", "prompts", "outputs")):
        expect_true(bool((one[index] == two[index]).all()), f"the same seed gave other {name}: all randomness comes from "
                    "np.random.default_rng(seed)")
        expect_true(bool((one[index] != other[index]).any()), f"seeds 5 and 6 gave the same {name}: is the seed used?")


@check("generator")
def a_simulated_gpu_cannot_tell(student):
    """An A100 serves Azure's conversations and your imitation: the same load, about the same wait."""
    trace = profile("azure-conversation").generate(600, seed=2, rate=3.0)
    times = np.array([a.time for a in trace])
    columns = [[a.prompt_tokens for a in trace], [a.output_tokens for a in trace]]
    grids = grid_of(np.diff(times, prepend=0.0)), *map(grid_of, columns)
    made = drawn(student, 600 / times[-1], 600, 4, 0.1, grids)
    copy = [Arrival(float(t), int(p), int(o)) for t, p, o in zip(*made, strict=True)]
    waits = [np.median(replay(Engine.simulated(max_running=32, token_budget=2048, ledger=Ledger()), each)["ttft"]) for each in (trace, copy)]
    expect_true(bool(waits[0] / 3 < waits[1] < 3 * waits[0]), f"the median time to first token is {waits[0]:.3f} s with the trace and "
                f"{waits[1]:.3f} s with your workload: rate, bursts or lengths are not the trace's")


# %% key="generator-hidden" role="hidden" exercise="generator"
@check("generator")
def another_trace(student):
    """A trace with two kinds of requests: nothing in the middle."""
    rng = np.random.default_rng(9)
    kinds = rng.random(5000) < 0.7
    outputs = np.where(kinds, rng.integers(1, 6, 5000), rng.integers(300, 500, 5000))
    grids = grid_of(rng.exponential(1, 5000)), grid_of(rng.integers(10, 20, 5000)), grid_of(outputs)
    _, prompts, outputs = drawn(student, 0.5, 8000, 11, 0.3, grids)
    expect_true(bool(abs((outputs < 10).mean() - 0.7) < 0.02), f"{(outputs < 10).mean():.0%} of the outputs are short, in the "
                "trace 70%")
    expect_true(bool(((outputs > 10) & (outputs < 290)).mean() < 0.01), "there are lengths that the trace does not have")
    expect_true(bool((prompts >= 10).all() and (prompts <= 19).all()), "prompts lie between 10 and 19 tokens")


@check("generator")
def scaled_by_time(student):
    """The same seed at twice the rate: the same requests in half the time."""
    slow, fast = drawn(student, 2.0, 1000), drawn(student, 4.0, 1000)
    expect_close(fast[0], slow[0] / 2, 1e-9, rtol=1e-9, what="arrival times at twice the rate")
    expect_true(bool((fast[1] == slow[1]).all() and (fast[2] == slow[2]).all()), "at another rate the requests should stay the same")


@check("generator")
def nothing_below_one_token(student):
    """A grid that begins near 0 gives lengths of at least 1."""
    _, prompts, outputs = drawn(student, grids=([0.1, 0.2, 0.3], [0.0, 0.2, 0.4, 5.0], [1, 1, 2]), count=300)
    expect_equal((float(prompts.min()), float(outputs.min())), (1.0, 1.0), what="least lengths")


# %% key="generator-m1" role="mutant" exercise="generator" name="a normal distribution of the same mean and spread"
def workload(gaps, prompts, outputs, correlation, rate, count, seed):
    rng = np.random.default_rng(seed)
    drawn = from_quantiles(gaps, rng.random(count))
    times = np.cumsum(drawn / drawn.mean() / rate)
    a, b = rng.standard_normal(count), rng.standard_normal(count)
    c = correlation * a + math.sqrt(1 - correlation**2) * b
    lengths = [np.maximum(1, np.round(np.mean(grid) + np.std(grid) * z)).astype(int) for grid, z in ((prompts, a), (outputs, c))]
    return times, lengths[0], lengths[1]


# %% key="generator-m2" role="mutant" exercise="generator" name="prompts and outputs drawn independently"
_workload = workload


def workload(gaps, prompts, outputs, correlation, rate, count, seed):
    return _workload(gaps, prompts, outputs, 0.0, rate, count, seed)


# %% key="generator-m3" role="mutant" exercise="generator" name="exponential gaps of the right rate: bursts lost"
_workload = workload


def workload(gaps, prompts, outputs, correlation, rate, count, seed):
    each = np.random.default_rng(seed + 1).exponential(1.0, count)
    return np.cumsum(each / each.mean() / rate), *_workload(gaps, prompts, outputs, correlation, rate, count, seed)[1:]


# %% key="generator-m4" role="mutant" exercise="generator" name="stretches by the rate instead of dividing by it"
_workload = workload


def workload(gaps, prompts, outputs, correlation, rate, count, seed):
    return _workload(gaps, prompts, outputs, correlation, 1 / rate, count, seed)


# %% key="generator-m5" role="mutant" exercise="generator" name="evenly between the least and the greatest"
def from_quantiles(grid, levels):
    return min(grid) + (max(grid) - min(grid)) * np.asarray(levels)


# %% key="generator-m6" role="mutant" exercise="generator" name="the same random numbers for gaps and prompts"
_workload = workload


def workload(gaps, prompts, outputs, correlation, rate, count, seed):
    _, first, second = _workload(gaps, prompts, outputs, correlation, rate, count, seed)
    levels = (np.argsort(np.argsort(first, kind="stable")) + 0.5) / count
    each = from_quantiles(gaps, levels)
    return np.cumsum(each / each.mean() / rate), first, second


# %% key="generator-m7" role="mutant" exercise="generator" name="random numbers that ignore the seed"
_workload = workload


def workload(gaps, prompts, outputs, correlation, rate, count, seed):
    return _workload(gaps, prompts, outputs, correlation, rate, count, np.random.randint(1 << 30))


# %% key="generator-m8" role="mutant" exercise="generator" name="gaps handed out as times"
_workload = workload


def workload(gaps, prompts, outputs, correlation, rate, count, seed):
    times, first, second = _workload(gaps, prompts, outputs, correlation, rate, count, seed)
    return np.diff(times, prepend=0.0), first, second


# %% [markdown] key="loop" lang="en" role="exercise" exercise="iteration_loop" points=5 difficulty=3 minutes=25 needs="week 4, part 5"
# ## Exercise 3 · The iteration-level loop
#
# Now the requests are there, and nobody knows when they will end. Write the loop that decides, **before every single step**, who
# is computed in it. A request joins as soon as it has arrived and a seat is free, and it gives up its seat in the step that
# ends it.
#
# `requests` is a list of dictionaries: `{"id": "r0", "arrival": 0.5, "prompt": [5, 17, 3], "max_tokens": 40}`. You talk to a `worker`:
#
# | | |
# |:--|:--|
# | `worker.now` | the time in seconds |
# | `worker.step(ids)` | computes one step for this list of ids; returns `{id: token}`, one new token for each. The first step of a request also computes its prompt and takes memory for it. Time goes on |
# | `worker.release(id)` | gives the memory of a request back, once it has ended |
# | `worker.sleep_until(time)` | nothing to do before then: the clock moves to `time` |
#
# Write `serve(worker, requests, seats, eos_id)`:
#
# - At most `seats` requests are in a step. First come, first served; ties in the order of the list. A request may join a step that
#   begins at its arrival or later.
# - A request ends with the token `eos_id`, or with its `max_tokens`-th token; that token belongs to the answer. It is in no step
#   after that, and its memory is released before the next step.
# - Return `{id: list of tokens}`.
#
# The worker counts every row it computes. It runs the course's real executors: in one check, course-tiny.

# %% [markdown] key="loop-help-start" lang="en" role="help" exercise="iteration_loop" title="Where do I start?"
# Two lists, `waiting` and `running`. While either holds somebody: move from waiting to running whoever has arrived while a seat is
# free; take one step with all who run; look at each new token, and let go whoever has ended.

# %% [markdown] key="loop-help-remove" lang="en" role="help" exercise="iteration_loop" title="Some requests are skipped when others end"
# Removing from a list while you walk through it skips the next one. Walk through a copy: `for request in list(running):`.

# %% [markdown] key="loop-help-idle" lang="en" role="help" exercise="iteration_loop" title="My loop never ends"
# When nobody runs and the next request has not arrived yet, time must pass: `worker.sleep_until(its arrival)`. A step without
# requests computes nothing and does not move the clock.

# %% [markdown] key="loop-help-try" lang="en" role="help" exercise="iteration_loop" title="How can I try it out myself?"
# Run the check cell once (it defines `Worker` and `asked`), then in a new cell:
#
# ```python
# requests = asked([3, 8, 5])                      # three requests of at most 3, 8 and 5 tokens
# worker = Worker(MockExecutor(4), requests, seats=2, eos_id=0)
# serve(worker, requests, 2, 0), worker.batches    # the answers, and who was in each step
# ```

# %% key="loop-answer" role="answer" exercise="iteration_loop"
def serve(worker, requests, seats, eos_id):
    """Serve all requests, deciding anew before every step; {id: tokens}."""
    ### BEGIN SOLUTION
    waiting = sorted(requests, key=lambda request: request["arrival"])
    running, outputs = [], {request["id"]: [] for request in requests}
    while waiting or running:
        if not running and waiting[0]["arrival"] > worker.now:
            worker.sleep_until(waiting[0]["arrival"])
        while waiting and len(running) < seats and waiting[0]["arrival"] <= worker.now:
            running.append(waiting.pop(0))
        tokens = worker.step([request["id"] for request in running])
        for request in list(running):
            output = outputs[request["id"]]
            output.append(tokens[request["id"]])
            if output[-1] == eos_id or len(output) == request["max_tokens"]:
                running.remove(request)
                worker.release(request["id"])
    return outputs
    ### END SOLUTION


# %% key="loop-check" role="check" exercise="iteration_loop"
class Worker:
    """Computes steps on an executor of the course, over blocks of a real pool, and writes down what was asked of it."""

    def __init__(self, executor, requests, seats, eos_id, block_size=4):
        self._executor, self._eos, self._seats = executor, eos_id, seats
        self._known = {r["id"]: Request(r["prompt"], SamplingParams(max_tokens=r["max_tokens"]), id=r["id"], arrival=r["arrival"])
                       for r in requests}
        self._pool = BlockPool(1024, block_size)
        self.now, self.batches, self.began, self.useless, self.ended, self.faults = 0.0, [], [], 0, {}, []

    def step(self, ids):
        """One new token for each id."""
        if len(self.batches) > 3000:
            raise RuntimeError("more than 3000 steps: does the loop ever end?")
        ids = list(dict.fromkeys(ids))
        self.batches.append(ids)
        self.began.append(self.now)
        self._look(ids)
        items = [self._item(self._known[each]) for each in ids if each in self._known and each not in self.ended]
        self.useless += len(ids) - len(items)
        if not items:
            return dict.fromkeys(ids, self._eos)
        result = self._executor.execute(Batch(tuple(items)))
        self.now += 0.01 + 0.0001 * sum(item.count for item in items)
        for item in items:
            self._book(item, result.tokens[item.request.id])
        return {each: result.tokens.get(each, self._eos) for each in ids}

    def release(self, request_id):
        """Give its blocks back."""
        if request_id in self._known and self._pool.table(request_id):
            if request_id not in self.ended:
                self.faults.append(f"{request_id} was released before it had ended")
            self._pool.free(request_id)

    def sleep_until(self, time):
        """Let time pass."""
        self.now = max(self.now, float(time))

    def holders(self):
        """Requests that hold memory."""
        return [each for each in self._known if self._pool.table(each)]

    def _look(self, ids):
        step = len(self.batches)
        if len(ids) > self._seats:
            self.faults.append(f"step {step} held {len(ids)} requests; there are {self._seats} seats")
        for each in ids:
            if each not in self._known:
                self.faults.append(f"step {step} names {each!r}, which is no request")
            elif self._known[each].arrival > self.now + 1e-9:
                self.faults.append(f"{each} was computed at {self.now:.3f} s, it arrives at {self._known[each].arrival:.3f} s")
        late = [each for each in self.holders() if each in self.ended]
        if late:
            self.faults.append(f"{late[0]} has ended and still holds its memory in step {step}: release it")

    def _item(self, request):
        count = len(request.tokens) - request.computed
        missing = request.computed + count - self._pool.length(request.id)
        if self._pool.table(request.id):
            self._pool.append(request.id, missing)
        else:
            self._pool.allocate(request.id, count)
        return ScheduledTokens(request, request.computed, count, self._pool.table(request.id))

    def _book(self, item, token):
        request = item.request
        request.computed += item.count
        request.tokens.append(token)
        if token == self._eos or len(request.output) == request.sampling.max_tokens:
            self.ended[request.id] = self.now


def asked(lengths, arrivals=None, prompt=3, seed=0):
    """Requests of the given longest lengths."""
    rng = np.random.default_rng(seed)
    arrivals = arrivals or [0.0] * len(lengths)
    return [{"id": f"r{k}", "arrival": float(arrivals[k]), "prompt": [int(t) for t in rng.integers(1, 60, prompt)],
             "max_tokens": int(lengths[k])} for k in range(len(lengths))]


def by_the_engine(requests, seats, batching):
    """The same requests served by the course's engine: steps, {id: time of the end}, {id: tokens}."""
    engine = Engine(MockExecutor(4), BlockPool(1024, 4), batching=batching, token_budget=4096, max_running=seats,
                    clock=VirtualClock(), eos_ids=frozenset([0]))
    waiting = sorted(requests, key=lambda r: r["arrival"])
    while waiting or not engine.idle:
        if engine.idle and waiting[0]["arrival"] > engine.clock.now:
            engine.clock.now = waiting[0]["arrival"]
        while waiting and waiting[0]["arrival"] <= engine.clock.now + 1e-12:
            r = waiting.pop(0)
            engine.add(Request(r["prompt"], SamplingParams(max_tokens=r["max_tokens"]), id=r["id"], arrival=r["arrival"]))
        engine.step()
    ends = {event.request: event.time for event in engine.events if event.kind is EventKind.FINISHED}
    return engine.counters.steps, ends, {name: request.output for name, request in engine.requests.items()}


def served(student, requests, seats):
    """The student's answer on a mock model, and the worker afterwards."""
    worker = Worker(MockExecutor(4), requests, seats, eos_id=0)
    got = student.call("serve", Served(worker), requests, seats, 0)
    return got, worker


UNEVEN = [3, 40, 5, 6, 38, 4, 7, 30, 5, 3, 35, 4]


def starting_order(worker):
    """Requests in the order in which they were first computed."""
    return list(dict.fromkeys(each for batch in worker.batches for each in batch))


@check("iteration_loop")
def every_token_as_if_alone(student):
    """Twelve requests of very different length, three seats: each answer is what the request gets alone."""
    requests = asked(UNEVEN)
    got, worker = served(student, requests, 3)
    alone = {r["id"]: MockExecutor(4).continue_alone(r["prompt"], r["max_tokens"]) for r in requests}
    expect_true(not worker.faults, worker.faults[0] if worker.faults else "")
    expect_equal(got, alone, what="tokens of each request", hints=[
        ({name: tokens[:-1] if tokens[-1] == 0 else tokens for name, tokens in alone.items()},
         "the end token itself is missing: it belongs to the answer"),
        ({name: [*tokens, *[0] * (r["max_tokens"] - len(tokens))] for (name, tokens), r in zip(alone.items(), requests, strict=True)},
         "it went on after the end token: max_tokens is only the most a request may write")])


@check("iteration_loop")
def first_come_first_served(student):
    """Ten requests for one seat or two start in the order of their arrival, ties in the order of the list."""
    requests = asked([4, 3, 5, 2, 6, 3, 4, 2, 3, 5], [0.0, 0.0, 0.02, 0.0, 0.01, 0.03, 0.03, 0.02, 0.5, 0.5], seed=3)
    want = [r["id"] for r in sorted(requests, key=lambda r: r["arrival"])]
    for seats in (1, 2):
        _, worker = served(student, requests, seats)
        expect_true(not worker.faults, worker.faults[0] if worker.faults else "")
        got = starting_order(worker)
        later = [k for k in range(1, len(got)) if want.index(got[k]) < want.index(got[k - 1])] if sorted(got) == sorted(want) else []
        expect_equal(got, want, what=f"order in which requests started, {seats} seats", hints=[
            (got if later else [], f"{got[later[0]]} came before {got[later[0] - 1]} and started after it: first come, first served"
             if later else "nobody was computed")])


@check("iteration_loop")
def no_seat_stays_empty(student):
    """As few steps as the course's own scheduler takes, and no row computed in vain."""
    requests = asked(UNEVEN)
    _, worker = served(student, requests, 3)
    steps, _, outputs = by_the_engine(requests, 3, "mixed")
    closed, _, _ = by_the_engine(requests, 3, "static")
    rows = sum(len(tokens) for tokens in outputs.values())
    computed = sum(len(batch) for batch in worker.batches)
    expect_equal(computed, rows, what="rows computed", hints={
        computed if worker.useless else -1: f"{worker.useless} rows belonged to requests that had ended: finished rows are still computed"})
    expect_equal(len(worker.batches), steps, what="steps taken", hints={
        closed: "the batch stays closed until its longest request ends: a seat that is free must be taken in the very next step",
        rows: "one request at a time: where are the other seats?"})


@check("iteration_loop")
def newcomers_join_at_once(student):
    """Requests that come while others run: each ends at the time the course's scheduler ends it."""
    requests = asked([60, 5, 8, 4, 6], [0.0, 0.105, 0.11, 0.3, 0.31])
    _, worker = served(student, requests, 3)
    _, ends, _ = by_the_engine(requests, 3, "mixed")
    _, closed, _ = by_the_engine(requests, 3, "static")
    expect_true(not worker.faults, worker.faults[0] if worker.faults else "")
    expect_equal(sorted(worker.ended), sorted(ends), what="requests that have ended")
    expect_close(worker.began[0], 0.0, 1e-9, what="time of the first step", hints=[
        (worker.began[0], "a request stood before an empty machine and was not computed: a batch need not be full")])
    expect_close(worker.ended, ends, 1e-6, what="time at which each request ended", hints=[
        (closed, "newcomers waited until the running batch had ended: a request joins in the next step after it arrives"),
        (worker.ended if worker.ended["r2"] > ends["r2"] + 0.02 else {}, "newcomers waited though a seat was free: look at who has arrived "
         "before every step, not only when somebody ends")])


@check("iteration_loop")
def on_the_real_model(student):
    """course-tiny counts for five users on two seats; the tokens are those it gives each alone."""
    model, tokenizer = load_model("course-tiny", device="cpu")
    texts = ("Count from 3 to 9.", "Count from 1 to 30.", "Count from 5 to 7.", "Count from 8 to 10.", "Count from 2 to 20.")
    requests = [{"id": text, "arrival": 0.0, "prompt": tokenizer.encode_prompt(text), "max_tokens": 90} for text in texts]
    eos = min(tokenizer.eos_ids)
    worker = Worker(TorchExecutor(model, 1024, 16), requests, 2, eos, block_size=16)
    got = student.call("serve", Served(worker), requests, 2, eos)
    want = {r["id"]: generate(model, r["prompt"], 90, eos_ids=tokenizer.eos_ids) for r in requests}
    expect_equal(got, want, what="tokens of course-tiny")
    expect_equal(sum(len(batch) for batch in worker.batches), sum(len(tokens) for tokens in want.values()), what="rows computed")
    expect_true(not worker.faults and not worker.holders(), f"still holding memory at the end: {worker.holders()}" if not worker.faults
                else worker.faults[0])


# %% key="loop-hidden" role="hidden" exercise="iteration_loop"
@check("iteration_loop")
def a_pause_in_the_night(student):
    """Nobody comes for a while: the loop sleeps, and computes nothing."""
    requests = asked([6, 4, 5], [0.2, 30.0, 30.005])
    got, worker = served(student, requests, 2)
    steps, ends, outputs = by_the_engine(requests, 2, "mixed")
    expect_equal(got, outputs, what="tokens")
    expect_true(all(worker.batches), f"{sum(not batch for batch in worker.batches)} steps without any request: sleep until somebody comes")
    expect_close(worker.ended, ends, 1e-6, what="time at which each request ended")
    expect_equal(len(worker.batches), steps, what="steps taken")


@check("iteration_loop")
def answers_of_one_token(student):
    """Answers of one token leave their seat at once; more seats than requests do no harm; no requests, no steps."""
    requests = asked([1] * 9)
    got, worker = served(student, requests, 2)
    expect_equal([len(tokens) for tokens in got.values()], [1] * 9, what="tokens of each answer")
    expect_equal(len(worker.batches), 5, what="steps for nine answers of one token on two seats")
    _, worker = served(student, requests, 64)
    expect_equal(len(worker.batches), 1, what="steps with seats for all")
    expect_true(not worker.faults and not worker.holders(), "memory is still held at the end: release it")
    expect_equal(served(student, [], 4)[0], {}, what="answer to no requests")


# %% key="loop-m1" role="mutant" exercise="iteration_loop" name="batch closed until the longest ends"
def serve(worker, requests, seats, eos_id):
    waiting = sorted(requests, key=lambda request: request["arrival"])
    running, outputs = [], {request["id"]: [] for request in requests}
    while waiting or running:
        if not running:
            if waiting[0]["arrival"] > worker.now:
                worker.sleep_until(waiting[0]["arrival"])
            while waiting and len(running) < seats and waiting[0]["arrival"] <= worker.now:
                running.append(waiting.pop(0))
        tokens = worker.step([request["id"] for request in running])
        for request in list(running):
            output = outputs[request["id"]]
            output.append(tokens[request["id"]])
            if output[-1] == eos_id or len(output) == request["max_tokens"]:
                running.remove(request)
                worker.release(request["id"])
    return outputs


# %% key="loop-m2" role="mutant" exercise="iteration_loop" name="finished rows still computed until the batch ends"
def serve(worker, requests, seats, eos_id):
    waiting = sorted(requests, key=lambda request: request["arrival"])
    outputs, done = {request["id"]: [] for request in requests}, set()
    while waiting:
        if waiting[0]["arrival"] > worker.now:
            worker.sleep_until(waiting[0]["arrival"])
        batch = []
        while waiting and len(batch) < seats and waiting[0]["arrival"] <= worker.now:
            batch.append(waiting.pop(0))
        while not all(request["id"] in done for request in batch):
            tokens = worker.step([request["id"] for request in batch])
            for request in batch:
                output = outputs[request["id"]]
                if request["id"] in done:
                    continue
                output.append(tokens[request["id"]])
                if output[-1] == eos_id or len(output) == request["max_tokens"]:
                    done.add(request["id"])
                    worker.release(request["id"])
    return outputs


# %% key="loop-m3" role="mutant" exercise="iteration_loop" name="notices the end one step late"
def serve(worker, requests, seats, eos_id):
    waiting = sorted(requests, key=lambda request: request["arrival"])
    running, outputs, ended = [], {request["id"]: [] for request in requests}, []
    while waiting or running:
        if not running and waiting[0]["arrival"] > worker.now:
            worker.sleep_until(waiting[0]["arrival"])
        while waiting and len(running) < seats and waiting[0]["arrival"] <= worker.now:
            running.append(waiting.pop(0))
        tokens = worker.step([request["id"] for request in running])
        for request in [request for request in running if request in ended]:
            running.remove(request)
            worker.release(request["id"])
        for request in running:
            output = outputs[request["id"]]
            output.append(tokens[request["id"]])
            if output[-1] == eos_id or len(output) == request["max_tokens"]:
                ended.append(request)
    return outputs


# %% key="loop-m4" role="mutant" exercise="iteration_loop" name="waits until the batch is full"
def serve(worker, requests, seats, eos_id):
    waiting = sorted(requests, key=lambda request: request["arrival"])
    running, outputs = [], {request["id"]: [] for request in requests}
    while waiting or running:
        if not running and waiting:
            last = waiting[:seats][-1]["arrival"]
            if last > worker.now:
                worker.sleep_until(last)
        while waiting and len(running) < seats and waiting[0]["arrival"] <= worker.now:
            running.append(waiting.pop(0))
        tokens = worker.step([request["id"] for request in running])
        for request in list(running):
            output = outputs[request["id"]]
            output.append(tokens[request["id"]])
            if output[-1] == eos_id or len(output) == request["max_tokens"]:
                running.remove(request)
                worker.release(request["id"])
    return outputs


# %% key="loop-m5" role="mutant" exercise="iteration_loop" name="last come, first served"
def serve(worker, requests, seats, eos_id):
    waiting = sorted(requests, key=lambda request: request["arrival"])
    running, outputs = [], {request["id"]: [] for request in requests}
    while waiting or running:
        if not running and waiting[0]["arrival"] > worker.now:
            worker.sleep_until(waiting[0]["arrival"])
        while len(running) < seats and any(request["arrival"] <= worker.now for request in waiting):
            newest = [request for request in waiting if request["arrival"] <= worker.now][-1]
            waiting.remove(newest)
            running.append(newest)
        tokens = worker.step([request["id"] for request in running])
        for request in list(running):
            output = outputs[request["id"]]
            output.append(tokens[request["id"]])
            if output[-1] == eos_id or len(output) == request["max_tokens"]:
                running.remove(request)
                worker.release(request["id"])
    return outputs


# %% key="loop-m6" role="mutant" exercise="iteration_loop" name="goes on after the end token"
_serve = serve


def serve(worker, requests, seats, eos_id):
    return _serve(worker, requests, seats, -1)


# %% key="loop-m7" role="mutant" exercise="iteration_loop" name="never gives the memory back"
class _Keeps:
    def __init__(self, worker):
        self.worker = worker

    def __getattr__(self, name):
        return getattr(self.worker, name)

    def release(self, request_id):
        pass


_serve = serve


def serve(worker, requests, seats, eos_id):
    return _serve(_Keeps(worker), requests, seats, eos_id)


# %% key="loop-m8" role="mutant" exercise="iteration_loop" name="newcomers join only when somebody ends"
def serve(worker, requests, seats, eos_id):
    waiting = sorted(requests, key=lambda request: request["arrival"])
    running, outputs, ended = [], {request["id"]: [] for request in requests}, True
    while waiting or running:
        if not running and waiting[0]["arrival"] > worker.now:
            worker.sleep_until(waiting[0]["arrival"])
        while ended and waiting and len(running) < seats and waiting[0]["arrival"] <= worker.now:
            running.append(waiting.pop(0))
        tokens, ended = worker.step([request["id"] for request in running]), False
        for request in list(running):
            output = outputs[request["id"]]
            output.append(tokens[request["id"]])
            if output[-1] == eos_id or len(output) == request["max_tokens"]:
                running.remove(request)
                worker.release(request["id"])
                ended = True
    return outputs


# %% key="loop-m9" role="mutant" exercise="iteration_loop" name="one request at a time"
_serve = serve


def serve(worker, requests, seats, eos_id):
    return _serve(worker, requests, 1, eos_id)


# %% key="loop-m10" role="mutant" exercise="iteration_loop" name="serves requests before they arrive"
_serve = serve


def serve(worker, requests, seats, eos_id):
    return _serve(worker, [request | {"arrival": 0.0} for request in requests], seats, eos_id)


# %% key="loop-m11" role="mutant" exercise="iteration_loop" name="drops the end token"
_serve = serve


def serve(worker, requests, seats, eos_id):
    return {name: tokens[:-1] if tokens[-1] == eos_id else tokens
            for name, tokens in _serve(worker, requests, seats, eos_id).items()}


# %% [markdown] key="blocking" lang="en" role="exercise" exercise="blocking" points=3 difficulty=3 minutes=20 needs="week 4, part 7"
# ## Exercise 4 · Who stands in whose way?
#
# A long request holds a seat, and ten short ones wait behind it: **head-of-line blocking**. Two numbers make it measurable. Each
# request is a dictionary of times in seconds: `arrival`, `start` (it got its seat), `end`, and `alone`: what it takes from
# arrival to end on an empty machine, which is its size.
#
# 1. `slowdown(request)`: how many times longer it took than alone, from arrival to end. 1 is perfect.
# 2. `mean_slowdown(requests)`: the mean of the requests' slowdowns: everybody's patience counts the same, however short the
#    request.
# 3. `blocked_seconds(request, requests)`: how long it **waited** (from its arrival to its start) while at least one **longer**
#    request (strictly larger `alone`) held a seat (from its start to its end). `requests` are all requests, this one included.
# 4. `blocking_index(requests)`: of all seconds that all requests waited together, the share that was blocked. 0.0 when nobody
#    waited.
#
# An index of 0 says: the machine is busy, and nobody is to blame. An index near 1 says: almost all waiting is short requests
# behind long ones, and another order may help.

# %% [markdown] key="blocking-help-union" lang="en" role="help" exercise="blocking" title="My index is above 1"
# Two long requests that run side by side do not block a third one twice: a second is blocked or it is not. Cut the waiting time
# at every start and end of a longer request. Within each piece nothing changes: either somebody longer holds a seat all through
# it, or nobody does.

# %% [markdown] key="blocking-help-mean" lang="en" role="help" exercise="blocking" title="My mean slowdown is far too small"
# Dividing total time by total size lets the long requests speak for all. Divide first, then take the mean.

# %% key="blocking-answer" role="answer" exercise="blocking"
def slowdown(request):
    """How many times longer than alone it took."""
    ### BEGIN SOLUTION
    return (request["end"] - request["arrival"]) / request["alone"]
    ### END SOLUTION


def mean_slowdown(requests):
    """Mean of the requests' slowdowns."""
    ### BEGIN SOLUTION
    return sum(slowdown(request) for request in requests) / len(requests)
    ### END SOLUTION


def blocked_seconds(request, requests):
    """Seconds it waited while a longer request held a seat."""
    ### BEGIN SOLUTION
    first, last = request["arrival"], request["start"]
    longer = [(other["start"], other["end"]) for other in requests if other["alone"] > request["alone"]]
    cuts = sorted({first, last, *(time for pair in longer for time in pair if first < time < last)})
    return float(sum(b - a for a, b in pairwise(cuts) if any(start <= a and b <= end for start, end in longer)))
    ### END SOLUTION


def blocking_index(requests):
    """Share of all waiting that was blocked; 0.0 when nobody waited."""
    ### BEGIN SOLUTION
    waited = sum(request["start"] - request["arrival"] for request in requests)
    return sum(blocked_seconds(request, requests) for request in requests) / waited if waited else 0.0
    ### END SOLUTION


# %% key="blocking-check" role="check" exercise="blocking"
def life(arrival, start, end, alone=None):
    """A request's times."""
    return {"arrival": float(arrival), "start": float(start), "end": float(end), "alone": float(end - start if alone is None else alone)}


class ShortestFirst(Policy):
    """Who writes least goes first: only possible because the check knows the lengths."""

    def key(self, request, now):
        """The output tokens it will write."""
        return request.sampling.max_tokens


def lives_on_the_engine(lengths, arrivals, seats, policy=None):
    """The times of requests of these lengths on the course's engine, in virtual time, with what each takes alone."""
    def run(chosen, order):
        engine = Engine(MockExecutor(16), BlockPool(4096, 16), policy=order, token_budget=512, max_running=seats, clock=VirtualClock())
        chosen = sorted(chosen, key=lambda k: arrivals[k])
        replay(engine, [Arrival(arrivals[k], 8, lengths[k]) for k in chosen])
        return dict(zip(chosen, engine.records(), strict=True))
    together = run(range(len(lengths)), policy)
    alone = [run([k], None)[k].e2e for k in range(len(lengths))]
    return [life(r.arrival, r.arrival + r.queue_time, r.arrival + r.e2e, alone[k]) for k, r in sorted(together.items())]


def seconds_blocked(request, requests, step=1e-3):
    """Blocked seconds by looking a thousand times a second."""
    times = np.arange(request["arrival"] + step / 2, request["start"], step)
    held = np.zeros(len(times), bool)
    for other in requests:
        if other["alone"] > request["alone"]:
            held |= (times >= other["start"]) & (times < other["end"])
    return float(held.sum() * step)


@check("blocking")
def one_long_and_two_short(student):
    """One seat: ten seconds of somebody else, and two requests of one second behind it."""
    requests = [life(0, 0, 10), life(1, 10, 11), life(2, 11, 12)]
    expect_close([student.call("slowdown", r) for r in requests], [1.0, 10.0, 10.0], 1e-9, what="slowdown of each", hints=[
        ([0.0, 9.0, 9.0], "waiting over size; a request that never waits has slowdown 1: from arrival to end"),
        ([1.0, 1.0, 1.0], "from its start to its end: the wait is part of what the user sees"),
        ([1.0, 0.1, 0.1], "upside down: time taken over time alone")])
    expect_close(student.call("mean_slowdown", requests), 7.0, 1e-9, what="mean_slowdown", hints={
        30 / 12: "total time over total size: the long request speaks for all. Divide first, then take the mean",
        10.0: "that is the median or the largest; the mean is asked for"})
    expect_close([student.call("blocked_seconds", r, requests) for r in requests], [0.0, 9.0, 8.0], 1e-9, what="blocked seconds of "
                 "each", hints=[
        ([0.0, 9.0, 9.0], "the last second the third one waited for a request as short as itself: only longer ones block"),
        ([0.0, 10.0, 10.0], "before its arrival nobody waits")])
    expect_close(student.call("blocking_index", requests), 17 / 18, 1e-9, what="blocking_index", hints={
        1.0: "one of the 18 seconds waited for somebody who was no longer than oneself",
        17 / 30: "divide by the seconds waited, not by the whole time from arrival to end"})


@check("blocking")
def equals_do_not_block(student):
    """Five equal requests on one seat wait long, and nobody is blocked."""
    requests = [life(0, 2 * k, 2 * k + 2) for k in range(5)]
    expect_close(student.call("mean_slowdown", requests), 3.0, 1e-9, what="mean_slowdown")
    expect_close(student.call("blocking_index", requests), 0.0, 1e-9, what="blocking_index", hints={
        1.0: "everybody waited for somebody, but for no one longer: no other order would have helped"})


@check("blocking")
def two_long_ones_side_by_side(student):
    """Two seats, two long requests, one short one that waits for the first to end: a second is blocked once."""
    requests = [life(0, 0, 6), life(0, 0, 8), life(1, 6, 7)]
    expect_close(student.call("blocked_seconds", requests[2], requests), 5.0, 1e-9, what="blocked seconds of the short one", hints={
        10.0: "both long requests were counted: a second is blocked or it is not"})
    expect_close(student.call("blocking_index", requests), 1.0, 1e-9, what="blocking_index")


@check("blocking")
def who_waits_does_not_block(student):
    """A long request that still waits itself blocks nobody, and one that starts later does not either."""
    requests = [life(0, 0, 4), life(0, 4, 5), life(0, 5, 25), life(1, 4.5, 5.0)]
    expect_close([student.call("blocked_seconds", r, requests) for r in requests], [0.0, 4.0, 0.0, 3.5], 1e-9,
                 what="blocked seconds of each", hints=[
        ([4.0, 4.0, 0.0, 3.5], "a request that waits holds no seat: it blocks from its start to its end"),
        ([0.0, 5.0, 0.0, 4.0], "the seconds after its own start are not waiting")])


@check("blocking")
def on_the_engine(student):
    """The course's engine, two seats, one long request in front: first come first served, and shortest first."""
    lengths, arrivals = [200, 160, *[6, 9, 4, 12, 7, 5, 10, 8]], [0.0, 0.0, *[0.05 * k for k in range(1, 9)]]
    fcfs = lives_on_the_engine(lengths, arrivals, 2)
    behind = lives_on_the_engine([*lengths[2:], 200, 160], [0.0] * 10, 2, ShortestFirst())
    for name, requests in (("first come, first served", fcfs), ("shortest first", behind)):
        want = sum(seconds_blocked(r, requests) for r in requests) / max(1e-9, sum(r["start"] - r["arrival"] for r in requests))
        expect_close(student.call("blocking_index", requests), want, 0.01, what=f"blocking_index, {name}")
        mean = float(np.mean([(r["end"] - r["arrival"]) / r["alone"] for r in requests]))
        expect_close(student.call("mean_slowdown", requests), mean, 1e-6 * mean, what=f"mean_slowdown, {name}")


# %% key="blocking-hidden" role="hidden" exercise="blocking"
@check("blocking")
def many_at_random(student):
    """Random lives: blocked seconds and index agree with looking a thousand times a second."""
    rng = np.random.default_rng(1)
    for _ in range(4):
        arrivals = rng.integers(0, 20, 12)
        starts = arrivals + rng.integers(0, 12, 12)
        requests = [life(a, s, s + size, size) for a, s, size in zip(arrivals, starts, rng.integers(1, 9, 12), strict=True)]
        want = [seconds_blocked(r, requests) for r in requests]
        got = [student.call("blocked_seconds", r, requests) for r in requests]
        expect_close(got, want, 0.01, what="blocked seconds of each")
        waited = sum(r["start"] - r["arrival"] for r in requests)
        expect_close(student.call("blocking_index", requests), sum(want) / waited, 0.01, what="blocking_index", hints=[
            (float(np.mean([w / (r["start"] - r["arrival"]) for w, r in zip(want, requests, strict=True) if r["start"] > r["arrival"]])),
             "the mean of the requests' shares; asked is the share of all waiting together")])


@check("blocking")
def nobody_waits(student):
    """Everybody starts on arrival: slowdown 1, index 0."""
    requests = [life(0, 0, 3), life(1, 1, 2), life(2, 2, 9)]
    expect_close(student.call("blocking_index", requests), 0.0, 1e-9, what="blocking_index when nobody waits")
    expect_close(student.call("mean_slowdown", requests), 1.0, 1e-9, what="mean_slowdown")
    slower = [life(0, 0, 6, 3), life(0, 1, 3, 1)]
    expect_close(student.call("mean_slowdown", slower), 2.5, 1e-9, what="mean_slowdown when a shared machine is slower")


# %% key="blocking-m1" role="mutant" exercise="blocking" name="total time over total size"
def mean_slowdown(requests):
    return sum(request["end"] - request["arrival"] for request in requests) / sum(request["alone"] for request in requests)


# %% key="blocking-m2" role="mutant" exercise="blocking" name="slowdown without the request's own time"
def slowdown(request):
    return (request["start"] - request["arrival"]) / request["alone"]


# %% key="blocking-m3" role="mutant" exercise="blocking" name="slowdown from the start: the wait left out"
def slowdown(request):
    return (request["end"] - request["start"]) / request["alone"]


# %% key="blocking-m4" role="mutant" exercise="blocking" name="everybody in front blocks, also the shorter ones"
_blocked_seconds = blocked_seconds


def blocked_seconds(request, requests):
    longer = [other if other is request else other | {"alone": float("inf")} for other in requests
              if other is not request and other != request]
    return _blocked_seconds(request, longer)


# %% key="blocking-m5" role="mutant" exercise="blocking" name="two blockers count twice"
def blocked_seconds(request, requests):
    longer = [other for other in requests if other["alone"] > request["alone"]]
    return float(sum(max(0.0, min(request["start"], other["end"]) - max(request["arrival"], other["start"])) for other in longer))


# %% key="blocking-m6" role="mutant" exercise="blocking" name="a long request blocks while it waits itself"
_blocked_seconds = blocked_seconds


def blocked_seconds(request, requests):
    return _blocked_seconds(request, [other | {"start": other["arrival"]} if other != request else other for other in requests])


# %% key="blocking-m7" role="mutant" exercise="blocking" name="counts on after the request has started"
_blocked_seconds = blocked_seconds


def blocked_seconds(request, requests):
    return _blocked_seconds(request | {"start": request["end"]}, requests)


# %% key="blocking-m8" role="mutant" exercise="blocking" name="index of the whole time instead of the waiting"
def blocking_index(requests):
    total = sum(request["end"] - request["arrival"] for request in requests)
    return sum(blocked_seconds(request, requests) for request in requests) / total


# %% key="blocking-m9" role="mutant" exercise="blocking" name="mean of the requests' shares"
def blocking_index(requests):
    shares = [blocked_seconds(request, requests) / (request["start"] - request["arrival"])
              for request in requests if request["start"] > request["arrival"]]
    return sum(shares) / len(shares) if shares else 0.0


# %% [markdown] key="reserve" lang="en" role="exercise" exercise="reservation" points=4 difficulty=3 minutes=20 needs="week 4, part 6"
# ## Exercise 5 · How much memory to promise
#
# Every token of a request fills a slot of the KV cache until the request ends. Nobody knows how many there will be, but somebody
# has to promise memory before it starts. `lengths` is an array of output lengths that were seen before.
#
# 1. `smallest_reservation(lengths, risk)`: the smallest number of tokens such that at most a share `risk` of the `lengths` is
#    longer. With `risk = 0` it is the greatest length.
# 2. `waste(lengths, reserved)`: every request is promised `reserved` slots. The share of all promised slots that is never used. A
#    request that outgrows its promise uses all of it, and not more: it has no slots to lend.
# 3. `peak_tokens(prompts, outputs)`: no promises; requests start **together**, take slots as they need them and free them all
#    when they end. The most slots in use at once. In its first step a request holds its prompt; in each further step one more
#    token; after as many steps as it has output tokens it is gone. (Its last token is delivered and never stored.)
# 4. `oom_risk(lengths, prompt, together, capacity, draws, seed)`: draw `draws` random groups of `together` output lengths each from
#    `lengths` (each as likely as the next, and it may come again: `choice` of `np.random.default_rng(seed)`). All have prompts of
#    `prompt` tokens. The share of groups whose peak is above `capacity` slots: they run **o**ut **o**f **m**emory.
#
# `peak_tokens` is compared with what the course's engine really holds.

# %% [markdown] key="reserve-help-quantile" lang="en" role="help" exercise="reservation" title="My reservation is one too small, or not a whole number"
# `np.quantile` interpolates between lengths, and what comes out may be too little for one request more than you may lose.
# Try the lengths themselves, from the shortest on: how many are longer?

# %% [markdown] key="reserve-help-peak" lang="en" role="help" exercise="reservation" title="My peak is larger than what the engine held"
# The short requests are gone when the long ones are at their longest: adding up everybody's final size counts memory that was
# already given back. Go through the steps: who is still there, and how much does each hold by then?

# %% [markdown] key="reserve-help-slow" lang="en" role="help" exercise="reservation" title="oom_risk takes very long"
# The memory in use can only be at its peak in the last step of some request: until then it grows. So it is enough to look at one step
# for each request, not at all of them.

# %% key="reserve-answer" role="answer" exercise="reservation"
def smallest_reservation(lengths, risk):
    """Fewest tokens such that at most a share `risk` of the lengths is longer."""
    ### BEGIN SOLUTION
    lengths = np.asarray(lengths)
    return int(next(each for each in np.unique(lengths) if (lengths > each).mean() <= risk))
    ### END SOLUTION


def waste(lengths, reserved):
    """Share of all reserved slots that is never used."""
    ### BEGIN SOLUTION
    return float(np.maximum(0, reserved - np.asarray(lengths)).mean() / reserved)
    ### END SOLUTION


def peak_tokens(prompts, outputs):
    """Most slots in use at once when all start together."""
    ### BEGIN SOLUTION
    ending = sorted(zip(outputs, prompts, strict=True), reverse=True)
    peak = held = 0
    for count, (output, prompt) in enumerate(ending, start=1):
        held += prompt
        peak = max(peak, held + count * (output - 1))
    return int(peak)
    ### END SOLUTION


def oom_risk(lengths, prompt, together, capacity, draws, seed):
    """Share of random groups that run out of memory."""
    ### BEGIN SOLUTION
    groups = np.random.default_rng(seed).choice(lengths, (draws, together))
    return sum(peak_tokens([prompt] * together, group) > capacity for group in groups) / draws
    ### END SOLUTION


# %% key="reserve-check" role="check" exercise="reservation"
SEEN = np.array([3] * 50 + [10] * 30 + [40] * 12 + [120] * 6 + [400] * 2)


def held_by_the_engine(prompts, outputs):
    """Most slots the course's engine holds at once when all requests start together: blocks of one slot each."""
    engine = Engine(MockExecutor(1), BlockPool(8192, 1), batching="mixed", token_budget=8192, max_running=256, clock=VirtualClock())
    for prompt, output in zip(prompts, outputs, strict=True):
        engine.add(Request([1] * prompt, SamplingParams(max_tokens=output, ignore_eos=True)))
    for _ in engine.stream():
        pass
    return max(event.data["used_blocks"] for event in engine.events if event.kind is EventKind.STEP)


def groups(lengths, together, draws, seed=99):
    """Peaks of random groups, step by step."""
    drawn = np.random.default_rng(seed).choice(lengths, (draws, together))
    steps = np.arange(int(drawn.max()))
    return lambda prompt: ((prompt + steps) * (drawn[:, :, None] > steps)).sum(1).max(1)


@check("reservation")
def the_smallest_that_is_safe(student):
    """A hundred answers: how much must be promised so that at most 10%, 2%, none outgrow it?"""
    got = [student.call("smallest_reservation", SEEN, risk) for risk in (0.5, 0.2, 0.1, 0.02, 0.0)]
    expect_equal(got, [3, 10, 40, 120, 400], what="reservations for risks of 50%, 20%, 10%, 2% and 0%", hints=[
        ([int(np.ceil(SEEN.mean()))] * 5, "the mean says nothing about how many outgrow it"),
        ([int(np.quantile(SEEN, 1 - risk)) for risk in (0.5, 0.2, 0.1, 0.02, 0.0)], "np.quantile takes a value between two lengths: try the "
         "lengths themselves"),
        ([float(np.quantile(SEEN, 1 - risk)) for risk in (0.5, 0.2, 0.1, 0.02, 0.0)], "np.quantile takes a value between two lengths: try "
         "the lengths themselves"),
        ([10, 40, 120, 400, 400], "one step too careful: a share of exactly `risk` may be longer")])


@check("reservation")
def promised_and_unused(student):
    """Everybody is promised 400, 40 or 10 slots."""
    for reserved in (400, 40, 10):
        want = float(np.maximum(0, reserved - SEEN).mean() / reserved)
        expect_close(student.call("waste", SEEN, reserved), want, 1e-9, what=f"waste of {reserved} slots each", hints=[
            (float((reserved - SEEN).mean() / reserved), "requests that outgrow their promise were taken as negative waste: they do not "
             "give anything back to the others"),
            (float(np.maximum(0, reserved - SEEN).mean()), "these are slots a request; the share of the promised slots is asked for"),
            (float((reserved > SEEN).mean()), "that is the share of requests with anything left over"),
            (1 - want, "that is the share that is used")])


@check("reservation")
def as_the_engine_holds_it(student):
    """Requests that start together on the course's engine: the most slots it ever held."""
    rng = np.random.default_rng(2)
    for prompts, outputs in (([5], [1]), ([10, 10], [1, 20]), ([8, 3, 20], [30, 12, 2]),
                             (rng.integers(1, 40, 12).tolist(), rng.choice(SEEN, 12).tolist())):
        want = held_by_the_engine(prompts, outputs)
        final = sum(p + o - 1 for p, o in zip(prompts, outputs, strict=True))
        expect_equal(student.call("peak_tokens", prompts, outputs), want, what=f"peak of prompts {prompts} and outputs {outputs}", hints=[
            (final if final != want else -1, "the sizes of all at their ends, added up: but the short ones are gone by the time the long "
             "ones are long"),
            (sum(prompts) if sum(prompts) != want else -1, "the first step only: every request grows"),
            (want + len(prompts), "the last token of an answer is delivered and never stored")])


@check("reservation")
def sharing_needs_less_than_promises(student):
    """32 answers together: one pool of 1,200 slots is rarely too small, though promises of 120 each would take 3,840."""
    got = {capacity: student.call("oom_risk", SEEN, 8, 32, capacity, 600, 7) for capacity in (400, 700, 1200)}
    peaks = groups(SEEN, 32, 1500)(8)
    for capacity, share in got.items():
        want = float((peaks > capacity).mean())
        expect_close(share, want, 0.08, what=f"share of groups above {capacity} slots", hints=[
            (1 - want, "that is the share that fits"),
            (float(1 - (8 + SEEN - 1 <= capacity / 32).mean() ** 32), "each request was compared with its own part of the memory: they share "
             "all of it, and are not all long at once"),
            (float((32 * (8 + SEEN - 1) > capacity).mean()), "all members of a group had the same length: draw each one anew")])


# %% key="reserve-hidden" role="hidden" exercise="reservation"
@check("reservation")
def between_two_lengths(student):
    """Seven lengths, risks that fall between them; one length alone."""
    lengths = np.array([5, 1, 9, 2, 7, 3, 8])
    got = [student.call("smallest_reservation", lengths, risk) for risk in (0.0, 0.1, 0.15, 0.3, 0.5, 0.99)]
    expect_equal(got, [9, 9, 8, 7, 5, 1], what="reservations for risks of 0, 0.1, 0.15, 0.3, 0.5 and 0.99")
    expect_equal(student.call("smallest_reservation", np.array([6, 6, 6]), 0.0), 6, what="three equal lengths")


@check("reservation")
def more_than_anybody_needs(student):
    """A promise far above all lengths, and one below all."""
    expect_close(student.call("waste", np.array([10, 20]), 100), 0.85, 1e-9, what="waste of 100 slots for 10 and 20")
    expect_close(student.call("waste", np.array([10, 20]), 5), 0.0, 1e-9, what="waste of 5 slots for 10 and 20")


@check("reservation")
def peaks_at_the_start_and_in_the_middle(student):
    """Long prompts with short answers peak at once; the long answer may not be the peak."""
    for prompts, outputs in (([500, 400, 1], [2, 2, 60]), ([10] * 6, [30, 30, 30, 30, 30, 90]), ([1, 1], [50, 50]), ([7] * 5, [1] * 5)):
        want, last = held_by_the_engine(prompts, outputs), max(outputs)
        at_last = sum(p + last - 1 for p, o in zip(prompts, outputs, strict=True) if o == last)
        expect_equal(student.call("peak_tokens", prompts, outputs), want, what=f"peak of prompts {prompts} and outputs {outputs}", hints={
            at_last if at_last != want else -1: "that is what is held when the longest ends; more was held before, when more were there"})


@check("reservation")
def risk_at_the_edges(student):
    """A peak equal to the capacity fits; one slot less does not; other lengths, another seed."""
    same = np.array([11, 11, 11])
    expect_close(student.call("oom_risk", same, 5, 4, 60, 20, 0), 0.0, 1e-9, what="risk when the peak is just the capacity")
    expect_close(student.call("oom_risk", same, 5, 4, 59, 20, 0), 1.0, 1e-9, what="risk with one slot less")
    two = np.array([1, 101])
    expect_close(student.call("oom_risk", two, 0, 2, 150, 4000, 3), 0.25, 0.03, what="risk of two answers of 1 or 101 tokens in 150 slots", hints={
        0.5: "both members of a group had the same length: draw each one anew", 0.75: "one long answer alone fits"})


# %% key="reserve-m1" role="mutant" exercise="reservation" name="plans with the mean"
def smallest_reservation(lengths, risk):
    return int(np.ceil(np.mean(lengths)))


# %% key="reserve-m2" role="mutant" exercise="reservation" name="interpolated quantile: too little for one request more"
def smallest_reservation(lengths, risk):
    return int(np.quantile(lengths, 1 - risk))


# %% key="reserve-m3" role="mutant" exercise="reservation" name="who outgrows his promise gives slots to others"
def waste(lengths, reserved):
    return float(1 - np.mean(lengths) / reserved)


# %% key="reserve-m4" role="mutant" exercise="reservation" name="adds up everybody's final size"
def peak_tokens(prompts, outputs):
    return int(sum(prompts) + sum(outputs) - len(outputs))


# %% key="reserve-m5" role="mutant" exercise="reservation" name="the peak is when the longest ends"
def peak_tokens(prompts, outputs):
    longest = max(outputs)
    return int(sum(prompt + longest - 1 for prompt, output in zip(prompts, outputs, strict=True) if output == longest))


# %% key="reserve-m6" role="mutant" exercise="reservation" name="stores the last token too"
_peak_tokens = peak_tokens


def peak_tokens(prompts, outputs):
    return _peak_tokens(prompts, [output + 1 for output in outputs])


# %% key="reserve-m7" role="mutant" exercise="reservation" name="everybody is long at the same time"
def oom_risk(lengths, prompt, together, capacity, draws, seed):
    drawn = np.random.default_rng(seed).choice(lengths, draws)
    return float(np.mean(together * (prompt + drawn - 1) > capacity))


# %% key="reserve-m8" role="mutant" exercise="reservation" name="a group that fills the memory exactly is out of memory"
_oom_risk = oom_risk


def oom_risk(lengths, prompt, together, capacity, draws, seed):
    return _oom_risk(lengths, prompt, together, capacity - 1, draws, seed)


# %% key="reserve-m9" role="mutant" exercise="reservation" name="each request against its own part of the memory"
def oom_risk(lengths, prompt, together, capacity, draws, seed):
    drawn = np.random.default_rng(seed).choice(lengths, (draws, together))
    return float(np.mean((prompt + drawn - 1 > capacity / together).any(1)))
