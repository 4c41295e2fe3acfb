"""Accuracy or order: a classifier that is right 97 times in 100 and of no use, beside one that is hardly ever right.

Lengths are skewed: with buckets a tenth of the longest length wide nearly every answer falls into the first, and who
always says "the first" is almost always right. With buckets of ten tokens nobody hits the right one, and the misses
are near. Both classifiers here are the same machine with the same knowledge, a signal that is the logarithm of the
length with noise, and learn from the same examples which bucket is likeliest. Accuracy prefers the first, Kendall's tau
the second; the simulator says who shortens the mean time of a request when the shortest go first. The contrast is Fu et
al.'s (NeurIPS 2024: accuracy 0.97 with tau 0.21 for buckets of 820 tokens). Week 9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmcourse.engine.engine import Engine
from llmcourse.engine.policy import Policy
from llmcourse.engine.replay import replay
from llmcourse.predict.evaluate import accuracy, kendall_tau
from llmcourse.workload.arrival import Arrival
from llmcourse.workload.generate import generator, open_loop
from llmcourse.workload.lengths import Constant, Lengths, Lognormal
from llmcourse.workload.processes import Poisson

LONGEST = 8192
LENGTHS = Lognormal(120, sigma=1.0)                        # cut at LONGEST; 97 in 100 are below a tenth of it
NOISE = 0.5                                                # of the signal, in log length
WIDTHS = (10, 50, 200, LONGEST // 10)                      # of a bucket, in tokens
EXAMPLES = 20_000                                          # to learn from
NEIGHBOURS = 400                                           # examples that vote
SLOTS = 32
PROMPT = 60                                                # tokens of every prompt


@dataclass(frozen=True)
class Outcome:
    """One classifier: bucket width (tokens; 0 for an oracle, None for no prediction), how right, and what it buys."""

    width: int | None
    accuracy: float | None
    tau: float | None
    mean_jct: float                                        # s, from arrival to last token
    tokens_per_second: float


class SecondsPerRequest:
    """Step times that depend on how many requests there are and not on how long they have become."""

    step, request, token = 0.012, 0.0002, 0.00006

    def seconds(self, tokens: int, requests: int, context: float | np.ndarray, pairs: float | np.ndarray,
                ) -> float | np.ndarray:
        """12 ms, 0.2 ms a request, 0.06 ms a prompt token."""
        return self.step + self.request * requests + self.token * (tokens - requests) + 0 * context

    def capacity(self, lengths: Lengths) -> float:
        """Requests/s of such lengths that all slots together can serve."""
        mean = float(np.minimum(lengths.at((np.arange(10_000) + 0.5) / 10_000), LONGEST).mean())
        return 1 / (mean * (self.step / SLOTS + self.request) + PROMPT * self.token)


def classify(signal: np.ndarray, examples: np.ndarray, answers: np.ndarray, width: int) -> np.ndarray:
    """The likeliest bucket for each signal by the vote of the nearest examples; its middle, in tokens."""
    order = np.argsort(examples)
    known, voted = examples[order], answers[order] // width
    start = np.clip(np.searchsorted(known, signal) - NEIGHBOURS // 2, 0, len(known) - NEIGHBOURS)
    buckets = np.array([np.bincount(voted[first:first + NEIGHBOURS]).argmax() for first in start])
    return (buckets + 0.5) * width


def serve(workload: Sequence[Arrival], policy: Policy) -> tuple[float, float]:
    """(mean time of a request, output tokens/s) on a simulated engine with 32 slots and room for all.

    Tokens are counted up to the last arrival: after that only what was put off is left, fewer requests than slots.
    """
    engine = Engine.simulated(cost=SecondsPerRequest(), policy=policy, max_running=SLOTS, num_blocks=2**20)
    replay(engine, workload, stop=lambda: engine.clock.now >= workload[-1].time)
    rate = sum(request.num_output for request in engine.requests.values()) / engine.clock.now
    while not engine.idle:
        engine.step()
        engine.forward()
    return float(engine.table()["e2e"].mean()), rate


def accuracy_or_order(shortest_first: Callable[[], Policy], *, count: int = 1000, load: float = 1.2, seed: int = 0,
                      widths: Sequence[int] = WIDTHS, lengths: Lengths = LENGTHS) -> list[Outcome]:
    """First come first served, then the policy with each classifier, the widest last, then with an oracle.

    ``shortest_first`` makes a policy that goes by ``predicted``. ``load`` 1 asks for as much as the engine can serve.
    """
    rng = generator(seed)
    rate = load * SecondsPerRequest().capacity(lengths)
    answers = np.minimum(lengths.sample(rng, EXAMPLES), LONGEST)
    signals = np.log(answers) + NOISE * rng.standard_normal(EXAMPLES)
    arrivals = [replace(arrival, output_tokens=min(arrival.output_tokens, LONGEST)) for arrival in
                open_loop(Poisson(rate), Constant(PROMPT), lengths, count, seed + 1)]
    truth = np.array([arrival.output_tokens for arrival in arrivals])
    signal = np.log(truth) + NOISE * rng.standard_normal(count)
    outcomes = [Outcome(None, None, None, *serve(arrivals, Policy()))]
    for width in (*sorted(widths), 0):
        said = classify(signal, signals, answers, width) if width else truth
        right = accuracy(truth // width, said // width, np.arange(LONGEST)) if width else 1.0
        guessed = [replace(arrival, predicted=float(tokens)) for arrival, tokens in zip(arrivals, said, strict=True)]
        outcomes.append(Outcome(width, right, kendall_tau(truth, said), *serve(guessed, shortest_first())))
    return outcomes
