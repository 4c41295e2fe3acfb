"""Lab 9: the order of lengths, an honest test, a predictor, a loss for order, predicting again, bins, worth. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 9 · Prediction
#
# How long will the answer be? Nobody knows before it is written, but a prompt says something about it, and a scheduler that
# knows something does better than one that knows nothing. You measure whether predictions have the right **order**, test
# predictors honestly, build two of them from answers of a real model (the course's `course-tiny`), and then put predictions to use: in a scheduler
# that predicts again while answers grow, and in one that puts requests of like length together. At the end you work out when all this pays.
#
# **How to work.** Write your answer where `NotImplementedError` stands, run the cell, run the check below it. A check
# that fails says what it asked, what came back, and often which idea went wrong. Stuck? Each folded help is named
# after something you may see or ask: open the one that fits. Exercises do not depend on each other, so you can also
# go on to the next. Some checks are hidden: they try other numbers, other prompts and edge cases of what the statement says, nothing
# else.
#
# **Your own work.** An answer is built on what the cell below defines and imports, and on nothing else of the package: with
# `from llmcourse… import` in it, or with the course's own version (`course_tau` and `CourseFeatures`, there for comparing and for trying out), it earns nothing. Each answer is judged without the others.
#
# **To see your score:** `llmcourse check labs/lab09_prediction.ipynb`. **To hand in:** save the notebook and hand in the
# file.
#
# The lecture of week 9 has the ideas behind all of this. You need plain Python, a little numpy (exercise 3) and a little torch
# (exercise 4). The cell below sets things up: run it.

# %% key="setup" role="setup"
import bisect
import math
import random
import re
import statistics
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import torch

from llmcourse.engine import Engine, EventKind, Policy, Request, SamplingParams, VirtualClock
from llmcourse.engine.preemption import Preemption
from llmcourse.executors import MockExecutor
from llmcourse.grading import Served, check, expect_close, expect_equal, expect_true
from llmcourse.kv import BlockPool
from llmcourse.policies import MultiBin
from llmcourse.predict import LengthData
from llmcourse.predict import kendall_tau as course_tau
from llmcourse.predict.features import Features as CourseFeatures


def rows_of(data):
    """Pairs (prompt, tokens of an answer): six for each prompt, for each was answered six times."""
    return [(prompt, int(length)) for prompt, lengths in zip(data.prompts, data.lengths, strict=True) for length in lengths]


LENGTHS = LengthData.load()                               # 882 prompts, six answers of course-tiny to each
PRACTICE = LENGTHS.split(held_out=0.3, seed=9)[0]         # 607 of them; the others are for the hidden checks
ROWS = rows_of(PRACTICE)                                  # [("Count to 7", 14), ("Count to 7", 14), ...]


class Residual:
    """What an answer of course-tiny still lacks, from nothing but how much of it has come: the mean over those that are longer."""

    def __init__(self, rows):
        self.lengths = sorted(length for _, length in rows)

    def remaining(self, request):
        longer = self.lengths[bisect.bisect_right(self.lengths, len(request.output)):]
        return sum(longer) / len(longer) - len(request.output) if longer else 1.0


# %% [markdown] key="tau" lang="en" role="exercise" exercise="tau" points=2 difficulty=2 minutes=20 needs="week 9, part 3"
# ## Exercise 1 · The right order
#
# A scheduler asks of two requests which one is shorter, and no more. So what counts of predictions is their **order**. Kendall's tau
# looks at all pairs: write
#
# `kendall_tau(first, second)`: two lists of numbers, equally long, at least 2 numbers each (for example true and predicted lengths). Take every
# pair of places $i < j$, each pair once. The pair is
#
# - **concordant** if `first` and `second` have it in the same order: both rise from $i$ to $j$, or both fall;
# - **discordant** if one rises and the other falls;
# - **tied** in a list that has two equal numbers there. A pair that is tied in either list, or in both, is neither concordant nor discordant.
#
# Return **tau-b**, a `float`:
#
# $$\tau_b = \frac{C - D}{\sqrt{(P - T_1)\,(P - T_2)}}$$
#
# where $C$ and $D$ count concordant and discordant pairs, $P = n(n-1)/2$ all pairs, $T_1$ the pairs that are tied in `first` (whether or not
# they are tied in `second`), and $T_2$ those tied in `second`. If all numbers of a list are equal, it orders nothing: return `0.0`.
#
# Lists have at most a few hundred numbers: you may simply try all pairs.

# %% [markdown] key="tau-help-ties" lang="en" role="help" exercise="tau" title="Why does anybody care about ties?"
# Because predictions that come in classes are almost all ties, and real lengths repeat: half of course-tiny's answers have 11 tokens or
# fewer. If ties are simply left in the denominator, even the best possible predictions stay far below 1. If they count as right,
# a predictor that says the same for everybody is perfect.

# %% [markdown] key="tau-help-zero" lang="en" role="help" exercise="tau" title="ZeroDivisionError"
# One of the lists has all its numbers equal, so all pairs are tied in it and the root is 0. Return 0.0 before you divide.

# %% [markdown] key="tau-help-try" lang="en" role="help" exercise="tau" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# print(kendall_tau([1, 2, 3], [10, 20, 15]))       # pairs: 2 concordant, 1 discordant: 1/3
# print(kendall_tau([1, 2, 3], [5, 5, 9]))          # one pair is tied in the second list: 2 / sqrt(3 * 2) = 0.816...
# ```

# %% key="tau-answer" role="answer" exercise="tau"
def kendall_tau(first, second):
    """Tau-b of two lists of numbers: 1 for the same order, -1 for the opposite one."""
    ### BEGIN SOLUTION
    difference, tied, pairs = 0, [0, 0], len(first) * (len(first) - 1) // 2
    for j in range(len(first)):
        for i in range(j):
            a, b = first[j] - first[i], second[j] - second[i]
            difference += ((a > 0) - (a < 0)) * ((b > 0) - (b < 0))
            tied[0] += a == 0
            tied[1] += b == 0
    if pairs in tied:
        return 0.0
    return difference / math.sqrt((pairs - tied[0]) * (pairs - tied[1]))
    ### END SOLUTION


# %% key="tau-check" role="check" exercise="tau"
def tau(student, first, second, want, hints=()):
    """The student's tau of two short lists is `want`."""
    got = student.call("kendall_tau", first, second)
    expect_true(type(got) in (int, float), f"kendall_tau returns a number; this was {got!r}")
    expect_close(got, want, 1e-9, what=f"tau of {first} and {second}", hints=hints)


@check("tau")
def without_ties(student):
    """Three and four numbers, all different."""
    tau(student, [1, 2, 3], [10, 20, 15], 1 / 3, [
        (-1 / 3, "the sign: concordant pairs count for it, discordant pairs against it"),
        (2 / 3, "discordant pairs count against it, C - D; and each pair counts once, i < j"), (0.5, "that is a correlation of values or ranks; count pairs"),
        (0.0, "every pair of places counts once, i < j: not only neighbours, not the other way round as well, and no place with itself"),
        (1.0, "divide by all pairs, n(n-1)/2 = 3"), (1 / 6, "P is n(n-1)/2 = 3: each pair once"), (1 / 9, "the root of the product stands below")])
    tau(student, [4, 1, 3, 2], [100, 3, 7, 4], 1.0, [(0.0, "every pair counts, i < j, whatever the order of the lists")])
    tau(student, [4, 1, 3, 2], [-4, -1, -3, -2], -1.0)


@check("tau")
def with_ties(student):
    """Pairs that are tied in one list, or in both."""
    tau(student, [1, 2, 3], [5, 5, 9], 2 / math.sqrt(6), [
        (2 / 3, "this is tau-a: the pair tied in the second list still stands in the denominator"),
        (1.0, "one pair is tied in the second list: it is not concordant, and it stays in P - T1 (only T2 counts it)"),
        (3 / math.sqrt(6), "a tied pair is not concordant"), (1 / 3, "a tied pair is not discordant"),
        (1 / math.sqrt(6), "a tied pair is not discordant")])
    tau(student, [1, 1, 2, 3], [1, 1, 2, 0], -1 / 5, [
        (-1 / 6, "there are no ties in your denominator: (0, 1) is tied in both lists and counts in T1 and in T2"),
        (-1 / math.sqrt(30), "(0, 1) is tied in both lists: it counts in T1 and in T2"),
        (0.0, "(0, 1) is tied in both lists: that is not concordant")])


@check("tau")
def says_the_same_of_all(student):
    """A predictor that says 11 tokens of everybody orders nothing."""
    tau(student, [3, 90, 14, 7], [11, 11, 11, 11], 0.0, [(1.0, "no pair is in the wrong order, but none is in the right one either")])
    tau(student, [5, 5], [1, 2], 0.0)


# %% key="tau-hidden" role="hidden" exercise="tau"
@check("tau")
def real_lengths(student):
    """Answers of course-tiny against other answers to the same prompts, and against classes."""
    lengths = PRACTICE.lengths[::4]
    for other in (lengths[:, 1], np.searchsorted([3, 11, 60], lengths[:, 1]), -lengths[:, 2]):
        got = student.call("kendall_tau", lengths[:, 0].tolist(), other.tolist())
        expect_close(got, course_tau(lengths[:, 0], other), 1e-9, what=f"tau of {len(other)} pairs of lengths of course-tiny")


@check("tau")
def any_lists(student):
    """A hundred short lists drawn at random: many ties, negative numbers, fractions."""
    rng = random.Random(1)
    for _ in range(100):
        count = rng.randint(2, 9)
        first = [rng.choice([-2, 0, 0.5, 3]) for _ in range(count)]
        second = [rng.choice([-7.25, 1, 10**6]) for _ in range(count)]
        tau(student, first, second, course_tau(first, second))


# %% key="tau-m1" role="mutant" exercise="tau" name="tau that ignores ties (tau-a)"
def kendall_tau(first, second):
    pairs = [(i, j) for j in range(len(first)) for i in range(j)]
    signs = [(first[j] - first[i]) * (second[j] - second[i]) for i, j in pairs]
    return (sum(s > 0 for s in signs) - sum(s < 0 for s in signs)) / len(pairs)


# %% key="tau-m2" role="mutant" exercise="tau" name="ties count as concordant"
def kendall_tau(first, second):
    pairs = [(i, j) for j in range(len(first)) for i in range(j)]
    signs = [(first[j] - first[i]) * (second[j] - second[i]) for i, j in pairs]
    return (sum(s >= 0 for s in signs) - sum(s < 0 for s in signs)) / len(pairs)


# %% key="tau-m3" role="mutant" exercise="tau" name="leaves every tied pair out altogether (gamma)"
def kendall_tau(first, second):
    pairs = [(i, j) for j in range(len(first)) for i in range(j)]
    signs = [(first[j] - first[i]) * (second[j] - second[i]) for i, j in pairs]
    up, down = sum(s > 0 for s in signs), sum(s < 0 for s in signs)
    return (up - down) / (up + down) if up + down else 0.0


# %% key="tau-m4" role="mutant" exercise="tau" name="pairs tied in both lists are not counted as ties"
def kendall_tau(first, second):
    pairs = [(first[j] - first[i], second[j] - second[i]) for j in range(len(first)) for i in range(j)]
    up, down = sum(a * b > 0 for a, b in pairs), sum(a * b < 0 for a, b in pairs)
    one, two = sum(a == 0 != b for a, b in pairs), sum(b == 0 != a for a, b in pairs)
    root = math.sqrt((len(pairs) - one) * (len(pairs) - two))
    return (up - down) / root if root else 0.0


# %% key="tau-m5" role="mutant" exercise="tau" name="correlation of values instead of order"
def kendall_tau(first, second):
    if len(set(first)) == 1 or len(set(second)) == 1:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


# %% key="tau-m6" role="mutant" exercise="tau" name="compares only neighbours"
def kendall_tau(first, second):
    signs = [(b - a) * (d - c) for a, b, c, d in zip(first, first[1:], second, second[1:], strict=False)]
    return (sum(s > 0 for s in signs) - sum(s < 0 for s in signs)) / len(signs)


# %% key="tau-m7" role="mutant" exercise="tau" name="a predictor that says the same of all is perfect"
_tau = kendall_tau


def kendall_tau(first, second):
    return 1.0 if len(set(second)) == 1 else _tau(first, second)


# %% key="tau-m8" role="mutant" exercise="tau" name="the order upside down"
_tau = kendall_tau


def kendall_tau(first, second):
    return -_tau(first, second)


# %% [markdown] key="honest" lang="en" role="exercise" exercise="honest" points=3 difficulty=2 minutes=25 needs="week 9, part 2"
# ## Exercise 2 · An honest test
#
# `ROWS` in the setup has 3,642 pairs `(prompt, length)`: 607 prompts, each answered six times by `course-tiny`. A predictor must be tested on
# **prompts that it has never seen**; else learning them by heart looks like predicting. Write
#
# 1. `split_by_prompt(rows, share, seed)`: returns `(train, test)`, two lists that hold every row exactly once. Of the $n$ *different* prompts of the
#    rows, `round(share * n)` are held out: all their rows are in `test`, all other rows in `train`. Both lists keep the order
#    of the rows. Which prompts are held out is drawn at random from the different prompts, each as likely as any other. The seed and the set of
#    prompts decide, and nothing else: not the lengths, not in which order the rows come, nor how many a prompt has. Another seed holds out others.
# 2. `evaluate(predictor, rows, share, seed)`: splits the rows with your `split_by_prompt`, trains the predictor on one part and tests it on the
#    other. `predictor.fit(rows)` trains it on rows; call it once. `predictor.predict(prompts)` takes a list of prompts and returns a list with
#    a number of tokens for each; whether you ask for a prompt once, or once for each of its rows, is up to you. Return a dictionary:
#    - `"mae"`: the mean over the **test rows** of |length − prediction|;
#    - `"median_mae"`: the same for somebody who always says the median of the lengths that could be known, the **training rows'**. That is
#      what a predictor has to beat. The median is `statistics.median`.
#
# In the checks both parts have at least one prompt.

# %% [markdown] key="honest-help-rows" lang="en" role="help" exercise="honest" title="Why not simply shuffle the rows?"
# Then five of a prompt's six answers are for training and the sixth is for the test: the predictor has seen the prompt. Learning by heart
# would look excellent, and be useless for the first new prompt that comes.

# %% [markdown] key="honest-help-order" lang="en" role="help" exercise="honest" title="The same rows in another order are split differently"
# Collect the different prompts and **sort** them before you draw. A `set` alone is not enough: the order in which Python walks
# through a set of texts is different every time the notebook is started.

# %% [markdown] key="honest-help-draw" lang="en" role="help" exercise="honest" title="How do I draw some of them with a seed?"
# `random.Random(seed).sample(prompts, count)`, where `prompts` is a list.

# %% [markdown] key="honest-help-try" lang="en" role="help" exercise="honest" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# rows = [("a", 1), ("a", 2), ("b", 5), ("c", 9), ("c", 8), ("d", 3)]
# print(split_by_prompt(rows, 0.5, seed=0))           # for example ([("a", 1), ("a", 2), ("d", 3)], [("b", 5), ("c", 9), ("c", 8)])
#
# class Always7:
#     def fit(self, rows): pass
#     def predict(self, prompts): return [7] * len(prompts)
#
# print(evaluate(Always7(), ROWS, 0.25, seed=0))      # both errors between 30 and 45 tokens
# ```

# %% key="honest-answer" role="answer" exercise="honest"
def split_by_prompt(rows, share, seed):
    """`(train, test)`: rows of a share of the prompts are held out."""
    ### BEGIN SOLUTION
    prompts = sorted({prompt for prompt, _ in rows})
    held = set(random.Random(seed).sample(prompts, round(share * len(prompts))))
    return [row for row in rows if row[0] not in held], [row for row in rows if row[0] in held]
    ### END SOLUTION


