"""Lab 7: which blocks may be sent, a live migration, its downtime, an abort that leaks nothing, copy or recompute. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 7 · Rescheduling at run time: migration
#
# A request decodes on one instance and should go on at another, and its user should notice nothing but a short pause. You find out
# which of its blocks may be sent while it goes on, write the migration that sends them, and run it between two real engines: the
# answer must be the same, token by token. Then you say how long the pause is and why it does not grow, what must be undone when
# something goes wrong half way, and when it is cheaper to send no KV at all.
#
# **How to work.** Write your answer where `NotImplementedError` stands, run the cell, run the check below it. A check
# that fails says what it asked, what came back, and often which idea went wrong. Folded help is titled by what you
# see. Exercises do not depend on each other: if one is stuck, go on to the next. Some checks are hidden: they try other
# numbers and edge cases of what the statement says, nothing else.
#
# **To see your score:** `llmcourse check labs/lab07_migration.ipynb`. **To hand in:** save the notebook and hand in the
# file.
#
# The lecture of week 7 has the ideas behind all of this. You only need plain Python: numbers, lists, dictionaries. The long
# cell below only sets things up: run it, you need not read it.

# %% key="setup" role="setup"
import math
import random
from dataclasses import replace

import torch

from llmcourse.engine import Engine, EventKind, Request, SamplingParams, VirtualClock, arriving, departing
from llmcourse.engine.batch import StepResult
from llmcourse.engine.request import Status
from llmcourse.engine.transit import Refused
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.grading import CheckFailed, Served, check, expect_close, expect_equal, expect_true
from llmcourse.grading.failure import NotWritten, StudentError
from llmcourse.kv import BlockPool, PrefixPool
from llmcourse.model import load_model

torch.set_num_threads(1)
torch.set_grad_enabled(False)


class Trouble(Exception):
    """Something was asked for that cannot or must not be done; the text says what."""


class TwoInstances:
    """Two engines that go on while blocks are carried between them, and the request `name` that lives on the first.

    `trouble` is the first thing that went wrong, in words. `copies` lists what was sent: (first, last, how).
    """

    def __init__(self, source, destination, name, steps_per_block=0.25):
        self.source, self.destination, self.name, self.steps_per_block = source, destination, name, steps_per_block
        self.born = departing.look(source, name)
        self.block_size = source.pool.block_size
        self.trouble, self.calls, self.copies, self.held = "", 0, [], {}
        self.lost, self.ended, self.third = set(), False, None

    # ---- what is so ------------------------------------------------------------------------------------------------

    @property
    def stopped(self):
        """Whether the request has stopped at the source and still has its blocks there."""
        return self.name in self.source.scheduler.transit.leaving

    @property
    def reserved(self):
        """Blocks that the destination keeps for it, or None."""
        guest = self.name in self.destination.scheduler.transit.guests
        return len(self.destination.pool.table(self.name)) if guest else None

    @property
    def adopted(self):
        """Whether it lives at the destination."""
        return self.name in self.destination.requests

    def blocks(self, tokens):
        """Blocks that so many tokens fill."""
        return -(-tokens // self.block_size)

    def delivered(self):
        """Every token its user has been sent, in order."""
        logs = [engine.events for engine in (self.source, self.destination, self.third) if engine is not None]
        news = [event for log in logs for event in log if event.kind is EventKind.NEW_TOKENS and event.request == self.name]
        return [token for event in news for token in event.data["tokens"]]

    # ---- what is done ----------------------------------------------------------------------------------------------

    def do(self, verb, request, act):
        """Carry out one call of the student's; Trouble where that is impossible or wrong."""
        self.calls += 1
        try:
            self.fail(self.calls > 2000, "after 2000 calls your migration has still not come to an end")
            self.fail(request != self.name, f"{verb} was called for {request!r}; the request is {self.name!r}")
            return act()
        except Refused as reason:
            self.fail(True, f"{verb} is impossible here: {reason}")

    def fail(self, wrong, text):
        """Raise Trouble if something is wrong; the first one is kept."""
        if wrong:
            self.trouble = self.trouble or text
            raise Trouble(text)

    def step(self):
        """One step of every instance that has something to do."""
        for side, engine in (("source", self.source), ("destination", self.destination), ("third instance", self.third)):
            if engine is None or side in self.lost or engine.idle:
                continue
            try:
                engine.step()
            except (KeyError, IndexError):
                self.fail(True, f"the {side} read a slot of a block that nobody has written: not all KV has arrived")
        owners = sum(request in engine.scheduler.running for engine in (self.source, self.destination)
                     for request in [engine.requests.get(self.name)])
        self.fail(owners > 1, "both instances decode the request")

    def finish(self):
        """Go on until everybody is done."""
        for _ in range(5000):
            if all(engine is None or engine.idle or side in self.lost for side, engine in (
                    ("source", self.source), ("destination", self.destination), ("third", self.third))):
                return
            self.step()
        self.fail(True, "after 5000 steps the requests are still not done")

    def given(self, state, verb):
        """The student's state as a snapshot of the course's."""
        good = (type(state) is dict and set(state) == {"tokens", "computed"} and type(state["tokens"]) is list
                and type(state["computed"]) is int)
        self.fail(not good, f"{verb} takes a state as look and stop return it, a dict with tokens and computed; this was "
                  f"{state!r:.80}")
        return replace(self.born, output=tuple(state["tokens"][len(self.born.prompt):]), computed=state["computed"],
                       status=Status.RUNNING)


def state_of(snapshot):
    """A snapshot as plain data."""
    return {"tokens": list(snapshot.tokens), "computed": snapshot.computed}


