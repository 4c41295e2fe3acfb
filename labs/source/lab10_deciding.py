"""Lab 10: whom to evict, swap or recompute, skip-join MLFQ, fairness with locality, an autoscaler that drains. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 10 · Preemption, fairness, autoscaling
#
# There is never enough of everything, so a server has to decide: who gives up memory, and what becomes of what it had computed;
# who goes next when nobody knows how long anybody takes; who has had its share; and how many machines there should be. You
# write each of these rules, and each of them runs in the course's own scheduler or cluster, where nothing may be lost.
#
# **How to work.** Write your answer where `NotImplementedError` stands, run the cell, run the check below it. A check that
# fails says what it asked, what came back, and often which idea went wrong. Stuck? Each folded help is named after something
# you may see or ask: open the one that fits. Exercises do not depend on each other, so you can also go on to the next. Some
# checks are hidden: they try other numbers and edge cases of what the statement says, nothing else.
#
# **Your own work.** An answer is built on what the cell below defines and imports, and on nothing else of the package: with
# `from llmcourse… import` in it, or with the course's own version, it earns nothing. Each answer is judged without the others.
#
# **To see your score:** `llmcourse check labs/lab10_deciding.ipynb`. **To hand in:** save the notebook and hand in the file.
#
# The lecture of week 10 has the ideas behind all of this. You only need plain Python: numbers, lists, dictionaries, two small
# classes. The long cell below only sets things up: run it, you need not read it.

# %% key="setup" role="setup"
import math
import random
from dataclasses import replace
from functools import partial
from itertools import pairwise

from llmcourse.cluster import Drain, Freeness, Link, Rebalance, Reporting, ScaleUp, Terms, VirtualDriver
from llmcourse.cluster.autoscale import ColdStart
from llmcourse.cluster.fleet import Fleet
from llmcourse.engine import Engine, EventKind, Policy, Request, SamplingParams, VirtualClock
from llmcourse.engine.batch import StepResult
from llmcourse.engine.preemption import Preemption
from llmcourse.executors import MockExecutor
from llmcourse.grading import CheckFailed, check, expect_close, expect_equal, expect_true
from llmcourse.kv import BlockPool, PrefixPool
from llmcourse.metrics.fairness import max_service_gap
from llmcourse.policies import VTC, LongestPrefixFirst
from llmcourse.policies.victims import closest_to_finishing, with_victim

BLOCK = 4                                                 # tokens in a block of the small engines below


def engine_of(policy=None, num_blocks=24, max_running=6, preemption=None, executor=None, pool=None, token_budget=64):
    """A small engine in virtual time whose tokens are a hash of its KV: one wrong block and the answer is another. It checks itself."""
    return Engine(executor or MockExecutor(BLOCK), pool or BlockPool(num_blocks, BLOCK), policy, token_budget=token_budget, max_running=max_running,
                  clock=VirtualClock(), checked=True, preemption=preemption)


def ask(name, prompt, length, seed=1, **more):
    """A request whose prompt has so many tokens, or these, and that says exactly `length` tokens."""
    rng = random.Random(f"{name} {seed}")
    tokens = [rng.randrange(1, 60) for _ in range(prompt)] if type(prompt) is int else list(prompt)
    return Request(tokens, SamplingParams(max_tokens=length, ignore_eos=True), name, **more)


def serve(engine, arrivals, most=5000):
    """Serve (time, request) pairs to the end; CheckFailed when that never comes. Returns the engine."""
    coming = sorted(arrivals, key=lambda pair: pair[0])
    for _ in range(most):
        while coming and (coming[0][0] <= engine.clock.now or engine.idle):
            time, request = coming.pop(0)
            engine.clock.advance_to(max(time, engine.clock.now))
            request.arrival = time
            engine.add(request)
        if engine.idle:
            return engine
        engine.step()
    raise CheckFailed(f"after {most} steps {len(engine.requests) - sum(r.done for r in engine.requests.values())} requests are still not done: somebody waits for ever")


class UsesVictim(Policy):
    """The engine's choice of who gives way, asking a function like yours of exercise 1."""

    def __init__(self, rule, near):
        self.rule, self.near = rule, near

    def victim(self, running, now):
        ordered = sorted(running, key=lambda request: request.rank[1])
        told = [{"id": r.id, "output": r.num_output, "expected": r.predicted, "computed": r.computed, "found": 0} for r in ordered]
        chosen = self.rule(told, self.near)
        known = {r.id: r for r in ordered}
        expect_true(type(chosen) is str and chosen in known, f"victim returned {chosen!r}; it should be the id of a request that runs, one of {sorted(known)}")
        return known[chosen]


class UsesLevels(Policy):
    """The engine's order, asking an object like yours of exercise 3."""

    static, preemptive = False, True

    def __init__(self, queues):
        self.queues = queues

    def key(self, request, now):
        return key_of(self.queues.key(request.id, now))

    def on_queued(self, request, now):
        self.queues.arrived(request.id, len(request.prompt), now)

    def on_scheduled(self, request, now):
        self.queues.started(request.id, now)

    def on_tokens(self, request, count, delivered, now):
        for _ in range(delivered):
            self.queues.delivered(request.id)

    def on_preempted(self, request, now):
        self.queues.paused(request.id, now)

    def on_done(self, request, now):
        self.queues.ended(request.id)


class UsesDeficits(Policy):
    """The engine's order, asking an object like yours of exercise 4, while one of its `seats` is free: else the order does not matter."""

    static = False

    def __init__(self, deficits, seats):
        self.deficits, self.free, self.prefixes, self.waiting, self.started = deficits, seats, LongestPrefixFirst(), {}, set()

    def on_attached(self, pool):
        self.prefixes.on_attached(pool)

    def key(self, request, now):
        if self.free < 1:
            return (request.arrival,)
        return key_of(self.deficits.key(request.tenant, self.prefixes.found(request), request.arrival))

    def on_queued(self, request, now):
        self.prefixes.on_queued(request, now)
        self.waiting[request.id] = request.tenant

    def on_scheduled(self, request, now):
        if request.id not in self.started:                # whoever was preempted has paid for its prompt
            self.deficits.admitted(request.tenant, len(request.prompt), min(request.computed, len(request.prompt)), sorted(set(self.waiting.values())))
        self.started.add(request.id)
        self.free -= 1
        self.waiting.pop(request.id)
        self.prefixes.on_scheduled(request, now)

    def on_tokens(self, request, count, delivered, now):
        if delivered:
            self.deficits.delivered(request.tenant, delivered)

    def on_preempted(self, request, now):
        self.prefixes.on_preempted(request, now)
        self.free += 1
        self.waiting[request.id] = request.tenant

    def on_done(self, request, now):
        self.prefixes.on_done(request, now)
        self.free += request.id not in self.waiting
        self.waiting.pop(request.id, None)


def key_of(key):
    """A key as a tuple of numbers; CheckFailed when it is none."""
    key = (key,) if type(key) in (int, float) else key
    good = type(key) in (list, tuple) and len(key) > 0 and all(type(each) in (bool, int, float) and each == each for each in key)
    expect_true(good, f"key returns a number, or a tuple of numbers that are compared one after the other; this was {key!r}")
    return tuple(key)


class UsesScaler:
    """The cluster's autoscaler, asking a function like yours of exercise 5."""

    def __init__(self, rule, settings):
        self.rule, self.settings, self.machines, self.noted = rule, settings, settings["most"], []

    def decide(self, reports, observed, now):
        told = [{name: getattr(each, name) for name in REPORT} for each in reports]
        seen = {"starting": len(observed.starting), "last_start": observed.last_up, "last_drain": observed.last_down}
        decisions = [as_decision(each) for each in checked_decisions(self.rule(told, seen, now, dict(self.settings)), told, seen, self.settings)]
        self.noted += [(now, each) for each in decisions]
        return decisions


REPORT = ("instance", "num_blocks", "used_blocks", "waiting_blocks", "running", "waiting", "terminating", "busy")


class Stop(int):
    """Switch an instance off."""


def as_decision(pair):
    """A pair like ("drain", 3) as the course's decision."""
    return {"start": ScaleUp, "drain": Drain, "stop": Stop}[pair[0]](pair[1])


def checked_decisions(found, reports, observed, settings):
    """Decisions as a list of pairs; CheckFailed for what nobody could carry out, or would lose requests."""
    verbs = ("start", "drain", "stop")
    good = type(found) is list and all(type(p) in (list, tuple) and len(p) == 2 and p[0] in verbs and type(p[1]) is int for p in found)
    expect_true(good, f"decide returns a list of (\"start\", how many), (\"drain\", instance) and (\"stop\", instance); this was {found!r}")
    known, room = {each["instance"]: each for each in reports}, settings["most"] - len(reports) - observed["starting"]
    named = ["start" if verb == "start" else number for verb, number in found]
    expect_true(len(set(named)) == len(named), f"the decisions {found!r} start twice, or say two things about one instance")
    for verb, number in found:
        report = known.get(number)
        if verb == "start":
            expect_true(number >= 1, f"(\"start\", {number}): at least 1; where nothing is to be started, or there is no room, say nothing")
            expect_true(number <= room, f"(\"start\", {number}): there are {len(reports)} instances and {observed['starting']} are starting, and there may be "
                        f"at most {settings['most']} in all. Those that are being emptied are still there, also one that you stop now")
            continue
        expect_true(report is not None, f"(\"{verb}\", {number}): there is no instance {number}, there are {sorted(known)}")
        if verb == "drain":
            expect_true(not report["terminating"], f"(\"drain\", {number}): it is being emptied already")
        else:
            requests = report["running"] + report["waiting"]
            expect_true(report["terminating"], f"(\"stop\", {number}): it still takes requests, and the next one may be on its way to it. Drain it first")
            expect_true(requests == report["used_blocks"] == 0 and not report["busy"], f"(\"stop\", {number}): {requests} requests and {report['used_blocks']} blocks are on it"
                        f"{', and a migration is going on' if report['busy'] else ''}. Whoever is still there is lost")
    left = [each for each in reports if not each["terminating"] and ("drain", each["instance"]) not in [tuple(p) for p in found]]
    expect_true(bool(left) or not any(p[0] == "drain" for p in found), f"the decisions {found!r} leave no instance that takes requests")
    return [tuple(pair) for pair in found]


class ToldToStop(Fleet):
    """A fleet in which nobody leaves before the autoscaler says so."""

    def _retire_empty(self):
        pass

    def _carry_out(self, decision):
        if isinstance(decision, Stop):
            self._stop(int(decision))
        else:
            super()._carry_out(decision)

    def _stop(self, number):
        instance = self.driver.instances[number]
        if not self.driver.is_empty(instance):            # its last step is not over: ask again
            return
        self.driver.retire(instance)
        self.left(number, "retired")
        self.tell(number, "retired")


def small_engine():
    """One instance of the small cluster of exercise 5: 30 blocks of 4 tokens, six seats, steps of 10 ms."""
    return Engine(MockExecutor(BLOCK), BlockPool(30, BLOCK), token_budget=64, max_running=6, clock=VirtualClock())


def small_cluster(rule, settings, cold=0.5, instances=1):
    """Small instances under an autoscaler like yours; what must leave an instance moves to another one."""
    driver = VirtualDriver([small_engine() for _ in range(instances)], Freeness(), Rebalance(1.0, 3.0, rest=0.1), link=Link(4e6, 0.001), terms=Terms(BLOCK, last_blocks=1),
                           reporting=Reporting(0.1))
    driver.fleet = ToldToStop(driver, UsesScaler(rule, settings), small_engine, ColdStart(boot=cold))
    return driver


class Through:
    """An object on the student's side, as if it were here: `Through(handle).method(...)`."""

    def __init__(self, handle):
        self.handle = handle

    def __getattr__(self, method):
        return partial(self.handle.call, method)


# %% [markdown] key="victim" lang="en" role="exercise" exercise="victim" points=3 difficulty=2 minutes=25 needs="week 10, part 2"
# ## Exercise 1 · Who gives way?
#
# Memory is full, and somebody who runs must give up its blocks. Its KV is thrown away, and when there is room again all of it
# is **computed again**. So the choice has a price. A running request is a dictionary:
#
# ```python
# {"id": "a", "output": 12, "expected": 40,     # it has said 12 tokens, and is expected to say 40 in all
#  "computed": 71,                              # tokens of prompt and answer whose KV is in its blocks
#  "found": 16}                                 # of these, how many a prefix cache would still have when it comes back
# ```
#
# Write three functions:
#
# 1. `loss(request)`: how many tokens must be computed again if it gives way now. (`found` is never more than `computed`.)
# 2. `victim(running, near)`: the `id` of the request that gives way. `running` lists the running requests in order of arrival;
#    it is never empty.
#    - Whoever is **near its end** is spared: it is expected to say at most `near` more tokens. (It may have said more than was
#      expected: then it is near its end, too.) It will soon free all its blocks by itself.
#    - Of the others take the one with the smallest loss; of several with equal loss the one that arrived last.
#    - If all are near their ends, nobody is spared: choose among all of them in the same way.
# 3. `recomputed(log)`: what your choices have cost. `log` lists what was computed, in order: `(id, first, count)` says that in
#    some step the KV of the tokens number `first` to `first + count - 1` of a request was computed (`count` is at least 1).
#    Returns how many tokens, of all requests together, were computed although the same request's same token had been computed
#    **before**. A token that is computed three times counts twice. A request begins with token 0 and leaves none out; when it
#    comes back it may begin anywhere among those it had, for what a cache still has of it is not computed again.

# %% [markdown] key="victim-help-near" lang="en" role="help" exercise="victim" title="Somebody near its end has the most blocks. Why not take those?"
# One victim would then be enough for long, that is true. But it would have freed the same blocks in a moment without any loss,
# and all it has, a long prompt and a long answer, must be computed again before it can say its last few words.

# %% [markdown] key="victim-help-oldest" lang="en" role="help" exercise="victim" title="My victim is the wrong one of several with equal loss"
# `min` returns the **first** of equals, and the list begins with who arrived first. Walk through it from the other end
# (`reversed`), or make the place in the list a part of what you compare.

# %% [markdown] key="victim-help-log" lang="en" role="help" exercise="victim" title="How do I know that a token had been computed before?"
# Keep a set of token numbers for each request. A request computes its tokens in order, from token 0 on, so remembering the
# highest number it ever reached is enough, if you prefer that.

# %% [markdown] key="victim-help-try" lang="en" role="help" exercise="victim" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# a = {"id": "a", "output": 12, "expected": 40, "computed": 71, "found": 16}
# b = {"id": "b", "output": 36, "expected": 40, "computed": 45, "found": 0}
# print(loss(a), loss(b))                     # 55 45
# print(victim([a, b], near=2))               # b: its loss is smaller
# print(victim([a, b], near=4))               # a: b is expected to say only 4 more tokens
# print(recomputed([("a", 0, 5), ("a", 5, 1), ("a", 4, 3)]))         # 2: the tokens 4 and 5
# ```

# %% key="victim-answer" role="answer" exercise="victim"
def loss(request):
    """Tokens that must be computed again if this request gives way."""
    ### BEGIN SOLUTION
    return request["computed"] - request["found"]
    ### END SOLUTION


