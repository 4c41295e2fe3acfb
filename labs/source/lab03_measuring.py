"""Lab 3: metrics from a log, percentiles and goodput, load generators, policies, cost, capacity. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 3 · Measuring a service
#
# A service is as fast as somebody measured it, and most mistakes are made there. You write the instruments: metrics out
# of the engine's own event log, percentiles that can be added up, a load generator that does not flatter, the bill, and
# the search for the highest load that keeps a promise. In between you write three policies and race them.
#
# **How to work.** Write your answer where `NotImplementedError` stands, run the cell, run the check below it. A check
# that fails says what it asked, what came back, and often which idea went wrong. Stuck? Each folded help is named
# after something you may see or ask: open the one that fits. Exercises do not depend on each other, so you can also
# go on to the next. Some checks are hidden: they try other inputs and the edge cases of what the statement says,
# nothing else.
#
# **Your own work.** An answer is built on what the cell below defines and imports, and on nothing else of the package: with
# `from llmcourse… import` in it, it earns nothing. Each answer is judged without the others.
#
# **To see your score:** `llmcourse check labs/lab03_measuring.ipynb`. **To hand in:** save the notebook and hand in the
# file.
#
# The lecture of week 3 has the ideas behind all of this. All times are seconds.

# %% key="setup" role="setup"
import math
from itertools import pairwise

from llmcourse.engine import Engine, Event, EventKind, Policy, Request, SamplingParams, VirtualClock
from llmcourse.executors import MockExecutor
from llmcourse.grading import Served, check, expect_close, expect_equal, expect_true
from llmcourse.kv import BlockPool


def event(time, kind, request=None, **data):
    """One event of a log, such as `event(0.5, "NEW_TOKENS", "A", tokens=[7])`."""
    return Event(time, EventKind(kind), request, data)


def queued(time, request, prompt_tokens=10, max_tokens=50):
    """The event of a request's arrival."""
    return event(time, "QUEUED", request, prompt_tokens=prompt_tokens, max_tokens=max_tokens)


def token(time, request, count=1):
    """The event of `count` delivered tokens."""
    return event(time, "NEW_TOKENS", request, tokens=[7] * count)


# %% [markdown] key="metrics" lang="en" role="exercise" exercise="request_metrics" points=4 difficulty=2 minutes=25 needs="week 3, part 1"
# ## Exercise 1 · Four clocks for one request
#
# The engine writes down everything that happens, in order of time. An event has `time`, `kind` (compare it with a text:
# `e.kind == "QUEUED"`), `request` (its id; None for events of the whole engine) and `data` (a dictionary). In a request's
# life there are
#
# | `kind` | what happened | `data` |
# |:--|:--|:--|
# | `"QUEUED"` | it arrived | `prompt_tokens`, `max_tokens` |
# | `"SCHEDULED"` | it was given a place in a batch; once more after each preemption | `computed` |
# | `"NEW_TOKENS"` | tokens of its answer were handed out | `tokens`: a list |
# | `"PREEMPTED"` | it lost its place and its cache | `computed`, `freed` |
# | `"FINISHED"` | its answer is complete; the event stands behind its last token | `reason` |
# | `"ABORTED"` | it was given up, by its user or by the service | |
#
# Write `request_metrics(events)`: a dictionary with an entry for **every** request that arrived, from its id to a
# dictionary with
#
# - `"queue"`: from arrival to the first time it was scheduled;
# - `"ttft"`: time to first token, from **arrival** to the first token;
# - `"itl"`: inter-token latencies, the list of the gaps between one `NEW_TOKENS` of this request and its next;
# - `"tpot"`: time per output token, from the first token to the last, divided by the number of tokens after the first;
# - `"e2e"`: from arrival to the last token of an answer that is complete.
#
# What has not come about is None (and an empty list for `"itl"`): no token, no TTFT; one token, no TPOT; not finished, no
# end-to-end time. An event may carry several tokens: count tokens, not events.

# %% [markdown] key="metrics-help-compare" lang="en" role="help" exercise="request_metrics" title="How do I look at a log?"
# In a new cell:
#
# ```python
# engine = Engine(MockExecutor(4), BlockPool(64, 4), clock=VirtualClock())
# engine.generate([[1, 2, 3], [4, 5]], SamplingParams(max_tokens=4))
# for e in engine.events:
#     print(f"{e.time:.4f}", e.kind, e.request, e.data)
# ```
#
# `STEP` events belong to the whole engine: their `request` is None.

# %% [markdown] key="metrics-help-preempted" lang="en" role="help" exercise="request_metrics" title="My queue time is too long when a request was preempted"
# It is scheduled twice then. Only the first time ends its queue time. `dict.setdefault(key, value)` keeps the first value.

# %% [markdown] key="metrics-help-key" lang="en" role="help" exercise="request_metrics" title="KeyError, or a request is missing"
# A request may have been queued and nothing more. Make its entry when it is queued, and fill it in later.

# %% key="metrics-answer" role="answer" exercise="request_metrics"
def request_metrics(events):
    """Queue, ttft, itl, tpot and e2e (seconds) of every request in a log, by its id."""
    ### BEGIN SOLUTION
    arrivals, starts, times, counts, finished = {}, {}, {}, {}, set()
    for e in events:
        if e.kind == "QUEUED":
            arrivals[e.request], times[e.request], counts[e.request] = e.time, [], 0
        elif e.kind == "SCHEDULED":
            starts.setdefault(e.request, e.time)
        elif e.kind == "NEW_TOKENS":
            times[e.request].append(e.time)
            counts[e.request] += len(e.data["tokens"])
        elif e.kind == "FINISHED":
            finished.add(e.request)
    metrics = {}
    for request, arrival in arrivals.items():
        when, count = times[request], counts[request]
        metrics[request] = {
            "queue": starts[request] - arrival if request in starts else None,
            "ttft": when[0] - arrival if when else None,
            "itl": [later - earlier for earlier, later in pairwise(when)],
            "tpot": (when[-1] - when[0]) / (count - 1) if count > 1 else None,
            "e2e": when[-1] - arrival if request in finished else None}
    return metrics
    ### END SOLUTION


# %% key="metrics-check" role="check" exercise="request_metrics"
NAMES = ("queue", "ttft", "itl", "tpot", "e2e")
ONE = [queued(10.0, "A"), event(12.0, "SCHEDULED", "A", computed=0), token(12.5, "A"), token(12.75, "A"), token(13.0, "A"),
       token(14.0, "A"), token(14.5, "A"), event(14.5, "FINISHED", "A", reason="stop")]


def of(student, events, request):
    """The student's dictionary of one request, its form checked."""
    got = student.call("request_metrics", events)
    expect_true(type(got) is dict and request in got, f"the log holds a request {request!r}, the answer has no entry for it: "
                f"got {got!r:.200}")
    expect_equal(sorted(got[request]), sorted(NAMES), what=f"keys of the entry of {request!r}")
    return got[request]


def from_records(engine):
    """What the course's own records say, in the form of the answer."""
    return {r.id: {"queue": r.queue_time, "ttft": r.ttft, "itl": list(r.itl), "tpot": r.tpot,
                   "e2e": r.e2e if r.finish_reason in ("stop", "length") else None} for r in engine.records()}


@check("request_metrics")
def ttft_and_queue(student):
    """A request that waits 2 s and computes its prompt for 0.5 s has a TTFT of 2.5 s."""
    got = of(student, ONE, "A")
    expect_close(got["queue"], 2.0, what="queue")
    expect_close(got["ttft"], 2.5, what="ttft", hints={0.5: "this is TTFT without the time in the queue: the user began to wait at "
                 "arrival, not when somebody turned to the request", 2.0: "this is the time in the queue", 12.5: "a time of day is "
                 "no duration: subtract the arrival", 4.5: "this is the end-to-end time"})


@check("request_metrics")
def tpot_and_gaps(student):
    """Five tokens at 12.5, 12.75, 13, 14 and 14.5 s: four gaps, half a second on average."""
    got = of(student, ONE, "A")
    expect_close(got["itl"], [0.25, 0.25, 1.0, 0.5], what="itl", hints=[
        ([2.5, 0.25, 0.25, 1.0, 0.5], "the first token has no gap: from arrival to it is TTFT"),
        ([0.5, 0.25, 0.25, 1.0, 0.5], "the first token has no gap: from the start to it is prefill")])
    expect_close(got["tpot"], 0.5, what="tpot", hints={0.9: "TPOT must not count the first token: from arrival to it is TTFT, and "
                 "belongs to prefill and queue", 0.4: "five tokens have four gaps: divide by the tokens after the first",
                 1.125: "from the first token, not from arrival", 0.375: "this is the median of the gaps"})
    expect_close(got["e2e"], 4.5, what="e2e", hints={2.0: "end to end begins at arrival", 2.5: "end to end begins at arrival"})


@check("request_metrics")
def two_at_once(student):
    """Two requests take turns in the log, and one of them is preempted before its first token."""
    log = [queued(0.0, "A"), event(0.0, "SCHEDULED", "A", computed=0), queued(0.5, "B"), token(1.0, "A"),
           event(1.0, "SCHEDULED", "B", computed=0), token(2.0, "A"), event(2.0, "PREEMPTED", "B", computed=4, freed=1), token(3.0, "A"),
           event(3.0, "FINISHED", "A", reason="length"), event(3.0, "SCHEDULED", "B", computed=0), token(4.0, "B"), token(6.0, "B"),
           event(6.0, "FINISHED", "B", reason="stop")]
    expect_close(of(student, log, "A"), {"queue": 0.0, "ttft": 1.0, "itl": [1.0, 1.0], "tpot": 1.0, "e2e": 3.0}, what="A")
    got = of(student, log, "B")
    expect_close(got["queue"], 0.5, what="queue of B, scheduled at 1 s and again at 3 s", hints={
        2.5: "its queue time ended when it was scheduled first; what it waited after being preempted is another matter"})
    expect_close(got, {"queue": 0.5, "ttft": 3.5, "itl": [2.0], "tpot": 2.0, "e2e": 5.5}, what="B")


