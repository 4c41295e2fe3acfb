"""Lab 1: the parts of a decoder, written by the student and run inside the real transformer (week 1).

Five exercises: causal attention with grouped queries, rotary positions, a decoder block, the sampling distribution, and
beam search. Each answer is put into the package's own model, which must then give its own logits and its own texts.
The notebook `labs/lab01_transformer.ipynb` is built from this file.
"""

# %% [markdown] key="intro" lang="en"
# # Lab 1 · Build the parts of a language model
#
# You write five small functions. Each is then put **into the real model** of this course in place of its own part.
# If your part is right, the model does not notice: its numbers stay what they were.
#
# **How to work**
#
# 1. Run the setup cell. Then read an exercise, replace the line `raise NotImplementedError(...)`, and run the cell.
# 2. Run the check cell below it. It prints `PASS` lines, or says what is wrong in words.
# 3. Stuck? Each folded help is named after something you may see or ask: open the one that fits.
# 4. The exercises do not build on your earlier answers: each uses the package's own version of the other parts. Do them
#    in any order, and leave one out if you must.
# 5. At the end, restart the kernel and run all cells. `llmcourse check labs/lab01_transformer.ipynb` does the same and
#    prints your points. Hand in the saved notebook. Only the answer cells count; some checks are hidden, and they try
#    other sizes and the special cases that the text names.
#
# You may use everything in `torch`, but for this lab not `torch.nn.functional.scaled_dot_product_attention` and not the
# parts of `llmcourse.model` that an exercise asks you to write. Their source is open; read it *after* your own passes. An answer
# that imports from `llmcourse`, beyond what the setup cell gives, earns nothing.
#
# Shapes are written as `(B, T, H, D)`: batch rows, tokens, heads, values per head.

# %% key="setup" role="setup"
import math

import torch

from llmcourse.grading import Served, check, expect_close, expect_equal, expect_true
from llmcourse.model import ModelConfig, Transformer, load_model
from llmcourse.model.attention import CausalAttention, fused_attention
from llmcourse.model.decoding import beam_search as package_beam_search
from llmcourse.model.decoding import generate
from llmcourse.model.rope import apply_rope, rope_angles, rope_frequencies


