# %% [markdown] key="title" lang="en"
# # Week 3 · How good is it, and who goes next?
#
# Four pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
import json
import time
from dataclasses import replace
from functools import cache

from llmcourse import viz
from llmcourse.engine import Engine
from llmcourse.engine.replay import replay
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.percentile import percentile
from llmcourse.metrics.summary import summary
from llmcourse.paths import week
from llmcourse.policies import FCFS, SJF, SRTF, RoundRobin
from llmcourse.viz.series import guide
from llmcourse.viz.theme import BLUE, finish, seconds
from llmcourse.workload import Lognormal, Poisson, open_loop, with_oracle

RECORDED = json.loads((week(3) / "recorded_curve.json").read_text(encoding="utf-8"))
SHARES = [row["share"] for row in RECORDED["rows"]]
# %% [markdown] key="real" lang="en"
# ## 1 · The real engine: flat, flat, flat, then a wall
# %% key="real-widget"


class ProcessorClock:
    """Seconds this thread has computed: what others use of the processor does not count, and idle time is skipped."""

    def __init__(self) -> None:
        self.skipped, self.start = 0.0, time.thread_time()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.thread_time() - self.start + self.skipped

    def advance(self, seconds: float) -> None:
        """A step has taken its time by itself."""

    def advance_to(self, moment: float) -> None:
        """Skip to a moment when nothing is to be done before it."""
        self.skipped += max(0.0, moment - self.now)


def run_for_real(rate: float, count: int):
    """course-tiny under `count` requests at `rate` a second, computed here and now: the table."""
    import torch

    torch.set_num_threads(1)
    engine = Engine.from_model("course-tiny", device="cpu", max_running=16, clock=ProcessorClock())
    return replay(engine, open_loop(Poisson(rate), Lognormal(40, sigma=0.5), Lognormal(24, sigma=0.5), count, seed=1))


@cache
def capacity() -> float:
    """Requests a second of a burst of 24, on this machine (the first burst only warms up)."""
    run_for_real(1e4, 4)
    return summary(run_for_real(1e4, 24)).request_rate


@cache
def measured(share: float) -> dict[str, float]:
    """A run of about 1.2 s at a share of the capacity: median time to first token in seconds."""
    rate = share * capacity()
    table = run_for_real(rate, max(16, round(1.2 * rate)))
    return {"rate": share, "p50": percentile(table["ttft"], 50), "samples": len(table)}


live: dict[float, dict[str, float]] = {}


def real_curve(source: str, share: float):
    """The recorded curve, and beside it what has been measured live so far."""
    said = f"A recorded run ({RECORDED['machine']}, {RECORDED['date']}; capacity {RECORDED['capacity']:.0f} requests/s)."
    if source == "live":
        try:
            live[share] = measured(share)
            said = f"Live at {share:g} of this machine's capacity ({capacity():.0f} requests/s): median {seconds(live[share]['p50'])}."
        except Exception as error:  # whatever goes wrong in front of a class: the recorded run stands
            said = f"No live run here ({type(error).__name__}). {said}"
    recorded = [{"rate": row["share"], "p50": row["ttft_p50"], "samples": row["samples"]} for row in RECORDED["rows"]]
    curves = {"recorded": recorded} | ({"live": list(live.values())} if source == "live" and live else {})
    figure = viz.latency_throughput(curves, "ttft", quantiles=(50,), title="course-tiny, really computed: median time to first token",
                                    unit=" of capacity")
    return finish(figure, said, viz.table(figure).columns, viz.table(figure).rows)


real = viz.Explorer(
    "The real engine", real_curve,
    {"source": viz.Choice("source", ["recorded", "live"], "recorded"), "share": viz.Slider("share of capacity", SHARES, SHARES[0])},
    presets={"Replay": {"source": "recorded"}, "live, half full": {"source": "live", "share": 0.6},
             "live, break it": {"source": "live", "share": 2.5}},
    question="at 0.6 of the capacity, how much longer is the wait for the first token than on an empty machine? At 2.5 times?",
    answer="A little; and without end: above its capacity the wait grows for as long as the test goes on.")
real
# %% [markdown] key="simulated" lang="en"
# ## 2 · Llama 2 7B on one A100: how much can it take?
# %% key="simulated-widget"
RATES = (2, 5, 8, 10, 12, 14, 17, 20)


@cache
def chats(rate: int):
    """300 simulated chats at `rate` a second: prompts of 500 tokens in the median, answers of 80."""
    arrivals = open_loop(Poisson(rate), Lognormal(500, sigma=0.7), Lognormal(80, sigma=0.7), 300, seed=3)
    return replay(Engine.simulated(max_running=64, ledger=Ledger()), arrivals)


