"""The pictures of week 7 for the projector. `recorded.json` is what the first panel's live run answers; `record()` writes it."""

# %% [markdown] key="title" lang="en"
# # Week 7 · Moving a request while it runs
#
# Three pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from statistics import median

from llmcourse import viz
from llmcourse.cluster import METHODS, Dispatcher, Link, LocalDriver, Terms, VirtualDriver
from llmcourse.engine import Engine, Request, SamplingParams
from llmcourse.executors import TorchExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.model import load_model
from llmcourse.model.shapes import shape
from llmcourse.viz.moving import Copy, Move, Work, read_moves
from llmcourse.viz.theme import canvas, finish, marker

# %% [markdown] key="timeline" lang="en"
# ## 1 · A migration between two real engines, and the kill switch
# %% key="timeline-widget"
model, tokenizer = load_model("course-tiny", device="cpu")
COUNT = tokenizer.encode_prompt("Count from 10 to 95.")
FILL = tokenizer.encode_prompt("Once upon a time there was a little dog. ") * 5
SAID = SamplingParams(max_tokens=300)
DEATHS = ("nobody dies", "the destination, early", "the destination, late", "the source, early", "the source, late", "the source, after the commit")


def engine():
    """The real model behind 96 blocks."""
    return Engine(TorchExecutor(model, 96, 16, threads=1), BlockPool(96, 16), tokenizer=tokenizer, token_budget=256)


@lru_cache
def alone():
    """What an undisturbed engine says."""
    [answer] = engine().generate([COUNT], SAID)
    return list(answer.tokens)


def reached(migration, death):
    """Whether it is time for somebody to die: early, when the commit is due, or after it."""
    if death == "nobody dies" or migration.order is None:
        return False
    late = migration.committed or migration.order.name == "adopt"
    return {"early": migration.turn >= 2 or late, "late": late}.get(death.split()[-1], migration.committed)


@lru_cache
def live(method, death):
    """The migration as it was read from the log, and whether the client got the right tokens."""
    driver = LocalDriver([engine(), engine()], method=method, link=Link(20e6, 0.01), terms=Terms(16, gap=12, poll=0.02))
    driver.add(Request(COUNT, SAID, id="traveller"))
    driver.add(Request(FILL[:40], SamplingParams(max_tokens=160, ignore_eos=True), id="other"))
    while len(driver.tokens("traveller")) < 120:
        driver.advance()
    migration = driver.migrate("traveller", 1)
    while migration.order is not None and not reached(migration, death):
        driver.advance()
    if reached(migration, death):
        driver.kill(int("destination" in death))
    driver.finish()
    driver.check_invariants()
    return cut(read_moves(driver.events)[0]), driver.tokens("traveller") == alone()


def cut(move):
    """What lies near the migration; the rest of the run is not drawn."""
    first, last = move.begun - 0.05, max(move.ended, move.pause[1]) + 0.1
    return replace(move, work=tuple(w for w in move.work if w.end > first and w.start < last), tokens=tuple(t for t in move.tokens if first < t < last))


def written(move):
    """A migration as JSON, times in 10 µs."""
    def plain(value):
        if isinstance(value, float):
            return round(value, 5)
        return [plain(v) for v in (vars(value).values() if hasattr(value, "__dataclass_fields__") else value)] if not isinstance(value, (int, str)) else value
    return plain(move)


def read(row):
    """The migration that was written."""
    *head, copies, stopped, reserved, work, tokens, faults = row
    return Move(*head, tuple(Copy(*c) for c in copies), tuple(map(tuple, stopped)), tuple(map(tuple, reserved)), tuple(Work(*w) for w in work), tuple(tokens), tuple((t, i) for t, i in faults))


RECORD = Path("recorded.json")


@lru_cache
def recorded(method, death):
    """The same from the recorded run."""
    row, correct = json.loads(RECORD.read_text(encoding="utf-8"))[f"{method} | {death}"]
    return read(row), correct


def record():
    """Write the recorded run anew: every setting of the panel, live."""
    lines = []
    for method in METHODS:
        for death in DEATHS:
            move, correct = live(method, death)
            lines.append(f' "{method} | {death}": {json.dumps([written(move), correct], separators=(",", ":"))}')
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