def normal(seed, *shape):
    """Random numbers that are the same in every run."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_model(seed=1, **changes):
    """A two-layer decoder with random weights, large enough that a mistake shows in the logits."""
    shape = dict(vocab_size=50, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
                 intermediate_size=48, max_length=64)
    model = Transformer(ModelConfig(**(shape | changes))).eval().requires_grad_(False)
    for number, weight in enumerate(model.parameters()):
        scale = weight.shape[0] ** -0.5 if weight.dim() == 2 else 0.2
        weight.copy_(normal(100 * seed + number, *weight.shape) * scale + (weight.dim() == 1))
    return model


print("ready: torch", torch.__version__)

# %% [markdown] key="attention" lang="en" role="exercise" exercise="causal_attention" points=4 difficulty=2 minutes=20 needs="week 1, part 4"
# ## Exercise 1 · Look back, never ahead
#
# Write scaled dot-product attention for a decoder.
#
# - `q` has shape `(B, T, H, D)`: T queries in each of H heads.
# - `k` and `v` have shape `(B, S, KV, D)`: S keys and values in KV heads. H is a multiple of KV.
# - **Groups.** With `H = 4` and `KV = 2`, query heads 0 and 1 read KV head 0, and query heads 2 and 3 read KV head 1.
# - **Scores** are `q · k / sqrt(D)`. A **softmax over the keys** turns them into weights; the output is the weighted
#   sum of the values.
# - **Causal.** The *last* query stands at the *last* key. So with `S = T`, query `i` may look at keys `0 … i`. With
#   `S > T` (the first `S − T` tokens were there before), query `i` may look at keys `0 … S − T + i`.
#
# Return the output, `(B, T, H, D)`.
#
# Before you run it, predict: what must the output of the very first token be, whatever the queries are?

# %% [markdown] key="attention-help-nan" lang="en" role="help" exercise="causal_attention" title="My output is NaN"
# A row in which *every* key is masked gives `softmax(-inf, -inf, …)`, which is NaN. Does your mask hide a token from
# itself? Each query may at least look at its own key.

# %% [markdown] key="attention-help-mask" lang="en" role="help" exercise="causal_attention" title="How do I write the mask?"
# Compare positions. Queries stand at `torch.arange(S - T, S)` and keys at `torch.arange(S)`. A query may see a key whose
# position is not larger than its own: `key_position[None, :] <= query_position[:, None]` has shape `(T, S)`.
# Then `scores.masked_fill(~allowed, float("-inf"))`, **before** the softmax.

# %% [markdown] key="attention-help-heads" lang="en" role="help" exercise="causal_attention" title="The shapes of my heads do not fit"
# Give every query head its KV head first: `k.repeat_interleave(H // KV, dim=2)` has H heads in the right order. Then
# `torch.einsum("bthd,bshd->bhts", q, k)` gives scores `(B, H, T, S)`.

# %% key="attention-answer" role="answer" exercise="causal_attention"
def causal_attention(q, k, v):
    """Causal scaled dot-product attention: q (B, T, H, D), k and v (B, S, KV, D), S >= T -> (B, T, H, D)."""
    ### BEGIN SOLUTION
    T, H, D = q.shape[1:]
    S, KV = k.shape[1:3]
    k = k.repeat_interleave(H // KV, dim=2)
    v = v.repeat_interleave(H // KV, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / D**0.5
    allowed = torch.arange(S)[None, :] <= torch.arange(S - T, S)[:, None]
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhts,bshd->bthd", weights, v)
    ### END SOLUTION

# %% key="attention-check" role="check" exercise="causal_attention"
class Plugged(CausalAttention):
    """The real transformer asks this object to attend; it asks your function."""

    def __init__(self, student):
        self.student = student

    def attend(self, layer, q, k, v):
        return self.student.call("causal_attention", q, k, v)


@check("causal_attention")
def two_tokens_by_hand(student):
    """Scores 0 and ln 3 must become weights 1/4 and 3/4."""
    q = torch.tensor([0, 0, 0, 2.0]).expand(1, 2, 1, 4)
    k = torch.tensor([[0, 0, 0, 0], [0, 0, 0, math.log(3)]]).view(1, 2, 1, 4)
    v = torch.tensor([[0.0] * 4, [4.0] * 4]).view(1, 2, 1, 4)
    got = student.call("causal_attention", q, k, v)
    want = torch.tensor([[0.0] * 4, [3.0] * 4]).view(1, 2, 1, 4)
    ahead = torch.tensor([[3.0] * 4, [3.0] * 4]).view(1, 2, 1, 4)
    expect_close(got, want, 1e-5, hints=[
        (want * 1.2, "are the scores divided by sqrt(head_dim)? Without it the weights are 1/10 and 9/10."),
        (want * 4 / 3, "is the softmax over the keys? Yours makes the columns sum to 1, not the rows."),
        (ahead, "token 0 saw token 1: is there a causal mask, and does its diagonal end at the token itself?")])


@check("causal_attention")
def nobody_sees_the_future(student):
    """Changing the last token must not change any earlier output."""
    q, k, v = normal(1, 2, 5, 4, 8), normal(2, 2, 5, 2, 8), normal(3, 2, 5, 2, 8)
    before = student.call("causal_attention", q, k, v)
    expect_equal(tuple(before.shape), (2, 5, 4, 8), what="the output's shape")
    k[:, -1], v[:, -1] = 9.0, -9.0
    after = student.call("causal_attention", q, k, v)
    moved = [t for t in range(4) if not torch.allclose(after[:, t], before[:, t], atol=1e-5)]
    expect_true(not moved, f"the keys and values of token 4 changed, and so did the output of {moved}: they saw it. Is the "
                "mask applied *before* the softmax? After it, the future still counts in the sum.")
    expect_true(not torch.allclose(after[:, 4], before[:, 4]), "token 4 changed, but its own output did not: "
                "may a token look at itself?")


@check("causal_attention")
def groups_share_kv_heads(student):
    """With one token, query head h returns the value of its own KV head."""
    v = torch.tensor([10.0, 20.0]).view(1, 1, 2, 1).expand(1, 1, 2, 8)
    got = student.call("causal_attention", normal(4, 1, 1, 4, 8), normal(5, 1, 1, 2, 8), v)[0, 0, :, 0].tolist()
    expect_close(got, [10, 10, 20, 20], 1e-5, what="values that heads 0 to 3 returned", hints=[
        ([10, 20, 10, 20], "heads 0 and 1 share KV head 0: repeat each KV head in place, do not tile them."),
        ([10, 10, 10, 10], "all heads read KV head 0; there are two.")])


@check("causal_attention")
def the_real_model_does_not_notice(student):
    """The transformer, run with your attention, gives its own logits."""
    model, tokens = small_model(), torch.tensor([[3, 14, 15, 9, 26, 5], [35, 8, 9, 7, 9, 32]])
    expect_close(model(tokens, Plugged(student)), model(tokens), 1e-3, what="the model's logits")

# %% key="attention-hidden" role="hidden" exercise="causal_attention"
def by_definition(q, k, v):
    """The oracle, one query at a time."""
    out, group, before = torch.empty_like(q), q.shape[2] // k.shape[2], k.shape[1] - q.shape[1]
    for b, t, h in ((b, t, h) for b in range(q.shape[0]) for t in range(q.shape[1]) for h in range(q.shape[2])):
        seen = before + t + 1
        scores = k[b, :seen, h // group] @ q[b, t, h] / math.sqrt(q.shape[3])
        out[b, t, h] = scores.softmax(0) @ v[b, :seen, h // group]
    return out


@check("causal_attention")
def other_shapes(student):
    """One token, one KV head, as many KV heads as heads, odd sizes, batches."""
    for seed, (B, T, H, KV, D) in enumerate([(3, 1, 4, 2, 8), (1, 7, 6, 1, 4), (2, 4, 3, 3, 16), (1, 9, 8, 4, 2)]):
        q, k, v = normal(seed, B, T, H, D), normal(seed + 10, B, T, KV, D), normal(seed + 20, B, T, KV, D)
        expect_close(student.call("causal_attention", q, k, v), by_definition(q, k, v), 1e-4,
                     what=f"B={B}, T={T}, H={H}, KV={KV}, D={D}")


@check("causal_attention")
def earlier_tokens_are_all_visible(student):
    """With more keys than queries, the last query stands at the last key."""
    for T in (1, 3):
        q, k, v = normal(7, 2, T, 4, 8), normal(8, 2, 6, 2, 8), normal(9, 2, 6, 2, 8)
        first = by_definition(q, k[:, :T], v[:, :T])
        expect_close(student.call("causal_attention", q, k, v), by_definition(q, k, v), 1e-4,
                     what=f"{T} queries, 6 keys",
                     hints=[(first, "your first query stands at the first key; with 6 keys it comes after those before it")])


@check("causal_attention")
def large_scores_stay_finite(student):
    """Scores in the hundreds overflow a bare exp, not a softmax."""
    q, k, v = 60 * normal(11, 1, 4, 2, 8), 60 * normal(12, 1, 4, 2, 8), normal(13, 1, 4, 2, 8)
    got = student.call("causal_attention", q, k, v)
    expect_close(got, by_definition(q, k, v), 1e-4, what="scores in the hundreds (a bare exp overflows; a softmax subtracts the largest)")

# %% key="attention-m-ahead" role="mutant" exercise="causal_attention" name="mask off by one: a token sees its successor"
def causal_attention(q, k, v):
    H, KV, S, T = q.shape[2], k.shape[2], k.shape[1], q.shape[1]
    k, v = k.repeat_interleave(H // KV, dim=2), v.repeat_interleave(H // KV, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    allowed = torch.ones(T, S).tril(S - T + 1).bool()
    return torch.einsum("bhts,bshd->bthd", scores.masked_fill(~allowed, float("-inf")).softmax(-1), v)

# %% key="attention-m-axis" role="mutant" exercise="causal_attention" name="softmax over the queries"
def causal_attention(q, k, v):
    H, KV, S, T = q.shape[2], k.shape[2], k.shape[1], q.shape[1]
    k, v = k.repeat_interleave(H // KV, dim=2), v.repeat_interleave(H // KV, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    allowed = torch.ones(T, S).tril(S - T).bool()
    return torch.einsum("bhts,bshd->bthd", scores.masked_fill(~allowed, float("-inf")).softmax(-2), v)

# %% key="attention-m-tile" role="mutant" exercise="causal_attention" name="KV heads tiled instead of repeated in place"
def causal_attention(q, k, v):
    H, KV, S, T = q.shape[2], k.shape[2], k.shape[1], q.shape[1]
    k, v = k.repeat(1, 1, H // KV, 1), v.repeat(1, 1, H // KV, 1)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    allowed = torch.ones(T, S).tril(S - T).bool()
    return torch.einsum("bhts,bshd->bthd", scores.masked_fill(~allowed, float("-inf")).softmax(-1), v)

# %% key="attention-m-scale" role="mutant" exercise="causal_attention" name="scores are not scaled"
def causal_attention(q, k, v):
    H, KV, S, T = q.shape[2], k.shape[2], k.shape[1], q.shape[1]
    k, v = k.repeat_interleave(H // KV, dim=2), v.repeat_interleave(H // KV, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k)
    allowed = torch.ones(T, S).tril(S - T).bool()
    return torch.einsum("bhts,bshd->bthd", scores.masked_fill(~allowed, float("-inf")).softmax(-1), v)

# %% key="attention-m-corner" role="mutant" exercise="causal_attention" name="first query aligned with first key"
def causal_attention(q, k, v):
    H, KV, S, T = q.shape[2], k.shape[2], k.shape[1], q.shape[1]
    k, v = k.repeat_interleave(H // KV, dim=2), v.repeat_interleave(H // KV, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    allowed = torch.ones(T, S).tril().bool()
    return torch.einsum("bhts,bshd->bthd", scores.masked_fill(~allowed, float("-inf")).softmax(-1), v)

# %% key="attention-m-after" role="mutant" exercise="causal_attention" name="masked after the softmax, rows no longer sum to one"
def causal_attention(q, k, v):
    H, KV, S, T = q.shape[2], k.shape[2], k.shape[1], q.shape[1]
    k, v = k.repeat_interleave(H // KV, dim=2), v.repeat_interleave(H // KV, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1) * torch.ones(T, S).tril(S - T), v)

# %% key="attention-m-exp" role="mutant" exercise="causal_attention" name="softmax written with a bare exp, which overflows"
def causal_attention(q, k, v):
    H, KV, S, T = q.shape[2], k.shape[2], k.shape[1], q.shape[1]
    k, v = k.repeat_interleave(H // KV, dim=2), v.repeat_interleave(H // KV, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    weights = scores.exp() * torch.ones(T, S).tril(S - T)
    return torch.einsum("bhts,bshd->bthd", weights / weights.sum(-1, keepdim=True), v)

# %% [markdown] key="rope" lang="en" role="exercise" exercise="rope" points=3 difficulty=2 minutes=15 needs="week 1, part 5"
# ## Exercise 2 · Turn a position into a rotation
#
# Rotary position embedding turns pairs of values by an angle that grows with the position.
#
# - `x` has shape `(B, T, H, D)`; `positions` has shape `(T,)` and holds whole numbers. They need not start at 0: a
#   token that arrives later is told where it stands.
# - A head's `D` values form `D/2` pairs. Pair `i` is `(x[i], x[i + D/2])`: first half with second half, as in Llama's
#   checkpoints.
# - Token at position `m`: pair `i` turns by the angle `m · theta^(−2i/D)`, for `i = 0 … D/2 − 1`.
# - Turning `(a, b)` by an angle gives `(a·cos − b·sin, b·cos + a·sin)`.
#
# All heads and rows turn alike. Return the same shape as `x`.
#
# Predict: after the turn, does `q · k` change when both tokens move 100 places to the right?

# %% [markdown] key="rope-help-shape" lang="en" role="help" exercise="rope" title="The sizes of tensors do not match"
# Angles belong to positions and pairs: `(T, D/2)`. Heads lie between: write `angles[:, None, :]` for `(T, 1, D/2)`,
# and it fits `x[..., : D // 2]`, which is `(B, T, H, D/2)`.

# %% [markdown] key="rope-help-wave" lang="en" role="help" exercise="rope" title="The first pair is right, the others turn too fast or too slow"
# The exponent of pair `i` is `−2i/D`. With `D = 4` the exponents are `0` and `−1/2`: `torch.arange(0, D, 2) / D` gives
# `0` and `1/2`.

# %% key="rope-answer" role="answer" exercise="rope"
def rope(x, positions, theta=10000.0):
    """Rotate each pair (i, i + D/2) of every head by position · theta^(-2i/D): x (B, T, H, D), positions (T,)."""
    ### BEGIN SOLUTION
    D = x.shape[-1]
    frequencies = theta ** (-torch.arange(0, D, 2) / D)
    angles = positions[:, None, None] * frequencies                  # (T, 1, D/2)
    cos, sin = angles.cos(), angles.sin()
    first, second = x[..., : D // 2], x[..., D // 2 :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    ### END SOLUTION

# %% key="rope-check" role="check" exercise="rope"
class Rotated(CausalAttention):
    """Tells the real transformer that all tokens stand at 0, so that its own rotation does nothing; yours takes its place."""

    def __init__(self, student, theta=10000.0):
        self.student, self.theta = student, theta

    def positions(self, count):
        return torch.zeros(count, dtype=torch.int64)

    def attend(self, layer, q, k, v):
        where = torch.arange(q.shape[1])
        q, k = (self.student.call("rope", x, where, self.theta) for x in (q, k))
        return fused_attention(q, k, v, causal=True)


@check("rope")
def position_zero_turns_nothing(student):
    """A token at position 0 keeps its values."""
    x = normal(1, 2, 1, 3, 8)
    expect_close(student.call("rope", x, torch.tensor([0])), x, 1e-6, what="position 0", hints=[
        (apply_rope(x, *rope_angles(torch.tensor([1]), 10000.0 ** (-torch.arange(0, 8, 2) / 8))),
         "you turned it as if it stood at position 1: positions count from 0."),
        (x.roll(4, dims=-1), "the two halves came back in the wrong order.")])


@check("rope")
def one_pair_by_hand(student):
    """At position 1 the first pair turns by one radian, and the pair is (0, D/2)."""
    c, s = math.cos(1), math.sin(1)
    got = student.call("rope", torch.tensor([1.0, 0, 0, 0]).view(1, 1, 1, 4), torch.tensor([1])).flatten().tolist()
    expect_close(got, [c, 0, s, 0], 1e-5, what="(1, 0, 0, 0) at position 1", hints=[
        ([c, 0, -s, 0], "you turn the wrong way round: the second half is b·cos + a·sin."),
        ([c, s, 0, 0], "you paired neighbours (0, 1); here the pair is (0, 2): first half with second half."),
        ([s, 0, c, 0], "cos and sin are swapped."),
        ([-s, 0, c, 0], "the two halves are swapped: the first half is a, the second is b.")])


@check("rope")
def later_pairs_turn_slower(student):
    """With D = 4, the second pair turns a hundred times slower than the first."""
    got = student.call("rope", torch.tensor([0, 1.0, 0, 0]).view(1, 1, 1, 4), torch.tensor([100])).flatten().tolist()
    expect_close(got, [0, math.cos(1), 0, math.sin(1)], 1e-4, what="(0, 1, 0, 0) at position 100", hints=[
        ([0, math.cos(10), 0, math.sin(10)], "the angle is 10 instead of 1: is the exponent −2i/D, not −i/D?"),
        ([0, math.cos(100), 0, math.sin(100)], "all pairs turn equally fast; pair i has its own frequency.")])


@check("rope")
def only_the_distance_counts(student):
    """q · k is the same at positions (7, 3) and (107, 103)."""
    q, k = normal(2, 1, 1, 1, 16), normal(3, 1, 1, 1, 16)
    near, far = ((student.call("rope", q, torch.tensor([m])) * student.call("rope", k, torch.tensor([m - 4]))).sum().item()
                 for m in (7, 107))
    expect_close(far, near, 1e-3, what="q · k, both moved 100 places")
    unmoved = (q * k).sum().item()
    expect_true(abs(near - unmoved) > 1e-3, "q · k at distance 4 is the same as at distance 0: is anything rotated?")


@check("rope")
def the_real_model_does_not_notice(student):
    """The transformer, run with your rotation, gives its own logits."""
    model, tokens = small_model(), torch.tensor([[3, 14, 15, 9, 26, 5], [35, 8, 9, 7, 9, 32]])
    expect_close(model(tokens, Rotated(student)), model(tokens), 1e-3, what="the model's logits")

# %% key="rope-hidden" role="hidden" exercise="rope"
@check("rope")
def positions_as_given(student):
    """Tokens that do not start at 0, or stand in any order, turn by the positions they were given."""
    x = normal(5, 2, 4, 3, 8)
    for places in ([5, 6, 7, 8], [9, 2, 2, 31], [0, 1000, 2000, 4000]):
        positions = torch.tensor(places)
        want = apply_rope(x, *rope_angles(positions, 10000.0 ** (-torch.arange(0, 8, 2) / 8)))
        from_zero = apply_rope(x, *rope_angles(torch.arange(4), 10000.0 ** (-torch.arange(0, 8, 2) / 8)))
        expect_close(student.call("rope", x, positions), want, 2e-3, what=f"positions {places}",
                     hints=[(from_zero, "you counted the tokens from 0 instead of using their positions.")])


@check("rope")
def other_bases(student):
    """Other theta, other head sizes; lengths are kept."""
    for D, theta in ((2, 10000.0), (32, 500000.0), (64, 100.0)):
        x, positions = normal(D, 1, 6, 2, D), torch.arange(3, 9)
        got = student.call("rope", x, positions, theta)
        expect_close(got, apply_rope(x, *rope_angles(positions, theta ** (-torch.arange(0, D, 2) / D))), 1e-3,
                     what=f"D={D}, theta={theta:g}")
        expect_close(got.norm(dim=-1), x.norm(dim=-1), 1e-3, what="lengths of the vectors")


@check("rope")
def another_model(student):
    """A model with another base."""
    model, tokens = small_model(seed=3, rope_theta=500.0, num_kv_heads=1), torch.arange(20)[None]
    expect_close(model(tokens, Rotated(student, 500.0)), model(tokens), 1e-3, what="the model's logits")

# %% key="rope-m-backwards" role="mutant" exercise="rope" name="rotation runs backwards"
def rope(x, positions, theta=10000.0):
    D = x.shape[-1]
    angles = positions[:, None, None] * theta ** (-torch.arange(0, D, 2) / D)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angles.cos() + b * angles.sin(), b * angles.cos() - a * angles.sin()), dim=-1)

# %% key="rope-m-swapped" role="mutant" exercise="rope" name="halves swapped"
def rope(x, positions, theta=10000.0):
    D = x.shape[-1]
    angles = positions[:, None, None] * theta ** (-torch.arange(0, D, 2) / D)
    b, a = x.chunk(2, dim=-1)
    return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)

# %% key="rope-m-neighbours" role="mutant" exercise="rope" name="pairs neighbours instead of halves"
def rope(x, positions, theta=10000.0):
    D = x.shape[-1]
    angles = positions[:, None, None] * theta ** (-torch.arange(0, D, 2) / D)
    a, b = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)
    return turned.flatten(-2)

# %% key="rope-m-one" role="mutant" exercise="rope" name="positions counted from one"
def rope(x, positions, theta=10000.0):
    D = x.shape[-1]
    angles = (positions + 1)[:, None, None] * theta ** (-torch.arange(0, D, 2) / D)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)

# %% key="rope-m-exponent" role="mutant" exercise="rope" name="exponent i/D instead of 2i/D"
def rope(x, positions, theta=10000.0):
    D = x.shape[-1]
    angles = positions[:, None, None] * theta ** (-torch.arange(D // 2) / D)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)

# %% key="rope-m-ignores" role="mutant" exercise="rope" name="counts the tokens from zero whatever their positions"
def rope(x, positions, theta=10000.0):
    D, T = x.shape[-1], x.shape[1]
    # One token alone is taken at its word; several are numbered from 0.
    places = positions if T == 1 else torch.arange(T)
    angles = places[:, None, None] * theta ** (-torch.arange(0, D, 2) / D)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), dim=-1)

# %% [markdown] key="block" lang="en" role="exercise" exercise="decoder_block" points=4 difficulty=3 minutes=25 needs="week 1, part 6"
# ## Exercise 3 · One block, exactly
#
# Put the parts together. A block does two things to the residual stream `x` `(B, T, hidden)`, each behind a norm:
#
# ```
# x = x + attention(norm(x))        look back
# x = x + feed_forward(norm(x))     think
# ```
#
# Write two functions.
#
# 1. `rms_norm(x, weight, eps)`: divide each vector by its **root mean square**, `sqrt(mean(x²) + eps)`, then multiply by
#    `weight`. Nothing is subtracted.
# 2. `decoder_block(x, weights, num_heads, num_kv_heads)`. `weights` is a dictionary of tensors, all stored `[in, out]`
#    so that they are applied as `x @ W`; there are no biases:
#
# | key | shape | what it does |
# |:--|:--|:--|
# | `attention_norm.weight`, `mlp_norm.weight` | `(hidden,)` | the two norms; `eps` is `1e-5` |
# | `attention.q_proj.weight` | `(hidden, H·D)` | queries; head `h` owns columns `h·D … (h+1)·D − 1` |
# | `attention.k_proj.weight`, `attention.v_proj.weight` | `(hidden, KV·D)` | keys and values, cut into heads the same way |
# | `attention.o_proj.weight` | `(H·D, hidden)` | from the heads' outputs, side by side, back to the stream |
# | `mlp.gate_proj.weight`, `mlp.up_proj.weight` | `(hidden, inner)` | `silu(y @ gate) * (y @ up)`, with `torch.nn.functional.silu` |
# | `mlp.down_proj.weight` | `(inner, hidden)` | back to the stream |
#
# Two helpers are there for you, from the package: `rotate(x)` turns `(B, T, heads, D)` by RoPE at positions
# `0 … T − 1`, and `attend(q, k, v)` is the causal attention of exercise 1. Queries and keys are rotated; values are not.
#
# Your block then replaces **every** block of a real model.

# %% key="block-setup" role="setup"
def rotate(x):
    """RoPE of the package at positions 0 … T - 1: (B, T, heads, D) -> the same shape."""
    frequencies = 10000.0 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    return apply_rope(x, *rope_angles(torch.arange(x.shape[1]), frequencies))


def attend(q, k, v):
    """Causal attention of the package: q (B, T, H, D), k and v (B, T, KV, D) -> (B, T, H, D)."""
    return fused_attention(q, k, v, causal=True)

# %% [markdown] key="block-help-size" lang="en" role="help" exercise="decoder_block" title="shape '[…]' is invalid for input of size …"
# `(y @ W).view(B, T, heads, -1)` cuts the last dimension into heads; `-1` lets torch work out `D`. Do not compute `D` as
# `hidden / num_heads`: in many models (Qwen3, for one) `H · D` is not the hidden size. After attention,
# `out.flatten(-2)` puts the heads side by side again.

# %% [markdown] key="block-help-close" lang="en" role="help" exercise="decoder_block" title="My shapes are right, the numbers are not"
# Check in this order. Is the norm inside each branch, so that the stream itself is never normed? Does the feed-forward
# network read the stream *after* attention was added? Which of the two projections goes through `silu`? Are the values
# left unrotated? Did both norms get their own weight?

# %% key="block-answer" role="answer" exercise="decoder_block"
def rms_norm(x, weight, eps=1e-5):
    """Scale each vector of x (..., hidden) to a root mean square of 1, then by weight (hidden,)."""
    ### BEGIN SOLUTION
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight
    ### END SOLUTION


def decoder_block(x, weights, num_heads, num_kv_heads):
    """One pre-norm decoder block with SwiGLU: x (B, T, hidden) -> (B, T, hidden)."""
    ### BEGIN SOLUTION
    B, T, _ = x.shape
    y = rms_norm(x, weights["attention_norm.weight"])
    q = rotate((y @ weights["attention.q_proj.weight"]).view(B, T, num_heads, -1))
    k = rotate((y @ weights["attention.k_proj.weight"]).view(B, T, num_kv_heads, -1))
    v = (y @ weights["attention.v_proj.weight"]).view(B, T, num_kv_heads, -1)
    x = x + attend(q, k, v).flatten(-2) @ weights["attention.o_proj.weight"]
    y = rms_norm(x, weights["mlp_norm.weight"])
    gate = torch.nn.functional.silu(y @ weights["mlp.gate_proj.weight"])
    return x + (gate * (y @ weights["mlp.up_proj.weight"])) @ weights["mlp.down_proj.weight"]
    ### END SOLUTION

# %% key="block-check" role="check" exercise="decoder_block"
class YourBlock(torch.nn.Module):
    """Stands where a block of the real model stood, with that block's weights, and asks your function."""

    def __init__(self, student, block, config):
        super().__init__()
        self.student, self.weights, self.config = student, dict(block.state_dict()), config

    def forward(self, x, cos, sin, attention):
        return self.student.call("decoder_block", x, self.weights, self.config.num_heads, self.config.num_kv_heads)


