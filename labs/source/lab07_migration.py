"""Lab 7: which blocks may be sent, a live migration, its downtime, an abort that leaks nothing, copy or recompute. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 7 · Rescheduling at run time: migration
#
# A request decodes on one instance, the *source*, and should go on at another, the *destination*; its user should notice nothing but
# a short pause. You find out which of its blocks may be sent while it goes on, write the migration that sends them, and run it between
# two real engines: the answer must be the same, token by token. Then you say how long the pause is and why it does not grow, what must
# be undone when something goes wrong on the way, and when it is faster to send no KV at all.
#
# **How to work.** Write your answer where `NotImplementedError` stands, run the cell, run the check below it. A check
# that fails says what it asked, what came back, and often which idea went wrong. Stuck? Each folded help is named
# after something you may see or ask: open the one that fits. Exercises do not depend on each other, so you can also
# go on to the next. Some checks are hidden: they try other numbers and edge cases of what the statement says, nothing
# else.
#
# **Your own work.** An answer is built on what the cell below defines and imports, and on nothing else of the package: with
# `from llmcourse… import` in it, or with the course's own version, it earns nothing. Each answer is judged without the others.
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

from llmcourse.cluster import Link as CourseLink
from llmcourse.cluster import Terms, VirtualDriver
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
            self.fail(request != self.name, f"{verb} was called for {request!r:.60}; its first argument is the name of the request, {self.name!r}")
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
                  f"{state!r:.80}{'. Look returns None when the request does not run there any more: test this before you use the state' if state is None else ''}")
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
            world.fail(not good, f"link.copy takes two positions, 0 <= first <= last; these were {first!r} and {last!r}. Both are positions "
                       "in its table, whole numbers; neither says how many blocks are sent")
            if first == last:
                return
            world.fail(world.adopted, "blocks were sent after destination.adopt: the request runs there already, on blocks that had "
                       "not arrived. Adopt comes after the last copy")
            world.fail(world.reserved is None, "link.copy without room: nothing is reserved at the destination")
            computed = departing.look(world.source, request).computed
            world.fail(last > world.blocks(computed), f"link.copy of the positions {first} to {last - 1}: {computed} tokens are computed, and "
                       f"they fill the blocks 0 to {world.blocks(computed) - 1}. Of the tokens that are known the newest is not computed yet")
            world.fail(last > world.reserved, f"link.copy of the positions {first} to {last - 1}: the destination keeps room for "
                       f"{world.reserved} blocks. The request has grown: call destination.grow first")
            payload = departing.read(world.source, request, first, last)
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


def same_answer(world):
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


# %% [markdown] key="which" lang="en" role="exercise" exercise="which_blocks" points=4 difficulty=2 minutes=25 needs="week 7, part 4"
# ## Exercise 1 · Which blocks may be sent now?
#
# A request's KV lies in blocks of `block_size` tokens. Its block table lists them in order; in this lab a block is always called by its
# **position** in that table, from 0: block 0 holds the tokens 0 to `block_size - 1`, and so on. `computed` is the number of tokens whose KV
# is in the cache: these are the tokens 0 to `computed - 1`. The next step writes the KV of token number `computed`.
#
# A block may be sent while the request goes on decoding if nothing will ever be written into it again. Write a function
#
# - `may_send(computed, sent, block_size, stopped=False, undo=0)`: returns a pair `(first, last)`: the blocks at the positions `first` to
#   `last - 1` may be sent now and have not been sent yet. `sent` blocks, from position 0 on, have been sent already.
#   If there are none, `first == last == sent`.
#   - As long as the request runs (`stopped=False`) only blocks that will not be written again may be sent.
#   - Once it has stopped (`stopped=True`) nothing is written any more: all blocks that are left may be sent, also a last block that
#     is only partly filled.
#   - `undo` is 0 for nearly all engines: they only append KV. But some engines guess the next tokens and later remove the wrong guesses
#     (*speculative decoding*). Then the newest `undo` of the computed tokens may be removed, and their slots written again, as long as
#     the request runs. There may be fewer than `undo` computed tokens.
#
# `sent` is never more than the number of blocks that may be sent by now. The second function is for somebody who checks a migration
# afterwards:
#
# - `outdated(log, block_size)`: `log` is a list of what has happened, in order, from an empty cache on: `("write", first, count)` means that
#   the KV of the `count` tokens (at least 1) with the numbers `first` to `first + count - 1` was written at the source (perhaps not
#   for the first time); `("send", first, last)` means that the blocks at the positions `first` to `last - 1` were sent as they were at
#   that moment. Returns a sorted list of the positions of all blocks that have been written and are not the same at the destination:
#   they were never sent, or something was written into them after they were last sent.

# %% [markdown] key="which-help-full" lang="en" role="help" exercise="which_blocks" title="Must the last block always wait?"
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
def pair_of(student, *arguments, **more):
    """The student's pair; CheckFailed when it is none."""
    got = student.call("may_send", *arguments, **more)
    good = type(got) in (list, tuple) and len(got) == 2 and all(type(each) is int for each in got)
    expect_true(good, f"may_send returns a pair of positions (first, last); this was {got!r}")
    return tuple(got)


def expect_range(student, want, computed, sent, block_size, hints=(), **more):
    """The student's pair is this one."""
    expect_equal(pair_of(student, computed, sent, block_size, **more), want, what=f"may_send, {computed} tokens computed, {sent} blocks of {block_size} sent", hints=hints)


WRITTEN = "block {} is still being written: what was sent of it would be out of date after the next step"


@check("which_blocks")
def full_blocks_only(student):
    """37 tokens in blocks of 16: two blocks are full, the third is being written."""
    expect_range(student, (0, 2), 37, 0, 16, [
        ((0, 3), WRITTEN.format(2)), ((0, 1), "last is the position **behind** the last block that may be sent"),
        ((0, 37), "positions of blocks, not of tokens"), ((1, 2), "positions are counted from 0")])
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
        ((0, 1), "block 1 is full: the next token goes into a new block. The last block must wait only if it is not full")])
    expect_range(student, (0, 2), 33, 0, 16, [((0, 3), WRITTEN.format(2))])
    expect_range(student, (0, 0), 0, 0, 16)


@check("which_blocks")
def everything_once_it_has_stopped(student):
    """The request has stopped: the partly filled block goes too, and only once."""
    expect_range(student, (2, 3), 37, 2, 16, [((2, 2), "it has stopped: block 2 will not be written again, and its 5 tokens are needed")],
                 stopped=True)
    expect_range(student, (1, 2), 32, 1, 16, [((1, 3), "32 tokens fill 2 blocks: there is no block 2"),
                                              ((2, 2), "block 1 is full and has not been sent yet")], stopped=True)
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
    expect_equal(student.call("outdated", [("write", 0, 20), ("send", 1, 3)], 4), [0, 3, 4], what="outdated, after blocks 1 and 2 were sent",
                 hints=[([0, 4], "(\"send\", first, last): the second number is where it ends, not how many"),
                        ([3, 4], "block 0 was never sent"),
                        ([0, 3, 4, 5], "20 tokens have the numbers 0 to 19; token 20, the first of block 5, is not among them"),
                        ([0], "a write of several tokens touches all blocks that they lie in: the tokens 0 to 19 lie in the blocks 0 to 4"),
                        ([], "what was written and never sent is not at the destination either")])
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
        student.last = ""
        expect_true(not wrong, f"at the end, with {computed} tokens in blocks of 8, these blocks are not at the destination as they are "
                    f"at the source: {wrong}")


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


# %% key="which-m8" role="mutant" exercise="which_blocks" name="a full last block is followed by an empty one"
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


# %% [markdown] key="live" lang="en" role="exercise" exercise="live_migration" points=7 difficulty=4 minutes=60 needs="week 7, parts 4 and 5"
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
# | `source.release(request)` | frees its blocks; the source does not know it any more. It must have stopped before | `None` |
# | `destination.reserve(request, state)` | keeps room for its blocks; call it once, before anything is sent | how many blocks, from position 0 on, are here already (from a prefix cache; mostly 0). `None` (not 0) if there is no room: then nothing is kept |
# | `destination.grow(request, state)` | keeps room for the blocks that it has by now; in this exercise there is always enough | `None` |
# | `destination.adopt(request, state)` | the request runs here from now on, on the blocks that have arrived; what was reserved belongs to it now | `None` |
# | `destination.drop(request)` | gives up what was reserved | `None` |
# | `link.copy(request, first, last)` | sends the blocks `first` to `last - 1` as they are at the **start** of the call; sends nothing if `first == last` | `None` |
#
# **Time passes only inside `link.copy`**: both instances go on meanwhile, and a request that has not stopped gets more tokens. All other
# calls take no time.
#
# The protocol:
#
# 1. Look, and reserve. No room: return `"no room"`. (At this first look the request always runs.)
# 2. **Stages while it decodes.** The blocks that are *left* are those that hold its computed tokens and are not at the destination yet;
#    a partly filled block counts, too. As long as more than `last_blocks` blocks are left, do one stage: send all full
#    blocks that are left, then look again, then grow. What the destination has already is never sent, and no block is sent twice.
#    - If a look says that it does not run there any more: drop what was reserved, and return `"gone"`.
#    - If after `max_stages` of these stages more than `last_blocks` blocks are still left: drop what was reserved, and
#      return `"too slow"`. The request was never stopped and goes on at the source.
#    `last_blocks` and `max_stages` are at least 1.
# 3. **The last stage**, which `max_stages` does not count. Stop it. Send all blocks that are left. Let the destination adopt it, then let
#    the source release it. Return `"moved"`.

# %% [markdown] key="live-help-shape" lang="en" role="help" exercise="live_migration" title="How do I begin?"
# Keep two things: `state`, what you last saw, and `sent`, how many blocks are at the destination. What is left is
# `ceil(state["computed"] / block_size) - sent`, and the full blocks end at `state["computed"] // block_size`. The stages are one loop around
# these two numbers: in each of them `copy(request, sent, full)` is followed by `sent = full` and a new look.

# %% [markdown] key="live-help-keyerror" lang="en" role="help" exercise="live_migration" title="A block was sent when only some of its tokens were written"
# `link.copy` sends what is in a block when it starts. If the request still decodes, the block that is being written changes meanwhile, and
# the destination has an old version of it. Send full blocks only, until it has stopped.

# %% [markdown] key="live-help-grow" lang="en" role="help" exercise="live_migration" title="The destination keeps room for too few blocks"
# `reserve` keeps room for the blocks that the request had at that moment. During every copy it gets more tokens, so after the copy look again
# and call `grow` with the new state, before you send more blocks. (No time passes between this look and `stop`. Where it does, as in a real
# cluster, `stop` is followed by a `grow` as well; here that does no harm.)

# %% [markdown] key="live-help-adopt" lang="en" role="help" exercise="live_migration" title="Which state does the destination get?"
# The one that `stop` returned. Any state from before a copy is too old: the tokens since then have been sent to the user already, and the
# destination would say them again.

