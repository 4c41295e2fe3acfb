"""Lab 5: who disturbs whom, who may come in, how large a step may be, whose memory it is, and what is fair. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 5 · SLOs and isolation among tenants
#
# Several tenants share one engine. You measure how much they disturb each other, and then build the four fences between
# them: a door that counts tokens, a step that no prompt can stretch, a share of the memory that is nobody's to waste, and
# a counter that makes the queue fair. Your pieces run inside the course's own engine, on a real model and in simulation.
#
# **How to work.** Write your answer where `NotImplementedError` stands, run the cell, run the check below it. A check
# that fails says what it asked, what came back, and often which idea went wrong. Stuck? Each folded help is named
# after something you may see or ask: open the one that fits. Exercises do not depend on each other, so you can also
# go on to the next. Some checks are hidden: they try other numbers and edge cases of what the statement says, nothing
# else.
#
# **Your own work.** An answer is built on what the cell below defines and imports, and on nothing else of the package: with
# `from llmcourse… import` in it, it earns nothing. Each answer is judged without the others.
#
# **To see your score:** `llmcourse check labs/lab05_isolation.ipynb`. **To hand in:** save the notebook and hand in the
# file.
#
# The lecture of week 5 has the ideas behind all of this. You only need plain Python: lists, dictionaries, numbers.

# %% key="setup" role="setup"
import math
from functools import partial
from itertools import pairwise

from llmcourse.engine import Engine, Event, EventKind, Policy, Request, SamplingParams, VirtualClock
from llmcourse.engine.admission import Admission
from llmcourse.engine.batching import BATCHING
from llmcourse.engine.replay import replay
from llmcourse.executors import MockExecutor
from llmcourse.grading import Served, check, expect_close, expect_equal, expect_true
from llmcourse.kv import BlockPool
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.records import records
from llmcourse.workload import SLO, Arrival


def tenants_of(requests):
    """Tenants of some requests, each once, in alphabetical order."""
    return sorted({request.tenant for request in requests})


class UsesDoor(Admission):
    """The engine's door, asking an object like yours of exercise 2."""

    def __init__(self, door):
        self.door = door

    def refuse(self, request, scheduler, now):
        pending = [other.pending for other in [*scheduler.running, *scheduler.waiting]]
        return self.door.refuse(len(request.prompt), pending, request.slo and request.slo.ttft)

    def drop(self, request, scheduler, now):
        ahead = [r.pending for r in scheduler.running] + [r.pending for r in scheduler.waiting if r.arrival < request.arrival]
        return self.door.drop(request.pending, ahead, now - request.arrival, request.slo and request.slo.ttft)


class UsesQuota(Policy):
    """The engine's choice of victims, asking an object like yours of exercise 4."""

    static = False

    def __init__(self, quota, pool):
        self.quota, self.pool = quota, pool

    def blocks(self, request):
        """Blocks that a request holds."""
        return len(self.pool.table(request.id))

    def held(self, running):
        """Blocks that each tenant holds."""
        return {tenant: sum(self.blocks(r) for r in running if r.tenant == tenant) for tenant in tenants_of(running)}

    def above(self, tenant, need, running):
        """How far `need` more blocks would lift the tenant above its share."""
        return self.quota.above(tenant, need, self.held(running))

    def victim(self, running, now):
        ordered = sorted(running, key=lambda request: request.arrival)
        index = self.quota.victim([(r.tenant, self.blocks(r)) for r in ordered], self.held(ordered))
        expect_true(type(index) is int and 0 <= index < len(ordered),
                    f"victim returned {index!r}; it should be an index into the list of {len(ordered)} running requests")
        return ordered[index]


class UsesCounter(Policy):
    """The engine's order, asking an object like yours of exercise 6. It asks and charges once a step, not once a request."""

    static = False

    def __init__(self, counter):
        self.counter, self.waiting, self.started = counter, {}, set()
        self.due, self.known = {}, {}                     # tokens to charge, and counters that have not changed since asked

    def settle(self):
        """Charge what has been delivered since the last question."""
        for tenant, delivered in self.due.items():
            self.counter.on_tokens(tenant, delivered)
            self.known.pop(tenant, None)
        self.due.clear()

    def key(self, request, now):
        self.settle()
        if request.tenant not in self.known:
            self.known[request.tenant] = self.counter.counter(request.tenant)
        return self.known[request.tenant]

    def on_queued(self, request, now):
        self.settle()
        self.counter.on_queued(request.tenant, tenants_of(self.waiting.values()))
        self.known.clear()
        self.waiting[request.id] = request

    def on_scheduled(self, request, now):
        self.settle()
        self.waiting.pop(request.id)
        if request.id not in self.started:                # a preempted request has paid for its prompt already
            self.counter.on_scheduled(request.tenant, len(request.prompt))
            self.known.pop(request.tenant, None)
        self.started.add(request.id)

    def on_tokens(self, request, count, delivered, now):
        if delivered:
            self.due[request.tenant] = self.due.get(request.tenant, 0) + delivered

    def on_preempted(self, request, now):
        self.waiting[request.id] = request

    def on_done(self, request, now):
        self.waiting.pop(request.id, None)


class Through:
    """An object on the student's side, as if it were here: `Through(handle).method(...)`."""

    def __init__(self, handle):
        self.handle = handle

    def __getattr__(self, method):
        return partial(self.handle.call, method)


def run(engine, steps=20000):
    """Take steps until everybody is done; CheckFailed when that does not happen. Returns the engine."""
    while not engine.idle:
        before = engine.counters.steps
        engine.step()
        expect_true(engine.idle or engine.counters.steps > before,
                    f"the engine stands still: {len(engine.scheduler.waiting)} requests wait, "
                    f"{len(engine.scheduler.running)} run, {engine.pool.num_free} blocks are free, and nobody gets a token")
        expect_true(before < steps, f"after {steps} steps the requests are still not done")
    return engine


def uses_filler(filler):
    """A way to fill a step (as in engine/batching.py) that asks a function like yours of exercise 3."""
    def fill(step):
        requests = {request.id: request for request in [*step.scheduler.running, *step.scheduler.waiting]}
        running = [(request.id, request.pending) for request in step.running()]
        waiting = [(request.id, request.pending) for request in step.scheduler.waiting.in_order(step.now)]
        plan = filler(running, waiting, step.budget)
        expect_true(len(dict(plan)) == len(plan), f"fill_step lists a request twice: {plan}")
        late = {name for name, _ in waiting}
        for name, count in sorted(plan, key=lambda pair: pair[0] in late):
            request = requests.get(name)
            expect_true(request is not None, f"fill_step gave tokens to {name!r}, which is neither running nor waiting")
            expect_true(type(count) is int and 1 <= count <= request.pending,
                        f"fill_step gave {name} {count!r} tokens; it has {request.pending} to compute")
            if name not in late:
                step.give(request, count)
            elif not step.admit(request, count):
                break
    return fill


def uses_quota(step):
    """A way to fill a step under `UsesQuota`: decodes, started prompts, then of each tenant the first who may start."""
    scheduler, policy, pool = step.scheduler, step.scheduler.policy, step.scheduler.pool
    for request in sorted(step.running(), key=lambda r: r.pending > 1):
        step.give(request, min(request.pending, step.budget))
    if step.preempted_any:
        return
    first = {}
    for request in scheduler.waiting.in_order(step.now):
        first.setdefault(request.tenant, request)
    needs = {tenant: pool.blocks_for(len(request.tokens)) for tenant, request in first.items()}
    for tenant, need in list(needs.items()):
        others = {other: blocks for other, blocks in needs.items() if other != tenant}
        while not policy.quota.may_start(tenant, need, policy.held(scheduler.running), pool.num_free, others):
            if not scheduler.running or policy.above(tenant, need, scheduler.running) > 0:
                break                                     # it asks for more than is its own
            loser = policy.victim(scheduler.running, step.now)
            if policy.above(loser.tenant, 0, scheduler.running) <= 0:
                break                                     # nobody has borrowed anything
            step.preempt(loser)                           # what was lent comes back
        else:
            step.admit(first[tenant], min(first[tenant].pending, step.budget))
            needs.pop(tenant)


# %% [markdown] key="interference" lang="en" role="exercise" exercise="interference" points=3 difficulty=2 minutes=20 needs="week 5, part 2"
# ## Exercise 1 · How much does the neighbour cost you?
#
# A tenant runs once alone and once beside a neighbour, with the same requests. You have both event logs, in order of time. Each
# event has `time` (seconds), `kind`, `request` (its id) and `data`:
#
# | `kind` | `data` | |
# |:--|:--|:--|
# | `"QUEUED"` | `{"tenant": "ana", "prompt_tokens": …}` | the request has arrived |
# | `"NEW_TOKENS"` | `{"tokens": […]}` | one new token has gone out to the user |
#
# and others that you may pass over.
#
# 1. `token_gaps(events, tenant)`: a list of all gaps in seconds between one token and the next **of the same request**,
#    over all requests of the tenant, in any order. The wait for the first token is not a gap.
# 2. `interference_index(shared, alone, tenant)`: the P99 of the tenant's gaps in the shared log as a multiple of the P99 of
#    its gaps alone. 1 means that the neighbour cannot be felt.
#
# Given to you: `percentile(values, q)`, with q from 0 to 100.

# %% [markdown] key="interference-help-tenant" lang="en" role="help" exercise="interference" title="NEW_TOKENS does not say whose it is"
# Its `request` does: remember the tenant of every request when you pass its `QUEUED`.

# %% [markdown] key="interference-help-mean" lang="en" role="help" exercise="interference" title="Why the 99th percentile, and not the mean?"
# One stall of a second among a thousand gaps of 10 ms raises the mean by a tenth. The user has seen the stall. And the P99
# of several requests is not the mean of their P99s: put all gaps into one list first.

# %% [markdown] key="interference-help-try" lang="en" role="help" exercise="interference" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# engine = Engine.simulated(batching="continuous", token_budget=8192)
# replay(engine, [Arrival(0.0, 100, 50, "ana")] * 4 + [Arrival(0.3, 6000, 5, "bo")])
# sorted(token_gaps(engine.events, "ana"))[-5:]          # the longest gaps, in seconds: half a second and more
# ```

