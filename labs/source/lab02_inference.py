"""Lab 2: a KV cache, the loop around it, its price, the roofline, a rate limit, a stream. Built into labs/."""

# %% [markdown] key="title" lang="en"
# # Lab 2 · Inference, the KV cache, and the door of a service
#
# You build the pieces that turn a model into something that can be served: the cache, the loop that uses it, the
# arithmetic that says what it costs, the limit at the gateway, and the stream of text that goes back to the user.
# Your pieces run inside the course's own transformer, engine and service.
#
# **How to work.** Write your answer where `NotImplementedError` stands, run the cell, run the check below it. A check
# that fails says what it asked, what came back, and often which idea went wrong. Stuck? Each folded help is named
# after something you may see or ask: open the one that fits. Exercises do not depend on each other, so you can also
# go on to the next. Some checks are hidden: they try other shapes and edge cases of what the statement says, nothing
# else.
#
# **Your own work.** An answer is built on what the cell below defines and imports, and on nothing else of the package: with
# `from llmcourse… import` in it, it earns nothing. Each answer is judged without the others.
#
# **To see your score:** `llmcourse check labs/lab02_inference.ipynb`. **To hand in:** save the notebook and hand in the
# file.
#
# The lecture of week 2 has the ideas behind all of this.

# %% key="setup" role="setup"
import math

import torch