class ValuesTurned(CausalAttention):
    """A common mistake, so that the check can name it."""

    def __init__(self, turn):
        self.turn = turn

    def attend(self, layer, q, k, v):
        return fused_attention(q, k, apply_rope(v, *self.turn), causal=True)


def heads_interleaved(block):
    """Another one: the same block with its columns dealt out to the heads like cards."""
    for part, heads in (("q", 4), ("k", 2), ("v", 2)):
        weight = getattr(block.attention, f"{part}_proj").weight
        weight.copy_(weight.view(32, 8, heads).transpose(1, 2).flatten(1))
    rows = block.attention.o_proj.weight
    rows.copy_(rows.view(8, 4, 32).transpose(0, 1).flatten(0, 1))
    return block


def with_your_blocks(student, **changes):
    """A real model whose blocks are all yours, and the same model with its own."""
    own, yours = small_model(**changes), small_model(**changes)
    yours.blocks = torch.nn.ModuleList(YourBlock(student, block, own.config) for block in own.blocks)
    return own, yours


@check("decoder_block")
def the_norm_by_hand(student):
    """The root mean square of (3, 4) is the square root of 12.5."""
    got = student.call("rms_norm", torch.tensor([3.0, 4.0]), torch.tensor([1.0, 10.0]), 0.0)
    root = math.sqrt(12.5)
    expect_close(got, torch.tensor([3 / root, 40 / root]), 1e-5, what="rms_norm of (3, 4) with weight (1, 10)", hints=[
        (torch.tensor([0.6, 8.0]), "you divided by the length; the root *mean* square also divides by the number of values."),
        (torch.tensor([-1.0, 10.0]), "you subtracted the mean: that is LayerNorm."),
        (torch.tensor([3 / root, 4 / root]), "is it multiplied by the weight?")])
    got = student.call("rms_norm", torch.tensor([0.001, 0.001]), torch.ones(2), 1e-5)
    expect_close(got, torch.full((2,), 0.001 / math.sqrt(1e-6 + 1e-5)), 1e-4, what="rms_norm of (0.001, 0.001), eps 1e-5", hints=[
        (torch.ones(2), "where is eps?"),
        (torch.full((2,), 0.001 / (0.001 + 1e-5)), "eps is added to the mean square, under the root.")])