# %% key="interference-answer" role="answer" exercise="interference"
def token_gaps(events, tenant):
    """Seconds between consecutive tokens of one request, over all requests of `tenant`: a list."""
    ### BEGIN SOLUTION
    mine, last, gaps = set(), {}, []
    for event in events:
        if event.kind == "QUEUED" and event.data["tenant"] == tenant:
            mine.add(event.request)
        if event.kind == "NEW_TOKENS" and event.request in mine:
            if event.request in last:
                gaps.append(event.time - last[event.request])
            last[event.request] = event.time
    return gaps
    ### END SOLUTION


def interference_index(shared, alone, tenant):
    """P99 gap in the shared run over P99 gap alone."""
    ### BEGIN SOLUTION
    return percentile(token_gaps(shared, tenant), 99) / percentile(token_gaps(alone, tenant), 99)
    ### END SOLUTION


# %% key="interference-check" role="check" exercise="interference"
def written_log(times, tenants):
    """A log in which each request (arrival first, then its tokens) has these times."""
    log = [Event(when[0], EventKind.QUEUED, name, {"tenant": tenants[name], "prompt_tokens": 5, "max_tokens": 9})
           for name, when in times.items()]
    log += [Event(time, EventKind.NEW_TOKENS, name, {"tokens": [7]}) for name, when in times.items() for time in when[1:]]
    return sorted(log, key=lambda event: event.time)


SMALL_LOG = written_log({"r0": [0.0, 2.0, 2.5, 3.5], "r1": [0.0, 2.25, 4.25], "r2": [1.0, 3.0, 3.125]},
                        {"r0": "ana", "r1": "ana", "r2": "bo"})


def even(gap, count, stalls=(), requests=1, tenant="ana"):
    """Requests with `count` gaps of `gap` seconds, the last ones replaced by `stalls`; the last request alone has them."""
    times = {}
    for number in range(requests):
        gaps = [gap] * count
        if stalls and number == requests - 1:
            gaps[-len(stalls):] = stalls
        times[f"{tenant}{number}"] = [0.0, *(1.0 + sum(gaps[:k]) for k in range(count + 1))]
    return times


def on_the_mock(neighbour, batching="continuous", budget=512, prompt=400):
    """A real scheduler's log in virtual time: ana's three requests decode, and perhaps bo comes with long prompts."""
    engine = Engine(MockExecutor(16), BlockPool(256, 16), batching=batching, token_budget=budget, max_running=8,
                    clock=VirtualClock(), checked=True)
    for number in range(3):
        engine.add(Request([1 + number] * 9, SamplingParams(max_tokens=40, ignore_eos=True), tenant="ana"))
    while engine.counters.steps < 10:
        engine.step()
    for number in range(3 if neighbour else 0):
        engine.add(Request([2 + number] * prompt, SamplingParams(max_tokens=2, ignore_eos=True), tenant="bo"))
    return list(run(engine).events)


def ana_p99(events):
    """What the course's own records say: the P99 of all gaps of ana's requests."""
    return percentile([gap for record in records(events) if record.tenant == "ana" for gap in record.itl], 99)


@check("interference")
def gaps_of_one_tenant(student):
    """ana's two requests have gaps of 0.5 s, 1 s and 2 s; bo's gap and the waits for first tokens do not count."""
    got = student.call("token_gaps", SMALL_LOG, "ana")
    expect_equal(sorted(got), [0.5, 1.0, 2.0], what="ana's gaps, sorted", hints=[
        ([0.125, 0.5, 1.0, 2.0], "bo's gaps are among them: only the tenant's own requests count"),
        ([0.5, 1.0, 2.0, 2.0, 2.25], "the wait for the first token is no gap: that is TTFT"),
        ([0.25, 0.25, 0.75, 1.0], "tokens of different requests were put on one time line: each request has its own")])
    expect_equal(student.call("token_gaps", SMALL_LOG, "bo"), [0.125], what="bo's gaps")
    expect_equal(student.call("token_gaps", SMALL_LOG, "eve"), [], what="gaps of a tenant that sent nothing")


@check("interference")
def two_stalls_in_a_hundred(student):
    """98 gaps of 10 ms and two stalls of a second: the P99 is a hundred times as long."""
    tenants = {"ana0": "ana"}
    alone, shared = written_log(even(1 / 128, 100), tenants), written_log(even(1 / 128, 100, [1.0, 1.0]), tenants)
    got = student.call("interference_index", shared, alone, "ana")
    expect_close(got, 128.0, 1e-6, what="interference index", hints=[
        (1 / 128, "upside down: the shared run goes above the line"),
        ((98 / 128 + 2) / 100 * 128, "this is the ratio of the means: two stalls in a hundred gaps hardly show in a mean"),
        (1 - 1 / 128, "a difference; the index is a ratio, so that it has no unit")])


@check("interference")
def a_neighbour_on_the_real_scheduler(student):
    """bo's long prompts in the course's scheduler: the index is what the log says, and chunks bring it down."""
    alone = on_the_mock(neighbour=False)
    for batching, budget in (("continuous", 512), ("mixed", 32)):
        shared = on_the_mock(True, batching, budget)
        want = ana_p99(shared) / ana_p99(alone)
        expect_close(student.call("interference_index", shared, alone, "ana"), want, 1e-6,
                     what=f"index with {batching} batching and a budget of {budget} tokens")


# %% key="interference-hidden" role="hidden" exercise="interference"
@check("interference")
def one_list_for_all_requests(student):
    """Four requests, one of which stalls: the P99 of all gaps is not the mean of four P99s."""
    tenants = {f"ana{k}": "ana" for k in range(4)}
    alone = written_log(even(1 / 64, 50, requests=4), tenants)
    shared = written_log(even(1 / 64, 50, [0.5] * 6, requests=4), tenants)
    expect_close(student.call("interference_index", shared, alone, "ana"), 32.0, 1e-6, what="interference index", hints=[
        ((3 / 64 + 0.5) / 4 * 64, "the mean of the requests' P99s: put all gaps into one list, then take the P99")])


@check("interference")
def ids_do_not_say_whose_it_is(student):
    """The neighbour's requests have names that look like ana's."""
    log = written_log({"r0": [0.0, 1.0, 2.0], "ana-1": [0.0, 1.0, 5.0]}, {"r0": "ana", "ana-1": "bo"})
    expect_equal(student.call("token_gaps", log, "ana"), [1.0], what="ana's gaps")


# %% key="interference-m1" role="mutant" exercise="interference" name="means instead of the 99th percentile"
def interference_index(shared, alone, tenant):
    gaps, quiet = token_gaps(shared, tenant), token_gaps(alone, tenant)
    return (sum(gaps) / len(gaps)) / (sum(quiet) / len(quiet))


# %% key="interference-m2" role="mutant" exercise="interference" name="counts the wait for the first token as a gap"
def token_gaps(events, tenant):
    mine, last, gaps = set(), {}, []
    for event in events:
        if event.kind == "QUEUED" and event.data["tenant"] == tenant:
            mine.add(event.request)
            last[event.request] = event.time
        if event.kind == "NEW_TOKENS" and event.request in mine:
            gaps.append(event.time - last[event.request])
            last[event.request] = event.time
    return gaps


# %% key="interference-m3" role="mutant" exercise="interference" name="counts the neighbour's gaps too"
def token_gaps(events, tenant):
    last, gaps = {}, []
    for event in events:
        if event.kind == "NEW_TOKENS":
            if event.request in last:
                gaps.append(event.time - last[event.request])
            last[event.request] = event.time
    return gaps


# %% key="interference-m4" role="mutant" exercise="interference" name="all of a tenant's tokens on one time line"
def token_gaps(events, tenant):
    mine = {e.request for e in events if e.kind == "QUEUED" and e.data["tenant"] == tenant}
    times = sorted(e.time for e in events if e.kind == "NEW_TOKENS" and e.request in mine)
    return [after - before for before, after in pairwise(times)]


# %% key="interference-m5" role="mutant" exercise="interference" name="the mean of the requests' percentiles"
def interference_index(shared, alone, tenant):
    def mean_of_p99(events):
        mine = [e.request for e in events if e.kind == "QUEUED" and e.data["tenant"] == tenant]
        each = [percentile(token_gaps([e for e in events if e.request == name], tenant), 99) for name in mine]
        return sum(each) / len(each)
    return mean_of_p99(shared) / mean_of_p99(alone)


# %% key="interference-m6" role="mutant" exercise="interference" name="upside down"
_interference_index = interference_index


def interference_index(shared, alone, tenant):
    return _interference_index(alone, shared, tenant)


# %% key="interference-m7" role="mutant" exercise="interference" name="a difference of times, not a ratio"
def interference_index(shared, alone, tenant):
    return percentile(token_gaps(shared, tenant), 99) - percentile(token_gaps(alone, tenant), 99)


# %% [markdown] key="door" lang="en" role="exercise" exercise="admission" points=3 difficulty=2 minutes=20 needs="week 5, part 4"
# ## Exercise 2 · A door that knows the SLO
#
# A server that takes everything in serves nobody in time once it is overloaded. Your door answers at once: yes, or no and why.
# The engine computes `tokens_per_second` prompt tokens a second, first come, first served. Each request in the house,
# running or waiting, still has some tokens to compute: `pending` is a **list** of these numbers.
#
# Write a class with
#
# 1. `predicted_ttft(prompt_tokens, pending, waited)`: when will the first token come, in seconds after arrival? All pending
#    tokens go first, then its own prompt; and it has `waited` seconds already.
# 2. `refuse(prompt_tokens, pending, ttft)`: asked on arrival (nothing waited yet). `None` lets the request in; a text, the reason,
#    sends it away. Send it away when its predicted TTFT is longer than `ttft`, the seconds it was promised.
# 3. `drop(prompt_tokens, ahead, waited, ttft)`: asked again and again while it waits; `ahead` lists the pending tokens of
#    those in front of it. Send it away as soon as its promise **can no longer** be kept: not before, not later.
#
# `ttft` is `None` for requests that were promised nothing: they are never sent away.

# %% [markdown] key="door-help-count" lang="en" role="help" exercise="admission" title="How long may the queue be?"
# That question has no answer in requests. Forty requests that decode have 40 tokens pending, a few milliseconds of work;
# one report of 8,000 tokens takes a second. Add up the tokens.

# %% [markdown] key="door-help-drop" lang="en" role="help" exercise="admission" title="When exactly is it too late?"
# Not when the promised time is over: then others have waited in vain behind it. It is too late as soon as the time waited plus
# the time still needed is more than was promised.

# %% [markdown] key="door-help-try" lang="en" role="help" exercise="admission" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# engine = Engine.simulated(admission=UsesDoor(SLOAdmission(12000)))
# table = replay(engine, [Arrival(0.1 * k, 2000, 4, "ana", slo=SLO(ttft=1.0)) for k in range(50)])
# table.frame()[["arrival", "ttft", "finish_reason"]]    # "shed": sent away
# ```