def operating_point(rate: int, metric: str, limit: float):
    """The curve, with the chosen rate run and marked."""
    table = chats(rate)
    figure = viz.latency_throughput([(r, chats(r)) for r in sorted({*RATES, rate})], metric, slo=limit, title="P50 and P99 against the load")
    guide(figure, "x", rate, f"you: {rate}/s", BLUE, end=False)
    finding = (f"At {rate} requests/s: P50 {seconds(percentile(table[metric], 50))}, P99 {seconds(percentile(table[metric], 99))}, "
               f"{float((table[metric] <= limit).mean()):.0%} within {seconds(limit)}.")
    return finish(figure, finding, viz.table(figure).columns, viz.table(figure).rows)


simulated = viz.Explorer(
    "How much can it take?", operating_point,
    {"rate": viz.Slider("requests/s", [*range(2, 21), 24], 5), "metric": viz.Choice("latency", ["ttft", "tpot", "e2e"], "ttft"),
     "limit": viz.Slider("promise, s", [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0], 1.0)},
    presets={"half full": {"rate": 5, "metric": "ttft", "limit": 1.0}, "break it": {"rate": 17, "metric": "ttft", "limit": 1.0},
             "mend it": {"rate": 11, "metric": "ttft", "limit": 1.0}, "the other promise": {"rate": 13, "metric": "tpot", "limit": 0.05}},
    question="at which rate does the P99 of TTFT cross 1 s, long after the median seems fine?",
    answer="Between 12 and 13 a second; the median is a quarter of a second there.")
simulated
# %% [markdown] key="waterfall" lang="en"
# ## 3 · Where each request's time goes
# %% key="waterfall-widget"
POLICIES = {"FCFS": lambda quantum: FCFS(), "round robin": RoundRobin, "SJF": lambda quantum: SJF(), "SRTF": lambda quantum: SRTF()}


def served(policy: str, rate: int, seats: int, quantum: int, known: str = "exactly"):
    """The log of 16 requests with a few long answers, under a policy."""
    work = with_oracle(open_loop(Poisson(rate), Lognormal(300, sigma=0.7), Lognormal(60, sigma=1.2), 16, seed=8))
    if known != "exactly":
        work = [replace(a, predicted=None if known == "not at all" else a.prompt_tokens) for a in work]
    engine = Engine.simulated(policy=POLICIES[policy](quantum), max_running=seats)
    replay(engine, work, declared=2048)  # what a request says at the door: at most 2,048 tokens
    return engine.events


def waterfall_of(policy: str, rate: int, seats: int):
    """The waterfall of one run."""
    return viz.request_waterfall(served(policy, rate, seats, 32), f"16 requests under {policy}")


waterfall = viz.Explorer(
    "Waterfall", waterfall_of,
    {"policy": viz.Choice("policy", list(POLICIES), "FCFS"), "rate": viz.Slider("requests/s", [1, 2, 4, 6, 8, 12], 6),
     "seats": viz.Slider("places", [1, 2, 4, 8, 16, 32], 4)},
    presets={"a jam": {"policy": "FCFS", "rate": 6, "seats": 2}, "short ones first": {"policy": "SJF", "rate": 6, "seats": 2},
             "room for all": {"policy": "FCFS", "rate": 6, "seats": 32}},
    question="who holds up whom, and what would you change: the order or the places?",
    answer="Long answers hold the places; the short ones behind them wait. SJF lets those past; more places let everybody in.")
waterfall
# %% [markdown] key="race" lang="en"
# ## 4 · The policy race: place your bets
# %% key="race-widget"


def race_of(rate: int, seats: int, quantum: int, known: str):
    """All four policies on the same requests."""
    return viz.policy_race({name: served(name, rate, seats, quantum, known) for name in POLICIES})


USUAL = {"rate": 6, "seats": 4, "quantum": 32, "known": "exactly"}
race = viz.Explorer(
    "Policy race", race_of,
    {"rate": viz.Slider("requests/s", [1, 2, 4, 6, 8, 12], 6), "seats": viz.Slider("places", [1, 2, 4, 8, 16, 32], 4),
     "quantum": viz.Slider("quantum of round robin, tokens", [8, 16, 32, 64, 128, 256], 32),
     "known": viz.Choice("lengths are known", ["exactly", "by the prompt", "not at all"], "exactly")},
    presets={"one place": USUAL | {"rate": 2, "seats": 1}, "room for everybody": USUAL | {"seats": 32}, "blind": USUAL | {"known": "not at all"},
             "short turns": USUAL | {"quantum": 8}},
    question="which policy has the lowest mean, which the lowest P99, and which would you want as the one with the longest answer?",
    answer="SRTF and SJF have the lowest mean, FCFS the lowest P99: whoever has the longest answer pays for the mean.")
race