from llmcourse.engine import Engine, EventKind, SamplingParams, VirtualClock
from llmcourse.executors import MockExecutor
from llmcourse.grading import Served, check, expect_close, expect_equal, expect_true
from llmcourse.kv import BlockPool, ContiguousCache
from llmcourse.model import ModelConfig, Transformer, generate, load_model
from llmcourse.model.attention import causal_mask, scaled_dot_product_attention
from llmcourse.serve import ModelRegistry, Refused, Service

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def small_model(seed=0, layers=3, heads=4, kv_heads=2):
    """A random decoder whose next token depends strongly on all tokens before it."""
    model = Transformer(ModelConfig(vocab_size=97, hidden_size=32, num_layers=layers, num_heads=heads,
                                    num_kv_heads=kv_heads, head_dim=8, intermediate_size=48, max_length=128), seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            parameter.mul_(1.0 if name == "embedding" else 12.0)
    return model


class CountedModel:
    """A model that writes down how many tokens each call ran: `model.calls` is a list of counts."""

    def __init__(self, model):
        self.model, self.calls = model, []

    def __call__(self, tokens, cache=None):
        """Logits (1, T, V) of tokens (1, T); with a cache, the tokens follow what the cache holds."""
        self.calls.append(tokens.shape[1])
        return self.model(tokens, cache)


# %% [markdown] key="cache" lang="en" role="exercise" exercise="kv_cache" points=5 difficulty=3 minutes=25 needs="week 2, part 1"
# ## Exercise 1 · A KV cache
#
# The course's transformer does not know where keys and values are kept. In every forward pass over T new tokens it asks
# an object three things:
#
# 1. once: `positions(T)`, where the new tokens stand: after 5 cached tokens, `positions(2)` is `[5, 6]`;
# 2. in each layer: `attend(layer, q, k, v)`. Store the new `k` and `v`, then let `q` look at **everything** stored in
#    this layer, and return the result;
# 3. once, after the last layer: `advance(T)`: T more tokens are now cached.
#
# ```text
#                 B rows · T new tokens · heads · head size
#    q            (B, T, H,  D)
#    k, v         (B, T, KV, D)      KV may be smaller than H: grouped queries
#    returned     (B, T, H,  D)
# ```
#
# Write the class. Given to you: `scaled_dot_product_attention(q, k, v, mask)`, which accepts fewer KV heads than query
# heads, and `causal_mask(queries, keys)`, which is right when the last query stands at the last key. T may be 1 (a
# decode step), the whole prompt, or a piece of it. Also write `nbytes()`: the bytes of all keys and values stored.

# %% [markdown] key="cache-help-positions" lang="en" role="help" exercise="kv_cache" title="The prompt is right, the tokens after it are not"
# Look at `positions`. RoPE turns each key by its position. If the sixth token is told it stands at position 0, it is
# turned like the first.

# %% [markdown] key="cache-help-layers" lang="en" role="help" exercise="kv_cache" title="It works with one layer and fails with three"
# All layers of one pass work on the same T tokens. Whatever you count must grow once per pass (`advance`), not once per
# layer. And each layer has keys and values of its own.

# %% [markdown] key="cache-help-shape" lang="en" role="help" exercise="kv_cache" title="How do I append to a tensor?"
# `torch.cat([old, new], dim=1)`: axis 1 counts tokens. A list with one entry per layer is enough; the first time there
# is no `old`. (A real cache reserves room first and writes into it, because `cat` copies everything each time.)

# %% key="cache-answer" role="answer" exercise="kv_cache"
class KVCache:
    """Keys and values of all tokens so far, layer by layer."""

    def __init__(self, num_layers):
        """An empty cache for a model of `num_layers` layers."""
        ### BEGIN SOLUTION
        self.keys = [None] * num_layers
        self.values = [None] * num_layers
        self.length = 0
        ### END SOLUTION

    def positions(self, count):
        """Positions of the next `count` tokens: (count,) int64."""
        ### BEGIN SOLUTION
        return torch.arange(self.length, self.length + count)
        ### END SOLUTION

    def attend(self, layer, q, k, v):
        """Store k and v (B, T, KV, D), then let q (B, T, H, D) look at all that is stored: (B, T, H, D)."""
        ### BEGIN SOLUTION
        if self.keys[layer] is not None:
            k = torch.cat([self.keys[layer], k], dim=1)
            v = torch.cat([self.values[layer], v], dim=1)
        self.keys[layer], self.values[layer] = k, v
        return scaled_dot_product_attention(q, k, v, causal_mask(q.shape[1], k.shape[1]))
        ### END SOLUTION

    def advance(self, count):
        """All layers have stored `count` more tokens."""
        ### BEGIN SOLUTION
        self.length += count
        ### END SOLUTION

    def nbytes(self):
        """Bytes of all keys and values stored."""
        ### BEGIN SOLUTION
        stored = [tensor for tensor in self.keys + self.values if tensor is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in stored)
        ### END SOLUTION


# %% key="cache-check" role="check" exercise="kv_cache"
class Through:
    """Lets a real model use the student's cache."""

    def __init__(self, handle):
        self.handle = handle

    def positions(self, count):
        return self.handle.call("positions", count)

    def attend(self, layer, q, k, v):
        return self.handle.call("attend", layer, q, k, v)

    def advance(self, count):
        self.handle.call("advance", count)


def logits_in_pieces(student, model, tokens, pieces):
    """Logits (B, T, V) of tokens (B, T) run in pieces through one cache of the student's."""
    cache = Through(student.new("KVCache", model.config.num_layers))
    return torch.cat([model(piece, cache) for piece in tokens.split(pieces, dim=1)], dim=1)


def random_qkv(seed, tokens, heads=4, kv_heads=2, rows=1):
    """Random q, k, v of `tokens` new tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, tokens, count, 8, generator=generator) for count in (heads, kv_heads, kv_heads)]


@check("kv_cache")
def caches_do_not_share(student):
    """Two caches are used in turn, and know nothing of each other."""
    one, two, first, second = student.new("KVCache", 1), student.new("KVCache", 1), random_qkv(6, 4), random_qkv(7, 3)
    one.call("attend", 0, *first)
    one.call("advance", 4)
    expect_equal(two.call("positions", 1), torch.tensor([0]), what="first position of a second, unused cache")
    (q, k, v), mask = second, causal_mask(3, 3)
    both = torch.cat([first[1], k], 1), torch.cat([first[2], v], 1)
    expect_close(two.call("attend", 0, *second), scaled_dot_product_attention(q, k, v, mask), 1e-5, hints=[
        (scaled_dot_product_attention(q, *both, causal_mask(3, 7)), "it sees what another cache stored: do all caches share "
         "a list?"),
        (scaled_dot_product_attention(q, k, v), "a token sees those behind it: the future is not hidden")])


@check("kv_cache")
def positions_go_on(student):
    """After 5 tokens the next two stand at 5 and 6."""
    cache = student.new("KVCache", 2)
    expect_equal(cache.call("positions", 5), torch.arange(5), what="positions(5) of an empty cache")
    cache.call("attend", 0, *random_qkv(0, 5))
    cache.call("attend", 1, *random_qkv(1, 5))
    cache.call("advance", 5)
    expect_equal(cache.call("positions", 2), torch.tensor([5, 6]), what="positions(2) after 5 tokens", hints=[
        (torch.tensor([0, 1]), "positions start at 0 in every call: new tokens stand behind the cached ones"),
        (torch.tensor([10, 11]), "two layers stored the same 5 tokens, and they were counted twice: count in advance"),
        (torch.tensor([15, 16]), "5 tokens were counted in each layer and in advance: count in advance only")])


@check("kv_cache")
def a_new_token_sees_all(student):
    """One new token looks at every cached token and at itself."""
    cache, (q, k, v), (q2, k2, v2) = student.new("KVCache", 1), random_qkv(1, 3), random_qkv(2, 1)
    cache.call("attend", 0, q, k, v)
    cache.call("advance", 3)
    want = scaled_dot_product_attention(q2, torch.cat([k, k2], 1), torch.cat([v, v2], 1))
    expect_close(cache.call("attend", 0, q2, k2, v2), want, 1e-5, hints=[
        (scaled_dot_product_attention(q2, k, v), "the new token does not see itself: store k and v first, then attend"),
        (scaled_dot_product_attention(q2, k2, v2), "the new token sees only itself: the stored keys are never read"),
        (scaled_dot_product_attention(q2, k[:, :1], v[:, :1]), "the new token sees only the first key: the last query "
         "stands at the last key, not at the first")])


@check("kv_cache")
def new_tokens_stay_in_order(student):
    """Of two new tokens behind three, the first does not see the second."""
    cache, (q, k, v), (q2, k2, v2) = student.new("KVCache", 1), random_qkv(1, 3), random_qkv(2, 2)
    cache.call("attend", 0, q, k, v)
    cache.call("advance", 3)
    keys, values = torch.cat([k, k2], 1), torch.cat([v, v2], 1)
    want = scaled_dot_product_attention(q2, keys, values, causal_mask(2, 5))
    expect_close(cache.call("attend", 0, q2, k2, v2), want, 1e-5, hints=[
        (scaled_dot_product_attention(q2, keys, values), "the first new token sees the second: mask every piece, not only "
         "the first one"),
        (scaled_dot_product_attention(q2, keys, values, torch.ones(2, 5).tril().bool()), "the mask puts the first query at "
         "the first key: the last query stands at the last key")])


@check("kv_cache")
def a_real_model_cannot_tell(student):
    """A model of 3 layers gives the same logits: a prompt of 5, then token by token."""
    model, tokens = small_model(), torch.randint(97, (1, 9), generator=torch.Generator().manual_seed(3))
    got = logits_in_pieces(student, model, tokens, [5, 1, 1, 1, 1])
    expect_close(got[:, :5], model(tokens)[:, :5], 1e-4, what="logits of the prompt (is the future hidden?)")
    expect_close(got[:, 5:], model(tokens)[:, 5:], 1e-4, what="logits of the tokens after the prompt")


@check("kv_cache")
def bytes_of_six_tokens(student):
    """6 tokens, 3 layers, 2 KV heads of size 8, float32: 2304 bytes."""
    model, cache = small_model(), student.new("KVCache", 3)
    expect_equal(cache.call("nbytes"), 0, what="bytes of an empty cache")
    model(torch.arange(6)[None], Through(cache))
    expect_equal(cache.call("nbytes"), 2304, hints={
        1152: "half of it: did you count K but forget V?", 4608: "twice as much: 4 query heads read the cache, but only "
        "2 KV heads have to be stored", 768: "a third of it: is every layer counted?", 576: "are these values, not bytes?"})


# %% key="cache-hidden" role="hidden" exercise="kv_cache"
@check("kv_cache")
def pieces_of_any_size(student):
    """A prompt in pieces of 1, 4 and 3 tokens hides the future inside each piece."""
    for heads, kv_heads in ((4, 4), (4, 1), (6, 2)):
        model = small_model(1, 2, heads, kv_heads)
        tokens = torch.randint(97, (1, 10), generator=torch.Generator().manual_seed(4))
        got = logits_in_pieces(student, model, tokens, [1, 4, 3, 2])
        expect_close(got, model(tokens), 1e-4, what=f"logits with {heads} query heads and {kv_heads} KV heads")


@check("kv_cache")
def rows_stay_apart(student):
    """Two texts side by side, each sees its own past."""
    model, tokens = small_model(2), torch.randint(97, (2, 7), generator=torch.Generator().manual_seed(5))
    expect_close(logits_in_pieces(student, model, tokens, [4, 2, 1]), model(tokens), 1e-4, what="logits of two rows")


@check("kv_cache")
def bytes_follow_the_precision(student):
    """Float64 takes 8 bytes a value."""
    cache, (q, k, v) = student.new("KVCache", 1), random_qkv(7, 3)
    cache.call("attend", 0, q.double(), k.double(), v.double())
    cache.call("advance", 3)
    expect_equal(cache.call("nbytes"), 2 * 3 * 2 * 8 * 8, hints={2 * 3 * 2 * 8 * 4: "are all values 4 bytes wide?"})


# %% key="cache-m1" role="mutant" exercise="kv_cache" name="attends before it stores: a token does not see itself"
class KVCache(KVCache):
    def attend(self, layer, q, k, v):
        old_k, old_v = self.keys[layer], self.values[layer]
        result = super().attend(layer, q, k, v)
        if old_k is None:
            return result
        return scaled_dot_product_attention(q, old_k, old_v)


# %% key="cache-m2" role="mutant" exercise="kv_cache" name="counts K but forgets V"
class KVCache(KVCache):
    def nbytes(self):
        return sum(k.numel() * k.element_size() for k in self.keys if k is not None)


# %% key="cache-m3" role="mutant" exercise="kv_cache" name="grows once per layer, before the other layers have read"
class KVCache(KVCache):
    def attend(self, layer, q, k, v):
        self.length += k.shape[1]
        return super().attend(layer, q, k, v)

    def advance(self, count):
        pass


# %% key="cache-m4" role="mutant" exercise="kv_cache" name="positions start at 0 in every call"
class KVCache(KVCache):
    def positions(self, count):
        return torch.arange(count)


# %% key="cache-m5" role="mutant" exercise="kv_cache" name="no mask: tokens of a prompt see the future"
class KVCache(KVCache):
    def attend(self, layer, q, k, v):
        super().attend(layer, q, k, v)
        return scaled_dot_product_attention(q, self.keys[layer], self.values[layer])


# %% key="cache-m6" role="mutant" exercise="kv_cache" name="stores a copy of K and V for every query head"
class KVCache(KVCache):
    def attend(self, layer, q, k, v):
        group = q.shape[2] // k.shape[2]
        return super().attend(layer, q, k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2))


# %% key="cache-m7" role="mutant" exercise="kv_cache" name="stores everything and reads nothing"
class KVCache(KVCache):
    def attend(self, layer, q, k, v):
        super().attend(layer, q, k, v)
        return scaled_dot_product_attention(q, k, v, causal_mask(q.shape[1], k.shape[1]))


# %% key="cache-m8" role="mutant" exercise="kv_cache" name="one store for all caches"
_KEYS, _VALUES = [None] * 8, [None] * 8


class KVCache(KVCache):
    def __init__(self, num_layers):
        self.keys, self.values, self.length = _KEYS, _VALUES, 0


# %% key="cache-m9" role="mutant" exercise="kv_cache" name="mask that puts the first query at the first key"
class KVCache(KVCache):
    def attend(self, layer, q, k, v):
        super().attend(layer, q, k, v)
        keys = self.keys[layer]
        mask = torch.ones(q.shape[1], keys.shape[1], dtype=torch.bool).tril()
        return scaled_dot_product_attention(q, keys, self.values[layer], mask)


# %% key="cache-m10" role="mutant" exercise="kv_cache" name="hides the future only while the cache is empty"
class KVCache(KVCache):
    def attend(self, layer, q, k, v):
        first = self.keys[layer] is None
        result = super().attend(layer, q, k, v)
        return result if first else scaled_dot_product_attention(q, self.keys[layer], self.values[layer])


# %% [markdown] key="loop" lang="en" role="exercise" exercise="cached_decoding" points=3 difficulty=2 minutes=15 needs="week 2, part 1"
# ## Exercise 2 · The decode loop
#
# A cache saves nothing by itself. Write greedy decoding that uses one: `model(tokens, cache)` takes a tensor of new
# tokens (1, T), lets them see what the cache holds, adds them to it, and returns logits (1, T, V) for these T tokens
# only. The `cache` you are given is empty and has room enough (it is the course's, not yours from exercise 1).
#
# - First the whole prompt, in one call. Then one token a call.
# - Each token is the likeliest after the last one (`argmax`).
# - Stop after `max_tokens` new tokens, or after a token that is in `eos_ids`; that token belongs to the answer.
# - No token is run twice, and none is run in vain: nobody asks what follows the last token of the answer.
#
# Return the list of new tokens. The check counts every token that the model runs.

# %% [markdown] key="loop-help-count" lang="en" role="help" exercise="cached_decoding" title="The tokens are right but too many were run"
# With the cache in hand a call only needs the tokens that are *not* in it yet: the newest one. For a prompt of 6 and 5
# new tokens the calls run 6, 1, 1, 1, 1 tokens: 10 in all. Without a cache it would be 6 + 7 + 8 + 9 + 10 = 40.

# %% [markdown] key="loop-help-shape" lang="en" role="help" exercise="cached_decoding" title="RuntimeError or TypeError about shapes"
# `torch.tensor([prompt])` has shape (1, T); `logits[0, -1]` is the row of scores behind the last token;
# `int(logits[0, -1].argmax())` is a plain number.

# %% [markdown] key="loop-help-try" lang="en" role="help" exercise="cached_decoding" title="How can I try it out myself?"
# In a new cell:
#
# ```python
# model = CountedModel(small_model())
# generate_cached(model, ContiguousCache(model.model.config, 64), [1, 2, 3], 5), model.calls
# ```

# %% key="loop-answer" role="answer" exercise="cached_decoding"
def generate_cached(model, cache, prompt, max_tokens, eos_ids=()):
    """New tokens (list of int) that greedily follow `prompt` (list of int); each token is run once at most."""
    ### BEGIN SOLUTION
    output, new = [], list(prompt)
    while True:
        logits = model(torch.tensor([new]), cache)
        token = int(logits[0, -1].argmax())
        output.append(token)
        if len(output) == max_tokens or token in eos_ids:
            return output
        new = [token]
    ### END SOLUTION


# %% key="loop-check" role="check" exercise="cached_decoding"
class Forgetful(ContiguousCache):
    """A cache that loses what it holds: after the prompt, the stored keys and values are replaced by others."""

    def advance(self, count):
        super().advance(count)
        if self.length == count:
            self.keys[:, :, :count] = self.keys[:, :, :count].flip(2)
            self.values[:, :, :count] = -self.values[:, :, :count]


def answer(student, model, prompt, max_tokens, eos_ids=(), kind=ContiguousCache):
    """The student's answer, and how many tokens each of its calls ran."""
    counted, cache = CountedModel(model), kind(model.config, 120)
    got = student.call("generate_cached", Served(counted), Served(cache), prompt, max_tokens, list(eos_ids))
    return got, counted.calls


@check("cached_decoding")
def equals_uncached(student):
    """The tokens are those of a model without a cache."""
    model, prompt = small_model(), [5, 17, 3, 80, 41, 8]
    want = generate(model, prompt, 10, use_cache=False)
    expect_equal(answer(student, model, prompt, 10)[0], want, hints=[
        (generate(model, prompt[-1:], 10), "these tokens follow the last token of the prompt alone: run the whole prompt first"),
        (want[:-1], "one token short: max_tokens counts new tokens")])


@check("cached_decoding")
def runs_each_token_once(student):
    """A prompt of 6 and 5 new tokens take calls of 6, 1, 1, 1 and 1 tokens."""
    got, calls = answer(student, small_model(), [5, 17, 3, 80, 41, 8], 5)
    expect_equal(len(got), 5, what="new tokens")
    expect_equal(calls, [6, 1, 1, 1, 1], what="tokens run in each call of the model", hints=[
        ([6, 7, 8, 9, 10], "every call runs the whole text again: the cache saves nothing"),
        ([6, 6, 1, 7, 1, 8, 1, 9, 1, 10], "the cache is filled for show: the answer comes from running everything again"),
        ([6, 1, 1, 1, 1, 1], "the last token was run too, though nobody asks what follows it"),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "the prompt went in token by token: one call can run all of it")])