# %% key="door-answer" role="answer" exercise="admission"
class SLOAdmission:
    """Lets in whom it can serve in time."""

    def __init__(self, tokens_per_second):
        """For an engine that computes so many prompt tokens a second."""
        ### BEGIN SOLUTION
        self.tokens_per_second = tokens_per_second
        ### END SOLUTION

    def predicted_ttft(self, prompt_tokens, pending, waited=0.0):
        """Seconds from arrival to the first token."""
        ### BEGIN SOLUTION
        return waited + (sum(pending) + prompt_tokens) / self.tokens_per_second
        ### END SOLUTION

    def refuse(self, prompt_tokens, pending, ttft):
        """Why the request is sent away on arrival, or None."""
        ### BEGIN SOLUTION
        return self.drop(prompt_tokens, pending, 0.0, ttft)
        ### END SOLUTION

    def drop(self, prompt_tokens, ahead, waited, ttft):
        """Why the waiting request is sent away now, or None."""
        ### BEGIN SOLUTION
        expected = self.predicted_ttft(prompt_tokens, ahead, waited)
        if ttft is None or expected <= ttft:
            return None
        return f"its first token would come after {expected:.2f} s, {ttft:.2f} s were promised"
        ### END SOLUTION


# %% key="door-check" role="check" exercise="admission"
def lets_in(reason):
    """Whether an answer of refuse or drop keeps the request; a reason must be a text."""
    expect_true(reason is None or (type(reason) is str and bool(reason.strip())),
                f"refuse and drop return None or a text that gives the reason; this was {reason!r}")
    return reason is None


@check("admission")
def a_prediction_in_tokens(student):
    """8,000 tokens a second: 2,000 pending and a prompt of 1,000 make 375 ms."""
    door = student.new("SLOAdmission", 8000.0)
    expect_close(door.call("predicted_ttft", 1000, [1500, 499, 1], 0.0), 0.375, 1e-9, what="predicted TTFT", hints=[
        (0.25, "its own prompt must be computed too"), (3 / 8000, "three requests wait, but they have 2,000 tokens to compute"),
        (4 / 8000, "requests were counted, not tokens"), (2500 / 8000, "all of the pending tokens go first, not only the longest "
         "prompt's"), (4 * 1000 / 8000, "not everybody is as long as this one: add up what each has pending"), (1.0 / 8, "the others go first: what do they have pending?")])
    expect_close(door.call("predicted_ttft", 1000, [], 2.0), 2.125, 1e-9, what="predicted TTFT after 2 s of waiting", hints=[
        (0.125, "it has waited 2 s already: TTFT starts at arrival")])


@check("admission")
def tokens_are_counted_not_requests(student):
    """Forty decodes are no queue; one long prompt is."""
    door = student.new("SLOAdmission", 8000.0)
    expect_true(lets_in(door.call("refuse", 500, [1] * 40, 0.5)), "40 requests that decode have 40 tokens pending, 5 ms of "
                "work: the promise of 0.5 s can be kept. Were requests counted instead of tokens?")
    expect_true(not lets_in(door.call("refuse", 500, [6000], 0.5)), "one request has 6,000 tokens pending, 0.75 s of work: the "
                "promise of 0.5 s cannot be kept. Were requests counted instead of tokens?")
    expect_true(lets_in(door.call("refuse", 500, [3000], 0.5)), "3,000 tokens are pending: the first token comes after 0.44 s, "
                "0.5 s were promised. A queue alone is no reason to refuse")


@check("admission")
def no_promise_no_refusal(student):
    """Who was promised nothing is never sent away."""
    door = student.new("SLOAdmission", 8000.0)
    expect_true(lets_in(door.call("refuse", 500, [90000], None)), "ttft is None: nothing was promised, so nothing can be broken")
    expect_true(lets_in(door.call("drop", 500, [90000], 60.0, None)), "ttft is None: it may wait as long as it takes")


@check("admission")
def as_soon_as_it_is_hopeless(student):
    """Dropped when the promise can no longer be kept: not before, and not only when the time is over."""
    door = student.new("SLOAdmission", 8000.0)
    expect_true(lets_in(door.call("drop", 800, [2400], 0.5, 1.0)), "0.5 s waited and 0.4 s to go: the promise of 1 s can be kept")
    expect_true(not lets_in(door.call("drop", 800, [3600], 0.5, 1.0)), "0.5 s waited and 0.55 s to go make 1.05 s, 1 s was "
                "promised: it is too late now, though the second is not over. Does the time waited count?")
    expect_true(not lets_in(door.call("drop", 9000, [], 0.0, 1.0)), "its own prompt takes 1.1 s: the promise of 1 s can never be kept")


def overloaded(admission):
    """Llama 2 7B on an A100, twice as many prompts as it can read; the table of the run."""
    engine = Engine.simulated(model="Llama 2 7B", gpu="A100 80 GB", batching="mixed", token_budget=512, max_running=256,
                              admission=admission)
    slo = SLO(ttft=2.0)
    arrivals = [Arrival(0.05 * k, 1500 if k % 4 else 6000, 4, tenant="ana", slo=slo) for k in range(200)]
    replay(engine, arrivals)
    return engine.table()


def in_time(table):
    """How many requests got their first token within their promise, and how many began to be served at all."""
    ttft = [float(value) for value in table["ttft"] if not math.isnan(value)]
    return sum(value <= 2.0 for value in ttft), len(ttft)


SIMULATED_RATE = 512 / Engine.simulated(model="Llama 2 7B", gpu="A100 80 GB").executor.cost.seconds(512, 1, 0.0, 0.0)


@check("admission")
def in_the_simulator_under_overload(student):
    """Twice as much comes as can be served: with your door, those who are let in are served in time."""
    student_door = Through(student.new("SLOAdmission", SIMULATED_RATE))
    good, served = in_time(overloaded(UsesDoor(student_door)))
    without, all_served = in_time(overloaded(None))
    expect_true(good >= 0.9 * served, f"{served} requests were served, but only {good} of them within 2 s")
    expect_true(good >= 60, f"only {good} of 200 requests were served in time; an open door served {without} of {all_served}. "
                "Is somebody turned away who could have been served?")


# %% key="door-hidden" role="hidden" exercise="admission"
@check("admission")
def just_in_time_is_in_time(student):
    """A promise that is met exactly is met."""
    door = student.new("SLOAdmission", 1024.0)
    expect_true(lets_in(door.call("refuse", 512, [256, 256], 1.0)), "exactly 1 s, and 1 s was promised: that is in time")
    expect_true(not lets_in(door.call("refuse", 513, [256, 256], 1.0)), "one token more than can be computed in time")


@check("admission")
def two_doors_do_not_share(student):
    """Two engines, two doors."""
    slow, fast = student.new("SLOAdmission", 100.0), student.new("SLOAdmission", 10000.0)
    expect_close(slow.call("predicted_ttft", 100, [100], 0.0), 2.0, 1e-9, what="predicted TTFT at 100 tokens a second")
    expect_close(fast.call("predicted_ttft", 100, [100], 0.0), 0.02, 1e-9, what="predicted TTFT at 10,000 tokens a second")


@check("admission")
def at_the_door_of_the_real_engine(student):
    """course-tiny, everything at once: in goes as much as the promise allows, counted in tokens."""
    door = Through(student.new("SLOAdmission", 1000.0))
    engine = Engine.from_model("course-tiny", device="cpu", num_blocks=128, admission=UsesDoor(door))
    sizes = [200, 300, 150, 100, 40, 250, 10]
    for number, size in enumerate(sizes):
        slo = None if number == 2 else SLO(ttft=0.6)
        engine.add(Request([5] * size, SamplingParams(max_tokens=2, ignore_eos=True), id=f"r{number}", slo=slo))
    refused = [event.request for event in engine.events if event.kind is EventKind.ABORTED]
    expect_equal(refused, ["r3", "r4", "r5", "r6"], what="requests that were refused (sizes 200, 300, 150 without a promise, "
                 "100, 40, 250 and 10 tokens; 600 can be read in time)")


# %% key="door-m1" role="mutant" exercise="admission" name="counts requests instead of tokens"
class SLOAdmission(SLOAdmission):
    def drop(self, prompt_tokens, ahead, waited, ttft):
        return None if ttft is None or len(ahead) < 16 else "the queue is full"


# %% key="door-m2" role="mutant" exercise="admission" name="forgets the request's own prompt"
class SLOAdmission(SLOAdmission):
    def predicted_ttft(self, prompt_tokens, pending, waited=0.0):
        return waited + sum(pending) / self.tokens_per_second


# %% key="door-m3" role="mutant" exercise="admission" name="refuses whoever was promised nothing"
class SLOAdmission(SLOAdmission):
    def drop(self, prompt_tokens, ahead, waited, ttft):
        return super().drop(prompt_tokens, ahead, waited, ttft or 0.0)


# %% key="door-m4" role="mutant" exercise="admission" name="forgets the time already waited"
class SLOAdmission(SLOAdmission):
    def drop(self, prompt_tokens, ahead, waited, ttft):
        return super().drop(prompt_tokens, ahead, 0.0, ttft)


# %% key="door-m5" role="mutant" exercise="admission" name="gives up only when the promised time is over"
class SLOAdmission(SLOAdmission):
    def refuse(self, prompt_tokens, pending, ttft):
        return super().drop(prompt_tokens, pending, 0.0, ttft)

    def drop(self, prompt_tokens, ahead, waited, ttft):
        return "too late" if ttft is not None and waited > ttft else None


# %% key="door-m6" role="mutant" exercise="admission" name="takes any queue for overload"
class SLOAdmission(SLOAdmission):
    def refuse(self, prompt_tokens, pending, ttft):
        return "busy" if ttft is not None and sum(pending) > 2 * prompt_tokens else super().refuse(prompt_tokens, pending, ttft)


# %% key="door-m7" role="mutant" exercise="admission" name="a mean prompt length for everybody"
class SLOAdmission(SLOAdmission):
    def predicted_ttft(self, prompt_tokens, pending, waited=0.0):
        return waited + (len(pending) + 1) * 1000 / self.tokens_per_second


# %% key="door-m8" role="mutant" exercise="admission" name="looks at the longest of the queue only"
class SLOAdmission(SLOAdmission):
    def predicted_ttft(self, prompt_tokens, pending, waited=0.0):
        return waited + (max(pending, default=0) + prompt_tokens) / self.tokens_per_second


