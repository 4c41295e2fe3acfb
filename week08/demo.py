"""The pictures of week 8 for the projector. `recorded_films.json` is what the map's live run answers; `record()` writes it."""

# %% [markdown] key="title" lang="en"
# # Week 8 · The cluster map
#
# Three pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
import json
import random
from collections import deque
from functools import lru_cache
from pathlib import Path

import plotly.graph_objects as go

from llmcourse import viz
from llmcourse.cluster import Freeness, LeastRequests, Rebalance, RoundRobin, VirtualDriver
from llmcourse.engine import Engine
from llmcourse.viz.cluster_reader import ClusterFilm, Held, InstanceMoment, Move
from llmcourse.viz.series import curve, log_axis
from llmcourse.viz.theme import canvas, finish
from llmcourse.workload import Gamma, PowerLaw, open_loop

# %% [markdown] key="map" lang="en"
# ## 1 · What if? The same requests, spread and corrected in different ways
# %% key="map-widget"
FRAMES, LAST = 60, 84.0
POLICIES = {"round robin": (RoundRobin, None), "least requests": (LeastRequests, None), "freeness": (Freeness, None), "freeness + migration": (Freeness, Rebalance())}


@lru_cache
def live(policy):
    """A bursty minute on eight small simulated A10 under a policy: the film."""
    bursts = open_loop(Gamma(10, cv=2.5), PowerLaw.of_mean(220, 2000), PowerLaw.of_mean(220, 1700), 300, 11)
    dispatch, rebalance = POLICIES[policy]
    driver = VirtualDriver([Engine.simulated("Llama 2 7B", "A10", num_blocks=240) for _ in range(8)], dispatch(), rebalance)
    driver.run(bursts)
    return viz.cluster_film(driver.events, FRAMES, until=LAST)


KINDS = ("runs", "coming", "waits")


def written(film):
    """A film as JSON."""
    moments = [[[[held.request, held.blocks, KINDS.index(held.kind), held.home] for held in one.held] for one in moment] for moment in film.moments]
    return {"sizes": [one.num_blocks for one in film.moments[0]], "moments": moments, "moves": [list(vars(move).values()) for move in film.moves],
            "preemptions": [list(place) for place in film.preemptions]}


def read(found):
    """The film that was written."""
    moments = tuple(tuple(InstanceMoment(number, found["sizes"][number], tuple(Held(name, blocks, KINDS[kind], home) for name, blocks, kind, home in held))
                          for number, held in enumerate(moment)) for moment in found["moments"])
    times = tuple(LAST * frame / FRAMES for frame in range(FRAMES + 1))
    return ClusterFilm(times, moments, tuple(Move(*move) for move in found["moves"]), tuple((time, number) for time, number in found["preemptions"]))


RECORD = Path("recorded_films.json")


@lru_cache
def recorded(policy):
    """The same from the recorded run."""
    return read(json.loads(RECORD.read_text(encoding="utf-8"))[policy])


def record():
    """Write the recorded run anew: every policy, live."""
    lines = [f' "{policy}": {json.dumps(written(live(policy)), separators=(",", ":"))}' for policy in POLICIES]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


SOURCES = {"live": live, "recorded": recorded}


def panel(left, right, step, source):
    """Two policies side by side at one moment."""
    return viz.cluster_map({policy: SOURCES[source](policy) for policy in dict.fromkeys((left, right))}, step)


start = {"left": "freeness", "right": "freeness + migration", "step": 20, "source": "live"}
cluster = viz.Explorer(
    "The cluster map", panel,
    {"left": viz.Choice("left", list(POLICIES), start["left"]), "right": viz.Choice("right", list(POLICIES), start["right"]),
     "step": viz.Slider("moment", range(FRAMES + 1), 20, labels=[f"{LAST * k / FRAMES:.0f} s" for k in range(FRAMES + 1)]), "source": viz.Choice("numbers", list(SOURCES), "live")},
    presets={"nobody looks": start | {"left": "round robin", "right": "freeness"}, "and then time passes": start | {"step": 30}, "moving": start | {"step": 14},
             "Replay": start | {"source": "recorded"}},
    question="Where does somebody wait while memory is free elsewhere? And what has become of it on the other side?",
    answer="Without migration whoever was sent to an instance stays there, whatever happens. With it the first of the waiting makes its instance look overloaded, and it, or a short request, goes where there is room.",
    lecture=True)
cluster
# %% [markdown] key="curve" lang="en"
# ## 2 · Where does moving pay?
# %% key="curve-widget"
ROWS = json.loads(Path("recorded_curve.json").read_text(encoding="utf-8"))["rows"]
RATES, SYSTEMS = sorted({row["rate"] for row in ROWS}), list(dict.fromkeys(row["system"] for row in ROWS))
MEASURES = {"P99 TTFT": lambda row: row["ttft"]["p99"], "mean TTFT": lambda row: row["ttft"]["mean"], "P99 time per token": lambda row: row["tpot"]["p99"],
            "mean time preempted": lambda row: max(row["preempted_time"], 1e-4)}