@check("cached_decoding")
def really_reads_the_cache(student):
    """Somebody alters the cache behind the prompt: the answer must change with it."""
    model, prompt = small_model(), [5, 17, 3, 80, 41, 8]
    got, _ = answer(student, model, prompt, 8, kind=Forgetful)
    expect_true(got != generate(model, prompt, 8), "the answer is as if nothing had happened to the cache: it is computed "
                "anew, and the cache is never read")


@check("cached_decoding")
def course_tiny_counts(student):
    """The course's own model counts from 3 to 9 with your loop."""
    model, tokenizer = load_model("course-tiny", device="cpu")
    prompt = tokenizer.encode_prompt("Count from 3 to 9.")
    got, calls = answer(student, model, prompt, 60, tokenizer.eos_ids)
    expect_equal(got, generate(model, prompt, 60, eos_ids=tokenizer.eos_ids), what="tokens of course-tiny")
    expect_equal(sum(calls), len(prompt) + len(got) - 1, what="tokens that course-tiny ran")


# %% key="loop-hidden" role="hidden" exercise="cached_decoding"
def reference(model, cache, prompt, max_tokens):
    """What an honest loop answers with this cache."""
    output, new = [], prompt
    for _ in range(max_tokens):
        output.append(int(model(torch.tensor([new]), cache)[0, -1].argmax()))
        new = output[-1:]
    return output


@check("cached_decoding")
def follows_an_altered_cache(student):
    """With an altered cache the answer is the one that this cache leads to."""
    model, prompt = small_model(6), [11, 4, 70, 2]
    altered = reference(model, Forgetful(model.config, 120), prompt, 8)
    expect_equal(answer(student, model, prompt, 8, kind=Forgetful)[0], altered, hints=[
        (generate(model, prompt, 8), "the answer is as if nothing had happened to the cache: the cache is never read")])


@check("cached_decoding")
def stops_at_the_end_token(student):
    """A token of eos_ids ends the answer and belongs to it; nothing is run after it."""
    model, prompt = small_model(4), [9, 2, 33]
    free = generate(model, prompt, 12)
    stop = next(token for token in free if free.index(token) >= 2)
    end = free.index(stop) + 1
    got, calls = answer(student, model, prompt, 12, eos_ids=[stop])
    expect_equal(got, free[:end], what="answer up to the end token", hints=[
        (free[:end - 1], "the end token itself is missing: it belongs to the answer"), (free, "it went on after the end token")])
    expect_equal(calls, [3] + [1] * (end - 1), what="tokens run in each call")


@check("cached_decoding")
def edges(student):
    """A prompt of one token; an answer of one token."""
    model = small_model(5)
    expect_equal(answer(student, model, [7], 4), (generate(model, [7], 4), [1, 1, 1, 1]), what="prompt of one token")
    expect_equal(answer(student, model, [7, 8, 9], 1), (generate(model, [7, 8, 9], 1), [3]), what="answer of one token")


# %% key="loop-m1" role="mutant" exercise="cached_decoding" name="recomputes everything beside a cache that is never read"
def generate_cached(model, cache, prompt, max_tokens, eos_ids=()):
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_tokens:
        token = int(model(torch.tensor([tokens]))[0, -1].argmax())
        tokens.append(token)
        if token in eos_ids:
            break
    return tokens[len(prompt):]


# %% key="loop-m2" role="mutant" exercise="cached_decoding" name="fills the cache for show, and recomputes"
def generate_cached(model, cache, prompt, max_tokens, eos_ids=()):
    tokens, new = list(prompt), list(prompt)
    while len(tokens) < len(prompt) + max_tokens:
        model(torch.tensor([new]), cache)
        token = int(model(torch.tensor([tokens]))[0, -1].argmax())
        tokens.append(token)
        new = [token]
        if token in eos_ids:
            break
    return tokens[len(prompt):]


# %% key="loop-m3" role="mutant" exercise="cached_decoding" name="feeds the whole text to a cache that already holds it"
def generate_cached(model, cache, prompt, max_tokens, eos_ids=()):
    tokens = list(prompt)
    while len(tokens) < len(prompt) + max_tokens and cache.length + len(tokens) <= 120:
        token = int(model(torch.tensor([tokens]), cache)[0, -1].argmax())
        tokens.append(token)
        if token in eos_ids:
            break
    return tokens[len(prompt):]