class Source:
    """The instance on which the request runs: look, stop, release."""

    def __init__(self, world):
        self._world = world

    def look(self, request):
        """The state of the request; None when it does not run here any more."""
        world = self._world

        def act():
            live = world.source.requests.get(request)
            if live is None or live.done or live.preemptions != world.born.preemptions:
                return None
            return state_of(departing.look(world.source, request))
        return world.do("source.look", request, act)

    def stop(self, request):
        """Take it out of the batch; its last state."""
        return self._world.do("source.stop", request, lambda: state_of(departing.stop(self._world.source, request)))

    def release(self, request):
        """Free its blocks and forget it."""
        world = self._world

        def act():
            world.fail(not world.adopted, "source.release before destination.adopt: for a moment nobody owns the request, and if "
                       "the destination then fails it is lost. First adopt, then release")
            departing.release(world.source, request)
        return world.do("source.release", request, act)


class Destination:
    """The instance to which it goes: reserve, grow, adopt, drop."""

    def __init__(self, world):
        self._world = world

    def reserve(self, request, state):
        """Keep room; how many of its blocks are here already, or None when there is no room."""
        world = self._world

        def act():
            snapshot = world.given(state, "destination.reserve")
            world.fail(world.reserved is not None, "destination.reserve was called a second time: more room is had by grow")
            try:
                found = arriving.reserve(world.destination, snapshot)
            except Refused:
                return None
            world.held |= dict.fromkeys(range(found), world.block_size)
            return found
        return world.do("destination.reserve", request, act)

    def grow(self, request, state):
        """Keep room for what has come since."""
        world = self._world
        world.do("destination.grow", request, lambda: arriving.grow(world.destination, world.given(state, "destination.grow")))

    def adopt(self, request, state):
        """It runs here from now on."""
        world = self._world

        def act():
            snapshot = world.given(state, "destination.adopt")
            world.fail(world.adopted, "destination.adopt was called a second time")
            world.fail(not world.stopped, "destination.adopt while the source still decodes the request: now both sides decode it, "
                       "and the user gets its tokens twice. Stop it first")
            now = departing.look(world.source, request)
            world.fail(list(snapshot.tokens) != list(now.tokens) or snapshot.computed != now.computed,
                       f"destination.adopt was given the state of an earlier moment, with {snapshot.num_tokens} tokens; when the "
                       f"source stopped there were {now.num_tokens}. The last state is the one that stop returns")
            for position in range(world.blocks(now.computed)):
                there, here = world.held.get(position, 0), min(world.block_size, now.computed - position * world.block_size)
                world.fail(there == 0, f"destination.adopt before all blocks have arrived: block {position} of "
                           f"0 to {world.blocks(now.computed) - 1} was never sent")
                world.fail(there < here, f"block {position} was sent when {there} of its tokens were written; there are {here} now. A "
                           "block that is still being written must be sent later (or again)")
            arriving.adopt(world.destination, snapshot)
        return world.do("destination.adopt", request, act)

    def drop(self, request):
        """Give up what is kept for it."""
        world = self._world

        def act():
            world.fail(world.adopted, "destination.drop after adopt: the request lives there")
            arriving.drop(world.destination, request)
        return world.do("destination.drop", request, act)


class Link:
    """The network between the two: copy. While blocks are on their way both instances go on."""

    def __init__(self, world):
        self._world = world

    def copy(self, request, first, last):
        """Send the blocks at the positions first to last - 1 of its table."""
        world = self._world

        def act():
            good = type(first) is int and type(last) is int and 0 <= first <= last
            world.fail(not good, f"link.copy takes two positions, 0 <= first <= last; these were {first!r} and {last!r}")
            if first == last:
                return
            world.fail(world.adopted, "blocks were sent after destination.adopt: the request runs there already, on blocks that had "
                       "not arrived. Adopt comes after the last copy")
            world.fail(world.reserved is None, "link.copy without room: nothing is reserved at the destination")
            world.fail(last > world.reserved, f"link.copy of the positions {first} to {last - 1}: the destination keeps room for "
                       f"{world.reserved} blocks. The request has grown: call destination.grow first")
            payload, computed = departing.read(world.source, request, first, last), departing.look(world.source, request).computed
            world.copies.append((first, last, "stopped" if world.stopped else "running"))
            world.held |= {at: min(world.block_size, computed - at * world.block_size) for at in range(first, last)}
            for _ in range(max(1, math.ceil((last - first) * world.steps_per_block))):
                world.step()
            arriving.write(world.destination, request, first, last, payload)
        return world.do("link.copy", request, act)


class SeededMock(MockExecutor):
    """The mock (its next token is a hash of all it reads back through the table), with other answers for another seed."""

    def execute(self, batch):
        """The mock's tokens, moved on by the request's seed."""
        result = super().execute(batch)
        seeds = {item.request.id: item.request.sampling.seed for item in batch.items}
        moved = {name: (token + seeds[name]) % self.limits.vocab_size for name, token in result.tokens.items()}
        return StepResult(moved, result.seconds)


def engine_of(executor, pool, max_running=8):
    """An engine on this executor and pool, in virtual time, that checks itself after every step."""
    return Engine(executor, pool, max_running=max_running, token_budget=4096, clock=VirtualClock(), checked=True)


def ask(engine, name, prompt, length, seed=0):
    """Add a request that says exactly `length` tokens."""
    return engine.add(Request(prompt, SamplingParams(max_tokens=length, ignore_eos=True, seed=seed), id=name))


def alone(engine, prompt, length, seed=0):
    """What a request says when it runs alone on this engine, undisturbed."""
    request = ask(engine, "alone", prompt, length, seed)
    while not engine.idle:
        engine.step()
    return list(request.output)