# %% [markdown] key="chunks" lang="en" role="exercise" exercise="token_budget" points=4 difficulty=3 minutes=30 needs="week 5, part 3"
# ## Exercise 3 · A step that no prompt can stretch
#
# However long a prompt is, a step computes at most `budget` tokens, so that nobody who is reading along waits longer than such
# a step lasts.
#
# 1. `fill_step(running, waiting, budget)`: who gets how many tokens in this step? `running` and `waiting` are lists of pairs
#    `(id, pending)`, oldest first; `pending` is how many tokens are still to be computed. Of the running, those with 1
#    pending token **decode**; the others have computed a part of their prompt. Return a list of pairs `(id, count)`:
#
#    - first every decode gets its token: a decode never skips a step;
#    - then prompts that have been started, oldest first, each as much as it has pending or as is left of the budget;
#    - then the waiting, in the same way.
#
#    The counts add up to at most `budget`, decodes included. Nothing of the budget is left while somebody could use it, and
#    nobody is listed with 0 tokens, or twice. In which order you list them does not matter. There are never more running requests than
#    `budget`.
#
# 2. `largest_budget(seconds, decodes, tpot, budgets)`: the largest of the list `budgets` with which a full step stays within
#    `tpot` seconds while `decodes` requests are decoding. `seconds(prompt_tokens, decodes)` says how long a step lasts
#    that computes so many tokens of prompts besides one token for each decode. A budget that leaves prompts nothing
#    is none. `None` if none of them will do.
#
# Your function runs inside the course's scheduler, with memory and preemption around it.

# %% [markdown] key="chunks-help-starve" lang="en" role="help" exercise="token_budget" title="The check says that a decode skipped a step"
# The budget was spent on a prompt before all decodes had their token. Go through `running` twice: decodes first, then the others.

# %% [markdown] key="chunks-help-full" lang="en" role="help" exercise="token_budget" title="What is a full step?"
# One that uses up its budget. With a budget of 256 and 32 decodes, prompts get 224 tokens. So ask how long a step with 224 tokens of
# prompts and 32 decodes lasts.

# %% [markdown] key="chunks-help-try" lang="en" role="help" exercise="token_budget" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# fill_step([("a", 1), ("b", 1), ("c", 700)], [("d", 300)], 512)      # [("a", 1), ("b", 1), ("c", 510)]
#
# BATCHING["mine"] = uses_filler(fill_step)
# engine = Engine.from_model("course-tiny", device="cpu", batching="mine", token_budget=64)
# engine.generate(["Count from 3 to 9.", "Count from 1 to 5."], SamplingParams(max_tokens=60))
# ```

# %% key="chunks-answer" role="answer" exercise="token_budget"
def fill_step(running, waiting, budget):
    """Pairs (id, tokens) for the next step, at most `budget` tokens in all."""
    ### BEGIN SOLUTION
    decodes = [item for item in running if item[1] == 1]
    prompts = [item for item in running if item[1] > 1]
    given = []
    for name, pending in [*decodes, *prompts, *waiting]:
        count = min(pending, budget)
        if count > 0:
            given.append((name, count))
            budget -= count
    return given
    ### END SOLUTION


def largest_budget(seconds, decodes, tpot, budgets):
    """The largest budget whose full step lasts at most `tpot` seconds, or None."""
    ### BEGIN SOLUTION
    fitting = [b for b in budgets if b > decodes and seconds(b - decodes, decodes) <= tpot]
    return max(fitting, default=None)
    ### END SOLUTION


# %% key="chunks-check" role="check" exercise="token_budget"
def filled(student, running, waiting, budget):
    """The student's step as a list of pairs."""
    got = student.call("fill_step", running, waiting, budget)
    expect_true(type(got) is list and all(type(p) in (tuple, list) and len(p) == 2 for p in got),
                f"fill_step returns a list of pairs (id, tokens); this was {got!r}")
    return [tuple(pair) for pair in got]


@check("token_budget")
def decodes_first(student):
    """Two decodes, a prompt under way, one waiting: the decodes get theirs, the oldest prompt the rest."""
    got = filled(student, [("c", 700), ("a", 1), ("b", 1)], [("d", 300)], 512)
    expect_equal(sorted(got), [("a", 1), ("b", 1), ("c", 510)], what="tokens of the step", hints=[
        ([("c", 512)], "the prompt took the whole budget, and two users wait for their next token: decodes first"),
        ([("a", 1), ("b", 1), ("c", 512)], "514 tokens: decodes count in the budget too"),
        ([("a", 1), ("b", 1)], "the prompt does not fit as a whole; give it a chunk"),
        ([("a", 1), ("b", 1), ("c", 255), ("d", 255)], "prompts one after the other, oldest first: shared out, both come late"),
        ([("a", 1), ("b", 1), ("c", 210), ("d", 300)], "a prompt once begun goes on before a new one begins"),
        ([("a", 1), ("b", 1), ("c", 510), ("d", 0)], "nobody is listed with 0 tokens")])


@check("token_budget")
def nothing_is_left_over(student):
    """A short rest of one prompt leaves room for the next, and that for a third."""
    got = filled(student, [("a", 1), ("b", 100)], [("c", 200), ("d", 900), ("e", 50)], 512)
    expect_equal(sorted(got), [("a", 1), ("b", 100), ("c", 200), ("d", 211)], what="tokens of the step", hints=[
        ([("a", 1), ("b", 100)], "211 tokens and more of the budget are left over, and others wait"),
        ([("a", 1), ("b", 100), ("c", 200)], "211 tokens of the budget are left over: d may get a chunk"),
        ([("a", 1), ("b", 100), ("c", 200), ("e", 50)], "d is passed over because it does not fit as a whole; give it a chunk"),
        ([("a", 1), ("b", 100), ("c", 200), ("d", 211), ("e", 0)], "nobody is listed with 0 tokens")])
    expect_equal(filled(student, [], [], 512), [], what="tokens of a step with nobody there")


def linear_seconds(prompt_tokens, decodes):
    """A step of 10 ms, plus 1/4096 s for each token beyond 128."""
    return 0.01 + max(0, prompt_tokens + decodes - 128) / 4096


@check("token_budget")
def the_largest_that_keeps_the_promise(student):
    """Of 64 to 2,048 tokens, 256 is the largest whose full step lasts at most 50 ms."""
    asked = []

    def seconds(prompt_tokens, decodes):
        asked.append((prompt_tokens, decodes))
        return linear_seconds(prompt_tokens, decodes)
    budgets = [64, 128, 256, 512, 1024, 2048]
    got = student.call("largest_budget", Served(seconds), 32, 0.05, budgets)
    expect_equal(got, 256, what="budget for a TPOT of 50 ms", hints={
        64: "it keeps the promise, but so does 256: prompts would come in slower than they must",
        512: "a full step of 512 tokens lasts 104 ms", 2048: "a full step of 2,048 tokens lasts 479 ms"})
    expect_true((224, 32) in asked, f"a full step of 256 tokens with 32 decodes has 224 tokens of prompts; asked were {asked[:6]}. "
                "Decodes count in the budget")
    expect_equal(student.call("largest_budget", Served(linear_seconds), 32, 0.005, budgets), None, what="budget for a TPOT of 5 ms")


def prompts_into_decodes(batching, budget, executor, pool, prompts=(300, 170)):
    """Four requests decode, then long prompts come; the engine afterwards."""
    engine = Engine(executor, pool, batching=batching, token_budget=budget, max_running=16, clock=VirtualClock(), checked=True)
    for number in range(4):
        engine.add(Request([3 + number] * 12, SamplingParams(max_tokens=40, ignore_eos=True), id=f"decode-{number}"))
    while engine.counters.steps < 8:
        engine.step()
    for number, size in enumerate(prompts):
        engine.add(Request([9 + number] * size, SamplingParams(max_tokens=4, ignore_eos=True), id=f"prompt-{number}"))
    return run(engine)


@check("token_budget")
def in_the_scheduler(student):
    """In the course's scheduler: no step above its budget, no decode skips a step, and not a token is changed."""
    BATCHING["yours"] = uses_filler(partial(filled, student))
    executor = MockExecutor(16)
    engine = prompts_into_decodes("yours", 48, executor, BlockPool(128, 16))
    steps = [event.data["batch"] for event in engine.events if event.kind is EventKind.STEP]
    largest = max(sum(count for _, _, count in batch) for batch in steps)
    expect_true(largest <= 48, f"a step computed {largest} tokens, the budget is 48")
    for name, request in engine.requests.items():
        expect_equal(request.output, executor.continue_alone(request.prompt, request.sampling.max_tokens, True),
                     what=f"tokens of {name}")
        took_part = [number for number, batch in enumerate(steps) if name in [who for who, _, _ in batch]]
        if name.startswith("decode"):
            expect_true(took_part[-1] - took_part[0] + 1 == len(took_part), f"{name} was left out of "
                        f"{took_part[-1] - took_part[0] + 1 - len(took_part)} steps while it was decoding")


# %% key="chunks-hidden" role="hidden" exercise="token_budget"
@check("token_budget")
def begun_before_new(student):
    """Prompts under way go on in their order before anybody new begins."""
    got = filled(student, [("a", 40), ("b", 1), ("c", 90)], [("d", 10)], 100)
    expect_equal(sorted(got), [("a", 40), ("b", 1), ("c", 59)], what="tokens of the step", hints=[
        ([("a", 40), ("b", 1), ("c", 49), ("d", 10)], "d is new: c has been begun and goes first")])
    expect_equal(sorted(filled(student, [("a", 1), ("b", 1)], [("d", 10)], 2)), [("a", 1), ("b", 1)], what="a budget that decodes use up")


@check("token_budget")
def a_last_token_of_a_prompt(student):
    """A prompt with one token left is like a decode; a prompt of one token may begin."""
    got = filled(student, [("a", 5), ("b", 1)], [("c", 1), ("d", 7)], 8)
    expect_equal(sorted(got), [("a", 5), ("b", 1), ("c", 1), ("d", 1)], what="tokens of the step")


