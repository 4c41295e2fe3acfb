"""Week 1 lecture: language models from the inside. Built into `week01/lecture.ipynb`."""

# %% [markdown] key="goals" lang="en"
# # Week 1 · Language models from the inside
#
# **Efficient serving of large language models: dynamic scheduling and system optimisation**
#
# After this lecture you can
#
# 1. say what a language model computes, and what different uses of it want from a service;
# 2. follow one token through attention, positions, feed-forward network, residuals and norms, and say what breaks
#    without each;
# 3. train a small model on next tokens, and read its loss;
# 4. explain why text is written one token at a time, and choose between greedy, beam and sampling.
#
# **Rooms of `llmcourse` that open today:** `model/` (what is served) and `viz/` (what we see).
#
# | part | minutes | | part | minutes |
# |:--|--:|:--|:--|--:|
# | 1 · The course | 10 | | 7 · Encoder-decoder and decoder-only | 8 |
# | 2 · What a language model is | 20 | | 8 · Training on the next token | 15 |
# | 3 · Tokens | 8 | | 9 · One token at a time | 12 |
# | 4 · Attention | 22 | | 10 · Choosing the token | 20 |
# | 5 · Positions | 12 | | 11 · What this cannot do | 8 |
# | 6 · Feed-forward, residuals, norms | 13 | | **all** | **148** |
#
# Run the cells from top to bottom; everything runs offline on a laptop in under a minute. Each part opens with a
# question: **answer it before you run the next cell.**

# %% key="setup"
import math
from random import Random

import torch
from plotly.graph_objects import Scatter
from torch import nn
from tqdm.auto import tqdm

from llmcourse import viz
from llmcourse.course import weeks
from llmcourse.model import ModelConfig, Transformer, corpus, generate, load_model
from llmcourse.model.attention import CausalAttention, RecordedAttention, causal_mask, scaled_dot_product_attention
from llmcourse.model.decoding import beam_search
from llmcourse.model.positions import sinusoidal_positions
from llmcourse.model.rope import apply_rope, rope_angles
from llmcourse.model.sampling import next_token_distribution
from llmcourse.model.seq2seq import Seq2Seq
from llmcourse.viz.beam import Node
from llmcourse.viz.theme import LINES, canvas, finish

model, tokenizer = load_model("course-tiny", device="cpu")
END = tokenizer.end_id


def dice(seed):
    """A random generator that gives the same numbers every time."""
    return torch.Generator().manual_seed(seed)


def answer(prompt, **settings):
    """What course-tiny writes behind a prompt, as text."""
    ids = generate(model, tokenizer.encode_prompt(prompt), 300, eos_ids=tokenizer.eos_ids, **settings)
    return tokenizer.decode(ids)


answer("Count from 3 to 9.")