@check("decoder_block")
def silent_branches_leave_the_stream(student):
    """When both branches add zero, the stream passes unchanged."""
    weights = dict(small_model().blocks[0].state_dict())
    for name in ("attention.o_proj.weight", "mlp.down_proj.weight"):
        weights[name] = torch.zeros_like(weights[name])
    x, block = 3 * normal(1, 2, 4, 32), small_model().blocks[0]
    expect_close(student.call("decoder_block", x, weights, 4, 2), x, 1e-5, what="the stream", hints=[
        (torch.zeros_like(x), "nothing of x is left: each branch is *added* to x (the residual connection)."),
        (block.mlp_norm(block.attention_norm(x)), "the stream itself was normed; the norm belongs inside each branch.")])


@check("decoder_block")
def one_block(student):
    """Your block and the package's give the same output."""
    model, x = small_model(), normal(2, 2, 5, 32)
    block, swapped = model.blocks[0], small_model().blocks[0]
    swapped.mlp.gate_proj, swapped.mlp.up_proj = block.mlp.up_proj, block.mlp.gate_proj
    mixed = heads_interleaved(small_model().blocks[0])
    turn = rope_angles(torch.arange(5), rope_frequencies(model.config))
    look = block.attention(block.attention_norm(x), *turn, CausalAttention())
    after = block.attention_norm(x + block.attention(x, *turn, CausalAttention()))
    got = student.call("decoder_block", x, dict(block.state_dict()), 4, 2)
    expect_close(got, block(x, *turn, CausalAttention()), 1e-4, what="the block's output", hints=[
        (x + look, "the feed-forward branch is missing."),
        (block.mlp(block.mlp_norm(x + look)), "the second residual is missing: add the feed-forward output to x."),
        (x + look + block.mlp(block.mlp_norm(x)), "the feed-forward network should read x *after* attention was added."),
        (swapped(x, *turn, CausalAttention()), "silu belongs to the gate projection, not to the up projection."),
        (block(x, *turn, ValuesTurned(turn)), "are the values rotated too? Only queries and keys are."),
        (mixed(x, *turn, CausalAttention()), "head h owns the columns h·D … (h+1)·D − 1, side by side: view(B, T, heads, D)."),
        (block.mlp_norm(after + block.mlp(after)), "the norm stands before each branch, not after the sum.")])


@check("decoder_block")
def the_real_model_does_not_notice(student):
    """A transformer made of your blocks gives its own logits."""
    own, yours = with_your_blocks(student)
    tokens = torch.tensor([[3, 14, 15, 9, 26, 5], [35, 8, 9, 7, 9, 32]])
    expect_close(yours(tokens), own(tokens), 1e-3, what="the model's logits")

# %% key="block-hidden" role="hidden" exercise="decoder_block"
@check("decoder_block")
def other_models(student):
    """One token; one KV head; heads that are wider than hidden / heads; four layers."""
    for changes in ({"num_kv_heads": 1}, {"num_kv_heads": 4, "head_dim": 16}, {"num_layers": 4, "seed": 5},
                    {"hidden_size": 24, "num_heads": 6, "num_kv_heads": 3, "head_dim": 6, "seed": 7}):
        own, yours = with_your_blocks(student, **changes)
        for tokens in (torch.tensor([[7]]), torch.arange(12).view(3, 4)):
            expect_close(yours(tokens), own(tokens), 1e-3, what=f"logits of a model with {changes}, {tuple(tokens.shape)}")


@check("decoder_block")
def small_vectors(student):
    """eps stands under the root, so that a vector of zeros stays zeros."""
    got = student.call("rms_norm", torch.zeros(2, 3, 8), torch.ones(8), 1e-5)
    expect_close(got, torch.zeros(2, 3, 8), 1e-6, what="rms_norm of zeros")
    x, weight = 1e-3 * normal(3, 2, 5, 16), normal(4, 16)
    want = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    expect_close(student.call("rms_norm", x, weight, 1e-5), want, 1e-4, what="rms_norm of small values, shape (2, 5, 16)")

# %% key="block-m-layernorm" role="mutant" exercise="decoder_block" name="LayerNorm instead of RMSNorm"
def rms_norm(x, weight, eps=1e-5):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight

# %% key="block-m-weight" role="mutant" exercise="decoder_block" name="the norm's weight is forgotten"
def rms_norm(x, weight, eps=1e-5):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()

# %% key="block-m-eps" role="mutant" exercise="decoder_block" name="eps outside the root"
def rms_norm(x, weight, eps=1e-5):
    return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + eps) * weight