def mock_pair(prompt=50, length=200, at=10, block_size=4, blocks=(200, 200), steps_per_block=0.25, cached=False, seed=0):
    """Two engines on mocks; the request has said `at` tokens on the first, a neighbour runs on each of them."""
    rng = random.Random(seed)
    tokens = [rng.randrange(1, 60) for _ in range(prompt)]
    pools = [BlockPool(blocks[0], block_size), PrefixPool(blocks[1], block_size) if cached else BlockPool(blocks[1], block_size)]
    source, destination = (engine_of(SeededMock(block_size), pool) for pool in pools)
    for engine, number in ((source, 1), (destination, 2)):
        ask(engine, f"neighbour-{number}", [number] * 6, 30, number)
    if cached:
        alone(destination, tokens[:cached], 1)
    moving = ask(source, "moving", tokens, length, seed)
    while moving.num_output < at:
        source.step()
    world = TwoInstances(source, destination, "moving", steps_per_block)
    world.want = alone(engine_of(SeededMock(block_size), BlockPool(400, block_size)), tokens, length, seed)
    return world


# %% [markdown] key="which" lang="en" role="exercise" exercise="which_blocks" points=4 difficulty=2 minutes=25 needs="week 7, part 3"
# ## Exercise 1 · Which blocks may be sent now?
#
# A request's KV lies in blocks of `block_size` tokens. Its block table lists them in order; in this lab a block is always called by its
# **position** in that table, from 0: block 0 holds the tokens 0 to `block_size - 1`, and so on. Of the request's tokens `computed` have
# their KV in the cache: the tokens 0 to `computed - 1`. The next step writes the KV of token number `computed`.
#
# A block may be sent while the request goes on decoding if nothing will ever be written into it again. Write a function
#
# - `may_send(computed, sent, block_size, stopped=False, undo=0)`: returns a pair `(first, last)`: the blocks at the positions `first` to
#   `last - 1` may be sent now and have not been sent yet. `sent` blocks, from position 0 on, have been sent already.
#   If there are none, `first == last == sent`.
#   - As long as the request runs (`stopped=False`) only blocks that will not be written again may be sent.
#   - Once it has stopped (`stopped=True`) nothing is written any more: all that is left may go, a last block that is only partly
#     filled as well.
#   - `undo` is 0 for nearly all engines: KV is only ever appended. But some guess several tokens ahead and take wrong guesses back
#     (*speculative decoding*): then up to `undo` of the newest computed tokens may be taken back, and their slots written
#     again, as long as the request runs.
#
# You may rely on `sent` never being more than what was allowed. Now look at it from the other side, as somebody who checks what others
# have done:
#
# - `outdated(log, block_size)`: `log` is a list of what has happened, in order, from an empty cache on: `("write", first, count)` means that
#   the KV of the `count` tokens (at least 1) with the numbers `first` to `first + count - 1` was written at the source (perhaps not
#   for the first time), `("send", first, last)` that the blocks at the positions `first` to `last - 1` were sent as they were at
#   that moment. Returns a sorted list of the positions of all blocks in which the destination does not have what the source has:
#   never sent since the first write, or written again after they were sent last.

# %% [markdown] key="which-help-full" lang="en" role="help" exercise="which_blocks" title="Is the last block always the one that must stay?"
# Only if it is not full. With 32 computed tokens in blocks of 16 both blocks are full, and the next token goes into a third one. With 33
# the third block holds one token, and 15 more will be written into it.

# %% [markdown] key="which-help-known" lang="en" role="help" exercise="which_blocks" title="A request that decodes has one token more than computed"
# Yes: the newest token has been sampled and sent to the user, but its KV is written only by the next step, which takes it as input.
# So count what is **computed**, not what is known. That one token is the difference between a full block and one with an
# empty slot.

# %% [markdown] key="which-help-log" lang="en" role="help" exercise="which_blocks" title="How do I keep track in outdated?"
# With one set of positions: a write puts the blocks it touches into it, a send takes blocks out. A write of several tokens may touch
# several blocks: token number `t` lies in block `t // block_size`.

# %% [markdown] key="which-help-why" lang="en" role="help" exercise="which_blocks" title="Why is this easier than moving a virtual machine?"
# A virtual machine writes to its memory anywhere and at any time: pages that were sent become *dirty* and must be sent again, and how many
# there will be nobody knows. A KV cache is only appended to. What is full stays as it is, so every full block is sent exactly once.