# %% key="loop-m4" role="mutant" exercise="cached_decoding" name="runs only the last token of the prompt"
_generate_cached = generate_cached


def generate_cached(model, cache, prompt, max_tokens, eos_ids=()):
    return _generate_cached(model, cache, prompt[-1:], max_tokens, eos_ids)


# %% key="loop-m5" role="mutant" exercise="cached_decoding" name="runs the last token of the answer too"
def generate_cached(model, cache, prompt, max_tokens, eos_ids=()):
    output, new = [], list(prompt)
    logits = model(torch.tensor([new]), cache)
    while len(output) < max_tokens:
        output.append(int(logits[0, -1].argmax()))
        if output[-1] in eos_ids:
            break
        logits = model(torch.tensor([output[-1:]]), cache)
    return output


# %% key="loop-m6" role="mutant" exercise="cached_decoding" name="drops the end token"
_generate_cached = generate_cached


def generate_cached(model, cache, prompt, max_tokens, eos_ids=()):
    output = _generate_cached(model, cache, prompt, max_tokens, eos_ids)
    return output[:-1] if output[-1] in eos_ids else output


# %% [markdown] key="memory" lang="en" role="exercise" exercise="memory" points=3 difficulty=2 minutes=15 needs="week 2, part 3"
# ## Exercise 3 · What fits on a GPU
#
# Every model on the Hugging Face hub has a `config.json`. From it alone you can tell how much memory the model will
# need. `config` is that file as a dictionary; these entries matter:
#
# | entry | Llama 3 8B | |
# |:--|--:|:--|
# | `num_hidden_layers` | 32 | layers |
# | `hidden_size` | 4096 | width of the residual stream, *d* |
# | `num_attention_heads` | 32 | query heads |
# | `num_key_value_heads` | 8 | KV heads |
# | `head_dim` | 128 | size of one head |
# | `intermediate_size` | 14336 | width inside the feed-forward network, *f* |
# | `vocab_size` | 128256 | tokens |
# | `tie_word_embeddings` | False | True: the output layer is the embedding itself |
#
# Write three functions:
#
# 1. `kv_bytes_per_token(config, bytes_per_value)`: what one token leaves in the cache.
# 2. `weight_bytes(config, bytes_per_value)`: embedding; in each layer the query, key, value and output matrices (the
#    first three lead from *d* to their heads, the last from the query heads back to *d*), **three** matrices *d* × *f*
#    (gate, up, down), two norms of *d*; one final norm of *d*; and an output layer, unless it is tied. No biases.
# 3. `requests_that_fit(config, gpu_bytes, context, bytes_per_value)`: how many requests of `context` tokens each have
#    room for their KV cache beside the weights. A whole number, never negative.

# %% [markdown] key="memory-help-half" lang="en" role="help" exercise="memory" title="My KV number is half, or four times, what is expected"
# Half: a token leaves a key **and** a value. Four times: only KV heads are stored; several query heads share one. Both
# mistakes stand in many slides ("layers × length × heads × head size × bytes").

# %% [markdown] key="memory-help-weights" lang="en" role="help" exercise="memory" title="My weights are a little off"
# Write down the shape of every matrix of one layer: q (d, heads·D), k (d, kv_heads·D), v (d, kv_heads·D), o (heads·D, d),
# gate (d, f), up (d, f), down (f, d). `heads·D` need not equal *d*. Llama 3 8B has 8,030,261,248 parameters.

# %% key="memory-answer" role="answer" exercise="memory"
def kv_bytes_per_token(config, bytes_per_value=2):
    """Bytes that one token leaves in the KV cache."""
    ### BEGIN SOLUTION
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * bytes_per_value
    ### END SOLUTION


def weight_bytes(config, bytes_per_value=2):
    """Bytes of all weights."""
    ### BEGIN SOLUTION
    d, f = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    layer = 2 * d * q + 2 * d * kv + 3 * d * f + 2 * d
    embeddings = config["vocab_size"] * d * (1 if config["tie_word_embeddings"] else 2)
    return (config["num_hidden_layers"] * layer + embeddings + d) * bytes_per_value
    ### END SOLUTION


