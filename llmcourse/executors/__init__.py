"""What RUNS a batch: a mock for tests and labs, a real model in torch, a roofline on paper (weeks 2-5)."""

from importlib import import_module
from typing import Any

from llmcourse.executors.mock import MockExecutor
from llmcourse.executors.roofline import RooflineExecutor

__all__ = ["MockExecutor", "RooflineExecutor", "TorchExecutor"]


def __getattr__(name: str) -> Any:
    """Load torch only for the executor that needs it (PEP 562)."""
    if name == "TorchExecutor":
        return import_module("llmcourse.executors.torch").TorchExecutor
    raise AttributeError(f"module 'llmcourse.executors' has no attribute {name!r}")