# %% key="which-answer" role="answer" exercise="which_blocks"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    """Blocks that may be sent now, as positions (first, last): first to last - 1."""
    ### BEGIN SOLUTION
    if stopped:
        return sent, -(-computed // block_size)
    return sent, max(sent, (computed - undo) // block_size)
    ### END SOLUTION


def outdated(log, block_size):
    """Sorted positions of the blocks in which the destination does not have what the source has."""
    ### BEGIN SOLUTION
    dirty = set()
    for what, first, number in log:
        if what == "write":
            dirty |= set(range(first // block_size, (first + number - 1) // block_size + 1))
        else:
            dirty -= set(range(first, number))
    return sorted(dirty)
    ### END SOLUTION


# %% key="which-check" role="check" exercise="which_blocks"
def expect_range(student, want, computed, sent, block_size, hints=(), **more):
    """The student's pair is this one."""
    got = student.call("may_send", computed, sent, block_size, **more)
    good = type(got) in (list, tuple) and len(got) == 2 and all(type(each) is int for each in got)
    expect_true(good, f"may_send returns a pair of positions (first, last); this was {got!r}")
    expect_equal(tuple(got), want, what=f"may_send, {computed} tokens computed, {sent} blocks of {block_size} sent", hints=hints)


WRITTEN = "block {} is still being written: what was sent of it would be out of date after the next step"


@check("which_blocks")
def full_blocks_only(student):
    """37 tokens in blocks of 16: two blocks are full, the third is being written."""
    expect_range(student, (0, 2), 37, 0, 16, [
        ((0, 3), WRITTEN.format(2)), ((0, 1), "last is the position **behind** the last block that may be sent"),
        (((0, 37)), "positions of blocks, not of tokens"), ((1, 2), "positions are counted from 0")])
    expect_range(student, (1, 2), 37, 1, 16, [((0, 2), "block 0 has been sent already"), ((1, 3), WRITTEN.format(2)),
                                              ((1, 1), "one of the two full blocks is still to be sent")])
    expect_range(student, (2, 2), 37, 2, 16, [((2, 3), WRITTEN.format(2)), ((0, 0), "when there is nothing to send, first == last == sent")])


@check("which_blocks")
def on_the_border(student):
    """31, 32 and 33 computed tokens in blocks of 16: the second block is full from 32 on."""
    expect_range(student, (0, 1), 31, 0, 16, [
        ((0, 2), "with 31 computed tokens the last slot of block 1 is still empty. Did you count the token that is known but not "
         "yet computed?")])
    expect_range(student, (0, 2), 32, 0, 16, [
        ((0, 1), "block 1 is full: the next token goes into a new block. The last block need not stay behind when it is full")])
    expect_range(student, (0, 2), 33, 0, 16, [((0, 3), WRITTEN.format(2))])
    expect_range(student, (0, 0), 0, 0, 16)


@check("which_blocks")
def everything_once_it_has_stopped(student):
    """The request has stopped: the partly filled block goes too, and only once."""
    expect_range(student, (2, 3), 37, 2, 16, [((2, 2), "it has stopped: block 2 will not be written again, and its 5 tokens are needed")],
                 stopped=True)
    expect_range(student, (1, 2), 32, 1, 16, [((1, 3), "32 tokens fill 2 blocks: there is no block 2")], stopped=True)
    expect_range(student, (2, 2), 32, 2, 16, [((2, 3), "32 tokens fill 2 blocks: there is no block 2")], stopped=True)


@check("which_blocks")
def guesses_may_be_taken_back(student):
    """An engine that may take back its 4 newest tokens: a block is final only when it can no longer be touched."""
    expect_range(student, (0, 1), 34, 0, 16, [
        ((0, 2), "the tokens 30 to 33 may be taken back and written again: two of them lie in block 1"),
        ((0, 0), "the 4 newest **tokens** may be taken back, not 4 blocks")], undo=4)
    expect_range(student, (0, 2), 36, 0, 16, [((0, 1), "the tokens 32 to 35 may be taken back: none of them lies in block 1")], undo=4)
    expect_range(student, (1, 3), 36, 1, 16, [((1, 2), "it has stopped: nothing is taken back any more")], stopped=True, undo=4)


@check("which_blocks")
def what_the_destination_lacks(student):
    """Six tokens in blocks of 4, one more after they were sent: the block that was written since is out of date."""
    log = [("write", 0, 6), ("send", 0, 2), ("write", 6, 1)]
    expect_equal(student.call("outdated", log, 4), [1], what="outdated", hints=[
        ([], "block 1 was sent when it held two tokens; the third is missing at the destination"),
        ([0, 1], "nothing was written into block 0 after it was sent"),
        ([6], "positions of blocks, not of tokens"), ([2], "token 6 lies in block 1: it is the third of the four in it")])
    expect_equal(student.call("outdated", [*log, ("send", 1, 2)], 4), [], what="outdated, after block 1 was sent again")
    expect_equal(student.call("outdated", [("write", 0, 6), ("send", 0, 1), ("write", 6, 4)], 4), [1, 2], what="outdated", hints=[
        ([1], "the tokens 8 and 9 lie in block 2, which was never sent"),
        ([2], "block 1 was never sent"), ([0, 1, 2], "nothing was written into block 0 after it was sent")])


@check("which_blocks")
def between_real_engines(student):
    """A request decodes on the course's engine: what you let go is sent at once, and at the end all of it is still right."""
    for prompt, at, every in ((21, 1, 3), (32, 5, 7), (5, 2, 1)):
        world = mock_pair(prompt, 60, at, block_size=8)
        sent, kept = 0, []
        while departing.look(world.source, "moving").num_tokens < prompt + 50:
            computed = departing.look(world.source, "moving").computed
            first, last = pair_of(student, computed, sent, 8)
            expect_true(first == sent, f"{sent} blocks have been sent; first was {first}")
            expect_true(last <= world.blocks(computed), f"{computed} tokens fill {world.blocks(computed)} blocks of 8; last was {last}")
            kept += departing.read(world.source, "moving", first, last)
            sent = last
            for _ in range(every):
                world.step()
        computed = departing.stop(world.source, "moving").computed
        first, last = pair_of(student, computed, sent, 8, True)
        kept += departing.read(world.source, "moving", first, last)
        truth = departing.read(world.source, "moving", 0, world.blocks(computed))
        wrong = [position for position, block in enumerate(truth) if position >= len(kept) or kept[position] != block]
        expect_true(not wrong, f"at the end, with {computed} tokens in blocks of 8, these blocks are not at the destination as they are "
                    f"at the source: {wrong}")


def pair_of(student, *arguments):
    """The student's pair."""
    first, last = student.call("may_send", *arguments)
    return first, last


# %% key="which-hidden" role="hidden" exercise="which_blocks"
@check("which_blocks")
def every_number(student):
    """Blocks of 1 to 5 tokens, all numbers up to three blocks, any number of them sent."""
    for block_size in (1, 2, 5):
        for computed in range(3 * block_size + 2):
            for sent in range(computed // block_size + 1):
                expect_range(student, (sent, computed // block_size), computed, sent, block_size)
                expect_range(student, (sent, math.ceil(computed / block_size)), computed, sent, block_size, stopped=True)


@check("which_blocks")
def never_backwards(student):
    """With fewer computed tokens than may be taken back nothing may be sent; and first never exceeds last."""
    expect_range(student, (0, 0), 3, 0, 4, [((0, -1), "last was below first: there is nothing to send")], undo=8)
    expect_range(student, (0, 0), 8, 0, 4, undo=8)
    expect_range(student, (0, 1), 12, 0, 4, undo=8)
    expect_range(student, (2, 2), 16, 2, 4, undo=5)
    expect_range(student, (2, 4), 16, 2, 4, [((2, 3), "it has stopped: nothing is taken back any more")], stopped=True, undo=5)


@check("which_blocks")
def random_histories(student):
    """Random writes, some of them over what was there, and random sends."""
    rng = random.Random(7)
    for _ in range(60):
        block_size, length, log = rng.choice([1, 3, 4]), 0, []
        versions, there = {}, {}
        for moment in range(rng.randrange(1, 14)):
            if rng.random() < 0.6 or not length:
                first, count = rng.randrange(length + 1), rng.randrange(1, 9)
                log.append(("write", first, count))
                length = max(length, first + count)
                versions |= {token // block_size: moment for token in range(first, first + count)}
            else:
                blocks = (length - 1) // block_size + 1
                first = rng.randrange(blocks)
                log.append(("send", first, rng.randrange(first, blocks) + 1))
                there |= {block: versions[block] for block in range(*log[-1][1:]) if block in versions}
        want = sorted(block for block, version in versions.items() if there.get(block) != version)
        expect_equal(student.call("outdated", log, block_size), want, what=f"outdated, blocks of {block_size}, {log}")


# %% key="which-m1" role="mutant" exercise="which_blocks" name="copies the block still being written"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    return sent, max(sent, -(-(computed - undo) // block_size))


# %% key="which-m2" role="mutant" exercise="which_blocks" name="the last block stays behind even when it is full"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    blocks = -(-computed // block_size)
    return (sent, blocks) if stopped else (sent, max(sent, -(-(computed - undo) // block_size) - 1))


# %% key="which-m3" role="mutant" exercise="which_blocks" name="counts the newest token, whose KV is not there yet"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    return sent, -(-computed // block_size) if stopped else max(sent, (computed + 1 - undo) // block_size)


# %% key="which-m4" role="mutant" exercise="which_blocks" name="forgets the partly filled block when it has stopped"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    return sent, computed // block_size if stopped else max(sent, (computed - undo) // block_size)


# %% key="which-m5" role="mutant" exercise="which_blocks" name="sends everything again"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    return 0, -(-computed // block_size) if stopped else max(0, (computed - undo) // block_size)


# %% key="which-m6" role="mutant" exercise="which_blocks" name="believes that KV is append-only whatever the engine does"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    return sent, -(-computed // block_size) if stopped else computed // block_size


# %% key="which-m7" role="mutant" exercise="which_blocks" name="takes back guesses of a request that has stopped"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    return sent, -(-(computed - undo) // block_size) if stopped else max(sent, (computed - undo) // block_size)


# %% key="which-m8" role="mutant" exercise="which_blocks" name="one block is always lost at the end of what was stopped"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    return sent, computed // block_size + 1 if stopped else max(sent, (computed - undo) // block_size)


# %% key="which-m9" role="mutant" exercise="which_blocks" name="a block that was sent once is taken to be right for ever"
def outdated(log, block_size):
    written, sent = set(), set()
    for what, first, number in log:
        if what == "write":
            written |= set(range(first // block_size, (first + number - 1) // block_size + 1))
        else:
            sent |= set(range(first, number))
    return sorted(written - sent)


# %% key="which-m10" role="mutant" exercise="which_blocks" name="a write touches only the block in which it begins"
def outdated(log, block_size):
    dirty = set()
    for what, first, number in log:
        dirty = dirty | {first // block_size} if what == "write" else dirty - set(range(first, number))
    return sorted(dirty)


# %% key="which-m11" role="mutant" exercise="which_blocks" name="a write that ends at a border touches the next block"
def outdated(log, block_size):
    dirty = set()
    for what, first, number in log:
        if what == "write":
            dirty |= set(range(first // block_size, (first + number) // block_size + 1))
        else:
            dirty -= set(range(first, number))
    return sorted(dirty)


# %% key="which-m12" role="mutant" exercise="which_blocks" name="last goes below first when guesses may be taken back"
def may_send(computed, sent, block_size, stopped=False, undo=0):
    return sent, -(-computed // block_size) if stopped else (computed - undo) // block_size


# %% [markdown] key="live" lang="en" role="exercise" exercise="live_migration" points=7 difficulty=4 minutes=60 needs="week 7, parts 3 and 4"
# ## Exercise 2 · A live migration
#
# A request decodes on the instance `source` and is to go on at `destination`. Write a function
#
# `migrate(request, source, destination, link, block_size, last_blocks, max_stages)` that moves it. `request` is its name (a string) and is
# the first argument of every call below; as in exercise 1 blocks are called by their positions in its table.
#
# A **state** is a dict `{"tokens": [...], "computed": n}`: all tokens of prompt and answer that are known, and how many of them
# (from the first on) have their KV in blocks. The blocks `0` to `ceil(n / block_size) - 1` hold it.
#
# | call | what it does | returns |
# |:--|:--|:--|
# | `source.look(request)` | nothing | its state now; `None` if it does not run there any more (it has ended, or was preempted and has lost its blocks) |
# | `source.stop(request)` | takes it out of the batch; it keeps its blocks, and nothing is written any more | its last state |
# | `source.release(request)` | frees its blocks; the source knows it no more. It must have stopped | `None` |
# | `destination.reserve(request, state)` | keeps room for its blocks; once, before anything is sent | how many blocks, from position 0 on, are here already (from a prefix cache; mostly 0). `None`, which is not 0, if there is no room: then nothing is kept |
# | `destination.grow(request, state)` | keeps room for the blocks that it has by now; in this exercise there always is room | `None` |
# | `destination.adopt(request, state)` | the request runs here from now on, on the blocks that have arrived; what was reserved is its own | `None` |
# | `destination.drop(request)` | gives up what was reserved | `None` |
# | `link.copy(request, first, last)` | sends the blocks `first` to `last - 1` as they are at the **start** of the call; `first == last`: nothing | `None` |
#
# **Time passes only inside `link.copy`**: both instances go on meanwhile, and a request that has not stopped gets more tokens. Everything
# else happens at once, between two steps.
#
# The protocol:
#
# 1. Look, and reserve. No room: return `"no room"`. (When you begin, the request does run.)
# 2. **Stages while it decodes.** As long as more than `last_blocks` blocks (`last_blocks` is at least 1) are still to be sent, count
#    in the partly filled one: send all full blocks that have not been sent, then look again, and grow. What the destination
#    has already is never sent, and no block is sent twice.
#    - If it does not run there any more: give up what was reserved, and return `"gone"`.
#    - If after `max_stages` stages (at least 1) there are still more than `last_blocks` left: give up what was reserved,
#      and return `"too slow"`. It goes on at the source as if nothing had happened.
# 3. **The last stage.** Stop it. Send all that is left. Let the destination adopt it, then the source release it. Return `"moved"`.

# %% [markdown] key="live-help-shape" lang="en" role="help" exercise="live_migration" title="How do I begin?"
# Keep two things: `state`, what you last saw, and `sent`, how many blocks are at the destination. What is left is
# `ceil(state["computed"] / block_size) - sent`, and the full blocks end at `state["computed"] // block_size`. The stages are one loop around
# these two numbers, and each time round `copy(request, sent, full)` is followed by `sent = full` and a new look.

# %% [markdown] key="live-help-keyerror" lang="en" role="help" exercise="live_migration" title="A block was sent when only some of its tokens were written"
# `link.copy` sends what is in a block when it starts. If the request still decodes, the block that is being written changes meanwhile, and
# the destination has an old version of it. Send full blocks only, until it has stopped.

# %% [markdown] key="live-help-grow" lang="en" role="help" exercise="live_migration" title="The destination keeps room for too few blocks"
# What was reserved is what the request had when you called `reserve`. During every copy it has got more tokens, so each new state is
# followed by `grow` before blocks are sent, the one that `stop` returns as well.

# %% [markdown] key="live-help-adopt" lang="en" role="help" exercise="live_migration" title="Which state does the destination get?"
# The one that `stop` returned. Any state from before a copy is too old: the tokens since then have been sent to the user already, and the
# destination would say them again.

# %% [markdown] key="live-help-slow" lang="en" role="help" exercise="live_migration" title="When does it get too slow?"
# Each stage sends what was written during the stage before. If sending a block takes longer than writing one, each stage is longer than the
# last, and the rest never gets small. Exercise 3 does the sum.

# %% [markdown] key="live-help-try" lang="en" role="help" exercise="live_migration" title="How can I try it out myself?"
# In a new cell (all of this is in the setup cell):
#
# ```python
# world = mock_pair(prompt=50, at=10, block_size=4, steps_per_block=0.25)        # 59 tokens computed, 4 blocks sent in a step
# migrate("moving", Source(world), Destination(world), Link(world), 4, 1, 8)     # 'moved'
# world.copies                                   # [(0, 14, 'running'), (14, 16, 'stopped')]: wrong, with last_blocks = 1? Why?
# ```
#
# (After the first stage, of 4 steps, 63 tokens are computed: 15 blocks are full, two are left, and only one may be. So there is a second stage.)

# %% key="live-answer" role="answer" exercise="live_migration"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    """Move a request while it decodes: "moved", "no room", "gone" or "too slow"."""
    ### BEGIN SOLUTION
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"
    ### END SOLUTION


# %% key="live-check" role="check" exercise="live_migration"
def planned(computed, found, block_size, last_blocks, max_stages, steps_per_block):
    """The copies (first, last, how) that the protocol makes when each step writes one token, and how it ends."""
    sent, copies = found, []
    while math.ceil(computed / block_size) - sent > last_blocks:
        if len(copies) == max_stages:
            return copies, "too slow"
        full = computed // block_size
        copies.append((sent, full, "running"))
        computed += max(1, math.ceil((full - sent) * steps_per_block))
        sent = full
    rest = (sent, math.ceil(computed / block_size), "stopped")
    return copies + [rest] * (rest[0] < rest[1]), "moved"


def migrated(student, world, outcome, last_blocks, max_stages=8):
    """Run the student's migration in this world and hold it to its outcome; nothing may be left behind."""
    try:
        got = student.call("migrate", world.name, Served(Source(world)), Served(Destination(world)), Served(Link(world)),
                           world.block_size, last_blocks, max_stages)
    except NotWritten:
        raise
    except StudentError:
        expect_true(not world.trouble, world.trouble)
        raise
    expect_true(not world.trouble, world.trouble)
    expect_equal(got, outcome, what="outcome", hints=[
        ("no room", "0 means that 0 blocks are there already; no room is None"),
        ("too slow", f"it may take up to {max_stages} stages: count those that were sent while it decoded")])
    left_behind(world, outcome)
    sent = sum(last - first for first, last, _ in world.copies)
    expect_equal([world.source.counters.sent_blocks, world.destination.counters.received_blocks], [sent, sent],
                 what="blocks that the engines sent and received")


def left_behind(world, outcome):
    """Who has it, and that nobody keeps blocks for it who has not."""
    expect_true(world.reserved is None, f"it ended with {outcome!r}, and the destination still keeps {world.reserved} blocks and a seat for "
                "it: the reservation leaks. Who gives up must drop it")
    there = world.name in world.source.requests and not world.source.requests[world.name].done
    if outcome == "moved":
        expect_true(world.adopted, "it says moved, but the destination has not adopted the request")
        expect_true(not there, "the request runs at the destination, and the source still keeps its blocks: release it")
    else:
        expect_true(not world.stopped, "it stays at the source, but it was stopped there: nobody decodes it")


def expect_copies(world, want, bytes_too=True):
    """The copies are these; what is wrong with others is said."""
    stopped = [last - first for first, last, how in world.copies if how == "stopped"]
    blocks = [block for first, last, _ in world.copies for block in range(first, last)]
    whole = [(want[0][0], want[-1][1], "stopped")] if want else []
    expect_equal(world.copies, want, what="copies (first, last, while it was ...)", hints=[
        *([(whole, "it was stopped first and everything was sent then: that is stop-and-copy. Its user waits for all of it")]
          if whole != want else []),
        *([(world.copies, "blocks were sent twice; every block needs to be sent once")] if len(set(blocks)) < len(blocks) else []),
        *([(world.copies, f"{sum(stopped)} blocks were sent while it was stopped; its user waits meanwhile")]
          if sum(stopped) > sum(last - first for first, last, how in want if how == "stopped") else []),
        *([(world.copies, "a stage more than needed: stop as soon as no more than last_blocks are left, the partly filled one counted")]
          if len(world.copies) > len(want) else [])])
    expect_equal(sum(last - first for first, last, _ in world.copies) * world.source.executor.block_bytes,
                 sum(last - first for first, last, _ in want) * world.source.executor.block_bytes, what="bytes sent")


def same_answer(world, settle=True):
    """Both instances go on to the end: the user has got exactly the tokens that an undisturbed engine says; all blocks are free."""
    try:
        world.finish()
    except Trouble:
        raise CheckFailed(world.trouble) from None
    got = world.delivered()
    if len(got) > len(world.want) and got[:3] == world.want[:3]:
        raise CheckFailed(f"the user was sent {len(got)} tokens, an undisturbed engine says {len(world.want)}: some came twice")
    expect_equal(got, world.want, what="tokens that the user was sent, first those from the source")
    for side, engine in (("source", world.source), ("destination", world.destination)):
        if side not in world.lost:
            expect_equal(engine.pool.num_used, 0, what=f"blocks in use on the {side} when everybody is done")


def moves(student, last_blocks, max_stages=8, outcome="moved", **world):
    """A migration between two mocks: copies as the protocol says, and the same answer."""
    pair = mock_pair(**world)
    found = world.get("cached", 0) // pair.block_size
    copies, end = planned(departing.look(pair.source, "moving").computed, found, pair.block_size, last_blocks, max_stages,
                          pair.steps_per_block)
    assert end == outcome, f"a check that is not what it says: {end}"
    migrated(student, pair, outcome, last_blocks, max_stages)
    expect_copies(pair, copies)
    same_answer(pair)
    return copies


@check("live_migration")
def two_stages(student):
    """59 tokens in blocks of 4, a link that sends 4 blocks in a step: 14 full blocks while it decodes, the rest when it has stopped."""
    copies = moves(student, 2)
    assert [how for _, _, how in copies] == ["running", "stopped"]


@check("live_migration")
def more_stages_when_little_may_be_left(student):
    """The same with at most one block at the end, over a slower link: four stages, each smaller than the one before."""
    copies = moves(student, 1, prompt=130, steps_per_block=1.0)
    assert len(copies) >= 4 and copies[-1][1] - copies[-1][0] == 1


@check("live_migration")
def short_requests_need_no_stage(student):
    """A request of a few tokens: all its blocks are few enough, so it is stopped and sent at once."""
    copies = moves(student, 4, prompt=6, at=3)
    assert [how for _, _, how in copies] == ["stopped"]


@check("live_migration")
def there_is_no_room(student):
    """The destination has too few free blocks: nothing is sent, and the request goes on where it is."""
    pair = mock_pair(blocks=(200, 12))
    migrated(student, pair, "no room", 2)
    expect_copies(pair, [])
    same_answer(pair)


@check("live_migration")
def it_ends_on_the_way(student):
    """The request says its last token while a stage is being sent: what was reserved for it is given up."""
    pair = mock_pair(length=12, at=10)
    migrated(student, pair, "gone", 2)
    expect_copies(pair, [(0, 14, "running")])
    same_answer(pair)


@check("live_migration")
def the_link_is_too_slow(student):
    """A block takes longer to send than to write: after three stages it is given up, and the request goes on where it is."""
    moves(student, 1, 3, "too slow", prompt=30, steps_per_block=5.0)


REAL = {}


def real_pair(prompt, length, at, neighbours, block_size=16, steps_per_block=0.25):
    """Two engines with course-tiny, each with somebody else to serve."""
    if not REAL:
        REAL["model"], REAL["tokenizer"] = load_model("course-tiny", device="cpu")
    model, tokenizer = REAL["model"], REAL["tokenizer"]

    def engine():
        return engine_of(TorchExecutor(model, 64, block_size, threads=1), BlockPool(64, block_size))
    source, destination, tokens = engine(), engine(), tokenizer.encode_prompt(prompt)
    for side, text in zip((source, destination), neighbours, strict=True):
        ask(side, "neighbour", tokenizer.encode_prompt(text), 20)
    moving = ask(source, "moving", tokens, length)
    while moving.num_output < at:
        source.step()
    world = TwoInstances(source, destination, "moving", steps_per_block)
    world.want = alone(engine(), tokens, length)
    return world


@check("live_migration")
def between_two_real_engines(student):
    """course-tiny on two engines: the text that was begun on one goes on at the other, token by token the same."""
    pair = real_pair("Count from 1 to 60. " * 6, 60, 12, ("Count from 3 to 9.", "Name a colour."))
    computed = departing.look(pair.source, "moving").computed
    migrated(student, pair, "moved", 2)
    expect_copies(pair, planned(computed, 0, 16, 2, 8, 0.25)[0])
    same_answer(pair)


# %% key="live-hidden" role="hidden" exercise="live_migration"
@check("live_migration")
def every_length(student):
    """Requests of every length over two blocks, links and ends of all kinds."""
    for prompt in range(20, 30):
        for last_blocks, steps_per_block in ((1, 0.5), (1, 2.0), (3, 0.1)):
            moves(student, last_blocks, prompt=prompt, at=prompt % 7 + 1, length=90, steps_per_block=steps_per_block, seed=prompt)


@check("live_migration")
def some_of_it_is_there(student):
    """The destination's prefix cache knows the first 32 tokens: these blocks are not sent."""
    moves(student, 2, cached=32)
    moves(student, 1, cached=48, steps_per_block=1.0)
    moves(student, 3, prompt=49, at=1, cached=48)


@check("live_migration")
def it_is_preempted_on_the_way(student):
    """The source runs out of blocks while a stage is being sent, and the request loses its place: what was sent is of no use."""
    pair = mock_pair(prompt=40, at=4, blocks=(16, 200), steps_per_block=0.5)
    first = pair.source.requests["neighbour-1"]
    expect_true(first.arrival <= pair.source.requests["moving"].arrival, "the neighbour came first")
    migrated(student, pair, "gone", 2)
    expect_true(pair.source.counters.preemptions > 0, "this check is about preemption, and nobody was preempted")
    same_answer(pair)


@check("live_migration")
def just_in_time(student):
    """The last stage that is allowed brings the rest down: it is moved, not given up."""
    for stages in (1, 2, 3, 4):
        pair = dict(prompt=130, steps_per_block=1.0)
        _, end = planned(130 + 9, 0, 4, 1, stages, 1.0)
        moves(student, 1, stages, end, **pair)
    moves(student, 2, 1)


@check("live_migration")
def it_goes_there_and_back(student):
    """Moved, and moved back: the blocks of the second journey are those of the destination."""
    pair = mock_pair(prompt=30, length=120)
    migrated(student, pair, "moved", 2)
    for _ in range(9):
        pair.step()
    said = pair.delivered()
    back = TwoInstances(pair.destination, pair.source, "moving", 0.25)
    copies, _ = planned(back.born.computed, 0, 4, 2, 8, 0.25)
    migrated_back(student, back)
    expect_equal(back.copies, copies, what="copies on the way back")
    for _ in range(300):
        back.step()
    expect_equal(list(back.destination.requests["moving"].output), pair.want, what="its tokens after two journeys")
    expect_equal(said, pair.want[:len(said)], what="tokens that the user was sent between the journeys")


def migrated_back(student, world):
    """The student's migration, once more."""
    try:
        got = student.call("migrate", world.name, Served(Source(world)), Served(Destination(world)), Served(Link(world)), 4, 2, 8)
    except NotWritten:
        raise
    except StudentError:
        expect_true(not world.trouble, world.trouble)
        raise
    expect_equal(got, "moved", what="outcome of the way back")


@check("live_migration")
def other_texts(student):
    """course-tiny once more: other lengths, a block that is full to its last slot, a link that needs more stages."""
    neighbours = ("Tell me about a cat.", "Count from 5 to 12.")
    for prompt, at, last_blocks, speed in (("Tell me a story about a dog. " * 9, 5, 1, 1.0), ("Count from 7 to 30.", 40, 1, 3.0)):
        pair = real_pair(prompt, 70, at, neighbours, steps_per_block=speed)
        computed = departing.look(pair.source, "moving").computed
        migrated(student, pair, "moved", last_blocks)
        expect_copies(pair, planned(computed, 0, 16, last_blocks, 8, speed)[0])
        same_answer(pair)


# %% key="live-m1" role="mutant" exercise="live_migration" name="copies the block still being written"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = -(-state["computed"] // block_size)
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m2" role="mutant" exercise="live_migration" name="commit before the last block"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    destination.adopt(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    source.release(request)
    return "moved"


# %% key="live-m3" role="mutant" exercise="live_migration" name="both sides decoding"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.look(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.stop(request)
    source.release(request)
    return "moved"


# %% key="live-m4" role="mutant" exercise="live_migration" name="destination reservation leaked when the request has ended"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m5" role="mutant" exercise="live_migration" name="destination reservation leaked when the link is too slow"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m6" role="mutant" exercise="live_migration" name="stops first: stop-and-copy"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m7" role="mutant" exercise="live_migration" name="sends everything again in every stage"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, 0, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, 0, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m8" role="mutant" exercise="live_migration" name="hands over the state from before the stop"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m9" role="mutant" exercise="live_migration" name="releases before the destination has adopted"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    source.release(request)
    destination.adopt(request, state)
    return "moved"


# %% key="live-m10" role="mutant" exercise="live_migration" name="never releases: the source keeps its blocks"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    return "moved"


# %% key="live-m11" role="mutant" exercise="live_migration" name="takes 0 blocks for no room"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if not sent:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m12" role="mutant" exercise="live_migration" name="sends although there is no room"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    sent = sent or 0
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m13" role="mutant" exercise="live_migration" name="never asks for more room"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
    state = source.stop(request)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m14" role="mutant" exercise="live_migration" name="does not see that the request is gone"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        state = state or source.look(request)
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m15" role="mutant" exercise="live_migration" name="sends what the destination has already"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    sent = 0
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m16" role="mutant" exercise="live_migration" name="counts only full blocks as left"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while state["computed"] // block_size - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m17" role="mutant" exercise="live_migration" name="gives up one stage too early"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages + 1 == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m18" role="mutant" exercise="live_migration" name="gives up after the last stage without looking at what is left"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m19" role="mutant" exercise="live_migration" name="stages without end on a slow link"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m20" role="mutant" exercise="live_migration" name="stops it whatever is left after the last stage"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            break
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, -(-state["computed"] // block_size))
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m21" role="mutant" exercise="live_migration" name="forgets the partly filled block"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages = 0
    while -(-state["computed"] // block_size) - sent > last_blocks:
        if stages == max_stages:
            destination.drop(request)
            return "too slow"
        full = state["computed"] // block_size
        link.copy(request, sent, full)
        sent, stages = full, stages + 1
        state = source.look(request)
        if state is None:
            destination.drop(request)
            return "gone"
        destination.grow(request, state)
    state = source.stop(request)
    destination.grow(request, state)
    link.copy(request, sent, state["computed"] // block_size)
    destination.adopt(request, state)
    source.release(request)
    return "moved"