# %% key="setup-figures" folded="true"
def draw_curves(title, curves, x, y, finding, **axis):
    """Show a line for each named list of numbers; `finding` is the sentence that says what the picture shows."""
    figure = canvas(title, 380)
    for (name, values), colour, dash in zip(curves.items(), LINES, ("solid", "dash", "dot", "dashdot"), strict=False):
        line = {"color": colour, "width": 3, "dash": dash}
        figure.add_trace(Scatter(x=list(range(len(values))), y=values, mode="lines", name=name, line=line))
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y, **axis)
    steps = len(next(iter(curves.values())))
    rows = [(i, *("none" if curve[i] is None else f"{curve[i]:.2f}" for curve in curves.values()))
            for i in range(0, steps, max(1, steps // 10))]
    viz.show(finish(figure, finding, (x, *curves), rows), alt=finding)

# %% [markdown] key="course" lang="en"
# ## 1 · The course
#
# *Question: a web page is served in milliseconds by a machine that costs cents. Why is a chat answer so much dearer?*
#
# A language model is powerful, and hard to serve: each answer is made of hundreds of steps, each step reads billions
# of weights, and nobody knows at the start how many steps there will be. This course asks what a **service** can do
# about it at run time: order, batch, preempt, move, and scale requests. We study the problem, the theory, the
# published systems, and we rebuild their mechanisms in small, readable code.

# %% key="course-map"
module = ""
for week in weeks():
    if week.module != module:
        module = week.module
        print(f"\n{module}")
    print(f"  {week.number:2}  {week.title}   [{', '.join(week.rooms)}]")

assert len(weeks()) == 16

# %% [markdown] key="course-work" lang="en"
# Each week has a lecture like this one and a lab. A lab's functions are put into the running system: your attention
# into the model, your scheduler into the engine. The lab tells you at once what passes. What your own class also asks
# (readings, essays, the project of week 16) your instructor says.

# %% [markdown] key="what" lang="en"
# ## 2 · What a language model is
#
# *Question: what is the smallest thing that deserves the name?*
#
# A **language model** is a function. In goes a text, cut into tokens; out comes a probability for every token of the
# vocabulary: how likely is it to come next? That is all. Chat, code and translation are uses of that one function.

# %% key="what-function"
prompt = "Tell me a story."
tokens = torch.tensor([tokenizer.encode_prompt(prompt)])
logits = model(tokens)
shares = logits[0, -1].softmax(-1)

print("tokens in   ", tuple(tokens.shape))
print("scores out  ", tuple(logits.shape), " one row for each token, one score for each word of the vocabulary")
print(f"sum of the probabilities of the next token: {shares.sum():.4f}")
for share, index in zip(*shares.topk(4), strict=True):
    print(f"  {share:6.1%}  {tokenizer.token(int(index))!r}")

assert abs(shares.sum().item() - 1) < 1e-4

# %% [markdown] key="what-history" lang="en"
# ### From counting to transformers
#
# The oldest language model counts pairs: after *once*, how often came *upon*? It sees **one** token. Recurrent networks
# (RNN, LSTM) carry a summary of everything before, but squeeze it into one vector, and must read token after token. The
# transformer (Vaswani et al., 2017) looks back at **all** tokens directly, and in training handles them all at once.
#
# *Predict: how many bits of surprise per token does each model leave on text it has not seen? (Guessing among all tokens
# leaves log₂ of the vocabulary.)*

# %% key="what-bits"
def documents(seed, number, held_out=False):
    """Questions with answers as token ids, and how long each question is."""
    stream = corpus.samples(seed, held_out)
    for _ in range(number):
        sample = next(stream)
        question = tokenizer.encode_prompt(sample.prompt)
        yield question + tokenizer.encode(sample.answer) + [END], len(question)


pairs = torch.full((tokenizer.vocab_size, tokenizer.vocab_size), 0.01)          # a little of everything: smoothing
for ids, _ in documents(1, 3000):
    line = torch.tensor(ids)
    pairs.index_put_((line[:-1], line[1:]), torch.ones(len(ids) - 1), accumulate=True)
after = (pairs / pairs.sum(1, keepdim=True)).log2()                            # log2 P(next | this one)
alone = (pairs.sum(0) / pairs.sum()).log2()                                    # log2 P(next)

surprise = {"guessing": [], "how often (one token)": [], "counted pairs": [], "course-tiny": []}
for ids, start in documents(2, 60, held_out=True):
    line, wanted = torch.tensor(ids), torch.tensor(ids[start:])
    logs = model(line[None, :-1])[0, start - 1:].log_softmax(-1) / math.log(2)
    surprise["guessing"] += [math.log2(tokenizer.vocab_size)] * len(wanted)
    surprise["how often (one token)"] += (-alone[wanted]).tolist()
    surprise["counted pairs"] += (-after[line[start - 1:-1], wanted]).tolist()
    surprise["course-tiny"] += (-logs.gather(1, wanted[:, None])[:, 0]).tolist()

bits = {name: sum(values) / len(values) for name, values in surprise.items()}
for name, value in bits.items():
    print(f"{name:22} {value:5.2f} bits per token of an unseen answer")

assert bits["guessing"] > bits["how often (one token)"] > bits["counted pairs"] > bits["course-tiny"]

# %% [markdown] key="what-large" lang="en"
# ### How large is large?
#
# "Large" starts at billions of parameters. Size, generality (one model for many tasks) and abilities that small models
# lack are what sets LLMs apart from the task-specific language models before them. Whether those abilities *emerge*
# suddenly or only look so depends on how one measures.

# %% key="what-sizes"
llama_7b = ModelConfig(vocab_size=32000, hidden_size=4096, num_layers=32, num_heads=32, num_kv_heads=32, head_dim=128,
                       intermediate_size=11008, max_length=2048)
for name, count in (("course-tiny, the model of this course", model.config.num_parameters),
                    ("Llama 7B (Touvron et al., 2023)", llama_7b.num_parameters),
                    ("GPT-3 (Brown et al., 2020)", 175_000_000_000)):
    print(f"{name:40} {count:>18,} parameters   {2 * count / 1e9:10.3f} GB in 16 bits")

assert round(llama_7b.num_parameters / 1e9, 1) == 6.7

# %% [markdown] key="what-families" lang="en"
# | family | shape | trained to | used for |
# |:--|:--|:--|:--|
# | BERT (Devlin et al., 2019) | encoder | fill masked words | search, classification; also to *predict output lengths* (week 9) |
# | T5 (Raffel et al., 2020) | encoder-decoder | text to text | translation, summaries |
# | GPT (Radford et al., 2018; Brown et al., 2020) | decoder | predict the next token | chat, code, nearly everything today |
# | LLaMA, Qwen, Mistral … (2023 on) | decoder | the same | open weights: what this course serves |
#
# ### What each use wants from a service
#
# | use | prompt | answer | what the user feels |
# |:--|:--|:--|:--|
# | chat | short, grows with every turn | some hundreds of tokens | time to the **first** token, then steady reading speed |
# | code completion | long (the file) | a few tokens | the whole answer, at once |
# | search, retrieval (RAG) | very long, partly shared | short | time to the first token |
# | agents with tools | long, many rounds | short, then a pause | the sum over all rounds |
# | summaries overnight | long | medium | nothing: only **throughput** and price count |
#
# *Question for the room: one server gets all five at once. Whom should it serve first?* That question is this course.

# %% key="what-lengths"
for prompt in ("What is 7 + 5?", "Name 4 colors.", "Count from 1 to 30.", "Tell me a story."):
    ids = tokenizer.encode_prompt(prompt)
    first, second = (len(generate(model, ids, 200, temperature=1.0, seed=seed, eos_ids=tokenizer.eos_ids))
                     for seed in (0, 1))
    print(f"{prompt:22} {len(ids):3} tokens in, {first:3} and {second:3} tokens out")

# %% [markdown] key="what-lengths-note" lang="en"
# Prompts of nearly the same length, answers of very different length: **heterogeneous** load. And the story, asked
# twice, has two lengths: **unpredictable** load. Weeks 4 and 9 are about these two facts.

# %% [markdown] key="tokens" lang="en"
# ## 3 · Tokens
#
# *Question: how many tokens is "Count from 3 to 19."? And its Chinese translation?*
#
# A model sees no letters. A **tokenizer** cuts the text into pieces of a fixed vocabulary and numbers them. Byte-pair
# encoding (Sennrich et al., 2016) starts from single bytes and merges the pair that is most frequent, again and again.
# So frequent words become one token, rare words several, and no text is unknown.

# %% key="tokens-cut"
def pieces(text):
    """The tokens of a text, as people read them."""
    return [tokenizer.token(index) for index in tokenizer.encode(text)]


for text in ("Count from 3 to 19.", "从3数到19。", "Counterrevolutionaries count.", " the the the"):
    cut = pieces(text)
    print(f"{len(text):3} characters, {len(cut):2} tokens: {' | '.join(cut)}")

assert tokenizer.decode(tokenizer.encode("从3数到19。")) == "从3数到19。"
assert "".join(pieces("Count from 3 to 19.")) == "Count from 3 to 19."

# %% [markdown] key="tokens-note" lang="en"
# Each digit is a token here, so that sums go digit by digit. A `�` is *part* of a character: a rare Chinese character is
# several byte tokens, and a stream must wait for all of them before it can show one.
#
# A prompt is wrapped in special tokens, and an answer ends with one. **The model itself decides when to stop**, by drawing
# the end token; that is why nobody knows an answer's length in advance.

# %% key="tokens-special"
print([tokenizer.token(index) for index in tokenizer.encode_prompt("Hello")], " end:", tokenizer.token(END))

# %% [markdown] key="tokens-myth" lang="en"
# <details>
# <summary>Misconception: "a token is a word"</summary>
#
# About 4 characters of English per token is a rule of thumb for large vocabularies, and a bad one for code, numbers and
# other languages. Price, speed and memory are all counted in tokens, so the same question can cost several times as
# much in another language. Count tokens, never words.
#
# </details>

# %% [markdown] key="attention" lang="en"
# ## 4 · Attention
#
# *Question: "The cat sat on the mat because **it** was tired." How could a model find out what "it" is?*
#
# Each token first becomes a vector: its row of the embedding table. Then every token
#
# - asks a question: its **query** q,
# - offers a label to compare with: its **key** k,
# - and offers content: its **value** v.
#
# Compare my query with every key (dot product), turn the scores into weights that sum to 1 (softmax), and take the
# weighted sum of the values:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$

# %% key="attention-hand"
q = torch.tensor([2.0, 0.0])                               # what I look for
k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])     # what three tokens offer
v = torch.tensor([[10.0], [20.0], [30.0]])                 # what they return

scores = k @ q / math.sqrt(2)
weights = scores.softmax(0)
print("scores ", [round(x, 3) for x in scores.tolist()])
print("weights", [round(x, 3) for x in weights.tolist()], "sum", round(weights.sum().item(), 3))
print("output ", round((weights @ v).item(), 3))

assert weights.argmax() == 0 and 10 < (weights @ v).item() < 30

# %% [markdown] key="attention-scale" lang="en"
# *Why divide by √d? Predict: two random vectors of 256 numbers, each about 1 in size. How large is their dot product?*

# %% key="attention-scale-run"
print("   d   spread of q·k   largest of 16 weights: unscaled   scaled")
for d in (4, 64, 256):
    q, k = torch.randn(500, d, generator=dice(1)), torch.randn(500, 16, d, generator=dice(2))
    s = torch.einsum("nd,nsd->ns", q, k)
    raw, tame = (x.softmax(-1).max(-1).values.mean().item() for x in (s, s / math.sqrt(d)))
    print(f"{d:4}   {s.std():13.1f}   {raw:31.2f}   {tame:6.2f}")
    assert abs(s.std().item() / math.sqrt(d) - 1) < 0.1

assert raw > 0.8 > 0.4 > tame

# %% [markdown] key="attention-scale-note" lang="en"
# The spread grows as √d. Unscaled, one key takes nearly everything, whichever it is: the softmax is saturated, its
# gradient vanishes, and the model cannot learn where to look.
#
# ### Nobody looks ahead
#
# A decoder predicts the next token, so token *i* may look only at tokens 0 … *i*. The **causal mask** sets all other
# scores to −∞ *before* the softmax.

# %% key="attention-mask"
for row in causal_mask(5, 5):
    print("  ".join("■" if allowed else "·" for allowed in row))

# %% [markdown] key="attention-see" lang="en"
# ### See it in the real model
#
# Rows ask, columns answer, a row sums to 1. *Before you look: which column will be bright, and why is the upper right
# empty?*

# %% key="attention-figure"
def look(text, layer, head):
    """Tokens of a typed text and the attention weights of one head."""
    ids = tokenizer.encode_prompt(text)
    recorded = RecordedAttention()
    with torch.inference_mode():
        model(torch.tensor([ids]), recorded)
    return [tokenizer.token(index) for index in ids], recorded.weights[layer][0, head].tolist()


question = "Count from 3 to 9."
layers, heads = range(model.config.num_layers), range(model.config.num_heads)


def next_door(layer, head):
    """How much of its attention a token gives to the one just before it, on average."""
    _, weights = look(question, layer, head)
    return sum(weights[i][i - 1] for i in range(1, len(weights))) / (len(weights) - 1)


layer, head = max(((one, other) for one in layers for other in heads), key=lambda pair: next_door(*pair))
figure = viz.attention_map(*look(question, layer, head), f"Layer {layer}, head {head}: who looks at whom")
viz.show(figure, alt=f"Head {head} of layer {layer} gives {next_door(layer, head):.0%} of its attention to the token "
         f"just before; the upper right half is empty because no token looks ahead. {viz.summary(figure)}")

assert next_door(layer, head) > 1.5 / len(tokenizer.encode_prompt(question))

# %% key="attention-widget"
attention = viz.attention_explorer(look, len(layers), len(heads), question, limit=60)
attention

# %% key="attention-widget-check"
print(attention.set(layer=len(layers) - 1).summary)        # the same move without a browser
attention.set(layer=0)

# %% [markdown] key="heads" lang="en"
# ### Several heads, few keys
#
# One head gives one way of looking. A layer has several, each with its own small projections, and joins their outputs.
# Here is the first number that decides the cost of serving: **how many heads keep keys and values?** With as many as
# query heads it is multi-head attention (MHA); with one it is multi-query (MQA, Shazeer, 2019); between, grouped-query
# (GQA, Ainslie et al., 2023). Keys and values must be *remembered* for every token; queries are forgotten at once.

# %% key="heads-count"
c = model.config
print(f"course-tiny: {c.num_heads} query heads share {c.num_kv_heads} KV heads, {c.head_dim} numbers each")
kept, full = 2 * c.num_kv_heads * c.head_dim, 2 * c.num_heads * c.head_dim
print(f"remembered per token and layer: {kept} numbers instead of {full}")

group = c.num_heads // c.num_kv_heads
q, k, v = (torch.randn(1, 6, n, c.head_dim, generator=dice(n)) for n in (c.num_heads, c.num_kv_heads, c.num_kv_heads))
grouped = scaled_dot_product_attention(q, k, v)
copied = scaled_dot_product_attention(q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2))
assert torch.allclose(grouped, copied, atol=1e-5)          # GQA is MHA whose heads share keys and values

