"""The pictures of week 6 for the projector. `recorded.json` is what the car park's live run answers; `record()` writes it."""

# %% [markdown] key="title" lang="en"
# # Week 6 · The car park
#
# Three pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
import json
import random
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from llmcourse import viz
from llmcourse.engine import Engine, VirtualClock
from llmcourse.engine.replay import replay
from llmcourse.executors import MockExecutor
from llmcourse.executors.roofline import link_prices
from llmcourse.kv import BlockPool, ContiguousPool
from llmcourse.kv.waste import Waste
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.model.shapes import shape
from llmcourse.policies import StaticPriority
from llmcourse.viz.filming import Moment, Place
from llmcourse.viz.series import curve, guide, log_axis
from llmcourse.viz.theme import canvas, finish
from llmcourse.workload import Arrival, merge

# %% [markdown] key="park" lang="en"
# ## 1 · The car park: contiguous memory beside blocks
# %% key="park-widget"
SLOTS, LONGEST = 256, 84
MEMORIES = {"reserve the maximum": lambda: ContiguousPool(SLOTS, reservation="max", max_length=LONGEST),
            "reserve exactly, first fit": lambda: ContiguousPool(SLOTS, reservation="exact"),
            "reserve exactly, best fit": lambda: ContiguousPool(SLOTS, reservation="exact", fit="best"),
            "grow and move": lambda: ContiguousPool(SLOTS),
            "grow, with compaction": lambda: ContiguousPool(SLOTS, compaction=True),
            "blocks of 8": lambda: BlockPool(SLOTS // 8, 8)}
MIXES = {"cars and buses": ((6, 10, 18, 40), (8, 16, 30, 44)), "all alike": ((16,), (24,))}


@lru_cache
def live(memory, mix):
    """Eighteen requests on a mock model whose steps take a second each: a moment of memory for every step."""
    draw, (prompts, outputs) = random.Random(4), MIXES[mix]
    arrivals = [Arrival(1.5 * k, draw.choice(prompts), draw.choice(outputs)) for k in range(18)]
    pool = MEMORIES[memory]()
    return viz.film(Engine(MockExecutor(pool.block_size, step_seconds=1, token_seconds=0), pool, clock=VirtualClock()), arrivals)


def runs(blocks):
    """Neighbours as [first, end): what a list of blocks is written as."""
    groups = groupby(enumerate(blocks), key=lambda item: item[1] - item[0])
    return [[group[0][1], group[-1][1] + 1] for group in (list(items) for _, items in groups)]


def written(moment):
    """A moment as JSON."""
    places = [[p.owner, runs(p.blocks), p.stored, p.final] for p in moment.places]
    return [moment.step, moment.time, places, list(moment.waiting), [[h.start, h.stop] for h in moment.useless],
            list(vars(moment.waste).values()), moment.copied, moment.preempted]


def read(memory, row):
    """The moment that was written."""
    step, time, places, waiting, useless, waste, copied, preempted = row
    size = 8 if memory.startswith("blocks") else 1
    found = tuple(Place(owner, tuple(b for start, end in blocks for b in range(start, end)), stored, final)
                  for owner, blocks, stored, final in places)
    return Moment(step, time, SLOTS // size, size, found, tuple(waiting), tuple(range(*hole) for hole in useless), Waste(*waste), copied, preempted)


RECORD = Path("recorded.json")


@lru_cache
def recorded(memory, mix):
    """The same from the recorded run."""
    return [read(memory, row) for row in json.loads(RECORD.read_text(encoding="utf-8"))[f"{memory} | {mix}"]]


def record():
    """Write the recorded run anew: every memory and mix of the panel, live."""
    lines = [f' "{memory} | {mix}": {json.dumps([written(m) for m in live(memory, mix)], separators=(",", ":"))}' for memory in MEMORIES for mix in MIXES]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


SOURCES = {"live": live, "recorded": recorded}


def panel(memory, mix, step, source):
    """One kind of memory beside blocks, after so many steps of the same arrivals."""
    shown = {name: SOURCES[source](name, mix) for name in dict.fromkeys((memory, "blocks of 8"))}
    return viz.car_park(shown, step)


start = {"memory": "reserve exactly, first fit", "mix": "cars and buses", "step": 43, "source": "live"}
park = viz.Explorer(
    "The car park", panel,
    {"memory": viz.Choice("memory", list(MEMORIES), start["memory"]), "mix": viz.Choice("requests", list(MIXES), "cars and buses"),
     "step": viz.Slider("step", range(131), 43), "source": viz.Choice("numbers", list(SOURCES), "live")},
    presets={"a place for a bus for everybody": start | {"memory": "reserve the maximum"}, "the bus cannot park": start,
             "move over": start | {"memory": "grow and move"}, "push together": start | {"memory": "grow, with compaction"},
             "all alike": start | {"mix": "all alike"}, "Replay": start | {"source": "recorded"}},
    question="Places are free, and the first in line may not park. Where are they, and which memory has none of them?",
    answer="Between the cars, in holes too short for it. Blocks have no such holes: any free block serves anybody, and only the last block of each is partly empty.",
    lecture=True)
park
# %% [markdown] key="swap" lang="en"
# ## 2 · Compute again, or swap?
# %% key="swap-widget"
GPUS = ("A100 80 GB", "H100 SXM", "L4")
MODELS = ("Llama 2 7B", "Llama 3 8B", "Llama 2 13B")
TOKENS = (100, 200, 500, 1000, 2000, 4000, 8000, 16000, 32000)


def prices(link, model, gpu):
    """Milliseconds to bring a context back, both ways, by its length."""
    config = shape(model)
    price = link_prices(RooflineCost(hardware(gpu), config), config, 16, link * 1e9)
    again, moved = [1000 * price.prompt(n) for n in TOKENS], [1000 * price.swap(n, 16) for n in TOKENS]
    figure = canvas(f"{model} on {gpu}, a link of {link:g} GB/s", 520)
    figure.add_trace(curve("compute again", TOKENS, again, 0))
    figure.add_trace(curve("swap out and in", TOKENS, moved, 1))
    log_axis(figure, "x", TOKENS, "tokens of context")
    log_axis(figure, "y", [*again, *moved], "ms")
    where = next((n for n in range(16, 32001, 16) if price.swap(n, 16) > price.prompt(n)), None)
    if where and where > 100:
        guide(figure, "x", where, f"{where:,} tokens")
    said = f"swapping is cheaper up to {where:,} tokens" if where and where > 16 else "computing again is cheaper" if where else "swapping is cheaper at every length shown"
    return finish(figure, f"{model} on {gpu} over {link:g} GB/s: {said}.", ("tokens", "compute again, ms", "swap, ms"),
                  [(n, round(a, 1), round(b, 1)) for n, a, b in zip(TOKENS, again, moved, strict=True)])


swap = viz.Explorer(
    "Compute again or swap", prices,
    {"link": viz.Slider("link", [1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 20.0, 40.0], 8.0, "GB/s"), "model": viz.Choice("model", MODELS, "Llama 2 7B"), "gpu": viz.Choice("GPU", GPUS, "A100 80 GB")},
    presets={"PCIe 4": {"link": 20.0}, "slow link": {"link": 2.0}, "grouped queries": {"link": 8.0, "model": "Llama 3 8B"}},
    question="Which way does a faster GPU push the crossing? And fewer KV heads?",
    answer="A faster GPU computes again more cheaply; the link stays. Fewer KV heads mean fewer bytes, and swapping gains.", lecture=True)
swap
# %% [markdown] key="ageing" lang="en"
# ## 3 · Ageing
# %% key="ageing-widget"
AGEING = {"none": None, "15 s": 15.0, "8 s": 8.0, "4 s": 4.0, "1 s": 1.0}


@lru_cache
def aged(ageing, levels):
    """A minute in which level 0 alone asks for all four seats; a lower level asks every four seconds."""
    important = [Arrival(0.42 * k, 60, 160, "important", 0) for k in range(150)]
    patient = [Arrival(2.0 + 4.0 * k, 60, 160, "patient", levels) for k in range(10)]
    engine = Engine.simulated("Llama 2 7B", "A100 80 GB", policy=StaticPriority(ageing=AGEING[ageing]), max_running=4)
    replay(engine, merge(important, patient), stop=lambda: engine.clock.now > 60)
    return engine.events


ageing = viz.Explorer(
    "Priorities that rise", lambda ageing, levels: viz.priority_ageing(aged(ageing, levels), AGEING[ageing], until=60.0),
    {"ageing": viz.Choice("one level every", list(AGEING), "none"), "levels": viz.Slider("levels below", [1, 2, 4], 2)},
    presets={"starve": {"ageing": "none"}, "gently": {"ageing": "8 s"}, "almost first come, first served": {"ageing": "1 s"}},
    question="How long does the lower level wait at most? Why do two lines never cross?",
    answer="Level p is passed only by those who come within p levels' worth of seconds after it: all rise at one speed.", lecture=True)
ageing