@check("request_metrics")
def what_has_not_come_about(student):
    """Three requests: one still waits, one got a single token, one was aborted on the way."""
    log = [queued(0.0, "waits"), queued(0.0, "short"), queued(0.0, "gone"), event(1.0, "SCHEDULED", "short", computed=0),
           event(1.0, "SCHEDULED", "gone", computed=0), token(2.0, "short"), event(2.0, "FINISHED", "short", reason="stop"),
           token(2.0, "gone"), token(2.5, "gone"), event(2.75, "ABORTED", "gone")]
    got = of(student, log, "waits")
    expect_equal(got, {"queue": None, "ttft": None, "itl": [], "tpot": None, "e2e": None}, what="a request that still waits", hints=[
        ({"queue": 0.0, "ttft": 0.0, "itl": [], "tpot": 0.0, "e2e": 0.0}, "0 would make the worst served request look like the best")])
    got = of(student, log, "short")
    expect_equal(got["tpot"], None, what="tpot of an answer of one token", hints={
        0.0: "no token came after the first, so there is no time per token; a 0 would make every mean look better"})
    expect_close(got, {"queue": 1.0, "ttft": 2.0, "itl": [], "tpot": None, "e2e": 2.0}, what="an answer of one token")
    got = of(student, log, "gone")
    expect_equal(got["e2e"], None, what="e2e of an aborted request", hints={
        2.5: "the answer was never completed", 2.75: "the answer was never completed"})
    expect_close(got, {"queue": 1.0, "ttft": 2.0, "itl": [0.5], "tpot": 0.5, "e2e": None}, what="an aborted request")


@check("request_metrics")
def log_of_the_real_engine(student):
    """course-tiny answers three prompts, and your numbers are those of the course's own records."""
    engine = Engine.from_model("course-tiny", device="cpu", num_blocks=64, max_running=2)
    engine.generate(["Count from 3 to 9.", "Count from 1 to 4.", "What is the largest of 9, 14, 54?"], SamplingParams(max_tokens=30))
    expect_close(student.call("request_metrics", list(engine.events)), from_records(engine), 1e-9, what="metrics of the real engine's log")


# %% key="metrics-hidden" role="hidden" exercise="request_metrics"
@check("request_metrics")
def preempted_again_and_again(student):
    """A pool far too small: every request's numbers are those of the course's records."""
    engine = Engine(MockExecutor(4), BlockPool(12, 4), clock=VirtualClock(), token_budget=32, checked=True)
    for number in range(6):
        engine.add(Request([1 + number] * 8, SamplingParams(max_tokens=20, ignore_eos=True), arrival=0.02 * number))
    for _ in engine.stream():
        pass
    assert engine.counters.preemptions > 2, "the pool was meant to be too small"
    expect_close(student.call("request_metrics", list(engine.events)), from_records(engine), 1e-9, what="metrics under preemption")


@check("request_metrics")
def several_tokens_at_once(student):
    """Five tokens in three events: TPOT counts tokens, ITL the gaps between events."""
    log = [queued(1.0, "A"), event(1.0, "SCHEDULED", "A", computed=0), token(2.0, "A"), token(3.0, "A", 3), token(4.0, "A"),
           event(4.0, "FINISHED", "A", reason="stop")]
    got = of(student, log, "A")
    expect_close(got["tpot"], 0.5, what="tpot of 1 + 3 + 1 tokens", hints={1.0: "count tokens, not events: one event may carry several"})
    expect_close(got["itl"], [1.0, 1.0], what="itl of three events")


@check("request_metrics")
def an_empty_log(student):
    """No request, no entry."""
    expect_equal(student.call("request_metrics", []), {}, what="metrics of an empty log")


# %% key="metrics-m1" role="mutant" exercise="request_metrics" name="TTFT without the time in the queue"
_request_metrics = request_metrics


def request_metrics(events):
    metrics = _request_metrics(events)
    for one in metrics.values():
        if one["ttft"] is not None:
            one["ttft"] -= one["queue"]
    return metrics


# %% key="metrics-m2" role="mutant" exercise="request_metrics" name="TPOT that counts the first token"
_request_metrics = request_metrics


def request_metrics(events):
    metrics = _request_metrics(events)
    for one in metrics.values():
        if one["tpot"] is not None:
            one["tpot"] = (one["ttft"] + sum(one["itl"])) / (len(one["itl"]) + 1)
    return metrics


# %% key="metrics-m3" role="mutant" exercise="request_metrics" name="TPOT divided by the tokens, not by the gaps"
_request_metrics = request_metrics


def request_metrics(events):
    metrics = _request_metrics(events)
    for one in metrics.values():
        if one["tpot"] is not None:
            one["tpot"] *= len(one["itl"]) / (len(one["itl"]) + 1)
    return metrics


# %% key="metrics-m4" role="mutant" exercise="request_metrics" name="queue time up to the last time it was scheduled"
_request_metrics = request_metrics


def request_metrics(events):
    events = list(events)
    metrics = _request_metrics(events)
    arrivals = {e.request: e.time for e in events if e.kind == "QUEUED"}
    for e in events:
        if e.kind == "SCHEDULED":
            metrics[e.request]["queue"] = e.time - arrivals[e.request]
    return metrics


# %% key="metrics-m5" role="mutant" exercise="request_metrics" name="an answer of one token has a TPOT of 0"
_request_metrics = request_metrics


def request_metrics(events):
    metrics = _request_metrics(events)
    for one in metrics.values():
        if one["ttft"] is not None and one["tpot"] is None:
            one["tpot"] = 0.0
    return metrics


# %% key="metrics-m6" role="mutant" exercise="request_metrics" name="an aborted request counts as complete"
_request_metrics = request_metrics


def request_metrics(events):
    metrics = _request_metrics(events)
    for one in metrics.values():
        if one["e2e"] is None and one["ttft"] is not None:
            one["e2e"] = one["ttft"] + sum(one["itl"])
    return metrics


# %% key="metrics-m7" role="mutant" exercise="request_metrics" name="leaves out whoever never got a token"
_request_metrics = request_metrics


def request_metrics(events):
    return {request: one for request, one in _request_metrics(events).items() if one["ttft"] is not None}


# %% key="metrics-m8" role="mutant" exercise="request_metrics" name="counts events, not tokens"
_request_metrics = request_metrics


def request_metrics(events):
    metrics = _request_metrics(events)
    for one in metrics.values():
        if one["itl"]:
            one["tpot"] = sum(one["itl"]) / len(one["itl"])
    return metrics


# %% key="metrics-m9" role="mutant" exercise="request_metrics" name="gaps between tokens of different requests"
_request_metrics = request_metrics


def request_metrics(events):
    metrics, last = _request_metrics(events), None
    for one in metrics.values():
        one["itl"] = []
    for e in events:
        if e.kind == "NEW_TOKENS":
            if last is not None:
                metrics[e.request]["itl"].append(e.time - last)
            last = e.time
    return metrics


# %% [markdown] key="percentile" lang="en" role="exercise" exercise="percentiles" points=4 difficulty=2 minutes=20 needs="week 3, part 3"
# ## Exercise 2 · What was promised, and was it kept?
#
# Four functions.
#
# 1. `percentile(values, q)`: the smallest of the values such that at least `q` percent of all values are no larger than
#    it (`0 < q <= 100`; the "nearest rank"). So the P50 of `[30, 10, 20, 40]` is 20, and the P90 of ten values the ninth
#    smallest. It is always a value that somebody really lived through.
# 2. `percentile_of_all(groups, q)`: each group holds the values of one instance, a list of any length, perhaps empty.
#    The percentile of the whole service.
# 3. `attainment(requests, ttft, tpot)`: the share of the requests that kept **both** limits (a limit just met is kept).
#    Each request is a dictionary with `"ttft"` and `"tpot"`. A TTFT of None says that it never got a token: nobody calls
#    that kept. A TPOT of None, with a TTFT, says that its answer had one token: only the TTFT is asked.
# 4. `goodput(requests, seconds, ttft, tpot)`: requests per second that kept both limits, in a run of `seconds`.
#
# Before you run the check, guess: an instance with 9 quick requests and one with 1 slow one. What is the mean of their
# two medians, and what is the median of all?

# %% [markdown] key="percentile-help-rank" lang="en" role="help" exercise="percentiles" title="I am off by one"
# Sort. Of `n` values, at least `q` percent is at least `q * n / 100` values; that many, rounded **up**, is the rank,
# counted from 1. `math.ceil` rounds up, and a list counts from 0.

# %% [markdown] key="percentile-help-numpy" lang="en" role="help" exercise="percentiles" title="numpy.percentile gives another number"
# It interpolates between two neighbours unless told otherwise. For a P99 of 50 values it invents a number between the
# largest and the second. `method="inverted_cdf"` is the nearest rank. The course's own `metrics.percentile` interpolates as
# well; with thousands of values nobody sees a difference, with fifty one does.

# %% key="percentile-answer" role="answer" exercise="percentiles"
def percentile(values, q):
    """Smallest of the values that at least q percent of them do not exceed."""
    ### BEGIN SOLUTION
    return sorted(values)[math.ceil(q * len(values) / 100) - 1]
    ### END SOLUTION


def percentile_of_all(groups, q):
    """The q-th percentile of all values of all groups."""
    ### BEGIN SOLUTION
    return percentile([value for group in groups for value in group], q)
    ### END SOLUTION


def attainment(requests, ttft, tpot):
    """Share of the requests (at least one) that kept both limits (seconds)."""
    ### BEGIN SOLUTION
    kept = [one for one in requests if one["ttft"] is not None and one["ttft"] <= ttft
            and (one["tpot"] is None or one["tpot"] <= tpot)]
    return len(kept) / len(requests)
    ### END SOLUTION