# %% [markdown] key="attention-cost" lang="en"
# ### Why this beat the recurrent network
#
# | to handle T tokens | steps that must wait for each other | from the first token to the last | comparisons |
# |:--|:-:|:-:|:-:|
# | recurrent network | T | T steps away | none |
# | attention | 1 | 1 step away | T² / 2 |
#
# In training all tokens are known, so attention does them at once, and no memory fades over distance. The price is
# T² comparisons. *Question: who pays it, the one who trains or the one who serves?* (Both; weeks 2 and 14.)
#
# <details>
# <summary>Misconception: "attention weights say why the model answered so"</summary>
#
# They say where one head of one layer took its mix from. The values it mixed are already mixtures, other heads and the
# feed-forward networks act too, and different weights can give the same output. A heat map is a good question, not a proof.
#
# </details>

# %% [markdown] key="positions" lang="en"
# ## 5 · Positions
#
# *Question: take the mask and all position information away. Does "dog bites man" differ from "man bites dog"?*

# %% key="positions-bag"
words = torch.randn(3, 16, generator=dice(3))              # vectors of dog, bites, man
ask = torch.randn(1, 1, 1, 16, generator=dice(4))          # one query, from outside
first, second = words.view(1, 3, 1, 16), words[[2, 1, 0]].view(1, 3, 1, 16)
same = scaled_dot_product_attention(ask, first, first), scaled_dot_product_attention(ask, second, second)
print("largest difference:", (same[0] - same[1]).abs().max().item())

