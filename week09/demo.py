"""The pictures of week 9 for the projector; everything is computed when a control moves."""

# %% [markdown] key="title" lang="en"
# # Week 9 · Guessing how long
#
# Three pictures for the projector. Move a control; the mechanism answers.
# %% key="setup"
from dataclasses import replace
from functools import lru_cache

import numpy as np

from llmcourse import viz
from llmcourse.engine import Engine, replay
from llmcourse.metrics.ledger import Ledger
from llmcourse.metrics.summary import summary
from llmcourse.policies import FCFS, SJF
from llmcourse.predict import MLP, BucketClassifier, Constant, LengthData, ListMLE, LognormalNoise, Ridge, with_predictions
from llmcourse.predict.accuracy_or_order import SecondsPerRequest
from llmcourse.viz.series import curve
from llmcourse.viz.theme import canvas, finish
from llmcourse.workload import Arrival, Lognormal, Poisson, open_loop
from llmcourse.workload import Constant as Always

COST = SecondsPerRequest()


def mean_latency(policy, work):
    """Mean seconds of a request on 32 simulated slots."""
    engine = Engine.simulated(cost=COST, policy=policy, max_running=32, num_blocks=200_000, ledger=Ledger())
    return summary(replay(engine, work, declared=1024)).e2e.mean


# %% [markdown] key="scatter" lang="en"
# ## 1 · What a prediction buys: dots above, seconds beside them
# %% key="scatter-widget"
TRAIN, TEST = LengthData.load().split()
MODELS = {"oracle": None, "constant": Constant(), "ridge": Ridge(bag=True), "network": MLP(steps=150), "five buckets": BucketClassifier(steps=150),
          "ten wide buckets": BucketClassifier(range(51, 510, 51), steps=150), "ListMLE": ListMLE(1, steps=150)}
DRAW, COUNT, LOAD = np.random.default_rng(3), 500, 1.3
ROWS, COLUMNS = DRAW.integers(len(TEST), size=COUNT), DRAW.integers(TEST.samples, size=COUNT)
TRUTH, NORMAL = TEST.lengths[ROWS, COLUMNS], DRAW.standard_normal(COUNT)
RATE = LOAD / (float(TEST.lengths.mean()) * (COST.step / 32 + COST.request) + 60 * COST.token)
COMING = [Arrival(one.time, 60, int(length)) for one, length in zip(open_loop(Poisson(RATE), Always(60), Always(10), COUNT, 4), TRUTH, strict=True)]


@lru_cache
def fitted(name):
    """What a predictor says of the requests before it is spoilt; trained when it is first asked for."""
    return TRUTH.astype(float) if MODELS[name] is None else MODELS[name].fit(TRAIN).predict(TEST.prompts)[ROWS]


@lru_cache
def said(predictor, noise, times):
    """With noise, and multiplied; a ranker's scores have only noise."""
    if predictor == "ListMLE":
        return fitted(predictor) + noise * NORMAL
    return np.maximum(fitted(predictor) * np.exp(noise * NORMAL) * times, 1.0)


@lru_cache
def seconds(predictor, noise, times):
    """Mean latency when the shortest go first by it; without a predictor by arrival."""
    if not predictor:
        return mean_latency(FCFS(), COMING)
    return mean_latency(SJF(), [replace(one, predicted=float(tokens)) for one, tokens in zip(COMING, said(predictor, noise, times), strict=True)])


def scatter(predictor, noise, times):
    """Dots and bars."""
    bars = {"FCFS": seconds("", 0, 1), "this": seconds(predictor, noise, times), "oracle": seconds("oracle", 0, 1)}
    return viz.prediction_scatter(TRUTH, said(predictor, noise, times), bars, scores=predictor == "ListMLE", title=f"{predictor}: predicted and actual length", height=520)


start = {"predictor": "network", "noise": 0, "times": 1}
prediction = viz.Explorer(
    "Prediction scatter", scatter,
    {"predictor": viz.Choice("predictor", list(MODELS), "network"), "noise": viz.Slider("noise, sigma", [0, 0.3, 0.6, 1.0, 2.0], 0), "times": viz.Slider("times", [0.25, 0.5, 1, 2, 4], 1)},
    presets={"network": start, "four times too much": start | {"times": 4}, "noisy": start | {"noise": 2.0}, "wide buckets": start | {"predictor": "ten wide buckets"}, "only an order": start | {"predictor": "ListMLE"}},
    question="Which change moves the error and not the bars? Which moves the bars most?",
    answer="A factor changes the error and neither tau nor the latency. Noise changes both. Wide buckets tie most requests.", lecture=True)
