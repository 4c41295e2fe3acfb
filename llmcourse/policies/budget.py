"""How many tokens may a step compute? As many as leave every running answer in time for its next token.

A step lasts as long as what is in it, and everybody who decodes waits for its end. So the budget of a step bounds the
time between tokens, whatever prompts come: a larger one finishes prompts sooner, a smaller one keeps answers fluent.
The rule is Sarathi-Serve's: the largest budget whose step, with a chunk in it, still meets the TPOT; in whole tiles,
for a GPU computes 257 tokens no faster than 384. Agrawal et al., 2024. Week 5.
"""

from llmcourse.errors import UserError
from llmcourse.metrics.cost_model import CostModel


def step_seconds(cost: CostModel, budget: int, running: int, context: float, prompt: float) -> float:
    """Seconds of a step of ``budget`` tokens: ``running`` decodes with ``context`` tokens kept for each, and a chunk.

    The chunk takes what the decodes leave; ``prompt`` tokens of its request are kept already, so it looks back on them.
    """
    chunk = budget - running
    pairs = chunk * prompt + chunk * (chunk + 1) / 2 if chunk > 1 else 0.0
    return float(cost.seconds(budget, running + (chunk > 0), running * context + prompt * (chunk > 0), pairs))


def choose_budget(cost: CostModel, tpot: float, running: int, context: float, prompt: float = 2048, tile: int = 128,
                  most: int = 8192) -> int:
    """Largest token budget, a multiple of ``tile`` up to ``most``, whose steps last at most ``tpot`` seconds.

    ``running``, ``context`` and ``prompt`` as for `step_seconds`: the batch and the chunk the promise holds for. Raises
    UserError when even the smallest budget that leaves room for a chunk takes too long.
    """
    if tile < 1 or running < 0 or context < 0 or prompt < 0 or most // tile <= running // tile:
        raise UserError(f"no budget to choose from: tile {tile}, most {most}, running {running}, context {context}, "
                        f"prompt {prompt}; a multiple of tile must lie in running + 1 .. most")
    low, high = running // tile, most // tile                 # in tiles; the answer lies between
    while low < high:                                         # a larger budget never makes a shorter step
        middle = (low + high + 1) // 2
        if step_seconds(cost, middle * tile, running, context, prompt) <= tpot:
            low = middle
        else:
            high = middle - 1
    if low == running // tile:
        raise UserError(_why_not(cost, tpot, running, context, prompt, (low + 1) * tile))
    return low * tile


def _why_not(cost: CostModel, tpot: float, running: int, context: float, prompt: float, budget: int) -> str:
    alone = step_seconds(cost, running, running, context, prompt) if running else 0.0
    step = step_seconds(cost, budget, running, context, prompt)
    ways = "run fewer requests at once" if alone > tpot else "run fewer requests, take a smaller tile or allow longer"
    return (f"no token budget keeps steps within {tpot * 1000:.4g} ms: {running} decodes alone take "
            f"{alone * 1000:.4g} ms, a step of {budget} tokens {step * 1000:.4g} ms; {ways}")