assert torch.allclose(*same, atol=1e-5)

# %% [markdown] key="positions-note" lang="en"
# None. Attention sees a *bag* of tokens; order must be put in. Two ways:
#
# - **Sinusoidal** (2017): add a pattern of waves to each token's vector, like the hands of ever slower clocks.
# - **Rotary, RoPE** (Su et al., 2021): turn each query and key by an angle that grows with the position. All models we
#   serve use it.
#
# *Predict: both compare token 50 with every other token. What do the two curves look like?*

# %% key="positions-figure"
waves = sinusoidal_positions(101, 64)
added = (waves @ waves[50] / (waves[50] @ waves[50])).tolist()

frequencies = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
one = torch.ones(1, 101, 1, 64)                            # the same vector everywhere, only the position differs
turned = apply_rope(one, *rope_angles(torch.arange(101), frequencies))[0, :, 0]
rotated = (turned @ turned[50] / 64).tolist()

draw_curves("How alike are position 50 and the others?",
            {"sinusoidal: pattern · pattern": added, "RoPE: turned query · turned key": rotated},
            "position of the other token", "similarity (1 = same place)",
            f"The two curves lie on each other: 1 at position 50, {added[60]:.2f} ten places away on either side, and "
            "never back to 1.")

assert max(abs(a - r) for a, r in zip(added, rotated, strict=True)) < 1e-4
assert max(range(101), key=added.__getitem__) == 50 == max(range(101), key=rotated.__getitem__)
assert abs(rotated[40] - rotated[60]) < 1e-4 and abs(added[40] - added[60]) < 1e-4

# %% [markdown] key="positions-distance" lang="en"
# The two curves are the same: both are sums of cosines of the *distance*. What differs is where they enter. RoPE acts
# inside the scores, in every layer, and q·k then depends on the distance only. Check it with random vectors:

# %% key="positions-relative"
q, k = torch.randn(1, 1, 1, 64, generator=dice(5)), torch.randn(1, 1, 1, 64, generator=dice(6))


def score(m, n):
    """q at position m times k at position n."""
    asked = apply_rope(q, *rope_angles(torch.tensor([m]), frequencies))
    offered = apply_rope(k, *rope_angles(torch.tensor([n]), frequencies))
    return (asked * offered).sum().item()


print(f"q at 7, k at 3: {score(7, 3):.4f}    at 107 and 103: {score(107, 103):.4f}    at 9 and 3: {score(9, 3):.4f}")

assert abs(score(7, 3) - score(107, 103)) < 1e-3 < abs(score(7, 3) - score(9, 3))

# %% [markdown] key="positions-blind" lang="en"
# And what does the real model lose without positions? Tell it that every token stands at place 0:

# %% key="positions-blind-run"
class Blind(CausalAttention):
    """Causal attention for a model that is told all tokens stand at the same place."""

    def positions(self, count):
        return torch.zeros(count, dtype=torch.int64)


def bits_per_token(attention, number=40):
    """Surprise of course-tiny on unseen answers, in bits per token."""
    values = []
    for ids, start in documents(2, number, held_out=True):
        with torch.inference_mode():
            logs = model(torch.tensor([ids[:-1]]), attention)[0, start - 1:].log_softmax(-1) / math.log(2)
        values += (-logs.gather(1, torch.tensor(ids[start:])[:, None])[:, 0]).tolist()
    return sum(values) / len(values)


seeing, blind = bits_per_token(CausalAttention()), bits_per_token(Blind())
print(f"bits per token: {seeing:.2f} with positions, {blind:.2f} without")

assert blind > 2 * seeing

# %% [markdown] key="positions-myth" lang="en"
# <details>
# <summary>Misconception: "without position encodings a decoder knows nothing about order"</summary>
#
# The causal mask itself breaks the symmetry: the third token sees three tokens, the fourth sees four. Decoders trained
# without any encoding do learn some order (Haviv et al., 2022). The model above was trained *with* positions, so it is
# lost without them.
#
# </details>