@check("token_budget")
def prompts_must_get_something(student):
    """A budget that the decodes use up is none, however well it keeps the promise; the order of the list is no help."""
    got = student.call("largest_budget", Served(linear_seconds), 64, 0.02, [16, 32, 64])
    expect_equal(got, None, what="budget of 16, 32 or 64 with 64 decodes", hints={
        64: "64 decodes use up 64 tokens: no prompt would ever be read"})
    got = student.call("largest_budget", Served(linear_seconds), 100, 0.05, [512, 128, 256, 64])
    expect_equal(got, 256, what="budget, from a list in no order")
    exact = student.call("largest_budget", Served(lambda prompt, decodes: (prompt + decodes) / 1024), 10, 0.25, [128, 256, 512])
    expect_equal(exact, 256, what="budget whose step lasts exactly as long as promised")


@check("token_budget")
def on_the_real_model(student):
    """course-tiny says the same with your chunks as with whole prompts."""
    BATCHING["yours"] = uses_filler(partial(filled, student))
    said = {}
    for batching, budget in (("continuous", 512), ("yours", 24)):
        engine = Engine.from_model("course-tiny", device="cpu", batching=batching, token_budget=budget, max_running=16)
        done = engine.generate(["Count from 3 to 9.", "Repeat: blue river stone.", "What is the largest of 9, 14, 54?"],
                               SamplingParams(max_tokens=30))
        said[batching] = [completion.tokens for completion in done]
    expect_equal(said["yours"], said["continuous"], what="tokens of course-tiny")


# %% key="chunks-m1" role="mutant" exercise="token_budget" name="prompts first: the budget starves decodes"
def fill_step(running, waiting, budget):
    given = []
    for name, pending in sorted(running, key=lambda item: -item[1]) + waiting:
        count = min(pending, budget)
        if count > 0:
            given.append((name, count))
            budget -= count
    return given


# %% key="chunks-m2" role="mutant" exercise="token_budget" name="decodes do not count in the budget"
_fill_step = fill_step


def fill_step(running, waiting, budget):
    decodes = [item for item in running if item[1] == 1]
    return decodes + _fill_step([item for item in running if item[1] > 1], waiting, budget)


# %% key="chunks-m3" role="mutant" exercise="token_budget" name="whole prompts or nothing"
_fill_step = fill_step


def fill_step(running, waiting, budget):
    pending = dict([*running, *waiting])
    return [(name, count) for name, count in _fill_step(running, waiting, budget) if count == pending[name]]


# %% key="chunks-m4" role="mutant" exercise="token_budget" name="one prompt a step"
_fill_step = fill_step


def fill_step(running, waiting, budget):
    decodes = [item for item in running if item[1] == 1]
    rest = [item for item in _fill_step(running, waiting, budget) if item not in decodes]
    return decodes + rest[:1]


# %% key="chunks-m5" role="mutant" exercise="token_budget" name="new prompts before those that have begun"
_fill_step = fill_step


def fill_step(running, waiting, budget):
    decodes = [item for item in running if item[1] == 1]
    return _fill_step(decodes, [*waiting, *(item for item in running if item[1] > 1)], budget)


# %% key="chunks-m6" role="mutant" exercise="token_budget" name="lists requests with no tokens"
_fill_step = fill_step


def fill_step(running, waiting, budget):
    given = _fill_step(running, waiting, budget)
    return given + [(name, 0) for name, _ in [*running, *waiting] if name not in dict(given)]


# %% key="chunks-m7" role="mutant" exercise="token_budget" name="the smallest budget that keeps the promise"
def largest_budget(seconds, decodes, tpot, budgets):
    fitting = [b for b in budgets if b > decodes and seconds(b - decodes, decodes) <= tpot]
    return min(fitting, default=None)


# %% key="chunks-m8" role="mutant" exercise="token_budget" name="adds the decodes on top of the budget"
def largest_budget(seconds, decodes, tpot, budgets):
    return max((b for b in budgets if b > decodes and seconds(b, decodes) <= tpot), default=None)


# %% key="chunks-m9" role="mutant" exercise="token_budget" name="a budget that leaves prompts nothing"
def largest_budget(seconds, decodes, tpot, budgets):
    return max((b for b in budgets if seconds(max(0, b - decodes), decodes) <= tpot), default=None)


# %% [markdown] key="quota" lang="en" role="exercise" exercise="quota" points=4 difficulty=4 minutes=30 needs="week 5, part 4"
# ## Exercise 4 · A share of the memory, and none of it idle
#
# Each tenant has a share of the KV memory: a tenant with share 0.25 of 64 blocks is **entitled** to 16 of them (rounded down). Two
# promises are made at once:
#
# - *isolation*: what a tenant is entitled to it gets, whatever the others hold;
# - *work conservation*: while it does not want it, others may use it. No block is idle while somebody could use it.
#
# Both hold if memory beyond the own share is only **borrowed**. Write the class. `held` is a dictionary with the blocks that
# each tenant holds now; who is not in it holds none, and who is not in `shares` is entitled to none.
#
# 1. `above(tenant, need, held)`: how far above its share would the tenant be with `need` more blocks? Negative when below.
# 2. `may_start(tenant, need, held, free, others)`: may a waiting request that needs `need` blocks start, when `free` blocks are
#    free? Only if they suffice. Then yes, if it stays within its share. Beyond its share it borrows: yes, unless
#    one of the others waits for what is its own. `others` says, for every other tenant with somebody waiting, how many
#    blocks that one needs.
# 3. `victim(running, held)`: memory has run out; who gives way? `running` is a list of pairs `(tenant, blocks)`, oldest first.
#    Return an **index** into it: of the tenant that is furthest above its share (in blocks) the youngest request. If nobody
#    is above its share, the youngest of all.
#
# The course's scheduler asks `may_start` for the first request of each tenant. If somebody wants what is its own and it is
# not free, it calls `victim` until it is: loans are called back.

# %% [markdown] key="quota-help-idle" lang="en" role="help" exercise="quota" title="The check says that blocks are idle while somebody waits"
# A share is not a limit. When no other tenant waits for what is its own, a tenant may take everything that is free.

# %% [markdown] key="quota-help-youngest" lang="en" role="help" exercise="quota" title="Why the youngest?"
# A victim loses its cache and computes it again. The youngest has the least to lose, and the oldest is nearest to its end. (With
# equal distances above the share, any of these tenants will do; the checks do not try that.)

# %% [markdown] key="quota-help-try" lang="en" role="help" exercise="quota" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# quota = TenantQuota({"ana": 0.25, "bo": 0.5}, 64)
# quota.above("ana", 6, {"ana": 12})                     # 2
# quota.may_start("ana", 6, {"ana": 12}, 52, {})         # True: she borrows 2 blocks that nobody wants
# quota.victim([("bo", 30), ("ana", 12), ("ana", 6)], {"ana": 18, "bo": 30})     # 2
# ```

# %% key="quota-answer" role="answer" exercise="quota"
class TenantQuota:
    """Shares of the KV memory that may be lent and are called back."""

    def __init__(self, shares, num_blocks):
        """`shares`: fraction of the pool for each tenant; `num_blocks`: blocks of the pool."""
        ### BEGIN SOLUTION
        self.quota = {tenant: int(share * num_blocks) for tenant, share in shares.items()}
        ### END SOLUTION

    def above(self, tenant, need, held):
        """Blocks above its share that the tenant would hold with `need` more."""
        ### BEGIN SOLUTION
        return held.get(tenant, 0) + need - self.quota.get(tenant, 0)
        ### END SOLUTION

    def may_start(self, tenant, need, held, free, others):
        """Whether a waiting request of the tenant may start now."""
        ### BEGIN SOLUTION
        if need > free:
            return False
        if self.above(tenant, need, held) <= 0:
            return True
        return all(self.above(other, blocks, held) > 0 for other, blocks in others.items())
        ### END SOLUTION

    def victim(self, running, held):
        """Index of the running request that gives way."""
        ### BEGIN SOLUTION
        furthest = max((tenant for tenant, _ in running), key=lambda tenant: self.above(tenant, 0, held))
        if self.above(furthest, 0, held) <= 0:
            return len(running) - 1
        return max(index for index, (tenant, _) in enumerate(running) if tenant == furthest)
        ### END SOLUTION


# %% key="quota-check" role="check" exercise="quota"
def two_tenants(student):
    """ana has a quarter of 64 blocks, bo a half; eve has nothing."""
    return student.new("TenantQuota", {"ana": 0.25, "bo": 0.5}, 64)


@check("quota")
def above_the_share(student):
    """ana is entitled to 16 of 64 blocks."""
    quota = two_tenants(student)
    expect_equal(quota.call("above", "ana", 6, {"ana": 12, "bo": 30}), 2, what="ana holds 12 and wants 6 more", hints={
        -4: "`need` comes on top of what she holds", -10: "what she holds counts too", 18: "how far above 16, not how much in all"})
    expect_equal(quota.call("above", "bo", 0, {}), -32, what="bo holds nothing")
    expect_equal(quota.call("above", "eve", 3, {"ana": 1}), 3, what="eve has no share and wants 3")


@check("quota")
def idle_memory_is_lent(student):
    """ana may take more than her share while nobody else wants theirs."""
    quota = two_tenants(student)
    expect_equal(quota.call("may_start", "ana", 6, {"ana": 16}, 48, {}), True, what="ana holds her 16 blocks and wants 6; 48 are "
                 "free and nobody else waits", hints={False: "a share is not a limit: 48 blocks would lie idle"})
    expect_equal(quota.call("may_start", "eve", 6, {"ana": 16}, 48, {}), True, what="eve has no share, 48 blocks are free", hints={
        False: "she may borrow what nobody wants"})
    expect_equal(quota.call("may_start", "ana", 6, {"ana": 16, "bo": 44}, 4, {}), False, what="6 blocks wanted, 4 are free", hints={
        True: "there are only 4 free blocks"})
    expect_equal(quota.call("may_start", "ana", 6, {"bo": 60}, 4, {}), False, what="ana is within her share, but only 4 blocks are "
                 "free", hints={True: "entitled or not, there are only 4 free blocks; the scheduler calls loans back first"})


@check("quota")
def entitled_goes_before_borrowing(student):
    """ana may not borrow while bo waits for what is his own; she may when bo, too, wants to borrow."""
    quota = two_tenants(student)
    held = {"ana": 16, "bo": 20}
    expect_equal(quota.call("may_start", "ana", 6, held, 28, {"bo": 12}), False, what="ana wants to borrow 6; bo waits for 12 and "
                 "would hold 32, his share", hints={True: "bo waits for what is his own: nothing is lent now"})
    expect_equal(quota.call("may_start", "ana", 6, held, 28, {"bo": 13}), True, what="ana wants to borrow 6; bo waits for 13 and "
                 "would hold 33, more than his share", hints={False: "bo wants to borrow as well: nobody waits for what is his own"})
    expect_equal(quota.call("may_start", "ana", 6, {"ana": 10, "bo": 20}, 34, {"bo": 12}), True, what="ana wants 6 and stays within "
                 "her share", hints={False: "what is within her share she gets, whoever else waits"})