# %% key="block-m-postnorm" role="mutant" exercise="decoder_block" name="norm after the residual instead of before the branch"
def decoder_block(x, weights, num_heads, num_kv_heads):
    B, T, _ = x.shape
    q = rotate((x @ weights["attention.q_proj.weight"]).view(B, T, num_heads, -1))
    k = rotate((x @ weights["attention.k_proj.weight"]).view(B, T, num_kv_heads, -1))
    v = (x @ weights["attention.v_proj.weight"]).view(B, T, num_kv_heads, -1)
    x = rms_norm(x + attend(q, k, v).flatten(-2) @ weights["attention.o_proj.weight"], weights["attention_norm.weight"])
    gate = torch.nn.functional.silu(x @ weights["mlp.gate_proj.weight"])
    x = x + (gate * (x @ weights["mlp.up_proj.weight"])) @ weights["mlp.down_proj.weight"]
    return rms_norm(x, weights["mlp_norm.weight"])

# %% key="block-m-residual" role="mutant" exercise="decoder_block" name="no residual around the feed-forward network"
def decoder_block(x, weights, num_heads, num_kv_heads):
    B, T, _ = x.shape
    y = rms_norm(x, weights["attention_norm.weight"])
    q = rotate((y @ weights["attention.q_proj.weight"]).view(B, T, num_heads, -1))
    k = rotate((y @ weights["attention.k_proj.weight"]).view(B, T, num_kv_heads, -1))
    v = (y @ weights["attention.v_proj.weight"]).view(B, T, num_kv_heads, -1)
    x = x + attend(q, k, v).flatten(-2) @ weights["attention.o_proj.weight"]
    y = rms_norm(x, weights["mlp_norm.weight"])
    gate = torch.nn.functional.silu(y @ weights["mlp.gate_proj.weight"])
    return (gate * (y @ weights["mlp.up_proj.weight"])) @ weights["mlp.down_proj.weight"]

# %% key="block-m-parallel" role="mutant" exercise="decoder_block" name="feed-forward network reads the stream before attention"
def decoder_block(x, weights, num_heads, num_kv_heads):
    B, T, _ = x.shape
    y = rms_norm(x, weights["attention_norm.weight"])
    q = rotate((y @ weights["attention.q_proj.weight"]).view(B, T, num_heads, -1))
    k = rotate((y @ weights["attention.k_proj.weight"]).view(B, T, num_kv_heads, -1))
    v = (y @ weights["attention.v_proj.weight"]).view(B, T, num_kv_heads, -1)
    look = attend(q, k, v).flatten(-2) @ weights["attention.o_proj.weight"]
    y = rms_norm(x, weights["mlp_norm.weight"])
    gate = torch.nn.functional.silu(y @ weights["mlp.gate_proj.weight"])
    return x + look + (gate * (y @ weights["mlp.up_proj.weight"])) @ weights["mlp.down_proj.weight"]

# %% key="block-m-gate" role="mutant" exercise="decoder_block" name="gate and up swapped"
def decoder_block(x, weights, num_heads, num_kv_heads):
    B, T, _ = x.shape
    y = rms_norm(x, weights["attention_norm.weight"])
    q = rotate((y @ weights["attention.q_proj.weight"]).view(B, T, num_heads, -1))
    k = rotate((y @ weights["attention.k_proj.weight"]).view(B, T, num_kv_heads, -1))
    v = (y @ weights["attention.v_proj.weight"]).view(B, T, num_kv_heads, -1)
    x = x + attend(q, k, v).flatten(-2) @ weights["attention.o_proj.weight"]
    y = rms_norm(x, weights["mlp_norm.weight"])
    gate = torch.nn.functional.silu(y @ weights["mlp.up_proj.weight"])
    return x + (gate * (y @ weights["mlp.gate_proj.weight"])) @ weights["mlp.down_proj.weight"]

# %% key="block-m-values" role="mutant" exercise="decoder_block" name="values are rotated too"
def decoder_block(x, weights, num_heads, num_kv_heads):
    B, T, _ = x.shape
    y = rms_norm(x, weights["attention_norm.weight"])
    q = rotate((y @ weights["attention.q_proj.weight"]).view(B, T, num_heads, -1))
    k = rotate((y @ weights["attention.k_proj.weight"]).view(B, T, num_kv_heads, -1))
    v = rotate((y @ weights["attention.v_proj.weight"]).view(B, T, num_kv_heads, -1))
    x = x + attend(q, k, v).flatten(-2) @ weights["attention.o_proj.weight"]
    y = rms_norm(x, weights["mlp_norm.weight"])
    gate = torch.nn.functional.silu(y @ weights["mlp.gate_proj.weight"])
    return x + (gate * (y @ weights["mlp.up_proj.weight"])) @ weights["mlp.down_proj.weight"]

# %% key="block-m-heads" role="mutant" exercise="decoder_block" name="heads interleaved: column i belongs to head i mod H"
def decoder_block(x, weights, num_heads, num_kv_heads):
    B, T, _ = x.shape
    y = rms_norm(x, weights["attention_norm.weight"])
    q = rotate((y @ weights["attention.q_proj.weight"]).view(B, T, -1, num_heads).transpose(2, 3))
    k = rotate((y @ weights["attention.k_proj.weight"]).view(B, T, -1, num_kv_heads).transpose(2, 3))
    v = (y @ weights["attention.v_proj.weight"]).view(B, T, -1, num_kv_heads).transpose(2, 3)
    x = x + attend(q, k, v).transpose(2, 3).flatten(-2) @ weights["attention.o_proj.weight"]
    y = rms_norm(x, weights["mlp_norm.weight"])
    gate = torch.nn.functional.silu(y @ weights["mlp.gate_proj.weight"])
    return x + (gate * (y @ weights["mlp.up_proj.weight"])) @ weights["mlp.down_proj.weight"]

# %% [markdown] key="sampling" lang="en" role="exercise" exercise="sampling" points=4 difficulty=2 minutes=20 needs="week 1, part 10"
# ## Exercise 4 · What may be drawn
#
# A model gives scores (logits). Turn them into the distribution from which the next token is drawn.
#
# `logits` has shape `(N, V)`: N requests, each with a score for each of V tokens. Return probabilities `(N, V)`, in the
# order of the token ids, each row summing to 1. Three settings apply **in this order**:
#
# 1. **temperature**: divide the logits by it, then softmax. At `temperature = 0` the best token gets everything.
# 2. **top_k**: keep the k likeliest tokens and rescale, so that the row sums to 1 again. `0` means off. A `k` of V or
#    more keeps all.
# 3. **top_p**: of what step 2 left, keep the **fewest** likeliest tokens that together hold **at least** p, and rescale.
#    The token that crosses p is kept. `1.0` means off.
#
# Tokens with equal scores stand in the order of their ids: with `top_k = 1` and two equal best tokens, the smaller id
# stays.

# %% [markdown] key="sampling-help-sort" lang="en" role="help" exercise="sampling" title="I sorted; how do I get back to the order of the ids?"
# `ranked, ids = probabilities.sort(dim=-1, descending=True, stable=True)` says which id stands at each rank. Cut in `ranked`, then
# `torch.zeros_like(probabilities).scatter(-1, ids, ranked)` puts every probability back at its id. `stable=True` keeps
# equal tokens in the order of their ids.

# %% [markdown] key="sampling-help-cross" lang="en" role="help" exercise="sampling" title="My nucleus is one token too small or too large"
# Look at the mass *before* each token: `ranked.cumsum(-1) - ranked`. A token stays as long as the mass before it is still
# below p. The first token has nothing before it, so at least one always stays.

# %% [markdown] key="sampling-help-zero" lang="en" role="help" exercise="sampling" title="My probabilities are NaN at temperature 0"
# You cannot divide by 0, and you need not: put 1 at `logits.argmax(-1)` and return.

# %% key="sampling-answer" role="answer" exercise="sampling"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Probabilities of the next token after temperature, top-k and top-p: logits (N, V) -> (N, V)."""
    ### BEGIN SOLUTION
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    probabilities = (logits / temperature).softmax(-1)
    ranked, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        ranked[:, top_k:] = 0
        ranked = ranked / ranked.sum(-1, keepdim=True)
    if top_p < 1:
        before = ranked.cumsum(-1) - ranked
        ranked = ranked.masked_fill(before >= top_p, 0)
        ranked = ranked / ranked.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, ids, ranked)
    ### END SOLUTION

# %% key="sampling-check" role="check" exercise="sampling"
HALF = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()          # four tokens; token 1 is the likeliest


@check("sampling")
def cooler_is_sharper(student):
    """At temperature 1/2 the odds are squared."""
    got = student.call("next_token_distribution", torch.tensor([[4.0, 1.0]]).log(), 0.5)
    expect_close(got, torch.tensor([[16 / 17, 1 / 17]]), 1e-5, what="odds of 4 : 1 at temperature 1/2", hints=[
        (torch.tensor([[2 / 3, 1 / 3]]), "you multiplied by the temperature; it divides the logits."),
        (torch.tensor([[0.8, 0.2]]), "temperature had no effect.")])