# %% [markdown] key="block" lang="en"
# ## 6 · Feed-forward networks, residuals, norms
#
# *Question: where are most of the parameters?*
#
# A block looks back (attention), then **thinks**: a feed-forward network works on each token alone. Both *add* their
# result to a stream that runs through the whole model (the **residual**), and both read it through a **norm**, which
# brings every vector to the same size:
#
# ```
# x = x + attention(norm(x))
# x = x + feed_forward(norm(x))
# ```

# %% key="block-share"
def share(config):
    """Shares of attention, feed-forward networks and embeddings in a model's parameters."""
    d, kv = config.hidden_size, config.num_kv_heads * config.head_dim
    look = config.num_layers * (2 * d * config.num_heads * config.head_dim + 2 * d * kv)
    think = config.num_layers * 3 * d * config.intermediate_size
    return look / config.num_parameters, think / config.num_parameters, 1 - (look + think) / config.num_parameters


print("                 attention  feed-forward  embeddings and norms")
for name, config in (("course-tiny", model.config), ("Llama 7B", llama_7b)):
    print(f"{name:16} {share(config)[0]:9.0%}  {share(config)[1]:12.0%}  {share(config)[2]:20.0%}")

assert all(share(config)[1] > share(config)[0] for config in (model.config, llama_7b))

# %% [markdown] key="block-break" lang="en"
# ### What if we leave one out?
#
# Three models of 12 blocks, same weights at the start, same data, same learning rate. One is whole; one has **no norms**;
# one has **no residuals**. *Predict the three loss curves. Guessing among all tokens costs ln(vocabulary).*

# %% key="block-break-train"
story_ids = []
author = Random(0)
while len(story_ids) < 60_000:
    story_ids += [*tokenizer.encode(corpus.draw("story", author).answer), END]
story_ids = torch.tensor(story_ids)


class NoResidual(nn.Module):
    """A block whose branches replace the stream instead of adding to it."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x, cos, sin, attention):
        b = self.block
        return b.mlp(b.mlp_norm(b.attention(b.attention_norm(x), cos, sin, attention)))


def deep(variant):
    """A deep, narrow decoder, whole or with a part left out."""
    net = Transformer(ModelConfig(tokenizer.vocab_size, 48, 12, 4, 2, 12, 96, 256, tie_embeddings=True), seed=0)
    if variant == "no norms":
        for block in net.blocks:
            block.attention_norm = block.mlp_norm = nn.Identity()
    if variant == "no residuals":
        net.blocks = nn.ModuleList(NoResidual(block) for block in net.blocks)
    return net


def train(net, steps, rows, length, rate, say=lambda step: None):
    """Train on stories; the loss of every step, in nats per token."""
    optimizer = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    draw, losses = dice(0), []
    for step in range(steps):
        starts = torch.randint(len(story_ids) - length - 1, (rows,), generator=draw)
        text = torch.stack([story_ids[at:at + length + 1] for at in starts])
        loss = nn.functional.cross_entropy(net(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.step()
        losses.append(loss.item())
        say(step)
    return losses


curves = {name: train(deep(name), 30, 4, 32, lambda step: 0.01) for name in ("whole", "no norms", "no residuals")}
final = {name: sum(curve[-5:]) / 5 for name, curve in curves.items()}
for name, curve in curves.items():
    print(f"{name:13} first {curve[0]:.2f}, after 10 steps {curve[10]:.2f}, last five {final[name]:.2f}")

guess = math.log(tokenizer.vocab_size)
assert final["whole"] < 0.75 * guess
assert not final["no norms"] < final["whole"] + 1
assert abs(final["no residuals"] - guess) < 0.1

# %% key="block-break-figure"
visible = {name: [value if value < 12 else None for value in curve] for name, curve in curves.items()}
lost = [*visible["no norms"], None].index(None)
draw_curves("12 blocks: whole, without norms, without residuals", visible, "step", "loss (nats per token)",
            f"The whole model falls to {final['whole']:.1f}. Without norms it breaks off (nan) at step {lost}; "
            f"without residuals it stays at {final['no residuals']:.2f}, the level of guessing.", range=[3, 12])

# %% [markdown] key="block-break-note" lang="en"
# Without **norms** the sizes of the vectors feed on themselves: the training *diverges*, and what follows is `nan`.
# Without **residuals** the signal and its gradient pass through 24 branches, each of which shrinks it: the training
# *stalls*. With both, the gradient has a straight road to every block, and depth is safe.
#
# <details>
# <summary>Where does the norm stand?</summary>
#
# The paper of 2017 put it *after* the sum (post-norm), which trains only with a careful warm-up. Today it stands in front
# of each branch (pre-norm), and the stream itself is never normed until the end. Today's models use RMSNorm (Zhang and
# Sennrich, 2019), which divides by the root mean square and subtracts nothing.
#
# </details>

# %% [markdown] key="encdec" lang="en"
# ## 7 · Encoder-decoder and decoder-only
#
# *Question: to translate, must you read the whole sentence before you write the first word?*
#
# The first transformer had two stacks. The **encoder** reads the source, every token looking both ways. The **decoder**
# writes from left to right and also looks across at the encoder's output. Decoder-only models dropped the encoder:
# source and answer are one text. Who can influence whom? We change one token and see which outputs move.

# %% key="encdec-masks"
def influence(run, tokens, places):
    """Rows: outputs; columns: the token that was changed; True where the output moved."""
    moved = []
    for place in places:
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 20
        moved.append((run(changed) - run(tokens)).abs().amax(-1)[0] > 1e-5)
    return torch.stack(moved, dim=1)


def draw_table(title, table):
    print(title)
    for row in table:
        print("   ", "  ".join("■" if cell else "·" for cell in row))


both = Seq2Seq(vocab_size=20).eval().requires_grad_(False)
source, target = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[2, 7, 1, 8]])
encoder = influence(both.encode, source, range(5))
across = influence(lambda text: both(text, target), source, range(5))
decoder = influence(lambda text: both(source, text), target, range(4))
draw_table("encoder: source -> encoded source", encoder)
draw_table("cross-attention: source -> answer", across)
draw_table("decoder: answer so far -> answer", decoder)

only = Transformer(ModelConfig(20, 32, 2, 4, 2, 8, 64, 32), seed=0).eval().requires_grad_(False)
alone = influence(only, torch.cat((source, target), 1), range(9))
draw_table("decoder-only: prompt and answer are one text", alone)

assert encoder.all() and across.all()
assert torch.equal(decoder, causal_mask(4, 4)) and torch.equal(alone, causal_mask(9, 9))

# %% [markdown] key="encdec-note" lang="en"
# In a decoder-only model an early token of the prompt never sees a later one. That looks like a loss, and it is what
# makes serving possible: **what was computed for a token never changes when more text arrives.** Keep that sentence for
# next week.

# %% [markdown] key="training" lang="en"
# ## 8 · Training on the next token
#
# *Question: who writes the labels?*
#
# Nobody. The text is its own label: at every place, the right answer is the token that really came next. The **loss** is
# its surprise, −log P(next token), averaged over all places. One pass over a text of T tokens gives T lessons.
#
# *Predict the loss before any training, for a vocabulary of this size.*

# %% key="training-start"
small = Transformer(ModelConfig(tokenizer.vocab_size, 96, 2, 4, 2, 24, 288, 256, tie_embeddings=True), seed=0)
print(f"{small.config.num_parameters:,} parameters, vocabulary {tokenizer.vocab_size:,}")


def write(net, seed=3):
    """Thirty tokens of a net's own, after the end of some other text."""
    return " ".join(tokenizer.decode(generate(net, [END], 30, temperature=0.7, seed=seed)).split())


