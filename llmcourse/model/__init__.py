"""WHAT is served: transformer, attention, tokenizer, sampling, decoding, loading, training (weeks 1-2).

`ModelConfig` is free of torch; everything else loads torch when it is first asked for.
"""

from importlib import import_module
from typing import Any

from llmcourse.model.config import ModelConfig, RopeScaling

_HOMES = {
    "Transformer": "transformer",
    "load_model": "loading",
    "save_model": "loading",
    "Tokenizer": "tokenizer",
    "generate": "decoding",
}

__all__ = ["ModelConfig", "RopeScaling", *_HOMES]


def __getattr__(name: str) -> Any:
    """Load a name's module on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"llmcourse.model.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'llmcourse.model' has no attribute {name!r}")