@check("quota")
def who_gives_way(student):
    """The youngest request of the tenant furthest above its share, in blocks."""
    quota = two_tenants(student)
    running = [("bo", 18), ("ana", 14), ("ana", 10), ("bo", 16)]
    got = quota.call("victim", running, {"ana": 24, "bo": 34})
    expect_equal(got, 2, what="victim among bo 18, ana 14, ana 10, bo 16 (ana is 8 above her share, bo 2 above his)", hints={
        3: "the youngest of all is bo's; bo holds more than ana, but he is only 2 above his share, she is 8 above hers",
        0: "bo holds more, but only 2 above his share; and of a tenant the youngest gives way", 1: "ana's oldest has the most to lose: "
        "the youngest gives way"})
    got = quota.call("victim", [("ana", 8), ("bo", 30), ("ana", 8)], {"ana": 16, "bo": 30})
    expect_equal(got, 2, what="victim when nobody is above its share: the youngest of all")


def hog_and_guest(student, blocks=32, guests=3):
    """bo fills the memory, then ana comes: blocks used by bo alone, and how many steps later each request first got tokens."""
    pool = BlockPool(blocks, 8)
    quota = Through(student.new("TenantQuota", {"ana": 0.5, "bo": 0.5}, blocks))
    BATCHING["yours"] = uses_quota
    executor = MockExecutor(8)
    engine = Engine(executor, pool, policy=UsesQuota(quota, pool), batching="yours", token_budget=256, max_running=32,
                    clock=VirtualClock(), checked=True)
    for number in range(8):
        engine.add(Request([1 + number] * 30, SamplingParams(max_tokens=34, ignore_eos=True), id=f"bo-{number}", tenant="bo"))
    while engine.counters.steps < 6:
        engine.step()
    full = pool.num_used
    for number in range(guests):
        engine.add(Request([40 + number] * 20, SamplingParams(max_tokens=8, ignore_eos=True), id=f"ana-{number}", tenant="ana"))
    mark = engine.counters.steps
    run(engine)
    started = {}
    for event in engine.events:
        if event.kind is EventKind.STEP:
            for name, _, _ in event.data["batch"]:
                started.setdefault(name, event.data["step"] - mark)
    for name, request in engine.requests.items():
        expect_equal(request.output, executor.continue_alone(request.prompt, request.sampling.max_tokens, True),
                     what=f"tokens of {name}, through preemption and all")
    return full, started


@check("quota")
def in_the_scheduler_with_a_hog(student):
    """bo alone uses all 32 blocks; when ana comes, she starts in the next step."""
    full, started = hog_and_guest(student)
    expect_true(full > 24, f"bo was alone with 8 requests and used {full} of 32 blocks: the rest lay idle while his requests waited")
    late = {name: step for name, step in started.items() if name.startswith("ana") and step > 3}
    expect_true(not late, f"ana's requests need 9 of the 16 blocks that are hers; started after so many steps: {late}. What was lent "
                "must come back when its owner wants it")