with torch.no_grad():
    text = story_ids[:257].view(1, -1)
    start_loss = nn.functional.cross_entropy(small(text[:, :-1])[0], text[0, 1:]).item()
print(f"loss before training {start_loss:.2f}, ln(vocabulary) = {guess:.2f}")
print("it writes:", write(small))

assert abs(start_loss - guess) < 0.1

# %% key="training-run"
STEPS = 280
bar = tqdm(total=STEPS, desc="training on stories", unit="step")


def up_then_down(step):
    """Learning rate: ten steps of warm-up, then a straight line down."""
    return 0.01 * min((step + 1) / 10, 1.02 - step / STEPS)


losses = train(small, STEPS, 8, 64, up_then_down, lambda step: bar.update())
bar.close()
reached = sum(losses[-20:]) / 20
print(f"loss {losses[0]:.2f} -> {reached:.2f} nats per token")
print(f"as if it wavered among {math.exp(losses[0]):,.0f} -> {math.exp(reached):.1f} equally likely tokens")

assert reached < 0.35 * losses[0]

# %% key="training-figure"
smooth = [sum(losses[max(0, i - 9):i + 1]) / len(losses[max(0, i - 9):i + 1]) for i in range(STEPS)]
draw_curves(f"Training {small.config.num_parameters:,} parameters on stories",
            {"mean of ten steps": smooth, "each step": losses}, "step", "loss (nats per token)",
            f"The loss falls from {losses[0]:.1f} to {reached:.2f}: fast at first (which words are frequent), then "
            "slowly (which word fits here).", range=[0, 7.5])
for seed in range(3):
    print("it writes:", write(small, seed))

# %% [markdown] key="training-note" lang="en"
# From noise to sentences in seconds. First it learns which tokens are frequent, then which follow each other, then
# which fit the story. It does **not** fall to zero: the stories were drawn at random, and no model can know whether the
# hero will meet a fox or a teacher. That floor is the *entropy* of the text.
#
# ### The same at scale
#
# - **Pre-training**: this loop over trillions of tokens. The usual estimate is 6 operations per parameter and token.
# - **Fine-tuning**: the same loop over questions with good answers (instructions), so that the model answers instead of
#   continuing the question. Many tuned variants of one base model are a serving problem of their own (week 14).
# - **Masked** training (BERT) hides words and asks for them. It makes good readers, but no writers.
#
# <details>
# <summary>What the training leaves behind</summary>
#
# - **Data.** The text decides what the model knows and does not, and whose habits and prejudices it repeats. Variety
#   counts as much as amount.
# - **Machines.** No single GPU holds the training of a large model: data, layers and matrices are spread over thousands
#   (data, pipeline and tensor parallelism). Serving borrows the last two for models that do not fit one GPU.
# - **Forgetting.** Fine-tuning teaches a job and can overwrite general skills. The difference between a tuned model and
#   its base (the *delta*) is small or compressible, which is how a service can keep hundreds of variants.
#
# </details>

# %% key="training-scale"
operations = 6 * llama_7b.num_parameters * 1.0e12
print(f"Llama 7B, one trillion tokens: {operations:.1e} operations")
print(f"on one GPU at a steady 400 TFLOP/s: {operations / 400e12 / 86400 / 365:.1f} years; hence thousands of GPUs")

assert 1 < operations / 400e12 / 86400 / 365 < 10

# %% [markdown] key="training-service" lang="en"
# Training is paid once; serving is paid with every request, as long as the model lives. And training fixes what serving
# must live with: the size of the weights, the number of KV heads, the vocabulary, and how long the answers run.

# %% [markdown] key="autoregression" lang="en"
# ## 9 · One token at a time
#
# *Question: the model gives probabilities of single tokens. What is the probability of a whole answer?*
#
# The chain rule of probability:
#
# $$P(t_1, …, t_m \mid \text{prompt}) = \prod_{i=1}^{m} P(t_i \mid \text{prompt}, t_1, …, t_{i-1})$$
#
# First check: if that is right, the probabilities of *all* texts of some length must sum to 1. With 8 tokens and texts
# of 3 we can try them all.

# %% key="autoregression-sum"
tiny = Transformer(ModelConfig(8, 16, 2, 2, 1, 8, 32, 16), seed=4).eval().requires_grad_(False)
for parameter in tiny.parameters():
    parameter.mul_(16 if parameter.dim() == 2 else 1)       # far from uniform