def goodput(requests, seconds, ttft, tpot):
    """Requests per second that kept both limits."""
    ### BEGIN SOLUTION
    return attainment(requests, ttft, tpot) * len(requests) / seconds if requests else 0.0
    ### END SOLUTION


# %% key="percentile-check" role="check" exercise="percentiles"
def kept(*pairs):
    """Requests made of (ttft, tpot)."""
    return [{"ttft": ttft, "tpot": tpot} for ttft, tpot in pairs]


FAST, SLOW_START, SLOW_FLOW = (0.2, 0.03), (3.0, 0.03), (0.2, 0.09)


@check("percentiles")
def nearest_rank(student):
    """P50 of four values, P90 of ten, P99 of fifty, P100."""
    expect_equal(student.call("percentile", [30, 10, 20, 40], 50), 20, what="P50 of 30, 10, 20, 40", hints={
        10: "are the values sorted?", 25: "interpolated: 25 is a number nobody lived through", 30: "2 of 4 values (10 and 20) are "
        "already 50 percent: the second smallest, not the third"})
    ten = [0.1 * k for k in range(10, 0, -1)]
    expect_close(student.call("percentile", ten, 90), 0.9, what="P90 of 0.1, 0.2 … 1.0", hints={
        1.0: "90 percent of ten values are nine: the ninth, not the tenth", 0.91: "interpolated: 0.91 is a number nobody lived through",
        0.8: "the ninth smallest stands at index 8", 0.2: "are the values sorted?"})
    expect_equal(student.call("percentile", list(range(50)), 99), 49, what="P99 of fifty values, 0 to 49", hints={
        48: "99 percent of 50 are 49.5 values: at least so many means 50, round up", 48.51: "interpolated: a number nobody lived through"})
    expect_equal(student.call("percentile", [3, 9, 4], 100), 9, what="P100 of 3, 9, 4")


@check("percentiles")
def two_instances(student):
    """Nine quick requests on one instance, one slow request on the other."""
    groups = [[0.1] * 9, [5.0]]
    expect_close(student.call("percentile_of_all", groups, 50), 0.1, what="P50 of all ten", hints={
        2.55: "the mean of two medians: percentiles cannot be averaged. One request of ten weighs as much here as nine",
        5.0: "the worst instance's P50 is not the P50 of all", 0.59: "weighted or not, percentiles cannot be averaged"})
    skewed = [[0.1] * 980, [4.0] * 20]
    expect_close(student.call("percentile_of_all", skewed, 99), 4.0, what="P99 of 980 quick and 20 slow requests", hints={
        2.05: "the mean of two P99s: percentiles cannot be averaged", 0.178: "weighted or not, percentiles cannot be averaged"})


@check("percentiles")
def both_limits(student):
    """Of four requests one is late with its first token, one is slow to flow, and one is both."""
    requests = kept(FAST, SLOW_START, SLOW_FLOW, (3.0, 0.09))
    expect_close(student.call("attainment", requests, 1.0, 0.05), 0.25, what="attainment", hints={
        0.5: "each limit alone is kept by half of them; a request must keep both", 0.75: "keeping one of two limits is not enough",
        1.0: "limits are for each request, not for the mean of all"})
    requests = kept(FAST, FAST, SLOW_START, SLOW_FLOW)
    expect_close(student.call("attainment", requests, 1.0, 0.05), 0.5, what="attainment", hints={
        0.5625: "the product of two shares: the two limits are not independent. Ask each request for both",
        0.75: "a request must keep both limits"})
    expect_close(student.call("attainment", kept((1.0, 0.05), (1.0, 0.06)), 1.0, 0.05), 0.5, what="attainment of limits just met",
                 hints={0.0: "a limit just met is kept"})


@check("percentiles")
def those_without_tokens(student):
    """One answer of a single token, and two requests that never got a token."""
    expect_close(student.call("attainment", kept(FAST, (0.3, None)), 1.0, 0.05), 1.0, what="attainment with an answer of one token",
                 hints={0.5: "one token has no TPOT: only its TTFT is asked"})
    requests = kept(FAST, (0.3, None), (None, None), (None, None))
    expect_close(student.call("attainment", requests, 1.0, 0.05), 0.5, what="attainment with two who never got a token", hints={
        1.0: "whoever never got a token is left out, or taken for quick: so a service that drops everybody looks perfect",
        0.25: "one token has no TPOT: only its TTFT is asked"})
    expect_close(student.call("goodput", requests, 4.0, 1.0, 0.05), 0.5, what="goodput of 4 s", hints={
        1.0: "this is throughput: count only requests that kept both limits", 0.125: "requests per second: how many kept the limits, "
        "divided by the seconds"})


# %% key="percentile-hidden" role="hidden" exercise="percentiles"
@check("percentiles")
def any_order_and_size(student):
    """Many values in disorder; one value; a list that must stay as it was."""
    values = [(37 * k) % 1009 for k in range(1009)]
    for q, want in ((50, 504), (75, 756), (99, 998), (0.05, 0)):
        expect_equal(student.call("percentile", values, q), want, what=f"P{q} of 0 to 1008 in disorder")
    expect_equal([student.call("percentile", [7.5], q) for q in (1, 50, 100)], [7.5] * 3, what="percentiles of one value")


@check("percentiles")
def groups_of_any_size(student):
    """Empty instances and three unequal ones."""
    groups = [[], [5, 1, 9], [2], [7, 7, 7, 8]]
    got = [student.call("percentile_of_all", groups, q) for q in (25, 50, 90)]
    expect_equal(got, [2, 7, 9], what="P25, P50 and P90 of four instances, one of them without requests")


@check("percentiles")
def goodput_is_a_rate(student):
    """Thirty requests in 20 s, a third of them good; a run in which all fail."""
    requests = kept(*[FAST, SLOW_FLOW, (None, None)] * 10)
    expect_close(student.call("goodput", requests, 20.0, 1.0, 0.05), 0.5, what="goodput")
    expect_close(student.call("goodput", kept(*[SLOW_START] * 5), 2.0, 1.0, 0.05), 0.0, what="goodput when nobody is served well")
    expect_close(student.call("attainment", requests, 0.1, 1.0), 0.0, what="attainment of a TTFT nobody keeps")


# %% key="percentile-m1" role="mutant" exercise="percentiles" name="mean of percentiles"
def percentile_of_all(groups, q):
    each = [percentile(group, q) for group in groups if group]
    return sum(each) / len(each)


# %% key="percentile-m2" role="mutant" exercise="percentiles" name="mean of percentiles, weighted by requests"
def percentile_of_all(groups, q):
    return sum(percentile(group, q) * len(group) for group in groups if group) / sum(len(group) for group in groups)


# %% key="percentile-m3" role="mutant" exercise="percentiles" name="the worst instance's percentile"
def percentile_of_all(groups, q):
    return max(percentile(group, q) for group in groups if group)


# %% key="percentile-m4" role="mutant" exercise="percentiles" name="rank rounded down"
def percentile(values, q):
    return sorted(values)[max(0, math.floor(q * len(values) / 100) - 1)]


# %% key="percentile-m5" role="mutant" exercise="percentiles" name="forgets to sort"
def percentile(values, q):
    return values[math.ceil(q * len(values) / 100) - 1]


# %% key="percentile-m6" role="mutant" exercise="percentiles" name="interpolates to a number nobody lived through"
def percentile(values, q):
    values, place = sorted(values), q / 100 * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


# %% key="percentile-m7" role="mutant" exercise="percentiles" name="multiplies the two attainments"
def attainment(requests, ttft, tpot):
    started = [one for one in requests if one["ttft"] is not None and one["ttft"] <= ttft]
    flowing = [one for one in requests if one["ttft"] is not None and (one["tpot"] is None or one["tpot"] <= tpot)]
    return len(started) * len(flowing) / len(requests)**2


# %% key="percentile-m8" role="mutant" exercise="percentiles" name="leaves out whoever never got a token"
_attainment = attainment


def attainment(requests, ttft, tpot):
    served = [one for one in requests if one["ttft"] is not None]
    return _attainment(served, ttft, tpot) if served else 0.0


# %% key="percentile-m9" role="mutant" exercise="percentiles" name="an answer of one token breaks the TPOT limit"
_attainment = attainment


def attainment(requests, ttft, tpot):
    return _attainment([one if one["tpot"] is not None else one | {"ttft": None} for one in requests], ttft, tpot)


# %% key="percentile-m10" role="mutant" exercise="percentiles" name="throughput for goodput"
def goodput(requests, seconds, ttft, tpot):
    return len(requests) / seconds


# %% key="percentile-m11" role="mutant" exercise="percentiles" name="limits kept by the mean"
def attainment(requests, ttft, tpot):
    served = [one for one in requests if one["ttft"] is not None]
    flows = [one["tpot"] for one in served if one["tpot"] is not None]
    good = served and sum(one["ttft"] for one in served) / len(served) <= ttft and sum(flows) <= tpot * len(flows)
    return 1.0 if good else 0.0


# %% [markdown] key="load" lang="en" role="exercise" exercise="load_generators" points=3 difficulty=3 minutes=20 needs="week 3, part 2"
# ## Exercise 3 · Two ways to load a server
#
# A load generator sends requests and measures what comes of them. Here the server is an object with one method:
# `server.send(time)` sends a request at that time and returns the time at which its answer is complete. Requests
# must be sent in order of time. Nothing sleeps: times are numbers.
#
# 1. **Open loop**: `open_loop(server, due)`. The times of `due` are given, sorted: requests come from many users who know
#    nothing of each other, and **nobody waits for anybody's answer**. Each request is sent when it is due. Return the list of
#    latencies, in order: from when the request was **due** to its answer.
# 2. **Closed loop**: `closed_loop(server, users, count, think)`. There are so many `users`. Each sends a request, waits for
#    its answer, thinks for `think` seconds, sends the next. All send their first request at time 0. Whoever is ready first
#    sends next, of equals the user with the smaller number. Stop after `count` requests in all; return their latencies, in
#    the order of sending.
#
# Before you run the check, guess: a server needs one second for a request, and requests are due every half second. What
# does the tenth user wait in an open loop? And what would a closed loop of one user measure?