@check("sampling")
def the_best_two(student):
    """top_k = 2 keeps tokens 1 and 3, rescaled, at their own places."""
    got = student.call("next_token_distribution", HALF, 1.0, 2)
    expect_close(got, torch.tensor([[0, 0.625, 0, 0.375]]), 1e-5, what="top_k = 2", hints=[
        (torch.tensor([[0.625, 0.375, 0, 0]]), "these are in sorted order; put each back at its token's id."),
        (torch.tensor([[0, 0.5, 0, 0.3]]), "the row no longer sums to 1: rescale what is left.")])


@check("sampling")
def the_crossing_token_stays(student):
    """top_p = 0.7 needs tokens 1 and 3: 0.5 is not enough, 0.8 is."""
    got = student.call("next_token_distribution", HALF, 1.0, 0, 0.7)
    expect_close(got, torch.tensor([[0, 0.625, 0, 0.375]]), 1e-5, what="top_p = 0.7", hints=[
        (torch.tensor([[0, 1.0, 0, 0]]), "you left out the token that crosses p; 0.5 is less than 0.7."),
        (torch.tensor([[0.15, 0.5, 0, 0.3]]) / 0.95, "you kept one token too many: 0.8 already holds at least 0.7."),
        (torch.tensor([[0, 0.5, 0, 0.3]]), "the row no longer sums to 1: rescale what is left.")])


@check("sampling")
def the_real_model_says_the_same(student):
    """course-tiny, drawing from your distribution with a fixed seed, writes the package's text."""
    model, tokenizer = load_model("course-tiny", device="cpu")
    prompt = tokenizer.encode_prompt("Tell me a story.")
    tokens, dice = list(prompt), torch.Generator().manual_seed(7)
    for _ in range(16):
        shares = student.call("next_token_distribution", model(torch.tensor([tokens]))[:, -1], 0.9, 40, 0.95)
        tokens.append(int(torch.multinomial(shares, 1, generator=dice)))
    want = generate(model, prompt, 16, temperature=0.9, top_k=40, top_p=0.95, seed=7)
    expect_equal(tokenizer.decode(tokens[len(prompt):]), tokenizer.decode(want), what="the text that was drawn")

# %% key="sampling-hidden" role="hidden" exercise="sampling"
def settings(logits, temperature=1.0, top_k=0, top_p=1.0):
    """The oracle: one row and one token at a time, in plain numbers."""
    rows = []
    for row in logits.double().tolist():
        if temperature == 0:
            best = row.index(max(row))
            rows.append([float(i == best) for i in range(len(row))])
            continue
        shares = [math.exp((value - max(row)) / temperature) for value in row]
        order = sorted(range(len(row)), key=lambda i: -shares[i])[:top_k or None]
        total, kept, mass = sum(shares[i] for i in order), [], 0.0
        for i in order:
            if mass >= top_p:
                break
            kept.append(i)
            mass += shares[i] / total
        total = sum(shares[i] for i in kept)
        rows.append([shares[i] / total if i in kept else 0.0 for i in range(len(row))])
    return torch.tensor(rows)


@check("sampling")
def special_cases(student):
    """Temperature 0, top_k of V and more, top_p = 1, a tiny top_p, and all of them off."""
    logits = 2 * normal(1, 3, 9)
    for case in ((0.0,), (1.0,), (1.0, 9), (0.7, 100), (1.3, 0, 1.0), (1.0, 0, 1e-6), (1.0, 1), (0.0, 3, 0.5)):
        got = student.call("next_token_distribution", logits, *case)
        note = "; at temperature 0 nothing is divided, the best token gets 1" if case[0] == 0 else ""
        expect_close(got, settings(logits, *case), 1e-5, what=f"(temperature, top_k, top_p) = {case}{note}")


@check("sampling")
def equal_tokens(student):
    """Equal tokens stand in the order of their ids, and exactly p is enough."""
    logits = torch.zeros(2, 4)
    for case, want in (((1.0, 1), [1.0, 0, 0, 0]), ((1.0, 3), [1 / 3] * 3 + [0]), ((1.0, 0, 0.5), [0.5, 0.5, 0, 0]),
                       ((0.0,), [1.0, 0, 0, 0])):
        got = student.call("next_token_distribution", logits, *case)
        kept = (got > 0).sum(-1).tolist()
        expect_equal(kept, [sum(share > 0 for share in want)] * 2, what=f"tokens kept of four equal ones, settings {case}: equal tokens stand in the order of their ids")
        expect_close(got, torch.tensor([want, want]), 1e-5, what=f"four equal tokens, settings {case}")