texts = torch.cartesian_prod(*[torch.arange(8)] * 3)       # all 512 texts of three tokens
lines = torch.cat((torch.zeros(len(texts), 1, dtype=torch.int64), texts), dim=1)        # behind the prompt [0]
each = tiny(lines[:, :-1]).log_softmax(-1).gather(2, texts[..., None])[..., 0]          # log P of every token
chances = each.sum(1).exp()
print(f"{len(texts)} texts, probabilities from {chances.min():.1e} to {chances.max():.2f}, sum {chances.sum():.6f}")

assert abs(chances.sum().item() - 1) < 1e-4

# %% [markdown] key="autoregression-two" lang="en"
# Second check, on the real model: score an answer in **one** pass (all tokens known, as in training), and again **token
# by token** (as in writing). Same number, very different work.

# %% key="autoregression-passes"
prompt_ids = tokenizer.encode_prompt("Count from 3 to 9.")
ids = generate(model, prompt_ids, 60, eos_ids=tokenizer.eos_ids)
with torch.inference_mode():
    whole = model(torch.tensor([prompt_ids + ids]))[0, len(prompt_ids) - 1:-1].log_softmax(-1)
    at_once = sum(whole[i, token].item() for i, token in enumerate(ids))
    stepwise, processed = 0.0, 0
    for i, token in enumerate(ids):
        known = [*prompt_ids, *ids[:i]]
        stepwise += model(torch.tensor([known]))[0, -1].log_softmax(-1)[token].item()
        processed += len(known)

print(tokenizer.decode(ids))
print(f"log P = {at_once:.5f} in 1 pass over {len(prompt_ids) + len(ids)} tokens")
print(f"log P = {stepwise:.5f} in {len(ids)} passes over {processed} tokens")

assert abs(at_once - stepwise) < 1e-2
assert processed == sum(len(prompt_ids) + i for i in range(len(ids)))

# %% [markdown] key="autoregression-why" lang="en"
# To *write*, there is no choice: token 7 cannot be asked for before token 6 is chosen. So a request is
#
# - **prefill**: one pass over the whole prompt, all tokens in parallel; then
# - **decode**: one pass per new token, each waiting for the last.
#
# But look at the second line: nearly all of that work repeats what was done before. Is it needed? Remember the sentence
# of part 7, and test it: do the numbers of the prompt change when the answer grows?

# %% key="autoregression-append"
with torch.inference_mode():
    short = model.hidden(torch.tensor([prompt_ids]))
    longer = model.hidden(torch.tensor([prompt_ids + ids]))[:, :len(prompt_ids)]
print("largest change at the prompt's tokens:", (short - longer).abs().max().item())

assert torch.allclose(short, longer, atol=1e-3)

# %% [markdown] key="autoregression-cache" lang="en"
# They do not. A new token needs from the old ones only their **keys and values**: keep them, and each pass handles one
# token. That is the **KV cache**. It makes serving affordable, and it is the hero and the trouble of this course:
#
# - it is large: often larger than the weights, once many requests run together;
# - it grows with every token, and nobody knows how far;
# - requests in one batch have caches of different sizes that grow at their own pace;
# - a request is now **stateful**: moving it to another machine means moving its cache.
#
# Prefill and decode are also two different jobs for the machine: prefill does much arithmetic with each weight it
# reads, decode does little and mostly waits for memory. Week 2 measures both.
#
# <details>
# <summary>Misconception: "the model plans the sentence and then prints it token by token"</summary>
#
# Each pass ends in one distribution, and only the *drawn token* is handed on. Whatever else the pass computed reaches
# the next one only through the keys and values of tokens that are already fixed. That is why an answer can be streamed,
# stopped, paused, or moved to another machine between any two tokens. Schedulers live in that gap.
#
# </details>

# %% [markdown] key="decoding" lang="en"
# ## 10 · Choosing the token
#
# *Question: the model offers 1,000 probabilities. Is the likeliest token always the best choice?*
#
# Compare a question with one answer and one with many:

# %% key="decoding-entropy"
def next_logits(prompt, written=""):
    """Scores of the next token behind a prompt and the part of an answer."""
    ids = tokenizer.encode_prompt(prompt) + tokenizer.encode(written)
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0, -1]


def uncertainty(shares):
    """Entropy in bits: how many yes-no questions the choice is worth."""
    return -(shares * shares.clamp_min(1e-12).log2()).sum().item()


for prompt in ("What is 7 + 5?", "Tell me a story."):
    shares = next_token_distribution(next_logits(prompt))
    best = ", ".join(f"{tokenizer.token(int(i))!r} {shares[i]:.0%}" for i in shares.topk(4).indices)
    nucleus = int((next_token_distribution(next_logits(prompt), top_p=0.9) > 0).sum())
    print(f"{prompt:18} {uncertainty(shares):4.1f} bits, {nucleus:2} tokens hold 90 %: {best}")

sure, open_ended = (uncertainty(next_token_distribution(next_logits(prompt)))
                    for prompt in ("What is 7 + 5?", "Tell me a story."))
assert open_ended > sure

# %% [markdown] key="decoding-knobs" lang="en"
# | rule | what it does | one word |
# |:--|:--|:--|
# | **greedy** | take the likeliest token | short-sighted |
# | **temperature** τ | divide the scores by τ before the softmax: below 1 sharper, above 1 flatter | taste |
# | **top-k** | draw among the k likeliest | fixed |
# | **top-p**, nucleus (Holtzman et al., 2020) | draw among the fewest tokens that hold at least p together, the crossing one included | adapts |
#
# Move the sliders. *Predict first: does a higher temperature ever change which token is the likeliest? What does top-p do
# to the sure question, and what to the open one?*

# %% key="decoding-widget"
names = [tokenizer.token(index) for index in range(tokenizer.vocab_size)]
sampling = viz.distribution_explorer(names, lambda prompt: next_logits(prompt).tolist(), "Tell me a story.")
sampling

# %% key="decoding-widget-check"
for settings in ({"temperature": 0.0}, {"temperature": 1.0, "top_k": 3}, {"top_k": 0, "top_p": 0.9}):
    print(sampling.set(**settings).summary)