# %% [markdown] key="load-help-real" lang="en" role="help" exercise="load_generators" title="How can I send a request before the last one was answered?"
# `send` only tells you *when* the answer will come. You need not wait for it: send the next one when it is due, even if that
# is earlier than the answer.

# %% [markdown] key="load-help-order" lang="en" role="help" exercise="load_generators" title="The server says that times went back"
# With several users, the next to send is not the next in number but the one who is ready first. Keep for each user the
# time at which it sends next, and take the smallest: `min(range(users), key=lambda user: ready[user])`.

# %% key="load-answer" role="answer" exercise="load_generators"
def open_loop(server, due):
    """Latencies (s) of requests sent when they are due, whatever has become of the others."""
    ### BEGIN SOLUTION
    return [server.send(time) - time for time in due]
    ### END SOLUTION


def closed_loop(server, users, count, think):
    """Latencies (s) of `count` requests by users who wait for their answers and think for `think` seconds."""
    ### BEGIN SOLUTION
    ready, latencies = [0.0] * users, []
    for _ in range(count):
        user = min(range(users), key=lambda each: ready[each])
        answered = server.send(ready[user])
        latencies.append(answered - ready[user])
        ready[user] = answered + think
    return latencies
    ### END SOLUTION


# %% key="load-check" role="check" exercise="load_generators"
class OneByOne:
    """A server that answers one request after another, each in `service` seconds, and stands still during `stall`."""

    def __init__(self, service=1.0, stall=(0.0, 0.0)):
        self.service, self.stall, self.free, self.sent = service, stall, 0.0, []

    def send(self, time):
        """The time at which a request sent at `time` is answered."""
        if self.sent and time < self.sent[-1] - 1e-9:
            raise ValueError(f"sent at {time:g} s after one that was sent at {self.sent[-1]:g} s: times went back")
        self.sent.append(time)
        start = max(time, self.free)
        self.free = start + self.service
        if start < self.stall[1] and self.free > self.stall[0]:
            self.free = self.stall[1] + self.service
        return self.free


class Endless:
    """A server that answers everybody at once after `service` seconds."""

    def __init__(self, service):
        self.service, self.sent = service, []

    def send(self, time):
        """The time at which a request sent at `time` is answered."""
        self.sent.append(time)
        return time + self.service


@check("load_generators")
def open_loop_sees_the_queue(student):
    """One second of work every half second: each waits half a second longer than the one before."""
    server, due = OneByOne(), [0.5 * k for k in range(10)]
    got = student.call("open_loop", Served(server), due)
    expect_close(got, [1.0 + 0.5 * k for k in range(10)], what="latencies", hints=[
        ([1.0] * 10, "this is a closed loop in disguise: it waits for each answer before it sends the next, so the queue that "
         "real users would stand in never forms")])
    expect_close(server.sent, due, what="times at which the server was asked", hints=[
        ([float(k) for k in range(10)], "each request was sent only after the answer to the one before")])


@check("load_generators")
def open_loop_sees_a_stall(student):
    """A request every second, the server stands still from 3 to 8 s: half of the users notice."""
    server = OneByOne(0.25, (3.0, 8.0))
    got = student.call("open_loop", Served(server), [float(k) for k in range(10)])
    want = [0.25, 0.25, 0.25, 5.25, 4.5, 3.75, 3.0, 2.25, 1.5, 0.75]
    expect_close(got, want, what="latencies", hints=[
        ([0.25] * 3 + [5.25] + [0.25] * 6, "only one request noticed the stall (coordinated omission): measure from when a request "
         "was due, not from when you got round to sending it")])


@check("load_generators")
def closed_loop_of_three(student):
    """Three users at a server of one second a request: each waits for the other two."""
    server = OneByOne()
    got = student.call("closed_loop", Served(server), 3, 7, 0.0)
    expect_close(got, [1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0], what="latencies without thinking", hints=[
        ([1.0] * 7, "one request after another: three users have three requests under way")])
    server = Endless(2.0)
    got = student.call("closed_loop", Served(server), 2, 6, 0.5)
    expect_close(got, [2.0] * 6, what="latencies with 0.5 s of thinking", hints=[([2.5] * 6, "thinking is not waiting")])
    expect_close(server.sent, [0.0, 0.0, 2.5, 2.5, 5.0, 5.0], what="times of sending with 0.5 s of thinking", hints=[
        ([0.0, 0.0, 2.0, 2.0, 4.0, 4.0], "after an answer a user thinks, then sends"),
        ([0.0, 0.0, 0.5, 0.5, 1.0, 1.0], "a user waits for the answer before it thinks"),
        ([0.0, 2.5, 5.0, 7.5, 10.0, 12.5], "all users send their first request at time 0")])


# %% key="load-hidden" role="hidden" exercise="load_generators"
class Alternating:
    """A server without a queue that needs `long` seconds for every other request and `short` for the rest."""

    def __init__(self, long, short):
        self.times, self.sent = (long, short), []

    def send(self, time):
        """The time at which a request sent at `time` is answered."""
        self.sent.append(time)
        return time + self.times[len(self.sent) % 2 == 0]


@check("load_generators")
def whoever_is_ready_first(student):
    """One user waits long for an answer; the other goes on meanwhile."""
    server = Alternating(10.0, 1.0)
    student.call("closed_loop", Served(server), 2, 5, 1.0)
    expect_close(server.sent, [0.0, 0.0, 2.0, 11.0, 13.0], what="times of sending", hints=[
        ([0.0, 0.0, 11.0, 2.0, 22.0], "users do not take turns: whoever is ready first sends next")])
    expect_close(sorted(server.sent), server.sent, what="times of sending, in order")


@check("load_generators")
def open_loop_in_bursts(student):
    """Requests due at the same time, and a pause after them."""
    server = OneByOne(0.5)
    got = student.call("open_loop", Served(server), [1.0, 1.0, 1.0, 10.0])
    expect_close(got, [0.5, 1.0, 1.5, 0.5], what="latencies of a burst and a latecomer")
    expect_equal(student.call("open_loop", Served(OneByOne()), []), [], what="latencies of no requests")


@check("load_generators")
def never_more_than_its_users(student):
    """However slow the server, a closed loop of four has at most four requests under way."""
    server = OneByOne(3.0)
    got = student.call("closed_loop", Served(server), 4, 40, 1.0)
    expect_equal(len(got), 40, what="requests sent")
    ends = [sent + latency for sent, latency in zip(server.sent, got, strict=True)]
    most = max(sum(s <= time < e for s, e in zip(server.sent, ends, strict=True)) for time in server.sent)
    expect_equal(most, 4, what="most requests under way at once")
    expect_close(got[-1], 11.0, what="latency of the last request, three others before it and one second of thinking")


# %% key="load-m1" role="mutant" exercise="load_generators" name="closed-loop load that hides queueing"
def open_loop(server, due):
    now, latencies = 0.0, []
    for time in due:
        now = max(now, time)
        answered = server.send(now)
        latencies.append(answered - now)
        now = answered
    return latencies


# %% key="load-m2" role="mutant" exercise="load_generators" name="waits for each answer, then reckons from when it was due"
def open_loop(server, due):
    now, latencies = 0.0, []
    for time in due:
        now = server.send(max(now, time))
        latencies.append(now - time)
    return latencies


# %% key="load-m3" role="mutant" exercise="load_generators" name="users take turns, ready or not"
def closed_loop(server, users, count, think):
    ready, latencies = [0.0] * users, []
    for number in range(count):
        user = number % users
        answered = server.send(ready[user])
        latencies.append(answered - ready[user])
        ready[user] = answered + think
    return latencies


# %% key="load-m4" role="mutant" exercise="load_generators" name="thinking counts as waiting"
_closed_loop = closed_loop


def closed_loop(server, users, count, think):
    return [latency + think for latency in _closed_loop(server, users, count, think)]


# %% key="load-m5" role="mutant" exercise="load_generators" name="all users together send one request at a time"
_closed_loop = closed_loop


def closed_loop(server, users, count, think):
    return _closed_loop(server, 1, count, think)


# %% key="load-m6" role="mutant" exercise="load_generators" name="thinks while it waits"
def closed_loop(server, users, count, think):
    ready, latencies = [0.0] * users, []
    for _ in range(count):
        user = min(range(users), key=lambda each: ready[each])
        sent = ready[user]
        answered = server.send(sent)
        latencies.append(answered - sent)
        ready[user] = max(answered, sent + think)
    return latencies