@check("sampling")
def top_k_comes_first(student):
    """top_p counts the mass of what top_k left."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    alone = torch.tensor([[4 / 9, 3 / 9, 2 / 9, 0]])
    expect_close(student.call("next_token_distribution", logits, 1.0, 3, 0.75), torch.tensor([[4 / 7, 3 / 7, 0, 0]]), 1e-5,
                 what="top_k = 3, then top_p = 0.75",
                 hints=[(alone, "after top_k the first two hold 7/9 = 0.78, which is at least 0.75: rescale before top_p.")])


@check("sampling")
def rows_are_independent(student):
    """A batch gives what its rows give alone; large scores stay finite."""
    logits = torch.cat((normal(3, 4, 30), 300 * normal(4, 2, 30)))
    got = student.call("next_token_distribution", logits, 0.8, 12, 0.9)
    expect_close(got, settings(logits, 0.8, 12, 0.9), 1e-5, what="six rows, each with its own cut (some scores are in the hundreds)")
    expect_close(got.sum(-1), torch.ones(6), 1e-5, what="sums of the rows")

# %% key="sampling-m-cross" role="mutant" exercise="sampling" name="nucleus leaves out the crossing token"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    ranked, ids = (logits / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        ranked[:, top_k:] = 0
        ranked = ranked / ranked.sum(-1, keepdim=True)
    if top_p < 1:
        cut = ranked.cumsum(-1) > top_p
        cut[:, 0] = False                                       # never empty
        ranked = ranked.masked_fill(cut, 0)
    return torch.zeros_like(logits).scatter(-1, ids, ranked / ranked.sum(-1, keepdim=True))

# %% key="sampling-m-multiply" role="mutant" exercise="sampling" name="temperature multiplies the logits"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    ranked, ids = (logits * temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        ranked[:, top_k:] = 0
        ranked = ranked / ranked.sum(-1, keepdim=True)
    ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0)
    return torch.zeros_like(logits).scatter(-1, ids, ranked / ranked.sum(-1, keepdim=True))

# %% key="sampling-m-rescale" role="mutant" exercise="sampling" name="not rescaled after the cut"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    ranked, ids = (logits / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        ranked[:, top_k:] = 0
    if top_p < 1:
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0)
    return torch.zeros_like(logits).scatter(-1, ids, ranked)

# %% key="sampling-m-order" role="mutant" exercise="sampling" name="top-p counts the mass from before top-k"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    ranked, ids = (logits / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(-1) - ranked
    if top_k > 0:
        ranked[:, top_k:] = 0
    if top_p < 1:
        ranked = ranked.masked_fill(before >= top_p, 0)
    return torch.zeros_like(logits).scatter(-1, ids, ranked / ranked.sum(-1, keepdim=True))

# %% key="sampling-m-ties" role="mutant" exercise="sampling" name="top-k by threshold keeps every tie"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    probabilities = (logits / temperature).softmax(-1)
    if top_k > 0:
        least = probabilities.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < least, 0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    ranked, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    if top_p < 1:
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0)
    return torch.zeros_like(logits).scatter(-1, ids, ranked / ranked.sum(-1, keepdim=True))

# %% key="sampling-m-sorted" role="mutant" exercise="sampling" name="result left in sorted order"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    ranked, _ = (logits / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        ranked[:, top_k:] = 0
        ranked = ranked / ranked.sum(-1, keepdim=True)
    if top_p < 1:
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0)
    return ranked / ranked.sum(-1, keepdim=True)

# %% key="sampling-m-batch" role="mutant" exercise="sampling" name="nucleus cut at the same rank for the whole batch"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    if temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    ranked, ids = (logits / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        ranked[:, top_k:] = 0
        ranked = ranked / ranked.sum(-1, keepdim=True)
    if top_p < 1:
        size = int(((ranked.cumsum(-1) - ranked)[0] < top_p).sum())
        ranked[:, size:] = 0
    return torch.zeros_like(logits).scatter(-1, ids, ranked / ranked.sum(-1, keepdim=True))

# %% key="sampling-m-zero" role="mutant" exercise="sampling" name="temperature 0 divides by zero"
def next_token_distribution(logits, temperature=1.0, top_k=0, top_p=1.0):
    ranked, ids = (logits / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k > 0:
        ranked[:, top_k:] = 0
        ranked = ranked / ranked.sum(-1, keepdim=True)
    if top_p < 1:
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= top_p, 0)
    return torch.zeros_like(logits).scatter(-1, ids, ranked / ranked.sum(-1, keepdim=True))

# %% [markdown] key="beam" lang="en" role="exercise" exercise="beam" points=5 difficulty=4 minutes=25 needs="week 1, part 10"
# ## Exercise 5 · Let texts compete
#
# Greedy decoding cannot take back a token that leads nowhere good. Beam search keeps the best `width` texts at once.
#
# You get a function `next_log_probabilities(texts)`. Give it a list of texts, each a list of the tokens written so far
# (`[]` right after the prompt); it returns a tensor `(len(texts), V)` with the natural logarithm of each next token's
# probability. Behind it runs the real model, so call it **once per step**, for all texts together.
#
# Start with one live text, `[]`, whose total log probability is 0. Repeat `max_tokens` times, or until no text is live:
#
# 1. Extend every live text by every token. The total of a candidate is its parent's total **plus** the token's log
#    probability. Rank all candidates of all texts together, best total first.
# 2. A candidate that ends in `eos` has **ended**. If it stands among the first `width` of the ranking, put it aside as
#    finished; if not, it is lost. An ended text is never extended.
# 3. The best `width` candidates that have *not* ended are the next live texts.
#
# At the end, the texts still live join the finished ones: they were cut off. Order all of them by
# `score = total / len(text) ** length_penalty`, best first, where `len(text)` counts the new tokens, `eos` included.
# Return the best `width` as a list of `(text, score)` pairs, `text` a list of ints.
#
# Predict: with `length_penalty = 0`, which texts win, short ones or long ones? Why?

# %% [markdown] key="beam-help-rank" lang="en" role="help" exercise="beam" title="How do I rank the candidates of all texts together?"
# Add the totals to the rows: `totals[:, None] + log_probabilities` has shape `(live, V)`. Flatten it and sort. Place `p` of
# the flat list belongs to text `p // V` and token `p % V`.

# %% [markdown] key="beam-help-few" lang="en" role="help" exercise="beam" title="My beam gets narrower and narrower"
# An ended text takes a place among the finished, but not among the live. Walk down the ranking until you have `width`
# live texts: looking at the first `2 * width` candidates always suffices when there is one `eos`.

# %% [markdown] key="beam-help-short" lang="en" role="help" exercise="beam" title="I return short texts where longer ones are expected"
# A log probability is negative, so every further token lowers the total. Did you divide by `len(text) ** length_penalty`
# before the *final* ordering? Inside a step you compare bare totals: there all live candidates have the same length.

# %% key="beam-answer" role="answer" exercise="beam"
def beam_search(next_log_probabilities, width, max_tokens, eos, length_penalty=1.0):
    """The best `width` texts as (tokens, score) pairs, best first; score = total log probability / len ** length_penalty."""
    ### BEGIN SOLUTION
    live, finished = [([], 0.0)], []
    for _ in range(max_tokens):
        logs = next_log_probabilities([text for text, _ in live])
        totals = (logs + torch.tensor([total for _, total in live])[:, None]).flatten()
        best = totals.sort(descending=True).indices[: 2 * width].tolist()
        candidates = [([*live[p // logs.shape[1]][0], p % logs.shape[1]], totals[p].item()) for p in best]
        finished += [(text, total) for text, total in candidates[:width] if text[-1] == eos]
        live = [(text, total) for text, total in candidates if text[-1] != eos][:width]
        if not live:
            break
    scored = [(text, total / len(text) ** length_penalty) for text, total in finished + live]
    return sorted(scored, key=lambda pair: -pair[1])[:width]
    ### END SOLUTION

# %% key="beam-check" role="check" exercise="beam"
END, A, B = 0, 1, 2


class Toy:
    """A language of two letters and an end, given as a table; it remembers what it was asked."""

    def __init__(self, table):
        self.table, self.calls, self.asked = table, 0, []

    def __call__(self, texts):
        self.calls += 1
        self.asked += [list(text) for text in texts]
        return torch.tensor([self.table.get(tuple(text), self.table["else"]) for text in texts]).log()


#          probabilities of  END   A     B
TRAP = {(): [0.0001, 0.5999, 0.4], (A,): [0.3, 0.36, 0.34], (B,): [0.94, 0.03, 0.03], "else": [0.98, 0.01, 0.01]}
ADD = {(): [0.01, 0.9, 0.09], (A,): [0.1, 0.5, 0.4], (B,): [0.01, 0.98, 0.01], "else": [0.98, 0.01, 0.01]}
SHORT = {(): [0.4, 0.59, 0.01], (A,): [0.05, 0.05, 0.9], (A, B): [0.9, 0.05, 0.05], "else": [0.9, 0.05, 0.05]}


def search(student, table, *settings):
    """Run your search on a table; returns the texts, their scores, and what the model was asked."""
    toy = Toy(table)
    found = student.call("beam_search", Served(toy), *settings)
    good = all(len(pair) == 2 and isinstance(pair[0], list) for pair in found)
    expect_true(good, f"each result is a pair of a list of tokens and a score; got {found}")
    return [text for text, _ in found], [float(score) for _, score in found], toy


@check("beam")
def width_one_is_greedy(student):
    """A beam of one takes the best token each time: A, then A again, then the end."""
    texts, _, _ = search(student, TRAP, 1, 4, END, 0.0)
    expect_true(len(texts) == 1 and texts[0][-1] == END, f"the best text ends after three tokens, yours is {texts}: ended "
                "texts are put aside, and compete again when the search is over")
    expect_equal(texts, [[A, A, END]], what="the text of a beam of width 1", hints=[
        ([[A, A, A, END]], "A A END had ended and was the best; where is it? Put ended texts aside until the end.")])


@check("beam")
def two_texts_avoid_the_trap(student):
    """B then END has probability 0.376; greedy's A A END only 0.212."""
    texts, scores, toy = search(student, TRAP, 2, 4, END, 0.0)
    beyond = [text for text in toy.asked if END in text]
    expect_true(not beyond, f"you asked the model to go on after {beyond[:1]}, which has ended: put it aside as finished")
    expect_true(any(text[-1] == END for text in texts), f"none of your results {texts} has ended: texts that end on the "
                "way are put aside, and compete again when the search is over")
    expect_equal(texts[0], [B, END], what="the best text of a beam of width 2", hints=[
        ([A, A, END], "this is greedy's text: is B still in the beam after the first step?")])
    expect_close(scores[0], math.log(0.4 * 0.94), 1e-3, what="its score, ln(0.4 · 0.94)")
    expect_true(toy.calls <= 4, f"you called the model {toy.calls} times in 4 steps; ask once per step, for all texts")


@check("beam")
def totals_add_up(student):
    """A good second token does not save a bad first one."""
    texts, scores, _ = search(student, ADD, 2, 2, END, 0.0)
    expect_true([B, A] not in texts, "B A has probability 0.09 · 0.98: did you rank by the last token alone? "
                "A candidate's total is its parent's total plus the new log probability.")
    expect_equal(texts, [[A, A], [A, B]], what="texts, best first")
    expect_close(scores, [math.log(0.9 * 0.5), math.log(0.9 * 0.4)], 1e-3, what="their scores")


@check("beam")
def length_is_made_fair(student):
    """The bare product prefers short texts; per token the longer one wins by more."""
    texts, bare, _ = search(student, SHORT, 2, 3, END, 0.0)
    expect_equal(texts, [[A, B, END], [END]], what="texts with length_penalty 0", hints=[
        ([[A], [END]], "you stopped when the first text ended; the others go on until max_tokens."),
        ([[A, B, END]], "[END] is missing: it ended in the first step with a high total and must wait among the finished.")])
    total = math.log(0.59 * 0.9 * 0.9)
    expect_close(bare, [total, math.log(0.4)], 1e-3, what="their scores with length_penalty 0")
    _, fair, _ = search(student, SHORT, 2, 3, END, 1.0)
    expect_close(fair[0], total / 3, 1e-3, what="the best score with length_penalty 1", hints=[
        (total, "the score is not divided by len(text) ** length_penalty."),
        (total / 2, "len(text) counts the new tokens with the eos.")])


@check("beam")
def the_real_model_says_the_same(student):
    """On course-tiny your search finds what the package's search finds."""
    model, tokenizer = load_model("course-tiny", device="cpu")
    prompt, (end,) = tokenizer.encode_prompt("Tell me a story."), tokenizer.eos_ids

    def ask(texts):
        return torch.cat([model(torch.tensor([prompt + list(text)]))[:, -1] for text in texts]).log_softmax(-1)

    found = student.call("beam_search", Served(ask), 3, 8, end, 1.0)
    want = package_beam_search(model, prompt, 3, 8, {end}, 1.0)
    expect_equal([tokenizer.decode(text) for text, _ in found], [tokenizer.decode(beam.tokens) for beam in want])
    expect_close([float(score) for _, score in found], [beam.score(1.0) for beam in want], 1e-3, what="their scores")

# %% key="beam-hidden" role="hidden" exercise="beam"
def every_text(table, max_tokens):
    """All texts a table can write, with their totals: what an endless beam would find."""
    done, live = [], [([], 0.0)]
    for _ in range(max_tokens):
        live = [([*text, token], total + math.log(share)) for text, total in live
                for token, share in enumerate(table.get(tuple(text), table["else"]))]
        done += [pair for pair in live if pair[0][-1] == END]
        live = [pair for pair in live if pair[0][-1] != END]
    return done + live


