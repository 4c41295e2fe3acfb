"""Maps of giving way: who should, and whether its KV is thrown away or carried out and in again."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks._decide_fair import MODEL, Figures, rows_of
from benchmarks._maps import Cell, Maker, Map, Row
from llmcourse.engine import Engine, replay
from llmcourse.executors.roofline import link_prices
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.metrics.summary import summary
from llmcourse.model.shapes import shape
from llmcourse.policies import FCFS, VICTIMS, with_victim
from llmcourse.workload import Arrival, Lognormal, Poisson, open_loop, with_oracle

GPU, BLOCK = "A100 80 GB", 16


# ---- whom --------------------------------------------------------------------------------------------------------

def victims(seeds: Sequence[int], quick: bool) -> Map:
    """What each rule for victims costs under first come, first served, with memory for about a third of the batch."""
    count, loads = (80, (3.0,)) if quick else (300, (1.5, 2.0, 3.0))
    rows: list[Row] = []
    for load in loads:
        def run(rule: str, seed: int, load: float = load) -> Figures:
            engine = Engine.simulated(MODEL, "A10", policy=with_victim(FCFS(), rule), num_blocks=400, max_running=64)
            table = replay(engine, _mixed(seed, count, load))
            told, counters = summary(table), engine.counters
            each = counters.recomputed_tokens / max(1, counters.preemptions)
            return {"tokens/s": told.output_rate, "recomputed tokens": counters.recomputed_tokens,
                    "preemptions": counters.preemptions, "tokens each": each, "e2e p99 (s)": told.e2e.p99,
                    "s/token mean": told.normalised.mean, "s/token p99": told.normalised.p99,
                    "most preempted": float(table["preemptions"].max())}
        rows += rows_of({name: name for name in VICTIMS}, seeds, run, **{"requests/s": load})
    return Map(f"Who gives way: {count} requests of very different lengths, output known to the rule that asks for it, "
               f"FCFS admission, recomputation, KV for 6,400 tokens, {MODEL} on an A10",
               "'tokens each' is what one preemption throws away. Who is closest to finishing would have freed its "
               "blocks by itself in a moment. Large victims free more at once, so there are fewer of them. The rule "
               "decides who waits, too: look at p99 beside tokens/s. Under FCFS the latest arrival is always the one "
               "that has done least, so these two rules are one.",
               list(rows[0]), rows)


def _mixed(seed: int, count: int, rate: float) -> list[Arrival]:
    made = open_loop(Poisson(rate), Lognormal.of_moments(250, 250), Lognormal.of_moments(250, 200), count, seed=seed)
    return [Arrival(a.time, min(a.prompt_tokens, 2000), min(a.output_tokens, 2000), priority=number % 3,
                    predicted=min(a.output_tokens, 2000)) for number, a in enumerate(with_oracle(made))]


# ---- how ---------------------------------------------------------------------------------------------------------

GB = 1e9
LINKS = {"Llama 2 7B": (4, 12, 20, 45), "Llama 3 8B": (1, 3, 4, 20)}          # GB/s; PCIe 3, 4 and 5: about 12, 20, 45
CONTEXTS = (64, 256, 1024, 4096, 16_384)
LONGEST, FREE = 32_768, 1e18


def swap(seeds: Sequence[int], quick: bool) -> Map:
    """What a preemption costs by context and link, foretold by prices and measured by running both."""
    rows: list[Row] = []
    for model, links in LINKS.items():
        for link in links[1:3] if quick else links:
            prices = link_prices(RooflineCost(hardware(GPU), shape(model)), shape(model), BLOCK, link * GB)
            crossover = prices.crossover(BLOCK, LONGEST)
            for context in CONTEXTS[1:3] if quick else CONTEXTS:
                foretold = {"recompute": prices.prompt(context), "swap": prices.swap(context, BLOCK)}
                runs = {mode: [_tight(model, mode, link * GB, context, seed) for seed in seeds] for mode in foretold}
                rows.append({"model": model, "link (GB/s)": link, "context": context,
                             "crossover": crossover or f"> {LONGEST:,}",
                             **{f"{mode}, by price (ms)": 1000 * seconds for mode, seconds in foretold.items()},
                             **{f"{mode}, {key}": Cell.of([run[key] for run in made])
                                for key in ("run (ms)", "tokens/s") for mode, made in runs.items()}})
                rows[-1] |= {"by price": min(foretold, key=foretold.__getitem__),
                             "when run": max(runs, key=lambda mode: rows[-1][f"{mode}, tokens/s"].mean)}
    right = sum(row["by price"] == row["when run"] for row in rows)
    return Map(f"Recompute or swap on an {GPU}: 24 requests of about equal length, memory for 12 of them",
               "The crossover is the context from which on swapping is always cheaper by price (a very short one may "
               "be cheaper to swap, too: any step reads all weights). 'run' is what a preemption cost in a run, over "
               "the same run with a link that takes no time: among others who decode, recomputing shares the reading "
               "of the weights, and the link is paid in full.",
               list(rows[0]), rows, {"faster as foretold by price": f"{right} of {len(rows)}"})


def _tight(model: str, mode: str, link: float, context: int, seed: int) -> dict[str, float]:
    """24 requests at once whose KV, about ``context`` tokens each, does not fit; ms over free preemptions, for each."""
    grown = max(16, context // 8)                             # prompt and half the output make the context
    work = [Arrival(0.0, context - grown // 2 + seed, grown) for _ in range(24)]

    def serve(mode: str, link: float) -> Engine:
        engine = Engine.simulated(model, GPU, num_blocks=12 * -(-(context + grown) // BLOCK), preemption=mode,
                                  host_blocks=10 ** 6, link=link, max_running=24, token_budget=2048)
        replay(engine, work)
        return engine
    engine, free = serve(mode, link), serve("swap", FREE)
    assert engine.counters.preemptions and free.counters.preemptions, "there was room for all"
    over = (engine.clock.now - free.clock.now) / engine.counters.preemptions
    return {"tokens/s": 24 * grown / engine.clock.now, "run (ms)": 1000 * over}


MAPS: dict[str, Maker] = {"victims": victims, "swap": swap}