SOURCES = {"live": live, "recorded": recorded}


def panel(method, death, source):
    """The migration's timeline; its title says whether the client got the right tokens."""
    move, correct = SOURCES[source](method, death)
    tokens = "every token right" if correct else "WRONG TOKENS"
    return viz.migration_timeline(move, title=f"{method}, {death.replace(',', ' dies,')}: {tokens}")


start = {"method": "live", "death": "nobody dies", "source": "live"}
timeline = viz.Explorer(
    "A migration, seen from four sides", panel,
    {"method": viz.Choice("method", list(METHODS), "live"), "death": viz.Choice("who dies", DEATHS, "nobody dies"), "source": viz.Choice("run", list(SOURCES), "live")},
    presets={"live": start, "stop and copy": start | {"method": "stop-and-copy"}, "kill the destination": start | {"death": "the destination, late"},
             "kill the source": start | {"death": "the source, late"}, "too late to harm": start | {"death": "the source, after the commit"}, "Replay": start | {"source": "recorded"}},
    question="While what goes on does the client wait? Kill either side: what does the client lose?",
    answer="Under live only the last copy stands in the gap. Nothing is lost but time: before the commit the source owns the request, after it the destination does, and whoever is left goes on from the tokens delivered.",
    lecture=True)
timeline
# %% [markdown] key="rounds" lang="en"
# ## 2 · Rounds of a live copy: when does it converge?
# %% key="rounds-widget"
llama = shape("Llama 2 7B")
TOKEN = llama.kv_bytes_per_token(2)