prediction
# %% [markdown] key="error" lang="en"
# ## 2 · Where does it pay, and how right must it be?
# %% key="error-widget"
CHAT, SIGMAS = Lognormal(100, sigma=1.1), (0.0, 0.3, 0.6, 1.0, 2.0, 4.0)
CHAT_RATE = 1 / (float(np.minimum(CHAT.at((np.arange(10_000) + 0.5) / 10_000), 1024).mean()) * (COST.step / 32 + COST.request) + 60 * COST.token)


@lru_cache
def over_sigma(load):
    """Mean latency first come first served, and shortest first for every error."""
    work = [replace(one, output_tokens=min(one.output_tokens, 1024)) for one in open_loop(Poisson(load * CHAT_RATE), Always(60), CHAT, 500, 1)]
    return mean_latency(FCFS(), work), [mean_latency(SJF(), with_predictions(work, LognormalNoise(sigma), 7)) for sigma in SIGMAS]


def error(load):
    """Mean latency over the error, at a load."""
    base, found = over_sigma(load)
    figure = canvas(f"Load {load:g}: mean latency by the error of the prediction", 480)
    figure.add_trace(curve("shortest first", SIGMAS, found, 0))
    figure.add_trace(curve("first come, first served", SIGMAS, [base] * len(SIGMAS), 1, markers=False))
    figure.update_xaxes(title_text="sigma of the log-normal error (0: an oracle)")
    figure.update_yaxes(title_text="mean latency, s", range=[0, 1.15 * max(base, *found)])
    return finish(figure, f"Load {load:g}: {base:.2f} s by arrival, {found[0]:.2f} s by an oracle, {found[2]:.2f} s with sigma 0.6, {found[-1]:.2f} s with sigma 4.", ("sigma", "shortest first, s", "by arrival, s"),
                  [(sigma, round(took, 2), round(base, 2)) for sigma, took in zip(SIGMAS, found, strict=True)])


costs = viz.Explorer("What an error costs", error, {"load": viz.Slider("load", [0.7, 0.9, 1.0, 1.2, 1.5], 1.2)},
                     question="At which load does a prediction matter at all? How much noise is still harmless?",
                     answer="Below the knee nobody waits. Beyond it even a poor guess of the order takes a large part of the gain: wrong by a factor of two is harmless.", lecture=True)
costs
# %% [markdown] key="bins" lang="en"
# ## 3 · Bins for batches that must end together
# %% key="bins-widget"
LENGTHS = {"uniform": np.random.default_rng(5).integers(10, 501, 1536), "chat": np.minimum(CHAT.sample(np.random.default_rng(6), 1536), 1024).astype(int)}


def bins_view(lengths, bins, size, sigma):
    """Closed batches of these lengths, sorted by a guess with that error."""
    true = LENGTHS[lengths]
    guess = true * np.exp(sigma * np.random.default_rng(9).standard_normal(len(true)))
    return viz.batch_bins(true.tolist(), guess.tolist(), bins, size, height=500)


first = {"lengths": "uniform", "bins": 1, "size": 32, "sigma": 0.0}
multibin = viz.Explorer(
    "Bins", bins_view,
    {"lengths": viz.Choice("lengths", list(LENGTHS), "uniform"), "bins": viz.Slider("bins", [1, 2, 3, 4, 6, 8], 1), "size": viz.Slider("batch of", [8, 16, 32, 64], 32), "sigma": viz.Slider("error, sigma", [0.0, 0.3, 0.6, 1.0], 0.0)},
    presets={"one queue": first, "four bins": first | {"bins": 4}, "a chat": first | {"lengths": "chat", "bins": 4}, "guessed badly": first | {"lengths": "chat", "bins": 4, "sigma": 1.0}},
    question="What is the hatched part with one bin, with four? And what does one long answer do in a bin of short ones?",
    answer="With more bins the longest is near the mean of its batch. One request guessed too short makes its whole batch wait.", lecture=True)
multibin
