"""A toy lab master, for the tests of the builder and of the checks."""
# ruff: noqa: F811

# %% [markdown] key="title" lang="en"
# # Lab 99 · A toy lab
#
# It has every part of a lab and teaches nothing.
# %% key="setup" role="setup"
from llmcourse.grading import Served, check, expect_close, expect_equal, expect_raises, expect_true

HEADS = 32


# %% [markdown] key="kv" lang="en" role="exercise" exercise="kv_bytes" points=2 difficulty=2 minutes=10 needs="week 2, part 1"
# ## Exercise 1 · How many bytes does a token leave behind?
#
# Write `kv_bytes(layers, heads, dim, width)`.
# %% [markdown] key="kv-help" lang="en" role="help" exercise="kv_bytes" title="My number is half of what the check expects"
# A cache holds keys *and* values.
# %% key="kv-answer" role="answer" exercise="kv_bytes"
def kv_bytes(layers, heads, dim, width=2):
    """Bytes that one token leaves in the cache."""
    ### BEGIN SOLUTION
    return 2 * layers * heads * dim * width
    ### END SOLUTION


# %% key="kv-check" role="check" exercise="kv_bytes"
@check("kv_bytes")
def grouped_queries(student):
    """Llama 3 8B keeps 8 KV heads."""
    got = student.call("kv_bytes", 32, 8, 128)
    expect_equal(got, 131072, hints={65536: "did you count K but forget V?"})


# %% key="kv-hidden" role="hidden" exercise="kv_bytes"
@check("kv_bytes")
def other_widths(student):
    """One byte a value."""
    expect_equal(student.call("kv_bytes", 3, 5, 7, width=1), 210)


@check("kv_bytes")
def no_layers(student):
    """A model without layers leaves nothing."""
    expect_equal(student.call("kv_bytes", 0, 5, 7), 0)


# %% key="kv-m1" role="mutant" exercise="kv_bytes" name="counts K but forgets V"
def kv_bytes(layers, heads, dim, width=2):
    return layers * heads * dim * width


# %% key="kv-m2" role="mutant" exercise="kv_bytes" name="counts query heads"
def kv_bytes(layers, heads, dim, width=2):
    return 2 * layers * HEADS * dim * width


# %% key="kv-m3" role="mutant" exercise="kv_bytes" name="always two bytes a value"
def kv_bytes(layers, heads, dim, width=2):
    return 2 * layers * heads * dim * 2


# %% [markdown] key="between" lang="en"
# A plain cell may use what the student wrote.
# %% key="demo"
bytes_of_a_prompt = 1000 * kv_bytes(32, 8, 128)


# %% [markdown] key="bucket" lang="en" role="exercise" exercise="bucket" points=3 difficulty=3 minutes=20
# ## Exercise 2 · A token bucket
#
# A class, an object of the checker's, and a generator.
# %% key="bucket-answer" role="answer" exercise="bucket"
class Bucket:
    """A bucket of at most `size` tokens."""

    def __init__(self, size):
        """A full bucket."""
        ### BEGIN SOLUTION
        if size <= 0:
            raise ValueError(f"size {size} is not positive")
        self.size = self.tokens = size
        ### END SOLUTION

    def take(self, count):
        """Whether `count` tokens could be taken."""
        ### BEGIN SOLUTION
        if count > self.tokens:
            return False
        self.tokens -= count
        return True
        ### END SOLUTION


def drain(bucket, clock):
    """Yield the clock's time at each token taken one by one, until the bucket is empty."""
    ### BEGIN SOLUTION
    while bucket.take(1):
        yield clock.now()
    ### END SOLUTION


# %% key="bucket-check" role="check" exercise="bucket"
class Clock:
    """Counts how often it was read."""

    reads = 0

    def now(self):
        self.reads += 1
        return float(self.reads)


@check("bucket")
def empties(student):
    """A bucket of three gives three tokens."""
    bucket, clock = student.new("Bucket", 3), Clock()
    times = list(student.iterate("drain", bucket, Served(clock), limit=10))
    expect_close(times, [1.0, 2.0, 3.0], hints=[([1.0, 2.0], "is the last token left in the bucket?")])
    expect_equal(clock.reads, 3, what="reads of the clock")
    expect_true(bucket.get("tokens") == 0, "the bucket still holds tokens after it was drained")


# %% key="bucket-hidden" role="hidden" exercise="bucket"
@check("bucket")
def refuses(student):
    """A bucket of nothing is refused, naming the size."""
    with expect_raises(ValueError, "a size of 0 makes no bucket: raise ValueError", naming="0"):
        student.new("Bucket", 0)
    expect_equal(student.new("Bucket", 2).call("take", 3), False)


# %% key="bucket-m1" role="mutant" exercise="bucket" name="keeps the last token"
class Bucket(Bucket):
    def take(self, count):
        return count < self.tokens and super().take(count)


# %% key="bucket-m2" role="mutant" exercise="bucket" name="accepts any size"
class Bucket:
    def __init__(self, size):
        self.size = self.tokens = size

    def take(self, count):
        if count > self.tokens:
            return False
        self.tokens -= count
        return True


# %% key="bucket-m3" role="mutant" exercise="bucket" name="reads the clock once"
def drain(bucket, clock):
    now = clock.now()
    while bucket.take(1):
        yield now
