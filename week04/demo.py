# %% [markdown] key="title" lang="en"
# # Week 4 · Requests nobody knows the length of
#
# Four pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
import json
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import torch

from llmcourse import viz
from llmcourse.engine import Engine, Event, EventKind, Request, SamplingParams, VirtualClock
from llmcourse.engine.replay import replay
from llmcourse.errors import UserError
from llmcourse.executors import MockExecutor, TorchExecutor
from llmcourse.kv import BlockPool
from llmcourse.metrics.ledger import Ledger
from llmcourse.model import load_model
from llmcourse.paths import week
from llmcourse.workload import Poisson, profile

torch.set_num_threads(1)
NAMES = ("azure-conversation", "azure-code", "mooncake-conversation", "arena")
# %% [markdown] key="traces" lang="en"
# ## 1 · What arrives
# %% key="traces-widget"


def arrivals(name: str, poisson: bool) -> dict:
    """Requests like a trace's, and beside them the same requests at the times of a Poisson process."""
    workload = profile(name).generate(1500, seed=1)
    if not poisson:
        return {name: workload}
    times = Poisson(len(workload) / workload[-1].time).times(np.random.default_rng(2), len(workload)).tolist()
    return {name: workload, "Poisson": [replace(a, time=t) for a, t in zip(workload, times, strict=True)]}


traces = viz.Explorer(
    "Four real traces", lambda trace, poisson: viz.trace_explorer(arrivals(trace, poisson)),
    {"trace": viz.Choice("trace", NAMES, "azure-code"), "poisson": viz.Switch("beside a Poisson process", True)},
    presets={"bursts": {"trace": "azure-code"}, "nearly random": {"trace": "azure-conversation"},
             "very long prompts": {"trace": "mooncake-conversation"}},
    question="which trace is fairly described as random arrivals?",
    answer="Conversations nearly are, though their rate drifts. Code completion comes in bursts with silence between.")
traces
# %% [markdown] key="batching" lang="en"
# ## 2 · Static and continuous batching
# %% key="batching-widget"


def uneven(spread: float, count: int = 14, mean: int = 16) -> list[int]:
    """`count` lengths of one mean, the more uneven the larger the spread."""
    z = np.array([NormalDist().inv_cdf((k + 0.5) / count) for k in range(count)])[np.random.default_rng(3).permutation(count)]
    return np.maximum(1, np.round(np.exp(spread * z) / np.exp(spread * z).mean() * mean)).astype(int).tolist()


def in_seats(batching: str, seats: int, spread: float) -> list[Event]:
    """Fourteen requests, all here at once, through so many seats."""
    engine = Engine(MockExecutor(16), BlockPool(512, 16), batching=batching, max_running=seats, clock=VirtualClock())
    for length in uneven(spread):
        engine.add(Request([1] * 9, SamplingParams(max_tokens=length, ignore_eos=True)))
    return list(engine.stream()) and engine.events


def beside_static(way: str, seats: int, spread: float):
    """Static batching and another way, slot by slot."""
    return viz.batching_gantt({name: in_seats(name, seats, spread) for name in ("static", way)})


batching = viz.Explorer(
    "Static and continuous batching", beside_static,
    {"way": viz.Choice("beside static", ["continuous", "mixed"], "mixed"), "seats": viz.Slider("seats", list(range(1, 9)), 4),
     "spread": viz.Slider("spread of lengths", [0.0, 0.3, 0.6, 0.9, 1.2], 0.9)},
    presets={"break it": {"spread": 1.2}, "all alike": {"spread": 0.0}, "one seat": {"seats": 1}},
    question="when is a static batch just as good?",
    answer="When all answers are equally long, or with a single seat. The gain comes from uneven lengths alone.")
batching
# %% [markdown] key="capacity" lang="en"
# ## 3 · What it does to capacity
# %% key="capacity-widget"