def evaluate(predictor, rows, share, seed):
    """Error in tokens on held-out prompts, of the predictor and of the training median."""
    ### BEGIN SOLUTION
    train, test = split_by_prompt(rows, share, seed)
    predictor.fit(train)
    said = predictor.predict([prompt for prompt, _ in test])
    median = statistics.median(length for _, length in train)
    return {"mae": statistics.fmean(abs(length - guess) for (_, length), guess in zip(test, said, strict=True)),
            "median_mae": statistics.fmean(abs(length - median) for _, length in test)}
    ### END SOLUTION


# %% key="honest-check" role="check" exercise="honest"
FEW = [("b", 20), ("a", 1), ("c", 7), ("a", 3), ("d", 50), ("c", 9), ("e", 4), ("a", 2), ("f", 200), ("g", 30), ("h", 5), ("b", 24)]


def parts(student, rows, share, seed):
    """The student's split, as two lists of tuples."""
    got = student.call("split_by_prompt", rows, share, seed)
    good = type(got) in (tuple, list) and len(got) == 2 and all(type(part) is list for part in got)
    expect_true(good and all(type(row) in (tuple, list) and len(row) == 2 for part in got for row in part),
                f"split_by_prompt returns two lists of rows, (train, test); this was {got!r}"[:300])
    return tuple([tuple(row) for row in part] for part in got)


class Spy:
    """A predictor of the checker's that notes what it is trained on and what it is asked."""

    def __init__(self):
        self._trained, self._asked = [], []

    def fit(self, rows, progress=None):
        self._trained.append(rows)

    def predict(self, prompts):
        self._asked.append(prompts)
        return [self.guess(prompt) for prompt in prompts]

    def guess(self, prompt):
        return 10.0 + len(str(prompt)) % 7


def spied(student, rows, share, seed):
    """The student's evaluation, and the spy that it was given; the answers must not have reached the spy."""
    spy = Spy()
    got = student.call("evaluate", Served(spy), rows, share, seed)
    student.last = ""
    good = type(got) is dict and set(got) == {"mae", "median_mae"} and all(type(value) in (int, float) for value in got.values())
    expect_true(good, f"evaluate returns a dictionary with the numbers \"mae\" and \"median_mae\"; this was {got!r}")
    expect_equal(len(spy._trained), 1, what="how often the predictor was trained")
    rows_given = type(spy._trained[0]) in (list, tuple) and all(type(row) in (list, tuple) and len(row) == 2 for row in spy._trained[0])
    expect_true(rows_given, f"fit takes a list of rows (prompt, length); it was given {spy._trained[0]!r}"[:300])
    texts = all(type(prompts) is list and set(map(type, prompts)) <= {str} for prompts in spy._asked)
    first = spy._asked[0] if spy._asked else None
    expect_true(bool(spy._asked), "predict was never called")
    told = ". With the lengths it is told the answers" if type(first) is list else ""
    expect_true(texts, "predict takes a list of prompts, texts alone; it was given a " + type(first).__name__ + f": {first!r}"[:120] + " …" + told)
    return got, spy


@check("honest")
def no_prompt_on_both_sides(student):
    """Twelve rows of eight prompts: three prompts are held out, with all their rows."""
    train, test = parts(student, FEW, 0.35, 1)
    both = sorted({prompt for prompt, _ in train} & {prompt for prompt, _ in test})
    expect_true(not both, f"prompts {both} are in both parts: what is tested has been seen in training. Draw prompts, not rows")
    expect_equal(sorted(train + test), sorted(FEW), what="rows of both parts together, sorted")
    count = len({prompt for prompt, _ in test})
    expect_equal(count, 3, what="prompts held out, of 8 with a share of 0.35", hints={
        5: "is it train first, test second?", 4: "a share of the prompts, not of the rows", 2: "round(), not int()"})
    for part in (train, test):
        expect_equal(part, [row for row in FEW if row in part], what="rows of a part, in the order in which they came")


@check("honest")
def prompts_and_seed_decide(student):
    """Neither the lengths nor the order of the rows; another seed draws others."""
    rng = random.Random(5)
    held = {}
    for seed in range(12):
        held[seed] = {prompt for prompt, _ in parts(student, FEW, 0.25, seed)[1]}
        shuffled = [(prompt, rng.randint(1, 400)) for prompt, _ in rng.sample(FEW, len(FEW))]
        twice = {prompt for prompt, _ in parts(student, FEW, 0.25, seed)[1]}
        expect_equal(sorted(twice), sorted(held[seed]), what=f"prompts held out of the same rows, asked a second time (seed {seed})", hints=[
            (sorted(twice), "the seed alone decides what is drawn: random.Random(seed)")])
        again = {prompt for prompt, _ in parts(student, shuffled, 0.25, seed)[1]}
        expect_equal(sorted(again), sorted(held[seed]), what="prompts held out of the same prompts, when the rows come in another order and "
                     f"with other lengths (seed {seed})", hints=[(sorted(again), "collect the different prompts and sort them before you draw")])
        many = {prompt for prompt, _ in parts(student, ROWS, 0.25, seed)[1]}
        others = {prompt for prompt, _ in parts(student, rng.sample(ROWS, len(ROWS)), 0.25, seed)[1]}
        student.last = ""
        expect_true(many == others, f"ROWS in another order: {len(many - others)} of {len(many)} held-out prompts are no longer held out (seed {seed}). Sort the different prompts "
                    "before you draw: a set has an order of its own, which may be another one each time")
    expect_true(len(set(map(frozenset, held.values()))) > 3, f"seeds 0 to 11 hold out only {sorted(map(sorted, held.values()))[:3]}: "
                "does the seed decide?")


@check("honest")
def trained_on_one_part_tested_on_the_other(student):
    """What the predictor is shown in training, and what it is asked."""
    def middles(seed):
        return {statistics.median(n for _, n in part) for part in (*parts(student, ROWS, 0.25, seed), ROWS) if part}
    seed = next((seed for seed in range(20) if len(middles(seed)) == 3), 3)     # a split that tells the medians apart
    got, spy = spied(student, ROWS, 0.25, seed)
    train, test = parts(student, ROWS, 0.25, seed)
    student.last = ""
    trained, asked = {row[0] for row in spy._trained[0]}, {prompt for prompts in spy._asked for prompt in prompts}
    expect_true(not trained & asked, f"{len(trained & asked)} of {len(asked)} prompts that the predictor was tested on had been shown to it in training")
    expect_equal([tuple(row) for row in spy._trained[0]], train, what="rows that the predictor was trained on")
    expect_equal(sorted(asked), sorted({prompt for prompt, _ in test}), what="prompts that the predictor was asked about")
    right = [abs(length - spy.guess(prompt)) for prompt, length in test]
    each = {}
    for (prompt, _), wrong in zip(test, right, strict=True):
        each.setdefault(prompt, []).append(wrong)
    expect_close(got["mae"], sum(right) / len(right), 1e-6, what="mae", hints=[
        (statistics.fmean(abs(statistics.fmean(n for q, n in test if q == p) - spy.guess(p)) for p in each), "each row counts: an error for every length, not one for the mean of a prompt's lengths"),
        (sum(right), "the mean, not the sum"), (math.sqrt(sum(e * e for e in right) / len(right)), "absolute errors, not squares"),
        (sum(spy.guess(p) - n for p, n in test) / len(test), "too long and too short must not cancel: abs()"),
        (sum(n - spy.guess(p) for p, n in test) / len(test), "too long and too short must not cancel: abs()")])
    medians = {name: statistics.median(n for _, n in part) for name, part in (("train", train), ("test", test), ("all", ROWS))}
    error = {name: statistics.fmean(abs(n - median) for _, n in test) for name, median in medians.items()}
    mean = statistics.fmean(n for _, n in train)
    expect_close(got["median_mae"], error["train"], 1e-6, what="median_mae", hints=[
        (error["test"], "the median of the test rows is not known yet when one has to predict"),
        (error["all"], "among all rows are the test rows, and their lengths are not known yet when one has to predict"),
        (statistics.fmean(abs(n - mean) for _, n in test), "the median, not the mean"),
        (statistics.fmean(abs(n - medians["train"]) for _, n in train), "its error on the test rows counts")])


@check("honest")
def permuted_answers(student):
    """Permute the answers of the held-out prompts: nothing that the predictor sees may change."""
    for seed in (0, 4):
        held = {prompt for prompt, _ in parts(student, FEW, 0.5, seed)[1]}
        lengths = [length for prompt, length in FEW if prompt in held][::-1]
        permuted = [(prompt, lengths.pop() + 100) if prompt in held else (prompt, length) for prompt, length in FEW]
        seen = [spied(student, rows, 0.5, seed)[1] for rows in (FEW, permuted)]
        expect_true(seen[0]._trained == seen[1]._trained and seen[0]._asked == seen[1]._asked, "the answers to the held-out prompts were "
                    "changed, and the predictor was trained on or asked something else: it gets to know answers that it should predict")


# %% key="honest-hidden" role="hidden" exercise="honest"
@check("honest")
def each_as_likely(student):
    """Over 400 seeds each of eight prompts is held out about equally often, long ones, frequent ones and first ones alike."""
    count = Counter(prompt for seed in range(400) for prompt in {row[0] for row in parts(student, FEW, 0.375, seed)[1]})
    student.last = ""
    far = {prompt: count[prompt] for prompt in "abcdefgh" if not 100 <= count[prompt] <= 200}
    expect_true(not far, f"with 400 seeds and three of eight prompts held out, each should be held out about 150 times; these were not: {far}")


@check("honest")
def other_shares(student):
    """Shares and row counts of other kinds."""
    for share, seed in ((0.1, 8), (0.5, 8), (0.9, 2)):
        train, test = parts(student, ROWS, share, seed)
        expect_equal(len({prompt for prompt, _ in test}), round(share * len(PRACTICE)), what=f"prompts held out with a share of {share}")
        expect_equal(len(train) + len(test), len(ROWS), what="rows of both parts together")
        expect_true(not {prompt for prompt, _ in train} & {prompt for prompt, _ in test}, "a prompt is in both parts")
    got, spy = spied(student, FEW, 0.375, 2)
    train, test = parts(student, FEW, 0.375, 2)
    expect_close(got["mae"], statistics.fmean(abs(n - spy.guess(p)) for p, n in test), 1e-9, what="mae, prompts with one to three rows", hints=())
    median = statistics.median(n for _, n in train)
    expect_close(got["median_mae"], statistics.fmean(abs(n - median) for _, n in test), 1e-9, what="median_mae, prompts with one to three rows")


# %% key="honest-m1" role="mutant" exercise="honest" name="splits rows, so test prompts are trained on"
def split_by_prompt(rows, share, seed):
    held = set(random.Random(seed).sample(range(len(rows)), round(share * len(rows))))
    return [row for k, row in enumerate(rows) if k not in held], [row for k, row in enumerate(rows) if k in held]


# %% key="honest-m2" role="mutant" exercise="honest" name="training on the test prompts: fits before it splits"
_evaluate = evaluate


class _Early:
    def __init__(self, predictor, rows):
        self.predictor, self.rows = predictor, rows

    def fit(self, rows):
        self.predictor.fit(self.rows)

    def predict(self, prompts):
        return self.predictor.predict(prompts)


def evaluate(predictor, rows, share, seed):
    return _evaluate(_Early(predictor, rows), rows, share, seed)


# %% key="honest-m3" role="mutant" exercise="honest" name="the parts are swapped"
_split = split_by_prompt


def split_by_prompt(rows, share, seed):
    return _split(rows, share, seed)[::-1]


# %% key="honest-m4" role="mutant" exercise="honest" name="oracle leak: the answers are handed to predict"
def evaluate(predictor, rows, share, seed):
    train, test = split_by_prompt(rows, share, seed)
    predictor.fit(train)
    said = predictor.predict(test)
    median = statistics.median(length for _, length in train)
    return {"mae": statistics.fmean(abs(length - guess) for (_, length), guess in zip(test, said, strict=True)),
            "median_mae": statistics.fmean(abs(length - median) for _, length in test)}


# %% key="honest-m5" role="mutant" exercise="honest" name="the median of the answers that are to be predicted"
_evaluate = evaluate


def evaluate(predictor, rows, share, seed):
    test = [length for _, length in split_by_prompt(rows, share, seed)[1]]
    median = statistics.median(test)
    return _evaluate(predictor, rows, share, seed) | {"median_mae": statistics.fmean(abs(n - median) for n in test)}


# %% key="honest-m6" role="mutant" exercise="honest" name="tested on what it was trained on"
def evaluate(predictor, rows, share, seed):
    train, _ = split_by_prompt(rows, share, seed)
    predictor.fit(train)
    said = predictor.predict([prompt for prompt, _ in train])
    median = statistics.median(length for _, length in train)
    return {"mae": statistics.fmean(abs(length - guess) for (_, length), guess in zip(train, said, strict=True)),
            "median_mae": statistics.fmean(abs(length - median) for _, length in train)}


# %% key="honest-m7" role="mutant" exercise="honest" name="holds out the longest answers: the lengths decide"
def split_by_prompt(rows, share, seed):
    longest = {}
    for prompt, length in rows:
        longest[prompt] = max(length, longest.get(prompt, 0))
    held = set(sorted(longest, key=lambda prompt: -longest[prompt])[:round(share * len(longest))])
    return [row for row in rows if row[0] not in held], [row for row in rows if row[0] in held]


# %% key="honest-m8" role="mutant" exercise="honest" name="the seed is ignored"
_split = split_by_prompt


def split_by_prompt(rows, share, seed):
    return _split(rows, share, 0)


# %% key="honest-m9" role="mutant" exercise="honest" name="the order of the rows decides"
def split_by_prompt(rows, share, seed):
    prompts = list(dict.fromkeys(prompt for prompt, _ in rows))
    held = set(random.Random(seed).sample(prompts, round(share * len(prompts))))
    return [row for row in rows if row[0] not in held], [row for row in rows if row[0] in held]


# %% key="honest-m12" role="mutant" exercise="honest" name="draws from a set as it comes"
def split_by_prompt(rows, share, seed):
    prompts = list({prompt for prompt, _ in rows})
    held = set(random.Random(seed).sample(prompts, round(share * len(prompts))))
    return [row for row in rows if row[0] not in held], [row for row in rows if row[0] in held]


# %% key="honest-m10" role="mutant" exercise="honest" name="prompts with many rows are held out more often"
def split_by_prompt(rows, share, seed):
    count, rng, held = round(share * len({prompt for prompt, _ in rows})), random.Random(seed), set()
    for prompt, _ in sorted(rng.sample(sorted(rows), len(rows)), key=lambda _: rng.random()):
        if len(held) < count:
            held.add(prompt)
    return [row for row in rows if row[0] not in held], [row for row in rows if row[0] in held]


# %% key="honest-m13" role="mutant" exercise="honest" name="draws without the seed: another split every time"
def split_by_prompt(rows, share, seed):
    prompts = sorted({prompt for prompt, _ in rows})
    held = set(random.sample(prompts, round(share * len(prompts))))
    return [row for row in rows if row[0] not in held], [row for row in rows if row[0] in held]


# %% key="honest-m14" role="mutant" exercise="honest" name="the median of all answers, those to be predicted among them"
_evaluate = evaluate


def evaluate(predictor, rows, share, seed):
    _, test = split_by_prompt(rows, share, seed)
    median = statistics.median(length for _, length in rows)
    return _evaluate(predictor, rows, share, seed) | {"median_mae": statistics.fmean(abs(length - median) for _, length in test)}


# %% key="honest-m11" role="mutant" exercise="honest" name="too long and too short cancel"
_evaluate = evaluate


def evaluate(predictor, rows, share, seed):
    _, test = split_by_prompt(rows, share, seed)
    found = _evaluate(predictor, rows, share, seed)
    said = predictor.predict([prompt for prompt, _ in test])
    return found | {"mae": abs(statistics.fmean(guess - length for (_, length), guess in zip(test, said, strict=True)))}