# %% key="quota-hidden" role="hidden" exercise="quota"
@check("quota")
def shares_are_rounded_down(student):
    """A third of 10 blocks are 3, and all of them together may be more than the tenants' shares."""
    quota = student.new("TenantQuota", {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 10)
    expect_equal([quota.call("above", tenant, 4, {}) for tenant in "abc"], [1, 1, 1], what="blocks above the share with 4")
    expect_equal(quota.call("may_start", "a", 3, {}, 3, {"b": 3, "c": 3}), True, what="exactly its share, exactly what is free")
    expect_equal(quota.call("may_start", "a", 4, {"c": 3}, 7, {"b": 3, "c": 3}), False, what="a wants to borrow, b waits for its own")


@check("quota")
def distance_not_size(student):
    """A tenant with a large share may hold most of the memory and still be the one that is disturbed."""
    quota = student.new("TenantQuota", {"big": 0.75, "small": 0.125}, 80)
    running = [("small", 12), ("big", 40), ("small", 6), ("big", 21)]
    expect_equal(quota.call("victim", running, {"small": 18, "big": 61}), 2, what="victim: small is 8 above, big 1 above", hints={
        3: "big holds more, but is only 1 above its share", 0: "the youngest of small, not its oldest"})


@check("quota")
def loans_do_not_hurt_in_the_end(student):
    """With a hog and many guests everybody finishes, and the guests wait for each other, not for the hog."""
    full, started = hog_and_guest(student, guests=6)
    expect_true(full > 24, f"bo was alone and used {full} of 32 blocks: memory lay idle")
    expect_true(max(started[f"ana-{k}"] for k in range(4)) <= 4, f"ana's first four requests need 12 of her 16 blocks; they started "
                f"after {[started[f'ana-{k}'] for k in range(4)]} steps")


# %% key="quota-m1" role="mutant" exercise="quota" name="a hard limit that leaves memory idle"
class TenantQuota(TenantQuota):
    def may_start(self, tenant, need, held, free, others):
        return need <= free and self.above(tenant, need, held) <= 0


# %% key="quota-m2" role="mutant" exercise="quota" name="no quota: whoever finds room may have it"
class TenantQuota(TenantQuota):
    def may_start(self, tenant, need, held, free, others):
        return need <= free


# %% key="quota-m3" role="mutant" exercise="quota" name="lends nothing while anybody at all waits"
class TenantQuota(TenantQuota):
    def may_start(self, tenant, need, held, free, others):
        return need <= free and (self.above(tenant, need, held) <= 0 or not others)


# %% key="quota-m4" role="mutant" exercise="quota" name="the youngest of all gives way, borrower or not"
class TenantQuota(TenantQuota):
    def victim(self, running, held):
        return len(running) - 1


# %% key="quota-m5" role="mutant" exercise="quota" name="whoever holds most gives way, whatever its share"
class TenantQuota(TenantQuota):
    def victim(self, running, held):
        most = max((tenant for tenant, _ in running), key=lambda tenant: held[tenant])
        return max(index for index, (tenant, _) in enumerate(running) if tenant == most)


# %% key="quota-m6" role="mutant" exercise="quota" name="the oldest of the borrower gives way"
class TenantQuota(TenantQuota):
    def victim(self, running, held):
        index = super().victim(running, held)
        return min(i for i, (tenant, _) in enumerate(running) if tenant == running[index][0])


# %% key="quota-m7" role="mutant" exercise="quota" name="looks at what is held, not at what is wanted"
class TenantQuota(TenantQuota):
    def above(self, tenant, need, held):
        return held.get(tenant, 0) - self.quota.get(tenant, 0)


# %% key="quota-m8" role="mutant" exercise="quota" name="within its share it starts, free or not"
class TenantQuota(TenantQuota):
    def may_start(self, tenant, need, held, free, others):
        return self.above(tenant, need, held) <= 0 or super().may_start(tenant, need, held, free, others)


# %% [markdown] key="fair" lang="en" role="exercise" exercise="fairness" points=2 difficulty=2 minutes=15 needs="week 5, part 4"
# ## Exercise 5 · Is it fair?
#
# Fair to whom, and in what? Not in requests: one may be a hundred times as large as another. In **service**: what the engine
# has done for a tenant, in weighted tokens. Output costs more than input, because it comes one token a step.
#
# 1. `service(events, input_weight, output_weight)`: a dictionary from each tenant in the log to its service so far. The
#    events are those of exercise 1, and `"SCHEDULED"`: the engine has begun with the request. A prompt is charged
#    **once**, when the engine **first** begins with it (a request that was preempted begins again, and pays nothing for that);
#    each new token when it goes out. A tenant that only waits has service 0.
# 2. `jain(values)`: Jain's index (1984) of a list of n services, (Σx)² / (n · Σx²). It is 1 when all are equal, 1/n when
#    one has everything. If nobody has anything it is 1: they are equal.

# %% [markdown] key="fair-help-zero" lang="en" role="help" exercise="fairness" title="My index is 1 although one tenant got nothing"
# Then that tenant is missing from the list: put everybody in who asked for something, with 0 if need be.

# %% key="fair-answer" role="answer" exercise="fairness"
def service(events, input_weight=1.0, output_weight=2.0):
    """Weighted tokens served to each tenant: a dictionary."""
    ### BEGIN SOLUTION
    tenant, prompt, served, begun = {}, {}, {}, set()
    for event in events:
        if event.kind == "QUEUED":
            tenant[event.request], prompt[event.request] = event.data["tenant"], event.data["prompt_tokens"]
            served.setdefault(event.data["tenant"], 0.0)
        elif event.kind == "SCHEDULED" and event.request not in begun:
            begun.add(event.request)
            served[tenant[event.request]] += input_weight * prompt[event.request]
        elif event.kind == "NEW_TOKENS":
            served[tenant[event.request]] += output_weight * len(event.data["tokens"])
    return served
    ### END SOLUTION


def jain(values):
    """Jain's fairness index of a list of numbers, none negative."""
    ### BEGIN SOLUTION
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
    ### END SOLUTION


# %% key="fair-check" role="check" exercise="fairness"
def told(*happenings):
    """A log written by hand: (kind, request, data), a second apart."""
    return [Event(float(time), kind, name, data) for time, (kind, name, data) in enumerate(happenings)]


def queued(name, tenant, prompt):
    """The arrival of a request."""
    return EventKind.QUEUED, name, {"tenant": tenant, "prompt_tokens": prompt, "max_tokens": 9}


def begins(name):
    """The engine begins with a request."""
    return EventKind.SCHEDULED, name, {"computed": 0}


def token(name):
    """A token goes out."""
    return EventKind.NEW_TOKENS, name, {"tokens": [7]}


@check("fairness")
def service_in_tokens(student):
    """ana reads 100 tokens and writes 2, bo reads 10 and writes 3, eve waits."""
    log = told(queued("r0", "ana", 100), queued("r1", "bo", 10), queued("r2", "eve", 50), begins("r0"), begins("r1"),
               token("r0"), token("r1"), token("r0"), token("r1"), token("r1"))
    expect_equal(student.call("service", log, 1.0, 2.0), {"ana": 104.0, "bo": 16.0, "eve": 0.0}, what="service", hints=[
        ({"ana": 104.0, "bo": 16.0}, "eve asked and got nothing: her service is 0, and she belongs in the list"),
        ({"ana": 104.0, "bo": 16.0, "eve": 50.0}, "eve's prompt only waits; it is charged when the engine begins with it"),
        ({"ana": 102.0, "bo": 13.0, "eve": 0.0}, "a new token weighs output_weight"),
        ({"ana": 1.0, "bo": 1.0, "eve": 0.0}, "requests were counted, not tokens"),
        ({"ana": 4.0, "bo": 6.0, "eve": 0.0}, "prompts were not counted")])


@check("fairness")
def a_second_start_is_free(student):
    """A request that was preempted begins again, but its prompt was charged already."""
    log = told(queued("r0", "ana", 100), begins("r0"), token("r0"), (EventKind.PREEMPTED, "r0", {"computed": 101, "freed": 7}),
               begins("r0"), token("r0"))
    expect_equal(student.call("service", log, 1.0, 2.0), {"ana": 104.0}, what="service", hints=[
        ({"ana": 204.0}, "its prompt was charged twice: the engine has itself to thank for the second time")])


@check("fairness")
def jains_index(student):
    """Equal services: 1. One of four has everything: 1/4. In between: in between."""
    expect_close(student.call("jain", [5.0, 5.0, 5.0]), 1.0, 1e-9, what="index of 5, 5, 5")
    expect_close(student.call("jain", [8.0, 0.0, 0.0, 0.0]), 0.25, 1e-9, what="index of 8, 0, 0, 0", hints=[
        (1.0, "those who got nothing count too"), (0.0, "that is smallest over largest, another index"),
        (4.0, "upside down"), (64.0, "n is missing"), (1 / 64, "is it (Σx)², and n · Σx²?")])
    expect_close(student.call("jain", [1.0, 2.0]), 0.9, 1e-9, what="index of 1, 2", hints=[
        (0.5, "that is smallest over largest, another index"), (1.8, "n is missing"), (10 / 9, "upside down")])


# %% key="fair-hidden" role="hidden" exercise="fairness"
@check("fairness")
def nobody_has_anything(student):
    """Nothing for anybody is equal."""
    expect_close(student.call("jain", [0.0, 0.0]), 1.0, 1e-9, what="index of 0, 0")
    expect_close(student.call("jain", [3.0, 0.0, 3.0]), 2 / 3, 1e-9, what="index of 3, 0, 3")


@check("fairness")
def on_a_log_of_the_engine(student):
    """Two tenants in a pool that is too small: preempted or not, everybody pays for prompt and output once."""
    engine = Engine(MockExecutor(8), BlockPool(20, 8), token_budget=64, max_running=8, clock=VirtualClock(), checked=True)
    for number in range(9):
        engine.add(Request([1 + number] * (10 + number), SamplingParams(max_tokens=30, ignore_eos=True),
                           tenant=("ana", "bo", "bo")[number % 3]))
    run(engine)
    want = {tenant: sum(3.0 * len(r.prompt) + 5.0 * len(r.output) for r in engine.requests.values() if r.tenant == tenant)
            for tenant in ("ana", "bo")}
    expect_true(engine.counters.preemptions > 0, "this check is about preemption, and nobody was preempted")
    expect_equal(student.call("service", list(engine.events), 3.0, 5.0), want, what="service at weights 3 and 5")


# %% key="fair-m1" role="mutant" exercise="fairness" name="counts requests, not tokens"
def service(events, input_weight=1.0, output_weight=2.0):
    tenant = {e.request: e.data["tenant"] for e in events if e.kind == "QUEUED"}
    begun = {e.request for e in events if e.kind == "SCHEDULED"}
    return {name: float(sum(tenant[r] == name for r in begun)) for name in set(tenant.values())}


# %% key="fair-m2" role="mutant" exercise="fairness" name="charges a prompt again after preemption"
def service(events, input_weight=1.0, output_weight=2.0):
    tenant = {e.request: e.data["tenant"] for e in events if e.kind == "QUEUED"}
    prompt = {e.request: e.data["prompt_tokens"] for e in events if e.kind == "QUEUED"}
    served = dict.fromkeys(tenant.values(), 0.0)
    for event in events:
        if event.kind == "SCHEDULED":
            served[tenant[event.request]] += input_weight * prompt[event.request]
        if event.kind == "NEW_TOKENS":
            served[tenant[event.request]] += output_weight * len(event.data["tokens"])
    return served


# %% key="fair-m3" role="mutant" exercise="fairness" name="charges prompts that still wait"
_service = service


def service(events, input_weight=1.0, output_weight=2.0):
    served = _service(events, 0.0, output_weight)
    for event in events:
        if event.kind == "QUEUED":
            served[event.data["tenant"]] += input_weight * event.data["prompt_tokens"]
    return served


# %% key="fair-m4" role="mutant" exercise="fairness" name="an output token weighs as much as one of the prompt"
_service = service


def service(events, input_weight=1.0, output_weight=2.0):
    return _service(events, input_weight, input_weight)


# %% key="fair-m5" role="mutant" exercise="fairness" name="leaves out who got nothing"
_service = service


def service(events, input_weight=1.0, output_weight=2.0):
    return {tenant: value for tenant, value in _service(events, input_weight, output_weight).items() if value}


# %% key="fair-m6" role="mutant" exercise="fairness" name="Jain's index of those who got something"
_jain = jain


def jain(values):
    return _jain([value for value in values if value] or [1.0])


# %% key="fair-m7" role="mutant" exercise="fairness" name="smallest over largest"
def jain(values):
    return min(values) / max(values) if max(values) else 1.0


# %% [markdown] key="vtc" lang="en" role="exercise" exercise="vtc" points=4 difficulty=3 minutes=30 needs="week 5, part 4"
# ## Exercise 6 · A virtual token counter
#
# First come, first served is fair to requests: who sends twice as many gets twice the service. A **virtual token counter** (VTC,
# Sheng et al., 2024) is fair to tenants. Each has a counter of the service it has been given, and whoever has the
# smallest goes next. Write the class:
#
# - `counter(tenant)`: its counter, 0 at first. The engine takes the waiting tenant with the smallest counter.
# - `on_scheduled(tenant, prompt_tokens)`: the engine begins with a request: charge `input_weight` for each token of its prompt.
# - `on_tokens(tenant, delivered)`: so many new tokens went out to the tenant: charge `output_weight` for each.
# - a tenant with `weights[tenant]` = 2 is entitled to twice the service: what it is charged is **divided** by its weight (1 if it has
#   none).
# - `on_queued(tenant, waiting)`: one of its requests arrives. `waiting` lists the tenants that have requests waiting at this
#   moment (the new one not counted). If the tenant is among them, or nobody is waiting: nothing happens. Else it comes back
#   from a pause: its counter is **lifted** to the smallest counter of those waiting, if it is below that. It is never lowered.
#
# The lift is the heart of it: who was away has not saved up anything.

# %% [markdown] key="vtc-help-lift" lang="en" role="help" exercise="vtc" title="What happens without the lift?"
# A tenant that was away for an hour comes back with the counter of an hour ago. The others have been charged since, so it
# goes first, again and again, until it has caught up with an hour's service. Meanwhile all others wait.

# %% [markdown] key="vtc-help-try" lang="en" role="help" exercise="vtc" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# vtc = VirtualTokenCounter()
# vtc.on_queued("ana", []); vtc.on_scheduled("ana", 100); vtc.on_tokens("ana", 30); vtc.counter("ana")     # 160
#
# engine = Engine.simulated(model="Llama 2 7B", gpu="A100 80 GB", policy=UsesCounter(VirtualTokenCounter()))
# ```

# %% key="vtc-answer" role="answer" exercise="vtc"
class VirtualTokenCounter:
    """Service given to each tenant, with no credit for being away."""

    def __init__(self, input_weight=1.0, output_weight=2.0, weights=None):
        """Weights of a prompt token and of a new token; `weights`: a dictionary of tenants' weights."""
        ### BEGIN SOLUTION
        self.input_weight, self.output_weight = input_weight, output_weight
        self.weights, self.counters = dict(weights or {}), {}
        ### END SOLUTION

    def counter(self, tenant):
        """The tenant's counter."""
        ### BEGIN SOLUTION
        return self.counters.get(tenant, 0.0)
        ### END SOLUTION

    def on_queued(self, tenant, waiting):
        """A request of the tenant arrives while the tenants in `waiting` have requests waiting."""
        ### BEGIN SOLUTION
        if waiting and tenant not in waiting:
            self.counters[tenant] = max(self.counter(tenant), min(self.counter(other) for other in waiting))
        ### END SOLUTION

    def on_scheduled(self, tenant, prompt_tokens):
        """The engine begins with a request of the tenant."""
        ### BEGIN SOLUTION
        self.charge(tenant, self.input_weight * prompt_tokens)
        ### END SOLUTION

    def on_tokens(self, tenant, delivered):
        """So many new tokens went out to the tenant."""
        ### BEGIN SOLUTION
        self.charge(tenant, self.output_weight * delivered)

    def charge(self, tenant, amount):
        """Add to the tenant's counter."""
        self.counters[tenant] = self.counter(tenant) + amount / self.weights.get(tenant, 1.0)
        ### END SOLUTION


# %% key="vtc-check" role="check" exercise="vtc"
def counting(student, *arguments, **served):
    """A counter on which each tenant has been served so many prompt tokens."""
    vtc = student.new("VirtualTokenCounter", *arguments)
    for tenant, tokens in served.items():
        vtc.call("on_scheduled", tenant, tokens)
    return vtc


@check("vtc")
def counts_service(student):
    """A prompt of 100 and 30 new tokens are 160; counters of tenants and of objects stay apart."""
    vtc, other = counting(student, ana=100), counting(student, ana=1)
    vtc.call("on_tokens", "ana", 29)
    vtc.call("on_tokens", "ana", 1)
    expect_equal(vtc.call("counter", "ana"), 160.0, what="counter of ana", hints={
        130.0: "a new token weighs 2", 100.0: "new tokens are charged too", 60.0: "the prompt is charged too",
        104.0: "30 new tokens went out, in two calls", 1.0: "requests were counted, not tokens", 3.0: "calls were counted, not tokens"})
    expect_equal([vtc.call("counter", "bo"), other.call("counter", "ana")], [0.0, 1.0], what="counters of others")


@check("vtc")
def no_credit_for_being_away(student):
    """Who comes back is lifted to the smallest counter of those waiting."""
    vtc = counting(student, ana=100, bo=5000, eve=7000)
    vtc.call("on_queued", "ana", ["bo", "eve"])
    expect_equal(vtc.call("counter", "ana"), 5000.0, what="counter of ana, who was away, with bo (5000) and eve (7000) waiting", hints={
        100.0: "ana keeps what she has saved while away: she would go first until she has caught up 4,900 tokens. Lift her",
        7000.0: "lifted to the largest: she is punished for having been away", 6000.0: "the smallest of those waiting, not the mean",
        0.0: "her counter was set back: now she goes first for even longer"})


@check("vtc")
def never_lowered_never_lifted_while_waiting(student):
    """Who is ahead stays ahead; who is waiting keeps its claim; when nobody waits nothing happens."""
    vtc = counting(student, ana=100, bo=5000, eve=7000)
    vtc.call("on_queued", "eve", ["ana", "bo"])
    expect_equal(vtc.call("counter", "eve"), 7000.0, what="counter of eve, who is above the others", hints={
        100.0: "a lift never lowers"})
    vtc.call("on_queued", "ana", ["ana", "bo"])
    expect_equal(vtc.call("counter", "ana"), 100.0, what="counter of ana, who has a request waiting already", hints={
        5000.0: "she was not away: she waits, and has a claim to go first"})
    vtc.call("on_queued", "ana", [])
    expect_equal(vtc.call("counter", "ana"), 100.0, what="counter of ana when nobody waits")


@check("vtc")
def weights_divide(student):
    """A tenant with weight 2 is charged half."""
    vtc = student.new("VirtualTokenCounter", 1.0, 4.0, {"ana": 2.0})
    for tenant in ("ana", "bo"):
        vtc.call("on_scheduled", tenant, 100)
        vtc.call("on_tokens", tenant, 10)
    expect_equal([vtc.call("counter", "ana"), vtc.call("counter", "bo")], [70.0, 140.0], what="counters of ana (weight 2) and bo", hints=[
        ([280.0, 140.0], "multiplied: ana would get half the service, not twice"), ([140.0, 140.0], "weights are not used"),
        ([60.0, 120.0], "a new token weighs output_weight, 4 here"), ([90.0, 140.0], "new tokens are divided by the weight too")])


def two_clients(policy, away=(0.0, 0.0)):
    """Llama 2 7B on an A10, simulated for 60 s: ana sends 90 requests a minute, bo 180, far more than can be served.

    While `away` (from, to, in seconds) ana sends nothing.
    """
    engine = Engine.simulated(model="Llama 2 7B", gpu="A10", num_blocks=640, policy=policy, token_budget=512, max_running=64)
    ana = [Arrival(k / 1.5, 256, 256, tenant="ana") for k in range(90) if not away[0] <= k / 1.5 < away[1]]
    bo = [Arrival(k / 3.0, 256, 256, tenant="bo") for k in range(180)]
    replay(engine, sorted(ana + bo, key=lambda arrival: arrival.time), stop=lambda: engine.clock.now > 60.0)
    return engine


def served_between(engine, start, end):
    """Service (a prompt token 1, a new token 2) that ana and bo were given from `start` to `end` seconds."""
    tenant, prompt, total, begun = {}, {}, {"ana": 0.0, "bo": 0.0}, set()
    for event in engine.events:
        inside = start <= event.time < end
        if event.kind is EventKind.QUEUED:
            tenant[event.request], prompt[event.request] = event.data["tenant"], event.data["prompt_tokens"]
        elif event.kind is EventKind.SCHEDULED and event.request not in begun:
            begun.add(event.request)
            total[tenant[event.request]] += prompt[event.request] * inside
        elif event.kind is EventKind.NEW_TOKENS:
            total[tenant[event.request]] += 2 * len(event.data["tokens"]) * inside
    return total


@check("vtc")
def two_overloading_clients(student):
    """In the simulator: bo sends twice as much as ana; first come, first served gives him twice as much, you the same."""
    fcfs = served_between(two_clients(None), 20.0, 60.0)
    vtc = served_between(two_clients(UsesCounter(Through(student.new("VirtualTokenCounter")))), 20.0, 60.0)
    ratio, before = vtc["bo"] / max(1.0, vtc["ana"]), fcfs["bo"] / fcfs["ana"]
    expect_true(1.8 < before < 2.2, f"this check is about an overload in which FCFS gives bo twice as much; it gave {before:.2f}")
    expect_true(abs(ratio - 1) <= 0.05, f"bo was served {ratio:.2f} times as much as ana (FCFS: {before:.2f} times); both always "
                "had requests waiting, so it should be 1 ± 0.05")
    expect_true(sum(vtc.values()) >= 0.95 * sum(fcfs.values()), "together they were served less than under FCFS: fairness "
                "decides who waits, it must not cost tokens")


# %% key="vtc-hidden" role="hidden" exercise="vtc"
@check("vtc")
def back_after_a_pause(student):
    """In the simulator: ana is away from 15 s to 40 s; when she is back both are served alike at once."""
    engine = two_clients(UsesCounter(Through(student.new("VirtualTokenCounter"))), away=(15.0, 40.0))
    after = served_between(engine, 45.0, 60.0)
    share = after["ana"] / sum(after.values())
    expect_true(0.35 <= share <= 0.65, f"from 45 s to 60 s ana got {share:.0%} of the service, half would be fair: "
                + ("she collects what she did not use while she was away" if share > 0.5 else "she is punished for having been away"))


@check("vtc")
def shares_by_weight(student):
    """In the simulator: ana with weight 1.5 gets half as much again as bo, who asks for more."""
    policy = UsesCounter(Through(student.new("VirtualTokenCounter", 1.0, 2.0, {"ana": 1.5})))
    served = served_between(two_clients(policy), 20.0, 60.0)
    expect_true(1.35 < served["ana"] / max(1.0, served["bo"]) < 1.65,
                f"ana has weight 1.5 and was served {served['ana'] / max(1.0, served['bo']):.2f} times as much as bo")


@check("vtc")
def lifts_count_only_who_waits(student):
    """A tenant that is not waiting has no say in the lift; a new tenant starts at the level of those who wait."""
    vtc = counting(student, ana=100, bo=5000, eve=7000)
    vtc.call("on_queued", "new", ["eve"])
    expect_equal(vtc.call("counter", "new"), 7000.0, what="counter of a new tenant with only eve (7000) waiting", hints={
        100.0: "ana is not waiting: she does not count", 0.0: "a new tenant would go first until it has caught up: lift it too"})


@check("vtc")
def on_the_real_engine(student):
    """course-tiny with one seat: two tenants, six requests against two; the counter decides whose turn it is."""
    policy = UsesCounter(Through(student.new("VirtualTokenCounter")))
    engine = Engine.from_model("course-tiny", device="cpu", num_blocks=64, max_running=1, policy=policy)
    for number in range(6):
        engine.add(Request([5] * 20, SamplingParams(max_tokens=5, ignore_eos=True), id=f"bo-{number}", tenant="bo"))
    for number in range(2):
        engine.add(Request([6] * 20, SamplingParams(max_tokens=5, ignore_eos=True), id=f"ana-{number}", tenant="ana"))
    run(engine)
    order = [event.request for event in engine.events if event.kind is EventKind.SCHEDULED]
    expect_equal(order, ["bo-0", "ana-0", "bo-1", "ana-1", "bo-2", "bo-3", "bo-4", "bo-5"], what="order of service", hints=[
        ([f"bo-{k}" for k in range(6)] + ["ana-0", "ana-1"], "first come, first served: the counters never change"),
        (["bo-0", "ana-0", "ana-1"] + [f"bo-{k}" for k in range(1, 6)], "ana went twice running: is a prompt charged when its "
         "request begins?")])


# %% key="vtc-m1" role="mutant" exercise="vtc" name="no lift: an idle tenant hoards credit"
class VirtualTokenCounter(VirtualTokenCounter):
    def on_queued(self, tenant, waiting):
        pass


# %% key="vtc-m2" role="mutant" exercise="vtc" name="sets the counter back after a pause"
class VirtualTokenCounter(VirtualTokenCounter):
    def on_queued(self, tenant, waiting):
        if tenant not in waiting:
            self.counters[tenant] = 0.0


# %% key="vtc-m3" role="mutant" exercise="vtc" name="lifts to the largest counter"
class VirtualTokenCounter(VirtualTokenCounter):
    def on_queued(self, tenant, waiting):
        if waiting and tenant not in waiting:
            self.counters[tenant] = max(self.counter(other) for other in [tenant, *waiting])


# %% key="vtc-m4" role="mutant" exercise="vtc" name="lifts a tenant that is waiting"
class VirtualTokenCounter(VirtualTokenCounter):
    def on_queued(self, tenant, waiting):
        super().on_queued(tenant, [other for other in waiting if other != tenant])


# %% key="vtc-m5" role="mutant" exercise="vtc" name="a lift that lowers"
class VirtualTokenCounter(VirtualTokenCounter):
    def on_queued(self, tenant, waiting):
        if waiting and tenant not in waiting:
            self.counters[tenant] = min(self.counter(other) for other in waiting)


# %% key="vtc-m6" role="mutant" exercise="vtc" name="counts requests, not tokens"
class VirtualTokenCounter(VirtualTokenCounter):
    def on_scheduled(self, tenant, prompt_tokens):
        self.charge(tenant, 1)

    def on_tokens(self, tenant, delivered):
        pass


# %% key="vtc-m7" role="mutant" exercise="vtc" name="does not charge new tokens"
class VirtualTokenCounter(VirtualTokenCounter):
    def on_tokens(self, tenant, delivered):
        pass


# %% key="vtc-m8" role="mutant" exercise="vtc" name="multiplies by the weight"
class VirtualTokenCounter(VirtualTokenCounter):
    def charge(self, tenant, amount):
        self.counters[tenant] = self.counter(tenant) + amount * self.weights.get(tenant, 1.0)


# %% key="vtc-m9" role="mutant" exercise="vtc" name="lifts to the smallest of all tenants, waiting or not"
class VirtualTokenCounter(VirtualTokenCounter):
    def on_queued(self, tenant, waiting):
        super().on_queued(tenant, list(self.counters) if waiting and tenant not in waiting else waiting)


# %% [markdown] key="end" lang="en"
# ## Done
#
# You have measured what a neighbour costs and built what keeps neighbours apart: a door, a step of bounded length, lent memory and
# a fair queue. Each of them leaves a trace in the utilisation; the lecture's last figure shows what they cost together.
#
# Hand in this file. Your score: `llmcourse check labs/lab05_isolation.ipynb`.