# %% [markdown] key="live-help-slow" lang="en" role="help" exercise="live_migration" title="When does it get too slow?"
# Each stage sends what was written during the stage before. If sending a block takes longer than writing one, each stage is longer than the
# one before, and what is left never gets small. In exercise 3 you calculate this.

# %% [markdown] key="live-help-try" lang="en" role="help" exercise="live_migration" title="How can I try it out myself?"
# In a new cell (all of this is in the setup cell):
#
# ```python
# world = mock_pair(prompt=50, at=10, block_size=4, steps_per_block=0.25)        # 59 tokens computed, 4 blocks sent in a step
# migrate("moving", Source(world), Destination(world), Link(world), 4, 1, 8)     # 'moved'
# world.copies                                   # [(0, 14, 'running'), (14, 15, 'running'), (15, 16, 'stopped')]
# ```
#
# The first stage takes 4 steps. After it 63 tokens are computed: 15 blocks are full and a 16th is begun, so two are left and only
# one may be. The second stage sends one of them, and the third the last.

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
        ("too slow", f"it may take up to {max_stages} stages while it decodes, and then look whether what is left is few enough"),
        ("gone", f"it went on until the request had ended; after {max_stages} stages it should have been given up"),
        ("moved", f"after {max_stages} stages more than {last_blocks} blocks were left: to stop it then lets its user wait for all of them")])
    left_behind(world, outcome)


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


def expect_copies(world, want):
    """The copies are these; what is wrong with others is said."""
    stopped = [last - first for first, last, how in world.copies if how == "stopped"]
    blocks = [block for first, last, _ in world.copies for block in range(first, last)]
    at_once = [how for _, _, how in world.copies] == ["stopped"] and len(want) > 1
    expect_equal(world.copies, want, what="copies (first, last, while it was ...)", hints=[
        *([(world.copies, "it was stopped first and everything was sent then: that is stop-and-copy. Its user waits for all of it")]
          if at_once else []),
        *([(world.copies, f"block {world.copies[0][1]} was full, too, when the first stage began")]
          if world.copies and want and world.copies[0][2] == want[0][2] and world.copies[0][1] < want[0][1] else []),
        *([(world.copies, "blocks were sent twice; every block needs to be sent once")] if len(set(blocks)) < len(blocks) else []),
        *([(world.copies, f"{sum(stopped)} blocks were sent while it was stopped; its user waits meanwhile. One that is only begun is left, too")]
          if sum(stopped) > sum(last - first for first, last, how in want if how == "stopped") else []),
        *([(world.copies, "a stage more than needed: stop as soon as no more than last_blocks are left, the partly filled one "
            "counted. Left are blocks of computed tokens: of the tokens that are known the newest is not computed yet")]
          if len(world.copies) > len(want) else []),
        *([(world.copies, f"{len(want) - len(world.copies)} fewer than the protocol has: as long as more than last_blocks are left, there is "
            "another stage while it decodes, max_stages of them at most; the last copy, when it has stopped, is not one of these")]
          if len(world.copies) < len(want) else [])])
    blocks, size = sum(last - first for first, last, _ in want), world.source.executor.block_bytes
    expect_equal([engine * size for engine in (world.source.counters.sent_blocks, world.destination.counters.received_blocks)],
                 [blocks * size] * 2, what="bytes that the source sent and the destination received")


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
    assert moves(student, 2) == [(0, 14, "running"), (14, 16, "stopped")]
    assert moves(student, 1) == [(0, 14, "running"), (14, 15, "running"), (15, 16, "stopped")]      # as the help says


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
def a_block_that_is_begun_is_left_too(student):
    """One block may be left: a full one and one that has been begun are two, and make another stage."""
    copies = moves(student, 1, prompt=22, at=5, length=90, steps_per_block=0.5)
    assert copies == [(0, 6, "running"), (6, 7, "running"), (7, 8, "stopped")], copies


@check("live_migration")
def there_is_no_room(student):
    """The destination has too few free blocks: nothing is sent, and the request goes on where it is."""
    pair = mock_pair(blocks=(200, 12))
    migrated(student, pair, "no room", 2)
    expect_copies(pair, [])
    same_answer(pair)


@check("live_migration")
def it_ends_on_the_way(student):
    """The request gets its last token while a stage is being sent: what was reserved for it is dropped."""
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
    pair = mock_pair(prompt=40, length=24, at=4, blocks=(17, 200), steps_per_block=1.0)
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
    migrated(student, back, "moved", 2)
    expect_equal(back.copies, copies, what="copies on the way back")
    for _ in range(300):
        back.step()
    expect_equal(list(back.destination.requests["moving"].output), pair.want, what="its tokens after two journeys")
    expect_equal(said, pair.want[:len(said)], what="tokens that the user was sent between the journeys")


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


# %% key="live-m8" role="mutant" exercise="live_migration" name="hands over the state from before the stages"
def migrate(request, source, destination, link, block_size, last_blocks, max_stages):
    state = source.look(request)
    sent = destination.reserve(request, state)
    if sent is None:
        return "no room"
    stages, before = 0, state
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
    destination.adopt(request, before)
    source.release(request)
    return "moved"