# %% [markdown] key="predictor" lang="en" role="exercise" exercise="predictor" points=4 difficulty=3 minutes=45 needs="week 9, part 3"
# ## Exercise 3 · A predictor that beats the median
#
# Look at some rows first: `for row in ROWS[::200]: print(row)`. Some prompts tell how long the answer will be ("Count from 33 to 95."),
# some hardly tell anything ("Write a story about a dragon."). Write a class
#
# `LengthPredictor()`:
#
# 1. `fit(rows, progress=None)`: learn from a list of `(prompt, length)`, lengths from 1 on; a prompt may have several rows. All that the predictor
#    knows comes from these rows: it opens no file and knows no other answers. Whatever it has learned in an earlier `fit` is forgotten, and
#    if you use chance, it comes from a fixed seed: the same rows, the same predictions. If `progress` is not None, call `progress(done, of)`, two whole numbers, while you go on or at the end: `done` never falls, and in the last call
#    `done` equals `of`. Training on 3,642 rows takes less than 30 seconds.
# 2. `predict(prompts)`: a list with a number of tokens for each of a list of prompts, a `float`, finite and at least 1. What is said of a prompt
#    depends on that prompt alone, not on which others are asked at the same time. Any text may come, also an empty one and one with words and numbers that
#    nobody has ever seen.
#
# How it works is up to you; the features are your own, too. **The margin**: on prompts that it has not been trained on, the mean absolute error has to be at most **0.8** of that of the
# training median, and tau-b between true and predicted lengths at least **0.55**. The checks try several splits of `ROWS`, and prompts held back from you.
# On 36 new prompts of other proportions, on which the model has been run since, it is enough to have a smaller error than the median and a tau of 0.4.

# %% [markdown] key="predictor-help-start" lang="en" role="help" exercise="predictor" title="Where do I start?"
# Ridge regression is enough, and is solved at once. Turn every prompt into a row of numbers: 1, the logarithms `math.log1p(…)` of how many words and
# how many numbers it has, of its largest number, of the distance between its first and its last number, of its commas; and for each word that at least three training
# prompts have a 1 if it is there and else a 0. With the matrix `X` of these rows and `y`, the **mean of the logarithms** of each prompt's
# lengths:
#
# ```python
# weights = np.linalg.solve(X.T @ X + 3 * np.eye(X.shape[1]), X.T @ y)
# ```
#
# and the prediction is `exp(row @ weights)`. The 3 keeps rare words from being believed too much; without it there may be no solution at all
# (`LinAlgError: Singular matrix`).

# %% [markdown] key="predictor-help-log" lang="en" role="help" exercise="predictor" title="Why logarithms?"
# Half of the answers have 11 tokens or fewer, a few have 300. Without logarithms the few long ones decide everything, and the short ones, which
# a scheduler wants to find, are all said to be 30. The exponential of a mean of logarithms lies near the median, and the median is what a
# mean absolute error asks for.

# %% [markdown] key="predictor-help-tau" lang="en" role="help" exercise="predictor" title="My error is too large, or tau is only about 0.3"
# Hand-made numbers alone do not say which *kind* of task it is. "What is 43 minus 6?" and "What are 13 countries?" look alike to them. Words tell
# them apart: one column for each word that several prompts have. Chinese has no spaces: take each character as a word,
# `re.findall(r"[a-z]+|[一-鿿]|\d+|[^\w\s]", prompt.lower())`.

# %% [markdown] key="predictor-help-leak" lang="en" role="help" exercise="predictor" title="The check says that I know more than I was taught"
# It has trained your predictor on rows whose lengths are upside down, and your predictions still have the order of the true ones. So they come from
# somewhere else: a file, `LENGTHS`, `ROWS` or `PRACTICE` from the setup, an earlier `fit`, or a rule that you have written down by hand
# ("stories are long") instead of having it learned.

# %% [markdown] key="predictor-help-inf" lang="en" role="help" exercise="predictor" title="Infinity, or predictions of millions of tokens"
# A prompt with the number 10**30 is far from everything in training, and `exp` makes it enormous. Cut numbers (`min(number, 10_000)`) and the logarithm
# before `exp` (between 0 and 7, say). `predict([])` is an empty list.

# %% [markdown] key="predictor-help-try" lang="en" role="help" exercise="predictor" title="How can I try it out myself?"
# In a new cell, with the functions of exercise 2 if you have them:
#
# ```python
# print(evaluate(LengthPredictor(), ROWS, 0.25, seed=0))
# predictor = LengthPredictor()
# predictor.fit(ROWS, lambda done, of: print(f"{done} of {of}"))
# print(predictor.predict(["Count from 5 to 60.", "What is 3 plus 9?", "Tell me a story about a robot."]))
# ```

# %% key="predictor-answer" role="answer" exercise="predictor"
class LengthPredictor:
    """Predicts the tokens of an answer from its prompt."""

    def fit(self, rows, progress=None):
        """Learn from pairs (prompt, length), and from nothing else."""
        ### BEGIN SOLUTION
        logs = {}
        for prompt, length in rows:
            logs.setdefault(prompt, []).append(math.log(length))
        count = Counter(word for prompt in logs for word in set(self._words(prompt)))
        self.vocabulary = sorted(word for word in count if count[word] >= 3)
        matrix = np.array([self._row(prompt) for prompt in logs])
        target = np.array([statistics.fmean(each) for each in logs.values()])
        self.weights = np.linalg.solve(matrix.T @ matrix + 3 * np.eye(matrix.shape[1]), matrix.T @ target)
        if progress is not None:
            progress(len(logs), len(logs))
        ### END SOLUTION

    def predict(self, prompts):
        """Expected tokens of the answer to each prompt."""
        ### BEGIN SOLUTION
        return [math.exp(min(max(self._row(prompt) @ self.weights, 0.0), 7.0)) for prompt in prompts]

    def _words(self, prompt):
        return [word for word in re.findall(r"[a-z]+|[一-鿿]|\d+|[^\w\s]", prompt.lower()) if not word.isdigit()]

    def _row(self, prompt):
        words = set(self._words(prompt))
        numbers = [min(int(digits[:6]), 10_000) for digits in re.findall("[0-9]+", prompt)] or [0]
        by_hand = [len(prompt.split()), len(numbers), max(numbers), abs(numbers[-1] - numbers[0]), prompt.count(",")]
        return np.array([1.0, *map(math.log1p, by_hand), *(float(word in words) for word in self.vocabulary)])
        ### END SOLUTION


# %% key="predictor-check" role="check" exercise="predictor"
def trained(student, rows, progress=None):
    """A new predictor of the student's, trained on these rows."""
    predictor = student.new("LengthPredictor")
    predictor.call("fit", rows) if progress is None else predictor.call("fit", rows, progress)
    return predictor


def said(predictor, prompts):
    """What it says of each prompt, by prompt."""
    got = predictor.call("predict", prompts)
    predictor.student.last = ""
    got = got.tolist() if type(got) is np.ndarray else got
    good = type(got) is list and len(got) == len(prompts) and all(type(each) in (int, float) for each in got)
    expect_true(good, f"predict({len(prompts)} prompts) returns a list with a number for each; this was {got!r}"[:300])
    bad = [(prompt[:60], each) for prompt, each in zip(prompts, got, strict=True) if not 1 <= each < 1e9]
    expect_true(not bad, f"a prediction is a number of tokens, finite and at least 1; this was said of (prompt, tokens): {bad[:3]}")
    return dict(zip(prompts, got, strict=True))


def beats_median(predictions, train, test, where, share=0.8, tau=0.55):
    """Error (as a share of the training median's) and tau on test rows are as good as the statement asks."""
    median = statistics.median(length for _, length in train)
    lengths, guesses = [length for _, length in test], [predictions[prompt] for prompt, _ in test]
    error = statistics.fmean(abs(a - b) for a, b in zip(lengths, guesses, strict=True))
    simple = statistics.fmean(abs(length - median) for length in lengths)
    order = course_tau(lengths, guesses)
    scores = f"on {where}, none of which it was trained on, the mean absolute error is {error:.1f} tokens and tau {order:.2f}; whoever always says " \
             f"the training median {median:g} has {simple:.1f}"
    hint = "" if len(set(guesses)) > 1 else f"\nIt says {guesses[0]:.3g} of every prompt: whatever it learned has nothing to do with new prompts"
    if statistics.fmean(abs(a - math.exp(min(b, 20))) for a, b in zip(lengths, guesses, strict=True)) <= share * simple < error:
        hint = "\nWith exp() of what it says the error would be small enough: does it say logarithms?"
    expect_true(error <= share * simple, f"{scores}. At most {share * simple:.1f} tokens are asked for{hint}")
    expect_true(order >= tau, f"{scores}. A tau of at least {tau} is asked for: the order of the predictions counts, not only their size{hint}")


def some(data, seed, share=0.25):
    """Rows of a split of the data, by the course's own function."""
    train, test = data.split(share, seed=seed)
    return rows_of(train), rows_of(test), list(test.prompts)


@check("predictor")
def on_prompts_it_has_not_seen(student):
    """Two splits of ROWS: mean absolute error at most 0.8 of the median's, tau at least 0.55."""
    for seed in (0, 1):
        train, test, prompts = some(PRACTICE, seed)
        beats_median(said(trained(student, train), prompts), train, test, f"{len(prompts)} prompts")


@check("predictor")
def tells_of_progress(student):
    """It says how far it has come, and all rows take less than 30 seconds."""
    told, started = [], time.perf_counter()
    trained(student, ROWS, Served(lambda done, of: told.append((done, of))))
    student.last = ""
    seconds = time.perf_counter() - started
    expect_true(seconds < 30, f"training took {seconds:.0f} s; less than 30 are asked for")
    expect_true(bool(told), "fit never called progress(done, of): whoever waits wants to see that something happens")
    good = all(type(done) is int and type(of) is int for done, of in told) and all(a[0] <= b[0] for a, b in pairwise(told))
    expect_true(good, f"done and of are whole numbers and done never falls; the calls were {told[:5]} …")
    expect_true(told[-1][0] == told[-1][1] > 0, f"in the last call done should equal of; it was progress{told[-1]}")


@check("predictor")
def depends_on_the_prompt_alone(student):
    """The same prompt, asked alone, among others, or in another order; and no prompt at all."""
    train, _, prompts = some(PRACTICE, 2)
    predictor = trained(student, train)
    whole = said(predictor, prompts)
    for part in (prompts[:40][::-1], prompts[:1], prompts[7:9], prompts[30:31]):
        for prompt, guess in said(predictor, part).items():
            expect_close(guess, whole[prompt], 1e-6, rtol=1e-6, what=f"prediction for {prompt[:60]!r} asked with {len(part) - 1} others, against the "
                         f"one asked with {len(prompts) - 1} others (nothing may be learned from the prompts that are asked)")
    said(predictor, [])


