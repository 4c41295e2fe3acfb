"""Ready-made explorers of weeks 1 and 2: attention, sampling, roofline, KV memory.

Each is one line in a notebook and a few here: a view, its controls, presets that break and mend, a question to answer
before looking. Real models come in as arguments, so these work with any, and without torch in tests. Weeks 1 and 2.
"""

from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from llmcourse.viz.attention import attention_map
from llmcourse.viz.controls import Choice, Control, Slider, Text
from llmcourse.viz.distribution import next_token_distribution
from llmcourse.viz.explorer import Explorer
from llmcourse.viz.kv_memory import KVShape, kv_calculator
from llmcourse.viz.roofline import Point, Roof, roofline_chart

Weights = Sequence[Sequence[float]]
TEMPERATURES = [round(0.1 * k, 1) for k in range(21)]


def attention_explorer(
    look: Callable[[str, int, int], tuple[Sequence[str], Weights]],
    layers: int,
    heads: int,
    text: str = "The cat sat on the mat because it was tired.",
    limit: int = 160,
) -> Explorer:
    """Attention of any layer and head over a typed sentence.

    `look(text, layer, head)` gives the T token texts and the T x T weights.
    """

    def view(text: str, layer: int, head: int) -> go.Figure:
        tokens, weights = look(text, layer, head)
        return attention_map(tokens, weights, f"Layer {layer}, head {head}: who looks at whom")

    controls: dict[str, Control] = {
        "text": Text("sentence", text, limit),
        "layer": Slider("layer", range(layers), 0),
        "head": Slider("head", range(heads), 0),
    }
    return Explorer(
        "Attention",
        view,
        controls,
        question="which heads look at the token just before, and which at the first?",
        answer="Early heads often look next door; many heads rest on the first token when nothing fits.",
    )


def distribution_explorer(
    tokens: Sequence[str], logits: Callable[[str], Sequence[float]] | Sequence[float], prompt: str = ""
) -> Explorer:
    """The next token under temperature, top-k and top-p; `logits` is V numbers, or a function of a typed prompt."""
    controls: dict[str, Control] = {
        "temperature": Slider("temperature", TEMPERATURES, 1.0),
        "top_k": Slider(
            "top-k", [0, 1, 2, 3, 5, 10, 20, 50], 0, labels=["off", "1", "2", "3", "5", "10", "20", "50"]
        ),
        "top_p": Slider("top-p", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0], 1.0),
    }
    if callable(logits):
        controls = {"prompt": Text("prompt", prompt), **controls}

    def view(temperature: float, top_k: int, top_p: float, prompt: str = "") -> go.Figure:
        row = logits(prompt) if callable(logits) else logits
        return next_token_distribution(tokens, row, temperature, top_k, top_p)

    return Explorer(
        "Next token",
        view,
        controls,
        presets={
            "greedy": {"temperature": 0.0},
            "careful": {"temperature": 0.7, "top_p": 0.9},
            "wild": {"temperature": 2.0, "top_k": 0, "top_p": 1.0},
        },
        question="does a higher temperature change which token is the likeliest?",
        answer="Never: temperature keeps the order and only moves the gaps. Top-k and top-p cut the tail.",
    )


def roofline_explorer(
    roofs: Sequence[Roof],
    work: Callable[[int, int], Sequence[Point]],
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    contexts: Sequence[int] = (128, 512, 2048, 8192, 32768),
) -> Explorer:
    """Operating points that move with batch and context; `work(batch, context)` gives them."""
    by_name = {roof.name: roof for roof in roofs}

    def view(machine: str, batch: int, context: int) -> go.Figure:
        return roofline_chart(
            by_name[machine], work(batch, context), f"{machine}: batch {batch}, context {context:,} tokens"
        )

    controls: dict[str, Control] = {
        "machine": Choice("machine", list(by_name), roofs[0].name),
        "batch": Slider("batch", list(batches), batches[0], "sequences"),
        "context": Slider("context", list(contexts), contexts[0], "tokens"),
    }
    return Explorer(
        "Roofline",
        view,
        controls,
        presets={"one chat": {"batch": batches[0]}, "full batch": {"batch": batches[-1]}},
        question="how large must the batch be before decoding is held by arithmetic?",
        answer="A batch shares the weights it reads, so its intensity grows with the batch; the KV cache "
        "is read by its own sequence only, so a long context pulls the point back.",
    )


def kv_explorer(
    shapes: Sequence[KVShape],
    gpus: dict[str, float],
    contexts: Sequence[int] = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
) -> Explorer:
    """KV memory of models on GPUs; `gpus` maps a name to its memory in bytes."""
    by_name = {shape.name: shape for shape in shapes}
    sizes = {"16 bits": 2.0, "8 bits": 1.0, "4 bits": 0.5}

    def view(model: str, gpu: str, context: int, kv: str, weights: str) -> go.Figure:
        return kv_calculator(by_name[model], gpus[gpu], context, sizes[kv], sizes[weights], gpu_name=gpu)

    controls: dict[str, Control] = {
        "model": Choice("model", list(by_name), shapes[0].name),
        "gpu": Choice("GPU", list(gpus), next(iter(gpus))),
        "context": Slider("context", list(contexts), contexts[len(contexts) // 2], "tokens"),
        "kv": Choice("KV cache", list(sizes), "16 bits"),
        "weights": Choice("weights", list(sizes), "16 bits"),
    }
    return Explorer(
        "KV memory",
        view,
        controls,
        presets={"short chats": {"context": contexts[0]}, "whole books": {"context": contexts[-1]}},
        question="which saves more at a long context: weights of 4 bits, or a KV cache of 8 bits?",
        answer="Weights are paid once, the KV cache by every token of every request: at long contexts the "
        "cache is what fills the memory.",
    )