def victim(running, near):
    """Id of the request that gives way."""
    ### BEGIN SOLUTION
    far = [request for request in running if request["expected"] - request["output"] > near]
    return min(reversed(far or running), key=loss)["id"]
    ### END SOLUTION


def recomputed(log):
    """Tokens that were computed again, of all requests together."""
    ### BEGIN SOLUTION
    reached, again = {}, 0
    for name, first, count in log:
        before = reached.get(name, 0)
        again += max(0, min(before, first + count) - first)
        reached[name] = max(before, first + count)
    return again
    ### END SOLUTION


# %% key="victim-check" role="check" exercise="victim"
def running_of(**each):
    """Running requests by name: (output, expected, computed, found)."""
    return [dict(zip(("id", "output", "expected", "computed", "found"), (name, *numbers), strict=True)) for name, numbers in each.items()]


def expect_victim(student, running, near, want, hints=()):
    """The student's victim."""
    left = {r["id"]: (r["computed"] - r["found"], r["expected"] - r["output"]) for r in running}
    told = ", ".join(f"{name} would lose {lost} tokens and has {more} to say" for name, (lost, more) in left.items())
    expect_equal(student.call("victim", running, near), want, what=f"victim, near = {near}; {told}", hints=hints)


@check("victim")
def what_is_lost(student):
    """71 tokens computed, 16 of them would be found in the cache."""
    a, b = running_of(a=(12, 40, 71, 16), b=(3, 9, 20, 0))
    expect_equal(student.call("loss", a), 55, what="loss", hints={
        71: "16 of them would be found in the prefix cache", 59: "the KV of the prompt is lost, too", 16: "what is found is not lost", 12: "the prompt is lost, too"})
    expect_equal(student.call("loss", b), 20, what="loss", hints={3: "the KV of the prompt is lost, too"})


@check("victim")
def least_is_lost(student):
    """Nobody is near its end: who has least to lose gives way, and of equals who arrived last."""
    running = running_of(a=(10, 90, 60, 0), b=(30, 90, 40, 0), c=(5, 90, 70, 0))
    expect_victim(student, running, 3, "b", {"c": "not who has said least: what is lost counts, and c has a long prompt", "a": "not who arrived first"})
    running = running_of(a=(10, 90, 60, 0), b=(30, 90, 40, 0), c=(5, 90, 70, 48))
    expect_victim(student, running, 3, "c", {"b": "48 tokens of c would be found in the cache: it loses 22"})
    running = running_of(a=(10, 90, 30, 0), b=(30, 90, 30, 0), c=(5, 90, 70, 0))
    expect_victim(student, running, 3, "b", {"a": "a and b lose equally much, and b arrived last"})


@check("victim")
def near_its_end(student):
    """Who has little to say is spared, unless that is so of all."""
    running = running_of(a=(38, 40, 30, 0), b=(30, 90, 80, 0), c=(20, 80, 85, 0))
    expect_victim(student, running, 2, "b", {"a": "a says 2 more tokens and then frees its blocks by itself: spare it", "c": "b loses less"})
    expect_victim(student, running, 1, "a", {"b": "at most near more tokens: a has 2 to say, near is 1"})
    running = running_of(a=(44, 40, 30, 0), b=(30, 90, 80, 0))
    expect_victim(student, running, 2, "b", {"a": "a has said more than was expected: its end may come any moment"})
    running = running_of(a=(38, 40, 50, 0), b=(39, 40, 30, 0), c=(39, 40, 31, 0))
    expect_victim(student, running, 2, "b", {"c": "b loses less", "a": "all are near their ends: then the smallest loss counts", None: "somebody must give way"})


@check("victim")
def counted_afterwards(student):
    """A request is computed, loses its KV, and is computed again; another one meanwhile."""
    log = [("a", 0, 5), ("b", 0, 3), ("a", 5, 1), ("a", 0, 6), ("a", 6, 1), ("b", 3, 1)]
    expect_equal(student.call("recomputed", log), 6, what=f"recomputed({log})", hints={
        16: "the six tokens of a that were computed before; tokens computed for the first time do not count", 1: "count tokens, not how often somebody came back",
        9: "what b computes is new: its tokens are not those of a", 10: "what b computes is new: its tokens are not those of a"})
    log = [("a", 0, 8), ("a", 4, 5), ("a", 0, 10)]
    expect_equal(student.call("recomputed", log), 13, what=f"recomputed({log})", hints={
        9: "a token that is computed three times counts twice", 8: "a token that is computed three times counts twice",
        14: "token 9 is computed for the first time at the end", 15: "the tokens 8 and 9 are computed for the first time there"})
    log = [("a", 0, 6), ("a", 3, 2), ("a", 4, 3)]
    expect_equal(student.call("recomputed", log), 4, what=f"recomputed({log})", hints={
        3: "token 5 had been computed, too: how far it ever got counts, not where it stopped the last time",
        5: "two and two: 3 and 4 the second time, 4 and 5 the third time; 6 is new"})


def short_of_memory(seed):
    """Requests of all kinds, more than memory can hold."""
    rng = random.Random(seed)
    return [(0.02 * k, ask(f"r{k}", rng.choice([4, 8, 30]), n := rng.choice([6, 20, 40]), predicted=n)) for k in range(24)]


def with_rule(policy, seed):
    """The engine after it has served them; every answer must be what it is undisturbed."""
    arrivals = short_of_memory(seed)
    engine = serve(engine_of(policy, num_blocks=30, max_running=8), arrivals)
    for _, request in arrivals:
        expect_equal(list(request.output), MockExecutor(BLOCK).continue_alone(request.prompt, request.sampling.max_tokens, True), what=f"answer of {request.id}")
    return engine


@check("victim")
def in_the_real_scheduler(student):
    """24 requests in too little memory: you, and somebody who evicts who is closest to finishing; your count is the engine's."""
    mine = other = 0
    for seed in (1, 2):
        engine = with_rule(UsesVictim(partial(student.call, "victim"), 2), seed)
        log = [tuple(item) for event in engine.events if event.kind is EventKind.STEP for item in event.data["batch"]]
        expect_equal(student.call("recomputed", log), engine.counters.recomputed_tokens, what=f"recomputed, for the log of an engine with {engine.counters.preemptions} preemptions")
        mine += engine.counters.recomputed_tokens
        other += with_rule(with_victim(Policy(), closest_to_finishing), seed).counters.recomputed_tokens
    student.last = ""
    expect_true(mine <= 0.9 * other, f"under your victims {mine} tokens were computed again, and {other} when the one closest to finishing gives way; at most "
                f"{0.9 * other:.0f} are asked for")


# %% key="victim-hidden" role="hidden" exercise="victim"
@check("victim")
def any_running_requests(student):
    """Random requests: many equal losses, many near their ends."""
    rng = random.Random(3)
    for _ in range(200):
        running = [{"id": f"r{k}", "output": rng.randrange(8), "expected": rng.randrange(10), "computed": (c := rng.randrange(1, 6)), "found": rng.randrange(c + 1)}
                   for k in range(rng.randrange(1, 6))]
        near = rng.randrange(4)
        far = [r for r in running if r["expected"] - r["output"] > near] or running
        least = min(r["computed"] - r["found"] for r in far)
        expect_victim(student, running, near, [r["id"] for r in far if r["computed"] - r["found"] == least][-1])


@check("victim")
def any_log(student):
    """Random logs: token by token."""
    rng = random.Random(4)
    for _ in range(100):
        log, reached = [], {"a": 0, "b": 0, "c": 0}
        for _ in range(rng.randrange(1, 12)):
            name = rng.choice("abc")
            first, count = rng.randrange(reached[name] + 1), rng.randrange(1, 7)
            log.append((name, first, count))
            reached[name] = max(reached[name], first + count)
        told = [(name, token) for name, first, count in log for token in range(first, first + count)]
        expect_equal(student.call("recomputed", log), len(told) - len(set(told)), what=f"recomputed({log})")


# %% key="victim-m1" role="mutant" exercise="victim" name="evicts who is closest to finishing"
def victim(running, near):
    return min(reversed(running), key=lambda request: request["expected"] - request["output"])["id"]


# %% key="victim-m2" role="mutant" exercise="victim" name="least loss, near its end or not"
def victim(running, near):
    return min(reversed(running), key=loss)["id"]


# %% key="victim-m3" role="mutant" exercise="victim" name="who has said least, whatever its prompt costs"
def loss(request):
    return request["output"]


# %% key="victim-m4" role="mutant" exercise="victim" name="forgets what the prefix cache would find"
def loss(request):
    return request["computed"]


# %% key="victim-m5" role="mutant" exercise="victim" name="evicts whoever has most, so that one victim is enough"
def victim(running, near):
    far = [request for request in running if request["expected"] - request["output"] > near]
    return max(far or running, key=loss)["id"]


# %% key="victim-m6" role="mutant" exercise="victim" name="of equals it evicts the oldest"
def victim(running, near):
    far = [request for request in running if request["expected"] - request["output"] > near]
    return min(far or running, key=loss)["id"]


# %% key="victim-m7" role="mutant" exercise="victim" name="counts again only what was lost the first time"
def recomputed(log):
    times = {}
    for name, first, count in log:
        for token in range(first, first + count):
            times[name, token] = times.get((name, token), 0) + 1
    return sum(number > 1 for number in times.values())


# %% key="victim-m9" role="mutant" exercise="victim" name="remembers where a request stopped, not how far it ever got"
def recomputed(log):
    reached, again = {}, 0
    for name, first, count in log:
        again += max(0, min(reached.get(name, 0), first + count) - first)
        reached[name] = first + count
    return again


# %% key="victim-m8" role="mutant" exercise="victim" name="takes all tokens for those of one request"
_recomputed = recomputed


def recomputed(log):
    return _recomputed([("", first, count) for _, first, count in log])


# %% [markdown] key="swap" lang="en" role="exercise" exercise="swap" points=5 difficulty=3 minutes=40 needs="week 10, part 3"
# ## Exercise 2 · Swap or compute again?
#
# The KV of whoever gives way need not be thrown away: it can be **swapped** to host memory and come back later. That moves all
# its blocks twice, out and in. Computing it again costs arithmetic. A block has `block_size` tokens and takes `block_seconds`
# to be moved one way; only whole blocks are moved.
#
# 1. `swap_seconds(tokens, block_size, block_seconds)`: seconds to swap a context of so many tokens, out and in together.
# 2. `crossover(prompt_seconds, block_size, block_seconds)`: `prompt_seconds` is a list: a context of `n` tokens is computed
#    again in `prompt_seconds[n]` seconds; its last number is for the longest context there is. Returns the shortest context, at
#    least 1 token, from which on swapping **never takes longer** than computing again, for this length and all longer ones in
#    the list. Returns `None` if swapping takes longer even for the longest. (`prompt_seconds[0]` is there so that the numbers
#    fit, and is never the answer.)
#
# Now the blocks. While a step is being planned nothing moves: only **orders** are collected, and the executor carries them out
# before it computes. `copies` is a dictionary of orders given so far: `{7: 3}` says that what is in block 3 **now**, before
# anything moves, is to be copied to block 7 (so what is in block 7 now is rubbish: its content *is still* in block 3). The key
# is written, the value is read. That holds if something else is to be copied into 3, too: nothing has moved yet.
#
# 3. `save(table, copies, host)`: somebody gives way and is to be swapped out. `table` lists its blocks, in order (they are in
#    nobody else's table); `host` lists free blocks of host memory, at least as many. Returns a pair:
#    - a list of orders `(block, host block)`, one for each block of the table, in order: where its content **is now**, and
#      where it goes. Use the blocks of `host` from the front;
#    - the dictionary of copies that must still be done. The blocks of the table are free now and may be given to anybody in
#      this same step, so the copies **into** them are given up. All other copies stay, also those that read from them: they
#      are made before anybody writes there.
# 4. `carry_out(swap_out, copies, swap_in, device, host)`: does what was ordered for one step. `device` and `host` are
#    dictionaries from blocks to their contents. `swap_out` lists pairs (block, host block), `copies` pairs (block, block),
#    `swap_in` pairs (host block, block); in a pair the **second** is always the one that is written, in `copies`, too (in the
#    dictionary above it is the key). All three kinds may touch the same blocks: what is swapped out must be what was there
#    **before** the step; then the copies, each of which reads what was there before **all** copies; then what is swapped in.
#    Reading takes nothing away, and a block may be read several times: several answers to a prompt share its blocks.
#    Returns the pair `(device, host)` after that, as two dictionaries: those that came, changed, or new ones. (No block of host
#    memory is written and read in the same step.)

# %% [markdown] key="swap-help-cross" lang="en" role="help" exercise="swap" title="Where exactly is the crossover?"
# Walk down from the longest context as long as swapping is not slower: where you must stop, the crossover is one above. Walking
# up and stopping at the first length at which swapping pays is another question: a context of 17 tokens in blocks of 16 moves
# two blocks, so just behind each border swapping may be slower again.

# %% [markdown] key="swap-help-now" lang="en" role="help" exercise="swap" title="How can the content of a block be somewhere else?"
# When several answers share a prompt, each gets a copy of the last, partly filled block before it writes into it. The copy is
# ordered while the step is planned, the owner's table says block 7 at once, but nothing has been copied yet. If its owner gives
# way in the same step, block 7 holds nothing of its own. Swap it out from there, and the answer goes on later with somebody
# else's KV.

# %% [markdown] key="swap-help-chain" lang="en" role="help" exercise="swap" title="A block got the content that another copy had just put there"
# With the copies (1, 2) and (2, 3), block 3 gets what was in block 2 before: both copies read first, then both write. The
# simplest way is to collect all contents in a list first, and then to write them.

# %% [markdown] key="swap-help-twice" lang="en" role="help" exercise="swap" title="KeyError in carry_out, in the real engine only"
# Is something taken out of `device` (`pop`, `del`) when it is swapped out? Swapping copies: what was in a block stays in it until
# somebody writes there. Several answers to a prompt share its blocks, so one block may leave twice in the same step, to two host
# blocks, and copies may read it, too.

# %% [markdown] key="swap-help-order" lang="en" role="help" exercise="swap" title="Why this order: out, copy, in?"
# A block that is swapped out may be given away in the same step, and the first thing its new owner does may be to receive a
# copy, or KV that comes back from the host. So what leaves must be read first of all. Real GPUs have queues (*streams*) for
# this: the copy out must have **finished** before the block is written.

# %% [markdown] key="swap-help-try" lang="en" role="help" exercise="swap" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# print(swap_seconds(17, 16, 0.5))                         # 2 blocks, out and in: 2.0
# print(crossover([0, 1, 2, 3, 4, 5, 6], 2, 1.0))          # 6: 5 tokens are 3 blocks, out and in 6 s; 6 tokens too, and 6 is not above 6
# print(save([5, 7], {7: 3, 8: 5}, [0, 1, 2]))             # ([(5, 0), (3, 1)], {8: 5})
# print(carry_out([(1, 0)], [(2, 1)], [(9, 2)], {1: "a", 2: "b"}, {9: "c"}))        # ({1: 'b', 2: 'c'}, {9: 'c', 0: 'a'})
# ```