def rounds(tokens, link, step, stop_at):
    """The stages of a live copy: (blocks, seconds, stopped) each; as many as our live tries."""
    sent, found = 0, []
    while len(found) < Terms(16).stages:
        left = -(-tokens // 16) - sent
        if left <= stop_at:
            return [*found, (left, left * 16 * TOKEN / link, True)]
        blocks = tokens // 16 - sent
        found.append((blocks, blocks * 16 * TOKEN / link, False))
        sent, tokens = sent + blocks, tokens + int(found[-1][1] / step)
    return found


def rounds_view(tokens, link, step, stop_at):
    """The rounds as bars, beside stop-and-copy."""
    found, at = rounds(tokens, link * 1e6, step / 1000, stop_at), 0.0
    rho = TOKEN / (step / 1000) / (link * 1e6)
    figure = canvas(f"{tokens:,} tokens of a 7B over {link:,} MB/s, a token every {step} ms: ρ = {rho:.2g}", 360, barmode="overlay")
    parts = {"blocks copied while it decodes": [], "blocks copied while it stands": []}
    for blocks, seconds, stopped in found:
        parts["blocks copied while it stands" if stopped else "blocks copied while it decodes"].append((at, seconds, blocks))
        at += seconds
    for name, bars in parts.items():
        look = marker("#F0E442", "x") if name.endswith("stands") else marker("#E69F00", "/")
        if bars:
            figure.add_bar(orientation="h", y=[0] * len(bars), base=[bar[0] for bar in bars], x=[bar[1] for bar in bars], width=0.5, name=name, showlegend=True, marker=look,
                           text=[str(bar[2]) for bar in bars], textposition="inside", insidetextanchor="middle", constraintext="none")
    whole = tokens * TOKEN / (link * 1e6)
    figure.add_bar(orientation="h", y=[1], base=[0], x=[whole], width=0.5, name="stop-and-copy stands all the time", marker=marker("#D55E00", "x"), showlegend=True)
    figure.update_yaxes(tickvals=[0, 1], ticktext=["live", "stop-and-copy"], range=[1.6, -0.6], showgrid=False)
    figure.update_xaxes(title_text="s", rangemode="tozero")
    stood = f"the request stands for {1000 * found[-1][1]:,.0f} ms" if found[-1][2] else "no end in sight: decoding writes faster than the link reads" if rho >= 1 else "and still too much is left: ours gives up here"
    return finish(figure, f"{len(found)} round{'s' * (len(found) > 1)} in {at:,.2f} s, {stood}; stop-and-copy: {1000 * whole:,.0f} ms.", ("round", "blocks", "ms", "stopped"),
                  [(k, b, round(1000 * s, 1), str(st)) for k, (b, s, st) in enumerate(found, 1)])


converge = viz.Explorer(
    "Rounds of a live copy", rounds_view,
    {"tokens": viz.Slider("tokens", [256, 512, 1024, 2048, 4096, 8192], 4096), "link": viz.Slider("link", [20, 30, 40, 60, 100, 200, 1000, 8000], 100, "MB/s"), "step": viz.Slider("a token every", [5, 10, 15, 30, 60], 15, "ms"),
     "stop_at": viz.Slider("stop when left", [1, 2, 4, 8, 16, 32], Terms(16).last_blocks, "blocks")},
    presets={"a data centre": {"link": 8000}, "break it": {"link": 30, "step": 15}, "mend it": {"link": 30, "step": 60}, "stop early, as Llumnix": {"stop_at": 16}, "stop late, as ours": {"stop_at": Terms(16).last_blocks}},
    question="Break it: what must be true of link and model? Mend it without touching the link.",
    answer="With ρ ≥ 1 decoding writes faster than the link reads. A slower decode, fewer KV heads, or tokens instead of KV mend it. Stopping late pays while ρ is small.", lecture=True)
converge
# %% [markdown] key="downtime" lang="en"
# ## 3 · Downtime against length
# %% key="downtime-widget"
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


class Halves(Dispatcher):
    """The first eight requests go to instance 0, all others to instance 1."""

    reads_load = False

    def choose(self, request, number, reports):
        """By the number of the request."""
        return int(number >= 8)


def go_on(driver):
    """Let 10 ms pass."""
    driver.go_to(driver.now + 0.01)
    for instance in driver.alive:
        driver.reach(instance, driver.now)


@lru_cache
def downtime(method, tokens, gpu, link):
    """Seconds from stop to next token of a request of so many tokens, between two simulated GPUs: the median of three moves.

    The destination's steps lie behind the source's by none, a third and two thirds of a step.
    """
    found = []
    for phase in (0, 1 / 3, 2 / 3):
        driver = VirtualDriver([Engine.simulated("Llama 2 7B", gpu) for _ in range(2)], Halves(), method=method, link=link)
        driver.add(Request([-1] * (tokens - 20), SamplingParams(max_tokens=400), id="traveller"))
        for k in range(15):
            if k == 7:
                driver.go_to(phase * step_of(gpu))
            driver.add(Request([-1] * 250, SamplingParams(max_tokens=400), id=f"other {k}"))
        while len(driver.tokens("traveller")) < 20:
            go_on(driver)
        migration = driver.migrate("traveller", 1)
        while migration.order is not None:
            go_on(driver)
        enough = len(driver.tokens("traveller")) + 3
        while len(driver.tokens("traveller")) < enough:
            go_on(driver)
        found.append(read_moves(driver.events)[0].downtime)
    return median(found)


def step_of(gpu):
    """Seconds of a decode step of eight requests."""
    return RooflineCost(hardware(gpu), llama).seconds(8, 8, 8 * 400.0, 0.0)


def downtime_view(gpu, gigabits):
    """All four methods; two of them send no KV, so that the link does not matter to them."""
    links = {method: Link(gigabits / 8 * 1e9) if method in ("live", "stop-and-copy") else Link() for method in METHODS}
    found = {method: [downtime(method, n, gpu, links[method]) for n in LENGTHS] for method in METHODS}
    return viz.downtime_curves(LENGTHS, found, step_of(gpu), f"From stop to next token: 7B on two {gpu}, {gigabits} Gb/s", 520)


curves = viz.Explorer("Downtime against length", downtime_view, {"gpu": viz.Choice("GPU", ["A10", "A100 80 GB", "H100 SXM"], "A10"), "gigabits": viz.Slider("link", [10, 64, 200], 64, "Gb/s")},
                      presets={"Llumnix's machines": {"gpu": "A10", "gigabits": 64}, "a slow network": {"gigabits": 10}, "a fast GPU": {"gpu": "H100 SXM"}},
                      question="Which curves are flat, and why? Which one moves when the link gets slower? Which when the GPU gets faster?",
                      answer="Live and tokens are flat: both do nearly everything before they stop. Stop-and-copy follows the link, recompute the GPU.", lecture=True)
curves
