"""Recompute or swap: what a preemption costs by the length of the context, and where the two curves cross.

Computing a context again costs arithmetic; carrying it out and in again costs bytes over a link, twice. Both grow with
the length, so what decides is the bandwidth beside the speed of the GPU, and how many bytes a token leaves behind. The
prices are those by which the engine itself chooses (`Preemption("cheaper")`). Kwon et al., 2023, section 4.5. Week 10.
"""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from llmcourse.engine.preemption import Prices
from llmcourse.errors import UserError
from llmcourse.executors.roofline import link_prices
from llmcourse.metrics.cost_model import RooflineCost
from llmcourse.metrics.hardware import hardware
from llmcourse.model.shapes import shape
from llmcourse.viz.controls import Choice, Slider
from llmcourse.viz.explorer import Explorer
from llmcourse.viz.series import curve, guide, log_axis
from llmcourse.viz.theme import GREEN, INK, canvas, finish, seconds

GB = 1e9
BLOCK = 16
MODELS = ("Llama 2 7B", "Llama 3 8B", "Llama 2 13B")
GPUS = ("A10", "A100 80 GB", "H100 SXM")
LINKS = (0.5, 1, 2, 3, 4, 6, 8, 12, 16, 20, 32, 45, 64)          # GB/s
CONTEXTS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384)


def swap_or_recompute(prices: Prices, context: int = 1024, block_size: int = BLOCK, longest: int = CONTEXTS[-1],
                      title: str = "What a preemption costs") -> go.Figure:
    """Milliseconds by context (tokens) for both ways; one context is marked, and where the curves cross.

    Raises:
        UserError: a context that is not between 1 and the longest.
    """
    if not 1 <= context <= longest:
        raise UserError(f"a context of {context} tokens; give 1 to {longest:,}")
    lengths = sorted({*(n for n in CONTEXTS if n <= longest), context, longest})
    ways = {"compute it again": [1000 * prices.prompt(n) for n in lengths],
            "swap it out and in": [1000 * prices.swap(n, block_size) for n in lengths]}
    figure = canvas(title, 460)
    for index, (name, found) in enumerate(ways.items()):
        figure.add_trace(curve(name, lengths, found, index))
    log_axis(figure, "x", lengths, "tokens of context", room=1.1)
    log_axis(figure, "y", [value for found in ways.values() for value in found], "ms a preemption")
    crossing = prices.crossover(block_size, longest)
    guide(figure, "x", context, f"{context:,} tokens", INK, end=False)
    if crossing is not None and crossing > 1:
        guide(figure, "x", crossing, f"swap from {crossing:,} on", GREEN)
    again, moved = prices.prompt(context), prices.swap(context, block_size)
    cheaper = [n for n, a, b in zip(lengths, *ways.values(), strict=True) if b <= a]
    return finish(figure, _finding(context, again, moved, crossing, cheaper, longest),
                  ("tokens", *(f"{name}, ms" for name in ways), "cheaper"),
                  [(n, round(a, 2), round(b, 2), "swap" if b <= a else "compute")
                   for n, a, b in zip(lengths, *ways.values(), strict=True)])


def _finding(context: int, again: float, moved: float, crossing: int | None, cheaper: Sequence[int],
             longest: int) -> str:
    chosen, ratio = ("swap it", again / moved) if moved <= again else ("compute it again", moved / again)
    where = ((f"swapping is cheaper only for short contexts, {max(cheaper):,} tokens of those drawn" if cheaper else
              f"swapping is cheaper at no length up to {longest:,} tokens") if crossing is None else
             "swapping is cheaper at every length" if crossing == 1 else
             f"from {crossing:,} tokens on swapping is always cheaper")
    return (f"A context of {context:,} tokens: {seconds(again)} to compute it again, {seconds(moved)} to swap it out "
            f"and in, so {chosen} ({ratio:.2g} times cheaper); {where}.")


def break_even(prices: Prices, link: float, context: int, block_size: int = BLOCK) -> float:
    """Bytes/s at which both ways cost the same for a context; ``link`` (bytes/s) is what the prices were made for."""
    return link * prices.swap(context, block_size) / prices.prompt(context)


def break_even_curves(models: Mapping[str, Prices], link: float, links: Mapping[str, float] | None = None,
                      contexts: Sequence[int] = CONTEXTS[1:], block_size: int = BLOCK,
                      title: str = "The bandwidth at which both cost the same") -> go.Figure:
    """A curve for each model over the context: above it swap, below it compute again; ``links`` (bytes/s) are guides.

    Raises:
        UserError: nothing to draw.
    """
    if not models or not contexts:
        raise UserError("break-even curves need at least one model's prices and one context")
    found = {name: [break_even(prices, link, n, block_size) / GB for n in contexts] for name, prices in models.items()}
    figure = canvas(title, 460)
    for index, (name, values) in enumerate(found.items()):
        figure.add_trace(curve(name, contexts, values, index))
    shown = {name: value / GB for name, value in (links or {}).items()}
    log_axis(figure, "x", contexts, "tokens of context", room=1.1)
    log_axis(figure, "y", [*(v for values in found.values() for v in values), *shown.values()],
             "GB/s: above swap, below compute")
    for name, value in shown.items():
        guide(figure, "y", value, name, INK, end=_right_is_free(list(found.values()), value))
    said = "; ".join(f"{name} {values[0]:.2g} GB/s at {contexts[0]:,} tokens and {values[-1]:.2g} at {contexts[-1]:,}"
                     for name, values in found.items())
    return finish(figure, f"Swapping pays above {said}.", ("tokens", *(f"{name}, GB/s" for name in found)),
                  [(n, *(round(values[k], 2) for values in found.values())) for k, n in enumerate(contexts)])


def _right_is_free(curves: Sequence[Sequence[float]], value: float) -> bool:
    """Are words at a value further from the last points of the curves than from the first? By factors."""
    some = max(1, len(curves[0]) // 3)
    first, last = (min(abs(math.log(y / value)) for values in curves for y in values[part])
                   for part in (slice(0, some), slice(-some, None)))
    return last >= first


def swap_explorer(model: str = MODELS[0], gpu: str = GPUS[1], link: float = 4, context: int = 1024,
                  lecture: bool = False) -> Explorer:
    """`swap_or_recompute` with a model, a GPU, a link and a context to choose."""

    def view(model: str, gpu: str, link: float, context: int) -> go.Figure:
        config = shape(model)
        prices = link_prices(RooflineCost(hardware(gpu), config), config, BLOCK, link * GB)
        return swap_or_recompute(prices, context, title=f"{model} on one {gpu}, a link of {link:g} GB/s")

    return Explorer(
        "Recompute or swap", view,
        {"model": Choice("model", MODELS, model), "gpu": Choice("GPU", GPUS, gpu),
         "link": Slider("link", LINKS, link, "GB/s"), "context": Slider("context", CONTEXTS, context, "tokens")},
        presets={"PCIe 4": {"link": 20}, "nearly the same": {"link": 12}, "a slow link": {"link": 1},
                 "few KV heads": {"model": MODELS[1], "link": 4},
                 "a slow GPU": {"gpu": GPUS[0]}},
        question="At which bandwidth does swapping begin to win? Does that depend on the length? On the model?",
        answer="It hardly depends on the length, for both grow with it: a token costs so many bytes or FLOPs. A "
               "faster GPU asks for a faster link; a model with few KV heads leaves fewer bytes. Very short contexts "
               "are special: any step reads all weights once, however few tokens it computes.", lecture=lecture)