# %% key="swap-answer" role="answer" exercise="swap"
def swap_seconds(tokens, block_size, block_seconds):
    """Seconds to move a context out and in again."""
    ### BEGIN SOLUTION
    return 2 * block_seconds * -(-tokens // block_size)
    ### END SOLUTION


def crossover(prompt_seconds, block_size, block_seconds):
    """The shortest context from which on swapping never takes longer, or None."""
    ### BEGIN SOLUTION
    best = None
    for tokens in range(len(prompt_seconds) - 1, 0, -1):
        if swap_seconds(tokens, block_size, block_seconds) > prompt_seconds[tokens]:
            break
        best = tokens
    return best
    ### END SOLUTION


def save(table, copies, host):
    """Orders to swap a table out, and the copies that are left."""
    ### BEGIN SOLUTION
    orders = [(copies.get(block, block), there) for block, there in zip(table, host, strict=False)]
    return orders, {block: source for block, source in copies.items() if block not in table}
    ### END SOLUTION


def carry_out(swap_out, copies, swap_in, device, host):
    """Contents of device and host memory after the orders of one step."""
    ### BEGIN SOLUTION
    device, host = dict(device), dict(host)
    host.update([(there, device[block]) for block, there in swap_out])
    device.update([(new, device[old]) for old, new in copies])
    device.update([(block, host[there]) for there, block in swap_in])
    return device, host
    ### END SOLUTION


# %% key="swap-check" role="check" exercise="swap"
@check("swap")
def seconds_to_swap(student):
    """Whole blocks, and each moves twice."""
    expect_close(student.call("swap_seconds", 100, 16, 0.5), 7.0, 1e-9, what="seconds to swap 100 tokens in blocks of 16, 0.5 s each", hints=[
        (3.5, "out and in: every block moves twice"), (6.25, "whole blocks: the seventh is only partly filled, and moves all the same"),
        (6.0, "the seventh block is partly filled, and moves all the same"),
        (6.5, "7 whole blocks go out, and 7 come in: round up first, then double"), (100.0, "block_seconds is for a whole block, not for a token")])
    expect_close(student.call("swap_seconds", 96, 16, 0.5), 6.0, 1e-9, what="seconds to swap 96 tokens in blocks of 16", hints=[(7.0, "96 tokens fill 6 blocks")])


@check("swap")
def where_they_cross(student):
    """Where both take equally long, where swapping pays for 3 tokens and not for 5, where it never pays, and where it always does."""
    line = [float(n) for n in range(9)]
    expect_equal(student.call("crossover", [n * n / 4 for n in range(9)], 1, 0.75), 6, what="crossover of n * n / 4 and blocks of 1 token that take 0.75 s", hints={
        1: "the shortest from which on it never takes longer, not the shortest of all", 3: "blocks move out and in", 7: "with 6 tokens both take 9 s: equal is not longer"})
    expect_equal(student.call("crossover", line, 4, 1.5), 6, what="crossover of n seconds and blocks of 4 tokens that take 1.5 s", hints={
        3: "3 tokens are one block, 3 s: but 5 tokens are two blocks and take 6 s. From which length on is it never slower?", 7: "6 tokens are two blocks, and both ways take 6 s: equal is not longer"})
    expect_equal(student.call("crossover", line, 4, 3.0), None, what="crossover when swapping 8 tokens takes 12 s and computing them 8 s", hints={
        8: "even the longest is cheaper to compute", 9: "even the longest is cheaper to compute", 0: "None, not 0: swapping never pays"})
    expect_equal(student.call("crossover", line, 2, 0.5), 1, what="crossover when swapping always pays", hints={0: "a context has at least 1 token"})


def saved(student, table, copies, host):
    """The student's orders, and the copies that are left."""
    got = student.call("save", table, copies, host)
    good = (type(got) in (list, tuple) and [type(each) for each in got] == [list, dict]
            and all(type(order) in (list, tuple) and [type(each) for each in order] == [int, int] for order in got[0]))
    expect_true(good, f"save returns a list of orders (block, host block) and a dictionary of copies; this was {got!r}")
    return [tuple(order) for order in got[0]], got[1]


def moved(student, *orders):
    """The student's device and host memory after the orders of a step."""
    got = student.call("carry_out", *orders)
    good = type(got) in (list, tuple) and [type(each) for each in got] == [dict, dict]
    expect_true(good, f"carry_out returns a pair of dictionaries, (device, host); this was {got!r}")
    return list(got)


@check("swap")
def unfinished_copies(student):
    """Block 7 is to be copied from 3 and has not been: its content is still in 3."""
    got = saved(student, [5, 7], {7: 3, 8: 5}, [11, 12, 13])
    expect_equal(got[0], [(5, 11), (3, 12)], what="orders for the table [5, 7], when 7 is still to be copied from 3", hints=[
        ([(5, 13), (3, 12)], "the blocks of host from the front"),
        ([(8, 11), (7, 12)], "{7: 3} is a copy to 7, from 3: the key is written, the value is read"),
        ([(5, 11), (7, 12)], "the copy into 7 has not been made: what is in 7 now is rubbish. Its content is in 3"),
        ([(11, 5), (12, 3)], "(block, host block): first what is read"), ([(5, 12), (3, 11)], "the blocks of host from the front")])
    expect_equal(got[1], {8: 5}, what="copies that are left", hints=[
        ({7: 3, 8: 5}, "block 7 is free: whoever gets it in this step would find the copy in it"),
        ({}, "8 belongs to somebody else, who still needs its copy from 5"), ({7: 3}, "the other way round: 7 is free, and 8 still needs its copy")])


@check("swap")
def in_this_order(student):
    """Out, copy, in: block 1 leaves, gets a copy of 2, and 2 gets what comes back."""
    device, host = {1: "a", 2: "b", 3: "c"}, {8: "x", 9: "y"}
    want = [{1: "b", 2: "x", 3: "c"}, {8: "x", 9: "a"}]
    got = moved(student, [(1, 9)], [(2, 1)], [(8, 2)], device, host)
    expect_equal(got, want, what="device and host after swap out (1, 9), copy (2, 1), swap in (8, 2)", hints=[
        ([want[0], {8: "x", 9: "b"}], "b left instead of a: block 1 must be read before anything is copied into it"),
        ([{1: "x", 2: "x", 3: "c"}, {8: "x", 9: "a"}], "block 1 got what was swapped in: copies come before that"),
        ([{1: "b", 2: "b", 3: "c"}, {8: "x", 9: "a"}], "2 was not swapped in"), ([{1: "x", 2: "b", 3: "c"}, {8: "x", 9: "a"}], "what is swapped in goes to 2, the second of the pair"),
        ([{1: "a", 2: "x", 3: "c"}, {8: "x", 9: "a"}], "the copy (2, 1) reads 2 and writes 1: the second of a pair is written")])


@check("swap")
def all_read_first(student):
    """A chain of copies, and two blocks that change places."""
    for copies, want in (([(1, 2), (2, 3)], {1: "a", 2: "a", 3: "b"}), ([(1, 2), (2, 1)], {1: "b", 2: "a", 3: "c"}), ([(2, 3), (1, 2)], {1: "a", 2: "a", 3: "b"})):
        got = moved(student, [], copies, [], {1: "a", 2: "b", 3: "c"}, {})
        expect_equal(got[0], want, what=f"device after the copies {copies} of a, b, c in the blocks 1, 2, 3", hints=[
            ({1: "a", 2: "a", 3: "a"}, "block 3 got what had just been copied into 2: all copies read first, then all write"),
            ({1: "a", 2: "a", 3: "c"}, "one copy read what another had just written")])


class CarriedOut(MockExecutor):
    """The mock, whose blocks are moved by a function like yours."""

    def __init__(self, rule):
        super().__init__(BLOCK)
        self.rule = rule

    def execute(self, batch):
        """Let the function move labels, and move the contents accordingly; then compute."""
        if batch.swap_out or batch.copies or batch.swap_in:
            self.move(batch)
        return super().execute(replace(batch, swap_out=(), copies=(), swap_in=()))

    def move(self, batch):
        """One question to the function."""
        near = {b for b, _ in batch.swap_out} | {b for pair in batch.copies for b in pair} | {b for _, b in batch.swap_in}
        far = {b for _, b in batch.swap_out} | {b for b, _ in batch.swap_in}
        device, host = {b: f"device {b}" for b in sorted(near)}, {b: f"host {b}" for b in sorted(far)}
        contents = {device[b]: dict(self._slots.get(b, {})) for b in near} | {host[b]: dict(self._host.get(b, {})) for b in far}
        found = self.rule(list(batch.swap_out), list(batch.copies), list(batch.swap_in), device, host)
        good = (type(found) in (list, tuple) and [type(each) for each in found] == [dict, dict] and (set(found[0]), set(found[1])) == (near, far)
                and all(type(label) is str and label in contents for each in found for label in each.values()))
        expect_true(good, f"carry_out returns (device, host) with the blocks they had, {sorted(near)} and {sorted(far)}; this was {found!r}"[:400])
        self._slots.update({b: dict(contents[found[0][b]]) for b in near})
        self._host.update({b: dict(contents[found[1][b]]) for b in far})


def swapped(rule, seed):
    """An engine that is short of memory and swaps, several answers to each prompt, after it has served all: every answer must be right."""
    rng = random.Random(seed)
    engine = engine_of(num_blocks=22, max_running=10, preemption=Preemption("swap", 40), executor=CarriedOut(rule))
    asked = [(0.05 * k, Request([rng.randrange(1, 60) for _ in range(rng.choice([5, 9, 14]))], SamplingParams(max_tokens=rng.choice([8, 14]), ignore_eos=True, n=3), f"r{k}"))
             for k in range(10)]
    try:
        serve(engine, asked)
    except (KeyError, IndexError):
        raise CheckFailed("the engine read a slot of a block that nobody had written: some KV was not where it should be") from None
    wrong = [r.id for r in engine.requests.values() if list(r.output) != MockExecutor(BLOCK).continue_alone(r.prompt, r.sampling.max_tokens, True)]
    expect_true(not wrong, f"{len(wrong)} of {len(engine.requests)} answers are not what they should be: some KV was not where it should be ({engine.counters.swapped_out_blocks} blocks were "
                f"swapped out, {engine.counters.copied_blocks} copied, {engine.counters.swapped_in_blocks} swapped in)")
    return engine.counters


@check("swap")
def in_the_real_engine(student):
    """Three answers to each prompt and too little memory: your function moves the blocks, and no answer may change."""
    counters = swapped(partial(student.call, "carry_out"), 1)
    student.last = ""
    assert min(counters.swapped_out_blocks, counters.swapped_in_blocks, counters.copied_blocks) > 4, counters


# %% key="swap-hidden" role="hidden" exercise="swap"
@check("swap")
def real_machines(student):
    """Llama 2 7B on two simulated GPUs over three links: where you say they cross, the course's prices say so, too."""
    for gpu, link in (("A100 80 GB", 25e9), ("A100 80 GB", 6e9), ("A10", 3e9), ("A10", 0.5e9)):
        prices = Engine.simulated("Llama 2 7B", gpu, link=link).scheduler.preemption.prices
        seconds = [0.0] + [float(prices.prompt(n)) for n in range(1, 700)]
        got = student.call("crossover", seconds, 16, float(prices.block))
        expect_equal(got, prices.crossover(16, 699), what=f"crossover up to 699 tokens on an {gpu} over {link / 1e9:g} GB/s")


@check("swap")
def any_prices(student):
    """Random prices: length by length."""
    rng = random.Random(5)
    for _ in range(120):
        size, seconds, total = rng.choice([1, 3, 4]), rng.choice([0.5, 1.0, 1.75]), [0.0]
        for _ in range(rng.randrange(1, 14)):
            total.append(total[-1] + rng.choice([0.25, 0.5, 1.0, 1.5]))
        pays = [2 * seconds * math.ceil(n / size) <= total[n] for n in range(len(total))]
        want = next((n for n in range(1, len(total)) if all(pays[n:])), None)
        expect_equal(student.call("crossover", total, size, seconds), want, what=f"crossover of {total}, blocks of {size} that take {seconds} s")


@check("swap")
def nothing_is_lost_on_the_way(student):
    """Tables and copies at random: what is saved must be what the table meant, and it comes back a step later."""
    rng = random.Random(6)
    for _ in range(150):
        blocks = list(range(12))
        rng.shuffle(blocks)
        mine, others = blocks[:rng.randrange(1, 5)], blocks[5:8]
        sources = blocks[8:] + others                     # a block may be read by one copy and written by another
        copies = {b: rng.choice([s for s in sources if s != b]) for b in mine + others if rng.random() < 0.5}
        copies |= {b: rng.choice(mine) for b in others if b not in copies and rng.random() < 0.5 and not set(mine) & set(copies)}
        device = {b: f"content {b}" for b in blocks}
        meant = [device[copies.get(b, b)] for b in mine]
        host = list(range(20, 30))
        orders, left = saved(student, mine, copies, host)
        expect_equal(left, {b: s for b, s in copies.items() if b not in mine}, what=f"copies that are left of {copies} for the table {mine}")
        expect_equal([there for _, there in orders], host[:len(mine)], what="host blocks of the orders, in order")
        expect_true({block for block, _ in orders} <= set(device), f"the orders {orders} for the table {mine} and the copies {copies} read blocks that are neither in the one nor in the other")
        new = moved(student, orders, [(s, b) for b, s in left.items()], [], device, {})
        expect_true(set(new[0]) == set(device) and set(new[1]) == set(host[:len(mine)]), f"after these orders there are contents in the blocks {sorted(new[0])} and {sorted(new[1])}")
        others_want = {b: device[left.get(b, b)] for b in blocks if b not in mine}
        expect_equal({b: new[0][b] for b in others_want}, others_want, what=f"contents of the other blocks after the copies {left}")
        new = moved(student, [], [], [(there, block) for (_, there), block in zip(orders, mine, strict=True)], *new)
        expect_true(set(mine) <= set(new[0]), f"blocks {sorted(set(mine) - set(new[0]))} are not in device memory any more")
        expect_equal([new[0][b] for b in mine], meant, what=f"contents that come back into the table {mine}, swapped out while the copies {copies} were unfinished")


@check("swap")
def asked_twice(student):
    """The same question has the same answer; and two more engines that are short of memory."""
    asked = ([(1, 9)], [(2, 1)], [(8, 2)], {1: "a", 2: "b"}, {8: "x"})
    first = moved(student, *asked)
    expect_equal(moved(student, *asked), first, what="the second answer to the same question")
    for seed in (2, 3):
        swapped(partial(student.call, "carry_out"), seed)


# %% key="swap-m1" role="mutant" exercise="swap" name="swap that forgets unfinished copies"
def save(table, copies, host):
    return [(block, there) for block, there in zip(table, host, strict=False)], {block: source for block, source in copies.items() if block not in table}


# %% key="swap-m2" role="mutant" exercise="swap" name="still copies into blocks that were given up"
def save(table, copies, host):
    return [(copies.get(block, block), there) for block, there in zip(table, host, strict=False)], dict(copies)


# %% key="swap-m3" role="mutant" exercise="swap" name="drops the copies that others make from its blocks"
def save(table, copies, host):
    orders = [(copies.get(block, block), there) for block, there in zip(table, host, strict=False)]
    return orders, {block: source for block, source in copies.items() if block not in table and source not in table}


# %% key="swap-m10" role="mutant" exercise="swap" name="follows copies from block to block, though all of them read first"
def save(table, copies, host):
    def source(block):
        seen = set()
        while block in copies and block not in seen:
            seen.add(block)
            block = copies[block]
        return block
    return [(source(block), there) for block, there in zip(table, host, strict=False)], {block: old for block, old in copies.items() if block not in table}


# %% key="swap-m4" role="mutant" exercise="swap" name="copies before it swaps out: blocks are reused before they are saved"
def carry_out(swap_out, copies, swap_in, device, host):
    device, host = dict(device), dict(host)
    device.update([(new, device[old]) for old, new in copies])
    host.update([(there, device[block]) for block, there in swap_out])
    device.update([(block, host[there]) for there, block in swap_in])
    return device, host


# %% key="swap-m5" role="mutant" exercise="swap" name="swaps in before the copies have read"
def carry_out(swap_out, copies, swap_in, device, host):
    device, host = dict(device), dict(host)
    host.update([(there, device[block]) for block, there in swap_out])
    device.update([(block, host[there]) for there, block in swap_in])
    device.update([(new, device[old]) for old, new in copies])
    return device, host


# %% key="swap-m6" role="mutant" exercise="swap" name="one copy after the other"
def carry_out(swap_out, copies, swap_in, device, host):
    device, host = dict(device), dict(host)
    host.update([(there, device[block]) for block, there in swap_out])
    for old, new in copies:
        device[new] = device[old]
    device.update([(block, host[there]) for there, block in swap_in])
    return device, host


# %% key="swap-m7" role="mutant" exercise="swap" name="moves out and forgets the way back"
def swap_seconds(tokens, block_size, block_seconds):
    return block_seconds * -(-tokens // block_size)


# %% key="swap-m8" role="mutant" exercise="swap" name="the first length at which swapping pays, though longer ones do not"
def crossover(prompt_seconds, block_size, block_seconds):
    return next((n for n in range(1, len(prompt_seconds)) if swap_seconds(n, block_size, block_seconds) <= prompt_seconds[n]), None)


# %% key="swap-m9" role="mutant" exercise="swap" name="swaps parts of blocks"
def swap_seconds(tokens, block_size, block_seconds):
    return 2 * block_seconds * tokens / block_size


# %% [markdown] key="mlfq" lang="en" role="exercise" exercise="mlfq" points=6 difficulty=4 minutes=55 needs="week 10, part 4"
# ## Exercise 3 · Short first, though nobody knows who is short
#
# How long an answer will be is not known, but how much a request has already had is. A **multi-level feedback queue** lets
# whoever has had little go before whoever has had much. There are `levels` queues, numbered from 1. In queue $i$ a request may
# spend `quantum` $\cdot\, 2^{i-1}$ **iterations** (its *quantum* there); whoever has spent them goes down one queue. A lower
# number goes first. FastServe (Wu et al., 2023) adds: the prompt's length *is* known, so a request with a long prompt **skips**
# the queues in which it could not even get its first token.
#
# Write a class `SkipJoinMLFQ(quantum, prompt_tokens, levels, starve_after)`. A prompt of `p` tokens is worth `ceil(p /
# prompt_tokens)` iterations. Times are in seconds; requests are called by their ids.
#
# - `join_level(prompt)`: the queue that a request with so many prompt tokens joins: the one with the smallest number whose
#   quantum is **at least** what the prompt is worth. If there is none, the last queue, `levels`.
# - `arrived(request, prompt, now)`: it joins that queue **at its tail**, with that queue's whole quantum to spend, and waits
#   from `now` on. (`prompt` is again a number of tokens.)
# - `started(request, now)`: it runs from now on, for the first time or again after a pause. If it was starving at `now` (see
#   below) it goes to the tail of queue 1, with that queue's whole quantum, also if it was in queue 1 already.
# - `delivered(request)`: it has got one token of its answer. Its first token spends all the iterations that its prompt is
#   worth, every later one spends one iteration. When nothing is left of its quantum (0 or less) it joins the tail of the next
#   queue, with that queue's whole quantum, whatever was overdrawn; in the last queue it keeps its place.
# - `paused(request, now)`: somebody else takes its seat. It stays where it is in its queue, keeps what is left of its quantum,
#   and waits from `now` on.
# - `ended(request)`: it is done; forget it.
# - `level(request)`: the number of its queue now.
# - `key(request, now)`: a tuple of numbers; the request with the **smallest** goes first. First come those who **starve**: who
#   do not run and have waited for `starve_after` seconds or longer since they last ran (or arrived); of these whoever has
#   waited longest. All others, those who run included, go by their queue, and in a queue by who joined its tail first.
#
# The engine calls these methods, gives the seats to those with the smallest keys, and pauses whoever must give up its seat. The
# KV of who is paused stays in its blocks (*parked*).

# %% [markdown] key="mlfq-help-shape" lang="en" role="help" exercise="mlfq" title="How do I begin?"
# Keep for every request: its level, its turn (a number from one counter that goes up by 1 whenever anybody joins any tail),
# what is left of its quantum, what its prompt is still to pay (0 once the first token has come), and since when it waits
# (`None` while it runs). "Join the tail of a queue" happens in three places: write it once.

# %% [markdown] key="mlfq-help-tuple" lang="en" role="help" exercise="mlfq" title="How can one key say two things?"
# Python compares tuples item by item: `(0, ...)` goes before `(1, ...)` whatever follows. Levels begin at 1, so `(0, since)`
# for those who starve goes before `(level, turn)` for all others.

# %% [markdown] key="mlfq-help-running" lang="en" role="help" exercise="mlfq" title="A request that runs starves"
# Who runs does not wait. Forget in `started` since when it waited, and remember it anew in `paused`.

# %% [markdown] key="mlfq-help-skip" lang="en" role="help" exercise="mlfq" title="What does skipping save?"
# Queue 1 is meant for those who need next to nothing. With everybody on top, a prompt worth 8 iterations would go before all
# who have used up their first quantum, and hold up the short requests behind it for 8 iterations. Its first token would throw
# it down a few queues anyway: so it joins at once where it belongs.

# %% [markdown] key="mlfq-help-cost" lang="en" role="help" exercise="mlfq" title="What does it cost?"
# Whoever is long waits longer, and holds its KV while it waits. The sum of all work stays the same: no order makes a machine
# faster. The mean time per token becomes much better when many answers are short, and the tail becomes worse; that is what
# `starve_after` bounds.

# %% [markdown] key="mlfq-help-try" lang="en" role="help" exercise="mlfq" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# queues = SkipJoinMLFQ(quantum=2, prompt_tokens=100, levels=5, starve_after=3.0)
# print([queues.join_level(p) for p in (1, 200, 201, 900)])          # [1, 1, 2, 4]: worth 1, 2, 3 and 9 iterations; quanta 2, 4, 8, 16, 32
# queues.arrived("a", 201, now=0.0); queues.started("a", now=0.0)
# queues.delivered("a"); print(queues.level("a"))                    # 2: three of four iterations are spent
# queues.delivered("a"); print(queues.level("a"))                    # 3
#
# queues = SkipJoinMLFQ(2, 100, 5, 3.0)
# arrivals = [(0.0, ask("long", 8, 60)), (0.1, ask("short", 8, 5))]
# engine = serve(engine_of(UsesLevels(queues), max_running=1, preemption=Preemption(parking=True)), arrivals)
# print([event.request for event in engine.events if event.kind is EventKind.SCHEDULED])        # ['long', 'short', 'long']
# ```

# %% key="mlfq-answer" role="answer" exercise="mlfq"
class SkipJoinMLFQ:
    """Queues with growing quanta; who has had little goes first."""

    def __init__(self, quantum, prompt_tokens, levels, starve_after):
        """Iterations of queue 1, prompt tokens that are worth an iteration, how many queues, and seconds of patience."""
        ### BEGIN SOLUTION
        self.quantum, self.prompt_tokens, self.levels, self.starve_after = quantum, prompt_tokens, levels, starve_after
        self.turns, self.queue, self.turn, self.left, self.owes, self.since = 0, {}, {}, {}, {}, {}
        ### END SOLUTION

    def join_level(self, prompt):
        """Queue that a request with so many prompt tokens joins."""
        ### BEGIN SOLUTION
        worth = math.ceil(prompt / self.prompt_tokens)
        return next((level for level in range(1, self.levels) if self.quantum * 2 ** (level - 1) >= worth), self.levels)

    def join(self, request, level):
        """Go to the tail of a queue."""
        self.turns += 1
        self.queue[request], self.turn[request], self.left[request] = level, self.turns, self.quantum * 2 ** (level - 1)

    def starves(self, request, now):
        """Whether it has waited too long."""
        return self.since[request] is not None and now - self.since[request] >= self.starve_after
        ### END SOLUTION

    def arrived(self, request, prompt, now):
        """A request has come, and waits."""
        ### BEGIN SOLUTION
        self.join(request, self.join_level(prompt))
        self.owes[request], self.since[request] = math.ceil(prompt / self.prompt_tokens), now
        ### END SOLUTION

    def started(self, request, now):
        """It runs from now on."""
        ### BEGIN SOLUTION
        if self.starves(request, now):
            self.join(request, 1)
        self.since[request] = None
        ### END SOLUTION

    def delivered(self, request):
        """It has got one token of its answer."""
        ### BEGIN SOLUTION
        self.left[request] -= self.owes[request] or 1
        self.owes[request] = 0
        if self.left[request] <= 0 and self.queue[request] < self.levels:
            self.join(request, self.queue[request] + 1)
        ### END SOLUTION

    def paused(self, request, now):
        """Somebody else takes its seat; it waits."""
        ### BEGIN SOLUTION
        self.since[request] = now
        ### END SOLUTION

    def ended(self, request):
        """It is done."""
        ### BEGIN SOLUTION
        for kept in (self.queue, self.turn, self.left, self.owes, self.since):
            kept.pop(request, None)
        ### END SOLUTION

    def level(self, request):
        """Number of its queue."""
        ### BEGIN SOLUTION
        return self.queue[request]
        ### END SOLUTION

    def key(self, request, now):
        """Its place in the order: the smallest goes first."""
        ### BEGIN SOLUTION
        return (0, self.since[request]) if self.starves(request, now) else (self.queue[request], self.turn[request])
        ### END SOLUTION


# %% key="mlfq-check" role="check" exercise="mlfq"
def queues_of(student, quantum=2, prompt_tokens=100, levels=5, starve_after=1000.0, **prompts):
    """The student's queues, into which requests with these prompts have come one after the other at 0 s."""
    queues = student.new("SkipJoinMLFQ", quantum, prompt_tokens, levels, starve_after)
    for name, prompt in prompts.items():
        queues.call("arrived", name, prompt, 0.0)
    return queues


def order_of(queues, names, now):
    """Names of the requests, smallest key first."""
    keys = {name: key_of(queues.call("key", name, now)) for name in names}
    queues.student.last = ""
    return "".join(sorted(names, key=keys.__getitem__))


def tokens_for(queues, name, count):
    """So many tokens are delivered."""
    for _ in range(count):
        queues.call("delivered", name)


@check("mlfq")
def where_it_joins(student):
    """Quanta 2, 4, 8, 16, 32 iterations; an iteration is worth 100 prompt tokens."""
    queues = queues_of(student)
    got = [queues.call("join_level", prompt) for prompt in (1, 200, 201, 400, 401, 900, 3200, 9999)]
    student.last = ""
    expect_equal(got, [1, 1, 2, 2, 3, 4, 5, 5], what="queues joined with 1, 200, 201, 400, 401, 900, 3200 and 9999 prompt tokens (quanta 2, 4, 8, 16, 32 iterations of 100)", hints=[
        ([1, 1, 2, 2, 3, 5, 5, 5], "quanta double from queue to queue: 2, 4, 8, 16"), ([1, 1, 1, 1, 2, 3, 4, 5], "queue 1 has `quantum` iterations, not twice as many"),
        ([1] * 8, "everybody on top: that is the ordinary queue. Skip those that are too short for the prompt"), ([0, 0, 1, 1, 2, 3, 4, 4], "queues are numbered from 1"),
        ([1, 2, 2, 3, 3, 4, 5, 5], "at least: a quantum of 2 is enough for a prompt that is worth 2"),
        ([1, 1, 1, 2, 2, 4, 5, 5], "201 tokens are worth 3 iterations: round up")])
    queues.call("arrived", "a", 401, 0.0)
    expect_equal(queues.call("level", "a"), 3, what="level after a request with 401 prompt tokens has come", hints={
        1: "arrived puts it into the queue that join_level says"})


@check("mlfq")
def down_when_it_is_spent(student):
    """A short prompt joins queue 1 (quantum 2) and goes down after 2, 4 and 8 more tokens."""
    queues = queues_of(student, a=50)
    queues.call("started", "a", 0.0)
    levels = []
    for _ in range(15):
        queues.call("delivered", "a")
        levels.append(queues.call("level", "a"))
    want = [1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4]
    expect_equal(levels, want, what="level after each of 15 tokens (quanta 2, 4, 8, ...)", hints=[
        ([1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], "down as soon as nothing is left, not a token later"),
        ([2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4], "the first token spends what the prompt is worth, 1 iteration, and nothing besides"), ([1] * 15, "it never goes down"),
        ([1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3], "queue 1 has `quantum` iterations, not twice as many"), ([1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4], "each queue has a whole quantum of its own: do not count what was spent above"),
        ([1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5], "quanta double from queue to queue")])


@check("mlfq")
def the_prompt_is_paid_too(student):
    """301 prompt tokens are worth 4 iterations: they join queue 2, whose quantum of 4 is spent with the first token."""
    queues = queues_of(student, a=301, b=201)
    for name in "ab":
        queues.call("started", name, 0.0)
        queues.call("delivered", name)
    got = [queues.call("level", name) for name in "ab"]
    expect_equal(got, [3, 2], what="levels after the first token of a (worth 4 of the quantum of 4) and b (worth 3)", hints=[
        ([2, 2], "the first token spends all the iterations that the prompt is worth"), ([3, 3], "b has one iteration left")])
    queues.call("delivered", "b")
    expect_equal(queues.call("level", "b"), 3, what="level of b after its second token", hints={2: "3 iterations for the first token and 1 for the second: all 4 are spent"})


@check("mlfq")
def who_goes_first(student):
    """By queue, and in a queue by who joined its tail first."""
    queues = queues_of(student, a=50, b=250, c=60, d=70)
    expect_equal(order_of(queues, "abcd", 1.0), "acdb", what="order of a, b, c, d, which came in this order, b with a longer prompt", hints={
        "abcd": "b is in queue 2: behind all of queue 1", "dcab": "in a queue: who joined first goes first", "bdca": "the smallest key goes first"})
    queues.call("started", "a", 1.0)
    tokens_for(queues, "a", 2)
    expect_equal(order_of(queues, "abcd", 1.1), "cdba", what="order after a has spent its quantum", hints={
        "cdab": "a joins the TAIL of queue 2, behind b", "acdb": "a is in queue 2 now"})
    queues.call("started", "c", 1.2)
    tokens_for(queues, "c", 1)
    queues.call("paused", "c", 1.3)
    expect_equal(order_of(queues, "abcd", 1.4), "cdba", what="order after c has run for one of its two iterations and was paused", hints={
        "dcba": "who is paused keeps its place in its queue"})
    queues.call("started", "c", 1.5)
    tokens_for(queues, "c", 1)
    expect_equal(queues.call("level", "c"), 2, what="level of c, which goes on, after one more token", hints={1: "what it had spent before it was paused counts: who is paused does not get a new quantum"})


@check("mlfq")
def nobody_starves(student):
    """After 3 s without running a request goes before everybody, and begins again in queue 1."""
    queues = queues_of(student, starve_after=3.0, a=900, b=50)
    queues.call("arrived", "c", 50, 2.0)
    expect_equal(order_of(queues, "abc", 2.9), "bca", what="order after 2.9 s", hints={"abc": "nobody starves before 3 s"})
    queues.call("started", "b", 2.9)
    expect_equal(order_of(queues, "abc", 3.0), "abc", what="order after 3.0 s, b runs since 2.9 s", hints={
        "bca": "a has waited 3 s: it goes first", "bac": "b runs: it does not starve"})
    queues.call("started", "a", 3.5)
    expect_equal([queues.call("level", "a"), order_of(queues, "abc", 3.6)], [1, "bca"], what="level of a when it has started, and the order", hints=[
        ([4, "bca"], "whoever starved goes to queue 1"), ([1, "abc"], "it goes to the TAIL of queue 1, and it runs: it does not starve any more")])
    queues.call("paused", "a", 4.0)
    expect_equal(order_of(queues, "abc", 5.5), "cba", what="order at 5.5 s; c has waited since 2 s, a since it was paused at 4 s", hints={
        "acb": "a has run: its patience is counted from when it was paused", "cab": "a has run: its patience is counted from when it was paused"})
    expect_equal(order_of(queues, "abc", 7.0), "cab", what="order at 7.0 s", hints={
        "acb": "of those who starve whoever has waited longest goes first: c since 2 s, a since 4 s", "cba": "a was paused at 4 s and has waited 3 s since: it starves"})
    queues = queues_of(student, starve_after=3.0, a=50, b=50)
    queues.call("started", "a", 0.0)
    queues.call("paused", "a", 1.0)
    expect_equal(order_of(queues, "ab", 5.0), "ba", what="order of a, which ran until 1.0 s, and b, which has never run, at 5.0 s", hints={
        "ab": "both starve, and b has waited longer; who joined the queue first does not matter then"})


def heavy_tail(seed, count=30):
    """Many short answers, a few long ones, all within three seconds."""
    rng = random.Random(seed)
    return [(0.1 * k, ask(f"r{k}", rng.choice([4, 8, 20]), 90 if k % 6 == 0 else rng.choice([3, 6]), seed)) for k in range(count)]


def shared(policy, arrivals, seats=2, num_blocks=400):
    """The engine with two seats after it has served them; every answer must be what it is undisturbed."""
    engine = serve(engine_of(policy, num_blocks, seats, Preemption(parking=True)), arrivals)
    for _, request in arrivals:
        expect_equal(list(request.output), MockExecutor(BLOCK).continue_alone(request.prompt, request.sampling.max_tokens, True), what=f"answer of {request.id}")
    return engine


def per_token(engine):
    """Mean over all requests of seconds from arrival to end, for each token of the answer."""
    ended = {event.request: event.time for event in engine.events if event.kind is EventKind.FINISHED}
    return sum((ended[r.id] - r.arrival) / r.num_output for r in engine.requests.values()) / len(ended)


def longest_wait(engine):
    """The longest stretch for which anybody waited without running."""
    since, longest = {}, 0.0
    for event in engine.events:
        if event.kind in (EventKind.QUEUED, EventKind.PREEMPTED):
            since[event.request] = event.time
        elif event.kind is EventKind.SCHEDULED:
            longest = max(longest, event.time - since[event.request])
    return longest


@check("mlfq")
def in_the_real_scheduler(student):
    """Many short answers and a few long ones: time per token against first come, first served; no answer changes, and nothing is computed twice."""
    first = shared(Policy(), heavy_tail(1))
    engine = shared(UsesLevels(Through(student.new("SkipJoinMLFQ", 2, 8, 8, 1000.0))), heavy_tail(1))
    student.last = ""
    expect_equal(engine.counters.recomputed_tokens, 0, what="tokens computed again")
    mine, other = per_token(engine), per_token(first)
    expect_true(engine.counters.parked > 5, f"only {engine.counters.parked} requests gave up a seat: does anybody go down?")
    expect_true(mine <= 0.5 * other, f"mean time per token is {1000 * mine:.0f} ms, under first come, first served it is {1000 * other:.0f} ms; at most half of that is asked for")


# %% key="mlfq-hidden" role="hidden" exercise="mlfq"
def stream(seed, seconds=2.5):
    """One long answer, and short ones without end that alone would fill the only seat."""
    rng = random.Random(seed)
    return [(0.0, ask("long", 8, 60)), *((0.02 + 0.0512 * k, ask(f"s{k}", rng.choice([4, 8]), 5)) for k in range(int(seconds / 0.0512)))]


@check("mlfq")
def patience_bounds_the_wait(student):
    """One seat, short requests without end: nobody waits longer than its patience and a little; without patience somebody does."""
    waits = {}
    for patience in (0.5, 1000.0):
        engine = shared(UsesLevels(Through(student.new("SkipJoinMLFQ", 1, 8, 8, patience))), stream(1), seats=1)
        waits[patience] = longest_wait(engine)
    student.last = ""
    expect_true(waits[1000.0] > 1.5, f"this check is about a load under which the long request starves without patience; it waited {waits[1000.0]:.2f} s at a stretch")
    expect_true(waits[0.5] <= 1.2, f"with a patience of 0.5 s somebody waited {waits[0.5]:.2f} s at a stretch; after 0.5 s it should have gone before everybody but those who had waited longer")


@check("mlfq")
def last_queue(student):
    """In the last queue nobody goes down, and who is there keeps its place."""
    queues = queues_of(student, levels=2, quantum=1, a=50, b=50)
    for name in "ab":
        queues.call("started", name, 0.0)
        tokens_for(queues, name, 1)
    tokens_for(queues, "a", 9)
    expect_equal([queues.call("level", "a"), queues.call("level", "b"), order_of(queues, "ab", 0.5)], [2, 2, "ab"], what="levels and order of a and b in the last of two queues, after 10 tokens of a", hints=[
        ([2, 2, "ba"], "in the last queue it keeps its place"), ([3, 2, "ba"], "there is no queue 3"), ([5, 2, "ba"], "there is no queue 5")])


@check("mlfq")
def a_new_quantum_after_starving(student):
    """Who starved has a whole quantum of queue 1, and its prompt is paid only once."""
    queues = queues_of(student, starve_after=1.0, quantum=3, a=50)
    queues.call("started", "a", 0.0)
    tokens_for(queues, "a", 2)
    queues.call("paused", "a", 0.1)
    queues.call("started", "a", 5.0)
    tokens_for(queues, "a", 2)
    expect_equal(queues.call("level", "a"), 1, what="level of a, which starved in queue 1 with 1 of 3 iterations left, after 2 more tokens", hints={
        2: "whoever starved begins queue 1 again with a whole quantum"})
    tokens_for(queues, "a", 1)
    expect_equal(queues.call("level", "a"), 2, what="level of a after one more")
    queues = queues_of(student, starve_after=1.0, quantum=2, a=601)
    queues.call("started", "a", 5.0)
    tokens_for(queues, "a", 1)
    got = [queues.call("level", "a")]
    for count in (3, 1):
        tokens_for(queues, "a", count)
        got.append(queues.call("level", "a"))
    expect_equal(got, [2, 2, 3], what="levels of a (worth 7) that starved before its first token: after the first token, after 3 more, and after 1 more", hints=[
        ([1, 1, 2], "the first token spends all that the prompt is worth, 7, in queue 1, too"), ([2, 4, 4], "the prompt is paid once, with the first token"),
        ([2, 3, 3], "the next queue's quantum is whole, whatever was overdrawn in the one before")])


@check("mlfq")
def ends_and_begins(student):
    """A request that has ended is forgotten: another one with the same name starts afresh; two objects do not know each other."""
    queues, other = queues_of(student, a=50), queues_of(student, a=900)
    queues.call("started", "a", 0.0)
    tokens_for(queues, "a", 7)
    queues.call("ended", "a")
    queues.call("arrived", "a", 50, 1.0)
    expect_equal([queues.call("level", "a"), other.call("level", "a")], [1, 4], what="levels of a new request a, and of another object's a")


@check("mlfq")
def random_lives(student):
    """Many workloads, little memory, few seats: whatever your queues decide, every answer stays what it was."""
    for seed in range(2, 6):
        arrivals = heavy_tail(seed, 18)
        shared(UsesLevels(Through(student.new("SkipJoinMLFQ", 1 + seed % 3, 8, 2 + seed, 0.4))), arrivals, seats=1 + seed % 3, num_blocks=40)


# %% key="mlfq-m1" role="mutant" exercise="mlfq" name="everybody joins on top"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def join_level(self, prompt):
        return 1


# %% key="mlfq-m2" role="mutant" exercise="mlfq" name="never demotes: first come, first served by level"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def delivered(self, request):
        pass


# %% key="mlfq-m3" role="mutant" exercise="mlfq" name="the prompt costs nothing"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def arrived(self, request, prompt, now):
        super().arrived(request, prompt, now)
        self.owes[request] = 1


# %% key="mlfq-m4" role="mutant" exercise="mlfq" name="a long request starves for ever"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def starves(self, request, now):
        return False


# %% key="mlfq-m11" role="mutant" exercise="mlfq" name="of those who starve the first in the queue, however long they wait"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def key(self, request, now):
        return (0, self.turn[request]) if self.starves(request, now) else super().key(request, now)


# %% key="mlfq-m12" role="mutant" exercise="mlfq" name="what was overdrawn is carried into the next queue"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def delivered(self, request):
        left = self.left[request] - (self.owes[request] or 1)
        super().delivered(request)
        self.left[request] += min(0, left) if left <= 0 and self.queue[request] < self.levels else 0


# %% key="mlfq-m5" role="mutant" exercise="mlfq" name="who starved stays in its low queue"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def started(self, request, now):
        self.since[request] = None


# %% key="mlfq-m6" role="mutant" exercise="mlfq" name="patience counts from arrival, not from the last time it ran"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def arrived(self, request, prompt, now):
        super().arrived(request, prompt, now)
        self.first = {**getattr(self, "first", {}), request: now}

    def paused(self, request, now):
        self.since[request] = self.first[request]


# %% key="mlfq-m7" role="mutant" exercise="mlfq" name="a new quantum after every pause: nobody ever goes down"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def paused(self, request, now):
        super().paused(request, now)
        self.left[request] = self.quantum * 2 ** (self.queue[request] - 1)


# %% key="mlfq-m8" role="mutant" exercise="mlfq" name="goes to the tail when it is paused"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def paused(self, request, now):
        super().paused(request, now)
        self.turns += 1
        self.turn[request] = self.turns


# %% key="mlfq-m9" role="mutant" exercise="mlfq" name="all queues have the same quantum"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def join(self, request, level):
        super().join(request, level)
        self.left[request] = self.quantum


# %% key="mlfq-m10" role="mutant" exercise="mlfq" name="who runs starves, too"
class SkipJoinMLFQ(SkipJoinMLFQ):
    def started(self, request, now):
        since = self.since[request]
        super().started(request, now)
        self.since[request] = since


# %% [markdown] key="dlpm" lang="en" role="exercise" exercise="dlpm" points=5 difficulty=3 minutes=40 needs="week 10, part 6; week 6, prefix cache"
# ## Exercise 4 · Fair, and friendly to the cache
#
# Requests whose prompts begin alike should follow each other, while their beginning is still in the prefix cache: that saves
# most of the work. But whoever always serves the longest prefix first starves clients who share nothing, and whoever takes the
# clients strictly in turn finds the cache emptied each time. **Deficit longest prefix match** (DLPM, Cao et al., 2025) gives
# each client a *deficit*, what it may still spend. As long as that is above 0, the order is longest prefix first; who has spent
# it waits until all who wait have spent theirs, and then each of these gets another *quantum*.
#
# Write a class `DLPM(quantum, input_weight=1, output_weight=2)`. Deficits are numbers of weighted tokens.
#
# - `deficit(client)`: what it may still spend; 0 at first, also for a client that nobody has seen yet. Below 0 it is a debt.
# - `refills(client)`: how many quanta it would have to get until its deficit is **above** 0; 0 if it is above 0 already.
# - `key(client, found, arrival)`: a tuple of numbers for a waiting request of that client, of whose prompt `found` tokens are
#   in the cache, and which arrived at `arrival` (seconds). The smallest goes first: fewest refills first; of equals the one
#   with **most** tokens found; of equals the earliest arrival.
# - `admitted(client, prompt, found, waiting)`: the engine begins with a request of the client. `waiting` lists the clients,
#   each once, that have requests waiting at this moment, this client among them.
#   1. If the client needs refills, say $k$ of them, then nobody who waits has anything left (or it would not have been its
#      turn): **each client in `waiting`** gets $k$ quanta.
#   2. The client is charged `input_weight` for each of the `prompt` tokens that must be **computed**: those that are not found.
# - `delivered(client, count)`: so many tokens of an answer went out: `output_weight` for each. Answers are charged as they
#   come, since nobody knows how long they will be, so a deficit may fall far below 0.
#
# While two clients wait all the time, neither gets more than $2\,(Q + M)$ weighted tokens ahead of the other, where $Q$ is the
# quantum and $M$ what the requests that run at a time can cost together. Nothing else ever changes a deficit. Who has no
# request waiting keeps what it has, **debts above all**, and gets no refills meanwhile.

# %% [markdown] key="dlpm-help-refills" lang="en" role="help" exercise="dlpm" title="How many refills are k?"
# With a quantum of 100 a deficit of -30 needs 1 refill, one of -100 needs 2 (after the first it is 0, not above 0), and one of
# 0 needs 1: `floor(-deficit / quantum) + 1`.

# %% [markdown] key="dlpm-help-all" lang="en" role="help" exercise="dlpm" title="Why does everybody who waits get the same refills?"
# They take turns in rounds: a round gives each of them a quantum. If only the client that goes first were refilled, its debt
# would be forgiven and the others' not: it would go on for ever.

# %% [markdown] key="dlpm-help-idle" lang="en" role="help" exercise="dlpm" title="A client that was away has an old debt. Should I not set it back?"
# No. Then whoever has overdrawn its deficit would only have to be silent for a moment, and be free of its debt: several small
# bursts would always get more than a steady client. It is refilled as soon as it waits with others. (What is left *above* 0 is
# at most a quantum, so nobody can hoard much.)

# %% [markdown] key="dlpm-help-charge" lang="en" role="help" exercise="dlpm" title="Is it fair that a hit costs nothing?"
# Deficits count what the machine had to do, not what the client got out of it. Who shares its beginnings well is served more
# often for the same money, and that costs the others nothing.

# %% [markdown] key="dlpm-help-try" lang="en" role="help" exercise="dlpm" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# fair = DLPM(quantum=100)
# print(fair.refills("ana"), fair.key("ana", 64, 0.0) < fair.key("bo", 0, 0.0))        # 1 True: both need a refill, ana finds more
# fair.admitted("ana", 80, 64, ["ana", "bo"])
# print(fair.deficit("ana"), fair.deficit("bo"))                                        # 84 100: both got a quantum, 16 tokens were not found
# fair.delivered("ana", 60)
# print(fair.deficit("ana"), fair.refills("ana"))                                       # -36 1
# ```

# %% key="dlpm-answer" role="answer" exercise="dlpm"
class DLPM:
    """Longest prefix first, as long as a client's deficit lasts."""

    def __init__(self, quantum, input_weight=1, output_weight=2):
        """Weighted tokens of a refill; what a token of a prompt and one of an answer weigh."""
        ### BEGIN SOLUTION
        self.quantum, self.input_weight, self.output_weight = quantum, input_weight, output_weight
        self.deficits = {}
        ### END SOLUTION

    def deficit(self, client):
        """What the client may still spend."""
        ### BEGIN SOLUTION
        return self.deficits.get(client, 0)
        ### END SOLUTION

    def refills(self, client):
        """Quanta until its deficit is above 0."""
        ### BEGIN SOLUTION
        deficit = self.deficit(client)
        return 0 if deficit > 0 else math.floor(-deficit / self.quantum) + 1
        ### END SOLUTION

    def key(self, client, found, arrival):
        """A waiting request's place in the order: the smallest goes first."""
        ### BEGIN SOLUTION
        return self.refills(client), -found, arrival
        ### END SOLUTION

    def admitted(self, client, prompt, found, waiting):
        """The engine begins with a request of the client, one of those that wait."""
        ### BEGIN SOLUTION
        times = self.refills(client)
        for each in waiting:
            self.deficits[each] = self.deficit(each) + times * self.quantum
        self.deficits[client] = self.deficit(client) - self.input_weight * (prompt - found)
        ### END SOLUTION

    def delivered(self, client, count):
        """So many tokens of an answer went out to the client."""
        ### BEGIN SOLUTION
        self.deficits[client] = self.deficit(client) - self.output_weight * count
        ### END SOLUTION


# %% key="dlpm-check" role="check" exercise="dlpm"
def deficits_of(student, fair, *clients):
    """Their deficits."""
    found = [fair.call("deficit", client) for client in clients]
    student.last = ""
    return found


def first_of(fair, *requests):
    """Place in the list of the request (client, found, arrival) with the smallest key."""
    keys = [key_of(fair.call("key", *request)) for request in requests]
    fair.student.last = ""
    return keys.index(min(keys))


@check("dlpm")
def only_what_is_computed(student):
    """80 prompt tokens, 64 of them found; then 10 tokens of answer."""
    fair = student.new("DLPM", 100)
    expect_equal(deficits_of(student, fair, "ana"), [0], what="deficit of a client that nobody has seen", hints=[([100], "everybody begins with 0: the first quantum comes when somebody is admitted")])
    fair.call("admitted", "ana", 80, 64, ["ana", "bo"])
    expect_equal(deficits_of(student, fair, "ana", "bo"), [84, 100], what="deficits of ana and bo after a quantum of 100, and 80 prompt tokens of ana, 64 found", hints=[
        ([20, 100], "64 tokens were found in the cache: charge the 16 that are computed"), ([36, 100], "charge what is computed, not what is found"),
        ([84, 0], "bo waits, too: each client in waiting gets the quantum"), ([-16, 0], "nobody had anything left: first each client in waiting gets a quantum"),
        ([100, 100], "the 16 tokens that are computed are charged"), ([-16, 100], "ana gets a quantum, too")])
    fair.call("delivered", "ana", 10)
    expect_equal(deficits_of(student, fair, "ana", "bo"), [64, 100], what="deficits after 10 tokens of ana's answer", hints=[
        ([74, 100], "a token of an answer weighs 2"), ([84, 100], "answers are charged, too")])


@check("dlpm")
def refills_to_get_above_zero(student):
    """Debts with a quantum of 100."""
    fair = student.new("DLPM", 100, 1, 1)
    expect_equal(fair.call("refills", "new"), 1, what="refills of a client with deficit 0", hints={0: "above 0: 0 is not enough"})
    for client, debt, want in (("a", 30, 1), ("b", 99, 1), ("c", 100, 2), ("d", 101, 2), ("e", 350, 4)):
        fair.call("delivered", client, debt)
        expect_equal(fair.call("refills", client), want, what=f"refills of a client with deficit -{debt}", hints=[
            (want - 1, f"with {want - 1} it would still not be above 0"), (1, "one is not enough for such a debt"), (debt / 100, "whole quanta"), (debt / 100 + 1, "whole quanta: round down, and then add 1")])
    fair.call("admitted", "a", 20, 0, ["a"])
    expect_equal([fair.call("refills", "a"), *deficits_of(student, fair, "a")], [0, 50], what="refills and deficit of a (-30 before) after one refill and 20 tokens", hints=[
        ([0, 80], "a refill adds a quantum to the debt, it does not wipe it out"), ([1, -50], "a needed a refill, and got none")])


@check("dlpm")
def prefix_within_deficits(student):
    """Longest prefix first among those who have something left; nobody else before that."""
    fair = student.new("DLPM", 100)
    got = [first_of(fair, ("ana", 0, 0.0), ("bo", 64, 1.0)), first_of(fair, ("ana", 64, 2.0), ("bo", 64, 1.0))]
    expect_equal(got, [1, 1], what="who goes first (place in the list) of two clients who need one refill each: 0 and 64 tokens found, then 64 and 64", hints=[
        ([0, 0], "most tokens found first"), ([0, 1], "most tokens found first"), ([1, 0], "of equals the earliest arrival")])
    fair.call("admitted", "bo", 90, 0, ["ana", "bo"])
    expect_equal(first_of(fair, ("ana", 0, 0.0), ("bo", 64, 5.0)), 1, what="who goes first of ana (deficit 100, 0 tokens found) and bo (deficit 10, 64 found)", hints={
        0: "both have something left, and need no refill: then it does not matter how much, and bo finds more"})
    fair.call("delivered", "bo", 10)
    expect_equal(first_of(fair, ("bo", 64, 0.0), ("ana", 0, 5.0)), 1, what="who goes first of bo (deficit -10, 64 tokens found) and ana (deficit 100, 0 found)", hints={
        0: "bo has spent its quantum: whoever has something left goes before, whatever the cache says"})
    fair.call("delivered", "ana", 150)
    expect_equal(first_of(fair, ("ana", 64, 0.0), ("bo", 0, 5.0)), 1, what="who goes first of ana (deficit -200, 3 refills) and bo (deficit -10, 1 refill)", hints={
        0: "fewest refills first: who owes more waits longer"})


@check("dlpm")
def rounds_for_all(student):
    """Nobody who waits has anything left: all of them get what the first of them needs."""
    fair = student.new("DLPM", 100)
    for client, tokens in (("ana", 60), ("bo", 130), ("eve", 40)):
        fair.call("delivered", client, tokens)
    fair.call("admitted", "ana", 10, 0, ["ana", "bo"])
    expect_equal(deficits_of(student, fair, "ana", "bo", "eve"), [70, -60, -80], what="deficits of ana, bo and eve, -120, -260 and -80 before; ana needs 2 refills, eve does not wait", hints=[
        ([70, -60, 120], "eve does not wait: refills are for those who wait"), ([70, -60, 0], "eve does not wait, but what she owes she owes"), ([70, -260, -80], "each client in waiting gets the refills, not only the one that goes first"),
        ([-30, -160, -80], "ana needs 2 refills to get above 0"), ([70, 40, -80], "all get as many as ana needs, 2, though bo needs more"), ([90, 100, -80], "a refill adds to what is there, it does not replace it"),
        ([-130, -260, -80], "ana needs refills, or it would not be its turn")])
    fair.call("admitted", "ana", 10, 0, ["ana", "bo"])
    expect_equal(deficits_of(student, fair, "ana", "bo"), [60, -60], what="deficits after ana, who had 70 left, was admitted again", hints=[
        ([160, 40], "ana had something left: nobody is refilled"), ([160, -60], "ana had something left: nobody is refilled")])


@check("dlpm")
def debts_stay(student):
    """Who was away comes back with the debt it had, and what it had left it keeps."""
    fair = student.new("DLPM", 100)
    fair.call("delivered", "ana", 200)
    for _ in range(4):
        fair.call("admitted", "bo", 100, 0, ["bo"])
    fair.call("admitted", "bo", 30, 0, ["ana", "bo"])
    got = deficits_of(student, fair, "ana", "bo")
    expect_equal(got, [-300, 70], what="deficits of ana, who owed 400 and was away while bo was served four times, and of bo", hints=[
        ([100, 70], "ana's debt is not forgotten because she was silent for a while"), ([0, 70], "ana's debt is not forgotten because she was silent for a while"),
        ([-400, 70], "bo had nothing left when it was admitted: it is refilled, and ana, who waits, with it. Refills come before the charge"), ([100, -30], "ana's debt is not forgotten"), ([0, -30], "who is away gets no refills, and the refill now is for ana, too")])
    fair.call("admitted", "ana", 10, 0, ["ana"])
    expect_equal(deficits_of(student, fair, "ana", "bo"), [90, 70], what="deficits of ana (-300 before, served alone) and of bo, who had 70 left and is away", hints=[
        ([90, 0], "what bo has left it keeps"), ([90, 470], "who is away gets no refills")])


class Cheap(MockExecutor):
    """An executor that says always the same token: 2 ms for a step and 0.1 ms for every token that it computes."""

    def execute(self, batch):
        """Time passes."""
        return StepResult({item.request.id: 1 for item in batch.items if item.samples}, 0.002 + 0.0001 * batch.num_tokens)


def sharers(seed, heavy=60, light=24):
    """Three clients, each with three long beginnings that its prompts share; ana asks most. All of it comes at the start."""
    rng, asked = random.Random(seed), []
    for client, count in (("ana", heavy), ("bo", light), ("eve", light)):
        starts = [[rng.randrange(2, 60) for _ in range(240)] for _ in range(3)]
        asked += [(0.2 * rng.random(), ask(f"{client}-{k}", rng.choice(starts) + [rng.randrange(2, 60) for _ in range(10)], rng.choice([12, 24]), tenant=client))
                  for k in range(count)]
    return asked


def served_fairly(policy, seed):
    """Seconds until all are served, and the largest gap of service (what was computed and said) between two clients who both wait."""
    engine = serve(Engine(Cheap(16), PrefixPool(48, 16), policy, token_budget=256, max_running=2, clock=VirtualClock()), sharers(seed))
    return engine.clock.now, max_service_gap(engine.events, found_is_free=True).units


@check("dlpm")
def in_the_real_scheduler(student):
    """Three clients, nine beginnings, a cache for about three: as fair as promised, and faster than taking turns by counters."""
    quantum, seed = 100, 2
    seconds, gap = served_fairly(UsesDeficits(Through(student.new("DLPM", quantum)), 2), seed)
    (slow, _), (_, unfair) = served_fairly(VTC(), seed), served_fairly(LongestPrefixFirst(), seed)
    student.last = ""
    bound = 2 * (quantum + 2 * (250 + 2 * 24))            # two requests run at a time; one costs at most 250 tokens of prompt and 24 of answer
    expect_true(unfair > bound, f"this check is about a load that longest prefix first serves unfairly; its gap is {unfair:.0f}")
    expect_true(gap <= bound, f"a client was served {gap:.0f} weighted tokens more than another that waited all the time; with a quantum of {quantum} at most {bound} are promised "
                f"(longest prefix first: {unfair:.0f})")
    expect_true(seconds <= 0.85 * slow, f"all were served after {seconds:.2f} s; a virtual token counter takes {slow:.2f} s, and at most 85 % of that are asked for: does the order "
                "look at the cache?")


# %% key="dlpm-hidden" role="hidden" exercise="dlpm"
@check("dlpm")
def bursts_do_not_pay(student):
    """One seat: bo waits all the time, ana comes in bursts and is silent between them. Her debts follow her."""
    arrivals = [(0.0, ask(f"bo-{k}", 4, 10, tenant="bo")) for k in range(40)]
    arrivals += [(0.5 * burst, ask(f"ana-{burst}", 4, 30, tenant="ana")) for burst in range(8)]
    engine = serve(engine_of(UsesDeficits(Through(student.new("DLPM", 20)), 1), max_running=1), arrivals)
    student.last = ""
    ends = {event.request: event.time for event in engine.events if event.kind is EventKind.FINISHED}
    half = min(time for name, time in ends.items() if name == "bo-19")
    served = {client: sum(2 * len(event.data["tokens"]) for event in engine.events if event.kind is EventKind.NEW_TOKENS and event.time <= half
                          and event.request.startswith(client)) for client in ("ana", "bo")}
    expect_true(served["ana"] <= 1.15 * served["bo"], f"until half of bo's requests were done ana was given {served['ana']} weighted tokens of answers and bo {served['bo']}, though bo waited all the time: "
                "are her debts forgotten whenever she is silent?")


@check("dlpm")
def other_weights(student):
    """A prompt token weighs 3 and a token of an answer 5."""
    fair = student.new("DLPM", 1000, 3, 5)
    fair.call("admitted", "ana", 100, 40, ["ana"])
    fair.call("delivered", "ana", 7)
    expect_equal(deficits_of(student, fair, "ana"), [785], what="deficit after 60 computed prompt tokens (weight 3) and 7 tokens of an answer (weight 5)", hints=[
        ([926], "the weights are arguments of the class"), ([665], "40 tokens were found")])
    fair = student.new("DLPM", 0.5, 1, 0.25)
    fair.call("delivered", "ana", 9)
    expect_equal(fair.call("refills", "ana"), 5, what="refills of a client with deficit -2.25 and quantum 0.5")


@check("dlpm")
def random_accounts(student):
    """Random admissions and answers: every deficit, all the time."""
    rng = random.Random(8)
    for _ in range(25):
        quantum, want = rng.choice([10, 64, 500]), dict.fromkeys("abcd", 0)
        fair = student.new("DLPM", quantum)
        for _ in range(20):
            if rng.random() < 0.5:
                waiting = rng.sample("abcd", rng.randrange(1, 5))
                need = {c: 0 if want[c] > 0 else -want[c] // quantum + 1 for c in waiting}
                client, prompt = min(waiting, key=need.get), rng.randrange(1, 90)
                found = rng.randrange(prompt)
                for each in waiting:
                    want[each] += need[client] * quantum
                want[client] -= prompt - found
                fair.call("admitted", client, prompt, found, waiting)
            else:
                client, count = rng.choice("abcd"), rng.randrange(1, 40)
                want[client] -= 2 * count
                fair.call("delivered", client, count)
        expect_equal(deficits_of(student, fair, *"abcd"), list(want.values()), what="deficits of four clients after 20 random events")


@check("dlpm")
def the_quantum_is_the_knob(student):
    """With a quantum that nobody ever spends the order is longest prefix first, to the last step."""
    seconds, gap = served_fairly(UsesDeficits(Through(student.new("DLPM", 100_000)), 2), 1)
    fast, unfair = served_fairly(LongestPrefixFirst(), 1)
    student.last = ""
    expect_close([seconds, gap], [fast, unfair], 1e-6, what="seconds, and service gap, with a quantum that nobody ever spends; expected is longest prefix first")


# %% key="dlpm-m1" role="mutant" exercise="dlpm" name="counter reset on idle: who was silent owes nothing"
class DLPM(DLPM):
    def admitted(self, client, prompt, found, waiting):
        for each in list(self.deficits):
            if each not in waiting:
                self.deficits[each] = 0
        super().admitted(client, prompt, found, waiting)


# %% key="dlpm-m2" role="mutant" exercise="dlpm" name="charges the whole prompt, found or not"
class DLPM(DLPM):
    def admitted(self, client, prompt, found, waiting):
        super().admitted(client, prompt, 0, waiting)


# %% key="dlpm-m3" role="mutant" exercise="dlpm" name="refills only whoever goes first"
class DLPM(DLPM):
    def admitted(self, client, prompt, found, waiting):
        super().admitted(client, prompt, found, [client])


# %% key="dlpm-m4" role="mutant" exercise="dlpm" name="longest prefix first, whoever has spent its share"
class DLPM(DLPM):
    def key(self, client, found, arrival):
        return -found, arrival


# %% key="dlpm-m5" role="mutant" exercise="dlpm" name="fair, and blind to the cache"
class DLPM(DLPM):
    def key(self, client, found, arrival):
        return self.refills(client), arrival


# %% key="dlpm-m6" role="mutant" exercise="dlpm" name="a refill sets the deficit to a quantum: debts are forgiven"
class DLPM(DLPM):
    def admitted(self, client, prompt, found, waiting):
        if self.refills(client):
            for each in waiting:
                self.deficits[each] = self.quantum
        super().admitted(client, prompt, found, waiting)


# %% key="dlpm-m7" role="mutant" exercise="dlpm" name="one quantum at a time, whatever the debt"
class DLPM(DLPM):
    def refills(self, client):
        return int(self.deficit(client) <= 0)


# %% key="dlpm-m8" role="mutant" exercise="dlpm" name="refills everybody it knows, those who are away, too"
class DLPM(DLPM):
    def admitted(self, client, prompt, found, waiting):
        super().admitted(client, prompt, found, sorted({*waiting, *self.deficits}))


# %% key="dlpm-m10" role="mutant" exercise="dlpm" name="what was left is forfeited when a client is away"
class DLPM(DLPM):
    def admitted(self, client, prompt, found, waiting):
        self.deficits = {each: left if each in waiting else min(0, left) for each, left in self.deficits.items()}
        super().admitted(client, prompt, found, waiting)


# %% key="dlpm-m9" role="mutant" exercise="dlpm" name="answers cost nothing"
class DLPM(DLPM):
    def delivered(self, client, count):
        pass


# %% key="dlpm-m11" role="mutant" exercise="dlpm" name="whoever has most left goes first, as long as it lasts, too"
class DLPM(DLPM):
    def key(self, client, found, arrival):
        return -self.deficit(client), -found, arrival


# %% [markdown] key="scaler" lang="en" role="exercise" exercise="scaler" points=6 difficulty=4 minutes=50 needs="week 10, part 8"
# ## Exercise 5 · An autoscaler that drains
#
# Load comes and goes, and instances cost money from the moment they are asked for. Write `decide(reports, observed, now,
# settings)`: the cluster calls it every moment and carries out what it returns, a list of pairs (mostly an empty one):
#
# - `("start", count)`: start so many new instances (at least 1). Each takes a while until it is ready, its *cold start*, and
#   only then has a report;
# - `("drain", instance)`: give it nothing new, and let its requests move away or come to their end. From then on its report
#   says `terminating`;
# - `("stop", instance)`: switch it off. **Whatever is still on it is lost.**
#
# ```python
# reports = [{"instance": 0, "num_blocks": 100, "used_blocks": 60, "waiting_blocks": 20,      # 80 of 100 blocks in use or waited for
#             "running": 6, "waiting": 2,            # requests
#             "terminating": False,                  # True: it is being drained
#             "busy": False}]                        # True: a request is just moving to it or away from it
# observed = {"starting": 1,                         # instances that were started and are not ready yet
#             "last_start": 40.0, "last_drain": float("-inf")}        # seconds; minus infinity: not yet
# settings = {"fewest": 1, "most": 5, "high": 0.75, "low": 0.25, "start_after": 5.0, "drain_after": 20.0}
# ```
#
# There are no other instances than those in `reports` (some of them may be terminating; at least one is not) and those that are
# starting. `now` is in seconds. The rule:
#
# 1. **Stop** every terminating instance that runs no request, has none waiting, uses no block and is not busy. Nothing else is
#    ever stopped. Do this in any case, whatever else is decided.
# 2. An instance *counts* if it is not terminating, and one that is starting counts, too. `have` is their number. The *demand*
#    is the sum of `(used_blocks + waiting_blocks) / num_blocks` over the reports that are not terminating: how many whole
#    instances would be full. The *utilisation* is demand divided by `have`.
# 3. **Too few**: if `have` is less than `fewest`, start as many as are missing, without any rest. Then decide nothing more
#    besides the stops. (`fewest` is at least 1, and `have` may be 1.)
# 4. **Up**: if the utilisation is above `high`, as many are *wanted* as bring it back to the middle between `low` and `high`:
#    demand divided by that middle, rounded up. Start those that are missing (wanted less `have`), but not before `start_after`
#    seconds have passed since the last start (exactly so many are enough).
# 5. **Never** more than `most` machines at a time: all in `reports`, also terminating ones, even one that you stop in the
#    same list, and those starting are machines. In 3 and 4 start fewer than you would like if there is no room for more, or none.
# 6. **Down**: if the utilisation is below `low`, drain **one** instance: the one with the fewest requests (running and waiting
#    together); of several the one with the fewest used blocks; of several still the one with the highest number. But only if
#    all of this is true: `have` is above `fewest`; nobody is starting; what is left would not be too full, that is demand
#    divided by `have - 1` is below `high`; and `drain_after` seconds have passed since the last start **and** since the last
#    drain.

# %% [markdown] key="scaler-help-starting" lang="en" role="help" exercise="scaler" title="It starts far too many"
# Do those that are starting count? They have no report, and for the whole cold start the others are as full as before: the same
# need would be answered again and again.

# %% [markdown] key="scaler-help-flap" lang="en" role="help" exercise="scaler" title="It starts and drains all the time"
# Two things keep a noisy load from turning the fleet round: the band between `low` and `high`, in which nothing is done, and
# the rests. A drain must rest after a *start*, too: whoever has just been started has had no time to be useful.

# %% [markdown] key="scaler-help-stop" lang="en" role="help" exercise="scaler" title="When is an instance empty?"
# When it has neither running nor waiting requests, no used blocks, and takes part in no migration: a request that is just
# moving away may come back if that fails. The reports are of this very moment.

# %% [markdown] key="scaler-help-machines" lang="en" role="help" exercise="scaler" title="Why do draining instances count as machines but not as instances that serve?"
# They are paid for, and stand where another one could stand: so they count against `most`. But they take nothing new and will
# be gone soon: whoever counts on them finds too few when it is too late.

# %% [markdown] key="scaler-help-try" lang="en" role="help" exercise="scaler" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# settings = {"fewest": 1, "most": 4, "high": 0.7, "low": 0.3, "start_after": 1.0, "drain_after": 2.0}
# driver = small_cluster(decide, settings)
# for k in range(40):                                       # 40 requests within two seconds, and then nothing
#     driver.go_to(0.05 * k)
#     driver.add(ask(f"r{k}", 8, 40))
# driver.finish()
# driver.go_to(driver.now + 10)
# for event in driver.log:
#     if event.kind is EventKind.SCALED:
#         print(f"{event.time:6.2f} s: instance {event.instance} {event.data['stage']}")
# # 1 starts at 0.30 s, 2 and 3 together at 1.30 s; they are drained from the last on, at 3.30, 5.40 and 7.50 s, never two at a time.
# # "retired" means that your "stop" was carried out, here 0.1 s after each drain.
# ```

# %% key="scaler-answer" role="answer" exercise="scaler"
def decide(reports, observed, now, settings):
    """What to change now: pairs ("start", count), ("drain", instance), ("stop", instance)."""
    ### BEGIN SOLUTION
    decisions = [("stop", each["instance"]) for each in reports if each["terminating"]
                 and not (each["running"] or each["waiting"] or each["used_blocks"] or each["busy"])]
    serving = [each for each in reports if not each["terminating"]]
    have = len(serving) + observed["starting"]
    room = settings["most"] - len(reports) - observed["starting"]
    demand = sum((each["used_blocks"] + each["waiting_blocks"]) / each["num_blocks"] for each in serving)
    missing = settings["fewest"] - have
    if missing <= 0 and demand / have > settings["high"] and now - observed["last_start"] >= settings["start_after"]:
        missing = math.ceil(demand / ((settings["low"] + settings["high"]) / 2)) - have
    if missing > 0 and room > 0:
        return [*decisions, ("start", min(missing, room))]
    rested = now - max(observed["last_start"], observed["last_drain"]) >= settings["drain_after"]
    spare = have > settings["fewest"] and not observed["starting"] and rested
    if spare and demand / have < settings["low"] and demand / (have - 1) < settings["high"]:
        leaves = min(serving, key=lambda each: (each["running"] + each["waiting"], each["used_blocks"], -each["instance"]))
        decisions.append(("drain", leaves["instance"]))
    return decisions
    ### END SOLUTION


# %% key="scaler-check" role="check" exercise="scaler"
SETTINGS = {"fewest": 1, "most": 5, "high": 0.75, "low": 0.25, "start_after": 5.0, "drain_after": 20.0}


def told(instance, used=0, running=0, waiting=0, waiting_blocks=0, **more):
    """A report as in the statement."""
    return {"instance": instance, "num_blocks": 100, "used_blocks": used, "waiting_blocks": waiting_blocks, "running": running, "waiting": waiting,
            "terminating": False, "busy": False} | more


def decided(student, reports, starting=0, last_start=-math.inf, last_drain=-math.inf, now=100.0, **settings):
    """The student's decisions."""
    observed = {"starting": starting, "last_start": last_start, "last_drain": last_drain}
    return checked_decisions(student.call("decide", reports, observed, now, SETTINGS | settings), reports, observed, SETTINGS | settings)


def shown(reports):
    """Reports in words."""
    return ", ".join(f"{r['instance']}: {r['used_blocks']} + {r['waiting_blocks']} of {r['num_blocks']} blocks, {r['running'] + r['waiting']} requests"
                     + (", terminating" if r["terminating"] else "") + (", busy" if r["busy"] else "") for r in reports)


def expect_decisions(student, reports, want, hints=(), **more):
    """The student's decisions are these, in any order."""
    got = sorted(decided(student, reports, **more))
    words = "".join(f", {name} {value}" for name, value in more.items())
    expect_equal(got, sorted(want), what=f"decisions for ({shown(reports)}{words})", hints=hints)


@check("scaler")
def up_in_time(student):
    """Two instances that are too full: as many more as bring the utilisation to the middle of the band."""
    full = [told(0, 90, 6), told(1, 80, 5, 3, 70)]
    expect_decisions(student, full, [("start", 3)], [
        ([("start", 5)], "five are wanted, and two of them are there: three are missing"), ([("start", 2)], "demand is (90 + 80 + 70) / 100 = 2.4 instances' worth, what waits included; 2.4 over the middle of the band, 0.5, is 4.8: five are wanted"), ([("start", 1)], "2.4 instances' worth over 0.5, the middle of the band, is 4.8: five are wanted, and there are two"),
        ([], "the utilisation is 1.2, above high")], most=9)
    expect_decisions(student, full, [("start", 2)], [([("start", 3)], "one is starting: it counts, or the same need is answered twice"),
        ([], "2.4 over 3 instances is 0.8, above high; and the last start was 5 s ago: exactly start_after is enough")], starting=1, last_start=95.0, most=9)
    expect_decisions(student, full, [], [([("start", 2)], "the last start was 4.9 s ago, start_after is 5")], starting=1, last_start=95.1)
    expect_decisions(student, [told(0, 90, 6), told(1, 80, 5)], [], [([("start", 1)], "one is starting: 1.7 over 3 instances is 0.57"), ([("start", 2)], "one is starting: 1.7 over 3 instances is 0.57")], starting=1)
    expect_decisions(student, full, [("start", 1)], [([("start", 2)], "never more than most")], most=3)
    expect_decisions(student, [told(0, 75, 5), told(1, 75, 5)], [], [([("start", 1)], "above high, not at it")])
    expect_decisions(student, [told(0, 100, 6), told(1, 100, 6)], [("start", 2)], [([("start", 3)], "2.0 over 0.5 is exactly 4: four are wanted, two of them are there")])


@check("scaler")
def down_one_by_one(student):
    """Three instances with little to do: one is drained, the one with the fewest requests."""
    idle = [told(0, 5, 1, 1), told(1, 20, 1), told(2, 30, 1)]
    expect_decisions(student, idle, [("drain", 1)], [
        ([("drain", 1), ("drain", 2)], "one instance, and then a rest"), ([("drain", 2)], "of those with one request 1 has the fewest used blocks"), ([("stop", 1)], "it has a request: drain it first"), ([], "the utilisation is 0.18"), ([("drain", 0)], "0 has two requests, one of them waits: who has the fewest requests leaves, and only of equals who has the fewest blocks")])
    expect_decisions(student, [told(0, 4, 1), told(1, 4, 1)], [("drain", 1)], [([("drain", 0)], "of equals the one with the highest number")])
    expect_decisions(student, [told(0, 10, 2), told(1, 15, 2), told(2, 5, 1, terminating=True)], [("drain", 0)], [([("drain", 1)], "of 0 and 1, with two requests each, 0 has the fewest used blocks"),
        ([], "2 of 3 count, and they are 0.125 full: one of them is enough")])
    expect_decisions(student, idle, [], [([("drain", 1)], "a start 10 s ago: drain_after is 20 s, and counts from the last start, too")], last_start=90.0)
    expect_decisions(student, idle, [], [([("drain", 1)], "a drain 10 s ago: drain_after is 20 s")], last_drain=90.0)
    expect_decisions(student, idle, [], [([("drain", 1)], "somebody is starting")], starting=1)
    expect_decisions(student, idle, [], [([("drain", 1)], "there must be at least fewest, 3")], fewest=3)
    expect_decisions(student, [told(0, 5, 1)], [], [([("drain", 0)], "it is the last one: there must be at least fewest, 1")])
    expect_decisions(student, [told(0, 45, 3), told(1, 35, 3)], [], [([("drain", 1)], "the one that is left would be 0.8 full")], low=0.5)


@check("scaler")
def stopped_when_empty(student):
    """Who is being emptied is stopped when nothing is on it any more, and not before."""
    calm = told(0, 50, 4)
    for still in ({"used": 9, "running": 2}, {"waiting": 1, "waiting_blocks": 3}, {"used": 4}, {"busy": True}):
        expect_decisions(student, [calm, told(1, terminating=True, **still)], [], [([("stop", 1)], "what is still on it would be lost")])
    expect_decisions(student, [calm, told(1, terminating=True)], [("stop", 1)], [([], "1 is empty, and costs money until it is stopped")])
    expect_decisions(student, [calm, told(1)], [], [([("stop", 1)], "1 is empty, but it takes requests: the next one may be on its way")], last_start=99.0)
    expect_decisions(student, [told(0, 99, 6), told(1, terminating=True)], [("stop", 1), ("start", 1)], [
        ([("start", 1)], "stop who is empty, whatever else is decided"), ([("stop", 1)], "0 is full, and 1 takes nothing: one more is needed"),
        ([("start", 2), ("stop", 1)], "0.99 over 0.5 is 1.98: two are wanted, and 0 is one of them")])
    expect_decisions(student, [calm, told(1, terminating=True)], [("stop", 1), ("start", 1)], [
        ([("start", 1)], "too few is no reason not to stop who is empty")], fewest=2)


@check("scaler")
def bounds(student):
    """Draining instances are machines, but nobody can count on them."""
    leaving = [told(0, 90, 6), told(1, 20, 2, terminating=True), told(2, 20, 2, terminating=True)]
    expect_decisions(student, leaving, [("start", 1)], [([], "1 and 2 take nothing: only 0 counts, and it is 0.9 full"), ([("start", 2)], "those that are being emptied are machines, too: 3 of 4")], most=4)
    expect_decisions(student, leaving, [("start", 1)], [([("start", 2)], "what is on 1 and 2 is no demand: it ends or moves away. 0.9 over 0.5 is 1.8: two are wanted")], most=9)
    expect_decisions(student, leaving, [], [([("start", 1)], "3 machines of 3: no room until somebody has left")], most=3)
    expect_decisions(student, [told(0, 90, 6), told(1, 80, 5, 3, 70)], [], starting=1, most=3)
    expect_decisions(student, [told(0, 99, 6), told(1, terminating=True)], [("stop", 1)], most=2)
    expect_decisions(student, [told(0, 50, 3), told(1, 1, 1, terminating=True)], [("start", 1)], [([], "only 0 takes requests: one is missing of fewest = 2, and that waits for no rest")], fewest=2, last_start=99.5)
    expect_decisions(student, [told(0, 50, 3)], [], [([("start", 1)], "one is starting: that makes 2")], fewest=2, starting=1, last_start=99.5)


def on_paper(student, load, seconds, settings=SETTINGS, cold=8):
    """A fleet on paper, one second at a time: `load` instances' worth of work are spread evenly, drained instances are empty after 5 s.

    Returns the changes (second, +1 or -1) and how many took requests in each second.
    """
    ready, draining, changes, shown, last, numbers = {0: 0}, {}, [], [], {"start": -math.inf, "drain": -math.inf}, iter(range(1, 10_000))
    for now in range(seconds):
        serving = [number for number, since in ready.items() if since <= now and number not in draining]
        share, starting = load(now) / len(serving), sum(since > now for since in ready.values())
        reports = [told(n, round(100 * min(1, share)), round(8 * min(1, share)), 0, round(100 * max(0, share - 1))) for n in serving]
        reports += [told(n, 10 if until > now else 0, int(until > now), terminating=True) for n, until in draining.items()]
        observed = {"starting": starting, "last_start": last["start"], "last_drain": last["drain"]}
        for verb, number in checked_decisions(student.call("decide", reports, observed, float(now), settings), reports, observed, settings):
            if verb == "stop":
                ready.pop(number), draining.pop(number)
                continue
            last[verb] = float(now)
            changes += [(now, 1)] * number if verb == "start" else [(now, -1)]
            if verb == "drain":
                draining[number] = now + 5
            else:
                ready |= {next(numbers): now + cold for _ in range(number)}
        shown.append(len(serving))
    return changes, shown, len(ready)


@check("scaler")
def noise_does_not_turn_it_round(student):
    """Ten minutes of a load that is noisy but the same: the fleet finds its size, and stays."""
    for level in (0.6, 1.9, 3.1):
        rng = random.Random(level)
        noise = [level * rng.uniform(0.8, 1.2) for _ in range(600)]
        changes, shown, _ = on_paper(student, noise.__getitem__, 600)
        student.last = ""
        turns = sum(before * after < 0 for (_, before), (_, after) in pairwise(changes))
        expect_true(turns <= 1 and len(changes) <= 8, f"under a load of {level} instances' worth of work, give or take a fifth, your fleet changed {len(changes)} times in ten minutes and turned "
                    f"round {turns} times: it flaps. First changes (second, how): {changes[:8]}")
        expect_true(shown[-1] >= level, f"under a load of {level} instances' worth of work {shown[-1]} instances serve at the end")


# %% key="scaler-hidden" role="hidden" exercise="scaler"
@check("scaler")
def follows_a_day(student):
    """Night, morning, rush hour, evening: enough by day, few by night, nobody stopped with requests, and never above the most."""
    day = [0.3] * 200 + [2.0] * 200 + [3.4] * 200 + [0.3] * 300
    _, shown, machines = on_paper(student, day.__getitem__, len(day))
    student.last = ""
    expect_true(min(shown[230:400]) >= 2 and min(shown[430:600]) >= 4, f"{min(shown[230:400])} and {min(shown[430:600])} instances serve in the morning (2.0 instances' worth of work) and in the rush hour (3.4)")
    expect_true(shown[-1] == 1 and machines == 1, f"at the end of the night {shown[-1]} instances serve and {machines} machines are paid for; one is enough")


def rule_of_the_statement(reports, starting, now, settings, last_start, last_drain):
    """What is decided, point by point."""
    done = [("stop", r["instance"]) for r in reports if r["terminating"] and r["running"] + r["waiting"] + r["used_blocks"] + r["busy"] == 0]
    serve_now = [r for r in reports if not r["terminating"]]
    have, room = len(serve_now) + starting, max(0, settings["most"] - len(reports) - starting)
    demand = sum((r["used_blocks"] + r["waiting_blocks"]) / r["num_blocks"] for r in serve_now)
    if have < settings["fewest"]:
        return done + [("start", n) for n in [min(settings["fewest"] - have, room)] if n]
    if demand / have > settings["high"]:
        more = math.ceil(demand / ((settings["low"] + settings["high"]) / 2)) - have
        return done + [("start", n) for n in [min(more, room)] if n > 0 and now - last_start >= settings["start_after"]]
    if (demand / have < settings["low"] and have > settings["fewest"] and not starting and demand / (have - 1) < settings["high"]
            and min(now - last_start, now - last_drain) >= settings["drain_after"]):
        order = sorted(serve_now, key=lambda r: (r["running"] + r["waiting"], r["used_blocks"], -r["instance"]))
        return [*done, ("drain", order[0]["instance"])]
    return done


@check("scaler")
def random_fleets(student):
    """Random reports, rests and settings: the rule of the statement, case by case."""
    rng = random.Random(11)
    for _ in range(300):
        reports = []
        for number in rng.sample(range(9), rng.randrange(1, 6)):
            empty, leaving = rng.random() < 0.3, rng.random() < 0.3 and bool(reports)
            used = 0 if empty else rng.choice([4, 20, 20, 60, 97])
            reports.append(told(number, used, 0 if empty else rng.randrange(1, 4), rng.choice([0, 0, 2]), rng.choice([0, 0, 0, 30]), terminating=leaving, busy=rng.random() < 0.2))
        fewest = rng.randrange(1, 4)
        settings = {"fewest": fewest, "most": fewest + rng.randrange(6), "high": rng.choice([0.6137, 0.8273]), "low": rng.choice([0.1931, 0.5171]), "start_after": 5.0, "drain_after": 20.0}
        starting = rng.choice([0, 0, 0, 1, 2])
        times = {"last_start": 100.0 - rng.choice([1.0, 5.0, 12.0, 20.0, 300.0]), "last_drain": 100.0 - rng.choice([3.0, 19.5, 20.0, 300.0])}
        expect_decisions(student, reports, rule_of_the_statement(reports, starting, 100.0, settings, **times), starting=starting, **times, **settings)


@check("scaler")
def in_the_real_cluster(student):
    """Two bursts on real schedulers that grow, move requests and shrink: every token of every answer, and nobody paid for nothing."""
    settings = {"fewest": 1, "most": 4, "high": 0.7, "low": 0.3, "start_after": 0.4, "drain_after": 1.0}
    driver = small_cluster(partial(student.call, "decide"), settings, cold=0.3)
    rng, asked = random.Random(3), []
    for k in range(70):
        driver.go_to(0.03 * k + (6.0 if k >= 35 else 0.0))
        asked.append(driver.add(ask(f"r{k}", rng.choice([4, 8, 12]), rng.choice([10, 30, 60]))))
    driver.finish()
    driver.go_to(driver.now + 12.0)
    student.last = ""
    driver.check_invariants()
    for request in asked:
        stream = driver.gateway.streams[request.id]
        want = MockExecutor(BLOCK).continue_alone(request.prompt, request.sampling.max_tokens, True)
        expect_equal(stream.output, want, what=f"tokens that the user of {request.id} got")
    stages = [event.data["stage"] for event in driver.log if event.kind is EventKind.SCALED]
    alive = len(driver.alive)
    expect_true(stages.count("starting") >= 3, f"{stages.count('starting')} instances were started in two bursts that are too much for one")
    expect_true(alive == 1, f"12 s after the last request {alive} instances are paid for ({stages.count('draining')} were drained, {stages.count('retired')} stopped); one is enough")
    expect_true(stages.count("starting") <= 8, f"{stages.count('starting')} instances were started for two bursts, with at most 4 at a time: it flaps")


# %% key="scaler-m1" role="mutant" exercise="scaler" name="scale-in that drops requests: stops who is least loaded"
_decide = decide


def decide(reports, observed, now, settings):
    return [("stop", number) if verb == "drain" else (verb, number) for verb, number in _decide(reports, observed, now, settings)]


# %% key="scaler-m2" role="mutant" exercise="scaler" name="drains, and stops at once"
_decide2 = decide


def decide(reports, observed, now, settings):
    found = [pair for pair in _decide2(reports, observed, now, settings) if pair[0] != "stop"]
    return found + [("stop", each["instance"]) for each in reports if each["terminating"]]


# %% key="scaler-m3" role="mutant" exercise="scaler" name="flapping: no rests"
_decide3 = decide


def decide(reports, observed, now, settings):
    return _decide3(reports, observed, now, settings | {"start_after": 0.0, "drain_after": 0.0})


# %% key="scaler-m4" role="mutant" exercise="scaler" name="flapping: one threshold instead of a band"
_decide4 = decide


def decide(reports, observed, now, settings):
    middle = (settings["low"] + settings["high"]) / 2
    return _decide4(reports, observed, now, settings | {"low": middle, "high": middle})


# %% key="scaler-m5" role="mutant" exercise="scaler" name="does not count who is starting"
_decide5 = decide


def decide(reports, observed, now, settings):
    return _decide5(reports, observed | {"starting": 0}, now, settings)


# %% key="scaler-m6" role="mutant" exercise="scaler" name="counts on instances that are being emptied"
_decide6 = decide


def decide(reports, observed, now, settings):
    serving = [each | {"terminating": False} if each["used_blocks"] else each for each in reports]
    return [pair for pair in _decide6(serving, observed, now, settings) if pair[0] != "drain" or not next(r for r in reports if r["instance"] == pair[1])["terminating"]]


# %% key="scaler-m7" role="mutant" exercise="scaler" name="never stops who is empty, and pays for ever"
_decide7 = decide


def decide(reports, observed, now, settings):
    return [pair for pair in _decide7(reports, observed, now, settings) if pair[0] != "stop"]


# %% key="scaler-m8" role="mutant" exercise="scaler" name="forgets that those being emptied are machines, too"
_decide8 = decide


def decide(reports, observed, now, settings):
    leaving = sum(each["terminating"] for each in reports)
    return _decide8(reports, observed, now, settings | {"most": settings["most"] + leaving})


# %% key="scaler-m9" role="mutant" exercise="scaler" name="does not see the queue"
_decide9 = decide


def decide(reports, observed, now, settings):
    return _decide9([each | {"waiting_blocks": 0} for each in reports], observed, now, settings)


# %% key="scaler-m10" role="mutant" exercise="scaler" name="shrinks below the minimum"
_decide10 = decide


def decide(reports, observed, now, settings):
    return _decide10(reports, observed, now, settings | {"fewest": 1})


# %% key="scaler-m11" role="mutant" exercise="scaler" name="drains although the rest would be too full"
_decide11 = decide


def decide(reports, observed, now, settings):
    serving = [each for each in reports if not each["terminating"]]
    demand = sum((each["used_blocks"] + each["waiting_blocks"]) / each["num_blocks"] for each in serving)
    calm = demand / max(1, len(serving)) < settings["low"]
    return _decide11(reports, observed, now, settings | {"high": 99.0} if calm else settings)


# %% key="scaler-m12" role="mutant" exercise="scaler" name="drains who was just started: rests only after a drain"
_decide12 = decide


def decide(reports, observed, now, settings):
    found = _decide12(reports, observed, now, settings)
    rested = _decide12(reports, observed | {"last_start": float("-inf")}, now, settings)
    return found if any(pair[0] == "start" for pair in [*found, *rested]) else rested


# %% key="scaler-m13" role="mutant" exercise="scaler" name="drains who has the fewest blocks, however many requests"
_decide13 = decide


def decide(reports, observed, now, settings):
    found = _decide13(reports, observed, now, settings)
    serving = [each for each in reports if not each["terminating"]]
    least = min(serving, key=lambda each: (each["used_blocks"], each["running"] + each["waiting"], -each["instance"]))
    return [("drain", least["instance"]) if verb == "drain" else (verb, number) for verb, number in found]


# %% key="scaler-m14" role="mutant" exercise="scaler" name="forgets that those starting are machines, too"
_decide14 = decide


def decide(reports, observed, now, settings):
    return _decide14(reports, observed, now, settings | {"most": settings["most"] + observed["starting"]})


# %% key="scaler-m15" role="mutant" exercise="scaler" name="whoever is stopped makes room in the same moment"
_decide15 = decide


def decide(reports, observed, now, settings):
    stops = sum(verb == "stop" for verb, _ in _decide15(reports, observed, now, settings))
    return _decide15(reports, observed, now, settings | {"most": settings["most"] + stops})


# %% key="scaler-m16" role="mutant" exercise="scaler" name="drains who is being emptied already"
_decide16 = decide


def decide(reports, observed, now, settings):
    least = min(reports, key=lambda each: (each["running"] + each["waiting"], each["used_blocks"], -each["instance"]))
    return [("drain", least["instance"]) if verb == "drain" else (verb, number) for verb, number in _decide16(reports, observed, now, settings)]


# %% key="scaler-m17" role="mutant" exercise="scaler" name="one more than wanted where it comes out even"
_decide17 = decide


def decide(reports, observed, now, settings):
    serving, starting = [each for each in reports if not each["terminating"]], observed["starting"]
    demand = sum((each["used_blocks"] + each["waiting_blocks"]) / each["num_blocks"] for each in serving)
    even = len(serving) + starting >= settings["fewest"] and (2 * demand / (settings["low"] + settings["high"])).is_integer()
    room = settings["most"] - len(reports) - starting
    return [(verb, min(number + even, room)) if verb == "start" else (verb, number) for verb, number in _decide17(reports, observed, now, settings)]


# %% [markdown] key="end" lang="en"
# ## Done
#
# Who gives way, what becomes of its KV, who goes next, who has had its share, and how many machines there are: five rules, each
# a few lines, and each of them runs in the same scheduler. None of them makes a machine faster; they decide who waits. And none
# of them may ever lose a token.
#
# Hand in this file. Your score: `llmcourse check labs/lab10_deciding.ipynb`.