# %% [markdown] key="policies" lang="en" role="exercise" exercise="policies" points=5 difficulty=4 minutes=35 needs="week 3, part 5"
# ## Exercise 4 · Who goes next?
#
# The scheduler asks a **policy** one thing: `key(request, now)`, and the smallest key goes first (of equals, who came
# first). Two switches say how it is asked:
#
# - `static`: True when a request's key never changes, so that asking once is enough. False: ask at every decision.
# - `preemptive`: True when a waiting request may push out a running one whose key is larger. The loser's cache is thrown
#   away; when its turn comes again, its prompt **and** all it has written are computed again.
#
# And it is told what happens: `on_queued(request, now)` when a request arrives; `on_tokens(request, count, delivered, now)` after
# each step: `count` of its tokens were computed, and `delivered` tokens of its answer (0 or 1) handed out.
#
# Of a request you may read `id`, `arrival`, `prompt` (a list), `output` (the list of tokens handed out so far), `predicted` (how long
# somebody guesses the answer will be, or None), and `sampling.max_tokens`. Remember things by `request.id`: the object
# you are handed may be another one each time. `FCFS` below is complete and shows the form. Write
#
# 1. `SJF`, shortest job first: by the **length of the answer** that is predicted, or `sampling.max_tokens` where nobody
#    predicts. It never interrupts anybody.
# 2. `SRTF`, shortest remaining time first: by what is still to be written of that length (0 when it has become longer than
#    predicted). It interrupts.
# 3. `RoundRobin(quantum)`: requests stand in a line, newcomers at its end. Whoever has received `quantum` tokens of its answer since its
#    turn began goes to the end of the line, and its turn is over: the next one may push it out.
#
# Before you run the checks, guess: two prompts of 3 tokens, two answers of 10, one place in the batch. First come, first served
# computes 24 tokens. How many does round robin with a quantum of 1?

# %% [markdown] key="policies-help-line" lang="en" role="help" exercise="policies" title="How can a key be a place in a line?"
# Count upwards: whoever goes to the end of the line gets the next number, a newcomer in `on_queued`, and one whose turn is over in
# `on_tokens`. The number is the key.

# %% [markdown] key="policies-help-nobody" lang="en" role="help" exercise="policies" title="Nobody is ever interrupted, though my keys are right"
# Two switches are needed: `preemptive = True`, and `static = False`, or your key is asked only once, when the request arrives.
# Set them in `__init__`: `self.preemptive = True`.

# %% [markdown] key="policies-help-prompt" lang="en" role="help" exercise="policies" title="Round robin: turns are over too early"
# `count` holds the tokens of the prompt too, and all that is computed again after an interruption. A turn is measured in
# `delivered`.

# %% [markdown] key="policies-help-race" lang="en" role="help" exercise="policies" title="How do I watch my policy at work?"
# In a new cell, with three requests that come together and one place in the batch:
#
# ```python
# engine = Engine(MockExecutor(4), BlockPool(64, 4), policy=RoundRobin(2), max_running=1, clock=VirtualClock())
# for name in "ABC":
#     engine.add(Request([1, 2, 3], SamplingParams(max_tokens=5, ignore_eos=True), id=name, arrival=0.0, predicted=5))
# print("".join(e.request for e in engine.stream() if e.kind == "NEW_TOKENS"), engine.counters)
# ```

# %% key="policies-answer" role="answer" exercise="policies"
class FCFS(Policy):
    """First come, first served. Complete: an example."""

    def __init__(self):
        """Keys never change, and nobody is interrupted."""
        self.static, self.preemptive = True, False

    def key(self, request, now):
        """Who came first goes first."""
        return request.arrival


class SJF(Policy):
    """Shortest job first."""

    def __init__(self):
        """Set the two switches."""
        ### BEGIN SOLUTION
        self.static, self.preemptive = True, False
        ### END SOLUTION

    def key(self, request, now):
        """Tokens its answer will have, as far as anybody knows."""
        ### BEGIN SOLUTION
        return request.sampling.max_tokens if request.predicted is None else request.predicted
        ### END SOLUTION


class SRTF(Policy):
    """Shortest remaining time first."""

    def __init__(self):
        """Set the two switches."""
        ### BEGIN SOLUTION
        self.static, self.preemptive = False, True
        ### END SOLUTION

    def key(self, request, now):
        """Tokens its answer still lacks, as far as anybody knows."""
        ### BEGIN SOLUTION
        length = request.sampling.max_tokens if request.predicted is None else request.predicted
        return max(0, length - len(request.output))
        ### END SOLUTION


class RoundRobin(Policy):
    """Everybody in turn, `quantum` tokens of an answer each."""

    def __init__(self, quantum):
        """Set the two switches, and an empty line."""
        ### BEGIN SOLUTION
        self.static, self.preemptive = False, True
        self.quantum, self.places, self.received, self.next_place = quantum, {}, {}, 0
        ### END SOLUTION

    def key(self, request, now):
        """Its place in the line."""
        ### BEGIN SOLUTION
        return self.places[request.id]
        ### END SOLUTION

    def on_queued(self, request, now):
        """A newcomer joins the line."""
        ### BEGIN SOLUTION
        self.next_place += 1
        self.places[request.id], self.received[request.id] = self.next_place, 0
        ### END SOLUTION

    def on_tokens(self, request, count, delivered, now):
        """Whoever has received its quantum goes to the end of the line."""
        ### BEGIN SOLUTION
        self.received[request.id] += delivered
        if self.received[request.id] >= self.quantum:
            self.next_place += 1
            self.places[request.id], self.received[request.id] = self.next_place, 0
        ### END SOLUTION


# %% key="policies-check" role="check" exercise="policies"
class Through(Policy):
    """Lets the course's scheduler ask the student's policy."""

    def __init__(self, handle):
        self.handle, self.static, self.preemptive = handle, handle.get("static"), handle.get("preemptive")

    def key(self, request, now):
        key = self.handle.call("key", Served(request), now)
        expect_true(type(key) in (int, float, tuple), f"the key of a request is {key!r}; keys are numbers (or tuples of numbers)")
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


def job(arrival, prompt, output, predicted="right"):
    """When it comes, tokens of its prompt and of its answer, and what is predicted of the latter ("right", a number, None)."""
    return arrival, prompt, output, output if predicted == "right" else predicted


def serve(handle, seats=1, **jobs):
    """Serve jobs by name under the student's policy, one step a second; the engine afterwards."""
    engine = Engine(MockExecutor(4, step_seconds=1.0, token_seconds=0.0), BlockPool(128, 4), policy=Through(handle),
                    max_running=seats, clock=VirtualClock(), checked=True)
    for name, (arrival, prompt, output, predicted) in jobs.items():
        while engine.clock.now < arrival:
            engine.step()
        sampling = SamplingParams(max_tokens=output, ignore_eos=True)
        engine.add(Request([1 + ord(name) % 60] * prompt, sampling, id=name, arrival=float(arrival), predicted=predicted))
    for _ in engine.stream():
        pass
    return engine


def deliveries(engine):
    """Whose token was handed out, one letter each, in order."""
    return "".join(e.request for e in engine.events if e.kind is EventKind.NEW_TOKENS)


def finished(engine):
    """Letters of the requests in the order in which they finished."""
    return "".join(e.request for e in engine.events if e.kind is EventKind.FINISHED)


@check("policies")
def shortest_answer_first(student):
    """Three requests at once: answers of 4, 30 and 12 tokens, behind prompts of 40, 4 and 10."""
    engine = serve(student.new("SJF"), A=job(0, 40, 4), B=job(0, 4, 30), C=job(0, 10, 12))
    expect_equal(finished(engine), "ACB", what="order of finishing under SJF", hints={
        "BCA": "by the length of the prompt, or the longest first: the work of a request is in its answer, one step a token",
        "CBA": "by prompt and answer together: a prompt is one step, an answer one step for each token",
        "ABC": "in order of arrival: is the key the predicted length?"})
    engine = serve(student.new("SJF"), A=job(0, 4, 20, None), B=job(0, 4, 9, 3), C=job(0, 4, 6, None))
    expect_equal(finished(engine), "BCA", what="order of finishing under SJF when only B's length is predicted", hints={
        "ACB": "nobody predicts A and C: take their sampling.max_tokens (20 and 6)",
        "CBA": "you cannot know the true length: B was predicted to be 3 tokens"})


@check("policies")
def sjf_never_interrupts(student):
    """An answer of 30 tokens has been running for 10 s when one of 5 arrives."""
    engine = serve(student.new("SJF"), L=job(0, 8, 30), S=job(10, 8, 5))
    expect_equal(deliveries(engine), "L" * 30 + "S" * 5, what="whose tokens were handed out under SJF", hints={
        "L" * 10 + "S" * 5 + "L" * 20: "the short one pushed the long one out: SJF does not interrupt, SRTF does"})
    expect_equal(engine.counters.preemptions, 0, what="preemptions under SJF")


@check("policies")
def srtf_interrupts(student):
    """The same two requests: the short one pushes the long one out, and 17 tokens are computed twice."""
    engine = serve(student.new("SRTF"), L=job(0, 8, 30), S=job(10, 8, 5))
    expect_equal(deliveries(engine), "L" * 10 + "S" * 5 + "L" * 20, what="whose tokens were handed out under SRTF", hints={
        "L" * 30 + "S" * 5: "nobody was interrupted: it takes preemptive = True and static = False"})
    expect_equal(engine.counters.recomputed_tokens, 17, what="tokens computed a second time: 8 of the prompt and 9 of the answer")
    engine = serve(student.new("SRTF"), L=job(0, 8, 12), S=job(10, 8, 5))
    expect_equal(deliveries(engine), "L" * 12 + "S" * 5, what="whose tokens were handed out when L lacks 2 tokens and S 5", hints={
        "L" * 10 + "S" * 5 + "L" * 2: "L has 12 tokens in all but lacks only 2, fewer than S: it is what remains that counts"})


@check("policies")
def everybody_in_turn(student):
    """Round robin with a quantum of 2: three answers of 5 tokens, one place in the batch."""
    engine = serve(student.new("RoundRobin", 2), A=job(0, 3, 5), B=job(0, 3, 5), C=job(0, 3, 5))
    expect_equal(deliveries(engine), "AABBCCAABBCCABC", what="whose tokens were handed out", hints={
        "AAAAABBBBBCCCCC": "no turn ever ends: does the key change, and are the two switches set?",
        "ABCABCABCABCABC": "every turn is over after one token: is the quantum counted in tokens of the answer, anew in each turn?",
        "AABBCCABCABCABC": "after its first turn each request gets one token a turn: a new turn begins with nothing received"})
    expect_equal((engine.counters.preemptions, engine.counters.recomputed_tokens), (6, 30), what="interruptions, tokens computed again")
    engine = serve(student.new("RoundRobin", 1), A=job(0, 3, 10), B=job(0, 3, 10))
    expect_equal(engine.counters.computed_tokens, 150, what="tokens computed for two answers of 10 with a quantum of 1")