@check("predictor")
def knows_what_it_was_taught(student):
    """Long answers are made short and short ones long, in training only: then its predictions are upside down as well."""
    train, test, prompts = some(PRACTICE, 3)
    upside = [(prompt, max(1, 400 // length)) for prompt, length in train]
    guesses = said(trained(student, upside), prompts)
    order = course_tau([length for _, length in test], [guesses[prompt] for prompt, _ in test])
    expect_true(order < -0.3, f"in the training rows every length was replaced by 400 // length, and tau between predictions and the true lengths is "
                f"{order:.2f}; it should be about as far below 0 as it is above 0 otherwise. " + (
                    "It knows more than it was taught: where do the true answers come from?" if order > 0.3 else "It did not learn from the rows"))


# %% key="predictor-hidden" role="hidden" exercise="predictor"
KEPT = LENGTHS.split(held_out=0.3, seed=9)[1]

# New prompts, drawn with another seed than those of the data; course-tiny's answers to them were sampled once at temperature 1.
FRESH = [
    ("Start counting at 92 and stop at 116.", 92),
    ("Numbers from 88 to 89.", 6),
    ("Start counting at 38 and stop at 86", 147),
    ("Please count to 6.", 12),
    ("What are the numbers from 95 to 134?", 155),
    ("Please start at 106 and count down to 47.", 187),
    ("Count from 107 down to 106.", 8),
    ("Start at 2 and add 2 until you reach 72.", 104),
    ("Give me the word Kenya, 6 times.", 25),
    ("Write the word Saturn 4 times.", 7),
    ("把钻头说1遍。", 6),
    ("Write 27 numbered lines that say green.", 153),
    ("Please write 16 numbered lines that say back.", 71),
    ("Write pear on 1 numbered lines.", 4),
    ("How much is 71 plus 4?", 3),
    ("add 11 and 44.", 3),
    ("Calculate 17 + 5.", 3),
    ("25 - 11 = ?", 3),
    ("Calculate 13 - 5.", 2),
    ("Please multiply 6 by 1.", 2),
    ("Arrange from large to small: 7, 67, 17, 56, 45", 14),
    ("Sort in ascending order: 73, 55, 17, 70, 80", 15),
    ("Arrange from small to large: w, x, g, j", 8),
    ("reverse: axe, rope, Norway, kiwi", 18),
    ("Write in reverse order: sugar, gold, Mercury, Canada", 17),
    ("倒过来写:knife, farmer, drill, Venus, rowing", 15),
    ("is 67 even?", 2),
    ("Is 94 more than 26?", 2),
    ("What is the largest of 87, 74, 66, 33, 59?", 3),
    ("最小的数是哪个:68, 94, 87, 39, 69?", 3),
    ("Find the maximum of 67, 98.", 3),
    ("List the months from June to August.", 12),
    ("List the letters from b to f", 10),
    ("Copy this text: There was once a doctor called Max. The wind was cold that night.", 16),
    ("Please repeat after me: driver", 4),
    ("Say exactly this: Once upon a time there was a dog named Dan.", 12),
]


@check("predictor")
def kept_back(student):
    """The prompts of the data that are not in ROWS."""
    beats_median(said(trained(student, ROWS), list(KEPT.prompts)), ROWS, rows_of(KEPT), f"{len(KEPT)} prompts that were kept back")


@check("predictor")
def new_prompts(student):
    """Prompts that are in no file; course-tiny has answered them since."""
    predictions = said(trained(student, ROWS), [prompt for prompt, _ in FRESH])
    beats_median(predictions, ROWS, FRESH, f"{len(FRESH)} new prompts", 1.0, 0.4)


@check("predictor")
def scrambled(student):
    """The lengths are dealt out anew among the training prompts: nothing can be learned, and nothing is known."""
    train, test, prompts = some(PRACTICE, 0)
    orders = []
    for seed in range(3):
        names = list(dict.fromkeys(prompt for prompt, _ in train))
        other = dict(zip(names, random.Random(seed).sample(names, len(names)), strict=True))
        lengths = dict(train)
        guesses = said(trained(student, [(prompt, lengths[other[prompt]]) for prompt in names]), prompts)
        orders.append(course_tau([length for _, length in test], [guesses[prompt] for prompt, _ in test]))
    mean = statistics.fmean(orders)
    expect_true(abs(mean) < 0.3, f"the lengths of the training rows were dealt out at random, and tau on held-out prompts is still {mean:.2f}: "
                "it knows more than it was taught")


@check("predictor")
def forgets_what_it_learned_before(student):
    """Trained twice it is as if it had been trained once; two predictors know nothing of each other."""
    train, _, prompts = some(PRACTICE, 5)
    upside = [(prompt, max(1, 400 // length)) for prompt, length in train]
    twice = trained(student, upside)
    twice.call("fit", train)
    once, other = trained(student, train), trained(student, upside)
    want, flipped = said(once, prompts), said(other, prompts)
    expect_true(want != flipped, "two predictors that were trained on different lengths say the same: does each keep what it has learned, or do they share it?")
    for prompt, guess in said(trained(student, train), prompts).items():
        expect_close(guess, want[prompt], 1e-4, rtol=1e-4, what=f"prediction for {prompt[:60]!r} of a second predictor trained on the same rows (all chance "
                     "comes from a fixed seed)")
    for prompt, guess in said(twice, prompts).items():
        expect_close(guess, want[prompt], 1e-4, rtol=1e-4, what=f"prediction for {prompt[:60]!r} after it was trained on other rows before: an "
                     "earlier fit must be forgotten")


@check("predictor")
def any_text(student):
    """Nothing, spaces, an enormous number, one letter a thousand times, another script."""
    said(trained(student, ROWS[:1200]), ["", "   ", "Count to " + "9" * 40, "x" * 1000, "Что такое река?", "数到" + "8" * 30, "٣٤٥", "🦊, 0, -1"])


# %% key="predictor-m1" role="mutant" exercise="predictor" name="always says the median"
class LengthPredictor:
    def fit(self, rows, progress=None):
        self.median = float(statistics.median(length for _, length in rows))
        if progress is not None:
            progress(1, 1)

    def predict(self, prompts):
        return [self.median] * len(prompts)


# %% key="predictor-m2" role="mutant" exercise="predictor" name="oracle leak: looks the answers up in the data"
class LengthPredictor(LengthPredictor):
    def predict(self, prompts):
        known = dict(zip(LENGTHS.prompts, LENGTHS.lengths.mean(axis=1).tolist(), strict=True))
        return [known.get(prompt, guess) for prompt, guess in zip(prompts, super().predict(prompts), strict=True)]


# %% key="predictor-m3" role="mutant" exercise="predictor" name="training on the test prompts: adds all rows it can find"
class LengthPredictor(LengthPredictor):
    def fit(self, rows, progress=None):
        given = set(rows)
        super().fit(list(rows) + [row for row in rows_of(LENGTHS) if row not in given] * 3, progress)


# %% key="predictor-m4" role="mutant" exercise="predictor" name="learns prompts by heart"
class LengthPredictor:
    def fit(self, rows, progress=None):
        self.known = {}
        for prompt, length in rows:
            self.known.setdefault(prompt, []).append(length)
        self.median = float(statistics.median(length for _, length in rows))
        if progress is not None:
            progress(len(self.known), len(self.known))

    def predict(self, prompts):
        return [float(statistics.median(self.known.get(prompt, [self.median]))) for prompt in prompts]


# %% key="predictor-m5" role="mutant" exercise="predictor" name="long prompts have long answers"
class LengthPredictor(LengthPredictor):
    def _row(self, prompt):
        return np.array([1.0, math.log1p(len(prompt))])


# %% key="predictor-m6" role="mutant" exercise="predictor" name="says the logarithm"
class LengthPredictor(LengthPredictor):
    def predict(self, prompts):
        return [1.0 + math.log(guess) for guess in super().predict(prompts)]


# %% key="predictor-m7" role="mutant" exercise="predictor" name="scales by the prompts that are asked"
class LengthPredictor(LengthPredictor):
    def predict(self, prompts):
        guesses = super().predict(prompts)
        middle = statistics.median(guesses) if guesses else 1.0
        return [max(1.0, guess * 11.0 / middle) for guess in guesses]


# %% key="predictor-m8" role="mutant" exercise="predictor" name="keeps what it learned in an earlier fit"
class LengthPredictor(LengthPredictor):
    seen = ()

    def fit(self, rows, progress=None):
        self.seen = [*self.seen, *rows]
        super().fit(self.seen, progress)


# %% key="predictor-m9" role="mutant" exercise="predictor" name="trains in silence"
class LengthPredictor(LengthPredictor):
    def fit(self, rows, progress=None):
        super().fit(rows)


# %% key="predictor-m10" role="mutant" exercise="predictor" name="rules by hand instead of learning"
class LengthPredictor:
    def fit(self, rows, progress=None):
        if progress is not None:
            progress(1, 1)

    def predict(self, prompts):
        return [self.rule(prompt.lower()) for prompt in prompts]

    def rule(self, prompt):
        numbers = [min(int(n), 999) for n in re.findall("[0-9]+", prompt)][:2]
        if any(word in prompt for word in ("story", "tale", "tell", "故事", "讲", "explain", "write a")):
            return 100.0
        if any(word in prompt for word in ("count", "numbers from", "lines", "list", "数", "start")) and numbers:
            return 3.0 + 3.0 * (abs(numbers[-1] - numbers[0]) or numbers[0])
        return 4.0 + 2.0 * prompt.count(",")


# %% key="predictor-m11" role="mutant" exercise="predictor" name="all predictors share what they know"
_shared = {}


class LengthPredictor(LengthPredictor):
    def fit(self, rows, progress=None):
        super().fit(rows, progress)
        _shared.update(weights=self.weights, vocabulary=self.vocabulary)

    def predict(self, prompts):
        self.weights, self.vocabulary = _shared["weights"], _shared["vocabulary"]
        return super().predict(prompts)


# %% key="predictor-m12" role="mutant" exercise="predictor" name="no seed: something else every time"
class LengthPredictor(LengthPredictor):
    def predict(self, prompts):
        self.factor = getattr(self, "factor", None) or random.uniform(1.0, 1.2)
        return [guess * self.factor for guess in super().predict(prompts)]


# %% [markdown] key="rank" lang="en" role="exercise" exercise="rank" points=4 difficulty=4 minutes=45 needs="week 9, part 3; a little torch"
# ## Exercise 4 · A loss for the order
#
# If only the order counts, train for the order. A **ranker** gives every prompt a score: the **smaller** the score, the shorter the answer; a score is no
# number of tokens. ListMLE (Xia et al., 2008; for LLM scheduling Fu et al., 2024) asks how likely the true order of a list is, if the
# list is drawn one after the other: whoever is left is drawn next with a chance in proportion to $e^{-\text{score}}$.
#
# 1. `list_mle(scores, labels)`: two one-dimensional torch tensors, equally long, at least 1 long. `scores` are floats. `labels` are whole numbers that say the true
#    order: smaller is shorter. Order the list by label, the shortest first; equal labels stay in the order in which they come. With $s_1, s_2, …, s_n$ the scores
#    in this order, return the negative logarithm of the probability of this order, **summed** over its places:
#
#    $$L = -\sum_{i=1}^{n} \log \frac{e^{-s_i}}{\sum_{k \ge i} e^{-s_k}}$$
#
#    a float tensor without dimensions, through which torch can find gradients. Scores may be large: with scores of 1,000 or −1,000 the loss is still finite and right.
# 2. `Ranker()`, which learns with this loss:
#    - `fit(features, labels, progress=None)`: `features` is a float32 tensor of shape (N, width), a row for each of N ≥ 32 prompts; `labels` a tensor of N whole numbers
#      (here: length // 10, so that nobody learns a chance difference of few tokens). Draw lists of 32 rows at random, and change the weights of a scoring function, a linear one is enough, so that the loss
#      falls. Only the **order** of the labels may count: trained on `labels ** 2`, it gives the same scores. All chance comes from a fixed seed: the same data,
#      the same scores. Less than 30 seconds, and `progress(done, of)` as in exercise 3.
#    - `scores(features)`: a float tensor with a score for each row.
#
# **The margin**: on prompts that it was not trained on, tau-b between scores and labels at least **0.5**.

# %% [markdown] key="rank-help-draw" lang="en" role="help" exercise="rank" title="What does the sum over k ≥ i mean?"
# A lottery in which everybody holds $e^{-s}$ tickets. First place: everybody takes part. The winner leaves. Second place: all others take part; and so on. In
# the last place there is one left, whose chance is 1. So the denominator holds the one who is drawn and those **behind** it, never those before it.

# %% [markdown] key="rank-help-stable" lang="en" role="help" exercise="rank" title="inf or nan with large scores"
# `exp(1000)` is infinite. Work with logarithms throughout: `torch.logsumexp(x, 0)` of all $-s_k$ from place i on is the logarithm of the denominator.
# `torch.logcumsumexp(x, 0)` does it for all beginnings of a list at once; turn the list round (`x.flip(0)`) before and after, and it does it for all ends.

# %% [markdown] key="rank-help-order" lang="en" role="help" exercise="rank" title="How do I order tensors by label?"
# `order = labels.argsort(stable=True)`, then `scores[order]`. `stable=True` keeps equal ones in the order in which they came. Ordering does not disturb gradients.

# %% [markdown] key="rank-help-loop" lang="en" role="help" exercise="rank" title="What does a training loop look like?"
# ```python
# weights = torch.zeros(features.shape[1], requires_grad=True)
# optimizer = torch.optim.Adam([weights], lr=0.01)
# generator = torch.Generator().manual_seed(0)
# for step in range(150):
#     rows = torch.randint(len(labels), (32,), generator=generator)       # one list
#     optimizer.zero_grad()
#     list_mle(features[rows] @ weights, labels[rows]).backward()
#     optimizer.step()
# ```
#
# Several lists a step give quieter steps. `.detach()` the scores before you hand them out. Begin with zeros, or `torch.nn.Linear`, whose weights are small: most
# features are rare, and a large weight that was drawn for one of them is hardly ever corrected.

# %% [markdown] key="rank-help-grad" lang="en" role="help" exercise="rank" title="element 0 of tensors does not require grad, or 'float' object has no attribute 'backward'"
# On the way from scores to loss something has left torch: `float(…)`, `.item()`, `.tolist()`, `.detach()`, `math.log` and `torch.tensor(…)` all forget how a number came about.
# Use torch's functions on slices of the tensor, and return what `.sum()` gives.

# %% [markdown] key="rank-help-upside" lang="en" role="help" exercise="rank" title="tau is about -0.6"
# The order is upside down: either the list is sorted the longest first, or the chance is in proportion to $e^{+\text{score}}$. One of both alone turns the scores round.

# %% [markdown] key="rank-help-try" lang="en" role="help" exercise="rank" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# print(list_mle(torch.tensor([0.0, math.log(2)]), torch.tensor([3, 7])))     # weights 1 and 1/2: -log(2/3) = 0.405...
# train, test = PRACTICE.split(seed=0)
# table = CourseFeatures().fit(train.prompts)                                 # the course's features
# ranker = Ranker()
# ranker.fit(torch.from_numpy(table.rows(train.prompts)), torch.from_numpy(train.lengths[:, 0] // 10))
# print(course_tau(ranker.scores(torch.from_numpy(table.rows(test.prompts))).numpy(), test.lengths[:, 0] // 10))     # about 0.6
# ```

# %% key="rank-answer" role="answer" exercise="rank"
def list_mle(scores, labels):
    """Negative log likelihood of the order by label, the smallest first, when whoever is left is drawn with weight exp(-score)."""
    ### BEGIN SOLUTION
    logits = -scores[labels.argsort(stable=True)]
    left = logits.flip(0).logcumsumexp(0).flip(0)
    return (left - logits).sum()
    ### END SOLUTION


class Ranker:
    """Scores in the order of lengths: smaller is shorter."""

    def fit(self, features, labels, progress=None):
        """Learn from the order of labels, by `list_mle` on random lists of 32."""
        ### BEGIN SOLUTION
        steps, generator = 150, torch.Generator().manual_seed(0)
        self.weights = torch.zeros(features.shape[1], requires_grad=True)
        optimizer = torch.optim.Adam([self.weights], lr=0.01)
        for step in range(steps):
            lists = torch.randint(len(labels), (4, 32), generator=generator)
            optimizer.zero_grad()
            sum(list_mle(features[rows] @ self.weights, labels[rows]) for rows in lists).backward()
            optimizer.step()
            if progress is not None:
                progress(step + 1, steps)
        ### END SOLUTION

    def scores(self, features):
        """A score for each row."""
        ### BEGIN SOLUTION
        return (features @ self.weights).detach()
        ### END SOLUTION


# %% key="rank-check" role="check" exercise="rank"
def loss_of(student, scores, labels):
    """The student's loss of a short list, a number."""
    got = student.call("list_mle", torch.tensor(scores, dtype=torch.float64), torch.tensor(labels))
    good = type(got) is float or (type(got) is torch.Tensor and got.dtype.is_floating_point and not got.shape)
    expect_true(good, f"list_mle returns a float tensor without dimensions; this was {got!r}"[:300])
    return float(got)


def loss(student, scores, labels, want, hints=()):
    """The student's loss of a short list is `want`."""
    expect_close(loss_of(student, scores, labels), want, 1e-5, rtol=1e-5, what=f"loss of scores {scores} with labels {labels}", hints=hints)


@check("rank")
def by_hand(student):
    """Weights 1, 1/2 and 1/4: what the lottery gives for one order."""
    a, b, n = math.log(2), math.log(4), math.log
    loss(student, [0.0, a], [3, 7], n(3 / 2), [
        (n(3), "smaller scores mean shorter: the weight is e^(-score), the shortest is drawn first, and the sum goes over those from its place on"), (n(3 / 2) + n(3), "whoever has been drawn is no longer in the "
        "lottery: the sum goes over k >= i"), (n(3 / 2) / 2, "the sum over the places, not the mean")])
    want = -n((1 / 2) / (7 / 4) * (1 / 4) / (5 / 4))
    loss(student, [0.0, a, b], [3, 1, 2], want, [
        (-n((1 / 1) / (7 / 4) * (1 / 4) / (3 / 4)), "the order is upside down: draw the shortest first"),
        (-n((2 / 7) * (4 / 5)), "weights e^(-score): the smaller the score, the likelier"), (-n((1 / 2) / (7 / 4) * (1 / 4) / (7 / 4) * 4 / 7),
         "whoever has been drawn is no longer in the lottery: the sum goes over k >= i"), (want / 3, "the sum over the places, not the mean"),
        (-want, "the negative logarithm"), (-n((1 / 3) * (1 / 2)), "the draw goes by scores"),
        (-n((4 / 7) * (2 / 3)), "the order is the one by label, the smallest first: not the one in which they come, and not the one by score"),
        (-n((1 / 7) * (2 / 3)), "argsort says who comes first, who second and so on: take the scores in that order, scores[labels.argsort()]"),
        (-n((1 / 4) / (3 / 4) * 1 / (7 / 4)), "the sum goes over k >= i, those still to come, not over those before")])
    loss(student, [2.5], [4], 0.0)


@check("rank")
def pushing_a_score(student):
    """The shortest gets a smaller score: the loss falls; the longest gets a smaller one: it rises."""
    scores, labels = [0.3, -0.2, 1.0, 0.1], [5, 0, 2, 9]

    def at(place, change):
        return loss_of(student, [score + change * (k == place) for k, score in enumerate(scores)], labels)
    now = at(0, 0.0)
    shortest, longest = at(1, -0.5), at(3, -0.5)
    student.last = ""
    expect_true(shortest < now < longest, f"scores {scores}, labels {labels}: the loss is {now:.3f}; when the shortest (label 0) gets a score 0.5 smaller it is "
                f"{shortest:.3f} (it should fall), and when the longest (label 9) does, {longest:.3f} (it should rise). A smaller score means shorter, and the "
                "loss should reward that")
    expect_close(at(2, 0.0), now, 1e-9, what="the same list again")


@check("rank")
def large_scores(student):
    """Scores of a thousand."""
    loss(student, [1000.0, 1000.0], [0, 1], math.log(2), [(float("nan"), "e^(-1000) is 0: work with logarithms (logsumexp)"),
                                                          (float("inf"), "e^(-1000) is 0: work with logarithms (logsumexp)")])
    loss(student, [-1000.0, 0.0, 1000.0], [1, 2, 3], 0.0, [(float("nan"), "e^1000 is infinite: work with logarithms (logsumexp)")])
    loss(student, [1000.0, 0.0], [1, 2], 1000.0, [(float("inf"), "e^(-1000) is 0: work with logarithms (logsumexp)")])


def tables(seed, sample=0):
    """Features and labels (length // 10) of training and held-out prompts."""
    train, test = LENGTHS.split(0.3, seed=seed)
    table = CourseFeatures().fit(train.prompts)
    rows = [torch.from_numpy(table.rows(part.prompts)) for part in (train, test)]
    return rows[0], torch.from_numpy(train.lengths[:, sample] // 10), rows[1], torch.from_numpy(test.lengths[:, sample] // 10)


def ranked(student, features, labels, asked, progress=None):
    """Scores of a new ranker of the student's, trained on these."""
    ranker = student.new("Ranker")
    ranker.call("fit", features, labels) if progress is None else ranker.call("fit", features, labels, progress)
    got = ranker.call("scores", asked)
    student.last = ""
    good = type(got) is torch.Tensor and tuple(got.shape) == (len(asked),) and got.dtype.is_floating_point
    kind = f"{type(got).__name__} of shape {tuple(got.shape)}, {got.dtype}" if type(got) in (torch.Tensor, np.ndarray) else f"{got!r}"[:200]
    expect_true(good, f"scores returns a float torch tensor with a score for each of {len(asked)} rows, of shape ({len(asked)},); this was {kind}")
    expect_true(bool(torch.isfinite(got).all()), "a score is not finite")
    return got


@check("rank")
def order_on_prompts_it_has_not_seen(student):
    """Seven in ten prompts to learn from, the others to order: tau at least 0.5, progress, less than 30 seconds."""
    features, labels, asked, truth = tables(0)
    told, started = [], time.perf_counter()
    scores = ranked(student, features, labels, asked, Served(lambda done, of: told.append((done, of))))
    seconds = time.perf_counter() - started
    expect_true(seconds < 30, f"training took {seconds:.0f} s; less than 30 are asked for")
    expect_true(bool(told) and told[-1][0] == told[-1][1], f"progress(done, of) should be called, at last with done equal to of; the last call was {told[-1:]}")
    order = course_tau(truth.numpy(), scores.numpy())
    expect_true(order >= 0.5, f"tau between scores and labels of {len(asked)} prompts that it has not been trained on is {order:.2f}; at least 0.5 is asked for" + (
        ". The scores are upside down: smaller means shorter" if order < -0.3 else f". Two usual reasons: weights that do not begin at 0 or near it (of {features.shape[1]} features most "
        "are rare, and what they were drawn as stays), and a rate of learning that is too large or too small"))


@check("rank")
def only_the_order_counts(student):
    """Labels 0, 1, 2, … or their squares: the same order, so the same scores; and the same data gives the same scores."""
    features, labels, asked, _ = tables(1)
    first, again = ranked(student, features, labels, asked), ranked(student, features, labels, asked)
    expect_close(again, first, 1e-5, rtol=1e-4, what="scores of a second ranker trained on the same data (all chance comes from a fixed seed)")
    other = ranked(student, features, labels ** 2, asked)
    expect_close(other, first, 1e-4, rtol=1e-3, what="scores when trained on labels ** 2, whose order is the same: a loss for order does not see how large "
                 "labels are")


# %% key="rank-hidden" role="hidden" exercise="rank"
def lottery(scores, labels):
    """The loss by its definition, in plain numbers."""
    ordered = [score for _, _, score in sorted((label, place, score) for place, (label, score) in enumerate(zip(labels, scores, strict=True)))]
    return sum(ordered[i] + math.log(sum(math.exp(-other) for other in ordered[i:])) for i in range(len(ordered)))


@check("rank")
def many_lists(student):
    """Fifty lists with scores drawn at random, many labels equal."""
    rng = random.Random(3)
    for _ in range(50):
        count = rng.randint(1, 40)
        scores = [round(rng.uniform(-3, 3), 2) for _ in range(count)]
        labels = [rng.choice([0, 0, 1, 5, 60]) for _ in range(count)]
        loss(student, scores, labels, lottery(scores, labels))


@check("rank")
def upside_down_when_taught_so(student):
    """Labels are turned round: so are the scores; a third split, other samples."""
    features, labels, asked, truth = tables(2, sample=3)
    for sign, given in ((1, labels), (-1, int(labels.max()) - labels)):
        order = sign * course_tau(truth.numpy(), ranked(student, features, given, asked).numpy())
        expect_true(order >= 0.5, f"tau with the order that was taught is {order:.2f} on held-out prompts, the labels "
                    f"{'as they are' if sign > 0 else 'turned round'}; at least 0.5 is asked for")


# %% key="rank-m1" role="mutant" exercise="rank" name="reversed order: the longest is drawn first"
_list_mle = list_mle


def list_mle(scores, labels):
    return _list_mle(scores, -labels)


# %% key="rank-m2" role="mutant" exercise="rank" name="weights exp(+score)"
_list_mle = list_mle


def list_mle(scores, labels):
    return _list_mle(-scores, labels)


# %% key="rank-m3" role="mutant" exercise="rank" name="whoever was drawn is still in the lottery"
def list_mle(scores, labels):
    logits = -scores[labels.argsort(stable=True)]
    return (logits.logsumexp(0) - logits).sum()


# %% key="rank-m4" role="mutant" exercise="rank" name="sums over those before instead of those behind"
def list_mle(scores, labels):
    logits = -scores[labels.argsort(stable=True)]
    return (logits.logcumsumexp(0) - logits).sum()


# %% key="rank-m5" role="mutant" exercise="rank" name="exp overflows"
def list_mle(scores, labels):
    weights = torch.exp(-scores[labels.argsort(stable=True)])
    return -torch.log(weights / weights.flip(0).cumsum(0).flip(0)).sum()


# %% key="rank-m6" role="mutant" exercise="rank" name="squared error of the values instead of the order"
class Ranker(Ranker):
    def fit(self, features, labels, progress=None):
        x = torch.cat([features, torch.ones(len(features), 1)], 1)
        solved = torch.linalg.solve(x.T @ x + 30 * torch.eye(x.shape[1]), x.T @ torch.log1p(labels.float()))
        self.weights = solved[:-1]
        if progress is not None:
            progress(1, 1)


# %% key="rank-m7" role="mutant" exercise="rank" name="ties stand in the opposite order"
def list_mle(scores, labels):
    logits = -scores.flip(0)[labels.flip(0).argsort(stable=True)]
    return (logits.flip(0).logcumsumexp(0).flip(0) - logits).sum()


# %% key="rank-m8" role="mutant" exercise="rank" name="no seed: other scores every time"
class Ranker(Ranker):
    def scores(self, features):
        return super().scores(features) + torch.randn(len(features)) * 0.01


# %% key="rank-m9" role="mutant" exercise="rank" name="hands out larger scores for shorter answers"
class Ranker(Ranker):
    def scores(self, features):
        return -super().scores(features)


# %% key="rank-m10" role="mutant" exercise="rank" name="the mean over the places"
_list_mle = list_mle


def list_mle(scores, labels):
    return _list_mle(scores, labels) / len(scores)


# %% key="rank-m11" role="mutant" exercise="rank" name="never trained: weights as they were drawn"
class Ranker(Ranker):
    def fit(self, features, labels, progress=None):
        self.weights = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(0))
        if progress is not None:
            progress(1, 1)


# %% [markdown] key="again" lang="en" role="exercise" exercise="again" points=4 difficulty=3 minutes=35 needs="week 9, part 7; week 3's policies help"
# ## Exercise 5 · Predict again
#
# A prediction made from the prompt goes stale: an answer that was said to have 5 tokens and has 40 by now was mispredicted, and everybody can see it. So
# ask again while it grows, though not at every token, for asking costs time (ELIS, Choi et al., 2025). Write a policy for the course's scheduler,
#
# `IterativeSRTF(window, remaining)`:
#
# - `remaining(request)` is the predictor: it returns how many tokens the answer **still lacks**, as far as it can tell from the prompt and from what
#   has been written. `window` is a whole number, at least 1.
# - It is asked when a request arrives (`on_queued`), and then each time when **that request's own answer** has grown by another `window` tokens: when
#   `len(request.output)` is `window`, `2 * window`, …. In between the last prediction stands as it is. (Whether you ask once more at the very moment
#   when an answer ends does not matter.)
# - The request with the smallest last prediction goes first, and pushes out a running one whose prediction is larger. Whoever has not ended lacks at least 1
#   token: a prediction below 1 counts as 1. Of equal ones the scheduler takes the one that came first.
#
# The scheduler calls these methods, as in week 3:
#
# - `key(request, now)`: smaller goes first;
# - `on_queued(request, now)`: the request has arrived;
# - `on_tokens(request, count, delivered, now)`: after each step, for everybody that took part: `count` of its tokens were computed, prompt and tokens that had been
#   computed before an interruption included; `delivered` (0 or 1) is how many **new** tokens of its answer were handed out, which `request.output` holds already.
#
# and reads two attributes: `static` is False when keys change, `preemptive` True when the first of the waiting may push out who runs. Of a request use `id` and
# `output` (the list of tokens handed out so far). Remember things by `request.id`: the object you are handed may be another one each time.

# %% [markdown] key="again-help-nobody" lang="en" role="help" exercise="again" title="Nobody is ever interrupted"
# Two switches: `self.static, self.preemptive = False, True`. With `static = True` the key is asked only once, when the request arrives.

# %% [markdown] key="again-help-when" lang="en" role="help" exercise="again" title="The check says that I asked at the wrong moment"
# The moment is when a token was handed out (`delivered` is 1) and `len(request.output)` is a multiple of `window`. Not `count`: that includes the prompt, and all that is computed
# again after an interruption. And a step in which nothing is handed out (a part of a prompt) leaves `len(request.output)` where it was, perhaps at
# 0 or at a multiple of `window`: that is no new window.

# %% [markdown] key="again-help-subtract" lang="en" role="help" exercise="again" title="Do I have to subtract what has been written?"
# No. `remaining` knows what has been written and says what is **still** to come. Subtracting it again makes those that have run long look nearly done.

# %% [markdown] key="again-help-window" lang="en" role="help" exercise="again" title="Why not ask at every token?"
# Each question costs time of the predictor, and each change of mind may push somebody out, whose KV cache is then computed a second time. Where answers
# have hundreds of tokens, a window of 50 gains nearly as much as one of 1.

# %% [markdown] key="again-help-try" lang="en" role="help" exercise="again" title="How can I try it out myself?"
# In a new cell, one place in the batch, with `Residual` from the setup (it knows only how long answers of course-tiny are, not which prompt has which):
#
# ```python
# engine = Engine.from_model("course-tiny", device="cpu", num_blocks=64, max_running=1, policy=IterativeSRTF(10, Residual(ROWS).remaining))
# for name, prompt in {"A": "Count from 1 to 40.", "B": "What is 3 plus 9?", "C": "Count from 3 to 9."}.items():
#     engine.add(Request(engine.tokenizer.encode_prompt(prompt), SamplingParams(max_tokens=200), id=name, arrival=0.0))
# print("".join(event.request for event in engine.stream() if event.kind is EventKind.NEW_TOKENS), engine.counters.preemptions)
# # ten of A, all of B, ten of C, ten more of A, the rest of C and the rest of A; 3 preemptions
# ```

# %% key="again-answer" role="answer" exercise="again"
class IterativeSRTF(Policy):
    """Shortest predicted remaining time first, predicted again after every window."""

    def __init__(self, window, remaining):
        """Set the two switches; nothing is predicted yet."""
        ### BEGIN SOLUTION
        self.static, self.preemptive = False, True
        self.window, self.remaining, self.last = window, remaining, {}
        ### END SOLUTION

    def key(self, request, now):
        """Its last prediction."""
        ### BEGIN SOLUTION
        return self.last[request.id]
        ### END SOLUTION

    def on_queued(self, request, now):
        """The first prediction."""
        ### BEGIN SOLUTION
        self.last[request.id] = max(1, self.remaining(request))
        ### END SOLUTION

    def on_tokens(self, request, count, delivered, now):
        """Another prediction when a window has ended."""
        ### BEGIN SOLUTION
        if delivered and len(request.output) % self.window == 0:
            self.last[request.id] = max(1, self.remaining(request))
        ### END SOLUTION


# %% key="again-check" role="check" exercise="again"
class Through(Policy):
    """Lets the course's scheduler ask the student's policy."""

    def __init__(self, handle):
        self.handle, self.static, self.preemptive = handle, handle.get("static"), handle.get("preemptive")

    def key(self, request, now):
        key = self.handle.call("key", Served(request), now)
        good = type(key) in (int, float, tuple) and key == key
        expect_true(good, f"the key of a request is {key!r}; keys are numbers (or tuples of numbers)")
        return key

    def on_queued(self, request, now):
        self.handle.call("on_queued", Served(request), now)

    def on_scheduled(self, request, now):
        self.handle.call("on_scheduled", Served(request), now)

    def on_tokens(self, request, count, delivered, now):
        self.handle.call("on_tokens", Served(request), count, delivered, now)

    def on_preempted(self, request, now):
        self.handle.call("on_preempted", Served(request), now)

    def on_done(self, request, now):
        self.handle.call("on_done", Served(request), now)


class Told:
    """A predictor of the checker's: the first prediction is given, later ones are right; notes when it is asked."""

    def __init__(self, lengths, first):
        self._lengths, self._first, self._asked = lengths, first, []

    def __call__(self, request):
        done = len(request.output)
        self._asked.append((request.id, done))
        return self._lengths[request.id] - done if done else self._first[request.id]


def serve(policy, jobs, seats=1, parking=False, step_seconds=1.0, budget=256):
    """Serve jobs {name: (arrival, prompt tokens, answer tokens, first prediction)}, one step a second; the engine afterwards."""
    engine = Engine(MockExecutor(4, step_seconds=step_seconds, token_seconds=0.0), BlockPool(512, 4), policy=policy, max_running=seats,
                    token_budget=budget, clock=VirtualClock(), checked=True, preemption=Preemption(parking=parking))
    for number, (name, (arrival, prompt, output, predicted)) in enumerate(jobs.items()):
        while engine.clock.now < arrival and not engine.idle:
            engine.step()
        engine.clock.advance(max(0.0, arrival - engine.clock.now))
        sampling = SamplingParams(max_tokens=output, ignore_eos=True)
        engine.add(Request([1 + number % 60] * prompt, sampling, id=name, arrival=float(arrival), predicted=predicted))
    for _ in engine.stream():
        pass
    return engine


def scheduled_by(student, window, jobs, seats=1, **options):
    """The engine after serving jobs under the student's policy, and the predictor with its notes."""
    told = Told({name: job[2] for name, job in jobs.items()}, {name: job[3] for name, job in jobs.items()})
    engine = serve(Through(student.new("IterativeSRTF", window, Served(told))), jobs, seats, **options)
    student.last = ""
    return engine, told


def deliveries(engine):
    """Whose token was handed out, in order."""
    return "".join(event.request for event in engine.events if event.kind is EventKind.NEW_TOKENS)


def asked_of(told, jobs):
    """When each was asked about, by name, without the moments when an answer had ended."""
    return {name: [done for who, done in told._asked if who == name and done < job[2]] for name, job in jobs.items()}


def completion(engine, jobs):
    """Mean seconds from arrival to the last token."""
    ends = {event.request: event.time for event in engine.events if event.kind is EventKind.FINISHED}
    return statistics.fmean(ends[name] - job[0] for name, job in jobs.items())


@check("again")
def when_it_is_asked(student):
    """One request with a prompt of 8 tokens and an answer of 11, a window of 4."""
    jobs = {"A": (0, 8, 11, 11)}
    _, told = scheduled_by(student, 4, jobs)
    expect_equal(asked_of(told, jobs)["A"], [0, 4, 8], what="tokens written whenever the predictor was asked (window 4, an answer of 11 tokens)", hints=[
        ([0], "it was never asked again: a prediction goes stale"), (list(range(11)), "not at every token: once in a window"),
        ([4, 8], "ask when the request arrives"), ([0, 1, 5, 9], "the tokens of the prompt are no tokens of the answer: not `count`"),
        ([0, 3, 7], "when 4 tokens have been written, not 3"),
        ([0, 0, 0, 4, 8], "the key is read often: hand out the prediction that you remembered, and do not ask for a new one")])


@check("again")
def mispredicted(student):
    """L is said to have 5 tokens and has 30; S, 9 tokens, comes after 2 s. A window of 4."""
    jobs = {"L": (0, 8, 30, 5), "S": (2, 8, 9, 9)}
    engine, _ = scheduled_by(student, 4, jobs)
    expect_equal(deliveries(engine), "LLLL" + "S" * 9 + "L" * 26, what="whose tokens were handed out", hints=[
        ("L" * 30 + "S" * 9, "when L has 4 tokens the predictor says 26 more, S has 9: S goes first. Was it asked again, static = False, preemptive = True?"),
        ("LLSSSS" + "L" * 26 + "SSSSLLS", "the smallest prediction goes first, not the largest"),
        ("LL" + "S" * 9 + "L" * 28, "after 2 s the last prediction for L is still 5, and S has 9: nobody has been asked again yet"),
        ("LLL" + "S" * 9 + "L" * 27, "after 3 s the last prediction for L is still 5, and S has 9: nobody has been asked again yet")])
    expect_equal(engine.counters.preemptions, 1, what="preemptions")
    jobs = {"L": (0, 8, 30, 30), "S": (2, 8, 9, 9), "M": (5, 8, 7, 7)}
    engine, _ = scheduled_by(student, 4, jobs)
    expect_equal(deliveries(engine), "LL" + "SSS" + "M" * 7 + "S" * 6 + "L" * 28, what="whose tokens were handed out when all three are predicted rightly "
                 "(30 from 0 s, 9 from 2 s, 7 from 5 s)", hints=[("LL" + "S" * 9 + "M" * 7 + "L" * 28, "between two windows the last prediction stands: "
                 "after 3 of its own tokens S is still predicted 9, neither counted down nor asked again, and M 7, so M goes first. A window is 4 tokens of one request's own answer")])


def bursts(seed, count=40):
    """Jobs that come at random, short and long, first predictions wrong by a random factor."""
    rng, time_, jobs = random.Random(seed), 0.0, {}
    for number in range(count):
        time_ += rng.choice([0, 1, 4, 9, 20])
        length = rng.choice([3, 6, 11, 25, 70])
        jobs[f"{number} "] = (time_, rng.randint(2, 12), length, max(1.0, length * math.exp(rng.gauss(0, 1.2))))
    return jobs


class Stale(Policy):
    """Shortest remaining time by the first prediction, which is never made anew."""

    static, preemptive = False, True

    def key(self, request, now):
        return max(1.0, request.predicted - len(request.output))


@check("again")
def better_than_stale(student):
    """Forty jobs whose first predictions are wrong by a factor of three or so: in the mean they are done sooner than without asking again."""
    jobs = bursts(3)
    stale = completion(serve(Stale(), jobs, 2), jobs)
    engine, told = scheduled_by(student, 5, jobs, 2)
    got = completion(engine, jobs)
    expect_true(got <= 0.85 * stale, f"mean time from arrival to the last token is {got:.1f} s with your policy (window 5), and {stale:.1f} s with one that never asks "
                f"again; at most {0.85 * stale:.1f} s are asked for")
    most = sum(1 + job[2] // 5 for job in jobs.values())
    expect_true(len(told._asked) <= most, f"the predictor was asked {len(told._asked)} times; once for each of 40 requests and once a window makes at most {most}. A window "
                "is 5 tokens of one request's own answer")


@check("again")
def on_the_real_engine(student):
    """course-tiny, one place, a predictor that only knows how long answers are: every answer stays what it is, and short ones come first."""
    prompts = {"A": "Count from 1 to 40.", "B": "What is 43 minus 6?", "C": "Count from 3 to 9."}
    alone = Engine.from_model("course-tiny", device="cpu", num_blocks=64)
    want = {name: list(alone.generate([text], SamplingParams(max_tokens=80))[0].tokens) for name, text in prompts.items()}
    policy = Through(student.new("IterativeSRTF", 10, Served(Residual(ROWS).remaining)))
    engine = Engine.from_model("course-tiny", device="cpu", num_blocks=64, max_running=1, checked=True, policy=policy)
    for name, text in prompts.items():
        engine.add(Request(engine.tokenizer.encode_prompt(text), SamplingParams(max_tokens=80), id=name, arrival=0.0))
    for _ in engine.stream():
        pass
    student.last = ""
    expect_equal({name: engine.requests[name].output for name in prompts}, want, what="answers of course-tiny: a policy must not change a single token")
    order = "".join(event.request for event in engine.events if event.kind is EventKind.FINISHED)
    expect_equal(order, "BCA", what="order of finishing. An answer that has 10 tokens already is likely to be a long one, so it lets the others go first", hints={
        "ABC": "nobody was interrupted: after 10 tokens A is predicted to lack more than B and C",
        "BAC": "is what has been written subtracted? `remaining` says what is still to come: the longer A has run, the more it lacks"})
    expect_true(engine.counters.preemptions > 0, "nobody was interrupted")


# %% key="again-hidden" role="hidden" exercise="again"
class ByTheBook(Policy):
    """What the statement says, once more."""

    static, preemptive = False, True

    def __init__(self, window, remaining):
        self.window, self.remaining, self.last, self.ended = window, remaining, {}, {}

    def key(self, request, now):
        return self.last[request.id]

    def on_queued(self, request, now):
        self.last[request.id], self.ended[request.id] = max(1.0, self.remaining(request)), 0

    def on_tokens(self, request, count, delivered, now):
        if len(request.output) // self.window > self.ended[request.id]:
            self.ended[request.id] = len(request.output) // self.window
            self.last[request.id] = max(1.0, self.remaining(request))


@check("again")
def windows_of_their_own(student):
    """Two places, three requests, one is interrupted and computed again: each is asked about at the ends of its own windows."""
    jobs = {"A": (0, 30, 17, 4), "B": (1, 3, 22, 22), "C": (5, 12, 7, 7)}
    for seats, budget in ((2, 256), (1, 256), (2, 8)):
        engine, told = scheduled_by(student, 5, jobs, seats, budget=budget)
        expect_equal(asked_of(told, jobs), {"A": [0, 5, 10, 15], "B": [0, 5, 10, 15, 20], "C": [0, 5]}, what="tokens written whenever the predictor was asked, by "
                     f"request, with a window of 5, {seats} places and {budget} tokens a step")
        expect_true(engine.counters.preemptions > 0 or seats == 2, "this check is about an interruption")


@check("again")
def never_below_one(student):
    """Predictions of 0.2, -8 and 0.9 tokens all count as 1: who came first goes first."""
    jobs = {"A": (0, 4, 3, 0.9), "B": (0, 4, 3, -8), "C": (0, 4, 3, 0.2), "D": (0, 4, 2, 2)}
    engine, _ = scheduled_by(student, 50, jobs)
    expect_equal(deliveries(engine), "AAABBBCCCDD", what="whose tokens were handed out, with predictions of 0.9, -8, 0.2 and 2", hints={
        "BBBCCCAAADD": "whoever has not ended lacks at least 1 token: predictions below 1 count as 1"})


@check("again")
def other_workloads(student):
    """Jobs at random, one to three places, windows of 1 to 50: the same tokens in the same order as by the statement; also with seats that keep their KV."""
    for seed, window, seats, parking in ((2, 1, 1, False), (3, 4, 2, False), (4, 7, 3, False), (5, 50, 2, False), (6, 5, 2, True)):
        jobs = bursts(seed, 25)
        engine, _ = scheduled_by(student, window, jobs, seats, parking=parking)
        book = serve(ByTheBook(window, Told({n: j[2] for n, j in jobs.items()}, {n: j[3] for n, j in jobs.items()})), jobs, seats, parking=parking)
        got, want = deliveries(engine).split(), deliveries(book).split()
        place = next((k for k, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), None)
        expect_true(got == want, f"25 jobs, window {window}, {seats} places: token {place} was handed out to job {got[place or 0]}; it should be job "
                    f"{want[place or 0]}'s turn: the smallest last prediction of what is still to come goes first")
        expect_true(not parking or engine.counters.recomputed_tokens == 0, "with parking nothing is computed twice")


# %% key="again-m1" role="mutant" exercise="again" name="the prediction is never updated"
class IterativeSRTF(IterativeSRTF):
    def on_tokens(self, request, count, delivered, now):
        pass


# %% key="again-m2" role="mutant" exercise="again" name="asks at every token"
class IterativeSRTF(IterativeSRTF):
    def on_tokens(self, request, count, delivered, now):
        self.last[request.id] = max(1, self.remaining(request))


# %% key="again-m3" role="mutant" exercise="again" name="the window counts computed tokens, the prompt included"
class IterativeSRTF(IterativeSRTF):
    def on_queued(self, request, now):
        super().on_queued(request, now)
        self.counted = getattr(self, "counted", {}) | {request.id: 0}

    def on_tokens(self, request, count, delivered, now):
        self.counted[request.id] += count
        if self.counted[request.id] >= self.window:
            self.counted[request.id] = 0
            self.last[request.id] = max(1, self.remaining(request))


# %% key="again-m4" role="mutant" exercise="again" name="keys are asked once: static"
class IterativeSRTF(IterativeSRTF):
    def __init__(self, window, remaining):
        super().__init__(window, remaining)
        self.static = True


# %% key="again-m5" role="mutant" exercise="again" name="never pushes anybody out"
class IterativeSRTF(IterativeSRTF):
    def __init__(self, window, remaining):
        super().__init__(window, remaining)
        self.preemptive = False


# %% key="again-m6" role="mutant" exercise="again" name="the longest first"
class IterativeSRTF(IterativeSRTF):
    def key(self, request, now):
        return -super().key(request, now)


# %% key="again-m7" role="mutant" exercise="again" name="one window for all requests together"
class IterativeSRTF(IterativeSRTF):
    def on_tokens(self, request, count, delivered, now):
        self.total = getattr(self, "total", 0) + delivered
        if delivered and self.total % self.window == 0:
            self.last[request.id] = max(1, self.remaining(request))


# %% key="again-m8" role="mutant" exercise="again" name="goes by the whole length, not by what remains"
class IterativeSRTF(IterativeSRTF):
    def on_tokens(self, request, count, delivered, now):
        if delivered and len(request.output) % self.window == 0:
            self.last[request.id] = max(1, self.remaining(request)) + len(request.output)


# %% key="again-m9" role="mutant" exercise="again" name="subtracts what has come from what is still to come"
class IterativeSRTF(IterativeSRTF):
    def key(self, request, now):
        return max(1, super().key(request, now) - len(request.output))


# %% key="again-m10" role="mutant" exercise="again" name="predictions below one token count as they are"
class IterativeSRTF(IterativeSRTF):
    def on_queued(self, request, now):
        self.last[request.id] = self.remaining(request)


# %% key="again-m12" role="mutant" exercise="again" name="counts predictions down between windows"
class IterativeSRTF(IterativeSRTF):
    def key(self, request, now):
        return max(1, super().key(request, now) - len(request.output) % self.window)


# %% key="again-m13" role="mutant" exercise="again" name="asks again in steps that hand out nothing"
class IterativeSRTF(IterativeSRTF):
    def on_tokens(self, request, count, delivered, now):
        if len(request.output) % self.window == 0:
            self.last[request.id] = max(1, self.remaining(request))


# %% key="again-m11" role="mutant" exercise="again" name="the window begins anew after an interruption"
class IterativeSRTF(IterativeSRTF):
    def on_scheduled(self, request, now):
        self.since = getattr(self, "since", {}) | {request.id: 0}

    def on_tokens(self, request, count, delivered, now):
        self.since[request.id] += delivered
        if delivered and self.since[request.id] % self.window == 0:
            self.last[request.id] = max(1, self.remaining(request))


# %% [markdown] key="bins" lang="en" role="exercise" exercise="bins" points=4 difficulty=3 minutes=35 needs="week 9, part 8; week 4, static batching"
# ## Exercise 6 · Bins
#
# An engine with **static** batches finishes each batch together: a batch takes as long as its longest answer, and everybody else's place stands empty meanwhile. So
# it should be given requests of like length. Multi-bin batching (Guldogan et al., 2024) sorts requests into bins by expected length. Write
#
# 1. `bin_edges(lengths, bins)`: edges between `bins` bins (at least 1), so that each gets an equal share of a sample of lengths, which is not sorted: a list of `bins - 1` numbers.
#    With the $n$ lengths in rising order, edge $i$ (from 1 to `bins - 1`) is the one at place $\lfloor n \cdot i / \text{bins} \rfloor$, counted from 0.
# 2. `batches(expected, edges, size)`: `expected` holds the expected lengths of requests in the order in which they arrive. A request's bin is the number of
#    edges that are **at most** its expected length: one that lies on an edge belongs above it. Each bin collects requests in order of arrival; as soon as it holds `size` of them they become a batch, and the bin is empty
#    again. When all requests have arrived, what is left in each bin becomes a smaller batch. Return a list of batches, each a list of indices into `expected`: first the full batches in the order in which they became
#    full, then the smaller ones in the order in which their first requests arrived.
# 3. `batch_steps(least, most, bins, size)`: the expected longest answer of a batch of `size` requests, when lengths are evenly distributed (continuously) between `least` and `most`, predictions are
#    right, and all bins are equally wide. A `float`. You may use: of `size` numbers drawn evenly between $a$ and $b$, the largest is on average $a + (b - a) \cdot \frac{\text{size}}{\text{size} + 1}$. A batch comes from each of
#    the bins equally often.

# %% [markdown] key="bins-help-share" lang="en" role="help" exercise="bins" title="Why equal shares and not equal widths?"
# Lengths are skewed. With equal widths nearly all requests fall into the first bin, and the others hardly ever fill: one bin does all the work, as if there were none.

# %% [markdown] key="bins-help-known" lang="en" role="help" exercise="bins" title="Why not sort all requests and cut them into batches?"
# Because they arrive one after the other. Whoever waits for all of them before the first batch begins has the best batches and the longest wait.

# %% [markdown] key="bins-help-mean" lang="en" role="help" exercise="bins" title="How do I get from one bin to all of them?"
# Bin $k$ reaches from $a_k$ to $a_k + w$ with $w = (\text{most} - \text{least}) / \text{bins}$. Its longest is on average $a_k + w \cdot \frac{\text{size}}{\text{size} + 1}$. Take the mean over $k$. With very
# many bins it tends to the middle of all lengths: then nobody waits for anybody.

# %% [markdown] key="bins-help-try" lang="en" role="help" exercise="bins" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# print(bin_edges([5, 1, 9, 3, 7, 2], 3))                      # [3, 7]: two lengths below 3, two from 3 on, two from 7 on
# print(batches([4, 8, 2, 9, 5, 1, 4], [3, 7], 2))             # [[1, 3], [0, 4], [2, 5], [6]]
# print(batch_steps(0, 100, 1, 4), batch_steps(0, 100, 4, 4))  # 80.0 57.5
# ```

# %% key="bins-answer" role="answer" exercise="bins"
def bin_edges(lengths, bins):
    """Edges between bins that get equal shares of the sample."""
    ### BEGIN SOLUTION
    ordered = sorted(lengths)
    return [ordered[len(ordered) * i // bins] for i in range(1, bins)]
    ### END SOLUTION


def batches(expected, edges, size):
    """Which requests are served together, and in which order."""
    ### BEGIN SOLUTION
    full, open_bins = [], {}
    for number, length in enumerate(expected):
        place = sum(edge <= length for edge in edges)
        members = open_bins.setdefault(place, [])
        members.append(number)
        if len(members) == size:
            full.append(open_bins.pop(place))
    return full + sorted(open_bins.values())
    ### END SOLUTION


def batch_steps(least, most, bins, size):
    """The expected longest of a batch, when lengths are evenly distributed."""
    ### BEGIN SOLUTION
    return (least + most) / 2 + (most - least) / bins * (size / (size + 1) - 1 / 2)
    ### END SOLUTION


# %% key="bins-check" role="check" exercise="bins"
def edges_of(student, lengths, bins):
    """The student's edges, as numbers."""
    got = student.call("bin_edges", list(lengths), bins)
    got = got.tolist() if type(got) is np.ndarray else list(got) if type(got) is tuple else got
    expect_true(type(got) is list and all(type(edge) in (int, float) for edge in got), f"bin_edges returns a list of numbers; this was {got!r}"[:300])
    expect_equal(len(got), bins - 1, what=f"number of edges between {bins} bins")
    return got


def batches_of(student, expected, edges, size):
    """The student's batches; every request stands in exactly one."""
    got = student.call("batches", list(expected), list(edges), size)
    good = type(got) is list and all(type(batch) in (list, tuple) and all(type(k) is int for k in batch) for batch in got)
    expect_true(good, f"batches returns a list of lists of indices; this was {got!r}"[:300])
    every = sorted(k for batch in got for k in batch)
    missing = sorted(set(range(len(expected))) - set(every))
    expect_equal(every, list(range(len(expected))), what=f"indices in all batches, sorted, of {len(expected)} requests", hints=[
        (sorted(expected), "a batch lists indices into expected, not the lengths themselves"),
        *([(every, f"{missing[:9]} stand in no batch: when all have arrived, what is left in a bin becomes a smaller batch")] if len(set(every)) == len(every) else [])])
    expect_true(all(len(batch) > 0 for batch in got), f"a bin in which nobody is left makes no batch; these were {got!r}"[:300])
    expect_true(max(map(len, got), default=0) <= size, f"a batch holds {max(map(len, got), default=0)} requests; at most {size}")
    return [list(batch) for batch in got]


def in_engine(edges, size, expected, lengths):
    """The course's engine with static batches: who was served together, in order, and new tokens per step."""
    policy = MultiBin(edges, size)
    engine = Engine(MockExecutor(16, step_seconds=1.0, token_seconds=0.0), BlockPool(1024, 16), policy=policy, batching="static", max_running=size,
                    token_budget=512, admission=policy.admission(), clock=VirtualClock())
    for number, (guess, length) in enumerate(zip(expected, lengths, strict=True)):
        sampling = SamplingParams(max_tokens=int(length), ignore_eos=True)
        engine.add(Request([1 + number % 60] * 3, sampling, id=str(number), arrival=0.0, predicted=float(guess)))
    for _ in engine.stream():
        pass
    together = {}
    for event in engine.events:
        if event.kind is EventKind.SCHEDULED:
            together.setdefault(event.time, []).append(int(event.request))
    return list(together.values()), sum(lengths) / engine.clock.now


def lognormal(seed, count, middle=12.0, spread=0.9, most=90):
    """Lengths, most of them short."""
    rng = random.Random(seed)
    return [min(most, max(1, round(middle * math.exp(rng.gauss(0, spread))))) for _ in range(count)]


@check("bins")
def equal_shares(student):
    """Edges of twelve different lengths, and of skewed ones."""
    lengths = [7, 2, 11, 5, 1, 16, 9, 4, 3, 8, 10, 6]
    expect_close(edges_of(student, lengths, 3), [5, 9], 1e-9, what=f"edges of {lengths}, 3 bins", hints=[
        ([4, 8], "in rising order the edges are at places 12 · 1 // 3 = 4 and 8, counted from 0"), ([1, 3], "sort the sample first"),
        ([6, 11], "equal shares of the sample, not equal widths"),
        ([14 / 3, 25 / 3], "lengths of the sample itself, at places 4 and 8 in rising order: no quantile between two of them"),
        ([13 / 3, 26 / 3], "lengths of the sample itself, at places 4 and 8 in rising order: no quantile between two of them")])
    skewed = [3, 400, 1, 60, 2, 50, 1, 2]
    expect_equal(edges_of(student, skewed, 2), [3], what=f"edge of {skewed}, 2 bins", hints=[
        ([200.5], "equal shares of the sample, not equal widths: seven of eight would be in the first bin"), ([2.5], "the length at place 8 · 1 // 2 = 4, not a median"),
        ([64.875], "that is the mean: the one of 400 draws it up"), ([2], "the length at place 8 · 1 // 2 = 4 of the sorted sample, counted from 0")])
    expect_equal(edges_of(student, skewed, 3), [2, 50], what=f"edges of {skewed}, 3 bins", hints=[
        ([2, 3], "place 8 · 2 // 3 = 5, counted from 0: multiply first, then round down"), ([2, 60], "place 8 · 2 // 3 = 5, counted from 0: round down")])
    expect_equal(edges_of(student, skewed, 1), [], what="edges of one bin")


@check("bins")
def who_is_served_together(student):
    """Seven requests, edges 3 and 7, batches of two."""
    expected = [4, 8, 2, 9, 5, 1, 4]
    expect_equal(batches_of(student, expected, [3, 7], 2), [[1, 3], [0, 4], [2, 5], [6]], what=f"batches of {expected}, edges [3, 7], size 2", hints=[
        ([[0, 1], [2, 3], [4, 5], [6]], "in order of arrival alone: only requests of one bin are served together"),
        ([[5, 2], [0, 6], [4, 1], [3]], "all of them sorted: but batches are formed while requests arrive"),
        ([[2, 5], [0, 4], [1, 3], [6]], "batches go in the order in which they became full, not bin by bin"),
        ([[2, 5], [0, 4], [6], [1, 3]], "batches go in the order in which they became full, not bin by bin"),
        ([[0, 4], [1, 3], [2, 5], [6]], "batches go in the order in which they became full, not in which they were begun")])
    expect_equal(batches_of(student, [3, 2, 7, 6], [3, 7], 4), [[0, 3], [1], [2]], what="batches of [3, 2, 7, 6], edges [3, 7], size 4", hints=[
        ([[0, 1], [2, 3]], "a length that lies on an edge belongs above it"), ([[1], [0, 3], [2]], "smaller batches go in the order in which their first requests arrived"),
        ([[0, 1, 2, 3]], "only requests of one bin are served together, at the end as well"), ([[0, 3, 1, 2]], "only requests of one bin are served together, at the end as well")])


@check("bins")
def even_lengths(student):
    """Between 0 and 100, batches of 4: with one bin 80, with four 57.5; and as many drawn batches say."""
    def steps(*asked, want, hints=()):
        got = student.call("batch_steps", *asked)
        expect_true(type(got) in (int, float), f"batch_steps returns a number; this was {got!r}")
        expect_close(got, want, 1e-9, what=f"expected longest of a batch, (least, most, bins, size) = {asked}", hints=hints)
        return got
    steps(0, 100, 1, 4, want=80.0, hints=[(50.0, "a batch takes as long as its longest, not as its mean"), (100.0, "the longest of 4 is rarely the longest possible"),
        (110.0, "half of a bin's width lies below its middle already"), (180.0, "the first bin begins at `least`: count bins from 0")])
    steps(0, 100, 4, 4, want=57.5, hints=[
        (20.0, "that is the first bin alone: take the mean over all bins"), (80.0, "four bins: each is 25 wide"), (50.0, "a batch takes as long as its longest, not as its mean"),
        (95.0, "that is the last bin alone: take the mean over all bins"), (65.0, "half of a bin's width lies below its middle already"), (82.5, "the first bin begins at `least`"), (230.0, "the mean over all bins, not the sum")])
    steps(10, 50, 2, 1, want=30.0, hints=[(20.0, "lengths begin at `least`, not at 0"), (10.0, "bins are (most - least) / bins wide"), (40.0, "the first bin begins at `least`")])
    rng, edges = random.Random(4), edges_of(student, list(range(10, 1010)), 5)
    lengths = [rng.uniform(10, 1010) for _ in range(4000)]
    found = [max(lengths[k] for k in batch) for batch in batches_of(student, lengths, edges, 8) if len(batch) == 8]
    expect_close(student.call("batch_steps", 10, 1010, 5, 8), statistics.fmean(found), rtol=0.03, what=f"batch_steps against {len(found)} batches of 8 that your "
                 "functions form of lengths from 10 to 1,010, 5 bins")


@check("bins")
def throughput_in_the_engine(student):
    """192 answers on the course's engine with static batches of 8: four bins bring at least 1.3 times the tokens per step of one."""
    sample, lengths = lognormal(1, 400), lognormal(2, 192)
    speed = {}
    for bins in (1, 2, 4):
        edges = edges_of(student, sample, bins)
        speed[bins] = in_engine(sorted(edges), 8, lengths, lengths)[1]
    student.last = ""
    told = ", ".join(f"{bins} {'bin' if bins == 1 else 'bins'}: {each:.2f}" for bins, each in speed.items())
    expect_true(speed[4] >= 1.3 * speed[1] and speed[2] >= 1.1 * speed[1], f"tokens per step with your edges: {told}; with 2 bins it should be 1.1, with 4 bins "
                "1.3 times as many as with one. Do the bins get equal shares?")


# %% key="bins-hidden" role="hidden" exercise="bins"
@check("bins")
def as_the_engine_forms_them(student):
    """Predictions that are wrong: your batches are those that the course's engine serves, in its order; their longest answers are its steps."""
    lengths = lognormal(3, 90, most=60)
    rng = random.Random(7)
    guesses = [length * math.exp(rng.gauss(0, 0.5)) for length in lengths]
    for bins, size in ((3, 4), (1, 7), (4, 8)):
        edges = edges_of(student, lengths, bins)
        formed = batches_of(student, guesses, edges, size)
        served, speed = in_engine(edges, size, guesses, lengths)
        expect_equal([sorted(batch) for batch in formed], [sorted(batch) for batch in served], what=f"batches of 90 requests, {bins} bins, size {size}, against those that the "
                     "course's engine served together, in order")
        expect_close(sum(max(lengths[k] for k in batch) for batch in formed), sum(lengths) / speed, 1e-6, what="steps of all batches against the engine's clock")


@check("bins")
def any_sample(student):
    """Samples drawn at random, equal lengths, more bins than lengths; real answers."""
    rng = random.Random(8)
    for _ in range(40):
        sample, bins = [rng.choice([1, 2, 2, 5, 40, 300]) for _ in range(rng.randint(1, 25))], rng.randint(1, 6)
        ordered = sorted(sample)
        expect_equal(edges_of(student, sample, bins), [ordered[len(sample) * i // bins] for i in range(1, bins)], what=f"edges of {sample}, {bins} bins")
    lengths = PRACTICE.lengths[:, 0].tolist()
    edges = edges_of(student, lengths, 4)
    expect_equal(edges, [sorted(lengths)[len(lengths) * i // 4] for i in (1, 2, 3)], what="edges of 607 answers of course-tiny, 4 bins")


@check("bins")
def other_distributions(student):
    """Even lengths of other ranges, many bins, batches of one."""
    for least, most, bins, size in ((10, 1010, 8, 32), (5, 5, 3, 4), (0, 64, 10**6, 16), (100, 300, 2, 3), (1, 2, 7, 1)):
        want = statistics.fmean(least + (most - least) / bins * (k + size / (size + 1)) for k in range(min(bins, 100)))
        want += (most - least) / bins * (bins - min(bins, 100)) / 2
        expect_close(student.call("batch_steps", least, most, bins, size), want, 1e-6, what=f"batch_steps({least}, {most}, {bins}, {size})")


# %% key="bins-m1" role="mutant" exercise="bins" name="bins of equal width"
def bin_edges(lengths, bins):
    low, high = min(lengths), max(lengths)
    return [low + (high - low) * i / bins for i in range(1, bins)]


# %% key="bins-m2" role="mutant" exercise="bins" name="edges one place too low"
def bin_edges(lengths, bins):
    ordered = sorted(lengths)
    return [ordered[max(0, len(ordered) * i // bins - 1)] for i in range(1, bins)]


# %% key="bins-m3" role="mutant" exercise="bins" name="forgets to sort the sample"
def bin_edges(lengths, bins):
    return [lengths[len(lengths) * i // bins] for i in range(1, bins)]


# %% key="bins-m4" role="mutant" exercise="bins" name="batches in order of arrival, whatever the bin"
def batches(expected, edges, size):
    return [list(range(k, min(k + size, len(expected)))) for k in range(0, len(expected), size)]


# %% key="bins-m5" role="mutant" exercise="bins" name="waits for all and sorts them"
def batches(expected, edges, size):
    order = sorted(range(len(expected)), key=lambda k: expected[k])
    return [order[k:k + size] for k in range(0, len(order), size)]


# %% key="bins-m6" role="mutant" exercise="bins" name="forgets the requests that fill no batch"
_batches = batches


def batches(expected, edges, size):
    return [batch for batch in _batches(expected, edges, size) if len(batch) == size]


# %% key="bins-m13" role="mutant" exercise="bins" name="bins that are empty at the end make batches of nobody"
_batches = batches


def batches(expected, edges, size):
    formed = _batches(expected, edges, size)
    places = [sum(edge <= length for edge in edges) for length in expected]
    return formed + [[] for place in sorted(set(places)) if places.count(place) % size == 0]


# %% key="bins-m14" role="mutant" exercise="bins" name="rounds a bin's share down before it multiplies"
def bin_edges(lengths, bins):
    ordered = sorted(lengths)
    return [ordered[len(ordered) // bins * i] for i in range(1, bins)]


# %% key="bins-m7" role="mutant" exercise="bins" name="serves bin by bin"
_batches = batches


def batches(expected, edges, size):
    return sorted(_batches(expected, edges, size), key=lambda batch: sum(edge <= expected[batch[0]] for edge in edges))


# %% key="bins-m8" role="mutant" exercise="bins" name="an edge belongs below itself"
_batches = batches


def batches(expected, edges, size):
    return _batches([length - 1e-9 for length in expected], edges, size)


# %% key="bins-m9" role="mutant" exercise="bins" name="a batch takes the mean of its answers"
def batch_steps(least, most, bins, size):
    return (least + most) / 2


# %% key="bins-m10" role="mutant" exercise="bins" name="counts the half width of a bin twice"
def batch_steps(least, most, bins, size):
    return (least + most) / 2 + (most - least) / bins * (size - 1) / (size + 1)


# %% key="bins-m11" role="mutant" exercise="bins" name="the longest of a batch is the longest of its bin"
def batch_steps(least, most, bins, size):
    return (least + most) / 2 + (most - least) / (2 * bins)


# %% key="bins-m12" role="mutant" exercise="bins" name="the number of bins changes nothing"
_batch_steps = batch_steps


def batch_steps(least, most, bins, size):
    return _batch_steps(least, most, 1, size)


# %% [markdown] key="worth" lang="en" role="exercise" exercise="worth" points=3 difficulty=3 minutes=30 needs="week 9, parts 5 and 9"
# ## Exercise 7 · What is a prediction worth?
#
# A prediction costs time, and it pays only when somebody waits. Take the simplest case: **one** server, one request at a time, requests arriving at random (Poisson) at `rate`
# a second. Nobody is interrupted. A predictor has sorted requests into classes, the one with the shorter requests first; it may be wrong, so a class is described by what its requests **really** need:
#
# ```python
# [{"share": 0.75, "mean": 1.0, "square": 1.25},     # three in four are predicted short: on average 1 s of service,
#  {"share": 0.25, "mean": 5.0, "square": 32.0}]     # and 1.25 s² is the mean of its square; then those predicted long
# ```
#
# Shares sum to 1. The load is $\rho = \text{rate} \cdot \sum_k p_k m_k$ with shares $p_k$ and means $m_k$. When somebody arrives, on average
# $R = \frac{\text{rate}}{2} \sum_k p_k q_k$ seconds of the service in progress are still to come (0 while the server is free), with the squares $q_k$; the sum goes over **all** classes. Write four functions; each returns a number of seconds, but the last:
#
# 1. `fcfs_wait(rate, classes)`: the mean wait until service begins, first come first served (Pollaczek and Khinchine): $\frac{R}{1 - \rho}$.
# 2. `ssjf_wait(rate, classes)`: the same when an earlier class always goes first (Cobham, 1954). Class $k$ waits
#    $\frac{R}{(1 - \rho_{k-1})(1 - \rho_k)}$, where $\rho_k = \text{rate} \cdot \sum_{j \le k} p_j m_j$ is the load of the classes up to and including $k$, and $\rho_0 = 0$. Return the mean over all requests.
# 3. `predictor_seconds(rate, seconds)`: each request first goes to the predictor, which takes `seconds` for each, always the same, one at a time, first come first served. Return the mean time until its prediction is there: the
#    wait (as in 1, with one class) and the prediction itself. `seconds` may be 0.
# 4. `choose(rate, classes, seconds)`: `"ssjf"` if its wait plus the time of the predictor is **less** than the wait of FCFS, which needs no predictor; else `"fcfs"`.
#
# Where the load of server or predictor is 1 or more, the queue grows for ever: that time is `math.inf`, for 1, 2 and 3 alike.

# %% [markdown] key="worth-help-square" lang="en" role="help" exercise="worth" title="Why the square?"
# Whoever arrives at a random moment is more likely to fall into a long service than into a short one, and then half of that is still to come. Two services of 1 s and 9 s: nine times in ten it is the
# long one. So a mean of the squares counts, and a few long answers make everybody wait.

# %% [markdown] key="worth-help-infinite" lang="en" role="help" exercise="worth" title="ZeroDivisionError, or a wait below 0"
# At a load of 1 the formula divides by 0, and beyond it says a negative number: the queue grows for ever, and there is no mean wait. Look at the load first, and return
# `math.inf` where it is 1 or more. For ssjf the load of **all** classes together counts: the short ones may do well even then, but the long ones never get their turn.

# %% [markdown] key="worth-help-less" lang="en" role="help" exercise="worth" title="Where does the gain come from?"
# Not from more throughput: the server is busy for the same share of time. The short ones, who are many, no longer wait for the long ones, who are few. At a load of 0.2 hardly anybody
# waits, so there is nothing to gain, and the predictor still costs its time.

# %% [markdown] key="worth-help-saturated" lang="en" role="help" exercise="worth" title="Why does ssjf lose again at a very high rate?"
# The predictor is a queue of its own. At 100 requests a second, 10 ms each are too much for it, however fast the server is.

# %% [markdown] key="worth-help-try" lang="en" role="help" exercise="worth" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# classes = [{"share": 0.75, "mean": 1.0, "square": 1.25}, {"share": 0.25, "mean": 5.0, "square": 32.0}]
# for rate in (0.05, 0.2, 0.3, 0.4, 0.45, 0.49):
#     print(rate, fcfs_wait(rate, classes), ssjf_wait(rate, classes), predictor_seconds(rate, 0.5), choose(rate, classes, 0.5))
# ```

# %% key="worth-answer" role="answer" exercise="worth"
def fcfs_wait(rate, classes):
    """Mean seconds until service begins, first come first served."""
    ### BEGIN SOLUTION
    load = rate * sum(each["share"] * each["mean"] for each in classes)
    left = rate / 2 * sum(each["share"] * each["square"] for each in classes)
    return left / (1 - load) if load < 1 else math.inf
    ### END SOLUTION


def ssjf_wait(rate, classes):
    """Mean seconds until service begins, when the class predicted to be shorter goes first."""
    ### BEGIN SOLUTION
    left = rate / 2 * sum(each["share"] * each["square"] for each in classes)
    before, wait = 0.0, 0.0
    for each in classes:
        upto = before + rate * each["share"] * each["mean"]
        if upto >= 1:
            return math.inf
        wait += each["share"] * left / ((1 - before) * (1 - upto))
        before = upto
    return wait
    ### END SOLUTION


def predictor_seconds(rate, seconds):
    """Mean seconds from arrival until the prediction is there."""
    ### BEGIN SOLUTION
    return seconds + fcfs_wait(rate, [{"share": 1.0, "mean": seconds, "square": seconds**2}])
    ### END SOLUTION


def choose(rate, classes, seconds):
    """"fcfs" or "ssjf", with the predictor's time charged to the latter."""
    ### BEGIN SOLUTION
    return "ssjf" if ssjf_wait(rate, classes) + predictor_seconds(rate, seconds) < fcfs_wait(rate, classes) else "fcfs"
    ### END SOLUTION


# %% key="worth-check" role="check" exercise="worth"
EXAMPLE = [{"share": 0.75, "mean": 1.0, "square": 1.25}, {"share": 0.25, "mean": 5.0, "square": 32.0}]


def seconds(student, name, *asked, want, hints=()):
    """The student's function gives these seconds."""
    got = student.call(name, *asked)
    expect_true(type(got) in (int, float), f"{name} returns a number of seconds; this was {got!r}")
    expect_close(got, want, 1e-9, rtol=1e-9, what=f"{name}, rate {asked[0]:g}", hints=hints)


@check("worth")
def waits_of_the_example(student):
    """The two classes of the statement, 0.4 requests a second: the load is 0.8."""
    left = 0.2 * 8.9375
    seconds(student, "fcfs_wait", 0.4, EXAMPLE, want=left / 0.2, hints=[
        (2 * left / 0.2, "half of the service in progress is still to come: rate / 2"), (left / 0.2 + 2.0, "the wait until service begins: the service itself does not count"), (left, "divide by 1 - load"), (0.2 * 4 / 0.2, "the mean of the squares, not the square of the mean"),
        (0.2 * (0.75 + 0.25 * 25) / 0.2, "the mean of the squares, `square`, not the square of the mean"),
        (0.2 * 33.25 / 0.2, "weigh the squares with the shares")])
    want = 0.75 * left / 0.7 + 0.25 * left / (0.7 * 0.2)
    own = [0.2 * 0.75 * 1.25, 0.2 * 8]
    seconds(student, "ssjf_wait", 0.4, EXAMPLE, want=want, hints=[
        (left / 0.2, "that is the wait of first come, first served"), (0.75 * left / (0.7 * 0.2) + 0.25 * left / 0.7, "the class of the shorter goes first"),
        (0.25 * left / 0.5 + 0.75 * left / (0.5 * 0.2), "the earlier class goes first: the shorter"),
        ((left / 0.7 + left / 0.14) / 2, "the mean over all requests: weigh the classes by their shares"), (left / 0.7 + left / 0.14, "the mean over all requests, not the sum over the classes"),
        (0.75 * left / 0.7 + 0.25 * left / 0.2, "two factors: 1 - load before the class, and 1 - load up to it"),
        (0.75 * own[0] / 0.7 + 0.25 * own[1] / 0.14, "the service in progress may be of any class: R is the same for all"),
        (0.75 * left / 0.7 + 0.25 * left / 0.5, "the load up to a class includes those before it")])


@check("worth")
def time_of_the_predictor(student):
    """Half a second each, 0.4 requests a second; nothing; too many."""
    seconds(student, "predictor_seconds", 0.4, 0.5, want=0.5 + 0.2 * 0.25 / 0.8, hints=[
        (0.5, "it takes one request at a time: others wait for it. What always takes 0.5 s has a mean square of 0.25 s²"), (0.2 * 0.25 / 0.8, "the prediction itself takes 0.5 s as well"), (0.5 + 0.4 * 0.25 / 0.8, "half of the service in progress is still to come, and what always takes 0.5 s has a mean square of 0.25 s²")])
    seconds(student, "predictor_seconds", 3.0, 0.0, want=0.0)
    for rate in (2.0, 50.0):
        seconds(student, "predictor_seconds", rate, 0.5, want=math.inf, hints=[(0.5, "it takes one request at a time, and more come than it can take")])
    for name in ("fcfs_wait", "ssjf_wait"):
        for rate in (0.5, 0.9, 4.0):
            seconds(student, name, rate, EXAMPLE, want=math.inf)


@check("worth")
def by_load(student):
    """The example with a predictor of half a second, from a calm hour to a busy one."""
    got = [student.call("choose", rate, EXAMPLE, 0.5) for rate in (0.05, 0.15, 0.25, 0.35, 0.45, 0.49)]
    student.last = ""
    expect_equal(got, ["fcfs"] * 3 + ["ssjf"] * 3, what="policies at 0.05, 0.15, 0.25, 0.35, 0.45 and 0.49 requests a second", hints=[
        (["ssjf"] * 6, "at 0.05 requests a second nobody waits, and the prediction costs half a second: charge it to ssjf, and to ssjf alone"),
        (["fcfs"] * 2 + ["ssjf"] * 4, "at 0.25 a second sorting saves 0.516 s, and the prediction costs 0.536 s: others wait for the predictor as well"), (["fcfs"] * 6, "a smaller wait is the better one"), (["ssjf"] * 3 + ["fcfs"] * 3, "the other way round: a smaller wait is the better one")])
    expect_equal(student.call("choose", 0.6, EXAMPLE, 0.5), "fcfs", what="policy when the load is above 1 and both wait for ever",
                 hints={"ssjf": "infinity is not less than infinity: in a tie it is fcfs"})
    fast = [{"share": 0.75, "mean": 0.01, "square": 0.000125}, {"share": 0.25, "mean": 0.05, "square": 0.0032}]
    expect_equal([student.call("choose", 45.0, fast, each) for each in (0.005, 0.03)], ["ssjf", "fcfs"], what="policies at 45 requests a second (load 0.9), with predictions of 5 ms "
                 "and of 30 ms, which are more than the predictor can do", hints=[(["ssjf", "ssjf"], "45 predictions of 30 ms do not fit into a second")])


# %% key="worth-hidden" role="hidden" exercise="worth"
def simulated_waits(rate, classes, by_class, count=40000):
    """Mean wait in a simulated queue; each class has two lengths, equally likely, that have its mean and its square."""
    rng, clock, arrivals = random.Random(2), 0.0, []
    cuts, spreads, share = [], [math.sqrt(each["square"] - each["mean"] ** 2) for each in classes], 0.0
    for each in classes[:-1]:
        share += each["share"]
        cuts.append(share)
    for _ in range(count):
        clock += rng.expovariate(rate)
        place = bisect.bisect(cuts, rng.random())
        arrivals.append((clock, place, classes[place]["mean"] + rng.choice([-1, 1]) * spreads[place]))
    queues, now, total, coming = [[] for _ in classes], 0.0, 0.0, 0
    ahead = [0] * len(classes)
    for _ in range(count):
        if all(ahead[k] == len(queue) for k, queue in enumerate(queues)):
            now = max(now, arrivals[coming][0])
        while coming < count and arrivals[coming][0] <= now:
            queues[arrivals[coming][1] if by_class else 0].append(arrivals[coming])
            coming += 1
        place = next(k for k, queue in enumerate(queues) if ahead[k] < len(queue))
        arrival, _, service = queues[place][ahead[place]]
        ahead[place] += 1
        total, now = total + now - arrival, now + service
    return total / count


@check("worth")
def as_a_simulated_queue(student):
    """40,000 requests through a simulated server: the waits are what the formulas say."""
    three = [{"share": 0.5, "mean": 1.0, "square": 1.5}, {"share": 0.3, "mean": 2.0, "square": 5.0}, {"share": 0.2, "mean": 6.0, "square": 40.0}]
    for rate, classes in ((0.3, EXAMPLE), (0.3, three)):
        for name, by_class in (("fcfs_wait", False), ("ssjf_wait", True)):
            want = simulated_waits(rate, classes, by_class)
            expect_close(student.call(name, rate, classes), want, rtol=0.06, what=f"{name} of {len(classes)} classes at a rate of {rate}, against a simulated queue")


@check("worth")
def more_classes(student):
    """Three classes, one class; a class that is mispredicted; equal waits."""
    three = [{"share": 0.5, "mean": 1.0, "square": 1.5}, {"share": 0.3, "mean": 2.0, "square": 5.0}, {"share": 0.2, "mean": 6.0, "square": 40.0}]
    left = 0.2 * 10.25
    seconds(student, "fcfs_wait", 0.4, three, want=left / 0.08)
    seconds(student, "ssjf_wait", 0.4, three, want=0.5 * left / 0.8 + 0.3 * left / (0.8 * 0.56) + 0.2 * left / (0.56 * 0.08))
    seconds(student, "ssjf_wait", 0.4, [{"share": 1.0, "mean": 1.0, "square": 2.0}], want=0.4 / 0.6)
    wrong = EXAMPLE[::-1]
    seconds(student, "ssjf_wait", 0.4, wrong, want=0.25 * 1.7875 / 0.5 + 0.75 * 1.7875 / (0.5 * 0.2))
    expect_equal([student.call("choose", rate, classes, 0.0) for rate, classes in ((0.4, EXAMPLE), (0.4, wrong), (0.5, [EXAMPLE[0] | {"share": 1.0}]))], ["ssjf", "fcfs", "fcfs"],
                 what="policies with a predictor that costs nothing: right, always wrong, and one that puts everybody into the same class", hints=[
                     (["ssjf", "fcfs", "ssjf"], "equal waits: then no predictor is needed"), (["ssjf"] * 3, "a predictor that is wrong makes it worse"),
                     (["ssjf", "ssjf", "fcfs"], "a predictor that is wrong makes it worse")])


# %% key="worth-m1" role="mutant" exercise="worth" name="predictions are free"
def choose(rate, classes, seconds):
    return "ssjf" if ssjf_wait(rate, classes) < fcfs_wait(rate, classes) else "fcfs"


# %% key="worth-m2" role="mutant" exercise="worth" name="nobody waits for the predictor"
def predictor_seconds(rate, seconds):
    return seconds


# %% key="worth-m3" role="mutant" exercise="worth" name="the square of the mean"
def fcfs_wait(rate, classes):
    mean = sum(each["share"] * each["mean"] for each in classes)
    return rate / 2 * mean**2 / (1 - rate * mean) if rate * mean < 1 else math.inf


# %% key="worth-m4" role="mutant" exercise="worth" name="shorter requests wait only for their own kind"
def ssjf_wait(rate, classes):
    before, wait = 0.0, 0.0
    for each in classes:
        upto = before + rate * each["share"] * each["mean"]
        if upto >= 1:
            return math.inf
        wait += each["share"] * rate / 2 * each["share"] * each["square"] / ((1 - before) * (1 - upto))
        before = upto
    return wait


# %% key="worth-m5" role="mutant" exercise="worth" name="forgets those who overtake meanwhile"
def ssjf_wait(rate, classes):
    left, upto, wait = rate / 2 * sum(each["share"] * each["square"] for each in classes), 0.0, 0.0
    for each in classes:
        upto += rate * each["share"] * each["mean"]
        wait += each["share"] * left / (1 - upto) if upto < 1 else math.inf
    return wait


# %% key="worth-m6" role="mutant" exercise="worth" name="every class counts the same"
def ssjf_wait(rate, classes):
    left = rate / 2 * sum(each["share"] * each["square"] for each in classes)
    before, waits = 0.0, []
    for each in classes:
        upto = before + rate * each["share"] * each["mean"]
        waits.append(left / ((1 - before) * (1 - upto)) if upto < 1 else math.inf)
        before = upto
    return sum(waits) / len(waits)


# %% key="worth-m7" role="mutant" exercise="worth" name="always predicts: sorting can only help"
def choose(rate, classes, seconds):
    return "ssjf"


# %% key="worth-m8" role="mutant" exercise="worth" name="a negative wait beyond saturation"
def fcfs_wait(rate, classes):
    load = rate * sum(each["share"] * each["mean"] for each in classes)
    left = rate / 2 * sum(each["share"] * each["square"] for each in classes)
    return left / (1 - load) if load != 1 else math.inf


# %% key="worth-m9" role="mutant" exercise="worth" name="the longest first"
_ssjf_wait = ssjf_wait


def ssjf_wait(rate, classes):
    return _ssjf_wait(rate, classes[::-1])


# %% [markdown] key="end" lang="en"
# ## Done
#
# You have measured order, tested without fooling yourself, predicted from a prompt, learned to rank, corrected predictions while answers grow, and
# put like with like; and worked out when all this pays. What none of it can do: give a request its place back once it has been wrongly pushed out, or promise anything to the one that
# always looks longest. Next week is about that.
#
# Hand in this file. Your score: `llmcourse check labs/lab09_prediction.ipynb`.