# %% key="live-m9" role="mutant" exercise="live_migration" name="sends the last block while it still decodes"
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
    link.copy(request, sent, -(-state["computed"] // block_size))
    state = source.stop(request)
    destination.grow(request, state)
    destination.adopt(request, state)
    source.release(request)
    return "moved"


# %% key="live-m10" role="mutant" exercise="live_migration" name="releases before the destination has adopted"
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


# %% key="live-m11" role="mutant" exercise="live_migration" name="never releases: the source keeps its blocks"
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


# %% key="live-m12" role="mutant" exercise="live_migration" name="takes 0 blocks for no room"
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


# %% key="live-m13" role="mutant" exercise="live_migration" name="sends although there is no room"
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


# %% key="live-m14" role="mutant" exercise="live_migration" name="never asks for more room"
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


# %% key="live-m15" role="mutant" exercise="live_migration" name="does not see that the request is gone"
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


# %% key="live-m16" role="mutant" exercise="live_migration" name="sends what the destination has already"
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


# %% key="live-m17" role="mutant" exercise="live_migration" name="counts only full blocks as left"
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


# %% key="live-m18" role="mutant" exercise="live_migration" name="gives up one stage too early"
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


# %% key="live-m19" role="mutant" exercise="live_migration" name="gives up after the last stage without looking at what is left"
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


# %% key="live-m20" role="mutant" exercise="live_migration" name="stages without end on a slow link"
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


# %% key="live-m21" role="mutant" exercise="live_migration" name="stops it whatever is left after the last stage"
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


# %% key="live-m22" role="mutant" exercise="live_migration" name="forgets the partly filled block"
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


# %% [markdown] key="downtime" lang="en" role="exercise" exercise="downtime" points=5 difficulty=3 minutes=35 needs="week 7, parts 3, 4 and 8"
# ## Exercise 3 · How long does the user wait?
#
# The **downtime** of a migration is the time from the moment the request is stopped at the source until it can go on at the destination. (The
# client also waits for the first decode step there; that does not count here.) Stop-and-copy sends all KV in that time, so its downtime is
# a straight line in the number of tokens, `a + b * tokens` seconds: `a` is what every migration costs (to stop, to answer, to adopt), `b`
# what each token costs.
#
# 1. `fit_line(tokens, seconds)`: `tokens` lists the lengths of some requests (whole numbers, at least two different ones), `seconds` their
#    measured downtimes. Returns `(a, b)`: the line with the **least squares**, the one for which the sum of
#    `(a + b * tokens - seconds) ** 2` over all measurements is smallest.
# 2. `link_speed(tokens, seconds, bytes_per_token)`: the same measurements. Returns the speed of the link in bytes per second (a float), from
#    your line. The seconds `a` are not spent on the link.
# 3. `longest_move(a, b, limit)`: the largest whole number of tokens, 0 or more, whose downtime `a + b * tokens` is at most `limit`
#    seconds; `None` if even 0 tokens take longer than `limit`. `b` is above 0.
#
# A live migration sends while the request decodes, with `rate` new tokens per second. A stage of `n` tokens takes
# `n * bytes_per_token / bandwidth` seconds (`bandwidth` in bytes per second); the new tokens of this time are the **next** stage.
# Blocks do not matter here, and parts of a token are allowed: do not round.
#
# 4. `live_stages(tokens, rate, bytes_per_token, bandwidth, last_tokens)`: a list: how many tokens are sent in each stage (floats), beginning
#    with `tokens`. As soon as a stage has at most `last_tokens` tokens it is the last one: for it the request is stopped. `None` if the
#    stages do not get smaller, so that it would never be stopped. All arguments are above 0.
# 5. `live_seconds(stages, bytes_per_token, bandwidth, a)`: `stages` is a list from (4). Returns `(downtime, total)`: the seconds for which
#    the request stands still (`a` and the last stage), and the seconds from the start of the first stage until the request can go on at
#    the destination (so `a` is in both).

# %% [markdown] key="downtime-help-squares" lang="en" role="help" exercise="downtime" title="What is the formula for the least squares?"
# With the mean lengths and seconds `x` and `y`: `b` is the sum of `(tokens - x) * (seconds - y)` over the sum of `(tokens - x) ** 2`, and the line
# goes through the point of the means: `a = y - b * x`.

# %% [markdown] key="downtime-help-speed" lang="en" role="help" exercise="downtime" title="My link seems slower than it is"
# Bytes over seconds counts `a`, too: with short requests it is most of the time, and the link is not to blame for it. One more token costs `b`
# seconds and is `bytes_per_token` bytes.

# %% [markdown] key="downtime-help-flat" lang="en" role="help" exercise="downtime" title="Why does the downtime of a live migration not grow?"
# Only the last stage is sent while it stands still, and that is at most `last_tokens`, however long the request is. A longer request has longer
# first stages, so the *total* grows. Each stage is `rate * bytes_per_token / bandwidth` times the one before: as long as this
# is below 1 the stages shrink quickly, and a request that is twice as long needs perhaps one stage more.

# %% [markdown] key="downtime-help-never" lang="en" role="help" exercise="downtime" title="The check does not come back: my loop does not end"
# Interrupt it soon (the ■ above the notebook): its list fills your memory. If a stage is not smaller than the one before (exactly as
# large is enough), none ever will be: decoding writes as fast as the link carries, or faster. Look at the first two: the factor between
# stages is always the same. (A request of at most `last_tokens` tokens is stopped at once, on any link.)

# %% key="downtime-answer" role="answer" exercise="downtime"
def fit_line(tokens, seconds):
    """The least-squares line a + b * tokens through some downtimes: (a, b)."""
    ### BEGIN SOLUTION
    x, y = sum(tokens) / len(tokens), sum(seconds) / len(seconds)
    b = sum((t - x) * (s - y) for t, s in zip(tokens, seconds, strict=True)) / sum((t - x) ** 2 for t in tokens)
    return y - b * x, b
    ### END SOLUTION


def link_speed(tokens, seconds, bytes_per_token):
    """Bytes per second that the link carries, from the fitted line."""
    ### BEGIN SOLUTION
    return bytes_per_token / fit_line(tokens, seconds)[1]
    ### END SOLUTION


def longest_move(a, b, limit):
    """Most tokens whose downtime a + b * tokens is at most `limit` seconds; None if there is no such number."""
    ### BEGIN SOLUTION
    return int((limit - a) // b) if limit >= a else None
    ### END SOLUTION


def live_stages(tokens, rate, bytes_per_token, bandwidth, last_tokens):
    """Tokens sent in each stage of a live migration, the last while it is stopped; None if it would never be stopped."""
    ### BEGIN SOLUTION
    shrink, stages = rate * bytes_per_token / bandwidth, [tokens]
    while stages[-1] > last_tokens:
        if shrink >= 1:
            return None
        stages.append(stages[-1] * shrink)
    return stages
    ### END SOLUTION


def live_seconds(stages, bytes_per_token, bandwidth, a):
    """Seconds for which it stands still, and seconds in all: (downtime, total)."""
    ### BEGIN SOLUTION
    return a + stages[-1] * bytes_per_token / bandwidth, a + sum(stages) * bytes_per_token / bandwidth
    ### END SOLUTION


# %% key="downtime-check" role="check" exercise="downtime"
def expect_line(student, tokens, seconds, want, hints=()):
    """The student's line is this one."""
    got = student.call("fit_line", tokens, seconds)
    good = type(got) in (list, tuple) and len(got) == 2 and all(type(each) in (int, float) for each in got)
    expect_true(good, f"fit_line returns a pair of numbers (a, b); this was {got!r}")
    expect_close(list(got), list(want), 1e-9, rtol=1e-7, what="(a, b)", hints=hints)


def seconds_of(student, *arguments):
    """The student's downtime and total as a list; CheckFailed when they are something else."""
    got = student.call("live_seconds", *arguments)
    good = type(got) in (list, tuple) and len(got) == 2 and all(type(each) in (int, float) for each in got)
    expect_true(good, f"live_seconds returns a pair of seconds (downtime, total); this was {got!r}")
    return list(got)


def expect_stages(student, want, *arguments, hints=()):
    """The student's stages are these."""
    expect_close(student.call("live_stages", *arguments), want, 1e-6, what="tokens in each stage", hints=hints)


@check("downtime")
def a_line_through_points(student):
    """Three downtimes that lie on a line: 0.25 s and 1 ms a token; and three that do not."""
    tokens = [100, 300, 800]
    expect_line(student, tokens, [0.35, 0.55, 1.05], (0.25, 0.001), hints=[
        ([0.001, 0.25], "a, the seconds of every migration, comes first"),
        ([0.0, 1.95 / 1200], "the line need not go through 0: every migration costs something"),
        ([0.0, 1.04 / 740], "the line need not go through 0: every migration costs something"),
        ([-250.0, 1000.0], "seconds as a function of tokens, not tokens as a function of seconds")])
    expect_line(student, [0, 1, 3], [0.0, 4.0, 2.0], (10 / 7, 3 / 7), hints=[
        ([0.25, 1.5], "the mean of the slopes from point to point: short distances count too much"),
        ([0.0, 2 / 3], "this is the line through the first and the last point: all of them count"),
        ([0.0, 1.0], "the line need not go through 0"),
        ([-10 / 3, 4.0], "squares of what? Of the distances in seconds, not in tokens")])


@check("downtime")
def what_the_line_says(student):
    """0.25 s and 1 ms a token, 512 KiB of KV a token: the link carries half a gigabyte a second; and how long a request keeps a limit."""
    size, line = 512 * 1024, ([100, 300, 800], [0.35, 0.55, 1.05])
    expect_close(student.call("link_speed", *line, size), size / 0.001, rtol=1e-6, what="bytes per second", hints=[
        (0.001 / size, "upside down: bytes per second"), (1200 * size / 1.95, "bytes over seconds blames the link for a, too"),
        (1 / 0.001, "that is tokens per second"), (size * 8 / 0.001, "bytes, not bits")])
    expect_equal(student.call("longest_move", 0.25, 0.001953125, 1.25), 512, what="longest request for 1.25 s", hints={
        640: "a is part of the downtime", 768: "a is part of the downtime, and the limit is for both together",
        511: "at **most** 1.25 s: 512 tokens take exactly that",
        513: "513 tokens take more than 1.25 s"})
    expect_equal(student.call("longest_move", 0.25, 0.25, 1.125), 3, what="longest request for 1.125 s", hints={
        4: "4 tokens take 1.25 s, which is more than the limit: round down", 3.5: "a whole number of tokens"})
    expect_equal(student.call("longest_move", 0.25, 0.25, 0.25), 0, what="longest request for 0.25 s", hints=[
        (None, "a request of 0 tokens takes exactly 0.25 s")])
    expect_equal(student.call("longest_move", 0.25, 0.25, 0.125), None, what="longest request for 0.125 s", hints=[
        (-1, "a request has 0 tokens or more; here there is no such request"), (0, "0 tokens take 0.25 s, which is too long")])


@check("downtime")
def stages_get_smaller(student):
    """4096 tokens, a link that carries 8 tokens in the time in which one is decoded: each stage is an eighth of the one before."""
    expect_stages(student, [4096, 512, 64, 8], 4096, 25, 500_000, 100_000_000, 16, hints=[
        ([4096, 512, 64, 8, 1], "8 is at most 16: for this stage the request is stopped"),
        ([4096, 512, 64], "64 tokens are more than last_tokens: they are sent while it decodes, and 8 are left"),
        ([4096, 4608, 4672, 4680], "a stage sends what is new, not everything again"),
        (None, "each stage is an eighth of the one before: these do get smaller"), ([20.48, 2.56, 0.32, 0.04], "tokens, not seconds"),
        ([4096, 512], "and in the time of the second stage?"), ([4096], "in the meantime the request has got new tokens")])
    expect_stages(student, [4096, 512, 64], 4096, 25, 500_000, 100_000_000, 64, hints=[
        ([4096, 512, 64, 8], "at most 64: exactly 64 will do")])
    expect_stages(student, [100, 50, 25, 12.5], 100, 10, 5, 100, 20, hints=[
        ([100, 50, 25, 13], "parts of a token are allowed: do not round"), ([100, 50, 25, 12], "parts of a token are allowed: do not round")])
    expect_stages(student, [12], 12, 25, 500_000, 100_000_000, 16, hints=[
        ([12, 1.5], "12 is at most 16: it is stopped at once"), ([], "what is sent when it is stopped is a stage too")])


@check("downtime")
def the_link_is_too_slow_for_it(student):
    """A link that carries just what is decoded, or less: the stages never get small. A short request can be moved all the same."""
    expect_stages(student, None, 1000, 100, 1_000_000, 50_000_000, 16, hints=[
        ([1000], "it was stopped with 1000 tokens to send; last_tokens is 16")])
    expect_stages(student, None, 1000, 50, 1_000_000, 50_000_000, 16)
    expect_stages(student, [10], 10, 100, 1_000_000, 50_000_000, 16, hints=[
        (None, "10 is at most 16: it is stopped at once, whatever the link")])


@check("downtime")
def standing_still_and_in_all(student):
    """Stages of 4096, 512, 64 and 8 tokens at 5 ms each, and 20 ms for the rest: 60 ms of downtime, more than 23 s in all."""
    got = seconds_of(student, [4096, 512, 64, 8], 500_000, 100_000_000, 0.02)
    expect_close(got, [0.06, 23.42], 1e-9, what="(downtime, total)", hints=[
        ([20.5, 23.42], "it stands still for the last stage, not for the first"),
        ([23.42, 23.42], "only the last stage is sent while it stands still"), ([0.04, 23.4], "a belongs to both"),
        ([0.06, 23.4], "a belongs to both"), ([0.06, 23.48], "a comes once, not with every stage"), ([23.42, 0.06], "the downtime comes first"),
        ([0.04, 23.42], "a belongs to both"), ([0.06, 0.06], "the total has all stages"), ([0.06, 23.38], "the total has all stages, the last one too"),
        ([0.06, 20.48], "the total ends when the request can go on, not when the first stage has been sent"),
        ([0.06, 20.5], "the total ends when the request can go on, not when the first stage has been sent")])


@check("downtime")
def flat_and_not_flat(student):
    """256 to 8192 tokens of a 7B model at 8 GB/s: by your model the downtime of a live migration stays, that of stop-and-copy does not."""
    size, bandwidth, a = 512 * 1024, 8e9, 0.01
    still = []
    for tokens in (256, 1024, 4096, 8192):
        stages = student.call("live_stages", tokens, 30.0, size, bandwidth, 256)
        still.append(seconds_of(student, stages, size, bandwidth, a))
    most = a + 256 * size / bandwidth
    expect_true(all(type(each[0]) is float and a <= each[0] <= most + 1e-9 for each in still),
                f"the downtimes are {[each[0] for each in still]} s; none can be more than {most:.4f} s, what 256 tokens take")
    totals = [each[1] for each in still]
    expect_true(totals == sorted(totals) and totals[-1] > 20 * totals[0], f"the totals are {totals} s: they grow with the length")
    speed = size / bandwidth
    stopped = [a + tokens * speed for tokens in (256, 1024, 4096, 8192)]
    expect_line(student, [256, 1024, 4096, 8192], stopped, (a, speed))


def simulated(method, prompt):
    """A migration of a 7B model's request between two simulated A10s, over a link of 1 GB/s: (tokens moved, the migration, tokens/s)."""
    engines = [Engine.simulated("Llama 2 7B", "A10", num_blocks=1000) for _ in range(2)]
    driver = VirtualDriver(engines, link=CourseLink(1e9), method=method, terms=Terms(16, last_blocks=16))   # the 256 tokens below
    driver.add(Request([-1] * prompt, SamplingParams(max_tokens=3000, ignore_eos=True), id="moving"))
    driver.go_to(20.0)
    driver.reach(driver.instances[0], 20.0)
    tokens = departing.look(engines[0], "moving").computed
    times = [event.time for event in engines[0].events if event.kind is EventKind.NEW_TOKENS]
    migration = driver.migrate("moving", 1)
    while migration.outcome is None:
        driver.advance()
    assert migration.outcome == "moved", migration.reason
    return tokens, migration, 1 / (times[-1] - times[-2])


@check("downtime")
def measured_in_the_simulator(student):
    """A 7B model on two simulated A10s, 1 GB/s between them: your line predicts stop-and-copy, your stages the live migration."""
    size, lengths = 512 * 1024, (256, 700, 1500, 4096)
    runs = [simulated("stop-and-copy", length) for length in lengths]
    tokens, seconds = [run[0] for run in runs], [run[1].downtime for run in runs]
    a, b = student.call("fit_line", tokens, seconds)
    far, migration, _ = simulated("stop-and-copy", 8192)
    expect_close(a + b * far, migration.downtime, rtol=0.01, what=f"downtime of {far} tokens, predicted from {tokens} tokens")
    expect_close(student.call("link_speed", tokens, seconds, size), 1e9, rtol=0.01, what="speed of a link of 1 GB/s")
    for length in (*lengths, 8192):
        tokens, migration, rate = simulated("live", length)
        stages = student.call("live_stages", tokens, rate, size, 1e9, 256)
        downtime, total = seconds_of(student, stages, size, 1e9, 0.0)
        near = 2 * 16 * size / 1e9                        # whole blocks are sent
        expect_close(downtime, migration.downtime, near, what=f"downtime of a live migration of {tokens} tokens")
        expect_close(total, migration.ended - migration.begun, near + 4 / rate, what=f"seconds in all for {tokens} tokens (within the time of four steps)")
        expect_true(migration.downtime < 0.15, "live migration is flat")


# %% key="downtime-hidden" role="hidden" exercise="downtime"
@check("downtime")
def noisy_measurements(student):
    """Random downtimes around random lines: the least squares, whatever the order; the same lengths may come twice."""
    rng = random.Random(3)
    for _ in range(20):
        a, b = rng.uniform(0, 0.5), rng.uniform(1e-5, 1e-3)
        tokens = [rng.randrange(16, 8192) for _ in range(rng.randrange(3, 12))]
        tokens += tokens[:2]
        seconds = [a + b * length + rng.gauss(0, 0.01) for length in tokens]
        x, y = torch.tensor(tokens, dtype=torch.float64), torch.tensor(seconds, dtype=torch.float64)
        table = torch.stack([torch.ones_like(x), x], dim=1)
        want = torch.linalg.lstsq(table, y[:, None], driver="gelsd").solution[:, 0].tolist()
        expect_line(student, tokens, seconds, want)
        expect_close(student.call("link_speed", tokens, seconds, 1000.0), 1000.0 / want[1], rtol=1e-6, what="bytes per second")


@check("downtime")
def other_stages(student):
    """Other links: factors of a half, of nine tenths, and above one."""
    expect_stages(student, [100, 50, 25, 12.5, 6.25], 100, 10, 5, 100, 10)
    got = student.call("live_stages", 1000, 9, 10, 100, 1)
    expect_true(type(got) is list and len(got) == 67 and abs(got[1] - 900) < 1e-6, "1000 tokens, each stage nine tenths of the one before: "
                f"the 67th is the first of at most 1 token; yours were {got!r:.60}")
    expect_stages(student, None, 100, 10, 11, 100, 20)
    expect_stages(student, [20], 20, 10, 11, 100, 20)
    expect_close(seconds_of(student, [7], 10, 100, 0.5), [1.2, 1.2], 1e-9, what="(downtime, total) of a single stage")


@check("downtime")
def other_limits(student):
    """The longest request, for many lines: it keeps the limit, and one token more does not."""
    rng = random.Random(5)
    for _ in range(40):
        a, b, tokens = rng.randrange(64) / 64, rng.randrange(1, 32) / 1024, rng.randrange(400)
        limit = a + b * tokens + rng.choice([0, b / 2])
        expect_equal(student.call("longest_move", a, b, limit), tokens, what=f"longest request, {a} + {b} * tokens <= {limit} s")


# %% key="downtime-m1" role="mutant" exercise="downtime" name="a line through 0: forgets what every migration costs"
def fit_line(tokens, seconds):
    return 0.0, sum(t * s for t, s in zip(tokens, seconds, strict=True)) / sum(t * t for t in tokens)


# %% key="downtime-m2" role="mutant" exercise="downtime" name="the line through the first and the last measurement"
def fit_line(tokens, seconds):
    b = (seconds[-1] - seconds[0]) / (tokens[-1] - tokens[0])
    return seconds[0] - b * tokens[0], b


# %% key="downtime-m3" role="mutant" exercise="downtime" name="fits tokens to seconds"
def fit_line(tokens, seconds):
    x, y = sum(tokens) / len(tokens), sum(seconds) / len(seconds)
    b = sum((s - y) ** 2 for s in seconds) / sum((t - x) * (s - y) for t, s in zip(tokens, seconds, strict=True))
    return y - b * x, b


# %% key="downtime-m4" role="mutant" exercise="downtime" name="blames the link for what every migration costs"
def link_speed(tokens, seconds, bytes_per_token):
    return sum(tokens) * bytes_per_token / sum(seconds)


# %% key="downtime-m5" role="mutant" exercise="downtime" name="the limit holds for the sending alone"
def longest_move(a, b, limit):
    return int(limit // b) if limit >= a else None


# %% key="downtime-m6" role="mutant" exercise="downtime" name="rounds up beyond the limit"
def longest_move(a, b, limit):
    return math.ceil((limit - a) / b) if limit >= a else None


# %% key="downtime-m7" role="mutant" exercise="downtime" name="every stage sends everything again"
def live_stages(tokens, rate, bytes_per_token, bandwidth, last_tokens):
    shrink, stages, new = rate * bytes_per_token / bandwidth, [tokens], tokens
    while new > last_tokens:
        if shrink >= 1:
            return None
        new *= shrink
        stages.append(stages[-1] + new)
    return stages


# %% key="downtime-m8" role="mutant" exercise="downtime" name="two stages are always enough"
def live_stages(tokens, rate, bytes_per_token, bandwidth, last_tokens):
    shrink = rate * bytes_per_token / bandwidth
    if tokens <= last_tokens:
        return [tokens]
    return None if shrink >= 1 else [tokens, tokens * shrink]


# %% key="downtime-m9" role="mutant" exercise="downtime" name="believes that live migration works on any link"
def live_stages(tokens, rate, bytes_per_token, bandwidth, last_tokens):
    shrink, stages = rate * bytes_per_token / bandwidth, [tokens]
    while stages[-1] > last_tokens:
        stages.append(stages[-1] * min(shrink, 0.5))
    return stages


# %% key="downtime-m10" role="mutant" exercise="downtime" name="a slow link moves nobody, not even the shortest"
def live_stages(tokens, rate, bytes_per_token, bandwidth, last_tokens):
    shrink, stages = rate * bytes_per_token / bandwidth, [tokens]
    if shrink >= 1:
        return None
    while stages[-1] > last_tokens:
        stages.append(stages[-1] * shrink)
    return stages


# %% key="downtime-m11" role="mutant" exercise="downtime" name="the user waits for all stages"
def live_seconds(stages, bytes_per_token, bandwidth, a):
    return (a + sum(stages) * bytes_per_token / bandwidth,) * 2


# %% key="downtime-m12" role="mutant" exercise="downtime" name="the total stays as flat as the downtime"
def live_seconds(stages, bytes_per_token, bandwidth, a):
    return (a + stages[-1] * bytes_per_token / bandwidth,) * 2


# %% key="downtime-m13" role="mutant" exercise="downtime" name="stops one stage too late"
def live_stages(tokens, rate, bytes_per_token, bandwidth, last_tokens):
    shrink, stages = rate * bytes_per_token / bandwidth, [tokens]
    while stages[-1] >= last_tokens:
        if shrink >= 1:
            return None
        stages.append(stages[-1] * shrink)
    return stages


# %% [markdown] key="abort" lang="en" role="exercise" exercise="abort" points=6 difficulty=4 minutes=50 needs="week 7, part 6"
# ## Exercise 4 · An abort that leaks nothing
#
# A migration may be aborted at any moment. Afterwards every block must belong to a request or be free, and the request must have
# **exactly one owner**. First the destination, where blocks are most easily lost. Write the class:
#
# - `Reservations(num_blocks, timeout)`: the memory of one destination, of which all `num_blocks` blocks are free, and a time limit in seconds.
# - `reserve(request, blocks, now)`: keeps `blocks` blocks for a request (its name, a string) that will come later. Returns `True`, or `False` if
#   fewer than `blocks` are free, or if something is reserved for it already or it lives here; then nothing changes.
# - `grow(request, blocks, now)`: from now on `blocks` blocks **in all** are reserved for it. Returns `True`, or `False` if nothing is reserved
#   for it or if too few blocks are free; then nothing changes. (`blocks` is never less than what is reserved.)
# - `adopt(request)`: the request has come and lives here from now on; the reserved blocks now belong to it, and nothing is reserved for it any
#   more. Returns `True`, or `False`, and nothing changes, if nothing is reserved for it.
# - `drop(request)`: it does not come, so the blocks reserved for it become free. Returns how many become free: 0 if nothing was reserved,
#   and also if it lives here (then it keeps its blocks). `drop` may be called twice for the same abort.
# - `end(request)`: a request that lives here has ended: its blocks become free. Returns how many; 0 if it does not live here.
# - `expire(now)`: the program that ran a migration may die and never call `drop`. Drops every reservation for which the last successful
#   `reserve` or `grow` was **more** than `timeout` seconds ago. Returns a sorted list of their names. A request that lives here does not
#   expire. Only this call ends old reservations: until it is made they count like all others.
# - `num_free()`: returns the number of blocks that are neither reserved nor belong to a request that lives here.
#
# `now` is in seconds and never goes back.
#
# The second part is about the coordinator: the program that runs a migration, and gives orders when something goes wrong. The steps of a
# migration:
#
# | step | what it does |
# |:--|:--|
# | `"reserve"` | the destination keeps room |
# | `"copy"` | blocks are sent; any number of times, also after `"stop"`. (Before them the destination is asked for more room if that is needed) |
# | `"stop"` | the source takes the request out of its batch, and keeps its blocks |
# | `"adopt"` | the request lives at the destination and may be sent tokens from there. **Until this step it belongs to the source, from it on to the destination** |
# | `"release"` | the source frees its blocks; the migration is over |
#
# - `clean_up(done, fault)`: `done` is a list of the steps that have been carried out, in this order (`[]`: none yet; perhaps all of them). Then
#   `fault` happened, and no step is carried out after it. Returns a list of orders (strings; their sequence does not matter) after which the
#   request has exactly one owner and no block is kept for nothing:
#
# | `fault` | what has happened |
# |:--|:--|
# | `"refused"` | the destination has no room for what comes next (only before `"adopt"`) |
# | `"ended"` | it has got its last token at the source; its blocks there are free (only before `"stop"`) |
# | `"preempted"` | the source has taken its blocks away; it waits in the queue of the source and will be computed again there (only before `"stop"`) |
# | `"cancelled"` | the scheduler does not want this migration any more. From `"adopt"` on that is too late: then the migration must be completed |
# | `"source lost"`, `"destination lost"` | that instance is dead, with all that was on it |
#
# | order | what it does |
# |:--|:--|
# | `"drop"` | the destination gives up what it has reserved |
# | `"resume"` | the source, where it has stopped, goes on with it: for a request that belongs to the source |
# | `"release"` | the source, where it has stopped, frees its blocks and forgets it: for a request that does not belong to the source |
# | `"restart"` | some other instance gets the request, and computes its KV again from all tokens that its user has been sent: for a request whose owner is dead |
#
# Give no order that is not needed, and none to an instance that is lost. If nothing is to be done, return `[]`. A request that has ended
# needs no owner.

# %% [markdown] key="abort-help-grow" lang="en" role="help" exercise="abort" title="What may a refused grow change?"
# Nothing: not a single block is taken, and the time that counts for `expire` stays as it was. Test whether all additional blocks are free
# before you take one.

# %% [markdown] key="abort-help-twice" lang="en" role="help" exercise="abort" title="Why would anybody drop twice?"
# Because messages get lost and are sent again, and because two may notice the same failure: the coordinator, and the destination itself when time
# is up. Such an order must do the same when it comes twice as when it comes once.

# %% [markdown] key="abort-help-rule" lang="en" role="help" exercise="abort" title="Do I need a table of all cases?"
# No. Ask four questions of `done` (reserved? stopped? adopted? released?) and decide by the owner. Not adopted: undo, which is `drop` if reserved and
# `resume` if stopped. Adopted: go forward, which is `release` if that has not been done. Then remove every order to an instance that is lost, and
# if the lost instance is the owner, add `restart`.

# %% [markdown] key="abort-help-after" lang="en" role="help" exercise="abort" title="The destination is lost just after adopt, and the source still has all blocks"
# Why not simply go on there? Because from `adopt` on the request has got tokens at the destination, and its user has seen them. The source knows
# nothing of them and would say them again. So what it has is out of date: release it, and restart from what the user has been sent.

# %% key="abort-answer" role="answer" exercise="abort"
class Reservations:
    """A destination's blocks: free, reserved for requests that will come, or owned by those that live here."""

    def __init__(self, num_blocks, timeout):
        """All blocks are free; reservations last `timeout` seconds after the last successful reserve or grow."""
        ### BEGIN SOLUTION
        self.num_blocks, self.timeout = num_blocks, timeout
        self.reserved, self.owned, self.heard = {}, {}, {}
        ### END SOLUTION

    def num_free(self):
        """Free blocks."""
        ### BEGIN SOLUTION
        return self.num_blocks - sum(self.reserved.values()) - sum(self.owned.values())
        ### END SOLUTION

    def reserve(self, request, blocks, now):
        """Keep blocks for a request that will come; whether that was possible."""
        ### BEGIN SOLUTION
        if request in self.reserved or request in self.owned or blocks > self.num_free():
            return False
        self.reserved[request], self.heard[request] = blocks, now
        return True
        ### END SOLUTION

    def grow(self, request, blocks, now):
        """Keep so many blocks in all; whether that was possible."""
        ### BEGIN SOLUTION
        if request not in self.reserved or blocks - self.reserved[request] > self.num_free():
            return False
        self.reserved[request], self.heard[request] = blocks, now
        return True
        ### END SOLUTION

    def adopt(self, request):
        """It lives here now; whether there was a reservation."""
        ### BEGIN SOLUTION
        if request not in self.reserved:
            return False
        self.owned[request] = self.reserved.pop(request)
        return True
        ### END SOLUTION

    def drop(self, request):
        """It does not come; how many blocks become free."""
        ### BEGIN SOLUTION
        return self.reserved.pop(request, 0)
        ### END SOLUTION

    def end(self, request):
        """It has lived here and has ended; how many blocks become free."""
        ### BEGIN SOLUTION
        return self.owned.pop(request, 0)
        ### END SOLUTION

    def expire(self, now):
        """Drop the reservations that are too old; sorted names."""
        ### BEGIN SOLUTION
        late = sorted(request for request in self.reserved if now - self.heard[request] > self.timeout)
        for request in late:
            self.drop(request)
        return late
        ### END SOLUTION


def clean_up(done, fault):
    """Orders after these steps and this fault: "drop", "resume", "release", "restart"."""
    ### BEGIN SOLUTION
    adopted, orders = "adopt" in done, []
    if "reserve" in done and not adopted and fault != "destination lost":
        orders.append("drop")
    if "stop" in done and "release" not in done and fault != "source lost":
        orders.append("release" if adopted else "resume")
    if fault == ("destination lost" if adopted else "source lost"):
        orders.append("restart")
    return orders
    ### END SOLUTION


# %% key="abort-check" role="check" exercise="abort"
def booked(student, blocks, timeout, *reservations):
    """A destination with these reservations (request, blocks, time)."""
    book = student.new("Reservations", blocks, timeout)
    for request, count, now in reservations:
        expect_equal(book.call("reserve", request, count, now), True, what=f"reserve({request!r}, {count}, {now})")
    return book


def expect_free(book, want, what, hints=()):
    """So many blocks are free."""
    expect_equal(book.call("num_free"), want, what=f"num_free {what}", hints=hints)


@check("abort")
def reserved_or_refused(student):
    """10 blocks: 6 are reserved for a; b cannot have 5, but 4; nobody is reserved for twice."""
    book = booked(student, 10, 30.0, ("a", 6, 0.0))
    expect_free(book, 4, "with 6 of 10 reserved")
    expect_equal(book.call("reserve", "b", 5, 1.0), False, what="reserve 5 of 4 free blocks")
    expect_free(book, 4, "after a refusal", {0: "who is refused keeps nothing", -1: "a refusal changes nothing"})
    expect_equal(book.call("reserve", "a", 1, 1.0), False, what="a second reservation for a", hints=[
        (True, "for a something is reserved already: this must be refused")])
    expect_equal(book.call("reserve", "b", 4, 1.0), True, what="reserve all 4 free blocks")
    expect_free(book, 0, "with all reserved")


@check("abort")
def growing(student):
    """a has 3 blocks reserved of 8, b has 2: a may grow to 6 in all, not to 7; and a refused grow changes nothing."""
    book = booked(student, 8, 30.0, ("a", 3, 0.0), ("b", 2, 0.0))
    expect_equal(book.call("grow", "a", 7, 1.0), False, what="grow to 7 in all, with 3 free")
    expect_free(book, 3, "after a refused grow", {0: "a refused grow has taken what there was"})
    expect_equal(book.call("grow", "a", 6, 1.0), True, what="grow to 6 in all, with 3 free", hints=[
        (False, "6 blocks **in all**: 3 more than it has, and 3 are free")])
    expect_free(book, 0, "after a has grown to 6")
    expect_equal(book.call("grow", "c", 0, 1.0), False, what="grow of a request for which nothing is reserved")
    expect_equal(book.call("drop", "a"), 6, what="blocks that drop frees", hints={3: "it had grown to 6", 9: "6 in all, not 6 more"})
    expect_free(book, 6, "after a was dropped", {3: "what it had grown by is lost: the reservation leaks"})


@check("abort")
def an_abort_may_be_reported_twice(student):
    """drop frees once; a second drop, and one of a stranger, free nothing; who lives here is not thrown out."""
    book = booked(student, 8, 30.0, ("a", 3, 0.0), ("b", 2, 0.0))
    expect_equal([book.call("drop", "a"), book.call("drop", "a"), book.call("drop", "c")], [3, 0, 0], what="blocks that three drops free")
    expect_free(book, 6, "after a was dropped twice", {9: "its blocks were freed twice"})
    expect_equal(book.call("adopt", "a"), False, what="adopt of a request that was dropped", hints=[
        (True, "its room has been given up: it must not run on blocks that may be somebody else's by now")])
    expect_equal(book.call("end", "b"), 0, what="end of b, for which something is reserved but which does not live here", hints={
        2: "only who lives here can end; what is reserved is given up by drop"})
    expect_equal(book.call("adopt", "b"), True, what="adopt of b")
    expect_free(book, 6, "after b was adopted", {8: "what was reserved is its own now: it keeps its blocks", 4: "its blocks are counted twice"})
    expect_equal(book.call("drop", "b"), 0, what="blocks that a late drop of b frees", hints={
        2: "b lives here by now: a late abort must not take its blocks"})
    expect_equal(book.call("grow", "b", 4, 1.0), False, what="grow of b, which lives here: nothing is reserved for it any more")
    expect_equal(book.call("reserve", "b", 1, 1.0), False, what="reserve for b, which lives here")
    expect_equal([book.call("end", "b"), book.call("end", "b")], [2, 0], what="blocks that two ends of b free")
    expect_free(book, 8, "when everybody is gone")


@check("abort")
def nobody_says_drop(student):
    """The coordinator has died: reservations whose last successful call is more than 10 s ago expire, when expire is called."""
    book = booked(student, 12, 10.0, ("a", 3, 0.0), ("b", 2, 4.0), ("c", 1, 4.0))
    expect_equal(book.call("grow", "a", 4, 6.0), True, what="grow of a at 6 s")
    expect_equal(book.call("adopt", "c"), True, what="adopt of c")
    expect_equal(book.call("expire", 14.0), [], what="expired at 14 s, 10 s after the reserve of b", hints=[
        (["a"], "a has grown at 6 s: that is 8 s ago"), (["b"], "**more** than 10 s ago"), (["a", "b"], "a has grown at 6 s: that is 8 s ago")])
    expect_equal(book.call("grow", "b", 30, 14.0), False, what="grow of b to 30 blocks")
    expect_equal(book.call("reserve", "d", 6, 15.0), False, what="reserve 6 blocks at 15 s: 5 are free, and 2 reserved for b since 4 s", hints=[
        (True, "only expire ends an old reservation: until it is called, b's blocks are not free")])
    expect_equal(book.call("expire", 15.0), ["b"], what="expired at 15 s", hints=[
        (["b", "c"], "c lives here: only what is reserved expires"), ([], "the grow of b at 14 s was refused, so it changes nothing: the last successful call for b was at 4 s"),
        (["a", "b"], "a has grown at 6 s: that is 9 s ago")])
    expect_equal(book.call("adopt", "b"), False, what="adopt of b, whose reservation is over")
    expect_free(book, 7, "after b's reservation is over", {5: "what has expired is free again: it leaks"})
    book = booked(student, 8, 10.0, ("a", 3, 0.0))
    expect_equal(book.call("grow", "a", 3, 6.0), True, what="grow to the 3 blocks that are reserved already, at 6 s", hints=[
        (False, "3 blocks in all is what it has: nothing more is needed, so this succeeds")])
    expect_equal(book.call("expire", 14.0), [], what="expired at 14 s", hints=[
        (["a"], "the grow at 6 s was successful, though it took no more blocks: somebody still wants them. That is 8 s ago")])


STEPS = ["reserve", "copy", "copy", "stop", "copy", "adopt", "release"]


class Moving(TwoInstances):
    """A pair of engines between which the steps of a migration are carried out, then a fault, then orders."""

    def carry_out(self, done):
        """The steps, as the coordinator gives them. After adopt the destination sends its user a few tokens."""
        here, there, link, sent = Source(self), Destination(self), Link(self), 0
        for step in done:
            if step == "reserve":
                there.reserve(self.name, here.look(self.name))
            elif step == "copy":
                state = here.look(self.name)
                there.grow(self.name, state)
                last = self.blocks(state["computed"]) if self.stopped else state["computed"] // self.block_size
                link.copy(self.name, sent, last)
                sent = last
            elif step == "stop":
                here.stop(self.name)
            elif step == "adopt":
                state = here.look(self.name)
                if sent < self.blocks(state["computed"]):
                    there.grow(self.name, state)
                    link.copy(self.name, sent, self.blocks(state["computed"]))
                there.adopt(self.name, state)
                for _ in range(3):
                    self.step()
            else:
                here.release(self.name)

    def happens(self, fault):
        """The fault."""
        if fault.endswith("lost"):
            self.lost.add(fault.split()[0])
        elif fault == "ended":
            self.source.abort(self.name)
            self.ended = True
        elif fault == "preempted":
            self.source.scheduler.preempt(self.source.requests[self.name], self.source.clock.now)

    def owner(self):
        """Who owns it: "source", "destination", or nobody (None)."""
        side = "destination" if self.adopted else "source"
        return None if side in self.lost or self.ended else side

    def order(self, verb):
        """Carry out one order; Trouble where it is wrong."""
        side = {"drop": "destination", "resume": "source", "release": "source"}.get(verb)
        self.fail(side in self.lost, f"{verb!r} was ordered of the {side}, which is lost: nobody answers")
        if verb == "drop":
            self.fail(self.adopted, "'drop', but the request lives at the destination by now: it can only go forward")
            self.fail(self.reserved is None, "'drop', but nothing is reserved at the destination")
            arriving.drop(self.destination, self.name)
        elif verb == "resume":
            self.fail(self.adopted and "destination" in self.lost, "'resume', but what the source has is out of date: the destination had "
                      "adopted the request and sent tokens to its user, and the source would say them again")
            self.fail(self.adopted, "'resume', but the request lives at the destination by now: both sides would decode it")
            self.fail(not self.stopped, "'resume', but the request has not stopped at the source")
            departing.resume(self.source, self.name)
        elif verb == "release":
            self.fail(not self.adopted, "'release', but the request belongs to the source until it is adopted: its tokens and its KV "
                      "would be gone")
            self.fail(not self.stopped, "'release', but the source has released it already, or it never stopped")
            departing.release(self.source, self.name)
        elif verb == "restart":
            self.fail(self.ended, "'restart' of a request that has ended")
            self.fail(self.third is not None, "'restart' was ordered twice: two instances would decode it")
            self.fail(self.owner() is not None, f"'restart', but the request lives at the {self.owner()}: two instances would decode it")
            self.third = engine_of(SeededMock(self.block_size), BlockPool(200, self.block_size))
            output = tuple(self.delivered())
            arriving.adopt(self.third, replace(self.born, output=output).without_kv())
        else:
            self.fail(True, f"{verb!r} is no order; orders are 'drop', 'resume', 'release' and 'restart'")

    def nothing_is_left_over(self):
        """One owner, and nobody holds blocks for it but its owner."""
        self.fail("destination" not in self.lost and self.reserved is not None,
                  f"the destination still keeps {self.reserved} blocks and a seat for a request that does not come: the reservation leaks")
        self.fail("source" not in self.lost and self.stopped and self.adopted,
                  "the request belongs to the destination, and the source still keeps its blocks: they leak")
        self.fail("source" not in self.lost and self.stopped, "the request has stopped at the source and nobody goes on with it: its user "
                  "waits for ever")
        self.fail(self.owner() is None and not self.ended and self.third is None, "nobody owns the request any more: its owner is dead, "
                  "and its user waits for ever")


def breaks_off(student, done, fault, **pair):
    """After these steps comes the fault, then the student's orders: nothing is left over, and the user gets the right tokens."""
    world = mock_pair(**pair)
    world.__class__ = Moving
    world.carry_out(done)
    assert not world.trouble, world.trouble
    world.happens(fault)
    orders = student.call("clean_up", list(done), fault)
    expect_true(type(orders) is list and all(type(order) is str for order in orders), f"clean_up returns a list of strings; this was "
                f"{orders!r}")
    try:
        for order in sorted(orders, key=lambda order: order == "restart"):
            world.order(order)
        world.nothing_is_left_over()
        if not world.ended:
            same_answer(world)
    except Trouble:
        orders = f"your orders are {orders}" if orders else "you gave no orders"
        raise CheckFailed(f"after the steps {list(done)}: {fault}; {orders}.\n{world.trouble}") from None


@check("abort")
def the_destination_refuses(student):
    """It has no room: for a start, for what has come since, for the last blocks."""
    for steps in (0, 1, 2, 3, 4, 5):
        breaks_off(student, STEPS[:steps], "refused")


@check("abort")
def nothing_to_move_any_more(student):
    """The request ends, or is preempted, at the source while blocks are being sent; or nobody wants it moved any more."""
    for steps in (0, 1, 3):
        breaks_off(student, STEPS[:steps], "ended")
        breaks_off(student, STEPS[:steps], "preempted")
    for steps in (2, 5, 6, 7):
        breaks_off(student, STEPS[:steps], "cancelled")


@check("abort")
def a_side_is_lost(student):
    """Source or destination dies before, between and after the steps."""
    for steps in (0, 3, 5, 6, 7):
        breaks_off(student, STEPS[:steps], "destination lost")
        breaks_off(student, STEPS[:steps], "source lost")


# %% key="abort-hidden" role="hidden" exercise="abort"
@check("abort")
def every_fault_at_every_stage(student):
    """All faults after all steps, of migrations with fewer and more copies."""
    for steps in (STEPS, ["reserve", "stop", "copy", "adopt", "release"], ["reserve", "copy", "copy", "copy", "copy", "stop", "copy", "adopt",
                                                                        "release"]):
        for count in range(len(steps) + 1):
            done = steps[:count]
            faults = ["cancelled", "source lost", "destination lost"]
            faults += ["refused"] * ("adopt" not in done) + ["ended", "preempted"] * ("stop" not in done)
            for fault in faults:
                breaks_off(student, done, fault, prompt=33, length=36, seed=count)


class Book:
    """Reservations, by hand: every block by its number."""

    def __init__(self, blocks, timeout):
        self.free, self.timeout = set(range(blocks)), timeout
        self.guests, self.residents = {}, {}

    def reserve(self, request, blocks, now):
        if request in self.guests or request in self.residents or blocks > len(self.free):
            return False
        self.guests[request] = (now, {self.free.pop() for _ in range(blocks)})
        return True

    def grow(self, request, blocks, now):
        more = blocks - len(self.guests[request][1]) if request in self.guests else math.inf
        if more > len(self.free):
            return False
        self.guests[request] = (now, self.guests[request][1] | {self.free.pop() for _ in range(more)})
        return True

    def adopt(self, request):
        if request not in self.guests:
            return False
        self.residents[request] = self.guests.pop(request)[1]
        return True

    def drop(self, request):
        gone = self.guests.pop(request, (0, set()))[1]
        self.free |= gone
        return len(gone)

    def end(self, request):
        gone = self.residents.pop(request, set())
        self.free |= gone
        return len(gone)

    def expire(self, now):
        late = sorted(name for name, (heard, _) in self.guests.items() if now - heard > self.timeout)
        for name in late:
            self.drop(name)
        return late

    def num_free(self):
        return len(self.free)


@check("abort")
def random_guests(student):
    """Random orders for random requests: every answer is right, and no block is ever lost or given twice."""
    for seed in range(12):
        rng, now, story = random.Random(seed), 0.0, []
        yours, mine = student.new("Reservations", 20, 8.0), Book(20, 8.0)
        for _ in range(60):
            now += rng.choice([0.0, 0.5, 3.0])
            verb, name = rng.choice(["reserve", "reserve", "grow", "grow", "adopt", "drop", "end", "expire"]), rng.choice("abcd")
            blocks = rng.randrange(1, 12)
            if verb == "grow" and name in mine.guests:
                blocks += len(mine.guests[name][1]) - 1
            given = (now,) if verb == "expire" else (name, blocks, now) if verb in ("reserve", "grow") else (name,)
            story = [*story[-5:], f"{verb}{given}"]
            want = getattr(mine, verb)(*given)
            expect_equal(yours.call(verb, *given), want, what=f"the last of {', '.join(story)}")
            expect_equal(yours.call("num_free"), mine.num_free(), what=f"num_free after {', '.join(story)}")


# %% key="abort-m1" role="mutant" exercise="abort" name="destination reservation leaked on abort"
def clean_up(done, fault):
    adopted, orders = "adopt" in done, []
    if "stop" in done and "release" not in done and fault != "source lost":
        orders.append("release" if adopted else "resume")
    if fault == ("destination lost" if adopted else "source lost"):
        orders.append("restart")
    return orders


# %% key="abort-m2" role="mutant" exercise="abort" name="both sides decoding: resumes what has been adopted"
_right = clean_up


def clean_up(done, fault):
    return ["resume" if order == "release" else order for order in _right(done, fault)]


# %% key="abort-m3" role="mutant" exercise="abort" name="goes on at the source when the destination dies after adopt"
_right = clean_up


def clean_up(done, fault):
    if fault == "destination lost" and "adopt" in done and "release" not in done:
        return ["resume"]
    return _right(done, fault)


# %% key="abort-m4" role="mutant" exercise="abort" name="a request that has stopped is forgotten"
_right = clean_up


def clean_up(done, fault):
    return [order for order in _right(done, fault) if order != "resume"]


# %% key="abort-m5" role="mutant" exercise="abort" name="gives orders to the dead"
_right = clean_up


def clean_up(done, fault):
    return ([*_right(done, "cancelled"), "restart"] if fault == ("destination lost" if "adopt" in done else "source lost")
            else _right(done, "cancelled") if fault.endswith("lost") else _right(done, fault))


# %% key="abort-m6" role="mutant" exercise="abort" name="nobody restarts a request whose owner is dead"
_right = clean_up


def clean_up(done, fault):
    return [order for order in _right(done, fault) if order != "restart"]


# %% key="abort-m7" role="mutant" exercise="abort" name="restarts whenever an instance is lost"
_right = clean_up


def clean_up(done, fault):
    orders = [order for order in _right(done, fault) if order != "restart"]
    return [*orders, "restart"] if fault.endswith("lost") else orders


# %% key="abort-m8" role="mutant" exercise="abort" name="cancels what has been adopted"
_right = clean_up


def clean_up(done, fault):
    return ["drop", "resume"] if fault == "cancelled" and "adopt" in done else _right(done, fault)


# %% key="abort-m9" role="mutant" exercise="abort" name="source keeps its blocks when the destination has adopted"
_right = clean_up


def clean_up(done, fault):
    return [order for order in _right(done, fault) if order != "release"]


# %% key="abort-m10" role="mutant" exercise="abort" name="takes the source to be the owner once it has stopped and sent all"
_right = clean_up


def clean_up(done, fault):
    if fault == "source lost" and "stop" in done and done[-1] == "copy":
        return ["drop"]
    return _right(done, fault)


# %% key="abort-m11" role="mutant" exercise="abort" name="a refused grow keeps what it got"
class Reservations(Reservations):
    def grow(self, request, blocks, now):
        if request in self.reserved and not super().grow(request, blocks, now):
            self.reserved[request] += self.num_free()
            return False
        return request in self.reserved


# %% key="abort-m12" role="mutant" exercise="abort" name="an abort that is reported twice frees twice"
class Reservations(Reservations):
    def __init__(self, num_blocks, timeout):
        super().__init__(num_blocks, timeout)
        self.last = {}

    def drop(self, request):
        self.last[request] = self.reserved.pop(request, 0) or self.last.get(request, 0)
        return self.last[request]


# %% key="abort-m13" role="mutant" exercise="abort" name="a late abort throws out who lives here"
class Reservations(Reservations):
    def drop(self, request):
        return super().drop(request) or self.end(request)


# %% key="abort-m14" role="mutant" exercise="abort" name="adopts on room that has been given up"
class Reservations(Reservations):
    def adopt(self, request):
        if request in self.owned:
            return False
        self.owned[request] = self.reserved.pop(request, 0)
        return True


# %% key="abort-m15" role="mutant" exercise="abort" name="grow asks for so many more, not in all"
class Reservations(Reservations):
    def grow(self, request, blocks, now):
        return request in self.reserved and super().grow(request, self.reserved[request] + blocks, now)


# %% key="abort-m16" role="mutant" exercise="abort" name="who lives here expires as well"
class Reservations(Reservations):
    def expire(self, now):
        old = [name for name in self.owned if now - self.heard[name] > self.timeout]
        for name in old:
            self.end(name)
        return sorted([*super().expire(now), *old])


# %% key="abort-m17" role="mutant" exercise="abort" name="growing does not prolong a reservation"
class Reservations(Reservations):
    def grow(self, request, blocks, now):
        return super().grow(request, blocks, self.heard.get(request, now))


# %% key="abort-m18" role="mutant" exercise="abort" name="says what has expired but does not free it"
class Reservations(Reservations):
    def expire(self, now):
        late = [name for name in self.reserved if now - self.heard[name] > self.timeout]
        for name in late:
            self.num_blocks -= self.reserved.pop(name)
        return sorted(late)


# %% key="abort-m19" role="mutant" exercise="abort" name="expires at the limit, not after it"
class Reservations(Reservations):
    def expire(self, now):
        late = sorted(request for request in self.reserved if now - self.heard[request] >= self.timeout)
        for request in late:
            self.drop(request)
        return late


# %% key="abort-m20" role="mutant" exercise="abort" name="reserves twice for the same request"
class Reservations(Reservations):
    def reserve(self, request, blocks, now):
        if request in self.owned or blocks > self.num_free():
            return False
        self.reserved[request], self.heard[request] = self.reserved.get(request, 0) + blocks, now
        return True


# %% key="abort-m21" role="mutant" exercise="abort" name="old reservations end before expire is called"
class Reservations(Reservations):
    def reserve(self, request, blocks, now):
        self.expire(now)
        return super().reserve(request, blocks, now)


# %% key="abort-m22" role="mutant" exercise="abort" name="a grow that takes no block is no sign of life"
class Reservations(Reservations):
    def grow(self, request, blocks, now):
        more = blocks > self.reserved.get(request, 0)
        return super().grow(request, blocks, now if more else self.heard.get(request, now))


# %% [markdown] key="cost" lang="en" role="exercise" exercise="copy_or_recompute" points=4 difficulty=3 minutes=30 needs="week 7, parts 3 and 7"
# ## Exercise 5 · Send the KV, or compute it again?
#
# The destination needs the KV of `tokens` tokens (0 or more). It can come over the link, or be computed there from the tokens themselves, which are a
# few bytes each. The KV of the first `cached` tokens is there already and costs nothing, whichever way is taken: `cached` is a multiple of the
# block size, and never more than `tokens`. If `cached == tokens`, nothing is missing, and both ways take 0.0 s.
#
# | argument | what it holds |
# |:--|:--|
# | `kv` | `(block_size, block_bytes)`: tokens in a block, bytes in a block over all layers. Only whole blocks are sent: a last block that is partly filled takes as long as a full one |
# | `link` | `(gbit, latency)`: the link's speed in **gigabits** per second (1 Gb/s is 1,000,000,000 bits per second; a byte has 8 bits), and the seconds that every transfer takes in addition |
# | `machine` | `(budget, step, token, pair)`: a step computes at most `budget` tokens. It takes `step` seconds, `token` seconds for each of its tokens, and `pair` seconds for each pair of a token of this step and a token that it attends to. A token attends to itself and to **all** tokens before it, also the cached ones |
#
# Write four functions:
#
# 1. `copy_seconds(tokens, cached, kv, link)`: seconds to send the missing blocks, in one transfer.
# 2. `recompute_seconds(tokens, cached, machine)`: seconds to compute the missing tokens, in as few steps as possible, on a machine that does
#    nothing else.
# 3. `cheaper(tokens, cached, kv, link, machine)`: `"copy"` or `"recompute"`, whichever is faster; `"copy"` if both take equally long.
# 4. `crossover(tokens, cached, kv, latency, machine)`: the speed of the link in Gb/s (a float) at which both ways take equally long;
#    `math.inf` if recomputing takes no longer than the latency. The checks call it only with `cached < tokens`.

# %% [markdown] key="cost-help-pairs" lang="en" role="help" exercise="copy_or_recompute" title="How many pairs are there?"
# The token with number `t` (from 0) attends to itself and the `t` before it: `t + 1` pairs. Add this up from `cached` to `tokens - 1`; or use
# `tokens * (tokens + 1) / 2 - cached * (cached + 1) / 2`. It does not matter into how many steps they are split.

# %% [markdown] key="cost-help-eight" lang="en" role="help" exercise="copy_or_recompute" title="My copy takes eight times too long, or an eighth"
# Links are sold in bits, memory in bytes. 64 Gb/s carry 8 GB in a second.

# %% [markdown] key="cost-help-real" lang="en" role="help" exercise="copy_or_recompute" title="What comes out for real machines?"
# 1024 tokens of a 7B model are 512 MiB of KV, or 4 KiB of tokens. By the course's cost model an A100 computes them in 84 ms, an A10 in 207 ms; the link
# needs 429 ms at 10 Gb/s and 21 ms at 200 Gb/s. So recomputing is faster below about 51 Gb/s on an A100, below about 21 on an A10.
# In **bytes** recomputing is always cheaper: that is why ServerlessLLM (Fu et al., 2024) sends tokens. But while a machine computes the KV
# again, its other requests wait.

# %% key="cost-answer" role="answer" exercise="copy_or_recompute"
def copy_seconds(tokens, cached, kv, link):
    """Seconds to send the blocks that are missing."""
    ### BEGIN SOLUTION
    (block_size, block_bytes), (gbit, latency) = kv, link
    blocks = -(-(tokens - cached) // block_size)
    return latency + blocks * block_bytes * 8 / (gbit * 1e9) if blocks else 0.0
    ### END SOLUTION


def recompute_seconds(tokens, cached, machine):
    """Seconds to compute the tokens that are missing."""
    ### BEGIN SOLUTION
    budget, step, token, pair = machine
    missing = tokens - cached
    pairs = tokens * (tokens + 1) / 2 - cached * (cached + 1) / 2
    return -(-missing // budget) * step + missing * token + pairs * pair
    ### END SOLUTION


def cheaper(tokens, cached, kv, link, machine):
    """The faster way: "copy" or "recompute"."""
    ### BEGIN SOLUTION
    return "copy" if copy_seconds(tokens, cached, kv, link) <= recompute_seconds(tokens, cached, machine) else "recompute"
    ### END SOLUTION


def crossover(tokens, cached, kv, latency, machine):
    """Speed of the link in Gb/s at which both ways take equally long."""
    ### BEGIN SOLUTION
    block_size, block_bytes = kv
    left = recompute_seconds(tokens, cached, machine) - latency
    return -(-(tokens - cached) // block_size) * block_bytes * 8 / left / 1e9 if left > 0 else math.inf
    ### END SOLUTION


# %% key="cost-check" role="check" exercise="copy_or_recompute"
BLOCK_7B = (16, 16 * 512 * 1024)                           # Llama 2 7B: 512 KiB of KV a token


def expect_copy(student, want, *arguments, hints=()):
    """The student's seconds for sending."""
    expect_close(student.call("copy_seconds", *arguments), want, 1e-6, what="seconds to send", hints=hints)


def expect_recompute(student, want, *arguments, hints=()):
    """The student's seconds for computing."""
    expect_close(student.call("recompute_seconds", *arguments), want, 1e-6, what="seconds to compute", hints=hints)


@check("copy_or_recompute")
def over_the_link(student):
    """100 tokens in blocks of 16, a million bytes each, over 8 Gb/s with a latency of 1 ms: 7 blocks, 8 ms."""
    expect_copy(student, 0.008, 100, 0, (16, 1_000_000), (8, 0.001), hints=[
        (0.001875, "8 Gb/s are 1 GB/s: a byte has 8 bits"), (0.057, "8 Gb/s are 1 GB/s, not an eighth of it"),
        (0.001 + 0.007 * 1e9 / 2**30, "1 Gb/s is 1,000,000,000 bits per second, not 2 ** 30"),
        (0.00725, "whole blocks: the seventh is only partly filled, and is sent all the same"),
        (0.007, "7 blocks and the latency: is the latency missing, or the block that is partly filled?"), (0.014, "one transfer: the latency comes once"),
        (0.101, "block_bytes is for a whole block, not for a token")])
    expect_copy(student, 0.004, 100, 64, (16, 1_000_000), (8, 0.001), hints=[
        (0.008, "4 blocks are there already"), (0.00325, "whole blocks")])
    expect_copy(student, 0.0, 64, 64, (16, 1_000_000), (8, 0.001), hints=[(0.001, "nothing is missing: nothing is sent, there is no transfer")])


@check("copy_or_recompute")
def on_the_machine(student):
    """6 tokens, 4 in a step: two steps, 6 tokens, 21 pairs. With 4 of them cached: one step, 2 tokens, 11 pairs."""
    machine = (4, 1000.0, 10.0, 0.125)
    expect_recompute(student, 2000 + 60 + 21 / 8, 6, 0, machine, hints=[
        (2000 + 60, "the pairs are missing: attention is not free"),
        (1000 + 60 + 21 / 8, "a step computes at most 4 tokens: there are two"), (1500 + 60 + 21 / 8, "half a step takes as long as a whole one"),
        (2000 + 60 + 36 / 8, "a token attends to itself and what comes before it, not to what comes after"),
        (2000 + 60 + 15 / 8, "a token attends to itself, too"), (2000 + 60 + 13 / 8, "the second step's tokens attend to those of the first, too"),
        (2000 + 60 + 6 / 8, "each token attends to all that come before it"), (6000 + 60 + 21 / 8, "four tokens fit into a step")])
    expect_recompute(student, 1000 + 20 + 11 / 8, 6, 4, machine, hints=[
        (1000 + 20 + 3 / 8, "the two attend to the four cached ones, too"), (2000 + 60 + 21 / 8, "4 of them are there already"),
        (1000 + 20 + 21 / 8, "the pairs of the cached tokens among themselves need not be computed"),
        (2000 + 20 + 11 / 8, "two tokens fit into one step")])
    expect_recompute(student, 0.0, 32, 32, machine, hints=[(1000.0, "nothing is missing: there is no step")])


@check("copy_or_recompute")
def which_is_faster(student):
    """1024 tokens of a 7B model over 10 and over 200 Gb/s, on a machine that computes 12,800 tokens a second."""
    machine = (2048, 0.003, 1 / 12_800, 0.0)
    for gbit, want in ((10, "recompute"), (200, "copy")):
        expect_equal(student.call("cheaper", 1024, 0, BLOCK_7B, (gbit, 0.0005), machine), want, what=f"the faster way over {gbit} Gb/s",
                     hints={"recompute": "fewer bytes are not always faster", "copy": "over a slow link computing is faster"})
    expect_equal(student.call("cheaper", 1024, 1024, BLOCK_7B, (10, 0.5), machine), "copy", what="the faster way when nothing is missing", hints={
        "recompute": "both take 0 s: then copy"})
    expect_close(student.call("crossover", 1024, 0, BLOCK_7B, 0.0005, machine), 2 ** 29 * 8 / (0.083 - 0.0005) / 1e9, rtol=1e-9,
                 what="Gb/s at which both take equally long", hints=[
        (2 ** 29 / (0.083 - 0.0005) / 1e9, "gigabits, not gigabytes"), (2 ** 29 * 8 / 0.083 / 1e9, "the transfer takes its latency besides"),
        (2 ** 29 * 8 / (0.083 - 0.0005), "in Gb/s: 1 Gb/s is 1,000,000,000 bits per second"), (2 ** 29 * 8 / (0.083 + 0.0005) / 1e9, "the latency leaves less time for the sending")])
    speed = student.call("crossover", 16, 0, BLOCK_7B, 0.01, (2048, 0.003, 1 / 12_800, 0.0))
    expect_equal(speed, math.inf, what="Gb/s at which both take equally long, when the latency alone takes longer than computing", hints=[
        (speed, "the tokens are computed before the latency is over: no link is fast enough")])


@check("copy_or_recompute")
def at_the_crossover(student):
    """Just above your crossover your cheaper says copy, just below it recompute; longer requests cross over elsewhere."""
    rng = random.Random(2)
    for tokens, cached in ((50, 0), (700, 160), (5000, 0), (5000, 4800)):
        machine = (512, 0.01, rng.uniform(5e-5, 2e-4), 1e-8)
        speed = student.call("crossover", tokens, cached, BLOCK_7B, 0.001, machine)
        expect_true(type(speed) in (int, float) and 0 < speed < math.inf, f"crossover returns a speed in Gb/s; this was {speed!r}")
        for factor, want in ((1.01, "copy"), (0.99, "recompute")):
            expect_equal(student.call("cheaper", tokens, cached, BLOCK_7B, (speed * factor, 0.001), machine), want,
                         what=f"the faster way for {tokens} tokens ({cached} cached) at {factor} times your crossover of {speed:.4g} Gb/s",
                         hints=[({"copy": "recompute", "recompute": "copy"}[want], f"does your crossover count only what is missing? {cached} tokens are there already")]
                         if cached else ())


@check("copy_or_recompute")
def real_machines(student):
    """1024 tokens of a 7B model, computed in the course's simulator: an A100 crosses over at 51 Gb/s, an A10 at 21."""
    for gpu, want in (("A100 80 GB", 51), ("A10", 21)):
        engine = Engine.simulated("Llama 2 7B", gpu, token_budget=2048)
        ask(engine, "prompt", [-1] * 1024, 1)
        engine.step()
        seconds = engine.clock.now
        got = student.call("crossover", 1024, 0, BLOCK_7B, 0.0, (2048, 0.0, seconds / 1024, 0.0))
        expect_equal(round(got), want, what=f"Gb/s, rounded, at which an {gpu} that takes {1000 * seconds:.0f} ms crosses over")


# %% key="cost-hidden" role="hidden" exercise="copy_or_recompute"
class CountsPairs(MockExecutor):
    """A mock whose steps take so much for the step, for each token, and for each pair that attends."""

    def __init__(self, step, token, pair):
        super().__init__(4)
        self.prices = (step, token, pair)

    def execute(self, batch):
        """The mock's tokens, in the time that these prices say."""
        pairs = sum(position + 1 for item in batch.items for position in range(item.start, item.start + item.count))
        step, token, pair = self.prices
        return StepResult(super().execute(batch).tokens, step + token * batch.num_tokens + pair * pairs)


@check("copy_or_recompute")
def as_the_engine_does(student):
    """The course's engine computes a prompt under a token budget, with and without a prefix cache: your seconds are its seconds."""
    rng = random.Random(9)
    for tokens, cached, budget in ((7, 0, 100), (64, 0, 16), (65, 0, 16), (66, 32, 16), (90, 88, 5), (37, 20, 17)):
        prices = (0.5, 0.25, 0.0078125)
        engine = Engine(CountsPairs(*prices), PrefixPool(64, 4), batching="mixed", token_budget=budget, max_running=4,
                        clock=VirtualClock(), checked=True)
        prompt = [rng.randrange(1, 60) for _ in range(tokens)]
        if cached:
            alone(engine, prompt[:cached], 1)
        begun = engine.clock.now
        ask(engine, "again", prompt, 1)
        while not engine.idle:
            engine.step()
        assert [e.data["computed"] for e in engine.events if e.kind is EventKind.SCHEDULED][-1] == cached
        expect_recompute(student, engine.clock.now - begun, tokens, cached, (budget, *prices))


@check("copy_or_recompute")
def random_settings(student):
    """All arguments at random: pair by pair and block by block."""
    rng = random.Random(4)
    for _ in range(60):
        block_size, budget = rng.choice([1, 4, 16]), rng.randrange(1, 300)
        cached = block_size * rng.randrange(20)
        tokens = cached + rng.randrange(1, 600)
        kv, link = (block_size, rng.randrange(1000, 100_000)), (rng.uniform(0.01, 50), rng.choice([0.0, 0.002]))
        machine = (budget, rng.uniform(0.001, 0.1), rng.uniform(1e-5, 1e-3), rng.uniform(0, 1e-6))
        blocks = len(range(cached, tokens, block_size))
        send = link[1] + blocks * kv[1] / (link[0] * 125_000_000)
        compute = (len(range(cached, tokens, budget)) * machine[1] + (tokens - cached) * machine[2]
                   + sum(t + 1 for t in range(cached, tokens)) * machine[3])
        expect_copy(student, send, tokens, cached, kv, link)
        expect_recompute(student, compute, tokens, cached, machine)
        expect_equal(student.call("cheaper", tokens, cached, kv, link, machine), "copy" if send <= compute else "recompute", what="the faster way")
        speed = blocks * kv[1] * 8 / (compute - link[1]) / 1e9 if compute > link[1] else math.inf
        expect_close(student.call("crossover", tokens, cached, kv, link[1], machine), speed, rtol=1e-6, what="crossover")


@check("copy_or_recompute")
def on_the_border_of_both(student):
    """Both take exactly as long: copy. The latency takes exactly as long as computing: no link is fast enough."""
    kv, machine = (4, 125_000_000), (8, 0.5, 0.125, 0.0)
    expect_equal(student.call("cheaper", 4, 0, kv, (1, 0.0), machine), "copy", what="the faster way when both take 1 s")
    expect_equal(student.call("crossover", 4, 0, kv, 1.0, machine), math.inf, what="crossover when the latency is 1 s, as computing is")
    expect_close(student.call("crossover", 4, 0, kv, 0.5, machine), 2.0, 1e-9, what="crossover when half a second is left")


# %% key="cost-m1" role="mutant" exercise="copy_or_recompute" name="takes gigabits for gigabytes"
def copy_seconds(tokens, cached, kv, link):
    blocks = -(-(tokens - cached) // kv[0])
    return link[1] + blocks * kv[1] / (link[0] * 1e9) if blocks else 0.0


# %% key="cost-m2" role="mutant" exercise="copy_or_recompute" name="sends parts of blocks"
def copy_seconds(tokens, cached, kv, link):
    return link[1] + (tokens - cached) / kv[0] * kv[1] * 8 / (link[0] * 1e9) if tokens > cached else 0.0


# %% key="cost-m3" role="mutant" exercise="copy_or_recompute" name="sends what is there already"
def copy_seconds(tokens, cached, kv, link):
    return link[1] + -(-tokens // kv[0]) * kv[1] * 8 / (link[0] * 1e9) if tokens > cached else 0.0


# %% key="cost-m4" role="mutant" exercise="copy_or_recompute" name="forgets the latency"
def copy_seconds(tokens, cached, kv, link):
    return -(-(tokens - cached) // kv[0]) * kv[1] * 8 / (link[0] * 1e9)


# %% key="cost-m5" role="mutant" exercise="copy_or_recompute" name="everything fits into one step"
def recompute_seconds(tokens, cached, machine):
    _, step, token, pair = machine
    pairs = tokens * (tokens + 1) / 2 - cached * (cached + 1) / 2
    return step * (tokens > cached) + (tokens - cached) * token + pairs * pair


# %% key="cost-m6" role="mutant" exercise="copy_or_recompute" name="attention costs nothing: recomputing is linear"
def recompute_seconds(tokens, cached, machine):
    budget, step, token, _ = machine
    return -(-(tokens - cached) // budget) * step + (tokens - cached) * token


# %% key="cost-m7" role="mutant" exercise="copy_or_recompute" name="new tokens do not attend to cached ones"
def recompute_seconds(tokens, cached, machine):
    budget, step, token, pair = machine
    missing = tokens - cached
    return -(-missing // budget) * step + missing * token + missing * (missing + 1) / 2 * pair


# %% key="cost-m8" role="mutant" exercise="copy_or_recompute" name="computes what is there already"
def recompute_seconds(tokens, cached, machine):
    budget, step, token, pair = machine
    return (-(-tokens // budget) * step + tokens * token + tokens * (tokens + 1) / 2 * pair) if tokens > cached else 0.0


# %% key="cost-m9" role="mutant" exercise="copy_or_recompute" name="fewer bytes is always cheaper: recompute"
def cheaper(tokens, cached, kv, link, machine):
    return "recompute" if tokens > cached else "copy"


# %% key="cost-m10" role="mutant" exercise="copy_or_recompute" name="the crossover forgets the latency"
def crossover(tokens, cached, kv, latency, machine):
    return -(-(tokens - cached) // kv[0]) * kv[1] * 8 / recompute_seconds(tokens, cached, machine) / 1e9


# %% key="cost-m11" role="mutant" exercise="copy_or_recompute" name="a link that is too slow by its latency gets a negative speed"
def crossover(tokens, cached, kv, latency, machine):
    left = recompute_seconds(tokens, cached, machine) - latency
    return -(-(tokens - cached) // kv[0]) * kv[1] * 8 / left / 1e9 if left else math.inf


# %% key="cost-m12" role="mutant" exercise="copy_or_recompute" name="copy only when it is strictly faster"
def cheaper(tokens, cached, kv, link, machine):
    return "copy" if copy_seconds(tokens, cached, kv, link) < recompute_seconds(tokens, cached, machine) else "recompute"


# %% [markdown] key="end" lang="en"
# ## Done
#
# KV is only appended to: so a request can be sent while it decodes, and stops only for its last few blocks. What the user sees is a pause that does not
# grow with what was said before. What nobody must ever see is a request with two owners, or with none, and you know the one step at
# which its owner changes. Next week you decide which request goes where, and why.
#
# Hand in this file. Your score: `llmcourse check labs/lab07_migration.ipynb`.