sampling.set(temperature=1.0, top_k=0, top_p=1.0)

# %% key="decoding-figure"
figure = viz.next_token_distribution(names, next_logits("Tell me a story.").tolist(), temperature=0.7, top_p=0.9,
                                     show=10, title="“Tell me a story.”: temperature 0.7, top-p 0.9")
viz.show(figure, alt=viz.summary(figure))

# %% [markdown] key="decoding-samples" lang="en"
# The same prompt, five times at three temperatures. *Where is the line between lively and broken?*

# %% key="decoding-samples-run"
story = tokenizer.encode_prompt("Tell me a story about a fox.")
for temperature in (0.0, 0.7, 1.8):
    drawn = [generate(model, story, 22, temperature=temperature, seed=seed, eos_ids=tokenizer.eos_ids) for seed in range(3)]
    texts = [tokenizer.decode(ids) for ids in drawn]
    print(f"temperature {temperature}: {len(set(texts))} different texts of {len(texts)}")
    for text in dict.fromkeys(texts):
        print("   ", text.replace("\n", " ⏎ "))

assert generate(model, story, 22, seed=1) == generate(model, story, 22, seed=2)        # greedy has no dice

# %% [markdown] key="decoding-beam" lang="en"
# ### Beam search: do not decide yet
#
# Greedy cannot take back a token that leads nowhere good. A **beam** keeps the best *w* texts alive, extends all of them,
# and keeps the best *w* again. Below, the tree of one search: dropped branches are dotted, the winner is thick. *Find the
# place where greedy would have gone another way.*

# %% key="decoding-beam-run"
def log_probability(prompt, ids):
    """Natural log of the probability of an answer."""
    with torch.inference_mode():
        logs = model(torch.tensor([prompt + ids]))[0, len(prompt) - 1:-1].log_softmax(-1)
    return sum(logs[i, token].item() for i, token in enumerate(ids))


WIDTH, LENGTH = 3, 5
duels = []
for hero in ("fox", "dog", "girl", "pilot", "dragon", "teacher"):
    text = f"Once upon a time there was a {hero} named"         # the story has begun; five more tokens
    asked = tokenizer.encode_prompt(f"Tell me a story about a {hero}.") + tokenizer.encode(text)
    greedy = generate(model, asked, LENGTH, eos_ids=tokenizer.eos_ids)
    tree = []
    beam = beam_search(model, asked, WIDTH, LENGTH, tokenizer.eos_ids, length_penalty=0.0, tree=tree)[0]
    duels.append((beam.log_probability - log_probability(asked, greedy), text, greedy, beam, tree))
    print(f"{hero:8} greedy {log_probability(asked, greedy):6.3f}   beam {beam.log_probability:6.3f}")

gain, text, greedy, beam, tree = max(duels, key=lambda duel: duel[0])
print(f"\nlargest gain: {text} …\n  greedy {tokenizer.decode(greedy)!r}\n  beam   {tokenizer.decode(beam.tokens)!r}")

assert gain > 0.001                                        # greedy missed the likelier text

# %% key="decoding-beam-figure"
nodes = [Node("…", None, 0.0)]
for node in tree:
    nodes.append(Node(tokenizer.token(node.token), 0 if node.parent is None else node.parent + 1, node.log_probability,
                      node.fate != "dropped"))
last, place = None, None
for token in beam.tokens:                                  # walk the winner's way through the tree
    place = next(i for i, node in enumerate(tree) if node.token == token and node.parent == place)
    last = place + 1
figure = viz.beam_tree(nodes, best=last, title=f"Beam of {WIDTH}: {text} …")
viz.show(figure, alt=f"{viz.summary(figure)} Greedy decoding reaches {beam.log_probability - gain:.2f}.")

# %% [markdown] key="decoding-beam-note" lang="en"
# Two warnings. A longer text is a product of more probabilities, so the bare product prefers **short** answers: beams are
# compared per token, or nearly so. And *likeliest* is not *best*: in open-ended text the likeliest continuation is often
# dull and repeats itself (Holtzman et al., 2020). Beams shine where one answer is right, as in translation.
#
# For a service, a beam of w is **w requests that share a prompt**: about w times the work of each step, and w caches that
# fork and die at every step. Greedy and sampling cost the same; only beams, and drawing many answers, change the load.
# So a service may well limit them when it is busy: the way of decoding is a knob of the scheduler, too.
#
# <details>
# <summary>Misconception: "temperature 0 gives the true answer"</summary>
#
# It gives the *likeliest next token*, each time. The likeliest text may be another one (see the tree), and a wrong model
# is wrong at every temperature. It is not even always repeatable in a real service: other requests in the batch change
# the order of floating-point sums, and two tokens that are nearly equal may swap.
#
# </details>

# %% [markdown] key="end" lang="en"
# ## 11 · What this cannot do
#
# We have a model, and a loop that calls it. As a *service* it fails:
#
# - It **repeats** its work: every new token runs the whole text again (part 9).
# - It serves **one** request; the next one waits until the first has written its last token.
# - It has no idea **how long** that will take, and neither have we.
# - It keeps no promise about the time to the first token, and cannot say no when memory is full.
#
# Next week: the KV cache, what it costs in memory, why prefill and decode are two different jobs for the machine, and
# what a service is made of.
#
# ### Discuss
#
# 1. In training, T tokens are one pass; in serving, T passes. What would have to change in the model to write two tokens
#    at once? What would be lost?
# 2. The end token is drawn like any other. Which settings of part 10 change how *long* answers are? What follows for a
#    scheduler that wants to know?
# 3. A company serves chat by day and summaries by night with the same GPUs. What should it measure in each?
# 4. GQA saves memory while serving. Who pays, and when is it decided?
# 5. A web server can send the second request of a user to any machine. Why is that harder here?
#
# **Lab 1** lets you write attention, RoPE, a block, sampling and beam search, and puts each into this model.