def requests_that_fit(config, gpu_bytes, context, bytes_per_value=2):
    """How many requests of `context` tokens find room for their KV beside the weights."""
    ### BEGIN SOLUTION
    free = gpu_bytes - weight_bytes(config, bytes_per_value)
    return max(0, int(free // (kv_bytes_per_token(config, bytes_per_value) * context)))
    ### END SOLUTION


# %% key="memory-check" role="check" exercise="memory"
def config_json(layers, d, heads, kv_heads, head_dim, f, vocab, tied=False):
    """A config.json as a dictionary."""
    return {"num_hidden_layers": layers, "hidden_size": d, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "head_dim": head_dim, "intermediate_size": f, "vocab_size": vocab, "tie_word_embeddings": tied}


LLAMA_3_8B = config_json(32, 4096, 32, 8, 128, 14336, 128256)
LLAMA_2_7B = config_json(32, 4096, 32, 32, 128, 11008, 32000)


@check("memory")
def kv_of_llama_3(student):
    """Llama 3 8B keeps 8 KV heads for its 32 query heads: 128 KiB a token in 16 bits."""
    expect_equal(student.call("kv_bytes_per_token", LLAMA_3_8B, 2), 131072, hints={
        65536: "did you count K but forget V?", 524288: "you counted query heads; only KV heads are stored",
        262144: "K without V, and query heads instead of KV heads: two mistakes that nearly hide each other",
        4096: "is every layer counted?"})


@check("memory")
def weights_of_two_llamas(student):
    """8,030,261,248 parameters of Llama 3 8B and 6,738,415,616 of Llama 2 7B, 2 bytes each."""
    d, layers, f, vocab = 4096, 32, 14336, 128256
    want = 2 * 8030261248
    expect_equal(student.call("weight_bytes", LLAMA_3_8B, 2), want, hints={
        want // 2: "these are parameters, not bytes", want - 2 * vocab * d: "the output layer of its own is missing",
        want - 2 * layers * d * f: "the feed-forward network has three matrices: gate, up and down",
        want + 2 * layers * 2 * d * 3072: "key and value matrices lead to the KV heads only"})
    expect_equal(student.call("weight_bytes", LLAMA_2_7B, 2), 2 * 6738415616, what="weights of Llama 2 7B")


@check("memory")
def requests_on_one_gpu(student):
    """Beside Llama 3 8B, 80 GB hold the KV of 59 requests of 8,192 tokens."""
    expect_equal(student.call("requests_that_fit", LLAMA_3_8B, 80e9, 8192, 2), 59, hints={
        74: "the weights have to fit too", 60: "the last request does not fit as a whole: round down",
        488281: "each request has `context` tokens, not one"})


@check("memory")
def a_real_cache_agrees(student):
    """A real model and a real cache of the course take as many bytes as you say."""
    model = small_model()
    config = config_json(3, 32, 4, 2, 8, 48, 97)
    cache = ContiguousCache(model.config, 64)
    model(torch.arange(10)[None], cache)
    expect_equal(student.call("kv_bytes_per_token", config, 4) * 10, cache.used_bytes, what="KV of 10 tokens in float32")
    held = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    expect_equal(student.call("weight_bytes", config, 4), held, what="bytes of the model's tensors")


# %% key="memory-hidden" role="hidden" exercise="memory"
@check("memory")
def other_models(student):
    """Llama 2 70B, a tied model with odd heads, and a multi-query model."""
    llama_2_70b = config_json(80, 8192, 64, 8, 128, 28672, 32000)
    expect_equal(student.call("kv_bytes_per_token", llama_2_70b, 2), 327680, what="KV a token, Llama 2 70B")
    expect_equal(student.call("weight_bytes", llama_2_70b, 2), 2 * 68976648192, what="weights of Llama 2 70B")
    odd = config_json(5, 96, 6, 1, 32, 200, 1000, tied=True)
    expect_equal(student.call("kv_bytes_per_token", odd, 1), 2 * 5 * 32, what="KV a token, multi-query, 8 bits")
    per_layer = 2 * 96 * 192 + 2 * 96 * 32 + 3 * 96 * 200 + 2 * 96
    expect_equal(student.call("weight_bytes", odd, 4), 4 * (5 * per_layer + 1000 * 96 + 96), what="weights, tied", hints={
        4 * (5 * per_layer + 2000 * 96 + 96): "tied embeddings are stored once"})


@check("memory")
def when_nothing_fits(student):
    """A model larger than the GPU holds no request; a bare fit counts."""
    expect_equal(student.call("requests_that_fit", LLAMA_3_8B, 15e9, 1024, 2), 0, what="requests beside too large a model")
    exact = 2 * 8030261248 + 3 * 131072 * 1000
    expect_equal(student.call("requests_that_fit", LLAMA_3_8B, exact, 1000, 2), 3, what="requests that fit to the byte")
    expect_equal(student.call("requests_that_fit", LLAMA_3_8B, exact - 1, 1000, 2), 2, what="one byte less")


# %% key="memory-m1" role="mutant" exercise="memory" name="K without V"
def kv_bytes_per_token(config, bytes_per_value=2):
    return config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * bytes_per_value


# %% key="memory-m2" role="mutant" exercise="memory" name="query heads instead of KV heads"
def kv_bytes_per_token(config, bytes_per_value=2):
    return 2 * config["num_hidden_layers"] * config["num_attention_heads"] * config["head_dim"] * bytes_per_value


# %% key="memory-m3" role="mutant" exercise="memory" name="a feed-forward network of two matrices"
_weight_bytes = weight_bytes


def weight_bytes(config, bytes_per_value=2):
    third = config["num_hidden_layers"] * config["hidden_size"] * config["intermediate_size"] * bytes_per_value
    return _weight_bytes(config, bytes_per_value) - third


# %% key="memory-m4" role="mutant" exercise="memory" name="counts tied embeddings twice"
_weight_bytes = weight_bytes


def weight_bytes(config, bytes_per_value=2):
    return _weight_bytes(config | {"tie_word_embeddings": False}, bytes_per_value)


# %% key="memory-m5" role="mutant" exercise="memory" name="forgets that the weights need room"
def requests_that_fit(config, gpu_bytes, context, bytes_per_value=2):
    return int(gpu_bytes // (kv_bytes_per_token(config, bytes_per_value) * context))


# %% key="memory-m6" role="mutant" exercise="memory" name="rounds up to a request that does not fit"
def requests_that_fit(config, gpu_bytes, context, bytes_per_value=2):
    free = gpu_bytes - weight_bytes(config, bytes_per_value)
    return max(0, int(-(-free // (kv_bytes_per_token(config, bytes_per_value) * context))))


# %% key="memory-m7" role="mutant" exercise="memory" name="takes heads times head size for the model's width"
_weight_bytes = weight_bytes


def weight_bytes(config, bytes_per_value=2):
    return _weight_bytes(config | {"head_dim": config["hidden_size"] // config["num_attention_heads"]}, bytes_per_value)


# %% key="memory-m8" role="mutant" exercise="memory" name="owes requests to a GPU that is too small"
def requests_that_fit(config, gpu_bytes, context, bytes_per_value=2):
    free = gpu_bytes - weight_bytes(config, bytes_per_value)
    return int(free // (kv_bytes_per_token(config, bytes_per_value) * context))


# %% [markdown] key="roofline" lang="en" role="exercise" exercise="roofline" points=4 difficulty=3 minutes=20 needs="week 2, part 2"
# ## Exercise 4 · Which limit holds?
#
# A GPU does at most `peak` floating point operations and moves at most `bandwidth` bytes in a second. A step of a
# server is a `batch`: a list of pairs `(new, cached)`, one for each request: it computes `new` tokens behind `cached`
# ones. A prefill of 1,000 tokens is `[(1000, 0)]`; a decode step of 32 requests is `[(1, 1000)] * 32`.
#
# `model` is a dictionary: `parameters`, `layers`, `heads`, `kv_heads`, `head_dim`, and `bytes` per value.
#
# 1. `step_flops(model, batch)`: every new token costs `2 · parameters` (one multiplication and one addition each), and in
#    each layer `4 · heads · head_dim` for every token it looks at (half for the scores, half for the weighted sum). A
#    new token looks at all cached tokens, at the new ones before it, and at itself.
# 2. `step_bytes(model, batch)`: all weights are read **once** a step, and of every request the keys and values of its
#    `cached + new` tokens are read or written once.
# 3. `bound(flops, bytes_moved, peak, bandwidth)`: `"compute"` or `"memory"`, whichever takes longer alone.
# 4. `smallest_compute_bound_batch(model, context, peak, bandwidth, limit)`: the smallest number of requests, each
#    decoding one token behind `context` cached ones, whose step is bound by compute; `None` if it is none up to `limit`.
#
# Before you run the last check, guess: for a context of 4,096 tokens, how large must the batch be?

# %% [markdown] key="roofline-help-causal" lang="en" role="help" exercise="roofline" title="My prefill has too many FLOPs, my decode is right"
# The first of `n` new tokens sees itself, the second sees two, … the last sees n: 1 + 2 + … + n = n (n + 1) / 2, and each
# also sees all cached tokens.

# %% [markdown] key="roofline-help-batch" lang="en" role="help" exercise="roofline" title="My intensity does not grow with the batch"
# The point of a batch is that the weights are read once for all of it. The KV caches cannot be shared: each request
# reads its own.

# %% key="roofline-answer" role="answer" exercise="roofline"
def step_flops(model, batch):
    """Floating point operations of one step."""
    ### BEGIN SOLUTION
    tokens = sum(new for new, _ in batch)
    seen = sum(new * cached + new * (new + 1) // 2 for new, cached in batch)
    return 2 * model["parameters"] * tokens + 4 * model["layers"] * model["heads"] * model["head_dim"] * seen
    ### END SOLUTION


def step_bytes(model, batch):
    """Bytes that one step moves."""
    ### BEGIN SOLUTION
    kv_per_token = 2 * model["layers"] * model["kv_heads"] * model["head_dim"] * model["bytes"]
    return model["parameters"] * model["bytes"] + kv_per_token * sum(new + cached for new, cached in batch)
    ### END SOLUTION


def bound(flops, bytes_moved, peak, bandwidth):
    """What takes longer alone: "compute" or "memory"."""
    ### BEGIN SOLUTION
    return "compute" if flops / peak > bytes_moved / bandwidth else "memory"
    ### END SOLUTION


def smallest_compute_bound_batch(model, context, peak, bandwidth, limit=4096):
    """Fewest decoding requests that are bound by compute, or None."""
    ### BEGIN SOLUTION
    for requests in range(1, limit + 1):
        batch = [(1, context)] * requests
        if bound(step_flops(model, batch), step_bytes(model, batch), peak, bandwidth) == "compute":
            return requests
    return None
    ### END SOLUTION


# %% key="roofline-check" role="check" exercise="roofline"
MODEL_8B = {"parameters": 8030261248, "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128, "bytes": 2}
A100 = (312e12, 2.039e12)


class ByDefinition(ContiguousCache):
    """A cache that attends in plain matrix products, which PyTorch's counter sees one by one."""

    def attend(self, layer, q, k, v):
        super().attend(layer, q, k, v)
        end = self.length + q.shape[1]
        return scaled_dot_product_attention(q, self.keys[layer, :, :end], self.values[layer, :, :end])


@check("roofline")
def flops_of_a_real_decode_step(student):
    """PyTorch counts the operations of a real model's decode step; you count the same."""
    from torch.utils.flop_counter import FlopCounterMode
    model = small_model(kv_heads=4)
    cache = ByDefinition(model.config, 64)
    model(torch.arange(20)[None], cache)
    with FlopCounterMode(display=False) as counter:
        model(torch.tensor([[1]]), cache)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and name != "embedding")
    mine = {"parameters": matrices, "layers": 3, "heads": 4, "kv_heads": 4, "head_dim": 8, "bytes": 4}
    want = counter.get_total_flops()
    expect_equal(student.call("step_flops", mine, [(1, 20)]), want, hints={
        want // 2: "a multiplication and an addition are two operations", 2 * matrices: "what does attention cost?",
        want - 3 * 4 * 4 * 8: "the new token also looks at itself"})


@check("roofline")
def flops_of_a_prefill(student):
    """A prompt of 1,000 tokens: token i looks at i tokens."""
    per_seen = 4 * 32 * 32 * 128
    want = 2 * 8030261248 * 1000 + per_seen * 500500
    expect_equal(student.call("step_flops", MODEL_8B, [(1000, 0)]), want, hints={
        2 * 8030261248 * 1000 + per_seen * 1000000: "every token looked at the whole prompt: the future is hidden",
        2 * 8030261248 * 1000 + per_seen * 499500: "a token also looks at itself",
        2 * 8030261248 * 1000: "what does attention cost?"})


@check("roofline")
def bytes_of_a_batch(student):
    """32 requests share the weights, and nothing else."""
    kv = 131072 * 1001
    want = 2 * 8030261248 + 32 * kv
    expect_equal(student.call("step_bytes", MODEL_8B, [(1, 1000)] * 32), want, hints={
        32 * (2 * 8030261248 + kv): "the weights are read once a step, not once a request",
        2 * 8030261248 + kv: "each request reads its own keys and values: a cache is not shared",
        2 * 8030261248 + 32 * kv // 2: "keys and values: both are read",
        2 * 8030261248 + 128 * kv: "only KV heads are stored, 8 and not 32"})


@check("roofline")
def prefill_and_decode_on_an_a100(student):
    """Prefill of 1,000 tokens is bound by compute, decoding one request by memory."""
    for batch, want in (([(1000, 0)], "compute"), ([(1, 1000)], "memory"), ([(1, 1000)] * 32, "memory")):
        flops, moved = student.call("step_flops", MODEL_8B, batch), student.call("step_bytes", MODEL_8B, batch)
        got = student.call("bound", flops, moved, *A100)
        expect_equal(got, want, what=f"bound of {len(batch)} requests of {batch[0]} (new, cached)", hints={
            "memory" if want == "compute" else "compute": f"arithmetic alone takes {flops / A100[0]:.2g} s, moving alone "
            f"{moved / A100[1]:.2g} s: the limit is what takes longer"})


@check("roofline")
def when_batching_is_enough(student):
    """Short contexts become bound by compute at some batch, long ones never do."""
    contexts = (16, 128, 512, 4096)
    got = [student.call("smallest_compute_bound_batch", MODEL_8B, context, *A100, 1000) for context in contexts]
    expect_equal(got, [157, 182, 407, None], what=f"smallest batches for contexts of {contexts} tokens")


# %% key="roofline-hidden" role="hidden" exercise="roofline"
@check("roofline")
def mixed_steps(student):
    """A step may hold a piece of a prompt and decodes at once."""
    model = {"parameters": 1000, "layers": 2, "heads": 6, "kv_heads": 3, "head_dim": 4, "bytes": 1}
    batch = [(3, 5), (1, 9), (2, 0)]
    expect_equal(student.call("step_flops", model, batch), 2 * 1000 * 6 + 4 * 2 * 6 * 4 * (21 + 10 + 3), what="FLOPs")
    expect_equal(student.call("step_bytes", model, batch), 1000 + 2 * 2 * 3 * 4 * (8 + 10 + 2), what="bytes")


@check("roofline")
def either_side_of_the_ridge(student):
    """Just above and just below the ridge point."""
    expect_equal(student.call("bound", 201, 2, 100, 1), "compute")
    expect_equal(student.call("bound", 199, 2, 100, 1), "memory")


@check("roofline")
def smallest_is_smallest(student):
    """The batch before it is still bound by memory; the limit counts."""
    fast = (40e12, 4e12)
    got = student.call("smallest_compute_bound_batch", MODEL_8B, 64, *fast, 500)
    want = next(n for n in range(1, 500) if (2 * 8030261248 + 4 * 32 * 32 * 128 * 65) * n / fast[0]
                > (2 * 8030261248 + 131072 * 65 * n) / fast[1])
    expect_equal(got, want, what="smallest batch on a GPU with a low ridge point")
    expect_equal(student.call("smallest_compute_bound_batch", MODEL_8B, 64, *fast, want - 1), None, what="with a lower limit")
    expect_equal(student.call("smallest_compute_bound_batch", MODEL_8B, 64, *fast, want), want, what="with just that limit")


# %% key="roofline-m1" role="mutant" exercise="roofline" name="a multiply-add is one operation"
def step_flops(model, batch):
    tokens = sum(new for new, _ in batch)
    seen = sum(new * cached + new * (new + 1) // 2 for new, cached in batch)
    return model["parameters"] * tokens + 2 * model["layers"] * model["heads"] * model["head_dim"] * seen


# %% key="roofline-m2" role="mutant" exercise="roofline" name="every prompt token sees the whole prompt"
def step_flops(model, batch):
    tokens = sum(new for new, _ in batch)
    seen = sum(new * (cached + new) for new, cached in batch)
    return 2 * model["parameters"] * tokens + 4 * model["layers"] * model["heads"] * model["head_dim"] * seen


# %% key="roofline-m3" role="mutant" exercise="roofline" name="every request reads the weights again"
_step_bytes = step_bytes


def step_bytes(model, batch):
    return _step_bytes(model, batch) + (len(batch) - 1) * model["parameters"] * model["bytes"]


# %% key="roofline-m4" role="mutant" exercise="roofline" name="one KV cache for the whole batch"
_step_bytes = step_bytes


def step_bytes(model, batch):
    return _step_bytes(model, batch[:1])


# %% key="roofline-m5" role="mutant" exercise="roofline" name="query heads instead of KV heads"
_step_bytes = step_bytes


def step_bytes(model, batch):
    return _step_bytes(model | {"kv_heads": model["heads"]}, batch)


# %% key="roofline-m6" role="mutant" exercise="roofline" name="the faster side is the limit"
def bound(flops, bytes_moved, peak, bandwidth):
    return "compute" if flops / peak < bytes_moved / bandwidth else "memory"


# %% key="roofline-m7" role="mutant" exercise="roofline" name="compares FLOPs with bytes, whatever the machine"
def bound(flops, bytes_moved, peak, bandwidth):
    return "compute" if flops > bytes_moved else "memory"


# %% key="roofline-m8" role="mutant" exercise="roofline" name="batching always wins in the end"
def smallest_compute_bound_batch(model, context, peak, bandwidth, limit=4096):
    for requests in range(1, limit + 1):
        flops = step_flops(model, [(1, context)] * requests)
        if flops / peak > model["parameters"] * model["bytes"] / bandwidth:
            return requests
    return None


# %% key="roofline-m9" role="mutant" exercise="roofline" name="K without V"
_step_bytes = step_bytes


def step_bytes(model, batch):
    return (_step_bytes(model, batch) + model["parameters"] * model["bytes"]) // 2


# %% [markdown] key="limiter" lang="en" role="exercise" exercise="limiter" points=2 difficulty=2 minutes=15 needs="week 2, part 4"
# ## Exercise 5 · The limit at the gateway
#
# A tenant may send `rate` requests a second in the long run, and `burst` at once. That is a **token bucket**: it holds at
# most `burst`, is full at the start (time `now`), and fills by `rate` a second, also by fractions. A request takes out its
# `cost`; if there is not enough, the request is refused and **nothing** is taken.
#
# - `allow(now, cost)`: True, and the cost is taken; or False.
# - `wait(now, cost)`: seconds until `cost` will be there if nobody takes anything: 0 when it is there now, `math.inf` when
#   it will never be, because it is more than the bucket can hold. `wait` takes nothing.
#
# `now` is passed in, in seconds, and never goes back. Your bucket guards the door of the course's own `Service`.

# %% [markdown] key="limiter-help-timer" lang="en" role="help" exercise="limiter" title="Do I need a thread that fills the bucket?"
# No. Remember the level and the time it was right at; when somebody asks, work out what has flowed in since. Then
# remember the new level *and* the new time, together.

# %% [markdown] key="limiter-help-burst" lang="en" role="help" exercise="limiter" title="After a long silence too many are let in"
# The bucket cannot hold more than `burst`. What flows in after it is full is lost: `min(burst, ...)`.

# %% key="limiter-answer" role="answer" exercise="limiter"
class TokenBucket:
    """At most `burst` at once, `rate` a second in the long run."""

    def __init__(self, rate, burst, now=0.0):
        """A full bucket at time `now` (seconds)."""
        ### BEGIN SOLUTION
        self.rate, self.burst = rate, burst
        self.level, self.time = burst, now
        ### END SOLUTION

    def allow(self, now, cost=1.0):
        """Whether a request of this cost may pass; if so, its cost is taken."""
        ### BEGIN SOLUTION
        self.level = min(self.burst, self.level + self.rate * (now - self.time))
        self.time = now
        if self.level < cost:
            return False
        self.level -= cost
        return True
        ### END SOLUTION

    def wait(self, now, cost=1.0):
        """Seconds until `cost` will be there; `math.inf` when never."""
        ### BEGIN SOLUTION
        if cost > self.burst:
            return math.inf
        level = min(self.burst, self.level + self.rate * (now - self.time))
        return max(0.0, (cost - level) / self.rate)
        ### END SOLUTION


# %% key="limiter-check" role="check" exercise="limiter"
class Guard:
    """Puts the student's bucket at the door of a real service."""

    def __init__(self, handle):
        self.handle = handle

    def allow(self, now):
        return self.handle.call("allow", now)

    def wait(self, now):
        return self.handle.call("wait", now)


def let_in(student, rate, burst, times):
    """Times at which a service whose door the student's bucket guards lets a request in."""
    clock = VirtualClock()
    registry = ModelRegistry(clock)
    registry.register("mock", "1", lambda clock: Engine(MockExecutor(4), BlockPool(4096, 4), clock=clock))
    service = Service(registry, {"ana": Guard(student.new("TokenBucket", rate, burst, 0.0))})
    passed = []
    for time in times:
        clock.now = time
        try:
            service.submit("ana", [1, 2, 3], SamplingParams(max_tokens=1), model="mock")
            passed.append(time)
        except Refused:
            continue
    return passed


@check("limiter")
def a_burst_then_the_rate(student):
    """Two a second, three at once: six requests at once, then one every quarter second."""
    times = [0.0] * 6 + [0.25 * k for k in range(1, 9)]
    expect_equal(let_in(student, 2, 3, times), [0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0], what="times of requests let in", hints=[
        ([0.0, 0.0, 0.0], "little by little nothing flows in: does a refusal lose the time that has passed, or is a fraction rounded away?"),
        ([0.0, 0.0, 0.0, 1.0, 1.25, 1.5, 2.0], "a new burst in every calendar second: a bucket fills all the time"),
        ([0.0, 0.0, 0.0, 1.0, 2.0], "the bucket fills in whole seconds only; it should fill by fractions too")])


@check("limiter")
def silence_earns_no_more(student):
    """After an hour of silence there is room for the burst, no more."""
    got = let_in(student, 10, 4, [3600.0] * 50)
    expect_equal(len(got), 4, what="requests let in at once after an hour", hints={
        50: "no cap: the bucket kept filling for an hour. It can hold `burst` and no more"})


@check("limiter")
def how_long_to_wait(student):
    """An empty bucket of 2 a second has room for one in half a second."""
    bucket = student.new("TokenBucket", 2, 3, 0.0)
    expect_equal(bucket.call("wait", 0.0), 0.0, what="wait at a full bucket")
    expect_equal([bucket.call("allow", 0.0) for _ in range(4)], [True, True, True, False], what="four requests at once")
    expect_close(bucket.call("wait", 0.0), 0.5, what="wait at an empty bucket", hints={
        2.0: "rate is requests a second: dividing the missing amount by it gives seconds",
        1.0: "half a second is enough for one at 2 a second"})
    expect_close(bucket.call("wait", 0.25), 0.25, what="wait a quarter of a second later")
    expect_equal(bucket.call("wait", 0.25, 5.0), math.inf, what="wait for 5 when 3 is all the bucket can hold", hints={
        2.25: "in 2.25 s the bucket would hold 5 if it could; it never will: math.inf"})


# %% key="limiter-hidden" role="hidden" exercise="limiter"
@check("limiter")
def a_refusal_takes_nothing(student):
    """Ten refusals in a row do not make anybody wait longer."""
    bucket = student.new("TokenBucket", 1, 2, 0.0)
    expect_equal([bucket.call("allow", 0.0, 2.0)] + [bucket.call("allow", 0.0, 2.0) for _ in range(10)], [True] + [False] * 10)
    expect_equal(bucket.call("allow", 1.0, 1.0), True, what="a second later, one")
    expect_equal(bucket.call("allow", 1.0, 5.0), False, what="a cost above the burst")
    expect_equal(bucket.call("allow", 3.0, 2.0), True, what="two seconds later, two")


@check("limiter")
def knocking_often_does_no_harm(student):
    """Asking 64 times a second lets in as many as asking once: nothing is rounded away."""
    times = [k / 64 for k in range(1, 5 * 64 + 1)]
    got = let_in(student, 4, 2, [0.0, 0.0, *times])
    expect_equal(len(got), 2 + 20, what="requests let in within 5 s at 4 a second and 2 at once", hints={
        2: "little by little nothing flows in: does a refusal lose the time that has passed, or is a fraction rounded away?"})


@check("limiter")
def no_window_holds_too_much(student):
    """No stretch of time holds more than burst + rate times its length, also across a full second."""
    times = [k / 16 for k in range(80)]
    got = let_in(student, 4, 4, times)
    for index, start in enumerate(got):
        inside = [time for time in got[index:] if time <= start + 0.5]
        expect_true(len(inside) <= 4 + 4 * 0.5, f"{len(inside)} requests within 0.5 s from {start} s: at 4 a second and 4 "
                    "at once it can be 6. Counting per calendar second lets a double burst through at its border")


@check("limiter")
def waiting_is_only_looking(student):
    """Asking how long to wait takes nothing, and the bucket may start at any time."""
    bucket = student.new("TokenBucket", 1, 2, 100.0)
    for _ in range(5):
        bucket.call("wait", 100.0)
    expect_equal([bucket.call("allow", 100.0) for _ in range(3)], [True, True, False], what="after five looks")


# %% key="limiter-m1" role="mutant" exercise="limiter" name="no cap on the burst"
class TokenBucket(TokenBucket):
    def allow(self, now, cost=1.0):
        self.level += self.rate * (now - self.time)
        self.time = now
        if self.level < cost:
            return False
        self.level -= cost
        return True


# %% key="limiter-m2" role="mutant" exercise="limiter" name="a refusal loses the time that has passed"
class TokenBucket(TokenBucket):
    def allow(self, now, cost=1.0):
        level = min(self.burst, self.level + self.rate * (now - self.time))
        self.time = now
        if level < cost:
            return False
        self.level = level - cost
        return True


# %% key="limiter-m3" role="mutant" exercise="limiter" name="fills in whole units only"
class TokenBucket(TokenBucket):
    def allow(self, now, cost=1.0):
        self.level = min(self.burst, self.level + int(self.rate * (now - self.time)))
        self.time = now
        if self.level < cost:
            return False
        self.level -= cost
        return True


# %% key="limiter-m4" role="mutant" exercise="limiter" name="a refused request pays too"
class TokenBucket(TokenBucket):
    def allow(self, now, cost=1.0):
        level = min(self.burst, self.level + self.rate * (now - self.time))
        self.level, self.time = level - cost, now
        return level >= cost


# %% key="limiter-m5" role="mutant" exercise="limiter" name="counts per calendar second"
class TokenBucket(TokenBucket):
    def allow(self, now, cost=1.0):
        second = math.floor(now)
        if second != getattr(self, "second", None):
            self.second, self.used = second, 0
        if self.used + cost > self.burst:
            return False
        self.used += cost
        return True


# %% key="limiter-m6" role="mutant" exercise="limiter" name="promises what the bucket can never hold"
class TokenBucket(TokenBucket):
    def wait(self, now, cost=1.0):
        level = min(self.burst, self.level + self.rate * (now - self.time))
        return max(0.0, (cost - level) / self.rate)


# %% [markdown] key="stream" lang="en" role="exercise" exercise="streaming" points=3 difficulty=3 minutes=15 needs="week 2, part 4"
# ## Exercise 6 · Text as it is made
#
# Users read while the model writes. Write a generator that turns a stream of tokens into a stream of text:
#
# - `tokens` yields token ids as the engine makes them: take one, give out what it completes, then take the next.
# - `decode(ids)` gives the text of a **list** of ids. A token is a piece of bytes, not a character: 中 is three bytes and
#   may come in two or three tokens, and a list that ends in the midst of a character decodes to a text that ends in `"\ufffd"` (�).
# - Never show a half character. Hold it back until it is whole. Text that is whole goes out at once.
# - Yield only what is new, and never an empty string. All pieces together are the text of all tokens.
# - A token in `eos_ids` ends the stream: its text is not shown, and no further token is taken.
# - If the stream ends in the midst of a character, the `"\ufffd"` goes out at the end, so that nothing is lost.

# %% [markdown] key="stream-help-single" lang="en" role="help" exercise="streaming" title="English works, Chinese comes out as ���"
# Decoding one token alone cannot work: a third of a character is no text. Decode the tokens **so far** and give out what
# lies behind what you have given out already.

# %% [markdown] key="stream-help-late" lang="en" role="help" exercise="streaming" title="The check says all tokens were taken before the first piece"
# A list, `join` or `decode` of everything waits for the end. Use `for token in tokens:` with a `yield` inside.

# %% key="stream-answer" role="answer" exercise="streaming"
def stream_text(tokens, decode, eos_ids=()):
    """Yield the text of `tokens` piece by piece, as soon as it is whole, up to a token of `eos_ids`."""
    ### BEGIN SOLUTION
    ids, given = [], ""
    for token in tokens:
        if token in eos_ids:
            break
        ids.append(token)
        text = decode(ids)
        if len(text) > len(given) and not text.endswith("\ufffd"):
            yield text[len(given):]
            given = text
    rest = decode(ids)[len(given):]
    if rest:
        yield rest
    ### END SOLUTION


# %% key="stream-check" role="check" exercise="streaming"
END = 256


def decode_bytes(ids):
    """Text of a list of bytes; the end token has no bytes."""
    return bytes(index for index in ids if index != END).decode("utf-8", errors="replace")


class Source:
    """Token ids that come one at a time; counts how many have been taken."""

    def __init__(self, ids):
        self.ids, self.taken = list(ids), 0

    def __iter__(self):
        for index in self.ids:
            self.taken += 1
            yield index


def streamed(student, ids, eos_ids=(END,)):
    """Pieces of the student's stream, each with the number of tokens taken when it came; and the source."""
    source = Source(ids)
    stream = student.iterate("stream_text", Served(source), Served(decode_bytes), list(eos_ids))
    return [(piece, source.taken) for piece in stream], source


@check("streaming")
def each_token_at_once(student):
    """Four letters come out as four pieces, each when its token came."""
    got, _ = streamed(student, b"abcd")
    expect_equal(got, [("a", 1), ("b", 2), ("c", 3), ("d", 4)], what="(piece, tokens taken by then)", hints=[
        ([("abcd", 4)], "everything was collected first: yield inside the loop"),
        ([("a", 4), ("b", 4), ("c", 4), ("d", 4)], "all tokens were taken before the first piece went out"),
        ([("a", 1), ("ab", 2), ("abc", 3), ("abcd", 4)], "each piece repeats the text before it: yield only what is new")])


@check("streaming")
def no_half_characters(student):
    """Chinese characters of three bytes come out whole."""
    got, _ = streamed(student, "你好!".encode())
    expect_equal(got, [("你", 3), ("好", 6), ("!", 7)], what="(piece, tokens taken by then)", hints=[
        ([("\ufffd", k) for k in range(1, 7)] + [("!", 7)], "each token was decoded alone: a third of a character is no text"),
        ([("\ufffd", 1), ("你", 3), ("好", 6), ("!", 7)], "a half character was shown: hold it back until it is whole")])


@check("streaming")
def ends_at_the_end_token(student):
    """The end token ends the stream, and what stands behind it is never taken."""
    got, source = streamed(student, [*b"ok", END, *b"more"])
    expect_equal("".join(piece for piece, _ in got), "ok", what="text", hints={
        "okmore": "it went on after the end token"})
    expect_equal(source.taken, 3, what="tokens taken", hints={7: "tokens behind the end token were taken"})


@check("streaming")
def from_the_real_engine(student):
    """course-tiny's answer, streamed out of the real engine while another request runs beside it."""
    engine = Engine.from_model("course-tiny", device="cpu", num_blocks=64)
    request = engine.submit("Count from 3 to 9.", SamplingParams(max_tokens=60))
    engine.submit("Count from 1 to 4.", SamplingParams(max_tokens=60))
    steps = [0]

    def tokens():
        for event in engine.stream():
            steps[0] += event.kind is EventKind.STEP
            if event.kind is EventKind.NEW_TOKENS and event.request == request.id:
                yield from event.data["tokens"]

    eos = engine.tokenizer.eos_ids
    pieces, when = [], []
    for piece in student.iterate("stream_text", Served(tokens()), Served(engine.tokenizer.decode), sorted(eos)):
        pieces.append(piece)
        when.append(steps[0])
    expect_equal("".join(pieces), engine.tokenizer.decode(request.output), what="the whole text")
    expect_true(len(set(when)) > 5, f"the pieces came out in {len(set(when))} different steps of the engine: the answer is "
                "not streamed but handed over at the end")


# %% key="stream-hidden" role="hidden" exercise="streaming"
@check("streaming")
def a_character_that_is_never_finished(student):
    """A stream that breaks off in the midst of a character shows it as one �, at the end."""
    got, _ = streamed(student, "好".encode()[:2])
    expect_equal(got, [("\ufffd", 2)], what="(piece, tokens taken by then)", hints=[([], "the unfinished character was lost")])
    got, _ = streamed(student, [*b"a", *"😀".encode()[:3], END])
    expect_equal("".join(piece for piece, _ in got), "a\ufffd", what="text that breaks off before the end token")


@check("streaming")
def never_empty(student):
    """Tokens without text make no pieces; no tokens make no text."""
    got, _ = streamed(student, [*b"a", END, *b"b"], eos_ids=[])
    expect_equal([piece for piece, _ in got], ["a", "b"], what="pieces", hints=[(["a", "", "b"], "an empty piece went out")])
    expect_equal(streamed(student, [])[0], [], what="pieces of an empty stream")
    expect_equal(streamed(student, [END])[0], [], what="pieces of a stream that ends at once")


@check("streaming")
def mixed_text_comes_whole(student):
    """Emoji, accents and Chinese between words: all pieces together are the text, none holds �."""
    text = "naïve 模型 says 😀 and 好 é"
    got, _ = streamed(student, text.encode())
    expect_equal("".join(piece for piece, _ in got), text, what="text")
    expect_true(not any("\ufffd" in piece for piece, _ in got), "a piece holds a half character (�)")
    whole = [len(text[:k].encode()) for k in range(1, len(text) + 1)]
    expect_equal([taken for _, taken in got], whole, what="tokens taken when each piece came")


# %% key="stream-m1" role="mutant" exercise="streaming" name="decodes each token alone"
def stream_text(tokens, decode, eos_ids=()):
    for token in tokens:
        if token in eos_ids:
            return
        text = decode([token])
        if text:
            yield text


# %% key="stream-m2" role="mutant" exercise="streaming" name="waits for the end, then streams"
_stream_text = stream_text


def stream_text(tokens, decode, eos_ids=()):
    taken = []
    for token in tokens:
        taken.append(token)
        if token in eos_ids:
            break
    yield from _stream_text(taken, decode, eos_ids)


# %% key="stream-m3" role="mutant" exercise="streaming" name="shows half characters"
def stream_text(tokens, decode, eos_ids=()):
    ids, given = [], ""
    for token in tokens:
        if token in eos_ids:
            return
        ids.append(token)
        text = decode(ids)
        if len(text) > len(given):
            yield text[len(given):]
        given = text


# %% key="stream-m4" role="mutant" exercise="streaming" name="yields the whole text each time"
def stream_text(tokens, decode, eos_ids=()):
    ids = []
    for token in tokens:
        if token in eos_ids:
            return
        ids.append(token)
        if not decode(ids).endswith("\ufffd"):
            yield decode(ids)


# %% key="stream-m5" role="mutant" exercise="streaming" name="hides the end token but does not stop"
_stream_text = stream_text


def stream_text(tokens, decode, eos_ids=()):
    return _stream_text((token for token in tokens if token not in eos_ids), decode)


# %% key="stream-m6" role="mutant" exercise="streaming" name="loses an unfinished character at the end"
def stream_text(tokens, decode, eos_ids=()):
    ids, given = [], ""
    for token in tokens:
        if token in eos_ids:
            return
        ids.append(token)
        text = decode(ids)
        if len(text) > len(given) and not text.endswith("\ufffd"):
            yield text[len(given):]
            given = text


# %% [markdown] key="end" lang="en"
# ## Done
#
# You have written the heart of a serving engine, priced it, and put a door in front of it. What is still missing is who
# goes next when not everybody fits: that question fills the rest of the course.
#
# Hand in this file. Your score: `llmcourse check labs/lab02_inference.ipynb`.