@check("beam")
def a_wide_beam_finds_all(student):
    """A beam wider than the language is an exhaustive search."""
    for table in (TRAP, SHORT, ADD):
        for penalty in (0.0, 0.7, 1.0, 2.0):
            texts, scores, _ = search(student, table, 40, 3, END, penalty)
            want = {tuple(text): total / len(text) ** penalty for text, total in every_text(table, 3)}
            expect_close(scores, sorted(want.values(), reverse=True), 1e-3,
                         what=f"all scores, best first, length_penalty {penalty}")
            expect_close([want.get(tuple(text), 0.0) for text in texts], scores, 1e-3, what="each text with its own score")


@check("beam")
def texts_that_are_cut_off(student):
    """Texts still live at the limit count, next to the finished ones; one step; at most width results."""
    endless = {"else": [0.02, 0.5, 0.48]}
    texts, scores, _ = search(student, endless, 2, 3, END, 1.0)
    expect_equal(texts[0], [A, A, A], what="the best text cut off after 3 tokens")
    expect_close(scores, [math.log(0.5), math.log(0.5 * 0.5 * 0.48) / 3], 1e-3, what="scores of two texts cut off")
    texts, scores, toy = search(student, SHORT, 2, 1, END, 1.0)
    expect_equal(texts, [[A], [END]], what="one step")
    expect_close(scores, [math.log(0.59), math.log(0.4)], 1e-3, what="scores after one step")
    expect_equal(toy.calls, 1, what="calls of the model in one step")


@check("beam")
def the_search_goes_on_after_an_end(student):
    """A finished text waits; a later one may still beat it, and the beam keeps its width."""
    late = {(): [0.45, 0.3, 0.25], (A,): [0.01, 0.98, 0.01], (A, A): [0.01, 0.98, 0.01], (A, A, A): [0.98, 0.01, 0.01],
            (B,): [0.01, 0.01, 0.98], "else": [0.98, 0.01, 0.01]}
    texts, _, toy = search(student, late, 2, 4, END, 1.0)
    after_one = sum(len(text) == 1 for text in toy.asked)
    expect_true(after_one > 0, "you stopped at the first end; the other texts go on.")
    expect_equal(after_one, 2, what="live texts after the first step",
                 hints={1: "the ended text took a live place; the beam stays two wide."})
    expect_equal(texts, [[A, A, A, END], [B, B, END]], what="texts, best first")


@check("beam")
def endings_must_win_their_place(student):
    """An end outside the first `width` of the ranking is lost, however short it is."""
    crowd = {(): [0.1, 0.5, 0.4], "else": [0.001, 0.5, 0.499]}
    texts, _, _ = search(student, crowd, 2, 6, END, 0.0)
    expect_true([END] not in texts, "[END] came third in the first step, with a beam of two: it is lost")

# %% key="beam-m-extends" role="mutant" exercise="beam" name="goes on after the end of the text"
def beam_search(next_log_probabilities, width, max_tokens, eos, length_penalty=1.0):
    live = [([], 0.0)]
    for _ in range(max_tokens):
        logs = next_log_probabilities([text for text, _ in live])
        totals = (logs + torch.tensor([total for _, total in live])[:, None]).flatten()
        best = totals.sort(descending=True).indices[:width].tolist()
        live = [([*live[p // logs.shape[1]][0], p % logs.shape[1]], totals[p].item()) for p in best]
    cut = [(text[: text.index(eos) + 1] if eos in text else text, total) for text, total in live]
    return sorted([(text, total / len(text) ** length_penalty) for text, total in cut], key=lambda pair: -pair[1])

# %% key="beam-m-forgets" role="mutant" exercise="beam" name="forgets finished texts"
def beam_search(next_log_probabilities, width, max_tokens, eos, length_penalty=1.0):
    live, last = [([], 0.0)], []
    for _ in range(max_tokens):
        logs = next_log_probabilities([text for text, _ in live])
        totals = (logs + torch.tensor([total for _, total in live])[:, None]).flatten()
        best = totals.sort(descending=True).indices[: 2 * width].tolist()
        last = [([*live[p // logs.shape[1]][0], p % logs.shape[1]], totals[p].item()) for p in best]
        live = [(text, total) for text, total in last if text[-1] != eos][:width]
    scored = [(text, total / len(text) ** length_penalty) for text, total in last]
    return sorted(scored, key=lambda pair: -pair[1])[:width]

# %% key="beam-m-length" role="mutant" exercise="beam" name="ignores length"
def beam_search(next_log_probabilities, width, max_tokens, eos, length_penalty=1.0):
    live, finished = [([], 0.0)], []
    for _ in range(max_tokens):
        logs = next_log_probabilities([text for text, _ in live])
        totals = (logs + torch.tensor([total for _, total in live])[:, None]).flatten()
        best = totals.sort(descending=True).indices[: 2 * width].tolist()
        candidates = [([*live[p // logs.shape[1]][0], p % logs.shape[1]], totals[p].item()) for p in best]
        finished += [(text, total) for text, total in candidates[:width] if text[-1] == eos]
        live = [(text, total) for text, total in candidates if text[-1] != eos][:width]
        if not live:
            break
    return sorted(finished + live, key=lambda pair: -pair[1])[:width]

# %% key="beam-m-first" role="mutant" exercise="beam" name="stops at the first finished text"
def beam_search(next_log_probabilities, width, max_tokens, eos, length_penalty=1.0):
    live, finished = [([], 0.0)], []
    for _ in range(max_tokens):
        logs = next_log_probabilities([text for text, _ in live])
        totals = (logs + torch.tensor([total for _, total in live])[:, None]).flatten()
        best = totals.sort(descending=True).indices[: 2 * width].tolist()
        candidates = [([*live[p // logs.shape[1]][0], p % logs.shape[1]], totals[p].item()) for p in best]
        finished += [(text, total) for text, total in candidates[:width] if text[-1] == eos]
        live = [(text, total) for text, total in candidates if text[-1] != eos][:width]
        if finished:
            break
    scored = [(text, total / len(text) ** length_penalty) for text, total in finished + live]
    return sorted(scored, key=lambda pair: -pair[1])[:width]

# %% key="beam-m-shrinks" role="mutant" exercise="beam" name="a finished text takes a live place"
def beam_search(next_log_probabilities, width, max_tokens, eos, length_penalty=1.0):
    live, finished = [([], 0.0)], []
    for _ in range(max_tokens):
        logs = next_log_probabilities([text for text, _ in live])
        totals = (logs + torch.tensor([total for _, total in live])[:, None]).flatten()
        best = totals.sort(descending=True).indices[:width].tolist()
        candidates = [([*live[p // logs.shape[1]][0], p % logs.shape[1]], totals[p].item()) for p in best]
        finished += [(text, total) for text, total in candidates if text[-1] == eos]
        live = [(text, total) for text, total in candidates if text[-1] != eos]
        if not live:
            break
    scored = [(text, total / len(text) ** length_penalty) for text, total in finished + live]
    return sorted(scored, key=lambda pair: -pair[1])[:width]

# %% key="beam-m-last" role="mutant" exercise="beam" name="ranks by the last token alone"
def beam_search(next_log_probabilities, width, max_tokens, eos, length_penalty=1.0):
    live, finished = [([], 0.0)], []
    for _ in range(max_tokens):
        logs = next_log_probabilities([text for text, _ in live])
        totals = (logs + torch.tensor([total for _, total in live])[:, None]).flatten()
        best = logs.flatten().sort(descending=True).indices[: 2 * width].tolist()
        candidates = [([*live[p // logs.shape[1]][0], p % logs.shape[1]], totals[p].item()) for p in best]
        finished += [(text, total) for text, total in candidates[:width] if text[-1] == eos]
        live = [(text, total) for text, total in candidates if text[-1] != eos][:width]
        if not live:
            break
    scored = [(text, total / len(text) ** length_penalty) for text, total in finished + live]
    return sorted(scored, key=lambda pair: -pair[1])[:width]

# %% key="beam-m-each" role="mutant" exercise="beam" name="every ending is taken, whatever its rank"
def beam_search(next_log_probabilities, width, max_tokens, eos, length_penalty=1.0):
    live, finished = [([], 0.0)], []
    for _ in range(max_tokens):
        logs = next_log_probabilities([text for text, _ in live])
        totals = (logs + torch.tensor([total for _, total in live])[:, None]).flatten()
        best = totals.sort(descending=True).indices.tolist()
        candidates = [([*live[p // logs.shape[1]][0], p % logs.shape[1]], totals[p].item()) for p in best]
        finished += [(text, total) for text, total in candidates if text[-1] == eos]
        live = [(text, total) for text, total in candidates if text[-1] != eos][:width]
        if not live:
            break
    scored = [(text, total / len(text) ** length_penalty) for text, total in finished + live]
    return sorted(scored, key=lambda pair: -pair[1])[:width]

# %% [markdown] key="end" lang="en"
# ## Done?
#
# Save, then run `llmcourse check labs/lab01_transformer.ipynb` in a terminal: it runs the whole lab in a fresh kernel
# and prints your points. It is a self-check and no grade; the hidden checks come on top.
#
# Then compare your functions with those of the room `model/`: `attention.py`, `rope.py`, `transformer.py`, `sampling.py` and
# `beam.py`. Where is the package's version shorter than yours, and where does it refuse input that yours accepts?