@check("policies")
def on_the_real_engine(student):
    """course-tiny under each of your policies: the same three answers, in another order, at another price."""
    prompts = {"A": ("Count from 1 to 20.", 60), "B": ("What is the largest of 9, 14, 54?", 4), "C": ("Count from 3 to 9.", 20)}
    plain = Engine.from_model("course-tiny", device="cpu", num_blocks=64)
    want = {name: list(plain.generate([text], SamplingParams(max_tokens=80))[0].tokens) for name, (text, _) in prompts.items()}
    for name, options, order in (("SJF", (), "BCA"), ("SRTF", (), "BCA"), ("RoundRobin", (6,), "BCA")):
        engine = Engine.from_model("course-tiny", device="cpu", num_blocks=64, max_running=1, checked=True,
                                   policy=Through(student.new(name, *options)))
        for request, (text, guess) in prompts.items():
            tokens = engine.tokenizer.encode_prompt(text)
            engine.add(Request(tokens, SamplingParams(max_tokens=80), id=request, arrival=0.0, predicted=guess))
        for _ in engine.stream():
            pass
        got = {request: engine.requests[request].output for request in prompts}
        expect_equal(got, want, what=f"answers of course-tiny under {name}: a policy must not change a single token")
        expect_equal(finished(engine), order, what=f"order of finishing under {name}")
        expect_equal(engine.counters.preemptions > 0, name == "RoundRobin", what=f"somebody was interrupted under {name}")


# %% key="policies-hidden" role="hidden" exercise="policies"
@check("policies")
def newcomers_join_at_the_end(student):
    """C arrives while B has its turn and A waits for its second: A comes before C."""
    engine = serve(student.new("RoundRobin", 2), A=job(0, 3, 7), B=job(0, 3, 5), C=job(3, 3, 5))
    expect_equal(deliveries(engine), "AABBAACCBBAACCBAC", what="whose tokens were handed out, C coming after 3 s", hints={
        "AABBCCAABBCCAABCA": "the newcomer pushed itself in: it joins at the end of the line"})


@check("policies")
def two_places_in_the_batch(student):
    """Round robin and SRTF with two places."""
    engine = serve(student.new("RoundRobin", 2), 2, A=job(0, 3, 7), B=job(0, 3, 5), C=job(0, 3, 5))
    got = deliveries(engine)
    expect_equal("".join(sorted(got)), "A" * 7 + "B" * 5 + "C" * 5, what="tokens handed out")
    expect_true("C" in got[:6], f"C waited through {got[:6]!r}: with two places and a quantum of 2 its turn comes after two steps")
    engine = serve(student.new("SRTF"), 2, A=job(0, 4, 20), B=job(0, 4, 15), C=job(5, 4, 3))
    expect_equal(finished(engine), "CBA", what="order of finishing under SRTF with two places")
    expect_equal(engine.counters.preemptions, 1, what="preemptions under SRTF with two places")


@check("policies")
def a_line_of_its_own_for_each(student):
    """Two lines know nothing of each other, and quanta of different length are kept."""
    one, two = student.new("RoundRobin", 3), student.new("RoundRobin", 1)
    expect_equal(deliveries(serve(one, A=job(0, 3, 6), B=job(0, 3, 4))), "AAABBBAAAB", what="whose tokens, quantum 3")
    expect_equal(deliveries(serve(two, A=job(0, 3, 3), B=job(0, 3, 2))), "ABABA", what="whose tokens, quantum 1, in another line")


@check("policies")
def a_long_prompt_is_no_turn(student):
    """A prompt of 24 tokens is computed, and does not use up a quantum of 3."""
    engine = serve(student.new("RoundRobin", 3), A=job(0, 24, 6), B=job(0, 2, 6))
    expect_equal(deliveries(engine), "AAABBBAAABBB", what="whose tokens were handed out", hints={
        "ABBBAAABBBAA": "the tokens of the prompt used up a turn: only tokens of the answer count",
        "ABABABABABAB": "tokens computed again used up the turn: only tokens of the answer count"})


@check("policies")
def longer_than_predicted(student):
    """An answer that has outgrown its prediction lacks 0 tokens, and nobody pushes it out."""
    engine = serve(student.new("SRTF"), A=job(0, 4, 12, 3), B=job(8, 4, 1))
    expect_equal(deliveries(engine), "A" * 12 + "B", what="whose tokens were handed out", hints={
        "A" * 8 + "B" + "A" * 4: "A has outgrown its prediction of 3 tokens: it lacks 0, not some positive number"})


# %% key="policies-m1" role="mutant" exercise="policies" name="SJF by prompt length"
class SJF(SJF):
    def key(self, request, now):
        return len(request.prompt)


# %% key="policies-m2" role="mutant" exercise="policies" name="SJF by prompt and answer together"
class SJF(SJF):
    def key(self, request, now):
        return len(request.prompt) + super().key(request, now)


# %% key="policies-m3" role="mutant" exercise="policies" name="SJF that interrupts"
class SJF(SJF):
    def __init__(self):
        super().__init__()
        self.preemptive = True


# %% key="policies-m4" role="mutant" exercise="policies" name="who has no prediction goes first"
class SJF(SJF):
    def key(self, request, now):
        return request.predicted or 0


# %% key="policies-m5" role="mutant" exercise="policies" name="SRTF that never interrupts"
class SRTF(SRTF):
    def __init__(self):
        super().__init__()
        self.preemptive = False


# %% key="policies-m6" role="mutant" exercise="policies" name="SRTF by the whole length, not by what remains"
class SRTF(SRTF):
    def key(self, request, now):
        return request.sampling.max_tokens if request.predicted is None else request.predicted


# %% key="policies-m7" role="mutant" exercise="policies" name="SRTF whose key is asked only once"
class SRTF(SRTF):
    def __init__(self):
        super().__init__()
        self.static = True


# %% key="policies-m8" role="mutant" exercise="policies" name="round robin whose turns never end"
class RoundRobin(RoundRobin):
    def on_tokens(self, request, count, delivered, now):
        pass


# %% key="policies-m9" role="mutant" exercise="policies" name="round robin that counts prompt tokens and recomputation as turns"
class RoundRobin(RoundRobin):
    def on_tokens(self, request, count, delivered, now):
        super().on_tokens(request, count, count, now)


# %% key="policies-m10" role="mutant" exercise="policies" name="round robin by fewest turns: newcomers push themselves in"
class RoundRobin(RoundRobin):
    def key(self, request, now):
        return len(request.output) // self.quantum


# %% key="policies-m11" role="mutant" exercise="policies" name="only the first turn is a full one"
class RoundRobin(RoundRobin):
    def on_tokens(self, request, count, delivered, now):
        self.received[request.id] += delivered
        if self.received[request.id] >= self.quantum:
            self.next_place += 1
            self.places[request.id] = self.next_place


# %% key="policies-m12" role="mutant" exercise="policies" name="one line for all instances of a service"
_LINE = {}


class RoundRobin(RoundRobin):
    def __init__(self, quantum):
        super().__init__(quantum)
        self.places = _LINE

    def on_queued(self, request, now):
        if request.id not in _LINE:
            super().on_queued(request, now)
        else:
            self.received.setdefault(request.id, 0)


# %% key="policies-m13" role="mutant" exercise="policies" name="the longest first"
class SRTF(SRTF):
    def key(self, request, now):
        return -super().key(request, now)


# %% [markdown] key="cost" lang="en" role="exercise" exercise="cost" points=3 difficulty=2 minutes=15 needs="week 3, part 4"
# ## Exercise 5 · The bill
#
# A GPU is rented by the hour, busy or not. It draws `busy_watts` while it computes a step and `idle_watts` in between.
# What did a run cost, per token that a user received? Everything is in the event log:
#
# - the run lasts from the first `QUEUED` to the end of the last `STEP`;
# - a `STEP` event's `time` is its end, its `data["start"]` its start, and `data["batch"]` lists `(request, start, count)`:
#   `count` tokens of that request were computed, be they of a prompt, new, or computed again after a preemption;
# - a `NEW_TOKENS` event's `data["tokens"]` went out to a user. Only these are sold.
#
# Write `bill(events, price_per_hour, busy_watts, idle_watts, gpus)`; the engine runs on `gpus` GPUs that step together, each
# at that price and with those watts. Return a dictionary:
#
# | key | |
# |:--|:--|
# | `"seconds"` | how long the run lasted |
# | `"utilisation"` | share of that time in which a step was running |
# | `"tokens_per_second"` | tokens handed out per second of the run |
# | `"dollars_per_million"` | dollars per million tokens handed out |
# | `"joules_per_token"` | energy of all GPUs per token handed out (one watt is one joule a second) |

# %% [markdown] key="cost-help-units" lang="en" role="help" exercise="cost" title="My dollars are off by a round factor"
# A price per hour is `price_per_hour / 3600` per second. With `gpus` of them, `gpus` times that. Dollars per second, divided by
# tokens per second, are dollars per token; a million of them is what is asked.

# %% [markdown] key="cost-help-idle" lang="en" role="help" exercise="cost" title="My joules are too few"
# A GPU that waits for requests still draws power: the seconds of the run that are not busy are idle.

