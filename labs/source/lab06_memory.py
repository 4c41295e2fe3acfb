"""Lab 6: holes between runs, blocks that are shared, attention through a table, a prefix index, ageing. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 6 · Fragmentation and priorities
#
# You manage memory as it was done before 2023 and see it fall into holes; then you build what took its place: blocks that are
# shared and copied on write, attention that reads through a block table, and an index that finds what earlier requests
# have left behind. At the end you decide who goes first, and say how long the others may have to wait. Your pieces run
# inside the course's own engine, on a real model and in virtual time.
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
# **To see your score:** `llmcourse check labs/lab06_memory.ipynb`. **To hand in:** save the notebook and hand in the
# file.
#
# The lecture of week 6 has the ideas behind all of this. Exercise 3 needs a little torch; the others are plain Python. The long
# cell below only sets things up: run it, you need not read it.

# %% key="setup" role="setup"
import random
from collections import Counter
from dataclasses import replace

import torch

from llmcourse.engine import Engine, EventKind, Policy, Request, SamplingParams, VirtualClock
from llmcourse.engine.batch import StepResult
from llmcourse.engine.replay import replay
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.grading import CheckFailed, check, expect_close, expect_equal, expect_true
from llmcourse.grading.failure import StudentError
from llmcourse.grading.values import describe
from llmcourse.kv import BlockPool, KVStore, OutOfBlocks, PagedAttention, Segment
from llmcourse.model import load_model
from llmcourse.workload import Arrival

torch.set_num_threads(1)
torch.set_grad_enabled(False)


class UsesPool:
    """The engine's memory (its face is llmcourse/kv/memory.py), asking a pool like yours of exercise 2."""

    shares, caches = True, False

    def __init__(self, pool, num_blocks, block_size):
        self.pool, self.num_blocks, self.block_size = pool, num_blocks, block_size
        self.capacity = num_blocks * block_size
        self.tables, self.lengths, self.num_free = {}, {}, num_blocks

    @property
    def num_used(self):
        """Blocks that are not free."""
        return self.num_blocks - self.num_free

    @property
    def num_shared(self):
        """Blocks that several tables name."""
        return sum(count > 1 for count in Counter(block for table in self.tables.values() for block in table).values())

    def table(self, owner):
        """The owner's blocks."""
        return self.tables.get(owner, [])

    def length(self, owner):
        """The owner's tokens."""
        return self.lengths.get(owner, 0)

    def blocks_for(self, num_tokens):
        """Blocks that so many tokens fill."""
        return -(-num_tokens // self.block_size)

    def could_ever_hold(self, longest):
        """Whether a request that grows so long fits when it is alone."""
        return self.blocks_for(longest) <= self.num_blocks

    def can_open(self, tokens, longest, without=()):
        """Whether `open` would succeed."""
        return self.blocks_for(len(tokens)) <= self.num_free

    def open(self, owner, tokens, longest):
        """A table for a new owner."""
        self.pool.allocate(owner, len(tokens))
        self.look(owner, len(tokens))
        return 0

    def share(self, owner, source, num_tokens=None):
        """A table for a new owner on another's blocks."""
        num_tokens = self.lengths[source] if num_tokens is None else num_tokens
        self.pool.share(owner, source, num_tokens)
        self.look(owner, num_tokens)
        return self.tables[owner]

    def reserve(self, owner, length):
        """Room for so many tokens: copies, and the blocks gained."""
        if length <= self.lengths[owner]:
            return [], []
        before = len(self.tables[owner])
        copies = pairs_of_blocks(self.pool.append(owner, length - self.lengths[owner]))
        self.look(owner, length)
        return copies, self.tables[owner][before:]

    def free(self, owner):
        """Close a table."""
        released = self.pool.free(owner)
        expect_true(type(released) is list, f"free returns a list of the blocks that are free now; this was {released!r}")
        del self.tables[owner], self.lengths[owner]
        self.num_free = self.pool.num_free()
        return released

    def look(self, owner, length):
        """Read the owner's table and the number of free blocks again."""
        table, self.num_free = self.pool.table(owner), self.pool.num_free()
        good = type(table) is list and all(type(block) is int and 0 <= block < self.num_blocks for block in table)
        expect_true(good, f"table returns a list of blocks, numbers from 0 to {self.num_blocks - 1}; that of {owner} was "
                    f"{table!r}")
        expect_true(type(self.num_free) is int, f"num_free returns a number of blocks; this was {self.num_free!r}")
        expect_equal(len(table), self.blocks_for(length), what=f"blocks of {owner} for its {length} tokens in blocks of "
                     f"{self.block_size} (its table is {table})")
        self.lengths[owner], self.tables[owner] = length, list(table)

    def rounds_that_fit(self, owners, rounds):
        """None: the engine asks for every single token."""
        return 0

    def check_invariants(self):
        """Every block is in a table or free."""
        named = Counter(block for table in self.tables.values() for block in table)
        expect_equal(self.num_free, self.num_blocks - len(named),
                     what=f"num_free, with {len(named)} of {self.num_blocks} blocks in tables",
                     hints={self.num_blocks - sum(named.values()): "a block that two tables name is one block, not two"})


class SeededMock(MockExecutor):
    """The mock (its next token is a hash of all it reads back through the table), with other answers for another seed."""

    def execute(self, batch):
        """The mock's tokens, moved on by the request's seed."""
        result = super().execute(batch)
        seeds = {item.request.id: item.request.sampling.seed for item in batch.items}
        moved = {name: (token + seeds[name]) % self.limits.vocab_size for name, token in result.tokens.items()}
        return StepResult(moved, result.seconds)


class UsesPriority(Policy):
    """The engine's order, asking an object like yours of exercise 5."""

    static = False

    def __init__(self, priority):
        self.priority, self.since = priority, {}

    def key(self, request, now):
        since = self.since.get(request.id, request.arrival)
        return self.priority.key(request.priority, request.arrival, since, now)

    def on_preempted(self, request, now):
        self.since[request.id] = now


class Through:
    """An object on the student's side, as if it were here: `Through(handle).method(...)`."""

    def __init__(self, handle):
        self.handle = handle

    def __getattr__(self, method):
        def ask(*arguments):
            try:
                answer = self.handle.call(method, *arguments)
            except StudentError as error:
                if "OutOfBlocks" in error.kinds:
                    raise OutOfBlocks(str(error)) from None
                raise
            self.handle.student.last = ""                 # what the engine asked last is hardly ever what went wrong
            return answer
        return ask


def pairs_of_blocks(copies):
    """A list of pairs (source, destination) as a list of tuples; CheckFailed when it is something else."""
    good = type(copies) in (list, tuple) and all(type(c) in (list, tuple) and [type(b) for b in c] == [int, int] for c in copies)
    expect_true(good, f"append returns a list of pairs of blocks (source, destination); this was {copies!r}")
    return [tuple(copy) for copy in copies]


def run(engine, steps=20000, until=None):
    """Take steps until everybody is done, or until step `until`. CheckFailed when that does not happen; returns the engine."""
    while not engine.idle and (until is None or engine.counters.steps < until):
        before = engine.counters.steps
        try:
            engine.step()
        except (KeyError, IndexError) as error:
            raise CheckFailed(f"in step {before} the engine read a slot that nobody has written, or that is not there "
                              f"({error!r}): a table is wrong. The tables are {dict(engine.pool.tables)}") from None
        except CheckFailed:
            raise
        except AssertionError as error:
            raise CheckFailed(f"after step {before}: {error}") from None
        except OutOfBlocks as error:
            raise CheckFailed(f"in step {before} OutOfBlocks was raised although num_free says that there are "
                              f"{engine.pool.num_free} free blocks, which is enough: {error}") from None
        expect_true(engine.idle or engine.counters.steps > before,
                    f"the engine stands still: {len(engine.scheduler.waiting)} requests wait, "
                    f"{len(engine.scheduler.running)} run, {engine.pool.num_free} blocks are free, and nobody gets a token")
        expect_true(before < steps, f"after {steps} steps the requests are still not done")
    return engine


# %% [markdown] key="runs" lang="en" role="exercise" exercise="contiguous" points=4 difficulty=2 minutes=30 needs="week 6, parts 2 and 6"
# ## Exercise 1 · Memory that falls into holes
#
# Before paging, the cache of a request was one run of neighbouring slots. Memory is a row of `size` slots, numbered from 0.
# Runs come and go, and what lies between them are *holes*. Write the class:
#
# - `allocate(length)`: **first fit**: the run is put at the start of the lowest hole that is large enough. Returns its first
#   slot, or `None` if there is no such hole; then nothing changes.
# - `free(start)`: ends the run that begins at `start` (you may rely on there being one). What was free beside it and what is
#   free now is one hole.
# - `holes()`: a list of all holes `(start, length)`, lowest first.
# - `external_fragmentation()`: the share of the free slots that lie outside the largest hole: 1 - largest hole / all free slots;
#   0.0 if no slot is free.
# - `compact()`: all runs slide down, in their order, until there are no holes between them. Returns the moves, a list of
#   `(old start, new start)`, lowest first; a run that stays where it is does not move. From then on a run has its new start.
#
# Your memory runs under the course's engine: each request gets one run for all the tokens that it may come to hold.
#
# With **blocks** there are no such holes, but a service has several *instances* (servers, each with its own memory). A prompt's
# blocks may lie anywhere, but all on one instance. Write a function
#
# - `fits_where(num_tokens, free_blocks, block_size)`: `free_blocks` lists how many blocks are free on each instance. Returns
#   `"fits"` if some instance has room for a prompt of `num_tokens` tokens, `"only in sum"` if none has, but all of them
#   together would, else `"no"`.

# %% [markdown] key="runs-help-holes" lang="en" role="help" exercise="contiguous" title="My holes are next to each other"
# Two holes that touch are one hole, and a run may be put across both. Either merge when a run is freed (with the hole before it
# **and** the one behind it), or keep only the runs, and compute the holes from them whenever somebody asks: a hole is what lies
# between the end of one run and the start of the next, and between the last run and the end of memory.

# %% [markdown] key="runs-help-zero" lang="en" role="help" exercise="contiguous" title="Is memory that is full fragmented?"
# No: nothing is free, so nothing that is free is out of reach. And a single hole, however small, is not fragmented either.

# %% [markdown] key="runs-help-contiguous" lang="en" role="help" exercise="contiguous" title="Do the free blocks have to be neighbours?"
# No. It is often said that a prompt needs contiguous memory because all of it comes at once. It needs many blocks at once, but
# any blocks: the block table says where they are. Within an instance external fragmentation is gone. It comes back at the level
# of the fleet: ten instances with 30 free blocks each cannot take a prompt of 100 blocks.

# %% [markdown] key="runs-help-try" lang="en" role="help" exercise="contiguous" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# memory = ContiguousMemory(10)
# [memory.allocate(3), memory.allocate(2), memory.allocate(4)]      # [0, 3, 5]
# memory.free(3); memory.allocate(3)                                # None: 3 slots are free, but not in one piece
# memory.holes()                                                    # [(3, 2), (9, 1)]
# memory.compact(); memory.allocate(3)                              # 7
# ```

# %% key="runs-answer" role="answer" exercise="contiguous"
class ContiguousMemory:
    """A row of slots in which every run lies in one piece."""

    def __init__(self, size):
        """All `size` slots are free."""
        ### BEGIN SOLUTION
        self.size, self.runs = size, {}
        ### END SOLUTION

    def allocate(self, length):
        """First slot of a new run of `length` slots, or None."""
        ### BEGIN SOLUTION
        for start, room in self.holes():
            if room >= length:
                self.runs[start] = length
                return start
        return None
        ### END SOLUTION

    def free(self, start):
        """The run that begins at `start` goes."""
        ### BEGIN SOLUTION
        del self.runs[start]
        ### END SOLUTION

    def holes(self):
        """All holes (start, length), lowest first."""
        ### BEGIN SOLUTION
        holes, end = [], 0
        for start, length in [*sorted(self.runs.items()), (self.size, 0)]:
            if start > end:
                holes.append((end, start - end))
            end = start + length
        return holes
        ### END SOLUTION

    def external_fragmentation(self):
        """Share of the free slots outside the largest hole."""
        ### BEGIN SOLUTION
        rooms = [length for _, length in self.holes()]
        return 1 - max(rooms) / sum(rooms) if rooms else 0.0
        ### END SOLUTION

    def compact(self):
        """Slide all runs down; the moves (old start, new start)."""
        ### BEGIN SOLUTION
        moves, runs, end = [], {}, 0
        for start, length in sorted(self.runs.items()):
            if start != end:
                moves.append((start, end))
            runs[end] = length
            end += length
        self.runs = runs
        return moves
        ### END SOLUTION


def fits_where(num_tokens, free_blocks, block_size):
    """Where a prompt finds its blocks: "fits", "only in sum" or "no"."""
    ### BEGIN SOLUTION
    needed = -(-num_tokens // block_size)
    if max(free_blocks) >= needed:
        return "fits"
    return "only in sum" if sum(free_blocks) >= needed else "no"
    ### END SOLUTION


# %% key="runs-check" role="check" exercise="contiguous"
def memory_with(student, size, lengths, freed=()):
    """A memory in which runs of these lengths were allocated one after the other, and some (by number) freed again."""
    memory = student.new("ContiguousMemory", size)
    starts = [memory.call("allocate", length) for length in lengths]
    expect_equal(starts, [sum(lengths[:number]) for number in range(len(lengths))],
                 what=f"starts of runs of {lengths} in {size} slots")
    for number in freed:
        memory.call("free", starts[number])
    return memory


def holes_of(memory):
    """The student's holes as pairs."""
    got = memory.call("holes")
    expect_true(type(got) is list and all(type(h) in (list, tuple) and len(h) == 2 for h in got),
                f"holes returns a list of pairs (start, length); this was {got!r}")
    return [tuple(hole) for hole in got]


def expect_holes(memory, want, what="holes", hints=()):
    """The student's holes are these; a hole told by its end is named as such."""
    ends = [([(start, start + length - inclusive) for start, length in want], "(start, **length**), not the end of the hole")
            for inclusive in (0, 1)]
    expect_equal(holes_of(memory), want, what=what, hints=[*hints, *ends])


@check("contiguous")
def first_fit(student):
    """Runs of 4, 3, 2, 2 and 3 slots, two of them freed: a run of 2 goes into the first hole, not into the best."""
    memory = memory_with(student, 20, [4, 3, 2, 2, 3], freed=[1, 3])
    expect_holes(memory, [(4, 3), (9, 2), (14, 6)])
    expect_equal(memory.call("allocate", 2), 4, what="start of a run of 2", hints={
        14: "the last hole, or the largest: first fit takes the lowest that is large enough",
        9: "the hole at 9 fits best, but first fit takes the lowest that is large enough",
        5: "the run goes to the start of its hole, not to its end", 18: "first fit takes the lowest hole, and the start of it"})
    expect_equal(memory.call("allocate", 2), 9, what="start of another run of 2", hints={
        14: "the hole at 9 has exactly 2 slots: that is enough", 6: "only one slot is free at 6"})
    expect_equal(memory.call("allocate", 7), None, what="a run of 7 with holes of 1 and 6", hints={
        6: "7 slots are free, but in two pieces", 14: "the hole at 14 has 6 slots"})
    expect_equal(memory.call("allocate", 6), 14, what="start of a run of 6 in a hole of 6 at the end of memory", hints=[
        (None, "it fits exactly: the last slot of memory is slot 19")])
    expect_holes(memory, [(6, 1)], hints=[
        ([(6, 1), (20, 0)], "a hole of no slots is none"), ([(6, 1), (12, 0), (20, 0)], "a hole of no slots is none")])


@check("contiguous")
def neighbours_become_one_hole(student):
    """Three neighbours are freed, the middle one last: one hole, into which a run of all three fits."""
    memory = memory_with(student, 12, [2, 3, 2, 3, 2], freed=[1, 3, 2])
    expect_holes(memory, [(2, 8)], hints=[
        ([(2, 3), (5, 2), (7, 3)], "holes that touch are one hole"),
        ([(2, 3), (5, 5)], "merged with the hole behind it, but not with the one before"),
        ([(2, 5), (7, 3)], "merged with the hole before it, but not with the one behind")])
    expect_equal(memory.call("allocate", 8), 2, what="start of a run of 8 slots", hints=[(None, "8 slots are free in one piece")])


@check("contiguous")
def out_of_reach(student):
    """Holes of 6, 2 and 4 slots: half of what is free is out of reach. One hole, or none: nothing is."""
    memory = memory_with(student, 20, [6, 4, 2, 4, 4], freed=[0, 2, 4])
    expect_close(memory.call("external_fragmentation"), 0.5, 1e-9, what="external fragmentation", hints=[
        (0.0, "12 slots are free, but a run of 12 finds no place: free slots are not one hole"),
        (0.6, "slots in use are not fragmented: compare with the free slots"),
        (2 / 3, "one minus the largest hole over the free slots; was that the mean of the holes?"),
        (3, "the number of holes says little: how large is the largest?"),
        (0.7, "the largest hole over the **free** slots, not over all"),
        (0.3, "free slots outside the largest hole over the **free** slots, not over all"),
        (5 / 6, "one minus the **largest** hole over the free slots")])
    expect_close(memory_with(student, 9, [4, 3]).call("external_fragmentation"), 0.0, 1e-9,
                 what="external fragmentation, one hole")
    expect_close(memory_with(student, 7, [4, 3]).call("external_fragmentation"), 0.0, 1e-9,
                 what="external fragmentation, no hole", hints=[
        (1.0, "nothing is free, so nothing free is out of reach")])


@check("contiguous")
def compaction(student):
    """Two runs slide down, one stays; afterwards what is free is one hole, and runs are freed by their new starts."""
    memory = memory_with(student, 16, [3, 2, 4, 1, 3], freed=[1, 3])
    moves = memory.call("compact")
    expect_equal([tuple(move) for move in moves], [(5, 3), (10, 7)], what="moves", hints=[
        ([(0, 0), (5, 3), (10, 7)], "the run at 0 stays where it is: it is no move"),
        ([(10, 7), (5, 3)], "lowest first: who slides down must not land on what has not moved yet"),
        ([(5, 3), (10, 8)], "there are no holes between runs afterwards"), ([(10, 3), (5, 6)], "the runs keep their order")])
    expect_holes(memory, [(10, 6)], "holes after compaction", [
        ([(3, 2), (9, 1), (13, 3)], "the runs still have their old starts")])
    memory.call("free", 3)
    expect_holes(memory, [(3, 4), (10, 6)], "holes after the run that now begins at 3 is freed")


@check("contiguous")
def blocks_on_several_instances(student):
    """A prompt of 100 tokens needs 7 blocks of 16, anywhere on one instance."""
    for free, want in (([6], "no"), ([7], "fits"), ([3, 7, 2], "fits"), ([6, 6, 6], "only in sum"), ([3, 2, 1], "no"),
                       ([4, 3], "only in sum")):
        enough = "one instance has enough; its blocks need not be neighbours"
        got = student.call("fits_where", 100, free, 16)
        expect_equal(got, want, what=f"100 tokens in blocks of 16, free blocks {free}", hints=[
            ("fits", "the blocks must be on one instance: no table reaches to another" if len(free) > 1 else
             "100 tokens fill 7 blocks, the last of them partly"),
            ("only in sum", enough if want == "fits" else "100 tokens fill 7 blocks, the last of them partly"),
            ("no", enough if want == "fits" else "all of them together have 7 blocks")])


class UsesRuns:
    """The engine's memory (llmcourse/kv/memory.py) before paging: each request gets one run for all it may come to hold."""

    shares, caches, num_shared, block_size = False, False, 0, 1

    def __init__(self, memory, size):
        self.memory, self.num_blocks, self.capacity = memory, size, size
        self.runs, self.tables = {}, {}                   # of each owner: its slots, and those of them that hold a token

    @property
    def num_used(self):
        """Slots in runs."""
        return sum(map(len, self.runs.values()))

    @property
    def num_free(self):
        """Slots in no run."""
        return self.num_blocks - self.num_used

    def table(self, owner):
        """The owner's slots that hold a token."""
        return self.tables.get(owner, [])

    def length(self, owner):
        """How many these are."""
        return len(self.table(owner))

    def blocks_for(self, num_tokens):
        """A block is a slot."""
        return num_tokens

    def could_ever_hold(self, longest):
        """Whether a request that grows so long fits when it is alone."""
        return longest <= self.num_blocks

    def can_open(self, tokens, longest, without=()):
        """Whether there is a hole for it."""
        return any(room >= longest for _, room in self.memory.holes())

    def open(self, owner, tokens, longest):
        """A run of `longest` slots."""
        start = self.memory.allocate(longest)
        expect_true(type(start) is int, f"there is a hole for a run of {longest} slots, but allocate({longest}) returned {start!r}")
        self.runs[owner] = range(start, start + longest)
        self.tables[owner] = list(self.runs[owner][:len(tokens)])
        return 0

    def reserve(self, owner, length):
        """Room for so many tokens, in the run."""
        new = list(self.runs[owner][len(self.tables[owner]):length])
        self.tables[owner] += new
        return [], new

    def free(self, owner):
        """The run goes."""
        run = self.runs.pop(owner)
        del self.tables[owner]
        self.memory.free(run.start)
        return list(run)

    def rounds_that_fit(self, owners, rounds):
        """None: the engine asks for every single token."""
        return 0

    def check_invariants(self):
        """Runs lie in memory and do not overlap."""
        used = Counter(slot for run in self.runs.values() for slot in run)
        expect_true(all(slot < self.num_blocks for slot in used), f"a run ends behind the last of {self.num_blocks} slots: {self.runs}")
        expect_true(all(count == 1 for count in used.values()), f"runs lie on top of each other: {self.runs}")


@check("contiguous")
def under_the_engine(student):
    """Requests of all lengths in the engine: each says what it says alone, and some wait although enough slots are free."""
    rng, executor = random.Random(2), MockExecutor(1)
    memory = UsesRuns(Through(student.new("ContiguousMemory", 160)), 160)
    engine = Engine(executor, memory, token_budget=256, max_running=16, clock=VirtualClock(), checked=True)
    for number in range(30):
        prompt = [number + 1] * rng.choice([3, 6, 40])
        engine.add(Request(prompt, SamplingParams(max_tokens=rng.randint(4, 50), ignore_eos=True)))
    in_pieces = 0
    while not engine.idle:
        run(engine, until=engine.counters.steps + 1)
        waiting = engine.scheduler.waiting.first(engine.clock.now)
        in_pieces += waiting is not None and waiting.max_cached <= memory.num_free
        largest = max((room for _, room in memory.memory.holes()), default=0)
        want = 1 - largest / memory.num_free if memory.num_free else 0.0
        expect_close(memory.memory.external_fragmentation(), want, 1e-9, what=f"external fragmentation with {memory.num_free} slots "
                     f"free, {largest} of them in the largest hole")
    for name, request in engine.requests.items():
        alone = executor.continue_alone(request.prompt, request.sampling.max_tokens, True)
        expect_equal(request.output, alone, what=f"new tokens of {name}")
    expect_true(in_pieces > 0, "in no step did anybody wait although enough slots were free: are runs in one piece?")


# %% key="runs-hidden" role="hidden" exercise="contiguous"
class Row:
    """Memory slot by slot: None, or the number of the run that lies there. Slow, and hard to get wrong."""

    def __init__(self, size):
        self.slots, self.number = [None] * size, 0

    def allocate(self, length):
        """First fit, by trying every slot."""
        for start in range(len(self.slots) - length + 1):
            if self.slots[start:start + length] == [None] * length:
                self.number += 1
                self.slots[start:start + length] = [self.number] * length
                return start
        return None

    def free(self, start):
        """Every slot of the run."""
        run = self.slots[start]
        self.slots = [None if slot == run else slot for slot in self.slots]

    def starts(self):
        """First slots of all runs."""
        return [i for i, slot in enumerate(self.slots) if slot is not None and (i == 0 or self.slots[i - 1] != slot)]

    def holes(self):
        """Stretches of None."""
        edges = [i for i in range(len(self.slots) + 1) if (i < len(self.slots) and self.slots[i] is None)
                 != (i > 0 and self.slots[i - 1] is None)]
        return [(a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=True)]

    def compact(self):
        """Squeeze out every None."""
        before = self.starts()
        used = [slot for slot in self.slots if slot is not None]
        self.slots = used + [None] * (len(self.slots) - len(used))
        return [(a, b) for a, b in zip(before, self.starts(), strict=True) if a != b]


@check("contiguous")
def a_long_day(student):
    """300 runs come and go in memories of other sizes, with a compaction now and then."""
    rng = random.Random(6)
    for size in (40, 97):
        memory, row = student.new("ContiguousMemory", size), Row(size)
        for turn in range(150):
            if rng.random() < 0.6 or not row.starts():
                length = rng.randint(1, size // 4)
                expect_equal(memory.call("allocate", length), row.allocate(length),
                             what=f"turn {turn}: start of a run of {length}")
            elif rng.random() < 0.1:
                expect_equal([tuple(move) for move in memory.call("compact")], row.compact(), what=f"turn {turn}: moves")
            else:
                start = rng.choice(row.starts())
                memory.call("free", start)
                row.free(start)
            holes = row.holes()
            expect_equal(holes_of(memory), holes, what=f"turn {turn}: holes")
            rooms = [length for _, length in holes]
            expect_close(memory.call("external_fragmentation"), 1 - max(rooms) / sum(rooms) if rooms else 0.0, 1e-9,
                         what=f"turn {turn}: external fragmentation, holes {holes}")


@check("contiguous")
def to_the_last_slot(student):
    """A run as large as the memory; a second memory knows nothing of it."""
    memory, other = student.new("ContiguousMemory", 8), student.new("ContiguousMemory", 3)
    expect_equal([memory.call("allocate", 9), memory.call("allocate", 8), memory.call("allocate", 1)], [None, 0, None],
                 what="runs of 9, 8 and 1 slots in 8 slots")
    memory.call("free", 0)
    expect_equal([holes_of(memory), holes_of(other)], [[(0, 8)], [(0, 3)]], what="holes of both memories")
    expect_equal(memory.call("compact"), [], what="moves in an empty memory")


@check("contiguous")
def whole_blocks_and_one_instance(student):
    """Exactly full blocks, one token more, a single instance."""
    cases = [(64, [4], "fits"), (65, [4], "no"), (65, [4, 1], "only in sum"), (1, [0, 1, 0], "fits"), (1, [0, 0], "no"),
             (48, [1, 1, 1], "only in sum")]
    for tokens, free, want in cases:
        expect_equal(student.call("fits_where", tokens, free, 16), want,
                     what=f"{tokens} tokens in blocks of 16, free blocks {free}")


# %% key="runs-m1" role="mutant" exercise="contiguous" name="holes are not merged on free"
class ContiguousMemory(ContiguousMemory):
    def __init__(self, size):
        super().__init__(size)
        self.gaps = [(0, size)]

    def holes(self):
        return sorted(gap for gap in self.gaps if gap[1])

    def allocate(self, length):
        start = super().allocate(length)
        if start is not None:
            gap = next(gap for gap in self.gaps if gap[0] == start)
            self.gaps.remove(gap)
            self.gaps.append((start + length, gap[1] - length))
        return start

    def free(self, start):
        self.gaps.append((start, self.runs[start]))
        super().free(start)

    def compact(self):
        moves, used = super().compact(), sum(self.runs.values())
        self.gaps = [(used, self.size - used)]
        return moves


# %% key="runs-m2" role="mutant" exercise="contiguous" name="merges only with the hole behind"
class ContiguousMemory(ContiguousMemory):
    def __init__(self, size):
        super().__init__(size)
        self.gaps = {0: size}

    def holes(self):
        return sorted(self.gaps.items())

    def allocate(self, length):
        start = super().allocate(length)
        if start is not None:
            room = self.gaps.pop(start) - length
            self.gaps.update({start + length: room} if room else {})
        return start

    def free(self, start):
        length = self.runs[start]
        self.gaps[start] = length + self.gaps.pop(start + length, 0)
        super().free(start)

    def compact(self):
        moves, used = super().compact(), sum(self.runs.values())
        self.gaps = {used: self.size - used} if used < self.size else {}
        return moves


# %% key="runs-m3" role="mutant" exercise="contiguous" name="enough free slots are enough, in however many holes"
class ContiguousMemory(ContiguousMemory):
    def allocate(self, length):
        holes = self.holes()
        if sum(room for _, room in holes) < length:
            return None
        start = super().allocate(length)
        if start is None:
            start = max(holes, key=lambda hole: hole[1])[0]
            self.runs[start] = length
        return start


# %% key="runs-m4" role="mutant" exercise="contiguous" name="last fit"
class ContiguousMemory(ContiguousMemory):
    def allocate(self, length):
        for start, room in reversed(self.holes()):
            if room >= length:
                self.runs[start] = length
                return start
        return None


# %% key="runs-m5" role="mutant" exercise="contiguous" name="best fit instead of first fit"
class ContiguousMemory(ContiguousMemory):
    def allocate(self, length):
        fitting = [(room, start) for start, room in self.holes() if room >= length]
        if not fitting:
            return None
        self.runs[min(fitting)[1]] = length
        return min(fitting)[1]


# %% key="runs-m6" role="mutant" exercise="contiguous" name="a hole that fits exactly is too small"
class ContiguousMemory(ContiguousMemory):
    def allocate(self, length):
        for start, room in self.holes():
            if room > length:
                self.runs[start] = length
                return start
        return None


# %% key="runs-m7" role="mutant" exercise="contiguous" name="the last slot is never used"
class ContiguousMemory(ContiguousMemory):
    def allocate(self, length):
        for start, room in self.holes():
            if room >= length and start + length < self.size:
                self.runs[start] = length
                return start
        return None


# %% key="runs-m8" role="mutant" exercise="contiguous" name="fragmentation as a share of all slots"
class ContiguousMemory(ContiguousMemory):
    def external_fragmentation(self):
        rooms = [length for _, length in self.holes()]
        return (sum(rooms) - max(rooms, default=0)) / self.size


# %% key="runs-m9" role="mutant" exercise="contiguous" name="full memory is taken for fragmented"
class ContiguousMemory(ContiguousMemory):
    def external_fragmentation(self):
        return super().external_fragmentation() if self.holes() else 1.0


# %% key="runs-m10" role="mutant" exercise="contiguous" name="compaction forgets that runs have new starts"
class ContiguousMemory(ContiguousMemory):
    def compact(self):
        runs = self.runs
        moves = super().compact()
        self.runs = runs
        return moves


# %% key="runs-m11" role="mutant" exercise="contiguous" name="blocks of several instances taken together"
def fits_where(num_tokens, free_blocks, block_size):
    return "fits" if sum(free_blocks) >= -(-num_tokens // block_size) else "no"


# %% key="runs-m12" role="mutant" exercise="contiguous" name="a block partly filled is not counted"
def fits_where(num_tokens, free_blocks, block_size):
    needed = num_tokens // block_size
    if max(free_blocks) >= needed:
        return "fits"
    return "only in sum" if sum(free_blocks) >= needed else "no"


# %% [markdown] key="pool" lang="en" role="exercise" exercise="sharing" points=6 difficulty=4 minutes=45 needs="week 6, part 4"
# ## Exercise 2 · A block pool that shares
#
# Memory is cut into `num_blocks` equal blocks of `block_size` token slots, numbered from 0. Every *owner* (any name) has a
# table: the blocks that hold its tokens, in token order. Token 0 stands in the first slot of the first block of the table, and
# so on; only the last block may be partly filled. Write the class:
#
# - `allocate(owner, num_tokens)`: open a table for a new owner, with as many blocks as its tokens fill, and no more. Any free
#   blocks will do.
# - `share(owner, source, num_tokens)`: open a table for a new owner on the first `num_tokens` tokens of the owner `source`.
#   Nothing is copied and no block is taken: from now on both tables name these blocks. The last of them may hold tokens of
#   `source` that the new owner has nothing to do with.
# - `append(owner, num_tokens)`: room for so many more tokens. They go into the slots behind those the owner has; new blocks are
#   taken when these are used up, not before. The engine writes into the slots afterwards, so: if the **next slot** (that of the
#   first new token) lies in a block that another table names too, the owner first gets a block of its own in place of it (*copy
#   on write*). Returns the list of copies to be made, `[(source block, destination block)]` or `[]`.
# - `free(owner)`: its table is closed. A block that another table still names stays. Returns a list of the blocks that are free
#   now.
# - `table(owner)`: a list of its blocks. `num_free()`: how many blocks are in no table.
#
# `num_tokens` is at least 1, in `share` at most what `source` has. `allocate` and `share` return nothing. `allocate` and `append`
# raise `OutOfBlocks("…")` (imported above) when there are not enough free blocks, and then **nothing** has changed: the engine
# preempts somebody and asks again. An owner that could not be allocated has no table, and may be allocated later.
#
# Your pool runs under the course's engine, which writes several answers to one prompt (`SamplingParams(n=3)`): they share the
# prompt's blocks.

# %% [markdown] key="pool-help-count" lang="en" role="help" exercise="sharing" title="How do I know that a block is shared?"
# Keep a **reference count** for each block: how many tables name it. `allocate` sets it to 1, `share` raises it, `free` lowers
# it; the block is free when it falls to 0. A copy lowers the count of the old block too: one table less names it.

# %% [markdown] key="pool-help-which" lang="en" role="help" exercise="sharing" title="Which blocks must be copied on write?"
# At most one. Tokens are only ever added at the end, so full blocks never change and can be shared for ever. Only the last
# block of a table can be partly filled, and only if it is (`length % block_size != 0`) does the next token go into it. If it is
# full, the next token goes into a new block.

# %% [markdown] key="pool-help-atomic" lang="en" role="help" exercise="sharing" title="The check says that something has changed although OutOfBlocks was raised"
# Count first, take afterwards: how many blocks will it need in all, the copy included? Raise before you touch anything.

# %% [markdown] key="pool-help-output" lang="en" role="help" exercise="sharing" title="The tokens of a request are wrong"
# The mock's next token is a hash of everything that it reads back through the request's table. So somebody has written into a
# block of that table: a block that was free although a table named it, or a shared block that was not copied.

# %% [markdown] key="pool-help-try" lang="en" role="help" exercise="sharing" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# pool = SharingPool(8, 16)
# pool.allocate("A", 35)                                 # three blocks
# pool.share("B", "A", 34)                               # the same three blocks
# pool.num_free()                                        # 5
# pool.append("B", 1), pool.append("A", 1)               # ([(2, 3)], []), if A had the blocks 0, 1, 2 and 3 was free
# pool.free("A")                                         # [2]: the others are still B's
#
# engine = Engine(SeededMock(16), UsesPool(SharingPool(64, 16), 64, 16), clock=VirtualClock())
# engine.generate([[1] * 20, [2] * 30], SamplingParams(n=3))
# engine.counters.copied_blocks, engine.counters.forked_tokens
# ```

# %% key="pool-answer" role="answer" exercise="sharing"
class SharingPool:
    """Equal blocks, a table for each owner, reference counts, copy on write."""

    def __init__(self, num_blocks, block_size):
        """All blocks are free."""
        ### BEGIN SOLUTION
        self.num_blocks, self.block_size = num_blocks, block_size
        self.spare = list(range(num_blocks))[::-1]
        self.references = [0] * num_blocks
        self.tables, self.lengths = {}, {}
        ### END SOLUTION

    def num_free(self):
        """Blocks that no table names."""
        ### BEGIN SOLUTION
        return len(self.spare)
        ### END SOLUTION

    def table(self, owner):
        """The owner's blocks in token order."""
        ### BEGIN SOLUTION
        return list(self.tables[owner])
        ### END SOLUTION

    def allocate(self, owner, num_tokens):
        """A table for a new owner."""
        ### BEGIN SOLUTION
        self.tables[owner] = self.take(self.blocks_for(num_tokens))
        self.lengths[owner] = num_tokens
        ### END SOLUTION

    def share(self, owner, source, num_tokens):
        """A table for a new owner on the first tokens of another."""
        ### BEGIN SOLUTION
        self.tables[owner] = self.tables[source][:self.blocks_for(num_tokens)]
        self.lengths[owner] = num_tokens
        for block in self.tables[owner]:
            self.references[block] += 1
        ### END SOLUTION

    def append(self, owner, num_tokens):
        """Room for more tokens; the copies to make before they are written."""
        ### BEGIN SOLUTION
        table, length = self.tables[owner], self.lengths[owner]
        must_copy = length % self.block_size != 0 and self.references[table[-1]] > 1
        new = self.take(self.blocks_for(length + num_tokens) - len(table) + must_copy)
        copies = []
        if must_copy:
            copies = [(table[-1], new[0])]
            self.references[table[-1]] -= 1
            table[-1] = new.pop(0)
        table += new
        self.lengths[owner] = length + num_tokens
        return copies
        ### END SOLUTION

    def free(self, owner):
        """Close a table; the blocks that are free now."""
        ### BEGIN SOLUTION
        released = []
        for block in self.tables.pop(owner):
            self.references[block] -= 1
            if self.references[block] == 0:
                released.append(block)
        self.spare += released
        del self.lengths[owner]
        return released

    def blocks_for(self, num_tokens):
        """Blocks that so many tokens fill."""
        return -(-num_tokens // self.block_size)

    def take(self, count):
        """So many free blocks, or OutOfBlocks."""
        if count > len(self.spare):
            raise OutOfBlocks(f"{count} blocks are needed, {len(self.spare)} are free")
        taken = [self.spare.pop() for _ in range(count)]
        for block in taken:
            self.references[block] = 1
        return taken
        ### END SOLUTION


# %% key="pool-check" role="check" exercise="sharing"
class Beside:
    """Your pool beside one that is known to be right: both get the same calls, and then they are compared."""

    def __init__(self, student, num_blocks, block_size):
        self.yours, self.right = student.new("SharingPool", num_blocks, block_size), BlockPool(num_blocks, block_size)
        self.story, self.before, self.caller = [], {}, None

    def tell(self):
        """The last calls, for messages."""
        return "after " + ", ".join(self.story[-6:])

    def tables(self):
        """Your tables."""
        tables = {owner: self.yours.call("table", owner) for owner in self.right.tables}
        for owner, table in tables.items():
            good = type(table) is list and all(type(block) is int and 0 <= block < self.right.num_blocks for block in table)
            expect_true(good, f"table returns a list of blocks, numbers from 0 to {self.right.num_blocks - 1}; that of "
                        f"{owner} was {table!r}")
        self.yours.student.last = ""                      # messages tell the story instead
        return tables

    def both(self, method, *arguments):
        """Make a call of both; yours must answer, or raise OutOfBlocks, as the other does. Returns both answers."""
        self.story.append(f"{method}({', '.join(map(repr, arguments))})")
        free, self.before, self.caller = self.right.num_free, self.tables(), arguments[0]
        try:
            want = getattr(self.right, method)(*arguments)
        except OutOfBlocks:
            want = OutOfBlocks
        try:
            got = self.yours.call(method, *arguments)
        except StudentError as error:
            if "OutOfBlocks" not in error.kinds:
                raise
            got = OutOfBlocks
        self.yours.student.last = ""
        expect_true(got is OutOfBlocks or want is not OutOfBlocks, f"{self.tell()}: OutOfBlocks should be raised. {free} "
                    "blocks are free: they do not suffice (a copy takes a block, too)")
        expect_true(got is not OutOfBlocks or want is OutOfBlocks, f"{self.tell()}: OutOfBlocks was raised, but {free} "
                    f"blocks are free, and it takes {free - self.right.num_free} of them")
        return got, want

    def compare(self, changed=True, kept=0):
        """Tables as long, shared in the same places, and as many free blocks as in the pool that is right.

        `kept`: blocks that were in the table just closed, and are in others.
        """
        free, tables = self.yours.call("num_free"), self.tables()
        if not changed:
            count_first = "count first how many blocks it takes in all, the copy included; raise before anything is touched"
            expect_equal(tables, self.before, what=f"{self.tell()}: OutOfBlocks was raised, so the tables stay as they were",
                         hints=[(tables, count_first)])
            expect_equal(free, self.right.num_free, what=f"{self.tell()}: OutOfBlocks was raised, so num_free stays as it was",
                         hints=[(free, count_first)])
        for owner in set(self.before) & set(tables) - {self.caller}:
            expect_true(tables[owner] == self.before[owner], f"{self.tell()}: that has changed the table of {owner} too, from "
                        f"{self.before[owner]} to {tables[owner]}. Do two owners hold one and the same list?")
        for owner, table in self.right.tables.items():
            tokens, size = self.right.length(owner), self.right.block_size
            early = ". A block is taken when the first token goes into it, not before"
            early *= len(tables[owner]) == tokens // size + 1
            if self.story[-1].startswith("share("):
                early = ". share takes only the blocks of the first num_tokens tokens" * (len(tables[owner]) > len(table))
            expect_true(len(tables[owner]) == len(table), f"{self.tell()}: {owner} has {tokens} tokens, which fill {len(table)} "
                        f"blocks of {size}; its table is {tables[owner]}{early}")
        expect_true(named(tables) == named(self.right.tables), f"{self.tell()}: the tables should name shared blocks as "
                    f"these do: { {o: list(t) for o, t in self.right.tables.items()} } (the numbers may be others); yours "
                    f"are {tables}")
        expect_equal(free, self.right.num_free, what=f"{self.tell()}: num_free", hints=[
            (self.right.num_free + kept if kept else None, f"{kept} of the blocks are still named by another table: "
             "they are not free"),
            (self.right.num_blocks - sum(map(len, tables.values())), "a block that two tables name is one block, not two"),
            (self.right.num_free - 1, "a block is lost: no table names it, and it is not free. When a table gets a "
             "copy, one table less names the old block")])

    def allocate(self, owner, num_tokens):
        """Open a table in both."""
        _, want = self.both("allocate", owner, num_tokens)
        self.compare(changed=want is not OutOfBlocks)

    def share(self, owner, source, num_tokens):
        """Share in both."""
        self.both("share", owner, source, num_tokens)
        self.compare()

    def append(self, owner, num_tokens):
        """Append in both, and compare the copies."""
        got, want = self.both("append", owner, num_tokens)
        if want is OutOfBlocks:
            self.compare(changed=False)
            return
        got, before, after = pairs_of_blocks(got), self.before[owner], self.tables()[owner]
        expect_true(not want or bool(got), f"{self.tell()}: the next slot of {owner} lies in a block that another table "
                    "names too. What is written there, others would read: it takes a copy first")
        full = (self.right.length(owner) - num_tokens) % self.right.block_size == 0
        reason = (f"the last block of {owner} was full. Full blocks never change, the next token goes into a new one" if full else
                  "no other table names the block that the next token goes into. (If one did: a copy lowers the old block's count)")
        expect_true(bool(want) or not got, f"{self.tell()}: copies {got} are a waste: {reason}")
        self.compare()
        place = len(before) - 1
        expect_true(not want or got == [(before[place], after[place])], f"{self.tell()}: the copies were {got}; {owner}'s "
                    f"table was {before} and is {after}, so it is block {before[place]} that must be copied, into the "
                    "block that has taken its place")

    def free(self, owner):
        """Free in both, and compare what is released."""
        table = self.yours.call("table", owner)
        kept = sum(self.right.references(block) > 1 for block in self.right.table(owner))
        got, _ = self.both("free", owner)
        self.compare(kept=kept)
        rest = {block for table in self.tables().values() for block in table}
        expect_true(type(got) is list, f"{self.tell()}: free returns a list of the blocks that are free now; this was {got!r}")
        expect_true(not set(got) & rest, f"{self.tell()}: free returned {got}, but another table still names "
                    f"{sorted(set(got) & rest)}")
        expect_true(sorted(got) == sorted(set(table) - rest), f"{self.tell()}: free returned {got}; {owner} had the "
                    f"blocks {table}, and {sorted(set(table) - rest)} of them are free now")


def named(tables):
    """Tables with their blocks numbered as they come up: equal for two pools that share in the same places."""
    names = {}
    return {owner: [names.setdefault(block, len(names)) for block in tables[owner]] for owner in sorted(tables)}


@check("sharing")
def blocks_when_they_are_needed(student):
    """A table of 35 tokens has three blocks of 16 and gets a fourth with token 48, not with token 47."""
    pool = Beside(student, 8, 16)
    pool.allocate("A", 35)
    pool.append("A", 12)
    pool.append("A", 1)
    pool.append("A", 1)
    pool.allocate("B", 16)
    pool.append("B", 33)
    pool.free("A")
    pool.free("B")
    expect_equal(pool.yours.call("num_free"), 8, what="num_free when everybody is gone")


@check("sharing")
def copy_on_write(student):
    """B begins with A's first 34 tokens. Whoever writes first into the third block gets a copy, the other does not."""
    for first, second in (("A", "B"), ("B", "A")):
        pool = Beside(student, 8, 16)
        pool.allocate("A", 35)
        pool.share("B", "A", 34)
        pool.append(first, 1)
        pool.append(second, 1)
        pool.append(first, 20)
        pool.free("A")
        pool.append("B", 3)
        pool.free("B")


@check("sharing")
def full_blocks_are_never_copied(student):
    """B begins with A's first 32 tokens, two full blocks: nothing is ever copied, and A's going leaves B's blocks alone."""
    pool = Beside(student, 8, 16)
    pool.allocate("A", 40)
    pool.share("B", "A", 32)
    pool.append("B", 2)
    pool.append("A", 2)
    pool.free("A")
    pool.allocate("C", 60)
    pool.append("B", 2)
    pool.free("B")


@check("sharing")
def out_of_blocks(student):
    """A copy takes a block, too; and when there are too few, nothing has changed."""
    pool = Beside(student, 4, 4)
    pool.allocate("A", 10)
    pool.share("B", "A", 10)
    pool.allocate("C", 5)
    pool.append("B", 7)
    pool.append("B", 4)
    pool.append("B", 1)
    pool.append("A", 6)
    pool.allocate("C", 4)
    pool.append("B", 1)
    pool.append("A", 3)
    pool = Beside(student, 3, 4)
    pool.allocate("A", 10)
    pool.share("B", "A", 10)
    pool.append("B", 1)


def with_and_without_sharing(student, executor, num_blocks, block_size, prompts, sampling, **options):
    """Serve the prompts on the student's pool, then every answer by itself on a large pool where nobody shares; both engines.

    `executor()` makes an executor for as many blocks as it is told.
    """
    pool = UsesPool(Through(student.new("SharingPool", num_blocks, block_size)), num_blocks, block_size)
    options = {"token_budget": 128, "max_running": 16, "clock": VirtualClock(), "checked": True} | options
    engine = Engine(executor(num_blocks), pool, **options)
    for prompt in prompts:
        engine.add(Request(prompt, sampling))
    run(engine)
    expect_equal(pool.num_free, num_blocks, what="num_free when all requests are done")
    alone = Engine(executor(1024), BlockPool(1024, block_size), clock=VirtualClock())
    for name, request in engine.requests.items():
        alone.add(Request(request.prompt, replace(request.sampling, n=1), id=name))
        run(alone)
    for name, request in engine.requests.items():
        expect_equal(request.output, alone.requests[name].output,
                     what=f"new tokens of {name}, one of {sampling.n} answers that share the blocks of their prompt")
    return engine


def prompts_of(*sizes):
    """Prompts of so many tokens."""
    return [[(7 * number + k) % 60 + 1 for k in range(size)] for number, size in enumerate(sizes)]


@check("sharing")
def under_the_engine(student):
    """Three prompts, four answers to each, in the engine: every answer as when it is alone, and few blocks are copied."""
    sampling = SamplingParams(max_tokens=20, ignore_eos=True, n=4)
    engine = with_and_without_sharing(student, lambda blocks: SeededMock(8), 96, 8, prompts_of(21, 32, 7), sampling)
    expect_true(engine.counters.forked_tokens > 0, "this check is about sharing, and nothing was shared")
    expect_true(engine.counters.copied_blocks <= 9, f"{engine.counters.copied_blocks} blocks were copied: three of four answers "
                "need a copy of the last block of their prompt, and no more")


@check("sharing")
def on_the_real_model(student):
    """course-tiny: three answers to each of two questions, word for word what it says when nobody shares."""
    model, tokenizer = load_model("course-tiny", device="cpu")
    prompts = [tokenizer.encode_prompt(text) for text in ("Count from 3 to 9.", "What is the largest of 9, 14, 54?")]
    sampling = SamplingParams(max_tokens=16, ignore_eos=True, n=3, temperature=3.0, seed=7)
    engine = with_and_without_sharing(student, lambda blocks: TorchExecutor(model, blocks, 8), 48, 8, prompts, sampling)
    answers = {tuple(request.output) for request in engine.requests.values()}
    expect_true(len(answers) == 6, f"this check is about six different answers, and there were {len(answers)}")


# %% key="pool-hidden" role="hidden" exercise="sharing"
@check("sharing")
def a_long_story(student):
    """Many owners come, share, grow and go, in pools of other sizes that run out of blocks now and then."""
    for seed, num_blocks, block_size in ((1, 12, 4), (2, 20, 1), (3, 9, 7)):
        rng, pool = random.Random(seed), Beside(student, num_blocks, block_size)
        for number in range(70):
            owners = sorted(pool.right.tables)
            kind = rng.choice(["allocate", "share", "share", "append", "append", "append", "free"])
            if kind == "allocate" or not owners:
                pool.allocate(f"o{number:02}", rng.randint(1, 3 * block_size))
                continue
            owner = rng.choice(owners)
            if kind == "share":
                pool.share(f"o{number:02}", owner, rng.randint(1, pool.right.length(owner)))
            elif kind == "append":
                pool.append(owner, rng.randint(1, block_size + 1))
            else:
                pool.free(owner)


@check("sharing")
def three_readers_of_one_block(student):
    """Three owners in one block: the first two who write get copies, the last keeps it; and whoever shares a copy shares that."""
    pool = Beside(student, 10, 4)
    pool.allocate("A", 3)
    pool.share("B", "A", 3)
    pool.share("C", "B", 2)
    pool.append("B", 1)
    pool.share("D", "B", 4)
    pool.append("C", 1)
    pool.append("A", 1)
    pool.free("A")
    pool.append("D", 1)
    pool.free("B")
    pool.free("D")
    pool.append("C", 9)


@check("sharing")
def a_pool_that_is_too_small(student):
    """Under the engine with too few blocks: answers are preempted, come back, share again, and are as when alone."""
    sampling = SamplingParams(max_tokens=24, ignore_eos=True, n=3)
    engine = with_and_without_sharing(student, lambda blocks: SeededMock(4), 26, 4, prompts_of(13, 16, 9), sampling)
    expect_true(engine.counters.preemptions > 0, "this check is about too few blocks, and nobody was preempted")


# %% key="pool-m1" role="mutant" exercise="sharing" name="frees blocks that are still shared"
class SharingPool(SharingPool):
    def free(self, owner):
        table = self.tables.pop(owner)
        self.spare += table
        return table


# %% key="pool-m2" role="mutant" exercise="sharing" name="last partial block shared without copying"
class SharingPool(SharingPool):
    def append(self, owner, num_tokens):
        table, length = self.tables[owner], self.lengths[owner]
        table += self.take(self.blocks_for(length + num_tokens) - len(table))
        self.lengths[owner] = length + num_tokens
        return []


# %% key="pool-m3" role="mutant" exercise="sharing" name="copies although nobody else names the block any more"
class SharingPool(SharingPool):
    def __init__(self, num_blocks, block_size):
        super().__init__(num_blocks, block_size)
        self.once_shared = set()

    def share(self, owner, source, num_tokens):
        super().share(owner, source, num_tokens)
        self.once_shared |= set(self.tables[owner])

    def append(self, owner, num_tokens):
        table = self.tables[owner]
        if self.lengths[owner] % self.block_size and table[-1] in self.once_shared and self.references[table[-1]] == 1:
            old, table[-1] = table[-1], self.take(1)[0]
            self.once_shared.discard(old)
            self.references[old] = 0
            self.spare.append(old)
            super().append(owner, num_tokens)
            return [(old, table[len(table) - 1])]
        return super().append(owner, num_tokens)


# %% key="pool-m4" role="mutant" exercise="sharing" name="takes the next block as soon as the last is full"
class SharingPool(SharingPool):
    def blocks_for(self, num_tokens):
        return num_tokens // self.block_size + 1


# %% key="pool-m5" role="mutant" exercise="sharing" name="takes a block one token too late"
class SharingPool(SharingPool):
    def append(self, owner, num_tokens):
        length = self.lengths[owner]
        if length and length % self.block_size == 0 and num_tokens == 1:
            self.lengths[owner] += 1
            return []
        return super().append(owner, num_tokens)


# %% key="pool-m6" role="mutant" exercise="sharing" name="num_free counts a shared block once for each owner"
class SharingPool(SharingPool):
    def num_free(self):
        return self.num_blocks - sum(len(table) for table in self.tables.values())


# %% key="pool-m7" role="mutant" exercise="sharing" name="free returns the whole table, shared blocks too"
class SharingPool(SharingPool):
    def free(self, owner):
        table = self.table(owner)
        super().free(owner)
        return table


# %% key="pool-m8" role="mutant" exercise="sharing" name="shares nothing: new blocks with nothing in them"
class SharingPool(SharingPool):
    def share(self, owner, source, num_tokens):
        self.allocate(owner, num_tokens)


# %% key="pool-m9" role="mutant" exercise="sharing" name="a copy leaves the old block's count as it was"
class SharingPool(SharingPool):
    def append(self, owner, num_tokens):
        copies = super().append(owner, num_tokens)
        for old, _ in copies:
            self.references[old] += 1
        return copies


# %% key="pool-m10" role="mutant" exercise="sharing" name="copies everything that is shared, full blocks too"
class SharingPool(SharingPool):
    def append(self, owner, num_tokens):
        table = self.tables[owner]
        shared = [place for place, block in enumerate(table) if self.references[block] > 1]
        new = self.take(self.blocks_for(self.lengths[owner] + num_tokens) - len(table) + len(shared))
        copies = []
        for place in shared:
            copies.append((table[place], new[0]))
            self.references[table[place]] -= 1
            table[place] = new.pop(0)
        table += new
        self.lengths[owner] += num_tokens
        return copies


# %% key="pool-m11" role="mutant" exercise="sharing" name="takes blocks one by one, and keeps them when they run out"
class SharingPool(SharingPool):
    def append(self, owner, num_tokens):
        copies = []
        for _ in range(num_tokens):
            copies += super().append(owner, 1)
        return copies


# %% key="pool-m12" role="mutant" exercise="sharing" name="makes the copy first, and then finds too few blocks"
class SharingPool(SharingPool):
    def append(self, owner, num_tokens):
        copies = []
        table = self.tables[owner]
        if self.lengths[owner] % self.block_size and self.references[table[-1]] > 1:
            copies = [(table[-1], self.take(1)[0])]
            self.references[table[-1]] -= 1
            table[-1] = copies[0][1]
        return copies + super().append(owner, num_tokens)


# %% key="pool-m13" role="mutant" exercise="sharing" name="shares only the full blocks"
class SharingPool(SharingPool):
    def share(self, owner, source, num_tokens):
        super().share(owner, source, num_tokens // self.block_size * self.block_size)


# %% key="pool-m14" role="mutant" exercise="sharing" name="both owners hold one and the same list"
class SharingPool(SharingPool):
    def share(self, owner, source, num_tokens):
        super().share(owner, source, num_tokens)
        if self.tables[owner] == self.tables[source]:
            self.tables[owner] = self.tables[source]


# %% key="pool-m15" role="mutant" exercise="sharing" name="looks at where the new tokens end, not at where they begin"
class SharingPool(SharingPool):
    def append(self, owner, num_tokens):
        length = self.lengths[owner]
        if (length + num_tokens) % self.block_size == 0 or length % self.block_size + num_tokens > self.block_size:
            self.tables[owner] += self.take(self.blocks_for(length + num_tokens) - len(self.tables[owner]))
            self.lengths[owner] += num_tokens
            return []
        return super().append(owner, num_tokens)


# %% key="pool-m16" role="mutant" exercise="sharing" name="takes the new blocks first, and then finds none for the copy"
class SharingPool(SharingPool):
    def append(self, owner, num_tokens):
        table, length = self.tables[owner], self.lengths[owner]
        new, copies = self.take(self.blocks_for(length + num_tokens) - len(table)), []
        if length % self.block_size and self.references[table[-1]] > 1:
            copies = [(table[-1], self.take(1)[0])]
            self.references[table[-1]] -= 1
            table[-1] = copies[0][1]
        table += new
        self.lengths[owner] += num_tokens
        return copies


# %% key="pool-m17" role="mutant" exercise="sharing" name="shares the source's whole table"
class SharingPool(SharingPool):
    def share(self, owner, source, num_tokens):
        super().share(owner, source, self.lengths[source])
        self.lengths[owner] = num_tokens


# %% [markdown] key="paged" lang="en" role="exercise" exercise="paged_attention" points=5 difficulty=3 minutes=30 needs="week 6, part 3"
# ## Exercise 3 · Attention through a block table
#
# Where the blocks lie is nobody's business but attention's. For one layer, `keys` and `values` are tensors of shape
# `(num_blocks, block_size, kv_heads, head_dim)`: what is in all the blocks, of all requests. A request's `table` (a list of
# blocks) says where its own are: token number p stands in block `table[p // block_size]`, at place `p % block_size`. Slots that
# hold no token of the request may hold anything.
#
# A step computes `count` new tokens of a request, numbers `start` to `start + count - 1`. Write the class:
#
# - `write(k, v, table, start, count)`: put the new tokens' keys and values where they belong. `k` and `v` are of shape `(rows,
#   kv_heads, head_dim)`. Row i belongs to token `start + i`; rows from `count` on are padding (a GPU likes shapes that do not
#   change) and are written nowhere.
# - `attend(q, table, start, count)`: after the write. `q` is of shape `(rows, heads, head_dim)`, padded in the same way. Each
#   new token looks at the request's tokens from 0 up to **and including itself**: softmax of the scores q·k / √head_dim, then
#   the weighted sum of the values. Returns a tensor `(count, heads, head_dim)`.
#
# Heads are grouped (GQA): with 6 heads and 2 KV heads, heads 0, 1 and 2 read KV head 0, and heads 3, 4 and 5 read KV head 1.
# The table may be longer than the request's tokens need.
#
# The result must be what dense attention says on keys and values that lie in one piece.

# %% [markdown] key="paged-help-index" lang="en" role="help" exercise="paged_attention" title="How do I get at many slots at once?"
# With two index tensors of the same length, one of blocks and one of places: `keys[blocks, places]` is of shape `(n, kv_heads,
# head_dim)`, and `keys[blocks, places] = …` writes. For tokens a to b - 1: `positions = torch.arange(a, b)`, `blocks =
# torch.tensor(table)[positions // block_size]`.

# %% [markdown] key="paged-help-mask" lang="en" role="help" exercise="paged_attention" title="Does a single new token need a mask?"
# It looks at everything up to itself, so it needs none, **if** you gather exactly `start + count` tokens. If you gather whole
# blocks, the last one holds slots that nobody has written for this request, and a softmax leaves nothing out by itself.

# %% [markdown] key="paged-help-nan" lang="en" role="help" exercise="paged_attention" title="The check finds NaN"
# A softmax over nothing but -inf. Some token looks at nothing, not even at itself: row i of the new tokens may look at tokens
# `0 … start + i`.

# %% [markdown] key="paged-help-try" lang="en" role="help" exercise="paged_attention" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# store = PagedStore(torch.zeros(8, 4, 2, 16), torch.zeros(8, 4, 2, 16))       # 8 blocks of 4 slots, 2 KV heads
# k, v, q = torch.randn(3, 2, 16), torch.randn(3, 2, 16), torch.randn(3, 6, 16)
# store.write(k, v, [5, 2], 0, 3)
# store.attend(q, [5, 2], 0, 3)[0, :3] - v[0, 0]         # zeros: token 0 sees only itself
# ```

# %% key="paged-answer" role="answer" exercise="paged_attention"
class PagedStore:
    """One layer's keys and values in blocks, and attention over them."""

    def __init__(self, keys, values):
        """Keep the two tensors (num_blocks, block_size, kv_heads, head_dim) as `self.keys` and `self.values`."""
        self.keys, self.values = keys, values

    def write(self, k, v, table, start, count):
        """Put `count` new tokens' k and v (rows, kv_heads, head_dim) into their slots."""
        ### BEGIN SOLUTION
        blocks, places = self.slots(table, start, start + count)
        self.keys[blocks, places] = k[:count]
        self.values[blocks, places] = v[:count]
        ### END SOLUTION

    def attend(self, q, table, start, count):
        """Attention of the new tokens' q (rows, heads, head_dim) over the request's tokens: (count, heads, head_dim)."""
        ### BEGIN SOLUTION
        blocks, places = self.slots(table, 0, start + count)
        group = q.shape[1] // self.keys.shape[2]
        keys = self.keys[blocks, places].repeat_interleave(group, dim=1)          # (tokens, heads, head_dim)
        values = self.values[blocks, places].repeat_interleave(group, dim=1)
        scores = torch.einsum("qhd,khd->hqk", q[:count], keys) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~self.mask(start, count), float("-inf"))
        return torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), values)

    def mask(self, start, count):
        """True where a new token may look: (count, start + count)."""
        return torch.arange(start + count)[None, :] <= torch.arange(start, start + count)[:, None]

    def slots(self, table, first, end):
        """Block and place of the tokens `first` to `end - 1`."""
        size = self.keys.shape[1]
        positions = torch.arange(first, end)
        return torch.tensor(table)[positions // size], positions % size
        ### END SOLUTION


# %% key="paged-check" role="check" exercise="paged_attention"
class Layer:
    """A layer on the student's side with noise in every slot, and what should be in it."""

    def __init__(self, student, num_blocks, block_size, kv_heads=2, heads=6, head_dim=8, seed=0):
        self.noise = torch.Generator().manual_seed(seed)
        self.block_size, self.heads, self.kv = block_size, heads, (kv_heads, head_dim)
        self.keys = 30 * self.draw(num_blocks, block_size, *self.kv)
        self.values = 30 * self.draw(num_blocks, block_size, *self.kv)
        self.store = student.new("PagedStore", self.keys, self.values)
        self.past = {}                                    # of every request: its k and v so far, in one piece

    def draw(self, *shape):
        """Random numbers."""
        return torch.randn(*shape, generator=self.noise)

    def step(self, name, table, count, padding=0):
        """One step of a request: write, see that nothing else was touched, attend; its q and the student's answer."""
        rows = count + padding
        k, v, q = self.draw(rows, *self.kv), self.draw(rows, *self.kv), self.draw(rows, self.heads, self.kv[1])
        past_k, past_v = self.past.get(name, (k[:0], v[:0]))
        start = len(past_k)
        self.past[name] = torch.cat([past_k, k[:count]]), torch.cat([past_v, v[:count]])
        for i in range(count):
            block, place = table[(start + i) // self.block_size], (start + i) % self.block_size
            self.keys[block, place], self.values[block, place] = k[i], v[i]
        self.store.call("write", k, v, table, start, count)
        for what, want in (("keys", self.keys), ("values", self.values)):
            self.compare_store(what, self.store.get(what), want, f"{name}, tokens {start} to {start + count - 1}, table {table}")
        got = self.store.call("attend", q, table, start, count)
        self.compare(got, q[:count], name, f"attention of {name}, tokens {start} to {start + count - 1}, table {table}", table)

    def compare_store(self, what, got, want, where):
        """The student's store is as it should be; else say which slot is not, and whose it is."""
        expect_true(isinstance(got, torch.Tensor) and got.shape == want.shape,
                    f"self.{what} should still be the tensor of all blocks")
        wrong = (got != want).flatten(2).any(-1)
        if wrong.any():
            block, place = wrong.nonzero()[0].tolist()
            raise CheckFailed(f"after write ({where}): place {place} of block {block} of self.{what} is not as it should "
                              f"be ({int(wrong.sum())} slots are wrong). Each new token has one slot: table[p // "
                              "block_size], p % block_size; no other is touched, rows of padding are written nowhere")

    def compare(self, got, q, name, what, table):
        """The student's attention is dense attention over the request's past."""
        k, v = self.past[name]
        want = dense(q, k, v, len(k) - len(q))
        expect_close(got, want, 1e-4, what=what, hints=self.mistakes(q, k, v, want, table))

    def mistakes(self, q, k, v, want, table):
        """What known mistakes make of it, and what to say about them."""
        start, end = len(k) - len(q), len(k)
        yield dense(q, k, v, start, swapped=True), ("query heads read the wrong KV heads: heads 0, 1 and 2 read KV head 0 "
                                                    "(repeat_interleave, not repeat)")
        yield dense(q, k, v, start, scale=1.0), "the scores are divided by the square root of head_dim"
        yield dense(q, k, v, start - 1), "a new token does not see itself"
        yield dense(q, k, v, end), "a new token sees tokens that come after it"
        yield dense(q, k, v, 0), "row 0 of q is token `start`, not token 0: it sees all that came before"
        yield dense(q, k[start:], v[start:], 0), "a new token also sees what was written in earlier steps"
        yield dense(q, k, v, start, over=0), "softmax over the heads: each head's weights sum to 1 over the **tokens**"
        yield want.transpose(0, 1).reshape(want.shape), "are the heads first? The result is (count, heads, head_dim)"
        used = table[:-(-end // self.block_size)]
        places = ((used, "slots that hold no token of the request were read"),
                  (table, "slots that hold no token of the request were read"),
                  (sorted(used), "the blocks come in the order of the table, not in that of memory"),
                  (range(len(used)), "the table says where the keys and values are; these were read from the first blocks"))
        for blocks, hint in places:
            keys, values = (each[list(blocks)].flatten(0, 1) for each in (self.keys, self.values))
            yield dense(q, keys[:end], values[:end], start), hint
            yield dense(q, keys, values, len(keys)), hint
            for size in (end, len(keys)):
                yield (dense(q, keys[:size], values[:size], start, unseen=0.0),
                       "a score of 0 is not invisible: use -inf before the softmax")


def dense(q, k, v, start, scale=None, swapped=False, over=-1, unseen=float("-inf")):
    """Attention on tensors in one piece: q (n, heads, d) are tokens `start` and on, k and v (tokens, kv_heads, d)."""
    group = q.shape[1] // k.shape[1]
    widen = (lambda x: x.repeat(1, group, 1)) if swapped else (lambda x: x.repeat_interleave(group, dim=1))
    scores = torch.einsum("qhd,khd->hqk", q, widen(k)) / (q.shape[2] ** 0.5 if scale is None else scale)
    sees = torch.arange(len(k))[None, :] <= start + torch.arange(len(q))[:, None]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~sees, unseen).softmax(over), widen(v))


@check("paged_attention")
def a_prompt_then_token_by_token(student):
    """A prompt of six tokens in blocks 5 and 2, then single tokens into 2 and 7. All other slots hold noise."""
    layer = Layer(student, 8, 4)
    layer.step("A", [5, 2], 6)
    for _ in range(2):
        layer.step("A", [5, 2], 1)
    for _ in range(2):
        layer.step("A", [5, 2, 7], 1)


@check("paged_attention")
def two_requests_side_by_side(student):
    """Two requests whose blocks lie crosswise; each sees its own tokens only."""
    layer = Layer(student, 8, 4, seed=1)
    layer.step("A", [6, 3], 5)
    layer.step("B", [0, 7, 1], 9)
    layer.step("A", [6, 3, 2], 4)
    layer.step("B", [0, 7, 1], 1)
    layer.step("A", [6, 3, 2], 1)


@check("paged_attention")
def padding_is_written_nowhere(student):
    """Rows beyond `count` are padding: they belong in no block, least of all in somebody else's."""
    layer = Layer(student, 6, 4, seed=2)
    layer.step("A", [0, 4], 8)
    layer.step("B", [3, 1], 3, padding=5)
    layer.step("B", [3, 1], 1, padding=7)
    layer.step("A", [0, 4, 5], 1, padding=3)


class UsesStores:
    """The seam between a model and its KV cache (llmcourse/model/attention.py), asking one of your stores for each layer."""

    def __init__(self, stores, table):
        self.stores, self.table, self.start = stores, table, 0

    def positions(self, count):
        """Positions of the next tokens."""
        return torch.arange(self.start, self.start + count)

    def attend(self, layer, q, k, v):
        """Write and attend in this layer."""
        place = self.table, self.start, q.shape[1]
        self.stores[layer].call("write", k[0], v[0], *place)
        out = self.stores[layer].call("attend", q[0], *place)
        expect_true(isinstance(out, torch.Tensor) and out.shape == q[0].shape, f"attend returns a tensor (count, heads, head_dim), here "
                    f"{tuple(q[0].shape)}; this was {describe(out)}")
        return out[None]

    def advance(self, count):
        """All layers are done."""
        self.start += count


@check("paged_attention")
def the_real_model(student):
    """course-tiny on your attention: a prompt in two chunks and three tokens more, the logits as on dense attention."""
    model, tokenizer = load_model("course-tiny", device="cpu")
    config = model.config
    tokens = torch.tensor([tokenizer.encode_prompt("Count from 3 to 9.")])
    want = model(tokens)[0]
    shape = 12, 4, config.num_kv_heads, config.head_dim
    stores = [student.new("PagedStore", torch.full(shape, 9.0), torch.full(shape, 9.0)) for _ in range(config.num_layers)]
    attention = UsesStores(stores, random.Random(3).sample(range(12), -(-tokens.shape[1] // 4)))
    end, got = tokens.shape[1], []
    for a, b in ((0, 5), (5, end - 3), (end - 3, end - 2), (end - 2, end - 1), (end - 1, end)):
        got.append(model(tokens[:, a:b], attention)[0])
    student.last = ""                                     # one layer of several
    expect_close(torch.cat(got), want, 1e-3, what="logits of course-tiny, (tokens, vocabulary)")


# %% key="paged-hidden" role="hidden" exercise="paged_attention"
@check("paged_attention")
def other_shapes(student):
    """No groups, one group, blocks of one slot, a table that is longer than need be."""
    layer = Layer(student, 9, 1, kv_heads=3, heads=3, head_dim=5, seed=4)
    layer.step("A", [8, 0, 3, 2, 5], 3)
    layer.step("A", [8, 0, 3, 2, 5], 1)
    layer = Layer(student, 7, 5, kv_heads=1, heads=4, head_dim=6, seed=5)
    layer.step("A", [6, 1, 4], 1)
    layer.step("A", [6, 1, 4], 9, padding=1)
    layer.step("A", [6, 1, 4], 3)


@check("paged_attention")
def blocks_that_two_tables_name(student):
    """B shares A's first block, which is full; each goes on in blocks of its own."""
    layer = Layer(student, 8, 4, seed=6)
    layer.step("A", [5, 2], 6)
    layer.past["B"] = tuple(each[:4].clone() for each in layer.past["A"])
    layer.step("B", [5, 1], 3)
    layer.step("A", [5, 2], 1)
    layer.step("B", [5, 1], 1)


@check("paged_attention")
def long_chunks(student):
    """Chunks that begin in the middle of a block and end in the middle of another."""
    layer = Layer(student, 16, 4, kv_heads=2, heads=4, seed=7)
    table = random.Random(1).sample(range(16), 12)
    for count in (3, 10, 1, 17, 6, 1):
        layer.step("A", table, count, padding=count % 3)


# %% key="paged-m1" role="mutant" exercise="paged_attention" name="the unwritten slots of the last block are attended"
class PagedStore(PagedStore):
    def attend(self, q, table, start, count):
        if count > 1:
            return super().attend(q, table, start, count)
        whole = -(-(start + 1) // self.keys.shape[1]) * self.keys.shape[1]        # one new token sees all, so why mask?
        row = torch.cat([q[:1]] * (whole - start))
        return super().attend(row, table, start, whole - start)[-1:]


# %% key="paged-m2" role="mutant" exercise="paged_attention" name="padding is written too, into block 0 of the padded table"
class PagedStore(PagedStore):
    def write(self, k, v, table, start, count):
        super().write(k, v, [*table, *[0] * (len(k) + 1)], start, len(k))


# %% key="paged-m3" role="mutant" exercise="paged_attention" name="reads blocks in the order of memory, not of the table"
class PagedStore(PagedStore):
    def attend(self, q, table, start, count):
        used = -(-(start + count) // self.keys.shape[1])
        return super().attend(q, sorted(table[:used]), start, count)


# %% key="paged-m4" role="mutant" exercise="paged_attention" name="query heads take the KV heads in turn"
class PagedStore(PagedStore):
    def attend(self, q, table, start, count):
        kv_heads, heads = self.keys.shape[2], q.shape[1]
        order = [h for kv in range(kv_heads) for h in range(kv, heads, kv_heads)]
        out = super().attend(q[:, order], table, start, count)
        return out[:, sorted(range(heads), key=order.__getitem__)]


# %% key="paged-m5" role="mutant" exercise="paged_attention" name="a new token does not see itself"
class PagedStore(PagedStore):
    def mask(self, start, count):
        return torch.arange(start + count)[None, :] < torch.arange(start, start + count)[:, None]


# %% key="paged-m6" role="mutant" exercise="paged_attention" name="no mask among the new tokens"
class PagedStore(PagedStore):
    def mask(self, start, count):
        return torch.ones(count, start + count, dtype=torch.bool)


# %% key="paged-m7" role="mutant" exercise="paged_attention" name="the mask begins at token 0, not at start"
class PagedStore(PagedStore):
    def mask(self, start, count):
        return super().mask(0, start + count)[:count] if count > 1 else super().mask(start, count)


# %% key="paged-m8" role="mutant" exercise="paged_attention" name="every chunk begins with a new block"
class PagedStore(PagedStore):
    def write(self, k, v, table, start, count):
        size = self.keys.shape[1]
        super().write(k, v, [*table, *table], -(-start // size) * size, count)


# %% key="paged-m9" role="mutant" exercise="paged_attention" name="scores are not scaled"
class PagedStore(PagedStore):
    def attend(self, q, table, start, count):
        return super().attend(q * q.shape[-1] ** 0.5, table, start, count)


# %% key="paged-m10" role="mutant" exercise="paged_attention" name="ignores the table: token p in slot p"
class PagedStore(PagedStore):
    def slots(self, table, first, end):
        return super().slots(list(range(len(table))), first, end)


# %% key="paged-m11" role="mutant" exercise="paged_attention" name="whole blocks, no mask for a single token"
class PagedStore(PagedStore):
    def attend(self, q, table, start, count):
        return super().attend(q, table, start, count) if count > 1 else self.unmasked(q[:1], table)

    def unmasked(self, q, table):
        """Everything in all blocks of the table."""
        keys, values = (each[table].flatten(0, 1) for each in (self.keys, self.values))
        group = q.shape[1] // keys.shape[1]
        scores = torch.einsum("qhd,khd->hqk", q, keys.repeat_interleave(group, 1)) / q.shape[-1] ** 0.5
        return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values.repeat_interleave(group, 1))


# %% key="paged-m12" role="mutant" exercise="paged_attention" name="sees only the tokens of this step"
class PagedStore(PagedStore):
    def mask(self, start, count):
        return super().mask(start, count) & (torch.arange(start + count) >= start)


# %% [markdown] key="prefix" lang="en" role="exercise" exercise="prefix_index" points=5 difficulty=4 minutes=50 needs="week 6, part 4"
# ## Exercise 4 · An index of what is still there
#
# When a request ends its blocks are free, but what is in them is still there. The next prompt may begin with the same tokens;
# then their keys and values need not be computed again. What does it take to find them? Keys and values of a token depend on
# **all tokens before it**, so a block is known by its own tokens and by those of all blocks before it.
#
# 1. `block_hashes(tokens, block_size)`: a list with one number (or text) for each **full** block of `tokens`. Two blocks get
#    the same number when they hold the same tokens **and** so does everything before them, else another. (`hash((a, b))` makes
#    one number of two; of a tuple of whole numbers it makes the same in every program run.)
#
# 2. A class that remembers where what is. It hands out no memory; it is told about blocks by their numbers.
#
# - `lookup(tokens)`: a list of the blocks that hold the longest known beginning of `tokens`, in order, without a gap. At least
#   **one token** must be left over: the model has to compute something, or there would be no logits to choose the next token
#   from. Changes nothing.
# - `acquire(blocks)`: a table now names these blocks too. A table may get its blocks in several calls (first those found, then
#   new ones; a list may be empty); `release` gets the whole table at once. Count, for each block, how many tables name it.
# - `remember(tokens, blocks)`: the keys and values of `tokens` have been computed. `tokens` are all tokens of a table from the
#   first on, `blocks` the blocks they lie in, the last one perhaps partly filled. Every full block can be found from now on.
#   What is known already stays where it is known. When called again, as more blocks are full, it gets everything again.
# - `release(blocks)`: that table is closed. A block that no other table names becomes *idle* if it is in the index (even if a
#   block before it is forgotten), and may be evicted from now on. If it is not in the index (partly filled, or not kept because
#   its content was known in another block) it is of no use to anybody: `release` returns a list of these, in any order.
# - `evict()`: somebody needs a block. Return the idle block that has been **idle for longest**, and forget what is in it;
#   `None` if no block is idle. Of blocks that became idle in the same `release` the **tail** of the table goes first: a block
#   is worth nothing once one before it is gone.
#
# After `evict` a block is blank: it may return in another table with other tokens, and nothing of its past counts.

# %% [markdown] key="prefix-help-chain" lang="en" role="help" exercise="prefix_index" title="How does a number know of everything before it?"
# Put the number of the block before into it: the number of a block is the hash of (number of the block before, its own tokens).
# The first block has nothing before it: take 0. Such a chain needs no look at the tokens that came before, and it is as good as
# a hash of all of them.

# %% [markdown] key="prefix-help-lru" lang="en" role="help" exercise="prefix_index" title="How do I keep the order of eviction?"
# A dictionary remembers the order in which its keys were put in. Keep one of the idle blocks: put a block in when it becomes
# idle, take it out when it is acquired. Then the first key is the block that has been idle for longest: `next(iter(idle))`.

# %% [markdown] key="prefix-help-same" lang="en" role="help" exercise="prefix_index" title="How can a block's content be known in another block?"
# Two equal prompts that run at the same time both compute their blocks; when the first was `remember`ed the second had begun
# already. Only one of the two is kept in the index.

# %% [markdown] key="prefix-help-try" lang="en" role="help" exercise="prefix_index" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# index = PrefixIndex(4)
# index.acquire([7, 3, 5])
# index.remember([1, 2, 3, 4, 5, 6, 7, 8, 9], [7, 3, 5])
# index.lookup([1, 2, 3, 4, 5, 6, 7, 8]), index.lookup([1, 2, 3, 4, 5, 6, 7, 8, 10])     # ([7], [7, 3])
# index.release([7, 3, 5])                               # [5]: it is partly filled
# index.evict(), index.evict(), index.evict()            # (3, 7, None)
# ```

# %% key="prefix-answer" role="answer" exercise="prefix_index"
def block_hashes(tokens, block_size):
    """A number for each full block, which stands for it and all blocks before it."""
    ### BEGIN SOLUTION
    hashes, parent = [], 0
    for start in range(0, len(tokens) - block_size + 1, block_size):
        parent = hash((parent, tuple(tokens[start:start + block_size])))
        hashes.append(parent)
    return hashes
    ### END SOLUTION


class PrefixIndex:
    """Which block holds which beginning, and which block to give up first."""

    def __init__(self, block_size):
        """Nothing is known."""
        ### BEGIN SOLUTION
        self.block_size = block_size
        self.block_of, self.hash_of = {}, {}
        self.references, self.idle = {}, {}
        ### END SOLUTION

    def lookup(self, tokens):
        """Blocks of the longest known beginning that leaves a token to compute."""
        ### BEGIN SOLUTION
        found = []
        for number in block_hashes(tokens[:-1], self.block_size):
            if number not in self.block_of:
                break
            found.append(self.block_of[number])
        return found
        ### END SOLUTION

    def acquire(self, blocks):
        """A table with these blocks is in use."""
        ### BEGIN SOLUTION
        for block in blocks:
            self.references[block] = self.references.get(block, 0) + 1
            self.idle.pop(block, None)
        ### END SOLUTION

    def remember(self, tokens, blocks):
        """The blocks hold the keys and values of these tokens."""
        ### BEGIN SOLUTION
        for number, block in zip(block_hashes(tokens, self.block_size), blocks, strict=False):
            if number not in self.block_of:
                self.block_of[number] = block
                self.hash_of[block] = number
        ### END SOLUTION

    def release(self, blocks):
        """A table with these blocks is closed; those that are of no use to anybody."""
        ### BEGIN SOLUTION
        useless = []
        for block in reversed(blocks):
            self.references[block] -= 1
            if self.references[block] == 0:
                if block in self.hash_of:
                    self.idle[block] = True
                else:
                    useless.append(block)
        return useless
        ### END SOLUTION

    def evict(self):
        """The block that has been idle for longest, or None."""
        ### BEGIN SOLUTION
        if not self.idle:
            return None
        block = next(iter(self.idle))
        del self.idle[block]
        del self.block_of[self.hash_of.pop(block)]
        return block
        ### END SOLUTION


# %% key="prefix-check" role="check" exercise="prefix_index"
ONE, TWO, THREE = [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]


def hashes(student, tokens, size):
    """The student's numbers for the full blocks of some tokens."""
    got = student.call("block_hashes", tokens, size)
    expect_true(type(got) is list and all(type(number) in (int, str) for number in got),
                f"block_hashes returns a list of numbers (or texts); this was {got!r}")
    expect_equal(len(got), len(tokens) // size, what=f"numbers for {len(tokens)} tokens in blocks of {size}", hints={
        -(-len(tokens) // size): "the last block is partly filled: more tokens will come into it, so it has no number yet"})
    return got


def stored(student, *table_of_tokens):
    """An index of blocks of 4 in which these (tokens, table) were in use one after the other, and are idle now."""
    index = student.new("PrefixIndex", 4)
    for tokens, table in table_of_tokens:
        index.call("acquire", table)
        index.call("remember", tokens, table)
        index.call("release", table)
    return index


def found(index, tokens):
    """The student's lookup as a list of blocks."""
    got = index.call("lookup", tokens)
    expect_true(type(got) is list, f"lookup returns a list of blocks; this was {got!r}")
    return got


@check("prefix_index")
def a_number_for_a_block_and_all_before(student):
    """The same tokens after other tokens are another block."""
    got = hashes(student, ONE + TWO + THREE + [13], 4)
    expect_equal(hashes(student, ONE + TWO + [9, 10, 11, 99], 4)[:2], got[:2],
                 what="numbers of two blocks that are the same in both")
    expect_true(len(set(got)) == 3, f"three different blocks have three different numbers; they were {got}")
    other = hashes(student, TWO + TWO + THREE, 4)
    expect_true(got[1] != other[1] and got[2] != other[2], "the same tokens stand in both blocks, but other tokens "
                f"before them: their keys and values are others, so the numbers must be; they were {got} and {other}")
    expect_true(len(set(other)) == 3, f"block 1 repeats the tokens of block 0, but it is another block; the numbers were {other}")


@check("prefix_index")
def the_longest_beginning(student):
    """What is known is found, up to the first block that is not; and one token is always left over."""
    index = stored(student, (ONE + TWO + THREE + [13, 14], [7, 3, 5, 0]))
    expect_equal(found(index, ONE + TWO + [9, 10, 11, 99, 13]), [7, 3],
                 what="lookup of a prompt that differs in its third block", hints=[
        ([7, 3, 5], "the third block differs in its last token"),
        ([7], "block 3 is known too, and tokens are left to compute behind it: why drop it?")])
    expect_equal(found(index, ONE + [0] * 4 + THREE + [13]), [7],
                 what="lookup of a prompt that differs in its second block only", hints=[
        ([7, 5], "the third block's keys and values were computed after other tokens")])
    expect_equal(found(index, ONE + TWO + THREE), [7, 3], what="lookup of a prompt that is known in full", hints=[
        ([7, 3, 5], "all tokens would be there, and nothing would be left to compute: no logits, no next token")])
    expect_equal(found(index, ONE + TWO + THREE + [13]), [7, 3, 5], what="lookup of three known blocks and a token", hints=[
        ([7, 3], "one token is left over without the last block: all three can be reused")])
    expect_equal(found(index, ONE + TWO + THREE + [13, 14, 15]), [7, 3, 5],
                 what="lookup of three known blocks and a part of one", hints=[
        ([7, 3, 5, 0], "a block that is partly filled cannot be reused: more tokens will be written into it")])
    expect_equal(found(index, TWO + THREE + [13]), [], what="lookup of known blocks without what came before them", hints=[
        ([3, 5], "block 3 holds the same tokens, but its keys and values were computed with four tokens before them")])
    expect_equal(found(index, [1, 2]), [], what="lookup of a short prompt")


@check("prefix_index")
def who_is_evicted(student):
    """Idle for longest goes first, of one table the tail; a lookup that is taken up makes a block new again."""
    both = (ONE + TWO, [7, 3]), (THREE + TWO, [5, 1])
    index = stored(student, *both)
    expect_equal([index.call("evict") for _ in range(5)], [3, 7, 1, 5, None], what="blocks evicted (7 and 3 became idle before "
                 "5 and 1)", hints=[
        ([7, 3, 5, 1, None], "the head of a table went before its tail: once it is gone the tail can never be found again"),
        ([5, 1, 7, 3, None], "the block that became idle last went first"),
        ([1, 5, 3, 7, None], "the table that was closed last went first"),
        ([None] * 5, "nothing became idle, although no table names these blocks any more and all can be found")])
    index = stored(student, *both)
    index.call("acquire", found(index, ONE + TWO + [0]))
    index.call("release", [7, 3])
    found(index, THREE + TWO + [0])
    got = [index.call("evict") for _ in range(5)]
    order = ("first in, first out? 7 and 3 were used after 5 and 1 (5 and 1 were looked up, but nobody took them). Take a block "
             "out of the idle ones when it is acquired, and let lookup change nothing")
    expect_equal(got, [1, 5, 3, 7, None], what="blocks evicted (7 and 3 were used again after 5 and 1)", hints=[
        ([3, 7, 1, 5, None], order), ([3, 7, 5, 1, None], order),
        ([None] * 5, "lookup changes nothing: who takes the blocks calls acquire")])
    expect_equal(found(index, ONE + TWO + [0]), [], what="lookup after everything was evicted", hints=[
        ([7, 3], "an evicted block is forgotten: somebody else writes into it now")])


@check("prefix_index")
def who_is_in_use_stays(student):
    """Two requests read the same blocks; only when both are gone may these be evicted. What cannot be found comes back at once."""
    index = stored(student, (ONE + TWO, [7, 3]))
    index.call("acquire", [7, 3, 2])
    index.call("acquire", [7, 4])
    index.call("remember", ONE + TWO + [9], [7, 3, 2])
    index.call("remember", ONE + THREE, [7, 4])
    expect_equal(index.call("evict"), None, what="evict while all blocks are in use", hints={
        3: "block 3 is in use: its keys and values would be overwritten while somebody reads them",
        7: "block 7 is in use, by two"})
    expect_equal(index.call("release", [7, 3, 2]), [2], what="blocks of no use, of a table [7, 3, 2] with 9 tokens", hints=[
        ([], "block 2 is partly filled: nobody will ever find it"),
        ([2, 3, 7], "3 and 7 can be found: they become idle (and 7 is in use)"),
        ([7, 3, 2], "3 and 7 can be found: they become idle (and 7 is in use)")])
    expect_equal([index.call("evict"), index.call("evict")], [3, None], what="evicted while 7 and 4 are in use", hints=[
        ([3, 7], "block 7 is still in the other table")])
    expect_equal(index.call("release", [7, 4]), [], what="blocks of no use, of a table [7, 4] with 8 tokens")
    expect_equal([index.call("evict"), index.call("evict")], [4, 7], what="evicted when all are gone")
    for _ in range(2):
        index.call("acquire", [8])
    expect_equal([index.call("release", [8]), index.call("release", [8])], [[], [8]], what="blocks of no use, when two tables "
                 "named block 8 and first one and then the other is closed", hints=[
        ([[8], [8]], "the first time another table still named block 8"),
        ([[8], []], "the first time another table still named block 8")])


@check("prefix_index")
def nothing_after_a_gap(student):
    """Two requests run at once; the blocks that were kept of their common beginning are evicted, the end of one is not."""
    index = student.new("PrefixIndex", 4)
    for tokens, table in ((ONE + TWO, [4, 6]), (ONE + TWO + THREE, [2, 9, 3])):
        index.call("acquire", table)
        index.call("remember", tokens, table)
    expect_equal(found(index, ONE + TWO + THREE + [0]), [4, 6, 3], what="lookup of what both have computed", hints=[
        ([2, 9, 3], "4 and 6 were known first, and others may be reading them: what is known already stays where it is known"),
        ([4, 6], "the third block was remembered too, by the second request")])
    index.call("release", [4, 6])
    expect_equal([index.call("evict"), index.call("evict")], [6, 4], what="evicted after the first request has ended")
    expect_equal(found(index, ONE + TWO + THREE + [0]), [], what="lookup when the first two blocks are forgotten "
                 "and the third is not", hints=[
        ([3], "a hit after a gap: a table that begins with block 3 says that it holds the first tokens"),
        ([2, 9, 3], "2 and 9 were never kept in the index")])
    expect_equal(sorted(index.call("release", [2, 9, 3])), [2, 9], what="blocks of no use, of the second request's table [2, 9, 3]",
                 hints=[([], "2 and 9 are not in the index: 4 and 6 were known for their content"),
                        ([2, 3, 9], "3 is in the index, even if the blocks before it are forgotten")])
    expect_equal([index.call("evict"), index.call("evict")], [3, None], what="evicted when all are gone")


class Server:
    """Serves prompts on `capacity` blocks with the student's index, and knows what is really in every block."""

    def __init__(self, student, capacity, size):
        self.index, self.size = student.new("PrefixIndex", size), size
        self.free, self.content, self.tables = list(range(capacity)), {}, {}
        self.reused = self.computed = 0

    def blocks(self, tokens):
        """The beginning up to each block's end, the last one perhaps partly filled."""
        return [tuple(tokens[:end]) for end in range(self.size, len(tokens) + self.size, self.size)]

    def start(self, name, tokens):
        """Find what is there, compute the rest; how many tokens were reused."""
        hit = found(self.index, tokens)
        want = self.blocks(tokens)
        for place, block in enumerate(hit):
            expect_true(self.content.get(block) == want[place], f"lookup({tokens}) found block {block} for its block "
                        f"number {place}, but that holds what was computed for {self.content.get(block)}")
        expect_true(len(hit) * self.size < len(tokens), f"lookup({tokens}) covers all tokens: nothing is left to compute")
        self.index.call("acquire", hit)
        table = list(hit)
        for beginning in want[len(hit):]:
            table.append(self.free.pop() if self.free else self.taken_from_idle(hit))
            self.content[table[-1]] = beginning if len(beginning) % self.size == 0 else None
        self.index.call("acquire", table[len(hit):])
        self.index.call("remember", tokens, table)
        self.tables[name] = table
        self.reused += len(hit) * self.size
        self.computed += len(tokens) - len(hit) * self.size
        self.index.student.last = ""                      # what is wrong with a whole turn is wrong with no single call
        return len(hit) * self.size

    def taken_from_idle(self, hit):
        """A block that the index gives up."""
        block = self.index.call("evict")
        used = {each for table in self.tables.values() for each in table} | set(hit)
        expect_true(block is not None, f"evict found no block, but only the blocks {sorted(used)} are in use")
        expect_true(type(block) is int and block in self.content, f"evict returned {block!r}, which is no block of this memory")
        expect_true(block not in used, f"evict gave up block {block}, which is in use")
        return block

    def end(self, name):
        """Close a table."""
        table = self.tables.pop(name)
        useless = self.index.call("release", table)
        used = {each for other in self.tables.values() for each in other}
        expect_true(type(useless) is list and set(useless) <= set(table) - used and len(set(useless)) == len(useless),
                    f"release({table}) returned {useless}; blocks in other tables are {sorted(used)}")
        self.free += useless
        self.index.student.last = ""


@check("prefix_index")
def conversations_in_turn(student):
    """Three users talk in turn, each prompt being all that was said so far; one stays away and is forgotten first."""
    server = Server(student, 8, 4)
    said = {user: [user * 10 + k for k in range(9)] for user in (1, 2, 3)}
    reused = []
    for turn, user in enumerate([1, 2, 3, 1, 2, 1, 2, 3]):
        reused.append(server.start(user, said[user]))
        server.end(user)
        said[user] += [100 + turn] * 4
    expect_equal(reused, [0, 0, 0, 8, 8, 12, 12, 0], what="tokens reused in each turn", hints=[
        ([0] * 8, "nothing is ever found again"),
        ([0, 0, 0, 8, 8, 0, 12, 8], "the wrong user was forgotten: the third has been away for longest")])


class UsesIndex:
    """The engine's memory (llmcourse/kv/memory.py), asking an index like yours what is still in blocks that nobody owns."""

    shares, caches, num_shared = False, True, 0

    def __init__(self, index, num_blocks, block_size):
        self.index, self.num_blocks, self.block_size = index, num_blocks, block_size
        self.capacity, self.spare = num_blocks * block_size, list(range(num_blocks))
        self.tables, self.lengths, self.full = {}, {}, {}

    @property
    def num_used(self):
        """Blocks in tables."""
        return len({block for table in self.tables.values() for block in table})

    @property
    def num_free(self):
        """Blocks in no table, idle or not."""
        return self.num_blocks - self.num_used

    def table(self, owner):
        """The owner's blocks."""
        return self.tables.get(owner, [])

    def length(self, owner):
        """The owner's tokens."""
        return self.lengths.get(owner, 0)

    def blocks_for(self, num_tokens):
        """Blocks that so many tokens fill."""
        return -(-num_tokens // self.block_size)

    def could_ever_hold(self, longest):
        """Whether a request that grows so long fits when it is alone."""
        return self.blocks_for(longest) <= self.num_blocks

    def can_open(self, tokens, longest, without=()):
        """Whether `open` is sure to succeed, whatever is found."""
        return self.blocks_for(len(tokens)) <= self.num_free

    def open(self, owner, tokens, longest):
        """A table on what the index finds, and new blocks; how many tokens need not be computed."""
        hit = self.index.lookup(list(tokens))
        expect_true(type(hit) is list, f"lookup returns a list of blocks; this was {hit!r}")
        expect_true(len(hit) * self.block_size < len(tokens), f"lookup({tokens}) covers all tokens: nothing is left to compute")
        self.tables[owner], self.lengths[owner], self.full[owner] = [], len(tokens), len(hit)
        self.take(owner, hit)
        self.take(owner, self.new_blocks(self.blocks_for(len(tokens)) - len(hit)))
        return len(hit) * self.block_size

    def take(self, owner, blocks):
        """Blocks come into the owner's table."""
        self.index.acquire(blocks)
        self.tables[owner] += blocks

    def new_blocks(self, count):
        """So many spare blocks, or idle ones."""
        new = []
        while len(new) < count:
            block = self.spare.pop() if self.spare else self.index.evict()
            used = [owner for owner, table in self.tables.items() if block in table]
            expect_true(type(block) is int and not used and block not in new, f"evict returned {block!r}" + (
                f", which is in use by {used}" if used else "; there are blocks that nobody uses"))
            new.append(block)
        return new

    def reserve(self, owner, length):
        """Room for so many tokens: no copies, and the blocks gained."""
        missing = max(0, self.blocks_for(length) - len(self.tables[owner]))
        if missing > self.num_free:
            raise OutOfBlocks(f"{missing} blocks are needed, {self.num_free} are free")
        new = self.new_blocks(missing)
        if new:
            self.take(owner, new)
        self.lengths[owner] = max(length, self.lengths[owner])
        return [], new

    def free(self, owner):
        """Close a table; the blocks that nobody names."""
        table = self.tables.pop(owner)
        del self.lengths[owner], self.full[owner]
        useless = self.index.release(table)
        expect_true(type(useless) is list and set(useless) <= set(table), f"release({table}) returns a list of those of its blocks that "
                    f"are of no use; this was {useless!r}")
        self.spare += useless
        return [block for block in table if not any(block in other for other in self.tables.values())]

    def computed(self, owner, tokens, count):
        """Tell the index when another block is full."""
        if count // self.block_size > self.full[owner]:
            self.full[owner] = count // self.block_size
            self.index.remember(list(tokens[:count]), self.tables[owner][:self.blocks_for(count)])

    def rounds_that_fit(self, owners, rounds):
        """None: the engine asks for every single token."""
        return 0

    def check_invariants(self):
        """No block is spare and in use."""
        lost = {block for table in self.tables.values() for block in table} & set(self.spare)
        expect_true(not lost, f"release gave back {sorted(lost)}, but other tables still name them")


def users_who_ask_again(index, num_blocks, rounds=4):
    """Four users with one system prompt; each asks, reads the answer, and asks again with all that was said so far.

    Returns the engine, when all is said.
    """
    executor = MockExecutor(8)
    engine = Engine(executor, UsesIndex(index, num_blocks, 8), token_budget=48, max_running=3, clock=VirtualClock(), checked=True)
    said = {user: [50 + k % 7 for k in range(19)] + [user] * 5 for user in range(4)}
    for turn in range(rounds):
        asked = {}
        for user, tokens in said.items():
            asked[user] = engine.add(Request(tokens, SamplingParams(max_tokens=9, ignore_eos=True), id=f"user {user}, turn {turn}"))
        run(engine)
        for user, request in asked.items():
            expect_equal(request.output, executor.continue_alone(request.prompt, 9, True), what=f"new tokens of {request.id}")
            said[user] = [*request.tokens, 60 - user]
    return engine


@check("prefix_index")
def under_the_engine(student):
    """Four users talk for four turns in the engine: every answer as without a cache, and most of the prompts is found."""
    engine = users_who_ask_again(Through(student.new("PrefixIndex", 8)), 64)
    found, asked = engine.counters.hit_tokens, sum(len(request.prompt) for request in engine.requests.values())
    expect_true(found >= 0.6 * asked, f"of {asked} tokens of prompts only {found} were found; with room for everything it should be "
                "four fifths")


@check("prefix_index")
def the_real_model(student):
    """course-tiny computes only what your index does not find, and its logits are the same."""
    model, tokenizer = load_model("course-tiny", device="cpu")
    store, server = KVStore(model.config, 24, 4), Server(student, 24, 4)
    texts = ("Count from 3 to 9.", "Count from 3 to 7.", "Count from 1 to 9.", "Count from 3 to 9.")
    prompts = [tokenizer.encode_prompt(text) for text in texts]
    prompts.append(prompts[0][4:8] + prompts[0][4:])                  # known blocks, but not after the same tokens
    for number, prompt in enumerate(prompts):
        start = server.start(number, prompt)
        segment = Segment(start, len(prompt) - start, server.tables[number])
        got = model(torch.tensor([prompt[start:]]), PagedAttention(store, [segment]))[0, -1]
        expect_close(got, model(torch.tensor([prompt]))[0, -1], 1e-3,
                     what=f"logits behind prompt {number}, {start} tokens of it reused")
        server.end(number)
    expect_true(server.reused >= 3 * 4, f"only {server.reused} tokens were reused; the prompts begin alike")


# %% key="prefix-hidden" role="hidden" exercise="prefix_index"
class Known:
    """The same index by whole beginnings instead of numbers: nothing to hash, nothing to confuse."""

    def __init__(self, size):
        self.size, self.known, self.uses, self.idle = size, {}, Counter(), []

    def beginnings(self, tokens):
        """The beginning up to the end of each full block."""
        return [tuple(tokens[:end]) for end in range(self.size, len(tokens) + 1, self.size)]

    def lookup(self, tokens):
        """Blocks known, up to the first that is not."""
        blocks = [self.known.get(beginning) for beginning in self.beginnings(tokens[:len(tokens) - 1])]
        return blocks[:blocks.index(None)] if None in blocks else blocks

    def acquire(self, blocks):
        """In use."""
        self.uses.update(blocks)
        self.idle = [block for block in self.idle if block not in blocks]

    def remember(self, tokens, blocks):
        """Findable."""
        for beginning, block in zip(self.beginnings(tokens), blocks, strict=False):
            self.known.setdefault(beginning, block)

    def release(self, blocks):
        """Perhaps idle."""
        self.uses.subtract(blocks)
        gone = [block for block in blocks[::-1] if self.uses[block] == 0]
        self.idle += [block for block in gone if block in self.known.values()]
        return [block for block in gone if block not in self.known.values()]

    def evict(self):
        """Idle for longest."""
        if not self.idle:
            return None
        block = self.idle.pop(0)
        self.known = {beginning: other for beginning, other in self.known.items() if other != block}
        return block


def prompts_that_overlap(rng, count, size):
    """Prompts that begin like each other: random walks in a small tree of blocks, some ending in the middle of one."""
    branches = [[rng.randrange(3) for _ in range(size)] for _ in range(2)]
    walks = [[token for _ in range(rng.randint(1, 4)) for token in rng.choice(branches)] for _ in range(count)]
    return [walk[:rng.randint(1, 4 * size)] for walk in walks]


@check("prefix_index")
def beside_an_index_of_whole_beginnings(student):
    """150 prompts that overlap, up to four at a time, on little memory: every answer as from an index of whole beginnings."""
    for seed, size, capacity in ((1, 4, 18), (2, 1, 18), (3, 3, 24)):
        rng = random.Random(seed)
        index, known = student.new("PrefixIndex", size), Known(size)
        free, tables = list(range(capacity)), []
        for turn, tokens in enumerate(prompts_that_overlap(rng, 50, size)):
            hit = known.lookup(tokens)
            expect_equal(found(index, tokens), hit, what=f"turn {turn}: lookup({tokens}), blocks of {size}")
            index.call("acquire", hit)
            known.acquire(hit)
            new = []
            while len(hit) + len(new) < -(-len(tokens) // size):
                if not free:
                    free.append(known.evict())
                    expect_equal(index.call("evict"), free[-1], what=f"turn {turn}: evict")
                new.append(free.pop(0))
            index.call("acquire", new)
            known.acquire(new)
            index.call("remember", tokens, hit + new)
            known.remember(tokens, hit + new)
            tables.append(hit + new)
            while len(tables) > rng.randint(0, 3):
                table = tables.pop(rng.randrange(len(tables)))
                useless = known.release(table)
                expect_equal(sorted(index.call("release", table)), sorted(useless), what=f"turn {turn}: release({table})")
                free += useless


@check("prefix_index")
def under_the_engine_with_little_memory(student):
    """The same four users with too little memory to keep everything: as much is found as there is to find."""
    for num_blocks in (8, 14, 20):
        engine = users_who_ask_again(Through(student.new("PrefixIndex", 8)), num_blocks)
        best = users_who_ask_again(Known(8), num_blocks)
        expect_equal(engine.counters.hit_tokens, best.counters.hit_tokens, what=f"tokens found with {num_blocks} blocks")


@check("prefix_index")
def the_same_prompt_twice_at_once(student):
    """Both requests compute it; one copy is kept, the other is of no use when its table is closed."""
    index = student.new("PrefixIndex", 4)
    for table in ([4, 6], [2, 9]):
        index.call("acquire", table)
    for table in ([4, 6], [2, 9]):
        index.call("remember", ONE + TWO, table)
    expect_equal(found(index, ONE + TWO + [0]), [4, 6], what="lookup: what is known already stays where it is known", hints=[
        ([2, 9], "4 and 6 are known, and others may be reading them: they stay")])
    expect_equal(sorted(index.call("release", [2, 9])), [2, 9], what="blocks of no use, of the second table", hints=[
        ([], "2 and 9 cannot be found: they would be lost for ever")])
    expect_equal(index.call("release", [4, 6]), [], what="blocks of no use, of the first table")
    expect_equal([index.call("evict") for _ in range(3)], [6, 4, None], what="evicted")


@check("prefix_index")
def a_block_grows_full(student):
    """A request that writes on: its blocks are remembered again with more tokens, and the new full one is found."""
    index = student.new("PrefixIndex", 4)
    index.call("acquire", [1, 0])
    index.call("remember", [*ONE, 5, 6], [1, 0])
    expect_equal(found(index, ONE + TWO + [0]), [1], what="lookup while block 0 is half full")
    index.call("remember", ONE + TWO, [1, 0])
    expect_equal(found(index, ONE + TWO + [0]), [1, 0], what="lookup when block 0 is full")
    expect_equal(index.call("release", [1, 0]), [], what="blocks of no use")


# %% key="prefix-m1" role="mutant" exercise="prefix_index" name="hash that ignores the parent"
def block_hashes(tokens, block_size):
    return [hash(tuple(tokens[start:start + block_size])) for start in range(0, len(tokens) - block_size + 1, block_size)]


# %% key="prefix-m2" role="mutant" exercise="prefix_index" name="hashes partial blocks"
def block_hashes(tokens, block_size):
    hashes, parent = [], 0
    for start in range(0, len(tokens), block_size):
        parent = hash((parent, tuple(tokens[start:start + block_size])))
        hashes.append(parent)
    return hashes


# %% key="prefix-m3" role="mutant" exercise="prefix_index" name="goes on after a gap"
class PrefixIndex(PrefixIndex):
    def lookup(self, tokens):
        return [self.block_of[number] for number in block_hashes(tokens[:-1], self.block_size) if number in self.block_of]


# %% key="prefix-m4" role="mutant" exercise="prefix_index" name="a hit that leaves nothing to compute"
class PrefixIndex(PrefixIndex):
    def lookup(self, tokens):
        return super().lookup([*tokens, 0])


# %% key="prefix-m5" role="mutant" exercise="prefix_index" name="evicts blocks that are in use"
class PrefixIndex(PrefixIndex):
    def acquire(self, blocks):
        idle = dict(self.idle)
        super().acquire(blocks)
        self.idle = idle

    def release(self, blocks):
        for block in blocks:
            self.idle.pop(block, None)
        return super().release(blocks)


# %% key="prefix-m6" role="mutant" exercise="prefix_index" name="first in, first out"
class PrefixIndex(PrefixIndex):
    def evict(self):
        order = list(self.hash_of)
        self.idle = dict(sorted(self.idle.items(), key=lambda item: order.index(item[0])))
        return super().evict()


# %% key="prefix-m7" role="mutant" exercise="prefix_index" name="the head of a table goes before its tail"
class PrefixIndex(PrefixIndex):
    def release(self, blocks):
        return super().release(blocks[::-1])


# %% key="prefix-m8" role="mutant" exercise="prefix_index" name="does not forget what it evicts"
class PrefixIndex(PrefixIndex):
    def evict(self):
        block = next(iter(self.idle), None)
        self.idle.pop(block, None)
        return block


# %% key="prefix-m9" role="mutant" exercise="prefix_index" name="one release makes a shared block idle"
class PrefixIndex(PrefixIndex):
    def release(self, blocks):
        for block in blocks:
            self.references[block] = 1
        return super().release(blocks)


# %% key="prefix-m10" role="mutant" exercise="prefix_index" name="the newest copy replaces the known one"
class PrefixIndex(PrefixIndex):
    def remember(self, tokens, blocks):
        for number, block in zip(block_hashes(tokens, self.block_size), blocks, strict=False):
            self.hash_of.pop(self.block_of.get(number), None)
            self.block_of[number] = block
            self.hash_of[block] = number


# %% key="prefix-m11" role="mutant" exercise="prefix_index" name="gives every block back at once: no cache"
class PrefixIndex(PrefixIndex):
    def release(self, blocks):
        useless = super().release(blocks)
        while (block := self.evict()) is not None:
            useless.append(block)
        return useless


# %% key="prefix-m12" role="mutant" exercise="prefix_index" name="always leaves the last block out, full or not"
class PrefixIndex(PrefixIndex):
    def lookup(self, tokens):
        return super().lookup(tokens)[:max(0, len(tokens) // self.block_size - 1)]


# %% key="prefix-m13" role="mutant" exercise="prefix_index" name="a lookup alone makes blocks new again"
class PrefixIndex(PrefixIndex):
    def lookup(self, tokens):
        blocks = super().lookup(tokens)
        for block in reversed(blocks):
            if block in self.idle:
                self.idle[block] = self.idle.pop(block)
        return blocks


# %% key="prefix-m14" role="mutant" exercise="prefix_index" name="a block whose content is known elsewhere is kept too"
class PrefixIndex(PrefixIndex):
    def remember(self, tokens, blocks):
        super().remember(tokens, blocks)
        for number, block in zip(block_hashes(tokens, self.block_size), blocks, strict=False):
            self.hash_of.setdefault(block, number)

    def evict(self):
        block = next(iter(self.idle), None)
        self.idle.pop(block, None)
        number = self.hash_of.pop(block, None)
        if block is not None and self.block_of.get(number) == block:
            del self.block_of[number]
        return block


# %% key="prefix-m15" role="mutant" exercise="prefix_index" name="gives a useless block back although another table names it"
class PrefixIndex(PrefixIndex):
    def release(self, blocks):
        super().release(blocks)
        return [block for block in blocks if block not in self.hash_of]


# %% key="prefix-m16" role="mutant" exercise="prefix_index" name="a block behind one that is not in the index is of no use"
class PrefixIndex(PrefixIndex):
    def release(self, blocks):
        useless = super().release(blocks)
        gap = next((place for place, block in enumerate(blocks) if block not in self.hash_of), len(blocks))
        for block in blocks[gap:]:
            if self.idle.pop(block, None):
                del self.block_of[self.hash_of.pop(block)]
                useless.append(block)
        return useless


# %% key="prefix-m17" role="mutant" exercise="prefix_index" name="lookup takes the blocks it finds"
class PrefixIndex(PrefixIndex):
    def lookup(self, tokens):
        blocks = super().lookup(tokens)
        self.acquire(blocks)
        return blocks


# %% [markdown] key="ageing" lang="en" role="exercise" exercise="ageing" points=4 difficulty=3 minutes=15 needs="week 6, part 7"
# ## Exercise 5 · The important go first, and nobody waits for ever
#
# Every request has a `priority`: 0 is the most important, larger numbers are less so. If the important always go first, a
# steady stream of them lets the others starve. **Ageing** mends this: whoever waits becomes more important as time goes by.
# Write the class:
#
# - `AgeingPriority(ageing)`: so many seconds of waiting are worth one level.
# - `key(priority, arrival, queued, now)`: a number; of the waiting, the engine takes the one with the **smallest** (of equal
#   ones, who came first). A request that came at `arrival` counts, at time `now`, one level less for every `ageing` seconds
#   since then; half of that time is worth half a level, and levels may become negative. `queued` is when it last joined the
#   queue: the same as `arrival`, or later if it was preempted on the way and waits for the second time.
#
# Then promise something, for an engine that serves one request at a time (`max_running=1`), to its end. No request takes more
# than `longest` seconds of it, and in any x seconds the requests that arrive bring at most `burst + load · x` seconds of work:
# `burst` is what may come at once, `load` (at most 1, or no promise could be kept) what comes steadily.
#
# - `longest_wait(priority, burst, load, longest)`: how long a request of this priority waits at most, in seconds, from its
#   arrival to its start. Return exactly this sum: what is being served when it comes; all the work that may be waiting already
#   or arrive together with it (with a load of at most 1 the two are never more than `burst`); and the work that arrives later
#   and still goes first.
#
# For the last of these, find out for how many seconds after a request's arrival others may come who go before it.

# %% [markdown] key="ageing-help-later" lang="en" role="help" exercise="ageing" title="For how long can somebody still overtake?"
# Take the most dangerous of all, requests of priority 0. One that comes d seconds later has waited d seconds less, so it is d /
# ageing levels worse off for that, and `priority` levels better off for being important. When are the two equal? Time changes
# nothing about it: both age alike.

# %% [markdown] key="ageing-help-everybody" lang="en" role="help" exercise="ageing" title="If all age alike, what is ageing good for?"
# Among those who wait now it changes nothing: they keep their order. What it changes is how they stand against those who come
# **later**. So it must count from each request's own arrival: a clock that raises everybody by the same, newcomers included,
# does nothing.

# %% [markdown] key="ageing-help-service" lang="en" role="help" exercise="ageing" title="Why does the one who is being served count?"
# It may be the least important of all: it began when nobody else was there. But nobody is pushed out, so who comes a moment
# later waits until it is done, however important.

# %% [markdown] key="ageing-help-try" lang="en" role="help" exercise="ageing" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# policy = UsesPriority(AgeingPriority(10.0))
# engine = Engine.simulated(policy=policy, max_running=1)
# arrivals = [Arrival(0.5 * k, 500, 60, priority=0 if k % 4 else 3) for k in range(80)]
# table = replay(engine, arrivals).frame()
# table.groupby([arrival.priority for arrival in arrivals])["ttft"].max()
# ```

# %% key="ageing-answer" role="answer" exercise="ageing"
class AgeingPriority:
    """Priorities that wear off with waiting."""

    def __init__(self, ageing):
        """`ageing`: seconds of waiting that are worth one level."""
        ### BEGIN SOLUTION
        self.ageing = ageing
        ### END SOLUTION

    def key(self, priority, arrival, queued, now):
        """The request's level at time `now`: smaller goes first."""
        ### BEGIN SOLUTION
        return priority - (now - arrival) / self.ageing
        ### END SOLUTION

    def longest_wait(self, priority, burst, load, longest):
        """Seconds from arrival to start that no request of this priority exceeds."""
        ### BEGIN SOLUTION
        return longest + burst + load * self.ageing * priority
        ### END SOLUTION


# %% key="ageing-check" role="check" exercise="ageing"
def level(ageing, priority, arrival, queued, now):
    """The student's key, a number."""
    got = ageing.call("key", priority, arrival, queued, now)
    expect_true(type(got) in (int, float), f"key returns a number; key({priority}, {arrival}, {queued}, {now}) was {got!r}")
    return got


def goes_first(ageing, one, other, now, why):
    """`one` must have the smaller key of two requests (priority, arrival, queued), the same at `now` and later."""
    for when in (now, now + 7.0):
        a, b = level(ageing, *one, when), level(ageing, *other, when)
        rise = a - level(ageing, *one, when + why[0])
        ageing.student.last = ""                          # one key of several
        expect_true(a < b, f"at {when:g} s with {why[0]:g} s a level, the request (priority {one[0]}, arrival {one[1]:g}, "
                    f"queued {one[2]:g}) should go before the request (priority {other[0]}, arrival {other[1]:g}, queued "
                    f"{other[2]:g}): {why[1]}. The keys were {a:g} and {b:g}{diagnosis(a, b, rise, why[0])}")


def diagnosis(a, b, rise, seconds):
    """What two wrong keys say about the formula; `rise` is what the first loses in `seconds`, which should be one level."""
    if a == b == 0:
        return ". Levels may become negative"
    if abs(rise - 1) > 1e-6:
        return f". In {seconds:g} s of waiting the first one falls by {rise:g}; it should fall by one level"
    if a == b:
        return ". Half of the time is worth half a level" if a == int(a) else ". Does everybody rise alike, newcomers too?"
    return ""


@check("ageing")
def who_goes_first(student):
    """Important before unimportant, old before new, and ten seconds are worth a level."""
    ageing = student.new("AgeingPriority", 10.0)
    goes_first(ageing, (0, 20.0, 20.0), (3, 15.0, 15.0), 21.0,
               (10.0, "it is more important, and the other has waited only 5 s longer"))
    goes_first(ageing, (2, 0.0, 0.0), (2, 5.0, 5.0), 6.0, (10.0, "both are equally important, and it has waited longer"))
    goes_first(ageing, (3, 0.0, 0.0), (0, 31.0, 31.0), 40.0, (10.0, "it has waited 31 s longer, which is worth 3.1 levels"))
    goes_first(ageing, (0, 29.0, 29.0), (3, 0.0, 0.0), 40.0,
               (10.0, "29 s are worth 2.9 levels, and it is 3 levels more important"))
    goes_first(ageing, (0, 0.0, 0.0), (1, 5.0, 5.0), 30.0, (10.0, "it is more important, and has waited longer as well"))


@check("ageing")
def preempted_but_not_forgotten(student):
    """A request that was preempted has waited since it came, not since it was pushed out."""
    ageing = student.new("AgeingPriority", 10.0)
    goes_first(ageing, (3, 0.0, 50.0), (0, 45.0, 45.0), 55.0,
               (10.0, "it has been here since 0 s, 45 s longer than the other. That it was preempted at 50 s is not "
                "its fault, and must not cost it its place"))


@check("ageing")
def the_promise(student):
    """Level 3 at 10 s a level, bursts of 8 s of work, a load of 0.9, requests of up to 2 s: 37 seconds."""
    ageing = student.new("AgeingPriority", 10.0)
    expect_close(ageing.call("longest_wait", 3, 8.0, 0.9, 2.0), 37.0, 1e-9, what="longest wait", hints=[
        (35.0, "when it comes, somebody may just have begun, and nobody is pushed out: the service in progress counts"),
        (29.0, "a burst may come together with it, and all of it be more important"),
        (10.0, "for 30 s after its arrival requests may come that still go first"),
        (40.0, "others may overtake for 30 s, but in these they bring load · 30 s = 27 s of work"),
        (12.7, "`ageing` seconds for each level"),
        (46.0, "who comes exactly `priority` levels' worth of seconds later no longer overtakes: is there one level "
         "too many?"),
        (19.0, "`ageing` seconds for each **level**: 3 levels are 30 s"),
        (45.0, "what is waiting already and what arrives together with it are never more than **one** burst"),
        (36.2, "load · 30 s comes on top of the burst; the burst itself is not multiplied by load"),
        (352.0, "who comes after these 30 s does not go first: nothing is divided by 1 - load"),
        (109.0, "who comes after these 30 s does not go first: nothing is divided by 1 - load")])
    expect_close(ageing.call("longest_wait", 0, 8.0, 0.9, 2.0), 10.0, 1e-9, what="longest wait of the most important", hints=[
        (8.0, "the service in progress counts for the important, too"),
        (0.0, "even the most important wait for the one being served, and for those who came before them")])
    expect_close(student.new("AgeingPriority", 0.5).call("longest_wait", 4, 3.0, 1.0, 1.0), 6.0, 1e-9,
                 what="longest wait at 0.5 s a level, level 4, burst 3 s, load 1, longest 1 s")


def served(policy, arrivals):
    """One seat, 0.25 s for each new token: (arrival time, priority, seconds until it started), in order of start."""
    executor = MockExecutor(16, step_seconds=0.25, token_seconds=0.0)
    engine = Engine(executor, BlockPool(64, 16), policy=policy, max_running=1, clock=VirtualClock(), checked=True)
    replay(engine, arrivals)
    started = [event for event in engine.events if event.kind is EventKind.SCHEDULED]
    requests = [(engine.requests[event.request], event.time) for event in started]
    return [(request.arrival, request.priority, time - request.arrival) for request, time in requests]


def burst_of(arrivals, load):
    """The smallest burst for which no stretch of time brings more than burst + load · x seconds of work (0.25 s a token)."""
    most = 0.0
    for first in range(len(arrivals)):
        work = 0.0
        for each in arrivals[first:]:
            work += 0.25 * each.output_tokens
            most = max(most, work - load * (each.time - arrivals[first].time))
    return most


def keeps_its_promise(student, seconds, arrivals, load):
    """Nobody waits longer than the student's own bound says; the waits."""
    ageing = student.new("AgeingPriority", seconds)
    waits = served(UsesPriority(Through(ageing)), arrivals)
    burst, longest = burst_of(arrivals, load), max(0.25 * each.output_tokens for each in arrivals)
    for arrival, priority, wait in waits:
        bound = ageing.call("longest_wait", priority, burst, load, longest)
        expect_true(type(bound) in (int, float), f"longest_wait returns a number of seconds; this was {bound!r}")
        expect_true(wait <= bound + 1e-6, f"a request of priority {priority} came at {arrival:g} s and waited {wait:g} s; "
                    f"your longest_wait({priority}, {burst:g}, {load:g}, {longest:g}) promised {bound:g} s, at "
                    f"{seconds:g} s a level")
    return waits


def stream_of_important(seconds, lowly=4):
    """An important request of 1 s every second, after a burst of five; now and then one of priority `lowly`."""
    arrivals = [Arrival(0.0, 8, 4, priority=0) for _ in range(5)] + [Arrival(1.0 * k, 8, 4, priority=0) for k in range(1, seconds)]
    return sorted(arrivals + [Arrival(10.5 * k + 0.25, 8, 4, priority=lowly) for k in range(3)], key=lambda each: each.time)


@check("ageing")
def nobody_starves(student):
    """In virtual time: a stream of important requests fills the engine; three others get their turn, within your promise."""
    waits = keeps_its_promise(student, 2.0, stream_of_important(40), 1.0)
    lowly = [wait for _, priority, wait in waits if priority == 4]
    expect_true(max(lowly) < 20.0, f"three requests of priority 4 waited {lowly} s, at 2 s a level: they should not wait "
                "for the end of the stream")


@check("ageing")
def important_go_first_in_the_engine(student):
    """In virtual time: an important request passes four that came before it; when a level is worth next to nothing it does not."""
    arrivals = [Arrival(0.0, 8, 4, priority=3) for _ in range(5)]
    arrivals += [Arrival(0.5, 8, 4, priority=1), Arrival(0.625, 8, 4, priority=0)]
    for seconds, want in ((10.0, [3, 0, 1, 3, 3, 3, 3]), (0.05, [3, 3, 3, 3, 3, 1, 0])):
        order = [priority for _, priority, _ in served(UsesPriority(Through(student.new("AgeingPriority", seconds))), arrivals)]
        expect_equal(order, want, what=f"priorities in order of service, {seconds:g} s a level", hints=[
            ([3, 3, 3, 3, 3, 1, 0], "the important were served last: is the sign right? The smallest key goes first"),
            ([3, 0, 1, 3, 3, 3, 3], "0.5 s of waiting are worth 10 levels here: who came first goes first")])


# %% key="ageing-hidden" role="hidden" exercise="ageing"
class ByHand(Policy):
    """The order that ageing makes: a request of level p stands where one of level 0 would stand that came p levels later."""

    def __init__(self, ageing):
        self.ageing = ageing

    def key(self, request, now):
        return request.arrival + self.ageing * request.priority


@check("ageing")
def other_streams(student):
    """In virtual time: random bursts of all priorities: every wait is within your promise, the order is that of the levels."""
    for seed, seconds in ((1, 1.0), (2, 5.0)):
        rng, time, arrivals = random.Random(seed), 0.0, []
        for _ in range(30):
            time += rng.choice([0.0, 0.25, 3.0])
            arrivals.append(Arrival(time, 8, rng.choice([1, 2, 12]), priority=rng.choice([0, 0, 1, 4])))
        waits = keeps_its_promise(student, seconds, arrivals, 1.0)
        by_hand = served(ByHand(seconds), arrivals)
        expect_equal(waits, by_hand, what=f"(arrival, priority, wait) in order of service, {seconds:g} s a level")


@check("ageing")
def levels_in_between(student):
    """Parts of a level count; two objects do not share their ageing; the most important age as well."""
    slow, fast = student.new("AgeingPriority", 100.0), student.new("AgeingPriority", 1.0)
    goes_first(slow, (1, 0.0, 0.0), (1, 20.0, 20.0), 30.0, (100.0, "it has waited 0.2 levels longer"))
    goes_first(slow, (0, 60.0, 60.0), (1, 0.0, 0.0), 60.0, (100.0, "60 s are worth 0.6 levels"))
    goes_first(fast, (1, 0.0, 0.0), (0, 1.5, 1.5), 3.0, (1.0, "it has waited 1.5 s longer, which is worth 1.5 levels"))
    goes_first(fast, (0, 2.0, 2.0), (1, 1.5, 1.5), 9.0,
               (1.0, "it is a level more important, and has waited half a level less; the most important age too"))


@check("ageing")
def on_the_real_engine(student):
    """course-tiny with one seat: who came 40 s ago with priority 3 goes before who comes now with priority 0, at 10 s a level."""
    policy = UsesPriority(Through(student.new("AgeingPriority", 10.0)))
    engine = Engine.from_model("course-tiny", device="cpu", num_blocks=64, max_running=1, policy=policy, clock=VirtualClock())
    came = (("now-2", 2, 0.0), ("old-3", 3, -40.0), ("now-0", 0, 0.0), ("old-1", 1, -15.0), ("new-3", 3, -9.0))
    for name, priority, arrival in came:
        engine.add(Request([5] * 12, SamplingParams(max_tokens=3, ignore_eos=True), id=name, priority=priority, arrival=arrival))
    run(engine)
    order = [event.request for event in engine.events if event.kind is EventKind.SCHEDULED]
    expect_equal(order, ["old-3", "old-1", "now-0", "now-2", "new-3"], what="order of service", hints=[
        (["now-0", "old-1", "now-2", "old-3", "new-3"], "waiting counts for nothing here"),
        (["new-3", "now-2", "now-0", "old-1", "old-3"], "upside down: the smallest key goes first")])


@check("ageing")
def pushed_out_by_lack_of_memory(student):
    """Under the engine with too few blocks: an old request that is preempted comes back before those who came after it."""
    policy = UsesPriority(Through(student.new("AgeingPriority", 1.0)))
    engine = Engine(MockExecutor(4, step_seconds=1.0), BlockPool(10, 4), policy=policy, max_running=2, clock=VirtualClock(),
                    checked=True)
    stream = [Arrival(6.5 + k, 8, 3, priority=0) for k in range(10)]
    replay(engine, [Arrival(0.0, 12, 16, priority=6), Arrival(0.5, 12, 16, priority=0), *stream])
    names = list(engine.requests)
    preempted = [event for event in engine.events if event.kind is EventKind.PREEMPTED]
    expect_true(bool(preempted), "this check is about preemption, and nobody was preempted")
    again = [event.time for event in engine.events if event.kind is EventKind.SCHEDULED and event.request == names[0]]
    expect_true(len(again) == 2 and again[1] <= 20.0, "the request of priority 6 came at 0 s and was pushed out at "
                f"{preempted[0].time:g} s; it started again at {again[1:]} s, behind requests that came seven seconds and "
                "more after it. One second is worth a level")


# %% key="ageing-m1" role="mutant" exercise="ageing" name="priority without ageing"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return priority


# %% key="ageing-m2" role="mutant" exercise="ageing" name="the clock raises everybody alike, newcomers too"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return priority - now / self.ageing


# %% key="ageing-m3" role="mutant" exercise="ageing" name="sign reversed: waiting makes less important"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return priority + (now - arrival) / self.ageing


# %% key="ageing-m12" role="mutant" exercise="ageing" name="multiplies by the seconds a level is worth"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return priority - (now - arrival) * self.ageing


# %% key="ageing-m4" role="mutant" exercise="ageing" name="the largest number is taken for the most important"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return -priority - (now - arrival) / self.ageing


# %% key="ageing-m5" role="mutant" exercise="ageing" name="counts the wait from the last preemption"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return priority - (now - queued) / self.ageing


# %% key="ageing-m6" role="mutant" exercise="ageing" name="the most important do not age"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return max(0, super().key(priority, arrival, queued, now)) if priority else 0


# %% key="ageing-m7" role="mutant" exercise="ageing" name="ages by whole levels only"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return priority - (now - arrival) // self.ageing


# %% key="ageing-m8" role="mutant" exercise="ageing" name="first come, first served"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return arrival


# %% key="ageing-m9" role="mutant" exercise="ageing" name="the promise forgets the service in progress"
class AgeingPriority(AgeingPriority):
    def longest_wait(self, priority, burst, load, longest):
        return burst + load * self.ageing * priority


# %% key="ageing-m10" role="mutant" exercise="ageing" name="the promise forgets those who come later"
class AgeingPriority(AgeingPriority):
    def longest_wait(self, priority, burst, load, longest):
        return longest + burst


# %% key="ageing-m11" role="mutant" exercise="ageing" name="the promise takes the time to overtake for work"
class AgeingPriority(AgeingPriority):
    def longest_wait(self, priority, burst, load, longest):
        return longest + burst + self.ageing * priority


# %% key="ageing-m13" role="mutant" exercise="ageing" name="levels stop at 0"
class AgeingPriority(AgeingPriority):
    def key(self, priority, arrival, queued, now):
        return max(0.0, super().key(priority, arrival, queued, now))


# %% key="ageing-m14" role="mutant" exercise="ageing" name="the promise counts two bursts"
class AgeingPriority(AgeingPriority):
    def longest_wait(self, priority, burst, load, longest):
        return super().longest_wait(priority, burst, load, longest) + burst


# %% [markdown] key="end" lang="en"
# ## Done
#
# Memory in one piece falls into holes; memory in blocks does not, and can be shared, copied when it must, and found again. Your
# pool, your attention and your index are the three parts of what servers call a paged, prefix-cached KV memory, and your last
# class says who may have it first. Next week requests take their blocks with them to another machine.
#
# Hand in this file. Your score: `llmcourse check labs/lab06_memory.ipynb`.