def load(measure):
    """The recorded sweep over load, by one measure."""
    value = {(row["system"], row["rate"]): MEASURES[measure](row) for row in ROWS}
    figure = canvas(f"Eight A10: {measure} against load", 520)
    for index, system in enumerate(SYSTEMS):
        figure.add_trace(curve(system, RATES, [value[system, rate] for rate in RATES], index))
    log_axis(figure, "y", value.values(), f"{measure}, s")
    figure.update_xaxes(title_text="requests a second")
    alone = {rate: min(value["fewest tokens", rate], value["freeness", rate]) for rate in RATES}
    best = max(RATES, key=lambda rate: alone[rate] / value["freeness + migration", rate])
    return finish(figure, f"{measure}: migration helps most at {best:g} requests a second, {alone[best]:.3g} s by the better dispatcher alone and {value['freeness + migration', best]:.3g} s with it.",
                  ("requests/s", *SYSTEMS), [(rate, *(value[system, rate] for system in SYSTEMS)) for rate in RATES])


over_load = viz.Explorer("The curve over load", load, {"measure": viz.Choice("measure", list(MEASURES), "P99 TTFT")},
                         question="Where does moving requests do nothing, where does it help, and what becomes of the gain beyond?",
                         answer="Below the knee nobody is full. Near it one instance is full while another has room. Beyond, all are full: there is nowhere to go.")
over_load
# %% [markdown] key="herd" lang="en"
# ## 3 · The herd
# %% key="herd-widget"
CHOICES = {"random": lambda seen, draw: draw.randrange(8), "shortest": lambda seen, draw: min(range(8), key=lambda k: (seen[k], draw.random())),
           "two choices": lambda seen, draw: min(draw.sample(range(8), 2), key=seen.__getitem__)}
CHOICES["shortest, counting what I sent"] = CHOICES["shortest"]


def queues(rule, period, seconds=60.0):
    """Eight queues at 80 % load whose lengths are read every so often: their lengths each half second, and the mean time in the system."""
    draw, lines, free, seen = random.Random(5), [deque() for _ in range(8)], [0.0] * 8, [0] * 8
    now, read_at, shown, times = 0.0, 0.0, [], []
    while now < seconds:
        now += draw.expovariate(6.4)
        while len(shown) < int(min(now, seconds) / 0.5):
            at = 0.5 * (len(shown) + 1)
            shown.append([sum(end > at for end in line) for line in lines])
        if now >= read_at:
            seen, read_at = [sum(end > now for end in line) for line in lines], now + period
        chosen = CHOICES[rule](seen, draw)
        free[chosen] = max(now, free[chosen]) + draw.expovariate(1.0)
        lines[chosen].append(free[chosen])
        times.append(free[chosen] - now)
        seen[chosen] += rule.endswith("sent")
    return shown, sum(times) / len(times)


def herd(rule, period):
    """A row for each queue, a column for each half second: how many stand there."""
    shown, mean = queues(rule, period)
    longest = max(map(max, shown))
    figure = canvas(f"How many stand in each queue: {rule}, read every {period:g} s", 460)
    figure.add_trace(go.Heatmap(z=[[lengths[k] for lengths in shown] for k in range(8)], x=[0.5 * (k + 1) for k in range(len(shown))], y=list(range(8)), zmin=0, zmax=12,
                                colorscale="Cividis", showscale=True))
    figure.update_xaxes(title_text="time, s")
    figure.update_yaxes(title_text="queue", tickvals=list(range(8)))
    return finish(figure, f"{rule}, lengths read every {period:g} s: {mean:.1f} s in the system on average, at most {longest} in one queue.", ("queue", "mean length", "longest"),
                  [(k, round(sum(lengths[k] for lengths in shown) / len(shown), 1), max(lengths[k] for lengths in shown)) for k in range(8)])


herding = viz.Explorer(
    "The herd", herd, {"rule": viz.Choice("rule", list(CHOICES), "shortest"), "period": viz.Slider("read every", [0.05, 0.5, 1, 2, 4, 8], 4, "s")},
    presets={"fresh": {"rule": "shortest", "period": 0.05}, "the herd": {"rule": "shortest", "period": 4}, "two choices": {"rule": "two choices", "period": 4},
             "count what you sent": {"rule": "shortest, counting what I sent", "period": 4}},
    question="Everybody goes to the shortest queue of four seconds ago. What will the picture look like?",
    answer="Bright stripes: one queue after the other is flooded until the next reading. Two choices spread the flood; counting what one has sent oneself ends it.")
herding