def capacity(trace: str, seats: int):
    """Time to first token against load, static and mixed, Llama 2 7B on a simulated A100."""
    points = {}
    for way in ("static", "mixed"):
        points[way] = []
        for rate in (0.5, 1.0, 2.0, 3.0, 4.0):
            engine = Engine.simulated("Llama 2 7B", "A100 80 GB", batching=way, max_running=seats, token_budget=2048, ledger=Ledger())
            points[way].append((rate, replay(engine, profile(trace).generate(200, seed=5, process=Poisson(rate)))))
    return viz.latency_throughput(points, metric="ttft", quantiles=(50, 99), title=f"{trace}, {seats} seats, A100, Llama 2 7B")


load = viz.Explorer(
    "Capacity", capacity,
    {"trace": viz.Choice("lengths of", ["arena", "azure-conversation"], "arena"),
     "seats": viz.Slider("seats", [4, 8, 16, 32, 64], 16)},
    presets={"few seats": {"seats": 4}, "many seats": {"seats": 64}},
    question="do more seats save the static batch?",
    answer="They let more in at once, and each batch lasts as long as its longest answer: the wait at the door stays.")
load
# %% [markdown] key="blocking" lang="en"
# ## 4 · A long prompt is dropped into a running batch
# %% key="blocking-widget"
RECORDED = week(4) / "blocking_run.json"
WAYS = {"whole": ("continuous", 1024), "in steps of 256": ("mixed", 256), "in steps of 64": ("mixed", 64), "in steps of 16": ("mixed", 16)}


def live(prompt: int, way: str) -> list[Event]:
    """Six running answers of course-tiny, and after 15 steps a long prompt: the real engine, now."""
    model, tokenizer = load_model("course-tiny", device="cpu")
    kind, budget = WAYS[way]
    engine = Engine(TorchExecutor(model, 256, 16), BlockPool(256, 16), tokenizer=tokenizer, batching=kind, token_budget=budget)
    text = tokenizer.encode_prompt("Count from 1 to 60.")
    for user in range(6):
        engine.add(Request(text, SamplingParams(max_tokens=45, ignore_eos=True), id=f"user {user + 1}"))
    for _ in range(15):
        engine.step()
    engine.add(Request([5 + k % 200 for k in range(prompt)], SamplingParams(max_tokens=12, ignore_eos=True), id="long prompt"))
    return list(engine.stream()) and engine.events


def recorded(way: str) -> list[Event]:
    """The same with a prompt of 800 tokens, as it went on an earlier day."""
    rows = json.loads(RECORDED.read_text(encoding="utf-8"))["runs"][way]
    return [Event(time, EventKind(kind), request, data) for time, kind, request, data in rows]


def dropped(prompt: int, way: str, source: str):
    """The gaps between the six users' tokens, with the prompt computed whole and in chunks."""
    try:
        runs = {each: live(prompt, each) for each in ("whole", way)} if source == "live" else {}
    except (UserError, RuntimeError, OSError):  # no model, no memory: the lecture goes on with the recorded run
        runs = {}
    told = "" if runs else " (recorded, 800 tokens)"
    runs = runs or {each: recorded(each) for each in ("whole", way)}
    return viz.blocking_view({f"computed {each}": events for each, events in runs.items()}, watch="long prompt",
                             title=f"A long prompt, and the time between six users' tokens{told}")


blocking = viz.Explorer(
    "A long prompt is dropped into a running batch", dropped,
    {"prompt": viz.Slider("prompt", [50, 100, 200, 400, 800], 800, "tokens"),
     "way": viz.Choice("beside whole", list(WAYS)[1:], "in steps of 64"),
     "source": viz.Choice("run", ["live", "recorded"], "live")},
    presets={"drop it": {"prompt": 800, "way": "in steps of 64", "source": "live"},
             "a short one": {"prompt": 50, "way": "in steps of 64", "source": "live"},
             "too careful": {"prompt": 800, "way": "in steps of 16", "source": "live"},
             "Replay": {"prompt": 800, "way": "in steps of 64", "source": "recorded"}},
    question="what do the six see, and what does the cure cost whom?",
    answer="Computed whole, one step holds them all up. In chunks nobody waits long, and the long prompt gets its first token later.")
blocking