# %% key="cost-answer" role="answer" exercise="cost"
def bill(events, price_per_hour, busy_watts, idle_watts, gpus=1):
    """Seconds, utilisation, tokens a second, dollars per million tokens and joules per token of a run."""
    ### BEGIN SOLUTION
    steps = [e for e in events if e.kind == "STEP"]
    begin = min(e.time for e in events if e.kind == "QUEUED")
    seconds = max(e.time for e in steps) - begin
    busy = sum(e.time - e.data["start"] for e in steps)
    tokens = sum(len(e.data["tokens"]) for e in events if e.kind == "NEW_TOKENS")
    joules = gpus * (busy * busy_watts + (seconds - busy) * idle_watts)
    return {"seconds": seconds, "utilisation": busy / seconds, "tokens_per_second": tokens / seconds,
            "dollars_per_million": gpus * price_per_hour / 3600 * seconds / tokens * 1e6,
            "joules_per_token": joules / tokens}
    ### END SOLUTION


# %% key="cost-check" role="check" exercise="cost"
def step(start, end, *batch):
    """The event of a step from `start` to `end` that computed the (request, start, count) of `batch`."""
    return event(end, "STEP", step=0, start=start, batch=list(batch), blocks=[], waiting=0, running=1, used_blocks=1,
                 num_blocks=8, block_size=16)


RUN = [queued(0.0, "A", 100), step(0.0, 1.0, ("A", 0, 100)), token(1.0, "A"), step(1.0, 2.0, ("A", 100, 1)), token(2.0, "A"),
       event(2.0, "FINISHED", "A", reason="stop"), queued(6.0, "B", 40), step(6.0, 7.0, ("B", 0, 40)), token(7.0, "B"),
       step(7.0, 8.0, ("B", 40, 1)), token(8.0, "B"), event(8.0, "FINISHED", "B", reason="stop")]


@check("cost")
def busy_half_of_the_time(student):
    """Eight seconds, four of them busy, four tokens handed out."""
    got = student.call("bill", RUN, 3.6, 400, 100, 1)
    expect_equal(sorted(got), ["dollars_per_million", "joules_per_token", "seconds", "tokens_per_second", "utilisation"], what="keys")
    expect_close(got["seconds"], 8.0, what="seconds", hints={4.0: "the run has pauses: from the first QUEUED to the end of the last STEP"})
    expect_close(got["utilisation"], 0.5, what="utilisation", hints={1.0: "is the pause from 2 to 6 s counted as busy?"})
    expect_close(got["tokens_per_second"], 0.5, what="tokens_per_second", hints={
        17.75: "tokens that were computed, prompts too: count what was handed out", 1.0: "per second of the run, pauses included",
        35.5: "tokens that were computed, per busy second", 18.25: "tokens computed and tokens handed out, added up"})


@check("cost")
def idle_hours_cost_too(student):
    """At 3.60 dollars an hour eight seconds cost 0.8 cents: 2,000 dollars per million tokens."""
    got = student.call("bill", RUN, 3.6, 400, 100, 1)
    expect_close(got["dollars_per_million"], 2000.0, rtol=1e-9, what="dollars_per_million", hints={
        1000.0: "the GPU is rented in the pauses too: pay for all seconds of the run, not for the busy ones",
        2000.0 * 4 / 142: "tokens that were computed, prompts too: only what is handed out is sold",
        120000.0: "an hour has 3,600 seconds", 0.002: "per million tokens, not per token", 7200000.0: "an hour has 3,600 seconds"})
    expect_close(got["joules_per_token"], 500.0, what="joules_per_token", hints={
        400.0: "a GPU that waits draws power too: idle_watts", 800.0: "it draws busy_watts only while a step runs",
        2000 / 142: "tokens that were computed, prompts too: only what is handed out counts", 2000.0: "joules per token, not in all"})


@check("cost")
def two_gpus(student):
    """Twice the GPUs, the same log: twice the money, twice the energy, the same speed."""
    got = student.call("bill", RUN, 3.6, 400, 100, 2)
    expect_close(got["dollars_per_million"], 4000.0, rtol=1e-9, what="dollars_per_million of two GPUs", hints={
        2000.0: "each GPU is paid for"})
    expect_close(got["joules_per_token"], 1000.0, what="joules_per_token of two GPUs", hints={500.0: "each GPU draws power"})
    expect_close((got["utilisation"], got["tokens_per_second"]), (0.5, 0.5), what="utilisation and tokens_per_second of two GPUs", hints=[
        ((0.25, 0.5), "both GPUs are busy in the same steps"), ((0.5, 1.0), "they hand out each token together, once")])


@check("cost")
def a_run_of_the_scheduler(student):
    """Six requests through the course's scheduler, in a pool so small that tokens are computed twice."""
    engine = Engine(MockExecutor(4), BlockPool(12, 4), clock=VirtualClock(), token_budget=32, checked=True)
    for number in range(6):
        engine.add(Request([1 + number] * 8, SamplingParams(max_tokens=20, ignore_eos=True)))
    for _ in engine.stream():
        pass
    assert engine.counters.recomputed_tokens > 0, "the pool was meant to be too small"
    got, seconds = student.call("bill", list(engine.events), 2.0, 300, 60, 1), engine.clock.now
    computed = engine.counters.computed_tokens
    expect_close(got["tokens_per_second"], 120 / seconds, 1e-9, what="tokens_per_second", hints={
        computed / seconds: "tokens computed twice are handed out once"})
    expect_close((got["seconds"], got["utilisation"]), (seconds, 1.0), 1e-9, what="seconds and utilisation")
    expect_close(got["joules_per_token"], 300 * seconds / 120, 1e-9, what="joules_per_token")


# %% key="cost-hidden" role="hidden" exercise="cost"
@check("cost")
def a_late_start(student):
    """The clock of the engine does not begin at 0, and the first step begins after the first arrival."""
    log = [queued(100.0, "A", 4), step(103.0, 104.0, ("A", 0, 4)), token(104.0, "A"), step(104.0, 105.0, ("A", 4, 1)), token(105.0, "A", 3),
           event(105.0, "FINISHED", "A", reason="length")]
    got = student.call("bill", log, 7.2, 700, 70, 1)
    expect_close(got["seconds"], 5.0, what="seconds of a run from 100 to 105 s", hints={
        105.0: "the run begins with the first QUEUED", 2.0: "the run begins with the first QUEUED, not with the first step"})
    expect_close(got["tokens_per_second"], 0.8, what="tokens_per_second of 4 tokens", hints={0.4: "one event may carry several tokens"})
    expect_close(got["dollars_per_million"], 2500.0, rtol=1e-9, what="dollars_per_million")
    expect_close(got["joules_per_token"], (1400 + 210) / 4, what="joules_per_token")


@check("cost")
def aborted_tokens_were_handed_out(student):
    """A request that is aborted has received what it received."""
    log = [queued(0.0, "A", 4), step(0.0, 1.0, ("A", 0, 4)), token(1.0, "A"), event(1.0, "ABORTED", "A"), queued(1.0, "B", 4),
           step(1.0, 2.0, ("B", 0, 4)), token(2.0, "B"), event(2.0, "FINISHED", "B", reason="stop")]
    expect_close(student.call("bill", log, 3.6, 100, 10, 1)["tokens_per_second"], 1.0, what="tokens_per_second, one request aborted")


# %% key="cost-m1" role="mutant" exercise="cost" name="pays for busy seconds only"
_bill = bill


def bill(events, price_per_hour, busy_watts, idle_watts, gpus=1):
    result = _bill(events, price_per_hour, busy_watts, idle_watts, gpus)
    return result | {"dollars_per_million": result["dollars_per_million"] * result["utilisation"]}


# %% key="cost-m2" role="mutant" exercise="cost" name="sells every token that was computed"
_bill = bill


def bill(events, price_per_hour, busy_watts, idle_watts, gpus=1):
    result = _bill(events, price_per_hour, busy_watts, idle_watts, gpus)
    sold = sum(len(e.data["tokens"]) for e in events if e.kind == "NEW_TOKENS")
    computed = sum(count for e in events if e.kind == "STEP" for _, _, count in e.data["batch"])
    each = {name: result[name] * sold / computed for name in ("dollars_per_million", "joules_per_token")}
    return result | each | {"tokens_per_second": result["tokens_per_second"] * computed / sold}


# %% key="cost-m3" role="mutant" exercise="cost" name="an idle GPU draws no power"
_bill = bill


def bill(events, price_per_hour, busy_watts, idle_watts, gpus=1):
    return _bill(events, price_per_hour, busy_watts, 0, gpus)


# %% key="cost-m4" role="mutant" exercise="cost" name="an idle GPU draws full power"
_bill = bill


def bill(events, price_per_hour, busy_watts, idle_watts, gpus=1):
    return _bill(events, price_per_hour, busy_watts, busy_watts, gpus)


# %% key="cost-m5" role="mutant" exercise="cost" name="one GPU is paid for, whatever their number"
_bill = bill


def bill(events, price_per_hour, busy_watts, idle_watts, gpus=1):
    return _bill(events, price_per_hour, busy_watts, idle_watts, 1)


# %% key="cost-m6" role="mutant" exercise="cost" name="an hour of sixty seconds"
_bill = bill


def bill(events, price_per_hour, busy_watts, idle_watts, gpus=1):
    return _bill(events, 60 * price_per_hour, busy_watts, idle_watts, gpus)


# %% key="cost-m7" role="mutant" exercise="cost" name="the run begins with its first step"
def bill(events, price_per_hour, busy_watts, idle_watts, gpus=1):
    steps = [e for e in events if e.kind == "STEP"]
    seconds = steps[-1].time - steps[0].data["start"]
    busy = sum(e.time - e.data["start"] for e in steps)
    tokens = sum(len(e.data["tokens"]) for e in events if e.kind == "NEW_TOKENS")
    return {"seconds": seconds, "utilisation": busy / seconds, "tokens_per_second": tokens / seconds,
            "dollars_per_million": gpus * price_per_hour / 3600 * seconds / tokens * 1e6,
            "joules_per_token": gpus * (busy * busy_watts + (seconds - busy) * idle_watts) / tokens}


# %% [markdown] key="capacity" lang="en" role="exercise" exercise="capacity" points=3 difficulty=3 minutes=20 needs="week 3, part 4"
# ## Exercise 6 · The highest rate that keeps the promise
#
# "How much can it take?" has an answer only with a promise: *the highest rate at which at least 90 % of the requests keep
# their limits*. DistServe calls this the goodput of a system. Finding it means runs of the service, and runs are dear.
#
# Write `highest_rate(attained, low, high, target, tolerance)`. Calling `attained(rate)` runs the service at so many requests
# a second and returns the share that kept their limits. It falls as the rate grows. Search by **bisection**:
#
# - if `low` misses the target, return 0.0: even that is too much;
# - if `high` keeps it, return `high`: the search began too low;
# - else halve the interval between a rate that **keeps** the target and one that **misses** it, until it is no longer than
#   `tolerance`, and return the rate that keeps it.
#
# A share equal to `target` keeps it. Return only a rate that has been tried and has kept the target, or 0.0. For `low = 1`,
# `high = 17` and a tolerance of 1, six runs are enough: the two ends, and four halves. The checks count the runs.

# %% [markdown] key="capacity-help-count" lang="en" role="help" exercise="capacity" title="I need too many runs"
# Each run must halve the interval. Call `attained` once for each rate and remember what it said; trying a rate again
# costs a run.

# %% [markdown] key="capacity-help-invariant" lang="en" role="help" exercise="capacity" title="My answer misses the target by a little"
# Keep two rates through the whole loop: `good`, tried and kept, and `bad`, tried and missed. The answer is `good`, not
# the middle of the last interval, which nobody has tried.

# %% key="capacity-answer" role="answer" exercise="capacity"
def highest_rate(attained, low, high, target=0.9, tolerance=0.1):
    """Highest tried rate (requests/s) at which `attained(rate)` is at least `target`; 0.0 when `low` misses it."""
    ### BEGIN SOLUTION
    if attained(low) < target:
        return 0.0
    if attained(high) >= target:
        return high
    good, bad = low, high
    while bad - good > tolerance:
        middle = (good + bad) / 2
        if attained(middle) >= target:
            good = middle
        else:
            bad = middle
    return good
    ### END SOLUTION


# %% key="capacity-check" role="check" exercise="capacity"
class Tried:
    """A service whose attainment is `curve(rate)`; writes down which rates were tried."""

    def __init__(self, curve):
        self.curve, self.rates = curve, []

    def __call__(self, rate):
        """Share of requests that keep their limits at this rate."""
        self.rates.append(rate)
        return self.curve(rate)


def knee(at):
    """Attainment that is perfect up to a rate and falls behind it."""
    return lambda rate: 1.0 if rate <= at else at / rate


def sought(student, curve, low, high, target=0.9, tolerance=1.0):
    """The student's answer, and the rates it tried."""
    service = Tried(curve)
    return student.call("highest_rate", Served(service), low, high, target, tolerance), service.rates


@check("capacity")
def finds_the_knee(student):
    """Attainment falls below 90 % above 10 requests a second; the ends are 1 and 17."""
    got, rates = sought(student, knee(9.0), 1, 17)
    expect_close(got, 10.0, what="highest rate", hints={
        9.0: "at 10 a share of exactly 0.9 is kept: equal to the target keeps it", 10.5: "the middle of the last interval was "
        "never tried: return a rate that has kept the target", 11.0: "this rate misses the target: return the one that keeps it",
        17.0: "at 17 the target is missed"})
    expect_true(got in rates, f"{got} was never tried; return a rate that has kept the target")


@check("capacity")
def counts_its_runs(student):
    """Six runs for 1 to 17 within 1; nine for 1 to 129 within 1."""
    _, rates = sought(student, knee(9.0), 1, 17)
    expect_true(len(rates) <= 6, f"{len(rates)} runs for an interval of 16 and a tolerance of 1, rates {rates[:20]}: the two ends "
                "and four halves are 6. Does each run halve the interval, and is no rate tried twice?")
    got, rates = sought(student, knee(70.2), 1, 129)
    expect_close(got, 78.0, what="highest rate between 1 and 129")
    expect_true(len(rates) <= 9, f"{len(rates)} runs for an interval of 128 and a tolerance of 1: 9 are enough")


@check("capacity")
def nothing_is_low_enough(student):
    """Even the lowest rate misses the target; even the highest keeps it."""
    got, _ = sought(student, lambda rate: 0.5, 2, 10)
    expect_equal(got, 0.0, what="highest rate of a service that always misses", hints={
        2: "at 2 requests a second the target is missed: nothing that was tried keeps it"})
    got, _ = sought(student, lambda rate: 0.95, 2, 10)
    expect_equal(got, 10, what="highest rate of a service that always keeps the target", hints={
        9.0: "the highest rate itself keeps the target: was it tried?"})


@check("capacity")
def of_a_simulated_service(student):
    """Llama 2 7B on an A100: the rate up to which 90 % have their first token in 1 s and the others in 50 ms each."""
    from llmcourse.engine.replay import replay
    from llmcourse.metrics.ledger import Ledger
    from llmcourse.metrics.slo import attainment as attained_by
    from llmcourse.workload import SLO, Lognormal, Poisson, open_loop

    def attained(rate):
        arrivals = open_loop(Poisson(rate), Lognormal(300, sigma=0.8), Lognormal(150, sigma=0.8), 150, seed=3)
        return attained_by(replay(Engine.simulated(ledger=Ledger()), arrivals), SLO(ttft=1.0, tpot=0.05)).both

    tried = {}
    got, rates = sought(student, lambda rate: tried.setdefault(rate, attained(rate)), 8.0, 24.0, tolerance=2.0)
    expect_true(tried.get(got, 0.0) >= 0.9, f"{got} requests a second: {tried.get(got, 0.0):.0%} of the requests kept their limits "
                "there, 90 % were asked (0 % says that it was never tried)")
    expect_true(any(got < rate <= got + 2.0 and share < 0.9 for rate, share in tried.items()), f"{got} keeps the target, but no rate "
                f"within 2 above it was seen to miss it; tried: {tried}")
    expect_true(len(rates) <= 5, f"{len(rates)} runs of the simulator; 5 are enough")


# %% key="capacity-hidden" role="hidden" exercise="capacity"
@check("capacity")
def other_targets_and_tolerances(student):
    """Targets of 50 and 99 %, tolerances of 4 and 0.01."""
    got, rates = sought(student, knee(9.0), 1, 33, target=0.5, tolerance=4.0)
    expect_close(got, 17.0, what="highest rate for a target of 50 % within 4 requests a second")
    expect_true(len(rates) <= 5, f"{len(rates)} runs for an interval of 32 and a tolerance of 4: 5 are enough")
    got, rates = sought(student, knee(3.0), 1, 9, target=0.99, tolerance=0.01)
    expect_true(type(got) in (int, float) and 3 / 0.99 - 0.01 <= got <= 3 / 0.99, f"got {got}; the knee for 99 % lies at "
                f"{3 / 0.99:.4f}, and the tolerance is 0.01")
    expect_true(len(rates) <= 12, f"{len(rates)} runs for an interval of 8 and a tolerance of 0.01: 12 are enough")


# %% key="capacity-m1" role="mutant" exercise="capacity" name="returns the rate that misses the target"
def highest_rate(attained, low, high, target=0.9, tolerance=0.1):
    if attained(low) < target:
        return 0.0
    if attained(high) >= target:
        return high
    good, bad = low, high
    while bad - good > tolerance:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if attained(middle) >= target else (good, middle)
    return bad


# %% key="capacity-m2" role="mutant" exercise="capacity" name="returns the middle, which nobody has tried"
_highest_rate = highest_rate


def highest_rate(attained, low, high, target=0.9, tolerance=0.1):
    found = _highest_rate(attained, low, high, target, tolerance)
    return found + tolerance / 2 if low <= found < high else found


# %% key="capacity-m3" role="mutant" exercise="capacity" name="tries one rate after another"
def highest_rate(attained, low, high, target=0.9, tolerance=0.1):
    found, rate = 0.0, low
    while rate <= high and attained(rate) >= target:
        found, rate = rate, rate + tolerance
    return found


# %% key="capacity-m4" role="mutant" exercise="capacity" name="a share equal to the target misses it"
_highest_rate = highest_rate


def highest_rate(attained, low, high, target=0.9, tolerance=0.1):
    return _highest_rate(attained, low, high, target + 1e-9, tolerance)


# %% key="capacity-m5" role="mutant" exercise="capacity" name="takes it that the lowest rate is kept"
def highest_rate(attained, low, high, target=0.9, tolerance=0.1):
    if attained(high) >= target:
        return high
    good, bad = low, high
    while bad - good > tolerance:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if attained(middle) >= target else (good, middle)
    return good


# %% key="capacity-m6" role="mutant" exercise="capacity" name="takes it that the highest rate is missed"
def highest_rate(attained, low, high, target=0.9, tolerance=0.1):
    if attained(low) < target:
        return 0.0
    good, bad = low, high
    while bad - good > tolerance:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if attained(middle) >= target else (good, middle)
    return good


# %% key="capacity-m7" role="mutant" exercise="capacity" name="halves a fixed number of times, whatever the tolerance"
_highest_rate = highest_rate


def highest_rate(attained, low, high, target=0.9, tolerance=0.1):
    return _highest_rate(attained, low, high, target, (high - low) / 8)


# %% [markdown] key="end" lang="en"
# ## Done
#
# You can now say what a service does, in words that somebody can hold you to: which latency, of whom, at which load, at
# which price. And you have seen that *who goes next* decides over the latency of each, though the machine computes no faster.
#
# All loads so far came from friendly clocks and dice. Next week's come from traces of real services.
#
# Hand in this file. Your score: `llmcourse check labs/lab03_measuring.ipynb`.
